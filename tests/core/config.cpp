#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>

namespace pl = promptlayer;
using namespace std::chrono_literals;

namespace {

pl::config with_url(std::string url) { return {.api_key = "pl_key", .base_url = std::move(url)}; }

bool accepted(std::string url) { return pl::validate(with_url(std::move(url))).empty(); }

/// Returns the name of the only invalid member.
std::string invalid_member(const pl::config& settings) {
    const auto violations = pl::validate(settings);
    REQUIRE(violations.size() == 1);
    CHECK(violations[0] == pl::violation{violations[0].path, pl::rule::setting, 0, 0, violations[0].message});
    CHECK_FALSE(violations[0].message.empty());
    return violations[0].path;
}

void set_environment(const char* name, const char* value) {
#if defined(_WIN32)
    _putenv_s(name, value ? value : "");
#else
    value ? setenv(name, value, 1) : unsetenv(name);
#endif
}

} // namespace

TEST_CASE("a config defaults to the service's URL and the documented limits") {
    const pl::config settings{.api_key = "pl_key"};
    CHECK(settings.base_url == "https://api.promptlayer.com");
    CHECK(settings.timeout == 10s);
    CHECK(settings.user_agent == "promptlayer-cpp/" + std::string{pl::library_version});
    CHECK(settings.max_response_bytes == 1024 * 1024);
    CHECK(settings.max_request_bytes == 8 * 1024 * 1024);
    CHECK_FALSE(settings.allow_insecure_http);
    CHECK(pl::validate(settings).empty());
}

TEST_CASE("an API key must be visible ASCII and not empty") {
    CHECK(invalid_member({}) == "api_key");
    for (const char* key : {"a b", " a", "a\r\nX-Evil: 1", "a\n", "a\t", "a\x7F", "a\xC3\xA9"})
        CHECK(invalid_member({.api_key = key}) == "api_key");
    CHECK(invalid_member({.api_key = std::string("a\0b", 3)}) == "api_key");
    CHECK(pl::validate(pl::config{.api_key = "!~pl_09azAZ"}).empty());
}

TEST_CASE("an https URL may have any host, a port and a path") {
    for (const char* url :
         {"https://api.promptlayer.com", "https://api.promptlayer.com/", "HTTPS://Host", "https://h:1",
          "https://h:65535", "https://h/prefix/v1/", "https://10.0.0.1:8443", "https://[2001:db8::1]:443",
          "https://a-b.c3.d", "https://az.09.zz-9a", "https://h/@", "https://h/a:b"})
        CHECK(accepted(url));
}

TEST_CASE("a base URL is rejected unless it is a scheme, a host, a port and a path") {
    for (const char* url : {"",
                            "h",
                            "https",
                            "https:",
                            "http",
                            "https:/h",
                            "https://",
                            "https:///path",
                            "https://:443",
                            "ftp://h",
                            "://h",
                            "file:///etc",
                            "https//h",
                            "https://user@h",
                            "https://user:word@h",
                            "https://@h",
                            "https://h?q",
                            "https://h/?q",
                            "https://h#f",
                            "https://h/a b",
                            "https://h ",
                            " https://h",
                            "https://h\\@x",
                            "https://h/\\",
                            "https://h\r\nX: 1",
                            "https://h\t",
                            "https://h\x7F",
                            "https://h\xC3\xA9",
                            "https://h:",
                            "https://h:0",
                            "https://h:00",
                            "https://h:080",
                            "https://h:65536",
                            "https://h:4294967297",
                            "https://h:-1",
                            "https://h:+1",
                            "https://h:x",
                            "https://h:1x",
                            "https://h:1:2",
                            "https://[::1",
                            "https://::1]",
                            "https://[]",
                            "https://[",
                            "https://[::1]x",
                            "https://[::1]:",
                            "https://[g::]",
                            "https://h%2e",
                            "https://[::1]x80",
                            "https://a_b.c",
                            "https://.",
                            "https://...",
                            "https://a..b",
                            "https://h.",
                            "https://-a",
                            "https://a-.b",
                            "https://[127.0.0.1]",
                            "https://[.]",
                            "https://[a]",
                            "https://[::::]",
                            "https://[::1%25lo]",
                            "https://127.1",
                            "https://2130706433",
                            "https://0x7f000001",
                            "https://0x7f.0.0.1",
                            "https://127.0.0.256",
                            "https://127.0.0.4294967296",
                            "https://127.0.0.01",
                            "https://1.2.3.4.5",
                            "https://h,x",
                            "https://h*"})
        CHECK_MESSAGE(invalid_member(with_url(url)) == "base_url", url);
    CHECK(invalid_member(with_url(std::string("https://h\0.x", 12))) == "base_url");
    CHECK(pl::validate(with_url("https://user:word@h"))[0].message == "must not hold user information");
}

