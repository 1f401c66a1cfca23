// Sequences of raw responses to every adapter, over a kept connection of 127.0.0.1.
//
// An input is up to six responses, which `\n----\n` separates. The first letter of each is `c` if the server
// then closes the connection, `k` if it keeps it, or `h` if the request was HEAD and the server closes; a
// capital letter if the next request is for the next response at once, and not for a good one.

#include "fuzz.hpp"

#include "../support/adapters.hpp"

#include <promptlayer/testing/scripted_server.hpp>

#include <charconv>
#include <mutex>
#include <system_error>

namespace {

using namespace std::chrono_literals;
using fuzz::require;
using promptlayer::testing::scripted_response;
using ending = scripted_response::connection_ending;
using test_support::http_request;
using test_support::transport_result;

struct response {
    std::string bytes;
    bool closes = false, is_head = false, is_good = false;
};

/// Responds to `/3` with the fourth response.
class server {
    std::mutex mutex_{};
    std::vector<response> responses_{};
    promptlayer::testing::scripted_server server_{[this](const http_request& request) {
        const std::lock_guard guard{mutex_};
        std::size_t number = 0;
        std::from_chars(request.url.data() + 1, request.url.data() + request.url.size(), number);
        scripted_response scripted;
        scripted.raw = responses_[number].bytes;
        scripted.ending = responses_[number].closes ? ending::close_unannounced : ending::keep_alive;
        if (!responses_[number].closes && !responses_[number].is_good)
            scripted.hold = 5ms; // so that a response that does not end is cut
        return scripted;
    }};

public:
    void respond(const std::vector<response>& responses) {
        const std::lock_guard guard{mutex_};
        responses_ = responses;
        server_.clear_requests();
    }

    http_request request_for(std::size_t number, bool is_head) const {
        http_request request;
        request.method = is_head ? "HEAD" : "GET";
        request.url = server_.base_url() + "/" + std::to_string(number);
        request.timeout = 20s;
        request.max_response_bytes = 1024;
        return request;
    }
};

/// Returns a response with a body that no other response of this process has.
std::string good_body() {
    static std::uint64_t serial = 1'000'000;
    return "good " + std::to_string(++serial);
}

std::vector<response> sequence(fuzz::input in) {
    std::vector<response> responses;
    const auto add_good = [&] {
        const std::string body = good_body();
        responses.push_back(
            {"HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body, false,
             false, true});
    };
    add_good();
    for (int i = 0; i < 6 && !in.empty(); ++i) {
        const char letter = in.take(1)[0];
        response next{std::string{in.until("\n----\n")}};
        next.is_head = (letter | ' ') == 'h';
        next.closes = (letter | ' ') != 'k';
        responses.push_back(next);
        if (letter >= 'a')
            add_good();
    }
    add_good();
    return responses;
}

struct invalid {};

void expect(bool holds) {
    if (!holds)
        throw invalid{};
}

std::string lower(std::string_view text) {
    std::string out{text};
    std::transform(out.begin(), out.end(), out.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | ' ') : c; });
    return out;
}

std::string_view trimmed(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    return text.substr(0, text.find_last_not_of(" \t") + 1);
}

/// Takes a line that ends with CRLF and has no other control character than tabs.
std::string_view take_line(std::string_view& bytes) {
    const std::size_t end = bytes.find("\r\n");
    expect(end != bytes.npos);
    const std::string_view line = bytes.substr(0, end);
    expect(std::none_of(line.begin(), line.end(),
                        [](unsigned char c) { return (c < ' ' && c != '\t') || c == 127; }));
    bytes.remove_prefix(end + 2);
    return line;
}

/// Takes headers or trailers and the empty line behind them.
std::vector<std::pair<std::string, std::string>> take_fields(std::string_view& bytes) {
    std::vector<std::pair<std::string, std::string>> fields;
    for (auto line = take_line(bytes); !line.empty(); line = take_line(bytes)) {
        if (line[0] == ' ' || line[0] == '\t') { // folded
            expect(!fields.empty());
            fields.back().second += line;
            continue;
        }
        const std::string name = lower(line.substr(0, line.find(':')));
        expect(!name.empty() && name.size() < line.size());
        expect(std::none_of(name.begin(), name.end(), [](unsigned char c) {
            return c <= ' ' || c > 126 ||
                   std::string_view{"\"(),/;<=>?@[\\]{}"}.find(char(c)) != std::string::npos;
        }));
        fields.emplace_back(name, line.substr(name.size() + 1));
    }
    return fields;
}

