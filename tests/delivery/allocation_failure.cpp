// Makes each allocation of `encode`, `decode`, `track` and `poll` fail in turn: nothing leaks, nothing is
// half done, and every request that was reported as queued ends exactly once.

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

#include "../support/memory_journal.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
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
    const pl::track_prompt request = request_named(failed);
    const pl::http_request complete = *pl::encode(a_config, request);
    for_each_failure([&] {
        pl::http_request out;
        if (succeeds([&] { out = *pl::encode(a_config, request); }))
            CHECK(out == complete);
    });
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
    for (const int failed_poll : {0, 1, 2, 3, 4, 5}) {
        for_each_failure([&] {
            std::vector<pl::request_number> delivered;
            delivered.reserve(10);
            pl::testing::recording_async_transport transport;
            transport.respond({503, {}, "a gateway is tired, and says so in a long text"});
            transport.respond({429, {{"Retry-After", "1"}}, ""});
            pl::polled_tracker tracker{
                a_config, std::ref(transport), {.on_delivered = [&](const auto& finished) {
                    delivered.push_back(finished.number);
                }}};
            for (const auto& name : {before, failed, after})
                REQUIRE(tracker.track(request_named(name)));
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
            CHECK(tracker.pending() == 3 - delivered.size());
            for (int polls = 0; polls < 100 && tracker.pending() != 0; ++polls) {
                tracker.poll(now += 1min);
                transport.complete_all();
            }
            std::sort(delivered.begin(), delivered.end());
            CHECK(delivered == std::vector<pl::request_number>{1, 2, 3});
            CHECK(tracker.stats() == pl::outbox_stats{.pushed = 3, .delivered = 3});
            has_failed = limit_was_reached;
        });
    }
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
