// Measures what `track_prompt` of a background tracker costs its caller, beside `prepare` alone: median and
// 99.9th percentile of single calls, with 1 and 4 threads, while the tracker's thread is idle and while it
// sends. The two are measured alternately in one run.

#include "report.hpp"

#include <promptlayer.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace pl = promptlayer;
using nanoseconds = std::chrono::nanoseconds;

constexpr std::size_t calls = 40'000; // of each thread

/// Keeps the requests it is given, so that the queue fills up to `calls` and the tracker's thread sleeps.
struct silent_transport {
    std::vector<pl::completion> pending{};
    void send(pl::http_request, pl::completion done) { pending.push_back(std::move(done)); }
};

/// Accepts each request at once, so that the tracker's thread competes with the callers.
struct immediate_transport {
    pl::transport_result send(const pl::http_request&) {
        return pl::http_response{200, {}, R"({"success":true,"message":"Tracked"})"};
    }
};

struct durations {
    std::vector<nanoseconds> prepare{}, track{};
};

nanoseconds quantile(std::vector<nanoseconds>& values, double fraction) {
    const auto position =
        values.begin() + static_cast<std::ptrdiff_t>(fraction * static_cast<double>(values.size()));
    std::nth_element(values.begin(), position, values.end());
    return *position;
}

template <class ActionT>
nanoseconds duration_of(ActionT&& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    return std::chrono::steady_clock::now() - start;
}

template <class TransportT>
void measure(const char* name, std::size_t threads) {
    const pl::track_prompt request{.prompt_name = "support-response",
                                   .prompt_input_variables = {{"user_message", "Where is my order?"},
                                                              {"user_name", "Ada"},
                                                              {"language", "en"},
                                                              {"tone", "friendly"},
                                                              {"order", "1234567890"}},
                                   .request_id = 12345,
                                   .version = 2,
                                   .label = {}};
    pl::tracker_options options;
    options.queue.max_requests = 2 * calls * threads;
    options.queue.max_bytes = 1'000'000'000;
    options.close_timeout = 0ms;
    pl::background_tracker tracker{{.api_key = "key"}, TransportT{}, std::move(options)};
    std::vector<durations> measured(threads);
    std::vector<std::thread> callers;
    for (durations& own : measured)
        callers.emplace_back([&] {
            own.prepare.reserve(calls);
            own.track.reserve(calls);
            for (std::size_t i = 0; i < calls; ++i) {
                own.prepare.push_back(
                    duration_of([&] { check(pl::prepare(request).has_value(), "a request is valid"); }));
                own.track.push_back(duration_of(
                    [&] { check(tracker.track_prompt(request).has_value(), "a request is queued"); }));
            }
        });
    for (std::thread& caller : callers)
        caller.join();
    durations all;
    for (durations& own : measured) {
        all.prepare.insert(all.prepare.end(), own.prepare.begin(), own.prepare.end());
        all.track.insert(all.track.end(), own.track.begin(), own.track.end());
    }
    const auto prepare = quantile(all.prepare, 0.5), track = quantile(all.track, 0.5);
    std::printf("| %s, %zu thread%s | %lld ns | %lld ns | %.2f | %.1f us | %.1f us |\n", name, threads,
                threads == 1 ? "" : "s", static_cast<long long>(prepare.count()),
                static_cast<long long>(track.count()),
                static_cast<double>(track.count()) / static_cast<double>(prepare.count()),
                static_cast<double>(quantile(all.prepare, 0.999).count()) / 1000,
                static_cast<double>(quantile(all.track, 0.999).count()) / 1000);
}

} // namespace

int main() {
    std::printf("%s\n\n| tracker's thread | prepare | track_prompt | ratio | prepare, 99.9 %% | "
                "track_prompt, 99.9 %% |\n"
                "|---|---|---|---|---|---|\n",
                machine().c_str());
    for (const std::size_t threads : {1U, 4U}) {
        measure<silent_transport>("sleeps", threads);
        measure<immediate_transport>("sends", threads);
    }
}
