// expect: promptlayer: an array or map is a plain member of a model, absent when it is empty, or a
// expect: required one
#include <promptlayer.hpp>

struct model {
#ifdef FIXED
    std::map<std::string, std::string> tags{};
#else
    std::optional<std::map<std::string, std::string>> tags{};
#endif
    using schema = promptlayer::schema<promptlayer::field<"tags", &model::tags>>;
};

auto text = promptlayer::to_json(model{});
