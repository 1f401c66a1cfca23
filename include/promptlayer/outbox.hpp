#ifndef PROMPTLAYER_OUTBOX_HPP
#define PROMPTLAYER_OUTBOX_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/retry.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The limits of an `outbox`, and what it does where they are met.
struct outbox_settings {
    std::size_t max_requests = 10'000;        ///< that wait or are in flight
    std::size_t max_bytes = 16 * 1024 * 1024; ///< of their paths and bodies
    std::size_t max_in_flight = 4;
    bool drop_oldest = false; ///< when full: drops the oldest that wait, rather than refuse the new one
    retry_policy retry = background_retry_policy();
};

/// How a request that was pushed ended.
enum class fate {
    delivered,   ///< the service has it
    refused,     ///< the service has answered that it will not have it
    gave_up,     ///< no further attempt is to be made
    dropped,     ///< for a newer one, when the outbox was full
    handed_back, ///< by `drain`
};

/// Counts of requests since the outbox was made. At any moment `pushed` is the sum of those after it.
struct outbox_stats {
    std::uint64_t pushed = 0;
    std::size_t waiting = 0;
    std::size_t in_flight = 0;
    std::uint64_t delivered = 0;
    std::uint64_t refused = 0;
    std::uint64_t gave_up = 0;
    std::uint64_t dropped = 0;
    std::uint64_t handed_back = 0;

    friend bool operator==(const outbox_stats&, const outbox_stats&) = default;
};

/// Requests on their way to the service: queue, schedule and limits, without a thread, a clock or a socket.
/// Whoever runs it pushes requests, takes those whose time has come, sends them, and tells what they came to.
/// Never holds the API key. For one thread at a time.
///
/// - Those whose time has come are taken in the order in which they were pushed.
/// - A 429, or no answer, holds up everyone, since it would meet the next one too; any other error that is
///   `retryable()` holds up only its own request. For how long: `retry_wait`.
/// - 401, 403, no TLS and a bad config hold up everyone until `resume()`, so that a wrong key does not burn
///   the queue; what was in flight at the last `resume()` holds up nobody. The request that met them goes
///   back to its place, and the attempt does not count. Nor does one that was cancelled, whose request waits
///   for `retry_policy::initial_delay`.
/// - Times are the caller's. A clock that jumps back counts as one that stood still; one that jumps forward
///   ends waits early, and may have a request given up for its age, but only after another attempt.
class outbox {
public:
    using time_point = std::chrono::steady_clock::time_point;
    using id = std::uint64_t; ///< larger for those pushed later, never 0

    struct taken {
        outbox::id id = 0;
        prepared_request request{};
    };

    struct ended {
        outbox::id id = 0;
        prepared_request request{};
        promptlayer::fate fate = fate::delivered;
        std::optional<error> why{}; ///< the last error that the request met
    };

    struct pushed {
        outbox::id id = 0;
        std::vector<ended> dropped{}; ///< to make room
    };

private:
    struct entry {
        prepared_request request{};
        time_point made{};
        time_point due{};
        std::uint32_t attempts = 0;
        std::uint64_t era = 0; // when it was taken
        std::optional<error> why{};
    };

    outbox_settings settings_;
    std::function<double()> random_;
    std::map<id, entry> entries_{};               // all that have not ended
    std::set<id> ready_{};                        // those that wait, and whose own time has come
    std::set<std::pair<time_point, id>> later_{}; // those whose own time comes
    std::set<id> in_flight_{};
    std::size_t bytes_ = 0;
    id last_id_ = 0;
    outbox_stats stats_{};
    time_point nobody_before_ = time_point::min();
    std::uint64_t era_ = 0; // how often somebody has resumed
    bool paused_ = false;
    bool sealed_ = false;
    std::optional<error> paused_by_{};
    std::optional<time_point> seen_{};          // the caller's time at the last call
    std::chrono::steady_clock::duration lag_{}; // what the caller's clock has jumped back

