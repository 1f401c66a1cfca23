#ifndef PROMPTLAYER_HTTP_HPP
#define PROMPTLAYER_HTTP_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/http_date.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/url.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// One header field of a request or an answer.
struct header {
    std::string name{};
    std::string value{};

    friend bool operator==(const header&, const header&) = default;
};

/// One HTTP request, ready to be sent as it is. Printing it shows secrets as `[redacted]`.
struct http_request {
    std::string method{};
    std::string url{}; ///< absolute, `https://` or `http://`, visible ASCII
    std::vector<header>
        headers{};      ///< all that have to be sent but for those of the connection and the length
    std::string body{}; ///< bytes
    std::chrono::milliseconds
        timeout{}; ///< for the whole exchange, from the look-up of the host to the last byte
    std::size_t max_response_bytes = 0; ///< stop reading a body that is longer

    friend bool operator==(const http_request&, const http_request&) = default;
};

/// One HTTP answer, whatever its status.
struct http_response {
    int status = 0;
    std::vector<header> headers{}; ///< all of them, in order, repeats included
    std::string body{};            ///< bytes, with the transfer coding taken off

    friend bool operator==(const http_response&, const http_response&) = default;
};

/// Why a request cannot be sent as it stands, in words; null if it can. For transports, whose HTTP client may
/// send something else instead: of a URL that is not `http` or `https` with a host and a port, or has user
/// information or a fragment; of a method or a header that is not HTTP's, a line break above all; of
/// `Content-Length` and `Transfer-Encoding`, which are the transport's to write; of two `Host`s; of a `HEAD`
/// with a body. What a client makes of a valid config can be sent.
[[nodiscard]] inline const char* invalid_reason(const http_request& request) noexcept {
    if (!detail::split_url(request.url).error.empty() || request.url.find('#') != request.url.npos)
        return "the URL is not one of http or https that can be sent as it stands";
    if (!detail::is_token(request.method) || request.method == "CONNECT")
        return "the method is not one that can be sent";
    if (request.method == "HEAD" && !request.body.empty())
        return "HEAD cannot have a body";
    std::size_t hosts = 0;
    for (const header& h : request.headers) {
        const auto control = [](char c) {
            return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == '\x7F';
        };
        if (!detail::is_token(h.name) || std::any_of(h.value.begin(), h.value.end(), control))
            return "a header holds a character that HTTP does not allow there";
        if (detail::equal_ignoring_case(h.name, "Content-Length") ||
            detail::equal_ignoring_case(h.name, "Transfer-Encoding"))
            return "the length of the body is for the transport to tell, not for a header";
        if (detail::equal_ignoring_case(h.name, "Host") && ++hosts > 1)
            return "there is more than one Host";
    }
    return nullptr;
}

/// The value of the first header called `name`, in any case; `nullptr` if there is none. Points into
/// `headers`.
[[nodiscard]] inline const std::string* find_header(const std::vector<header>& headers,
                                                    std::string_view name) noexcept {
    const auto found = std::find_if(headers.begin(), headers.end(), [&](const header& h) {
        return detail::equal_ignoring_case(h.name, name);
    });
    return found == headers.end() ? nullptr : &found->value;
}

/// A temporary would be gone before its header is read.
const std::string* find_header(const std::vector<header>&&, std::string_view) = delete;

/// How long the service asks to be left alone: `Retry-After` in seconds, not capped, or as a date, which
/// counts from the answer's own `Date` since no clock is read here; none if it is absent, unreadable, or a
/// date without a `Date`.
[[nodiscard]] inline std::optional<std::chrono::seconds> retry_after(const http_response& response) noexcept {
    const std::string* const asked = find_header(response.headers, "Retry-After");
    if (!asked)
        return std::nullopt;
    if (const auto seconds = detail::parse_integer(detail::trim(*asked)))
        return std::chrono::seconds{*seconds};
    const std::string* const now = find_header(response.headers, "Date");
    const auto until = detail::http_date(*asked);
    const auto from = now ? detail::http_date(*now) : std::nullopt;
    if (!until || !from)
        return std::nullopt;
    return std::max(std::chrono::seconds{0}, *until - *from);
}

