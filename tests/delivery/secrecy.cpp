// Calls everything that has the API key and produces text, in every way in which a call can end. Service,
// transport and caller repeat the key and another secret wherever they can. The body of a printed response
// and `finished_request::response` are the service's own bytes, and are not searched.

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pl = promptlayer;

namespace {

/// The secrets of a config: the API key and the value of a header.
struct account {
    std::string key, secret;
};

/// In a path, the escape of U+0007 begins the first key. The second secret is a word of the library itself.
const account accounts[] = {{"u0007-0123456789abcdef", "swordfish-and-chips"}, {"pl_012", "redacted"}};

pl::config config_of(const account& a) { return {.api_key = a.key, .headers = {{"X-Secret", a.secret}}}; }

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

/// Returns the text in lower case, with a space before, after, and for each character that ends a word.
std::string words_of(std::string_view text) {
    std::string words = " ";
    for (const char c : text) {
        const bool is_upper = c >= 'A' && c <= 'Z';
        const bool is_in_word = is_upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
                                c == '-' || static_cast<unsigned char>(c) >= 0x80;
        words += is_upper ? static_cast<char>(c + ('a' - 'A')) : is_in_word ? c : ' ';
    }
    return words + " ";
}

/// A request to a service of the user, with a reply that has text of every kind.
struct look_up_reply {
    std::string message{};
    std::optional<pl::json_object> object{};
    std::map<std::string, std::string> names{};
    std::vector<std::string> list{};

    using schema =
        pl::reply_schema<pl::field<"message", &look_up_reply::message>,
                         pl::field<"object", &look_up_reply::object>,
                         pl::field<"names", &look_up_reply::names>, pl::field<"list", &look_up_reply::list>>;
};

struct look_up {
    pl::required<std::string> text;

    static constexpr std::string_view path = "/look-up";
    using reply = look_up_reply;
    using schema = pl::schema<pl::field<"text", &look_up::text>>;
};

/// Looks for the secrets of an account in every text that it is given: in any case, percent-encoded or with
/// JSON's escapes. Of the key no cut may leave 5 characters, of the other secret 8; a shorter key must not
/// stand there as a word.
class secret_search {
    std::vector<std::string> secrets_{};
    std::size_t texts_ = 0;

public:
    explicit secret_search(const account& a)
        : secrets_{a.key.size() < 8 ? words_of(a.key) : a.key.substr(0, 5)} {
        if (a.secret != "redacted")
            secrets_.push_back(a.secret.substr(0, 8));
    }

    std::size_t texts() const noexcept { return texts_; }

    void see(const std::string& text) {
        ++texts_;
        const std::string forms[] = {words_of(text), words_of(unescaped(text))};
        bool is_clean = true;
        for (const std::string& secret : secrets_)
            is_clean = is_clean && forms[0].find(secret) == text.npos && forms[1].find(secret) == text.npos;
        CHECK_MESSAGE(is_clean, text);
    }

    template <class T>
    void see_printed(const T& value) {
        std::ostringstream out;
        out << value;
        see(out.str());
    }

    void see(const std::vector<pl::violation>& violations) {
        for (const pl::violation& broken : violations) {
            see(broken.path);
            see(broken.message);
            see_printed(broken);
        }
    }

    void see(const pl::error& failed) {
        see(failed.message);
        see_printed(failed);
        see(failed.violations);
    }

    void see(const pl::finished_request& finished) {
        see(finished.request.path);
        see(finished.request.body);
        if (finished.error)
            see(*finished.error);
    }

    void see(const pl::http_request& request) { see_printed(request); }
    void see(const pl::prepared_request& request) { see(request.path + request.body); }
    void see(const pl::track_response& reply) { see(reply.message); }
    void see(const pl::log_response& reply) {
        see(reply.status.value_or("") + " " + reply.error_type.value_or("") + " " +
            reply.error_message.value_or(""));
    }
    void see(const look_up_reply& reply) {
        see(reply.message);
        see(reply.object ? std::string{reply.object->text()} : "");
        for (const auto& [name, text] : reply.names) {
            see(name);
            see(text);
        }
        for (const std::string& text : reply.list)
            see(text);
    }

