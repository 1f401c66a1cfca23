#include <promptlayer/threaded_transport.hpp>

#include <promptlayer/client.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/transport.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(_WIN32)
#include "../support/child_process.hpp"

#include <sys/wait.h>
#include <unistd.h>
#endif

namespace pl = promptlayer;
using namespace std::chrono_literals;
using pl::failure;
using pl::threaded_transport;
using std::chrono::steady_clock;

namespace {

constexpr auto time_limit = std::chrono::milliseconds{20s};

/// What the transports of a test share. A request is held until the gate is open or it is cancelled.
struct gate {
    std::mutex mutex{};
    std::condition_variable condition{};
    bool open = false;
    std::size_t arrived = 0, in_flight = 0, most_in_flight = 0, cancels = 0;
    std::vector<pl::http_request> requests{};

    void pass() {
        const std::lock_guard guard{mutex};
        open = true;
        condition.notify_all();
    }
    template <class ConditionT>
    void wait_until(ConditionT condition_holds) {
        std::unique_lock guard{mutex};
        REQUIRE(condition.wait_for(guard, time_limit, condition_holds));
    }
    void wait_for_arrivals(std::size_t count) {
        wait_until([&] { return arrived >= count; });
    }
};

/// Ends a request with the cancel of that number after its arrival.
struct held_transport {
    std::shared_ptr<gate> state;
    std::size_t needed_cancels = 1;

    pl::transport_result send(const pl::http_request& request) {
        std::unique_lock guard{state->mutex};
        state->requests.push_back(request);
        ++state->arrived;
        state->most_in_flight = std::max(state->most_in_flight, ++state->in_flight);
        const std::size_t end = state->cancels + needed_cancels;
        state->condition.notify_all();
        state->condition.wait_for(guard, time_limit, [&] { return state->open || state->cancels >= end; });
        --state->in_flight;
        if (!state->open)
            return pl::transport_failure{failure::cancelled, "cancelled"};
        return pl::http_response{200, {}, request.body};
    }
    void cancel() {
        const std::lock_guard guard{state->mutex};
        ++state->cancels;
        state->condition.notify_all();
    }
};

/// A `held_transport` that cannot be cancelled.
struct uncancellable_transport {
    held_transport gated;

    pl::transport_result send(const pl::http_request& request) { return gated.send(request); }
};

/// Collects outcomes from any thread.
struct outcome_log {
    std::mutex mutex{};
    std::condition_variable condition{};
    std::vector<pl::transport_result> outcomes{};

    pl::completion completion() {
        return [this](pl::transport_result outcome) {
            const std::lock_guard guard{mutex};
            outcomes.push_back(std::move(outcome));
            condition.notify_all();
        };
    }
    std::vector<pl::transport_result> wait_for(std::size_t count) {
        std::unique_lock guard{mutex};
        REQUIRE(condition.wait_for(guard, time_limit, [&] { return outcomes.size() >= count; }));
        return outcomes;
    }
    std::size_t count(failure kind) {
        const std::lock_guard guard{mutex};
        return static_cast<std::size_t>(
            std::count_if(outcomes.begin(), outcomes.end(), [&](const pl::transport_result& outcome) {
                return !outcome && outcome.error().kind == kind;
            }));
    }
};

pl::http_request request(std::string body = "{}", std::chrono::milliseconds timeout = time_limit) {
    pl::http_request request;
    request.method = "POST";
    request.url = "http://127.0.0.1/";
    request.body = std::move(body);
    request.timeout = timeout;
    return request;
}

/// Returns a transport over gated transports.
threaded_transport<held_transport> gated(std::size_t threads, const std::shared_ptr<gate>& state,
                                         std::size_t needed_cancels = 1) {
    return threaded_transport{threads, [&] { return held_transport{state, needed_cancels}; }};
}

threaded_transport<uncancellable_transport> uncancellable(std::size_t threads,
                                                          const std::shared_ptr<gate>& state) {
    return threaded_transport{threads, [&] { return uncancellable_transport{{state}}; }};
}

/// Lets the clock proceed by more than `time`.
void pass_time(std::chrono::milliseconds time) {
    for (const auto end = steady_clock::now() + time + 1ms; steady_clock::now() < end;)
        std::this_thread::yield();
}

/// A transport that is neither copyable nor movable.
struct immovable_transport {
    immovable_transport() = default;
    immovable_transport(const immovable_transport&) = delete;
    immovable_transport& operator=(const immovable_transport&) = delete;

