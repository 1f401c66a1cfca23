// expect: promptlayer: this type is not a Transport: it has neither a public member function
#include <promptlayer.hpp>

void track() {
#if defined(FIXED)
    promptlayer::background_tracker tracker{{}, promptlayer::testing::recording_transport{}};
#else
    promptlayer::background_tracker tracker{{}, 7};
#endif
}
