#ifndef PROMPTLAYER_DETAIL_HTTP_DATE_HPP
#define PROMPTLAYER_DETAIL_HTTP_DATE_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#if defined(PROMPTLAYER_DEFINITIONS)

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns the number that `digits` spells; the largest number if it is larger; nullopt if `digits` is empty
/// or has another character.
inline std::optional<std::chrono::seconds::rep> parse_integer(std::string_view digits) noexcept {
    std::chrono::seconds::rep number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, number);
    if (digits.empty() || digits[0] == '-' || stop != end)
        return std::nullopt;
    return ec == std::errc::result_out_of_range ? std::numeric_limits<decltype(number)>::max() : number;
}

/// Reads a date in one of the three forms of RFC 9110, section 5.6.7:
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
    const auto day = parse_integer(part[1]), year = parse_integer(part[3]), hours = parse_integer(part[4]),
               minutes = parse_integer(part[5]), seconds = parse_integer(part[6]);
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

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#include <promptlayer/detail/pop_macros.hpp>

#endif
