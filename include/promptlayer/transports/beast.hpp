#ifndef PROMPTLAYER_TRANSPORTS_BEAST_HPP
#define PROMPTLAYER_TRANSPORTS_BEAST_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>

// Before the macros are set aside that windows.h defines, which these include
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
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

inline constexpr std::size_t beast_max_header_bytes = 256 * 1024; // of one answer

/// Reads one answer as it comes: all headers in their order, and of the body one byte more than allowed.
class beast_answer final : public boost::beast::http::basic_parser<false> {
    using error_code = boost::system::error_code;
    using text = boost::beast::string_view;

    http_response response_{};
    std::size_t max_body_bytes_;
    std::size_t& header_bytes_; // also of the interim answers before
    bool has_chunks_ = false;   // the version of HTTP has
    bool headers_done_ = false; // what follows are trailers

    void count(std::size_t bytes, error_code& failed) {
        header_bytes_ += bytes;
        if (header_bytes_ > beast_max_header_bytes)
            failed = boost::beast::http::error::header_limit;
    }

    void on_request_impl(boost::beast::http::verb, text, text, int, error_code&) override {}
    void on_response_impl(int status, text reason, int version, error_code& failed) override {
        response_.status = status;
        has_chunks_ = version == 11;
        if (status < 100)
            failed = boost::beast::http::error::bad_status;
        count(std::string_view{"HTTP/1.1 200 \r\n\r\n"}.size() + reason.size(), failed);
    }
    void on_field_impl(boost::beast::http::field, text name, text value, error_code& failed) override {
        count(name.size() + value.size() + 4, failed);
        if (!headers_done_ && !failed)
            response_.headers.push_back({std::string{name}, std::string{value}});
    }
    void on_header_impl(error_code& failed) override {
        headers_done_ = true;
        if (!framing_is_clear(response_.headers, response_.status >= 200, has_chunks_))
            failed = boost::beast::http::error::bad_content_length;
    }
    void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
    std::size_t on_body_impl(text part, error_code& failed) override {
        const std::size_t room = max_body_bytes_ - response_.body.size();
        response_.body.append(part.data(), std::min(part.size(), room));
        if (part.size() > room) {
            response_.body.push_back(part[room]);
            failed = boost::beast::http::error::body_limit;
        }
        return part.size();
    }
    void on_chunk_header_impl(std::uint64_t, text, error_code&) override {}
    std::size_t on_chunk_body_impl(std::uint64_t, text part, error_code& failed) override {
        return on_body_impl(part, failed);
    }
    void on_finish_impl(error_code&) override {}

public:
    beast_answer(const http_request& request, std::size_t& header_bytes)
        : max_body_bytes_(request.max_response_bytes), header_bytes_(header_bytes) {
        header_limit(beast_max_header_bytes);
        body_limit(boost::none);
        skip(request.method == "HEAD");
    }

    http_response& response() noexcept { return response_; }
    bool interim() const noexcept { return response_.status / 100 == 1 && response_.status != 101; }
    bool too_long() const noexcept { return response_.body.size() > max_body_bytes_; }
};

struct beast_connection {
    using tcp = boost::asio::ip::tcp;

    std::string origin;
    tcp::socket socket;
    std::optional<boost::asio::ssl::stream<tcp::socket&>> tls{};
    std::chrono::steady_clock::time_point idle_since{};

    beast_connection(std::string where, const boost::asio::any_io_executor& strand)
        : origin(std::move(where)), socket(strand) {}

    template <class ActionT>
    void with_stream(ActionT action) {
        tls ? action(*tls) : action(socket);
    }

    /// Whether bytes after the answer have come through to the TLS layer.
    bool unread() {
        return tls && (SSL_pending(tls->native_handle()) != 0 ||
                       BIO_ctrl_pending(SSL_get_rbio(tls->native_handle())) != 0);
    }

    void close() noexcept {
        boost::system::error_code ignored;
        socket.close(ignored);
    }

    /// Whether the server has neither closed it nor said anything unasked for.
    bool usable() {
        char byte = 0;
        boost::system::error_code outcome;
        socket.non_blocking(true, outcome);
        socket.receive(boost::asio::buffer(&byte, 1), tcp::socket::message_peek, outcome);
        return outcome == boost::asio::error::would_block &&
               std::chrono::steady_clock::now() - idle_since < std::chrono::minutes{1};
    }
};

