// The tests of each adapter show that a correct transport passes the conformance kit. Here, each case of the
// kit has a wrong transport that it must find.

#include <promptlayer/testing/conformance.hpp>
#include <promptlayer/testing/conformance_tls.hpp>
#include <promptlayer/transports/curl.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <doctest/doctest.h>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using promptlayer::completion;
using promptlayer::curl_multi_transport;
using promptlayer::curl_transport;
using promptlayer::failure;
using promptlayer::header;
using promptlayer::http_request;
using promptlayer::http_response;
using promptlayer::transport_failure;
using promptlayer::transport_result;
using promptlayer::testing::case_result;
using promptlayer::testing::check_transport;
using promptlayer::testing::conformance_options;
using promptlayer::testing::conformance_report;
using promptlayer::testing::scripted_response;
using promptlayer::testing::scripted_server;
using promptlayer::testing::tls_servers;
using promptlayer::testing::verdict;

using configuration = std::function<void(CURL*)>;
using check = std::function<conformance_report(const conformance_options&)>;

/// A correct transport with a fault around it.
template <class FaultT>
struct wrong_transport {
    curl_transport right;
    FaultT fault;

    transport_result send(const http_request& request) { return fault(right, request); }
    void cancel() { right.cancel(); }
};

/// Returns a configuration that trusts the CA of the kit's TLS servers, and does `more`.
configuration trusting(const tls_servers& tls, configuration more = {}) {
    return [pem = tls.ca_certificate(), more](CURL* easy) {
        curl_blob blob{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
        if (more)
            more(easy);
    };
}

/// Returns the check of a transport that sends by `fault`, a function of a correct transport and the request.
template <class FaultT>
check faulty(FaultT fault, configuration more = {}) {
    return [=](conformance_options options) {
        tls_servers tls;
        options.tls = std::ref(tls);
        return check_transport(wrong_transport<FaultT>{curl_transport{trusting(tls, more)}, fault}, options);
    };
}

/// The fault changes the request before it is sent.
template <class ChangeT>
check request_with(ChangeT change) {
    return faulty([=](curl_transport& right, http_request request) {
        change(request);
        return right.send(request);
    });
}

/// The fault changes the outcome, as a function of the outcome alone or of the request too.
template <class ChangeT>
check outcome_with(ChangeT change) {
    return faulty([=](curl_transport& right, const http_request& request) {
        transport_result outcome = right.send(request);
        if constexpr (std::is_invocable_v<ChangeT, transport_result&>)
            change(outcome);
        else
            change(outcome, request);
        return outcome;
    });
}

/// The fault sends the request again if the outcome has a property.
template <class PredicateT>
check resends_if(PredicateT predicate) {
    return faulty([=](curl_transport& right, const http_request& request) {
        transport_result outcome = right.send(request);
        return predicate(outcome) ? right.send(request) : outcome;
    });
}

template <class ChangeT>
check response_with(ChangeT change) {
    return outcome_with([=](transport_result& outcome) {
        if (outcome)
            change(*outcome);
    });
}

/// The fault turns a failure into another failure or a response.
template <class ChangeT>
check failure_with(ChangeT change) {
    return outcome_with([=](transport_result& outcome) {
        if (!outcome)
            outcome = change(std::as_const(outcome).error());
    });
}

/// The fault is an option of libcurl.
check configured(configuration more) {
    return faulty([](curl_transport& right, const http_request& request) { return right.send(request); },
                  more);
}

bool says(const transport_failure& failed, std::string_view part) {
    return failed.message.find(part) != failed.message.npos;
}

/// Removes all headers of a name except the last, as a map does.
void last_of_each(std::vector<header>& headers) {
    for (std::size_t i = headers.size(); i-- > 0;) {
        const auto same = [&](const header& h) { return h.name == headers[i].name; };
        if (std::any_of(headers.begin() + static_cast<std::ptrdiff_t>(i) + 1, headers.end(), same))
            headers.erase(headers.begin() + static_cast<std::ptrdiff_t>(i));
    }
}

/// A callback that accepts a certificate with one of these errors.
template <int... ErrorsV>
int tolerant(int, X509_STORE_CTX* chain) {
    const int fault = X509_STORE_CTX_get_error(chain);
    if (((fault == ErrorsV) || ...))
        X509_STORE_CTX_set_error(chain, X509_V_OK);
    return X509_STORE_CTX_get_error(chain) == X509_V_OK;
}

template <int... ErrorsV>
check tolerating() {
    return configured([](CURL* easy) {
        const auto set = [](CURL*, void* context, void*) {
            SSL_CTX_set_verify(static_cast<SSL_CTX*>(context), SSL_VERIFY_PEER, &tolerant<ErrorsV...>);
            return CURLE_OK;
        };
        curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, static_cast<CURLcode (*)(CURL*, void*, void*)>(set));
    });
}

/// A hand-made transport. Its timeout does not cover the whole exchange.
struct hand_made_transport {
    enum class clock {
        each_wait,       ///< starts again with each byte
        from_first_byte, ///< starts with the response
        until_body,      ///< ends with the headers
        from_sent,       ///< starts when the request has been sent
    } clock;
    bool closes = true; ///< sends `Connection: close`

    transport_result send(const http_request& request) const {
        const int port = std::stoi(request.url.substr(request.url.rfind(':') + 1));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(port));
        const int handle = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        const std::unique_ptr<const int, void (*)(const int*)> closing{&handle,
                                                                       [](const int* h) { ::close(*h); }};
        static_cast<void>(::connect(handle, reinterpret_cast<const sockaddr*>(&address), sizeof address));
        auto end = std::chrono::steady_clock::now() + request.timeout;
        const auto ready = [&](short events, bool timed) {
            pollfd waited{handle, events, 0};
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(
                (clock == clock::each_wait ? std::chrono::steady_clock::now() + request.timeout : end) -
                std::chrono::steady_clock::now());
            return ::poll(&waited, 1, timed ? static_cast<int>(std::max(left, 0ms).count()) : -1) == 1;
        };
        const std::string text =
            std::string{"POST / HTTP/1.1\r\nHost: x\r\n"} + (closes ? "Connection: close\r\n" : "") +
            "Content-Length: " + std::to_string(request.body.size()) + "\r\n\r\n" + request.body;
        for (std::size_t sent = 0; sent < text.size();) {
            if (!ready(POLLOUT, clock != clock::from_sent))
                return transport_failure{failure::timeout, "not sent"};
            const auto now = ::send(handle, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
            if (now < 0 && errno != EAGAIN) // a busy system may have no memory after all
                return transport_failure{failure::reset, "not sent"};
            sent += static_cast<std::size_t>(std::max<ssize_t>(now, 0));
        }
        if (clock == clock::from_sent)
            end = std::chrono::steady_clock::now() + request.timeout;
        std::string received;
        std::array<char, 4096> buffer{};
        while (true) {
            const bool in_body = received.find("\r\n\r\n") != received.npos;
            if (!ready(POLLIN, (clock != clock::from_first_byte || !received.empty()) &&
                                   (clock != clock::until_body || !in_body)))
                return transport_failure{failure::timeout, "times out without a response"};
            const auto size = ::recv(handle, buffer.data(), buffer.size(), 0);
            if (size < 0)
                return transport_failure{failure::reset, "times out without a response"};
            if (size == 0)
                return http_response{200, {}, received};
            if (clock == clock::from_first_byte && received.empty())
                end = std::chrono::steady_clock::now() + request.timeout;
            received.append(buffer.data(), static_cast<std::size_t>(size));
        }
    }
};

