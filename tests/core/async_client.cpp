#include <promptlayer.hpp>

#include <doctest/doctest.h>

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

namespace {

using outcome = pl::result<pl::track_response>;

pl::track_prompt good() { return {.prompt_name = "a", .request_id = 1}; }

/// A handler that keeps what it is called with.
auto into(std::vector<outcome>& kept) {
    return [&kept](outcome r) { kept.push_back(std::move(r)); };
}

/// A transport that hands its requests' completions to the test.
auto handing_over(std::vector<pl::completion>& held) {
    return pl::transport_from(
        [&held](pl::http_request, pl::completion done) { held.push_back(std::move(done)); });
}

} // namespace

TEST_CASE("the handler is called once, when the transport completes") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    std::vector<outcome> kept;
    client.transport().respond({200, {}, R"({"success":true,"message":"Tracked"})"});
    client.track_prompt(good(), into(kept));
    CHECK(kept.empty());
    CHECK(client.transport().pending() == 1);
    CHECK(client.transport().complete_one());
    REQUIRE(kept.size() == 1);
    CHECK(kept[0]->message == "Tracked");
    CHECK_FALSE(client.transport().complete_one());
    CHECK(client.transport().requests().at(0) == pl::encode({.api_key = "pl_key"}, good()).value());
}

TEST_CASE("braces, views and the generic call take a handler too") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    std::vector<outcome> kept;
    client.track_prompt({.prompt_name = "a", .request_id = 1}, into(kept));
    client.track_prompt(pl::track_prompt_view{.prompt_name = "a", .request_id = 1}, into(kept));
    client.call(good(), into(kept));
    CHECK(client.transport().complete_all() == 3);
    CHECK(kept.size() == 3);
    const auto sent = client.transport().requests();
    CHECK((sent[0] == sent[1] && sent[1] == sent[2]));
}

TEST_CASE("a request that is refused unsent is told before the call returns") {
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    client.track_prompt({.prompt_name = "", .request_id = 1}, into(kept));
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().code == errc::invalid_request);
    pl::client unusable{{}, recording_async_transport{}};
    unusable.track_prompt(good(), into(kept));
    REQUIRE(kept.size() == 2);
    CHECK(kept[1].error().code == errc::invalid_config);
    CHECK(client.transport().requests().empty());
    CHECK(unusable.transport().requests().empty());
}

TEST_CASE("a handler may be move-only, and is let go when it has been called") {
    std::vector<pl::completion> held;
    pl::client client{{.api_key = "pl_key"}, handing_over(held)};
    const auto witness = std::make_shared<int>(7);
    int seen = 0;
    client.track_prompt(good(),
                        [&seen, owned = std::make_unique<int>(7), witness](outcome) { seen += *owned; });
    CHECK(witness.use_count() == 2);
    held.at(0)(pl::http_response{200, {}, ""});
    CHECK(seen == 7);
    CHECK(witness.use_count() == 1); // though the transport still holds the completion
}

TEST_CASE("a second completion is ignored") {
    std::vector<pl::completion> held;
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"}, handing_over(held)};
    client.track_prompt(good(), into(kept));
    const pl::completion copy = held.at(0);
    held[0](pl::http_response{404, {}, ""});
    held[0](pl::http_response{500, {}, ""});
    copy(pl::transport_failure{});
    held.clear();
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().code == errc::not_found);
}

TEST_CASE("of two completions at once on two threads one counts") {
    for (int round = 0; round < 200; ++round) {
        std::vector<pl::completion> held;
        std::vector<outcome> kept;
        pl::client client{{.api_key = "pl_key"}, handing_over(held)};
        client.track_prompt(good(), into(kept));
        std::thread other{[done = held.at(0)] { done(pl::http_response{404, {}, ""}); }};
        held[0](pl::http_response{404, {}, ""});
        other.join();
        CHECK(kept.size() == 1);
    }
}

TEST_CASE("a completion that is destroyed uncalled is a cancelled request") {
    std::vector<pl::completion> held;
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"}, handing_over(held)};
    client.track_prompt(good(), into(kept));
    {
        const pl::completion copy = held.at(0);
        held.clear();
        CHECK(kept.empty()); // a copy may still be called
    }
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().code == errc::transport);
    CHECK(kept[0].error().failure == pl::failure::cancelled);
    CHECK_FALSE(kept[0].error().retryable());
}

