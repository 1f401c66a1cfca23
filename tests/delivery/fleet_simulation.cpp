// Simulates 10,000 clients of a service that fails for 10 minutes, in virtual time. Prints a table of the
// README. PROMPTLAYER_TEST_SEEDS sets the number of seeds of each row.

#include <promptlayer/outbox.hpp>

#include <doctest/doctest.h>

#include <algorithm>
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

constexpr std::size_t clients = 10'000;
constexpr milliseconds between_requests = 10s; // of each client, so 1,000 a second in all
constexpr milliseconds outage_begins = 60s, outage_ends = outage_begins + 10min;
constexpr std::size_t capacity = 2'000;   // a second, after the outage; more requests are answered with 429
constexpr milliseconds best_drain = 600s; // with the whole capacity
constexpr milliseconds time_limit = 3h;

struct fleet_result {
    std::size_t peak = 0;            // requests in one second, after the outage
    std::size_t refused = 0;         // 429s
    std::size_t outage_attempts = 0; // of all clients
    milliseconds drained{};          // from the end of the outage until no request waits
    std::uint64_t delivered = 0, lost = 0;
};

pl::error status_error(int status, std::optional<std::chrono::seconds> retry_after = {}) {
    pl::error error{.code = pl::errc::unexpected_status, .status = status};
    error.retry_after = retry_after;
    return error;
}

pl::error transport_error(pl::failure kind) {
    pl::error error{.code = pl::errc::transport};
    error.failure = kind;
    return error;
}

class fleet {
    struct event {
        milliseconds when;
        std::uint64_t order; // makes each run the same
        std::size_t client;
        enum { make, wake, fail, refuse, accept } what;
        pl::request_number request;

        bool operator>(const event& other) const {
            return std::tie(when, order) > std::tie(other.when, other.order);
        }
    };

    std::mt19937_64 random_;
    pl::error outage_;
    milliseconds latency_; // of a response during the outage
    std::vector<pl::outbox> boxes_{};
    std::vector<milliseconds> wakes_ = std::vector<milliseconds>(clients, milliseconds::max());
    std::priority_queue<event, std::vector<event>, std::greater<>> events_{};
    std::uint64_t order_ = 0;
    milliseconds second_{0};
    std::size_t load_ = 0, accepted_ = 0; // in that second
    fleet_result result_{};

    void add(milliseconds when, std::size_t client, decltype(event::what) what,
             pl::request_number request = 0) {
        events_.push({when, order_++, client, what, request});
    }

    void send(milliseconds now, std::size_t client, pl::request_number request) {
        if (now >= second_ + 1s) {
            second_ = now - now % 1s;
            load_ = accepted_ = 0;
        }
        ++load_;
        if (now >= outage_begins && now < outage_ends) {
            ++result_.outage_attempts;
            return add(now + latency_, client, event::fail, request);
        }
        if (now >= outage_ends)
            result_.peak = std::max(result_.peak, load_);
        const bool fits = now < outage_begins || accepted_ < capacity;
        accepted_ += fits ? 1U : 0U;
        result_.refused += fits ? 0U : 1U;
        add(now + 50ms, client, fits ? event::accept : event::refuse, request);
    }

    void handle(const event& next) {
        pl::outbox& box = boxes_[next.client];
        const pl::outbox::time_point now{next.when};
        switch (next.what) {
        case event::make:
            REQUIRE(box.push({"/rest/track-prompt", "{}"}, now).has_value());
            add(next.when + between_requests, next.client, event::make);
            break;
        case event::wake:
            if (wakes_[next.client] != next.when)
                return; // an earlier wake has come
            wakes_[next.client] = milliseconds::max();
            break;
        case event::fail: box.complete(next.request, outage_, now); break;
        case event::refuse: box.complete(next.request, status_error(429), now); break;
        case event::accept: box.complete(next.request, std::nullopt, now); break;
        }
        while (const auto request = box.take(now))
            send(next.when, next.client, request->number);
        if (const auto due = box.next_due(now)) {
            const auto when =
                std::max(std::chrono::ceil<milliseconds>(due->time_since_epoch()), next.when + 1ms);
            if (when < wakes_[next.client])
                add(wakes_[next.client] = when, next.client, event::wake);
        }
    }

    bool is_drained() const {
        return std::all_of(boxes_.begin(), boxes_.end(),
                           [](const pl::outbox& box) { return box.stats().waiting == 0; });
    }

public:
    fleet(pl::error outage, milliseconds latency, std::size_t max_in_flight, int seed)
        : random_(static_cast<std::uint64_t>(seed)), outage_(std::move(outage)), latency_(latency) {
        boxes_.reserve(clients);
        for (std::size_t client = 0; client < clients; ++client) {
            boxes_.emplace_back(pl::queue_options{.max_in_flight = max_in_flight},
                                [this] { return static_cast<double>(random_() >> 11) * 0x1p-53; });
            add(milliseconds{random_() % static_cast<std::uint64_t>(between_requests.count())}, client,
                event::make);
        }
    }
    fleet(const fleet&) = delete;
    fleet& operator=(const fleet&) = delete;

    fleet_result run() {
        milliseconds last_look = outage_ends;
        while (events_.top().when < time_limit) {
            const event next = events_.top();
            events_.pop();
            handle(next);
            if (next.when >= last_look + 1s) {
                last_look = next.when;
                if (is_drained()) {
                    result_.drained = next.when - outage_ends;
                    break;
                }
            }
        }
        for (const pl::outbox& box : boxes_) {
            const pl::outbox_stats stats = box.stats();
            result_.delivered += stats.delivered;
            result_.lost += stats.failed + stats.dropped + stats.rejected + stats.expired;
        }
        return result_;
    }
};

} // namespace

TEST_CASE("fleet: 10,000 clients return after an outage without overload, and lose nothing") {
    struct outage {
        const char* name;
        pl::error error;
        milliseconds latency;
    };
    const outage outages[] = {
        {"connections refused", transport_error(pl::failure::connect), 20ms},
        {"503", status_error(503), 50ms},
        {"503, Retry-After: 60", status_error(503, 60s), 50ms},
        {"no response", transport_error(pl::failure::timeout), 10s},
    };
    const char* const given = std::getenv("PROMPTLAYER_TEST_SEEDS");
    const int seeds = given ? std::atoi(given) : 1;
    std::puts(
        "| service | attempts of a client during the outage | peak after it | answered 429 | drained after "
        "| delivered | lost |\n|---|---|---|---|---|---|---|");
    for (const outage& outage : outages)
        for (int seed = 1; seed <= seeds; ++seed) {
            const fleet_result result = fleet{outage.error, outage.latency, 16, seed}.run();
            const double attempts = static_cast<double>(result.outage_attempts) / clients;
            std::printf("| %s | %.1f | %zu a second | %zu | %lld s | %llu | %llu |\n", outage.name, attempts,
                        result.peak, result.refused, static_cast<long long>(result.drained / 1s),
                        static_cast<unsigned long long>(result.delivered),
                        static_cast<unsigned long long>(result.lost));
            CAPTURE(outage.name);
            CAPTURE(seed);
            CHECK(attempts <= 16);
            CHECK(result.peak * 100 <= capacity * 155);
            CHECK(result.drained > 0s);
            CHECK(result.drained * 100 <= best_drain * 145);
            CHECK(result.lost == 0);
        }
}
