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

/// A block of 8 bytes, the first in the lowest bits. Functions that test bytes return flags: bit 7 of each
/// byte; the other bits of flags mean nothing.
struct word_block {
    static constexpr std::size_t size = 8;
    static constexpr int flag_distance = 8; ///< between two bits of `mask`

    std::uint64_t bits = 0;

    static constexpr std::uint64_t repeat(unsigned byte) noexcept {
        return std::uint64_t{0x0101010101010101} * byte;
    }

    template <class WordT>
    static std::uint64_t read(const char* p) noexcept {
        WordT value = 0;
        if constexpr (std::endian::native == std::endian::little) {
            std::memcpy(&value, p, sizeof value);
        } else {
            for (std::size_t i = 0; i < sizeof value; ++i)
                value |= WordT{static_cast<unsigned char>(p[i])} << 8 * i;
        }
        return value;
    }

    static word_block load(const char* p) noexcept { return {read<std::uint64_t>(p)}; }

    /// Loads `count` bytes, 1 to 8. The others are spaces.
    static word_block load(const char* p, std::size_t count) noexcept {
        const std::uint64_t spaces = count == size ? 0 : repeat(' ') << 8 * count;
        if (count >= 4)
            return {spaces | read<std::uint32_t>(p) | read<std::uint32_t>(p + count - 4) << 8 * (count - 4)};
        return {spaces | read<std::uint8_t>(p) | read<std::uint8_t>(p + count / 2) << 8 * (count / 2) |
                read<std::uint8_t>(p + count - 1) << 8 * (count - 1)};
    }

    void store(char* out) const noexcept {
        if constexpr (std::endian::native == std::endian::little) {
            std::memcpy(out, &bits, size);
        } else {
            for (std::size_t i = 0; i < size; ++i)
                out[i] = static_cast<char>(bits >> 8 * i);
        }
    }

    /// Flags bytes of at least `limit`, which is 0x80 to 0xFF.
    word_block at_least(unsigned limit) const noexcept {
        switch (limit) {
        case 0xC0: return {bits & bits << 1};
        case 0xE0: return {bits & bits << 1 & bits << 2};
        case 0xF0: return {bits & bits << 1 & bits << 2 & bits << 3};
        default: return {bits & ((bits & repeat(0x7F)) + repeat(0x100 - limit))};
        }
    }

    word_block equals(unsigned byte) const noexcept {
        const std::uint64_t difference = bits ^ repeat(byte);
        return {~(((difference & repeat(0x7F)) + repeat(0x7F)) | difference)};
    }

    /// Flags bytes from 0x80 to 0xBF.
    word_block continuations() const noexcept { return {bits & ~(bits << 1)}; }

    /// Flags quotes, backslashes, control characters and bytes that are not ASCII.
    word_block special() const noexcept {
        const auto seven_bits = [](std::uint64_t value) { return value & repeat(0x7F); };
        const std::uint64_t above_quote =
            seven_bits(bits ^ repeat(2)) + repeat(0x80 - 0x21); // '"' ^ 2 == ' '
        const std::uint64_t no_backslash = seven_bits(bits ^ repeat('\\')) + repeat(0x7F);
        return {bits | ~(above_quote & no_backslash)};
    }

    /// Flags quotes, backslashes and control characters.
    word_block escaped() const noexcept { return without(special(), *this); }

    /// Returns the `N` last bytes of `before`, then the first of this block.
    template <int N>
    word_block after(word_block before) const noexcept {
        return {bits << 8 * N | before.bits >> (64 - 8 * N)};
    }

    /// Returns one bit for each flag, the lowest for the first byte.
    std::uint64_t mask() const noexcept { return bits & repeat(0x80); }
    bool any() const noexcept { return mask() != 0; }

    /// Adds one to each byte that `flags` flags, which `continuations` returned.
    void count(word_block flags) noexcept { bits += flags.bits >> 7 & repeat(1); }

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
    static constexpr int flag_distance = 1;

    __m128i bits = _mm_setzero_si128();

    static __m128i repeat(unsigned byte) noexcept { return _mm_set1_epi8(static_cast<char>(byte)); }

