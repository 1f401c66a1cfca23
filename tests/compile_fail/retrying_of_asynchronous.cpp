// expect: promptlayer: retrying takes a synchronous Transport; an asynchronous one is for a tracker
#include <promptlayer.hpp>

void track() {
#if defined(FIXED)
    promptlayer::retrying retrying{promptlayer::testing::recording_transport{}};
#else
    promptlayer::retrying retrying{promptlayer::testing::recording_async_transport{}};
#endif
}
