// expect: promptlayer: this type is not a Transport: it has neither a public member function
#include <promptlayer.hpp>

promptlayer::client client{{.api_key = "pl_key"},
                           promptlayer::transport_from([](const promptlayer::http_request&) {
#ifdef FIXED
                               return promptlayer::http_response{200, {}, ""};
#else
                               return 200;
#endif
                           })};
