#ifndef PROMPTLAYER_TESTING_CONFORMANCE_TLS_HPP
#define PROMPTLAYER_TESTING_CONFORMANCE_TLS_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/testing/conformance.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

template <auto FreeT>
struct freed_by {
    template <class T>
    void operator()(T* object) const noexcept {
        FreeT(object);
    }
};
using key_ptr = std::unique_ptr<EVP_PKEY, freed_by<&EVP_PKEY_free>>;
using x509_ptr = std::unique_ptr<X509, freed_by<&X509_free>>;

/// A key and its certificate.
struct identity {
    key_ptr key{};
    x509_ptr certificate{};
};

inline void require_openssl(bool succeeded) {
    if (!succeeded)
        throw std::runtime_error{"OpenSSL cannot create a certificate"};
}

/// Returns the identity of the host `alternative_name`, such as `IP:127.0.0.1`, or of a CA if it is empty. It
/// is self-signed if `issuer` is null, and valid for `days` from ten days ago.
inline identity make_identity(const char* name, const std::string& alternative_name, const identity* issuer,
                              int days = 20) {
    constexpr long day = 24 * 60 * 60;
    static std::atomic<long> serial{1};
    identity created{key_ptr{EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")}, x509_ptr{X509_new()}};
    X509* const x = created.certificate.get();
    require_openssl(created.key && x && X509_set_version(x, 2) && X509_set_pubkey(x, created.key.get()) &&
                    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++) &&
                    X509_gmtime_adj(X509_getm_notBefore(x), -10 * day) &&
                    X509_gmtime_adj(X509_getm_notAfter(x), (days - 10) * day) &&
                    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                               reinterpret_cast<const unsigned char*>(name), -1, -1, 0));
    const identity& signer = issuer ? *issuer : created;
    require_openssl(X509_set_issuer_name(x, X509_get_subject_name(signer.certificate.get())));
    const auto add = [&](int id, const std::string& value) {
        const std::unique_ptr<X509_EXTENSION, freed_by<&X509_EXTENSION_free>> extension{
            X509V3_EXT_conf_nid(nullptr, nullptr, id, value.c_str())};
        require_openssl(extension && X509_add_ext(x, extension.get(), -1));
    };
    if (alternative_name.empty()) {
        add(NID_basic_constraints, "critical,CA:TRUE");
        add(NID_key_usage, "critical,keyCertSign");
    } else {
        add(NID_subject_alt_name, alternative_name);
    }
    require_openssl(X509_sign(x, signer.key.get(), EVP_sha256()) != 0);
    return created;
}

/// Returns what `write` writes to a BIO.
template <class WriteT>
std::string pem_by(WriteT write) {
    const std::unique_ptr<BIO, freed_by<&BIO_free_all>> memory{BIO_new(BIO_s_mem())};
    require_openssl(memory && write(memory.get()));
    char* text = nullptr;
    const long size = BIO_get_mem_data(memory.get(), &text);
    return {text, static_cast<std::size_t>(size)};
}

inline std::string pem_of(const X509* certificate) {
    return pem_by([=](BIO* out) { return PEM_write_bio_X509(out, certificate); });
}

