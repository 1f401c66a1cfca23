#include <promptlayer.hpp>

#include "../support/memory_journal.hpp"
#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include "../support/child_process.hpp"

#include <sys/wait.h>
#include <unistd.h>
#endif

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using test_support::memory_journal;
using test_support::status_response;
using test_support::valid_request;

namespace {

constexpr auto long_enough = 20s;

/// What no test waits for unless it fails; what should not happen has this long to happen.
constexpr auto short_while = 50ms;

pl::config with_key(const char* key = "pl_key") { return {.api_key = key}; }

/// Values that several threads change and wait for.
class shared_state {
    std::mutex mutex_{};
    std::condition_variable condition_{};

public:
    bool is_open = false;
    bool is_cancelled = false;
    bool is_in_poll = false;
    int sent = 0, cancels = 0, polls = 0, wakeups = 0, steps = 0, running = 0, most_running = 0;
    std::vector<milliseconds> timeouts{};
    std::vector<std::string> lines{};
    std::vector<pl::completion> completions{};

    template <class ActionT>
    auto change(ActionT action) -> decltype(action(*this)) {
        const std::lock_guard guard{mutex_};
        condition_.notify_all();
        return action(*this);
    }
    template <class ConditionT>
    bool await(ConditionT condition, milliseconds timeout = long_enough) {
        std::unique_lock guard{mutex_};
        return condition_.wait_for(guard, timeout, [&] { return condition(*this); });
    }
    void open() {
        change([](shared_state& state) { state.is_open = true; });
    }
    bool await_open() {
        return await([](shared_state& state) { return state.is_open; });
    }
    bool await_sent(int count) {
        return await([&](shared_state& state) { return state.sent >= count; });
    }
    bool await_lines(std::size_t count) {
        return await([&](shared_state& state) { return state.lines.size() >= count; });
    }
    std::vector<std::string> all_lines() {
        return change([](shared_state& state) { return state.lines; });
    }
};

/// Returns options that note each report.
pl::tracker_options reporting(shared_state& state, pl::queue_options queue = {}) {
    const auto note = [&state](std::string line) {
        state.change([&](shared_state& s) { s.lines.push_back(std::move(line)); });
    };
    return {.on_delivered =
                [note](const pl::finished_request& request) {
                    note(std::to_string(request.number) + " delivered");
                },
            .on_failed =
                [note](const pl::finished_request& request) {
                    note(std::to_string(request.number) +
                         (request.outcome == pl::request_outcome::returned ? " returned" : " failed"));
                },
            .on_outage = [note](const pl::error& cause) { note("outage " + std::to_string(cause.status)); },
            .on_recovery = [note] { note("recovery"); },
            .queue = queue,
            .random = [] { return 1.0; }};
}

/// Returns options of a queue in which failed requests wait for an hour.
pl::queue_options patient_queue() {
    pl::queue_options queue;
    queue.retry.initial_delay = queue.retry.max_delay = 1h;
    return queue;
}

/// Tracks requests until another thread has closed the tracker, also while the queue is full. Returns how
/// many it has accepted.
std::size_t track_until_closed(pl::background_tracker& tracker) {
    for (std::size_t accepted = 0;;) {
        const auto queued = tracker.track_prompt(valid_request());
        if (queued)
            ++accepted;
        else if (queued.error().code == pl::errc::closed)
            return accepted;
        std::this_thread::yield();
    }
}

/// A synchronous transport that holds its requests until the state is open.
struct gated_transport {
    std::shared_ptr<shared_state> state = std::make_shared<shared_state>();

    pl::transport_result send(const pl::http_request& request) {
        state->change([&](shared_state& s) {
            ++s.sent;
            s.timeouts.push_back(request.timeout);
            s.most_running = std::max(s.most_running, ++s.running);
        });
        state->await([](shared_state& s) { return s.is_open || s.is_cancelled; });
        return state->change([](shared_state& s) -> pl::transport_result {
            --s.running;
            if (std::exchange(s.is_cancelled, false))
                return pl::transport_failure{pl::failure::cancelled, "cancelled"};
            return status_response(200);
        });
    }
};

struct cancellable_transport : gated_transport {
    void cancel() {
        state->change([](shared_state& s) {
            ++s.cancels;
            s.is_cancelled = s.running != 0;
        });
    }
};

/// An asynchronous transport that completes its requests by `respond` of the test.
struct manual_transport {
    std::shared_ptr<shared_state> state = std::make_shared<shared_state>();

