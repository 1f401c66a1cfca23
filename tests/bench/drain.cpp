// Measures how fast trackers empty a queue, beside a loop of libcurl's multi interface by hand. The server
// responds after 50 ms over HTTP/1.1. Before each measurement, as many requests as 20 windows hold are sent
// to open the connections and the window. One run measures all, so that the ratios are meaningful on a busy
// machine.
//
// usage: drain_benchmark [REQUESTS]

#include "curl_loop.hpp"
#include "drain_server.hpp"
#include "report.hpp"

#include <promptlayer.hpp>
#include <promptlayer/transports/curl.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace pl = promptlayer;

constexpr auto delay = 50ms;
constexpr std::chrono::nanoseconds frame{1'000'000'000 / 60};
// A response that takes just over 50 ms, three frames, is seen in the fourth.
constexpr double polled_round_trip = 4.0 / 60;

const pl::track_prompt prompt{
    .prompt_name = "support-response",
    .prompt_input_variables = {{"user_message", "Where is my order?"}, {"language", "en"}},
    .request_id = 12345,
    .version = 2,
    .label = {}};

pl::tracker_options options(std::size_t in_flight, std::size_t requests, std::size_t& delivered) {
    pl::tracker_options options;
    options.on_delivered = [&](const pl::finished_request&) { ++delivered; };
    options.queue.max_requests = requests;
    options.queue.max_in_flight = in_flight;
    return options;
}

template <class TrackerT>
void track(TrackerT& tracker, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
        check(tracker.track_prompt(prompt).has_value(), "a request is queued");
}

template <class TransportT>
work_time background(const pl::config& config, TransportT transport, std::size_t in_flight,
                     std::size_t requests) {
    std::size_t delivered = 0;
    pl::background_tracker tracker{config, std::move(transport), options(in_flight, requests, delivered)};
    track(tracker, std::min(requests, 20 * in_flight));
    check(tracker.flush(60s), "the window is open");
    delivered = 0;
    tracker.pause();
    track(tracker, requests);
    const stopwatch watch;
    tracker.resume();
    check(tracker.flush(60s), "the queue is empty");
    const auto time = watch.time();
    check(delivered == requests, "all are delivered");
    return time;
}

work_time polled(const pl::config& config, std::size_t in_flight, std::size_t requests, double& worst_frame) {
    std::size_t delivered = 0;
    pl::polled_tracker tracker{config, pl::curl_multi_transport{}, options(in_flight, requests, delivered)};
    worst_frame = 0;
    const auto run = [&] {
        for (auto next = std::chrono::steady_clock::now();; next += frame) {
            std::this_thread::sleep_until(next);
            const auto start = std::chrono::steady_clock::now();
            const bool is_done = tracker.poll(start) == 0;
            const std::chrono::duration<double, std::milli> work = std::chrono::steady_clock::now() - start;
            worst_frame = std::max(worst_frame, work.count());
            if (is_done)
                return;
        }
    };
    track(tracker, std::min(requests, 20 * in_flight));
    run();
    delivered = 0;
    worst_frame = 0;
    track(tracker, requests);
    const stopwatch watch;
    run();
    const auto time = watch.time();
    check(delivered == requests, "all are delivered");
    return time;
}

void print(const char* name, std::size_t in_flight, std::size_t requests, double round_trip,
           const work_time& time, const work_time& by_hand) {
    const auto count = static_cast<double>(requests);
    const double rate = count / time.elapsed, ideal = static_cast<double>(in_flight) / round_trip;
    std::printf("| %s | %zu | %.0f | %.2f | %.2f | %.0f us | %.2f |\n", name, in_flight, rate, rate / ideal,
                by_hand.elapsed / time.elapsed, 1e6 * time.cpu / count, time.cpu / by_hand.cpu);
    std::fflush(stdout);
}

} // namespace

int main(int argc, char** argv) {
    const std::size_t requests = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 2'000;
    const drain_server server{delay};
    const pl::config config{.api_key = "pl_benchmark", .base_url = server.base_url()};
    const auto request = pl::encode(config, prompt);
    check(request.has_value(), "the request is valid");
    std::printf("%s, %s; %zu requests; the ideal is in flight / 0.05 s, or / 4 frames if polled\n\n"
                "| what | in flight | requests a second | of the ideal | of the loop by hand | CPU a request "
                "| of the "
                "loop by hand |\n|---|---|---|---|---|---|---|\n",
                machine().c_str(), curl_version(), requests);
    for (const std::size_t in_flight : {16U, 64U, 256U}) {
        curl_loop loop{*request, in_flight};
        check(loop.run(in_flight) == in_flight, "the connections are open");
        const stopwatch watch;
        check(loop.run(requests) == requests, "the loop by hand succeeds");
        const work_time by_hand = watch.time();
        const double round_trip = std::chrono::duration<double>{delay}.count();
        print("loop by hand", in_flight, requests, round_trip, by_hand, by_hand);
        print("background + curl_multi", in_flight, requests, round_trip,
              background(config, pl::curl_multi_transport{}, in_flight, requests), by_hand);
        print("background + threaded(curl)", in_flight, requests, round_trip,
              background(config, pl::threaded_transport{in_flight, [] { return pl::curl_transport{}; }},
                         in_flight, requests),
              by_hand);
        double worst_frame = 0;
        const work_time time = polled(config, in_flight, requests, worst_frame);
        print("polled, 60 frames a second", in_flight, requests, polled_round_trip, time, by_hand);
        std::printf("| worst frame | %zu | %.2f ms | | | | |\n", in_flight, worst_frame);
    }
}
