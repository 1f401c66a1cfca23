#ifndef PROMPTLAYER_TRANSPORTS_HTTPLIB_HPP
#define PROMPTLAYER_TRANSPORTS_HTTPLIB_HPP

#include <httplib.h> // before what else may include windows.h, and before the macros of that are set aside

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>

#ifndef _WIN32
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#endif

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(CPPHTTPLIB_SSL_ENABLED)
/// `httplib_form::is_hex` is that of httplib, or this if the header of httplib is split from a library.
namespace httplib_split {
struct yes {};
yes is_hex(...);
}
namespace httplib_form {
using namespace httplib::detail;
using namespace httplib_split;
}
static_assert(!std::is_same_v<decltype(httplib_form::is_hex('0', std::declval<int&>())), httplib_split::yes>,
              "httplib is a library here, whose classes may be laid out in another way: compile with its own "
              "flags, as `pkg-config --cflags cpp-httplib` prints them");
#endif

/// 11 of version 0.11.4; from 1.0 on, more than any of these.
constexpr int httplib_minor() noexcept {
    constexpr std::string_view version = CPPHTTPLIB_VERSION;
    int minor = version.starts_with("0.") ? 0 : 1'000'000;
    for (std::size_t i = 2; minor < 1'000'000 && i < version.size() && version[i] != '.'; ++i)
        minor = minor * 10 + (version[i] - '0');
    return minor;
}

#ifdef _WIN32
struct httplib_sigpipe_guard {
    httplib_sigpipe_guard() noexcept {} // there is no such signal
};

inline bool httplib_silent(socket_t socket) noexcept {
    WSAPOLLFD peer{socket, POLLIN, 0};
    return ::WSAPoll(&peer, 1, 0) == 0;
}

inline socket_t httplib_duplicate(socket_t socket) noexcept {
    WSAPROTOCOL_INFOW info{};
    if (::WSADuplicateSocketW(socket, ::GetCurrentProcessId(), &info) != 0)
        return INVALID_SOCKET;
    return ::WSASocketW(info.iAddressFamily, info.iSocketType, info.iProtocol, &info, 0, WSA_FLAG_OVERLAPPED);
}

inline void httplib_shutdown(socket_t socket) noexcept { ::shutdown(socket, SD_BOTH); }
inline void httplib_close(socket_t socket) noexcept { ::closesocket(socket); }
#else
/// Takes the SIGPIPE away that a write of this thread may raise meanwhile.
class httplib_sigpipe_guard {
    sigset_t pipe_{}, before_{};
    const bool pending_ = pending();

    static bool pending() noexcept {
        sigset_t now{};
        return ::sigpending(&now) == 0 && sigismember(&now, SIGPIPE) == 1;
    }

public:
    httplib_sigpipe_guard() noexcept {
        sigemptyset(&pipe_);
        sigaddset(&pipe_, SIGPIPE);
        ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    }
    httplib_sigpipe_guard(const httplib_sigpipe_guard&) = delete;
    httplib_sigpipe_guard& operator=(const httplib_sigpipe_guard&) = delete;
    ~httplib_sigpipe_guard() {
        int taken = 0;
        if (!pending_ && pending())
            ::sigwait(&pipe_, &taken);
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }
};

/// Whether the connection is open and nothing has come: what comes between two answers belongs to neither.
inline bool httplib_silent(socket_t socket) noexcept {
    pollfd peer{socket, POLLIN, 0};
    return ::poll(&peer, 1, 0) == 0;
}

inline socket_t httplib_duplicate(socket_t socket) noexcept { return ::fcntl(socket, F_DUPFD_CLOEXEC, 0); }
inline void httplib_shutdown(socket_t socket) noexcept { ::shutdown(socket, SHUT_RDWR); }
inline void httplib_close(socket_t socket) noexcept { ::close(socket); }
#endif