TEST_CASE("an http URL is accepted only if its parsed host is a loopback address") {
    for (const char* url :
         {"http://localhost", "http://LocalHost:8080/x", "http://127.0.0.1", "http://127.0.0.1:80/",
          "http://127.255.255.255", "http://127.1.2.3:1", "http://[::1]", "http://[::1]:8080/p"})
        CHECK(accepted(url));
    for (const char* url : {"http://127.0.0.1.evil.com", "http://128.0.0.1", "http://localhost.evil.com",
                            "http://evil.com/localhost", "http://evil.com:80/127.0.0.1", "http://[::2]",
                            "http://[::ffff:127.0.0.1]", "http://[1::1]", "http://0.0.0.0",
                            "http://api.promptlayer.com", "HTTP://evil.com"}) {
        CHECK_MESSAGE(invalid_member(with_url(url)) == "base_url", url);
        auto allowed = with_url(url);
        allowed.allow_insecure_http = true;
        CHECK_MESSAGE(pl::validate(allowed).empty(), url);
    }
    for (const char* url :
         {"http://127.0.0.1.", "http://127.0.0", "http://127.1", "http://127.0.0.256", "http://127.0.0.01",
          "http://127.0.0.1.1", "http://127..0.1", "http://127.0.0.", "http://localhost.",
          "http://2130706433", "http://0x7f.0.0.1", "http://[127.0.0.1]"}) {
        auto allowed = with_url(url);
        allowed.allow_insecure_http = true;
        CHECK_MESSAGE(invalid_member(allowed) == "base_url", url);
    }
    CHECK(accepted("http://[0:0:0:0:0:0:0:1]"));
    CHECK(accepted("http://[0::0.0.0.1]"));
    CHECK(invalid_member(with_url("http://localhost@evil.com")) == "base_url");
    CHECK(invalid_member(with_url("http://127.0.0.1\\@evil.com")) == "base_url");
}

TEST_CASE("timeout, user agent and limits are validated") {
    CHECK(invalid_member({.api_key = "pl_key", .timeout = 0ms}) == "timeout");
    CHECK(invalid_member({.api_key = "pl_key", .timeout = -1ms}) == "timeout");
    CHECK(pl::validate(pl::config{.api_key = "pl_key", .timeout = 1ms}).empty());
    CHECK(invalid_member({.api_key = "pl_key", .user_agent = ""}) == "user_agent");
    CHECK(invalid_member({.api_key = "pl_key", .user_agent = "a\r\nb"}) == "user_agent");
    CHECK(pl::validate(pl::config{.api_key = "pl_key", .user_agent = "game/1.0 (x; y)"}).empty());
    CHECK(invalid_member({.api_key = "pl_key", .max_response_bytes = 0}) == "max_response_bytes");
    CHECK(invalid_member({.api_key = "pl_key", .max_request_bytes = 0}) == "max_request_bytes");
}

