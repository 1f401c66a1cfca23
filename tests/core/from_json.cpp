#include <promptlayer.hpp>

#include <boost/json/parse.hpp>
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace pl = promptlayer;
using pl::rule;

namespace {

pl::result<pl::track_prompt> read(std::string_view text) { return pl::from_json<pl::track_prompt>(text); }

/// Returns a valid body with one more member.
std::string with(std::string_view member) {
    return R"({"prompt_name":"a","request_id":1,)" + std::string{member} + "}";
}

std::string with_id(std::string_view number) {
    return R"({"prompt_name":"a","request_id":)" + std::string{number} + "}";
}

/// Returns the only violation of a text.
pl::violation only_violation(std::string_view text) {
    const auto outcome = read(text);
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().code == pl::errc::invalid_request);
    REQUIRE(outcome.error().violations.size() == 1);
    return outcome.error().violations[0];
}

void check_malformed(std::string_view text, std::size_t offset) {
    const auto outcome = read(text);
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().code == pl::errc::malformed_json);
    REQUIRE(outcome.error().offset.has_value());
    CHECK(*outcome.error().offset == offset);
    CHECK(outcome.error().message.ends_with(" at byte " + std::to_string(offset)));
    CHECK(outcome.error().violations.empty());
}

} // namespace

TEST_CASE("a body is read and written back unchanged") {
    constexpr std::string_view text =
        R"({"prompt_name":"sup\"port\n\u0001","prompt_input_variables":{"":"","a":"1"},"request_id":-7,"label":"é😀"})";
    const auto request = read(text);
    REQUIRE(request.has_value());
    CHECK(request->prompt_name == "sup\"port\n\x01");
    CHECK(request->prompt_input_variables.size() == 2);
    CHECK(*request->request_id == -7);
    CHECK_FALSE(request->version.has_value());
    CHECK(request->label == "é😀");
    CHECK(pl::to_json(*request).value() == text);
}

TEST_CASE("JSON white space and escapes are accepted") {
    const auto request =
        read(" \t\r\n{ \"prompt_name\" : \"\\u0061\\ud83d\\ude00\\/\" , \"request_id\" : 1 } \r\n\t ");
    REQUIRE(request.has_value());
    CHECK(request->prompt_name == "a😀/");
}

TEST_CASE("malformed JSON is reported with its byte offset") {
    check_malformed("", 0);
    check_malformed("{", 1);
    check_malformed(R"({"prompt_name":"a)", 17);
    check_malformed(R"({"prompt_name":tru})", 15); // the literal begins here
    check_malformed(R"({'prompt_name':"a"})", 1);
    check_malformed(R"({"prompt_name":"a",})", 19);
    check_malformed(R"({"request_id":01})", 15);
    check_malformed(R"({"request_id":NaN})", 14);
    check_malformed("{\"prompt_name\":\"a\nb\"}", 17);
    check_malformed("// a comment\n{}", 0);
}

