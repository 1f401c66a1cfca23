// expect: promptlayer: a required member of the request is not given
#include <promptlayer.hpp>

void call(promptlayer::client<promptlayer::testing::recording_transport>& client) {
    auto outcome = client.track_prompt({
#ifdef FIXED
        .prompt_name = "support-response",
#endif
        .request_id = 12345,
    });
}
