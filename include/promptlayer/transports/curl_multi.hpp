#ifndef PROMPTLAYER_TRANSPORTS_CURL_MULTI_HPP
#define PROMPTLAYER_TRANSPORTS_CURL_MULTI_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/curl.hpp>
#include <promptlayer/transports/detail/request_limits.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// The requests of a `curl_multi_transport`. No completion is called from within libcurl, or before its
/// request has left all containers, so a completion may call any member.
class curl_requests {
    using clock = std::chrono::steady_clock;
    using milliseconds = std::chrono::milliseconds;

    struct running_request {
        http_request request;
        completion done;
        clock::time_point deadline = clock::now() + clamp_timeout(request.timeout);
        curl_exchange exchange;

        running_request(curl_connections& connections, curl_easy handle, http_request&& sent,
                        completion&& on_outcome)
            : request(std::move(sent)), done(std::move(on_outcome)),
              exchange(connections, std::move(handle), request) {}
    };
    struct finished_request {
        completion done;
        transport_result outcome;
    };

    std::vector<curl_waitfd> sockets_{}; // that libcurl wants to be watched; outlives the connections
    curl_connections connections_{false};
    std::function<void(CURL*)> configure_;
    const bool follows_max_in_flight_;
    using running_map = std::unordered_map<CURL*, running_request>;
    running_map running_{};
    std::set<std::pair<clock::time_point, CURL*>> deadlines_{};
    std::deque<finished_request> finished_{}; // poll() calls their completions

    void finish(running_map::iterator entry, transport_result&& outcome) {
        finished_.push_back({std::move(entry->second.done), std::move(outcome)});
        deadlines_.erase({entry->second.deadline, entry->first});
        running_.erase(entry);
    }

    void fail(running_map::iterator entry, failure kind, const char* message) {
        finish(entry, entry->second.exchange.failed(kind, message));
    }

    void fail_all(failure kind, const char* message) {
        while (!running_.empty())
            fail(running_.begin(), kind, message);
    }

    void fail_if_cancelled() {
        if (connections_.cancelled.exchange(false))
            fail_all(failure::cancelled, "cancelled");
    }

    /// Called by libcurl if the events of a socket that it waits for have changed.
    static int watch(CURL*, curl_socket_t socket, int events, void* self, void*) noexcept {
        auto& sockets = static_cast<curl_requests*>(self)->sockets_;
        std::erase_if(sockets, [=](const curl_waitfd& entry) { return entry.fd == socket; });
        short watched = (events & CURL_POLL_IN) ? CURL_WAIT_POLLIN : 0;
        if (events & CURL_POLL_OUT)
            watched |= CURL_WAIT_POLLOUT;
        return events == CURL_POLL_REMOVE || call_noexcept([&] {
                   sockets.push_back({socket, watched, 0});
               })
                   ? 0
                   : -1;
    }

    /// Waits until a socket is ready, libcurl or a deadline has work, or `wakeup` is called. A wait of 0 ms
    /// does not take up a `wakeup`. Returns the ready sockets.
    std::vector<curl_waitfd> wait_for_sockets(milliseconds wait) {
        long due = -1; // in milliseconds
        curl_multi_timeout(connections_.multi, &due);
        wait = std::min(wait, std::chrono::ceil<milliseconds>(deadlines_.begin()->first - clock::now()));
        if (due >= 0)
            wait = std::min(wait, milliseconds{due});
        for (curl_waitfd& entry : sockets_)
            entry.revents = 0; // libcurl leaves them as they are if nothing happens
        const auto wait_with = wait > milliseconds{0} ? &curl_multi_poll : &curl_multi_wait;
        wait_with(connections_.probe, sockets_.data(), static_cast<unsigned>(sockets_.size()),
                  static_cast<int>(std::max(milliseconds{0}, wait).count()), nullptr);
        std::vector<curl_waitfd> ready;
        std::copy_if(sockets_.begin(), sockets_.end(), std::back_inserter(ready),
                     [](const curl_waitfd& entry) { return entry.revents != 0; });
        return ready;
    }

