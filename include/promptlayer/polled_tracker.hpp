#ifndef PROMPTLAYER_POLLED_TRACKER_HPP
#define PROMPTLAYER_POLLED_TRACKER_HPP

#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/any_transport.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/tracker.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Tracks prompts from a loop that never waits, such as that of a game. `track` queues a request; `poll`
/// sends it over an `AsyncTransport` and reports the result. It starts no thread and reads no clock; all work
/// happens in `poll`. `outbox` describes the schedule, `basic_tracker` the members that both trackers have.
///
/// - Threads: one at a time calls `poll`, `close` and the destructor; any thread may call the other members.
///   The transport may complete on any thread.
/// - Callbacks: `poll`, `close` and the destructor call them. They may call any member; within one, `poll`
///   does nothing. They must not destroy the tracker.
///
/// Used as `polled_tracker`. A template, so that a header-only program compiles it only if it is used.
template <class ClockT>
class basic_polled_tracker : public basic_tracker<ClockT> {
    using time_point = typename ClockT::time_point;

    struct polling; // sets `is_polling_` while it exists

    std::optional<time_point> first_poll_{}; // time counts from the first poll, also that of earlier requests
    bool is_polling_ = false;

    basic_polled_tracker(config config, detail::any_transport transport, tracker_options options);

public:
    /// With an invalid config, every `track` returns `invalid_config`. Pending requests of the journal are
    /// sent first. A transport that is given as `std::ref` must outlive the tracker.
    template <class T>
    explicit basic_polled_tracker(config config, T transport, tracker_options options = {})
        : basic_polled_tracker(std::move(config), detail::own_transport(std::move(transport)),
                               std::move(options)) {
        static_assert(AsyncTransport<std::unwrap_reference_t<T>>,
                      "promptlayer: polled_tracker takes an AsyncTransport; background_tracker or "
                      "threaded_transport take a synchronous Transport");
    }

    /// Calls `close` and reports the undelivered requests; not if `close` throws.
    ~basic_polled_tracker();

    /// Calls `poll()` of the transport, if it has one; reports results; sends the requests that are due, at
    /// most `queue_options::max_in_flight`. Does not wait, and does a bounded piece of work. Returns the same
    /// as `pending`. `now` must be of a steady clock.
    std::size_t poll(time_point now);

    /// Returns the number of requests that have not ended or are not reported.
    std::size_t pending() const;

    /// Stops accepting requests, reports what has ended, cancels requests in flight if the transport can, and
    /// returns the undelivered requests in order. A request that was in flight may have been delivered. The
    /// journal keeps all of them for the next start. Does not wait. In a callback, `close` only stops
    /// accepting requests. If memory is exhausted, it throws; no request is lost, and the next `close`
    /// returns all.
    [[nodiscard]] std::vector<finished_request> close();
};

using polled_tracker = basic_polled_tracker<std::chrono::steady_clock>;

#if defined(PROMPTLAYER_DEFINITIONS)

template <class ClockT>
basic_polled_tracker<ClockT>::basic_polled_tracker(config config, detail::any_transport transport,
                                                   tracker_options options)
    : basic_tracker<ClockT>(new detail::delivery_engine<ClockT>(std::move(config), std::move(transport),
                                                                std::move(options), nullptr, nullptr)) {}

template <class ClockT>
basic_polled_tracker<ClockT>::~basic_polled_tracker() {
    if (!this->is_usable())
        return;
    if (is_polling_)
        detail::misuse("promptlayer: a callback has destroyed its tracker\n");
    detail::ignore_exceptions([&] { this->engine().report_returned(close()); });
}

template <class ClockT>
struct basic_polled_tracker<ClockT>::polling {
    bool& flag;
    explicit polling(bool& is_polling) : flag(is_polling) { flag = true; }
    polling(const polling&) = delete;
    polling& operator=(const polling&) = delete;
    ~polling() { flag = false; }
};

template <class ClockT>
std::size_t basic_polled_tracker<ClockT>::poll(time_point now) {
    if (this->is_usable() && !is_polling_) {
        const polling guard{is_polling_};
        if (!first_poll_)
            first_poll_ = now;
        this->engine().advance_to(time_point{now - *first_poll_});
        const detail::any_transport& transport = this->engine().transport();
        transport.call(transport.functions().poll); // outcomes arrive
        this->engine().step();
        transport.call(transport.functions().poll); // what was sent leaves in this frame
    }
    return pending();
}

template <class ClockT>
std::size_t basic_polled_tracker<ClockT>::pending() const {
    return this->is_usable() ? this->engine().pending() : 0;
}

template <class ClockT>
std::vector<finished_request> basic_polled_tracker<ClockT>::close() {
    if (!this->is_usable())
        return {};
    this->engine().close(time_point::max());
    if (is_polling_)
        return {};
    const polling guard{is_polling_};
    this->engine().settle();
    return this->engine().drain();
}

#endif

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#if defined(PROMPTLAYER_DEFINITIONS)
template class basic_polled_tracker<std::chrono::steady_clock>;
#else
extern template class basic_polled_tracker<std::chrono::steady_clock>;
#endif
#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