    template <class T>
    void see(const pl::result<T>& outcome) {
        if (!outcome)
            see(outcome.error());
        else if constexpr (!std::is_same_v<T, pl::queued_request>)
            see(*outcome);
    }
};

/// Returns spellings of `plain` that text may hold, the last with another secret in it.
std::vector<std::string> spellings(const std::string& plain, const std::string& other) {
    constexpr std::string_view hex = "0123456789ABCDEF";
    std::string percent, escaped, upper = plain;
    for (char& c : upper) {
        const auto code = static_cast<unsigned char>(c);
        const std::string digits{hex[code >> 4], hex[code & 15]};
        percent += "%" + digits;
        escaped += "\\u00" + digits;
        c = c >= 'a' && c <= 'z' ? static_cast<char>(c - ('a' - 'A')) : c;
    }
    return {plain,
            upper,
            percent,
            escaped,
            plain.substr(0, 8),
            plain + plain,
            plain.substr(0, 3) + other + plain.substr(3)};
}

std::vector<std::string> all_spellings(const account& a) {
    std::vector<std::string> all = spellings(a.key, a.secret);
    for (const std::string& spelling : spellings(a.secret, a.key))
        all.push_back(spelling);
    return all;
}

/// Returns bodies that repeat `text` where a service may, also where the library cuts: at 64 and 200
/// characters and at 512 bytes.
std::vector<std::string> bodies(const std::string& text) {
    const auto quoted = [&](std::size_t before) { return "\"" + std::string(before, 'x') + text + "\""; };
    const std::string plain = quoted(0), long_name = quoted(59), rest(1000, 'x');
    return {"",
            text,
            plain,
            "<html><body>" + text + "</body></html>",
            std::string(193, 'x') + " " + text + rest,
            R"({"success":true,"message":)" + plain + "}",
            R"({"success":false,"message":)" + plain + "}",
            R"({"success":"no","message":)" + plain + "}",
            R"({"success":true,"message":")" + text, // cut
            R"({"success":true,)" + plain + R"(:1,"message":1})",
            R"({"message":)" + plain + "}",
            R"({"message":")" + std::string(505, 'x') + " " + text + rest + "\"}",
            R"({"error":)" + plain + "}",
            R"({"error":{"message":)" + plain + "}}",
            R"({"detail":)" + plain + "}",
            R"({"detail":[{"loc":["body",)" + plain + R"(,0],"msg":)" + plain + R"(,"type":)" + plain + "}]}",
            R"({"detail":[{"loc":["body",)" + long_name + R"(],"msg":"m"}]})",
            R"({"detail":[)" + plain + "]}",
            R"({"id":1,"prompt_version":{)" + plain + ":" + plain + R"(},"error_message":)" + plain + "}",
            R"({"message":"m","object":{)" + plain + ":" + plain + R"(},"names":{)" + plain + ":" + plain +
                R"(},"list":[)" + plain + "]}",
            R"({"message":"m","names":{)" + plain + ":1," + long_name + ":1}}"};
}

/// Calls `action` with each outcome that repeats a secret.
void for_each_outcome(const account& a, const std::function<void(const pl::transport_result&)>& action) {
    for (const std::string& text : all_spellings(a)) {
        for (const pl::failure why :
             {pl::failure::resolve, pl::failure::connect, pl::failure::tls, pl::failure::timeout,
              pl::failure::reset, pl::failure::cancelled, pl::failure::other, static_cast<pl::failure>(99)})
            action(pl::transport_failure{why, "cannot send X-API-KEY: " + text});
        for (const std::string& body : bodies(text)) {
            for (const int status : {0, 200, 201, 302, 400, 401, 422, 429, 500})
                action(pl::http_response{status,
                                         {{"Location", "https://" + text + ".example/" + text},
                                          {"Retry-After", text},
                                          {"X-API-KEY", text},
                                          {text, text}},
                                         body});
        }
    }
}

