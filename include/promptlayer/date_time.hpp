#ifndef PROMPTLAYER_DATE_TIME_HPP
#define PROMPTLAYER_DATE_TIME_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <string>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <cstddef>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Returns the time in UTC as text of RFC 3339 with milliseconds, rounded down: `2024-01-15T10:30:00.123Z`. A
/// time outside the years 0 to 9999 becomes the first or last millisecond of these years.
PROMPTLAYER_DECL std::string date_time(std::chrono::system_clock::time_point time);

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL std::string date_time(std::chrono::system_clock::time_point time) {
    using namespace std::chrono;
    constexpr sys_days first = year{0} / January / 1, last = year{9999} / December / 31;
    const auto rounded = std::clamp<sys_time<milliseconds>>(floor<milliseconds>(time), first,
                                                            last + days{1} - milliseconds{1});
    const auto day = floor<days>(rounded);
    const year_month_day date{day};
    const hh_mm_ss clock{rounded - day};
    std::string text = "0000-00-00T00:00:00.000Z";
    const auto write = [&](std::size_t end, auto number) {
        for (; number != 0; number /= 10)
            text[--end] = static_cast<char>('0' + number % 10);
    };
    write(4, static_cast<int>(date.year()));
    write(7, static_cast<unsigned>(date.month()));
    write(10, static_cast<unsigned>(date.day()));
    write(13, clock.hours().count());
    write(16, clock.minutes().count());
    write(19, clock.seconds().count());
    write(23, clock.subseconds().count());
    return text;
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
