#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using test_support::status_response;

namespace {

/// Makes retrying transports that record their sleeps and take no time for them.
struct virtual_time {
    std::vector<milliseconds> sleeps{};
    std::chrono::steady_clock::time_point now{};

    pl::retrying_transport<pl::testing::recording_transport> retrying(pl::retry_policy policy = {},
                                                                      double random = 1) {
        return pl::retrying_transport{pl::testing::recording_transport{}, policy,
                                      pl::retry_hooks{.now = [this] { return now; },
                                                      .random = [random] { return random; },
                                                      .sleep =
                                                          [this](milliseconds wait) {
                                                              sleeps.push_back(wait);
                                                              now += wait;
                                                          }}};
    }
};

} // namespace

TEST_CASE("retrying_transport: the last attempt's outcome is returned after the waits in between") {
    virtual_time time;
    auto transport = time.retrying();
    transport.transport().respond(status_response(503));
    transport.transport().fail({pl::failure::connect, ""});
    transport.transport().respond(status_response(429));
    const auto outcome = transport.send({});
    REQUIRE(outcome);
    CHECK(outcome->status == 200);
    CHECK(time.sleeps == std::vector<milliseconds>{2s, 4s, 8s});
    CHECK(transport.transport().requests().size() == 4);
}

TEST_CASE("retrying_transport: an outcome that no retry can fix is returned at once") {
    virtual_time time;
    auto transport = time.retrying();
    for (const int code : {200, 400, 401, 403, 404, 422, 501}) {
        transport.transport().respond(status_response(code));
        CHECK(transport.send({})->status == code);
    }
    transport.transport().fail({pl::failure::tls, "no"});
    CHECK(transport.send({}).error().kind == pl::failure::tls);
    CHECK(time.sleeps.empty());
}

TEST_CASE("retrying_transport: attempts are counted anew for each request") {
    virtual_time time;
    auto transport = time.retrying({.max_attempts = 2});
    for (int i = 0; i < 3; ++i)
        transport.transport().respond(status_response(500 + 2 * i));
    CHECK(transport.send({})->status == 502);
    CHECK(transport.send({})->status == 200);
    CHECK(time.sleeps == std::vector<milliseconds>{2s, 2s});
}

TEST_CASE("retrying_transport: a failure is maybe_delivered if any attempt was") {
    virtual_time time;
    auto transport = time.retrying({.max_attempts = 2});
    transport.transport().fail({pl::failure::timeout, ""});
    transport.transport().fail({pl::failure::connect, ""});
    CHECK(transport.send({}).error().maybe_delivered);
    transport.transport().respond(status_response(503));
    transport.transport().fail({pl::failure::connect, ""});
    CHECK(transport.send({}).error().maybe_delivered);
    transport.transport().fail({pl::failure::connect, ""});
    transport.transport().fail({pl::failure::connect, ""});
    CHECK_FALSE(transport.send({}).error().maybe_delivered);
}

TEST_CASE("retrying_transport: age includes the attempts and the waits") {
    virtual_time time;
    auto transport = time.retrying({.max_attempts = 0, .max_age = 10s});
    for (int i = 0; i < 10; ++i)
        transport.transport().respond(status_response(503));
    CHECK(transport.send({})->status == 503);
    CHECK(time.sleeps == std::vector<milliseconds>{2s, 4s}); // 8 s more would exceed max_age
}

TEST_CASE("retrying_transport: a caller waits for at most two minutes by default") {
    virtual_time time;
    auto transport = time.retrying({}, 0);
    transport.transport().respond({429, {{"Retry-After", "120"}}, ""});
    CHECK(transport.send({})->status == 200);
    CHECK(time.sleeps == std::vector<milliseconds>{120s});
    for (const char* const asked : {"121", "86400"}) {
        transport.transport().respond({429, {{"Retry-After", asked}}, ""});
        CHECK(transport.send({})->status == 429);
    }
    CHECK(time.sleeps.size() == 1);
    for (int i = 0; i < 3; ++i)
        transport.transport().respond({429, {{"Retry-After", "50"}}, ""});
    CHECK(transport.send({})->status == 429);
    CHECK(time.sleeps.size() == 3); // a third wait would end after 150 s
}

