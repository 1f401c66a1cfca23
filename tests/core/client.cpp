#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace pl = promptlayer;
using pl::errc;
using pl::testing::recording_transport;
using test_support::valid_request;

namespace {

/// Returns the error that a client makes of a transport failure.
pl::error error_of(pl::transport_failure failed) {
    pl::client client{{.api_key = "pl_sesame"}, recording_transport{}};
    client.transport().fail(std::move(failed));
    return client.track_prompt(valid_request()).error();
}

static_assert(std::is_move_constructible_v<pl::client<recording_transport>>);

} // namespace

TEST_CASE("a request reaches the transport once, as encoded, and its response is decoded") {
    const pl::config settings{.api_key = "pl_key", .base_url = "http://localhost:1/p"};
    pl::client client{settings, recording_transport{}};
    client.transport().respond({200, {}, R"({"success":true,"message":"Tracked"})"});
    const auto outcome = client.track_prompt(valid_request());
    REQUIRE(outcome.has_value());
    CHECK(outcome->message == "Tracked");
    REQUIRE(client.transport().requests().size() == 1);
    CHECK(client.transport().requests()[0] == pl::encode(settings, valid_request()).value());
}

TEST_CASE("braces, an owned request and a view encode to the same HTTP request") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    CHECK(client.track_prompt({.prompt_name = "a", .prompt_input_variables = {{"x", "y"}}, .request_id = 1})
              .has_value());
    const pl::track_prompt owned{.prompt_name = "a", .prompt_input_variables = {{"x", "y"}}, .request_id = 1};
    CHECK(client.track_prompt(owned).has_value());
    const std::pair<std::string_view, std::string_view> variables[] = {{"x", "y"}};
    CHECK(client
              .track_prompt(pl::track_prompt_view{
                  .prompt_name = "a", .prompt_input_variables = variables, .request_id = 1})
              .has_value());
    CHECK(
        client.track_prompt(pl::view_of(owned.prompt_input_variables, {.prompt_name = "a", .request_id = 1}))
            .has_value());
    CHECK(client.call(owned).has_value());
    const auto sent = client.transport().requests();
    REQUIRE(sent.size() == 5);
    for (const auto& request : sent)
        CHECK(request == sent[0]);
}

TEST_CASE("an invalid request is not sent") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    const auto outcome =
        client.track_prompt({.prompt_name = "", .request_id = 1, .version = 1, .label = "x"});
    CHECK(outcome.error().code == errc::invalid_request);
    CHECK(outcome.error().violations.size() == 2);
    CHECK(client.transport().requests().empty());
}

TEST_CASE("every call reports an invalid config and sends nothing") {
    pl::client client{{.base_url = "http://evil.com"}, recording_transport{}};
    for (int i = 0; i < 2; ++i) {
        const auto outcome = client.track_prompt(valid_request());
        CHECK(outcome.error().code == errc::invalid_config);
        REQUIRE(outcome.error().violations.size() == 2);
        CHECK(outcome.error().violations[0].path == "api_key");
        CHECK(outcome.error().violations[1].path == "base_url");
    }
    CHECK(client.transport().requests().empty());
}

TEST_CASE("a call has its own timeout, else that of the config") {
    pl::client client{{.api_key = "pl_key", .timeout = std::chrono::seconds{7}}, recording_transport{}};
    CHECK(client.track_prompt(valid_request(), {.timeout = std::chrono::milliseconds{1}}));
    CHECK(client.call(valid_request(), {.timeout = std::chrono::hours{1}}));
    CHECK(client.call(valid_request()));
    for (const int invalid : {0, -1}) {
        const pl::error e =
            client.call(valid_request(), {.timeout = std::chrono::milliseconds{invalid}}).error();
        CHECK(e.code == errc::invalid_request);
        REQUIRE(e.violations.size() == 1);
        CHECK(e.violations[0] == pl::violation{"timeout", pl::rule::setting, 0, 0, "must be more than 0"});
    }
    const auto sent = client.transport().requests();
    REQUIRE(sent.size() == 3);
    CHECK(sent[0].timeout == std::chrono::milliseconds{1});
    CHECK(sent[1].timeout == std::chrono::hours{1});
    CHECK(sent[2].timeout == std::chrono::seconds{7});
}

TEST_CASE("a client applies the config's limit on the size of a request") {
    pl::client client{{.api_key = "pl_key", .max_request_bytes = 33}, recording_transport{}};
    CHECK(client.track_prompt(valid_request()).error().violations.at(0).rule == pl::rule::max_bytes);
    CHECK(client.transport().requests().empty());
}

TEST_CASE("a call makes one attempt even if the failure is retryable") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    client.transport().respond({503, {}, ""});
    client.transport().fail({pl::failure::reset, ""});
    CHECK(client.track_prompt(valid_request()).error().retryable());
    CHECK(client.track_prompt(valid_request()).error().retryable());
    CHECK(client.transport().requests().size() == 2);
}

