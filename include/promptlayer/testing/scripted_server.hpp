#ifndef PROMPTLAYER_TESTING_SCRIPTED_SERVER_HPP
#define PROMPTLAYER_TESTING_SCRIPTED_SERVER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/http.hpp>

// Before the macros are set aside: these headers include windows.h, which defines some of them.
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI::testing {

/// The response of a `scripted_server` to one request.
struct scripted_response {
    /// What happens to the connection after the response.
    enum class connection_ending {
        keep_alive,            ///< stays open for the next request, unless this one says `Connection: close`
        close,                 ///< responds with `Connection: close` and closes
        close_unannounced,     ///< responds as if it stayed open and closes
        close_midway,          ///< closes after half of the body that `Content-Length` announces
        reset_midway,          ///< resets (TCP RST) after half of the body, or after all of `raw`
        reset_before_response, ///< resets when the request has arrived
        silent,                ///< sends nothing, reads on and closes after `hold`
    };

    /// Sent with a `Content-Length`, unless it has a `Content-Length` or `Transfer-Encoding` of its own.
    http_response response{200, {}, R"({"success":true,"message":"scripted"})"};
    std::optional<std::string> raw{};       ///< bytes to send as they are, instead of `response`
    std::chrono::milliseconds delay{};      ///< from the request's arrival to the first byte of the response
    std::chrono::milliseconds byte_delay{}; ///< before each further byte; 0 sends all bytes together
    connection_ending ending = connection_ending::keep_alive;
    /// From the last byte to `ending`. A connection that is kept alive closes if no further request arrives
    /// within `hold`; with 0 it stays open.
    std::chrono::milliseconds hold{};
};

/// A plain HTTP server for tests, on a free port of 127.0.0.1 or ::1. It records every request and responds
/// as scripted. It returns 400 for a request that is not HTTP, and 413 for a body above 8 MiB + 64 KiB.
///
/// Its members may be called from any thread. A thread of its own serves all connections. The destructor
/// closes them, drops delayed responses and joins the thread.
class scripted_server {
public:
    /// Responds to a request. Called on the server's thread; must not throw.
    using handler = std::function<scripted_response(const http_request&)>;

private:
    using tcp = boost::asio::ip::tcp;

    struct shared_state {
        explicit shared_state(handler chosen) : respond(std::move(chosen)) {}

        const handler respond;
        mutable std::mutex mutex{};
        std::vector<http_request> requests{};
        std::deque<scripted_response> script{};
        std::size_t connections = 0, open = 0, ended = 0;
    };

    /// One connection. Each pending handler keeps it alive.
    class session : public std::enable_shared_from_this<session> {
        using ending = scripted_response::connection_ending;
        using error_code = boost::system::error_code;
        using request_parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

        static constexpr std::uint64_t max_body_bytes = 8 * 1024 * 1024 + 64 * 1024;

        tcp::socket socket_;
        shared_state& state_;
        boost::asio::steady_timer timer_;
        boost::beast::flat_buffer buffer_{};
        std::optional<request_parser> parser_{};
        std::array<char, 16384> discarded_{};
        scripted_response response_{};
        std::string output_{};

        /// Returns a handler that calls `next`, and drops the connection if the operation failed.
        template <class NextT>
        auto resume_with(NextT next) {
            return [self = shared_from_this(), next](error_code failed, std::size_t = 0) {
                if (!failed)
                    next(*self);
            };
        }

        template <class NextT>
        void after(std::chrono::milliseconds delay, NextT next) {
            timer_.expires_after(std::min<std::chrono::milliseconds>(delay, std::chrono::hours{24}));
            timer_.async_wait(resume_with(next));
        }

        http_request parsed_request() const {
            const auto& message = parser_->get();
            http_request request;
            request.method = std::string{message.method_string()};
            request.url = std::string{message.target()};
            for (const auto& field : message)
                request.headers.push_back({std::string{field.name_string()}, std::string{field.value()}});
            request.body = message.body();
            return request;
        }

        scripted_response response_to(const http_request& request) {
            {
                const std::lock_guard guard{state_.mutex};
                state_.requests.push_back(request);
                if (!state_.script.empty()) {
                    scripted_response next = std::move(state_.script.front());
                    state_.script.pop_front();
                    return next;
                }
            }
            return state_.respond(request);
        }

        void handle(error_code failed) {
            namespace http = boost::beast::http;
            const bool is_http_error =
                failed.category() == http::make_error_code(http::error::end_of_stream).category();
            if (failed == http::error::end_of_stream || failed == http::error::partial_message ||
                (failed && !is_http_error))
                return;
            if (failed) {
                const bool too_large = failed == http::error::body_limit;
                response_ = {};
                response_.response = {too_large ? 413 : 400, {{"Content-Type", "application/json"}}, ""};
                response_.response.body = too_large
                                              ? R"({"success":false,"message":"the body is too large"})"
                                              : R"({"success":false,"message":"the request is not HTTP"})";
                response_.ending = ending::close;
            } else {
                response_ = response_to(parsed_request());
                if (response_.ending == ending::keep_alive && !parser_->keep_alive())
                    response_.ending = ending::close;
            }
            if (response_.ending == ending::silent) {
                discard();
                return after(response_.hold, [](session& s) { s.shut_down(); });
            }
            output_ = response_.raw ? *std::move(response_.raw)
                                    : serialized(parser_->get().method_string() == "HEAD");
            after(response_.delay, [](session& s) { s.write(0); });
        }

        /// Returns the bytes of `response` that are to be sent.
        std::string serialized(bool head) const {
            const http_response& response = response_.response;
            const auto status = boost::beast::http::int_to_status(static_cast<unsigned>(response.status));
            const bool bodiless = response.status < 200 || response.status == 204 || response.status == 304;
            std::string text = "HTTP/1.1 " + std::to_string(response.status) + " ";
            text.append(boost::beast::http::obsolete_reason(status)).append("\r\n");
            for (const header& h : response.headers)
                text.append(h.name).append(": ").append(h.value).append("\r\n");
            if (!bodiless && !find_header(response.headers, "Content-Length") &&
                !find_header(response.headers, "Transfer-Encoding"))
                text.append("Content-Length: ").append(std::to_string(response.body.size())).append("\r\n");
            if (response_.ending == ending::close)
                text.append("Connection: close\r\n");
            text.append("\r\n");
            const bool half =
                response_.ending == ending::close_midway || response_.ending == ending::reset_midway;
            return text.append(response.body, 0,
                               head || bodiless ? 0 : response.body.size() / (half ? 2 : 1));
        }

        void write(std::size_t begin) {
            if (response_.ending == ending::reset_before_response)
                return reset();
            const bool all = response_.byte_delay == std::chrono::milliseconds{0} || begin == output_.size();
            const std::size_t count = all ? output_.size() - begin : 1;
            boost::asio::async_write(socket_, boost::asio::buffer(output_.data() + begin, count),
                                     resume_with([end = begin + count](session& s) { s.written(end); }));
        }

        void written(std::size_t count) {
            if (count < output_.size()) {
                after(response_.byte_delay, [count](session& s) { s.write(count); });
            } else if (response_.ending == ending::keep_alive) {
                read();
                if (response_.hold > std::chrono::milliseconds{0})
                    after(response_.hold, [](session& s) { s.close(); });
            } else {
                after(response_.hold, [](session& s) { s.end(); });
            }
        }

        void end() {
            if (response_.ending == ending::reset_midway)
                return reset();
            shut_down();
            discard();
        }

        void shut_down() {
            error_code ignored;
            socket_.shutdown(tcp::socket::shutdown_send, ignored);
            count_end();
        }

        /// Reads until the peer closes. Closing with unread bytes would reset the connection and so revoke
        /// the response.
        void discard() {
            socket_.async_read_some(boost::asio::buffer(discarded_),
                                    [self = shared_from_this()](error_code failed, std::size_t) {
                                        if (failed)
                                            self->timer_.cancel();
                                        else
                                            self->discard();
                                    });
        }

        void close() {
            error_code ignored;
            socket_.close(ignored);
            count_end();
        }

        void reset() {
            error_code ignored;
            socket_.set_option(boost::asio::socket_base::linger{true, 0}, ignored);
            close();
        }

        void count_end() {
            const std::lock_guard guard{state_.mutex};
            ++state_.ended;
        }

        void read_body() {
            boost::beast::http::async_read(
                socket_, buffer_, *parser_,
                [self = shared_from_this()](error_code failed, std::size_t) { self->handle(failed); });
        }

    public:
        session(tcp::socket socket, shared_state& state)
            : socket_(std::move(socket)), state_(state), timer_(socket_.get_executor()) {
            const std::lock_guard guard{state_.mutex};
            ++state_.connections;
            ++state_.open;
        }
        session(const session&) = delete;
        session& operator=(const session&) = delete;
        ~session() {
            const std::lock_guard guard{state_.mutex};
            --state_.open;
        }

        void read() {
            parser_.emplace();
            parser_->header_limit(256 * 1024);
            parser_->body_limit(max_body_bytes);
            boost::beast::http::async_read_header(
                socket_, buffer_, *parser_, [self = shared_from_this()](error_code failed, std::size_t) {
                    const auto expects = self->parser_->get().find("Expect");
                    if (failed || expects == self->parser_->get().end())
                        return failed ? self->handle(failed) : self->read_body();
                    self->output_ = "HTTP/1.1 100 Continue\r\n\r\n";
                    boost::asio::async_write(self->socket_, boost::asio::buffer(self->output_),
                                             self->resume_with([](session& s) { s.read_body(); }));
                });
        }
    };

    static tcp::endpoint loopback(tcp family) {
        if (family == tcp::v6())
            return {boost::asio::ip::address_v6::loopback(), 0};
        return {boost::asio::ip::address_v4::loopback(), 0};
    }

    void accept() {
        acceptor_.async_accept([this](boost::system::error_code failed, tcp::socket socket) {
            if (failed) { // no descriptor is free, for example: tries again a little later
                retry_timer_.expires_after(std::chrono::milliseconds{10});
                return retry_timer_.async_wait([this](boost::system::error_code) { accept(); });
            }
            std::make_shared<session>(std::move(socket), state_)->read();
            accept();
        });
    }

    shared_state state_;
    boost::asio::io_context context_{1};
    tcp::acceptor acceptor_;
    boost::asio::steady_timer retry_timer_{context_};
    const tcp::endpoint endpoint_ = acceptor_.local_endpoint();
    std::thread thread_{};

public:
    /// Starts to serve on the loopback address of IPv4 or IPv6. `chosen` responds whenever nothing is
    /// scripted. Throws `boost::system::system_error` if no port is free, `std::system_error` if the thread
    /// cannot be created.
    explicit scripted_server(
        handler chosen = [](const http_request&) { return scripted_response{}; },
        tcp address_family = tcp::v4())
        : state_(std::move(chosen)), acceptor_(context_, loopback(address_family)) {
        accept();
        thread_ = std::thread{[this] { context_.run(); }};
    }
    scripted_server(const scripted_server&) = delete;
    scripted_server& operator=(const scripted_server&) = delete;

    ~scripted_server() {
        context_.stop();
        thread_.join();
    }

    std::uint16_t port() const noexcept { return endpoint_.port(); }

    /// Returns `http://127.0.0.1:PORT` or `http://[::1]:PORT`.
    std::string base_url() const {
        return (endpoint_.address().is_v6() ? "http://[::1]:" : "http://127.0.0.1:") + std::to_string(port());
    }

    /// Adds a response to the script. Each complete request takes the first response of the script.
    void respond(scripted_response response) {
        const std::lock_guard guard{state_.mutex};
        state_.script.push_back(std::move(response));
    }

    /// Returns a copy of every complete request, in order. `url` is the target (`/rest/track-prompt`),
    /// headers of the same name stand together, `timeout` and `max_response_bytes` are 0.
    std::vector<http_request> requests() const {
        const std::lock_guard guard{state_.mutex};
        return state_.requests;
    }

    /// Removes the recorded requests, to bound the memory of a server that runs for a long time.
    void clear_requests() {
        const std::lock_guard guard{state_.mutex};
        state_.requests.clear();
    }

    /// Returns how many connections were accepted.
    std::size_t connections() const {
        const std::lock_guard guard{state_.mutex};
        return state_.connections;
    }

    /// Returns how many connections are open. A connection counts until the server has closed it or has read
    /// that the peer closed it.
    std::size_t open_connections() const {
        const std::lock_guard guard{state_.mutex};
        return state_.open;
    }

    /// Returns how many connections the server has ended. The peer can see those ends.
    std::size_t ended_connections() const {
        const std::lock_guard guard{state_.mutex};
        return state_.ended;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI::testing

#include <promptlayer/detail/pop_macros.hpp>

#endif
