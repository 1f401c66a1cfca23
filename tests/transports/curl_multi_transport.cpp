#include <promptlayer/transports/curl_multi.hpp>

#include "../support/curl_trust.hpp"
#include "../support/transport_tests.hpp"

#include <promptlayer/client.hpp>
#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/testing/scripted_server.hpp>

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
#include <limits>
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

using namespace transport_tests;
using promptlayer::curl_multi_transport;

static_assert(promptlayer::AsyncTransport<curl_multi_transport>);
static_assert(!promptlayer::Transport<curl_multi_transport>);
static_assert(std::is_nothrow_move_constructible_v<curl_multi_transport> &&
              std::is_nothrow_move_assignable_v<curl_multi_transport>);
static_assert(!std::is_copy_constructible_v<curl_multi_transport> &&
              !std::is_copy_assignable_v<curl_multi_transport>);

http_request invalid_request() { return request_to("no URL"); }

/// Returns a response with the body of the request: too late if that is `never`.
scripted_response echo(const http_request& request) {
    scripted_response response;
    response.response.body = request.body;
    response.delay = request.body == "never" ? 2 * long_enough : 20ms;
    return response;
}

/// Returns a completion that appends its outcome.
auto into(std::vector<transport_result>& outcomes) {
    return [&outcomes](transport_result outcome) { outcomes.push_back(std::move(outcome)); };
}

/// Polls until the condition is true.
void poll_until(curl_multi_transport& transport, const std::function<bool()>& condition) {
    const auto end = steady_clock::now() + long_enough;
    while (!condition()) {
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

TEST_CASE("curl_multi: the transport fulfils the contract") {
    promptlayer::testing::conformance_options options;
#ifdef PROMPTLAYER_TEST_TLS
    promptlayer::testing::tls_servers servers;
    options.tls = std::ref(servers);
    curl_multi_transport transport{trust(servers.ca_certificate())};
#else
    curl_multi_transport transport;
#endif
    const auto report = promptlayer::testing::check_transport(
        transport, [&] { transport.poll(1ms); }, options);
    CHECK_MESSAGE(report.ok(), report);
}

TEST_CASE("curl_multi: a client tracks, and errors of the service have their type") {
    const loopback_service server;
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    promptlayer::client client{config, curl_multi_transport{}};
    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, std::ref(client.transport())};
    std::vector<promptlayer::result<promptlayer::track_response>> outcomes, unauthorized;
    client.track_prompt({.prompt_name = "a", .request_id = 1},
                        [&](auto r) { outcomes.push_back(std::move(r)); });
    stranger.track_prompt({.prompt_name = "a", .request_id = 1},
                          [&](auto r) { unauthorized.push_back(std::move(r)); });
    finish(client.transport());
    REQUIRE((outcomes.size() == 1 && unauthorized.size() == 1));
    REQUIRE(outcomes[0]);
    CHECK(outcomes[0]->success);
    CHECK(unauthorized[0].error().code == promptlayer::errc::unauthorized);
}

TEST_CASE("curl_multi: each request gets its own response, over a limited number of connections") {
    for (const int limit : {0, 1, 3}) {
        const scripted_server server{echo};
        auto transport = limit ? curl_multi_transport{nullptr, limit} : curl_multi_transport{};
        std::vector<std::string> bodies(24);
        for (std::size_t i = 0; i < bodies.size(); ++i)
            transport.send(request_to(server, std::to_string(i)), [&bodies, i](transport_result outcome) {
                bodies[i] += outcome ? outcome->body : outcome.error().message;
            });
        finish(transport);
        for (std::size_t i = 0; i < bodies.size(); ++i)
            CHECK(bodies[i] == std::to_string(i));
        CHECK(server.connections() == (limit ? static_cast<std::size_t>(limit) : 8));
    }
}

TEST_CASE("curl_multi: connections follow max_in_flight unless a number is given, and are kept") {
    for (const int limit : {0, 3}) {
        const scripted_server server{echo};
        curl_multi_transport transport{nullptr, limit};
        transport.max_in_flight(24);
        for (const std::size_t count :
             {24u, 1u, 1u, 24u}) { // libcurl would close idle ones after few requests
            std::vector<transport_result> outcomes;
            for (std::size_t i = 0; i < count; ++i)
                transport.send(request_to(server), into(outcomes));
            finish(transport);
            CHECK(outcomes.size() == count);
            CHECK(server.connections() == (limit ? 3 : 24));
        }
    }
}

TEST_CASE("curl_multi: connections follow a max_in_flight of any size") {
    for (const std::size_t max_in_flight : {std::size_t{0}, std::numeric_limits<std::size_t>::max()}) {
        const scripted_server server{echo};
        curl_multi_transport transport;
        transport.max_in_flight(max_in_flight);
        std::vector<transport_result> outcomes;
        for (int i = 0; i < 9; ++i)
            transport.send(request_to(server), into(outcomes));
        finish(transport);
        CHECK(server.connections() == (max_in_flight == 0 ? 1 : 9));
        transport.send(request_to(server), into(outcomes));
        finish(transport);
        CHECK(server.connections() == (max_in_flight == 0 ? 1 : 9));
    }
}

TEST_CASE("curl_multi: no request waits for the response to another") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> outcomes;
    transport.send(request_to(server, "never"), into(outcomes));
    transport.send(request_to(server, "soon"), into(outcomes));
    poll_until(transport, [&] { return !outcomes.empty(); });
    CHECK(outcomes[0].value().body == "soon");
    CHECK(transport.poll() == 1);
}

