#ifndef PROMPTLAYER_TRANSPORT_HPP
#define PROMPTLAYER_TRANSPORT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Why a transport has no answer to give.
struct transport_failure {
    failure kind = failure::other;
    std::string
        message{}; ///< for a person; shown bounded, without control characters and without the API key
    /// Whether the service may have received the whole request. Unless set otherwise: not where there was no
    /// connection.
    bool maybe_delivered = kind != failure::resolve && kind != failure::connect && kind != failure::tls;

    friend bool operator==(const transport_failure&, const transport_failure&) = default;
};

/// What one request came to: an answer, of whatever status, or a failure.
using transport_result = result<http_response, transport_failure>;

/// Takes the outcome of one asynchronous request. To be called once; a further call is ignored, and one that
/// is destroyed uncalled counts as `failure::cancelled`. May be called from any thread, also before `send`
/// returns.
using completion = std::function<void(transport_result)>;

// The contract of a transport
//
// A transport does one HTTP request and nothing else; validation, retry, pacing and queues are the
// library's.
//
// The request:
//
// - It sends method, URL, every header and the body as they stand, once. No timeout, no status and no cut
//   response makes it send again. The only exception: a kept connection ended without a byte of a response.
// - It adds `Host` and `Content-Length`, and `Connection` or `Keep-Alive` if it needs to, and none that is
//   there already. It adds no other header: no `Accept-Encoding`, `Cookie`, `Expect` or `User-Agent`.
// - Each request goes to the host and port of its own URL, with its own headers and none of another request.
//   The host may be an IPv6 address in brackets.
// - It refuses what it cannot send so, with `failure::other`, not delivered. It may refuse each method but
//   POST.
// - It verifies the peer of an `https` URL before it sends anything.
//
// The response:
//
// - Any final response is a success, whatever its status: it returns the status, all headers in order, and
//   the whole body. It skips informational responses (1xx). A response to HEAD has no body.
// - It takes the chunked coding off the body and unpacks nothing: a `Content-Encoding` stays.
// - It follows no redirect, neither a 3xx nor the `Location` or `Refresh` of another status. A redirect
//   followed with a new request would hand the API key to another host.
// - It remembers nothing of a response: no cookies, no cache, no authentication.
// - It stops reading when the body exceeds `request.max_response_bytes` and returns the response with the
//   part of the body that makes it longer than the limit, or a failure.
// - It never returns a part as if it were the whole. A response that is cut is `failure::reset`. Over TLS, a
//   body that ends with the connection is cut unless a close_notify ends it.
// - A failure says whether the request may have reached the service (`maybe_delivered`).
//
// Time and connections:
//
// - It gives up after `request.timeout`, in milliseconds, with `failure::timeout`. The time counts from
//   `send` over the whole exchange, also if the request waits for its turn.
// - It keeps its connections for the requests that follow. A connection that the service has closed
//   meanwhile is replaced, or the request fails as not delivered.
// - It does not use a connection again after a timeout or a cancel, after `Connection: close` or HTTP/1.0,
//   or if bytes came on the connection that no request asked for. It closes the connection.
// - It does not throw. An exception is caught all the same, where exceptions exist, and is a
//   `failure::other`.
//
// Optional members of a transport, none of which throws:
//
// - `static constexpr bool thread_safe = true`: `send` may be called from many threads at once. A client is
//   as thread-safe as its transport.
// - `cancel()`, for any thread: requests in flight end within 100 ms with `failure::cancelled`, also when
//   the response has begun. No others end.
// - `poll()`: moves the requests in flight on and calls completions; does not wait.
// - `poll(std::chrono::milliseconds)`: the same, and waits at most that long for something to do.
// - `wakeup()`, for any thread: ends the present wait of `poll`, or the next.
// - `max_in_flight(std::size_t)`: says how many requests there will be at once. Called once, before the
//   first `send`.
//
// `check_transport` (testing/conformance.hpp) runs a transport against this contract.

/// A synchronous transport: `transport_result send(const http_request&)`. Blocks until the outcome is known.
template <class T>
concept Transport = requires(T& transport, const http_request& request) {
    { transport.send(request) } -> std::convertible_to<transport_result>;
};

/// An asynchronous transport: `void send(http_request, completion)`. Does not block; calls the completion
/// once, when the outcome is known. A completion may send the next request. A transport that is destroyed
/// destroys or calls the completions it holds.
template <class T>
concept AsyncTransport = requires(T& transport, http_request request, completion done) {
    { transport.send(std::move(request), std::move(done)) } -> std::same_as<void>;
};

/// A transport made of a callable; see `transport_from`.
template <class CallableT>
class callable_transport {
    CallableT callable_;

public:
    explicit callable_transport(CallableT callable) : callable_(std::move(callable)) {}

    transport_result send(const http_request& request) requires
        std::is_invocable_r_v<transport_result, CallableT&, const http_request&> {
        return callable_(request);
    }

    void send(http_request request,
              completion done) requires std::invocable<CallableT&, http_request, completion> {
        callable_(std::move(request), std::move(done));
    }
};

/// Makes a transport of a callable: `transport_result(const http_request&)` or `void(http_request,
/// completion)`.
template <class CallableT>
callable_transport<CallableT> transport_from(CallableT callable) {
    return callable_transport<CallableT>{std::move(callable)};
}

namespace detail {

template <class T>
concept sends = requires(T& transport, const http_request& request) {
    transport.send(request);
};

template <class T>
concept sends_asynchronously = requires(T& transport, http_request request, completion done) {
    transport.send(std::move(request), std::move(done));
};

template <class T>
concept some_transport = Transport<T> || AsyncTransport<T>;

template <class T>
concept points_to_transport = requires(T& pointer) {
    requires some_transport<std::remove_reference_t<decltype(*pointer)>>;
};

/// Says in one sentence why a type is no transport.
template <class T>
consteval bool is_transport() {
    static_assert(!points_to_transport<T>,
                  "promptlayer: this is a pointer to a transport: give the transport, or std::ref(*pointer)");
    static_assert(!std::is_const_v<T> || some_transport<T> || !some_transport<std::remove_const_t<T>>,
                  "promptlayer: this transport is const, but its member function `send` is not");
    static_assert(some_transport<T> || sends<T> || sends_asynchronously<T> || points_to_transport<T> ||
                      some_transport<std::remove_const_t<T>>,
                  "promptlayer: this type is no Transport: it has neither a public member function "
                  "`transport_result send(const http_request&)` nor `void send(http_request, completion)`");
    static_assert(
        !sends<T> || Transport<T>,
        "promptlayer: this type is no Transport: its member function `send(const http_request&)` does not "
        "return a transport_result");
    static_assert(!sends_asynchronously<T> || AsyncTransport<T>,
                  "promptlayer: this type is no AsyncTransport: its member function `send(http_request, "
                  "completion)` does not return void");
    return true;
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
