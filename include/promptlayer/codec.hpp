#ifndef PROMPTLAYER_CODEC_HPP
#define PROMPTLAYER_CODEC_HPP

#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_writer.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/response_reader.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <algorithm>
#endif

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

#include <promptlayer/detail/pop_macros.hpp>

#endif
