// A made-up endpoint with every kind of member and every rule.

#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using pl::rule;

namespace {

enum class build_state { queued, running, done };

struct build_reply {
    pl::integer build{};
    pl::any_value queue{};
    double load = 0;
    std::optional<std::string> note{};
    std::optional<build_state> state{};
    std::optional<bool> cached{};
    std::vector<std::string> hosts{};
    std::map<std::string, std::string> links{};
    std::optional<pl::json_object> extra{};

    using schema =
        pl::reply_schema<pl::field<"build", &build_reply::build, pl::minimum<1>>,
                         pl::field<"queue", &build_reply::queue>,
                         pl::field<"load", &build_reply::load, pl::minimum<0>>,
                         pl::field<"note", &build_reply::note, pl::max_length<3>>,
                         pl::field<"state", &build_reply::state, pl::one_of<"queued", "running", "done">>,
                         pl::field<"cached", &build_reply::cached>,
                         pl::field<"hosts", &build_reply::hosts, pl::items<pl::max_length<3>>>,
                         pl::field<"links", &build_reply::links, pl::property_names<pl::max_length<3>>>,
                         pl::field<"extra", &build_reply::extra>, pl::at_most_one_of<"note", "cached">>;
};

template <class TextT, class MapT, class ListT>
struct basic_start_build {
    pl::required<MapT> labels;
    pl::required<ListT> steps;
    pl::required<bool> clean;
    pl::optional<TextT> branch{};
    pl::optional<TextT> color{};
    pl::optional<TextT> not_before{};
    pl::optional<build_state> state{};
    pl::optional<pl::integer> priority{};
    pl::optional<pl::integer> machines{};
    pl::optional<double> share{};
    pl::optional<double> hours{};
    pl::optional<pl::basic_json_object<TextT>> settings{};
    ListT hosts{};

    static constexpr std::string_view path = "/made-up/builds";
    static constexpr int success_status = 202;
    using reply = build_reply;
    using self = basic_start_build;
    using schema = pl::schema<
        pl::field<"labels", &self::labels, pl::property_names<pl::min_length<2>>,
                  pl::property_names<pl::max_length<3>>>,
        pl::field<"steps", &self::steps, pl::items<pl::min_length<1>>, pl::items<pl::max_length<4>>>,
        pl::field<"clean", &self::clean>,
        pl::field<"branch", &self::branch, pl::min_length<1>, pl::max_length<8>>,
        pl::field<"color", &self::color, pl::one_of<"red", "green">>,
        pl::field<"not_before", &self::not_before, pl::date_time_format>,
        pl::field<"state", &self::state, pl::one_of<"queued", "running", "done">>,
        pl::field<"priority", &self::priority, pl::minimum<-2>, pl::maximum<2>>,
        pl::field<"machines", &self::machines, pl::exclusive_minimum<0>>,
        pl::field<"share", &self::share, pl::minimum<0>, pl::maximum<1>>,
        pl::field<"hours", &self::hours, pl::exclusive_minimum<0>>, pl::field<"settings", &self::settings>,
        pl::field<"hosts", &self::hosts, pl::items<pl::one_of<"a", "b">>>,
        pl::at_most_one_of<"branch", "color">>;
};

struct either {
    pl::optional<pl::integer> first{};
    pl::optional<pl::integer> second{};