TEST_CASE("curl_multi: requests share a connection, but no handle of libcurl") {
    const scripted_server server{echo};
    int new_handles = 0;
    curl_multi_transport transport{[&](CURL* easy) {
        curl_slist* cookies = nullptr; // that a handle keeps
        curl_easy_getinfo(easy, CURLINFO_COOKIELIST, &cookies);
        new_handles += cookies ? 0 : 1;
        curl_slist_free_all(cookies);
        curl_easy_setopt(easy, CURLOPT_COOKIELIST, "Set-Cookie: seen=1; domain=mark.invalid");
    }};
    std::vector<transport_result> outcomes;
    for (int i = 0; i < 10; ++i) {
        transport.send(request_to(server), into(outcomes));
        finish(transport);
    }
    CHECK(outcomes.size() == 10);
    CHECK(server.requests().size() == 10);
    CHECK(server.connections() == 1);
    CHECK(new_handles == 10);
}

TEST_CASE("curl_multi: poll waits up to its argument, or until there is work") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    const auto start = steady_clock::now();
    CHECK(transport.poll(long_enough) == 0); // nothing is in flight
    std::vector<transport_result> first, outcomes;
    transport.send(request_to(server), into(first)); // libcurl sets timers for a new connection
    finish(transport);
    transport.send(request_to(server, "never"), into(outcomes));
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

    transport.send(request_to(server, "soon"), into(outcomes));
    const auto sent = steady_clock::now();
    while (outcomes.empty() && steady_clock::now() - sent < long_enough)
        transport.poll(std::chrono::milliseconds::max());
    CHECK(steady_clock::now() - sent < long_enough / 2);
    CHECK(outcomes.size() == 1);
}

TEST_CASE("curl_multi: an invalid request is reported by poll, not within send") {
    const scripted_server server{echo};
    std::vector<transport_result> outcomes;
    curl_multi_transport transport;
    http_request request = request_to(server);
    request.headers[0].value = "a\r\nInjected: 1";
    transport.send(request, into(outcomes));
    request = request_to(server);
    request.timeout = std::chrono::milliseconds::min();
    transport.send(request, into(outcomes));
    curl_multi_transport throwing{[](CURL*) { throw std::runtime_error{"no"}; }};
    throwing.send(request_to(server), into(outcomes));
    CHECK(outcomes.empty());
    CHECK(transport.poll(long_enough) == 0);
    CHECK(throwing.poll(long_enough) == 0);
    REQUIRE(outcomes.size() == 3);
    CHECK(outcomes[0].error().kind == failure::other);
    CHECK(outcomes[1].error().kind == failure::timeout);
    CHECK(outcomes[2].error().kind == failure::other);
    for (const transport_result& outcome : outcomes)
        CHECK_FALSE(outcome.error().maybe_delivered);
    CHECK(server.connections() == 0);
}

TEST_CASE("curl_multi: poll returns if each completion sends an invalid request") {
    curl_multi_transport transport;
    int calls = 0;
    promptlayer::completion again = [&](transport_result) {
        ++calls;
        transport.send(invalid_request(), again);
    };
    transport.send(invalid_request(), again);
    for (int i = 1; i <= 3; ++i) {
        CHECK(transport.poll() == 1);
        CHECK(calls == i);
    }
}