    static vector_block load(const char* p) noexcept {
        return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))};
    }
    static vector_block load(word_block low, word_block high) noexcept {
        return {_mm_set_epi64x(static_cast<std::int64_t>(high.bits), static_cast<std::int64_t>(low.bits))};
    }
    void store(char* out) const noexcept { _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bits); }

    vector_block at_least(unsigned limit) const noexcept {
        return {_mm_subs_epu8(bits, repeat(limit - 0x80))};
    }
    vector_block equals(unsigned byte) const noexcept { return {_mm_cmpeq_epi8(bits, repeat(byte))}; }
    vector_block continuations() const noexcept { return {_mm_cmplt_epi8(bits, repeat(0xC0))}; }

    vector_block special() const noexcept { // a signed byte that is not ASCII is negative
        return {_mm_or_si128(_mm_cmplt_epi8(_mm_xor_si128(bits, repeat(2)), repeat(0x21)),
                             _mm_cmpeq_epi8(bits, repeat('\\')))};
    }
    vector_block escaped() const noexcept { return without(special(), *this); }

    template <int N>
    vector_block after(vector_block before) const noexcept {
        return {_mm_or_si128(_mm_slli_si128(bits, N), _mm_srli_si128(before.bits, 16 - N))};
    }

    std::uint64_t mask() const noexcept { return static_cast<unsigned>(_mm_movemask_epi8(bits)); }
    bool any() const noexcept { return mask() != 0; }

    void count(vector_block flags) noexcept { bits = _mm_sub_epi8(bits, flags.bits); }
    std::size_t sum() const noexcept {
        const __m128i sums = _mm_sad_epu8(bits, _mm_setzero_si128());
        return static_cast<std::size_t>(_mm_cvtsi128_si32(sums)) +
               static_cast<std::size_t>(_mm_cvtsi128_si32(_mm_unpackhi_epi64(sums, sums)));
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
    static constexpr int flag_distance = 4;

    uint8x16_t bits = vdupq_n_u8(0);

    static uint8x16_t repeat(unsigned byte) noexcept { return vdupq_n_u8(static_cast<std::uint8_t>(byte)); }

    static vector_block load(const char* p) noexcept {
        return {vld1q_u8(reinterpret_cast<const std::uint8_t*>(p))};
    }
    static vector_block load(word_block low, word_block high) noexcept {
        return {vcombine_u8(vcreate_u8(low.bits), vcreate_u8(high.bits))};
    }
    void store(char* out) const noexcept { vst1q_u8(reinterpret_cast<std::uint8_t*>(out), bits); }

    vector_block at_least(unsigned limit) const noexcept { return {vqsubq_u8(bits, repeat(limit - 0x80))}; }
    vector_block equals(unsigned byte) const noexcept { return {vceqq_u8(bits, repeat(byte))}; }
    vector_block continuations() const noexcept {
        return {vcltq_s8(vreinterpretq_s8_u8(bits), vreinterpretq_s8_u8(repeat(0xC0)))};
    }

    vector_block special() const noexcept { // a signed byte that is not ASCII is negative
        return {vorrq_u8(vcltq_s8(vreinterpretq_s8_u8(veorq_u8(bits, repeat(2))), vdupq_n_s8(0x21)),
                         vceqq_u8(bits, repeat('\\')))};
    }
    vector_block escaped() const noexcept { return without(special(), *this); }

    template <int N>
    vector_block after(vector_block before) const noexcept {
        return {vextq_u8(before.bits, bits, 16 - N)};
    }

    std::uint64_t mask() const noexcept {
        const int8x16_t whole = vshrq_n_s8(vreinterpretq_s8_u8(bits), 7); // each byte is 0 or 0xFF
        const uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_s8(whole), 4);
        return vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x8888888888888888;
    }
    bool any() const noexcept { return vmaxvq_u8(bits) >= 0x80; }
    void count(vector_block flags) noexcept { bits = vsubq_u8(bits, flags.bits); }
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

/// Loads the first `count` bytes of a block, 1 or more. The others are spaces.
template <class BlockT>
BlockT load_part(const char* p, std::size_t count) noexcept {
    if constexpr (std::is_same_v<BlockT, word_block>)
        return word_block::load(p, count);
    else if (count > word_block::size)
        return BlockT::load(word_block::load(p),
                            word_block::load(p + word_block::size, count - word_block::size));
    else
        return BlockT::load(word_block::load(p, count), {word_block::repeat(' ')});
}

/// Checks UTF-8 and counts continuations, block by block.
template <class BlockT>
struct utf8_checker {
    BlockT suspects{};      ///< flags bytes at which UTF-8 is broken; also each byte of at least 0xF4
    BlockT continuations{}; ///< their number at each place