namespace detail {

/// Whether the name of a header says that its value is a secret: `X-API-KEY`, `Authorization`, `Set-Cookie`.
constexpr bool is_secret_header(std::string_view name) noexcept {
    for (const std::string_view part :
         {"auth", "cookie", "credential", "jwt", "key", "passw", "secret", "session", "signature", "token"}) {
        const auto same = [](char a, char b) { return ascii_lower(a) == b; };
        if (std::search(name.begin(), name.end(), part.begin(), part.end(), same) != name.end())
            return true;
    }
    return false;
}

/// Calls `action` with the API key, and with each credential in the headers whose names say that there is
/// one: each part of 8 characters and more, except a scheme such as `Negotiate` and the name of a cookie.
template <class ActionT>
void for_each_secret(std::string_view api_key, const std::vector<header>& headers, ActionT&& action) {
    constexpr std::string_view separators = " \t,;=\r\n";
    action(visible_run(api_key));
    for (const header& h : headers) {
        if (!is_secret_header(h.name))
            continue;
        for (std::string_view rest = h.value; !rest.empty();) {
            const std::size_t size = std::min(rest.find_first_of(separators), rest.size());
            const std::string_view after = rest.substr(std::min(size + 1, rest.size()));
            const bool is_scheme = rest.data() == h.value.data() && size != rest.size() && rest[size] == ' ';
            const bool is_name = size != rest.size() && rest[size] == '=' && !after.empty() &&
                                 separators.find(after[0]) == separators.npos;
            if (size >= 8 && !(is_scheme && !after.empty()) && !is_name)
                action(rest.substr(0, size));
            rest = after;
        }
    }
}

/// Returns `text` for a person: at most `most_bytes`, without hidden characters, the API key and the
/// credentials of `headers`.
inline std::string shown_text(std::string_view text, std::string_view api_key,
                              const std::vector<header>& headers,
                              std::size_t most_bytes = std::string_view::npos) {
    std::string shown = redact_each(sanitize(text, text.npos),
                                    [&](auto&& action) { for_each_secret(api_key, headers, action); });
    return sanitize(shown, most_bytes); // a credential that is no UTF-8 may have cut a code point
}

/// Whether a request's header is one whose value may be printed.
constexpr bool is_public_header(std::string_view name) noexcept {
    for (const std::string_view shown : {"Content-Type", "Accept", "User-Agent"}) {
        if (equal_ignoring_case(name, shown))
            return true;
    }
    return false;
}

} // namespace detail

/// Returns the request as HTTP/1.1 would have it, for a person: without control characters, and with
/// `[redacted]` for user information in the URL, for the value of every header except `Content-Type`,
/// `Accept` and `User-Agent`, and wherever else the API key or another credential of the headers stands.
inline std::string to_string(const http_request& request) {
    const std::string* const key = find_header(request.headers, "X-API-KEY");
    const auto shown = [&](std::string_view text) {
        return detail::shown_text(text, key ? std::string_view{*key} : std::string_view{}, request.headers);
    };
    std::string text =
        shown(request.method) + " " + shown(detail::without_user_information(request.url)) + "\n";
    for (const header& h : request.headers)
        text.append(shown(h.name))
            .append(": ")
            .append(detail::is_public_header(h.name) ? shown(h.value) : "[redacted]")
            .append("\n");
    return text + "\n" + shown(request.body);
}

/// Returns the response for a person: `[redacted]` for cookies and other secrets, control characters
/// replaced, of the body 512 bytes. What the service says is shown as it is: `decode` is what takes an echoed
/// API key out.
inline std::string to_string(const http_response& response) {
    std::string text = "HTTP " + std::to_string(response.status) + "\n";
    for (const header& h : response.headers)
        text.append(detail::sanitize(h.name, 512))
            .append(": ")
            .append(detail::is_secret_header(h.name) ? "[redacted]" : detail::sanitize(h.value, 512))
            .append("\n");
    return text + "\n" + detail::sanitize(response.body, 512);
}

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out,
                                              const http_request& request) {
    return detail::print(out, request);
}

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out,
                                              const http_response& response) {
    return detail::print(out, response);
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
