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
                require(!sent.is_head || !is_strict || outcome == "fails" || outcome.size() == 4,
                        "a response to HEAD has no body");
            }
            was_kept = was_kept || !(sent.closes || sent.is_good);
        }
    }
    for (std::size_t i = 0; i < outcomes[0].size(); ++i) {
        require(outcomes[0][i] == outcomes[1][i], "the adapters of libcurl agree");
        require(outcomes[0][i] == outcomes[2][i] || outcomes[0][i] == "fails" || outcomes[2][i] == "fails",
                "libcurl and Beast never read different responses");
    }
    return 0;
}
