// expect: promptlayer: this transport is synchronous: call without a handler and use what
// expect: is returned
#include <promptlayer.hpp>

void call(promptlayer::client<promptlayer::testing::recording_transport>& client) {
#ifdef FIXED
    static_cast<void>(client.track_prompt({.prompt_name = "a", .request_id = 1}));
#else
    client.track_prompt({.prompt_name = "a", .request_id = 1},
                        [](promptlayer::result<promptlayer::track_response>) {});
#endif
}
