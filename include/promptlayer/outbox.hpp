#ifndef PROMPTLAYER_OUTBOX_HPP
#define PROMPTLAYER_OUTBOX_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/circuit_breaker.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/retry.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The limits of a queue, and its schedule.
struct queue_options {
    std::size_t max_requests = 10'000;        ///< waiting and in flight
    std::size_t max_bytes = 16 * 1024 * 1024; ///< of all paths and bodies
    std::size_t max_in_flight = 16;           ///< 0 counts as 1
    bool drop_oldest = false;                 ///< a full queue drops the oldest waiting requests
    bool repeat_logs = false; ///< repeats requests that are not `idempotent`: rather two logs than none
    retry_policy retry = background_retry_policy();
};

/// The outcome of a request. Every request has exactly one.
enum class request_outcome {
    delivered, ///< The service accepted the request.
    rejected,  ///< The service refused the request for good.
    failed,    ///< No attempt is left, or another could deliver the request twice.
    expired,   ///< The last attempt failed, and the next would come after `retry_policy::max_age`.
    dropped,   ///< The queue was full and dropped the request for a newer one.
    cancelled, ///< `cancel` or `discard` removed the request.
    returned,  ///< `drain`, `close` or the destructor of a tracker returned the request.
};

/// A request that is to be sent now.
struct due_request {
    request_number number = 0;
    prepared_request request{};
    std::uint32_t attempt = 1; ///< the first is 1
};

/// A request that has ended. `response` is as it arrived: it holds the API key if the service echoes it.
struct finished_request {
    request_number number = 0;
    prepared_request request{};
    request_outcome outcome = request_outcome::delivered;
    std::optional<promptlayer::error> error{}; ///< of the last attempt, if it failed or was in flight
    std::uint32_t attempts = 0;
    std::optional<http_response> response{}; ///< of the last attempt; only trackers set it
};

/// Counts of requests since the queue was constructed. `pushed` is always the sum of the other counts.
struct outbox_stats {
    std::uint64_t pushed = 0;
    std::size_t waiting = 0;
    std::size_t in_flight = 0;
    std::uint64_t delivered = 0;
    std::uint64_t rejected = 0;
    std::uint64_t failed = 0;
    std::uint64_t expired = 0;
    std::uint64_t dropped = 0;
    std::uint64_t cancelled = 0;
    std::uint64_t returned = 0;

    friend bool operator==(const outbox_stats&, const outbox_stats&) = default;
};

/// A queue of requests with limits, schedule, retry and a circuit breaker, as a state machine without thread,
/// clock or socket.
///
/// The caller pushes requests, takes the due requests, sends them and reports each result. The outbox never
/// contains the API key. One thread at a time may use it. It judges the service, not a request, so no request
/// delays the others:
///
/// - A service failure (`error::is_service_failure`) delays its own request by a random time. The limit of
///   that time doubles from `initial_delay` to `max_delay`; the time is at least 100 ms. `Retry-After` is
///   added. Every other response is healthy, also a 400.
/// - Requests are sent by due time. The number in flight grows from 1 to `max_in_flight` with each full
///   window of healthy responses.
/// - Five service failures in a row open the circuit breaker; with more requests in flight, up to twelve. So
///   does one 429 or `Retry-After`. So does one 401, 403, TLS failure or invalid config, until a response was
///   healthy. A request that fails again while others succeed does not count.
/// - While the breaker is open, one probe at a time is sent, after random waits that double. A healthy
///   response to a probe closes the breaker.
/// - A request ends as `rejected` after a final refusal (HTTP 400, 404, 409, 422, `success: false`), and
///   after a third 401 or 403 if others succeeded meanwhile.
/// - A request ends as `expired` only after a failed attempt, so an outage, a pause or a closed laptop loses
///   nothing.
/// - Time is an argument. A clock that jumps back counts as stopped. A clock that jumps forward ends waits
///   early.
///
/// Cost with N requests: `push`, `take`, `complete`, `cancel` and `next_due` O(log N), `push` amortised over
/// the requests that it drops; `retry_now` O(1); `drain` and `discard` O(N).
///
/// Used as `outbox`. A template, so that a header-only program compiles only the members that it uses.
template <class ClockT>
class basic_outbox {
public:
    using time_point = typename ClockT::time_point;

private:
    using milliseconds = std::chrono::milliseconds;

