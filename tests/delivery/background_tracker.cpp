#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

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

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::steady_clock;
using test_support::status_response;
using test_support::valid_request;

namespace {

constexpr auto long_enough = 20s;

pl::config with_key(const char* key = "pl_key") { return {.api_key = key}; }

/// Returns settings that retry without a wait, `attempts` times at most; 0 means any number.
pl::background_settings immediate_retries(std::uint32_t attempts = 0) {
    pl::background_settings settings;
    settings.outbox.retry.max_attempts = attempts;
    settings.outbox.retry.initial_delay = settings.outbox.retry.max_delay = 0ms;
    return settings;
}

/// Collects the reports of a tracker's thread.
struct event_log {
    std::mutex mutex{};
    std::vector<std::string> lines{};

    void add(std::string line) {
        const std::lock_guard guard{mutex};
        lines.push_back(std::move(line));
    }
    std::vector<std::string> all() {
        const std::lock_guard guard{mutex};
        return lines;
    }
    pl::tracker_callbacks callbacks() {
        return {.on_delivered =
                    [this](pl::outbox::id id, const pl::track_response& tracked) {
                        add(std::to_string(id) + " " + tracked.message);
                    },
                .on_failed =
                    [this](const pl::outbox::ended& ended) {
                        add(std::to_string(ended.id) + " failed" +
                            (ended.why ? " " + std::to_string(ended.why->status) : ""));
                    },
                .on_undelivered =
                    [this](const std::vector<pl::outbox::ended>& undelivered) {
                        for (const auto& request : undelivered)
                            add(std::to_string(request.id) + " left");
                    }};
    }
};

/// A transport that holds its requests until the test opens the gate or they are cancelled.
struct gated_transport {
    struct gate {
        std::mutex mutex{};
        std::condition_variable condition{};
        bool open = false;
        int sent = 0;
        int cancels = 0;
        bool cancelled = false;

        void pass() {
            const std::lock_guard guard{mutex};
            open = true;
            condition.notify_all();
        }
        void await_sent(int count) {
            std::unique_lock guard{mutex};
            CHECK(condition.wait_for(guard, long_enough, [&] { return sent >= count; }));
        }
    };
    std::shared_ptr<gate> state = std::make_shared<gate>();

    pl::transport_result send(const pl::http_request&) {
        std::unique_lock guard{state->mutex};
        ++state->sent;
        state->cancelled = false;
        state->condition.notify_all();
        state->condition.wait(guard, [&] { return state->open || state->cancelled; });
        if (state->cancelled)
            return pl::transport_failure{pl::failure::cancelled, "cancelled"};
        return status_response(200);
    }

    void cancel() {
        const std::lock_guard guard{state->mutex};
        ++state->cancels;
        state->cancelled = true;
        state->condition.notify_all();
    }
};

} // namespace

TEST_CASE("background tracker: requests are delivered in order and reported on another thread") {
    event_log events;
    std::atomic<std::thread::id> reporting_thread{};
    auto callbacks = events.callbacks();
    callbacks.on_delivered = [&, report = callbacks.on_delivered](pl::outbox::id id,
                                                                  const pl::track_response& tracked) {
        reporting_thread = std::this_thread::get_id();
        report(id, tracked);
    };
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}, callbacks};
    CHECK(*tracker.track_prompt({.prompt_name = "a", .request_id = 1}) == 1);
    CHECK(*tracker.track_prompt(pl::track_prompt_view{.prompt_name = "b", .request_id = 2}) == 2);
    CHECK(tracker.flush(long_enough));
    CHECK(events.all() == std::vector<std::string>{"1 recorded", "2 recorded"});
    CHECK(reporting_thread.load() != std::this_thread::get_id());
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 2, .delivered = 2});
}

TEST_CASE("background tracker: an invalid request or config is reported to the caller, not queued") {
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
    CHECK(tracker.track_prompt({.prompt_name = "", .request_id = 1}).error().code ==
          pl::errc::invalid_request);
    pl::background_tracker keyless{pl::config{}, pl::testing::recording_transport{}};
    CHECK(keyless.track_prompt(valid_request()).error().code == pl::errc::invalid_config);
    CHECK(keyless.reconfigure(with_key()));
    CHECK(keyless.track_prompt(valid_request()));
    CHECK(keyless.flush(long_enough));
    CHECK(tracker.stats() == pl::outbox_stats{});
}

TEST_CASE("background tracker: no error shows the key in a variable's name") {
    pl::background_tracker tracker{with_key("pl_sesame"), pl::testing::recording_transport{}};
    const auto rejected = tracker.track_prompt(
        {.prompt_name = "a", .prompt_input_variables = {{"my pl_sesame", "\xFF"}}, .request_id = 1});
    CHECK(to_string(rejected.error()).find("sesame") == std::string::npos);
}

