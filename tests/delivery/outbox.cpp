#include <promptlayer/outbox.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using pl::request_outcome;
using std::chrono::milliseconds;
using test_support::status_error;
using test_support::transport_error;

namespace {

pl::error config_error() { return {.code = pl::errc::invalid_config}; }

pl::error rate_limited(std::chrono::seconds retry_after) {
    return status_error(429, pl::errc::rate_limited, retry_after);
}

pl::error unavailable(std::chrono::seconds retry_after) {
    return status_error(503, pl::errc::server_error, retry_after);
}

/// An outbox with a clock and random numbers that the test sets. With the random number 0.4, the waits of the
/// circuit breaker are 1 times 2 s, 4 s, 8 s, and those of a request 0.4 times that.
struct outbox_fixture {
    double random = 0.4;
    pl::outbox box;
    pl::outbox::time_point now{1h};

    explicit outbox_fixture(pl::queue_options options = {}) : box(options, [this] { return random; }) {}
    outbox_fixture(const outbox_fixture&) = delete;
    outbox_fixture& operator=(const outbox_fixture&) = delete;

    pl::request_number push(std::string body = "{}", bool idempotent = true) {
        return box.push({"/p", std::move(body), idempotent}, now).value();
    }

    void push_all(int count) {
        for (; count != 0; --count)
            push();
    }

    /// Returns the number of the request that is due, or 0 if there is none.
    pl::request_number take() {
        const auto due = box.take(now);
        return due ? due->number : 0;
    }

    std::size_t take_all() {
        std::size_t count = 0;
        while (take() != 0)
            ++count;
        return count;
    }

    std::optional<request_outcome> complete(pl::request_number number, std::optional<pl::error> cause = {}) {
        const auto finished = box.complete(number, std::move(cause), now);
        return finished ? std::optional{finished->outcome} : std::nullopt;
    }

    /// Takes a request and completes it. Returns its number.
    pl::request_number send(std::optional<pl::error> cause = {}) {
        const pl::request_number number = take();
        REQUIRE(number != 0);
        complete(number, std::move(cause));
        return number;
    }

    std::optional<milliseconds> due_in() {
        const auto due = box.next_due(now);
        return due ? std::optional{std::chrono::duration_cast<milliseconds>(*due - now)} : std::nullopt;
    }

    bool is_open() const { return box.outage_cause().has_value(); }

    /// Returns whether a request becomes due exactly after a wait, and lets that pass.
    bool is_due_after(milliseconds wait) {
        const bool agrees = due_in() == wait;
        now += wait - 1ms;
        const bool is_early = box.next_due(now) <= now;
        now += 1ms;
        return agrees && !is_early && box.next_due(now) <= now;
    }

    /// Sends requests until the window has a size. Pushes them.
    void grow_window(std::size_t size) {
        for (std::size_t window = 1; window < size; ++window) {
            push();
            send();
        }
    }
};

const pl::error all_service_failures[] = {
    status_error(401),
    status_error(403),
    status_error(408),
    status_error(429),
    status_error(500),
    status_error(501),
    status_error(503),
    status_error(599),
    transport_error(pl::failure::resolve),
    transport_error(pl::failure::connect),
    transport_error(pl::failure::tls),
    transport_error(pl::failure::timeout),
    transport_error(pl::failure::reset),
    transport_error(pl::failure::other),
    config_error(),
};

} // namespace

TEST_CASE("outbox: requests are taken in order and delivered") {
    outbox_fixture queue;
    CHECK_FALSE(queue.due_in());
    CHECK(queue.take() == 0);
    CHECK(queue.push("1") == 1);
    CHECK(queue.push("2") == 2);
    CHECK(queue.due_in() == 0ms);
    const auto due = queue.box.take(queue.now);
    REQUIRE(due);
    CHECK(due->number == 1);
    CHECK(due->attempt == 1);
    CHECK(due->request == pl::prepared_request{"/p", "1"});
    const auto finished = queue.box.complete(1, std::nullopt, queue.now);
    REQUIRE(finished);
    CHECK(finished->number == 1);
    CHECK(finished->request == pl::prepared_request{"/p", "1"});
    CHECK(finished->outcome == request_outcome::delivered);
    CHECK_FALSE(finished->error);
    CHECK(finished->attempts == 1);
    CHECK(queue.take() == 2);
    CHECK(queue.box.bytes() == 3);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 2, .in_flight = 1, .delivered = 1});
    CHECK_FALSE(queue.complete(1)); // a second time
    CHECK_FALSE(queue.complete(7)); // never pushed
}

TEST_CASE("outbox: a delivered request reports no error of an earlier attempt") {
    outbox_fixture queue;
    queue.push();
    queue.send(status_error(503));
    queue.now += 1h;
    REQUIRE(queue.take() == 1);
    const auto finished = queue.box.complete(1, std::nullopt, queue.now);
    REQUIRE(finished);
    CHECK_FALSE(finished->error);
    CHECK(finished->attempts == 2);
}

// ---- limits

TEST_CASE("outbox: a push fails if it would exceed the maximum of requests or bytes") {
    outbox_fixture count{{.max_requests = 2}};
    count.push_all(2);
    const auto refused = count.box.push({"/p", "{}"}, count.now);
    CHECK(refused.error().code == pl::errc::queue_full);
    CHECK(count.box.reserve({"/p", "{}"}).error().code == pl::errc::queue_full);
    CHECK(count.take() == 1);
    CHECK_FALSE(count.box.push({"/p", "{}"}, count.now)); // a request in flight counts
    count.complete(1);
    CHECK(count.push() == 3);

    outbox_fixture bytes{{.max_bytes = 10}};
    CHECK_FALSE(bytes.box.push({"/p", std::string(9, 'x')}, bytes.now));
    CHECK(bytes.push(std::string(8, 'x')) == 1);
    CHECK_FALSE(bytes.box.push({"", "x"}, bytes.now));
    CHECK(bytes.box.push({}, bytes.now));
    CHECK(bytes.box.bytes() == 10);
}