    void send(pl::http_request request, pl::completion done) {
        state->change([&](shared_state& s) {
            ++s.sent;
            s.timeouts.push_back(request.timeout);
            s.completions.push_back(std::move(done));
        });
    }
    void respond(int status = 200) const {
        const auto all = state->change([](shared_state& s) { return std::exchange(s.completions, {}); });
        for (const pl::completion& done : all)
            done(status_response(status));
    }
};

/// The same with `poll`, which completes all requests if the state is open.
struct polled_transport : manual_transport {
    void poll() {
        const auto all = state->change([](shared_state& s) {
            ++s.polls;
            return s.is_open ? std::exchange(s.completions, {}) : std::vector<pl::completion>{};
        });
        for (const pl::completion& done : all)
            done(status_response(200));
    }
};

/// The same with a wait, which ends by `wakeup` only and completes nothing.
struct waiting_transport : polled_transport {
    using polled_transport::poll;
    void poll(milliseconds wait) {
        state->change([](shared_state& s) {
            ++s.polls;
            s.is_in_poll = true;
        });
        state->await([](shared_state& s) { return s.wakeups > 0; }, wait);
        state->change([](shared_state& s) {
            s.wakeups = 0;
            s.is_in_poll = false;
        });
    }
    void wakeup() {
        state->change([](shared_state& s) { ++s.wakeups; });
    }
};

/// Counts the steps of a tracker, and asks for no other.
struct counting_journal : memory_journal {
    std::shared_ptr<shared_state> state;
    explicit counting_journal(std::shared_ptr<shared_state> counts)
        : memory_journal(std::make_shared<storage>()), state(std::move(counts)) {}
    std::optional<milliseconds> maintain() override {
        state->change([](shared_state& s) { ++s.steps; });
        return 1h;
    }
};

} // namespace

TEST_CASE("background tracker: requests are delivered in order and reported on another thread") {
    shared_state events;
    auto options = reporting(events);
    std::atomic<std::thread::id> reporting_thread{};
    options.on_attempt = [&](const pl::attempt_report&) { reporting_thread = std::this_thread::get_id(); };
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}, std::move(options)};
    CHECK(tracker.track_prompt({.prompt_name = "a", .request_id = 1})->number == 1);
    CHECK(tracker.track_prompt(pl::track_prompt_view{.prompt_name = "b", .request_id = 2})->number == 2);
    CHECK(tracker.flush(long_enough));
    CHECK(events.all_lines() == std::vector<std::string>{"1 delivered", "2 delivered"});
    CHECK(reporting_thread.load() != std::this_thread::get_id());
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 2, .delivered = 2});
}

TEST_CASE("background tracker: an invalid request or config is returned, and nothing is queued") {
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
    CHECK(tracker.track_prompt({.prompt_name = "", .request_id = 1}).error().code ==
          pl::errc::invalid_request);
    CHECK(tracker.stats() == pl::outbox_stats{});
    pl::background_tracker keyless{pl::config{}, pl::testing::recording_transport{}};
    for (int i = 0; i < 2; ++i)
        CHECK(keyless.track_prompt(valid_request()).error().code == pl::errc::invalid_config);
    CHECK(keyless.reconfigure(with_key()));
    CHECK(keyless.track_prompt(valid_request()));
    CHECK(keyless.flush(long_enough));
}

TEST_CASE("background tracker: a synchronous transport has one request in flight") {
    gated_transport transport;
    pl::background_tracker tracker{with_key(), transport, {.queue = {.max_in_flight = 8}}};
    for (int i = 0; i < 20; ++i)
        REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    CHECK(tracker.stats().in_flight == 1);
    CHECK_FALSE(tracker.flush(1ms));
    transport.state->open();
    CHECK(tracker.flush(long_enough));
    CHECK(transport.state->most_running == 1);
}

