// expect: promptlayer: each name in a schema is that of one field
#include <promptlayer.hpp>

struct model {
    std::optional<std::string> a{};
    std::optional<std::string> b{};
    using schema = promptlayer::schema<promptlayer::field<"a", &model::a>, promptlayer::field<"b", &model::b>,
#ifdef FIXED
                                       promptlayer::at_most_one_of<"a", "b">>;
#else
                                       promptlayer::at_most_one_of<"a", "c">>;
#endif
};

auto text = promptlayer::to_json(model{});
