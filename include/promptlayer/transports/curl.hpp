#ifndef PROMPTLAYER_TRANSPORTS_CURL_HPP
#define PROMPTLAYER_TRANSPORTS_CURL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/detail/curl_connections.hpp>
#include <promptlayer/transports/detail/http1.hpp>
#include <promptlayer/transports/detail/request_limits.hpp>

#include <curl/curl.h> // includes windows.h, so before its macros are set aside

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Calls `action`, which must not throw into C. Returns false if it throws.
template <class ActionT>
bool call_noexcept(ActionT&& action) {
    return guard_exceptions(
        [&] {
            action();
            return true;
        },
        [](const char*) { return false; });
}

constexpr failure curl_failure(CURLcode code) noexcept {
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

/// One request and its response. Refers to the connections and the request, which must outlive it.
class curl_exchange {
    static constexpr bool tells_begin = LIBCURL_VERSION_NUM >= 0x075000; // calls `before_request`
    static constexpr std::size_t max_header_bytes = 256 * 1024; // with informational responses and trailers

    curl_connections& connections_;
    curl_easy easy_; // null if there is none
    const http_request& request_;
    const bool secure_ = is_secure(request_);
    curl_parsed_url url_{};
    std::string lines_{};                 // of the headers, each with a NUL at its end
    std::vector<curl_slist> line_list_{}; // refers to `lines_`
    http_response response_{};
    std::optional<chunked_body> chunks_{};
    std::size_t header_bytes_ = 0;
    bool in_headers_ = false;            // between a status line and the empty line
    bool headers_done_ = false;          // the headers of the final response; trailers may follow
    bool over_limit_ = false;            // the body has one byte more than allowed
    bool may_have_chunks_ = false;       // the response is of HTTP/1.1
    bool begun_ = !tells_begin;          // libcurl had a connection for the request
    bool reusable_ = false;              // the handle can serve another request
    bool stale_ = false;                 // the pooled connection was stale, and the request was not sent
    const char* abort_reason_ = nullptr; // why this class stopped the transfer
    char message_[CURL_ERROR_SIZE]{};    // from libcurl

    long info(CURLINFO name) const noexcept {
        long value = 0;
        curl_easy_getinfo(easy_.get(), name, &value);
        return value;
    }
    static bool is_secure(const http_request& request) noexcept {
        return request.url.size() > 4 && ascii_lower(request.url[4]) == 's';
    }
    bool http_1() const noexcept { return info(CURLINFO_HTTP_VERSION) < CURL_HTTP_VERSION_2_0; }
    bool switches_protocol() const noexcept { return headers_done_ && response_.status == 101; }
    bool expects_body() const noexcept { return has_body(request_.method, response_.status); }

    bool stop(const char* reason) noexcept {
        abort_reason_ = reason;
        return false;
    }

    /// Reads a line of the headers. libcurl checks hardly any of its grammar.
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
            may_have_chunks_ = line.starts_with("HTTP/1.1");
            headers.clear(); // of an informational response
            headers.reserve(16);
            const bool maybe_http_2 = secure_ && !connections_.one_at_a_time;
            valid = valid && (is_status_line(line) || (maybe_http_2 && !line.starts_with("HTTP/1")));
        } else if (line.empty()) {
            in_headers_ = false;
            const int status = response_.status = static_cast<int>(info(CURLINFO_RESPONSE_CODE));
            headers_done_ = status >= 200 || status == 101;
            valid = valid && has_clear_framing(headers, status >= 200, may_have_chunks_);
            if (status == 417 && find_header(request_.headers, "Expect"))
                return stop("HTTP 417, after which libcurl would send the request again");
            if (expects_body() && find_header(headers, "Transfer-Encoding"))
                chunks_.emplace();
        } else if ((line[0] == ' ' || line[0] == '\t') && !headers.empty()) { // folded
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

    bool take_body(std::string_view part) {
        if (!headers_done_) // a header, because of CURLOPT_HEADER; `take_header` gets it next
            return !(in_headers_ && response_.headers.empty() &&
                     (part.starts_with(' ') || part.starts_with('\t')));
        const auto append = [this](std::string_view content) {
            over_limit_ = !append_body(response_.body, content, request_.max_response_bytes);
            return !over_limit_;
        };
        if (!chunks_)
            return append(part);
        chunks_->read(part, append);
        return chunks_->is_invalid() ? stop("the response has invalid chunks") : !over_limit_;
    }

    template <bool (curl_exchange::*TakeV)(std::string_view)>
    static std::size_t receive(char* data, std::size_t, std::size_t size, void* self) noexcept {
        auto& exchange = *static_cast<curl_exchange*>(self);
        bool taken = false;
        return call_noexcept([&] { taken = (exchange.*TakeV)({data, size}); }) && taken ? size : 0;
    }

    /// Called when there is a connection, before the request is sent.
    static int before_request(void* self, char*, char*, int, int local_port) noexcept {
        auto& exchange = *static_cast<curl_exchange*>(self);
        exchange.reusable_ = exchange.reusable_ && !exchange.begun_; // else libcurl adds up all attempts
        exchange.begun_ = true;
        exchange.stale_ =
            exchange.info(CURLINFO_NUM_CONNECTS) == 0 && exchange.connections_.is_stale(local_port);
        return exchange.stale_ ? 1 : 0; // 1 ends the transfer and the connection
    }

    /// Returns whether the connection ended within the TLS handshake.
    bool reset_in_handshake(CURLcode code) const {
        const long number = info(CURLINFO_OS_ERRNO); // may be of another address that was tried before
        const std::error_code error{static_cast<int>(number), std::system_category()};
        return code == CURLE_SSL_CONNECT_ERROR && error == std::errc::connection_reset;
    }

    /// Sets the options that are the same for all requests to URLs of a scheme.
    static CURLcode set_common_options(CURL* easy, const curl_connections& connections,
                                       bool secure) noexcept {
        CURLcode code = CURLE_OK;
        const auto set = [&](CURLoption option, auto value) {
            if (code == CURLE_OK)
                code = curl_easy_setopt(easy, option, value);
        };
#if LIBCURL_VERSION_NUM >= 0x075500
        set(CURLOPT_PROTOCOLS_STR, secure ? "https" : "http");
#else
        set(CURLOPT_PROTOCOLS, secure ? long{CURLPROTO_HTTPS} : long{CURLPROTO_HTTP});
#endif
        // A connection that is being made may turn out to be HTTP/2 and serve several requests. Without TLS
        // that is known only after the first response, which is too late.
        set(CURLOPT_PIPEWAIT, secure ? 1L : 0L);
        set(CURLOPT_FOLLOWLOCATION, 0L);
        set(CURLOPT_SSL_VERIFYPEER, 1L);
        set(CURLOPT_SSL_VERIFYHOST, 2L);
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_SHARE, connections.sessions);
        if (connections.one_at_a_time)
            set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
#if LIBCURL_VERSION_NUM >= 0x074b00 && LIBCURL_VERSION_NUM <= 0x074c01
        set(CURLOPT_SSL_SESSIONID_CACHE, 0L); // keeps a pointer to a freed handle (CVE-2021-22901)
#endif
        set(CURLOPT_HTTP_TRANSFER_DECODING, 0L); // libcurl accepts a bare LF as the end of a chunk
#if LIBCURL_VERSION_NUM >= 0x075700
        set(CURLOPT_QUICK_EXIT, 1L); // a timeout does not wait until the system's resolver returns
#endif
#if LIBCURL_VERSION_NUM >= 0x075000
        set(CURLOPT_PREREQFUNCTION, &before_request);
#endif
        set(CURLOPT_HEADERFUNCTION, &receive<&curl_exchange::take_header>);
        set(CURLOPT_WRITEFUNCTION, &receive<&curl_exchange::take_body>);
        // libcurl before 8.1 keeps a pointer to the last header of a response. If the first header of the
        // next is folded, it frees that header twice. With this option `take_body` gets a header first.
        static const bool frees_twice = curl_version_info(CURLVERSION_NOW)->version_num < 0x080100;
        set(CURLOPT_HEADER, frees_twice ? 1L : 0L);
        // No header goes to or comes from the proxy of an `https` URL. No proxy sees the API key of an `http`
        // URL. Results are ignored: a libcurl that is built without proxies does not know these options.
        curl_easy_setopt(easy, CURLOPT_HEADEROPT, long{CURLHEADER_SEPARATE});
        curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        if (!secure)
            curl_easy_setopt(easy, CURLOPT_PROXY, "");
        return code;
    }

    CURLcode prepare() {
        url_ = connections_.parse(request_.url);
        CURLcode code = url_ ? CURLE_OK : CURLE_URL_MALFORMAT;
        const auto set = [&](CURLoption option, auto value) {
            if (code == CURLE_OK)
                code = curl_easy_setopt(easy_.get(), option, value);
        };
        set(CURLOPT_ERRORBUFFER, message_);
        set(CURLOPT_URL, request_.url.c_str()); // else libcurl would put it together from `url_`
        set(CURLOPT_CURLU, url_.get());
        const long timeout = std::chrono::duration<long, std::milli>{clamp_timeout(request_.timeout)}.count();
        set(CURLOPT_TIMEOUT_MS, timeout);
        set(CURLOPT_CONNECTTIMEOUT_MS, timeout);
#if LIBCURL_VERSION_NUM >= 0x075000
        set(CURLOPT_PREREQDATA, this);
#endif
        set(CURLOPT_HEADERDATA, this);
        set(CURLOPT_WRITEDATA, this);
        if (request_.method == "HEAD")
            set(CURLOPT_NOBODY, 1L);
        else if (has_content_length(request_)) {
            set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
            set(CURLOPT_POSTFIELDS, request_.body.data());
        } else
            set(CURLOPT_HTTPGET, 1L);
        set(CURLOPT_CUSTOMREQUEST, request_.method == "POST" ? nullptr : request_.method.c_str());
        set(CURLOPT_HTTPHEADER, list_headers());
        return code;
    }

    /// Returns the headers of the request as libcurl takes them.
    curl_slist* list_headers() {
        constexpr std::string_view defaults[] = {"Accept", "Content-Type", "Expect"};
        std::size_t size = 64; // of `defaults`, and more
        for (const header& h : request_.headers)
            size += h.name.size() + h.value.size() + 3;
        lines_.reserve(size);
        line_list_.reserve(request_.headers.size() + std::size(defaults)); // so that no node moves
        const auto add = [&](std::string_view name, std::string_view separator, std::string_view value) {
            line_list_.push_back({lines_.data() + lines_.size(), nullptr});
            lines_.append(name).append(separator).append(value).push_back('\0');
            if (line_list_.size() > 1)
                line_list_[line_list_.size() - 2].next = &line_list_.back();
        };
        for (const header& h : request_.headers) { // libcurl omits "Name:" and sends "Name:" for "Name;"
            const bool empty = h.value.find_first_not_of(" \t") == h.value.npos;
            add(h.name, empty ? ";" : ": ", empty ? std::string_view{} : h.value);
        }
        for (const std::string_view name : defaults) {
            const bool may_be_added = name != "Expect" || request_.body.size() > 1024; // by any libcurl
            if (may_be_added && !find_header(request_.headers, name))
                add(name, ":", ""); // keeps libcurl from adding its own
        }
        return line_list_.data();
    }

    /// Keeps the handle for another request.
    void give_back() {
        auto& idle = connections_.idle_handles[secure_];
        if (!reusable_ || idle.size() >= connections_.max_idle_handles)
            return;
        curl_multi_remove_handle(connections_.multi, easy_.get());
        curl_easy_setopt(easy_.get(), CURLOPT_ERRORBUFFER, nullptr);
        curl_easy_setopt(easy_.get(), CURLOPT_HTTPHEADER, nullptr);
        idle.push_back(std::move(easy_));
    }

    /// Notes the socket of a new connection that can be used again.
    void note_connection() {
        if (info(CURLINFO_NUM_CONNECTS) == 0)
            return;
        reusable_ = false; // an error of an address that was tried would stay in the handle
        curl_socket_t socket = CURL_SOCKET_BAD;
        if (http_1())
            curl_easy_getinfo(easy_.get(), CURLINFO_ACTIVESOCKET, &socket);
        connections_.pool(info(CURLINFO_LOCAL_PORT), socket);
    }

public:
    /// Returns a handle for one request, or null.
    static curl_easy take_handle(curl_connections& connections, const http_request& request) noexcept {
        const bool secure = is_secure(request);
        if (auto& idle = connections.idle_handles[secure]; !idle.empty()) {
            curl_easy handle = std::move(idle.back());
            idle.pop_back();
            return handle;
        }
        curl_easy handle{connections.multi ? curl_easy_init() : nullptr};
        if (handle && set_common_options(handle.get(), connections, secure) != CURLE_OK)
            handle.reset();
        return handle;
    }

    curl_exchange(curl_connections& connections, curl_easy handle, const http_request& request)
        : connections_(connections), easy_(std::move(handle)), request_(request) {}
    curl_exchange(const curl_exchange&) = delete;
    curl_exchange& operator=(const curl_exchange&) = delete;

    ~curl_exchange() {
        curl_multi_remove_handle(connections_.multi, easy_.get());
        easy_.reset(); // refers to the other members
    }

    /// Passes the request to libcurl. Returns why it is not sent; nullopt if it is on its way.
    std::optional<transport_failure> start(const std::function<void(CURL*)>& configure) {
        if (auto error = request_error(request_, connections_.last_url))
            return error;
        if (!easy_)
            return not_sent(failure::other, "libcurl cannot be initialised");
        if (const CURLcode code = prepare(); code != CURLE_OK)
            return not_sent(curl_failure(code), curl_easy_strerror(code));
        reusable_ = tells_begin && !configure && request_.method != "HEAD";
        if (configure && !call_noexcept([&] { configure(easy_.get()); }))
            return not_sent(failure::other, "the function that configures the transport threw");
        if (const CURLMcode code = curl_multi_add_handle(connections_.multi, easy_.get()); code != CURLM_OK)
            return not_sent(failure::other, curl_multi_strerror(code));
        return std::nullopt;
    }

    /// Starts the request again if the pooled connection was stale. Returns whether it did.
    bool restart_if_stale() noexcept {
        if (!std::exchange(stale_, false))
            return false;
        *message_ = '\0';
        return curl_multi_remove_handle(connections_.multi, easy_.get()) == CURLM_OK &&
               curl_multi_add_handle(connections_.multi, easy_.get()) == CURLM_OK;
    }

    /// Returns the failure. A reset before the request was sent, by a proxy for example, is a
    /// `failure::connect`.
    transport_failure failed(failure kind, std::string message) const {
        const long bytes_sent = info(CURLINFO_REQUEST_SIZE); // old versions include bytes to a proxy
        curl_off_t start_time = 0;                           // new versions always set it at the end
        curl_easy_getinfo(easy_.get(), CURLINFO_PRETRANSFER_TIME_T, &start_time);
        // Both may be of an earlier request on this handle, if this one has not begun.
        const bool maybe_delivered = begun_ && bytes_sent != 0 && start_time != 0;
        if (kind == failure::reset && !maybe_delivered)
            kind = failure::connect;
        return {kind, std::move(message), maybe_delivered};
    }

    /// Closes the connection if bytes arrived that no request asked for. The TLS library may hold them, where
    /// a look at the socket does not find them. Call it only while no other request can use the connection.
    void drop_if_unasked() noexcept {
        char byte = 0;
        std::size_t count = 0;
        curl_easy_setopt(easy_.get(), CURLOPT_CONNECT_ONLY, 1L); // which curl_easy_recv needs
        if (curl_easy_recv(easy_.get(), &byte, 1, &count) == CURLE_AGAIN)
            curl_easy_setopt(easy_.get(), CURLOPT_CONNECT_ONLY, 0L);
        else
            reusable_ = false; // the connection is closed with the handle
    }

    /// Returns the outcome of a transfer that libcurl has ended.
    transport_result outcome(CURLcode code) {
        note_connection();
        if (code != CURLE_OK && abort_reason_)
            return failed(failure::other, abort_reason_);
        if (code != CURLE_OK && !over_limit_ && !switches_protocol())
            return failed(reset_in_handshake(code) ? failure::reset : curl_failure(code),
                          *message_ ? message_ : curl_easy_strerror(code));
        if (!headers_done_)
            return failed(failure::reset, "the connection ended within the headers");
        if (chunks_ && !chunks_->is_complete() && !over_limit_)
            return failed(failure::reset, "the connection ended within the chunks");
        if (code == CURLE_OK && secure_ && http_1() && expects_body() &&
            is_close_delimited(response_.headers))
            return failed(failure::reset, "over https a body without a length may have been cut");
        if (code == CURLE_OK && secure_ && connections_.one_at_a_time)
            drop_if_unasked();
        if (code == CURLE_OK)
            give_back();
        return std::move(response_);
    }
};

} // namespace detail

