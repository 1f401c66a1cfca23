#include <promptlayer/json.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/track_prompt.hpp>

#include "../support/raw_http.hpp"

#include <doctest/doctest.h>

#include <boost/json/parse.hpp>

#include <string>
#include <type_traits>

namespace {

using promptlayer::testing::loopback_service;
using promptlayer::testing::scripted_response;
using raw_http::body_of;
using raw_http::request;
using raw_http::status_of;

static_assert(!std::is_copy_constructible_v<loopback_service> &&
              !std::is_move_constructible_v<loopback_service>);

std::string exchange(const loopback_service& service, const request& sent) {
    return raw_http::exchange(service.port(), sent);
}

/// Returns the status of a response that is JSON with `success` and a `message`, as each response of the
/// interface is.
int json_status(const std::string& response, std::string* message = nullptr) {
    CHECK(response.find("\r\nContent-Type: application/json\r\n") != response.npos);
    const auto value = boost::json::parse(body_of(response));
    CHECK(value.at("success").as_bool() == (status_of(response) == 200));
    CHECK_FALSE(value.at("message").as_string().empty());
    if (message)
        *message = value.at("message").as_string().c_str();
    return status_of(response);
}

} // namespace

TEST_CASE("loopback service: a request that the interface allows is tracked") {
    const loopback_service service;
    CHECK(json_status(exchange(service, {})) == 200);
    CHECK(json_status(exchange(service, {.target = "/rest/track-prompt?trace=1"})) == 200);
    for (const char* const type :
         {"Application/JSON", "application/json; charset=utf-8", "application/json ;charset=utf-8"})
        CHECK(json_status(exchange(service, {.content_type = type})) == 200);
}

TEST_CASE("loopback service: each rule of the interface has its status") {
    const loopback_service service;
    CHECK(json_status(exchange(service, {.target = "/rest/track-prompts"})) == 404);
    CHECK(json_status(exchange(service, {.target = "/"})) == 404);
    CHECK(json_status(exchange(service, {.method = "GET"})) == 405);
    CHECK(exchange(service, {.method = "PUT"}).find("\r\nAllow: POST\r\n") != std::string::npos);
    CHECK(json_status(exchange(service, {.key = ""})) == 401);
    CHECK(json_status(exchange(service, {.key = "pl_loopback2"})) == 401);
    CHECK(json_status(exchange(service, {.key = "PL_LOOPBACK"})) == 401);
    CHECK(json_status(exchange(service, {.content_type = ""})) == 415);
    CHECK(json_status(exchange(service, {.content_type = "text/plain"})) == 415);
    CHECK(json_status(exchange(service, {.content_type = "application/jsonp"})) == 415);
    CHECK(json_status(exchange(service, {.body = ""})) == 400);
}

TEST_CASE("loopback service: rules are checked in order: path, method, key, content type, body") {
    const loopback_service service;
    request wrong{.method = "PUT", .target = "/", .key = "x", .content_type = "text/plain", .body = "x"};
    CHECK(json_status(exchange(service, wrong)) == 404);
    wrong.target = "/rest/track-prompt";
    CHECK(json_status(exchange(service, wrong)) == 405);
    wrong.method = "POST";
    CHECK(json_status(exchange(service, wrong)) == 401);
    wrong.key = "pl_loopback";
    CHECK(json_status(exchange(service, wrong)) == 415);
    wrong.content_type = "application/json";
    CHECK(json_status(exchange(service, wrong)) == 400);
    wrong.body = request{}.body;
    CHECK(json_status(exchange(service, wrong)) == 200);
}

TEST_CASE("loopback service: 400 has the message of from_json for each kind of rejected body") {
    const loopback_service service;
    for (const std::string& body :
         {std::string{"{"}, std::string{"[]"}, std::string{R"({"prompt_name":"a"})"},
          std::string{R"({"prompt_name":"","request_id":1})"},
          std::string{R"({"prompt_name":"a","request_id":"1"})"},
          std::string{R"({"prompt_name":"a","request_id":1,"extra":1})"},
          std::string{R"({"prompt_name":"a","request_id":1,"version":1,"label":"b"})"},
          R"({"prompt_name":"a","request_id":1,"label":")" + std::string(513, 'x') + R"("})"}) {
        const auto rejected = promptlayer::from_json<promptlayer::track_prompt>(body);
        REQUIRE_FALSE(rejected);
        std::string message;
        CHECK(json_status(exchange(service, {.body = body}), &message) == 400);
        CHECK(message == to_string(rejected.error()));
    }
}

TEST_CASE("loopback service: each endpoint of the family holds bodies to its schema") {
    const loopback_service service;
    const auto send = [&](const std::string& target, const std::string& body) {
        return status_of(exchange(service, {.target = target, .body = body}));
    };
    CHECK(send("/rest/track-score", R"({"request_id":1,"score":100})") == 200);
    CHECK(send("/rest/track-score", R"({"request_id":1,"score":101})") == 400);
    CHECK(send("/rest/track-metadata", R"({"request_id":1,"metadata":{}})") == 200);
    CHECK(send("/rest/track-metadata", R"({"request_id":1})") == 400);
    CHECK(send("/rest/track-group", R"({"request_id":1,"group_id":2})") == 200);
    CHECK(send("/rest/track-group", R"({"request_id":1,"group_id":"2"})") == 400);
    CHECK(send("/log-request", R"({"provider":"p"})") == 400);
}

TEST_CASE("loopback service: each log receives the next id") {
    const loopback_service service;
    const std::string log =
        R"({"provider":"p","model":"m","input":{},"output":{},)"
        R"("request_start_time":"2024-01-15T10:30:00Z","request_end_time":"2024-01-15T10:30:01Z"})";
    for (const int id : {1, 2}) {
        const std::string response = exchange(service, {.target = "/log-request", .body = log});
        CHECK(status_of(response) == 201);
        CHECK(promptlayer::from_json<promptlayer::log_response>(body_of(response))->id == id);
    }
}

TEST_CASE("loopback service: only the key given to the constructor is accepted") {
    const loopback_service service{"pl_other"};
    CHECK(json_status(exchange(service, {})) == 401);
    CHECK(json_status(exchange(service, {.key = "pl_other"})) == 200);
}

TEST_CASE("loopback service: a body above 8 MiB is 400, and a body of 9 MiB is 413 and not recorded") {
    const loopback_service service;
    CHECK(json_status(exchange(service, {.body = std::string(8 * 1024 * 1024 + 1, 'x')})) == 400);
    CHECK(service.requests().size() == 1);
    CHECK(json_status(exchange(service, {.body = std::string(9 * 1024 * 1024, 'x')})) == 413);
    CHECK(service.requests().size() == 1);
}

TEST_CASE("loopback service: bytes that are not HTTP are answered in JSON too") {
    const loopback_service service;
    raw_http::connection to_service{service.port()};
    to_service.send("\x16\x03\x01 no HTTP\r\n\r\n");
    CHECK(json_status(to_service.receive_all()) == 400);
}

TEST_CASE("loopback service: scripted responses come first, whatever the request is") {
    loopback_service service;
    scripted_response scripted;
    scripted.response = {429, {{"Retry-After", "3"}}, ""};
    service.respond(scripted);
    CHECK(status_of(exchange(service, {.target = "/elsewhere"})) == 429);
    CHECK(json_status(exchange(service, {})) == 200);
    CHECK(service.requests().size() == 2);
}
