// expect: promptlayer: this type is not a model, it has no member type named schema
#include <promptlayer.hpp>

#ifdef FIXED
bool valid = promptlayer::is_valid(promptlayer::track_prompt{.prompt_name = "a", .request_id = 1});
#else
bool valid = promptlayer::is_valid(7);
#endif
