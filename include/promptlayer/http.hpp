#ifndef PROMPTLAYER_HTTP_HPP
#define PROMPTLAYER_HTTP_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/text.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

namespace detail {

/// Whether every character of `text` is from `first` to '~'.
constexpr bool ascii_from(char first, std::string_view text) noexcept {
    return std::all_of(text.begin(), text.end(), [&](char c) { return c >= first && c <= '~'; });
}

/// Whether `text` is a token by RFC 9110, section 5.6.2: a method or the name of a header.
constexpr bool is_token(std::string_view text) noexcept {
    return !text.empty() && ascii_from('!', text) && text.find_first_of("\"(),/:;<=>?@[\\]{}") == text.npos;
}

/// A number without a sign or a leading zero, at most `most`.
inline std::optional<unsigned> decimal_up_to(std::string_view digits, unsigned most) noexcept {
    unsigned number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, number);
    if (digits.empty() || ec != std::errc{} || stop != end || number > most ||
        (digits[0] == '0' && digits.size() > 1))
        return std::nullopt;
    return number;
}

/// Reads an IPv4 address of four decimal numbers, as RFC 3986 has it; no other form that a resolver may take.
inline std::optional<std::array<std::uint8_t, 4>> parse_ipv4(std::string_view text) noexcept {
    std::array<std::uint8_t, 4> address{};
    for (std::size_t i = 0; i < address.size(); ++i) {
        const std::size_t size = i + 1 < address.size() ? text.find('.') : text.size();
        const auto octet = size == text.npos ? std::nullopt : decimal_up_to(text.substr(0, size), 255);
        if (!octet)
            return std::nullopt;
        address[i] = static_cast<std::uint8_t>(*octet);
        text.remove_prefix(std::min(size + 1, text.size()));
    }
    return address;
}

/// Reads an IPv6 address in any form of RFC 4291, section 2.2; without a zone.
inline std::optional<std::array<std::uint8_t, 16>> parse_ipv6(std::string_view text) noexcept {
    std::array<std::uint8_t, 16> address{};
    std::size_t count = 0;             // bytes read
    std::optional<std::size_t> zeroes; // where `::` stands
    const auto take_zeroes = [&] {
        text.remove_prefix(1);
        return !std::exchange(zeroes, count);
    };
    if (text.starts_with("::")) {
        text.remove_prefix(1);
        take_zeroes();
    }
    while (!text.empty()) {
        const auto last = count <= 12 ? parse_ipv4(text) : std::nullopt;
        if (last) {
            std::copy(last->begin(), last->end(), address.begin() + static_cast<std::ptrdiff_t>(count));
            count += 4;
            break;
        }
        const std::string_view digits = text.substr(0, text.find(':'));
        unsigned group = 0;
        const char* const end = digits.data() + digits.size();
        const auto [stop, ec] = std::from_chars(digits.data(), end, group, 16);
        if (digits.size() - 1 >= 4 || ec != std::errc{} || stop != end || count == address.size())
            return std::nullopt;
        address[count++] = static_cast<std::uint8_t>(group >> 8);
        address[count++] = static_cast<std::uint8_t>(group & 0xFF);
        text.remove_prefix(digits.size());
        if (text.empty())
            break;
        text.remove_prefix(1);
        if (text.empty() || (text[0] == ':' && !take_zeroes()))
            return std::nullopt;
    }
    if (zeroes ? count > 14 : count != 16)
        return std::nullopt;
    if (zeroes) {
        const auto from = address.begin() + static_cast<std::ptrdiff_t>(*zeroes);
        const auto to = address.begin() + static_cast<std::ptrdiff_t>(count);
        std::fill(from, std::copy_backward(from, to, address.end()), std::uint8_t{});
    }
    return address;
}

