#ifndef PROMPTLAYER_CODEC_HPP
#define PROMPTLAYER_CODEC_HPP

#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_reader.hpp>
#include <promptlayer/detail/json_writer.hpp>
#include <promptlayer/detail/service_error.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// `prepare`, with no `secret` in the path of a violation.
template <class RequestT>
result<prepared_request> prepare(const RequestT& request, std::size_t max_request_bytes,
                                 std::string_view secret) {
    prepared_request made{std::string{RequestT::path}, {}};
    if (auto written = write_json(request, max_request_bytes, made.body, secret); !written)
        return std::move(written).error();
    return made;
}

} // namespace detail

/// Validates and writes a request: `invalid_request` with every violation, or path and body. Reads no config.
template <class RequestT>
result<prepared_request> prepare(const RequestT& request,
                                 std::size_t max_request_bytes = default_max_request_bytes) {
    return detail::prepare(request, max_request_bytes, {});
}

namespace detail {

inline result<void> verdict(const config& settings) {
    if (auto faults = validate(settings); !faults.empty())
        return invalid(errc::invalid_config, std::move(faults));
    return {};
}

/// All of a request but its body. The config is known to be good.
inline void to_http(const config& settings, std::string_view path, http_request& out) {
    const std::string_view base = settings.base_url;
    out.method = "POST";
    (out.url = base.substr(0, base.size() - (base.ends_with('/') ? 1 : 0))) += path;
    out.headers.resize(4 + settings.headers.size());
    const auto set = [&](std::size_t index, std::string_view name, std::string_view value) {
        out.headers[index].name = name;
        out.headers[index].value = value;
    };
    set(0, "X-API-KEY", settings.api_key);
    set(1, "Content-Type", "application/json");
    set(2, "Accept", "application/json");
    set(3, "User-Agent", settings.user_agent);
    std::copy(settings.headers.begin(), settings.headers.end(), out.headers.begin() + 4);
    out.timeout = settings.timeout;
    out.max_response_bytes = settings.max_response_bytes;
}

/// Empty but for memory that can be used again.
inline void clear(http_request& out) noexcept {
    out.method.clear();
    out.url.clear();
    out.headers.clear();
    out.body.clear();
}

/// A prepared request that a client sends as it sends any other.
template <class ReplyT>
struct prepared_call {
    using reply = ReplyT;
    prepared_request request{};
};

template <class ReplyT>
result<void> encode_with(const config& settings, const result<void>& verdict,
                         const prepared_call<ReplyT>& call, http_request& out) {
    if (!verdict)
        return verdict;
    out.body = call.request.body;
    to_http(settings, call.request.path, out);
    return {};
}

/// `encode` for a config whose verdict is known.
template <class RequestT>
result<void> encode_with(const config& settings, const result<void>& verdict, const RequestT& request,
                         http_request& out) {
    auto outcome = verdict
                       ? detail::write_json(request, settings.max_request_bytes, out.body, settings.api_key)
                       : verdict;
    if (outcome)
        to_http(settings, RequestT::path, out);
    else
        clear(out);
    return outcome;
}

} // namespace detail

/// Puts address, key and headers to a prepared request: `invalid_config`, or the request as it is to be sent.
inline result<http_request> authorize(const config& settings, prepared_request request) {
    if (auto good = detail::verdict(settings); !good)
        return std::move(good).error();
    http_request out;
    out.body = std::move(request.body);
    detail::to_http(settings, request.path, out);
    return out;
}

/// `prepare` and `authorize` at once: the HTTP request that tracks, or `invalid_config` or `invalid_request`.
/// No I/O.
template <class RequestT = track_prompt>
result<http_request> encode(const config& settings, const RequestT& request) {
    http_request out;
    if (auto encoded = detail::encode_with(settings, detail::verdict(settings), request, out); !encoded)
        return std::move(encoded).error();
    return out;
}

/// The same into `out`, which is used again and again: its memory is kept. On an error it is emptied.
template <class RequestT = track_prompt>
result<void> encode(const config& settings, const RequestT& request, http_request& out) {
    return detail::encode_with(settings, detail::verdict(settings), request, out);
}

