#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;

namespace {

pl::error status(int code, std::optional<std::chrono::seconds> retry_after = {}) {
    pl::error e{.code = pl::errc::unexpected_status, .status = code};
    e.retry_after = retry_after;
    return e;
}

pl::error failed(pl::failure kind, bool maybe_delivered = false) {
    pl::error e{.code = pl::errc::transport};
    e.failure = kind;
    e.maybe_delivered = maybe_delivered;
    return e;
}

std::optional<milliseconds> max_delay(std::uint32_t attempts, const pl::retry_policy& policy = {}) {
    return pl::retry_wait(policy, status(503), attempts, 1, 0ms);
}

/// A recording transport behind a retrying one, whose sleeps are noted and take no time.
struct slept {
    std::vector<milliseconds> sleeps{};
    std::chrono::steady_clock::time_point now{};

    pl::retrying_transport<pl::testing::recording_transport> over(pl::retry_policy policy = {},
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

pl::http_response answer(int code) { return {code, {}, ""}; }

} // namespace

TEST_CASE("retry: the longest wait doubles from 2 s to the policy's longest") {
    CHECK(max_delay(1) == 2s);
    CHECK(max_delay(2) == 4s);
    CHECK(max_delay(3) == 8s);
    CHECK(max_delay(4) == 16s);
    const pl::retry_policy background = pl::background_retry_policy();
    CHECK(max_delay(7, background) == 128s);
    CHECK(max_delay(8, background) == 256s);
    CHECK(max_delay(9, background) == 300s);
    CHECK(max_delay(std::numeric_limits<std::uint32_t>::max(), background) == 300s);
}

TEST_CASE("retry: the wait is that part of the longest which the random number says, within 0 and 1") {
    const auto wait = [](double random) { return pl::retry_wait({}, status(503), 2, random, 0ms); };
    CHECK(wait(0) == 0ms);
    CHECK(wait(0.25) == 1s);
    CHECK(wait(1) == 4s);
    CHECK(wait(-1) == 0ms);
    CHECK(wait(2) == 4s);
    CHECK(wait(std::strtod("inf", nullptr)) == 4s);
    CHECK(wait(std::strtod("-inf", nullptr)) == 0ms);
    CHECK(wait(std::strtod("nan", nullptr)) == 0ms); // with -ffast-math, too
    CHECK(wait(std::strtod("-nan", nullptr)) == 0ms);
}

TEST_CASE("retry: callers who wait have five attempts, trackers any number") {
    CHECK(max_delay(4));
    CHECK_FALSE(max_delay(5));
    CHECK_FALSE(max_delay(6));
    CHECK(max_delay(1'000'000, pl::background_retry_policy()));
    CHECK_FALSE(max_delay(1, {.max_attempts = 1}));
}

TEST_CASE("retry: what is retryable is sent again, and nothing else") {
    for (int code = 100; code < 600; ++code)
        CHECK(pl::retry_wait({}, status(code), 1, 1, 0ms).has_value() == status(code).retryable());
    for (const auto kind :
         {pl::failure::resolve, pl::failure::connect, pl::failure::tls, pl::failure::timeout,
          pl::failure::reset, pl::failure::cancelled, pl::failure::other})
        CHECK(pl::retry_wait({}, failed(kind), 1, 1, 0ms).has_value() == failed(kind).retryable());
}

TEST_CASE("retry: what may have been delivered is sent again unless the policy says no") {
    const pl::retry_policy once{.retry_maybe_delivered = false};
    CHECK(pl::retry_wait({}, failed(pl::failure::timeout, true), 1, 1, 0ms));
    CHECK_FALSE(pl::retry_wait(once, failed(pl::failure::timeout, true), 1, 1, 0ms));
    CHECK(pl::retry_wait(once, failed(pl::failure::connect, false), 1, 1, 0ms));
}

TEST_CASE("retry: Retry-After is the least wait, up to an hour, with the random part on top") {
    const auto wait = [](std::chrono::seconds asked, double random, pl::retry_policy policy = {}) {
        return pl::retry_wait(policy, status(429, asked), 1, random, 0ms);
    };
    CHECK(wait(0s, 0) == 0s);
    CHECK(wait(7s, 0) == 7s);
    CHECK(wait(7s, 0.5) == 8s);
    CHECK(wait(3600s, 0) == 3600s);
    CHECK(wait(3601s, 1) == 3602s);
    CHECK(wait(std::chrono::seconds::max(), 0) == 3600s);
    CHECK(wait(-5s, 0) == 0s);
    CHECK(wait(1s, 0, {.max_retry_after = 1500ms}) == 1s);
    CHECK(wait(2s, 0, {.max_retry_after = 1500ms}) == 1500ms);
}

TEST_CASE("retry: no attempt begins when a request is older than the policy allows") {
    const auto wait = [](milliseconds age) {
        return pl::retry_wait({.max_age = 60s}, status(503), 1, 1, age);
    };
    CHECK(wait(0s) == 2s);
    CHECK(wait(58s) == 2s);
    CHECK_FALSE(wait(58s + 1ms));
    CHECK_FALSE(wait(milliseconds::max()));
    CHECK(wait(-1h) == 2s);
    CHECK(wait(milliseconds::min()) == 2s);
    CHECK(pl::retry_wait({}, status(503), 1, 1, milliseconds::max()) == 2s);
    CHECK(pl::background_retry_policy().max_age == 24h);
}

TEST_CASE("retry: a policy out of all sense is no harm") {
    CHECK(max_delay(3, {.initial_delay = -5s}) == 0ms);
    CHECK(max_delay(3, {.max_delay = -5s}) == 0ms);
    CHECK(max_delay(1, {.initial_delay = 60s}) == 30s);
    const pl::retry_policy forever{
        .max_attempts = 0, .max_delay = milliseconds::max(), .max_retry_after = milliseconds::max()};
    CHECK(max_delay(100, forever) == 365 * 24h);
    CHECK(pl::retry_wait(forever, status(503, std::chrono::seconds::max()), 100, 1, 0ms) == 2 * 365 * 24h);
    CHECK_FALSE(pl::retry_wait({.max_age = -1s}, status(503), 1, 0, 0ms));
    CHECK(max_delay(0) == 2s);
}

TEST_CASE("retry: a random source returns uniform numbers from 0 up to, not including, 1") {
    const auto random = pl::detail::random_source();
    constexpr int count = 10'000;
    double lowest = 1, highest = 0, sum = 0, squares = 0;
    for (int i = 0; i < count; ++i) {
        const double number = random();
        lowest = std::min(lowest, number);
        highest = std::max(highest, number);
        sum += number;
        squares += number * number;
    }
    CHECK(lowest >= 0);
    CHECK(highest < 1);
    const double mean = sum / count;
    const double variance = squares / count - mean * mean; // 1/12 if uniform; each bound: seven deviations
    CHECK(mean > 0.48);
    CHECK(mean < 0.52);
    CHECK(variance > 0.078);
    CHECK(variance < 0.089);
}

TEST_CASE("retry: random sources made one after the other have different numbers") {
    constexpr int count = 1'000;
    std::set<double> first;
    double sum = 0;
    for (int i = 0; i < count; ++i) {
        const double number = pl::detail::random_source()();
        first.insert(number);
        sum += number;
    }
    CHECK(first.size() == count);
    CHECK(sum / count > 0.43); // seven deviations
    CHECK(sum / count < 0.57);
}

TEST_CASE("retrying_transport: the outcome is that of the last attempt, after the waits in between") {
    slept time;
    auto transport = time.over();
    transport.transport().respond(answer(503));
    transport.transport().fail({pl::failure::connect, ""});
    transport.transport().respond(answer(429));
    const auto outcome = transport.send({});
    REQUIRE(outcome);
    CHECK(outcome->status == 200);
    CHECK(time.sleeps == std::vector<milliseconds>{2s, 4s, 8s});
    CHECK(transport.transport().requests().size() == 4);
}

TEST_CASE("retrying_transport: what cannot be mended by sending again is returned at once") {
    slept time;
    auto transport = time.over();
    for (const int code : {200, 400, 401, 403, 404, 422, 501}) {
        transport.transport().respond(answer(code));
        CHECK(transport.send({})->status == code);
    }
    transport.transport().fail({pl::failure::tls, "no"});
    CHECK(transport.send({}).error().kind == pl::failure::tls);
    CHECK(time.sleeps.empty());
}

TEST_CASE(
    "retrying_transport: after the last attempt its outcome is returned, and the next request begins anew") {
    slept time;
    auto transport = time.over({.max_attempts = 2});
    for (int i = 0; i < 3; ++i)
        transport.transport().respond(answer(500 + 2 * i));
    CHECK(transport.send({})->status == 502);
    CHECK(transport.send({})->status == 200);
    CHECK(time.sleeps == std::vector<milliseconds>{2s, 2s});
}

TEST_CASE("retrying_transport: a failure was maybe delivered if any attempt was") {
    slept time;
    auto transport = time.over({.max_attempts = 2});
    transport.transport().fail({pl::failure::timeout, ""});
    transport.transport().fail({pl::failure::connect, ""});
    CHECK(transport.send({}).error().maybe_delivered);
    transport.transport().respond(answer(503));
    transport.transport().fail({pl::failure::connect, ""});
    CHECK(transport.send({}).error().maybe_delivered);
    transport.transport().fail({pl::failure::connect, ""});
    transport.transport().fail({pl::failure::connect, ""});
    CHECK_FALSE(transport.send({}).error().maybe_delivered);
}

TEST_CASE("retrying_transport: the age of a request counts what its attempts and waits took") {
    slept time;
    auto transport = time.over({.max_attempts = 0, .max_age = 10s});
    for (int i = 0; i < 10; ++i)
        transport.transport().respond(answer(503));
    CHECK(transport.send({})->status == 503);
    CHECK(time.sleeps == std::vector<milliseconds>{2s, 4s}); // 8 s more would be too much
}

TEST_CASE("retrying_transport: what may have been delivered is not sent again where the policy says so") {
    slept time;
    auto transport = time.over({.retry_maybe_delivered = false});
    transport.transport().fail({pl::failure::timeout, ""});
    CHECK(transport.send({}).error().kind == pl::failure::timeout);
    transport.transport().fail({pl::failure::connect, ""});
    CHECK(transport.send({})->status == 200);
    CHECK(transport.transport().requests().size() == 3);
}

TEST_CASE("retrying_transport: cancel is passed on to the transport") {
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

TEST_CASE("retrying_transport: cancel wakes the wait between two attempts, and leaves later requests alone") {
    pl::retrying_transport transport{pl::testing::recording_transport{},
                                     {.initial_delay = 24h, .max_delay = 24h},
                                     {.random = [] { return 1.0; }}};
    transport.cancel(); // nothing is in flight: nothing happens
    transport.transport().respond(answer(503));
    std::atomic<bool> over{false};
    std::thread other{[&] { // at whatever moment
        while (!over) {
            if (!transport.transport().requests().empty())
                transport.cancel();
            std::this_thread::yield();
        }
    }};
    const auto outcome = transport.send({});
    over = true;
    other.join();
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().kind == pl::failure::cancelled);
    CHECK(outcome.error().maybe_delivered);
    CHECK(transport.send({})->status == 200);
    slept time;
    auto waits = time.over({});
    waits.cancel();
    waits.transport().respond(answer(503));
    CHECK(waits.send({})->status == 200);
}

TEST_CASE("retrying_transport: a client tracks over it") {
    slept time;
    pl::client client{{.api_key = "pl_key"}, time.over()};
    client.transport().transport().respond({429, {{"Retry-After", "3"}}, ""});
    CHECK(client.track_prompt({.prompt_name = "a", .request_id = 1}));
    CHECK(time.sleeps == std::vector<milliseconds>{5s});
}

TEST_CASE("retrying_transport: std::ref has it refer to a transport") {
    pl::testing::recording_transport transport;
    transport.respond(answer(503));
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

TEST_CASE("retrying_transport: one that was moved from refuses requests and ignores cancel") {
    pl::retrying_transport retrying{pl::testing::recording_transport{}};
    const pl::retrying_transport other = std::move(retrying);
    retrying.cancel(); // moved from
    const pl::transport_result outcome = retrying.send({});
    CHECK(outcome.error().message == "the transport was moved from");
    CHECK_FALSE(outcome.error().maybe_delivered);
}
