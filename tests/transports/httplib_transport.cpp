#include <promptlayer/transports/httplib.hpp>

#include "../support/transport_tests.hpp"

#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_service.hpp>

#ifdef PROMPTLAYER_TEST_TLS // by a build that has OpenSSL 3, for httplib, too
#include <promptlayer/testing/conformance_tls.hpp>
#endif

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
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
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

static thread_local long allocations = -1; // that succeed before one fails; below 0 none fails
static std::atomic<bool> allocation_failed{false};

// Not inlined, or GCC takes `free` for the wrong counterpart of `new`.
BOOST_NOINLINE void* operator new(std::size_t size) {
    if (allocations >= 0 && allocations-- == 0)
        allocation_failed = true;
    else if (void* const memory = std::malloc(size))
        return memory;
    throw std::bad_alloc{};
}

BOOST_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
BOOST_NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

/// cpp-httplib leaks the addresses of a DNS lookup if the next allocation fails.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:create_client_socket"; }

namespace {

using namespace transport_tests;
using promptlayer::httplib_transport;

const int minor_version = promptlayer::detail::httplib_minor();

static_assert(is_synchronous_adapter<httplib_transport>);

#ifdef PROMPTLAYER_TEST_TLS
/// Holds the CA of the servers of the kit in a file, which httplib needs.
class authority_file {
    std::filesystem::path path_;

public:
    explicit authority_file(const promptlayer::testing::tls_servers& servers)
        : path_(std::filesystem::temp_directory_path() /
                ("promptlayer_httplib_" + std::to_string(loopback_service{}.port()) + ".pem")) {
        std::ofstream{path_} << servers.ca_certificate();
    }
    authority_file(const authority_file&) = delete;
    authority_file& operator=(const authority_file&) = delete;
    ~authority_file() { std::filesystem::remove(path_); }

    void trust(httplib::Client& client) const { client.set_ca_cert_path(path_.string()); }
};

/// A server with TLS, and a transport that trusts its CA.
struct tls_fixture {
    loopback_service server{};
    promptlayer::testing::tls_servers servers{};
    const authority_file authority{servers};
    httplib_transport transport{[this](httplib::Client& client) { authority.trust(client); }};
    const std::string url = servers(promptlayer::testing::certificate::good, server.port());

