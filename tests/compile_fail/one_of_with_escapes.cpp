// expect: promptlayer: the names in one_of must not be empty or need escapes in JSON
#include <promptlayer.hpp>

struct model {
    std::string color{};
#ifdef FIXED
    using rule = promptlayer::one_of<"red">;
#else
    using rule = promptlayer::one_of<"re\"d">;
#endif
    using schema = promptlayer::schema<promptlayer::field<"color", &model::color, rule>>;
};

auto text = promptlayer::to_json(model{});
