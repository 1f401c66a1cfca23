// expect: promptlayer: a required member of the request is not given; {} counts as not given, so write
#include <promptlayer.hpp>

promptlayer::track_metadata request{
    .request_id = 1,
#ifdef FIXED
    .metadata = std::map<std::string, std::string, std::less<>>{},
#else
    .metadata = {},
#endif
};