    static std::size_t size_of(const prepared_request& request) noexcept {
        return request.path.size() + request.body.size();
    }

    /// The caller's time, but never less than before.
    time_point steady(time_point now) {
        if (seen_ && now < *seen_)
            lag_ += *seen_ - now;
        seen_ = now;
        return now + lag_;
    }

    void release_due(time_point now) {
        while (!later_.empty() && later_.begin()->first <= now) {
            ready_.insert(later_.begin()->second);
            later_.erase(later_.begin());
        }
    }

    std::uint64_t& count_of(fate end) noexcept {
        switch (end) {
        case fate::delivered: return stats_.delivered;
        case fate::refused: return stats_.refused;
        case fate::gave_up: return stats_.gave_up;
        case fate::dropped: return stats_.dropped;
        case fate::handed_back: break;
        }
        return stats_.handed_back;
    }

    /// Takes an entry out of all containers.
    ended end(std::map<id, entry>::iterator found, fate how) {
        auto& [which, held] = *found;
        ready_.erase(which);
        later_.erase({held.due, which});
        in_flight_.erase(which);
        bytes_ -= size_of(held.request);
        ++count_of(how);
        ended made{which, std::move(held.request), how, std::move(held.why)};
        entries_.erase(found);
        return made;
    }

    void wait_until(time_point due, std::map<id, entry>::iterator found) {
        found->second.due = due;
        later_.insert({due, found->first});
    }

    bool has_room_for(std::size_t size, std::size_t freed_requests, std::size_t freed_bytes) const noexcept {
        return entries_.size() - freed_requests < settings_.max_requests && size <= settings_.max_bytes &&
               bytes_ - freed_bytes <= settings_.max_bytes - size;
    }

    static bool is_refusal(errc code) noexcept {
        return code == errc::bad_request || code == errc::not_found || code == errc::conflict ||
               code == errc::unprocessable || code == errc::rejected;
    }

public:
    /// `random` is uniform from 0 to 1; one is made if it is empty.
    explicit outbox(outbox_settings settings = {}, std::function<double()> random = {})
        : settings_(settings), random_(random ? std::move(random) : detail::random_source()) {}

    /// Queues a request that `prepare` has made; `queue_full`, or `closed` once it is sealed. Nothing is
    /// dropped for one that would not fit even so.
    result<pushed> push(prepared_request request, time_point now) {
        if (sealed_)
            return error{.code = errc::closed, .message = "the outbox is sealed"};
        now = steady(now);
        const std::size_t size = size_of(request);
        std::vector<id> oldest;
        std::size_t freed = 0;
        for (auto found = entries_.begin();
             settings_.drop_oldest && found != entries_.end() && !has_room_for(size, oldest.size(), freed);
             ++found) {
            if (in_flight_.contains(found->first))
                continue;
            oldest.push_back(found->first);
            freed += size_of(found->second.request);
        }
        if (!has_room_for(size, oldest.size(), freed))
            return error{.code = errc::queue_full, .message = "the outbox is full"};
        pushed made{++last_id_, {}};
        for (const id dropped : oldest)
            made.dropped.push_back(end(entries_.find(dropped), fate::dropped));
        entries_.emplace(made.id, entry{.request = std::move(request), .made = now, .due = now, .why = {}});
        ready_.insert(made.id);
        bytes_ += size;
        ++stats_.pushed;
        return made;
    }

    /// Queues what a journal kept, under its number, whatever the limits. The numbers ascend, and come before
    /// any `push`.
    void restore(id which, prepared_request request, std::chrono::milliseconds age, time_point now) {
        now = steady(now);
        bytes_ += size_of(request);
        entries_.emplace(which,
                         entry{.request = std::move(request), .made = now - age, .due = now, .why = {}});
        ready_.insert(which);
        last_id_ = which;
        ++stats_.pushed;
    }

