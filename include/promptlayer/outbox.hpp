#ifndef PROMPTLAYER_OUTBOX_HPP
#define PROMPTLAYER_OUTBOX_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/retry.hpp>

#include <promptlayer/detail/push_macros.hpp>

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

/// The limits of an `outbox`.
struct outbox_settings {
    std::size_t max_requests = 10'000;        ///< waiting and in flight
    std::size_t max_bytes = 16 * 1024 * 1024; ///< of all paths and bodies
    std::size_t max_in_flight = 4;
    bool drop_oldest = false; ///< a full outbox drops the oldest waiting requests, not the new request
    retry_policy retry = background_retry_policy();
};

/// The outcome of a request.
enum class fate {
    delivered,   ///< The service accepted the request.
    refused,     ///< The service rejected the request for good.
    gave_up,     ///< The policy allows no further attempt.
    dropped,     ///< The outbox was full and dropped the request for a newer one.
    handed_back, ///< `drain` returned the request.
};

/// Counts of requests since the outbox was constructed. `pushed` is always the sum of the other counts.
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

/// A queue of requests with schedule, limits and retry, as a state machine without thread, clock or socket.
///
/// The caller pushes requests, takes the due requests, sends them and reports each result. The outbox never
/// contains the API key. One thread at a time may use it.
///
/// - Due requests are taken in the order in which they were pushed.
/// - After a 429 or a transport failure no request is sent for a time, because the next would fail as well.
///   After any other `retryable()` error only the failed request waits. `retry_wait` returns the time.
/// - A 401, a 403, a TLS failure and a bad config pause the outbox until `resume()`. So a wrong key does not
///   use up the queue. A request that was taken before the last `resume()` does not pause the outbox. The
///   failed request keeps its place, and the attempt does not count.
/// - After `failure::cancelled` the request waits for `retry_policy::initial_delay`, and the attempt does not
///   count.
/// - Time is an argument. A clock that jumps back counts as stopped. A clock that jumps forward ends waits
///   early. It may also exceed the maximum age of a request, which then fails after one more attempt.
///
/// Used as `outbox`. A template, so that a header-only program compiles only the members that it uses.
template <class ClockT>
class basic_outbox {
public:
    using time_point = typename ClockT::time_point;
    using id = std::uint64_t; ///< from 1, ascending in the order of the pushes

    /// A request that is to be sent now.
    struct taken {
        typename basic_outbox::id id = 0;
        prepared_request request{};
    };

    /// A request that has ended, and its outcome.
    struct ended {
        typename basic_outbox::id id = 0;
        prepared_request request{};
        promptlayer::fate fate = fate::delivered;
        std::optional<error> why{}; ///< the error of the last attempt, if it failed
    };

    /// The result of `push`.
    struct pushed {
        typename basic_outbox::id id = 0;
        std::vector<ended> dropped{}; ///< the requests dropped to make room
    };

private:
    struct queue_entry {
        prepared_request request{};
        time_point created{};
        time_point due{};
        std::uint32_t attempts = 0;
        std::uint64_t era = 0; // the value of `era_` when the request was taken
        std::optional<error> why{};
    };

    outbox_settings settings_;
    std::function<double()> random_;
    std::map<id, queue_entry> entries_{};         // all requests that have not ended
    std::set<id> ready_{};                        // waiting, due
    std::set<std::pair<time_point, id>> later_{}; // waiting, not due yet
    std::set<id> in_flight_{};
    std::size_t bytes_ = 0;
    id last_id_ = 0;
    outbox_stats stats_{};
    time_point nobody_before_ = time_point::min();
    std::uint64_t era_ = 0; // number of calls of `resume`
    bool paused_ = false;
    bool sealed_ = false;
    std::optional<error> paused_by_{};
    std::optional<time_point> seen_{}; // argument of the last call
    typename ClockT::duration lag_{};  // sum of the clock's jumps back

    static std::size_t size_of(const prepared_request& request) noexcept {
        return request.path.size() + request.body.size();
    }

    /// Returns the caller's time, corrected so that it never decreases.
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

    std::uint64_t& count_of(fate outcome) noexcept {
        switch (outcome) {
        case fate::delivered: return stats_.delivered;
        case fate::refused: return stats_.refused;
        case fate::gave_up: return stats_.gave_up;
        case fate::dropped: return stats_.dropped;
        case fate::handed_back: break;
        }
        return stats_.handed_back;
    }

    /// Removes an entry from all containers.
    ended end(typename std::map<id, queue_entry>::iterator position, fate outcome) {
        auto& [number, entry] = *position;
        ready_.erase(number);
        later_.erase({entry.due, number});
        in_flight_.erase(number);
        bytes_ -= size_of(entry.request);
        ++count_of(outcome);
        ended request{number, std::move(entry.request), outcome, std::move(entry.why)};
        entries_.erase(position);
        return request;
    }

