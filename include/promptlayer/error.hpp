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
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// What went wrong. The HTTP status decides first: whatever the body of a 503 holds, it is a `server_error`.
enum class errc {
    invalid_request = 1, ///< refused before it was sent; `error::violations` says why
    invalid_config,      ///< the `config` cannot be used; `error::violations` names its members
    transport,           ///< no answer came; `error::failure` says how
    bad_request,         ///< HTTP 400
    unauthorized,        ///< HTTP 401
    forbidden,           ///< HTTP 403
    not_found,           ///< HTTP 404
    conflict,            ///< HTTP 409
    unprocessable,       ///< HTTP 422; `error::violations` holds what the service lists
    rate_limited,        ///< HTTP 429
    server_error,        ///< HTTP 500 to 599
    unexpected_status,   ///< any other status but 200, redirects included
    rejected,            ///< HTTP 200 whose `success` is false
    malformed_response,  ///< HTTP 200 whose body is not what the interface promises, or is too large
    malformed_json,      ///< `from_json` was given what is not JSON; `error::offset` says where
    queue_full,          ///< a queue took no more
    closed,              ///< a queue or tracker was closed before, or a client was moved from
    journal_failed,      ///< a journal did not open; or a request is queued, but not on record
};

/// How a transport failed to bring an answer.
enum class failure {
    resolve,   ///< the host has no address
    connect,   ///< no connection was made
    tls,       ///< the peer is not trusted, or no secure connection could be agreed on
    timeout,   ///< `http_request::timeout` passed
    reset,     ///< the connection ended before the answer was complete
    cancelled, ///< given up on this side
    other,
};

/// The rule that a `violation` breaks.
enum class rule {
    required,       ///< the member is missing
    type,           ///< the value has another JSON type, or a fraction where an integer is due
    range,          ///< an integer that does not fit in 64 bits signed
    min_length,     ///< fewer code points than `limit`
    max_length,     ///< more code points than `limit`
    utf8,           ///< the value is not UTF-8; `actual` is the byte offset
    name_utf8,      ///< the name of a variable is not UTF-8; `actual` is the byte offset
    unique,         ///< a member or the name of a variable is given more than once
    at_most_one_of, ///< `actual` members are given of which `limit` may be
    unknown_member, ///< the schema has no such member
    max_bytes,      ///< a body of `actual` bytes, of which `limit` are allowed
    trailing_text,  ///< text after the JSON value; `actual` is the byte offset
    setting,        ///< a member of `config` that cannot be used
    service,        ///< reported by the service
    omitted,        ///< stands for `actual` further violations
};

/// One broken rule.
struct violation {
    std::string path{}; ///< `label`, `prompt_input_variables["user"]`; empty: the whole
    promptlayer::rule rule = promptlayer::rule::service;
    std::uint64_t limit = 0;  ///< what the rule allows, where it is a measure
    std::uint64_t actual = 0; ///< what was found, in the same measure
    std::string message{};    ///< the rule and the measures in words, never the value

    friend bool operator==(const violation&, const violation&) = default;
};

/// A broken rule as a sentence: `label: at most 512 characters, has 513`.
inline std::string to_string(const violation& v) {
    return v.path.empty() ? v.message : v.path + ": " + v.message;
}

/// What a call came to when it did not succeed. A plain value; holds no value of a request and never the API
/// key.
struct error {
    errc code{};
    std::string message{};               ///< the whole sentence, violations included; see `to_string`
    int status = 0;                      ///< the HTTP status, 0 if none came
    std::vector<violation> violations{}; ///< the first 64, then one `rule::omitted` for the rest
    std::optional<promptlayer::failure> failure{}; ///< set where `code` is `errc::transport`
    bool maybe_delivered = false;                  ///< no answer came, yet the service may have done the work
    std::optional<std::chrono::seconds> retry_after{}; ///< the service's wish, not capped
    std::optional<std::size_t> offset{};               ///< byte offset in the text given to `from_json`

    /// Whether the same request may succeed later: no answer (but for tls and cancelled), or HTTP 408, 429,
    /// 500, 502, 503, 504. The one rule that everything which retries here uses.
    bool retryable() const noexcept {
        if (failure)
            return *failure != promptlayer::failure::tls && *failure != promptlayer::failure::cancelled;
        return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
               status == 504;
    }
};

/// The sentence of an error: what happened and what breaks which rule, on one line. Holds no value of a
/// request.
inline std::string to_string(const error& e);

namespace detail {

// A template, so that <iosfwd> is enough here.
template <class TraitsT, class ValueT>
std::basic_ostream<char, TraitsT>& print(std::basic_ostream<char, TraitsT>& out, const ValueT& value) {
    return out << std::string_view{to_string(value)};
}

} // namespace detail

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out, const violation& v) {
    return detail::print(out, v);
}

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out, const error& e) {
    return detail::print(out, e);
}