TEST_CASE("outbox: drop_oldest drops as many waiting requests as a new one needs") {
    outbox_fixture queue{{.max_bytes = 12, .drop_oldest = true}};
    for (const char* body : {"1", "2", "3", "4"})
        queue.push(body);
    CHECK(queue.take() == 1);
    CHECK_FALSE(queue.box.has_finished());
    CHECK(queue.push("abcd") == 5);
    CHECK(queue.box.has_finished());
    for (const pl::request_number number : {2U, 3U}) {
        const auto dropped = queue.box.take_finished();
        REQUIRE(dropped);
        CHECK(dropped->number == number);
        CHECK(dropped->request.body == std::to_string(number));
        CHECK(dropped->outcome == request_outcome::dropped);
    }
    CHECK_FALSE(queue.box.take_finished());
    CHECK_FALSE(queue.box.has_finished());
    CHECK(queue.box.bytes() == 12);
    // does not fit beside the request in flight, so nothing is dropped
    CHECK_FALSE(queue.box.push({"/p", std::string(8, 'x')}, queue.now));
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 5, .waiting = 2, .in_flight = 1, .dropped = 2});
    CHECK(queue.push(std::string(7, 'x')) == 6);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 6, .waiting = 1, .in_flight = 1, .dropped = 4});
    queue.complete(1);
    while (queue.box.take_finished())
        continue;
    CHECK(queue.push(std::string(10, 'x')) == 7);
}

TEST_CASE("outbox: drop_oldest also drops requests that wait for another attempt, oldest first") {
    outbox_fixture queue{{.max_requests = 3, .drop_oldest = true}};
    queue.push_all(2);
    CHECK(queue.send(status_error(500)) == 1);
    CHECK(queue.send(status_error(500)) == 2);
    queue.push();
    CHECK(queue.push() == 4);
    const auto dropped = queue.box.take_finished();
    REQUIRE(dropped);
    CHECK(dropped->number == 1);
    CHECK(dropped->attempts == 1);
    CHECK(dropped->error->status == 500);
    queue.now += 1h;
    CHECK(queue.take() == 3);
}

TEST_CASE("outbox: dropped and cancelled requests count against the limits until they are taken") {
    outbox_fixture dropping{{.max_requests = 2, .drop_oldest = true}};
    dropping.push_all(4);
    CHECK(dropping.box.push({"/p", "{}"}, dropping.now).error().code == pl::errc::queue_full);
    CHECK(dropping.box.take_finished()->number == 1);
    CHECK(dropping.push() == 5);

    outbox_fixture bytes{{.max_bytes = 8, .drop_oldest = true}};
    for (int i = 0; i < 4; ++i)
        CHECK(bytes.push() != 0); // 4 bytes each, so 8 bytes are dropped
    CHECK_FALSE(bytes.box.push({"", "x"}, bytes.now));
    CHECK(bytes.box.take_finished());
    CHECK(bytes.push() == 5);

    outbox_fixture cancelling{{.max_requests = 2, .max_bytes = 8}};
    cancelling.push_all(2);
    CHECK(cancelling.box.cancel(1));
    CHECK(cancelling.box.bytes() == 4);
    CHECK_FALSE(cancelling.box.push({}, cancelling.now));
    CHECK(cancelling.box.take_finished()->number == 1);
    CHECK(cancelling.push() == 3);
}

TEST_CASE("outbox: a drop frees the whole queue if no request is in flight") {
    outbox_fixture queue{{.max_requests = 3, .max_bytes = 100, .drop_oldest = true}};
    queue.push_all(3);
    CHECK(queue.push(std::string(98, 'x')) == 4);
    CHECK(queue.box.stats().dropped == 3);
    CHECK_FALSE(queue.box.push({"/p", std::string(99, 'x')}, queue.now));
}

TEST_CASE("outbox: by default a queue has 10,000 requests, 16 MiB and 16 requests in flight") {
    outbox_fixture queue;
    queue.grow_window(20);
    queue.push_all(10'000);
    CHECK(queue.box.push({}, queue.now).error().code == pl::errc::queue_full);
    CHECK(queue.take_all() == 16);

    outbox_fixture large;
    CHECK(large.box.push({"", std::string(16 * 1024 * 1024 + 1, 'x')}, large.now).error().code ==
          pl::errc::queue_full);
    CHECK(large.box.push({"", std::string(16 * 1024 * 1024, 'x')}, large.now));
}

TEST_CASE("outbox: max_in_flight limits the requests in flight, and 0 counts as 1") {
    for (const std::size_t limit : {0U, 1U, 3U}) {
        outbox_fixture queue{{.max_in_flight = limit}};
        queue.grow_window(10);
        queue.push_all(10);
        CHECK(queue.take_all() == (limit == 0 ? 1 : limit));
        CHECK_FALSE(queue.due_in());
    }
}

// ---- numbers

TEST_CASE("outbox: reserve returns ascending numbers, and push queues a request under its number") {
    outbox_fixture queue;
    CHECK(queue.box.reserve({}).value() == 1);
    CHECK(queue.box.reserve({}).value() == 2);
    CHECK(queue.push() == 3);
    CHECK(queue.box.push(2, {"/p", "two"}, queue.now).value() == 2);
    CHECK(queue.box.stats().pushed == 2);
    CHECK(queue.send() == 2);
    CHECK(queue.send() == 3);
    queue.box.close();
    CHECK(queue.box.push(1, {}, queue.now).error().code == pl::errc::closed);
}

TEST_CASE("outbox: restore takes numbers in any order, whatever the limits") {
    outbox_fixture queue{{.max_requests = 1}};
    queue.box.restore(7, {"/p", "seven"}, 0ms, queue.now);
    queue.box.restore(3, {"/p", "three"}, 0ms, queue.now);
    queue.box.restore(5, {"/p", "five"}, 0ms, queue.now);
    CHECK(queue.box.bytes() == 20);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 3, .waiting = 3});
    for (const pl::request_number number : {3U, 5U, 7U})
        CHECK(queue.send() == number);
    CHECK(queue.push() == 8);
}

TEST_CASE("outbox: restore ignores a number that is queued already") {
    outbox_fixture queue;
    queue.push_all(3);
    CHECK(queue.send(status_error(500)) == 1);
    REQUIRE(queue.take() == 2);
    for (const pl::request_number number : {1U, 2U, 3U})
        queue.box.restore(number, {"/p", "other"}, 0ms, queue.now);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 3, .waiting = 2, .in_flight = 1});
    CHECK(queue.box.bytes() == 12);
    CHECK(queue.box.drain().size() == 3);
    CHECK(queue.box.bytes() == 0);
}

