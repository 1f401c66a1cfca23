#include <promptlayer/asio.hpp>
#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/conformance_tls.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/beast.hpp>

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

using namespace std::chrono_literals;
using promptlayer::async_track_prompt;
using promptlayer::beast_transport;
using promptlayer::failure;
using promptlayer::header;
using promptlayer::http_request;
using promptlayer::http_response;
using promptlayer::track_response;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::testing::certificate;
using promptlayer::testing::check_transport;
using promptlayer::testing::loopback_service;
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using promptlayer::testing::tls_servers;
using ending = scripted_response::connection_ending;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;
namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;

static_assert(promptlayer::AsyncTransport<beast_transport>);
static_assert(!promptlayer::Transport<beast_transport>);
static_assert(beast_transport::thread_safe);
static_assert(std::is_nothrow_move_constructible_v<beast_transport> &&
              std::is_nothrow_move_assignable_v<beast_transport>);
static_assert(!std::is_copy_constructible_v<beast_transport> && !std::is_copy_assignable_v<beast_transport>);

constexpr auto long_enough = std::chrono::milliseconds{20s};

/// A transport and the loop that it runs on.
struct fixture {
    ssl::context tls{ssl::context::tls_client};
    asio::io_context context{};
    beast_transport transport;

    explicit fixture(std::size_t max_idle_connections = 8) : transport(context, tls, max_idle_connections) {}

