#include <promptlayer/transports/curl.hpp>

#include "../support/curl_trust.hpp"
#include "../support/transport_tests.hpp"

#include <promptlayer/background_tracker.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/threaded_transport.hpp>

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/write.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#ifdef PROMPTLAYER_TEST_TLS // by a build that has OpenSSL 3
#include "../support/tls_context.hpp"

#include <promptlayer/testing/conformance_tls.hpp>
#endif

namespace {

using namespace transport_tests;
using namespace std::string_view_literals;
using promptlayer::curl_transport;

static_assert(is_synchronous_adapter<curl_transport>);

/// Reads a request without a body and responds to it.
void respond_on(auto& stream) {
    std::string text;
    boost::system::error_code ignored;
    boost::asio::read_until(stream, boost::asio::dynamic_buffer(text), "\r\n\r\n", ignored);
    boost::asio::write(stream, boost::asio::buffer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"sv),
                       ignored);
}

/// Checks that bytes on an idle connection are not the next response: a new connection is made, and kept. The
/// server speaks over the stream that `secure` returns for a socket. A request to another server times out
/// before the bytes come.
void check_unasked(curl_transport& transport, const std::string& scheme, auto secure) {
    silent_listener listener;
    std::promise<void> idle, written;
    std::thread server{[&] {
        boost::system::error_code ignored;
        tcp::socket first = listener.acceptor.accept();
        first.set_option(tcp::no_delay{true}, ignored);
        auto&& stream = secure(first);
        respond_on(stream);
        idle.get_future().wait();
        boost::asio::write(stream, boost::asio::buffer("HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n"sv),
                           ignored);
        written.set_value();
        tcp::socket second = listener.acceptor.accept();
        auto&& other = secure(second);
        respond_on(other);
        respond_on(other);
    }};
    http_request request = request_to(listener.url(scheme));
    request.body.clear();
    loopback_service other;
    http_request unanswered = request_to(other);
    response_of(transport.send(unanswered));
    CHECK(response_of(transport.send(request)).body == "ok");
    unanswered.timeout = 50ms;
    other.respond(late());
    check_failure(transport.send(unanswered), failure::timeout, true);
    idle.set_value();
    written.get_future().wait();
    request.timeout = 5s;
    for (int i = 0; i < 2; ++i) {
        const transport_result outcome = transport.send(request);
        CHECK((outcome && outcome->body == "ok"));
    }
    tcp::socket last{listener.context}; // in case the server still waits for a connection
    boost::system::error_code ignored;
    last.connect(listener.acceptor.local_endpoint(), ignored);
    last.close(ignored);
    transport = curl_transport{};
    server.join();
}

#ifndef _WIN32
/// Sets a variable of the environment until the end of the scope.
class variable {
    std::string name_;
    std::optional<std::string> before_{};

public:
    variable(std::string name, const std::string& value) : name_(std::move(name)) {
        if (const char* const before = std::getenv(name_.c_str()))
            before_ = before;
        ::setenv(name_.c_str(), value.c_str(), 1);
    }
    variable(const variable&) = delete;
    variable& operator=(const variable&) = delete;
    ~variable() {
        if (before_)
            ::setenv(name_.c_str(), before_->c_str(), 1);
        else
            ::unsetenv(name_.c_str());
    }
};
#endif

TEST_CASE("curl: the transport fulfils the contract") {
    promptlayer::testing::conformance_options options;
#ifdef PROMPTLAYER_TEST_TLS
    promptlayer::testing::tls_servers servers;
    options.tls = std::ref(servers);
    curl_transport transport{trust(servers.ca_certificate())};
#else
    curl_transport transport;
#endif
    const auto report = promptlayer::testing::check_transport(transport, options);
    CHECK_MESSAGE(report.ok(), report);
}

TEST_CASE("curl: a threaded_transport over it fulfils the contract") {
    promptlayer::testing::conformance_options options;
    std::function<void(CURL*)> configure;
#ifdef PROMPTLAYER_TEST_TLS
    promptlayer::testing::tls_servers servers;
    options.tls = std::ref(servers);
    configure = trust(servers.ca_certificate());
#endif
    promptlayer::threaded_transport transport{4, [&] { return curl_transport{configure}; }};
    const auto report = promptlayer::testing::check_transport(
        transport, [] { std::this_thread::sleep_for(1ms); }, options);
    CHECK_MESSAGE(report.ok(), report);
}

TEST_CASE("curl: a client tracks, and errors of the service have their type") {
    check_client<curl_transport>();
}

TEST_CASE("curl: a connection is kept if the transport is moved") { check_move(curl_transport{}); }

TEST_CASE("curl: a timeout of zero or less fails at once and sends nothing") {
    check_timeout_of_zero<curl_transport>();
}

TEST_CASE("curl: a timeout is at most 24 days, which an int of milliseconds can hold") {
    using promptlayer::detail::clamp_timeout;
    constexpr std::chrono::milliseconds longest = 24 * 24h;
    CHECK(longest.count() <= std::numeric_limits<int>::max());
    CHECK(clamp_timeout(longest - 1ms) == longest - 1ms);
    CHECK(clamp_timeout(longest + 1ms) == longest);
    CHECK(clamp_timeout(std::chrono::milliseconds::max()) == longest);
    CHECK(clamp_timeout(1ms) == 1ms);
    CHECK(clamp_timeout(-1ms) == 0ms);
}

TEST_CASE("curl: a request that ends within the TLS handshake is not delivered") {
    check_end_within_handshake<curl_transport>();
}

TEST_CASE("curl: cancel from another thread at any moment leaves a transport that works") {
    check_cancel_at_any_moment<curl_transport>();
}

TEST_CASE("curl: a body over the limit is returned at once, with one byte more than allowed") {
    check_body_limit<curl_transport>(
        {"Content-Length: 1000000\r\n\r\n", "\r\n", "Transfer-Encoding: chunked\r\n\r\nF4240\r\n"});
}

TEST_CASE("curl: an exception of the configure function is failure::other, not delivered") {
    check_configure_throws(curl_transport{[](CURL*) { throw std::runtime_error{"no"}; }});
}

TEST_CASE("curl: headers with a default of libcurl are sent once, with the value of the request") {
    const loopback_service server;
    curl_transport transport;
    http_request request = request_to(server);
    request.headers = {{"accept", "application/json"},
                       {"USER-AGENT", "mine/1"},
                       {"content-type", ""},
                       {"Host", "example.com"}};
    response_of(transport.send(request));
    REQUIRE(server.requests().size() == 1);
    const std::vector<header> headers = server.requests()[0].headers;
    CHECK(headers.size() == 5);
    CHECK(*find_header(headers, "Accept") == "application/json");
    CHECK(*find_header(headers, "User-Agent") == "mine/1");
    CHECK(find_header(headers, "Content-Type")->empty());
    CHECK(*find_header(headers, "Host") == "example.com");
}

TEST_CASE("curl: a response that arrives while the body is being sent is returned") {
    const loopback_service server;
    curl_transport transport;
    http_request request = request_to(server);
    request.body.assign(16 * 1024 * 1024, 'x');
    CHECK(response_of(transport.send(request)).status == 413);
    CHECK(server.requests().empty());
}

TEST_CASE("curl: `Expect: 100-continue` is sent, and the informational response is skipped") {
    const loopback_service server;
    curl_transport transport;
    http_request request = request_to(server);
    request.headers.push_back({"Expect", "100-continue"});
    CHECK(response_of(transport.send(request)).status == 200);
    REQUIRE(server.requests().size() == 1);
    CHECK(*find_header(server.requests()[0].headers, "Expect") == "100-continue");
}

TEST_CASE("curl: a 417 to a request with `Expect` does not make libcurl send it again") {
    scripted_server server{
        [](const http_request&) { return raw("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"); }};
    curl_transport transport;
    http_request request = request_to(server);
    request.headers.push_back({"Expect", "100-continue"});
    CHECK(failure_of(transport.send(request)).kind == failure::other);
    CHECK(server.requests().size() <= 1);
    CHECK(server.connections() == 1);
}

TEST_CASE("curl: every method is sent with and without a body") {
    loopback_service server;
    curl_transport transport;
    const auto length_sent = [&](std::string method, std::string content) {
        http_request request = request_to(server);
        request.method = std::move(method);
        request.body = std::move(content);
        request.headers = {};
        server.respond({});
        const http_response response = response_of(transport.send(request));
        CHECK(response.status == 200);
        CHECK(response.body.empty() == (request.method == "HEAD"));
        const http_request arrived = server.requests().back();
        CHECK(arrived.method == request.method);
        CHECK(arrived.body == request.body);
        const std::string* const length = find_header(arrived.headers, "Content-Length");
        CHECK(arrived.headers.size() == (length ? 2 : 1));
        return length ? *length : "none";
    };
    CHECK(length_sent("GET", "") == "none");
    CHECK(length_sent("GET", "abc") == "3");
    CHECK(length_sent("HEAD", "") == "none");
    CHECK(length_sent("DELETE", "") == "none");
    CHECK(length_sent("DELETE", "abc") == "3");
    CHECK(length_sent("POST", "") == "0");
    CHECK(length_sent("PUT", "") == "0");
    CHECK(length_sent("PATCH", "abc") == "3");
    CHECK(length_sent("PROPFIND", "abc") == "3");
    CHECK(server.connections() == 1);
}

TEST_CASE("curl: a URL of another scheme than http and https is rejected") {
    const auto file = std::filesystem::temp_directory_path() /
                      ("promptlayer_curl_file_" + std::to_string(loopback_service{}.port()));
    std::ofstream{file} << "secret";
    curl_transport transport;
    for (const std::string& url : {"file://" + file.string(), std::string{"ftp://127.0.0.1/"},
                                   std::string{"gopher://127.0.0.1/"}, std::string{"httpx://127.0.0.1/"}}) {
        check_failure(transport.send(request_to(url)), failure::other, false);
    }
    curl_transport redirected{[&](CURL* easy) {
        curl_easy_setopt(easy, CURLOPT_CURLU, nullptr);
        curl_easy_setopt(easy, CURLOPT_URL, ("file://" + file.string()).c_str());
    }};
    CHECK(failure_of(redirected.send(request_to("https://127.0.0.1/"))).kind == failure::other);
    std::filesystem::remove(file);
}

TEST_CASE("curl: headers are returned in order, with repeats, trimmed and unfolded") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 200 OK\r\nb:  2 \t\r\nA: 1\r\nb:3\r\nEmpty:\r\nFolded: x\r\n  y: z\r\n"
                       "Content-Length: 0\r\n\r\n"));
    curl_transport transport;
    CHECK(response_of(transport.send(request_to(server))).headers ==
          std::vector<header>{{"b", "2"},
                              {"A", "1"},
                              {"b", "3"},
                              {"Empty", ""},
                              {"Folded", "x y: z"},
                              {"Content-Length", "0"}});
}

