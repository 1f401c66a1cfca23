#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

namespace pl = promptlayer;

namespace {

std::optional<long long> retry_seconds(std::vector<pl::header> headers) {
    const auto wait = pl::retry_after(pl::http_response{429, std::move(headers), ""});
    return wait ? std::optional<long long>{wait->count()} : std::nullopt;
}

std::optional<long long> seconds_between(std::string date, std::string until) {
    return retry_seconds({{"Date", std::move(date)}, {"Retry-After", std::move(until)}});
}

constexpr const char* noon = "Sun, 06 Nov 1994 12:00:00 GMT";

} // namespace

TEST_CASE("a request is idempotent and allows no time and no body of the response by default") {
    const pl::http_request request;
    CHECK(request.idempotent);
    CHECK(request.timeout.count() == 0);
    CHECK(request.max_response_bytes == 0);
    CHECK(pl::http_response{}.status == 0);
}

TEST_CASE("find_header ignores case and returns the first match") {
    const std::vector<pl::header> headers{{"Retry-After", "1"}, {"RETRY-AFTER", "2"}, {"x", ""}};
    CHECK(*pl::find_header(headers, "retry-after") == "1");
    CHECK(*pl::find_header(headers, "X") == "");
    CHECK(pl::find_header(headers, "retry") == nullptr);
    const std::vector<pl::header> empty;
    CHECK(pl::find_header(empty, "x") == nullptr);
}

TEST_CASE("Retry-After in seconds is returned uncapped") {
    CHECK(retry_seconds({{"Retry-After", "0"}}) == 0);
    CHECK(retry_seconds({{"retry-after", "120"}}) == 120);
    CHECK(retry_seconds({{"Retry-After", " 7\t"}}) == 7);
    CHECK(retry_seconds({{"Retry-After", "31536000"}}) == 31536000);
    CHECK(retry_seconds({{"Retry-After", "9223372036854775807"}}) == INT64_MAX);
    CHECK(retry_seconds({{"Retry-After", "99999999999999999999999"}}) == INT64_MAX);
}

TEST_CASE("a Retry-After that is neither a number nor a date is ignored") {
    for (const char* value : {"", " ", "soon", "-1", "+1", "1.5", "1s", "0x10", "1 2", "Sun"})
        CHECK(retry_seconds({{"Retry-After", value}}) == std::nullopt);
    CHECK(retry_seconds({}) == std::nullopt);
}

TEST_CASE("a dated Retry-After is relative to the response's Date, in all three date formats") {
    CHECK(seconds_between(noon, "Sun, 06 Nov 1994 12:00:37 GMT") == 37);
    CHECK(seconds_between(noon, "Sunday, 06-Nov-94 12:01:00 GMT") == 60);
    CHECK(seconds_between(noon, "Sun Nov  6 13:00:00 1994") == 3600);
    CHECK(seconds_between("Sun Nov  6 12:00:00 1994", "Mon, 07 Nov 1994 12:00:00 GMT") == 86400);
    CHECK(seconds_between("Thu, 31 Dec 2026 23:59:59 GMT", "Fri, 01 Jan 2027 00:00:00 GMT") == 1);
    CHECK(seconds_between("Sat, 28 Feb 2032 00:00:00 GMT", "Mon, 01 Mar 2032 00:00:00 GMT") ==
          2 * 86400); // a leap year
    CHECK(seconds_between("Wednesday, 31-Dec-69 00:00:00 GMT", "Thu, 01 Jan 2070 00:00:00 GMT") == 86400);
    CHECK(seconds_between("Thursday, 01-Jan-70 00:00:00 GMT", "Fri, 02 Jan 1970 00:00:00 GMT") == 86400);
}

TEST_CASE("a Retry-After in the past means no wait") {
    CHECK(seconds_between(noon, "Sun, 06 Nov 1994 11:59:59 GMT") == 0);
}

