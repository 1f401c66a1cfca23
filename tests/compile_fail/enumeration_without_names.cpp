// expect: promptlayer: an enumeration needs one_of with its names in JSON
#include <promptlayer.hpp>

enum class color { red, green };

struct model {
    color paint{};
#ifdef FIXED
    using schema =
        promptlayer::schema<promptlayer::field<"paint", &model::paint, promptlayer::one_of<"red", "green">>>;
#else
    using schema = promptlayer::schema<promptlayer::field<"paint", &model::paint>>;
#endif
};

auto text = promptlayer::to_json(model{});