TEST_CASE("curl_multi: a completion may send, poll and cancel") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> outcomes, cancelled;
    transport.send(request_to(server, "never"), into(cancelled));
    transport.send(invalid_request(), into(outcomes));
    transport.send(invalid_request(), [&](transport_result outcome) {
        outcomes.push_back(std::move(outcome));
        transport.send(request_to(server, "sent"), [&](transport_result inner) {
            outcomes.push_back(std::move(inner));
            transport.cancel();
            CHECK(cancelled.empty());
            transport.send(request_to(server, "after"), into(outcomes));
        });
        while (outcomes.size() < 4)
            transport.poll(100ms);
    });
    transport.send(invalid_request(), into(outcomes));
    finish(transport);
    REQUIRE(outcomes.size() == 5);
    CHECK(outcomes[3].value().body == "sent");
    CHECK(outcomes[4].value().body == "after");
    CHECK(count(cancelled, failure::cancelled, true) == 1);
}

TEST_CASE("curl_multi: poll passes an exception of a completion on and loses no outcome") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> outcomes;
    for (const bool throws : {true, false, true, false})
        transport.send(invalid_request(), [&outcomes, throws](transport_result outcome) {
            outcomes.push_back(std::move(outcome));
            if (throws)
                throw std::runtime_error{"thrown"};
        });
    transport.send(request_to(server, "whole"), into(outcomes));
    for (const std::size_t before : {0u, 2u}) {
        CHECK_THROWS_WITH_AS(transport.poll(), "thrown", std::runtime_error);
        CHECK(outcomes.size() == before + 1);
    }
    finish(transport);
    REQUIRE(outcomes.size() == 5);
    CHECK(outcomes[4].value().body == "whole");
}

TEST_CASE("curl_multi: an empty completion is accepted") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    transport.send(request_to(server), nullptr);
    finish(transport);
    CHECK(server.requests().size() == 1);
}

TEST_CASE("curl_multi: wakeup ends the present wait of poll") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> outcomes;
    transport.send(request_to(server, "never"), into(outcomes));
    std::atomic<bool> woken{false};
    std::thread other{[&] {
        while (server.requests().empty())
            std::this_thread::yield();
        std::this_thread::sleep_for(50ms); // by then poll waits, most likely
        woken = true;
        transport.wakeup();
    }};
    const auto start = steady_clock::now();
    while (!woken)
        CHECK(transport.poll(long_enough) == 1);
    CHECK(steady_clock::now() - start < long_enough / 2);
    other.join();
}

TEST_CASE("curl_multi: wakeup without a wait of poll ends the next wait and no other") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> first, outcomes;
    transport.send(request_to(server), into(first)); // libcurl sets timers for a new connection
    finish(transport);
    transport.wakeup(); // nothing is in flight
    transport.wakeup();
    CHECK(transport.poll(long_enough) == 0);
    transport.send(request_to(server, "never"), into(outcomes));
    while (server.requests().size() < 2)
        transport.poll();
    const auto start = steady_clock::now();
    transport.poll(long_enough);
    CHECK(steady_clock::now() - start < long_enough / 2);
    int polls = 0; // few, because libcurl may have a timer
    for (const auto end = steady_clock::now() + 100ms; steady_clock::now() < end; ++polls)
        transport.poll(100ms);
    CHECK(polls < 10);
    CHECK(outcomes.empty());
}

TEST_CASE("curl_multi: cancel wakes poll and ends all requests in flight") {
    const scripted_server server{echo};
    curl_multi_transport transport{nullptr, 2};
    std::vector<transport_result> first, outcomes;
    for (int i = 0; i < 2; ++i)
        transport.send(request_to(server), into(first));
    finish(transport);
    for (int i = 0; i < 5; ++i)
        transport.send(request_to(server, "never"), into(outcomes));
    std::thread other{[&] {
        while (server.requests().size() < 4)
            std::this_thread::yield();
        std::this_thread::sleep_for(50ms); // by then poll waits, most likely
        transport.cancel();
    }};
    const auto start = steady_clock::now();
    while (transport.poll(long_enough) != 0) {
    }
    CHECK(steady_clock::now() - start < long_enough / 2);
    other.join();
    CHECK(outcomes.size() == 5);
    CHECK(count(outcomes, failure::cancelled, true) == 2);
    CHECK(count(outcomes, failure::cancelled, false) == 3);

    transport.send(request_to(server, "after"), into(outcomes));
    finish(transport);
    CHECK(outcomes.at(5).value().body == "after");
}