check timed(enum hand_made_transport::clock clock) {
    return [=](conformance_options options) {
        options.only = {"times out without a response", "times out while the status line arrives slowly",
                        "times out while headers arrive without end",
                        "times out while the body arrives slowly", "times out if the server does not read"};
        return check_transport(hand_made_transport{clock}, options);
    };
}

/// A small hand-made client that keeps its connection, with at most one fault.
class hand_made_client {
public:
    enum class fault {
        none,
        keeps_after_timeout,
        keeps_after_cancel,
        forgets_to_close, ///< after a timeout
        keeps_excess_bytes,
        ignores_connection_close,
        ignores_the_port,
        sends_again, ///< if a kept connection ends within a response
        ignores_cancel_within_response,
    };

private:
    enum class state { idle, in_flight, cancelled };
    fault fault_;
    int socket_ = -1;
    std::string port_{}, read_{};
    std::vector<int> forgotten_{};
    std::atomic<state> state_{state::idle};

    void close() {
        if (socket_ >= 0)
            ::close(socket_);
        socket_ = -1;
        read_.clear();
    }

    bool is_readable(std::chrono::milliseconds time) const {
        pollfd waited{socket_, POLLIN, 0};
        return ::poll(&waited, 1, static_cast<int>(time.count())) == 1;
    }

    /// Returns true if the connection was kept.
    bool connect(const std::string& port) {
        const bool has_excess = socket_ >= 0 && (!read_.empty() || is_readable(0ms));
        if (has_excess && fault_ != fault::keeps_excess_bytes)
            close();
        if (socket_ >= 0 && (port == port_ || fault_ == fault::ignores_the_port))
            return true;
        close();
        port_ = port;
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
        socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
        static_cast<void>(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address));
        return false;
    }

    transport_result ended(failure kind, bool kept = false) {
        if (kind == failure::timeout && fault_ == fault::forgets_to_close)
            forgotten_.push_back(std::exchange(socket_, -1));
        if (!kept)
            close();
        return transport_failure{kind, "hand-made"};
    }

    /// Removes a complete response from the bytes read; nullopt if it is not complete.
    std::optional<http_response> take_response() {
        const std::size_t head = read_.find("\r\n\r\n");
        if (head == read_.npos)
            return std::nullopt;
        http_response response{std::stoi(read_.substr(9, 3)), {}, ""};
        for (std::size_t begin = read_.find("\r\n") + 2; begin < head + 2;) {
            const std::size_t end = read_.find("\r\n", begin), colon = read_.find(": ", begin);
            response.headers.push_back(
                {read_.substr(begin, colon - begin), read_.substr(colon + 2, end - colon - 2)});
            begin = end + 2;
        }
        const std::size_t size = std::stoul(*find_header(response.headers, "Content-Length"));
        if (read_.size() < head + 4 + size)
            return std::nullopt;
        response.body = read_.substr(head + 4, size);
        const std::string* const connection = find_header(response.headers, "Connection");
        const bool closes = read_.starts_with("HTTP/1.0") || (connection && *connection == "close");
        read_.erase(0, head + 4 + size);
        if (closes && fault_ != fault::ignores_connection_close)
            close();
        return response;
    }

public:
    explicit hand_made_client(fault chosen) : fault_(chosen) {}
    hand_made_client(const hand_made_client&) = delete;
    hand_made_client& operator=(const hand_made_client&) = delete;
    ~hand_made_client() {
        close();
        for (const int socket : forgotten_)
            ::close(socket);
    }

    transport_result send(const http_request& request) {
        state_ = state::in_flight;
        const auto end = std::chrono::steady_clock::now() + request.timeout;
        const std::string port =
            request.url.substr(17, request.url.find('/', 17) - 17); // http://127.0.0.1:PORT/
        std::string text = request.method + " / HTTP/1.1\r\nHost: 127.0.0.1:" + port +
                           "\r\nContent-Length: " + std::to_string(request.body.size()) + "\r\n";
        for (const header& h : request.headers)
            text += h.name + ": " + h.value + "\r\n";
        text += "\r\n" + request.body;
        bool kept = connect(port);
        static_cast<void>(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL));
        while (true) {
            if (std::optional<http_response> response = take_response())
                return *std::move(response);
            if (state_ == state::cancelled &&
                (fault_ != fault::ignores_cancel_within_response || read_.empty()))
                return ended(failure::cancelled, fault_ == fault::keeps_after_cancel);
            if (std::chrono::steady_clock::now() >= end)
                return ended(failure::timeout, fault_ == fault::keeps_after_timeout);
            if (!is_readable(5ms))
                continue;
            std::array<char, 4096> buffer{};
            const auto size = ::recv(socket_, buffer.data(), buffer.size(), 0);
            if (size > 0) {
                read_.append(buffer.data(), static_cast<std::size_t>(size));
            } else if (kept && (read_.empty() || fault_ == fault::sends_again)) {
                close();
                kept = connect(port);
                static_cast<void>(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL));
            } else {
                return ended(failure::reset);
            }
        }
    }

    void cancel() {
        state expected = state::in_flight;
        state_.compare_exchange_strong(expected, state::cancelled);
    }
};

check hand_made(hand_made_client::fault fault) {
    return [=](conformance_options options) {
        options.only = {"cancels the requests in flight",
                        "cancels within the response",
                        "reuses no connection that a response ends",
                        "sends once if a kept connection is cut",
                        "replaces a kept connection that was closed",
                        "closes the connection after a timeout",
                        "sends the next request after a cancel",
                        "sends the next request after a timeout",
                        "sends each request to its own server",
                        "ignores bytes after a response"};
        return check_transport(hand_made_client{fault}, options);
    };
}

/// The fault is a memory of earlier requests.
template <class MemoryT, class FaultT>
check remembering(FaultT fault) {
    return [=](const conformance_options& options) {
        const auto memory = std::make_shared<MemoryT>();
        return faulty([=](curl_transport& right, http_request request) {
            return fault(*memory, right, std::move(request));
        })(options);
    };
}

/// Claims to be thread-safe, but stores the last outcome in one place.
struct unguarded_transport {
    static constexpr bool thread_safe = true;
    std::unique_ptr<std::mutex> mutex = std::make_unique<std::mutex>();
    curl_transport right{};
    std::optional<transport_result> last{};

    transport_result send(const http_request& request) {
        {
            const std::lock_guard guard{*mutex};
            last.emplace(right.send(request));
        }
        std::this_thread::yield();
        const std::lock_guard guard{*mutex};
        return *last;
    }
};

/// A transport with a wrong `cancel()`.
template <class CancelT>
struct wrongly_cancelled_transport {
    curl_transport right{};
    CancelT fault;
    std::unique_ptr<std::atomic<int>> cancels = std::make_unique<std::atomic<int>>(0);

    transport_result send(const http_request& request) {
        if (cancels->exchange(0) != 0)
            return transport_failure{failure::cancelled, "cancelled earlier"};
        return right.send(request);
    }
    void cancel() { fault(right, *cancels); }
};

template <class CancelT>
check cancelled_by(CancelT fault) {
    return [=](const conformance_options& options) {
        return check_transport(wrongly_cancelled_transport<CancelT>{{}, fault}, options);
    };
}

/// A correct asynchronous transport with a fault around it.
template <class FaultT>
struct wrong_async_transport {
    curl_multi_transport right;
    FaultT fault;

    void send(http_request request, completion done) { fault(right, std::move(request), std::move(done)); }
    void cancel() { right.cancel(); }
};

template <class FaultT>
check async_faulty(FaultT fault) {
    return [=](conformance_options options) {
        tls_servers tls;
        options.tls = std::ref(tls);
        wrong_async_transport<FaultT> transport{curl_multi_transport{trusting(tls)}, fault};
        return check_transport(
            transport, [&] { transport.right.poll(1ms); }, options);
    };
}

