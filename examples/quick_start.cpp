// Tracks one prompt through a transport of your own. This transport prints the request and returns a
// response, so nothing leaves the process.

#include <promptlayer.hpp>

#include <iostream>

struct printing_transport { // satisfies promptlayer::Transport
    promptlayer::transport_result send(const promptlayer::http_request& request) {
        std::cout << request << '\n'; // your program sends the request with its HTTP client
        return promptlayer::http_response{200, {}, R"({"success":true,"message":"Tracked"})"};
    }
};

int main() {
    promptlayer::client client{{.api_key = "pl_..."}, printing_transport{}};

    const auto tracked = client.track_prompt({
        .prompt_name = "support-response",
        .prompt_input_variables = {{"user_message", "Hello"}},
        .request_id = 12345,
        .version = 2,
    });
    if (!tracked) {
        std::cerr << tracked.error() << '\n';
        return 1;
    }
    std::cout << tracked->message << '\n';
}
