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

/// Tracks prompts from a loop that never waits, such as that of a game: requests are queued, and `poll` sends
/// them over an `AsyncTransport` and tells what became of them. It has no thread and reads no clock; nothing
/// happens but in `poll`. What is sent when and what a failure brings about is said of `outbox`.
///
/// For one thread at a time; the transport may complete on any. Callbacks are called within `poll`, and
/// within `reconfigure`, `close` or the destructor none but `on_undelivered`. They may call any member but
/// `poll`, and not destroy the tracker.
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

    // Destroyed from the end: the transport goes first, and what it lets go arrives nowhere.
    tracker_callbacks callbacks_;
    std::unique_ptr<journal> journal_;
    outbox outbox_;
    std::optional<outbox::time_point> first_poll_{};
    outbox::time_point now_{}; // since the first poll; what was tracked before it was tracked then
    std::vector<outbox::ended> to_report_{};
    std::shared_ptr<arrivals> arrivals_ = std::make_shared<arrivals>();
    T transport_;
    std::shared_ptr<const encoder> encoder_;
    bool polling_ = false;

    void mark_done(outbox::id which) {
        if (journal_)
            detail::undisturbed([&] { journal_->done(which); });
    }

    void tell_failed(const outbox::ended& ended) {
        detail::tell(callbacks_.on_failed, ended);
        mark_done(ended.id);
    }

    void take_in() {
        std::vector<arrival> arrived;
        {
            const detail::lock held{arrivals_->mutex};
            arrived.swap(arrivals_->list);
        }
        for (arrival& one : arrived) {
            auto why = one.outcome ? std::nullopt : std::optional<error>{std::move(one.outcome).error()};
            const auto ended = outbox_.complete(one.id, std::move(why), now_);
            if (ended && one.outcome) {
                mark_done(one.id);
                detail::tell(callbacks_.on_delivered, one.id, *one.outcome);
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
    /// A bad config is reported by every `track_prompt`. What the journal has left is sent first. `random` is
    /// uniform from 0 to 1; one is made if it is empty.
    explicit polled_tracker(config settings, T transport, tracker_callbacks callbacks = {},
                            outbox_settings limits = {}, std::unique_ptr<journal> record = nullptr,
                            std::function<double()> random = {})
        : callbacks_(std::move(callbacks)), journal_(std::move(record)), outbox_(limits, std::move(random)),
          transport_(std::move(transport)), encoder_(std::make_shared<const encoder>(std::move(settings))) {
        if (journal_)
            detail::restore(outbox_, *journal_, now_);
    }
    polled_tracker(const polled_tracker&) = delete;
    polled_tracker& operator=(const polled_tracker&) = delete;

    ~polled_tracker() {
        if (auto left = close(); !left.empty())
            detail::tell(callbacks_.on_undelivered, std::move(left));
    }

    /// May be turned between polls, as by one that has time to wait for an answer.
    T& transport() noexcept { return transport_; }

    /// Validates and queues a request; its number, or `invalid_request`, `invalid_config`, `queue_full`,
    /// `closed`. Costs about a microsecond, and with a journal one write to it; then there is
    /// `journal_failed`, too: it is queued, but a crash would lose it. What is dropped for it is told by the
    /// next `poll`.
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

    /// Turns the transport, if it has a `poll()`; tells what became of requests; and begins at most
    /// `max_starts` that are due. Does not wait, but for the disk where there is a journal. How many have not
    /// ended. `now` is of a steady clock.
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

    /// How many requests have not ended.
    std::size_t pending() const noexcept {
        const outbox_stats counts = outbox_.stats();
        return counts.waiting + counts.in_flight;
    }

    /// Another key, endpoint, ... from the next request that is sent; and `resume`. A bad one is
    /// `invalid_config` and changes nothing.
    result<void> reconfigure(config settings) {
        auto codec = std::make_shared<const encoder>(std::move(settings));
        if (codec->config_error())
            return *codec->config_error();
        encoder_ = std::move(codec);
        outbox_.resume();
        return {};
    }

    /// Until `resume`, requests are queued and none is sent; what is in flight goes on.
    void pause() noexcept { outbox_.pause(); }
    void resume() noexcept { outbox_.resume(); }

    /// What has made the tracker wait for `reconfigure` or `resume`, if something has: 401, 403, no TLS, a
    /// bad config.
    const std::optional<error>& paused_by() const noexcept { return outbox_.paused_by(); }

    outbox_stats stats() const noexcept { return outbox_.stats(); }

    /// Takes no more, cancels what is in flight where the transport can, and gives back all that has not
    /// ended: also what may have been delivered meanwhile, and first what was dropped and not yet told. What
    /// is handed back stays in the journal, for the next start. Does not wait.
    [[nodiscard]] std::vector<outbox::ended> close() {
        auto left = std::exchange(to_report_, {});
        for (const outbox::ended& dropped : left)
            mark_done(dropped.id);
        auto drained = outbox_.drain();
        left.insert(left.end(), std::move_iterator{drained.begin()}, std::move_iterator{drained.end()});
        if constexpr (requires { transport_.cancel(); })
            transport_.cancel();
        return left;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