/// What comes back for one request. httplib is lenient about where a body ends; here it is decided.
class httplib_answer {
    const http_request& request_;
    http_response response_{};
    std::optional<chunked_body> chunks_{};
    std::optional<std::uint64_t> length_{};
    bool begun_ = false;
    bool until_close_ = false;
    bool over_limit_ = false; // and one byte more than allowed is held
    const char* wrong_ = nullptr;

    void take_head(const httplib::Response& response) {
        begun_ = true;
        response_.status = response.status;
        for (const auto& [name, value] : response.headers) {
            response_.headers.push_back({name, value});
            if (name.find_first_of(" \t") != name.npos) // `Content-Length : 3` may not count for nothing
                wrong_ = "the answer has a header with a space in its name";
        }
        if (response.status < 200)
            wrong_ = "httplib takes an interim answer for the answer";
    }

    bool take_piece(std::string_view piece) {
        const std::size_t room = request_.max_response_bytes - response_.body.size();
        response_.body.append(piece.substr(0, room));
        if (piece.size() > room) {
            response_.body.push_back(piece[room]);
            over_limit_ = true;
        }
        return !over_limit_;
    }

    /// What the header says, of which there may be several if they agree.
    std::optional<std::uint64_t> announced_length() {
        std::optional<std::uint64_t> length;
        for (const header& h : response_.headers) {
            if (!equal_ignoring_case(h.name, "Content-Length"))
                continue;
            std::uint64_t number = 0;
            const char* const end = h.value.data() + h.value.size();
            const auto [stop, ec] = std::from_chars(h.value.data(), end, number);
            if (ec != std::errc{} || stop != end || length.value_or(number) != number)
                wrong_ = "the answer has a Content-Length that cannot be";
            length = number;
        }
        return length;
    }

public:
    explicit httplib_answer(const http_request& request) : request_(request) {}
    httplib_answer(const httplib_answer&) = delete;
    httplib_answer& operator=(const httplib_answer&) = delete;

    /// Takes the headers of an answer that may have a body. Whether to go on.
    bool begin(const httplib::Response& response) {
        take_head(response);
        // From here httplib goes on to read the body, by the headers of this very object, which is its own.
        auto& framing = const_cast<httplib::Response&>(response).headers;
        const std::string* const coding = find_header(response_.headers, "Transfer-Encoding");
        if (response.status == 304) { // httplib 0.11 would wait for a body
            framing.erase("Transfer-Encoding");
            framing.erase("Content-Length");
            framing.emplace("Content-Length", "0");
        } else if (!coding) {
            length_ = announced_length();
            until_close_ = !length_;
        } else if (framing.count("Transfer-Encoding") != 1 || !equal_ignoring_case(*coding, "chunked")) {
            wrong_ = "the answer has an unknown transfer coding";
        } else if (httplib_minor() < 30) {
            // It would take some cut bodies for whole ones: it is to give the chunks as they are.
            framing.erase("Transfer-Encoding");
            framing.erase("Content-Length");
            chunks_.emplace();
        }
        return !wrong_;
    }

    bool begun() const noexcept { return begun_; }

    /// Takes the headers of an answer without a body, of which `begin` is not told.
    void end(const httplib::Response& response) {
        if (!begun_)
            take_head(response);
    }

    /// Whether no further answer is to come over the connection; httplib looks for `close` in small letters.
    bool is_last() const noexcept {
        return until_close_ || wrong_ ||
               std::any_of(response_.headers.begin(), response_.headers.end(), [](const header& h) {
                   return equal_ignoring_case(h.name, "Connection") &&
                          !equal_ignoring_case(h.value, "keep-alive");
               });
    }

    /// Takes a part of the body. Whether more is wanted.
    bool take(std::string_view data) {
        if (!chunks_)
            return take_piece(data);
        return chunks_->take(data, [&](std::string_view piece) { return take_piece(piece); });
    }

