// What errors and replies show of a response: bounded text without control characters and without secrets.
//
// An input is the lines: API key, token of a header of the config, status and limit; then the headers of the
// response, an empty line and the body.

#include "fuzz.hpp"

#include <promptlayer/codec.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/track_prompt.hpp>

#include <charconv>
#include <map>
#include <string>
#include <vector>

namespace {

namespace pl = promptlayer;
using fuzz::require;

bool is_visible(char c) { return c > ' ' && c <= '~'; }

std::string lower_case(std::string text) {
    for (char& c : text)
        c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    return text;
}

/// Returns the first of the longest runs of visible ASCII.
std::string visible_part(std::string_view text) {
    std::string longest, run;
    for (const char c : text) {
        run = is_visible(c) ? run + c : "";
        longest = run.size() > longest.size() ? run : longest;
    }
    return longest;
}

/// Replaces percent-encoding and JSON's escapes by the ASCII characters that they stand for.
std::string without_escapes(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        std::size_t size = text[0] == '%' ? 3 : text.starts_with("\\u") ? 6 : 1;
        unsigned code = 0x80;
        if (size > 1 && text.size() >= size) {
            const auto [end, ec] = std::from_chars(text.data() + size / 3, text.data() + size, code, 16);
            code = end == text.data() + size ? code : 0x80;
        }
        if (code >= 0x80) {
            const bool is_escape =
                text[0] == '\\' && text.size() > 1 && std::string_view{"\"\\/"}.find(text[1]) != text.npos;
            size = is_escape ? 2 : 1;
            code = static_cast<unsigned char>(text[size - 1]);
        }
        out += static_cast<char>(code);
        text.remove_prefix(size);
    }
    return out;
}

/// Returns true if a text shows a secret: its first 8 characters or, if it is shorter, all of it as a word.
bool shows(const std::string& text, const std::string& secret) {
    const std::string needle = lower_case(secret.substr(0, 8));
    if (needle.size() == 8)
        return lower_case(text).find(needle) != text.npos ||
               lower_case(without_escapes(text)).find(needle) != text.npos;
    const auto is_word_character = [&](std::size_t at) {
        return at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) || text[at] == '_' ||
                                    text[at] == '-' || static_cast<unsigned char>(text[at]) >= 0x80);
    };
    for (std::size_t at = 0; (at = lower_case(text).find(needle, at)) != text.npos; ++at) {
        const std::size_t end = at + needle.size();
        if ((at == 0 || !is_word_character(at - 1)) && !is_word_character(end))
            return true;
    }
    return false;
}

/// An endpoint. Its reply has a map and an array.
struct look_up {
    struct reply {
        std::map<std::string, std::string> names{};
        std::vector<std::string> list{};

        using schema = pl::reply_schema<pl::field<"names", &reply::names>, pl::field<"list", &reply::list>>;
    };
};

/// Checks each text that the library makes of a response.
struct reader {
    std::string key, token;

    void check(const std::string& text, std::size_t max_bytes) const {
        require(text.size() <= max_bytes, "a shown text is bounded");
        fuzz::require_harmless(text);
        require(key.empty() || !shows(text, key), "a shown text does not hold the API key");
        require(token.empty() || !shows(text, token),
                "a shown text does not hold a credential of the config");
    }

    void check(const pl::error& failed) const {
        check(failed.message, 512 + (failed.status / 100 == 3 ? 253 : 0) + 128); // text, host, our own text
        require(failed.violations.size() <= 65, "the violations are bounded");
        for (const pl::violation& broken : failed.violations) {
            check(broken.path, 512);
            check(broken.message, 512);
        }
    }

    template <class RequestT>
    void decode(const pl::config& config, const pl::http_response& response) const {
        const auto reply = pl::decode<RequestT>(config, response);
        constexpr bool is_log = std::is_same_v<RequestT, pl::log_request>;
        const bool is_success = response.status == (is_log ? 201 : 200);
        if (!reply) {
            require(is_success == (reply.error().code == pl::errc::malformed_response ||
                                   reply.error().code == pl::errc::rejected),
                    "the status decides first");
            require(reply.error().status == response.status, "the error has the status");
            return check(reply.error());
        }
        require(is_success && response.body.size() <= config.max_response_bytes,
                "only a success has a reply");
        const std::size_t max_bytes = 4 * response.body.size() + 16; // a mark may be longer than the secret
        if constexpr (is_log) {
            for (const auto& text : {reply->status, reply->error_type, reply->error_message})
                check(text.value_or(""), max_bytes);
        } else if constexpr (std::is_same_v<RequestT, look_up>) {
            for (const auto& [name, text] : reply->names) {
                check(name, max_bytes);
                check(text, max_bytes);
            }
            for (const std::string& text : reply->list)
                check(text, max_bytes);
        } else {
            require(reply->success, "a reply reports success");
            check(reply->message, max_bytes);
        }
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::input in{data, size};
    pl::config config{.api_key = "pl_" + std::string{in.line()}};
    config.headers = {{"X-Auth", "tk_" + std::string{in.line()}}};
    const auto number = [&](std::string_view separator) {
        const std::string_view digits = in.until(separator);
        int value = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), value);
        return value;
    };
    pl::http_response response{.status = number(" ")};
    config.max_response_bytes = static_cast<unsigned>(number("\n"));
    for (std::string_view line; !(line = in.line()).empty();) {
        fuzz::input header{reinterpret_cast<const std::uint8_t*>(line.data()), line.size()};
        const std::string name{header.until(": ")};
        response.headers.push_back({name, std::string{header.rest()}});
    }
    response.body = in.rest();

    reader secrets{visible_part(config.api_key), visible_part(config.headers[0].value)};
    if (!secrets.key.starts_with("pl_")) // a word that the library itself uses may be left
        secrets.key.clear();
    if (secrets.token != config.headers[0].value ||
        secrets.token.find_first_of(",;=") != secrets.token.npos || secrets.token.size() < 8)
        secrets.token.clear();
    secrets.decode<pl::track_prompt>(config, response);
    secrets.decode<pl::log_request>(config, response);
    secrets.decode<look_up>(config, response);
    secrets.check(pl::detail::transport_error(config, {pl::failure::other, response.body}));
    config.base_url += "/" + std::string{response.body.substr(0, 64)};
    if (const auto request = authorize(config, {.path = "/", .body = response.body})) {
        for (const char c : to_string(*request))
            require(c == '\n' || static_cast<unsigned char>(c) >= ' ',
                    "a printed request has no control characters");
        require(secrets.key.empty() || !shows(to_string(*request), secrets.key),
                "a printed request does not hold the API key");
    }
    return 0;
}
