// Breaks a rule of the interface on purpose: the program has to end, and to say why. Run by expect_abort.py.

#if defined(WITH_ASSERT)
#include <cstdio>
// As an engine has it: by a macro whose name the header sets aside, and with a static variable.
#define check(condition)                                                                                     \
    do {                                                                                                     \
        static bool reported = false;                                                                        \
        if (!(condition) && !reported)                                                                       \
            reported = std::puts("asserted: " #condition) >= 0;                                              \
    } while (false)
#define PROMPTLAYER_ASSERT(condition) check(condition)
#endif

#include <promptlayer.hpp>

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
    const std::string_view what = argc == 2 ? argv[1] : "";
#if defined(WITH_ASSERT)
    std::setvbuf(stdout, nullptr, _IONBF, 0);
#endif
    if (what == "value")
        return static_cast<int>(promptlayer::result<std::string_view>{promptlayer::error{}}.value().size());
    if (what == "error")
        return promptlayer::result<int>{7}.error().status;
    std::fputs("usage: misuse value|error\n", stderr);
    return EXIT_FAILURE;
}
