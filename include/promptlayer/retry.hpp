#ifndef PROMPTLAYER_RETRY_HPP
#define PROMPTLAYER_RETRY_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <random>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// When a request that failed is sent again. The defaults are for callers who wait; see
/// `background_retry_policy`.
struct retry_policy {
    std::uint32_t max_attempts = 5;                       ///< with the first one; 0 for no limit
    std::chrono::milliseconds initial_delay{2'000};       ///< the longest wait after the first attempt
    std::chrono::milliseconds max_delay{30'000};          ///< it doubles up to this
    std::chrono::milliseconds max_retry_after{3'600'000}; ///< what is heeded of a `Retry-After`
    std::optional<std::chrono::milliseconds> max_age{};   ///< of a request at its last attempt; none for any
    bool retry_maybe_delivered = true; ///< whether a request that may have arrived is sent again

    friend bool operator==(const retry_policy&, const retry_policy&) = default;
};

/// For trackers, where nobody waits: no limit of attempts, up to 5 minutes apart, for 24 hours.
inline retry_policy background_retry_policy() noexcept {
    retry_policy policy;
    policy.max_attempts = 0;
    policy.max_delay = std::chrono::minutes{5};
    policy.max_age = std::chrono::hours{24};
    return policy;
}

namespace detail {

/// Returns the nearest number from 0 to 1; 0 for a NaN. Decides by the bits, whose order is that of the
/// numbers from 0 to infinity: with -ffast-math, a comparison with a NaN may have any result.
inline double within_unit(double number) noexcept {
    constexpr std::uint64_t one = 0x3FF0'0000'0000'0000, infinity = 0x7FF0'0000'0000'0000;
    std::uint64_t bits = 0;
    static_assert(sizeof bits == sizeof number);
    std::memcpy(&bits, &number, sizeof bits);
    return bits <= one ? number : bits <= infinity ? 1.0 : 0.0;
}

} // namespace detail

/// How long to wait before the next attempt, or none if there is to be none. Pure. A policy's waits count as
/// a year at most.
///
/// The wait is a random part ("full jitter") of 2 s, 4 s, 8 s, ... up to `max_delay`. A `Retry-After` is
/// the least wait, and the random part comes on top, so that clients that were told the same do not come back
/// at the same moment.
///
/// - `failed`: what the last attempt came to. What is sent again is what is `retryable()`, nothing else.
/// - `attempts`: how many there have been, 1 or more.
/// - `random`: uniform from 0 to 1; what is outside counts as the nearer end, a NaN as 0.
/// - `age`: how long ago the request was made; negative, where a clock was set back, counts as 0.
[[nodiscard]] inline std::optional<std::chrono::milliseconds>
retry_wait(const retry_policy& policy, const error& failed, std::uint32_t attempts, double random,
           std::chrono::milliseconds age) noexcept {
    using std::chrono::milliseconds;
    constexpr milliseconds none{0}, a_year = std::chrono::hours{24 * 365};
    if (!failed.retryable() || (failed.maybe_delivered && !policy.retry_maybe_delivered) ||
        (policy.max_attempts != 0 && attempts >= policy.max_attempts))
        return std::nullopt;
    const milliseconds longest = std::clamp(policy.max_delay, none, a_year);
    milliseconds most = std::clamp(policy.initial_delay, none, longest);
    for (std::uint32_t doubled = 1; doubled < attempts && most > none && most < longest; ++doubled)
        most = most > longest / 2 ? longest : 2 * most;
    const double part = detail::within_unit(random);
    milliseconds wait{static_cast<milliseconds::rep>(part * static_cast<double>(most.count()))};
    if (failed.retry_after) {
        const milliseconds cap = std::clamp(policy.max_retry_after, none, a_year);
        const bool capped = *failed.retry_after > std::chrono::duration_cast<std::chrono::seconds>(cap);
        wait += capped ? cap : std::max<milliseconds>(*failed.retry_after, none);
    }
    if (policy.max_age && (age > *policy.max_age || wait > *policy.max_age - std::max(age, none)))
        return std::nullopt;
    return wait;
}

namespace detail {

/// Uniform from 0 up to 1, from a generator that the system has seeded.
inline std::function<double()> random_source() {
    std::random_device seed;
    return [engine = std::minstd_rand{seed()}]() mutable {
        return std::uniform_real_distribution<double>{0, 1}(engine);
    };
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
