#include <promptlayer.hpp>

#include "../support/memory_journal.hpp"
#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
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
using std::chrono::steady_clock;
using test_support::memory_journal;
using test_support::status_response;
using test_support::valid_log;
using test_support::valid_request;

namespace {

/// A request that must not be sent twice.
struct log_entry {
    pl::required<std::string> text;

    static constexpr std::string_view path = "/made-up/log";
    static constexpr bool idempotent = false;
    using reply = pl::track_response;
    using schema = pl::schema<pl::field<"text", &log_entry::text>>;
};

std::string name_of(pl::request_outcome outcome) {
    switch (outcome) {
    case pl::request_outcome::delivered: return "delivered";
    case pl::request_outcome::rejected: return "rejected";
    case pl::request_outcome::failed: return "failed";
    case pl::request_outcome::expired: return "expired";
    case pl::request_outcome::dropped: return "dropped";
    case pl::request_outcome::cancelled: return "cancelled";
    case pl::request_outcome::returned: break;
    }
    return "returned";
}

/// A tracker, its reports and the time of its frames. Waits are as long as they can be.
struct tracker_fixture {
    using lines = std::vector<std::string>;

    std::shared_ptr<memory_journal::storage> kept = std::make_shared<memory_journal::storage>();
    pl::testing::recording_async_transport transport{};
    lines reports{};
    steady_clock::time_point now{1h};
    std::optional<pl::polled_tracker> tracker{};

    explicit tracker_fixture(pl::queue_options queue = {}, pl::config config = {.api_key = "pl_key"}) {
        start(queue, std::move(config));
    }

    void start(pl::queue_options queue = {}, pl::config config = {.api_key = "pl_key"}) {
        auto options = reporting();
        options.queue = queue;
        tracker.emplace(std::move(config), std::ref(transport), std::move(options));
    }

    pl::tracker_options reporting() {
        const auto report = [this](const pl::finished_request& request) {
            reports.push_back(std::to_string(request.number) + " " + name_of(request.outcome));
        };
        return {.on_delivered = report,
                .on_failed = report,
                .on_outage =
                    [this](const pl::error& cause) {
                        reports.push_back("outage " + std::to_string(cause.status));
                    },
                .on_recovery = [this] { reports.push_back("recovery"); },
                .journal = std::make_unique<memory_journal>(kept),
                .random = [] { return 1.0; }};
    }

    std::size_t frame(std::chrono::milliseconds later = 16ms) {
        now += later;
        return tracker->poll(now);
    }

    /// Answers all pending requests and polls.
    std::size_t answer(int status, std::chrono::milliseconds later = 16ms) {
        for (auto count = transport.pending(); count > 0; --count) {
            transport.respond(status_response(status));
            transport.complete_one();
        }
        return frame(later);
    }

    lines take_reports() { return std::exchange(reports, {}); }

    std::size_t sent() { return transport.requests().size(); }
};

} // namespace

TEST_CASE("polled tracker: poll sends a queued request and reports its response") {
    pl::testing::recording_async_transport transport;
    std::vector<pl::finished_request> delivered;
    std::vector<pl::attempt_report> attempts;
    pl::polled_tracker tracker{
        {.api_key = "pl_key"},
        std::ref(transport),
        {.on_delivered = [&](const pl::finished_request& request) { delivered.push_back(request); },
         .on_attempt = [&](const pl::attempt_report& attempt) { attempts.push_back(attempt); }}};
    const auto queued = tracker.track_prompt({.prompt_name = "a", .request_id = 1});
    REQUIRE(queued.has_value());
    CHECK(queued->number == 1);
    CHECK_FALSE(queued->journal_error);
    CHECK(transport.requests().empty());
    const steady_clock::time_point start{1h};
    CHECK(tracker.poll(start) == 1);
    REQUIRE(transport.requests().size() == 1);
    CHECK(transport.requests()[0].body == R"({"prompt_name":"a","request_id":1})");
    CHECK(*pl::find_header(transport.requests()[0].headers, "X-API-KEY") == "pl_key");
    transport.complete_all();
    CHECK(delivered.empty()); // not before poll
    CHECK(tracker.poll(start + 20ms) == 0);
    REQUIRE(delivered.size() == 1);
    CHECK(delivered[0].number == 1);
    CHECK(delivered[0].request.path == "/rest/track-prompt");
    CHECK(delivered[0].request.body == transport.requests()[0].body);
    CHECK(delivered[0].outcome == pl::request_outcome::delivered);
    CHECK_FALSE(delivered[0].error);
    CHECK(delivered[0].attempts == 1);
    REQUIRE(delivered[0].response);
    CHECK(delivered[0].response->status == 200);
    REQUIRE(attempts.size() == 1);
    CHECK(attempts[0].number == 1);
    CHECK(attempts[0].attempt == 1);
    CHECK(attempts[0].status == 200);
    CHECK_FALSE(attempts[0].failure);
    CHECK(attempts[0].latency == 20ms);
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 1, .delivered = 1});
}

TEST_CASE("polled tracker: age is measured from the first poll") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.frame(48h);
    CHECK(fixture.answer(503) == 1);
    CHECK(fixture.reports.empty());
}

