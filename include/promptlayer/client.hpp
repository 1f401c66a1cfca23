#ifndef PROMPTLAYER_CLIENT_HPP
#define PROMPTLAYER_CLIENT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/text.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

inline constexpr std::string_view library_version = "0.1.0";

/// How to reach the service. A plain value; the first call refuses what cannot be used, by member. Printing
/// it shows the API key and the values of `headers` as `[redacted]`.
struct config {
    std::string api_key{};                                ///< visible ASCII; never in an error or a log
    std::string base_url = "https://api.promptlayer.com"; ///< a path is kept, one slash at its end is not
    std::chrono::milliseconds timeout = std::chrono::seconds{10}; ///< for the whole exchange, more than 0
    std::string user_agent = "promptlayer-cpp/" + std::string{library_version}; ///< printable ASCII
    std::size_t max_response_bytes = 1024 * 1024; ///< a longer answer is not read; more than 0
    bool allow_insecure_http = false; ///< else `http://` is for `localhost`, 127.0.0.0/8 and `[::1]` only
    std::size_t max_request_bytes = default_max_request_bytes; ///< a longer body is not sent; more than 0
    /// Sent with every request, for gateways and tracing. Names are HTTP tokens, values printable ASCII; none
    /// that this library or a transport writes.
    std::vector<header> headers{};
};

/// A config from the variables `PROMPTLAYER_API_KEY` and `PROMPTLAYER_BASE_URL`; one that is unset or empty
/// leaves the default. Not to be called while another thread changes the environment.
[[nodiscard]] inline config config_from_environment() {
#if defined(_MSC_VER)
#pragma warning(push)
#pragma warning(disable : 4996)
#endif
    const char* const key = std::getenv("PROMPTLAYER_API_KEY");
    const char* const url = std::getenv("PROMPTLAYER_BASE_URL");
#if defined(_MSC_VER)
#pragma warning(pop)
#endif
    config made;
    if (key)
        made.api_key = key;
    if (url && *url)
        made.base_url = url;
    return made;
}

namespace detail {

/// What is wrong with a base URL; empty if nothing is.
inline std::string_view url_fault(std::string_view url, bool allow_insecure_http) noexcept {
    if (url.find_first_of("?#\\") != url.npos)
        return "must be visible ASCII without space, ?, # and backslash";
    const url_parts parts = split_url(url);
    if (!parts.fault.empty())
        return parts.fault;
    if (!parts.secure && !allow_insecure_http && !parts.loopback)
        return "must begin with https://: the host is not this machine, and allow_insecure_http is not set";
    return {};
}

/// Returns why a header of `config::headers` cannot be sent; empty if it can.
inline std::string_view header_fault(const header& given) noexcept {
    if (!is_token(given.name))
        return "the name must be an HTTP token";
    for (const std::string_view own :
         {"X-API-KEY", "Content-Type", "Accept", "User-Agent", "Host", "Content-Length", "Transfer-Encoding",
          "Content-Encoding", "Accept-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Expect",
          "TE", "Trailer", "Upgrade"}) {
        if (equal_ignoring_case(given.name, own))
            return "is written by the library or the transport";
    }
    if (!ascii_from(' ', given.value) || trimmed(given.value).size() != given.value.size())
        return "the value must be printable ASCII, without a space at either end";
    return {};
}

} // namespace detail

/// What keeps `settings` from being used: a violation for each member; empty if nothing does. Never a value.
[[nodiscard]] inline std::vector<violation> validate(const config& settings) {
    std::vector<violation> faults;
    const auto fault = [&](std::string member, std::string_view message) {
        faults.push_back({std::move(member), rule::setting, 0, 0, std::string{message}});
    };
    if (settings.api_key.empty())
        fault("api_key", "is not given");
    else if (!detail::ascii_from('!', settings.api_key))
        fault("api_key", "must be visible ASCII");
    if (const auto wrong = detail::url_fault(settings.base_url, settings.allow_insecure_http); !wrong.empty())
        fault("base_url", wrong);
    if (settings.timeout <= std::chrono::milliseconds{0})
        fault("timeout", "must be more than 0 ms");
    if (settings.user_agent.empty() || !detail::ascii_from(' ', settings.user_agent))
        fault("user_agent", "must be printable ASCII");
    if (settings.max_response_bytes == 0)
        fault("max_response_bytes", "must be more than 0");
    if (settings.max_request_bytes == 0)
        fault("max_request_bytes", "must be more than 0");
    for (std::size_t i = 0; i < settings.headers.size(); ++i) {
        if (const auto wrong = detail::header_fault(settings.headers[i]); !wrong.empty())
            fault("headers[" + std::to_string(i) + "]", wrong);
    }
    return faults;
}