TEST_CASE("outbox: a restored request keeps its age") {
    outbox_fixture queue;
    queue.box.restore(1, {}, 24h - 801ms, queue.now);
    queue.box.restore(2, {}, 24h - 800ms, queue.now);
    queue.box.restore(3, {}, 24h - 799ms, queue.now);
    CHECK_FALSE(queue.complete(queue.take(), status_error(500)));
    CHECK_FALSE(queue.complete(queue.take(), status_error(500)));
    CHECK(queue.complete(queue.take(), status_error(500)) == request_outcome::expired);

    outbox_fixture fresh{{.retry = {.max_age = 800ms}}};
    fresh.box.restore(1, {}, -1ms, fresh.now); // counts as 0
    CHECK_FALSE(fresh.complete(fresh.take(), status_error(500)));
}

// ---- rule 1: service failures and healthy responses

TEST_CASE("outbox: a service failure keeps its request, and any other response ends it") {
    for (const pl::error& cause : all_service_failures) {
        outbox_fixture queue;
        queue.push();
        REQUIRE(queue.take() == 1);
        CHECK_FALSE(queue.complete(1, cause));
    }
    const auto end = [](const pl::error& cause) {
        outbox_fixture queue;
        queue.push();
        REQUIRE(queue.take() == 1);
        const auto finished = queue.box.complete(1, cause, queue.now);
        REQUIRE(finished);
        CHECK(finished->error->status == cause.status);
        CHECK(queue.box.bytes() == 0);
        return finished->outcome;
    };
    CHECK(end(status_error(400, pl::errc::bad_request)) == request_outcome::rejected);
    CHECK(end(status_error(404, pl::errc::not_found)) == request_outcome::rejected);
    CHECK(end(status_error(409, pl::errc::conflict)) == request_outcome::rejected);
    CHECK(end(status_error(422, pl::errc::unprocessable)) == request_outcome::rejected);
    CHECK(end(status_error(200, pl::errc::rejected)) == request_outcome::rejected);
    CHECK(end(status_error(200, pl::errc::malformed_response)) == request_outcome::failed);
    CHECK(end(status_error(302)) == request_outcome::failed);
    CHECK(end({.code = pl::errc::invalid_request}) == request_outcome::failed);
}

TEST_CASE("outbox: a cancelled attempt is neither healthy nor a failure, but counts as an attempt") {
    outbox_fixture queue{{.retry = {.max_attempts = 2, .max_age = std::nullopt}}};
    queue.push_all(6);
    for (int i = 0; i < 2; ++i)
        queue.send(status_error(500));
    queue.send(transport_error(pl::failure::cancelled)); // does not interrupt the row of failures
    for (int i = 0; i < 2; ++i)
        queue.send(status_error(500));
    CHECK_FALSE(queue.is_open());
    queue.send(status_error(500));
    CHECK(queue.is_open());
    for (int i = 0; i < 3; ++i) {
        queue.now += 1h;
        queue.send(transport_error(pl::failure::cancelled));
    }
    CHECK(queue.box.stats().failed == 3);
    CHECK(queue.is_open());
}

TEST_CASE("outbox: a cancelled attempt does not let the window grow") {
    outbox_fixture queue;
    queue.push_all(5);
    queue.send(transport_error(pl::failure::cancelled));
    CHECK(queue.take_all() == 1);
}

// ---- rule 2: the wait of a request

TEST_CASE("outbox: a request waits a random time that doubles up to max_delay, at least 100 ms") {
    outbox_fixture queue{{.retry = {.max_attempts = 0, .max_delay = 7s, .max_age = std::nullopt}}};
    queue.push();
    queue.random = 1;
    for (const milliseconds wait : {2s, 4s, 7s}) {
        queue.send(status_error(500));
        CHECK(queue.is_due_after(wait));
    }
    queue.random = 0;
    queue.send(status_error(500));
    CHECK(queue.is_due_after(100ms));
}

