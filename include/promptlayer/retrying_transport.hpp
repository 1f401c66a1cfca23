#ifndef PROMPTLAYER_RETRYING_TRANSPORT_HPP
#define PROMPTLAYER_RETRYING_TRANSPORT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/result.hpp>
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

} // namespace detail

#ifndef PROMPTLAYER_NO_THREADS

/// What `retrying_transport` takes from its surroundings, for tests that do not wait. What is empty is the
/// real thing.
struct retry_hooks {
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
class retrying_transport {
    using transport_type = std::remove_reference_t<T>;

    static_assert(detail::is_transport<transport_type>());
    static_assert(Transport<transport_type> || !AsyncTransport<transport_type>,
                  "promptlayer: retrying_transport takes a synchronous Transport; an asynchronous one is for "
                  "a tracker");

    struct waking {
        std::mutex mutex{};
        std::condition_variable changed{};
        bool cancelled = false;
    };

    T transport_;
    retry_policy policy_;
    retry_hooks environment_;
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
    explicit retrying_transport(T transport, retry_policy policy = {}, retry_hooks environment = {})
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
retrying_transport(T) -> retrying_transport<std::unwrap_reference_t<T>>;
template <class T>
retrying_transport(T, retry_policy) -> retrying_transport<std::unwrap_reference_t<T>>;
template <class T>
retrying_transport(T, retry_policy, retry_hooks) -> retrying_transport<std::unwrap_reference_t<T>>;

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