/// A `Transport` over libcurl (7.68 or later). Keeps its connections for further requests.
///
/// - Sends to `http` and `https` URLs. Follows no redirect, and uses neither cookies nor `.netrc`. Verifies
///   peer and host of `https`. `https` uses the proxy that the environment names (`https_proxy`), `http` uses
///   none.
/// - Reads `max_response_bytes` + 1 of a body and 256 KiB of headers. Does not return trailers.
/// - An HTTP/1.x response that breaks the grammar of RFC 9112, or does not say clearly where its body ends,
///   is a `failure::other`.
/// - Accepts a few errors that do not move the end of the body, which Beast rejects: a status line that ends
///   with the status, spaces after the size of a chunk, any extension of a chunk, a `Connection` that is not
///   a list, a folded header of more than 4 KiB.
/// - Rejects a few responses that libcurl misreads or rejects, which Beast accepts: a folded `Content-Length`
///   or `Transfer-Encoding`, a folded trailer or one of 4 KiB, a size of a chunk with more than 16 digits.
/// - libcurl 7.88 ignores the rest of the bytes that it has just read if a header line begins with NUL.
/// - HTTP/1.x only. A 417 to a request with `Expect` is a `failure::other`.
/// - If the server has closed a kept connection without a byte of a response, libcurl sends the request again
///   on a new one. The service may have received it twice. A connection on which bytes arrived that no
///   request asked for is not used again. With libcurl before 7.80 they may become the next response.
/// - A body over `https` and HTTP/1.x that has neither a length nor chunks is a `failure::reset`, because
///   libcurl does not always tell its end from a cut.
/// - `timeout` is at most 24 days; 0 or less fails at once.
///
/// One request at a time, so each thread needs a transport of its own; only `cancel` may be called from any
/// thread. Movable between requests. libcurl may start a thread for a DNS lookup. Signals are left alone: if
/// the TLS library may raise SIGPIPE, the program must ignore it. The first transport calls
/// `curl_global_init`. With libcurl before 7.84 that must happen before other threads start.
class curl_transport {
    std::unique_ptr<detail::curl_connections> connections_ = std::make_unique<detail::curl_connections>(true);
    std::function<void(CURL*)> configure_{};

public:
    curl_transport() = default;

