#ifndef PROMPTLAYER_BACKGROUND_TRACKER_HPP
#define PROMPTLAYER_BACKGROUND_TRACKER_HPP

#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/any_transport.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/tracker.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <optional>
#endif
#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <condition_variable>
#include <mutex>
#include <thread>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {
template <class ClockT>
class background_engine;
}

/// Tracks prompts from any thread at the cost of a queue. A thread of its own sends the requests and reports
/// each result. `outbox` describes the schedule, `basic_tracker` the members that both trackers have.
///
/// - Over an `AsyncTransport`, up to `queue_options::max_in_flight` requests are in flight at once. Over a
///   synchronous `Transport`, it is one; `threaded_transport` makes it several.
/// - Threads: any thread may call any member, except the destructor. Only the tracker's thread uses the
///   transport, except for its `wakeup()` and `cancel()`.
/// - Callbacks run on the tracker's thread, one at a time, without a lock; those for undelivered requests run
///   in the destructor. They may call any member, but `flush` and `close` do not wait there. They must not
///   destroy the tracker. With a journal they may run, and use the tracker, before the constructor returns.
///   A `std::unique_ptr` or `std::optional` is empty while it constructs or destroys its tracker; callbacks
///   that use the tracker then need it as a variable or a member.
/// - Closing takes at most its timeout and the time of a callback. A request that begins while the tracker
///   closes has only the time that is left. A synchronous transport without `cancel()` holds `close` until
///   the request in flight has ended.
/// - A static tracker is closed after `main`. Objects that its callbacks use must still exist then.
///
/// Used as `background_tracker`. A template, so that a header-only program compiles it only if it is used.
template <class ClockT>
class basic_background_tracker : public basic_tracker<ClockT> {
    basic_background_tracker(config config, detail::any_transport transport, tracker_options options);
    detail::background_engine<ClockT>& engine() const noexcept;

public:
    /// Starts the thread. Throws `std::system_error` if the thread cannot be created. With an invalid config,
    /// every `track` returns `invalid_config`. Pending requests of the journal are sent first. A transport
    /// that is given as `std::ref` must outlive the tracker.
    template <class T>
    explicit basic_background_tracker(config config, T transport, tracker_options options = {})
        : basic_background_tracker(std::move(config), detail::own_transport(std::move(transport)),
                                   std::move(options)) {
        static_assert(detail::is_transport<std::unwrap_reference_t<T>>());
    }

    /// Calls `close` with `tracker_options::close_timeout` and reports the undelivered requests; not if
    /// `close` throws.
    ~basic_background_tracker();

    /// Waits until every request is reported, or the timeout expires. Returns true if no request is left.
    /// Returns at once while the tracker is paused. Returns false at once in a callback.
    bool flush(std::chrono::milliseconds timeout);

    /// Stops accepting requests, sends the requests that are due within `timeout`, and returns the
    /// undelivered requests in order. These stay in the journal for the next start; a request that was in
    /// flight may have been delivered. In a callback, `close` only stops accepting requests. If memory is
    /// exhausted, it throws; no request is lost, and the next `close` returns all.
    [[nodiscard]] std::vector<finished_request> close(std::chrono::milliseconds timeout);
};

using background_tracker = basic_background_tracker<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

/// A delivery engine and the thread that drives it.
template <class ClockT>
class background_engine final : public delivery_engine<ClockT> {
    using time_point = typename ClockT::time_point;
    using milliseconds = std::chrono::milliseconds;

    /// How often a transport is polled that cannot wait, or has no `wakeup()`.
    static constexpr milliseconds poll_interval{5};

    static constexpr milliseconds out_of_memory_delay{100};

