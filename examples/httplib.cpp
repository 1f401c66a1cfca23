// Tracks one prompt over cpp-httplib. PROMPTLAYER_API_KEY is the key; without it, a service inside this
// process answers. PROMPTLAYER_CA_FILE names authorities to trust in place of the system's.

#include <promptlayer/transports/httplib.hpp> // before the others, for Windows

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>

#include <cstdlib>
#include <iostream>
#include <optional>

int main() {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process answers.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }

    // Called for each client of httplib that the transport makes: at the first request, and when the host is
    // another one.
    const auto configure = []([[maybe_unused]] httplib::Client& client) {
#ifdef CPPHTTPLIB_OPENSSL_SUPPORT
        if (const char* const authorities = std::getenv("PROMPTLAYER_CA_FILE"))
            client.set_ca_cert_path(authorities);
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
