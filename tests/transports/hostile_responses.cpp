// Responses of hostile servers to every adapter, over a kept connection. Run it with a sanitizer.

#include "../support/adapters.hpp"

#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using promptlayer::http_request;
using promptlayer::transport_result;
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using ending = scripted_response::connection_ending;
using test_support::adapter;
using test_support::all_adapters;
using test_support::sender;
using test_support::strict_adapters;

/// Bytes that a server sends for a request, and whether it closes the connection after them.
struct response {
    std::string bytes;
    bool closes = false;
};

/// Responds to `/3` with the fourth of `responses`. Closes a connection that is idle for `hold`, so that a
/// response that does not end is cut.
class hostile_server {
    const std::vector<response>& responses_;
    const std::chrono::milliseconds hold_;
    scripted_server server_{[this](const http_request& request) { return response_to(request); }};

    scripted_response response_to(const http_request& request) const {
        std::size_t number = 0;
        std::from_chars(request.url.data() + 1, request.url.data() + request.url.size(), number);
        const auto& [bytes, closes] = responses_.at(number);
        scripted_response scripted;
        scripted.raw = bytes;
        scripted.ending = closes ? ending::close_unannounced : ending::keep_alive;
        scripted.hold = closes ? 0ms : hold_;
        return scripted;
    }

public:
    explicit hostile_server(const std::vector<response>& responses, std::chrono::milliseconds hold = 10s)
        : responses_(responses), hold_(hold) {}

    http_request request_for(std::size_t number, std::string method = "GET") const {
        http_request request;
        request.method = std::move(method);
        request.url = server_.base_url() + "/" + std::to_string(number);
        request.timeout = 20s;
        request.max_response_bytes = 1024;
        return request;
    }
};

/// Returns status and body, or `fails`.
std::string summary(const transport_result& outcome) {
    return outcome ? std::to_string(outcome->status) + " " + outcome->body : "fails";
}

/// Returns the beginning of `bytes` for a message.
std::string printable(std::string_view bytes) {
    std::string shown;
    for (const char c : bytes.substr(0, 500)) {
        if (c == '\r')
            shown += "\\r";
        else if (c == '\n')
            shown += "\\n";
        else if (c < ' ' || c > '~')
            shown += "\\x" + std::to_string(static_cast<unsigned char>(c));
        else
            shown += c;
    }
    return shown;
}

/// A response before the end of a connection, and its outcome.
struct expectation {
    std::string bytes;
    std::string outcome;
    std::string beast = outcome; ///< `curl_transport` documents the differences
};

const std::string good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

std::string with(std::string headers, std::string body) {
    return "HTTP/1.1 200 OK\r\n" + headers + "\r\n\r\n" + body;
}
std::string chunked(std::string chunks) { return with("Transfer-Encoding: chunked", std::move(chunks)); }