    /// What failed attempts of a request have shown.
    struct failure_history {
        error last{};
        std::uint32_t refusals = 0; // 401 and 403, with the config of `config_number`
        std::uint32_t config_number = 0;
        std::uint64_t healthy_at_first_refusal = 0; // value of `healthy_count_` then
        /// Value of `healthy_count_` at the last failure while the circuit breaker was closed
        std::uint64_t healthy_at_last_failure = std::numeric_limits<std::uint64_t>::max();
        bool is_at_fault = false; // the request failed again although another succeeded
    };

    struct queue_entry {
        prepared_request request{};
        time_point created{};
        time_point due{};
        std::uint32_t attempts = 0;
        std::uint32_t config_number = 0;  // of the last attempt
        std::uint32_t release_number = 0; // value of `release_count_` when its wait began
        bool is_discarded = false;
        std::unique_ptr<failure_history> history{};
    };

    using entry_map = std::map<request_number, queue_entry>;
    using wait_key = std::tuple<std::uint32_t, time_point, request_number>;

    queue_options options_;
    std::function<double()> random_;
    detail::circuit_breaker breaker_{options_.retry, options_.max_in_flight};
    entry_map untried_{};        // waiting; by number, and so by due time
    entry_map tried_{};          // waiting after an attempt
    entry_map in_flight_{};      // sent, without a result
    std::set<wait_key> waits_{}; // of `tried_`; waits that `retry_now` has ended come first
    std::set<std::pair<std::uint32_t, request_number>> by_attempts_{}; // of `tried_`
    std::list<finished_request> finished_{};                           // dropped or cancelled, not taken yet
    std::size_t bytes_ = 0, in_flight_bytes_ = 0, finished_bytes_ = 0;
    request_number last_number_ = 0;
    request_number probe_ = 0; // in flight while the breaker is open; 0 if there is none
    outbox_stats stats_{};
    std::uint64_t healthy_count_ = 0;
    std::uint32_t config_number_ = 0;              // number of calls of `reconfigure`
    std::uint32_t release_count_ = 0;              // number of calls of `retry_now`
    time_point released_at_ = time_point::min();   // the last of them
    time_point blocked_until_ = time_point::min(); // no probe before
    bool paused_ = false;
    bool closed_ = false;
    time_point last_now_ = time_point::min();
    typename ClockT::duration clock_offset_{}; // sum of the clock's jumps back

    // These spare a separately compiled program <algorithm>.
    template <class T>
    static T smaller(T a, std::type_identity_t<T> b) noexcept {
        return b < a ? b : a;
    }
    template <class T>
    static T larger(T a, std::type_identity_t<T> b) noexcept {
        return a < b ? b : a;
    }

    static std::size_t size_of(const prepared_request& request) noexcept {
        return request.path.size() + request.body.size();
    }

    /// Returns the caller's time, corrected so that it never decreases. Clamps it so that no sum overflows.
    time_point monotonic(time_point now) {
        constexpr auto limit = ClockT::duration::max() / 2;
        now = smaller(larger(now, time_point{-limit / 4}), time_point{limit});
        if (now < last_now_)
            clock_offset_ += smaller(last_now_ - now, limit / 2 - clock_offset_);
        last_now_ = now;
        return now + clock_offset_;
    }

    std::size_t count() const noexcept { return untried_.size() + tried_.size() + in_flight_.size(); }

    bool is_waiting_empty() const noexcept { return untried_.empty() && tried_.empty(); }

    bool contains(request_number number) const {
        return untried_.contains(number) || tried_.contains(number) || in_flight_.contains(number);
    }

    request_number oldest_waiting() const {
        if (untried_.empty() || (!tried_.empty() && tried_.begin()->first < untried_.begin()->first))
            return tried_.begin()->first;
        return untried_.begin()->first;
    }