    /// Checks a block of a text without sequences of more than two bytes. `first` is the text from one byte
    /// before. Each byte has to be a continuation if the one before it begins a sequence, and nothing else.
    void check_short(BlockT block, BlockT first) noexcept { add(block, first, first.at_least(0xC0)); }

    /// Checks a block of any text; `second` and `third` are the text from two and three bytes before.
    void check(BlockT block, BlockT first, BlockT second, BlockT third) noexcept {
        const BlockT from_90 = block.at_least(0x90), from_a0 = block.at_least(0xA0);
        add(block, first, first.at_least(0xC0) | second.at_least(0xE0) | third.at_least(0xF0));
        suspects = suspects | without(first.equals(0xE0), from_a0) | (first.equals(0xED) & from_a0) |
                   without(first.equals(0xF0), from_90) | block.at_least(0xF4);
    }

    /// The same with `before`, the block before.
    void check(BlockT block, BlockT before) noexcept {
        check(block, block.template after<1>(before), block.template after<2>(before),
              block.template after<3>(before));
    }

private:
    void add(BlockT block, BlockT first, BlockT expected) noexcept {
        const BlockT found = block.continuations();
        continuations.count(found);
        suspects = suspects | (expected ^ found) | without(first.at_least(0xC0), first.at_least(0xC2));
    }
};

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

/// Writes a character as JSON writes it in a string. May write up to 7 bytes more than it says.
inline char* write_escaped(char c, char* out) noexcept {
    const escaped_byte& entry = escape_table[static_cast<unsigned char>(c)];
    std::memcpy(out, &entry, sizeof entry);
    return out + entry.size;
}

/// Writes `count` bytes of a text that ends at `text_end`; `escapes` says which of them need escapes.
template <class BlockT>
inline char* write_with_escapes(std::uint64_t escapes, const char* p, std::size_t count, const char* text_end,
                                char* out) noexcept {
    const char* const end = p + count;
    if (static_cast<std::size_t>(text_end - p) < 2 * BlockT::size) {
        for (; p != end; ++p)
            out = write_escaped(*p, out);
        return out;
    }
    for (const char* const first = p; escapes != 0; escapes &= escapes - 1) {
        const char* const escaped = first + std::countr_zero(escapes) / BlockT::flag_distance;
        std::memcpy(out, p, BlockT::size); // more than is needed
        out = write_escaped(*escaped, out + (escaped - p));
        p = escaped + 1;
    }
    std::memcpy(out, p, BlockT::size);
    return out + (end - p);
}

/// Writes a block, which is the first `count` bytes at `p`.
template <class BlockT>
inline char* write_block(BlockT block, const char* p, std::size_t count, const char* text_end,
                         char* out) noexcept {
    const std::uint64_t escapes = block.escaped().mask();
    if (escapes != 0)
        return write_with_escapes<BlockT>(escapes, p, count, text_end, out);
    block.store(out);
    return out + count;
}

/// Copies text to `out`, block by block, up to the first block with a byte that is escaped or not ASCII.
/// Returns how many bytes that are. May write up to a block more than it says.
template <class BlockT>
inline std::size_t copy_plain(std::string_view text, char* out) noexcept {
    std::size_t i = 0;
    for (; text.size() - i >= BlockT::size; i += BlockT::size) {
        const BlockT block = BlockT::load(text.data() + i);
        if (block.special().any())
            return i;
        block.store(out + i);
    }
    if (i == text.size())
        return i;
    const BlockT block = load_part<BlockT>(text.data() + i, text.size() - i);
    if (block.special().any())
        return i;
    block.store(out + i);
    return text.size();
}

/// Writes the end of a text. `before` is the block before it. May write up to a block more than it says.
template <class BlockT>
char* write_blocks(std::string_view text, BlockT before, char* out, utf8_checker<BlockT>& utf8) noexcept {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p != end) {
        const auto rest = static_cast<std::size_t>(end - p);
        const std::size_t count = std::min(rest, BlockT::size);
        const BlockT block = count == BlockT::size ? BlockT::load(p) : load_part<BlockT>(p, count);
        if ((block | before).any())
            utf8.check(block, before);
        out = write_block(block, p, count, end, out);
        before = block;
        p += count;
    }
    if (before.any())
        utf8.check({}, before); // the last sequence may be cut
    return out;
}

/// Writes text as JSON writes it between quotes, and scans it in the same pass; piece by piece into a buffer
/// of fixed size.
template <class BlockT>
class text_escaper {
    static constexpr std::size_t size = BlockT::size, group_size = 4 * size;

