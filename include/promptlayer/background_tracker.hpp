#ifndef PROMPTLAYER_BACKGROUND_TRACKER_HPP
#define PROMPTLAYER_BACKGROUND_TRACKER_HPP

#include <promptlayer/client.hpp>
#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/journal.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/tracker.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#endif
#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <condition_variable>
#include <mutex>
#include <thread>
#if !defined(_WIN32)
#include <unistd.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

/// The limits of a `background_tracker`.
struct background_settings {
    outbox_settings outbox{};
    std::chrono::milliseconds close_timeout{2'000}; ///< how long the destructor continues to send
};

namespace detail {

/// A synchronous transport of unknown type, and its owner.
struct owned_transport {
    std::unique_ptr<void, void (*)(void*)> object;
    transport_reference reference;
    void (*cancel)(void* object); ///< null if the transport has no `cancel()`
};

template <class T>
owned_transport own_transport(T transport) {
    T* const object = new T(std::move(transport));
    owned_transport owned{
        {object, [](void* erased) { delete static_cast<T*>(erased); }}, refer_to_transport(*object), nullptr};
    if constexpr (requires { object->cancel(); })
        owned.cancel = [](void* erased) { static_cast<T*>(erased)->cancel(); };
    return owned;
}

/// What a background tracker and its thread share.
template <class ClockT>
class background_state;

} // namespace detail

/// Tracks prompts from any thread at the cost of a queue. A thread of its own sends the requests over a
/// synchronous `Transport`, one after the other, and reports each result. `outbox` describes the schedule.
///
/// - Threads: any thread may call any member, except the destructor. Only the tracker's thread uses the
///   transport; the thread that closes the tracker calls its `cancel()`.
/// - Callbacks: `on_delivered` and `on_failed` run on the tracker's thread, one at a time, without a lock.
///   They may call any member, but `flush` and `close` do not wait there. The destructor calls
///   `on_undelivered`.
/// - Closing takes at most its timeout, and then as long as the transport needs to end a request: 100 ms with
///   `cancel()`, else up to the `timeout` of the config.
/// - After `fork` the child has no such thread: there, every call is `closed`. The parent delivers.
/// - A static tracker is closed after `main`. Objects that its callbacks use must still exist then.
///
/// Used as `background_tracker`. A template, so that a header-only program compiles it only if it is used.
template <class ClockT>
class basic_background_tracker {
    using ended = promptlayer::outbox::ended;

    struct release_state {
        void operator()(detail::background_state<ClockT>* state) const noexcept;
    };

    std::unique_ptr<detail::background_state<ClockT>, release_state> state_;

    basic_background_tracker(config config, detail::owned_transport transport, tracker_callbacks callbacks,
                             const background_settings& limits, std::unique_ptr<journal> record);

    /// Returns null in a child of `fork`.
    std::shared_ptr<const encoder> current_encoder() const;
    result<outbox::id> push(prepared_request request);
    static error closed();

public:
    /// Starts the thread. Throws `std::system_error` if the thread cannot be created. With an invalid config,
    /// every `track_prompt` returns `invalid_config`. Pending requests of the journal are sent first.
    template <class T>
    explicit basic_background_tracker(config config, T transport, tracker_callbacks callbacks = {},
                                      const background_settings& limits = {},
                                      std::unique_ptr<journal> record = nullptr)
        : basic_background_tracker(std::move(config), detail::own_transport(std::move(transport)),
                                   std::move(callbacks), limits, std::move(record)) {
        static_assert(Transport<T>, "promptlayer: background_tracker is for a Transport, a synchronous one");
    }
    basic_background_tracker(const basic_background_tracker&) = delete;
    basic_background_tracker& operator=(const basic_background_tracker&) = delete;
    ~basic_background_tracker();

