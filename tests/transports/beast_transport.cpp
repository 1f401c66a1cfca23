#include <promptlayer/transports/beast.hpp>

#include "../support/tls_context.hpp"
#include "../support/transport_tests.hpp"

#include <promptlayer/asio.hpp>
#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/conformance_tls.hpp>
#include <promptlayer/testing/loopback_service.hpp>

#include <doctest/doctest.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace transport_tests;
using promptlayer::async_track_prompt;
using promptlayer::beast_transport;
using promptlayer::track_response;
using promptlayer::testing::certificate;
using promptlayer::testing::check_transport;
using promptlayer::testing::tls_servers;
namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;

static_assert(promptlayer::AsyncTransport<beast_transport>);
static_assert(!promptlayer::Transport<beast_transport>);
static_assert(beast_transport::thread_safe);
static_assert(std::is_nothrow_move_constructible_v<beast_transport> &&
              std::is_nothrow_move_assignable_v<beast_transport>);
static_assert(!std::is_copy_constructible_v<beast_transport> && !std::is_copy_assignable_v<beast_transport>);

/// A transport and the loop that it runs on.
struct fixture {
    ssl::context tls{ssl::context::tls_client};
    asio::io_context context{};
    beast_transport transport;

    explicit fixture(std::optional<std::size_t> max_idle_connections = {})
        : transport(context, tls, max_idle_connections) {}

    /// Sends a request and runs the context until it has no work.
    transport_result send(http_request request) {
        std::optional<transport_result> outcome;
        transport.send(std::move(request),
                       [&](transport_result result) { outcome.emplace(std::move(result)); });
        run();
        REQUIRE(outcome);
        return *std::move(outcome);
    }

    void run() {
        context.restart();
        context.run();
    }
};

/// Threads that run a context.
class running {
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    std::vector<std::thread> threads_{};

public:
    running(asio::io_context& context, int count) : work_(context.get_executor()) {
        for (int i = 0; i < count; ++i)
            threads_.emplace_back([&] { context.run(); });
    }
    running(const running&) = delete;
    running& operator=(const running&) = delete;
    ~running() {
        work_.reset();
        for (std::thread& thread : threads_)
            thread.join();
    }
};

/// Accepts one connection after the other on a thread and passes each to `serve`.
template <class Serve>
class raw_server {
    asio::io_context context_{};
    tcp::acceptor acceptor_{context_, {asio::ip::address_v4::loopback(), 0}};
    std::uint16_t port_ = acceptor_.local_endpoint().port();
    Serve serve_;
    std::thread thread_{};

public:
    raw_server(int connections, Serve serve) : serve_(std::move(serve)) {
        thread_ = std::thread{[this, connections] {
            for (int i = 0; i < connections; ++i) {
                tcp::socket socket = acceptor_.accept();
                if (i + 1 == connections)
                    acceptor_.close();
                serve_(socket);
            }
        }};
    }
    raw_server(const raw_server&) = delete;
    raw_server& operator=(const raw_server&) = delete;
    ~raw_server() {
        tcp::socket last{context_}; // in case the thread still waits for a connection
        boost::system::error_code ignored;
        last.connect({asio::ip::address_v4::loopback(), port_}, ignored);
        last.close(ignored);
        thread_.join();
    }

    std::string url(const std::string& scheme, const std::string& host = "127.0.0.1") const {
        return scheme + "://" + host + ":" + std::to_string(port_) + "/";
    }
};

void read_headers(auto& stream) {
    std::string text;
    boost::system::error_code ignored;
    asio::read_until(stream, asio::dynamic_buffer(text), "\r\n\r\n", ignored);
}

void write(auto& stream, std::string_view text) {
    boost::system::error_code ignored;
    asio::write(stream, asio::buffer(text), ignored);
}

const promptlayer::track_prompt sample{.prompt_name = "support-response", .request_id = 12345};

// ---- The contract

