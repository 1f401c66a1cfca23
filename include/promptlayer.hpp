// promptlayer 0.1.0: a client for PromptLayer's track-prompt, in one header
// SPDX-License-Identifier: BSL-1.0
// Generated from the parts in include/promptlayer by tests/headers/make_single_header.py; do not edit.
// Needs Boost.JSON 1.81 or later: link boost_json, or put `#include <boost/json/src.hpp>` in one source file.

#if defined(PROMPTLAYER_SOURCE) && defined(PROMPTLAYER_DETAIL_ABI_HPP) && !defined(PROMPTLAYER_DEFINITIONS)
#error "promptlayer: define PROMPTLAYER_SOURCE before the library is included for the first time"
#endif

#ifndef PROMPTLAYER_SINGLE_HEADER_HPP
#define PROMPTLAYER_SINGLE_HEADER_HPP

// Macros that would rewrite names below are set aside, and put back at the end.
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wctad-maybe-unsupported"
#pragma clang diagnostic ignored "-Wweak-vtables"
#pragma clang diagnostic ignored "-Wmissing-braces"
#endif
#pragma push_macro("accept")
#undef accept
#pragma push_macro("Always")
#undef Always
#pragma push_macro("assume")
#undef assume
#pragma push_macro("bind")
#undef bind
#pragma push_macro("bit")
#undef bit
#pragma push_macro("Bool")
#undef Bool
#pragma push_macro("check")
#undef check
#pragma push_macro("checkf")
#undef checkf
#pragma push_macro("clear")
#undef clear
#pragma push_macro("close")
#undef close
#pragma push_macro("closesocket")
#undef closesocket
#pragma push_macro("complex")
#undef complex
#pragma push_macro("connect")
#undef connect
#pragma push_macro("CONST")
#undef CONST
#pragma push_macro("DELETE")
#undef DELETE
#pragma push_macro("E")
#undef E
#pragma push_macro("emit")
#undef emit
#pragma push_macro("ensure")
#undef ensure
#pragma push_macro("erase")
#undef erase
#pragma push_macro("ERROR")
#undef ERROR
#pragma push_macro("error")
#undef error
#pragma push_macro("fail")
#undef fail
#pragma push_macro("FALSE")
#undef FALSE
#pragma push_macro("far")
#undef far
#pragma push_macro("fcntl")
#undef fcntl
#pragma push_macro("Field")
#undef Field
#pragma push_macro("foreach")
#undef foreach
#pragma push_macro("GetCurrentTime")
#undef GetCurrentTime
#pragma push_macro("GetMessage")
#undef GetMessage
#pragma push_macro("GetObject")
#undef GetObject
#pragma push_macro("getpeername")
#undef getpeername
#pragma push_macro("getsockname")
#undef getsockname
#pragma push_macro("getsockopt")
#undef getsockopt
#pragma push_macro("Handler")
#undef Handler
#pragma push_macro("I")
#undef I
#pragma push_macro("IN")
#undef IN
#pragma push_macro("index")
#undef index
#pragma push_macro("inet_ntop")
#undef inet_ntop
#pragma push_macro("inet_pton")
#undef inet_pton
#pragma push_macro("interface")
#undef interface
#pragma push_macro("ioctl")
#undef ioctl
#pragma push_macro("ioctlsocket")
#undef ioctlsocket
#pragma push_macro("likely")
#undef likely
#pragma push_macro("lines")
#undef lines
#pragma push_macro("listen")
#undef listen
#pragma push_macro("max")
#undef max
#pragma push_macro("maybe_unused")
#undef maybe_unused
#pragma push_macro("min")
#undef min
#pragma push_macro("Model")
#undef Model
#pragma push_macro("move")
#undef move
#pragma push_macro("N")
#undef N
#pragma push_macro("near")
#undef near
#pragma push_macro("NO_ERROR")
#undef NO_ERROR
#pragma push_macro("nodiscard")
#undef nodiscard
#pragma push_macro("None")
#undef None
#pragma push_macro("noreturn")
#undef noreturn
#pragma push_macro("OPTIONAL")
#undef OPTIONAL
#pragma push_macro("OUT")
#undef OUT
#pragma push_macro("out")
#undef out
#pragma push_macro("Output")
#undef Output
#pragma push_macro("pause")
#undef pause
#pragma push_macro("poll")
#undef poll
#pragma push_macro("print")
#undef print
#pragma push_macro("random")
#undef random
#pragma push_macro("read")
#undef read
#pragma push_macro("readv")
#undef readv
#pragma push_macro("recv")
#undef recv
#pragma push_macro("recvfrom")
#undef recvfrom
#pragma push_macro("recvmsg")
#undef recvmsg
#pragma push_macro("Report")
#undef Report
#pragma push_macro("Request")
#undef Request
#pragma push_macro("require")
#undef require
#pragma push_macro("round")
#undef round
#pragma push_macro("select")
#undef select
#pragma push_macro("self")
#undef self
#pragma push_macro("send")
#undef send
#pragma push_macro("SendMessage")
#undef SendMessage
#pragma push_macro("sendmsg")
#undef sendmsg
#pragma push_macro("sendto")
#undef sendto
#pragma push_macro("setsockopt")
#undef setsockopt
#pragma push_macro("shutdown")
#undef shutdown
#pragma push_macro("signals")
#undef signals
#pragma push_macro("sleep")
#undef sleep
#pragma push_macro("slots")
#undef slots
#pragma push_macro("small")
#undef small
#pragma push_macro("socket")
#undef socket
#pragma push_macro("Status")
#undef Status
#pragma push_macro("Success")
#undef Success
#pragma push_macro("swap")
#undef swap
#pragma push_macro("T")
#undef T
#pragma push_macro("TEXT")
#undef TEXT
#pragma push_macro("timeout")
#undef timeout
#pragma push_macro("TRUE")
#undef TRUE
#pragma push_macro("U")
#undef U
#pragma push_macro("unlikely")
#undef unlikely
#pragma push_macro("Value")
#undef Value
#pragma push_macro("verify")
#undef verify
#pragma push_macro("verifyf")
#undef verifyf
#pragma push_macro("VOID")
#undef VOID
#pragma push_macro("write")
#undef write
#pragma push_macro("writev")
#undef writev
#pragma push_macro("Yield")
#undef Yield

#include <version>

#ifndef PROMPTLAYER_DETAIL_ABI_HPP
#define PROMPTLAYER_DETAIL_ABI_HPP

// If all files of a program define PROMPTLAYER_SEPARATE_COMPILATION, the headers only declare functions that
// are neither templates nor constexpr. One source file also defines PROMPTLAYER_SOURCE and so compiles these
// functions; `source.cpp` beside the headers is such a file.
#if defined(PROMPTLAYER_SOURCE) && !defined(PROMPTLAYER_SEPARATE_COMPILATION)
#define PROMPTLAYER_SEPARATE_COMPILATION
#endif
#if !defined(PROMPTLAYER_SEPARATE_COMPILATION)
#define PROMPTLAYER_DEFINITIONS
#define PROMPTLAYER_DECL inline
#else
#if defined(PROMPTLAYER_SOURCE)
#define PROMPTLAYER_DEFINITIONS
#endif
#define PROMPTLAYER_DECL
#endif

// The inline namespace of the library. Its name contains each setting that changes a class or the meaning of
// a function.
//
// - Source files with different settings can be linked into one program, unless only some are header-only;
//   each setting has its own classes and functions.
// - A call that passes a type of the library between such files does not link.
// - A user's class that contains a type of the library must not be passed either. No linker reports this.
#if defined(PROMPTLAYER_SEPARATE_COMPILATION) && defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_compiled
#elif defined(PROMPTLAYER_SEPARATE_COMPILATION) && defined(__cpp_exceptions)
#define PROMPTLAYER_SETTINGS v0_compiled_no_threads
#elif defined(PROMPTLAYER_SEPARATE_COMPILATION) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_compiled_no_exceptions
#elif defined(PROMPTLAYER_SEPARATE_COMPILATION)
#define PROMPTLAYER_SETTINGS v0_compiled_no_exceptions_no_threads
#elif defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0
#elif defined(__cpp_exceptions)
#define PROMPTLAYER_SETTINGS v0_no_threads
#elif !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_no_exceptions
#else
#define PROMPTLAYER_SETTINGS v0_no_exceptions_no_threads
#endif

// Settings of libstdc++ that change its containers and strings, and with them the classes that hold these.
#if defined(_GLIBCXX_DEBUG)
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS::inline debug_containers
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS::inline old_strings
#else
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS
#endif

// Puts the namespace also into the name of a function that has a type of the library as its result only.
#if defined(__GNUC__)
namespace promptlayer {
inline namespace PROMPTLAYER_SETTINGS __attribute__((__abi_tag__)) {
#if defined(_GLIBCXX_DEBUG)
    inline namespace debug_containers __attribute__((__abi_tag__)) {}
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
    inline namespace old_strings __attribute__((__abi_tag__)) {}
#endif
} // namespace PROMPTLAYER_SETTINGS
} // namespace promptlayer
#endif

// Files of both modes, header-only and separately compiled, do not link into one program: the linker reports
// that `promptlayer_separate_compilation` differs. LLVM's linkers and those for Windows with MinGW do not;
// there the namespaces keep the modes apart.
#if defined(_MSC_VER)
#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#pragma detect_mismatch("promptlayer_separate_compilation", "1")
#else
#pragma detect_mismatch("promptlayer_separate_compilation", "0")
#endif
#elif defined(__ELF__)
extern "C" {
#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
[[gnu::used, gnu::visibility("hidden")]] inline thread_local char promptlayer_separate_compilation = 1;
#else
[[gnu::used, gnu::visibility("hidden")]] inline char promptlayer_separate_compilation = 0;
#endif
}
#endif

#elif defined(PROMPTLAYER_SOURCE) && !defined(PROMPTLAYER_DEFINITIONS)
#error "promptlayer: define PROMPTLAYER_SOURCE before the library is included for the first time"
#endif

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <system_error>
#endif

#ifndef PROMPTLAYER_RESULT_HPP
#define PROMPTLAYER_RESULT_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

struct error;

namespace detail {

[[noreturn]] PROMPTLAYER_DECL void misuse(const char* message);

} // namespace detail

/// Holds a value or an error, with the names of C++23's `std::expected`. Access to the alternative that is
/// not held ends the program with a message on standard error; it is never undefined behaviour.
template <class T, class E = error>
class [[nodiscard]] result {
    using stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;
    std::variant<stored, E> storage_{};

    template <std::size_t I, class VariantT>
    static constexpr auto& get(VariantT& storage) {
        if (storage.index() != I)
            detail::misuse(I == 0 ? "promptlayer: a result was asked for its value, but holds an error\n"
                                  : "promptlayer: a result was asked for its error, but holds a value\n");
        return *std::get_if<I>(&storage);
    }

public:
    using value_type = T;
    using error_type = E;

    constexpr result() requires std::is_void_v<T>
    = default;
    constexpr result(stored value) : storage_{std::in_place_index<0>, std::move(value)} {}
    constexpr result(E failure) : storage_{std::in_place_index<1>, std::move(failure)} {}

    constexpr bool has_value() const noexcept { return storage_.index() == 0; }
    constexpr explicit operator bool() const noexcept { return has_value(); }

    constexpr stored& value() & { return get<0>(storage_); }
    constexpr const stored& value() const& { return get<0>(storage_); }
    constexpr stored&& value() && { return std::move(get<0>(storage_)); }
    constexpr stored& operator*() & { return get<0>(storage_); }
    constexpr const stored& operator*() const& { return get<0>(storage_); }
    constexpr stored&& operator*() && { return std::move(get<0>(storage_)); }
    constexpr stored* operator->() { return &get<0>(storage_); }
    constexpr const stored* operator->() const { return &get<0>(storage_); }

    constexpr E& error() & { return get<1>(storage_); }
    constexpr const E& error() const& { return get<1>(storage_); }
    constexpr E&& error() && { return std::move(get<1>(storage_)); }

    template <class U>
    constexpr stored value_or(U&& other) const& {
        return has_value() ? **this : static_cast<stored>(std::forward<U>(other));
    }
    template <class U>
    constexpr stored value_or(U&& other) && {
        return has_value() ? *std::move(*this) : static_cast<stored>(std::forward<U>(other));
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_ERROR_HPP
#define PROMPTLAYER_ERROR_HPP


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

#endif

#ifndef PROMPTLAYER_DETAIL_TEXT_HPP
#define PROMPTLAYER_DETAIL_TEXT_HPP

#if defined(PROMPTLAYER_DEFINITIONS)
#if defined(PROMPTLAYER_NO_SIMD)
#elif defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The result of `scan`.
struct text_scan {
    bool valid_utf8 = true;      ///< by RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF
    std::size_t code_points = 0; ///< up to the first invalid byte; JSON Schema's measure of length
    std::size_t json_bytes = 0;  ///< size between the quotes in JSON, with invalid bytes as they are
    std::size_t invalid_at = 0;  ///< byte offset of the first invalid sequence, if `valid_utf8` is false
};

/// Returns the size in bytes of the UTF-8 sequence at `p`, 1 to 4; 0 if it is invalid or cut by `end`. `p` is
/// before `end`.
constexpr std::size_t sequence_length(const char* p, const char* end) noexcept {
    const auto byte = [&](std::ptrdiff_t i) { return static_cast<unsigned char>(p[i]); };
    const auto continues = [&](std::ptrdiff_t i, unsigned low = 0x80, unsigned high = 0xBF) {
        return end - p > i && byte(i) >= low && byte(i) <= high;
    };
    const unsigned lead = byte(0);
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return continues(1) ? 2 : 0;
    if (lead >= 0xE0 && lead <= 0xEF)
        return continues(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && continues(2) ? 3 : 0;
    if (lead >= 0xF0 && lead <= 0xF4)
        return continues(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && continues(2) &&
                       continues(3)
                   ? 4
                   : 0;
    return 0;
}

/// Returns how many bytes JSON needs for an ASCII character in a string.
constexpr std::size_t json_length(char c) noexcept {
    if (c == '"' || c == '\\' || (c >= '\b' && c <= '\r' && c != '\v'))
        return 2;
    return static_cast<unsigned char>(c) < 0x20 ? 6 : 1;
}

/// Scans one code point after the other.
constexpr text_scan scan_code_points(std::string_view text) noexcept {
    text_scan scanned;
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p != end;) {
        const std::size_t length = sequence_length(p, end);
        if (length == 0 && scanned.valid_utf8) {
            scanned.valid_utf8 = false;
            scanned.invalid_at = static_cast<std::size_t>(p - text.data());
        }
        scanned.code_points += scanned.valid_utf8 ? 1 : 0;
        scanned.json_bytes += length == 1 ? json_length(*p) : length == 0 ? 1 : length;
        p += length == 0 ? 1 : length;
    }
    return scanned;
}

/// Does the same in blocks.
PROMPTLAYER_DECL text_scan scan_blocks(std::string_view text) noexcept;

/// Scans a string. Linear, no allocation.
constexpr text_scan scan(std::string_view text) noexcept {
    return std::is_constant_evaluated() ? scan_code_points(text) : scan_blocks(text);
}

constexpr char ascii_lower(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

/// Compares ASCII letters without regard to case.
constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size())
        return false;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (ascii_lower(a[i]) != ascii_lower(b[i]))
            return false;
    }
    return true;
}

/// Removes spaces and tabs from both ends.
constexpr std::string_view trim(std::string_view text) noexcept {
    const std::size_t first = text.find_first_not_of(" \t");
    text.remove_prefix(first == text.npos ? text.size() : first);
    return text.substr(0, text.find_last_not_of(" \t") + 1);
}

/// Returns at most `max_code_points` of `text`, with JSON's escapes for quotes, backslashes and hidden
/// characters.
PROMPTLAYER_DECL std::string json_escape(std::string_view text, std::size_t max_code_points = 64);

/// Returns at most `max_bytes` of `text` in whole code points. A space replaces each hidden character, U+FFFD
/// each invalid byte.
PROMPTLAYER_DECL std::string sanitize(std::string_view text, std::size_t max_bytes);

#if defined(PROMPTLAYER_DEFINITIONS)

/// A block of 8 bytes, the first in the lowest bits. Functions that test bytes return flags: bit 7 of each
/// byte; the other bits of flags mean nothing.
struct word_block {
    static constexpr std::size_t size = 8;
    static constexpr int flag_distance = 8; ///< between two bits of `mask`

    std::uint64_t bits = 0;

    static constexpr std::uint64_t repeat(unsigned byte) noexcept {
        return std::uint64_t{0x0101010101010101} * byte;
    }

    template <class WordT>
    static std::uint64_t read(const char* p) noexcept {
        WordT value = 0;
        if constexpr (std::endian::native == std::endian::little) {
            std::memcpy(&value, p, sizeof value);
        } else {
            for (std::size_t i = 0; i < sizeof value; ++i)
                value |= WordT{static_cast<unsigned char>(p[i])} << 8 * i;
        }
        return value;
    }

    static word_block load(const char* p) noexcept { return {read<std::uint64_t>(p)}; }

    /// Loads `count` bytes, 1 to 8. The others are spaces.
    static word_block load(const char* p, std::size_t count) noexcept {
        const std::uint64_t spaces = count == size ? 0 : repeat(' ') << 8 * count;
        if (count >= 4)
            return {spaces | read<std::uint32_t>(p) | read<std::uint32_t>(p + count - 4) << 8 * (count - 4)};
        return {spaces | read<std::uint8_t>(p) | read<std::uint8_t>(p + count / 2) << 8 * (count / 2) |
                read<std::uint8_t>(p + count - 1) << 8 * (count - 1)};
    }

    void store(char* out) const noexcept {
        if constexpr (std::endian::native == std::endian::little) {
            std::memcpy(out, &bits, size);
        } else {
            for (std::size_t i = 0; i < size; ++i)
                out[i] = static_cast<char>(bits >> 8 * i);
        }
    }

    /// Flags bytes of at least `limit`, which is 0x80 to 0xFF.
    word_block at_least(unsigned limit) const noexcept {
        switch (limit) {
        case 0xC0: return {bits & bits << 1};
        case 0xE0: return {bits & bits << 1 & bits << 2};
        case 0xF0: return {bits & bits << 1 & bits << 2 & bits << 3};
        default: return {bits & ((bits & repeat(0x7F)) + repeat(0x100 - limit))};
        }
    }

    word_block equals(unsigned byte) const noexcept {
        const std::uint64_t difference = bits ^ repeat(byte);
        return {~(((difference & repeat(0x7F)) + repeat(0x7F)) | difference)};
    }

    /// Flags bytes from 0x80 to 0xBF.
    word_block continuations() const noexcept { return {bits & ~(bits << 1)}; }

    /// Flags quotes, backslashes, control characters and bytes that are not ASCII.
    word_block special() const noexcept {
        const auto seven_bits = [](std::uint64_t value) { return value & repeat(0x7F); };
        const std::uint64_t above_quote =
            seven_bits(bits ^ repeat(2)) + repeat(0x80 - 0x21); // '"' ^ 2 == ' '
        const std::uint64_t no_backslash = seven_bits(bits ^ repeat('\\')) + repeat(0x7F);
        return {bits | ~(above_quote & no_backslash)};
    }

    /// Flags quotes, backslashes and control characters.
    word_block escaped() const noexcept { return without(special(), *this); }

    /// Returns the `N` last bytes of `before`, then the first of this block.
    template <int N>
    word_block after(word_block before) const noexcept {
        return {bits << 8 * N | before.bits >> (64 - 8 * N)};
    }

    /// Returns one bit for each flag, the lowest for the first byte.
    std::uint64_t mask() const noexcept { return bits & repeat(0x80); }
    bool any() const noexcept { return mask() != 0; }

    /// Adds one to each byte that `flags` flags, which `continuations` returned.
    void count(word_block flags) noexcept { bits += flags.bits >> 7 & repeat(1); }

    /// Returns the sum of all bytes.
    std::size_t sum() const noexcept {
        constexpr std::uint64_t even = 0x00FF00FF00FF00FF, ones = 0x0001000100010001;
        return static_cast<std::uint32_t>(((bits & even) + (bits >> 8 & even)) * ones >> 48);
    }

    friend word_block operator&(word_block a, word_block b) noexcept { return {a.bits & b.bits}; }
    friend word_block operator|(word_block a, word_block b) noexcept { return {a.bits | b.bits}; }
    friend word_block operator^(word_block a, word_block b) noexcept { return {a.bits ^ b.bits}; }
    friend word_block without(word_block a, word_block b) noexcept { return {a.bits & ~b.bits}; }
};

#if defined(PROMPTLAYER_NO_SIMD)

using vector_block = word_block;

#elif defined(__SSE2__) || defined(_M_X64)

/// A block of 16 bytes; see `word_block`.
struct vector_block {
    static constexpr std::size_t size = 16;
    static constexpr int flag_distance = 1;

    __m128i bits = _mm_setzero_si128();

    static __m128i repeat(unsigned byte) noexcept { return _mm_set1_epi8(static_cast<char>(byte)); }

    static vector_block load(const char* p) noexcept {
        return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))};
    }
    static vector_block load(word_block low, word_block high) noexcept {
        return {_mm_set_epi64x(static_cast<std::int64_t>(high.bits), static_cast<std::int64_t>(low.bits))};
    }
    void store(char* out) const noexcept { _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bits); }

    vector_block at_least(unsigned limit) const noexcept {
        return {_mm_subs_epu8(bits, repeat(limit - 0x80))};
    }
    vector_block equals(unsigned byte) const noexcept { return {_mm_cmpeq_epi8(bits, repeat(byte))}; }
    vector_block continuations() const noexcept { return {_mm_cmplt_epi8(bits, repeat(0xC0))}; }

    vector_block special() const noexcept { // a signed byte that is not ASCII is negative
        return {_mm_or_si128(_mm_cmplt_epi8(_mm_xor_si128(bits, repeat(2)), repeat(0x21)),
                             _mm_cmpeq_epi8(bits, repeat('\\')))};
    }
    vector_block escaped() const noexcept { return without(special(), *this); }

    template <int N>
    vector_block after(vector_block before) const noexcept {
        return {_mm_or_si128(_mm_slli_si128(bits, N), _mm_srli_si128(before.bits, 16 - N))};
    }

    std::uint64_t mask() const noexcept { return static_cast<unsigned>(_mm_movemask_epi8(bits)); }
    bool any() const noexcept { return mask() != 0; }

    void count(vector_block flags) noexcept { bits = _mm_sub_epi8(bits, flags.bits); }
    std::size_t sum() const noexcept {
        const __m128i sums = _mm_sad_epu8(bits, _mm_setzero_si128());
        return static_cast<std::size_t>(_mm_cvtsi128_si32(sums)) +
               static_cast<std::size_t>(_mm_cvtsi128_si32(_mm_unpackhi_epi64(sums, sums)));
    }

    friend vector_block operator&(vector_block a, vector_block b) noexcept {
        return {_mm_and_si128(a.bits, b.bits)};
    }
    friend vector_block operator|(vector_block a, vector_block b) noexcept {
        return {_mm_or_si128(a.bits, b.bits)};
    }
    friend vector_block operator^(vector_block a, vector_block b) noexcept {
        return {_mm_xor_si128(a.bits, b.bits)};
    }
    friend vector_block without(vector_block a, vector_block b) noexcept {
        return {_mm_andnot_si128(b.bits, a.bits)};
    }
};

#elif defined(__aarch64__) || defined(_M_ARM64)

/// A block of 16 bytes; see `word_block`.
struct vector_block {
    static constexpr std::size_t size = 16;
    static constexpr int flag_distance = 4;

    uint8x16_t bits = vdupq_n_u8(0);

    static uint8x16_t repeat(unsigned byte) noexcept { return vdupq_n_u8(static_cast<std::uint8_t>(byte)); }

    static vector_block load(const char* p) noexcept {
        return {vld1q_u8(reinterpret_cast<const std::uint8_t*>(p))};
    }
    static vector_block load(word_block low, word_block high) noexcept {
        return {vcombine_u8(vcreate_u8(low.bits), vcreate_u8(high.bits))};
    }
    void store(char* out) const noexcept { vst1q_u8(reinterpret_cast<std::uint8_t*>(out), bits); }

    vector_block at_least(unsigned limit) const noexcept { return {vqsubq_u8(bits, repeat(limit - 0x80))}; }
    vector_block equals(unsigned byte) const noexcept { return {vceqq_u8(bits, repeat(byte))}; }
    vector_block continuations() const noexcept {
        return {vcltq_s8(vreinterpretq_s8_u8(bits), vreinterpretq_s8_u8(repeat(0xC0)))};
    }

    vector_block special() const noexcept { // a signed byte that is not ASCII is negative
        return {vorrq_u8(vcltq_s8(vreinterpretq_s8_u8(veorq_u8(bits, repeat(2))), vdupq_n_s8(0x21)),
                         vceqq_u8(bits, repeat('\\')))};
    }
    vector_block escaped() const noexcept { return without(special(), *this); }

    template <int N>
    vector_block after(vector_block before) const noexcept {
        return {vextq_u8(before.bits, bits, 16 - N)};
    }

    std::uint64_t mask() const noexcept {
        const int8x16_t whole = vshrq_n_s8(vreinterpretq_s8_u8(bits), 7); // each byte is 0 or 0xFF
        const uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_s8(whole), 4);
        return vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x8888888888888888;
    }
    bool any() const noexcept { return vmaxvq_u8(bits) >= 0x80; }
    void count(vector_block flags) noexcept { bits = vsubq_u8(bits, flags.bits); }
    std::size_t sum() const noexcept { return vaddlvq_u8(bits); }

    friend vector_block operator&(vector_block a, vector_block b) noexcept {
        return {vandq_u8(a.bits, b.bits)};
    }
    friend vector_block operator|(vector_block a, vector_block b) noexcept {
        return {vorrq_u8(a.bits, b.bits)};
    }
    friend vector_block operator^(vector_block a, vector_block b) noexcept {
        return {veorq_u8(a.bits, b.bits)};
    }
    friend vector_block without(vector_block a, vector_block b) noexcept {
        return {vbicq_u8(a.bits, b.bits)};
    }
};

#else

using vector_block = word_block;

#endif

/// Loads the first `count` bytes of a block, 1 or more. The others are spaces.
template <class BlockT>
BlockT load_part(const char* p, std::size_t count) noexcept {
    if constexpr (std::is_same_v<BlockT, word_block>)
        return word_block::load(p, count);
    else if (count > word_block::size)
        return BlockT::load(word_block::load(p),
                            word_block::load(p + word_block::size, count - word_block::size));
    else
        return BlockT::load(word_block::load(p, count), {word_block::repeat(' ')});
}

/// Checks UTF-8 and counts continuations, block by block.
template <class BlockT>
struct utf8_checker {
    BlockT suspects{};      ///< flags bytes at which UTF-8 is broken; also each byte of at least 0xF4
    BlockT continuations{}; ///< their number at each place

    /// Checks a block of a text without sequences of more than two bytes. `first` is the text from one byte
    /// before. Each byte has to be a continuation if the one before it begins a sequence, and nothing else.
    void check_short(BlockT block, BlockT first) noexcept { add(block, first, first.at_least(0xC0)); }

    /// Checks a block of any text; `second` and `third` are the text from two and three bytes before.
    void check(BlockT block, BlockT first, BlockT second, BlockT third) noexcept {
        const BlockT from_90 = block.at_least(0x90), from_a0 = block.at_least(0xA0);
        add(block, first, first.at_least(0xC0) | second.at_least(0xE0) | third.at_least(0xF0));
        suspects = suspects | without(first.equals(0xE0), from_a0) | (first.equals(0xED) & from_a0) |
                   without(first.equals(0xF0), from_90) | block.at_least(0xF4);
    }

    /// The same with `before`, the block before.
    void check(BlockT block, BlockT before) noexcept {
        check(block, block.template after<1>(before), block.template after<2>(before),
              block.template after<3>(before));
    }

private:
    void add(BlockT block, BlockT first, BlockT expected) noexcept {
        const BlockT found = block.continuations();
        continuations.count(found);
        suspects = suspects | (expected ^ found) | without(first.at_least(0xC0), first.at_least(0xC2));
    }
};

/// A byte as JSON writes it in a string: of a sequence of several bytes, each stays as it is.
struct escaped_byte {
    char text[7];
    unsigned char size;
};

inline constexpr auto escape_table = [] {
    constexpr char hex[] = "0123456789abcdef", controls[] = "btn?fr";
    std::array<escaped_byte, 256> table{};
    for (unsigned i = 0; i < 256; ++i) {
        const char c = static_cast<char>(i);
        escaped_byte& entry = table[i];
        entry.size = static_cast<unsigned char>(i < 0x80 ? json_length(c) : 1);
        if (entry.size == 1)
            entry.text[0] = c;
        else if (entry.size == 2)
            entry = {{'\\', i >= '\b' && i <= '\r' ? controls[i - '\b'] : c}, 2};
        else
            entry = {{'\\', 'u', '0', '0', hex[i >> 4], hex[i & 15]}, 6};
    }
    return table;
}();

/// Writes a character as JSON writes it in a string. May write up to 7 bytes more than it says.
inline char* write_escaped(char c, char* out) noexcept {
    const escaped_byte& entry = escape_table[static_cast<unsigned char>(c)];
    std::memcpy(out, &entry, sizeof entry);
    return out + entry.size;
}

/// Writes `count` bytes of a text that ends at `text_end`; `escapes` says which of them need escapes.
template <class BlockT>
inline char* write_with_escapes(std::uint64_t escapes, const char* p, std::size_t count, const char* text_end,
                                char* out) noexcept {
    const char* const end = p + count;
    if (static_cast<std::size_t>(text_end - p) < 2 * BlockT::size) {
        for (; p != end; ++p)
            out = write_escaped(*p, out);
        return out;
    }
    for (const char* const first = p; escapes != 0; escapes &= escapes - 1) {
        const char* const escaped = first + std::countr_zero(escapes) / BlockT::flag_distance;
        std::memcpy(out, p, BlockT::size); // more than is needed
        out = write_escaped(*escaped, out + (escaped - p));
        p = escaped + 1;
    }
    std::memcpy(out, p, BlockT::size);
    return out + (end - p);
}

/// Writes a block, which is the first `count` bytes at `p`.
template <class BlockT>
inline char* write_block(BlockT block, const char* p, std::size_t count, const char* text_end,
                         char* out) noexcept {
    const std::uint64_t escapes = block.escaped().mask();
    if (escapes != 0)
        return write_with_escapes<BlockT>(escapes, p, count, text_end, out);
    block.store(out);
    return out + count;
}

/// Copies text to `out`, block by block, up to the first block with a byte that is escaped or not ASCII.
/// Returns how many bytes that are. May write up to a block more than it says.
template <class BlockT>
inline std::size_t copy_plain(std::string_view text, char* out) noexcept {
    std::size_t i = 0;
    for (; text.size() - i >= BlockT::size; i += BlockT::size) {
        const BlockT block = BlockT::load(text.data() + i);
        if (block.special().any())
            return i;
        block.store(out + i);
    }
    if (i == text.size())
        return i;
    const BlockT block = load_part<BlockT>(text.data() + i, text.size() - i);
    if (block.special().any())
        return i;
    block.store(out + i);
    return text.size();
}

/// Writes the end of a text. `before` is the block before it. May write up to a block more than it says.
template <class BlockT>
char* write_blocks(std::string_view text, BlockT before, char* out, utf8_checker<BlockT>& utf8) noexcept {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p != end) {
        const auto rest = static_cast<std::size_t>(end - p);
        const std::size_t count = std::min(rest, BlockT::size);
        const BlockT block = count == BlockT::size ? BlockT::load(p) : load_part<BlockT>(p, count);
        if ((block | before).any())
            utf8.check(block, before);
        out = write_block(block, p, count, end, out);
        before = block;
        p += count;
    }
    if (before.any())
        utf8.check({}, before); // the last sequence may be cut
    return out;
}

/// Writes text as JSON writes it between quotes, and scans it in the same pass; piece by piece into a buffer
/// of fixed size.
template <class BlockT>
class text_escaper {
    static constexpr std::size_t size = BlockT::size, group_size = 4 * size;

    const char* const begin_;
    const char* const end_;
    const char* p_ = begin_; // what is not written yet
    std::size_t continuations_ = 0, json_bytes_ = 0;
    bool is_ascii_ = true; // the last group
    utf8_checker<BlockT> utf8_{};

    std::size_t rest() const noexcept { return static_cast<std::size_t>(end_ - p_); }

    /// Checks the UTF-8 of a group of four blocks at `p`. There is a block before it.
    void check_group(const char* p) noexcept {
        BlockT is_long;
        for (const char* at = p - size; at != p + group_size; at += size)
            is_long = is_long | BlockT::load(at).at_least(0xE0);
        utf8_checker<BlockT> utf8 = utf8_; // in registers
        if (is_long.any()) {
            for (const char* at = p; at != p + group_size; at += size)
                utf8.check(BlockT::load(at), BlockT::load(at - 1), BlockT::load(at - 2),
                           BlockT::load(at - 3));
        } else {
            for (const char* at = p; at != p + group_size; at += size)
                utf8.check_short(BlockT::load(at), BlockT::load(at - 1));
        }
        utf8_ = utf8;
    }

    /// Writes at most `count` groups of four blocks, and none at or after `limit`. There is a block before
    /// them.
    char* write_groups(std::size_t count, char* out, const char* limit) noexcept {
        const char* p = p_;
        for (; count != 0 && out < limit; --count, p += group_size) {
            const BlockT last = BlockT::load(p - size), a = BlockT::load(p), b = BlockT::load(p + size),
                         c = BlockT::load(p + 2 * size), d = BlockT::load(p + 3 * size);
            if (!is_ascii_ || (a.special() | b.special() | c.special() | d.special() | last).any()) {
                is_ascii_ = !(a | b | c | d | last).any();
                if (!is_ascii_)
                    check_group(p);
                if ((a.escaped() | b.escaped() | c.escaped() | d.escaped()).any()) {
                    out = write_block(a, p, size, end_, out);
                    out = write_block(b, p + size, size, end_, out);
                    out = write_block(c, p + 2 * size, size, end_, out);
                    out = write_block(d, p + 3 * size, size, end_, out);
                    continue;
                }
            }
            a.store(out);
            b.store(out + size);
            c.store(out + 2 * size);
            d.store(out + 3 * size);
            out += group_size;
        }
        p_ = p;
        return out;
    }

public:
    /// The room that a piece needs: for a block, a group and the end, and what is written too much.
    static constexpr std::size_t min_room = 6 * (size + 2 * group_size) + size;

    explicit text_escaper(std::string_view text) noexcept : begin_(text.data()), end_(begin_ + text.size()) {}

    /// Writes to `out` as much of the text as has room there, and returns the end. There is room for
    /// `min_room`.
    char* write_piece(char* const out, const char* const out_end) noexcept {
        constexpr std::size_t max_groups = 60; // else the bytes in `utf8_.continuations` overflow
        char* end = out;
        BlockT before{};
        utf8_.continuations = {};
        if (p_ == begin_ && rest() >= group_size) {
            before = BlockT::load(p_);
            utf8_.check(before, {});
            end = write_block(before, p_, size, end_, end);
            p_ += size;
        }
        if (rest() >= group_size)
            end =
                write_groups(std::min(rest() / group_size, max_groups), end, out_end - (min_room - 6 * size));
        if (rest() < group_size) {
            if (p_ != begin_)
                before = BlockT::load(p_ - size);
            end = write_blocks({p_, rest()}, before, end, utf8_);
            p_ = end_;
        }
        continuations_ += utf8_.continuations.sum();
        json_bytes_ += static_cast<std::size_t>(end - out);
        return end;
    }

    /// Returns true if all of the text is written.
    bool is_finished() const noexcept { return p_ == end_; }

    /// Returns the scan of a text that is finished.
    text_scan scan() const noexcept {
        const auto bytes = static_cast<std::size_t>(end_ - begin_);
        if (utf8_.suspects.any())
            return scan_code_points({begin_, bytes}); // decides, and finds the place
        return {.code_points = bytes - continuations_, .json_bytes = json_bytes_};
    }
};

PROMPTLAYER_DECL text_scan scan_blocks(std::string_view text) noexcept {
    char unused[4096];
    text_escaper<vector_block> escaper{text};
    do
        escaper.write_piece(unused, unused + sizeof unused);
    while (!escaper.is_finished());
    return escaper.scan();
}

/// One code point of a text that is shown to a person.
struct shown_code_point {
    std::string_view bytes; ///< U+FFFD for an invalid byte
    char32_t code;
    bool hidden; ///< see `is_hidden`
};

/// Returns true if a code point could change how a log shows the text around it, or hide text: controls, line
/// and paragraph separators, and format characters except the joiners of emoji and scripts.
constexpr bool is_hidden(char32_t code) noexcept {
    constexpr char32_t ranges[][2] = {
        {0, 0x1F},        {0x7F, 0x9F},       {0xAD, 0xAD},       {0x61C, 0x61C},    {0x180E, 0x180E},
        {0x200B, 0x200B}, {0x200E, 0x200F},   {0x2028, 0x202E},   {0x2060, 0x206F},  {0xFEFF, 0xFEFF},
        {0xFFF9, 0xFFFB}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}};
    if (code >= ' ' && code < 0x7F)
        return false; // most text is ASCII
    return std::any_of(std::begin(ranges), std::end(ranges),
                       [=](const auto& range) { return code >= range[0] && code <= range[1]; });
}

/// Removes one code point from the front of `rest`, which is not empty, and returns it.
inline shown_code_point take_code_point(std::string_view& rest) noexcept {
    const std::size_t length = sequence_length(rest.data(), rest.data() + rest.size());
    const std::string_view bytes = rest.substr(0, length);
    rest.remove_prefix(length == 0 ? 1 : length);
    if (length == 0)
        return {"\xEF\xBF\xBD", 0xFFFD, false};
    constexpr unsigned char lead_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    char32_t code = static_cast<unsigned char>(bytes[0]) & lead_bits[length];
    for (const char c : bytes.substr(1))
        code = code << 6 | (static_cast<unsigned char>(c) & 0x3F);
    return {bytes, code, is_hidden(code)};
}

