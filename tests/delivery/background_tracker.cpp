#include <promptlayer.hpp>

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

namespace {

constexpr auto long_enough = 20s;

pl::track_prompt request(std::int64_t id = 1) { return {.prompt_name = "a", .request_id = id}; }

pl::http_response answer(int status) { return {status, {}, R"({"success":true,"message":"tracked"})"}; }

pl::config with_key(const char* key = "pl_key") { return {.api_key = key}; }

/// Fails at once again, or five times.
pl::background_settings at_once(std::uint32_t attempts = 0) {
    pl::background_settings made;
    made.outbox.retry.max_attempts = attempts;
    made.outbox.retry.initial_delay = made.outbox.retry.max_delay = 0ms;
    return made;
}

/// What a tracker told, from its thread.
struct record {
    std::mutex mutex{};
    std::vector<std::string> lines{};

    void add(std::string line) {
        const std::lock_guard held{mutex};
        lines.push_back(std::move(line));
    }
    std::vector<std::string> all() {
        const std::lock_guard held{mutex};
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
                    [this](const std::vector<pl::outbox::ended>& left) {
                        for (const auto& one : left)
                            add(std::to_string(one.id) + " left");
                    }};
    }
};

/// A transport whose requests end when the test says so, or are cancelled.
struct gated_transport {
    struct gate {
        std::mutex mutex{};
        std::condition_variable changed{};
        bool open = false;
        int sent = 0;
        int cancels = 0;
        bool cancelled = false;

        void pass() {
            const std::lock_guard held{mutex};
            open = true;
            changed.notify_all();
        }
        void await_sent(int count) {
            std::unique_lock held{mutex};
            CHECK(changed.wait_for(held, long_enough, [&] { return sent >= count; }));
        }
    };
    std::shared_ptr<gate> at = std::make_shared<gate>();

    pl::transport_result send(const pl::http_request&) {
        std::unique_lock held{at->mutex};
        ++at->sent;
        at->cancelled = false;
        at->changed.notify_all();
        at->changed.wait(held, [&] { return at->open || at->cancelled; });
        if (at->cancelled)
            return pl::transport_failure{pl::failure::cancelled, "cancelled"};
        return answer(200);
    }

    void cancel() {
        const std::lock_guard held{at->mutex};
        ++at->cancels;
        at->cancelled = true;
        at->changed.notify_all();
    }
};

} // namespace

TEST_CASE("background tracker: requests are delivered in order, and told on a thread of its own") {
    record told;
    std::atomic<std::thread::id> teller{};
    auto callbacks = told.callbacks();
    callbacks.on_delivered = [&, tell = callbacks.on_delivered](pl::outbox::id id,
                                                                const pl::track_response& tracked) {
        teller = std::this_thread::get_id();
        tell(id, tracked);
    };
    pl::background_tracker t{with_key(), pl::testing::recording_transport{}, callbacks};
    CHECK(*t.track_prompt({.prompt_name = "a", .request_id = 1}) == 1);
    CHECK(*t.track_prompt(pl::track_prompt_view{.prompt_name = "b", .request_id = 2}) == 2);
    CHECK(t.flush(long_enough));
    CHECK(told.all() == std::vector<std::string>{"1 recorded", "2 recorded"});
    CHECK(teller.load() != std::this_thread::get_id());
    CHECK(t.stats() == pl::outbox_stats{.pushed = 2, .delivered = 2});
}

TEST_CASE("background tracker: an invalid request or config is told to the caller and not queued") {
    pl::background_tracker t{with_key(), pl::testing::recording_transport{}};
    CHECK(t.track_prompt({.prompt_name = "", .request_id = 1}).error().code == pl::errc::invalid_request);
    pl::background_tracker keyless{pl::config{}, pl::testing::recording_transport{}};
    CHECK(keyless.track_prompt(request()).error().code == pl::errc::invalid_config);
    CHECK(keyless.reconfigure(with_key()));
    CHECK(keyless.track_prompt(request()));
    CHECK(keyless.flush(long_enough));
    CHECK(t.stats() == pl::outbox_stats{});
}

TEST_CASE("background tracker: tracking does not wait for the network, and says when the queue is full") {
    gated_transport gated;
    const auto gate = gated.at;
    pl::background_settings two;
    two.outbox.max_requests = 2;
    pl::background_tracker t{with_key(), gated, {}, two};
    CHECK(t.track_prompt(request()));
    gate->await_sent(1);
    CHECK(t.track_prompt(request()));
    CHECK(t.track_prompt(request()).error().code == pl::errc::queue_full);
    CHECK_FALSE(t.flush(1ms));
    gate->pass();
    CHECK(t.flush(long_enough));
}

