#ifndef PROMPTLAYER_DETAIL_JSON_WRITER_HPP
#define PROMPTLAYER_DETAIL_JSON_WRITER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/detail/walk.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <charconv>
#include <cstring>
#include <utility>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Validates a model and writes it as JSON in one pass. Replaces `out`, and uses its memory
/// again. After an error `out` is empty. The API key is in no path of a violation.
PROMPTLAYER_DECL result<void> write_json(model_reference model, std::size_t max_bytes, std::string& out,
                                         std::string_view api_key = {});

#if defined(PROMPTLAYER_DEFINITIONS)

/// Writes JSON up to `max_bytes`, and counts all of it. Gathers it in a buffer on the stack. A template,
/// because a program may have files with vectors and files without.
template <class BlockT>
class json_writer {
    using escaper = text_escaper<BlockT>;
    static constexpr std::size_t max_short_text = 64;
    static constexpr std::size_t capacity = 4096;
    static constexpr std::size_t max_characters = 8;

    std::string& out_;
    std::size_t max_bytes_;
    std::size_t flushed_ = 0; // bytes that are no longer in `buffer_`
    char* end_ = buffer_;     // of the JSON in `buffer_`
    char buffer_[capacity + max_characters];

    bool has_room(std::size_t bytes) const noexcept {
        return static_cast<std::size_t>(end_ - buffer_) + bytes <= capacity;
    }

    /// Makes room for `bytes` in the buffer, at most `capacity`.
    void reserve(std::size_t bytes) {
        if (!has_room(bytes)) [[unlikely]]
            flush();
    }

    text_scan put_long_text(std::string_view text) {
        if (text.size() > size() && size() + text.size() < max_bytes_) // else memory grows by doubling
            out_.reserve(size() + text.size() + sizeof buffer_);       // often all that follows
        put('"');
        escaper escaped{text};
        do {
            reserve(escaper::min_room);
            end_ = escaped.write_piece(end_, buffer_ + capacity);
        } while (!escaped.is_finished());
        put('"');
        return escaped.scan();
    }

    /// Writes a short text of which `plain` bytes are copied; they are ASCII.
    text_scan put_short_text(std::string_view text, std::size_t plain) {
        char* const begin = end_ + 1;
        utf8_checker<BlockT> utf8;
        char* const end = write_blocks(text.substr(plain), BlockT{}, begin + plain, utf8);
        *end_ = *end = '"';
        end_ = end + 1;
        if (utf8.suspects.any())
            return scan_code_points(text); // decides, and finds the place
        return {.code_points = text.size() - utf8.continuations.sum(),
                .json_bytes = static_cast<std::size_t>(end - begin)};
    }

public:
    json_writer(std::string& out, std::size_t max_bytes) noexcept : out_(out), max_bytes_(max_bytes) {
        out_.clear();
    }
    json_writer(const json_writer&) = delete;
    json_writer& operator=(const json_writer&) = delete;

    std::size_t size() const noexcept { return flushed_ + static_cast<std::size_t>(end_ - buffer_); }

    /// Writes a character of punctuation; at most `max_characters` in sequence.
    void put(char c) noexcept { *end_++ = c; }

    void put(std::string_view json) {
        reserve(json.size());
        if (json.size() > capacity) {
            flushed_ += json.size();
            if (flushed_ <= max_bytes_)
                out_.append(json);
        } else if (!json.empty()) { // else it may be null
            std::memcpy(end_, json.data(), json.size());
            end_ += json.size();
        }
    }

    void put_integer(std::int64_t value) {
        constexpr std::size_t max_size = 20;
        reserve(max_size);
        end_ = std::to_chars(end_, end_ + max_size, value).ptr;
    }

    /// Writes a string in quotes, and scans it.
    text_scan put_text(std::string_view text) {
        if (text.size() > max_short_text || !has_room(6 * max_short_text + BlockT::size + 2)) [[unlikely]]
            return put_long_text(text);
        char* const out = end_;
        const std::size_t plain = copy_plain<BlockT>(text, out + 1);
        if (plain != text.size()) [[unlikely]]
            return put_short_text(text, plain);
        out[0] = out[1 + plain] = '"';
        end_ = out + plain + 2;
        return {.code_points = plain, .json_bytes = plain};
    }

    void flush() {
        const auto bytes = static_cast<std::size_t>(end_ - buffer_);
        flushed_ += bytes;
        if (flushed_ <= max_bytes_)
            out_.append(buffer_, bytes);
        end_ = buffer_;
    }
};

PROMPTLAYER_DECL result<void> write_json(model_reference model, std::size_t max_bytes, std::string& out,
                                         std::string_view api_key) {
    json_writer<vector_block> writer{out, max_bytes};
    violation_collector report{.api_key = api_key};
    walk(model.info, model, max_bytes, writer, report);
    if (report.list.empty()) {
        writer.flush();
        return {};
    }
    out.clear();
    return invalid(errc::invalid_request, std::move(report.list).take());
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
