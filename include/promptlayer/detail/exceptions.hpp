#ifndef PROMPTLAYER_DETAIL_EXCEPTIONS_HPP
#define PROMPTLAYER_DETAIL_EXCEPTIONS_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <exception>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Runs `action`; where exceptions exist, one that escapes is given to `on_throw` in words, and goes on if
/// that returns false.
template <class ActionT, class OnThrowT>
void guard_exceptions(ActionT&& action, OnThrowT&& on_throw) {
#if defined(__cpp_exceptions)
    try {
        action();
    } catch (const std::exception& thrown) {
        if (const char* const what = thrown.what(); !on_throw(what ? what : "unknown exception"))
            throw;
    } catch (...) {
        if (!on_throw("unknown exception"))
            throw;
    }
#else
    action();
    static_cast<void>(on_throw);
#endif
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
