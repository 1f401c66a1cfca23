#ifndef PROMPTLAYER_TRANSPORTS_BEAST_HPP
#define PROMPTLAYER_TRANSPORTS_BEAST_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>
#include <promptlayer/transports/detail/request_limits.hpp>

// These include windows.h, so before its macros are set aside
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

inline constexpr std::size_t beast_max_header_bytes = 256 * 1024; // of one response

/// Parses one response: all headers in their order, and of the body one byte more than allowed.
class beast_parser final : public boost::beast::http::basic_parser<false> {
    using error_code = boost::system::error_code;
    using text = boost::beast::string_view;

    http_response response_{};
    std::size_t max_body_bytes_;
    std::size_t& header_bytes_;    // includes informational responses before
    bool may_have_chunks_ = false; // the response is of HTTP/1.1
    bool headers_done_ = false;    // trailers may follow

    void count(std::size_t bytes, error_code& error) {
        header_bytes_ += bytes;
        if (header_bytes_ > beast_max_header_bytes)
            error = boost::beast::http::error::header_limit;
    }

    void on_request_impl(boost::beast::http::verb, text, text, int, error_code&) override {}
    void on_response_impl(int status, text reason, int version, error_code& error) override {
        response_.status = status;
        may_have_chunks_ = version == 11;
        if (status < 100)
            error = boost::beast::http::error::bad_status;
        count(std::string_view{"HTTP/1.1 200 \r\n\r\n"}.size() + reason.size(), error);
    }
    void on_field_impl(boost::beast::http::field, text name, text value, error_code& error) override {
        count(name.size() + value.size() + 4, error);
        if (!headers_done_ && !error)
            response_.headers.push_back({name, value});
    }
    void on_header_impl(error_code& error) override {
        headers_done_ = true;
        if (!has_clear_framing(response_.headers, response_.status >= 200, may_have_chunks_))
            error = boost::beast::http::error::bad_content_length;
    }
    void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
    std::size_t on_body_impl(text part, error_code& error) override {
        if (!append_body(response_.body, part, max_body_bytes_))
            error = boost::beast::http::error::body_limit;
        return part.size();
    }
    void on_chunk_header_impl(std::uint64_t, text, error_code&) override {}
    std::size_t on_chunk_body_impl(std::uint64_t, text part, error_code& error) override {
        return on_body_impl(part, error);
    }
    void on_finish_impl(error_code&) override {}

public:
    beast_parser(const http_request& request, std::size_t& header_bytes)
        : max_body_bytes_(request.max_response_bytes), header_bytes_(header_bytes) {
        header_limit(beast_max_header_bytes);
        body_limit(boost::none);
        skip(request.method == "HEAD");
    }

    http_response& response() noexcept { return response_; }
    bool is_informational() const noexcept { return response_.status / 100 == 1 && response_.status != 101; }
    bool is_over_limit() const noexcept { return response_.body.size() > max_body_bytes_; }
};

struct beast_connection {
    using tcp = boost::asio::ip::tcp;

    std::string origin;
    tcp::socket socket;
    std::optional<boost::asio::ssl::stream<tcp::socket&>> tls{};
    std::chrono::steady_clock::time_point idle_since{};

    beast_connection(std::string to, const boost::asio::any_io_executor& strand)
        : origin(std::move(to)), socket(strand) {}

    template <class ActionT>
    void with_stream(ActionT action) {
        tls ? action(*tls) : action(socket);
    }

    /// Returns whether the TLS layer has bytes that follow the response.
    bool has_unread() {
        return tls && (SSL_pending(tls->native_handle()) != 0 ||
                       BIO_ctrl_pending(SSL_get_rbio(tls->native_handle())) != 0);
    }

    void close() noexcept {
        boost::system::error_code ignored;
        socket.close(ignored);
    }

    /// Returns whether the connection is open, has no bytes that no request asked for, and is recent.
    bool is_usable() {
        char byte = 0;
        boost::system::error_code error;
        socket.non_blocking(true, error);
        socket.receive(boost::asio::buffer(&byte, 1), tcp::socket::message_peek, error);
        return error == boost::asio::error::would_block &&
               std::chrono::steady_clock::now() - idle_since < std::chrono::minutes{1};
    }
};

class beast_exchange;

/// The state that the exchanges of a transport share. Used on the strand only.
struct beast_core {
    boost::asio::any_io_executor executor; // from the user
    boost::asio::any_io_executor strand = boost::asio::make_strand(executor);
    std::shared_ptr<SSL_CTX> tls; // shared with the context of the user
    bool follows_max_in_flight;
    std::size_t max_idle;
    std::vector<std::shared_ptr<beast_connection>> idle{}; // ordered by last use
    std::set<std::weak_ptr<beast_exchange>, std::owner_less<>> in_flight{};

