#ifndef PROMPTLAYER_DETAIL_TEXT_HPP
#define PROMPTLAYER_DETAIL_TEXT_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The result of `scan`.
struct text_scan {
    bool valid_utf8 = true;      ///< by RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF
    std::size_t code_points = 0; ///< up to the first invalid byte; JSON Schema's measure of length
    std::size_t json_bytes = 0;  ///< size between the quotes in JSON; equals the size if nothing is escaped
    std::size_t invalid_at = 0;  ///< byte offset of the first invalid sequence, if `valid_utf8` is false
};

/// Returns the size in bytes of the UTF-8 sequence at `p`, 1 to 4; 0 if it is invalid or cut by `end`. `p` is
/// before `end`.
constexpr std::size_t sequence_length(const char* p, const char* end) noexcept {
    const auto byte = [&](std::ptrdiff_t i) { return static_cast<unsigned char>(p[i]); };
    const auto continues = [&](std::ptrdiff_t i, unsigned low = 0x80, unsigned high = 0xBF) {
        return end - p > i && byte(i) >= low && byte(i) <= high;
    };
    const unsigned lead = byte(0);
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return continues(1) ? 2 : 0;
    if (lead >= 0xE0 && lead <= 0xEF)
        return continues(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && continues(2) ? 3 : 0;
    if (lead >= 0xF0 && lead <= 0xF4)
        return continues(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && continues(2) &&
                       continues(3)
                   ? 4
                   : 0;
    return 0;
}

/// Returns how many bytes JSON needs for an ASCII character in a string.
constexpr std::size_t json_length(char c) noexcept {
    if (c == '"' || c == '\\' || (c >= '\b' && c <= '\r' && c != '\v'))
        return 2;
    return static_cast<unsigned char>(c) < 0x20 ? 6 : 1;
}

/// Scans the sequence at `p` and returns its length; 0 if the sequence is invalid.
constexpr std::size_t scan_sequence(const char* p, const char* end, text_scan& scanned) noexcept {
    const std::size_t length = sequence_length(p, end);
    if (length != 0) {
        ++scanned.code_points;
        scanned.json_bytes += length == 1 ? json_length(*p) : length;
    }
    return length;
}

PROMPTLAYER_DECL text_scan scan_at_run_time(std::string_view text) noexcept;

/// Scans a string once. Linear, no allocation; stops at the first invalid byte.
constexpr text_scan scan(std::string_view text) noexcept {
    if (!std::is_constant_evaluated())
        return scan_at_run_time(text);
    text_scan scanned;
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p != end;) {
        const std::size_t length = scan_sequence(p, end, scanned);
        if (length == 0) {
            scanned.valid_utf8 = false;
            scanned.invalid_at = static_cast<std::size_t>(p - text.data());
            break;
        }
        p += length;
    }
    return scanned;
}

constexpr char ascii_lower(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

/// Compares ASCII letters without regard to case.
constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size())
        return false;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (ascii_lower(a[i]) != ascii_lower(b[i]))
            return false;
    }
    return true;
}

/// Removes spaces and tabs from both ends.
constexpr std::string_view trim(std::string_view text) noexcept {
    const std::size_t first = text.find_first_not_of(" \t");
    text.remove_prefix(first == text.npos ? text.size() : first);
    return text.substr(0, text.find_last_not_of(" \t") + 1);
}

/// Returns at most `max_code_points` of `text`, with JSON's escapes for quotes, backslashes and hidden
/// characters.
PROMPTLAYER_DECL std::string json_escape(std::string_view text, std::size_t max_code_points = 64);

/// Returns at most `max_bytes` of `text` in whole code points. A space replaces each hidden character, U+FFFD
/// each invalid byte.
PROMPTLAYER_DECL std::string sanitize(std::string_view text, std::size_t max_bytes);

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns true if the 8 bytes at `p` are ASCII that JSON writes without escapes.
inline bool is_plain_ascii(const char* p) noexcept {
    std::uint64_t bytes = 0;
    std::memcpy(&bytes, p, sizeof bytes);
    constexpr std::uint64_t ones = 0x0101010101010101;
    const auto has_zero = [&](std::uint64_t v) { return (v - ones) & ~v; };
    const std::uint64_t below_space = (bytes - ones * 0x20) & ~bytes;
    return ((bytes | below_space | has_zero(bytes ^ (ones * '"')) | has_zero(bytes ^ (ones * '\\'))) &
            (ones * 0x80)) == 0;
}

