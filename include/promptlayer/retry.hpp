#ifndef PROMPTLAYER_RETRY_HPP
#define PROMPTLAYER_RETRY_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <atomic>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The rules by which a failed request is sent again. The defaults suit a caller that waits for the response:
/// the last attempt begins within two minutes. Trackers use `background_retry_policy`.
struct retry_policy {
    std::uint32_t max_attempts = 5;                       ///< counts the first attempt; 0: no limit
    std::chrono::milliseconds initial_delay{2'000};       ///< the longest random wait after the first attempt
    std::chrono::milliseconds max_delay{30'000};          ///< the longest random wait after any attempt
    std::chrono::milliseconds max_retry_after{3'600'000}; ///< a longer `Retry-After` counts as this
    /// No attempt begins later after the first one, or after a tracker accepted the request; nullopt: no
    /// limit.
    std::optional<std::chrono::milliseconds> max_age{120'000};
    bool retry_maybe_delivered = true; ///< whether to repeat a request that may have been delivered

    friend bool operator==(const retry_policy&, const retry_policy&) = default;
};

/// Returns the policy of trackers, where nobody waits: attempts without limit, up to 5 minutes apart, for 24
/// hours.
PROMPTLAYER_DECL retry_policy background_retry_policy() noexcept;

/// Returns how long to wait before the next attempt; nullopt if there must not be another. A pure function.
///
/// - Only a `retryable()` error is retried.
/// - The wait is random ("full jitter"), from 0 to 2 s, 4 s, 8 s, ... up to `max_delay`.
/// - A `Retry-After` is added to the random wait. Clients that were sent the same `Retry-After` thus return
///   at different moments.
/// - `initial_delay`, `max_delay` and `max_retry_after` count as at most a year.
///
/// `cause` is the error of the last attempt. `attempts` counts the attempts so far, from 1. `random` is
/// uniform from 0 to 1; a number outside counts as the nearer end, a NaN as 0. `age` is the time since the
/// request was created; a negative age, after a clock was set back, counts as 0.
[[nodiscard]] PROMPTLAYER_DECL std::optional<std::chrono::milliseconds>
retry_wait(const retry_policy& policy, const error& cause, std::uint32_t attempts, double random,
           std::chrono::milliseconds age) noexcept;

namespace detail {

/// Longer waits count as this, so that no sum of times overflows.
inline constexpr std::chrono::milliseconds max_wait = std::chrono::hours{24 * 365};

/// Returns the random part of the wait after an attempt: from 0 to `initial_delay`, twice that, and so on up
/// to `max_delay`.
PROMPTLAYER_DECL std::chrono::milliseconds backoff(const retry_policy& policy, std::uint32_t attempts,
                                                   double random) noexcept;

/// Returns the `Retry-After` of an error, at most `max_retry_after`; 0 if it has none.
PROMPTLAYER_DECL std::chrono::milliseconds capped_retry_after(const retry_policy& policy,
                                                              const error& cause) noexcept;

/// Returns whether a request of this age may wait that long for another attempt.
PROMPTLAYER_DECL bool may_wait(const retry_policy& policy, std::chrono::milliseconds age,
                               std::chrono::milliseconds wait) noexcept;

/// Returns the nearest number from 0 to 1; 0 for a NaN.
PROMPTLAYER_DECL double within_unit(double number) noexcept;

/// Returns a generator (SplitMix64) of uniform numbers from 0 up to, not including, 1. For jitter only:
/// whoever sees a few numbers can predict the others. The seed differs between
///
/// - generators of a process: by a counter;
/// - processes and machines: by two clocks, and by addresses, which most systems choose at random.
PROMPTLAYER_DECL std::function<double()> random_source();

} // namespace detail

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL retry_policy background_retry_policy() noexcept {
    retry_policy policy;
    policy.max_attempts = 0;
    policy.max_delay = std::chrono::minutes{5};
    policy.max_age = std::chrono::hours{24};
    return policy;
}

namespace detail {

/// Compares the bits, because -ffast-math allows any result for a comparison with a NaN. From 0 to infinity,
/// bits have the order of their numbers.
PROMPTLAYER_DECL double within_unit(double number) noexcept {
    constexpr std::uint64_t one = 0x3FF0'0000'0000'0000, infinity = 0x7FF0'0000'0000'0000;
    const auto bits = __builtin_bit_cast(std::uint64_t, number);
    return bits <= one ? number : bits <= infinity ? 1.0 : 0.0;
}

PROMPTLAYER_DECL std::chrono::milliseconds backoff(const retry_policy& policy, std::uint32_t attempts,
                                                   double random) noexcept {
    using std::chrono::milliseconds;
    constexpr milliseconds zero{0};
    const milliseconds max_delay = std::clamp(policy.max_delay, zero, max_wait);
    milliseconds range = std::clamp(policy.initial_delay, zero, max_delay);
    for (std::uint32_t n = 1; n < attempts && range > zero && range < max_delay; ++n)
        range = range > max_delay / 2 ? max_delay : 2 * range;
    return milliseconds{
        static_cast<milliseconds::rep>(within_unit(random) * static_cast<double>(range.count()))};
}

PROMPTLAYER_DECL std::chrono::milliseconds capped_retry_after(const retry_policy& policy,
                                                              const error& cause) noexcept {
    using std::chrono::milliseconds;
    const milliseconds cap = std::clamp(policy.max_retry_after, milliseconds{0}, max_wait);
    const auto asked = std::max(cause.retry_after.value_or(std::chrono::seconds{0}), std::chrono::seconds{0});
    return asked > std::chrono::duration_cast<std::chrono::seconds>(cap) ? cap : asked;
}

PROMPTLAYER_DECL bool may_wait(const retry_policy& policy, std::chrono::milliseconds age,
                               std::chrono::milliseconds wait) noexcept {
    age = std::max(age, std::chrono::milliseconds{0});
    return !policy.max_age || (age <= *policy.max_age && wait <= *policy.max_age - age);
}

} // namespace detail

PROMPTLAYER_DECL std::optional<std::chrono::milliseconds> retry_wait(const retry_policy& policy,
                                                                     const error& cause,
                                                                     std::uint32_t attempts, double random,
                                                                     std::chrono::milliseconds age) noexcept {
    if (!cause.retryable() || (cause.maybe_delivered && !policy.retry_maybe_delivered) ||
        (policy.max_attempts != 0 && attempts >= policy.max_attempts))
        return std::nullopt;
    const auto wait = detail::backoff(policy, attempts, random) + detail::capped_retry_after(policy, cause);
    return detail::may_wait(policy, age, wait) ? std::optional{wait} : std::nullopt;
}

namespace detail {

/// Returns the output function of SplitMix64: each bit of the argument changes half the bits of the result.
constexpr std::uint64_t mix_bits(std::uint64_t bits) noexcept {
    bits = (bits ^ (bits >> 30)) * 0xBF58'476D'1CE4'E5B9;
    bits = (bits ^ (bits >> 27)) * 0x94D0'49BB'1331'11EB;
    return bits ^ (bits >> 31);
}

PROMPTLAYER_DECL std::function<double()> random_source() {
    static std::atomic<std::uint32_t> count{0};
    std::uint64_t state = count.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t parts[] = {
        static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()),
        static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()),
        reinterpret_cast<std::uintptr_t>(&state), reinterpret_cast<std::uintptr_t>(&random_source)};
    for (const std::uint64_t part : parts)
        state = mix_bits(state) ^ part;
    return [position = mix_bits(state)]() mutable {
        position += 0x9E37'79B9'7F4A'7C15;
        return static_cast<double>(mix_bits(position) >> 11) * 0x1p-53; // a double has 53 bits
    };
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
