#ifndef PROMPTLAYER_TRANSPORTS_HTTPLIB_HPP
#define PROMPTLAYER_TRANSPORTS_HTTPLIB_HPP

#include <httplib.h> // before other headers include windows.h, and before its macros are set aside

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>
#include <promptlayer/transports/detail/request_limits.hpp>

#ifndef _WIN32
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#endif

#include <promptlayer/detail/push_macros.hpp>

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(CPPHTTPLIB_SSL_ENABLED)
/// `httplib_lookup::is_hex` is the function of httplib, or this one if httplib is split into a header and a
/// library.
namespace httplib_split {
struct yes {};
yes is_hex(...);
}
namespace httplib_lookup {
using namespace httplib::detail;
using namespace httplib_split;
}
static_assert(
    !std::is_same_v<decltype(httplib_lookup::is_hex('0', std::declval<int&>())), httplib_split::yes>,
    "httplib is a separate library here, and its classes may have another layout: compile with its "
    "flags, as `pkg-config --cflags cpp-httplib` prints them");
#endif

/// Returns the minor version of httplib 0.x: 11 for 0.11.4. Returns 1,000 for 1.0 and later.
inline int httplib_minor() noexcept {
    constexpr std::string_view version = CPPHTTPLIB_VERSION;
    int number = 1'000;
    if (version.starts_with("0."))
        std::from_chars(version.data() + 2, version.data() + version.size(), number);
    return number;
}

#ifdef _WIN32
inline bool httplib_is_silent(socket_t socket) noexcept {
    WSAPOLLFD peer{socket, POLLIN, 0};
    return ::WSAPoll(&peer, 1, 0) == 0;
}

inline socket_t httplib_duplicate(socket_t socket) noexcept {
    WSAPROTOCOL_INFOW info{};
    if (::WSADuplicateSocketW(socket, ::GetCurrentProcessId(), &info) != 0)
        return INVALID_SOCKET;
    return ::WSASocketW(info.iAddressFamily, info.iSocketType, info.iProtocol, &info, 0, WSA_FLAG_OVERLAPPED);
}

inline void httplib_close(socket_t socket) noexcept { ::closesocket(socket); }
#else
/// Returns whether the connection is open and nothing has arrived. Bytes between two responses belong to
/// neither.
inline bool httplib_is_silent(socket_t socket) noexcept {
    pollfd peer{socket, POLLIN, 0};
    return ::poll(&peer, 1, 0) == 0;
}

inline socket_t httplib_duplicate(socket_t socket) noexcept { return ::fcntl(socket, F_DUPFD_CLOEXEC, 0); }
inline void httplib_close(socket_t socket) noexcept { ::close(socket); }
#endif

template <class ErrorT> // a template because not every version has each error
failure httplib_failure(ErrorT error) noexcept {
    const auto is = [=](auto... errors) { return ((error == errors) || ...); };
    if constexpr (requires { ErrorT::SSLServerHostnameVerification, ErrorT::ProxyConnection; }) {
        if (is(ErrorT::SSLServerHostnameVerification))
            return failure::tls;
        if (is(ErrorT::ProxyConnection))
            return failure::connect;
    }
    if (is(ErrorT::SSLConnection, ErrorT::SSLLoadingCerts, ErrorT::SSLServerVerification))
        return failure::tls;
    if (is(ErrorT::Connection, ErrorT::BindIPAddress, ErrorT::ConnectionTimeout))
        return failure::connect;
    return is(ErrorT::Read, ErrorT::Write) ? failure::reset : failure::other;
}

/// Reads one response. httplib is lenient about the end of a body; this class is not.
struct httplib_reader {
    const http_request& request;
    http_response response{};
    std::optional<chunked_body> chunks{};
    const char* error = nullptr;

    /// Reads the headers. Returns whether httplib is to read a body.
    bool read_headers(httplib::Response& received) {
        response.status = received.status;
        for (const auto& [name, value] : received.headers) {
            response.headers.push_back({name, value});
            if (!is_token(name)) // httplib would ignore `Content-Length : 3`
                error = "a header of the response has an invalid name";
        }
        if (received.status < 200)
            error = "httplib takes an informational response for the final one";
        else if (!has_clear_framing(response.headers, true, received.version == "HTTP/1.1"))
            error = "the response does not say clearly where its body ends";
        else if (httplib_minor() < 30 && received.headers.erase("Transfer-Encoding") != 0)
            chunks.emplace(); // these versions take some cut chunked bodies for complete ones
        return !error && has_body(request.method, response.status);
    }

    /// Reads a part of the body. Returns whether to read more.
    bool read_body(std::string_view part) {
        const auto append = [this](std::string_view content) {
            return append_body(response.body, content, request.max_response_bytes);
        };
        return chunks ? chunks->read(part, append) : append(part);
    }

