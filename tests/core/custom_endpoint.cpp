// A made-up endpoint of another shape has everything that track_prompt has.

#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace pl = promptlayer;
using pl::rule;

namespace {

struct ticket_reply {
    pl::integer ticket{};
    std::optional<std::string> queue{};
    std::map<std::string, std::string> notes{};

    using schema =
        pl::schema<pl::field<"ticket", &ticket_reply::ticket>, pl::field<"queue", &ticket_reply::queue>,
                   pl::field<"notes", &ticket_reply::notes>>;
};

struct file_ticket {
    pl::required<bool> urgent;
    std::optional<std::string> by_name{};
    std::optional<std::string> by_mail{};
    std::optional<pl::integer> by_number{};
    pl::required<std::string> text;
    std::map<std::string, std::string> tags{};

    static constexpr std::string_view path = "/made-up/tickets";
    using reply = ticket_reply;
    using schema = pl::schema<pl::field<"urgent", &file_ticket::urgent>, //
                              pl::field<"by_name", &file_ticket::by_name>,
                              pl::field<"by_mail", &file_ticket::by_mail, pl::min_length<3>>,
                              pl::field<"by_number", &file_ticket::by_number>,
                              pl::field<"text", &file_ticket::text, pl::min_length<2>, pl::max_length<4>>,
                              pl::field<"tags", &file_ticket::tags>,
                              pl::at_most_one_of<"by_name", "by_mail", "by_number">>;
};

} // namespace

TEST_CASE("a custom model is validated by its schema") {
    CHECK(pl::validate(file_ticket{.urgent = false, .text = "ab"}).empty());
    const auto violations = pl::validate(
        file_ticket{.urgent = true, .by_name = "", .by_mail = "me", .by_number = 3, .text = "fives"});
    REQUIRE(violations.size() == 3);
    CHECK(to_string(violations[0]) == "by_mail: at least 3 characters, has 2");
    CHECK(to_string(violations[1]) == "text: at most 4 characters, has 5");
    CHECK(to_string(violations[2]) == "only one of by_name, by_mail, by_number may be given");
    CHECK(violations[2].actual == 3);
}

TEST_CASE("a custom model is written and read by its schema") {
    const file_ticket ticket{.urgent = true, .by_number = -4, .text = "ab", .tags = {{"k", "v"}}};
    const std::string text = R"({"urgent":true,"by_number":-4,"text":"ab","tags":{"k":"v"}})";
    CHECK(pl::to_json(ticket).value() == text);
    const auto read = pl::from_json<file_ticket>(text);
    REQUIRE(read.has_value());
    CHECK(*read->urgent);
    CHECK(read->by_number == -4);
    CHECK(pl::to_json(*read).value() == text);
    CHECK(pl::to_json(pl::from_json<file_ticket>(R"({"urgent":false,"text":"ab"})").value()).value() ==
          R"({"urgent":false,"text":"ab"})");
    CHECK(to_string(pl::from_json<file_ticket>(R"({"urgent":"yes","text":"ab"})").error()) ==
          "urgent: must be a boolean, is a string");
    CHECK(to_string(pl::from_json<file_ticket>("{}").error()) == "urgent: is required; text: is required");
}

TEST_CASE("a custom model has its JSON Schema") {
    const auto expected = boost::json::parse(R"({
        "type": "object",
        "properties": {
            "urgent": {"type": "boolean"},
            "by_name": {"type": "string"},
            "by_mail": {"type": "string", "minLength": 3},
            "by_number": {"type": "integer"},
            "text": {"type": "string", "minLength": 2, "maxLength": 4},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}}
        },
        "required": ["urgent", "text"],
        "not": {"anyOf": [{"required": ["by_name", "by_mail"]},
                          {"required": ["by_name", "by_number"]},
                          {"required": ["by_mail", "by_number"]}]}
    })");
    CHECK(boost::json::parse(pl::json_schema<file_ticket>()) == expected);
    CHECK(
        pl::json_schema<ticket_reply>() ==
        R"({"type":"object","properties":{"ticket":{"type":"integer"},"queue":{"type":"string"},"notes":{"type":"object","additionalProperties":{"type":"string"}}},"required":["ticket"]})");
}

TEST_CASE("a client calls a custom endpoint and redacts its reply") {
    pl::client client{{.api_key = "pl_secret"}, pl::testing::recording_transport{}};
    client.transport().respond({200, {}, R"({"ticket":7,"queue":"night","more":{}})"});
    const auto reply = client.call(file_ticket{.urgent = true, .text = "ab"});
    REQUIRE(reply.has_value());
    CHECK(reply->ticket == 7);
    CHECK(reply->queue == "night");
    CHECK(client.transport().requests().at(0).url == "https://api.promptlayer.com/made-up/tickets");

    client.transport().respond(
        {200, {}, R"({"ticket":7,"queue":"a\u001bpl_secret","notes":{"x":"pl_secret"}})"});
    const auto echoed = client.call(file_ticket{.urgent = true, .text = "ab"});
    CHECK(echoed->queue == "a [redacted]");
    CHECK(echoed->notes.at("x") == "[redacted]");

    client.transport().respond({200, {}, R"({"ticket":7,"notes":{"pl_secret\u001b":"x"}})"});
    const auto named = client.call(file_ticket{.urgent = true, .text = "ab"});
    CHECK(named->notes.at("[redacted] ") == "x");

    client.transport().respond({200, {}, R"({"ticket":7,"notes":{"pl_secret":1}})"});
    const auto wrong = client.call(file_ticket{.urgent = true, .text = "ab"}).error();
    CHECK(wrong.message.ends_with(R"(: notes["[redacted]"]: must be a string, is a number)"));
    CHECK(wrong.violations.at(0).path == R"(notes["[redacted]"])");

    // A name that is cut within the key shows no part of the key.
    client.transport().respond(
        {200, {}, R"({"ticket":7,"notes":{")" + std::string(62, 'x') + R"(pl_secret":1}})"});
    const auto cut = client.call(file_ticket{.urgent = true, .text = "ab"}).error();
    CHECK(cut.violations.at(0).path == "notes[\"" + std::string(62, 'x') + "[r\"]");

    client.transport().respond({200, {}, R"({"ticket":7.5})"});
    const auto malformed = client.call(file_ticket{.urgent = true, .text = "ab"});
    CHECK(malformed.error().code == pl::errc::malformed_response);
    CHECK(malformed.error().violations.at(0).path == "ticket");
}