TEST_CASE("curl_multi: cancel before poll sends nothing and does not affect later requests") {
    const scripted_server server{echo};
    curl_multi_transport transport;
    std::vector<transport_result> outcomes;
    transport.cancel(); // nothing is in flight
    transport.send(request_to(server, "first"), into(outcomes));
    finish(transport);
    CHECK(outcomes.at(0).has_value());

    transport.send(request_to(server, "second"), into(outcomes)); // its handle is used again
    finish(transport);

    transport.send(request_to(server, "cancelled"), into(outcomes));
    transport.cancel();
    CHECK(outcomes.size() == 2);
    transport.send(request_to(server, "later"), into(outcomes));
    finish(transport);
    REQUIRE(outcomes.size() == 4);
    CHECK(count(outcomes, failure::cancelled, false) == 1);
    CHECK(outcomes[3].value().body == "later");
    CHECK(server.requests().size() == 3);
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
    std::vector<transport_result> outcomes;
    std::size_t sent = 0;
    while (sent < 200 || (count(outcomes, failure::cancelled, false) == 0 && sent < 100'000)) {
        for (int i = 0; i < 4; ++i, ++sent)
            transport.send(request_to(server), into(outcomes));
        finish(transport);
    }
    done = true;
    other.join();
    CHECK(outcomes.size() == sent);
    for (const transport_result& outcome : outcomes)
        CHECK((outcome || outcome.error().kind == failure::cancelled));
    transport.poll();
    transport.send(request_to(server), into(outcomes));
    finish(transport);
    CHECK(outcomes.back().has_value());
}

TEST_CASE("curl_multi: a client reports requests of a destroyed transport as cancelled") {
    const scripted_server server{echo};
    std::vector<promptlayer::result<promptlayer::track_response>> outcomes;
    {
        promptlayer::client client{{.api_key = "pl_key", .base_url = server.base_url()},
                                   curl_multi_transport{}};
        for (int i = 0; i < 3; ++i)
            client.track_prompt({.prompt_name = "a", .request_id = 1},
                                [&](auto r) { outcomes.push_back(std::move(r)); });
        client.transport().poll();
        CHECK(outcomes.empty());
    }
    REQUIRE(outcomes.size() == 3);
    for (const auto& outcome : outcomes)
        CHECK(outcome.error().failure == failure::cancelled);
}

TEST_CASE("curl_multi: a completion may call a transport that is being destroyed") {
    struct calls_back {
        curl_multi_transport& transport;
        int& calls;
        ~calls_back() {
            ++calls;
            transport.send(invalid_request(), [](transport_result) { FAIL("called"); });
            CHECK(transport.poll(long_enough) == 0);
            transport.cancel();
        }
    };
    const scripted_server server{echo};
    int calls = 0;
    {
        curl_multi_transport transport;
        for (const http_request& request : {request_to(server, "never"), invalid_request()}) {
            const std::shared_ptr<calls_back> callback{new calls_back{transport, calls}};
            transport.send(request, [callback](const transport_result&) {});
        }
        CHECK(calls == 0);
    }
    CHECK(calls == 2);
}

TEST_CASE("curl_multi: a transport may be moved with requests in flight") {
    const scripted_server server{echo};
    std::vector<transport_result> outcomes, dropped;
    curl_multi_transport first;
    first.send(request_to(server, "moved"), into(outcomes));
    first.poll();
    curl_multi_transport second{std::move(first)};
    CHECK(first.poll(long_enough) == 0); // moved from
    first.max_in_flight(1);
    first.wakeup();
    first.send(request_to(server), into(dropped));
    first.cancel();
    CHECK(dropped.empty());

    curl_multi_transport third;
    third.send(request_to(server, "never"), into(dropped));
    third = std::move(second);
    finish(third);
    CHECK(outcomes.at(0).value().body == "moved");
    CHECK(dropped.empty());
}

TEST_CASE("curl_multi: any number of requests move from a connection that ends to another") {
    loopback_service server;
    curl_multi_transport transport{nullptr, 2};
    std::vector<transport_result> outcomes;
    for (int i = 0; i < 10; ++i) { // libcurl fails after five attempts with a handle
        for (int n = 0; n < 2; ++n)
            transport.send(request_to(server), into(outcomes));
        finish(transport);
        server.respond(only(ending::reset_before_response));
        transport.send(request_to(server), into(outcomes));
        finish(transport);
    }
    CHECK(outcomes.size() == 30);
    for (const transport_result& outcome : outcomes)
        CHECK((outcome && outcome->status == 200));
}

TEST_CASE("curl_multi: the timeout of a request includes its wait for a connection") {
    const scripted_server server{echo};
    curl_multi_transport transport{nullptr, 1};
    std::vector<transport_result> sent, waited;
    transport.send(request_to(server, "never"), into(sent));
    poll_until(transport, [&] { return server.requests().size() == 1; });
    http_request request = request_to(server);
    request.timeout = 100ms;
    const auto start = steady_clock::now();
    transport.send(request, into(waited));
    poll_until(transport, [&] { return !waited.empty(); });
    CHECK(steady_clock::now() - start >= 100ms);
    CHECK(steady_clock::now() - start < long_enough / 2);
    CHECK(count(waited, failure::timeout, false) == 1);
    CHECK(sent.empty());
}

TEST_CASE("curl_multi: https requests wait for a connection that is being made") {
    boost::asio::io_context context;
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};
    acceptor.non_blocking(true);
    curl_multi_transport transport;
    std::vector<transport_result> outcomes;
    http_request request =
        request_to("https://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/");
    request.timeout = 500ms;
    std::vector<tcp::socket> connections; // that send nothing
    const auto accept = [&] {
        boost::system::error_code none;
        if (tcp::socket accepted = acceptor.accept(none); !none)
            connections.push_back(std::move(accepted));
        return !connections.empty();
    };
    for (int i = 0; i < 5; ++i)
        transport.send(request, into(outcomes));
    poll_until(transport, accept);
    for (int i = 0; i < 10; ++i) {
        transport.poll();
        accept();
    }
    CHECK(connections.size() == 1);
    finish(transport);
    CHECK(count(outcomes, failure::timeout, false) == 5);
}

