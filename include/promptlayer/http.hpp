#ifndef PROMPTLAYER_HTTP_HPP
#define PROMPTLAYER_HTTP_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/http_date.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/url.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <utility>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// One header field of a request or a response.
struct header {
    std::string name{};
    std::string value{};

    friend bool operator==(const header&, const header&) = default;
};

/// One HTTP request, to be sent as it is. Printing shows secrets as `[redacted]`.
struct http_request {
    std::string method{};
    std::string url{};                   ///< absolute, `https://` or `http://`, visible ASCII
    std::vector<header> headers{};       ///< all, except those of the connection and the body's length
    std::string body{};                  ///< bytes
    std::chrono::milliseconds timeout{}; ///< for the whole exchange, from the DNS lookup to the last byte
    std::size_t max_response_bytes = 0;  ///< limit on the body of the response
    bool idempotent = true;              ///< whether sending the request twice changes nothing; not sent

    friend bool operator==(const http_request&, const http_request&) = default;
};

/// One HTTP response of any status, as it arrived. Printing it does not remove an API key that the service
/// echoes.
struct http_response {
    int status = 0;
    std::vector<header> headers{}; ///< all, in order, repeated ones included
    std::string body{};            ///< bytes, without the transfer coding

    friend bool operator==(const http_response&, const http_response&) = default;
};

/// Returns why a request cannot be sent as it stands; null if it can. For transports, because an HTTP client
/// may send something else instead. Each of these is a reason:
///
/// - a URL that is not `http` or `https` with a host and a port, or has user information or a fragment;
/// - a method or header that HTTP does not allow, above all one with a line break;
/// - `Content-Length` or `Transfer-Encoding`, which the transport writes; more than one `Host`;
/// - a `HEAD` request with a body.
///
/// A request that a client makes with a valid config can always be sent.
[[nodiscard]] PROMPTLAYER_DECL const char* invalid_reason(const http_request& request) noexcept;

/// Returns the value of the first header called `name`, in any case; null if there is none. Points into
/// `headers`.
[[nodiscard]] PROMPTLAYER_DECL const std::string* find_header(const std::vector<header>& headers,
                                                              std::string_view name) noexcept;

/// Deleted: the header of a temporary would be destroyed before it can be read.
const std::string* find_header(const std::vector<header>&&, std::string_view) = delete;

/// Returns the value of `Retry-After`, not capped. A date counts from the response's own `Date`, because the
/// library reads no clock here. Returns nullopt if the header is missing or unreadable, or is a date without
/// a `Date`.
[[nodiscard]] PROMPTLAYER_DECL std::optional<std::chrono::seconds>
retry_after(const http_response& response) noexcept;

/// Returns the request as HTTP/1.1, for a person, without control characters. `[redacted]` replaces user
/// information in the URL and the value of each header except `Content-Type`, `Accept` and `User-Agent`. It
/// also replaces the API key and other credentials of the headers wherever else they stand.
PROMPTLAYER_DECL std::string to_string(const http_request& request);

/// Returns the response for a person: with `[redacted]` for cookies and other secrets, without control
/// characters, and at most 512 bytes of the body. An API key that the service echoes is not removed; `decode`
/// does that.
PROMPTLAYER_DECL std::string to_string(const http_response& response);

namespace detail {

/// Does the same as `invalid_reason`, but takes a URL that equals `valid_url` as valid, unless it is empty.
PROMPTLAYER_DECL const char* invalid_reason_if(const http_request& request,
                                               std::string_view valid_url) noexcept;

template <>
inline constexpr bool is_printable<http_request> = true;
template <>
inline constexpr bool is_printable<http_response> = true;

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns true if the value of a header is a secret by the header's name: `X-API-KEY`, `Authorization`,
/// `Set-Cookie`.
inline bool is_secret_header(std::string_view name) noexcept {
    for (const std::string_view part :
         {"auth", "cookie", "credential", "jwt", "key", "passw", "secret", "session", "signature", "token"}) {
        const auto same = [](char a, char b) { return ascii_lower(a) == b; };
        if (std::search(name.begin(), name.end(), part.begin(), part.end(), same) != name.end())
            return true;
    }
    return false;
}

/// The texts that must not be shown. Allocates nothing if there is only the API key.
class secret_list {
    std::string_view key_;
    std::vector<std::string_view> all_{}; // empty if there is only the key

public:
    explicit secret_list(std::string_view key) noexcept : key_(key) {}

    void add(std::string_view secret) {
        if (all_.empty())
            all_.push_back(key_);
        all_.push_back(secret);
    }