const std::vector<expectation>& expectations() {
    static const std::vector<expectation> table{
        // Status lines
        {with("Content-Length: 2", "ok"), "200 ok"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok"},
        {"HTTP/1.0 200 OK\r\n\r\nok", "200 ok"},
        {"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", "200 ok"},
        {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "200 ok", "fails"},
        {"HTTP/1.1 200 \x80\tOK\r\nContent-Length: 2\r\n\r\nok", "200 ok"},
        {"HTTP/1.1 999 ?\r\nContent-Length: 2\r\n\r\nok", "999 ok"},
        {"HTTP/1.1 050 ?\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 000 ?\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 050 ?\r\n\r\nok", "fails"},
        {"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 200\tOK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok"s, "fails"},
        {"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/1 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"HTTP/3 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", "fails"},
        {"ok", "fails"},
        {"\0"s, "fails"},
        {"", "fails"},
        // Headers
        {with(" folded: xxx\r\nContent-Length: 2", "ok"), "fails"},
        {with("\tfolded\r\nContent-Length: 2", "ok"), "fails"},
        {with("A: b\r\n folded: xxx\r\nContent-Length: 2", "ok"), "200 ok"},
        {with("A: b\r\n folded: xxx\r\n \r\n\tc\r\nContent-Length: 2", "ok"), "200 ok"},
        {with("Content-Length: 2\r\nA:\r\n folded", "ok"), "200 ok"},
        {with("Content-Length: 2\r\nA: " + std::string(5'000, 'a') + "\r\n b", "ok"), "200 ok", "fails"},
        {with("Content-Length: 2\r\n 2", "ok"), "fails"},
        {with("Content-Length:\r\n 2", "ok"), "fails", "200 ok"},
        {with("Transfer-Encoding:\r\n chunked", "2\r\nok\r\n0\r\n\r\n"), "fails", "200 ok"},
        {with("Content-Length: 2\r\nno colon", "ok"), "fails"},
        {with("Content-Length: 2\r\n: no name", "ok"), "fails"},
        {with("Content-Length: 2\r\nA b: c", "ok"), "fails"},
        {with("Content-Length: 2\r\nA\0b: c"s, "ok"), "fails"},
        {with("Content-Length: 2\r\nA: b\0c"s, "ok"), "fails"},
        {with("Content-Length: 2\r\nA: b\rc", "ok"), "fails"},
        {with("Content-Length: 2\r\nA: b\x7F", "ok"), "fails"},
        {with("Content-Length: 2\r\nA: b\nB: c", "ok"), "fails"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok", "fails"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok", "fails"},
        {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "fails"},
        {with("Content-Length: 2\r\nA: \x80\xFF", "ok"), "200 ok"},
        {with("Content-Length: 2\r\nA: " + std::string(60'000, 'a'), "ok"), "200 ok"},
        {with("Content-Length: 2\r\nA: " + std::string(300'000, 'a'), "ok"), "fails"},
        {with("Content-Length: 2\r\n\0A: b"s, "ok"), "fails"},
        {with("Content-Length: 2", "\0k"s), "200 \0k"s},
        {"HTTP/1.1 200 OK\r\nA: b", "fails"},
        {with("\r", "ok"), "fails"},
        {with("\r\r", "ok"), "fails"},
        {with("Content-Length: 2\r\nConnection: close, ,x", "ok"), "200 ok"},
        {with("Content-Length: 2\r\nConnection: close; x", "ok"), "200 ok", "fails"},
        // Lengths
        {with("Content-Length: 5, 5", "hello"), "fails"},
        {with("Content-Length: 5\r\nContent-Length: 5", "hello"), "200 hello"},
        {with("Content-Length: 5\r\nContent-Length: 4", "hello"), "fails"},
        {with("Content-Length: 5\r\nContent-Length: 05", "hello"), "fails"},
        {with("Content-Length: 000005", "hello"), "200 hello"},
        {with("Content-Length: +5", "hello"), "fails"},
        {with("Content-Length: -5", "hello"), "fails"},
        {with("Content-Length: 5 ", "hello"), "200 hello"},
        {with("Content-Length: 5 5", "hello"), "fails"},
        {with("Content-Length: 5;", "hello"), "fails"},
        {with("Content-Length: 0x5", "hello"), "fails"},
        {with("Content-Length: ", "hello"), "fails"},
        {with("Content-Length: five", "hello"), "fails"},
        {with("Content-Length : 5", "hello"), "fails"},
        {with(" Content-Length: 5", "hello"), "fails"},
        {with("Content-Length: 18446744073709551621", "hello"), "fails"},
        {with("Content-Length: 9223372036854775808", "hello"), "fails"},
        {with("Content-Length: 18446744073709551616", std::string(2000, 'x')), "fails"},
        {with("Content-Length: 9223372036854775807", std::string(2000, 'x')), "fails"},
        {with("Content-Length: 6", "hello"), "fails"},
        {with("Content-Length: 2000", std::string(2000, 'x')), "200 " + std::string(1025, 'x')},
        {with("A: b", "hello"), "200 hello"},
        {with("A: b", std::string(2000, 'x')), "200 " + std::string(1025, 'x')},
        {with("Content-Length: 4", "hello"), "200 hell"},
        {with("Content-Length: 0", good), "200 "},
        // Codings
        {with("Content-Length: 5\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: chunked\r\nContent-Length: 5", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
         "fails"},
        {with("Transfer-Encoding: identity", "hello"), "fails"},
        {with("Transfer-Encoding: identity\r\nContent-Length: 5", "hello"), "fails"},
        {with("Transfer-Encoding: gzip, chunked", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: chunked, identity", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: xchunked", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: chunked;q=1", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: \"chunked\"", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: ", "hello"), "fails"},
        {with("Transfer-Encoding : chunked", "5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {with("Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n"), "200 hello"},
        {with("transfer-encoding:chunked \t", "5\r\nhello\r\n0\r\n\r\n"), "200 hello"},
        {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "fails"},
        {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", "fails"},
        // Chunks
        {chunked("5\r\nhello\r\n0\r\n\r\n"), "200 hello"},
        {chunked("00005\r\nhello\r\n000\r\n\r\n"), "200 hello"},
        {chunked("A\r\nhellohello\r\na\r\nhellohello\r\n0\r\n\r\n"), "200 hellohellohellohello"},
        {chunked("6\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("4\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5\r\nhello0\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\n0\r\n\r\n"), "fails"},
        {chunked("5\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\n\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\n\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\n\r"), "fails"},
        {chunked("5\r\nhello\r\n"), "fails"},
        {chunked("5\r\nhello"), "fails"},
        {chunked("5\r\nhel"), "fails"},
        {chunked("5\r\n"), "fails"},
        {chunked("5"), "fails"},
        {chunked(""), "fails"},
        {chunked("\r\n5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("-5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("+5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("0x5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked(" 5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("g\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5 5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5, 5\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5\r\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("8000000000000005\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("0000000000000005\r\nhello\r\n0\r\n\r\n"), "200 hello"},
        {chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"), "fails", "200 hello"},
        {chunked("7D0\r\n" + std::string(2000, 'x') + "\r\n0\r\n\r\n"), "200 " + std::string(1025, 'x')},
        {chunked("5 \t\r\nhello\r\n0\r\n\r\n"), "200 hello", "fails"},
        {chunked("5;a\r\nhello\r\n0\r\n\r\n"), "200 hello"},
        {chunked("5 ;a=b; c=\"d;e\"\r\nhello\r\n0;f\r\n\r\n"), "200 hello"},
        {chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), "fails"},
        {chunked("5;a\0b\r\nhello\r\n0\r\n\r\n"s), "fails"},
        {chunked("5;\r\nhello\r\n0\r\n\r\n"), "200 hello", "fails"},
        {chunked("5;=\r\nhello\r\n0\r\n\r\n"), "200 hello", "fails"},
        {chunked("5;" + std::string(10'000, 'a') + "\r\nhello\r\n0\r\n\r\n"), "200 hello"},
        {chunked("5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n"), "200 hello"},
        {chunked("5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"), "fails", "200 hello"},
        {chunked("5\r\nhello\r\n0\r\nA: " + std::string(5'000, 'a') + "\r\n\r\n"), "fails", "200 hello"},
        {chunked("5\r\nhello\r\n0\r\n b\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nno colon\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nA: b\rc\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nA: b\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nA: b\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), "fails"},
        {chunked("5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n"), "fails"},
        // Responses without a body
        {"HTTP/1.1 204 No Content\r\n\r\n", "204 "},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "204 "},
        {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "204 "},
        {"HTTP/1.1 304 Not Modified\r\n\r\n" + good, "304 "},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", "304 "},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "fails"},
        // Informational responses
        {"HTTP/1.1 100 Continue\r\n\r\n" + good, "200 good"},
        {"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n b: c\r\n\r\nHTTP/1.1 102 ?\r\n\r\n" + good, "200 good"},
        {"HTTP/1.1 100 Continue\r\n folded: xxx\r\n\r\n" + good, "fails"},
        {"HTTP/1.1 103 ?\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n folded: xxx\r\n\r\n", "fails"},
        {"HTTP/1.1 103 ?\r\nContent-Length: 5\r\n\r\n" + good, "fails"},
        {"HTTP/1.1 103 ?\r\nTransfer-Encoding: chunked\r\n\r\n" + good, "fails"},
        {"HTTP/1.1 103 ?\r\n\r\nhello" + good, "fails"},
        {"HTTP/1.1 103 ?\r\n\r\n", "fails"},
        {"HTTP/1.1 100\r\n\r\nHTTP/2 200 OK\r\n\r\n", "fails"},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello", "101 "},
        {"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\nhello", "fails"},
        // More than a response
        {good + "!", "200 good"},
        {good + good, "200 good"},
        {good + "\r\n", "200 good"},
        {chunked("0\r\n\r\n") + good, "200 "},
        {chunked("0\r\n\r\n0\r\n\r\n"), "200 "},
    };
    return table;
}

/// Returns bytes that resemble a response.
std::string generated(unsigned seed) {
    std::minstd_rand random{seed + 1};
    const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random()) / 16 % limit; };
    const auto one_of = [&](const std::vector<std::string>& choices) {
        return choices[below(choices.size())];
    };
    const auto line = [&] {
        return one_of({"Content-Length: 5",
                       "Content-Length: 5",
                       "content-length:0",
                       "Content-Length: 6",
                       "Content-Length: 5, 5",
                       "Content-Length : 5",
                       "Transfer-Encoding: chunked",
                       "Transfer-Encoding: chunked",
                       "Transfer-Encoding: identity",
                       "Transfer-Encoding: gzip",
                       "Connection: close",
                       "Connection: keep-alive",
                       "Connection: upgrade",
                       "A: b",
                       "A:",
                       " folded: b",
                       "\tfolded",
                       "no colon",
                       "X: " + std::string(below(9000), 'x'),
                       "",
                       ": b",
                       "Content-Encoding: gzip",
                       "Keep-Alive: timeout=1",
                       "Location: /",
                       "Set-Cookie: a=b",
                       "WWW-Authenticate: Basic",
                       "Trailer: A",
                       "Upgrade: h2c",
                       "Proxy-Connection: close"}) +
               "\r\n";
    };
    const auto head = [&] {
        std::string bytes = one_of({"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2", "HTTP/1.2"}) +
                            " " +
                            one_of({"200", "200", "200", "404", "500", "100", "103", "101", "204", "304",
                                    "401", "407", "417", "302", "20", "050", "999"}) +
                            one_of({" OK", " ", "", " O K", "  "}) + "\r\n";
        for (std::size_t lines = below(4); lines-- > 0;)
            bytes += line();
        return bytes + "\r\n";
    };
    const auto chunk = [&] {
        return one_of({"5", "5", "05", "6", "0", "4;a", "5;a=b", "5 ", "5;a=\"b;c\"", "FFFFFFFFFFFFFFFF",
                       "-1"}) +
               one_of({"\r\n", "\r\n", "\n"}) + one_of({"hello", "hello", "hell", ""}) +
               one_of({"\r\n", "\r\n", "\n", ""});
    };
    std::string bytes;
    for (std::size_t informational = below(8); informational > 5; --informational)
        bytes += "HTTP/1.1 10" + one_of({"0", "2", "3"}) + " ?\r\n" + one_of({"", "", line()}) + "\r\n";
    bytes += head();
    switch (below(4)) {
    case 0: bytes += "hello"; break;
    case 1: bytes += good; break;
    case 2: bytes.insert(bytes.find("\r\n") + 2, "Transfer-Encoding: chunked\r\n"); [[fallthrough]];
    default:
        for (std::size_t chunks = below(4); chunks-- > 0;)
            bytes += chunk();
        bytes += "0\r\n" + one_of({"", "", line()}) + "\r\n";
    }
    for (std::size_t changes = below(6); changes > 2; --changes) {
        const std::size_t from = below(bytes.size()), count = below(4);
        bytes.replace(
            from, below(2) == 0 ? 0 : std::min(count, bytes.size() - from),
            one_of({"", "\r\n", "\n", "\r", " ", "\t", ":", "0", "5", ";", ",", "\0"s, "\x80", "chunked",
                    "HTTP/1.1 200 OK\r\n", "\r\n\r\n", "Content-Length: 5\r\n", bytes.substr(from)}));
    }
    return bytes;
}

TEST_CASE("hostile responses: curl and Beast agree, and the next response is correct") {
    std::vector<response> responses;
    for (const expectation& expected : expectations()) {
        responses.push_back({good});
        responses.push_back({expected.bytes, true});
    }
    for (const adapter& tested : strict_adapters) {
        const hostile_server server{responses};
        const sender send = tested.make_sender();
        for (std::size_t i = 0; i < responses.size(); i += 2) {
            const expectation& expected = expectations()[i / 2];
            CHECK(summary(send(server.request_for(i))) == "200 good");
            const std::string outcome = summary(send(server.request_for(i + 1)));
            CHECK_MESSAGE(outcome == (tested.name == "beast" ? expected.beast : expected.outcome),
                          tested.name << ": " << printable(expected.bytes));
        }
        CHECK(summary(send(server.request_for(0))) == "200 good");
    }
}

TEST_CASE("hostile responses: bytes after the headers for a HEAD are not the next response") {
    const std::vector<response> responses{{with("Content-Length: 5", "")},
                                          {with("Content-Length: 5", "hello")},
                                          {with("Content-Length: 5", good + good)},
                                          {with("A: b", good)},
                                          {with("Transfer-Encoding: chunked", "")},
                                          {chunked("5\r\nhello\r\n0\r\n\r\n")},
                                          {good}};
    for (const adapter& tested : strict_adapters) {
        const hostile_server server{responses};
        const sender send = tested.make_sender();
        for (std::size_t i = 0; i + 1 < responses.size(); ++i) {
            CHECK(summary(send(server.request_for(i, "HEAD"))) == "200 ");
            CHECK(summary(send(server.request_for(responses.size() - 1))) == "200 good");
        }
    }
}

TEST_CASE("hostile responses: no sequence on a kept connection harms an adapter") {
    std::vector<response> responses{{good}};
    const auto add = [&](const std::string& bytes) {
        responses.push_back({bytes});
        responses.push_back({good});
        responses.push_back({bytes});
        responses.push_back({bytes});
    };
    for (const expectation& expected : expectations())
        add(expected.bytes);
    for (unsigned seed = 0; seed < 100; ++seed)
        add(generated(seed));
    responses.push_back({good});
    for (const adapter& tested : all_adapters()) {
        const hostile_server server{responses, 5ms};
        const sender send = tested.make_sender();
        for (std::size_t i = 0; i < responses.size(); ++i) {
            const std::string outcome = summary(send(server.request_for(i)));
            if (responses[i].bytes == good && tested.name != "httplib")
                CHECK_MESSAGE(outcome == "200 good",
                              tested.name << " after " << printable(responses[i == 0 ? 0 : i - 1].bytes));
        }
    }
}

TEST_CASE("hostile responses: curl and Beast never return different responses for the same bytes") {
    std::vector<response> responses;
    for (unsigned seed = 0; seed < 500; ++seed)
        responses.push_back({generated(seed), true});
    std::vector<std::vector<std::string>> outcomes(responses.size()); // by adapter
    for (const adapter& tested : strict_adapters) {
        const hostile_server server{responses};
        const sender send = tested.make_sender();
        for (std::size_t i = 0; i < responses.size(); ++i)
            outcomes[i].push_back(summary(send(server.request_for(i))));
    }
    for (std::size_t i = 0; i < responses.size(); ++i) {
        CAPTURE(printable(responses[i].bytes));
        CHECK(outcomes[i][0] == outcomes[i][1]);
        CHECK((outcomes[i][0] == outcomes[i][2] || outcomes[i][0] == "fails" || outcomes[i][2] == "fails"));
    }
}

TEST_CASE("hostile responses: chunks are read the same in pieces of any size") {
    const auto decoded = [](std::string_view bytes, std::size_t piece) {
        promptlayer::detail::chunked_body chunks;
        std::string body;
        const auto out = [&](std::string_view content) {
            body += content;
            return true;
        };
        for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size())))
            chunks.read(bytes.substr(0, piece), out);
        return body + (chunks.is_complete() ? " whole" : chunks.is_invalid() ? " broken" : " cut");
    };
    const auto check = [&](const std::string& bytes) {
        const std::size_t head = bytes.find("\r\n\r\n");
        const std::string body = head == bytes.npos ? bytes : bytes.substr(head + 4);
        const std::string at_once = decoded(body, body.size() + 1);
        for (const std::size_t piece : {1U, 2U, 3U, 7U})
            CHECK_MESSAGE(decoded(body, piece) == at_once, printable(body));
    };
    for (const expectation& expected : expectations())
        check(expected.bytes);
    for (unsigned seed = 0; seed < 500; ++seed)
        check(generated(seed));
}

} // namespace
