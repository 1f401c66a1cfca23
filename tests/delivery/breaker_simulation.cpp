// Simulates one client and a service in virtual time: bad requests, wrong keys, outages, loads and clocks.
// Prints a table of the worst figures. PROMPTLAYER_TEST_SEEDS sets the number of seeds of each cell.

#include <promptlayer/outbox.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <queue>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;

namespace {

constexpr std::array<std::size_t, 4> in_flight_limits{1, 4, 16, 64};
constexpr milliseconds day = 24h;

enum class response_kind {
    success,
    bad_request,
    cancelled,
    reset,
    timeout,
    refused,
    tls,
    unauthorized,
    forbidden,
    rate_limited,
    rate_limited_5s,
    rate_limited_1h,
    failed,
    unavailable,
    unavailable_60s,
};

const char* name_of(response_kind kind) {
    constexpr std::array names{"200", "400", "cancelled", "reset",    "timeout", "refused", "TLS",      "401",
                               "403", "429", "429, 5 s",  "429, 1 h", "500",     "503",     "503, 60 s"};
    return names.at(static_cast<std::size_t>(kind));
}

std::optional<pl::error> error_of(response_kind kind) {
    pl::error error{.code = pl::errc::unexpected_status};
    const auto fail = [&](pl::failure failure) {
        error.code = pl::errc::transport;
        error.failure = failure;
        return error;
    };
    const auto respond = [&](int status, std::chrono::seconds retry_after = 0s) {
        error.status = status;
        if (retry_after != 0s)
            error.retry_after = retry_after;
        return error;
    };
    switch (kind) {
    case response_kind::success: break;
    case response_kind::bad_request: error.code = pl::errc::bad_request; return respond(400);
    case response_kind::cancelled: return fail(pl::failure::cancelled);
    case response_kind::reset: return fail(pl::failure::reset);
    case response_kind::timeout: return fail(pl::failure::timeout);
    case response_kind::refused: return fail(pl::failure::connect);
    case response_kind::tls: return fail(pl::failure::tls);
    case response_kind::unauthorized: return respond(401);
    case response_kind::forbidden: return respond(403);
    case response_kind::rate_limited: return respond(429);
    case response_kind::rate_limited_5s: return respond(429, 5s);
    case response_kind::rate_limited_1h: return respond(429, 1h);
    case response_kind::failed: return respond(500);
    case response_kind::unavailable: return respond(503);
    case response_kind::unavailable_60s: return respond(503, 60s);
    }
    return std::nullopt;
}

struct response {
    response_kind kind = response_kind::success;
    milliseconds latency = 50ms;
};

response response_of(response_kind kind) {
    switch (kind) {
    case response_kind::timeout: return {kind, 10s};
    case response_kind::reset:
    case response_kind::refused:
    case response_kind::tls: return {kind, 20ms};
    default: return {kind, 50ms};
    }
}

struct push {
    milliseconds when{0};
    response_kind kind = response_kind::success; // of each response to the request, if the service works
};

/// What became of a request.
struct history {
    push pushed{};
    std::uint32_t attempts = 0;
    milliseconds sent{-1};   // the last time
    milliseconds failed{-1}; // the last time
    milliseconds due{-1};    // after its last failure
    milliseconds ended{-1};
    int attempts_after_a_day = 0;
    std::optional<pl::request_outcome> outcome{};
};

int seeds(int usual) {
    const char* const given = std::getenv("PROMPTLAYER_TEST_SEEDS");
    return given ? std::atoi(given) : usual;
}

/// One client with an outbox, and its service.
class client {
    struct event {
        milliseconds when;
        std::uint64_t order;
        pl::request_number number;
        response_kind kind;

        bool operator>(const event& other) const {
            return std::tie(when, order) > std::tie(other.when, other.order);
        }
    };

    std::mt19937_64 random_;
    double last_random_ = 0;
    milliseconds now_{0}, wake_ = milliseconds::max();
    std::priority_queue<event, std::vector<event>, std::greater<>> responses_{};
    std::uint64_t order_ = 0;
    std::size_t next_push_ = 0;
    pl::retry_policy policy_;

    pl::outbox::time_point clock() const { return pl::outbox::time_point{time_of(now_)}; }

    history& of(pl::request_number number) { return requests[static_cast<std::size_t>(number - 1)]; }

