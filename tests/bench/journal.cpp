// Measures the journal of a file: adds a second with `sync_after` 0 beside the rate of `fsync`, the duration
// of calls during a compaction, and time and memory of opening.
//
// usage: journal_benchmark [FOLDER]

#include "report.hpp"

#include <promptlayer/file_journal.hpp>
#include <promptlayer/journal.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>

static std::atomic<std::size_t> allocated{0}, peak{0};

[[gnu::noinline]] void* operator new(std::size_t size) {
    void* const memory = std::malloc(size);
    if (!memory)
        std::abort();
    const std::size_t now = allocated += ::malloc_usable_size(memory);
    std::size_t before = peak;
    while (now > before && !peak.compare_exchange_weak(before, now)) {
    }
    return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    allocated -= ::malloc_usable_size(memory);
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
#else
static std::atomic<std::size_t> allocated{0}, peak{0};
#endif

namespace {

using namespace std::chrono_literals;
namespace pl = promptlayer;
using record = pl::detail::journal_record;

std::filesystem::path path;

std::unique_ptr<pl::file_journal> open(pl::file_journal_settings settings = {}) {
    auto opened = pl::file_journal::open(path, std::move(settings));
    if (!opened) {
        std::cerr << opened.error().message << '\n';
        std::exit(1);
    }
    return *std::move(opened);
}

pl::prepared_request request(std::size_t size) { return {"/rest/track-prompt", std::string(size, 'x')}; }

double seconds(const auto& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void measure_sync() {
    const std::string bytes(300, 'x');
    pl::detail::journal_file file;
    if (!file.open(path, pl::detail::journal_file::use::existing_or_new))
        std::exit(1);
    constexpr int count = 3'000;
    const double duration = seconds([&] {
        for (std::uint64_t i = 0; i < count; ++i)
            if (!file.write(i * bytes.size(), bytes) || !file.sync())
                std::exit(1);
    });
    std::cout << "fsync after a write of 300 bytes: " << static_cast<int>(count / duration) << " a second\n";
}

void measure_adds(int producers) {
    std::filesystem::remove(path);
    const auto journal = open({.sync_after = 0ms});
    const int count = producers == 1 ? 3'000 : 2'000;
    std::atomic<int> failures{0};
    const double duration = seconds([&] {
        std::vector<std::thread> threads;
        for (int producer = 0; producer < producers; ++producer)
            threads.emplace_back([&, producer] {
                const pl::prepared_request sent = request(250);
                for (int i = 0; i < count; ++i)
                    failures +=
                        journal->add(static_cast<pl::request_number>(1 + i * producers + producer), sent) ? 0
                                                                                                          : 1;
            });
        for (auto& thread : threads)
            thread.join();
    });
    std::cout << "add with sync_after 0, " << producers
              << " producers: " << static_cast<int>(producers * count / duration) << " a second, " << failures
              << " failed\n";
}

/// The durations of calls of one function.
struct durations {
    std::vector<double> all{};

    void time(const auto& action) { all.push_back(1e3 * seconds(action)); }
    void print(std::string_view name) {
        std::sort(all.begin(), all.end());
        const auto at = [&](double share) {
            return all[static_cast<std::size_t>(share * static_cast<double>(all.size() - 1))];
        };
        std::cout << "  " << name << ": " << all.size() << " calls, median " << at(0.5) << " ms, 99 % "
                  << at(0.99) << " ms, 99.9 % " << at(0.999) << " ms, worst " << all.back() << " ms\n";
    }
};

/// Times the calls of a frame loop with 10,000 pending requests of 1 KB, while the file is compacted.
void measure_compaction(bool with_adds) {
    std::filesystem::remove(path);
    const auto journal = open({.sync_after = 100ms});
    constexpr pl::request_number pending = 10'000;
    pl::request_number next = 1;
    constexpr pl::request_number removed = pending + 1'000;
    for (; next <= removed + pending; ++next)
        static_cast<void>(journal->add(next, request(1'000)));
    for (pl::request_number number = 1; number <= removed; ++number)
        journal->remove(number);
    durations maintain, remove, begin, add;
    std::uint64_t before = journal->bytes();
    int compactions = 0;
    for (pl::request_number oldest = removed + 1; compactions < 5;) {
        maintain.time([&] { static_cast<void>(journal->maintain()); });
        if (journal->bytes() < before) {
            ++compactions;
            for (pl::request_number i = 0; !with_adds && i < removed; ++i) { // another one is needed
                static_cast<void>(journal->add(next++, request(1'000)));
                journal->remove(oldest++);
            }
        }
        before = journal->bytes();
        for (int i = 0; with_adds && i < 10; ++i, ++oldest, ++next) {
            begin.time([&] { journal->begin(oldest); });
            remove.time([&] { journal->remove(oldest); });
            const pl::prepared_request sent = request(1'000);
            add.time([&] { static_cast<void>(journal->add(next, sent)); });
        }
        std::this_thread::sleep_for(with_adds ? 1ms : 0ms); // the rest of a frame
    }
    std::cout << (with_adds ? "a frame loop" : "maintain only") << ", 10,000 pending requests of 1 KB, "
              << compactions << " compactions:\n";
    maintain.print("maintain");
    if (with_adds) {
        begin.print("begin");
        remove.print("remove");
        add.print("add");
    }
}

void measure_open(std::string_view name) {
    const std::size_t before = allocated;
    peak = before;
    double memory = 0;
    std::size_t live = 0, count = 0, damaged = 0;
    const double duration = seconds([&] {
        const auto journal = open();
        for (const auto& entry : journal->pending()) {
            live += record::head_size + entry.request.path.size() + entry.request.body.size();
            ++count;
        }
        memory = static_cast<double>(peak - before);
        damaged = journal->damaged_records();
    });
    std::cout << "open " << name << ": " << 1e3 * duration << " ms, " << count << " pending with " << live
              << " bytes, " << damaged << " damaged, at most " << memory << " bytes of memory"
              << (live != 0 ? " (" + std::to_string(memory / static_cast<double>(live)) + " times)" : "")
              << '\n';
}

void write_hostile(std::size_t size, const auto& head) {
    std::string text = record::header();
    for (pl::request_number number = 1; text.size() < size; ++number)
        text += head(number, size - text.size());
    std::ofstream{path, std::ios::binary} << text;
}

} // namespace

int main(int argc, char** argv) {
    std::cout << std::unitbuf << machine() << "\n\n";
    const std::filesystem::path folder =
        argc > 1 ? std::filesystem::path{argv[1]} : std::filesystem::temp_directory_path();
    path = folder / "promptlayer-journal-benchmark";
    measure_sync();
    for (const int producers : {1, 4, 16})
        measure_adds(producers);
    measure_compaction(false);
    measure_compaction(true);
    for (const std::size_t size : {256 * 1024U, 4 * 1024 * 1024U, 64 * 1024 * 1024U}) {
        const std::string bytes = std::to_string(size / 1024) + " KiB of ";
        write_hostile(size, [](auto, auto) { return std::string{record::marker} + "\xFF\xFF\xFF\xFF"; });
        measure_open(bytes + "markers");
        write_hostile(size, [](auto number, std::size_t left) {
            return record{.body_size = left - std::min<std::size_t>(left, 36), .number = number}.head();
        });
        measure_open(bytes + "overlapping records");
        write_hostile(
            size, [](auto number, auto) { return record{.body_size = 0xFFFFFFFF, .number = number}.head(); });
        measure_open(bytes + "endless records");
    }
    for (const std::size_t kept : {100U, 2U, 1U}) {
        std::filesystem::remove(path);
        {
            const auto journal = open({.sync_after = std::nullopt});
            for (pl::request_number number = 1; journal->add(number, request(1'000)); ++number)
                if (number % kept != 0)
                    journal->remove(number);
        }
        measure_open("64 MiB, one request in " + std::to_string(kept) + " pending");
    }
    std::filesystem::remove(path);
}
