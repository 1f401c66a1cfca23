#ifndef PROMPTLAYER_TRANSPORTS_WINHTTP_HPP
#define PROMPTLAYER_TRANSPORTS_WINHTTP_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/transport.hpp>

#ifndef _WINSOCKAPI_
#include <winsock2.h> // or windows.h includes its predecessor, and Boost.Asio and others refuse that
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
#include <string>
#include <string_view>
#include <utility>

#ifdef _MSC_VER
#pragma comment(lib, "winhttp")
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Why WinHTTP cannot send a request as it stands; else null. It takes UTF-16 and does not say which bytes it
/// makes of what is not ASCII.
inline const char* winhttp_unsendable(const http_request& request) noexcept {
    const auto ascii = [](const header& h) { return ascii_from('\t', h.value); };
    if (!std::all_of(request.headers.begin(), request.headers.end(), ascii))
        return "a header holds what is not ASCII";
    if (request.body.size() > std::numeric_limits<DWORD>::max())
        return "the body exceeds 4 GiB";
    return invalid_reason(request);
}

/// ASCII as WinHTTP takes it.
inline std::wstring to_wide(std::string_view ascii) { return {ascii.begin(), ascii.end()}; }

struct winhttp_error {
    failure kind;
    const char* words;
};

/// What an error of WinHTTP means, or one of sockets and TLS, which Wine passes on.
constexpr winhttp_error winhttp_error_of(DWORD code) noexcept {
    switch (code) {
    case ERROR_WINHTTP_OPERATION_CANCELLED: return {failure::cancelled, "cancelled"};
    case ERROR_WINHTTP_NAME_NOT_RESOLVED: return {failure::resolve, "the host has no address"};
    case ERROR_WINHTTP_CANNOT_CONNECT: return {failure::connect, "the host takes no connection"};
    case ERROR_WINHTTP_TIMEOUT:
    case WSAETIMEDOUT: return {failure::timeout, "the time allowed has passed"};
    case ERROR_WINHTTP_CONNECTION_ERROR:
    case WSAECONNABORTED:
    case WSAECONNRESET: return {failure::reset, "the connection broke"};
    case ERROR_WINHTTP_INVALID_SERVER_RESPONSE:
        return {failure::reset, "the connection ended before the answer did, or that is not HTTP"};
    case ERROR_WINHTTP_SECURE_CERT_DATE_INVALID: return {failure::tls, "the certificate has expired"};
    case ERROR_WINHTTP_SECURE_CERT_CN_INVALID: return {failure::tls, "the certificate is of another host"};
    case ERROR_WINHTTP_SECURE_INVALID_CA:
        return {failure::tls, "the certificate is from no authority that Windows trusts"};
    case ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED:
    case ERROR_WINHTTP_SECURE_CERT_REV_FAILED:
    case ERROR_WINHTTP_SECURE_CERT_REVOKED:
    case ERROR_WINHTTP_SECURE_CERT_WRONG_USAGE:
    case ERROR_WINHTTP_SECURE_CHANNEL_ERROR:
    case ERROR_WINHTTP_SECURE_FAILURE:
    case ERROR_WINHTTP_SECURE_INVALID_CERT: return {failure::tls, "the TLS handshake failed"};
    }
    constexpr DWORD of_security_support = 0x8009; // SEC_E_...
    return code >> 16 == of_security_support ? winhttp_error{failure::tls, "the TLS handshake failed"}
                                             : winhttp_error{failure::other, "WinHTTP failed"};
}

/// The error that says what was found wrong with a certificate.
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

/// What the threads of WinHTTP, of `send` and of `cancel` tell each other.
struct winhttp_signal {
    std::mutex mutex{};
    std::condition_variable changed{};
    std::size_t cancels = 0;
    std::size_t open = 0; // requests that WinHTTP has not closed yet
};

/// What WinHTTP reads, writes and calls back with for as long as it has a request; that may be longer than
/// `send` waits. What follows `buffer` is guarded by the mutex of the signal.
struct winhttp_exchange {
    const std::shared_ptr<winhttp_signal> signal;
    std::string body;
    std::array<char, 16 * 1024> buffer{};
    std::shared_ptr<winhttp_exchange> self{}; // until WinHTTP has closed the request
    bool done = false;           // the function of WinHTTP that was called last has done its work
    DWORD error = ERROR_SUCCESS; // of that function
    DWORD count = 0;             // bytes that it found or read
    DWORD certificate = ERROR_WINHTTP_SECURE_FAILURE;
    bool sending = false; // or sent
    bool sent = false;
    bool reading_body = false; // or read
    bool cut = false;          // the connection ended within the body

    winhttp_exchange(std::shared_ptr<winhttp_signal> shared, std::string request_body)
        : signal(std::move(shared)), body(std::move(request_body)) {}