TEST_CASE("polled tracker: an invalid request, option or config is returned, and nothing is queued") {
    tracker_fixture fixture;
    CHECK(fixture.tracker->track_prompt({.prompt_name = "", .request_id = 1}).error().code ==
          pl::errc::invalid_request);
    CHECK(fixture.tracker->track_prompt(valid_request(), {.timeout = 0ms}).error().code ==
          pl::errc::invalid_request);
    CHECK(fixture.tracker->track_prompt(valid_request(), {.timeout = 1ms}));
    tracker_fixture keyless{{}, {}};
    for (int i = 0; i < 2; ++i)
        CHECK(keyless.tracker->track_prompt(valid_request()).error().code == pl::errc::invalid_config);
    CHECK(keyless.tracker->pending() == 0);
    CHECK(keyless.tracker->reconfigure({.api_key = "pl_key"}));
    CHECK(keyless.tracker->track_prompt(pl::track_prompt_view{.prompt_name = "v", .request_id = 2}));
}

TEST_CASE("polled tracker: no error shows the key in a variable's name") {
    tracker_fixture fixture{{}, {.api_key = "pl_sesame"}};
    const auto rejected = fixture.tracker->track_prompt(
        {.prompt_name = "a", .prompt_input_variables = {{"my pl_sesame", "\xFF"}}, .request_id = 1});
    CHECK(to_string(rejected.error()).find("sesame") == std::string::npos);
}

TEST_CASE("polled tracker: a request has its own timeout, else that of the config") {
    tracker_fixture fixture{{}, {.api_key = "pl_key", .timeout = 7s}};
    REQUIRE(fixture.tracker->track(valid_request(), {.timeout = 3s}));
    fixture.frame();
    CHECK(fixture.transport.requests()[0].timeout == 3s);
    fixture.answer(503);
    fixture.frame(3s); // the timeout is that of each attempt
    CHECK(fixture.transport.requests()[1].timeout == 3s);
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.answer(200);
    CHECK(fixture.transport.requests()[2].timeout == 7s);
}

TEST_CASE("polled tracker: poll reports completions from other threads and from within send") {
    tracker_fixture fixture;
    CHECK(fixture.tracker->track_prompt(valid_request()));
    fixture.frame();
#ifdef PROMPTLAYER_NO_THREADS
    fixture.transport.complete_all();
#else
    std::thread{[&] { fixture.transport.complete_all(); }}.join();
#endif
    CHECK(fixture.reports.empty());
    CHECK(fixture.frame() == 0);
    CHECK(fixture.reports.size() == 1);

    std::size_t delivered = 0;
    pl::polled_tracker other_tracker{
        {.api_key = "pl_key"},
        pl::transport_from([](pl::http_request, pl::completion done) { done(status_response(200)); }),
        {.on_delivered = [&](const pl::finished_request&) { ++delivered; }}};
    CHECK(other_tracker.track_prompt(valid_request()));
    CHECK(other_tracker.poll({}) == 1);
    CHECK(delivered == 0);
    CHECK(other_tracker.poll({}) == 0);
    CHECK(delivered == 1);
}

TEST_CASE("polled tracker: the first of two completions counts, and a dropped one counts as cancelled") {
    std::vector<pl::completion> completions;
    std::vector<pl::attempt_report> attempts;
    pl::polled_tracker tracker{
        {.api_key = "pl_key"},
        pl::transport_from(
            [&](pl::http_request, pl::completion done) { completions.push_back(std::move(done)); }),
        {.on_attempt = [&](const pl::attempt_report& attempt) { attempts.push_back(attempt); },
         .random = [] { return 0.0; }}};
    REQUIRE(tracker.track_prompt(valid_request()));
    tracker.poll({});
    REQUIRE(completions.size() == 1);
    completions.clear();
    CHECK(tracker.poll({}) == 1);
    REQUIRE(attempts.size() == 1);
    CHECK(attempts[0].failure == pl::failure::cancelled);
    CHECK(attempts[0].status == 0);
    tracker.poll(steady_clock::time_point{1s});
    REQUIRE(completions.size() == 1);
    const pl::completion copy = completions[0];
    copy(status_response(200));
    completions[0](status_response(503));
    CHECK(tracker.poll(steady_clock::time_point{2s}) == 0);
    CHECK(attempts.size() == 2);
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 1, .delivered = 1});
}

TEST_CASE("polled tracker: a failed request is retried when due and reported when it ends") {
    tracker_fixture fixture{{.retry = {.max_attempts = 2}}};
    CHECK(fixture.tracker->track_prompt(valid_request()));
    fixture.frame();
    CHECK(fixture.answer(500) == 1);
    fixture.frame(2s - 1ms);
    CHECK(fixture.sent() == 1);
    fixture.frame(1ms);
    CHECK(fixture.sent() == 2);
    CHECK(fixture.answer(500) == 0);
    CHECK(fixture.reports == std::vector<std::string>{"1 failed"});
}

TEST_CASE("polled tracker: a request dropped for a newer one is reported by the next poll") {
    tracker_fixture fixture{{.max_requests = 1, .drop_oldest = true}};
    CHECK(fixture.tracker->track_prompt(valid_request()));
    CHECK(fixture.tracker->track_prompt(valid_request())->number == 2);
    CHECK(fixture.tracker->pending() == 2);
    CHECK(fixture.reports.empty());
    CHECK(fixture.frame() == 1);
    CHECK(fixture.reports == std::vector<std::string>{"1 dropped"});
    tracker_fixture full{{.max_requests = 1}};
    CHECK(full.tracker->track_prompt(valid_request()));
    CHECK(full.tracker->track_prompt(valid_request()).error().code == pl::errc::queue_full);
}

