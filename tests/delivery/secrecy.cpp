// Calls everything that produces text, in every way in which a call can end, with a service, a transport and
// a caller that repeat the API key wherever they can.

#include <promptlayer.hpp>

#include "../support/memory_journal.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pl = promptlayer;

namespace {

std::string lower(std::string text) {
    for (char& c : text)
        c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    return text;
}

/// Replaces `%41` and `\u0041` by the character, and removes other backslashes.
std::string unescaped(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
        const std::string_view rest = text.substr(i);
        const std::size_t start = rest.starts_with("%") ? 1 : rest.starts_with("\\u00") ? 4 : 0;
        const std::string digits{rest.substr(std::min(start, rest.size()), 2)};
        if (start != 0 && digits.size() == 2 &&
            digits.find_first_not_of("0123456789abcdefABCDEF") == digits.npos) {
            out += static_cast<char>(std::stoi(digits, nullptr, 16));
            i += start + 2;
        } else {
            if (rest[0] != '\\')
                out += rest[0];
            ++i;
        }
    }
    return out;
}

/// Looks for the API key and another secret in every text that it is given: whole or the first 8 characters,
/// in any case, percent-encoded or with JSON's escapes.
class secret_search {
    std::vector<std::string> secrets_{};
    std::size_t texts_ = 0;

public:
    explicit secret_search(const std::vector<std::string>& secrets) {
        for (const std::string& secret : secrets)
            secrets_.push_back(lower(secret.substr(0, 8)));
    }

    std::size_t texts() const noexcept { return texts_; }

    void see(const std::string& text) {
        ++texts_;
        for (const std::string& secret : secrets_) {
            const bool is_clean = lower(text).find(secret) == text.npos &&
                                  lower(unescaped(text)).find(secret) == std::string::npos;
            CHECK_MESSAGE(is_clean, text);
        }
    }

    template <class T>
    void see_printed(const T& value) {
        std::ostringstream out;
        out << value;
        see(out.str());
    }

    void see(const pl::error& failed) {
        see(failed.message);
        see(to_string(failed));
        see_printed(failed);
        for (const pl::violation& broken : failed.violations) {
            see(broken.path);
            see(broken.message);
            see(to_string(broken));
        }
    }

    template <class T>
    void see(const pl::result<T>& outcome) {
        if (!outcome)
            see(outcome.error());
        else if constexpr (requires { outcome->message; })
            see(outcome->message);
    }
};

constexpr const char* key = "pl_0123456789abcdef";
constexpr const char* secret = "swordfish-and-chips";

pl::config settings() { return {.api_key = key, .headers = {{"X-Secret", secret}}}; }

/// Returns spellings of a secret that text of the service may hold.
std::vector<std::string> spellings(const std::string& plain) {
    constexpr std::string_view hex = "0123456789ABCDEF";
    std::string percent, escaped, upper = plain;
    for (char& c : upper) {
        const auto code = static_cast<unsigned char>(c);
        const std::string digits{hex[code >> 4], hex[code & 15]};
        percent += "%" + digits;
        escaped += "\\u00" + digits;
        c = c >= 'a' && c <= 'z' ? static_cast<char>(c - ('a' - 'A')) : c;
    }
    return {plain, upper, percent, escaped, plain.substr(0, 8), plain + plain};
}

std::vector<std::string> all_spellings() {
    std::vector<std::string> all = spellings(key);
    for (const std::string& spelling : spellings(secret))
        all.push_back(spelling);
    return all;
}

/// Returns bodies that repeat `text` where a service may.
std::vector<std::string> bodies(const std::string& text) {
    const std::string quoted = "\"" + text + "\"";
    return {"",
            text,
            quoted,
            "<html><body>" + text + "</body></html>",
            std::string(190, 'x') + text + std::string(1000, 'x'),
            R"({"success":true,"message":)" + quoted + "}",
            R"({"success":false,"message":)" + quoted + "}",
            R"({"success":"no","message":)" + quoted + "}",
            R"({"success":true,"message":")" + text, // cut
            R"({"success":true,)" + quoted + R"(:1,"message":1})",
            R"({"message":)" + quoted + "}",
            R"({"error":)" + quoted + "}",
            R"({"error":{"message":)" + quoted + "}}",
            R"({"detail":)" + quoted + "}",
            R"({"detail":[{"loc":["body",)" + quoted + R"(,0],"msg":)" + quoted + R"(,"type":)" + quoted +
                "}]}",
            R"({"detail":[)" + quoted + "]}",
            R"({"id":1,"prompt_version":{)" + quoted + ":" + quoted + "}}"};
}

/// Calls `action` with each response that repeats a secret.
void for_each_response(const std::function<void(const pl::http_response&)>& action) {
    for (const std::string& text : all_spellings()) {
        for (const std::string& body : bodies(text)) {
            for (const int status :
                 {0, 99, 200, 201, 204, 302, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 999})
                action({status,
                        {{"Location", "https://" + text + ".example/" + text},
                         {"Retry-After", text},
                         {"X-API-KEY", text},
                         {text, text}},
                        body});
        }
    }
}