    using schema = pl::schema<pl::field<"first", &either::first>, pl::field<"second", &either::second>,
                              pl::at_most_one_of<"first", "second">>;
};

using start_build =
    basic_start_build<std::string, std::map<std::string, std::string>, std::vector<std::string>>;
using start_build_view =
    basic_start_build<std::string_view, std::span<const std::pair<std::string_view, std::string_view>>,
                      std::span<const std::string_view>>;

/// Returns a violation as one line. Checks that it has a limit and a measure only if its rule has.
std::string line_of(const pl::violation& broken) {
    const auto is_one_of = [&](auto... rules) { return ((broken.rule == rules) || ...); };
    if (!is_one_of(rule::minimum, rule::maximum, rule::exclusive_minimum, rule::min_length, rule::max_length,
                   rule::max_depth, rule::at_most_one_of, rule::max_bytes))
        CHECK(broken.limit == 0);
    if (!is_one_of(rule::min_length, rule::max_length, rule::utf8, rule::name_utf8, rule::json_object,
                   rule::max_depth, rule::at_most_one_of, rule::max_bytes))
        CHECK(broken.actual == 0);
    return to_string(broken);
}

/// Returns the violations of a request in one line each.
std::vector<std::string> violations(const start_build& request) {
    std::vector<std::string> texts;
    for (const pl::violation& broken : pl::validate(request))
        texts.push_back(line_of(broken));
    CHECK(pl::is_valid(request) == texts.empty());
    return texts;
}

using texts = std::vector<std::string>;

/// Returns the same from `from_json`, for a body with this text after its required members.
texts violations_of_json(const std::string& members) {
    const std::string text = R"({"labels":{},"steps":[],"clean":true,)" + members + "}";
    const auto request = pl::from_json<start_build>(text);
    texts list;
    if (!request) {
        for (const pl::violation& broken : request.error().violations)
            list.push_back(line_of(broken));
    } else {
        CHECK(pl::to_json(*request).value() == text);
    }
    return list;
}

start_build minimal() { return {.labels = {{"ab", "1"}}, .steps = {"s"}, .clean = true}; }

constexpr std::array<std::pair<std::string_view, std::string_view>, 1> constant_labels{{{"ab", "1"}}};
constexpr std::array<std::string_view, 2> constant_steps{"one", "two"};

constexpr start_build_view constant() {
    return {.labels = constant_labels, .steps = constant_steps, .clean = true};
}

/// Returns whether a constant request is valid after a change.
template <class ChangeT>
consteval bool is_valid_with(ChangeT change) {
    start_build_view request = constant();
    change(request);
    return pl::is_valid(request);
}

constexpr std::array<std::string_view, 1> long_step{"three"};
constexpr std::array<std::string_view, 1> unknown_host{"c"};
constexpr std::array<std::pair<std::string_view, std::string_view>, 1> long_label{{{"abcd", "1"}}};

static_assert(is_valid_with([](auto&) {}));
static_assert(is_valid_with([](auto& request) { request.priority = 2; }));
static_assert(!is_valid_with([](auto& request) { request.priority = 3; }));
static_assert(!is_valid_with([](auto& request) { request.priority = -3; }));
static_assert(!is_valid_with([](auto& request) { request.machines = 0; }));
static_assert(is_valid_with([](auto& request) { request.share = 1.0; }));
static_assert(!is_valid_with([](auto& request) { request.share = 1.5; }));
static_assert(!is_valid_with([](auto& request) { request.share = std::numeric_limits<double>::infinity(); }));
static_assert(is_valid_with([](auto& request) { request.color = "red"; }));
static_assert([] { // a double counts as 24 bytes
    constexpr std::string_view others =
        R"({"labels":{"ab":"1"},"steps":["one","two"],"clean":true,"share":})";
    start_build_view request = constant();
    request.share = 0.5;
    return pl::is_valid(request, others.size() + 24) && !pl::is_valid(request, others.size() + 23);
}());
static_assert(!is_valid_with([](auto& request) { request.color = "blue"; }));
static_assert(is_valid_with([](auto& request) { request.not_before = "2024-01-15T10:30:00Z"; }));
static_assert(!is_valid_with([](auto& request) { request.not_before = "2024-01-15"; }));
static_assert(is_valid_with([](auto& request) { request.state = build_state::done; }));
static_assert(!is_valid_with([](auto& request) { request.state = static_cast<build_state>(3); }));
static_assert(is_valid_with([](auto& request) { request.settings = R"({"a":[1,{}]})"; }));
static_assert(!is_valid_with([](auto& request) { request.settings = R"({"a":[1,{}})"; }));
static_assert(!is_valid_with([](auto& request) { request.steps = long_step; }));
static_assert(!is_valid_with([](auto& request) { request.hosts = unknown_host; }));
static_assert(!is_valid_with([](auto& request) { request.labels = long_label; }));

// A double accepts what it represents exactly.
static_assert(std::is_constructible_v<pl::optional<double>, int>);
static_assert(std::is_constructible_v<pl::optional<double>, float>);
static_assert(!std::is_constructible_v<pl::optional<double>, std::int64_t>);
static_assert(!std::is_constructible_v<pl::optional<double>, bool>);
static_assert(!std::is_constructible_v<pl::optional<double>, long double>);
static_assert(!std::is_constructible_v<pl::optional<double>, char>);
static_assert(!std::is_constructible_v<pl::json_object, std::nullptr_t>);

} // namespace