    pl::transport_result send(const pl::http_request& request) {
        return pl::http_response{200, {}, request.body};
    }
};

static_assert(pl::AsyncTransport<threaded_transport<held_transport>>);
static_assert(!pl::Transport<threaded_transport<held_transport>>);
static_assert(threaded_transport<held_transport>::thread_safe);
static_assert(std::is_nothrow_move_constructible_v<threaded_transport<immovable_transport>> &&
              std::is_nothrow_move_assignable_v<threaded_transport<immovable_transport>>);
static_assert(!std::is_copy_constructible_v<threaded_transport<held_transport>>);

} // namespace

TEST_CASE("threaded transport: as many requests as threads are in flight at once") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    auto transport = gated(4, state);
    for (int i = 0; i < 6; ++i)
        transport.send(request(), log.completion());
    state->wait_for_arrivals(4);
    state->pass();
    for (const auto& outcome : log.wait_for(6))
        CHECK(outcome.has_value());
    CHECK(state->most_in_flight == 4);
}

TEST_CASE("threaded transport: one thread sends the requests in order and completes each") {
    const auto state = std::make_shared<gate>();
    state->pass();
    outcome_log log;
    auto transport = gated(1, state);
    for (const char* const body : {"1", "2", "3"})
        transport.send(request(body), log.completion());
    const auto outcomes = log.wait_for(3);
    for (std::size_t i = 0; i < outcomes.size(); ++i)
        CHECK(outcomes[i]->body == std::to_string(i + 1));
}

TEST_CASE("threaded transport: the factory runs once for each thread, on the constructing thread") {
    std::vector<std::thread::id> callers;
    threaded_transport transport{3, [&] {
                                     callers.push_back(std::this_thread::get_id());
                                     return immovable_transport{};
                                 }};
    CHECK(callers == std::vector<std::thread::id>(3, std::this_thread::get_id()));
    outcome_log log;
    transport.send(request("a"), log.completion());
    CHECK(log.wait_for(1).front()->body == "a");
}

TEST_CASE("threaded transport: there is a thread if none is asked for") {
    threaded_transport transport{0, [] { return immovable_transport{}; }};
    outcome_log log;
    transport.send(request("a"), log.completion());
    CHECK(log.wait_for(1).front()->body == "a");
}

TEST_CASE("threaded transport: cancel ends queued requests and those in flight, and no later one") {
    const auto state = std::make_shared<gate>();
    outcome_log running, queued;
    auto transport = gated(2, state);
    for (int i = 0; i < 2; ++i)
        transport.send(request(), running.completion());
    state->wait_for_arrivals(2);
    for (int i = 0; i < 3; ++i)
        transport.send(request(), queued.completion());
    transport.cancel();
    CHECK(queued.outcomes.size() == 3); // before cancel() has returned
    CHECK(queued.count(failure::cancelled) == 3);
    for (const auto& outcome : queued.outcomes)
        CHECK_FALSE(outcome.error().maybe_delivered);
    running.wait_for(2);
    CHECK(running.count(failure::cancelled) == 2);
    CHECK(state->arrived == 2);
    state->pass();
    outcome_log later;
    transport.send(request(), later.completion());
    CHECK(later.wait_for(1).front().has_value());
}

TEST_CASE("threaded transport: without cancel of its transport, a request runs to its end") {
    const auto state = std::make_shared<gate>();
    outcome_log running, queued;
    auto transport = uncancellable(1, state);
    transport.send(request(), running.completion());
    state->wait_for_arrivals(1);
    transport.send(request(), queued.completion());
    transport.cancel();
    CHECK(queued.count(failure::cancelled) == 1);
    state->pass();
    CHECK(running.wait_for(1).front().has_value());
}

TEST_CASE("threaded transport: the destructor cancels queued and running requests") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    {
        auto transport = gated(2, state);
        for (int i = 0; i < 5; ++i)
            transport.send(request(), log.completion());
        state->wait_for_arrivals(2);
    }
    CHECK(log.outcomes.size() == 5);
    CHECK(log.count(failure::cancelled) == 5);
    CHECK(state->arrived == 2);
}

