#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using pl::rule;
using test_support::repeat;
using test_support::valid_request;

namespace {

/// Checks all of a violation except its message.
void check_violation(const pl::violation& v, std::string_view path, rule broken, std::uint64_t limit,
                     std::uint64_t actual) {
    CHECK(v.path == path);
    CHECK(v.rule == broken);
    CHECK(v.limit == limit);
    CHECK(v.actual == actual);
}

using pair = std::pair<std::string_view, std::string_view>;

constexpr pair twice[] = {{"user", "a"}, {"x", "b"}, {"user", "c"}};
constexpr pair first_twice[] = {{"a", ""}, {"a", ""}, {"b", ""}};
constexpr pair last_twice[] = {{"a", ""}, {"b", ""}, {"b", ""}};
constexpr pair once[] = {{"user", "a"}, {"x", "b"}};
constexpr pl::track_prompt_view repeats{.prompt_name = "a", .prompt_input_variables = twice, .request_id = 1};
static_assert(!pl::is_valid(repeats));
static_assert(!pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = first_twice, .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = last_twice, .request_id = 1}));
static_assert(pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = once, .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{.prompt_name = "", .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{.prompt_name = "\xED\xA0\x80", .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .request_id = 1, .version = 1, .label = "prod"}));
static_assert(!pl::is_valid(pl::track_prompt_view{.prompt_name = "a", .request_id = 1}, 33));
static_assert(pl::is_valid(pl::track_prompt_view{.prompt_name = "a", .request_id = 1},
                           34)); // {"prompt_name":"a","request_id":1}
static_assert(pl::is_valid(pl::track_prompt_view{.prompt_name = "a", .request_id = 0}, 34));

} // namespace

TEST_CASE("a valid request has no violations") {
    auto request = valid_request();
    CHECK(pl::validate(request).empty());
    CHECK(pl::is_valid(request));
    request.prompt_input_variables = {{"", ""}, {"user", "hi"}};
    request.label = "prod";
    CHECK(pl::validate(request).empty());
}

TEST_CASE("an empty prompt_name is a violation") {
    auto request = valid_request();
    request.prompt_name = "";
    const auto violations = pl::validate(request);
    REQUIRE(violations.size() == 1);
    check_violation(violations[0], "prompt_name", rule::min_length, 1, 0);
    CHECK(to_string(violations[0]) == "prompt_name: at least 1 character, has 0");
    CHECK_FALSE(pl::is_valid(request));
}

TEST_CASE("a label has 1 to 512 code points, whatever their length in bytes") {
    for (const std::string_view character : {"x", "\xC3\xA9", "\xE6\xBC\xA2", "\xF0\x9F\x98\x80"}) {
        auto request = valid_request();
        for (const std::size_t length : {1u, 511u, 512u}) {
            request.label = repeat(length, character);
            CHECK(pl::validate(request).empty());
        }
        request.label = repeat(513, character);
        const auto violations = pl::validate(request);
        REQUIRE(violations.size() == 1);
        check_violation(violations[0], "label", rule::max_length, 512, 513);
        CHECK(to_string(violations[0]) == "label: at most 512 characters, has 513");
    }
    auto request = valid_request();
    request.label = "";
    const auto violations = pl::validate(request);
    REQUIRE(violations.size() == 1);
    check_violation(violations[0], "label", rule::min_length, 1, 0);
}

TEST_CASE("version and label exclude each other") {
    auto request = valid_request();
    request.version = 0;
    CHECK(pl::is_valid(request));
    request.label = "prod";
    const auto violations = pl::validate(request);
    REQUIRE(violations.size() == 1);
    check_violation(violations[0], "", rule::at_most_one_of, 1, 2);
    CHECK(to_string(violations[0]) == "only one of version, label may be given");
    request.version.reset();
    CHECK(pl::is_valid(request));
}