TEST_CASE("background tracker: tracking never waits for the network and reports a full queue") {
    gated_transport transport;
    const auto gate = transport.state;
    pl::background_settings settings;
    settings.outbox.max_requests = 2;
    pl::background_tracker tracker{with_key(), transport, {}, settings};
    CHECK(tracker.track_prompt(valid_request()));
    gate->await_sent(1);
    CHECK(tracker.track_prompt(valid_request()));
    CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::queue_full);
    CHECK_FALSE(tracker.flush(1ms));
    gate->pass();
    CHECK(tracker.flush(long_enough));
}

TEST_CASE("background tracker: a failed request is retried and its final error is reported") {
    event_log events;
    int failures = 3;
    auto transport = pl::transport_from([&](const pl::http_request&) -> pl::transport_result {
        return failures-- > 0 ? status_response(503) : status_response(200);
    });
    {
        pl::background_tracker tracker{with_key(), transport, events.callbacks(), immediate_retries()};
        CHECK(tracker.track_prompt(valid_request()).has_value());
        CHECK(tracker.flush(long_enough));
    }
    failures = 100;
    pl::background_tracker tracker{with_key(), transport, events.callbacks(), immediate_retries(2)};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.flush(long_enough));
    CHECK(failures == 98);
    CHECK(events.all() == std::vector<std::string>{"1 tracked", "1 failed 503"});
}

TEST_CASE("background tracker: a request dropped for a newer one is reported") {
    event_log events;
    gated_transport transport;
    const auto gate = transport.state;
    pl::background_settings settings;
    settings.outbox.max_requests = 2;
    settings.outbox.drop_oldest = true;
    pl::background_tracker tracker{with_key(), transport, events.callbacks(), settings};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    gate->await_sent(1);
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.track_prompt(valid_request()).has_value());
    gate->pass();
    CHECK(tracker.flush(long_enough));
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 3, .delivered = 2, .dropped = 1});
    CHECK(events.all().size() == 3);
}

TEST_CASE("background tracker: a wrong key stops sending until reconfigure; flush returns at once") {
    std::atomic<int> sent{0};
    auto transport = pl::transport_from([&](const pl::http_request& request) -> pl::transport_result {
        ++sent;
        return status_response(*pl::find_header(request.headers, "X-API-KEY") == "pl_right" ? 200 : 401);
    });
    pl::background_tracker tracker{with_key("pl_wrong"), transport};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.track_prompt(valid_request()).has_value());
    const auto start = steady_clock::now();
    CHECK_FALSE(tracker.flush(long_enough));
    CHECK(steady_clock::now() - start < long_enough);
    REQUIRE(tracker.paused_by());
    CHECK(tracker.paused_by()->code == pl::errc::unauthorized);
    CHECK(sent == 1);
    CHECK_FALSE(tracker.reconfigure({}));
    CHECK(tracker.paused_by());
    CHECK(tracker.reconfigure(with_key("pl_right")));
    CHECK(tracker.flush(long_enough));
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 2, .delivered = 2});
}

TEST_CASE("background tracker: a paused tracker queues requests and sends none") {
    pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
    tracker.pause();
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK_FALSE(tracker.flush(long_enough));
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 1, .waiting = 1});
    tracker.resume();
    CHECK(tracker.flush(long_enough));
}

TEST_CASE("background tracker: close sends until its timeout, then returns the rest in order") {
    {
        pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
        CHECK(tracker.track_prompt(valid_request()).has_value());
        CHECK(tracker.close(long_enough).empty());
        CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::closed);
        CHECK(tracker.flush(0ms));
        CHECK(tracker.close(long_enough).empty());
        CHECK(tracker.stats().delivered == 1);
    }
    gated_transport transport;
    const auto gate = transport.state;
    pl::background_tracker tracker{with_key(), transport};
    for (std::int64_t id = 1; id <= 3; ++id)
        CHECK(tracker.track_prompt(valid_request(id)).has_value());
    gate->await_sent(1);
    const auto start = steady_clock::now();
    const auto undelivered = tracker.close(50ms);
    CHECK(steady_clock::now() - start >= 50ms);
    CHECK(steady_clock::now() - start < long_enough);
    CHECK(gate->cancels > 0);
    REQUIRE(undelivered.size() == 3); // the request in flight included
    CHECK(undelivered[0].request.body == R"({"prompt_name":"a","request_id":1})");
    CHECK(undelivered[2].id == 3);
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 3, .handed_back = 3});
}

TEST_CASE("background tracker: close waits for the request in flight if it cannot be cancelled") {
    gated_transport transport;
    const auto gate = transport.state;
    auto without_cancel =
        pl::transport_from([transport](const pl::http_request& r) mutable { return transport.send(r); });
    pl::background_tracker tracker{with_key(), without_cancel};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.track_prompt(valid_request()).has_value());
    gate->await_sent(1);
    std::thread opener{[&] { gate->pass(); }};
    const auto undelivered = tracker.close(0ms);
    opener.join();
    CHECK(undelivered.size() + tracker.stats().delivered == 2);
    CHECK(tracker.stats().delivered >= 1);
}

