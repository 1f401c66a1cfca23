#ifndef PROMPTLAYER_TESTS_OUTBOX_MODEL_HPP
#define PROMPTLAYER_TESTS_OUTBOX_MODEL_HPP

// A simple model of the outbox, and a simulation that compares both through any events.

#include <promptlayer/outbox.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace outbox_model {

namespace pl = promptlayer;
using namespace std::chrono_literals;
using pl::request_number;
using pl::request_outcome;
using std::chrono::milliseconds;

/// Thrown if outbox and model disagree.
struct disagreement {
    const char* what;
};

inline void expect(bool condition, const char* what) {
    if (!condition)
        throw disagreement{what};
}

inline milliseconds times(double factor, milliseconds duration) {
    return milliseconds{static_cast<milliseconds::rep>(factor * static_cast<double>(duration.count()))};
}
inline milliseconds rounded_times(double factor, milliseconds duration) {
    const double product = factor * static_cast<double>(duration.count());
    return milliseconds{static_cast<milliseconds::rep>(product + 0.5)};
}

inline bool is_refusal(const pl::error& cause) { return cause.status == 401 || cause.status == 403; }

/// The rules of the outbox, written for simplicity: each look at the queue is a loop. All random numbers of a
/// call are the same.
struct model {
    struct request {
        std::size_t size;
        bool idempotent;
        milliseconds created, due;
        int releases = 0; // calls of `retry_now` when its wait began
        bool in_flight = false, discarded = false;
        std::uint32_t attempts = 0;
        int config = 0;                                  // of the last attempt
        int refusals = 0, refusals_config = 0;           // with that config
        int healthy_at_first_refusal = 0;                // number of healthy responses then
        std::optional<int> healthy_at_last_failure = {}; // while the breaker was closed
        bool at_fault = false;
    };
    struct ended {
        request_number number;
        std::size_t size;
        request_outcome outcome;
    };

