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

/// Calls what users have given; what it throws is dropped.
template <class ActionT>
void undisturbed(ActionT&& action) {
    guard_exceptions([&] { action(); }, [](const char*) {});
}

template <class... ParametersT, class... ArgumentsT>
void tell(const std::function<void(ParametersT...)>& callback, ArgumentsT&&... arguments) {
    if (callback)
        undisturbed([&] { callback(std::forward<ArgumentsT>(arguments)...); });
}

inline void restore(outbox& into, journal& from, outbox::time_point now) {
    for (journal::entry& left : from.left())
        into.restore(left.id, std::move(left.request), left.age, now);
}

} // namespace detail

/// What a tracker tells of requests that it took. Each may be empty; what one throws is dropped.
struct tracker_callbacks {
    /// The service has it.
    std::function<void(outbox::id, const track_response&)> on_delivered{};
    /// It ended otherwise: refused, given up, dropped for a newer one. `why` says more.
    std::function<void(const outbox::ended&)> on_failed{};
    /// What was left when the tracker was destroyed without `close`. With a journal it is there, too.
    std::function<void(std::vector<outbox::ended>)> on_undelivered{};
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
