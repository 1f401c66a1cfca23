// URLs against libcurl's parser: it must find the same host, the same loopback, and no user information.

#include "fuzz.hpp"

#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>

#include <curl/curl.h>

#include <arpa/inet.h>

#include <array>
#include <memory>
#include <string>

namespace {

using fuzz::require;
using promptlayer::detail::equal_ignoring_case;

/// A URL as libcurl reads it.
class curl_reading {
    std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url_{curl_url(), &curl_url_cleanup};

public:
    const bool is_valid;

    explicit curl_reading(const std::string& url)
        : is_valid(url.find('\0') == url.npos &&
                   curl_url_set(url_.get(), CURLUPART_URL, url.c_str(), CURLU_PATH_AS_IS) == CURLUE_OK) {}

    std::optional<std::string> part(CURLUPart part) const {
        char* text = nullptr;
        if (curl_url_get(url_.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK)
            return std::nullopt;
        std::string copy{text};
        curl_free(text);
        return copy;
    }

    /// Returns the host without the brackets of an IPv6 address.
    std::string host() const {
        const std::string host = part(CURLUPART_HOST).value_or("");
        return host.starts_with('[') ? host.substr(1, host.size() - 2) : host;
    }
};

/// Returns the bytes of an address of 4 or 16 bytes; empty if the system does not read it as one.
std::string address_of(const std::string& host) {
    char bytes[16];
    for (const auto& [family, size] : {std::pair{AF_INET, 4U}, std::pair{AF_INET6, 16U}}) {
        if (host.find('\0') == host.npos && ::inet_pton(family, host.c_str(), bytes) == 1)
            return {bytes, size};
    }
    return {};
}

bool is_loopback(const std::string& host) {
    const std::string address = address_of(host);
    return equal_ignoring_case(host, "localhost") || (address.size() == 4 && address[0] == 127) ||
           address == std::string(15, '\0') + '\x01';
}

/// Requires that libcurl sends a request to the host that we have found.
void check_parts(const std::string& url) {
    const auto parts = promptlayer::detail::split_url(url);
    if (!parts.error.empty())
        return;
    const curl_reading curl{url};
    require(curl.is_valid, "libcurl accepts the URL");
    const std::string host{parts.host};
    require(equal_ignoring_case(curl.host(), host) ||
                (!address_of(host).empty() && address_of(curl.host()) == address_of(host)),
            "libcurl finds the same host");
    require(parts.loopback == is_loopback(curl.host()), "libcurl finds the same loopback");
    require(curl.part(CURLUPART_PORT) == std::to_string(parts.port), "libcurl finds the same port");
    require(curl.part(CURLUPART_SCHEME) == (parts.secure ? "https" : "http"),
            "libcurl finds the same scheme");
    require(!curl.part(CURLUPART_USER) && !curl.part(CURLUPART_PASSWORD),
            "libcurl finds no user information");
}

void check_config(const std::string& url, bool allow_insecure_http) {
    promptlayer::config config{.api_key = "pl_key", .base_url = url};
    config.allow_insecure_http = allow_insecure_http;
    const auto request = authorize(config, {.path = "/rest/track-prompt"});
    require(request.has_value() == validate(config).empty(), "only a valid config makes a request");
    if (request) {
        const curl_reading before{url}, after{request->url};
        require(after.is_valid && after.host() == before.host() &&
                    after.part(CURLUPART_PORT) == before.part(CURLUPART_PORT),
                "a request goes to the host of the config");
        require(after.part(CURLUPART_PATH).value().ends_with("/rest/track-prompt") &&
                    !after.part(CURLUPART_QUERY) && !after.part(CURLUPART_FRAGMENT),
                "a request goes to its path");
        require(allow_insecure_http || after.part(CURLUPART_SCHEME) == "https" || is_loopback(after.host()),
                "without TLS, a request goes only to this machine");
        require(promptlayer::invalid_reason(*request) == nullptr, "a request of a valid config can be sent");
    }
    const curl_reading curl{url};
    const auto password = curl.is_valid ? curl.part(CURLUPART_PASSWORD) : std::nullopt;
    promptlayer::http_request unsent;
    unsent.url = url;
    for (const std::string& shown : {to_string(config), to_string(unsent)})
        require(!password || password->size() < 4 || shown.find(":" + *password + "@") == shown.npos,
                "no password in a URL is shown");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string url{reinterpret_cast<const char*>(data), size};
    check_parts(url);
    check_config(url, false);
    check_config(url, true);
    return 0;
}
