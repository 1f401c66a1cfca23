// expect: promptlayer: check_transport takes an AsyncTransport that is not const if a callable runs its
// expect: loop; a Transport is checked without one
#include <promptlayer.hpp>
#include <promptlayer/testing/conformance.hpp>

#ifdef FIXED
auto
#else
const auto
#endif
    transport = promptlayer::transport_from([](promptlayer::http_request, promptlayer::completion) {});

void check() {
    promptlayer::testing::check_transport(transport, [] {});
}
