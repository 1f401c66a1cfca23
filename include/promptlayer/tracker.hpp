#ifndef PROMPTLAYER_TRACKER_HPP
#define PROMPTLAYER_TRACKER_HPP

#include <promptlayer/client.hpp>
#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/any_transport.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/mutex.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/journal.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <atomic>
#if !defined(_WIN32) && !defined(__EMSCRIPTEN__)
#include <pthread.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// One attempt to send a request, for logs and metrics.
struct attempt_report {
    request_number number = 0;
    std::uint32_t attempt = 1;                     ///< the first is 1
    int status = 0;                                ///< HTTP status; 0 if no response arrived
    std::optional<promptlayer::failure> failure{}; ///< why no response arrived
    std::chrono::milliseconds latency{};           ///< from the call of the transport to its outcome
};

/// The options of both trackers. Callbacks may be empty; an exception from a callback is dropped.
struct tracker_options {
    /// The service accepted the request.
    std::function<void(const finished_request&)> on_delivered{};
    /// The request ended otherwise. The destructor reports undelivered requests as `returned`; a journal
    /// keeps these for the next start.
    std::function<void(const finished_request&)> on_failed{};
    /// The circuit breaker has opened: the service cannot be used, and only probes are sent.
    std::function<void(const error&)> on_outage{};
    /// The circuit breaker has closed.
    std::function<void()> on_recovery{};
    /// A request was sent.
    std::function<void(const attempt_report&)> on_attempt{};
    queue_options queue{};
    std::unique_ptr<promptlayer::journal> journal{};
    std::chrono::milliseconds close_timeout{2'000}; ///< how long the destructor of a background tracker sends
    std::function<double()> random{};               ///< uniform from 0 to 1, for tests; empty: a generator
};

/// The result of `track`: the request is queued.
struct queued_request {
    request_number number = 0;
    /// Set if the journal could not record the request: a crash would lose it. The tracker sends it all the
    /// same.
    std::optional<error> journal_error{};
};

namespace detail {

/// Returns the error of an outcome, read as the reply of one endpoint; nullopt if the service accepted.
using outcome_judge = std::optional<error> (*)(const encoder& codec, const transport_result& outcome);

template <class RequestT>
std::optional<error> judge_outcome(const encoder& codec, const transport_result& outcome) {
    auto reply = make_empty<typename RequestT::reply>();
    return decode_outcome(codec, outcome, refer_to_reply<RequestT>(reply));
}

/// How to read the response of a path.
struct endpoint {
    std::string_view path;
    outcome_judge judge;
};

/// Calls a callback of the user without a lock.
template <class... ParametersT, class... ArgumentsT>
void notify(const std::function<void(ParametersT...)>& callback, const ArgumentsT&... arguments) {
    if (callback)
        ignore_exceptions([&] { callback(arguments...); });
}

template <class ClockT>
class delivery_engine;

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns how often this process and its ancestors have forked since the first call. Much faster than
/// `getpid`.
inline unsigned fork_count() noexcept {
    static std::atomic<unsigned> count{0};
#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // these have no fork
    static const int registered = ::pthread_atfork(nullptr, nullptr, [] { ++count; });
    static_cast<void>(registered);
#endif
    return count;
}

/// What is known of the response of a path that this program has not tracked: whether it refuses.
struct unknown_reply {
    std::optional<bool> success{};

    using schema = reply_schema<field<"success", &unknown_reply::success>>;
};

/// A request from a journal, with a path that this program has not tracked.
struct unknown_request {
    static constexpr int success_status = 0;
    using reply = unknown_reply;
};

/// An attempt in flight.
template <class ClockT>
struct running_attempt {
    request_number number = 0;
    std::uint32_t count = 1;
    typename ClockT::time_point start{};
    std::shared_ptr<const encoder> codec{};
    outcome_judge judge = nullptr;
    bool is_begun = false; // in the journal
};

/// Outcomes of asynchronous requests, from any thread. Exists as long as a completion does.
template <class ClockT>
struct completion_queue {
    struct item {
        running_attempt<ClockT> attempt;
        transport_result outcome;
    };

    detail::mutex mutex{};
    std::list<item> items{};
    std::function<void()> on_arrival{}; ///< called with `mutex` locked; empty after the tracker's destructor
};

/// Puts an attempt into its queue once: with its outcome, or as a failure if it is destroyed without, because
/// memory is exhausted. Allocates nothing.
template <class ClockT>
class completion_ticket {
    using queue_type = completion_queue<ClockT>;