namespace detail {

constexpr const char* message_for(errc code) noexcept {
    switch (code) {
    case errc::invalid_request: return "the request is not valid";
    case errc::invalid_config: return "the configuration is not valid";
    case errc::transport: return "no answer from the service";
    case errc::bad_request: return "the service refused the request";
    case errc::unauthorized: return "the service did not accept the API key";
    case errc::forbidden: return "the API key does not permit this";
    case errc::not_found: return "the service does not know the address or what the request names";
    case errc::conflict: return "the request conflicts with what the service holds";
    case errc::unprocessable: return "the service found the request not valid";
    case errc::rate_limited: return "the service asks for fewer requests";
    case errc::server_error: return "the service failed";
    case errc::unexpected_status: return "the service answered with an unexpected status, is base_url right?";
    case errc::rejected: return "the service reports that it did not succeed";
    case errc::malformed_response: return "the answer is not what the service's interface promises";
    case errc::malformed_json: return "the text is not JSON";
    case errc::queue_full: return "the queue is full";
    case errc::closed: return "the queue is closed";
    case errc::journal_failed: return "the journal failed";
    }
    return "unknown error";
}

constexpr const char* message_for(failure kind) noexcept {
    switch (kind) {
    case failure::resolve: return "the host has no address";
    case failure::connect: return "no connection could be made";
    case failure::tls: return "no trusted connection could be made";
    case failure::timeout: return "the time allowed has passed";
    case failure::reset: return "the connection ended early";
    case failure::cancelled: return "cancelled";
    case failure::other: break;
    }
    return "the transport failed";
}

inline std::string join(const std::vector<violation>& violations) {
    std::string text;
    for (const violation& v : violations)
        text.append(text.empty() ? "" : "; ").append(to_string(v));
    return text;
}

} // namespace detail

inline std::string to_string(const error& e) {
    if (!e.message.empty())
        return e.message;
    return e.violations.empty() ? detail::message_for(e.code) : detail::join(e.violations);
}

namespace detail {

/// What a JSON value is, for the sentences on `rule::type`.
enum class json_type { null, boolean, integer, number, string, array, object };

constexpr const char* type_name(json_type type) noexcept {
    switch (type) {
    case json_type::null: return "null";
    case json_type::boolean: return "a boolean";
    case json_type::integer: return "an integer";
    case json_type::number: return "a number";
    case json_type::string: return "a string";
    case json_type::array: return "an array";
    case json_type::object: break;
    }
    return "an object";
}

inline std::string message_for(rule broken, std::uint64_t limit, std::uint64_t actual) {
    const std::string has = ", has " + std::to_string(actual);
    const auto characters = [&] {
        return std::to_string(limit) + (limit == 1 ? " character" : " characters");
    };
    switch (broken) {
    case rule::required: return "is required";
    case rule::range: return "must fit in 64 bits signed";
    case rule::min_length: return "at least " + characters() + has;
    case rule::max_length: return "at most " + characters() + has;
    case rule::utf8: return "is not UTF-8 at byte " + std::to_string(actual);
    case rule::name_utf8: return "its name is not UTF-8 at byte " + std::to_string(actual);
    case rule::unique: return "is given more than once";
    case rule::unknown_member: return "is not a member of this request";
    case rule::max_bytes: return "the body: at most " + std::to_string(limit) + " bytes" + has;
    case rule::trailing_text: return "text after the JSON value, at byte " + std::to_string(actual);
    case rule::omitted: return "and " + std::to_string(actual) + " more";
    case rule::type:
    case rule::at_most_one_of:
    case rule::setting:
    case rule::service: break; // worded where they are found, from names of the schema or of the config
    }
    return {};
}

inline violation wrong_type(std::string path, json_type expected, const char* found) {
    std::string message = path.empty() ? "the body must be " : "must be ";
    message.append(type_name(expected)).append(", is ").append(found);
    return {std::move(path), rule::type, 0, 0, std::move(message)};
}

/// Keeps the first 64 violations and counts the others, so that no input makes an error large.
class violation_list {
    static constexpr std::size_t most = 64;
    std::vector<violation> kept_{};
    std::size_t omitted_ = 0;

public:
    bool empty() const noexcept { return kept_.empty(); }

    /// `make` is called only if what it makes is kept.
    template <class MakeT>
    void add(MakeT&& make) {
        if (kept_.size() < most)
            kept_.push_back(make());
        else
            ++omitted_;
    }

    std::vector<violation> take() && {
        if (omitted_ != 0)
            kept_.push_back({"", rule::omitted, most, omitted_, message_for(rule::omitted, most, omitted_)});
        return std::move(kept_);
    }
};

/// `invalid_request` and `invalid_config`: the violations are the sentence.
inline error invalid(errc code, std::vector<violation> violations) {
    error e{.code = code, .message = join(violations)};
    e.violations = std::move(violations);
    return e;
}

inline error malformed_json(std::size_t offset, std::string_view what) {
    error e{.code = errc::malformed_json};
    e.message = message_for(e.code) + std::string{": "}.append(what) + " at byte " + std::to_string(offset);
    e.offset = offset;
    return e;
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
