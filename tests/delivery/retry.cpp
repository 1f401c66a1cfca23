#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <set>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using test_support::status_error;
using test_support::transport_error;

namespace {

std::optional<milliseconds> max_delay(std::uint32_t attempts, const pl::retry_policy& policy = {}) {
    return pl::retry_wait(policy, status_error(503), attempts, 1, 0ms);
}

} // namespace

TEST_CASE("retry: the maximum wait doubles from 2 s up to max_delay") {
    CHECK(max_delay(1) == 2s);
    CHECK(max_delay(2) == 4s);
    CHECK(max_delay(3) == 8s);
    CHECK(max_delay(4) == 16s);
    CHECK(max_delay(2, {.initial_delay = 1ms, .max_delay = 3ms}) == 2ms);
    const pl::retry_policy background = pl::background_retry_policy();
    CHECK(max_delay(7, background) == 128s);
    CHECK(max_delay(8, background) == 256s);
    CHECK(max_delay(9, background) == 300s);
    CHECK(max_delay(std::numeric_limits<std::uint32_t>::max(), background) == 300s);
}

TEST_CASE("retry: the wait is the random fraction of its maximum, clamped to 0 and 1") {
    const auto wait = [](double random) { return pl::retry_wait({}, status_error(503), 2, random, 0ms); };
    CHECK(wait(0) == 0ms);
    CHECK(wait(0.25) == 1s);
    CHECK(wait(1) == 4s);
    CHECK(wait(-1) == 0ms);
    CHECK(wait(2) == 4s);
    CHECK(wait(std::strtod("inf", nullptr)) == 4s);
    CHECK(wait(std::strtod("-inf", nullptr)) == 0ms);
    CHECK(wait(std::strtod("nan", nullptr)) == 0ms); // also with -ffast-math
    CHECK(wait(std::strtod("-nan", nullptr)) == 0ms);
}

TEST_CASE("retry: the default policy allows five attempts, the background policy any number") {
    CHECK(max_delay(4));
    CHECK_FALSE(max_delay(5));
    CHECK_FALSE(max_delay(6));
    CHECK(max_delay(1'000'000, pl::background_retry_policy()));
    CHECK_FALSE(max_delay(1, {.max_attempts = 1}));
}

TEST_CASE("retry: only retryable errors are retried") {
    for (int code = 100; code < 600; ++code)
        CHECK(pl::retry_wait({}, status_error(code), 1, 1, 0ms).has_value() ==
              status_error(code).retryable());
    for (const auto kind :
         {pl::failure::resolve, pl::failure::connect, pl::failure::tls, pl::failure::timeout,
          pl::failure::reset, pl::failure::cancelled, pl::failure::other})
        CHECK(pl::retry_wait({}, transport_error(kind), 1, 1, 0ms).has_value() ==
              transport_error(kind).retryable());
}

TEST_CASE("retry: a request that may have arrived is retried unless the policy forbids it") {
    const pl::retry_policy forbidding{.retry_maybe_delivered = false};
    CHECK(pl::retry_wait({}, transport_error(pl::failure::timeout, true), 1, 1, 0ms));
    CHECK_FALSE(pl::retry_wait(forbidding, transport_error(pl::failure::timeout, true), 1, 1, 0ms));
    CHECK(pl::retry_wait(forbidding, transport_error(pl::failure::connect, false), 1, 1, 0ms));
}

TEST_CASE("retry: Retry-After is the minimum wait, up to an hour, plus the random part") {
    const auto wait = [](std::chrono::seconds asked, double random,
                         pl::retry_policy policy = pl::background_retry_policy()) {
        return pl::retry_wait(policy, status_error(429, pl::errc::rate_limited, asked), 1, random, 0ms);
    };
    CHECK(wait(0s, 0) == 0s);
    CHECK(wait(7s, 0) == 7s);
    CHECK(wait(7s, 0.5) == 8s);
    CHECK(wait(3600s, 0) == 3600s);
    CHECK(wait(3601s, 1) == 3602s);
    CHECK(wait(std::chrono::seconds::max(), 0) == 3600s);
    CHECK(wait(-5s, 0) == 0s);
    CHECK(wait(std::chrono::seconds::min(), 0) == 0s);
    CHECK(wait(1s, 0, {.max_retry_after = 1500ms}) == 1s);
    CHECK(wait(2s, 0, {.max_retry_after = 1500ms}) == 1500ms);
    CHECK(wait(2s, 0, {.max_retry_after = -1s}) == 0ms);
}

TEST_CASE("retry: no attempt starts after max_age") {
    const auto wait = [](milliseconds age) {
        return pl::retry_wait({.max_age = 60s}, status_error(503), 1, 1, age);
    };
    CHECK(wait(0s) == 2s);
    CHECK(wait(58s) == 2s);
    CHECK_FALSE(wait(58s + 1ms));
    CHECK(pl::retry_wait({.max_age = 60s}, status_error(503), 1, 0, 60s) == 0ms);
    CHECK_FALSE(wait(milliseconds::max()));
    CHECK(wait(-1h) == 2s);
    CHECK(wait(milliseconds::min()) == 2s);
    CHECK(pl::retry_wait({.max_age = std::nullopt}, status_error(503), 1, 1, milliseconds::max()) == 2s);
    CHECK(pl::retry_wait({}, status_error(503), 1, 1, 118s) == 2s);
    CHECK_FALSE(pl::retry_wait({}, status_error(503), 1, 1, 118s + 1ms));
    CHECK(pl::background_retry_policy().max_age == 24h);
}

TEST_CASE("retry: absurd values in a policy are clamped") {
    CHECK(max_delay(3, {.initial_delay = -5s}) == 0ms);
    CHECK(max_delay(3, {.max_delay = -5s}) == 0ms);
    CHECK(max_delay(1, {.initial_delay = 60s}) == 30s);
    const pl::retry_policy forever{.max_attempts = 0,
                                   .max_delay = milliseconds::max(),
                                   .max_retry_after = milliseconds::max(),
                                   .max_age = std::nullopt};
    CHECK(max_delay(100, forever) == 365 * 24h);
    CHECK(pl::retry_wait(forever, status_error(503, pl::errc::server_error, std::chrono::seconds::max()), 100,
                         1, 0ms) == 2 * 365 * 24h);
    CHECK(max_delay(1, {.initial_delay = milliseconds::max()}) == 30s);
    CHECK(pl::retry_wait({.max_age = milliseconds::max()}, status_error(503), 1, 1, 0ms) == 2s);
    CHECK_FALSE(pl::retry_wait({.max_age = -1s}, status_error(503), 1, 0, 0ms));
    CHECK(max_delay(0) == 2s);
}

TEST_CASE("retry: a random source returns uniform numbers from 0 to below 1") {
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

TEST_CASE("retry: successive random sources return different numbers") {
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
