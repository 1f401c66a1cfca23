#ifndef PROMPTLAYER_TRANSPORTS_WINHTTP_HPP
#define PROMPTLAYER_TRANSPORTS_WINHTTP_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>
#include <promptlayer/transports/detail/request_limits.hpp>

#ifndef _WINSOCKAPI_
#include <winsock2.h> // otherwise windows.h includes its predecessor, which Boost.Asio and others reject
#endif

#include <windows.h>

#include <winhttp.h>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#ifdef _MSC_VER
#pragma comment(lib, "winhttp")
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Returns why WinHTTP cannot send a request unchanged; nullopt if it can. WinHTTP takes UTF-16 and does not
/// document which bytes it sends for other characters than ASCII.
inline std::optional<transport_failure> winhttp_request_error(const http_request& request) {
    const auto ascii = [](const header& h) { return ascii_from('\t', h.value); };
    if (!std::all_of(request.headers.begin(), request.headers.end(), ascii))
        return not_sent(failure::other, "a header has a character that is not ASCII");
    if (request.body.size() > std::numeric_limits<DWORD>::max())
        return not_sent(failure::other, "the body exceeds 4 GiB");
    return request_error(request);
}

inline std::wstring to_wide(std::string_view ascii) { return {ascii.begin(), ascii.end()}; }

struct winhttp_error {
    failure kind;
    const char* message;
};

/// Describes an error of WinHTTP, or one of sockets and TLS, which Wine passes on.
constexpr winhttp_error winhttp_error_of(DWORD code) noexcept {
    switch (code) {
    case ERROR_WINHTTP_OPERATION_CANCELLED: return {failure::cancelled, "cancelled"};
    case ERROR_WINHTTP_NAME_NOT_RESOLVED: return {failure::resolve, "the host has no address"};
    case ERROR_WINHTTP_CANNOT_CONNECT: return {failure::connect, "the host accepts no connection"};
    case ERROR_WINHTTP_TIMEOUT:
    case WSAETIMEDOUT: return {failure::timeout, "timed out"};
    case ERROR_WINHTTP_CONNECTION_ERROR:
    case WSAECONNABORTED:
    case WSAECONNRESET: return {failure::reset, "the connection ended"};
    case ERROR_WINHTTP_INVALID_SERVER_RESPONSE:
        return {failure::reset, "the connection ended within the response, or the response is not HTTP"};
    case ERROR_WINHTTP_SECURE_CERT_DATE_INVALID: return {failure::tls, "the certificate has expired"};
    case ERROR_WINHTTP_SECURE_CERT_CN_INVALID: return {failure::tls, "the certificate is for another host"};
    case ERROR_WINHTTP_SECURE_INVALID_CA:
        return {failure::tls, "Windows does not trust the CA of the certificate"};
    case ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED:
    case ERROR_WINHTTP_SECURE_CERT_REV_FAILED:
    case ERROR_WINHTTP_SECURE_CERT_REVOKED:
    case ERROR_WINHTTP_SECURE_CERT_WRONG_USAGE:
    case ERROR_WINHTTP_SECURE_CHANNEL_ERROR:
    case ERROR_WINHTTP_SECURE_FAILURE:
    case ERROR_WINHTTP_SECURE_INVALID_CERT: return {failure::tls, "the TLS handshake failed"};
    }
    constexpr DWORD security_facility = 0x8009; // SEC_E_...
    return code >> 16 == security_facility ? winhttp_error{failure::tls, "the TLS handshake failed"}
                                           : winhttp_error{failure::other, "WinHTTP failed"};
}

