// expect: promptlayer: from_json needs a model that keeps variables in a map of strings
#include <promptlayer.hpp>

struct model {
#ifdef FIXED
    std::map<std::string, std::string> tags{};
#else
    std::map<std::string, std::string_view> tags{};
#endif
    using schema = promptlayer::schema<promptlayer::field<"tags", &model::tags>>;
};

auto request = promptlayer::from_json<model>("{}");
