#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

namespace pl = promptlayer;
using pl::errc;

namespace {

constexpr errc every_code[] = {
    errc::invalid_request, errc::invalid_config,     errc::transport,      errc::bad_request,
    errc::unauthorized,    errc::forbidden,          errc::not_found,      errc::conflict,
    errc::unprocessable,   errc::rate_limited,       errc::server_error,   errc::unexpected_status,
    errc::rejected,        errc::malformed_response, errc::malformed_json, errc::queue_full,
    errc::closed,          errc::journal_failed};

constexpr pl::failure every_failure[] = {pl::failure::resolve, pl::failure::connect, pl::failure::tls,
                                         pl::failure::timeout, pl::failure::reset,   pl::failure::cancelled,
                                         pl::failure::other};

std::string printed(const auto& value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

static_assert(std::is_nothrow_move_constructible_v<pl::error>);

} // namespace

TEST_CASE("each errc has its own message") {
    std::set<std::string> sentences;
    for (const errc code : every_code)
        sentences.insert(to_string(pl::error{.code = code}));
    CHECK(sentences.size() == std::size(every_code));
    CHECK_FALSE(sentences.contains(to_string(pl::error{})));
    CHECK(to_string(pl::error{}) == "unknown error");
}

TEST_CASE("an error holds no status and is not delivered, and a violation has no limit, by default") {
    const pl::error e;
    CHECK(e.status == 0);
    CHECK_FALSE(e.maybe_delivered);
    CHECK(pl::violation{} == pl::violation{"", pl::rule::service, 0, 0, ""});
}

TEST_CASE("transport failures are retryable except tls and cancelled") {
    for (const pl::failure kind : every_failure) {
        pl::error e{.code = errc::transport};
        e.failure = kind;
        CHECK(e.retryable() == (kind != pl::failure::tls && kind != pl::failure::cancelled));
    }
}

TEST_CASE("only the statuses 408, 429, 500, 502, 503 and 504 are retryable") {
    const std::set<int> retryable{408, 429, 500, 502, 503, 504};
    for (int status = 0; status <= 600; ++status) {
        pl::error e{.code = errc::unexpected_status};
        e.status = status;
        CHECK(e.retryable() == retryable.contains(status));
    }
}

TEST_CASE("an error is a failure of the service by its transport failure, status or invalid config") {
    for (const pl::failure kind : every_failure) {
        pl::error e{.code = errc::transport};
        e.failure = kind;
        CHECK(e.is_service_failure() == (kind != pl::failure::cancelled));
    }
    for (int status = 0; status <= 600; ++status) {
        pl::error e{.code = errc::unexpected_status};
        e.status = status;
        const bool of_service = status == 401 || status == 403 || status == 408 || status == 429;
        CHECK(e.is_service_failure() == (of_service || (status >= 500 && status < 600)));
    }
    for (const errc code : every_code)
        CHECK(pl::error{.code = code}.is_service_failure() == (code == errc::invalid_config));
}

TEST_CASE("an error prints its message, else its violations, else the message of its errc") {
    pl::error e{.code = errc::closed};
    CHECK(to_string(e) == "the queue is closed");
    e.violations.push_back({"label", pl::rule::min_length, 1, 0, "at least 1 character, has 0"});
    e.violations.push_back({"", pl::rule::at_most_one_of, 1, 2, "only one of version, label may be given"});
    CHECK(to_string(e) == "label: at least 1 character, has 0; only one of version, label may be given");
    e.message = "a sentence";
    CHECK(to_string(e) == "a sentence");
    CHECK(printed(e) == "a sentence");
    CHECK(printed(e.violations[0]) == "label: at least 1 character, has 0");
}

TEST_CASE("a result returns references to its value or its error") {
    pl::result<std::string> good = std::string{"value"};
    REQUIRE(good.has_value());
    CHECK(static_cast<bool>(good));
    CHECK(*good == "value");
    CHECK(good.value() == "value");
    CHECK(good->size() == 5);
    *good += "!";
    CHECK(std::as_const(good).value() == "value!");
    CHECK(good.value_or("other") == "value!");
    CHECK(*std::move(good) == "value!");

    pl::result<std::string> bad = pl::error{.code = errc::conflict};
    CHECK_FALSE(bad.has_value());
    CHECK(bad.error().code == errc::conflict);
    CHECK(bad.value_or("other") == "other");
    bad.error().status = 409;
    const auto& constant = std::as_const(bad).error();
    CHECK(constant.status == 409);
    CHECK(&constant == &bad.error());
    CHECK(std::move(bad).error().status == 409);
}

TEST_CASE("a result may be void, move-only or have another error type") {
    pl::result<void> done;
    CHECK(done.has_value());
    done = pl::error{.code = errc::closed};
    CHECK_FALSE(done.has_value());

    pl::result<std::unique_ptr<int>> owner = std::make_unique<int>(7);
    const std::unique_ptr<int> pointer = *std::move(owner);
    CHECK(*pointer == 7);

    CHECK(*pl::result<std::unique_ptr<int>>{std::make_unique<int>(8)}.value_or(nullptr) == 8);
    CHECK(pl::result<std::unique_ptr<int>>{pl::error{}}.value_or(nullptr) == nullptr);

    const pl::transport_result outcome = pl::transport_failure{pl::failure::reset, "why"};
    CHECK(outcome.error().message == "why");
}
