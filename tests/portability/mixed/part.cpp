// Uses the library. mixed_builds.py compiles this file with different settings and links the results.

#include <promptlayer.hpp>

#include "parts.hpp"

#include <chrono>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>

namespace {

using promptlayer::errc;

int failures = 0;

void expect(bool holds, const char* what) {
    if (!holds) {
        std::printf("%s: does not hold: %s\n", PART, what);
        ++failures;
    }
}

void sends_over_a_recording_transport() {
    promptlayer::client client{{.api_key = "pl_key"}, promptlayer::testing::recording_transport{}};
    client.transport().respond(promptlayer::http_response{404, {{"X", "1"}}, R"({"message":"no such"})"});
    const auto failed = client.track_prompt({.prompt_name = "a", .request_id = 1});
    expect(!failed && failed.error().code == errc::not_found, "a 404 is not_found");
    const auto rejected = client.track_prompt({.prompt_name = "", .request_id = 1});
    expect(!rejected && rejected.error().violations.size() == 1, "an empty name is a violation");
    const auto tracked = client.track_prompt({.prompt_name = "a", .request_id = 1});
    expect(tracked && tracked->message == "recorded", "a recorded request succeeds");
    expect(client.transport().requests().size() == 2, "two requests are recorded");
}

void sends_over_an_asynchronous_recording_transport() {
    promptlayer::client client{{.api_key = "pl_key"}, promptlayer::testing::recording_async_transport{}};
    int called = 0;
    for (int i = 0; i < 3; ++i)
        client.track_prompt(
            {.prompt_name = "a", .request_id = 1},
            [&](promptlayer::result<promptlayer::track_response> r) { called += r.has_value(); });
    expect(client.transport().complete_all() == 3 && called == 3, "three requests are completed");
}

void polls_a_tracker() {
    promptlayer::testing::recording_async_transport transport;
    promptlayer::polled_tracker tracker{{.api_key = "pl_key"}, std::ref(transport)};
    expect(tracker.track_prompt({.prompt_name = "a", .request_id = 1}).has_value(), "a request is queued");
    const std::chrono::steady_clock::time_point now{std::chrono::hours{1}};
    expect(tracker.poll(now) == 1, "the request is sent");
    expect(transport.complete_one() && tracker.poll(now) == 0, "the request is delivered");
}

#ifndef PROMPTLAYER_NO_THREADS
void runs_a_background_tracker() {
    promptlayer::background_tracker tracker{{.api_key = "pl_key"},
                                            promptlayer::testing::recording_transport{}};
    expect(tracker.track_prompt({.prompt_name = "a", .request_id = 1}).has_value(), "a request is queued");
    expect(tracker.flush(std::chrono::minutes{2}), "the queue is emptied");
}
#endif

// A type of transport that is the same in every part, with and without exceptions.
using any_transport = std::function<promptlayer::transport_result(const promptlayer::http_request&)>;

void sends_over_a_closure() {
    promptlayer::client client{
        {.api_key = "pl_key"},
        promptlayer::transport_from(any_transport{[](const promptlayer::http_request& request) {
            return promptlayer::http_response{200, request.headers, R"({"success":true,"message":"m"})"};
        }})};
    expect(client.track_prompt({.prompt_name = "a", .request_id = 1}).has_value(), "a closure is called");
}

#if defined(__cpp_exceptions)
void catches_what_a_transport_throws() {
    promptlayer::client client{{.api_key = "pl_key"},
                               promptlayer::transport_from(any_transport{
                                   [](const promptlayer::http_request&) -> promptlayer::transport_result {
                                       throw std::runtime_error{"thrown on purpose"};
                                   }})};
    const auto failed = client.track_prompt({.prompt_name = "a", .request_id = 1});
    expect(!failed && failed.error().failure == promptlayer::failure::other, "an exception is a failure");
    expect(!failed && failed.error().message.find("on purpose") != std::string::npos,
           "the failure quotes the exception");
}
#endif

int use() {
    sends_over_a_recording_transport();
    sends_over_an_asynchronous_recording_transport();
    sends_over_a_closure();
    polls_a_tracker();
#ifndef PROMPTLAYER_NO_THREADS
    runs_a_background_tracker();
#endif
#if defined(__cpp_exceptions)
    catches_what_a_transport_throws();
#endif
    return failures;
}

const part registered{use};

} // namespace