TEST_CASE("a dated Retry-After is ignored without a readable Date") {
    CHECK(retry_seconds({{"Retry-After", noon}}) == std::nullopt);
    CHECK(seconds_between("today", noon) == std::nullopt);
    CHECK(seconds_between("", noon) == std::nullopt);
}

TEST_CASE("an invalid date is ignored") {
    for (const char* date : {"Sun, 06 Nov 1994 12:00:00",
                             "Sun, 06 Nov 1994 12:00:00 CET",
                             "Sun, 32 Nov 1994 12:00:00 GMT",
                             "Sun, 31 Nov 1994 12:00:00 GMT",
                             "Sun, 00 Nov 1994 12:00:00 GMT",
                             "Sun, 29 Feb 1995 12:00:00 GMT",
                             "Sun, 06 Nox 1994 12:00:00 GMT",
                             "Sun, 06 ovD 1994 12:00:00 GMT",
                             "Sun, 06 Nov 1994 24:00:00 GMT",
                             "Sun, 06 Nov 1994 12:60:00 GMT",
                             "Sun, 06 Nov 1994 12:00:61 GMT",
                             "Sun, 06 Nov 99999 12:00:00 GMT",
                             "Sun, 06 Nov -1 12:00:00 GMT",
                             "Sun, 06 Nov 1994 12:00:00 GMT GMT",
                             "Sun, x6 Nov 1994 12:00:00 GMT",
                             "Sun, 262 Nov 1994 12:00:00 GMT",
                             "Sun, 06 Nov 19x4 12:00:00 GMT",
                             "Sun, 06 Nov 1994 1x:00:00 GMT",
                             "Sun, 06 Nov 1994 12:x0:00 GMT",
                             "Sun, 06 Nov 1994 12:00:x0 GMT",
                             ",,,,,,,,",
                             "99999999999999999999 06 Nov 99999999999999999999 12:00:00 GMT"})
        CHECK(seconds_between(noon, date) == std::nullopt);
    CHECK(seconds_between(noon, "Sun, 06 Nov 1994 12:00:60 GMT") == 60); // a leap second
}

TEST_CASE("printing a response is bounded and drops control characters") {
    const std::string shown =
        to_string(pl::http_response{200, {{"A\x1b", "b\x1b[0m"}}, "c\x1b" + std::string(600, 'x')});
    CHECK(shown == "HTTP 200\nA : b [0m\n\nc " + std::string(510, 'x'));
    CHECK(to_string(pl::http_response{200, {{std::string(513, 'n'), std::string(513, 'v')}}, ""}) ==
          "HTTP 200\n" + std::string(512, 'n') + ": " + std::string(512, 'v') + "\n\n");
}

TEST_CASE("printing a request or response redacts secret headers, whatever their case") {
    const pl::http_request request{.method = "POST",
                                   .url = "https://host/path",
                                   .headers = {{"x-api-key", "sesame"},
                                               {"AUTHORIZATION", "sesame"},
                                               {"Proxy-Authorization", "sesame"},
                                               {"Cookie", "sesame"},
                                               {"Accept", "application/json"}},
                                   .body = "{}"};
    std::ostringstream out;
    out << request << '\n' << pl::http_response{200, {{"Set-Cookie", "sesame"}, {"Server", "s"}}, "body"};
    CHECK(out.str() == "POST https://host/path\n"
                       "x-api-key: [redacted]\n"
                       "AUTHORIZATION: [redacted]\n"
                       "Proxy-Authorization: [redacted]\n"
                       "Cookie: [redacted]\n"
                       "Accept: application/json\n"
                       "\n"
                       "{}\n"
                       "HTTP 200\n"
                       "Set-Cookie: [redacted]\n"
                       "Server: s\n"
                       "\n"
                       "body");
}

namespace {

/// Returns whether a valid request is still valid after `change`.
bool stays_valid(auto change) {
    pl::http_request request{
        .method = "POST", .url = "https://host/path", .headers = {{"A", "b"}}, .body = "{}"};
    change(request);
    return pl::invalid_reason(request) == nullptr;
}

} // namespace