    std::shared_ptr<queue_type> queue_;
    std::list<typename queue_type::item> item_{};

    void arrive() {
        if (item_.empty())
            return;
        const lock guard{queue_->mutex};
        queue_->items.splice(queue_->items.end(), item_);
        if (queue_->on_arrival)
            queue_->on_arrival();
    }

public:
    completion_ticket(std::shared_ptr<queue_type> queue, std::list<typename queue_type::item>& item)
        : queue_(std::move(queue)) {
        item_.splice(item_.end(), item);
    }
    completion_ticket(completion_ticket&&) = default;
    completion_ticket& operator=(completion_ticket&&) = delete;
    ~completion_ticket() { arrive(); }

    void arrive(transport_result outcome) {
        item_.front().outcome = std::move(outcome);
        arrive();
    }
    void discard() noexcept { item_.clear(); }
};

/// What both trackers are made of: queue, journal, callbacks, attempts and their outcomes.
///
/// One thread at a time, the driver, calls `step` and `settle`; any thread may call the other members.
/// Callbacks run on the driver, without a lock.
template <class ClockT>
class delivery_engine {
    using time_point = typename ClockT::time_point;
    using milliseconds = std::chrono::milliseconds;
    using attempt_type = running_attempt<ClockT>;
    using completions_type = completion_queue<ClockT>;

    /// How many dropped or cancelled requests one `step` reports.
    static constexpr std::size_t max_reports = 64;

    const tracker_options options_;
    const std::function<time_point()> clock_; // empty: the time is that of `advance_to`
    const std::function<void()> wake_;        // makes the driver call `step`; may be empty
    const unsigned fork_count_ = fork_count();
    any_transport transport_; // only the driver uses it, except for `wakeup` and `cancel`
    std::shared_ptr<completions_type> completions_ = std::make_shared<completions_type>();
    std::list<typename completions_type::item> arrived_{}; // only for the driver, as the next
    std::list<typename completions_type::item> spare_{};   // memory of the next attempt

    detail::mutex journal_mutex_{}; // for all functions of the journal except `add`

    mutable detail::mutex mutex_{}; // of all members below
    basic_outbox<ClockT> outbox_;
    std::shared_ptr<const encoder> encoder_;
    std::map<std::string_view, outcome_judge> judges_{{track_prompt::path, judge_outcome<track_prompt>}};
    std::vector<finished_request> interrupted_{}; // by a crash, and not to be sent twice; not reported
    std::size_t interrupted_count_ = 0;           // counted as cancelled by the outbox
    std::uint64_t reported_count_ = 0;            // requests of which the callback has returned
    time_point now_{};
    time_point close_deadline_ = time_point::max();
    bool wake_on_push_ = false;
    bool is_settling_ = false; // nothing can be cancelled: nobody would report it

    time_point now() const { return clock_ ? clock_() : now_; }

    void wake() const {
        if (wake_)
            wake_();
    }

    template <class ActionT>
    void with_journal(ActionT action) {
        if (!options_.journal)
            return;
        const lock guard{journal_mutex_};
        ignore_exceptions([&] { action(*options_.journal); });
    }

    void remove_from_journal(request_number number) {
        with_journal([&](journal& journal) { journal.remove(number); });
    }

    void report(const finished_request& finished) {
        if (finished.outcome == request_outcome::delivered) {
            remove_from_journal(finished.number);
            notify(options_.on_delivered, finished);
        } else {
            notify(options_.on_failed, finished);
            remove_from_journal(finished.number);
        }
        const lock guard{mutex_};
        ++reported_count_;
    }

    /// Changes nothing if it throws.
    void complete(const attempt_type& attempt, transport_result& outcome, std::optional<error> failed) {
        attempt_report report_of_attempt{.number = attempt.number, .attempt = attempt.count, .failure = {}};
        if (outcome)
            report_of_attempt.status = outcome->status;
        else
            report_of_attempt.failure = outcome.error().kind;
        const bool may_have_arrived = !failed || failed->maybe_delivered;
        std::optional<finished_request> finished;
        std::optional<error> outage;
        bool was_open = false, is_open = false;
        {
            const lock guard{mutex_};
            const time_point now = this->now();
            report_of_attempt.latency = std::chrono::duration_cast<milliseconds>(now - attempt.start);
            was_open = outbox_.outage_cause().has_value();
            finished = outbox_.complete(attempt.number, std::move(failed), now);
            is_open = outbox_.outage_cause().has_value();
            if (is_open && !was_open)
                ignore_exceptions([&] { outage = outbox_.outage_cause(); });
        }
        if (attempt.is_begun && !may_have_arrived && !finished)
            with_journal([&](journal& journal) { journal.undo_begin(attempt.number); });
        notify(options_.on_attempt, report_of_attempt);
        if (outage)
            notify(options_.on_outage, *outage);
        if (was_open && !is_open)
            notify(options_.on_recovery);
        if (finished) {
            if (outcome)
                finished->response = *std::move(outcome);
            report(*finished);
        }
    }