/// Returns `outcome` as a transport does: throws a failure of the kind `other`, if there are exceptions.
pl::transport_result returned_or_thrown(const pl::transport_result& outcome) {
#if defined(__cpp_exceptions)
    if (!outcome && outcome.error().kind == pl::failure::other)
        throw std::runtime_error{outcome.error().message};
#endif
    return outcome;
}

pl::track_prompt good_request() { return {.prompt_name = "support-response", .request_id = 1}; }

/// Returns requests that break rules, with the API key in the names of variables.
std::vector<pl::track_prompt> bad_requests(const account& a) {
    std::vector<std::string> texts = spellings(a.key, "-");
    texts.push_back("\x07" + a.key.substr(5));
    std::vector<pl::track_prompt> all;
    for (const std::string& text : texts) {
        all.push_back({.prompt_name = text + "\xFF", .request_id = 1, .version = 1, .label = text + "\xFF"});
        for (const std::string& name : {text, text + "\xFF", std::string(59, 'x') + text + "\n"})
            all.push_back(
                {.prompt_name = "a", .prompt_input_variables = {{name, text + "\xFF"}}, .request_id = 1});
    }
    return all;
}

/// Returns options that show each report to `search`. An `attempt_report` holds no text.
pl::tracker_options searching_options(secret_search& search) {
    static_assert(std::is_trivially_copyable_v<pl::attempt_report>);
    const auto see = [&](const auto& report) { search.see(report); };
    return {.on_delivered = see, .on_failed = see, .on_outage = see};
}

} // namespace

