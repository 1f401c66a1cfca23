#include <promptlayer/background_tracker.hpp>
#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_server.hpp>
#include <promptlayer/transports/curl.hpp>

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
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
#include <type_traits>
#include <utility>
#include <vector>

#ifdef PROMPTLAYER_TEST_TLS // by a build that has OpenSSL 3
#include <promptlayer/testing/conformance_tls.hpp>

#include <boost/asio/ssl.hpp>
#endif

namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;
using promptlayer::curl_transport;
using promptlayer::failure;
using promptlayer::find_header;
using promptlayer::header;
using promptlayer::http_request;
using promptlayer::http_response;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::testing::loopback_server;
using promptlayer::testing::scripted_response;
using ending = scripted_response::connection_ending;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

static_assert(promptlayer::Transport<curl_transport>);
static_assert(!promptlayer::AsyncTransport<curl_transport>);
static_assert(std::is_nothrow_move_constructible_v<curl_transport> &&
              std::is_nothrow_move_assignable_v<curl_transport>);
static_assert(!std::is_copy_constructible_v<curl_transport> && !std::is_copy_assignable_v<curl_transport>);

constexpr auto long_enough = std::chrono::milliseconds{20s};
constexpr std::string_view valid_body = R"({"prompt_name":"a","request_id":1})";

http_request to(std::string url) {
    http_request request;
    request.method = "POST";
    request.url = std::move(url);
    request.headers = {{"X-API-KEY", "pl_loopback"}, {"Content-Type", "application/json"}};
    request.body = valid_body;
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

scripted_response body(std::string bytes, ending then = ending::keep_alive) {
    scripted_response answer;
    answer.response.body = std::move(bytes);
    answer.ending = then;
    return answer;
}

scripted_response only(ending then) {
    scripted_response answer;
    answer.ending = then;
    return answer;
}

scripted_response late(std::chrono::milliseconds delay) {
    scripted_response answer;
    answer.delay = delay;
    return answer;
}

/// Takes connections and says nothing.
struct silent_listener {
    boost::asio::io_context context{};
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};

    std::string authority() const { return "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()); }
};

/// Reads a request without a body and answers it.
void answer_on(auto& stream) {
    std::string text;
    boost::system::error_code ignored;
    boost::asio::read_until(stream, boost::asio::dynamic_buffer(text), "\r\n\r\n", ignored);
    boost::asio::write(stream, boost::asio::buffer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"sv),
                       ignored);
}

/// What a server says on an idle connection is not the next answer: a new connection is made, and kept. What
/// `secure` makes of a socket is spoken over.
void check_unasked(curl_transport& transport, const std::string& scheme, auto secure) {
    silent_listener listener;
    std::promise<void> idle, said;
    std::thread server{[&] {
        boost::system::error_code ignored;
        tcp::socket first = listener.acceptor.accept();
        first.set_option(tcp::no_delay{true}, ignored);
        auto&& one = secure(first);
        answer_on(one);
        idle.get_future().wait();
        boost::asio::write(one, boost::asio::buffer("HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n"sv),
                           ignored);
        said.set_value();
        tcp::socket second = listener.acceptor.accept();
        auto&& other = secure(second);
        answer_on(other);
        answer_on(other);
    }};
    http_request request = to(scheme + "://" + listener.authority() + "/");
    request.body.clear();
    CHECK(answer_of(transport.send(request)).body == "ok");
    idle.set_value();
    said.get_future().wait();
    request.timeout = 5s;
    for (int i = 0; i < 2; ++i) {
        const transport_result outcome = transport.send(request);
        CHECK((outcome && outcome->body == "ok"));
    }
    tcp::socket last{listener.context}; // if one is still waited for
    boost::system::error_code ignored;
    last.connect(listener.acceptor.local_endpoint(), ignored);
    last.close(ignored);
    transport = curl_transport{};
    server.join();
}

#ifdef PROMPTLAYER_TEST_TLS
/// A server's side of TLS, and a transport that trusts it.
struct tls_fixture {
    promptlayer::detail::identity authority = promptlayer::detail::make_identity("authority", "", nullptr);
    boost::asio::ssl::context server{boost::asio::ssl::context::tls_server};

    tls_fixture() {
        const auto shown = promptlayer::detail::make_identity("127.0.0.1", "IP:127.0.0.1", &authority);
        const std::string chain = promptlayer::detail::pem_of(shown.certificate.get());
        const std::string key = promptlayer::detail::pem_of(shown.key.get());
        server.use_certificate_chain(boost::asio::buffer(chain));
        server.use_private_key(boost::asio::buffer(key), boost::asio::ssl::context::pem);
    }

    curl_transport transport() const {
        return curl_transport{[pem = promptlayer::detail::pem_of(authority.certificate.get())](CURL* easy) {
            curl_blob blob{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
            curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
        }};
    }
};
#endif

std::string address_nobody_listens_on() { return "http://" + silent_listener{}.authority() + "/"; }

/// Calls `cancel` from another thread once `in_flight` is true.
template <class InFlight>
transport_result cancelled_when(InFlight in_flight, curl_transport& transport, const http_request& request) {
    std::thread other{[&] {
        while (!in_flight())
            std::this_thread::yield();
        transport.cancel();
    }};
    transport_result outcome = transport.send(request);
    other.join();
    return outcome;
}

/// The request, changed so, is refused unsent in words of the transport's own.
void check_refused(curl_transport& transport, http_request request, const auto& change) {
    change(request);
    const transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::other);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK_FALSE(failed.message.empty());
    CHECK(failed.message.find("Injected") == failed.message.npos);
}

#ifndef _WIN32
/// Sets a variable of the environment for a while.
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

TEST_CASE("curl: a transport keeps its contract") {
    promptlayer::testing::conformance_options options;
#ifdef PROMPTLAYER_TEST_TLS
    promptlayer::testing::tls_servers servers;
    options.tls = std::ref(servers);
    curl_transport transport{[pem = servers.authority()](CURL* easy) {
        curl_blob authority{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &authority);
    }};
#else
    curl_transport transport;
#endif
    const auto report = promptlayer::testing::check_transport(transport, options);
    CHECK_MESSAGE(report.ok(), report);
}

TEST_CASE("curl: a client tracks over it, and errors of the service come back typed") {
    const loopback_server server;
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    promptlayer::client client{config, curl_transport{}};
    const auto tracked = client.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE(tracked);
    CHECK(tracked->success);

    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, curl_transport{}};
    const auto refused = stranger.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == promptlayer::errc::unauthorized);
    CHECK(server.connections() == 2);
}

