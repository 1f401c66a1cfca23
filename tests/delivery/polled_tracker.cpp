#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;

namespace {

using tracker = pl::polled_tracker<pl::testing::recording_async_transport>;

pl::track_prompt request(std::int64_t id = 1) { return {.prompt_name = "a", .request_id = id}; }

pl::http_response answer(int status) { return {status, {}, ""}; }

/// A tracker, what it told, and the time of its frames.
struct tested {
    std::vector<std::string> told{};
    pl::outbox::time_point now{1h};
    tracker t;

    explicit tested(pl::outbox_settings limits = {}, pl::config config = {.api_key = "pl_key"})
        : t(std::move(config), {},
            {.on_delivered =
                 [this](pl::outbox::id id, const pl::track_response& tracked) {
                     told.push_back(std::to_string(id) + " " + tracked.message);
                 },
             .on_failed =
                 [this](const pl::outbox::ended& ended) {
                     told.push_back(std::to_string(ended.id) + " failed " +
                                    (ended.why ? std::to_string(ended.why->status) : ""));
                 },
             .on_undelivered = {}},
            limits, nullptr, [] { return 1.0; }) {}

    std::size_t frame(std::chrono::milliseconds later = 16ms) {
        now += later;
        return t.poll(now);
    }

    std::size_t sent() { return t.transport().requests().size(); }
};

} // namespace

TEST_CASE("polled tracker: a request is queued, sent by poll, and told by poll once it is answered") {
    tested x;
    CHECK(*x.t.track_prompt({.prompt_name = "a", .request_id = 1}) == 1);
    CHECK(x.sent() == 0);
    CHECK(x.frame() == 1);
    CHECK(x.sent() == 1);
    CHECK(x.t.transport().requests()[0].body == R"({"prompt_name":"a","request_id":1})");
    CHECK(*pl::find_header(x.t.transport().requests()[0].headers, "X-API-KEY") == "pl_key");
    x.t.transport().complete_all();
    CHECK(x.told.empty()); // not before poll
    CHECK(x.frame() == 0);
    CHECK(x.told == std::vector<std::string>{"1 recorded"});
    CHECK(x.t.stats() == pl::outbox_stats{.pushed = 1, .delivered = 1});
}

TEST_CASE("polled tracker: what was tracked before the first poll is as old as that") {
    tested x;
    REQUIRE(x.t.track_prompt(request()));
    x.t.transport().respond(answer(503));
    x.frame(48h);
    x.t.transport().complete_all();
    x.frame();
    CHECK(x.told.empty());
    CHECK(x.t.pending() == 1);
}

TEST_CASE("polled tracker: an invalid request or config is told to the caller and not queued") {
    tested x;
    CHECK(x.t.track_prompt({.prompt_name = "", .request_id = 1}).error().code == pl::errc::invalid_request);
    tested keyless{{}, {}};
    CHECK(keyless.t.track_prompt(request()).error().code == pl::errc::invalid_config);
    CHECK(x.t.pending() + keyless.t.pending() == 0);
    CHECK(x.t.track_prompt(pl::track_prompt_view{.prompt_name = "v", .request_id = 2}));
}

TEST_CASE("polled tracker: no more begin in one poll than allowed") {
    tested x{{.max_in_flight = 10}};
    for (int i = 0; i < 10; ++i)
        CHECK(x.t.track_prompt(request()).has_value());
    x.t.poll(x.now, 3);
    CHECK(x.sent() == 3);
    x.t.poll(x.now, 0);
    CHECK(x.sent() == 3);
    x.t.poll(x.now);
    CHECK(x.sent() == 7);
}

TEST_CASE("polled tracker: what the transport completes on another thread, or within send, is told by poll") {
    tested x;
    CHECK(x.t.track_prompt(request()).has_value());
    x.frame();
    std::thread{[&] { x.t.transport().complete_all(); }}.join();
    CHECK(x.told.empty());
    x.frame();
    CHECK(x.told.size() == 1);

    std::size_t delivered = 0;
    auto at_once = pl::transport_from([](pl::http_request, pl::completion done) {
        done(pl::http_response{200, {}, R"({"success":true,"message":""})"});
    });
    pl::polled_tracker other{{.api_key = "pl_key"},
                             at_once,
                             {.on_delivered = [&](pl::outbox::id, const pl::track_response&) { ++delivered; },
                              .on_failed = {},
                              .on_undelivered = {}}};
    CHECK(other.track_prompt(request()).has_value());
    CHECK(other.poll(x.now) == 1);
    CHECK(delivered == 0);
    CHECK(other.poll(x.now) == 0);
    CHECK(delivered == 1);
}

TEST_CASE("polled tracker: what fails is sent again when its time has come, and told when it ends") {
    tested x{{.retry = {.max_attempts = 2}}};
    CHECK(x.t.track_prompt(request()).has_value());
    x.frame();
    x.t.transport().respond(answer(503));
    x.t.transport().complete_all();
    CHECK(x.frame() == 1);
    x.frame(2s - 1ms);
    CHECK(x.sent() == 1);
    x.frame(1ms);
    CHECK(x.sent() == 2);
    x.t.transport().respond(answer(500));
    x.t.transport().complete_all();
    CHECK(x.frame() == 0);
    CHECK(x.told == std::vector<std::string>{"1 failed 500"});
}

TEST_CASE("polled tracker: what is dropped for a newer one is told by the next poll") {
    tested x{{.max_requests = 1, .drop_oldest = true}};
    CHECK(x.t.track_prompt(request()).has_value());
    CHECK(*x.t.track_prompt(request()) == 2);
    CHECK(x.told.empty());
    x.frame();
    CHECK(x.told == std::vector<std::string>{"1 failed "});
    tested full{{.max_requests = 1}};
    CHECK(full.t.track_prompt(request()).has_value());
    CHECK(full.t.track_prompt(request()).error().code == pl::errc::queue_full);
}

