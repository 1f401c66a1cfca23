#ifndef PROMPTLAYER_TRACKER_HPP
#define PROMPTLAYER_TRACKER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/journal.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/track_prompt.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <functional>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Calls a function of the user. Drops its exceptions.
template <class ActionT>
void undisturbed(ActionT&& action) {
    guard_exceptions([&] { action(); }, [](const char*) {});
}

template <class... ParametersT, class... ArgumentsT>
void tell(const std::function<void(ParametersT...)>& callback, ArgumentsT&&... arguments) {
    if (callback)
        undisturbed([&] { callback(std::forward<ArgumentsT>(arguments)...); });
}

/// Queues the pending requests of a journal.
template <class OutboxT>
void restore(OutboxT& outbox, journal& journal, typename OutboxT::time_point now) {
    for (auto& entry : journal.left())
        outbox.restore(entry.id, std::move(entry.request), entry.age, now);
}

} // namespace detail

/// The callbacks of a tracker. Each may be empty. Exceptions are dropped.
struct tracker_callbacks {
    /// The service accepted the request.
    std::function<void(outbox::id, const track_response&)> on_delivered{};
    /// The request ended otherwise: refused, failed, or dropped for a newer one. `why` has the reason.
    std::function<void(const outbox::ended&)> on_failed{};
    /// The tracker was destroyed without `close`; these requests are undelivered. A journal still has them.
    std::function<void(std::vector<outbox::ended>)> on_undelivered{};
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