    /// The outcome, given whether httplib has an answer; none if its error is the outcome.
    std::optional<transport_result> outcome(bool answered, bool secure) {
        const auto broken = [](failure kind, const char* why) { return transport_failure{kind, why, true}; };
        if (wrong_ || (chunks_ && chunks_->broken()))
            return broken(failure::other, wrong_ ? wrong_ : "the answer has broken chunks");
        if (over_limit_ || (chunks_ && chunks_->whole()))
            return std::move(response_);
        if (!answered)
            return std::nullopt;
        if (chunks_ || (length_ && *length_ != response_.body.size()))
            return broken(failure::reset, "the connection ended within the body");
        if (until_close_ && secure)
            return broken(failure::reset, "the body has no length, so httplib would not notice if it is cut");
        return std::move(response_);
    }
};

/// A client of httplib with its connection, and a thread that shuts the connection down at the deadline of a
/// request and on `cancel`.
class httplib_session {
    using clock = std::chrono::steady_clock;

    std::mutex mutex_{};
    std::condition_variable changed_{};
    std::optional<clock::time_point> deadline_{}; // of the request in flight
    std::optional<failure> cut_{};                // what ends it
    bool ending_ = false;
    socket_t connection_ = INVALID_SOCKET; // a second handle: httplib's may be closed and belong to others
    std::thread watch_{};
    std::unique_ptr<httplib::Client> client_{};
    std::string origin_{}; // of the client
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
    SSL* tls_ = nullptr; // of the connection; valid while that is open
#endif

    /// Whether TLS may have read more than the answer, which would be taken for the next one.
    bool has_more() const noexcept {
#if defined(CPPHTTPLIB_OPENSSL_SUPPORT)
        return tls_ && client_->is_socket_open() && SSL_has_pending(tls_) == 1;
#elif defined(CPPHTTPLIB_SSL_ENABLED) // another library
        return origin_.starts_with("https:");
#else
        return false;
#endif
    }

    void watch() {
#ifndef _WIN32
        sigset_t all{}; // signals are for the threads of the program
        sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
#endif
        std::unique_lock held{mutex_};
        while (!ending_) {
            if (deadline_ && !cut_ && clock::now() >= *deadline_)
                cut_ = failure::timeout;
            if (!deadline_) {
                changed_.wait(held);
            } else if (!cut_) {
                changed_.wait_until(held, *deadline_);
            } else {
                if (connection_ != INVALID_SOCKET)
                    httplib_shutdown(connection_);
                changed_.wait_for(held, std::chrono::milliseconds{5}); // there may come another connection
            }
        }
    }

    void set_connection(socket_t connection) noexcept {
        const std::lock_guard held{mutex_};
        if (connection_ != INVALID_SOCKET)
            httplib_close(connection_);
        connection_ = connection;
    }

    void begin(clock::time_point deadline) {
        const std::lock_guard held{mutex_};
        deadline_ = deadline;
        changed_.notify_one();
    }

    bool is_cut() noexcept {
        const std::lock_guard held{mutex_};
        return cut_ || clock::now() >= *deadline_;
    }

    std::optional<failure> end() noexcept {
        const std::lock_guard held{mutex_};
        deadline_.reset();
        return std::exchange(cut_, std::nullopt);
    }

