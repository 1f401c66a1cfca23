#ifndef PROMPTLAYER_ERROR_HPP
#define PROMPTLAYER_ERROR_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <utility>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// What went wrong. The HTTP status decides first: a 503 is a `server_error`, whatever its body holds.
enum class errc {
    invalid_request = 1, ///< not sent, because it breaks a rule; `error::violations` lists the rules
    invalid_config,      ///< the `config` cannot be used; `error::violations` lists its invalid members
    transport,           ///< no response arrived; `error::failure` says why
    bad_request,         ///< HTTP 400
    unauthorized,        ///< HTTP 401
    forbidden,           ///< HTTP 403
    not_found,           ///< HTTP 404
    conflict,            ///< HTTP 409
    unprocessable,       ///< HTTP 422; `error::violations` lists what the service reports
    rate_limited,        ///< HTTP 429
    server_error,        ///< HTTP 500 to 599
    unexpected_status,   ///< any other status that is no success, redirects included
    rejected,            ///< a success by its status, with a `success` that is false
    malformed_response,  ///< a success with a body that the interface does not allow, or that is too large
    malformed_json,      ///< the text given to `from_json` is not JSON; `error::offset` says where
    queue_full,          ///< the queue accepts no more requests
    closed,              ///< the queue or tracker is closed, or the client was moved from
    journal_failed,      ///< the journal did not open; or the request is queued, but not in the journal
};

/// Why a transport returned no response.
enum class failure {
    resolve,   ///< the DNS lookup of the host failed
    connect,   ///< no connection was established
    tls,       ///< the peer is not trusted, or the TLS handshake failed
    timeout,   ///< `http_request::timeout` expired
    reset,     ///< the connection ended before the response was complete
    cancelled, ///< cancelled by this process
    other,
};

/// The rule that a `violation` breaks.
enum class rule {
    required,          ///< the member is missing
    type,              ///< the value has another JSON type, or is a fraction in place of an integer
    range,             ///< the integer does not fit in 64 bits signed
    finite,            ///< the number is infinite, is not a number, or exceeds a double
    minimum,           ///< the number is less than `limit`
    maximum,           ///< the number is more than `limit`
    exclusive_minimum, ///< the number is not more than `limit`
    min_length,        ///< fewer code points than `limit`
    max_length,        ///< more code points than `limit`
    one_of,            ///< the text is not in the list of the schema
    date_time,         ///< the text is not a date and time of RFC 3339
    json_object,       ///< the text is not one JSON object; `actual` is the byte offset
    max_depth,         ///< the JSON object nests deeper than `limit`; `actual` is the byte offset
    utf8,              ///< the value is not UTF-8; `actual` is the byte offset
    name_utf8,         ///< a name in a map is not UTF-8; `actual` is the byte offset
    unique,            ///< a member or a name in a map is given more than once
    at_most_one_of,    ///< `actual` members of a group are given, at most `limit` may be
    unknown_member,    ///< the schema has no such member
    max_bytes,         ///< the body has `actual` bytes, at most `limit` are allowed
    trailing_text,     ///< text follows the JSON value; `actual` is the byte offset
    setting,           ///< a member of `config` cannot be used
    service,           ///< reported by the service
    omitted,           ///< stands for `actual` further violations
};

/// One broken rule.
struct violation {
    std::string path{}; ///< `label`, `tags[3]`, `metadata["user"]`; empty for the request as a whole
    promptlayer::rule rule = promptlayer::rule::service;
    std::int64_t limit = 0;   ///< the limit that the rule sets, if it sets one
    std::uint64_t actual = 0; ///< the actual length, count or offset; 0 for a rule on a number
    std::string message{};    ///< the rule, its limit and the measure; never the value

    friend bool operator==(const violation&, const violation&) = default;
};

/// Returns the violation as one line: `label: at most 512 characters, has 513`.
PROMPTLAYER_DECL std::string to_string(const violation& broken);

/// Why a call did not succeed. A plain value. Holds no value of a request and never the API key.
struct error {
    errc code{};
    std::string message{};               ///< everything in one line, violations included; see `to_string`
    int status = 0;                      ///< the HTTP status; 0 if no response arrived
    std::vector<violation> violations{}; ///< the first 64, then one `rule::omitted` for the others
    std::optional<promptlayer::failure> failure{}; ///< set if `code` is `errc::transport`
    bool maybe_delivered = false; ///< no response arrived, but the service may have processed the request
    std::optional<std::chrono::seconds> retry_after{}; ///< from `Retry-After`, not capped
    std::optional<std::size_t> offset{};               ///< byte offset in the text given to `from_json`

    /// Returns true if the same request may succeed soon: after every transport failure except `tls` and
    /// `cancelled`, and after HTTP 408, 429, 500, 502, 503 and 504. `retrying_transport` follows this.
    bool retryable() const noexcept {
        if (failure)
            return *failure != promptlayer::failure::tls && *failure != promptlayer::failure::cancelled;
        return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
               status == 504;
    }

    /// Returns true if the error says something about the service, the key or the way to the service, not
    /// about the request: no response, except after `cancelled`; an invalid config; HTTP 401, 403, 408, 429
    /// and 500 to 599. `outbox` sends such a request again.
    bool is_service_failure() const noexcept {
        if (failure)
            return *failure != promptlayer::failure::cancelled;
        return code == errc::invalid_config || status == 401 || status == 403 || status == 408 ||
               status == 429 || (status >= 500 && status <= 599);
    }
};

/// Returns the error as one line: `message` or, if that is empty, its violations or the text for its code.
PROMPTLAYER_DECL std::string to_string(const error& failed);

