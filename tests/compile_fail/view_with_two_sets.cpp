// expect: no_variables
#include <promptlayer.hpp>

std::map<std::string, std::string> named;
constexpr std::pair<std::string_view, std::string_view> other[] = {{"a", "b"}};

#ifdef FIXED
auto request = promptlayer::view_of(named, {.prompt_name = "a", .request_id = 1});
#else
auto request =
    promptlayer::view_of(named, {.prompt_name = "a", .prompt_input_variables = other, .request_id = 1});
#endif
