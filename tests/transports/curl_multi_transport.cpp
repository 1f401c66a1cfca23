#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef PROMPTLAYER_TEST_TLS // by a build that has OpenSSL 3
#include <promptlayer/testing/conformance_tls.hpp>
#endif

#ifdef PROMPTLAYER_TEST_NGHTTPD // the path of that program, by a build that has OpenSSL 3
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>

#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using namespace std::chrono_literals;
using promptlayer::curl_multi_transport;
using promptlayer::failure;
using promptlayer::http_request;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::testing::loopback_service;
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

static_assert(promptlayer::AsyncTransport<curl_multi_transport>);
static_assert(!promptlayer::Transport<curl_multi_transport>);
static_assert(std::is_nothrow_move_constructible_v<curl_multi_transport> &&
              std::is_nothrow_move_assignable_v<curl_multi_transport>);
static_assert(!std::is_copy_constructible_v<curl_multi_transport> &&
              !std::is_copy_assignable_v<curl_multi_transport>);

constexpr auto long_enough = std::chrono::milliseconds{20s};

http_request to(const std::string& url, std::string body = "{}") {
    http_request request;
    request.method = "POST";
    request.url = url;
    request.headers = {{"Content-Type", "application/json"}};
    request.body = std::move(body);
    request.timeout = long_enough;
    request.max_response_bytes = 1024 * 1024;
    return request;
}

http_request to(const scripted_server& server, std::string body = "{}") {
    return to(server.base_url() + "/", std::move(body));
}

/// One that no transport can send.
http_request refused() { return to("no URL"); }

/// Answers with the body of the request; one that is `never` far too late.
scripted_response echo(const http_request& request) {
    scripted_response answer;
    answer.response.body = request.body;
    answer.delay = request.body == "never" ? 2 * long_enough : 20ms;
    return answer;
}

/// Keeps outcomes, in the order in which they came.
auto into(std::vector<transport_result>& kept) {
    return [&kept](transport_result outcome) { kept.push_back(std::move(outcome)); };
}

/// Polls until that is so.
void poll_until(curl_multi_transport& transport, const std::function<bool()>& so) {
    const auto end = steady_clock::now() + long_enough;
    while (!so()) {
        REQUIRE(steady_clock::now() < end);
        transport.poll(10ms);
    }
}

/// Polls until nothing is in flight.
void finish(curl_multi_transport& transport) {
    poll_until(transport, [&] { return transport.poll() == 0; });
}

std::size_t count(const std::vector<transport_result>& outcomes, failure kind, bool maybe_delivered) {
    return static_cast<std::size_t>(
        std::count_if(outcomes.begin(), outcomes.end(), [&](const transport_result& outcome) {
            return !outcome && outcome.error().kind == kind &&
                   outcome.error().maybe_delivered == maybe_delivered;
        }));
}

TEST_CASE("curl_multi: a transport keeps its contract") {
    promptlayer::testing::conformance_options options;
#ifdef PROMPTLAYER_TEST_TLS
    promptlayer::testing::tls_servers servers;
    options.tls = std::ref(servers);
    curl_multi_transport transport{[pem = servers.ca_certificate()](CURL* easy) {
        curl_blob authority{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &authority);
    }};
#else
    curl_multi_transport transport;
#endif
    const auto report = promptlayer::testing::check_transport(
        transport, [&] { transport.poll(1ms); }, options);
    CHECK_MESSAGE(report.ok(), report);
}

TEST_CASE("curl_multi: a client tracks over it, and errors of the service come back typed") {
    const loopback_service server;
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    promptlayer::client client{config, curl_multi_transport{}};
    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, std::ref(client.transport())};
    std::vector<promptlayer::result<promptlayer::track_response>> kept, unauthorized;
    client.track_prompt({.prompt_name = "a", .request_id = 1}, [&](auto r) { kept.push_back(std::move(r)); });
    stranger.track_prompt({.prompt_name = "a", .request_id = 1},
                          [&](auto r) { unauthorized.push_back(std::move(r)); });
    finish(client.transport());
    REQUIRE((kept.size() == 1 && unauthorized.size() == 1));
    REQUIRE(kept[0]);
    CHECK(kept[0]->success);
    CHECK(unauthorized[0].error().code == promptlayer::errc::unauthorized);
}