/// Returns the error for the flags of a rejected certificate.
constexpr DWORD winhttp_error_of_certificate(DWORD flags) noexcept {
    return flags & WINHTTP_CALLBACK_STATUS_FLAG_INVALID_CA          ? ERROR_WINHTTP_SECURE_INVALID_CA
           : flags & WINHTTP_CALLBACK_STATUS_FLAG_CERT_CN_INVALID   ? ERROR_WINHTTP_SECURE_CERT_CN_INVALID
           : flags & WINHTTP_CALLBACK_STATUS_FLAG_CERT_DATE_INVALID ? ERROR_WINHTTP_SECURE_CERT_DATE_INVALID
                                                                    : ERROR_WINHTTP_SECURE_FAILURE;
}

struct winhttp_close {
    using pointer = HINTERNET;
    void operator()(HINTERNET handle) const noexcept { WinHttpCloseHandle(handle); }
};
using winhttp_handle = std::unique_ptr<HINTERNET, winhttp_close>;

/// Connects the threads of WinHTTP, of `send` and of `cancel`.
struct winhttp_signal {
    std::mutex mutex{};
    std::condition_variable condition{};
    std::size_t cancels = 0;
    std::size_t open = 0; // requests that WinHTTP has not closed yet
};

/// The memory that WinHTTP uses while it has a request, which may be longer than `send` waits. The mutex of
/// the signal guards the members after `buffer`.
struct winhttp_exchange {
    const std::shared_ptr<winhttp_signal> signal;
    std::string body;
    std::array<char, 16 * 1024> buffer{};
    std::shared_ptr<winhttp_exchange> self{}; // until WinHTTP has closed the request
    bool done = false;                        // the last call of WinHTTP has completed
    DWORD error = ERROR_SUCCESS;              // of that call
    DWORD count = 0;                          // bytes available or read
    DWORD certificate = ERROR_WINHTTP_SECURE_FAILURE;
    bool send_started = false;
    bool sent = false;
    bool body_started = false;
    bool cut = false; // the connection ended within the body

    winhttp_exchange(std::shared_ptr<winhttp_signal> shared, std::string request_body)
        : signal(std::move(shared)), body(std::move(request_body)) {}

    static void CALLBACK notify(HINTERNET, DWORD_PTR context, DWORD status, void* info,
                                DWORD length) noexcept {
        if (auto* const exchange = reinterpret_cast<winhttp_exchange*>(context))
            exchange->take(status, info, length);
    }

    void take(DWORD status, const void* info, DWORD length) noexcept {
        std::shared_ptr<winhttp_exchange> owner; // destroyed after the lock
        const std::lock_guard guard{signal->mutex};
        const auto number = [=] { return *static_cast<const DWORD*>(info); };
        switch (status) {
        case WINHTTP_CALLBACK_STATUS_SENDING_REQUEST: send_started = true; return;
        case WINHTTP_CALLBACK_STATUS_RESPONSE_RECEIVED: cut = cut || (body_started && number() == 0); return;
        case WINHTTP_CALLBACK_STATUS_SECURE_FAILURE:
            certificate = winhttp_error_of_certificate(number());
            return;
        case WINHTTP_CALLBACK_STATUS_REQUEST_ERROR:
            error = static_cast<const WINHTTP_ASYNC_RESULT*>(info)->dwError;
            error = error == ERROR_WINHTTP_SECURE_FAILURE ? certificate : error;
            break;
        case WINHTTP_CALLBACK_STATUS_SENDREQUEST_COMPLETE: sent = true; break;
        case WINHTTP_CALLBACK_STATUS_HEADERS_AVAILABLE: body_started = true; break;
        case WINHTTP_CALLBACK_STATUS_DATA_AVAILABLE: count = number(); break;
        case WINHTTP_CALLBACK_STATUS_READ_COMPLETE: count = length; break;
        case WINHTTP_CALLBACK_STATUS_HANDLE_CLOSING: // the last notification
            owner = std::move(self);
            --signal->open;
            break;
        default: return;
        }
        done = true;
        signal->condition.notify_all();
    }
};

