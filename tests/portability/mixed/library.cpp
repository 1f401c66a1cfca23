// A shared library that uses promptlayer and exports two functions. It is built twice.

#include "library.hpp"

extern "C" {

library_export void make_error(promptlayer::error& error, int status) {
    promptlayer::client client{{.api_key = "pl_key"}, promptlayer::testing::recording_transport{}};
    client.transport().respond({status, {}, R"({"message":"said by the service"})"});
    error = client.track_prompt({.prompt_name = "a", .request_id = 1}).error();
}

library_export bool is_error(const promptlayer::error& e, promptlayer::errc code) {
    return e.code == code && promptlayer::to_string(e).ends_with("said by the service");
}

} // extern "C"
