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

/// Writes JSON up to `max_bytes`, and counts all of it. Small pieces are gathered in a buffer on the stack.
class json_writer {
    std::string& out_;
    std::size_t max_bytes_;
    std::size_t size_ = 0; // of `buffer_`
    char buffer_[1024];

    void append(std::string_view json) {
        if (json.size() > sizeof buffer_ - size_) {
            flush();
            if (json.size() > sizeof buffer_) {
                out_.reserve(out_.size() + json.size() + sizeof buffer_); // often all that follows
                out_.append(json);
                return;
            }
        }
        if (!json.empty()) // else it may be null
            std::memcpy(buffer_ + size_, json.data(), json.size());
        size_ += json.size();
    }

    /// Appends text of which JSON needs `size` bytes.
    void append_escaped(std::string_view text, std::size_t size) {
        constexpr std::string_view hex = "0123456789abcdef", controls = "btn?fr";
        const bool fits = size <= sizeof buffer_ - size_;
        if (!fits)
            flush();
        const std::size_t start = out_.size();
        if (!fits) {
            out_.reserve(start + size + sizeof buffer_);
            out_.resize(start + size);
        }
        char* out = fits ? buffer_ + size_ : out_.data() + start;
        size_ += fits ? size : 0;
        for (const char c : text) {
            const std::size_t length = json_length(c);
            if (length == 1) {
                *out++ = c;
                continue;
            }
            *out++ = '\\';
            if (length == 2) {
                const bool is_control = c >= '\b' && c <= '\r';
                *out++ = is_control ? controls[static_cast<std::size_t>(c - '\b')] : c;
                continue;
            }
            for (const char digit : {'u', '0', '0', hex[static_cast<unsigned char>(c) >> 4], hex[c & 15]})
                *out++ = digit;
        }
    }

public:
    std::size_t bytes = 0;

    json_writer(std::string& out, std::size_t max_bytes) noexcept : out_(out), max_bytes_(max_bytes) {
        out_.clear();
    }

    void put(char c) { put(std::string_view{&c, 1}); }

    void put(std::string_view json) {
        bytes += json.size();
        if (bytes <= max_bytes_)
            append(json);
    }

    /// Writes a string in quotes, and scans it.
    text_scan put_text(std::string_view text) {
        const text_scan scanned = scan(text);
        bytes += scanned.json_bytes + 2;
        if (bytes > max_bytes_ || !scanned.valid_utf8)
            return scanned;
        append("\"");
        if (scanned.json_bytes == text.size())
            append(text);
        else
            append_escaped(text, scanned.json_bytes);
        append("\"");
        return scanned;
    }

    void flush() {
        out_.append(buffer_, size_);
        size_ = 0;
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