    /// Returns whether no further byte of the response is needed.
    bool is_complete() const {
        return response.status != 0 &&
               (!has_body(request.method, response.status) ||
                response.body.size() > request.max_response_bytes || (chunks && chunks->is_complete()));
    }

    /// Returns whether only the end of the connection ends the body.
    bool is_until_close() const { return !is_complete() && is_close_delimited(response.headers); }

    /// Returns whether no other response follows on the connection. httplib looks for exactly `close`.
    bool is_last() const {
        const std::string* const connection = find_header(response.headers, "Connection");
        return is_until_close() || (connection && !equal_ignoring_case(*connection, "keep-alive"));
    }
};

/// A client of httplib with its connection.
class httplib_session {
    using clock = std::chrono::steady_clock;
    using configure_function = std::function<void(httplib::Client&)>;

    std::mutex mutex_{};
    std::condition_variable condition_{};
    bool in_flight_ = false;
    std::optional<failure> abort_reason_{}; // of the request in flight
    socket_t connection_ = INVALID_SOCKET;  // a second handle, because httplib may close its own at any time
    std::unique_ptr<httplib::Client> client_{};
    std::string origin_{}; // of the client
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
    SSL* tls_ = nullptr; // of the connection; valid while it is open
#endif

    /// Waits until the request has ended. Shuts its connection down at the deadline and on `cancel`.
    void watch(clock::time_point deadline) {
        std::unique_lock guard{mutex_};
        if (!condition_.wait_until(guard, deadline, [this] { return !in_flight_ || abort_reason_; }))
            abort_reason_ = failure::timeout;
        while (in_flight_) {
            if (connection_ != INVALID_SOCKET)
                ::shutdown(connection_, 2);                           // both directions
            condition_.wait_for(guard, std::chrono::milliseconds{5}); // httplib may open another connection
        }
    }

    void set_connection(socket_t connection) noexcept {
        const std::lock_guard guard{mutex_};
        if (connection_ != INVALID_SOCKET)
            httplib_close(connection_);
        connection_ = connection;
    }

    std::optional<failure> abort_reason(clock::time_point deadline) noexcept {
        const std::lock_guard guard{mutex_};
        if (!abort_reason_ && clock::now() >= deadline)
            abort_reason_ = failure::timeout;
        return abort_reason_;
    }

    /// Returns whether TLS may have read more than the response, which httplib would take for the next one.
    bool has_unread() const noexcept {
#if defined(CPPHTTPLIB_OPENSSL_SUPPORT)
        return tls_ && client_->is_socket_open() && SSL_has_pending(tls_) == 1;
#elif defined(CPPHTTPLIB_SSL_ENABLED) // another library
        return origin_.starts_with("https:");
#else
        return false;
#endif
    }

#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
    template <class ClientT>
    void watch_tls(ClientT& client) {
        SSL_CTX* context = nullptr;
        if constexpr (requires { client.ssl_context(); })
            context = client.ssl_context();
        else
            context = static_cast<SSL_CTX*>(client.tls_context());
        if (!context)
            return;
        SSL_CTX_set_msg_callback_arg(context, this);
        SSL_CTX_set_msg_callback(context, [](int, int, int, const void*, std::size_t, SSL* tls, void* self) {
            static_cast<httplib_session*>(self)->tls_ = tls;
        });
    }
#endif

    /// Sets the client to the origin of the URL. Returns whether there is a client.
    bool connect_to(const url_parts& url, const configure_function& configure) {
        std::string origin = (url.secure ? "https://" : "http://") + std::string{url.authority};
        if (client_ && origin == origin_) {
            if (client_->is_socket_open() && !httplib_is_silent(client_->socket()))
                client_->stop();
            return true;
        }
        client_.reset();
        auto client =
            url.secure ? std::make_unique<httplib::Client>(origin)
                       : std::make_unique<httplib::Client>(std::string{url.host}, static_cast<int>(url.port));
        if (!client->is_valid())
            return false;
        if (configure)
            configure(*client);
        client->set_keep_alive(true);
        client->set_follow_location(false);
        client->set_decompress(false);
        client->set_tcp_nodelay(true);
        client->set_socket_options([this](socket_t socket) {
            set_connection(httplib_duplicate(socket));
#if defined(__cpp_exceptions)
            if (connection_ == INVALID_SOCKET) { // nothing could end the request
                httplib_close(socket);
                throw std::runtime_error{"no second handle for the connection"};
            }
#endif
        });
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
        tls_ = nullptr;
        watch_tls(*client);
#endif
        client_ = std::move(client);
        origin_ = std::move(origin);
        return true;
    }

