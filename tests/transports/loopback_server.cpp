#include <promptlayer/json.hpp>
#include <promptlayer/testing/loopback_server.hpp>

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/parse.hpp>
#include <boost/system/system_error.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using promptlayer::find_header;
using promptlayer::header;
using promptlayer::http_request;
using promptlayer::testing::loopback_server;
using promptlayer::testing::scripted_response;
using ending = scripted_response::connection_ending;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

static_assert(!std::is_copy_constructible_v<loopback_server> &&
              !std::is_move_constructible_v<loopback_server>);

constexpr std::string_view valid_body = R"({"prompt_name":"a","request_id":1})";

/// A connection that sends and receives bytes.
class connection {
    boost::asio::io_context context_{};
    tcp::socket socket_{context_};

public:
    explicit connection(std::uint16_t port) {
        socket_.connect({boost::asio::ip::address_v4::loopback(), port});
    }

    void send(std::string_view bytes) {
        boost::system::error_code ignored; // the server may have had enough
        boost::asio::write(socket_, boost::asio::buffer(bytes), ignored);
    }

    /// Some bytes; none at the end of the stream. `reset` says how the stream ended.
    std::string receive_some(bool* reset = nullptr) {
        std::array<char, 4096> room{};
        boost::system::error_code failed;
        const std::size_t count = socket_.read_some(boost::asio::buffer(room), failed);
        if (reset)
            *reset = failed == boost::asio::error::connection_reset;
        return {room.data(), count};
    }

    /// All that comes until the stream ends.
    std::string receive_all(bool* reset = nullptr) {
        std::string all;
        for (std::string some; !(some = receive_some(reset)).empty();)
            all += some;
        return all;
    }

    /// As many bytes.
    std::string receive(std::size_t count) {
        std::string all(count, '\0');
        boost::system::error_code failed;
        all.resize(boost::asio::read(socket_, boost::asio::buffer(all), failed));
        return all;
    }
};

struct request {
    std::string method = "POST";
    std::string target = "/rest/track-prompt";
    std::string key = "pl_loopback";
    std::string content_type = "application/json";
    std::string body{valid_body};
    bool close = true;

    std::string bytes() const {
        return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" +
               (key.empty() ? "" : "X-API-KEY: " + key + "\r\n") +
               (content_type.empty() ? "" : "Content-Type: " + content_type + "\r\n") +
               (close ? "Connection: close\r\n" : "") + "Content-Length: " + std::to_string(body.size()) +
               "\r\n\r\n" + body;
    }
};

/// The bytes of the answer, up to the end of the connection.
std::string ask(const loopback_server& server, const request& asked) {
    connection to_server{server.port()};
    to_server.send(asked.bytes());
    return to_server.receive_all();
}

int status_of(const std::string& answer) {
    REQUIRE(answer.starts_with("HTTP/1.1 "));
    return std::stoi(answer.substr(9, 3));
}

std::string body_of(const std::string& answer) {
    const std::size_t end = answer.find("\r\n\r\n");
    REQUIRE(end != answer.npos);
    return answer.substr(end + 4);
}

/// The status of an answer that is JSON with `success` and a `message`, as every answer of the interface is.
int judged(const std::string& answer, std::string* message = nullptr) {
    CHECK(answer.find("\r\nContent-Type: application/json\r\n") != answer.npos);
    const auto value = boost::json::parse(body_of(answer));
    CHECK(value.at("success").as_bool() == (status_of(answer) == 200));
    CHECK_FALSE(value.at("message").as_string().empty());
    if (message)
        *message = value.at("message").as_string().c_str();
    return status_of(answer);
}

scripted_response raw(std::string bytes, ending then = ending::keep_alive) {
    scripted_response answer;
    answer.raw = std::move(bytes);
    answer.ending = then;
    return answer;
}

scripted_response answering(int status, ending then = ending::keep_alive) {
    scripted_response answer;
    answer.response = {status, {{"X-Scripted", "1"}}, "0123456789"};
    answer.ending = then;
    return answer;
}

} // namespace