#if LIBCURL_VERSION_NUM >= 0x075000

/// A server with connections that stay open and do nothing by themselves.
struct manual_server {
    boost::asio::io_context context{};
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};
    std::vector<tcp::socket> connections{};

    manual_server() { acceptor.non_blocking(true); }

    http_request request() const {
        return request_to("http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/", "");
    }
    void accept() {
        boost::system::error_code none;
        if (tcp::socket accepted = acceptor.accept(none); !none) {
            accepted.set_option(tcp::no_delay{true});
            connections.push_back(std::move(accepted));
        }
    }
    static void write(tcp::socket& socket, const std::string& text) {
        boost::asio::write(socket, boost::asio::buffer(text));
    }
    static void write_unasked(tcp::socket& socket) {
        write(socket, "HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n");
    }
    static void respond(tcp::socket& socket) {
        if (std::string text(socket.available(), '\0'); !text.empty()) {
            socket.receive(boost::asio::buffer(text));
            write(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    }
    /// Responds to all requests until that many have ended.
    void serve(curl_multi_transport& transport, const std::vector<transport_result>& outcomes,
               std::size_t count) {
        poll_until(transport, [&] {
            accept();
            std::for_each(connections.begin(), connections.end(), respond);
            return outcomes.size() == count;
        });
        for (const transport_result& outcome : outcomes)
            CHECK((outcome && outcome->body == "ok"));
    }
};

TEST_CASE("curl_multi: bytes on idle connections are not the next responses") {
    constexpr int count = 10;
    manual_server server;
    curl_multi_transport transport{nullptr, count};
    for (const std::size_t connections : {10u, 20u, 20u}) {
        std::vector<transport_result> outcomes;
        for (int i = 0; i < count; ++i)
            transport.send(server.request(), into(outcomes));
        server.serve(transport, outcomes, count);
        CHECK(server.connections.size() == connections);
        if (connections == 10)
            std::for_each(server.connections.begin(), server.connections.end(), manual_server::write_unasked);
    }
}

TEST_CASE("curl_multi: bytes that come on an idle connection while another is used are not a response") {
    manual_server server;
    curl_multi_transport transport{nullptr, 2};
    std::vector<transport_result> outcomes;
    for (int i = 0; i < 2; ++i)
        transport.send(server.request(), into(outcomes));
    server.serve(transport, outcomes, 2);
    REQUIRE(server.connections.size() == 2);
    transport.send(server.request(), into(outcomes));
    const auto is_idle = [](tcp::socket& socket) { return socket.available() == 0; };
    poll_until(transport,
               [&] { return !std::all_of(server.connections.begin(), server.connections.end(), is_idle); });
    manual_server::write_unasked(
        *std::find_if(server.connections.begin(), server.connections.end(), is_idle));
    transport.send(server.request(), into(outcomes));
    server.serve(transport, outcomes, 4);
    CHECK(server.connections.size() == 3);
}

TEST_CASE("curl_multi: bytes that come while another request is being sent are not a response") {
    static manual_server* acting = nullptr; // within libcurl, at once
    manual_server server;
    curl_multi_transport transport{
        [](CURL* easy) {
            const curl_debug_callback act = [](CURL*, curl_infotype type, char*, std::size_t, void*) {
                if (acting && type == CURLINFO_HEADER_OUT) {
                    manual_server::write_unasked(
                        *std::find_if(acting->connections.begin(), acting->connections.end(),
                                      [](auto& socket) { return socket.available() == 0; }));
                    acting = nullptr;
                }
                return 0;
            };
            curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, act);
            curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
        },
        2};
    std::vector<transport_result> outcomes;
    for (int i = 0; i < 2; ++i)
        transport.send(server.request(), into(outcomes));
    server.serve(transport, outcomes, 2);
    REQUIRE(server.connections.size() == 2);
    acting = &server;
    for (int i = 0; i < 2; ++i)
        transport.send(server.request(), into(outcomes));
    server.serve(transport, outcomes, 4);
    CHECK_FALSE(acting);
    CHECK(server.connections.size() == 3);
}

