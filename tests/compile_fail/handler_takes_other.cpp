// expect: promptlayer: the handler cannot be called with a result of the reply
#include <promptlayer.hpp>

void call(promptlayer::client<promptlayer::testing::recording_async_transport>& client) {
#ifdef FIXED
    client.track_prompt({.prompt_name = "a", .request_id = 1},
                        [](promptlayer::result<promptlayer::track_response>) {});
#else
    client.track_prompt({.prompt_name = "a", .request_id = 1}, [](int) {});
#endif
}