    operator std::span<const std::string_view>() const noexcept {
        return all_.empty() ? std::span<const std::string_view>{&key_, 1} : all_;
    }
};

/// Returns the API key and each credential in the headers that are secret by their names: each part of 8
/// characters and more, except a scheme such as `Negotiate` and the name of a cookie.
inline secret_list secrets_of(std::string_view api_key, const std::vector<header>& headers) {
    constexpr std::string_view separators = " \t,;=\r\n";
    secret_list secrets{visible_run(api_key)};
    for (const header& field : headers) {
        if (!is_secret_header(field.name))
            continue;
        for (std::string_view rest = field.value; !rest.empty();) {
            const std::size_t size = std::min(rest.find_first_of(separators), rest.size());
            const std::string_view after = rest.substr(std::min(size + 1, rest.size()));
            const bool is_scheme =
                rest.data() == field.value.data() && size != rest.size() && rest[size] == ' ';
            const bool is_name = size != rest.size() && rest[size] == '=' && !after.empty() &&
                                 separators.find(after[0]) == separators.npos;
            if (size >= 8 && !(is_scheme && !after.empty()) && !is_name)
                secrets.add(rest.substr(0, size));
            rest = after;
        }
    }
    return secrets;
}

/// Returns true if `text` may be shown as it is: visible ASCII without secrets.
inline bool is_harmless(std::string_view text, std::span<const std::string_view> secrets) {
    return ascii_from(' ', text) && !holds_secret(text, secrets);
}

/// Returns a text that was cut without its last word if the cut has made a short secret of it.
inline std::string without_cut_secret(std::string text, std::span<const std::string_view> secrets) {
    if (holds_secret(text, secrets))
        text.erase(text.rfind(' ') + 1);
    return text;
}

/// Returns `text` for a person: at most `max_bytes`, without hidden characters and secrets.
inline std::string shown_text(std::string_view text, std::span<const std::string_view> secrets,
                              std::size_t max_bytes = std::string_view::npos) {
    if (text.size() <= max_bytes && is_harmless(text, secrets))
        return std::string{text};
    std::string shown = sanitize(text, text.npos);
    if (holds_secret(shown, secrets)) // redaction may cut a code point
        shown = sanitize(redact(std::move(shown), secrets), text.npos);
    return shown.size() <= max_bytes ? shown : without_cut_secret(sanitize(shown, max_bytes), secrets);
}

/// Returns true if the value of a request's header may be printed.
constexpr bool is_public_header(std::string_view name) noexcept {
    return equal_ignoring_case(name, "Content-Type") || equal_ignoring_case(name, "Accept") ||
           equal_ignoring_case(name, "User-Agent");
}

/// Returns `url` with `[redacted]` for everything before the last `@`, unless the URL is valid, and so has no
/// user information.
inline std::string without_user_information(std::string_view url) {
    const std::size_t at = url.rfind('@');
    if (at == url.npos || split_url(url).error.empty())
        return std::string{url};
    const std::size_t scheme_end = url.find("://");
    const std::size_t shown = scheme_end < url.find('@') ? scheme_end + 3 : 0;
    return std::string{url.substr(0, shown)}.append("[redacted]").append(url.substr(at));
}

PROMPTLAYER_DECL const char* invalid_reason_if(const http_request& request,
                                               std::string_view valid_url) noexcept {
    const std::string_view url = request.url;
    if (url.empty() || (url != valid_url && (!split_url(url).error.empty() || url.find('#') != url.npos)))
        return "the URL is not an http or https URL that can be sent as it stands";
    if (!is_token(request.method) || request.method == "CONNECT")
        return "the method cannot be sent";
    if (request.method == "HEAD" && !request.body.empty())
        return "HEAD cannot have a body";
    std::size_t hosts = 0;
    for (const header& field : request.headers) {
        if (!is_token(field.name) || !is_field_text(field.value))
            return "a header contains a character that HTTP does not allow there";
        if (equal_ignoring_case(field.name, "Content-Length") ||
            equal_ignoring_case(field.name, "Transfer-Encoding"))
            return "the transport writes the length of the body, not a header of the request";
        if (equal_ignoring_case(field.name, "Host") && ++hosts > 1)
            return "there is more than one Host";
    }
    return nullptr;
}

#endif

} // namespace detail

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL const char* invalid_reason(const http_request& request) noexcept {
    return detail::invalid_reason_if(request, {});
}

PROMPTLAYER_DECL const std::string* find_header(const std::vector<header>& headers,
                                                std::string_view name) noexcept {
    for (const header& field : headers) {
        if (detail::equal_ignoring_case(field.name, name))
            return &field.value;
    }
    return nullptr;
}

PROMPTLAYER_DECL std::optional<std::chrono::seconds> retry_after(const http_response& response) noexcept {
    const std::string* const value = find_header(response.headers, "Retry-After");
    if (!value)
        return std::nullopt;
    if (const auto seconds = detail::parse_integer(detail::trim(*value)))
        return std::chrono::seconds{*seconds};
    const std::string* const date = find_header(response.headers, "Date");
    const auto until = detail::http_date(*value);
    const auto now = date ? detail::http_date(*date) : std::nullopt;
    if (!until || !now)
        return std::nullopt;
    return std::max(std::chrono::seconds{0}, *until - *now);
}

PROMPTLAYER_DECL std::string to_string(const http_request& request) {
    const std::string* const key = find_header(request.headers, "X-API-KEY");
    const auto secrets =
        detail::secrets_of(key ? std::string_view{*key} : std::string_view{}, request.headers);
    const auto show = [&](std::string_view text) { return detail::shown_text(text, secrets); };
    std::string text =
        show(request.method) + " " + show(detail::without_user_information(request.url)) + "\n";
    for (const header& field : request.headers)
        text.append(show(field.name))
            .append(": ")
            .append(detail::is_public_header(field.name) ? show(field.value) : "[redacted]")
            .append("\n");
    return text + "\n" + show(request.body);
}

PROMPTLAYER_DECL std::string to_string(const http_response& response) {
    std::string text = "HTTP " + std::to_string(response.status) + "\n";
    for (const header& field : response.headers)
        text.append(detail::sanitize(field.name, 512))
            .append(": ")
            .append(detail::is_secret_header(field.name) ? "[redacted]" : detail::sanitize(field.value, 512))
            .append("\n");
    return text + "\n" + detail::sanitize(response.body, 512);
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
