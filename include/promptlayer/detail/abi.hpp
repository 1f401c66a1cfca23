#ifndef PROMPTLAYER_DETAIL_ABI_HPP
#define PROMPTLAYER_DETAIL_ABI_HPP

#include <promptlayer/detail/push_macros.hpp>

#include <version>

// The inline namespace of the library. Its name contains each setting that changes a class or the meaning of
// a function.
//
// - Source files with different settings can be linked into one program; each has its own classes and
//   functions.
// - A call that passes a type of the library between such files does not link.
// - A user's class that contains a type of the library must not be passed either. No linker reports this.
#if defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0
#elif defined(__cpp_exceptions)
#define PROMPTLAYER_SETTINGS v0_no_threads
#elif !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_no_exceptions
#else
#define PROMPTLAYER_SETTINGS v0_no_exceptions_no_threads
#endif

// Settings of libstdc++ that change its containers and strings, and so the library's classes.
#if defined(_GLIBCXX_DEBUG)
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS::inline debug_containers
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS::inline old_strings
#else
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS
#endif

// Adds the namespace to the symbol of each function in which a type of the library is only the return type.
#if defined(__GNUC__)
namespace promptlayer {
inline namespace PROMPTLAYER_SETTINGS __attribute__((__abi_tag__)) {
#if defined(_GLIBCXX_DEBUG)
    inline namespace debug_containers __attribute__((__abi_tag__)) {}
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
    inline namespace old_strings __attribute__((__abi_tag__)) {}
#endif
} // namespace PROMPTLAYER_SETTINGS
} // namespace promptlayer
#endif

#include <promptlayer/detail/pop_macros.hpp>

#endif
