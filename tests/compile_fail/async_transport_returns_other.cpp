// expect: promptlayer: this type is not an AsyncTransport: its member function
// expect: `send(http_request, completion)` does not return void
#include <promptlayer.hpp>

struct my_transport {
#ifdef FIXED
    void send(promptlayer::http_request, promptlayer::completion) {}
#else
    int send(promptlayer::http_request, promptlayer::completion) { return 0; }
#endif
};

promptlayer::client client{{.api_key = "pl_key"}, my_transport{}};
