// Tracks the prompts of a JSON Lines file. It can be stopped or killed at any moment and started again.
//
// usage: backfill FILE
//
// - Each line of FILE is the body of one POST /rest/track-prompt. Empty lines and lines that begin with # are
//   ignored. Lines may be appended to FILE between two runs. If the line that was read last has changed or
//   moved, backfill says so and sends nothing.
// - FILE.rejects receives each line that is invalid, refused or not delivered in 8 attempts, below a line
//   with # and the reason. Fix these lines, move them to another file, and run backfill on that file.
// - FILE.journal holds the lines that are read and have not ended, FILE.position how far FILE is read. If
//   the program is killed, the requests in flight and the line just read may be sent twice, which changes
//   nothing. After a loss of power, remove FILE.position to send the whole FILE again.
// - If the service cannot be used, backfill says so and waits. If the API key is wrong, it stops.
// - PROMPTLAYER_API_KEY is the API key. PROMPTLAYER_BASE_URL is the address of the service, if it is not
//   https://api.promptlayer.com.
//
// exit status:
//
// - 0: every line is tracked.
// - 1: this run added lines to FILE.rejects.
// - 2: the configuration or a file cannot be used.
// - 3: stopped by SIGINT, by SIGTERM or by a wrong API key. The next run continues.

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iomanip>
#include <ios>
#include <iostream>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

using namespace std::chrono_literals;

std::atomic<int> stop_status{0}; // not 0: the program is to stop with this exit status

extern "C" void stop(int number) {
    stop_status = 3;
    std::signal(number, SIG_DFL); // the second signal ends the program at once
}

/// Prints the progress, if stderr is a terminal.
void show_progress(const promptlayer::outbox_stats& stats, std::uint64_t rejected) {
#if defined(_WIN32)
    static const bool is_terminal = _isatty(2) != 0;
#else
    static const bool is_terminal = isatty(2) != 0;
#endif
    static std::chrono::steady_clock::time_point next;
    const auto now = std::chrono::steady_clock::now();
    if (!is_terminal || now < next)
        return;
    next = now + 100ms;
    std::cerr << '\r' + std::to_string(stats.delivered) + " tracked, " + std::to_string(rejected) +
                     " rejected, " + std::to_string(stats.waiting + stats.in_flight) + " queued   ";
}

/// Moves `input` behind the last line that was read. Returns false if that line is no longer there.
bool restore(std::istream& position, std::istream& input) {
    std::streamoff start = 0;
    std::size_t hash = 0;
    std::string line;
    if (position >> start >> hash)
        return std::getline(input.seekg(start), line) && std::hash<std::string>{}(line) == hash;
    position.clear(); // nothing was read
    return true;
}

/// Overwrites the same bytes each time, so that a kill leaves this position or the one before.
bool save(std::ostream& position, std::streamoff start, const std::string& line) {
    const std::size_t hash = std::hash<std::string>{}(line);
    return bool{position.seekp(0) << std::setw(20) << start << ' ' << std::setw(20) << hash << std::endl};
}

int main(int argc, char** argv) {
    const auto unusable = [](const auto& what, const char* why) {
        std::cerr << what << why << '\n';
        return 2;
    };
    if (argc != 2)
        return unusable("usage: backfill FILE", "");
    const promptlayer::config config = promptlayer::config_from_environment();
    if (const auto violations = promptlayer::validate(config); !violations.empty())
        return unusable(violations.front(), ""); // api_key: is not given
    const std::string path = argv[1];
    std::ifstream input{path, std::ios::binary};
    if (input.peek(); input.bad() || !input.is_open())
        return unusable(path, ": cannot be read");
    auto journal = promptlayer::file_journal::open(path + ".journal"); // one backfill of FILE at a time
    if (!journal)
        return unusable(journal.error(), "");
    std::ofstream{path + ".position", std::ios::app}; // creates the file
    std::fstream position{path + ".position", std::ios::in | std::ios::out};
    if (!restore(position, input))
        return unusable(path, ": was changed; to send all of it again, remove its .position file");

    std::mutex mutex; // of the two below and the rejects file
    std::condition_variable condition;
    bool has_ended = false; // a request, since it was set to false
    const auto request_ended = [&] {
        const std::lock_guard guard{mutex};
        has_ended = true;
        condition.notify_one();
    };
    std::atomic<std::uint64_t> rejected{0};
    const auto reject = [&](const std::string& line, const promptlayer::error& error) {
        const std::lock_guard guard{mutex};
        ++rejected;
        const std::string text = "# " + to_string(error) + '\n' + line + '\n'; // an error is one line
        std::ofstream rejects{path + ".rejects", std::ios::app | std::ios::binary};
        if (!(rejects << text << std::flush)) // the line must not be lost
            stop_status = unusable(path, (".rejects: cannot be written\n" + text).c_str());
    };
    promptlayer::tracker_options options{
        .on_delivered = [&](const auto&) { request_ended(); },
        .on_failed =
            [&](const promptlayer::finished_request& finished) {
                reject(finished.request.body, finished.error.value_or(promptlayer::error{}));
                request_ended();
            },
        .on_outage =
            [](const promptlayer::error& cause) {
                const bool is_key_wrong = cause.code == promptlayer::errc::unauthorized;
                std::cerr << '\n' + to_string(cause) + (is_key_wrong ? "\n" : "; waiting for the service\n");
                if (is_key_wrong)
                    stop_status = 3; // the journal keeps what is queued
            },
        .on_recovery = [] { std::cerr << "the service can be used again\n"; },
        .queue = {.max_requests = 1'000, .retry = {.max_attempts = 8, .max_age = std::nullopt}},
        .journal = *std::move(journal),
    };
    promptlayer::background_tracker tracker{config, promptlayer::curl_multi_transport{}, std::move(options)};

    std::signal(SIGINT, stop);
    std::signal(SIGTERM, stop);
    std::string line;
    for (std::streamoff start = input.tellg(); stop_status == 0 && std::getline(input, line);
         start = input.tellg()) {
        if (line.starts_with('#') || line.find_first_not_of(" \t\r") == line.npos)
            continue;
        const auto request = promptlayer::from_json<promptlayer::track_prompt>(line);
        auto queued = request ? tracker.track_prompt(*request) : request.error();
        while (!queued && queued.error().code == promptlayer::errc::queue_full && stop_status == 0) {
            show_progress(tracker.stats(), rejected);
            std::unique_lock guard{mutex};
            condition.wait_for(guard, 100ms, [&] { return has_ended; }); // a signal does not end the wait
            has_ended = false;
            guard.unlock();
            queued = tracker.track_prompt(*request);
        }
        if (!queued && stop_status != 0)
            break; // the next run reads the line again
        if (!queued)
            reject(line, queued.error());
        else if (queued->journal_error)
            stop_status = unusable(*queued->journal_error, "");
        if (stop_status != 2 && !save(position, start, line))
            stop_status = unusable(path, ".position: cannot be written");
        show_progress(tracker.stats(), rejected);
    }
    while (stop_status == 0 && !tracker.flush(100ms))
        show_progress(tracker.stats(), rejected);
    tracker.pause(); // sends nothing more; `close` waits for the responses to what was sent
    const auto undelivered = tracker.close(config.timeout);

    std::cout << tracker.stats().delivered << " tracked, " << rejected << " rejected, " << undelivered.size()
              << " left for the next run\n";
    if (input.bad())
        return unusable(path, ": cannot be read");
    return stop_status != 0 ? stop_status.load() : rejected != 0 ? 1 : 0;
}