    /// Validates and queues a request. Returns its number, or `invalid_request`, `invalid_config`,
    /// `queue_full`, `closed`. Never waits for the network. Takes some microseconds, and with a journal one
    /// write to it. With a journal there is `journal_failed` as well: the request is queued, but a crash
    /// would lose it.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<outbox::id> track_prompt(const basic_track_prompt<TextT, VariablesT>& request) {
        const auto codec = current_encoder();
        if (!codec)
            return closed();
        auto prepared = codec->prepare(request);
        if (!prepared)
            return std::move(prepared).error();
        return push(*std::move(prepared));
    }

    /// Waits until every request is reported, a pause delays the others, or the timeout expires. Returns
    /// true if no request is left. Does not wait in a callback.
    bool flush(std::chrono::milliseconds timeout);

    /// Stops accepting requests, sends for up to `timeout`, ends the request in flight, and returns the
    /// undelivered ones in order. These stay in the journal for the next start. In a callback, `close` only
    /// stops accepting requests.
    [[nodiscard]] std::vector<ended> close(std::chrono::milliseconds timeout);

    /// Uses another config from the next request on, and resumes. An invalid config changes nothing and is
    /// returned as `invalid_config`.
    result<void> reconfigure(config config);

    /// Queues requests and sends none until `resume`. The request in flight continues.
    void pause();
    void resume();

    /// Returns the error that made the tracker wait for `reconfigure` or `resume`: 401, 403, a TLS failure or
    /// an invalid config. Returns nullopt if nothing did.
    std::optional<error> paused_by() const;

    outbox_stats stats() const;
};

using background_tracker = basic_background_tracker<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

inline std::chrono::milliseconds bounded(std::chrono::milliseconds timeout) noexcept {
    return std::clamp<std::chrono::milliseconds>(timeout, std::chrono::hours{0},
                                                 std::chrono::hours{24 * 365});
}

template <class ClockT>
class background_state {
    using clock = ClockT;
    using ended = promptlayer::outbox::ended;

    const tracker_callbacks callbacks_;
    owned_transport transport_; // only the thread uses it, except for its `cancel()`
    const std::unique_ptr<journal> journal_;
    const std::chrono::milliseconds close_timeout_;
    const long process_ = process();
    std::mutex adding_{};        // held while a request is queued and added to the journal; before `mutex_`
    mutable std::mutex mutex_{}; // of all members below
    std::condition_variable changed_{};
    outbox outbox_;
    std::shared_ptr<const encoder> encoder_;
    std::vector<ended> to_report_{};
    bool added_ = false;  // to the journal, since its last upkeep
    bool busy_ = false;   // the thread sends or reports
    bool ending_ = false; // the thread is to end
    bool gone_ = false;   // the thread has ended
    std::thread thread_{};

    static long process() noexcept {
#if defined(_WIN32)
        return 0; // there is no fork
#else
        return static_cast<long>(::getpid());
#endif
    }

    void mark_done(outbox::id number) {
        if (!journal_)
            return;
        const std::lock_guard guard{adding_}; // its `add` has returned by now
        undisturbed([&] { journal_->done(number); });
    }

    void report(std::unique_lock<std::mutex>& guard) {
        while (!to_report_.empty()) {
            const auto reported = std::exchange(to_report_, {});
            guard.unlock();
            for (const ended& request : reported) {
                tell(callbacks_.on_failed, request);
                mark_done(request.id);
            }
            guard.lock();
        }
    }

    std::optional<error> send(const encoder& codec, prepared_request request, track_response& response) {
        const auto http = codec.authorize(std::move(request));
        if (!http)
            return http.error();
        return send_sync(codec, *http, transport_.reference, info<track_response>(), &response);
    }

    void deliver(std::unique_lock<std::mutex>& guard, outbox::taken request) {
        const auto codec = encoder_;
        track_response response;
        guard.unlock();
        const std::optional<error> failed = send(*codec, std::move(request.request), response);
        guard.lock();
        auto end = outbox_.complete(request.id, failed, clock::now());
        if (end && failed)
            to_report_.push_back(*std::move(end));
        if (!end || failed)
            return;
        guard.unlock();
        mark_done(request.id);
        tell(callbacks_.on_delivered, request.id, response);
        guard.lock();
    }