TEST_CASE("split_url returns the parts of a URL unchanged") {
    const auto parts = [](std::string_view url) {
        const auto read = pl::detail::split_url(url);
        REQUIRE(read.error.empty());
        return std::string{read.secure ? "s " : ""}.append(read.authority) + " " + std::string{read.host} +
               " " + std::to_string(read.port) + " " + std::string{read.target};
    };
    CHECK(parts("http://a.example") == "a.example a.example 80 ");
    CHECK(parts("HTTPS://A-b.3c.example?x=/") == "s A-b.3c.example A-b.3c.example 443 ?x=/");
    CHECK(parts("https://[::1]:8443/a//../b?c:d@e") == "s [::1]:8443 ::1 8443 /a//../b?c:d@e");
    CHECK(parts("http://[fe80::A]") == "[fe80::A] fe80::A 80 ");
}

TEST_CASE("an IPv6 address is parsed as in RFC 4291") {
    const auto read = [](std::string_view text) {
        std::string bytes;
        if (const auto address = pl::detail::parse_ipv6(text)) {
            for (const unsigned byte : *address)
                bytes += (bytes.empty() ? "" : ".") + std::to_string(byte);
        }
        return bytes;
    };
    const std::string zeroes = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0";
    CHECK(read("::") == zeroes + ".0");
    CHECK(read("::1") == zeroes + ".1");
    CHECK(read("0:0:0:0:0:0:0:1") == zeroes + ".1");
    CHECK(read("1::") == "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0");
    CHECK(read("1::2:3") == "0.1.0.0.0.0.0.0.0.0.0.0.0.2.0.3");
    CHECK(read("::2:3:4:5:6:7:8") == "0.0.0.2.0.3.0.4.0.5.0.6.0.7.0.8");
    CHECK(read("1:2:3:4:5:6:7::") == "0.1.0.2.0.3.0.4.0.5.0.6.0.7.0.0");
    CHECK(read("FEDC:ba98:0076:5:4:3:2:1") == "254.220.186.152.0.118.0.5.0.4.0.3.0.2.0.1");
    CHECK(read("::ffff:1.2.3.4") == "0.0.0.0.0.0.0.0.0.0.255.255.1.2.3.4");
    CHECK(read("1:2:3:4:5:6:1.2.3.4") == "0.1.0.2.0.3.0.4.0.5.0.6.1.2.3.4");
    for (const char* const invalid : {"",
                                      ":",
                                      ":::",
                                      "::::",
                                      "1",
                                      "1:2",
                                      "1:2:3:4:5:6:7",
                                      "1:2:3:4:5:6:7:8:9",
                                      "1:2:3:4:5:6:7:8::",
                                      "::1::",
                                      "1:::2",
                                      ":1::",
                                      "1:2:3:4:5:6:7:",
                                      "::12345",
                                      "::g",
                                      "::-1",
                                      "::+1",
                                      "::0x1",
                                      "1.2.3.4",
                                      "::1.2.3",
                                      "::1.2.3.4.5",
                                      "::1.2.3.256",
                                      "::1.2.3.4:5",
                                      "1:2:3:4:5:6:7:1.2.3.4",
                                      "::1%lo",
                                      " ::1",
                                      "::1 "})
        CHECK_MESSAGE(read(invalid).empty(), invalid);
}

TEST_CASE("a host name has labels of 1 to 63 letters, digits and hyphens, 253 characters in total") {
    using pl::detail::is_host_name;
    const std::string label(63, 'a');
    CHECK(is_host_name("a"));
    CHECK(is_host_name("3com.example"));
    CHECK(is_host_name("1.2.3.4.example"));
    CHECK(is_host_name("a--b.c-d"));
    CHECK(is_host_name(label + ".b"));
    CHECK_FALSE(is_host_name(label + "a.b"));
    CHECK(is_host_name(label + "." + label + "." + label + "." + label.substr(2)));       // 253
    CHECK_FALSE(is_host_name(label + "." + label + "." + label + "." + label.substr(1))); // 254
    for (const char* const invalid : {"", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a_b", "a b", "a.1",
                                      "1", "0x1", "a.0XF", "caf\xC3\xA9"})
        CHECK_FALSE_MESSAGE(is_host_name(invalid), invalid);
}

