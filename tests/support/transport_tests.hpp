#ifndef PROMPTLAYER_TESTS_SUPPORT_TRANSPORT_TESTS_HPP
#define PROMPTLAYER_TESTS_SUPPORT_TRANSPORT_TESTS_HPP

// What the tests of the adapters share. Include it after the header of the adapter.

#include <promptlayer/client.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transport.hpp>

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <atomic>
#include <chrono>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>

namespace transport_tests {

using namespace std::chrono_literals;
using promptlayer::failure;
using promptlayer::find_header;
using promptlayer::header;
using promptlayer::http_request;
using promptlayer::http_response;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::testing::loopback_service;
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using ending = scripted_response::connection_ending;
using tcp = boost::asio::ip::tcp;
using std::chrono::steady_clock;

constexpr auto long_enough = std::chrono::milliseconds{20s};
constexpr std::string_view valid_body = R"({"prompt_name":"a","request_id":1})";

inline http_request request_to(std::string url, std::string_view body = valid_body) {
    http_request request;
    request.method = "POST";
    request.url = std::move(url);
    request.headers = {{"X-API-KEY", "pl_loopback"}, {"Content-Type", "application/json"}};
    request.body = body;
    request.timeout = long_enough;
    request.max_response_bytes = 1024 * 1024;
    return request;
}

inline http_request request_to(const scripted_server& server, std::string_view body = valid_body) {
    return request_to(server.base_url() + "/rest/track-prompt", body);
}

/// Returns the URL of a server with the scheme `https`, which it does not speak.
inline std::string https_url(const scripted_server& server) {
    return "https://" + server.base_url().substr(7) + "/";
}

inline http_response response_of(transport_result outcome) {
    REQUIRE_MESSAGE(outcome.has_value(), (outcome ? std::string{} : outcome.error().message));
    return *std::move(outcome);
}

inline transport_failure failure_of(transport_result outcome) {
    REQUIRE_FALSE(outcome.has_value());
    return std::move(outcome).error();
}

/// Checks that the outcome is this failure. Returns its message.
inline std::string check_failure(transport_result outcome, failure kind, bool maybe_delivered) {
    const transport_failure failed = failure_of(std::move(outcome));
    CHECK(failed.kind == kind);
    CHECK(failed.maybe_delivered == maybe_delivered);
    CHECK_FALSE(failed.message.empty());
    return failed.message;
}

inline scripted_response raw(std::string bytes, ending ends = ending::close_unannounced) {
    scripted_response response;
    response.raw = std::move(bytes);
    response.ending = ends;
    return response;
}

/// Returns a valid response that comes so late.
inline scripted_response late(std::chrono::milliseconds delay = long_enough) {
    scripted_response response;
    response.delay = delay;
    return response;
}

/// Returns a valid response after which the connection ends so.
inline scripted_response only(ending ends) {
    scripted_response response;
    response.ending = ends;
    return response;
}

inline promptlayer::config config_of(const scripted_server& server) {
    promptlayer::config config;
    config.api_key = "pl_loopback";
    config.base_url = server.base_url();
    return config;
}

/// Accepts a connection only in `acceptor.accept()` and sends nothing.
struct silent_listener {
    boost::asio::io_context context{};
    tcp::acceptor acceptor{context, {boost::asio::ip::address_v4::loopback(), 0}};
    std::optional<tcp::socket> connection{};

    std::string url(const std::string& scheme) const {
        return scheme + "://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/";
    }

