#ifndef PROMPTLAYER_RETRY_HPP
#define PROMPTLAYER_RETRY_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#ifndef PROMPTLAYER_NO_THREADS
#include <condition_variable>
#include <mutex>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// When a request that failed is sent again. The defaults are for callers who wait; see
/// `background_retry_policy`.
struct retry_policy {
    std::uint32_t max_attempts = 5;                           ///< with the first one; 0 for no limit
    std::chrono::milliseconds first_wait{2'000};              ///< the longest wait after the first attempt
    std::chrono::milliseconds longest_wait{30'000};           ///< it doubles up to this
    std::chrono::milliseconds longest_retry_after{3'600'000}; ///< what is heeded of a `Retry-After`
    std::optional<std::chrono::milliseconds> max_age{}; ///< of a request at its last attempt; none for any
    bool repeat_maybe_delivered = true; ///< whether a request that may have arrived is sent again

    friend bool operator==(const retry_policy&, const retry_policy&) = default;
};

/// For trackers, where nobody waits: no limit of attempts, up to 5 minutes apart, for 24 hours.
inline retry_policy background_retry_policy() noexcept {
    retry_policy policy;
    policy.max_attempts = 0;
    policy.longest_wait = std::chrono::minutes{5};
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
/// The wait is a random part ("full jitter") of 2 s, 4 s, 8 s, ... up to `longest_wait`. A `Retry-After` is
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
    if (!failed.retryable() || (failed.maybe_delivered && !policy.repeat_maybe_delivered) ||
        (policy.max_attempts != 0 && attempts >= policy.max_attempts))
        return std::nullopt;
    const milliseconds longest = std::clamp(policy.longest_wait, none, a_year);
    milliseconds most = std::clamp(policy.first_wait, none, longest);
    for (std::uint32_t doubled = 1; doubled < attempts && most > none && most < longest; ++doubled)
        most = most > longest / 2 ? longest : 2 * most;
    const double part = detail::within_unit(random);
    milliseconds wait{static_cast<milliseconds::rep>(part * static_cast<double>(most.count()))};
    if (failed.retry_after) {
        const milliseconds cap = std::clamp(policy.longest_retry_after, none, a_year);
        const bool capped = *failed.retry_after > std::chrono::duration_cast<std::chrono::seconds>(cap);
        wait += capped ? cap : std::max<milliseconds>(*failed.retry_after, none);
    }
    if (policy.max_age && (age > *policy.max_age || wait > *policy.max_age - std::max(age, none)))
        return std::nullopt;
    return wait;
}

namespace detail {

/// As much of an error as the decision to send again needs.
inline error retry_cause(const transport_result& outcome) {
    error e{.code = errc::transport};
    if (outcome) {
        e.code = errc::unexpected_status;
        e.status = outcome->status;
        e.retry_after = retry_after(*outcome);
    } else {
        e.failure = outcome.error().kind;
        e.maybe_delivered = outcome.error().maybe_delivered;
    }
    return e;
}

/// Uniform from 0 up to 1, from a generator that the system has seeded.
inline std::function<double()> random_source() {
    std::random_device seed;
    return [engine = std::minstd_rand{seed()}]() mutable {
        return std::uniform_real_distribution<double>{0, 1}(engine);
    };
}

} // namespace detail

#ifndef PROMPTLAYER_NO_THREADS

/// What `retrying` takes from its surroundings, for tests that do not wait. What is empty is the real thing.
struct retry_environment {
    std::function<std::chrono::steady_clock::time_point()> now{};
    std::function<double()> random{};                       ///< uniform from 0 to 1
    std::function<void(std::chrono::milliseconds)> sleep{}; ///< not woken by `cancel`, unlike the real one
};

/// A `Transport` that sends a request again, as the policy has it, over one that does not: for callers who
/// wait. The outcome is that of the last attempt. `http_request::timeout` is for each attempt.
///
/// One request at a time, whatever `T` allows; `cancel` alone may be called from any thread. Movable between
/// requests. `std::ref` has it refer to a transport, which must outlive it; it cannot be
/// assigned to then.
template <class T>
class retrying {
    using transport_type = std::remove_reference_t<T>;

    static_assert(detail::is_transport<transport_type>());
    static_assert(
        Transport<transport_type> || !AsyncTransport<transport_type>,
        "promptlayer: retrying takes a synchronous Transport; an asynchronous one is for a tracker");

    struct waking {
        std::mutex mutex{};
        std::condition_variable changed{};
        bool cancelled = false;
    };

    T transport_;
    retry_policy policy_;
    retry_environment environment_;
    std::unique_ptr<waking> waking_ = std::make_unique<waking>();

    std::chrono::steady_clock::time_point now() const {
        return environment_.now ? environment_.now() : std::chrono::steady_clock::now();
    }

    /// Whether the wish to cancel came before or meanwhile.
    bool sleep(std::chrono::milliseconds wait) {
        if (environment_.sleep)
            environment_.sleep(wait);
        std::unique_lock held{waking_->mutex};
        if (!environment_.sleep)
            waking_->changed.wait_for(held, wait, [&] { return waking_->cancelled; });
        return waking_->cancelled;
    }

public:
    explicit retrying(T transport, retry_policy policy = {}, retry_environment environment = {})
        : transport_(std::forward<T>(transport)), policy_(policy), environment_(std::move(environment)) {
        if (!environment_.random)
            environment_.random = detail::random_source();
    }

    transport_type& transport() noexcept { return transport_; }

    transport_result send(const http_request& request) {
        if (!waking_)
            return transport_failure{failure::other, "the transport was moved from", false};
        {
            const std::lock_guard held{waking_->mutex};
            waking_->cancelled = false;
        }
        const auto begun = now();
        bool maybe_delivered = false; // by any attempt
        for (std::uint32_t attempts = 1;; ++attempts) {
            transport_result outcome = transport_.send(request);
            maybe_delivered = maybe_delivered || outcome || outcome.error().maybe_delivered;
            if (!outcome)
                outcome.error().maybe_delivered = maybe_delivered;
            const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now() - begun);
            const auto wait =
                retry_wait(policy_, detail::retry_cause(outcome), attempts, environment_.random(), age);
            if (!wait)
                return outcome;
            if (sleep(*wait))
                return transport_failure{failure::cancelled, "cancelled between two attempts",
                                         maybe_delivered};
        }
    }

    /// Ends the request in flight, while it is sent or while the next attempt is waited for, with
    /// `failure::cancelled`; later ones are not affected. An attempt is ended only where `T` can be
    /// cancelled.
    void cancel() noexcept {
        if (!waking_)
            return;
        {
            const std::lock_guard held{waking_->mutex};
            waking_->cancelled = true;
            waking_->changed.notify_all();
        }
        if constexpr (requires { transport_.cancel(); })
            transport_.cancel();
    }
};

template <class T>
retrying(T) -> retrying<std::unwrap_reference_t<T>>;
template <class T>
retrying(T, retry_policy) -> retrying<std::unwrap_reference_t<T>>;
template <class T>
retrying(T, retry_policy, retry_environment) -> retrying<std::unwrap_reference_t<T>>;

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
