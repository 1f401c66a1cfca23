#ifndef PROMPTLAYER_DETAIL_ABI_HPP
#define PROMPTLAYER_DETAIL_ABI_HPP

#include <promptlayer/detail/push_macros.hpp>

#include <version>

// The inline namespace of the library. It names every setting that changes a class or the meaning of a
// function, so that source files with different settings share a program without sharing these. Passing a
// type of the library from one to the other does not link. A class of the user that holds such a type must
// not pass either; no linker notices that.
#if defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0
#elif defined(__cpp_exceptions)
#define PROMPTLAYER_SETTINGS v0_no_threads
#elif !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_no_exceptions
#else
#define PROMPTLAYER_SETTINGS v0_no_exceptions_no_threads
#endif

// Settings of libstdc++ that change its containers and strings, and with them the classes that hold these.
#if defined(_GLIBCXX_DEBUG)
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS::inline debug_containers
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS::inline old_strings
#else
#define PROMPTLAYER_ABI PROMPTLAYER_SETTINGS
#endif

// Puts the namespace also into the name of a function that has a type of the library as its result only.
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