/// Takes at most 1025 bytes, which is one more than a request allows.
std::string take_body(std::string_view& bytes, const std::optional<std::string>& length, bool is_chunked) {
    const auto take = [&](std::size_t size) {
        expect(size <= bytes.size());
        const std::string_view part = bytes.substr(0, size);
        bytes.remove_prefix(size);
        return part;
    };
    constexpr std::size_t most = 1025;
    if (!is_chunked)
        return std::string{take(std::min(most, length ? std::stoul(*length) : bytes.size()))};
    std::string body;
    while (true) {
        const std::string_view line = take_line(bytes);
        std::size_t size = 0;
        const auto [stop, failed] = std::from_chars(line.data(), line.data() + line.size(), size, 16);
        const std::string_view rest = trimmed({stop, line.data() + line.size()});
        expect(failed == std::errc{} && (rest.empty() || rest[0] == ';'));
        if (size == 0)
            break;
        body += take(std::min(size, most - body.size()));
        if (body.size() == most)
            return body;
        expect(take_line(bytes).empty());
    }
    for (const auto& [name, value] : take_fields(bytes))
        expect(name != "content-length" && name != "transfer-encoding");
    return body;
}

/// Returns status and body as a plain reader has them, and `fails` if no adapter may accept the response.
std::string reading(std::string_view bytes, bool is_head) try {
    while (true) {
        const std::string_view line = take_line(bytes);
        expect(line.starts_with("HTTP/1.0 ") || line.starts_with("HTTP/1.1 "));
        const std::string status{line.substr(9, line.find(' ', 9) - 9)};
        expect(status.size() == 3 && status[0] != '0' &&
               status.find_first_not_of("0123456789") == status.npos);
        std::optional<std::string> length;
        bool is_chunked = false;
        for (const auto& [name, value] : take_fields(bytes)) {
            const std::string text = lower(trimmed(value));
            if (name == "content-length") {
                expect(!is_chunked && length.value_or(text) == text);
                expect(!text.empty() && text.size() <= 18 &&
                       text.find_first_not_of("0123456789") == text.npos);
                length = text;
            } else if (name == "transfer-encoding") {
                expect(!is_chunked && !length && text == "chunked" && line[7] == '1');
                is_chunked = true;
            }
        }
        const bool is_informational = status[0] == '1';
        expect(!is_informational || (!length && !is_chunked));
        if (is_informational && status != "101")
            continue;
        if (is_informational || is_head || status == "204" || status == "304")
            return status + " ";
        return status + " " + take_body(bytes, length, is_chunked);
    }
} catch (const invalid&) {
    return "fails";
}

/// Returns status and body, or `fails`.
std::string summary(const transport_result& outcome) {
    return outcome ? std::to_string(outcome->status) + " " + outcome->body : "fails";
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static server& server = *new class server; // its thread runs to the end
    const std::vector<response> responses = sequence({data, size});
    server.respond(responses);
    std::vector<std::vector<std::string>> outcomes;
    for (const auto& adapter : test_support::all_adapters()) {
        const auto send = adapter.make_sender();
        const bool is_strict = adapter.name != "httplib";
        bool was_kept = false; // the server may close the connection at any moment
        outcomes.emplace_back();
        for (std::size_t i = 0; i < responses.size(); ++i) {
            const response& sent = responses[i];
            const std::string outcome = summary(send(server.request_for(i, sent.is_head)));
            if (!was_kept && is_strict)
                outcomes.back().push_back(outcome);
            if (sent.is_good) {
                const std::string body = sent.bytes.substr(sent.bytes.find("good "));
                require(outcome == "200 " + body || outcome == "fails",
                        "a response is delivered to its request");
                require(outcome != "fails" || was_kept || !is_strict, "a good response arrives");
            } else {
                for (const response& other : responses)
                    require(!other.is_good ||
                                outcome.find(other.bytes.substr(other.bytes.find("good "))) == outcome.npos,
                            "a response is not delivered to another request");
                require(was_kept || !is_strict || outcome == "fails" ||
                            outcome == reading(sent.bytes, sent.is_head),
                        "an adapter accepts what a plain reader accepts");
            }
            was_kept = was_kept || !(sent.closes || sent.is_good);
        }
    }
    require(outcomes[0] == outcomes[1], "the adapters of libcurl agree");
    return 0;
}