    static void CALLBACK notify(HINTERNET, DWORD_PTR context, DWORD status, void* info,
                                DWORD length) noexcept {
        if (auto* const exchange = reinterpret_cast<winhttp_exchange*>(context))
            exchange->take(status, info, length);
    }

    void take(DWORD status, const void* info, DWORD length) noexcept {
        std::shared_ptr<winhttp_exchange> last; // outlives the lock
        const std::lock_guard held{signal->mutex};
        const auto number = [=] { return *static_cast<const DWORD*>(info); };
        switch (status) {
        case WINHTTP_CALLBACK_STATUS_SENDING_REQUEST: sending = true; return;
        case WINHTTP_CALLBACK_STATUS_RESPONSE_RECEIVED: cut = cut || (reading_body && number() == 0); return;
        case WINHTTP_CALLBACK_STATUS_SECURE_FAILURE:
            certificate = winhttp_error_of_certificate(number());
            return;
        case WINHTTP_CALLBACK_STATUS_REQUEST_ERROR:
            error = static_cast<const WINHTTP_ASYNC_RESULT*>(info)->dwError;
            error = error == ERROR_WINHTTP_SECURE_FAILURE ? certificate : error;
            break;
        case WINHTTP_CALLBACK_STATUS_SENDREQUEST_COMPLETE: sent = true; break;
        case WINHTTP_CALLBACK_STATUS_HEADERS_AVAILABLE: reading_body = true; break;
        case WINHTTP_CALLBACK_STATUS_DATA_AVAILABLE: count = number(); break;
        case WINHTTP_CALLBACK_STATUS_READ_COMPLETE: count = length; break;
        case WINHTTP_CALLBACK_STATUS_HANDLE_CLOSING: // none follows
            last = std::move(self);
            --signal->open;
            break;
        default: return;
        }
        done = true;
        signal->changed.notify_all();
    }
};

/// The sessions of a transport, null where WinHTTP gives none; they keep connections between requests.
struct winhttp_sessions {
    const std::shared_ptr<winhttp_signal> signal = std::make_shared<winhttp_signal>();
    const winhttp_handle plain = open(WINHTTP_ACCESS_TYPE_NO_PROXY);
    const winhttp_handle secure = open(WINHTTP_ACCESS_TYPE_AUTOMATIC_PROXY);

    winhttp_sessions() = default;
    winhttp_sessions(const winhttp_sessions&) = delete;
    winhttp_sessions& operator=(const winhttp_sessions&) = delete;

    /// Waits for WinHTTP to be done with requests that were given up, since it calls into this code (of a
    /// DLL, maybe) until then. Windows is at once, Wine after the timeout.
    ~winhttp_sessions() {
        std::unique_lock held{signal->mutex};
        signal->changed.wait_for(held, std::chrono::seconds{1}, [&] { return signal->open == 0; });
    }

    static bool set(HINTERNET handle, DWORD option, DWORD value) noexcept {
        return WinHttpSetOption(handle, option, &value, sizeof value);
    }