TEST_CASE("curl_multi: bytes behind a response are not the response to a request that waits") {
    static manual_server* acting = nullptr; // within libcurl, at once
    manual_server server;
    curl_multi_transport transport{[](CURL* easy) {
                                       const curl_debug_callback act = [](CURL*, curl_infotype type, char*,
                                                                          std::size_t, void*) {
                                           if (acting && type == CURLINFO_HEADER_OUT) {
                                               manual_server::respond(acting->connections[0]);
                                           } else if (acting && type == CURLINFO_DATA_IN) {
                                               manual_server::write_unasked(acting->connections[0]);
                                               acting = nullptr;
                                           }
                                           return 0;
                                       };
                                       curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, act);
                                       curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
                                   },
                                   1};
    std::vector<transport_result> outcomes;
    transport.send(server.request(), into(outcomes));
    server.serve(transport, outcomes, 1);
    acting = &server;
    for (int i = 0; i < 2; ++i)
        transport.send(server.request(), into(outcomes));
    server.serve(transport, outcomes, 3);
    CHECK_FALSE(acting);
    CHECK(server.connections.size() == 2);
}

#endif

#ifdef PROMPTLAYER_TEST_NGHTTPD

/// Serves the file `/file`, which holds `content`, over HTTP/2 and TLS.
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
        const auto identity = promptlayer::detail::make_identity("127.0.0.1", "IP:127.0.0.1", &authority);
        std::ofstream{folder_ / "file"} << "content";
        std::ofstream{key} << promptlayer::detail::pem_of(identity.key.get());
        std::ofstream{certificate} << promptlayer::detail::pem_of(identity.certificate.get());
        process_ = ::fork();
        if (process_ == 0) {
            ::alarm(60); // ends the server if the test does not
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

TEST_CASE("curl_multi: requests share one connection if the server offers HTTP/2") {
    const auto authority = promptlayer::detail::make_identity("authority", "", nullptr);
    const http2_server server{authority};
    static int connections = 0;
    connections = 0;
    curl_multi_transport transport{
        [trust_ca = trust(promptlayer::detail::pem_of(authority.certificate.get()))](CURL* easy) {
            trust_ca(easy);
            const curl_sockopt_callback counts = [](void*, curl_socket_t, curlsocktype) {
                ++connections;
                return int{CURL_SOCKOPT_OK};
            };
            curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, counts);
        }};
    std::vector<transport_result> outcomes;
    for (int i = 0; i < 50; ++i)
        transport.send(request_to(server.url()), into(outcomes));
    finish(transport);
    REQUIRE(outcomes.size() == 50);
    for (const transport_result& outcome : outcomes)
        CHECK(outcome.value().body == "content");
    CHECK(connections == 1);
    std::this_thread::sleep_for(50ms); // the server may send its settings
    transport.send(request_to(server.url()), into(outcomes));
    finish(transport);
    CHECK(outcomes.back().value().body == "content");
    CHECK(connections == 1);
}

#endif

} // namespace
