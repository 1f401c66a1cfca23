// A user's program that records a request and prints it.
#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp> // a part outside the single header

#include <iostream>

int main() {
    promptlayer::client client{{.api_key = "pl_consumer"}, promptlayer::testing::recording_transport{}};
    client.transport().respond(
        promptlayer::http_response{200, {}, R"({"success": true, "message": "done"})"});
    static_assert(!std::is_copy_constructible_v<promptlayer::file_journal>);
    const auto tracked = client.track_prompt({.prompt_name = "support-response", .request_id = 12345});
    if (!tracked) {
        std::cerr << tracked.error() << '\n';
        return 1;
    }
    std::cout << client.transport().requests().at(0) << '\n' << tracked->message << '\n';
}