TEST_CASE("retrying_transport: maybe_delivered is not retried if the policy forbids it") {
    virtual_time time;
    auto transport = time.retrying({.retry_maybe_delivered = false});
    transport.transport().fail({pl::failure::timeout, ""});
    CHECK(transport.send({}).error().kind == pl::failure::timeout);
    transport.transport().fail({pl::failure::connect, ""});
    CHECK(transport.send({})->status == 200);
    CHECK(transport.transport().requests().size() == 3);
}

TEST_CASE("retrying_transport: only a log is not sent again if it may have been delivered") {
    virtual_time time;
    pl::client client{{.api_key = "pl_key"}, time.retrying()};
    auto& sent = client.transport().transport();
    const pl::log_request log = test_support::valid_log();
    for (const pl::failure kind : {pl::failure::timeout, pl::failure::reset, pl::failure::other}) {
        const auto before = sent.requests().size();
        sent.respond(status_response(503));
        sent.fail({pl::failure::connect, ""});
        sent.fail({kind, ""});
        const auto logged = client.log_request(log);
        REQUIRE_FALSE(logged);
        CHECK(logged.error().maybe_delivered);
        CHECK(sent.requests().size() == before + 3);
    }
    sent.fail({pl::failure::timeout, ""});
    CHECK(client.track_score({.request_id = 1, .score = 1}));
}

TEST_CASE("retrying_transport: cancel reaches the transport") {
    struct counting {
        int* cancels;
        pl::transport_result send(const pl::http_request&) { return pl::http_response{200, {}, ""}; }
        void cancel() { ++*cancels; }
    };
    int cancels = 0;
    pl::retrying_transport transport{counting{&cancels}};
    transport.cancel();
    CHECK(cancels == 1);
}

TEST_CASE("retrying_transport: cancel ends the wait between attempts and spares later requests") {
    pl::retrying_transport transport{pl::testing::recording_transport{},
                                     {.initial_delay = 24h, .max_delay = 24h, .max_age = std::nullopt},
                                     {.random = [] { return 1.0; }}};
    transport.cancel(); // has no effect because nothing is in flight
    transport.transport().respond(status_response(503));
    std::atomic<bool> finished{false};
    std::thread other{[&] { // at any moment
        while (!finished) {
            if (!transport.transport().requests().empty())
                transport.cancel();
            std::this_thread::yield();
        }
    }};
    const auto outcome = transport.send({});
    finished = true;
    other.join();
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().kind == pl::failure::cancelled);
    CHECK(outcome.error().maybe_delivered);
    CHECK(transport.send({})->status == 200);
    virtual_time time;
    auto waits = time.retrying({});
    waits.cancel();
    waits.transport().respond(status_response(503));
    CHECK(waits.send({})->status == 200);
}

TEST_CASE("retrying_transport: a client sends through it") {
    virtual_time time;
    pl::client client{{.api_key = "pl_key"}, time.retrying()};
    client.transport().transport().respond({429, {{"Retry-After", "3"}}, ""});
    CHECK(client.track_prompt({.prompt_name = "a", .request_id = 1}));
    CHECK(time.sleeps == std::vector<milliseconds>{5s});
}

TEST_CASE("retrying_transport: std::ref refers to the caller's transport") {
    pl::testing::recording_transport transport;
    transport.respond(status_response(503));
    pl::retrying_transport retrying{
        std::ref(transport), pl::retry_policy{},
        pl::retry_hooks{.now = {}, .random = [] { return 0.0; }, .sleep = [](milliseconds) {}}};
    static_assert(
        std::is_same_v<decltype(retrying), pl::retrying_transport<pl::testing::recording_transport&>>);
    pl::client client{{.api_key = "pl_key"}, std::ref(retrying)};
    CHECK(client.track_prompt({.prompt_name = "a", .request_id = 1}).has_value());
    CHECK(transport.requests().size() == 2);
    CHECK(&retrying.transport() == &transport);
}

TEST_CASE("retrying_transport: a moved-from object rejects requests and ignores cancel") {
    pl::retrying_transport retrying{pl::testing::recording_transport{}};
    const pl::retrying_transport other = std::move(retrying);
    retrying.cancel();
    const pl::transport_result outcome = retrying.send({});
    CHECK(outcome.error().message == "the transport was moved from");
    CHECK_FALSE(outcome.error().maybe_delivered);
}
