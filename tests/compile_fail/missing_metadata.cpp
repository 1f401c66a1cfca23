// expect: promptlayer: a required member of the request is not given
#include <promptlayer.hpp>

promptlayer::track_metadata request{
    .request_id = 1,
#ifdef FIXED
    .metadata = {{"a", "b"}},
#endif
};