TEST_CASE("rules: a request with every kind of member is written and read by its schema") {
    const start_build request{.labels = {{"ab", "1"}, {"abc", ""}},
                              .steps = {"s", "four"},
                              .clean = false,
                              .branch = "main",
                              .not_before = "2024-01-15T10:30:00Z",
                              .state = build_state::running,
                              .priority = -2,
                              .machines = 1,
                              .share = 0.1,
                              .hours = 1e-7,
                              .settings = R"( { "a" : [1.50, "\u00e9"] } )",
                              .hosts = {"a", "b"}};
    const std::string text =
        R"({"labels":{"ab":"1","abc":""},"steps":["s","four"],"clean":false,"branch":"main",)"
        R"("not_before":"2024-01-15T10:30:00Z","state":"running","priority":-2,"machines":1,"share":0.1,)"
        R"("hours":1e-07,"settings": { "a" : [1.50, "\u00e9"] } ,"hosts":["a","b"]})";
    CHECK(pl::to_json(request).value() == text);
    const auto read = pl::from_json<start_build>(text);
    REQUIRE(read.has_value());
    CHECK(read->labels->at("abc").empty());
    CHECK(read->clean == false);
    CHECK(*read->steps == std::vector<std::string>{"s", "four"});
    CHECK(read->state == build_state::running);
    CHECK(read->share == 0.1);
    CHECK(read->settings->text() == R"({ "a" : [1.50, "\u00e9"] })");
    CHECK(read->hosts == std::vector<std::string>{"a", "b"});
}

TEST_CASE("rules: a required map and a required array are sent if they are empty") {
    CHECK(pl::to_json(start_build{.labels = std::map<std::string, std::string>{},
                                  .steps = std::vector<std::string>{},
                                  .clean = true})
              .value() == R"({"labels":{},"steps":[],"clean":true})");
    CHECK(to_string(pl::from_json<start_build>(R"({"clean":true})").error()) ==
          "labels: is required; steps: is required");
    CHECK(pl::from_json<start_build>(R"({"labels":{},"steps":[],"clean":true,"hosts":[]})").has_value());
}