TEST_CASE("a transport failure keeps its kind and says whether the request may have arrived") {
    const std::pair<pl::failure, bool> kinds[] = {
        {pl::failure::resolve, false}, {pl::failure::connect, false}, {pl::failure::tls, false},
        {pl::failure::timeout, true},  {pl::failure::reset, true},    {pl::failure::cancelled, true},
        {pl::failure::other, true}};
    for (const auto& [kind, maybe_delivered] : kinds) {
        CHECK(pl::transport_failure{kind, ""}.maybe_delivered == maybe_delivered);
        const auto e = error_of({kind, "why"});
        CHECK(e.code == errc::transport);
        REQUIRE(e.failure.has_value());
        CHECK(*e.failure == kind);
        CHECK(e.maybe_delivered == maybe_delivered);
        CHECK(e.status == 0);
        CHECK(e.message.starts_with("no response from the service: "));
        CHECK(e.message.ends_with(": why"));
    }
    CHECK(error_of({pl::failure::reset, ""}).message ==
          "no response from the service: the connection ended early");
    CHECK_FALSE(error_of({pl::failure::timeout, "", false}).maybe_delivered);
    CHECK(error_of({pl::failure::connect, "", true}).maybe_delivered);
    CHECK(error_of({pl::failure::timeout, ""}).message ==
          "no response from the service: the timeout expired");
}

TEST_CASE("a transport's message is bounded, sanitized and redacted") {
    CHECK(error_of({pl::failure::other, "a\nb\x1b[0m\xFF header X-API-KEY: pl_sesame"}).message ==
          "no response from the service: the transport failed: a b [0m\xEF\xBF\xBD header X-API-KEY: "
          "[redacted]");
    const auto e = error_of({pl::failure::other, std::string(600, 'x')});
    CHECK(e.message.ends_with(": " + std::string(512, 'x')));
}

TEST_CASE("a client made with std::ref refers to the caller's transport") {
    recording_transport transport;
    pl::client client{{.api_key = "pl_key"}, std::ref(transport)};
    static_assert(std::is_same_v<decltype(client), pl::client<recording_transport&>>);
    CHECK(client.track_prompt(valid_request()).has_value());
    CHECK(transport.requests().size() == 1);
    CHECK(&client.transport() == &transport);
}

TEST_CASE("a closure that returns only responses is a transport") {
    int calls = 0;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([&](const pl::http_request&) {
                          ++calls;
                          return pl::http_response{404, {}, ""};
                      })};
    CHECK(client.track_prompt(valid_request()).error().code == errc::not_found);
    CHECK(calls == 1);
}

#if defined(__cpp_exceptions)
TEST_CASE("an exception of a transport becomes a transport error") {
    const auto client_with = [](auto thrown) {
        return pl::client{
            {.api_key = "pl_sesame"},
            pl::transport_from([=](const pl::http_request&) -> pl::transport_result { throw thrown; })};
    };
    auto standard = client_with(std::runtime_error{"no socket, header pl_sesame"});
    const auto e = standard.track_prompt(valid_request()).error();
    CHECK(e.code == errc::transport);
    CHECK(e.failure == pl::failure::other);
    CHECK(e.maybe_delivered);
    CHECK(e.message == "no response from the service: the transport failed: no socket, header [redacted]");
    struct silent : std::exception {
        const char* what() const noexcept override { return nullptr; }
    };
    auto wordless = client_with(silent{});
    CHECK(wordless.track_prompt(valid_request()).error().message.ends_with(": unknown exception"));
    auto other = client_with(7);
    CHECK(other.track_prompt(valid_request()).error().message ==
          "no response from the service: the transport failed: unknown exception");
}
#endif

TEST_CASE("no error of a client contains the key or a value of the request") {
    pl::client client{{.api_key = "pl_sesame"}, recording_transport{}};
    for (const int status : {200, 302, 400, 401, 422, 429, 500})
        client.transport().respond(
            {status, {{"X-API-KEY", "pl_sesame"}}, R"({"message":"pl_sesame","success":false})"});
    client.transport().fail({pl::failure::tls, "pl_sesame"});
    for (int i = 0; i < 8; ++i) {
        std::ostringstream out;
        out << client.track_prompt({.prompt_name = "swordfish", .request_id = 1}).error();
        CHECK(out.str().find("sesame") == std::string::npos);
        CHECK(out.str().find("swordfish") == std::string::npos);
    }
}

TEST_CASE("a moved-from client reports errc::closed and sends nothing") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    pl::client other = std::move(client);
    const auto outcome = client.track_prompt(valid_request());
    CHECK(outcome.error().code == errc::closed);
    CHECK(outcome.error().message == "the client was moved from");
    CHECK(other.track_prompt(valid_request()).has_value());
    client = std::move(other);
    CHECK(client.track_prompt(valid_request()).has_value());
}
