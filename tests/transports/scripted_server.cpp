#include <promptlayer/http.hpp>
#include <promptlayer/testing/scripted_server.hpp>

#include "../support/raw_http.hpp"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/system/system_error.hpp>

#include <chrono>
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
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using raw_http::body_of;
using raw_http::connection;
using raw_http::request;
using raw_http::status_of;
using ending = scripted_response::connection_ending;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

static_assert(!std::is_copy_constructible_v<scripted_server> &&
              !std::is_move_constructible_v<scripted_server>);

std::string exchange(const scripted_server& server, const request& sent) {
    return raw_http::exchange(server.port(), sent);
}

scripted_response raw(std::string bytes, ending end = ending::keep_alive) {
    scripted_response response;
    response.raw = std::move(bytes);
    response.ending = end;
    return response;
}

scripted_response respond_with(int status, ending end = ending::keep_alive) {
    scripted_response response;
    response.response = {status, {{"X-Scripted", "1"}}, "0123456789"};
    response.ending = end;
    return response;
}

} // namespace

TEST_CASE("scripted server: requests are recorded as they arrive until they are cleared") {
    scripted_server server;
    exchange(server, {.body = std::string{"\0\xFF", 2}});
    exchange(server, {.method = "DELETE", .target = "/x?y=z", .key = "", .body = ""});
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
    exchange(server, {});
    CHECK(server.requests().size() == 1);
}

TEST_CASE("scripted server: an incomplete request is not recorded and takes no scripted response") {
    scripted_server server;
    server.respond(respond_with(418));
    {
        connection cut{server.port()};
        const std::string bytes = request{}.bytes();
        cut.send(std::string_view{bytes}.substr(0, bytes.size() - 1));
    }
    CHECK(status_of(exchange(server, {})) == 418);
    CHECK(server.requests().size() == 1);
    CHECK(server.connections() == 2);
}

TEST_CASE("scripted server: a request that is not HTTP gets a 400 and the connection closes") {
    const scripted_server server;
    connection to_server{server.port()};
    to_server.send("\x16\x03\x01 no HTTP\r\n\r\n");
    const std::string response = to_server.receive_all();
    CHECK(status_of(response) == 400);
    CHECK(response.find("\r\nConnection: close\r\n") != response.npos);
    CHECK(server.requests().empty());
}

TEST_CASE("scripted server: connections are kept alive and counted") {
    const scripted_server server;
    CHECK(server.connections() == 0);
    connection to_server{server.port()};
    to_server.send(request{.close = false}.bytes());
    CHECK(to_server.receive_some().starts_with("HTTP/1.1 200 OK\r\n"));
    to_server.send(request{.close = false}.bytes() +
                   request{}.bytes()); // the second request waits for its turn
    const std::string rest = to_server.receive_all();
    CHECK(rest.find("HTTP/1.1 200 OK", 1) != rest.npos);
    CHECK(server.requests().size() == 3);
    CHECK(server.connections() == 1);
    exchange(server, {});
    CHECK(server.connections() == 2);
}

TEST_CASE("scripted server: a request that expects 100 Continue gets it before its body is read") {
    const scripted_server server;
    connection to_server{server.port()};
    std::string bytes = request{}.bytes();
    bytes.insert(bytes.find("Host"), "Expect: 100-continue\r\n");
    const std::string body = request{}.body;
    to_server.send(std::string_view{bytes}.substr(0, bytes.size() - body.size()));
    CHECK(to_server.receive(25) == "HTTP/1.1 100 Continue\r\n\r\n");
    to_server.send(body);
    CHECK(status_of(to_server.receive_all()) == 200);
}

TEST_CASE("scripted server: scripted responses are sent in order, then the handler responds again") {
    scripted_server server;
    server.respond(respond_with(503));
    server.respond(respond_with(429));
    const std::string first = exchange(server, {});
    CHECK(first == "HTTP/1.1 503 Service Unavailable\r\nX-Scripted: 1\r\nContent-Length: 10\r\nConnection: "
                   "close\r\n\r\n0123456789");
    CHECK(status_of(exchange(server, {.target = "/elsewhere"})) == 429);
    CHECK(status_of(exchange(server, {})) == 200);
    CHECK(server.requests().size() == 3);
}

TEST_CASE("scripted server: no body and no second length is added to a response") {
    scripted_server server;
    server.respond(respond_with(204));
    CHECK(exchange(server, {}).ends_with("X-Scripted: 1\r\nConnection: close\r\n\r\n"));
    server.respond(respond_with(200));
    CHECK(exchange(server, {.method = "HEAD", .body = ""})
              .ends_with("Content-Length: 10\r\nConnection: close\r\n\r\n"));
    scripted_response own;
    own.response = {200, {{"Content-Length", "99"}}, "short"};
    server.respond(own);
    CHECK(exchange(server, {}) == "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nshort");
}

TEST_CASE("scripted server: a delayed response does not delay the responses to others") {
    scripted_server server;
    scripted_response late = respond_with(200);
    late.delay = 200ms;
    server.respond(late);
    const auto start = steady_clock::now();
    connection slow{server.port()};
    slow.send(request{}.bytes());
    while (server.requests().empty())
        std::this_thread::yield();
    CHECK(status_of(exchange(server, {})) == 200);
    CHECK(status_of(slow.receive_all()) == 200);
    CHECK(steady_clock::now() - start >= 200ms);
}

TEST_CASE("scripted server: a byte delay sends a response byte by byte") {
    scripted_server server;
    scripted_response trickle = raw("0123456789", ending::close);
    trickle.byte_delay = 10ms;
    server.respond(trickle);
    const auto start = steady_clock::now();
    CHECK(exchange(server, {}) == "0123456789");
    CHECK(steady_clock::now() - start >= 90ms);
}

