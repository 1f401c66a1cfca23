#include <promptlayer/transports/httplib.hpp>

#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_server.hpp>

#ifdef PROMPTLAYER_TEST_TLS // by a build that has OpenSSL 3, for httplib, too
#include <promptlayer/testing/conformance_tls.hpp>
#endif

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/config.hpp>

#ifdef __linux__
#include <sys/resource.h>
#endif

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

static thread_local long allocations = -1; // until one fails; none fails below 0

// Not inlined, or GCC takes `free` for the wrong counterpart of `new`.
BOOST_NOINLINE void* operator new(std::size_t size) {
    if (void* const memory = allocations >= 0 && allocations-- == 0 ? nullptr : std::malloc(size))
        return memory;
    throw std::bad_alloc{};
}

BOOST_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
BOOST_NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

/// cpp-httplib leaks what the resolver has found where an allocation fails next.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:create_client_socket"; }

namespace {

using namespace std::chrono_literals;
using promptlayer::failure;
using promptlayer::find_header;
using promptlayer::header;
using promptlayer::http_request;
using promptlayer::http_response;
using promptlayer::httplib_transport;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::testing::loopback_server;
using promptlayer::testing::scripted_response;
using ending = scripted_response::connection_ending;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

const int minor_version = promptlayer::detail::httplib_minor();

static_assert(promptlayer::Transport<httplib_transport>);
static_assert(!promptlayer::AsyncTransport<httplib_transport>);
static_assert(std::is_nothrow_move_constructible_v<httplib_transport> &&
              std::is_nothrow_move_assignable_v<httplib_transport>);
static_assert(!std::is_copy_constructible_v<httplib_transport> &&
              !std::is_copy_assignable_v<httplib_transport>);

constexpr auto long_enough = std::chrono::milliseconds{20s};

http_request to(std::string url) {
    http_request request;
    request.method = "POST";
    request.url = std::move(url);
    request.headers = {{"X-API-KEY", "pl_loopback"}, {"Content-Type", "application/json"}};
    request.body = R"({"prompt_name":"a","request_id":1})";
    request.timeout = long_enough;
    request.max_response_bytes = 1024 * 1024;
    return request;
}

http_request to(const loopback_server& server) { return to(server.base_url() + "/rest/track-prompt"); }

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

scripted_response late(std::chrono::milliseconds delay) {
    scripted_response answer;
    answer.delay = delay;
    return answer;
}

/// Takes connections when it is told to, and says nothing.
struct silent_listener {
    boost::asio::io_context context{};
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};

    std::string authority() const { return "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()); }
};

/// Calls `cancel` from another thread once `in_flight` is true.
template <class InFlight>
transport_result cancelled_when(InFlight in_flight, httplib_transport& transport,
                                const http_request& request) {
    std::thread other{[&] {
        while (!in_flight())
            std::this_thread::yield();
        transport.cancel();
    }};
    transport_result outcome = transport.send(request);
    other.join();
    return outcome;
}

#ifdef PROMPTLAYER_TEST_TLS
/// The authority of the kit's servers in a file, as httplib wants it.
class authority_file {
    std::filesystem::path path_;

public:
    explicit authority_file(const promptlayer::testing::tls_servers& servers)
        : path_(std::filesystem::temp_directory_path() /
                ("promptlayer_httplib_" + std::to_string(loopback_server{}.port()) + ".pem")) {
        std::ofstream{path_} << servers.authority();
    }
    authority_file(const authority_file&) = delete;
    authority_file& operator=(const authority_file&) = delete;
    ~authority_file() { std::filesystem::remove(path_); }

