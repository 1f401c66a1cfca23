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
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <iterator>
#if defined(PROMPTLAYER_NO_SIMD)
#elif defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The result of `scan`.
struct text_scan {
    bool valid_utf8 = true;      ///< by RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF
    std::size_t code_points = 0; ///< up to the first invalid byte; JSON Schema's measure of length
    std::size_t json_bytes = 0;  ///< size between the quotes in JSON, with invalid bytes as they are
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

/// Scans one code point after the other.
constexpr text_scan scan_code_points(std::string_view text) noexcept {
    text_scan scanned;
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p != end;) {
        const std::size_t length = sequence_length(p, end);
        if (length == 0 && scanned.valid_utf8) {
            scanned.valid_utf8 = false;
            scanned.invalid_at = static_cast<std::size_t>(p - text.data());
        }
        scanned.code_points += scanned.valid_utf8 ? 1 : 0;
        scanned.json_bytes += length == 1 ? json_length(*p) : length == 0 ? 1 : length;
        p += length == 0 ? 1 : length;
    }
    return scanned;
}

/// Does the same in blocks.
PROMPTLAYER_DECL text_scan scan_blocks(std::string_view text) noexcept;

/// Scans a string. Linear, no allocation.
constexpr text_scan scan(std::string_view text) noexcept {
    return std::is_constant_evaluated() ? scan_code_points(text) : scan_blocks(text);
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

/// A block of 8 bytes, the first in the lowest bits. Functions that compare bytes return flags: bit 7 of each
/// byte; the other bits of flags mean nothing.
struct word_block {
    static constexpr std::size_t size = 8;

    std::uint64_t bits = 0;

    static constexpr std::uint64_t repeat(unsigned byte) noexcept {
        return std::uint64_t{0x0101010101010101} * byte;
    }

    /// Loads `count` bytes, at most 8; the others are 0.
    static word_block load(const char* p, std::size_t count) noexcept {
        word_block block;
        for (std::size_t i = 0; i < count; ++i)
            block.bits |= std::uint64_t{static_cast<unsigned char>(p[i])} << 8 * i;
        return block;
    }

    static word_block load(const char* p) noexcept {
        if constexpr (std::endian::native != std::endian::little)
            return load(p, size);
        word_block block;
        std::memcpy(&block.bits, p, size);
        return block;
    }

    /// Flags bytes of at least `limit`, which is 0x80 to 0xFF.
    word_block at_least(unsigned limit) const noexcept {
        return {bits & ((bits & repeat(0x7F)) + repeat(0x100 - limit))};
    }

    /// Flags bytes that equal `byte`, which is 0x80 to 0xFE.
    word_block equals(unsigned byte) const noexcept { return without(at_least(byte), at_least(byte + 1)); }

    /// Flags quotes, backslashes and control characters.
    word_block escaped() const noexcept {
        const auto differs = [&](unsigned char c) {
            const std::uint64_t difference = bits ^ repeat(c);
            return ((difference & repeat(0x7F)) + repeat(0x7F)) | difference;
        };
        return {~(differs('"') & differs('\\') & (bits | bits << 1 | bits << 2))};
    }

    /// Flags bytes that are not ASCII, too.
    word_block special() const noexcept { return *this | escaped(); }

    /// Returns the `N` last bytes of `before`, then the first of this block.
    template <int N>
    word_block after(word_block before) const noexcept {
        return {bits << 8 * N | before.bits >> (64 - 8 * N)};
    }

    bool any() const noexcept { return (bits & repeat(0x80)) != 0; }

    /// Adds one to each byte that `flags` flags.
    void add(word_block flags) noexcept { bits += flags.bits >> 7 & repeat(1); }

    /// Returns the sum of all bytes.
    std::size_t sum() const noexcept {
        constexpr std::uint64_t even = 0x00FF00FF00FF00FF, ones = 0x0001000100010001;
        return static_cast<std::uint32_t>(((bits & even) + (bits >> 8 & even)) * ones >> 48);
    }

    friend word_block operator&(word_block a, word_block b) noexcept { return {a.bits & b.bits}; }
    friend word_block operator|(word_block a, word_block b) noexcept { return {a.bits | b.bits}; }
    friend word_block operator^(word_block a, word_block b) noexcept { return {a.bits ^ b.bits}; }
    friend word_block without(word_block a, word_block b) noexcept { return {a.bits & ~b.bits}; }
};

#if defined(PROMPTLAYER_NO_SIMD)

using vector_block = word_block;

#elif defined(__SSE2__) || defined(_M_X64)

/// A block of 16 bytes; see `word_block`.
struct vector_block {
    static constexpr std::size_t size = 16;

    __m128i bits = _mm_setzero_si128();

    static __m128i repeat(unsigned byte) noexcept { return _mm_set1_epi8(static_cast<char>(byte)); }

    static vector_block load(const char* p) noexcept {
        return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))};
    }

    vector_block at_least(unsigned limit) const noexcept {
        return {_mm_subs_epu8(bits, repeat(limit - 0x80))};
    }
    vector_block equals(unsigned byte) const noexcept { return {_mm_cmpeq_epi8(bits, repeat(byte))}; }

    vector_block escaped() const noexcept {
        return {
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bits, repeat('"')), _mm_cmpeq_epi8(bits, repeat('\\'))),
                         _mm_cmpeq_epi8(_mm_min_epu8(bits, repeat(0x1F)), bits))};
    }

    vector_block special() const noexcept { return *this | escaped(); }

    template <int N>
    vector_block after(vector_block before) const noexcept {
        return {_mm_or_si128(_mm_slli_si128(bits, N), _mm_srli_si128(before.bits, 16 - N))};
    }

    bool any() const noexcept { return _mm_movemask_epi8(bits) != 0; }

    void add(vector_block flags) noexcept {
        bits = _mm_add_epi8(bits, _mm_and_si128(_mm_srli_epi16(flags.bits, 7), repeat(1)));
    }
    std::size_t sum() const noexcept {
        const __m128i sums = _mm_sad_epu8(bits, _mm_setzero_si128());
        return static_cast<std::size_t>(_mm_cvtsi128_si32(sums) +
                                        _mm_cvtsi128_si32(_mm_unpackhi_epi64(sums, sums)));
    }

    friend vector_block operator&(vector_block a, vector_block b) noexcept {
        return {_mm_and_si128(a.bits, b.bits)};
    }
    friend vector_block operator|(vector_block a, vector_block b) noexcept {
        return {_mm_or_si128(a.bits, b.bits)};
    }
    friend vector_block operator^(vector_block a, vector_block b) noexcept {
        return {_mm_xor_si128(a.bits, b.bits)};
    }
    friend vector_block without(vector_block a, vector_block b) noexcept {
        return {_mm_andnot_si128(b.bits, a.bits)};
    }
};