/// A transport with wrong optional members.
struct wrong_polled_transport {
    enum class fault { sleeps_in_poll, waits_longer, ignores_wakeup, loses_early_wakeup, throws };

    fault kind;
    curl_multi_transport right{};
    std::atomic<bool> polling{false};

    void send(http_request request, completion done) { right.send(std::move(request), std::move(done)); }
    void poll(std::chrono::milliseconds wait) {
        if (kind == fault::sleeps_in_poll)
            std::this_thread::sleep_for(std::exchange(wait, 0ms));
        const auto end = std::chrono::steady_clock::now() + wait + 300ms;
        polling = true;
        right.poll(wait);
        polling = false;
        while (kind == fault::waits_longer && right.poll(1ms) != 0 &&
               std::chrono::steady_clock::now() < end) {
        }
    }
    void wakeup() {
        if (kind != fault::ignores_wakeup && (kind != fault::loses_early_wakeup || polling))
            right.wakeup();
    }
    void max_in_flight(std::size_t) {
        if (kind == fault::throws)
            throw std::runtime_error{"not now"};
    }
};

check polled_with(wrong_polled_transport::fault kind) {
    return [=](conformance_options options) {
        tls_servers tls;
        options.tls = std::ref(tls);
        options.slack = 100ms; // a late outcome is expected, so a busy machine does no harm
        wrong_polled_transport transport{kind, curl_multi_transport{trusting(tls)}};
        return check_transport(
            transport, [&] { transport.right.poll(1ms); }, options);
    };
}

struct wrong {
    const char* how;
    check run;
    std::set<std::string> found_by; ///< the cases that fail
};