TEST_CASE("invalid UTF-8 and unpaired surrogate escapes are malformed JSON") {
    for (const std::string_view name :
         {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\\ud800", "\\ud800x", "\\udc00"}) {
        const auto outcome = read(R"({"prompt_name":")" + std::string{name} + R"(","request_id":1})");
        REQUIRE_FALSE(outcome.has_value());
        CHECK(outcome.error().code == pl::errc::malformed_json);
    }
}

TEST_CASE("a body that is not an object is one violation") {
    for (const std::string_view text :
         {"\"x\"", "1", "null", "true", "[]", "[{\"prompt_name\":1}]", "[[[1]]]"}) {
        const auto v = only_violation(text);
        CHECK(v.path.empty());
        CHECK(v.rule == rule::type);
    }
    CHECK(to_string(only_violation("[1]")) == "the body must be an object, is an array");
}

TEST_CASE("a wrong type is a violation with path, expected type and actual type") {
    CHECK(to_string(only_violation(R"({"prompt_name":1,"request_id":1})")) ==
          "prompt_name: must be a string, is a number");
    CHECK(to_string(only_violation(R"({"prompt_name":"a","request_id":"1"})")) ==
          "request_id: must be an integer, is a string");
    CHECK(to_string(only_violation(with(R"("version":true)"))) ==
          "version: must be an integer, is a boolean");
    CHECK(to_string(only_violation(with(R"("version":null)"))) == "version: must be an integer, is null");
    CHECK(to_string(only_violation(with(R"("label":{"a":"b"})"))) == "label: must be a string, is an object");
    CHECK(to_string(only_violation(with(R"("label":["x",{"label":1}])"))) ==
          "label: must be a string, is an array");
    CHECK(to_string(only_violation(with(R"("prompt_input_variables":"x")"))) ==
          "prompt_input_variables: must be an object, is a string");
    CHECK(to_string(only_violation(with(R"("prompt_input_variables":[{"a":1}])"))) ==
          "prompt_input_variables: must be an object, is an array");
    for (const std::string_view value : {"1", "null", "true", "{\"a\":\"b\"}", "[\"x\",{\"y\":2}]"}) {
        const auto v =
            only_violation(with(R"("prompt_input_variables":{"ok":"","user":)" + std::string{value} + "}"));
        CHECK(v.path == "prompt_input_variables[\"user\"]");
        CHECK(v.rule == rule::type);
    }
}

TEST_CASE("a missing required member is a violation") {
    CHECK(only_violation(R"({"request_id":1})") ==
          pl::violation{"prompt_name", rule::required, 0, 0, "is required"});
    CHECK(to_string(only_violation(R"({"prompt_name":"a"})")) == "request_id: is required");
    CHECK(read("{}").error().violations.size() == 2);
}

TEST_CASE("an unknown member is a violation that names it") {
    const auto v = only_violation(with(R"("lable":"prod")"));
    CHECK(v == pl::violation{"lable", rule::unknown_member, 0, 0, v.message});
    CHECK(only_violation(with(R"("":{"a":[1]})")).path == "[\"\"]");
    CHECK(only_violation(with(R"("a\"\n":1)")).path == R"(a\"\u000a)");
    CHECK(only_violation(with("\"" + std::string(65, 'x') + "\":1")).path == std::string(64, 'x'));
}

TEST_CASE("a repeated member or variable is a violation, even with the same value") {
    CHECK(only_violation(R"({"prompt_name":"a","request_id":1,"prompt_name":"a"})") ==
          pl::violation{"prompt_name", rule::unique, 0, 0, "is given more than once"});
    CHECK(only_violation(with(R"("prompt_input_variables":{"a":"1","b":"","a":"1"})")) ==
          pl::violation{"prompt_input_variables[\"a\"]", rule::unique, 0, 0, "is given more than once"});
    CHECK(only_violation(with(R"("prompt_input_variables":{},"prompt_input_variables":{})")).rule ==
          rule::unique);
}

TEST_CASE("a repeated variable and a wrong type are two violations") {
    for (const std::string_view variables : {R"({"a":1,"a":"x"})", R"({"a":"x","a":1})"}) {
        const auto outcome = read(with("\"prompt_input_variables\":" + std::string{variables}));
        CHECK(outcome.error().violations.size() == 2);
    }
}

TEST_CASE("text after the value is a violation with its offset") {
    CHECK(only_violation(R"({"prompt_name":"a","request_id":1} x)") ==
          pl::violation{"", rule::trailing_text, 0, 35, "text after the JSON value, at byte 35"});
    CHECK(only_violation(R"({"prompt_name":"a","request_id":1}{})").actual == 34);
    CHECK(only_violation(std::string{R"({"prompt_name":"a","request_id":1})"} + '\0').actual == 34);
}

TEST_CASE("a number with an integral value is an integer, whatever its notation") {
    const auto id = [](std::string_view number) {
        return std::int64_t{*read(with_id(number)).value().request_id};
    };
    CHECK(id("2") == 2);
    CHECK(id("2.0") == 2);
    CHECK(id("2e3") == 2000);
    CHECK(id("2E+3") == 2000);
    CHECK(id("-2.50e1") == -25);
    CHECK(id("1200e-2") == 12);
    CHECK(id("0.0012e4") == 12);
    CHECK(id("0") == 0);
    CHECK(id("-0") == 0);
    CHECK(id("0.000") == 0);
    CHECK(id("0e400") == 0);
    CHECK(id("0e-400") == 0);
    CHECK(id("9007199254740993.0") == 9007199254740993);
    CHECK(id("9007199254740993e0") == 9007199254740993);
    CHECK(id("9.223372036854775807e18") == INT64_MAX);
    CHECK(id("999999999999999999") == 999999999999999999); // 18 digits
    CHECK(id("1000000000000000000") == 1000000000000000000);
    CHECK(id("9223372036854775807") == INT64_MAX);
    CHECK(id("-9223372036854775808") == INT64_MIN);
    CHECK(id("-9223372036854775808.000000") == INT64_MIN);
    CHECK(id("1" + std::string(400, '0') + "e-400") == 1);
    CHECK(id("0." + std::string(400, '0') + "7e401") == 7);
}

TEST_CASE("a fraction is a violation, however small") {
    for (const std::string_view number :
         {"0.5", "-0.25", "2.9", "1e-1", "1e-400", "25000000000.5", "9007199254740993.5",
          "9223372036854775807.1", "1.00000000000000000000000000000000000001"}) {
        const auto v = only_violation(with_id(number));
        CHECK(v.path == "request_id");
        CHECK(v.rule == rule::type);
        CHECK(v.message == "must be an integer, is a number with a fraction");
    }
}

TEST_CASE("an integer outside 64 bits is a violation") {
    for (const std::string_view number :
         {"9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
          "1e19", "1e400", "-1e400", "92233720368547758070", "100000000000000000000000000000000000000"}) {
        CHECK(only_violation(with_id(number)) ==
              pl::violation{"request_id", rule::range, 0, 0, "must fit in 64 bits signed"});
    }
}

TEST_CASE("from_json applies the rules of the schema") {
    CHECK(only_violation(R"({"prompt_name":"","request_id":1})").rule == rule::min_length);
    CHECK(only_violation(with(R"("label":"")")).rule == rule::min_length);
    std::string label;
    for (int i = 0; i < 513; ++i)
        label += "😀";
    const auto v = only_violation(with("\"label\":\"" + label + "\""));
    CHECK(v.rule == rule::max_length);
    CHECK(v.actual == 513);
    CHECK(only_violation(with(R"("version":1,"label":"prod")")).rule == rule::at_most_one_of);
}

TEST_CASE("from_json reports all violations at once") {
    const auto outcome =
        read(R"({"prompt_name":"","prompt_input_variables":{"a":1,"b":"","b":"","c":{"d":3}},)"
             R"("label":[],"version":null,"label":"x","extra":0} x)");
    REQUIRE_FALSE(outcome.has_value());
    std::vector<rule> rules;
    for (const auto& v : outcome.error().violations)
        rules.push_back(v.rule);
    CHECK(rules == std::vector<rule>{rule::min_length, rule::type, rule::unique, rule::type, rule::type,
                                     rule::type, rule::unique, rule::unknown_member, rule::trailing_text,
                                     rule::required, rule::at_most_one_of});
}

TEST_CASE("no message about a text repeats a value from it") {
    const auto outcome =
        read(R"({"prompt_name":["sesame"],"request_id":"sesame","label":"sesame","version":"sesame",)"
             R"("prompt_input_variables":{"a":["sesame"]}} sesame)");
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().violations.size() == 6);
    CHECK(outcome.error().message.find("sesame") == std::string::npos);
    CHECK(read("{\"prompt_name\":sesame}").error().message.find("sesame") == std::string::npos);
}

TEST_CASE("text nested 32 deep is read, and deeper text is rejected with its offset") {
    const auto nested = [](std::size_t depth) {
        return with("\"x\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']'));
    };
    CHECK(only_violation(nested(32)).rule == rule::unknown_member);
    const auto rejected = read(nested(33));
    CHECK(rejected.error().code == pl::errc::malformed_json);
    CHECK(rejected.error().offset.has_value());
    CHECK(read(std::string(8'000'000, '[')).error().code == pl::errc::malformed_json);
    CHECK(read(std::string(8'000'000, '{')).error().code == pl::errc::malformed_json);
}

TEST_CASE("text of max_request_bytes is read, and longer text is rejected unread") {
    const std::string text = with_id("1");
    CHECK(pl::from_json<pl::track_prompt>(text, text.size()).has_value());
    const auto rejected = pl::from_json<pl::track_prompt>(text, text.size() - 1);
    REQUIRE_FALSE(rejected.has_value());
    CHECK(rejected.error().code == pl::errc::invalid_request);
    CHECK(rejected.error().violations.at(0).rule == rule::max_bytes);
    CHECK(rejected.error().violations.at(0).actual == text.size());
    CHECK(read(text + std::string(8 * 1024 * 1024 - text.size(), ' ')).has_value());
    CHECK(read(text + std::string(8 * 1024 * 1024 - text.size() + 1, ' ')).error().violations.at(0).rule ==
          rule::max_bytes);
}

TEST_CASE("a text of any length is read as Boost.JSON reads it") {
    constexpr std::string_view pieces[] = {"a",
                                           "seven b",
                                           "a run of 20 letters ",
                                           "\\n",
                                           "\\\\",
                                           "\\/",
                                           "\\\"",
                                           "\\u0001",
                                           "\\u00e9",
                                           "\\ud83d\\ude00",
                                           "\xC3\xA9",
                                           "\xF0\x9F\x98\x80"};
    std::minstd_rand random{1};
    for (std::size_t size = 0; size < 1200; size += 3) {
        std::string text;
        const bool has_escapes = size % 2 != 0;
        while (text.size() < size) {
            const std::string_view piece = pieces[random() % std::size(pieces)];
            text += has_escapes || piece[0] != '\\' ? piece : "";
        }
        CAPTURE(text);
        const auto request = read(with("\"prompt_input_variables\":{\"" + text + "\":\"" + text + "\"}"));
        REQUIRE(request.has_value());
        const auto expected = boost::json::parse("\"" + text + "\"").as_string();
        CHECK(request->prompt_input_variables.begin()->first == std::string_view{expected});
        CHECK(request->prompt_input_variables.begin()->second == std::string_view{expected});
    }
}

TEST_CASE("a byte that breaks a text is malformed JSON at any place, in a value or a name") {
    for (const char broken : {'\x80', '\xC3', '\xFF', '\n', '"'}) {
        for (std::size_t before = 0; before < 40; ++before) {
            for (const std::string beginning : {"", "\\n"}) {
                const std::string text =
                    "\"" + beginning + std::string(before, 'x') + broken + std::string(20, 'x') + "\"";
                CAPTURE(text);
                CHECK(read("{\"prompt_name\":" + text + ",\"request_id\":1}").error().code ==
                      pl::errc::malformed_json);
                CHECK(read("{\"prompt_name\":\"a\",\"request_id\":1," + text + ":1}").error().code ==
                      pl::errc::malformed_json);
            }
        }
    }
}

TEST_CASE("every prefix of a body is malformed JSON") {
    const std::string text = with(R"("prompt_input_variables":{"\ud83d\ude00":"é"},"version":-1.5e1)");
    REQUIRE(read(text).has_value());
    for (std::size_t length = 0; length < text.size(); ++length)
        CHECK(read(std::string_view{text}.substr(0, length)).error().code == pl::errc::malformed_json);
}