    /// Sets the options that differ between versions.
    template <class ClientT>
    static void adapt(ClientT& client, httplib::Request& sent, const http_request& request) {
        if constexpr (requires { client.set_path_encode(false); })
            client.set_path_encode(false);
        else
            client.set_url_encode(false);
        if constexpr (requires { client.set_header_writer(nullptr); }) {
            if (!find_header(request.headers, "Expect")) // not sent; httplib would wait for a 100 Continue
                sent.headers.emplace("Expect", "");
            client.set_header_writer([&](httplib::Stream& stream, httplib::Headers& headers) {
                std::string header_text;
                for (const header& h : request.headers)
                    header_text.append(h.name).append(": ").append(trim(h.value)).append("\r\n");
                for (const char* const name :
                     {"Host", "Content-Length", "Authorization", "Proxy-Authorization"}) {
                    const auto added = headers.find(name);
                    if (added != headers.end() && !find_header(request.headers, name))
                        header_text.append(name).append(": ").append(added->second).append("\r\n");
                }
                header_text.append("\r\n");
                return stream.write(header_text.data(), header_text.size());
            });
        }
    }

    /// Sends the request and reads the response. Also sets `error` if it throws: the last error of httplib.
    transport_result exchange(const http_request& request, clock::time_point deadline,
                              const configure_function& configure, httplib::Error& error) {
        const url_parts url = split_url(request.url);
        httplib_reader reader{.request = request};
        httplib::Request sent;
        httplib::Response received;
        sent.method = request.method;
        sent.path = request_target(url);
        for (const header& h : request.headers)
            sent.headers.emplace(h.name, std::string{trim(h.value)});
        if (!find_header(request.headers, "Host"))
            sent.headers.emplace("Host", std::string{url.authority});
        if (!request.body.empty()) { // not as `body`, to which httplib would add a Content-Type
            sent.content_length_ = request.body.size();
            sent.content_provider_ = [&](std::size_t offset, std::size_t size, httplib::DataSink& sink) {
                sink.write(request.body.data() + offset, size);
                return true;
            };
        }
        sent.response_handler = [&](const httplib::Response& response) { // another one if httplib sends again
            return &response == &received && reader.read_headers(received);
        };
        sent.content_receiver = [&](const char* data, std::size_t size, auto, auto) {
            return reader.read_body({data, size});
        };
        if (!connect_to(url, configure))
            return not_sent(failure::other, "httplib cannot make a client");
        bool complete = false;
        if (!abort_reason(deadline)) {
            adapt(*client_, sent, request);
            const auto timeout = clamp_timeout(request.timeout);
            client_->set_connection_timeout(timeout);
            client_->set_read_timeout(timeout);
            client_->set_write_timeout(timeout);
            error = httplib::Error::Success;
            complete = client_->send(sent, received, error);
        }
        const std::optional<failure> reason = abort_reason(deadline);
        const bool has_headers = reader.response.status != 0;
        if (complete && !has_headers)
            reader.read_headers(received); // httplib does not call the handler for a response without a body
        // After a 407 of a proxy httplib leaves the connection open, without TLS.
        if (reason || !complete || received.status == 407 || reader.is_last() || has_unread())
            client_->stop();
        const failure kind = httplib_failure(error);
        if (reason)
            return transport_failure{*reason, *reason == failure::timeout ? "timed out" : "cancelled",
                                     transport_failure{kind}.maybe_delivered};
        if (received.status == 407 && url.secure && !has_headers)
            return not_sent(failure::connect, "the proxy asks for a password");
        if (reader.error || (reader.chunks && reader.chunks->is_invalid()))
            return transport_failure{failure::other,
                                     reader.error ? reader.error : "the response has invalid chunks"};
        if (!complete && !reader.is_complete())
            return transport_failure{kind, "httplib: " + httplib::to_string(error)};
        if ((reader.chunks && !reader.is_complete()) || (url.secure && reader.is_until_close()))
            return transport_failure{failure::reset, "the connection may have ended within the body"};
        return std::move(reader.response);
    }

public:
    httplib_session() = default;
    httplib_session(const httplib_session&) = delete;
    httplib_session& operator=(const httplib_session&) = delete;

    ~httplib_session() {
        client_.reset();
        set_connection(INVALID_SOCKET);
    }

