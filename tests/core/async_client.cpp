#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using pl::errc;
using pl::testing::recording_async_transport;
using test_support::valid_request;

namespace {

using outcome = pl::result<pl::track_response>;

/// Returns a handler that appends its result to `outcomes`.
auto append_to(std::vector<outcome>& outcomes) {
    return [&outcomes](outcome r) { outcomes.push_back(std::move(r)); };
}

/// Returns a transport that leaves each completion to the test.
auto holding_transport(std::vector<pl::completion>& completions) {
    return pl::transport_from([&completions](pl::http_request, pl::completion complete) {
        completions.push_back(std::move(complete));
    });
}

} // namespace

TEST_CASE("the handler is called once, when the transport completes") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    std::vector<outcome> outcomes;
    client.transport().respond({200, {}, R"({"success":true,"message":"Tracked"})"});
    client.track_prompt(valid_request(), append_to(outcomes));
    CHECK(outcomes.empty());
    CHECK(client.transport().pending() == 1);
    CHECK(client.transport().complete_one());
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0]->message == "Tracked");
    CHECK_FALSE(client.transport().complete_one());
    CHECK(client.transport().requests().at(0) == pl::encode({.api_key = "pl_key"}, valid_request()).value());
}

TEST_CASE("braces, views and the generic call accept a handler") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    std::vector<outcome> outcomes;
    client.track_prompt({.prompt_name = "a", .request_id = 1}, append_to(outcomes));
    client.track_prompt(pl::track_prompt_view{.prompt_name = "a", .request_id = 1}, append_to(outcomes));
    client.call(valid_request(), append_to(outcomes));
    CHECK(client.transport().complete_all() == 3);
    CHECK(outcomes.size() == 3);
    const auto sent = client.transport().requests();
    CHECK((sent[0] == sent[1] && sent[1] == sent[2]));
}

TEST_CASE("an invalid request or config is reported before the call returns") {
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    client.track_prompt({.prompt_name = "", .request_id = 1}, append_to(outcomes));
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().code == errc::invalid_request);
    pl::client unusable{{}, recording_async_transport{}};
    unusable.track_prompt(valid_request(), append_to(outcomes));
    REQUIRE(outcomes.size() == 2);
    CHECK(outcomes[1].error().code == errc::invalid_config);
    CHECK(client.transport().requests().empty());
    CHECK(unusable.transport().requests().empty());
}

TEST_CASE("an asynchronous call has its own timeout, else that of the config") {
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key", .timeout = std::chrono::seconds{7}}, recording_async_transport{}};
    client.track_prompt(valid_request(), append_to(outcomes), {.timeout = std::chrono::milliseconds{1}});
    client.call(valid_request(), append_to(outcomes));
    CHECK(outcomes.empty());
    client.call(valid_request(), append_to(outcomes), {.timeout = std::chrono::milliseconds{0}});
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().code == errc::invalid_request);
    const auto sent = client.transport().requests();
    REQUIRE(sent.size() == 2);
    CHECK(sent[0].timeout == std::chrono::milliseconds{1});
    CHECK(sent[1].timeout == std::chrono::seconds{7});
}

TEST_CASE("a handler may be move-only and is destroyed once it has been called") {
    std::vector<pl::completion> completions;
    pl::client client{{.api_key = "pl_key"}, holding_transport(completions)};
    const auto witness = std::make_shared<int>(7);
    int seen = 0;
    client.track_prompt(valid_request(),
                        [&seen, owned = std::make_unique<int>(7), witness](outcome) { seen += *owned; });
    CHECK(witness.use_count() == 2);
    completions.at(0)(pl::http_response{200, {}, ""});
    CHECK(seen == 7);
    CHECK(witness.use_count() == 1); // although the transport still has the completion
}

TEST_CASE("a second completion is ignored") {
    std::vector<pl::completion> completions;
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"}, holding_transport(completions)};
    client.track_prompt(valid_request(), append_to(outcomes));
    const pl::completion copy = completions.at(0);
    completions[0](pl::http_response{404, {}, ""});
    completions[0](pl::http_response{500, {}, ""});
    copy(pl::transport_failure{});
    completions.clear();
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().code == errc::not_found);
}

#ifndef PROMPTLAYER_NO_THREADS
TEST_CASE("the handler is called once if two threads complete at the same time") {
    for (int round = 0; round < 200; ++round) {
        std::vector<pl::completion> completions;
        std::vector<outcome> outcomes;
        pl::client client{{.api_key = "pl_key"}, holding_transport(completions)};
        client.track_prompt(valid_request(), append_to(outcomes));
        std::thread other{[complete = completions.at(0)] { complete(pl::http_response{404, {}, ""}); }};
        completions[0](pl::http_response{404, {}, ""});
        other.join();
        CHECK(outcomes.size() == 1);
    }
}
#endif