    void trust(httplib::Client& client) const { client.set_ca_cert_path(path_.string()); }
};
#endif

TEST_CASE("httplib: a transport keeps its contract, but for what httplib cannot") {
    promptlayer::testing::conformance_options options;
    options.skip["unknown host"] = "httplib does not tell a failed DNS lookup from a failed connection";
    options.skip["103 Early Hints before the answer"] = "httplib takes it for the answer";
    options.skip["order of the answer's headers"] = "httplib keeps headers in a map";
    if (minor_version < 15)
        options.skip["headers that are added"] = "httplib adds Accept and User-Agent";
    if (minor_version < 19)
        options.skip["empty header of the answer"] = "httplib leaves it out";
    if (minor_version >= 18 && minor_version < 52)
        options.skip["headers of the answer"] = "httplib changes the order of repeats";
    if (minor_version >= 24 && minor_version < 52)
        options.skip["path and query"] = "httplib changes queries";
#ifdef PROMPTLAYER_TEST_TLS
    promptlayer::testing::tls_servers servers;
    const authority_file authority{servers};
    options.tls = std::ref(servers);
    httplib_transport transport{[&](httplib::Client& client) { authority.trust(client); }};
#else
    httplib_transport transport;
#endif
    const auto report = promptlayer::testing::check_transport(transport, options);
    CHECK_MESSAGE(report.ok(), report);
}

TEST_CASE("httplib: a client tracks over it, and errors of the service come back typed") {
    const loopback_server server;
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    promptlayer::client client{config, httplib_transport{}};
    const auto tracked = client.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE(tracked);
    CHECK(tracked->success);

    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, httplib_transport{}};
    const auto refused = stranger.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == promptlayer::errc::unauthorized);
}

