#include <promptlayer/date_time.hpp>
#include <promptlayer/detail/date_time_text.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

using promptlayer::date_time;
using promptlayer::detail::is_date_time;

namespace {

using clock_type = std::chrono::system_clock;

static_assert(is_date_time("2024-02-29T23:59:59+05:30"));
static_assert(is_date_time("1990-12-31T15:59:60.5-08:00"));
static_assert(!is_date_time("2023-02-29T00:00:00Z"));
static_assert(!is_date_time(""));
static_assert(!is_date_time("2024-01-15T10:30:00.5"));

clock_type::time_point at(std::int64_t seconds, std::int64_t milliseconds = 0) {
    return clock_type::time_point{} + std::chrono::seconds{seconds} + std::chrono::milliseconds{milliseconds};
}

} // namespace

TEST_CASE("is_date_time accepts the forms of RFC 3339") {
    for (const std::string_view text : {
             "2024-01-15T10:30:00Z",
             "2024-01-15T10:30:00.123Z",
             "2024-01-15t10:30:00z",
             "2024-01-15T10:30:00.1z",
             "2024-01-15T10:30:00.123456789012345678901234567890+01:00",
             "2024-01-15T10:30:00-00:00",
             "2024-02-29T23:59:59+05:30",
             "2024-01-15T10:30:00+23:59",
             "2024-01-15T10:30:00-23:59",
             "0000-01-01T00:00:00Z",
             "9999-12-31T23:59:59Z",
         }) {
        CAPTURE(text);
        CHECK(is_date_time(text));
    }
}

TEST_CASE("is_date_time rejects other forms of dates and times") {
    for (const std::string_view text : {
             "",
             "now",
             "2024-01-15",
             "10:30:00Z",
             "2024-01-15T10:30:00",
             "2024-01-15 10:30:00Z",
             "2024-01-15T10:30Z",
             "2024-01-15T10:30:00.Z",
             "2024-01-15T10:30:00,5Z",
             "2024-01-15T10:30:00.5",
             "2024-01-15T10:30:00.5.5Z",
             "2024-01-15T10:30:00.x5Z",
             "2024-01-15T10:30:00ZZ",
             "2024-01-15T10:30:00UTC",
             "2024-01-15T10:30:00 Z",
             "2024-01-15T10:30:00+0530",
             "2024-01-15T10:30:00+05",
             "2024-01-15T10:30:00+5:30",
             "2024-01-15T10:30:00*05:30",
             "2024-01-15T10:30:00+05:30Z",
             "2024-1-15T10:30:00Z",
             "24-01-15T10:30:00Z",
             "2024M01-15T10:30:00Z", // a letter 32 after the character expected
             "2024-01-15T10Z30:00Z",
             "2024-01-1:T10:30:00Z", // the character after 9
             "12024-01-15T10:30:00Z",
             "-024-01-15T10:30:00Z",
             "+024-01-15T10:30:00Z",
             "2024/01/15T10:30:00Z",
             "2024-015T10:30:00Z",
             "20240115T103000Z",
             " 2024-01-15T10:30:00Z",
             "2024-01-15T10:30:00Z ",
             "2024-01-15T10:30:00Z\n",
             "2024-01-15T10:30:0\xD9\xA0Z", // a digit, but none of ASCII
         }) {
        CAPTURE(text);
        CHECK_FALSE(is_date_time(text));
    }
    CHECK_FALSE(is_date_time(std::string_view{"2024-01-15T10:30:00Z\0", 21}));
}

TEST_CASE("is_date_time accepts the last value of each field and rejects the next") {
    struct {
        std::string_view valid;
        std::string_view invalid;
    } const cases[] = {
        {"2024-01-15T00:00:00Z", "2024-00-15T00:00:00Z"},
        {"2024-12-15T00:00:00Z", "2024-13-15T00:00:00Z"},
        {"2024-01-01T00:00:00Z", "2024-01-00T00:00:00Z"},
        {"2024-01-31T00:00:00Z", "2024-01-32T00:00:00Z"},
        {"2023-02-28T00:00:00Z", "2023-02-29T00:00:00Z"},
        {"2024-02-29T00:00:00Z", "2024-02-30T00:00:00Z"},
        {"1900-02-28T00:00:00Z", "1900-02-29T00:00:00Z"},
        {"2000-02-29T00:00:00Z", "2000-02-30T00:00:00Z"},
        {"1600-02-29T00:00:00Z", "2200-02-29T00:00:00Z"},
        {"0000-02-29T00:00:00Z", "0100-02-29T00:00:00Z"},
        {"0004-02-29T00:00:00Z", "0001-02-29T00:00:00Z"},
        {"2024-03-31T00:00:00Z", "2024-03-32T00:00:00Z"},
        {"2024-04-30T00:00:00Z", "2024-04-31T00:00:00Z"},
        {"2024-05-31T00:00:00Z", "2024-05-32T00:00:00Z"},
        {"2024-06-30T00:00:00Z", "2024-06-31T00:00:00Z"},
        {"2024-07-31T00:00:00Z", "2024-07-32T00:00:00Z"},
        {"2024-08-31T00:00:00Z", "2024-08-32T00:00:00Z"},
        {"2024-09-30T00:00:00Z", "2024-09-31T00:00:00Z"},
        {"2024-10-31T00:00:00Z", "2024-10-32T00:00:00Z"},
        {"2024-11-30T00:00:00Z", "2024-11-31T00:00:00Z"},
        {"2024-12-31T00:00:00Z", "2024-12-32T00:00:00Z"},
        {"2024-01-15T23:00:00Z", "2024-01-15T24:00:00Z"},
        {"2024-01-15T10:59:00Z", "2024-01-15T10:60:00Z"},
        {"2024-01-15T10:30:59Z", "2024-01-15T10:30:60Z"},
        {"2016-12-31T23:59:60Z", "2016-12-31T23:59:61Z"},
        {"2024-01-15T10:30:00+23:00", "2024-01-15T10:30:00+24:00"},
        {"2024-01-15T10:30:00-00:59", "2024-01-15T10:30:00-00:60"},
    };
    for (const auto& pair : cases) {
        CAPTURE(pair.valid);
        CHECK(is_date_time(pair.valid));
        CHECK_FALSE(is_date_time(pair.invalid));
    }
}