const std::vector<wrong>& wrong_transports() {
    static const std::vector<wrong> all{
        {"sends every request as a POST",
         request_with([](http_request& r) { r.method = "POST"; }),
         {"sends the method as it stands", "refuses a request that cannot be sent",
          "expects no body after HEAD"}},
        {"sends a PUT as a POST",
         request_with([](http_request& r) { r.method = r.method == "PUT" ? "POST" : r.method; }),
         {"sends the method as it stands"}},
        {"refuses a PUT as maybe delivered",
         faulty([](curl_transport& right, const http_request& r) {
             return r.method == "POST" ? right.send(r) : transport_failure{failure::other, "no POST"};
         }),
         {"sends the method as it stands", "refuses a request that cannot be sent",
          "expects no body after HEAD", "keeps no cache"}},
        {"normalizes the URL",
         request_with([](http_request& r) {
             if (const auto at = r.url.find("%7e"); at != r.url.npos)
                 r.url.replace(at, 3, "~");
         }),
         {"sends the path and query as they stand"}},
        {"stores request headers in a map",
         request_with([](http_request& r) { last_of_each(r.headers); }),
         {"sends every header as it stands"}},
        {"sends header values as ASCII",
         request_with([](http_request& r) {
             for (header& h : r.headers)
                 std::replace_if(
                     h.value.begin(), h.value.end(), [](char c) { return c < 0; }, '?');
         }),
         {"sends header values as bytes"}},
        {"adds its own Accept",
         request_with([](http_request& r) {
             r.headers.push_back({"Accept", "*/*"});
         }),
         {"sends no header twice", "adds only headers that the connection needs"}},
        {"adds its own Content-Type",
         request_with([](http_request& r) {
             r.headers.push_back({"content-type", "text/plain"});
         }),
         {"sends no header twice", "sends each request with its own headers"}},
        {"sends {} for an empty body",
         request_with([](http_request& r) { r.body = r.body.empty() ? "{}" : r.body; }),
         {"sends a body of 0 bytes"}},
        {"omits a body of one byte",
         request_with([](http_request& r) {
             r.body = r.body.size() == 1 && r.body < "0" ? "" : r.body == "x" ? "" : r.body;
         }),
         {"sends a body of 1 byte"}},
        {"stores the length in 16 bits",
         request_with([](http_request& r) {
             if (r.body.size() == 65'536)
                 r.body.clear();
         }),
         {"sends a body of 64 KiB"}},
        {"sends a body up to the size of a buffer",
         request_with([](http_request& r) {
             r.body.resize(
                 std::min<std::size_t>(r.body.size(), r.body.size() > 2'000'000 ? r.body.size() : 1'000'000));
         }),
         {"sends a body of 1 MiB"}},
        {"sends a body up to a NUL",
         request_with([](http_request& r) { r.body = r.body.c_str(); }),
         {"sends a body of all byte values"}},
        {"replaces line breaks in headers",
         request_with([](http_request& r) {
             for (header& h : r.headers)
                 std::replace(h.value.begin(), h.value.end(), '\r', ' '),
                     std::replace(h.value.begin(), h.value.end(), '\n', ' ');
         }),
         {"refuses a request that cannot be sent"}},
        {"throws if a request cannot be sent",
         outcome_with([](transport_result& outcome) {
             if (!outcome && outcome.error().kind == failure::other && !outcome.error().maybe_delivered)
                 throw std::runtime_error{outcome.error().message};
         }),
         {"refuses a request that cannot be sent"}},
        {"throws an int",
         failure_with([](const transport_failure& failed) -> transport_failure {
             throw static_cast<int>(failed.kind);
         }),
         {"refuses a request that cannot be sent", "times out without a response",
          "times out while the status line arrives slowly", "times out while headers arrive without end",
          "times out while the body arrives slowly", "times out if the server does not read",
          "reports a refused connection", "reports an unknown host", "reports a reset before the response",
          "reports a response cut within its headers", "reports a reset within the body",
          "reports a body shorter than Content-Length", "reports a chunked body cut short",
          "reports a response that is not HTTP", "cancels the requests in flight",
          "times out without a TLS handshake", "rejects a self-signed certificate",
          "rejects a certificate of another host", "rejects an expired certificate",
          "rejects a certificate of an unknown CA", "reports a TLS body cut without close_notify",
          "cancels within the response", "sends once if a kept connection is cut",
          "closes the connection after a timeout", "sends the next request after a cancel",
          "sends the next request after a timeout"}},
        {"cuts header values at a NUL",
         request_with([](http_request& r) {
             for (header& h : r.headers)
                 h.value = h.value.c_str();
         }),
         {"refuses a request that cannot be sent"}},
        {"removes invalid characters from header names",
         request_with([](http_request& r) {
             for (header& h : r.headers)
                 std::erase_if(h.name, [](char c) { return c < '!' || c == ':'; });
         }),
         {"refuses a request that cannot be sent"}},
        {"reports an invalid URL as a failed connection",
         failure_with([](transport_failure failed) {
             if (failed.kind == failure::other && !failed.maybe_delivered)
                 failed.kind = failure::connect;
             return failed;
         }),
         {"refuses a request that cannot be sent"}},
        {"omits empty request headers",
         request_with([](http_request& r) {
             std::erase_if(r.headers, [](const header& h) { return h.value.empty(); });
         }),
         {"sends every header as it stands"}},
        {"sends no Content-Length without a body",
         [](conformance_options options) {
             tls_servers tls;
             options.tls = std::ref(tls);
             const auto bodyless = std::make_shared<curl_transport>(trusting(tls, [](CURL* easy) {
                 curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
                 curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "POST");
             }));
             auto around_it = [=](curl_transport& right, const http_request& r) {
                 return r.body.empty() ? bodyless->send(r) : right.send(r);
             };
             return check_transport(
                 wrong_transport<decltype(around_it)>{curl_transport{trusting(tls)}, around_it}, options);
         },
         {"sends a body of 0 bytes", "expects no body after HEAD"}},
        {"returns headers only with a 200",
         response_with([](http_response& r) {
             if (r.status != 200)
                 r.headers.clear();
         }),
         {"returns a response of any status", "returns a response without a body", "follows no redirect"}},
        {"returns no body with an error status",
         response_with([](http_response& r) {
             if (r.status >= 400)
                 r.body.clear();
         }),
         {"returns a response of any status"}},
        {"sends again after a 408 or 502",
         resends_if([](const transport_result& outcome) {
             return outcome && (outcome->status == 408 || outcome->status == 502);
         }),
         {"returns a response of any status"}},
        {"reports an empty chunked body as cut",
         outcome_with([](transport_result& outcome) {
             if (outcome && outcome->body.empty() && find_header(outcome->headers, "Transfer-Encoding"))
                 outcome = transport_failure{failure::reset, "no body"};
         }),
         {"decodes a chunked body"}},
        {"follows redirects on the same host",
         faulty([](curl_transport& right, http_request r) {
             transport_result outcome = right.send(r);
             const std::string* const there =
                 outcome && outcome->status / 100 == 3 ? find_header(outcome->headers, "Location") : nullptr;
             if (!there || !there->starts_with("/"))
                 return outcome;
             r.url = r.url.substr(0, r.url.size() - 1) + *there;
             return right.send(r);
         }),
         {"follows no redirect"}},
        {"times out at once if the timeout is short",
         faulty([](curl_transport& right, const http_request& r) -> transport_result {
             if (r.timeout < 2s)
                 return transport_failure{failure::timeout, "no time"};
             return right.send(r);
         }),
         {"times out without a response", "times out while the status line arrives slowly",
          "times out while headers arrive without end", "times out while the body arrives slowly",
          "times out if the server does not read", "times out without a TLS handshake",
          "closes the connection after a timeout"}},
        {"reports every failure as maybe delivered",
         failure_with([](transport_failure failed) {
             failed.maybe_delivered = true;
             return failed;
         }),
         {"refuses a request that cannot be sent", "reports a refused connection", "reports an unknown host",
          "rejects a self-signed certificate", "rejects a certificate of another host",
          "rejects an expired certificate", "rejects a certificate of an unknown CA"}},
        {"reports a cancelled request as not delivered",
         failure_with([](transport_failure failed) {
             failed.maybe_delivered = failed.maybe_delivered && failed.kind != failure::cancelled;
             return failed;
         }),
         {"cancels the requests in flight", "cancels within the response"}},
        {"has no timeout over TLS",
         request_with([](http_request& r) {
             if (r.url.starts_with("https"))
                 r.timeout = 1h;
         }),
         {"times out without a TLS handshake"}},
        {"reports a response over the limit as not delivered",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && outcome->body.size() > r.max_response_bytes)
                 outcome = transport_failure{failure::other, "too long", false};
         }),
         {"stops at a body longer than the limit", "stops at a body far longer than the limit",
          "stops at a chunked body longer than the limit",
          "stops at an unframed body longer than the limit"}},
        {"returns no status with a response over the limit",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && outcome->body.size() > r.max_response_bytes)
                 outcome->status = 0;
         }),
         {"stops at a body longer than the limit", "stops at a body far longer than the limit",
          "stops at a chunked body longer than the limit",
          "stops at an unframed body longer than the limit"}},
        {"reports a delivered request on a kept connection as not delivered",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (r.body == "second")
                 outcome = transport_failure{failure::connect, "the connection ended"};
         }),
         {"replaces a kept connection that was closed", "sends once if a kept connection is cut"}},
        {"cancels only the first of many requests",
         [](const conformance_options& options) {
             const auto in_flight = std::make_shared<int>(0);
             return async_faulty([=](curl_multi_transport& right, http_request r, completion done) {
                 const bool first = (*in_flight)++ == 0;
                 right.send(std::move(r), [=](transport_result outcome) {
                     --*in_flight;
                     if (!first && !outcome && outcome.error().kind == failure::cancelled)
                         outcome = transport_failure{failure::timeout, "not cancelled"};
                     done(std::move(outcome));
                 });
             })(options);
         },
         {"cancels the requests in flight"}},
        {"returns 100 Continue",
         response_with([](http_response& r) {
             if (r.body == "after 100")
                 r = {100, {}, ""};
         }),
         {"skips 100 Continue"}},
        {"returns 103 Early Hints",
         response_with([](http_response& r) {
             if (r.body == "after 103")
                 r = {103, {}, ""};
         }),
         {"skips 103 Early Hints"}},
        {"reports a 5xx response as a failure",
         outcome_with([](transport_result& outcome) {
             if (outcome && outcome->status >= 500)
                 outcome = transport_failure{failure::other, "server error"};
         }),
         {"returns a response of any status"}},
        {"sends again after a 503",
         resends_if([](const transport_result& outcome) { return outcome && outcome->status == 503; }),
         {"returns a response of any status"}},
        {"waits for a body after 204",
         outcome_with([](transport_result& outcome) {
             if (outcome && (outcome->status == 204 || outcome->status == 304))
                 outcome = transport_failure{failure::timeout, "no body"};
         }),
         {"returns a response without a body", "follows no redirect"}},
        {"cuts response headers at the size of a buffer",
         response_with([](http_response& r) {
             for (header& h : r.headers)
                 h.value.resize(std::min<std::size_t>(h.value.size(), 1024));
         }),
         {"returns a long response header"}},
        {"omits empty response headers",
         response_with([](http_response& r) {
             std::erase_if(r.headers, [](const header& h) { return h.value.empty(); });
         }),
         {"returns an empty response header"}},
        {"returns response headers in a map",
         response_with([](http_response& r) { last_of_each(r.headers); }),
         {"returns every response header", "keeps no cookies", "returns response headers in order"}},
        {"returns chunks undecoded",
         response_with([](http_response& r) {
             if (find_header(r.headers, "Transfer-Encoding"))
                 r.body = r.body.empty() ? "0\r\n\r\n" : "D\r\n" + r.body + "\r\n0\r\n\r\n";
         }),
         {"decodes a chunked body"}},
        {"rejects a body without a length",
         outcome_with([](transport_result& outcome) {
             if (outcome && outcome->status == 200 && !find_header(outcome->headers, "Content-Length") &&
                 !find_header(outcome->headers, "Transfer-Encoding"))
                 outcome = transport_failure{failure::reset, "no length"};
         }),
         {"reads a body until the connection closes"}},
        {"returns a body up to a NUL",
         response_with([](http_response& r) { r.body = r.body.c_str(); }),
         {"returns a body with NUL bytes", "returns an encoded body as it came"}},
        {"follows redirects",
         configured([](CURL* easy) { curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L); }),
         {"follows no redirect"}},
        {"has no timeout",
         request_with([](http_request& r) { r.timeout = 1h; }),
         {"times out without a response", "times out while the status line arrives slowly",
          "times out while headers arrive without end", "times out while the body arrives slowly",
          "times out if the server does not read", "times out without a TLS handshake",
          "closes the connection after a timeout"}},
        {"starts the timeout with the response",
         timed(hand_made_transport::clock::from_first_byte),
         {"times out without a response"}},
        {"restarts the timeout with each byte",
         timed(hand_made_transport::clock::each_wait),
         {"times out while the status line arrives slowly", "times out while headers arrive without end",
          "times out while the body arrives slowly"}},
        {"ends the timeout with the headers",
         timed(hand_made_transport::clock::until_body),
         {"times out while the body arrives slowly"}},
        {"starts the timeout when the request is sent",
         timed(hand_made_transport::clock::from_sent),
         {"times out if the server does not read"}},
        {"reports a timeout as not delivered",
         failure_with([](transport_failure failed) {
             failed.maybe_delivered = failed.maybe_delivered && failed.kind != failure::timeout;
             return failed;
         }),
         {"times out without a response", "times out while the status line arrives slowly",
          "times out while headers arrive without end", "times out while the body arrives slowly"}},
        {"reports a refused connection as failure::other",
         failure_with([](transport_failure failed) {
             return failed.kind == failure::connect ? transport_failure{failure::other, failed.message}
                                                    : failed;
         }),
         {"reports a refused connection"}},
        {"reports an unknown host as a failed connection",
         failure_with([](transport_failure failed) {
             failed.kind = failed.kind == failure::resolve ? failure::connect : failed.kind;
             return failed;
         }),
         {"reports an unknown host"}},
        {"sends again after a reset",
         resends_if([](const transport_result& outcome) {
             return !outcome && says(outcome.error(), "reset by peer");
         }),
         {"reports a reset before the response", "reports a reset within the body"}},
        {"reports a reset as a failed connection",
         failure_with([](transport_failure failed) {
             return says(failed, "reset by peer") ? transport_failure{failure::connect, failed.message}
                                                  : failed;
         }),
         {"reports a reset before the response", "reports a reset within the body"}},
        {"returns a response without the end of its headers",
         failure_with([](const transport_failure& failed) -> transport_result {
             if (says(failed, "within the headers"))
                 return http_response{200, {}, ""};
             return failed;
         }),
         {"reports a response cut within its headers", "sends once if a kept connection is cut"}},
        {"returns a body shorter than Content-Length",
         failure_with([](const transport_failure& failed) -> transport_result {
             if (says(failed, "bytes remaining to read"))
                 return http_response{200, {}, "half of th"};
             return failed;
         }),
         {"reports a body shorter than Content-Length"}},
        {"returns the part of a body before a reset",
         failure_with([](const transport_failure& failed) -> transport_result {
             if (says(failed, "reset by peer"))
                 return http_response{200, {}, "half of th"};
             return failed;
         }),
         {"reports a reset before the response", "reports a reset within the body"}},
        {"returns a chunked body without the last chunk",
         failure_with([](const transport_failure& failed) -> transport_result {
             if (says(failed, "outstanding read data"))
                 return http_response{200, {}, "abc"};
             return failed;
         }),
         {"reports a chunked body cut short"}},
        {"returns a response that is not HTTP",
         failure_with([](const transport_failure& failed) -> transport_result {
             if (failed.kind == failure::other && failed.maybe_delivered)
                 return http_response{200, {}, ""};
             return failed;
         }),
         {"reports a response that is not HTTP"}},
        {"has a limit that is one byte too low",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && outcome->body.size() >= r.max_response_bytes)
                 outcome = transport_failure{failure::other, "too long"};
         }),
         {"returns a body as long as the limit"}},
        {"cuts a body that is one byte too long",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && find_header(outcome->headers, "Content-Length") &&
                 *find_header(outcome->headers, "Content-Length") ==
                     std::to_string(r.max_response_bytes + 1))
                 outcome->body.resize(r.max_response_bytes);
         }),
         {"stops at a body longer than the limit"}},
        {"cuts the body at the limit",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && outcome->body.size() > r.max_response_bytes)
                 outcome->body.resize(r.max_response_bytes);
         }),
         {"stops at a body longer than the limit", "stops at a body far longer than the limit",
          "stops at a chunked body longer than the limit",
          "stops at an unframed body longer than the limit"}},
        {"checks the limit after the last byte",
         faulty([](curl_transport& right, http_request r) -> transport_result {
             const std::size_t limit =
                 std::exchange(r.max_response_bytes, std::numeric_limits<std::size_t>::max());
             transport_result outcome = right.send(r);
             if (outcome && outcome->body.size() > limit)
                 return transport_failure{failure::other, "too long"};
             return outcome;
         }),
         {"stops at a body far longer than the limit", "stops at a chunked body longer than the limit",
          "stops at an unframed body longer than the limit"}},
        {"checks the limit against Content-Length only",
         faulty([](curl_transport& right, http_request r) -> transport_result {
             const std::size_t limit = r.max_response_bytes;
             transport_result outcome = right.send(r);
             if (!outcome || outcome->body.size() <= limit || find_header(outcome->headers, "Content-Length"))
                 return outcome;
             std::this_thread::sleep_for(4s);
             return outcome;
         }),
         {"stops at a chunked body longer than the limit",
          "stops at an unframed body longer than the limit"}},
        {"overflows the timeout",
         faulty([](curl_transport& right, const http_request& r) -> transport_result {
             if (r.timeout > std::chrono::milliseconds::max() - 1s)
                 return transport_failure{failure::timeout, "passed long ago", false};
             return right.send(r);
         }),
         {"accepts the largest timeout and limit"}},
        {"overflows the limit",
         request_with([](http_request& r) { r.max_response_bytes += 1; }),
         {"accepts the largest timeout and limit"}},
        {"does not check that a kept connection is open",
         faulty([](curl_transport& right, const http_request& r) -> transport_result {
             if (r.body == "second")
                 return transport_failure{failure::reset, "the connection ended"};
             return right.send(r);
         }),
         {"replaces a kept connection that was closed", "sends once if a kept connection is cut"}},
        {"opens a connection for each request",
         configured([](CURL* easy) { curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L); }),
         {"keeps connections for 1,000 requests"}},
        {"claims to be thread_safe",
         [](conformance_options options) {
             options.only = {"sends from 8 threads at once", "keeps connections for 1,000 requests",
                             "cancels the requests in flight"};
             return check_transport(unguarded_transport{}, options);
         },
         {"sends from 8 threads at once"}},
        {"does not cancel",
         cancelled_by([](curl_transport&, std::atomic<int>&) {}),
         {"cancels the requests in flight", "cancels within the response"}},
        {"cancels after 200 ms",
         cancelled_by([](curl_transport& right, std::atomic<int>&) {
             std::this_thread::sleep_for(200ms);
             right.cancel();
         }),
         {"cancels the requests in flight", "cancels within the response"}},
        {"cancels the next request too",
         cancelled_by([](curl_transport& right, std::atomic<int>& cancels) {
             ++cancels;
             right.cancel();
         }),
         {"cancels the requests in flight", "sends the next request after a cancel"}},
        {"reports a cancel as failure::other",
         failure_with([](transport_failure failed) {
             failed.kind = failed.kind == failure::cancelled ? failure::other : failed.kind;
             return failed;
         }),
         {"cancels the requests in flight", "cancels within the response"}},
        {"blocks in send",
         async_faulty([](curl_multi_transport& right, http_request r, completion done) {
             right.send(std::move(r), std::move(done));
             while (right.poll(1ms) != 0) {
             }
         }),
         {"cancels the requests in flight", "returns from send without waiting",
          "times out many requests in flight"}},
        {"calls the completion of another request",
         [](const conformance_options& options) {
             const auto completions = std::make_shared<std::vector<completion>>();
             return async_faulty([=](curl_multi_transport& right, http_request r, completion done) {
                 completions->push_back(std::move(done));
                 right.send(std::move(r), [=](transport_result outcome) {
                     const completion last = std::move(completions->back());
                     completions->pop_back();
                     last(std::move(outcome));
                 });
             })(options);
         },
         {"completes many requests in flight"}},
        {"loses a request that is sent from a completion",
         [](const conformance_options& options) {
             const auto completing = std::make_shared<bool>(false);
             return async_faulty([=](curl_multi_transport& right, http_request r, completion done) {
                 if (*completing)
                     return;
                 right.send(std::move(r), [=](transport_result outcome) {
                     *completing = true;
                     done(std::move(outcome));
                     *completing = false;
                 });
             })(options);
         },
         {"sends from a completion"}},
        {"completes twice",
         async_faulty([](curl_multi_transport& right, http_request r, completion done) {
             right.send(std::move(r), [=](transport_result outcome) {
                 done(outcome);
                 done(std::move(outcome));
             });
         }),
         {"completes each request once"}},
        {"completes a refused request in send and again later",
         async_faulty([](curl_multi_transport& right, http_request r, completion done) {
             if (!r.url.starts_with("http"))
                 done(transport_failure{failure::other, "no URL", false});
             right.send(std::move(r), std::move(done));
         }),
         {"completes each request once"}},
        {"does not complete a cancelled request",
         async_faulty([](curl_multi_transport& right, http_request r, completion done) {
             right.send(std::move(r), [=](transport_result outcome) {
                 static std::vector<completion> forgotten;
                 static std::mutex mutex;
                 if (outcome || outcome.error().kind != failure::cancelled)
                     return done(std::move(outcome));
                 const std::lock_guard guard{mutex};
                 forgotten.push_back(done);
             });
         }),
         {"cancels the requests in flight", "completes each request once", "cancels within the response",
          "sends the next request after a cancel"}},
        {"sleeps in poll",
         polled_with(wrong_polled_transport::fault::sleeps_in_poll),
         {"waits in poll until there is something to do",
          "ends the present or the next wait of poll after wakeup"}},
        {"waits in poll until all requests have ended",
         polled_with(wrong_polled_transport::fault::waits_longer),
         {"waits in poll until there is something to do",
          "ends the present or the next wait of poll after wakeup"}},
        {"ignores wakeup",
         polled_with(wrong_polled_transport::fault::ignores_wakeup),
         {"ends the present or the next wait of poll after wakeup"}},
        {"loses a wakeup before the wait",
         polled_with(wrong_polled_transport::fault::loses_early_wakeup),
         {"ends the present or the next wait of poll after wakeup"}},
        {"throws from max_in_flight",
         polled_with(wrong_polled_transport::fault::throws),
         {"accepts max_in_flight before the first request"}},
        // ErrorsV of what is added, kept or remembered
        {"sends again after a third of the timeout",
         faulty([](curl_transport& right, http_request r) {
             const auto timeout = std::exchange(r.timeout, r.timeout / 3);
             transport_result outcome = right.send(r);
             r.timeout = timeout - r.timeout;
             return !outcome && outcome.error().kind == failure::timeout ? right.send(r) : outcome;
         }),
         {"times out without a response", "times out while the status line arrives slowly",
          "times out while headers arrive without end", "times out while the body arrives slowly"}},
        {"cuts an unframed body at the limit",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && outcome->body.size() > r.max_response_bytes &&
                 !find_header(outcome->headers, "Content-Length") &&
                 !find_header(outcome->headers, "Transfer-Encoding"))
                 outcome->body.resize(r.max_response_bytes);
         }),
         {"stops at an unframed body longer than the limit"}},
        {"rounds timeouts up to whole seconds",
         request_with([](http_request& r) {
             if (r.timeout < 1h)
                 r.timeout = std::chrono::ceil<std::chrono::seconds>(r.timeout);
         }),
         {"closes the connection after a timeout"}},
        {"waits longer with each timeout",
         remembering<std::atomic<int>>(
             [](std::atomic<int>& timeouts, curl_transport& right, const http_request& r) {
                 transport_result outcome = right.send(r);
                 if (!outcome && outcome.error().kind == failure::timeout && r.timeout < 1s)
                     std::this_thread::sleep_for(50ms * timeouts++);
                 return outcome;
             }),
         {"closes the connection after a timeout"}},
        {"has a cookie jar",
         remembering<std::map<std::string, std::string>>(
             [](auto& cookies, curl_transport& right, http_request r) {
                 if (const auto entry = cookies.find(r.url); entry != cookies.end())
                     r.headers.push_back({"Cookie", entry->second});
                 transport_result outcome = right.send(r);
                 if (const std::string* const set =
                         outcome ? find_header(outcome->headers, "Set-Cookie") : nullptr)
                     cookies[r.url] = set->substr(0, set->find(';'));
                 return outcome;
             }),
         {"keeps no cookies"}},
        {"has a cache",
         remembering<std::map<std::string, http_response>>(
             [](auto& cache, curl_transport& right, const http_request& r) -> transport_result {
                 const std::string key = r.method + r.url + r.body;
                 if (const auto entry = cache.find(key); entry != cache.end())
                     return entry->second;
                 transport_result outcome = right.send(r);
                 if (outcome && find_header(outcome->headers, "Cache-Control"))
                     cache[key] = *outcome;
                 return outcome;
             }),
         {"keeps no cache"}},
        {"revalidates a cached response",
         remembering<std::map<std::string, std::string>>(
             [](auto& tags, curl_transport& right, http_request r) {
                 if (const auto entry = tags.find(r.url); entry != tags.end() && r.method == "GET")
                     r.headers.push_back({"If-None-Match", entry->second});
                 transport_result outcome = right.send(r);
                 if (const std::string* const tag = outcome ? find_header(outcome->headers, "ETag") : nullptr)
                     tags[r.url] = *tag;
                 return outcome;
             }),
         {"keeps no cache"}},
        {"adds the headers of earlier requests",
         remembering<std::map<std::string, std::vector<header>>>(
             [](auto& sessions, curl_transport& right, http_request r) {
                 if (invalid_reason(r)) // a later server may have the same port
                     return right.send(r);
                 std::vector<header>& session = sessions[r.url];
                 for (const header& h : r.headers) {
                     if (!find_header(session, h.name))
                         session.push_back(h);
                 }
                 for (const header& h : session) {
                     if (!find_header(r.headers, h.name))
                         r.headers.push_back(h);
                 }
                 return right.send(r);
             }),
         {"sends each request with its own headers"}},
        {"sends each request with the key of the first",
         remembering<std::map<std::string, std::string>>(
             [](auto& keys, curl_transport& right, http_request r) {
                 for (header& h : r.headers) {
                     if (h.name == "X-API-KEY")
                         h.value = keys.emplace(r.url, h.value).first->second;
                 }
                 return right.send(r);
             }),
         {"sends each request with its own headers"}},
        {"adds Accept-Encoding and decompresses",
         configured([](CURL* easy) { curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, ""); }),
         {"adds only headers that the connection needs", "returns an encoded body as it came"}},
        {"decompresses without Accept-Encoding",
         response_with([](http_response& r) {
             if (find_header(r.headers, "Content-Encoding"))
                 r.body = "{}";
         }),
         {"returns an encoded body as it came"}},
        {"adds its own User-Agent",
         request_with([](http_request& r) {
             if (!find_header(r.headers, "User-Agent"))
                 r.headers.push_back({"User-Agent", "in-house/1"});
         }),
         {"adds only headers that the connection needs"}},
        {"adds Expect to a large request",
         request_with([](http_request& r) {
             if (r.body.size() > 1'000'000)
                 r.headers.push_back({"Expect", "100-continue"});
         }),
         {"adds only headers that the connection needs"}},
        {"follows a 300 to another host",
         faulty([](curl_transport& right, http_request r) {
             transport_result outcome = right.send(r);
             const std::string* const there =
                 outcome && outcome->status == 300 ? find_header(outcome->headers, "Location") : nullptr;
             if (!there || there->starts_with("/"))
                 return outcome;
             r.url = *there;
             return right.send(r);
         }),
         {"follows no redirect"}},
        {"fetches the Location of a 202",
         faulty([](curl_transport& right, http_request r) {
             transport_result outcome = right.send(r);
             if (outcome && outcome->status == 202 && find_header(outcome->headers, "Location"))
                 return right.send(r);
             return outcome;
         }),
         {"follows no redirect"}},
        {"sends again after a 504 or 421",
         resends_if([](const transport_result& outcome) {
             return outcome && (outcome->status == 504 || outcome->status == 421);
         }),
         {"returns a response of any status"}},
        {"sorts response headers",
         response_with([](http_response& r) {
             std::stable_sort(r.headers.begin(), r.headers.end(),
                              [](const header& a, const header& b) { return a.name < b.name; });
         }),
         {"returns response headers in order"}},
        {"waits for a body after HEAD",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (outcome && r.method == "HEAD")
                 outcome = transport_failure{failure::timeout, "no body"};
         }),
         {"expects no body after HEAD"}},
        {"parses the port after the first colon",
         faulty([](curl_transport& right, const http_request& r) -> transport_result {
             if (r.url.find("//[") != r.url.npos)
                 return transport_failure{failure::other, "no port", false};
             return right.send(r);
         }),
         {"connects to an IPv6 address"}},
        {"returns a TLS body without a close_notify",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (!outcome && outcome.error().kind == failure::reset && r.url.starts_with("https"))
                 outcome = http_response{200, {}, "half of"};
         }),
         {"reports a TLS body cut without close_notify"}},
        {"keeps a connection after a timeout",
         hand_made(hand_made_client::fault::keeps_after_timeout),
         {"sends the next request after a timeout"}},
        {"keeps a connection after a cancel",
         hand_made(hand_made_client::fault::keeps_after_cancel),
         {"sends the next request after a cancel"}},
        {"does not close a connection after a timeout",
         hand_made(hand_made_client::fault::forgets_to_close),
         {"closes the connection after a timeout"}},
        {"takes excess bytes for the next response",
         hand_made(hand_made_client::fault::keeps_excess_bytes),
         {"ignores bytes after a response"}},
        {"reuses a connection that the response ends",
         hand_made(hand_made_client::fault::ignores_connection_close),
         {"reuses no connection that a response ends"}},
        {"uses one connection for all servers",
         hand_made(hand_made_client::fault::ignores_the_port),
         {"sends each request to its own server"}},
        {"sends again if a kept connection is cut",
         hand_made(hand_made_client::fault::sends_again),
         {"sends once if a kept connection is cut"}},
        {"ignores a cancel within the response",
         hand_made(hand_made_client::fault::ignores_cancel_within_response),
         {"cancels within the response"}},
        {"starts the timeout when a request leaves its queue",
         [](conformance_options options) {
             options.only = {"completes many requests in flight", "times out many requests in flight"};
             const auto waiting = std::make_shared<std::deque<std::function<void()>>>();
             return async_faulty([=](curl_multi_transport& right, http_request r, completion done) {
                 waiting->push_back([=, &right] {
                     right.send(r, [=](transport_result outcome) {
                         waiting->pop_front();
                         if (!waiting->empty())
                             waiting->front()();
                         done(std::move(outcome));
                     });
                 });
                 if (waiting->size() == 1)
                     waiting->front()();
             })(options);
         },
         {"times out many requests in flight"}},
        {"trusts no CA",
         configured([](CURL* easy) {
             curl_blob none{const_cast<char*>(""), 0, CURL_BLOB_COPY};
             curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &none);
         }),
         {"accepts a trusted certificate", "times out without a TLS handshake",
          "reports a TLS body cut without close_notify"}},
        {"trusts every certificate",
         configured([](CURL* easy) {
             curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
             curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
         }),
         {"rejects a self-signed certificate", "rejects a certificate of another host",
          "rejects an expired certificate",
          "rejects a certificate of an unknown CA"}},
        {"trusts a self-signed certificate",
         tolerating<X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT>(),
         {"rejects a self-signed certificate"}},
        {"does not check the host of the certificate",
         configured([](CURL* easy) { curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L); }),
         {"rejects a certificate of another host"}},
        {"does not check the dates of the certificate",
         tolerating<X509_V_ERR_CERT_HAS_EXPIRED>(),
         {"rejects an expired certificate"}},
        {"does not check the CA of the certificate",
         tolerating<X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
                    X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE>(),
         {"rejects a certificate of an unknown CA"}},
        {"sends again without a check after a failed check",
         outcome_with([](transport_result& outcome, const http_request& r) {
             if (!outcome && outcome.error().kind == failure::tls) {
                 curl_transport trusting_all{[](CURL* easy) {
                     curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
                     curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
                 }};
                 static_cast<void>(trusting_all.send(r));
             }
         }),
         {"rejects a self-signed certificate", "rejects a certificate of another host",
          "rejects an expired certificate",
          "rejects a certificate of an unknown CA"}},
    };
    return all;
}