    /// Takes in the outcomes that have arrived.
    void collect() {
        {
            const lock guard{completions_->mutex};
            arrived_.splice(arrived_.end(), completions_->items);
        }
        for (; !arrived_.empty(); arrived_.pop_front()) {
            auto& [attempt, outcome] = arrived_.front();
            complete(attempt, outcome, attempt.judge(*attempt.codec, outcome));
        }
    }

    std::optional<finished_request> take_finished() {
        const lock guard{mutex_};
        if (interrupted_.empty())
            return outbox_.take_finished();
        finished_request next = std::move(interrupted_.back());
        interrupted_.pop_back();
        return next;
    }

    /// Reports one request that was dropped or cancelled. Returns false if there is none.
    bool report_finished() {
        const auto finished = take_finished();
        if (finished)
            report(*finished);
        return finished.has_value();
    }

    /// Starts one request. Returns false if none is due.
    bool start_next() {
        if (spare_.empty())
            spare_.push_back({{}, transport_failure{failure::other, {}, false}});
        auto& item = spare_.front();
        attempt_type& next = item.attempt;
        std::optional<due_request> due;
        milliseconds time_left = milliseconds::max();
        {
            const lock guard{mutex_};
            next.start = now();
            if (next.start < close_deadline_)
                due = outbox_.take(next.start);
            if (!due)
                return false;
            next.codec = encoder_;
            next.judge = judge_of(due->request.path);
            if (close_deadline_ != time_point::max())
                time_left =
                    std::max(std::chrono::ceil<milliseconds>(close_deadline_ - next.start), milliseconds{1});
        }
        completion_ticket<ClockT> ticket{completions_, spare_};
        next.number = due->number;
        next.count = due->attempt;
        next.is_begun = !due->request.idempotent && !options_.queue.repeat_logs;
        if (next.is_begun)
            with_journal([&](journal& journal) { journal.begin(next.number); });
        auto http = next.codec->authorize(std::move(due->request));
        if (!http) {
            transport_result not_sent = transport_failure{};
            complete(next, not_sent, std::move(http).error());
            ticket.discard();
            return true;
        }
        http->timeout = std::min(http->timeout, time_left);
        http->idempotent = !next.is_begun;
        item.outcome.error().maybe_delivered = true; // in case the transport loses the outcome
        if (!transport_.is_asynchronous()) {
            ticket.arrive(transport_.reference().send(transport_.object(), *http));
            collect();
            return true;
        }
        ignore_exceptions([&] {
            send_async(transport_, *std::move(http),
                       [sent = std::move(ticket)](transport_result outcome) mutable {
                           sent.arrive(std::move(outcome));
                       });
        });
        return true;
    }

    /// Returns how to read the response of a path. A journal may hold a path that this program has not
    /// tracked; its response is a success unless it says `"success": false`.
    outcome_judge judge_of(std::string_view path) const {
        const auto known = judges_.find(path);
        return known == judges_.end() ? judge_outcome<unknown_request> : known->second;
    }

    void restore_from_journal() {
        for (journal::entry& entry : options_.journal->pending()) {
            const bool is_interrupted =
                entry.begun && !entry.request.idempotent && !options_.queue.repeat_logs;
            outbox_.restore(entry.number, std::move(entry.request), entry.age, now());
            if (!is_interrupted || !outbox_.cancel(entry.number))
                continue;
            finished_request finished = *outbox_.take_finished();
            finished.outcome = request_outcome::failed;
            finished.attempts = 1;
            finished.error = error{.code = errc::transport,
                                   .message = "the program ended while the request was sent; the service may "
                                              "have processed it, and must not receive it twice",
                                   .failure = failure::cancelled,
                                   .maybe_delivered = true};
            interrupted_.push_back(std::move(finished));
        }
        interrupted_count_ = interrupted_.size();
    }

    // These need `mutex_`.

