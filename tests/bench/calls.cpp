// Measures what a call over a kept connection costs, beside libcurl by hand. Server and client share one core
// and the slices of all rows alternate, so that the ratios are meaningful on a busy machine; Google Benchmark
// would run each row as a whole. The server is another process, so CPU time is that of the client. Then
// measures the peak memory of processes that make many calls.
//
// usage: calls_benchmark [ROUNDS] [ROW]  (ROW: run only this one, for a profiler)

#include "curl_loop.hpp"
#include "drain_server.hpp"
#include "report.hpp"

#include <promptlayer.hpp>
#include <promptlayer/transports/curl.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
#endif

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace pl = promptlayer;

constexpr std::size_t slice = 208; // calls; a multiple of `in_flight`
constexpr std::size_t in_flight = 16;
constexpr std::size_t memory_calls = 10'000;

const pl::track_prompt prompt{
    .prompt_name = "support-response",
    .prompt_input_variables = {{"user_message", "Where is my order?"}, {"language", "en"}},
    .request_id = 12345,
    .version = 2,
    .label = {}};

/// Makes this many calls. Returns how many succeeded.
using caller = std::function<std::size_t(std::size_t)>;

std::size_t append(char* data, std::size_t, std::size_t size, void* body) {
    static_cast<std::string*>(body)->append(data, size);
    return size;
}

/// libcurl as an expert writes it by hand: one handle, and its options are set once.
class curl_by_hand {
    CURL* const easy_ = curl_easy_init();
    curl_slist* headers_ = nullptr;
    std::string body_{};

public:
    explicit curl_by_hand(const pl::http_request& request) {
        for (const pl::header& h : request.headers)
            headers_ = curl_slist_append(headers_, (h.name + ": " + h.value).c_str());
        curl_easy_setopt(easy_, CURLOPT_URL, request.url.c_str());
        curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(easy_, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
        curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, headers_);
        curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, &append);
        curl_easy_setopt(easy_, CURLOPT_WRITEDATA, &body_);
    }
    curl_by_hand(const curl_by_hand&) = delete;
    curl_by_hand& operator=(const curl_by_hand&) = delete;
    ~curl_by_hand() {
        curl_easy_cleanup(easy_);
        curl_slist_free_all(headers_);
    }

    /// Returns the body of the response to `body`; empty if its status is not 200.
    const std::string& send(const std::string& body) {
        long status = 0;
        body_.clear();
        curl_easy_setopt(easy_, CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
        curl_easy_setopt(easy_, CURLOPT_POSTFIELDS, body.data());
        if (curl_easy_perform(easy_) == CURLE_OK)
            curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
        if (status != 200)
            body_.clear();
        return body_;
    }
};

caller raw(const pl::http_request& request) {
    return [&request, curl = std::make_shared<curl_by_hand>(request)](std::size_t count) {
        std::size_t succeeded = 0;
        for (std::size_t i = 0; i < count; ++i)
            if (!curl->send(request.body).empty())
                ++succeeded;
        return succeeded;
    };
}

#ifdef NLOHMANN_JSON_VERSION_MAJOR
caller raw_and_json(const pl::http_request& request) {
    return [curl = std::make_shared<curl_by_hand>(request)](std::size_t count) {
        std::size_t succeeded = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const nlohmann::json body{
                {"prompt_name", prompt.prompt_name},
                {"prompt_input_variables", {{"user_message", "Where is my order?"}, {"language", "en"}}},
                {"request_id", 12345},
                {"version", 2}};
            const auto reply = nlohmann::json::parse(curl->send(body.dump()));
            const auto message = reply.at("message").get<std::string>();
            if (reply.at("success").get<bool>() && !message.empty())
                ++succeeded;
        }
        return succeeded;
    };
}
#endif