PROMPTLAYER_DECL std::string json_escape(std::string_view text, std::size_t max_code_points) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string out;
    for (; !text.empty() && max_code_points != 0; --max_code_points) {
        const auto [bytes, code, hidden] = take_code_point(text);
        if (!hidden) {
            (out += bytes == "\"" || bytes == "\\" ? "\\" : "") += bytes;
            continue;
        }
        const auto append_unit = [&](char32_t unit) {
            out += "\\u";
            for (int shift = 12; shift >= 0; shift -= 4)
                out += hex[unit >> shift & 15];
        };
        if (code > 0xFFFF)
            append_unit(0xD800 + ((code - 0x10000) >> 10));
        append_unit(code > 0xFFFF ? 0xDC00 + (code & 0x3FF) : code);
    }
    return out;
}

PROMPTLAYER_DECL std::string sanitize(std::string_view text, std::size_t max_bytes) {
    const auto is_visible_ascii = [](char c) { return c >= ' ' && c <= '~'; };
    std::string out;
    out.reserve(std::min(text.size(), max_bytes));
    while (!text.empty()) {
        const auto run_end = std::find_if_not(text.begin(), text.end(), is_visible_ascii);
        const std::size_t run =
            std::min(static_cast<std::size_t>(run_end - text.begin()), max_bytes - out.size());
        out += text.substr(0, run);
        text.remove_prefix(run);
        if (text.empty() || is_visible_ascii(text[0]))
            break;
        auto [bytes, code, hidden] = take_code_point(text);
        if (hidden)
            bytes = " ";
        if (bytes.size() > max_bytes - out.size())
            break;
        out += bytes;
    }
    return out;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_JSON_TEXT_HPP
#define PROMPTLAYER_DETAIL_JSON_TEXT_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

enum class json_text_error { none, malformed, utf8, max_depth };

/// The result of `check_json_object`.
struct json_text_check {
    json_text_error error = json_text_error::none; ///< `utf8` only within a string
    std::size_t offset = 0;                        ///< of the error in bytes; without one, of the end
};

/// Returns the end of the run of ASCII at `p` that JSON writes without escapes.
PROMPTLAYER_DECL const char* skip_plain_ascii(const char* p, const char* end) noexcept;

/// Reads JSON text from `p` on. A `take` function moves `p` past what it names and returns true; otherwise it
/// returns false, and `p` is at the error.
struct json_text_reader {
    const char* p;
    const char* const end;
    json_text_error error = json_text_error::malformed; ///< if a `take` function returns false

    constexpr explicit json_text_reader(std::string_view text) noexcept
        : p(text.data()), end(text.data() + text.size()) {}

    constexpr bool at(char first, char last) const noexcept { return p != end && *p >= first && *p <= last; }

    constexpr bool take(std::string_view token) noexcept {
        const bool is_next = std::string_view{p, static_cast<std::size_t>(end - p)}.starts_with(token);
        p += is_next ? token.size() : 0;
        return is_next;
    }

    constexpr bool take(char c) noexcept {
        if (!at(c, c))
            return false;
        ++p;
        return true;
    }

    constexpr void skip_space() noexcept {
        while (p != end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
            ++p;
    }

    constexpr bool take_digits() noexcept {
        const char* const first = p;
        while (at('0', '9'))
            ++p;
        return p != first;
    }

    constexpr bool take_number() noexcept {
        const char* const first = p;
        take('-');
        if ((!take('0') && !take_digits()) || (take('.') && !take_digits()))
            return false;
        // Boost.JSON rejects an exponent if 32 bits cannot hold it together with the digits that it shifts.
        // This bound is simpler, and rejects a few more exponents near it.
        const std::int64_t max_exponent = 0x7FFFFFFF - (p - first - 1);
        if (!take('e') && !take('E'))
            return true;
        if (!take('+'))
            take('-');
        const char* const digits = p;
        for (std::int64_t exponent = 0; at('0', '9'); ++p) {
            exponent = exponent * 10 + (*p - '0');
            if (exponent > max_exponent)
                return false;
        }
        return p != digits;
    }

    constexpr bool take_hex(unsigned& unit) noexcept {
        unit = 0;
        for (int i = 0; i < 4; ++i, ++p) {
            constexpr std::string_view digits = "0123456789abcdef";
            const std::size_t digit = p == end ? digits.npos : digits.find(ascii_lower(*p));
            if (digit == digits.npos)
                return false;
            unit = unit << 4 | static_cast<unsigned>(digit);
        }
        return true;
    }

    /// Takes the rest of an escape, after its backslash. Surrogates must be pairs.
    constexpr bool take_escape() noexcept {
        unsigned unit = 0, low = 0;
        if (take('u'))
            return take_hex(unit) &&
                   (unit < 0xD800 || unit > 0xDFFF ||
                    (unit < 0xDC00 && take("\\u") && take_hex(low) && low >= 0xDC00 && low <= 0xDFFF));
        return p != end && std::string_view{"\"\\/bfnrt"}.find(*p++) != std::string_view::npos;
    }

    constexpr bool take_string() noexcept {
        if (!take('"'))
            return false;
        for (;;) {
            if (!std::is_constant_evaluated())
                p = skip_plain_ascii(p, end);
            if (take('"'))
                return true;
            const char* const first = p;
            if (p == end || static_cast<unsigned char>(*p) < 0x20)
                return false;
            if (take('\\')) {
                if (!take_escape()) {
                    p = first;
                    return false;
                }
            } else if (const std::size_t length = sequence_length(p, end); length == 0) {
                error = json_text_error::utf8;
                return false;
            } else {
                p += length;
            }
        }
    }

    /// Takes the text before a member's value.
    constexpr bool take_name(std::string_view& name) noexcept {
        const char* const first = p;
        if (!take_string())
            return false;
        name = {first + 1, static_cast<std::size_t>(p - first - 2)};
        skip_space();
        const bool is_name = take(':');
        skip_space();
        return is_name;
    }

    /// Takes an object or array. Calls `take_member(index, name)` at each value: with its position from 0,
    /// and its name as written between the quotes, which is empty in an array. It takes the value.
    template <class TakeT>
    constexpr bool take_members(TakeT&& take_member) {
        const bool is_object = take('{');
        if (!is_object && !take('['))
            return false;
        const char close = is_object ? '}' : ']';
        skip_space();
        if (take(close))
            return true;
        std::size_t index = 0;
        do {
            skip_space();
            std::string_view name;
            if ((is_object && !take_name(name)) || !take_member(index++, name))
                return false;
            skip_space();
        } while (take(','));
        return take(close);
    }

    /// Calls itself for nested values, at most `max_depth` deep.
    constexpr bool take_value(std::size_t max_depth) noexcept {
        if (at('"', '"'))
            return take_string();
        if (at('-', '-') || at('0', '9'))
            return take_number();
        if (!at('{', '{') && !at('[', '['))
            return take("true") || take("false") || take("null");
        if (max_depth == 0) {
            error = json_text_error::max_depth;
            return false;
        }
        return take_members([&](std::size_t, std::string_view) { return take_value(max_depth - 1); });
    }

    /// Sets `value` to the text of the value, which has no white space around it.
    constexpr bool take_value(std::size_t max_depth, std::string_view& value) noexcept {
        const char* const first = p;
        const bool is_taken = take_value(max_depth);
        value = {first, static_cast<std::size_t>(p - first)};
        return is_taken;
    }
};

/// Checks that `text` is one JSON object, with white space around it or none. Objects and arrays may nest
/// `max_depth` deep; the object itself counts. Accepts what Boost.JSON's parser accepts: surrogates
/// must be pairs, an exponent must fit 32 bits with its digits, names may repeat. Linear; no allocation; the
/// stack grows by depth.
constexpr json_text_check check_json_object(std::string_view text, std::size_t max_depth) noexcept {
    json_text_reader reader{text};
    reader.skip_space();
    const bool is_object = reader.at('{', '{') && reader.take_value(max_depth);
    if (is_object)
        reader.skip_space();
    return {is_object && reader.p == reader.end ? json_text_error::none : reader.error,
            static_cast<std::size_t>(reader.p - text.data())};
}

/// Calls `visit(index, name, value)` for each member of an object, or item of an array, that a parser
/// accepted: index and name as for `take_members`, and the text of the value. The views refer to `text`.
template <class VisitT>
constexpr void for_each_json_member(std::string_view text, VisitT&& visit) {
    json_text_reader reader{text};
    reader.skip_space();
    reader.take_members([&](std::size_t index, std::string_view name) {
        std::string_view value;
        const bool is_taken = reader.take_value(text.size(), value);
        if (is_taken)
            visit(index, name, value);
        return is_taken;
    });
}

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL const char* skip_plain_ascii(const char* p, const char* end) noexcept {
    constexpr std::ptrdiff_t word_size = word_block::size, vector_size = vector_block::size;
    while (end - p >= word_size) { // most names are short
        const std::uint64_t flags = word_block::load(p).special().bits & word_block::repeat(0x80);
        if (flags != 0)
            return p + std::countr_zero(flags) / 8;
        p += word_size;
        while (end - p >= vector_size && !vector_block::load(p).special().any())
            p += vector_size;
    }
    while (p != end && static_cast<unsigned char>(*p) < 0x80 && json_length(*p) == 1)
        ++p;
    return p;
}

#endif

/// Returns the text of the last member that has this name, escaped or not; empty if there is none. `object`
/// is text that a parser accepted.
PROMPTLAYER_DECL std::string_view find_json_member(std::string_view object, std::string_view name);

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns the text of a valid JSON string, which is given without its quotes.
inline std::string unescape(std::string_view escaped) {
    std::string text;
    for (json_text_reader reader{escaped}; reader.p != reader.end;) {
        if (!reader.take('\\')) {
            text += *reader.p++;
            continue;
        }
        if (!reader.take('u')) {
            constexpr std::string_view letters = "bfnrt", controls = "\b\f\n\r\t";
            const char c = *reader.p++;
            const std::size_t control = letters.find(c);
            text += control == letters.npos ? c : controls[control];
            continue;
        }
        unsigned code = 0, low = 0;
        reader.take_hex(code);
        if (code >= 0xD800 && code <= 0xDBFF && reader.take("\\u") && reader.take_hex(low))
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        constexpr unsigned char leads[] = {0, 0xC0, 0xE0, 0xF0};
        int following = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3; // bytes of UTF-8
        text += static_cast<char>(leads[following] | code >> 6 * following);
        while (--following >= 0)
            text += static_cast<char>(0x80 | (code >> 6 * following & 0x3F));
    }
    return text;
}

/// Returns the text of a JSON string that is given without its quotes: `escaped` itself, or `buffer`.
inline std::string_view text_of(std::string_view escaped, std::string& buffer) {
    if (escaped.find('\\') == escaped.npos)
        return escaped;
    return buffer = unescape(escaped);
}

PROMPTLAYER_DECL std::string_view find_json_member(std::string_view object, std::string_view name) {
    std::string_view found;
    std::string buffer;
    for_each_json_member(object, [&](std::size_t, std::string_view member, std::string_view value) {
        if (text_of(member, buffer) == name)
            found = value;
    });
    return found;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_NUMBER_HPP
#define PROMPTLAYER_DETAIL_NUMBER_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns false for infinities and NaN, also with `-ffast-math`. Takes a reference because Clang then
/// assumes that each double passed or returned by value is finite.
constexpr bool is_finite(const double& value) noexcept {
    constexpr std::uint64_t exponent_bits = 0x7FF0'0000'0000'0000;
    return (__builtin_bit_cast(std::uint64_t, value) & exponent_bits) != exponent_bits;
}

/// The size of the longest text that `write_number` returns, such as `-2.2250738585072014e-308`.
inline constexpr std::size_t max_number_size = 24;

/// Writes the shortest JSON text that `read_number` reads as `value`, which is finite. Returns the text in
/// `buffer`.
PROMPTLAYER_DECL std::string_view write_number(double value, char (&buffer)[max_number_size]) noexcept;

/// Does so without `std::to_chars`, which some standard libraries have only for integers: libc++ before
/// version 14, and for Apple's systems before macOS 13.3. Slow; the text of a few numbers is a digit longer.
PROMPTLAYER_DECL std::string_view write_number_by_printf(double value,
                                                         char (&buffer)[max_number_size]) noexcept;

/// Returns the double nearest to a number of JSON's grammar, whatever the locale: nullopt if the number is
/// too large, also with `-ffast-math`; a denormal or 0 if it is tiny. Linear; no allocation.
PROMPTLAYER_DECL std::optional<double> read_number(std::string_view number) noexcept;

/// The value of a JSON number as an integer.
struct integer_reading {
    std::int64_t value = 0;
    bool is_integral = true; ///< false if it has a fraction
    bool fits = true;        ///< false if it needs more than 64 bits signed
};

/// Reads `number`, which follows JSON's grammar, by its digits: 2, 2.0, -2e3, 0.5.
PROMPTLAYER_DECL integer_reading read_integer(std::string_view number);

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL std::string_view write_number(double value, char (&buffer)[max_number_size]) noexcept {
    const auto write = [&buffer](auto number) -> std::string_view {
        if constexpr (requires { std::to_chars(buffer, buffer, number); }) {
            const char* const end = std::to_chars(buffer, buffer + max_number_size, number).ptr;
            return {buffer, static_cast<std::size_t>(end - buffer)};
        } else {
            return write_number_by_printf(number, buffer);
        }
    };
    return write(value);
}

PROMPTLAYER_DECL std::string_view write_number_by_printf(double value,
                                                         char (&buffer)[max_number_size]) noexcept {
    char scientific[32], fixed[32];
    int size = 0;
    const auto is_exact_with = [&](int decimals) {
        size = std::snprintf(scientific, sizeof scientific, "%.*e", decimals, value);
        return __builtin_bit_cast(std::uint64_t, std::strtod(scientific, nullptr)) ==
               __builtin_bit_cast(std::uint64_t, value);
    };
    int decimals = is_exact_with(14) ? 0 : 15; // never fewer than 14 if 14 are too few
    while (!is_exact_with(decimals) && decimals < 16)
        ++decimals;
    const auto exponent = static_cast<int>(std::strtol(std::strchr(scientific, 'e') + 1, nullptr, 10));
    const int fixed_size =
        std::snprintf(fixed, sizeof fixed, "%.*f", std::max(decimals - exponent, 0), value);
    char* const end =
        std::copy_n(fixed_size <= size ? fixed : scientific, std::min(fixed_size, size), buffer);
    std::replace(buffer, end, ',', '.'); // of the locale
    return {buffer, static_cast<std::size_t>(end - buffer)};
}

PROMPTLAYER_DECL std::optional<double> read_number(std::string_view number) noexcept {
    // `text` becomes an integer with an exponent: without a point, `strtod` does not depend on the locale.
    // `from_chars` is missing from libc++, and libstdc++'s rounds some numbers wrongly on x87.
    constexpr std::int64_t limit = 1'000'000'000'000'000; // more than any text has digits
    std::int64_t exponent = 0;
    const std::size_t mantissa_size = std::min(number.find_first_of("eE"), number.size());
    if (mantissa_size != number.size()) {
        const char* first = number.data() + mantissa_size + 1;
        first += *first == '+' ? 1 : 0;
        if (std::from_chars(first, number.data() + number.size(), exponent).ec != std::errc{})
            exponent = *first == '-' ? -limit : limit;
        exponent = std::clamp(exponent, -limit, limit);
    }

    // The middle between two doubles has at most 768 significant digits. Digits that do not fit `text` only
    // tell whether the number is above such a middle.
    constexpr std::size_t max_size = 800;
    char text[max_size + 8] = {'0'}; // and the exponent, with at most 6 characters, and a null character
    std::size_t size = 1;
    bool has_point = false;
    for (const char c : number.substr(0, mantissa_size)) {
        has_point = has_point || c == '.';
        if (c == '.' || c == '-')
            continue;
        exponent -= has_point ? 1 : 0;
        if (size == max_size) {
            ++exponent;
            if (c != '0')
                text[max_size - 1] = '1';
        } else if (size != 1 || c != '0') {
            text[size++] = c;
        }
    }

    // Keeps the exponent short: beyond 10 to the power of 400 every number is too large, below -400 it is 0.
    const auto digits = static_cast<std::int64_t>(size);
    const std::int64_t magnitude = std::clamp<std::int64_t>(exponent + digits, -400, 400);
    text[size] = 'e';
    std::to_chars(text + size + 1, text + sizeof text - 1, magnitude - digits);
    errno = 0;
    const double value = std::strtod(text, nullptr);
    if (errno == ERANGE && magnitude > 0)
        return std::nullopt;
    return number.starts_with('-') ? -value : value;
}

PROMPTLAYER_DECL integer_reading read_integer(std::string_view number) {
    integer_reading reading;
    const char* const end = number.data() + number.size();
    if (const auto parsed = std::from_chars(number.data(), end, reading.value);
        parsed.ec == std::errc{} && parsed.ptr == end)
        return reading;
    std::string digits{number.substr(0, number.find_first_of("eE"))};
    std::int64_t exponent = 0; // within 32 bits: the parser calls others malformed
    if (digits.size() != number.size()) {
        const char* const first = number.data() + digits.size() + 1;
        std::from_chars(first + (*first == '+' ? 1 : 0), number.data() + number.size(), exponent);
    }
    const bool is_negative = digits[0] == '-';
    digits.erase(0, is_negative ? 1 : 0);
    const auto point = static_cast<std::int64_t>(std::min(digits.find('.'), digits.size())) + exponent;
    std::erase(digits, '.');
    const std::size_t leading_zeros = digits.find_first_not_of('0');
    if (leading_zeros == digits.npos)
        return {};
    if (point <= static_cast<std::int64_t>(digits.find_last_not_of('0')))
        return {.is_integral = false};
    if (point - static_cast<std::int64_t>(leading_zeros) > std::numeric_limits<std::int64_t>::digits10 + 1)
        return {.fits = false};
    digits.resize(static_cast<std::size_t>(point), '0');
    digits.insert(0, is_negative ? 1 : 0, '-');
    reading.fits =
        std::from_chars(digits.data(), digits.data() + digits.size(), reading.value).ec == std::errc{};
    return reading;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_DATE_TIME_TEXT_HPP
#define PROMPTLAYER_DETAIL_DATE_TIME_TEXT_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns true if `text` has the form `form`: 0 stands for any digit, + for either sign, and letters for
/// themselves in upper or lower case.
constexpr bool has_form(std::string_view text, std::string_view form) noexcept {
    if (text.size() != form.size())
        return false;
    for (std::size_t i = 0; i < form.size(); ++i) {
        const char c = text[i], f = form[i];
        if (f == '0'   ? c < '0' || c > '9'
            : f == '+' ? c != '+' && c != '-'
                       : c != f && (f < 'A' || f > 'Z' || c != f + ('a' - 'A')))
            return false;
    }
    return true;
}

/// Returns true if `text` is a date-time of RFC 3339, as JSON Schema's format `date-time` has it. A second 60
/// must be the last one of a day in UTC.
constexpr bool is_date_time(std::string_view text) noexcept {
    constexpr std::string_view form = "0000-00-00T00:00:00";
    if (!has_form(text.substr(0, form.size()), form))
        return false;
    std::string_view offset = text.substr(form.size());
    if (offset.starts_with('.')) {
        const std::size_t fraction_end = offset.find_first_not_of("0123456789", 1);
        if (fraction_end == 1 || fraction_end == offset.npos)
            return false;
        offset.remove_prefix(fraction_end);
    }
    const bool is_utc = has_form(offset, "Z");
    if (!is_utc && !has_form(offset, "+00:00"))
        return false;

    const auto number = [](std::string_view from, std::size_t at) {
        return (from[at] - '0') * 10 + from[at + 1] - '0';
    };
    const int century = number(text, 0), year = number(text, 2), month = number(text, 5),
              day = number(text, 8);
    const int hour = number(text, 11), minute = number(text, 14), second = number(text, 17);
    const int offset_hour = is_utc ? 0 : number(offset, 1), offset_minute = is_utc ? 0 : number(offset, 4);
    const bool is_leap_year = year % 4 == 0 && (year != 0 || century % 4 == 0);
    const int days = month == 2 ? (is_leap_year ? 29 : 28) : 30 + (month + month / 8) % 2;
    constexpr int day_minutes = 24 * 60;
    const int shift = (offset_hour * 60 + offset_minute) * (offset.starts_with('-') ? 1 : -1);
    const int utc_minute = (hour * 60 + minute + shift + day_minutes) % day_minutes;
    return month >= 1 && month <= 12 && day >= 1 && day <= days && hour <= 23 && minute <= 59 &&
           second <= (utc_minute == day_minutes - 1 ? 60 : 59) && offset_hour <= 23 && offset_minute <= 59;
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_REDACTION_HPP
#define PROMPTLAYER_DETAIL_REDACTION_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns true if `text` contains a secret, as `redact` finds it.
PROMPTLAYER_DECL bool holds_secret(std::string_view text, std::span<const std::string_view> secrets);

/// Replaces each secret in `text` by `[redacted]`: in any case, as it is, percent-encoded, or with JSON's
/// escapes. The first 8 characters of a longer secret are enough; a shorter secret is found only as a whole
/// word. The returned text holds no secret: if the replacements form one, nothing of the text is left.
PROMPTLAYER_DECL std::string redact(std::string text, std::span<const std::string_view> secrets);

/// Does the same for one API key, which may have been read with a line break or a BOM.
PROMPTLAYER_DECL std::string redact(std::string text, std::string_view api_key);

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns the value of a hexadecimal digit; 16 for any other character.
constexpr unsigned hex_value(char c) noexcept {
    const char lower = ascii_lower(c);
    return c >= '0' && c <= '9'           ? static_cast<unsigned>(c - '0')
           : lower >= 'a' && lower <= 'f' ? static_cast<unsigned>(lower - 'a' + 10)
                                          : 16;
}

/// A character as text spells it: as it is, percent-encoded, or with an escape of JSON.
struct spelled_character {
    char character;
    std::size_t width; ///< in bytes
};

/// Returns the first character of `text`, which is not empty.
constexpr spelled_character spelled_at(std::string_view text) noexcept {
    const auto hex_digits = [&](std::size_t from, std::size_t count) {
        unsigned value = 0;
        for (std::size_t i = from; i < from + count; ++i) {
            const unsigned digit = i < text.size() ? hex_value(text[i]) : 16;
            if (digit == 16)
                return 0x100U;
            value = value * 16 + digit;
        }
        return value;
    };
    const unsigned code = text[0] == '%'            ? hex_digits(1, 2)
                          : text.starts_with("\\u") ? hex_digits(2, 4)
                                                    : 0x100;
    if (code < 0x80)
        return {static_cast<char>(code), text[0] == '%' ? 3U : 6U};
    if (text.size() > 1 && text[0] == '\\' && (text[1] == '"' || text[1] == '\\' || text[1] == '/'))
        return {text[1], 2};
    return {text[0], 1};
}

/// Finds one secret in text, as `redact` describes.
class secret_finder {
    static constexpr std::size_t min_prefix = 8;

    std::string_view secret_;

    /// Returns how many bytes at the beginning of `text` spell the secret; 0 if they do not.
    constexpr std::size_t spelled_by(std::string_view text, bool decode) const noexcept {
        std::size_t used = 0, spelled = 0;
        while (spelled < secret_.size() && used < text.size()) {
            const auto [character, width] =
                decode ? spelled_at(text.substr(used)) : spelled_character{text[used], 1};
            if (ascii_lower(character) != ascii_lower(secret_[spelled]))
                break;
            used += width;
            ++spelled;
        }
        return spelled >= std::min(secret_.size(), min_prefix) ? used : 0;
    }

    /// Flags the bytes of a block that may equal `c`, in any case. May flag others, too.
    static std::uint64_t flag(word_block block, char c) noexcept {
        const std::uint64_t difference = (block.bits ^ word_block::repeat(static_cast<unsigned char>(c))) &
                                         word_block::repeat(0xDF); // without the bit that tells the case
        return (difference - word_block::repeat(1)) & ~difference & word_block::repeat(0x80);
    }

    static std::uint64_t flag_escapes(word_block block) noexcept {
        return flag(block, '%') | flag(block, '\\');
    }

    /// Skips places from `from` on where the secret, of two characters or more, does not begin. Stops within
    /// 8 bytes of the end.
    std::size_t skip(std::string_view text, std::size_t from) const noexcept {
        for (; text.size() - from > word_block::size; from += word_block::size) {
            const word_block block = word_block::load(text.data() + from);
            const word_block next = word_block::load(text.data() + from + 1);
            const std::uint64_t flags = flag_escapes(block) | (flag(block, secret_[0]) &
                                                               (flag(next, secret_[1]) | flag_escapes(next)));
            if (flags != 0)
                return from + static_cast<std::size_t>(std::countr_zero(flags)) / 8;
        }
        return from;
    }

    static constexpr bool is_word_character(char c) noexcept {
        return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || c == '_' ||
               c == '-' || static_cast<unsigned char>(c) >= 0x80;
    }

public:
    constexpr explicit secret_finder(std::string_view secret) noexcept : secret_(secret) {}

    /// Returns the first part of `text`, from `from` on, that spells the secret; empty if there is none.
    std::string_view find(std::string_view text, std::size_t from = 0) const noexcept {
        const char first = secret_.empty() ? '\0' : ascii_lower(secret_[0]);
        for (; !secret_.empty() && from < text.size(); ++from) {
            from = secret_.size() == 1 ? from : skip(text, from);
            const char c = text[from];
            if (c != '%' && c != '\\' && ascii_lower(c) != first)
                continue;
            const std::string_view rest = text.substr(from);
            const std::size_t size = std::max(spelled_by(rest, false), spelled_by(rest, true));
            if (size != 0 &&
                (secret_.size() >= min_prefix || ((from == 0 || !is_word_character(text[from - 1])) &&
                                                  (size == rest.size() || !is_word_character(rest[size])))))
                return rest.substr(0, size);
        }
        return text.substr(text.size());
    }
};

/// Returns the longest run of visible ASCII in an API key.
constexpr std::string_view visible_run(std::string_view key) noexcept {
    std::string_view longest;
    while (!key.empty()) {
        const auto end = std::find_if_not(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
        const std::string_view run = key.substr(0, static_cast<std::size_t>(end - key.begin()));
        longest = run.size() > longest.size() ? run : longest;
        key.remove_prefix(std::min(run.size() + 1, key.size()));
    }
    return longest;
}

PROMPTLAYER_DECL bool holds_secret(std::string_view text, std::span<const std::string_view> secrets) {
    return std::any_of(secrets.begin(), secrets.end(),
                       [&](std::string_view secret) { return !secret_finder{secret}.find(text).empty(); });
}

PROMPTLAYER_DECL std::string redact(std::string text, std::span<const std::string_view> secrets) {
    if (!holds_secret(text, secrets))
        return text;
    constexpr std::string_view replacement = "[redacted]";
    const std::string_view mark = holds_secret(replacement, secrets) ? std::string_view{} : replacement;
    for (const std::string_view secret : secrets) {
        const secret_finder finder{secret};
        std::string out;
        std::size_t from = 0;
        for (std::string_view part; !(part = finder.find(text, from)).empty();) {
            const auto at = static_cast<std::size_t>(part.data() - text.data());
            out.append(text, from, at - from).append(mark);
            from = at + part.size();
        }
        text = out.append(text, from);
    }
    return holds_secret(text, secrets) ? std::string{mark} : text;
}

PROMPTLAYER_DECL std::string redact(std::string text, std::string_view api_key) {
    const std::string_view key = visible_run(api_key);
    return redact(std::move(text), std::span<const std::string_view>{&key, 1});
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_MODEL_HPP
#define PROMPTLAYER_DETAIL_MODEL_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The type of a JSON value.
enum class json_type { null, boolean, integer, number, string, array, object };

/// The kind of a member of a model.
enum class member_kind {
    boolean,
    integer,
    number,
    string,      ///< also an enumeration, by the name that JSON has for it
    strings,     ///< an array of strings
    map,         ///< an object of strings
    json_object, ///< an object as JSON text
    any,         ///< any value, which is ignored
};

/// Returns the JSON type of a member; `any` has none.
constexpr json_type json_type_of(member_kind kind) noexcept {
    switch (kind) {
    case member_kind::boolean: return json_type::boolean;
    case member_kind::integer: return json_type::integer;
    case member_kind::number: return json_type::number;
    case member_kind::string: return json_type::string;
    case member_kind::strings: return json_type::array;
    case member_kind::map:
    case member_kind::json_object: return json_type::object;
    case member_kind::any: break;
    }
    return json_type::null;
}

/// The value of a member of a model. Of an array or map, only whether it is given.
struct member_value {
    bool is_given =
        false; ///< false for an absent optional, and for an empty array or map that is not required
    std::int64_t integer = 0; ///< of an integer; 0 or 1 for a boolean
    double number = 0;        ///< of a number
    std::string_view text{};  ///< of a string, an enumeration or a JSON object
};

/// Receives the entries of an array or map, one by one.
struct entry_visitor {
    void* context;
    void (*call)(void* context, std::string_view name,
                 std::string_view text); ///< `name` is empty in an array
};

/// A rule on the value of a member: a number or a string. The rules of an array are on its items, the rules
/// of a map on its names.
struct field_rule {
    promptlayer::rule rule;
    std::int64_t limit = 0;
    std::span<const std::string_view> names{};                 ///< of `rule::one_of`
    bool (*accepts)(std::string_view text) noexcept = nullptr; ///< of `rule::date_time`

    constexpr bool accepts_length(std::size_t code_points) const noexcept {
        const auto length = static_cast<std::int64_t>(code_points);
        return rule == promptlayer::rule::min_length   ? length >= limit
               : rule == promptlayer::rule::max_length ? length <= limit
                                                       : true;
    }

    /// `value` is an integer or, if `is_double`, a finite double.
    constexpr bool accepts_number(const member_value& value, bool is_double) const noexcept {
        const auto bound = static_cast<double>(limit);
        const bool is_less = is_double ? value.number < bound : value.integer < limit;
        const bool is_more = is_double ? value.number > bound : value.integer > limit;
        return rule == promptlayer::rule::minimum   ? !is_less
               : rule == promptlayer::rule::maximum ? !is_more
                                                    : is_more;
    }

    constexpr bool lists(std::string_view text) const noexcept {
        for (const std::string_view name : names) {
            if (name == text)
                return true;
        }
        return false;
    }
};

/// Functions that only some members need. The table of a model refers to them, so that programs without such
/// models do not contain them.
struct field_functions {
    json_text_check (*check_object)(std::string_view text, std::size_t max_depth) noexcept;
    std::string_view (*write_number)(double value, char (&buffer)[max_number_size]) noexcept;
    std::optional<double> (*read_number)(std::string_view number) noexcept;
    integer_reading (*read_integer)(std::string_view number);
};

inline constexpr field_functions all_field_functions{check_json_object, write_number, read_number,
                                                     read_integer};

/// A member of a model as data. The functions access it in a model of unknown type, at run time; they are
/// null if the member has another kind. The last two are also null if the member refers to its text.
struct field_info {
    std::string_view key; ///< as JSON writes it: `"label":`
    member_kind kind = member_kind::any;
    bool is_required = false;
    bool has_unique_names = false; ///< the type of a map holds no name twice
    std::span<const field_rule> rules{};
    const field_functions* functions = nullptr; ///< of a number, a JSON object, and an integer of a reply
    member_value (*load)(const void* model) = nullptr;
    void (*visit_entries)(const void* model, entry_visitor visitor) = nullptr;
    void (*store)(void* model, const member_value& value) = nullptr;
    bool (*insert)(void* model, std::string_view name, std::string_view text) = nullptr; ///< an entry

    constexpr std::string_view name() const noexcept { return key.substr(1, key.size() - 3); }
    constexpr bool has_entries() const noexcept {
        return kind == member_kind::strings || kind == member_kind::map;
    }
};

/// A model as data: what its schema declares.
struct model_info {
    std::span<const field_info> fields{};
    std::span<const std::uint64_t> groups{}; ///< each `at_most_one_of` as a set: bit N stands for field N
    bool is_reply = false;                   ///< unknown members are ignored, null is read as absent
};

/// A model of any type, to be read.
struct model_reference {
    const model_info& info;
    const void* object;

    member_value load(std::size_t index) const { return info.fields[index].load(object); }

    template <class VisitT>
    void visit_entries(std::size_t index, VisitT&& visit) const {
        const auto call = [](void* context, std::string_view name, std::string_view text) {
            (*static_cast<VisitT*>(context))(name, text);
        };
        info.fields[index].visit_entries(object, {&visit, call});
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_SCHEMA_HPP
#define PROMPTLAYER_SCHEMA_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

template <class T, class... OthersT>
concept any_of = (std::same_as<T, OthersT> || ...);

/// An integer type of which each value fits in `std::int64_t`. Character types and bool are not integers
/// here, as in `std::in_range`.
template <class T>
concept int64_convertible =
    std::integral<T> && !any_of<T, bool, char, wchar_t, char8_t, char16_t, char32_t> &&
    (sizeof(T) < sizeof(std::int64_t) || (std::signed_integral<T> && sizeof(T) == sizeof(std::int64_t)));

template <class T>
inline constexpr bool always_false = false;

/// An arithmetic type of which each value is exact as a double.
template <class T>
concept exact_as_double = any_of<T, double, float> ||(int64_convertible<T> && sizeof(T) <= 4);

/// A type that a member of type `T` accepts: no null pointer for a string, no number for a bool, no value
/// that a double would round.
template <class U, class T>
concept value_of = std::convertible_to<U, T> && !std::same_as<std::remove_cvref_t<U>, std::nullptr_t> &&
                   (!std::same_as<T, bool> || std::same_as<std::remove_cvref_t<U>, bool>)&&(
                       !std::same_as<T, double> || exact_as_double<std::remove_cvref_t<U>>);

/// The type of an element of a range that a list in braces can initialize: no string, and no view, which
/// would refer to the list.
template <class T>
struct element_of {};

template <class T>
requires(!std::convertible_to<T, std::string_view> && !std::is_trivially_destructible_v<T> &&
         std::constructible_from<T, std::initializer_list<typename T::value_type>>) struct element_of<T> {
    using type = typename T::value_type;
};

} // namespace detail

/// A JSON integer, 64 bits signed. Converts from each integer type that fits; `2.9`, `true`, `'a'` and an
/// unsigned 64-bit integer do not compile.
class integer {
    std::int64_t value_ = 0;

public:
    constexpr integer() = default;
    template <detail::int64_convertible T>
    constexpr integer(T value) noexcept : value_{value} {}
    constexpr operator std::int64_t() const noexcept { return value_; }
};

/// JSON text of one object, for a member that the service understands and this library does not. It is
/// checked to be well-formed, and written as it is. Converts from text.
template <class TextT>
class basic_json_object {
    TextT text_{"{}"};

public:
    using text_type = TextT;

    constexpr basic_json_object() = default;
    template <detail::value_of<TextT> U>
    requires(!std::same_as<std::remove_cvref_t<U>, basic_json_object>) constexpr basic_json_object(U&& text)
        : text_(std::forward<U>(text)) {}

    constexpr const TextT& text() const noexcept { return text_; }

    friend bool operator==(const basic_json_object&, const basic_json_object&) = default;
};

using json_object = basic_json_object<std::string>;
using json_object_view = basic_json_object<std::string_view>;

/// A member of a reply that must be there, with any value, null included. The value is not read.
struct any_value {
    friend bool operator==(const any_value&, const any_value&) = default;
};

/// A member that must be given: a request without it does not compile. Converts to `T`. A map or an array is
/// sent also if it is empty, and then needs its type, because `{}` counts as not given.
template <class T>
class required {
    T value_;

public:
    using value_type = T;

    // A template without a constraint, so that the assertion fails only if the member is not given. It is not
    // constexpr, because then a type trait on `required` would be enough to make it fail.
    template <class MissingT = T>
    required() : value_{} {
        constexpr bool has_elements = requires { typename detail::element_of<MissingT>::type; };
        static_assert(has_elements || detail::always_false<MissingT>,
                      "promptlayer: a required member of the request is not given");
        static_assert(
            !has_elements || detail::always_false<MissingT>,
            "promptlayer: a required member of the request is not given; {} counts as not given, so "
            "write an empty map or array with its type, such as "
            "std::map<std::string, std::string, std::less<>>{}");
    }
    template <detail::value_of<T> U>
    requires(!std::same_as<std::remove_cvref_t<U>, required>) constexpr required(U&& value)
        : value_(std::forward<U>(value)) {}
    /// Takes the elements of a map or array in braces.
    template <class RangeT = T>
    constexpr required(std::initializer_list<typename detail::element_of<RangeT>::type> elements)
        : value_(elements) {}

    constexpr T& value() noexcept { return value_; }
    constexpr const T& value() const noexcept { return value_; }
    constexpr operator const T&() const noexcept { return value_; }
    constexpr T& operator*() noexcept { return value_; }
    constexpr const T& operator*() const noexcept { return value_; }
    constexpr T* operator->() noexcept { return &value_; }
    constexpr const T* operator->() const noexcept { return &value_; }

    // Constexpr only if T can be compared in constant expressions. Some standard libraries cannot
    // compare strings there.
    friend bool operator==(const required&, const required&) = default;
};

/// A member that may be absent: `std::optional`, except that it accepts no null pointer for a string.
template <class T>
class optional {
    std::optional<T> value_{};

public:
    using value_type = T;

    constexpr optional() = default;
    constexpr optional(std::nullopt_t) noexcept {}
    template <detail::value_of<T> U>
    constexpr optional(std::optional<U> value) : value_(std::move(value)) {}
    template <detail::value_of<T> U>
    requires(!std::same_as<std::remove_cvref_t<U>, optional>) constexpr optional(U&& value)
        : value_(std::forward<U>(value)) {}

    constexpr bool has_value() const noexcept { return value_.has_value(); }
    constexpr explicit operator bool() const noexcept { return has_value(); }
    template <class U>
    requires std::convertible_to<const T&, U>
    constexpr operator std::optional<U>() const { return value_; }

    constexpr T& operator*() noexcept { return *value_; }
    constexpr const T& operator*() const noexcept { return *value_; }
    constexpr T* operator->() noexcept { return &*value_; }
    constexpr const T* operator->() const noexcept { return &*value_; }
    constexpr T& value() { return value_.value(); }
    constexpr const T& value() const { return value_.value(); }
    constexpr T value_or(T other) const { return value_.value_or(std::move(other)); }
    template <class... ArgumentsT>
    constexpr T& emplace(ArgumentsT&&... arguments) {
        return value_.emplace(std::forward<ArgumentsT>(arguments)...);
    }
    constexpr void reset() noexcept { value_.reset(); }

    // Each kind of operand has an overload. Without them std::optional would compare this class as a value.
    friend constexpr bool operator==(const optional& a, const optional& b) { return a.value_ == b.value_; }
    friend constexpr bool operator==(const optional& a, const std::optional<T>& b) { return a.value_ == b; }
    friend constexpr bool operator==(const optional& a, std::nullopt_t) noexcept { return !a.has_value(); }
    template <detail::value_of<T> U>
    friend constexpr bool operator==(const optional& a, const U& b) {
        return a.value_ == T(b);
    }
};

namespace detail {

template <std::size_t N>
struct fixed_string {
    char data[N]{};

    consteval fixed_string(const char (&literal)[N]) {
        for (std::size_t i = 0; i < N; ++i)
            data[i] = literal[i];
    }
    constexpr operator std::string_view() const noexcept { return {data, N - 1}; }
};

/// Returns true if JSON writes a name as it is.
consteval bool is_plain_name(std::string_view name) {
    const text_scan scanned = scan(name);
    return scanned.valid_utf8 && scanned.json_bytes == name.size();
}

/// Returns the name of a member as JSON writes it before the value; `name` needs no escapes.
template <std::size_t N>
consteval std::array<char, N + 2> json_key(const fixed_string<N>& name) {
    std::array<char, N + 2> key{'"'};
    for (std::size_t i = 0; i + 1 < N; ++i)
        key[i + 1] = name.data[i];
    key[N] = '"';
    key[N + 1] = ':';
    return key;
}

template <class T>
struct member_traits {
    using type = T;
    static constexpr bool optional = false;
    static constexpr bool required = false;
    static constexpr auto& get(auto& member) noexcept { return member; }
    static constexpr T make_empty() { return T{}; }
};

template <class T>
struct member_traits<promptlayer::required<T>> : member_traits<T> {
    static constexpr bool required = true;
    static constexpr auto& get(auto& member) noexcept { return *member; }
    static constexpr promptlayer::required<T> make_empty() { return T{}; }
};

template <class OptionalT>
struct optional_traits : member_traits<typename OptionalT::value_type> {
    static constexpr bool optional = true;
    static constexpr auto& get(auto& member) noexcept { return *member; }
    static constexpr OptionalT make_empty() noexcept { return std::nullopt; }
};

template <class T>
struct member_traits<std::optional<T>> : optional_traits<std::optional<T>> {};

template <class T>
struct member_traits<promptlayer::optional<T>> : optional_traits<promptlayer::optional<T>> {};

template <class T>
concept text = std::convertible_to<const T&, std::string_view>;

template <class T>
concept text_pair = requires(const T& pair) {
    { pair.first } -> std::convertible_to<std::string_view>;
    { pair.second } -> std::convertible_to<std::string_view>;
};

/// A range of pairs of strings that are stored in the range: a map, a vector or span of pairs, ...
template <class T>
concept variables = requires(const T& range) {
    requires std::forward_iterator<decltype(std::begin(range))>;
    { std::begin(range) == std::end(range) } -> std::convertible_to<bool>;
    requires std::is_lvalue_reference_v<decltype(*std::begin(range))>;
    requires text_pair<std::remove_cvref_t<decltype(*std::begin(range))>>;
};

/// A range of strings that are stored in the range: a vector, an array, a span, ...
template <class T>
concept strings = requires(const T& range) {
    requires std::forward_iterator<decltype(std::begin(range))>;
    { std::begin(range) == std::end(range) } -> std::convertible_to<bool>;
    requires std::is_lvalue_reference_v<decltype(*std::begin(range))>;
    requires text<std::remove_cvref_t<decltype(*std::begin(range))>>;
};

/// A type of map that cannot hold the same characters twice as a name.
template <class T>
concept text_map = requires(const T& map, const typename T::key_type& name) {
    requires any_of<typename T::key_type, std::string, std::string_view>;
    map.at(name);
};

template <class T>
inline constexpr bool unique_names = text_map<T>;

/// A type of string that copies the characters it is made of.
template <class T>
concept owns_text = std::constructible_from<T, std::string_view> && !any_of<T, std::string_view> &&
                    !std::is_trivially_destructible_v<T>;

/// A type of map into which text can be copied, without a name twice.
template <class T>
concept text_owning_map = text_map<T> && owns_text<typename T::key_type> &&
    owns_text<typename T::mapped_type> && requires(T& map, std::string_view text) {
    { map.emplace(text, text).second } -> std::convertible_to<bool>;
};

/// A type of sequence to which text can be appended.
template <class T>
concept text_owning_list = owns_text<typename T::value_type> && requires(T& list, std::string_view text) {
    list.emplace_back(text);
};

template <class T>
inline constexpr bool is_json_object = false;
template <class TextT>
inline constexpr bool is_json_object<basic_json_object<TextT>> = true;

template <class T>
consteval member_kind kind_of() {
    if constexpr (std::same_as<T, bool>)
        return member_kind::boolean;
    else if constexpr (std::same_as<T, integer>)
        return member_kind::integer;
    else if constexpr (std::same_as<T, double>)
        return member_kind::number;
    else if constexpr (std::same_as<T, any_value>)
        return member_kind::any;
    else if constexpr (is_json_object<T>)
        return member_kind::json_object;
    else if constexpr (text<T> || std::is_enum_v<T>)
        return member_kind::string;
    else if constexpr (variables<T>)
        return member_kind::map;
    else {
        static_assert(strings<T>,
                      "promptlayer: a member of a model is a bool, an integer, a double, a string, an "
                      "enumeration, a json_object, a range of strings, or a range of pairs of strings; put a "
                      "member that may be absent into std::optional");
        return member_kind::strings;
    }
}

constexpr bool is_numeric(member_kind kind) noexcept {
    return kind == member_kind::integer || kind == member_kind::number;
}

template <class MemberPointerT>
struct member_of;

template <class ModelT, class MemberT>
struct member_of<MemberT ModelT::*> {
    using type = MemberT;
};

} // namespace detail

/// A number is at least `N`.
template <std::int64_t N>
struct minimum {
    static constexpr detail::field_rule data{promptlayer::rule::minimum, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(detail::is_numeric(KindV), "promptlayer: minimum is a rule on integers and doubles");
    }
};

/// A number is at most `N`.
template <std::int64_t N>
struct maximum {
    static constexpr detail::field_rule data{promptlayer::rule::maximum, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(detail::is_numeric(KindV), "promptlayer: maximum is a rule on integers and doubles");
    }
};

/// A number is more than `N`.
template <std::int64_t N>
struct exclusive_minimum {
    static constexpr detail::field_rule data{promptlayer::rule::exclusive_minimum, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(detail::is_numeric(KindV),
                      "promptlayer: exclusive_minimum is a rule on integers and doubles");
    }
};

/// A string has at least `N` code points.
template <std::size_t N>
struct min_length {
    static constexpr detail::field_rule data{promptlayer::rule::min_length, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string, "promptlayer: min_length is a rule on strings");
    }
};

/// A string has at most `N` code points.
template <std::size_t N>
struct max_length {
    static constexpr detail::field_rule data{promptlayer::rule::max_length, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string, "promptlayer: max_length is a rule on strings");
    }
};

/// A string is one of these. A member may also be an enumeration: the enumerator with value 0 has the first
/// name, and so on.
template <detail::fixed_string... NamesV>
struct one_of {
    static constexpr std::array<std::string_view, sizeof...(NamesV)> names{std::string_view{NamesV}...};
    static constexpr detail::field_rule data{promptlayer::rule::one_of, 0, names};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string,
                      "promptlayer: one_of is a rule on strings and enumerations");
        static_assert(((!std::string_view{NamesV}.empty() && detail::is_plain_name(NamesV)) && ...),
                      "promptlayer: the names in one_of must not be empty or need escapes in JSON");
    }
};

/// A string is a date and time of RFC 3339, such as `2024-01-15T10:30:00Z`. See `date_time`.
struct date_time_format {
    static constexpr detail::field_rule data{promptlayer::rule::date_time, 0, {}, detail::is_date_time};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string,
                      "promptlayer: date_time_format is a rule on strings");
    }
};

/// A rule on each item of an array of strings.
template <class RuleT>
struct items {
    static constexpr detail::field_rule data = RuleT::data;
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::strings,
                      "promptlayer: items is a rule on arrays of strings");
        RuleT::template check_kind<detail::member_kind::string>();
    }
};

