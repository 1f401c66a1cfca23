// expect: promptlayer: a required member of the request is not given
#include <promptlayer.hpp>

constexpr promptlayer::track_prompt_view request{
    .prompt_name = "support-response",
#ifdef FIXED
    .request_id = 12345,
#endif
};
