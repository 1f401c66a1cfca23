// Runs a workload on a journal again and again. In each run another system call fails, or the process dies
// before, in or after that call. Then the journal is opened again, also as a loss of power would leave it.

#include <promptlayer/file_journal.hpp>
#include <promptlayer/journal.hpp>

#include <doctest/doctest.h>

#ifdef __linux__
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pl = promptlayer;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

enum class effect { none, fail_once, fail_for_a_while, die_before, die_halfway, die_after };

/// The system calls of one run. Only one thread at a time calls them.
struct disk {
    effect injected = effect::none;
    int remaining = 0; // calls before the fault
    int calls = 0;
    bool dead = false;
    bool copy_created = false;
    std::function<void()> on_copy_sync{};

    // What a loss of power leaves: the synced content of files, and the file that the synced folder names
    std::map<ino_t, int> ids{};
    std::map<int, std::string> synced{};
    int next_id = 1;
    std::optional<int> durable{};

    /// Makes a system call, which fails if `action` returns a negative number.
    long call(int error, const std::function<long()>& action, const std::function<void()>& half = {}) {
        if (dead)
            return fail(EIO);
        ++calls;
        const int passed = remaining-- > 0 ? -1 : -1 - remaining; // 0: the call with the fault
        if (passed == 0 && injected == effect::die_halfway && half)
            half();
        if (passed == 0 && (injected == effect::die_halfway || injected == effect::die_before)) {
            dead = true;
            return fail(EIO);
        }
        if ((passed == 0 && injected == effect::fail_once) ||
            (passed >= 0 && passed < 15 && injected == effect::fail_for_a_while))
            return fail(error);
        const long result = action();
        dead = passed == 0 && injected == effect::die_after;
        return dead ? fail(EIO) : result;
    }

    static long fail(int error) {
        errno = error;
        return -1;
    }

    static std::optional<ino_t> inode(int descriptor) {
        struct stat status {};
        if (::fstat(descriptor, &status) != 0)
            return std::nullopt;
        return status.st_ino;
    }
};

disk* active = nullptr;
const std::thread::id main_thread = std::this_thread::get_id();
fs::path folder_path, journal_path;

int raw_open(const char* path, int flags, mode_t mode) {
    return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

/// Makes durable what `fsync` makes durable.
long record_sync(int descriptor) {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0)
        return -1;
    if (S_ISDIR(status.st_mode)) {
        struct stat named {};
        active->durable.reset();
        if (::stat(journal_path.c_str(), &named) == 0)
            active->durable = active->ids.at(named.st_ino);
    } else {
        std::string& content = active->synced[active->ids.at(status.st_ino)];
        content.resize(static_cast<std::size_t>(status.st_size));
        if (::syscall(SYS_pread64, descriptor, content.data(), content.size(), 0) != status.st_size)
            return -1;
    }
    return 0;
}

} // namespace

extern "C" int open(const char* path, int flags, ...) {
    std::va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (!active)
        return raw_open(path, flags, mode);
    return static_cast<int>(active->call(EMFILE, [&]() -> long {
        const bool is_new = ::faccessat(AT_FDCWD, path, F_OK, 0) != 0;
        const int descriptor = raw_open(path, flags, mode);
        if (is_new && descriptor >= 0)
            active->ids[*disk::inode(descriptor)] = active->next_id++;
        active->copy_created = active->copy_created || (flags & O_EXCL) != 0;
        return descriptor;
    }));
}

extern "C" ssize_t pwrite(int descriptor, const void* from, std::size_t size, off_t offset) {
    const auto write = [&](std::size_t count) -> long {
        return ::syscall(SYS_pwrite64, descriptor, from, count, offset);
    };
    if (!active)
        return write(size);
    return active->call(
        ENOSPC, [&] { return write(size); }, [&] { write(size / 2); });
}