    /// The longest wait in a transport: fits into the arguments of system calls.
    static constexpr milliseconds max_poll{60'000};

    std::mutex mutex_{};                // of all members below; locked before that of the engine
    std::condition_variable woken_{};   // the thread waits for it
    std::condition_variable settled_{}; // `flush` and `close` wait for it
    bool is_woken_ = false;             // `step` has something to do
    bool in_transport_ = false;         // the thread waits in the transport
    bool is_stopped_ = false;           // the thread has ended
    std::thread thread_{};

    static milliseconds clamp_timeout(milliseconds timeout) noexcept {
        return std::clamp(timeout, milliseconds{0}, max_wait);
    }

    /// Makes the thread call `step`. A completion that the transport calls within `poll` needs no wake-up.
    void wake_thread() {
        bool ends_poll = false;
        {
            const std::lock_guard guard{mutex_};
            ends_poll = in_transport_ && !is_woken_ && !is_own_thread();
            is_woken_ = true;
            woken_.notify_one();
            if (this->is_paused())
                settled_.notify_all(); // `flush` ends now, even if the thread is in a long `send`
        }
        if (ends_poll)
            this->transport().call(this->transport().functions().wakeup);
    }

    /// Waits for a time, an outcome or `wake_thread`. Returns false if the thread is to end.
    bool wait(std::optional<time_point> next) {
        const any_transport& transport = this->transport();
        const transport_functions& functions = transport.functions();
        const bool polls = functions.poll && this->stats().in_flight != 0;
        const time_point now = ClockT::now();
        std::unique_lock guard{mutex_};
        if (this->pending() == 0 || this->is_paused())
            settled_.notify_all();
        if (this->is_finished())
            return false;
        time_point until = std::min(next.value_or(now + max_wait), this->close_deadline());
        if (polls && (!functions.poll_for || !functions.wakeup))
            until = std::min(until, now + poll_interval);
        if (polls && functions.poll_for) {
            const auto duration = is_woken_ ? milliseconds{0} : std::chrono::ceil<milliseconds>(until - now);
            in_transport_ = true;
            guard.unlock();
            transport.call(functions.poll_for, std::clamp(duration, milliseconds{0}, max_poll));
            guard.lock();
            in_transport_ = false;
        } else {
            woken_.wait_until(guard, until, [&] { return is_woken_; });
            if (polls) {
                guard.unlock();
                transport.call(functions.poll);
                guard.lock();
            }
        }
        is_woken_ = false; // `step` comes next
        return true;
    }

    void work() {
        {
            const std::lock_guard guard{mutex_}; // `start` has set `thread_`
        }
        const auto step = [&]() -> std::optional<time_point> { return this->step(); };
        const auto pause = [](const char*) { return std::optional{ClockT::now() + out_of_memory_delay}; };
        while (wait(guard_exceptions(step, pause))) {
        }
        ignore_exceptions([&] { this->settle(); });
        const std::lock_guard guard{mutex_};
        is_stopped_ = true;
        settled_.notify_all();
    }

public:
    background_engine(config config, any_transport transport, tracker_options options)
        : delivery_engine<ClockT>(
              std::move(config), std::move(transport), std::move(options), [] { return ClockT::now(); },
              [this] { wake_thread(); }) {}

    /// Needs `close` before it, if the thread was started.
    ~background_engine() override {
        this->stop_wakes();
        if (thread_.joinable())
            thread_.join();
    }

    /// Starts the thread. Needs a complete tracker, because the thread may call callbacks at once.
    void start() {
        const std::lock_guard guard{mutex_};
        thread_ = std::thread{[this] { work(); }};
    }

    bool is_own_thread() const { return thread_.get_id() == std::this_thread::get_id(); }

    bool flush(milliseconds timeout) {
        if (is_own_thread())
            return false;
        std::unique_lock guard{mutex_};
        settled_.wait_for(guard, clamp_timeout(timeout),
                          [&] { return is_stopped_ || this->is_paused() || this->pending() == 0; });
        return this->pending() == 0;
    }

    std::vector<finished_request> close(milliseconds timeout) {
        if (is_own_thread()) {
            delivery_engine<ClockT>::close(time_point::max());
            return {};
        }
        const time_point deadline = ClockT::now() + clamp_timeout(timeout);
        delivery_engine<ClockT>::close(deadline);
        wake_thread();
        std::unique_lock guard{mutex_};
        settled_.wait_until(guard, deadline, [&] { return is_stopped_; });
        while (!is_stopped_) {
            guard.unlock();
            if (!this->transport().is_asynchronous())
                this->cancel_transport(); // repeated, because a request may just begin
            guard.lock();
            settled_.wait_for(guard, milliseconds{10}, [&] { return is_stopped_; });
        }
        guard.unlock();
        return this->drain();
    }
};

} // namespace detail

template <class ClockT>
basic_background_tracker<ClockT>::basic_background_tracker(config config, detail::any_transport transport,
                                                           tracker_options options)
    : basic_tracker<ClockT>(new detail::background_engine<ClockT>(std::move(config), std::move(transport),
                                                                  std::move(options))) {
    engine().start();
}

template <class ClockT>
basic_background_tracker<ClockT>::~basic_background_tracker() {
    if (!this->is_usable())
        return;
    if (engine().is_own_thread())
        detail::misuse("promptlayer: a callback has destroyed its tracker\n");
    detail::ignore_exceptions([&] { engine().report_returned(engine().close(engine().close_timeout())); });
}

template <class ClockT>
detail::background_engine<ClockT>& basic_background_tracker<ClockT>::engine() const noexcept {
    return static_cast<detail::background_engine<ClockT>&>(basic_tracker<ClockT>::engine());
}

template <class ClockT>
bool basic_background_tracker<ClockT>::flush(std::chrono::milliseconds timeout) {
    return this->is_usable() && engine().flush(timeout);
}

template <class ClockT>
std::vector<finished_request> basic_background_tracker<ClockT>::close(std::chrono::milliseconds timeout) {
    return this->is_usable() ? engine().close(timeout) : std::vector<finished_request>{};
}

#endif

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_background_tracker<std::chrono::steady_clock>;
#else
extern template class basic_background_tracker<std::chrono::steady_clock>;
#endif
#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