/// The sessions of a transport, which keep connections for further requests. Null if WinHTTP fails.
struct winhttp_sessions {
    const std::shared_ptr<winhttp_signal> signal = std::make_shared<winhttp_signal>();
    const winhttp_handle plain = open(WINHTTP_ACCESS_TYPE_NO_PROXY);
    const winhttp_handle secure = open(WINHTTP_ACCESS_TYPE_AUTOMATIC_PROXY);

    winhttp_sessions() = default;
    winhttp_sessions(const winhttp_sessions&) = delete;
    winhttp_sessions& operator=(const winhttp_sessions&) = delete;

    /// Waits until WinHTTP has closed aborted requests, because it calls into this code, which may be of a
    /// DLL, until then. Windows closes them at once, Wine after the timeout.
    ~winhttp_sessions() {
        std::unique_lock guard{signal->mutex};
        signal->condition.wait_for(guard, std::chrono::seconds{1}, [&] { return signal->open == 0; });
    }

    static bool set(HINTERNET handle, DWORD option, DWORD value) noexcept {
        return WinHttpSetOption(handle, option, &value, sizeof value);
    }

    static winhttp_handle open(DWORD access) noexcept {
        constexpr DWORD tls_1_2 = 0x800, tls_1_3 = 0x2000; // 1.3 needs Windows 11
        constexpr DWORD notifications = WINHTTP_CALLBACK_FLAG_ALL_COMPLETIONS |
                                        WINHTTP_CALLBACK_FLAG_HANDLES | WINHTTP_CALLBACK_FLAG_SEND_REQUEST |
                                        WINHTTP_CALLBACK_FLAG_RECEIVE_RESPONSE |
                                        WINHTTP_CALLBACK_FLAG_SECURE_FAILURE;
        winhttp_handle session{WinHttpOpen(nullptr, access, nullptr, nullptr, WINHTTP_FLAG_ASYNC)};
        if (!session ||
            (!set(session.get(), WINHTTP_OPTION_SECURE_PROTOCOLS, tls_1_2 | tls_1_3) &&
             !set(session.get(), WINHTTP_OPTION_SECURE_PROTOCOLS, tls_1_2)) ||
            WinHttpSetStatusCallback(session.get(), &winhttp_exchange::notify, notifications, 0) ==
                WINHTTP_INVALID_STATUS_CALLBACK)
            return nullptr;
        return session;
    }
};

/// Makes the calls of WinHTTP for one request.
class winhttp_call {
    const winhttp_sessions& sessions_;
    const http_request& request_;
    const std::chrono::milliseconds timeout_ = clamp_timeout(request_.timeout);
    const std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + timeout_;
    std::size_t cancels_ = 0;
    std::shared_ptr<winhttp_exchange> exchange_{};
    winhttp_handle connection_{};
    winhttp_handle handle_{};

    std::unique_lock<std::mutex> acquire() const { return std::unique_lock{sessions_.signal->mutex}; }

    /// Calls a function of WinHTTP and waits until the call has completed. Returns its error.
    template <class FunctionT, class... ArgumentsT>
    DWORD error_of(FunctionT function, ArgumentsT... arguments) {
        if (!function(handle_.get(), arguments...))
            return GetLastError();
        auto guard = acquire();
        const auto cancelled = [&] { return sessions_.signal->cancels != cancels_; };
        const auto ended = [&] { return exchange_->done || cancelled(); };
        if (!sessions_.signal->condition.wait_until(guard, deadline_, ended))
            return ERROR_WINHTTP_TIMEOUT;
        exchange_->done = false;
        return cancelled() ? ERROR_WINHTTP_OPERATION_CANCELLED : exchange_->error;
    }

    /// Returns the failure. A reset before the request was sent is a `failure::connect`; a failure of TLS
    /// after it was sent is a `failure::reset`.
    transport_failure failed(DWORD code) const {
        const winhttp_error error = winhttp_error_of(code);
        transport_failure failed_request =
            failed(error.kind, std::string{error.message} + " (WinHTTP error " + std::to_string(code) + ")");
        if (failed_request.kind == failure::reset && !failed_request.maybe_delivered)
            failed_request.kind = failure::connect;
        else if (failed_request.kind == failure::tls && failed_request.maybe_delivered)
            failed_request.kind = failure::reset;
        return failed_request;
    }