TEST_CASE("curl_multi: each of many requests gets its own answer, over no more connections than allowed") {
    for (const int most : {0, 1, 3}) {
        const scripted_server server{echo};
        auto transport = most ? curl_multi_transport{nullptr, most} : curl_multi_transport{};
        std::vector<std::string> answers(24);
        for (std::size_t i = 0; i < answers.size(); ++i)
            transport.send(to(server, std::to_string(i)), [&answers, i](transport_result outcome) {
                answers[i] += outcome ? outcome->body : outcome.error().message;
            });
        finish(transport);
        for (std::size_t i = 0; i < answers.size(); ++i)
            CHECK(answers[i] == std::to_string(i));
        CHECK(server.connections() == (most ? static_cast<std::size_t>(most) : 8));
    }
}

TEST_CASE("curl_multi: no request waits for the answer to another") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> kept;
    transport.send(to(server, "never"), into(kept));
    transport.send(to(server, "soon"), into(kept));
    poll_until(transport, [&] { return !kept.empty(); });
    CHECK(kept[0].value().body == "soon");
    CHECK(transport.poll() == 1);
}

TEST_CASE("curl_multi: requests one after the other share a connection but no handle of libcurl") {
    const scripted_server server{echo};
    int new_handles = 0;
    curl_multi_transport transport{[&](CURL* easy) {
        curl_slist* cookies = nullptr; // a handle keeps them for good
        curl_easy_getinfo(easy, CURLINFO_COOKIELIST, &cookies);
        new_handles += cookies ? 0 : 1;
        curl_slist_free_all(cookies);
        curl_easy_setopt(easy, CURLOPT_COOKIELIST, "Set-Cookie: seen=1; domain=mark.invalid");
    }};
    std::vector<transport_result> kept;
    for (int i = 0; i < 10; ++i) {
        transport.send(to(server), into(kept));
        finish(transport);
    }
    CHECK(kept.size() == 10);
    CHECK(server.requests().size() == 10);
    CHECK(server.connections() == 1);
    CHECK(new_handles == 10);
}

TEST_CASE("curl_multi: poll does not wait, or as long as it is told, or until something happens") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    const auto start = steady_clock::now();
    CHECK(transport.poll(long_enough) == 0); // nothing is in flight
    std::vector<transport_result> first, kept;
    transport.send(to(server), into(first)); // makes the connection, for which libcurl sets timers of its own
    finish(transport);
    transport.send(to(server, "never"), into(kept));
    for (int i = 0; i < 1'000; ++i)
        CHECK(transport.poll() == 1);
    poll_until(transport, [&] { return server.requests().size() == 2; });
    CHECK(transport.poll(std::chrono::milliseconds::min()) == 1);
    CHECK(steady_clock::now() - start < long_enough / 2);

    int polls = 0;
    for (const auto end = steady_clock::now() + 200ms; steady_clock::now() < end; ++polls)
        transport.poll(20ms);
    CHECK(polls > 1);
    CHECK(polls < 40);

    transport.send(to(server, "soon"), into(kept));
    const auto sent = steady_clock::now();
    while (kept.empty() && steady_clock::now() - sent < long_enough)
        transport.poll(std::chrono::milliseconds::max());
    CHECK(steady_clock::now() - sent < long_enough / 2);
    CHECK(kept.size() == 1);
}

TEST_CASE("curl_multi: what cannot be sent is told by poll, and not within send") {
    const scripted_server server{echo};
    std::vector<transport_result> kept;
    curl_multi_transport transport;
    http_request request = to(server);
    request.headers[0].value = "a\r\nInjected: 1";
    transport.send(request, into(kept));
    request = to(server);
    request.timeout = std::chrono::milliseconds::min();
    transport.send(request, into(kept));
    curl_multi_transport throwing{[](CURL*) { throw std::runtime_error{"no"}; }};
    throwing.send(to(server), into(kept));
    CHECK(kept.empty());
    CHECK(transport.poll(long_enough) == 0);
    CHECK(throwing.poll(long_enough) == 0);
    REQUIRE(kept.size() == 3);
    CHECK(kept[0].error().kind == failure::other);
    CHECK(kept[1].error().kind == failure::timeout);
    CHECK(kept[2].error().kind == failure::other);
    for (const transport_result& outcome : kept)
        CHECK_FALSE(outcome.error().maybe_delivered);
    CHECK(server.connections() == 0);
}

