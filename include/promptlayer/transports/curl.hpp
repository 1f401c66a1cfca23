#ifndef PROMPTLAYER_TRANSPORTS_CURL_HPP
#define PROMPTLAYER_TRANSPORTS_CURL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/http1.hpp>

#include <curl/curl.h> // before the macros are set aside that windows.h defines, which it includes

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Runs what must not throw into C; whether it ran to its end.
template <class ActionT>
bool call_noexcept(ActionT&& action) {
    bool whole = true;
    guard_exceptions(action, [&](const char*) {
        whole = false;
        return true;
    });
    return whole;
}

constexpr failure failure_of(CURLcode code) noexcept {
    const auto is = [=](auto... codes) { return ((code == static_cast<CURLcode>(codes)) || ...); };
    constexpr int proxy_handshake = 97, client_certificate_needed = 98, ech_needed = 101; // newer than 7.68
    if (is(CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_RESOLVE_HOST))
        return failure::resolve;
    if (is(CURLE_COULDNT_CONNECT, proxy_handshake))
        return failure::connect;
    if (is(CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_USE_SSL_FAILED,
           CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_CRL_BADFILE,
           CURLE_SSL_ISSUER_ERROR, CURLE_SSL_ENGINE_NOTFOUND, CURLE_SSL_ENGINE_SETFAILED,
           CURLE_SSL_ENGINE_INITFAILED, CURLE_SSL_SHUTDOWN_FAILED, CURLE_SSL_PINNEDPUBKEYNOTMATCH,
           CURLE_SSL_INVALIDCERTSTATUS, client_certificate_needed, ech_needed))
        return failure::tls;
    if (is(CURLE_OPERATION_TIMEDOUT))
        return failure::timeout;
    if (is(CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_GOT_NOTHING, CURLE_PARTIAL_FILE, CURLE_HTTP2,
           CURLE_HTTP2_STREAM))
        return failure::reset;
    return failure::other;
}

struct curl_easy_deleter {
    void operator()(CURL* easy) const noexcept { curl_easy_cleanup(easy); }
};
using curl_easy = std::unique_ptr<CURL, curl_easy_deleter>;

/// Runs requests, and keeps their connections and TLS sessions for later ones. Must outlive their handles.
struct curl_connections {
    CURLM* multi = nullptr;               // null if libcurl cannot be initialised
    CURLM* probe = nullptr;               // has no handles; looks at a socket while `multi` is at work
    CURLSH* sessions = nullptr;           // of TLS, which each handle would else keep for itself
    const bool one_at_a_time;             // no other request is under way, and all are HTTP/1.x
    std::map<long, curl_socket_t> kept{}; // of HTTP/1.x, by local port; some are closed
    std::atomic<bool> cancelled{false};

    explicit curl_connections(bool single) noexcept : one_at_a_time(single) {
        static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
        if (initialised == CURLE_OK) {
            multi = curl_multi_init();
            probe = curl_multi_init();
            sessions = curl_share_init();
            curl_share_setopt(sessions, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
        }
    }
    curl_connections(const curl_connections&) = delete;
    curl_connections& operator=(const curl_connections&) = delete;
    ~curl_connections() {
        curl_multi_cleanup(multi);
        curl_multi_cleanup(probe);
        curl_share_cleanup(sessions);
    }

    /// Returns a new handle, null if there is none. None is used for a second request: libcurl before 8.1
    /// keeps a pointer to the last header of the first and frees it again.
    curl_easy handle() const noexcept { return curl_easy{multi ? curl_easy_init() : nullptr}; }

    /// Returns whether the server has said something unasked on a kept connection, or closed it.
    bool stale(int local_port) const noexcept {
        const auto found = kept.find(local_port);
        if (found == kept.end())
            return false;
        curl_waitfd socket{found->second, CURL_WAIT_POLLIN, 0};
        int count = 0;
        return curl_multi_wait(probe, &socket, 1, 0, &count) == CURLM_OK && count != 0;
    }

    /// Any thread. Wakes `curl_multi_poll`.
    void cancel() noexcept {
        cancelled = true;
        curl_multi_wakeup(multi);
    }
};

/// One request on its way and what has come back of it. Refers to all that it is made of.
class curl_exchange {
    static constexpr std::size_t max_header_bytes = 256 * 1024; // with interim answers and trailers