TEST_CASE("a request is cancelled if its completion is destroyed without a call") {
    std::vector<pl::completion> completions;
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"}, holding_transport(completions)};
    client.track_prompt(valid_request(), append_to(outcomes));
    {
        const pl::completion copy = completions.at(0);
        completions.clear();
        CHECK(outcomes.empty()); // a copy may still be called
    }
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().code == errc::transport);
    CHECK(outcomes[0].error().failure == pl::failure::cancelled);
    CHECK_FALSE(outcomes[0].error().retryable());
}

TEST_CASE("a request is cancelled before the call returns if the transport drops the completion") {
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([](pl::http_request, pl::completion) {})};
    client.track_prompt(valid_request(), append_to(outcomes));
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().failure == pl::failure::cancelled);
}

TEST_CASE("a transport may complete before send returns") {
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"},
                      pl::transport_from([](pl::http_request, const pl::completion& complete) {
                          complete(pl::http_response{429, {{"Retry-After", "3"}}, ""});
                      })};
    client.track_prompt(valid_request(), append_to(outcomes));
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().retry_after == std::chrono::seconds{3});
}

TEST_CASE("the client may be destroyed while a request is in flight") {
    std::vector<pl::completion> completions;
    std::vector<outcome> outcomes;
    {
        pl::client client{{.api_key = "pl_sesame"}, holding_transport(completions)};
        client.track_prompt(valid_request(), append_to(outcomes));
    }
    completions.at(0)(pl::http_response{401, {}, R"({"message":"pl_sesame"})"});
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().message == "the service did not accept the API key (HTTP 401): [redacted]");
}

TEST_CASE("destroying a client cancels the requests that its own transport has not completed") {
    std::vector<outcome> outcomes;
    {
        pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
        client.track_prompt(valid_request(), append_to(outcomes));
    }
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().failure == pl::failure::cancelled);
}

TEST_CASE("a handler may start the next request") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    int calls = 0;
    client.track_prompt(valid_request(), [&](outcome) {
        ++calls;
        client.track_prompt(valid_request(), [&](outcome) { ++calls; });
    });
    CHECK(client.transport().complete_all() == 2);
    CHECK(calls == 2);
}

TEST_CASE("a transport of both kinds serves calls with and without a handler") {
    struct both {
        pl::transport_result send(const pl::http_request&) { return pl::http_response{404, {}, ""}; }
        void send(pl::http_request, pl::completion complete) { complete(pl::http_response{409, {}, ""}); }
    };
    pl::client client{{.api_key = "pl_key"}, both{}};
    CHECK(client.track_prompt(valid_request()).error().code == errc::not_found);
    std::vector<outcome> outcomes;
    client.track_prompt(valid_request(), append_to(outcomes));
    CHECK(outcomes.at(0).error().code == errc::conflict);
}

#if defined(__cpp_exceptions)
TEST_CASE("an exception of an asynchronous transport becomes one transport error") {
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([](pl::http_request, pl::completion) {
                          throw std::runtime_error{"no socket"};
                      })};
    client.track_prompt(valid_request(), append_to(outcomes));
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().failure == pl::failure::other);
    CHECK(outcomes[0].error().message.ends_with(": no socket"));
}

TEST_CASE("an exception thrown after the completion does not call the handler again") {
    std::vector<outcome> outcomes;
    pl::client client{{.api_key = "pl_key"},
                      pl::transport_from([](pl::http_request, const pl::completion& complete) {
                          complete(pl::http_response{404, {}, ""});
                          throw std::runtime_error{"too late"};
                      })};
    client.track_prompt(valid_request(), append_to(outcomes));
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().code == errc::not_found);
}

TEST_CASE("an exception of the handler reaches the caller and causes no second call") {
    int calls = 0;
    pl::client client{{.api_key = "pl_key"},
                      pl::transport_from([](pl::http_request, const pl::completion& complete) {
                          complete(pl::http_response{404, {}, ""});
                      })};
    CHECK_THROWS_AS(client.track_prompt(valid_request(),
                                        [&](outcome) {
                                            ++calls;
                                            throw std::logic_error{"the handler's own"};
                                        }),
                    std::logic_error);
    CHECK(calls == 1);
}

TEST_CASE("an exception of the handler is caught if the completion is destroyed") {
    int calls = 0;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([](pl::http_request, pl::completion) {})};
    client.track_prompt(valid_request(), [&](outcome) {
        ++calls;
        throw std::logic_error{"the handler's own"};
    });
    CHECK(calls == 1);
}
#endif

TEST_CASE("a moved-from client calls the handler with errc::closed") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    const pl::client other = std::move(client);
    std::vector<outcome> outcomes;
    client.track_prompt(valid_request(), append_to(outcomes));
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error().code == errc::closed);
    CHECK(other.transport().requests().empty());
}