void for_each_failure(const std::function<void(const pl::transport_failure&)>& action) {
    for (const std::string& text : all_spellings()) {
        for (const pl::failure why :
             {pl::failure::resolve, pl::failure::connect, pl::failure::tls, pl::failure::timeout,
              pl::failure::reset, pl::failure::cancelled, pl::failure::other, static_cast<pl::failure>(99)})
            action({why, "cannot send X-API-KEY: " + text});
    }
}

pl::track_prompt good_request() { return {.prompt_name = "support-response", .request_id = 1}; }

/// Returns requests that break rules, with the API key in the names of variables.
std::vector<pl::track_prompt> bad_requests() {
    std::vector<pl::track_prompt> all;
    for (const std::string& text : spellings(key)) {
        all.push_back({.prompt_name = text + "\xFF", .request_id = 1, .version = 1, .label = text + "\xFF"});
        all.push_back({.prompt_name = "a", .prompt_input_variables = {{text, "\xFF"}}, .request_id = 1});
        all.push_back(
            {.prompt_name = "a", .prompt_input_variables = {{text + "\xFF", text}}, .request_id = 1});
        all.push_back({.prompt_name = "a",
                       .prompt_input_variables = {{std::string(60, 'x') + text + "\n", "\xFF"}},
                       .request_id = 1});
    }
    return all;
}

} // namespace

TEST_CASE("secrecy: no error, reply or printed text of a call shows a secret") {
    secret_search search{{key, secret}};
    pl::client client{settings(), pl::testing::recording_transport{}};
    const auto call_all = [&] {
        search.see(client.track_prompt(good_request()));
        search.see_printed(client.transport().requests().back());
    };
    for_each_response([&](const pl::http_response& response) {
        search.see_printed(
            pl::http_response{response.status, {{"X-API-KEY", secret}, {"Set-Cookie", key}}, ""});
        search.see(pl::decode(settings(), response));
        search.see(pl::decode<pl::log_request>(settings(), response));
    });
    for (const std::string& text : all_spellings()) {
        for (const std::string& body : bodies(text)) {
            client.transport().respond({401, {}, body});
            call_all();
        }
    }
    for_each_failure([&](const pl::transport_failure& failed) {
        client.transport().fail(failed);
        call_all();
    });
    search.see_printed(client.transport());
    for (const pl::track_prompt& request : bad_requests()) {
        search.see(client.track_prompt(request));
        search.see(pl::encode(settings(), request));
        search.see(pl::encoder{settings()}.prepare(request));
    }
    CHECK(search.texts() > 30'000);
}

TEST_CASE("secrecy: no error or printed text of a config shows a secret") {
    secret_search search{{key, secret}};
    std::vector<pl::config> all;
    for (const std::string& text : all_spellings()) {
        all.push_back({.api_key = std::string{key} + "\n" + secret, .headers = {{"X-Secret ", text + "\n"}}});
        all.push_back({.api_key = key, .base_url = "http://" + text + ":" + text + "@" + text + "/" + text});
        all.push_back({.api_key = key, .base_url = text, .user_agent = text + "\r\nX-Secret: " + text});
        all.push_back({.api_key = key, .headers = {{"Authorization", text}, {"X-API-KEY", text}}});
    }
    for (const pl::config& config : all) {
        for (const pl::violation& broken : pl::validate(config)) {
            search.see(broken.path);
            search.see(to_string(broken));
        }
        search.see(pl::encode(config, good_request()));
        pl::config shown = config;
        shown.base_url = "https://api.promptlayer.com"; // printed as it is
        shown.user_agent = "a";
        search.see_printed(shown);
    }
    CHECK(search.texts() > 100);
}

TEST_CASE("secrecy: no report and no journal of a tracker holds a secret") {
    secret_search search{{key, secret}};
    const auto journal = std::make_shared<test_support::memory_journal::storage>();
    pl::testing::recording_async_transport transport;
    std::size_t reports = 0;
    const auto report = [&](const pl::finished_request& finished) {
        ++reports;
        if (finished.error)
            search.see(*finished.error);
    };
    {
        pl::polled_tracker tracker{settings(),
                                   std::ref(transport),
                                   {.on_delivered = report,
                                    .on_failed = report,
                                    .on_outage = [&](const auto& cause) { search.see_printed(cause); },
                                    .journal = std::make_unique<test_support::memory_journal>(journal)}};
        std::chrono::steady_clock::time_point now{};
        const auto deliver = [&] {
            search.see(tracker.track(good_request()));
            for (const auto& [number, entry] : journal->entries) {
                search.see(entry.request.path);
                search.see(entry.request.body);
            }
            now += std::chrono::hours{1};
            tracker.poll(now);
            transport.complete_all();
            tracker.poll(now);
        };
        for (const std::string& text : all_spellings()) {
            for (const int status : {200, 201, 400, 401, 403, 422, 429, 500}) {
                for (const std::string& body : bodies(text)) {
                    transport.respond({status, {{"Location", text}}, body});
                    deliver();
                }
            }
        }
        for_each_failure([&](const pl::transport_failure& failed) {
            transport.fail(failed);
            deliver();
        });
        for (const pl::track_prompt& request : bad_requests())
            search.see(tracker.track(request));
        search.see_printed(transport);
    }
    CHECK(reports > 1'000);
    CHECK(search.texts() > 3'000);
}