TEST_CASE("polled tracker: dropped requests that are not reported yet count against the limits") {
    tracker_fixture fixture{{.max_requests = 10, .drop_oldest = true}};
    std::size_t accepted = 0;
    while (fixture.tracker->track_prompt(valid_request()))
        REQUIRE(++accepted <= 20);
    CHECK(accepted == 20);
    CHECK(fixture.kept->entries.size() == 20);
    CHECK(fixture.frame() == 10);
    CHECK(fixture.tracker->track_prompt(valid_request()));
}

TEST_CASE("polled tracker: an outage and its end are reported once; reconfigure sends a probe") {
    tracker_fixture fixture;
    for (int i = 0; i < 3; ++i)
        REQUIRE(fixture.tracker->track_prompt(valid_request(i)));
    fixture.frame();
    fixture.answer(401);
    CHECK(fixture.take_reports() == std::vector<std::string>{"outage 401"});
    REQUIRE(fixture.tracker->outage_cause());
    CHECK(fixture.tracker->outage_cause()->code == pl::errc::unauthorized);
    fixture.frame(1h);
    fixture.answer(401);
    CHECK(fixture.tracker->reconfigure({.api_key = ""}).error().code == pl::errc::invalid_config);
    const auto sent = fixture.sent();
    CHECK(fixture.frame() == 3);
    CHECK(fixture.sent() == sent);
    CHECK(fixture.tracker->reconfigure({.api_key = "pl_new", .base_url = "https://elsewhere.example"}));
    fixture.frame();
    REQUIRE(fixture.sent() == sent + 1);
    CHECK(*pl::find_header(fixture.transport.requests().back().headers, "X-API-KEY") == "pl_new");
    CHECK(fixture.transport.requests().back().url == "https://elsewhere.example/rest/track-prompt");
    CHECK(fixture.tracker->outage_cause());
    while (fixture.answer(200, 10s) != 0)
        REQUIRE(fixture.sent() < 20);
    CHECK_FALSE(fixture.tracker->outage_cause());
    CHECK(fixture.reports.size() == 4);
    CHECK(fixture.reports[0] == "recovery");
    CHECK(fixture.tracker->stats().delivered == 3);
}

TEST_CASE("polled tracker: retry_now sends a probe at once") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.frame();
    fixture.answer(503);
    fixture.frame();
    CHECK(fixture.sent() == 1);
    fixture.tracker->retry_now();
    fixture.frame();
    CHECK(fixture.sent() == 2);
}

TEST_CASE("polled tracker: a paused tracker queues requests and sends none until resume") {
    tracker_fixture fixture;
    fixture.tracker->pause();
    CHECK(fixture.tracker->track_prompt(valid_request()));
    fixture.tracker->retry_now();
    CHECK(fixture.tracker->reconfigure({.api_key = "pl_other"}));
    CHECK(fixture.frame() == 1);
    CHECK(fixture.sent() == 0);
    fixture.tracker->resume();
    fixture.frame();
    CHECK(fixture.sent() == 1);
    CHECK(fixture.reports.empty());
}

TEST_CASE("polled tracker: a waiting request can be cancelled, one in flight cannot") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    CHECK(fixture.tracker->cancel(1));
    CHECK_FALSE(fixture.tracker->cancel(1));
    CHECK_FALSE(fixture.tracker->cancel(2));
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    CHECK(fixture.frame() == 1);
    CHECK(fixture.reports == std::vector<std::string>{"1 cancelled"});
    CHECK(fixture.sent() == 1);
    CHECK_FALSE(fixture.tracker->cancel(2));
    CHECK(fixture.answer(200) == 0);
}

