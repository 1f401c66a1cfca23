// Measures the longest call of `poll` of a polled tracker with a full journal: 10,000 pending requests of 1
// KB are delivered while new ones are tracked, and the journal is compacted meanwhile. The transport responds
// in the next frame and costs nothing.
//
// usage: frame_benchmark [FOLDER]

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace pl = promptlayer;
using steady = std::chrono::steady_clock;

constexpr std::size_t pending = 10'000;

void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "failed: %s\n", what);
        std::exit(1);
    }
}

/// Responds to each request in the next `poll`.
struct next_frame_transport {
    std::vector<pl::completion> requests{};

    void send(pl::http_request, pl::completion done) { requests.push_back(std::move(done)); }
    void poll() {
        for (pl::completion& done : std::exchange(requests, {}))
            done(pl::http_response{200, {}, R"({"success":true,"message":"Tracked"})"});
    }
};

std::unique_ptr<pl::journal> open(const std::filesystem::path& path) {
    auto journal = pl::file_journal::open(path);
    check(journal.has_value(), "the journal is open");
    return *std::move(journal);
}

void print(const char* name, std::vector<std::chrono::duration<double, std::milli>>& durations) {
    std::sort(durations.begin(), durations.end());
    const auto at = [&](double part) {
        return durations[static_cast<std::size_t>(part * static_cast<double>(durations.size() - 1))].count();
    };
    std::printf("| %s | %zu | %.3f ms | %.3f ms | %.3f ms | %.3f ms |\n", name, durations.size(), at(0.5),
                at(0.99), at(0.999), at(1));
}

} // namespace

int main(int argc, char** argv) {
    const std::filesystem::path folder = argc > 1 ? argv[1] : std::filesystem::temp_directory_path();
    const std::filesystem::path path = folder / "promptlayer_frame_benchmark.journal";
    std::filesystem::remove(path);
    const std::string text(900, 'x');
    const pl::track_prompt request{.prompt_name = "a",
                                   .prompt_input_variables = {{"text", text}},
                                   .request_id = 1,
                                   .version = {},
                                   .label = {}};
    {
        const auto journal = open(path);
        const auto prepared = pl::prepare(request);
        for (std::uint64_t number = 1; number <= pending; ++number)
            check(journal->add(number, *prepared).has_value(), "a request is recorded");
    }
    std::size_t delivered = 0;
    pl::tracker_options options;
    options.on_delivered = [&](const pl::finished_request&) { ++delivered; };
    options.queue.max_requests = 2 * pending;
    options.journal = open(path);
    pl::polled_tracker tracker{{.api_key = "key"}, next_frame_transport{}, std::move(options)};
    std::vector<std::chrono::duration<double, std::milli>> polls, tracks;
    std::size_t tracked = 0;
    while (delivered < pending) {
        const auto start = steady::now();
        for (int i = 0; i < 8; ++i, ++tracked) {
            const auto queued = tracker.track_prompt(request);
            check(queued && !queued->journal_error, "a request is queued");
        }
        const auto middle = steady::now();
        tracker.poll(middle);
        polls.push_back(steady::now() - middle);
        tracks.push_back(middle - start);
        std::this_thread::sleep_for(2ms);
    }
    std::printf("%zu delivered, %zu tracked\n| call | calls | median | 99 %% | 99.9 %% | worst |\n"
                "|---|---|---|---|---|---|\n",
                delivered, tracked);
    print("poll", polls);
    print("8 times track_prompt", tracks);
    tracker.discard();
    while (tracker.poll(steady::now()) != 0) {
    }
    std::filesystem::remove(path);
}
