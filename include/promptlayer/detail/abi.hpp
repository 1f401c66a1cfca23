#ifndef PROMPTLAYER_DETAIL_ABI_HPP
#define PROMPTLAYER_DETAIL_ABI_HPP

#include <promptlayer/detail/push_macros.hpp>

#include <version>

// If all files of a program define PROMPTLAYER_SEPARATE_COMPILATION, the headers only declare functions that
// are neither templates nor constexpr. One source file also defines PROMPTLAYER_SOURCE and so compiles these
// functions; `source.cpp` beside the headers is such a file.
#if defined(PROMPTLAYER_SOURCE) && !defined(PROMPTLAYER_SEPARATE_COMPILATION)
#define PROMPTLAYER_SEPARATE_COMPILATION
#endif
#if !defined(PROMPTLAYER_SEPARATE_COMPILATION)
#define PROMPTLAYER_DEFINITIONS
#define PROMPTLAYER_DECL inline
#else
#if defined(PROMPTLAYER_SOURCE)
#define PROMPTLAYER_DEFINITIONS
#endif
#define PROMPTLAYER_DECL
#endif

// The inline namespace of the library. Its name contains each setting that changes a class or the meaning of
// a function.
//
// - Source files with different settings can be linked into one program, unless only some are header-only;
//   each setting has its own classes and functions.
// - A call that passes a type of the library between such files does not link.
// - A user's class that contains a type of the library must not be passed either. No linker reports this.
#if defined(PROMPTLAYER_SEPARATE_COMPILATION) && defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_compiled
#elif defined(PROMPTLAYER_SEPARATE_COMPILATION) && defined(__cpp_exceptions)
#define PROMPTLAYER_SETTINGS v0_compiled_no_threads
#elif defined(PROMPTLAYER_SEPARATE_COMPILATION) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_SETTINGS v0_compiled_no_exceptions
#elif defined(PROMPTLAYER_SEPARATE_COMPILATION)
#define PROMPTLAYER_SETTINGS v0_compiled_no_exceptions_no_threads
#elif defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
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

// Files of both modes, header-only and separately compiled, do not link into one program: the linker reports
// that `promptlayer_separate_compilation` differs. LLVM's linkers and those for Windows with MinGW do not;
// there the namespaces keep the modes apart.
#if defined(_MSC_VER)
#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
#pragma detect_mismatch("promptlayer_separate_compilation", "1")
#else
#pragma detect_mismatch("promptlayer_separate_compilation", "0")
#endif
#elif defined(__ELF__)
extern "C" {
#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
[[gnu::used, gnu::visibility("hidden")]] inline thread_local char promptlayer_separate_compilation = 1;
#else
[[gnu::used, gnu::visibility("hidden")]] inline char promptlayer_separate_compilation = 0;
#endif
}
#endif

#include <promptlayer/detail/pop_macros.hpp>

#elif defined(PROMPTLAYER_SOURCE) && !defined(PROMPTLAYER_DEFINITIONS)
#error "promptlayer: define PROMPTLAYER_SOURCE before the library is included for the first time"
#endif
