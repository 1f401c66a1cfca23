#ifndef PROMPTLAYER_POLLED_TRACKER_HPP
#define PROMPTLAYER_POLLED_TRACKER_HPP

#include <promptlayer/client.hpp>
#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/mutex.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/journal.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/tracker.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Tracks prompts from a loop that never waits, such as that of a game. `track_prompt` queues a request;
/// `poll` sends it over an `AsyncTransport` and reports the result. It starts no thread and reads no clock;
/// all work happens in `poll`. `outbox` describes the schedule.
///
/// - Threads: one at a time. The transport may complete on any thread.
/// - Callbacks: `poll` calls `on_delivered` and `on_failed`; the destructor calls `on_undelivered`. They may
///   call any member except `poll`, and must not destroy the tracker.
template <class T>
class polled_tracker {
    static_assert(AsyncTransport<T>, "promptlayer: polled_tracker is for an AsyncTransport");

    struct arrival {
        outbox::id id;
        result<track_response> outcome;
    };
    struct arrivals {
        detail::mutex mutex{};
        std::vector<arrival> list{};
    };

    // The destructor destroys the transport before the other members, so late completions have no effect.
    tracker_callbacks callbacks_;
    std::unique_ptr<journal> journal_;
    outbox outbox_;
    std::optional<outbox::time_point> first_poll_{};
    outbox::time_point now_{}; // since the first poll; earlier requests count from the first poll
    std::vector<outbox::ended> to_report_{};
    std::shared_ptr<arrivals> arrivals_ = std::make_shared<arrivals>();
    std::shared_ptr<const encoder> encoder_;
    T transport_;
    bool polling_ = false;

    void mark_done(outbox::id number) {
        if (journal_)
            detail::undisturbed([&] { journal_->done(number); });
    }

    void tell_failed(const outbox::ended& ended) {
        detail::tell(callbacks_.on_failed, ended);
        mark_done(ended.id);
    }

    void take_in() {
        std::vector<arrival> list;
        {
            const detail::lock guard{arrivals_->mutex};
            list.swap(arrivals_->list);
        }
        for (arrival& completed : list) {
            const result<track_response>& outcome = completed.outcome;
            const auto ended = outbox_.complete(
                completed.id, outcome ? std::nullopt : std::optional<error>{outcome.error()}, now_);
            if (ended && outcome) {
                mark_done(completed.id);
                detail::tell(callbacks_.on_delivered, completed.id, *outcome);
            } else if (ended) {
                tell_failed(*ended);
            }
        }
        for (const outbox::ended& dropped : std::exchange(to_report_, {}))
            tell_failed(dropped);
    }

    void send_out(std::size_t max_starts) {
        for (; max_starts > 0; --max_starts) {
            auto next = outbox_.take(now_);
            if (!next)
                return;
            const auto arrive = [to = arrivals_, id = next->id](result<track_response> outcome) {
                const detail::lock guard{to->mutex};
                to->list.push_back({id, std::move(outcome)});
            };
            if (auto http = encoder_->authorize(std::move(next->request)))
                detail::send_async<track_response>(transport_, encoder_, *std::move(http), arrive);
            else
                arrive(std::move(http).error());
        }
    }

public:
    /// With an invalid config, every `track_prompt` returns `invalid_config`. Pending requests of the journal
    /// are sent first. `random` is uniform from 0 to 1; if it is empty, the tracker makes a generator.
    explicit polled_tracker(config settings, T transport, tracker_callbacks callbacks = {},
                            outbox_settings limits = {}, std::unique_ptr<journal> record = nullptr,
                            std::function<double()> random = {})
        : callbacks_(std::move(callbacks)), journal_(std::move(record)), outbox_(limits, std::move(random)),
          encoder_(std::make_shared<const encoder>(std::move(settings))), transport_(std::move(transport)) {
        if (journal_)
            detail::restore(outbox_, *journal_, now_);
    }
    polled_tracker(const polled_tracker&) = delete;
    polled_tracker& operator=(const polled_tracker&) = delete;

