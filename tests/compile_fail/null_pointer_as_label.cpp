// expect: 'std::nullptr_t' to '
#include <promptlayer.hpp>

#ifdef FIXED
promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1, .label = "production"};
#else
promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1, .label = nullptr};
#endif