TEST_CASE(
    "a transport that drops the completion at once is a cancelled request, told before the call returns") {
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([](pl::http_request, pl::completion) {})};
    client.track_prompt(good(), into(kept));
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().failure == pl::failure::cancelled);
}

TEST_CASE("a transport may complete before send returns") {
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"},
                      pl::transport_from([](pl::http_request, const pl::completion& done) {
                          done(pl::http_response{429, {{"Retry-After", "3"}}, ""});
                      })};
    client.track_prompt(good(), into(kept));
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().retry_after == std::chrono::seconds{3});
}

TEST_CASE("the client may be destroyed while a request is in flight") {
    std::vector<pl::completion> held;
    std::vector<outcome> kept;
    {
        pl::client client{{.api_key = "pl_sesame"}, handing_over(held)};
        client.track_prompt(good(), into(kept));
    }
    held.at(0)(pl::http_response{401, {}, R"({"message":"pl_sesame"})"});
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().message == "the service did not accept the API key (HTTP 401): [redacted]");
}

TEST_CASE("a client that owns its transport cancels on destruction what it did not complete") {
    std::vector<outcome> kept;
    {
        pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
        client.track_prompt(good(), into(kept));
    }
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().failure == pl::failure::cancelled);
}

TEST_CASE("a handler may start the next request") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    int done = 0;
    client.track_prompt(good(), [&](outcome) {
        ++done;
        client.track_prompt(good(), [&](outcome) { ++done; });
    });
    CHECK(client.transport().complete_all() == 2);
    CHECK(done == 2);
}

TEST_CASE("a transport that is both kinds serves both kinds of call") {
    struct both {
        pl::transport_result send(const pl::http_request&) { return pl::http_response{404, {}, ""}; }
        void send(pl::http_request, pl::completion done) { done(pl::http_response{409, {}, ""}); }
    };
    pl::client client{{.api_key = "pl_key"}, both{}};
    CHECK(client.track_prompt(good()).error().code == errc::not_found);
    std::vector<outcome> kept;
    client.track_prompt(good(), into(kept));
    CHECK(kept.at(0).error().code == errc::conflict);
}

#if defined(__cpp_exceptions)
TEST_CASE("what an asynchronous transport throws becomes a transport error, once") {
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([](pl::http_request, pl::completion) {
                          throw std::runtime_error{"no socket"};
                      })};
    client.track_prompt(good(), into(kept));
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().failure == pl::failure::other);
    CHECK(kept[0].error().message.ends_with(": no socket"));
}

TEST_CASE("what an asynchronous transport throws after it completed is caught, and calls the handler no "
          "second time") {
    std::vector<outcome> kept;
    pl::client client{{.api_key = "pl_key"},
                      pl::transport_from([](pl::http_request, const pl::completion& done) {
                          done(pl::http_response{404, {}, ""});
                          throw std::runtime_error{"too late"};
                      })};
    client.track_prompt(good(), into(kept));
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().code == errc::not_found);
}

TEST_CASE("what a handler throws goes to the caller of the completion and calls it no second time") {
    int calls = 0;
    pl::client client{{.api_key = "pl_key"},
                      pl::transport_from([](pl::http_request, const pl::completion& done) {
                          done(pl::http_response{404, {}, ""});
                      })};
    CHECK_THROWS_AS(client.track_prompt(good(),
                                        [&](outcome) {
                                            ++calls;
                                            throw std::logic_error{"the handler's own"};
                                        }),
                    std::logic_error);
    CHECK(calls == 1);
}

TEST_CASE("a handler that throws when a completion is destroyed harms nothing") {
    int calls = 0;
    pl::client client{{.api_key = "pl_key"}, pl::transport_from([](pl::http_request, pl::completion) {})};
    client.track_prompt(good(), [&](outcome) {
        ++calls;
        throw std::logic_error{"the handler's own"};
    });
    CHECK(calls == 1);
}
#endif

TEST_CASE("a client that was moved from calls the handler with the reason") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    const pl::client other = std::move(client);
    std::vector<outcome> kept;
    client.track_prompt(good(), into(kept)); // moved from
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].error().code == errc::closed);
    CHECK(other.transport().requests().empty());
}
