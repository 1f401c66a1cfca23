#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pl = promptlayer;

namespace {

std::string written(const auto& request) { return pl::to_json(request).value(); }

} // namespace

TEST_CASE("members are written in order, without spaces") {
    CHECK(
        written(pl::track_prompt{.prompt_name = "support-response",
                                 .prompt_input_variables = {{"b", "2"}, {"a", "1"}},
                                 .request_id = 12345,
                                 .version = 2}) ==
        R"({"prompt_name":"support-response","prompt_input_variables":{"a":"1","b":"2"},"request_id":12345,"version":2})");
}

TEST_CASE("absent optionals and empty variables are omitted") {
    CHECK(written(pl::track_prompt{.prompt_name = "a", .request_id = 1}) ==
          R"({"prompt_name":"a","request_id":1})");
    CHECK(written(pl::track_prompt{
              .prompt_name = "a", .prompt_input_variables = {}, .request_id = 1, .label = "prod"}) ==
          R"({"prompt_name":"a","request_id":1,"label":"prod"})");
    CHECK(written(pl::track_prompt_view{.prompt_name = "a", .request_id = 1}) ==
          R"({"prompt_name":"a","request_id":1})");
}

TEST_CASE("integers are written with all their digits") {
    const auto with_id = [](std::int64_t id) {
        return written(pl::track_prompt{.prompt_name = "a", .request_id = id});
    };
    CHECK(with_id(0) == R"({"prompt_name":"a","request_id":0})");
    CHECK(with_id(-1) == R"({"prompt_name":"a","request_id":-1})");
    CHECK(with_id(9007199254740993) == R"({"prompt_name":"a","request_id":9007199254740993})");
    CHECK(with_id(INT64_MAX) == R"({"prompt_name":"a","request_id":9223372036854775807})");
    CHECK(with_id(INT64_MIN) == R"({"prompt_name":"a","request_id":-9223372036854775808})");
}

TEST_CASE("every ASCII character survives a JSON parser, and the measured size is the written size") {
    for (int c = 0; c < 0x80; ++c) {
        const std::string text = std::string("before ") + static_cast<char>(c) + "\xC3\xA9 after";
        const pl::track_prompt request{
            .prompt_name = text, .prompt_input_variables = {{text, text}}, .request_id = 1, .label = text};
        const std::string json = written(request);
        CHECK(pl::validate(request, json.size()).empty());
        CHECK_FALSE(pl::validate(request, json.size() - 1).empty());
        const auto read = boost::json::parse(json).as_object();
        CHECK(read.at("prompt_name").as_string() == text);
        CHECK(read.at("label").as_string() == text);
        CHECK(read.at("prompt_input_variables").as_object().at(text).as_string() == text);
    }
}

TEST_CASE("a long text with many escapes is written completely") {
    std::string text;
    for (int i = 0; i < 5000; ++i)
        text += i % 7 == 0 ? "\"" : i % 11 == 0 ? "\n" : i % 13 == 0 ? "\xF0\x9F\x98\x80" : "x";
    const auto json = written(pl::track_prompt{.prompt_name = text, .request_id = 1});
    CHECK(boost::json::parse(json).as_object().at("prompt_name").as_string() == text);
}

#if defined(PROMPTLAYER_DEFINITIONS)
TEST_CASE("memory for many long texts grows by doubling, not text by text") {
    std::string out;
    pl::detail::json_writer<pl::detail::vector_block> writer{out, out.max_size()};
    int growths = 0;
    for (int i = 0; i < 2000; ++i) {
        const std::size_t before = out.capacity();
        writer.put_text(std::string(100, 'x'));
        growths += out.capacity() != before;
    }
    CHECK(growths < 20);
}
#endif

TEST_CASE("a body is written completely, whatever its size and wherever a text ends") {
    const std::string longest(64, '\x01'); // of the texts that are written at once, six times as long
    const std::string_view texts[] = {longest,
                                      "",
                                      "a",
                                      "0123456789abcdef",
                                      "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x1F",
                                      "She said \"wait\", and \\ we wait\xC3\xA9"
                                      "d. \xE6\xBC\xA2 \xF0\x9F\x98\x80"};
    for (std::size_t i = 0; i < std::size(texts); ++i) {
        for (std::size_t first = 0; first < 600; ++first) {
            pl::track_prompt request{.prompt_name = std::string(first + 1, 'n'), .request_id = 1};
            std::string expected =
                "{\"prompt_name\":\"" + *request.prompt_name + "\",\"prompt_input_variables\":{";
            for (int name = 1000; name < 1200; ++name) {
                const std::string_view text = texts[(i + static_cast<std::size_t>(name)) % std::size(texts)];
                request.prompt_input_variables.emplace(std::to_string(name), text);
                expected += (name == 1000 ? "\"" : ",\"") + std::to_string(name) +
                            "\":" + boost::json::serialize(boost::json::string(text));
            }
            REQUIRE(written(request) == expected + "},\"request_id\":1}");
            if (first == 10)
                first = 400;
        }
    }
}

