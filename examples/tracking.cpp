// Sends one request of the tracking family from the command line, as JSON. Run it without arguments for help.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl.hpp>

#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

namespace {

constexpr std::string_view help = R"(Sends one request to PromptLayer.

usage: tracking log|prompt|score|metadata|group JSON

JSON is the body of the request, or - to read it from the standard input:

  tracking score '{"request_id": 12345, "score": 95}'
  tracking metadata '{"request_id": 12345, "metadata": {"user": "17"}}'
  tracking group '{"request_id": 12345, "group_id": 7}'

PROMPTLAYER_API_KEY    the API key; if it is not set, a service inside this process responds
PROMPTLAYER_BASE_URL   the address of the service, if it is not https://api.promptlayer.com

exit status: 0 sent, 1 refused by the service or not delivered, 2 the arguments are invalid
)";

enum exit_status { sent = 0, not_sent = 1, invalid_arguments = 2 };

using curl_client = promptlayer::client<promptlayer::curl_transport>;

std::string describe(const promptlayer::track_response& reply) { return reply.message; }
std::string describe(const promptlayer::log_response& reply) {
    return "request_id " + std::to_string(reply.id);
}

/// Reads a request of one type, sends it and prints the reply.
template <class RequestT>
int send(curl_client& client, std::string_view json) {
    const auto request = promptlayer::from_json<RequestT>(json);
    if (!request) {
        std::cerr << request.error() << '\n';
        return invalid_arguments;
    }
    const auto reply = client.call(*request);
    if (!reply) {
        std::cerr << reply.error() << '\n';
        return not_sent;
    }
    std::cout << describe(*reply) << '\n';
    return sent;
}

} // namespace

int main(int argc, char** argv) {
    const std::string_view command = argc == 3 ? argv[1] : "";
    int (*const send_request)(curl_client&, std::string_view) =
        command == "log"        ? send<promptlayer::log_request>
        : command == "prompt"   ? send<promptlayer::track_prompt>
        : command == "score"    ? send<promptlayer::track_score>
        : command == "metadata" ? send<promptlayer::track_metadata>
        : command == "group"    ? send<promptlayer::track_group>
                                : nullptr;
    if (!send_request) {
        (argc == 1 ? std::cout : std::cerr) << help;
        return argc == 1 ? sent : invalid_arguments;
    }
    std::string json = argv[2];
    if (json == "-")
        json.assign(std::istreambuf_iterator<char>{std::cin}, {});

    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cerr << "PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }
    curl_client client{config, promptlayer::curl_transport{}};
    return send_request(client, json);
}