    DWORD open() {
        const url_parts url = split_url(request_.url);
        const bool bracketed = url.authority.starts_with('[');
        const std::wstring host = to_wide(url.authority.substr(0, url.host.size() + (bracketed ? 2 : 0)));
        const std::wstring target = to_wide(request_target(url));
        const auto& session = url.secure ? sessions_.secure : sessions_.plain;
        connection_.reset(
            WinHttpConnect(session.get(), host.c_str(), static_cast<INTERNET_PORT>(url.port), 0));
        if (connection_)
            handle_.reset(WinHttpOpenRequest(connection_.get(), to_wide(request_.method).c_str(),
                                             target.c_str(), nullptr, nullptr, nullptr,
                                             static_cast<DWORD>(WINHTTP_FLAG_ESCAPE_DISABLE |
                                                                WINHTTP_FLAG_ESCAPE_DISABLE_QUERY |
                                                                (url.secure ? WINHTTP_FLAG_SECURE : 0))));
        if (!handle_)
            return GetLastError();
        if (url.secure) // for a server that asks for a certificate but does not need one
            WinHttpSetOption(handle_.get(), WINHTTP_OPTION_CLIENT_CERT_CONTEXT, nullptr, 0);
        return prepare();
    }

    DWORD prepare() {
        HINTERNET const handle = handle_.get();
        exchange_ = std::make_shared<winhttp_exchange>(sessions_.signal, request_.body);
        auto context = reinterpret_cast<DWORD_PTR>(exchange_.get());
        if (!WinHttpSetOption(handle, WINHTTP_OPTION_CONTEXT_VALUE, &context, sizeof context))
            return GetLastError();
        {
            const auto guard = acquire();
            exchange_->self = exchange_;
            ++sessions_.signal->open;
        }
        const auto timeout =
            static_cast<int>((timeout_ + std::chrono::seconds{1}).count()); // after the deadline
        const auto set = &winhttp_sessions::set;
        if (!set(handle, WINHTTP_OPTION_DISABLE_FEATURE,
                 WINHTTP_DISABLE_REDIRECTS | WINHTTP_DISABLE_COOKIES | WINHTTP_DISABLE_AUTHENTICATION) ||
            !WinHttpSetTimeouts(handle, timeout, timeout, timeout, timeout) ||
            !set(handle, WINHTTP_OPTION_RECEIVE_RESPONSE_TIMEOUT, static_cast<DWORD>(timeout)))
            return GetLastError();
        std::string header_text;
        const auto add = [&](const std::string& name, const std::string& value) {
            header_text.append(name).append(": ").append(value).append("\r\n");
        };
        for (const header& h : request_.headers)
            add(h.name, h.value);
        if (request_.body.empty() && has_content_length(request_))
            add("Content-Length", "0"); // WinHTTP adds it only if there is a body
        const std::wstring wide = to_wide(header_text);
        const auto count = static_cast<DWORD>(wide.size());
        return wide.empty() || WinHttpAddRequestHeaders(handle, wide.c_str(), count, WINHTTP_ADDREQ_FLAG_ADD)
                   ? ERROR_SUCCESS
                   : GetLastError();
    }