    /// `configure` is called for every request on the thread of `send`, with a new handle that has the
    /// options of this class. It can set a proxy, a CA file and so on. It must not change URL, method,
    /// headers, body, codings and callbacks, and must not call the transport. Without it, handles are used
    /// again, which saves a microsecond.
    explicit curl_transport(std::function<void(CURL*)> configure) : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, by the contract in `transport.hpp`. A request that cannot
    /// be sent unchanged (a line break in a header, ...) is a `failure::other` and not sent. The message of a
    /// failure is from libcurl.
    transport_result send(const http_request& request) {
        if (!connections_)
            return detail::not_sent(failure::other, "the transport was moved from");
        detail::curl_exchange exchange{*connections_,
                                       detail::curl_exchange::take_handle(*connections_, request), request};
        connections_->cancelled = false;
        if (auto error = exchange.start(configure_))
            return *std::move(error);
        int count = 0;
        CURLMcode code = CURLM_OK;
        while (code == CURLM_OK) {
            code = curl_multi_perform(connections_->multi, &count);
            if (const CURLMsg* const done = curl_multi_info_read(connections_->multi, &count)) {
                const CURLcode result = done->data.result; // `done` ends with the transfer
                if (!exchange.restart_if_stale())
                    return exchange.outcome(result);
            } else if (connections_->cancelled)
                return exchange.failed(failure::cancelled, "cancelled");
            else if (code == CURLM_OK)
                code = curl_multi_poll(connections_->multi, nullptr, 0, 60'000, nullptr); // or data, cancel()
        }
        return exchange.failed(failure::other, curl_multi_strerror(code));
    }

    /// Ends the request in flight, if any, with `failure::cancelled`. Later requests are not affected. Does
    /// not wait. May be called from any thread, except while the transport is moved or destroyed.
    void cancel() noexcept {
        if (connections_)
            connections_->cancel();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
