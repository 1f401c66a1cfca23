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
#include <string>
#include <string_view>
#if defined(PROMPTLAYER_DEFINITIONS)
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

/// Writes JSON up to `max_bytes`, and counts all of it. Gathers it in a buffer on the stack.
class json_writer {
    using escaper = text_escaper<vector_block>;
    static constexpr std::size_t max_short_text = 64;

    std::string& out_;
    std::size_t max_bytes_;
    std::size_t flushed_ = 0; // bytes that are no longer in `buffer_`
    char* end_ = buffer_;     // of the JSON in `buffer_`
    char buffer_[escaper::max_escaped_piece + 1024];

    std::size_t free_bytes() const noexcept {
        return static_cast<std::size_t>(buffer_ + sizeof buffer_ - end_);
    }

    /// Makes room for `bytes` in the buffer, at most its size.
    void reserve(std::size_t bytes) {
        if (bytes > free_bytes())
            flush();
    }

    text_scan put_escaped(std::string_view text, std::size_t written) {
        if (text.size() > 2 * escaper::max_piece && size() + text.size() < max_bytes_)
            out_.reserve(size() + text.size() + sizeof buffer_); // often all that follows
        escaper escaped{text, written};
        do {
            reserve(escaper::max_escaped_piece);
            end_ = escaped.write_piece(end_);
        } while (!escaped.is_finished());
        put('"');
        return escaped.scan();
    }

public:
    json_writer(std::string& out, std::size_t max_bytes) noexcept : out_(out), max_bytes_(max_bytes) {
        out_.clear();
    }
    json_writer(const json_writer&) = delete;
    json_writer& operator=(const json_writer&) = delete;

    std::size_t size() const noexcept { return flushed_ + sizeof buffer_ - free_bytes(); }

    void put(char c) {
        reserve(1);
        *end_++ = c;
    }

    void put(std::string_view json) {
        reserve(json.size());
        if (json.size() > sizeof buffer_) {
            flushed_ += json.size();
            if (flushed_ <= max_bytes_)
                out_.append(json);
        } else if (!json.empty()) { // else it may be null
            std::memcpy(end_, json.data(), json.size());
            end_ += json.size();
        }
    }

    /// Writes a string in quotes, and scans it.
    text_scan put_text(std::string_view text) {
        if (text.size() > max_short_text) {
            put('"');
            return put_escaped(text, 0);
        }
        reserve(max_short_text + vector_block::size + 2);
        *end_++ = '"';
        const std::size_t plain = copy_plain<vector_block>(text, end_);
        end_ += plain;
        if (plain != text.size())
            return put_escaped(text, plain);
        *end_++ = '"';
        return {.code_points = text.size(), .json_bytes = text.size()};
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
    json_writer writer{out, max_bytes};
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
