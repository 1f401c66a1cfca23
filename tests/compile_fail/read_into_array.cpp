// expect: promptlayer: from_json needs a model that keeps an array in a vector of strings
#include <array>
#include <promptlayer.hpp>

struct model {
#ifdef FIXED
    std::vector<std::string> tags{};
#else
    std::array<std::string, 2> tags{};
#endif
    using schema = promptlayer::schema<promptlayer::field<"tags", &model::tags>>;
};

auto request = promptlayer::from_json<model>("{}");