    /// Makes the client one for the target. Whether there is one.
    template <class ConfigureT>
    bool prepare(const url_parts& url, const ConfigureT& configure) {
        if (!watch_.joinable())
            watch_ = std::thread{[this] { watch(); }};
        const std::string host{url.host};
        std::string origin = url.secure ? "https://" : "http://";
        origin.append(host.find(':') != host.npos ? "[" + host + "]" : host).append(":");
        origin.append(std::to_string(url.port));
        if (client_ && origin == origin_) {
            if (client_->is_socket_open() && !httplib_silent(client_->socket()))
                client_->stop();
            return true;
        }
        client_.reset();
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
        tls_ = nullptr;
#endif
        auto made = url.secure ? std::make_unique<httplib::Client>(origin)
                               : std::make_unique<httplib::Client>(host, static_cast<int>(url.port));
        if (!made->is_valid())
            return false;
        if (configure)
            configure(*made);
        made->set_keep_alive(true);
        made->set_follow_location(false);
        made->set_decompress(false);
        made->set_tcp_nodelay(true);
        made->set_socket_options([this](socket_t socket) {
            set_connection(httplib_duplicate(socket));
#if defined(__cpp_exceptions)
            if (connection_ == INVALID_SOCKET) { // nothing could end the request
                httplib_close(socket);
                throw std::runtime_error{"no second handle for the connection"};
            }
#endif
        });
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
        watch_tls(*made);
#endif
        client_ = std::move(made);
        origin_ = std::move(origin);
        return true;
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

    /// Does what not every version can do. `begun` is set when sending begins.
    template <class ClientT>
    static void adapt(ClientT& client, httplib::Request& sent, const http_request& request, bool& begun) {
        if constexpr (requires { client.set_path_encode(false); })
            client.set_path_encode(false);
        else
            client.set_url_encode(false);
        if constexpr (requires { client.set_payload_max_length(1); })
            client.set_payload_max_length(std::numeric_limits<std::size_t>::max());
        if constexpr (requires { client.set_header_writer(nullptr); }) {
            if (!find_header(request.headers, "Expect"))
                sent.headers.emplace("Expect", ""); // not sent; newer ones would wait for a 100 Continue
            client.set_header_writer([&](httplib::Stream& stream, httplib::Headers& headers) {
                begun = true;
                std::string lines;
                for (const header& h : request.headers)
                    lines.append(h.name).append(": ").append(trim(h.value)).append("\r\n");
                for (const auto& [name, value] : headers) {
                    bool unwanted = find_header(request.headers, name) != nullptr;
                    for (const char* own :
                         {"Accept", "Accept-Encoding", "Content-Type", "Expect", "User-Agent"})
                        unwanted = unwanted || equal_ignoring_case(name, own);
                    if (!unwanted)
                        lines.append(name).append(": ").append(value).append("\r\n");
                }
                lines.append("\r\n");
                return stream.write(lines.data(), lines.size());
            });
        }
    }

    template <class ErrorT>
    static failure failure_of(ErrorT error) noexcept {
        const auto is = [=](auto... errors) { return ((error == errors) || ...); };
        if constexpr (requires { ErrorT::SSLServerHostnameVerification; })
            if (is(ErrorT::SSLServerHostnameVerification))
                return failure::tls;
        if constexpr (requires { ErrorT::ProxyConnection; })
            if (is(ErrorT::ProxyConnection))
                return failure::connect;
        if (is(ErrorT::SSLConnection, ErrorT::SSLLoadingCerts, ErrorT::SSLServerVerification))
            return failure::tls;
        if (is(ErrorT::Connection, ErrorT::BindIPAddress))
            return failure::connect;
        if (is(ErrorT::ConnectionTimeout))
            return failure::timeout;
        return is(ErrorT::Read, ErrorT::Write) ? failure::reset : failure::other;
    }

    /// Asks the system's resolver again, as httplib does not tell.
    static bool has_address(const std::string& host) noexcept {
        addrinfo hints{};
        hints.ai_socktype = SOCK_STREAM;
        addrinfo* found = nullptr;
        const bool has = ::getaddrinfo(host.c_str(), nullptr, &hints, &found) == 0;
        if (has)
            ::freeaddrinfo(found);
        return has;
    }

    /// `called` is set before httplib is to send.
    template <class ConfigureT>
    transport_result exchange(const http_request& request, const url_parts& url, const ConfigureT& configure,
                              bool& called) {
        constexpr std::chrono::milliseconds longest = std::chrono::hours{24 * 24};
        const auto timeout = std::min(request.timeout, longest);
        const auto deadline = clock::now() + timeout;
        httplib_answer answer{request};
        httplib::Request sent;
        httplib::Response got;
        httplib::Error error = httplib::Error::Success;
        bool begun = false, answered = false;
        sent.method = request.method;
        sent.path.append(url.target.starts_with('/') ? "" : "/").append(url.target);
        for (const header& h : request.headers)
            sent.headers.emplace(h.name, std::string{trim(h.value)});
        if (!find_header(request.headers, "Host"))
            sent.headers.emplace("Host", std::string{url.authority});
        if (!request.body.empty()) { // not as `body`, to which httplib would add a Content-Type
            sent.content_length_ = request.body.size();
            sent.content_provider_ = [&](std::size_t from, std::size_t size, httplib::DataSink& sink) {
                begun = true;
                sink.write(request.body.data() + from, size);
                return true;
            };
        }
        sent.response_handler = [&](const httplib::Response& head) { return answer.begin(head); };
        sent.content_receiver = [&](const char* data, std::size_t size, auto, auto) {
            return answer.take({data, size});
        };

        begin(deadline); // before a function of the user's, which may take its time
        if (!prepare(url, configure))
            return transport_failure{failure::other, "httplib cannot make a client", false};
        if (!is_cut()) {
            adapt(*client_, sent, request, begun);
            client_->set_connection_timeout(timeout);
            client_->set_read_timeout(timeout);
            client_->set_write_timeout(timeout);
            called = true;
            answered = client_->send(sent, got, error);
        }
        const std::optional<failure> cut = end();
        // httplib leaves such a connection open, without TLS, and would crash with the next request on it.
        const bool proxy = answered && url.secure && !answer.begun() && got.status == 407;
        if (answered)
            answer.end(got);
        if (cut || !answered || proxy || answer.is_last() || has_more())
            client_->stop();

        transport_failure failed{failure_of(error), "httplib: " + httplib::to_string(error)};
        failed.maybe_delivered = !proxy && (answered || begun || failed.kind == failure::reset ||
                                            (failed.kind == failure::other && called));
        if (cut || (!answered && clock::now() >= deadline)) {
            failed.kind = cut.value_or(failure::timeout);
            failed.message = failed.kind == failure::timeout ? "timed out" : "cancelled";
            return failed;
        }
        if (proxy)
            return transport_failure{failure::connect, "the proxy asks for a password", false};
        if (auto outcome = answer.outcome(answered, url.secure))
            return *std::move(outcome);
        if (error == httplib::Error::Connection && !has_address(std::string{url.host}))
            failed.kind = failure::resolve;
        return failed;
    }

public:
    httplib_session() = default;
    httplib_session(const httplib_session&) = delete;
    httplib_session& operator=(const httplib_session&) = delete;

    ~httplib_session() {
        {
            const std::lock_guard held{mutex_};
            ending_ = true;
            changed_.notify_one();
        }
        if (watch_.joinable())
            watch_.join();
        const httplib_sigpipe_guard guard;
        client_.reset();
        set_connection(INVALID_SOCKET);
    }

    void cancel() noexcept {
        const std::lock_guard held{mutex_};
        if (deadline_ && !cut_)
            cut_ = failure::cancelled;
        changed_.notify_one();
    }

    template <class ConfigureT>
    transport_result send(const http_request& request, const url_parts& url, const ConfigureT& configure) {
        const httplib_sigpipe_guard guard;
        bool called = false;
        transport_result outcome = transport_failure{};
        guard_exceptions([&] { outcome = exchange(request, url, configure, called); },
                         [&](const char* what) {
                             client_.reset(); // whatever state that has left it in
                             outcome = transport_failure{failure::other, what, called};
                             return true;
                         });
        end();
        if (!client_ || !client_->is_socket_open())
            set_connection(INVALID_SOCKET);
        return outcome;
    }
};

} // namespace detail