TEST_CASE("curl_multi: a completion that sends what cannot be sent again and again does not keep poll") {
    curl_multi_transport transport;
    int calls = 0;
    promptlayer::completion again = [&](transport_result) {
        ++calls;
        transport.send(refused(), again);
    };
    transport.send(refused(), again);
    for (int i = 1; i <= 3; ++i) {
        CHECK(transport.poll() == 1);
        CHECK(calls == i);
    }
}

TEST_CASE("curl_multi: a completion may send, poll and cancel") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> kept, cancelled;
    transport.send(to(server, "never"), into(cancelled));
    transport.send(refused(), into(kept));
    transport.send(refused(), [&](transport_result outcome) {
        kept.push_back(std::move(outcome));
        transport.send(to(server, "sent"), [&](transport_result inner) {
            kept.push_back(std::move(inner));
            transport.cancel();
            CHECK(cancelled.empty());
            transport.send(to(server, "after"), into(kept));
        });
        while (kept.size() < 4)
            transport.poll(100ms);
    });
    transport.send(refused(), into(kept));
    finish(transport);
    REQUIRE(kept.size() == 5);
    CHECK(kept[3].value().body == "sent");
    CHECK(kept[4].value().body == "after");
    CHECK(count(cancelled, failure::cancelled, true) == 1);
}

TEST_CASE("curl_multi: what a completion throws goes to the caller of poll, and no other outcome is lost") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> kept;
    for (const bool throws : {true, false, true, false})
        transport.send(refused(), [&kept, throws](transport_result outcome) {
            kept.push_back(std::move(outcome));
            if (throws)
                throw std::runtime_error{"thrown"};
        });
    transport.send(to(server, "whole"), into(kept));
    for (const std::size_t before : {0u, 2u}) {
        CHECK_THROWS_WITH_AS(transport.poll(), "thrown", std::runtime_error);
        CHECK(kept.size() == before + 1);
    }
    finish(transport);
    REQUIRE(kept.size() == 5);
    CHECK(kept[4].value().body == "whole");
}

TEST_CASE("curl_multi: an empty completion is no harm") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    transport.send(to(server), nullptr);
    finish(transport);
    CHECK(server.requests().size() == 1);
}

TEST_CASE("curl_multi: cancel wakes poll and ends all that is in flight, sent or not") {
    const scripted_server server{echo};
    curl_multi_transport transport{nullptr, 2};
    std::vector<transport_result> first, kept;
    for (int i = 0; i < 2; ++i)
        transport.send(to(server), into(first));
    finish(transport);
    for (int i = 0; i < 5; ++i)
        transport.send(to(server, "never"), into(kept));
    std::thread other{[&] {
        while (server.requests().size() < 4)
            std::this_thread::yield();
        std::this_thread::sleep_for(50ms); // most likely poll waits by now
        transport.cancel();
    }};
    const auto start = steady_clock::now();
    while (transport.poll(long_enough) != 0) {
    }
    CHECK(steady_clock::now() - start < long_enough / 2);
    other.join();
    CHECK(kept.size() == 5);
    CHECK(count(kept, failure::cancelled, true) == 2);
    CHECK(count(kept, failure::cancelled, false) == 3);

    transport.send(to(server, "after"), into(kept));
    finish(transport);
    CHECK(kept.at(5).value().body == "after");
}

TEST_CASE("curl_multi: cancel before a request was sent sends nothing, and leaves later requests alone") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> kept;
    transport.cancel(); // nothing is in flight
    transport.send(to(server, "first"), into(kept));
    finish(transport);
    CHECK(kept.at(0).has_value());

    transport.send(to(server, "cancelled"), into(kept));
    transport.cancel();
    CHECK(kept.size() == 1);
    transport.send(to(server, "later"), into(kept));
    finish(transport);
    REQUIRE(kept.size() == 3);
    CHECK(count(kept, failure::cancelled, false) == 1);
    CHECK(kept[2].value().body == "later");
    CHECK(server.requests().size() == 2);
}