caller transport(const pl::http_request& request) {
    return [&request, transport = std::make_shared<pl::curl_transport>()](std::size_t count) {
        std::size_t succeeded = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const auto outcome = transport->send(request);
            if (outcome && outcome->status == 200 && !outcome->body.empty())
                ++succeeded;
        }
        return succeeded;
    };
}

caller client(const pl::config& config) {
    return [client = std::make_shared<pl::client<pl::curl_transport>>(config, pl::curl_transport{})](
               std::size_t count) {
        std::size_t succeeded = 0;
        for (std::size_t i = 0; i < count; ++i)
            if (client->track_prompt(prompt))
                ++succeeded;
        return succeeded;
    };
}

caller loop(const pl::http_request& request) {
    return [loop = std::make_shared<curl_loop>(request, in_flight)](std::size_t count) {
        return loop->run(count);
    };
}

caller multi_transport(const pl::http_request& request) {
    auto transport = std::make_shared<pl::curl_multi_transport>(nullptr, static_cast<int>(in_flight));
    return [&request, transport](std::size_t count) {
        std::size_t started = 0, succeeded = 0;
        const std::function<void()> start = [&] {
            ++started;
            transport->send(request, [&](const pl::transport_result& outcome) {
                if (outcome && outcome->status == 200 && !outcome->body.empty())
                    ++succeeded;
                if (started < count)
                    start();
            });
        };
        while (started < std::min(count, in_flight))
            start();
        while (transport->poll(std::chrono::seconds{1}) != 0) {
        }
        return succeeded;
    };
}

caller multi_client(const pl::config& config) {
    auto client = std::make_shared<pl::client<pl::curl_multi_transport>>(
        config, pl::curl_multi_transport{nullptr, static_cast<int>(in_flight)});
    return [client](std::size_t count) {
        std::size_t started = 0, succeeded = 0;
        const std::function<void()> start = [&] {
            ++started;
            client->track_prompt(prompt, [&](const pl::result<pl::track_response>& reply) {
                if (reply)
                    ++succeeded;
                if (started < count)
                    start();
            });
        };
        while (started < std::min(count, in_flight))
            start();
        while (client->transport().poll(std::chrono::seconds{1}) != 0) {
        }
        return succeeded;
    };
}

struct row {
    const char* name;
    std::size_t baseline; // its index
    std::function<caller()> make;
    caller call{};
    std::vector<work_time> slices{};
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

/// Returns the median over the slices of `of(slice)`.
template <class OfT>
double median_of(const row& measured, OfT of) {
    std::vector<double> values;
    for (std::size_t i = 0; i < measured.slices.size(); ++i)
        values.push_back(of(i));
    return median(std::move(values));
}

void print(const row& measured, const row& baseline) {
    const double rate = median_of(
        measured, [&](std::size_t i) { return baseline.slices[i].elapsed / measured.slices[i].elapsed; });
    const double cpu_ratio =
        median_of(measured, [&](std::size_t i) { return measured.slices[i].cpu / baseline.slices[i].cpu; });
    const double elapsed = median_of(measured, [&](std::size_t i) { return measured.slices[i].elapsed; });
    const double cpu = median_of(measured, [&](std::size_t i) { return measured.slices[i].cpu; });
    const auto count = static_cast<double>(slice);
    std::printf("| %s | %.0f | %.2f | %.1f us | %.2f |\n", measured.name, count / elapsed, rate,
                1e6 * cpu / count, cpu_ratio);
}

/// Returns the peak memory of a process that makes `memory_calls` calls, in KiB.
long peak_memory(const row& measured) {
    int ends[2];
    check(::pipe(ends) == 0, "there is a pipe");
    const pid_t child = ::fork();
    check(child >= 0, "there is a process");
    if (child == 0) {
        check(measured.make()(memory_calls) == memory_calls, "the calls succeed");
        std::ifstream status{"/proc/self/status"};
        std::string word;
        long peak = 0; // in KiB
        while (status >> word && word != "VmHWM:") {
        }
        status >> peak;
        check(::write(ends[1], &peak, sizeof peak) == sizeof peak, "the peak is reported");
        ::_exit(0);
    }
    ::close(ends[1]);
    long peak = 0;
    check(::read(ends[0], &peak, sizeof peak) == sizeof peak, "the peak is known");
    ::close(ends[0]);
    ::waitpid(child, nullptr, 0);
    return peak;
}

/// Sets the policy by which the system schedules this process and its later children. A child that is
/// scheduled by SCHED_BATCH does not interrupt a process that is not.
void schedule_by(int policy) {
    const sched_param parameters{};
    check(::sched_setscheduler(0, policy, &parameters) == 0, "the policy is set");
}

/// Stays on the core that the process runs on, with all children. Returns its number.
int pin() {
    const int core = ::sched_getcpu();
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(static_cast<unsigned>(core), &cores);
    check(::sched_setaffinity(0, sizeof cores, &cores) == 0, "the process stays on one core");
    return core;
}

} // namespace

