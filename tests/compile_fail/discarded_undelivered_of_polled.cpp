// expect-gcc: declared with attribute 'nodiscard'
// expect-clang: declared with 'nodiscard' attribute
#include <promptlayer.hpp>

void leave(promptlayer::polled_tracker& tracker) {
#if defined(FIXED)
    const auto undelivered =
#endif
        tracker.close();
}