TEST_CASE("an invalid request is not written") {
    const auto rejected = pl::to_json(pl::track_prompt{.prompt_name = "", .request_id = 1});
    REQUIRE_FALSE(rejected.has_value());
    CHECK(rejected.error().code == pl::errc::invalid_request);
    CHECK(rejected.error().violations.size() == 1);
    CHECK(rejected.error().message == "prompt_name: at least 1 character, has 0");
    CHECK_FALSE(rejected.error().retryable());
    CHECK(pl::to_json(pl::track_prompt{.prompt_name = "\xFF\n", .request_id = 1}).error().violations.size() ==
          1);
}

TEST_CASE("a JSON object of any size is written as it is, up to the limit of the body") {
    pl::log_request request{.provider = "a",
                            .model = "b",
                            .input = "{}",
                            .output = "{}",
                            .request_start_time = "2026-01-01T00:00:00Z",
                            .request_end_time = "2026-01-01T00:00:00Z"};
    const std::size_t size = written(request).size();
    for (const std::size_t bytes : {4'000u, 4'020u, 4'095u, 4'096u, 4'097u, 5'000u, 100'000u}) {
        const std::string input = "{\"a\":\"" + std::string(bytes - 8, 'b') + "\"}";
        request.input = input;
        const std::size_t total = size - 2 + bytes;
        const std::string json = pl::to_json(request, total).value();
        CHECK(json.size() == total);
        CHECK(json.find("\"input\":" + input + ",\"output\":{}") != json.npos);
        CHECK(pl::to_json(request, total - 1).error().violations.at(0).rule == pl::rule::max_bytes);
        CHECK(pl::to_json(request, bytes - 1).error().violations.at(0).rule == pl::rule::max_bytes);
    }
}

TEST_CASE("to_json accepts its own size limit") {
    const pl::track_prompt request{.prompt_name = "a", .request_id = 1};
    CHECK(pl::to_json(request, 34).has_value());
    CHECK(pl::to_json(request, 33).error().violations.at(0).rule == pl::rule::max_bytes);
}

TEST_CASE("chat_prompt writes messages from braces, a vector or a span") {
    const std::vector<pl::chat_message> messages{
        {pl::role::system, "a\"b\n"}, {pl::role::user, ""}, {pl::role::assistant, "\xC3\xA9"}};
    const std::string text =
        R"({"type":"chat","messages":[{"role":"system","content":[{"type":"text","text":"a\"b\n"}]},)"
        R"({"role":"user","content":[{"type":"text","text":""}]},)"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"\xC3\xA9\"}]}]}";
    CHECK(pl::chat_prompt(messages).text() == text);
    CHECK(pl::chat_prompt(std::span{messages}).text() == text);
    CHECK(pl::chat_prompt({messages[0], messages[1], messages[2]}).text() == text);
    CHECK(pl::chat_prompt({}).text() == R"({"type":"chat","messages":[]})");
}

TEST_CASE("a chat_prompt of text that is not UTF-8, or of an unknown role, is rejected") {
    const auto rule_of = [](const pl::chat_message& message) {
        pl::log_request request = test_support::valid_log();
        request.input = pl::chat_prompt({message, {pl::role::user, "b"}});
        const auto broken = pl::validate(request);
        return broken.empty() ? pl::rule::omitted : broken[0].rule;
    };
    CHECK(rule_of({pl::role::user, "a"}) == pl::rule::omitted);
    const std::string before(1000, 'a');
    for (const std::string& text : {std::string{"\xFF"}, before + "\xE2\x82", before + "\xFF" + before})
        CHECK(rule_of({pl::role::user, text}) == pl::rule::utf8);
    CHECK(rule_of({static_cast<pl::role>(3), "a"}) == pl::rule::json_object);
    CHECK(rule_of({static_cast<pl::role>(-1), "a"}) == pl::rule::json_object);
}
