// Tracks several prompts at the same time from a loop that never blocks, such as a game loop. Without
// PROMPTLAYER_API_KEY, a service inside this process responds.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <thread>

/// Keeps a new https connection from loading all CAs of the system within `poll`, for tens of milliseconds.
/// If libcurl knows a directory of CAs, the CA that is needed is looked up there.
void look_up_cas(CURL* easy) {
    const curl_version_info_data* const libcurl = curl_version_info(CURLVERSION_NOW);
    if (libcurl->age >= CURLVERSION_SEVENTH && libcurl->capath)
        curl_easy_setopt(easy, CURLOPT_CAINFO, nullptr);
}

int main() {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }
    int in_flight = 0;
    bool all_tracked = true;
    promptlayer::client client{
        config, promptlayer::curl_multi_transport{look_up_cas}}; // its handlers use the two above
    const auto track = [&](std::int64_t request_id, const std::string& line) {
        ++in_flight;
        const promptlayer::track_prompt request{
            .prompt_name = "dialogue",
            .prompt_input_variables = {{"line", line}},
            .request_id = request_id,
        };
        client.track_prompt(request,
                            [&, request_id](const promptlayer::result<promptlayer::track_response>& tracked) {
                                --in_flight;
                                all_tracked = all_tracked && tracked;
                                if (tracked)
                                    std::cout << request_id << ": " << tracked->message << '\n';
                                else
                                    std::cerr << request_id << ": " << tracked.error() << '\n';
                            });
    };

    for (int frame = 1; frame <= 3 || in_flight > 0; ++frame) {
        if (frame <= 3) // two characters speak
            for (const std::int64_t character : {0, 1})
                track(100 * frame + character, "Hello for the " + std::to_string(frame) + ". time");
        // Calls the handlers of finished requests. It takes microseconds, or about a millisecond for a new
        // https connection.
        client.transport().poll();
        std::this_thread::sleep_for(std::chrono::milliseconds{16});
    }
    return all_tracked ? 0 : 1;
}