TEST_CASE("curl_multi: cancel from another thread at any moment leaves a transport that works") {
    const loopback_service server;
    curl_multi_transport transport;
    std::atomic<bool> done{false};
    std::thread other{[&] {
        while (!done) {
            transport.cancel();
            std::this_thread::yield();
        }
    }};
    std::vector<transport_result> kept;
    std::size_t sent = 0;
    while (sent < 200 || (count(kept, failure::cancelled, false) == 0 && sent < 100'000)) {
        for (int i = 0; i < 4; ++i, ++sent)
            transport.send(to(server), into(kept));
        finish(transport);
    }
    done = true;
    other.join();
    CHECK(kept.size() == sent);
    for (const transport_result& outcome : kept)
        CHECK((outcome || outcome.error().kind == failure::cancelled));
    transport.poll();
    transport.send(to(server), into(kept));
    finish(transport);
    CHECK(kept.back().has_value());
}

TEST_CASE("curl_multi: one that is destroyed lets its completions go, and a client says cancelled") {
    const scripted_server server{echo};
    std::vector<promptlayer::result<promptlayer::track_response>> kept;
    {
        promptlayer::client client{{.api_key = "pl_key", .base_url = server.base_url()},
                                   curl_multi_transport{}};
        for (int i = 0; i < 3; ++i)
            client.track_prompt({.prompt_name = "a", .request_id = 1},
                                [&](auto r) { kept.push_back(std::move(r)); });
        client.transport().poll();
        CHECK(kept.empty());
    }
    REQUIRE(kept.size() == 3);
    for (const auto& outcome : kept)
        CHECK(outcome.error().failure == failure::cancelled);
}

TEST_CASE("curl_multi: a completion that calls a transport while that is destroyed is no harm") {
    struct calls_back {
        curl_multi_transport& transport;
        int& calls;
        ~calls_back() {
            ++calls;
            transport.send(refused(), [](transport_result) { FAIL("called"); });
            CHECK(transport.poll(long_enough) == 0);
            transport.cancel();
        }
    };
    const scripted_server server{echo};
    int calls = 0;
    {
        curl_multi_transport transport;
        for (const http_request& request : {to(server, "never"), refused()}) {
            const std::shared_ptr<calls_back> held{new calls_back{transport, calls}};
            transport.send(request, [held](const transport_result&) {});
        }
        CHECK(calls == 0);
    }
    CHECK(calls == 2);
}

TEST_CASE("curl_multi: it may be moved while requests are in flight") {
    const scripted_server server{echo};
    std::vector<transport_result> kept, dropped;
    curl_multi_transport first;
    first.send(to(server, "moved"), into(kept));
    first.poll();
    curl_multi_transport second{std::move(first)};
    CHECK(first.poll(long_enough) == 0); // moved from
    first.send(to(server), into(dropped));
    first.cancel();
    CHECK(dropped.empty());

    curl_multi_transport third;
    third.send(to(server, "never"), into(dropped));
    third = std::move(second);
    finish(third);
    CHECK(kept.at(0).value().body == "moved");
    CHECK(dropped.empty());
}

TEST_CASE("curl_multi: each request has its own timeout, which runs while it waits for a connection") {
    const scripted_server server{echo};
    curl_multi_transport transport{nullptr, 1};
    std::vector<transport_result> sent, waited;
    transport.send(to(server, "never"), into(sent));
    poll_until(transport, [&] { return server.requests().size() == 1; });
    http_request request = to(server);
    request.timeout = 100ms;
    const auto start = steady_clock::now();
    transport.send(request, into(waited));
    poll_until(transport, [&] { return !waited.empty(); });
    CHECK(steady_clock::now() - start >= 100ms);
    CHECK(steady_clock::now() - start < long_enough / 2);
    CHECK(count(waited, failure::timeout, false) == 1);
    CHECK(sent.empty());
}

TEST_CASE("curl_multi: https requests wait for a connection under way, within their timeout") {
    boost::asio::io_context context;
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};
    acceptor.non_blocking(true);
    curl_multi_transport transport;
    std::vector<transport_result> kept;
    http_request request = to("https://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/");
    request.timeout = 500ms;
    std::vector<tcp::socket> connections; // that say nothing
    const auto accept = [&] {
        boost::system::error_code none;
        if (tcp::socket accepted = acceptor.accept(none); !none)
            connections.push_back(std::move(accepted));
        return !connections.empty();
    };
    for (int i = 0; i < 5; ++i)
        transport.send(request, into(kept));
    poll_until(transport, accept);
    for (int i = 0; i < 10; ++i) {
        transport.poll();
        accept();
    }
    CHECK(connections.size() == 1);
    finish(transport);
    CHECK(count(kept, failure::timeout, false) == 5);
}

#if LIBCURL_VERSION_NUM >= 0x075000