TEST_CASE("rules: each bound accepts its limit and rejects the next value") {
    start_build request = minimal();
    const auto with = [&](auto&& change) {
        start_build changed = request;
        change(changed);
        return violations(changed);
    };
    CHECK(with([](auto&) {}).empty());
    CHECK(with([](auto& r) { r.priority = -2; }).empty());
    CHECK(with([](auto& r) { r.priority = 2; }).empty());
    CHECK(with([](auto& r) { r.priority = -3; }) == texts{"priority: must be at least -2"});
    CHECK(with([](auto& r) { r.priority = INT64_MAX; }) == texts{"priority: must be at most 2"});
    CHECK(with([](auto& r) { r.machines = 1; }).empty());
    CHECK(with([](auto& r) { r.machines = 0; }) == texts{"machines: must be more than 0"});
    CHECK(with([](auto& r) { r.share = 0.0; }).empty());
    CHECK(with([](auto& r) { r.share = -0.0; }).empty());
    CHECK(with([](auto& r) { r.share = -5e-324; }) == texts{"share: must be at least 0"});
    CHECK(with([](auto& r) { r.share = 1.0000000000000002; }) == texts{"share: must be at most 1"});
    CHECK(with([](auto& r) { r.hours = 5e-324; }).empty());
    CHECK(with([](auto& r) { r.hours = 0.0; }) == texts{"hours: must be more than 0"});
    for (const double value :
         {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
          std::numeric_limits<double>::quiet_NaN()})
        CHECK(with([&](auto& r) { r.share = value; }) == texts{"share: must be finite as a double"});
    CHECK(with([](auto& r) { r.branch = "12345678"; }).empty());
    CHECK(with([](auto& r) { r.branch = ""; }) == texts{"branch: at least 1 character, has 0"});
    CHECK(with([](auto& r) { r.color = "blue"; }) == texts{"color: must be one of red, green"});
    CHECK(with([](auto& r) { r.state = static_cast<build_state>(-1); }) ==
          texts{"state: must be one of queued, running, done"});
    CHECK(with([](auto& r) { r.not_before = "now"; }) ==
          texts{"not_before: must be a date and time such as 2024-01-15T10:30:00Z"});
    CHECK(with([](auto& r) {
              r.steps = {"abcd", "", "abcde"};
          }) == texts{"steps[1]: at least 1 character, has 0", "steps[2]: at most 4 characters, has 5"});
    CHECK(with([](auto& r) { r.steps = {"a\xff"}; }) == texts{"steps[0]: is not UTF-8 at byte 1"});
    CHECK(with([](auto& r) { r.hosts = {"b", "c"}; }) == texts{"hosts[1]: must be one of a, b"});
    CHECK(with([](auto& r) {
              r.labels = {{"a", "1"}, {"abcd", "2"}, {"\xff", "3"}};
          }) == texts{R"(labels["a"]: its name: at least 2 characters, has 1)",
                      R"(labels["abcd"]: its name: at most 3 characters, has 4)",
                      "labels[\"\xEF\xBF\xBD\"]: its name is not UTF-8 at byte 0"});
}

TEST_CASE("rules: a violation of a bound has the limit, and never the value") {
    start_build request = minimal();
    request.priority = 77;
    const auto broken = pl::validate(request).at(0);
    CHECK(broken == pl::violation{"priority", rule::maximum, 2, 0, "must be at most 2"});
    request.priority = -77;
    CHECK(pl::validate(request).at(0).limit == -2);
}

TEST_CASE("rules: to_json reports what validate reports, sizes of text that is not UTF-8 included") {
    start_build request = minimal();
    request.branch = "\n\xff" + std::string(2000, '\n') + "\xff";
    request.steps = {"\xff\"", "\xE2\x82"};
    const auto size = static_cast<std::size_t>(pl::validate(request, 0).back().actual);
    for (const std::size_t max_bytes : {std::size_t{0}, size - 1, size}) {
        const auto list = pl::validate(request, max_bytes);
        CHECK(list.size() == (max_bytes == size ? 3 : 4));
        CHECK(pl::to_json(request, max_bytes).error().violations == list);
    }
}