TEST_CASE("background tracker: max_in_flight requests are in flight over an asynchronous transport") {
    struct told_transport : manual_transport {
        void max_in_flight(std::size_t count) {
            state->change([&](shared_state& s) { s.lines.push_back(std::to_string(count)); });
        }
        pl::transport_result send(const pl::http_request&) { return status_response(500); } // both kinds
        using manual_transport::send;
    } transport;
    pl::background_tracker tracker{with_key(), transport, {.queue = {.max_in_flight = 4}}};
    for (int i = 0; i < 40; ++i)
        REQUIRE(tracker.track_prompt(valid_request()));
    for (const int sent : {1, 3, 7, 11, 15}) { // the window grows
        REQUIRE(transport.state->await_sent(sent));
        if (sent < 15)
            transport.respond();
    }
    CHECK(tracker.stats().in_flight == 4);
    CHECK(transport.state->all_lines() == std::vector<std::string>{"4"});
    transport.respond();
    CHECK(tracker.close(0ms).size() >= 20);
}

TEST_CASE("background tracker: a completion within send wakes the thread") {
    std::atomic<int> sent{0};
    pl::background_tracker tracker{with_key(),
                                   pl::transport_from([&](pl::http_request, pl::completion done) {
                                       ++sent;
                                       done(status_response(200));
                                   }),
                                   {.queue = {.max_in_flight = 1}}};
    for (int i = 0; i < 3; ++i)
        REQUIRE(tracker.track_prompt(valid_request()));
    CHECK(tracker.flush(long_enough));
    CHECK(sent == 3);
}

TEST_CASE("background tracker: the thread waits in the transport, and a new request wakes it there") {
    waiting_transport transport;
    shared_state& state = *transport.state;
    pl::background_tracker tracker{with_key(), transport};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(state.await([](shared_state& s) { return s.sent == 1 && s.is_in_poll; }));
    CHECK_FALSE(state.await([](shared_state& s) { return s.polls > 2; }, short_while));
    transport.respond(); // on this thread: must wake the other
    CHECK(tracker.flush(long_enough));
    for (int i = 0; i < 2; ++i)
        REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(state.await([](shared_state& s) { return s.sent == 3 && s.is_in_poll; }));
    REQUIRE(tracker.track_prompt(valid_request()));
    CHECK_FALSE(state.await([](shared_state& s) { return s.sent > 3; }, 1ms)); // the window is full
    state.open();
    transport.wakeup();
    transport.respond();
    REQUIRE(state.await_sent(4));
    transport.respond();
    CHECK(tracker.flush(long_enough));
    CHECK(state.change([](shared_state& s) { return s.polls; }) < 20);
}

TEST_CASE("background tracker: a transport with poll alone is polled while a request is in flight") {
    polled_transport transport;
    shared_state& state = *transport.state;
    pl::background_tracker tracker{with_key(), transport};
    CHECK_FALSE(state.await([](shared_state& s) { return s.polls > 0; }, short_while));
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(state.await([](shared_state& s) { return s.polls > 3; }));
    state.open();
    CHECK(tracker.flush(long_enough));
    const int polls = state.change([](shared_state& s) { return s.polls; });
    CHECK_FALSE(state.await([&](shared_state& s) { return s.polls > polls; }, short_while));
}

TEST_CASE("background tracker: a transport without wakeup is polled repeatedly") {
    struct deaf_transport : polled_transport {
        using polled_transport::poll;
        void poll(milliseconds wait) {
            CHECK(wait <= 5ms);
            poll();
        }
    } transport;
    pl::background_tracker tracker{with_key(), transport};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await([](shared_state& s) { return s.polls > 3; }));
    transport.state->open();
    CHECK(tracker.flush(long_enough));
}

TEST_CASE("background tracker: an idle tracker does nothing") {
    const auto counts = std::make_shared<shared_state>();
    manual_transport transport;
    pl::background_tracker tracker{
        with_key(), transport, {.journal = std::make_unique<counting_journal>(counts)}};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    CHECK_FALSE(counts->await([](shared_state& s) { return s.steps > 4; }, short_while)); // in flight
    transport.respond();
    CHECK(tracker.flush(long_enough));
    CHECK_FALSE(counts->await([](shared_state& s) { return s.steps > 6; }, short_while));
}

TEST_CASE("background tracker: requests that are queued during an outage do not wake the thread") {
    const auto counts = std::make_shared<shared_state>();
    shared_state events;
    manual_transport transport;
    auto options = reporting(events, patient_queue());
    options.close_timeout = 0ms;
    options.journal = std::make_unique<counting_journal>(counts);
    pl::background_tracker tracker{with_key(), transport, std::move(options)};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    transport.respond(401);
    REQUIRE(events.await_lines(1));
    CHECK_FALSE(counts->await([](shared_state& s) { return s.steps > 6; }, short_while));
    const int steps = counts->change([](shared_state& s) { return s.steps; });
    for (int i = 0; i < 10; ++i) {
        REQUIRE(tracker.track_prompt(valid_request()));
        CHECK_FALSE(counts->await([&](shared_state& s) { return s.steps > steps + 1; }, 5ms));
    }
    CHECK(tracker.stats().waiting == 11);
    tracker.retry_now();
    CHECK(transport.state->await_sent(2));
}

TEST_CASE("background tracker: a request dropped for a newer one is reported during an outage too") {
    shared_state events;
    manual_transport transport;
    auto queue = patient_queue();
    queue.max_requests = 2;
    queue.drop_oldest = true;
    auto options = reporting(events, queue);
    options.close_timeout = 0ms;
    pl::background_tracker tracker{with_key(), transport, std::move(options)};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    transport.respond(401);
    REQUIRE(events.await_lines(1));
    REQUIRE(tracker.track_prompt(valid_request()));
    for (std::size_t i = 0; i < 10; ++i) {
        REQUIRE(tracker.track_prompt(valid_request()));
        CHECK(events.await_lines(i + 2));
    }
    CHECK(tracker.stats().dropped == 10);
    CHECK(transport.state->sent == 1);
}

TEST_CASE("background tracker: the journal works between two requests of a synchronous transport") {
    const auto counts = std::make_shared<shared_state>();
    std::vector<int> steps;
    auto transport = pl::transport_from([&](const pl::http_request&) -> pl::transport_result {
        counts->await_open();
        steps.push_back(counts->change([](shared_state& s) { return s.steps; }));
        return status_response(200);
    });
    pl::background_tracker tracker{
        with_key(), transport, {.journal = std::make_unique<counting_journal>(counts)}};
    for (int i = 0; i < 5; ++i)
        REQUIRE(tracker.track_prompt(valid_request()));
    counts->open();
    CHECK(tracker.flush(long_enough));
    REQUIRE(steps.size() == 5);
    CHECK(std::adjacent_find(steps.begin(), steps.end(), std::greater_equal<>{}) == steps.end());
}

TEST_CASE("background tracker: the journal works again when it has asked for it") {
    struct busy_journal : counting_journal {
        using counting_journal::counting_journal;
        std::optional<milliseconds> maintain() override {
            std::ignore = counting_journal::maintain();
            return 1ms;
        }
    };
    const auto counts = std::make_shared<shared_state>();
    pl::background_tracker tracker{
        with_key(), manual_transport{}, {.journal = std::make_unique<busy_journal>(counts)}};
    CHECK(counts->await([](shared_state& s) { return s.steps > 9; }));
}

TEST_CASE("background tracker: all requests are reported after discard, however many") {
    pl::background_tracker tracker{with_key(), manual_transport{}};
    tracker.pause();
    for (int i = 0; i < 1'000; ++i)
        REQUIRE(tracker.track_prompt(valid_request()));
    tracker.discard();
    tracker.resume();
    CHECK(tracker.flush(long_enough));
}

TEST_CASE("background tracker: tracking never waits for the network and reports a full queue") {
    gated_transport transport;
    pl::background_tracker tracker{with_key(), transport, {.queue = {.max_requests = 2}}};
    CHECK(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    CHECK(tracker.track_prompt(valid_request()));
    CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::queue_full);
    transport.state->open();
    CHECK(tracker.flush(long_enough));
}

TEST_CASE("background tracker: a slow callback and a burst that drops requests keep to the limits") {
    gated_transport transport;
    shared_state slow;
    std::atomic<std::size_t> reported{0};
    pl::background_tracker tracker{with_key(),
                                   transport,
                                   {.on_failed =
                                        [&](const pl::finished_request&) {
                                            ++reported;
                                            slow.await_open();
                                        },
                                    .queue = {.max_requests = 10, .drop_oldest = true}}};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    std::size_t accepted = 1;
    while (tracker.track_prompt(valid_request()))
        REQUIRE(++accepted <= 30);
    CHECK(accepted == 20); // 10 queued, 10 dropped
    CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::queue_full);
    transport.state->open();
    slow.open();
    CHECK(tracker.flush(long_enough));
    CHECK(reported == 10);
    CHECK(tracker.track_prompt(valid_request()));
}