#elif defined(__aarch64__) || defined(_M_ARM64)

/// A block of 16 bytes; see `word_block`.
struct vector_block {
    static constexpr std::size_t size = 16;

    uint8x16_t bits = vdupq_n_u8(0);

    static uint8x16_t repeat(unsigned byte) noexcept { return vdupq_n_u8(static_cast<std::uint8_t>(byte)); }

    static vector_block load(const char* p) noexcept {
        return {vld1q_u8(reinterpret_cast<const std::uint8_t*>(p))};
    }

    vector_block at_least(unsigned limit) const noexcept { return {vqsubq_u8(bits, repeat(limit - 0x80))}; }
    vector_block equals(unsigned byte) const noexcept { return {vceqq_u8(bits, repeat(byte))}; }

    vector_block escaped() const noexcept {
        return {vorrq_u8(vorrq_u8(vceqq_u8(bits, repeat('"')), vceqq_u8(bits, repeat('\\'))),
                         vcltq_u8(bits, repeat(0x20)))};
    }

    vector_block special() const noexcept { return *this | escaped(); }

    template <int N>
    vector_block after(vector_block before) const noexcept {
        return {vextq_u8(before.bits, bits, 16 - N)};
    }

    bool any() const noexcept { return vmaxvq_u8(bits) >= 0x80; }
    void add(vector_block flags) noexcept { bits = vaddq_u8(bits, vshrq_n_u8(flags.bits, 7)); }
    std::size_t sum() const noexcept { return vaddlvq_u8(bits); }