TEST_CASE("rules: JSON text that is not one object is never sent") {
    start_build request = minimal();
    const auto broken = [&](const std::string& text) {
        request.settings = text;
        const auto list = pl::validate(request);
        return list.empty() ? pl::violation{} : list.at(0);
    };
    CHECK(broken("{}") == pl::violation{});
    CHECK(broken("[]").rule == rule::json_object);
    CHECK(line_of(broken("")) == "settings: must be one JSON object, is not at byte 0");
    CHECK(line_of(broken("{},")) == "settings: must be one JSON object, is not at byte 2");
    CHECK(line_of(broken(R"({},"clean":false)")) == "settings: must be one JSON object, is not at byte 2");
    CHECK(line_of(broken("{\"a\":\"\xff\"}")) == "settings: is not UTF-8 at byte 6");
    const auto nested = [](std::size_t depth) {
        std::string text = "1";
        for (std::size_t i = 0; i < depth; ++i)
            text = "{\"a\":" + text + "}";
        return text;
    };
    CHECK(broken(nested(31)) == pl::violation{});
    CHECK(pl::from_json<start_build>(pl::to_json(request).value()).has_value());
    CHECK(broken(nested(32)).rule == rule::max_depth);
    CHECK(broken(nested(32)).limit == 31);
}

TEST_CASE("rules: a group may begin with the first member, and a body may have no member") {
    CHECK(pl::to_json(either{}).value() == "{}");
    CHECK(pl::to_json(either{.first = 1}).value() == R"({"first":1})");
    CHECK(pl::from_json<either>(R"({"second":1})").has_value());
    CHECK(line_of(pl::from_json<either>(R"({"first":1,"second":1})").error().violations.at(0)) ==
          "only one of first, second may be given");
}

TEST_CASE("rules: from_json counts the items of each array and names a repeated name") {
    CHECK(to_string(pl::from_json<start_build>(
                        R"({"labels":{"ab":"1","ab":"2"},"steps":["s"],"clean":true,"hosts":["c"]})")
                        .error()) ==
          R"(labels["ab"]: is given more than once; hosts[0]: must be one of a, b)");
}

TEST_CASE("rules: from_json applies every rule") {
    CHECK(violations_of_json(R"("priority":2,"machines":1,"share":1,"hours":0.5)").empty());
    CHECK(violations_of_json(R"("priority":3,"machines":0,"share":1.5,"hours":0)") ==
          texts{"priority: must be at most 2", "machines: must be more than 0", "share: must be at most 1",
                "hours: must be more than 0"});
    CHECK(violations_of_json(R"("priority":[3])") == texts{"priority: must be an integer, is an array"});
    CHECK(violations_of_json(R"("hours":1e400,"share":"1","state":"late","color":"blue")") ==
          texts{"hours: must be finite as a double", "share: must be a number, is a string",
                "state: must be one of queued, running, done", "color: must be one of red, green"});
    CHECK(violations_of_json(R"("not_before":"now","hosts":["a","c",null],"settings":[])") ==
          texts{"not_before: must be a date and time such as 2024-01-15T10:30:00Z",
                "hosts[1]: must be one of a, b", "hosts[2]: must be a string, is null",
                "settings: must be an object, is an array"});
    CHECK(violations_of_json(R"("hosts":{},"state":null)") ==
          texts{"hosts: must be an array, is an object", "state: must be a string, is null"});
    CHECK(to_string(pl::from_json<start_build>(
                        R"({"labels":{"a":"1","abcd":"2","ab":{}},"steps":["abcde"],"clean":true})")
                        .error()) ==
          R"(labels["a"]: its name: at least 2 characters, has 1; )"
          R"(labels["abcd"]: its name: at most 3 characters, has 4; )"
          R"(labels["ab"]: must be a string, is an object; steps[0]: at most 4 characters, has 5)");
}

TEST_CASE("rules: from_json keeps the text of each JSON object, wherever its member stands") {
    const auto read = pl::from_json<start_build>(
        "{\"settings\" : {\"x\":\"}\\\"\", "
        "\"settings\":{}}\n,\"labels\":{\"ab\":\"{\"},\"steps\":[],\"clean\":true}");
    CHECK(read->settings->text() == R"({"x":"}\"", "settings":{}})");
    const auto escaped =
        pl::from_json<start_build>(R"({"labels":{},"steps":[],"\u0073ettings":{"a":1},"clean":true})");
    CHECK(escaped->settings->text() == R"({"a":1})");
    const auto log = pl::from_json<pl::log_request>(
        R"({"provider":"p","model":"m","input":{"a":1},"output":{"b":2},)"
        R"("request_start_time":"2024-01-15T10:30:00Z","request_end_time":"2024-01-15T10:30:00Z"})");
    CHECK(log->output->text() == R"({"b":2})");
}