    /// A request to be sent now, which is in flight then; none if none is due or may be sent.
    [[nodiscard]] std::optional<taken> take(time_point now) {
        now = steady(now);
        if (paused_ || paused_by_ || now < nobody_before_ || in_flight_.size() >= settings_.max_in_flight)
            return std::nullopt;
        release_due(now);
        if (ready_.empty())
            return std::nullopt;
        const id next = *ready_.begin();
        ready_.erase(ready_.begin());
        in_flight_.insert(next);
        entry& held = entries_.find(next)->second;
        ++held.attempts;
        held.era = era_;
        return taken{next, held.request};
    }

    /// What a request that was taken came to: `why` is empty if the service has it. The request, if that was
    /// its end. Ignored for one that is not in flight, such as one that is completed again or was drained.
    std::optional<ended> complete(id which, std::optional<error> why, time_point now) {
        now = steady(now);
        if (in_flight_.erase(which) == 0)
            return std::nullopt;
        const auto found = entries_.find(which);
        entry& held = found->second;
        held.why = std::move(why);
        if (!held.why)
            return end(found, fate::delivered);
        const error& met = *held.why;
        if (met.failure == failure::tls || met.status == 401 || met.status == 403 ||
            met.code == errc::invalid_config) {
            if (held.era == era_) // or it was sent with what has been replaced since
                paused_by_ = met;
            --held.attempts;
            ready_.insert(which);
            return std::nullopt;
        }
        if (met.failure == failure::cancelled) {
            --held.attempts;
            wait_until(now + settings_.retry.initial_delay, found);
            return std::nullopt;
        }
        const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now - held.made);
        const auto wait = retry_wait(settings_.retry, met, held.attempts, random_(), age);
        if (met.failure || met.status == 429) { // also where it is the end of this one
            retry_policy of_all = settings_.retry;
            of_all.max_attempts = 0;
            of_all.max_age.reset();
            of_all.retry_maybe_delivered = true;
            const auto all_wait = wait ? wait : retry_wait(of_all, met, held.attempts, random_(), {});
            nobody_before_ = std::max(nobody_before_, now + all_wait.value_or(std::chrono::milliseconds{0}));
        }
        if (!wait)
            return end(found, is_refusal(met.code) ? fate::refused : fate::gave_up);
        wait_until(now + *wait, found);
        return std::nullopt;
    }

    /// When `take` may give a request, if nothing else happens until then; not later than `now` if it may at
    /// once. None if that waits for `push`, `complete` or `resume`.
    std::optional<time_point> next_due(time_point now) {
        const time_point steady_now = steady(now);
        if (paused_ || paused_by_ || in_flight_.size() >= settings_.max_in_flight ||
            (ready_.empty() && later_.empty()))
            return std::nullopt;
        const time_point own = ready_.empty() ? later_.begin()->first : steady_now;
        return std::max(own, nobody_before_) - lag_;
    }

    /// Nothing is taken until `resume`. What is in flight goes on.
    void pause() noexcept { paused_ = true; }

    /// Ends a pause, also one that an answer has brought about, as after a new key.
    void resume() noexcept {
        ++era_;
        paused_ = false;
        paused_by_.reset();
    }

    bool paused() const noexcept { return paused_ || paused_by_; }

    /// The error that holds up everyone until `resume`, if one does.
    const std::optional<error>& paused_by() const noexcept { return paused_by_; }

    /// From now on `push` is refused.
    void seal() noexcept { sealed_ = true; }

    /// Seals it and gives back all that has not ended, in the order of the pushes; what is in flight too,
    /// whose completion is then ignored.
    [[nodiscard]] std::vector<ended> drain() {
        seal();
        std::vector<ended> left;
        left.reserve(entries_.size());
        while (!entries_.empty())
            left.push_back(end(entries_.begin(), fate::handed_back));
        return left;
    }

    outbox_stats stats() const noexcept {
        outbox_stats now = stats_;
        now.in_flight = in_flight_.size();
        now.waiting = entries_.size() - in_flight_.size();
        return now;
    }

    /// Of paths and bodies.
    std::size_t bytes() const noexcept { return bytes_; }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