    void work() {
        std::unique_lock guard{mutex_};
        while (true) {
            busy_ = true;
            std::optional<std::chrono::milliseconds> upkeep_after;
            if (journal_) {
                added_ = false;
                guard.unlock();
                undisturbed([&] { upkeep_after = journal_->tend(); });
                guard.lock();
            }
            report(guard);
            auto next = ending_ ? std::nullopt : outbox_.take(clock::now());
            if (next) {
                deliver(guard, *std::move(next));
                continue;
            }
            busy_ = false;
            changed_.notify_all(); // for those who wait until the thread is idle
            if (ending_)
                break;
            if (added_)
                continue;
            auto due = outbox_.next_due(clock::now());
            if (upkeep_after)
                due = std::min(due.value_or(clock::time_point::max()), clock::now() + bounded(*upkeep_after));
            if (due)
                changed_.wait_until(guard, *due);
            else
                changed_.wait(guard);
        }
        gone_ = true;
        changed_.notify_all();
    }

    /// Returns true if no request is left, or none can be sent before `resume`.
    bool is_idle() const {
        const outbox_stats counts = outbox_.stats();
        return !busy_ && to_report_.empty() && (counts.waiting == 0 || outbox_.paused());
    }

    bool is_own_thread() const { return thread_.get_id() == std::this_thread::get_id(); }

public:
    background_state(config config, owned_transport transport, tracker_callbacks callbacks,
                     const background_settings& limits, std::unique_ptr<journal> record)
        : callbacks_(std::move(callbacks)), transport_(std::move(transport)), journal_(std::move(record)),
          close_timeout_(limits.close_timeout), outbox_(limits.outbox),
          encoder_(std::make_shared<const encoder>(std::move(config))) {
        if (journal_)
            restore(outbox_, *journal_, clock::now());
        thread_ = std::thread{[this] { work(); }};
    }

    /// Closes the tracker, and reports the undelivered requests.
    void finish() {
        auto undelivered = close(close_timeout_);
        thread_.join();
        if (!undelivered.empty())
            tell(callbacks_.on_undelivered, std::move(undelivered));
    }

    /// Returns false in a child of `fork`, where threads that do not exist may hold the locks.
    bool is_in_owner_process() const noexcept { return process_ == process(); }

    std::shared_ptr<const encoder> current_encoder() const {
        const std::lock_guard guard{mutex_};
        return encoder_;
    }

    result<outbox::id> push(prepared_request request) {
        const std::lock_guard guard{mutex_};
        auto pushed = outbox_.push(std::move(request), clock::now());
        if (!pushed)
            return std::move(pushed).error();
        for (ended& dropped : pushed->dropped)
            to_report_.push_back(std::move(dropped));
        changed_.notify_all();
        return pushed->id;
    }

    result<outbox::id> add(prepared_request request) {
        if (!journal_)
            return push(std::move(request));
        const std::lock_guard guard{adding_};
        const auto number = push(request);
        if (!number)
            return number;
        auto added = journal_->add(*number, request);
        {
            const std::lock_guard inner{mutex_};
            added_ = true;
            changed_.notify_all();
        }
        return added ? number : std::move(added).error();
    }

    bool flush(std::chrono::milliseconds timeout) {
        std::unique_lock guard{mutex_};
        if (!is_own_thread())
            changed_.wait_for(guard, bounded(timeout), [&] { return is_idle() || gone_; });
        const outbox_stats counts = outbox_.stats();
        return counts.waiting == 0 && counts.in_flight == 0 && to_report_.empty();
    }

    std::vector<ended> close(std::chrono::milliseconds timeout) {
        std::unique_lock guard{mutex_};
        outbox_.seal();
        if (is_own_thread())
            return {};
        changed_.wait_for(guard, bounded(timeout), [&] { return is_idle() || gone_; });
        ending_ = true;
        changed_.notify_all();
        while (!gone_) {
            if (transport_.cancel) {
                guard.unlock();
                transport_.cancel(transport_.object.get()); // repeated, in case a request has just begun
                guard.lock();
            }
            changed_.wait_for(guard, std::chrono::milliseconds{10}, [&] { return gone_; });
        }
        return outbox_.drain();
    }