    /// Does the work of these sockets and the work that is due. `curl_multi_perform` would look at each
    /// request.
    void advance(const std::vector<curl_waitfd>& ready) {
        int count = 0;
        CURLMcode code = CURLM_OK;
        for (const curl_waitfd& entry : ready) {
            const int events = ((entry.revents & CURL_WAIT_POLLIN) ? CURL_CSELECT_IN : 0) |
                               ((entry.revents & CURL_WAIT_POLLOUT) ? CURL_CSELECT_OUT : 0);
            if (code == CURLM_OK)
                code = curl_multi_socket_action(connections_.multi, entry.fd, events, &count);
        }
        if (code == CURLM_OK)
            code = curl_multi_socket_action(connections_.multi, CURL_SOCKET_TIMEOUT, 0, &count);
        while (const CURLMsg* const done = curl_multi_info_read(connections_.multi, &count)) {
            const auto entry = running_.find(done->easy_handle);
            const CURLcode result = done->data.result; // `done` ends with the transfer
            if (auto& exchange = entry->second.exchange; !exchange.restart_if_stale())
                finish(entry, exchange.outcome(result));
        }
        if (code != CURLM_OK)
            fail_all(failure::other, curl_multi_strerror(code));
        // libcurl does not time out a request that waits for a connection.
        for (const auto now = clock::now(); !deadlines_.empty() && deadlines_.begin()->first <= now;)
            fail(running_.find(deadlines_.begin()->second), failure::timeout, "timed out");
    }

    void limit_connections(long count) noexcept {
        connections_.max_idle_handles = static_cast<std::size_t>(count);
        curl_multi_setopt(connections_.multi, CURLMOPT_MAX_HOST_CONNECTIONS, count);
        curl_multi_setopt(connections_.multi, CURLMOPT_MAXCONNECTS, count); // libcurl closes idle ones beyond
    }

public:
    curl_requests(std::function<void(CURL*)> configure, int max_connections)
        : configure_(std::move(configure)), follows_max_in_flight_(max_connections <= 0) {
        curl_multi_setopt(connections_.multi, CURLMOPT_SOCKETFUNCTION, &watch);
        curl_multi_setopt(connections_.multi, CURLMOPT_SOCKETDATA, this);
        limit_connections(follows_max_in_flight_ ? 8 : long{max_connections});
    }

    void max_in_flight(std::size_t count) noexcept {
        if (follows_max_in_flight_)
            limit_connections(static_cast<long>(std::clamp<std::size_t>(count, 1, 1'000'000)));
    }

    void send(http_request&& request, completion&& done) {
        fail_if_cancelled();
        curl_easy easy = curl_exchange::take_handle(connections_, request);
        CURL* const key = easy.get();
        const auto entry =
            running_.try_emplace(key, connections_, std::move(easy), std::move(request), std::move(done))
                .first;
        deadlines_.emplace(entry->second.deadline, key);
        if (auto error = entry->second.exchange.start(configure_))
            finish(entry, *std::move(error));
    }

    std::size_t poll(milliseconds wait) {
        fail_if_cancelled();
        advance({}); // starts what was sent
        if (!running_.empty()) {
            const auto ready = wait_for_sockets(finished_.empty() ? wait : milliseconds{0});
            fail_if_cancelled();
            advance(ready);
        }
        // Stops after the present requests, because a completion may send an invalid request each time.
        for (std::size_t count = finished_.size(); count != 0 && !finished_.empty(); --count) {
            finished_request next = std::move(finished_.front());
            finished_.pop_front();
            if (next.done)
                next.done(std::move(next.outcome));
        }
        return running_.size() + finished_.size();
    }

    void wakeup() noexcept { curl_multi_wakeup(connections_.probe); }

    void cancel() noexcept {
        connections_.cancelled = true;
        wakeup();
    }
};

} // namespace detail