TEST_CASE("scripted server: a client can tell the endings of a connection apart") {
    scripted_server server;
    const std::string head = "HTTP/1.1 200 OK\r\nX-Scripted: 1\r\nContent-Length: 10\r\n";
    const auto seen = [&](scripted_response response) {
        server.respond(std::move(response));
        connection to_server{server.port()};
        to_server.send(request{.close = false}.bytes());
        bool reset = false;
        std::string all = to_server.receive_all(&reset);
        return std::pair{std::move(all), reset};
    };
    CHECK(seen(respond_with(200, ending::close)) ==
          std::pair{head + "Connection: close\r\n\r\n0123456789", false});
    CHECK(seen(respond_with(200, ending::close_unannounced)) == std::pair{head + "\r\n0123456789", false});
    CHECK(seen(respond_with(200, ending::close_midway)) == std::pair{head + "\r\n01234", false});
#if defined(_WIN32)
    constexpr bool may_look_orderly = true; // Wine sometimes reports a reset as an orderly end
#else
    constexpr bool may_look_orderly = false;
#endif
    const auto [nothing, is_reset_before] = seen(respond_with(200, ending::reset_before_response));
    CHECK(nothing.empty());
    CHECK((is_reset_before || may_look_orderly));
    const auto [part, is_reset_midway] = seen(respond_with(200, ending::reset_midway));
    CHECK((head + "\r\n01234").starts_with(part)); // a reset may overtake what was sent before it
    CHECK((is_reset_midway || may_look_orderly));
    CHECK(server.connections() == 5);
}

TEST_CASE("scripted server: a connection ends after its hold time") {
    scripted_server server;
    for (const ending end : {ending::close_unannounced, ending::reset_midway}) {
        scripted_response ended_late = raw("held", end);
        ended_late.hold = 200ms;
        server.respond(ended_late);
        const auto start = steady_clock::now();
        connection to_server{server.port()};
        to_server.send(request{}.bytes());
        CHECK(to_server.receive(4) == "held");
        CHECK(to_server.receive_all().empty());
        CHECK(steady_clock::now() - start >= 200ms);
    }
}

TEST_CASE("scripted server: a silent response ends after its hold time or when the peer closes") {
    scripted_server server;
    scripted_response silent = respond_with(200, ending::silent);
    silent.hold = 100ms;
    server.respond(silent);
    const auto start = steady_clock::now();
    CHECK(exchange(server, {}).empty());
    CHECK(steady_clock::now() - start >= 100ms);
    while (server.ended_connections() == 0) // counted once the peer can see the end
        std::this_thread::yield();
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

TEST_CASE("scripted server: a connection that the server has ended is open until the peer closes it") {
    scripted_server server;
    server.respond(respond_with(200, ending::close));
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

TEST_CASE("scripted server: the handler responds when the script is empty") {
    scripted_server server{[](const http_request& request) {
        scripted_response response;
        response.response = {299, {}, request.method + " " + request.url + " " + request.body};
        return response;
    }};
    server.respond(respond_with(201));
    CHECK(status_of(exchange(server, {})) == 201);
    const std::string response = exchange(server, {.method = "PUT", .target = "/any?where", .body = "bytes"});
    CHECK(status_of(response) == 299);
    CHECK(body_of(response) == "PUT /any?where bytes");
    CHECK(server.requests().size() == 2);
}

TEST_CASE("scripted server: raw bytes are sent as they are, and the connection can be kept alive") {
    scripted_server server;
    const std::string bytes{"HTTP/1.1 100 Continue\r\n\r\n\0\xFF garbage", 35};
    server.respond(raw(bytes));
    connection to_server{server.port()};
    to_server.send(request{.close = false}.bytes());
    CHECK(to_server.receive(bytes.size()) == bytes);
    to_server.send(request{}.bytes());
    CHECK(status_of(to_server.receive_all()) == 200);
    CHECK(server.connections() == 1);

    server.respond(raw("", ending::close_unannounced));
    CHECK(exchange(server, {}).empty());
}

TEST_CASE("scripted server: the destructor does not wait for delayed responses and open connections") {
    const auto start = steady_clock::now();
    std::optional<connection> idle;
    std::optional<connection> half;
    std::optional<connection> waiting;
    {
        scripted_server server;
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

TEST_CASE("scripted server: each server has its own port and responds without a handler") {
    const scripted_server one;
    const scripted_server other;
    CHECK(one.port() != other.port());
    CHECK(one.base_url() == "http://127.0.0.1:" + std::to_string(one.port()));
    CHECK(status_of(exchange(one, {})) == 200);
    CHECK(other.connections() == 0);
}

TEST_CASE("scripted server: it listens on 127.0.0.1 only") {
    const scripted_server server;
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
    CHECK_FALSE(listens_on("127.0.0.2")); // all of 127.0.0.0/8 belongs to this machine
#endif
}

TEST_CASE("scripted server: it listens on ::1 if it is asked to") {
    std::optional<scripted_server> server;
    try {
        server.emplace([](const http_request&) { return respond_with(200); }, tcp::v6());
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

TEST_CASE("scripted server: its members can be called from many threads") {
    scripted_server server;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 10; ++n) {
                server.respond(respond_with(200));
                exchange(server, {});
                static_cast<void>(server.requests());
                static_cast<void>(server.connections());
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(server.requests().size() == 40);
    CHECK(server.connections() == 40);
}
