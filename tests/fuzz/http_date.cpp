// Dates of HTTP against `timegm`, and `Retry-After`.

#include "fuzz.hpp"

#include <promptlayer/http.hpp>

#include <charconv>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace {

using fuzz::require;
using promptlayer::detail::http_date;

constexpr std::int64_t first = -62'167'219'200, last = 253'402'300'799; // of the years 0 to 9999

std::string formatted(std::int64_t seconds, const char* form) {
    const std::time_t time = seconds;
    std::tm parts{};
    ::gmtime_r(&time, &parts);
    char text[64];
    std::string date(text, std::strftime(text, sizeof text, form, &parts));
    const std::size_t year = date.find('#'); // glibc's %Y writes no zeros in front
    if (year != date.npos)
        date.replace(year, 1, std::to_string(10'000 + parts.tm_year + 1900).substr(1));
    return date;
}

/// Reads words and numbers between spaces, commas, hyphens and colons, in the order of one of the forms.
std::optional<std::int64_t> plain_reading(std::string text) {
    std::replace_if(
        text.begin(), text.end(), [](char c) { return std::strchr(",-:", c) && c != '\0'; }, ' ');
    std::vector<std::string> words;
    for (std::size_t at = 0; (at = text.find_first_not_of(' ', at)) != text.npos;) {
        const std::size_t end = std::min(text.find(' ', at), text.size());
        words.push_back(text.substr(at, end - at));
        at = end;
    }
    if (words.size() == 7)
        words = {words[0], words[2], words[1], words[6], words[3], words[4], words[5], "GMT"};
    if (words.size() != 8 || words[7] != "GMT")
        return std::nullopt;
    const auto number = [](const std::string& digits) -> long {
        long value = 0;
        const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
        return end == digits.data() + digits.size() && ec == std::errc{} ? value : -1;
    };
    constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const auto* const month = std::find(std::begin(months), std::end(months), words[2]);
    const long day = number(words[1]), hour = number(words[4]), minute = number(words[5]),
               second = number(words[6]);
    long year = number(words[3]);
    if (month == std::end(months) || day < 1 || year < 0 || hour < 0 || minute < 0 || second < 0 ||
        hour > 23 || minute > 59 || second > 60 || day > 31 || (words[3].size() != 2 && words[3].size() != 4))
        return std::nullopt;
    if (words[3].size() == 2)
        year += year < 70 ? 2000 : 1900;
    std::tm parts{};
    parts.tm_year = static_cast<int>(year - 1900);
    parts.tm_mon = static_cast<int>(month - std::begin(months));
    parts.tm_mday = static_cast<int>(day);
    const int given_month = parts.tm_mon;
    const std::time_t midnight = ::timegm(&parts);
    if (parts.tm_mon != given_month)
        return std::nullopt; // the month has fewer days
    return midnight + hour * 3600 + minute * 60 + second;
}

std::optional<std::int64_t> seconds_of(const std::optional<std::chrono::sys_seconds>& date) {
    return date ? std::optional<std::int64_t>{date->time_since_epoch().count()} : std::nullopt;
}

void check_time(std::int64_t time) {
    require(seconds_of(http_date(formatted(time, "%a, %d %b # %H:%M:%S GMT"))) == time,
            "the date of RFC 9110 is read");
    require(seconds_of(http_date(formatted(time, "%a %b %e %H:%M:%S #"))) == time,
            "the date of asctime is read");
    if (time >= 0 && time < 3'155'760'000) // to the year 2069
        require(seconds_of(http_date(formatted(time, "%A, %d-%b-%y %H:%M:%S GMT"))) == time,
                "the date of RFC 850 is read");
}

void check_retry_after(const std::string& value, const std::string& date) {
    const auto wait = promptlayer::retry_after({503, {{"Date", date}, {"retry-after", value}}, ""});
    const auto until = plain_reading(value), now = plain_reading(date);
    const std::string_view digits = promptlayer::detail::trim(value);
    if (!digits.empty() && digits.find_first_not_of("0123456789") == digits.npos)
        require(wait && (wait->count() == std::strtoll(std::string{digits}.c_str(), nullptr, 10)),
                "seconds are read, the largest if there are more");
    else if (until && now)
        require(wait && wait->count() == std::max<std::int64_t>(0, *until - *now),
                "the wait is the time between two dates");
    else
        require(!wait, "no wait is made up");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::input in{data, size};
    const std::string value{in.line()}, date{in.line()};
    require(seconds_of(http_date(value)) == plain_reading(value), "a date is read as timegm has it");
    if (const auto time = seconds_of(http_date(value))) {
        require(*time >= first && *time <= last + 1, "a date is in the years 0 to 9999");
        check_time(std::min(*time, last));
    }
    check_retry_after(value, date);
    check_time(first + static_cast<std::int64_t>(in.up_to(last - first)));
    return 0;
}
