#ifndef PROMPTLAYER_TESTING_RECORDING_TRANSPORT_HPP
#define PROMPTLAYER_TESTING_RECORDING_TRANSPORT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/mutex.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <deque>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The requests, the scripted outcomes and the pending completions of a recording transport.
struct recording;

using owned_recording = std::unique_ptr<recording, void (*)(recording*)>;

PROMPTLAYER_DECL owned_recording make_recording();
PROMPTLAYER_DECL void add_outcome(recording& recording, transport_result outcome);
PROMPTLAYER_DECL void add_request(recording& recording, const http_request& request, completion done = {});
PROMPTLAYER_DECL transport_result take_outcome(recording& recording, std::string_view url);
PROMPTLAYER_DECL std::vector<http_request> requests_of(const recording& recording);
PROMPTLAYER_DECL std::size_t pending_of(const recording& recording);
PROMPTLAYER_DECL bool complete_one(recording& recording);
PROMPTLAYER_DECL std::string print_requests(const recording& recording);

} // namespace detail

namespace testing {

/// A transport for tests. Records each request, and returns the scripted outcomes in order, then a success:
/// 201 with the next id from 1 for a log, 200 with `success` and `message` for all others. Nothing leaves the
/// process. Any thread may use it; it may be moved while no thread uses it. Printing shows the requests
/// without the API key.
class recording_transport {
    detail::owned_recording recording_ = detail::make_recording();

public:
    /// Adds the outcome of the next request that has no outcome yet.
    void respond(http_response response) { detail::add_outcome(*recording_, std::move(response)); }
    void fail(transport_failure failed) { detail::add_outcome(*recording_, std::move(failed)); }

    /// Returns a copy of all requests, in order.
    std::vector<http_request> requests() const { return detail::requests_of(*recording_); }

    transport_result send(const http_request& request) {
        detail::add_request(*recording_, request);
        return detail::take_outcome(*recording_, request.url);
    }

    friend std::string to_string(const recording_transport& transport) {
        return detail::print_requests(*transport.recording_);
    }
};

/// A recording transport for asynchronous clients. A request is pending until the test completes it. The
/// destructor cancels pending requests.
class recording_async_transport {
    detail::owned_recording recording_ = detail::make_recording();

public:
    /// Adds the outcome of the next completion that has no outcome yet.
    void respond(http_response response) { detail::add_outcome(*recording_, std::move(response)); }
    void fail(transport_failure failed) { detail::add_outcome(*recording_, std::move(failed)); }

    /// Returns a copy of all requests, in order.
    std::vector<http_request> requests() const { return detail::requests_of(*recording_); }

    void send(http_request request, completion done) {
        detail::add_request(*recording_, request, std::move(done));
    }

    /// Returns the number of pending requests.
    std::size_t pending() const { return detail::pending_of(*recording_); }

    /// Completes the oldest pending request, on this thread. Returns false if there is none.
    bool complete_one() { return detail::complete_one(*recording_); }

    /// Completes all pending requests, and requests that are sent meanwhile. Returns their number.
    std::size_t complete_all() {
        std::size_t count = 0;
        while (complete_one())
            ++count;
        return count;
    }

    friend std::string to_string(const recording_async_transport& transport) {
        return detail::print_requests(*transport.recording_);
    }
};

using promptlayer::operator<<;

} // namespace testing

namespace detail {

template <>
inline constexpr bool is_printable<testing::recording_transport> = true;
template <>
inline constexpr bool is_printable<testing::recording_async_transport> = true;

#if defined(PROMPTLAYER_DEFINITIONS)

struct recording {
    mutable detail::mutex mutex{};
    std::vector<http_request> requests{};
    std::deque<transport_result> outcomes{};
    struct pending_request {
        std::string url{};
        completion done{};
    };
    std::deque<pending_request> pending{};
    int log_count = 0;
};

PROMPTLAYER_DECL owned_recording make_recording() {
    return {new recording, [](recording* recording) { delete recording; }};
}

PROMPTLAYER_DECL void add_outcome(recording& recording, transport_result outcome) {
    const lock guard{recording.mutex};
    recording.outcomes.push_back(std::move(outcome));
}

PROMPTLAYER_DECL void add_request(recording& recording, const http_request& request, completion done) {
    const lock guard{recording.mutex};
    recording.requests.push_back(request);
    if (done)
        recording.pending.push_back({request.url, std::move(done)});
}

PROMPTLAYER_DECL transport_result take_outcome(recording& recording, std::string_view url) {
    const lock guard{recording.mutex};
    if (recording.outcomes.empty()) {
        const std::vector<header> headers{{"Content-Type", "application/json"}};
        if (!url.ends_with(log_path))
            return http_response{200, headers, R"({"success":true,"message":"recorded"})"};
        const std::string id = std::to_string(++recording.log_count);
        return http_response{201, headers, R"({"id":)" + id + R"(,"prompt_version":null})"};
    }
    transport_result outcome = std::move(recording.outcomes.front());
    recording.outcomes.pop_front();
    return outcome;
}

PROMPTLAYER_DECL std::vector<http_request> requests_of(const recording& recording) {
    const lock guard{recording.mutex};
    return recording.requests;
}

PROMPTLAYER_DECL std::size_t pending_of(const recording& recording) {
    const lock guard{recording.mutex};
    return recording.pending.size();
}

PROMPTLAYER_DECL bool complete_one(recording& recording) {
    recording::pending_request next;
    {
        const lock guard{recording.mutex};
        if (recording.pending.empty())
            return false;
        next = std::move(recording.pending.front());
        recording.pending.pop_front();
    }
    next.done(take_outcome(recording, next.url));
    return true;
}

PROMPTLAYER_DECL std::string print_requests(const recording& recording) {
    std::string text;
    for (const http_request& request : requests_of(recording))
        text += to_string(request) + "\n\n";
    return text;
}

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