/// Returns the config for a person, a line for each member, without control characters, and with `[redacted]`
/// for the API key wherever it stands, for user information in the URL and for the values of `headers`.
inline std::string to_string(const config& settings) {
    const auto shown = [&](std::string_view text) {
        return detail::redacted(detail::readable(text, text.npos), settings.api_key);
    };
    std::string text = "api_key: " + std::string{settings.api_key.empty() ? "" : "[redacted]"} +
                       "\nbase_url: " + shown(detail::without_user_information(settings.base_url)) +
                       "\ntimeout: " + std::to_string(settings.timeout.count()) +
                       " ms\nuser_agent: " + shown(settings.user_agent) +
                       "\nmax_response_bytes: " + std::to_string(settings.max_response_bytes) +
                       "\nallow_insecure_http: " + (settings.allow_insecure_http ? "true" : "false") +
                       "\nmax_request_bytes: " + std::to_string(settings.max_request_bytes) + "\n";
    for (const header& h : settings.headers)
        text += "headers: " + shown(h.name) + ": [redacted]\n";
    return text;
}

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out,
                                              const config& settings) {
    return detail::print(out, settings);
}

/// A validated request without the API key: what a queue or a file may hold.
struct prepared_request {
    std::string path{}; ///< `/rest/track-prompt`
    std::string body{}; ///< JSON

