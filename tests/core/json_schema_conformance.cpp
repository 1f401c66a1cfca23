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

/// Returns a path as a JSON pointer: `tags[3]` is `/tags/3`, `metadata["a"]` is `/metadata/a`.
std::string pointer(const pl::violation& v) {
    const auto bracket = v.path.find('[');
    if (bracket == v.path.npos)
        return "/" + v.path;
    if (v.path.starts_with("prompt_input_variables"))
        return "/prompt_input_variables/*"; // the cases of track-prompt leave out the name
    std::string step = v.path.substr(bracket + 1, v.path.size() - bracket - 2);
    if (step.starts_with('"')) {
        const auto name = boost::json::parse(step).as_string();
        step.clear();
        for (const char c : name)
            step += c == '~' ? "~0" : c == '/' ? "~1" : std::string{c};
    }
    return "/" + v.path.substr(0, bracket) + "/" + step;
}

/// Returns a violation as the cases write it: its path and the keyword of JSON Schema.
std::string keyword(const pl::violation& v) {
    switch (v.rule) {
    case rule::required: return "/ required";
    case rule::at_most_one_of: return "/ version and label";
    case rule::min_length: return pointer(v) + " minLength";
    case rule::max_length: return pointer(v) + " maxLength";
    case rule::minimum: return pointer(v) + " minimum";
    case rule::maximum: return pointer(v) + " maximum";
    case rule::exclusive_minimum: return pointer(v) + " exclusiveMinimum";
    case rule::one_of: return pointer(v) + " enum";
    case rule::date_time: return pointer(v) + " format";
    case rule::type: return pointer(v) + " type";
    default: return "unexpected: " + to_string(v);
    }
}

struct case_counts {
    int valid = 0;
    int invalid = 0;
    friend bool operator==(const case_counts&, const case_counts&) = default;
};

/// Compares the verdict and the reasons of `from_json` with those of a case. A valid body is also written and
/// read again.
template <class RequestT>
void check_case(const boost::json::object& entry, case_counts& counts) {
    const auto& body = entry.at("body").as_string();
    const auto request = pl::from_json<RequestT>({body.data(), body.size()});
    CHECK(request.has_value() == entry.at("valid").as_bool());
    ++(request ? counts.valid : counts.invalid);
    std::set<std::string> expected;
    for (const auto& why : entry.at("why").as_array())
        expected.insert(std::string{why.as_string()});
    std::set<std::string> actual;
    if (!request) {
        for (const auto& v : request.error().violations)
            actual.insert(keyword(v));
    } else {
        CHECK(pl::is_valid(*request));
        CHECK(pl::from_json<RequestT>(pl::to_json(*request).value()).value() == *request);
    }
    CHECK(actual == expected);
}

/// Calls `visit` with each case of a file of JSON lines.
template <class VisitT>
void for_each_case(const std::string& name, VisitT&& visit) {
    std::istringstream cases{contents(name)};
    int number = 0;
    for (std::string line; std::getline(cases, line);) {
        ++number;
        CAPTURE(number);
        visit(boost::json::parse(line).as_object());
    }
}

} // namespace

TEST_CASE("every body gets the verdict and the reasons of an independent JSON Schema validator") {
    case_counts counts;
    for_each_case("cases.jsonl",
                  [&](const boost::json::object& entry) { check_case<pl::track_prompt>(entry, counts); });
    CHECK(counts == case_counts{162, 238});
}

TEST_CASE("every body of the tracking family gets the verdict and the reasons of that validator") {
    case_counts score, metadata, group, log;
    for_each_case("family_cases.jsonl", [&](const boost::json::object& entry) {
        const auto& model = entry.at("model").as_string();
        if (model == "track_score")
            check_case<pl::track_score>(entry, score);
        else if (model == "track_metadata")
            check_case<pl::track_metadata>(entry, metadata);
        else if (model == "track_group")
            check_case<pl::track_group>(entry, group);
        else
            check_case<pl::log_request>(entry, log);
    });
    CHECK(score == case_counts{71, 29});
    CHECK(metadata == case_counts{83, 17});
    CHECK(group == case_counts{95, 5});
    CHECK(log == case_counts{20, 80});
}

TEST_CASE("json_schema is the documented schema plus the exclusion of version and label") {
    auto expected = boost::json::parse(contents("track_prompt.schema.json")).as_object();
    expected["not"] = {{"required", boost::json::array{"version", "label"}}};
    CHECK(boost::json::parse(pl::json_schema<pl::track_prompt>()) == expected);
    CHECK(pl::json_schema<pl::track_prompt_view>() == pl::json_schema<pl::track_prompt>());
}

TEST_CASE("json_schema is the documented schema of each request of the tracking family") {
    const auto expected = boost::json::parse(contents("tracking_family.schemas.json")).as_object();
    CHECK(boost::json::parse(pl::json_schema<pl::track_score>()) == expected.at("track_score"));
    CHECK(boost::json::parse(pl::json_schema<pl::track_metadata>()) == expected.at("track_metadata"));
    CHECK(boost::json::parse(pl::json_schema<pl::track_group>()) == expected.at("track_group"));
    CHECK(boost::json::parse(pl::json_schema<pl::log_request>()) == expected.at("log_request"));
    CHECK(pl::json_schema<pl::track_score_view>() == pl::json_schema<pl::track_score>());
    CHECK(pl::json_schema<pl::track_metadata_view>() == pl::json_schema<pl::track_metadata>());
    CHECK(pl::json_schema<pl::log_request_view>() == pl::json_schema<pl::log_request>());
}
