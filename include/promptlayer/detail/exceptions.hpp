#ifndef PROMPTLAYER_DETAIL_EXCEPTIONS_HPP
#define PROMPTLAYER_DETAIL_EXCEPTIONS_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <exception>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Calls `action` and returns its result. If `action` throws, returns the result of `on_throw` for the text
/// of the exception.
template <class ActionT, class OnThrowT>
auto guard_exceptions(ActionT&& action, OnThrowT&& on_throw) -> decltype(action()) {
#if defined(__cpp_exceptions)
    try {
        return action();
    } catch (const std::exception& thrown) {
        const char* const text = thrown.what();
        return on_throw(text ? text : "unknown exception");
    } catch (...) {
        return on_throw("unknown exception");
    }
#else
    static_cast<void>(on_throw);
    return action();
#endif
}

/// Rethrows the current exception. For `on_throw` of `guard_exceptions`.
#if defined(__cpp_exceptions)
[[noreturn]] inline void rethrow() { throw; }
#else
inline void rethrow() {}
#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
