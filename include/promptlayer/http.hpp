#ifndef PROMPTLAYER_HTTP_HPP
#define PROMPTLAYER_HTTP_HPP

#include <promptlayer/error.hpp>
#include <promptlayer/text.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <iosfwd>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace promptlayer::inline v0 {

/// One header field of a request or an answer.
struct header {
    std::string name{};
    std::string value{};

    friend bool operator==(const header&, const header&) = default;
};

/// One HTTP request, ready to be sent as it is. Printing it shows secrets as `[redacted]`.
struct http_request {
    std::string method{};
    std::string url{}; ///< absolute, `https://` or `http://`, visible ASCII
    std::vector<header>
        headers{};      ///< all that have to be sent but for those of the connection and the length
    std::string body{}; ///< bytes
    std::chrono::milliseconds
        timeout{}; ///< for the whole exchange, from the look-up of the host to the last byte
    std::size_t max_response_bytes = 0; ///< stop reading a body that is longer

    friend bool operator==(const http_request&, const http_request&) = default;
};

/// One HTTP answer, whatever its status.
struct http_response {
    int status = 0;
    std::vector<header> headers{}; ///< all of them, in order, repeats included
    std::string body{};            ///< bytes, with the transfer coding taken off

    friend bool operator==(const http_response&, const http_response&) = default;
};

namespace detail {

constexpr char ascii_lower(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return ascii_lower(x) == ascii_lower(y); });
}

} // namespace detail

/// The value of the first header called `name`, in any case; `nullptr` if there is none. Points into
/// `headers`.
inline const std::string* find_header(const std::vector<header>& headers, std::string_view name) noexcept {
    const auto found = std::find_if(headers.begin(), headers.end(), [&](const header& h) {
        return detail::equal_ignoring_case(h.name, name);
    });
    return found == headers.end() ? nullptr : &found->value;
}

namespace detail {

/// All of `digits` as a number from 0; larger ones become the largest.
inline std::optional<std::chrono::seconds::rep> whole_number(std::string_view digits) noexcept {
    std::chrono::seconds::rep number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, number);
    if (digits.empty() || digits[0] == '-' || stop != end)
        return std::nullopt;
    return ec == std::errc::result_out_of_range ? std::numeric_limits<decltype(number)>::max() : number;
}

/// A date in one of the three forms of RFC 9110, section 5.6.7:
/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`.
/// The weekday is not checked; a year of two digits is one from 1970 to 2069.
inline std::optional<std::chrono::sys_seconds> http_date(std::string_view text) noexcept {
    std::array<std::string_view, 8> part{}; // weekday, day, month, year, hours, minutes, seconds, GMT
    std::size_t parts = 0;
    while (true) {
        text.remove_prefix(std::min(text.find_first_not_of(" ,-:"), text.size()));
        if (text.empty())
            break;
        if (parts == part.size())
            return std::nullopt;
        const std::size_t length = std::min(text.find_first_of(" ,-:"), text.size());
        part[parts++] = text.substr(0, length);
        text.remove_prefix(length);
    }
    if (parts == 7) { // asctime's: weekday, month, day, hours, minutes, seconds, year
        std::swap(part[1], part[2]);
        std::rotate(part.begin() + 3, part.begin() + 6, part.begin() + 7);
    } else if (parts != 8 || part[7] != "GMT") {
        return std::nullopt;
    }
    constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const std::size_t month = part[2].size() == 3 ? months.find(part[2]) : months.npos;
    const auto day = whole_number(part[1]), year = whole_number(part[3]), hours = whole_number(part[4]),
               minutes = whole_number(part[5]), seconds = whole_number(part[6]);
    if (month == months.npos || month % 3 != 0 || !day || !year || !hours || !minutes || !seconds ||
        *day > 31 || (part[3].size() != 2 && part[3].size() != 4) || *hours > 23 || *minutes > 59 ||
        *seconds > 60)
        return std::nullopt;
    const auto full_year = part[3].size() != 2 ? *year : *year + (*year < 70 ? 2000 : 1900);
    const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(full_year)},
                                           std::chrono::month{static_cast<unsigned>(month / 3 + 1)},
                                           std::chrono::day{static_cast<unsigned>(*day)}};
    if (!date.ok())
        return std::nullopt;
    return std::chrono::sys_days{date} + std::chrono::hours{*hours} + std::chrono::minutes{*minutes} +
           std::chrono::seconds{*seconds};
}

constexpr std::string_view trimmed(std::string_view text) noexcept {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    return text.substr(0, text.find_last_not_of(" \t") + 1);
}

} // namespace detail

/// How long the service asks to be left alone: `Retry-After` in seconds, not capped, or as a date, which
/// counts from the answer's own `Date` since no clock is read here; none if it is absent, unreadable, or a
/// date without a `Date`.
inline std::optional<std::chrono::seconds> retry_after(const http_response& response) noexcept {
    const std::string* const asked = find_header(response.headers, "Retry-After");
    if (!asked)
        return std::nullopt;
    if (const auto seconds = detail::whole_number(detail::trimmed(*asked)))
        return std::chrono::seconds{*seconds};
    const std::string* const now = find_header(response.headers, "Date");
    const auto until = detail::http_date(*asked);
    const auto from = now ? detail::http_date(*now) : std::nullopt;
    if (!until || !from)
        return std::nullopt;
    return std::max(std::chrono::seconds{0}, *until - *from);
}

namespace detail {

inline std::string lines(const std::vector<header>& headers) {
    std::string text;
    for (const header& h : headers) {
        bool secret = false;
        for (const std::string_view name :
             {"X-API-KEY", "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"})
            secret = secret || equal_ignoring_case(h.name, name);
        text.append(h.name).append(": ").append(secret ? "[redacted]" : h.value).append("\n");
    }
    return text.append("\n");
}

} // namespace detail

/// The request as HTTP/1.1 would have it, with `[redacted]` for the API key and other secrets.
inline std::string to_string(const http_request& request) {
    return request.method + " " + request.url + "\n" + detail::lines(request.headers) + request.body;
}

/// The answer for a person: `[redacted]` for cookies and other secrets, control characters replaced, of the
/// body 512 bytes. What the service says is shown as it is: `decode` is what takes an echoed API key out.
inline std::string to_string(const http_response& response) {
    std::vector<header> headers = response.headers;
    for (header& h : headers)
        h = {detail::readable(h.name, 512), detail::readable(h.value, 512)};
    return "HTTP " + std::to_string(response.status) + "\n" + detail::lines(headers) +
           detail::readable(response.body, 512);
}

template <class Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                             const http_request& request) {
    return detail::print(out, request);
}

template <class Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                             const http_response& response) {
    return detail::print(out, response);
}

} // namespace promptlayer::inline v0

#include <promptlayer/detail/pop_macros.hpp>

#endif
