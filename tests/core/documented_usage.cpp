// The interface as a user writes it, each line as it stands in a program.

#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace in_house {

struct reply {
    bool arrived;
    std::string why;
    int status;
    std::vector<promptlayer::header> headers;
    std::string body;
};

reply post(const std::string&, const std::vector<promptlayer::header>&, const std::string&,
           std::chrono::milliseconds) {
    return {true, "", 200, {}, R"({"success":true,"message":"Tracked"})"};
}

} // namespace in_house

namespace {

struct my_transport { // satisfies promptlayer::Transport
    promptlayer::transport_result send(const promptlayer::http_request& request) {
        auto reply = in_house::post(request.url, request.headers, request.body, request.timeout);
        if (!reply.arrived)
            return promptlayer::transport_failure{promptlayer::failure::other, reply.why};
        return promptlayer::http_response{reply.status, reply.headers, reply.body};
    }
};

promptlayer::transport_result my_post(const promptlayer::http_request&) {
    return promptlayer::http_response{404, {}, ""};
}

// a literal request is checked while compiling; a missing required field does not compile
static_assert(promptlayer::is_valid(promptlayer::track_prompt_view{.prompt_name = "a", .request_id = 1}));

} // namespace

TEST_CASE("a synchronous transport of ten lines tracks a prompt") {
    promptlayer::client client{{.api_key = "pl_..."}, my_transport{}};

    auto tracked = client.track_prompt({
        .prompt_name = "support-response",
        .prompt_input_variables = {{"user_message", "Hello"}},
        .request_id = 12345,
        .version = 2,
    });
    if (!tracked)
        std::cerr << tracked.error() << '\n';
    else
        std::cout << tracked->message << '\n';
    REQUIRE(tracked.has_value());
    CHECK(tracked->message == "Tracked");

    promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1};
    auto response = client.call(request);
    CHECK(response.has_value());
}

TEST_CASE("an asynchronous transport calls the handler") {
    promptlayer::client client{{.api_key = "pl_..."}, promptlayer::testing::recording_async_transport{}};
    promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1};
    int called = 0;
    client.track_prompt(request,
                        [&](promptlayer::result<promptlayer::track_response> r) { called += r.has_value(); });
    client.transport().complete_all();
    CHECK(called == 1);
}

TEST_CASE("encode and decode work without a client") {
    promptlayer::config config{.api_key = "pl_..."};
    promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1};
    promptlayer::http_response http_response{200, {}, R"({"success":true,"message":"Tracked"})"};
    promptlayer::result<promptlayer::http_request> out = promptlayer::encode(config, request);
    promptlayer::result<promptlayer::track_response> in = promptlayer::decode(config, http_response);
    CHECK(out.has_value());
    CHECK(in.has_value());
    CHECK(promptlayer::decode(http_response).has_value());
}

TEST_CASE("a closure serves as a transport") {
    promptlayer::config config{.api_key = "pl_..."};
    promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1};
    promptlayer::client quick{config, promptlayer::transport_from([&](const promptlayer::http_request& r) {
                                  return my_post(r); // -> promptlayer::transport_result
                              })};
    CHECK(quick.track_prompt(request).error().code == promptlayer::errc::not_found);
}

TEST_CASE("a recording transport returns scripted results and records requests") {
    promptlayer::config config{.api_key = "pl_..."};
    promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1};
    promptlayer::client recorded{config, promptlayer::testing::recording_transport{}};
    recorded.transport().respond(promptlayer::http_response{429, {{"Retry-After", "3"}}, ""});
    recorded.transport().fail(promptlayer::transport_failure{promptlayer::failure::timeout, "no answer"});
    CHECK(recorded.track_prompt(request).error().retry_after == std::chrono::seconds{3});
    CHECK(recorded.track_prompt(request).error().failure == promptlayer::failure::timeout);
    auto sent = recorded.transport().requests(); // every http_request, in order
    CHECK(sent.size() == 2);
}

TEST_CASE("a request is written, read, described and validated without a client") {
    promptlayer::track_prompt request{.prompt_name = "a", .request_id = 1};
    const std::string text = R"({"prompt_name":"a","request_id":1})";
    auto body = promptlayer::to_json(request);                           // validated, then written
    auto read = promptlayer::from_json<promptlayer::track_prompt>(text); // read, then validated
    auto schema =
        promptlayer::json_schema<promptlayer::track_prompt>(); // the JSON Schema the declaration stands for
    auto broken = promptlayer::validate(request);              // every violation, not the first
    CHECK(body.value() == text);
    CHECK(read.value() == request);
    CHECK(schema.starts_with(R"({"type":"object")"));
    CHECK(broken.empty());
}
