#ifndef PROMPTLAYER_TRANSPORTS_CURL_HPP
#define PROMPTLAYER_TRANSPORTS_CURL_HPP

#include <promptlayer/transport.hpp>

#include <curl/curl.h> // before the macros are set aside that windows.h defines, which it includes

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline v0 {

namespace detail {

/// Runs what must not throw into C; whether it ran to its end.
template <class Action>
bool ran_to_end(Action&& action) {
    bool whole = true;
    catching(action, [&](const char*) {
        whole = false;
        return true;
    });
    return whole;
}

/// Why a request cannot be sent as it stands, where libcurl would leave out a part or send more; else null.
inline const char* unsendable(const http_request& request) noexcept {
    const auto visible = [](std::string_view text, std::string_view but_for) {
        const auto fits = [&](char c) { return c > ' ' && c <= '~' && but_for.find(c) == but_for.npos; };
        return !text.empty() && std::all_of(text.begin(), text.end(), fits);
    };
    const std::string_view url = request.url;
    if (!visible(url, "") || (!equal_ignoring_case(url.substr(0, 8), "https://") &&
                              !equal_ignoring_case(url.substr(0, 7), "http://")))
        return "the URL is not one of visible ASCII that begins with https:// or http://";
    if (!visible(request.method, ":/"))
        return "the method holds a character that HTTP does not allow there";
    if (request.method == "HEAD" && !request.body.empty())
        return "HEAD cannot have a body";
    if (url.find('#') != url.npos)
        return "the URL holds a fragment, which is never sent";
    std::size_t hosts = 0;
    for (const header& h : request.headers) {
        const auto control = [](char c) {
            return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == '\x7F';
        };
        if (!visible(h.name, ":;") || std::any_of(h.value.begin(), h.value.end(), control))
            return "a header holds a character that HTTP does not allow there";
        if (equal_ignoring_case(h.name, "Content-Length") || equal_ignoring_case(h.name, "Transfer-Encoding"))
            return "the length of the body is for the transport to tell, not for a header";
        if (equal_ignoring_case(h.name, "Host") && ++hosts > 1)
            return "there is more than one Host";
    }
    return nullptr;
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

/// The handles of a transport, null where libcurl has none; they keep connections between requests.
struct curl_handles {
    CURLM* multi = nullptr;
    CURL* easy = nullptr;
    std::atomic<bool> cancelled{false}; // means the request in flight: a new one begins with false

    curl_handles() noexcept {
        static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
        if (initialised == CURLE_OK && (multi = curl_multi_init()) != nullptr)
            easy = curl_easy_init();
    }
    ~curl_handles() {
        curl_easy_cleanup(easy);
        curl_multi_cleanup(multi);
    }
};

/// One request on its way and what has come back of it.
class curl_exchange {
    static constexpr std::size_t max_header_bytes = 256 * 1024; // with interim answers and trailers

    curl_handles& handles_;
    const http_request& request_;
    curl_slist* lines_ = nullptr;
    http_response response_{};
    std::size_t header_bytes_ = 0;
    bool in_headers_ = false;        // between a status line and the empty line
    bool headers_done_ = false;      // those of the final answer; what follows are trailers
    bool too_long_ = false;          // the body is, and one byte more than allowed is held
    const char* stopped_ = nullptr;  // why the transfer was stopped here
    char detail_[CURL_ERROR_SIZE]{}; // libcurl's words

    long status() const noexcept {
        long code = 0;
        curl_easy_getinfo(handles_.easy, CURLINFO_RESPONSE_CODE, &code);
        return code;
    }

    bool take_header(std::string_view line) {
        if (line.size() > max_header_bytes - header_bytes_) {
            stopped_ = "the headers of the answer exceed 256 KiB";
            return false;
        }
        header_bytes_ += line.size();
        line = line.substr(0, line.find_last_not_of("\r\n") + 1);
        auto& headers = response_.headers;
        if (headers_done_)
            return true;
        if (!in_headers_) {
            in_headers_ = line.starts_with("HTTP/");
            headers.clear(); // those of an interim answer
        } else if (line.empty()) {
            in_headers_ = false;
            headers_done_ = status() >= 200;
        } else if (line[0] == ' ' || line[0] == '\t') { // goes on with the line before
            if (!headers.empty())
                headers.back().value.append(" ").append(trimmed(line));
        } else if (const std::size_t colon = line.find(':'); colon != line.npos) {
            headers.push_back(
                {std::string{line.substr(0, colon)}, std::string{trimmed(line.substr(colon + 1))}});
        }
        return true;
    }

    bool take_body(std::string_view part) {
        const std::size_t room = request_.max_response_bytes - response_.body.size();
        response_.body.append(part.substr(0, room));
        if (part.size() > room) {
            response_.body.push_back(part[room]);
            too_long_ = true;
        }
        return !too_long_;
    }

    template <bool (curl_exchange::*Take)(std::string_view)>
    static std::size_t receive(char* data, std::size_t, std::size_t size, void* self) noexcept {
        auto& exchange = *static_cast<curl_exchange*>(self);
        bool taken = false;
        return ran_to_end([&] { taken = (exchange.*Take)({data, size}); }) && taken ? size : 0;
    }

    /// A reset before the request was sent, as by a proxy, means that there was no connection.
    transport_failure failed(failure kind, std::string message) const {
        long sent = 0;        // old versions count what was said to a proxy, too
        curl_off_t begun = 0; // new versions set it at the end whatever happened
        curl_easy_getinfo(handles_.easy, CURLINFO_REQUEST_SIZE, &sent);
        curl_easy_getinfo(handles_.easy, CURLINFO_PRETRANSFER_TIME_T, &begun);
        const bool maybe_delivered = sent != 0 && begun != 0;
        if (kind == failure::reset && !maybe_delivered)
            kind = failure::connect;
        return {kind, std::move(message), maybe_delivered};
    }

    transport_result outcome(CURLcode code) {
        if (code != CURLE_OK && stopped_)
            return failed(failure::other, stopped_);
        if (code != CURLE_OK && !too_long_)
            return failed(failure_of(code), *detail_ ? detail_ : curl_easy_strerror(code));
        if (!headers_done_)
            return failed(failure::reset, "the connection ended within the headers");
        response_.status = static_cast<int>(status());
        return std::move(response_);
    }

public:
    curl_exchange(curl_handles& handles, const http_request& request) : handles_(handles), request_(request) {
        handles_.cancelled = false;
    }
    curl_exchange(const curl_exchange&) = delete;
    curl_exchange& operator=(const curl_exchange&) = delete;

    /// Leaves the handles as new, but for the connections.
    ~curl_exchange() {
        curl_multi_remove_handle(handles_.multi, handles_.easy);
        curl_easy_reset(handles_.easy);
        curl_slist_free_all(lines_);
    }

    CURLcode prepare() {
        CURLcode code = CURLE_OK;
        const auto set = [&](CURLoption option, auto value) {
            if (code == CURLE_OK)
                code = curl_easy_setopt(handles_.easy, option, value);
        };
        const bool secure = ascii_lower(request_.url[4]) == 's';
        set(CURLOPT_ERRORBUFFER, detail_);
        set(CURLOPT_URL, request_.url.c_str());
        set(CURLOPT_PATH_AS_IS, 1L);
        set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L); // it would become an Authorization
#if LIBCURL_VERSION_NUM >= 0x075500
        set(CURLOPT_PROTOCOLS_STR, secure ? "https" : "http");
#else
        set(CURLOPT_PROTOCOLS, secure ? long{CURLPROTO_HTTPS} : long{CURLPROTO_HTTP});
#endif
        set(CURLOPT_FOLLOWLOCATION, 0L);
        set(CURLOPT_SSL_VERIFYPEER, 1L);
        set(CURLOPT_SSL_VERIFYHOST, 2L);
        set(CURLOPT_NOSIGNAL, 1L);
        const std::chrono::milliseconds longest{std::numeric_limits<int>::max()}; // libcurl's own limit
        const auto timeout = static_cast<long>(std::min(request_.timeout, longest).count());
        set(CURLOPT_TIMEOUT_MS, timeout);
        set(CURLOPT_CONNECTTIMEOUT_MS, timeout);
#if LIBCURL_VERSION_NUM >= 0x075700
        set(CURLOPT_QUICK_EXIT, 1L); // giving up does not wait until the system's resolver returns
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
            add(trimmed(h.value).empty() ? h.name + ";" : h.name + ": " + h.value);
        for (const char* const name : {"Accept", "Content-Type", "Expect"}) {
            if (!find_header(request_.headers, name))
                add(std::string{name} + ":"); // not libcurl's own either
        }
        set(CURLOPT_HTTPHEADER, lines_);
        // No header goes to or comes from the proxy of an https, and none sees a plain http with its API key.
        // Not checked: a libcurl that is built without proxies does not know these.
        curl_easy_setopt(handles_.easy, CURLOPT_HEADEROPT, long{CURLHEADER_SEPARATE});
        curl_easy_setopt(handles_.easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        if (!secure)
            curl_easy_setopt(handles_.easy, CURLOPT_PROXY, "");
        return code;
    }

    transport_result run() {
        int count = 0;
        CURLMcode code = curl_multi_add_handle(handles_.multi, handles_.easy);
        while (code == CURLM_OK) {
            code = curl_multi_perform(handles_.multi, &count);
            if (code != CURLM_OK || count == 0)
                break;
            if (handles_.cancelled)
                return failed(failure::cancelled, "cancelled");
            code = curl_multi_poll(handles_.multi, nullptr, 0, 60'000, nullptr); // or data, timer, cancel()
        }
        const CURLMsg* const done = curl_multi_info_read(handles_.multi, &count);
        return done ? outcome(done->data.result) : failed(failure::other, curl_multi_strerror(code));
    }
};

} // namespace detail

/// A `Transport` over libcurl (7.68 or later), with connections kept alive from one request to the next.
///
/// - `http` and `https` only; no redirects, no cookies, no `.netrc`. Peer and host of `https` are verified.
///   `https` goes through the proxy that the environment names (`https_proxy`), `http` through none.
/// - Of a body it reads `max_response_bytes` + 1, of headers 256 KiB. Trailers are not returned.
/// - Where the server has closed a kept connection, libcurl sends the request again on a new one; only if
///   nothing had come back on the old one, yet the service may have read it there.
/// - `timeout` is at most 24 days; one of 0 or less fails at once.
///
/// One request at a time, so one transport for each thread; `cancel` alone may be called from any. Movable
/// between requests. libcurl may start a thread to look a host up. Signals are left alone: where the TLS
/// library may raise SIGPIPE, the program ignores it. The first transport calls `curl_global_init`; with a
/// libcurl before 7.84 that is to happen before other threads start.
class curl_transport {
    std::unique_ptr<detail::curl_handles> handles_ = std::make_unique<detail::curl_handles>();
    std::function<void(CURL*)> configure_{};

public:
    curl_transport() = default;

    /// `configure` is called for every request, on the thread of `send`, after the options of this class: for
    /// a proxy, a CA file, ... It leaves URL, method, headers, body and callbacks alone, and does not call
    /// the transport.
    explicit curl_transport(std::function<void(CURL*)> configure) : configure_(std::move(configure)) {}

    /// Sends one request and waits for its outcome, as the contract in `transport.hpp` has it. A request that
    /// cannot be sent as it stands (a line break in a header, ...) is a `failure::other` and not sent. The
    /// message of a failure is libcurl's.
    transport_result send(const http_request& request) {
        const auto unsent = [](failure kind, const char* why) { return transport_failure{kind, why, false}; };
        if (const char* const why = detail::unsendable(request))
            return unsent(failure::other, why);
        if (request.timeout <= std::chrono::milliseconds{0})
            return unsent(failure::timeout, "the request allows no time");
        if (!handles_ || !handles_->easy)
            return unsent(failure::other, "libcurl cannot be initialised");
        detail::curl_exchange exchange{*handles_, request};
        if (const CURLcode code = exchange.prepare(); code != CURLE_OK)
            return unsent(detail::failure_of(code), curl_easy_strerror(code));
        if (configure_ && !detail::ran_to_end([&] { configure_(handles_->easy); }))
            return unsent(failure::other, "the function that configures the transport threw");
        return exchange.run();
    }

    /// Ends the request in flight, if there is one, with `failure::cancelled`; later ones are not affected.
    /// Does not wait for it. Any thread, but not while the transport is moved or destroyed.
    void cancel() noexcept {
        if (!handles_)
            return;
        handles_->cancelled = true;
        curl_multi_wakeup(handles_->multi);
    }
};

} // namespace promptlayer::inline v0

#include <promptlayer/detail/pop_macros.hpp>

#endif