TEST_CASE("a custom header needs a token as name, a printable value and no reserved name") {
    const auto with_header = [](pl::header h) {
        return pl::config{.api_key = "pl_key", .headers = {{"X-Trace", "1"}, std::move(h)}};
    };
    for (const pl::header& valid :
         {pl::header{"traceparent", "00-4bf9-01"}, pl::header{"Authorization", "Bearer a b"},
          pl::header{"CF-Access-Client-Id", "!~"}, pl::header{"X-Empty", ""}})
        CHECK_MESSAGE(pl::validate(with_header(valid)).empty(), valid.name);
    for (const pl::header& invalid : {pl::header{"", "x"},
                                      pl::header{"X Y", "x"},
                                      pl::header{"X:", "x"},
                                      pl::header{"X\r\nY", "x"},
                                      pl::header{"X", "a\r\nX-Injected: b"},
                                      pl::header{"X", "a\n"},
                                      pl::header{"X", std::string("a\0b", 3)},
                                      pl::header{"X", "\x7F"},
                                      pl::header{"X", "caf\xC3\xA9"},
                                      pl::header{"X", " a"},
                                      pl::header{"X", "a "},
                                      pl::header{"x-api-key", "x"},
                                      pl::header{"Content-Type", "x"},
                                      pl::header{"ACCEPT", "x"},
                                      pl::header{"User-Agent", "x"},
                                      pl::header{"Host", "x"},
                                      pl::header{"Content-Length", "2"},
                                      pl::header{"Transfer-Encoding", "chunked"},
                                      pl::header{"Content-Encoding", "gzip"},
                                      pl::header{"Accept-Encoding", "gzip"},
                                      pl::header{"Connection", "close"},
                                      pl::header{"Keep-Alive", "x"},
                                      pl::header{"Proxy-Connection", "x"},
                                      pl::header{"Expect", "100-continue"},
                                      pl::header{"TE", "trailers"},
                                      pl::header{"Trailer", "x"},
                                      pl::header{"Upgrade", "h2c"}})
        CHECK_MESSAGE(invalid_member(with_header(invalid)) == "headers[1]", invalid.name);
    CHECK(invalid_member({.api_key = "pl_key", .headers = {{"", "x"}}}) == "headers[0]");
}

TEST_CASE("validate names every invalid member and repeats no value") {
    const pl::config settings{
        .api_key = "sesame\n", .base_url = "ftp://sesame", .timeout = 0ms, .user_agent = "sesame\n"};
    const auto violations = pl::validate(settings);
    CHECK(violations.size() == 4);
    for (const auto& v : violations)
        CHECK(to_string(v).find("sesame") == std::string::npos);
}

TEST_CASE("config_from_environment keeps the default for an unset or empty variable") {
    set_environment("PROMPTLAYER_API_KEY", nullptr);
    set_environment("PROMPTLAYER_BASE_URL", nullptr);
    CHECK(pl::config_from_environment().api_key.empty());
    CHECK(pl::config_from_environment().base_url == "https://api.promptlayer.com");
    set_environment("PROMPTLAYER_API_KEY", "pl_env");
    set_environment("PROMPTLAYER_BASE_URL", "http://localhost:1");
    CHECK(pl::config_from_environment().api_key == "pl_env");
    CHECK(pl::config_from_environment().base_url == "http://localhost:1");
    set_environment("PROMPTLAYER_BASE_URL", "");
    CHECK(pl::config_from_environment().base_url == "https://api.promptlayer.com");
    set_environment("PROMPTLAYER_API_KEY", nullptr);
    set_environment("PROMPTLAYER_BASE_URL", nullptr);
}

TEST_CASE("printing a config redacts the key") {
    std::ostringstream out;
    out << pl::config{.api_key = "sesame"};
    CHECK(out.str().find("api_key: [redacted]\nbase_url: https://api.promptlayer.com\ntimeout: 10000 ms\n") ==
          0);
    out << pl::config{.api_key = "sesame", .base_url = "https://user:sesame@h"};
    CHECK(out.str().find("sesame") == std::string::npos);
}

TEST_CASE("printing a config redacts key and header values and drops control characters") {
    const std::string shown = to_string(pl::config{.api_key = "pl_sesame",
                                                   .base_url = "https://h/pl_sesame\x1b/PL%5Fsesame",
                                                   .user_agent = "game pl_sesame\r\n",
                                                   .headers = {{"X-Gateway\n", "swordfish"}}});
    CHECK(shown == "api_key: [redacted]\nbase_url: https://h/[redacted] /[redacted]\ntimeout: 10000 ms\n"
                   "user_agent: game [redacted]  \nmax_response_bytes: 1048576\nallow_insecure_http: false\n"
                   "max_request_bytes: 8388608\nheaders: X-Gateway : [redacted]\n");
    for (const char* const key : {"\npl_sesame", "pl_sesame\r\n", "\xEF\xBB\xBFpl_sesame", "a pl_sesame"})
        CHECK(to_string(pl::config{.api_key = key, .user_agent = "app/pl_sesame"}).find("sesame") ==
              std::string::npos);
    CHECK(to_string(pl::config{.base_url = "https://u:p@h/a@b"}).find("https://[redacted]@b\n") !=
          std::string::npos);
}