    /// Reads the headers as they arrived. WinHTTP has converted them from the code page of the system.
    DWORD read_headers(http_response& response) {
        const auto query = [&](DWORD item, void* buffer, DWORD& size) {
            return WinHttpQueryHeaders(handle_.get(), item, nullptr, buffer, &size, nullptr);
        };
        DWORD size = 0, status = 0, status_size = sizeof status;
        query(WINHTTP_QUERY_RAW_HEADERS_CRLF, nullptr, size);
        std::wstring wide(size / sizeof(wchar_t), L'\0');
        if (!query(WINHTTP_QUERY_RAW_HEADERS_CRLF, wide.data(), size) ||
            !query(WINHTTP_QUERY_STATUS_CODE | WINHTTP_QUERY_FLAG_NUMBER, &status, status_size))
            return GetLastError();
        const auto convert = [&, count = static_cast<int>(size / sizeof(wchar_t))](char* buffer,
                                                                                   int capacity) {
            return WideCharToMultiByte(CP_ACP, 0, wide.data(), count, buffer, capacity, nullptr, nullptr);
        };
        std::string text(static_cast<std::size_t>(convert(nullptr, 0)), '\0');
        convert(text.data(), static_cast<int>(text.size()));
        // Wine accepts headers that are cut, and takes an informational response (except 100) for the final
        // one.
        if (status < 200 || text.size() < 2 || (text.ends_with("\r\n") && !text.ends_with("\r\n\r\n")))
            return ERROR_WINHTTP_INVALID_SERVER_RESPONSE;
        response.status = static_cast<int>(status);
        for (std::string_view rest = text; !rest.empty();) {
            const std::string_view line = rest.substr(0, rest.find("\r\n"));
            const std::string_view name = line.substr(0, line.find(':'));
            if (line.data() != text.data()) { // the status line
                // WinHTTP would ignore `Content-Length : 3`.
                if (name.find_first_of(" \t") != name.npos)
                    return ERROR_WINHTTP_INVALID_SERVER_RESPONSE;
                if (name.size() != line.size())
                    response.headers.push_back(
                        {std::string{name}, std::string{trim(line.substr(name.size() + 1))}});
            }
            rest.remove_prefix(std::min(line.size() + 2, rest.size()));
        }
        return ERROR_SUCCESS;
    }

    /// Reads the body up to one byte more than allowed.
    DWORD read_body(std::string& body) {
        auto& buffer = exchange_->buffer;
        while (body.size() <= request_.max_response_bytes) {
            if (const DWORD error = error_of(WinHttpQueryDataAvailable, nullptr))
                return error;
            auto size = std::clamp<std::size_t>(exchange_->count, 1, buffer.size()); // 1: reads the end
            if (const std::size_t space = request_.max_response_bytes - body.size(); space < size)
                size = space + 1;
            if (const DWORD error =
                    error_of(WinHttpReadData, buffer.data(), static_cast<DWORD>(size), nullptr))
                return error;
            if (exchange_->count == 0)
                break;
            body.append(buffer.data(), exchange_->count);
        }
        return ERROR_SUCCESS;
    }

    /// Returns whether the body is complete. WinHTTP does not compare a body with its length, and Wine does
    /// not notice a missing last chunk. Over TLS, a body that ends with the connection may be cut.
    bool is_complete(const http_response& response) const {
        if (!has_body(request_.method, response.status))
            return true;
        const auto guard = acquire();
        if (find_header(response.headers, "Transfer-Encoding"))
            return !exchange_->cut;
        if (is_close_delimited(response.headers))
            return !split_url(request_.url).secure;
        const std::string size = std::to_string(response.body.size());
        return std::all_of(response.headers.begin(), response.headers.end(), [&](const header& h) {
            return !equal_ignoring_case(h.name, "Content-Length") || h.value == size;
        });
    }

public:
    winhttp_call(const winhttp_sessions& sessions, const http_request& request)
        : sessions_(sessions), request_(request) {
        const auto guard = acquire();
        cancels_ = sessions_.signal->cancels;
    }

    transport_failure failed(failure kind, std::string message) const {
        const auto guard = acquire();
        // A request to a proxy is sent too, before the handshake with the host.
        return {kind, std::move(message),
                exchange_ && (kind == failure::tls ? exchange_->sent : exchange_->send_started)};
    }

