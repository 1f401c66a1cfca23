#ifndef PROMPTLAYER_TRANSPORT_HPP
#define PROMPTLAYER_TRANSPORT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <concepts>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// A request without a response: the kind of the failure and its message.
struct transport_failure {
    failure kind = failure::other;
    std::string message{}; ///< for a person; errors show it bounded, without control characters and API key
    /// Whether the service may have received the whole request. False by default if there was no connection.
    bool maybe_delivered = kind != failure::resolve && kind != failure::connect && kind != failure::tls;

    friend bool operator==(const transport_failure&, const transport_failure&) = default;
};

/// The outcome of one request: a response of any status, or a failure.
using transport_result = result<http_response, transport_failure>;

/// Takes the outcome of one asynchronous request. The transport calls it once, from any thread, also before
/// `send` returns. Further calls are ignored. If it is destroyed without a call, the outcome is
/// `failure::cancelled`.
using completion = std::function<void(transport_result)>;

// The contract of a transport
//
// A transport does one HTTP request and nothing else. The library validates, retries, paces and queues.
//
// The request:
//
// - It sends the method, the URL, every header and the body as they stand, once. No timeout, status or cut
//   response makes it send again. The only exception: a kept connection ended without a byte of a response.
// - It adds only headers that the request does not have: `Host`, `Content-Length` and, if the connection
//   needs them, `Connection` or `Keep-Alive`. Not `Accept-Encoding`, `Cookie`, `Expect` or `User-Agent`.
// - Each request goes to the host and port of its own URL, with its own headers and none of another request.
//   The host may be an IPv6 address in brackets.
// - It refuses a request that it cannot send unchanged, with `failure::other`, not delivered. It may refuse
//   each method except POST.
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
// - It ends the request after `request.timeout`, in milliseconds, with `failure::timeout`. The time counts
//   from the call of `send` to the last byte. It includes the wait for other requests.
// - It keeps its connections for the next requests. If the service has closed a kept connection, the
//   transport opens another, or the request fails as not delivered.
// - It does not use a connection again after a timeout or a cancel, after `Connection: close` or HTTP/1.0,
//   or if bytes came on the connection that no request asked for. It closes the connection.
// - It does not throw. If it does, the library returns `failure::other`.
//
// Optional members of a transport, none of which throws:
//
// - `static constexpr bool thread_safe = true`: `send` may be called from many threads at once. A client is
//   as thread-safe as its transport.
// - `cancel()`, for any thread: requests in flight end within 100 ms with `failure::cancelled`, also if
//   the response has begun. Later requests are not affected.
// - `poll()`: continues the requests in flight and calls completions; does not wait.
// - `poll(std::chrono::milliseconds)`: the same, but waits at most that long until there is something to do.
//   It returns once it has called a completion. It may return earlier; a background tracker then calls it
//   again at once.
// - `wakeup()`, for any thread: ends the present wait of `poll`. If `poll` does not wait now, ends the next
//   wait, whether or not a request is in flight.
// - `max_in_flight(std::size_t)`: receives the largest number of requests in flight at once, to open and
//   keep as many connections. The library calls it once, before the first `send`.
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

/// A transport that calls a callable; see `transport_from`.
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

/// Fails with one sentence if a type is not a transport.
template <class T>
consteval bool is_transport() {
    static_assert(!points_to_transport<T>,
                  "promptlayer: this is a pointer to a transport: give the transport, or std::ref(*pointer)");
    static_assert(!std::is_const_v<T> || some_transport<T> || !some_transport<std::remove_const_t<T>>,
                  "promptlayer: this transport is const, but its member function `send` is not");
    static_assert(some_transport<T> || sends<T> || sends_asynchronously<T> || points_to_transport<T> ||
                      some_transport<std::remove_const_t<T>>,
                  "promptlayer: this type is not a Transport: it has neither a public member function "
                  "`transport_result send(const http_request&)` nor `void send(http_request, completion)`");
    static_assert(
        !sends<T> || Transport<T>,
        "promptlayer: this type is not a Transport: its member function `send(const http_request&)` does not "
        "return a transport_result");
    static_assert(!sends_asynchronously<T> || AsyncTransport<T>,
                  "promptlayer: this type is not an AsyncTransport: its member function `send(http_request, "
                  "completion)` does not return void");
    return true;
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
