#ifndef PROMPTLAYER_RETRYING_TRANSPORT_HPP
#define PROMPTLAYER_RETRYING_TRANSPORT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/retry.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#ifndef PROMPTLAYER_NO_THREADS
#include <condition_variable>
#include <mutex>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {

/// Returns what `retry_wait` needs to know of an outcome.
inline error retry_cause(const transport_result& outcome) {
    error cause{.code = errc::transport};
    if (outcome) {
        cause.code = errc::unexpected_status;
        cause.status = outcome->status;
        cause.retry_after = retry_after(*outcome);
    } else {
        cause.failure = outcome.error().kind;
        cause.maybe_delivered = outcome.error().maybe_delivered;
    }
    return cause;
}

} // namespace detail

/// Replaces the clock, the random numbers and the sleep of a `retrying_transport`, for tests in virtual time.
/// An empty member stands for the real clock, generator or sleep.
struct retry_hooks {
    std::function<std::chrono::steady_clock::time_point()> now{};
    std::function<double()> random{};                       ///< uniform from 0 to 1
    std::function<void(std::chrono::milliseconds)> sleep{}; ///< not ended by `cancel`, unlike the real sleep
};

/// A `Transport` that sends each request through another, and repeats it after the waits of a `retry_policy`.
/// For callers that wait. The outcome is that of the last attempt. `http_request::timeout` limits each
/// attempt.
///
/// Sends one request at a time, even if `TransportT` is thread-safe. Any thread may call `cancel`. May be
/// moved between requests. Constructed from `std::ref`, it refers to a transport, which must outlive it; then
/// it is not assignable.
template <class TransportT>
class retrying_transport {
    using transport_type = std::remove_reference_t<TransportT>;

    static_assert(detail::is_transport<transport_type>());
    static_assert(Transport<transport_type> || !AsyncTransport<transport_type>,
                  "promptlayer: retrying_transport takes a synchronous Transport; use an AsyncTransport "
                  "with a tracker");

    struct cancellation {
        std::mutex mutex{};
        std::condition_variable condition{};
        bool requested = false;
    };

    TransportT transport_;
    retry_policy policy_;
    retry_hooks hooks_;
    std::unique_ptr<cancellation> cancellation_ = std::make_unique<cancellation>();

    std::chrono::steady_clock::time_point now() const {
        return hooks_.now ? hooks_.now() : std::chrono::steady_clock::now();
    }

    /// Sleeps until `wait` has passed or `cancel` is called. Returns whether `cancel` was called since the
    /// request began.
    bool sleep(std::chrono::milliseconds wait) {
        if (hooks_.sleep)
            hooks_.sleep(wait);
        std::unique_lock guard{cancellation_->mutex};
        if (!hooks_.sleep)
            cancellation_->condition.wait_for(guard, wait, [&] { return cancellation_->requested; });
        return cancellation_->requested;
    }

public:
    explicit retrying_transport(TransportT transport, retry_policy policy = {}, retry_hooks hooks = {})
        : transport_(std::forward<TransportT>(transport)), policy_(policy), hooks_(std::move(hooks)) {
        if (!hooks_.random)
            hooks_.random = detail::random_source();
    }

    transport_type& transport() noexcept { return transport_; }

    transport_result send(const http_request& request) {
        if (!cancellation_)
            return transport_failure{failure::other, "the transport was moved from", false};
        {
            const std::lock_guard guard{cancellation_->mutex};
            cancellation_->requested = false;
        }
        const auto start = now();
        bool maybe_delivered = false; // by any attempt
        for (std::uint32_t attempts = 1;; ++attempts) {
            transport_result outcome = transport_.send(request);
            maybe_delivered = maybe_delivered || outcome || outcome.error().maybe_delivered;
            if (!outcome)
                outcome.error().maybe_delivered = maybe_delivered;
            const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now() - start);
            const auto wait =
                retry_wait(policy_, detail::retry_cause(outcome), attempts, hooks_.random(), age);
            if (!wait)
                return outcome;
            if (sleep(*wait))
                return transport_failure{failure::cancelled, "cancelled between two attempts",
                                         maybe_delivered};
        }
    }

    /// Ends the request in flight with `failure::cancelled`: a wait between attempts at once, an attempt only
    /// if `TransportT` has `cancel`. Does not affect later requests.
    void cancel() noexcept {
        if (!cancellation_)
            return;
        {
            const std::lock_guard guard{cancellation_->mutex};
            cancellation_->requested = true;
            cancellation_->condition.notify_all();
        }
        if constexpr (requires { transport_.cancel(); })
            transport_.cancel();
    }
};

template <class TransportT>
retrying_transport(TransportT) -> retrying_transport<std::unwrap_reference_t<TransportT>>;
template <class TransportT>
retrying_transport(TransportT, retry_policy) -> retrying_transport<std::unwrap_reference_t<TransportT>>;
template <class TransportT>
retrying_transport(TransportT, retry_policy, retry_hooks)
    -> retrying_transport<std::unwrap_reference_t<TransportT>>;

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
