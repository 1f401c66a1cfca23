#ifndef PROMPTLAYER_TESTING_LOOPBACK_SERVER_HPP
#define PROMPTLAYER_TESTING_LOOPBACK_SERVER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/validate.hpp>

// Before the macros are set aside that windows.h defines, which these include
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
#include <boost/json/serialize.hpp>

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
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI::testing {

/// What a `loopback_server` does about one request, in place of what the interface would have it do.
struct scripted_response {
    /// What becomes of the connection.
    enum class connection_ending {
        keep_alive,          ///< stays open for the next request, unless this one says `Connection: close`
        close,               ///< answers with `Connection: close`, and closes
        close_unannounced,   ///< answers as if it stayed open, and closes
        close_midway,        ///< closes after half of the body that `Content-Length` announces
        reset_midway,        ///< resets (TCP RST) at that point; both after all of `raw`, if it is given
        reset_before_answer, ///< resets when the request has arrived
        silent,              ///< sends nothing, reads on, and closes after `hold`
    };

    /// Sent with a `Content-Length`, unless it has one or a `Transfer-Encoding` of its own.
    http_response response{200, {}, R"({"success":true,"message":"scripted"})"};
    std::optional<std::string> raw{};       ///< bytes to send as they are, in place of `response`
    std::chrono::milliseconds delay{};      ///< from the request's arrival to the first byte of the answer
    std::chrono::milliseconds byte_delay{}; ///< before each further byte; 0 sends all at once
    connection_ending ending = connection_ending::keep_alive;
    /// From the last byte to that ending. A connection that is kept alive is closed if no further request has
    /// arrived by then; with 0 it stays.
    std::chrono::milliseconds hold{};
};

/// The service on this machine, for tests: a plain HTTP server on 127.0.0.1 or ::1, on a port that was free.
/// It answers `POST /rest/track-prompt` as the interface does, and holds every request to it: 404 for another
/// path, 405 for another method, 401 without the API key, 415 unless the body is declared as JSON, 413 above
/// 8 MiB and a little, 400 with the reason in `message` for a body that `from_json` refuses, else 200. Every
/// answer is JSON.
///
/// Its members may be called from any thread. One thread of its own serves all connections; the destructor
/// ends them, delayed answers too, and joins it.
class loopback_server {
public:
    /// What to do about a request. Called on the server's own thread; does not throw.
    using handler = std::function<scripted_response(const http_request&)>;

private:
    using tcp = boost::asio::ip::tcp;

    struct shared {
        explicit shared(handler chosen) : answer(std::move(chosen)) {}

        const handler answer;
        mutable std::mutex mutex{};
        std::vector<http_request> requests{};
        std::deque<scripted_response> script{};
        std::size_t connections = 0, open = 0, ended = 0;
    };

    static scripted_response answer(int status, bool success, std::string_view message) {
        scripted_response made;
        made.response = {status, {{"Content-Type", "application/json"}}, ""};
        made.response.body =
            boost::json::serialize(boost::json::object{{"success", success}, {"message", message}});
        return made;
    }

    static scripted_response refusal(int status, std::string_view message) {
        return answer(status, false, message);
    }

    static bool is_json(const std::string* content_type) {
        const std::string_view type = content_type ? *content_type : std::string_view{};
        return detail::equal_ignoring_case(detail::trim(type.substr(0, type.find(';'))), "application/json");
    }

    /// What the interface has to say to a request.
    static scripted_response verdict(const http_request& request, std::string_view api_key) {
        if (std::string_view{request.url}.substr(0, request.url.find('?')) != track_prompt::path)
            return refusal(404, "Not Found");
        if (request.method != "POST") {
            scripted_response made = refusal(405, "Method Not Allowed");
            made.response.headers.push_back({"Allow", "POST"});
            return made;
        }
        const std::string* const key = find_header(request.headers, "X-API-KEY");
        if (!key || *key != api_key)
            return refusal(401, "Unauthorized");
        if (!is_json(find_header(request.headers, "Content-Type")))
            return refusal(415, "Content-Type must be application/json");
        if (const auto read = from_json<track_prompt>(request.body); !read)
            return refusal(400, to_string(read.error()));
        return answer(200, true, "Prompt tracked successfully");
    }

    /// One connection; keeps itself alive by the handler that it waits for.
    class session : public std::enable_shared_from_this<session> {
        using ending = scripted_response::connection_ending;
        using error_code = boost::system::error_code;
        using request_parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

        tcp::socket socket_;
        shared& shared_;
        boost::asio::steady_timer timer_;
        boost::beast::flat_buffer buffer_{};
        std::optional<request_parser> parser_{};
        std::array<char, 16384> discarded_{};
        scripted_response answer_{};
        std::string out_{};

        /// A handler that does nothing if the operation failed: the connection ends when nothing waits any
        /// more.
        template <class NextT>
        auto then(NextT next) {
            return [self = shared_from_this(), next](error_code failed, std::size_t = 0) {
                if (!failed)
                    next(*self);
            };
        }

        template <class NextT>
        void after(std::chrono::milliseconds pause, NextT next) {
            timer_.expires_after(std::min<std::chrono::milliseconds>(pause, std::chrono::hours{24}));
            timer_.async_wait(then(next));
        }

        http_request arrived() {
            const auto& message = parser_->get();
            http_request request;
            request.method = std::string{message.method_string()};
            request.url = std::string{message.target()};
            for (const auto& field : message)
                request.headers.push_back({std::string{field.name_string()}, std::string{field.value()}});
            request.body = message.body();
            return request;
        }

        scripted_response answer_to(const http_request& request) {
            {
                const std::lock_guard held{shared_.mutex};
                shared_.requests.push_back(request);
                if (!shared_.script.empty()) {
                    scripted_response next = std::move(shared_.script.front());
                    shared_.script.pop_front();
                    return next;
                }
            }
            return shared_.answer(request);
        }

        void count_end() {
            const std::lock_guard held{shared_.mutex};
            ++shared_.ended;
        }

        void handle(error_code failed) {
            namespace http = boost::beast::http;
            const bool not_http =
                failed.category() == http::make_error_code(http::error::end_of_stream).category();
            if (failed == http::error::end_of_stream || failed == http::error::partial_message ||
                (failed && !not_http))
                return;
            if (failed) {
                answer_ = failed == http::error::body_limit ? refusal(413, "Content Too Large")
                                                            : refusal(400, "this is no HTTP request");
                answer_.ending = ending::close;
            } else {
                answer_ = answer_to(arrived());
                if (answer_.ending == ending::keep_alive && !parser_->keep_alive())
                    answer_.ending = ending::close;
            }
            if (answer_.ending == ending::silent) {
                discard();
                return after(answer_.hold, [](session& s) { s.shut_down(); });
            }
            out_ = answer_.raw ? *std::move(answer_.raw) : written(parser_->get().method_string() == "HEAD");
            after(answer_.delay, [](session& s) { s.write(0); });
        }

        /// The answer as bytes, as many as are to be sent.
        std::string written(bool head) const {
            const http_response& response = answer_.response;
            const auto status = boost::beast::http::int_to_status(static_cast<unsigned>(response.status));
            const bool bodiless = response.status < 200 || response.status == 204 || response.status == 304;
            std::string text = "HTTP/1.1 " + std::to_string(response.status) + " ";
            text.append(boost::beast::http::obsolete_reason(status)).append("\r\n");
            for (const header& h : response.headers)
                text.append(h.name).append(": ").append(h.value).append("\r\n");
            if (!bodiless && !find_header(response.headers, "Content-Length") &&
                !find_header(response.headers, "Transfer-Encoding"))
                text.append("Content-Length: ").append(std::to_string(response.body.size())).append("\r\n");
            if (answer_.ending == ending::close)
                text.append("Connection: close\r\n");
            text.append("\r\n");
            const bool half =
                answer_.ending == ending::close_midway || answer_.ending == ending::reset_midway;
            return text.append(response.body, 0,
                               head || bodiless ? 0 : response.body.size() / (half ? 2 : 1));
        }

        void write(std::size_t from) {
            if (answer_.ending == ending::reset_before_answer)
                return reset();
            const bool at_once = answer_.byte_delay == std::chrono::milliseconds{0};
            const std::size_t count = at_once || from == out_.size() ? out_.size() - from : 1;
            boost::asio::async_write(socket_, boost::asio::buffer(out_.data() + from, count),
                                     then([next = from + count](session& s) { s.wrote(next); }));
        }

        void wrote(std::size_t count) {
            if (count < out_.size()) {
                after(answer_.byte_delay, [count](session& s) { s.write(count); });
            } else if (answer_.ending == ending::keep_alive) {
                read();
                if (answer_.hold > std::chrono::milliseconds{0})
                    after(answer_.hold, [](session& s) { s.close(); });
            } else {
                after(answer_.hold, [](session& s) { s.end(); });
            }
        }

        void end() {
            if (answer_.ending == ending::reset_midway)
                return reset();
            shut_down();
            discard();
        }

        void shut_down() {
            error_code ignored;
            socket_.shutdown(tcp::socket::shutdown_send, ignored);
            count_end();
        }

        /// Reads what still comes until the peer closes, since closing with bytes unread would take back the
        /// answer.
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

        void read_body() {
            boost::beast::http::async_read(
                socket_, buffer_, *parser_,
                [self = shared_from_this()](error_code failed, std::size_t) { self->handle(failed); });
        }

    public:
        session(tcp::socket socket, shared& state)
            : socket_(std::move(socket)), shared_(state), timer_(socket_.get_executor()) {
            const std::lock_guard held{shared_.mutex};
            ++shared_.connections;
            ++shared_.open;
        }
        session(const session&) = delete;
        session& operator=(const session&) = delete;
        ~session() {
            const std::lock_guard held{shared_.mutex};
            --shared_.open;
        }

        void read() {
            parser_.emplace();
            parser_->header_limit(256 * 1024);
            parser_->body_limit(default_max_request_bytes + 64 * 1024);
            boost::beast::http::async_read_header(
                socket_, buffer_, *parser_, [self = shared_from_this()](error_code failed, std::size_t) {
                    const auto expects = self->parser_->get().find("Expect");
                    if (failed || expects == self->parser_->get().end())
                        return failed ? self->handle(failed) : self->read_body();
                    self->out_ = "HTTP/1.1 100 Continue\r\n\r\n";
                    boost::asio::async_write(self->socket_, boost::asio::buffer(self->out_),
                                             self->then([](session& s) { s.read_body(); }));
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
            if (failed) { // out of descriptors, say: not at once again
                pause_.expires_after(std::chrono::milliseconds{10});
                return pause_.async_wait([this](boost::system::error_code) { accept(); });
            }
            std::make_shared<session>(std::move(socket), shared_)->read();
            accept();
        });
    }

    shared shared_;
    boost::asio::io_context context_{1};
    tcp::acceptor acceptor_;
    boost::asio::steady_timer pause_{context_};
    const tcp::endpoint endpoint_ = acceptor_.local_endpoint();
    std::thread thread_{};

public:
    /// Serves from now on. `api_key` is the one that is accepted. Throws `boost::system::system_error` if
    /// there is no free port, `std::system_error` if there is no thread.
    explicit loopback_server(std::string api_key = "pl_loopback")
        : loopback_server(
              [key = std::move(api_key)](const http_request& request) { return verdict(request, key); }) {}

    /// Serves from now on, and does what `answer` says in place of what the interface would have it do.
    /// Listens on the loopback address of IPv4 or IPv6.
    explicit loopback_server(handler answer, tcp address_family = tcp::v4())
        : shared_(std::move(answer)), acceptor_(context_, loopback(address_family)) {
        accept();
        thread_ = std::thread{[this] { context_.run(); }};
    }
    loopback_server(const loopback_server&) = delete;
    loopback_server& operator=(const loopback_server&) = delete;

    ~loopback_server() {
        context_.stop();
        thread_.join();
    }

    std::uint16_t port() const noexcept { return endpoint_.port(); }

    /// `http://127.0.0.1:PORT` or `http://[::1]:PORT`
    std::string base_url() const {
        return (endpoint_.address().is_v6() ? "http://[::1]:" : "http://127.0.0.1:") + std::to_string(port());
    }

    /// The next request that arrives whole and has no answer yet gets this one, whatever it asks for.
    void respond(scripted_response answer) {
        const std::lock_guard held{shared_.mutex};
        shared_.script.push_back(std::move(answer));
    }

    /// A copy of every request that arrived whole, in order: `url` is the target (`/rest/track-prompt`),
    /// headers of one name stand together, `timeout` and `max_response_bytes` are 0.
    std::vector<http_request> requests() const {
        const std::lock_guard held{shared_.mutex};
        return shared_.requests;
    }

    /// Lets go of those so far, which a server that runs for long would pile up.
    void clear_requests() {
        const std::lock_guard held{shared_.mutex};
        shared_.requests.clear();
    }

    /// How many connections were accepted.
    std::size_t connections() const {
        const std::lock_guard held{shared_.mutex};
        return shared_.connections;
    }

    /// How many connections the peer has not closed, as far as the server has read, and the server neither.
    std::size_t open_connections() const {
        const std::lock_guard held{shared_.mutex};
        return shared_.open;
    }

    /// How many connections the server has ended, so that the peer can see the end by now.
    std::size_t ended_connections() const {
        const std::lock_guard held{shared_.mutex};
        return shared_.ended;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI::testing

#include <promptlayer/detail/pop_macros.hpp>

#endif