std::set<std::string> names(const conformance_report& report, verdict searched) {
    std::set<std::string> names;
    for (const case_result& result : report.cases) {
        if (result.verdict == searched)
            names.insert(result.name);
    }
    return names;
}

std::string listed(const std::set<std::string>& names) {
    std::string text;
    for (const std::string& name : names)
        text += (text.empty() ? "" : ", ") + name;
    return text;
}

/// Checks all wrong transports, each with the cases that `only` returns. Sixteen threads, because most time
/// is spent in timeouts.
template <class OnlyT>
std::vector<conformance_report> check_all(OnlyT only) {
    const std::vector<wrong>& all = wrong_transports();
    std::vector<conformance_report> reports(all.size());
    std::atomic<std::size_t> next{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 16; ++i)
        threads.emplace_back([&] {
            for (std::size_t taken; (taken = next++) < all.size();)
                reports[taken] = all[taken].run({.slack = 2s, .only = only(all[taken])});
        });
    for (std::thread& thread : threads)
        thread.join();
    return reports;
}

const case_result& only_case(const conformance_report& report) {
    REQUIRE(report.cases.size() == 1);
    return report.cases[0];
}

/// Returns the cases that this machine can run. IPv6 may be missing.
std::set<std::string> runnable(std::set<std::string> cases) {
    static const bool has_ipv6 = [] {
        try {
            const scripted_server server{[](const http_request&) { return scripted_response{}; },
                                         boost::asio::ip::tcp::v6()};
            return true;
        } catch (const std::exception&) {
            return false;
        }
    }();
    if (!has_ipv6)
        cases.erase("connects to an IPv6 address");
    return cases;
}

} // namespace

