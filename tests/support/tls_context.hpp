#ifndef PROMPTLAYER_TESTS_SUPPORT_TLS_CONTEXT_HPP
#define PROMPTLAYER_TESTS_SUPPORT_TLS_CONTEXT_HPP

#include <promptlayer/testing/conformance_tls.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/system/error_code.hpp>

#include <string>

/// The TLS context of a server for 127.0.0.1, and the CA that its clients must trust.
struct tls_context {
    promptlayer::detail::identity ca = promptlayer::detail::make_identity("authority", "", nullptr);
    std::string ca_pem = promptlayer::detail::pem_of(ca.certificate.get());
    boost::asio::ssl::context server{boost::asio::ssl::context::tls_server};

    tls_context() {
        const auto identity = promptlayer::detail::make_identity("127.0.0.1", "IP:127.0.0.1", &ca);
        const std::string chain = promptlayer::detail::pem_of(identity.certificate.get());
        const std::string key = promptlayer::detail::pem_of(identity.key.get());
        server.use_certificate_chain(boost::asio::buffer(chain));
        server.use_private_key(boost::asio::buffer(key), boost::asio::ssl::context::pem);
    }

    /// Returns a stream over `socket` after the handshake, successful or not.
    boost::asio::ssl::stream<boost::asio::ip::tcp::socket&> accept(boost::asio::ip::tcp::socket& socket) {
        boost::asio::ssl::stream<boost::asio::ip::tcp::socket&> stream{socket, server};
        boost::system::error_code ignored;
        stream.handshake(boost::asio::ssl::stream_base::server, ignored);
        return stream;
    }
};

#endif