/// Whether `text` is a host name by RFC 1123, section 2.1. One whose last label is a number is none: what a
/// resolver makes of it differs.
inline bool is_host_name(std::string_view text) noexcept {
    if (text.size() > 253)
        return false;
    while (true) {
        const std::string_view label = text.substr(0, text.find('.'));
        const auto letter_or_digit = [](char c) {
            return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
        };
        if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-' ||
            !std::all_of(label.begin(), label.end(), [&](char c) { return c == '-' || letter_or_digit(c); }))
            return false;
        if (label.size() == text.size())
            return label.find_first_not_of("0123456789") != label.npos && !label.starts_with("0x") &&
                   !label.starts_with("0X");
        text.remove_prefix(label.size() + 1);
    }
}

/// An absolute `http` or `https` URL in parts, which refer to it.
struct url_parts {
    std::string_view fault{}; ///< why it is none, and the rest is not to be used; else empty
    bool secure = false;
    std::string_view authority{}; ///< host and port, as they stand
    std::string_view host{};      ///< without the brackets of an IPv6 address
    bool loopback = false;        ///< `localhost`, 127.0.0.0/8 in four decimal numbers, or ::1
    unsigned port = 0;
    std::string_view target{}; ///< from the path on, as it stands; may be empty
};

inline url_parts split_url(std::string_view url) noexcept {
    const auto fault = [](std::string_view words) { return url_parts{.fault = words}; };
    if (!ascii_from('!', url))
        return fault("must be visible ASCII without space, ?, # and backslash");
    url_parts parts;
    const std::string_view scheme = url.substr(0, url.find("://"));
    parts.secure = equal_ignoring_case(scheme, "https");
    if (scheme.size() == url.size() || !(parts.secure || equal_ignoring_case(scheme, "http")))
        return fault("must begin with https://, or http:// where the host is this machine");
    url.remove_prefix(scheme.size() + 3);
    const std::string_view authority = parts.authority = url.substr(0, url.find_first_of("/?#"));
    parts.target = url.substr(authority.size());
    if (authority.find('@') != authority.npos)
        return fault("must not hold user information");
    const bool bracketed = authority.starts_with('[');
    const std::size_t name_end = std::min(authority.find(bracketed ? ']' : ':'), authority.size());
    parts.host = authority.substr(bracketed ? 1 : 0, name_end - (bracketed ? 1 : 0));
    if (bracketed) {
        const auto address = parse_ipv6(parts.host);
        if (!address || name_end == authority.size())
            return fault("must have an IPv6 address (RFC 4291) in its brackets");
        parts.loopback = address->back() == 1 && std::count(address->begin(), address->end(), 0) == 15;
    } else if (const auto address = parse_ipv4(parts.host)) {
        parts.loopback = address->front() == 127;
    } else if (is_host_name(parts.host)) {
        parts.loopback = equal_ignoring_case(parts.host, "localhost");
    } else {
        return fault("must name a host: letters, digits, hyphens and dots (RFC 1123), or an address");
    }
    const std::string_view port = authority.substr(name_end + (bracketed ? 1 : 0));
    const auto number = port.empty() ? (parts.secure ? 443 : 80) : decimal_up_to(port.substr(1), 65535);
    if ((!port.empty() && port[0] != ':') || !number || *number == 0)
        return fault("must have a port from 1 to 65535 or none");
    parts.port = *number;
    return parts;
}

} // namespace detail