TEST_CASE("invalid UTF-8 is a violation in every string and in variable names") {
    pl::track_prompt request{.prompt_name = "ok\xC0\x80",
                             .prompt_input_variables = {{"na\xFFme", "fine"}, {"user", "\xED\xA0\x80"}},
                             .request_id = 1,
                             .label = "\xF5\x80\x80\x80"};
    const auto violations = pl::validate(request);
    REQUIRE(violations.size() == 4);
    check_violation(violations[0], "prompt_name", rule::utf8, 0, 2);
    check_violation(violations[1], "prompt_input_variables[\"na\xEF\xBF\xBDme\"]", rule::name_utf8, 0, 2);
    check_violation(violations[2], "prompt_input_variables[\"user\"]", rule::utf8, 0, 0);
    check_violation(violations[3], "label", rule::utf8, 0, 0);
    CHECK(to_string(violations[0]) == "prompt_name: is not UTF-8 at byte 2");
    CHECK(to_string(violations[1]).ends_with("its name is not UTF-8 at byte 2"));
}

TEST_CASE("validate reports every violation") {
    pl::track_prompt request{.prompt_name = "",
                             .prompt_input_variables = {{"a", "\xFF"}, {"b", "\xFF"}},
                             .request_id = 1,
                             .version = 1,
                             .label = ""};
    CHECK(pl::validate(request).size() == 5);
}

TEST_CASE("a violation's message never repeats a value") {
    pl::track_prompt request{.prompt_name = "sesame\xFF",
                             .prompt_input_variables = {{"user", "sesame\xFF"}},
                             .request_id = 1,
                             .version = 1,
                             .label = repeat(513, "sesame")};
    for (const auto& v : pl::validate(request))
        CHECK(to_string(v).find("sesame") == std::string::npos);
    CHECK(pl::validate(request).size() == 4);
}

TEST_CASE("variable names in paths are escaped as in JSON and cut at 64 code points") {
    const auto path_of_name = [](std::string name) {
        const pl::track_prompt request{
            .prompt_name = "a", .prompt_input_variables = {{std::move(name), "\xFF"}}, .request_id = 1};
        return pl::validate(request).back().path;
    };
    CHECK(path_of_name("say \"\\\"\n\x01\x7F") ==
          R"(prompt_input_variables["say \"\\\"\u000a\u0001\u007f"])");
    CHECK(path_of_name("\xC2\x85") == R"(prompt_input_variables["\u0085"])");
    CHECK(path_of_name(repeat(64, "\xC3\xA9")) ==
          "prompt_input_variables[\"" + repeat(64, "\xC3\xA9") + "\"]");
    CHECK(path_of_name(repeat(65, "\xC3\xA9")) ==
          "prompt_input_variables[\"" + repeat(64, "\xC3\xA9") + "\"]");
}

TEST_CASE("a repeated name is a violation if the variables' type allows repeats") {
    const auto violations = pl::validate(repeats);
    REQUIRE(violations.size() == 1);
    check_violation(violations[0], "prompt_input_variables[\"user\"]", rule::unique, 0, 0);
    CHECK(to_string(violations[0]) == "prompt_input_variables[\"user\"]: is given more than once");

    const std::multimap<std::string, std::string> many{{"a", "1"}, {"a", "2"}, {"a", "3"}};
    CHECK(pl::validate(pl::view_of(many, {.prompt_name = "a", .request_id = 1})).size() == 2);

    const char one[] = "same", other[] = "same"; // unequal keys of equal text
    const std::map<const char*, const char*> pointers{{one, ""}, {other, ""}};
    CHECK(pl::validate(pl::view_of(pointers, {.prompt_name = "a", .request_id = 1})).size() == 1);
}

TEST_CASE("a repeated name is a violation, in whatever order the names are") {
    std::vector<pair> names{{"a", ""}, {"b", ""}, {"b", ""}, {"c", ""}};
    do
        CHECK(pl::validate(pl::view_of(names, {.prompt_name = "a", .request_id = 1})).size() == 1);
    while (std::next_permutation(names.begin(), names.end()));
}

