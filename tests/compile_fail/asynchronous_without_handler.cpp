// expect: promptlayer: this transport is asynchronous: give the call a handler as well
#include <promptlayer.hpp>

void call(promptlayer::client<promptlayer::testing::recording_async_transport>& client) {
#ifdef FIXED
    client.track_prompt({.prompt_name = "a", .request_id = 1},
                        [](promptlayer::result<promptlayer::track_response>) {});
#else
    client.track_prompt({.prompt_name = "a", .request_id = 1});
#endif
}
