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

/// A certificate with its key.
struct identity {
    key_ptr key{};
    x509_ptr certificate{};
};

inline void openssl_did(bool done) {
    if (!done)
        throw std::runtime_error{"OpenSSL cannot make a certificate"};
}

/// `alternative_name` as in `IP:127.0.0.1`; an authority if it is empty. Signed by itself without an
/// `issuer`. Valid from ten days ago for `days`.
inline identity make_identity(const char* name, const std::string& alternative_name, const identity* issuer,
                              int days = 20) {
    constexpr long day = 24 * 60 * 60;
    static std::atomic<long> serial{1};
    identity made{key_ptr{EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")}, x509_ptr{X509_new()}};
    X509* const x = made.certificate.get();
    openssl_did(made.key && x && X509_set_version(x, 2) && X509_set_pubkey(x, made.key.get()) &&
                ASN1_INTEGER_set(X509_get_serialNumber(x), serial++) &&
                X509_gmtime_adj(X509_getm_notBefore(x), -10 * day) &&
                X509_gmtime_adj(X509_getm_notAfter(x), (days - 10) * day) &&
                X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                           reinterpret_cast<const unsigned char*>(name), -1, -1, 0));
    const identity& signer = issuer ? *issuer : made;
    openssl_did(X509_set_issuer_name(x, X509_get_subject_name(signer.certificate.get())));
    const auto add = [&](int id, const std::string& value) {
        const std::unique_ptr<X509_EXTENSION, freed_by<&X509_EXTENSION_free>> extension{
            X509V3_EXT_conf_nid(nullptr, nullptr, id, value.c_str())};
        openssl_did(extension && X509_add_ext(x, extension.get(), -1));
    };
    if (alternative_name.empty()) {
        add(NID_basic_constraints, "critical,CA:TRUE");
        add(NID_key_usage, "critical,keyCertSign");
    } else {
        add(NID_subject_alt_name, alternative_name);
    }
    openssl_did(X509_sign(x, signer.key.get(), EVP_sha256()) != 0);
    return made;
}

template <class WriteT>
std::string pem_by(WriteT write) {
    const std::unique_ptr<BIO, freed_by<&BIO_free_all>> memory{BIO_new(BIO_s_mem())};
    openssl_did(memory && write(memory.get()));
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

/// One connection: what it decrypts goes to a port of this machine, and back.
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

    /// Ends both sides; a connection that was reset ends the other one without a close_notify.
    void end(error_code why) {
        error_code ignored;
        inside_.close(ignored);
        if (why == boost::asio::error::connection_reset) {
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
            boost::asio::ssl::stream_base::server, [port, self = shared_from_this()](error_code refused) {
                if (refused)
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

/// Servers for the TLS cases of `check_transport`, with certificates made in the process; need OpenSSL 3
/// (link `ssl` and `crypto`). Have the transport trust `authority()`, and pass it by reference:
///
///     promptlayer::testing::tls_servers tls;
///     my_transport transport{tls.authority()};
///     auto report = promptlayer::testing::check_transport(transport, {.tls = std::ref(tls)});
///
/// One thread of its own serves all of them until it is destroyed; one caller at a time. The constructor and
/// the call throw `std::exception`s where a key, a port or a thread cannot be had.
class tls_servers {
    using tcp = boost::asio::ip::tcp;

    struct listener {
        boost::asio::ssl::context tls{boost::asio::ssl::context::tls_server};
        tcp::acceptor acceptor;
        std::uint16_t port; ///< where to pass on to

        listener(boost::asio::io_context& context, std::uint16_t to)
            : acceptor(context, {boost::asio::ip::address_v4::loopback(), 0}), port(to) {}

        void accept() {
            acceptor.async_accept([this](boost::system::error_code failed, tcp::socket socket) {
                if (!failed)
                    std::make_shared<promptlayer::detail::tls_relay>(std::move(socket), tls)->start(port);
                accept();
            });
        }
    };

    promptlayer::detail::identity authority_ =
        promptlayer::detail::make_identity("promptlayer test authority", "", nullptr);
    promptlayer::detail::identity stranger_ =
        promptlayer::detail::make_identity("promptlayer unknown authority", "", nullptr);
    std::string authority_pem_ = promptlayer::detail::pem_of(authority_.certificate.get());
    boost::asio::io_context context_{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
    std::vector<std::unique_ptr<listener>> listeners_{};
    std::thread thread_{[this] { context_.run(); }};

    promptlayer::detail::identity shown(certificate which) const {
        using promptlayer::detail::make_identity;
        const std::string here = "IP:127.0.0.1,DNS:localhost";
        switch (which) {
        case certificate::good: break;
        case certificate::self_signed: return make_identity("127.0.0.1", here, nullptr);
        case certificate::wrong_host: return make_identity("other.invalid", "DNS:other.invalid", &authority_);
        case certificate::expired: return make_identity("127.0.0.1", here, &authority_, 9);
        case certificate::unknown_authority: return make_identity("127.0.0.1", here, &stranger_);
        }
        return make_identity("127.0.0.1", here, &authority_);
    }

public:
    tls_servers() = default;
    tls_servers(const tls_servers&) = delete;
    tls_servers& operator=(const tls_servers&) = delete;

    ~tls_servers() {
        context_.stop();
        thread_.join();
    }

    /// The certificate of the authority to trust, as PEM.
    const std::string& authority() const noexcept { return authority_pem_; }

    /// Starts a server that shows this certificate and passes on to that port of 127.0.0.1; its URL.
    std::string operator()(certificate which, std::uint16_t port) {
        using promptlayer::detail::pem_of;
        auto made = std::make_unique<listener>(context_, port);
        const auto identity = shown(which);
        const std::string certificate_pem = pem_of(identity.certificate.get()),
                          key_pem = pem_of(identity.key.get());
        made->tls.use_certificate_chain(boost::asio::buffer(certificate_pem));
        made->tls.use_private_key(boost::asio::buffer(key_pem), boost::asio::ssl::context::pem);
        listener& serving = *listeners_.emplace_back(std::move(made));
        boost::asio::post(context_, [&serving] { serving.accept(); });
        return "https://127.0.0.1:" + std::to_string(serving.acceptor.local_endpoint().port());
    }
};

} // namespace testing
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
