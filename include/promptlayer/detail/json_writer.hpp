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
    std::string& out_;
    std::size_t max_bytes_;
    std::size_t flushed_ = 0; // bytes that are no longer in `buffer_`
    char buffer_[text_escaper::max_escaped_piece + 1024];

    /// Returns the end of the buffer, where at least `size` bytes fit.
    char* reserve(std::size_t size) {
        if (size > sizeof buffer_ - (bytes - flushed_))
            flush();
        return buffer_ + (bytes - flushed_);
    }

    text_scan put_escaped(std::string_view text) {
        put('"');
        if (text.size() > sizeof buffer_ && bytes + text.size() < max_bytes_)
            out_.reserve(bytes + text.size() + sizeof buffer_); // often all that follows
        text_escaper escaper{text};
        do {
            char* const end = reserve(text_escaper::max_escaped_piece);
            bytes += static_cast<std::size_t>(escaper.write_piece(end) - end);
        } while (!escaper.is_finished());
        put('"');
        return escaper.scan();
    }

public:
    std::size_t bytes = 0;

    json_writer(std::string& out, std::size_t max_bytes) noexcept : out_(out), max_bytes_(max_bytes) {
        out_.clear();
    }

    void put(char c) {
        *reserve(1) = c;
        ++bytes;
    }

    void put(std::string_view json) {
        char* const end = reserve(json.size());
        bytes += json.size();
        if (json.size() > sizeof buffer_) {
            flushed_ = bytes;
            if (bytes <= max_bytes_)
                out_.append(json);
        } else if (!json.empty()) { // else it may be null
            std::memcpy(end, json.data(), json.size());
        }
    }

    /// Writes a string in quotes.
    text_scan put_text(std::string_view text) {
        if (text.size() > text_escaper::max_piece)
            return put_escaped(text);
        char* const end = reserve(text.size() + 2);
        if (!copy_plain(text, end + 1))
            return put_escaped(text);
        end[0] = end[text.size() + 1] = '"';
        bytes += text.size() + 2;
        return {.code_points = text.size(), .json_bytes = text.size()};
    }

    void flush() {
        if (bytes <= max_bytes_)
            out_.append(buffer_, bytes - flushed_);
        flushed_ = bytes;
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