    friend bool operator==(const prepared_request&, const prepared_request&) = default;
};

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
inline void address(const config& settings, std::string_view path, http_request& out) {
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
    address(settings, call.request.path, out);
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
        address(settings, RequestT::path, out);
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
    detail::address(settings, request.path, out);
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
inline error answered(const config& settings, errc code, const http_response& response, std::string said) {
    error e{.code = code, .status = response.status};
    e.message = sentence(code) + std::string{" (HTTP "} + std::to_string(response.status);
    if (const std::string target = redirect_target(settings, response); !target.empty())
        e.message += ", redirects to " + target;
    e.message += ")";
    if (!said.empty())
        e.message += ": " + std::move(said);
    e.retry_after = retry_after(response);
    return e;
}

inline error failed_status(const config& settings, const http_response& response) {
    service_message said;
    if (response.body.size() <= settings.max_response_bytes)
        said = read_service_message(response.body, settings.api_key);
    if (!said.is_object)
        said.text = excerpt(settings, response.body);
    if (!said.violations.empty() && said.text.empty())
        said.text = joined(said.violations);
    for (violation& v : said.violations) {
        v.path = shown_text(settings, v.path);
        v.message = shown_text(settings, v.message);
    }
    error e = answered(settings, code_of(response.status), response, shown_text(settings, said.text));
    e.violations = std::move(said.violations);
    return e;
}

inline error no_answer(const config& settings, const transport_failure& failed) {
    error e{.code = errc::transport};
    e.message = sentence(e.code) + std::string{": "} + sentence(failed.kind);
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
        return detail::failed_status(settings, response);
    if (response.body.size() > settings.max_response_bytes)
        return detail::answered(settings, errc::malformed_response, response,
                                "more than " + std::to_string(settings.max_response_bytes) + " bytes");
    auto read = detail::read_json<reply, detail::unknown_members::ignored>(response.body, settings.api_key);
    if (!read) {
        std::string said = detail::shown_text(settings, read.error().message);
        if (read.error().code == errc::malformed_json) {
            const std::string shown = detail::excerpt(settings, response.body);
            said += shown.empty() ? "" : ": " + shown;
        }
        error e = detail::answered(settings, errc::malformed_response, response, std::move(said));
        e.violations = std::move(read.error().violations);
        for (violation& v : e.violations)
            v.path = detail::shown_text(settings, v.path);
        return e;
    }
    if constexpr (requires {
                      { read->success } -> std::convertible_to<bool>;
                  }) {
        if (!read->success) {
            std::string said;
            if constexpr (requires {
                              { read->message } -> std::convertible_to<std::string>;
                          })
                said = detail::shown_text(settings, read->message);
            return detail::answered(settings, errc::rejected, response, std::move(said));
        }
    }
    const auto whole = [&](std::string_view text) { return detail::shown_text(settings, text, text.npos); };
    reply::schema::for_each_field([&]<class FieldT>(FieldT field, std::size_t) {
        auto& member = (*read).*FieldT::member;
        if constexpr (FieldT::kind == detail::kind::string) {
            if (field.present(*read))
                member = whole(field.value(*read));
        } else if constexpr (FieldT::kind == detail::kind::object) {
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

namespace detail {

/// A config and what was found of it, once.
struct settings {
    promptlayer::config config;
    result<void> verdict = detail::verdict(config);
};

inline error moved_from() { return {.code = errc::closed, .message = "the client was moved from"}; }

/// One synchronous call.
template <class T, class RequestT>
result<typename RequestT::reply> call_over(T& transport, const settings& known, const RequestT& request) {
    http_request http;
    if (auto encoded = encode_with(known.config, known.verdict, request, http); !encoded)
        return std::move(encoded).error();
    transport_result outcome = transport_failure{};
    catching([&] { outcome = transport.send(http); },
             [&](const char* what) {
                 outcome = transport_failure{failure::other, what};
                 return true;
             });
    if (!outcome)
        return no_answer(known.config, outcome.error());
    return decode<RequestT>(known.config, *outcome);
}

/// One asynchronous call: sees to it that the handler is called once.
template <class RequestT, class HandlerT>
class pending_call {
    std::shared_ptr<const settings> settings_;
    std::optional<HandlerT> handler_;
    std::atomic_flag done_{};
    std::atomic<bool> handler_threw_{false};

public:
    pending_call(std::shared_ptr<const settings> shared, HandlerT handler)
        : settings_(std::move(shared)), handler_(std::move(handler)) {}
    pending_call(const pending_call&) = delete;
    pending_call& operator=(const pending_call&) = delete;

    ~pending_call() {
        catching(
            [&] {
                finish(transport_failure{failure::cancelled, "the transport let the request go"});
            },
            [](const char*) { return true; });
    }

    /// Only the first outcome counts.
    void finish(transport_result outcome) {
        if (done_.test_and_set())
            return;
        HandlerT handler = std::move(*handler_);
        handler_.reset(); // the transport may keep the completion, and what the handler holds with it
        catching(
            [&] {
                if (outcome)
                    handler(decode<RequestT>(settings_->config, *outcome));
                else
                    handler(result<typename RequestT::reply>{no_answer(settings_->config, outcome.error())});
            },
            [&](const char*) {
                handler_threw_ = true;
                return false;
            });
    }

    bool handler_threw() const noexcept { return handler_threw_; }
};

} // namespace detail

/// Tracks prompts over a transport: one call is one attempt, nothing is retried or queued. As safe to share
/// between threads as `T` is; nothing of its own changes. It may be destroyed while asynchronous requests are
/// in flight; their handlers do not call it any more. Every call of one that was moved from is
/// `errc::closed`. `std::ref` has it refer to a transport, which must outlive it; it
/// cannot be assigned to then.
template <class T>
class client {
    using transport_type = std::remove_reference_t<T>;

    static_assert(detail::is_transport<transport_type>());

    std::shared_ptr<const detail::settings> settings_;
    T transport_;

public:
    /// The config is checked here, once; a bad one is reported by every call.
    client(config settings, T transport)
        : settings_(std::make_shared<const detail::settings>(detail::settings{std::move(settings)})),
          transport_(std::forward<T>(transport)) {}

    transport_type& transport() noexcept { return transport_; }
    const transport_type& transport() const noexcept { return transport_; }

    /// Sends one request and waits for its answer. Errors: every `errc` from `invalid_request` to
    /// `malformed_response`; unsent if it is `invalid_config` or `invalid_request`.
    template <class RequestT>
    result<typename RequestT::reply> call(const RequestT& request) {
        static_assert(Transport<transport_type>,
                      "promptlayer: this transport is asynchronous: give the call a handler as well");
        if (!settings_)
            return detail::moved_from();
        return detail::call_over(transport_, *settings_, request);
    }

    /// Sends one request without waiting. `handler(result<reply>)` is called exactly once, on whatever thread
    /// the transport completes on; before this returns if the request is refused unsent. It may be move-only.
    /// What it throws goes to the caller of the completion.
    template <class RequestT, class HandlerT>
    void call(const RequestT& request, HandlerT handler) {
        using reply = typename RequestT::reply;
        static_assert(
            AsyncTransport<transport_type>,
            "promptlayer: this transport is synchronous: call without a handler and use what is returned");
        static_assert(std::invocable<HandlerT&, result<reply>>,
                      "promptlayer: the handler cannot be called with a result of the reply");
        http_request http;
        auto encoded = settings_ ? detail::encode_with(settings_->config, settings_->verdict, request, http)
                                 : result<void>{detail::moved_from()};
        if (!encoded) {
            handler(result<reply>{std::move(encoded).error()});
            return;
        }
        const auto pending =
            std::make_shared<detail::pending_call<RequestT, HandlerT>>(settings_, std::move(handler));
        detail::catching(
            [&] {
                transport_.send(std::move(http),
                                [pending](transport_result outcome) { pending->finish(std::move(outcome)); });
            },
            [&](const char* what) {
                pending->finish(transport_failure{failure::other, what});
                return !pending->handler_threw();
            });
    }

    /// `call` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<tracked> track_prompt(const basic_track_prompt<TextT, VariablesT>& request) {
        return call(request);
    }

    /// `call` with a handler, likewise.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>,
              class HandlerT>
    void track_prompt(const basic_track_prompt<TextT, VariablesT>& request, HandlerT handler) {
        call(request, std::move(handler));
    }
};

template <class T>
client(config, T) -> client<std::unwrap_reference_t<T>>;

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