extern "C" int fsync(int descriptor) {
    if (!active)
        return static_cast<int>(::syscall(SYS_fsync, descriptor));
    if (std::this_thread::get_id() != main_thread && std::exchange(active->copy_created, false))
        active->on_copy_sync(); // on the worker, while it syncs the copy for the first time
    return static_cast<int>(active->call(EIO, [&] { return record_sync(descriptor); }));
}

extern "C" int ftruncate(int descriptor, off_t size) noexcept {
    const auto truncate = [&]() -> long { return ::syscall(SYS_ftruncate, descriptor, size); };
    return static_cast<int>(active ? active->call(EIO, truncate) : truncate());
}

extern "C" int rename(const char* from, const char* to) noexcept {
    const auto move = [&]() -> long { return ::renameat(AT_FDCWD, from, AT_FDCWD, to); };
    return static_cast<int>(active ? active->call(EACCES, move) : move());
}

extern "C" int remove(const char* path) noexcept {
    const auto unlink = [&]() -> long {
        const int result = ::unlinkat(AT_FDCWD, path, 0);
        return result != 0 && errno == EISDIR ? ::unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : result;
    };
    const int before = errno;
    const long result = active ? active->call(EACCES, unlink) : unlink();
    if (result == 0)
        errno = before;
    return static_cast<int>(result);
}

extern "C" int close(int descriptor) {
    const auto end = [&]() -> long { return ::syscall(SYS_close, descriptor); };
    if (!active || active->dead)
        return static_cast<int>(end());
    bool closed = false;
    const long result = active->call(EIO, [&] {
        closed = true;
        return end();
    });
    if (!closed) // a failed `close` closes all the same
        end();
    return static_cast<int>(result);
}

