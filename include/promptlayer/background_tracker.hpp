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
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/tracker.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>
#ifndef PROMPTLAYER_NO_THREADS
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
    std::chrono::milliseconds close_timeout{2'000}; ///< how long the destructor may go on sending
};

/// Tracks prompts from any thread at the cost of a queue: one thread of its own sends them over a synchronous
/// `Transport`, one after the other, and tells what became of them. What is sent when and what a failure
/// brings about is said of `outbox`.
///
/// - Any thread may call any member, but for the destructor. The transport is used by the tracker's thread
///   alone, and its `cancel()` by the one that closes.
/// - `on_delivered` and `on_failed` are called on the tracker's thread, one at a time, without a lock:
///   they may call any member, though `flush` and `close` do not wait there. `on_undelivered` is called by
///   the destructor.
/// - Closing takes as long as it is given, and then as long as the transport takes to end a request: 100 ms
///   after `cancel()`; without one, up to the `timeout` of the config.
/// - In a child of `fork` there is no such thread: every call there is `closed`, and the parent delivers.
///   One that is static is closed with the others, after `main`; whatever its callbacks use has to be there
///   still.
template <class T>
class background_tracker {
    static_assert(Transport<T>, "promptlayer: background_tracker is for a Transport, a synchronous one");

    using clock = std::chrono::steady_clock;
    using ended = promptlayer::outbox::ended;

    static std::chrono::milliseconds bounded(std::chrono::milliseconds timeout) noexcept {
        return std::clamp<std::chrono::milliseconds>(timeout, std::chrono::hours{0},
                                                     std::chrono::hours{24 * 365});
    }

    /// What the tracker and its thread share.
    struct shared {
        const tracker_callbacks callbacks;
        T transport; // the thread's own, but for its cancel()
        const std::unique_ptr<journal> kept;
        std::mutex adding{};        // held while a request is queued and put on record; comes before the next
        mutable std::mutex mutex{}; // of all that follows
        std::condition_variable changed{};
        promptlayer::outbox outbox;
        std::shared_ptr<const encoder> codec;
        std::vector<ended> to_report{};
        bool added = false;  // to the journal, since it was tended
        bool busy = false;   // the thread sends or tells
        bool ending = false; // it is to end
        bool gone = false;   // it has ended
        std::thread thread{};

        shared(tracker_callbacks told, T carrier, const outbox_settings& limits, config chosen,
               std::unique_ptr<journal> record)
            : callbacks(std::move(told)), transport(std::move(carrier)), kept(std::move(record)),
              outbox(limits), codec(std::make_shared<const encoder>(std::move(chosen))) {
            if (kept)
                detail::restore(outbox, *kept, clock::now());
        }

        void mark_done(outbox::id which) {
            if (!kept)
                return;
            const std::lock_guard held{adding}; // it is on record by now, or never
            detail::undisturbed([&] { kept->done(which); });
        }

        void report(std::unique_lock<std::mutex>& held) {
            while (!to_report.empty()) {
                const auto reported = std::exchange(to_report, {});
                held.unlock();
                for (const ended& one : reported) {
                    detail::tell(callbacks.on_failed, one);
                    mark_done(one.id);
                }
                held.lock();
            }
        }

        void send(std::unique_lock<std::mutex>& held, promptlayer::outbox::taken next) {
            const auto current = codec;
            held.unlock();
            const result<track_response> outcome = send_now(*current, std::move(next.request));
            held.lock();
            auto end = outbox.complete(
                next.id, outcome ? std::nullopt : std::optional<error>{outcome.error()}, clock::now());
            if (end && !outcome)
                to_report.push_back(*std::move(end));
            if (!end || !outcome)
                return;
            held.unlock();
            mark_done(next.id);
            detail::tell(callbacks.on_delivered, next.id, *outcome);
            held.lock();
        }

        result<track_response> send_now(const encoder& current, prepared_request request) {
            const auto http = current.authorize(std::move(request));
            if (!http)
                return http.error();
            track_response response;
            if (auto failed = detail::send_sync(current, *http, detail::refer_to_transport(transport),
                                                detail::info<track_response>(), &response))
                return *std::move(failed);
            return response;
        }

        void work() {
            std::unique_lock held{mutex};
            while (true) {
                busy = true;
                std::optional<std::chrono::milliseconds> tend_after;
                if (kept) {
                    added = false;
                    held.unlock();
                    detail::undisturbed([&] { tend_after = kept->tend(); });
                    held.lock();
                }
                report(held);
                auto next = ending ? std::nullopt : outbox.take(clock::now());
                if (next) {
                    send(held, *std::move(next));
                    continue;
                }
                busy = false;
                changed.notify_all(); // whoever waits for the thread
                if (ending)
                    break;
                if (added)
                    continue;
                auto due = outbox.next_due(clock::now());
                if (tend_after)
                    due =
                        std::min(due.value_or(clock::time_point::max()), clock::now() + bounded(*tend_after));
                if (due)
                    changed.wait_until(held, *due);
                else
                    changed.wait(held);
            }
            gone = true;
            changed.notify_all();
        }

        /// Nothing is left to do, or nothing can be done until somebody resumes.
        bool idle() const {
            const outbox_stats counts = outbox.stats();
            return !busy && to_report.empty() && (counts.waiting == 0 || outbox.paused());
        }

        bool is_own_thread() const { return thread.get_id() == std::this_thread::get_id(); }
    };

    static long process() noexcept {
#if defined(_WIN32)
        return 0; // there is no fork
#else
        return static_cast<long>(::getpid());
#endif
    }

    long process_ = process();
    std::chrono::milliseconds close_timeout_;
    std::unique_ptr<shared> shared_;