TEST_CASE("polled tracker: discard forgets all requests, also in the journal, a piece at each poll") {
    tracker_fixture fixture{{.max_requests = 20'000}};
    for (int i = 0; i < 10'001; ++i)
        REQUIRE(fixture.tracker->track_prompt(valid_request()));
    CHECK(fixture.frame() == 10'001);
    fixture.tracker->discard();
    CHECK(fixture.tracker->pending() == 10'001);
    fixture.transport.respond(status_response(503)); // not sent again
    fixture.transport.complete_all();
    std::size_t polls = 0;
    while (fixture.tracker->pending() != 0) {
        const std::size_t before = fixture.reports.size();
        fixture.frame();
        CHECK(fixture.reports.size() - before <= 100);
        REQUIRE(++polls < 1'000);
    }
    CHECK(fixture.sent() == 1);
    CHECK(fixture.tracker->stats().cancelled == 10'001);
    CHECK(fixture.reports.size() == 10'001);
    CHECK(fixture.kept->entries.empty());
}

TEST_CASE("polled tracker: a poll sends as many requests as may be in flight") {
    tracker_fixture fixture{{.max_in_flight = 4}};
    for (int i = 0; i < 40; ++i)
        REQUIRE(fixture.tracker->track_prompt(valid_request()));
    for (int i = 0; i < 5; ++i)
        fixture.answer(200);
    CHECK(fixture.transport.pending() == 4);
    for (const std::size_t extreme : {std::size_t{0}, std::numeric_limits<std::size_t>::max()}) {
        tracker_fixture other{{.max_in_flight = extreme}};
        REQUIRE(other.tracker->track_prompt(valid_request()));
        other.frame();
        CHECK(other.transport.pending() == 1);
    }
}

TEST_CASE("polled tracker: the transport receives max_in_flight once, before the first request") {
    struct told_transport {
        std::vector<std::string> calls{};
        void max_in_flight(std::size_t count) { calls.push_back(std::to_string(count)); }
        void poll(std::chrono::milliseconds wait) { calls.push_back("poll " + std::to_string(wait.count())); }
        void send(pl::http_request, pl::completion) { calls.push_back("send"); }
        void cancel() { calls.push_back("cancel"); }
    } transport;
    {
        pl::polled_tracker tracker{
            {.api_key = "pl_key"}, std::ref(transport), {.queue = {.max_in_flight = 7}}};
        CHECK(tracker.track_prompt(valid_request()));
        tracker.poll({});
    }
    CHECK(transport.calls[0] == "7");
    CHECK(transport.calls[1] == "poll 0");
    CHECK(transport.calls[2] == "send");
    CHECK(std::count(transport.calls.begin(), transport.calls.end(), "7") == 1);
    const pl::polled_tracker none{
        {.api_key = "pl_key"}, std::ref(transport), {.queue = {.max_in_flight = 0}}};
    CHECK(transport.calls.back() == "1");
}

TEST_CASE("polled tracker: close reports what was answered, and returns and cancels the rest once") {
    struct cancelled_transport : pl::testing::recording_async_transport {
        int cancels = 0;
        void cancel() { ++cancels; }
    } transport;
    std::vector<pl::request_number> delivered;
    pl::polled_tracker tracker{{.api_key = "pl_key"},
                               std::ref(transport),
                               {.on_delivered =
                                    [&](const pl::finished_request& request) {
                                        delivered.push_back(request.number);
                                        CHECK(tracker.close().empty()); // does not take what is not reported
                                    },
                                .queue = {.max_in_flight = 2}}};
    for (int i = 1; i <= 4; ++i)
        REQUIRE(tracker.track_prompt(valid_request(i)));
    tracker.poll({});
    transport.complete_all();
    tracker.poll({});
    CHECK(delivered == std::vector<pl::request_number>{1});
    REQUIRE(transport.pending() == 2);
    transport.complete_one();
    const auto undelivered = tracker.close();
    CHECK(delivered == std::vector<pl::request_number>{1, 2});
    REQUIRE(undelivered.size() == 2);
    CHECK(undelivered[0].number == 3);
    CHECK(undelivered[0].outcome == pl::request_outcome::returned);
    CHECK(undelivered[1].request.body == R"({"prompt_name":"a","request_id":4})");
    CHECK(transport.cancels == 1);
    CHECK(tracker.close().empty());
    CHECK(transport.cancels == 1); // another tracker may use the transport
    CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::closed);
    transport.complete_all();
    CHECK(tracker.poll({}) == 0);
    CHECK(delivered.size() == 2);
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 4, .delivered = 2, .returned = 2});
}

TEST_CASE("polled tracker: close returns a request that is cancelled or discarded too late") {
    struct disturbing_transport : pl::testing::recording_async_transport {
        std::function<void()> disturb{};
        void cancel() { disturb(); } // within `close`, when all that has ended is reported
    } transport;
    std::vector<pl::request_number> reported;
    pl::polled_tracker tracker{
        {.api_key = "pl_key"}, std::ref(transport), {.on_failed = [&](const pl::finished_request& request) {
            reported.push_back(request.number);
        }}};
    for (int i = 1; i <= 4; ++i)
        REQUIRE(tracker.track_prompt(valid_request(i)));
    tracker.poll({});
    CHECK(tracker.cancel(2));
    transport.disturb = [&] {
        CHECK_FALSE(tracker.cancel(3));
        tracker.discard();
    };
    CHECK(tracker.close().size() == 3);
    CHECK(reported == std::vector<pl::request_number>{2});
    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 4, .cancelled = 1, .returned = 3});
    CHECK(tracker.pending() == 0);
}

TEST_CASE("polled tracker: the destructor reports what has ended; the journal keeps the rest") {
    tracker_fixture fixture{{.max_in_flight = 2}};
    for (int i = 1; i <= 3; ++i)
        REQUIRE(fixture.tracker->track_prompt(valid_request(i)));
    fixture.frame();
    fixture.answer(200);
    CHECK(fixture.transport.pending() == 2);
    fixture.transport.complete_one();
    CHECK(fixture.kept->entries.size() == 2);
    fixture.tracker.reset();
    CHECK(fixture.reports == std::vector<std::string>{"1 delivered", "2 delivered", "3 returned"});
    CHECK(fixture.kept->entries.size() == 1);
    fixture.transport.complete_all(); // too late, and harmless
    fixture.start();
    CHECK(fixture.tracker->track_prompt(valid_request())->number == 4);
    fixture.frame();
    CHECK(fixture.transport.requests().back().body == R"({"prompt_name":"a","request_id":3})");
}

TEST_CASE("polled tracker: a callback of the destructor may call any member") {
    pl::testing::recording_async_transport transport;
    std::optional<pl::polled_tracker> owner;
    pl::polled_tracker* tracker = nullptr; // `owner` is empty when it destroys the tracker
    std::size_t calls = 0;
    tracker =
        &owner.emplace(pl::config{.api_key = "pl_key"}, std::ref(transport),
                       pl::tracker_options{.on_failed = [&](const pl::finished_request&) {
                           ++calls;
                           CHECK(tracker->poll({}) == 0);
                           CHECK(tracker->stats().returned == 1);
                           CHECK(tracker->close().empty());
                           CHECK(tracker->track_prompt(valid_request()).error().code == pl::errc::closed);
                       }});
    REQUIRE(tracker->track_prompt(valid_request()));
    owner.reset();
    CHECK(calls == 1);
}

TEST_CASE("polled tracker: a callback may call any member, and a poll within it does nothing") {
    tracker_fixture fixture;
    std::size_t delivered = 0;
    auto options = fixture.reporting();
    options.on_delivered = [&](const pl::finished_request&) {
        pl::polled_tracker& tracker = *fixture.tracker;
        if (++delivered > 3)
            return;
        const auto queued = tracker.track_prompt(valid_request());
        REQUIRE(queued.has_value());
        CHECK(tracker.poll({}) == tracker.pending());
        CHECK(tracker.reconfigure({.api_key = "pl_other"}));
        CHECK_FALSE(tracker.outage_cause());
        tracker.pause();
        tracker.resume();
        tracker.retry_now();
        if (delivered == 2)
            CHECK(tracker.cancel(queued->number));
        if (delivered == 3)
            tracker.discard();
        REQUIRE(tracker.track_prompt(valid_request()));
    };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    for (int frames = 0; fixture.frame() != 0; ++frames) {
        REQUIRE(frames < 20);
        fixture.transport.complete_all();
    }
    const auto stats = fixture.tracker->stats();
    CHECK(stats.pushed == 7);
    CHECK(stats.delivered + stats.cancelled == 7);
    CHECK(stats.cancelled >= 2);
    CHECK(fixture.reports.size() == stats.cancelled);
    CHECK(fixture.kept->entries.empty());
}

TEST_CASE("polled tracker: a delivered request leaves the journal before its callback") {
    tracker_fixture fixture;
    std::vector<std::size_t> kept_in_callback;
    auto options = fixture.reporting();
    options.on_delivered = options.on_failed = [&](const pl::finished_request&) {
        kept_in_callback.push_back(fixture.kept->entries.size());
    };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    for (const int status : {200, 400}) {
        REQUIRE(fixture.tracker->track_prompt(valid_request()));
        CHECK(fixture.kept->entries.size() == 1);
        fixture.frame();
        fixture.answer(status);
    }
    CHECK(kept_in_callback == std::vector<std::size_t>{0, 1});
    CHECK(fixture.kept->entries.empty());
}

TEST_CASE("polled tracker: a request that the journal cannot record is sent, with journal_error") {
    struct full_journal : memory_journal {
        using memory_journal::memory_journal;
        pl::result<void> add(pl::request_number, const pl::prepared_request&) override {
            return pl::error{.code = pl::errc::journal_failed, .message = "no space"};
        }
    };
    tracker_fixture fixture;
    auto options = fixture.reporting();
    options.journal = std::make_unique<full_journal>(fixture.kept);
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    const auto queued = fixture.tracker->track_prompt(valid_request());
    REQUIRE(queued.has_value());
    REQUIRE(queued->journal_error);
    CHECK(queued->journal_error->message == "no space");
    fixture.frame();
    CHECK(fixture.answer(200) == 0);
    CHECK(fixture.reports == std::vector<std::string>{"1 delivered"});
}

TEST_CASE("polled tracker: a request that is refused after it was recorded leaves the journal") {
    struct filling_journal : memory_journal {
        using memory_journal::memory_journal;
        std::optional<pl::polled_tracker>* tracker = nullptr;
        pl::result<void> add(pl::request_number number, const pl::prepared_request& request) override {
            if (number == 1)
                CHECK((*tracker)->track_prompt(valid_request(2))); // no lock is held here
            return memory_journal::add(number, request);
        }
    };
    tracker_fixture fixture;
    auto options = fixture.reporting();
    options.queue.max_requests = 1;
    auto journal = std::make_unique<filling_journal>(fixture.kept);
    journal->tracker = &fixture.tracker;
    options.journal = std::move(journal);
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    CHECK(fixture.tracker->track_prompt(valid_request(1)).error().code == pl::errc::queue_full);
    REQUIRE(fixture.kept->entries.size() == 1);
    CHECK(fixture.kept->entries.begin()->first == 2);
}

TEST_CASE("polled tracker: restored requests of any order are all sent, and new numbers follow theirs") {
    struct unordered_journal : memory_journal {
        using memory_journal::memory_journal;
        std::vector<entry> pending() override {
            std::vector<entry> all;
            for (const pl::request_number number : {7u, 3u, 5u})
                all.push_back({.number = number,
                               .request = {.path = "/p", .body = std::to_string(number)},
                               .age = std::chrono::milliseconds::max()});
            return all;
        }
    };
    tracker_fixture fixture;
    auto options = fixture.reporting();
    options.journal = std::make_unique<unordered_journal>(fixture.kept);
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    CHECK(fixture.tracker->track_prompt(valid_request())->number == 8);
    while (fixture.frame() != 0) {
        REQUIRE(fixture.sent() < 10);
        fixture.transport.complete_all();
    }
    CHECK(fixture.reports ==
          std::vector<std::string>{"3 delivered", "5 delivered", "7 delivered", "8 delivered"});
}

TEST_CASE("polled tracker: a restored request is delivered although its reply is not known yet") {
    tracker_fixture fixture;
    const char* const path = "/made-up/vote";
    for (const pl::request_number number : {1u, 2u})
        fixture.kept->entries[number] = {.number = number, .request = {.path = path, .body = "{}"}};
    fixture.start();
    for (const char* const body : {R"({"id":5,"message":{}})", R"({"success":false})"}) {
        fixture.frame();
        fixture.transport.respond(pl::http_response{200, {}, body});
        fixture.transport.complete_all();
    }
    CHECK(fixture.frame() == 0);
    CHECK(fixture.tracker->stats() == pl::outbox_stats{.pushed = 2, .delivered = 1, .rejected = 1});
}

TEST_CASE("polled tracker: restored requests wait for a valid config") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.tracker.reset();
    fixture.take_reports();
    fixture.start({}, {});
    for (int i = 0; i < 100; ++i)
        CHECK(fixture.frame(1min) == 1);
    CHECK(fixture.take_reports() == std::vector<std::string>{"outage 0"});
    CHECK(fixture.tracker->outage_cause()->code == pl::errc::invalid_config);
    CHECK(fixture.tracker->reconfigure({.api_key = "pl_key"}));
    fixture.frame();
    CHECK(fixture.answer(200) == 0);
    CHECK(fixture.reports == std::vector<std::string>{"recovery", "1 delivered"});
}

TEST_CASE("polled tracker: the journal begins a request that is not idempotent before each attempt") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track(log_entry{.text = "a"}));
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    CHECK_FALSE(fixture.kept->entries.at(1).begun);
    fixture.frame();
    CHECK(fixture.kept->entries.at(1).begun);
    fixture.transport.fail({pl::failure::connect, "refused"}); // cannot have been delivered
    fixture.transport.complete_all();
    fixture.frame(0ms);
    CHECK_FALSE(fixture.kept->entries.at(1).begun); // a restart sends it
    for (int i = 0; i < 10; ++i)
        fixture.answer(200, 2s);
    CHECK(fixture.reports.size() == 2);
    CHECK(fixture.tracker->stats().delivered == 2);
    CHECK(fixture.sent() == 3);
}