/// A rule on each name in a map.
template <class RuleT>
struct property_names {
    static constexpr detail::field_rule data = RuleT::data;
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::map, "promptlayer: property_names is a rule on maps");
        RuleT::template check_kind<detail::member_kind::string>();
    }
};

/// Declares a member of a model: its name in JSON, the member, the rules on its value. An optional, an array
/// and a map may be absent; any other type is required in JSON. With `required<T>` the compiler checks that
/// as well.
template <detail::fixed_string NameV, auto MemberV, class... RulesT>
struct field {
    using member_type = typename detail::member_of<decltype(MemberV)>::type;
    using member_traits = detail::member_traits<member_type>;
    using value_type = typename member_traits::type;

    static constexpr std::string_view name = NameV;
    static constexpr auto key = detail::json_key(NameV);
    static constexpr auto member = MemberV;
    static constexpr detail::member_kind kind = detail::kind_of<value_type>();
    static constexpr bool has_entries =
        kind == detail::member_kind::strings || kind == detail::member_kind::map;
    static constexpr std::array<detail::field_rule, sizeof...(RulesT)> rules{RulesT::data...};

    static_assert((RulesT::template check_kind<kind>(), ..., true));
    static_assert(!has_entries || !member_traits::optional,
                  "promptlayer: an array or map is a plain member of a model, absent when it is empty, or a "
                  "required one");
    static_assert(detail::is_plain_name(name),
                  "promptlayer: the name of a member must not need escapes in JSON");

    /// Returns the names of an enumeration.
    static constexpr std::span<const std::string_view> wire_names() noexcept {
        for (const detail::field_rule& rule : rules) {
            if (rule.rule == promptlayer::rule::one_of)
                return rule.names;
        }
        return {};
    }
    static_assert(!std::is_enum_v<value_type> || !wire_names().empty(),
                  "promptlayer: an enumeration needs one_of with its names in JSON");

    /// Returns the value of the member. Of an array or map, returns only whether it is given. The text of an
    /// enumerator without a name is empty.
    static constexpr detail::member_value load(const auto& model) noexcept {
        const member_type& stored = model.*MemberV;
        if constexpr (kind == detail::member_kind::any) {
            return {};
        } else if constexpr (has_entries) {
            const value_type& entries = member_traits::get(stored);
            return {.is_given = member_traits::required || !(std::begin(entries) == std::end(entries))};
        } else {
            if constexpr (member_traits::optional) {
                if (!stored.has_value())
                    return {};
            }
            const value_type& value = member_traits::get(stored);
            if constexpr (std::is_enum_v<value_type>) {
                const auto index = static_cast<std::size_t>(value);
                return {.is_given = true, .text = index < wire_names().size() ? wire_names()[index] : ""};
            } else if constexpr (kind == detail::member_kind::string)
                return {.is_given = true, .text = value};
            else if constexpr (kind == detail::member_kind::json_object)
                return {.is_given = true, .text = value.text()};
            else if constexpr (kind == detail::member_kind::number)
                return {.is_given = true, .number = value};
            else
                return {.is_given = true, .integer = value};
        }
    }

    /// Calls `visit(name, text)` for each entry of a map or array; an item of an array has no name.
    template <class VisitT>
    static constexpr void visit_entries(const auto& model, VisitT&& visit) {
        if constexpr (kind == detail::member_kind::map) {
            for (const auto& entry : member_traits::get(model.*MemberV))
                visit(std::string_view{entry.first}, std::string_view{entry.second});
        } else if constexpr (kind == detail::member_kind::strings) {
            for (const auto& item : member_traits::get(model.*MemberV))
                visit(std::string_view{}, std::string_view{item});
        }
    }

    /// True if a value from JSON can be stored in the member, which then owns its text.
    static constexpr bool is_owner = [] {
        if constexpr (kind == detail::member_kind::map)
            return detail::text_owning_map<value_type>;
        else if constexpr (kind == detail::member_kind::strings)
            return detail::text_owning_list<value_type>;
        else if constexpr (kind == detail::member_kind::json_object)
            return detail::owns_text<typename value_type::text_type>;
        else if constexpr (kind == detail::member_kind::string && !std::is_enum_v<value_type>)
            return detail::owns_text<value_type> && std::is_assignable_v<member_type&, value_type>;
        else
            return std::is_assignable_v<member_type&, value_type>;
    }();

    /// Describes the member for code that does not depend on the type of the model.
    template <class ModelT>
    static constexpr detail::field_info info() {
        detail::field_info info{.key = {key.data(), key.size()},
                                .kind = kind,
                                .is_required =
                                    !member_traits::optional && (!has_entries || member_traits::required),
                                .has_unique_names = detail::unique_names<value_type>,
                                .rules = rules};
        if constexpr (kind == detail::member_kind::number || kind == detail::member_kind::json_object ||
                      (kind == detail::member_kind::integer && !requires { ModelT::path; }))
            info.functions = &detail::all_field_functions;
        info.load = [](const void* model) { return load(*static_cast<const ModelT*>(model)); };
        if constexpr (has_entries) {
            info.visit_entries = [](const void* model, detail::entry_visitor visitor) {
                visit_entries(*static_cast<const ModelT*>(model),
                              [&](std::string_view entry, std::string_view text) {
                                  visitor.call(visitor.context, entry, text);
                              });
            };
            if constexpr (is_owner)
                info.insert = [](void* model, [[maybe_unused]] std::string_view entry,
                                 std::string_view text) {
                    value_type& entries = member_traits::get(static_cast<ModelT*>(model)->*MemberV);
                    if constexpr (requires { entries.emplace_hint(entries.end(), entry, text); }) {
                        const std::size_t count = entries.size();
                        entries.emplace_hint(entries.end(), entry, text); // names are often in order
                        return entries.size() != count;
                    } else if constexpr (kind == detail::member_kind::map)
                        return entries.emplace(entry, text).second;
                    else
                        return entries.emplace_back(text), true;
                };
        } else if constexpr (is_owner) {
            info.store = []([[maybe_unused]] void* model,
                            [[maybe_unused]] const detail::member_value& value) {
                [[maybe_unused]] member_type& stored = static_cast<ModelT*>(model)->*MemberV;
                if constexpr (std::is_enum_v<value_type>) {
                    for (std::size_t i = 0; i < wire_names().size(); ++i) {
                        if (wire_names()[i] == value.text) // else no enumerator has the name
                            stored = static_cast<value_type>(i);
                    }
                } else if constexpr (kind == detail::member_kind::string)
                    stored = value_type{value.text};
                else if constexpr (kind == detail::member_kind::json_object)
                    stored = value_type{typename value_type::text_type{value.text}};
                else if constexpr (kind == detail::member_kind::boolean)
                    stored = value.integer != 0;
                else if constexpr (kind == detail::member_kind::integer)
                    stored = integer{value.integer};
                else if constexpr (kind == detail::member_kind::number)
                    stored = value.number;
            };
        }
        return info;
    }
};

/// Of the named members, at most one may be given.
template <detail::fixed_string... NamesV>
struct at_most_one_of {
    static_assert(sizeof...(NamesV) >= 2, "promptlayer: at_most_one_of takes two names or more");

    static constexpr std::array<std::string_view, sizeof...(NamesV)> names{std::string_view{NamesV}...};
};

namespace detail {

template <class ItemT>
inline constexpr bool is_field = requires {
    ItemT::member;
};

} // namespace detail

/// Declares the JSON of a model: a `field` for each member, and any number of `at_most_one_of`. A model has
/// its declaration as the member type `schema`. Validation, reading, writing and the JSON Schema follow it.
template <class... ItemsT>
struct schema {
    static constexpr bool is_reply = false;
    static constexpr std::size_t size = (std::size_t{detail::is_field<ItemsT>} + ... + 0);
    static constexpr std::size_t group_count = sizeof...(ItemsT) - size;

    /// Calls `action(FieldT{}, index)` for each field, in order.
    static constexpr void for_each_field([[maybe_unused]] auto&& action) {
        [[maybe_unused]] std::size_t index = 0;
        [[maybe_unused]] const auto visit = [&]<class ItemT>(ItemT item) {
            if constexpr (detail::is_field<ItemT>)
                action(item, index++);
        };
        (visit(ItemsT{}), ...);
    }

    /// Calls `action(GroupT{})` for each `at_most_one_of`.
    static constexpr void for_each_group([[maybe_unused]] auto&& action) {
        [[maybe_unused]] const auto visit = [&]<class ItemT>(ItemT item) {
            if constexpr (!detail::is_field<ItemT>)
                action(item);
        };
        (visit(ItemsT{}), ...);
    }

    /// Returns how many fields have this name.
    static constexpr std::size_t count(std::string_view name) {
        std::size_t count = 0;
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { count += FieldT::name == name ? 1U : 0U; });
        return count;
    }

    /// Returns true if field names are unique and each name in a group is the name of a field.
    static constexpr bool consistent() {
        bool consistent = true;
        const auto check = [&](std::string_view name) { consistent = consistent && count(name) == 1; };
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { check(FieldT::name); });
        for_each_group([&](auto group) {
            for (const std::string_view name : group.names)
                check(name);
        });
        return consistent;
    }
};

/// Declares the JSON of a reply. Unlike that of a request, it may have members that the schema does not name,
/// and null for an optional, an array or a map.
template <class... ItemsT>
struct reply_schema : schema<ItemsT...> {
    static constexpr bool is_reply = true;
};

namespace detail {

template <class ModelT>
struct checked_schema {
    static_assert(
        requires { ModelT::schema::size; },
        "promptlayer: this type is not a model, it has no member type named schema");
    using type = typename ModelT::schema;
    static_assert(type::consistent(), "promptlayer: each name in a schema is that of one field");
    static_assert(type::size <= 64, "promptlayer: a model has at most 64 members");
};

template <class ModelT>
using schema_of = typename checked_schema<ModelT>::type;

template <class ModelT>
inline constexpr auto field_table = [] {
    std::array<field_info, schema_of<ModelT>::size> table{};
    schema_of<ModelT>::for_each_field(
        [&]<class FieldT>(FieldT, std::size_t index) { table[index] = FieldT::template info<ModelT>(); });
    return table;
}();

template <class ModelT>
inline constexpr auto group_table = [] {
    std::array<std::uint64_t, schema_of<ModelT>::group_count> table{};
    std::size_t next = 0;
    schema_of<ModelT>::for_each_group([&](auto group) {
        for (const std::string_view name : group.names) {
            std::size_t index = 0;
            for (const field_info& field : field_table<ModelT>) {
                if (field.name() == name)
                    table[next] |= std::uint64_t{1} << index;
                ++index;
            }
        }
        ++next;
    });
    return table;
}();

template <class ModelT>
inline constexpr model_info info_in_constant_expressions{field_table<ModelT>, group_table<ModelT>,
                                                         schema_of<ModelT>::is_reply};

/// Returns a model as data.
template <class ModelT>
const model_info& info() noexcept {
    return info_in_constant_expressions<ModelT>;
}

/// Returns a reference to any model, for functions that do not depend on its type.
template <class ModelT>
model_reference refer_to(const ModelT& model) noexcept {
    return {info<ModelT>(), &model};
}

template <class... ItemsT>
constexpr auto make_empty_members(schema<ItemsT...>) {
    [[maybe_unused]] const auto make_member = []<class ItemT>(ItemT) {
        if constexpr (is_field<ItemT>)
            return std::tuple{ItemT::member_traits::make_empty()};
        else
            return std::tuple<>{};
    };
    return std::tuple_cat(make_member(ItemsT{})...);
}

/// Makes a model with empty members, for a reader to fill in.
template <class ModelT>
constexpr ModelT make_empty() {
    return std::apply([](auto&&... members) { return ModelT{std::move(members)...}; },
                      make_empty_members(schema_of<ModelT>{}));
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_WALK_HPP
#define PROMPTLAYER_DETAIL_WALK_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// How deep objects and arrays may nest in a body. The body itself counts.
inline constexpr std::size_t max_json_depth = 32;

/// Where a rule is broken: in the whole request, in a member, or in one entry of a map or array.
struct location {
    static constexpr std::size_t no_index = static_cast<std::size_t>(-1);

    std::string_view member{};
    const std::string_view* name = nullptr; ///< of an entry of a map
    std::size_t index = no_index;           ///< of an item of an array
    bool is_name = false;                   ///< the rule is one on `name`
};

/// A model of known type, to be read in constant expressions.
template <class ModelT>
struct typed_reference {
    const ModelT& object;

    constexpr member_value load(std::size_t index) const {
        member_value value;
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t i) {
            if (i == index)
                value = FieldT::load(object);
        });
        return value;
    }

    constexpr void visit_entries(std::size_t index, auto&& visit) const {
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t i) {
            if (i == index)
                FieldT::visit_entries(object, visit);
        });
    }
};

/// Checks that a string is UTF-8.
template <class ReportT>
constexpr bool check_utf8(const text_scan& scanned, const location& where, ReportT& report) {
    if (!scanned.valid_utf8)
        report.add(where.is_name ? rule::name_utf8 : rule::utf8, where, 0, scanned.invalid_at);
    return scanned.valid_utf8;
}

/// Checks that a string is UTF-8, and the rules on it.
template <class ReportT>
constexpr void check_text(const field_info& field, std::string_view text, const text_scan& scanned,
                          const location& where, ReportT& report) {
    if (!check_utf8(scanned, where, report))
        return;
    for (const field_rule& limit : field.rules) {
        if (!limit.accepts_length(scanned.code_points))
            report.add(limit.rule, where, limit.limit, scanned.code_points);
        else if (limit.rule == rule::one_of && !limit.lists(text))
            report.add_one_of(where, limit.names);
        else if (limit.rule == rule::date_time && !limit.accepts(text))
            report.add(rule::date_time, where, 0, 0);
    }
}

/// Returns false if `check_text` would find nothing.
constexpr bool has_to_check(const field_info& field, const text_scan& scanned) noexcept {
    return !field.rules.empty() || !scanned.valid_utf8;
}

/// Checks the rules on a string that a JSON parser has read, which is UTF-8.
template <class ReportT>
constexpr void check_read_text(const field_info& field, std::string_view text, const location& where,
                               ReportT& report) {
    if (!field.rules.empty())
        check_text(field, text, scan(text), where, report);
}

/// Checks the rules on an integer or a finite double.
template <class ReportT>
constexpr void check_number(const field_info& field, const member_value& value, ReportT& report) {
    for (const field_rule& limit : field.rules) {
        if (!limit.accepts_number(value, field.kind == member_kind::number))
            report.add(limit.rule, {field.name()}, limit.limit, 0);
    }
}

/// Checks that `text` is one JSON object that may be a member of a body.
template <class ReportT>
constexpr void check_object(const field_info& field, std::string_view text, ReportT& report) {
    constexpr std::size_t max_depth = max_json_depth - 1;
    const json_text_check checked = field.functions->check_object(text, max_depth);
    if (checked.error == json_text_error::max_depth)
        report.add(rule::max_depth, {field.name()}, max_depth, checked.offset);
    else if (checked.error != json_text_error::none)
        report.add(checked.error == json_text_error::utf8 ? rule::utf8 : rule::json_object, {field.name()}, 0,
                   checked.offset);
}

/// Names in an array that works in constant expressions, unlike `std::vector` in some standard libraries.
class name_array {
    std::string_view* names_;
    std::size_t size_ = 0;

public:
    constexpr explicit name_array(std::size_t capacity) : names_(new std::string_view[capacity]) {}
    name_array(const name_array&) = delete;
    name_array& operator=(const name_array&) = delete;
    constexpr ~name_array() { delete[] names_; }

    constexpr void push_back(std::string_view name) { names_[size_++] = name; }

    /// Calls `action` for each name that repeats an earlier name. Costs n log n.
    template <class ActionT>
    constexpr void for_each_repeat(ActionT&& action) {
        sort();
        for (std::size_t i = 1; i < size_; ++i) {
            if (names_[i] == names_[i - 1])
                action(names_[i]);
        }
    }

private:
    constexpr void swap(std::size_t i, std::size_t j) noexcept {
        const std::string_view name = names_[i];
        names_[i] = names_[j];
        names_[j] = name;
    }

    /// Moves the name at `root` down until no name below it is greater.
    constexpr void sift_down(std::size_t root, std::size_t end) noexcept {
        for (std::size_t child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && names_[child] < names_[child + 1])
                ++child;
            if (!(names_[root] < names_[child]))
                return;
            swap(root, child);
        }
    }

    /// Sorts by heapsort, without <algorithm>, which is slow to compile.
    constexpr void sort() noexcept {
        for (std::size_t root = size_ / 2; root-- > 0;)
            sift_down(root, size_);
        for (std::size_t end = size_; end-- > 1;) {
            swap(0, end);
            sift_down(0, end);
        }
    }
};

/// Counts the bytes of JSON.
class size_counter {
    std::size_t size_ = 0;

public:
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr void put(char) noexcept { ++size_; }
    constexpr void put(std::string_view json) noexcept { size_ += json.size(); }
    constexpr void put_integer(std::int64_t value) noexcept {
        size_ += value < 0 ? 1 : 0;
        do
            ++size_;
        while ((value /= 10) != 0);
    }
    constexpr text_scan put_text(std::string_view text) noexcept {
        const text_scan scanned = scan(text);
        size_ += scanned.json_bytes + 2;
        return scanned;
    }
};

/// Walks a map or an array. Reports violations to `report` and writes JSON to `out`.
template <class ModelT, class OutputT, class ReportT>
constexpr void walk_entries(const field_info& field, const ModelT& model, std::size_t index, OutputT& out,
                            ReportT& report) {
    const bool is_map = field.kind == member_kind::map;
    std::size_t count = 0;
    out.put(is_map ? '{' : '[');
    model.visit_entries(index, [&](std::string_view name, std::string_view text) {
        if (count != 0)
            out.put(',');
        if (is_map) {
            const text_scan scanned = out.put_text(name);
            if (has_to_check(field, scanned)) [[unlikely]]
                check_text(field, name, scanned, {field.name(), &name, location::no_index, true}, report);
            out.put(':');
        }
        const text_scan scanned = out.put_text(text);
        if (!is_map && has_to_check(field, scanned)) [[unlikely]]
            check_text(field, text, scanned, {field.name(), nullptr, count}, report);
        else if (!scanned.valid_utf8) [[unlikely]]
            check_utf8(scanned, {field.name(), &name}, report);
        ++count;
    });
    out.put(is_map ? '}' : ']');
    if (!is_map || field.has_unique_names || count < 2)
        return;
    name_array names{count};
    model.visit_entries(index, [&](std::string_view name, std::string_view) { names.push_back(name); });
    names.for_each_repeat([&](const std::string_view& name) {
        report.add(rule::unique, {field.name(), &name}, 0, 0);
    });
}

/// Writes a finite double. In a constant expression, where only the size counts, writes as many bytes as the
/// longest double has.
template <class OutputT>
constexpr void put_number(const field_info& field, double value, OutputT& out) {
    char buffer[max_number_size]{};
    if (std::is_constant_evaluated())
        out.put({buffer, sizeof buffer});
    else
        out.put(field.functions->write_number(value, buffer));
}

/// Checks the rules across members; bit N of `given` says that field N is given.
template <class ReportT>
constexpr void check_groups(const model_info& info, std::uint64_t given, ReportT& report) {
    for (const std::uint64_t group : info.groups) {
        const int count = std::popcount(group & given);
        if (count > 1)
            report.add_group(info, group, static_cast<std::uint64_t>(count));
    }
}

/// Walks a model once, in the order of its schema. Reports violations to `report` and writes JSON to `out`.
template <class ModelT, class OutputT, class ReportT>
constexpr void walk(const model_info& info, const ModelT& model, std::size_t max_bytes, OutputT& out,
                    ReportT& report) {
    std::uint64_t given = 0;
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
        const field_info& field = info.fields[i];
        const member_value value = model.load(i);
        if (!value.is_given)
            continue;
        out.put(given == 0 ? '{' : ',');
        given |= std::uint64_t{1} << i;
        out.put(field.key);
        switch (field.kind) {
        case member_kind::boolean: out.put(value.integer != 0 ? "true" : "false"); break;
        case member_kind::integer:
            out.put_integer(value.integer);
            check_number(field, value, report);
            break;
        case member_kind::number:
            if (!is_finite(value.number)) {
                report.add(rule::finite, {field.name()}, 0, 0);
                break;
            }
            put_number(field, value.number, out);
            check_number(field, value, report);
            break;
        case member_kind::string:
            check_text(field, value.text, out.put_text(value.text), {field.name()}, report);
            break;
        case member_kind::json_object:
            check_object(field, value.text, report);
            out.put(value.text);
            break;
        case member_kind::strings:
        case member_kind::map: walk_entries(field, model, i, out, report); break;
        case member_kind::any: break; // is never given
        }
    }
    out.put(given == 0 ? "{}" : "}");
    check_groups(info, given, report);
    if (out.size() > max_bytes)
        report.add(rule::max_bytes, {}, static_cast<std::int64_t>(max_bytes), out.size());
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_VIOLATION_COLLECTOR_HPP
#define PROMPTLAYER_DETAIL_VIOLATION_COLLECTOR_HPP

#if defined(PROMPTLAYER_DEFINITIONS)

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

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

/// Collects each violation with its text.
struct violation_collector {
    violation_list list{};
    std::string_view api_key{}; ///< removed from all paths

    /// Returns the path of a location without the API key. Redacts twice: before the name is cut, so that no
    /// part of the key is left, and at the end, because escapes may form the key.
    std::string path_of(const location& where) const {
        std::string path{where.member};
        if (where.name)
            path.append("[\"").append(json_escape(redact(std::string{*where.name}, api_key))).append("\"]");
        else if (where.index != location::no_index)
            path.append("[").append(std::to_string(where.index)).append("]");
        return redact(std::move(path), api_key);
    }

    void add(rule broken, const location& where, std::int64_t limit, std::uint64_t actual) {
        list.add([&] {
            return violation{path_of(where), broken, limit, actual,
                             (where.is_name && broken != rule::name_utf8 ? "its name: " : "") +
                                 message_for(broken, limit, actual)};
        });
    }

    void add_one_of(const location& where, std::span<const std::string_view> names) {
        std::string message = "must be one of ";
        for (std::size_t i = 0; i < names.size(); ++i)
            message.append(i == 0 ? "" : ", ").append(names[i]);
        list.add([&] { return violation{path_of(where), rule::one_of, 0, 0, std::move(message)}; });
    }

    void add_type(const location& where, json_type expected, const char* actual) {
        list.add([&] {
            std::string message = where.member.empty() ? "the body must be " : "must be ";
            message.append(type_name(expected)).append(", is ").append(actual);
            return violation{path_of(where), rule::type, 0, 0, std::move(message)};
        });
    }

    void add_group(const model_info& info, std::uint64_t group, std::uint64_t given) {
        std::string names;
        for (std::size_t i = 0; i < info.fields.size(); ++i) {
            if (group >> i & 1)
                names.append(names.empty() ? "" : ", ").append(info.fields[i].name());
        }
        list.add([&] {
            return violation{"", rule::at_most_one_of, 1, given, "only one of " + names + " may be given"};
        });
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#endif

#ifndef PROMPTLAYER_VALIDATE_HPP
#define PROMPTLAYER_VALIDATE_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {

/// The default limit on the size of a body, in bytes.
inline constexpr std::size_t default_max_request_bytes = 8 * 1024 * 1024;

namespace detail {

PROMPTLAYER_DECL std::vector<violation> validate_any(model_reference model, std::size_t max_bytes);
PROMPTLAYER_DECL bool is_valid_at_run_time(model_reference model, std::size_t max_bytes);

/// A report for `is_valid`.
struct violation_flag {
    bool is_set = false;
    constexpr void add(rule, const location&, std::int64_t, std::uint64_t) noexcept { is_set = true; }
    constexpr void add_one_of(const location&, std::span<const std::string_view>) noexcept { is_set = true; }
    constexpr void add_group(const model_info&, std::uint64_t, std::uint64_t) noexcept { is_set = true; }
};

// Not constexpr, but called in a constant expression: the compiler names the function and the member.
template <auto MemberV>
void too_few_characters() {}
template <auto MemberV>
void too_many_characters() {}
template <auto MemberV>
void less_than_minimum() {}
template <auto MemberV>
void more_than_maximum() {}
template <auto MemberV>
void not_finite() {}
template <auto MemberV>
void none_of_its_values() {}
template <auto MemberV>
void no_date_time() {}
template <auto MemberV>
void no_json_object() {}
template <auto MemberV>
void json_object_too_deep() {}
template <auto MemberV>
void not_utf8() {}
template <auto MemberV>
void name_not_utf8() {}
template <auto MemberV>
void name_given_more_than_once() {}
template <auto MemberV>
void given_together_with_another_of_its_group() {}
inline void body_too_large() {}

/// A report for `require_valid`: the first violation ends the constant expression.
template <class ModelT>
struct compile_time_report {
    constexpr void add_one_of(const location& where, std::span<const std::string_view>) const {
        add(rule::one_of, where, 0, 0);
    }

    constexpr void add(rule broken, const location& where, std::int64_t, std::uint64_t) const {
        if (broken == rule::max_bytes)
            body_too_large();
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t) {
            constexpr auto member = FieldT::member;
            if (FieldT::name != where.member)
                return;
            if (broken == rule::minimum || broken == rule::exclusive_minimum)
                less_than_minimum<member>();
            if (broken == rule::maximum)
                more_than_maximum<member>();
            if (broken == rule::finite)
                not_finite<member>();
            if (broken == rule::one_of)
                none_of_its_values<member>();
            if (broken == rule::date_time)
                no_date_time<member>();
            if (broken == rule::json_object)
                no_json_object<member>();
            if (broken == rule::max_depth)
                json_object_too_deep<member>();
            if (broken == rule::min_length)
                too_few_characters<member>();
            if (broken == rule::max_length)
                too_many_characters<member>();
            if (broken == rule::utf8)
                not_utf8<member>();
            if (broken == rule::name_utf8)
                name_not_utf8<member>();
            if (broken == rule::unique)
                name_given_more_than_once<member>();
        });
    }

    constexpr void add_group(const model_info&, std::uint64_t group, std::uint64_t) const {
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t index) {
            constexpr auto member = FieldT::member;
            if (group >> index & 1)
                given_together_with_another_of_its_group<member>();
        });
    }
};

} // namespace detail

/// Returns every rule that `request` breaks: the first 64, then one `rule::omitted` that counts the others;
/// empty if the request is valid. A body over `max_request_bytes` breaks a rule as well. Reads the text once;
/// any thread.
template <class RequestT>
[[nodiscard]] std::vector<violation> validate(const RequestT& request,
                                              std::size_t max_request_bytes = default_max_request_bytes) {
    return detail::validate_any(detail::refer_to(request), max_request_bytes);
}

/// Returns true if `validate` returns nothing; works in constant expressions, where each double counts as
/// 24 bytes, the size of the longest.
template <class RequestT>
[[nodiscard]] constexpr bool is_valid(const RequestT& request,
                                      std::size_t max_request_bytes = default_max_request_bytes) {
    if (!std::is_constant_evaluated())
        return detail::is_valid_at_run_time(detail::refer_to(request), max_request_bytes);
    detail::size_counter size;
    detail::violation_flag report;
    detail::walk(detail::info_in_constant_expressions<RequestT>, detail::typed_reference<RequestT>{request},
                 max_request_bytes, size, report);
    return !report.is_set;
}