    /// Returns whether the limits allow another request in flight.
    bool may_send() const noexcept {
        const std::size_t limit = options_.max_in_flight == 0 ? 1 : options_.max_in_flight;
        return !paused_ && !is_waiting_empty() && probe_ == 0 &&
               in_flight_.size() < (breaker_.is_open() ? limit : breaker_.window());
    }

    std::uint64_t& count_of(request_outcome outcome) noexcept {
        switch (outcome) {
        case request_outcome::delivered: return stats_.delivered;
        case request_outcome::rejected: return stats_.rejected;
        case request_outcome::failed: return stats_.failed;
        case request_outcome::expired: return stats_.expired;
        case request_outcome::dropped: return stats_.dropped;
        case request_outcome::cancelled: return stats_.cancelled;
        case request_outcome::returned: break;
        }
        return stats_.returned;
    }

    finished_request finish(typename entry_map::node_type node, request_outcome outcome) {
        queue_entry& entry = node.mapped();
        bytes_ -= size_of(entry.request);
        ++count_of(outcome);
        finished_request finished{.number = node.key(), .outcome = outcome, .attempts = entry.attempts};
        finished.request = std::move(entry.request);
        if (entry.history)
            finished.error = std::move(entry.history->last);
        return finished;
    }

    /// Removes a waiting request from all containers.
    typename entry_map::node_type extract(request_number number) {
        if (auto node = untried_.extract(number))
            return node;
        auto node = tried_.extract(number);
        if (node) {
            const queue_entry& entry = node.mapped();
            waits_.erase({entry.release_number, entry.due, number});
            by_attempts_.erase({entry.attempts, number});
        }
        return node;
    }

    /// Removes a request in flight.
    typename entry_map::node_type land(typename entry_map::iterator position) {
        in_flight_bytes_ -= size_of(position->second.request);
        if (position->first == probe_)
            probe_ = 0;
        return in_flight_.extract(position);
    }

    void remove(request_number number, request_outcome outcome) {
        finished_.emplace_back(); // may throw, while nothing has changed
        finished_.back() = finish(extract(number), outcome);
        finished_bytes_ += size_of(finished_.back().request);
    }

    /// Returns a random number from `first` to `last`.
    request_number random_between(request_number first, request_number last) {
        const auto range = static_cast<double>(last - first);
        const double offset = detail::within_unit(random_()) * (range + 1);
        return offset < range ? first + static_cast<request_number>(offset) : last;
    }

    /// Returns a random request of those with the fewest attempts; so a bad request is not probed for ever.
    request_number choose_probe() {
        if (!untried_.empty())
            return untried_.lower_bound(random_between(untried_.begin()->first, untried_.rbegin()->first))
                ->first;
        const auto [attempts, first] = *by_attempts_.begin();
        const auto last = std::prev(by_attempts_.lower_bound({attempts + 1, 0}));
        return by_attempts_.lower_bound({attempts, random_between(first, last->second)})->second;
    }

    /// Returns the waiting request with the earliest due time, which may be in the future.
    std::pair<time_point, request_number> earliest() const {
        std::pair<time_point, request_number> first{time_point::max(), 0};
        if (!untried_.empty())
            first = {untried_.begin()->second.due, untried_.begin()->first};
        if (waits_.empty())
            return first;
        const auto [release_number, due, number] = *waits_.begin();
        return smaller(first, {release_number == release_count_ ? due : smaller(due, released_at_), number});
    }

    /// Returns when the next request may be sent, as far as that depends on time.
    time_point earliest_time() const { return breaker_.is_open() ? blocked_until_ : earliest().first; }

    bool fits(std::size_t size, std::size_t requests, std::size_t bytes) const noexcept {
        return requests < options_.max_requests && size <= options_.max_bytes &&
               bytes <= options_.max_bytes - size;
    }

    /// Returns why a request is not accepted.
    std::optional<error> refusal(const prepared_request& request) const {
        if (closed_)
            return error{.code = errc::closed, .message = "the queue is closed"};
        const std::size_t size = size_of(request);
        if (options_.drop_oldest ? fits(size, in_flight_.size(), in_flight_bytes_) &&
                                       fits(size, finished_.size(), finished_bytes_)
                                 : fits(size, count() + finished_.size(), bytes_ + finished_bytes_))
            return std::nullopt;
        return error{.code = errc::queue_full, .message = "the queue is full"};
    }

