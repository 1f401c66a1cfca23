// expect: promptlayer: a required member of the request is not given
#include <promptlayer.hpp>

promptlayer::track_prompt request() {
    return {
        .prompt_name = "support-response",
#ifdef FIXED
        .request_id = 12345,
#endif
    };
}