    void wait_until(time_point due, typename std::map<id, queue_entry>::iterator position) {
        position->second.due = due;
        later_.insert({due, position->first});
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
    /// `random` returns uniform numbers from 0 to 1. If it is empty, the outbox uses a generator of its own.
    explicit basic_outbox(outbox_settings settings = {}, std::function<double()> random = {})
        : settings_(settings), random_(random ? std::move(random) : detail::random_source()) {}

    /// Queues a request from `prepare`. Returns `queue_full` if the request does not fit, and `closed` after
    /// `seal`. With `drop_oldest`, nothing is dropped if the request would not fit even then.
    result<pushed> push(prepared_request request, time_point now) {
        if (sealed_)
            return error{.code = errc::closed, .message = "the outbox is closed"};
        now = steady(now);
        const std::size_t size = size_of(request);
        std::vector<id> oldest;
        std::size_t freed = 0;
        for (auto position = entries_.begin();
             settings_.drop_oldest && position != entries_.end() && !has_room_for(size, oldest.size(), freed);
             ++position) {
            if (in_flight_.contains(position->first))
                continue;
            oldest.push_back(position->first);
            freed += size_of(position->second.request);
        }
        if (!has_room_for(size, oldest.size(), freed))
            return error{.code = errc::queue_full, .message = "the outbox is full"};
        pushed push_result{++last_id_, {}};
        for (const id number : oldest)
            push_result.dropped.push_back(end(entries_.find(number), fate::dropped));
        entries_.emplace(push_result.id,
                         queue_entry{.request = std::move(request), .created = now, .due = now, .why = {}});
        ready_.insert(push_result.id);
        bytes_ += size;
        ++stats_.pushed;
        return push_result;
    }

    /// Queues a request from a journal under its old number, whatever the limits. The numbers must ascend,
    /// and all calls must precede the first `push`.
    void restore(id number, prepared_request request, std::chrono::milliseconds age, time_point now) {
        now = steady(now);
        bytes_ += size_of(request);
        entries_.emplace(
            number, queue_entry{.request = std::move(request), .created = now - age, .due = now, .why = {}});
        ready_.insert(number);
        last_id_ = number;
        ++stats_.pushed;
    }

    /// Returns the next due request and marks it in flight; nullopt if no request is due or may be sent.
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
        queue_entry& entry = entries_.find(next)->second;
        ++entry.attempts;
        entry.era = era_;
        return taken{next, entry.request};
    }

    /// Reports the result of an attempt: an empty `why` if the request was delivered, else its error. Returns
    /// the request if it has ended, else nullopt. Ignores a number that is not in flight, such as that of a
    /// request that is already completed or drained.
    std::optional<ended> complete(id number, std::optional<error> why, time_point now) {
        now = steady(now);
        if (in_flight_.erase(number) == 0)
            return std::nullopt;
        const auto position = entries_.find(number);
        queue_entry& entry = position->second;
        entry.why = std::move(why);
        if (!entry.why)
            return end(position, fate::delivered);
        const error& cause = *entry.why;
        if (cause.failure == failure::tls || cause.status == 401 || cause.status == 403 ||
            cause.code == errc::invalid_config) {
            if (entry.era == era_) // otherwise `resume` has replaced the key or config of this attempt
                paused_by_ = cause;
            --entry.attempts;
            ready_.insert(number);
            return std::nullopt;
        }
        if (cause.failure == failure::cancelled) {
            --entry.attempts;
            wait_until(now + settings_.retry.initial_delay, position);
            return std::nullopt;
        }
        const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now - entry.created);
        const auto wait = retry_wait(settings_.retry, cause, entry.attempts, random_(), age);
        if (cause.failure || cause.status == 429) { // all requests wait, also if this request ends
            retry_policy unlimited = settings_.retry;
            unlimited.max_attempts = 0;
            unlimited.max_age.reset();
            unlimited.retry_maybe_delivered = true;
            const auto common_wait =
                wait ? wait : retry_wait(unlimited, cause, entry.attempts, random_(), {});
            const time_point until = now + common_wait.value_or(std::chrono::milliseconds{0});
            nobody_before_ = until > nobody_before_ ? until : nobody_before_;
        }
        if (!wait)
            return end(position, is_refusal(cause.code) ? fate::refused : fate::gave_up);
        wait_until(now + *wait, position);
        return std::nullopt;
    }

    /// Returns when `take` may next return a request if nothing else happens until then; at most `now` if a
    /// request is due. Returns nullopt if `take` returns nothing before `push`, `complete` or `resume`.
    std::optional<time_point> next_due(time_point now) {
        const time_point steady_now = steady(now);
        if (paused_ || paused_by_ || in_flight_.size() >= settings_.max_in_flight ||
            (ready_.empty() && later_.empty()))
            return std::nullopt;
        const time_point earliest = ready_.empty() ? later_.begin()->first : steady_now;
        return (earliest > nobody_before_ ? earliest : nobody_before_) - lag_;
    }

    /// Makes `take` return nothing until `resume`. Requests in flight continue.
    void pause() noexcept { paused_ = true; }

    /// Ends every pause, also the pause after an error; called when the key or config has been replaced.
    void resume() noexcept {
        ++era_;
        paused_ = false;
        paused_by_.reset();
    }

    /// Returns whether `pause` or an error has paused the outbox.
    bool paused() const noexcept { return paused_ || paused_by_; }

    /// Returns the error that paused the outbox; nullopt if no error did.
    const std::optional<error>& paused_by() const noexcept { return paused_by_; }

    /// Stops accepting requests: `push` returns `closed` from now on.
    void seal() noexcept { sealed_ = true; }

    /// Calls `seal`, removes all requests that have not ended and returns them in the order of the pushes.
    /// The requests in flight are among them; their later `complete` is ignored.
    [[nodiscard]] std::vector<ended> drain() {
        seal();
        std::vector<ended> undelivered;
        undelivered.reserve(entries_.size());
        while (!entries_.empty())
            undelivered.push_back(end(entries_.begin(), fate::handed_back));
        return undelivered;
    }

    outbox_stats stats() const noexcept {
        outbox_stats stats = stats_;
        stats.in_flight = in_flight_.size();
        stats.waiting = entries_.size() - in_flight_.size();
        return stats;
    }

    /// Returns the size of all paths and bodies.
    std::size_t bytes() const noexcept { return bytes_; }
};

using outbox = basic_outbox<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_outbox<std::chrono::steady_clock>;
#else
extern template class basic_outbox<std::chrono::steady_clock>;
#endif
#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