TEST_CASE("background tracker: a failed request is retried and its final error is reported") {
    shared_state events;
    pl::testing::recording_transport transport;
    for (const int status : {503, 200, 400})
        transport.respond(status_response(status));
    auto options = reporting(events, {.retry = {.initial_delay = 1ms}});
    pl::background_tracker tracker{with_key(), std::ref(transport), std::move(options)};
    for (int i = 0; i < 2; ++i) {
        CHECK(tracker.track_prompt(valid_request()));
        CHECK(tracker.flush(long_enough));
    }
    CHECK(events.all_lines() == std::vector<std::string>{"1 delivered", "2 failed"});
    CHECK(tracker.stats().rejected == 1);
}

TEST_CASE("background tracker: a wrong key is reported once, and reconfigure delivers what waits") {
    shared_state events;
    std::atomic<int> sent{0};
    auto transport = pl::transport_from([&](const pl::http_request& request) -> pl::transport_result {
        ++sent;
        return status_response(*pl::find_header(request.headers, "X-API-KEY") == "pl_right" ? 200 : 401);
    });
    pl::background_tracker tracker{with_key("pl_wrong"), transport, reporting(events)};
    for (int i = 0; i < 3; ++i)
        CHECK(tracker.track_prompt(valid_request()));
    REQUIRE(events.await_lines(1));
    CHECK(tracker.outage_cause()->code == pl::errc::unauthorized);
    CHECK_FALSE(tracker.flush(0ms));
    CHECK(tracker.reconfigure({}).error().code == pl::errc::invalid_config);
    CHECK(sent == 1);
    CHECK(tracker.reconfigure(with_key("pl_right")));
    CHECK(tracker.flush(long_enough));
    CHECK_FALSE(tracker.outage_cause());
    const auto lines = events.all_lines();
    CHECK(lines[0] == "outage 401");
    CHECK(lines[1] == "recovery");
    CHECK(lines.size() == 5);
}

TEST_CASE("background tracker: flush returns false at once if the tracker is or will be paused") {
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
    tracker.pause();
    CHECK(tracker.flush(std::chrono::hours{1})); // nothing is left
    CHECK(tracker.track_prompt(valid_request()));
    CHECK_FALSE(tracker.flush(std::chrono::hours{1}));
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 1, .waiting = 1});
    tracker.resume();
    CHECK(tracker.flush(long_enough));

    gated_transport transport;
    pl::background_tracker other{with_key(), transport};
    CHECK(other.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    std::thread flushing{[&] { CHECK_FALSE(other.flush(std::chrono::hours{1})); }};
    other.pause();
    flushing.join();
    transport.state->open();
}

TEST_CASE("background tracker: flush waits for the last callback, and not in a callback") {
    shared_state events;
    std::optional<pl::background_tracker> tracker;
    std::atomic<bool> flushed{true};
    tracker.emplace(with_key(), pl::testing::recording_transport{},
                    pl::tracker_options{.on_delivered = [&](const pl::finished_request&) {
                        flushed = tracker->flush(std::chrono::hours{1});
                        events.change([](shared_state& s) { s.lines.push_back("called"); });
                        events.await_open();
                    }});
    CHECK(tracker->flush(milliseconds::min()));
    REQUIRE(tracker->track_prompt(valid_request()));
    REQUIRE(events.await_lines(1));
    CHECK(tracker->stats().delivered == 1);
    CHECK_FALSE(tracker->flush(milliseconds::min()));
    events.open();
    CHECK(tracker->flush(milliseconds::max()));
    CHECK_FALSE(flushed);
}