TEST_CASE("loopback server: a request that the interface allows is tracked") {
    const loopback_server server;
    CHECK(judged(ask(server, {})) == 200);
    CHECK(judged(ask(server, {.target = "/rest/track-prompt?trace=1"})) == 200);
    for (const char* const type :
         {"Application/JSON", "application/json; charset=utf-8", "application/json ;charset=utf-8"})
        CHECK(judged(ask(server, {.content_type = type})) == 200);
}

TEST_CASE("loopback server: each rule of the interface has its status") {
    const loopback_server server;
    CHECK(judged(ask(server, {.target = "/rest/track-prompts"})) == 404);
    CHECK(judged(ask(server, {.target = "/"})) == 404);
    CHECK(judged(ask(server, {.method = "GET"})) == 405);
    CHECK(ask(server, {.method = "PUT"}).find("\r\nAllow: POST\r\n") != std::string::npos);
    CHECK(judged(ask(server, {.key = ""})) == 401);
    CHECK(judged(ask(server, {.key = "pl_loopback2"})) == 401);
    CHECK(judged(ask(server, {.key = "PL_LOOPBACK"})) == 401);
    CHECK(judged(ask(server, {.content_type = ""})) == 415);
    CHECK(judged(ask(server, {.content_type = "text/plain"})) == 415);
    CHECK(judged(ask(server, {.content_type = "application/jsonp"})) == 415);
    CHECK(judged(ask(server, {.body = ""})) == 400);
}

TEST_CASE("loopback server: the rules are looked at in order: path, method, key, content type, body") {
    const loopback_server server;
    request wrong{.method = "PUT", .target = "/", .key = "x", .content_type = "text/plain", .body = "x"};
    CHECK(judged(ask(server, wrong)) == 404);
    wrong.target = "/rest/track-prompt";
    CHECK(judged(ask(server, wrong)) == 405);
    wrong.method = "POST";
    CHECK(judged(ask(server, wrong)) == 401);
    wrong.key = "pl_loopback";
    CHECK(judged(ask(server, wrong)) == 415);
    wrong.content_type = "application/json";
    CHECK(judged(ask(server, wrong)) == 400);
    wrong.body = valid_body;
    CHECK(judged(ask(server, wrong)) == 200);
}

TEST_CASE("loopback server: 400 says what from_json says, for each kind of body it refuses") {
    const loopback_server server;
    for (const std::string& body :
         {std::string{"{"}, std::string{"[]"}, std::string{R"({"prompt_name":"a"})"},
          std::string{R"({"prompt_name":"","request_id":1})"},
          std::string{R"({"prompt_name":"a","request_id":"1"})"},
          std::string{R"({"prompt_name":"a","request_id":1,"extra":1})"},
          std::string{R"({"prompt_name":"a","request_id":1,"version":1,"label":"b"})"},
          R"({"prompt_name":"a","request_id":1,"label":")" + std::string(513, 'x') + R"("})"}) {
        const auto refused = promptlayer::from_json<promptlayer::track_prompt>(body);
        REQUIRE_FALSE(refused);
        std::string message;
        CHECK(judged(ask(server, {.body = body}), &message) == 400);
        CHECK(message == to_string(refused.error()));
    }
}

TEST_CASE("loopback server: the key given to the constructor is the one that is accepted") {
    const loopback_server server{"pl_other"};
    CHECK(judged(ask(server, {})) == 401);
    CHECK(judged(ask(server, {.key = "pl_other"})) == 200);
}

TEST_CASE("loopback server: a body above 8 MiB is read and refused, one well above is 413 and not kept") {
    const loopback_server server;
    CHECK(judged(ask(server, {.body = std::string(8 * 1024 * 1024 + 1, 'x')})) == 400);
    CHECK(server.requests().size() == 1);
    CHECK(judged(ask(server, {.body = std::string(9 * 1024 * 1024, 'x')})) == 413);
    CHECK(server.requests().size() == 1);
}