    beast_core(boost::asio::any_io_executor runs_on, SSL_CTX* context,
               std::optional<std::size_t> max_idle_connections)
        : executor(std::move(runs_on)),
          tls((static_cast<void>(SSL_CTX_up_ref(context)), context), &SSL_CTX_free),
          follows_max_in_flight(!max_idle_connections), max_idle(max_idle_connections.value_or(8)) {}

    std::shared_ptr<beast_connection> take(const std::string& origin) {
        for (std::size_t i = idle.size(); i-- > 0;) {
            if (idle[i]->origin != origin)
                continue;
            auto connection = std::move(idle[i]);
            idle.erase(idle.begin() + static_cast<std::ptrdiff_t>(i));
            if (connection->is_usable())
                return connection;
        }
        return nullptr;
    }

    void keep(std::shared_ptr<beast_connection> connection) {
        std::erase_if(idle, [](const auto& other) { return !other->is_usable(); });
        connection->idle_since = std::chrono::steady_clock::now();
        idle.push_back(std::move(connection));
        if (idle.size() > max_idle)
            idle.erase(idle.begin());
    }
};

/// One request in flight. Lives as long as one of its operations is pending. All members except the
/// constructor run on the strand.
class beast_exchange : public std::enable_shared_from_this<beast_exchange> {
    using error_code = boost::system::error_code;
    using tcp = boost::asio::ip::tcp;
    using addresses = tcp::resolver::results_type;
    using clock = std::chrono::steady_clock;

    static constexpr std::chrono::milliseconds grace{50}; // to finish writing after the response has arrived

    std::shared_ptr<beast_core> core_;
    http_request request_;
    completion done_; // null after the call
    boost::asio::steady_timer timer_;
    tcp::resolver resolver_;
    url_parts url_{};      // refers to the URL of the request
    std::string origin_{}; // scheme, host and port of the URL
    std::string head_{};
    std::shared_ptr<beast_connection> connection_{};
    boost::beast::flat_buffer buffer_{beast_max_header_bytes + 64 * 1024};
    std::size_t header_bytes_ = 0; // of the response so far
    std::optional<beast_parser> parser_{};
    error_code read_error_{};
    bool incomplete_write_ = true; // part of the request is not written
    bool sent_ = false;            // part of the request, on any connection
    bool may_resend_ = false;      // on a new connection, if this one ends without a byte
    int pending_ = 0;              // writing and reading

    static failure kind_of(const error_code& code) {
        using boost::beast::http::error;
        if (code == error::end_of_stream || code == error::partial_message)
            return failure::reset;
        if (code.category() == make_error_code(error::end_of_stream).category())
            return failure::other;
        return code.category() == boost::asio::error::get_ssl_category() ? failure::tls : failure::reset;
    }

    /// Returns a handler that calls `next(*this, ...)`, unless the request has ended by then.
    template <class NextT>
    auto resume_with(NextT next) {
        return [self = shared_from_this(), next](const error_code& error, const auto&... rest) {
            if (self->done_)
                next(*self, error, rest...);
        };
    }

    void write_head() {
        head_ = request_.method + " " + request_target(url_) + " HTTP/1.1\r\n";
        if (!find_header(request_.headers, "Host"))
            head_.append("Host: ").append(url_.authority).append("\r\n");
        for (const header& h : request_.headers)
            head_.append(h.name).append(": ").append(h.value).append("\r\n");
        if (has_content_length(request_))
            head_.append("Content-Length: ").append(std::to_string(request_.body.size())).append("\r\n");
        head_.append("\r\n");
    }

    void wait_until(clock::time_point time) {
        timer_.expires_at(time);
        timer_.async_wait(resume_with([](auto& self, const error_code& error) {
            if (error)
                return;
            if (self.parser_ && self.parser_->is_done() && !self.parser_->is_informational())
                self.connection_->close(); // ends the writing
            else
                self.fail(failure::timeout, "timed out");
        }));
    }

    void look_up() {
        connection_.reset();
        const std::string host{url_.host};
        error_code no_address;
        const auto address = boost::asio::ip::make_address(host, no_address);
        if (!no_address)
            return connect(addresses::create({address, static_cast<std::uint16_t>(url_.port)}, host, ""));
        resolver_.async_resolve(
            host, std::to_string(url_.port),
            resume_with([](auto& self, const error_code& error, const addresses& results) {
                error ? self.fail(failure::resolve, error.message()) : self.connect(results);
            }));
    }