    /// Runs the request on a new thread. The calling thread can end the request. The new thread blocks
    /// SIGPIPE, and a pending SIGPIPE ends with the thread.
    transport_result send(const http_request& request, const configure_function& configure) {
        const auto deadline = clock::now() + clamp_timeout(request.timeout);
        httplib::Error error = httplib::Error::Connection;
        transport_result outcome = transport_failure{};
        const auto on_throw = [&](const char* message) {
            client_.reset();
            outcome = transport_failure{failure::other, message,
                                        transport_failure{httplib_failure(error)}.maybe_delivered};
        };
        const auto run = [&] {
#ifndef _WIN32
            sigset_t signals{};
            sigfillset(&signals);
            ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
#endif
            guard_exceptions([&] { outcome = exchange(request, deadline, configure, error); }, on_throw);
            const std::lock_guard guard{mutex_};
            in_flight_ = false;
            condition_.notify_all();
        };
        {
            const std::lock_guard guard{mutex_};
            abort_reason_.reset();
            in_flight_ = true;
        }
        guard_exceptions(
            [&] {
                std::thread worker{run};
                watch(deadline);
                worker.join();
            },
            on_throw);
        return outcome;
    }

    void cancel() noexcept {
        const std::lock_guard guard{mutex_};
        if (in_flight_ && !abort_reason_)
            abort_reason_ = failure::cancelled;
        condition_.notify_all();
    }
};

} // namespace detail

/// A `Transport` over cpp-httplib (0.11.1 or later). Keeps the connection for further requests to the same
/// origin.
///
/// - Sends to `http` and `https` URLs. Follows no redirect and decompresses nothing. `https` needs the macro
///   for TLS of httplib (`CPPHTTPLIB_OPENSSL_SUPPORT`); without it the result is `failure::tls`. httplib
///   verifies peer and host. There is no proxy unless `configure` sets one.
/// - If httplib is a library of its own, as on Debian, this header needs the macros of that library to
///   compile. Without them the layout of its classes may differ.
/// - Reads `max_response_bytes` + 1 of a body.
/// - `timeout` is at most 24 days; 0 or less fails at once. Neither `timeout` nor `cancel` ends a DNS lookup.
///
/// Limits of httplib:
///
/// - A failed DNS lookup is `failure::connect`.
/// - An informational response other than `100 Continue` is a failure. So is a body over `https` that only
///   the end of the connection ends, because a cut would not be noticed.
/// - httplib before 0.14.1 adds `Accept` and `User-Agent`.
/// - httplib before 0.19 omits empty headers, before 0.23 decodes `%41` in headers, and before 0.52 changes
///   their order.
/// - httplib 0.24 to 0.51 changes queries, so a URL with a query is a failure there.
/// - httplib before 0.30 accepts some cut chunked bodies. There, the transport decodes the chunks, and a
///   chunked response ends the connection.
/// - A response with the status 304 ends the connection. With a TLS library other than OpenSSL no TLS
///   connection is kept.
/// - If the server closes a kept TLS connection as a request is sent, httplib from 0.12.1 on sends the
///   request again. The service may have received it twice.
/// - httplib drops header lines that end in a bare LF, a folded `Transfer-Encoding` and an empty
///   `Content-Length` before the transport sees them.
/// - The headers of a response are limited by `timeout`, not by size. A recent httplib reads at most 100 MB
///   of a body.
/// - httplib parses the status line by `std::regex`, which recurses. A status line of tens of thousands of
///   characters can overflow the stack.
///
/// One request at a time, so each thread needs a transport of its own; only `cancel` may be called from any
/// thread. Movable between requests. Each request runs on a thread that `send` starts and joins. SIGPIPE does
/// not reach the program.
class httplib_transport {
    std::unique_ptr<detail::httplib_session> session_ = std::make_unique<detail::httplib_session>();
    std::function<void(httplib::Client&)> configure_{};

public:
    httplib_transport() = default;

    /// `configure` is called for every new client: at the first request, and at each request to another
    /// origin. It runs on the thread of the request and can set a CA file, a proxy and so on. The transport
    /// then sets keep-alive, redirects, decompression, encoding of URLs, timeouts and socket options.
    explicit httplib_transport(std::function<void(httplib::Client&)> configure)
        : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, by the contract in `transport.hpp`. A request that cannot
    /// be sent unchanged (a line break in a header, ...) is a `failure::other` and not sent.
    transport_result send(const http_request& request) {
        using namespace detail;
        if (!session_)
            return not_sent(failure::other, "the transport was moved from");
        if (auto error = request_error(request))
            return *std::move(error);
#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(CPPHTTPLIB_SSL_ENABLED)
        if (split_url(request.url).secure)
            return not_sent(failure::tls, "https needs httplib with CPPHTTPLIB_OPENSSL_SUPPORT defined");
#endif
        if (httplib_minor() >= 24 && httplib_minor() < 52 && request.url.find('?') != request.url.npos)
            return not_sent(failure::other, "this version of httplib would change the query of the URL");
        return session_->send(request, configure_);
    }

    /// Ends the request in flight, if any, with `failure::cancelled`. Later requests are not affected. Does
    /// not wait. May be called from any thread, except while the transport is moved or destroyed.
    void cancel() noexcept {
        if (session_)
            session_->cancel();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
