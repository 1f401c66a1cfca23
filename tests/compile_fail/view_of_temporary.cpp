// expect: deleted
#include <promptlayer.hpp>

#include <unordered_map>

using variables = std::unordered_map<std::string, std::string>;

#ifdef FIXED
variables named;
auto request = promptlayer::view_of(named, {.prompt_name = "a", .request_id = 1});
#else
auto request = promptlayer::view_of(variables{}, {.prompt_name = "a", .request_id = 1});
#endif