    pl::queue_options options;
    std::map<request_number, request> requests{};
    std::deque<ended> finished{};
    pl::outbox_stats counts{};
    request_number last_number = 0;
    milliseconds time{1'000'000'000};
    double random = 0;
    int healthy = 0, config = 0, releases = 0;
    milliseconds released_at{0};
    bool closed = false, paused = false;

    bool open = false, ever_opened = false, proven = false;
    milliseconds probe_at{0}, delay{0}, delay_429{0}, last_delay{0};
    std::optional<request_number> probe{};
    std::size_t window = 1, window_responses = 0;
    std::size_t failures_in_a_row = 0;
    std::set<request_number> failed_in_a_row{};

    std::size_t bytes(bool of_in_flight_only = false) const {
        std::size_t all = 0;
        for (const auto& [number, entry] : requests)
            all += entry.in_flight || !of_in_flight_only ? entry.size : 0;
        return all;
    }
    std::size_t finished_bytes() const {
        std::size_t all = 0;
        for (const ended& each : finished)
            all += each.size;
        return all;
    }
    std::size_t in_flight() const {
        return static_cast<std::size_t>(std::count_if(
            requests.begin(), requests.end(), [](const auto& each) { return each.second.in_flight; }));
    }

    void count(request_outcome outcome) {
        std::uint64_t* const all[] = {&counts.delivered, &counts.rejected,  &counts.failed,  &counts.expired,
                                      &counts.dropped,   &counts.cancelled, &counts.returned};
        ++*all[static_cast<std::size_t>(outcome)];
    }
    void end(request_number number, request_outcome outcome, bool is_reported_later) {
        if (is_reported_later)
            finished.push_back({number, requests.at(number).size, outcome});
        requests.erase(number);
        count(outcome);
    }

    bool accepts(std::size_t size) const {
        const auto fits = [&](std::size_t other_requests, std::size_t other_bytes) {
            return other_requests + 1 <= options.max_requests && other_bytes + size <= options.max_bytes;
        };
        if (closed)
            return false;
        return options.drop_oldest ? fits(in_flight(), bytes(true)) && fits(finished.size(), finished_bytes())
                                   : fits(requests.size() + finished.size(), bytes() + finished_bytes());
    }
    void push(request_number number, std::size_t size, bool idempotent) {
        while (requests.size() + 1 > options.max_requests || bytes() + size > options.max_bytes)
            end(std::find_if(requests.begin(), requests.end(),
                             [](auto& each) { return !each.second.in_flight; })
                    ->first,
                request_outcome::dropped, true);
        requests.insert({number, {size, idempotent, time, time}});
        ++counts.pushed;
    }
    void restore(request_number number, std::size_t size, bool idempotent, milliseconds age) {
        last_number = std::max(last_number, number);
        counts.pushed += requests.insert({number, {size, idempotent, time - age, time}}).second ? 1U : 0U;
    }

    bool may_send() const {
        const std::size_t limit = std::max<std::size_t>(options.max_in_flight, 1);
        return !paused && requests.size() > in_flight() && !probe && in_flight() < (open ? limit : window);
    }
    /// Returns when a waiting request is due.
    milliseconds due(const request& entry) const {
        const bool is_released = entry.attempts > 0 && entry.releases != releases;
        return is_released ? std::min(entry.due, released_at) : entry.due;
    }
    /// Returns the waiting request that comes first, if the breaker is closed: by due time; but requests that
    /// were not tried have the order of their numbers, and `retry_now` keeps the order of the waits.
    request_number first() const {
        std::optional<request_number> untried, tried;
        const auto order = [&](request_number number) {
            const request& entry = requests.at(number);
            return std::tuple{entry.releases, entry.due, number};
        };
        for (const auto& [number, entry] : requests) {
            if (entry.in_flight)
                continue;
            std::optional<request_number>& best = entry.attempts == 0 ? untried : tried;
            if (!best || (entry.attempts > 0 && order(number) < order(*best)))
                best = number;
        }
        if (!untried || !tried)
            return untried ? *untried : *tried;
        const auto key = [&](request_number number) { return std::pair{due(requests.at(number)), number}; };
        return key(*untried) < key(*tried) ? *untried : *tried;
    }
    std::optional<milliseconds> next_due() const {
        if (!may_send())
            return std::nullopt;
        return open ? probe_at : due(requests.at(first()));
    }
    bool may_take(request_number number) const {
        if (!open)
            return number == first();
        const auto taken = requests.find(number);
        return taken != requests.end() && !taken->second.in_flight &&
               std::all_of(requests.begin(), requests.end(), [&](const auto& each) {
                   return each.second.in_flight || each.second.attempts >= taken->second.attempts;
               });
    }
    void take(request_number number) {
        request& entry = requests.at(number);
        entry.in_flight = true;
        ++entry.attempts;
        entry.config = config;
        if (open)
            probe = number;
    }

    milliseconds retry_after(const pl::error& cause) const {
        const milliseconds asked = cause.retry_after.value_or(0s);
        return std::clamp(asked, 0ms, options.retry.max_retry_after);
    }
    milliseconds own_wait(const request& entry, const pl::error& cause) const {
        milliseconds range = std::min(options.retry.initial_delay, options.retry.max_delay);
        for (std::uint32_t n = 1; n < entry.attempts; ++n)
            range = std::min(2 * range, options.retry.max_delay);
        return std::max(times(random, range), 100ms) + retry_after(cause);
    }
    void wait_for_probe(milliseconds asked) {
        const milliseconds wait = std::max(rounded_times(0.6 + random, last_delay), 100ms);
        probe_at = time + std::max(wait, asked + rounded_times(random / 4, asked));
    }
    /// Handles a failure that counts.
    void count_failure(request_number number, const pl::error& cause) {
        ++failures_in_a_row;
        failed_in_a_row.insert(number);
        const bool is_key_or_config =
            is_refusal(cause) || cause.failure == pl::failure::tls || cause.code == pl::errc::invalid_config;
        const bool opens = failures_in_a_row >= std::min<std::size_t>(5 + window / 4, 12) ||
                           cause.status == 429 || retry_after(cause) > 0ms || (is_key_or_config && !proven);
        if (!open && !opens)
            return;
        open = ever_opened = true;
        const milliseconds longest = std::max(options.retry.max_delay, 100ms);
        const milliseconds shortest = std::max(options.retry.initial_delay, 100ms);
        if (cause.status == 429)
            last_delay = delay_429 =
                std::min(longest / 2, delay_429 == 0ms ? 5s : std::max<milliseconds>(5s, 2 * delay_429));
        else
            last_delay = delay = std::min(longest, delay == 0ms ? shortest : 2 * delay);
        wait_for_probe(std::min(retry_after(cause), failed_in_a_row.size() > 1 ? longest : 5s));
    }
    void fail(request_number number, const pl::error& cause, bool was_probe) {
        request& entry = requests.at(number);
        if (is_refusal(cause)) {
            if (entry.refusals == 0 || entry.refusals_config != entry.config) {
                entry.refusals = 0;
                entry.refusals_config = entry.config;
                entry.healthy_at_first_refusal = healthy;
            }
            ++entry.refusals;
        }
        if (was_probe)
            return count_failure(number, cause);
        if (open) {
            if (retry_after(cause) > 0ms)
                probe_at = std::max(probe_at, time + std::min<milliseconds>(retry_after(cause), 5s));
            return;
        }
        if (entry.healthy_at_last_failure && healthy > *entry.healthy_at_last_failure)
            entry.at_fault = true;
        entry.healthy_at_last_failure = healthy;
        if (!entry.at_fault && entry.config == config)
            count_failure(number, cause);
    }
    void succeed(const request& entry, bool was_probe) {
        ++healthy;
        failures_in_a_row = 0;
        failed_in_a_row.clear();
        proven = proven || entry.config == config;
        if (was_probe) {
            open = false;
            delay = delay_429 = 0ms;
            window = 1;
            window_responses = 0;
        } else if (!open && window < options.max_in_flight) {
            ++window_responses;
            if (!ever_opened || window_responses == window) {
                ++window;
                window_responses = 0;
            }
        }
    }

    /// Returns how the request ends, or nullopt.
    std::optional<request_outcome> complete(request_number number, const std::optional<pl::error>& cause) {
        request& entry = requests.at(number);
        entry.in_flight = false;
        const bool was_probe = probe == number;
        if (was_probe)
            probe.reset();
        std::optional<request_outcome> outcome;
        if (!cause || (cause->failure != pl::failure::cancelled && !cause->is_service_failure())) {
            succeed(entry, was_probe);
            outcome = !cause                                        ? request_outcome::delivered
                      : cause->code == pl::errc::malformed_response ? request_outcome::failed
                                                                    : request_outcome::rejected;
        } else {
            if (cause->failure != pl::failure::cancelled)
                fail(number, *cause, was_probe);
            else if (was_probe)
                wait_for_probe(0ms);
            const pl::retry_policy& policy = options.retry;
            const milliseconds wait = own_wait(entry, *cause);
            if (entry.discarded)
                outcome = request_outcome::cancelled;
            else if (is_refusal(*cause) && entry.refusals >= 3 && healthy > entry.healthy_at_first_refusal)
                outcome = request_outcome::rejected;
            else if (cause->maybe_delivered &&
                     !((entry.idempotent || options.repeat_logs) && policy.retry_maybe_delivered))
                outcome = request_outcome::failed;
            else if (policy.max_attempts != 0 && entry.attempts >= policy.max_attempts)
                outcome = request_outcome::failed;
            else if (policy.max_age && time - entry.created + wait > *policy.max_age)
                outcome = request_outcome::expired;
            entry.due = time + wait;
            entry.releases = releases;
        }
        if (outcome)
            end(number, *outcome, false);
        return outcome;
    }

    void retry_now() {
        probe_at = time;
        probe.reset();
        released_at = time;
        ++releases;
    }
    void reconfigure() {
        probe_at = time;
        probe.reset();
        ++config;
        proven = false;
        failures_in_a_row = 0;
        failed_in_a_row.clear();
    }
    void discard() {
        for (auto each = requests.begin(); each != requests.end();) {
            const auto [number, entry] = *each++;
            if (!entry.in_flight)
                end(number, request_outcome::cancelled, true);
            else
                requests.at(number).discarded = true;
        }
    }
};

class simulation {
    enum class weather { fine, no_network, busy, failing, revoked, refusing, last = refusing };