    void push_next() {
        const push& next = pushes[next_push_++];
        requests.push_back({.pushed = next});
        REQUIRE(box.push({"/rest/track-prompt", "{}"}, clock()).value() == requests.size());
    }

    void complete(const event& completed) {
        const bool was_open = box.outage_cause().has_value();
        const auto error = error_of(completed.kind);
        history& request = of(completed.number);
        if (error)
            request.failed = now_;
        if (const auto finished = box.complete(completed.number, error, clock())) {
            request.ended = now_;
            request.outcome = finished->outcome;
        } else {
            request.due = now_ +
                          std::max(100ms, pl::detail::backoff(policy_, request.attempts, last_random_)) +
                          pl::detail::capped_retry_after(policy_, *error);
        }
        outages += !was_open && box.outage_cause() ? 1 : 0;
        recoveries += was_open && !box.outage_cause() ? 1 : 0;
    }

    void send_due() {
        while (const auto due = box.take(clock())) {
            history& request = of(due->number);
            request.attempts = due->attempt;
            request.sent = now_;
            request.attempts_after_a_day += now_ - request.pushed.when > day ? 1 : 0;
            ++attempts;
            if (on_send)
                on_send(request, now_);
            const response next = service(now_, request);
            responses_.push({now_ + next.latency, order_++, due->number, next.kind});
        }
        const auto due = box.next_due(clock());
        wake_ = due ? std::max(now_ + 1ms, std::chrono::ceil<milliseconds>(*due - clock()) + now_)
                    : milliseconds::max();
    }

public:
    pl::outbox box;
    std::vector<push> pushes{}; // by time
    std::function<response(milliseconds, const history&)> service = [](milliseconds, const history& request) {
        return response_of(request.pushed.kind);
    };
    std::function<milliseconds(milliseconds)> time_of = [](milliseconds now) { return now; };
    std::function<void(const history&, milliseconds)> on_send{};
    std::optional<double> fixed_random{}; // of the outbox
    std::vector<history> requests{};
    std::uint64_t attempts = 0;
    int outages = 0, recoveries = 0;

    client(std::size_t max_in_flight, int seed, pl::retry_policy policy = pl::background_retry_policy())
        : random_(static_cast<std::uint64_t>(seed)), policy_(policy),
          box({.max_requests = 1'000'000, .max_in_flight = max_in_flight, .retry = policy}, [this] {
              last_random_ = static_cast<double>(random_() >> 11) * 0x1p-53;
              return last_random_ = fixed_random.value_or(last_random_);
          }) {}
    client(const client&) = delete;
    client& operator=(const client&) = delete;

    milliseconds now() const { return now_; }

    void push_all(std::size_t count, milliseconds when = 0ms, response_kind kind = response_kind::success) {
        pushes.insert(pushes.end(), count, push{when, kind});
    }

    /// Runs until nothing can happen any more, or until `end`.
    void run(milliseconds end = 30 * day) {
        for (;;) {
            milliseconds next = wake_;
            if (next_push_ < pushes.size())
                next = std::min(next, pushes[next_push_].when);
            if (!responses_.empty())
                next = std::min(next, responses_.top().when);
            if (next == milliseconds::max() || next > end)
                break;
            now_ = std::max(now_, next);
            while (next_push_ < pushes.size() && pushes[next_push_].when <= now_)
                push_next();
            while (!responses_.empty() && responses_.top().when <= now_) {
                const event completed = responses_.top();
                responses_.pop();
                complete(completed);
            }
            send_due();
        }
        now_ = std::max(now_, end == 30 * day ? now_ : end);
    }

    void reconfigure() {
        box.reconfigure(clock());
        send_due();
    }

    void retry_now() {
        box.retry_now(clock());
        send_due();
    }

    std::size_t count(pl::request_outcome outcome, bool good) const {
        return static_cast<std::size_t>(std::count_if(requests.begin(), requests.end(), [&](auto& request) {
            return request.outcome == outcome && (request.pushed.kind == response_kind::success) == good;
        }));
    }

    std::size_t delivered() const { return count(pl::request_outcome::delivered, true); }

