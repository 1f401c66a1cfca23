// expect: promptlayer: each name in a schema is that of one field
#include <promptlayer.hpp>

struct model {
    std::string a{};
    std::string b{};
#ifdef FIXED
    using schema =
        promptlayer::schema<promptlayer::field<"a", &model::a>, promptlayer::field<"b", &model::b>>;
#else
    using schema =
        promptlayer::schema<promptlayer::field<"a", &model::a>, promptlayer::field<"a", &model::b>>;
#endif
};

auto text = promptlayer::to_json(model{});