/// Returns true if a request is valid; else it does not compile. Use it in `static_assert`: unlike
/// `is_valid`, it makes the compiler name the first broken rule and its member, for example
/// `too_many_characters<&...::label>`.
template <class RequestT>
[[nodiscard]] consteval bool require_valid(const RequestT& request,
                                           std::size_t max_request_bytes = default_max_request_bytes) {
    detail::size_counter size;
    detail::compile_time_report<RequestT> report;
    detail::walk(detail::info_in_constant_expressions<RequestT>, detail::typed_reference<RequestT>{request},
                 max_request_bytes, size, report);
    return true;
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL std::vector<violation> validate_any(model_reference model, std::size_t max_bytes) {
    size_counter size;
    violation_collector report;
    walk(model.info, model, max_bytes, size, report);
    return std::move(report.list).take();
}

PROMPTLAYER_DECL bool is_valid_at_run_time(model_reference model, std::size_t max_bytes) {
    size_counter size;
    violation_flag report;
    walk(model.info, model, max_bytes, size, report);
    return !report.is_set;
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_JSON_WRITER_HPP
#define PROMPTLAYER_DETAIL_JSON_WRITER_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Validates a model and writes it as JSON in one pass. Replaces `out`, and uses its memory
/// again. After an error `out` is empty. The API key is in no path of a violation.
PROMPTLAYER_DECL result<void> write_json(model_reference model, std::size_t max_bytes, std::string& out,
                                         std::string_view api_key = {});

#if defined(PROMPTLAYER_DEFINITIONS)

/// Writes JSON up to `max_bytes`, and counts all of it. Gathers it in a buffer on the stack. A template,
/// because a program may have files with vectors and files without.
template <class BlockT>
class json_writer {
    using escaper = text_escaper<BlockT>;
    static constexpr std::size_t max_short_text = 64;
    static constexpr std::size_t capacity = 4096;
    static constexpr std::size_t max_characters = 8;

    std::string& out_;
    std::size_t max_bytes_;
    std::size_t flushed_ = 0; // bytes that are no longer in `buffer_`
    char* end_ = buffer_;     // of the JSON in `buffer_`
    char buffer_[capacity + max_characters];

    bool has_room(std::size_t bytes) const noexcept {
        return static_cast<std::size_t>(end_ - buffer_) + bytes <= capacity;
    }

    /// Makes room for `bytes` in the buffer, at most `capacity`.
    void reserve(std::size_t bytes) {
        if (!has_room(bytes)) [[unlikely]]
            flush();
    }

    text_scan put_long_text(std::string_view text) {
        if (text.size() > size() && size() + text.size() < max_bytes_) // else memory grows by doubling
            out_.reserve(size() + text.size() + sizeof buffer_);       // often all that follows
        put('"');
        escaper escaped{text};
        do {
            reserve(escaper::min_room);
            end_ = escaped.write_piece(end_, buffer_ + capacity);
        } while (!escaped.is_finished());
        put('"');
        return escaped.scan();
    }

    /// Writes a short text of which `plain` bytes are copied; they are ASCII.
    text_scan put_short_text(std::string_view text, std::size_t plain) {
        char* const begin = end_ + 1;
        utf8_checker<BlockT> utf8;
        char* const end = write_blocks(text.substr(plain), BlockT{}, begin + plain, utf8);
        *end_ = *end = '"';
        end_ = end + 1;
        if (utf8.suspects.any())
            return scan_code_points(text); // decides, and finds the place
        return {.code_points = text.size() - utf8.continuations.sum(),
                .json_bytes = static_cast<std::size_t>(end - begin)};
    }

public:
    json_writer(std::string& out, std::size_t max_bytes) noexcept : out_(out), max_bytes_(max_bytes) {
        out_.clear();
    }
    json_writer(const json_writer&) = delete;
    json_writer& operator=(const json_writer&) = delete;

    std::size_t size() const noexcept { return flushed_ + static_cast<std::size_t>(end_ - buffer_); }

    /// Writes a character of punctuation; at most `max_characters` in sequence.
    void put(char c) noexcept { *end_++ = c; }

    void put(std::string_view json) {
        reserve(json.size());
        if (json.size() > capacity) {
            flushed_ += json.size();
            if (flushed_ <= max_bytes_)
                out_.append(json);
        } else if (!json.empty()) { // else it may be null
            std::memcpy(end_, json.data(), json.size());
            end_ += json.size();
        }
    }

    void put_integer(std::int64_t value) {
        constexpr std::size_t max_size = 20;
        reserve(max_size);
        end_ = std::to_chars(end_, end_ + max_size, value).ptr;
    }

    /// Writes a string in quotes, and scans it.
    text_scan put_text(std::string_view text) {
        if (text.size() > max_short_text || !has_room(6 * max_short_text + BlockT::size + 2)) [[unlikely]]
            return put_long_text(text);
        char* const out = end_;
        const std::size_t plain = copy_plain<BlockT>(text, out + 1);
        if (plain != text.size()) [[unlikely]]
            return put_short_text(text, plain);
        out[0] = out[1 + plain] = '"';
        end_ = out + plain + 2;
        return {.code_points = plain, .json_bytes = plain};
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
    json_writer<vector_block> writer{out, max_bytes};
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

#endif

#ifndef PROMPTLAYER_DETAIL_JSON_READER_HPP
#define PROMPTLAYER_DETAIL_JSON_READER_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Reads JSON into a model with empty members. Returns `malformed_json`, or `invalid_request` with every
/// violation; nullopt if the JSON is valid. `FormatT` is always `void`: a template is compiled only in
/// programs that call it, and this one needs Boost.JSON's parser.
template <class FormatT>
std::optional<error> read_json(std::string_view text, const model_info& info, void* model);

#if defined(PROMPTLAYER_DEFINITIONS)

inline error malformed_json(std::size_t offset, std::string_view reason) {
    error malformed{.code = errc::malformed_json};
    malformed.message.append(message_for(malformed.code)).append(": ").append(reason).append(" at byte ");
    malformed.message += std::to_string(offset);
    malformed.offset = offset;
    return malformed;
}

/// Reads one model from the events of Boost.JSON's parser, which passes on the digits of numbers and repeated
/// members.
template <class FormatT>
class model_reader {
    const model_info& info_;
    void* model_;
    violation_collector report_{};
    std::uint64_t given_ = 0;           // bit N stands for field N
    std::uint64_t null_ = 0;            // the fields of `given_` that are null, in a reply
    std::size_t depth_ = 0;             // of the value being read
    bool is_object_ = false;            // the outermost value
    const field_info* field_ = nullptr; // the member being read; null if its value is ignored
    bool in_entries_ = false;           // within the map or array of `field_`
    std::size_t entry_count_ = 0;       // of `field_`
    std::string name_{};                // of the entry being read
    std::string buffer_{};              // parts of a string or number
    std::size_t member_count_ = 0;      // of the outermost value
    std::vector<std::pair<std::size_t, const field_info*>> json_members_{}; // by position in the text

    void on_member(std::string_view name) {
        field_ = nullptr;
        ++member_count_;
        for (std::size_t i = 0; i < info_.fields.size(); ++i) {
            const field_info& field = info_.fields[i];
            if (field.name() != name)
                continue;
            if (given_ >> i & 1)
                return report_.add(rule::unique, {field.name()}, 0, 0);
            given_ |= std::uint64_t{1} << i;
            field_ = &field;
            return;
        }
        if (info_.is_reply)
            return;
        report_.list.add([&] {
            return violation{name.empty() ? "[\"\"]" : json_escape(name), rule::unknown_member, 0, 0,
                             message_for(rule::unknown_member, 0, 0)};
        });
    }

    void store_number(const member_value& value) {
        check_number(*field_, value, report_);
        field_->store(model_, value);
    }

    void on_integer(std::string_view digits) {
        const integer_reading reading = read_integer(digits);
        if (!reading.is_integral)
            report_.add_type({field_->name()}, json_type::integer, "a number with a fraction");
        else if (!reading.fits)
            report_.add(rule::range, {field_->name()}, 0, 0);
        else
            store_number({.integer = reading.value});
    }

    void on_double(std::string_view digits) {
        if (const auto value = field_->functions->read_number(digits))
            store_number({.number = *value});
        else
            report_.add(rule::finite, {field_->name()}, 0, 0);
    }

    void on_member_value(json_type type, std::string_view text) {
        const member_kind kind = field_->kind;
        const bool is_absent = type == json_type::null && info_.is_reply;
        if (is_absent)
            null_ |= std::uint64_t{1} << (field_ - info_.fields.data());
        if (kind == member_kind::any || (is_absent && !field_->is_required))
            return;
        if (type == json_type::number && kind == member_kind::integer)
            return on_integer(text);
        if (type != json_type_of(kind))
            return report_.add_type({field_->name()}, json_type_of(kind), type_name(type));
        switch (kind) {
        case member_kind::number: return on_double(text);
        case member_kind::string: check_read_text(*field_, text, {field_->name()}, report_); break;
        case member_kind::strings:
        case member_kind::map:
            in_entries_ = true;
            entry_count_ = 0;
            return;
        case member_kind::json_object: json_members_.emplace_back(member_count_ - 1, field_); return;
        case member_kind::boolean:
        case member_kind::integer:
        case member_kind::any: break;
        }
        field_->store(model_, {.integer = text.empty() ? 0 : 1, .text = text});
    }

    void on_entry(json_type type, std::string_view text) {
        location where{field_->name()};
        const std::string_view name = name_;
        if (field_->kind == member_kind::map) {
            where.name = &name;
            where.is_name = true;
            check_read_text(*field_, name, where, report_);
            where.is_name = false;
        } else {
            where.index = entry_count_++;
        }
        if (!field_->insert(model_, name, text))
            report_.add(rule::unique, where, 0, 0);
        if (type != json_type::string)
            report_.add_type(where, json_type::string, type_name(type));
        else if (field_->kind == member_kind::strings)
            check_read_text(*field_, text, where, report_);
    }

    /// A boolean that is true comes with a text that is not empty.
    bool on_value(json_type type, std::string_view text = {}) {
        if (depth_ == 0) {
            is_object_ = type == json_type::object;
            if (!is_object_)
                report_.add_type({}, json_type::object, type_name(type));
        } else if (depth_ == 1 && is_object_ && field_) {
            on_member_value(type, text);
        } else if (depth_ == 2 && in_entries_) {
            on_entry(type, text);
        }
        return true;
    }

    bool append(std::string_view text) {
        buffer_ += text;
        return true;
    }

    /// Returns a name, string or number, of which there may be parts in the buffer.
    std::string_view whole(std::string_view last) {
        if (buffer_.empty())
            return last;
        return buffer_ += last;
    }

    bool on_whole(json_type type, std::string_view last) {
        on_value(type, whole(last));
        buffer_.clear();
        return true;
    }

    bool begin(json_type type) {
        on_value(type);
        ++depth_;
        return true;
    }

    bool end() noexcept {
        if (--depth_ == 1)
            in_entries_ = false;
        return true;
    }

public:
    model_reader(const model_info& info, void* model) noexcept : info_(info), model_(model) {}
    model_reader(const model_reader&) = delete;
    model_reader& operator=(const model_reader&) = delete;

    /// Returns every violation, after `end` bytes of `text` were read.
    std::vector<violation> finish(std::string_view text, std::size_t end) && {
        if (end != text.size())
            report_.add(rule::trailing_text, {}, 0, end);
        if (is_object_) {
            for (std::size_t i = 0; i < info_.fields.size(); ++i) {
                if (info_.fields[i].is_required && (given_ >> i & 1) == 0)
                    report_.add(rule::required, {info_.fields[i].name()}, 0, 0);
            }
            check_groups(info_, given_ & ~null_, report_);
        }
        if (!json_members_.empty()) {
            auto next = json_members_.begin();
            for_each_json_member(text, [&](std::size_t index, std::string_view, std::string_view value) {
                if (next != json_members_.end() && next->first == index)
                    (next++)->second->store(model_, {.text = value});
            });
        }
        return std::move(report_.list).take();
    }

    // The interface of a handler of boost::json::basic_parser.
    using error_code = boost::json::error_code;
    using json_text = boost::json::string_view;

    static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
    static constexpr std::size_t max_array_size = max_object_size;
    static constexpr std::size_t max_key_size = max_object_size;
    static constexpr std::size_t max_string_size = max_object_size;

    bool on_document_begin(error_code&) noexcept { return true; }
    bool on_document_end(error_code&) noexcept { return true; }
    bool on_object_begin(error_code&) { return begin(json_type::object); }
    bool on_object_end(std::size_t, error_code&) noexcept { return end(); }
    bool on_array_begin(error_code&) { return begin(json_type::array); }
    bool on_array_end(std::size_t, error_code&) noexcept { return end(); }
    bool on_key_part(json_text text, std::size_t, error_code&) { return append(text); }
    bool on_key(json_text text, std::size_t, error_code&) {
        if (depth_ == 1 && is_object_)
            on_member(whole(text));
        else if (in_entries_)
            name_ = whole(text);
        buffer_.clear();
        return true;
    }
    bool on_string_part(json_text text, std::size_t, error_code&) { return append(text); }
    bool on_string(json_text text, std::size_t, error_code&) { return on_whole(json_type::string, text); }
    bool on_number_part(json_text text, error_code&) { return append(text); }
    bool on_int64(std::int64_t value, json_text text, error_code&) {
        if (depth_ == 1 && is_object_ && field_ && field_->kind == member_kind::integer) {
            buffer_.clear();
            store_number({.integer = value});
            return true;
        }
        return on_whole(json_type::number, text);
    }
    bool on_uint64(std::uint64_t, json_text text, error_code&) { return on_whole(json_type::number, text); }
    bool on_double(double, json_text text, error_code&) { return on_whole(json_type::number, text); }
    bool on_bool(bool value, error_code&) { return on_value(json_type::boolean, value ? "true" : ""); }
    bool on_null(error_code&) { return on_value(json_type::null); }
    bool on_comment_part(json_text, error_code&) noexcept { return true; }
    bool on_comment(json_text, error_code&) noexcept { return true; }
};

template <class FormatT>
std::optional<error> read_json(std::string_view text, const model_info& info, void* model) {
    boost::json::parse_options options;
    options.max_depth = max_json_depth;
    boost::json::basic_parser<model_reader<FormatT>> parser{options, info, model};
    boost::json::error_code failed;
    const std::size_t end = parser.write_some(false, text.data(), text.size(), failed);
    if (failed)
        return malformed_json(end, failed.message());
    auto violations = std::move(parser.handler()).finish(text, end);
    if (violations.empty())
        return std::nullopt;
    return invalid(errc::invalid_request, std::move(violations));
}

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
template std::optional<error> read_json<void>(std::string_view, const model_info&, void*);
#endif

#else

extern template std::optional<error> read_json<void>(std::string_view, const model_info&, void*);

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_JSON_HPP
#define PROMPTLAYER_JSON_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

PROMPTLAYER_DECL error text_too_large(std::size_t max_bytes, std::size_t bytes);

/// Says in one sentence why JSON cannot be read into a model.
template <class ModelT>
consteval bool is_readable() {
    schema_of<ModelT>::for_each_field([]<class FieldT>(FieldT, std::size_t) {
        static_assert(FieldT::has_entries || FieldT::is_owner,
                      "promptlayer: from_json needs a model that owns its strings, such as track_prompt");
        static_assert(FieldT::kind != member_kind::strings || FieldT::is_owner,
                      "promptlayer: from_json needs a model that keeps an array in a vector of strings");
        static_assert(FieldT::kind != member_kind::map ||
                          (FieldT::is_owner && unique_names<typename FieldT::value_type>),
                      "promptlayer: from_json needs a model that keeps variables in a map of strings");
    });
    return true;
}

} // namespace detail

/// Returns the request as the JSON text that is sent: its members in the order of the schema, without those
/// that are absent and without spaces. Returns `invalid_request` with every violation if the request breaks a
/// rule or exceeds `max_request_bytes`. One pass and, for a request of usual size, one allocation; any
/// thread.
template <class RequestT>
result<std::string> to_json(const RequestT& request,
                            std::size_t max_request_bytes = default_max_request_bytes) {
    std::string text;
    if (auto written = detail::write_json(detail::refer_to(request), max_request_bytes, text); !written)
        return std::move(written).error();
    return text;
}

/// Reads a request that owns its strings from JSON text, and validates it. Returns `malformed_json` with the
/// byte offset if the text cannot be parsed or is nested deeper than 32; else `invalid_request` with every
/// violation: of the schema, an unknown or repeated member, text after the value. A number with an integral
/// value is an integer, as in JSON Schema (`2.0`, `2e3`). Text over `max_request_bytes` is not parsed. Any
/// thread.
template <class RequestT>
result<RequestT> from_json(std::string_view text, std::size_t max_request_bytes = default_max_request_bytes) {
    static_assert(detail::is_readable<RequestT>());
    if (text.size() > max_request_bytes)
        return detail::text_too_large(max_request_bytes, text.size());
    RequestT request = detail::make_empty<RequestT>();
    if (auto failed = detail::read_json<void>(text, detail::info<RequestT>(), &request))
        return *std::move(failed);
    return request;
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error text_too_large(std::size_t max_bytes, std::size_t bytes) {
    violation_collector report;
    report.add(rule::max_bytes, {}, static_cast<std::int64_t>(max_bytes), bytes);
    return invalid(errc::invalid_request, std::move(report.list).take());
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_JSON_SCHEMA_HPP
#define PROMPTLAYER_JSON_SCHEMA_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

PROMPTLAYER_DECL std::string json_schema_of(const model_info& info);

} // namespace detail

/// Returns the JSON Schema (draft 2020-12) of a model, as JSON text.
template <class ModelT>
[[nodiscard]] std::string json_schema() {
    return detail::json_schema_of(detail::info<ModelT>());
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

inline std::string quoted(std::string_view name) { return std::string{"\""}.append(name).append("\""); }

inline void append_item(std::string& list, const std::string& item) {
    list.append(list.empty() ? "" : ",").append(item);
}

/// Returns the type of a member and, after a comma each, the rules on it.
inline std::string json_schema_of_field(const field_info& field) {
    std::string rules;
    for (const field_rule& rule : field.rules) {
        if (rule.rule == rule::one_of) {
            std::string names;
            for (const std::string_view name : rule.names)
                append_item(names, quoted(name));
            rules += R"(,"enum":[)" + names + "]";
        } else if (rule.rule == rule::date_time) {
            rules += R"(,"format":"date-time")";
        } else {
            const char* const keyword = rule.rule == rule::minimum             ? "minimum"
                                        : rule.rule == rule::maximum           ? "maximum"
                                        : rule.rule == rule::exclusive_minimum ? "exclusiveMinimum"
                                        : rule.rule == rule::min_length        ? "minLength"
                                                                               : "maxLength";
            rules += "," + quoted(keyword) + ":" + std::to_string(rule.limit);
        }
    }
    switch (field.kind) {
    case member_kind::boolean: return R"({"type":"boolean"})";
    case member_kind::integer: return R"({"type":"integer")" + rules + "}";
    case member_kind::number: return R"({"type":"number")" + rules + "}";
    case member_kind::string: return R"({"type":"string")" + rules + "}";
    case member_kind::strings: return R"({"type":"array","items":{"type":"string")" + rules + "}}";
    case member_kind::map:
        if (!rules.empty())
            rules = R"(,"propertyNames":{)" + rules.substr(1) + "}";
        return R"({"type":"object","additionalProperties":{"type":"string"})" + rules + "}";
    case member_kind::json_object: return R"({"type":"object"})";
    case member_kind::any: break;
    }
    return "{}";
}

PROMPTLAYER_DECL std::string json_schema_of(const model_info& info) {
    std::string properties, required;
    for (const field_info& field : info.fields) {
        std::string type = json_schema_of_field(field);
        if (field.is_required)
            append_item(required, quoted(field.name()));
        else if (info.is_reply)
            type.insert(0, R"({"anyOf":[)") += R"(,{"type":"null"}]})";
        append_item(properties, std::string{field.key} + type);
    }
    std::string text = R"({"type":"object","properties":{)" + properties + "}";
    if (!required.empty())
        text += R"(,"required":[)" + required + "]";
    // Each pair of members of which only one may be given.
    std::vector<std::string> pairs;
    for (const std::uint64_t group : info.groups) {
        for (std::size_t second = 0; second < info.fields.size(); ++second) {
            for (std::size_t first = 0; first < second; ++first) {
                if ((group >> first & group >> second & 1) != 0)
                    pairs.push_back(R"({"required":[)" + quoted(info.fields[first].name()) + "," +
                                    quoted(info.fields[second].name()) + "]}");
            }
        }
    }
    std::string excluded;
    for (const std::string& pair : pairs)
        append_item(excluded, pair);
    if (pairs.size() == 1)
        text += R"(,"not":)" + excluded;
    else if (pairs.size() > 1)
        text += R"(,"not":{"anyOf":[)" + excluded + "]}";
    return text + "}";
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRACK_RESPONSE_HPP
#define PROMPTLAYER_TRACK_RESPONSE_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The reply of `track_prompt`, `track_score`, `track_metadata` and `track_group`. `decode` returns it only
/// if `success` is true.
struct track_response {
    bool success = false;
    std::string message{}; ///< the text of the service, UTF-8, with spaces for control characters

    using schema = reply_schema<field<"success", &track_response::success>, //
                                field<"message", &track_response::message>>;

    friend bool operator==(const track_response&, const track_response&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRACK_PROMPT_HPP
#define PROMPTLAYER_TRACK_PROMPT_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-prompt`: links a prompt template to a request that was logged before. All
/// text is UTF-8; lengths are in code points.
template <class TextT, class VariablesT>
struct basic_track_prompt {
    required<TextT> prompt_name;         ///< the name of the prompt template, at least 1 code point
    VariablesT prompt_input_variables{}; ///< input variables of the template by name; not sent if empty
    required<integer> request_id;        ///< the unique identifier of the request
    optional<integer> version{};         ///< the version of the template; not together with `label`
    optional<TextT> label{}; ///< the label of the version, 1 to 512 code points; not together with `version`

    static constexpr std::string_view path = "/rest/track-prompt";
    using reply = track_response;
    using schema =
        promptlayer::schema<field<"prompt_name", &basic_track_prompt::prompt_name, min_length<1>>,
                            field<"prompt_input_variables", &basic_track_prompt::prompt_input_variables>,
                            field<"request_id", &basic_track_prompt::request_id>,
                            field<"version", &basic_track_prompt::version>,
                            field<"label", &basic_track_prompt::label, min_length<1>, max_length<512>>,
                            at_most_one_of<"version", "label">>;

    friend bool operator==(const basic_track_prompt&, const basic_track_prompt&) = default;
};

/// Owns its strings.
using track_prompt = basic_track_prompt<std::string, std::map<std::string, std::string, std::less<>>>;

/// Refers to strings, and to an array or vector of pairs of `string_view`s, which must outlive it. Works in
/// constant expressions. `view_of` takes any other range of pairs.
using track_prompt_view =
    basic_track_prompt<std::string_view, std::span<const std::pair<std::string_view, std::string_view>>>;

/// Refers to a range of pairs of strings, which must outlive it. Made by `view_of`.
template <class RangeT>
requires detail::variables<RangeT>
class variables_view {
    const RangeT* range_ = nullptr;

public:
    constexpr variables_view() = default;
    constexpr explicit variables_view(const RangeT& range) noexcept : range_{&range} {}

    constexpr auto begin() const { return range_ ? std::begin(*range_) : decltype(std::begin(*range_)){}; }
    constexpr auto end() const { return range_ ? std::end(*range_) : decltype(std::end(*range_)){}; }
};

namespace detail {

template <class RangeT>
inline constexpr bool unique_names<variables_view<RangeT>> = unique_names<RangeT>;

struct no_variables {};

} // namespace detail

/// Makes a request that refers to variables in any range of pairs of strings (`std::unordered_map`, a vector
/// of pairs, ...) without a copy. `rest` is the request without variables, in braces. `variables` and the
/// strings must outlive the request.
template <class RangeT>
requires detail::variables<RangeT>
constexpr basic_track_prompt<std::string_view, variables_view<RangeT>>
view_of(const RangeT& variables, const basic_track_prompt<std::string_view, detail::no_variables>& rest) {
    return {rest.prompt_name, variables_view<RangeT>{variables}, rest.request_id, rest.version, rest.label};
}

template <class RangeT>
void view_of(const RangeT&&, const basic_track_prompt<std::string_view, detail::no_variables>&) = delete;

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRACK_SCORE_HPP
#define PROMPTLAYER_TRACK_SCORE_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-score`: gives a score to a request that was logged before.
template <class TextT>
struct basic_track_score {
    required<integer> request_id; ///< the unique identifier of the request
    required<integer> score;      ///< 0 to 100
    optional<TextT> name{}; ///< the name of the score, UTF-8; the service takes "default" if it is absent

    static constexpr std::string_view path = "/rest/track-score";
    using reply = track_response;
    using schema = promptlayer::schema<field<"request_id", &basic_track_score::request_id>,
                                       field<"score", &basic_track_score::score, minimum<0>, maximum<100>>,
                                       field<"name", &basic_track_score::name>>;

    friend bool operator==(const basic_track_score&, const basic_track_score&) = default;
};

using track_score = basic_track_score<std::string>;           ///< owns its strings
using track_score_view = basic_track_score<std::string_view>; ///< refers to strings, which must outlive it

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRACK_METADATA_HPP
#define PROMPTLAYER_TRACK_METADATA_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-metadata`: adds metadata to a request that was logged before.
template <class MapT>
struct basic_track_metadata {
    required<integer> request_id; ///< the unique identifier of the request
    required<MapT> metadata;      ///< text by name, UTF-8; sent also if it is empty

    static constexpr std::string_view path = "/rest/track-metadata";
    using reply = track_response;
    using schema = promptlayer::schema<field<"request_id", &basic_track_metadata::request_id>,
                                       field<"metadata", &basic_track_metadata::metadata>>;

    friend bool operator==(const basic_track_metadata&, const basic_track_metadata&) = default;
};

/// Owns its strings.
using track_metadata = basic_track_metadata<std::map<std::string, std::string, std::less<>>>;

/// Refers to an array or vector of pairs of `string_view`s, which must outlive it.
using track_metadata_view =
    basic_track_metadata<std::span<const std::pair<std::string_view, std::string_view>>>;

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRACK_GROUP_HPP
#define PROMPTLAYER_TRACK_GROUP_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-group`: puts a request that was logged before into a group.
struct track_group {
    required<integer> request_id; ///< the unique identifier of the request
    required<integer> group_id;   ///< the unique identifier of the group

    static constexpr std::string_view path = "/rest/track-group";
    using reply = track_response;
    using schema = promptlayer::schema<field<"request_id", &track_group::request_id>,
                                       field<"group_id", &track_group::group_id>>;

    friend bool operator==(const track_group&, const track_group&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_LOG_REQUEST_HPP
#define PROMPTLAYER_LOG_REQUEST_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The result of a logged call, in the order of their names in JSON.
enum class log_status { success, warning, error };

/// Why a logged call failed, in the order of their names in JSON.
enum class log_error_type {
    provider_timeout,
    provider_quota_limit,
    provider_rate_limit,
    provider_partial_response,
    provider_auth_error,
    provider_error,
    template_render_error,
    variable_missing_or_empty,
    unknown_error,
};

/// The reply of `POST /log-request`.
struct log_response {
    integer id{};               ///< the `request_id` of `track_prompt`, `track_score` and the others
    any_value prompt_version{}; ///< not read
    std::optional<std::string> status{}, error_type{}, error_message{};

    using schema =
        reply_schema<field<"id", &log_response::id>, //
                     field<"prompt_version", &log_response::prompt_version>,
                     field<"status", &log_response::status>, field<"error_type", &log_response::error_type>,
                     field<"error_message", &log_response::error_message>>;

    friend bool operator==(const log_response&, const log_response&) = default;
};

namespace detail {

/// For code that needs no complete `log_request`, which takes time to compile.
inline constexpr std::string_view log_path = "/log-request";

} // namespace detail

/// The body of `POST /log-request`: logs a call of a language model, and so makes the `request_id` that the
/// other requests refer to. All text is UTF-8; lengths are in code points. `chat_prompt` makes an `input` or
/// `output`, `date_time` a time.
template <class TextT, class MapT, class ListT>
struct basic_log_request {
    required<TextT> provider;                        ///< such as "openai"
    required<TextT> model;                           ///< such as "gpt-4o"
    required<basic_json_object<TextT>> input;        ///< a prompt blueprint: what the model was asked
    required<basic_json_object<TextT>> output;       ///< a prompt blueprint: what the model answered
    required<TextT> request_start_time;              ///< RFC 3339, such as 2024-01-15T10:30:00Z
    required<TextT> request_end_time;                ///< RFC 3339
    optional<basic_json_object<TextT>> parameters{}; ///< of the model
    ListT tags{};                                    ///< each at most 512 code points; not sent if empty
    MapT metadata{};                           ///< names of at most 1,024 code points; not sent if empty
    optional<TextT> prompt_name{};             ///< of the prompt template that was used
    optional<integer> prompt_id{};             ///< of the prompt template that was used
    optional<integer> prompt_version_number{}; ///< above 0
    optional<basic_json_object<TextT>> prompt_input_variables{}; ///< of the prompt template
    optional<integer> input_tokens{};                            ///< 0 or more
    optional<integer> output_tokens{};                           ///< 0 or more
    optional<double> price{};                                    ///< 0 or more
    optional<TextT> function_name{};
    optional<TextT> api_type{};
    optional<integer> score{}; ///< 0 to 100
    optional<log_status> status{};
    optional<log_error_type> error_type{};
    optional<TextT> error_message{}; ///< at most 1,024 code points

    static constexpr std::string_view path = detail::log_path;
    static constexpr int success_status = 201;
    static constexpr bool idempotent = false; // each makes a log of its own
    using reply = log_response;
    using schema = promptlayer::schema<
        field<"provider", &basic_log_request::provider>, field<"model", &basic_log_request::model>,
        field<"input", &basic_log_request::input>, field<"output", &basic_log_request::output>,
        field<"request_start_time", &basic_log_request::request_start_time, date_time_format>,
        field<"request_end_time", &basic_log_request::request_end_time, date_time_format>,
        field<"parameters", &basic_log_request::parameters>,
        field<"tags", &basic_log_request::tags, items<max_length<512>>>,
        field<"metadata", &basic_log_request::metadata, property_names<max_length<1024>>>,
        field<"prompt_name", &basic_log_request::prompt_name>,
        field<"prompt_id", &basic_log_request::prompt_id>,
        field<"prompt_version_number", &basic_log_request::prompt_version_number, exclusive_minimum<0>>,
        field<"prompt_input_variables", &basic_log_request::prompt_input_variables>,
        field<"input_tokens", &basic_log_request::input_tokens, minimum<0>>,
        field<"output_tokens", &basic_log_request::output_tokens, minimum<0>>,
        field<"price", &basic_log_request::price, minimum<0>>,
        field<"function_name", &basic_log_request::function_name>,
        field<"api_type", &basic_log_request::api_type>,
        field<"score", &basic_log_request::score, minimum<0>, maximum<100>>,
        field<"status", &basic_log_request::status, one_of<"SUCCESS", "WARNING", "ERROR">>,
        field<"error_type", &basic_log_request::error_type,
              one_of<"PROVIDER_TIMEOUT", "PROVIDER_QUOTA_LIMIT", "PROVIDER_RATE_LIMIT",
                     "PROVIDER_PARTIAL_RESPONSE", "PROVIDER_AUTH_ERROR", "PROVIDER_ERROR",
                     "TEMPLATE_RENDER_ERROR", "VARIABLE_MISSING_OR_EMPTY", "UNKNOWN_ERROR">>,
        field<"error_message", &basic_log_request::error_message, max_length<1024>>>;

    friend bool operator==(const basic_log_request&, const basic_log_request&) = default;
};

/// Owns its strings.
using log_request =
    basic_log_request<std::string, std::map<std::string, std::string, std::less<>>, std::vector<std::string>>;

/// Refers to strings, to arrays or vectors of `string_view`s and of pairs of them, which must outlive it.
using log_request_view =
    basic_log_request<std::string_view, std::span<const std::pair<std::string_view, std::string_view>>,
                      std::span<const std::string_view>>;

/// Who wrote a message of a chat.
enum class role { system, user, assistant };

/// A message of a chat, UTF-8.
struct chat_message {
    promptlayer::role role;
    std::string_view text;
};

namespace detail {

PROMPTLAYER_DECL json_object chat_prompt(const chat_message* first, std::size_t count);

} // namespace detail

/// Returns a prompt blueprint of messages that are text only, from a list in braces or a contiguous range. A
/// text that is not UTF-8 is reported when the request is checked.
inline json_object chat_prompt(std::initializer_list<chat_message> messages) {
    return detail::chat_prompt(messages.begin(), messages.size());
}

template <class RangeT>
json_object chat_prompt(const RangeT& messages) {
    return detail::chat_prompt(std::data(messages), std::size(messages));
}

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL json_object detail::chat_prompt(const chat_message* first, std::size_t count) {
    constexpr std::string_view roles[] = {"system", "user", "assistant"};
    std::string json;
    json_writer<vector_block> writer{json, json.max_size()};
    writer.put(R"({"type":"chat","messages":[)");
    for (std::size_t i = 0; i < count; ++i) {
        const chat_message& message = first[i];
        writer.put(i == 0 ? R"({"role":")" : R"(,{"role":")");
        const auto role = static_cast<std::size_t>(message.role);
        writer.put(role < std::size(roles) ? roles[role] : "\n"); // no JSON, so the request is rejected
        writer.put(R"(","content":[{"type":"text","text":)");
        writer.put_text(message.text); // no JSON either if it is not UTF-8
        writer.put("}]}");
    }
    writer.put("]}");
    writer.flush();
    return json;
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_COMPILED_MODELS_HPP
#define PROMPTLAYER_DETAIL_COMPILED_MODELS_HPP

// With separate compilation, only one source file compiles the tables of these models, to keep them out of
// all others.
#if defined(PROMPTLAYER_SEPARATE_COMPILATION)

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

#if defined(PROMPTLAYER_DEFINITIONS)
template const model_info& info<track_response>() noexcept;
template const model_info& info<track_prompt>() noexcept;
template const model_info& info<track_prompt_view>() noexcept;
template const model_info& info<track_score>() noexcept;
template const model_info& info<track_score_view>() noexcept;
template const model_info& info<track_metadata>() noexcept;
template const model_info& info<track_metadata_view>() noexcept;
template const model_info& info<track_group>() noexcept;
template const model_info& info<log_response>() noexcept;
template const model_info& info<log_request>() noexcept;
template const model_info& info<log_request_view>() noexcept;
#else
extern template const model_info& info<track_response>() noexcept;
extern template const model_info& info<track_prompt>() noexcept;
extern template const model_info& info<track_prompt_view>() noexcept;
extern template const model_info& info<track_score>() noexcept;
extern template const model_info& info<track_score_view>() noexcept;
extern template const model_info& info<track_metadata>() noexcept;
extern template const model_info& info<track_metadata_view>() noexcept;
extern template const model_info& info<track_group>() noexcept;
extern template const model_info& info<log_response>() noexcept;
extern template const model_info& info<log_request>() noexcept;
extern template const model_info& info<log_request_view>() noexcept;
#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#endif

#ifndef PROMPTLAYER_DATE_TIME_HPP
#define PROMPTLAYER_DATE_TIME_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {

/// Returns the time in UTC as text of RFC 3339 with milliseconds, rounded down: `2024-01-15T10:30:00.123Z`. A
/// time outside the years 0 to 9999 becomes the first or last millisecond of these years.
PROMPTLAYER_DECL std::string date_time(std::chrono::system_clock::time_point time);

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL std::string date_time(std::chrono::system_clock::time_point time) {
    using namespace std::chrono;
    constexpr std::int64_t day_ms = 86'400'000;
    constexpr std::int64_t first = -719'528 * day_ms,
                           last = 2'932'897 * day_ms - 1; // of the years 0 and 9999
    const std::int64_t since_first =
        std::clamp<std::int64_t>(floor<milliseconds>(time.time_since_epoch()).count(), first, last) - first;
    const year_month_day date{sys_days{days{first / day_ms + since_first / day_ms}}};
    const std::int64_t ms = since_first % day_ms;
    std::string text = "0000-00-00T00:00:00.000Z";
    const auto write = [&](std::size_t end, std::int64_t number) {
        for (; number != 0; number /= 10)
            text[--end] = static_cast<char>('0' + number % 10);
    };
    write(4, static_cast<int>(date.year()));
    write(7, static_cast<unsigned>(date.month()));
    write(10, static_cast<unsigned>(date.day()));
    write(13, ms / 3'600'000);
    write(16, ms / 60'000 % 60);
    write(19, ms / 1000 % 60);
    write(23, ms % 1000);
    return text;
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_URL_HPP
#define PROMPTLAYER_DETAIL_URL_HPP


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

#endif

#ifndef PROMPTLAYER_DETAIL_HTTP_DATE_HPP
#define PROMPTLAYER_DETAIL_HTTP_DATE_HPP

#if defined(PROMPTLAYER_DEFINITIONS)

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns the number that `digits` spells; the largest number if it is larger; nullopt if `digits` is empty
/// or has another character.
inline std::optional<std::chrono::seconds::rep> parse_integer(std::string_view digits) noexcept {
    std::chrono::seconds::rep number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, number);
    if (digits.empty() || digits[0] == '-' || stop != end)
        return std::nullopt;
    return ec == std::errc::result_out_of_range ? std::numeric_limits<decltype(number)>::max() : number;
}

/// Reads a date in one of the three forms of RFC 9110, section 5.6.7:
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
    const auto day = parse_integer(part[1]), year = parse_integer(part[3]), hours = parse_integer(part[4]),
               minutes = parse_integer(part[5]), seconds = parse_integer(part[6]);
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

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#endif

#ifndef PROMPTLAYER_HTTP_HPP
#define PROMPTLAYER_HTTP_HPP


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

#endif

#ifndef PROMPTLAYER_DETAIL_EXCEPTIONS_HPP
#define PROMPTLAYER_DETAIL_EXCEPTIONS_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Calls `action` and returns its result. If `action` throws, returns the result of `on_throw` for the text
/// of the exception.
template <class ActionT, class OnThrowT>
auto guard_exceptions(ActionT&& action, OnThrowT&& on_throw) -> decltype(action()) {
#if defined(__cpp_exceptions)
    try {
        return action();
    } catch (const std::exception& thrown) {
        const char* const text = thrown.what();
        return on_throw(text ? text : "unknown exception");
    } catch (...) {
        return on_throw("unknown exception");
    }
#else
    static_cast<void>(on_throw);
    return action();
#endif
}

/// Rethrows the current exception. For `on_throw` of `guard_exceptions`.
#if defined(__cpp_exceptions)
[[noreturn]] inline void rethrow() { throw; }
#else
inline void rethrow() {}
#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_MUTEX_HPP
#define PROMPTLAYER_DETAIL_MUTEX_HPP

#ifndef PROMPTLAYER_NO_THREADS
#include <mutex>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

#ifndef PROMPTLAYER_NO_THREADS
using mutex = std::mutex;
using lock = std::lock_guard<std::mutex>;
#else
struct mutex {};
struct lock {
    explicit lock(mutex&) noexcept {}
};
#endif

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRANSPORT_HPP
#define PROMPTLAYER_TRANSPORT_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// A request without a response: the kind of the failure and its message.
struct transport_failure {
    failure kind = failure::other;
    std::string message{}; ///< for a person; errors show it bounded, without control characters and API key
    /// Whether the service may have received the whole request. False by default if there was no connection.
    bool maybe_delivered = kind != failure::resolve && kind != failure::connect && kind != failure::tls;

    friend bool operator==(const transport_failure&, const transport_failure&) = default;
};

/// The outcome of one request: a response of any status, or a failure.
using transport_result = result<http_response, transport_failure>;

/// Takes the outcome of one asynchronous request. The transport calls it once, from any thread, also before
/// `send` returns. Further calls are ignored. If it is destroyed without a call, the outcome is
/// `failure::cancelled`.
using completion = std::function<void(transport_result)>;

// The contract of a transport
//
// A transport does one HTTP request and nothing else. The library validates, retries, paces and queues.
//
// The request:
//
// - It sends the method, the URL, every header and the body as they stand, once. No timeout, status or cut
//   response makes it send again. The only exception: a kept connection ended without a byte of a response.
// - It adds only headers that the request does not have: `Host`, `Content-Length` and, if the connection
//   needs them, `Connection` or `Keep-Alive`. Not `Accept-Encoding`, `Cookie`, `Expect` or `User-Agent`.
// - Each request goes to the host and port of its own URL, with its own headers and none of another request.
//   The host may be an IPv6 address in brackets.
// - It refuses a request that it cannot send unchanged, with `failure::other`, not delivered. It may refuse
//   each method except POST.
// - It verifies the peer of an `https` URL before it sends anything.
//
// The response:
//
// - Any final response is a success, whatever its status: it returns the status, all headers in order, and
//   the whole body. It skips informational responses (1xx). A response to HEAD has no body.
// - It takes the chunked coding off the body and unpacks nothing: a `Content-Encoding` stays.
// - It follows no redirect, neither a 3xx nor the `Location` or `Refresh` of another status. A redirect
//   followed with a new request would hand the API key to another host.
// - It remembers nothing of a response: no cookies, no cache, no authentication.
// - It stops reading when the body exceeds `request.max_response_bytes` and returns the response with the
//   part of the body that makes it longer than the limit, or a failure.
// - It never returns a part as if it were the whole. A response that is cut is `failure::reset`. Over TLS, a
//   body that ends with the connection is cut unless a close_notify ends it.
// - A failure says whether the request may have reached the service (`maybe_delivered`).
//
// Time and connections:
//
// - It ends the request after `request.timeout`, in milliseconds, with `failure::timeout`. The time counts
//   from the call of `send` to the last byte. It includes the wait for other requests.
// - It keeps its connections for the next requests. If the service has closed a kept connection, the
//   transport opens another, or the request fails as not delivered.
// - It does not use a connection again after a timeout or a cancel, after `Connection: close` or HTTP/1.0,
//   or if bytes came on the connection that no request asked for. It closes the connection.
// - It does not throw. If it does, the library returns `failure::other`.
//
// Optional members of a transport, none of which throws:
//
// - `static constexpr bool thread_safe = true`: `send` may be called from many threads at once. A client is
//   as thread-safe as its transport.
// - `cancel()`, for any thread: requests in flight end within 100 ms with `failure::cancelled`, also if
//   the response has begun. Later requests are not affected.
// - `poll()`: continues the requests in flight and calls completions; does not wait.
// - `poll(std::chrono::milliseconds)`: the same, but waits at most that long until there is something to do.
//   It returns once it has called a completion. It may return earlier; a background tracker then calls it
//   again at once.
// - `wakeup()`, for any thread: ends the present wait of `poll`. If `poll` does not wait now, ends the next
//   wait, whether or not a request is in flight.
// - `max_in_flight(std::size_t)`: receives the largest number of requests in flight at once, to open and
//   keep as many connections. The library calls it once, before the first `send`.
//
// `check_transport` (testing/conformance.hpp) runs a transport against this contract.

/// A synchronous transport: `transport_result send(const http_request&)`. Blocks until the outcome is known.
template <class T>
concept Transport = requires(T& transport, const http_request& request) {
    { transport.send(request) } -> std::convertible_to<transport_result>;
};

/// An asynchronous transport: `void send(http_request, completion)`. Does not block; calls the completion
/// once, when the outcome is known. A completion may send the next request. A transport that is destroyed
/// destroys or calls the completions it holds.
template <class T>
concept AsyncTransport = requires(T& transport, http_request request, completion done) {
    { transport.send(std::move(request), std::move(done)) } -> std::same_as<void>;
};

/// A transport that calls a callable; see `transport_from`.
template <class CallableT>
class callable_transport {
    CallableT callable_;

public:
    explicit callable_transport(CallableT callable) : callable_(std::move(callable)) {}

    transport_result send(const http_request& request) requires
        std::is_invocable_r_v<transport_result, CallableT&, const http_request&> {
        return callable_(request);
    }

    void send(http_request request,
              completion done) requires std::invocable<CallableT&, http_request, completion> {
        callable_(std::move(request), std::move(done));
    }
};

/// Makes a transport of a callable: `transport_result(const http_request&)` or `void(http_request,
/// completion)`.
template <class CallableT>
callable_transport<CallableT> transport_from(CallableT callable) {
    return callable_transport<CallableT>{std::move(callable)};
}

namespace detail {

template <class T>
concept sends = requires(T& transport, const http_request& request) {
    transport.send(request);
};

template <class T>
concept sends_asynchronously = requires(T& transport, http_request request, completion done) {
    transport.send(std::move(request), std::move(done));
};

template <class T>
concept some_transport = Transport<T> || AsyncTransport<T>;

template <class T>
concept points_to_transport = requires(T& pointer) {
    requires some_transport<std::remove_reference_t<decltype(*pointer)>>;
};

/// Fails with one sentence if a type is not a transport.
template <class T>
consteval bool is_transport() {
    static_assert(!points_to_transport<T>,
                  "promptlayer: this is a pointer to a transport: give the transport, or std::ref(*pointer)");
    static_assert(!std::is_const_v<T> || some_transport<T> || !some_transport<std::remove_const_t<T>>,
                  "promptlayer: this transport is const, but its member function `send` is not");
    static_assert(some_transport<T> || sends<T> || sends_asynchronously<T> || points_to_transport<T> ||
                      some_transport<std::remove_const_t<T>>,
                  "promptlayer: this type is not a Transport: it has neither a public member function "
                  "`transport_result send(const http_request&)` nor `void send(http_request, completion)`");
    static_assert(
        !sends<T> || Transport<T>,
        "promptlayer: this type is not a Transport: its member function `send(const http_request&)` does not "
        "return a transport_result");
    static_assert(!sends_asynchronously<T> || AsyncTransport<T>,
                  "promptlayer: this type is not an AsyncTransport: its member function `send(http_request, "
                  "completion)` does not return void");
    return true;
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_CONFIG_HPP
#define PROMPTLAYER_CONFIG_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {

inline constexpr std::string_view library_version = "0.1.0";

namespace detail {

PROMPTLAYER_DECL std::string default_user_agent();

} // namespace detail

/// How to reach the service. A plain value. A config with an invalid member makes every call fail with
/// `invalid_config`. Printing shows the API key and the values of `headers` as `[redacted]`.
struct config {
    std::string api_key{};                                ///< visible ASCII; never in an error or a log
    std::string base_url = "https://api.promptlayer.com"; ///< a path is kept, one slash at its end is not
    std::chrono::milliseconds timeout = std::chrono::seconds{10}; ///< for the whole exchange; more than 0
    std::string user_agent = detail::default_user_agent();        ///< printable ASCII
    std::size_t max_response_bytes = 1024 * 1024; ///< a longer body is not read to its end; more than 0
    bool allow_insecure_http = false; ///< if false, `http://` needs `localhost`, 127.0.0.0/8 or `[::1]`
    std::size_t max_request_bytes = default_max_request_bytes; ///< a longer body is not sent; more than 0
    /// Sent with every request, for gateways and tracing. Names are HTTP tokens, values printable ASCII.
    /// Headers that the library or a transport writes are not allowed.
    std::vector<header> headers{};
};

/// Makes a config from the variables `PROMPTLAYER_API_KEY` and `PROMPTLAYER_BASE_URL`. A variable that is
/// unset or empty leaves the default. No other thread may change the environment meanwhile.
[[nodiscard]] PROMPTLAYER_DECL config config_from_environment();

/// Returns one violation for each invalid member. Messages contain no values.
[[nodiscard]] PROMPTLAYER_DECL std::vector<violation> validate(const config& config);

/// Returns the config for a person, one line for each member, without control characters. The API key, user
/// information in the URL and the values of `headers` are `[redacted]`.
PROMPTLAYER_DECL std::string to_string(const config& config);

namespace detail {

template <>
inline constexpr bool is_printable<config> = true;

} // namespace detail

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL std::string default_user_agent() {
    return std::string{"promptlayer-cpp/"}.append(library_version);
}

/// Returns what is wrong with a base URL; empty if it is valid.
inline std::string_view base_url_error(std::string_view url, bool allow_insecure_http) noexcept {
    if (url.find_first_of("?#\\") != url.npos)
        return "must be visible ASCII without space, ?, # and backslash";
    const url_parts parts = split_url(url);
    if (!parts.error.empty())
        return parts.error;
    if (!parts.secure && !allow_insecure_http && !parts.loopback)
        return "must begin with https://: the host is not this machine, and allow_insecure_http is not set";
    return {};
}

/// Returns why a header of `config::headers` cannot be sent; empty if it can.
inline std::string_view header_error(const header& field) noexcept {
    if (!is_token(field.name))
        return "the name must be an HTTP token";
    for (const std::string_view reserved :
         {"X-API-KEY", "Content-Type", "Accept", "User-Agent", "Host", "Content-Length", "Transfer-Encoding",
          "Content-Encoding", "Accept-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Expect",
          "TE", "Trailer", "Upgrade"}) {
        if (equal_ignoring_case(field.name, reserved))
            return "is written by the library or the transport";
    }
    if (!ascii_from(' ', field.value) || trim(field.value).size() != field.value.size())
        return "the value must be printable ASCII, without a space at either end";
    return {};
}

} // namespace detail

PROMPTLAYER_DECL config config_from_environment() {
#if defined(_MSC_VER)
#pragma warning(push)
#pragma warning(disable : 4996)
#endif
    const char* const key = std::getenv("PROMPTLAYER_API_KEY");
    const char* const url = std::getenv("PROMPTLAYER_BASE_URL");
#if defined(_MSC_VER)
#pragma warning(pop)
#endif
    config config;
    if (key)
        config.api_key = key;
    if (url && *url)
        config.base_url = url;
    return config;
}

PROMPTLAYER_DECL std::vector<violation> validate(const config& config) {
    std::vector<violation> violations;
    const auto add = [&](std::string member, std::string_view message) {
        violations.push_back({std::move(member), rule::setting, 0, 0, std::string{message}});
    };
    if (config.api_key.empty())
        add("api_key", "is not given");
    else if (!detail::ascii_from('!', config.api_key))
        add("api_key", "must be visible ASCII");
    const std::string_view url_error = detail::base_url_error(config.base_url, config.allow_insecure_http);
    if (!url_error.empty())
        add("base_url", url_error);
    if (config.timeout <= std::chrono::milliseconds{0})
        add("timeout", "must be more than 0 ms");
    if (config.user_agent.empty() || !detail::ascii_from(' ', config.user_agent))
        add("user_agent", "must be printable ASCII");
    if (config.max_response_bytes == 0)
        add("max_response_bytes", "must be more than 0");
    if (config.max_request_bytes == 0)
        add("max_request_bytes", "must be more than 0");
    for (std::size_t i = 0; i < config.headers.size(); ++i) {
        const std::string_view header_error = detail::header_error(config.headers[i]);
        if (!header_error.empty())
            add("headers[" + std::to_string(i) + "]", header_error);
    }
    return violations;
}

PROMPTLAYER_DECL std::string to_string(const config& config) {
    const auto show = [&](std::string_view text) {
        return detail::redact(detail::sanitize(text, text.npos), config.api_key);
    };
    std::string text;
    const auto add = [&](std::string_view member, std::string_view value) {
        text.append(member).append(": ").append(value).append("\n");
    };
    add("api_key", config.api_key.empty() ? "" : "[redacted]");
    add("base_url", show(detail::without_user_information(config.base_url)));
    add("timeout", std::to_string(config.timeout.count()) + " ms");
    add("user_agent", show(config.user_agent));
    add("max_response_bytes", std::to_string(config.max_response_bytes));
    add("allow_insecure_http", config.allow_insecure_http ? "true" : "false");
    add("max_request_bytes", std::to_string(config.max_request_bytes));
    for (const header& field : config.headers)
        add("headers", show(field.name) + ": [redacted]");
    return text;
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_PREPARED_REQUEST_HPP
#define PROMPTLAYER_PREPARED_REQUEST_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The number of a request in a queue and its journal: from 1, ascending in the order of the pushes.
using request_number = std::uint64_t;

/// Options of one call.
struct request_options {
    std::optional<std::chrono::milliseconds> timeout{}; ///< of each attempt; nullopt: that of the config
};

/// A validated request without the API key, for queues and files.
struct prepared_request {
    std::string path{};                   ///< `/rest/track-prompt`
    std::string body{};                   ///< JSON
    bool idempotent = true;               ///< whether sending the request twice changes nothing
    std::chrono::milliseconds timeout{0}; ///< of each attempt; 0: that of the config. No journal keeps it.

    friend bool operator==(const prepared_request&, const prepared_request&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_RESPONSE_READER_HPP
#define PROMPTLAYER_DETAIL_RESPONSE_READER_HPP

#if defined(PROMPTLAYER_DEFINITIONS)

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns the type of a JSON value by its text.
constexpr json_type type_of(std::string_view value) noexcept {
    switch (value[0]) {
    case 'n': return json_type::null;
    case 't':
    case 'f': return json_type::boolean;
    case '"': return json_type::string;
    case '[': return json_type::array;
    case '{': return json_type::object;
    default: return json_type::number;
    }
}

/// Returns the text of a JSON string; empty for any other value, or if there is none.
inline std::string_view text_of_string(std::string_view value, std::string& buffer) {
    return value.starts_with('"') ? text_of(value.substr(1, value.size() - 2), buffer) : std::string_view{};
}

/// Reads the reply of a response. Reports members that do not match the model to `report`. Stores text
/// without hidden characters and secrets.
class reply_reader {
    const model_info& info_;
    void* reply_;
    std::span<const std::string_view> secrets_;
    violation_collector& report_;
    std::uint64_t given_ = 0; // bit N stands for field N
    struct {
        const char* data;
        std::size_t size;
    } members_[64]; // the JSON text of the fields in `given_`; the last of repeated members

    void store_number(const field_info& field, const member_value& value) {
        check_number(field, value, report_);
        field.store(reply_, value);
    }

    void read_integer(const field_info& field, std::string_view digits) {
        const integer_reading reading = field.functions->read_integer(digits);
        if (!reading.fits)
            report_.add(rule::range, {field.name()}, 0, 0);
        else if (!reading.is_integral)
            report_.add_type({field.name()}, json_type::integer, "a number with a fraction");
        else
            store_number(field, {.integer = reading.value});
    }

    void read_double(const field_info& field, std::string_view digits) {
        const auto value = field.functions->read_number(digits);
        if (!value)
            return report_.add(rule::finite, {field.name()}, 0, 0);
        store_number(field, {.number = *value});
    }

    void store_text(const field_info& field, std::string_view text) {
        if (is_harmless(text, secrets_))
            field.store(reply_, {.text = text});
        else
            field.store(reply_, {.text = shown_text(text, secrets_)});
    }

    void read_entry(const field_info& field, const location& where, std::string_view value) {
        if (type_of(value) != json_type::string)
            return report_.add_type(where, json_type::string, type_name(type_of(value)));
        std::string buffer;
        const std::string_view text = text_of_string(value, buffer);
        check_read_text(field, where.name ? *where.name : text,
                        {where.member, where.name, where.index, where.name != nullptr}, report_);
        const std::string name = where.name ? shown_text(*where.name, secrets_) : std::string{};
        if (!field.insert(reply_, name, shown_text(text, secrets_)))
            report_.add(rule::unique, where, 0, 0); // or the names differ in hidden text only
    }

    void read_member(const field_info& field, std::string_view value) {
        const json_type type = type_of(value);
        if (field.kind == member_kind::any || (type == json_type::null && !field.is_required))
            return;
        if (type == json_type::number && field.kind == member_kind::integer)
            return read_integer(field, value);
        if (type != json_type_of(field.kind))
            return report_.add_type({field.name()}, json_type_of(field.kind), type_name(type));
        std::string buffer;
        switch (field.kind) {
        case member_kind::boolean: field.store(reply_, {.integer = value == "true" ? 1 : 0}); break;
        case member_kind::number: read_double(field, value); break;
        case member_kind::string: {
            const std::string_view text = text_of_string(value, buffer);
            check_read_text(field, text, {field.name()}, report_);
            store_text(field, text);
            break;
        }
        case member_kind::json_object: store_text(field, value); break;
        case member_kind::strings:
            for_each_json_member(value, [&](std::size_t index, std::string_view, std::string_view item) {
                read_entry(field, {.member = field.name(), .index = index}, item);
            });
            break;
        case member_kind::map:
            for_each_json_member(value, [&](std::size_t, std::string_view escaped, std::string_view entry) {
                const std::string_view name = text_of(escaped, buffer);
                read_entry(field, {.member = field.name(), .name = &name}, entry);
            });
            break;
        case member_kind::integer:
        case member_kind::any: break;
        }
    }

    void read_members() {
        for (std::size_t i = 0; i < info_.fields.size(); ++i) {
            const field_info& field = info_.fields[i];
            if (given_ >> i & 1) {
                const std::string_view value{members_[i].data, members_[i].size};
                read_member(field, value);
                if (value == "null")
                    given_ &= ~(std::uint64_t{1} << i);
            } else if (field.is_required) {
                report_.add(rule::required, {field.name()}, 0, 0);
            }
        }
        check_groups(info_, given_, report_);
    }

public:
    reply_reader(const model_info& info, void* reply, std::span<const std::string_view> secrets,
                 violation_collector& report) noexcept
        : info_(info), reply_(reply), secrets_(secrets), report_(report) {}

    /// Reads the body of a response. Returns where and why it is not JSON text, and then reports nothing.
    json_text_check read(std::string_view body) {
        json_text_reader reader{body};
        reader.skip_space();
        const json_type type = reader.p == reader.end ? json_type::null : type_of({reader.p, 1});
        std::string buffer;
        const auto keep_member = [&](std::size_t, std::string_view escaped) {
            std::string_view value;
            const bool is_taken = reader.take_value(max_json_depth - 1, value);
            const std::string_view name = text_of(escaped, buffer);
            for (std::size_t i = 0; i < info_.fields.size(); ++i) {
                if (name == info_.fields[i].name()) {
                    given_ |= std::uint64_t{1} << i;
                    members_[i] = {value.data(), value.size()};
                }
            }
            return is_taken;
        };
        const bool is_json =
            type == json_type::object ? reader.take_members(keep_member) : reader.take_value(max_json_depth);
        if (is_json)
            reader.skip_space();
        const auto offset = static_cast<std::size_t>(reader.p - body.data());
        if (!is_json)
            return {reader.error, offset};
        if (offset != body.size())
            report_.add(rule::trailing_text, {}, 0, offset);
        if (type == json_type::object)
            read_members();
        else
            report_.add_type({}, json_type::object, type_name(type));
        return {};
    }
};

/// The limit on the size of one text of the service in an error, in bytes.
inline constexpr std::size_t max_service_text = 512;

/// The reason that the service gives for a status that is no success.
struct service_message {
    bool is_object = false;              ///< the body is a JSON object
    std::string text{};                  ///< `message`, `error` or `detail`; empty if there is none
    std::vector<violation> violations{}; ///< from FastAPI's list of `loc`, `msg` and `type`
};

/// Returns FastAPI's `loc` as a path: `prompt_input_variables["user"]` for ["body", "prompt_input_variables",
/// "user"].
inline std::string path_of(std::string_view loc, std::span<const std::string_view> secrets) {
    constexpr std::size_t max_steps = 8; // deeper than any request
    std::string path;
    if (!loc.starts_with('['))
        return path;
    std::size_t shown = 0;
    std::string buffer;
    for_each_json_member(loc, [&](std::size_t index, std::string_view, std::string_view step) {
        const std::string_view name = text_of_string(step, buffer);
        if (shown == max_steps || (index == 0 && name == "body"))
            return;
        if (step.starts_with('"')) {
            path += shown == 0 ? "" : "[\"";
            if (step.size() == name.size() + 2 && name.size() <= 64 && ascii_from(' ', name))
                path += name; // nothing to escape or to cut
            else
                path += json_escape(redact(std::string{name}, secrets));
            path += shown == 0 ? "" : "\"]";
        } else if (type_of(step) == json_type::number && step.find_first_of(".eE") == step.npos) {
            path.append("[").append(step).append("]");
        } else {
            return;
        }
        ++shown;
    });
    return path;
}

/// Reads the body of a response that is no success, in one pass: of repeated members, the last counts.
class service_message_reader {
    json_text_reader reader_;
    std::span<const std::string_view> secrets_;
    std::string_view message_{}, error_{}, detail_{}; // as JSON text
    violation_list list_{};
    std::string buffer_{};

    /// Takes an item of `detail`.
    bool take_item() {
        constexpr std::size_t max_depth = max_json_depth - 2; // within the body and the array
        std::string_view msg, type, loc, value;
        const bool is_taken = !reader_.at('{', '{')
                                  ? reader_.take_value(max_depth, msg)
                                  : reader_.take_members([&](std::size_t, std::string_view escaped) {
                                        if (!reader_.take_value(max_depth - 1, value))
                                            return false;
                                        const std::string_view name = text_of(escaped, buffer_);
                                        if (name == "msg")
                                            msg = value;
                                        else if (name == "type")
                                            type = value;
                                        else if (name == "loc")
                                            loc = value;
                                        return true;
                                    });
        if (!is_taken)
            return false;
        std::string_view text = text_of_string(msg, buffer_);
        if (text.empty())
            text = text_of_string(type, buffer_);
        std::string path = path_of(loc, secrets_);
        if (!path.empty() || !text.empty())
            list_.add([&] { return violation{std::move(path), rule::service, 0, 0, std::string{text}}; });
        return true;
    }

    bool take_member(std::string_view escaped) {
        std::string_view unused;
        const std::string_view name = text_of(escaped, buffer_);
        std::string_view& value = name == "message"  ? message_
                                  : name == "error"  ? error_
                                  : name == "detail" ? detail_
                                                     : unused;
        if (&value == &detail_) {
            list_ = {};
            detail_ = {};
            if (reader_.at('[', '['))
                return reader_.take_members([&](std::size_t, std::string_view) { return take_item(); });
        }
        return reader_.take_value(max_json_depth - 1, value);
    }

public:
    service_message_reader(std::string_view body, std::span<const std::string_view> secrets) noexcept
        : reader_(body), secrets_(secrets) {}

    /// Returns the message, with hidden characters and secrets in its violations.
    service_message read() && {
        reader_.skip_space();
        const bool is_object =
            reader_.at('{', '{') &&
            reader_.take_members([&](std::size_t, std::string_view name) { return take_member(name); });
        reader_.skip_space();
        if (!is_object || reader_.p != reader_.end)
            return {};
        service_message message{.is_object = true, .violations = std::move(list_).take()};
        for (std::string_view value : {message_, error_, detail_}) {
            if (value.starts_with('{'))
                value = find_json_member(value, "message");
            message.text = sanitize(text_of_string(value, buffer_), std::string_view::npos);
            if (message.text.find_first_not_of(' ') != message.text.npos)
                return message;
        }
        message.text.clear();
        return message;
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#endif

#ifndef PROMPTLAYER_CODEC_HPP
#define PROMPTLAYER_CODEC_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns `invalid_config` with every violation; nullopt if the config can be used.
PROMPTLAYER_DECL std::optional<error> check(const config& config);

/// Validates and writes a request. The API key is in no path of a violation.
PROMPTLAYER_DECL result<prepared_request> prepare_any(std::string_view path, bool idempotent,
                                                      model_reference request, std::size_t max_bytes,
                                                      std::string_view api_key);

/// Writes a request. `config` must be valid. Empties `out` after an error.
PROMPTLAYER_DECL result<void> encode_any(const config& config, std::string_view path, bool idempotent,
                                         model_reference request, http_request& out);

/// Adds the base URL, the API key and the headers. `config` must be valid.
PROMPTLAYER_DECL http_request authorize_any(const config& config, prepared_request request);

/// Removes everything, but keeps the memory.
PROMPTLAYER_DECL void clear(http_request& request) noexcept;

/// A reply of any type with empty members, to be read from a response.
struct reply_reference {
    const model_info& info;
    void* object;
    int success_status; ///< 0 for 200 to 299
};

/// Reads a reply from a response. Returns nullopt if that succeeds.
PROMPTLAYER_DECL std::optional<error> decode_any(const config& config, const http_response& response,
                                                 reply_reference reply);

/// Returns `invalid_request` if the options cannot be used.
PROMPTLAYER_DECL std::optional<error> check(const request_options& options);

/// Returns false if the model says that its requests must not be sent twice.
template <class RequestT>
constexpr bool is_idempotent() noexcept {
    if constexpr (requires { RequestT::idempotent; })
        return RequestT::idempotent;
    else
        return true;
}

/// Returns the error of a request without a response.
PROMPTLAYER_DECL error transport_error(const config& config, const transport_failure& failed);

/// Returns the status of a response that has a reply: 200 unless the model says otherwise.
template <class RequestT>
constexpr int success_status() noexcept {
    if constexpr (requires { RequestT::success_status; })
        return RequestT::success_status;
    else
        return 200;
}

/// Returns a reference to the reply of a request.
template <class RequestT>
reply_reference refer_to_reply(typename RequestT::reply& reply) noexcept {
    static_assert(is_readable<typename RequestT::reply>());
    return {info<typename RequestT::reply>(), &reply, success_status<RequestT>()};
}

template <class RequestT>
result<typename RequestT::reply> decode_reply(const config& config, const http_response& response) {
    auto reply = make_empty<typename RequestT::reply>();
    if (auto failed = decode_any(config, response, refer_to_reply<RequestT>(reply)))
        return *std::move(failed);
    return reply;
}

} // namespace detail

/// Validates and writes a request: returns path and body, or `invalid_request` with every violation. Needs no
/// config.
template <class RequestT>
result<prepared_request> prepare(const RequestT& request,
                                 std::size_t max_request_bytes = default_max_request_bytes) {
    return detail::prepare_any(RequestT::path, detail::is_idempotent<RequestT>(), detail::refer_to(request),
                               max_request_bytes, {});
}

/// Adds the base URL, the API key and the headers to a prepared request: returns the request to be sent, or
/// `invalid_config`.
PROMPTLAYER_DECL result<http_request> authorize(const config& config, prepared_request request);

/// Validates a request and writes the HTTP request to `out`; reuses the memory of `out`. After an error,
/// which is `invalid_config` or `invalid_request`, `out` is empty. No I/O.
template <class RequestT = track_prompt>
result<void> encode(const config& config, const RequestT& request, http_request& out) {
    if (auto failed = detail::check(config)) {
        detail::clear(out);
        return *std::move(failed);
    }
    return detail::encode_any(config, RequestT::path, detail::is_idempotent<RequestT>(),
                              detail::refer_to(request), out);
}

/// Returns the request to be sent, or `invalid_config` or `invalid_request`. No I/O.
template <class RequestT = track_prompt>
result<http_request> encode(const config& config, const RequestT& request) {
    http_request out;
    if (auto encoded = encode(config, request, out); !encoded)
        return std::move(encoded).error();
    return out;
}

/// Returns the reply of a response, or an error. The status decides first: only the `success_status` of the
/// model, 200 if it has none, is a success. Text of the service has spaces for control characters and
/// `[redacted]` for the API key, if the service echoes it. In errors, each such text is cut at 512 bytes. A
/// body that exceeds `max_response_bytes`, or is nested deeper than 32, is not parsed. No I/O.
template <class RequestT = track_prompt>
result<typename RequestT::reply> decode(const config& config, const http_response& response) {
    return detail::decode_reply<RequestT>(config, response);
}

/// Decodes with the limits of a default config.
template <class RequestT = track_prompt>
result<typename RequestT::reply> decode(const http_response& response) {
    return decode<RequestT>(config{}, response);
}

/// A config that is checked once, for many requests. Each member does the same as the function of that name
/// in this header. Any number of threads may call them at once.
class encoder {
    promptlayer::config config_;
    std::optional<error> config_error_ = detail::check(config_);

public:
    explicit encoder(promptlayer::config config) : config_(std::move(config)) {}

    const promptlayer::config& config() const noexcept { return config_; }

    /// Returns `invalid_config`; nullopt if the config can be used.
    const std::optional<error>& config_error() const noexcept { return config_error_; }

    template <class RequestT>
    result<prepared_request> prepare(const RequestT& request) const {
        if (config_error_)
            return *config_error_;
        return detail::prepare_any(RequestT::path, detail::is_idempotent<RequestT>(),
                                   detail::refer_to(request), config_.max_request_bytes, config_.api_key);
    }

    result<http_request> authorize(prepared_request request) const {
        if (config_error_)
            return *config_error_;
        return detail::authorize_any(config_, std::move(request));
    }

    template <class RequestT>
    result<void> encode(const RequestT& request, http_request& out) const {
        if (config_error_) {
            detail::clear(out);
            return *config_error_;
        }
        return detail::encode_any(config_, RequestT::path, detail::is_idempotent<RequestT>(),
                                  detail::refer_to(request), out);
    }

    template <class RequestT>
    result<typename RequestT::reply> decode(const http_response& response) const {
        return detail::decode_reply<RequestT>(config_, response);
    }
};

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL std::optional<error> check(const config& config) {
    if (auto violations = validate(config); !violations.empty())
        return invalid(errc::invalid_config, std::move(violations));
    return std::nullopt;
}

PROMPTLAYER_DECL std::optional<error> check(const request_options& options) {
    if (!options.timeout || *options.timeout > std::chrono::milliseconds{0})
        return std::nullopt;
    return invalid(errc::invalid_request, {{"timeout", rule::setting, 0, 0, "must be more than 0"}});
}

PROMPTLAYER_DECL result<prepared_request> prepare_any(std::string_view path, bool idempotent,
                                                      model_reference request, std::size_t max_bytes,
                                                      std::string_view api_key) {
    prepared_request prepared{.path = std::string{path}, .idempotent = idempotent};
    if (auto written = write_json(request, max_bytes, prepared.body, api_key); !written)
        return std::move(written).error();
    return prepared;
}

/// Sets everything except the body.
inline void to_http(const config& config, std::string_view path, bool idempotent, http_request& out) {
    const std::string_view base = config.base_url;
    out.method = "POST";
    (out.url = base.substr(0, base.size() - (base.ends_with('/') ? 1 : 0))) += path;
    out.headers.resize(4 + config.headers.size());
    const auto set = [&](std::size_t index, std::string_view name, std::string_view value) {
        out.headers[index].name = name;
        out.headers[index].value = value;
    };
    set(0, "X-API-KEY", config.api_key);
    set(1, "Content-Type", "application/json");
    set(2, "Accept", "application/json");
    set(3, "User-Agent", config.user_agent);
    std::copy(config.headers.begin(), config.headers.end(), out.headers.begin() + 4);
    out.timeout = config.timeout;
    out.max_response_bytes = config.max_response_bytes;
    out.idempotent = idempotent;
}

PROMPTLAYER_DECL http_request authorize_any(const config& config, prepared_request request) {
    http_request out;
    out.body = std::move(request.body);
    to_http(config, request.path, request.idempotent, out);
    if (request.timeout > std::chrono::milliseconds{0})
        out.timeout = request.timeout;
    return out;
}

PROMPTLAYER_DECL void clear(http_request& request) noexcept {
    request.method.clear();
    request.url.clear();
    request.headers.clear();
    request.body.clear();
}

PROMPTLAYER_DECL result<void> encode_any(const config& config, std::string_view path, bool idempotent,
                                         model_reference request, http_request& out) {
    struct clear_unless_done { // also after an exception
        http_request* out;
        ~clear_unless_done() {
            if (out)
                clear(*out);
        }
    } guard{&out};
    auto written = write_json(request, config.max_request_bytes, out.body, config.api_key);
    if (written) {
        to_http(config, path, idempotent, out);
        guard.out = nullptr;
    }
    return written;
}

constexpr errc code_of(int status) noexcept {
    switch (status) {
    case 400: return errc::bad_request;
    case 401: return errc::unauthorized;
    case 403: return errc::forbidden;
    case 404: return errc::not_found;
    case 409: return errc::conflict;
    case 422: return errc::unprocessable;
    case 429: return errc::rate_limited;
    default: return status >= 500 && status <= 599 ? errc::server_error : errc::unexpected_status;
    }
}

/// Returns the beginning of a body that is not a JSON object, for a person: at most 200 code points and 512
/// bytes of its first 4 KiB, with one space for each run of white space.
inline std::string excerpt(std::string_view body, std::span<const std::string_view> secrets) {
    const std::string shown = shown_text(body.substr(0, 4096), secrets);
    std::string out;
    std::string_view rest = shown;
    for (std::size_t count = 0; !rest.empty() && count != 200;) {
        const std::string_view bytes = take_code_point(rest).bytes;
        if (bytes == " " && (out.empty() || out.back() == ' '))
            continue;
        out += bytes;
        ++count;
    }
    out = shown_text(out, secrets, max_service_text); // again, because a cut can make a word of a key
    return out.substr(0, out.find_last_not_of(' ') + 1);
}

/// Returns the host that a redirect leads to, as browsers read `Location`: they drop tabs, read a backslash
/// as a slash, and need no slashes after the scheme. Empty if the response is no redirect or has no
/// `Location`.
inline std::string redirect_target(const http_response& response, std::span<const std::string_view> secrets) {
    if (response.status < 300 || response.status > 399)
        return {};
    const std::string* const location = find_header(response.headers, "Location");
    if (!location || location->empty())
        return {};
    std::string target = *location;
    std::erase_if(target, [](char c) { return c == '\t' || c == '\r' || c == '\n'; });
    std::replace(target.begin(), target.end(), '\\', '/');
    std::string_view rest = target;
    const std::size_t colon = rest.find_first_of(":/?#");
    if (colon != rest.npos && rest[colon] == ':') {
        const std::string_view scheme = rest.substr(0, colon);
        rest.remove_prefix(colon + 1);
        if (!equal_ignoring_case(scheme, "https") && !equal_ignoring_case(scheme, "http") &&
            !rest.starts_with("//"))
            return "an address without a host";
    } else if (!rest.starts_with("//")) {
        return "the same host";
    }
    rest.remove_prefix(std::min(rest.find_first_not_of('/'), rest.size()));
    rest = rest.substr(0, rest.find_first_of("/?#"));
    rest.remove_prefix(rest.rfind('@') + 1);
    rest = rest.substr(0, rest.find(':', rest.starts_with('[') ? std::min(rest.find(']'), rest.size()) : 0));
    const std::string host = shown_text(rest, secrets, 253);
    return host.empty() ? "an address without a host" : host;
}

/// Makes the error of a response: the message for its code, the status, and `detail`.
inline error response_error(errc code, const http_response& response,
                            std::span<const std::string_view> secrets, const std::string& detail) {
    error failed{.code = code, .status = response.status};
    failed.message.reserve(detail.size() + 128);
    failed.message.append(message_for(code)).append(" (HTTP ").append(std::to_string(response.status));
    if (const std::string target = redirect_target(response, secrets); !target.empty())
        failed.message.append(", redirects to ").append(target);
    failed.message.append(detail.empty() ? ")" : "): ").append(detail);
    failed.retry_after = retry_after(response);
    return failed;
}

/// Makes the error of a response with another status than that of a success.
inline error status_error(const config& config, const http_response& response,
                          std::span<const std::string_view> secrets) {
    service_message message;
    if (response.body.size() <= config.max_response_bytes)
        message = service_message_reader{response.body, secrets}.read();
    if (!message.is_object)
        message.text = excerpt(response.body, secrets);
    const std::string list = join(message.violations);
    const std::string shown = shown_text(list, secrets, max_service_text);
    if (shown != list) { // otherwise each part can be shown as it is, too
        for (violation& reported : message.violations) {
            reported.path = shown_text(reported.path, secrets, max_service_text);
            reported.message = shown_text(reported.message, secrets, max_service_text);
        }
    }
    error failed =
        response_error(code_of(response.status), response, secrets,
                       message.text.empty() ? shown : shown_text(message.text, secrets, max_service_text));
    failed.violations = std::move(message.violations);
    return failed;
}

/// Returns the message of a reply if its `success` is false; nullopt for any other reply.
inline std::optional<std::string> rejection_of(const reply_reference& reply) {
    member_value success, message;
    for (const field_info& field : reply.info.fields) {
        if (field.kind == member_kind::boolean && field.name() == "success")
            success = field.load(reply.object);
        else if (field.kind == member_kind::string && field.name() == "message")
            message = field.load(reply.object);
    }
    if (!success.is_given || success.integer != 0)
        return std::nullopt;
    return std::string{message.text};
}

PROMPTLAYER_DECL std::optional<error> decode_any(const config& config, const http_response& response,
                                                 reply_reference reply) {
    const secret_list secrets = secrets_of(config.api_key, config.headers);
    const bool is_success = reply.success_status == 0 ? response.status >= 200 && response.status <= 299
                                                      : response.status == reply.success_status;
    if (!is_success)
        return status_error(config, response, secrets);
    const auto malformed = [&](const std::string& detail) {
        return response_error(errc::malformed_response, response, secrets, detail);
    };
    if (response.body.size() > config.max_response_bytes)
        return malformed("more than " + std::to_string(config.max_response_bytes) + " bytes");
    violation_collector report{.api_key = config.api_key};
    const json_text_check checked =
        reply_reader{reply.info, reply.object, secrets, report}.read(response.body);
    if (checked.error != json_text_error::none) {
        const std::string shown = excerpt(response.body, secrets);
        return malformed("the text is not JSON at byte " + std::to_string(checked.offset) +
                         (shown.empty() ? "" : ": " + shown));
    }
    if (auto violations = std::move(report.list).take(); !violations.empty()) {
        error failed = malformed(shown_text(join(violations), secrets, max_service_text));
        for (violation& broken : violations)
            broken.path = shown_text(broken.path, secrets, max_service_text);
        failed.violations = std::move(violations);
        return failed;
    }
    if (const auto message = rejection_of(reply))
        return response_error(errc::rejected, response, secrets,
                              shown_text(*message, secrets, max_service_text));
    return std::nullopt;
}

PROMPTLAYER_DECL error transport_error(const config& config, const transport_failure& failed) {
    error out{.code = errc::transport};
    out.message = message_for(out.code) + std::string{": "} + message_for(failed.kind);
    const std::string reason =
        shown_text(failed.message, secrets_of(config.api_key, config.headers), max_service_text);
    if (!reason.empty())
        out.message += ": " + reason;
    out.failure = failed.kind;
    out.maybe_delivered = failed.maybe_delivered;
    return out;
}

} // namespace detail

PROMPTLAYER_DECL result<http_request> authorize(const config& config, prepared_request request) {
    if (auto failed = detail::check(config))
        return *std::move(failed);
    return detail::authorize_any(config, std::move(request));
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_CLIENT_HPP
#define PROMPTLAYER_CLIENT_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

PROMPTLAYER_DECL error moved_from();
PROMPTLAYER_DECL transport_failure exception_failure(const char* text);

/// A synchronous transport of unknown type.
struct transport_reference {
    const void* object;
    transport_result (*send)(const void* object, const http_request& request); ///< does not throw
};

template <class T>
transport_result send_noexcept(const void* object, const http_request& request) {
    return guard_exceptions(
        [&]() -> transport_result { return const_cast<T*>(static_cast<const T*>(object))->send(request); },
        [](const char* text) -> transport_result { return exception_failure(text); });
}

template <class T>
transport_reference refer_to_transport(T& transport) noexcept {
    return {std::addressof(transport), send_noexcept<T>};
}

/// Sends an encoded request and reads its reply. Returns nullopt if the request succeeded.
PROMPTLAYER_DECL std::optional<error> send_sync(const encoder& codec, const http_request& request,
                                                transport_reference transport, reply_reference reply);

/// Encodes a request, then does the same as `send_sync`. `codec` is null if the client was moved from.
PROMPTLAYER_DECL std::optional<error> call_sync(const encoder* codec, std::string_view path, bool idempotent,
                                                model_reference request, const request_options& options,
                                                transport_reference transport, reply_reference reply);

/// Reads a reply from the outcome of a request.
PROMPTLAYER_DECL std::optional<error> decode_outcome(const encoder& codec, const transport_result& outcome,
                                                     reply_reference reply);

/// One asynchronous request. Calls the handler exactly once.
template <class HandlerT>
class pending_send {
    std::optional<HandlerT> handler_;
    std::atomic_flag is_finished_{};
    std::atomic<bool> handler_threw_{false};

public:
    explicit pending_send(HandlerT handler) : handler_(std::move(handler)) {}
    pending_send(const pending_send&) = delete;
    pending_send& operator=(const pending_send&) = delete;

    ~pending_send() {
        guard_exceptions(
            [&] {
                finish(transport_failure{failure::cancelled, "the transport dropped the request"});
            },
            [](const char*) {});
    }

    /// Ignores every outcome except the first.
    void finish(transport_result outcome) {
        if (is_finished_.test_and_set())
            return;
        guard_exceptions(
            [&] {
                HandlerT handler = std::move(*handler_);
                handler_.reset(); // the transport may keep the completion, and with it what the handler owns
                handler(std::move(outcome));
            },
            [&](const char*) {
                handler_threw_ = true;
                rethrow();
            });
    }

    bool handler_threw() const noexcept { return handler_threw_; }
};

/// Sends a request without waiting. Calls `handler(transport_result)` exactly once.
template <class T, class HandlerT>
void send_async(T& transport, http_request request, HandlerT handler) {
    const auto pending = std::make_shared<pending_send<HandlerT>>(std::move(handler));
    guard_exceptions(
        [&] {
            transport.send(std::move(request),
                           [pending](transport_result outcome) { pending->finish(std::move(outcome)); });
        },
        [&](const char* text) {
            pending->finish(exception_failure(text));
            if (pending->handler_threw())
                rethrow();
        });
}

} // namespace detail

/// Tracks prompts over a transport. One call is one attempt: nothing is retried or queued.
///
/// - Threads: a client is as thread-safe as `T`; it changes nothing of its own.
/// - It may be destroyed while asynchronous requests are in flight; their handlers do not use it.
/// - After it was moved from, every call is `errc::closed`.
/// - `std::ref` makes it refer to a transport, which must outlive it. Such a client cannot be assigned to.
template <class T>
class client {
    using transport_type = std::remove_reference_t<T>;

    static_assert(detail::is_transport<transport_type>());

    std::shared_ptr<const encoder> encoder_; // null after a move
    T transport_;

public:
    /// Checks the config once. With an invalid one, every call returns `invalid_config`.
    client(config config, T transport)
        : encoder_(std::make_shared<const encoder>(std::move(config))),
          transport_(std::forward<T>(transport)) {}

    transport_type& transport() noexcept { return transport_; }
    const transport_type& transport() const noexcept { return transport_; }

    /// Sends one request and waits for its response. Returns the reply, or any `errc` from `invalid_request`
    /// to `malformed_response`. `invalid_config` and `invalid_request` are returned before anything is sent.
    template <class RequestT>
    result<typename RequestT::reply> call(const RequestT& request, const request_options& options = {}) {
        static_assert(Transport<transport_type>,
                      "promptlayer: this transport is asynchronous: give the call a handler as well");
        auto reply = detail::make_empty<typename RequestT::reply>();
        if (auto failed = detail::call_sync(
                encoder_.get(), RequestT::path, detail::is_idempotent<RequestT>(), detail::refer_to(request),
                options, detail::refer_to_transport(transport_), detail::refer_to_reply<RequestT>(reply)))
            return *std::move(failed);
        return reply;
    }

    /// Sends one request without waiting. Calls `handler(result<reply>)` exactly once, on the thread on which
    /// the transport completes; within this function if the request is not sent. The handler may be
    /// move-only. An exception of the handler reaches the caller of the completion.
    template <class RequestT, class HandlerT>
    void call(const RequestT& request, HandlerT handler, const request_options& options = {}) {
        using reply = typename RequestT::reply;
        static_assert(
            AsyncTransport<transport_type>,
            "promptlayer: this transport is synchronous: call without a handler and use what is returned");
        static_assert(std::invocable<HandlerT&, result<reply>>,
                      "promptlayer: the handler cannot be called with a result of the reply");
        http_request http;
        result<void> encoded = encoder_ ? encoder_->encode(request, http) : detail::moved_from();
        if (auto unusable = detail::check(options); encoded && unusable)
            encoded = *std::move(unusable);
        if (!encoded) {
            handler(result<reply>{std::move(encoded).error()});
            return;
        }
        http.timeout = options.timeout.value_or(http.timeout);
        detail::send_async(
            transport_, std::move(http),
            [codec = encoder_, handle = std::move(handler)](const transport_result& outcome) mutable {
                reply received = detail::make_empty<reply>();
                if (auto failed =
                        detail::decode_outcome(*codec, outcome, detail::refer_to_reply<RequestT>(received)))
                    handle(result<reply>{*std::move(failed)});
                else
                    handle(result<reply>{std::move(received)});
            });
    }

    /// Each of the following calls `call` for one endpoint. The request may stand in braces.
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_prompt(const basic_track_prompt<TextT, MapT>& request,
                                        const request_options& options = {}) {
        return call(request, options);
    }
    template <class TextT = std::string>
    result<track_response> track_score(const basic_track_score<TextT>& request,
                                       const request_options& options = {}) {
        return call(request, options);
    }
    template <class MapT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_metadata(const basic_track_metadata<MapT>& request,
                                          const request_options& options = {}) {
        return call(request, options);
    }
    result<track_response> track_group(const promptlayer::track_group& request,
                                       const request_options& options = {}) {
        return call(request, options);
    }
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>,
              class ListT = std::vector<std::string>>
    result<typename basic_log_request<TextT, MapT, ListT>::reply>
    log_request(const basic_log_request<TextT, MapT, ListT>& request, const request_options& options = {}) {
        return call(request, options);
    }

    /// The same with a handler, over an asynchronous transport.
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>,
              class HandlerT>
    void track_prompt(const basic_track_prompt<TextT, MapT>& request, HandlerT handler,
                      const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class TextT = std::string, class HandlerT>
    void track_score(const basic_track_score<TextT>& request, HandlerT handler,
                     const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class MapT = std::map<std::string, std::string, std::less<>>, class HandlerT>
    void track_metadata(const basic_track_metadata<MapT>& request, HandlerT handler,
                        const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class HandlerT>
    void track_group(const promptlayer::track_group& request, HandlerT handler,
                     const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>,
              class ListT = std::vector<std::string>, class HandlerT>
    void log_request(const basic_log_request<TextT, MapT, ListT>& request, HandlerT handler,
                     const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
};

template <class T>
client(config, T) -> client<std::unwrap_reference_t<T>>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error moved_from() { return {.code = errc::closed, .message = "the client was moved from"}; }

PROMPTLAYER_DECL transport_failure exception_failure(const char* text) { return {failure::other, text}; }

PROMPTLAYER_DECL std::optional<error> decode_outcome(const encoder& codec, const transport_result& outcome,
                                                     reply_reference reply) {
    if (!outcome)
        return transport_error(codec.config(), outcome.error());
    return decode_any(codec.config(), *outcome, reply);
}

PROMPTLAYER_DECL std::optional<error> send_sync(const encoder& codec, const http_request& request,
                                                transport_reference transport, reply_reference reply) {
    return decode_outcome(codec, transport.send(transport.object, request), reply);
}

PROMPTLAYER_DECL std::optional<error> call_sync(const encoder* codec, std::string_view path, bool idempotent,
                                                model_reference request, const request_options& options,
                                                transport_reference transport, reply_reference reply) {
    if (!codec)
        return moved_from();
    if (codec->config_error())
        return codec->config_error();
    if (auto unusable = check(options))
        return unusable;
    http_request http;
    if (auto encoded = encode_any(codec->config(), path, idempotent, request, http); !encoded)
        return std::move(encoded).error();
    http.timeout = options.timeout.value_or(http.timeout);
    return send_sync(*codec, http, transport, reply);
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_RETRY_HPP
#define PROMPTLAYER_RETRY_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {

/// The rules by which a failed request is sent again. The defaults suit a caller that waits for the response:
/// the last attempt begins within two minutes. Trackers use `background_retry_policy`.
struct retry_policy {
    std::uint32_t max_attempts = 5;                       ///< counts the first attempt; 0: no limit
    std::chrono::milliseconds initial_delay{2'000};       ///< the longest random wait after the first attempt
    std::chrono::milliseconds max_delay{30'000};          ///< the longest random wait after any attempt
    std::chrono::milliseconds max_retry_after{3'600'000}; ///< a longer `Retry-After` counts as this
    /// No attempt begins later after the first one, or after a tracker accepted the request; nullopt: no
    /// limit.
    std::optional<std::chrono::milliseconds> max_age{120'000};
    bool retry_maybe_delivered = true; ///< whether to repeat a request that may have been delivered

    friend bool operator==(const retry_policy&, const retry_policy&) = default;
};

/// Returns the policy of trackers, where nobody waits: attempts without limit, up to 5 minutes apart, for 24
/// hours.
PROMPTLAYER_DECL retry_policy background_retry_policy() noexcept;

/// Returns how long to wait before the next attempt; nullopt if there must not be another. A pure function.
///
/// - Only a `retryable()` error is retried.
/// - The wait is random ("full jitter"), from 0 to 2 s, 4 s, 8 s, ... up to `max_delay`.
/// - A `Retry-After` is added to the random wait. Clients that were sent the same `Retry-After` thus return
///   at different moments.
/// - `initial_delay`, `max_delay` and `max_retry_after` count as at most a year.
///
/// `cause` is the error of the last attempt. `attempts` counts the attempts so far, from 1. `random` is
/// uniform from 0 to 1; a number outside counts as the nearer end, a NaN as 0. `age` is the time since the
/// request was created; a negative age, after a clock was set back, counts as 0.
[[nodiscard]] PROMPTLAYER_DECL std::optional<std::chrono::milliseconds>
retry_wait(const retry_policy& policy, const error& cause, std::uint32_t attempts, double random,
           std::chrono::milliseconds age) noexcept;

namespace detail {

/// Longer waits count as this, so that no sum of times overflows.
inline constexpr std::chrono::milliseconds max_wait = std::chrono::hours{24 * 365};

/// Returns the random part of the wait after an attempt: from 0 to `initial_delay`, twice that, and so on up
/// to `max_delay`.
PROMPTLAYER_DECL std::chrono::milliseconds backoff(const retry_policy& policy, std::uint32_t attempts,
                                                   double random) noexcept;

/// Returns the `Retry-After` of an error, at most `max_retry_after`; 0 if it has none.
PROMPTLAYER_DECL std::chrono::milliseconds capped_retry_after(const retry_policy& policy,
                                                              const error& cause) noexcept;

/// Returns whether a request of this age may wait that long for another attempt.
PROMPTLAYER_DECL bool may_wait(const retry_policy& policy, std::chrono::milliseconds age,
                               std::chrono::milliseconds wait) noexcept;

/// Returns the nearest number from 0 to 1; 0 for a NaN.
PROMPTLAYER_DECL double within_unit(double number) noexcept;

/// Returns a generator (SplitMix64) of uniform numbers from 0 up to, not including, 1. For jitter only:
/// whoever sees a few numbers can predict the others. The seed differs between
///
/// - generators of a process: by a counter;
/// - processes and machines: by two clocks, and by addresses, which most systems choose at random.
PROMPTLAYER_DECL std::function<double()> random_source();

} // namespace detail

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL retry_policy background_retry_policy() noexcept {
    retry_policy policy;
    policy.max_attempts = 0;
    policy.max_delay = std::chrono::minutes{5};
    policy.max_age = std::chrono::hours{24};
    return policy;
}

namespace detail {

/// Compares the bits, because -ffast-math allows any result for a comparison with a NaN. From 0 to infinity,
/// bits have the order of their numbers.
PROMPTLAYER_DECL double within_unit(double number) noexcept {
    constexpr std::uint64_t one = 0x3FF0'0000'0000'0000, infinity = 0x7FF0'0000'0000'0000;
    const auto bits = __builtin_bit_cast(std::uint64_t, number);
    return bits <= one ? number : bits <= infinity ? 1.0 : 0.0;
}

PROMPTLAYER_DECL std::chrono::milliseconds backoff(const retry_policy& policy, std::uint32_t attempts,
                                                   double random) noexcept {
    using std::chrono::milliseconds;
    constexpr milliseconds zero{0};
    const milliseconds max_delay = std::clamp(policy.max_delay, zero, max_wait);
    milliseconds range = std::clamp(policy.initial_delay, zero, max_delay);
    for (std::uint32_t n = 1; n < attempts && range > zero && range < max_delay; ++n)
        range = range > max_delay / 2 ? max_delay : 2 * range;
    return milliseconds{
        static_cast<milliseconds::rep>(within_unit(random) * static_cast<double>(range.count()))};
}

PROMPTLAYER_DECL std::chrono::milliseconds capped_retry_after(const retry_policy& policy,
                                                              const error& cause) noexcept {
    using std::chrono::milliseconds;
    const milliseconds cap = std::clamp(policy.max_retry_after, milliseconds{0}, max_wait);
    const auto asked = std::max(cause.retry_after.value_or(std::chrono::seconds{0}), std::chrono::seconds{0});
    return asked > std::chrono::duration_cast<std::chrono::seconds>(cap) ? cap : asked;
}

PROMPTLAYER_DECL bool may_wait(const retry_policy& policy, std::chrono::milliseconds age,
                               std::chrono::milliseconds wait) noexcept {
    age = std::max(age, std::chrono::milliseconds{0});
    return !policy.max_age || (age <= *policy.max_age && wait <= *policy.max_age - age);
}

} // namespace detail

PROMPTLAYER_DECL std::optional<std::chrono::milliseconds> retry_wait(const retry_policy& policy,
                                                                     const error& cause,
                                                                     std::uint32_t attempts, double random,
                                                                     std::chrono::milliseconds age) noexcept {
    if (!cause.retryable() || (cause.maybe_delivered && !policy.retry_maybe_delivered) ||
        (policy.max_attempts != 0 && attempts >= policy.max_attempts))
        return std::nullopt;
    const auto wait = detail::backoff(policy, attempts, random) + detail::capped_retry_after(policy, cause);
    return detail::may_wait(policy, age, wait) ? std::optional{wait} : std::nullopt;
}

namespace detail {

/// Returns the output function of SplitMix64: each bit of the argument changes half the bits of the result.
constexpr std::uint64_t mix_bits(std::uint64_t bits) noexcept {
    bits = (bits ^ (bits >> 30)) * 0xBF58'476D'1CE4'E5B9;
    bits = (bits ^ (bits >> 27)) * 0x94D0'49BB'1331'11EB;
    return bits ^ (bits >> 31);
}

PROMPTLAYER_DECL std::function<double()> random_source() {
    static std::atomic<std::uint32_t> count{0};
    std::uint64_t state = count.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t parts[] = {
        static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()),
        static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()),
        reinterpret_cast<std::uintptr_t>(&state), reinterpret_cast<std::uintptr_t>(&random_source)};
    for (const std::uint64_t part : parts)
        state = mix_bits(state) ^ part;
    return [position = mix_bits(state)]() mutable {
        position += 0x9E37'79B9'7F4A'7C15;
        return static_cast<double>(mix_bits(position) >> 11) * 0x1p-53; // a double has 53 bits
    };
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_RETRYING_TRANSPORT_HPP
#define PROMPTLAYER_RETRYING_TRANSPORT_HPP

#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <condition_variable>
#include <mutex>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {

/// Returns an outcome as the error that `retry_wait` takes.
PROMPTLAYER_DECL error retry_cause(const transport_result& outcome);

/// A sleep that any thread can end.
class cancellable_sleep {
    struct state;
    std::shared_ptr<state> state_; // null after a move

public:
    cancellable_sleep();

    bool was_moved_from() const noexcept { return !state_; }

    /// Forgets an earlier `cancel`.
    void reset();

    /// Sleeps until `duration` has passed or `cancel` is called. Returns true if `cancel` was called since
    /// `reset`.
    bool sleep(std::chrono::milliseconds duration);

    void cancel() noexcept;
};

} // namespace detail

/// Replaces the clock, the random numbers and the sleep of a `retrying_transport`, for tests in virtual time.
/// An empty member stands for the real clock, generator or sleep.
struct retry_hooks {
    std::function<std::chrono::steady_clock::time_point()> now{};
    std::function<double()> random{};                       ///< uniform from 0 to 1
    std::function<void(std::chrono::milliseconds)> sleep{}; ///< not ended by `cancel`, unlike the real sleep
};

/// A `Transport` that sends each request through another, and repeats it after the waits of a `retry_policy`.
/// For callers that wait. The outcome is that of the last attempt. `http_request::timeout` limits each
/// attempt. A request that is not `http_request::idempotent`, such as a log, is not sent again if it may have
/// been delivered.
///
/// Sends one request at a time, even if `TransportT` is thread-safe. Any thread may call `cancel`. May be
/// moved between requests. Constructed from `std::ref`, it refers to a transport, which must outlive it; then
/// it is not assignable.
template <class TransportT>
class retrying_transport {
    using transport_type = std::remove_reference_t<TransportT>;

    static_assert(detail::is_transport<transport_type>());
    static_assert(Transport<transport_type> || !AsyncTransport<transport_type>,
                  "promptlayer: retrying_transport takes a synchronous Transport; use an AsyncTransport "
                  "with a tracker");

    TransportT transport_;
    retry_policy policy_;
    retry_hooks hooks_;
    detail::cancellable_sleep sleep_{};

    std::chrono::steady_clock::time_point now() const {
        return hooks_.now ? hooks_.now() : std::chrono::steady_clock::now();
    }

    /// Returns true if `cancel` was called since the request began.
    bool sleep(std::chrono::milliseconds wait) {
        if (!hooks_.sleep)
            return sleep_.sleep(wait);
        hooks_.sleep(wait);
        return sleep_.sleep(std::chrono::milliseconds{0});
    }

public:
    explicit retrying_transport(TransportT transport, retry_policy policy = {}, retry_hooks hooks = {})
        : transport_(std::forward<TransportT>(transport)), policy_(policy), hooks_(std::move(hooks)) {
        if (!hooks_.random)
            hooks_.random = detail::random_source();
    }

    transport_type& transport() noexcept { return transport_; }

    transport_result send(const http_request& request) {
        if (sleep_.was_moved_from())
            return transport_failure{failure::other, "the transport was moved from", false};
        sleep_.reset();
        const auto start = now();
        retry_policy policy = policy_;
        policy.retry_maybe_delivered = policy.retry_maybe_delivered && request.idempotent;
        bool maybe_delivered = false; // by any attempt
        for (std::uint32_t attempts = 1;; ++attempts) {
            transport_result outcome = transport_.send(request);
            const error cause = detail::retry_cause(outcome);
            maybe_delivered = maybe_delivered || outcome || outcome.error().maybe_delivered;
            if (!outcome)
                outcome.error().maybe_delivered = maybe_delivered;
            const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now() - start);
            const auto wait = retry_wait(policy, cause, attempts, hooks_.random(), age);
            if (!wait)
                return outcome;
            if (sleep(*wait))
                return transport_failure{failure::cancelled, "cancelled between two attempts",
                                         maybe_delivered};
        }
    }

    /// Ends the request in flight with `failure::cancelled`: a wait between attempts at once, an attempt only
    /// if `TransportT` has `cancel`. Does not affect later requests.
    void cancel() noexcept {
        if (sleep_.was_moved_from())
            return;
        sleep_.cancel();
        if constexpr (requires { transport_.cancel(); })
            transport_.cancel();
    }
};

template <class TransportT>
retrying_transport(TransportT) -> retrying_transport<std::unwrap_reference_t<TransportT>>;
template <class TransportT>
retrying_transport(TransportT, retry_policy) -> retrying_transport<std::unwrap_reference_t<TransportT>>;
template <class TransportT>
retrying_transport(TransportT, retry_policy, retry_hooks)
    -> retrying_transport<std::unwrap_reference_t<TransportT>>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error retry_cause(const transport_result& outcome) {
    error cause{.code = errc::transport};
    if (outcome) {
        cause.code = errc::unexpected_status;
        cause.status = outcome->status;
        cause.retry_after = retry_after(*outcome);
    } else {
        cause.failure = outcome.error().kind;
        cause.maybe_delivered = outcome.error().maybe_delivered;
    }
    return cause;
}

struct cancellable_sleep::state {
    std::mutex mutex{};
    std::condition_variable condition{};
    bool is_cancelled = false;
};

PROMPTLAYER_DECL cancellable_sleep::cancellable_sleep() : state_(std::make_shared<state>()) {}

PROMPTLAYER_DECL void cancellable_sleep::reset() {
    const std::lock_guard guard{state_->mutex};
    state_->is_cancelled = false;
}

PROMPTLAYER_DECL bool cancellable_sleep::sleep(std::chrono::milliseconds duration) {
    std::unique_lock guard{state_->mutex};
    return state_->condition.wait_for(guard, duration, [&] { return state_->is_cancelled; });
}

PROMPTLAYER_DECL void cancellable_sleep::cancel() noexcept {
    const std::lock_guard guard{state_->mutex};
    state_->is_cancelled = true;
    state_->condition.notify_all();
}

} // namespace detail

#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_CIRCUIT_BREAKER_HPP
#define PROMPTLAYER_DETAIL_CIRCUIT_BREAKER_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Judges the service by its responses. Closed, it lets requests through and limits how many are in flight.
/// Open, it lets through only one request at a time, the probe. Durations only; the caller has the clock.
class circuit_breaker {
    using milliseconds = std::chrono::milliseconds;

    /// The failures since the last healthy response.
    struct failure_run {
        std::size_t count = 0;
        request_number last = 0;
        bool of_several = false; // requests
    };

    milliseconds initial_delay_, max_delay_;
    std::size_t max_window_;
    std::size_t window_ = 1;
    std::size_t healthy_count_ = 0; // healthy responses since the window last grew
    failure_run failures_{};
    milliseconds delay_{0}, delay_429_{0}; // the last delay before a probe; the one after a 429 is separate
    milliseconds current_delay_{0};        // one of the two
    bool has_opened_ = false;
    bool is_proven_ = false; // there was a healthy response since the start or since `reconfigure`
    std::optional<error> cause_{};

public:
    static constexpr milliseconds min_wait{100};

    /// A `Retry-After` that one request alone received counts as at most this.
    static constexpr milliseconds max_single_retry_after{5'000};

    circuit_breaker(const retry_policy& policy, std::size_t max_in_flight);

    bool is_open() const noexcept { return cause_.has_value(); }

    /// Returns the latest failure if the breaker is open.
    const std::optional<error>& cause() const noexcept { return cause_; }

    /// Returns how many requests may be in flight while the breaker is closed.
    std::size_t window() const noexcept { return window_; }

    /// Counts a healthy response. That of the probe closes the breaker. `is_current` is false if the request
    /// was sent before the last `reconfigure`.
    void record_success(bool is_probe, bool is_current);

    /// Counts a failure of a request while the breaker is closed, or of the probe. Returns the wait before
    /// the next probe if the breaker is open now. The wait doubles each time. The delay after a 429 doubles
    /// on its own, because the service works and only asks for fewer requests.
    std::optional<milliseconds> record_failure(request_number number, const error& cause,
                                               milliseconds retry_after,
                                               const std::function<double()>& random);

    /// Returns the wait before the next probe: random, so that the clients of one service do not probe at the
    /// same moment, and at least `retry_after`.
    milliseconds next_wait(milliseconds retry_after, const std::function<double()>& random) const;

    /// Forgets that the key and the config were proven.
    void reconfigure() noexcept;
};

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL circuit_breaker::circuit_breaker(const retry_policy& policy, std::size_t max_in_flight)
    : initial_delay_(std::clamp(policy.initial_delay, min_wait, max_wait)),
      max_delay_(std::clamp(policy.max_delay, min_wait, max_wait)), max_window_(max_in_flight) {}

PROMPTLAYER_DECL void circuit_breaker::record_success(bool is_probe, bool is_current) {
    failures_ = {};
    is_proven_ = is_proven_ || is_current;
    if (!is_open()) {
        ++healthy_count_;
        if (window_ < max_window_ && (!has_opened_ || healthy_count_ >= window_)) {
            ++window_; // with each response: the window doubles while it passes once
            healthy_count_ = 0;
        }
    } else if (is_probe) {
        cause_.reset();
        delay_ = delay_429_ = milliseconds{0};
        window_ = 1;
    }
}

PROMPTLAYER_DECL std::optional<std::chrono::milliseconds>
circuit_breaker::record_failure(request_number number, const error& cause, milliseconds retry_after,
                                const std::function<double()>& random) {
    failures_.of_several = failures_.of_several || (failures_.count != 0 && failures_.last != number);
    failures_.last = number;
    ++failures_.count;
    const bool is_429 = cause.status == 429;
    const bool is_of_config = cause.status == 401 || cause.status == 403 || cause.failure == failure::tls ||
                              cause.code == errc::invalid_config;
    // The more requests are in flight, the more often some fail in a row by chance.
    const std::size_t max_failures = std::min<std::size_t>(5 + window_ / 4, 12);
    if (!is_open() && failures_.count < max_failures && !is_429 && retry_after == milliseconds{0} &&
        (!is_of_config || is_proven_))
        return std::nullopt;
    const milliseconds first = is_429 ? milliseconds{5'000} : initial_delay_;
    const milliseconds limit = is_429 ? max_delay_ / 2 : max_delay_;
    milliseconds& delay = is_429 ? delay_429_ : delay_;
    current_delay_ = delay = std::min(limit, std::max(first, 2 * delay));
    cause_ = cause;
    has_opened_ = true;
    return next_wait(std::min(retry_after, failures_.of_several ? max_delay_ : max_single_retry_after),
                     random);
}

PROMPTLAYER_DECL std::chrono::milliseconds
circuit_breaker::next_wait(milliseconds retry_after, const std::function<double()>& random) const {
    const auto times = [](milliseconds duration, double factor) {
        const double product = factor * static_cast<double>(duration.count());
        return milliseconds{static_cast<milliseconds::rep>(product + 0.5)}; // the same with any precision
    };
    const milliseconds wait = std::max(times(current_delay_, 0.6 + within_unit(random())), min_wait);
    return std::max(wait, retry_after + times(retry_after, within_unit(random()) / 4));
}

PROMPTLAYER_DECL void circuit_breaker::reconfigure() noexcept {
    is_proven_ = false;
    failures_ = {};
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_OUTBOX_HPP
#define PROMPTLAYER_OUTBOX_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The limits of a queue, and its schedule.
struct queue_options {
    std::size_t max_requests = 10'000;        ///< waiting and in flight
    std::size_t max_bytes = 16 * 1024 * 1024; ///< of all paths and bodies
    std::size_t max_in_flight = 16;           ///< 0 counts as 1
    bool drop_oldest = false;                 ///< a full queue drops the oldest waiting requests
    bool repeat_logs = false; ///< repeats requests that are not `idempotent`: rather two logs than none
    retry_policy retry = background_retry_policy();
};

/// The outcome of a request. Every request has exactly one.
enum class request_outcome {
    delivered, ///< The service accepted the request.
    rejected,  ///< The service refused the request for good.
    failed,    ///< No attempt is left, or another could deliver the request twice.
    expired,   ///< The last attempt failed, and the next would come after `retry_policy::max_age`.
    dropped,   ///< The queue was full and dropped the request for a newer one.
    cancelled, ///< `cancel` or `discard` removed the request.
    returned,  ///< `drain`, `close` or the destructor of a tracker returned the request.
};

/// A request that is to be sent now.
struct due_request {
    request_number number = 0;
    prepared_request request{};
    std::uint32_t attempt = 1; ///< the first is 1
};

/// A request that has ended. `response` is as it arrived: it holds the API key if the service echoes it.
struct finished_request {
    request_number number = 0;
    prepared_request request{};
    request_outcome outcome = request_outcome::delivered;
    std::optional<promptlayer::error> error{}; ///< of the last attempt, if it failed or was in flight
    std::uint32_t attempts = 0;
    std::optional<http_response> response{}; ///< of the last attempt; only trackers set it
};

/// Counts of requests since the queue was constructed. `pushed` is always the sum of the other counts.
struct outbox_stats {
    std::uint64_t pushed = 0;
    std::size_t waiting = 0;
    std::size_t in_flight = 0;
    std::uint64_t delivered = 0;
    std::uint64_t rejected = 0;
    std::uint64_t failed = 0;
    std::uint64_t expired = 0;
    std::uint64_t dropped = 0;
    std::uint64_t cancelled = 0;
    std::uint64_t returned = 0;

    friend bool operator==(const outbox_stats&, const outbox_stats&) = default;
};

/// A queue of requests with limits, schedule, retry and a circuit breaker, as a state machine without thread,
/// clock or socket.
///
/// The caller pushes requests, takes the due requests, sends them and reports each result. The outbox never
/// contains the API key. One thread at a time may use it. It judges the service, not a request, so no request
/// delays the others:
///
/// - A service failure (`error::is_service_failure`) delays its own request by a random time. The limit of
///   that time doubles from `initial_delay` to `max_delay`; the time is at least 100 ms. `Retry-After` is
///   added. Every other response is healthy, also a 400.
/// - Requests are sent by due time. The number in flight grows from 1 to `max_in_flight` with each full
///   window of healthy responses.
/// - Five service failures in a row open the circuit breaker; with more requests in flight, up to twelve. So
///   does one 429 or `Retry-After`. So does one 401, 403, TLS failure or invalid config, until a response was
///   healthy. A request that fails again while others succeed does not count.
/// - While the breaker is open, one probe at a time is sent, after random waits that double. A healthy
///   response to a probe closes the breaker.
/// - A request ends as `rejected` after a final refusal (HTTP 400, 404, 409, 422, `success: false`), and
///   after a third 401 or 403 if others succeeded meanwhile.
/// - A request ends as `expired` only after a failed attempt, so an outage, a pause or a closed laptop loses
///   nothing.
/// - Time is an argument. A clock that jumps back counts as stopped. A clock that jumps forward ends waits
///   early.
///
/// Cost with N requests: `push`, `take`, `complete`, `cancel` and `next_due` O(log N), `push` amortised over
/// the requests that it drops; `retry_now` O(1); `drain` and `discard` O(N).
///
/// Used as `outbox`. A template, so that a header-only program compiles only the members that it uses.
template <class ClockT>
class basic_outbox {
public:
    using time_point = typename ClockT::time_point;

private:
    using milliseconds = std::chrono::milliseconds;

    /// What failed attempts of a request have shown.
    struct failure_history {
        error last{};
        std::uint32_t refusals = 0; // 401 and 403, with the config of `config_number`
        std::uint32_t config_number = 0;
        std::uint64_t healthy_at_first_refusal = 0; // value of `healthy_count_` then
        /// Value of `healthy_count_` at the last failure while the circuit breaker was closed
        std::uint64_t healthy_at_last_failure = std::numeric_limits<std::uint64_t>::max();
        bool is_at_fault = false; // the request failed again although another succeeded
    };

    struct queue_entry {
        prepared_request request{};
        time_point created{};
        time_point due{};
        std::uint32_t attempts = 0;
        std::uint32_t config_number = 0;  // of the last attempt
        std::uint32_t release_number = 0; // value of `release_count_` when its wait began
        bool is_discarded = false;
        std::unique_ptr<failure_history> history{};
    };

    using entry_map = std::map<request_number, queue_entry>;
    using wait_key = std::tuple<std::uint32_t, time_point, request_number>;

    queue_options options_;
    std::function<double()> random_;
    detail::circuit_breaker breaker_{options_.retry, options_.max_in_flight};
    entry_map untried_{};        // waiting; by number, and so by due time
    entry_map tried_{};          // waiting after an attempt
    entry_map in_flight_{};      // sent, without a result
    std::set<wait_key> waits_{}; // of `tried_`; waits that `retry_now` has ended come first
    std::set<std::pair<std::uint32_t, request_number>> by_attempts_{}; // of `tried_`
    std::list<finished_request> finished_{};                           // dropped or cancelled, not taken yet
    std::size_t bytes_ = 0, in_flight_bytes_ = 0, finished_bytes_ = 0;
    request_number last_number_ = 0;
    request_number probe_ = 0; // in flight while the breaker is open; 0 if there is none
    outbox_stats stats_{};
    std::uint64_t healthy_count_ = 0;
    std::uint32_t config_number_ = 0;              // number of calls of `reconfigure`
    std::uint32_t release_count_ = 0;              // number of calls of `retry_now`
    time_point released_at_ = time_point::min();   // the last of them
    time_point blocked_until_ = time_point::min(); // no probe before
    bool paused_ = false;
    bool closed_ = false;
    time_point last_now_ = time_point::min();
    typename ClockT::duration clock_offset_{}; // sum of the clock's jumps back

    // These spare a separately compiled program <algorithm>.
    template <class T>
    static T smaller(T a, std::type_identity_t<T> b) noexcept {
        return b < a ? b : a;
    }
    template <class T>
    static T larger(T a, std::type_identity_t<T> b) noexcept {
        return a < b ? b : a;
    }

    static std::size_t size_of(const prepared_request& request) noexcept {
        return request.path.size() + request.body.size();
    }

    /// Returns the caller's time, corrected so that it never decreases. Clamps it so that no sum overflows.
    time_point monotonic(time_point now) {
        constexpr auto limit = ClockT::duration::max() / 2;
        now = smaller(larger(now, time_point{-limit / 4}), time_point{limit});
        if (now < last_now_)
            clock_offset_ += smaller(last_now_ - now, limit / 2 - clock_offset_);
        last_now_ = now;
        return now + clock_offset_;
    }

    std::size_t count() const noexcept { return untried_.size() + tried_.size() + in_flight_.size(); }

    bool is_waiting_empty() const noexcept { return untried_.empty() && tried_.empty(); }

    bool contains(request_number number) const {
        return untried_.contains(number) || tried_.contains(number) || in_flight_.contains(number);
    }

    request_number oldest_waiting() const {
        if (untried_.empty() || (!tried_.empty() && tried_.begin()->first < untried_.begin()->first))
            return tried_.begin()->first;
        return untried_.begin()->first;
    }

    /// Returns whether the limits allow another request in flight.
    bool may_send() const noexcept {
        const std::size_t limit = options_.max_in_flight == 0 ? 1 : options_.max_in_flight;
        return !paused_ && !is_waiting_empty() && probe_ == 0 &&
               in_flight_.size() < (breaker_.is_open() ? limit : breaker_.window());
    }

    std::uint64_t& count_of(request_outcome outcome) noexcept {
        switch (outcome) {
        case request_outcome::delivered: return stats_.delivered;
        case request_outcome::rejected: return stats_.rejected;
        case request_outcome::failed: return stats_.failed;
        case request_outcome::expired: return stats_.expired;
        case request_outcome::dropped: return stats_.dropped;
        case request_outcome::cancelled: return stats_.cancelled;
        case request_outcome::returned: break;
        }
        return stats_.returned;
    }

    finished_request finish(typename entry_map::node_type node, request_outcome outcome) {
        queue_entry& entry = node.mapped();
        bytes_ -= size_of(entry.request);
        ++count_of(outcome);
        finished_request finished{.number = node.key(), .outcome = outcome, .attempts = entry.attempts};
        finished.request = std::move(entry.request);
        if (entry.history)
            finished.error = std::move(entry.history->last);
        return finished;
    }

    /// Removes a waiting request from all containers.
    typename entry_map::node_type extract(request_number number) {
        if (auto node = untried_.extract(number))
            return node;
        auto node = tried_.extract(number);
        if (node) {
            const queue_entry& entry = node.mapped();
            waits_.erase({entry.release_number, entry.due, number});
            by_attempts_.erase({entry.attempts, number});
        }
        return node;
    }

    /// Removes a request in flight.
    typename entry_map::node_type land(typename entry_map::iterator position) {
        in_flight_bytes_ -= size_of(position->second.request);
        if (position->first == probe_)
            probe_ = 0;
        return in_flight_.extract(position);
    }

    void remove(request_number number, request_outcome outcome) {
        finished_.emplace_back(); // may throw, while nothing has changed
        finished_.back() = finish(extract(number), outcome);
        finished_bytes_ += size_of(finished_.back().request);
    }

    /// Returns a random number from `first` to `last`.
    request_number random_between(request_number first, request_number last) {
        const auto range = static_cast<double>(last - first);
        const double offset = detail::within_unit(random_()) * (range + 1);
        return offset < range ? first + static_cast<request_number>(offset) : last;
    }

    /// Returns a random request of those with the fewest attempts; so a bad request is not probed for ever.
    request_number choose_probe() {
        if (!untried_.empty())
            return untried_.lower_bound(random_between(untried_.begin()->first, untried_.rbegin()->first))
                ->first;
        const auto [attempts, first] = *by_attempts_.begin();
        const auto last = std::prev(by_attempts_.lower_bound({attempts + 1, 0}));
        return by_attempts_.lower_bound({attempts, random_between(first, last->second)})->second;
    }

    /// Returns the waiting request with the earliest due time, which may be in the future.
    std::pair<time_point, request_number> earliest() const {
        std::pair<time_point, request_number> first{time_point::max(), 0};
        if (!untried_.empty())
            first = {untried_.begin()->second.due, untried_.begin()->first};
        if (waits_.empty())
            return first;
        const auto [release_number, due, number] = *waits_.begin();
        return smaller(first, {release_number == release_count_ ? due : smaller(due, released_at_), number});
    }

    /// Returns when the next request may be sent, as far as that depends on time.
    time_point earliest_time() const { return breaker_.is_open() ? blocked_until_ : earliest().first; }

    bool fits(std::size_t size, std::size_t requests, std::size_t bytes) const noexcept {
        return requests < options_.max_requests && size <= options_.max_bytes &&
               bytes <= options_.max_bytes - size;
    }

    /// Returns why a request is not accepted.
    std::optional<error> refusal(const prepared_request& request) const {
        if (closed_)
            return error{.code = errc::closed, .message = "the queue is closed"};
        const std::size_t size = size_of(request);
        if (options_.drop_oldest ? fits(size, in_flight_.size(), in_flight_bytes_) &&
                                       fits(size, finished_.size(), finished_bytes_)
                                 : fits(size, count() + finished_.size(), bytes_ + finished_bytes_))
            return std::nullopt;
        return error{.code = errc::queue_full, .message = "the queue is full"};
    }

    static entry_map make_entry(request_number number, prepared_request&& request, time_point created,
                                time_point due) {
        entry_map entry;
        entry.emplace(number, queue_entry{.request = std::move(request), .created = created, .due = due});
        return entry;
    }

    /// Adds an entry from `make_entry`. Allocates nothing.
    void insert(entry_map entry) {
        bytes_ += size_of(entry.begin()->second.request);
        ++stats_.pushed;
        untried_.insert(untried_.end(), entry.extract(entry.begin()));
    }

    /// Adds a failure to the history of its request, and reports it to the breaker unless the request is at
    /// fault. Failures while the breaker is open do not put a request at fault, because they are expected.
    void record_failure(request_number number, queue_entry& entry, const error& cause, bool is_probe,
                        time_point now) {
        failure_history& history = *entry.history;
        if (cause.status == 401 || cause.status == 403) {
            if (history.refusals == 0 || history.config_number != entry.config_number) {
                history.refusals = 0;
                history.config_number = entry.config_number;
                history.healthy_at_first_refusal = healthy_count_;
            }
            ++history.refusals;
        }
        const milliseconds retry_after = detail::capped_retry_after(options_.retry, cause);
        std::optional<milliseconds> wait;
        if (!breaker_.is_open()) {
            history.is_at_fault = history.is_at_fault || healthy_count_ > history.healthy_at_last_failure;
            history.healthy_at_last_failure = healthy_count_;
            if (!history.is_at_fault && entry.config_number == config_number_)
                wait = breaker_.record_failure(number, cause, retry_after, random_);
        } else if (is_probe) {
            wait = breaker_.record_failure(number, cause, retry_after, random_);
        } else if (retry_after > milliseconds{0}) { // of a request sent before the breaker opened
            const auto limit = detail::circuit_breaker::max_single_retry_after;
            blocked_until_ = larger(blocked_until_, now + smaller(retry_after, limit));
        }
        if (wait)
            blocked_until_ = now + *wait;
    }

    /// Returns the outcome of a request after a failed attempt; nullopt if it waits for another attempt.
    std::optional<request_outcome> end_after(const queue_entry& entry, const error& cause, milliseconds wait,
                                             time_point now) const {
        const retry_policy& policy = options_.retry;
        const auto age = std::chrono::duration_cast<milliseconds>(now - entry.created);
        if (entry.is_discarded)
            return request_outcome::cancelled;
        if ((cause.status == 401 || cause.status == 403) && entry.history->refusals >= 3 &&
            healthy_count_ > entry.history->healthy_at_first_refusal)
            return request_outcome::rejected;
        const bool may_repeat =
            policy.retry_maybe_delivered && (entry.request.idempotent || options_.repeat_logs);
        if ((cause.maybe_delivered && !may_repeat) ||
            (policy.max_attempts != 0 && entry.attempts >= policy.max_attempts))
            return request_outcome::failed;
        return detail::may_wait(policy, age, wait) ? std::nullopt : std::optional{request_outcome::expired};
    }

    static request_outcome final_outcome(const error& cause) noexcept {
        for (const errc code :
             {errc::bad_request, errc::not_found, errc::conflict, errc::unprocessable, errc::rejected})
            if (cause.code == code)
                return request_outcome::rejected;
        return request_outcome::failed;
    }

public:
    /// `random` returns uniform numbers from 0 to 1. If it is empty, the outbox uses a generator of its own.
    explicit basic_outbox(queue_options options = {}, std::function<double()> random = {})
        : options_(options), random_(random ? std::move(random) : detail::random_source()) {}
    basic_outbox(basic_outbox&&) = default;
    basic_outbox& operator=(basic_outbox&&) = default;

    /// Queues a request from `prepare` and returns its number, or `queue_full`, or `closed` after `close`.
    /// Requests that `drop_oldest` removes for it are returned by `take_finished`. They are dropped only if
    /// the new request then fits, and count against limits of the same size until they are taken.
    result<request_number> push(prepared_request request, time_point now) {
        auto number = reserve(request);
        if (number)
            number = push(*number, std::move(request), now);
        return number;
    }

    /// Returns a number for a request, or why `push` would refuse the request. For callers that write the
    /// request to a journal before they push it.
    result<request_number> reserve(const prepared_request& request) {
        if (auto reason = refusal(request))
            return *std::move(reason);
        return ++last_number_;
    }

    /// Queues a request under a number from `reserve`, and returns the number or the same errors as `push`. A
    /// number must be pushed only once.
    result<request_number> push(request_number number, prepared_request&& request, time_point now) {
        now = monotonic(now);
        if (auto reason = refusal(request))
            return *std::move(reason);
        const std::size_t size = size_of(request);
        entry_map entry = make_entry(number, std::move(request), now, now);
        while (!fits(size, count(), bytes_)) // only if the oldest are to be dropped
            remove(oldest_waiting(), request_outcome::dropped);
        insert(std::move(entry));
        return number;
    }

    /// Queues a request from a journal under its old number, whatever the limits. The numbers may come in any
    /// order. Ignores a number that is queued already. An age counts as 0 to a year.
    void restore(request_number number, prepared_request request, milliseconds age, time_point now) {
        now = monotonic(now);
        if (contains(number))
            return;
        age = smaller(larger(age, milliseconds{0}), detail::max_wait);
        insert(make_entry(number, std::move(request), now - age, now));
        last_number_ = larger(last_number_, number);
    }

    /// Returns the next due request and marks it in flight; nullopt if no request is due or may be sent.
    [[nodiscard]] std::optional<due_request> take(time_point now) {
        now = monotonic(now);
        const auto due = may_send() ? earliest_time() : time_point::max();
        if (due > now)
            return std::nullopt;
        const request_number number = breaker_.is_open() ? choose_probe() : earliest().second;
        const auto untried = untried_.find(number);
        due_request next{number, (untried != untried_.end() ? untried : tried_.find(number))->second.request};
        if (breaker_.is_open()) // from here on nothing throws
            probe_ = number;
        queue_entry& entry = in_flight_.insert(extract(number)).position->second;
        next.attempt = ++entry.attempts;
        entry.config_number = config_number_;
        in_flight_bytes_ += size_of(entry.request);
        return next;
    }

    /// Reports the result of an attempt: an empty `cause` if the request was delivered, else its error.
    /// Returns the request if it has ended, else nullopt. Ignores a number that is not in flight, such as
    /// that of a request that is already completed or drained. If memory is exhausted, it throws, the request
    /// remains in flight, and the result can be reported again.
    std::optional<finished_request> complete(request_number number, std::optional<error> cause,
                                             time_point now) {
        now = monotonic(now);
        const auto position = in_flight_.find(number);
        if (position == in_flight_.end())
            return std::nullopt;
        queue_entry& entry = position->second;
        const bool is_probe = number == probe_;
        const bool is_cancelled = cause && cause->failure == failure::cancelled;
        if (!cause || !(cause->is_service_failure() || is_cancelled)) {
            ++healthy_count_;
            breaker_.record_success(is_probe, entry.config_number == config_number_);
            auto finished =
                finish(land(position), cause ? final_outcome(*cause) : request_outcome::delivered);
            finished.error = std::move(cause);
            return finished;
        }
        if (!entry.history)
            entry.history = std::make_unique<failure_history>();
        const error& failed = entry.history->last = *std::move(cause);
        if (!is_cancelled)
            record_failure(number, entry, failed, is_probe, now);
        else if (is_probe)
            blocked_until_ = now + breaker_.next_wait(milliseconds{0}, random_);
        const milliseconds wait = larger(detail::backoff(options_.retry, entry.attempts, random_()),
                                         detail::circuit_breaker::min_wait) +
                                  detail::capped_retry_after(options_.retry, failed);
        if (const auto outcome = end_after(entry, failed, wait, now))
            return finish(land(position), *outcome);
        entry.due = now + wait;
        entry.release_number = release_count_;
        decltype(waits_) waiting{{release_count_, entry.due, number}};
        decltype(by_attempts_) attempted{{entry.attempts, number}};
        waits_.merge(waiting); // from here on nothing throws
        by_attempts_.merge(attempted);
        tried_.insert(land(position));
        return std::nullopt;
    }

    /// Returns whether a request that is pushed now could change what `next_due` returns.
    bool wants_requests() const noexcept {
        return !paused_ && probe_ == 0 &&
               (breaker_.is_open() ? is_waiting_empty() : in_flight_.size() < breaker_.window());
    }

    /// Returns when `take` may next return a request if nothing else happens until then; at most `now` if a
    /// request is due. Returns nullopt if `take` returns nothing before another member is called.
    std::optional<time_point> next_due(time_point now) {
        now = monotonic(now);
        if (!may_send())
            return std::nullopt;
        return earliest_time() - clock_offset_;
    }

    /// Removes a waiting request; `take_finished` returns it. Returns false if it is in flight or has ended.
    bool cancel(request_number number) {
        const bool is_waiting = untried_.contains(number) || tried_.contains(number);
        if (is_waiting)
            remove(number, request_outcome::cancelled);
        return is_waiting;
    }

    /// Cancels all waiting requests. Those in flight are not sent again.
    void discard() {
        while (!is_waiting_empty())
            remove(oldest_waiting(), request_outcome::cancelled);
        for (auto& [number, entry] : in_flight_)
            entry.is_discarded = true;
    }

    /// Returns a request that was dropped or cancelled, in the order in which that happened; nullopt if there
    /// is no other.
    std::optional<finished_request> take_finished() {
        if (finished_.empty())
            return std::nullopt;
        finished_request next = std::move(finished_.front());
        finished_.pop_front();
        finished_bytes_ -= size_of(next.request);
        return next;
    }

    /// Returns whether `take_finished` has a request to return.
    bool has_finished() const noexcept { return !finished_.empty(); }

    /// Makes `take` return nothing until `resume`. Requests in flight continue.
    void pause() noexcept { paused_ = true; }
    void resume() noexcept { paused_ = false; }
    bool is_paused() const noexcept { return paused_; }

    /// Ends all waits: those of the requests, and that of the circuit breaker. An open breaker then sends a
    /// probe, even if another is in flight.
    void retry_now(time_point now) {
        blocked_until_ = monotonic(now);
        released_at_ = blocked_until_;
        ++release_count_;
        probe_ = 0; // it may wait on a dead connection
    }

    /// Ends the wait of the circuit breaker, because the key or the config has been replaced. Requests that
    /// are in flight say nothing about the new config.
    void reconfigure(time_point now) {
        blocked_until_ = monotonic(now);
        ++config_number_;
        probe_ = 0;
        breaker_.reconfigure();
    }

    /// Returns the latest error of a probe, or the error that opened the circuit breaker; nullopt if the
    /// breaker is closed.
    const std::optional<error>& outage_cause() const noexcept { return breaker_.cause(); }

    /// Stops accepting requests: `push` returns `closed` from now on.
    void close() noexcept { closed_ = true; }

    /// Calls `close`, removes all requests that have not ended and returns them in the order of the pushes.
    /// The requests in flight are among them, with a `maybe_delivered` error; their later `complete` is
    /// ignored. If memory is exhausted, it throws and removes none.
    [[nodiscard]] std::vector<finished_request> drain() {
        close();
        std::vector<finished_request> undelivered;
        undelivered.reserve(count());
        for (auto& [number, entry] : in_flight_) {
            if (!entry.history)
                entry.history = std::make_unique<failure_history>();
            entry.history->last =
                error{.code = errc::transport,
                      .message = "the queue was closed while the request was in flight; the "
                                 "service may have processed it",
                      .failure = failure::cancelled,
                      .maybe_delivered = true};
        }
        untried_.merge(tried_); // from here on nothing throws
        untried_.merge(in_flight_);
        waits_.clear();
        by_attempts_.clear();
        probe_ = 0;
        while (!untried_.empty())
            undelivered.push_back(finish(untried_.extract(untried_.begin()), request_outcome::returned));
        return undelivered;
    }

    outbox_stats stats() const noexcept {
        outbox_stats stats = stats_;
        stats.in_flight = in_flight_.size();
        stats.waiting = untried_.size() + tried_.size();
        return stats;
    }

    /// Returns the size of all paths and bodies.
    std::size_t bytes() const noexcept { return bytes_; }
};

using outbox = basic_outbox<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_outbox<std::chrono::steady_clock>;
#else
extern template class basic_outbox<std::chrono::steady_clock>;
#endif
#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_JOURNAL_HPP
#define PROMPTLAYER_JOURNAL_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Converts the size of something in memory. A template, so that no compiler warns of the cast, whether
/// std::size_t has 32 or 64 bits.
template <class NumberT>
constexpr std::size_t to_size(NumberT size) noexcept {
    return static_cast<std::size_t>(size);
}

} // namespace detail

/// Keeps the requests of a tracker until they have ended, so that a crash does not lose them. `file_journal`
/// is the implementation in a file.
///
/// - Any number of threads call `add` at once, and the tracker holds no lock meanwhile. One thread at a time
///   calls the other functions, also while others call `add`.
/// - `begin` and `remove` for a request are called after `add` for it has returned.
/// - The tracker ignores an exception from every function except `pending`. One from `add` is reported like
///   an error.
class journal {
public:
    struct entry {
        request_number number = 0;
        prepared_request request{};      ///< without its `timeout`
        std::chrono::milliseconds age{}; ///< since `add`
        bool begun = false;              ///< `begin` was called: the service may have received the request
    };

    virtual ~journal() = default;

    /// Returns the requests that were added and had not ended when the journal was opened, in any order.
    /// Called once, before every other function.
    virtual std::vector<entry> pending() = 0;

    /// Records a request. After an error the tracker sends the request all the same, and `track_prompt` says
    /// that the request is not on record.
    virtual result<void> add(request_number number, const prepared_request& request) = 0;

    /// Records that a request is about to be sent. Called only for requests that are not `idempotent`, before
    /// each attempt. Ignores a request that could not be added.
    virtual void begin(request_number number) = 0;

    /// Records that an attempt failed before the service could receive the request, which waits for the next
    /// attempt. Called after `begin`. A journal without this function reports such a request after a restart
    /// as begun, and the tracker then does not send it.
    virtual void undo_begin(request_number) {}

    /// Removes a request that has ended. A delivered request is removed before its callback is called, any
    /// other request after that. Ignores a request that could not be added.
    virtual void remove(request_number number) = 0;

    /// Does upkeep that no caller of `track_prompt` waits for: a bounded piece of work, at most about a
    /// millisecond, except for `fsync`. Called repeatedly. Returns after how long at the latest the next call
    /// is needed, 0 if more work is waiting; nullopt if none is needed before `add` or `remove`.
    virtual std::optional<std::chrono::milliseconds> maintain() = 0;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_DETAIL_ANY_TRANSPORT_HPP
#define PROMPTLAYER_DETAIL_ANY_TRANSPORT_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// What a transport can do. A function is null if the transport does not have the member. None throws, except
/// `start`.
struct transport_functions {
    transport_result (*send)(const void* object, const http_request& request); ///< null if `start` is not
    void (*start)(void* object, http_request request, completion done);
    void (*poll)(void* object);
    void (*poll_for)(void* object, std::chrono::milliseconds wait);
    void (*wakeup)(void* object);
    void (*cancel)(void* object);
    void (*max_in_flight)(void* object, std::size_t count);
};

template <class ActionT>
void ignore_exceptions(ActionT&& action) {
    guard_exceptions([&] { action(); }, [](const char*) {});
}

template <class T>
constexpr transport_functions functions_of() {
    transport_functions functions{};
    if constexpr (AsyncTransport<T>)
        functions.start = [](void* object, http_request request, completion done) {
            static_cast<T*>(object)->send(std::move(request), std::move(done));
        };
    else
        functions.send = send_noexcept<T>;
    if constexpr (requires(T & transport) { transport.poll(); })
        functions.poll = [](void* object) { ignore_exceptions([&] { static_cast<T*>(object)->poll(); }); };
    if constexpr (requires(T & transport, std::chrono::milliseconds wait) { transport.poll(wait); }) {
        functions.poll_for = [](void* object, std::chrono::milliseconds wait) {
            ignore_exceptions([&] { static_cast<T*>(object)->poll(wait); });
        };
        if (!functions.poll)
            functions.poll = [](void* object) {
                ignore_exceptions([&] { static_cast<T*>(object)->poll(std::chrono::milliseconds{0}); });
            };
    }
    if constexpr (requires(T & transport) { transport.wakeup(); })
        functions.wakeup = [](void* object) {
            ignore_exceptions([&] { static_cast<T*>(object)->wakeup(); });
        };
    if constexpr (requires(T & transport) { transport.cancel(); })
        functions.cancel = [](void* object) {
            ignore_exceptions([&] { static_cast<T*>(object)->cancel(); });
        };
    if constexpr (requires(T & transport, std::size_t count) { transport.max_in_flight(count); })
        functions.max_in_flight = [](void* object, std::size_t count) {
            ignore_exceptions([&] { static_cast<T*>(object)->max_in_flight(count); });
        };
    return functions;
}

/// A transport of unknown type, and its owner unless it was given as `std::ref`. An asynchronous one is an
/// `AsyncTransport`.
class any_transport {
    std::unique_ptr<void, void (*)(void*)> object_;
    transport_functions functions_;

public:
    any_transport(void* object, void (*destroy)(void*), const transport_functions& functions) noexcept
        : object_(object, destroy), functions_(functions) {}

    bool is_asynchronous() const noexcept { return functions_.start != nullptr; }
    const transport_functions& functions() const noexcept { return functions_; }
    void* object() const noexcept { return object_.get(); }

    transport_reference reference() const noexcept { return {object_.get(), functions_.send}; }

    void send(http_request request, completion done) {
        functions_.start(object_.get(), std::move(request), std::move(done));
    }

    /// Calls a function of `functions()` if the transport has it.
    template <class... ArgumentsT>
    void call(void (*function)(void*, ArgumentsT...), std::type_identity_t<ArgumentsT>... arguments) const {
        if (function)
            function(object_.get(), arguments...);
    }
};

template <class T>
any_transport own_transport(T transport) {
    return {new T(std::move(transport)), [](void* object) { delete static_cast<T*>(object); },
            functions_of<T>()};
}

template <class T>
any_transport own_transport(std::reference_wrapper<T> transport) {
    return {const_cast<std::remove_const_t<T>*>(std::addressof(transport.get())), [](void*) {},
            functions_of<T>()};
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TRACKER_HPP
#define PROMPTLAYER_TRACKER_HPP

#if defined(PROMPTLAYER_DEFINITIONS)
#if !defined(_WIN32) && !defined(__EMSCRIPTEN__)
#include <pthread.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// One attempt to send a request, for logs and metrics.
struct attempt_report {
    request_number number = 0;
    std::uint32_t attempt = 1;                     ///< the first is 1
    int status = 0;                                ///< HTTP status; 0 if no response arrived
    std::optional<promptlayer::failure> failure{}; ///< why no response arrived
    std::chrono::milliseconds latency{};           ///< from the call of the transport to its outcome
};

/// The options of both trackers. Callbacks may be empty; an exception from a callback is dropped.
struct tracker_options {
    /// The service accepted the request.
    std::function<void(const finished_request&)> on_delivered{};
    /// The request ended otherwise. The destructor reports undelivered requests as `returned`; a journal
    /// keeps these for the next start.
    std::function<void(const finished_request&)> on_failed{};
    /// The circuit breaker has opened: the service cannot be used, and only probes are sent.
    std::function<void(const error&)> on_outage{};
    /// The circuit breaker has closed.
    std::function<void()> on_recovery{};
    /// A request was sent.
    std::function<void(const attempt_report&)> on_attempt{};
    queue_options queue{};
    std::unique_ptr<promptlayer::journal> journal{};
    std::chrono::milliseconds close_timeout{2'000}; ///< how long the destructor of a background tracker sends
    std::function<double()> random{};               ///< uniform from 0 to 1, for tests; empty: a generator
};

/// The result of `track`: the request is queued.
struct queued_request {
    request_number number = 0;
    /// Set if the journal could not record the request: a crash would lose it. The tracker sends it all the
    /// same.
    std::optional<error> journal_error{};
};

namespace detail {

/// Returns the error of an outcome, read as the reply of one endpoint; nullopt if the service accepted.
using outcome_judge = std::optional<error> (*)(const encoder& codec, const transport_result& outcome);

template <class RequestT>
std::optional<error> judge_outcome(const encoder& codec, const transport_result& outcome) {
    auto reply = make_empty<typename RequestT::reply>();
    return decode_outcome(codec, outcome, refer_to_reply<RequestT>(reply));
}

/// How to read the response of a path.
struct endpoint {
    std::string_view path;
    outcome_judge judge;
};

/// Calls a callback of the user without a lock.
template <class... ParametersT, class... ArgumentsT>
void notify(const std::function<void(ParametersT...)>& callback, const ArgumentsT&... arguments) {
    if (callback)
        ignore_exceptions([&] { callback(arguments...); });
}

template <class ClockT>
class delivery_engine;

#if defined(PROMPTLAYER_DEFINITIONS)

/// Returns how often this process and its ancestors have forked since the first call. Much faster than
/// `getpid`.
inline unsigned fork_count() noexcept {
    static std::atomic<unsigned> count{0};
#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) // these have no fork
    static const int registered = ::pthread_atfork(nullptr, nullptr, [] { ++count; });
    static_cast<void>(registered);
#endif
    return count;
}

/// What is known of the response of a path that this program has not tracked: whether it refuses.
struct unknown_reply {
    std::optional<bool> success{};

    using schema = reply_schema<field<"success", &unknown_reply::success>>;
};

/// A request from a journal, with a path that this program has not tracked.
struct unknown_request {
    static constexpr int success_status = 0;
    using reply = unknown_reply;
};

/// An attempt in flight.
template <class ClockT>
struct running_attempt {
    request_number number = 0;
    std::uint32_t count = 1;
    typename ClockT::time_point start{};
    std::shared_ptr<const encoder> codec{};
    outcome_judge judge = nullptr;
    bool is_begun = false; // in the journal
};

/// Outcomes of asynchronous requests, from any thread. Exists as long as a completion does.
template <class ClockT>
struct completion_queue {
    struct item {
        running_attempt<ClockT> attempt;
        transport_result outcome;
    };

    detail::mutex mutex{};
    std::list<item> items{};
    std::function<void()> on_arrival{}; ///< called with `mutex` locked; empty after the tracker's destructor
};

/// Puts an attempt into its queue once: with its outcome, or as a failure if it is destroyed without, because
/// memory is exhausted. Allocates nothing.
template <class ClockT>
class completion_ticket {
    using queue_type = completion_queue<ClockT>;

    std::shared_ptr<queue_type> queue_;
    std::list<typename queue_type::item> item_{};

    void arrive() {
        if (item_.empty())
            return;
        const lock guard{queue_->mutex};
        queue_->items.splice(queue_->items.end(), item_);
        if (queue_->on_arrival)
            queue_->on_arrival();
    }

public:
    completion_ticket(std::shared_ptr<queue_type> queue, std::list<typename queue_type::item>& item)
        : queue_(std::move(queue)) {
        item_.splice(item_.end(), item);
    }
    completion_ticket(completion_ticket&&) = default;
    completion_ticket& operator=(completion_ticket&&) = delete;
    ~completion_ticket() { arrive(); }

    void arrive(transport_result outcome) {
        item_.front().outcome = std::move(outcome);
        arrive();
    }
    void discard() noexcept { item_.clear(); }
};

/// What both trackers are made of: queue, journal, callbacks, attempts and their outcomes.
///
/// One thread at a time, the driver, calls `step` and `settle`; any thread may call the other members.
/// Callbacks run on the driver, without a lock.
template <class ClockT>
class delivery_engine {
    using time_point = typename ClockT::time_point;
    using milliseconds = std::chrono::milliseconds;
    using attempt_type = running_attempt<ClockT>;
    using completions_type = completion_queue<ClockT>;

    /// How many dropped or cancelled requests one `step` reports.
    static constexpr std::size_t max_reports = 64;

    const tracker_options options_;
    const std::function<time_point()> clock_; // empty: the time is that of `advance_to`
    const std::function<void()> wake_;        // makes the driver call `step`; may be empty
    const unsigned fork_count_ = fork_count();
    any_transport transport_; // only the driver uses it, except for `wakeup` and `cancel`
    std::shared_ptr<completions_type> completions_ = std::make_shared<completions_type>();
    std::list<typename completions_type::item> arrived_{}; // only for the driver, as the next
    std::list<typename completions_type::item> spare_{};   // memory of the next attempt

    detail::mutex journal_mutex_{}; // for all functions of the journal except `add`

    mutable detail::mutex mutex_{}; // of all members below
    basic_outbox<ClockT> outbox_;
    std::shared_ptr<const encoder> encoder_;
    std::map<std::string_view, outcome_judge> judges_{{track_prompt::path, judge_outcome<track_prompt>}};
    std::vector<finished_request> interrupted_{}; // by a crash, and not to be sent twice; not reported
    std::size_t interrupted_count_ = 0;           // counted as cancelled by the outbox
    std::uint64_t reported_count_ = 0;            // requests of which the callback has returned
    time_point now_{};
    time_point close_deadline_ = time_point::max();
    bool wake_on_push_ = false;
    bool is_settling_ = false; // nothing can be cancelled: nobody would report it

    time_point now() const { return clock_ ? clock_() : now_; }

    void wake() const {
        if (wake_)
            wake_();
    }

    template <class ActionT>
    void with_journal(ActionT action) {
        if (!options_.journal)
            return;
        const lock guard{journal_mutex_};
        ignore_exceptions([&] { action(*options_.journal); });
    }

    void remove_from_journal(request_number number) {
        with_journal([&](journal& journal) { journal.remove(number); });
    }

    void report(const finished_request& finished) {
        if (finished.outcome == request_outcome::delivered) {
            remove_from_journal(finished.number);
            notify(options_.on_delivered, finished);
        } else {
            notify(options_.on_failed, finished);
            remove_from_journal(finished.number);
        }
        const lock guard{mutex_};
        ++reported_count_;
    }

    /// Changes nothing if it throws.
    void complete(const attempt_type& attempt, transport_result& outcome, std::optional<error> failed) {
        attempt_report report_of_attempt{.number = attempt.number, .attempt = attempt.count, .failure = {}};
        if (outcome)
            report_of_attempt.status = outcome->status;
        else
            report_of_attempt.failure = outcome.error().kind;
        const bool may_have_arrived = !failed || failed->maybe_delivered;
        std::optional<finished_request> finished;
        std::optional<error> outage;
        bool was_open = false, is_open = false;
        {
            const lock guard{mutex_};
            const time_point now = this->now();
            report_of_attempt.latency = std::chrono::duration_cast<milliseconds>(now - attempt.start);
            was_open = outbox_.outage_cause().has_value();
            finished = outbox_.complete(attempt.number, std::move(failed), now);
            is_open = outbox_.outage_cause().has_value();
            if (is_open && !was_open)
                ignore_exceptions([&] { outage = outbox_.outage_cause(); });
        }
        if (attempt.is_begun && !may_have_arrived && !finished)
            with_journal([&](journal& journal) { journal.undo_begin(attempt.number); });
        notify(options_.on_attempt, report_of_attempt);
        if (outage)
            notify(options_.on_outage, *outage);
        if (was_open && !is_open)
            notify(options_.on_recovery);
        if (finished) {
            if (outcome)
                finished->response = *std::move(outcome);
            report(*finished);
        }
    }

    /// Takes in the outcomes that have arrived.
    void collect() {
        {
            const lock guard{completions_->mutex};
            arrived_.splice(arrived_.end(), completions_->items);
        }
        for (; !arrived_.empty(); arrived_.pop_front()) {
            auto& [attempt, outcome] = arrived_.front();
            complete(attempt, outcome, attempt.judge(*attempt.codec, outcome));
        }
    }

    std::optional<finished_request> take_finished() {
        const lock guard{mutex_};
        if (interrupted_.empty())
            return outbox_.take_finished();
        finished_request next = std::move(interrupted_.back());
        interrupted_.pop_back();
        return next;
    }

    /// Reports one request that was dropped or cancelled. Returns false if there is none.
    bool report_finished() {
        const auto finished = take_finished();
        if (finished)
            report(*finished);
        return finished.has_value();
    }

    /// Starts one request. Returns false if none is due.
    bool start_next() {
        if (spare_.empty())
            spare_.push_back({{}, transport_failure{failure::other, {}, false}});
        auto& item = spare_.front();
        attempt_type& next = item.attempt;
        std::optional<due_request> due;
        milliseconds time_left = milliseconds::max();
        {
            const lock guard{mutex_};
            next.start = now();
            if (next.start < close_deadline_)
                due = outbox_.take(next.start);
            if (!due)
                return false;
            next.codec = encoder_;
            next.judge = judge_of(due->request.path);
            if (close_deadline_ != time_point::max())
                time_left =
                    std::max(std::chrono::ceil<milliseconds>(close_deadline_ - next.start), milliseconds{1});
        }
        completion_ticket<ClockT> ticket{completions_, spare_};
        next.number = due->number;
        next.count = due->attempt;
        next.is_begun = !due->request.idempotent && !options_.queue.repeat_logs;
        if (next.is_begun)
            with_journal([&](journal& journal) { journal.begin(next.number); });
        auto http = next.codec->authorize(std::move(due->request));
        if (!http) {
            transport_result not_sent = transport_failure{};
            complete(next, not_sent, std::move(http).error());
            ticket.discard();
            return true;
        }
        http->timeout = std::min(http->timeout, time_left);
        http->idempotent = !next.is_begun;
        item.outcome.error().maybe_delivered = true; // in case the transport loses the outcome
        if (!transport_.is_asynchronous()) {
            ticket.arrive(transport_.reference().send(transport_.object(), *http));
            collect();
            return true;
        }
        ignore_exceptions([&] {
            send_async(transport_, *std::move(http),
                       [sent = std::move(ticket)](transport_result outcome) mutable {
                           sent.arrive(std::move(outcome));
                       });
        });
        return true;
    }

    /// Returns how to read the response of a path. A journal may hold a path that this program has not
    /// tracked; its response is a success unless it says `"success": false`.
    outcome_judge judge_of(std::string_view path) const {
        const auto known = judges_.find(path);
        return known == judges_.end() ? judge_outcome<unknown_request> : known->second;
    }

    void restore_from_journal() {
        for (journal::entry& entry : options_.journal->pending()) {
            const bool is_interrupted =
                entry.begun && !entry.request.idempotent && !options_.queue.repeat_logs;
            outbox_.restore(entry.number, std::move(entry.request), entry.age, now());
            if (!is_interrupted || !outbox_.cancel(entry.number))
                continue;
            finished_request finished = *outbox_.take_finished();
            finished.outcome = request_outcome::failed;
            finished.attempts = 1;
            finished.error = error{.code = errc::transport,
                                   .message = "the program ended while the request was sent; the service may "
                                              "have processed it, and must not receive it twice",
                                   .failure = failure::cancelled,
                                   .maybe_delivered = true};
            interrupted_.push_back(std::move(finished));
        }
        interrupted_count_ = interrupted_.size();
    }

    // These need `mutex_`.

    outbox_stats counts() const {
        outbox_stats counts = outbox_.stats();
        counts.cancelled -= interrupted_count_;
        counts.failed += interrupted_count_;
        return counts;
    }

    std::size_t unreported_count() const {
        const outbox_stats counts = outbox_.stats();
        return to_size(counts.pushed - counts.returned - reported_count_);
    }

public:
    /// `clock` and `wake` may be empty. `wake` is called without a lock of the engine.
    delivery_engine(config config, any_transport transport, tracker_options options,
                    std::function<time_point()> clock, std::function<void()> wake)
        : options_(std::move(options)), clock_(std::move(clock)), wake_(std::move(wake)),
          transport_(std::move(transport)), outbox_(options_.queue, options_.random),
          encoder_(std::make_shared<const encoder>(std::move(config))) {
        const std::size_t max_in_flight = options_.queue.max_in_flight;
        transport_.call(transport_.functions().max_in_flight, max_in_flight == 0 ? 1 : max_in_flight);
        completions_->on_arrival = wake_;
        if (options_.journal)
            restore_from_journal();
    }
    delivery_engine(const delivery_engine&) = delete;
    delivery_engine& operator=(const delivery_engine&) = delete;

    virtual ~delivery_engine() = default;

    /// Makes sure that no completion wakes the driver any more.
    void stop_wakes() {
        const lock guard{completions_->mutex};
        completions_->on_arrival = nullptr;
    }

    /// Returns false in a child of `fork`, where the driver does not exist and other threads may hold locks.
    bool is_in_owner_process() const noexcept { return fork_count_ == fork_count(); }

    const any_transport& transport() const noexcept { return transport_; }
    milliseconds close_timeout() const noexcept { return options_.close_timeout; }

    std::shared_ptr<const encoder> current_encoder() const {
        const lock guard{mutex_};
        return encoder_;
    }

    /// Queues a request, after it has been added to the journal if there is one.
    result<queued_request> push(prepared_request&& request, const endpoint& target) {
        queued_request queued;
        struct unqueued_record { // removes the request from the journal, unless it is queued
            delivery_engine& engine;
            request_number number = 0;
            ~unqueued_record() {
                if (number != 0)
                    engine.remove_from_journal(number);
            }
        } record{*this};
        if (options_.journal) {
            {
                const lock guard{mutex_};
                const auto number = outbox_.reserve(request);
                if (!number)
                    return number.error();
                queued.number = record.number = *number;
            }
            const auto added = guard_exceptions(
                [&]() -> result<void> { return options_.journal->add(queued.number, request); },
                [](const char* text) -> result<void> {
                    return error{.code = errc::journal_failed, .message = text};
                });
            if (!added)
                queued.journal_error = added.error();
        }
        std::optional<error> refused;
        bool wakes = false;
        {
            const lock guard{mutex_};
            judges_.try_emplace(target.path, target.judge);
            const bool had_finished = outbox_.has_finished();
            const auto pushed = queued.number == 0 ? outbox_.push(std::move(request), now())
                                                   : outbox_.push(queued.number, std::move(request), now());
            if (pushed)
                queued.number = *pushed;
            else
                refused = pushed.error(); // other threads have filled the queue meanwhile
            wakes = std::exchange(wake_on_push_, false) || (outbox_.has_finished() && !had_finished);
        }
        if (refused)
            return *std::move(refused);
        record.number = 0;
        if (wakes)
            wake();
        return queued;
    }

    void advance_to(time_point now) {
        const lock guard{mutex_};
        now_ = now;
    }

    /// Takes in outcomes, reports them, sends due requests, and lets the journal work: a bounded piece of
    /// each. Returns when to call it again if nothing happens until then, at most `now` if there is more to
    /// do; nullopt if not before something happens.
    std::optional<time_point> step() {
        collect();
        for (std::size_t count = max_reports; count > 0 && report_finished(); --count) {
        }
        const std::size_t max_starts = transport_.is_asynchronous() ? options_.queue.max_in_flight : 1;
        for (std::size_t count = std::max<std::size_t>(max_starts, 1); count > 0 && start_next(); --count) {
        }
        std::optional<milliseconds> upkeep;
        with_journal([&](journal& journal) { upkeep = journal.maintain(); });
        const lock guard{mutex_};
        const time_point now = this->now();
        wake_on_push_ = outbox_.wants_requests() || (options_.journal && !upkeep);
        if (outbox_.has_finished() || !interrupted_.empty())
            return now;
        auto next = now < close_deadline_ ? outbox_.next_due(now) : std::nullopt;
        if (upkeep)
            next = std::min(next.value_or(time_point::max()), now + std::min(*upkeep, max_wait));
        return next;
    }

    /// Takes in what has arrived and reports all that has ended. From then on nothing is cancelled. If memory
    /// is exhausted, it throws, and what it has not taken in remains in flight.
    void settle() {
        {
            const lock guard{mutex_};
            is_settling_ = true;
        }
        while (report_finished()) { // allocates nothing
        }
        transport_.call(transport_.functions().poll);
        collect();
    }

    /// Cancels the requests in flight if the transport can. Removes all requests that have not ended and
    /// returns them in order.
    std::vector<finished_request> drain() {
        if (stats().in_flight != 0)
            cancel_transport();
        const lock guard{mutex_};
        return outbox_.drain();
    }

    /// Reports the requests that `drain` returned; the journal keeps them.
    void report_returned(const std::vector<finished_request>& returned) const {
        for (const finished_request& request : returned)
            notify(options_.on_failed, request);
    }

    void cancel_transport() noexcept { transport_.call(transport_.functions().cancel); }

    /// Stops accepting requests, and sends no request at or after `deadline`.
    void close(time_point deadline) {
        const lock guard{mutex_};
        outbox_.close();
        close_deadline_ = std::min(close_deadline_, deadline);
    }

    time_point close_deadline() const {
        const lock guard{mutex_};
        return close_deadline_;
    }

    /// Returns whether the deadline of `close` has passed, or nothing is left to do before it.
    bool is_finished() {
        const lock guard{mutex_};
        const time_point now = this->now();
        if (now >= close_deadline_ || close_deadline_ == time_point::max())
            return now >= close_deadline_;
        const auto due = outbox_.next_due(now);
        return unreported_count() == outbox_.stats().waiting && (!due || *due >= close_deadline_);
    }

    /// Returns the number of requests that have not ended or are not reported yet.
    std::size_t pending() const {
        const lock guard{mutex_};
        return unreported_count();
    }

    bool is_paused() const {
        const lock guard{mutex_};
        return outbox_.is_paused();
    }

    bool cancel(request_number number) {
        return change([&] { return !is_settling_ && outbox_.cancel(number); });
    }
    void discard() {
        change([&] {
            if (!is_settling_)
                outbox_.discard();
        });
    }
    void retry_now() {
        change([&] { outbox_.retry_now(now()); });
    }
    void reconfigure(std::shared_ptr<const encoder> codec) {
        change([&] {
            encoder_ = std::move(codec);
            outbox_.reconfigure(now());
        });
    }
    void pause() {
        change([&] { outbox_.pause(); });
    }
    void resume() {
        change([&] { outbox_.resume(); });
    }

    std::optional<error> outage_cause() const {
        const lock guard{mutex_};
        return outbox_.outage_cause();
    }

    outbox_stats stats() const {
        const lock guard{mutex_};
        return counts();
    }

private:
    template <class ActionT>
    auto change(ActionT action) -> decltype(action()) {
        struct waker {
            const delivery_engine& engine;
            ~waker() { engine.wake(); }
        } const after_unlock{*this};
        const lock guard{mutex_};
        return action();
    }
};

#endif

} // namespace detail

/// What both trackers offer. Any thread may call these members, also a callback.
///
/// After `fork`, only the process that constructed a tracker delivers. In the child every call that returns a
/// `result` returns `closed`, every other call does nothing, and the destructor releases nothing.
///
/// Trackers may share a transport by `std::ref` if it is thread-safe. The end of one tracker then cancels
/// also the requests of the others, for which that is a failed attempt.
template <class ClockT>
class basic_tracker {
    struct release_engine {
        void operator()(detail::delivery_engine<ClockT>* engine) const noexcept;
    };

    std::unique_ptr<detail::delivery_engine<ClockT>, release_engine> engine_;

protected:
    explicit basic_tracker(detail::delivery_engine<ClockT>* engine) noexcept : engine_(engine) {}
    ~basic_tracker() = default;

    detail::delivery_engine<ClockT>& engine() const noexcept { return *engine_; }

    /// Returns false in a child of `fork`.
    bool is_usable() const noexcept;

private:
    /// Returns null in a child of `fork`.
    std::shared_ptr<const encoder> current_encoder() const;
    result<queued_request> push(prepared_request&& request, const request_options& options,
                                const detail::endpoint& target);
    static error closed();

public:
    basic_tracker(const basic_tracker&) = delete;
    basic_tracker& operator=(const basic_tracker&) = delete;

    /// Validates and queues a request of any endpoint. Returns its number, or `invalid_request`,
    /// `invalid_config`, `queue_full`, `closed`. Never waits for the network. Takes about a microsecond, and
    /// with a journal one write to it.
    template <class RequestT>
    result<queued_request> track(const RequestT& request, const request_options& options = {}) {
        const auto codec = current_encoder();
        if (!codec)
            return closed();
        auto prepared = codec->prepare(request);
        if (!prepared)
            return std::move(prepared).error();
        return push(*std::move(prepared), options,
                    detail::endpoint{RequestT::path, detail::judge_outcome<RequestT>});
    }

    /// Calls `track` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<queued_request> track_prompt(const basic_track_prompt<TextT, VariablesT>& request,
                                        const request_options& options = {}) {
        return track(request, options);
    }

    /// Removes a request, which is reported as `cancelled`. Returns false if it is in flight or has ended, or
    /// if `close` is about to return it.
    bool cancel(request_number number);

    /// Removes all waiting requests, also from the journal, and reports them as `cancelled`. Requests in
    /// flight are not sent again. Does nothing if `close` is about to return the requests.
    void discard();

    /// Ends all waits, for example because the network is back. During an outage a probe is sent at once.
    void retry_now();

    /// Uses another config from the next request on, and sends a probe at once if there is an outage. An
    /// invalid config changes nothing and is returned as `invalid_config`.
    result<void> reconfigure(config config);

    /// Queues requests and sends none until `resume`, for example until the user consents. Requests in flight
    /// continue. Nothing else ends the pause.
    void pause();
    void resume();

    /// Returns the latest error that keeps the service from being used; nullopt if nothing does.
    std::optional<error> outage_cause() const;

    outbox_stats stats() const;
};

#if defined(PROMPTLAYER_DEFINITIONS)

template <class ClockT>
void basic_tracker<ClockT>::release_engine::operator()(
    detail::delivery_engine<ClockT>* engine) const noexcept {
    if (engine->is_in_owner_process())
        delete engine;
}

template <class ClockT>
bool basic_tracker<ClockT>::is_usable() const noexcept {
    return engine_->is_in_owner_process();
}

template <class ClockT>
error basic_tracker<ClockT>::closed() {
    return {.code = errc::closed,
            .message = "the tracker belongs to another process, which has forked this one"};
}

template <class ClockT>
std::shared_ptr<const encoder> basic_tracker<ClockT>::current_encoder() const {
    return is_usable() ? engine_->current_encoder() : nullptr;
}

template <class ClockT>
result<queued_request> basic_tracker<ClockT>::push(prepared_request&& request, const request_options& options,
                                                   const detail::endpoint& target) {
    if (auto unusable = detail::check(options))
        return *std::move(unusable);
    request.timeout = options.timeout.value_or(request.timeout);
    return engine_->push(std::move(request), target);
}

template <class ClockT>
bool basic_tracker<ClockT>::cancel(request_number number) {
    return is_usable() && engine_->cancel(number);
}

template <class ClockT>
void basic_tracker<ClockT>::discard() {
    if (is_usable())
        engine_->discard();
}

template <class ClockT>
void basic_tracker<ClockT>::retry_now() {
    if (is_usable())
        engine_->retry_now();
}

template <class ClockT>
result<void> basic_tracker<ClockT>::reconfigure(config config) {
    if (!is_usable())
        return closed();
    auto codec = std::make_shared<const encoder>(std::move(config));
    if (codec->config_error())
        return *codec->config_error();
    engine_->reconfigure(std::move(codec));
    return {};
}

template <class ClockT>
void basic_tracker<ClockT>::pause() {
    if (is_usable())
        engine_->pause();
}

template <class ClockT>
void basic_tracker<ClockT>::resume() {
    if (is_usable())
        engine_->resume();
}

template <class ClockT>
std::optional<error> basic_tracker<ClockT>::outage_cause() const {
    return is_usable() ? engine_->outage_cause() : std::nullopt;
}

template <class ClockT>
outbox_stats basic_tracker<ClockT>::stats() const {
    return is_usable() ? engine_->stats() : outbox_stats{};
}

#endif

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_tracker<std::chrono::steady_clock>;
#else
extern template class basic_tracker<std::chrono::steady_clock>;
#endif
#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_BACKGROUND_TRACKER_HPP
#define PROMPTLAYER_BACKGROUND_TRACKER_HPP

#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <condition_variable>
#include <mutex>
#include <thread>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {
template <class ClockT>
class background_engine;
}

/// Tracks prompts from any thread at the cost of a queue. A thread of its own sends the requests and reports
/// each result. `outbox` describes the schedule, `basic_tracker` the members that both trackers have.
///
/// - Over an `AsyncTransport`, up to `queue_options::max_in_flight` requests are in flight at once. Over a
///   synchronous `Transport`, it is one; `threaded_transport` makes it several.
/// - Threads: any thread may call any member, except the destructor. Only the tracker's thread uses the
///   transport, except for its `wakeup()` and `cancel()`.
/// - Callbacks run on the tracker's thread, one at a time, without a lock; those for undelivered requests run
///   in the destructor. They may call any member, but `flush` and `close` do not wait there. They must not
///   destroy the tracker. With a journal they may run, and use the tracker, before the constructor returns.
///   A `std::unique_ptr` or `std::optional` is empty while it constructs or destroys its tracker; callbacks
///   that use the tracker then need it as a variable or a member.
/// - Closing takes at most its timeout and the time of a callback. A request that begins while the tracker
///   closes has only the time that is left. A synchronous transport without `cancel()` holds `close` until
///   the request in flight has ended.
/// - A static tracker is closed after `main`. Objects that its callbacks use must still exist then.
///
/// Used as `background_tracker`. A template, so that a header-only program compiles it only if it is used.
template <class ClockT>
class basic_background_tracker : public basic_tracker<ClockT> {
    basic_background_tracker(config config, detail::any_transport transport, tracker_options options);
    detail::background_engine<ClockT>& engine() const noexcept;

public:
    /// Starts the thread. Throws `std::system_error` if the thread cannot be created. With an invalid config,
    /// every `track` returns `invalid_config`. Pending requests of the journal are sent first. A transport
    /// that is given as `std::ref` must outlive the tracker.
    template <class T>
    explicit basic_background_tracker(config config, T transport, tracker_options options = {})
        : basic_background_tracker(std::move(config), detail::own_transport(std::move(transport)),
                                   std::move(options)) {
        static_assert(detail::is_transport<std::unwrap_reference_t<T>>());
    }

    /// Calls `close` with `tracker_options::close_timeout` and reports the undelivered requests; not if
    /// `close` throws.
    ~basic_background_tracker();

    /// Waits until every request is reported, or the timeout expires. Returns true if no request is left.
    /// Returns at once while the tracker is paused. Returns false at once in a callback.
    bool flush(std::chrono::milliseconds timeout);

    /// Stops accepting requests, sends the requests that are due within `timeout`, and returns the
    /// undelivered requests in order. These stay in the journal for the next start; a request that was in
    /// flight may have been delivered. In a callback, `close` only stops accepting requests. If memory is
    /// exhausted, it throws; no request is lost, and the next `close` returns all.
    [[nodiscard]] std::vector<finished_request> close(std::chrono::milliseconds timeout);
};

using background_tracker = basic_background_tracker<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

/// A delivery engine and the thread that drives it.
template <class ClockT>
class background_engine final : public delivery_engine<ClockT> {
    using time_point = typename ClockT::time_point;
    using milliseconds = std::chrono::milliseconds;

    /// How often a transport is polled that cannot wait, or has no `wakeup()`.
    static constexpr milliseconds poll_interval{5};

    static constexpr milliseconds out_of_memory_delay{100};

    /// The longest wait in a transport: fits into the arguments of system calls.
    static constexpr milliseconds max_poll{60'000};

    std::mutex mutex_{};                // of all members below; locked before that of the engine
    std::condition_variable woken_{};   // the thread waits for it
    std::condition_variable settled_{}; // `flush` and `close` wait for it
    bool is_woken_ = false;             // `step` has something to do
    bool in_transport_ = false;         // the thread waits in the transport
    bool is_stopped_ = false;           // the thread has ended
    std::thread thread_{};

    static milliseconds clamp_timeout(milliseconds timeout) noexcept {
        return std::clamp(timeout, milliseconds{0}, max_wait);
    }

    /// Makes the thread call `step`. A completion that the transport calls within `poll` needs no wake-up.
    void wake_thread() {
        bool ends_poll = false;
        {
            const std::lock_guard guard{mutex_};
            ends_poll = in_transport_ && !is_woken_ && !is_own_thread();
            is_woken_ = true;
            woken_.notify_one();
            if (this->is_paused())
                settled_.notify_all(); // `flush` ends now, even if the thread is in a long `send`
        }
        if (ends_poll)
            this->transport().call(this->transport().functions().wakeup);
    }

    /// Waits for a time, an outcome or `wake_thread`. Returns false if the thread is to end.
    bool wait(std::optional<time_point> next) {
        const any_transport& transport = this->transport();
        const transport_functions& functions = transport.functions();
        const bool polls = functions.poll && this->stats().in_flight != 0;
        const time_point now = ClockT::now();
        std::unique_lock guard{mutex_};
        if (this->pending() == 0 || this->is_paused())
            settled_.notify_all();
        if (this->is_finished())
            return false;
        time_point until = std::min(next.value_or(now + max_wait), this->close_deadline());
        if (polls && (!functions.poll_for || !functions.wakeup))
            until = std::min(until, now + poll_interval);
        if (polls && functions.poll_for) {
            const auto duration = is_woken_ ? milliseconds{0} : std::chrono::ceil<milliseconds>(until - now);
            in_transport_ = true;
            guard.unlock();
            transport.call(functions.poll_for, std::clamp(duration, milliseconds{0}, max_poll));
            guard.lock();
            in_transport_ = false;
        } else {
            woken_.wait_until(guard, until, [&] { return is_woken_; });
            if (polls) {
                guard.unlock();
                transport.call(functions.poll);
                guard.lock();
            }
        }
        is_woken_ = false; // `step` comes next
        return true;
    }

    void work() {
        {
            const std::lock_guard guard{mutex_}; // `start` has set `thread_`
        }
        const auto step = [&]() -> std::optional<time_point> { return this->step(); };
        const auto pause = [](const char*) { return std::optional{ClockT::now() + out_of_memory_delay}; };
        while (wait(guard_exceptions(step, pause))) {
        }
        ignore_exceptions([&] { this->settle(); });
        const std::lock_guard guard{mutex_};
        is_stopped_ = true;
        settled_.notify_all();
    }

public:
    background_engine(config config, any_transport transport, tracker_options options)
        : delivery_engine<ClockT>(
              std::move(config), std::move(transport), std::move(options), [] { return ClockT::now(); },
              [this] { wake_thread(); }) {}

    /// Needs `close` before it, if the thread was started.
    ~background_engine() override {
        this->stop_wakes();
        if (thread_.joinable())
            thread_.join();
    }

    /// Starts the thread. Needs a complete tracker, because the thread may call callbacks at once.
    void start() {
        const std::lock_guard guard{mutex_};
        thread_ = std::thread{[this] { work(); }};
    }

    bool is_own_thread() const { return thread_.get_id() == std::this_thread::get_id(); }

    bool flush(milliseconds timeout) {
        if (is_own_thread())
            return false;
        std::unique_lock guard{mutex_};
        settled_.wait_for(guard, clamp_timeout(timeout),
                          [&] { return is_stopped_ || this->is_paused() || this->pending() == 0; });
        return this->pending() == 0;
    }

    std::vector<finished_request> close(milliseconds timeout) {
        if (is_own_thread()) {
            delivery_engine<ClockT>::close(time_point::max());
            return {};
        }
        const time_point deadline = ClockT::now() + clamp_timeout(timeout);
        delivery_engine<ClockT>::close(deadline);
        wake_thread();
        std::unique_lock guard{mutex_};
        settled_.wait_until(guard, deadline, [&] { return is_stopped_; });
        while (!is_stopped_) {
            guard.unlock();
            if (!this->transport().is_asynchronous())
                this->cancel_transport(); // repeated, because a request may just begin
            guard.lock();
            settled_.wait_for(guard, milliseconds{10}, [&] { return is_stopped_; });
        }
        guard.unlock();
        return this->drain();
    }
};

} // namespace detail

template <class ClockT>
basic_background_tracker<ClockT>::basic_background_tracker(config config, detail::any_transport transport,
                                                           tracker_options options)
    : basic_tracker<ClockT>(new detail::background_engine<ClockT>(std::move(config), std::move(transport),
                                                                  std::move(options))) {
    engine().start();
}

template <class ClockT>
basic_background_tracker<ClockT>::~basic_background_tracker() {
    if (!this->is_usable())
        return;
    if (engine().is_own_thread())
        detail::misuse("promptlayer: a callback has destroyed its tracker\n");
    detail::ignore_exceptions([&] { engine().report_returned(engine().close(engine().close_timeout())); });
}

template <class ClockT>
detail::background_engine<ClockT>& basic_background_tracker<ClockT>::engine() const noexcept {
    return static_cast<detail::background_engine<ClockT>&>(basic_tracker<ClockT>::engine());
}

template <class ClockT>
bool basic_background_tracker<ClockT>::flush(std::chrono::milliseconds timeout) {
    return this->is_usable() && engine().flush(timeout);
}

template <class ClockT>
std::vector<finished_request> basic_background_tracker<ClockT>::close(std::chrono::milliseconds timeout) {
    return this->is_usable() ? engine().close(timeout) : std::vector<finished_request>{};
}

#endif

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_background_tracker<std::chrono::steady_clock>;
#else
extern template class basic_background_tracker<std::chrono::steady_clock>;
#endif
#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_POLLED_TRACKER_HPP
#define PROMPTLAYER_POLLED_TRACKER_HPP

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Tracks prompts from a loop that never waits, such as that of a game. `track` queues a request; `poll`
/// sends it over an `AsyncTransport` and reports the result. It starts no thread and reads no clock; all work
/// happens in `poll`. `outbox` describes the schedule, `basic_tracker` the members that both trackers have.
///
/// - Threads: one at a time calls `poll`, `close` and the destructor; any thread may call the other members.
///   The transport may complete on any thread.
/// - Callbacks: `poll`, `close` and the destructor call them. They may call any member; within one, `poll`
///   does nothing. They must not destroy the tracker.
///
/// Used as `polled_tracker`. A template, so that a header-only program compiles it only if it is used.
template <class ClockT>
class basic_polled_tracker : public basic_tracker<ClockT> {
    using time_point = typename ClockT::time_point;

    struct polling; // sets `is_polling_` while it exists

    std::optional<time_point> first_poll_{}; // time counts from the first poll, also that of earlier requests
    bool is_polling_ = false;

    basic_polled_tracker(config config, detail::any_transport transport, tracker_options options);

public:
    /// With an invalid config, every `track` returns `invalid_config`. Pending requests of the journal are
    /// sent first. A transport that is given as `std::ref` must outlive the tracker.
    template <class T>
    explicit basic_polled_tracker(config config, T transport, tracker_options options = {})
        : basic_polled_tracker(std::move(config), detail::own_transport(std::move(transport)),
                               std::move(options)) {
        static_assert(AsyncTransport<std::unwrap_reference_t<T>>,
                      "promptlayer: polled_tracker takes an AsyncTransport; background_tracker or "
                      "threaded_transport take a synchronous Transport");
    }

    /// Calls `close` and reports the undelivered requests; not if `close` throws.
    ~basic_polled_tracker();

    /// Calls `poll()` of the transport, if it has one; reports results; sends the requests that are due, at
    /// most `queue_options::max_in_flight`. Does not wait, and does a bounded piece of work. Returns the same
    /// as `pending`. `now` must be of a steady clock.
    std::size_t poll(time_point now);

    /// Returns the number of requests that have not ended or are not reported.
    std::size_t pending() const;

    /// Stops accepting requests, reports what has ended, cancels requests in flight if the transport can, and
    /// returns the undelivered requests in order. A request that was in flight may have been delivered. The
    /// journal keeps all of them for the next start. Does not wait. In a callback, `close` only stops
    /// accepting requests. If memory is exhausted, it throws; no request is lost, and the next `close`
    /// returns all.
    [[nodiscard]] std::vector<finished_request> close();
};

using polled_tracker = basic_polled_tracker<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_DEFINITIONS)

template <class ClockT>
basic_polled_tracker<ClockT>::basic_polled_tracker(config config, detail::any_transport transport,
                                                   tracker_options options)
    : basic_tracker<ClockT>(new detail::delivery_engine<ClockT>(std::move(config), std::move(transport),
                                                                std::move(options), nullptr, nullptr)) {}

template <class ClockT>
basic_polled_tracker<ClockT>::~basic_polled_tracker() {
    if (!this->is_usable())
        return;
    if (is_polling_)
        detail::misuse("promptlayer: a callback has destroyed its tracker\n");
    detail::ignore_exceptions([&] { this->engine().report_returned(close()); });
}

template <class ClockT>
struct basic_polled_tracker<ClockT>::polling {
    bool& flag;
    explicit polling(bool& is_polling) : flag(is_polling) { flag = true; }
    polling(const polling&) = delete;
    polling& operator=(const polling&) = delete;
    ~polling() { flag = false; }
};

template <class ClockT>
std::size_t basic_polled_tracker<ClockT>::poll(time_point now) {
    if (this->is_usable() && !is_polling_) {
        const polling guard{is_polling_};
        if (!first_poll_)
            first_poll_ = now;
        this->engine().advance_to(time_point{now - *first_poll_});
        const detail::any_transport& transport = this->engine().transport();
        transport.call(transport.functions().poll); // outcomes arrive
        this->engine().step();
        transport.call(transport.functions().poll); // what was sent leaves in this frame
    }
    return pending();
}

template <class ClockT>
std::size_t basic_polled_tracker<ClockT>::pending() const {
    return this->is_usable() ? this->engine().pending() : 0;
}

template <class ClockT>
std::vector<finished_request> basic_polled_tracker<ClockT>::close() {
    if (!this->is_usable())
        return {};
    this->engine().close(time_point::max());
    if (is_polling_)
        return {};
    const polling guard{is_polling_};
    this->engine().settle();
    return this->engine().drain();
}

#endif

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_polled_tracker<std::chrono::steady_clock>;
#else
extern template class basic_polled_tracker<std::chrono::steady_clock>;
#endif
#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_THREADED_TRANSPORT_HPP
#define PROMPTLAYER_THREADED_TRANSPORT_HPP

#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#if !defined(_WIN32)
#include <unistd.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {

/// The transport of a thread.
struct thread_transport {
    std::shared_ptr<const void> owner;
    transport_reference reference;
    void (*cancel)(const void* object); ///< null if the transport has no `cancel()`
};

template <class T, class FactoryT>
std::vector<thread_transport> make_transports(std::size_t count, FactoryT& factory) {
    std::vector<thread_transport> transports;
    do {
        const std::shared_ptr<T> object{new T(factory())};
        transports.push_back({object, refer_to_transport(*object), nullptr});
        if constexpr (requires { object->cancel(); })
            transports.back().cancel = [](const void* erased) {
                const_cast<T*>(static_cast<const T*>(erased))->cancel();
            };
    } while (transports.size() < count);
    return transports;
}

/// A thread for each transport, and the queue of the requests that no thread has taken yet.
class transport_threads {
    class state;
    struct release_state {
        void operator()(state* released) const noexcept;
    };

    std::unique_ptr<state, release_state> state_; // null after a move

public:
    explicit transport_threads(std::vector<thread_transport> transports);
    transport_threads(transport_threads&&) noexcept = default;
    transport_threads& operator=(transport_threads&&) noexcept = default;
    ~transport_threads();

    void send(http_request request, completion done);
    void cancel() noexcept;
};

/// Returns what a factory makes, or void if it cannot be called.
template <class FactoryT>
auto call_factory(FactoryT& factory) {
    if constexpr (std::is_invocable_v<FactoryT&>)
        return factory();
}

} // namespace detail

/// An `AsyncTransport` over a synchronous one: several threads, each with a transport of its own. For an HTTP
/// client that blocks, if several requests are to be in flight at once:
///
///     promptlayer::threaded_transport transport{8, [] { return my_transport{}; }};
///
/// - A request waits in a queue until a thread is free. Its timeout includes that wait: the transport gets
///   the rest. A request that waits longer ends with `failure::timeout` when a thread is free.
/// - Completions run on these threads. They may call `send` and `cancel`. They must not throw, and must not
///   destroy the transport.
/// - The destructor cancels all requests and waits for the threads. Without `cancel()` of `T`, it waits until
///   the requests in flight end.
/// - After `fork` the child has no such threads: there, each request is a `failure::other`, and the
///   destructor leaves the memory to the system.
///
/// Movable, also with requests in flight; a transport that was moved from destroys completions without a
/// call. Except for move and destruction, any thread may call any member.
template <class T>
class threaded_transport {
    static_assert(detail::is_transport<T>());
    static_assert(Transport<T> || !AsyncTransport<T>,
                  "promptlayer: threaded_transport takes a factory of synchronous transports; an "
                  "AsyncTransport does many requests at once without it");

    detail::transport_threads threads_;

public:
    static constexpr bool thread_safe = true;

    /// Starts `threads` threads, at least one. Calls `factory` once for each, on the calling thread, and
    /// passes its exceptions on. Throws `std::system_error` if a thread cannot be created.
    template <class FactoryT>
    threaded_transport(std::size_t threads, FactoryT factory)
        : threads_(detail::make_transports<T>(threads, factory)) {}

    /// Queues a request. Does not block, and calls the completion later.
    void send(http_request request, completion done) { threads_.send(std::move(request), std::move(done)); }

    /// Ends the queued requests with `failure::cancelled`: calls their completions before it returns. Calls
    /// `cancel()` of each transport that has it; other requests in flight run to their end.
    void cancel() noexcept { threads_.cancel(); }
};

template <class FactoryT>
threaded_transport(std::size_t, FactoryT)
    -> threaded_transport<decltype(detail::call_factory(std::declval<FactoryT&>()))>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

class transport_threads::state {
    using clock = std::chrono::steady_clock;
    using milliseconds = std::chrono::milliseconds;

    struct queued_request {
        http_request request;
        completion done;
        clock::time_point start = clock::now();
    };

    const std::vector<thread_transport> transports_;
#if !defined(_WIN32)
    const ::pid_t owner_ = ::getpid();
#endif
    std::mutex mutex_{};
    std::condition_variable changed_{};
    std::deque<queued_request> queue_{};
    bool stopping_ = false;
    std::size_t stopped_ = 0; // threads that take no further request
    std::vector<std::thread> threads_{};

    /// Sends a request with the part of its timeout that is left.
    static transport_result outcome_of(queued_request& next, const transport_reference& transport) {
        const auto waited = std::chrono::duration_cast<milliseconds>(clock::now() - next.start);
        if (waited >= next.request.timeout)
            return transport_failure{failure::timeout, "timed out before a thread was free", false};
        next.request.timeout -= waited;
        return transport.send(transport.object, next.request);
    }

    void run(const transport_reference& transport) {
        std::unique_lock guard{mutex_};
        for (;;) {
            changed_.wait(guard, [&] { return stopping_ || !queue_.empty(); });
            if (stopping_)
                break;
            {
                queued_request next = std::move(queue_.front());
                queue_.pop_front();
                guard.unlock();
                transport_result outcome = outcome_of(next, transport);
                if (next.done)
                    next.done(std::move(outcome));
            }
            guard.lock();
        }
        ++stopped_;
        changed_.notify_all();
    }

public:
    explicit state(std::vector<thread_transport> transports) : transports_(std::move(transports)) {}

    void start() {
        threads_.reserve(transports_.size());
        for (const thread_transport& transport : transports_)
            threads_.emplace_back([this, &transport] { run(transport.reference); });
    }

    /// Returns false in a child of `fork`, where the mutex may be locked for ever.
    bool in_owner_process() const noexcept {
#if defined(_WIN32)
        return true;
#else
        return ::getpid() == owner_;
#endif
    }

    void send(http_request request, completion done) {
        const std::lock_guard guard{mutex_};
        queue_.push_back({std::move(request), std::move(done)});
        changed_.notify_one();
    }

    void cancel() {
        std::deque<queued_request> cancelled;
        {
            const std::lock_guard guard{mutex_};
            cancelled.swap(queue_);
        }
        for (const thread_transport& transport : transports_)
            if (transport.cancel)
                transport.cancel(transport.owner.get());
        for (const queued_request& next : cancelled)
            if (next.done)
                next.done(transport_failure{failure::cancelled, "cancelled", false});
    }

    void stop() {
        std::unique_lock guard{mutex_};
        stopping_ = true;
        changed_.notify_all();
        do { // again and again, because a thread may have taken a request that its transport does not know
             // yet
            guard.unlock();
            cancel();
            guard.lock();
        } while (!changed_.wait_for(guard, milliseconds{10}, [&] { return stopped_ == threads_.size(); }));
        guard.unlock();
        for (std::thread& thread : threads_)
            thread.join();
        cancel(); // what the last completions have sent
    }
};

PROMPTLAYER_DECL void transport_threads::release_state::operator()(state* released) const noexcept {
    if (!released->in_owner_process())
        return;
    released->stop();
    delete released;
}

PROMPTLAYER_DECL transport_threads::transport_threads(std::vector<thread_transport> transports)
    : state_(new state{std::move(transports)}) {
    state_->start();
}

PROMPTLAYER_DECL transport_threads::~transport_threads() {
    if (state_)
        release_state{}(state_.get()); // not by `state_`, which completions on the threads still use
    static_cast<void>(state_.release());
}

PROMPTLAYER_DECL void transport_threads::send(http_request request, completion done) {
    if (!state_)
        return;
    if (state_->in_owner_process())
        state_->send(std::move(request), std::move(done));
    else if (done)
        done(transport_failure{failure::other, "the threads of the transport are in the parent process",
                               false});
}

PROMPTLAYER_DECL void transport_threads::cancel() noexcept {
    if (state_ && state_->in_owner_process())
        state_->cancel();
}

} // namespace detail

#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#ifndef PROMPTLAYER_TESTING_RECORDING_TRANSPORT_HPP
#define PROMPTLAYER_TESTING_RECORDING_TRANSPORT_HPP


namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The requests, the scripted outcomes and the pending completions of a recording transport.
struct recording;

using owned_recording = std::unique_ptr<recording, void (*)(recording*)>;

PROMPTLAYER_DECL owned_recording make_recording();
PROMPTLAYER_DECL void add_outcome(recording& recording, transport_result outcome);
PROMPTLAYER_DECL void add_request(recording& recording, const http_request& request, completion done = {});
PROMPTLAYER_DECL transport_result take_outcome(recording& recording, std::string_view url);
PROMPTLAYER_DECL std::vector<http_request> requests_of(const recording& recording);
PROMPTLAYER_DECL std::size_t pending_of(const recording& recording);
PROMPTLAYER_DECL bool complete_one(recording& recording);
PROMPTLAYER_DECL std::string print_requests(const recording& recording);

} // namespace detail

namespace testing {

/// A transport for tests. Records each request, and returns the scripted outcomes in order, then a success:
/// 201 with the next id from 1 for a log, 200 with `success` and `message` for all others. Nothing leaves the
/// process. Any thread may use it; it may be moved while no thread uses it. Printing shows the requests
/// without the API key.
class recording_transport {
    detail::owned_recording recording_ = detail::make_recording();

public:
    /// Adds the outcome of the next request that has no outcome yet.
    void respond(http_response response) { detail::add_outcome(*recording_, std::move(response)); }
    void fail(transport_failure failed) { detail::add_outcome(*recording_, std::move(failed)); }

    /// Returns a copy of all requests, in order.
    std::vector<http_request> requests() const { return detail::requests_of(*recording_); }

    transport_result send(const http_request& request) {
        detail::add_request(*recording_, request);
        return detail::take_outcome(*recording_, request.url);
    }

    friend std::string to_string(const recording_transport& transport) {
        return detail::print_requests(*transport.recording_);
    }
};

/// A recording transport for asynchronous clients. A request is pending until the test completes it. The
/// destructor cancels pending requests.
class recording_async_transport {
    detail::owned_recording recording_ = detail::make_recording();

public:
    /// Adds the outcome of the next completion that has no outcome yet.
    void respond(http_response response) { detail::add_outcome(*recording_, std::move(response)); }
    void fail(transport_failure failed) { detail::add_outcome(*recording_, std::move(failed)); }

    /// Returns a copy of all requests, in order.
    std::vector<http_request> requests() const { return detail::requests_of(*recording_); }

    void send(http_request request, completion done) {
        detail::add_request(*recording_, request, std::move(done));
    }

    /// Returns the number of pending requests.
    std::size_t pending() const { return detail::pending_of(*recording_); }

    /// Completes the oldest pending request, on this thread. Returns false if there is none.
    bool complete_one() { return detail::complete_one(*recording_); }

    /// Completes all pending requests, and requests that are sent meanwhile. Returns their number.
    std::size_t complete_all() {
        std::size_t count = 0;
        while (complete_one())
            ++count;
        return count;
    }

    friend std::string to_string(const recording_async_transport& transport) {
        return detail::print_requests(*transport.recording_);
    }
};

using promptlayer::operator<<;

} // namespace testing

namespace detail {

template <>
inline constexpr bool is_printable<testing::recording_transport> = true;
template <>
inline constexpr bool is_printable<testing::recording_async_transport> = true;

#if defined(PROMPTLAYER_DEFINITIONS)

struct recording {
    mutable detail::mutex mutex{};
    std::vector<http_request> requests{};
    std::deque<transport_result> outcomes{};
    struct pending_request {
        std::string url{};
        completion done{};
    };
    std::deque<pending_request> pending{};
    int log_count = 0;
};

PROMPTLAYER_DECL owned_recording make_recording() {
    return {new recording, [](recording* recording) { delete recording; }};
}

PROMPTLAYER_DECL void add_outcome(recording& recording, transport_result outcome) {
    const lock guard{recording.mutex};
    recording.outcomes.push_back(std::move(outcome));
}

PROMPTLAYER_DECL void add_request(recording& recording, const http_request& request, completion done) {
    const lock guard{recording.mutex};
    recording.requests.push_back(request);
    if (done)
        recording.pending.push_back({request.url, std::move(done)});
}

PROMPTLAYER_DECL transport_result take_outcome(recording& recording, std::string_view url) {
    const lock guard{recording.mutex};
    if (recording.outcomes.empty()) {
        const std::vector<header> headers{{"Content-Type", "application/json"}};
        if (!url.ends_with(log_path))
            return http_response{200, headers, R"({"success":true,"message":"recorded"})"};
        const std::string id = std::to_string(++recording.log_count);
        return http_response{201, headers, R"({"id":)" + id + R"(,"prompt_version":null})"};
    }
    transport_result outcome = std::move(recording.outcomes.front());
    recording.outcomes.pop_front();
    return outcome;
}

PROMPTLAYER_DECL std::vector<http_request> requests_of(const recording& recording) {
    const lock guard{recording.mutex};
    return recording.requests;
}

PROMPTLAYER_DECL std::size_t pending_of(const recording& recording) {
    const lock guard{recording.mutex};
    return recording.pending.size();
}

PROMPTLAYER_DECL bool complete_one(recording& recording) {
    recording::pending_request next;
    {
        const lock guard{recording.mutex};
        if (recording.pending.empty())
            return false;
        next = std::move(recording.pending.front());
        recording.pending.pop_front();
    }
    next.done(take_outcome(recording, next.url));
    return true;
}

PROMPTLAYER_DECL std::string print_requests(const recording& recording) {
    std::string text;
    for (const http_request& request : requests_of(recording))
        text += to_string(request) + "\n\n";
    return text;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#pragma pop_macro("accept")
#pragma pop_macro("Always")
#pragma pop_macro("assume")
#pragma pop_macro("bind")
#pragma pop_macro("bit")
#pragma pop_macro("Bool")
#pragma pop_macro("check")
#pragma pop_macro("checkf")
#pragma pop_macro("clear")
#pragma pop_macro("close")
#pragma pop_macro("closesocket")
#pragma pop_macro("complex")
#pragma pop_macro("connect")
#pragma pop_macro("CONST")
#pragma pop_macro("DELETE")
#pragma pop_macro("E")
#pragma pop_macro("emit")
#pragma pop_macro("ensure")
#pragma pop_macro("erase")
#pragma pop_macro("ERROR")
#pragma pop_macro("error")
#pragma pop_macro("fail")
#pragma pop_macro("FALSE")
#pragma pop_macro("far")
#pragma pop_macro("fcntl")
#pragma pop_macro("Field")
#pragma pop_macro("foreach")
#pragma pop_macro("GetCurrentTime")
#pragma pop_macro("GetMessage")
#pragma pop_macro("GetObject")
#pragma pop_macro("getpeername")
#pragma pop_macro("getsockname")
#pragma pop_macro("getsockopt")
#pragma pop_macro("Handler")
#pragma pop_macro("I")
#pragma pop_macro("IN")
#pragma pop_macro("index")
#pragma pop_macro("inet_ntop")
#pragma pop_macro("inet_pton")
#pragma pop_macro("interface")
#pragma pop_macro("ioctl")
#pragma pop_macro("ioctlsocket")
#pragma pop_macro("likely")
#pragma pop_macro("lines")
#pragma pop_macro("listen")
#pragma pop_macro("max")
#pragma pop_macro("maybe_unused")
#pragma pop_macro("min")
#pragma pop_macro("Model")
#pragma pop_macro("move")
#pragma pop_macro("N")
#pragma pop_macro("near")
#pragma pop_macro("NO_ERROR")
#pragma pop_macro("nodiscard")
#pragma pop_macro("None")
#pragma pop_macro("noreturn")
#pragma pop_macro("OPTIONAL")
#pragma pop_macro("OUT")
#pragma pop_macro("out")
#pragma pop_macro("Output")
#pragma pop_macro("pause")
#pragma pop_macro("poll")
#pragma pop_macro("print")
#pragma pop_macro("random")
#pragma pop_macro("read")
#pragma pop_macro("readv")
#pragma pop_macro("recv")
#pragma pop_macro("recvfrom")
#pragma pop_macro("recvmsg")
#pragma pop_macro("Report")
#pragma pop_macro("Request")
#pragma pop_macro("require")
#pragma pop_macro("round")
#pragma pop_macro("select")
#pragma pop_macro("self")
#pragma pop_macro("send")
#pragma pop_macro("SendMessage")
#pragma pop_macro("sendmsg")
#pragma pop_macro("sendto")
#pragma pop_macro("setsockopt")
#pragma pop_macro("shutdown")
#pragma pop_macro("signals")
#pragma pop_macro("sleep")
#pragma pop_macro("slots")
#pragma pop_macro("small")
#pragma pop_macro("socket")
#pragma pop_macro("Status")
#pragma pop_macro("Success")
#pragma pop_macro("swap")
#pragma pop_macro("T")
#pragma pop_macro("TEXT")
#pragma pop_macro("timeout")
#pragma pop_macro("TRUE")
#pragma pop_macro("U")
#pragma pop_macro("unlikely")
#pragma pop_macro("Value")
#pragma pop_macro("verify")
#pragma pop_macro("verifyf")
#pragma pop_macro("VOID")
#pragma pop_macro("write")
#pragma pop_macro("writev")
#pragma pop_macro("Yield")
#if defined(__clang__)
#pragma clang diagnostic pop
#endif

#ifndef PROMPTLAYER_DETAIL_MISUSE_HPP
#define PROMPTLAYER_DETAIL_MISUSE_HPP

#if defined(PROMPTLAYER_DEFINITIONS)

// The function stands after pop_macros.hpp, because PROMPTLAYER_ASSERT may be written with the program's own
// macros.

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Writes `message` to standard error and ends the program, because the caller broke a rule of the interface.
///
/// A program may define `PROMPTLAYER_ASSERT(condition)`, in all its files. It is called with a false
/// condition before the program ends. If it throws, the program continues.
///
/// Only the declaration in result.hpp is [[noreturn]], because `noreturn` may be a macro here.
PROMPTLAYER_DECL void misuse(const char* message) {
    static_cast<void>(std::fputs(message, stderr));
#if defined(PROMPTLAYER_ASSERT)
    const bool interface_is_used_as_promised = false;
    PROMPTLAYER_ASSERT(interface_is_used_as_promised);
    static_cast<void>(interface_is_used_as_promised);
#endif
    std::abort();
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#endif

#endif