    /// Returns when the last good request was delivered, or `milliseconds::max()` if one was not.
    milliseconds last_delivery() const {
        milliseconds last{0};
        for (const history& request : requests)
            if (request.pushed.kind == response_kind::success)
                last =
                    std::max(last, request.outcome == pl::request_outcome::delivered ? request.ended
                                                                                     : milliseconds::max());
        return last;
    }
};

double in_seconds(milliseconds time) { return static_cast<double>(time.count()) / 1'000; }

enum class position { head, spread, end };

/// Puts bad requests among good ones.
std::vector<push> mix(std::size_t good, std::size_t bad, response_kind kind, position where) {
    std::vector<push> pushes(good + bad);
    for (std::size_t i = 0; i < bad; ++i) {
        const std::size_t spread = (2 * i + 1) * (good + bad) / (2 * bad);
        pushes[where == position::head ? i : where == position::spread ? spread : good + i].kind = kind;
    }
    return pushes;
}

/// Runs 1,000 good requests and some bad ones, and checks how each bad one ends.
milliseconds run_mix(std::size_t bad, response_kind kind, position where, std::size_t max_in_flight,
                     int seed) {
    client simulated{max_in_flight, seed};
    simulated.pushes = mix(1'000, bad, kind, where);
    simulated.run();
    const bool is_refusal = kind == response_kind::unauthorized || kind == response_kind::forbidden;
    for (const history& request : simulated.requests) {
        if (request.pushed.kind == response_kind::success)
            continue;
        if (kind == response_kind::bad_request) {
            CHECK(request.outcome == pl::request_outcome::rejected);
            CHECK(request.attempts == 1);
        } else if (is_refusal && where != position::end) {
            CHECK(request.outcome == pl::request_outcome::rejected);
            CHECK(request.attempts >= 3);
            if (bad == 1)
                CHECK(request.attempts == 3);
        } else if (!is_refusal || request.outcome != pl::request_outcome::rejected) {
            CHECK(request.outcome == pl::request_outcome::expired);
            CHECK(request.attempts_after_a_day <= 1);
            CHECK(request.ended > day - 10min);
        }
    }
    return simulated.last_delivery();
}

void check_bad_requests(std::size_t bad, const std::vector<response_kind>& kinds,
                        const std::vector<position>& positions, milliseconds limit_of_one,
                        milliseconds limit) {
    std::printf("\n| %zu bad of 1,000 | 1 in flight | 4 | 16 | 64 |\n|---|---|---|---|---|\n", bad);
    for (const response_kind kind : kinds) {
        std::printf("| %s |", name_of(kind));
        for (const std::size_t max_in_flight : in_flight_limits) {
            milliseconds worst{0};
            for (const position where : positions)
                for (int seed = 1; seed <= seeds(20); ++seed)
                    worst = std::max(worst, run_mix(bad, kind, where, max_in_flight, seed));
            std::printf(" %.1f s |", in_seconds(worst));
            CAPTURE(name_of(kind));
            CAPTURE(max_in_flight);
            CHECK(worst <= (max_in_flight == 1 ? limit_of_one : limit));
        }
        std::puts("");
    }
}

const std::vector<response_kind> bad_kinds{
    response_kind::reset,     response_kind::timeout,      response_kind::unauthorized,
    response_kind::forbidden, response_kind::rate_limited, response_kind::rate_limited_5s,
    response_kind::failed,    response_kind::unavailable,  response_kind::tls,
    response_kind::cancelled, response_kind::bad_request};
const std::vector<position> all_positions{position::head, position::spread, position::end};

/// The attempts of an outage from `begin`.
struct outage_figures {
    std::uint64_t attempts = 0;
    milliseconds last_delivery{0}; // after the end
};

outage_figures run_outage(response_kind kind, std::size_t queued, std::size_t max_in_flight,
                          milliseconds begin, milliseconds duration, int seed) {
    client simulated{max_in_flight, seed};
    outage_figures figures;
    simulated.service = [&](milliseconds now, const history&) {
        const bool is_out = now >= begin && now < begin + duration;
        figures.attempts += is_out ? 1 : 0;
        return is_out ? response_of(kind) : response{};
    };
    if (begin > 0ms)
        simulated.push_all(1'500); // so that the window is full when the outage begins
    simulated.push_all(queued, begin);
    simulated.run();
    CHECK(simulated.delivered() == simulated.pushes.size());
    CHECK(simulated.outages == simulated.recoveries);
    figures.last_delivery = simulated.last_delivery() - begin - duration;
    return figures;
}

} // namespace

TEST_CASE("breaker: one bad request among 1,000 delays the others by at most 25 s") {
    check_bad_requests(1, bad_kinds, all_positions, 65s, 25s);
}

TEST_CASE("breaker: ten bad requests among 1,000 delay the others by at most 160 s") {
    check_bad_requests(10, bad_kinds, all_positions, 160s, 160s);
}

TEST_CASE("breaker: fifty bad requests in front of 1,000 delay the others by at most 60 s") {
    check_bad_requests(50, {response_kind::failed}, {position::head}, 100s, 60s);
}

TEST_CASE("breaker: a wrong key costs at most 150 attempts in 12 hours and loses nothing") {
    std::puts(
        "\n| wrong key for 12 h | attempts from the start | attempts if it begins later |\n|---|---|---|");
    for (const response_kind kind : {response_kind::unauthorized, response_kind::forbidden})
        for (const std::size_t max_in_flight : in_flight_limits) {
            std::printf("| %s, %zu in flight |", name_of(kind), max_in_flight);
            for (const milliseconds begin : {0ms, 1'010ms}) {
                std::uint64_t worst = 0;
                for (int seed = 1; seed <= seeds(5); ++seed) {
                    client simulated{max_in_flight, seed};
                    std::uint64_t attempts = 0;
                    simulated.service = [&](milliseconds now, const history&) {
                        const bool is_wrong = now >= begin && now < begin + 12h;
                        attempts += is_wrong ? 1 : 0;
                        return is_wrong ? response_of(kind) : response{};
                    };
                    simulated.push_all(10'000);
                    simulated.run(begin + 12h);
                    CHECK(simulated.outages == 1);
                    CHECK(simulated.recoveries == 0);
                    simulated.reconfigure();
                    simulated.run();
                    CHECK(simulated.outages == 1);
                    CHECK(simulated.recoveries == 1);
                    CHECK(simulated.delivered() == 10'000);
                    worst = std::max(worst, attempts);
                }
                CHECK(worst <= 150 + (begin == 0ms ? 0 : max_in_flight));
                std::printf(" %llu |", static_cast<unsigned long long>(worst));
            }
            std::puts("");
        }
}

TEST_CASE("breaker: one TLS failure delays the others for at most 4 s") {
    std::puts("\n| one TLS failure | 1 in flight | 4 | 16 | 64 |\n|---|---|---|---|---|");
    for (const std::size_t queued : {1U, 100U}) {
        std::printf("| %zu queued |", queued);
        for (const std::size_t max_in_flight : in_flight_limits) {
            milliseconds worst{0};
            for (int seed = 1; seed <= seeds(500); ++seed) {
                client simulated{max_in_flight, seed};
                simulated.service = [&](milliseconds, const history&) {
                    return response_of(simulated.attempts == 1 ? response_kind::tls : response_kind::success);
                };
                simulated.push_all(queued);
                simulated.run();
                worst = std::max(worst, simulated.last_delivery());
            }
            std::printf(" %.1f s |", in_seconds(worst));
            CHECK(worst <= 4s + 50ms * (queued - 1) / max_in_flight);
        }
        std::puts("");
    }
}

TEST_CASE("breaker: an outage of an hour costs at most 40 attempts and loses nothing") {
    std::puts(
        "\n| outage of 1 h | 1 in flight | 4 | 16 | 64 | 1, begins later | 4 | 16 | 64 | delivered after |\n"
        "|---|---|---|---|---|---|---|---|---|---|");
    for (const response_kind kind :
         {response_kind::refused, response_kind::timeout, response_kind::unavailable,
          response_kind::unavailable_60s, response_kind::rate_limited, response_kind::tls})
        for (const std::size_t queued : {1U, 5U, 100U, 10'000U}) {
            std::printf("| %s, %zu queued |", name_of(kind), queued);
            milliseconds delivered{0};
            for (const milliseconds begin : {0ms, 1'000ms})
                for (const std::size_t max_in_flight : in_flight_limits) {
                    std::uint64_t worst = 0;
                    for (int seed = 1; seed <= seeds(queued == 10'000 ? 2 : 20); ++seed) {
                        const auto figures = run_outage(kind, queued, max_in_flight, begin, 1h, seed);
                        worst = std::max(worst, figures.attempts);
                        delivered = std::max(delivered, figures.last_delivery);
                    }
                    std::printf(" %llu |", static_cast<unsigned long long>(worst));
                    CAPTURE(name_of(kind));
                    CAPTURE(queued);
                    CAPTURE(max_in_flight);
                    CHECK(worst <= 40 + (begin == 0ms ? 0 : max_in_flight));
                }
            std::printf(" %.0f s |\n", in_seconds(delivered));
        }
}

TEST_CASE("breaker: an outage of 25 hours and a clock that jumps end only requests that were tried") {
    std::puts(
        "\n| 10,000 queued | expired, mean | most | attempts | delivered after |\n|---|---|---|---|---|");
    const auto run = [](const char* what, milliseconds outage, milliseconds jump) {
        for (const std::size_t max_in_flight : in_flight_limits) {
            std::size_t expired = 0, most_expired = 0;
            std::uint64_t attempts = 0;
            milliseconds last{0};
            const int runs = seeds(10);
            for (int seed = 1; seed <= runs; ++seed) {
                client simulated{max_in_flight, seed};
                simulated.time_of = [&](milliseconds now) {
                    return now < 30min ? now + 2h : now + 2h + jump;
                };
                std::uint64_t outage_attempts = 0;
                std::size_t late_attempts = 0; // that fail when the request is older than a day
                simulated.service = [&](milliseconds now, const history&) {
                    if (now >= outage)
                        return response{};
                    ++outage_attempts;
                    const milliseconds age = simulated.time_of(now) - simulated.time_of(0ms);
                    late_attempts += age + 10min > day ? 1U : 0U;
                    return response_of(response_kind::unavailable);
                };
                simulated.push_all(10'000);
                simulated.run();
                const std::size_t lost = simulated.count(pl::request_outcome::expired, true);
                CHECK(simulated.delivered() + lost == 10'000);
                CHECK(lost <= late_attempts);
                expired += lost;
                most_expired = std::max(most_expired, lost);
                attempts = std::max(attempts, outage_attempts);
                for (const history& request : simulated.requests)
                    if (request.outcome == pl::request_outcome::delivered)
                        last = std::max(last, request.ended - outage);
            }
            std::printf("| %s, %zu in flight | %.1f | %zu | %llu | %.0f s |\n", what, max_in_flight,
                        static_cast<double>(expired) / runs, most_expired,
                        static_cast<unsigned long long>(attempts), in_seconds(last));
            CHECK(most_expired <= (outage > day ? 16U : jump > day ? 10U : 0U)); // a probe each 5.5 minutes
            CHECK(last <= 8min + 10'000 * 60ms / max_in_flight);                 // the last wait, then all
        }
    };
    run("outage of 25 h", 25h, 0ms);
    run("outage of 1 h", 1h, 0ms);
    run("outage of 1 h, clock jumps 25 h ahead", 1h, 25h);
    run("outage of 1 h, clock jumps 1 h ahead", 1h, 1h);
    run("outage of 1 h, clock jumps 1 h back", 1h, -1h);
}

TEST_CASE("breaker: 10,000 requests are delivered within 600 s although 30% of attempts fail") {
    std::puts(
        "\n| 30% answered 503, 10,000 queued | 99.9%, worst seed | all, median seed | all, worst seed |\n"
        "|---|---|---|---|");
    for (const std::size_t max_in_flight : in_flight_limits) {
        std::vector<milliseconds> most, all;
        for (int seed = 1; seed <= seeds(20); ++seed) {
            client simulated{max_in_flight, seed};
            std::mt19937_64 random{static_cast<std::uint64_t>(seed) + 1'000};
            simulated.service = [&](milliseconds, const history&) {
                return response_of(random() % 100 < 30 ? response_kind::unavailable : response_kind::success);
            };
            simulated.push_all(10'000);
            simulated.run();
            std::vector<milliseconds> ends;
            for (const history& request : simulated.requests)
                ends.push_back(request.ended);
            std::sort(ends.begin(), ends.end());
            CHECK(simulated.delivered() == 10'000);
            most.push_back(ends[9'990]);
            all.push_back(ends.back());
        }
        std::sort(most.begin(), most.end());
        std::sort(all.begin(), all.end());
        std::printf("| %zu in flight | %.0f s | %.0f s | %.0f s |\n", max_in_flight, in_seconds(most.back()),
                    in_seconds(all[all.size() / 2]), in_seconds(all.back()));
        // One by one, the responses alone take 714 s. A request that fails eight times in a row waits for up
        // to 510 s by its own policy.
        CHECK(most.back() <= (max_in_flight == 1 ? 1'200s : 600s));
        CHECK(all[all.size() / 2] <= (max_in_flight == 1 ? 1'200s : 600s));
        CHECK(all.back() <= 1'500s);
    }
}

TEST_CASE("breaker: a failed request is sent again in time, also under full load") {
    std::puts("\n| load, 20% of first attempts fail | latest repetition after it was due, 1 in flight | 4 | "
              "16 | 64 "
              "|\n|---|---|---|---|---|");
    for (const int load : {80, 105}) {
        std::printf("| %d%% |", load);
        for (const std::size_t max_in_flight : in_flight_limits) {
            milliseconds worst{0};
            for (int seed = 1; seed <= seeds(20); ++seed) {
                client simulated{max_in_flight, seed};
                std::mt19937_64 random{static_cast<std::uint64_t>(seed) + 1'000};
                simulated.service = [&](milliseconds, const history& request) {
                    return response_of(request.attempts == 1 && random() % 100 < 20 ? response_kind::failed
                                                                                    : response_kind::success);
                };
                simulated.on_send = [&](const history& request, milliseconds now) {
                    if (request.due >= 0ms)
                        worst = std::max(worst, now - request.due);
                };
                const auto per_minute = 60'000 / 50 * max_in_flight * static_cast<std::size_t>(load) / 120;
                for (std::size_t i = 0; i < 2 * per_minute; ++i)
                    simulated.pushes.push_back({milliseconds{i * 60'000 / per_minute}});
                simulated.run();
                CHECK(simulated.delivered() == simulated.pushes.size());
            }
            std::printf(" %.1f s |", in_seconds(worst));
            CHECK(worst <= 10s);
        }
        std::puts("");
    }
}

TEST_CASE("breaker: without an initial delay, at most 11 attempts a second are made") {
    std::puts("\n| initial_delay 0, refused in 1 ms | 1 in flight | 4 | 16 | 64 |\n|---|---|---|---|---|");
    std::printf("| attempts in the worst second |");
    for (const std::size_t max_in_flight : in_flight_limits) {
        std::size_t worst = 0;
        for (const std::size_t queued : {1U, 2U, 4U, 5U, 100U})
            for (int seed = 1; seed <= seeds(20); ++seed) {
                pl::retry_policy policy = pl::background_retry_policy();
                policy.initial_delay = 0ms;
                client simulated{max_in_flight, seed, policy};
                simulated.service = [](milliseconds, const history&) {
                    return response{response_kind::refused, 1ms};
                };
                std::vector<milliseconds> sent;
                simulated.on_send = [&](const history&, milliseconds now) { sent.push_back(now); };
                simulated.push_all(queued);
                simulated.run(1min);
                for (auto first = sent.begin(); first != sent.end(); ++first)
                    worst = std::max(worst, static_cast<std::size_t>(
                                                std::lower_bound(first, sent.end(), *first + 1s) - first));
            }
        std::printf(" %zu |", worst);
        CHECK(worst <= 11);
    }
    std::puts("");
}

TEST_CASE("breaker: one request that is always answered 429 for an hour delays no other by 10 s") {
    std::puts("\n| one 429 with Retry-After: 3600, a good request every 10 s | 1 in flight | 4 | 16 | 64 |\n"
              "|---|---|---|---|---|");
    std::printf("| longest wait of a good one |");
    for (const std::size_t max_in_flight : in_flight_limits) {
        milliseconds worst{0};
        for (int seed = 1; seed <= seeds(20); ++seed) {
            client simulated{max_in_flight, seed};
            simulated.pushes.push_back({0ms, response_kind::rate_limited_1h});
            for (milliseconds when = 100ms; when < 12h; when += 10s)
                simulated.pushes.push_back({when});
            simulated.run(13h);
            for (const history& request : simulated.requests)
                if (request.pushed.kind == response_kind::success) {
                    CHECK(request.outcome == pl::request_outcome::delivered);
                    worst = std::max(worst, request.sent - request.pushed.when);
                }
        }
        std::printf(" %.1f s |", in_seconds(worst));
        CHECK(worst <= 10s);
    }
    std::puts("");
}

TEST_CASE("breaker: retry_now delivers at once during the wait for a probe") {
    for (const std::size_t max_in_flight : in_flight_limits) {
        client simulated{max_in_flight, 1};
        simulated.service = [](milliseconds now, const history&) {
            return response_of(now < 1h ? response_kind::timeout : response_kind::success);
        };
        simulated.push_all(100);
        simulated.run(1h);
        simulated.retry_now();
        simulated.run();
        CHECK(simulated.last_delivery() <= 1h + 10s + 50ms * 101);
    }
}

TEST_CASE("breaker: after an hour of any responses, a healthy service gets every good request in time") {
    using adversary = response_kind (*)(std::uint64_t random, std::uint64_t count, const history& request);
    struct row {
        const char* name;
        adversary respond;
        milliseconds limit; // from the end of the hour
    };
    // A request waits for up to 5 min itself. The breaker waits for up to 8 min for the probe that closes it,
    // or longer if the probe is one of the three bad requests.
    const row rows[] = {
        {"any response",
         [](std::uint64_t random, std::uint64_t, const history&) {
             return static_cast<response_kind>(random % 15);
         },
         1h + 5min},
        {"any but 429 for 1 h",
         [](std::uint64_t random, std::uint64_t, const history&) {
             const auto kind = static_cast<response_kind>(random % 15);
             return kind == response_kind::rate_limited_1h ? response_kind::rate_limited : kind;
         },
         15min},
        {"no response", [](std::uint64_t, std::uint64_t, const history&) { return response_kind::timeout; },
         15min},
        {"429 for 60 s, success in between",
         [](std::uint64_t, std::uint64_t count, const history&) {
             return count % 2 == 0 ? response_kind::unavailable_60s : response_kind::success;
         },
         15min},
        {"four failures, then success",
         [](std::uint64_t, std::uint64_t count, const history&) {
             return count % 5 != 4 ? response_kind::failed : response_kind::success;
         },
         15min},
        {"first attempts fail",
         [](std::uint64_t random, std::uint64_t, const history& request) {
             return request.attempts < 2 + random % 5 ? response_kind::reset : response_kind::success;
         },
         15min},
        {"first attempts succeed, later ones fail",
         [](std::uint64_t random, std::uint64_t, const history& request) {
             return request.attempts == 1 && random % 3 != 0 ? response_kind::success
                                                             : response_kind::unavailable;
         },
         15min},
        {"cancelled",
         [](std::uint64_t random, std::uint64_t, const history&) {
             return random % 10 == 0 ? response_kind::rate_limited : response_kind::cancelled;
         },
         15min},
        {"401 and success",
         [](std::uint64_t random, std::uint64_t, const history& request) {
             return random % 2 == 0 || request.attempts >= 2 ? response_kind::success
                                                             : response_kind::unauthorized;
         },
         15min},
    };
    std::puts("\n| responses for 1 h, then three bad requests | last good request delivered after, 1 in "
              "flight | 4 | "
              "16 | 64 |\n|---|---|---|---|---|");
    for (const row& row : rows) {
        std::printf("| %s |", row.name);
        for (const std::size_t max_in_flight : in_flight_limits) {
            milliseconds worst{0};
            for (int seed = 1; seed <= seeds(8); ++seed) {
                client simulated{max_in_flight, seed};
                std::mt19937_64 random{static_cast<std::uint64_t>(seed)};
                constexpr std::optional<double> fixed[] = {std::nullopt, 0.0, 1.0, 0.5};
                simulated.fixed_random = fixed[seed % 4];
                std::uint64_t count = 0;
                simulated.service = [&](milliseconds now, const history& request) {
                    response next =
                        response_of(now < 1h ? row.respond(random(), count++, request) : request.pushed.kind);
                    if (now < 1h && random() % 4 == 0)
                        next.latency = milliseconds{1 + random() % 20'000};
                    return next;
                };
                const std::uint64_t between = seed % 3 == 0 ? 60'000 : 2'000; // milliseconds
                for (milliseconds when{0}; when < 2h; when += milliseconds{1 + random() % between})
                    simulated.pushes.push_back({when});
                for (std::size_t i = 1; i <= 3; ++i)
                    simulated.pushes[i * simulated.pushes.size() / 8].kind = response_kind::unavailable;
                simulated.run(8h);
                for (const history& request : simulated.requests) {
                    if (request.pushed.kind != response_kind::success)
                        continue;
                    CHECK((request.ended >= 0ms && request.outcome != pl::request_outcome::expired));
                    if (request.ended > 1h)
                        worst =
                            std::max(worst, request.ended - std::max<milliseconds>(1h, request.pushed.when));
                }
            }
            std::printf(" %.0f s |", in_seconds(worst));
            CAPTURE(row.name);
            CHECK(worst <= row.limit);
        }
        std::puts("");
    }
}