TEST_CASE("curl: headers of informational responses and trailers are not returned") {
    loopback_service server;
    server.respond(
        raw("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Interim: 2\r\n\r\n"
            "HTTP/1.1 200 OK\r\nX-Final: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
            "3\r\nabc\r\n4;extension=1\r\ndefg\r\n0\r\nX-Trailer: 4\r\n\r\n",
            ending::keep_alive));
    curl_transport transport;
    const http_response response = response_of(transport.send(request_to(server)));
    CHECK(response == http_response{200, {{"X-Final", "3"}, {"Transfer-Encoding", "chunked"}}, "abcdefg"});
    CHECK(response_of(transport.send(request_to(server))).status == 200);
    CHECK(server.connections() == 1);
}

TEST_CASE("curl: a trailer changes no header") {
    loopback_service server;
    curl_transport transport;
    server.respond(raw("HTTP/1.1 200 OK\r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "1\r\na\r\n0\r\nHTTP: y\r\nRetry-After: 9\r\nX-Evil: 1\r\n\r\n"));
    const http_response response = response_of(transport.send(request_to(server)));
    CHECK(response.body == "a");
    CHECK(*find_header(response.headers, "Retry-After") == "3");
    CHECK_FALSE(find_header(response.headers, "X-Evil"));
}

TEST_CASE("curl: more than 256 KiB of headers are a failure, informational responses included") {
    loopback_service server;
    curl_transport transport;
    std::string lines;
    while (lines.size() < 250 * 1024)
        lines += "X-Filler: " + std::string(1000, 'x') + "\r\n";
    server.respond(raw("HTTP/1.1 200 OK\r\n" + lines + "Content-Length: 0\r\n\r\n"));
    CHECK(response_of(transport.send(request_to(server))).headers.size() > 200);

    for (const std::string& many :
         {"HTTP/1.1 200 OK\r\n" + lines + lines,
          "HTTP/1.1 103 Early Hints\r\n" + lines + "\r\nHTTP/1.1 200 OK\r\n" + lines}) {
        server.respond(raw(many + "Content-Length: 0\r\n\r\n"));
        CHECK(check_failure(transport.send(request_to(server)), failure::other, true) ==
              "the headers of the response exceed 256 KiB");
    }
    CHECK(response_of(transport.send(request_to(server))).status == 200);
}

TEST_CASE("curl: a response with a length that is not one number is failure::other") {
    loopback_service server;
    curl_transport transport;
    for (const char* lengths :
         {"2\r\nContent-Length: 5", "5\r\nContent-Length: 2", "2, 5", "2, 2", "-1", "+2", "0x2", "2abc", "",
          "9223372036854775807", "18446744073709551618", "99999999999999999999999"}) {
        server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: " + std::string{lengths} + "\r\n\r\nHELLO"));
        check_failure(transport.send(request_to(server)), failure::other, true);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"));
    CHECK(response_of(transport.send(request_to(server))).body == "ok");
}

TEST_CASE("curl: 101 is a response, and its connection is not used again") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ending::keep_alive));
    curl_transport transport;
    const http_response response = response_of(transport.send(request_to(server)));
    CHECK(response == http_response{101, {{"Upgrade", "x"}}, ""});
    CHECK(response_of(transport.send(request_to(server))).status == 200);
    CHECK(server.connections() == 2);
}

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("curl: a body over https without a length is failure::reset") {
    loopback_service server;
    promptlayer::testing::tls_servers servers;
    curl_transport transport{trust(servers.ca_certificate())};
    http_request request = request_to(servers(promptlayer::testing::certificate::good, server.port()) + "/");
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nno length"));
    check_failure(transport.send(request), failure::reset, true);

    request.max_response_bytes = 1;
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nno length"));
    CHECK(response_of(transport.send(request)).body == "no");
    for (const int status : {101, 204, 304}) {
        server.respond(raw("HTTP/1.1 " + std::to_string(status) + " No body\r\n\r\n", ending::keep_alive));
        CHECK(response_of(transport.send(request)).status == status);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"));
    CHECK(response_of(transport.send(request)).body == "a");
    request.method = "HEAD";
    request.body.clear();
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\n"));
    CHECK(response_of(transport.send(request)).status == 200);
}

#endif

TEST_CASE("curl: a kept connection that ends before a response is replaced") {
    loopback_service server;
    curl_transport transport;
    http_request request = request_to(server);
    request.body = R"({"prompt_name":")" + std::string(300'000, 'x') + R"(","request_id":1})";
    for (const scripted_response& end : {only(ending::reset_before_response), raw("")}) {
        response_of(transport.send(request));
        const std::size_t before = server.connections();
        server.respond(end);
        CHECK(response_of(transport.send(request)).status == 200);
        CHECK(server.connections() == before + 1);
    }
    REQUIRE(server.requests().size() == 6);
    for (const http_request& arrived : server.requests())
        CHECK(arrived.body == request.body);
}

TEST_CASE("curl: any number of kept connections that end are replaced") {
    loopback_service server;
    curl_transport transport;
    for (int i = 0; i < 10; ++i) { // libcurl fails after five attempts with a handle
        response_of(transport.send(request_to(server)));
        response_of(transport.send(request_to(server)));
        server.respond(only(ending::reset_before_response));
        CHECK(response_of(transport.send(request_to(server))).status == 200);
    }
}

TEST_CASE("curl: a folded first header is failure::other after any number of responses") {
    loopback_service server;
    curl_transport transport;
    for (int responses = 0; responses < 4; ++responses) {
        for (int i = 0; i < responses; ++i)
            response_of(transport.send(request_to(server)));
        server.respond(raw("HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 2\r\n\r\nok"));
        check_failure(transport.send(request_to(server)), failure::other, true);
    }
}

TEST_CASE("curl: requests to several servers in turn go to the server of their URL") {
    const loopback_service first, second;
    curl_transport transport;
    for (int i = 0; i < 3; ++i) {
        response_of(transport.send(request_to(first)));
        response_of(transport.send(request_to(second)));
    }
    CHECK(first.requests().size() == 3);
    CHECK(second.requests().size() == 3);
}

#if LIBCURL_VERSION_NUM >= 0x075000

TEST_CASE("curl: bytes on an idle connection are not the next response") {
    curl_transport transport;
    check_unasked(transport, "http", [](tcp::socket& socket) -> tcp::socket& { return socket; });
}

TEST_CASE("curl: a new connection replaces the closed connection of its port or socket") {
    const auto ports_after = [](long port, curl_socket_t socket) {
        promptlayer::detail::curl_connections connections{true};
        for (const int i : {1, 2, 3})
            connections.pool(10 + i, static_cast<curl_socket_t>(1'000 + i));
        connections.pool(port, socket);
        std::vector<long> ports;
        for (const auto& connection : connections.pooled)
            ports.push_back(connection.local_port);
        return ports;
    };
    CHECK(ports_after(14, 1'004) == std::vector<long>{11, 12, 13, 14});
    CHECK(ports_after(12, 1'004) == std::vector<long>{11, 13, 12});
    CHECK(ports_after(14, 1'002) == std::vector<long>{11, 13, 14});
    CHECK(ports_after(11, 1'003) == std::vector<long>{12, 11});
    CHECK(ports_after(12, CURL_SOCKET_BAD) == std::vector<long>{11, 13}); // of HTTP/2
}

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("curl: bytes on an idle TLS connection are not the next response") {
    tls_context tls;
    curl_transport transport{trust(tls.ca_pem)};
    check_unasked(transport, "https", [&](tcp::socket& socket) { return tls.accept(socket); });
}

#endif
#endif

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("curl: a second response that the TLS library has read is not the next response") {
    silent_listener listener;
    tls_context tls;
    std::atomic<bool> over{false};
    std::thread server{[&] {
        boost::system::error_code failed;
        tcp::socket socket = listener.acceptor.accept();
        auto stream = tls.accept(socket);
        std::string text;
        boost::asio::read_until(stream, boost::asio::dynamic_buffer(text), "\r\n\r\n", failed);
        for (const auto record : {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"sv,
                                  "firstHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked"sv})
            boost::asio::write(stream, boost::asio::buffer(record), failed);
        listener.acceptor.non_blocking(true); // there is no connection if the first is used again
        while (!over) {
            tcp::socket next = listener.acceptor.accept(failed);
            if (failed) {
                std::this_thread::yield();
                continue;
            }
            next.non_blocking(false);
            auto second = tls.accept(next);
            respond_on(second);
        }
    }};
    curl_transport transport{trust(tls.ca_pem)};
    http_request request = request_to(listener.url("https"));
    request.body.clear();
    const transport_result first = transport.send(request), second = transport.send(request);
    over = true;
    server.join();
    CHECK(response_of(first).body == "first");
    CHECK(response_of(second).body == "ok");
}

TEST_CASE("curl: a new connection resumes the TLS session of the one before") {
    silent_listener listener;
    tls_context tls;
    std::thread server{[&] {
        for (int i = 0; i < 2; ++i) { // closes each after its response
            tcp::socket socket = listener.acceptor.accept();
            auto stream = tls.accept(socket);
            respond_on(stream);
        }
    }};
    curl_transport transport{trust(tls.ca_pem)};
    http_request request = request_to(listener.url("https"));
    request.body.clear();
    const transport_result first = transport.send(request), second = transport.send(request);
    server.join();
    CHECK(response_of(first).body == "ok");
    CHECK(response_of(second).body == "ok");
    CHECK(SSL_CTX_sess_hits(tls.server.native_handle()) == 1);
}

#endif

TEST_CASE("curl: a request that two connections reset is maybe delivered") {
    loopback_service server;
    curl_transport transport;
    response_of(transport.send(request_to(server)));
    server.respond(only(ending::reset_before_response));
    server.respond(only(ending::reset_before_response));
    check_failure(transport.send(request_to(server)), failure::reset, true);
    CHECK(server.requests().size() == 3);
}

TEST_CASE("curl: a server without TLS is failure::tls, not delivered") {
    const loopback_service server;
    curl_transport transport;
    check_failure(transport.send(request_to(https_url(server))), failure::tls, false);
    CHECK(server.requests().empty());
}

TEST_CASE("curl: a reset within the TLS handshake is failure::connect, not delivered") {
    silent_listener listener;
    std::thread peer{[&] {
        tcp::socket socket = listener.acceptor.accept();
        char hello = 0;
        socket.receive(boost::asio::buffer(&hello, 1));
        socket.set_option(boost::asio::socket_base::linger{true, 0});
    }};
    curl_transport transport;
    const transport_result outcome = transport.send(request_to(listener.url("https")));
    peer.join();
    check_failure(outcome, failure::connect, false);
}

TEST_CASE("curl: a server without TLS is failure::tls after a reset of another connection") {
    loopback_service server;
    server.respond(only(ending::reset_before_response));
    curl_transport transport;
    CHECK(failure_of(transport.send(request_to(server))).kind == failure::reset);
    const std::string url = https_url(server);
    CHECK(failure_of(transport.send(request_to(url))).kind == failure::tls);
}

TEST_CASE("curl: codes of libcurl are mapped to kinds of failure") {
    using promptlayer::detail::curl_failure;
    for (const CURLcode code : {CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CONNECT_ERROR, CURLE_USE_SSL_FAILED,
                                CURLE_SSL_CERTPROBLEM, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_ISSUER_ERROR,
                                CURLE_SSL_INVALIDCERTSTATUS})
        CHECK(curl_failure(code) == failure::tls);
    for (const CURLcode code : {CURLE_HTTP2, CURLE_HTTP2_STREAM, CURLE_SEND_ERROR})
        CHECK(curl_failure(code) == failure::reset);
    CHECK(curl_failure(CURLE_COULDNT_RESOLVE_PROXY) == failure::resolve);
    for (const CURLcode code : {CURLE_OUT_OF_MEMORY, CURLE_URL_MALFORMAT, CURLE_WEIRD_SERVER_REPLY})
        CHECK(curl_failure(code) == failure::other);
}

TEST_CASE("curl: a background tracker closes in time while the server hangs") {
    loopback_service server;
    scripted_response hangs;
    hangs.delay = 1h;
    server.respond(hangs);
    promptlayer::background_tracker tracker{{.api_key = "pl_loopback", .base_url = server.base_url()},
                                            curl_transport{}};
    for (std::int64_t id : {1, 2, 3})
        REQUIRE(tracker.track_prompt({.prompt_name = "a", .request_id = id}));
    while (server.requests().empty())
        std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    const auto undelivered = tracker.close(50ms);
    CHECK(std::chrono::steady_clock::now() - start < 5s); // of a timeout of 30 s
    CHECK(undelivered.size() == 3);
    CHECK(tracker.stats().returned == 3);
}

TEST_CASE("curl: the configure function is called for each request and overrides options") {
    const loopback_service server;
    int calls = 0;
    curl_transport transport{[&](CURL* easy) {
        ++calls;
        curl_easy_setopt(easy, CURLOPT_USERAGENT, "configured/1");
    }};
    response_of(transport.send(request_to(server)));
    response_of(transport.send(request_to(server)));
    CHECK(calls == 2);
    REQUIRE(server.requests().size() == 2);
    CHECK(*find_header(server.requests()[1].headers, "User-Agent") == "configured/1");
}

TEST_CASE("curl: an option that the configure function sets once does not affect later requests") {
    const loopback_service server;
    int calls = 0;
    curl_transport transport{[&](CURL* easy) {
        if (++calls == 2)
            curl_easy_setopt(easy, CURLOPT_USERAGENT, "configured/1");
    }};
    for (int i = 0; i < 3; ++i)
        response_of(transport.send(request_to(server)));
    REQUIRE(server.requests().size() == 3);
    CHECK(find_header(server.requests()[1].headers, "User-Agent"));
    CHECK_FALSE(find_header(server.requests()[2].headers, "User-Agent"));
}

TEST_CASE("curl: transports on several threads are independent") {
    const loopback_service server;
    std::vector<std::thread> threads;
    std::atomic<int> delivered{0};
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            curl_transport transport;
            for (int n = 0; n < 10; ++n) {
                const transport_result outcome = transport.send(request_to(server));
                delivered += outcome && outcome->status == 200 ? 1 : 0;
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(delivered == 40);
    CHECK(server.connections() == 4);
}

#ifndef _WIN32

TEST_CASE("curl: a .netrc is not read") {
    const loopback_service server;
    const auto home =
        std::filesystem::temp_directory_path() / ("promptlayer_curl_home_" + std::to_string(server.port()));
    std::filesystem::create_directories(home);
    std::ofstream{home / ".netrc"} << "machine 127.0.0.1 login somebody password secret\n";
    const variable set{"HOME", home.string()};
    curl_transport transport;
    response_of(transport.send(request_to(server)));
    curl_transport asked{
        [](CURL* easy) { curl_easy_setopt(easy, CURLOPT_NETRC, long{CURL_NETRC_OPTIONAL}); }};
    response_of(asked.send(request_to(server)));
    std::filesystem::remove_all(home);
    REQUIRE(server.requests().size() == 2);
    CHECK_FALSE(find_header(server.requests()[0].headers, "Authorization"));
    CHECK(find_header(server.requests()[1].headers, "Authorization")); // the file is where libcurl looks
}

TEST_CASE("curl: a proxy of the environment does not see a plain http request") {
    const loopback_service server;
    const loopback_service proxy;
    const variable http{"http_proxy", proxy.base_url()};
    const variable all{"all_proxy", proxy.base_url()};
    const variable none{"no_proxy", ""};
    curl_transport transport;
    CHECK(response_of(transport.send(request_to(server))).status == 200);
    CHECK(proxy.connections() == 0);
    curl_transport asked{
        [&](CURL* easy) { curl_easy_setopt(easy, CURLOPT_PROXY, proxy.base_url().c_str()); }};
    CHECK(response_of(asked.send(request_to(server))).status == 404);
    CHECK(proxy.requests().size() == 1);
}

TEST_CASE("curl: a proxy that refuses the tunnel is failure::connect, not delivered") {
    loopback_service proxy;
    const variable https{"https_proxy", proxy.base_url()};
    const variable none{"no_proxy", ""};
    for (const char* response : {"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                                 "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"}) {
        proxy.respond(raw(response));
        curl_transport transport;
        check_failure(transport.send(request_to("https://tunnelled.invalid/")), failure::connect, false);
    }
}

TEST_CASE("curl: a proxy of the environment tunnels https and sees no header") {
    loopback_service proxy;
    proxy.respond(raw("HTTP/1.1 200 Connection established\r\n\r\n", ending::keep_alive));
    const variable https{"https_proxy", proxy.base_url()};
    const variable none{"no_proxy", ""};
    curl_transport transport;
    check_failure(transport.send(request_to("https://promptlayer.invalid/rest/track-prompt")), failure::tls,
                  false); // the proxy answers the handshake in plain text
    REQUIRE(proxy.requests().size() == 1);
    CHECK(proxy.requests()[0].method == "CONNECT");
    CHECK_FALSE(find_header(proxy.requests()[0].headers, "X-API-KEY"));
}

#endif

} // namespace