TEST_CASE("polled tracker: a wrong key holds up everything until another is given, which is then sent") {
    tested x;
    CHECK(x.t.track_prompt(request()).has_value());
    x.frame();
    x.t.transport().respond(answer(401));
    x.t.transport().complete_all();
    x.frame();
    REQUIRE(x.t.paused_by());
    CHECK(x.t.paused_by()->code == pl::errc::unauthorized);
    x.frame(24h);
    CHECK(x.sent() == 1);
    CHECK(x.t.reconfigure({.api_key = ""}).error().code == pl::errc::invalid_config);
    CHECK(x.t.paused_by());
    CHECK(x.t.reconfigure({.api_key = "pl_new", .base_url = "https://elsewhere.example"}));
    CHECK_FALSE(x.t.paused_by());
    x.frame();
    REQUIRE(x.sent() == 2);
    CHECK(*pl::find_header(x.t.transport().requests()[1].headers, "X-API-KEY") == "pl_new");
    CHECK(x.t.transport().requests()[1].url == "https://elsewhere.example/rest/track-prompt");
    x.t.transport().complete_all();
    x.frame();
    CHECK(x.told == std::vector<std::string>{"1 recorded"});
}

TEST_CASE("polled tracker: a config that is bad at first may be mended") {
    tested x{{}, {}};
    CHECK_FALSE(x.t.track_prompt(request()));
    CHECK(x.t.reconfigure({.api_key = "pl_key"}));
    CHECK(x.t.track_prompt(request()));
}

TEST_CASE("polled tracker: paused, it queues and sends nothing") {
    tested x;
    x.t.pause();
    CHECK(x.t.track_prompt(request()).has_value());
    CHECK(x.frame() == 1);
    CHECK(x.sent() == 0);
    x.t.resume();
    x.frame();
    CHECK(x.sent() == 1);
}

TEST_CASE(
    "polled tracker: close gives back what has not ended, once, and what is answered later is not told") {
    tested x{{.max_in_flight = 1}};
    CHECK(x.t.track_prompt(request(1)).has_value());
    CHECK(x.t.track_prompt(request(2)).has_value());
    x.frame();
    const auto left = x.t.close();
    REQUIRE(left.size() == 2);
    CHECK(left[0].id == 1);
    CHECK(left[1].request.body == R"({"prompt_name":"a","request_id":2})");
    CHECK(x.t.close().empty());
    CHECK(x.t.track_prompt(request()).error().code == pl::errc::closed);
    x.t.transport().complete_all();
    CHECK(x.frame() == 0);
    CHECK(x.told.empty());
    CHECK(x.t.stats() == pl::outbox_stats{.pushed = 2, .handed_back = 2});
}

TEST_CASE("polled tracker: one that is destroyed hands back what it has") {
    std::vector<pl::outbox::ended> left;
    {
        pl::polled_tracker t{
            {.api_key = "pl_key"},
            pl::testing::recording_async_transport{},
            {.on_delivered = {}, .on_failed = {}, .on_undelivered = [&](std::vector<pl::outbox::ended> all) {
                 left = std::move(all);
             }}};
        CHECK(t.track_prompt(request()).has_value());
        CHECK(t.track_prompt(request()).has_value());
        t.poll({});
    }
    CHECK(left.size() == 2);
}

TEST_CASE("polled tracker: a callback may track, pause and ask, and a poll within it does nothing") {
    std::optional<tracker> t;
    int delivered = 0;
    t.emplace(pl::config{.api_key = "pl_key"}, pl::testing::recording_async_transport{},
              pl::tracker_callbacks{.on_delivered =
                                        [&](pl::outbox::id, const pl::track_response&) {
                                            if (++delivered < 3)
                                                std::ignore = t->track_prompt(request());
                                            CHECK(t->poll({}) == t->pending());
                                        },
                                    .on_failed = {},
                                    .on_undelivered = {}});
    std::ignore = t->track_prompt(request());
    for (int frame = 0; t->poll({}) != 0; ++frame) {
        REQUIRE(frame < 20);
        t->transport().complete_all();
    }
    CHECK(delivered == 3);
}

TEST_CASE("polled tracker: a transport with a poll of its own is turned") {
    struct turned : pl::testing::recording_async_transport {
        int* turns;
        explicit turned(int& count) : turns(&count) {}
        void poll() {
            ++*turns;
            complete_all();
        }
    };
    int turns = 0;
    pl::polled_tracker t{{.api_key = "pl_key"}, turned{turns}};
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.poll({}) == 1);
    CHECK(t.poll({}) == 0);
    CHECK(turns == 2);
}

#if defined(__cpp_exceptions)
TEST_CASE("polled tracker: a callback that throws harms nothing, nor does a transport that does") {
    int failed = 0;
    pl::polled_tracker t{{.api_key = "pl_key"},
                         pl::transport_from([](pl::http_request, pl::completion) { throw 7; }),
                         {.on_delivered = {},
                          .on_failed =
                              [&](const pl::outbox::ended&) {
                                  ++failed;
                                  throw 8;
                              },
                          .on_undelivered = {}},
                         {.retry = {.max_attempts = 1}}};
    CHECK(t.track_prompt(request()).has_value());
    CHECK(t.track_prompt(request()).has_value());
    t.poll({});
    t.poll({});
    CHECK(failed == 2);
    CHECK(t.pending() == 0);
}
#endif
