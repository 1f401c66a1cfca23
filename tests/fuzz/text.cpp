// Scanning and writing of text, against a plain decoder. With PROMPTLAYER_NO_SIMD, in blocks of 8 bytes only.

#include "fuzz.hpp"

#include <promptlayer/detail/text.hpp>

#include <boost/json.hpp>

#include <cstring>
#include <string>

namespace {

using namespace promptlayer::detail;
using fuzz::require;

/// Returns true for controls, separators of lines and paragraphs, and format characters that show nothing or
/// change the text around them (Unicode 14: categories Cc, Zl, Zp and Cf, and what is default-ignorable in
/// plane 14). Returns false for U+200C and U+200D, which join letters and emoji.
bool changes_text(char32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C || c == 0x180E || c == 0x200B ||
           c == 0x200E || c == 0x200F || (c >= 0x2028 && c < 0x202F) || (c >= 0x2060 && c < 0x2070) ||
           c == 0xFEFF || (c >= 0xFFF9 && c < 0xFFFC) || (c >= 0x1BCA0 && c < 0x1BCA4) ||
           (c >= 0x1D173 && c < 0x1D17B) || (c >= 0xE0000 && c < 0xE1000);
}

/// Returns a text as JSON writes it between quotes, with invalid bytes as they are.
std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const std::size_t letter = std::string_view{"\b\t\n\f\r\"\\"}.find(c);
        char code[8];
        if (letter != std::string_view::npos)
            (out += '\\') += "btnfr\"\\"[letter];
        else if (static_cast<unsigned char>(c) >= 0x20)
            out += c;
        else
            out.append(code,
                       static_cast<std::size_t>(std::snprintf(code, sizeof code, "\\u%04x", unsigned(c))));
    }
    return out;
}

void check_scan(const text_scan& scanned, std::string_view text) {
    std::size_t code_points = 0;
    std::optional<std::size_t> invalid_at;
    for (std::size_t at = 0; at < text.size();) {
        const auto [value, size] = fuzz::decode(text.substr(at));
        if (!value && !invalid_at)
            invalid_at = at;
        code_points += invalid_at ? 0U : 1U;
        at += size;
    }
    require(scanned.valid_utf8 == !invalid_at, "scan finds invalid UTF-8");
    require(scanned.invalid_at == invalid_at.value_or(0), "scan finds the first invalid byte");
    require(scanned.code_points == code_points, "scan counts code points");
    require(scanned.json_bytes == escaped(text).size(), "scan counts the bytes of JSON");
}

template <class BlockT>
void check_escaper(std::string_view text, std::size_t room) {
    std::string out;
    text_escaper<BlockT> escaper{text};
    do {
        std::string piece(text_escaper<BlockT>::min_room + room, '\0');
        char* const end = escaper.write_piece(piece.data(), piece.data() + piece.size());
        out.append(piece, 0, static_cast<std::size_t>(end - piece.data()));
    } while (!escaper.is_finished());
    require(out == escaped(text), "the text is escaped as JSON");
    check_scan(escaper.scan(), text);
}

template <class BlockT>
void check_copy(std::string_view text) {
    std::string copy(text.size() + BlockT::size, '\0');
    const std::size_t count = copy_plain<BlockT>(text, copy.data());
    const bool is_plain = escaped(text) == text && std::all_of(text.begin(), text.end(), [](char c) {
                              return static_cast<signed char>(c) >= 0;
                          });
    require((count == text.size()) == is_plain, "copy_plain stops at the first special block");
    require(copy.compare(0, count, text, 0, count) == 0, "copy_plain copies");
}

/// Returns the flags of all blocks of `text`, which has a multiple of 16 bytes.
template <class BlockT>
std::string flags(std::string_view text) {
    std::string all;
    BlockT before;
    for (std::size_t at = 0; at < text.size(); at += BlockT::size) {
        const BlockT block = BlockT::load(text.data() + at);
        utf8_checker<BlockT> utf8;
        utf8.check(block, before);
        const BlockT sets[] = {utf8.suspects, block.escaped(), block.special()};
        unsigned char bytes[sizeof sets];
        std::memcpy(bytes, sets, sizeof sets);
        for (std::size_t i = 0; i < BlockT::size; ++i)
            all += static_cast<char>('0' + (bytes[i] >> 7) + 2 * (bytes[BlockT::size + i] >> 7) +
                                     4 * (bytes[2 * BlockT::size + i] >> 7));
        before = block;
    }
    return all;
}

void check_blocks(std::string_view text) {
    std::string padded{text};
    padded.resize((text.size() + 15) / 16 * 16);
    require(flags<word_block>(padded) == flags<vector_block>(padded), "portable and SIMD blocks agree");
}

/// Returns `text` with U+FFFD for each invalid byte, and of each hidden character what `hide` returns.
template <class HideT>
std::string shown(std::string_view text, std::size_t max_bytes, std::size_t max_code_points, HideT hide) {
    std::string out;
    for (; !text.empty() && max_code_points != 0; --max_code_points) {
        const auto [value, size] = fuzz::decode(text);
        std::string_view bytes = value ? text.substr(0, size) : "\xEF\xBF\xBD";
        if (value && changes_text(*value))
            bytes = hide(bytes);
        if (bytes.size() > max_bytes - out.size())
            break;
        out += bytes;
        text.remove_prefix(size);
    }
    return out;
}

void check_shown(std::string_view text, std::size_t limit) {
    const std::string sanitized = sanitize(text, limit);
    fuzz::require_harmless(sanitized);
    require(sanitized ==
                shown(text, limit, text.size(), [](std::string_view) { return std::string_view{" "}; }),
            "sanitize replaces hidden characters and invalid bytes, and cuts between code points");
    const std::string json = json_escape(text, limit);
    fuzz::require_harmless(json);
    boost::system::error_code failed;
    const auto value = boost::json::parse('"' + json + '"', failed);
    require(!failed &&
                value.as_string() == shown(text, text.npos, limit, [](std::string_view s) { return s; }),
            "json_escape keeps the text");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::input in{data, size};
    const std::size_t alignment = in.up_to(31), limit = in.up_to(255);
    std::string buffer(alignment, ' ');
    buffer += in.rest();
    buffer.shrink_to_fit(); // so that the sanitizer sees a read behind the end
    const std::string_view text = std::string_view{buffer}.substr(alignment);
    check_scan(scan(text), text);
    check_scan(scan_code_points(text), text);
    for (const std::size_t room : {limit, 6 * text.size()}) {
        check_escaper<word_block>(text, room);
        check_escaper<vector_block>(text, room);
    }
    check_copy<word_block>(text);
    check_copy<vector_block>(text);
    check_blocks(text);
    check_shown(text, limit);
    return 0;
}
