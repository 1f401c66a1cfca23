#ifndef PROMPTLAYER_TEXT_HPP
#define PROMPTLAYER_TEXT_HPP

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
#include <utility>

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
inline bool all_plain(const char* p, std::size_t count) noexcept {
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
            if (detail::all_plain(p, count)) {
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
inline std::string escaped(std::string_view text, std::size_t most = 64) {
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
inline std::string readable(std::string_view text, std::size_t most_bytes) {
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

/// Returns the value of a hexadecimal digit; 16 if it is none.
constexpr unsigned hex_value(char c) noexcept {
    const char lower = ascii_lower(c);
    return c >= '0' && c <= '9'           ? static_cast<unsigned>(c - '0')
           : lower >= 'a' && lower <= 'f' ? static_cast<unsigned>(lower - 'a' + 10)
                                          : 16;
}

/// A character as text spells it: itself, percent-encoded, or with an escape of JSON.
struct spelled_character {
    char character;
    std::size_t width; ///< in bytes
};

/// Reads one character off `text`, which is not empty.
constexpr spelled_character spelled_at(std::string_view text) noexcept {
    const auto hex_digits = [&](std::size_t from, std::size_t count) {
        unsigned value = 0;
        for (std::size_t i = from; i < from + count; ++i) {
            const unsigned digit = i < text.size() ? hex_value(text[i]) : 16;
            if (digit == 16 || value > 0xFF)
                return 0x100u;
            value = value * 16 + digit;
        }
        return value;
    };
    const unsigned code = text[0] == '%'            ? hex_digits(1, 2)
                          : text.starts_with("\\u") ? hex_digits(2, 4)
                                                    : 0x100;
    if (code < 0x80)
        return {static_cast<char>(code), text[0] == '%' ? 3u : 6u};
    if (text.size() > 1 && text[0] == '\\' && (text[1] == '"' || text[1] == '\\' || text[1] == '/'))
        return {text[1], 2};
    return {text[0], 1};
}

/// Finds a secret in text, in any case, as it is, percent-encoded or with JSON's escapes. Of a secret of 8
/// characters and more, its first 8 are enough; a shorter one is found only where it stands alone.
class secret_finder {
    static constexpr std::size_t long_enough = 8;

    std::string_view secret_;

    /// Returns how many bytes at the beginning of `text` spell the secret; 0 if they do not.
    constexpr std::size_t spelled_by(std::string_view text, bool decode) const noexcept {
        std::size_t used = 0, spelled = 0;
        while (spelled < secret_.size() && used < text.size()) {
            const auto [character, width] =
                decode ? spelled_at(text.substr(used)) : spelled_character{text[used], 1};
            if (ascii_lower(character) != ascii_lower(secret_[spelled]))
                break;
            used += width;
            ++spelled;
        }
        return spelled >= std::min(secret_.size(), long_enough) ? used : 0;
    }

    static constexpr bool in_word(char c) noexcept {
        return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || c == '_' ||
               c == '-' || static_cast<unsigned char>(c) >= 0x80;
    }

public:
    constexpr explicit secret_finder(std::string_view secret) noexcept : secret_(secret) {}

    /// Returns the part of `text` that spells the secret, from `from` on; empty if there is none.
    constexpr std::string_view find(std::string_view text, std::size_t from = 0) const noexcept {
        for (; !secret_.empty() && from < text.size(); ++from) {
            if (ascii_lower(text[from]) != ascii_lower(secret_[0]) && text[from] != '%' && text[from] != '\\')
                continue;
            const std::string_view rest = text.substr(from);
            const std::size_t size = std::max(spelled_by(rest, false), spelled_by(rest, true));
            if (size != 0 &&
                (secret_.size() >= long_enough ||
                 ((from == 0 || !in_word(text[from - 1])) && (size == rest.size() || !in_word(rest[size])))))
                return rest.substr(0, size);
        }
        return text.substr(text.size());
    }
};

/// Returns the longest run of visible ASCII in a key, which may have been read with a line break or a BOM.
constexpr std::string_view visible_run(std::string_view key) noexcept {
    std::string_view longest;
    while (!key.empty()) {
        const auto end = std::find_if_not(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
        const std::string_view run = key.substr(0, static_cast<std::size_t>(end - key.begin()));
        longest = run.size() > longest.size() ? run : longest;
        key.remove_prefix(std::min(run.size() + 1, key.size()));
    }
    return longest;
}

/// Returns `text` with `[redacted]` in place of each secret, as `secret_finder` finds it. `for_each_secret`
/// calls what it is given with each. The text that is returned holds no secret: if the replacements form one,
/// the whole text is dropped.
template <class ForEachT>
std::string redact_each(std::string text, ForEachT&& for_each_secret) {
    const auto holds_secret = [&](std::string_view shown) {
        bool holds = false;
        for_each_secret(
            [&](std::string_view secret) { holds = holds || !secret_finder{secret}.find(shown).empty(); });
        return holds;
    };
    if (!holds_secret(text))
        return text;
    constexpr std::string_view replacement = "[redacted]";
    const std::string_view mark = holds_secret(replacement) ? std::string_view{} : replacement;
    for_each_secret([&](std::string_view secret) {
        const secret_finder finder{secret};
        std::string out;
        std::size_t from = 0;
        for (std::string_view found; !(found = finder.find(text, from)).empty();) {
            const auto at = static_cast<std::size_t>(found.data() - text.data());
            out.append(text, from, at - from).append(mark);
            from = at + found.size();
        }
        text = out.append(text, from);
    });
    return holds_secret(text) ? std::string{mark} : text;
}

/// The same for one secret.
inline std::string redacted(std::string text, std::string_view secret) {
    return redact_each(std::move(text), [=](auto action) { action(visible_run(secret)); });
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