TEST_CASE("threaded transport: the destructor cancels until each thread has ended") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    {
        auto transport = gated(1, state, 3); // the first cancels come too early
        transport.send(request(), log.completion());
        state->wait_for_arrivals(1);
    }
    CHECK(log.count(failure::cancelled) == 1);
}

TEST_CASE("threaded transport: the destructor waits for a request that cannot be cancelled") {
    const auto state = std::make_shared<gate>();
    outcome_log running, queued;
    std::thread opener;
    {
        auto transport = uncancellable(1, state);
        transport.send(request(), running.completion());
        state->wait_for_arrivals(1);
        transport.send(request(), [&, done = queued.completion()](pl::transport_result outcome) {
            done(std::move(outcome));
            opener = std::thread{[&] { state->pass(); }};
        });
    }
    opener.join();
    CHECK(queued.count(failure::cancelled) == 1);
    CHECK(running.outcomes.size() == 1);
    CHECK(running.outcomes.front().has_value());
}

TEST_CASE("threaded transport: the destructor cancels requests that a completion sends") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    {
        auto transport = gated(1, state);
        transport.send(request(),
                       [&](const pl::transport_result&) { transport.send(request(), log.completion()); });
        state->wait_for_arrivals(1);
    }
    CHECK(log.outcomes.size() == 1);
    CHECK(log.count(failure::cancelled) == 1);
    CHECK(state->arrived == 1);
}

TEST_CASE("threaded transport: completions on its threads send while it is destroyed") {
    for (int i = 0; i < 100; ++i) {
        std::atomic<int> sent{0}, completed{0};
        std::function<void()> send; // outlives the transport
        {
            threaded_transport transport{2, [] { return immovable_transport{}; }};
            send = [&] {
                ++sent;
                transport.send(request(), [&](const pl::transport_result& outcome) {
                    ++completed;
                    if (outcome)
                        send();
                });
            };
            send();
            while (sent < 20)
                std::this_thread::yield();
        }
        CHECK(completed == sent);
    }
}

TEST_CASE("threaded transport: a request that waits longer than its timeout is not sent") {
    const auto state = std::make_shared<gate>();
    outcome_log running, queued;
    auto transport = gated(1, state);
    transport.send(request("first"), running.completion());
    state->wait_for_arrivals(1);
    transport.send(request("second", 1ms), queued.completion());
    transport.send(request("third"), queued.completion());
    pass_time(1ms);
    state->pass();
    const auto outcomes = queued.wait_for(2);
    REQUIRE_FALSE(outcomes[0].has_value());
    CHECK(outcomes[0].error().kind == failure::timeout);
    CHECK_FALSE(outcomes[0].error().maybe_delivered);
    CHECK(outcomes[1]->body == "third");
    CHECK(state->arrived == 2);
}

TEST_CASE("threaded transport: the wait in the queue is taken off the timeout") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    auto transport = gated(1, state);
    transport.send(request(), log.completion());
    state->wait_for_arrivals(1);
    transport.send(request("second", time_limit), log.completion());
    transport.send(request("third", std::chrono::milliseconds::max()), log.completion());
    pass_time(5ms);
    state->pass();
    log.wait_for(3);
    CHECK(state->requests[1].timeout <= time_limit - 5ms);
    CHECK(state->requests[1].timeout > 0ms);
    CHECK(state->requests[2].timeout <= std::chrono::milliseconds::max() - 5ms);
    CHECK(state->requests[2].timeout > 24h);
}

TEST_CASE("threaded transport: a request without time is a timeout") {
    outcome_log log;
    threaded_transport transport{1, [] { return immovable_transport{}; }};
    transport.send(request("", 0ms), log.completion());
    transport.send(request("", std::chrono::milliseconds::min()), log.completion());
    log.wait_for(2);
    CHECK(log.count(failure::timeout) == 2);
}

TEST_CASE("threaded transport: a completion may send, cancel and be empty") {
    const auto state = std::make_shared<gate>();
    state->pass();
    outcome_log log;
    auto transport = gated(1, state);
    transport.send(request(), nullptr);
    transport.send(request(), [&](const pl::transport_result&) {
        transport.cancel();
        transport.send(request("again"), log.completion());
    });
    CHECK(log.wait_for(1).front()->body == "again");
}

