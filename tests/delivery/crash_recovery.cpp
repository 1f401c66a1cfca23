// Kills a process that tracks, at 200 random moments, and counts what reached the service: a request that was
// reported queued has to, after the next start, and no more than the one in flight twice a kill.
//
// usage: kill [SEED]

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transports/curl.hpp>

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
#include <vector>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace {

using namespace std::chrono_literals;
using promptlayer::testing::scripted_response;

constexpr int kills = 200;

/// Tracks with `journal` until it is killed, and writes the number of each that was reported queued to its
/// standard output; or, with none from `first` on, only sends what is left.
int track(const char* base_url, const char* journal, std::int64_t first) {
    auto record = promptlayer::file_journal::open(journal);
    if (!record) {
        std::cerr << record.error() << '\n';
        return 1;
    }
    promptlayer::background_settings limits;
    limits.outbox.retry.initial_delay = 1ms;
    limits.outbox.retry.max_delay = 5ms;
    promptlayer::background_tracker tracker{{.api_key = "key", .base_url = base_url},
                                            promptlayer::curl_transport{},
                                            {},
                                            limits,
                                            *std::move(record)};
    if (first == 0)
        return tracker.flush(60s) ? 0 : 1;
    for (std::int64_t id = first;; ++id) {
        if (!tracker.track_prompt({.prompt_name = "kill", .request_id = id}) ||
            ::write(STDOUT_FILENO, &id, sizeof id) != sizeof id)
            return 1;
        while (tracker.stats().waiting > 100)
            std::this_thread::sleep_for(1ms);
    }
}

/// The service: now and then it has no time. Counts what it has accepted.
class service {
    std::mutex mutex_{};
    std::set<std::int64_t> accepted_{};
    int again_ = 0; // what it had accepted before
    std::mt19937 random_{1};
    promptlayer::testing::scripted_server server_{
        [this](const promptlayer::http_request& sent) { return answer(sent); }};

    scripted_response answer(const promptlayer::http_request& sent) {
        const std::lock_guard held{mutex_};
        scripted_response made;
        if (random_() % 16 == 0)
            made.response.status = 503;
        else if (!accepted_.insert(*promptlayer::from_json<promptlayer::track_prompt>(sent.body)->request_id)
                      .second)
            ++again_;
        return made;
    }

public:
    std::string base_url() const { return server_.base_url(); }

    int accepted_again() {
        const std::lock_guard held{mutex_};
        return again_;
    }
    bool has(std::int64_t id) {
        const std::lock_guard held{mutex_};
        return accepted_.contains(id);
    }
};

/// A process that runs `track`.
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
        std::vector<std::string> words{program, base_url, journal, std::to_string(first)};
        std::vector<char*> arguments;
        for (std::string& word : words)
            arguments.push_back(word.data());
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

    /// What it has reported until it ended.
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
    bool right = true;
    for (int i = 0; i < kills; ++i) {
        const tracking child{program, service.base_url(), journal, next};
        std::thread killer{[&, moment = std::chrono::microseconds{random() % 50'000}] {
            std::this_thread::sleep_for(moment);
            child.kill();
        }};
        const std::vector<std::int64_t> queued = child.reported();
        killer.join();
        right = WIFSIGNALED(child.status()) && right;
        reported.insert(reported.end(), queued.begin(), queued.end());
        next = queued.empty() ? next + 1 : queued.back() + 2; // one more may be queued, and not reported
    }
    const tracking last{program, service.base_url(), journal, 0};
    right = last.status() == 0 && right;
    const int again = service.accepted_again();
    const auto lost =
        std::count_if(reported.begin(), reported.end(), [&](std::int64_t id) { return !service.has(id); });
    right =
        right && lost == 0 && again <= kills && !reported.empty() && std::filesystem::file_size(journal) == 0;
    std::cout << kills << " kills, seed " << seed << ": " << reported.size() << " reported queued, " << lost
              << " lost, " << again << " delivered twice, of " << kills << " in flight\n";
    std::filesystem::remove_all(folder);
    return right ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    if (argc == 4)
        return track(argv[1], argv[2], std::strtoll(argv[3], nullptr, 10));
    return run(argv[0],
               argc > 1 ? static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10)) : std::random_device{}());
}
