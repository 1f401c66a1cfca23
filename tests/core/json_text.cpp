#include <promptlayer/detail/json_text.hpp>

#include <boost/json/parse.hpp>
#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

using promptlayer::detail::check_json_object;
using promptlayer::detail::find_json_member;
using promptlayer::detail::for_each_json_member;
using promptlayer::detail::json_text_error;

namespace {

// Every kind of token, in both forms where there are two.
constexpr std::string_view rich =
    " {\"\":\t0,\r\n\"name\" : [ -1.50e+3 , 20E-2,0.1e0, [], {} , "
    "[\"\\u00e9\\uD83D\\uDE00\\\"\\\\\\/\\b\\f\\n\\r\\t\"]],"
    "\"a plain string of more than eight bytes\":\"\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80\x7F\",\"\\u0000\":"
    "{\"true\":true,\"false\":false,\"null\":null},\"name\":1234567890123456789012}\n";

constexpr json_text_error error_of(std::string_view text, std::size_t max_depth = 32) {
    return check_json_object(text, max_depth).error;
}

static_assert(error_of(rich) == json_text_error::none);
static_assert(check_json_object(rich, 3).offset == rich.size());
static_assert(error_of("{\"a\":\"\xFF\"}") == json_text_error::utf8);
static_assert(error_of("{\"a\":[[]]}", 2) == json_text_error::max_depth);
static_assert(error_of("[]") == json_text_error::malformed);
static_assert([] {
    std::size_t sizes = 0;
    for_each_json_member(R"({"a":1,"bc":[2]})",
                         [&](std::size_t index, std::string_view name, std::string_view value) {
                             sizes += 100 * index + 10 * name.size() + value.size();
                         });
    return sizes == 11 + 123;
}());

std::string nested(std::size_t depth, std::string_view open, std::string_view close) {
    std::string text = "{\"a\":";
    for (std::size_t i = 1; i < depth; ++i)
        text += open;
    text += "1";
    for (std::size_t i = 1; i < depth; ++i)
        text += close;
    return text + "}";
}

bool boost_accepts(std::string_view text) {
    boost::json::error_code failed;
    const auto value = boost::json::parse(text, failed);
    return !failed && value.is_object();
}

struct member {
    std::string_view name;
    std::string_view value;
    bool operator==(const member&) const = default;
};

std::vector<member> members_of(std::string_view object) {
    std::vector<member> members;
    for_each_json_member(object, [&](std::size_t index, std::string_view name, std::string_view value) {
        CHECK(index == members.size());
        members.push_back({name, value});
    });
    return members;
}

} // namespace

TEST_CASE("check_json_object accepts every form of JSON in one object") {
    for (const std::string_view text : {
             "{}",
             " \t\r\n{ \t\r\n} \t\r\n",
             R"({"":""})",
             R"({"a":1,"a":2})", // repeated
             R"({"a":[]})",
             R"({"a":[ ],"b":{ }})",
             R"({"a":[1,"",true,false,null,{},[]]})",
             R"({"a":0,"b":-0,"c":10,"d":-0.5e-7,"e":0E+0,"f":1e007})",
             R"({"a":1e400,"b":1e-400})",
             R"({"a":"\u0000\uFFFF\uABcd"})",
             R"({"a":"\ud800\udc00\uDBFF\uDFFF"})",
             R"({"\"\\\/\b\f\n\r\t":"\"\\\/\b\f\n\r\t"})",
             "{\"\x7F\xC2\x80\":\"\xF4\x8F\xBF\xBF\"}",
         }) {
        CAPTURE(text);
        const auto [error, offset] = check_json_object(text, 32);
        CHECK(error == json_text_error::none);
        CHECK(offset == text.size());
        CHECK(boost_accepts(text));
    }
}