inline std::string pem_of(const EVP_PKEY* key) {
    return pem_by(
        [=](BIO* out) { return PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

/// A TLS connection that is relayed, decrypted, to a port of this machine.
class tls_relay : public std::enable_shared_from_this<tls_relay> {
    using tcp = boost::asio::ip::tcp;
    using error_code = boost::system::error_code;

    boost::asio::ssl::stream<tcp::socket> outside_;
    tcp::socket inside_;
    std::array<char, 16384> to_inside_{}, to_outside_{};

    template <class FromT, class ToT>
    void pump(FromT& from, ToT& to, std::array<char, 16384>& buffer) {
        from.async_read_some(boost::asio::buffer(buffer),
                             [&, self = shared_from_this()](error_code failed, std::size_t size) {
                                 if (failed)
                                     return end(failed);
                                 boost::asio::async_write(to, boost::asio::buffer(buffer, size),
                                                          [&, self](error_code not_written, std::size_t) {
                                                              if (not_written)
                                                                  return end(not_written);
                                                              pump(from, to, buffer);
                                                          });
                             });
    }

    /// Closes both connections. If one was reset, no close_notify is sent.
    void end(error_code cause) {
        error_code ignored;
        inside_.close(ignored);
        if (cause == boost::asio::error::connection_reset) {
            outside_.next_layer().close(ignored);
            return;
        }
        outside_.async_shutdown([self = shared_from_this()](error_code) {
            error_code closed;
            self->outside_.next_layer().close(closed);
        });
    }

public:
    tls_relay(tcp::socket socket, boost::asio::ssl::context& tls)
        : outside_(std::move(socket), tls), inside_(outside_.get_executor()) {}

    void start(std::uint16_t port) {
        outside_.async_handshake(
            boost::asio::ssl::stream_base::server, [port, self = shared_from_this()](error_code rejected) {
                if (rejected)
                    return;
                self->inside_.async_connect({boost::asio::ip::address_v4::loopback(), port},
                                            [self](error_code failed) {
                                                if (failed)
                                                    return self->end(failed);
                                                self->pump(self->outside_, self->inside_, self->to_inside_);
                                                self->pump(self->inside_, self->outside_, self->to_outside_);
                                            });
            });
    }
};

} // namespace detail

namespace testing {

/// Servers for the TLS cases of `check_transport`. Their certificates are created in the process. Needs
/// OpenSSL 3 (link `ssl` and `crypto`). The transport must trust `ca_certificate()`; the servers are passed
/// by reference:
///
///     promptlayer::testing::tls_servers tls;
///     my_transport transport{tls.ca_certificate()};
///     auto report = promptlayer::testing::check_transport(transport, {.tls = std::ref(tls)});
///
/// A thread of its own serves all connections until the destructor. Not thread-safe. The constructor and the
/// call operator throw a `std::exception` if a key, a port or a thread cannot be created.
class tls_servers {
    using tcp = boost::asio::ip::tcp;

    struct listener {
        boost::asio::ssl::context tls{boost::asio::ssl::context::tls_server};
        tcp::acceptor acceptor;
        std::uint16_t relay_port;

        listener(boost::asio::io_context& context, std::uint16_t port)
            : acceptor(context, {boost::asio::ip::address_v4::loopback(), 0}), relay_port(port) {}

        void accept() {
            acceptor.async_accept([this](boost::system::error_code failed, tcp::socket socket) {
                if (!failed)
                    std::make_shared<promptlayer::detail::tls_relay>(std::move(socket), tls)
                        ->start(relay_port);
                accept();
            });
        }
    };

    promptlayer::detail::identity ca_ =
        promptlayer::detail::make_identity("promptlayer test CA", "", nullptr);
    promptlayer::detail::identity unknown_ca_ =
        promptlayer::detail::make_identity("promptlayer unknown CA", "", nullptr);
    std::string ca_pem_ = promptlayer::detail::pem_of(ca_.certificate.get());
    boost::asio::io_context context_{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
    std::vector<std::unique_ptr<listener>> listeners_{};
    std::thread thread_{[this] { context_.run(); }};

    promptlayer::detail::identity identity_of(certificate shown) const {
        using promptlayer::detail::make_identity;
        const std::string names = "IP:127.0.0.1,DNS:localhost";
        switch (shown) {
        case certificate::good: break;
        case certificate::self_signed: return make_identity("127.0.0.1", names, nullptr);
        case certificate::wrong_host: return make_identity("other.invalid", "DNS:other.invalid", &ca_);
        case certificate::expired: return make_identity("127.0.0.1", names, &ca_, 9);
        case certificate::unknown_ca: return make_identity("127.0.0.1", names, &unknown_ca_);
        }
        return make_identity("127.0.0.1", names, &ca_);
    }

public:
    tls_servers() = default;
    tls_servers(const tls_servers&) = delete;
    tls_servers& operator=(const tls_servers&) = delete;

    ~tls_servers() {
        context_.stop();
        thread_.join();
    }

    /// Returns the certificate of the CA to trust, as PEM.
    const std::string& ca_certificate() const noexcept { return ca_pem_; }

    /// Starts a server that shows the certificate and relays to a port of 127.0.0.1. Returns its URL.
    std::string operator()(certificate shown, std::uint16_t port) {
        using promptlayer::detail::pem_of;
        const auto identity = identity_of(shown);
        const std::string certificate_pem = pem_of(identity.certificate.get()),
                          key_pem = pem_of(identity.key.get());
        listener& server = *listeners_.emplace_back(std::make_unique<listener>(context_, port));
        server.tls.use_certificate_chain(boost::asio::buffer(certificate_pem));
        server.tls.use_private_key(boost::asio::buffer(key_pem), boost::asio::ssl::context::pem);
        boost::asio::post(context_, [&server] { server.accept(); });
        return "https://127.0.0.1:" + std::to_string(server.acceptor.local_endpoint().port());
    }
};

} // namespace testing
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