TEST_CASE("polled tracker: a request that is not idempotent is not sent again if it may have arrived") {
    for (const bool may_have_arrived : {false, true}) {
        tracker_fixture fixture;
        REQUIRE(fixture.tracker->track(log_entry{.text = "a"}));
        fixture.frame();
        fixture.transport.fail({pl::failure::reset, "cut", may_have_arrived});
        fixture.transport.complete_all();
        CHECK(fixture.frame() == (may_have_arrived ? 0 : 1));
        fixture.frame(1min);
        CHECK(fixture.sent() == (may_have_arrived ? 1 : 2));
        CHECK(fixture.tracker->stats().failed == (may_have_arrived ? 1 : 0));
    }
}

TEST_CASE("polled tracker: a log that may have arrived stays begun until it is reported") {
    tracker_fixture fixture;
    std::vector<bool> begun;
    auto options = fixture.reporting();
    options.on_attempt = [&](const pl::attempt_report& attempt) {
        begun.push_back(fixture.kept->entries.at(attempt.number).begun);
    };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    for (int i = 0; i < 2; ++i)
        REQUIRE(fixture.tracker->track(log_entry{.text = "a"}));
    fixture.frame();
    fixture.transport.fail({pl::failure::reset, "cut", true});
    fixture.transport.complete_all();
    fixture.frame();
    CHECK(fixture.sent() == 2);
    CHECK(fixture.tracker->close().size() == 1);
    fixture.answer(200); // too late
    CHECK(begun == std::vector<bool>{true, true});
    CHECK(fixture.kept->entries.at(2).begun);
}

