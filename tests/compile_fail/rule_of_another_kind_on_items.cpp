// expect: promptlayer: minimum is a rule on integers and doubles
#include <promptlayer.hpp>

struct model {
    std::vector<std::string> tags{};
#ifdef FIXED
    using rule = promptlayer::min_length<1>;
#else
    using rule = promptlayer::minimum<1>;
#endif
    using schema = promptlayer::schema<promptlayer::field<"tags", &model::tags, promptlayer::items<rule>>>;
};

auto text = promptlayer::to_json(model{});