/// A `Transport` over cpp-httplib (0.11.1 or later), with the connection kept alive from one request to the
/// next as long as the origin is the same.
///
/// - `http` and `https` only; no redirects, no decompression. `https` needs the macro with which httplib
///   has TLS (`CPPHTTPLIB_OPENSSL_SUPPORT`), and is a `failure::tls` without it; with another library
///   than OpenSSL the connection is not kept. httplib verifies peer and host. No proxy but one that
///   `configure` sets.
/// - Where httplib is a library of its own, as on Debian, this header does not compile without a macro for
///   TLS: without the flags of that library, its classes may be laid out in another way.
/// - Of a body it reads `max_response_bytes` + 1. Headers come back as httplib has them: before 0.19 without
///   those that are empty, before 0.23 with `A` for `%41`, before 0.52 in another order.
/// - httplib before 0.14.1 adds `Accept: */*` and its `User-Agent` where the request has none.
/// - An interim answer but for a bare `100 Continue` is a failure. So is a URL with a query for httplib 0.24
///   to 0.51, which would change it, and a body over `https` without a length and without chunks.
/// - httplib before 0.30 takes some cut chunked bodies for whole ones. With these the transport reads the
///   chunks itself, and a chunked answer costs the connection.
/// - Where the server closes a kept TLS connection as a request goes out, httplib from 0.12.1 on sends it
///   again on a new one, yet the service may have read it.
/// - `timeout` is at most 24 days; one of 0 or less fails at once. Neither it nor `cancel` ends the look-up
///   of a host, which takes what the system's resolver takes.
/// - Lines of a header that end in a bare LF, a folded `Transfer-Encoding` and an empty `Content-Length` are
///   dropped by httplib before the transport sees them, and with them where the body ends.
/// - httplib gives no hook while it reads headers: those of a server that sends them without end are held in
///   memory until the timeout.
/// - httplib parses the status line by `std::regex`, which recurses: with one of tens of thousands of
///   characters, a server can overflow the stack.
///
/// One request at a time, so one transport for each thread; `cancel` alone may be called from any. Movable
/// between requests. The first request starts a thread, which sleeps until a deadline or `cancel`; the
/// destructor joins it, so a transport that was used is not to be destroyed in a child of `fork`. SIGPIPE is
/// kept from the program.
class httplib_transport {
    std::unique_ptr<detail::httplib_session> session_ = std::make_unique<detail::httplib_session>();
    std::function<void(httplib::Client&)> configure_{};

public:
    httplib_transport() = default;

