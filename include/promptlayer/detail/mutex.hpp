#ifndef PROMPTLAYER_DETAIL_MUTEX_HPP
#define PROMPTLAYER_DETAIL_MUTEX_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#ifndef PROMPTLAYER_NO_THREADS
#include <mutex>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

#ifndef PROMPTLAYER_NO_THREADS
using mutex = std::mutex;
using lock = std::lock_guard<std::mutex>;
#else
struct mutex {};
struct lock {
    explicit lock(mutex&) noexcept {}
};
#endif

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