TEST_CASE("threaded transport: a completion is destroyed when it has been called") {
    threaded_transport transport{1, [] { return immovable_transport{}; }};
    outcome_log log;
    transport.send(request(), [guard = std::shared_ptr<void>{nullptr, [&](void*) {
                                                                 log.completion()(pl::http_response{});
                                                             }}](const pl::transport_result&) {});
    CHECK(log.wait_for(1).size() == 1); // while the transport has nothing else to do
}

TEST_CASE("threaded transport: it may be moved with requests in flight") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    auto first = gated(1, state);
    for (int i = 0; i < 2; ++i)
        first.send(request(), log.completion());
    state->wait_for_arrivals(1);
    auto second = std::move(first);
    bool dropped = false;
    first.send(request(), [&, guard = std::shared_ptr<void>{nullptr, [&](void*) { dropped = true; }}](
                              const pl::transport_result&) { FAIL("called"); });
    first.cancel();
    CHECK(dropped);
    state->pass();
    for (const auto& outcome : log.wait_for(2))
        CHECK(outcome.has_value());

    const auto other = std::make_shared<gate>();
    auto third = gated(1, other);
    third.send(request(), log.completion());
    other->wait_for_arrivals(1);
    third = std::move(second); // ends the requests of the old one
    CHECK(log.count(failure::cancelled) == 1);
    third.send(request(), log.completion());
    CHECK(log.wait_for(4).back().has_value());
}

TEST_CASE("threaded transport: each request of many threads is completed once") {
    const auto state = std::make_shared<gate>();
    state->pass();
    outcome_log log;
    {
        auto transport = gated(3, state);
        std::vector<std::thread> senders;
        for (int sender = 0; sender < 4; ++sender)
            senders.emplace_back([&] {
                for (int i = 0; i < 100; ++i) {
                    transport.send(request(), log.completion());
                    if (i == 50)
                        transport.cancel();
                }
            });
        for (std::thread& sender : senders)
            sender.join();
    }
    CHECK(log.outcomes.size() == 400);
    CHECK(state->most_in_flight <= 3);
}

TEST_CASE("threaded transport: a client tracks over it") {
    threaded_transport transport{
        2, [] {
            return pl::transport_from([](const pl::http_request&) -> pl::transport_result {
                return pl::http_response{200, {}, R"({"success":true,"message":"tracked"})"};
            });
        }};
    outcome_log log;
    pl::client client{{.api_key = "pl_key"}, std::move(transport)};
    client.track_prompt({.prompt_name = "a", .request_id = 1},
                        [&](const pl::result<pl::track_response>& tracked) {
                            log.completion()(pl::http_response{200, {}, tracked->message});
                        });
    CHECK(log.wait_for(1).front()->body == "tracked");
}

#if defined(__cpp_exceptions)
TEST_CASE("threaded transport: an exception of a transport is failure::other, of a factory passes on") {
    outcome_log log;
    threaded_transport transport{
        1,
        [] { return pl::transport_from([](const pl::http_request&) -> pl::transport_result { throw 7; }); }};
    transport.send(request(), log.completion());
    transport.send(request(), log.completion());
    log.wait_for(2);
    CHECK(log.count(failure::other) == 2);

    int calls = 0;
    const auto factory = [&] {
        if (++calls == 3)
            throw 8;
        return immovable_transport{};
    };
    CHECK_THROWS_AS((threaded_transport{4, factory}), int);
    CHECK(calls == 3);
}
#endif

#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // these have no fork
TEST_CASE("threaded transport: a forked child does not hang, and the parent goes on") {
    const auto state = std::make_shared<gate>();
    outcome_log log;
    std::optional<threaded_transport<held_transport>> transport{gated(1, state)};
    for (int i = 0; i < 2; ++i)
        transport->send(request(), log.completion());
    state->wait_for_arrivals(1);
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        bool failed = false;
        transport->send(request(), [&](const pl::transport_result& outcome) {
            failed = !outcome && outcome.error().kind == failure::other && !outcome.error().maybe_delivered;
        });
        transport->cancel();
        transport.reset();
        test_support::end_child(failed ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    state->pass();
    for (const auto& outcome : log.wait_for(2))
        CHECK(outcome.has_value());
}
#endif
