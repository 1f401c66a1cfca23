// Misuses the interface on purpose. expect_abort.py checks that the program aborts with a message.

#if defined(WITH_ASSERT)
#include <cstdio>
// An engine's assertion: a macro with a name that the header sets aside, and a static variable.
#define check(condition)                                                                                     \
    do {                                                                                                     \
        static bool reported = false;                                                                        \
        if (!(condition) && !reported)                                                                       \
            reported = std::puts("asserted: " #condition) >= 0;                                              \
    } while (false)
#define PROMPTLAYER_ASSERT(condition) check(condition)
#endif

#include <promptlayer/background_tracker.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/polled_tracker.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/tracker.hpp>
#include <promptlayer/transport.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

namespace {

/// Destroys a tracker in its callback.
template <class TrackerT>
int destroy_in_callback() {
    std::optional<TrackerT> tracker;
    auto transport = promptlayer::transport_from([](promptlayer::http_request, promptlayer::completion done) {
        done(promptlayer::http_response{200, {}, R"({"success":true,"message":""})"});
    });
    promptlayer::tracker_options options{
        .on_delivered = [&](const promptlayer::finished_request&) { tracker.reset(); }};
    tracker.emplace(promptlayer::config{.api_key = "key"}, std::move(transport), std::move(options));
    std::ignore = tracker->track_prompt({.prompt_name = "a", .request_id = 1});
    if constexpr (requires { tracker->poll({}); }) {
        tracker->poll({});
        tracker->poll({});
    } else {
        tracker->flush(std::chrono::seconds{20});
    }
    return EXIT_SUCCESS;
}

} // namespace

int main(int argc, char** argv) {
    const std::string_view mistake = argc == 2 ? argv[1] : "";
#if defined(WITH_ASSERT)
    std::setvbuf(stdout, nullptr, _IONBF, 0);
#endif
    if (mistake == "value")
        return static_cast<int>(promptlayer::result<std::string_view>{promptlayer::error{}}.value().size());
    if (mistake == "error")
        return promptlayer::result<int>{7}.error().status;
    if (mistake == "polled_tracker")
        return destroy_in_callback<promptlayer::polled_tracker>();
    if (mistake == "background_tracker")
        return destroy_in_callback<promptlayer::background_tracker>();
    std::fputs("usage: misuse value|error|polled_tracker|background_tracker\n", stderr);
    return EXIT_FAILURE;
}