PROMPTLAYER_DECL text_scan scan_at_run_time(std::string_view text) noexcept {
    text_scan scanned;
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p != end) {
        if (end - p >= 8 && is_plain_ascii(p)) {
            const std::size_t plain = end - p >= 16 && is_plain_ascii(p + 8) ? 16 : 8;
            scanned.code_points += plain;
            scanned.json_bytes += plain;
            p += plain;
            continue;
        }
        // Scans the next 8 bytes, or the rest, one code point at a time.
        const char* const block_end = p + std::min<std::ptrdiff_t>(8, end - p);
        while (p < block_end) {
            const std::size_t length = scan_sequence(p, end, scanned);
            if (length == 0) {
                scanned.valid_utf8 = false;
                scanned.invalid_at = static_cast<std::size_t>(p - text.data());
                return scanned;
            }
            p += length;
        }
    }
    return scanned;
}

/// One code point of a text that is shown to a person.
struct shown_code_point {
    std::string_view bytes; ///< U+FFFD for an invalid byte
    char32_t code;
    bool hidden; ///< see `is_hidden`
};

/// Returns true if a code point could change how a log shows the text around it, or hide text: controls, line
/// and paragraph separators, and format characters except the joiners of emoji and scripts.
constexpr bool is_hidden(char32_t code) noexcept {
    constexpr char32_t ranges[][2] = {
        {0, 0x1F},        {0x7F, 0x9F},       {0xAD, 0xAD},       {0x61C, 0x61C},    {0x180E, 0x180E},
        {0x200B, 0x200B}, {0x200E, 0x200F},   {0x2028, 0x202E},   {0x2060, 0x206F},  {0xFEFF, 0xFEFF},
        {0xFFF9, 0xFFFB}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}};
    if (code >= ' ' && code < 0x7F)
        return false; // most text is ASCII
    return std::any_of(std::begin(ranges), std::end(ranges),
                       [=](const auto& range) { return code >= range[0] && code <= range[1]; });
}

/// Removes one code point from the front of `rest`, which is not empty, and returns it.
inline shown_code_point take_code_point(std::string_view& rest) noexcept {
    const std::size_t length = sequence_length(rest.data(), rest.data() + rest.size());
    const std::string_view bytes = rest.substr(0, length);
    rest.remove_prefix(length == 0 ? 1 : length);
    if (length == 0)
        return {"\xEF\xBF\xBD", 0xFFFD, false};
    constexpr unsigned char lead_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    char32_t code = static_cast<unsigned char>(bytes[0]) & lead_bits[length];
    for (const char c : bytes.substr(1))
        code = code << 6 | (static_cast<unsigned char>(c) & 0x3F);
    return {bytes, code, is_hidden(code)};
}

PROMPTLAYER_DECL std::string json_escape(std::string_view text, std::size_t max_code_points) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string out;
    for (; !text.empty() && max_code_points != 0; --max_code_points) {
        const auto [bytes, code, hidden] = take_code_point(text);
        if (!hidden) {
            (out += bytes == "\"" || bytes == "\\" ? "\\" : "") += bytes;
            continue;
        }
        const auto append_unit = [&](char32_t unit) {
            out += "\\u";
            for (int shift = 12; shift >= 0; shift -= 4)
                out += hex[unit >> shift & 15];
        };
        if (code > 0xFFFF)
            append_unit(0xD800 + ((code - 0x10000) >> 10));
        append_unit(code > 0xFFFF ? 0xDC00 + (code & 0x3FF) : code);
    }
    return out;
}

PROMPTLAYER_DECL std::string sanitize(std::string_view text, std::size_t max_bytes) {
    const auto is_visible_ascii = [](char c) { return c >= ' ' && c <= '~'; };
    std::string out;
    out.reserve(std::min(text.size(), max_bytes));
    while (!text.empty()) {
        const auto run_end = std::find_if_not(text.begin(), text.end(), is_visible_ascii);
        const std::size_t run =
            std::min(static_cast<std::size_t>(run_end - text.begin()), max_bytes - out.size());
        out += text.substr(0, run);
        text.remove_prefix(run);
        if (text.empty() || is_visible_ascii(text[0]))
            break;
        auto [bytes, code, hidden] = take_code_point(text);
        if (hidden)
            bytes = " ";
        if (bytes.size() > max_bytes - out.size())
            break;
        out += bytes;
    }
    return out;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