    friend vector_block operator&(vector_block a, vector_block b) noexcept {
        return {vandq_u8(a.bits, b.bits)};
    }
    friend vector_block operator|(vector_block a, vector_block b) noexcept {
        return {vorrq_u8(a.bits, b.bits)};
    }
    friend vector_block operator^(vector_block a, vector_block b) noexcept {
        return {veorq_u8(a.bits, b.bits)};
    }
    friend vector_block without(vector_block a, vector_block b) noexcept {
        return {vbicq_u8(a.bits, b.bits)};
    }
};

#else

using vector_block = word_block;

#endif

/// Flags the bytes of `block` at which UTF-8 is broken; `before` is the block before. Each byte has to be a
/// continuation if one of the three before it begins a sequence that is long enough, and nothing else.
template <class BlockT>
inline BlockT utf8_errors(BlockT block, BlockT before) noexcept {
    const BlockT first = block.template after<1>(before);
    const BlockT leads = block.at_least(0xC0);
    const BlockT expected = first.at_least(0xC0), continuations = without(block, leads);
    const BlockT overlong = without(leads, block.at_least(0xC2));
    if (!(block.at_least(0xE0) | before.at_least(0xE0)).any())
        return (expected ^ continuations) | overlong; // sequences of two bytes, as in European languages
    const BlockT second = block.template after<2>(before), third = block.template after<3>(before);
    const BlockT from_90 = block.at_least(0x90), from_a0 = block.at_least(0xA0);
    return ((expected | second.at_least(0xE0) | third.at_least(0xF0)) ^ continuations) | overlong |
           without(first.equals(0xE0), from_a0) | (first.equals(0xED) & from_a0) |
           without(first.equals(0xF0), from_90) | (first.equals(0xF4) & from_90) | block.at_least(0xF5);
}

/// A byte as JSON writes it in a string: of a sequence of several bytes, each stays as it is.
struct escaped_byte {
    char text[7];
    unsigned char size;
};

inline constexpr auto escape_table = [] {
    constexpr char hex[] = "0123456789abcdef", controls[] = "btn?fr";
    std::array<escaped_byte, 256> table{};
    for (unsigned i = 0; i < 256; ++i) {
        const char c = static_cast<char>(i);
        escaped_byte& entry = table[i];
        entry.size = static_cast<unsigned char>(i < 0x80 ? json_length(c) : 1);
        if (entry.size == 1)
            entry.text[0] = c;
        else if (entry.size == 2)
            entry = {{'\\', i >= '\b' && i <= '\r' ? controls[i - '\b'] : c}, 2};
        else
            entry = {{'\\', 'u', '0', '0', hex[i >> 4], hex[i & 15]}, 6};
    }
    return table;
}();

template <class BlockT>
bool copy_plain_blocks(std::string_view text, char* out) noexcept {
    const std::size_t last = text.size() - BlockT::size; // may overlap the block before
    BlockT flags;
    for (std::size_t i = 0;; i = std::min(i + BlockT::size, last)) {
        const BlockT block = BlockT::load(text.data() + i);
        flags = flags | block.special();
        std::memcpy(out + i, text.data() + i, BlockT::size);
        if (i == last)
            return !flags.any();
    }
}

/// Copies a short text to `out` and returns true if it is ASCII without escapes.
inline bool copy_plain(std::string_view text, char* out) noexcept {
    if (text.size() >= vector_block::size)
        return copy_plain_blocks<vector_block>(text, out);
    if (text.size() >= word_block::size)
        return copy_plain_blocks<word_block>(text, out);
    bool is_plain = true;
    for (const char c : text) {
        is_plain &= static_cast<signed char>(c) >= 0 && escape_table[static_cast<unsigned char>(c)].size == 1;
        *out++ = c;
    }
    return is_plain;
}

