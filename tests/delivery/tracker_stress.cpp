// Many threads use a tracker at once, over transports that complete in every way. Each request must end
// exactly once. Most useful with ThreadSanitizer or AddressSanitizer.

#include <promptlayer.hpp>

#include "../support/memory_journal.hpp"
#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using test_support::memory_journal;
using test_support::status_response;
using test_support::valid_request;

namespace {

constexpr std::size_t producers = 8;
constexpr std::size_t requests_of_each = 3'000;

/// Returns every kind of outcome in turn, most of them a success.
pl::transport_result next_outcome() {
    static std::atomic<unsigned> count{0};
    switch (count++ % 32) {
    case 7: return status_response(503);
    case 15: return status_response(400);
    case 23: return pl::transport_failure{pl::failure::reset, "cut"};
    case 31: return pl::transport_failure{pl::failure::cancelled, "cancelled"};
    default: return status_response(200);
    }
}

/// Completes requests on threads of its own: some twice at the same time, some never.
class completing_transport {
    std::mutex mutex_{};
    std::condition_variable condition_{};
    std::deque<pl::completion> completions_{};
    bool is_stopped_ = false;
    std::vector<std::thread> threads_{};

    void work() {
        for (unsigned count = 0;; ++count) {
            pl::completion done;
            {
                std::unique_lock guard{mutex_};
                condition_.wait(guard, [&] { return is_stopped_ || !completions_.empty(); });
                if (completions_.empty())
                    return;
                done = completions_.front();
                if (count % 4 != 0)
                    completions_.pop_front(); // else another thread takes it too
            }
            if (count % 16 != 1)
                done(next_outcome());
        }
    }

public:
    completing_transport() {
        for (int i = 0; i < 4; ++i)
            threads_.emplace_back([this] { work(); });
    }
    completing_transport(const completing_transport&) = delete;
    completing_transport& operator=(const completing_transport&) = delete;
    ~completing_transport() {
        {
            const std::lock_guard guard{mutex_};
            is_stopped_ = true;
            condition_.notify_all();
        }
        for (std::thread& thread : threads_)
            thread.join();
    }
    void send(pl::http_request, pl::completion done) {
        const std::lock_guard guard{mutex_};
        completions_.push_back(std::move(done));
        condition_.notify_one();
    }
};

/// Completes requests in `poll`.
class wakeable_transport {
    std::mutex mutex_{};
    std::condition_variable condition_{};
    std::vector<pl::completion> completions_{};
    bool is_woken_ = false;

public:
    void send(pl::http_request, pl::completion done) { completions_.push_back(std::move(done)); }
    void poll() {
        for (const pl::completion& done : std::exchange(completions_, {}))
            done(next_outcome());
    }
    void poll(milliseconds wait) {
        {
            std::unique_lock guard{mutex_};
            if (completions_.empty())
                condition_.wait_for(guard, wait, [&] { return is_woken_; });
            is_woken_ = false;
        }
        poll();
    }
    void wakeup() {
        const std::lock_guard guard{mutex_};
        is_woken_ = true;
        condition_.notify_all();
    }
    void cancel() {}
};

/// Uses a tracker from many threads, closes it from two, and counts the outcomes of each request. Returns how
/// many were accepted.
template <class T>
std::size_t stress(T transport) {
    const auto kept = std::make_shared<memory_journal::storage>();
    std::vector<std::atomic<int>> outcomes(producers * requests_of_each * 2 + 1);
    std::atomic<std::size_t> accepted{0}, refused{0}, reported{0}, returned{0};
    std::atomic<int> callbacks_at_once{0};
    std::atomic<bool> overlaps{false};
    const auto report = [&](const pl::finished_request& request) {
        overlaps = overlaps || callbacks_at_once++ != 0;
        ++outcomes[static_cast<std::size_t>(request.number)];
        ++reported;
        --callbacks_at_once;
    };
    pl::tracker_options options{.on_delivered = report, .on_failed = report};
    options.queue.max_requests = 1'000;
    options.queue.drop_oldest = true;
    options.queue.max_in_flight = 8;
    options.queue.retry.initial_delay = options.queue.retry.max_delay = 1ms;
    options.queue.retry.max_attempts = 3;
    options.journal = std::make_unique<memory_journal>(kept);
    pl::background_tracker tracker{{.api_key = "pl_key"}, std::move(transport), std::move(options)};

    std::atomic<bool> is_done{false};
    std::vector<std::thread> disturbing;
    const auto disturb = [&](auto action) {
        disturbing.emplace_back([&is_done, action]() mutable {
            while (!is_done) {
                action();
                std::this_thread::yield();
            }
        });
    };
    disturb([&] {
        tracker.pause();
        std::this_thread::yield();
        tracker.resume();
    });
    disturb([&] { CHECK(tracker.reconfigure({.api_key = "pl_other"})); });
    disturb([&] {
        tracker.retry_now();
        tracker.cancel(accepted);
        std::ignore = tracker.stats();
        std::ignore = tracker.outage_cause();
    });
    disturb([&] { std::ignore = tracker.flush(1ms); });
    disturb([&, count = 0]() mutable {
        if (++count % 64 == 0)
            tracker.discard();
    });

    std::vector<std::thread> producing;
    for (std::size_t i = 0; i < producers; ++i)
        producing.emplace_back([&] {
            for (std::size_t n = 0; n < requests_of_each; ++n) {
                const auto queued = tracker.track_prompt(valid_request(static_cast<std::int64_t>(n)));
                ++(queued ? accepted : refused);
                if (!queued)
                    std::this_thread::yield();
            }
        });
    const auto close = [&](milliseconds timeout) {
        for (const pl::finished_request& request : tracker.close(timeout)) {
            ++outcomes[static_cast<std::size_t>(request.number)];
            ++returned;
        }
    };
    for (std::size_t i = 0; i < producers / 2; ++i)
        producing[i].join();
    std::thread closing{[&] { close(10s); }};
    close(300ms);
    closing.join();
    for (std::size_t i = producers / 2; i < producers; ++i)
        producing[i].join();
    is_done = true;
    for (std::thread& thread : disturbing)
        thread.join();

    CHECK(accepted + refused == producers * requests_of_each);
    CHECK(reported + returned == accepted);
    CHECK_FALSE(overlaps);
    std::size_t ended_once = 0, ended_twice = 0;
    for (const std::atomic<int>& count : outcomes) {
        ended_once += count == 1 ? 1u : 0u;
        ended_twice += count > 1 ? 1u : 0u;
    }
    CHECK(ended_once == accepted);
    CHECK(ended_twice == 0);
    const auto stats = tracker.stats();
    CHECK(stats.pushed == accepted);
    CHECK(stats.waiting + stats.in_flight == 0);
    CHECK(stats.returned == returned);
    CHECK(kept->entries.size() == returned);
    CHECK(tracker.flush(0ms));
    return accepted;
}

} // namespace