namespace {

/// What the caller of the journal knows.
struct knowledge {
    std::chrono::system_clock::time_point now{480'000h};
    std::map<pl::request_number, std::string> bodies{}; // of all that was passed to `add`
    std::set<pl::request_number> acknowledged{}, begun{}, maybe_begun{}, removed{}, maybe_removed{};
};

std::string body_of(pl::request_number number) {
    std::string body = std::to_string(number) + ' ';
    body.resize(number % 4 == 0 ? 20'000 : 200, static_cast<char>('a' + number % 26));
    return body;
}

void run(pl::journal& journal, knowledge& known, const disk& under) {
    const auto add = [&](pl::request_number number) {
        const auto& body = known.bodies[number] = body_of(number);
        const auto added = journal.add(number, {"/rest/track-prompt", body, number % 5 != 0});
        if (added && !under.dead)
            known.acknowledged.insert(number);
    };
    const auto begin = [&](pl::request_number number) {
        known.maybe_begun.insert(number);
        journal.begin(number);
        if (!under.dead)
            known.begun.insert(number);
    };
    const auto remove = [&](pl::request_number number) {
        known.maybe_removed.insert(number);
        journal.remove(number);
        if (!under.dead)
            known.removed.insert(number);
    };
    static pl::request_number extra;
    extra = 1'000;
    active->on_copy_sync = [add] { add(++extra); };
    const auto maintain = [&] {
        while (journal.maintain() == 10ms) // wait for the worker
            std::this_thread::yield();
    };
    for (pl::request_number number = 1; number <= 64 && !under.dead; ++number) {
        known.now += 200ms;
        add(number);
        maintain();
        if (number > 21) {
            if (number % 5 == 0)
                begin(number - 1);
            remove(number - 20);
            maintain();
        }
    }
    for (pl::request_number number = 46; number <= 62 && !under.dead; number += 2)
        remove(number);
    for (int i = 0; i < 10; ++i) {
        known.now += 200ms;
        maintain();
    }
}

/// Opens the journal and returns the first thing that is wrong, or an empty string.
std::string check(const fs::path& path, const knowledge& known, bool power_lost) {
    auto opened = pl::file_journal::open(path);
    if (!opened)
        return opened.error().message;
    std::set<pl::request_number> pending;
    for (const auto& entry : (*opened)->pending()) {
        const std::string number = std::to_string(entry.number);
        const auto body = known.bodies.find(entry.number);
        if (body == known.bodies.end() || body->second != entry.request.body ||
            entry.request.idempotent != (entry.number % 5 != 0))
            return number + " was invented";
        if (!power_lost && known.removed.contains(entry.number))
            return number + " was removed and came back";
        if (known.begun.contains(entry.number) && !entry.begun)
            return number + " was begun";
        if (!known.maybe_begun.contains(entry.number) && entry.begun)
            return number + " was not begun";
        pending.insert(entry.number);
    }
    for (const pl::request_number number : known.acknowledged)
        if (!known.maybe_removed.contains(number) && !pending.contains(number))
            return std::to_string(number) + " was lost";
    if (fs::exists(fs::path{path} += ".new"))
        return "the copy is still there";
    return {};
}

std::string check_content(const std::string& content, const knowledge& known) {
    const fs::path path = folder_path / "after power loss";
    std::ofstream{path, std::ios::binary} << content;
    std::string wrong = check(path, known, true);
    fs::remove(path);
    return wrong.empty() ? wrong : "after a loss of power " + wrong;
}

} // namespace

TEST_CASE("journal: no fault at any system call loses, invents or repeats a request") {
    const fs::path memory = "/dev/shm"; // the disk need not be fast
    folder_path =
        (fs::exists(memory) ? memory : fs::temp_directory_path()) /
        ("promptlayer-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
    fs::create_directory(folder_path);
    journal_path = folder_path / "journal";
    for (const auto sync_after :
         {std::optional{0ms}, std::optional{500ms}, std::optional<std::chrono::milliseconds>{}})
        for (const effect injected : {effect::none, effect::fail_once, effect::fail_for_a_while,
                                      effect::die_before, effect::die_halfway, effect::die_after}) {
            bool is_reached = true;
            for (int fault = 0; is_reached; ++fault) {
                fs::remove(journal_path);
                disk under{.injected = injected, .remaining = fault};
                knowledge known;
                active = &under;
                if (auto opened = pl::file_journal::open(
                        journal_path,
                        {.max_bytes = 2'000'000, .sync_after = sync_after, .now = [&] { return known.now; }}))
                    run(**opened, known, under);
                active = nullptr;
                std::string wrong;
                if (sync_after == 0ms) {
                    if (under.durable)
                        wrong = check_content(under.synced[*under.durable], known);
                    struct stat named {};
                    if (wrong.empty() && ::stat(journal_path.c_str(), &named) == 0 && under.durable)
                        wrong = check_content(under.synced[under.ids.at(named.st_ino)], known);
                }
                if (wrong.empty())
                    wrong = check(journal_path, known, false);
                if (!wrong.empty()) {
                    INFO("sync_after " << (sync_after ? sync_after->count() : -1) << ", effect "
                                       << static_cast<int>(injected) << ", call " << fault);
                    CHECK(wrong == "");
                }
                is_reached = injected != effect::none && under.calls > fault;
            }
        }
    fs::remove_all(folder_path);
}

TEST_CASE("journal: states that could not be written are written later, the last one last") {
    for (const int failures : {1, 2, 3}) {
        journal_path = fs::temp_directory_path() / ("promptlayer-states-" + std::to_string(::getpid()));
        auto journal = pl::file_journal::open(journal_path).value();
        for (const pl::request_number number : {1u, 2u})
            REQUIRE(journal->add(number, {.path = "/p", .body = "{}", .idempotent = false}));
        disk under{.injected = effect::fail_for_a_while, .remaining = failures - 15};
        active = &under;
        journal->begin(1);
        journal->remove(1);
        active = nullptr;
        journal->maintain();
        journal.reset();
        CHECK(pl::file_journal::open(journal_path).value()->pending().size() == 1);
        fs::remove(journal_path);
    }
}
#endif