    curl_connections& connections_;
    CURL* const easy_; // null if there is none
    const http_request& request_;
    curl_slist* lines_ = nullptr;
    http_response response_{};
    std::optional<chunked_body> chunks_{};
    std::size_t header_bytes_ = 0;
    bool in_headers_ = false;            // between a status line and the empty line
    bool headers_done_ = false;          // those of the final answer; what follows are trailers
    bool over_limit_ = false;            // the body is, and one byte more than allowed is held
    bool has_chunks_ = false;            // the version of HTTP has
    bool stale_ = false;                 // the kept connection was, and the request was not sent
    const char* abort_reason_ = nullptr; // why the transfer was stopped here
    char detail_[CURL_ERROR_SIZE]{};     // libcurl's words

    long info(CURLINFO which) const noexcept {
        long value = 0;
        curl_easy_getinfo(easy_, which, &value);
        return value;
    }
    long status() const noexcept { return info(CURLINFO_RESPONSE_CODE); }
    bool secure() const noexcept { return ascii_lower(request_.url[4]) == 's'; }
    bool http_1() const noexcept { return info(CURLINFO_HTTP_VERSION) < CURL_HTTP_VERSION_2_0; }
    bool switches_protocol() const noexcept { return headers_done_ && status() == 101; }

    bool has(std::string_view name) const noexcept { return find_header(response_.headers, name) != nullptr; }
    bool has_body() const noexcept { return status() != 204 && status() != 304 && request_.method != "HEAD"; }

    /// Whether the body goes until the connection ends, which over TLS libcurl does not tell from a cut.
    bool is_close_delimited() const {
        return secure() && http_1() && has_body() && !has("Content-Length") && !has("Transfer-Encoding");
    }

    bool stop(const char* why) noexcept {
        abort_reason_ = why;
        return false;
    }

    /// Takes a line of the headers, of which libcurl checks next to nothing.
    bool take_header(std::string_view line) {
        if (line.size() > max_header_bytes - header_bytes_)
            return stop("the headers of the response exceed 256 KiB");
        header_bytes_ += line.size();
        if (headers_done_) // trailers, or libcurl has sent the request again
            return line.starts_with("HTTP/") ? stop("there is a second response") : true;
        auto& headers = response_.headers;
        bool valid = line.ends_with("\r\n");
        line.remove_suffix(valid ? 2 : 0);
        if (!in_headers_) {
            in_headers_ = true;
            has_chunks_ = line.starts_with("HTTP/1.1");
            headers.clear(); // those of an informational response
            const bool maybe_http_2 = secure() && !connections_.one_at_a_time;
            valid = valid && (is_status_line(line) || (maybe_http_2 && !line.starts_with("HTTP/1")));
        } else if (line.empty()) {
            in_headers_ = false;
            headers_done_ = status() >= 200 || status() == 101;
            valid = valid && framing_is_clear(headers, status() >= 200, has_chunks_);
            if (status() == 417 && find_header(request_.headers, "Expect"))
                return stop("HTTP 417, after which libcurl would send the request again");
            if (has("Transfer-Encoding") && has_body())
                chunks_.emplace();
        } else if ((line[0] == ' ' || line[0] == '\t') && !headers.empty()) { // goes on with the line before
            valid = valid && is_field_text(line);
            headers.back().value.append(" ").append(trim(line));
        } else if (valid = valid && is_field_line(line); valid) {
            const std::size_t colon = line.find(':');
            headers.push_back(
                {std::string{line.substr(0, colon)}, std::string{trim(line.substr(colon + 1))}});
        }
        // After a 101 libcurl would wait for another response.
        return valid ? !switches_protocol() : stop("the headers of the response are invalid");
    }

    bool take_content(std::string_view part) {
        const std::size_t room = request_.max_response_bytes - response_.body.size();
        response_.body.append(part.substr(0, room));
        if (part.size() > room) {
            response_.body.push_back(part[room]);
            over_limit_ = true;
        }
        return !over_limit_;
    }

    bool take_body(std::string_view part) {
        if (!chunks_)
            return take_content(part);
        chunks_->take(part, [this](std::string_view content) { return take_content(content); });
        return chunks_->broken() ? stop("the response has invalid chunks") : !over_limit_;
    }

    template <bool (curl_exchange::*TakeV)(std::string_view)>
    static std::size_t receive(char* data, std::size_t, std::size_t size, void* self) noexcept {
        auto& exchange = *static_cast<curl_exchange*>(self);
        bool taken = false;
        return call_noexcept([&] { taken = (exchange.*TakeV)({data, size}); }) && taken ? size : 0;
    }