    static entry_map make_entry(request_number number, prepared_request&& request, time_point created,
                                time_point due) {
        entry_map entry;
        entry.emplace(number, queue_entry{.request = std::move(request), .created = created, .due = due});
        return entry;
    }

    /// Adds an entry from `make_entry`. Allocates nothing.
    void insert(entry_map entry) {
        bytes_ += size_of(entry.begin()->second.request);
        ++stats_.pushed;
        untried_.insert(untried_.end(), entry.extract(entry.begin()));
    }

    /// Adds a failure to the history of its request, and reports it to the breaker unless the request is at
    /// fault. Failures while the breaker is open do not put a request at fault, because they are expected.
    void record_failure(request_number number, queue_entry& entry, const error& cause, bool is_probe,
                        time_point now) {
        failure_history& history = *entry.history;
        if (cause.status == 401 || cause.status == 403) {
            if (history.refusals == 0 || history.config_number != entry.config_number) {
                history.refusals = 0;
                history.config_number = entry.config_number;
                history.healthy_at_first_refusal = healthy_count_;
            }
            ++history.refusals;
        }
        const milliseconds retry_after = detail::capped_retry_after(options_.retry, cause);
        std::optional<milliseconds> wait;
        if (!breaker_.is_open()) {
            history.is_at_fault = history.is_at_fault || healthy_count_ > history.healthy_at_last_failure;
            history.healthy_at_last_failure = healthy_count_;
            if (!history.is_at_fault && entry.config_number == config_number_)
                wait = breaker_.record_failure(number, cause, retry_after, random_);
        } else if (is_probe) {
            wait = breaker_.record_failure(number, cause, retry_after, random_);
        } else if (retry_after > milliseconds{0}) { // of a request sent before the breaker opened
            const auto limit = detail::circuit_breaker::max_single_retry_after;
            blocked_until_ = larger(blocked_until_, now + smaller(retry_after, limit));
        }
        if (wait)
            blocked_until_ = now + *wait;
    }

    /// Returns the outcome of a request after a failed attempt; nullopt if it waits for another attempt.
    std::optional<request_outcome> end_after(const queue_entry& entry, const error& cause, milliseconds wait,
                                             time_point now) const {
        const retry_policy& policy = options_.retry;
        const auto age = std::chrono::duration_cast<milliseconds>(now - entry.created);
        if (entry.is_discarded)
            return request_outcome::cancelled;
        if ((cause.status == 401 || cause.status == 403) && entry.history->refusals >= 3 &&
            healthy_count_ > entry.history->healthy_at_first_refusal)
            return request_outcome::rejected;
        const bool may_repeat =
            policy.retry_maybe_delivered && (entry.request.idempotent || options_.repeat_logs);
        if ((cause.maybe_delivered && !may_repeat) ||
            (policy.max_attempts != 0 && entry.attempts >= policy.max_attempts))
            return request_outcome::failed;
        return detail::may_wait(policy, age, wait) ? std::nullopt : std::optional{request_outcome::expired};
    }

    static request_outcome final_outcome(const error& cause) noexcept {
        for (const errc code :
             {errc::bad_request, errc::not_found, errc::conflict, errc::unprocessable, errc::rejected})
            if (cause.code == code)
                return request_outcome::rejected;
        return request_outcome::failed;
    }

public:
    /// `random` returns uniform numbers from 0 to 1. If it is empty, the outbox uses a generator of its own.
    explicit basic_outbox(queue_options options = {}, std::function<double()> random = {})
        : options_(options), random_(random ? std::move(random) : detail::random_source()) {}
    basic_outbox(basic_outbox&&) = default;
    basic_outbox& operator=(basic_outbox&&) = default;

    /// Queues a request from `prepare` and returns its number, or `queue_full`, or `closed` after `close`.
    /// Requests that `drop_oldest` removes for it are returned by `take_finished`. They are dropped only if
    /// the new request then fits, and count against limits of the same size until they are taken.
    result<request_number> push(prepared_request request, time_point now) {
        auto number = reserve(request);
        if (number)
            number = push(*number, std::move(request), now);
        return number;
    }