TEST_CASE("polled tracker: a journal without undo_begin keeps a request as begun") {
    struct journal_without_undo : memory_journal {
        using memory_journal::memory_journal;
        void undo_begin(pl::request_number number) override { pl::journal::undo_begin(number); }
    };
    const auto kept = std::make_shared<memory_journal::storage>();
    pl::testing::recording_async_transport transport;
    pl::polled_tracker tracker{{.api_key = "pl_key"},
                               std::ref(transport),
                               {.journal = std::make_unique<journal_without_undo>(kept)}};
    REQUIRE(tracker.track(log_entry{.text = "a"}));
    tracker.poll({});
    transport.fail({pl::failure::connect, "refused"});
    transport.complete_all();
    tracker.poll({});
    CHECK(kept->entries.at(1).begun);
}

TEST_CASE("polled tracker: a request found begun after a crash fails and says why if not idempotent") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track(log_entry{.text = "sent"}));
    REQUIRE(fixture.tracker->track(log_entry{.text = "waits"}));
    fixture.frame();
    fixture.tracker.reset();
    CHECK(fixture.kept->entries.size() == 2);
    fixture.kept->entries.at(2).number = 1; // the interrupted one is the last
    fixture.kept->entries.at(1).number = 2;
    std::swap(fixture.kept->entries.at(1), fixture.kept->entries.at(2));
    std::vector<pl::finished_request> failed;
    auto options = fixture.reporting();
    options.on_failed = [&](const pl::finished_request& request) { failed.push_back(request); };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    CHECK(fixture.tracker->stats() == pl::outbox_stats{.pushed = 2, .waiting = 1, .failed = 1});
    CHECK(fixture.tracker->pending() == 2);
    CHECK(fixture.tracker->track_prompt(valid_request())->number == 3);
    CHECK(fixture.frame() == 2);
    REQUIRE(failed.size() == 1);
    CHECK(failed[0].number == 2);
    CHECK(failed[0].request.body == R"({"text":"sent"})");
    CHECK(failed[0].outcome == pl::request_outcome::failed);
    REQUIRE(failed[0].error);
    CHECK(failed[0].error->maybe_delivered);
    CHECK(failed[0].error->message.find("program ended") != std::string::npos);
    CHECK(failed[0].attempts == 1);
    CHECK_FALSE(fixture.kept->entries.contains(2));
    fixture.answer(200);
    CHECK(fixture.answer(200) == 0);
    CHECK(fixture.sent() == 3); // one was sent before
    CHECK(fixture.tracker->stats() == pl::outbox_stats{.pushed = 3, .delivered = 2, .failed = 1});
}