TEST_CASE("secrecy: no error, reply or printed request of a call shows a secret") {
    for (const account& a : accounts) {
        secret_search search{a};
        pl::transport_result outcome = pl::http_response{};
        pl::client client{config_of(a), pl::transport_from([&](const pl::http_request& request) {
                              search.see(request);
                              return returned_or_thrown(outcome);
                          })};
        pl::client async_client{config_of(a), pl::transport_from([&](pl::http_request, pl::completion done) {
                                    done(returned_or_thrown(outcome));
                                })};
        for_each_outcome(a, [&](const pl::transport_result& next) {
            outcome = next;
            search.see(client.call(good_request()));
            search.see(client.call(test_support::valid_log()));
            search.see(client.call(look_up{.text = a.key + " " + a.secret}));
            async_client.call(good_request(), [&](const auto& result) { search.see(result); });
            if (outcome)
                search.see(pl::decode(config_of(a), *outcome));
        });
        for (const pl::track_prompt& request : bad_requests(a)) {
            search.see(client.track_prompt(request));
            search.see(pl::encode(config_of(a), request));
            search.see(pl::encoder{config_of(a)}.prepare(request));
        }
        search.see_printed(pl::http_response{
            200, {{"X-API-KEY", a.key}, {"Set-Cookie", a.key}, {"X-Secret", a.secret}}, ""});
        CHECK(search.texts() > 30'000);
    }
}

TEST_CASE("secrecy: no error or printed text of a config shows a secret") {
    for (const account& a : accounts) {
        secret_search search{a};
        std::vector<pl::config> all;
        for (const std::string& text : all_spellings(a)) {
            all.push_back({.api_key = a.key + "\n" + a.secret, .headers = {{"X-Secret ", text + "\n"}}});
            all.push_back(
                {.api_key = a.key, .base_url = "http://" + text + ":" + text + "@" + text + "/" + text});
            all.push_back({.api_key = a.key, .base_url = text, .user_agent = text + "\r\nX-Secret: " + text});
            all.push_back({.api_key = a.key, .headers = {{"Authorization", text}, {"X-API-KEY", text}}});
        }
        for (const pl::config& config : all) {
            search.see(pl::validate(config));
            search.see(pl::encode(config, good_request()));
        }
        for (const std::string& text : spellings(a.key, "-"))
            search.see_printed(pl::config{.api_key = a.key + "\n",
                                          .base_url = "https://" + text + "@" + text + ".example/" + text,
                                          .user_agent = text,
                                          .headers = {{"X-Secret", a.secret}, {text, text}}});
        CHECK(search.texts() > 100);
    }
}

TEST_CASE("secrecy: no report and no journal of a tracker holds a secret, nor what close returns") {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() /
        ("promptlayer-secrecy-" +
         std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
    std::filesystem::create_directory(folder);
    for (const account& a : accounts) {
        secret_search search{a};
        pl::testing::recording_async_transport transport;
        pl::tracker_options options = searching_options(search);
        auto journal = pl::file_journal::open(folder / a.key, {.sync_after = {}});
        REQUIRE(journal);
        options.journal = *std::move(journal);
        pl::polled_tracker tracker{config_of(a), std::ref(transport), std::move(options)};
        std::chrono::steady_clock::time_point now{};
        const auto deliver = [&] {
            search.see(tracker.track(good_request()));
            now += std::chrono::hours{1};
            tracker.poll(now);
            transport.complete_all();
            tracker.poll(now);
        };
        for_each_outcome(a, [&](const pl::transport_result& outcome) {
            if (outcome)
                transport.respond(*outcome);
            else
                transport.fail(outcome.error());
            deliver();
        });
        for (const pl::track_prompt& request : bad_requests(a))
            search.see(tracker.track(request));
        search.see_printed(transport);
        transport.fail({pl::failure::other, a.key});
        deliver();
#if !defined(_WIN32) // which locks the file for readers too
        std::ifstream file{folder / a.key, std::ios::binary};
        const std::string bytes{std::istreambuf_iterator<char>{file}, {}};
        CHECK(bytes.find("support-response") != bytes.npos);
        search.see(bytes);
#endif
        const auto undelivered = tracker.close();
        CHECK(std::any_of(undelivered.begin(), undelivered.end(),
                          [](const auto& request) { return request.error.has_value(); }));
        for (const pl::finished_request& request : undelivered)
            search.see(request);
        CHECK(search.texts() > 10'000);
    }
    std::filesystem::remove_all(folder);
}

#ifndef PROMPTLAYER_NO_THREADS
TEST_CASE("secrecy: no report of a background tracker shows a secret, nor what close returns") {
    for (const account& a : accounts) {
        secret_search search{a};
        std::vector<pl::transport_result> outcomes;
        for_each_outcome(a, [&](const pl::transport_result& outcome) {
            if (outcome && (outcome->status == 200 || outcome->status == 422)) // never delays
                outcomes.push_back(outcome);
        });
        outcomes.push_back(pl::transport_failure{pl::failure::other, a.key}); // waits for another attempt
        std::size_t sent = 0;
        pl::tracker_options options = searching_options(search);
        std::promise<void> last;
        options.on_attempt = [&](const pl::attempt_report& report) {
            if (report.failure)
                last.set_value();
        };
        options.queue.retry.initial_delay = options.queue.retry.max_delay = std::chrono::hours{1};
        pl::background_tracker tracker{config_of(a), pl::transport_from([&](const pl::http_request& request) {
                                           search.see(request);
                                           return returned_or_thrown(outcomes[sent++]);
                                       }),
                                       std::move(options)};
        for (std::size_t i = 0; i < outcomes.size(); ++i)
            CHECK(tracker.track(good_request()));
        last.get_future().wait();
        const auto undelivered = tracker.close(std::chrono::milliseconds{0});
        REQUIRE(undelivered.size() == 1);
        CHECK(undelivered[0].error);
        search.see(undelivered[0]);
        CHECK(search.texts() > outcomes.size());
    }
}
#endif