    /// Waits for a connection and keeps it open.
    bool accept() {
        connection = acceptor.accept();
        return true;
    }
};

/// Sends a request, and calls `cancel` from another thread once `in_flight` returns true.
template <class TransportT, class ConditionT>
transport_result cancelled_when(ConditionT in_flight, TransportT& transport, const http_request& request) {
    std::thread other{[&] {
        while (!in_flight())
            std::this_thread::yield();
        transport.cancel();
    }};
    transport_result outcome = transport.send(request);
    other.join();
    return outcome;
}

// ---- Checks of a synchronous adapter beyond the conformance kit

template <class TransportT>
constexpr bool is_synchronous_adapter =
    promptlayer::Transport<TransportT> && !promptlayer::AsyncTransport<TransportT> &&
    std::is_nothrow_move_constructible_v<TransportT> && std::is_nothrow_move_assignable_v<TransportT> &&
    !std::is_copy_constructible_v<TransportT> && !std::is_copy_assignable_v<TransportT>;

template <class TransportT>
void check_client() {
    const loopback_service server;
    promptlayer::config config = config_of(server);
    promptlayer::client client{config, TransportT{}};
    const auto response = client.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE(response);
    CHECK(response->success);

    config.api_key = "pl_wrong";
    promptlayer::client stranger{config, TransportT{}};
    const auto error = stranger.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    REQUIRE_FALSE(error);
    CHECK(error.error().code == promptlayer::errc::unauthorized);
}

/// Checks that a connection is kept when its transport is moved. `first` is unused.
template <class TransportT>
void check_move(TransportT first) {
    const loopback_service server;
    response_of(first.send(request_to(server)));
    TransportT second{std::move(first)};
    response_of(second.send(request_to(server)));
    first = std::move(second);
    response_of(first.send(request_to(server)));
    CHECK(server.connections() == 1);

    check_failure(second.send(request_to(server)), failure::other, false); // moved from
    second.cancel();
    CHECK(server.requests().size() == 3);
}

template <class TransportT>
void check_timeout_of_zero() {
    const loopback_service server;
    TransportT transport;
    http_request request = request_to(server);
    for (const auto timeout : {0ms, -1ms, std::chrono::milliseconds::min()}) {
        request.timeout = timeout;
        check_failure(transport.send(request), failure::timeout, false);
    }
    CHECK(server.connections() == 0);
}

/// Checks a timeout and a cancel within the TLS handshake, before the request is sent.
template <class TransportT>
void check_end_within_handshake() {
    silent_listener listener;
    TransportT transport;
    http_request request = request_to(listener.url("https"));
    const auto start = steady_clock::now();
    check_failure(cancelled_when([&] { return listener.accept(); }, transport, request), failure::cancelled,
                  false);
    request.timeout = 200ms;
    check_failure(transport.send(request), failure::timeout, false);
    CHECK(steady_clock::now() - start < long_enough / 2);
}

template <class TransportT>
void check_cancel_at_any_moment() {
    const loopback_service server;
    TransportT transport;
    std::atomic<bool> done{false};
    std::thread other{[&] {
        while (!done) {
            transport.cancel();
            std::this_thread::yield();
        }
    }};
    int cancelled = 0;
    for (int i = 0; i < 100 || (cancelled == 0 && i < 100'000); ++i) {
        const transport_result outcome = transport.send(request_to(server));
        CHECK((outcome || outcome.error().kind == failure::cancelled));
        cancelled += outcome ? 0 : 1;
    }
    done = true;
    other.join();
    CHECK(cancelled > 0);
    CHECK(response_of(transport.send(request_to(server))).status == 200);
}

/// Checks that no byte after the limit is awaited: the rest of the body never comes.
template <class TransportT>
void check_body_limit(std::initializer_list<std::string_view> framings) {
    loopback_service server;
    TransportT transport;
    http_request request = request_to(server);
    request.max_response_bytes = 100;
    for (const std::string_view framing : framings) {
        server.respond(
            raw("HTTP/1.1 200 OK\r\n" + std::string{framing} + std::string(1000, 'x'), ending::keep_alive));
        CHECK(response_of(transport.send(request)).body == std::string(101, 'x'));
    }
    CHECK(response_of(transport.send(request)).status == 200);
}

/// Checks a transport that was made with a function that throws `std::runtime_error{"no"}`.
template <class TransportT>
void check_configure_throws(TransportT transport) {
    const loopback_service server;
    check_failure(transport.send(request_to(server)), failure::other, false);
    CHECK(server.connections() == 0);
}

} // namespace transport_tests

#endif