    void connect(const addresses& results) {
        connection_ = std::make_shared<beast_connection>(origin_, core_->strand);
        boost::asio::async_connect(
            connection_->socket, results,
            resume_with([](auto& self, const error_code& error, const auto&) { self.on_connect(error); }));
    }

    void on_connect(const error_code& connect_error) {
        if (connect_error)
            return fail(failure::connect, connect_error.message());
        error_code ignored;
        connection_->socket.set_option(tcp::no_delay{true}, ignored);
        if (!url_.secure)
            return exchange();
        std::string host{url_.host};
        SSL* const handle = SSL_new(core_->tls.get());
        if (!handle)
            return fail(failure::tls, "OpenSSL has no memory for a connection");
        auto& tls = connection_->tls.emplace(connection_->socket, handle);
        tls.set_verify_mode(boost::asio::ssl::verify_peer, ignored);
        tls.set_verify_callback(
            [names = boost::asio::ssl::host_name_verification{host}](bool trusted, auto& context) {
                const bool verified = names(trusted, context);
                if (trusted && !verified)
                    X509_STORE_CTX_set_error(context.native_handle(), X509_V_ERR_HOSTNAME_MISMATCH);
                return verified;
            },
            ignored);
        boost::asio::ip::make_address(host, ignored);
        if (ignored) // the host is a name
            SSL_ctrl(handle, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host.data());
        tls.async_handshake(
            boost::asio::ssl::stream_base::client, resume_with([handle](auto& self, const error_code& error) {
                if (!error)
                    return self.exchange();
                const long result = SSL_get_verify_result(handle);
                self.fail(error.category() == boost::asio::error::get_ssl_category() ? failure::tls
                                                                                     : failure::connect,
                          result == X509_V_OK ? error.message() : X509_verify_cert_error_string(result));
            }));
    }

    /// Writes and reads at once: a server may reject a long body before it has read all of it.
    void exchange() {
        sent_ = true;
        incomplete_write_ = true;
        pending_ = 2;
        connection_->with_stream([&](auto& stream) {
            const std::array message{boost::asio::buffer(std::as_const(head_)),
                                     boost::asio::buffer(std::as_const(request_.body))};
            boost::asio::async_write(stream, message,
                                     resume_with([](auto& self, const error_code& error, auto) {
                                         self.incomplete_write_ = error.failed();
                                         self.on_end();
                                     }));
        });
        read();
    }

    void read() {
        parser_.emplace(request_, header_bytes_);
        connection_->with_stream([&](auto& stream) {
            boost::beast::http::async_read(
                stream, buffer_, *parser_, resume_with([](auto& self, const error_code& error, auto) {
                    if (!error && self.parser_->is_informational()) {
                        self.may_resend_ = false;
                        return self.read();
                    }
                    self.read_error_ = error;
                    if (error)
                        self.connection_->close();
                    else if (self.pending_ == 2) // the handler of a finished write may still be queued
                        self.wait_until(std::min(self.timer_.expiry(), clock::now() + grace));
                    self.on_end();
                }));
        });
    }

    void on_end() {
        if (--pending_ > 0)
            return;
        if (read_error_ && !parser_->is_over_limit()) {
            const failure kind = kind_of(read_error_);
            if (kind != failure::reset || !std::exchange(may_resend_, false) || parser_->got_some())
                return fail(kind, read_error_.message());
            return look_up();
        }
        if (!read_error_ && !incomplete_write_ && parser_->keep_alive() && buffer_.size() == 0 &&
            !connection_->has_unread() && parser_->response().status != 101)
            core_->keep(std::move(connection_));
        finish(std::move(parser_->response()));
    }

    void fail(failure kind, const std::string& message) {
        finish(transport_failure{kind, origin_ + ": " + message, sent_});
    }

    void finish(transport_result outcome) {
        core_->in_flight.erase(weak_from_this());
        timer_.cancel();
        resolver_.cancel();
        if (connection_)
            connection_->close();
        std::exchange(done_, nullptr)(std::move(outcome));
    }

public:
    beast_exchange(std::shared_ptr<beast_core> core, http_request request, completion done)
        : core_(std::move(core)), request_(std::move(request)),
          done_(done ? std::move(done) : completion{[](const transport_result&) {}}),
          timer_(core_->strand, clock::now() + clamp_timeout(request_.timeout)), resolver_(core_->strand) {}

    void start() {
        if (auto error = request_error(request_))
            return finish(*std::move(error));
        core_->in_flight.insert(weak_from_this());
        url_ = split_url(request_.url);
        origin_ = request_.url.substr(0, request_.url.size() - url_.target.size());
        write_head();
        wait_until(timer_.expiry());
        connection_ = core_->take(origin_);
        may_resend_ = connection_ != nullptr;
        connection_ ? exchange() : look_up();
    }