    /// Returns only if nothing but the request keeps `run` from returning.
    transport_result send(http_request request) {
        std::optional<transport_result> outcome;
        transport.send(std::move(request), [&](transport_result got) { outcome.emplace(std::move(got)); });
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

/// Takes one connection after the other on a thread, and does with each what `serve` does.
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
        tcp::socket last{context_}; // if one is still waited for
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

http_request to(std::string url, std::string body = R"({"prompt_name":"a","request_id":1})") {
    http_request request;
    request.method = "POST";
    request.url = std::move(url);
    request.headers = {{"X-API-KEY", "pl_loopback"}, {"Content-Type", "application/json"}};
    request.body = std::move(body);
    request.timeout = long_enough;
    request.max_response_bytes = 1024 * 1024;
    return request;
}

http_request to(const scripted_server& server) { return to(server.base_url() + "/rest/track-prompt"); }

http_response answer_of(transport_result outcome) {
    REQUIRE_MESSAGE(outcome.has_value(), (outcome ? std::string{} : outcome.error().message));
    return *std::move(outcome);
}

transport_failure failure_of(transport_result outcome) {
    REQUIRE_FALSE(outcome.has_value());
    return std::move(outcome).error();
}

scripted_response raw(std::string bytes, ending then = ending::close_unannounced) {
    scripted_response answer;
    answer.raw = std::move(bytes);
    answer.ending = then;
    return answer;
}

scripted_response late() {
    scripted_response answer;
    answer.delay = long_enough;
    return answer;
}

promptlayer::config config_of(const scripted_server& server) {
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    return config;
}

const promptlayer::track_prompt sample{.prompt_name = "support-response", .request_id = 12345};

// ---- The contract

TEST_CASE("beast: the contract is kept on one thread that turns the loop") {
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
    CHECK(report.count(promptlayer::testing::verdict::skipped) <= 1); // IPv6, on a machine without
}

TEST_CASE("beast: the contract is kept where several threads run the loop") {
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

TEST_CASE("beast: sending and cancelling from many threads at any moment completes every request once") {
    const loopback_service server;
    fixture f;
    std::atomic<int> answered{0}, cancelled{0};
    {
        const running threads{f.context, 2};
        std::vector<std::thread> senders;
        for (int t = 0; t < 3; ++t)
            senders.emplace_back([&] {
                for (int i = 0; i < 100; ++i) {
                    f.transport.send(to(server), [&](transport_result got) {
                        CHECK((got || got.error().kind == failure::cancelled));
                        ++(got ? answered : cancelled);
                    });
                    if (i % 20 == 19)
                        f.transport.cancel();
                    else
                        std::this_thread::sleep_for(100us); // else hardly one is answered
                }
            });
        for (std::thread& sender : senders)
            sender.join();
    }
    CHECK(answered + cancelled == 300);
    CHECK(answer_of(f.send(to(server))).status == 200);
}

// ---- Requests

TEST_CASE("beast: what would arrive as something else is refused, and nothing is sent") {
    const loopback_service server;
    fixture f;
    const auto refused = [&](auto change) {
        http_request request = to(server);
        change(request);
        const transport_failure failed = failure_of(f.send(request));
        CHECK(failed.kind == failure::other);
        CHECK_FALSE(failed.maybe_delivered);
        CHECK_FALSE(failed.message.empty());
        CHECK(failed.message.find("Injected") == failed.message.npos);
    };
    for (const std::string_view evil : {std::string_view{"\r\nInjected: 1"}, std::string_view{"\rInjected"},
                                        std::string_view{"\nInjected"}, std::string_view{"\0Injected", 9}}) {
        refused([&](http_request& r) { r.headers[0].value += evil; });
        refused([&](http_request& r) { r.headers[0].name += evil; });
        refused([&](http_request& r) { r.method += evil; });
        refused([&](http_request& r) { r.url += evil; });
    }
    refused([](http_request& r) { r.method = ""; });
    refused([](http_request& r) { r.method = "GET /other"; });
    refused([](http_request& r) { r.headers[0].name = ""; });
    refused([](http_request& r) { r.headers[0].name = "X-API-KEY:"; });
    refused([](http_request& r) { r.headers[0].name = "X API KEY"; });
    refused([](http_request& r) { r.headers[0].value = "a\x7F"; });
    refused([](http_request& r) { r.headers.push_back({"content-length", "3"}); });
    refused([](http_request& r) { r.headers.push_back({"Transfer-Encoding", "chunked"}); });
    refused([](http_request& r) { r.headers.insert(r.headers.end(), 2, {"Host", "a"}); });
    CHECK(server.connections() == 0);
}

TEST_CASE("beast: it adds Host and Content-Length and nothing else, and the request's Host goes first") {
    const loopback_service server;
    fixture f;
    http_request request = to(server.base_url() + "/a?b", "");
    request.headers = {};
    answer_of(f.send(request));
    request.headers = {{"hOST", "example.com"}};
    answer_of(f.send(request));
    request.method = "GET";
    answer_of(f.send(request));
    REQUIRE(server.requests().size() == 3);
    CHECK(server.requests()[0].headers ==
          std::vector<header>{{"Host", server.base_url().substr(7)}, {"Content-Length", "0"}});
    CHECK(server.requests()[1].headers ==
          std::vector<header>{{"hOST", "example.com"}, {"Content-Length", "0"}});
    CHECK(server.requests()[2].headers == std::vector<header>{{"hOST", "example.com"}});
}

TEST_CASE("beast: an answer that comes while the body is still being sent is the answer, without delay") {
    std::promise<void> done;
    const raw_server server{1, [&](tcp::socket& socket) { // reads no more than this
                                read_headers(socket);
                                write(socket, "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
                                done.get_future().wait();
                            }};
    fixture f;
    const auto start = steady_clock::now();
    const transport_result outcome = f.send(to(server.url("http"), std::string(16 * 1024 * 1024, 'x')));
    done.set_value();
    CHECK(answer_of(outcome).status == 413);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("beast: a timeout before the request is sent is not maybe delivered") {
    asio::io_context context;
    const tcp::acceptor silent{context,
                               {asio::ip::address_v4::loopback(), 0}}; // no TLS handshake comes about
    fixture f;
    http_request request = to("https://127.0.0.1:" + std::to_string(silent.local_endpoint().port()) + "/");
    request.timeout = 100ms;
    const transport_failure failed = failure_of(f.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK_FALSE(failed.maybe_delivered);
    request.timeout = std::chrono::milliseconds::min();
    CHECK(failure_of(f.send(request)).kind == failure::timeout);
}

// ---- Answers

TEST_CASE("beast: headers of an answer keep their order, and trailers are none of them") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 200 OK\r\nX-A: 1\r\nx-b:\r\nX-A: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3;ext=1\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
                       ending::keep_alive));
    fixture f;
    const http_response answer = answer_of(f.send(to(server)));
    CHECK(answer.headers ==
          std::vector<header>{{"X-A", "1"}, {"x-b", ""}, {"X-A", "2"}, {"Transfer-Encoding", "chunked"}});
    CHECK(answer.body == "abc");
    CHECK(answer_of(f.send(to(server))).status == 200);
    CHECK(server.connections() == 1);
}

TEST_CASE("beast: headers up to 256 KiB are taken, longer ones are a failure, and so are endless trailers") {
    loopback_service server;
    fixture f;
    const auto lines = [](int count) {
        std::string text;
        for (int i = 0; i < count; ++i)
            text += "X-Line: " + std::string(1014, 'x') + "\r\n"; // 1 KiB
        return text;
    };
    server.respond(raw("HTTP/1.1 200 OK\r\n" + lines(250) + "Content-Length: 0\r\n\r\n"));
    CHECK(answer_of(f.send(to(server))).headers.size() == 251);
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
        const transport_failure failed = failure_of(f.send(to(server)));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
    }
}

TEST_CASE("beast: a body over the limit is returned with one byte more than allowed, also if chunked") {
    loopback_service server;
    fixture f;
    http_request request = to(server);
    request.max_response_bytes = 4;
    for (const char* answer :
         {"HTTP/1.1 401 No\r\nContent-Length: 6\r\n\r\nabcdef",
          "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n",
          "HTTP/1.1 401 No\r\n\r\nabcdef"}) {
        server.respond(raw(answer));
        const http_response got = answer_of(f.send(request));
        CHECK(got.status == 401);
        CHECK(got.body == "abcde");
    }
}

TEST_CASE("beast: interim answers without end are a failure in time, and their headers count") {
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
    CHECK(answer_of(f.send(to(server))).body == "ok");
    for (const std::string& endless : {many(300, line), many(20'000, "")}) {
        server.respond(raw(endless + ok));
        const transport_failure failed = failure_of(f.send(to(server)));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
    }
    for (int i = 0; i < 5; ++i) { // the time may be over with one of them read
        server.respond(raw(many(10'000, ""), ending::keep_alive));
        http_request request = to(server);
        request.timeout = 10ms;
        CHECK(failure_of(f.send(request)).kind == failure::timeout);
    }
}

TEST_CASE("beast: an answer with a transfer coding other than chunked is a failure") {
    loopback_service server;
    fixture f;
    for (const char* coding : {"gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked"}) {
        server.respond(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + std::string{coding} +
                           "\r\n\r\n5\r\nHELLO\r\n0\r\n\r\n"));
        const transport_failure failed = failure_of(f.send(to(server)));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"));
    CHECK(answer_of(f.send(to(server))).body == "a");
}

TEST_CASE("beast: 101 is an answer, and its connection is not used again") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ending::keep_alive));
    fixture f;
    CHECK(answer_of(f.send(to(server))).status == 101);
    CHECK(answer_of(f.send(to(server))).status == 200);
    CHECK(server.connections() == 2);
}

TEST_CASE("beast: bytes after an answer are not taken for the next one") {
    loopback_service server;
    const std::string ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    server.respond(raw(ok + "HTTP/1.1 500 Not asked for\r\nContent-Length: 0\r\n\r\n", ending::keep_alive));
    fixture f;
    CHECK(answer_of(f.send(to(server))).body == "ok");
    CHECK(answer_of(f.send(to(server))).status == 200);
    CHECK(server.connections() == 2);
}

// ---- Connections

TEST_CASE("beast: connections are kept up to the number that was given") {
    const loopback_service server;
    const auto connections = [&](std::size_t max_idle) {
        const std::size_t before = server.connections();
        fixture f{max_idle};
        for (int round = 0; round < 2; ++round) {
            int answered = 0;
            for (int i = 0; i < 3; ++i)
                f.transport.send(to(server), [&](transport_result got) { answered += got ? 1 : 0; });
            f.run();
            CHECK(answered == 3);
        }
        return server.connections() - before;
    };
    CHECK(connections(8) == 3);
    CHECK(connections(1) == 5);
    CHECK(connections(0) == 6);
}

TEST_CASE("beast: an idle connection that cannot be used any more takes no place of another") {
    loopback_service closes, one, other;
    fixture f{2};
    answer_of(f.send(to(one)));
    scripted_response last;
    last.ending = ending::close_unannounced;
    closes.respond(last);
    answer_of(f.send(to(closes)));
    std::this_thread::sleep_for(50ms); // until it is closed
    answer_of(f.send(to(other)));
    answer_of(f.send(to(one)));
    CHECK(one.connections() == 1);
}

TEST_CASE("beast: a kept connection is for its own host and port only") {
    const loopback_service one, other;
    fixture f;
    answer_of(f.send(to(one)));
    answer_of(f.send(to(other)));
    answer_of(f.send(to(one)));
    CHECK(one.requests().size() == 2);
    CHECK(one.connections() == 1);
    CHECK(other.connections() == 1);
}

TEST_CASE("beast: what a server says on an idle connection is not taken for the next answer") {
    std::promise<void> idle, said;
    int connections = 0;
    const raw_server server{2, [&](tcp::socket& socket) {
                                read_headers(socket);
                                write(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                                if (++connections > 1)
                                    return;
                                idle.get_future().wait();
                                write(socket, "HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n");
                                said.set_value();
                            }};
    fixture f;
    CHECK(answer_of(f.send(to(server.url("http"), ""))).body == "ok");
    idle.set_value();
    said.get_future().wait();
    CHECK(answer_of(f.send(to(server.url("http"), ""))).body == "ok");
}

TEST_CASE("beast: a request whose kept connection ends without a byte is sent again, once, on a new one") {
    loopback_service server;
    fixture f;
    answer_of(f.send(to(server)));
    server.respond(raw(""));
    CHECK(answer_of(f.send(to(server))).status == 200);
    CHECK(server.requests().size() == 3);
    CHECK(server.connections() == 2);

    server.respond(raw("", ending::reset_before_response));
    server.respond(raw(""));
    const transport_failure failed = failure_of(f.send(to(server)));
    CHECK(failed.kind == failure::reset);
    CHECK(failed.maybe_delivered);
    CHECK(server.requests().size() == 5);
    CHECK(server.connections() == 3);
}

TEST_CASE("beast: a request is not sent again once a byte of an answer came, nor on a first connection") {
    loopback_service server;
    fixture f;
    server.respond(raw(""));
    CHECK(failure_of(f.send(to(server))).kind == failure::reset);
    CHECK(server.requests().size() == 1);
    for (const char* begun : {"H", "HTTP/1.1 100 Continue\r\n\r\n"}) {
        const std::size_t before = server.requests().size();
        answer_of(f.send(to(server)));
        server.respond(raw(begun));
        CHECK(failure_of(f.send(to(server))).kind == failure::reset);
        CHECK(server.requests().size() == before + 2);
    }
}

TEST_CASE("beast: a request that was sent once and then finds no connection is maybe delivered") {
    const raw_server server{1, [](tcp::socket& socket) {
                                read_headers(socket);
                                write(socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                                read_headers(socket);
                            }};
    fixture f;
    const http_request request = to(server.url("http"), "");
    CHECK(answer_of(f.send(request)).status == 200);
    const transport_failure failed = failure_of(f.send(request));
    CHECK(failed.kind == failure::connect);
    CHECK(failed.maybe_delivered);
    CHECK(failed.message.find(request.url.substr(0, request.url.size() - 1)) == 0);
}

#ifdef __linux__

TEST_CASE("beast: an address is not looked up") {
    const loopback_service server;
    const auto threads = [] {
        const std::filesystem::directory_iterator begin{"/proc/self/task"};
        return std::distance(begin, std::filesystem::directory_iterator{});
    };
    fixture f;
    const auto before = threads();
    answer_of(f.send(to(server)));
    CHECK(threads() == before);
    static_cast<void>(f.send(to("http://localhost:" + std::to_string(server.port()) + "/")));
    CHECK(threads() == before + 1); // looks hosts up
}

#endif

TEST_CASE("beast: an empty completion is no harm") {
    const loopback_service server;
    fixture f;
    f.transport.send(to(server), nullptr);
    f.run();
    CHECK(server.requests().size() == 1);
}

// ---- Lifetime

TEST_CASE("beast: destroying a transport, or assigning to it, ends its requests as cancelled") {
    loopback_service server;
    server.respond(late());
    server.respond(late());
    ssl::context tls{ssl::context::tls_client};
    asio::io_context context;
    int cancelled = 0;
    const auto count = [&](transport_result got) {
        cancelled += !got && got.error().kind == failure::cancelled ? 1 : 0;
    };
    std::optional<beast_transport> transport{std::in_place, context, tls};
    const auto start = steady_clock::now();
    transport->send(to(server), count);
    while (server.requests().size() < 1)
        context.run_for(1ms);
    *transport = beast_transport{context, tls};
    context.run();
    CHECK(cancelled == 1);
    context.restart();
    beast_transport moved{std::move(*transport)};
    moved.send(to(server), count);
    while (server.requests().size() < 2)
        context.run_for(1ms);
    transport.reset(); // moved from: has none
    context.run_for(20ms);
    CHECK(cancelled == 1);
    { const beast_transport destroyed{std::move(moved)}; }
    context.run();
    CHECK(cancelled == 2);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("beast: destroying the context with requests in flight ends them, in whatever state they are") {
    loopback_service server;
    server.respond(late());
    tls_servers servers;
    int ended = 0;
    {
        ssl::context tls{ssl::context::tls_client};
        asio::io_context context;
        promptlayer::client client{config_of(server), beast_transport{context, tls}};
        const auto count = [&](promptlayer::result<track_response> got) {
            CHECK((!got && got.error().failure == failure::cancelled));
            ++ended;
        };
        client.track_prompt(sample, count); // waits for its answer
        while (server.requests().empty())
            context.run_for(1ms);
        for (int steps = 0; steps < 6; ++steps) { // some are looking up, some connecting, some shaking hands
            client.transport().send(to(servers(certificate::good, server.port())), [](transport_result) {});
            context.restart();
            context.poll_one();
        }
        client.track_prompt(sample, count); // not even begun
        async_track_prompt(client, sample, asio::bind_executor(context, count));
    }
    CHECK(ended == 2);
}

TEST_CASE("beast: the TLS context may go before the transport, and can be configured after it was made") {
    const loopback_service server;
    tls_servers servers;
    asio::io_context context;
    std::optional<ssl::context> tls{ssl::context::tls_client};
    beast_transport transport{context.get_executor(), *tls};
    tls->add_certificate_authority(asio::buffer(servers.ca_certificate()));
    tls.reset();
    std::optional<transport_result> outcome;
    transport.send(to(servers(certificate::good, server.port()) + "/rest/track-prompt"),
                   [&](transport_result got) { outcome.emplace(std::move(got)); });
    context.run();
    REQUIRE(outcome);
    CHECK(answer_of(*outcome).status == 200);
}

// ---- TLS

TEST_CASE("beast: a server is verified whatever the verify mode and callback of the TLS context") {
    const loopback_service server;
    tls_servers servers;
    fixture f;
    f.tls.add_certificate_authority(asio::buffer(servers.ca_certificate()));
    f.tls.set_verify_mode(ssl::verify_none);
    f.tls.set_verify_callback([](bool, ssl::verify_context&) { return true; });
    const auto why = [&](certificate shown) {
        const transport_failure failed = failure_of(f.send(to(servers(shown, server.port()) + "/")));
        CHECK(failed.kind == failure::tls);
        CHECK_FALSE(failed.maybe_delivered);
        return failed.message;
    };
    CHECK(why(certificate::self_signed).find("self") != std::string::npos);
    CHECK(why(certificate::wrong_host).find("mismatch") != std::string::npos);
    CHECK(why(certificate::expired).find("expired") != std::string::npos);
    CHECK(server.requests().empty());
}

TEST_CASE("beast: the TLS handshake names the host, but no address") {
    std::vector<std::string> hellos;
    fixture f;
    {
        const raw_server server{2, [&](tcp::socket& socket) {
                                    hellos.emplace_back(4096, '\0');
                                    socket.read_some(asio::buffer(hellos.back()));
                                }};
        for (const char* host : {"localhost", "127.0.0.1"}) {
            const transport_failure failed = failure_of(f.send(to(server.url("https", host))));
            CHECK(failed.kind == failure::connect); // the server goes away
            CHECK_FALSE(failed.maybe_delivered);
        }
    }
    REQUIRE(hellos.size() == 2);
    CHECK(hellos[0].find("localhost") != std::string::npos);
    CHECK(hellos[1].find("127.0.0.1") == std::string::npos);
}

TEST_CASE(
    "beast: a peer that goes away within the TLS handshake is failure::connect, one that does not speak "
    "TLS failure::tls") {
    int connections = 0;
    const raw_server server{3, [&](tcp::socket& socket) {
                                char hello = 0;
                                socket.receive(asio::buffer(&hello, 1)); // with the rest unread, close resets
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
        const transport_failure failed = failure_of(f.send(to(server.url("https"))));
        CHECK(failed.kind == kind);
        CHECK_FALSE(failed.maybe_delivered);
    }
}

/// What a server needs to speak TLS as 127.0.0.1, and whom the client is to trust.
struct certified_context {
    promptlayer::detail::identity authority = promptlayer::detail::make_identity("authority", "", nullptr);
    std::string trusted = promptlayer::detail::pem_of(authority.certificate.get());
    ssl::context context{ssl::context::tls_server};

    certified_context() {
        const auto identity = promptlayer::detail::make_identity("127.0.0.1", "IP:127.0.0.1", &authority);
        const std::string chain = promptlayer::detail::pem_of(identity.certificate.get());
        const std::string key = promptlayer::detail::pem_of(identity.key.get());
        context.use_certificate_chain(asio::buffer(chain));
        context.use_private_key(asio::buffer(key), ssl::context::pem);
    }
};

TEST_CASE(
    "beast: bytes after an answer are not taken for the next one over TLS either, in one segment with it "
    "or later") {
    for (const bool later : {false, true}) {
        certified_context certified;
        std::promise<void> idle, said;
        int connections = 0;
        const raw_server server{
            2, [&](tcp::socket& socket) {
                ssl::stream<tcp::socket&> stream{socket, certified.context};
                boost::system::error_code ignored;
                stream.handshake(ssl::stream_base::server, ignored);
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
                    said.set_value();
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
        f.tls.add_certificate_authority(asio::buffer(certified.trusted));
        CHECK(answer_of(f.send(to(server.url("https"), ""))).body == "ok");
        if (later) {
            idle.set_value();
            said.get_future().wait();
        }
        CHECK(answer_of(f.send(to(server.url("https"), ""))).body == "ok");
    }
}

TEST_CASE("beast: over TLS a body until close is whole only if the server says that it ends") {
    certified_context certified;
    bool says_so = true;
    const raw_server server{2, [&](tcp::socket& socket) {
                                ssl::stream<tcp::socket&> stream{socket, certified.context};
                                boost::system::error_code ignored;
                                stream.handshake(ssl::stream_base::server, ignored);
                                read_headers(stream);
                                write(stream, "HTTP/1.1 200 OK\r\n\r\nhello");
                                if (std::exchange(says_so, false))
                                    stream.shutdown(ignored);
                            }};
    fixture f;
    f.tls.add_certificate_authority(asio::buffer(certified.trusted));
    CHECK(answer_of(f.send(to(server.url("https"), ""))).body == "hello");
    const transport_failure failed = failure_of(f.send(to(server.url("https"), "")));
    CHECK(failed.kind == failure::reset);
    CHECK(failed.maybe_delivered);
}

// ---- Completion tokens

TEST_CASE("beast: a client tracks over it with a handler, and errors of the service come back typed") {
    const loopback_service server;
    fixture f;
    promptlayer::config config = config_of(server);
    promptlayer::client client{config, std::ref(f.transport)};
    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, std::ref(f.transport)};
    int answered = 0;
    client.track_prompt(sample, [&](promptlayer::result<track_response> got) {
        CHECK(got);
        ++answered;
    });
    stranger.track_prompt(sample, [&](promptlayer::result<track_response> got) {
        REQUIRE_FALSE(got);
        CHECK(got.error().code == promptlayer::errc::unauthorized);
        ++answered;
    });
    f.run();
    CHECK(answered == 2);
}

TEST_CASE("beast: a client tracks with whatever token") {
    const loopback_service server;
    fixture f;
    promptlayer::client client{config_of(server), std::ref(f.transport)};

    std::future<promptlayer::result<track_response>> future =
        async_track_prompt(client, sample, asio::use_future);
    bool in_tuple = false;
    async_track_prompt(client, {.prompt_name = "a", .request_id = 1}, asio::as_tuple(asio::deferred))(
        [&](std::tuple<promptlayer::result<track_response>> got) {
            in_tuple = std::get<0>(got).has_value();
        });
    const promptlayer::track_prompt_view view{.prompt_name = "b", .request_id = 2};
    bool called = false;
    async_track_prompt(client, view,
                       [&, only_moved = std::make_unique<int>()](promptlayer::result<track_response> got) {
                           called = got.has_value();
                       });
    auto deferred = async_track_prompt(client, sample, asio::deferred);
    f.run();
    CHECK(future.get());
    CHECK(in_tuple);
    CHECK(called);
    CHECK(server.requests().size() == 3); // the deferred one is not started

    bool started = false;
    std::move(deferred)([&](promptlayer::result<track_response> got) { started = got.has_value(); });
    f.run();
    CHECK(started);
    CHECK(promptlayer::async_call(client, sample, asio::use_future).wait_for(0s) ==
          std::future_status::timeout);
}

TEST_CASE("beast: an operation completes on the executor of its token, else on the transport's, and never "
          "within its start") {
    const loopback_service server;
    fixture f;
    promptlayer::client client{config_of(server), std::ref(f.transport)};
    for (const char* name : {"support-response", ""}) { // one is answered, one refused unsent
        const promptlayer::track_prompt request{.prompt_name = name, .request_id = 1};
        asio::io_context other;
        const auto strand = asio::make_strand(other);
        bool on_strand = false, on_transports = false;
        async_track_prompt(client, request,
                           asio::bind_executor(strand, [&](promptlayer::result<track_response> got) {
                               CHECK(got.has_value() == (*name != '\0'));
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

/// Counts what it allocates.
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

TEST_CASE("beast: the completion is posted with the allocator of its token") {
    const loopback_service server;
    fixture f;
    promptlayer::client client{config_of(server), std::ref(f.transport)};
    std::size_t allocations = 0;
    bool called = false;
    const auto handler = [&](promptlayer::result<track_response> got) { called = got.has_value(); };
    async_track_prompt(
        client, sample,
        asio::bind_executor(f.context, asio::bind_allocator(counting<std::byte>{allocations}, handler)));
    f.run();
    CHECK(called);
    CHECK(allocations > 0);
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

TEST_CASE("beast: coroutines track at the same time, and go with the context that is destroyed") {
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
                const auto got = co_await async_track_prompt(client, sample, asio::use_awaitable);
                done += got ? 1 : 0;
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