    /// Returns a number for a request, or why `push` would refuse the request. For callers that write the
    /// request to a journal before they push it.
    result<request_number> reserve(const prepared_request& request) {
        if (auto reason = refusal(request))
            return *std::move(reason);
        return ++last_number_;
    }

    /// Queues a request under a number from `reserve`, and returns the number or the same errors as `push`. A
    /// number must be pushed only once.
    result<request_number> push(request_number number, prepared_request&& request, time_point now) {
        now = monotonic(now);
        if (auto reason = refusal(request))
            return *std::move(reason);
        const std::size_t size = size_of(request);
        entry_map entry = make_entry(number, std::move(request), now, now);
        while (!fits(size, count(), bytes_)) // only if the oldest are to be dropped
            remove(oldest_waiting(), request_outcome::dropped);
        insert(std::move(entry));
        return number;
    }

    /// Queues a request from a journal under its old number, whatever the limits. The numbers may come in any
    /// order. Ignores a number that is queued already. An age counts as 0 to a year.
    void restore(request_number number, prepared_request request, milliseconds age, time_point now) {
        now = monotonic(now);
        if (contains(number))
            return;
        age = smaller(larger(age, milliseconds{0}), detail::max_wait);
        insert(make_entry(number, std::move(request), now - age, now));
        last_number_ = larger(last_number_, number);
    }

    /// Returns the next due request and marks it in flight; nullopt if no request is due or may be sent.
    [[nodiscard]] std::optional<due_request> take(time_point now) {
        now = monotonic(now);
        const auto due = may_send() ? earliest_time() : time_point::max();
        if (due > now)
            return std::nullopt;
        const request_number number = breaker_.is_open() ? choose_probe() : earliest().second;
        const auto untried = untried_.find(number);
        due_request next{number, (untried != untried_.end() ? untried : tried_.find(number))->second.request};
        if (breaker_.is_open()) // from here on nothing throws
            probe_ = number;
        queue_entry& entry = in_flight_.insert(extract(number)).position->second;
        next.attempt = ++entry.attempts;
        entry.config_number = config_number_;
        in_flight_bytes_ += size_of(entry.request);
        return next;
    }

    /// Reports the result of an attempt: an empty `cause` if the request was delivered, else its error.
    /// Returns the request if it has ended, else nullopt. Ignores a number that is not in flight, such as
    /// that of a request that is already completed or drained. If memory is exhausted, it throws, the request
    /// remains in flight, and the result can be reported again.
    std::optional<finished_request> complete(request_number number, std::optional<error> cause,
                                             time_point now) {
        now = monotonic(now);
        const auto position = in_flight_.find(number);
        if (position == in_flight_.end())
            return std::nullopt;
        queue_entry& entry = position->second;
        const bool is_probe = number == probe_;
        const bool is_cancelled = cause && cause->failure == failure::cancelled;
        if (!cause || !(cause->is_service_failure() || is_cancelled)) {
            ++healthy_count_;
            breaker_.record_success(is_probe, entry.config_number == config_number_);
            auto finished =
                finish(land(position), cause ? final_outcome(*cause) : request_outcome::delivered);
            finished.error = std::move(cause);
            return finished;
        }
        if (!entry.history)
            entry.history = std::make_unique<failure_history>();
        const error& failed = entry.history->last = *std::move(cause);
        if (!is_cancelled)
            record_failure(number, entry, failed, is_probe, now);
        else if (is_probe)
            blocked_until_ = now + breaker_.next_wait(milliseconds{0}, random_);
        const milliseconds wait = larger(detail::backoff(options_.retry, entry.attempts, random_()),
                                         detail::circuit_breaker::min_wait) +
                                  detail::capped_retry_after(options_.retry, failed);
        if (const auto outcome = end_after(entry, failed, wait, now))
            return finish(land(position), *outcome);
        entry.due = now + wait;
        entry.release_number = release_count_;
        decltype(waits_) waiting{{release_count_, entry.due, number}};
        decltype(by_attempts_) attempted{{entry.attempts, number}};
        waits_.merge(waiting); // from here on nothing throws
        by_attempts_.merge(attempted);
        tried_.insert(land(position));
        return std::nullopt;
    }