    static winhttp_handle open(DWORD access) noexcept {
        constexpr DWORD tls_1_2 = 0x800, tls_1_3 = 0x2000; // Windows 11 is the first to know the latter
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

/// One request, from WinHTTP's first function to its last.
class winhttp_call {
    static constexpr std::chrono::hours longest{24 * 24}; // WinHTTP counts milliseconds in an int

    const winhttp_sessions& sessions_;
    const http_request& request_;
    const std::chrono::milliseconds timeout_ = std::min<std::chrono::milliseconds>(request_.timeout, longest);
    const std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + timeout_;
    std::size_t cancels_ = 0;
    std::shared_ptr<winhttp_exchange> exchange_{};
    winhttp_handle connection_{};
    winhttp_handle handle_{};

    std::unique_lock<std::mutex> guard() const { return std::unique_lock{sessions_.signal->mutex}; }

    /// Calls a function of WinHTTP and waits until it has done its work; its error.
    template <class FunctionT, class... ArgumentsT>
    DWORD error_of(FunctionT function, ArgumentsT... arguments) {
        if (!function(handle_.get(), arguments...))
            return GetLastError();
        auto held = guard();
        const auto cancelled = [&] { return sessions_.signal->cancels != cancels_; };
        const auto over = [&] { return exchange_->done || cancelled(); };
        if (!sessions_.signal->changed.wait_until(held, deadline_, over))
            return ERROR_WINHTTP_TIMEOUT;
        exchange_->done = false;
        return cancelled() ? ERROR_WINHTTP_OPERATION_CANCELLED : exchange_->error;
    }

    /// A reset before the request was sent means that there was no connection; what TLS finds wrong after it
    /// was, is a reset.
    transport_failure failed(DWORD code) const {
        const winhttp_error error = winhttp_error_of(code);
        transport_failure made =
            failed(error.kind, std::string{error.words} + " (WinHTTP error " + std::to_string(code) + ")");
        if (made.kind == failure::reset && !made.maybe_delivered)
            made.kind = failure::connect;
        else if (made.kind == failure::tls && made.maybe_delivered)
            made.kind = failure::reset;
        return made;
    }

    DWORD open() {
        const url_parts url = split_url(request_.url);
        const bool bracketed = url.authority.starts_with('[');
        const std::wstring host = to_wide(url.authority.substr(0, url.host.size() + (bracketed ? 2 : 0)));
        std::wstring target = to_wide(url.target);
        if (!target.starts_with(L'/'))
            target.insert(0, 1, L'/');
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
        if (url.secure) // for a server that asks for a certificate and does without
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
            const auto held = guard();
            exchange_->self = exchange_;
            ++sessions_.signal->open;
        }
        const auto timeout = static_cast<int>((timeout_ + std::chrono::seconds{1}).count()); // ours is first
        const auto set = &winhttp_sessions::set;
        if (!set(handle, WINHTTP_OPTION_DISABLE_FEATURE,
                 WINHTTP_DISABLE_REDIRECTS | WINHTTP_DISABLE_COOKIES | WINHTTP_DISABLE_AUTHENTICATION) ||
            !WinHttpSetTimeouts(handle, timeout, timeout, timeout, timeout) ||
            !set(handle, WINHTTP_OPTION_RECEIVE_RESPONSE_TIMEOUT, static_cast<DWORD>(timeout)))
            return GetLastError();
        std::string lines;
        const auto add = [&](const std::string& name, const std::string& value) {
            lines.append(name).append(": ").append(value).append("\r\n");
        };
        for (const header& h : request_.headers)
            add(h.name, h.value);
        const std::string& method = request_.method;
        if (request_.body.empty() && (method == "POST" || method == "PUT" || method == "PATCH"))
            add("Content-Length", "0"); // that of a body WinHTTP adds
        const std::wstring wide = to_wide(lines);
        const auto count = static_cast<DWORD>(wide.size());
        return wide.empty() || WinHttpAddRequestHeaders(handle, wide.c_str(), count, WINHTTP_ADDREQ_FLAG_ADD)
                   ? ERROR_SUCCESS
                   : GetLastError();
    }

    /// The headers as they came: WinHTTP has converted them from the code page of the system.
    DWORD read_headers(http_response& response) {
        const auto query = [&](DWORD what, void* to, DWORD& size) {
            return WinHttpQueryHeaders(handle_.get(), what, nullptr, to, &size, nullptr);
        };
        DWORD size = 0, status = 0, status_size = sizeof status;
        query(WINHTTP_QUERY_RAW_HEADERS_CRLF, nullptr, size);
        std::wstring wide(size / sizeof(wchar_t), L'\0');
        if (!query(WINHTTP_QUERY_RAW_HEADERS_CRLF, wide.data(), size) ||
            !query(WINHTTP_QUERY_STATUS_CODE | WINHTTP_QUERY_FLAG_NUMBER, &status, status_size))
            return GetLastError();
        const auto converted = [&, count = static_cast<int>(size / sizeof(wchar_t))](char* to, int room) {
            return WideCharToMultiByte(CP_ACP, 0, wide.data(), count, to, room, nullptr, nullptr);
        };
        std::string text(static_cast<std::size_t>(converted(nullptr, 0)), '\0');
        converted(text.data(), static_cast<int>(text.size()));
        // Wine takes headers that end too early for whole, and an interim answer (but 100) for the final one.
        if (status < 200 || text.size() < 2 || (text.ends_with("\r\n") && !text.ends_with("\r\n\r\n")))
            return ERROR_WINHTTP_INVALID_SERVER_RESPONSE;
        response.status = static_cast<int>(status);
        for (std::string_view rest = text; !rest.empty();) {
            const std::string_view line = rest.substr(0, rest.find("\r\n"));
            const std::string_view name = line.substr(0, line.find(':'));
            if (line.data() != text.data()) { // the status line
                // `Content-Length : 3` would count for nothing.
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

    /// Reads to the end, or until the body is longer than allowed.
    DWORD read_body(std::string& body) {
        auto& buffer = exchange_->buffer;
        while (body.size() <= request_.max_response_bytes) {
            if (const DWORD error = error_of(WinHttpQueryDataAvailable, nullptr))
                return error;
            auto most = std::clamp<std::size_t>(exchange_->count, 1, buffer.size()); // 1: reads the end
            if (const std::size_t room = request_.max_response_bytes - body.size(); room < most)
                most = room + 1;
            if (const DWORD error =
                    error_of(WinHttpReadData, buffer.data(), static_cast<DWORD>(most), nullptr))
                return error;
            if (exchange_->count == 0)
                break;
            body.append(buffer.data(), exchange_->count);
        }
        return ERROR_SUCCESS;
    }

    /// Whether a body that has ended ended in its place: WinHTTP does not compare it with its length, and
    /// Wine's does not miss the last chunk.
    bool whole(const http_response& response) const {
        if (request_.method == "HEAD" || response.status == 204 || response.status == 304)
            return true;
        const auto held = guard();
        if (find_header(response.headers, "Transfer-Encoding"))
            return !exchange_->cut;
        if (!find_header(response.headers, "Content-Length"))
            return !split_url(request_.url).secure; // where a cut would not be noticed
        const std::string size = std::to_string(response.body.size());
        return std::all_of(response.headers.begin(), response.headers.end(), [&](const header& h) {
            return !equal_ignoring_case(h.name, "Content-Length") || h.value == size;
        });
    }

public:
    winhttp_call(const winhttp_sessions& sessions, const http_request& request)
        : sessions_(sessions), request_(request) {
        const auto held = guard();
        cancels_ = sessions_.signal->cancels;
    }

    transport_failure failed(failure kind, std::string message) const {
        const auto held = guard();
        // A request to a proxy is "sending" too, and the handshake with the host comes after it.
        return {kind, std::move(message),
                exchange_ && (kind == failure::tls ? exchange_->sent : exchange_->sending)};
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
        if (response.body.size() <= request_.max_response_bytes && !whole(response))
            return failed(failure::reset, "the body ended before its length");
        return response;
    }
};

} // namespace detail

/// A `Transport` over WinHTTP, which is part of Windows: no library to ship. Needs Windows 8.1 or later;
/// works under Wine too. Link `winhttp` (Visual C++ does it by itself).
///
/// - `http` and `https` only, HTTP/1.1, TLS 1.2 or later; no redirects, no cookies, no authentication, no
///   decompression. Peer and host of `https` are verified, with the authorities that Windows trusts: one of
///   your own is added to its certificate store. Revocation is not checked, as is WinHTTP's default.
/// - `https` goes through the proxy that is set in Windows, `http` through none.
/// - A header that is not ASCII is a `failure::other` and not sent: WinHTTP takes UTF-16 and does not say
///   which bytes it makes of it.
/// - Of a body it reads `max_response_bytes` + 1, of headers 64 KiB, which is WinHTTP's limit.
/// - A body over `https` without a length and without chunks is a failure: a cut would not be noticed.
/// - Wine's WinHTTP hardly checks chunks: a size that is no number ends the body, which then counts as
///   whole, and the two bytes after the data of a chunk may be any.
/// - Where the server has closed a kept connection, WinHTTP may send the request again on a new one.
/// - `timeout` is at most 24 days; one of 0 or less fails at once.
///
/// Any number of threads at once. Movable between requests. WinHTTP has threads of its own; the destructor
/// waits, for 1 second at most, until they are done with requests that were given up. Not to be destroyed in
/// DllMain.
class winhttp_transport {
    std::unique_ptr<detail::winhttp_sessions> sessions_ = std::make_unique<detail::winhttp_sessions>();
    std::function<void(HINTERNET)> configure_{};

public:
    static constexpr bool thread_safe = true;

    winhttp_transport() = default;

    /// `configure` is called with the handle of every request, on the thread of `send`, after the options of
    /// this class: for a proxy, a client certificate, ... It may be called from several threads at once,
    /// leaves context, callback and headers alone and does not call the transport.
    explicit winhttp_transport(std::function<void(HINTERNET)> configure) : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, as the contract in `transport.hpp` has it. A request that
    /// cannot be sent as it stands (a line break in a header, ...) is a `failure::other` and not sent. The
    /// message of a failure has WinHTTP's error code.
    transport_result send(const http_request& request) {
        const auto unsent = [](failure kind, const char* why) { return transport_failure{kind, why, false}; };
        if (const char* const why = detail::winhttp_unsendable(request))
            return unsent(failure::other, why);
        if (request.timeout <= std::chrono::milliseconds{0})
            return unsent(failure::timeout, "the request allows no time");
        if (!sessions_ || !sessions_->plain || !sessions_->secure)
            return unsent(failure::other, "WinHTTP cannot be opened");
        detail::winhttp_call call{*sessions_, request};
        transport_result outcome = transport_failure{};
        detail::guard_exceptions([&] { outcome = call.run(configure_); },
                                 [&](const char* what) {
                                     outcome = call.failed(failure::other, what);
                                     return true;
                                 });
        return outcome;
    }

    /// Ends all requests in flight with `failure::cancelled`; later ones are not affected. Does not wait for
    /// them. Any thread, but not while the transport is moved or destroyed.
    void cancel() noexcept {
        if (!sessions_)
            return;
        const std::lock_guard held{sessions_->signal->mutex};
        ++sessions_->signal->cancels;
        sessions_->signal->changed.notify_all();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