/// Writes text as JSON writes it between quotes, and scans it in the same pass. Takes pieces of the text, so
/// that they fit into a buffer of fixed size.
class text_escaper {
    std::string_view text_;
    std::size_t position_ = 0; // of the next piece
    std::size_t continuations_ = 0, json_bytes_ = 0;
    bool valid_utf8_ = true;

    /// Writes `count` bytes; may write up to 8 more.
    static char* write_bytes(const char* p, std::size_t count, char* out) noexcept {
        for (std::size_t i = 0; i < count; ++i) {
            const escaped_byte& entry = escape_table[static_cast<unsigned char>(p[i])];
            std::memcpy(out, &entry, sizeof entry);
            out += entry.size;
        }
        return out;
    }

    /// Returns the block before the next one.
    template <class BlockT>
    BlockT before() const noexcept {
        return position_ == 0 ? BlockT{} : BlockT::load(text_.data() + position_ - BlockT::size);
    }

    /// Writes the whole blocks between `position_` and `end`.
    template <class BlockT>
    char* write_blocks(std::size_t end, char* out) noexcept {
        std::size_t count = (end - position_) / BlockT::size;
        if (count == 0)
            return out;
        BlockT last = before<BlockT>(), errors, continuations;
        int to_check = 0; // blocks; several at a time, because text is seldom ASCII in parts only
        const char* p = text_.data() + position_;
        for (; count != 0; --count) {
            const BlockT block = BlockT::load(p);
            if ((block | last).any())
                to_check = 4;
            if (to_check != 0) {
                --to_check;
                continuations.add(without(block, block.at_least(0xC0)));
                errors = errors | utf8_errors(block, last);
            }
            if (block.escaped().any()) {
                out = write_bytes(p, BlockT::size, out);
            } else {
                std::memcpy(out, p, BlockT::size);
                out += BlockT::size;
            }
            last = block;
            p += BlockT::size;
        }
        position_ = static_cast<std::size_t>(p - text_.data());
        continuations_ += continuations.sum();
        valid_utf8_ = valid_utf8_ && !errors.any();
        return out;
    }

public:
    static constexpr std::size_t max_piece = 512;
    static constexpr std::size_t max_escaped_piece = 6 * max_piece + 8;

    explicit text_escaper(std::string_view text) noexcept : text_(text) {}

    /// Writes the next piece to `out`, which has room for `max_escaped_piece`, and returns the end.
    char* write_piece(char* const out) noexcept {
        const std::size_t piece_end = std::min(position_ + max_piece, text_.size());
        char* end = write_blocks<vector_block>(piece_end, out);
        end = write_blocks<word_block>(piece_end, end);
        if (piece_end == text_.size()) { // also if nothing is left: the last sequence may be cut
            const std::size_t rest = piece_end - position_;
            const auto block = word_block::load(text_.data() + position_, rest), last = before<word_block>();
            if ((block | last).any()) {
                word_block continuations;
                continuations.add(without(block, block.at_least(0xC0)));
                continuations_ += continuations.sum();
                valid_utf8_ = valid_utf8_ && !utf8_errors(block, last).any();
            }
            end = write_bytes(text_.data() + position_, rest, end);
            position_ = piece_end;
        }
        json_bytes_ += static_cast<std::size_t>(end - out);
        return end;
    }

    /// Returns true if all of the text is written.
    bool is_finished() const noexcept { return position_ == text_.size(); }

    /// Returns the scan of a text that is finished.
    text_scan scan() const noexcept {
        if (!valid_utf8_)
            return scan_code_points(text_); // finds the place
        return {.code_points = text_.size() - continuations_, .json_bytes = json_bytes_};
    }
};

PROMPTLAYER_DECL text_scan scan_blocks(std::string_view text) noexcept {
    char unused[text_escaper::max_escaped_piece];
    if (text.size() <= text_escaper::max_piece && copy_plain(text, unused))
        return {.code_points = text.size(), .json_bytes = text.size()};
    text_escaper escaper{text};
    do
        escaper.write_piece(unused);
    while (!escaper.is_finished());
    return escaper.scan();
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