TEST_CASE("curl: method, target, headers and body arrive as they stand, and libcurl adds no header but Host "
          "and the length") {
    const loopback_server server;
    curl_transport transport;
    http_request request = to(server.base_url() + "/a/../b/./c?q=%7e&r=1");
    request.headers = {{"X-One", "1"},      {"X-Empty", ""},         {"X-Blank", " \t"},    {"X-One", "2"},
                       {"X-Colon", "a: b"}, {"X-Semicolon", "a; b"}, {"X-Utf8", "\xC3\xA9"}};
    request.body = std::string{"\0a\r\n\0\xFF", 6};
    answer_of(transport.send(request));

    REQUIRE(server.requests().size() == 1);
    http_request arrived = server.requests()[0];
    CHECK(arrived.method == "POST");
    CHECK(arrived.url == "/a/../b/./c?q=%7e&r=1");
    CHECK(arrived.body == request.body);
    std::vector<header> expected = request.headers;
    expected[2].value = "";
    expected.push_back({"Host", server.base_url().substr(7)});
    expected.push_back({"Content-Length", "6"});
    const auto by_name = [](const header& a, const header& b) { return a.name < b.name; };
    std::stable_sort(expected.begin(), expected.end(), by_name);
    std::stable_sort(arrived.headers.begin(), arrived.headers.end(), by_name);
    CHECK(arrived.headers == expected);
}

TEST_CASE("curl: headers that libcurl has a value of its own for are sent once, with the request's value") {
    const loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    request.headers = {{"accept", "application/json"},
                       {"USER-AGENT", "mine/1"},
                       {"content-type", ""},
                       {"Host", "example.com"}};
    answer_of(transport.send(request));
    REQUIRE(server.requests().size() == 1);
    const std::vector<header> headers = server.requests()[0].headers;
    CHECK(headers.size() == 5);
    CHECK(*find_header(headers, "Accept") == "application/json");
    CHECK(*find_header(headers, "User-Agent") == "mine/1");
    CHECK(find_header(headers, "Content-Type")->empty());
    CHECK(*find_header(headers, "Host") == "example.com");
}

TEST_CASE("curl: a body of megabytes is sent with its length, not in chunks, and without waiting for 100 "
          "Continue") {
    const loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    request.body.assign(3 * 1024 * 1024 + 1, 'x');
    CHECK(answer_of(transport.send(request)).status == 400);
    REQUIRE(server.requests().size() == 1);
    const http_request arrived = server.requests()[0];
    CHECK(arrived.body == request.body);
    CHECK(*find_header(arrived.headers, "Content-Length") == std::to_string(request.body.size()));
    CHECK_FALSE(find_header(arrived.headers, "Transfer-Encoding"));
    CHECK_FALSE(find_header(arrived.headers, "Expect"));
}

TEST_CASE("curl: an answer that comes while the body is still being sent is the answer") {
    const loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    request.body.assign(16 * 1024 * 1024, 'x');
    CHECK(answer_of(transport.send(request)).status == 413);
    CHECK(server.requests().empty());
}

TEST_CASE("curl: a request that asks for 100 Continue says so, and the interim answer is not the answer") {
    const loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    request.headers.push_back({"Expect", "100-continue"});
    CHECK(answer_of(transport.send(request)).status == 200);
    REQUIRE(server.requests().size() == 1);
    CHECK(*find_header(server.requests()[0].headers, "Expect") == "100-continue");
}

TEST_CASE("curl: a 417 to a request that asks for 100 Continue does not make libcurl send it again") {
    loopback_server server{
        [](const http_request&) { return raw("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"); }};
    curl_transport transport;
    http_request request = to(server);
    request.headers.push_back({"Expect", "100-continue"});
    CHECK(failure_of(transport.send(request)).kind == failure::other);
    CHECK(server.requests().size() <= 1);
    CHECK(server.connections() == 1);
}