TEST_CASE("background tracker: close sends until its timeout, then returns the rest in order") {
    {
        pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
        CHECK(tracker.track_prompt(valid_request()));
        CHECK(tracker.close(milliseconds::max()).empty());
        CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::closed);
        CHECK(tracker.flush(0ms));
        CHECK(tracker.close(long_enough).empty());
        CHECK(tracker.stats().delivered == 1);
    }
    cancellable_transport transport;
    pl::background_tracker tracker{with_key(), transport};
    for (std::int64_t id = 1; id <= 3; ++id)
        CHECK(tracker.track_prompt(valid_request(id)));
    REQUIRE(transport.state->await_sent(1));
    const auto start = steady_clock::now();
    const auto undelivered = tracker.close(50ms);
    CHECK(steady_clock::now() - start >= 50ms);
    CHECK(transport.state->cancels > 0);
    CHECK(transport.state->sent == 1);
    REQUIRE(undelivered.size() == 3); // the request in flight included
    CHECK(undelivered[0].request.body == R"({"prompt_name":"a","request_id":1})");
    CHECK(undelivered[0].outcome == pl::request_outcome::returned);
    CHECK(undelivered[2].number == 3);
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 3, .returned = 3});
}

TEST_CASE("background tracker: a request that begins while closing has the time that is left") {
    gated_transport transport;
    auto config = with_key();
    config.timeout = 100s;
    pl::background_tracker tracker{config, transport};
    CHECK(tracker.track_prompt(valid_request()));
    CHECK(tracker.track_prompt(valid_request(), {.timeout = 1ms}));
    CHECK(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    std::thread closing{[&] { CHECK(tracker.close(long_enough).empty()); }};
    track_until_closed(tracker);
    transport.state->open();
    closing.join();
    CHECK(transport.state->timeouts[0] == 100s);
    CHECK(transport.state->timeouts[1] == 1ms);
    CHECK(transport.state->timeouts[2] > 1ms);
    CHECK(transport.state->timeouts[2] <= long_enough);
}

TEST_CASE("background tracker: a transport without cancel holds close for the request in flight only") {
    gated_transport transport;
    pl::background_tracker tracker{with_key(), transport};
    CHECK(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    std::size_t returned = 0;
    std::thread closing{[&] { returned = tracker.close(0ms).size(); }};
    const std::size_t waiting = track_until_closed(tracker);
    transport.state->open();
    closing.join();
    CHECK(transport.state->sent == 1);
    CHECK(returned == waiting);
    CHECK(tracker.stats().delivered == 1); // its answer counts
}

TEST_CASE("background tracker: close does not wait for what is not due within its time") {
    const auto start = steady_clock::now();
    shared_state events;
    {
        manual_transport transport;
        auto options = reporting(events, patient_queue());
        options.close_timeout = long_enough;
        pl::background_tracker tracker{with_key(), transport, std::move(options)};
        REQUIRE(tracker.track_prompt(valid_request()));
        REQUIRE(transport.state->await_sent(1));
        transport.respond(401);
        REQUIRE(events.await_lines(1));
        pl::background_tracker paused{with_key(), transport};
        paused.pause();
        REQUIRE(paused.track_prompt(valid_request()));
        CHECK(paused.close(long_enough).size() == 1);
    }
    CHECK(steady_clock::now() - start < long_enough);
    CHECK(events.all_lines() == std::vector<std::string>{"outage 401", "1 returned"});
}

TEST_CASE("background tracker: close waits for what is due within its time") {
    pl::testing::recording_transport transport;
    transport.respond(status_response(503));
    pl::background_tracker tracker{
        with_key(), std::ref(transport), {.queue = {.retry = {.initial_delay = 200ms}}}};
    REQUIRE(tracker.track_prompt(valid_request()));
    CHECK(tracker.close(long_enough).empty());
    CHECK(transport.requests().size() == 2);
}

TEST_CASE("background tracker: an answer that was not polled counts at the deadline of close") {
    shared_state events;
    waiting_transport transport;
    pl::background_tracker tracker{with_key(), transport, reporting(events)};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await([](shared_state& s) { return s.sent == 1 && s.is_in_poll; }));
    transport.state->open(); // the next poll without a wait completes the request
    CHECK(tracker.close(0ms).empty());
    CHECK(events.all_lines() == std::vector<std::string>{"1 delivered"});
}

TEST_CASE("background tracker: two threads may close, and the shorter timeout counts") {
    cancellable_transport transport;
    pl::background_tracker tracker{with_key(), transport};
    for (int i = 0; i < 3; ++i)
        CHECK(tracker.track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    std::atomic<std::size_t> returned{0};
    std::thread patient{[&] { returned += tracker.close(std::chrono::hours{1}).size(); }};
    std::thread other{[&] { returned += tracker.close(0ms).size(); }};
    patient.join();
    other.join();
    CHECK(returned == 3);
}

TEST_CASE("background tracker: the destructor reports undelivered requests; the journal keeps them") {
    shared_state events;
    const auto kept = std::make_shared<memory_journal::storage>();
    cancellable_transport transport;
    {
        auto options = reporting(events);
        options.close_timeout = 10ms;
        options.journal = std::make_unique<memory_journal>(kept);
        pl::background_tracker tracker{with_key(), transport, std::move(options)};
        CHECK(tracker.track_prompt(valid_request()));
        CHECK(tracker.track_prompt(valid_request()));
        REQUIRE(transport.state->await_sent(1));
    }
    CHECK(events.all_lines() == std::vector<std::string>{"1 returned", "2 returned"});
    CHECK(kept->entries.size() == 2);
    auto options = reporting(events);
    CHECK(options.close_timeout == 2s); // by default
    options.journal = std::make_unique<memory_journal>(kept);
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}, std::move(options)};
    CHECK(tracker.flush(long_enough));
    CHECK(kept->entries.empty());
    CHECK(events.all_lines().back() == "2 delivered");
}