TEST_CASE("loopback server: requests are kept as they arrived, in order, whatever the answer was, until "
          "forgotten") {
    loopback_server server;
    ask(server, {.body = std::string{"\0\xFF", 2}});
    ask(server, {.method = "DELETE", .target = "/x?y=z", .key = "", .body = ""});
    const std::vector<http_request> requests = server.requests();
    REQUIRE(requests.size() == 2);
    CHECK(requests[0].method == "POST");
    CHECK(requests[0].url == "/rest/track-prompt");
    CHECK(requests[0].body == std::string{"\0\xFF", 2});
    CHECK(requests[0].headers == std::vector<header>{{"Host", "localhost"},
                                                     {"X-API-KEY", "pl_loopback"},
                                                     {"Content-Type", "application/json"},
                                                     {"Connection", "close"},
                                                     {"Content-Length", "2"}});
    CHECK(requests[1].method == "DELETE");
    CHECK(requests[1].url == "/x?y=z");
    CHECK_FALSE(find_header(requests[1].headers, "X-API-KEY"));
    server.clear_requests();
    CHECK(server.requests().empty());
    ask(server, {});
    CHECK(server.requests().size() == 1);
}

TEST_CASE("loopback server: a request that does not arrive whole is not kept and takes no scripted answer") {
    loopback_server server;
    server.respond(answering(418));
    {
        connection cut{server.port()};
        const std::string bytes = request{}.bytes();
        cut.send(std::string_view{bytes}.substr(0, bytes.size() - 1));
    }
    CHECK(status_of(ask(server, {})) == 418);
    CHECK(server.requests().size() == 1);
    CHECK(server.connections() == 2);
}

TEST_CASE("loopback server: what is not HTTP is 400, and the connection is closed") {
    const loopback_server server;
    connection to_server{server.port()};
    to_server.send("\x16\x03\x01 no HTTP\r\n\r\n");
    const std::string answer = to_server.receive_all();
    CHECK(judged(answer) == 400);
    CHECK(answer.find("\r\nConnection: close\r\n") != answer.npos);
    CHECK(server.requests().empty());
}

TEST_CASE("loopback server: connections are kept alive unless the request says otherwise, and counted") {
    const loopback_server server;
    CHECK(server.connections() == 0);
    connection to_server{server.port()};
    to_server.send(request{.close = false}.bytes());
    CHECK(to_server.receive_some().starts_with("HTTP/1.1 200 OK\r\n"));
    to_server.send(request{.close = false}.bytes() + request{}.bytes()); // the second waits for its turn
    const std::string rest = to_server.receive_all();
    CHECK(rest.find("HTTP/1.1 200 OK", 1) != rest.npos);
    CHECK(server.requests().size() == 3);
    CHECK(server.connections() == 1);
    ask(server, {});
    CHECK(server.connections() == 2);
}

TEST_CASE("loopback server: a request that expects 100 Continue gets it before its body is read") {
    const loopback_server server;
    connection to_server{server.port()};
    std::string bytes = request{}.bytes();
    bytes.insert(bytes.find("Host"), "Expect: 100-continue\r\n");
    to_server.send(std::string_view{bytes}.substr(0, bytes.size() - valid_body.size()));
    CHECK(to_server.receive(25) == "HTTP/1.1 100 Continue\r\n\r\n");
    to_server.send(valid_body);
    CHECK(judged(to_server.receive_all()) == 200);
}

TEST_CASE("loopback server: scripted answers are given in order, then the interface's again") {
    loopback_server server;
    server.respond(answering(503));
    server.respond(answering(429));
    const std::string first = ask(server, {});
    CHECK(first == "HTTP/1.1 503 Service Unavailable\r\nX-Scripted: 1\r\nContent-Length: 10\r\nConnection: "
                   "close\r\n\r\n0123456789");
    CHECK(status_of(ask(server, {.target = "/elsewhere"})) == 429);
    CHECK(judged(ask(server, {})) == 200);
    CHECK(server.requests().size() == 3);
}

TEST_CASE(
    "loopback server: an answer that may have no body has none, and a length of its own is left alone") {
    loopback_server server;
    server.respond(answering(204));
    CHECK(ask(server, {}).ends_with("X-Scripted: 1\r\nConnection: close\r\n\r\n"));
    server.respond(answering(200));
    CHECK(ask(server, {.method = "HEAD", .body = ""})
              .ends_with("Content-Length: 10\r\nConnection: close\r\n\r\n"));
    scripted_response own;
    own.response = {200, {{"Content-Length", "99"}}, "short"};
    server.respond(own);
    CHECK(ask(server, {}) == "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nshort");
}

