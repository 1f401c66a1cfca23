#include <promptlayer.hpp>

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

namespace {

/// An outbox whose random number is 1, at a time that the test sets.
struct tested {
    pl::outbox box;
    pl::outbox::time_point now{1h};

    explicit tested(pl::outbox_settings settings = {}) : box(settings, [] { return 1.0; }) {}

    pl::result<pl::outbox::pushed> push(std::string body = "{}") {
        return box.push({"/p", std::move(body)}, now);
    }

    /// The body of what is taken, "" if nothing is.
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

pl::error status(int code, pl::errc meaning = pl::errc::unexpected_status) {
    return {.code = meaning, .status = code};
}

pl::error failed(pl::failure kind) {
    pl::error e{.code = pl::errc::transport};
    e.failure = kind;
    return e;
}

} // namespace

TEST_CASE("outbox: requests are taken in order, and delivered") {
    tested t;
    CHECK_FALSE(t.due_in());
    CHECK(t.take() == "");
    CHECK(t.push("1")->id == 1);
    CHECK(t.push("2")->id == 2);
    CHECK(t.due_in() == 0ms);
    CHECK(t.take() == "1");
    CHECK(t.take() == "2");
    CHECK(t.take() == "");
    const auto ended = t.box.complete(1, std::nullopt, t.now);
    REQUIRE(ended);
    CHECK(ended->id == 1);
    CHECK(ended->request == pl::prepared_request{"/p", "1"});
    CHECK(ended->fate == pl::fate::delivered);
    CHECK_FALSE(ended->why);
    CHECK(t.box.stats() == pl::outbox_stats{.pushed = 2, .in_flight = 1, .delivered = 1});
}

TEST_CASE("outbox: no more are in flight than allowed") {
    tested t{{.max_in_flight = 1}};
    CHECK(t.push("1").has_value());
    CHECK(t.push("2").has_value());
    CHECK(t.take() == "1");
    CHECK(t.take() == "");
    CHECK_FALSE(t.due_in());
    t.complete(1);
    CHECK(t.take() == "2");
}

TEST_CASE("outbox: it is full at its count and at its bytes, with one less it is not") {
    tested count{{.max_requests = 2}};
    CHECK(count.push());
    CHECK(count.push());
    CHECK(count.push().error().code == pl::errc::queue_full);
    count.take();
    CHECK_FALSE(count.push()); // what is in flight counts
    count.complete(1);
    CHECK(count.push());

    tested bytes{{.max_bytes = 10}};
    CHECK_FALSE(bytes.push(std::string(9, 'x'))); // with its path, 11
    CHECK(bytes.push(std::string(8, 'x')));
    CHECK_FALSE(bytes.push(""));
    CHECK(bytes.box.bytes() == 10);
    CHECK(bytes.box.stats() == pl::outbox_stats{.pushed = 1, .waiting = 1});
}

TEST_CASE("outbox: told to drop the oldest, it drops as many as a new one needs, none in flight, and gives "
          "them back") {
    tested t{{.max_bytes = 12, .max_in_flight = 1, .drop_oldest = true}};
    for (const char* body : {"1", "2", "3", "4"})
        CHECK(t.push(body).has_value());
    CHECK(t.take() == "1");
    const auto pushed = t.push("abcd");
    REQUIRE(pushed);
    REQUIRE(pushed->dropped.size() == 2);
    CHECK(pushed->dropped[0].request.body == "2");
    CHECK(pushed->dropped[1].request.body == "3");
    CHECK(pushed->dropped[0].fate == pl::fate::dropped);
    CHECK_FALSE(t.push(std::string(11, 'x'))); // would not fit even then, so nothing is dropped
    CHECK(t.box.stats() == pl::outbox_stats{.pushed = 5, .waiting = 2, .in_flight = 1, .dropped = 2});
}

TEST_CASE("outbox: an error of one request holds up that one; a 429 and no answer hold up everyone") {
    tested t;
    CHECK(t.push("1").has_value());
    CHECK(t.push("2").has_value());
    t.take();
    t.complete(1, status(503));
    CHECK(t.take() == "2");
    t.complete(2);
    CHECK(t.due_in() == 2s);
    t.now += 2s - 1ms;
    CHECK(t.take() == "");
    t.now += 1ms;
    CHECK(t.take() == "1");

    for (const pl::error& why : {status(429), failed(pl::failure::connect), failed(pl::failure::timeout)}) {
        tested all;
        CHECK(all.push("1").has_value());
        CHECK(all.push("2").has_value());
        all.take();
        CHECK_FALSE(all.complete(1, why));
        CHECK(all.due_in() == 2s);
        CHECK(all.take() == "");
        CHECK(all.push("3").has_value());
        CHECK(all.take() == "");
        all.now += 2s;
        CHECK(all.take() == "1");
        CHECK(all.take() == "2");
        CHECK(all.take() == "3");
    }
}

TEST_CASE("outbox: 401, 403 and no TLS hold up everyone until resume; the attempt does not count, the place "
          "is kept") {
    for (const pl::error& why : {status(401), status(403), failed(pl::failure::tls)}) {
        tested t{{.retry = {.max_attempts = 1}}};
        CHECK(t.push("1").has_value());
        CHECK(t.push("2").has_value());
        t.take();
        t.take();
        CHECK_FALSE(t.complete(1, why));
        CHECK(t.complete(2) == pl::fate::delivered);
        CHECK(t.box.paused());
        CHECK(t.box.paused_by()->status == why.status);
        t.now += 24h;
        CHECK(t.take() == "");
        CHECK_FALSE(t.due_in());
        CHECK(t.push("3").has_value());
        t.box.resume();
        CHECK_FALSE(t.box.paused());
        CHECK(t.take() == "1");
        CHECK_FALSE(t.complete(1, status(401)));
        t.box.resume();
        CHECK(t.take() == "1");
        CHECK(t.complete(1, status(503)) == pl::fate::gave_up); // its first attempt that counts, and the last
    }
}

TEST_CASE("outbox: no answer and a 429 hold up everyone also where they are the end of their request") {
    for (const auto& why : {failed(pl::failure::connect), status(429, pl::errc::rate_limited)}) {
        tested t{{.retry = {.max_attempts = 1, .initial_delay = 2s}}};
        REQUIRE(t.push("a"));
        REQUIRE(t.push("b"));
        REQUIRE(t.take() == "a");
        CHECK(t.complete(1, why) == pl::fate::gave_up);
        CHECK(t.take().empty());
        CHECK(t.due_in() == 2s);
        t.now += 2s;
        CHECK(t.take() == "b");
    }
}

TEST_CASE("outbox: a bad config holds up everyone until resume, as a wrong key does") {
    tested t;
    REQUIRE(t.push("a"));
    REQUIRE(t.take() == "a");
    CHECK_FALSE(t.complete(1, pl::error{.code = pl::errc::invalid_config}));
    CHECK(t.box.paused_by()->code == pl::errc::invalid_config);
    CHECK(t.take().empty());
    t.box.resume();
    CHECK(t.take() == "a");
}

TEST_CASE("outbox: a wrong key that somebody has replaced meanwhile holds up nobody, and burns nothing") {
    tested t;
    REQUIRE(t.push("a"));
    REQUIRE(t.push("b"));
    REQUIRE(t.take() == "a");
    REQUIRE(t.take() == "b");
    CHECK_FALSE(t.complete(1, status(401, pl::errc::unauthorized)));
    CHECK(t.box.paused());
    t.box.resume();
    CHECK_FALSE(t.complete(2, status(401, pl::errc::unauthorized))); // of the old key
    CHECK_FALSE(t.box.paused());
    CHECK(t.take() == "a");
    CHECK(t.take() == "b");
    CHECK_FALSE(t.complete(2, status(401, pl::errc::unauthorized)));
    CHECK(t.box.paused());
}

TEST_CASE("outbox: what was cancelled waits a little, is not counted, and holds up nobody") {
    tested t{{.retry = {.max_attempts = 1}}};
    CHECK(t.push("1").has_value());
    CHECK(t.push("2").has_value());
    t.take();
    CHECK_FALSE(t.complete(1, failed(pl::failure::cancelled)));
    CHECK(t.take() == "2");
    CHECK(t.due_in() == 2s);
    t.now += 2s;
    CHECK(t.take() == "1");
}

TEST_CASE(
    "outbox: what the service refuses ends as refused, what no attempt can mend as given up, both with why") {
    const auto end = [](const pl::error& why) {
        tested t{{.retry = {.max_attempts = 1}}};
        CHECK(t.push().has_value());
        t.take();
        const auto ended = t.box.complete(1, why, t.now);
        REQUIRE(ended);
        CHECK(ended->why->status == why.status);
        return ended->fate;
    };
    CHECK(end(status(400, pl::errc::bad_request)) == pl::fate::refused);
    CHECK(end(status(404, pl::errc::not_found)) == pl::fate::refused);
    CHECK(end(status(409, pl::errc::conflict)) == pl::fate::refused);
    CHECK(end(status(422, pl::errc::unprocessable)) == pl::fate::refused);
    CHECK(end(status(200, pl::errc::rejected)) == pl::fate::refused);
    CHECK(end(status(200, pl::errc::malformed_response)) == pl::fate::gave_up);
    CHECK(end(status(302)) == pl::fate::gave_up);
    CHECK(end(status(503, pl::errc::server_error)) == pl::fate::gave_up); // the last attempt
    CHECK(end(failed(pl::failure::other)) == pl::fate::gave_up);
}

TEST_CASE("outbox: an outage of hours loses nothing; after a day a request is given up") {
    tested t{{.max_in_flight = 1}};
    CHECK(t.push("1").has_value());
    const auto pushed_at = t.now;
    std::optional<pl::fate> end;
    int attempts = 0;
    for (; !end; ++attempts) {
        t.now += *t.due_in();
        REQUIRE(t.take() == "1");
        end = t.complete(1, failed(pl::failure::connect));
    }
    CHECK(end == pl::fate::gave_up);
    CHECK(t.now - pushed_at > 23h + 54min);
    CHECK(t.now - pushed_at <= 24h);
    CHECK(attempts > 280); // every 5 minutes
}

TEST_CASE("outbox: a clock that jumps back does not prolong a wait, nor does a second completion count") {
    tested t;
    CHECK(t.push("1").has_value());
    t.take();
    t.complete(1, status(503));
    CHECK_FALSE(t.complete(1));
    t.now -= 30min;
    CHECK(t.due_in() == 2s);
    t.now += 2s;
    CHECK(t.take() == "1");
    CHECK(t.complete(1) == pl::fate::delivered);
    CHECK_FALSE(t.complete(1));
    CHECK_FALSE(t.complete(7));
}

TEST_CASE("outbox: a clock that jumps forward gives up no request without another attempt") {
    tested t;
    CHECK(t.push("1").has_value());
    t.take();
    t.complete(1, failed(pl::failure::connect));
    t.now += 1000h;
    CHECK(t.take() == "1");
    CHECK(t.complete(1) == pl::fate::delivered);
}

TEST_CASE("outbox: pause and resume; what is in flight goes on") {
    tested t;
    CHECK(t.push("1").has_value());
    CHECK(t.push("2").has_value());
    t.take();
    t.box.pause();
    CHECK(t.box.paused());
    CHECK_FALSE(t.due_in());
    CHECK(t.take() == "");
    CHECK(t.complete(1) == pl::fate::delivered);
    t.box.resume();
    CHECK(t.take() == "2");
}

TEST_CASE(
    "outbox: sealed, it takes no more and gives what it has; drained, it hands back the rest in order") {
    tested t{{.max_in_flight = 1}};
    for (const char* body : {"1", "2", "3"})
        CHECK(t.push(body).has_value());
    t.take();
    t.box.seal();
    CHECK(t.push().error().code == pl::errc::closed);
    t.complete(1);
    CHECK(t.take() == "2");
    const auto left = t.box.drain();
    REQUIRE(left.size() == 2);
    CHECK(left[0].request.body == "2");
    CHECK(left[1].request.body == "3");
    CHECK(left[1].fate == pl::fate::handed_back);
    CHECK_FALSE(t.complete(2)); // late
    CHECK(t.box.drain().empty());
    CHECK(t.box.bytes() == 0);
    CHECK(t.box.stats() == pl::outbox_stats{.pushed = 3, .delivered = 1, .handed_back = 2});
}
