// expect: promptlayer: min_length and max_length are rules on strings
#include <promptlayer.hpp>

struct model {
#ifdef FIXED
    std::string score{};
#else
    promptlayer::integer score{};
#endif
    using schema =
        promptlayer::schema<promptlayer::field<"score", &model::score, promptlayer::min_length<1>>>;
};

auto text = promptlayer::to_json(model{});