    /// In a child of `fork`, locks may be held by threads that are not there.
    bool is_here() const noexcept { return shared_ && process_ == process(); }

    result<outbox::id> push(prepared_request request) {
        const std::lock_guard held{shared_->mutex};
        auto pushed = shared_->outbox.push(std::move(request), clock::now());
        if (!pushed)
            return std::move(pushed).error();
        for (ended& dropped : pushed->dropped)
            shared_->to_report.push_back(std::move(dropped));
        shared_->changed.notify_all();
        return pushed->id;
    }

    static error closed() {
        return {.code = errc::closed, .message = "this process has no thread that sends"};
    }

public:
    /// Starts the thread; throws `std::system_error` if there is none to be had. A bad config is reported by
    /// every `track_prompt`. What the journal has left is sent first.
    explicit background_tracker(config settings, T transport, tracker_callbacks callbacks = {},
                                const background_settings& limits = {},
                                std::unique_ptr<journal> record = nullptr)
        : close_timeout_(limits.close_timeout),
          shared_(std::make_unique<shared>(std::move(callbacks), std::move(transport), limits.outbox,
                                           std::move(settings), std::move(record))) {
        shared_->thread = std::thread{[all = shared_.get()] { all->work(); }};
    }
    background_tracker(const background_tracker&) = delete;
    background_tracker& operator=(const background_tracker&) = delete;

    ~background_tracker() {
        if (!is_here()) {
            static_cast<void>(shared_.release()); // a child of `fork` has no thread to join or detach
            return;
        }
        auto left = close(close_timeout_);
        shared_->thread.join();
        if (!left.empty())
            detail::tell(shared_->callbacks.on_undelivered, std::move(left));
    }

    /// Validates and queues a request; its number, or `invalid_request`, `invalid_config`, `queue_full`,
    /// `closed`. Never waits for the network. Costs some microseconds, and with a journal one write to it;
    /// then there is `journal_failed`, too: it is queued, but a crash would lose it.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<outbox::id> track_prompt(const basic_track_prompt<TextT, VariablesT>& request) {
        if (!is_here())
            return closed();
        std::shared_ptr<const encoder> codec;
        {
            const std::lock_guard held{shared_->mutex};
            codec = shared_->codec;
        }
        auto prepared = codec->prepare(request);
        if (!prepared)
            return std::move(prepared).error();
        if (!shared_->kept)
            return push(*std::move(prepared));
        const std::lock_guard held{shared_->adding};
        const auto pushed = push(*prepared);
        if (!pushed)
            return pushed;
        auto added = shared_->kept->add(*pushed, *prepared);
        {
            const std::lock_guard told{shared_->mutex};
            shared_->added = true;
            shared_->changed.notify_all();
        }
        return added ? pushed : std::move(added).error();
    }

    /// Waits until every request has ended and been told, or until that is held up by a pause. Whether none
    /// is left. Does not wait in a callback.
    bool flush(std::chrono::milliseconds timeout) {
        if (!is_here())
            return false;
        std::unique_lock held{shared_->mutex};
        if (!shared_->is_own_thread())
            shared_->changed.wait_for(held, bounded(timeout),
                                      [&] { return shared_->idle() || shared_->gone; });
        const outbox_stats counts = shared_->outbox.stats();
        return counts.waiting == 0 && counts.in_flight == 0 && shared_->to_report.empty();
    }

    /// Takes no more, goes on sending for as long as that, ends what is in flight, and gives back all that
    /// has not ended, in order; it stays in the journal, too, for the next start. In a callback it only takes
    /// no more.
    [[nodiscard]] std::vector<ended> close(std::chrono::milliseconds timeout) {
        if (!is_here())
            return {};
        std::unique_lock held{shared_->mutex};
        shared_->outbox.seal();
        if (shared_->is_own_thread())
            return {};
        shared_->changed.wait_for(held, bounded(timeout), [&] { return shared_->idle() || shared_->gone; });
        shared_->ending = true;
        shared_->changed.notify_all();
        while (!shared_->gone) {
            if constexpr (requires { shared_->transport.cancel(); }) {
                held.unlock();
                shared_->transport.cancel(); // again and again, for the request that begins just then
                held.lock();
            }
            shared_->changed.wait_for(held, std::chrono::milliseconds{10}, [&] { return shared_->gone; });
        }
        return shared_->outbox.drain();
    }

    /// Another key, endpoint, ... from the next request that is sent; and `resume`. A bad one is
    /// `invalid_config` and changes nothing.
    result<void> reconfigure(config settings) {
        if (!is_here())
            return closed();
        auto codec = std::make_shared<const encoder>(std::move(settings));
        if (codec->config_error())
            return *codec->config_error();
        const std::lock_guard held{shared_->mutex};
        shared_->codec = std::move(codec);
        shared_->outbox.resume();
        shared_->changed.notify_all();
        return {};
    }

    /// Until `resume`, requests are queued and none is sent; what is in flight goes on.
    void pause() {
        if (!is_here())
            return;
        const std::lock_guard held{shared_->mutex};
        shared_->outbox.pause();
        shared_->changed.notify_all();
    }

    void resume() {
        if (!is_here())
            return;
        const std::lock_guard held{shared_->mutex};
        shared_->outbox.resume();
        shared_->changed.notify_all();
    }

    /// What has made the tracker wait for `reconfigure` or `resume`, if something has: 401, 403, no TLS, a
    /// bad config.
    std::optional<error> paused_by() const {
        if (!is_here())
            return std::nullopt;
        const std::lock_guard held{shared_->mutex};
        return shared_->outbox.paused_by();
    }

    outbox_stats stats() const {
        if (!is_here())
            return {};
        const std::lock_guard held{shared_->mutex};
        return shared_->outbox.stats();
    }
};

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
