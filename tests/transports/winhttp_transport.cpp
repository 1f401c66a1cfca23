#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/winhttp.hpp>

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include <wincrypt.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>

namespace {

using namespace std::chrono_literals;
using promptlayer::failure;
using promptlayer::find_header;
using promptlayer::http_request;
using promptlayer::http_response;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::winhttp_transport;
using promptlayer::testing::certificate;
using promptlayer::testing::conformance_options;
using promptlayer::testing::loopback_service;
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

static_assert(promptlayer::Transport<winhttp_transport>);
static_assert(!promptlayer::AsyncTransport<winhttp_transport>);
static_assert(std::is_nothrow_move_constructible_v<winhttp_transport> &&
              std::is_nothrow_move_assignable_v<winhttp_transport>);
static_assert(!std::is_copy_constructible_v<winhttp_transport> &&
              !std::is_copy_assignable_v<winhttp_transport>);

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

http_request to(const scripted_server& server) { return to(server.base_url() + "/rest/track-prompt"); }

http_response answer_of(transport_result outcome) {
    REQUIRE_MESSAGE(outcome.has_value(), (outcome ? std::string{} : outcome.error().message));
    return *std::move(outcome);
}

transport_failure failure_of(transport_result outcome) {
    REQUIRE_FALSE(outcome.has_value());
    return std::move(outcome).error();
}

scripted_response late() {
    scripted_response answer;
    answer.delay = long_enough;
    return answer;
}

scripted_response closed(std::string bytes) {
    scripted_response answer;
    answer.raw = std::move(bytes);
    answer.ending = scripted_response::connection_ending::close_unannounced;
    return answer;
}

/// Takes connections and says nothing.
struct silent_listener {
    boost::asio::io_context context{};
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};

    std::string url() const {
        return "https://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/";
    }
};

/// Runs an action on another thread, to the end of the scope.
class meanwhile {
    std::thread thread_;

public:
    template <class Action>
    explicit meanwhile(Action action) : thread_(std::move(action)) {}
    meanwhile(const meanwhile&) = delete;
    meanwhile& operator=(const meanwhile&) = delete;
    ~meanwhile() { thread_.join(); }
};