TEST_CASE("curl: every method goes with and without a body") {
    loopback_server server;
    curl_transport transport;
    const auto sent = [&](std::string method, std::string content) {
        http_request request = to(server);
        request.method = std::move(method);
        request.body = std::move(content);
        request.headers = {};
        server.respond({});
        const http_response answer = answer_of(transport.send(request));
        CHECK(answer.status == 200);
        CHECK(answer.body.empty() == (request.method == "HEAD"));
        const http_request arrived = server.requests().back();
        CHECK(arrived.method == request.method);
        CHECK(arrived.body == request.body);
        const std::string* const length = find_header(arrived.headers, "Content-Length");
        CHECK(arrived.headers.size() == (length ? 2 : 1));
        return length ? *length : "none";
    };
    CHECK(sent("GET", "") == "none");
    CHECK(sent("GET", "abc") == "3");
    CHECK(sent("HEAD", "") == "none");
    CHECK(sent("DELETE", "") == "none");
    CHECK(sent("DELETE", "abc") == "3");
    CHECK(sent("POST", "") == "0");
    CHECK(sent("PUT", "") == "0");
    CHECK(sent("PATCH", "abc") == "3");
    CHECK(sent("PROPFIND", "abc") == "3");
    CHECK(server.connections() == 1);
}

TEST_CASE("curl: a line break or NUL in method, URL or header is refused, and nothing is sent") {
    const loopback_server server;
    curl_transport transport;
    const auto refused = [&](auto change) { check_refused(transport, to(server), change); };
    for (const std::string_view evil :
         {std::string_view{"\r\nInjected: 1"}, std::string_view{"\rInjected: 1"},
          std::string_view{"\nInjected: 1"}, std::string_view{"\0Injected", 9}}) {
        refused([&](http_request& r) { r.headers[0].value += evil; });
        refused([&](http_request& r) { r.headers[0].name += evil; });
        refused([&](http_request& r) { r.method += evil; });
        refused([&](http_request& r) { r.url += evil; });
    }
    CHECK(server.connections() == 0);
}

TEST_CASE("curl: what libcurl would send as something else is refused, and nothing is sent") {
    const loopback_server server;
    curl_transport transport;
    const auto refused = [&](auto change) { check_refused(transport, to(server), change); };
    refused([](http_request& r) { r.method = ""; });
    refused([](http_request& r) { r.method = "GET /other"; });
    refused([](http_request& r) { r.method = "HEAD"; });
    refused([](http_request& r) { r.headers[0].name = ""; });
    refused([](http_request& r) { r.headers[0].name = "X-API-KEY:"; });
    refused([](http_request& r) { r.headers[0].name = "X API KEY"; });
    refused([](http_request& r) { r.headers[0].name = "X;"; });
    refused([](http_request& r) { r.url = ""; });
    refused([](http_request& r) { r.url = r.url.substr(7); });
    refused([](http_request& r) { r.url = "https://"; });
    refused([](http_request& r) { r.url += " x"; });
    refused([](http_request& r) { r.url += "\xC3\xA9"; });
    refused([](http_request& r) { r.url.insert(7, "user:password@"); });
    refused([](http_request& r) { r.url += "#fragment"; });
    refused([](http_request& r) { r.headers[0].value = "\v"; });
    refused([](http_request& r) { r.headers[0].value = "a\x7F"; });
    refused([](http_request& r) { r.headers.push_back({"content-length", "3"}); });
    refused([](http_request& r) { r.headers.push_back({"Transfer-Encoding", "chunked"}); });
    refused([](http_request& r) {
        r.headers.push_back({"Host", "a"});
        r.headers.push_back({"host", "b"});
    });
    CHECK(server.connections() == 0);
}

TEST_CASE("curl: only http and https") {
    const auto file = std::filesystem::temp_directory_path() /
                      ("promptlayer_curl_file_" + std::to_string(loopback_server{}.port()));
    std::ofstream{file} << "secret";
    curl_transport transport;
    for (const std::string& url : {"file://" + file.string(), std::string{"ftp://127.0.0.1/"},
                                   std::string{"gopher://127.0.0.1/"}, std::string{"httpx://127.0.0.1/"}}) {
        const transport_failure failed = failure_of(transport.send(to(url)));
        CHECK(failed.kind == failure::other);
        CHECK_FALSE(failed.maybe_delivered);
    }
    curl_transport redirected{
        [&](CURL* easy) { curl_easy_setopt(easy, CURLOPT_URL, ("file://" + file.string()).c_str()); }};
    CHECK(failure_of(redirected.send(to("https://127.0.0.1/"))).kind == failure::other);
    std::filesystem::remove(file);
}

TEST_CASE("curl: no redirect is followed, whatever its status") {
    loopback_server server;
    const loopback_server elsewhere;
    curl_transport transport;
    for (const int status : {301, 302, 303, 307, 308}) {
        scripted_response redirect;
        redirect.response = {status, {{"Location", elsewhere.base_url() + "/rest/track-prompt"}}, "moved"};
        server.respond(redirect);
        const http_response answer = answer_of(transport.send(to(server)));
        CHECK(answer.status == status);
        CHECK(answer.body == "moved");
        CHECK(*find_header(answer.headers, "Location") == elsewhere.base_url() + "/rest/track-prompt");
    }
    CHECK(server.requests().size() == 5);
    CHECK(elsewhere.connections() == 0);
}

