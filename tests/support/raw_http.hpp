#ifndef PROMPTLAYER_TESTS_RAW_HTTP_HPP
#define PROMPTLAYER_TESTS_RAW_HTTP_HPP

#include <doctest/doctest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/error_code.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// HTTP by hand, for the tests of servers: the bytes of a request, a connection, and the bytes of a response.
namespace raw_http {

struct request {
    std::string method = "POST";
    std::string target = "/rest/track-prompt";
    std::string key = "pl_loopback";
    std::string content_type = "application/json";
    std::string body = R"({"prompt_name":"a","request_id":1})";
    bool close = true;

    std::string bytes() const {
        return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" +
               (key.empty() ? "" : "X-API-KEY: " + key + "\r\n") +
               (content_type.empty() ? "" : "Content-Type: " + content_type + "\r\n") +
               (close ? "Connection: close\r\n" : "") + "Content-Length: " + std::to_string(body.size()) +
               "\r\n\r\n" + body;
    }
};

/// A connection to a port of 127.0.0.1.
class connection {
    boost::asio::io_context context_{};
    boost::asio::ip::tcp::socket socket_{context_};

public:
    explicit connection(std::uint16_t port) {
        socket_.connect({boost::asio::ip::address_v4::loopback(), port});
    }

    void send(std::string_view bytes) {
        boost::system::error_code ignored; // the server may have closed the connection
        boost::asio::write(socket_, boost::asio::buffer(bytes), ignored);
    }

    /// Returns some bytes, an empty string at the end of the stream. `reset` says how the stream ended.
    std::string receive_some(bool* reset = nullptr) {
        std::array<char, 4096> buffer{};
        boost::system::error_code failed;
        const std::size_t count = socket_.read_some(boost::asio::buffer(buffer), failed);
        if (reset)
            *reset = failed == boost::asio::error::connection_reset;
        return {buffer.data(), count};
    }

    /// Returns all bytes until the stream ends.
    std::string receive_all(bool* reset = nullptr) {
        std::string all;
        for (std::string some; !(some = receive_some(reset)).empty();)
            all += some;
        return all;
    }

    /// Returns `count` bytes, fewer only if the stream ends.
    std::string receive(std::size_t count) {
        std::string all(count, '\0');
        boost::system::error_code failed;
        all.resize(boost::asio::read(socket_, boost::asio::buffer(all), failed));
        return all;
    }
};

/// Sends a request over a connection of its own and returns the bytes of the response.
inline std::string exchange(std::uint16_t port, const request& sent) {
    connection to_server{port};
    to_server.send(sent.bytes());
    return to_server.receive_all();
}

inline int status_of(const std::string& response) {
    REQUIRE(response.starts_with("HTTP/1.1 "));
    return std::stoi(response.substr(9, 3));
}

inline std::string body_of(const std::string& response) {
    const std::size_t end = response.find("\r\n\r\n");
    REQUIRE(end != response.npos);
    return response.substr(end + 4);
}

} // namespace raw_http

#endif
