// Makes each allocation of `encode`, `decode`, `track`, `poll`, `close`, the destructor and the tracker's own
// thread fail in turn: nothing leaks, nothing is half done, and every queued request ends exactly once.

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

#include "../support/memory_journal.hpp"
#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace pl = promptlayer;
namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test_support::memory_journal;

namespace {

enum class failing { none, one, all_later };

std::atomic<long> live_allocations{0};
thread_local failing mode = failing::none;
thread_local std::size_t successes_left = 0; // until the failure
thread_local bool has_failed = false;

} // namespace

void* operator new(std::size_t size) {
    if (mode != failing::none && successes_left-- == 0) {
        has_failed = true;
        successes_left = 0;
        if (mode == failing::one)
            mode = failing::none;
        throw std::bad_alloc{};
    }
    void* const memory = std::malloc(size == 0 ? 1 : size);
    if (!memory)
        throw std::bad_alloc{};
    ++live_allocations;
    return memory;
}

void operator delete(void* memory) noexcept {
    if (memory)
        --live_allocations;
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace {

failing next_mode = failing::none;
std::size_t next_successes = 0;

/// Calls `action` with the failure that `for_each_failure` has chosen. Returns false if it threw.
template <class ActionT>
bool succeeds(ActionT action) {
    has_failed = false;
    successes_left = next_successes;
    mode = next_mode;
    try {
        action();
        mode = failing::none;
        return true;
    } catch (const std::bad_alloc&) {
        mode = failing::none;
        return false;
    }
}

/// Calls `test` so often that each allocation within its `succeeds` fails: alone, and with all later ones.
template <class TestT>
void for_each_failure(TestT test) {
    next_mode = failing::none;
    test(); // allocates what is allocated once
    for (const failing chosen : {failing::one, failing::all_later}) {
        next_mode = chosen;
        next_successes = 0;
        do {
            CAPTURE(next_successes);
            const long before = live_allocations;
            test();
            const long leaked = live_allocations - before;
            CHECK(leaked == 0);
            ++next_successes;
        } while (has_failed);
        CHECK(next_successes > 1); // something was allocated
    }
}

// Longer than what a string holds without an allocation
const pl::config a_config{.api_key = "pl_0123456789abcdef0123456789abcdef",
                          .headers = {{"X-Correlation-Identifier", "0123456789abcdef0123456789"}}};

pl::track_prompt request_named(std::string_view name) {
    return {.prompt_name = std::string{name},
            .prompt_input_variables = {{"a variable with a long name", "a value that is as long as that"}},
            .request_id = 1};
}

pl::log_request log_named(std::string_view name) {
    pl::log_request log = test_support::valid_log();
    log.prompt_name = std::string{name};
    log.metadata = {{"a name that is rather long", "a value that is as long as that"}};
    log.tags = {"a tag that is rather long"};
    return log;
}

struct listed_notes {
    std::map<std::string, std::string> notes{};
    std::vector<std::string> tags{};
    using schema =
        pl::reply_schema<pl::field<"notes", &listed_notes::notes>, pl::field<"tags", &listed_notes::tags>>;
    friend bool operator==(const listed_notes&, const listed_notes&) = default;
};

struct list_notes {
    using reply = listed_notes;
};

std::string body_of(std::string_view name) { return *pl::to_json(request_named(name)); }

bool is_empty(const pl::http_request& request) {
    return request.method.empty() && request.url.empty() && request.headers.empty() && request.body.empty();
}

const std::string before = "the request before the failure", failed = "the request of the failure",
                  after = "the request after the failure";

/// Tracks a request while an allocation fails. Returns nullopt if that throws, else what `track` returned.
template <class TrackerT>
std::optional<pl::queued_request> track_failing(TrackerT& tracker, const pl::track_prompt& request) {
    std::optional<pl::queued_request> queued;
    bool is_error = false;
    succeeds([&] {
        auto tracked = tracker.track(request);
        is_error = !tracked;
        if (tracked)
            queued = *std::move(tracked);
    });
    CHECK_FALSE(is_error); // no error stands for exhausted memory
    return queued;
}

std::vector<std::string> bodies_of(const std::vector<pl::http_request>& requests) {
    std::vector<std::string> bodies;
    for (const pl::http_request& request : requests)
        bodies.push_back(request.body);
    return bodies;
}

std::vector<std::string> expected_bodies(bool is_queued) {
    if (is_queued)
        return {body_of(before), body_of(failed), body_of(after)};
    return {body_of(before), body_of(after)};
}

/// Completes and polls until nothing is left. Returns false if that does not come.
bool deliver(pl::polled_tracker& tracker, pl::testing::recording_async_transport& transport) {
    std::chrono::steady_clock::time_point now{};
    for (int polls = 0; polls < 100 && tracker.pending() != 0; ++polls) {
        tracker.poll(now += 1min);
        transport.complete_all();
    }
    return tracker.pending() == 0;
}

} // namespace

TEST_CASE("allocation failure: encode returns a complete request or throws") {
    const auto check = [](const auto& request) {
        const pl::http_request complete = *pl::encode(a_config, request);
        for_each_failure([&] {
            pl::http_request out;
            if (succeeds([&] { out = *pl::encode(a_config, request); }))
                CHECK(out == complete);
        });
    };
    check(request_named(failed));
    check(log_named(failed));
}

TEST_CASE("allocation failure: encode leaves a reused request complete or empty") {
    const pl::track_prompt request = request_named(failed);
    const pl::http_request complete = *pl::encode(a_config, request);
    for_each_failure([&] {
        pl::http_request out = *pl::encode(a_config, request_named("b"));
        if (succeeds([&] { static_cast<void>(pl::encode(a_config, request, out)); }))
            CHECK(out == complete);
        else
            CHECK(is_empty(out));
    });
}

TEST_CASE("allocation failure: decode returns the reply or the error, or throws") {
    const std::string text(300, 'x');
    for (const pl::http_response& response : {
             pl::http_response{200, {}, R"({"success":true,"message":")" + text + R"("})"},
             pl::http_response{200, {}, R"({"success":false,"message":")" + text + R"("})"},
             pl::http_response{200, {}, R"({"success":"a text that is rather long","message":[[1]]})"},
             pl::http_response{422, {}, R"({"detail":[{"loc":["body","prompt_name"],"msg":"too long"}]})"},
             pl::http_response{302, {{"Location", "https://example.org/" + text}}, text},
         }) {
        const auto complete = pl::decode(a_config, response);
        for_each_failure([&] {
            succeeds([&] {
                const auto decoded = pl::decode(a_config, response);
                const bool same = complete
                                      ? decoded && decoded->message == complete->message
                                      : !decoded && to_string(decoded.error()) == to_string(complete.error());
                CHECK(same);
            });
        });
    }
}

TEST_CASE("allocation failure: decode returns all entries of a reply, or throws") {
    const pl::http_response response{
        200,
        {},
        R"({"notes":{"a name that is rather long":"a value that is as long as that","b":"\u00e9"},)"
        R"("tags":["a tag that is rather long","b"]})"};
    const listed_notes complete = *pl::decode<list_notes>(a_config, response);
    CHECK(complete.notes.size() + complete.tags.size() == 4);
    for_each_failure([&] {
        listed_notes out;
        if (succeeds([&] { out = *pl::decode<list_notes>(a_config, response); }))
            CHECK(out == complete);
    });
}

TEST_CASE("allocation failure: a polled tracker sends a request exactly once if it was queued") {
    const pl::track_prompt request = request_named(failed);
    for (const bool has_journal : {false, true}) {
        for_each_failure([&] {
            const auto storage = std::make_shared<memory_journal::storage>();
            pl::testing::recording_async_transport transport;
            pl::tracker_options options;
            if (has_journal)
                options.journal = std::make_unique<memory_journal>(storage);
            pl::polled_tracker tracker{a_config, std::ref(transport), std::move(options)};
            REQUIRE(tracker.track(request_named(before)));
            const auto queued = track_failing(tracker, request);
            const std::size_t count = queued ? 2 : 1;
            CHECK(tracker.pending() == count);
            CHECK(tracker.stats().waiting == count);
            CHECK(tracker.stats().pushed == count);
            if (has_journal)
                CHECK(storage->entries.size() == (queued && queued->journal_error ? 1 : count));
            REQUIRE(tracker.track(request_named(after)));
            CHECK(deliver(tracker, transport));
            CHECK(bodies_of(transport.requests()) == expected_bodies(queued.has_value()));
            CHECK(storage->entries.empty());
        });
    }
}

TEST_CASE("allocation failure: a poll loses no request and reports each exactly once") {
    for (const bool is_log : {false, true}) {
        for (const int failed_poll : {0, 1, 2, 3, 4, 5}) {
            for_each_failure([&] {
                const auto storage = std::make_shared<memory_journal::storage>();
                std::vector<pl::request_number> ended;
                ended.reserve(10);
                std::size_t refusals = 0; // after which a request may be sent again
                const auto on_end = [&](const pl::finished_request& finished) {
                    ended.push_back(finished.number);
                };
                pl::testing::recording_async_transport transport;
                transport.respond({503, {}, "a gateway is tired, and says so in a long text"});
                transport.respond({429, {{"Retry-After", "1"}}, ""});
                pl::polled_tracker tracker{a_config,
                                           std::ref(transport),
                                           {.on_delivered = on_end,
                                            .on_failed = on_end,
                                            .on_attempt =
                                                [&](const pl::attempt_report& attempt) {
                                                    refusals += attempt.status >= 400 ? 1 : 0;
                                                },
                                            .journal = std::make_unique<memory_journal>(storage)}};
                for (const auto& name : {before, failed, after}) {
                    if (is_log)
                        REQUIRE(tracker.track(log_named(name)));
                    else
                        REQUIRE(tracker.track(request_named(name)));
                }
                std::chrono::steady_clock::time_point now{};
                has_failed = false;
                for (int polls = 0; polls < failed_poll; ++polls) {
                    tracker.poll(now += 1min);
                    transport.complete_one();
                }
                succeeds([&] {
                    tracker.poll(now += 1min);
                    transport.complete_one();
                });
                const bool limit_was_reached = has_failed;
                CHECK(tracker.pending() == 3 - ended.size());
                CHECK(storage->entries.size() == tracker.pending());
                const auto begun = std::count_if(storage->entries.begin(), storage->entries.end(),
                                                 [](const auto& entry) { return entry.second.begun; });
                CHECK(static_cast<std::size_t>(begun) == (is_log ? tracker.stats().in_flight : 0));
                for (int polls = 0; polls < 100 && tracker.pending() != 0; ++polls) {
                    tracker.poll(now += 1min);
                    transport.complete_all();
                }
                std::sort(ended.begin(), ended.end());
                CHECK(ended == std::vector<pl::request_number>{1, 2, 3});
                CHECK(storage->entries.empty());
                if (is_log)
                    CHECK(transport.requests().size() <= 3 + refusals);
                else
                    CHECK(tracker.stats() == pl::outbox_stats{.pushed = 3, .delivered = 3});
                has_failed = limit_was_reached;
            });
        }
    }
}

TEST_CASE("allocation failure: an invalid config is reported once for each attempt") {
    for_each_failure([&] {
        const auto storage = std::make_shared<memory_journal::storage>();
        storage->entries[1] = {.number = 1, .request = *pl::prepare(log_named(before))};
        int attempts = 0;
        pl::testing::recording_async_transport transport;
        pl::polled_tracker tracker{{.api_key = ""},
                                   std::ref(transport),
                                   {.on_attempt = [&](const pl::attempt_report&) { ++attempts; },
                                    .journal = std::make_unique<memory_journal>(storage)}};
        has_failed = false;
        succeeds([&] { tracker.poll({}); });
        const bool limit_was_reached = has_failed;
        tracker.poll({}); // reports what the first could not
        CHECK(attempts == 1);
        CHECK_FALSE(storage->entries.at(1).begun);
        REQUIRE(tracker.reconfigure(a_config));
        CHECK(deliver(tracker, transport));
        CHECK(transport.requests().size() == 1);
        CHECK(attempts == 2);
        has_failed = limit_was_reached;
    });
}

/// A tracker with logs 1 to 6 in all states, and what has become of them.
struct tracker_to_close {
    pl::testing::recording_async_transport transport{};
    std::vector<pl::request_number> ended{};
    std::optional<pl::polled_tracker> tracker{};

    tracker_to_close() {
        ended.reserve(10);
        transport.respond({503, {}, "a gateway is tired, and says so in a long text"});
        const auto on_end = [this](const pl::finished_request& finished) {
            ended.push_back(finished.number);
        };
        tracker.emplace(a_config, std::ref(transport),
                        pl::tracker_options{.on_delivered = on_end, .on_failed = on_end});
        track("the first has failed once");
        track("the second is delivered");
        for (const auto& name : {"the outcome of the third has arrived", "the fourth is in flight",
                                 "the fifth has not been sent", "the sixth is cancelled"})
            REQUIRE(tracker->track(log_named(name)));
        tracker->poll({});
        transport.respond({400, {}, "the request is refused, and this is the reason"});
        transport.complete_one();
        CHECK(tracker->stats() ==
              pl::outbox_stats{.pushed = 6, .waiting = 3, .in_flight = 2, .delivered = 1});
        REQUIRE(tracker->cancel(6));
    }

    void track(std::string_view name) {
        REQUIRE(tracker->track(log_named(name)));
        tracker->poll({});
        transport.complete_one();
    }
};

TEST_CASE("allocation failure: the next close returns all requests of a close that has thrown") {
    for_each_failure([&] {
        tracker_to_close closed;
        std::vector<pl::finished_request> left;
        const bool is_closed = succeeds([&] { left = closed.tracker->close(); });
        if (!is_closed) {
            closed.tracker->poll(std::chrono::steady_clock::time_point{1min}); // may send what waits
            left = closed.tracker->close();
        }
        CHECK(std::is_sorted(left.begin(), left.end(),
                             [](const auto& a, const auto& b) { return a.number < b.number; }));
        for (const pl::finished_request& request : left) {
            closed.ended.push_back(request.number);
            CHECK(request.outcome == pl::request_outcome::returned);
            if (request.number == 4)
                CHECK(request.error.value().maybe_delivered);
        }
        std::sort(closed.ended.begin(), closed.ended.end());
        CHECK(closed.ended == std::vector<pl::request_number>{1, 2, 3, 4, 5, 6});
        const auto sent = bodies_of(closed.transport.requests());
        const auto fourth = *pl::to_json(log_named("the fourth is in flight"));
        CHECK(std::count(sent.begin(), sent.end(), fourth) == 1);
    });
}

TEST_CASE("allocation failure: the destructor reports each request at most once, and all that ended") {
    for_each_failure([&] {
        tracker_to_close closed;
        CHECK(succeeds([&] { closed.tracker.reset(); }));
        std::sort(closed.ended.begin(), closed.ended.end());
        CHECK(std::adjacent_find(closed.ended.begin(), closed.ended.end()) == closed.ended.end());
        CHECK(closed.ended.front() == (has_failed ? 2 : 1));
        CHECK(closed.ended.back() == 6);
    });
}

TEST_CASE("allocation failure: a full queue drops a request only if another is queued") {
    const pl::track_prompt request = request_named(failed);
    for_each_failure([&] {
        int dropped = 0;
        pl::testing::recording_async_transport transport;
        pl::polled_tracker tracker{a_config,
                                   std::ref(transport),
                                   {.on_failed = [&](const pl::finished_request&) { ++dropped; },
                                    .queue = {.max_requests = 1, .drop_oldest = true}}};
        REQUIRE(tracker.track(request_named(before)));
        const auto queued = track_failing(tracker, request);
        CHECK(tracker.pending() == (queued ? 2 : 1)); // the dropped one is not reported yet
        CHECK(deliver(tracker, transport));
        CHECK(dropped == (queued ? 1 : 0));
        const std::vector<std::string> sent{body_of(queued ? failed : before)};
        CHECK(bodies_of(transport.requests()) == sent);
    });
}

#if !defined(PROMPTLAYER_NO_THREADS)
TEST_CASE("allocation failure: a background tracker sends a request exactly once if it was queued") {
    const pl::track_prompt request = request_named(failed);
    for_each_failure([&] {
        const auto storage = std::make_shared<memory_journal::storage>();
        pl::testing::recording_transport transport;
        pl::background_tracker tracker{
            a_config, std::ref(transport), {.journal = std::make_unique<memory_journal>(storage)}};
        tracker.pause();
        REQUIRE(tracker.track(request_named(before)));
        const auto queued = track_failing(tracker, request);
        CHECK(tracker.stats().pushed == (queued ? 2 : 1));
        REQUIRE(tracker.track(request_named(after)));
        tracker.resume();
        REQUIRE(tracker.flush(1min));
        CHECK(bodies_of(transport.requests()) == expected_bodies(queued.has_value()));
        CHECK(storage->entries.empty());
    });
}

TEST_CASE("allocation failure: a background tracker returns all if its close has thrown") {
    for_each_failure([&] {
        pl::background_tracker tracker{a_config, pl::testing::recording_transport{}};
        tracker.pause();
        for (const auto& name : {before, failed, after})
            REQUIRE(tracker.track(request_named(name)));
        std::vector<pl::finished_request> left;
        if (!succeeds([&] { left = tracker.close(0ms); }))
            left = tracker.close(0ms);
        CHECK(left.size() == 3);
    });
}

TEST_CASE("allocation failure: the thread of a tracker continues, and sends each request once") {
    for_each_failure([&] {
        std::vector<pl::request_number> delivered;
        delivered.reserve(10);
        int sends = 0;
        bool limit_was_reached = false;
        pl::testing::recording_transport recording;
        pl::background_tracker tracker{
            a_config,
            pl::transport_from([&](const pl::http_request& request) {
                mode = failing::none; // of the tracker's thread, which fails between two requests
                limit_was_reached = limit_was_reached || has_failed;
                auto outcome = recording.send(request);
                if (++sends == 1) {
                    successes_left = next_successes;
                    mode = next_mode == failing::none ? next_mode : failing::one;
                }
                return outcome;
            }),
            {.on_delivered = [&](const pl::finished_request& finished) {
                delivered.push_back(finished.number);
            }}};
        tracker.pause();
        for (const auto& name : {before, failed, after})
            REQUIRE(tracker.track(request_named(name)));
        tracker.resume();
        for (int waits = 0; waits < 60'000 && !tracker.flush(1ms); ++waits)
            tracker.retry_now(); // ends the wait for memory
        CHECK(recording.requests().size() == 3);
        std::sort(delivered.begin(), delivered.end());
        CHECK(delivered == std::vector<pl::request_number>{1, 2, 3});
        has_failed = limit_was_reached;
    });
}
#endif

TEST_CASE("allocation failure: a file journal holds a request if it was queued, and loses no other") {
    const fs::path folder =
        fs::temp_directory_path() /
        ("promptlayer-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
    fs::create_directory(folder);
    const pl::track_prompt request = request_named(failed);
    const auto journal = [&](const char* name) {
        return *pl::file_journal::open(folder / name, {.sync_after = std::nullopt});
    };
    const auto bodies_in_copy = [&] {
        fs::copy_file(folder / "journal", folder / "copy", fs::copy_options::overwrite_existing);
        std::vector<std::string> bodies;
        const auto copy = journal("copy");
        CHECK(copy->damaged_records() == 0);
        for (const auto& entry : copy->pending())
            bodies.push_back(entry.request.body);
        return bodies;
    };
    for_each_failure([&] {
        fs::remove(folder / "journal");
        {
            pl::testing::recording_async_transport transport;
            pl::polled_tracker tracker{a_config, std::ref(transport), {.journal = journal("journal")}};
            REQUIRE(tracker.track(request_named(before)));
            const auto queued = track_failing(tracker, request);
            REQUIRE(tracker.track(request_named(after)));
            CHECK(bodies_in_copy() == expected_bodies(queued && !queued->journal_error));
            CHECK(deliver(tracker, transport));
            CHECK(bodies_of(transport.requests()) == expected_bodies(queued.has_value()));
        }
        CHECK(bodies_in_copy().empty());
    });
    std::error_code ignored;
    fs::remove_all(folder, ignored);
}