    /// `configure` is called for every new client, at the first request and at one to another origin, on the
    /// thread of `send`: for a CA file, a proxy, ... Keep-alive, redirects, decompression, encoding of URLs,
    /// timeouts and socket options are set by the transport, after it.
    explicit httplib_transport(std::function<void(httplib::Client&)> configure)
        : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, as the contract in `transport.hpp` has it. A request that
    /// cannot be sent as it stands (a line break in a header, ...) is a `failure::other` and not sent.
    transport_result send(const http_request& request) {
        const auto unsent = [](failure kind, const char* why) { return transport_failure{kind, why, false}; };
        if (!session_)
            return unsent(failure::other, "the transport was moved from");
        if (const char* const why = invalid_reason(request))
            return unsent(failure::other, why);
        if (request.timeout <= std::chrono::milliseconds{0})
            return unsent(failure::timeout, "the request allows no time");
        const detail::url_parts url = detail::split_url(request.url);
#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT) && !defined(CPPHTTPLIB_SSL_ENABLED)
        if (url.secure)
            return unsent(failure::tls, "https needs httplib with CPPHTTPLIB_OPENSSL_SUPPORT defined");
#endif
        constexpr bool keeps_queries = detail::httplib_minor() < 24 || detail::httplib_minor() > 51;
        if (!keeps_queries && url.target.find('?') != url.target.npos)
            return unsent(failure::other, "this version of httplib would change the query of the URL");
        return session_->send(request, url, configure_);
    }

    /// Ends the request in flight, if there is one, with `failure::cancelled`; later ones are not affected.
    /// Does not wait for it. Any thread, but not while the transport is moved or destroyed.
    void cancel() noexcept {
        if (session_)
            session_->cancel();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
