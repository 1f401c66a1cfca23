// expect: 'double' to '
#include <promptlayer.hpp>

#ifdef FIXED
promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1, .version = 2};
#else
promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1, .version = 2.9};
#endif