TEST_CASE("beast: the transport fulfils the contract on one thread that runs the loop") {
    tls_servers servers;
    fixture f;
    f.tls.add_certificate_authority(asio::buffer(servers.ca_certificate()));
    const auto turn = [&] {
        f.context.restart();
        f.context.run_for(1ms);
    };
    const auto report = check_transport(f.transport, turn, {.tls = std::ref(servers)});
    INFO(to_string(report));
    CHECK(report.ok());
    CHECK(report.count(promptlayer::testing::verdict::skipped) <= 3); // poll, wakeup; IPv6 if there is none
}

TEST_CASE("beast: the transport fulfils the contract if several threads run the loop") {
    tls_servers servers;
    fixture f;
    f.tls.add_certificate_authority(asio::buffer(servers.ca_certificate()));
    const running threads{f.context, 3};
    const auto report = check_transport(
        f.transport, [] {},
        {.tls = std::ref(servers),
         .only = {"sends the method as it stands", "sends a body of 1 MiB",
                  "stops at a body far longer than the limit", "replaces a kept connection that was closed",
                  "keeps connections for 1,000 requests", "sends from 8 threads at once",
                  "cancels the requests in flight", "completes many requests in flight",
                  "sends from a completion", "completes each request once", "accepts a trusted certificate",
                  "rejects a certificate of an unknown CA"}});
    INFO(to_string(report));
    CHECK(report.ok());
    CHECK(report.count(promptlayer::testing::verdict::skipped) <= 1); // IPv6, on a machine without
}

TEST_CASE("beast: each request completes once if threads send and cancel at any moment") {
    const loopback_service server;
    fixture f;
    std::atomic<int> responses{0}, cancelled{0};
    {
        const running threads{f.context, 2};
        std::vector<std::thread> senders;
        for (int t = 0; t < 3; ++t)
            senders.emplace_back([&] {
                for (int i = 0; i < 100; ++i) {
                    f.transport.send(request_to(server), [&](transport_result outcome) {
                        CHECK((outcome || outcome.error().kind == failure::cancelled));
                        ++(outcome ? responses : cancelled);
                    });
                    if (i % 20 == 19)
                        f.transport.cancel();
                    else
                        std::this_thread::sleep_for(100us); // otherwise hardly any is delivered
                }
            });
        for (std::thread& sender : senders)
            sender.join();
    }
    CHECK(responses + cancelled == 300);
    CHECK(response_of(f.send(request_to(server))).status == 200);
}

// ---- Requests

TEST_CASE("beast: only Host and Content-Length are added, and Host is the first header") {
    const loopback_service server;
    fixture f;
    http_request request = request_to(server.base_url() + "/a?b", "");
    request.headers = {};
    response_of(f.send(request));
    request.headers = {{"hOST", "example.com"}};
    response_of(f.send(request));
    request.method = "GET";
    response_of(f.send(request));
    REQUIRE(server.requests().size() == 3);
    CHECK(server.requests()[0].headers ==
          std::vector<header>{{"Host", server.base_url().substr(7)}, {"Content-Length", "0"}});
    CHECK(server.requests()[1].headers ==
          std::vector<header>{{"hOST", "example.com"}, {"Content-Length", "0"}});
    CHECK(server.requests()[2].headers == std::vector<header>{{"hOST", "example.com"}});
}

