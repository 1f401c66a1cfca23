// expect: promptlayer: from_json needs a model that owns its strings, such as track_prompt
#include <promptlayer.hpp>

#ifdef FIXED
auto request = promptlayer::from_json<promptlayer::track_prompt>("{}");
#else
auto request = promptlayer::from_json<promptlayer::track_prompt_view>("{}");
#endif