TEST_CASE("conformance: every case finds a wrong transport and every wrong transport is failed") {
    const auto reports = check_all([](const wrong& transport) {
        return std::vector<std::string>{transport.found_by.begin(), transport.found_by.end()};
    });
    std::set<std::string> failed;
    for (std::size_t i = 0; i < reports.size(); ++i) {
        INFO(std::string{wrong_transports()[i].how}, "\n", to_string(reports[i]));
        const std::set<std::string> expected = runnable(wrong_transports()[i].found_by);
        CHECK(listed(names(reports[i], verdict::failed)) == listed(expected));
        CHECK(reports[i].ok() == expected.empty());
        failed.merge(names(reports[i], verdict::failed));
    }
    std::set<std::string> cases;
    for (const case_result& result : check_transport(curl_transport{}).cases)
        cases.insert(result.name);
    CHECK(listed(failed) == listed(runnable(cases)));
}

TEST_CASE("conformance: a hand-made client without a fault passes") {
    const auto report = hand_made(hand_made_client::fault::none)({});
    INFO(to_string(report));
    CHECK(report.ok());
    CHECK(report.count(verdict::skipped) == 0);
}

// Takes two minutes; runs with --no-skip.
TEST_CASE("conformance: a wrong transport fails only the cases of its fault" * doctest::skip()) {
    const auto reports = check_all([](const wrong&) { return std::vector<std::string>{}; });
    for (std::size_t i = 0; i < reports.size(); ++i) {
        INFO(std::string{wrong_transports()[i].how}, "\n", to_string(reports[i]));
        CHECK(listed(names(reports[i], verdict::failed)) == listed(wrong_transports()[i].found_by));
    }
}

