#ifndef PROMPTLAYER_TESTING_RECORDING_TRANSPORT_HPP
#define PROMPTLAYER_TESTING_RECORDING_TRANSPORT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/mutex.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <deque>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Requests in order, and the outcomes to come.
class recording {
    mutable mutex mutex_{};
    std::vector<http_request> requests_{};
    std::deque<transport_result> script_{};

public:
    void record(const http_request& request) {
        const lock held{mutex_};
        requests_.push_back(request);
    }

    void script(transport_result outcome) {
        const lock held{mutex_};
        script_.push_back(std::move(outcome));
    }

    transport_result next() {
        const lock held{mutex_};
        if (script_.empty())
            return http_response{
                200, {{"Content-Type", "application/json"}}, R"({"success":true,"message":"recorded"})"};
        transport_result outcome = std::move(script_.front());
        script_.pop_front();
        return outcome;
    }

    std::vector<http_request> requests() const {
        const lock held{mutex_};
        return requests_;
    }
};

inline std::string to_string(const recording& recorded) {
    std::string text;
    for (const http_request& request : recorded.requests())
        text += promptlayer::to_string(request) + "\n\n";
    return text;
}

} // namespace detail

namespace testing {

/// A transport for tests: records every request and answers from a script, then with success. Nothing leaves
/// the process. Any thread; movable while no thread uses it. Printing it shows the requests without the API
/// key.
class recording_transport {
    std::unique_ptr<detail::recording> recording_ = std::make_unique<detail::recording>();

public:
    /// The outcome of the next request that has none yet.
    void respond(http_response response) { recording_->script(std::move(response)); }
    void fail(transport_failure failed) { recording_->script(std::move(failed)); }

    /// A copy of every request so far, in order.
    std::vector<http_request> requests() const { return recording_->requests(); }

    transport_result send(const http_request& request) {
        recording_->record(request);
        return recording_->next();
    }

    friend std::string to_string(const recording_transport& transport) {
        return to_string(*transport.recording_);
    }
};

/// The same for an asynchronous client: each request waits until the test completes it. Requests that still
/// wait when it is destroyed are cancelled.
class recording_async_transport {
    struct waiting {
        detail::mutex mutex{};
        std::deque<completion> completions{};
    };
    std::unique_ptr<detail::recording> recording_ = std::make_unique<detail::recording>();
    std::unique_ptr<waiting> waiting_ = std::make_unique<waiting>();

public:
    /// The outcome of the next completion that has none yet.
    void respond(http_response response) { recording_->script(std::move(response)); }
    void fail(transport_failure failed) { recording_->script(std::move(failed)); }

    /// A copy of every request so far, in order.
    std::vector<http_request> requests() const { return recording_->requests(); }

    void send(http_request request, completion done) {
        recording_->record(request);
        const detail::lock held{waiting_->mutex};
        waiting_->completions.push_back(std::move(done));
    }

    /// How many requests wait.
    std::size_t pending() const {
        const detail::lock held{waiting_->mutex};
        return waiting_->completions.size();
    }

    /// Completes the request that has waited longest, on this thread; false if none waits.
    bool complete_one() {
        completion done;
        {
            const detail::lock held{waiting_->mutex};
            if (waiting_->completions.empty())
                return false;
            done = std::move(waiting_->completions.front());
            waiting_->completions.pop_front();
        }
        done(recording_->next());
        return true;
    }

    /// Completes every request that waits, those sent meanwhile included; returns how many.
    std::size_t complete_all() {
        std::size_t completed = 0;
        while (complete_one())
            ++completed;
        return completed;
    }

    friend std::string to_string(const recording_async_transport& transport) {
        return to_string(*transport.recording_);
    }
};

using promptlayer::operator<<;

} // namespace testing

namespace detail {

template <>
inline constexpr bool is_printable<testing::recording_transport> = true;
template <>
inline constexpr bool is_printable<testing::recording_async_transport> = true;

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