TEST_CASE("background tracker: a callback may call any member; flush and close do not wait there") {
    shared_state events;
    std::optional<pl::background_tracker> tracker;
    std::atomic<bool> flushed{true}, closed_empty{false};
    const auto callback = [&](const pl::finished_request&) {
        const std::size_t calls = events.all_lines().size() + 1;
        if (calls == 1) {
            for (int i = 0; i < 3; ++i)
                CHECK(tracker->track_prompt(valid_request()));
            CHECK(tracker->cancel(2));
            CHECK(tracker->reconfigure(with_key("pl_other")));
            tracker->pause();
            tracker->resume();
            tracker->retry_now();
            CHECK(tracker->stats().pushed == 4);
            CHECK_FALSE(tracker->outage_cause());
            flushed = tracker->flush(std::chrono::hours{1});
        } else if (calls == 4) {
            CHECK(tracker->track_prompt(valid_request()));
            tracker->discard();
            CHECK(tracker->track_prompt(valid_request()));
            closed_empty = tracker->close(std::chrono::hours{1}).empty();
        }
        events.change([](shared_state& s) { s.lines.push_back("called"); });
    };
    tracker.emplace(with_key(), pl::testing::recording_transport{},
                    pl::tracker_options{.on_delivered = callback, .on_failed = callback});
    CHECK(tracker->track_prompt(valid_request()));
    CHECK(events.await_lines(6));
    CHECK(tracker->flush(long_enough));
    CHECK_FALSE(flushed);
    CHECK(closed_empty);
    CHECK(tracker->track_prompt(valid_request()).error().code == pl::errc::closed);
    CHECK(tracker->stats() == pl::outbox_stats{.pushed = 6, .delivered = 4, .cancelled = 2});
}

TEST_CASE("background tracker: a callback may track even before the constructor has returned") {
    for (int i = 0; i < 20; ++i) {
        const auto kept = std::make_shared<memory_journal::storage>();
        kept->entries[1] = {.number = 1, .request = {"/log-request", "{}", false}, .begun = true};
        std::optional<pl::error> error;
        pl::background_tracker tracker{
            {.api_key = "pl_key"},
            pl::testing::recording_transport{},
            {.on_failed =
                 [&](const pl::finished_request& failed) {
                     error = failed.error;
                     CHECK(tracker.track(pl::track_score{.request_id = 1, .score = 1}));
                 },
             .journal = std::make_unique<memory_journal>(kept)}};
        REQUIRE(tracker.flush(long_enough));
        CHECK(tracker.stats().delivered == 1); // the score; flush has waited for it too
        REQUIRE(error);
        CHECK(error->maybe_delivered);
        CHECK(kept->entries.empty());
    }
}