// In a test of its own, because other threads of the process open descriptors too.
TEST_CASE("conformance: a descriptor leak with each timeout is found") {
    curl_transport right;
    std::vector<int> leaked;
    auto leaks = promptlayer::transport_from([&](const http_request& request) {
        transport_result outcome = right.send(request);
        if (!outcome && outcome.error().kind == failure::timeout)
            leaked.push_back(::dup(STDERR_FILENO));
        return outcome;
    });
    const auto report = check_transport(leaks, {.only = {"closes the connection after a timeout"}});
    for (const int descriptor : leaked)
        ::close(descriptor);
    CHECK(only_case(report).text.starts_with("The transport left at least 20 descriptors open"));
}

TEST_CASE("conformance: a failure has three lines: what happened, the contract and a hint") {
    const auto report =
        check_transport(promptlayer::transport_from([](const http_request&) -> transport_result {
                            return http_response{500, {}, "no"};
                        }),
                        {.only = {"follows no redirect"}});
    CHECK(only_case(report).text ==
          "The transport returned status 500 with a body of 2 bytes; the server sent status 301.\n"
          "Contract: a transport follows no redirect.\n"
          "Hint: turn off redirects in your HTTP client.");
    CHECK_FALSE(report.ok());
}

TEST_CASE("conformance: a case that needs what the transport lacks is skipped with the reason") {
    const auto report =
        check_transport(promptlayer::transport_from(
                            [](const http_request&) -> transport_result { return transport_failure{}; }),
                        {.only = {"sends from 8 threads at once", "cancels the requests in flight",
                                  "completes many requests in flight", "accepts a trusted certificate"}});
    CHECK(listed(names(report, verdict::skipped)) ==
          "accepts a trusted certificate, cancels the requests in flight, completes many requests in flight, "
          "sends from 8 threads at once");
    for (const case_result& result : report.cases)
        CHECK_FALSE(result.text.empty());
    CHECK_FALSE(report.ok()); // no case passed
}