TEST_CASE("background tracker: the destructor reports undelivered requests") {
    event_log events;
    gated_transport transport;
    const auto gate = transport.state;
    pl::background_settings settings;
    settings.close_timeout = 10ms;
    {
        pl::background_tracker tracker{with_key(), transport, events.callbacks(), settings};
        CHECK(tracker.track_prompt(valid_request()).has_value());
        CHECK(tracker.track_prompt(valid_request()).has_value());
        gate->await_sent(1);
    }
    CHECK(events.all() == std::vector<std::string>{"1 left", "2 left"});
}

TEST_CASE("background tracker: a callback may call any member; flush and close do not wait there") {
    std::optional<pl::background_tracker> tracker;
    std::atomic<int> calls{0};
    std::atomic<bool> flushed{true}, closed_empty{false};
    tracker.emplace(with_key(), pl::testing::recording_transport{},
                    pl::tracker_callbacks{.on_delivered =
                                              [&](pl::outbox::id, const pl::track_response&) {
                                                  if (++calls == 1) {
                                                      std::ignore = tracker->track_prompt(valid_request());
                                                      std::ignore = tracker->track_prompt(valid_request());
                                                      flushed = tracker->flush(long_enough);
                                                  } else if (calls == 2) {
                                                      closed_empty = tracker->close(long_enough).empty();
                                                  }
                                              },
                                          .on_failed = {},
                                          .on_undelivered = {}});
    std::ignore = tracker->track_prompt(valid_request());
    CHECK(tracker->flush(long_enough));
    CHECK(calls == 3);
    CHECK_FALSE(flushed);
    CHECK(closed_empty);
    CHECK(tracker->track_prompt(valid_request()).error().code == pl::errc::closed);
}

TEST_CASE("background tracker: every request of eight threads is accounted for") {
    std::atomic<int> delivered{0}, failed{0};
    pl::background_tracker tracker{
        with_key(),
        pl::testing::recording_transport{},
        {.on_delivered = [&](pl::outbox::id, const pl::track_response&) { ++delivered; },
         .on_failed = [&](const pl::outbox::ended&) { ++failed; },
         .on_undelivered = {}}};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 100; ++n) {
                CHECK(tracker.track_prompt(valid_request(n)));
                if (n % 10 == 0) {
                    tracker.stats();
                    tracker.paused_by();
                    std::ignore = tracker.reconfigure(with_key());
                }
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(tracker.flush(long_enough));
    CHECK(delivered == 800);
    CHECK(failed == 0);
}

TEST_CASE("background tracker: a thousand starts and stops under load lose nothing") {
    std::size_t delivered = 0, undelivered = 0;
    for (int i = 0; i < 1'000; ++i) {
        pl::background_tracker tracker{with_key(), pl::testing::recording_transport{}};
        std::thread other{[&] { std::ignore = tracker.track_prompt(valid_request()); }};
        for (int n = 0; n < 3; ++n)
            CHECK(tracker.track_prompt(valid_request()).has_value());
        other.join();
        undelivered += tracker.close(i % 2 == 0 ? 0ms : std::chrono::milliseconds{long_enough}).size();
        delivered += static_cast<std::size_t>(tracker.stats().delivered);
    }
    CHECK(delivered + undelivered == 4'000);
    CHECK(delivered >= 2'000);
}

#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // these have no fork
TEST_CASE("background tracker: every call fails in a forked child, and the parent delivers") {
    gated_transport transport;
    const auto gate = transport.state;
    std::optional<pl::background_tracker> tracker;
    tracker.emplace(with_key(), transport);
    std::ignore = tracker->track_prompt(valid_request());
    gate->await_sent(1);
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        bool all_closed = tracker->track_prompt(valid_request()).error().code == pl::errc::closed &&
                          !tracker->flush(long_enough) && tracker->close(long_enough).empty() &&
                          !tracker->reconfigure(with_key()) && tracker->stats() == pl::outbox_stats{} &&
                          !tracker->paused_by();
        tracker->pause();
        tracker->resume();
        tracker.reset();
        ::_exit(all_closed ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    gate->pass();
    CHECK(tracker->flush(long_enough));
    CHECK(tracker->stats().delivered == 1);
}
#endif

#if defined(__cpp_exceptions)
TEST_CASE("background tracker: exceptions of callbacks and transports are contained") {
    auto transport = pl::transport_from([](const pl::http_request&) -> pl::transport_result { throw 7; });
    std::atomic<int> events{0};
    pl::background_tracker tracker{with_key(),
                                   transport,
                                   {.on_delivered = {},
                                    .on_failed =
                                        [&](const pl::outbox::ended&) {
                                            ++events;
                                            throw 8;
                                        },
                                    .on_undelivered = {}},
                                   immediate_retries(1)};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.flush(long_enough));
    CHECK(events == 2);
}
#endif