class beast_exchange;

/// What the exchanges of a transport share. Used on the strand only.
struct beast_core {
    boost::asio::any_io_executor executor; // the user's
    boost::asio::any_io_executor strand = boost::asio::make_strand(executor);
    std::shared_ptr<SSL_CTX> tls; // shared with the user's context
    std::size_t max_idle;
    std::vector<std::shared_ptr<beast_connection>> idle{}; // the one used last at the end
    std::set<std::weak_ptr<beast_exchange>, std::owner_less<>> in_flight{};

    beast_core(boost::asio::any_io_executor runs, SSL_CTX* context, std::size_t most_idle)
        : executor(std::move(runs)),
          tls((static_cast<void>(SSL_CTX_up_ref(context)), context), &SSL_CTX_free), max_idle(most_idle) {}

    std::shared_ptr<beast_connection> take(const std::string& origin) {
        for (std::size_t i = idle.size(); i-- > 0;) {
            if (idle[i]->origin != origin)
                continue;
            const auto found = std::move(idle[i]);
            idle.erase(idle.begin() + static_cast<std::ptrdiff_t>(i));
            if (found->usable())
                return found;
        }
        return nullptr;
    }

    void keep(std::shared_ptr<beast_connection> connection) {
        std::erase_if(idle, [](const auto& kept) { return !kept->usable(); });
        connection->idle_since = std::chrono::steady_clock::now();
        idle.push_back(std::move(connection));
        if (idle.size() > max_idle)
            idle.erase(idle.begin());
    }
};

/// One request on its way. Lives as long as an operation of its own is pending; everything but the
/// constructor runs on the strand.
class beast_exchange : public std::enable_shared_from_this<beast_exchange> {
    using error_code = boost::system::error_code;
    using tcp = boost::asio::ip::tcp;
    using addresses = tcp::resolver::results_type;
    using clock = std::chrono::steady_clock;

    static constexpr std::chrono::milliseconds grace{50}; // for the writing, once the answer is there

    std::shared_ptr<beast_core> core_;
    http_request request_;
    completion done_; // null once it was called
    boost::asio::steady_timer timer_;
    tcp::resolver resolver_;
    url_parts url_{};      // refers to that of the request
    std::string origin_{}; // of the URL, scheme, host and port
    std::string head_{};
    std::shared_ptr<beast_connection> connection_{};
    boost::beast::flat_buffer buffer_{beast_max_header_bytes + 64 * 1024};
    std::size_t header_bytes_ = 0; // of the answer so far
    std::optional<beast_answer> answer_{};
    error_code unread_{};   // why the answer was not read to its end
    bool unwritten_ = true; // the request, in part
    bool sent_ = false;     // a part of the request, on whatever connection
    bool resend_ = false;   // on a new connection, if this one ends without a byte
    int running_ = 0;       // of writing and reading

    static failure kind_of(const error_code& why) {
        using boost::beast::http::error;
        if (why == error::end_of_stream || why == error::partial_message)
            return failure::reset;
        if (why.category() == make_error_code(error::end_of_stream).category())
            return failure::other;
        return why.category() == boost::asio::error::get_ssl_category() ? failure::tls : failure::reset;
    }

    /// A handler that calls `next(*this, ...)`, unless the outcome is known by then.
    template <class NextT>
    auto then(NextT next) {
        return [self = shared_from_this(), next](const error_code& failed, const auto&... rest) {
            if (self->done_)
                next(*self, failed, rest...);
        };
    }

    void write_head() {
        const std::string& method = request_.method;
        head_.append(method).append(url_.target.starts_with('/') ? " " : " /").append(url_.target);
        head_.append(" HTTP/1.1\r\n");
        if (!find_header(request_.headers, "Host"))
            head_.append("Host: ").append(url_.authority).append("\r\n");
        for (const header& h : request_.headers)
            head_.append(h.name).append(": ").append(h.value).append("\r\n");
        if (!request_.body.empty() || method == "POST" || method == "PUT" || method == "PATCH")
            head_.append("Content-Length: ").append(std::to_string(request_.body.size())).append("\r\n");
        head_.append("\r\n");
    }

