// expect: promptlayer: minimum is a rule on integers and doubles
// expect: promptlayer: maximum is a rule on integers and doubles
// expect: promptlayer: exclusive_minimum is a rule on integers and doubles
// expect: promptlayer: min_length is a rule on strings
// expect: promptlayer: max_length is a rule on strings
// expect: promptlayer: one_of is a rule on strings and enumerations
// expect: promptlayer: date_time_format is a rule on strings
// expect: promptlayer: items is a rule on arrays of strings
// expect: promptlayer: property_names is a rule on maps
#include <promptlayer.hpp>

namespace pl = promptlayer;

#ifdef FIXED
using number = double;
using text = std::string;
using list = std::vector<std::string>;
using map = std::map<std::string, std::string>;
#else
using number = std::string;
using text = bool;
using list = std::map<std::string, std::string>;
using map = std::vector<std::string>;
#endif

struct model {
    number at_least{}, at_most{}, above{};
    text longer{}, shorter{}, listed{}, dated{};
    list listed_items{};
    map named{};
    using schema = pl::schema<pl::field<"at_least", &model::at_least, pl::minimum<0>>,
                              pl::field<"at_most", &model::at_most, pl::maximum<1>>,
                              pl::field<"above", &model::above, pl::exclusive_minimum<0>>,
                              pl::field<"longer", &model::longer, pl::min_length<1>>,
                              pl::field<"shorter", &model::shorter, pl::max_length<9>>,
                              pl::field<"listed", &model::listed, pl::one_of<"a">>,
                              pl::field<"dated", &model::dated, pl::date_time_format>,
                              pl::field<"items", &model::listed_items, pl::items<pl::max_length<9>>>,
                              pl::field<"named", &model::named, pl::property_names<pl::max_length<9>>>>;
};

auto text_of_model = pl::to_json(model{});