    ~polled_tracker() {
        if (auto undelivered = close(); !undelivered.empty())
            detail::tell(callbacks_.on_undelivered, std::move(undelivered));
    }

    /// Returns the transport, for example to wait for a response between polls.
    T& transport() noexcept { return transport_; }

    /// Validates and queues a request. Returns its number, or `invalid_request`, `invalid_config`,
    /// `queue_full`, `closed`. Takes about a microsecond, and with a journal one write to it. With a journal
    /// there is `journal_failed` as well: the request is queued, but a crash would lose it. The next `poll`
    /// reports requests that are dropped for this one.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<outbox::id> track_prompt(const basic_track_prompt<TextT, VariablesT>& request) {
        auto prepared = encoder_->prepare(request);
        if (!prepared)
            return std::move(prepared).error();
        auto pushed = outbox_.push(journal_ ? *prepared : *std::move(prepared), now_);
        if (!pushed)
            return std::move(pushed).error();
        for (outbox::ended& dropped : pushed->dropped)
            to_report_.push_back(std::move(dropped));
        if (auto added = journal_ ? journal_->add(pushed->id, *prepared) : result<void>{}; !added)
            return std::move(added).error();
        return pushed->id;
    }

    /// Calls `poll()` of the transport, if it has one; reports results; sends at most `max_starts` due
    /// requests. Does not wait, except for the disk if there is a journal. Returns the number of requests
    /// that have not ended. `now` must be of a steady clock.
    std::size_t poll(outbox::time_point now, std::size_t max_starts = 4) {
        if (!std::exchange(polling_, true)) {
            if (!first_poll_)
                first_poll_ = now;
            now_ = outbox::time_point{now - *first_poll_};
            if constexpr (requires { transport_.poll(); })
                transport_.poll();
            take_in();
            send_out(max_starts);
            if (journal_)
                detail::undisturbed([&] { journal_->tend(); });
            polling_ = false;
        }
        return pending();
    }

    /// Returns the number of requests that have not ended.
    std::size_t pending() const noexcept {
        const outbox_stats counts = outbox_.stats();
        return counts.waiting + counts.in_flight;
    }

    /// Uses another config from the next request on, and resumes. An invalid config changes nothing and is
    /// returned as `invalid_config`.
    result<void> reconfigure(config config) {
        auto codec = std::make_shared<const encoder>(std::move(config));
        if (codec->config_error())
            return *codec->config_error();
        encoder_ = std::move(codec);
        outbox_.resume();
        return {};
    }

    /// Queues requests and sends none until `resume`. Requests in flight continue.
    void pause() noexcept { outbox_.pause(); }
    void resume() noexcept { outbox_.resume(); }

    /// Returns the error that made the tracker wait for `reconfigure` or `resume`: 401, 403, a TLS failure or
    /// an invalid config. Returns nullopt if nothing did.
    const std::optional<error>& paused_by() const noexcept { return outbox_.paused_by(); }

    outbox_stats stats() const noexcept { return outbox_.stats(); }

    /// Stops accepting requests, cancels those in flight if the transport can, and returns the undelivered
    /// ones: dropped requests that are not reported yet, then all others in order. A request in flight may
    /// have been delivered. The journal keeps undelivered requests for the next start. Does not wait.
    [[nodiscard]] std::vector<outbox::ended> close() {
        auto undelivered = std::exchange(to_report_, {});
        for (const outbox::ended& dropped : undelivered)
            mark_done(dropped.id);
        auto drained = outbox_.drain();
        undelivered.insert(undelivered.end(), std::move_iterator{drained.begin()},
                           std::move_iterator{drained.end()});
        if constexpr (requires { transport_.cancel(); })
            transport_.cancel();
        return undelivered;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