    void wait_until(clock::time_point time) {
        timer_.expires_at(time);
        timer_.async_wait(then([](auto& self, const error_code& stopped) {
            if (stopped)
                return;
            if (self.answer_ && self.answer_->is_done() && !self.answer_->interim())
                self.connection_->close(); // which ends the writing
            else
                self.fail(failure::timeout, "no answer in time");
        }));
    }

    void look_up() {
        connection_.reset();
        const std::string host{url_.host};
        error_code no_address;
        const auto address = boost::asio::ip::make_address(host, no_address);
        if (!no_address)
            return connect(addresses::create({address, static_cast<std::uint16_t>(url_.port)}, host, ""));
        resolver_.async_resolve(host, std::to_string(url_.port),
                                then([](auto& self, const error_code& failed, const addresses& found) {
                                    failed ? self.fail(failure::resolve, failed.message())
                                           : self.connect(found);
                                }));
    }

    void connect(const addresses& found) {
        connection_ = std::make_shared<beast_connection>(origin_, core_->strand);
        boost::asio::async_connect(
            connection_->socket, found,
            then([](auto& self, const error_code& refused, const auto&) { self.connected(refused); }));
    }

    void connected(const error_code& failed) {
        if (failed)
            return fail(failure::connect, failed.message());
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
                const bool good = names(trusted, context);
                if (trusted && !good)
                    X509_STORE_CTX_set_error(context.native_handle(), X509_V_ERR_HOSTNAME_MISMATCH);
                return good;
            },
            ignored);
        boost::asio::ip::make_address(host, ignored);
        if (ignored) // no address
            SSL_ctrl(handle, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host.data());
        tls.async_handshake(
            boost::asio::ssl::stream_base::client, then([handle](auto& self, const error_code& refused) {
                if (!refused)
                    return self.exchange();
                const long found = SSL_get_verify_result(handle);
                self.fail(refused.category() == boost::asio::error::get_ssl_category() ? failure::tls
                                                                                       : failure::connect,
                          found == X509_V_OK ? refused.message() : X509_verify_cert_error_string(found));
            }));
    }

    /// Writes and reads at once: a server may refuse a long body before it has all of it.
    void exchange() {
        sent_ = true;
        unwritten_ = true;
        running_ = 2;
        connection_->with_stream([&](auto& stream) {
            const std::array whole{boost::asio::buffer(std::as_const(head_)),
                                   boost::asio::buffer(std::as_const(request_.body))};
            boost::asio::async_write(stream, whole, then([](auto& self, const error_code& failed, auto) {
                                         self.unwritten_ = failed.failed();
                                         self.ended();
                                     }));
        });
        read();
    }

    void read() {
        answer_.emplace(request_, header_bytes_);
        connection_->with_stream([&](auto& stream) {
            boost::beast::http::async_read(
                stream, buffer_, *answer_, then([](auto& self, const error_code& failed, auto) {
                    if (!failed && self.answer_->interim()) {
                        self.resend_ = false;
                        return self.read();
                    }
                    self.unread_ = failed;
                    if (failed)
                        self.connection_->close();
                    else if (self.running_ == 2) // another thread may be about to tell that all is written
                        self.wait_until(std::min(self.timer_.expiry(), clock::now() + grace));
                    self.ended();
                }));
        });
    }

    void ended() {
        if (--running_ > 0)
            return;
        if (unread_ && !answer_->too_long()) {
            const failure kind = kind_of(unread_);
            if (kind != failure::reset || !std::exchange(resend_, false) || answer_->got_some())
                return fail(kind, unread_.message());
            return look_up();
        }
        if (!unread_ && !unwritten_ && answer_->keep_alive() && buffer_.size() == 0 &&
            !connection_->unread() && answer_->response().status != 101)
            core_->keep(std::move(connection_));
        finish(std::move(answer_->response()));
    }

    void fail(failure kind, const std::string& why) {
        finish(transport_failure{kind, origin_ + ": " + why, sent_});
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
          timer_(core_->strand,
                 clock::now() + std::clamp<std::chrono::milliseconds>(request_.timeout, std::chrono::hours{0},
                                                                      std::chrono::hours{24 * 24})),
          resolver_(core_->strand) {}

    void start() {
        const auto refuse = [&](failure kind, const char* why) {
            finish(transport_failure{kind, why, false});
        };
        if (const char* const why = invalid_reason(request_))
            return refuse(failure::other, why);
        if (request_.timeout <= std::chrono::milliseconds{0})
            return refuse(failure::timeout, "the request allows no time");
        core_->in_flight.insert(weak_from_this());
        url_ = split_url(request_.url);
        origin_ = request_.url.substr(0, request_.url.size() - url_.target.size());
        write_head();
        wait_until(timer_.expiry());
        connection_ = core_->take(origin_);
        resend_ = connection_ != nullptr;
        connection_ ? exchange() : look_up();
    }

    void cancel() {
        if (done_)
            fail(failure::cancelled, "cancelled");
    }
};

} // namespace detail

