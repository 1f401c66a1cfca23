// Misuses the interface on purpose. expect_abort.py checks that the program aborts with a message.

#if defined(WITH_ASSERT)
#include <cstdio>
// An engine's assertion: a macro with a name that the header sets aside, and a static variable.
#define check(condition)                                                                                     \
    do {                                                                                                     \
        static bool reported = false;                                                                        \
        if (!(condition) && !reported)                                                                       \
            reported = std::puts("asserted: " #condition) >= 0;                                              \
    } while (false)
#define PROMPTLAYER_ASSERT(condition) check(condition)
#endif

#include <promptlayer/error.hpp>
#include <promptlayer/result.hpp>

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
    const std::string_view mistake = argc == 2 ? argv[1] : "";
#if defined(WITH_ASSERT)
    std::setvbuf(stdout, nullptr, _IONBF, 0);
#endif
    if (mistake == "value")
        return static_cast<int>(promptlayer::result<std::string_view>{promptlayer::error{}}.value().size());
    if (mistake == "error")
        return promptlayer::result<int>{7}.error().status;
    std::fputs("usage: misuse value|error\n", stderr);
    return EXIT_FAILURE;
}