    /// Called when there is a connection, before the request goes out.
    static int before_request(void* self, char*, char*, int, int local_port) noexcept {
        auto& exchange = *static_cast<curl_exchange*>(self);
        exchange.stale_ =
            exchange.info(CURLINFO_NUM_CONNECTS) == 0 && exchange.connections_.stale(local_port);
        return exchange.stale_ ? 1 : 0; // one ends the transfer, and with it the connection
    }

    /// Whether the peer went away within the TLS handshake, rather than refused it.
    bool reset_in_handshake(CURLcode code) const {
        const long error = info(CURLINFO_OS_ERRNO); // or of another address tried before: refused, ...
        const std::error_code why{static_cast<int>(error), std::system_category()};
        return code == CURLE_SSL_CONNECT_ERROR && why == std::errc::connection_reset;
    }

    CURLcode prepare() {
        CURLcode code = CURLE_OK;
        const auto set = [&](CURLoption option, auto value) {
            if (code == CURLE_OK)
                code = curl_easy_setopt(easy_, option, value);
        };
        set(CURLOPT_ERRORBUFFER, detail_);
        set(CURLOPT_URL, request_.url.c_str());
        set(CURLOPT_PATH_AS_IS, 1L);
        set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L); // it would become an Authorization
#if LIBCURL_VERSION_NUM >= 0x075500
        set(CURLOPT_PROTOCOLS_STR, secure() ? "https" : "http");
#else
        set(CURLOPT_PROTOCOLS, secure() ? long{CURLPROTO_HTTPS} : long{CURLPROTO_HTTP});
#endif
        set(CURLOPT_FOLLOWLOCATION, 0L);
        set(CURLOPT_SSL_VERIFYPEER, 1L);
        set(CURLOPT_SSL_VERIFYHOST, 2L);
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_SHARE, connections_.sessions);
        if (connections_.one_at_a_time)
            set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
#if LIBCURL_VERSION_NUM >= 0x074b00 && LIBCURL_VERSION_NUM <= 0x074c01
        set(CURLOPT_SSL_SESSIONID_CACHE,
            0L); // these keep a pointer to a handle that is gone (CVE-2021-22901)
#endif
        set(CURLOPT_HTTP_TRANSFER_DECODING, 0L); // libcurl takes a bare LF for the end of a chunk
        // A connection under way may turn out to be HTTP/2 and do for several requests; without TLS that is
        // not known before the first answer, too long to wait.
        set(CURLOPT_PIPEWAIT, secure() ? 1L : 0L);
        const std::chrono::milliseconds longest{std::numeric_limits<int>::max()}; // libcurl's own limit
        const long timeout =
            std::chrono::duration<long, std::milli>{std::min(request_.timeout, longest)}.count();
        set(CURLOPT_TIMEOUT_MS, timeout);
        set(CURLOPT_CONNECTTIMEOUT_MS, timeout);
#if LIBCURL_VERSION_NUM >= 0x075700
        set(CURLOPT_QUICK_EXIT, 1L); // giving up does not wait until the system's resolver returns
#endif
#if LIBCURL_VERSION_NUM >= 0x075000
        set(CURLOPT_PREREQFUNCTION, &before_request);
        set(CURLOPT_PREREQDATA, this);
#endif
        set(CURLOPT_HEADERFUNCTION, &receive<&curl_exchange::take_header>);
        set(CURLOPT_HEADERDATA, this);
        set(CURLOPT_WRITEFUNCTION, &receive<&curl_exchange::take_body>);
        set(CURLOPT_WRITEDATA, this);
        const std::string& method = request_.method;
        if (method == "HEAD")
            set(CURLOPT_NOBODY, 1L);
        else if (!request_.body.empty() || method == "POST" || method == "PUT" || method == "PATCH") {
            set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
            set(CURLOPT_POSTFIELDS, request_.body.data());
        }
        set(CURLOPT_CUSTOMREQUEST, method.c_str());
        const auto add = [&](const std::string& line) {
            curl_slist* const longer = curl_slist_append(lines_, line.c_str());
            code = longer ? code : CURLE_OUT_OF_MEMORY;
            lines_ = longer ? longer : lines_;
        };
        for (const header& h : request_.headers) // libcurl sends nothing for "Name:", and "Name:" for "Name;"
            add(trim(h.value).empty() ? h.name + ";" : h.name + ": " + h.value);
        for (const char* const name : {"Accept", "Content-Type", "Expect"}) {
            if (!find_header(request_.headers, name))
                add(std::string{name} + ":"); // not libcurl's own either
        }
        set(CURLOPT_HTTPHEADER, lines_);
        // No header goes to or comes from the proxy of an https, and none sees a plain http with its API key.
        // Not checked: a libcurl that is built without proxies does not know these.
        curl_easy_setopt(easy_, CURLOPT_HEADEROPT, long{CURLHEADER_SEPARATE});
        curl_easy_setopt(easy_, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        if (!secure())
            curl_easy_setopt(easy_, CURLOPT_PROXY, "");
        return code;
    }

public:
    curl_exchange(curl_connections& connections, curl_easy handle, const http_request& request)
        : connections_(connections), easy_(handle.release()), request_(request) {}
    curl_exchange(const curl_exchange&) = delete;
    curl_exchange& operator=(const curl_exchange&) = delete;