TEST_CASE("background tracker: what fails is sent again; how it ends is told, with why") {
    record told;
    int left = 3;
    auto flaky = pl::transport_from([&](const pl::http_request&) -> pl::transport_result {
        return left-- > 0 ? answer(503) : answer(200);
    });
    {
        pl::background_tracker t{with_key(), flaky, told.callbacks(), at_once()};
        CHECK(t.track_prompt(request()).has_value());
        CHECK(t.flush(long_enough));
    }
    left = 100;
    pl::background_tracker t{with_key(), flaky, told.callbacks(), at_once(2)};
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.flush(long_enough));
    CHECK(left == 98);
    CHECK(told.all() == std::vector<std::string>{"1 tracked", "1 failed 503"});
}

TEST_CASE("background tracker: what is dropped for a newer one is told") {
    record told;
    gated_transport gated;
    const auto gate = gated.at;
    pl::background_settings two;
    two.outbox.max_requests = 2;
    two.outbox.drop_oldest = true;
    pl::background_tracker t{with_key(), gated, told.callbacks(), two};
    CHECK(t.track_prompt(request()).has_value());
    gate->await_sent(1);
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.track_prompt(request()).has_value());
    gate->pass();
    CHECK(t.flush(long_enough));
    CHECK(t.stats() == pl::outbox_stats{.pushed = 3, .delivered = 2, .dropped = 1});
    CHECK(told.all().size() == 3);
}

TEST_CASE("background tracker: a wrong key holds up everything until another is given; flush does not wait "
          "for that") {
    std::atomic<int> sent{0};
    auto keyed = pl::transport_from([&](const pl::http_request& asked) -> pl::transport_result {
        ++sent;
        return answer(*pl::find_header(asked.headers, "X-API-KEY") == "pl_right" ? 200 : 401);
    });
    pl::background_tracker t{with_key("pl_wrong"), keyed};
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.track_prompt(request()).has_value());
    const auto begun = steady_clock::now();
    CHECK_FALSE(t.flush(long_enough));
    CHECK(steady_clock::now() - begun < long_enough);
    REQUIRE(t.paused_by());
    CHECK(t.paused_by()->code == pl::errc::unauthorized);
    CHECK(sent == 1);
    CHECK_FALSE(t.reconfigure({}));
    CHECK(t.paused_by());
    CHECK(t.reconfigure(with_key("pl_right")));
    CHECK(t.flush(long_enough));
    CHECK(t.stats() == pl::outbox_stats{.pushed = 2, .delivered = 2});
}

TEST_CASE("background tracker: paused, it queues and sends nothing") {
    pl::background_tracker t{with_key(), pl::testing::recording_transport{}};
    t.pause();
    CHECK(t.track_prompt(request()).has_value());
    CHECK_FALSE(t.flush(long_enough));
    CHECK(t.stats() == pl::outbox_stats{.pushed = 1, .waiting = 1});
    t.resume();
    CHECK(t.flush(long_enough));
}

TEST_CASE("background tracker: close sends what it can in its time, and gives back the rest in order") {
    {
        pl::background_tracker t{with_key(), pl::testing::recording_transport{}};
        CHECK(t.track_prompt(request()).has_value());
        CHECK(t.close(long_enough).empty());
        CHECK(t.track_prompt(request()).error().code == pl::errc::closed);
        CHECK(t.flush(0ms));
        CHECK(t.close(long_enough).empty());
        CHECK(t.stats().delivered == 1);
    }
    gated_transport gated;
    const auto gate = gated.at;
    pl::background_tracker t{with_key(), gated};
    for (std::int64_t id = 1; id <= 3; ++id)
        CHECK(t.track_prompt(request(id)).has_value());
    gate->await_sent(1);
    const auto begun = steady_clock::now();
    const auto left = t.close(50ms);
    CHECK(steady_clock::now() - begun >= 50ms);
    CHECK(steady_clock::now() - begun < long_enough);
    CHECK(gate->cancels > 0);
    REQUIRE(left.size() == 3); // what was in flight, too
    CHECK(left[0].request.body == R"({"prompt_name":"a","request_id":1})");
    CHECK(left[2].id == 3);
    CHECK(t.stats() == pl::outbox_stats{.pushed = 3, .handed_back = 3});
}

TEST_CASE(
    "background tracker: without a cancel, close waits for the request in flight and keeps its outcome") {
    gated_transport gated;
    const auto gate = gated.at;
    auto uncancellable =
        pl::transport_from([gated](const pl::http_request& r) mutable { return gated.send(r); });
    pl::background_tracker t{with_key(), uncancellable};
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.track_prompt(request()).has_value());
    gate->await_sent(1);
    std::thread opens{[&] { gate->pass(); }};
    const auto left = t.close(0ms);
    opens.join();
    CHECK(left.size() + t.stats().delivered == 2);
    CHECK(t.stats().delivered >= 1);
}