    std::function<std::uint64_t(std::uint64_t)> up_to_;
    model model_;
    pl::outbox outbox_;
    milliseconds shown_ = model_.time; // by the clock, which jumps
    request_number last_completed_ = 0;
    weather weather_ = weather::fine;

    std::uint64_t up_to(std::uint64_t most) { return up_to_(most); }
    bool one_in(std::uint64_t count) { return up_to(count - 1) == 0; }
    pl::outbox::time_point now() const { return pl::outbox::time_point{shown_}; }

    pl::queue_options some_options() {
        pl::queue_options options;
        options.max_requests = 1 + up_to(59);
        options.max_bytes = 2'000 + up_to(19'999);
        options.max_in_flight = one_in(3) ? 30 : up_to(6);
        options.drop_oldest = one_in(2);
        options.retry = pl::background_retry_policy();
        options.retry.max_attempts = one_in(2) ? 0 : 4;
        options.retry.initial_delay = one_in(4) ? 0ms : one_in(2) ? 2s : 300ms;
        options.retry.max_delay = one_in(2) ? 5min : 7s;
        options.retry.max_retry_after = one_in(2) ? 1h : 3s;
        if (one_in(2))
            options.retry.max_age = one_in(2) ? 24h : 10min;
        options.retry.retry_maybe_delivered = !one_in(4);
        options.repeat_logs = one_in(4);
        return options;
    }