TEST_CASE("curl: any status is an answer") {
    loopback_server server;
    curl_transport transport;
    for (const int status : {201, 204, 304, 400, 401, 404, 422, 429, 500, 503, 599}) {
        scripted_response answer;
        answer.response = {status, {{"Retry-After", "3"}}, ""};
        server.respond(answer);
        const http_response received = answer_of(transport.send(to(server)));
        CHECK(received.status == status);
        CHECK(*find_header(received.headers, "Retry-After") == "3");
    }
}

TEST_CASE("curl: headers come back in order, with repeats, trimmed, folded lines joined") {
    loopback_server server;
    server.respond(raw("HTTP/1.1 200 OK\r\nb:  2 \t\r\nA: 1\r\nb:3\r\nEmpty:\r\nFolded: x\r\n  y: z\r\n"
                       "Content-Length: 0\r\n\r\n"));
    curl_transport transport;
    CHECK(answer_of(transport.send(to(server))).headers == std::vector<header>{{"b", "2"},
                                                                               {"A", "1"},
                                                                               {"b", "3"},
                                                                               {"Empty", ""},
                                                                               {"Folded", "x y: z"},
                                                                               {"Content-Length", "0"}});
}

TEST_CASE("curl: headers of interim answers and trailers are not among the headers") {
    loopback_server server;
    server.respond(
        raw("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Interim: 2\r\n\r\n"
            "HTTP/1.1 200 OK\r\nX-Final: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
            "3\r\nabc\r\n4;extension=1\r\ndefg\r\n0\r\nX-Trailer: 4\r\n\r\n",
            ending::keep_alive));
    curl_transport transport;
    const http_response answer = answer_of(transport.send(to(server)));
    CHECK(answer == http_response{200, {{"X-Final", "3"}, {"Transfer-Encoding", "chunked"}}, "abcdefg"});
    CHECK(answer_of(transport.send(to(server))).status == 200);
    CHECK(server.connections() == 1);
}