int main(int argc, char** argv) {
    const std::size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 100;
    const std::string only = argc > 2 ? argv[2] : "";
    const int core = pin();
    // The server runs while the client waits: as over a network, no response is there when a request is sent.
    schedule_by(SCHED_BATCH);
    const drain_server server{std::chrono::milliseconds{0}};
    schedule_by(SCHED_OTHER);
    const pl::config config{.api_key = "pl_benchmark", .base_url = server.base_url()};
    const auto encoded = pl::encode(config, prompt);
    check(encoded.has_value(), "the request is valid");
    const pl::http_request& request = *encoded;

    std::vector<row> rows;
    const auto add = [&](const char* name, std::size_t baseline, std::function<caller()> make) {
        if (only.empty() || only == name)
            rows.push_back({name, only.empty() ? baseline : 0, std::move(make)});
    };
    add("libcurl, constant body", 0, [&] { return raw(request); });
    add("curl_transport, constant body", 0, [&] { return transport(request); });
    add("client<curl_transport>", 0, [&] { return client(config); });
    add("libcurl multi, 16 in flight, constant body", 3, [&] { return loop(request); });
    add("curl_multi_transport, 16 in flight, constant body", 3, [&] { return multi_transport(request); });
    add("client<curl_multi_transport>, 16 in flight", 3, [&] { return multi_client(config); });
#ifdef NLOHMANN_JSON_VERSION_MAJOR
    add("libcurl and nlohmann/json", 0, [&] { return raw_and_json(request); });
#endif
    check(!rows.empty(), "the row is known");

    // First, because a child begins with the memory of its parent.
    std::vector<long> peaks;
    if (only.empty())
        std::transform(rows.begin(), rows.end(), std::back_inserter(peaks), peak_memory);

    for (row& measured : rows) {
        measured.call = measured.make();
        check(measured.call(slice) == slice, "the connections are open");
    }
    for (std::size_t round = 0; round < rounds; ++round) {
        for (row& measured : rows) {
            const stopwatch watch;
            const std::size_t succeeded = measured.call(slice);
            measured.slices.push_back(watch.time());
            check(succeeded == slice, "the calls succeed");
        }
    }

    std::printf("%s, core %d, %s; medians of %zu slices of %zu calls\n\n"
                "| what | calls a second | of libcurl | CPU a call | of libcurl |\n|---|---|---|---|---|\n",
                machine().c_str(), core, curl_version(), rounds, slice);
    for (const row& measured : rows)
        print(measured, rows[measured.baseline]);
    std::printf(
        "\n| peak memory of a process that makes %zu calls | KiB | more than libcurl |\n|---|---|---|\n",
        memory_calls);
    for (std::size_t i = 0; i < peaks.size(); ++i)
        std::printf("| %s | %ld | %ld |\n", rows[i].name, peaks[i], peaks[i] - peaks[rows[i].baseline]);
}