bool is_wine() { return GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version") != nullptr; }

/// Asks the TLS servers at this port, which winhttp_test.py runs, for one.
struct remote_tls_servers {
    std::uint16_t port;

    std::string operator()(certificate shown, std::uint16_t pass_on_to) const {
        static constexpr const char* names[] = {"good", "self_signed", "wrong_host", "expired",
                                                "unknown_authority"};
        boost::asio::io_context context;
        tcp::socket socket{context};
        socket.connect({boost::asio::ip::address_v4::loopback(), port});
        const std::string question =
            std::string{names[static_cast<std::size_t>(shown)]} + " " + std::to_string(pass_on_to) + "\n";
        boost::asio::write(socket, boost::asio::buffer(question));
        std::string url;
        url.resize(boost::asio::read_until(socket, boost::asio::dynamic_buffer(url), '\n') - 1);
        return url;
    }
};

/// Has Windows trust an authority, for this user; real Windows asks the user.
void trust(const char* file) {
    std::ifstream in{file, std::ios::binary};
    const std::string der{std::istreambuf_iterator<char>{in}, {}};
    HCERTSTORE const store = CertOpenSystemStoreW(0, L"ROOT");
    REQUIRE(CertAddEncodedCertificateToStore(store, X509_ASN_ENCODING,
                                             reinterpret_cast<const BYTE*>(der.data()),
                                             static_cast<DWORD>(der.size()), CERT_STORE_ADD_ALWAYS, nullptr));
    CertCloseStore(store, 0);
}

TEST_CASE("winhttp: the transport holds to the contract") {
    conformance_options options;
    options.skip["sends header values as bytes"] = "refused: WinHTTP does not say which bytes it would send";
    if (is_wine()) {
        options.skip["skips 100 Continue"] = "Wine's WinHTTP takes what follows for garbage";
        options.skip["skips 103 Early Hints"] = "Wine's WinHTTP takes it for the answer";
        options.skip["returns a long response header"] =
            "Wine's WinHTTP cuts a line of a header at 1460 bytes";
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

TEST_CASE("winhttp: a client tracks over it, and errors of the service come back typed") {
    const loopback_service server;
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    promptlayer::client client{config, winhttp_transport{}};
    const auto tracked = client.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE(tracked);
    CHECK(tracked->success);

    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, winhttp_transport{}};
    const auto refused = stranger.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == promptlayer::errc::unauthorized);
}

TEST_CASE("winhttp: the URL is sent as it stands, with what WinHTTP would escape") {
    const loopback_service server;
    winhttp_transport transport;
    for (const std::string target : {"/a|b/[c]/{d}/^e`?f=|[g]{h}\"<i>", "/a/../%7e/./b//"}) {
        answer_of(transport.send(to(server.base_url() + target)));
        CHECK(server.requests().back().url == target);
    }
    answer_of(transport.send(to(server.base_url() + "?no=path")));
    CHECK(server.requests().back().url == "/?no=path");
}

TEST_CASE("winhttp: no header is added but those of the connection and the length") {
    const loopback_service server;
    winhttp_transport transport;
    http_request request = to(server);
    request.headers = {{"X-One", "1"}};
    answer_of(transport.send(request));
    REQUIRE(server.requests().size() == 1);
    const auto headers = server.requests()[0].headers;
    for (const promptlayer::header& h : headers) {
        const bool expected =
            h.name == "X-One" || h.name == "Host" || h.name == "Content-Length" || h.name == "Connection";
        CHECK_MESSAGE(expected, h.name);
    }
}

TEST_CASE(
    "winhttp: headers that WinHTTP has a value of its own for are sent once, with the request's value") {
    const loopback_service server;
    winhttp_transport transport;
    http_request request = to(server);
    request.headers = {{"Accept", "application/json"}, {"User-Agent", "mine/1"}, {"Host", "example.com"}};
    answer_of(transport.send(request));
    REQUIRE(server.requests().size() == 1);
    const auto headers = server.requests()[0].headers;
    CHECK(headers.size() == 5); // and Content-Length, Connection
    CHECK(*find_header(headers, "Accept") == "application/json");
    CHECK(*find_header(headers, "User-Agent") == "mine/1");
    CHECK(*find_header(headers, "Host") == "example.com");
}

TEST_CASE("winhttp: a PUT or PATCH without a body says that its length is 0, a GET nothing") {
    loopback_service server;
    winhttp_transport transport;
    http_request request = to(server);
    request.body = "";
    for (const char* const method : {"PUT", "PATCH", "GET"}) {
        request.method = method;
        server.respond({});
        answer_of(transport.send(request));
        const auto headers = server.requests().back().headers;
        const std::string* const length = find_header(headers, "Content-Length");
        CHECK((length ? *length : "none") == (request.method == "GET" ? "none" : "0"));
    }
}

TEST_CASE("winhttp: what WinHTTP would send as something else is refused, and nothing is sent") {
    const loopback_service server;
    winhttp_transport transport;
    const auto refused = [&](auto change) {
        http_request request = to(server);
        change(request);
        const transport_failure failed = failure_of(transport.send(request));
        CHECK(failed.kind == failure::other);
        CHECK_FALSE(failed.maybe_delivered);
        CHECK_FALSE(failed.message.empty());
    };
    refused([](http_request& r) { r.method = ""; });
    refused([](http_request& r) { r.method = "HEAD"; });
    refused([](http_request& r) { r.headers[0].value = "\xC3\xA9"; });
    refused([](http_request& r) { r.headers[0].value = "a\x7F"; });
    refused([](http_request& r) { r.headers[0].name = "X-\xE9"; });
    refused([](http_request& r) { r.headers[0].name = "X;Y"; });
    refused([](http_request& r) { r.url += "\xC3\xA9"; });
    refused([](http_request& r) { r.url += "#fragment"; });
    refused([](http_request& r) { r.url = "https://"; });
    refused([](http_request& r) { r.url = "ftp" + r.url.substr(4); });
    refused([](http_request& r) { r.url.insert(7, "user:password@"); });
    refused([](http_request& r) { r.url.insert(7, "user@"); });
    refused([](http_request& r) { r.url.insert(7, ":password@"); });
    refused([](http_request& r) { r.headers.insert(r.headers.end(), 2, {"Host", "a"}); });
    CHECK(server.connections() == 0);
}

TEST_CASE("winhttp: no cookie is kept") {
    loopback_service server;
    scripted_response answer;
    answer.response.headers = {{"Set-Cookie", "session=1; Path=/"}};
    server.respond(answer);
    winhttp_transport transport;
    const http_response first = answer_of(transport.send(to(server)));
    CHECK(find_header(first.headers, "Set-Cookie"));
    answer_of(transport.send(to(server)));
    REQUIRE(server.requests().size() == 2);
    CHECK_FALSE(find_header(server.requests()[1].headers, "Cookie"));
}

TEST_CASE("winhttp: of a body that is too long, one byte more than allowed is returned, at once") {
    loopback_service server;
    winhttp_transport transport;
    http_request request = to(server);
    request.max_response_bytes = 100;
    for (const std::string framing :
         {"Content-Length: 1000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nF4240\r\n"}) {
        scripted_response answer; // the rest of the body never comes: to wait for it would be a timeout
        answer.raw = "HTTP/1.1 200 OK\r\n" + framing + std::string(1000, 'x');
        server.respond(answer);
        CHECK(answer_of(transport.send(request)).body == std::string(101, 'x'));
    }
}

TEST_CASE("winhttp: a length that is in doubt is a failure") {
    loopback_service server;
    winhttp_transport transport;
    for (const std::string framing : {"Content-Length: many\r\n\r\nabc", "Content-Length : 3\r\n\r\nabc",
                                      "Content-Length: 3\r\nContent-Length: 2\r\n\r\nabc",
                                      "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"}) {
        CAPTURE(framing);
        server.respond(closed("HTTP/1.1 200 OK\r\n" + framing));
        CHECK(failure_of(transport.send(to(server))).maybe_delivered);
    }
}

TEST_CASE("winhttp: the status line is no header") {
    loopback_service server;
    server.respond(closed("HTTP/1.1 200 OK: fine\r\nContent-Length: 2\r\n\r\nok"));
    CHECK(answer_of(winhttp_transport{}.send(to(server))) ==
          http_response{200, {{"Content-Length", "2"}}, "ok"});
}

TEST_CASE("winhttp: over https a body that only the connection ends is a failure") {
    const char* const authority = std::getenv("PROMPTLAYER_TEST_TLS_AUTHORITY");
    const char* const servers = std::getenv("PROMPTLAYER_TEST_TLS_SERVERS");
    if (!authority || !servers)
        return;
    trust(authority);
    loopback_service server;
    server.respond(closed("HTTP/1.1 200 OK\r\n\r\nhalf of"));
    const remote_tls_servers tls{static_cast<std::uint16_t>(std::atoi(servers))};
    const std::string url = tls(certificate::good, server.port());
    const transport_failure failed = failure_of(winhttp_transport{}.send(to(url + "/")));
    CHECK(failed.kind == failure::reset);
    CHECK(failed.maybe_delivered);
    CHECK(failed.message.find("length") != failed.message.npos);
}

TEST_CASE("winhttp: requests one after the other share a connection, also after the transport has moved") {
    const loopback_service server;
    winhttp_transport first;
    answer_of(first.send(to(server)));
    winhttp_transport second{std::move(first)};
    answer_of(second.send(to(server)));
    first = std::move(second);
    answer_of(first.send(to(server)));
    CHECK(server.connections() == 1);

    const transport_failure failed = failure_of(second.send(to(server))); // moved from
    CHECK(failed.kind == failure::other);
    CHECK_FALSE(failed.maybe_delivered);
    second.cancel();
    CHECK(server.requests().size() == 3);
}

TEST_CASE("winhttp: a failure's message has WinHTTP's error code") {
    std::string url;
    {
        const loopback_service gone;
        url = gone.base_url();
    }
    const transport_failure failed = failure_of(winhttp_transport{}.send(to(url)));
    CHECK(failed.kind == failure::connect);
    CHECK(failed.message.find("12029") != failed.message.npos);
}

TEST_CASE("winhttp: a timeout before the request is sent is not maybe delivered") {
    const silent_listener listener; // no TLS handshake comes about
    http_request request = to(listener.url());
    request.timeout = 200ms;
    const transport_failure failed = failure_of(winhttp_transport{}.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK_FALSE(failed.maybe_delivered);
}

TEST_CASE("winhttp: a request that is cancelled before it was sent is not maybe delivered") {
    silent_listener listener;
    winhttp_transport transport;
    std::optional<tcp::socket> open;
    std::optional<meanwhile> other{std::in_place, [&] {
                                       open = listener.acceptor.accept();
                                       transport.cancel();
                                   }};
    const transport_failure failed = failure_of(transport.send(to(listener.url())));
    other.reset();
    CHECK(failed.kind == failure::cancelled);
    CHECK_FALSE(failed.maybe_delivered);
}

TEST_CASE("winhttp: cancel ends the requests of all threads, and no later one") {
    loopback_service server;
    winhttp_transport transport;
    server.respond(late());
    server.respond(late());
    std::atomic<int> cancelled{0};
    const auto start = steady_clock::now();
    {
        const auto send = [&] {
            const transport_result outcome = transport.send(to(server));
            cancelled += !outcome && outcome.error().kind == failure::cancelled ? 1 : 0;
        };
        const meanwhile one{send}, two{send};
        while (server.requests().size() != 2)
            std::this_thread::yield();
        transport.cancel();
    }
    CHECK(cancelled == 2);
    CHECK(steady_clock::now() - start < long_enough);
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("winhttp: cancel from another thread at any moment leaves a transport that works") {
    const loopback_service server;
    winhttp_transport transport;
    std::atomic<bool> done{false};
    int cancelled = 0;
    {
        const meanwhile other{[&] {
            while (!done) {
                transport.cancel();
                std::this_thread::sleep_for(1ms);
            }
        }};
        for (int i = 0; i < 200 || (cancelled == 0 && i < 10'000); ++i) {
            const transport_result outcome = transport.send(to(server));
            CHECK((outcome || outcome.error().kind == failure::cancelled));
            cancelled += outcome ? 0 : 1;
        }
        done = true;
    }
    CHECK(cancelled > 0);
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("winhttp: a transport can be destroyed right after a request was given up") {
    loopback_service server;
    server.respond(late());
    auto transport = std::make_unique<winhttp_transport>();
    {
        const meanwhile other{[&] {
            while (server.requests().empty())
                std::this_thread::yield();
            transport->cancel();
        }};
        CHECK(failure_of(transport->send(to(server))).kind == failure::cancelled);
    }
    const auto start = steady_clock::now(); // Wine's WinHTTP goes on waiting for the answer
    transport.reset();
    CHECK(steady_clock::now() - start < long_enough / 2);
}

TEST_CASE("winhttp: the user's function is called with the handle of each request") {
    const loopback_service server;
    int calls = 0;
    winhttp_transport transport{[&](HINTERNET request) {
        ++calls;
        WinHttpAddRequestHeaders(request, L"X-Configured: 1", static_cast<DWORD>(-1),
                                 WINHTTP_ADDREQ_FLAG_ADD);
    }};
    answer_of(transport.send(to(server)));
    answer_of(transport.send(to(server)));
    CHECK(calls == 2);
    REQUIRE(server.requests().size() == 2);
    CHECK(find_header(server.requests()[1].headers, "X-Configured"));
}

TEST_CASE("winhttp: a function of the user's that throws is failure::other, not delivered") {
    const loopback_service server;
    winhttp_transport transport{[](HINTERNET) { throw std::runtime_error{"no"}; }};
    const transport_failure failed = failure_of(transport.send(to(server)));
    CHECK(failed.kind == failure::other);
    CHECK(failed.message == "no");
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(server.connections() == 0);
}

TEST_CASE("winhttp: an https URL whose server does not speak TLS is failure::tls, not delivered") {
    const loopback_service server;
    const transport_failure failed =
        failure_of(winhttp_transport{}.send(to("https://" + server.base_url().substr(7) + "/")));
    CHECK(failed.kind == failure::tls);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(server.requests().empty());
}

TEST_CASE("winhttp: errors that no test server brings about are mapped by kind") {
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