TEST_CASE("rules: a double is read by its digits and written in its shortest form") {
    for (const std::string number :
         {"0.1", "1e-07", "123456789.12345679", "1.7976931348623157e+308", "5e-324"})
        CHECK(violations_of_json(R"("hours":)" + number).empty());
}

TEST_CASE("rules: json_schema states every rule") {
    const auto expected = boost::json::parse(R"({
        "type": "object",
        "properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string"},
                       "propertyNames": {"minLength": 2, "maxLength": 3}},
            "steps": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 4}},
            "clean": {"type": "boolean"},
            "branch": {"type": "string", "minLength": 1, "maxLength": 8},
            "color": {"type": "string", "enum": ["red", "green"]},
            "not_before": {"type": "string", "format": "date-time"},
            "state": {"type": "string", "enum": ["queued", "running", "done"]},
            "priority": {"type": "integer", "minimum": -2, "maximum": 2},
            "machines": {"type": "integer", "exclusiveMinimum": 0},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "hours": {"type": "number", "exclusiveMinimum": 0},
            "settings": {"type": "object"},
            "hosts": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}
        },
        "required": ["labels", "steps", "clean"],
        "not": {"required": ["branch", "color"]}
    })");
    CHECK(boost::json::parse(pl::json_schema<start_build>()) == expected);
    CHECK(pl::json_schema<start_build_view>() == pl::json_schema<start_build>());
    const auto reply = boost::json::parse(pl::json_schema<build_reply>()).at("properties");
    CHECK(reply.at("queue") == boost::json::object{});
    CHECK(reply.at("build") == boost::json::parse(R"({"type": "integer", "minimum": 1})"));
    CHECK(reply.at("note") ==
          boost::json::parse(R"({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]})"));
}

namespace {

struct unknown_request {
    static constexpr int success_status = 0;
    using reply = build_reply;
};

pl::result<build_reply> decoded(const std::string& members, int status = 202) {
    return pl::decode<start_build>({status, {}, R"({"build":7,"queue":null,"load":0.1)" + members + "}"});
}

} // namespace

TEST_CASE("rules: every status from 200 to 299 is a success if success_status is 0") {
    for (const int status : {199, 200, 299, 300})
        CHECK(pl::decode<unknown_request>({status, {}, R"({"build":7,"queue":null,"load":0})"}).has_value() ==
              (status / 100 == 2));
}

TEST_CASE("rules: only the success_status of a model is a success") {
    CHECK(decoded("")->build == 7);
    for (const int status : {200, 201, 203})
        CHECK(decoded("", status).error().code == pl::errc::unexpected_status);
}

TEST_CASE("rules: a reply may have null for what may be absent, and members of its own") {
    const auto reply =
        decoded(R"(,"note":null,"state":null,"cached":null,"hosts":null,"links":null,"extra":null,"x":[])");
    REQUIRE(reply.has_value());
    CHECK(!reply->note);
    CHECK(!reply->state);
    CHECK(reply->hosts.empty());
    CHECK(!reply->extra);
    CHECK(pl::from_json<build_reply>(R"({"build":7,"queue":null,"load":0,"note":null,"cached":true})"));
    CHECK(decoded(R"(,"note":null,"cached":true)").has_value());
    for (const auto& both :
         {pl::from_json<build_reply>(R"({"build":7,"queue":null,"load":0,"note":"a","cached":true})"),
          decoded(R"(,"note":"a","cached":true)")})
        CHECK(both.error().violations.at(0).rule == rule::at_most_one_of);
    CHECK(line_of(decoded(R"(,"build":null)").error().violations.at(0)) ==
          "build: must be an integer, is null");
    CHECK(line_of(pl::decode<start_build>({202, {}, R"({"build":7,"load":1})"}).error().violations.at(0)) ==
          "queue: is required");
}