TEST_CASE("loopback server: a delayed answer comes after its delay, and others do not wait for it") {
    loopback_server server;
    scripted_response late = answering(200);
    late.delay = 200ms;
    server.respond(late);
    const auto start = steady_clock::now();
    connection slow{server.port()};
    slow.send(request{}.bytes());
    while (server.requests().empty())
        std::this_thread::yield();
    CHECK(judged(ask(server, {})) == 200);
    CHECK(status_of(slow.receive_all()) == 200);
    CHECK(steady_clock::now() - start >= 200ms);
}

TEST_CASE("loopback server: an answer may come byte by byte") {
    loopback_server server;
    scripted_response trickle = raw("0123456789", ending::close);
    trickle.byte_delay = 10ms;
    server.respond(trickle);
    const auto start = steady_clock::now();
    CHECK(ask(server, {}) == "0123456789");
    CHECK(steady_clock::now() - start >= 90ms);
}

TEST_CASE("loopback server: each way for a connection to end is seen as such by the client") {
    loopback_server server;
    const std::string head = "HTTP/1.1 200 OK\r\nX-Scripted: 1\r\nContent-Length: 10\r\n";
    const auto seen = [&](scripted_response answer) {
        server.respond(std::move(answer));
        connection to_server{server.port()};
        to_server.send(request{.close = false}.bytes());
        bool reset = false;
        std::string all = to_server.receive_all(&reset);
        return std::pair{std::move(all), reset};
    };
    CHECK(seen(answering(200, ending::close)) ==
          std::pair{head + "Connection: close\r\n\r\n0123456789", false});
    CHECK(seen(answering(200, ending::close_unannounced)) == std::pair{head + "\r\n0123456789", false});
    CHECK(seen(answering(200, ending::close_midway)) == std::pair{head + "\r\n01234", false});
    CHECK(seen(answering(200, ending::reset_before_answer)) == std::pair{std::string{}, true});
    const auto [all, reset] = seen(answering(200, ending::reset_midway));
    CHECK((head + "\r\n01234").starts_with(all)); // a reset may overtake what was sent before it
    CHECK(reset);
    CHECK(server.connections() == 5);
}

TEST_CASE("loopback server: a connection is held for as long as told before it ends") {
    loopback_server server;
    for (const ending end : {ending::close_unannounced, ending::reset_midway}) {
        scripted_response held = raw("held", end);
        held.hold = 200ms;
        server.respond(held);
        const auto start = steady_clock::now();
        connection to_server{server.port()};
        to_server.send(request{}.bytes());
        CHECK(to_server.receive(4) == "held");
        CHECK(to_server.receive_all().empty());
        CHECK(steady_clock::now() - start >= 200ms);
    }
}

TEST_CASE("loopback server: a silent answer sends nothing and ends with its hold or with the peer") {
    loopback_server server;
    scripted_response silent = answering(200, ending::silent);
    silent.hold = 100ms;
    server.respond(silent);
    const auto start = steady_clock::now();
    CHECK(ask(server, {}).empty());
    CHECK(steady_clock::now() - start >= 100ms);
    CHECK(server.ended_connections() == 1);

    silent.hold = 1h;
    server.respond(silent);
    {
        connection to_server{server.port()};
        to_server.send(request{}.bytes());
        while (server.requests().size() < 2)
            std::this_thread::yield();
    }
    while (server.open_connections() != 0)
        std::this_thread::yield();
    CHECK(server.ended_connections() == 1); // the peer ended the second
}

TEST_CASE("loopback server: a connection is open until the peer closes it, also after the server's end") {
    loopback_server server;
    server.respond(answering(200, ending::close));
    {
        connection to_server{server.port()};
        to_server.send(request{}.bytes());
        CHECK_FALSE(to_server.receive_all().empty());
        CHECK(server.open_connections() == 1);
    }
    while (server.open_connections() != 0)
        std::this_thread::yield();
    CHECK(server.connections() == 1);
}