    ~curl_exchange() {
        curl_multi_remove_handle(connections_.multi, easy_);
        curl_easy_cleanup(easy_);
        curl_slist_free_all(lines_);
    }

    /// Gives the request to libcurl, which has it until this is destroyed; or why it cannot be sent.
    std::optional<transport_failure> start(const std::function<void(CURL*)>& configure) {
        const auto unsent = [](failure kind, const char* why) { return transport_failure{kind, why, false}; };
        if (const char* const why = invalid_reason(request_))
            return unsent(failure::other, why);
        if (request_.timeout <= std::chrono::milliseconds{0})
            return unsent(failure::timeout, "the request allows no time");
        if (!easy_)
            return unsent(failure::other, "libcurl cannot be initialised");
        if (const CURLcode code = prepare(); code != CURLE_OK)
            return unsent(failure_of(code), curl_easy_strerror(code));
        if (configure && !call_noexcept([&] { configure(easy_); }))
            return unsent(failure::other, "the function that configures the transport threw");
        if (const CURLMcode code = curl_multi_add_handle(connections_.multi, easy_); code != CURLM_OK)
            return unsent(failure::other, curl_multi_strerror(code));
        return std::nullopt;
    }

    /// Starts the request again if the kept connection was stale. Returns whether it did.
    bool again() noexcept {
        if (!std::exchange(stale_, false))
            return false;
        *detail_ = '\0';
        return curl_multi_remove_handle(connections_.multi, easy_) == CURLM_OK &&
               curl_multi_add_handle(connections_.multi, easy_) == CURLM_OK;
    }

    /// A reset before the request was sent, as by a proxy, means that there was no connection.
    transport_failure failed(failure kind, std::string message) const {
        const long sent = info(CURLINFO_REQUEST_SIZE); // old versions count what was said to a proxy, too
        curl_off_t begun = 0;                          // new versions set it at the end whatever happened
        curl_easy_getinfo(easy_, CURLINFO_PRETRANSFER_TIME_T, &begun);
        const bool maybe_delivered = sent != 0 && begun != 0;
        if (kind == failure::reset && !maybe_delivered)
            kind = failure::connect;
        return {kind, std::move(message), maybe_delivered};
    }

    /// Closes the connection if the server has said more than was asked for. The TLS library may hold it,
    /// where no look at the socket finds it. Only while no other request can have taken the connection.
    void drop_if_unasked() noexcept {
        char byte = 0;
        std::size_t count = 0;
        curl_easy_setopt(easy_, CURLOPT_CONNECT_ONLY, 1L); // which curl_easy_recv needs
        if (curl_easy_recv(easy_, &byte, 1, &count) == CURLE_AGAIN)
            curl_easy_setopt(easy_, CURLOPT_CONNECT_ONLY, 0L); // else it is closed with the handle
    }

    /// What the request came to when libcurl was done with it.
    transport_result outcome(CURLcode code) {
        if (code != CURLE_OK && abort_reason_)
            return failed(failure::other, abort_reason_);
        if (code != CURLE_OK && !over_limit_ && !switches_protocol())
            return failed(reset_in_handshake(code) ? failure::reset : failure_of(code),
                          *detail_ ? detail_ : curl_easy_strerror(code));
        if (!headers_done_)
            return failed(failure::reset, "the connection ended within the headers");
        if (chunks_ && !chunks_->whole() && !over_limit_)
            return failed(failure::reset, "the connection ended within the chunks");
        if (code == CURLE_OK && is_close_delimited())
            return failed(failure::reset, "over https a body without a length may have been cut");
        if (code == CURLE_OK && secure() && connections_.one_at_a_time)
            drop_if_unasked();
        curl_socket_t socket = CURL_SOCKET_BAD;
        if (http_1())
            curl_easy_getinfo(easy_, CURLINFO_ACTIVESOCKET, &socket);
        if (const long port = info(CURLINFO_LOCAL_PORT); socket != CURL_SOCKET_BAD)
            connections_.kept.insert_or_assign(port, socket);
        else
            connections_.kept.erase(port);
        response_.status = static_cast<int>(status());
        return std::move(response_);
    }
};

} // namespace detail

