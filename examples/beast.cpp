// Tracks several prompts at the same time from coroutines on Boost.Asio. Without PROMPTLAYER_API_KEY, a
// service inside this process responds.

#include <promptlayer.hpp>
#include <promptlayer/asio.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/beast.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cstdint>
#include <iostream>
#include <optional>

namespace asio = boost::asio;

using beast_client = promptlayer::client<promptlayer::beast_transport>;

asio::awaitable<void> track(beast_client& client, std::int64_t request_id, int& tracked_count) {
    const promptlayer::track_prompt request{
        .prompt_name = "support-response",
        .prompt_input_variables = {{"user_message", "Hello"}},
        .request_id = request_id,
    };
    const auto tracked = co_await promptlayer::async_track_prompt(client, request, asio::use_awaitable);
    if (tracked) {
        ++tracked_count;
        std::cout << request_id << ": " << tracked->message << '\n';
    } else {
        std::cerr << request_id << ": " << tracked.error() << '\n';
    }
}

int main() {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }

    asio::ssl::context tls{asio::ssl::context::tls_client};
    tls.set_default_verify_paths(); // trusts the certificate authorities of the system
    asio::io_context context;
    beast_client client{config, promptlayer::beast_transport{context, tls}};

    constexpr int count = 4;
    int tracked_count = 0;
    for (int i = 0; i < count; ++i)
        asio::co_spawn(context, track(client, 12345 + i, tracked_count), asio::detached);
    context.run();
    std::cout << tracked_count << " of " << count << " tracked\n";
    return tracked_count == count ? 0 : 1;
}