TEST_CASE("printing a request shows no credential and no control character") {
    const auto shown = [](std::string url, std::vector<pl::header> headers, std::string body) {
        return to_string(pl::http_request{
            .method = "POST", .url = std::move(url), .headers = std::move(headers), .body = std::move(body)});
    };
    CHECK(shown("https://h/pl_sesame", {{"X-API-KEY", "pl_sesame"}, {"User-Agent", "x PL_SESAME\x1b[0m"}},
                "{\"k\":\"pl_sesame\"}\n") ==
          "POST https://h/[redacted]\nX-API-KEY: [redacted]\nUser-Agent: x [redacted] [0m\n\n"
          "{\"k\":\"[redacted]\"} ");
    CHECK(shown("https://user:word@h/a@b", {}, "") == "POST https://[redacted]@b\n\n");
    CHECK(shown("user:word@h", {}, "") == "POST [redacted]@h\n\n");
    CHECK(shown("https://h/a@b", {}, "") == "POST https://h/a@b\n\n");
    for (const char* const url : {"https://u:pa/ss@h/", "https://u:p#w@h", "https://u:p?w@h", "https:/u:w@h",
                                  "u:w@h", "http:u:w@host/x://y@z"})
        CHECK_MESSAGE(shown(url, {}, "").find("u:") == std::string::npos, url);
    CHECK(shown("http://h/", {{"Authorization", "Bearer pl_sesame "}, {"Cookie", "id=swordfish; a=b"}},
                "pl_sesame swordfish Bearer") ==
          "POST http://h/\nAuthorization: [redacted]\nCookie: [redacted]\n\n[redacted] [redacted] Bearer");
    CHECK(
        shown("http://h/", {{"X-API-KEY", "abc"}, {"X-Gateway-Token", "swordfish"}}, "abc abcd swordfish") ==
        "POST http://h/\nX-API-KEY: [redacted]\nX-Gateway-Token: [redacted]\n\n[redacted] abcd [redacted]");
    CHECK(shown("http://h/", {{"X-API-KEY", "pl_\"secret"}}, R"(pl_\"secret)").ends_with("\n[redacted]"));
    CHECK(shown("http://h/", {{"X-API-KEY ", "pl_sesame"}, {"X-Gateway", "swordfish"}}, "pl_sesame") ==
          "POST http://h/\nX-API-KEY : [redacted]\nX-Gateway: [redacted]\n\n[redacted]");
    CHECK(shown("http://h/", {{"Authorization", "Bearer sesame_1"}}, "sesame_1") ==
          "POST http://h/\nAuthorization: [redacted]\n\n[redacted]");
    CHECK(shown("http://h/", {{"Authorization", "Bearer sesame_1 sesame_2"}}, "sesame_1 sesame_2") ==
          "POST http://h/\nAuthorization: [redacted]\n\n[redacted] [redacted]");
    CHECK(to_string(pl::http_response{200, {{"Set-Cookie ", "sesame"}}, ""}).find("sesame") ==
          std::string::npos);
}

TEST_CASE("a request is valid if its URL is http or https with a host") {
    const auto with_url = [](const char* url) {
        return pl::invalid_reason({.method = "POST", .url = url, .headers = {}, .body = ""}) == nullptr;
    };
    for (const char* const url : {"http://h", "HTTPS://h:443/", "https://[::1]:65535/a/../b",
                                  "http://127.0.0.1:1?q", "https://h/%2f;x=1?a=b&c=/?:@"})
        CHECK_MESSAGE(with_url(url), url);
    for (const char* const url : {"",
                                  "h",
                                  "http:/h",
                                  "http://",
                                  "https:///p",
                                  "ftp://h/",
                                  "file:///p",
                                  "http://h/#f",
                                  "http://u@h/",
                                  "http://u:p@h/",
                                  "http://h:0/",
                                  "http://h:65536/",
                                  "http://h:x/",
                                  "http://h:080/",
                                  "http://h:/",
                                  "http://[::1/",
                                  "http://[::1]x/",
                                  "http://[g::1]/",
                                  "http://h h/",
                                  "http://h/\xC3\xA9",
                                  "http://h\n/",
                                  "http://h/\r\nA: b"})
        CHECK_FALSE_MESSAGE(with_url(url), url);
}

TEST_CASE("a request is valid if its method and headers follow HTTP") {
    CHECK(stays_valid([](pl::http_request&) {}));
    CHECK(stays_valid([](pl::http_request& r) { r.headers[0] = {"!#$%&'*+-.^_`|~09aZ", ""}; }));
    CHECK(stays_valid([](pl::http_request& r) { r.headers[0].value = "\t ~\x80\xFF"; }));
    CHECK(stays_valid([](pl::http_request& r) { r.headers = {{"Host", "a"}, {"A", "1"}, {"A", "2"}}; }));
    CHECK(stays_valid([](pl::http_request& r) { r.method = "PROPFIND"; }));
    CHECK(stays_valid([](pl::http_request& r) { r.method = "HEAD", r.body = ""; }));

    CHECK_FALSE(stays_valid([](pl::http_request& r) { r.method = "HEAD"; }));
    for (const char* const invalid : {"", "A B", "A:", "A\r\nB", "A\x7F", "A\xC3", "(A)"}) {
        pl::http_request request{.method = invalid, .url = "https://host/", .headers = {}, .body = ""};
        CHECK_MESSAGE(pl::invalid_reason(request), invalid);
        request.method = "POST";
        request.headers = {{invalid, "b"}};
        CHECK_MESSAGE(pl::invalid_reason(request), invalid);
    }
    for (int byte = 0; byte < 256; ++byte) {
        const std::string text(1, static_cast<char>(byte));
        const bool is_letter_or_digit =
            (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
        const bool in_token =
            is_letter_or_digit || (byte != 0 && std::string_view{"!#$%&'*+-.^_`|~"}.find(text) != text.npos);
        CHECK_MESSAGE(stays_valid([&](pl::http_request& r) { r.headers[0].name = text; }) == in_token, byte);
        const bool in_value = byte == '\t' || (byte >= ' ' && byte != 127);
        CHECK_MESSAGE(stays_valid([&](pl::http_request& r) { r.headers[0].value = text; }) == in_value, byte);
    }
    CHECK_FALSE(stays_valid([](pl::http_request& r) { r.method = "CONNECT"; }));
    for (const char control : {'\0', '\r', '\n', '\x1f', '\x7f'}) {
        pl::http_request request{
            .method = "POST", .url = "https://host/", .headers = {{"A", "b"}}, .body = ""};
        request.headers[0].value += control;
        CHECK_MESSAGE(pl::invalid_reason(request), static_cast<int>(control));
    }
    CHECK_FALSE(stays_valid([](pl::http_request& r) { r.headers[0] = {"content-length", "2"}; }));
    CHECK_FALSE(stays_valid([](pl::http_request& r) { r.headers[0] = {"Transfer-encoding", "chunked"}; }));
    CHECK_FALSE(stays_valid([](pl::http_request& r) { r.headers = {{"Host", "a"}, {"host", "a"}}; }));
}

TEST_CASE("a URL that is known to be valid is not checked again, and no other is") {
    const auto reason = [](const char* url, std::string_view valid_url) {
        return pl::detail::invalid_reason_if({.method = "POST", .url = url, .headers = {}, .body = ""},
                                             valid_url);
    };
    CHECK(reason("no URL", ""));
    CHECK_FALSE(reason("no URL", "no URL"));
    CHECK(reason("no URL", "no"));
    CHECK(reason("", ""));
    CHECK(reason("https://host/#a", "https://host/"));
    CHECK_FALSE(reason("https://host/", ""));
}