TEST_CASE("background tracker: one that is destroyed hands back what it has") {
    record told;
    gated_transport gated;
    const auto gate = gated.at;
    pl::background_settings soon;
    soon.close_timeout = 10ms;
    {
        pl::background_tracker t{with_key(), gated, told.callbacks(), soon};
        CHECK(t.track_prompt(request()).has_value());
        CHECK(t.track_prompt(request()).has_value());
        gate->await_sent(1);
    }
    CHECK(told.all() == std::vector<std::string>{"1 left", "2 left"});
}

TEST_CASE("background tracker: a callback may call any member; flush and close do not wait there") {
    std::optional<pl::background_tracker> t;
    std::atomic<int> calls{0};
    std::atomic<bool> flushed{true}, closed_empty{false};
    t.emplace(with_key(), pl::testing::recording_transport{},
              pl::tracker_callbacks{.on_delivered =
                                        [&](pl::outbox::id, const pl::track_response&) {
                                            if (++calls == 1) {
                                                std::ignore = t->track_prompt(request());
                                                std::ignore = t->track_prompt(request());
                                                flushed = t->flush(long_enough);
                                            } else if (calls == 2) {
                                                closed_empty = t->close(long_enough).empty();
                                            }
                                        },
                                    .on_failed = {},
                                    .on_undelivered = {}});
    std::ignore = t->track_prompt(request());
    CHECK(t->flush(long_enough));
    CHECK(calls == 3);
    CHECK_FALSE(flushed);
    CHECK(closed_empty);
    CHECK(t->track_prompt(request()).error().code == pl::errc::closed);
}

TEST_CASE("background tracker: eight threads track at once, and every request is accounted for") {
    std::atomic<int> delivered{0}, failed{0};
    pl::background_tracker t{with_key(),
                             pl::testing::recording_transport{},
                             {.on_delivered = [&](pl::outbox::id, const pl::track_response&) { ++delivered; },
                              .on_failed = [&](const pl::outbox::ended&) { ++failed; },
                              .on_undelivered = {}}};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 100; ++n) {
                CHECK(t.track_prompt(request(n)));
                if (n % 10 == 0) {
                    t.stats();
                    t.paused_by();
                    std::ignore = t.reconfigure(with_key());
                }
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(t.flush(long_enough));
    CHECK(delivered == 800);
    CHECK(failed == 0);
}

TEST_CASE("background tracker: a thousand starts and stops under load lose nothing") {
    std::size_t delivered = 0, left = 0;
    for (int i = 0; i < 1'000; ++i) {
        pl::background_tracker t{with_key(), pl::testing::recording_transport{}};
        std::thread other{[&] { std::ignore = t.track_prompt(request()); }};
        for (int n = 0; n < 3; ++n)
            CHECK(t.track_prompt(request()).has_value());
        other.join();
        left += t.close(i % 2 == 0 ? 0ms : std::chrono::milliseconds{long_enough}).size();
        delivered += static_cast<std::size_t>(t.stats().delivered);
    }
    CHECK(delivered + left == 4'000);
    CHECK(delivered >= 2'000);
}

#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // which have no fork
TEST_CASE("background tracker: in a child of fork every call says closed, and the parent delivers") {
    gated_transport gated;
    const auto gate = gated.at;
    std::optional<pl::background_tracker> t;
    t.emplace(with_key(), gated);
    std::ignore = t->track_prompt(request());
    gate->await_sent(1);
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        bool right = t->track_prompt(request()).error().code == pl::errc::closed && !t->flush(long_enough) &&
                     t->close(long_enough).empty() && !t->reconfigure(with_key()) &&
                     t->stats() == pl::outbox_stats{} && !t->paused_by();
        t->pause();
        t->resume();
        t.reset();
        ::_exit(right ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    gate->pass();
    CHECK(t->flush(long_enough));
    CHECK(t->stats().delivered == 1);
}
#endif

#if defined(__cpp_exceptions)
TEST_CASE("background tracker: a callback that throws harms nothing, nor does a transport that does") {
    auto throwing = pl::transport_from([](const pl::http_request&) -> pl::transport_result { throw 7; });
    std::atomic<int> told{0};
    pl::background_tracker t{with_key(),
                             throwing,
                             {.on_delivered = {},
                              .on_failed =
                                  [&](const pl::outbox::ended&) {
                                      ++told;
                                      throw 8;
                                  },
                              .on_undelivered = {}},
                             at_once(1)};
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.flush(long_enough));
    CHECK(told == 2);
}
#endif
