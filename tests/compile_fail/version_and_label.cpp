// expect: given_together_with_another_of_its_group
// expect: ::version
#include <promptlayer.hpp>

static_assert(promptlayer::require_valid(promptlayer::track_prompt_view {
    .prompt_name = "a", .request_id = 1,
#if !defined(FIXED)
    .version = 2,
#endif
    .label = "production"
}));