TEST_CASE("check_json_object reports the offset of what is malformed") {
    struct {
        std::string_view text;
        std::size_t offset;
    } const cases[] = {
        {"", 0},
        {"  ", 2},
        {"[]", 0},
        {"1", 0},
        {"null", 0},
        {"\xEF\xBB\xBF{}", 0}, // a byte order mark
        {"\xFF", 0},
        {"{", 1},
        {"{,", 1},
        {"{]", 1},
        {"{1:2}", 1},
        {"{a:2}", 1},
        {"{'a':2}", 1},
        {R"({"a")", 4},
        {R"({"a"})", 4},
        {R"({"a" 1})", 5},
        {R"({"a":})", 5},
        {R"({"a":1)", 6},
        {R"({"a":1,})", 7},
        {R"({"a":1,,"b":2})", 7},
        {R"({"a":1;"b":2})", 6},
        {R"({"a":1]})", 6},
        {R"({"a":[1})", 7},
        {R"({"a":[1,]})", 8},
        {R"({"a":[,]})", 6},
        {R"({"a":[:]})", 6},
        {R"({"a":[1 2]})", 8},
        {"{}{}", 2},
        {"{} x", 3},
        {std::string_view{"{}\0", 3}, 2},
        {"{\f}", 1},
        {"{/**/}", 1},
        {R"({"a":nul})", 5},
        {R"({"a":nulls})", 9},
        {R"({"a":True})", 5},
        {R"({"a":NaN})", 5},
        {R"({"a":Infinity})", 5},
        {R"({"a":-Infinity})", 6},
        {R"({"a":+1})", 5},
        {R"({"a":-})", 6},
        {R"({"a":01})", 6},
        {R"({"a":-01})", 7},
        {R"({"a":.5})", 5},
        {R"({"a":1.})", 7},
        {R"({"a":1.e1})", 7},
        {R"({"a":1e})", 7},
        {R"({"a":1e+})", 8},
        {R"({"a":1e+-1})", 8},
        {R"({"a":0x1})", 6},
        {R"({"a":1.2.3})", 8},
        {R"({"a":1e2147483648})", 16},
        {R"({"a":1e-2147483648})", 17},
        {R"({"a":1e99999999999999999999999999})", 16},
        {"{\"a\":\"b", 7},
        {"{\"a\":\"b\n\"}", 7},
        {"{\"a\":\"b\x1F\"}", 7},
        {std::string_view{"{\"a\":\"b\0\"}", 10}, 7},
        {"{\"a\t\":1}", 3},
        {R"({"a":"b\)", 7},
        {R"({"a":"b\")", 9},
        {R"({"a":"b\v"})", 7},
        {R"({"a":"b\u12"})", 7},
        {R"({"a":"b\u12g4"})", 7},
        {R"({"a":"b\U1234"})", 7},
        {R"({"a":"b\ud800"})", 7},
        {R"({"a":"b\udbff!"})", 7},
        {R"({"a":"b\udc00"})", 7},
        {R"({"a":"b\udfff\ud800"})", 7},
        {R"({"a":"b\ud800\ud800"})", 7},
        {R"({"a":"b\udc00\udc00"})", 7},
        {R"({"a":"b\ud800\ue000"})", 7},
        {R"({"a":"b\ud800\n"})", 7},
        {R"({"a":"b\ud800\udc0"})", 7},
    };
    for (const auto& broken : cases) {
        CAPTURE(broken.text);
        const auto [error, offset] = check_json_object(broken.text, 32);
        CHECK(error == json_text_error::malformed);
        CHECK(offset == broken.offset);
        CHECK_FALSE(boost_accepts(broken.text));
    }
}

TEST_CASE("check_json_object accepts an exponent of 32 bits signed") {
    for (const std::string_view text :
         {R"({"a":1e2147483647})", R"({"a":1e-2147483647})", R"({"a":1e+0002147483647})"}) {
        CHECK(error_of(text) == json_text_error::none);
        CHECK(boost_accepts(text));
    }
    for (const std::string mantissa :
         {"10", "-1", "1.5", "0.25", "123456789012345678901234567890", "1.23456789012345678901234567890"}) {
        for (const std::string exponent : {"e2147483600", "e2147483620", "e2147483646", "e2147483647"}) {
            for (const std::string sign : {"e", "e-"}) {
                const std::string text = "{\"a\":" + mantissa + sign + exponent.substr(1) + "}";
                CAPTURE(text);
                CHECK((boost_accepts(text) || error_of(text) == json_text_error::malformed));
            }
        }
    }
}