    void pass(milliseconds by) {
        shown_ += by;
        model_.time += std::max(by, 0ms);
        std::ignore = outbox_.next_due(now()); // the outbox sees every jump
    }

    void push() {
        const std::size_t size = up_to(one_in(50) ? 30'000 : 1'500);
        const bool idempotent = !one_in(4);
        pl::prepared_request request{"/", std::string(size, 'x'), idempotent};
        request_number number = model_.last_number + 1;
        const bool is_accepted = model_.accepts(size + 1);
        const auto pushed = [&] {
            if (one_in(2))
                return outbox_.push(std::move(request), now());
            const auto reserved = outbox_.reserve(request);
            if (reserved)
                expect(outbox_.reserve(request).value() == ++number, "reserves ascending numbers");
            return reserved ? outbox_.push(number, std::move(request), now()) : reserved;
        }();
        expect(pushed.has_value() == is_accepted, "accepts exactly the requests that fit");
        if (!pushed)
            return expect(pushed.error().code == pl::errc::queue_full, "reports that it is full");
        expect(*pushed == number, "returns ascending numbers");
        model_.last_number = number;
        model_.push(number, size + 1, idempotent);
    }

    void restore() {
        const request_number number = 1 + up_to(model_.last_number + 2);
        const std::size_t size = up_to(300);
        const milliseconds age{up_to(100'000'000)};
        const bool idempotent = !one_in(4);
        outbox_.restore(number, {"/", std::string(size, 'x'), idempotent}, age, now());
        model_.restore(number, size + 1, idempotent, age);
    }

    void take() {
        const auto expected = model_.next_due();
        const auto due = outbox_.next_due(now());
        expect(due.has_value() == expected.has_value(), "next_due reports whether time alone is awaited");
        expect(!due || *due - now() == *expected - model_.time, "next_due reports the earliest time");
        const auto taken = outbox_.take(now());
        expect(taken.has_value() == (expected && *expected <= model_.time),
               "returns a request exactly if one is due");
        if (!taken)
            return;
        expect(model_.may_take(taken->number), "returns the request that is due first, or a new probe");
        model_.take(taken->number);
        const model::request& entry = model_.requests.at(taken->number);
        expect(taken->request.body.size() + 1 == entry.size, "returns the request as it was pushed");
        expect(taken->attempt == entry.attempts, "counts the attempts");
    }