namespace detail {

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

/// Returns text of the service or a transport for a person, without the API key and the credentials of the
/// config.
inline std::string shown_text(const config& settings, std::string_view text,
                              std::size_t most_bytes = max_service_text) {
    return shown_text(text, settings.api_key, settings.headers, most_bytes);
}

/// Returns the beginning of a body that is no JSON object, for a person: at most 200 code points of its first
/// 4 KiB, white space in runs of one.
inline std::string excerpt(const config& settings, std::string_view body) {
    const std::string shown = shown_text(settings, body.substr(0, 4096), body.npos);
    std::string out;
    std::string_view rest = shown;
    for (std::size_t left = 200; !rest.empty() && left != 0;) {
        const std::string_view bytes = take_code_point(rest).bytes;
        if (bytes == " " && (out.empty() || out.back() == ' '))
            continue;
        out += bytes;
        --left;
    }
    return out.substr(0, out.find_last_not_of(' ') + 1);
}

/// Returns where a redirect leads: a host, as browsers read `Location`. They drop tabs, take a backslash for
/// a slash, and need no slashes after the scheme. Empty if the response is no redirect, or does not say.
inline std::string redirect_target(const config& settings, const http_response& response) {
    const std::string* const location = find_header(response.headers, "Location");
    if (!location || location->empty() || response.status < 300 || response.status > 399)
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
    const std::string host = shown_text(settings, rest, 253);
    return host.empty() ? "an address without a host" : host;
}

/// An answer that is an error: the sentence of its code, the status, and what the service says.
inline error response_error(const config& settings, errc code, const http_response& response,
                            std::string message) {
    error e{.code = code, .status = response.status};
    e.message = message_for(code) + std::string{" (HTTP "} + std::to_string(response.status);
    if (const std::string target = redirect_target(settings, response); !target.empty())
        e.message += ", redirects to " + target;
    e.message += ")";
    if (!message.empty())
        e.message += ": " + std::move(message);
    e.retry_after = retry_after(response);
    return e;
}

inline error status_error(const config& settings, const http_response& response) {
    service_message message;
    if (response.body.size() <= settings.max_response_bytes)
        message = read_service_message(response.body, settings.api_key);
    if (!message.is_object)
        message.text = excerpt(settings, response.body);
    if (!message.violations.empty() && message.text.empty())
        message.text = join(message.violations);
    for (violation& v : message.violations) {
        v.path = shown_text(settings, v.path);
        v.message = shown_text(settings, v.message);
    }
    error e =
        response_error(settings, code_of(response.status), response, shown_text(settings, message.text));
    e.violations = std::move(message.violations);
    return e;
}

inline error transport_error(const config& settings, const transport_failure& failed) {
    error e{.code = errc::transport};
    e.message = message_for(e.code) + std::string{": "} + message_for(failed.kind);
    if (const auto why = shown_text(settings, failed.message); !why.empty())
        e.message += ": " + why;
    e.failure = failed.kind;
    e.maybe_delivered = failed.maybe_delivered;
    return e;
}

} // namespace detail

/// What an answer says: the reply that the interface promises, or an error. The status decides first; only
/// 200 is a success. Text of the service has its control characters replaced and, where it echoes the API
/// key, `[redacted]`; in errors it is cut at 512 bytes. An answer over `max_response_bytes`, or nested deeper
/// than 32, is not parsed. No I/O.
template <class RequestT = track_prompt>
result<typename RequestT::reply> decode(const config& settings, const http_response& response) {
    using reply = typename RequestT::reply;
    if (response.status != 200)
        return detail::status_error(settings, response);
    if (response.body.size() > settings.max_response_bytes)
        return detail::response_error(settings, errc::malformed_response, response,
                                      "more than " + std::to_string(settings.max_response_bytes) + " bytes");
    auto read = detail::read_json<reply, detail::unknown_members::ignore>(response.body, settings.api_key);
    if (!read) {
        std::string message = detail::shown_text(settings, read.error().message);
        if (read.error().code == errc::malformed_json) {
            const std::string shown = detail::excerpt(settings, response.body);
            message += shown.empty() ? "" : ": " + shown;
        }
        error e = detail::response_error(settings, errc::malformed_response, response, std::move(message));
        e.violations = std::move(read.error().violations);
        for (violation& v : e.violations)
            v.path = detail::shown_text(settings, v.path);
        return e;
    }
    if constexpr (requires {
                      { read->success } -> std::convertible_to<bool>;
                  }) {
        if (!read->success) {
            std::string message;
            if constexpr (requires {
                              { read->message } -> std::convertible_to<std::string>;
                          })
                message = detail::shown_text(settings, read->message);
            return detail::response_error(settings, errc::rejected, response, std::move(message));
        }
    }
    const auto whole = [&](std::string_view text) { return detail::shown_text(settings, text, text.npos); };
    reply::schema::for_each_field([&]<class FieldT>(FieldT field, std::size_t) {
        auto& member = (*read).*FieldT::member;
        if constexpr (FieldT::type == detail::json_type::string) {
            if (field.present(*read))
                member = whole(field.value(*read));
        } else if constexpr (FieldT::type == detail::json_type::object) {
            std::remove_reference_t<decltype(member)> clean;
            for (const auto& [name, text] : member)
                clean.emplace(whole(name), whole(text));
            member = std::move(clean);
        }
    });
    return read;
}

/// The same with the limits of a default config.
template <class RequestT = track_prompt>
result<typename RequestT::reply> decode(const http_response& response) {
    return decode<RequestT>(config{}, response);
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