TEST_CASE("beast: a response that arrives while the body is being sent is returned at once") {
    std::promise<void> done;
    const raw_server server{1, [&](tcp::socket& socket) { // reads no more than this
                                read_headers(socket);
                                write(socket, "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
                                done.get_future().wait();
                            }};
    fixture f;
    const auto start = steady_clock::now();
    const transport_result outcome =
        f.send(request_to(server.url("http"), std::string(16 * 1024 * 1024, 'x')));
    done.set_value();
    CHECK(response_of(outcome).status == 413);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("beast: a timeout within the TLS handshake is not delivered") {
    asio::io_context context;
    const tcp::acceptor silent{context,
                               {asio::ip::address_v4::loopback(), 0}}; // no TLS handshake comes about
    fixture f;
    http_request request =
        request_to("https://127.0.0.1:" + std::to_string(silent.local_endpoint().port()) + "/");
    request.timeout = 100ms;
    check_failure(f.send(request), failure::timeout, false);
    request.timeout = std::chrono::milliseconds::min();
    CHECK(failure_of(f.send(request)).kind == failure::timeout);
}

// ---- Responses

TEST_CASE("beast: headers are returned in order, without trailers") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 200 OK\r\nX-A: 1\r\nx-b:\r\nX-A: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3;ext=1\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
                       ending::keep_alive));
    fixture f;
    const http_response response = response_of(f.send(request_to(server)));
    CHECK(response.headers ==
          std::vector<header>{{"X-A", "1"}, {"x-b", ""}, {"X-A", "2"}, {"Transfer-Encoding", "chunked"}});
    CHECK(response.body == "abc");
    CHECK(response_of(f.send(request_to(server))).status == 200);
    CHECK(server.connections() == 1);
}

TEST_CASE("beast: more than 256 KiB of headers or trailers are a failure") {
    loopback_service server;
    fixture f;
    const auto lines = [](int count) {
        std::string text;
        for (int i = 0; i < count; ++i)
            text += "X-Line: " + std::string(1014, 'x') + "\r\n"; // 1 KiB
        return text;
    };
    server.respond(raw("HTTP/1.1 200 OK\r\n" + lines(250) + "Content-Length: 0\r\n\r\n"));
    CHECK(response_of(f.send(request_to(server))).headers.size() == 251);
    std::string read_line_by_line = "HTTP/1.1 200 OK\r\nX: " + std::string(489, 'x') +
                                    "\r\n"; // 511 bytes: each read of 512 goes one into the next line
    for (int i = 0; i < 520; ++i)
        read_line_by_line += "X: " + std::string(507, 'x') + "\r\n";
    for (const std::string& endless :
         {read_line_by_line + "Content-Length: 0\r\n\r\n",
          "HTTP/1.1 200 OK\r\n" + lines(257) + "Content-Length: 0\r\n\r\n",
          "HTTP/1.1 200 OK\r\nX-Long: " + std::string(1024 * 1024, 'x') + "\r\n\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + lines(1024) + "\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=" + std::string(1024 * 1024, 'x') +
              "\r\na\r\n0\r\n\r\n"}) {
        server.respond(raw(endless));
        check_failure(f.send(request_to(server)), failure::other, true);
    }
}

TEST_CASE("beast: a body over the limit is returned with one byte more than allowed") {
    loopback_service server;
    fixture f;
    http_request request = request_to(server);
    request.max_response_bytes = 4;
    for (const char* text : {"HTTP/1.1 401 No\r\nContent-Length: 6\r\n\r\nabcdef",
                             "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n",
                             "HTTP/1.1 401 No\r\n\r\nabcdef"}) {
        server.respond(raw(text));
        const http_response response = response_of(f.send(request));
        CHECK(response.status == 401);
        CHECK(response.body == "abcde");
    }
}