/// An `AsyncTransport` over Boost.Beast and OpenSSL, on an `io_context` or another executor of yours, with
/// connections kept alive from one request to the next. Every request in flight has a connection to itself.
///
/// - `http` and `https` only; no redirects, no cookies, no proxies. Chain and host of `https` are verified
///   with the authorities of `tls`, whatever its verify mode; its verify callback is not called.
/// - Of a body it reads `max_response_bytes` + 1, of headers 256 KiB. Trailers are not returned.
/// - A response that breaks the grammar of RFC 9112, or leaves open where its body ends, is a
///   `failure::other`. So is a folded header of more than 4 KiB. `curl_transport` lists how it differs.
/// - An idle connection that the server has closed is not used. Where the server closes it only then, without
///   a byte of an answer, the request is sent once more on a new one, yet the service may have read it there.
/// - `timeout` is at most 24 days; one of 0 or less fails at once.
/// - The addresses of a host are tried one after the other. Look-ups go one after the other, in one thread of
///   the context, and cannot be interrupted: the outcome is known in time, but neither does `run()` return
///   nor the destructor of the context before the system's resolver does. An address needs none.
///
/// `send` and `cancel` may be called from any thread, also where many threads run the executor. Completions
/// are called one at a time on a strand of it, never within `send`; nothing happens unless somebody runs it.
///
/// As with any I/O object of Asio, the execution context outlives the transport; `tls` need not. Destroying
/// the transport, or assigning to it, ends the requests in flight as `cancel` does; where nobody runs the
/// context any more, their completions are destroyed with it. Idle connections do not keep `run()` from
/// returning.
class beast_transport {
    std::shared_ptr<detail::beast_core> core_;

public:
    static constexpr bool thread_safe = true;

    /// `tls` is configured before the first request: `tls.set_default_verify_paths()` trusts the system's
    /// authorities, without such a line no `https` is trusted. Of idle connections, to all hosts together, at
    /// most `max_idle_connections` are kept; one is used again for a minute.
    beast_transport(boost::asio::any_io_executor executor, boost::asio::ssl::context& tls,
                    std::size_t max_idle_connections = 8)
        : core_(std::make_shared<detail::beast_core>(executor, tls.native_handle(), max_idle_connections)) {}

    template <class ContextT>
    requires std::convertible_to<ContextT&, boost::asio::execution_context&>
    beast_transport(ContextT& context, boost::asio::ssl::context& tls, std::size_t max_idle_connections = 8)
        : beast_transport(context.get_executor(), tls, max_idle_connections) {}

    beast_transport(beast_transport&&) noexcept = default;
    beast_transport& operator=(beast_transport other) noexcept {
        core_.swap(other.core_);
        return *this;
    }
    ~beast_transport() { cancel(); }

    /// The executor it was made with.
    boost::asio::any_io_executor get_executor() const { return core_->executor; }

    /// Sends one request, as the contract in `transport.hpp` has it. A request that cannot be sent as it
    /// stands (a line break in a header, ...) is a `failure::other` and not sent. Not to be called on one
    /// that was moved from.
    void send(http_request request, completion done) {
        boost::asio::post(core_->strand,
                          [exchange = std::make_shared<detail::beast_exchange>(
                               core_, std::move(request), std::move(done))] { exchange->start(); });
    }

    /// Ends the requests in flight with `failure::cancelled`; later ones are not affected. Does not wait for
    /// it. Any thread, but not while the transport is moved or destroyed.
    void cancel() noexcept {
        if (!core_)
            return;
        boost::asio::post(core_->strand, [core = core_] {
            for (const auto& exchange : core->in_flight)
                boost::asio::post(core->strand, [exchange] {
                    if (const auto alive = exchange.lock())
                        alive->cancel();
                });
        });
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