TEST_CASE("loopback server: a handler answers in place of the interface, after what is scripted") {
    loopback_server server{[](const http_request& asked) {
        scripted_response told;
        told.response = {299, {}, asked.method + " " + asked.url + " " + asked.body};
        return told;
    }};
    server.respond(answering(201));
    CHECK(status_of(ask(server, {})) == 201);
    const std::string answer = ask(server, {.method = "PUT", .target = "/any?where", .body = "bytes"});
    CHECK(status_of(answer) == 299);
    CHECK(body_of(answer) == "PUT /any?where bytes");
    CHECK(server.requests().size() == 2);
}

TEST_CASE("loopback server: raw bytes are sent as they are, and the connection goes on if it is to") {
    loopback_server server;
    const std::string bytes{"HTTP/1.1 100 Continue\r\n\r\n\0\xFF garbage", 35};
    server.respond(raw(bytes));
    connection to_server{server.port()};
    to_server.send(request{.close = false}.bytes());
    CHECK(to_server.receive(bytes.size()) == bytes);
    to_server.send(request{}.bytes());
    CHECK(judged(to_server.receive_all()) == 200);
    CHECK(server.connections() == 1);

    server.respond(raw("", ending::close_unannounced));
    CHECK(ask(server, {}).empty());
}

TEST_CASE("loopback server: it stops at once while an answer is delayed and connections are open") {
    const auto start = steady_clock::now();
    std::optional<connection> idle;
    std::optional<connection> half;
    std::optional<connection> waiting;
    {
        loopback_server server;
        scripted_response late;
        late.delay = 60s;
        server.respond(late);
        idle.emplace(server.port());
        waiting.emplace(server.port());
        waiting->send(request{}.bytes());
        half.emplace(server.port());
        half->send("POST /rest");
        while (server.requests().empty() || server.connections() < 3)
            std::this_thread::yield();
    }
    CHECK(idle->receive_all().empty());
    CHECK(half->receive_all().empty());
    CHECK(waiting->receive_all().empty());
    CHECK(steady_clock::now() - start < 20s);
}

TEST_CASE("loopback server: servers have ports of their own, and serve from the moment they exist") {
    const loopback_server one;
    const loopback_server other;
    CHECK(one.port() != other.port());
    CHECK(one.base_url() == "http://127.0.0.1:" + std::to_string(one.port()));
    CHECK(judged(ask(one, {})) == 200);
    CHECK(other.connections() == 0);
}

TEST_CASE("loopback server: it listens on 127.0.0.1 alone") {
    const loopback_server server;
    boost::asio::io_context context;
    const auto listens_on = [&](const char* address) {
        boost::system::error_code failed;
        tcp::socket socket{context};
        socket.connect({boost::asio::ip::make_address(address), server.port()}, failed);
        return !failed;
    };
    CHECK(listens_on("127.0.0.1"));
    CHECK_FALSE(listens_on("::1"));
#ifdef __linux__
    CHECK_FALSE(listens_on("127.0.0.2")); // all of 127.0.0.0/8 is this machine's
#endif
}

TEST_CASE("loopback server: it listens on ::1 if told so, where there is IPv6") {
    std::optional<loopback_server> server;
    try {
        server.emplace([](const http_request&) { return answering(200); }, tcp::v6());
    } catch (const boost::system::system_error& failed) {
        MESSAGE("skipped: ", failed.what());
        return;
    }
    CHECK(server->base_url() == "http://[::1]:" + std::to_string(server->port()));
    boost::asio::io_context context;
    tcp::socket socket{context};
    socket.connect({boost::asio::ip::make_address("::1"), server->port()});
    socket.close();
    boost::system::error_code failed;
    socket.connect({boost::asio::ip::make_address("127.0.0.1"), server->port()}, failed);
    CHECK(failed);
}

TEST_CASE("loopback server: its members may be called from many threads while it serves") {
    loopback_server server;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 10; ++n) {
                server.respond(answering(200));
                ask(server, {});
                static_cast<void>(server.requests());
                static_cast<void>(server.connections());
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(server.requests().size() == 40);
    CHECK(server.connections() == 40);
}
