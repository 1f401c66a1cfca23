#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using pl::rule;

namespace {

pl::track_prompt good() { return {.prompt_name = "a", .request_id = 1}; }

// A violation without its words.
void check_violation(const pl::violation& v, std::string_view path, rule broken, std::uint64_t limit,
                     std::uint64_t actual) {
    CHECK(v.path == path);
    CHECK(v.rule == broken);
    CHECK(v.limit == limit);
    CHECK(v.actual == actual);
}

std::string repeated(std::size_t count, std::string_view text) {
    std::string all;
    for (; count != 0; --count)
        all += text;
    return all;
}

using pair = std::pair<std::string_view, std::string_view>;

constexpr pair twice[] = {{"user", "a"}, {"x", "b"}, {"user", "c"}};
constexpr pair once[] = {{"user", "a"}, {"x", "b"}};
constexpr pl::track_prompt_view repeats{.prompt_name = "a", .prompt_input_variables = twice, .request_id = 1};
static_assert(!pl::is_valid(repeats));
static_assert(pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = once, .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{.prompt_name = "", .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{.prompt_name = "\xED\xA0\x80", .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .request_id = 1, .version = 1, .label = "prod"}));
static_assert(!pl::is_valid(pl::track_prompt_view{.prompt_name = "a", .request_id = 1}, 33));
static_assert(pl::is_valid(pl::track_prompt_view{.prompt_name = "a", .request_id = 1},
                           34)); // {"prompt_name":"a","request_id":1}

} // namespace

TEST_CASE("a valid request has no violations") {
    auto request = good();
    CHECK(pl::validate(request).empty());
    CHECK(pl::is_valid(request));
    request.prompt_input_variables = {{"", ""}, {"user", "hi"}};
    request.label = "prod";
    CHECK(pl::validate(request).empty());
}

TEST_CASE("prompt_name has at least 1 character") {
    auto request = good();
    request.prompt_name = "";
    const auto found = pl::validate(request);
    REQUIRE(found.size() == 1);
    check_violation(found[0], "prompt_name", rule::min_length, 1, 0);
    CHECK(to_string(found[0]) == "prompt_name: at least 1 character, has 0");
    CHECK_FALSE(pl::is_valid(request));
}

TEST_CASE("label has 1 to 512 code points, whatever their bytes") {
    for (const std::string_view one : {"x", "\xC3\xA9", "\xE6\xBC\xA2", "\xF0\x9F\x98\x80"}) {
        auto request = good();
        for (const std::size_t length : {1u, 511u, 512u}) {
            request.label = repeated(length, one);
            CHECK(pl::validate(request).empty());
        }
        request.label = repeated(513, one);
        const auto found = pl::validate(request);
        REQUIRE(found.size() == 1);
        check_violation(found[0], "label", rule::max_length, 512, 513);
        CHECK(to_string(found[0]) == "label: at most 512 characters, has 513");
    }
    auto request = good();
    request.label = "";
    const auto found = pl::validate(request);
    REQUIRE(found.size() == 1);
    check_violation(found[0], "label", rule::min_length, 1, 0);
}

TEST_CASE("version and label exclude each other") {
    auto request = good();
    request.version = 0;
    CHECK(pl::is_valid(request));
    request.label = "prod";
    const auto found = pl::validate(request);
    REQUIRE(found.size() == 1);
    check_violation(found[0], "", rule::at_most_one_of, 1, 2);
    CHECK(to_string(found[0]) == "only one of version, label may be given");
    request.version.reset();
    CHECK(pl::is_valid(request));
}

TEST_CASE("invalid UTF-8 is a violation in every string, in names of variables too") {
    pl::track_prompt request{.prompt_name = "ok\xC0\x80",
                             .prompt_input_variables = {{"na\xFFme", "fine"}, {"user", "\xED\xA0\x80"}},
                             .request_id = 1,
                             .label = "\xF5\x80\x80\x80"};
    const auto found = pl::validate(request);
    REQUIRE(found.size() == 4);
    check_violation(found[0], "prompt_name", rule::utf8, 0, 2);
    check_violation(found[1], "prompt_input_variables[\"na\xEF\xBF\xBDme\"]", rule::name_utf8, 0, 2);
    check_violation(found[2], "prompt_input_variables[\"user\"]", rule::utf8, 0, 0);
    check_violation(found[3], "label", rule::utf8, 0, 0);
    CHECK(to_string(found[0]) == "prompt_name: is not UTF-8 at byte 2");
    CHECK(to_string(found[1]).ends_with("its name is not UTF-8 at byte 2"));
}

TEST_CASE("every violation is found, none hides another") {
    pl::track_prompt request{.prompt_name = "",
                             .prompt_input_variables = {{"a", "\xFF"}, {"b", "\xFF"}},
                             .request_id = 1,
                             .version = 1,
                             .label = ""};
    CHECK(pl::validate(request).size() == 5);
}

