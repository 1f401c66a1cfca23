#ifndef PROMPTLAYER_TRANSPORTS_DETAIL_CURL_CONNECTIONS_HPP
#define PROMPTLAYER_TRANSPORTS_DETAIL_CURL_CONNECTIONS_HPP

#include <promptlayer/detail/abi.hpp>

#include <curl/curl.h> // includes windows.h, so before its macros are set aside

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

struct curl_easy_deleter {
    void operator()(CURL* easy) const noexcept { curl_easy_cleanup(easy); }
};
using curl_easy = std::unique_ptr<CURL, curl_easy_deleter>;
using curl_parsed_url = std::shared_ptr<CURLU>;

/// A connection that requests can use again. Some are closed.
struct curl_pooled {
    long local_port;
    curl_socket_t socket;
};

/// Runs requests, and keeps their connections and TLS sessions for later requests. Must outlive its handles.
struct curl_connections {
    CURLM* multi = nullptr;                   // null if libcurl cannot be initialised
    CURLM* probe = nullptr;                   // has no handles; looks at a socket while `multi` is in use
    CURLSH* sessions = nullptr;               // of TLS; without it each handle would keep its own
    const bool one_at_a_time;                 // no two requests are in flight at once, and all use HTTP/1.x
    std::vector<curl_pooled> pooled{};        // connections of HTTP/1.x
    std::vector<curl_easy> idle_handles[2]{}; // of answered requests: of `http`, of `https`
    std::size_t max_idle_handles = 1;
    std::string last_url{};       // a URL that can be sent, or empty
    curl_parsed_url parsed_url{}; // `last_url`; null if libcurl rejects it
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
        for (auto& handles : idle_handles)
            handles.clear(); // they refer to `sessions`
        curl_multi_cleanup(multi);
        curl_multi_cleanup(probe);
        curl_share_cleanup(sessions);
    }

    /// Returns the URL as libcurl parses it; null if libcurl rejects it. Remembers the last URL, because
    /// libcurl needs a tenth of the time of a request to parse its URL.
    curl_parsed_url parse(const std::string& url) {
        if (url != last_url) {
            std::string copy = url;
            parsed_url = {curl_url(), &curl_url_cleanup};                      // from here on nothing throws
            constexpr unsigned as_is = CURLU_PATH_AS_IS | CURLU_DISALLOW_USER; // else an Authorization
            if (curl_url_set(parsed_url.get(), CURLUPART_URL, url.c_str(), as_is) != CURLUE_OK)
                parsed_url.reset();
            last_url = std::move(copy);
        }
        return parsed_url;
    }

    /// Remembers a new connection, unless its socket is CURL_SOCKET_BAD. Forgets the closed ones that had its
    /// port or the number of its socket.
    void pool(long local_port, curl_socket_t socket) {
        std::erase_if(pooled, [&](const curl_pooled& old) {
            return old.local_port == local_port || old.socket == socket;
        });
        if (socket != CURL_SOCKET_BAD)
            pooled.push_back({local_port, socket});
    }

    /// Returns whether a pooled connection was closed by the server, or has bytes that no request asked for.
    /// Call it directly before the request is sent, because such bytes would be read as its response.
    bool is_stale(long local_port) const noexcept {
        const auto entry = std::find_if(pooled.begin(), pooled.end(), [=](const curl_pooled& connection) {
            return connection.local_port == local_port;
        });
        if (entry == pooled.end())
            return false;
        curl_waitfd socket{entry->socket, CURL_WAIT_POLLIN, 0};
        int count = 0;
        return curl_multi_wait(probe, &socket, 1, 0, &count) == CURLM_OK && count != 0;
    }

    /// Wakes `curl_multi_poll`. Any thread.
    void cancel() noexcept {
        cancelled = true;
        curl_multi_wakeup(multi);
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
