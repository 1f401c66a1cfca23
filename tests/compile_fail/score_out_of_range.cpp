// expect: more_than_maximum
#include <promptlayer.hpp>

#ifdef FIXED
constexpr int score = 100;
#else
constexpr int score = 101;
#endif

static_assert(promptlayer::require_valid(promptlayer::track_score_view{.request_id = 1, .score = score}));
