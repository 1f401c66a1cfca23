#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using test_support::status_error;
using test_support::transport_error;

namespace {

/// An outbox with a random number of 1 and a clock that the test sets.
struct outbox_fixture {
    pl::outbox box;
    pl::outbox::time_point now{1h};

    explicit outbox_fixture(pl::outbox_settings settings = {}) : box(settings, [] { return 1.0; }) {}

    pl::result<pl::outbox::pushed> push(std::string body = "{}") {
        return box.push({"/p", std::move(body)}, now);
    }

    /// Returns the body of the request that is due, or "" if there is none.
    std::string take() {
        const auto taken = box.take(now);
        return taken ? taken->request.body : "";
    }

    std::optional<pl::fate> complete(pl::outbox::id id, std::optional<pl::error> why = {}) {
        const auto ended = box.complete(id, std::move(why), now);
        return ended ? std::optional{ended->fate} : std::nullopt;
    }

    std::optional<milliseconds> due_in() {
        const auto due = box.next_due(now);
        return due ? std::optional{std::chrono::duration_cast<milliseconds>(*due - now)} : std::nullopt;
    }
};

} // namespace

TEST_CASE("outbox: requests are taken in order and delivered") {
    outbox_fixture queue;
    CHECK_FALSE(queue.due_in());
    CHECK(queue.take() == "");
    CHECK(queue.push("1")->id == 1);
    CHECK(queue.push("2")->id == 2);
    CHECK(queue.due_in() == 0ms);
    CHECK(queue.take() == "1");
    CHECK(queue.take() == "2");
    CHECK(queue.take() == "");
    const auto ended = queue.box.complete(1, std::nullopt, queue.now);
    REQUIRE(ended);
    CHECK(ended->id == 1);
    CHECK(ended->request == pl::prepared_request{"/p", "1"});
    CHECK(ended->fate == pl::fate::delivered);
    CHECK_FALSE(ended->why);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 2, .in_flight = 1, .delivered = 1});
}

TEST_CASE("outbox: at most max_in_flight requests are in flight") {
    outbox_fixture queue{{.max_in_flight = 1}};
    CHECK(queue.push("1").has_value());
    CHECK(queue.push("2").has_value());
    CHECK(queue.take() == "1");
    CHECK(queue.take() == "");
    CHECK_FALSE(queue.due_in());
    queue.complete(1);
    CHECK(queue.take() == "2");
}

TEST_CASE("outbox: a push fails if it would exceed the maximum of requests or bytes") {
    outbox_fixture count{{.max_requests = 2}};
    CHECK(count.push());
    CHECK(count.push());
    CHECK(count.push().error().code == pl::errc::queue_full);
    count.take();
    CHECK_FALSE(count.push()); // a request in flight counts
    count.complete(1);
    CHECK(count.push());

    outbox_fixture bytes{{.max_bytes = 10}};
    CHECK_FALSE(bytes.push(std::string(9, 'x'))); // 11 bytes with its path
    CHECK(bytes.push(std::string(8, 'x')));
    CHECK_FALSE(bytes.push(""));
    CHECK(bytes.box.bytes() == 10);
    CHECK(bytes.box.stats() == pl::outbox_stats{.pushed = 1, .waiting = 1});
}

TEST_CASE("outbox: drop_oldest returns as many waiting requests as a new one needs") {
    outbox_fixture queue{{.max_bytes = 12, .max_in_flight = 1, .drop_oldest = true}};
    for (const char* body : {"1", "2", "3", "4"})
        CHECK(queue.push(body).has_value());
    CHECK(queue.take() == "1");
    const auto pushed = queue.push("abcd");
    REQUIRE(pushed);
    REQUIRE(pushed->dropped.size() == 2);
    CHECK(pushed->dropped[0].request.body == "2");
    CHECK(pushed->dropped[1].request.body == "3");
    CHECK(pushed->dropped[0].fate == pl::fate::dropped);
    CHECK_FALSE(queue.push(std::string(11, 'x'))); // does not fit into an empty queue, so nothing is dropped
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 5, .waiting = 2, .in_flight = 1, .dropped = 2});
}

