#ifndef PROMPTLAYER_TESTS_CHILD_PROCESS_HPP
#define PROMPTLAYER_TESTS_CHILD_PROCESS_HPP

#include <unistd.h>

#ifdef __linux__
extern "C" void __gcov_dump() __attribute__((weak));
#endif

namespace test_support {

/// Ends a child of `fork`. Unlike `_exit`, writes its counts if coverage is measured.
[[noreturn]] inline void end_child(int status) {
#ifdef __linux__
    if (__gcov_dump)
        __gcov_dump();
#endif
    ::_exit(status);
}

} // namespace test_support

#endif