TEST_CASE("check_json_object reports the first invalid UTF-8 in names and strings") {
    for (const std::string_view bytes :
         {"\x80", "\xC0\x80", "\xC3", "\xE6\xBC", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF"}) {
        for (std::size_t before = 0; before <= 20; ++before) {
            const std::string text = std::string(before, 'x') + std::string(bytes) + "\"";
            CHECK(error_of("{\"" + text + ":1}") == json_text_error::utf8);
            CHECK(check_json_object("{\"" + text + ":1}", 1).offset == 2 + before);
            CHECK(error_of("{\"a\":\"\xC3\xA9" + text + "}") == json_text_error::utf8);
            CHECK(check_json_object("{\"a\":\"\xC3\xA9" + text + "}", 1).offset == 8 + before);
        }
    }
}

TEST_CASE("check_json_object finds a control, quote or backslash at every position of a run") {
    for (std::size_t at = 0; at < 39; ++at) {
        std::string text = "{\"a\":\"" + std::string(40, 'x') + "\"}";
        for (const char c : {'\x01', '"', '\\'}) {
            text[6 + at] = c;
            const auto [error, offset] = check_json_object(text, 32);
            CHECK(error == json_text_error::malformed);
            CHECK(offset == 6 + at + (c == '"' ? 1 : 0));
        }
    }
}

TEST_CASE("check_json_object counts the object itself as the first level of nesting") {
    CHECK(error_of("{}", 1) == json_text_error::none);
    CHECK(error_of("{}", 0) == json_text_error::max_depth);
    for (const std::size_t depth : {1U, 2U, 3U, 32U, 200U}) {
        for (const std::string& text : {nested(depth, "[", "]"), nested(depth, "{\"a\":", "}")}) {
            CHECK(error_of(text, depth) == json_text_error::none);
            CHECK(error_of(text, depth - 1) == json_text_error::max_depth);
        }
    }
    CHECK(error_of(R"({"a":[],"b":[{}],"c":[[],[]]})", 3) == json_text_error::none); // levels end
    CHECK(check_json_object(R"({"a":1,"b":[ []]})", 2).offset == 13);
    CHECK(check_json_object(R"({"a":{}})", 1).offset == 5);
}

TEST_CASE("check_json_object stops at max_depth however deep the text nests") {
    const std::string text = "{\"a\":" + std::string(10'000'000, '[');
    CHECK(error_of(text, 32) == json_text_error::max_depth);
    CHECK(check_json_object(text, 32).offset == 36);
}

TEST_CASE("check_json_object rejects every truncation") {
    for (std::size_t size = 0; size < rich.size() - 1; ++size) { // without the last white space it is whole
        CAPTURE(size);
        CHECK(error_of(rich.substr(0, size)) != json_text_error::none);
        CHECK(check_json_object(std::string(rich.substr(0, size)), 32).offset <= size);
    }
}

TEST_CASE("check_json_object agrees with Boost.JSON on every text that differs in one byte") {
    for (const std::string& original : {std::string(rich), std::string(rich) + std::string(64, ' ')}) {
        std::size_t accepted = 0, differences = 0;
        const auto compare = [&](const std::string& text) {
            const bool ours = error_of(text) == json_text_error::none;
            accepted += ours ? 1 : 0;
            if (ours != boost_accepts(text) && differences++ == 0)
                FAIL_CHECK("first difference: ", text);
        };
        for (std::size_t at = 0; at < rich.size(); ++at) {
            for (int byte = 0; byte < 256; ++byte) {
                std::string text = original;
                text[at] = static_cast<char>(byte);
                compare(text);
            }
            compare(std::string(original).erase(at, 1));
        }
        CHECK(differences == 0);
        CHECK(accepted > 1000);
        CHECK(accepted < 256 * rich.size() * 9 / 10);
    }
}

TEST_CASE("for_each_json_member passes names with their escapes and values without white space") {
    CHECK(members_of("{}").empty());
    CHECK(members_of(" { } ").empty());
    CHECK(members_of(R"({"a":1})") == std::vector<member>{{"a", "1"}});
    CHECK(members_of("\n{ \"\" : \"\" , \"a\\\"b\"\t:\r[ 1, {\"c\": 2} ] ,\"a\\\"b\":{\"d\":\"},\"}\n} ") ==
          std::vector<member>{{"", "\"\""}, {R"(a\"b)", R"([ 1, {"c": 2} ])"}, {R"(a\"b)", R"({"d":"},"})"}});
    CHECK(members_of(rich).size() == 5);
    CHECK(members_of(nested(500, "[", "]")).size() == 1);
    CHECK(members_of("\"a\"").empty());
}

TEST_CASE("find_json_member returns the last member with a name, escaped or not") {
    CHECK(find_json_member(R"({"a":1,"b": {"a":2} ,"a":3})", "a") == "3");
    CHECK(find_json_member(R"({"a":1,"b": {"a":2} })", "b") == R"({"a":2})");
    CHECK(find_json_member(R"({"a":1})", "c").empty());
    CHECK(find_json_member(R"({"\u0061":1})", "a") == "1");
    for (const std::string name : {R"(\"\\\/\b\f\n\r\t)", R"(\u0000\u007f\u0080\u07ff\u0800\uffff)",
                                   R"(x\ud800\udc00\uDBFF\uDFFFy)", R"(\u00E9 \u6f22)"}) {
        const auto unescaped = boost::json::parse("\"" + name + "\"").as_string();
        CHECK(find_json_member("{\"" + name + "\":[0]}", unescaped) == "[0]");
    }
}
