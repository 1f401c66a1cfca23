// Tracks the prompts of a JSON Lines file. It can be stopped or killed at any moment and started again.
//
// usage: backfill FILE
//
// - Each line of FILE is the body of one POST /rest/track-prompt. Empty lines are ignored. Lines may be
//   appended to FILE between two runs; the lines before them must stay as they are.
// - FILE.progress has a record for each finished line: "12 tracked" or "13 rejected: REASON". A line with a
//   record is never sent again. To send a rejected line again, fix it and remove its record.
// - A line that was in flight when the program was killed has no record. The next run sends it a second time,
//   which changes nothing: the service associates the same prompt with the same request.
// - PROMPTLAYER_API_KEY is the API key. PROMPTLAYER_BASE_URL is the address of the service, if it is not
//   https://api.promptlayer.com. FILE.progress belongs to one service.
//
// exit status:
//
// - 0: every line is tracked.
// - 1: this run rejected a line.
// - 2: the configuration or a file cannot be used.
// - 3: stopped by SIGINT, by SIGTERM, or by an error that affects every request, such as a wrong API key.

#include <promptlayer.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t max_pending = 32; // lines that are read and not finished; bounds the memory

volatile std::sig_atomic_t stop_requested = 0;

extern "C" void request_stop(int number) {
    stop_requested = 1;
    std::signal(number, SIG_DFL); // the second signal ends the program at once
}

class progress_file {
    std::set<std::uint64_t> finished_{};
    std::ofstream file_{};

public:
    explicit progress_file(const std::string& path) {
        std::ifstream earlier{path};
        for (std::string record; std::getline(earlier, record);) {
            std::istringstream fields{record};
            std::uint64_t line = 0;
            std::string outcome;
            // A record that a crash has torn is not accepted: "12" may be the beginning of "123 tracked".
            if (fields >> line >> outcome && (outcome == "tracked" || outcome == "rejected:"))
                finished_.insert(line);
        }
        file_.open(path, std::ios::app);
        file_ << '\n' << std::flush; // a torn record must not become a part of the next record
    }

    bool contains(std::uint64_t line) const { return finished_.contains(line); }

    /// Writes the record before it returns.
    void add(std::uint64_t line, const std::string& outcome) {
        file_ << line << ' ' << outcome << '\n' << std::flush;
    }

    bool failed() const { return file_.fail(); }
};

} // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: backfill FILE\n";
        return 2;
    }
    const promptlayer::config config = promptlayer::config_from_environment();
    const auto violations = promptlayer::validate(config);
    for (const promptlayer::violation& violation : violations)
        std::cerr << violation << '\n'; // api_key: is not given
    if (!violations.empty())
        return 2;

    const std::string path = argv[1];
    std::ifstream input{path};
    if (input.peek(); input.bad() || !input.is_open()) {
        std::cerr << path << ": cannot be read\n";
        return 2;
    }
    progress_file progress{path + ".progress"};

    std::map<promptlayer::outbox::id, std::uint64_t> lines; // by the number of the request
    std::uint64_t tracked = 0, rejected = 0, expired = 0;
    const auto reject = [&](std::uint64_t line, const promptlayer::error& error) {
        ++rejected;
        progress.add(line, "rejected: " + to_string(error)); // one line without control characters
    };
    promptlayer::polled_tracker tracker{
        config,
        promptlayer::curl_multi_transport{},
        promptlayer::tracker_callbacks{
            .on_delivered =
                [&](promptlayer::outbox::id id, const promptlayer::track_response&) {
                    ++tracked;
                    progress.add(lines.extract(id).mapped(), "tracked");
                },
            .on_failed =
                [&](const promptlayer::outbox::ended& ended) {
                    const std::uint64_t line = lines.extract(ended.id).mapped();
                    if (ended.fate == promptlayer::fate::refused)
                        reject(line, *ended.why);
                    else
                        ++expired; // no record: the next run sends it again
                },
        },
        {.max_bytes = max_pending * promptlayer::default_max_request_bytes}};

    std::signal(SIGINT, request_stop);
    std::signal(SIGTERM, request_stop);
    std::uint64_t line = 0;
    bool at_end = false;
    const auto may_continue = [&] { return !stop_requested && !tracker.paused_by() && !progress.failed(); };
    while (may_continue() && !(at_end && tracker.pending() == 0)) {
        while (may_continue() && !at_end && tracker.pending() < max_pending) {
            std::string text;
            at_end = !std::getline(input, text);
            if (at_end || progress.contains(++line) || text.find_first_not_of(" \t\r") == text.npos)
                continue;
            const auto request = promptlayer::from_json<promptlayer::track_prompt>(text);
            const auto queued = request ? tracker.track_prompt(*request) : request.error();
            if (queued)
                lines.emplace(*queued, line);
            else
                reject(line, queued.error());
        }
        tracker.poll(steady_clock::now());
        if (tracker.stats().in_flight > 0)
            tracker.transport().poll(milliseconds{10}); // waits for a response
        else
            std::this_thread::sleep_for(milliseconds{10});
    }
    // Requests in flight may still be recorded. No new ones start.
    const auto deadline = steady_clock::now() + config.timeout;
    while (tracker.stats().in_flight > 0 && steady_clock::now() < deadline) {
        tracker.poll(steady_clock::now(), 0);
        tracker.transport().poll(milliseconds{10});
    }

    std::cout << tracked << " tracked, " << rejected << " rejected, " << expired << " expired\n";
    if (input.bad() || progress.failed()) {
        std::cerr << path << " or its progress file: an error while reading or writing\n";
        return 2;
    }
    if (tracker.paused_by())
        std::cerr << *tracker.paused_by() << '\n';
    if (!at_end || tracker.pending() > 0)
        return 3;
    return rejected + expired > 0 ? 1 : 0;
}
