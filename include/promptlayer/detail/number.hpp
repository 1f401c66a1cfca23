#ifndef PROMPTLAYER_DETAIL_NUMBER_HPP
#define PROMPTLAYER_DETAIL_NUMBER_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <system_error>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns false for infinities and NaN, also with `-ffast-math`. Takes a reference because Clang then
/// assumes that each double passed or returned by value is finite.
constexpr bool is_finite(const double& value) noexcept {
    constexpr std::uint64_t exponent_bits = 0x7FF0'0000'0000'0000;
    return (__builtin_bit_cast(std::uint64_t, value) & exponent_bits) != exponent_bits;
}

/// The size of the longest text that `write_number` returns, such as `-2.2250738585072014e-308`.
inline constexpr std::size_t max_number_size = 24;

/// Writes the shortest JSON text that `read_number` reads as `value`, which is finite. Returns the text in
/// `buffer`.
PROMPTLAYER_DECL std::string_view write_number(double value, char (&buffer)[max_number_size]) noexcept;

/// Does so without `std::to_chars`, which some standard libraries have only for integers: libc++ before
/// version 14, and for Apple's systems before macOS 13.3. Slow; the text of a few numbers is a digit longer.
PROMPTLAYER_DECL std::string_view write_number_by_printf(double value,
                                                         char (&buffer)[max_number_size]) noexcept;

/// Returns the double nearest to a number of JSON's grammar, whatever the locale: nullopt if the number is
/// too large, also with `-ffast-math`; a denormal or 0 if it is tiny. Linear; no allocation.
PROMPTLAYER_DECL std::optional<double> read_number(std::string_view number) noexcept;

/// The value of a JSON number as an integer.
struct integer_reading {
    std::int64_t value = 0;
    bool is_integral = true; ///< false if it has a fraction
    bool fits = true;        ///< false if it needs more than 64 bits signed
};

/// Reads `number`, which follows JSON's grammar, by its digits: 2, 2.0, -2e3, 0.5.
PROMPTLAYER_DECL integer_reading read_integer(std::string_view number);

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL std::string_view write_number(double value, char (&buffer)[max_number_size]) noexcept {
    const auto write = [&buffer](auto number) -> std::string_view {
        if constexpr (requires { std::to_chars(buffer, buffer, number); }) {
            const char* const end = std::to_chars(buffer, buffer + max_number_size, number).ptr;
            return {buffer, static_cast<std::size_t>(end - buffer)};
        } else {
            return write_number_by_printf(number, buffer);
        }
    };
    return write(value);
}

PROMPTLAYER_DECL std::string_view write_number_by_printf(double value,
                                                         char (&buffer)[max_number_size]) noexcept {
    char scientific[32], fixed[32];
    int size = 0;
    const auto is_exact_with = [&](int decimals) {
        size = std::snprintf(scientific, sizeof scientific, "%.*e", decimals, value);
        return __builtin_bit_cast(std::uint64_t, std::strtod(scientific, nullptr)) ==
               __builtin_bit_cast(std::uint64_t, value);
    };
    int decimals = is_exact_with(14) ? 0 : 15; // never fewer than 14 if 14 are too few
    while (!is_exact_with(decimals) && decimals < 16)
        ++decimals;
    const auto exponent = static_cast<int>(std::strtol(std::strchr(scientific, 'e') + 1, nullptr, 10));
    const int fixed_size =
        std::snprintf(fixed, sizeof fixed, "%.*f", std::max(decimals - exponent, 0), value);
    char* const end =
        std::copy_n(fixed_size <= size ? fixed : scientific, std::min(fixed_size, size), buffer);
    std::replace(buffer, end, ',', '.'); // of the locale
    return {buffer, static_cast<std::size_t>(end - buffer)};
}

PROMPTLAYER_DECL std::optional<double> read_number(std::string_view number) noexcept {
    // `text` becomes an integer with an exponent: without a point, `strtod` does not depend on the locale.
    // `from_chars` is missing from libc++, and libstdc++'s rounds some numbers wrongly on x87.
    constexpr std::int64_t limit = 1'000'000'000'000'000; // more than any text has digits
    std::int64_t exponent = 0;
    const std::size_t mantissa_size = std::min(number.find_first_of("eE"), number.size());
    if (mantissa_size != number.size()) {
        const char* first = number.data() + mantissa_size + 1;
        first += *first == '+' ? 1 : 0;
        if (std::from_chars(first, number.data() + number.size(), exponent).ec != std::errc{})
            exponent = *first == '-' ? -limit : limit;
        exponent = std::clamp(exponent, -limit, limit);
    }

    // The middle between two doubles has at most 768 significant digits. Digits that do not fit `text` only
    // tell whether the number is above such a middle.
    constexpr std::size_t max_size = 800;
    char text[max_size + 8] = {'0'}; // and the exponent, with at most 6 characters, and a null character
    std::size_t size = 1;
    bool has_point = false;
    for (const char c : number.substr(0, mantissa_size)) {
        has_point = has_point || c == '.';
        if (c == '.' || c == '-')
            continue;
        exponent -= has_point ? 1 : 0;
        if (size == max_size) {
            ++exponent;
            if (c != '0')
                text[max_size - 1] = '1';
        } else if (size != 1 || c != '0') {
            text[size++] = c;
        }
    }

    // Keeps the exponent short: beyond 10 to the power of 400 every number is too large, below -400 it is 0.
    const auto digits = static_cast<std::int64_t>(size);
    const std::int64_t magnitude = std::clamp<std::int64_t>(exponent + digits, -400, 400);
    text[size] = 'e';
    std::to_chars(text + size + 1, text + sizeof text - 1, magnitude - digits);
    errno = 0;
    const double value = std::strtod(text, nullptr);
    if (errno == ERANGE && magnitude > 0)
        return std::nullopt;
    return number.starts_with('-') ? -value : value;
}

PROMPTLAYER_DECL integer_reading read_integer(std::string_view number) {
    integer_reading reading;
    const char* const end = number.data() + number.size();
    if (const auto parsed = std::from_chars(number.data(), end, reading.value);
        parsed.ec == std::errc{} && parsed.ptr == end)
        return reading;
    std::string digits{number.substr(0, number.find_first_of("eE"))};
    std::int64_t exponent = 0; // within 32 bits: the parser calls others malformed
    if (digits.size() != number.size()) {
        const char* const first = number.data() + digits.size() + 1;
        std::from_chars(first + (*first == '+' ? 1 : 0), number.data() + number.size(), exponent);
    }
    const bool is_negative = digits[0] == '-';
    digits.erase(0, is_negative ? 1 : 0);
    const auto point = static_cast<std::int64_t>(std::min(digits.find('.'), digits.size())) + exponent;
    std::erase(digits, '.');
    const std::size_t leading_zeros = digits.find_first_not_of('0');
    if (leading_zeros == digits.npos)
        return {};
    if (point <= static_cast<std::int64_t>(digits.find_last_not_of('0')))
        return {.is_integral = false};
    if (point - static_cast<std::int64_t>(leading_zeros) > std::numeric_limits<std::int64_t>::digits10 + 1)
        return {.fits = false};
    digits.resize(static_cast<std::size_t>(point), '0');
    digits.insert(0, is_negative ? 1 : 0, '-');
    reading.fits =
        std::from_chars(digits.data(), digits.data() + digits.size(), reading.value).ec == std::errc{};
    return reading;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
