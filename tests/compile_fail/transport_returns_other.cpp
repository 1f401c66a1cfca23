// expect: promptlayer: this type is not a Transport: its member function `send(const http_request&)`
// expect: does not return a transport_result
#include <promptlayer.hpp>

struct my_transport {
#ifdef FIXED
    promptlayer::transport_result send(const promptlayer::http_request&) {
        return promptlayer::http_response{200, {}, ""};
    }
#else
    int send(const promptlayer::http_request&) { return 200; }
#endif
};

promptlayer::client client{{.api_key = "pl_key"}, my_transport{}};
