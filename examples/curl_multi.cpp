// Tracks several prompts at once from a loop that never waits, such as that of a game.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <thread>

int main() {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process answers.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }
    int to_be_answered = 0;
    bool all_tracked = true;
    promptlayer::client client{config, promptlayer::curl_multi_transport{}}; // goes before what handlers use
    const auto track = [&](std::int64_t request_id, const std::string& line) {
        ++to_be_answered;
        const promptlayer::track_prompt request{
            .prompt_name = "dialogue",
            .prompt_input_variables = {{"line", line}},
            .request_id = request_id,
        };
        client.track_prompt(request,
                            [&, request_id](const promptlayer::result<promptlayer::track_response>& tracked) {
                                --to_be_answered;
                                all_tracked = all_tracked && tracked;
                                if (tracked)
                                    std::cout << request_id << ": " << tracked->message << '\n';
                                else
                                    std::cerr << request_id << ": " << tracked.error() << '\n';
                            });
    };

    for (int frame = 1; frame <= 3 || to_be_answered > 0; ++frame) {
        if (frame <= 3) // two of the characters speak
            for (const std::int64_t character : {0, 1})
                track(100 * frame + character, "Hello for the " + std::to_string(frame) + ". time");
        // Calls the handlers of what has been answered. Microseconds, but for a new TLS connection: some
        // milliseconds, and tens of them to load the system's authorities.
        client.transport().poll();
        std::this_thread::sleep_for(std::chrono::milliseconds{16});
    }
    return all_tracked ? 0 : 1;
}
