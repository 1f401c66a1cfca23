#ifndef PROMPTLAYER_TESTS_ADAPTERS_HPP
#define PROMPTLAYER_TESTS_ADAPTERS_HPP

// Every adapter of Linux as a function that sends a request.

#include <promptlayer/transport.hpp>
#include <promptlayer/transports/beast.hpp>
#include <promptlayer/transports/curl.hpp>
#include <promptlayer/transports/curl_multi.hpp>
#include <promptlayer/transports/httplib.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace test_support {

using promptlayer::http_request;
using promptlayer::transport_result;

/// Sends a request and waits for its outcome.
using sender = std::function<transport_result(const http_request&)>;

struct adapter {
    std::string name;
    sender (*make_sender)(); ///< with a new transport
};

inline sender over_curl() {
    const auto transport = std::make_shared<promptlayer::curl_transport>();
    return [=](const http_request& request) { return transport->send(request); };
}

inline sender over_curl_multi() {
    const auto transport = std::make_shared<promptlayer::curl_multi_transport>();
    return [=](const http_request& request) {
        std::optional<transport_result> outcome;
        transport->send(request, [&](transport_result result) { outcome = std::move(result); });
        while (!outcome)
            transport->poll(std::chrono::seconds{1});
        return *std::move(outcome);
    };
}

inline sender over_beast() {
    struct loop {
        boost::asio::ssl::context tls{boost::asio::ssl::context::tls_client};
        boost::asio::io_context context{};
        promptlayer::beast_transport transport{context, tls};
    };
    const auto runner = std::make_shared<loop>();
    return [=](const http_request& request) {
        std::optional<transport_result> outcome;
        runner->transport.send(request, [&](transport_result result) { outcome = std::move(result); });
        runner->context.restart();
        while (!outcome && runner->context.run_one() != 0) {
        }
        return outcome ? *std::move(outcome) : transport_result{promptlayer::transport_failure{}};
    };
}

inline sender over_httplib() {
    const auto transport = std::make_shared<promptlayer::httplib_transport>();
    return [=](const http_request& request) { return transport->send(request); };
}

/// The adapters that read every response by the grammar of HTTP.
inline const std::vector<adapter> strict_adapters{
    {"curl", over_curl}, {"curl_multi", over_curl_multi}, {"beast", over_beast}};

inline std::vector<adapter> all_adapters() {
    std::vector<adapter> adapters = strict_adapters;
    adapters.push_back({"httplib", over_httplib});
    return adapters;
}

} // namespace test_support

#endif
