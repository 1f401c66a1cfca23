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
#include <string>
#include <string_view>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <cstdlib>
#include <utility>
#endif

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

#include <promptlayer/detail/pop_macros.hpp>

#endif
