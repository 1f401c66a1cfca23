// expect-gcc: declared with attribute 'nodiscard'
// expect-clang: declared with 'nodiscard' attribute
#include <promptlayer.hpp>

void track(promptlayer::client<promptlayer::testing::recording_transport>& client) {
#if defined(FIXED)
    if (!client.track_prompt({.prompt_name = "", .request_id = 1}))
        return;
#else
    client.track_prompt({.prompt_name = "", .request_id = 1});
#endif
}