/// Why a request cannot be sent as it stands, in words; null if it can. For transports, whose HTTP client may
/// send something else instead: of a URL that is not `http` or `https` with a host and a port, or has user
/// information or a fragment; of a method or a header that is not HTTP's, a line break above all; of
/// `Content-Length` and `Transfer-Encoding`, which are the transport's to write; of two `Host`s; of a `HEAD`
/// with a body. What a client makes of a valid config can be sent.
[[nodiscard]] inline const char* unsendable(const http_request& request) noexcept {
    if (!detail::split_url(request.url).fault.empty() || request.url.find('#') != request.url.npos)
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

namespace detail {

/// All of `digits` as a number from 0; larger ones become the largest.
inline std::optional<std::chrono::seconds::rep> whole_number(std::string_view digits) noexcept {
    std::chrono::seconds::rep number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, number);
    if (digits.empty() || digits[0] == '-' || stop != end)
        return std::nullopt;
    return ec == std::errc::result_out_of_range ? std::numeric_limits<decltype(number)>::max() : number;
}

/// A date in one of the three forms of RFC 9110, section 5.6.7:
/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`.
/// The weekday is not checked; a year of two digits is one from 1970 to 2069.
inline std::optional<std::chrono::sys_seconds> http_date(std::string_view text) noexcept {
    std::array<std::string_view, 8> part{}; // weekday, day, month, year, hours, minutes, seconds, GMT
    std::size_t parts = 0;
    while (true) {
        text.remove_prefix(std::min(text.find_first_not_of(" ,-:"), text.size()));
        if (text.empty())
            break;
        if (parts == part.size())
            return std::nullopt;
        const std::size_t length = std::min(text.find_first_of(" ,-:"), text.size());
        part[parts++] = text.substr(0, length);
        text.remove_prefix(length);
    }
    if (parts == 7) { // asctime's: weekday, month, day, hours, minutes, seconds, year
        std::swap(part[1], part[2]);
        std::rotate(part.begin() + 3, part.begin() + 6, part.begin() + 7);
    } else if (parts != 8 || part[7] != "GMT") {
        return std::nullopt;
    }
    constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const std::size_t month = part[2].size() == 3 ? months.find(part[2]) : months.npos;
    const auto day = whole_number(part[1]), year = whole_number(part[3]), hours = whole_number(part[4]),
               minutes = whole_number(part[5]), seconds = whole_number(part[6]);
    if (month == months.npos || month % 3 != 0 || !day || !year || !hours || !minutes || !seconds ||
        *day > 31 || (part[3].size() != 2 && part[3].size() != 4) || *hours > 23 || *minutes > 59 ||
        *seconds > 60)
        return std::nullopt;
    const auto full_year = part[3].size() != 2 ? *year : *year + (*year < 70 ? 2000 : 1900);
    const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(full_year)},
                                           std::chrono::month{static_cast<unsigned>(month / 3 + 1)},
                                           std::chrono::day{static_cast<unsigned>(*day)}};
    if (!date.ok())
        return std::nullopt;
    return std::chrono::sys_days{date} + std::chrono::hours{*hours} + std::chrono::minutes{*minutes} +
           std::chrono::seconds{*seconds};
}

constexpr std::string_view trimmed(std::string_view text) noexcept {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    return text.substr(0, text.find_last_not_of(" \t") + 1);
}

} // namespace detail

/// How long the service asks to be left alone: `Retry-After` in seconds, not capped, or as a date, which
/// counts from the answer's own `Date` since no clock is read here; none if it is absent, unreadable, or a
/// date without a `Date`.
[[nodiscard]] inline std::optional<std::chrono::seconds> retry_after(const http_response& response) noexcept {
    const std::string* const asked = find_header(response.headers, "Retry-After");
    if (!asked)
        return std::nullopt;
    if (const auto seconds = detail::whole_number(detail::trimmed(*asked)))
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
    std::string shown = redact_each(readable(text, text.npos),
                                    [&](auto&& action) { for_each_secret(api_key, headers, action); });
    return readable(shown, most_bytes); // a credential that is no UTF-8 may have cut a code point
}

/// Whether a request's header is one whose value may be printed.
constexpr bool is_public_header(std::string_view name) noexcept {
    for (const std::string_view shown : {"Content-Type", "Accept", "User-Agent"}) {
        if (equal_ignoring_case(name, shown))
            return true;
    }
    return false;
}

/// Returns `url` with `[redacted]` in place of what may be user information: all before the last `@`, unless
/// the URL is a good one, which has none.
inline std::string without_user_information(std::string_view url) {
    const std::size_t at = url.rfind('@');
    if (at == url.npos || split_url(url).fault.empty())
        return std::string{url};
    const std::size_t scheme = url.find("://");
    const std::size_t kept = scheme < url.find('@') ? scheme + 3 : 0;
    return std::string{url.substr(0, kept)}.append("[redacted]").append(url.substr(at));
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
        text.append(detail::readable(h.name, 512))
            .append(": ")
            .append(detail::is_secret_header(h.name) ? "[redacted]" : detail::readable(h.value, 512))
            .append("\n");
    return text + "\n" + detail::readable(response.body, 512);
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