TEST_CASE("curl: a trailer changes no header") {
    loopback_server server;
    curl_transport transport;
    server.respond(raw("HTTP/1.1 200 OK\r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "1\r\na\r\n0\r\nHTTP: y\r\nRetry-After: 9\r\nX-Evil: 1\r\n\r\n"));
    const http_response answer = answer_of(transport.send(to(server)));
    CHECK(answer.body == "a");
    CHECK(*find_header(answer.headers, "Retry-After") == "3");
    CHECK_FALSE(find_header(answer.headers, "X-Evil"));
}

TEST_CASE(
    "curl: an answer that ends within its headers is failure::reset, maybe delivered, whatever its status") {
    loopback_server server;
    curl_transport transport;
    for (const char* cut : {"HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 204 No Content\r\n",
                            "HTTP/1.1 429 Too Many Requests\r\nRetry-Aft"}) {
        server.respond(raw(cut));
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK(failed.kind == failure::reset);
        CHECK(failed.maybe_delivered);
    }
}

TEST_CASE("curl: more than 256 KiB of headers is a failure, in the answer or in interim ones") {
    loopback_server server;
    curl_transport transport;
    std::string lines;
    while (lines.size() < 250 * 1024)
        lines += "X-Filler: " + std::string(1000, 'x') + "\r\n";
    server.respond(raw("HTTP/1.1 200 OK\r\n" + lines + "Content-Length: 0\r\n\r\n"));
    CHECK(answer_of(transport.send(to(server))).headers.size() > 200);

    for (const std::string& many :
         {"HTTP/1.1 200 OK\r\n" + lines + lines,
          "HTTP/1.1 103 Early Hints\r\n" + lines + "\r\nHTTP/1.1 200 OK\r\n" + lines}) {
        server.respond(raw(many + "Content-Length: 0\r\n\r\n"));
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
        CHECK(failed.message == "the headers of the response exceed 256 KiB");
    }
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE(
    "curl: a body up to max_response_bytes is returned whole, a longer one with one byte more than that") {
    loopback_server server;
    curl_transport transport;
    std::string content(100'000, '\0');
    for (std::size_t i = 0; i < content.size(); ++i)
        content[i] = static_cast<char>(i * 31 % 251);
    const auto received = [&](std::size_t most) {
        scripted_response answer = body(content);
        answer.response.headers = {{"X-Kept", "1"}};
        server.respond(answer);
        http_request request = to(server);
        request.max_response_bytes = most;
        const http_response got = answer_of(transport.send(request));
        CHECK(got.status == 200);
        CHECK(*find_header(got.headers, "X-Kept") == "1");
        CHECK(content.starts_with(got.body));
        return got.body.size();
    };
    CHECK(received(100'000) == 100'000);
    CHECK(received(99'999) == 100'000);
    CHECK(received(99'998) == 99'999);
    CHECK(received(50'000) == 50'001);
    CHECK(received(1) == 2);
    CHECK(received(0) == 1);
    CHECK(received(std::numeric_limits<std::size_t>::max()) == 100'000);
    CHECK(received(std::numeric_limits<std::size_t>::max() - 1) == 100'000);
}

TEST_CASE("curl: reading stops at max_response_bytes while the body arrives, whatever length is announced") {
    loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    request.max_response_bytes = 100;
    for (const std::string framing :
         {"Content-Length: 1000000\r\n\r\n", "\r\n", "Transfer-Encoding: chunked\r\n\r\nF4240\r\n"}) {
        // The rest of the body never comes: to wait for it would be a timeout.
        server.respond(raw("HTTP/1.1 200 OK\r\n" + framing + std::string(1000, 'x'), ending::keep_alive));
        const http_response answer = answer_of(transport.send(request));
        CHECK(answer.status == 200);
        CHECK(answer.body == std::string(101, 'x'));
    }
    CHECK(answer_of(transport.send(request)).status == 200);
    CHECK(server.connections() == 4);
}

TEST_CASE("curl: an answer whose length is not one number is failure::other, maybe delivered") {
    loopback_server server;
    curl_transport transport;
    for (const char* lengths :
         {"2\r\nContent-Length: 5", "5\r\nContent-Length: 2", "2, 5", "2, 2", "-1", "+2", "0x2", "2abc", "",
          "9223372036854775807", "18446744073709551618", "99999999999999999999999"}) {
        server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: " + std::string{lengths} + "\r\n\r\nHELLO"));
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"));
    CHECK(answer_of(transport.send(to(server))).body == "ok");
}

TEST_CASE("curl: 101 is an answer, and its connection is not used again") {
    loopback_server server;
    server.respond(raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ending::keep_alive));
    curl_transport transport;
    const http_response answer = answer_of(transport.send(to(server)));
    CHECK(answer == http_response{101, {{"Upgrade", "x"}}, ""});
    CHECK(answer_of(transport.send(to(server))).status == 200);
    CHECK(server.connections() == 2);
}

TEST_CASE("curl: a body that ends before its announced length is failure::reset, never a part of it") {
    loopback_server server;
    curl_transport transport;
    const auto broken = [&](scripted_response answer) {
        server.respond(std::move(answer));
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK(failed.kind == failure::reset);
        CHECK(failed.maybe_delivered);
        CHECK_FALSE(failed.message.empty());
    };
    broken(body(std::string(1000, 'x'), ending::close_midway));
    broken(body(std::string(1000, 'x'), ending::reset_midway));
    broken(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"));
    broken(raw("HTTP/1.1 200 OK\r\n\r\nno length", ending::reset_midway));
    CHECK(server.requests().size() == 4);
}

TEST_CASE("curl: a body without a length is whole when the connection is closed in order") {
    loopback_server server;
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nno length"));
    curl_transport transport;
    CHECK(answer_of(transport.send(to(server))).body == "no length");
}

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("curl: over https a body without a length is failure::reset, as it may have been cut") {
    loopback_server server;
    promptlayer::testing::tls_servers servers;
    curl_transport transport{[pem = servers.authority()](CURL* easy) {
        curl_blob authority{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &authority);
    }};
    http_request request = to(servers(promptlayer::testing::certificate::good, server.port()) + "/");
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nno length"));
    const transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::reset);
    CHECK(failed.maybe_delivered);

    request.max_response_bytes = 1;
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\nno length"));
    CHECK(answer_of(transport.send(request)).body == "no");
    for (const int status : {101, 204, 304}) {
        server.respond(raw("HTTP/1.1 " + std::to_string(status) + " No body\r\n\r\n", ending::keep_alive));
        CHECK(answer_of(transport.send(request)).status == status);
    }
    server.respond(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"));
    CHECK(answer_of(transport.send(request)).body == "a");
    request.method = "HEAD";
    request.body.clear();
    server.respond(raw("HTTP/1.1 200 OK\r\n\r\n"));
    CHECK(answer_of(transport.send(request)).status == 200);
}

#endif

TEST_CASE("curl: a connection that ends without an answer is failure::reset, maybe delivered, and not tried "
          "again when new") {
    loopback_server server;
    for (const scripted_response& end : {only(ending::reset_before_answer), raw("")}) {
        server.respond(end);
        curl_transport transport;
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK(failed.kind == failure::reset);
        CHECK(failed.maybe_delivered);
    }
    CHECK(server.requests().size() == 2);
}

TEST_CASE("curl: what is not HTTP is failure::other, maybe delivered") {
    loopback_server server;
    curl_transport transport;
    for (const std::string& garbage : {std::string{"SSH-2.0-server\r\n"}, std::string{"\0\1\2\3\4\5\6\7", 8},
                                       std::string{"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc"}}) {
        server.respond(raw(garbage));
        const transport_failure failed = failure_of(transport.send(to(server)));
        CHECK(failed.kind == failure::other);
        CHECK(failed.maybe_delivered);
        CHECK_FALSE(failed.message.empty());
    }
}

TEST_CASE("curl: requests one after the other share a connection, also after the transport has moved") {
    const loopback_server server;
    curl_transport first;
    answer_of(first.send(to(server)));
    curl_transport second{std::move(first)};
    answer_of(second.send(to(server)));
    first = std::move(second);
    answer_of(first.send(to(server)));
    CHECK(server.connections() == 1);
    CHECK(server.requests().size() == 3);

    const transport_failure failed = failure_of(second.send(to(server))); // moved from
    CHECK(failed.kind == failure::other);
    CHECK_FALSE(failed.maybe_delivered);
    second.cancel();
    CHECK(server.requests().size() == 3);
}

TEST_CASE(
    "curl: a kept connection that the server has closed is replaced, and the POST arrives with its body") {
    loopback_server server;
    curl_transport transport;
    for (const ending end : {ending::close_unannounced, ending::close}) {
        server.respond(only(end));
        answer_of(transport.send(to(server)));
    }
    CHECK(answer_of(transport.send(to(server))).status == 200);
    CHECK(server.connections() == 3);
    REQUIRE(server.requests().size() == 3);
    CHECK(server.requests()[2].body == valid_body);
}

TEST_CASE(
    "curl: a kept connection that breaks under the request is replaced, and the POST arrives with its body") {
    loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    request.body = R"({"prompt_name":")" + std::string(300'000, 'x') + R"(","request_id":1})";
    for (const scripted_response& end : {only(ending::reset_before_answer), raw("")}) {
        answer_of(transport.send(request));
        const std::size_t before = server.connections();
        server.respond(end);
        CHECK(answer_of(transport.send(request)).status == 200);
        CHECK(server.connections() == before + 1);
    }
    REQUIRE(server.requests().size() == 6);
    for (const http_request& arrived : server.requests())
        CHECK(arrived.body == request.body);
}

#if LIBCURL_VERSION_NUM >= 0x075000

TEST_CASE("curl: what a server says on an idle connection is not taken for the next answer") {
    curl_transport transport;
    check_unasked(transport, "http", [](tcp::socket& socket) -> tcp::socket& { return socket; });
}

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("curl: nor what it says there over TLS") {
    tls_fixture tls;
    curl_transport transport = tls.transport();
    check_unasked(transport, "https", [&](tcp::socket& socket) {
        boost::asio::ssl::stream<tcp::socket&> stream{socket, tls.server};
        boost::system::error_code ignored;
        stream.handshake(boost::asio::ssl::stream_base::server, ignored);
        return stream;
    });
}

#endif
#endif

#ifdef PROMPTLAYER_TEST_TLS

TEST_CASE("curl: a response that nobody asked for, held by the TLS library, is not the next response") {
    silent_listener listener;
    tls_fixture tls;
    std::atomic<bool> over{false};
    std::thread server{[&] {
        boost::system::error_code failed;
        tcp::socket socket = listener.acceptor.accept();
        boost::asio::ssl::stream<tcp::socket&> stream{socket, tls.server};
        stream.handshake(boost::asio::ssl::stream_base::server, failed);
        std::string text;
        boost::asio::read_until(stream, boost::asio::dynamic_buffer(text), "\r\n\r\n", failed);
        for (const auto record : {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"sv,
                                  "firstHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked"sv})
            boost::asio::write(stream, boost::asio::buffer(record), failed);
        listener.acceptor.non_blocking(true); // none comes if the first is used again
        while (!over) {
            tcp::socket next = listener.acceptor.accept(failed);
            if (failed) {
                std::this_thread::yield();
                continue;
            }
            next.non_blocking(false);
            boost::asio::ssl::stream<tcp::socket&> second{next, tls.server};
            second.handshake(boost::asio::ssl::stream_base::server, failed);
            answer_on(second);
        }
    }};
    curl_transport transport = tls.transport();
    http_request request = to("https://" + listener.authority() + "/");
    request.body.clear();
    const transport_result first = transport.send(request), second = transport.send(request);
    over = true;
    server.join();
    CHECK(answer_of(first).body == "first");
    CHECK(answer_of(second).body == "ok");
}

TEST_CASE("curl: a new connection resumes the TLS session of the one before") {
    silent_listener listener;
    tls_fixture tls;
    std::thread server{[&] {
        for (int i = 0; i < 2; ++i) { // closes each after its response
            tcp::socket socket = listener.acceptor.accept();
            boost::asio::ssl::stream<tcp::socket&> stream{socket, tls.server};
            boost::system::error_code ignored;
            stream.handshake(boost::asio::ssl::stream_base::server, ignored);
            answer_on(stream);
        }
    }};
    curl_transport transport = tls.transport();
    http_request request = to("https://" + listener.authority() + "/");
    request.body.clear();
    const transport_result first = transport.send(request), second = transport.send(request);
    server.join();
    CHECK(answer_of(first).body == "ok");
    CHECK(answer_of(second).body == "ok");
    CHECK(SSL_CTX_sess_hits(tls.server.native_handle()) == 1);
}

#endif

TEST_CASE("curl: a request that was sent on a broken kept connection is maybe delivered, whatever the second "
          "try comes to") {
    loopback_server server;
    curl_transport transport;
    answer_of(transport.send(to(server)));
    server.respond(only(ending::reset_before_answer));
    server.respond(only(ending::reset_before_answer));
    const transport_failure failed = failure_of(transport.send(to(server)));
    CHECK(failed.kind == failure::reset);
    CHECK(failed.maybe_delivered);
    CHECK(server.requests().size() == 3);
}

TEST_CASE("curl: a host without an address is failure::resolve, not delivered") {
    curl_transport transport;
    const transport_failure failed = failure_of(transport.send(to("http://promptlayer.invalid/")));
    if (failed.kind == failure::timeout)
        return; // the resolver of this machine does not answer
    CHECK(failed.kind == failure::resolve);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK_FALSE(failed.message.empty());
}

TEST_CASE(
    "curl: a port that nobody listens on is failure::connect, not delivered, and the message says where") {
    curl_transport transport;
    const transport_failure failed = failure_of(transport.send(to(address_nobody_listens_on())));
    CHECK(failed.kind == failure::connect);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(failed.message.find("127.0.0.1") != failed.message.npos);
}

TEST_CASE("curl: an https URL whose server does not speak TLS is failure::tls, not delivered") {
    const loopback_server server;
    curl_transport transport;
    const transport_failure failed =
        failure_of(transport.send(to("https://" + server.base_url().substr(7) + "/")));
    CHECK(failed.kind == failure::tls);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(server.requests().empty());
}

TEST_CASE("curl: a connection that is reset within the TLS handshake is failure::connect, not delivered") {
    silent_listener listener;
    std::thread peer{[&] {
        tcp::socket socket = listener.acceptor.accept();
        char hello = 0;
        socket.receive(boost::asio::buffer(&hello, 1));
        socket.set_option(boost::asio::socket_base::linger{true, 0});
    }};
    curl_transport transport;
    const transport_failure failed = failure_of(transport.send(to("https://" + listener.authority() + "/")));
    peer.join();
    CHECK(failed.kind == failure::connect);
    CHECK_FALSE(failed.maybe_delivered);
}

TEST_CASE("curl: an earlier reset does not make failure::connect of a server that does not speak TLS") {
    loopback_server server;
    server.respond(only(ending::reset_before_answer));
    curl_transport transport;
    CHECK(failure_of(transport.send(to(server))).kind == failure::reset);
    const std::string url = "https://" + server.base_url().substr(7) + "/";
    CHECK(failure_of(transport.send(to(url))).kind == failure::tls);
}

TEST_CASE("curl: codes of libcurl that no test server brings about are mapped by kind") {
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

TEST_CASE("curl: no answer in time is failure::timeout, maybe delivered") {
    loopback_server server;
    server.respond(late(long_enough));
    curl_transport transport;
    http_request request = to(server);
    request.timeout = 200ms;
    const auto start = steady_clock::now();
    const transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK(failed.maybe_delivered);
    CHECK(steady_clock::now() - start >= 200ms);
    CHECK(steady_clock::now() - start < 10s);
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("curl: the timeout is for the whole exchange: an answer that trickles is cut off") {
    loopback_server server;
    scripted_response trickle = body(std::string(1000, 'x'));
    trickle.byte_delay = 20ms;
    server.respond(trickle);
    curl_transport transport;
    http_request request = to(server);
    request.timeout = 200ms;
    const auto start = steady_clock::now();
    CHECK(failure_of(transport.send(request)).kind == failure::timeout);
    CHECK(steady_clock::now() - start < 10s);
}

TEST_CASE("curl: a timeout before the request is sent is not maybe delivered") {
    const silent_listener listener; // no TLS handshake comes about
    curl_transport transport;
    http_request request = to("https://" + listener.authority() + "/");
    request.timeout = 200ms;
    const transport_failure failed = failure_of(transport.send(request));
    CHECK(failed.kind == failure::timeout);
    CHECK_FALSE(failed.maybe_delivered);
}

TEST_CASE("curl: a timeout of zero or less fails at once and sends nothing; the longest is no overflow") {
    const loopback_server server;
    curl_transport transport;
    http_request request = to(server);
    for (const auto timeout : {0ms, -1ms, std::chrono::milliseconds::min()}) {
        request.timeout = timeout;
        const transport_failure failed = failure_of(transport.send(request));
        CHECK(failed.kind == failure::timeout);
        CHECK_FALSE(failed.maybe_delivered);
    }
    CHECK(server.connections() == 0);
    for (const auto timeout : {std::chrono::milliseconds::max(), std::chrono::milliseconds{1LL << 32}}) {
        request.timeout = timeout;
        CHECK(answer_of(transport.send(request)).status == 200);
    }
}

TEST_CASE("curl: cancel ends the request in flight at once, and only that one") {
    loopback_server server;
    curl_transport transport;
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

TEST_CASE(
    "curl: a background tracker closes in its time while the server hangs, and gives back what is left") {
    loopback_server server;
    scripted_response hangs;
    hangs.delay = 1h;
    server.respond(hangs);
    promptlayer::background_tracker tracker{{.api_key = "pl_loopback", .base_url = server.base_url()},
                                            curl_transport{}};
    for (std::int64_t id : {1, 2, 3})
        REQUIRE(tracker.track_prompt({.prompt_name = "a", .request_id = id}));
    while (server.requests().empty())
        std::this_thread::yield();
    const auto begun = std::chrono::steady_clock::now();
    const auto left = tracker.close(50ms);
    CHECK(std::chrono::steady_clock::now() - begun < 5s); // of a timeout of 30 s
    CHECK(left.size() == 3);
    CHECK(tracker.stats().handed_back == 3);
}

TEST_CASE("curl: a request that is cancelled before it was sent is not maybe delivered") {
    silent_listener listener;
    curl_transport transport;
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

TEST_CASE("curl: cancel from another thread at any moment leaves a transport that works") {
    const loopback_server server;
    curl_transport transport;
    std::atomic<bool> done{false};
    std::thread other{[&] {
        while (!done) {
            transport.cancel();
            std::this_thread::yield();
        }
    }};
    int cancelled = 0;
    for (int i = 0; i < 100 || (cancelled == 0 && i < 100'000); ++i) {
        const transport_result outcome = transport.send(to(server));
        CHECK((outcome || outcome.error().kind == failure::cancelled));
        cancelled += outcome ? 0 : 1;
    }
    done = true;
    other.join();
    CHECK(cancelled > 0);
    CHECK(answer_of(transport.send(to(server))).status == 200);
}

TEST_CASE("curl: the user's function is called for each request, after the transport's own options") {
    const loopback_server server;
    int calls = 0;
    curl_transport transport{[&](CURL* easy) {
        ++calls;
        curl_easy_setopt(easy, CURLOPT_USERAGENT, "configured/1");
    }};
    answer_of(transport.send(to(server)));
    answer_of(transport.send(to(server)));
    CHECK(calls == 2);
    REQUIRE(server.requests().size() == 2);
    CHECK(*find_header(server.requests()[1].headers, "User-Agent") == "configured/1");
}

TEST_CASE("curl: a function of the user's that throws is failure::other, not delivered") {
    const loopback_server server;
    curl_transport transport{[](CURL*) { throw std::runtime_error{"no"}; }};
    const transport_failure failed = failure_of(transport.send(to(server)));
    CHECK(failed.kind == failure::other);
    CHECK_FALSE(failed.maybe_delivered);
    CHECK(server.connections() == 0);
}

TEST_CASE("curl: no cookie is kept") {
    loopback_server server;
    scripted_response answer;
    answer.response.headers = {{"Set-Cookie", "session=1; Path=/"}};
    server.respond(answer);
    curl_transport transport;
    const http_response first = answer_of(transport.send(to(server)));
    CHECK(find_header(first.headers, "Set-Cookie"));
    answer_of(transport.send(to(server)));
    REQUIRE(server.requests().size() == 2);
    CHECK_FALSE(find_header(server.requests()[1].headers, "Cookie"));
}

TEST_CASE("curl: transports on many threads are independent") {
    const loopback_server server;
    std::vector<std::thread> threads;
    std::atomic<int> answered{0};
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            curl_transport transport;
            for (int n = 0; n < 10; ++n) {
                const transport_result outcome = transport.send(to(server));
                answered += outcome && outcome->status == 200 ? 1 : 0;
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(answered == 40);
    CHECK(server.connections() == 4);
}

#ifndef _WIN32

TEST_CASE("curl: a .netrc is not read") {
    const loopback_server server;
    const auto home =
        std::filesystem::temp_directory_path() / ("promptlayer_curl_home_" + std::to_string(server.port()));
    std::filesystem::create_directories(home);
    std::ofstream{home / ".netrc"} << "machine 127.0.0.1 login somebody password secret\n";
    const variable set{"HOME", home.string()};
    curl_transport transport;
    answer_of(transport.send(to(server)));
    curl_transport asked{
        [](CURL* easy) { curl_easy_setopt(easy, CURLOPT_NETRC, long{CURL_NETRC_OPTIONAL}); }};
    answer_of(asked.send(to(server)));
    std::filesystem::remove_all(home);
    REQUIRE(server.requests().size() == 2);
    CHECK_FALSE(find_header(server.requests()[0].headers, "Authorization"));
    CHECK(find_header(server.requests()[1].headers, "Authorization")); // the file is where libcurl looks
}

TEST_CASE("curl: a proxy of the environment does not see a plain http request") {
    const loopback_server server;
    const loopback_server proxy;
    const variable http{"http_proxy", proxy.base_url()};
    const variable all{"all_proxy", proxy.base_url()};
    const variable none{"no_proxy", ""};
    curl_transport transport;
    CHECK(answer_of(transport.send(to(server))).status == 200);
    CHECK(proxy.connections() == 0);
    curl_transport asked{
        [&](CURL* easy) { curl_easy_setopt(easy, CURLOPT_PROXY, proxy.base_url().c_str()); }};
    CHECK(answer_of(asked.send(to(server))).status == 404);
    CHECK(proxy.requests().size() == 1);
}

TEST_CASE("curl: a proxy that refuses the tunnel is failure::connect, not delivered") {
    loopback_server proxy;
    const variable https{"https_proxy", proxy.base_url()};
    const variable none{"no_proxy", ""};
    for (const char* answer : {"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                               "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"}) {
        proxy.respond(raw(answer));
        curl_transport transport;
        const transport_failure failed = failure_of(transport.send(to("https://tunnelled.invalid/")));
        CHECK(failed.kind == failure::connect);
        CHECK_FALSE(failed.maybe_delivered);
    }
}

TEST_CASE("curl: a proxy of the environment tunnels https without seeing a header, and a tunnel is not the "
          "service") {
    loopback_server proxy;
    proxy.respond(raw("HTTP/1.1 200 Connection established\r\n\r\n", ending::keep_alive));
    const variable https{"https_proxy", proxy.base_url()};
    const variable none{"no_proxy", ""};
    curl_transport transport;
    const transport_failure failed =
        failure_of(transport.send(to("https://promptlayer.invalid/rest/track-prompt")));
    CHECK(failed.kind == failure::tls); // the proxy answers the handshake in plain text
    CHECK_FALSE(failed.maybe_delivered);
    REQUIRE(proxy.requests().size() == 1);
    CHECK(proxy.requests()[0].method == "CONNECT");
    CHECK_FALSE(find_header(proxy.requests()[0].headers, "X-API-KEY"));
}

#endif

} // namespace
