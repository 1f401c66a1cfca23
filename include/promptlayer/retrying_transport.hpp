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
#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <condition_variable>
#include <mutex>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {

/// Returns an outcome as the error that `retry_wait` takes.
PROMPTLAYER_DECL error retry_cause(const transport_result& outcome);

/// A sleep that any thread can end.
class cancellable_sleep {
    struct state;
    std::shared_ptr<state> state_; // null after a move

public:
    cancellable_sleep();

    bool was_moved_from() const noexcept { return !state_; }

    /// Forgets an earlier `cancel`.
    void reset();

    /// Sleeps until `duration` has passed or `cancel` is called. Returns true if `cancel` was called since
    /// `reset`.
    bool sleep(std::chrono::milliseconds duration);

    void cancel() noexcept;
};

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
/// attempt. A request that is not `http_request::idempotent`, such as a log, is not sent again if it may have
/// been delivered.
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

    TransportT transport_;
    retry_policy policy_;
    retry_hooks hooks_;
    detail::cancellable_sleep sleep_{};

    std::chrono::steady_clock::time_point now() const {
        return hooks_.now ? hooks_.now() : std::chrono::steady_clock::now();
    }

    /// Returns true if `cancel` was called since the request began.
    bool sleep(std::chrono::milliseconds wait) {
        if (!hooks_.sleep)
            return sleep_.sleep(wait);
        hooks_.sleep(wait);
        return sleep_.sleep(std::chrono::milliseconds{0});
    }

public:
    explicit retrying_transport(TransportT transport, retry_policy policy = {}, retry_hooks hooks = {})
        : transport_(std::forward<TransportT>(transport)), policy_(policy), hooks_(std::move(hooks)) {
        if (!hooks_.random)
            hooks_.random = detail::random_source();
    }

    transport_type& transport() noexcept { return transport_; }

    transport_result send(const http_request& request) {
        if (sleep_.was_moved_from())
            return transport_failure{failure::other, "the transport was moved from", false};
        sleep_.reset();
        const auto start = now();
        retry_policy policy = policy_;
        policy.retry_maybe_delivered = policy.retry_maybe_delivered && request.idempotent;
        bool maybe_delivered = false; // by any attempt
        for (std::uint32_t attempts = 1;; ++attempts) {
            transport_result outcome = transport_.send(request);
            const error cause = detail::retry_cause(outcome);
            maybe_delivered = maybe_delivered || outcome || outcome.error().maybe_delivered;
            if (!outcome)
                outcome.error().maybe_delivered = maybe_delivered;
            const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now() - start);
            const auto wait = retry_wait(policy, cause, attempts, hooks_.random(), age);
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
        if (sleep_.was_moved_from())
            return;
        sleep_.cancel();
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

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error retry_cause(const transport_result& outcome) {
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

struct cancellable_sleep::state {
    std::mutex mutex{};
    std::condition_variable condition{};
    bool is_cancelled = false;
};

PROMPTLAYER_DECL cancellable_sleep::cancellable_sleep() : state_(std::make_shared<state>()) {}

PROMPTLAYER_DECL void cancellable_sleep::reset() {
    const std::lock_guard guard{state_->mutex};
    state_->is_cancelled = false;
}

PROMPTLAYER_DECL bool cancellable_sleep::sleep(std::chrono::milliseconds duration) {
    std::unique_lock guard{state_->mutex};
    return state_->condition.wait_for(guard, duration, [&] { return state_->is_cancelled; });
}

PROMPTLAYER_DECL void cancellable_sleep::cancel() noexcept {
    const std::lock_guard guard{state_->mutex};
    state_->is_cancelled = true;
    state_->condition.notify_all();
}

} // namespace detail

#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
