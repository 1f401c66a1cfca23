// expect-gcc: use of deleted function
// expect-clang: call to deleted function 'find_header'
#include <promptlayer.hpp>

#include <string>
#include <vector>

std::vector<promptlayer::header> headers();

const std::string* found() {
#if defined(FIXED)
    static const std::vector<promptlayer::header> kept = headers();
    return promptlayer::find_header(kept, "Retry-After");
#else
    return promptlayer::find_header(headers(), "Retry-After");
#endif
}
