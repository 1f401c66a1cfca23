// expect: promptlayer: check_transport takes a Transport that is not const; an AsyncTransport is checked
// expect: together with a callable that runs its loop
#include <promptlayer.hpp>
#include <promptlayer/testing/conformance.hpp>

void check() {
    auto transport = promptlayer::transport_from([](promptlayer::http_request, promptlayer::completion) {});
#ifdef FIXED
    promptlayer::testing::check_transport(transport, [] {});
#else
    promptlayer::testing::check_transport(transport);
#endif
}
