#ifndef PROMPTLAYER_DETAIL_URL_HPP
#define PROMPTLAYER_DETAIL_URL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns true if every character of `text` is from `first` to '~'.
constexpr bool ascii_from(char first, std::string_view text) noexcept {
    for (const char c : text) {
        if (c < first || c > '~')
            return false;
    }
    return true;
}

/// Where a byte may stand in HTTP, by RFC 9110, sections 5.5 and 5.6.2.
enum : unsigned char { in_field = 1, in_token = 2 };

inline constexpr auto http_bytes = [] {
    std::array<unsigned char, 256> allowed{};
    for (std::size_t byte = 0; byte != allowed.size(); ++byte) {
        if (byte == '\t' || (byte >= ' ' && byte != 127))
            allowed[byte] = in_field;
        if (byte > ' ' && byte < 127 &&
            std::string_view{"\"(),/:;<=>?@[\\]{}"}.find(static_cast<char>(byte)) == std::string_view::npos)
            allowed[byte] |= in_token;
    }
    return allowed;
}();

constexpr bool has_only(unsigned char allowed, std::string_view text) noexcept {
    for (const char c : text) {
        if (!(http_bytes[static_cast<unsigned char>(c)] & allowed))
            return false;
    }
    return true;
}

/// Returns true if `text` holds no control character except tabs.
constexpr bool is_field_text(std::string_view text) noexcept { return has_only(in_field, text); }

/// Returns true if `text` is a token: a method or the name of a header.
constexpr bool is_token(std::string_view text) noexcept { return !text.empty() && has_only(in_token, text); }

/// Reads an IPv6 address in any form of RFC 4291, section 2.2, without a zone; nullopt for anything else.
PROMPTLAYER_DECL std::optional<std::array<std::uint8_t, 16>> parse_ipv6(std::string_view text) noexcept;

/// Returns true if `text` is a host name by RFC 1123, section 2.1. It is not one if its last label is a
/// number, because resolvers differ in how they read it.
PROMPTLAYER_DECL bool is_host_name(std::string_view text) noexcept;

/// The parts of an absolute `http` or `https` URL. The URL must outlive them.
struct url_parts {
    std::string_view error{};     ///< why the URL is invalid; empty if it is valid
    bool secure = false;          ///< `https`
    std::string_view authority{}; ///< host and port, as they stand
    std::string_view host{};      ///< without the brackets of an IPv6 address
    bool loopback = false;        ///< `localhost`, 127.0.0.0/8 in four decimal numbers, or ::1
    unsigned port = 0;
    std::string_view target{}; ///< from the path on, as it stands; may be empty
};

PROMPTLAYER_DECL url_parts split_url(std::string_view url) noexcept;

#if defined(PROMPTLAYER_DEFINITIONS)

/// Reads a number without a sign or a leading zero; nullopt if it exceeds `max`.
inline std::optional<unsigned> decimal_up_to(std::string_view digits, unsigned max) noexcept {
    unsigned number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, number);
    if (digits.empty() || ec != std::errc{} || stop != end || number > max ||
        (digits[0] == '0' && digits.size() > 1))
        return std::nullopt;
    return number;
}

/// Reads an IPv4 address of four decimal numbers, as in RFC 3986; no other form that a resolver may accept.
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

PROMPTLAYER_DECL std::optional<std::array<std::uint8_t, 16>> parse_ipv6(std::string_view text) noexcept {
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

PROMPTLAYER_DECL bool is_host_name(std::string_view text) noexcept {
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

PROMPTLAYER_DECL url_parts split_url(std::string_view url) noexcept {
    const auto fail = [](std::string_view message) { return url_parts{.error = message}; };
    if (!ascii_from('!', url))
        return fail("must be visible ASCII without space, ?, # and backslash");
    url_parts parts;
    const std::string_view scheme = url.substr(0, url.find("://"));
    parts.secure = equal_ignoring_case(scheme, "https");
    if (scheme.size() == url.size() || !(parts.secure || equal_ignoring_case(scheme, "http")))
        return fail("must begin with https://, or with http:// if the host is this machine");
    url.remove_prefix(scheme.size() + 3);
    const std::string_view authority = parts.authority = url.substr(0, url.find_first_of("/?#"));
    parts.target = url.substr(authority.size());
    if (authority.find('@') != authority.npos)
        return fail("must not hold user information");
    const bool bracketed = authority.starts_with('[');
    const std::size_t name_end = std::min(authority.find(bracketed ? ']' : ':'), authority.size());
    parts.host = authority.substr(bracketed ? 1 : 0, name_end - (bracketed ? 1 : 0));
    if (bracketed) {
        const auto address = parse_ipv6(parts.host);
        if (!address || name_end == authority.size())
            return fail("must have an IPv6 address (RFC 4291) in its brackets");
        parts.loopback = address->back() == 1 && std::count(address->begin(), address->end(), 0) == 15;
    } else if (const auto address = parse_ipv4(parts.host)) {
        parts.loopback = address->front() == 127;
    } else if (is_host_name(parts.host)) {
        parts.loopback = equal_ignoring_case(parts.host, "localhost");
    } else {
        return fail("must name a host: letters, digits, hyphens and dots (RFC 1123), or an address");
    }
    const std::string_view port = authority.substr(name_end + (bracketed ? 1 : 0));
    const auto number = port.empty() ? (parts.secure ? 443 : 80) : decimal_up_to(port.substr(1), 65535);
    if ((!port.empty() && port[0] != ':') || !number || *number == 0)
        return fail("must have a port from 1 to 65535 or none");
    parts.port = *number;
    return parts;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