namespace detail {

/// Types that `operator<<` prints with `to_string`.
template <class T>
inline constexpr bool is_printable = false;
template <>
inline constexpr bool is_printable<violation> = true;
template <>
inline constexpr bool is_printable<error> = true;

} // namespace detail

/// Prints `to_string(value)`. A template, so that <iosfwd> is enough here.
template <class TraitsT, class ValueT>
requires detail::is_printable<ValueT> std::basic_ostream<char, TraitsT>
&operator<<(std::basic_ostream<char, TraitsT>& out, const ValueT& value) {
    return out << std::string_view{to_string(value)};
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

constexpr const char* message_for(errc code) noexcept {
    switch (code) {
    case errc::invalid_request: return "the request is not valid";
    case errc::invalid_config: return "the configuration is not valid";
    case errc::transport: return "no response from the service";
    case errc::bad_request: return "the service refused the request";
    case errc::unauthorized: return "the service did not accept the API key";
    case errc::forbidden: return "the API key does not permit this";
    case errc::not_found: return "the service does not know the path or what the request names";
    case errc::conflict: return "the request conflicts with data that the service holds";
    case errc::unprocessable: return "the service found the request not valid";
    case errc::rate_limited: return "the service asks for fewer requests";
    case errc::server_error: return "the service failed";
    case errc::unexpected_status: return "the service returned an unexpected status; check base_url";
    case errc::rejected: return "the service reports that it did not succeed";
    case errc::malformed_response: return "the response does not match the interface of the service";
    case errc::malformed_json: return "the text is not JSON";
    case errc::queue_full: return "the queue is full";
    case errc::closed: return "the queue is closed";
    case errc::journal_failed: return "the journal failed";
    }
    return "unknown error";
}

constexpr const char* message_for(failure kind) noexcept {
    switch (kind) {
    case failure::resolve: return "the DNS lookup of the host failed";
    case failure::connect: return "no connection could be established";
    case failure::tls: return "no trusted connection could be established";
    case failure::timeout: return "the timeout expired";
    case failure::reset: return "the connection ended early";
    case failure::cancelled: return "cancelled";
    case failure::other: break;
    }
    return "the transport failed";
}

/// Returns the text for a rule, in which # stands for the limit, $ for the actual measure and ~ for the
/// plural; empty if the text needs names of a schema (detail/violation_collector.hpp) or of the config
/// (config.hpp).
constexpr const char* text_for(rule broken) noexcept {
    switch (broken) {
    case rule::required: return "is required";
    case rule::range: return "must fit in 64 bits signed";
    case rule::finite: return "must be finite as a double";
    case rule::minimum: return "must be at least #";
    case rule::maximum: return "must be at most #";
    case rule::exclusive_minimum: return "must be more than #";
    case rule::min_length: return "at least # character~, has $";
    case rule::max_length: return "at most # character~, has $";
    case rule::date_time: return "must be a date and time such as 2024-01-15T10:30:00Z";
    case rule::json_object: return "must be one JSON object, is not at byte $";
    case rule::max_depth: return "nests deeper than # at byte $";
    case rule::utf8: return "is not UTF-8 at byte $";
    case rule::name_utf8: return "its name is not UTF-8 at byte $";
    case rule::unique: return "is given more than once";
    case rule::unknown_member: return "is not a member of this request";
    case rule::max_bytes: return "the body: at most # bytes, has $";
    case rule::trailing_text: return "text after the JSON value, at byte $";
    case rule::omitted: return "and $ more";
    case rule::type:
    case rule::one_of:
    case rule::at_most_one_of:
    case rule::setting:
    case rule::service: break;
    }
    return "";
}

/// Returns the text of a violation; empty for the same rules.
inline std::string message_for(rule broken, std::int64_t limit, std::uint64_t actual) {
    std::string message;
    for (const char* c = text_for(broken); *c != '\0'; ++c) {
        if (*c == '#')
            message += std::to_string(limit);
        else if (*c == '$')
            message += std::to_string(actual);
        else if (*c != '~')
            message += *c;
        else if (limit != 1)
            message += 's';
    }
    return message;
}

inline std::string join(const std::vector<violation>& violations) {
    std::string text;
    for (const violation& broken : violations)
        text.append(text.empty() ? "" : "; ")
            .append(broken.path)
            .append(broken.path.empty() ? "" : ": ")
            .append(broken.message);
    return text;
}

/// Makes an `invalid_request` or `invalid_config`: the violations are its message.
inline error invalid(errc code, std::vector<violation> violations) {
    error invalid{.code = code, .message = join(violations)};
    invalid.violations = std::move(violations);
    return invalid;
}

/// Keeps the first 64 violations and counts the others, so that no input makes an error large.
class violation_list {
    static constexpr std::size_t max_size = 64;
    std::vector<violation> violations_{};
    std::size_t omitted_ = 0;

public:
    bool empty() const noexcept { return violations_.empty(); }

    /// Calls `make` only if its result is kept.
    template <class MakeT>
    void add(MakeT&& make) {
        if (violations_.size() < max_size)
            violations_.push_back(make());
        else
            ++omitted_;
    }

    std::vector<violation> take() && {
        if (omitted_ != 0)
            violations_.push_back(
                {"", rule::omitted, max_size, omitted_, message_for(rule::omitted, max_size, omitted_)});
        return std::move(violations_);
    }
};

} // namespace detail

PROMPTLAYER_DECL std::string to_string(const violation& broken) {
    return broken.path.empty() ? broken.message : broken.path + ": " + broken.message;
}

PROMPTLAYER_DECL std::string to_string(const error& failed) {
    if (!failed.message.empty())
        return failed.message;
    return failed.violations.empty() ? detail::message_for(failed.code) : detail::join(failed.violations);
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
