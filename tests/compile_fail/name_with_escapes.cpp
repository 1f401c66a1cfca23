// expect: promptlayer: the name of a member must not need escapes in JSON
#include <promptlayer.hpp>

struct model {
    std::string a{};
#ifdef FIXED
    using schema = promptlayer::schema<promptlayer::field<"a", &model::a>>;
#else
    using schema = promptlayer::schema<promptlayer::field<"a\"", &model::a>>;
#endif
};

auto text = promptlayer::to_json(model{});
