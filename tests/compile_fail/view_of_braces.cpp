// expect-gcc: could not convert
// expect-clang: no matching constructor
#include <promptlayer.hpp>

constexpr std::pair<std::string_view, std::string_view> named[] = {{"a", "b"}};

promptlayer::track_metadata_view request{
    .request_id = 1,
#ifdef FIXED
    .metadata = named,
#else
    .metadata = {{"a", "b"}},
#endif
};
