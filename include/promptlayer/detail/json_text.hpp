#ifndef PROMPTLAYER_DETAIL_JSON_TEXT_HPP
#define PROMPTLAYER_DETAIL_JSON_TEXT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <bit>
#include <string>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

enum class json_text_error { none, malformed, utf8, max_depth };

/// The result of `check_json_object`.
struct json_text_check {
    json_text_error error = json_text_error::none; ///< `utf8` only within a string
    std::size_t offset = 0;                        ///< of the error in bytes; without one, of the end
};

/// Returns the end of the run of ASCII at `p` that JSON writes without escapes.
PROMPTLAYER_DECL const char* skip_plain_ascii(const char* p, const char* end) noexcept;

/// Reads JSON text from `p` on. A `take` function moves `p` past what it names and returns true; otherwise it
/// returns false, and `p` is at the error.
struct json_text_reader {
    const char* p;
    const char* const end;
    json_text_error error = json_text_error::malformed; ///< if a `take` function returns false

    constexpr explicit json_text_reader(std::string_view text) noexcept
        : p(text.data()), end(text.data() + text.size()) {}

    constexpr bool at(char first, char last) const noexcept { return p != end && *p >= first && *p <= last; }

    constexpr bool take(std::string_view token) noexcept {
        const bool is_next = std::string_view{p, static_cast<std::size_t>(end - p)}.starts_with(token);
        p += is_next ? token.size() : 0;
        return is_next;
    }

    constexpr bool take(char c) noexcept {
        if (!at(c, c))
            return false;
        ++p;
        return true;
    }

