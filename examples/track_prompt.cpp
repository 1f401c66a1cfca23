// Tracks one prompt from the command line. Run it without arguments, then with --help.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr std::string_view help = R"(Associates a prompt template with a request that was logged before.

usage: track_prompt [OPTION...]

  --prompt-name NAME   the prompt template
  --request-id N       the request
  --var NAME=VALUE     an input variable of the template; may be repeated
  --version N          the version of the template, or
  --label LABEL        the label of that version
  --timeout SECONDS    the time limit of the request, for example 10 or 2.5
  --dry-run            print the HTTP request and send nothing
  --help               print this text

Without the first five options, a sample is tracked. A value may follow '=' as well: --prompt-name=NAME

PROMPTLAYER_API_KEY    the API key; if it is not set, a service inside this process responds
PROMPTLAYER_BASE_URL   the address of the service, if it is not https://api.promptlayer.com

exit status: 0 tracked, 1 refused by the service or not delivered, 2 the options are invalid
)";

enum exit_status { success = 0, not_tracked = 1, invalid_options = 2 };

const std::set<std::string_view> request_options{"--prompt-name", "--request-id", "--var", "--version",
                                                 "--label"};

int print(std::string_view text) {
    std::cout << text << std::flush;
    return std::cout ? success : not_tracked;
}

/// The values of each option, and the problems. A problem never repeats a value, which may be a secret.
struct command_line {
    std::map<std::string_view, std::vector<std::string_view>> given{};
    std::vector<std::string> problems{};

    command_line(int argc, char** argv) {
        for (int i = 1; i < argc; ++i) {
            const std::string_view argument = argv[i];
            const auto equals = argument.find('=');
            const std::string_view option = argument.substr(0, equals);
            const bool has_value = request_options.contains(option) || option == "--timeout";
            if (has_value || argument == "--dry-run" || argument == "--help")
                given[option];
            else
                problem("argument " + std::to_string(i), "is not an option, see --help");
            if (has_value && equals != argument.npos)
                given[option].push_back(argument.substr(equals + 1));
            else if (has_value && i + 1 < argc && !std::string_view{argv[i + 1]}.starts_with("--"))
                given[option].push_back(argv[++i]);
            else if (has_value)
                problem(option, "needs a value");
        }
    }

    void problem(std::string_view where, std::string_view what) {
        problems.push_back(std::string{where}.append(": ").append(what));
    }

    std::optional<std::string_view> text(std::string_view option) {
        const auto values = given.find(option);
        if (values == given.end() || values->second.empty())
            return std::nullopt;
        if (values->second.size() > 1)
            problem(option, "is given more than once");
        return values->second.front();
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
    if (line.given.contains("--help"))
        return print(help);
    const bool sample = std::none_of(request_options.begin(), request_options.end(),
                                     [&](std::string_view option) { return line.given.contains(option); });
    for (const char* const option : {"--prompt-name", "--request-id"})
        if (!sample && !line.given.contains(option))
            line.problem(option, "is missing");
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
    constexpr std::string_view integer_rule = "must be an integer that fits in 64 bits signed";
    // A view refers to the arguments and copies none of them.
    const promptlayer::track_prompt_view request{
        .prompt_name = line.text("--prompt-name").value_or("support-response"),
        .prompt_input_variables = variables,
        .request_id = line.number<std::int64_t>("--request-id", integer_rule).value_or(12345),
        .version = line.number<std::int64_t>("--version", integer_rule),
        .label = line.text("--label"),
    };
    promptlayer::config config = promptlayer::config_from_environment();
    const auto seconds = line.number<double>("--timeout", "must be seconds, 0.001 to 86400", 0.001, 86400);
    if (seconds)
        config.timeout =
            std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>{*seconds});

    const bool has_key = !config.api_key.empty();
    if (!has_key)
        config.api_key = "no-key";
    const auto encoded = promptlayer::encode(config, request);
    if (!encoded)
        for (const promptlayer::violation& violation : encoded.error().violations)
            line.problems.push_back(to_string(violation));
    for (const std::string& problem : line.problems)
        std::cerr << problem << '\n';
    if (!line.problems.empty())
        return invalid_options;
    if (line.given.contains("--dry-run"))
        return print(promptlayer::to_string(*encoded) + '\n');

    std::optional<promptlayer::testing::loopback_service> service;
    if (!has_key) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n";
        config.base_url = service.emplace(config.api_key).base_url();
    }
    std::cout << "Sending to " << config.base_url << ": " << encoded->body << '\n';
    promptlayer::client client{config, promptlayer::curl_transport{}};
    const auto tracked = client.track_prompt(request);
    if (tracked)
        return print("Tracked: " + tracked->message + '\n');
    const promptlayer::error& error = tracked.error();
    std::cerr << error << '\n';
    if (error.retryable() && error.retry_after)
        std::cerr << "Hint: try again in " << error.retry_after->count() << " s.\n";
    else if (error.retryable())
        std::cerr << "Hint: the same request may succeed later.\n";
    return not_tracked;
}