TEST_CASE("httplib: no header is added but Host and the length, and with an old httplib its Accept and "
          "User-Agent") {
    const loopback_server server;
    httplib_transport transport;
    http_request request = to(server);
    request.headers = {{"X-B", "1"}, {"X-A", " \t"}, {"X-B", "2"}};
    request.body.assign(100'000, 'x'); // large enough for a new httplib to ask for a 100 Continue
    answer_of(transport.send(request));
    REQUIRE(server.requests().size() == 1);
    std::vector<header> headers = server.requests()[0].headers;
    CHECK(*find_header(headers, "Host") == server.base_url().substr(7));
    CHECK(*find_header(headers, "Content-Length") == "100000");
    CHECK(find_header(headers, "X-A")->empty());
    CHECK(headers.size() == (minor_version < 14 ? 7 : 5));
    if (minor_version < 14) {
        CHECK(find_header(headers, "Accept"));
        CHECK(find_header(headers, "User-Agent"));
    }
}

TEST_CASE("httplib: a request that asks for 100 Continue says so once") {
    const loopback_server server;
    httplib_transport transport;
    http_request request = to(server);
    request.headers.push_back({"Expect", "100-continue"});
    CHECK(answer_of(transport.send(request)).status == 200);
    REQUIRE(server.requests().size() == 1);
    CHECK(server.requests()[0].headers.size() == (minor_version < 14 ? 7 : 5));
}

TEST_CASE("httplib: what would be sent as something else is refused, and nothing is sent") {
    const loopback_server server;
    httplib_transport transport;
    const auto refused = [&](auto change) {
        http_request request = to(server);
        change(request);
        const transport_failure failed = failure_of(transport.send(request));
        CHECK(failed.kind == failure::other);
        CHECK_FALSE(failed.maybe_delivered);
        CHECK(failed.message.find("Injected") == failed.message.npos);
    };
    for (const std::string_view evil :
         {std::string_view{"\r\nInjected: 1"}, std::string_view{"\0Injected", 9}}) {
        refused([&](http_request& r) { r.headers[0].value += evil; });
        refused([&](http_request& r) { r.headers[0].name += evil; });
        refused([&](http_request& r) { r.method += evil; });
        refused([&](http_request& r) { r.url += evil; });
    }
    for (const char* url :
         {"", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:0/", "http://127.0.0.1/#fragment"})
        refused([&](http_request& r) { r.url = url; });
    refused([](http_request& r) { r.headers.push_back({"content-length", "3"}); });
    CHECK(server.connections() == 0);
}

TEST_CASE("httplib: an answer that is cut anywhere is never a success") {
    loopback_server server;
    for (const std::string whole :
         {"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n03\r\nfgh\r\n0\r\n\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8;x=y\r\nabcdefgh\r\n0\r\nA: b\r\n\r\n"}) {
        httplib_transport transport; // with no connection that the server is about to close
        for (std::size_t length = 0; length < whole.size(); ++length) {
            CAPTURE(whole.substr(0, length));
            server.respond(raw(whole.substr(0, length)));
            const transport_failure failed = failure_of(transport.send(to(server)));
            CHECK(failed.kind == failure::reset);
            CHECK(failed.maybe_delivered);
        }
        server.respond(raw(whole));
        CHECK(answer_of(transport.send(to(server))).body == "abcdefgh");
    }
}

TEST_CASE("httplib: a body whose end is in doubt is a failure") {
    loopback_server server;
    httplib_transport transport;
    for (const std::string answer :
         {"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
          "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
          "Transfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n0\r\n\r\n",
          "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
          "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
          "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
          "Transfer-Encoding: chunked\r\n\r\n3 5\r\nabc\r\n0\r\n\r\n",
          "Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
          "Transfer-Encoding: identity\r\n\r\nabc", "Content-Length: many\r\n\r\nabc",
          "Content-Length: -1\r\n\r\nabc", "Content-Length: 3x\r\n\r\nabc", "Content-Length : 3\r\n\r\nabc",
          "Content-Length: 99999999999999999999\r\n\r\nabc",
          "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"}) {
        CAPTURE(answer);
        server.respond(raw("HTTP/1.1 200 OK\r\n" + answer));
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK((failed.kind == failure::other || failed.kind == failure::reset));
        CHECK(failed.maybe_delivered);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"));
    CHECK(answer_of(transport.send(to(server))).body == "abc");
}

TEST_CASE("httplib: an interim answer but for 100 Continue is a failure, never the answer") {
    loopback_server server;
    httplib_transport transport;
    server.respond(raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                       ending::keep_alive));
    CHECK(answer_of(transport.send(to(server))).body == "ok");
    for (const char* method : {"POST", "HEAD"}) {
        http_request request = to(server);
        request.method = method;
        if (request.method == "HEAD")
            request.body.clear();
        server.respond(raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        const transport_failure failed = failure_of(transport.send(request));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
    }
}

TEST_CASE("httplib: a connection that the server will close is not used again") {
    loopback_server server;
    httplib_transport transport;
    for (const char* answer : {"200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n",
                               "204 No Content\r\nConnection: Close\r\n\r\n",
                               "200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, close\r\n\r\n"}) {
        server.respond(raw(std::string{"HTTP/1.1 "} + answer, ending::keep_alive));
        answer_of(transport.send(to(server)));
    }
    answer_of(transport.send(to(server)));
    CHECK(server.connections() == 4);
}

TEST_CASE("httplib: a chunked answer has its trailers left out, and is cut off beyond the limit") {
    loopback_server server;
    httplib_transport transport;
    const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.respond(raw(head + "3\r\nabc\r\n4;x\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n", ending::keep_alive));
    CHECK(answer_of(transport.send(to(server))) ==
          http_response{200, {{"Transfer-Encoding", "chunked"}}, "abcdefg"});
    http_request request = to(server);
    request.max_response_bytes = 5;
    server.respond(raw(head + "3\r\nabc\r\nF4240\r\ndefghijk", ending::keep_alive)); // the rest never comes
    CHECK(answer_of(transport.send(request)).body == "abcdef");
}

TEST_CASE("httplib: a 304 has no body, whatever its headers say") {
    loopback_server server;
    httplib_transport transport;
    for (const char* framing : {"", "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"}) {
        server.respond(
            raw("HTTP/1.1 304 Not Modified\r\n" + std::string{framing} + "\r\n", ending::keep_alive));
        CHECK(answer_of(transport.send(to(server))).status == 304);
    }
}

TEST_CASE("httplib: what comes after an answer is not the next answer") {
    loopback_server server;
    httplib_transport transport;
    const std::string evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (const char* answer : {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                               "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"}) {
        // Too much for httplib to have read it all with the answer.
        server.respond(raw(answer + std::string(100'000, ' ') + evil, ending::keep_alive));
        answer_of(transport.send(to(server)));
        CHECK(answer_of(transport.send(to(server))).body.find("evil") == std::string::npos);
    }
    CHECK(server.requests().size() == 4);
}

TEST_CASE("httplib: requests to one origin share a connection, also after the transport has moved") {
    const loopback_server server;
    const loopback_server other;
    int configured = 0;
    httplib_transport first{[&](httplib::Client&) { ++configured; }};
    answer_of(first.send(to(server)));
    httplib_transport second{std::move(first)};
    answer_of(second.send(to(server)));
    first = std::move(second);
    answer_of(first.send(to(server)));
    CHECK(server.connections() == 1);
    CHECK(configured == 1);
    answer_of(first.send(to(other)));
    answer_of(first.send(to(server)));
    CHECK(other.requests().size() == 1);
    CHECK(server.connections() == 2);
    CHECK(configured == 3);

    const transport_failure failed = failure_of(second.send(to(server))); // moved from
    CHECK(failed.kind == failure::other);
    CHECK_FALSE(failed.maybe_delivered);
    second.cancel();
    CHECK(server.requests().size() == 4);
}

TEST_CASE("httplib: the user's function does not change what the contract needs") {
    loopback_server server;
    const loopback_server elsewhere;
    httplib_transport transport{[](httplib::Client& client) {
        client.set_follow_location(true);
        client.set_decompress(true);
        client.set_keep_alive(false);
        client.set_read_timeout(1ms);
    }};
    scripted_response answer = late(20ms);
    answer.response = {302, {{"Location", elsewhere.base_url()}, {"Content-Encoding", "gzip"}}, "not gzip"};
    server.respond(answer);
    CHECK(answer_of(transport.send(to(server))).body == "not gzip");
    answer_of(transport.send(to(server)));
    CHECK(elsewhere.connections() == 0);
    CHECK(server.connections() == 1);
}

TEST_CASE("httplib: a function of the user's that throws is failure::other, not delivered") {
    const loopback_server server;
    bool throws = true;
    httplib_transport transport{[&](httplib::Client&) {
        if (throws)
            throw std::runtime_error{"no"};
    }};
    const transport_failure failed = failure_of(transport.send(to(server)));
    CHECK(failed.kind == failure::other);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(failed.message == "no");
    CHECK(server.connections() == 0);
    throws = false;
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("httplib: cancel and the timeout count while the user's function runs, and nothing is sent") {
    const loopback_server server;
    std::function<void()> meanwhile;
    httplib_transport transport{[&](httplib::Client&) { meanwhile(); }};
    http_request request = to(server);
    meanwhile = [&] { transport.cancel(); };
    transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::cancelled);
    CHECK_FALSE(failed.maybe_delivered);
    request.url.replace(7, 9, "localhost"); // another origin, and so another client
    request.timeout = 50ms;
    meanwhile = [] { std::this_thread::sleep_for(100ms); };
    failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(server.connections() == 0);
}

TEST_CASE("httplib: memory that runs out is a failure, and leaves a transport that works") {
    const loopback_server server;
    const http_request request = to(server);
    bool failed = true;
    for (long i = 0; failed; ++i) {
        httplib_transport transport;
        allocations = i;
        const transport_result outcome = transport.send(request);
        failed = std::exchange(allocations, -1) < 0;
        CHECK((outcome || outcome.error().kind == failure::other));
        answer_of(transport.send(request));
    }
}

TEST_CASE("httplib: the timeout of one request is not that of the next on the same connection") {
    loopback_server server;
    httplib_transport transport;
    http_request brief = to(server);
    brief.timeout = 200ms;
    answer_of(transport.send(brief));
    server.respond(late(400ms));
    CHECK(answer_of(transport.send(to(server))).status == 200);
    server.respond(late(long_enough));
    const auto start = steady_clock::now();
    CHECK(failure_of(transport.send(brief)).kind == failure::timeout);
    CHECK(steady_clock::now() - start < 10s);
    CHECK(server.connections() == 1);
}

TEST_CASE("httplib: a timeout of zero or less fails at once and sends nothing") {
    const loopback_server server;
    httplib_transport transport;
    http_request request = to(server);
    for (const auto timeout : {0ms, -1ms, std::chrono::milliseconds::min()}) {
        request.timeout = timeout;
        const transport_failure failed = failure_of(transport.send(request));
        CHECK(failed.kind == failure::timeout);
        CHECK_FALSE(failed.maybe_delivered);
    }
    CHECK(server.connections() == 0);
}

TEST_CASE("httplib: cancel ends the request in flight at once, and only that one") {
    loopback_server server;
    httplib_transport transport;
    transport.cancel(); // nothing in flight: nothing happens
    answer_of(transport.send(to(server)));
    server.respond(late(long_enough));
    const auto start = steady_clock::now();
    const auto arrived = [&] { return server.requests().size() == 2; };
    const transport_failure failed = failure_of(cancelled_when(arrived, transport, to(server)));
    CHECK(failed.kind == failure::cancelled);
    CHECK(failed.maybe_delivered);
    CHECK(steady_clock::now() - start < 10s);
    transport.cancel();
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("httplib: a body that ends with the connection is not whole when the timeout ended that") {
    loopback_server server;
    scripted_response endless = raw("HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'x'));
    endless.byte_delay = 1ms;
    server.respond(endless);
    httplib_transport transport;
    http_request request = to(server);
    request.timeout = 500ms; // the headers are there long before
    CHECK(failure_of(transport.send(request)).kind == failure::timeout);
}

TEST_CASE("httplib: cancel from another thread at any moment leaves a transport that works") {
    const loopback_server server;
    httplib_transport transport;
    std::atomic<bool> done{false};
    std::thread other{[&] {
        while (!done) {
            transport.cancel();
            std::this_thread::yield();
        }
    }};
    int cancelled = 0;
    for (int i = 0; i < 100 || (cancelled == 0 && i < 10'000); ++i) {
        const transport_result outcome = transport.send(to(server));
        CHECK((outcome || outcome.error().kind == failure::cancelled));
        cancelled += outcome ? 0 : 1;
    }
    done = true;
    other.join();
    CHECK(cancelled > 0);
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("httplib: a transport may be destroyed before it is used, and right after a request") {
    const loopback_server server;
    { const httplib_transport unused; }
    for (int i = 0; i < 20; ++i) {
        httplib_transport transport;
        CHECK(answer_of(transport.send(to(server))).status == 200);
    }
}

#ifdef __linux__ // where connections beyond the backlog of a listener wait

/// No connection to it is ever made: its backlog is full.
struct full_listener : silent_listener {
    std::vector<tcp::socket> waiting{};

    full_listener() {
        acceptor.listen(0);
        for (int i = 0; i < 4; ++i) {
            waiting.emplace_back(context, tcp::v4());
            waiting.back().async_connect(acceptor.local_endpoint(), [](boost::system::error_code) {});
        }
    }
};

TEST_CASE("httplib: a connection that does not come about ends at the timeout, not delivered") {
    const full_listener listener;
    httplib_transport transport;
    http_request request = to("http://" + listener.authority() + "/");
    request.timeout = 200ms;
    const auto start = steady_clock::now();
    const transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(steady_clock::now() - start >= 200ms);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("httplib: without a second handle for a connection, which the timeout needs, there is none") {
    const silent_listener listener;
    httplib_transport transport;
    rlimit before{};
    getrlimit(RLIMIT_NOFILE, &before);
    const int next = dup(0);
    close(next);
    const rlimit one_more{static_cast<rlim_t>(next) + 1, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &one_more);
    const transport_result outcome = transport.send(to("http://" + listener.authority() + "/"));
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(failure_of(outcome).kind == failure::other);
}

TEST_CASE("httplib: cancel ends an attempt to connect, not delivered") {
    const full_listener listener;
    const loopback_server server;
    httplib_transport transport;
    const auto begun = steady_clock::now() + 50ms;
    const auto trying = [&] { return steady_clock::now() > begun; };
    const transport_failure failed =
        failure_of(cancelled_when(trying, transport, to("http://" + listener.authority() + "/")));
    CHECK(failed.kind == failure::cancelled);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(steady_clock::now() - begun < 10s);
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

#endif

#ifndef _WIN32

std::atomic<int> pipe_signals{0};

TEST_CASE("httplib: SIGPIPE does not reach the program, whose handling of signals stays as it was") {
    struct sigaction counting {};
    struct sigaction before {};
    counting.sa_handler = [](int) { ++pipe_signals; };
    sigaction(SIGPIPE, &counting, &before);
    sigset_t mask_before{};
    pthread_sigmask(SIG_SETMASK, nullptr, &mask_before);
    {
        // The peer is gone with the first bytes of a body that takes many writes.
        silent_listener listener;
        httplib_transport transport;
        http_request request = to("http://" + listener.authority() + "/");
        request.body.assign(64 * 1024 * 1024, 'x');
        for (int i = 0; i < 20; ++i) {
            std::thread peer{[&] { listener.acceptor.accept().close(); }};
            CHECK(failure_of(transport.send(request)).kind == failure::reset);
            peer.join();
        }
#ifdef PROMPTLAYER_TEST_TLS
        request.url = "https://" + listener.authority() + "/";
        std::optional<tcp::socket> open;
        const auto connected = [&] {
            open = listener.acceptor.accept();
            return true;
        };
        CHECK(failure_of(cancelled_when(connected, transport, request)).kind == failure::cancelled);
#endif
    }
    CHECK(pipe_signals == 0);
    sigset_t mask_after{};
    sigset_t pending{};
    pthread_sigmask(SIG_SETMASK, nullptr, &mask_after);
    sigpending(&pending);
    CHECK(sigismember(&mask_after, SIGPIPE) == sigismember(&mask_before, SIGPIPE));
    CHECK(sigismember(&pending, SIGPIPE) == 0);
    sigaction(SIGPIPE, &before, nullptr);
}

TEST_CASE("httplib: the transport's thread takes no signal of the program") {
    struct sigaction ignoring {};
    struct sigaction before {};
    ignoring.sa_handler = [](int) {};
    sigaction(SIGUSR1, &ignoring, &before);
    silent_listener listener;
    httplib_transport transport;
    std::optional<tcp::socket> open;
    const auto connected = [&] {
        open = listener.acceptor.accept();
        return true;
    };
    std::ignore =
        cancelled_when(connected, transport, to("http://" + listener.authority() + "/")); // by that thread
    sigset_t user{};
    sigset_t mask_before{};
    sigset_t pending{};
    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &user, &mask_before);
    kill(getpid(), SIGUSR1);
    std::this_thread::sleep_for(20ms); // for another thread to take it
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1) == 1);
    pthread_sigmask(SIG_SETMASK, &mask_before, nullptr);
    sigaction(SIGUSR1, &before, nullptr);
}

#endif

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("httplib: requests over TLS share a connection, and one that was closed is replaced") {
    loopback_server server;
    promptlayer::testing::tls_servers servers;
    const authority_file authority{servers};
    httplib_transport transport{[&](httplib::Client& client) { authority.trust(client); }};
    const std::string url = servers(promptlayer::testing::certificate::good, server.port());
    for (int i = 0; i < 3; ++i)
        CHECK(answer_of(transport.send(to(url + "/rest/track-prompt"))).status == 200);
    CHECK(server.connections() == 1);
    scripted_response closed;
    closed.ending = ending::close;
    server.respond(closed);
    CHECK(answer_of(transport.send(to(url + "/rest/track-prompt"))).status == 200);
    CHECK(answer_of(transport.send(to(url + "/rest/track-prompt"))).status == 200);
    CHECK(server.connections() == 2);
    CHECK(server.requests().size() == 5);
}

TEST_CASE("httplib: over TLS a body that only the connection ends is a failure, one with a length is not") {
    loopback_server server;
    promptlayer::testing::tls_servers servers;
    const authority_file authority{servers};
    httplib_transport transport{[&](httplib::Client& client) { authority.trust(client); }};
    const std::string url = servers(promptlayer::testing::certificate::good, server.port());
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nhalf of"));
    const transport_failure failed = failure_of(transport.send(to(url + "/")));
    CHECK(failed.kind == failure::reset);
    CHECK(failed.maybe_delivered);
    server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"));
    CHECK(answer_of(transport.send(to(url + "/"))).body == "whole");
}

TEST_CASE("httplib: what comes after an answer over TLS is not the next answer") {
    loopback_server server;
    promptlayer::testing::tls_servers servers;
    const authority_file authority{servers};
    httplib_transport transport{[&](httplib::Client& client) { authority.trust(client); }};
    const std::string url = servers(promptlayer::testing::certificate::good, server.port());
    const std::string evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (const char* answer :
         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 204 No Content\r\n\r\n"}) {
        server.respond(raw(answer + evil, ending::keep_alive));
        answer_of(transport.send(to(url + "/")));
        CHECK(answer_of(transport.send(to(url + "/"))).body != "evil");
    }
    CHECK(server.requests().size() == 4);
}

TEST_CASE("httplib: a proxy that asks for a password is failure::connect, not delivered") {
    loopback_server proxy;
    httplib_transport transport{
        [&](httplib::Client& client) { client.set_proxy("127.0.0.1", proxy.port()); }};
    for (int i = 0; i < 2; ++i) {
        proxy.respond(raw("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                          ending::keep_alive));
        const transport_failure failed = failure_of(transport.send(to("https://localhost:1/")));
        CHECK(failed.kind == failure::connect);
        CHECK_FALSE(failed.maybe_delivered);
    }
}

TEST_CASE("httplib: a TLS handshake that sends_slowly ends at the timeout, not delivered") {
    silent_listener listener;
    std::atomic<bool> done{false};
    std::thread dripping{[&] {
        tcp::socket peer = listener.acceptor.accept();
        boost::system::error_code failed;
        boost::asio::write(peer, boost::asio::buffer("\x16\x03\x03\x40\x00\x02\x00\x3F\xFC", 9), failed);
        while (!done && !failed) { // of a hello of 16 KiB
            boost::asio::write(peer, boost::asio::buffer("\x00", 1), failed);
            std::this_thread::sleep_for(20ms);
        }
    }};
    httplib_transport transport;
    http_request request = to("https://" + listener.authority() + "/");
    request.timeout = 300ms;
    const auto start = steady_clock::now();
    const transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(steady_clock::now() - start < 10s);
    done = true;
    dripping.join();
}

TEST_CASE("httplib: a request that is cancelled within the TLS handshake is not maybe delivered") {
    silent_listener listener;
    httplib_transport transport;
    std::optional<tcp::socket> open;
    const auto connected = [&] {
        open = listener.acceptor.accept();
        return true;
    };
    const auto start = steady_clock::now();
    const auto outcome = cancelled_when(connected, transport, to("https://" + listener.authority() + "/"));
    const transport_failure failed = failure_of(outcome);
    CHECK(failed.kind == failure::cancelled);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(steady_clock::now() - start < 10s);
}

#endif

#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(CPPHTTPLIB_SSL_ENABLED)

TEST_CASE("httplib: https without the macro for TLS is failure::tls, not delivered, and says which") {
    const loopback_server server;
    httplib_transport transport;
    const transport_failure failed =
        failure_of(transport.send(to("https://" + server.base_url().substr(7) + "/")));
    CHECK(failed.kind == failure::tls);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(failed.message.find("CPPHTTPLIB_OPENSSL_SUPPORT") != failed.message.npos);
    CHECK(server.connections() == 0);
}

#endif

} // namespace
