// expect: promptlayer: this type is not a Transport: it has neither a public member function
// expect: `transport_result send(const http_request&)` nor `void send(http_request, completion)`
#include <promptlayer.hpp>

struct my_transport {
#ifdef FIXED
    promptlayer::transport_result send(const promptlayer::http_request&) {
        return promptlayer::http_response{200, {}, ""};
    }
#else
    promptlayer::transport_result post(const promptlayer::http_request&) {
        return promptlayer::http_response{200, {}, ""};
    }
#endif
};

promptlayer::client client{{.api_key = "pl_key"}, my_transport{}};
