#ifndef PROMPTLAYER_DETAIL_REDACTION_HPP
#define PROMPTLAYER_DETAIL_REDACTION_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <span>
#include <string>
#include <string_view>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns true if `text` contains a secret, as `redact` finds it.
PROMPTLAYER_DECL bool holds_secret(std::string_view text, std::span<const std::string_view> secrets);

/// Replaces each secret in `text` by `[redacted]`: in any case, as it is, percent-encoded, or with JSON's
/// escapes. The first 8 characters of a longer secret are enough; a shorter secret is found only as a whole
/// word. The returned text holds no secret: if the replacements form one, nothing of the text is left.
PROMPTLAYER_DECL std::string redact(std::string text, std::span<const std::string_view> secrets);

/// Does the same for one API key, which may have been read with a line break or a BOM.
PROMPTLAYER_DECL std::string redact(std::string text, std::string_view api_key);

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns the value of a hexadecimal digit; 16 for any other character.
constexpr unsigned hex_value(char c) noexcept {
    const char lower = ascii_lower(c);
    return c >= '0' && c <= '9'           ? static_cast<unsigned>(c - '0')
           : lower >= 'a' && lower <= 'f' ? static_cast<unsigned>(lower - 'a' + 10)
                                          : 16;
}

/// A character as text spells it: as it is, percent-encoded, or with an escape of JSON.
struct spelled_character {
    char character;
    std::size_t width; ///< in bytes
};

/// Returns the first character of `text`, which is not empty.
constexpr spelled_character spelled_at(std::string_view text) noexcept {
    const auto hex_digits = [&](std::size_t from, std::size_t count) {
        unsigned value = 0;
        for (std::size_t i = from; i < from + count; ++i) {
            const unsigned digit = i < text.size() ? hex_value(text[i]) : 16;
            if (digit == 16)
                return 0x100U;
            value = value * 16 + digit;
        }
        return value;
    };
    const unsigned code = text[0] == '%'            ? hex_digits(1, 2)
                          : text.starts_with("\\u") ? hex_digits(2, 4)
                                                    : 0x100;
    if (code < 0x80)
        return {static_cast<char>(code), text[0] == '%' ? 3U : 6U};
    if (text.size() > 1 && text[0] == '\\' && (text[1] == '"' || text[1] == '\\' || text[1] == '/'))
        return {text[1], 2};
    return {text[0], 1};
}

/// Finds one secret in text, as `redact` describes.
class secret_finder {
    static constexpr std::size_t min_prefix = 8;

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
        return spelled >= std::min(secret_.size(), min_prefix) ? used : 0;
    }

    /// Flags the bytes of a block that may equal `c`, in any case. May flag others, too.
    static std::uint64_t flag(word_block block, char c) noexcept {
        const std::uint64_t difference = (block.bits ^ word_block::repeat(static_cast<unsigned char>(c))) &
                                         word_block::repeat(0xDF); // without the bit that tells the case
        return (difference - word_block::repeat(1)) & ~difference & word_block::repeat(0x80);
    }

    static std::uint64_t flag_escapes(word_block block) noexcept {
        return flag(block, '%') | flag(block, '\\');
    }

    /// Skips places from `from` on where the secret, of two characters or more, does not begin. Stops within
    /// 8 bytes of the end.
    std::size_t skip(std::string_view text, std::size_t from) const noexcept {
        for (; text.size() - from > word_block::size; from += word_block::size) {
            const word_block block = word_block::load(text.data() + from);
            const word_block next = word_block::load(text.data() + from + 1);
            const std::uint64_t flags = flag_escapes(block) | (flag(block, secret_[0]) &
                                                               (flag(next, secret_[1]) | flag_escapes(next)));
            if (flags != 0)
                return from + static_cast<std::size_t>(std::countr_zero(flags)) / 8;
        }
        return from;
    }

    static constexpr bool is_word_character(char c) noexcept {
        return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || c == '_' ||
               c == '-' || static_cast<unsigned char>(c) >= 0x80;
    }

public:
    constexpr explicit secret_finder(std::string_view secret) noexcept : secret_(secret) {}

    /// Returns the first part of `text`, from `from` on, that spells the secret; empty if there is none.
    std::string_view find(std::string_view text, std::size_t from = 0) const noexcept {
        const char first = secret_.empty() ? '\0' : ascii_lower(secret_[0]);
        for (; !secret_.empty() && from < text.size(); ++from) {
            from = secret_.size() == 1 ? from : skip(text, from);
            const char c = text[from];
            if (c != '%' && c != '\\' && ascii_lower(c) != first)
                continue;
            const std::string_view rest = text.substr(from);
            const std::size_t size = std::max(spelled_by(rest, false), spelled_by(rest, true));
            if (size != 0 &&
                (secret_.size() >= min_prefix || ((from == 0 || !is_word_character(text[from - 1])) &&
                                                  (size == rest.size() || !is_word_character(rest[size])))))
                return rest.substr(0, size);
        }
        return text.substr(text.size());
    }
};

/// Returns the longest run of visible ASCII in an API key.
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

PROMPTLAYER_DECL bool holds_secret(std::string_view text, std::span<const std::string_view> secrets) {
    return std::any_of(secrets.begin(), secrets.end(),
                       [&](std::string_view secret) { return !secret_finder{secret}.find(text).empty(); });
}

PROMPTLAYER_DECL std::string redact(std::string text, std::span<const std::string_view> secrets) {
    if (!holds_secret(text, secrets))
        return text;
    constexpr std::string_view replacement = "[redacted]";
    const std::string_view mark = holds_secret(replacement, secrets) ? std::string_view{} : replacement;
    for (const std::string_view secret : secrets) {
        const secret_finder finder{secret};
        std::string out;
        std::size_t from = 0;
        for (std::string_view part; !(part = finder.find(text, from)).empty();) {
            const auto at = static_cast<std::size_t>(part.data() - text.data());
            out.append(text, from, at - from).append(mark);
            from = at + part.size();
        }
        text = out.append(text, from);
    }
    return holds_secret(text, secrets) ? std::string{mark} : text;
}

PROMPTLAYER_DECL std::string redact(std::string text, std::string_view api_key) {
    const std::string_view key = visible_run(api_key);
    return redact(std::move(text), std::span<const std::string_view>{&key, 1});
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