TEST_CASE("tracker stress: each request over a synchronous transport ends once") {
    CHECK(stress(pl::transport_from([](const pl::http_request&) { return next_outcome(); })) != 0);
}

TEST_CASE("tracker stress: each request over a transport with threads ends once") {
    completing_transport transport;
    CHECK(stress(std::ref(transport)) != 0);
}

TEST_CASE("tracker stress: each request over a transport that waits ends once") {
    wakeable_transport transport;
    CHECK(stress(std::ref(transport)) != 0);
}

TEST_CASE("tracker stress: each request over a transport that completes within send ends once") {
    CHECK(stress(pl::transport_from([](pl::http_request, pl::completion done) { done(next_outcome()); })) !=
          0);
}

TEST_CASE("tracker stress: a tracker may end while another thread completes its requests") {
    completing_transport transport;
    for (int i = 0; i < 300; ++i) {
        pl::background_tracker tracker{
            {.api_key = "pl_key"}, std::ref(transport), {.close_timeout = milliseconds{i % 2}}};
        for (int n = 0; n < 3; ++n)
            CHECK(tracker.track_prompt(valid_request()));
        pl::polled_tracker polled{{.api_key = "pl_key"}, std::ref(transport)};
        CHECK(polled.track_prompt(valid_request()));
        polled.poll({});
    }
}

TEST_CASE("tracker stress: a thousand starts and stops under load lose nothing") {
    std::size_t delivered = 0, undelivered = 0;
    for (int i = 0; i < 1'000; ++i) {
        pl::background_tracker tracker{{.api_key = "pl_key"}, pl::testing::recording_transport{}};
        std::thread other{[&] { CHECK(tracker.track_prompt(valid_request())); }};
        for (int n = 0; n < 3; ++n)
            CHECK(tracker.track_prompt(valid_request()));
        other.join();
        undelivered += tracker.close(i % 2 == 0 ? 0ms : 20'000ms).size();
        delivered += static_cast<std::size_t>(tracker.stats().delivered);
    }
    CHECK(delivered + undelivered == 4'000);
    CHECK(delivered >= 2'000);
}

TEST_CASE("tracker stress: a polled tracker is used by many threads while one polls it") {
    completing_transport transport;
    std::atomic<std::size_t> accepted{0}, reported{0};
    const auto report = [&](const pl::finished_request&) { ++reported; };
    pl::tracker_options options{.on_delivered = report, .on_failed = report};
    options.queue.max_requests = producers * requests_of_each;
    options.queue.retry.max_attempts = 1;
    pl::polled_tracker tracker{{.api_key = "pl_key"}, std::ref(transport), std::move(options)};
    std::vector<std::thread> threads;
    std::atomic<std::size_t> running{producers};
    for (std::size_t i = 0; i < producers; ++i)
        threads.emplace_back([&] {
            for (std::size_t n = 0; n < requests_of_each; ++n) {
                if (const auto queued = tracker.track_prompt(valid_request())) {
                    ++accepted;
                    if (n % 16 == 0)
                        tracker.cancel(queued->number);
                }
                if (n % 64 == 0)
                    tracker.retry_now();
            }
            --running;
        });
    std::chrono::steady_clock::time_point now{};
    while (running != 0)
        tracker.poll(now += 16ms);
    for (std::thread& thread : threads)
        thread.join();
    for (int i = 0; i < 1'000; ++i)
        tracker.poll(now += 16ms);
    const std::size_t returned = tracker.close().size();
    CHECK(reported + returned == accepted);
    CHECK(accepted == producers * requests_of_each);
}
