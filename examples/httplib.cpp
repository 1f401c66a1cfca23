// Tracks one prompt over cpp-httplib. Without PROMPTLAYER_API_KEY, a service inside this process responds.
// PROMPTLAYER_CA_FILE is a file of CA certificates to trust instead of the system's.

#include <promptlayer/transports/httplib.hpp> // on Windows it must be the first header

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>

#include <cstdlib>
#include <iostream>
#include <optional>

int main() {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }

    // Called for each httplib::Client that the transport creates: at the first request and for another host.
    const auto configure = []([[maybe_unused]] httplib::Client& client) {
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
        if (const char* const ca_file = std::getenv("PROMPTLAYER_CA_FILE"))
            client.set_ca_cert_path(ca_file);
#endif
    };
    promptlayer::client client{config, promptlayer::httplib_transport{configure}};

    const auto tracked = client.track_prompt({
        .prompt_name = "support-response",
        .prompt_input_variables = {{"user_message", "Hello"}},
        .request_id = 12345,
    });
    if (!tracked) {
        std::cerr << tracked.error() << '\n';
        return 1;
    }
    std::cout << "tracked: " << tracked->message << '\n';
    return 0;
}