TEST_CASE("outbox: a 503 delays its own request; a 429 or a connection failure delays all") {
    outbox_fixture queue;
    CHECK(queue.push("1").has_value());
    CHECK(queue.push("2").has_value());
    queue.take();
    queue.complete(1, status_error(503));
    CHECK(queue.take() == "2");
    queue.complete(2);
    CHECK(queue.due_in() == 2s);
    queue.now += 2s - 1ms;
    CHECK(queue.take() == "");
    queue.now += 1ms;
    CHECK(queue.take() == "1");

    for (const pl::error& why :
         {status_error(429), transport_error(pl::failure::connect), transport_error(pl::failure::timeout)}) {
        outbox_fixture delayed;
        CHECK(delayed.push("1").has_value());
        CHECK(delayed.push("2").has_value());
        delayed.take();
        CHECK_FALSE(delayed.complete(1, why));
        CHECK(delayed.due_in() == 2s);
        CHECK(delayed.take() == "");
        CHECK(delayed.push("3").has_value());
        CHECK(delayed.take() == "");
        delayed.now += 2s;
        CHECK(delayed.take() == "1");
        CHECK(delayed.take() == "2");
        CHECK(delayed.take() == "3");
    }
}

TEST_CASE("outbox: 401, 403 and TLS failures stop sending until resume and are no attempts") {
    for (const pl::error& why : {status_error(401), status_error(403), transport_error(pl::failure::tls)}) {
        outbox_fixture queue{{.retry = {.max_attempts = 1}}};
        CHECK(queue.push("1").has_value());
        CHECK(queue.push("2").has_value());
        queue.take();
        queue.take();
        CHECK_FALSE(queue.complete(1, why));
        CHECK(queue.complete(2) == pl::fate::delivered);
        CHECK(queue.box.paused());
        CHECK(queue.box.paused_by()->status == why.status);
        queue.now += 24h;
        CHECK(queue.take() == "");
        CHECK_FALSE(queue.due_in());
        CHECK(queue.push("3").has_value());
        queue.box.resume();
        CHECK_FALSE(queue.box.paused());
        CHECK(queue.take() == "1");
        CHECK_FALSE(queue.complete(1, status_error(401)));
        queue.box.resume();
        CHECK(queue.take() == "1");
        CHECK(queue.complete(1, status_error(503)) ==
              pl::fate::gave_up); // the first attempt that counts is the last
    }
}

TEST_CASE("outbox: a connection failure or 429 that ends its request delays the others") {
    for (const auto& why :
         {transport_error(pl::failure::connect), status_error(429, pl::errc::rate_limited)}) {
        outbox_fixture queue{{.retry = {.max_attempts = 1, .initial_delay = 2s}}};
        REQUIRE(queue.push("a"));
        REQUIRE(queue.push("b"));
        REQUIRE(queue.take() == "a");
        CHECK(queue.complete(1, why) == pl::fate::gave_up);
        CHECK(queue.take().empty());
        CHECK(queue.due_in() == 2s);
        queue.now += 2s;
        CHECK(queue.take() == "b");
    }
}

TEST_CASE("outbox: an invalid config stops sending until resume") {
    outbox_fixture queue;
    REQUIRE(queue.push("a"));
    REQUIRE(queue.take() == "a");
    CHECK_FALSE(queue.complete(1, pl::error{.code = pl::errc::invalid_config}));
    CHECK(queue.box.paused_by()->code == pl::errc::invalid_config);
    CHECK(queue.take().empty());
    queue.box.resume();
    CHECK(queue.take() == "a");
}

TEST_CASE("outbox: a 401 for a key that has been replaced stops nothing") {
    outbox_fixture queue;
    REQUIRE(queue.push("a"));
    REQUIRE(queue.push("b"));
    REQUIRE(queue.take() == "a");
    REQUIRE(queue.take() == "b");
    CHECK_FALSE(queue.complete(1, status_error(401, pl::errc::unauthorized)));
    CHECK(queue.box.paused());
    queue.box.resume();
    CHECK_FALSE(queue.complete(2, status_error(401, pl::errc::unauthorized))); // from the old key
    CHECK_FALSE(queue.box.paused());
    CHECK(queue.take() == "a");
    CHECK(queue.take() == "b");
    CHECK_FALSE(queue.complete(2, status_error(401, pl::errc::unauthorized)));
    CHECK(queue.box.paused());
}

TEST_CASE("outbox: a cancelled request waits, uses up no attempt and delays no other") {
    outbox_fixture queue{{.retry = {.max_attempts = 1}}};
    CHECK(queue.push("1").has_value());
    CHECK(queue.push("2").has_value());
    queue.take();
    CHECK_FALSE(queue.complete(1, transport_error(pl::failure::cancelled)));
    CHECK(queue.take() == "2");
    CHECK(queue.due_in() == 2s);
    queue.now += 2s;
    CHECK(queue.take() == "1");
}