TEST_CASE("validate keeps the first 64 violations and counts the rest") {
    const auto with_bad_variables = [](int count) {
        pl::track_prompt request{.prompt_name = "a", .request_id = 1};
        for (int i = 0; i < count; ++i)
            request.prompt_input_variables["v" + std::to_string(i)] = "\xFF";
        return pl::validate(request);
    };
    CHECK(with_bad_variables(63).size() == 63);
    CHECK(with_bad_variables(64).size() == 64);
    CHECK(with_bad_variables(64).back().rule == rule::utf8);
    const auto violations = with_bad_variables(1000);
    REQUIRE(violations.size() == 65);
    CHECK(violations[63].rule == rule::utf8);
    check_violation(violations[64], "", rule::omitted, 64, 936);
    CHECK(to_string(violations[64]) == "and 936 more");
}

TEST_CASE("a body may have max_request_bytes of written JSON and no byte more") {
    pl::track_prompt request{
        .prompt_name = "a\"\n\x01\xC3\xA9", .prompt_input_variables = {{"\\", "\t"}}, .request_id = -10};
    const std::size_t size = pl::to_json(request).value().size();
    CHECK(pl::validate(request, size).empty());
    const auto violations = pl::validate(request, size - 1);
    REQUIRE(violations.size() == 1);
    check_violation(violations[0], "", rule::max_bytes, size - 1, size);
    CHECK(to_string(violations[0]) ==
          "the body: at most " + std::to_string(size - 1) + " bytes, has " + std::to_string(size));
}

TEST_CASE("a body may have 8 MiB by default") {
    constexpr std::size_t around = std::string_view{R"({"prompt_name":"","request_id":1})"}.size();
    pl::track_prompt request{.prompt_name = std::string(8 * 1024 * 1024 - around, 'x'), .request_id = 1};
    CHECK(pl::is_valid(request));
    request.prompt_name = *request.prompt_name + "x";
    CHECK_FALSE(pl::is_valid(request));
    CHECK(pl::to_json(request).error().violations.at(0).rule == rule::max_bytes);
}

TEST_CASE("a repeat among 300,000 names is found without comparing every pair") {
    std::vector<std::pair<std::string, std::string_view>> variables;
    for (int i = 0; i < 300'000; ++i)
        variables.emplace_back("variable " + std::to_string(i), "");
    const auto check = [&] {
        return pl::validate(pl::view_of(variables, {.prompt_name = "a", .request_id = 1}), 1 << 30);
    };
    CHECK(check().empty());
    variables.back().first = variables.front().first;
    CHECK(check().size() == 1);
}

namespace {

template <std::size_t CountV>
constexpr auto many_variables(bool repeated) {
    std::array<std::pair<std::string_view, std::string_view>, CountV> variables{};
    constexpr std::string_view digits = "0123456789012345678901234567890123456789";
    for (std::size_t i = 0; i < CountV; ++i)
        variables[i].first = digits.substr(i % 10, 1 + i / 10 % 30);
    if (!repeated) {
        for (std::size_t i = 0; i < CountV; ++i)
            variables[i].first =
                std::string_view{"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"}.substr(i % 26,
                                                                                                1 + i / 26);
    }
    return variables;
}

constexpr auto unique_variables = many_variables<200>(false);
constexpr auto repeated_variables = many_variables<400>(true);
static_assert(pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = unique_variables, .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = repeated_variables, .request_id = 1}));

} // namespace

TEST_CASE("is_valid is false at run time if one member or a group breaks its rule") {
    pl::track_prompt request = valid_request();
    CHECK(pl::is_valid(request));
    request.version = 1;
    CHECK(pl::is_valid(request));
    request.label = "a";
    CHECK_FALSE(pl::is_valid(request)); // of a group
    request.version.reset();
    CHECK(pl::is_valid(request));
    request.prompt_name = "";
    CHECK_FALSE(pl::is_valid(request)); // of one member
}
