// Tracks one prompt from the command line. Start it without arguments, then with --help.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr std::string_view help = R"(Ties a prompt template to a request that was logged before.

usage: track_prompt [OPTION...]

  --prompt-name NAME   the prompt template
  --request-id N       the request
  --var NAME=VALUE     an input variable of the template; may be repeated
  --version N          the version of the template, or
  --label LABEL        the label of that version
  --timeout SECONDS    how long to wait for an answer, such as 10 or 2.5
  --dry-run            print the HTTP request and send nothing
  --help               print this

Without any of the first five, a sample is tracked. A value may also follow a '=': --prompt-name=NAME

PROMPTLAYER_API_KEY    the key; without it, a service inside this process answers
PROMPTLAYER_BASE_URL   where the service is, if not at https://api.promptlayer.com

exit status: 0 tracked, 1 the service or the network said no, 2 there is nothing valid to send
)";

enum exit_status { success = 0, said_no = 1, not_valid = 2 };

constexpr std::array<std::string_view, 6> takes_value{"--prompt-name", "--request-id", "--var",
                                                      "--version",     "--label",      "--timeout"};

int printed(std::string_view text) {
    std::cout << text << std::flush;
    return std::cout ? success : said_no;
}

/// The values of each option, and what is wrong with them. No problem repeats a value: it may be a secret.
struct command_line {
    std::map<std::string_view, std::vector<std::string_view>> given{};
    std::vector<std::string> problems{};

    command_line(int argc, char** argv) {
        for (int i = 1; i < argc; ++i) {
            const std::string_view argument = argv[i];
            const auto equals = argument.find('=');
            const std::string_view option = argument.substr(0, equals);
            if (std::find(takes_value.begin(), takes_value.end(), option) != takes_value.end()) {
                auto& values = given[option];
                if (equals != argument.npos)
                    values.push_back(argument.substr(equals + 1));
                else if (i + 1 < argc && !std::string_view{argv[i + 1]}.starts_with("--"))
                    values.push_back(argv[++i]);
                else
                    problem(option, "needs a value");
            } else if (argument == "--dry-run" || argument == "--help") {
                given[argument];
            } else if (option == "--dry-run" || option == "--help") {
                problem(option, "takes no value");
            } else if (option.starts_with("--") &&
                       option.find_first_not_of("abcdefghijklmnopqrstuvwxyz-") == option.npos) {
                problem(option, "is not an option, see --help");
            } else {
                problem("argument " + std::to_string(i), "belongs to no option, see --help");
            }
        }
    }

    void problem(std::string_view where, std::string_view what) {
        problems.push_back(std::string{where}.append(": ").append(what));
    }

    std::optional<std::string_view> text(std::string_view option) {
        const auto found = given.find(option);
        if (found == given.end() || found->second.empty())
            return std::nullopt;
        if (found->second.size() > 1)
            problem(option, "is given more than once");
        return found->second.front();
    }

    template <class Number>
    std::optional<Number> number(std::string_view option, std::string_view rule,
                                 Number least = std::numeric_limits<Number>::lowest(),
                                 Number most = std::numeric_limits<Number>::max()) {
        const auto digits = text(option);
        std::istringstream in{std::string{digits.value_or("")}};
        Number value{};
        if (in >> std::noskipws >> value && in.eof() && value >= least && value <= most)
            return value;
        if (digits)
            problem(option, rule);
        return std::nullopt;
    }
};

} // namespace

int main(int argc, char** argv) {
    command_line line{argc, argv};
    if (line.given.contains("--help")) {
        return printed(help);
    }
    const bool sample = std::none_of(takes_value.begin(), takes_value.end() - 1,
                                     [&](std::string_view option) { return line.given.contains(option); });
    for (const char* const option : {"--prompt-name", "--request-id"}) {
        if (!sample && !line.given.contains(option))
            line.problem(option, "is missing");
    }
    std::vector<std::pair<std::string_view, std::string_view>> variables;
    if (sample)
        variables.emplace_back("user_message", "Hello");
    for (const std::string_view variable : line.given["--var"]) {
        const auto equals = variable.find('=');
        if (equals == variable.npos)
            line.problem("--var", "must be NAME=VALUE");
        else
            variables.emplace_back(variable.substr(0, equals), variable.substr(equals + 1));
    }
    constexpr std::string_view whole = "must be an integer that fits in 64 bits signed";
    // A view refers to the arguments; it copies none of them.
    const promptlayer::track_prompt_view request{
        .prompt_name = line.text("--prompt-name").value_or("support-response"),
        .prompt_input_variables = variables,
        .request_id = line.number<std::int64_t>("--request-id", whole).value_or(12345),
        .version = line.number<std::int64_t>("--version", whole),
        .label = line.text("--label"),
    };
    promptlayer::config config = promptlayer::config_from_environment();
    if (const auto seconds =
            line.number<double>("--timeout", "must be seconds, 0.001 to 86400", 0.001, 86400))
        config.timeout =
            std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>{*seconds});

    const bool has_key = !config.api_key.empty();
    if (!has_key)
        config.api_key = "no-key";
    const auto encoded = promptlayer::encode(config, request);
    if (!encoded) {
        for (const promptlayer::violation& broken : encoded.error().violations)
            line.problems.push_back(to_string(broken));
    }
    for (const std::string& problem : line.problems)
        std::cerr << problem << '\n';
    if (!line.problems.empty())
        return not_valid;
    if (line.given.contains("--dry-run")) {
        return printed(promptlayer::to_string(*encoded) + '\n');
    }

    std::optional<promptlayer::testing::loopback_service> service;
    if (!has_key) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process answers.\n";
        config.base_url = service.emplace(config.api_key).base_url();
    }
    std::cout << "Sending to " << config.base_url << ": " << encoded->body << '\n';
    promptlayer::client client{config, promptlayer::curl_transport{}};
    const auto tracked = client.track_prompt(request);
    if (tracked) {
        std::cout << "Tracked: " << tracked->message << '\n';
        return success;
    }
    const promptlayer::error& why = tracked.error();
    std::cerr << why << '\n';
    if (why.retryable() && why.retry_after)
        std::cerr << "Hint: try again in " << why.retry_after->count() << " s.\n";
    else if (why.retryable())
        std::cerr << "Hint: the same request may succeed later.\n";
    return said_no;
}
