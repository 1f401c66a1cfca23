// What a service that comes back meets: 10,000 clients in virtual time, with jitter and without. Prints the
// table of the README.

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
constexpr std::size_t capacity = 2'000; // a second, after the outage; what is above is answered 429
constexpr milliseconds longest = 3h;

struct found {
    std::size_t peak = 0;    // requests in one second, after the outage
    std::size_t refused = 0; // 429s
    milliseconds drained{};  // from the end of the outage until none waits
    std::uint64_t delivered = 0, lost = 0;
};

class fleet {
    struct event {
        milliseconds when;
        std::uint64_t order; // so that a run is the same each time
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
    std::size_t second_ = 0, load_ = 0, accepted_ = 0; // of that second
    found found_{};

    void add(milliseconds when, std::size_t client, decltype(event::what) what, outbox::id request = 0) {
        events_.push({when, order_++, client, what, request});
    }

    static outbox::time_point at(milliseconds time) { return outbox::time_point{time}; }

    void send(milliseconds now, std::size_t client, outbox::id request) {
        const auto second = static_cast<std::size_t>(now / 1s);
        if (second != std::exchange(second_, second))
            load_ = accepted_ = 0;
        ++load_;
        if (now >= outage_begins && now < outage_ends)
            return add(now + 20ms, client, event::fail, request);
        if (now >= outage_ends)
            found_.peak = std::max(found_.peak, load_);
        const bool fits = now < outage_begins || accepted_ < capacity;
        accepted_ += fits ? 1 : 0;
        found_.refused += fits ? 0 : 1;
        add(now + 50ms, client, fits ? event::accept : event::refuse, request);
    }

    void turn(milliseconds now, std::size_t client) {
        outbox& box = boxes_[client];
        while (const auto taken = box.take(at(now)))
            send(now, client, taken->id);
        if (const auto due = box.next_due(at(now))) {
            const auto when = std::max(std::chrono::ceil<milliseconds>(due->time_since_epoch()), now + 1ms);
            if (when < wakes_[client])
                add(wakes_[client] = when, client, event::wake);
        }
    }

    void take_place(const event& next) {
        outbox& box = boxes_[next.client];
        promptlayer::error why{.code = promptlayer::errc::transport};
        switch (next.what) {
        case event::make:
            std::ignore = box.push({"/rest/track-prompt", "{}"}, at(next.when));
            add(next.when + between_requests, next.client, event::make);
            break;
        case event::wake:
            if (wakes_[next.client] != next.when)
                return; // another has come before
            wakes_[next.client] = milliseconds::max();
            break;
        case event::fail:
            why.failure = promptlayer::failure::connect;
            box.complete(next.request, std::move(why), at(next.when));
            break;
        case event::refuse:
            why.code = promptlayer::errc::rate_limited;
            why.status = 429;
            box.complete(next.request, std::move(why), at(next.when));
            break;
        case event::accept: box.complete(next.request, std::nullopt, at(next.when)); break;
        }
        turn(next.when, next.client);
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

    found run() {
        milliseconds looked = outage_ends;
        while (events_.top().when < longest) {
            const event next = events_.top();
            events_.pop();
            take_place(next);
            if (next.when >= looked + 1s) {
                looked = next.when;
                if (waiting() == 0) {
                    found_.drained = next.when - outage_ends;
                    break;
                }
            }
        }
        for (const outbox& box : boxes_) {
            found_.delivered += box.stats().delivered;
            found_.lost += box.stats().gave_up + box.stats().dropped + box.stats().refused;
        }
        return found_;
    }
};

} // namespace

int main() {
    std::puts("| wait | peak after the outage | answered 429 | drained after | delivered | lost |");
    std::puts("|---|---|---|---|---|---|");
    bool nothing_lost = true;
    for (const bool jitter : {true, false}) {
        const found one = fleet{jitter}.run();
        std::printf("| %s | %zu a second | %zu | %lld s | %llu | %llu |\n",
                    jitter ? "a random part" : "all of it", one.peak, one.refused,
                    static_cast<long long>(one.drained / 1s), static_cast<unsigned long long>(one.delivered),
                    static_cast<unsigned long long>(one.lost));
        nothing_lost = nothing_lost && one.lost == 0 && one.drained != 0s;
    }
    return nothing_lost ? 0 : 1;
}
