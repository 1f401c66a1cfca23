#ifndef PROMPTLAYER_DETAIL_TEXT_HPP
#define PROMPTLAYER_DETAIL_TEXT_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// What one pass over a string finds.
struct text_scan {
    bool valid_utf8 = true;      ///< as RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF
    std::size_t code_points = 0; ///< the length as JSON Schema measures it; up to the first invalid byte
    std::size_t json_bytes =
        0; ///< bytes between the quotes when written as JSON; as many as it has: no escapes
    std::size_t invalid_at = 0; ///< byte offset of the first invalid sequence, if `valid_utf8` is false
};

namespace detail {

/// Bytes of the UTF-8 sequence at `p`, 1 to 4; 0 if it is invalid or `end` cuts it. `p` is before `end`.
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

/// Whether the bytes at `p`, 1 to 8, are all ASCII that JSON writes as it is. Not for constant expressions.
inline bool is_plain_ascii(const char* p, std::size_t count) noexcept {
    std::uint64_t w = 0x2020202020202020; // spaces are plain
    if (count == sizeof w)
        std::memcpy(&w, p, sizeof w);
    else
        std::memcpy(&w, p, count);
    constexpr std::uint64_t ones = 0x0101010101010101;
    const auto has_zero = [&](std::uint64_t v) { return (v - ones) & ~v; };
    const std::uint64_t below_space = (w - ones * 0x20) & ~w;
    return ((w | below_space | has_zero(w ^ (ones * '"')) | has_zero(w ^ (ones * '\\'))) & (ones * 0x80)) ==
           0;
}

/// Bytes that JSON takes for an ASCII character within a string.
constexpr std::size_t json_length(char c) noexcept {
    if (c == '"' || c == '\\' || (c >= '\b' && c <= '\r' && c != '\v'))
        return 2;
    return static_cast<unsigned char>(c) < 0x20 ? 6 : 1;
}

} // namespace detail

/// Scans once: is it UTF-8, how many code points, how long as JSON. Linear, no allocation; stops at invalid
/// bytes.
constexpr text_scan scan(std::string_view text) noexcept {
    text_scan found;
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p != end) {
        if (!std::is_constant_evaluated()) {
            const std::size_t count = std::min<std::size_t>(8, static_cast<std::size_t>(end - p));
            if (detail::is_plain_ascii(p, count)) {
                found.code_points += count;
                found.json_bytes += count;
                p += count;
                continue;
            }
        }
        const std::size_t length = detail::sequence_length(p, end);
        if (length == 0) {
            found.valid_utf8 = false;
            found.invalid_at = static_cast<std::size_t>(p - text.data());
            break;
        }
        ++found.code_points;
        found.json_bytes += length == 1 ? detail::json_length(*p) : length;
        p += length;
    }
    return found;
}

namespace detail {

/// A code point taken off the front of a text that is to be shown to a person.
struct shown_code_point {
    std::string_view bytes; ///< U+FFFD for an invalid byte
    char32_t code;
    bool hidden; ///< C0, DEL, C1, a line or paragraph separator, or a format character that reorders or hides
                 ///< text
};

/// Whether a code point could change how a log shows the text around it, or hide text: controls, line and
/// paragraph separators, and format characters except the joiners of emoji and scripts.
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

/// Takes one code point off `rest`, which is not empty.
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

/// Returns at most `most` code points of `text`, with JSON's escapes.
inline std::string json_escape(std::string_view text, std::size_t most = 64) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string out;
    for (; !text.empty() && most != 0; --most) {
        const auto [bytes, code, hidden] = take_code_point(text);
        if (!hidden) {
            (out += bytes == "\"" || bytes == "\\" ? "\\" : "") += bytes;
            continue;
        }
        const auto unit = [&](char32_t value) {
            out += "\\u";
            for (int shift = 12; shift >= 0; shift -= 4)
                out += hex[value >> shift & 15];
        };
        if (code > 0xFFFF)
            unit(0xD800 + ((code - 0x10000) >> 10));
        unit(code > 0xFFFF ? 0xDC00 + (code & 0x3FF) : code);
    }
    return out;
}

/// Returns at most `most_bytes` of `text` in whole code points, with a space for each hidden one.
inline std::string sanitize(std::string_view text, std::size_t most_bytes) {
    std::string out;
    out.reserve(std::min(text.size(), most_bytes));
    while (!text.empty()) {
        const auto visible_ascii = [](char c) { return c >= ' ' && c <= '~'; };
        const auto run_end = std::find_if_not(text.begin(), text.end(), visible_ascii);
        const std::size_t run =
            std::min(static_cast<std::size_t>(run_end - text.begin()), most_bytes - out.size());
        out += text.substr(0, run);
        text.remove_prefix(run);
        if (text.empty() || visible_ascii(text[0]))
            break;
        auto [bytes, code, hidden] = take_code_point(text);
        if (hidden)
            bytes = " ";
        if (bytes.size() > most_bytes - out.size())
            break;
        out += bytes;
    }
    return out;
}

constexpr char ascii_lower(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return ascii_lower(x) == ascii_lower(y); });
}

constexpr std::string_view trim(std::string_view text) noexcept {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    return text.substr(0, text.find_last_not_of(" \t") + 1);
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