TEST_CASE("a sentence never repeats a value") {
    pl::track_prompt request{.prompt_name = "sesame\xFF",
                             .prompt_input_variables = {{"user", "sesame\xFF"}},
                             .request_id = 1,
                             .version = 1,
                             .label = repeated(513, "sesame")};
    for (const auto& v : pl::validate(request))
        CHECK(to_string(v).find("sesame") == std::string::npos);
    CHECK(pl::validate(request).size() == 4);
}

TEST_CASE("names in paths are escaped as in JSON and cut at 64 code points") {
    const auto path_of_name = [](std::string name) {
        const pl::track_prompt request{
            .prompt_name = "a", .prompt_input_variables = {{std::move(name), "\xFF"}}, .request_id = 1};
        return pl::validate(request).back().path;
    };
    CHECK(path_of_name("say \"\\\"\n\x01\x7F") ==
          R"(prompt_input_variables["say \"\\\"\u000a\u0001\u007f"])");
    CHECK(path_of_name("\xC2\x85") == R"(prompt_input_variables["\u0085"])");
    CHECK(path_of_name(repeated(64, "\xC3\xA9")) ==
          "prompt_input_variables[\"" + repeated(64, "\xC3\xA9") + "\"]");
    CHECK(path_of_name(repeated(65, "\xC3\xA9")) ==
          "prompt_input_variables[\"" + repeated(64, "\xC3\xA9") + "\"]");
}

TEST_CASE("a name given twice is a violation where the type of the variables lets it happen") {
    const auto found = pl::validate(repeats);
    REQUIRE(found.size() == 1);
    check_violation(found[0], "prompt_input_variables[\"user\"]", rule::unique, 0, 0);
    CHECK(to_string(found[0]) == "prompt_input_variables[\"user\"]: is given more than once");

    const std::multimap<std::string, std::string> many{{"a", "1"}, {"a", "2"}, {"a", "3"}};
    CHECK(pl::validate(pl::view_of(many, {.prompt_name = "a", .request_id = 1})).size() == 2);

    const char one[] = "same", other[] = "same"; // unequal keys of equal text
    const std::map<const char*, const char*> pointers{{one, ""}, {other, ""}};
    CHECK(pl::validate(pl::view_of(pointers, {.prompt_name = "a", .request_id = 1})).size() == 1);
}

TEST_CASE("the first 64 violations are kept and the rest counted") {
    const auto with_bad_variables = [](int count) {
        pl::track_prompt request{.prompt_name = "a", .request_id = 1};
        for (int i = 0; i < count; ++i)
            request.prompt_input_variables["v" + std::to_string(i)] = "\xFF";
        return pl::validate(request);
    };
    CHECK(with_bad_variables(63).size() == 63);
    CHECK(with_bad_variables(64).size() == 64);
    CHECK(with_bad_variables(64).back().rule == rule::utf8);
    const auto found = with_bad_variables(1000);
    REQUIRE(found.size() == 65);
    CHECK(found[63].rule == rule::utf8);
    check_violation(found[64], "", rule::omitted, 64, 936);
    CHECK(to_string(found[64]) == "and 936 more");
}

TEST_CASE("a body may have max_request_bytes and not one more, measured as it is sent") {
    pl::track_prompt request{
        .prompt_name = "a\"\n\x01\xC3\xA9", .prompt_input_variables = {{"\\", "\t"}}, .request_id = -10};
    const std::size_t size = pl::to_json(request).value().size();
    CHECK(pl::validate(request, size).empty());
    const auto found = pl::validate(request, size - 1);
    REQUIRE(found.size() == 1);
    check_violation(found[0], "", rule::max_bytes, size - 1, size);
    CHECK(to_string(found[0]) ==
          "the body: at most " + std::to_string(size - 1) + " bytes, has " + std::to_string(size));
}

TEST_CASE("unless set otherwise a body may have 8 MiB") {
    constexpr std::size_t around = std::string_view{R"({"prompt_name":"","request_id":1})"}.size();
    pl::track_prompt request{.prompt_name = std::string(8 * 1024 * 1024 - around, 'x'), .request_id = 1};
    CHECK(pl::is_valid(request));
    request.prompt_name = *request.prompt_name + "x";
    CHECK_FALSE(pl::is_valid(request));
    CHECK(pl::to_json(request).error().violations.at(0).rule == rule::max_bytes);
}

TEST_CASE("a repeat among 300,000 names is found in a moment: comparing each with each would take minutes") {
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
    std::array<std::pair<std::string_view, std::string_view>, CountV> made{};
    constexpr std::string_view digits = "0123456789012345678901234567890123456789";
    for (std::size_t i = 0; i < CountV; ++i)
        made[i].first = digits.substr(i % 10, 1 + i / 10 % 30);
    if (!repeated) {
        for (std::size_t i = 0; i < CountV; ++i)
            made[i].first = std::string_view{"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"}.substr(
                i % 26, 1 + i / 26);
    }
    return made;
}

constexpr auto unique_variables = many_variables<200>(false);
constexpr auto repeated_variables = many_variables<400>(true);
static_assert(pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = unique_variables, .request_id = 1}));
static_assert(!pl::is_valid(pl::track_prompt_view{
    .prompt_name = "a", .prompt_input_variables = repeated_variables, .request_id = 1}));

} // namespace
