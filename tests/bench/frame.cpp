// Measures `poll` of a polled tracker: without work, if no request or 1,000 are queued, and with a full
// journal. In the latter case 10,000 pending requests of 1 KB are delivered while new ones are tracked, and
// the journal is compacted meanwhile. The transport responds in the next frame and costs nothing.
//
// usage: frame_benchmark [FOLDER]

#include "report.hpp"

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
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

using microseconds = std::chrono::duration<double, std::micro>;

void print(const char* name, std::vector<microseconds>& durations) {
    std::sort(durations.begin(), durations.end());
    const auto at = [&](double part) {
        return durations[static_cast<std::size_t>(part * static_cast<double>(durations.size() - 1))].count();
    };
    std::printf("| %s | %zu | %.2f us | %.2f us | %.2f us | %.2f us |\n", name, durations.size(), at(0.5),
                at(0.99), at(0.999), at(1));
}

/// Measures polls while so many requests are queued and none can be sent.
void measure_polls_without_work(const char* name, std::size_t queued) {
    auto keep = [kept = std::vector<pl::completion>{}](pl::http_request, pl::completion done) mutable {
        kept.push_back(std::move(done));
    };
    pl::polled_tracker tracker{{.api_key = "key"}, pl::transport_from(std::move(keep))};
    for (std::size_t i = 0; i < queued; ++i)
        check(tracker.track_prompt({.prompt_name = "a", .request_id = 1}).has_value(), "a request is queued");
    auto now = steady::now();
    tracker.poll(now);         // starts as many as may be in flight
    constexpr int batch = 100; // one poll takes about as long as a look at the clock
    std::vector<microseconds> polls;
    for (int i = 0; i < 1'000; ++i) {
        const auto start = steady::now();
        for (int n = 0; n < batch; ++n)
            check(tracker.poll(now += 1us) == queued, "nothing has ended");
        polls.push_back((steady::now() - start) / static_cast<double>(batch));
    }
    print(name, polls);
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
    std::vector<microseconds> polls, tracks;
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
    std::printf("%s; %zu delivered, %zu tracked\n\n| call | calls | median | 99 %% | 99.9 %% | worst |\n"
                "|---|---|---|---|---|---|\n",
                machine().c_str(), delivered, tracked);
    measure_polls_without_work("poll, nothing queued, means of 100", 0);
    measure_polls_without_work("poll, 1,000 queued, none to send, means of 100", 1'000);
    print("poll, full journal", polls);
    print("8 times track_prompt", tracks);
    tracker.discard();
    while (tracker.poll(steady::now()) != 0) {
    }
    std::filesystem::remove(path);
}
