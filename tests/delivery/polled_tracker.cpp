#include <promptlayer.hpp>

#include "../support/samples.hpp"

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
using test_support::status_response;
using test_support::valid_request;

namespace {

using recording_tracker = pl::polled_tracker<pl::testing::recording_async_transport>;

/// A tracker, its reports and the time of its frames.
struct tracker_fixture {
    std::vector<std::string> reports{};
    pl::outbox::time_point now{1h};
    recording_tracker tracker;

    explicit tracker_fixture(pl::outbox_settings limits = {}, pl::config config = {.api_key = "pl_key"})
        : tracker(std::move(config), {},
                  {.on_delivered =
                       [this](pl::outbox::id id, const pl::track_response& tracked) {
                           reports.push_back(std::to_string(id) + " " + tracked.message);
                       },
                   .on_failed =
                       [this](const pl::outbox::ended& ended) {
                           reports.push_back(std::to_string(ended.id) + " failed " +
                                             (ended.why ? std::to_string(ended.why->status) : ""));
                       },
                   .on_undelivered = {}},
                  limits, nullptr, [] { return 1.0; }) {}

    std::size_t frame(std::chrono::milliseconds later = 16ms) {
        now += later;
        return tracker.poll(now);
    }

    std::size_t sent() { return tracker.transport().requests().size(); }
};

} // namespace

TEST_CASE("polled tracker: poll sends a queued request and reports its response") {
    tracker_fixture fixture;
    CHECK(*fixture.tracker.track_prompt({.prompt_name = "a", .request_id = 1}) == 1);
    CHECK(fixture.sent() == 0);
    CHECK(fixture.frame() == 1);
    CHECK(fixture.sent() == 1);
    CHECK(fixture.tracker.transport().requests()[0].body == R"({"prompt_name":"a","request_id":1})");
    CHECK(*pl::find_header(fixture.tracker.transport().requests()[0].headers, "X-API-KEY") == "pl_key");
    fixture.tracker.transport().complete_all();
    CHECK(fixture.reports.empty()); // not before poll
    CHECK(fixture.frame() == 0);
    CHECK(fixture.reports == std::vector<std::string>{"1 recorded"});
    CHECK(fixture.tracker.stats() == pl::outbox_stats{.pushed = 1, .delivered = 1});
}

TEST_CASE("polled tracker: age is measured from the first poll") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker.track_prompt(valid_request()));
    fixture.tracker.transport().respond(status_response(503));
    fixture.frame(48h);
    fixture.tracker.transport().complete_all();
    fixture.frame();
    CHECK(fixture.reports.empty());
    CHECK(fixture.tracker.pending() == 1);
}

TEST_CASE("polled tracker: an invalid request or config is reported to the caller, not queued") {
    tracker_fixture fixture;
    CHECK(fixture.tracker.track_prompt({.prompt_name = "", .request_id = 1}).error().code ==
          pl::errc::invalid_request);
    tracker_fixture keyless{{}, {}};
    CHECK(keyless.tracker.track_prompt(valid_request()).error().code == pl::errc::invalid_config);
    CHECK(fixture.tracker.pending() + keyless.tracker.pending() == 0);
    CHECK(fixture.tracker.track_prompt(pl::track_prompt_view{.prompt_name = "v", .request_id = 2}));
}

TEST_CASE("polled tracker: no error shows the key in a variable's name") {
    tracker_fixture fixture{{}, {.api_key = "pl_sesame"}};
    const auto rejected = fixture.tracker.track_prompt(
        {.prompt_name = "a", .prompt_input_variables = {{"my pl_sesame", "\xFF"}}, .request_id = 1});
    CHECK(to_string(rejected.error()).find("sesame") == std::string::npos);
}

TEST_CASE("polled tracker: a poll starts no more requests than its argument allows") {
    tracker_fixture fixture{{.max_in_flight = 10}};
    for (int i = 0; i < 10; ++i)
        CHECK(fixture.tracker.track_prompt(valid_request()).has_value());
    fixture.tracker.poll(fixture.now, 3);
    CHECK(fixture.sent() == 3);
    fixture.tracker.poll(fixture.now, 0);
    CHECK(fixture.sent() == 3);
    fixture.tracker.poll(fixture.now);
    CHECK(fixture.sent() == 7);
}

