#ifndef PROMPTLAYER_DETAIL_CIRCUIT_BREAKER_HPP
#define PROMPTLAYER_DETAIL_CIRCUIT_BREAKER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/retry.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Judges the service by its responses. Closed, it lets requests through and limits how many are in flight.
/// Open, it lets through only one request at a time, the probe. Durations only; the caller has the clock.
class circuit_breaker {
    using milliseconds = std::chrono::milliseconds;

    /// The failures since the last healthy response.
    struct failure_run {
        std::size_t count = 0;
        request_number last = 0;
        bool of_several = false; // requests
    };

    milliseconds initial_delay_, max_delay_;
    std::size_t max_window_;
    std::size_t window_ = 1;
    std::size_t healthy_count_ = 0; // healthy responses since the window last grew
    failure_run failures_{};
    milliseconds delay_{0}, delay_429_{0}; // the last delay before a probe; the one after a 429 is separate
    milliseconds current_delay_{0};        // one of the two
    bool has_opened_ = false;
    bool is_proven_ = false; // there was a healthy response since the start or since `reconfigure`
    std::optional<error> cause_{};

public:
    static constexpr milliseconds min_wait{100};

    /// A `Retry-After` that one request alone received counts as at most this.
    static constexpr milliseconds max_single_retry_after{5'000};

    circuit_breaker(const retry_policy& policy, std::size_t max_in_flight);

    bool is_open() const noexcept { return cause_.has_value(); }

    /// Returns the latest failure if the breaker is open.
    const std::optional<error>& cause() const noexcept { return cause_; }

    /// Returns how many requests may be in flight while the breaker is closed.
    std::size_t window() const noexcept { return window_; }

    /// Counts a healthy response. That of the probe closes the breaker. `is_current` is false if the request
    /// was sent before the last `reconfigure`.
    void record_success(bool is_probe, bool is_current);

    /// Counts a failure of a request while the breaker is closed, or of the probe. Returns the wait before
    /// the next probe if the breaker is open now. The wait doubles each time. The delay after a 429 doubles
    /// on its own, because the service works and only asks for fewer requests.
    std::optional<milliseconds> record_failure(request_number number, const error& cause,
                                               milliseconds retry_after,
                                               const std::function<double()>& random);

    /// Returns the wait before the next probe: random, so that the clients of one service do not probe at the
    /// same moment, and at least `retry_after`.
    milliseconds next_wait(milliseconds retry_after, const std::function<double()>& random) const;

    /// Forgets that the key and the config were proven.
    void reconfigure() noexcept;
};

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL circuit_breaker::circuit_breaker(const retry_policy& policy, std::size_t max_in_flight)
    : initial_delay_(std::clamp(policy.initial_delay, min_wait, max_wait)),
      max_delay_(std::clamp(policy.max_delay, min_wait, max_wait)), max_window_(max_in_flight) {}

PROMPTLAYER_DECL void circuit_breaker::record_success(bool is_probe, bool is_current) {
    failures_ = {};
    is_proven_ = is_proven_ || is_current;
    if (!is_open()) {
        ++healthy_count_;
        if (window_ < max_window_ && (!has_opened_ || healthy_count_ >= window_)) {
            ++window_; // with each response: the window doubles while it passes once
            healthy_count_ = 0;
        }
    } else if (is_probe) {
        cause_.reset();
        delay_ = delay_429_ = milliseconds{0};
        window_ = 1;
    }
}

PROMPTLAYER_DECL std::optional<std::chrono::milliseconds>
circuit_breaker::record_failure(request_number number, const error& cause, milliseconds retry_after,
                                const std::function<double()>& random) {
    failures_.of_several = failures_.of_several || (failures_.count != 0 && failures_.last != number);
    failures_.last = number;
    ++failures_.count;
    const bool is_429 = cause.status == 429;
    const bool is_of_config = cause.status == 401 || cause.status == 403 || cause.failure == failure::tls ||
                              cause.code == errc::invalid_config;
    // The more requests are in flight, the more often some fail in a row by chance.
    const std::size_t max_failures = std::min<std::size_t>(5 + window_ / 4, 12);
    if (!is_open() && failures_.count < max_failures && !is_429 && retry_after == milliseconds{0} &&
        (!is_of_config || is_proven_))
        return std::nullopt;
    const milliseconds first = is_429 ? milliseconds{5'000} : initial_delay_;
    const milliseconds limit = is_429 ? max_delay_ / 2 : max_delay_;
    milliseconds& delay = is_429 ? delay_429_ : delay_;
    current_delay_ = delay = std::min(limit, std::max(first, 2 * delay));
    cause_ = cause;
    has_opened_ = true;
    return next_wait(std::min(retry_after, failures_.of_several ? max_delay_ : max_single_retry_after),
                     random);
}

PROMPTLAYER_DECL std::chrono::milliseconds
circuit_breaker::next_wait(milliseconds retry_after, const std::function<double()>& random) const {
    const auto times = [](milliseconds duration, double factor) {
        const double product = factor * static_cast<double>(duration.count());
        return milliseconds{static_cast<milliseconds::rep>(product + 0.5)}; // the same with any precision
    };
    const milliseconds wait = std::max(times(current_delay_, 0.6 + within_unit(random())), min_wait);
    return std::max(wait, retry_after + times(retry_after, within_unit(random()) / 4));
}

PROMPTLAYER_DECL void circuit_breaker::reconfigure() noexcept {
    is_proven_ = false;
    failures_ = {};
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
