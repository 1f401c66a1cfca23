// Simulates 10,000 clients of a service that returns after an outage, with and without jitter, in virtual
// time. Prints the table of the README.

#include <promptlayer.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <queue>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using promptlayer::outbox;
using milliseconds = std::chrono::milliseconds;

constexpr std::size_t clients = 10'000;
constexpr milliseconds between_requests = 10s; // of each client, so 1,000 a second in all
constexpr milliseconds outage_begins = 60s, outage_ends = outage_begins + 10min;
constexpr std::size_t capacity = 2'000; // a second, after the outage; more requests are answered with 429
constexpr milliseconds time_limit = 3h;

struct fleet_result {
    std::size_t peak = 0;    // requests in one second, after the outage
    std::size_t refused = 0; // 429s
    milliseconds drained{};  // from the end of the outage until no request waits
    std::uint64_t delivered = 0, lost = 0;
};

class fleet {
    struct event {
        milliseconds when;
        std::uint64_t order; // makes each run the same
        std::size_t client;
        enum { make, wake, fail, refuse, accept } what;
        outbox::id request;

        bool operator>(const event& other) const {
            return std::tie(when, order) > std::tie(other.when, other.order);
        }
    };

    std::mt19937_64 random_{1};
    std::vector<outbox> boxes_{};
    std::vector<milliseconds> wakes_ = std::vector<milliseconds>(clients, milliseconds::max());
    std::priority_queue<event, std::vector<event>, std::greater<>> events_{};
    std::uint64_t order_ = 0;
    std::size_t second_ = 0, load_ = 0, accepted_ = 0; // in that second
    fleet_result result_{};

    void add(milliseconds when, std::size_t client, decltype(event::what) what, outbox::id request = 0) {
        events_.push({when, order_++, client, what, request});
    }

    static outbox::time_point to_time_point(milliseconds time) { return outbox::time_point{time}; }

    void send(milliseconds now, std::size_t client, outbox::id request) {
        const auto second = static_cast<std::size_t>(now / 1s);
        if (second != std::exchange(second_, second))
            load_ = accepted_ = 0;
        ++load_;
        if (now >= outage_begins && now < outage_ends)
            return add(now + 20ms, client, event::fail, request);
        if (now >= outage_ends)
            result_.peak = std::max(result_.peak, load_);
        const bool fits = now < outage_begins || accepted_ < capacity;
        accepted_ += fits ? 1 : 0;
        result_.refused += fits ? 0 : 1;
        add(now + 50ms, client, fits ? event::accept : event::refuse, request);
    }

    void run_due(milliseconds now, std::size_t client) {
        outbox& box = boxes_[client];
        while (const auto request = box.take(to_time_point(now)))
            send(now, client, request->id);
        if (const auto due = box.next_due(to_time_point(now))) {
            const auto when = std::max(std::chrono::ceil<milliseconds>(due->time_since_epoch()), now + 1ms);
            if (when < wakes_[client])
                add(wakes_[client] = when, client, event::wake);
        }
    }

    void handle(const event& next) {
        outbox& box = boxes_[next.client];
        promptlayer::error why{.code = promptlayer::errc::transport};
        switch (next.what) {
        case event::make:
            std::ignore = box.push({"/rest/track-prompt", "{}"}, to_time_point(next.when));
            add(next.when + between_requests, next.client, event::make);
            break;
        case event::wake:
            if (wakes_[next.client] != next.when)
                return; // an earlier wake has come
            wakes_[next.client] = milliseconds::max();
            break;
        case event::fail:
            why.failure = promptlayer::failure::connect;
            box.complete(next.request, std::move(why), to_time_point(next.when));
            break;
        case event::refuse:
            why.code = promptlayer::errc::rate_limited;
            why.status = 429;
            box.complete(next.request, std::move(why), to_time_point(next.when));
            break;
        case event::accept: box.complete(next.request, std::nullopt, to_time_point(next.when)); break;
        }
        run_due(next.when, next.client);
    }

    std::uint64_t waiting() const {
        std::uint64_t all = 0;
        for (const outbox& box : boxes_)
            all += box.stats().waiting;
        return all;
    }

public:
    explicit fleet(bool jitter) {
        boxes_.reserve(clients);
        for (std::size_t client = 0; client < clients; ++client) {
            boxes_.emplace_back(promptlayer::outbox_settings{}, [this, jitter] {
                return jitter ? std::uniform_real_distribution<double>{0, 1}(random_) : 1.0;
            });
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
                if (waiting() == 0) {
                    result_.drained = next.when - outage_ends;
                    break;
                }
            }
        }
        for (const outbox& box : boxes_) {
            result_.delivered += box.stats().delivered;
            result_.lost += box.stats().gave_up + box.stats().dropped + box.stats().refused;
        }
        return result_;
    }
};

} // namespace

int main() {
    std::puts("| wait | peak after the outage | answered 429 | drained after | delivered | lost |");
    std::puts("|---|---|---|---|---|---|");
    bool nothing_lost = true;
    for (const bool jitter : {true, false}) {
        const fleet_result result = fleet{jitter}.run();
        std::printf("| %s | %zu a second | %zu | %lld s | %llu | %llu |\n",
                    jitter ? "a random part" : "the whole wait", result.peak, result.refused,
                    static_cast<long long>(result.drained / 1s),
                    static_cast<unsigned long long>(result.delivered),
                    static_cast<unsigned long long>(result.lost));
        nothing_lost = nothing_lost && result.lost == 0 && result.drained != 0s;
    }
    return nothing_lost ? 0 : 1;
}