TEST_CASE("polled tracker: poll reports completions from other threads and from within send") {
    tracker_fixture fixture;
    CHECK(fixture.tracker.track_prompt(valid_request()).has_value());
    fixture.frame();
    std::thread{[&] { fixture.tracker.transport().complete_all(); }}.join();
    CHECK(fixture.reports.empty());
    fixture.frame();
    CHECK(fixture.reports.size() == 1);

    std::size_t delivered = 0;
    auto transport = pl::transport_from([](pl::http_request, pl::completion done) {
        done(pl::http_response{200, {}, R"({"success":true,"message":""})"});
    });
    pl::polled_tracker other_tracker{
        {.api_key = "pl_key"},
        transport,
        {.on_delivered = [&](pl::outbox::id, const pl::track_response&) { ++delivered; },
         .on_failed = {},
         .on_undelivered = {}}};
    CHECK(other_tracker.track_prompt(valid_request()).has_value());
    CHECK(other_tracker.poll(fixture.now) == 1);
    CHECK(delivered == 0);
    CHECK(other_tracker.poll(fixture.now) == 0);
    CHECK(delivered == 1);
}

TEST_CASE("polled tracker: a failed request is retried when due and reported when it ends") {
    tracker_fixture fixture{{.retry = {.max_attempts = 2}}};
    CHECK(fixture.tracker.track_prompt(valid_request()).has_value());
    fixture.frame();
    fixture.tracker.transport().respond(status_response(503));
    fixture.tracker.transport().complete_all();
    CHECK(fixture.frame() == 1);
    fixture.frame(2s - 1ms);
    CHECK(fixture.sent() == 1);
    fixture.frame(1ms);
    CHECK(fixture.sent() == 2);
    fixture.tracker.transport().respond(status_response(500));
    fixture.tracker.transport().complete_all();
    CHECK(fixture.frame() == 0);
    CHECK(fixture.reports == std::vector<std::string>{"1 failed 500"});
}

TEST_CASE("polled tracker: a request dropped for a newer one is reported by the next poll") {
    tracker_fixture fixture{{.max_requests = 1, .drop_oldest = true}};
    CHECK(fixture.tracker.track_prompt(valid_request()).has_value());
    CHECK(*fixture.tracker.track_prompt(valid_request()) == 2);
    CHECK(fixture.reports.empty());
    fixture.frame();
    CHECK(fixture.reports == std::vector<std::string>{"1 failed "});
    tracker_fixture full{{.max_requests = 1}};
    CHECK(full.tracker.track_prompt(valid_request()).has_value());
    CHECK(full.tracker.track_prompt(valid_request()).error().code == pl::errc::queue_full);
}

TEST_CASE("polled tracker: a wrong key stops sending until reconfigure, then the request is sent") {
    tracker_fixture fixture;
    CHECK(fixture.tracker.track_prompt(valid_request()).has_value());
    fixture.frame();
    fixture.tracker.transport().respond(status_response(401));
    fixture.tracker.transport().complete_all();
    fixture.frame();
    REQUIRE(fixture.tracker.paused_by());
    CHECK(fixture.tracker.paused_by()->code == pl::errc::unauthorized);
    fixture.frame(24h);
    CHECK(fixture.sent() == 1);
    CHECK(fixture.tracker.reconfigure({.api_key = ""}).error().code == pl::errc::invalid_config);
    CHECK(fixture.tracker.paused_by());
    CHECK(fixture.tracker.reconfigure({.api_key = "pl_new", .base_url = "https://elsewhere.example"}));
    CHECK_FALSE(fixture.tracker.paused_by());
    fixture.frame();
    REQUIRE(fixture.sent() == 2);
    CHECK(*pl::find_header(fixture.tracker.transport().requests()[1].headers, "X-API-KEY") == "pl_new");
    CHECK(fixture.tracker.transport().requests()[1].url == "https://elsewhere.example/rest/track-prompt");
    fixture.tracker.transport().complete_all();
    fixture.frame();
    CHECK(fixture.reports == std::vector<std::string>{"1 recorded"});
}

TEST_CASE("polled tracker: reconfigure replaces an invalid config") {
    tracker_fixture fixture{{}, {}};
    CHECK_FALSE(fixture.tracker.track_prompt(valid_request()));
    CHECK(fixture.tracker.reconfigure({.api_key = "pl_key"}));
    CHECK(fixture.tracker.track_prompt(valid_request()));
}

