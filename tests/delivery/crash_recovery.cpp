// Kills a tracking process at 200 random moments and counts the requests that reach the service. Each request
// that was reported as queued must arrive. Each kill may duplicate only the requests in flight.
//
// usage: crash_recovery [SEED]

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace {

using namespace std::chrono_literals;
using promptlayer::testing::scripted_response;

constexpr int kills = 200;
constexpr int max_in_flight = 16;

/// Tracks requests from number `first` on until the process is killed, and writes the number of each queued
/// request to standard output. If `first` is 0, it only sends the requests that are pending in `journal`.
int track(const char* base_url, const char* journal, std::int64_t first) {
    auto journal_file = promptlayer::file_journal::open(journal);
    if (!journal_file) {
        std::cerr << journal_file.error() << '\n';
        return 1;
    }
    promptlayer::tracker_options options;
    options.queue.max_in_flight = max_in_flight;
    options.queue.retry.initial_delay = 1ms;
    options.queue.retry.max_delay = 5ms;
    options.journal = *std::move(journal_file);
    promptlayer::background_tracker tracker{
        {.api_key = "key", .base_url = base_url}, promptlayer::curl_multi_transport{}, std::move(options)};
    if (first == 0)
        return tracker.flush(60s) ? 0 : 1;
    for (std::int64_t id = first;; ++id) {
        const auto queued = tracker.track_prompt({.prompt_name = "kill", .request_id = id});
        if (!queued || queued->journal_error || ::write(STDOUT_FILENO, &id, sizeof id) != sizeof id)
            return 1;
        while (tracker.stats().waiting > 100)
            std::this_thread::sleep_for(1ms);
    }
}

/// A service that answers one request in sixteen with 503 and counts the requests that it accepts.
class service {
    std::mutex mutex_{};
    std::set<std::int64_t> accepted_{};
    int duplicates_ = 0;
    std::mt19937 random_{1};
    promptlayer::testing::scripted_server server_{
        [this](const promptlayer::http_request& request) { return respond(request); }};

    scripted_response respond(const promptlayer::http_request& request) {
        const std::lock_guard guard{mutex_};
        scripted_response response;
        if (random_() % 16 == 0)
            response.response.status = 503;
        else if (!accepted_
                      .insert(*promptlayer::from_json<promptlayer::track_prompt>(request.body)->request_id)
                      .second)
            ++duplicates_;
        return response;
    }

public:
    std::string base_url() const { return server_.base_url(); }

    int duplicates() {
        const std::lock_guard guard{mutex_};
        return duplicates_;
    }
    bool has(std::int64_t id) {
        const std::lock_guard guard{mutex_};
        return accepted_.contains(id);
    }
};

/// A child process that runs `track`.
class tracking {
    pid_t process_ = -1;
    int numbers_ = -1;

public:
    tracking(const char* program, const std::string& base_url, const std::string& journal,
             std::int64_t first) {
        int ends[2] = {-1, -1};
        if (::pipe(ends) != 0)
            std::abort();
        posix_spawn_file_actions_t actions{};
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        posix_spawn_file_actions_addclose(&actions, ends[0]);
        posix_spawn_file_actions_addclose(&actions, ends[1]);
        std::vector<std::string> texts{program, base_url, journal, std::to_string(first)};
        std::vector<char*> arguments;
        for (std::string& text : texts)
            arguments.push_back(text.data());
        arguments.push_back(nullptr);
        if (::posix_spawn(&process_, program, &actions, nullptr, arguments.data(), environ) != 0)
            std::abort();
        posix_spawn_file_actions_destroy(&actions);
        ::close(ends[1]);
        numbers_ = ends[0];
    }
    tracking(const tracking&) = delete;
    tracking& operator=(const tracking&) = delete;
    ~tracking() { ::close(numbers_); }

    /// Returns the numbers that the process wrote until it ended.
    std::vector<std::int64_t> reported() const {
        std::vector<std::int64_t> all;
        std::int64_t id = 0;
        while (::read(numbers_, &id, sizeof id) == sizeof id)
            all.push_back(id);
        return all;
    }

    void kill() const { ::kill(process_, SIGKILL); }

    int status() const {
        int status = -1;
        ::waitpid(process_, &status, 0);
        return status;
    }
};

int run(const char* program, unsigned seed) {
    const auto folder =
        std::filesystem::temp_directory_path() / ("promptlayer-kill-" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    const std::string journal = (folder / "journal").string();
    service service;
    std::mt19937 random{seed};
    std::vector<std::int64_t> reported;
    std::int64_t next = 1;
    bool passed = true;
    for (int i = 0; i < kills; ++i) {
        const tracking child{program, service.base_url(), journal, next};
        std::thread killer{[&, moment = std::chrono::microseconds{random() % 50'000}] {
            std::this_thread::sleep_for(moment);
            child.kill();
        }};
        const std::vector<std::int64_t> queued = child.reported();
        killer.join();
        passed = WIFSIGNALED(child.status()) && passed;
        reported.insert(reported.end(), queued.begin(), queued.end());
        next = queued.empty() ? next + 1 : queued.back() + 2; // one more may be queued without a report
    }
    const tracking last_run{program, service.base_url(), journal, 0};
    passed = last_run.status() == 0 && passed;
    const int duplicates = service.duplicates();
    const auto lost =
        std::count_if(reported.begin(), reported.end(), [&](std::int64_t id) { return !service.has(id); });
    auto journal_file = promptlayer::file_journal::open(journal);
    passed = passed && lost == 0 && duplicates <= kills * max_in_flight && !reported.empty() &&
             journal_file && (*journal_file)->pending().empty();
    std::cout << kills << " kills, seed " << seed << ": " << reported.size() << " reported queued, " << lost
              << " lost, " << duplicates << " delivered twice, of up to " << kills * max_in_flight
              << " in flight\n";
    std::filesystem::remove_all(folder);
    return passed ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    if (argc == 4)
        return track(argv[1], argv[2], std::strtoll(argv[3], nullptr, 10));
    return run(argv[0],
               argc > 1 ? static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10)) : std::random_device{}());
}
