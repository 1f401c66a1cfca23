// Measures what each call of an outbox costs, by the number of queued requests, and the memory that a queued
// request takes.

#include "report.hpp"

#include <promptlayer/outbox.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <time.h>

namespace {

std::size_t allocated = 0; // bytes that the program has requested and not freed

constexpr std::size_t prefix = alignof(std::max_align_t);

} // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    auto* const memory = static_cast<unsigned char*>(std::malloc(size + prefix));
    if (!memory)
        std::abort();
    *reinterpret_cast<std::size_t*>(memory) = size;
    allocated += size;
    return memory + prefix;
}

[[gnu::noinline]] void operator delete(void* memory) noexcept {
    if (!memory)
        return;
    auto* const begin = static_cast<unsigned char*>(memory) - prefix;
    allocated -= *reinterpret_cast<std::size_t*>(begin);
    std::free(begin);
}

void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace {

namespace pl = promptlayer;
using namespace std::chrono_literals;

constexpr pl::outbox::time_point start{1h};
const std::string body(300, 'x');

/// Returns the time that this thread has run, in nanoseconds, so that other programs are not measured.
std::int64_t thread_time() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
#else
    return std::chrono::nanoseconds{std::chrono::steady_clock::now().time_since_epoch()}.count();
#endif
}

class meter {
    std::vector<std::uint32_t> samples_{};

public:
    explicit meter(std::size_t count) { samples_.reserve(count); }

    template <class CallT>
    void time(CallT&& call) {
        const auto begin = thread_time();
        call();
        samples_.push_back(static_cast<std::uint32_t>(thread_time() - begin));
    }

    double mean() const {
        double sum = 0;
        for (const std::uint32_t sample : samples_)
            sum += sample;
        return sum / static_cast<double>(samples_.size());
    }

