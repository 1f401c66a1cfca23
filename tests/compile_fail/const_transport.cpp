// expect: promptlayer: this transport is const, but its member function `send` is not
#include <promptlayer.hpp>

#include <functional>

void track(promptlayer::testing::recording_transport& transport) {
#if defined(FIXED)
    promptlayer::retrying_transport retrying{std::ref(transport)};
#else
    promptlayer::retrying_transport retrying{std::cref(transport)};
#endif
}