    /// Returns whether a request that is pushed now could change what `next_due` returns.
    bool wants_requests() const noexcept {
        return !paused_ && probe_ == 0 &&
               (breaker_.is_open() ? is_waiting_empty() : in_flight_.size() < breaker_.window());
    }

    /// Returns when `take` may next return a request if nothing else happens until then; at most `now` if a
    /// request is due. Returns nullopt if `take` returns nothing before another member is called.
    std::optional<time_point> next_due(time_point now) {
        now = monotonic(now);
        if (!may_send())
            return std::nullopt;
        return earliest_time() - clock_offset_;
    }

    /// Removes a waiting request; `take_finished` returns it. Returns false if it is in flight or has ended.
    bool cancel(request_number number) {
        const bool is_waiting = untried_.contains(number) || tried_.contains(number);
        if (is_waiting)
            remove(number, request_outcome::cancelled);
        return is_waiting;
    }

    /// Cancels all waiting requests. Those in flight are not sent again.
    void discard() {
        while (!is_waiting_empty())
            remove(oldest_waiting(), request_outcome::cancelled);
        for (auto& [number, entry] : in_flight_)
            entry.is_discarded = true;
    }

    /// Returns a request that was dropped or cancelled, in the order in which that happened; nullopt if there
    /// is no other.
    std::optional<finished_request> take_finished() {
        if (finished_.empty())
            return std::nullopt;
        finished_request next = std::move(finished_.front());
        finished_.pop_front();
        finished_bytes_ -= size_of(next.request);
        return next;
    }

    /// Returns whether `take_finished` has a request to return.
    bool has_finished() const noexcept { return !finished_.empty(); }

    /// Makes `take` return nothing until `resume`. Requests in flight continue.
    void pause() noexcept { paused_ = true; }
    void resume() noexcept { paused_ = false; }
    bool is_paused() const noexcept { return paused_; }

    /// Ends all waits: those of the requests, and that of the circuit breaker. An open breaker then sends a
    /// probe, even if another is in flight.
    void retry_now(time_point now) {
        blocked_until_ = monotonic(now);
        released_at_ = blocked_until_;
        ++release_count_;
        probe_ = 0; // it may wait on a dead connection
    }

    /// Ends the wait of the circuit breaker, because the key or the config has been replaced. Requests that
    /// are in flight say nothing about the new config.
    void reconfigure(time_point now) {
        blocked_until_ = monotonic(now);
        ++config_number_;
        probe_ = 0;
        breaker_.reconfigure();
    }

    /// Returns the latest error of a probe, or the error that opened the circuit breaker; nullopt if the
    /// breaker is closed.
    const std::optional<error>& outage_cause() const noexcept { return breaker_.cause(); }

    /// Stops accepting requests: `push` returns `closed` from now on.
    void close() noexcept { closed_ = true; }

    /// Calls `close`, removes all requests that have not ended and returns them in the order of the pushes.
    /// The requests in flight are among them, with a `maybe_delivered` error; their later `complete` is
    /// ignored. If memory is exhausted, it throws and removes none.
    [[nodiscard]] std::vector<finished_request> drain() {
        close();
        std::vector<finished_request> undelivered;
        undelivered.reserve(count());
        for (auto& [number, entry] : in_flight_) {
            if (!entry.history)
                entry.history = std::make_unique<failure_history>();
            entry.history->last =
                error{.code = errc::transport,
                      .message = "the queue was closed while the request was in flight; the "
                                 "service may have processed it",
                      .failure = failure::cancelled,
                      .maybe_delivered = true};
        }
        untried_.merge(tried_); // from here on nothing throws
        untried_.merge(in_flight_);
        waits_.clear();
        by_attempts_.clear();
        probe_ = 0;
        while (!untried_.empty())
            undelivered.push_back(finish(untried_.extract(untried_.begin()), request_outcome::returned));
        return undelivered;
    }

    outbox_stats stats() const noexcept {
        outbox_stats stats = stats_;
        stats.in_flight = in_flight_.size();
        stats.waiting = untried_.size() + tried_.size();
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
