#ifndef PROMPTLAYER_DETAIL_DATE_TIME_TEXT_HPP
#define PROMPTLAYER_DETAIL_DATE_TIME_TEXT_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <string_view>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns true if `text` has the form `form`: 0 stands for any digit, + for either sign, and letters for
/// themselves in upper or lower case.
constexpr bool has_form(std::string_view text, std::string_view form) noexcept {
    if (text.size() != form.size())
        return false;
    for (std::size_t i = 0; i < form.size(); ++i) {
        const char c = text[i], f = form[i];
        if (f == '0'   ? c < '0' || c > '9'
            : f == '+' ? c != '+' && c != '-'
                       : c != f && (f < 'A' || f > 'Z' || c != f + ('a' - 'A')))
            return false;
    }
    return true;
}

/// Returns true if `text` is a date-time of RFC 3339, as JSON Schema's format `date-time` has it. A second 60
/// must be the last one of a day in UTC.
constexpr bool is_date_time(std::string_view text) noexcept {
    constexpr std::string_view form = "0000-00-00T00:00:00";
    if (!has_form(text.substr(0, form.size()), form))
        return false;
    std::string_view offset = text.substr(form.size());
    if (offset.starts_with('.')) {
        const std::size_t fraction_end = offset.find_first_not_of("0123456789", 1);
        if (fraction_end == 1 || fraction_end == offset.npos)
            return false;
        offset.remove_prefix(fraction_end);
    }
    const bool is_utc = has_form(offset, "Z");
    if (!is_utc && !has_form(offset, "+00:00"))
        return false;

    const auto number = [](std::string_view from, std::size_t at) {
        return (from[at] - '0') * 10 + from[at + 1] - '0';
    };
    const int century = number(text, 0), year = number(text, 2), month = number(text, 5),
              day = number(text, 8);
    const int hour = number(text, 11), minute = number(text, 14), second = number(text, 17);
    const int offset_hour = is_utc ? 0 : number(offset, 1), offset_minute = is_utc ? 0 : number(offset, 4);
    const bool is_leap_year = year % 4 == 0 && (year != 0 || century % 4 == 0);
    const int days = month == 2 ? (is_leap_year ? 29 : 28) : 30 + (month + month / 8) % 2;
    constexpr int day_minutes = 24 * 60;
    const int shift = (offset_hour * 60 + offset_minute) * (offset.starts_with('-') ? 1 : -1);
    const int utc_minute = (hour * 60 + minute + shift + day_minutes) % day_minutes;
    return month >= 1 && month <= 12 && day >= 1 && day <= days && hour <= 23 && minute <= 59 &&
           second <= (utc_minute == day_minutes - 1 ? 60 : 59) && offset_hour <= 23 && offset_minute <= 59;
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
