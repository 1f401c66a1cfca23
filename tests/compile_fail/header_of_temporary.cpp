// expect-gcc: use of deleted function
// expect-clang: call to deleted function 'find_header'
#include <promptlayer.hpp>

#include <string>
#include <vector>

std::vector<promptlayer::header> headers();

const std::string* retry_after() {
#if defined(FIXED)
    static const std::vector<promptlayer::header> list = headers();
    return promptlayer::find_header(list, "Retry-After");
#else
    return promptlayer::find_header(headers(), "Retry-After");
#endif
}