    transport_result send() { return transport.send(request_to(url + "/rest/track-prompt")); }
};
#endif

TEST_CASE("httplib: the transport fulfils the contract, except for limits of httplib") {
    promptlayer::testing::conformance_options options;
    options.skip["reports an unknown host"] =
        "httplib does not tell a failed DNS lookup from a failed connection";
    options.skip["skips 103 Early Hints"] = "httplib takes it for the final response";
    options.skip["returns response headers in order"] = "httplib keeps headers in a map";
    if (minor_version < 15)
        options.skip["adds only headers that the connection needs"] = "httplib adds Accept and User-Agent";
    if (minor_version < 19)
        options.skip["returns an empty response header"] = "httplib leaves it out";
    if (minor_version >= 18 && minor_version < 52)
        for (const char* const name : {"headers of the answer", "cookies"})
            options.skip[name] = "httplib changes the order of repeats";
    if (minor_version >= 24 && minor_version < 52)
        options.skip["sends the path and query as they stand"] = "httplib changes queries";
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

TEST_CASE("httplib: a client tracks, and errors of the service have their type") {
    check_client<httplib_transport>();
}

TEST_CASE("httplib: a connection is kept if the transport is moved") { check_move(httplib_transport{}); }

TEST_CASE("httplib: a timeout of zero or less fails at once and sends nothing") {
    check_timeout_of_zero<httplib_transport>();
}

TEST_CASE("httplib: cancel from another thread at any moment leaves a transport that works") {
    check_cancel_at_any_moment<httplib_transport>();
}

TEST_CASE("httplib: a body over the limit is returned at once, with one byte more than allowed") {
    check_body_limit<httplib_transport>(
        {"Content-Length: 1000000\r\n\r\n", "\r\n", "Transfer-Encoding: chunked\r\n\r\nF4240\r\n"});
}

TEST_CASE("httplib: only Host and Content-Length are added, and Accept and User-Agent before 0.14.1") {
    const loopback_service server;
    httplib_transport transport;
    http_request request = request_to(server);
    request.headers = {{"X-B", "1"}, {"X-A", " \t"}, {"X-B", "2"}};
    request.body.assign(100'000, 'x'); // large enough for a new httplib to ask for a 100 Continue
    response_of(transport.send(request));
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

TEST_CASE("httplib: `Expect: 100-continue` is sent once") {
    const loopback_service server;
    httplib_transport transport;
    http_request request = request_to(server);
    request.headers.push_back({"Expect", "100-continue"});
    CHECK(response_of(transport.send(request)).status == 200);
    REQUIRE(server.requests().size() == 1);
    CHECK(server.requests()[0].headers.size() == (minor_version < 14 ? 7 : 5));
}

TEST_CASE("httplib: a response that is cut anywhere is failure::reset") {
    loopback_service server;
    for (const std::string whole :
         {"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n03\r\nfgh\r\n0\r\n\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8;x=y\r\nabcdefgh\r\n0\r\nA: b\r\n\r\n"}) {
        httplib_transport transport; // with no connection that the server is about to close
        for (std::size_t length = 0; length < whole.size(); ++length) {
            CAPTURE(whole.substr(0, length));
            server.respond(raw(whole.substr(0, length)));
            check_failure(transport.send(request_to(server)), failure::reset, true);
        }
        server.respond(raw(whole));
        CHECK(response_of(transport.send(request_to(server))).body == "abcdefgh");
    }
}

TEST_CASE("httplib: a response that does not say clearly where its body ends is a failure") {
    loopback_service server;
    httplib_transport transport;
    for (const std::string response :
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
        CAPTURE(response);
        server.respond(raw("HTTP/1.1 200 OK\r\n" + response));
        const transport_failure failed = failure_of(transport.send(request_to(server)));
        CHECK((failed.kind == failure::other || failed.kind == failure::reset));
        CHECK(failed.maybe_delivered);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"));
    CHECK(response_of(transport.send(request_to(server))).body == "abc");
}

TEST_CASE("httplib: a line of a chunked body has at most 256 KiB") {
    loopback_service server;
    httplib_transport transport;
    for (const std::size_t size : {256U * 1024, 256U * 1024 + 1}) {
        const std::string extension(size - std::string_view{"3;x=\r\n"}.size(), 'x');
        server.respond(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=" + extension +
                           "\r\nabc\r\n0\r\n\r\n"));
        CHECK(transport.send(request_to(server)).has_value() == (size == 256 * 1024));
    }
}

TEST_CASE("httplib: an informational response other than 100 Continue is a failure") {
    loopback_service server;
    httplib_transport transport;
    server.respond(raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                       ending::keep_alive));
    CHECK(response_of(transport.send(request_to(server))).body == "ok");
    for (const char* method : {"POST", "HEAD"}) {
        http_request request = request_to(server);
        request.method = method;
        if (request.method == "HEAD")
            request.body.clear();
        server.respond(raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        check_failure(transport.send(request), failure::other, true);
    }
}

TEST_CASE("httplib: a connection that a response ends is not used again") {
    loopback_service server;
    httplib_transport transport;
    for (const char* response : {"200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n",
                                 "204 No Content\r\nConnection: Close\r\n\r\n",
                                 "200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, close\r\n\r\n"}) {
        server.respond(raw(std::string{"HTTP/1.1 "} + response, ending::keep_alive));
        response_of(transport.send(request_to(server)));
    }
    response_of(transport.send(request_to(server)));
    CHECK(server.connections() == 4);
}

TEST_CASE("httplib: trailers of a chunked response are not returned") {
    loopback_service server;
    httplib_transport transport;
    const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.respond(raw(head + "3\r\nabc\r\n4;x\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n", ending::keep_alive));
    CHECK(response_of(transport.send(request_to(server))) ==
          http_response{200, {{"Transfer-Encoding", "chunked"}}, "abcdefg"});
    http_request request = request_to(server);
    request.max_response_bytes = 5;
    server.respond(raw(head + "3\r\nabc\r\nF4240\r\ndefghijk", ending::keep_alive)); // the rest never comes
    CHECK(response_of(transport.send(request)).body == "abcdef");
}

TEST_CASE("httplib: a 304 has no body, whatever its headers say") {
    loopback_service server;
    httplib_transport transport;
    for (const char* framing : {"", "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"}) {
        server.respond(
            raw("HTTP/1.1 304 Not Modified\r\n" + std::string{framing} + "\r\n", ending::keep_alive));
        CHECK(response_of(transport.send(request_to(server))).status == 304);
    }
}

TEST_CASE("httplib: bytes after a response are not the next response") {
    loopback_service server;
    httplib_transport transport;
    const std::string evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (const char* response : {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                                 "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"}) {
        // So many bytes that httplib cannot have read them all with the response.
        server.respond(raw(response + std::string(100'000, ' ') + evil, ending::keep_alive));
        response_of(transport.send(request_to(server)));
        CHECK(response_of(transport.send(request_to(server))).body.find("evil") == std::string::npos);
    }
    CHECK(server.requests().size() == 4);
}

TEST_CASE("httplib: the configure function is called for each new origin") {
    const loopback_service one;
    const loopback_service other;
    int calls = 0;
    httplib_transport transport{[&](httplib::Client&) { ++calls; }};
    for (const loopback_service* const server : {&one, &one, &other, &one})
        response_of(transport.send(request_to(*server)));
    CHECK(calls == 3);
    CHECK(one.connections() == 2);
}

TEST_CASE("httplib: the configure function cannot change what the contract requires") {
    loopback_service server;
    const loopback_service elsewhere;
    httplib_transport transport{[](httplib::Client& client) {
        client.set_follow_location(true);
        client.set_decompress(true);
        client.set_keep_alive(false);
        client.set_read_timeout(1ms);
    }};
    scripted_response response = late(20ms);
    response.response = {302, {{"Location", elsewhere.base_url()}, {"Content-Encoding", "gzip"}}, "not gzip"};
    server.respond(response);
    CHECK(response_of(transport.send(request_to(server))).body == "not gzip");
    response_of(transport.send(request_to(server)));
    CHECK(elsewhere.connections() == 0);
    CHECK(server.connections() == 1);
}

#ifdef CPPHTTPLIB_OPENSSL_SUPPORT

TEST_CASE("httplib: a request that httplib sends again with a digest has no response") {
    loopback_service server;
    httplib_transport transport{[](httplib::Client& client) { client.set_digest_auth("user", "password"); }};
    server.respond(raw("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\", "
                       "qop=\"auth\", algorithm=MD5\r\nContent-Length: 2\r\n\r\nno",
                       ending::keep_alive));
    check_failure(transport.send(request_to(server)), failure::other, true);
    CHECK(response_of(transport.send(request_to(server))).status == 200);
}

#endif

TEST_CASE("httplib: an exception of the configure function is failure::other, not delivered") {
    check_configure_throws(httplib_transport{[](httplib::Client&) { throw std::runtime_error{"no"}; }});
}

TEST_CASE("httplib: a request that ends while the configure function runs is not sent") {
    const loopback_service server;
    std::function<void()> action;
    httplib_transport transport{[&](httplib::Client&) { action(); }};
    http_request request = request_to(server);
    action = [&] { transport.cancel(); };
    check_failure(transport.send(request), failure::cancelled, false);
    request.url.replace(7, 9, "localhost"); // another origin, and so another client
    request.timeout = 50ms;
    action = [] { std::this_thread::sleep_for(100ms); };
    check_failure(transport.send(request), failure::timeout, false);
    CHECK(server.connections() == 0);
}

TEST_CASE("httplib: a failed allocation is a failure, and the transport still works") {
    const loopback_service server;
    const http_request request = request_to(server);
    bool failed = true;
    for (long count = 0; failed; ++count) {
        httplib_transport transport{
            [&](httplib::Client&) { allocations = count; }}; // of the thread that sends
        allocation_failed = false;
        const transport_result outcome = transport.send(request);
        failed = allocation_failed;
        CHECK((outcome || outcome.error().kind == failure::other));
    }
}

TEST_CASE("httplib: each request on a connection has its own timeout") {
    loopback_service server;
    httplib_transport transport;
    http_request brief = request_to(server);
    brief.timeout = 200ms;
    response_of(transport.send(brief));
    server.respond(late(400ms));
    CHECK(response_of(transport.send(request_to(server))).status == 200);
    server.respond(late(long_enough));
    const auto start = steady_clock::now();
    CHECK(failure_of(transport.send(brief)).kind == failure::timeout);
    CHECK(steady_clock::now() - start < 10s);
    CHECK(server.connections() == 1);
}

TEST_CASE("httplib: a body that the timeout cuts is not a complete one") {
    loopback_service server;
    scripted_response endless = raw("HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'x'));
    endless.byte_delay = 1ms;
    server.respond(endless);
    httplib_transport transport;
    http_request request = request_to(server);
    request.timeout = 500ms; // the headers arrive long before
    CHECK(failure_of(transport.send(request)).kind == failure::timeout);
}

TEST_CASE("httplib: a transport may be destroyed unused and right after a request") {
    const loopback_service server;
    { const httplib_transport unused; }
    for (int i = 0; i < 20; ++i) {
        httplib_transport transport;
        CHECK(response_of(transport.send(request_to(server))).status == 200);
    }
}

#ifdef __linux__ // elsewhere a connection beyond the backlog of a listener is refused

/// Has a full backlog, so that no connection to it is made.
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

TEST_CASE("httplib: a timeout before there is a connection is not delivered") {
    const full_listener listener;
    httplib_transport transport;
    http_request request = request_to(listener.url("http"));
    request.timeout = 200ms;
    const auto start = steady_clock::now();
    check_failure(transport.send(request), failure::timeout, false);
    CHECK(steady_clock::now() - start >= 200ms);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("httplib: a connection without a second handle is a failure") {
    const silent_listener listener;
    httplib_transport transport;
    rlimit before{};
    getrlimit(RLIMIT_NOFILE, &before);
    const int next = dup(0);
    close(next);
    const rlimit one_more{static_cast<rlim_t>(next) + 1, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &one_more);
    const transport_result outcome = transport.send(request_to(listener.url("http")));
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(failure_of(outcome).kind == failure::other);
}

TEST_CASE("httplib: cancel ends an attempt to connect") {
    const full_listener listener;
    const loopback_service server;
    httplib_transport transport;
    const auto start = steady_clock::now() + 50ms;
    const auto trying = [&] { return steady_clock::now() > start; };
    check_failure(cancelled_when(trying, transport, request_to(listener.url("http"))), failure::cancelled,
                  false);
    CHECK(steady_clock::now() - start < 10s);
    CHECK(response_of(transport.send(request_to(server))).status == 200);
}

#endif

#ifndef _WIN32

std::atomic<int> pipe_signals{0};

TEST_CASE("httplib: SIGPIPE does not reach the program") {
    struct sigaction counting {};
    struct sigaction before {};
    counting.sa_handler = [](int) { ++pipe_signals; };
    sigaction(SIGPIPE, &counting, &before);
    sigset_t mask_before{};
    pthread_sigmask(SIG_SETMASK, nullptr, &mask_before);
    {
        // The peer closes within a body that takes many writes.
        silent_listener listener;
        httplib_transport transport;
        http_request request = request_to(listener.url("http"));
        request.body.assign(64 * 1024 * 1024, 'x');
        for (int i = 0; i < 20; ++i) {
            std::thread peer{[&] { listener.acceptor.accept().close(); }};
            CHECK(failure_of(transport.send(request)).kind == failure::reset);
            peer.join();
        }
#ifdef PROMPTLAYER_TEST_TLS
        request.url = listener.url("https");
        const auto connected = [&] { return listener.accept(); };
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

TEST_CASE("httplib: the thread of a request takes no signal of the program") {
    const loopback_service server;
    sigset_t mask{};
    httplib_transport transport{[&](httplib::Client&) { pthread_sigmask(SIG_SETMASK, nullptr, &mask); }};
    response_of(transport.send(request_to(server)));
    CHECK(sigismember(&mask, SIGUSR1) == 1);
}

#endif

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("httplib: a TLS connection is kept, and replaced if the server closes it") {
    tls_fixture tls;
    for (int i = 0; i < 3; ++i)
        CHECK(response_of(tls.send()).status == 200);
    CHECK(tls.server.connections() == 1);
    tls.server.respond(only(ending::close));
    CHECK(response_of(tls.send()).status == 200);
    CHECK(response_of(tls.send()).status == 200);
    CHECK(tls.server.connections() == 2);
    CHECK(tls.server.requests().size() == 5);
}

TEST_CASE("httplib: a body over TLS without a length is failure::reset") {
    tls_fixture tls;
    tls.server.respond(raw("HTTP/1.1 200 OK\r\n\r\nhalf of"));
    check_failure(tls.send(), failure::reset, true);
    tls.server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"));
    CHECK(response_of(tls.send()).body == "whole");
}

TEST_CASE("httplib: bytes after a response over TLS are not the next response") {
    tls_fixture tls;
    const std::string evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (const char* response :
         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 204 No Content\r\n\r\n"}) {
        tls.server.respond(raw(response + evil, ending::keep_alive));
        response_of(tls.send());
        CHECK(response_of(tls.send()).body != "evil");
    }
    CHECK(tls.server.requests().size() == 4);
}

TEST_CASE("httplib: a proxy that asks for a password is failure::connect, not delivered") {
    loopback_service proxy;
    httplib_transport transport{
        [&](httplib::Client& client) { client.set_proxy("127.0.0.1", proxy.port()); }};
    for (int i = 0; i < 2; ++i) {
        proxy.respond(raw("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                          ending::keep_alive));
        check_failure(transport.send(request_to("https://localhost:1/")), failure::connect, false);
    }
}

TEST_CASE("httplib: a request that ends within the TLS handshake is not delivered") {
    check_end_within_handshake<httplib_transport>();
}

TEST_CASE("httplib: a slow TLS handshake ends at the timeout") {
    silent_listener listener;
    std::atomic<bool> done{false};
    std::thread peer{[&] {
        tcp::socket socket = listener.acceptor.accept();
        boost::system::error_code failed;
        boost::asio::write(socket, boost::asio::buffer("\x16\x03\x03\x40\x00\x02\x00\x3F\xFC", 9), failed);
        while (!done && !failed) { // a part of a hello of 16 KiB
            boost::asio::write(socket, boost::asio::buffer("\x00", 1), failed);
            std::this_thread::sleep_for(20ms);
        }
    }};
    httplib_transport transport;
    http_request request = request_to(listener.url("https"));
    request.timeout = 300ms;
    const auto start = steady_clock::now();
    check_failure(transport.send(request), failure::timeout, false);
    CHECK(steady_clock::now() - start < 10s);
    done = true;
    peer.join();
}

#endif

#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(CPPHTTPLIB_SSL_ENABLED)

TEST_CASE("httplib: https without the macro for TLS is failure::tls and names the macro") {
    const loopback_service server;
    httplib_transport transport;
    const std::string message =
        check_failure(transport.send(request_to(https_url(server))), failure::tls, false);
    CHECK(message.find("CPPHTTPLIB_OPENSSL_SUPPORT") != message.npos);
    CHECK(server.connections() == 0);
}

#endif

} // namespace
