// expect-gcc: has no non-static data member named 'promt_name'
// expect-clang: field designator 'promt_name' does not refer to any field in type 'promptlayer::track_prompt'
#include <promptlayer.hpp>

void track(promptlayer::client<promptlayer::testing::recording_transport>& client) {
    static_cast<void>(client.track_prompt(promptlayer::track_prompt {
#if defined(FIXED)
        .prompt_name = "a",
#else
        .promt_name = "a",
#endif
        .request_id = 1
    }));
}