/// A `Transport` over libcurl (7.68 or later), with connections kept alive from one request to the next.
///
/// - `http` and `https` only; no redirects, no cookies, no `.netrc`. Peer and host of `https` are verified.
///   `https` goes through the proxy that the environment names (`https_proxy`), `http` through none.
/// - Of a body it reads `max_response_bytes` + 1, of headers 256 KiB. Trailers are not returned.
/// - An HTTP/1.x response that breaks the grammar of RFC 9112, or leaves open where its body ends, is a
///   `failure::other`.
/// - It accepts what does not move the end of the body, which Beast refuses: a status line that ends with the
///   status, spaces after the size of a chunk, any extension of a chunk, a `Connection` that is no list, a
///   folded header of more than 4 KiB.
/// - It refuses what libcurl misses or refuses, which Beast accepts: a folded `Content-Length` or
///   `Transfer-Encoding`, a folded trailer or one of 4 KiB, a size of a chunk with more than 16 digits.
/// - libcurl 7.88 ignores the rest of what it has just read if a header line begins with NUL.
/// - HTTP/1.x only. A 417 to a request with `Expect` is a `failure::other`.
/// - Where the server has closed a kept connection, libcurl sends the request again on a new one; only if
///   nothing had come back on the old one, yet the service may have read it there. One on which the server
///   said something unasked is not used; with a libcurl before 7.80 that may become the next answer.
/// - A body without a length and without chunks, over `https` and HTTP/1.x, is a `failure::reset`: libcurl
///   does not always tell its end from a cut.
/// - `timeout` is at most 24 days; one of 0 or less fails at once.
///
/// One request at a time, so one transport for each thread; `cancel` alone may be called from any. Movable
/// between requests. libcurl may start a thread to look a host up. Signals are left alone: where the TLS
/// library may raise SIGPIPE, the program ignores it. The first transport calls `curl_global_init`; with a
/// libcurl before 7.84 that is to happen before other threads start.
class curl_transport {
    std::unique_ptr<detail::curl_connections> connections_ = std::make_unique<detail::curl_connections>(true);
    std::function<void(CURL*)> configure_{};

public:
    curl_transport() = default;

    /// `configure` is called for every request, on the thread of `send`, after the options of this class: for
    /// a proxy, a CA file, ... It leaves URL, method, headers, body, codings and callbacks alone, and does
    /// not call the transport.
    explicit curl_transport(std::function<void(CURL*)> configure) : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, as the contract in `transport.hpp` has it. A request that
    /// cannot be sent as it stands (a line break in a header, ...) is a `failure::other` and not sent. The
    /// message of a failure is libcurl's.
    transport_result send(const http_request& request) {
        if (!connections_)
            return transport_failure{failure::other, "the transport was moved from", false};
        detail::curl_exchange exchange{*connections_, connections_->handle(), request};
        connections_->cancelled = false;
        if (auto unsent = exchange.start(configure_))
            return *std::move(unsent);
        int count = 0;
        CURLMcode code = CURLM_OK;
        while (code == CURLM_OK) {
            code = curl_multi_perform(connections_->multi, &count);
            if (const CURLMsg* const done = curl_multi_info_read(connections_->multi, &count)) {
                const CURLcode result = done->data.result; // `done` goes with the transfer
                if (!exchange.again())
                    return exchange.outcome(result);
            } else if (connections_->cancelled)
                return exchange.failed(failure::cancelled, "cancelled");
            else if (code == CURLM_OK)
                code = curl_multi_poll(connections_->multi, nullptr, 0, 60'000, nullptr); // or data, cancel()
        }
        return exchange.failed(failure::other, curl_multi_strerror(code));
    }

    /// Ends the request in flight, if there is one, with `failure::cancelled`; later ones are not affected.
    /// Does not wait for it. Any thread, but not while the transport is moved or destroyed.
    void cancel() noexcept {
        if (connections_)
            connections_->cancel();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