    constexpr void skip_space() noexcept {
        while (p != end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
            ++p;
    }

    constexpr bool take_digits() noexcept {
        const char* const first = p;
        while (at('0', '9'))
            ++p;
        return p != first;
    }

    constexpr bool take_number() noexcept {
        const char* const first = p;
        take('-');
        if ((!take('0') && !take_digits()) || (take('.') && !take_digits()))
            return false;
        // Boost.JSON rejects an exponent if 32 bits cannot hold it together with the digits that it shifts.
        // This bound is simpler, and rejects a few more exponents near it.
        const std::int64_t max_exponent = 0x7FFFFFFF - (p - first - 1);
        if (!take('e') && !take('E'))
            return true;
        if (!take('+'))
            take('-');
        const char* const digits = p;
        for (std::int64_t exponent = 0; at('0', '9'); ++p) {
            exponent = exponent * 10 + (*p - '0');
            if (exponent > max_exponent)
                return false;
        }
        return p != digits;
    }

    constexpr bool take_hex(unsigned& unit) noexcept {
        unit = 0;
        for (int i = 0; i < 4; ++i, ++p) {
            constexpr std::string_view digits = "0123456789abcdef";
            const std::size_t digit = p == end ? digits.npos : digits.find(ascii_lower(*p));
            if (digit == digits.npos)
                return false;
            unit = unit << 4 | static_cast<unsigned>(digit);
        }
        return true;
    }

    /// Takes the rest of an escape, after its backslash. Surrogates must be pairs.
    constexpr bool take_escape() noexcept {
        unsigned unit = 0, low = 0;
        if (take('u'))
            return take_hex(unit) &&
                   (unit < 0xD800 || unit > 0xDFFF ||
                    (unit < 0xDC00 && take("\\u") && take_hex(low) && low >= 0xDC00 && low <= 0xDFFF));
        return p != end && std::string_view{"\"\\/bfnrt"}.find(*p++) != std::string_view::npos;
    }

    constexpr bool take_string() noexcept {
        if (!take('"'))
            return false;
        for (;;) {
            if (!std::is_constant_evaluated())
                p = skip_plain_ascii(p, end);
            if (take('"'))
                return true;
            const char* const first = p;
            if (p == end || static_cast<unsigned char>(*p) < 0x20)
                return false;
            if (take('\\')) {
                if (!take_escape()) {
                    p = first;
                    return false;
                }
            } else if (const std::size_t length = sequence_length(p, end); length == 0) {
                error = json_text_error::utf8;
                return false;
            } else {
                p += length;
            }
        }
    }

    /// Takes the text before a member's value.
    constexpr bool take_name(std::string_view& name) noexcept {
        const char* const first = p;
        if (!take_string())
            return false;
        name = {first + 1, static_cast<std::size_t>(p - first - 2)};
        skip_space();
        const bool is_name = take(':');
        skip_space();
        return is_name;
    }

    /// Takes an object or array. Calls `take_member(index, name)` at each value: with its position from 0,
    /// and its name as written between the quotes, which is empty in an array. It takes the value.
    template <class TakeT>
    constexpr bool take_members(TakeT&& take_member) {
        const bool is_object = take('{');
        if (!is_object && !take('['))
            return false;
        const char close = is_object ? '}' : ']';
        skip_space();
        if (take(close))
            return true;
        std::size_t index = 0;
        do {
            skip_space();
            std::string_view name;
            if ((is_object && !take_name(name)) || !take_member(index++, name))
                return false;
            skip_space();
        } while (take(','));
        return take(close);
    }

    /// Calls itself for nested values, at most `max_depth` deep.
    constexpr bool take_value(std::size_t max_depth) noexcept {
        if (at('"', '"'))
            return take_string();
        if (at('-', '-') || at('0', '9'))
            return take_number();
        if (!at('{', '{') && !at('[', '['))
            return take("true") || take("false") || take("null");
        if (max_depth == 0) {
            error = json_text_error::max_depth;
            return false;
        }
        return take_members([&](std::size_t, std::string_view) { return take_value(max_depth - 1); });
    }

    /// Sets `value` to the text of the value, which has no white space around it.
    constexpr bool take_value(std::size_t max_depth, std::string_view& value) noexcept {
        const char* const first = p;
        const bool is_taken = take_value(max_depth);
        value = {first, static_cast<std::size_t>(p - first)};
        return is_taken;
    }
};

/// Checks that `text` is one JSON object, with white space around it or none. Objects and arrays may nest
/// `max_depth` deep; the object itself counts. Accepts what Boost.JSON's parser accepts: surrogates
/// must be pairs, an exponent must fit 32 bits with its digits, names may repeat. Linear; no allocation; the
/// stack grows by depth.
constexpr json_text_check check_json_object(std::string_view text, std::size_t max_depth) noexcept {
    json_text_reader reader{text};
    reader.skip_space();
    const bool is_object = reader.at('{', '{') && reader.take_value(max_depth);
    if (is_object)
        reader.skip_space();
    return {is_object && reader.p == reader.end ? json_text_error::none : reader.error,
            static_cast<std::size_t>(reader.p - text.data())};
}

/// Calls `visit(index, name, value)` for each member of an object, or item of an array, that a parser
/// accepted: index and name as for `take_members`, and the text of the value. The views refer to `text`.
template <class VisitT>
constexpr void for_each_json_member(std::string_view text, VisitT&& visit) {
    json_text_reader reader{text};
    reader.skip_space();
    reader.take_members([&](std::size_t index, std::string_view name) {
        std::string_view value;
        const bool is_taken = reader.take_value(text.size(), value);
        if (is_taken)
            visit(index, name, value);
        return is_taken;
    });
}

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL const char* skip_plain_ascii(const char* p, const char* end) noexcept {
    constexpr std::ptrdiff_t word_size = word_block::size, vector_size = vector_block::size;
    while (end - p >= word_size) { // most names are short
        const std::uint64_t flags = word_block::load(p).special().bits & word_block::repeat(0x80);
        if (flags != 0)
            return p + std::countr_zero(flags) / 8;
        p += word_size;
        while (end - p >= vector_size && !vector_block::load(p).special().any())
            p += vector_size;
    }
    while (p != end && static_cast<unsigned char>(*p) < 0x80 && json_length(*p) == 1)
        ++p;
    return p;
}

#endif

/// Returns the text of the last member that has this name, escaped or not; empty if there is none. `object`
/// is text that a parser accepted.
PROMPTLAYER_DECL std::string_view find_json_member(std::string_view object, std::string_view name);

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns the text of a valid JSON string, which is given without its quotes.
inline std::string unescape(std::string_view escaped) {
    std::string text;
    for (json_text_reader reader{escaped}; reader.p != reader.end;) {
        if (!reader.take('\\')) {
            text += *reader.p++;
            continue;
        }
        if (!reader.take('u')) {
            constexpr std::string_view letters = "bfnrt", controls = "\b\f\n\r\t";
            const char c = *reader.p++;
            const std::size_t control = letters.find(c);
            text += control == letters.npos ? c : controls[control];
            continue;
        }
        unsigned code = 0, low = 0;
        reader.take_hex(code);
        if (code >= 0xD800 && code <= 0xDBFF && reader.take("\\u") && reader.take_hex(low))
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        constexpr unsigned char leads[] = {0, 0xC0, 0xE0, 0xF0};
        int following = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3; // bytes of UTF-8
        text += static_cast<char>(leads[following] | code >> 6 * following);
        while (--following >= 0)
            text += static_cast<char>(0x80 | (code >> 6 * following & 0x3F));
    }
    return text;
}

/// Returns the text of a JSON string that is given without its quotes: `escaped` itself, or `buffer`.
inline std::string_view text_of(std::string_view escaped, std::string& buffer) {
    if (escaped.find('\\') == escaped.npos)
        return escaped;
    return buffer = unescape(escaped);
}

PROMPTLAYER_DECL std::string_view find_json_member(std::string_view object, std::string_view name) {
    std::string_view found;
    std::string buffer;
    for_each_json_member(object, [&](std::size_t, std::string_view member, std::string_view value) {
        if (text_of(member, buffer) == name)
            found = value;
    });
    return found;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
