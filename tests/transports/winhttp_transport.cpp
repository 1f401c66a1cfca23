#include <promptlayer/transports/winhttp.hpp>

#include "../support/transport_tests.hpp"

#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_service.hpp>

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include <wincrypt.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using namespace transport_tests;
using promptlayer::winhttp_transport;
using promptlayer::testing::certificate;
using promptlayer::testing::conformance_options;

static_assert(is_synchronous_adapter<winhttp_transport>);

bool is_wine() { return GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version") != nullptr; }

/// Requests a TLS server from winhttp_test.py, which listens on this port.
struct remote_tls_servers {
    std::uint16_t port;

    std::string operator()(certificate kind, std::uint16_t pass_on_to) const {
        static constexpr const char* names[] = {"good", "self_signed", "wrong_host", "expired",
                                                "unknown_authority"};
        boost::asio::io_context context;
        tcp::socket socket{context};
        socket.connect({boost::asio::ip::address_v4::loopback(), port});
        const std::string question =
            std::string{names[static_cast<std::size_t>(kind)]} + " " + std::to_string(pass_on_to) + "\n";
        boost::asio::write(socket, boost::asio::buffer(question));
        std::string url;
        url.resize(boost::asio::read_until(socket, boost::asio::dynamic_buffer(url), '\n') - 1);
        return url;
    }
};

/// Makes Windows trust a CA for this user. Real Windows asks the user.
void trust(const char* file) {
    std::ifstream in{file, std::ios::binary};
    const std::string der{std::istreambuf_iterator<char>{in}, {}};
    HCERTSTORE const store = CertOpenSystemStoreW(0, L"ROOT");
    REQUIRE(CertAddEncodedCertificateToStore(store, X509_ASN_ENCODING,
                                             reinterpret_cast<const BYTE*>(der.data()),
                                             static_cast<DWORD>(der.size()), CERT_STORE_ADD_ALWAYS, nullptr));
    CertCloseStore(store, 0);
}

TEST_CASE("winhttp: the transport fulfils the contract") {
    conformance_options options;
    options.skip["sends header values as bytes"] = "rejected: WinHTTP does not document which bytes it sends";
    if (is_wine()) {
        options.skip["skips 100 Continue"] = "Wine takes the following bytes for garbage";
        options.skip["skips 103 Early Hints"] = "Wine takes it for the final response";
        options.skip["returns a long response header"] = "Wine cuts a line of a header at 1460 bytes";
    }
    const char* const authority = std::getenv("PROMPTLAYER_TEST_TLS_AUTHORITY");
    const char* const servers = std::getenv("PROMPTLAYER_TEST_TLS_SERVERS");
    if (authority && servers) {
        trust(authority);
        options.tls = remote_tls_servers{static_cast<std::uint16_t>(std::atoi(servers))};
    }
    const auto report = promptlayer::testing::check_transport(winhttp_transport{}, options);
    MESSAGE(to_string(report));
    CHECK(report.ok());
}

TEST_CASE("winhttp: a client tracks, and errors of the service have their type") {
    check_client<winhttp_transport>();
}

TEST_CASE("winhttp: a connection is kept if the transport is moved") { check_move(winhttp_transport{}); }

TEST_CASE("winhttp: a timeout of zero or less fails at once and sends nothing") {
    check_timeout_of_zero<winhttp_transport>();
}

TEST_CASE("winhttp: a request that ends within the TLS handshake is not delivered") {
    check_end_within_handshake<winhttp_transport>();
}

TEST_CASE("winhttp: cancel from another thread at any moment leaves a transport that works") {
    check_cancel_at_any_moment<winhttp_transport>();
}

TEST_CASE("winhttp: an exception of the configure function is failure::other, not delivered") {
    check_configure_throws(winhttp_transport{[](HINTERNET) { throw std::runtime_error{"no"}; }});
}

TEST_CASE("winhttp: characters of the URL that WinHTTP escapes are sent unchanged") {
    const loopback_service server;
    winhttp_transport transport;
    for (const std::string target : {"/a|b/[c]/{d}/^e`?f=|[g]{h}\"<i>", "/a/../%7e/./b//"}) {
        response_of(transport.send(request_to(server.base_url() + target)));
        CHECK(server.requests().back().url == target);
    }
    response_of(transport.send(request_to(server.base_url() + "?no=path")));
    CHECK(server.requests().back().url == "/?no=path");
}

TEST_CASE("winhttp: headers with a default of WinHTTP are sent once, with the value of the request") {
    const loopback_service server;
    winhttp_transport transport;
    http_request request = request_to(server);
    request.headers = {{"Accept", "application/json"}, {"User-Agent", "mine/1"}, {"Host", "example.com"}};
    response_of(transport.send(request));
    REQUIRE(server.requests().size() == 1);
    const auto headers = server.requests()[0].headers;
    CHECK(headers.size() == 5); // and Content-Length, Connection
    CHECK(*find_header(headers, "Accept") == "application/json");
    CHECK(*find_header(headers, "User-Agent") == "mine/1");
    CHECK(*find_header(headers, "Host") == "example.com");
}

TEST_CASE("winhttp: a PUT or PATCH without a body has a Content-Length of 0, a GET has none") {
    loopback_service server;
    winhttp_transport transport;
    http_request request = request_to(server);
    request.body = "";
    for (const char* const method : {"PUT", "PATCH", "GET"}) {
        request.method = method;
        server.respond({});
        response_of(transport.send(request));
        const auto headers = server.requests().back().headers;
        const std::string* const length = find_header(headers, "Content-Length");
        CHECK((length ? *length : "none") == (request.method == "GET" ? "none" : "0"));
    }
}

TEST_CASE("winhttp: a header that is not ASCII is rejected, and nothing is sent") {
    const loopback_service server;
    winhttp_transport transport;
    http_request request = request_to(server);
    request.headers[0].value = "\xC3\xA9";
    check_failure(transport.send(request), failure::other, false);
    CHECK(server.connections() == 0);
}

TEST_CASE("winhttp: a body over the limit is returned at once, with one byte more than allowed") {
    check_body_limit<winhttp_transport>(
        {"Content-Length: 1000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nF4240\r\n"});
}

TEST_CASE("winhttp: a response that does not say clearly where its body ends is a failure") {
    loopback_service server;
    winhttp_transport transport;
    for (const std::string framing : {"Content-Length: many\r\n\r\nabc", "Content-Length : 3\r\n\r\nabc",
                                      "Content-Length: 3\r\nContent-Length: 2\r\n\r\nabc",
                                      "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"}) {
        CAPTURE(framing);
        server.respond(raw("HTTP/1.1 200 OK\r\n" + framing));
        CHECK(failure_of(transport.send(request_to(server))).maybe_delivered);
    }
}

TEST_CASE("winhttp: a status line with a colon is not a header") {
    loopback_service server;
    server.respond(raw("HTTP/1.1 200 OK: fine\r\nContent-Length: 2\r\n\r\nok"));
    CHECK(response_of(winhttp_transport{}.send(request_to(server))) ==
          http_response{200, {{"Content-Length", "2"}}, "ok"});
}

TEST_CASE("winhttp: a body over https without a length is failure::reset") {
    const char* const authority = std::getenv("PROMPTLAYER_TEST_TLS_AUTHORITY");
    const char* const servers = std::getenv("PROMPTLAYER_TEST_TLS_SERVERS");
    if (!authority || !servers)
        return;
    trust(authority);
    loopback_service server;
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nhalf of"));
    const remote_tls_servers tls{static_cast<std::uint16_t>(std::atoi(servers))};
    const std::string url = tls(certificate::good, server.port());
    CHECK(
        check_failure(winhttp_transport{}.send(request_to(url + "/")), failure::reset, true).find("length") !=
        std::string::npos);
}

TEST_CASE("winhttp: the message of a failure contains the error code of WinHTTP") {
    const std::string url = loopback_service{}.base_url();
    const std::string message =
        check_failure(winhttp_transport{}.send(request_to(url)), failure::connect, false);
    CHECK(message.find("12029") != message.npos);
}

TEST_CASE("winhttp: cancel ends the requests of all threads, but no later request") {
    loopback_service server;
    winhttp_transport transport;
    server.respond(late());
    server.respond(late());
    std::atomic<int> cancelled{0};
    const auto start = steady_clock::now();
    {
        const auto send = [&] {
            const transport_result outcome = transport.send(request_to(server));
            cancelled += !outcome && outcome.error().kind == failure::cancelled ? 1 : 0;
        };
        const std::jthread one{send}, two{send};
        while (server.requests().size() != 2)
            std::this_thread::yield();
        transport.cancel();
    }
    CHECK(cancelled == 2);
    CHECK(steady_clock::now() - start < long_enough);
    CHECK(response_of(transport.send(request_to(server))).status == 200);
}

TEST_CASE("winhttp: a transport can be destroyed right after a cancelled request") {
    loopback_service server;
    server.respond(late());
    auto transport = std::make_unique<winhttp_transport>();
    {
        const std::jthread other{[&] {
            while (server.requests().empty())
                std::this_thread::yield();
            transport->cancel();
        }};
        CHECK(failure_of(transport->send(request_to(server))).kind == failure::cancelled);
    }
    const auto start = steady_clock::now(); // Wine still waits for the response
    transport.reset();
    CHECK(steady_clock::now() - start < long_enough / 2);
}

TEST_CASE("winhttp: the configure function is called with the handle of each request") {
    const loopback_service server;
    int calls = 0;
    winhttp_transport transport{[&](HINTERNET request) {
        ++calls;
        WinHttpAddRequestHeaders(request, L"X-Configured: 1", static_cast<DWORD>(-1),
                                 WINHTTP_ADDREQ_FLAG_ADD);
    }};
    response_of(transport.send(request_to(server)));
    response_of(transport.send(request_to(server)));
    CHECK(calls == 2);
    REQUIRE(server.requests().size() == 2);
    CHECK(find_header(server.requests()[1].headers, "X-Configured"));
}

TEST_CASE("winhttp: a server without TLS is failure::tls, not delivered") {
    const loopback_service server;
    check_failure(winhttp_transport{}.send(request_to(https_url(server))), failure::tls, false);
    CHECK(server.requests().empty());
}

TEST_CASE("winhttp: errors of WinHTTP are mapped to kinds of failure") {
    using promptlayer::detail::winhttp_error_of;
    using promptlayer::detail::winhttp_error_of_certificate;
    for (const auto flags :
         {WINHTTP_CALLBACK_STATUS_FLAG_INVALID_CA, WINHTTP_CALLBACK_STATUS_FLAG_CERT_CN_INVALID,
          WINHTTP_CALLBACK_STATUS_FLAG_CERT_DATE_INVALID, WINHTTP_CALLBACK_STATUS_FLAG_CERT_REVOKED})
        CHECK(winhttp_error_of(winhttp_error_of_certificate(static_cast<DWORD>(flags))).kind == failure::tls);
    CHECK(winhttp_error_of_certificate(WINHTTP_CALLBACK_STATUS_FLAG_CERT_CN_INVALID) ==
          ERROR_WINHTTP_SECURE_CERT_CN_INVALID);
    CHECK(winhttp_error_of(ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED).kind == failure::tls);
    CHECK(winhttp_error_of(0x80090308).kind == failure::tls); // SEC_E_INVALID_TOKEN
    CHECK(winhttp_error_of(ERROR_WINHTTP_CONNECTION_ERROR).kind == failure::reset);
    CHECK(winhttp_error_of(ERROR_NOT_ENOUGH_MEMORY).kind == failure::other);
}

} // namespace
