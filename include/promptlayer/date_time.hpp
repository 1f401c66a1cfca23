#ifndef PROMPTLAYER_DATE_TIME_HPP
#define PROMPTLAYER_DATE_TIME_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <string>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <cstddef>
#include <cstdint>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Returns the time in UTC as text of RFC 3339 with milliseconds, rounded down: `2024-01-15T10:30:00.123Z`. A
/// time outside the years 0 to 9999 becomes the first or last millisecond of these years.
PROMPTLAYER_DECL std::string date_time(std::chrono::system_clock::time_point time);

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL std::string date_time(std::chrono::system_clock::time_point time) {
    using namespace std::chrono;
    constexpr std::int64_t day_ms = 86'400'000;
    constexpr std::int64_t first = -719'528 * day_ms,
                           last = 2'932'897 * day_ms - 1; // of the years 0 and 9999
    const std::int64_t since_first =
        std::clamp<std::int64_t>(floor<milliseconds>(time.time_since_epoch()).count(), first, last) - first;
    const year_month_day date{sys_days{days{first / day_ms + since_first / day_ms}}};
    const std::int64_t ms = since_first % day_ms;
    std::string text = "0000-00-00T00:00:00.000Z";
    const auto write = [&](std::size_t end, std::int64_t number) {
        for (; number != 0; number /= 10)
            text[--end] = static_cast<char>('0' + number % 10);
    };
    write(4, static_cast<int>(date.year()));
    write(7, static_cast<unsigned>(date.month()));
    write(10, static_cast<unsigned>(date.day()));
    write(13, ms / 3'600'000);
    write(16, ms / 60'000 % 60);
    write(19, ms / 1000 % 60);
    write(23, ms % 1000);
    return text;
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
