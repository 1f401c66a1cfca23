// Measures how much of each frame of a game tracking takes, while the service fails in many ways. A journal
// keeps the requests, as a game needs it that may crash.
//
// usage: game_loop [SECONDS]    1 or more, 10 by default

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <random>
#include <ratio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using frames = std::chrono::duration<std::int64_t, std::ratio<1, 60>>;

/// Keeps each new https connection from loading all CAs of the system, which takes longer than a frame. If
/// libcurl knows a directory of CAs, the CA that is needed is looked up there. Otherwise give a small file of
/// CAs. Here the service has no https, so this only shows what a game does.
void look_up_cas(CURL* easy) {
    const curl_version_info_data* const libcurl = curl_version_info(CURLVERSION_NOW);
    if (libcurl->age >= CURLVERSION_SEVENTH && libcurl->capath)
        curl_easy_setopt(easy, CURLOPT_CAINFO, nullptr);
}

/// Returns what the service does next. `luck` is less than 200.
promptlayer::testing::scripted_response unreliable_response(bool down, unsigned luck) {
    using ending = promptlayer::testing::scripted_response::connection_ending;
    promptlayer::testing::scripted_response response; // 200, without delay
    if (down || luck < 4)
        response.ending = ending::reset_before_response;
    else if (luck < 8)
        response.ending = ending::close_midway;
    else if (luck < 9)
        response.response = {429, {{"Retry-After", "1"}}, ""};
    else if (luck < 20)
        response.response = {503, {}, ""};
    else if (luck < 21)
        response.delay = 10s; // longer than the timeout
    else if (luck < 50)
        response.delay = std::chrono::milliseconds{3 * luck};
    return response;
}

void print(const char* name, clock_type::duration duration) {
    using milliseconds = std::chrono::duration<double, std::milli>;
    using share = std::chrono::duration<double, frames::period>;
    std::cout << std::setw(16) << name << std::fixed << std::setprecision(3) << std::setw(8)
              << milliseconds{duration}.count() << " ms" << std::setprecision(2) << std::setw(8)
              << 100 * share{duration}.count() << " %\n";
}

int main(int argc, char** argv) {
    const int seconds = std::clamp(argc > 1 ? std::atoi(argv[1]) : 10, 1, 3600);
    const int end = 60 * seconds; // the last frame of the scene

    std::atomic<bool> down{false};
    const promptlayer::testing::scripted_server service{
        [&down, random = std::mt19937{1}](const promptlayer::http_request&) mutable {
            return unreliable_response(down, static_cast<unsigned>(random() % 200));
        }};

    constexpr const char* journal_path = "game_loop.journal";
    std::remove(journal_path); // a game keeps it, to send what the last session did not
    auto journal = promptlayer::file_journal::open(journal_path);
    if (!journal)
        std::cerr << journal.error() << '\n'; // the game goes on without it
    promptlayer::tracker_options options{
        .on_failed =
            [](const promptlayer::finished_request& finished) {
                std::cerr << finished.number << ": "
                          << to_string(finished.error.value_or(promptlayer::error{})) << '\n';
            },
        .on_outage = [](const promptlayer::error& cause) { std::cout << "outage: " << cause << '\n'; },
        .on_recovery = [] { std::cout << "recovery\n"; },
        .journal = journal ? *std::move(journal) : nullptr,
    };
    // Shorter delays than the defaults, because this program ends after some seconds.
    options.queue.retry.initial_delay = 50ms;
    options.queue.retry.max_delay = 400ms;
    promptlayer::polled_tracker tracker{{.api_key = "no-key", .base_url = service.base_url(), .timeout = 1s},
                                        promptlayer::curl_multi_transport{look_up_cas},
                                        std::move(options)};

    std::int64_t request_id = 0;
    const auto speak = [&](const std::string& line) {
        const auto queued = tracker.track_prompt({.prompt_name = "dialogue",
                                                  .prompt_input_variables = {{"line", line}},
                                                  .request_id = ++request_id});
        if (!queued)
            std::cerr << queued.error() << '\n';
    };

    std::vector<clock_type::duration> durations;
    const auto begin = clock_type::now();
    for (int frame = 0; frame < end || (tracker.pending() > 0 && frame < end + 60 * 60); ++frame) {
        std::this_thread::sleep_until(begin + frames{frame}); // in a game: input, physics, drawing
        down = frame > end / 4 && frame < end / 2;

        const auto now = clock_type::now();
        if (frame < end && frame % 6 == 0)
            speak("Who goes there?");
        if (frame < end && frame % 240 == 60) // all characters at once
            for (int character = 1; character <= 100; ++character)
                speak("Number " + std::to_string(character) + " at your service");
        tracker.poll(now);
        durations.push_back(clock_type::now() - now);
    }

    std::sort(durations.begin(), durations.end());
    std::cout << durations.size() << " frames, of which tracking took:\n";
    print("median", durations[durations.size() / 2]);
    print("99th percentile", durations[(durations.size() - 1) * 99 / 100]);
    print("worst", durations.back());
    const auto stats = tracker.stats();
    std::cout << stats.pushed << " tracked: " << stats.delivered << " delivered, " << tracker.pending()
              << " left; in " << service.requests().size() << " attempts\n";
    std::remove(journal_path);
    return stats.delivered == static_cast<std::uint64_t>(request_id) ? 0 : 1;
}
