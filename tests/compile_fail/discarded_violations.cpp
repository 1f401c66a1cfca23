// expect-gcc: declared with attribute 'nodiscard'
// expect-clang: declared with 'nodiscard' attribute
#include <promptlayer.hpp>

void check(const promptlayer::track_prompt& request) {
#if defined(FIXED)
    static_cast<void>(promptlayer::validate(request));
#else
    promptlayer::validate(request);
#endif
}