    void reconfigure(std::shared_ptr<const encoder> codec) {
        const std::lock_guard guard{mutex_};
        encoder_ = std::move(codec);
        outbox_.resume();
        changed_.notify_all();
    }

    void pause() {
        const std::lock_guard guard{mutex_};
        outbox_.pause();
        changed_.notify_all();
    }

    void resume() {
        const std::lock_guard guard{mutex_};
        outbox_.resume();
        changed_.notify_all();
    }

    std::optional<error> paused_by() const {
        const std::lock_guard guard{mutex_};
        return outbox_.paused_by();
    }

    outbox_stats stats() const {
        const std::lock_guard guard{mutex_};
        return outbox_.stats();
    }
};

} // namespace detail

template <class ClockT>
void basic_background_tracker<ClockT>::release_state::operator()(
    detail::background_state<ClockT>* state) const noexcept {
    if (!state->is_in_owner_process())
        return; // a child of `fork` has no thread to join or detach
    state->finish();
    delete state;
}

template <class ClockT>
basic_background_tracker<ClockT>::basic_background_tracker(config config, detail::owned_transport transport,
                                                           tracker_callbacks callbacks,
                                                           const background_settings& limits,
                                                           std::unique_ptr<journal> record)
    : state_(new detail::background_state<ClockT>(std::move(config), std::move(transport),
                                                  std::move(callbacks), limits, std::move(record))) {}

template <class ClockT>
basic_background_tracker<ClockT>::~basic_background_tracker() = default;

template <class ClockT>
error basic_background_tracker<ClockT>::closed() {
    return {.code = errc::closed, .message = "this process has no thread that sends"};
}

template <class ClockT>
std::shared_ptr<const encoder> basic_background_tracker<ClockT>::current_encoder() const {
    return state_->is_in_owner_process() ? state_->current_encoder() : nullptr;
}

template <class ClockT>
result<outbox::id> basic_background_tracker<ClockT>::push(prepared_request request) {
    return state_->add(std::move(request));
}

template <class ClockT>
bool basic_background_tracker<ClockT>::flush(std::chrono::milliseconds timeout) {
    return state_->is_in_owner_process() && state_->flush(timeout);
}

template <class ClockT>
std::vector<outbox::ended> basic_background_tracker<ClockT>::close(std::chrono::milliseconds timeout) {
    return state_->is_in_owner_process() ? state_->close(timeout) : std::vector<ended>{};
}

template <class ClockT>
result<void> basic_background_tracker<ClockT>::reconfigure(config config) {
    if (!state_->is_in_owner_process())
        return closed();
    auto codec = std::make_shared<const encoder>(std::move(config));
    if (codec->config_error())
        return *codec->config_error();
    state_->reconfigure(std::move(codec));
    return {};
}

template <class ClockT>
void basic_background_tracker<ClockT>::pause() {
    if (state_->is_in_owner_process())
        state_->pause();
}

template <class ClockT>
void basic_background_tracker<ClockT>::resume() {
    if (state_->is_in_owner_process())
        state_->resume();
}

template <class ClockT>
std::optional<error> basic_background_tracker<ClockT>::paused_by() const {
    return state_->is_in_owner_process() ? state_->paused_by() : std::nullopt;
}

template <class ClockT>
outbox_stats basic_background_tracker<ClockT>::stats() const {
    return state_->is_in_owner_process() ? state_->stats() : outbox_stats{};
}

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
template class basic_background_tracker<std::chrono::steady_clock>;
#endif

#elif defined(PROMPTLAYER_SEPARATE_COMPILATION)

extern template class basic_background_tracker<std::chrono::steady_clock>;

#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
