// expect: promptlayer: polled_tracker takes an AsyncTransport; background_tracker or
#include <promptlayer.hpp>

void track() {
#if defined(FIXED)
    promptlayer::polled_tracker tracker{{}, promptlayer::testing::recording_async_transport{}};
#else
    promptlayer::polled_tracker tracker{{}, promptlayer::testing::recording_transport{}};
#endif
}
