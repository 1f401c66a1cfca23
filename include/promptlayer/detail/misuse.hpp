#ifndef PROMPTLAYER_DETAIL_MISUSE_HPP
#define PROMPTLAYER_DETAIL_MISUSE_HPP

#include <promptlayer/detail/abi.hpp>

#if defined(PROMPTLAYER_DEFINITIONS)

#include <cstdio>
#include <cstdlib>

// Not between push_macros.hpp and pop_macros.hpp, because PROMPTLAYER_ASSERT may be written with the
// program's own macros.

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Ends the program, with a message on standard error, because the caller broke a rule of the interface.
/// If a program defines `PROMPTLAYER_ASSERT(condition)`, in all its files, this calls it with a condition
/// that is false. If that throws, the program goes on. The declaration in `result.hpp` says [[noreturn]],
/// which may be a macro here.
PROMPTLAYER_DECL void misuse(const char* message) {
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

#endif
