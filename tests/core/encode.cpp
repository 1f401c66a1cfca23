#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

namespace pl = promptlayer;
using test_support::valid_request;
using namespace std::chrono_literals;

namespace {

constexpr const char* valid_body = R"({"prompt_name":"a","request_id":1})";

std::string url_for(std::string base) {
    return pl::encode({.api_key = "pl_key", .base_url = std::move(base)}, valid_request()).value().url;
}

} // namespace

TEST_CASE("encode produces exactly the documented HTTP request") {
    const pl::config settings{
        .api_key = "pl_key", .timeout = 1234ms, .user_agent = "game/1.0", .max_response_bytes = 99};
    const pl::http_request expected{.method = "POST",
                                    .url = "https://api.promptlayer.com/rest/track-prompt",
                                    .headers = {{"X-API-KEY", "pl_key"},
                                                {"Content-Type", "application/json"},
                                                {"Accept", "application/json"},
                                                {"User-Agent", "game/1.0"}},
                                    .body = valid_body,
                                    .timeout = 1234ms,
                                    .max_response_bytes = 99};
    CHECK(pl::encode(settings, valid_request()).value() == expected);
    CHECK(pl::encode(settings, pl::track_prompt_view{.prompt_name = "a", .request_id = 1}).value() ==
          expected);
    CHECK(pl::encode(settings, {.prompt_name = "a", .request_id = 1}).value() == expected);
}

TEST_CASE("one trailing slash of the base URL is dropped and a path prefix is kept") {
    CHECK(url_for("https://h") == "https://h/rest/track-prompt");
    CHECK(url_for("https://h/") == "https://h/rest/track-prompt");
    CHECK(url_for("https://h//") == "https://h//rest/track-prompt");
    CHECK(url_for("https://h:8443/proxy/v1") == "https://h:8443/proxy/v1/rest/track-prompt");
    CHECK(url_for("https://h/proxy/") == "https://h/proxy/rest/track-prompt");
}

TEST_CASE("prepare returns path and body without a key, and authorize adds the rest") {
    const auto prepared = pl::prepare(valid_request());
    REQUIRE(prepared.has_value());
    CHECK(*prepared == pl::prepared_request{"/rest/track-prompt", valid_body});
    const pl::config settings{.api_key = "pl_key"};
    CHECK(pl::authorize(settings, *prepared).value() == pl::encode(settings, valid_request()).value());
    auto urgent = *prepared;
    urgent.timeout = 1ms;
    CHECK(pl::authorize(settings, urgent)->timeout == 1ms);
}

TEST_CASE("prepare rejects an invalid request, and authorize an invalid config") {
    const auto rejected = pl::prepare(pl::track_prompt{.prompt_name = "", .request_id = 1});
    CHECK(rejected.error().code == pl::errc::invalid_request);
    CHECK(pl::prepare(valid_request(), 33).error().violations.at(0).rule == pl::rule::max_bytes);
    const auto unusable = pl::authorize({}, {"/p", "{}"});
    CHECK(unusable.error().code == pl::errc::invalid_config);
    CHECK(unusable.error().message == "api_key: is not given");
}

TEST_CASE("a log is encoded as not idempotent, by each way to encode, and into a used request") {
    const pl::config settings{.api_key = "pl_key"};
    const pl::log_request log = test_support::valid_log();
    pl::http_request out = pl::encode(settings, valid_request()).value();
    CHECK(out.idempotent);
    REQUIRE(pl::encode(settings, log, out).has_value());
    CHECK_FALSE(out.idempotent);
    CHECK(pl::encoder{settings}.encode(log, out).has_value());
    CHECK_FALSE(out.idempotent);
    CHECK_FALSE(pl::authorize(settings, pl::prepare(log).value())->idempotent);
    REQUIRE(pl::encode(settings, valid_request(), out).has_value());
    CHECK(out.idempotent);
}

TEST_CASE("encode reports an invalid config before an invalid request, with every member") {
    const auto rejected =
        pl::encode({.base_url = "ftp://h"}, pl::track_prompt{.prompt_name = "", .request_id = 1});
    CHECK(rejected.error().code == pl::errc::invalid_config);
    CHECK(rejected.error().violations.size() == 2);
    CHECK(pl::encode({.api_key = "pl_key"}, pl::track_prompt{.prompt_name = "", .request_id = 1})
              .error()
              .code == pl::errc::invalid_request);
    CHECK(pl::encode({.api_key = "pl_key", .max_request_bytes = 33}, valid_request()).error().code ==
          pl::errc::invalid_request);
    CHECK(pl::encode({.api_key = "pl_key", .max_request_bytes = 34}, valid_request()).has_value());
}

TEST_CASE("a body over the limit is measured but not written") {
    pl::http_request out;
    const pl::track_prompt large{
        .prompt_name = std::string(1'000'000, 'x'), .request_id = 1, .label = "\"\n"};
    CHECK_FALSE(pl::encode({.api_key = "pl_key", .max_request_bytes = 100}, large, out).has_value());
    CHECK(out.body.capacity() < 10'000);
}

TEST_CASE("a reused http_request equals a new one and keeps its memory") {
    const pl::config settings{.api_key = "pl_key"};
    pl::http_request out;
    out.headers = {{"Left", "over"}, {"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}};
    out.body = std::string(1000, 'x');
    const char* const memory = out.body.data();
    REQUIRE(pl::encode(settings, valid_request(), out).has_value());
    CHECK(out == pl::encode(settings, valid_request()).value());
    CHECK(out.body.data() == memory);

    const auto rejected = pl::encode(settings, {.prompt_name = "", .request_id = 1}, out);
    CHECK(rejected.error().code == pl::errc::invalid_request);
    CHECK(out.url.empty());
    CHECK(out.headers.empty());
    CHECK(out.body.empty());
    REQUIRE(pl::encode(settings, valid_request(), out).has_value());
    CHECK(pl::encode(pl::config{}, valid_request(), out).error().code == pl::errc::invalid_config);
    CHECK(out.body.empty());
}

TEST_CASE("custom headers follow the library's in order and do not survive into the next call") {
    pl::config settings{.api_key = "pl_key", .headers = {{"traceparent", "00-1"}, {"X-Env", "prod"}}};
    pl::http_request out;
    REQUIRE(pl::encode(settings, valid_request(), out).has_value());
    REQUIRE(out.headers.size() == 6);
    CHECK(out.headers[4] == pl::header{"traceparent", "00-1"});
    CHECK(out.headers[5] == pl::header{"X-Env", "prod"});
    settings.headers.clear();
    REQUIRE(pl::encode(settings, valid_request(), out).has_value());
    CHECK(out.headers.size() == 4);
}

TEST_CASE("no error of encode or client shows the key in a variable's name") {
    const pl::config settings{.api_key = "pl_sesame"};
    const pl::track_prompt request{
        .prompt_name = "a", .prompt_input_variables = {{"my pl_sesame", "\xFF"}}, .request_id = 1};
    CHECK(pl::encode(settings, request).error().message ==
          R"(prompt_input_variables["my [redacted]"]: is not UTF-8 at byte 0)");
    const pl::config escaped{.api_key = "ab\\\"cdefgh"}; // escaped like the name in the path
    CHECK(to_string(pl::encode(escaped, {.prompt_name = "a",
                                         .prompt_input_variables = {{"ab\"cdefgh", "\xFF"}},
                                         .request_id = 1})
                        .error())
              .find("cdefgh") == std::string::npos);
    pl::client client{settings, pl::testing::recording_transport{}};
    CHECK(to_string(client.track_prompt(request).error()).find("sesame") == std::string::npos);
}
