// expect: promptlayer: a member of a model is a bool, an integer, a double, a string, an
// expect: enumeration, a json_object, a range of strings, or a range of pairs of strings; put a
// expect: member that may be absent into std::optional
#include <promptlayer.hpp>

struct model {
#ifdef FIXED
    promptlayer::integer score{};
#else
    float score{};
#endif
    using schema = promptlayer::schema<promptlayer::field<"score", &model::score>>;
};

auto text = promptlayer::to_json(model{});