    void print(const char* queue, std::size_t queued, const char* what) {
        static const double overhead = [] {
            meter empty{100'000};
            for (int i = 0; i < 100'000; ++i)
                empty.time([] {});
            return empty.mean();
        }();
        std::sort(samples_.begin(), samples_.end());
        const std::size_t count = samples_.size();
        std::printf("| %s | %zu | %s | %.0f ns | %.1f us | %.1f us |\n", queue, queued, what,
                    mean() - overhead, samples_[count - 1 - count / 10'000] / 1e3, samples_.back() / 1e3);
    }
};

pl::queue_options options(std::size_t queued, std::size_t max_in_flight = 16) {
    return {.max_requests = queued, .max_bytes = queued * 400, .max_in_flight = max_in_flight};
}

pl::prepared_request request() { return {"/rest/track-prompt", body}; }

std::function<double()> random_numbers() {
    return [random = std::mt19937_64{1}]() mutable { return static_cast<double>(random() >> 11) * 0x1p-53; };
}

/// Times pushes of all requests, then the other calls while the queue is full.
void run_untried(std::size_t queued) {
    constexpr const char* name = "untried";
    pl::outbox box{options(queued), random_numbers()};
    std::mt19937_64 random{2};
    const std::size_t count = std::min<std::size_t>(queued / 4, 50'000);
    meter push{queued}, next_due{count}, take{count}, complete{count}, cancel{count};
    for (std::size_t i = 0; i < queued; ++i) {
        pl::prepared_request pushed = request();
        push.time([&] { std::ignore = box.push(std::move(pushed), start); });
    }
    for (std::size_t i = 0; i < count; ++i) {
        std::optional<pl::due_request> due;
        std::optional<pl::finished_request> finished;
        next_due.time([&] { std::ignore = box.next_due(start); });
        take.time([&] { due = box.take(start); });
        complete.time([&] { finished = box.complete(due->number, std::nullopt, start); });
    }
    for (std::size_t i = 0; i < count; ++i)
        cancel.time([&] { box.cancel(count + random() % (queued - count)); });
    push.print(name, queued, "push");
    next_due.print(name, queued, "next_due");
    take.print(name, queued, "take");
    complete.print(name, queued, "complete");
    cancel.print(name, queued, "cancel");
}

/// Times the calls while all requests wait for another attempt and fall due at once.
void run_tried(std::size_t queued) {
    constexpr const char* name = "tried, due at once";
    pl::outbox box{options(queued), random_numbers()};
    for (std::size_t i = 0; i < queued; ++i)
        std::ignore = box.push(request(), start);
    pl::error cancelled{.code = pl::errc::transport};
    cancelled.failure = pl::failure::cancelled;
    for (std::size_t i = 0; i < queued; ++i)
        box.complete(box.take(start)->number, cancelled, start);
    const std::size_t count = std::min<std::size_t>(queued / 4, 50'000);
    meter next_due{count}, take{count}, complete{count}, fail{count}, cancel{count}, retry_now{100},
        probe{100};
    pl::outbox::time_point now = start + 1s; // some of the waits have ended
    for (int i = 0; i < 100; ++i)
        retry_now.time([&] { box.retry_now(now); });
    now += 1h;
    std::mt19937_64 random{2};
    for (std::size_t i = 0; i < count; ++i) {
        std::optional<pl::due_request> due;
        std::optional<pl::finished_request> finished;
        next_due.time([&] { std::ignore = box.next_due(now); });
        take.time([&] { due = box.take(now); });
        if (i % 2 == 0)
            complete.time([&] { finished = box.complete(due->number, std::nullopt, now); });
        else
            fail.time([&] { finished = box.complete(due->number, cancelled, now); });
    }
    for (std::size_t i = 0; i < count; ++i)
        cancel.time([&] { box.cancel(random() % queued); });
    pl::error limited{.code = pl::errc::rate_limited, .status = 429};
    box.complete(box.take(now)->number, limited, now);
    for (int i = 0; i < 100; ++i) {
        std::optional<pl::due_request> due;
        now += 1h;
        probe.time([&] { due = box.take(now); });
        box.complete(due->number, limited, now);
    }
    next_due.print(name, queued, "next_due");
    take.print(name, queued, "take");
    complete.print(name, queued, "complete, delivered");
    fail.print(name, queued, "complete, failed");
    cancel.print(name, queued, "cancel");
    retry_now.print(name, queued, "retry_now");
    probe.print(name, queued, "take, a probe");
}

/// Times pushes to a full queue that drops the oldest, with 10,000 requests in flight in front.
void run_dropping(std::size_t queued) {
    constexpr const char* name = "full, 10,000 in flight, drop_oldest";
    constexpr std::size_t in_flight = 10'000;
    pl::queue_options limits = options(queued + in_flight, in_flight);
    limits.drop_oldest = true;
    pl::outbox box{limits, random_numbers()};
    for (std::size_t i = 0; i < in_flight; ++i) { // opens the window
        std::ignore = box.push(request(), start);
        box.complete(box.take(start)->number, std::nullopt, start);
    }
    for (std::size_t i = 0; i < queued + in_flight; ++i)
        std::ignore = box.push(request(), start);
    while (box.take(start))
        continue;
    const std::size_t count = std::min<std::size_t>(queued, 50'000);
    meter push{count}, take_finished{count};
    for (std::size_t i = 0; i < count; ++i) {
        pl::prepared_request pushed = request();
        std::optional<pl::finished_request> dropped;
        push.time([&] { std::ignore = box.push(std::move(pushed), start); });
        take_finished.time([&] { dropped = box.take_finished(); });
        if (!dropped)
            std::abort();
    }
    push.print(name, queued, "push");
    take_finished.print(name, queued, "take_finished");
}

void print_memory(std::size_t queued) {
    const auto per_request = [&](std::size_t before, const pl::outbox& box) {
        return (static_cast<double>(allocated - before) - static_cast<double>(box.bytes())) /
               static_cast<double>(queued);
    };
    const std::size_t before = allocated;
    pl::outbox box{options(queued), random_numbers()};
    for (std::size_t i = 0; i < queued; ++i)
        std::ignore = box.push(request(), start);
    const double untried = per_request(before, box);
    pl::error failed{.code = pl::errc::transport, .message = "the timeout expired"};
    failed.failure = pl::failure::timeout;
    for (std::size_t i = 0; i < queued; ++i) {
        box.retry_now(start);
        box.complete(box.take(start)->number, failed, start);
    }
    std::printf("\nBytes that a queued request takes beyond its path and body: %.0f, after a failure %.0f\n",
                untried, per_request(before, box));
}

} // namespace

int main() {
    std::printf("%s\n\n| queue | requests | call | mean | 99.99 %% | longest |\n|---|---|---|---|---|---|\n",
                machine().c_str());
    for (const std::size_t queued : {1'000U, 10'000U, 100'000U, 1'000'000U}) {
        run_untried(queued);
        run_tried(queued);
        run_dropping(queued);
    }
    print_memory(100'000);
}