TEST_CASE("polled tracker: a paused tracker queues requests and sends none") {
    tracker_fixture fixture;
    fixture.tracker.pause();
    CHECK(fixture.tracker.track_prompt(valid_request()).has_value());
    CHECK(fixture.frame() == 1);
    CHECK(fixture.sent() == 0);
    fixture.tracker.resume();
    fixture.frame();
    CHECK(fixture.sent() == 1);
}

TEST_CASE("polled tracker: close returns undelivered requests once, and late completions are ignored") {
    tracker_fixture fixture{{.max_in_flight = 1}};
    CHECK(fixture.tracker.track_prompt(valid_request(1)).has_value());
    CHECK(fixture.tracker.track_prompt(valid_request(2)).has_value());
    fixture.frame();
    const auto undelivered = fixture.tracker.close();
    REQUIRE(undelivered.size() == 2);
    CHECK(undelivered[0].id == 1);
    CHECK(undelivered[1].request.body == R"({"prompt_name":"a","request_id":2})");
    CHECK(fixture.tracker.close().empty());
    CHECK(fixture.tracker.track_prompt(valid_request()).error().code == pl::errc::closed);
    fixture.tracker.transport().complete_all();
    CHECK(fixture.frame() == 0);
    CHECK(fixture.reports.empty());
    CHECK(fixture.tracker.stats() == pl::outbox_stats{.pushed = 2, .handed_back = 2});
}

TEST_CASE("polled tracker: the destructor reports undelivered requests") {
    std::vector<pl::outbox::ended> undelivered;
    {
        pl::polled_tracker tracker{
            {.api_key = "pl_key"},
            pl::testing::recording_async_transport{},
            {.on_delivered = {}, .on_failed = {}, .on_undelivered = [&](std::vector<pl::outbox::ended> all) {
                 undelivered = std::move(all);
             }}};
        CHECK(tracker.track_prompt(valid_request()).has_value());
        CHECK(tracker.track_prompt(valid_request()).has_value());
        tracker.poll({});
    }
    CHECK(undelivered.size() == 2);
}

TEST_CASE("polled tracker: a callback may call any member, and a poll within it does nothing") {
    std::optional<recording_tracker> tracker;
    int delivered = 0;
    tracker.emplace(pl::config{.api_key = "pl_key"}, pl::testing::recording_async_transport{},
                    pl::tracker_callbacks{.on_delivered =
                                              [&](pl::outbox::id, const pl::track_response&) {
                                                  if (++delivered < 3)
                                                      std::ignore = tracker->track_prompt(valid_request());
                                                  CHECK(tracker->poll({}) == tracker->pending());
                                              },
                                          .on_failed = {},
                                          .on_undelivered = {}});
    std::ignore = tracker->track_prompt(valid_request());
    for (int frame = 0; tracker->poll({}) != 0; ++frame) {
        REQUIRE(frame < 20);
        tracker->transport().complete_all();
    }
    CHECK(delivered == 3);
}

TEST_CASE("polled tracker: poll calls the transport's own poll") {
    struct polled_transport : pl::testing::recording_async_transport {
        int* polls;
        explicit polled_transport(int& count) : polls(&count) {}
        void poll() {
            ++*polls;
            complete_all();
        }
    };
    int polls = 0;
    pl::polled_tracker tracker{{.api_key = "pl_key"}, polled_transport{polls}};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.poll({}) == 1);
    CHECK(tracker.poll({}) == 0);
    CHECK(polls == 2);
}

#if defined(__cpp_exceptions)
TEST_CASE("polled tracker: exceptions of callbacks and transports are contained") {
    int failed = 0;
    pl::polled_tracker tracker{{.api_key = "pl_key"},
                               pl::transport_from([](pl::http_request, pl::completion) { throw 7; }),
                               {.on_delivered = {},
                                .on_failed =
                                    [&](const pl::outbox::ended&) {
                                        ++failed;
                                        throw 8;
                                    },
                                .on_undelivered = {}},
                               {.retry = {.max_attempts = 1}}};
    CHECK(tracker.track_prompt(valid_request()).has_value());
    CHECK(tracker.track_prompt(valid_request()).has_value());
    tracker.poll({});
    tracker.poll({});
    CHECK(failed == 2);
    CHECK(tracker.pending() == 0);
}
#endif
