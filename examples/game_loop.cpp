// What tracking takes of the frames of a game while its service fails in many ways: game_loop [seconds], 1 or
// more

#include <promptlayer.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <random>
#include <ratio>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using frames = std::chrono::duration<std::int64_t, std::ratio<1, 60>>;

/// `luck` is less than 200.
promptlayer::testing::scripted_response unreliable_answer(bool down, unsigned luck) {
    using ending = promptlayer::testing::scripted_response::connection_ending;
    promptlayer::testing::scripted_response answer; // 200, at once
    if (down || luck < 4)
        answer.ending = ending::reset_before_response;
    else if (luck < 8)
        answer.ending = ending::close_midway;
    else if (luck < 9)
        answer.response = {429, {{"Retry-After", "1"}}, ""};
    else if (luck < 20)
        answer.response = {503, {}, ""};
    else if (luck < 21)
        answer.delay = 10s; // nobody waits that long
    else if (luck < 50)
        answer.delay = std::chrono::milliseconds{3 * luck};
    return answer;
}

void print(const char* name, clock_type::duration took) {
    using milliseconds = std::chrono::duration<double, std::milli>;
    using share = std::chrono::duration<double, frames::period>;
    std::cout << std::setw(16) << name << std::fixed << std::setprecision(3) << std::setw(8)
              << milliseconds{took}.count() << " ms" << std::setprecision(2) << std::setw(8)
              << 100 * share{took}.count() << " %\n";
}

int main(int argc, char** argv) {
    const int seconds = std::clamp(argc > 1 ? std::atoi(argv[1]) : 10, 1, 3600);
    const int end = 60 * seconds; // of the scene

    std::atomic<bool> down{false};
    const promptlayer::testing::scripted_server service{
        [&down, random = std::mt19937{1}](const promptlayer::http_request&) mutable {
            return unreliable_answer(down, static_cast<unsigned>(random() % 200));
        }};

    // Short waits, since a demonstration ends soon; the defaults are made for a service and its bad days.
    promptlayer::outbox_settings limits;
    limits.retry.initial_delay = 50ms;
    limits.retry.max_delay = 400ms;
    promptlayer::polled_tracker tracker{
        {.api_key = "no-key", .base_url = service.base_url(), .timeout = 1s},
        promptlayer::curl_multi_transport{},
        {.on_failed = [](const auto& ended) { std::cerr << ended.id << ": " << *ended.why << '\n'; }},
        limits};

    std::int64_t request_id = 0;
    const auto speak = [&](const std::string& line) {
        const auto queued = tracker.track_prompt({.prompt_name = "dialogue",
                                                  .prompt_input_variables = {{"line", line}},
                                                  .request_id = ++request_id});
        if (!queued)
            std::cerr << queued.error() << '\n';
    };

    std::vector<clock_type::duration> took;
    const auto begin = clock_type::now();
    for (int frame = 0; frame < end || (tracker.pending() > 0 && frame < end + 60 * 60); ++frame) {
        std::this_thread::sleep_until(begin + frames{frame}); // in a game: input, physics, drawing
        down = frame > end / 4 && frame < end / 2;

        const auto now = clock_type::now();
        if (frame < end && frame % 6 == 0)
            speak("Who goes there?");
        if (frame < end && frame % 240 == 60) // everyone at once
            for (int character = 1; character <= 100; ++character)
                speak("Number " + std::to_string(character) + " at your service");
        tracker.poll(now);
        took.push_back(clock_type::now() - now);
    }

    std::sort(took.begin(), took.end());
    std::cout << took.size() << " frames, and what tracking took of them:\n";
    print("median", took[took.size() / 2]);
    print("99th percentile", took[(took.size() - 1) * 99 / 100]);
    print("worst", took.back());
    const auto books = tracker.stats();
    std::cout << books.pushed << " tracked: " << books.delivered << " delivered, " << books.refused
              << " refused, " << books.gave_up << " given up, " << books.dropped << " dropped, "
              << tracker.pending() << " left; in " << service.requests().size() << " attempts\n";
    return books.delivered == static_cast<std::uint64_t>(request_id) ? 0 : 1;
}
