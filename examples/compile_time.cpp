// Checks requests while the program is compiled, if they are constants.

#include <promptlayer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iostream>
#include <string_view>
#include <type_traits>
#include <utility>

using promptlayer::track_prompt_view;

static_assert(promptlayer::is_valid(track_prompt_view{.prompt_name = "greeting", .request_id = 1}));
static_assert(!promptlayer::is_valid(track_prompt_view{.prompt_name = "", .request_id = 1}));
static_assert(!promptlayer::is_valid(track_prompt_view{
    .prompt_name = "greeting", .request_id = 1, .version = 2, .label = "prod"}));

// An invalid request can be written and checked. These two do not compile at all:
//
//   track_prompt_view{.prompt_name = "greeting"};
//       promptlayer: a required member of the request is not given
//   track_prompt_view{.prompt_name = "greeting", .request_id = 2.9};   // neither do true, 'a' and "1"
static_assert(!std::is_convertible_v<double, promptlayer::integer>);
static_assert(!std::is_convertible_v<bool, promptlayer::integer>);
static_assert(!std::is_convertible_v<std::uint64_t, promptlayer::integer>); // may not fit

namespace {

using variable = std::pair<std::string_view, std::string_view>;

// A view refers to its variables, so the variables need a name.
constexpr std::array hello{variable{"user_message", "Hello"}, variable{"tone", "friendly"}};

constexpr std::array requests{
    track_prompt_view{.prompt_name = "greeting", .prompt_input_variables = hello, .request_id = 1},
    track_prompt_view{.prompt_name = "greeting", .request_id = 2, .version = 3},
    track_prompt_view{.prompt_name = "farewell", .request_id = 3, .label = "prod"},
};

static_assert(std::all_of(requests.begin(), requests.end(),
                          [](const track_prompt_view& request) { return promptlayer::is_valid(request); }));

} // namespace

int main() {
    for (const track_prompt_view& request : requests) {
        const auto json = promptlayer::to_json(request); // validates again
        if (!json) {
            std::cerr << json.error() << '\n';
            return 1;
        }
        std::cout << *json << '\n';
    }
}