    transport_result run(const std::function<void(HINTERNET)>& configure) {
        if (const DWORD error = open())
            return failed(error);
        if (configure)
            configure(handle_.get());
        std::string& body = exchange_->body;
        const auto size = static_cast<DWORD>(body.size());
        if (const DWORD error = error_of(WinHttpSendRequest, nullptr, DWORD{0}, body.data(), size, size,
                                         reinterpret_cast<DWORD_PTR>(exchange_.get())))
            return failed(error);
        if (const DWORD error = error_of(WinHttpReceiveResponse, nullptr))
            return failed(error);
        http_response response;
        if (const DWORD error = read_headers(response))
            return failed(error);
        if (const DWORD error = read_body(response.body))
            return failed(error);
        if (response.body.size() <= request_.max_response_bytes && !is_complete(response))
            return failed(failure::reset, "the body ended before its length");
        return response;
    }
};

} // namespace detail

/// A `Transport` over WinHTTP, which is part of Windows, so there is no library to ship. Needs Windows 8.1 or
/// later; works with Wine too. Link `winhttp` (Visual C++ does so automatically).
///
/// - Sends to `http` and `https` URLs with HTTP/1.1 and TLS 1.2 or later. Follows no redirect, decompresses
///   nothing, and uses neither cookies nor authentication. Verifies peer and host of `https` with the CAs
///   that Windows trusts; add a CA of your own to its certificate store. Does not check revocation, as is the
///   default of WinHTTP.
/// - `https` uses the proxy that is set in Windows, `http` uses none.
/// - A request with a header that is not ASCII is not sent and returns `failure::other`. WinHTTP takes
///   UTF-16 and does not document which bytes it sends.
/// - Reads `max_response_bytes` + 1 of a body and 64 KiB of headers, which is the limit of WinHTTP.
/// - A body over `https` that has neither a length nor chunks is a failure, because a cut would not be
/// noticed.
/// - Wine hardly checks chunks: a size that is not a number ends the body, which then counts as complete, and
///   the two bytes after the data of a chunk may have any value.
/// - If the server has closed a kept connection, WinHTTP may send the request again on a new one.
/// - `timeout` is at most 24 days; 0 or less fails at once.
///
/// Any number of threads at once. Movable between requests. WinHTTP has threads of its own; the destructor
/// waits up to 1 second until they have ended aborted requests. Must not be destroyed in DllMain.
class winhttp_transport {
    std::unique_ptr<detail::winhttp_sessions> sessions_ = std::make_unique<detail::winhttp_sessions>();
    std::function<void(HINTERNET)> configure_{};

public:
    static constexpr bool thread_safe = true;

    winhttp_transport() = default;

    /// `configure` is called with the handle of every request on the thread of `send`, after the options of
    /// this class are set. It can set a proxy, a client certificate and so on. It may be called from several
    /// threads at once. It must not change context, callback and headers, and must not call the transport.
    explicit winhttp_transport(std::function<void(HINTERNET)> configure) : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, by the contract in `transport.hpp`. A request that cannot
    /// be sent unchanged (a line break in a header, ...) is a `failure::other` and not sent. The message of a
    /// failure contains the error code of WinHTTP.
    transport_result send(const http_request& request) {
        if (auto error = detail::winhttp_request_error(request))
            return *std::move(error);
        if (!sessions_ || !sessions_->plain || !sessions_->secure)
            return detail::not_sent(failure::other, "WinHTTP cannot be opened");
        detail::winhttp_call call{*sessions_, request};
        return detail::guard_exceptions(
            [&]() -> transport_result { return call.run(configure_); },
            [&](const char* message) -> transport_result { return call.failed(failure::other, message); });
    }

    /// Ends all requests in flight with `failure::cancelled`. Later requests are not affected. Does not wait.
    /// May be called from any thread, except while the transport is moved or destroyed.
    void cancel() noexcept {
        if (!sessions_)
            return;
        const std::lock_guard guard{sessions_->signal->mutex};
        ++sessions_->signal->cancels;
        sessions_->signal->condition.notify_all();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