TEST_CASE("curl_multi: what a server says on idle connections is not taken for the next answers") {
    boost::asio::io_context context;
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};
    acceptor.non_blocking(true);
    curl_multi_transport transport{nullptr, 2};
    const http_request request =
        to("http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/", "");
    std::vector<tcp::socket> connections;
    const auto say = [](tcp::socket& to, const std::string& text) {
        boost::asio::write(to, boost::asio::buffer(text));
    };
    const auto round = [&](std::size_t so_far) { // each is answered on the connection it comes on
        std::vector<transport_result> kept;
        for (int i = 0; i < 2; ++i)
            transport.send(request, into(kept));
        poll_until(transport, [&] {
            boost::system::error_code none;
            if (tcp::socket accepted = acceptor.accept(none); !none) {
                accepted.set_option(tcp::no_delay{true});
                connections.push_back(std::move(accepted));
            }
            for (tcp::socket& open : connections) {
                if (std::string text(open.available(), '\0'); !text.empty()) {
                    open.receive(boost::asio::buffer(text));
                    say(open, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
            return kept.size() == 2;
        });
        for (const transport_result& outcome : kept)
            CHECK((outcome && outcome->body == "ok"));
        CHECK(connections.size() == so_far);
    };
    round(2);
    for (tcp::socket& open : connections)
        say(open, "HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n");
    round(4);
    round(4);
}

#endif

#ifdef PROMPTLAYER_TEST_NGHTTPD

/// A server of files over HTTP/2 and TLS; it has one, `/file`, that holds `content`.
class http2_server {
    std::filesystem::path folder_;
    std::uint16_t port_ = 0;
    pid_t process_ = 0;

public:
    explicit http2_server(const promptlayer::detail::identity& authority) {
        boost::asio::io_context context;
        port_ = tcp::acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}}.local_endpoint().port();
        const std::string port = std::to_string(port_);
        folder_ = std::filesystem::temp_directory_path() / ("promptlayer_http2_" + port);
        std::filesystem::create_directories(folder_);
        const std::string folder = folder_.string(), key = folder + "/key",
                          certificate = folder + "/certificate";
        const auto shown = promptlayer::detail::make_identity("127.0.0.1", "IP:127.0.0.1", &authority);
        std::ofstream{folder_ / "file"} << "content";
        std::ofstream{key} << promptlayer::detail::pem_of(shown.key.get());
        std::ofstream{certificate} << promptlayer::detail::pem_of(shown.certificate.get());
        process_ = ::fork();
        if (process_ == 0) {
            ::alarm(60); // ends it, should the test not
            ::execl(PROMPTLAYER_TEST_NGHTTPD, "nghttpd", "-a", "127.0.0.1", "-d", folder.c_str(),
                    port.c_str(), key.c_str(), certificate.c_str(), static_cast<char*>(nullptr));
            ::_exit(1);
        }
        boost::system::error_code refused;
        const auto end = steady_clock::now() + long_enough;
        do {
            tcp::socket probe{context};
            probe.connect({boost::asio::ip::address_v4::loopback(), port_}, refused);
        } while (refused && steady_clock::now() < end);
        REQUIRE_FALSE(refused);
    }
    http2_server(const http2_server&) = delete;
    http2_server& operator=(const http2_server&) = delete;
    ~http2_server() {
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
        std::filesystem::remove_all(folder_);
    }

    std::string url() const { return "https://127.0.0.1:" + std::to_string(port_) + "/file"; }
};

TEST_CASE("curl_multi: where the server offers HTTP/2, requests at once share one connection") {
    const auto authority = promptlayer::detail::make_identity("authority", "", nullptr);
    const std::string trusted = promptlayer::detail::pem_of(authority.certificate.get());
    const http2_server server{authority};
    static int connections = 0;
    connections = 0;
    curl_multi_transport transport{[&](CURL* easy) {
        curl_blob blob{const_cast<char*>(trusted.data()), trusted.size(), CURL_BLOB_COPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
        const curl_sockopt_callback counts = [](void*, curl_socket_t, curlsocktype) {
            ++connections;
            return int{CURL_SOCKOPT_OK};
        };
        curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, counts);
    }};
    std::vector<transport_result> kept;
    for (int i = 0; i < 50; ++i)
        transport.send(to(server.url()), into(kept));
    finish(transport);
    REQUIRE(kept.size() == 50);
    for (const transport_result& outcome : kept)
        CHECK(outcome.value().body == "content");
    CHECK(connections == 1);
    std::this_thread::sleep_for(50ms); // the server may speak on it, of its settings
    transport.send(to(server.url()), into(kept));
    finish(transport);
    CHECK(kept.back().value().body == "content");
    CHECK(connections == 1);
}

#endif

} // namespace
