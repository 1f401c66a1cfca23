#ifndef PROMPTLAYER_TRANSPORTS_CURL_MULTI_HPP
#define PROMPTLAYER_TRANSPORTS_CURL_MULTI_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/transport.hpp>
#include <promptlayer/transports/curl.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// The requests of a `curl_multi_transport`. Whatever a completion does, it finds them in order: none is
/// called from within libcurl, nor before its request has left all containers.
class curl_requests {
    using clock = std::chrono::steady_clock;
    using milliseconds = std::chrono::milliseconds;

    static constexpr milliseconds longest{std::numeric_limits<int>::max()}; // that libcurl knows

    struct running {
        http_request request;
        completion done;
        clock::time_point deadline = clock::now() + std::clamp(request.timeout, milliseconds{0}, longest);
        curl_exchange exchange;

        running(curl_connections& connections, curl_easy handle, http_request sent, completion called)
            : request(std::move(sent)), done(std::move(called)),
              exchange(connections, std::move(handle), request) {}
    };
    struct ended {
        completion done;
        transport_result outcome;
    };

    curl_connections connections_{false};
    std::function<void(CURL*)> configure_;
    std::unordered_map<CURL*, running> running_{};
    std::set<std::pair<clock::time_point, CURL*>> deadlines_{};
    std::deque<ended> ended_{}; // to be told by poll()

    void end(CURL* easy, transport_result outcome) {
        const auto found = running_.find(easy);
        ended_.push_back({std::move(found->second.done), std::move(outcome)});
        deadlines_.erase({found->second.deadline, easy});
        running_.erase(found);
    }

    void end(CURL* easy, failure kind, const char* why) {
        end(easy, running_.find(easy)->second.exchange.failed(kind, why));
    }

    void end_all(failure kind, const char* why) {
        while (!running_.empty())
            end(running_.begin()->first, kind, why);
    }

    void end_if_cancelled() {
        if (connections_.cancelled.exchange(false))
            end_all(failure::cancelled, "cancelled");
    }

    void advance() {
        end_if_cancelled();
        if (running_.empty())
            return;
        int count = 0;
        const CURLMcode code = curl_multi_perform(connections_.multi, &count);
        while (const CURLMsg* const done = curl_multi_info_read(connections_.multi, &count)) {
            CURL* const easy = done->easy_handle; // `done` goes with the transfer
            const CURLcode result = done->data.result;
            if (auto& exchange = running_.find(easy)->second.exchange; !exchange.again())
                end(easy, exchange.outcome(result));
        }
        if (code != CURLM_OK)
            end_all(failure::other, curl_multi_strerror(code));
        // libcurl does not end a request that waits for a connection.
        for (const auto now = clock::now(); !deadlines_.empty() && deadlines_.begin()->first <= now;)
            end(deadlines_.begin()->second, failure::timeout, "the request was not answered in time");
    }

public:
    curl_requests(std::function<void(CURL*)> configure, int most_connections)
        : configure_(std::move(configure)) {
        curl_multi_setopt(connections_.multi, CURLMOPT_MAX_HOST_CONNECTIONS, long{most_connections});
    }

    void send(http_request request, completion done) {
        end_if_cancelled();
        curl_easy easy = connections_.handle();
        CURL* const key = easy.get();
        running& added =
            running_.try_emplace(key, connections_, std::move(easy), std::move(request), std::move(done))
                .first->second;
        deadlines_.emplace(added.deadline, key);
        if (auto unsent = added.exchange.start(configure_))
            end(key, *std::move(unsent));
    }

    std::size_t poll(milliseconds wait) {
        advance();
        if (ended_.empty() && !running_.empty() && wait > milliseconds{0}) {
            const auto left = std::chrono::ceil<milliseconds>(deadlines_.begin()->first - clock::now());
            const auto most = std::max(milliseconds{0}, std::min(wait, left));
            curl_multi_poll(connections_.multi, nullptr, 0, static_cast<int>(most.count()), nullptr);
            advance();
        }
        // Not those that a completion adds: it may send what is refused again and again.
        for (std::size_t count = ended_.size(); count != 0 && !ended_.empty(); --count) {
            ended next = std::move(ended_.front());
            ended_.pop_front();
            if (next.done)
                next.done(std::move(next.outcome));
        }
        return running_.size() + ended_.size();
    }

    void cancel() noexcept { connections_.cancel(); }
};

} // namespace detail

/// An `AsyncTransport` over libcurl (7.68 or later) without a thread of its own: many requests at once, on
/// connections they share, which `poll` moves on. For a game loop, or a thread that does nothing else.
///
/// - What one request may be and comes to is as with `curl_transport`, except over TLS: there, HTTP/2 is used
///   if the server offers it. libcurl cannot tell a status line `HTTP/2 200` from HTTP/2, and what the server
///   says unasked together with a response may become the next response.
/// - At most 8 connections to a host, or as many as you say. `https` requests share one where the server
///   offers HTTP/2; otherwise each needs one for itself, and waits for it within its timeout.
/// - A timeout begins with `send`. A late `poll` may find a request timed out though its answer is there.
/// - Destroying it destroys the completions of requests in flight uncalled; a `client` makes that a
///   `failure::cancelled`.
///
/// For one thread at a time; `cancel` alone may be called from any. Movable, also with requests in flight;
/// one that was moved from lets completions go. A completion may call any member, but not move or destroy the
/// transport. libcurl looks a host up in a thread that it starts; one that is built without blocks `poll` for
/// that time. What `curl_transport` says about signals and `curl_global_init` holds here.
class curl_multi_transport {
    std::unique_ptr<detail::curl_requests> requests_;

public:
    curl_multi_transport() : curl_multi_transport(nullptr) {}

    /// `configure` is called within `send`, after the options of this class: for a proxy, a CA file, ... It
    /// leaves URL, method, headers, body, codings and callbacks alone, and does not call the transport.
    explicit curl_multi_transport(std::function<void(CURL*)> configure, int most_connections_to_a_host = 8)
        : requests_(
              std::make_unique<detail::curl_requests>(std::move(configure), most_connections_to_a_host)) {}
    curl_multi_transport(curl_multi_transport&&) noexcept = default;
    curl_multi_transport& operator=(curl_multi_transport&&) noexcept = default;

    ~curl_multi_transport() {
        const auto going = std::move(requests_); // a completion that calls back finds a transport moved from
    }

    /// Takes a request; `poll` does the rest and calls the completion, also if the request cannot be sent as
    /// it stands. Neither blocks nor calls the completion. Costs some microseconds.
    void send(http_request request, completion done) {
        if (requests_)
            requests_->send(std::move(request), std::move(done));
    }

    /// Does what can be done now, calls the completions of requests that have ended, and returns how many are
    /// still to end. If none has ended it waits at most `wait` until there is something to do, and does that;
    /// with nothing in flight it returns at once. Costs microseconds if nothing has happened, but
    /// milliseconds where a TLS connection is begun: tens of them to load the authorities of a system. What a
    /// completion throws goes to the caller; those not called yet are called by the next `poll`.
    std::size_t poll(std::chrono::milliseconds wait = std::chrono::milliseconds{0}) {
        return requests_ ? requests_->poll(wait) : 0;
    }

    /// Ends the requests in flight with `failure::cancelled`; later ones are not affected. Wakes `poll`,
    /// which calls the completions. Any thread, but not while the transport is moved or destroyed.
    void cancel() noexcept {
        if (requests_)
            requests_->cancel();
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