    const char* const begin_;
    const char* const end_;
    const char* p_ = begin_; // what is not written yet
    std::size_t continuations_ = 0, json_bytes_ = 0;
    bool is_ascii_ = true; // the last group
    utf8_checker<BlockT> utf8_{};

    std::size_t rest() const noexcept { return static_cast<std::size_t>(end_ - p_); }

    /// Checks the UTF-8 of a group of four blocks at `p`. There is a block before it.
    void check_group(const char* p) noexcept {
        BlockT is_long;
        for (const char* at = p - size; at != p + group_size; at += size)
            is_long = is_long | BlockT::load(at).at_least(0xE0);
        utf8_checker<BlockT> utf8 = utf8_; // in registers
        if (is_long.any()) {
            for (const char* at = p; at != p + group_size; at += size)
                utf8.check(BlockT::load(at), BlockT::load(at - 1), BlockT::load(at - 2),
                           BlockT::load(at - 3));
        } else {
            for (const char* at = p; at != p + group_size; at += size)
                utf8.check_short(BlockT::load(at), BlockT::load(at - 1));
        }
        utf8_ = utf8;
    }

    /// Writes at most `count` groups of four blocks, and none at or after `limit`. There is a block before
    /// them.
    char* write_groups(std::size_t count, char* out, const char* limit) noexcept {
        const char* p = p_;
        for (; count != 0 && out < limit; --count, p += group_size) {
            const BlockT last = BlockT::load(p - size), a = BlockT::load(p), b = BlockT::load(p + size),
                         c = BlockT::load(p + 2 * size), d = BlockT::load(p + 3 * size);
            if (!is_ascii_ || (a.special() | b.special() | c.special() | d.special() | last).any()) {
                is_ascii_ = !(a | b | c | d | last).any();
                if (!is_ascii_)
                    check_group(p);
                if ((a.escaped() | b.escaped() | c.escaped() | d.escaped()).any()) {
                    out = write_block(a, p, size, end_, out);
                    out = write_block(b, p + size, size, end_, out);
                    out = write_block(c, p + 2 * size, size, end_, out);
                    out = write_block(d, p + 3 * size, size, end_, out);
                    continue;
                }
            }
            a.store(out);
            b.store(out + size);
            c.store(out + 2 * size);
            d.store(out + 3 * size);
            out += group_size;
        }
        p_ = p;
        return out;
    }

public:
    /// The room that a piece needs: for a block, a group and the end, and what is written too much.
    static constexpr std::size_t min_room = 6 * (size + 2 * group_size) + size;

    explicit text_escaper(std::string_view text) noexcept : begin_(text.data()), end_(begin_ + text.size()) {}

    /// Writes to `out` as much of the text as has room there, and returns the end. There is room for
    /// `min_room`.
    char* write_piece(char* const out, const char* const out_end) noexcept {
        constexpr std::size_t max_groups = 60; // else the bytes in `utf8_.continuations` overflow
        char* end = out;
        BlockT before{};
        utf8_.continuations = {};
        if (p_ == begin_ && rest() >= group_size) {
            before = BlockT::load(p_);
            utf8_.check(before, {});
            end = write_block(before, p_, size, end_, end);
            p_ += size;
        }
        if (rest() >= group_size)
            end =
                write_groups(std::min(rest() / group_size, max_groups), end, out_end - (min_room - 6 * size));
        if (rest() < group_size) {
            if (p_ != begin_)
                before = BlockT::load(p_ - size);
            end = write_blocks({p_, rest()}, before, end, utf8_);
            p_ = end_;
        }
        continuations_ += utf8_.continuations.sum();
        json_bytes_ += static_cast<std::size_t>(end - out);
        return end;
    }

    /// Returns true if all of the text is written.
    bool is_finished() const noexcept { return p_ == end_; }

    /// Returns the scan of a text that is finished.
    text_scan scan() const noexcept {
        const auto bytes = static_cast<std::size_t>(end_ - begin_);
        if (utf8_.suspects.any())
            return scan_code_points({begin_, bytes}); // decides, and finds the place
        return {.code_points = bytes - continuations_, .json_bytes = json_bytes_};
    }
};

PROMPTLAYER_DECL text_scan scan_blocks(std::string_view text) noexcept {
    char unused[4096];
    text_escaper<vector_block> escaper{text};
    do
        escaper.write_piece(unused, unused + sizeof unused);
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