    std::optional<pl::error> response() {
        pl::error cause{.code = pl::errc::transport};
        const auto respond = [&](pl::errc code, int status) {
            cause.code = code;
            cause.status = status;
            if (one_in(8))
                cause.retry_after = std::chrono::seconds{static_cast<int>(up_to(5'000)) - 10};
            return cause;
        };
        const auto chosen =
            one_in(10) ? static_cast<weather>(up_to(static_cast<std::uint64_t>(weather::last))) : weather_;
        switch (chosen) {
        case weather::fine: return std::nullopt;
        case weather::no_network:
            cause.failure = static_cast<pl::failure>(up_to(6));
            cause.maybe_delivered = one_in(2);
            return cause;
        case weather::busy: return respond(pl::errc::rate_limited, 429);
        case weather::failing: return respond(pl::errc::server_error, one_in(3) ? 501 : 503);
        case weather::revoked:
            return one_in(9) ? pl::error{.code = pl::errc::invalid_config}
                             : respond(pl::errc::unauthorized, one_in(2) ? 401 : 403);
        case weather::refusing:
            return respond(one_in(2) ? pl::errc::unprocessable : pl::errc::malformed_response,
                           one_in(2) ? 422 : 200);
        }
        return std::nullopt;
    }

    void complete() {
        std::vector<request_number> in_flight;
        for (const auto& [number, entry] : model_.requests)
            if (entry.in_flight)
                in_flight.push_back(number);
        const auto completed = model_.requests.find(last_completed_);
        if (in_flight.empty() ||
            (one_in(20) && (completed == model_.requests.end() || !completed->second.in_flight)))
            return expect(
                !outbox_.complete(in_flight.empty() ? 1'000'000'000 : last_completed_, std::nullopt, now()),
                "ignores a completion of a request that is not in flight");
        const request_number number = last_completed_ = in_flight[up_to(in_flight.size() - 1)];
        const auto cause = response();
        model_.random = one_in(10)   ? 0.0
                        : one_in(10) ? 1.0
                                     : static_cast<double>(up_to(1'000'000)) / 1'000'000;
        const auto finished = outbox_.complete(number, cause, now());
        const auto expected = model_.complete(number, cause);
        expect(finished.has_value() == expected.has_value(), "ends exactly the requests that must end");
        expect(!finished || (finished->number == number && finished->outcome == *expected),
               "ends with the right outcome");
        expect(!finished || finished->error.has_value() == cause.has_value(), "reports the last error");
    }

    void take_finished() {
        const auto finished = outbox_.take_finished();
        expect(finished.has_value() == !model_.finished.empty(), "returns what was dropped or cancelled");
        if (!finished)
            return;
        const model::ended expected = model_.finished.front();
        model_.finished.pop_front();
        expect(finished->number == expected.number && finished->outcome == expected.outcome &&
                   finished->request.body.size() + 1 == expected.size,
               "returns it in order");
    }

    void cancel() {
        const request_number number = 1 + up_to(model_.last_number + 1);
        const auto entry = model_.requests.find(number);
        const bool is_waiting = entry != model_.requests.end() && !entry->second.in_flight;
        expect(outbox_.cancel(number) == is_waiting, "cancels exactly what waits");
        if (is_waiting)
            model_.end(number, request_outcome::cancelled, true);
    }

    void check() {
        pl::outbox_stats expected = model_.counts;
        expected.in_flight = model_.in_flight();
        expected.waiting = model_.requests.size() - expected.in_flight;
        const pl::outbox_stats actual = outbox_.stats();
        expect(actual == expected, "the counts agree");
        expect(actual.pushed == actual.waiting + actual.in_flight + actual.delivered + actual.rejected +
                                    actual.failed + actual.expired + actual.dropped + actual.cancelled +
                                    actual.returned,
               "the counts add up");
        expect(outbox_.bytes() == model_.bytes(), "the bytes agree");
        expect(actual.in_flight <= std::max<std::size_t>(model_.options.max_in_flight, 1),
               "the requests in flight stay within their limit");
        expect(outbox_.is_paused() == model_.paused, "the pause agrees");
        expect(outbox_.outage_cause().has_value() == model_.open, "the circuit breaker agrees");
        expect(outbox_.has_finished() == !model_.finished.empty(), "the finished requests agree");
    }

    void run_rare_event() {
        if (one_in(50))
            pass(milliseconds{up_to(100'000'000)} * (one_in(2) ? 1 : -1));
        if (one_in(20))
            weather_ = static_cast<weather>(up_to(static_cast<std::uint64_t>(weather::last)));
        if (one_in(30))
            outbox_.pause(), model_.paused = true;
        if (one_in(10))
            outbox_.resume(), model_.paused = false;
        if (one_in(20))
            outbox_.retry_now(now()), model_.retry_now();
        if (one_in(40))
            outbox_.reconfigure(now()), model_.reconfigure();
        if (one_in(150))
            outbox_.discard(), model_.discard();
        if (one_in(10))
            restore();
        if (one_in(4))
            cancel();
    }

public:
    /// `up_to(n)` returns numbers from 0 to n.
    explicit simulation(std::function<std::uint64_t(std::uint64_t)> up_to)
        : up_to_(std::move(up_to)), model_{.options = some_options()},
          outbox_(model_.options, [this] { return model_.random; }) {}

    /// Runs events as long as `is_more` returns true. Returns the counts.
    pl::outbox_stats run(const std::function<bool()>& is_more) {
        while (is_more()) {
            switch (up_to(10)) {
            case 0:
            case 1: push(); break;
            case 2:
            case 3:
            case 4: take(); break;
            case 5:
            case 6: complete(); break;
            case 7: pass(milliseconds{up_to(one_in(10) ? 600'000 : 3'000)}); break;
            case 8: take_finished(); break;
            default: run_rare_event();
            }
            check();
        }
        const auto left = outbox_.drain();
        expect(left.size() == model_.requests.size(), "drain returns all requests");
        auto each = left.begin();
        for (const auto& [number, entry] : model_.requests) {
            expect(each->number == number && each->outcome == request_outcome::returned &&
                       each->request.body.size() + 1 == entry.size && each->attempts == entry.attempts,
                   "drain returns the requests in order, unchanged");
            ++each;
        }
        model_.counts.returned = left.size();
        model_.requests.clear();
        model_.closed = true;
        check();
        expect(!outbox_.push({"/", ""}, now()) && !outbox_.take(now()),
               "a drained outbox accepts and returns nothing");
        while (!model_.finished.empty())
            take_finished();
        return outbox_.stats();
    }
};

} // namespace outbox_model

#endif
