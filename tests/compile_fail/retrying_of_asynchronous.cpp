// expect: promptlayer: retrying_transport takes a synchronous Transport; use an AsyncTransport with a tracker
#include <promptlayer.hpp>

void track() {
#if defined(FIXED)
    promptlayer::retrying_transport retrying_transport{promptlayer::testing::recording_transport{}};
#else
    promptlayer::retrying_transport retrying_transport{promptlayer::testing::recording_async_transport{}};
#endif
}