TEST_CASE("background tracker: many threads add to the journal at once") {
    struct meeting_journal : memory_journal {
        std::shared_ptr<shared_state> meeting = std::make_shared<shared_state>();
        meeting_journal() : memory_journal(std::make_shared<storage>()) {}
        pl::result<void> add(pl::request_number number, const pl::prepared_request& request) override {
            meeting->change([](shared_state& s) { ++s.running; });
            CHECK(meeting->await([](shared_state& s) { return s.running == 4; })); // all others
            return memory_journal::add(number, request);
        }
    };
    pl::background_tracker tracker{
        with_key(), pl::testing::recording_transport{}, {.journal = std::make_unique<meeting_journal>()}};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            const auto queued = tracker.track_prompt(valid_request());
            REQUIRE(queued.has_value());
            CHECK_FALSE(queued->journal_error);
        });
    CHECK(tracker.stats().pushed <= 4); // no lock is held meanwhile
    for (std::thread& thread : threads)
        thread.join();
    CHECK(tracker.flush(long_enough));
    CHECK(tracker.stats().delivered == 4);
}

#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // these have no fork
TEST_CASE("background tracker: every call fails in a forked child, and the parent delivers") {
    cancellable_transport transport;
    const auto kept = std::make_shared<memory_journal::storage>();
    std::optional<pl::background_tracker> tracker;
    tracker.emplace(with_key(), transport,
                    pl::tracker_options{.journal = std::make_unique<memory_journal>(kept)});
    REQUIRE(tracker->track_prompt(valid_request()));
    REQUIRE(transport.state->await_sent(1));
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        const bool passes = tracker->track_prompt(valid_request()).error().code == pl::errc::closed &&
                            !tracker->flush(long_enough) && tracker->close(long_enough).empty() &&
                            !tracker->reconfigure(with_key()) && tracker->stats() == pl::outbox_stats{} &&
                            !tracker->outage_cause() && !tracker->cancel(1);
        tracker->pause();
        tracker->resume();
        tracker->discard();
        tracker->retry_now();
        tracker.reset();
        test_support::end_child(passes && kept->entries.size() == 1 ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    transport.state->open();
    CHECK(tracker->flush(long_enough));
    CHECK(tracker->stats().delivered == 1);
}
#endif

#if defined(__cpp_exceptions)
TEST_CASE("background tracker: no exception of a transport or a callback changes anything") {
    struct throwing_transport : waiting_transport {
        void send(pl::http_request request, pl::completion done) {
            if (state->change([](shared_state& s) { return s.sent++; }) == 0)
                throw 1;
            waiting_transport::send(std::move(request), std::move(done));
        }
        void poll() { throw 2; }
        void poll(milliseconds wait) {
            waiting_transport::poll(wait);
            throw 3;
        }
        void wakeup() {
            waiting_transport::wakeup();
            throw 4;
        }
        void cancel() { throw 5; }
        void max_in_flight(std::size_t) { throw 6; }
    } transport;
    std::atomic<int> delivered{0};
    pl::background_tracker tracker{with_key(),
                                   transport,
                                   {.on_delivered =
                                        [&](const pl::finished_request&) {
                                            ++delivered;
                                            throw 7;
                                        },
                                    .on_attempt = [](const pl::attempt_report&) { throw 8; },
                                    .queue = {.retry = {.initial_delay = 1ms}}}};
    REQUIRE(tracker.track_prompt(valid_request()));
    for (int i = 0; i < 2; ++i) {
        REQUIRE(transport.state->await([](shared_state& s) { return !s.completions.empty(); }));
        transport.respond();
        CHECK(tracker.flush(long_enough));
        CHECK(delivered == i + 1);
        REQUIRE(tracker.track_prompt(valid_request()));
    }
    CHECK(tracker.close(0ms).size() == 1);

    pl::background_tracker synchronous{
        with_key(),
        pl::transport_from([](const pl::http_request&) -> pl::transport_result { throw 9; }),
        {.on_failed = [](const pl::finished_request&) { throw 10; },
         .queue = {.retry = {.max_attempts = 1}}}};
    CHECK(synchronous.track_prompt(valid_request()));
    CHECK(synchronous.flush(long_enough));
    CHECK(synchronous.stats().failed == 1);
}
#endif