TEST_CASE("is_date_time accepts second 60 only in the last minute of a day in UTC") {
    for (const std::string_view text :
         {"1998-12-31T23:59:60Z", "1998-12-31T23:59:60.123z", "1998-12-31T15:59:60-08:00",
          "1999-01-01T05:29:60+05:30", "1999-01-01T23:58:60+23:59", "1998-12-31T00:00:60-23:59"}) {
        CAPTURE(text);
        CHECK(is_date_time(text));
    }
    for (const std::string_view text :
         {"1998-12-31T23:58:60Z", "1998-12-31T22:59:60Z", "1998-12-31T00:00:60Z", "1998-12-31T15:59:60+08:00",
          "1998-12-31T23:59:60+01:00", "1998-12-31T23:59:60-00:01"}) {
        CAPTURE(text);
        CHECK_FALSE(is_date_time(text));
    }
}

TEST_CASE("is_date_time rejects every truncation") {
    for (const std::string_view text : {"2024-01-15T10:30:00.123Z", "2024-01-15T10:30:00+05:30"}) {
        for (std::size_t size = 0; size < text.size(); ++size)
            CHECK_FALSE(is_date_time(text.substr(0, size)));
    }
}

TEST_CASE("date_time writes known times") {
    CHECK(date_time(at(0)) == "1970-01-01T00:00:00.000Z");
    CHECK(date_time(at(82'800)) == "1970-01-01T23:00:00.000Z");
    CHECK(date_time(at(1705314600, 123)) == "2024-01-15T10:30:00.123Z");
    CHECK(date_time(at(951782400)) == "2000-02-29T00:00:00.000Z");
    CHECK(date_time(at(4107542399, 999)) == "2100-02-28T23:59:59.999Z");
    CHECK(date_time(at(4107542400)) == "2100-03-01T00:00:00.000Z");
    CHECK(date_time(at(-1)) == "1969-12-31T23:59:59.000Z");
    CHECK(date_time(at(-2208988800)) == "1900-01-01T00:00:00.000Z");
}

TEST_CASE("date_time rounds down to a millisecond, also before 1970") {
    using namespace std::chrono_literals;
    const auto rounded = [](std::chrono::microseconds since_1970) {
        return date_time(
            clock_type::time_point{std::chrono::duration_cast<clock_type::duration>(since_1970)});
    };
    CHECK(rounded(999us) == "1970-01-01T00:00:00.000Z");
    CHECK(rounded(1000us) == "1970-01-01T00:00:00.001Z");
    CHECK(rounded(-1us) == "1969-12-31T23:59:59.999Z");
    CHECK(rounded(-1000us) == "1969-12-31T23:59:59.999Z");
    CHECK(rounded(-1001us) == "1969-12-31T23:59:59.998Z");
}

TEST_CASE("date_time stays within the years 0 to 9999") {
    if constexpr (clock_type::period::den >= 1'000'000'000) { // 64 bits of nanoseconds are less
        CHECK(date_time(clock_type::time_point::min()) == "1677-09-21T00:12:43.145Z");
        CHECK(date_time(clock_type::time_point::max()) == "2262-04-11T23:47:16.854Z");
    } else {
        CHECK(date_time(at(-62167219200)) == "0000-01-01T00:00:00.000Z");
        CHECK(date_time(at(-62167219201)) == "0000-01-01T00:00:00.000Z");
        CHECK(date_time(clock_type::time_point::min()) == "0000-01-01T00:00:00.000Z");
        CHECK(date_time(at(253402300799, 999)) == "9999-12-31T23:59:59.999Z");
        CHECK(date_time(at(253402300800)) == "9999-12-31T23:59:59.999Z");
        CHECK(date_time(clock_type::time_point::max()) == "9999-12-31T23:59:59.999Z");
    }
}

TEST_CASE("is_date_time accepts what date_time returns, for 10,000 times of the clock's whole range") {
    std::uint64_t state = 1;
    std::size_t rejected = 0;
    for (int i = 0; i < 10'000; ++i) {
        state = state * 6364136223846793005U + 1442695040888963407U; // a linear congruential generator
        const auto ticks = static_cast<clock_type::rep>(state);
        const std::string text = date_time(clock_type::time_point{clock_type::duration{ticks}});
        if (!is_date_time(text) || text.size() != 24)
            ++rejected;
    }
    CHECK(rejected == 0);
}