TEST_CASE("rules: from_json reads a reply as decode does") {
    const auto reply = pl::from_json<build_reply>(
        R"({"build":7,"queue":{"a":[]},"load":1e2,"note":null,"hosts":null,"more":{"build":8},"extra":{"a":1}})");
    REQUIRE(reply.has_value());
    CHECK(reply->build == 7);
    CHECK(reply->load == 100);
    CHECK(reply->extra->text() == R"({"a":1})");
    CHECK(to_string(pl::from_json<build_reply>(R"({"build":null,"load":1})").error()) ==
          "build: must be an integer, is null; queue: is required");
}

TEST_CASE("rules: every kind of member of a reply is read and checked") {
    const auto reply = decoded(R"(,"load":0.30000000000000004,"note":"abc","state":"done",)"
                               R"("hosts":["x","y"],"links":{"a":"b"},"extra":{"n": 1.50})");
    REQUIRE(reply.has_value());
    CHECK(reply->load == 0.30000000000000004);
    CHECK(reply->state == build_state::done);
    CHECK(decoded(R"(,"cached":true)")->cached == true);
    CHECK(reply->hosts == std::vector<std::string>{"x", "y"});
    CHECK(reply->links.at("a") == "b");
    CHECK(reply->extra->text() == R"({"n": 1.50})");

    const auto broken = decoded(R"(,"build":0,"load":-1,"note":"abcd","state":"late","cached":1,)"
                                R"("hosts":["abcd",1],"links":{"abcd":"b"},"extra":[])");
    texts list;
    for (const pl::violation& violation : broken.error().violations)
        list.push_back(line_of(violation));
    CHECK(list == texts{"build: must be at least 1", "load: must be at least 0",
                        "note: at most 3 characters, has 4", "state: must be one of queued, running, done",
                        "cached: must be a boolean, is a number", "hosts[0]: at most 3 characters, has 4",
                        "hosts[1]: must be a string, is a number",
                        R"(links["abcd"]: its name: at most 3 characters, has 4)",
                        "extra: must be an object, is an array", "only one of note, cached may be given"});
    CHECK(line_of(decoded(R"(,"load":1e400)").error().violations.at(0)) ==
          "load: must be finite as a double");
    CHECK(line_of(decoded(R"(,"build":1e99)").error().violations.at(0)) ==
          "build: must fit in 64 bits signed");
}

TEST_CASE("rules: the digits of a reply are found by its last member with that name, escaped or not") {
    CHECK(decoded(R"(,"load":1.5,"\u006coad":2.5)")->load == 2.5);
    CHECK(decoded(R"(,"extra":{"a":1},"extr\u0061":{"b":2},"x":{"extra":{"c":3}})")->extra->text() ==
          R"({"b":2})");
}

TEST_CASE("rules: a name given twice in a map of a reply is a violation") {
    CHECK(line_of(decoded(R"(,"links":{"a":"b","\u0061":"c"})").error().violations.at(0)) ==
          R"(links["a"]: is given more than once)");
}

TEST_CASE("rules: the texts of a reply show no hidden character and no key") {
    pl::client client{{.api_key = "key"}, pl::testing::recording_transport{}};
    client.transport().respond({202,
                                {},
                                "{\"build\":7,\"queue\":0,\"load\":0,\"hosts\":[\"key\"],"
                                "\"extra\":{\"a\":\"key\xE2\x80\xAE\"}}"});
    const auto reply = client.call(minimal());
    CHECK(reply->extra->text() == R"({"a":"[redacted] "})");
    CHECK(reply->hosts.at(0) == "[redacted]");
}