TEST_CASE("outbox: a final refusal ends as refused, another final error as gave_up") {
    const auto end = [](const pl::error& why) {
        outbox_fixture queue{{.retry = {.max_attempts = 1}}};
        CHECK(queue.push().has_value());
        queue.take();
        const auto ended = queue.box.complete(1, why, queue.now);
        REQUIRE(ended);
        CHECK(ended->why->status == why.status);
        return ended->fate;
    };
    CHECK(end(status_error(400, pl::errc::bad_request)) == pl::fate::refused);
    CHECK(end(status_error(404, pl::errc::not_found)) == pl::fate::refused);
    CHECK(end(status_error(409, pl::errc::conflict)) == pl::fate::refused);
    CHECK(end(status_error(422, pl::errc::unprocessable)) == pl::fate::refused);
    CHECK(end(status_error(200, pl::errc::rejected)) == pl::fate::refused);
    CHECK(end(status_error(200, pl::errc::malformed_response)) == pl::fate::gave_up);
    CHECK(end(status_error(302)) == pl::fate::gave_up);
    CHECK(end(status_error(503, pl::errc::server_error)) == pl::fate::gave_up); // the last attempt
    CHECK(end(transport_error(pl::failure::other)) == pl::fate::gave_up);
}

TEST_CASE("outbox: an outage of hours loses nothing, and a request expires after a day") {
    outbox_fixture queue{{.max_in_flight = 1}};
    CHECK(queue.push("1").has_value());
    const auto pushed_at = queue.now;
    std::optional<pl::fate> end;
    int attempts = 0;
    for (; !end; ++attempts) {
        queue.now += *queue.due_in();
        REQUIRE(queue.take() == "1");
        end = queue.complete(1, transport_error(pl::failure::connect));
    }
    CHECK(end == pl::fate::gave_up);
    CHECK(queue.now - pushed_at > 23h + 54min);
    CHECK(queue.now - pushed_at <= 24h);
    CHECK(attempts > 280); // every 5 minutes
}

TEST_CASE("outbox: a clock set back prolongs no wait, and a second completion is ignored") {
    outbox_fixture queue;
    CHECK(queue.push("1").has_value());
    queue.take();
    queue.complete(1, status_error(503));
    CHECK_FALSE(queue.complete(1));
    queue.now -= 30min;
    CHECK(queue.due_in() == 2s);
    queue.now += 2s;
    CHECK(queue.take() == "1");
    CHECK(queue.complete(1) == pl::fate::delivered);
    CHECK_FALSE(queue.complete(1));
    CHECK_FALSE(queue.complete(7));
}

TEST_CASE("outbox: a clock set forward expires no request without another attempt") {
    outbox_fixture queue;
    CHECK(queue.push("1").has_value());
    queue.take();
    queue.complete(1, transport_error(pl::failure::connect));
    queue.now += 1000h;
    CHECK(queue.take() == "1");
    CHECK(queue.complete(1) == pl::fate::delivered);
}

TEST_CASE("outbox: pause stops sending until resume, and a request in flight completes") {
    outbox_fixture queue;
    CHECK(queue.push("1").has_value());
    CHECK(queue.push("2").has_value());
    queue.take();
    queue.box.pause();
    CHECK(queue.box.paused());
    CHECK_FALSE(queue.due_in());
    CHECK(queue.take() == "");
    CHECK(queue.complete(1) == pl::fate::delivered);
    queue.box.resume();
    CHECK(queue.take() == "2");
}

TEST_CASE("outbox: a sealed outbox rejects pushes, and drain returns the rest in order") {
    outbox_fixture queue{{.max_in_flight = 1}};
    for (const char* body : {"1", "2", "3"})
        CHECK(queue.push(body).has_value());
    queue.take();
    queue.box.seal();
    CHECK(queue.push().error().code == pl::errc::closed);
    queue.complete(1);
    CHECK(queue.take() == "2");
    const auto left = queue.box.drain();
    REQUIRE(left.size() == 2);
    CHECK(left[0].request.body == "2");
    CHECK(left[1].request.body == "3");
    CHECK(left[1].fate == pl::fate::handed_back);
    CHECK_FALSE(queue.complete(2)); // late
    CHECK(queue.box.drain().empty());
    CHECK(queue.box.bytes() == 0);
    CHECK(queue.box.stats() == pl::outbox_stats{.pushed = 3, .delivered = 1, .handed_back = 2});
}