    outbox_stats counts() const {
        outbox_stats counts = outbox_.stats();
        counts.cancelled -= interrupted_count_;
        counts.failed += interrupted_count_;
        return counts;
    }

    std::size_t unreported_count() const {
        const outbox_stats counts = outbox_.stats();
        return to_size(counts.pushed - counts.returned - reported_count_);
    }

public:
    /// `clock` and `wake` may be empty. `wake` is called without a lock of the engine.
    delivery_engine(config config, any_transport transport, tracker_options options,
                    std::function<time_point()> clock, std::function<void()> wake)
        : options_(std::move(options)), clock_(std::move(clock)), wake_(std::move(wake)),
          transport_(std::move(transport)), outbox_(options_.queue, options_.random),
          encoder_(std::make_shared<const encoder>(std::move(config))) {
        const std::size_t max_in_flight = options_.queue.max_in_flight;
        transport_.call(transport_.functions().max_in_flight, max_in_flight == 0 ? 1 : max_in_flight);
        completions_->on_arrival = wake_;
        if (options_.journal)
            restore_from_journal();
    }
    delivery_engine(const delivery_engine&) = delete;
    delivery_engine& operator=(const delivery_engine&) = delete;

    virtual ~delivery_engine() = default;

    /// Makes sure that no completion wakes the driver any more.
    void stop_wakes() {
        const lock guard{completions_->mutex};
        completions_->on_arrival = nullptr;
    }

    /// Returns false in a child of `fork`, where the driver does not exist and other threads may hold locks.
    bool is_in_owner_process() const noexcept { return fork_count_ == fork_count(); }

    const any_transport& transport() const noexcept { return transport_; }
    milliseconds close_timeout() const noexcept { return options_.close_timeout; }

    std::shared_ptr<const encoder> current_encoder() const {
        const lock guard{mutex_};
        return encoder_;
    }

    /// Queues a request, after it has been added to the journal if there is one.
    result<queued_request> push(prepared_request&& request, const endpoint& target) {
        queued_request queued;
        struct unqueued_record { // removes the request from the journal, unless it is queued
            delivery_engine& engine;
            request_number number = 0;
            ~unqueued_record() {
                if (number != 0)
                    engine.remove_from_journal(number);
            }
        } record{*this};
        if (options_.journal) {
            {
                const lock guard{mutex_};
                const auto number = outbox_.reserve(request);
                if (!number)
                    return number.error();
                queued.number = record.number = *number;
            }
            const auto added = guard_exceptions(
                [&]() -> result<void> { return options_.journal->add(queued.number, request); },
                [](const char* text) -> result<void> {
                    return error{.code = errc::journal_failed, .message = text};
                });
            if (!added)
                queued.journal_error = added.error();
        }
        std::optional<error> refused;
        bool wakes = false;
        {
            const lock guard{mutex_};
            judges_.try_emplace(target.path, target.judge);
            const bool had_finished = outbox_.has_finished();
            const auto pushed = queued.number == 0 ? outbox_.push(std::move(request), now())
                                                   : outbox_.push(queued.number, std::move(request), now());
            if (pushed)
                queued.number = *pushed;
            else
                refused = pushed.error(); // other threads have filled the queue meanwhile
            wakes = std::exchange(wake_on_push_, false) || (outbox_.has_finished() && !had_finished);
        }
        if (refused)
            return *std::move(refused);
        record.number = 0;
        if (wakes)
            wake();
        return queued;
    }

    void advance_to(time_point now) {
        const lock guard{mutex_};
        now_ = now;
    }

    /// Takes in outcomes, reports them, sends due requests, and lets the journal work: a bounded piece of
    /// each. Returns when to call it again if nothing happens until then, at most `now` if there is more to
    /// do; nullopt if not before something happens.
    std::optional<time_point> step() {
        collect();
        for (std::size_t count = max_reports; count > 0 && report_finished(); --count) {
        }
        const std::size_t max_starts = transport_.is_asynchronous() ? options_.queue.max_in_flight : 1;
        for (std::size_t count = std::max<std::size_t>(max_starts, 1); count > 0 && start_next(); --count) {
        }
        std::optional<milliseconds> upkeep;
        with_journal([&](journal& journal) { upkeep = journal.maintain(); });
        const lock guard{mutex_};
        const time_point now = this->now();
        wake_on_push_ = outbox_.wants_requests() || (options_.journal && !upkeep);
        if (outbox_.has_finished() || !interrupted_.empty())
            return now;
        auto next = now < close_deadline_ ? outbox_.next_due(now) : std::nullopt;
        if (upkeep)
            next = std::min(next.value_or(time_point::max()), now + std::min(*upkeep, max_wait));
        return next;
    }

