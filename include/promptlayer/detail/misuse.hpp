#ifndef PROMPTLAYER_DETAIL_MISUSE_HPP
#define PROMPTLAYER_DETAIL_MISUSE_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstdio>
#include <cstdlib>

// The macros are restored before the function, because PROMPTLAYER_ASSERT may use macros of the program.
#include <promptlayer/detail/pop_macros.hpp>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Writes `message` to standard error and ends the program, because the caller broke a rule of the interface.
///
/// A program may define `PROMPTLAYER_ASSERT(condition)`, in all its files. It is called with a false
/// condition before the program ends. If it throws, the program continues.
///
/// Only the declaration in result.hpp is [[noreturn]], because `noreturn` may be a macro here.
inline void misuse(const char* message) {
    std::fputs(message, stderr);
#if defined(PROMPTLAYER_ASSERT)
    const bool interface_is_used_as_promised = false;
    PROMPTLAYER_ASSERT(interface_is_used_as_promised);
    static_cast<void>(interface_is_used_as_promised);
#endif
    std::abort();
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif
