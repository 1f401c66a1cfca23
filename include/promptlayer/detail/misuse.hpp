#ifndef PROMPTLAYER_DETAIL_MISUSE_HPP
#define PROMPTLAYER_DETAIL_MISUSE_HPP

#include <promptlayer/detail/abi.hpp>

#if defined(PROMPTLAYER_DEFINITIONS)

#include <promptlayer/detail/push_macros.hpp>

#include <cstdio>
#include <cstdlib>

#include <promptlayer/detail/pop_macros.hpp>

// The function stands after pop_macros.hpp, because PROMPTLAYER_ASSERT may be written with the program's own
// macros.

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Writes `message` to standard error and ends the program, because the caller broke a rule of the interface.
///
/// A program may define `PROMPTLAYER_ASSERT(condition)`, in all its files. It is called with a false
/// condition before the program ends. If it throws, the program continues.
///
/// Only the declaration in result.hpp is [[noreturn]], because `noreturn` may be a macro here.
PROMPTLAYER_DECL void misuse(const char* message) {
    static_cast<void>(std::fputs(message, stderr));
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

#endif