    /// Takes in what has arrived and reports all that has ended. From then on nothing is cancelled. If memory
    /// is exhausted, it throws, and what it has not taken in remains in flight.
    void settle() {
        {
            const lock guard{mutex_};
            is_settling_ = true;
        }
        while (report_finished()) { // allocates nothing
        }
        transport_.call(transport_.functions().poll);
        collect();
    }

    /// Cancels the requests in flight if the transport can. Removes all requests that have not ended and
    /// returns them in order.
    std::vector<finished_request> drain() {
        if (stats().in_flight != 0)
            cancel_transport();
        const lock guard{mutex_};
        return outbox_.drain();
    }

    /// Reports the requests that `drain` returned; the journal keeps them.
    void report_returned(const std::vector<finished_request>& returned) const {
        for (const finished_request& request : returned)
            notify(options_.on_failed, request);
    }

    void cancel_transport() noexcept { transport_.call(transport_.functions().cancel); }

    /// Stops accepting requests, and sends no request at or after `deadline`.
    void close(time_point deadline) {
        const lock guard{mutex_};
        outbox_.close();
        close_deadline_ = std::min(close_deadline_, deadline);
    }

    time_point close_deadline() const {
        const lock guard{mutex_};
        return close_deadline_;
    }

    /// Returns whether the deadline of `close` has passed, or nothing is left to do before it.
    bool is_finished() {
        const lock guard{mutex_};
        const time_point now = this->now();
        if (now >= close_deadline_ || close_deadline_ == time_point::max())
            return now >= close_deadline_;
        const auto due = outbox_.next_due(now);
        return unreported_count() == outbox_.stats().waiting && (!due || *due >= close_deadline_);
    }

    /// Returns the number of requests that have not ended or are not reported yet.
    std::size_t pending() const {
        const lock guard{mutex_};
        return unreported_count();
    }

    bool is_paused() const {
        const lock guard{mutex_};
        return outbox_.is_paused();
    }

    bool cancel(request_number number) {
        return change([&] { return !is_settling_ && outbox_.cancel(number); });
    }
    void discard() {
        change([&] {
            if (!is_settling_)
                outbox_.discard();
        });
    }
    void retry_now() {
        change([&] { outbox_.retry_now(now()); });
    }
    void reconfigure(std::shared_ptr<const encoder> codec) {
        change([&] {
            encoder_ = std::move(codec);
            outbox_.reconfigure(now());
        });
    }
    void pause() {
        change([&] { outbox_.pause(); });
    }
    void resume() {
        change([&] { outbox_.resume(); });
    }

    std::optional<error> outage_cause() const {
        const lock guard{mutex_};
        return outbox_.outage_cause();
    }

    outbox_stats stats() const {
        const lock guard{mutex_};
        return counts();
    }

private:
    template <class ActionT>
    auto change(ActionT action) -> decltype(action()) {
        struct waker {
            const delivery_engine& engine;
            ~waker() { engine.wake(); }
        } const after_unlock{*this};
        const lock guard{mutex_};
        return action();
    }
};

#endif

} // namespace detail

/// What both trackers offer. Any thread may call these members, also a callback.
///
/// After `fork`, only the process that constructed a tracker delivers. In the child every call that returns a
/// `result` returns `closed`, every other call does nothing, and the destructor releases nothing.
///
/// Trackers may share a transport by `std::ref` if it is thread-safe. The end of one tracker then cancels
/// also the requests of the others, for which that is a failed attempt.
template <class ClockT>
class basic_tracker {
    struct release_engine {
        void operator()(detail::delivery_engine<ClockT>* engine) const noexcept;
    };

    std::unique_ptr<detail::delivery_engine<ClockT>, release_engine> engine_;

protected:
    explicit basic_tracker(detail::delivery_engine<ClockT>* engine) noexcept : engine_(engine) {}
    ~basic_tracker() = default;

    detail::delivery_engine<ClockT>& engine() const noexcept { return *engine_; }

    /// Returns false in a child of `fork`.
    bool is_usable() const noexcept;

private:
    /// Returns null in a child of `fork`.
    std::shared_ptr<const encoder> current_encoder() const;
    result<queued_request> push(prepared_request&& request, const request_options& options,
                                const detail::endpoint& target);
    static error closed();

public:
    basic_tracker(const basic_tracker&) = delete;
    basic_tracker& operator=(const basic_tracker&) = delete;

    /// Validates and queues a request of any endpoint. Returns its number, or `invalid_request`,
    /// `invalid_config`, `queue_full`, `closed`. Never waits for the network. Takes about a microsecond, and
    /// with a journal one write to it.
    template <class RequestT>
    result<queued_request> track(const RequestT& request, const request_options& options = {}) {
        const auto codec = current_encoder();
        if (!codec)
            return closed();
        auto prepared = codec->prepare(request);
        if (!prepared)
            return std::move(prepared).error();
        return push(*std::move(prepared), options,
                    detail::endpoint{RequestT::path, detail::judge_outcome<RequestT>});
    }

    /// Calls `track` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<queued_request> track_prompt(const basic_track_prompt<TextT, VariablesT>& request,
                                        const request_options& options = {}) {
        return track(request, options);
    }

    /// Removes a request, which is reported as `cancelled`. Returns false if it is in flight or has ended, or
    /// if `close` is about to return it.
    bool cancel(request_number number);

    /// Removes all waiting requests, also from the journal, and reports them as `cancelled`. Requests in
    /// flight are not sent again. Does nothing if `close` is about to return the requests.
    void discard();

    /// Ends all waits, for example because the network is back. During an outage a probe is sent at once.
    void retry_now();

    /// Uses another config from the next request on, and sends a probe at once if there is an outage. An
    /// invalid config changes nothing and is returned as `invalid_config`.
    result<void> reconfigure(config config);

    /// Queues requests and sends none until `resume`, for example until the user consents. Requests in flight
    /// continue. Nothing else ends the pause.
    void pause();
    void resume();

    /// Returns the latest error that keeps the service from being used; nullopt if nothing does.
    std::optional<error> outage_cause() const;

    outbox_stats stats() const;
};

#if defined(PROMPTLAYER_DEFINITIONS)

template <class ClockT>
void basic_tracker<ClockT>::release_engine::operator()(
    detail::delivery_engine<ClockT>* engine) const noexcept {
    if (engine->is_in_owner_process())
        delete engine;
}

template <class ClockT>
bool basic_tracker<ClockT>::is_usable() const noexcept {
    return engine_->is_in_owner_process();
}

template <class ClockT>
error basic_tracker<ClockT>::closed() {
    return {.code = errc::closed,
            .message = "the tracker belongs to another process, which has forked this one"};
}

template <class ClockT>
std::shared_ptr<const encoder> basic_tracker<ClockT>::current_encoder() const {
    return is_usable() ? engine_->current_encoder() : nullptr;
}

template <class ClockT>
result<queued_request> basic_tracker<ClockT>::push(prepared_request&& request, const request_options& options,
                                                   const detail::endpoint& target) {
    if (auto unusable = detail::check(options))
        return *std::move(unusable);
    request.timeout = options.timeout.value_or(request.timeout);
    return engine_->push(std::move(request), target);
}

template <class ClockT>
bool basic_tracker<ClockT>::cancel(request_number number) {
    return is_usable() && engine_->cancel(number);
}

template <class ClockT>
void basic_tracker<ClockT>::discard() {
    if (is_usable())
        engine_->discard();
}

template <class ClockT>
void basic_tracker<ClockT>::retry_now() {
    if (is_usable())
        engine_->retry_now();
}

template <class ClockT>
result<void> basic_tracker<ClockT>::reconfigure(config config) {
    if (!is_usable())
        return closed();
    auto codec = std::make_shared<const encoder>(std::move(config));
    if (codec->config_error())
        return *codec->config_error();
    engine_->reconfigure(std::move(codec));
    return {};
}

template <class ClockT>
void basic_tracker<ClockT>::pause() {
    if (is_usable())
        engine_->pause();
}

template <class ClockT>
void basic_tracker<ClockT>::resume() {
    if (is_usable())
        engine_->resume();
}

template <class ClockT>
std::optional<error> basic_tracker<ClockT>::outage_cause() const {
    return is_usable() ? engine_->outage_cause() : std::nullopt;
}

template <class ClockT>
outbox_stats basic_tracker<ClockT>::stats() const {
    return is_usable() ? engine_->stats() : outbox_stats{};
}

#endif

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_tracker<std::chrono::steady_clock>;
#else
extern template class basic_tracker<std::chrono::steady_clock>;
#endif
#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