namespace {

// Functions with names that the library uses.
namespace elsewhere {

struct nothing {
    using schema = pl::schema<>;
};

struct named {
    std::string text{};

    static constexpr std::string_view path = "/made-up/names";
    using reply = nothing;
    using schema = pl::schema<pl::field<"text", &named::text, pl::min_length<1>>>;
};

[[maybe_unused]] void walk(const named&, std::size_t, auto&, auto&) {}
template <class Any>
[[maybe_unused]] bool write_json(const Any&, std::size_t, std::string&) {
    return true;
}

} // namespace elsewhere

} // namespace

TEST_CASE("an integer of a reply is read by its value, and the last of repeated members counts") {
    const auto ticket = [](const std::string& number) {
        return pl::decode<file_ticket>({200, {}, R"({"ticket":)" + number + "}"});
    };
    CHECK(ticket("7.0")->ticket == 7);
    CHECK(ticket("-7e2")->ticket == -700);
    CHECK(ticket("1e14")->ticket == 100'000'000'000'000);
    CHECK(ticket("9007199254740993.0")->ticket == 9007199254740993);
    CHECK(ticket("9223372036854775807")->ticket == INT64_MAX);
    CHECK(ticket("-9223372036854775808")->ticket == INT64_MIN);
    CHECK(ticket("1,\"ticket\":2")->ticket == 2);
    CHECK(to_string(ticket("7.5").error().violations.at(0)) ==
          "ticket: must be an integer, is a number with a fraction");
    for (const char* const number : {"9223372036854775808", "-9223372036854775809", "1e19", "-1e19", "1e300"})
        CHECK(to_string(ticket(number).error().violations.at(0)) == "ticket: must fit in 64 bits signed");
}

TEST_CASE("variables of a reply that differ in hidden characters only are a violation") {
    const auto reply =
        pl::decode<file_ticket>({200, {}, R"({"ticket":7,"notes":{"x\u0001":"1","x\u0002":"2"}})"});
    CHECK(reply.error().code == pl::errc::malformed_response);
    CHECK(reply.error().violations.at(0).rule == rule::unique);
}

namespace {

struct constant_text {
    operator std::string_view() const { return "constant"; }
};

struct written_only {
    constant_text text{};
    const std::string fixed = "fixed";
    std::string_view nothing{};
    std::multimap<std::string, std::string> sorted{};
    std::map<std::string, const char*> literals{};

    using schema =
        pl::schema<pl::field<"text", &written_only::text>, pl::field<"fixed", &written_only::fixed>,
                   pl::field<"nothing", &written_only::nothing>, pl::field<"sorted", &written_only::sorted>,
                   pl::field<"literals", &written_only::literals>>;
};

struct ticket_base {
    std::string title{};
};

struct derived_ticket : ticket_base {
    std::string text{};

    using schema =
        pl::schema<pl::field<"title", &derived_ticket::title>, pl::field<"text", &derived_ticket::text>>;
};

} // namespace

TEST_CASE("a model that JSON cannot be read into can be written") {
    CHECK(pl::to_json(written_only{.sorted = {{"a", "1"}}, .literals = {{"b", "2"}}}).value() ==
          R"({"text":"constant","fixed":"fixed","nothing":"","sorted":{"a":"1"},"literals":{"b":"2"}})");
    CHECK(pl::validate(written_only{.sorted = {{"a", "1"}, {"a", "2"}}}).at(0).rule == rule::unique);
}

TEST_CASE("a model may have members of a base class") {
    const std::string text = R"({"title":"a","text":"b"})";
    CHECK(pl::to_json(pl::from_json<derived_ticket>(text).value()).value() == text);
}

TEST_CASE("a view without a range has no variables") {
    const std::map<std::string, std::string> variables;
    decltype(pl::view_of(variables, {.prompt_name = "a", .request_id = 1})) view{
        .prompt_name = "a", .request_id = 1, .version = {}, .label = {}};
    CHECK(pl::to_json(view).value() == R"({"prompt_name":"a","request_id":1})");
}

TEST_CASE("a reply of any length is read whole") {
    const std::string queue(200'000, 'q');
    CHECK(pl::decode<file_ticket>({200, {}, R"({"ticket":7,"queue":")" + queue + "\"}"})->queue == queue);
}

TEST_CASE("functions in a model's namespace do not replace the library's, and a reply may be empty") {
    CHECK(pl::validate(elsewhere::named{}).size() == 1);
    pl::client client{{.api_key = "pl_key"}, pl::testing::recording_transport{}};
    CHECK(client.call(elsewhere::named{"x"}).has_value());
    CHECK(pl::json_schema<elsewhere::nothing>() == R"({"type":"object","properties":{}})");
}