TEST_CASE("outbox: Retry-After is added to the wait of its request, up to max_retry_after") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.send(status_error(500)); // request 1 is at fault when it fails again
    queue.send();
    queue.send();
    queue.now += 800ms;
    queue.send(rate_limited(60s));
    CHECK_FALSE(queue.is_open());
    CHECK(queue.is_due_after(1'600ms + 60s));
    queue.send(unavailable(3601s));
    CHECK(queue.is_due_after(3'200ms + 3600s));
    queue.send(unavailable(-1s));
    CHECK(queue.is_due_after(6'400ms));
}

// ---- rule 3: the order

TEST_CASE("outbox: requests are sent by due time: the push, or the end of the wait") {
    outbox_fixture queue;
    queue.push(); // 1
    queue.send(status_error(500));
    queue.now += 799ms;
    queue.push(); // 2
    queue.now += 1ms;
    queue.push(); // 3, due when the wait of 1 ends
    queue.now += 1ms;
    queue.push(); // 4
    queue.now += 1h;
    CHECK(queue.send() == 2);
    CHECK(queue.send() == 1);
    CHECK(queue.send() == 3);
    CHECK(queue.send() == 4);
}

TEST_CASE("outbox: failed requests are sent by the end of their waits, not by number") {
    outbox_fixture queue;
    queue.push_all(2);
    queue.random = 1;
    queue.send(status_error(500));
    queue.random = 0.4;
    queue.send(status_error(500));
    CHECK(queue.due_in() == 800ms);
    queue.now += 2s;
    CHECK(queue.send() == 2);
    CHECK(queue.send() == 1);
}

// ---- rule 4: a request at fault

TEST_CASE("outbox: a request that fails again while others succeed does not open the circuit breaker") {
    for (const pl::error& cause : all_service_failures) {
        outbox_fixture queue;
        queue.push();
        queue.send();
        queue.push();
        queue.send(status_error(500));
        queue.push();
        queue.send();
        for (int i = 0; i < 20; ++i) {
            queue.now += 1h;
            if (queue.take() == 2)
                queue.complete(2, cause);
            CHECK_FALSE(queue.is_open());
        }
    }
}

TEST_CASE("outbox: a request that fails again counts if no other has succeeded since its last failure") {
    outbox_fixture queue;
    queue.push_all(2);
    CHECK(queue.send() == 1);
    for (int i = 0; i < 4; ++i) {
        queue.send(status_error(500));
        queue.now += *queue.due_in();
        CHECK_FALSE(queue.is_open());
    }
    queue.send(status_error(500));
    CHECK(queue.is_open());
}

TEST_CASE("outbox: a request is not at fault for failures while the circuit breaker was open") {
    outbox_fixture queue;
    queue.push_all(2);
    CHECK(queue.send(status_error(429)) == 1);
    queue.now += 5s;
    CHECK(queue.send(status_error(503)) == 2); // the probe
    queue.now += 2s;
    queue.push();
    CHECK(queue.send() == 3);
    CHECK_FALSE(queue.is_open());
    queue.now += 10s;
    const auto first = queue.take();
    REQUIRE((first == 1 || first == 2));
    queue.complete(first, status_error(429));
    CHECK(queue.is_open() == (first == 2)); // request 1 failed before; its failure counts no more
    if (first == 1) {
        CHECK(queue.send(status_error(429)) == 2);
        CHECK(queue.is_open());
    }
}

// ---- rule 5: what opens the circuit breaker

TEST_CASE("outbox: five failures in a row open the circuit breaker") {
    outbox_fixture queue;
    queue.push_all(20);
    for (int i = 0; i < 4; ++i)
        queue.send(status_error(500));
    CHECK_FALSE(queue.is_open());
    queue.send(status_error(422, pl::errc::unprocessable)); // healthy: the window is 2 now
    for (int i = 0; i < 4; ++i)
        queue.send(transport_error(pl::failure::timeout));
    CHECK_FALSE(queue.is_open());
    queue.send(transport_error(pl::failure::connect));
    REQUIRE(queue.is_open());
    CHECK(queue.box.outage_cause()->failure == pl::failure::connect);
    CHECK(queue.take() == 0);
}

TEST_CASE("outbox: more requests in flight need more failures in a row, up to twelve") {
    struct row {
        std::size_t window;
        int failures;
    };
    for (const row each : {row{1, 5}, {3, 5}, {4, 6}, {27, 11}, {28, 12}, {64, 12}}) {
        outbox_fixture queue{{.max_in_flight = 64}};
        queue.grow_window(each.window);
        queue.push_all(20);
        for (int i = 1; i < each.failures; ++i)
            queue.send(status_error(500));
        CHECK_FALSE(queue.is_open());
        queue.send(status_error(500));
        CHECK(queue.is_open());
    }
}

TEST_CASE("outbox: one 429 or Retry-After opens the circuit breaker") {
    for (const pl::error& cause : {status_error(429), rate_limited(1s), unavailable(1s)}) {
        outbox_fixture queue;
        queue.push_all(2);
        queue.send();
        queue.send(cause);
        CHECK(queue.is_open());
    }
    outbox_fixture queue;
    queue.push();
    queue.send(unavailable(0s));
    CHECK_FALSE(queue.is_open());
}

TEST_CASE("outbox: one 401, 403, TLS failure or bad config opens the breaker until a healthy response") {
    for (const pl::error& cause :
         {status_error(401), status_error(403), transport_error(pl::failure::tls), config_error()}) {
        outbox_fixture queue;
        queue.push_all(3);
        queue.send(cause);
        CHECK(queue.is_open());

        outbox_fixture proven;
        proven.push_all(9);
        proven.send(status_error(400, pl::errc::bad_request));
        proven.send(cause);
        CHECK_FALSE(proven.is_open());
        proven.box.reconfigure(proven.now);
        proven.send(cause);
        CHECK(proven.is_open());
    }
    for (const pl::error& cause :
         {status_error(408), status_error(500), transport_error(pl::failure::reset)}) {
        outbox_fixture queue;
        queue.push();
        queue.send(cause);
        CHECK_FALSE(queue.is_open());
    }
}

// ---- rule 6: the waits between probes

TEST_CASE("outbox: the wait before a probe doubles from initial_delay to max_delay") {
    outbox_fixture queue{{.retry = {.max_attempts = 0, .initial_delay = 3s, .max_age = std::nullopt}}};
    queue.push_all(50);
    queue.send(config_error());
    for (const milliseconds wait : {3s, 6s, 12s, 24s, 30s, 30s}) {
        CHECK(queue.is_due_after(wait));
        queue.send(status_error(503));
    }
    queue.now += 30s;
    queue.send(); // closes
    queue.box.reconfigure(queue.now);
    queue.send(config_error());
    CHECK(queue.is_due_after(3s));
}

TEST_CASE("outbox: the wait after a 429 doubles on its own, from 5 s to half of max_delay") {
    outbox_fixture queue{{.retry = {.max_attempts = 0, .max_age = std::nullopt}}};
    queue.push_all(50);
    queue.send(status_error(429));
    CHECK(queue.is_due_after(5s));
    queue.send(status_error(503));
    CHECK(queue.is_due_after(2s));
    queue.send(status_error(429));
    CHECK(queue.is_due_after(10s));
    queue.send(status_error(429));
    CHECK(queue.is_due_after(15s));
    queue.send(status_error(503));
    CHECK(queue.is_due_after(4s));
    queue.send();
    queue.send(status_error(429));
    CHECK(queue.is_due_after(5s));
}

TEST_CASE("outbox: the wait before a probe is 0.6 to 1.6 times its delay, at least 100 ms") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.random = 0;
    queue.send(config_error());
    CHECK(queue.is_due_after(1'200ms));
    queue.random = 1;
    queue.send(config_error());
    CHECK(queue.is_due_after(6'400ms));

    outbox_fixture quick{{.retry = {.initial_delay = 0ms}}};
    quick.push_all(3);
    quick.random = 0;
    quick.send(config_error());
    CHECK(quick.is_due_after(100ms));
    quick.random = 1;
    quick.send(config_error());
    CHECK(quick.is_due_after(320ms));
}

// ---- rule 7: Retry-After

TEST_CASE("outbox: of the Retry-After of one request, 5 s are heeded, plus up to a quarter") {
    outbox_fixture queue;
    queue.push_all(2);
    queue.random = 0;
    queue.send(unavailable(5s));
    CHECK(queue.is_due_after(5s));
    queue.send();

    outbox_fixture longer;
    longer.push();
    longer.random = 1;
    longer.send(unavailable(60s));
    CHECK(longer.is_due_after(6'250ms));
    longer.send(unavailable(60s)); // the same request
    CHECK(longer.is_due_after(6'400ms));

    outbox_fixture shorter;
    shorter.push();
    shorter.send(unavailable(1s));
    CHECK(shorter.is_due_after(2s)); // the own delay of the breaker is longer
}

TEST_CASE("outbox: after failures of two requests, Retry-After is heeded up to max_delay") {
    outbox_fixture queue;
    queue.push_all(10);
    queue.random = 0;
    queue.send(status_error(500));
    queue.send(unavailable(60s));
    CHECK(queue.is_due_after(60s));
    queue.random = 1;
    queue.send(rate_limited(3600s));
    CHECK(queue.is_due_after(375s));
    queue.random = 0;
    queue.send(); // a healthy response: the next Retry-After is again of one request
    CHECK(queue.send(unavailable(60s)) != 0);
    CHECK(queue.due_in() == 5s);
}

TEST_CASE("outbox: failures of two requests count although one of them fails again") {
    outbox_fixture queue;
    queue.push_all(2);
    CHECK(queue.send(status_error(500)) == 1);
    queue.random = 0;
    CHECK(queue.send(status_error(500)) == 2);
    queue.now += 100ms;
    CHECK(queue.send(unavailable(60s)) == 2);
    CHECK(queue.is_due_after(60s));
}

TEST_CASE("outbox: Retry-After in a late response prolongs the wait to at most 5 s") {
    outbox_fixture queue;
    queue.grow_window(4);
    queue.push_all(9);
    REQUIRE(queue.take_all() == 4);
    queue.complete(4, unavailable(1s));
    CHECK(queue.due_in() == 2s);
    queue.complete(5, unavailable(1s));
    CHECK(queue.due_in() == 2s);
    queue.complete(6, unavailable(3s));
    CHECK(queue.due_in() == 3s);
    queue.complete(7, unavailable(60s));
    CHECK(queue.is_due_after(5s));
}

// ---- rule 8: the probe

TEST_CASE("outbox: one probe at a time is sent, drawn among the requests with the fewest attempts") {
    for (const auto& [random, expected] :
         {std::pair<double, pl::request_number>{0.0, 2}, {0.3, 5}, {0.89, 10}, {0.99, 11}, {1.0, 11}}) {
        outbox_fixture queue;
        queue.push_all(11);
        CHECK(queue.send(status_error(429)) == 1);
        queue.now += 5s;
        queue.random = random;
        CHECK(queue.take() == expected);
        CHECK_FALSE(queue.due_in());
        CHECK(queue.take() == 0);
    }
}

TEST_CASE("outbox: every request is probed before one is probed again, whatever its own wait") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.send(status_error(429));
    std::vector<int> probes(4);
    for (int i = 1; i < 9; ++i) {
        queue.now += *queue.due_in();
        queue.random = i % 3 / 2.0;
        ++probes[static_cast<std::size_t>(queue.take())];
        queue.random = 1; // the own waits are the longest
        const auto lowest = static_cast<pl::request_number>(
            std::find_if(probes.begin() + 1, probes.end(), [&](int count) { return count != 0; }) -
            probes.begin());
        for (pl::request_number number = lowest; number <= 3; ++number)
            queue.complete(number, status_error(503));
    }
    CHECK(probes[1] + 1 == 3);
    CHECK(probes[2] == 3);
    CHECK(probes[3] == 3);
}

TEST_CASE("outbox: a cancelled probe is replaced after another wait of the same length") {
    outbox_fixture queue;
    queue.push_all(4);
    queue.send(status_error(503, pl::errc::server_error, 1s));
    CHECK(queue.is_due_after(2s));
    queue.send(transport_error(pl::failure::cancelled));
    CHECK(queue.is_due_after(2s));
    queue.send(status_error(503));
    CHECK(queue.is_due_after(4s));
    CHECK(queue.box.outage_cause()->status == 503);
}

TEST_CASE("outbox: a cancelled attempt from before the opening does not change the wait for a probe") {
    outbox_fixture queue;
    queue.grow_window(3);
    queue.push_all(3);
    REQUIRE(queue.take_all() == 3);
    queue.complete(3, status_error(429));
    queue.now += 1s;
    queue.complete(4, transport_error(pl::failure::cancelled));
    CHECK(queue.due_in() == 4s);
}

TEST_CASE("outbox: a healthy response to the probe closes the circuit breaker, also a refusal") {
    for (const std::optional<pl::error>& response :
         {std::optional<pl::error>{}, std::optional{status_error(400, pl::errc::bad_request)}}) {
        outbox_fixture queue;
        queue.push_all(3);
        queue.send(status_error(429));
        queue.now += 5s;
        queue.send(response);
        CHECK_FALSE(queue.is_open());
        CHECK(queue.take() != 0);
    }
}

// ---- rule 9: late responses

TEST_CASE("outbox: late responses neither close the circuit breaker nor double its wait") {
    outbox_fixture queue;
    queue.grow_window(4);
    queue.push_all(9);
    REQUIRE(queue.take_all() == 4);
    queue.complete(4, status_error(429));
    queue.now += 1s;
    CHECK(queue.complete(5) == request_outcome::delivered);
    CHECK(queue.is_open());
    CHECK_FALSE(queue.complete(6, status_error(429)));
    CHECK(queue.is_due_after(4s));
    CHECK(queue.send(status_error(429)) != 7);
    CHECK_FALSE(queue.complete(7, status_error(429)));
    CHECK(queue.is_due_after(10s));
}

// ---- rule 10: the window

TEST_CASE("outbox: the window doubles with each window of healthy responses until the breaker opens") {
    outbox_fixture queue{{.max_in_flight = 20}};
    queue.push_all(200);
    pl::request_number next = 1;
    for (const std::size_t window : {1U, 2U, 4U, 8U, 16U, 20U, 20U}) {
        CHECK(queue.take_all() == window);
        for (std::size_t i = 0; i < window; ++i)
            queue.complete(next++);
    }
}

TEST_CASE("outbox: after the breaker has closed, the window is 1 and grows by 1") {
    outbox_fixture queue{{.max_in_flight = 4}};
    queue.grow_window(4);
    queue.push_all(100);
    queue.send(status_error(429));
    queue.now += 5s;
    queue.random = 0;
    CHECK(queue.send() == 5);
    pl::request_number next = 6;
    queue.box.cancel(4); // waits for another attempt
    for (const std::size_t window : {1U, 2U, 3U, 4U, 4U}) {
        CHECK(queue.take_all() == window);
        for (std::size_t i = 0; i < window; ++i)
            queue.complete(next++);
    }
}

TEST_CASE("outbox: responses in earlier outages do not count for the growth of the window") {
    outbox_fixture queue;
    queue.push_all(100);
    queue.random = 0;
    for (int i = 0; i < 2; ++i) { // opens, closes; one of the two responses that let the window grow
        queue.send(status_error(429));
        queue.now += 4s;
        queue.send();
        queue.send(); // the window is 2
        queue.send();
    }
    CHECK(queue.take_all() == 2);
}

// ---- rule 11: refused requests

TEST_CASE("outbox: the third 401 or 403 of a request ends it if another succeeded since the first") {
    for (const int status : {401, 403}) {
        outbox_fixture queue;
        queue.push_all(3);
        queue.send();
        CHECK(queue.send(status_error(status)) == 2);
        queue.send();
        queue.now += 1h;
        REQUIRE(queue.take() == 2);
        CHECK_FALSE(queue.complete(2, status_error(status == 401 ? 403 : 401)));
        queue.now += 1h;
        REQUIRE(queue.take() == 2);
        const auto finished = queue.box.complete(2, status_error(status), queue.now);
        REQUIRE(finished);
        CHECK(finished->outcome == request_outcome::rejected);
        CHECK(finished->error->status == status);
        CHECK(finished->attempts == 3);
    }
}

TEST_CASE("outbox: a later 401 ends its request as soon as another has succeeded") {
    outbox_fixture queue;
    queue.push();
    queue.send();
    queue.push();
    for (int i = 0; i < 4; ++i) {
        REQUIRE(queue.take() == 2);
        CHECK_FALSE(queue.complete(2, status_error(401)));
        queue.now += *queue.due_in();
    }
    queue.push();
    REQUIRE(queue.take() == 2);
    CHECK_FALSE(queue.complete(2, status_error(500)));
    CHECK(queue.is_open());
    queue.now += 1h;
    CHECK(queue.send() == 3);
    queue.now += 1h;
    REQUIRE(queue.take() == 2);
    CHECK_FALSE(queue.complete(2, status_error(500))); // not a refusal
    queue.now += 1h;
    REQUIRE(queue.take() == 2);
    CHECK(queue.complete(2, status_error(401)) == request_outcome::rejected);
}

TEST_CASE("outbox: 401s for a replaced key do not count") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.send();
    CHECK(queue.send(status_error(401)) == 2);
    queue.send();
    queue.now += 1h;
    REQUIRE(queue.take() == 2);
    CHECK_FALSE(queue.complete(2, status_error(401)));
    queue.box.reconfigure(queue.now);
    queue.push();
    queue.send();
    for (int i = 0; i < 2; ++i) {
        queue.now += 1h;
        REQUIRE(queue.take() == 2);
        CHECK_FALSE(queue.complete(2, status_error(401)));
        queue.push();
        queue.send();
    }
    queue.now += 1h;
    REQUIRE(queue.take() == 2);
    CHECK(queue.complete(2, status_error(401)) == request_outcome::rejected);
}

// ---- rule 12: max_age and max_attempts

TEST_CASE("outbox: a request expires if it fails and its next attempt would come after max_age") {
    for (const milliseconds early : {0ms, 1ms}) {
        outbox_fixture queue;
        queue.push();
        queue.now += 24h - 800ms + 1ms - early;
        REQUIRE(queue.take() == 1);
        const auto finished = queue.box.complete(1, status_error(500), queue.now);
        CHECK(finished.has_value() == (early == 0ms));
        if (finished) {
            CHECK(finished->outcome == request_outcome::expired);
            CHECK(finished->error->status == 500);
        }
    }
}

TEST_CASE("outbox: a request that was never tried does not expire, however old it is") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.send(status_error(500));
    queue.now += 100 * 24h;
    CHECK(queue.send() == 2);
    CHECK(queue.send() == 3);
    CHECK(queue.send() == 1);
    CHECK(queue.box.stats().delivered == 3);
}

TEST_CASE("outbox: max_attempts ends a request as failed") {
    outbox_fixture queue{{.retry = {.max_attempts = 2}}};
    queue.push();
    queue.send(status_error(500));
    queue.now += 2s;
    REQUIRE(queue.take() == 1);
    const auto finished = queue.box.complete(1, transport_error(pl::failure::reset), queue.now);
    REQUIRE(finished);
    CHECK(finished->outcome == request_outcome::failed);
    CHECK(finished->error->failure == pl::failure::reset);
    CHECK(finished->attempts == 2);
}

// ---- rule 13: requests that must not be repeated

TEST_CASE("outbox: a request that is not idempotent fails once it may have been delivered") {
    outbox_fixture queue;
    queue.push("{}", false);
    queue.push();
    CHECK(queue.send(transport_error(pl::failure::connect, false)) == 1);
    CHECK(queue.send(transport_error(pl::failure::timeout, true)) == 2);
    queue.now += 1h;
    REQUIRE(queue.take() == 1);
    CHECK(queue.complete(1, transport_error(pl::failure::timeout, true)) == request_outcome::failed);
    CHECK(queue.send() == 2);

    outbox_fixture forbidding{{.retry = {.retry_maybe_delivered = false}}};
    forbidding.push();
    REQUIRE(forbidding.take() == 1);
    CHECK(forbidding.complete(1, transport_error(pl::failure::cancelled, true)) == request_outcome::failed);
}

TEST_CASE("outbox: repeat_logs repeats a request that is not idempotent, if retries may repeat at all") {
    for (const bool may_repeat : {true, false}) {
        outbox_fixture queue{{.repeat_logs = true, .retry = {.retry_maybe_delivered = may_repeat}}};
        queue.push("{}", false);
        REQUIRE(queue.take() == 1);
        const auto outcome = queue.complete(1, transport_error(pl::failure::timeout, true));
        CHECK(outcome.has_value() == !may_repeat);
    }
}

// ---- cancel, discard, drain

TEST_CASE("outbox: cancel removes a waiting request, and leaves one in flight alone") {
    outbox_fixture queue;
    queue.push_all(3);
    CHECK(queue.send(status_error(500)) == 1);
    REQUIRE(queue.take() == 2);
    CHECK(queue.box.cancel(1));
    CHECK_FALSE(queue.box.cancel(2));
    CHECK(queue.box.cancel(3));
    CHECK_FALSE(queue.box.cancel(3));
    CHECK_FALSE(queue.box.cancel(4));
    const auto first = queue.box.take_finished();
    REQUIRE(first);
    CHECK(first->number == 1);
    CHECK(first->outcome == request_outcome::cancelled);
    CHECK(first->error->status == 500);
    CHECK(first->attempts == 1);
    CHECK(queue.box.take_finished()->number == 3);
    CHECK(queue.complete(2) == request_outcome::delivered);
    queue.now += 1h;
    CHECK_FALSE(queue.due_in());
    CHECK(queue.box.bytes() == 0);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 3, .delivered = 1, .cancelled = 2});
}

TEST_CASE("outbox: discard cancels what waits, and sends nothing in flight again") {
    outbox_fixture queue;
    queue.grow_window(2);
    queue.push_all(4);
    REQUIRE(queue.take_all() == 2);
    queue.complete(2, status_error(500));
    REQUIRE(queue.take_all() == 1);
    queue.box.discard();
    CHECK(queue.box.take_finished()->number == 2);
    CHECK(queue.box.take_finished()->number == 5);
    CHECK_FALSE(queue.box.take_finished());
    CHECK(queue.complete(3) == request_outcome::delivered);
    CHECK(queue.complete(4, status_error(500)) == request_outcome::cancelled);
    queue.push();
    CHECK(queue.send() == 6);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 6, .delivered = 3, .cancelled = 3});
}

TEST_CASE("outbox: a closed outbox rejects pushes; drain says which requests may have arrived") {
    outbox_fixture queue;
    queue.grow_window(3);
    queue.push_all(5); // 3 to 7
    REQUIRE(queue.take_all() == 3);
    queue.complete(4, status_error(500));
    queue.box.close();
    CHECK(queue.box.push({}, queue.now).error().code == pl::errc::closed);
    CHECK(queue.box.reserve({}).error().code == pl::errc::closed);
    queue.complete(3);
    CHECK(queue.take() == 6);
    const auto left = queue.box.drain();
    REQUIRE(left.size() == 4);
    for (std::size_t i = 0; i < left.size(); ++i) {
        CHECK(left[i].number == i + 4);
        CHECK(left[i].outcome == request_outcome::returned);
    }
    CHECK(left[0].error->status == 500);
    CHECK(left[0].attempts == 1);
    for (const std::size_t in_flight : {1U, 2U}) {
        REQUIRE(left[in_flight].error);
        CHECK(left[in_flight].error->failure == pl::failure::cancelled);
        CHECK(left[in_flight].error->maybe_delivered);
    }
    CHECK_FALSE(left[3].error);
    CHECK(left[3].attempts == 0);
    CHECK_FALSE(queue.complete(5)); // late
    CHECK(queue.box.drain().empty());
    CHECK(queue.box.bytes() == 0);
    CHECK_FALSE(queue.due_in());
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 7, .delivered = 3, .returned = 4});
}

TEST_CASE("outbox: drain closes the outbox, and restore still queues") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.send(status_error(429));
    queue.now += 5s;
    REQUIRE(queue.take() != 0); // a probe
    CHECK(queue.box.drain().size() == 3);
    CHECK_FALSE(queue.box.push({}, queue.now));
    queue.box.restore(9, {}, 0ms, queue.now);
    CHECK(queue.send() == 9);

    outbox_fixture other;
    other.push();
    other.send(status_error(500));
    CHECK(other.box.drain().size() == 1);
    other.now += 1h;
    other.box.restore(9, {}, 0ms, other.now);
    other.random = 0; // draws the lowest number
    CHECK(other.send(status_error(429)) == 9);
    other.now += 1h;
    CHECK(other.send() == 9);
}

// ---- pause, retry_now, reconfigure

TEST_CASE("outbox: pause stops sending until resume, and a request in flight completes") {
    outbox_fixture queue;
    queue.push_all(2);
    REQUIRE(queue.take() == 1);
    CHECK_FALSE(queue.box.is_paused());
    queue.box.pause();
    CHECK(queue.box.is_paused());
    CHECK(queue.complete(1) == request_outcome::delivered);
    CHECK_FALSE(queue.due_in());
    CHECK(queue.take() == 0);
    queue.box.reconfigure(queue.now);
    queue.box.retry_now(queue.now);
    CHECK(queue.take() == 0);
    queue.box.resume();
    CHECK_FALSE(queue.box.is_paused());
    CHECK(queue.take() == 2);
}

TEST_CASE("outbox: retry_now ends the waits of all requests, in the order of their ends") {
    outbox_fixture queue;
    queue.push_all(3);
    queue.random = 1;
    queue.send(status_error(500));
    queue.random = 0.4;
    queue.send(status_error(500));
    CHECK(queue.due_in() == 0ms); // request 3
    queue.send();
    CHECK(queue.due_in() == 800ms);
    queue.box.retry_now(queue.now);
    CHECK(queue.due_in() == 0ms);
    CHECK(queue.send(status_error(500)) == 2);
    CHECK(queue.send() == 1);
    CHECK(queue.due_in() == 1'600ms); // a wait that began afterwards
}

TEST_CASE(
    "outbox: retry_now sends released requests after those pushed before and before those pushed later") {
    outbox_fixture queue;
    queue.push();
    queue.send(status_error(500));
    queue.push(); // 2
    queue.now += 1ms;
    queue.box.retry_now(queue.now);
    queue.now += 1ms;
    queue.push(); // 3
    CHECK(queue.send() == 2);
    CHECK(queue.send() == 1);
    CHECK(queue.send() == 3);
}

TEST_CASE("outbox: retry_now ends waits that began after an earlier retry_now") {
    outbox_fixture queue;
    queue.push_all(2);
    queue.box.retry_now(queue.now);
    queue.send(status_error(500));
    REQUIRE(queue.take() == 2);
    queue.box.retry_now(queue.now);
    queue.complete(2, status_error(500));
    CHECK(queue.due_in() == 0ms);
    CHECK(queue.take() == 1);
}

TEST_CASE("outbox: retry_now delays no request that is due already") {
    outbox_fixture queue;
    queue.push();
    queue.send(status_error(500)); // due after 800 ms
    queue.now += 900ms;
    queue.push();
    queue.now += 100ms;
    queue.box.retry_now(queue.now);
    CHECK(queue.send() == 1);
    CHECK(queue.send() == 2);
}

TEST_CASE("outbox: wants_requests returns true if a new request could change what next_due returns") {
    outbox_fixture queue;
    CHECK(queue.box.wants_requests());
    queue.box.pause();
    CHECK_FALSE(queue.box.wants_requests());
    queue.box.resume();
    queue.push();
    REQUIRE(queue.take() == 1);
    CHECK_FALSE(queue.box.wants_requests()); // the window is full
    queue.complete(1, status_error(429));
    CHECK_FALSE(queue.box.wants_requests()); // a request can be the next probe
    CHECK(queue.box.cancel(1));
    CHECK(queue.box.wants_requests());
    queue.push();
    queue.now += 5s;
    REQUIRE(queue.take() == 2);
    CHECK_FALSE(queue.box.wants_requests()); // a probe is in flight
}

TEST_CASE("outbox: retry_now and reconfigure send a probe at once, also while another is in flight") {
    for (const bool is_new_config : {false, true}) {
        outbox_fixture queue;
        const auto retry = [&] {
            return is_new_config ? queue.box.reconfigure(queue.now) : queue.box.retry_now(queue.now);
        };
        queue.push_all(9);
        queue.send(status_error(429));
        CHECK(queue.due_in() == 5s);
        retry();
        CHECK(queue.due_in() == 0ms);
        CHECK(queue.is_open());
        const auto first = queue.take();
        CHECK_FALSE(queue.due_in());
        retry();
        CHECK(queue.due_in() == 0ms);
        const auto second = queue.take();
        REQUIRE(second != 0);
        CHECK_FALSE(queue.complete(first, status_error(429))); // says nothing any more
        CHECK_FALSE(queue.due_in());
        queue.complete(second);
        CHECK_FALSE(queue.is_open());
    }
}

TEST_CASE("outbox: reconfigure does not end the waits of requests") {
    outbox_fixture queue;
    queue.push();
    queue.send(status_error(500));
    queue.box.reconfigure(queue.now);
    CHECK(queue.due_in() == 800ms);
}

TEST_CASE("outbox: responses for a replaced key neither open the breaker nor prove the new key") {
    outbox_fixture queue;
    queue.grow_window(4);
    queue.push_all(9);
    REQUIRE(queue.take_all() == 4);
    queue.box.reconfigure(queue.now);
    CHECK_FALSE(queue.complete(4, status_error(401)));
    CHECK_FALSE(queue.complete(5, status_error(429)));
    CHECK_FALSE(queue.is_open());
    queue.complete(6);
    queue.send(status_error(401));
    CHECK(queue.is_open());
}

TEST_CASE("outbox: a late response for a replaced key does not disprove the new key") {
    outbox_fixture queue;
    queue.grow_window(3);
    queue.push_all(9);
    REQUIRE(queue.take_all() == 3);
    queue.box.reconfigure(queue.now);
    queue.complete(3);
    queue.complete(queue.take()); // with the new key
    queue.complete(4);            // with the old one
    queue.send(status_error(401));
    CHECK_FALSE(queue.is_open());
}

TEST_CASE("outbox: reconfigure starts the row of failures anew") {
    outbox_fixture queue;
    queue.push_all(20);
    for (int i = 0; i < 4; ++i)
        queue.send(status_error(500));
    queue.box.reconfigure(queue.now);
    for (int i = 0; i < 4; ++i)
        queue.send(status_error(500));
    CHECK_FALSE(queue.is_open());
    queue.send(status_error(500));
    CHECK(queue.is_open());
}

// ---- clocks and extreme values

TEST_CASE("outbox: a clock set back prolongs no wait, and one set forward ends waits early") {
    outbox_fixture queue;
    queue.push_all(2);
    queue.send(status_error(500));
    queue.send();
    queue.now -= 30min;
    CHECK(queue.due_in() == 800ms);
    queue.now -= 30min;
    CHECK(queue.is_due_after(800ms));
    queue.send(status_error(429));
    CHECK(queue.due_in() == 1'600ms);
    queue.now += 1000h;
    CHECK(queue.send() == 1);
}

TEST_CASE("outbox: extreme settings, ages, waits and times neither overflow nor lose a request") {
    for (const milliseconds extreme : {milliseconds::min(), milliseconds{-1}, 0ms, milliseconds::max()})
        for (const double random : {0.0, 1.0, -1e308, 1e308, std::numeric_limits<double>::quiet_NaN()}) {
            pl::retry_policy policy{.max_attempts = 0,
                                    .initial_delay = extreme,
                                    .max_delay = extreme,
                                    .max_retry_after = extreme,
                                    .max_age = std::nullopt};
            outbox_fixture queue{{.max_in_flight = 0, .retry = policy}};
            queue.random = random;
            queue.now = pl::outbox::time_point::min();
            const auto last = std::numeric_limits<pl::request_number>::max();
            for (const pl::request_number number : {last - 1, pl::request_number{1}, pl::request_number{2}})
                queue.box.restore(number, {}, extreme, queue.now);
            for (const auto now : {pl::outbox::time_point::max(), pl::outbox::time_point::min(),
                                   pl::outbox::time_point{}, pl::outbox::time_point::max(),
                                   pl::outbox::time_point::min(), pl::outbox::time_point::max()}) {
                queue.now = now;
                std::ignore = queue.box.next_due(queue.now);
                queue.box.retry_now(queue.now);
                queue.send(unavailable(std::chrono::seconds::max()));
                queue.box.retry_now(queue.now);
                queue.send(rate_limited(std::chrono::seconds::min()));
                std::ignore = queue.box.next_due(queue.now);
            }
            CHECK(queue.box.stats().waiting == 3);
            for (int i = 0; i < 3; ++i) {
                queue.box.retry_now(queue.now);
                queue.send();
            }
            CHECK(queue.box.stats().delivered == 3);
        }
    for (const milliseconds max_age : {milliseconds::min(), -1ms, 0ms}) {
        outbox_fixture queue{{.retry = {.max_age = max_age}}};
        queue.push();
        REQUIRE(queue.take() == 1);
        CHECK(queue.complete(1, status_error(500)) == request_outcome::expired);
    }
    outbox_fixture queue{{.retry = {.max_age = milliseconds::max()}}};
    queue.push();
    REQUIRE(queue.take() == 1);
    CHECK_FALSE(queue.complete(1, status_error(500)));
}

TEST_CASE("outbox: an outbox moves with its requests") {
    pl::outbox first{{}, [] { return 0.4; }};
    CHECK(first.push({"/p", "{}"}, pl::outbox::time_point{1h}).has_value());
    pl::outbox second = std::move(first);
    first = pl::outbox{};
    CHECK(second.take(pl::outbox::time_point{1h})->number == 1);
}
