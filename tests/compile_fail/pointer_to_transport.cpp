// expect: promptlayer: this is a pointer to a transport: give the transport, or std::ref(*pointer)
#include <promptlayer.hpp>

#include <functional>

void track(promptlayer::testing::recording_transport* transport) {
#if defined(FIXED)
    promptlayer::client client{promptlayer::config{}, std::ref(*transport)};
#else
    promptlayer::client client{promptlayer::config{}, transport};
#endif
}