TEST_CASE("conformance: a case is skipped by name with the given reason, and an unknown name fails") {
    curl_transport transport;
    const auto report =
        check_transport(transport, {.skip = {{"follows no redirect", "a reason"}},
                                    .only = {"follows no redirect", "returns a response of any status"}});
    CHECK(report.ok());
    CHECK(report.count(verdict::passed) == 1);
    CHECK(report.cases[1].name == "follows no redirect");
    CHECK(report.cases[1].verdict == verdict::skipped);
    CHECK(report.cases[1].text == "a reason");

    const auto mistyped = check_transport(
        transport, {.skip = {{"redirect", "a reason"}}, .only = {"returns a response of any status"}});
    CHECK_FALSE(mistyped.ok());
    CHECK(mistyped.cases[1].name == "redirect");
    CHECK_FALSE(check_transport(transport, {.only = {"status"}}).ok());
}

TEST_CASE("conformance: a report prints as a table") {
    conformance_report report;
    CHECK_FALSE(report.ok());
    report.cases = {
        {"follows no redirect", verdict::passed, "", 12ms},
        {"a name that is longer than the column of the names is", verdict::failed,
         "It failed.\nHint: fix it.", 3ms},
        {"cancels the requests in flight", verdict::skipped, "the transport has no cancel()", 0ms}};
    std::ostringstream out;
    out << report;
    CHECK(out.str() == "passed   follows no redirect                                 12 ms\n"
                       "FAILED   a name that is longer than the column of the names is 3 ms\n"
                       "         It failed.\n"
                       "         Hint: fix it.\n"
                       "skipped  cancels the requests in flight\n"
                       "         the transport has no cancel()\n"
                       "1 passed, 1 failed, 1 skipped\n");
}

TEST_CASE("conformance: an exception of any type fails the case, and the next cases run") {
    const auto thrown = [](auto what) {
        return check_transport(
            promptlayer::transport_from([=](const http_request&) -> transport_result { throw what; }),
            {.only = {"returns a response of any status", "follows no redirect"}});
    };
    CHECK(thrown(std::runtime_error{"out of memory"}).count(verdict::failed) == 2);
    CHECK(thrown(std::runtime_error{"out of memory"})
              .cases[0]
              .text.starts_with(
                  "The transport threw an exception: out of memory.\nContract: a transport does not throw"));
    CHECK(thrown(7).count(verdict::failed) == 2);
}

TEST_CASE("conformance: a completion that is never called or destroyed uncalled fails the case") {
    std::vector<completion> kept;
    auto never = promptlayer::transport_from([&](http_request, completion done) { kept.push_back(done); });
    const auto report =
        check_transport(never, [] {}, {.slack = -9'900ms, .only = {"returns a response of any status"}});
    CHECK(only_case(report).text.starts_with("The transport did not complete a request.\nContract: "));

    auto dropped = promptlayer::transport_from([](http_request, completion) {});
    CHECK(only_case(check_transport(dropped, [] {}, {.only = {"returns a response of any status"}}))
              .text.starts_with("The transport returned failure::cancelled"));
}

TEST_CASE("conformance: a completion that outlives the check can be called or destroyed") {
    std::vector<completion> kept;
    auto keeps =
        promptlayer::transport_from([&](http_request, completion done) { kept.push_back(std::move(done)); });
    CHECK_FALSE(check_transport(keeps, [] {}, {.slack = -9'900ms, .only = {"sends from a completion"}}).ok());
    REQUIRE(kept.size() == 1);
    kept[0](http_response{200, {}, "0"});
    CHECK_FALSE(check_transport(keeps, [] {}, {.slack = -9'900ms, .only = {"sends from a completion"}}).ok());
    kept.clear();
}

TEST_CASE("conformance: an exception of a send from a completion does not reach the transport") {
    bool again = false;
    auto throws_then = promptlayer::transport_from([&](http_request, completion done) {
        if (std::exchange(again, true))
            throw std::runtime_error{"nested"};
        done(http_response{200, {}, "first"});
    });
    const auto report = check_transport(throws_then, [] {}, {.only = {"sends from a completion"}});
    CHECK(only_case(report).text.starts_with("The transport threw an exception: nested"));
}

TEST_CASE("conformance: a transport that reads until the connection ends is found in finite time") {
    const auto report = check_transport(hand_made_transport{hand_made_transport::clock::until_body, false},
                                        {.only = {"returns a response of any status"}});
    CHECK_FALSE(report.ok());
}

TEST_CASE("conformance: a transport that completes from a thread of its own passes") {
    for (const bool before : {true, false}) {
        std::vector<std::thread> threads;
        auto own_thread = promptlayer::transport_from([&](http_request request, completion done) {
            std::thread worker{[=] { done(curl_transport{}.send(request)); }};
            if (before)
                worker.join();
            else
                threads.push_back(std::move(worker));
        });
        const auto report = check_transport(
            own_thread, [] {}, {.only = {"returns a response of any status", "completes each request once"}});
        for (std::thread& thread : threads)
            thread.join();
        INFO(promptlayer::testing::to_string(report));
        CHECK(report.ok());
    }
}

TEST_CASE("conformance: a transport passes if its timeout ends before it could send the request") {
    auto late = promptlayer::transport_from([](const http_request& request) -> transport_result {
        std::this_thread::sleep_for(request.timeout);
        return transport_failure{failure::timeout, "timed out", false};
    });
    const auto report = check_transport(
        late, {.only = {"times out without a response", "times out while headers arrive without end"}});
    INFO(promptlayer::testing::to_string(report));
    CHECK(report.ok());
}