    void cancel() {
        if (done_)
            fail(failure::cancelled, "cancelled");
    }
};

} // namespace detail

/// An `AsyncTransport` over Boost.Beast and OpenSSL, on an `io_context` or another executor of yours. Keeps
/// its connections for further requests. Each request in flight has a connection to itself.
///
/// - Sends to `http` and `https` URLs. Follows no redirect and uses neither cookies nor proxies. Verifies
///   chain and host of `https` with the CAs of `tls`, whatever its verify mode. Its verify callback is not
///   called.
/// - Reads `max_response_bytes` + 1 of a body and 256 KiB of headers. Does not return trailers.
/// - A response that breaks the grammar of RFC 9112, or does not say clearly where its body ends, is a
///   `failure::other`. So is a folded header of more than 4 KiB. `curl_transport` lists the differences.
/// - A kept connection that the server has closed is not used. If the server closes it later, without a byte
///   of a response, the request is sent once more on a new one. The service may have received it twice.
/// - `timeout` is at most 24 days; 0 or less fails at once.
/// - Tries the addresses of a host one after the other. DNS lookups run one after the other, in one thread of
///   the context, and cannot be interrupted. The outcome of a request is reported in time, but `run()` and
///   the destructor of the context wait for the system's resolver. An address needs no lookup.
///
/// `send` and `cancel` may be called from any thread, also if many threads run the executor. Completions are
/// called one at a time on a strand of the executor, never within `send`. Nothing happens unless a thread
/// runs the executor.
///
/// As with any I/O object of Asio, the execution context must outlive the transport; `tls` need not. Its
/// destructor and assignment end the requests in flight like `cancel`. If no thread runs the context any
/// more, their completions are destroyed with it. Idle connections do not keep `run()` from returning.
class beast_transport {
    std::shared_ptr<detail::beast_core> core_;

public:
    static constexpr bool thread_safe = true;

    /// Configure `tls` before the first request: `tls.set_default_verify_paths()` trusts the CAs of the
    /// system. Without such a line no `https` is trusted. At most `max_idle_connections`, to all hosts
    /// together, are kept, each for a minute; without that argument as many as `max_in_flight` says, or 8.
    beast_transport(boost::asio::any_io_executor executor, boost::asio::ssl::context& tls,
                    std::optional<std::size_t> max_idle_connections = {})
        : core_(std::make_shared<detail::beast_core>(std::move(executor), tls.native_handle(),
                                                     max_idle_connections)) {}

    template <class ContextT>
    requires std::convertible_to<ContextT&, boost::asio::execution_context&>
    beast_transport(ContextT& context, boost::asio::ssl::context& tls,
                    std::optional<std::size_t> max_idle_connections = {})
        : beast_transport(context.get_executor(), tls, max_idle_connections) {}

    beast_transport(beast_transport&&) noexcept = default;
    beast_transport& operator=(beast_transport other) noexcept {
        core_.swap(other.core_);
        return *this;
    }
    ~beast_transport() { cancel(); }

    /// Returns the executor of the constructor.
    boost::asio::any_io_executor get_executor() const { return core_->executor; }

    /// Sends one request, by the contract in `transport.hpp`. A request that cannot be sent unchanged (a line
    /// break in a header, ...) is a `failure::other` and not sent. Must not be called on a transport that was
    /// moved from.
    void send(http_request request, completion done) {
        boost::asio::post(core_->strand,
                          [exchange = std::make_shared<detail::beast_exchange>(
                               core_, std::move(request), std::move(done))] { exchange->start(); });
    }

    /// Sets how many idle connections are kept, unless the constructor was given a number. Call it before the
    /// first `send`; a tracker does.
    void max_in_flight(std::size_t count) noexcept {
        if (core_ && core_->follows_max_in_flight)
            core_->max_idle = count;
    }

    /// Ends the requests in flight with `failure::cancelled`. Later requests are not affected. Does not wait.
    /// May be called from any thread, except while the transport is moved or destroyed. Ends nothing if
    /// memory is exhausted.
    void cancel() noexcept {
        if (!core_)
            return;
        detail::guard_exceptions(
            [&] {
                boost::asio::post(core_->strand, [core = core_] {
                    for (const auto& exchange : core->in_flight)
                        boost::asio::post(core->strand, [exchange] {
                            if (const auto alive = exchange.lock())
                                alive->cancel();
                        });
                });
            },
            [](const char*) {});
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
