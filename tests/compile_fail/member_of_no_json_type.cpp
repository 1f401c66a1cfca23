// expect: promptlayer: a member of a model is a bool, an integer, a string, or a range of
// expect: pairs of strings; put a member that may be absent into std::optional
#include <promptlayer.hpp>

struct model {
#ifdef FIXED
    promptlayer::integer score{};
#else
    double score{};
#endif
    using schema = promptlayer::schema<promptlayer::field<"score", &model::score>>;
};

auto text = promptlayer::to_json(model{});
