// Tracks one prompt over WinHTTP, which is part of Windows. Without PROMPTLAYER_API_KEY, a service inside
// this process responds.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/winhttp.hpp>

#include <iostream>
#include <optional>
#include <utility>

int main() {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }

    // Many threads may share this client. It uses the proxy that is configured in Windows.
    promptlayer::client client{std::move(config), promptlayer::winhttp_transport{}};
    const auto tracked = client.track_prompt({
        .prompt_name = "support-response",
        .prompt_input_variables = {{"user_message", "Hello"}},
        .request_id = 12345,
    });
    if (!tracked) {
        std::cerr << tracked.error() << '\n';
        return 1;
    }
    std::cout << "Tracked: " << tracked->message << '\n';
}