TEST_CASE("beast: endless informational responses are a failure, and their headers count") {
    loopback_service server;
    fixture f;
    const auto many = [](int count, const std::string& lines) {
        std::string text;
        for (int i = 0; i < count; ++i)
            text += "HTTP/1.1 103 E\r\n" + lines + "\r\n";
        return text;
    };
    const std::string ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const std::string line = "X-Line: " + std::string(1000, 'x') + "\r\n";
    server.respond(raw(many(200, line) + ok));
    CHECK(response_of(f.send(request_to(server))).body == "ok");
    for (const std::string& endless : {many(300, line), many(20'000, "")}) {
        server.respond(raw(endless + ok));
        check_failure(f.send(request_to(server)), failure::other, true);
    }
    for (int i = 0; i < 5; ++i) { // the timeout may expire after one of them is read
        server.respond(raw(many(10'000, ""), ending::keep_alive));
        http_request request = request_to(server);
        request.timeout = 10ms;
        CHECK(failure_of(f.send(request)).kind == failure::timeout);
    }
}

TEST_CASE("beast: a response with a transfer coding other than chunked is a failure") {
    loopback_service server;
    fixture f;
    for (const char* coding : {"gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked"}) {
        server.respond(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + std::string{coding} +
                           "\r\n\r\n5\r\nHELLO\r\n0\r\n\r\n"));
        check_failure(f.send(request_to(server)), failure::other, true);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"));
    CHECK(response_of(f.send(request_to(server))).body == "a");
}

TEST_CASE("beast: 101 is a response, and its connection is not used again") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ending::keep_alive));
    fixture f;
    CHECK(response_of(f.send(request_to(server))).status == 101);
    CHECK(response_of(f.send(request_to(server))).status == 200);
    CHECK(server.connections() == 2);
}

// ---- Connections

TEST_CASE("beast: at most the given number of connections is kept") {
    const loopback_service server;
    const auto connections = [&](std::optional<std::size_t> max_idle,
                                 std::optional<std::size_t> max_in_flight, int requests = 3) {
        const std::size_t before = server.connections();
        fixture f{max_idle};
        if (max_in_flight)
            f.transport.max_in_flight(*max_in_flight);
        for (int round = 0; round < 2; ++round) {
            int responses = 0;
            for (int i = 0; i < requests; ++i)
                f.transport.send(request_to(server),
                                 [&](transport_result outcome) { responses += outcome ? 1 : 0; });
            f.run();
            CHECK(responses == requests);
        }
        return server.connections() - before;
    };
    CHECK(connections(8, 1) == 3);
    CHECK(connections(1, 8) == 5);
    CHECK(connections(0, 8) == 6);
    CHECK(connections({}, 8) == 3); // without a number, as many as are in flight
    CHECK(connections({}, 1) == 5);
    CHECK(connections({}, {}, 9) == 10); // else 8
}

TEST_CASE("beast: a connection is not used again a minute after its last response") {
    silent_listener listener;
    promptlayer::detail::beast_connection connection{"", listener.context.get_executor()};
    connection.socket.connect(listener.acceptor.local_endpoint());
    connection.idle_since = steady_clock::now() - 60s;
    CHECK_FALSE(connection.is_usable());
    connection.idle_since += 30s;
    CHECK(connection.is_usable());
}

TEST_CASE("beast: an idle connection that the server closed does not replace another") {
    loopback_service closes, one, other;
    fixture f{2};
    response_of(f.send(request_to(one)));
    scripted_response last;
    last.ending = ending::close_unannounced;
    closes.respond(last);
    response_of(f.send(request_to(closes)));
    std::this_thread::sleep_for(50ms); // until it is closed
    response_of(f.send(request_to(other)));
    response_of(f.send(request_to(one)));
    CHECK(one.connections() == 1);
}

TEST_CASE("beast: bytes on an idle connection are not the next response") {
    std::promise<void> idle, written;
    int connections = 0;
    const raw_server server{2, [&](tcp::socket& socket) {
                                read_headers(socket);
                                write(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                                if (++connections > 1)
                                    return;
                                idle.get_future().wait();
                                write(socket, "HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n");
                                written.set_value();
                            }};
    fixture f;
    CHECK(response_of(f.send(request_to(server.url("http"), ""))).body == "ok");
    idle.set_value();
    written.get_future().wait();
    CHECK(response_of(f.send(request_to(server.url("http"), ""))).body == "ok");
}

TEST_CASE("beast: a request is sent again, once, if its kept connection ends without a byte") {
    loopback_service server;
    fixture f;
    response_of(f.send(request_to(server)));
    server.respond(raw(""));
    CHECK(response_of(f.send(request_to(server))).status == 200);
    CHECK(server.requests().size() == 3);
    CHECK(server.connections() == 2);

    server.respond(raw("", ending::reset_before_response));
    server.respond(raw(""));
    check_failure(f.send(request_to(server)), failure::reset, true);
    CHECK(server.requests().size() == 5);
    CHECK(server.connections() == 3);
}

TEST_CASE("beast: a request is not sent again after a byte of a response, or on a new connection") {
    loopback_service server;
    fixture f;
    server.respond(raw(""));
    CHECK(failure_of(f.send(request_to(server))).kind == failure::reset);
    CHECK(server.requests().size() == 1);
    for (const char* start : {"H", "HTTP/1.1 100 Continue\r\n\r\n"}) {
        const std::size_t before = server.requests().size();
        response_of(f.send(request_to(server)));
        server.respond(raw(start));
        CHECK(failure_of(f.send(request_to(server))).kind == failure::reset);
        CHECK(server.requests().size() == before + 2);
    }
}

TEST_CASE("beast: a request that is sent again without a connection is maybe delivered") {
    const raw_server server{1, [](tcp::socket& socket) {
                                read_headers(socket);
                                write(socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                                read_headers(socket);
                            }};
    fixture f;
    const http_request request = request_to(server.url("http"), "");
    CHECK(response_of(f.send(request)).status == 200);
    const std::string message = check_failure(f.send(request), failure::connect, true);
    CHECK(message.starts_with(request.url.substr(0, request.url.size() - 1)));
}

#ifdef __linux__

TEST_CASE("beast: an address needs no DNS lookup") {
    const loopback_service server;
    const auto threads = [] {
        const std::filesystem::directory_iterator begin{"/proc/self/task"};
        return std::distance(begin, std::filesystem::directory_iterator{});
    };
    fixture f;
    const auto before = threads();
    response_of(f.send(request_to(server)));
    CHECK(threads() == before);
    static_cast<void>(f.send(request_to("http://localhost:" + std::to_string(server.port()) + "/")));
    CHECK(threads() == before + 1); // for DNS lookups
}

#endif

TEST_CASE("beast: an empty completion is accepted") {
    const loopback_service server;
    fixture f;
    f.transport.send(request_to(server), nullptr);
    f.run();
    CHECK(server.requests().size() == 1);
}

// ---- Lifetime

TEST_CASE("beast: the destructor and an assignment cancel the requests of a transport") {
    loopback_service server;
    server.respond(late());
    server.respond(late());
    ssl::context tls{ssl::context::tls_client};
    asio::io_context context;
    int cancelled = 0;
    const auto count = [&](transport_result outcome) {
        cancelled += !outcome && outcome.error().kind == failure::cancelled ? 1 : 0;
    };
    std::optional<beast_transport> transport{std::in_place, context, tls};
    const auto start = steady_clock::now();
    transport->send(request_to(server), count);
    while (server.requests().size() < 1)
        context.run_for(1ms);
    *transport = beast_transport{context, tls};
    context.run();
    CHECK(cancelled == 1);
    context.restart();
    beast_transport moved{std::move(*transport)};
    moved.send(request_to(server), count);
    while (server.requests().size() < 2)
        context.run_for(1ms);
    transport.reset(); // moved from, so it has no request
    context.run_for(20ms);
    CHECK(cancelled == 1);
    { const beast_transport destroyed{std::move(moved)}; }
    context.run();
    CHECK(cancelled == 2);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("beast: the destructor of the context ends requests in flight in every state") {
    loopback_service server;
    server.respond(late());
    tls_servers servers;
    int ended = 0;
    {
        ssl::context tls{ssl::context::tls_client};
        asio::io_context context;
        promptlayer::client client{config_of(server), beast_transport{context, tls}};
        const auto count = [&](promptlayer::result<track_response> outcome) {
            CHECK((!outcome && outcome.error().failure == failure::cancelled));
            ++ended;
        };
        client.track_prompt(sample, count); // waits for its response
        while (server.requests().empty())
            context.run_for(1ms);
        for (int steps = 0; steps < 6; ++steps) { // some look up a host, some connect, some do a handshake
            client.transport().send(request_to(servers(certificate::good, server.port())),
                                    [](transport_result) {});
            context.restart();
            context.poll_one();
        }
        client.track_prompt(sample, count); // not started
        async_track_prompt(client, sample, asio::bind_executor(context, count));
    }
    CHECK(ended == 2);
}

TEST_CASE("beast: the TLS context can be configured later, and destroyed before the transport") {
    const loopback_service server;
    tls_servers servers;
    asio::io_context context;
    std::optional<ssl::context> tls{ssl::context::tls_client};
    beast_transport transport{context.get_executor(), *tls};
    tls->add_certificate_authority(asio::buffer(servers.ca_certificate()));
    tls.reset();
    std::optional<transport_result> outcome;
    transport.send(request_to(servers(certificate::good, server.port()) + "/rest/track-prompt"),
                   [&](transport_result result) { outcome.emplace(std::move(result)); });
    context.run();
    REQUIRE(outcome);
    CHECK(response_of(*outcome).status == 200);
}

// ---- TLS

TEST_CASE("beast: verify mode and callback of the TLS context do not weaken verification") {
    const loopback_service server;
    tls_servers servers;
    fixture f;
    f.tls.add_certificate_authority(asio::buffer(servers.ca_certificate()));
    f.tls.set_verify_mode(ssl::verify_none);
    f.tls.set_verify_callback([](bool, ssl::verify_context&) { return true; });
    const auto message_for = [&](certificate shown) {
        return check_failure(f.send(request_to(servers(shown, server.port()) + "/")), failure::tls, false);
    };
    CHECK(message_for(certificate::self_signed).find("self") != std::string::npos);
    CHECK(message_for(certificate::wrong_host).find("mismatch") != std::string::npos);
    CHECK(message_for(certificate::expired).find("expired") != std::string::npos);
    CHECK(server.requests().empty());
}

TEST_CASE("beast: the TLS handshake names a host, but no address") {
    std::vector<std::string> hellos;
    fixture f;
    {
        const raw_server server{2, [&](tcp::socket& socket) {
                                    hellos.emplace_back(4096, '\0');
                                    socket.read_some(asio::buffer(hellos.back()));
                                }};
        for (const char* host : {"localhost", "127.0.0.1"}) {
            check_failure(f.send(request_to(server.url("https", host))), failure::connect,
                          false); // the server closes
        }
    }
    REQUIRE(hellos.size() == 2);
    CHECK(hellos[0].find("localhost") != std::string::npos);
    CHECK(hellos[1].find("127.0.0.1") == std::string::npos);
}

TEST_CASE("beast: the end of a TLS handshake is failure::connect, a server without TLS failure::tls") {
    int connections = 0;
    const raw_server server{3, [&](tcp::socket& socket) {
                                char hello = 0;
                                socket.receive(
                                    asio::buffer(&hello, 1)); // the rest is unread, so close sends a reset
                                if (++connections == 2)
                                    socket.shutdown(tcp::socket::shutdown_send);
                                else if (connections == 3)
                                    write(socket, "HTTP/1.1 400 Bad Request\r\n\r\n");
                                if (connections > 1) {
                                    std::string rest;
                                    boost::system::error_code end;
                                    asio::read(socket, asio::dynamic_buffer(rest), end);
                                }
                            }};
    fixture f;
    for (const failure kind : {failure::connect, failure::connect, failure::tls}) {
        check_failure(f.send(request_to(server.url("https"))), kind, false);
    }
}

TEST_CASE("beast: bytes after a response over TLS are not the next response") {
    for (const bool later : {false, true}) {
        tls_context tls;
        std::promise<void> idle, written;
        int connections = 0;
        const raw_server server{
            2, [&](tcp::socket& socket) {
                boost::system::error_code ignored;
                auto stream = tls.accept(socket);
                read_headers(stream);
                const std::string_view ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                const std::string_view unasked = "HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n";
                if (++connections > 1)
                    return write(stream, ok);
                socket.set_option(tcp::no_delay{true}, ignored);
                if (later) {
                    write(stream, ok);
                    idle.get_future().wait();
                    write(stream, unasked);
                    written.set_value();
                } else { // two records that are written to the socket at once
                    SSL* const handle = stream.native_handle();
                    BIO* const memory = BIO_new(BIO_s_mem());
                    SSL_set_bio(handle, SSL_get_rbio(handle), memory);
                    SSL_write(handle, ok.data(), static_cast<int>(ok.size()));
                    SSL_write(handle, unasked.data(), static_cast<int>(unasked.size()));
                    char* records = nullptr;
                    const long size = BIO_get_mem_data(memory, &records);
                    write(socket, {records, static_cast<std::size_t>(size)});
                }
                std::string rest;
                asio::read(socket, asio::dynamic_buffer(rest), ignored); // until the client closes
            }};
        fixture f;
        f.tls.add_certificate_authority(asio::buffer(tls.ca_pem));
        CHECK(response_of(f.send(request_to(server.url("https"), ""))).body == "ok");
        if (later) {
            idle.set_value();
            written.get_future().wait();
        }
        CHECK(response_of(f.send(request_to(server.url("https"), ""))).body == "ok");
    }
}

TEST_CASE("beast: a body over TLS without a length needs a close_notify") {
    tls_context tls;
    bool sends_close_notify = true;
    const raw_server server{2, [&](tcp::socket& socket) {
                                boost::system::error_code ignored;
                                auto stream = tls.accept(socket);
                                read_headers(stream);
                                write(stream, "HTTP/1.1 200 OK\r\n\r\nhello");
                                if (std::exchange(sends_close_notify, false))
                                    stream.shutdown(ignored);
                            }};
    fixture f;
    f.tls.add_certificate_authority(asio::buffer(tls.ca_pem));
    CHECK(response_of(f.send(request_to(server.url("https"), ""))).body == "hello");
    check_failure(f.send(request_to(server.url("https"), "")), failure::reset, true);
}

// ---- Completion tokens

TEST_CASE("beast: a client tracks, and errors of the service have their type") {
    const loopback_service server;
    fixture f;
    promptlayer::config config = config_of(server);
    promptlayer::client client{config, std::ref(f.transport)};
    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, std::ref(f.transport)};
    int responses = 0;
    client.track_prompt(sample, [&](promptlayer::result<track_response> outcome) {
        CHECK(outcome);
        ++responses;
    });
    stranger.track_prompt(sample, [&](promptlayer::result<track_response> outcome) {
        REQUIRE_FALSE(outcome);
        CHECK(outcome.error().code == promptlayer::errc::unauthorized);
        ++responses;
    });
    f.run();
    CHECK(responses == 2);
}

TEST_CASE("asio: a client tracks with any completion token") {
    const loopback_service server;
    fixture f;
    promptlayer::client client{config_of(server), std::ref(f.transport)};

    std::future<promptlayer::result<track_response>> future =
        async_track_prompt(client, sample, asio::use_future);
    bool in_tuple = false;
    async_track_prompt(client, {.prompt_name = "a", .request_id = 1}, asio::as_tuple(asio::deferred))(
        [&](std::tuple<promptlayer::result<track_response>> outcome) {
            in_tuple = std::get<0>(outcome).has_value();
        });
    const promptlayer::track_prompt_view view{.prompt_name = "b", .request_id = 2};
    bool called = false;
    async_track_prompt(
        client, view, [&, only_moved = std::make_unique<int>()](promptlayer::result<track_response> outcome) {
            called = outcome.has_value();
        });
    auto deferred = async_track_prompt(client, sample, asio::deferred);
    f.run();
    CHECK(future.get());
    CHECK(in_tuple);
    CHECK(called);
    CHECK(server.requests().size() == 3); // the deferred request is not started

    bool started = false;
    std::move(deferred)([&](promptlayer::result<track_response> outcome) { started = outcome.has_value(); });
    f.run();
    CHECK(started);
    CHECK(promptlayer::async_call(client, sample, asio::use_future).wait_for(0s) ==
          std::future_status::timeout);
}

TEST_CASE("asio: an operation completes on the executor of its token, or of the transport") {
    const loopback_service server;
    fixture f;
    promptlayer::client client{config_of(server), std::ref(f.transport)};
    for (const char* name : {"support-response", ""}) { // one is sent, one is invalid
        const promptlayer::track_prompt request{.prompt_name = name, .request_id = 1};
        asio::io_context other;
        const auto strand = asio::make_strand(other);
        bool on_strand = false, on_transports = false;
        async_track_prompt(client, request,
                           asio::bind_executor(strand, [&](promptlayer::result<track_response> outcome) {
                               CHECK(outcome.has_value() == (*name != '\0'));
                               on_strand = strand.running_in_this_thread();
                           }));
        async_track_prompt(client, request, [&](promptlayer::result<track_response>) {
            on_transports = f.context.get_executor().running_in_this_thread();
        });
        CHECK_FALSE(on_strand);
        CHECK_FALSE(on_transports);
        std::thread runs{[&] { f.run(); }};
        other.run(); // has work until then
        runs.join();
        CHECK(on_strand);
        CHECK(on_transports);
    }
}

/// An allocator that counts its allocations.
template <class T>
struct counting {
    using value_type = T;
    std::size_t* count;

    explicit counting(std::size_t& counted) : count(&counted) {}
    template <class U>
    counting(const counting<U>& other) : count(other.count) {}

    T* allocate(std::size_t size) {
        ++*count;
        return std::allocator<T>{}.allocate(size);
    }
    void deallocate(T* memory, std::size_t size) { std::allocator<T>{}.deallocate(memory, size); }

    template <class U>
    bool operator==(const counting<U>& other) const {
        return count == other.count;
    }
};

TEST_CASE("asio: a completion is posted with the allocator of its token") {
    const loopback_service server;
    fixture f;
    promptlayer::client client{config_of(server), std::ref(f.transport)};
    std::size_t allocations = 0;
    bool called = false;
    const auto handler = [&](promptlayer::result<track_response> outcome) { called = outcome.has_value(); };
    async_track_prompt(
        client, sample,
        asio::bind_executor(f.context, asio::bind_allocator(counting<std::byte>{allocations}, handler)));
    f.run();
    CHECK(called);
    CHECK(allocations > 0);
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

TEST_CASE("asio: coroutines track at the same time and are destroyed with the context") {
    loopback_service server;
    ssl::context tls{ssl::context::tls_client};
    int done = 0, destroyed = 0;
    const auto counted = [&](int*) { ++destroyed; };
    {
        asio::io_context context;
        const auto track = [&]() -> asio::awaitable<void> {
            const std::unique_ptr<int, decltype(counted)> local{&done, counted};
            promptlayer::client client{config_of(server),
                                       beast_transport{co_await asio::this_coro::executor, tls}};
            for (int i = 0; i < 2; ++i) {
                const auto outcome = co_await async_track_prompt(client, sample, asio::use_awaitable);
                done += outcome ? 1 : 0;
            }
        };
        const auto rethrow = [](std::exception_ptr thrown) {
            if (thrown)
                std::rethrow_exception(thrown);
        };
        for (int i = 0; i < 3; ++i)
            asio::co_spawn(context, track, rethrow);
        context.run();
        CHECK(done == 6);
        CHECK(destroyed == 3);
        CHECK(server.connections() == 3);
        server.respond(late());
        asio::co_spawn(context, track, rethrow);
        context.restart();
        while (server.requests().size() < 7)
            context.run_for(1ms);
    }
    CHECK(done == 6);
    CHECK(destroyed == 4);
}

#endif

} // namespace
