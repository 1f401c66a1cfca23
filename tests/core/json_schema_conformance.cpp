#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

namespace pl = promptlayer;
using pl::rule;

namespace {

std::string contents(const std::string& name) {
    std::ifstream file{PROMPTLAYER_TEST_DATA "/" + name, std::ios::binary};
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>{file}, {}};
}

/// Returns a violation as the cases write it: its path and the keyword of JSON Schema.
std::string keyword(const pl::violation& v) {
    switch (v.rule) {
    case rule::required: return "/ required";
    case rule::at_most_one_of: return "/ version and label";
    case rule::min_length: return "/" + v.path + " minLength";
    case rule::max_length: return "/" + v.path + " maxLength";
    case rule::type:
        return "/" + (v.path.find('[') == v.path.npos ? v.path : "prompt_input_variables/*") + " type";
    default: return "unexpected: " + to_string(v);
    }
}

} // namespace

TEST_CASE("every body gets the verdict and the reasons of an independent JSON Schema validator") {
    std::istringstream cases{contents("cases.jsonl")};
    int count = 0;
    int valid = 0;
    for (std::string line; std::getline(cases, line); ++count) {
        const auto entry = boost::json::parse(line).as_object();
        const auto& body = entry.at("body").as_string();
        const auto request = pl::from_json<pl::track_prompt>({body.data(), body.size()});
        CAPTURE(count + 1);
        CHECK(request.has_value() == entry.at("valid").as_bool());
        std::set<std::string> expected;
        for (const auto& why : entry.at("why").as_array())
            expected.insert(std::string{why.as_string()});
        std::set<std::string> actual;
        if (!request) {
            for (const auto& v : request.error().violations)
                actual.insert(keyword(v));
        } else {
            ++valid;
            CHECK(pl::is_valid(*request));
            const auto reread = pl::from_json<pl::track_prompt>(pl::to_json(*request).value());
            CHECK(reread.value() == *request);
        }
        CHECK(actual == expected);
    }
    CHECK(count == 400);
    CHECK(valid == 162);
}

TEST_CASE("json_schema is the documented schema plus the exclusion of version and label") {
    auto expected = boost::json::parse(contents("track_prompt.schema.json")).as_object();
    expected["not"] = {{"required", boost::json::array{"version", "label"}}};
    CHECK(boost::json::parse(pl::json_schema<pl::track_prompt>()) == expected);
    CHECK(pl::json_schema<pl::track_prompt_view>() == pl::json_schema<pl::track_prompt>());
}
