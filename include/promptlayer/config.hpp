#ifndef PROMPTLAYER_CONFIG_HPP
#define PROMPTLAYER_CONFIG_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/url.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <iosfwd>
#include <string>
#include <string_view>
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
    if (!parts.error.empty())
        return parts.error;
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
    if (!ascii_from(' ', given.value) || trim(given.value).size() != given.value.size())
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
        return detail::redact(detail::sanitize(text, text.npos), settings.api_key);
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

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
