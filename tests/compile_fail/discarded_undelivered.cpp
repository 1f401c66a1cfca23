// expect-gcc: declared with attribute 'nodiscard'
// expect-clang: declared with 'nodiscard' attribute
#include <promptlayer.hpp>

#include <chrono>

void leave(promptlayer::background_tracker& tracker) {
#if defined(FIXED)
    const auto undelivered =
#endif
        tracker.close(std::chrono::seconds{2});
}
