#ifndef PROMPTLAYER_TRANSPORTS_DETAIL_HTTP1_HPP
#define PROMPTLAYER_TRANSPORTS_DETAIL_HTTP1_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/url.hpp>
#include <promptlayer/http.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Returns whether `line`, without its CRLF, is the status line of an HTTP/1 response. The reason and the
/// space before it may be missing.
constexpr bool is_status_line(std::string_view line) noexcept {
    constexpr std::string_view form = "HTTP/1.0 000 ";
    const std::string_view digits = line.substr(0, form.size());
    return line.size() >= form.size() - 1 && is_field_text(line) &&
           std::equal(digits.begin(), digits.end(), form.begin(),
                      [](char c, char f) { return f == '0' ? c >= '0' && c <= '9' : c == f; });
}

/// Returns whether `line`, without its CRLF, is a field line by RFC 9112, section 5, that is not folded.
constexpr bool is_field_line(std::string_view line) noexcept {
    const std::string_view name = line.substr(0, line.find(':'));
    return name.size() < line.size() && is_token(name) && is_field_text(line.substr(name.size()));
}

/// Returns the path and query that are sent. The URL of a request may have none.
inline std::string request_target(const url_parts& url) {
    return (url.target.starts_with('/') ? "" : "/") + std::string{url.target};
}

/// Returns whether a request has a `Content-Length`, also one of 0.
inline bool has_content_length(const http_request& request) noexcept {
    const std::string& method = request.method;
    return !request.body.empty() || method == "POST" || method == "PUT" || method == "PATCH";
}

/// Returns whether a header called `name` says where the body ends.
constexpr bool is_framing(std::string_view name) noexcept {
    return equal_ignoring_case(name, "Content-Length") || equal_ignoring_case(name, "Transfer-Encoding");
}

/// Returns whether the headers of a response leave no doubt where its body ends: by one number, by chunks or
/// by neither. An informational response has no body, and HTTP/1.0 has no chunks.
inline bool has_clear_framing(const std::vector<header>& headers, bool may_have_body, bool may_have_chunks) {
    const header* first = nullptr;
    for (const header& h : headers) {
        const bool is_length = equal_ignoring_case(h.name, "Content-Length");
        if (!is_length && !equal_ignoring_case(h.name, "Transfer-Encoding"))
            continue;
        const bool clear =
            is_length ? h.value.size() - 1 < 18 && h.value.find_first_not_of("0123456789") == h.value.npos
                      : may_have_chunks && !first && equal_ignoring_case(h.value, "chunked");
        if (!clear || !may_have_body ||
            (first && (!equal_ignoring_case(first->name, h.name) || first->value != h.value)))
            return false;
        first = &h;
    }
    return true;
}

/// Returns whether a final response of that status to a request of that method has a body.
constexpr bool has_body(std::string_view method, int status) noexcept {
    return method != "HEAD" && status != 204 && status != 304;
}

/// Returns whether only the end of the connection ends a body. Over TLS, some libraries do not tell that end
/// from a cut.
inline bool is_close_delimited(const std::vector<header>& headers) noexcept {
    return std::none_of(headers.begin(), headers.end(), [](const header& h) { return is_framing(h.name); });
}

/// Removes the chunked coding from a body. Rejects a body that RFC 9112 does not allow, a folded trailer, and
/// a line of more than 256 KiB. Ignores extensions.
class chunked_body {
    static constexpr std::size_t max_line_bytes = 256 * 1024;

    enum class part { size, data, data_end, trailer, end, invalid } next_ = part::size;
    std::size_t remaining_ = 0; // bytes of the chunk
    std::string line_{};

    /// Returns the part that follows `line`.
    part part_after(std::string_view line) noexcept {
        if (!line.ends_with("\r\n"))
            return part::invalid;
        line.remove_suffix(2);
        if (next_ == part::data_end)
            return line.empty() ? part::size : part::invalid;
        if (next_ == part::trailer)
            return line.empty()                                                         ? part::end
                   : is_field_line(line) && !is_framing(line.substr(0, line.find(':'))) ? part::trailer
                                                                                        : part::invalid;
        const char* const end = line.data() + line.size();
        const auto [stop, ec] = std::from_chars(line.data(), end, remaining_, 16);
        const std::string_view rest = trim({stop, end});
        if (ec != std::errc{} || !(rest.empty() || rest.starts_with(';')) || !is_field_text(rest))
            return part::invalid;
        return remaining_ == 0 ? part::trailer : part::data;
    }

public:
    bool is_complete() const noexcept { return next_ == part::end; }
    bool is_invalid() const noexcept { return next_ == part::invalid; }

    /// Passes the content of the chunks to `out` until `out` returns false. Returns true if there is more to
    /// read.
    template <class OutT>
    bool read(std::string_view raw, OutT&& out) {
        while (!raw.empty() && next_ < part::end) {
            const std::size_t line = std::min(raw.find('\n'), raw.size() - 1) + 1;
            const std::string_view piece = raw.substr(0, next_ == part::data ? remaining_ : line);
            raw.remove_prefix(piece.size());
            if (next_ == part::data) {
                remaining_ -= piece.size();
                next_ = remaining_ == 0 ? part::data_end : part::data;
                if (!out(piece))
                    return false;
            } else if (line_.append(piece).size() > max_line_bytes) {
                next_ = part::invalid;
            } else if (line_.ends_with('\n')) {
                next_ = part_after(std::exchange(line_, {}));
            }
        }
        return next_ < part::end;
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
