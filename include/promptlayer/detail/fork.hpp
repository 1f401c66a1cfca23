#ifndef PROMPTLAYER_DETAIL_FORK_HPP
#define PROMPTLAYER_DETAIL_FORK_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#if defined(PROMPTLAYER_DEFINITIONS) && !defined(_WIN32)
#if defined(PROMPTLAYER_NO_THREADS)
#include <unistd.h>
#else
#include <atomic>

#include <pthread.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns a number that is another one in a child of `fork`. Costs a nanosecond, unlike `getpid`; with
/// PROMPTLAYER_NO_THREADS it is `getpid`, because there may be no pthread library.
PROMPTLAYER_DECL long process_number() noexcept;

#if defined(PROMPTLAYER_DEFINITIONS)

#if defined(_WIN32)
PROMPTLAYER_DECL long process_number() noexcept { return 0; }
#elif defined(PROMPTLAYER_NO_THREADS)
PROMPTLAYER_DECL long process_number() noexcept { return static_cast<long>(::getpid()); }
#else
PROMPTLAYER_DECL long process_number() noexcept {
    static std::atomic<long> forks{0};
    static const int registered =
        ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
    static_cast<void>(registered);
    return forks.load(std::memory_order_relaxed);
}
#endif

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