TEST_CASE(
    "polled tracker: with repeat_logs a request that is not idempotent is sent again, also after a crash") {
    tracker_fixture fixture{{.repeat_logs = true}};
    REQUIRE(fixture.tracker->track(log_entry{.text = "a"}));
    fixture.frame();
    CHECK_FALSE(fixture.kept->entries.at(1).begun);
    fixture.transport.fail({pl::failure::reset, "cut", true});
    fixture.transport.complete_all();
    fixture.frame();
    fixture.frame(1min);
    CHECK(fixture.sent() == 2);
    fixture.tracker.reset();
    fixture.kept->entries.at(1).begun = true; // by a tracker without the option
    fixture.start({.repeat_logs = true});
    fixture.frame();
    CHECK(fixture.sent() == 3);
    fixture.answer(200);
    CHECK(fixture.tracker->stats().delivered == 1);
}

TEST_CASE("polled tracker: a transport may repeat a log only with repeat_logs, and any other request") {
    for (const bool repeat_logs : {false, true}) {
        tracker_fixture fixture{{.repeat_logs = repeat_logs}};
        REQUIRE(fixture.tracker->track(valid_log()));
        fixture.frame();
        fixture.transport.complete_all();
        REQUIRE(fixture.tracker->track_prompt(valid_request()));
        fixture.frame();
        REQUIRE(fixture.sent() == 2);
        CHECK(fixture.transport.requests()[0].idempotent == repeat_logs);
        CHECK(fixture.transport.requests()[1].idempotent);
    }
}

TEST_CASE("polled tracker: a restored log is delivered by its 201, if the program logged none") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track(valid_log()));
    fixture.tracker.reset();
    REQUIRE(fixture.kept->entries.size() == 1);
    fixture.take_reports();
    fixture.start();
    fixture.frame();
    fixture.transport.respond({201, {}, R"({"id":7,"prompt_version":null})"});
    fixture.transport.complete_all();
    CHECK(fixture.frame() == 0);
    CHECK(fixture.take_reports() == tracker_fixture::lines{"1 delivered"});
    CHECK(fixture.kept->entries.empty());
}

TEST_CASE("polled tracker: each request of the family is delivered by the response of its endpoint") {
    tracker_fixture fixture;
    std::vector<pl::finished_request> delivered;
    auto options = fixture.reporting();
    options.on_delivered = [&](const pl::finished_request& request) { delivered.push_back(request); };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    REQUIRE(fixture.tracker->track(valid_log()));
    REQUIRE(fixture.tracker->track(valid_request()));
    REQUIRE(fixture.tracker->track(pl::track_score{.request_id = 1, .score = 100}));
    REQUIRE(fixture.tracker->track(pl::track_metadata{.request_id = 1, .metadata = {{"a", "b"}}}));
    REQUIRE(fixture.tracker->track(pl::track_group{.request_id = 1, .group_id = 2}));
    for (int frames = 0; fixture.frame() != 0 && frames < 10; ++frames)
        fixture.transport.complete_all();
    REQUIRE(delivered.size() == 5);
    const auto log = std::find_if(delivered.begin(), delivered.end(), [](const auto& request) {
        return request.request.path == pl::log_request::path;
    });
    REQUIRE(log != delivered.end());
    CHECK(pl::from_json<pl::log_response>(log->response->body)->id == 1);
    CHECK(pl::decode<pl::log_request>(*log->response)->id == 1);
    CHECK_FALSE(fixture.tracker->track(pl::track_score{.request_id = 1, .score = 101}));
}

TEST_CASE("polled tracker: a log that is answered with another success is not sent twice") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track(valid_log()));
    fixture.frame();
    fixture.answer(200);
    fixture.frame(1h);
    CHECK(fixture.sent() == 1);
    CHECK(fixture.take_reports() == tracker_fixture::lines{"1 failed"});
}

TEST_CASE("polled tracker: an idempotent request found begun after a crash is sent again") {
    tracker_fixture fixture;
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.tracker.reset();
    fixture.kept->entries.at(1).begun = true;
    fixture.start();
    fixture.frame();
    CHECK(fixture.answer(200) == 0);
    CHECK(fixture.tracker->stats() == pl::outbox_stats{.pushed = 1, .delivered = 1});
}

TEST_CASE("polled tracker: a completion after the tracker's end is harmless") {
    std::vector<pl::completion> completions;
    {
        pl::polled_tracker tracker{{.api_key = "pl_key"},
                                   pl::transport_from([&](pl::http_request, pl::completion done) {
                                       completions.push_back(std::move(done));
                                   })};
        REQUIRE(tracker.track_prompt(valid_request()));
        tracker.poll({});
    }
    REQUIRE(completions.size() == 1);
    completions[0](status_response(200));
}

#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // these have no fork
TEST_CASE("polled tracker: every call does nothing in a forked child, and the parent delivers") {
    tracker_fixture fixture;
    pid_t child = -1;
    auto options = fixture.reporting();
    options.on_attempt = [&](const pl::attempt_report&) {
        child = ::fork(); // within poll
        if (child != 0)
            return;
        ::alarm(20);
        bool passes = fixture.tracker->track_prompt(valid_request()).error().code == pl::errc::closed &&
                      fixture.tracker->poll(fixture.now) == 0 && fixture.tracker->close().empty() &&
                      fixture.tracker->pending() == 0 && !fixture.tracker->cancel(1) &&
                      fixture.tracker->reconfigure({.api_key = "k"}).error().code == pl::errc::closed;
        fixture.tracker->discard();
        fixture.tracker.reset();
        passes = passes && fixture.kept->entries.size() == 1 && fixture.reports.empty();
        test_support::end_child(passes ? 0 : 1);
    };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.frame();
    CHECK(fixture.answer(200) == 0);
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(fixture.reports == std::vector<std::string>{"1 delivered"});
}
#endif

#if defined(__cpp_exceptions)
TEST_CASE("polled tracker: no exception of a transport, a journal or a callback changes anything") {
    struct throwing_transport : pl::testing::recording_async_transport {
        bool throws_in_send = true;
        void send(pl::http_request request, pl::completion done) {
            if (std::exchange(throws_in_send, false))
                throw 1;
            recording_async_transport::send(std::move(request), std::move(done));
        }
        void poll() {
            complete_all();
            throw 2;
        }
        void cancel() { throw 3; }
        void max_in_flight(std::size_t) { throw 4; }
    } transport;
    struct throwing_journal : memory_journal {
        using memory_journal::memory_journal;
        pl::result<void> add(pl::request_number, const pl::prepared_request&) override { throw 5; }
        void begin(pl::request_number) override { throw 6; }
        void remove(pl::request_number) override { throw 7; }
        std::optional<std::chrono::milliseconds> maintain() override { throw 8; }
    };
    tracker_fixture fixture;
    auto options = fixture.reporting();
    options.on_delivered = [report = options.on_delivered](const pl::finished_request& request) {
        report(request);
        throw 9;
    };
    options.on_failed = [report = options.on_failed](const pl::finished_request& request) {
        report(request);
        throw 10;
    };
    options.on_attempt = [](const pl::attempt_report&) { throw 11; };
    options.on_outage = [](const pl::error&) { throw 12; };
    options.on_recovery = [] { throw 13; };
    options.journal = std::make_unique<throwing_journal>(fixture.kept);
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(transport), std::move(options));
    for (int i = 0; i < 2; ++i) {
        const auto queued = fixture.tracker->track_prompt(valid_request());
        REQUIRE(queued.has_value());
        CHECK(queued->journal_error->code == pl::errc::journal_failed);
    }
    REQUIRE(fixture.tracker->track(log_entry{.text = "a"}));
    for (int i = 0; i < 5; ++i)
        fixture.frame(2s);
    CHECK(fixture.tracker->pending() == 0);
    CHECK(fixture.tracker->stats().delivered == 3);
    CHECK(fixture.sent() == 0);
    CHECK(transport.requests().size() == 3);
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.frame();
    CHECK(fixture.tracker->close().size() == 0);
    CHECK(fixture.reports.size() == 4);
}

TEST_CASE("polled tracker: poll works again after an exception that left it") {
    tracker_fixture fixture;
    bool throws = true;
    auto options = fixture.reporting();
    options.random = [&]() -> double {
        if (std::exchange(throws, false))
            throw 1;
        return 0.0;
    };
    fixture.tracker.emplace(pl::config{.api_key = "pl_key"}, std::ref(fixture.transport), std::move(options));
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.frame();
    fixture.transport.respond(status_response(503));
    fixture.transport.complete_all();
    CHECK_THROWS(fixture.frame());
    REQUIRE(fixture.tracker->track_prompt(valid_request()));
    fixture.frame(1s);
    CHECK(fixture.sent() == 2);
}
#endif