/// An `AsyncTransport` over libcurl (7.68 or later) without a thread of its own. Runs many requests at once
/// on shared connections; `poll` does the work. For a game loop, or a thread that does nothing else.
///
/// - Sends and returns the same as `curl_transport`, except over TLS. There, it uses HTTP/2 if the server
///   offers HTTP/2. libcurl cannot tell a status line `HTTP/2 200` from HTTP/2. Unrequested bytes that
///   arrive together with a response may become the next response.
/// - Opens and keeps at most as many connections to a host as you set, else as `max_in_flight` says, else 8.
///   `https` requests share one connection if the server offers HTTP/2. Otherwise each request waits for a
///   free connection, within its timeout.
/// - A timeout begins with `send`. A late `poll` may report a timeout although the response has arrived.
/// - The destructor destroys the completions of requests in flight without a call. A `client` reports them as
///   `failure::cancelled`.
///
/// With OpenSSL, libcurl loads its file of CAs within `poll`: 19 to 37 ms for those of a Linux system. It
/// does so for each new `https` connection, because it loads them once only if it has no directory of CAs.
/// Where a frame must not take that long, let `configure` do one of these:
///
/// - `curl_easy_setopt(easy, CURLOPT_CAINFO, nullptr)`: OpenSSL then looks up the one CA that it needs in the
///   directory (`CURLOPT_CAPATH`) that libcurl was built with, and `poll` takes 1 ms. Debian has such
///   a directory, with a hash of each CA as a name. `curl_version_info` tells its path, or null. Without
///   these names, no server is trusted.
/// - `curl_easy_setopt(easy, CURLOPT_CAINFO, path)` with a small file of your own: 1 ms.
/// - `curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr)`: libcurl 7.87 or later then loads the file once in 24
///   hours, for the first connection. Open that before the loop begins, or on another thread, and then move
///   the transport.
///
/// For one thread at a time; only `cancel` and `wakeup` may be called from any thread. Movable, also with
/// requests in flight. A transport that was moved from destroys completions without a call. A completion may
/// call any member, but must not move or destroy the transport. libcurl starts a thread for each DNS lookup;
/// a libcurl that is built without threads blocks `poll` during the lookup. The notes of `curl_transport` on
/// signals and `curl_global_init` apply.
class curl_multi_transport {
    std::unique_ptr<detail::curl_requests> requests_;

public:
    curl_multi_transport() : curl_multi_transport(nullptr) {}

    /// `configure` is called within `send`, with a new handle that has the options of this class. It can set
    /// a proxy, a CA file and so on. It must not change URL, method, headers, body, codings and callbacks,
    /// and must not call the transport. Without it, handles are used again, which saves a microsecond.
    explicit curl_multi_transport(std::function<void(CURL*)> configure, int max_connections_to_a_host = 0)
        : requests_(
              std::make_unique<detail::curl_requests>(std::move(configure), max_connections_to_a_host)) {}
    curl_multi_transport(curl_multi_transport&&) noexcept = default;
    curl_multi_transport& operator=(curl_multi_transport&&) noexcept = default;

    ~curl_multi_transport() {
        const auto requests = std::move(requests_); // a completion then finds a transport that was moved from
    }

    /// Accepts a request. `poll` does the rest and calls the completion, also if the request cannot be sent
    /// unchanged. Does not block and does not call the completion. Costs some microseconds.
    void send(http_request request, completion done) {
        if (requests_)
            requests_->send(std::move(request), std::move(done));
    }

    /// Does all work that is due, calls the completions of requests that have ended, and returns how many
    /// requests have not ended. If none has ended, it waits up to `wait` for work and does it. Without a
    /// request in flight it returns at once. May return earlier, because libcurl has timers of its own.
    /// Costs microseconds if there is no work, and milliseconds if a TLS connection is opened. Passes on what
    /// a completion throws; the next `poll` calls the remaining completions.
    std::size_t poll(std::chrono::milliseconds wait = std::chrono::milliseconds{0}) {
        return requests_ ? requests_->poll(wait) : 0;
    }

    /// Sets how many connections to a host are opened and kept, unless the constructor was given a number.
    /// Call it before the first `send`; a tracker does.
    void max_in_flight(std::size_t count) noexcept {
        if (requests_)
            requests_->max_in_flight(count);
    }

    /// Ends the present wait of `poll`. If `poll` does not wait now, ends the next wait. May be called from
    /// any thread, except while the transport is moved or destroyed.
    void wakeup() noexcept {
        if (requests_)
            requests_->wakeup();
    }

    /// Ends the requests in flight with `failure::cancelled` and wakes `poll`, which calls their completions.
    /// Later requests are not affected. May be called from any thread, except while the transport is moved or
    /// destroyed.
    void cancel() noexcept {
        if (requests_)
            requests_->cancel();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
