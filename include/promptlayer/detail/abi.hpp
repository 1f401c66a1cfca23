#ifndef PROMPTLAYER_DETAIL_ABI_HPP
#define PROMPTLAYER_DETAIL_ABI_HPP

// The inline namespace of the library. It names every setting that changes a class or the meaning of a
// function, so that source files with different settings share a program without sharing these. Passing a
// type of the library from one to the other does not link.
#if defined(__cpp_exceptions) && !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_ABI v0
#elif defined(__cpp_exceptions)
#define PROMPTLAYER_ABI v0_no_threads
#elif !defined(PROMPTLAYER_NO_THREADS)
#define PROMPTLAYER_ABI v0_no_exceptions
#else
#define PROMPTLAYER_ABI v0_no_exceptions_no_threads
#endif

#endif
