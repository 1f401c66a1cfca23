#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#ifdef __linux__
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <fcntl.h>
#include <functional>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// The journal's system calls, which fail on demand.

struct fault {
    std::atomic<int> passed{0}, count{0}, error_number{0};

    /// Makes `times` calls fail after `first` more calls.
    void fail(int error, int times = 1, int first = 0) {
        error_number = error;
        passed = first;
        count = times;
    }
    bool takes_effect() {
        if (count == 0 || passed-- > 0)
            return false;
        passed = 0;
        --count;
        errno = error_number;
        return true;
    }
};

static fault open_fault, read_fault, write_fault, truncate_fault, rename_fault, sync_fault;
static std::atomic<int> syncs{0};
static std::function<void()> before_sync{};
static std::atomic<bool> all_locks_succeed{false};

extern "C" int open(const char* path, int flags, ...) {
    std::va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_fault.takes_effect() ? -1 : ::openat(AT_FDCWD, path, flags, mode);
}

extern "C" ssize_t read(int descriptor, void* to, std::size_t size) {
    return read_fault.takes_effect() ? -1 : ::syscall(SYS_read, descriptor, to, size);
}

extern "C" ssize_t write(int descriptor, const void* from, std::size_t size) {
    return write_fault.takes_effect() ? -1 : ::syscall(SYS_write, descriptor, from, size);
}

extern "C" int ftruncate(int descriptor, off_t size) noexcept {
    return truncate_fault.takes_effect() ? -1 : static_cast<int>(::syscall(SYS_ftruncate, descriptor, size));
}

extern "C" int rename(const char* from, const char* to) noexcept {
    return rename_fault.takes_effect() ? -1 : ::renameat(AT_FDCWD, from, AT_FDCWD, to);
}

extern "C" int flock(int descriptor, int operation) noexcept {
    return all_locks_succeed ? 0 : static_cast<int>(::syscall(SYS_flock, descriptor, operation));
}

extern "C" int fsync(int descriptor) {
    ++syncs;
    if (before_sync)
        std::exchange(before_sync, nullptr)();
    return sync_fault.takes_effect() ? -1 : static_cast<int>(::syscall(SYS_fsync, descriptor));
}
#endif

namespace pl = promptlayer;
namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test_support::status_response;
using test_support::valid_request;

namespace {

struct temporary_folder {
    fs::path path =
        fs::temp_directory_path() /
        ("promptlayer-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));

    temporary_folder() { fs::create_directory(path); }
    ~temporary_folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    fs::path file() const { return path / "journal"; }
    std::string text() const {
        std::ifstream stream{file(), std::ios::binary};
        return {std::istreambuf_iterator<char>{stream}, {}};
    }
    void write(std::string_view bytes) const { std::ofstream{file(), std::ios::binary} << bytes; }
};

std::unique_ptr<pl::file_journal> open_journal(const temporary_folder& folder,
                                               pl::file_journal_settings settings = {}) {
    auto result = pl::file_journal::open(folder.file(), std::move(settings));
    REQUIRE(result);
    return *std::move(result);
}

pl::prepared_request prepared(std::string body) { return {"/rest/track-prompt", std::move(body)}; }

/// Returns numbers and bodies of the pending requests, such as "1 a, 3 c".
std::string pending_in(pl::journal& journal) {
    std::string all;
    for (const auto& entry : journal.left())
        all += (all.empty() ? "" : ", ") + std::to_string(entry.id) + " " + entry.request.body;
    return all;
}

std::string pending_in(const temporary_folder& folder) { return pending_in(*open_journal(folder)); }

/// A journal that records its calls and can be full.
struct event_journal final : pl::journal {
    std::vector<std::string>& events;
    bool full = false;
    std::optional<std::chrono::milliseconds> tend_after{};
    explicit event_journal(std::vector<std::string>& to) : events(to) {}

    std::vector<entry> left() override { return {}; }
    pl::result<void> add(pl::outbox::id id, const pl::prepared_request&) override {
        events.push_back("added " + std::to_string(id));
        if (full)
            return pl::error{.code = pl::errc::journal_failed, .message = "is full"};
        return {};
    }
    void done(pl::outbox::id id) override { events.push_back("done " + std::to_string(id)); }
    std::optional<std::chrono::milliseconds> tend() override { return tend_after; }
};

pl::tracker_callbacks report_to(std::vector<std::string>& events) {
    return {
        .on_delivered =
            [&](pl::outbox::id id, const pl::track_response&) {
                events.push_back("delivered " + std::to_string(id));
            },
        .on_failed =
            [&](const pl::outbox::ended& ended) { events.push_back("failed " + std::to_string(ended.id)); },
        .on_undelivered = {}};
}

/// Polls and completes requests until nothing is pending.
void run_to_end(auto& tracker, pl::outbox::time_point now = pl::outbox::time_point{1h}) {
    while (tracker.poll(now) > 0)
        tracker.transport().complete_all();
}

} // namespace

TEST_CASE("journal: pending requests are returned at the next start, in order, with their age") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto settings = [&] { return pl::file_journal_settings{.now = [&] { return now; }}; };
    {
        const auto journal = open_journal(folder, settings());
        CHECK(pending_in(*journal).empty());
        REQUIRE(journal->add(1, prepared("a")));
        now += 1s;
        REQUIRE(journal->add(2, prepared("b")));
        REQUIRE(journal->add(7, prepared("")));
        journal->done(2);
        journal->done(2);
        journal->done(5); // an unknown number
    }
    now += 59s;
    {
        const auto journal = open_journal(folder, settings());
        const auto left = journal->left();
        REQUIRE(left.size() == 2);
        CHECK(left[0].id == 1);
        CHECK(left[0].request == prepared("a"));
        CHECK(left[0].age == 60s);
        CHECK(left[1].id == 7);
        CHECK(left[1].request == prepared(""));
        CHECK(left[1].age == 59s);
        CHECK(journal->left().empty());
        CHECK(journal->damaged() == 0);
    }
    now += 24h * 10'000;
    CHECK(open_journal(folder, settings())->left()[0].age == 24h * 366);
    now -= 24h * 10'001; // set back
    CHECK(open_journal(folder, settings())->left()[0].age == 0ms);
}

TEST_CASE("journal: the file is empty once every request is done") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    for (const pl::outbox::id id : {1U, 2U, 3U})
        REQUIRE(journal->add(id, prepared("abc")));
    for (const pl::outbox::id id : {2U, 1U, 3U})
        journal->done(id);
    CHECK(journal->bytes() == 0);
    CHECK(fs::file_size(folder.file()) == 0);
    REQUIRE(journal->add(4, prepared("d")));
    CHECK(fs::file_size(folder.file()) == journal->bytes());
}

TEST_CASE("journal: a second journal is rejected while the file is open") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        const auto second = pl::file_journal::open(folder.file());
        REQUIRE_FALSE(second);
        CHECK(second.error().code == pl::errc::journal_failed);
        CHECK(second.error().message.find("journal: cannot be locked") != std::string::npos);
        REQUIRE(journal->add(1, prepared("a")));
    }
    CHECK(pending_in(folder) == "1 a");
}

TEST_CASE("journal: a foreign file is rejected unchanged; an empty or torn one is accepted") {
    const temporary_folder folder;
    for (const std::string text : {"{\"prompt_name\":\"a\"}\n", "PL1", "\xFEPL1", " "}) {
        folder.write(text);
        const auto rejected = pl::file_journal::open(folder.file());
        REQUIRE_FALSE(rejected);
        CHECK(rejected.error().code == pl::errc::journal_failed);
        CHECK(folder.text() == text);
    }
    for (const std::string& text :
         {std::string{}, std::string(5000, '\0'), std::string{"\xFF"}, std::string{"\xFFPL1"}}) {
        folder.write(text);
        CHECK(pending_in(folder).empty());
        CHECK(folder.text().empty());
    }
    CHECK_FALSE(pl::file_journal::open(folder.path / "none" / "journal"));
    CHECK_FALSE(pl::file_journal::open(folder.path));
}

TEST_CASE("journal: a file cut at any byte keeps its whole records and accepts new ones") {
    const temporary_folder folder;
    std::vector<std::size_t> ends;
    {
        const auto journal = open_journal(folder);
        for (const char* body : {"a", "b", "c"}) {
            REQUIRE(journal->add(ends.size() + 1, prepared(body)));
            ends.push_back(static_cast<std::size_t>(journal->bytes()));
        }
    }
    const std::string whole = folder.text();
    REQUIRE(whole.size() == ends.back());
    for (std::size_t size = 0; size <= whole.size(); ++size) {
        folder.write(whole.substr(0, size));
        std::string expected;
        for (std::size_t i = 0; i < ends.size() && ends[i] <= size; ++i)
            expected += (i == 0 ? "" : ", ") + std::to_string(i + 1) + " " + static_cast<char>('a' + i);
        {
            const auto journal = open_journal(folder);
            CHECK(pending_in(*journal) == expected);
            CHECK(journal->damaged() == 0);
            REQUIRE(journal->add(9, prepared("later")));
        }
        CHECK(pending_in(folder) == expected + (expected.empty() ? "" : ", ") + "9 later");
    }
}

TEST_CASE("journal: a damaged byte costs only its record, which is counted") {
    const temporary_folder folder;
    std::size_t first = 0, second = 0;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("aaa")));
        first = static_cast<std::size_t>(journal->bytes());
        REQUIRE(journal->add(2, prepared("bbb")));
        second = static_cast<std::size_t>(journal->bytes());
        REQUIRE(journal->add(3, prepared("ccc")));
    }
    const std::string whole = folder.text();
    for (std::size_t at = 0; at < second; ++at) {
        for (const int bit : {0x01, 0x80}) {
            std::string damaged = whole;
            damaged[at] = static_cast<char>(damaged[at] ^ bit);
            folder.write(damaged);
            const auto journal = open_journal(folder);
            CHECK(journal->damaged() == 1);
            CHECK(pending_in(*journal) == (at < first ? "2 bbb, 3 ccc" : "1 aaa, 3 ccc"));
        }
    }
    std::string last = whole;
    last.back() = 'x';
    folder.write(last);
    {
        const auto journal = open_journal(folder);
        CHECK(journal->damaged() == 1);
        CHECK(pending_in(*journal) == "1 aaa, 2 bbb");
    }
    folder.write(whole.substr(0, first) + "something else" + whole.substr(first));
    const auto journal = open_journal(folder);
    CHECK(journal->damaged() == 1);
    CHECK(pending_in(*journal) == "1 aaa, 2 bbb, 3 ccc");
}

TEST_CASE("journal: a damaged first byte does not make the file a foreign one") {
    const temporary_folder folder;
    REQUIRE(open_journal(folder)->add(1, prepared("a")));
    std::string damaged = folder.text();
    damaged[0] = 'x';
    folder.write(damaged);
    const auto journal = open_journal(folder);
    CHECK(journal->damaged() == 1);
    CHECK(pending_in(*journal).empty());
}

TEST_CASE("journal: a record with a foreign path or number is damaged, so the key stays here") {
    const temporary_folder folder;
    using record = pl::detail::journal_record;
    const auto record_text = [](pl::outbox::id id, std::string_view path) {
        return record{.id = id, .done = false, .path = path, .body = "b"}.text();
    };
    const pl::outbox::id largest = ~pl::outbox::id{0};
    folder.write(record_text(0, "/p") + record_text(largest, "/p") + record_text(1, "@evil.example/") +
                 record_text(2, "/a\r\nb") + record_text(3, "/a b") + record_text(4, "") +
                 record_text(5, "/p"));
    const auto journal = open_journal(folder);
    CHECK(journal->damaged() == 6);
    CHECK(pending_in(*journal) == "5 b");
}

TEST_CASE("journal: a record of impossible size is damaged") {
    const temporary_folder folder;
    using record = pl::detail::journal_record;
    for (const std::size_t size : {0U, 7U, 9U, 19U}) {
        std::string checked;
        record::put(checked, size, 4);
        checked.append(size, 'x');
        std::string bytes{record::marker};
        record::put(bytes, pl::detail::crc32(checked), 4);
        folder.write(bytes + checked);
        const auto journal = open_journal(folder);
        CHECK(journal->damaged() == 1);
        CHECK(pending_in(*journal).empty());
    }
    CHECK(pl::detail::crc32("123456789") == 0xCBF43926U);
}

TEST_CASE("journal: compaction bounds a growing file and keeps pending requests") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("first")));
        std::uint64_t largest = 0;
        for (pl::outbox::id id = 2; id < 5'000; ++id) {
            REQUIRE(journal->add(id, prepared(std::string(200, 'x'))));
            if (id != 2'500)
                journal->done(id);
            largest = std::max(largest, journal->bytes());
            journal->tend();
        }
        CHECK(largest > 64 * 1024);
        CHECK(largest < 80 * 1024);
        REQUIRE(journal->add(9'999, prepared("last")));
        journal->done(2'500);
        CHECK(fs::file_size(folder.file()) == journal->bytes());
    }
    CHECK_FALSE(fs::exists(folder.path / "journal.new"));
    CHECK(pending_in(folder) == "1 first, 9999 last");
}

TEST_CASE("journal: the remains of an interrupted compaction are removed") {
    const temporary_folder folder;
    REQUIRE(open_journal(folder)->add(1, prepared("a")));
    std::ofstream{folder.path / "journal.new"} << "half";
    CHECK(pending_in(folder) == "1 a");
    CHECK_FALSE(fs::exists(folder.path / "journal.new"));
}

TEST_CASE("journal: requests added and done during a compaction are not lost") {
    const temporary_folder folder;
    std::string expected;
    {
        const auto journal = open_journal(folder);
        std::atomic<bool> ends{false};
        std::thread maintenance{[&] {
            while (!ends)
                journal->tend();
        }};
        REQUIRE(journal->add(1, prepared("1")));
        for (pl::outbox::id id = 2; id < 20'000; ++id) {
            CHECK(journal->add(id, prepared(std::to_string(id))));
            if (id % 1'000 != 0)
                journal->done(id);
        }
        ends = true;
        maintenance.join();
        CHECK(journal->bytes() < 1'000'000);
    }
    expected = "1 1";
    for (int id = 1'000; id < 20'000; id += 1'000)
        expected += ", " + std::to_string(id) + " " + std::to_string(id);
    CHECK(pending_in(folder) == expected);
}

TEST_CASE("journal: the file stays within its limit; a request that does not fit is an error") {
    const temporary_folder folder;
    const auto journal = open_journal(folder, {.max_bytes = 1'000});
    pl::outbox::id id = 0;
    pl::result<void> added{};
    while ((added = journal->add(++id, prepared("abc"))))
        REQUIRE(id < 100);
    CHECK(added.error().code == pl::errc::journal_failed);
    CHECK(added.error().message.find("is full") != std::string::npos);
    CHECK(id > 10);
    journal->done(id); // this one was not added
    for (pl::outbox::id other = 1; other < id; ++other) {
        journal->done(other);
        CHECK(fs::file_size(folder.file()) <= 1'000);
    }
    CHECK(journal->bytes() == 0);
    const std::size_t most = 1'000 - 20 - 32 - std::string_view{"/rest/track-prompt"}.size();
    CHECK_FALSE(journal->add(500, prepared(std::string(most + 1, 'x'))));
    CHECK(journal->add(501, prepared(std::string(most, 'x'))));
}

TEST_CASE("journal: compaction runs before finished requests fill the file") {
    const temporary_folder folder;
    for (const std::uint64_t most : {10'000U, 200'000U}) {
        const auto journal = open_journal(folder, {.max_bytes = most});
        REQUIRE(journal->add(1, prepared(std::string(static_cast<std::size_t>(most) / 2, 'x'))));
        for (pl::outbox::id id = 2; id < 3'000; ++id) {
            REQUIRE(journal->add(id, prepared(std::string(200, 'x'))));
            journal->done(id);
            journal->tend();
        }
        journal->done(1);
    }
}

TEST_CASE("journal: the file stays locked and in place when the working directory changes") {
    const temporary_folder folder, other;
    const fs::path before = fs::current_path();
    fs::current_path(folder.path);
    {
        auto relative = pl::file_journal::open("journal");
        fs::current_path(other.path);
        other.write("of the user");
        REQUIRE(relative);
        pl::file_journal& journal = **relative;
        REQUIRE(journal.add(1, prepared("a")));
        REQUIRE(journal.add(2, prepared(std::string(200'000, 'x'))));
        journal.done(2);
        journal.tend();
        CHECK(journal.bytes() < 100);
        CHECK_FALSE(pl::file_journal::open(folder.path / ".." / folder.path.filename() / "journal"));
    }
    fs::current_path(before);
    CHECK(other.text() == "of the user");
    CHECK(pending_in(folder) == "1 a");
    CHECK_FALSE(pl::file_journal::open(""));
}

TEST_CASE("journal: a path without a file name is rejected, and no lock file is created") {
    const temporary_folder folder;
    const fs::path before = fs::current_path();
    fs::current_path(folder.path);
    for (const fs::path& path : {fs::path{}, folder.path, folder.path / "", fs::path{"."}, fs::path{".."}}) {
        const auto rejected = pl::file_journal::open(path);
        REQUIRE_FALSE(rejected);
        CHECK(rejected.error().message.find("is not a file") != std::string::npos);
    }
    fs::current_path(before);
    CHECK(fs::is_empty(folder.path));
    CHECK_FALSE(fs::exists(fs::path{folder.path} += ".lock"));
}

TEST_CASE("journal: tend returns the time until its next call, even if the clock is set back") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto with = [&](std::optional<std::chrono::milliseconds> sync_after) {
        return pl::file_journal_settings{.sync_after = sync_after, .now = [&] { return now; }};
    };
    for (const auto never_or_each : {std::optional<std::chrono::milliseconds>{}, std::optional{0ms}}) {
        const auto journal = open_journal(folder, with(never_or_each));
        REQUIRE(journal->add(1, prepared("a")));
        CHECK_FALSE(journal->tend());
        journal->done(1);
    }
    const auto journal = open_journal(folder, with(1s));
    CHECK_FALSE(journal->tend());
    REQUIRE(journal->add(1, prepared("a")));
    CHECK(journal->tend() == 1s);
    now += 400ms;
    REQUIRE(journal->add(2, prepared("b")));
    CHECK(journal->tend() == 600ms);
    now += 600ms;
    CHECK_FALSE(journal->tend());
    REQUIRE(journal->add(3, prepared("c")));
    now -= 1h;
    CHECK_FALSE(journal->tend());
}

#ifdef __linux__

TEST_CASE("journal: a pipe or a device is rejected") {
    const temporary_folder folder;
    REQUIRE(::mkfifo(folder.file().c_str(), 0600) == 0);
    CHECK(pl::file_journal::open(folder.file()).error().message.find("is not a file") != std::string::npos);
    CHECK_FALSE(pl::file_journal::open("/dev/zero"));
}

TEST_CASE("journal: a symbolic link beside the file is not followed") {
    const temporary_folder folder;
    std::ofstream{folder.path / "victim"} << "mine";
    const auto journal = open_journal(folder);
    fs::create_symlink(folder.path / "victim", folder.path / "journal.new");
    REQUIRE(journal->add(1, prepared("a")));
    REQUIRE(journal->add(2, prepared(std::string(200'000, 'x'))));
    journal->done(2);
    journal->tend();
    CHECK(journal->bytes() < 100);
    CHECK(fs::is_regular_file(fs::symlink_status(folder.file())));
    std::string mine;
    std::ifstream{folder.path / "victim"} >> mine;
    CHECK(mine == "mine");
}

TEST_CASE("journal: its files are private to the user, whatever the umask") {
    const temporary_folder folder;
    const auto before = ::umask(0);
    {
        const auto journal = open_journal(folder);
        ::umask(before);
        REQUIRE(journal->add(1, prepared(std::string(70'000, 'x'))));
        REQUIRE(journal->add(2, prepared("b")));
        journal->done(1);
        journal->tend(); // a new file
        CHECK(journal->bytes() < 100);
    }
    for (const char* name : {"journal", "journal.lock"}) {
        struct stat status {};
        REQUIRE(::stat((folder.path / name).c_str(), &status) == 0);
        CHECK((status.st_mode & 0777U) == 0600U);
    }
}

TEST_CASE("journal: a full disk is an error and loses no other request") {
    const temporary_folder folder;
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        REQUIRE(journal->add(2, prepared("b")));
        rlimit limited = unlimited;
        limited.rlim_cur = static_cast<rlim_t>(journal->bytes()) + 25; // a part of the next record fits
        ::setrlimit(RLIMIT_FSIZE, &limited);
        const auto rejected = journal->add(3, prepared("c"));
        journal->done(1); // fits
        journal->done(2); // empties the file
        CHECK(journal->bytes() == 0);
        REQUIRE(journal->add(4, prepared("d")));
        REQUIRE(journal->add(5, prepared("e")));
        CHECK_FALSE(journal->add(6, prepared("f")));
        CHECK_FALSE(journal->add(7, prepared("g")));
        journal->done(4);
        ::setrlimit(RLIMIT_FSIZE, &unlimited);
        REQUIRE_FALSE(rejected);
        CHECK(rejected.error().code == pl::errc::journal_failed);
        CHECK(rejected.error().message.find("cannot be written") != std::string::npos);
        CHECK(fs::file_size(folder.file()) == journal->bytes());
        REQUIRE(journal->add(8, prepared("h")));
    }
    CHECK(pending_in(folder) == "5 e, 8 h");
}

TEST_CASE("journal: a compaction without disk space keeps the file and is retried later") {
    const temporary_folder folder;
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    std::signal(SIGXFSZ, SIG_IGN);
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        REQUIRE(journal->add(2, prepared(std::string(200'000, 'x'))));
        journal->done(2);
        rlimit limited = unlimited;
        limited.rlim_cur = 10;
        ::setrlimit(RLIMIT_FSIZE, &limited);
        journal->tend();
        CHECK(journal->bytes() > 200'000);
        ::setrlimit(RLIMIT_FSIZE, &unlimited);
        journal->tend(); // not again at once
        CHECK(journal->bytes() > 200'000);
        REQUIRE(journal->add(3, prepared(std::string(70'000, 'x'))));
        journal->done(3);
        journal->tend();
        CHECK(journal->bytes() < 100);
    }
    CHECK(pending_in(folder) == "1 a");
}

TEST_CASE("journal: the disk is synced for each request, after a delay, or never") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto counted = [&](std::optional<std::chrono::milliseconds> sync_after) {
        std::string counts;
        const auto count = [&](auto&& action) {
            const int before = syncs;
            action();
            counts += std::to_string(syncs - before);
        };
        std::unique_ptr<pl::file_journal> journal;
        open_journal(folder); // the folder knows the file now
        count(
            [&] { journal = open_journal(folder, {.sync_after = sync_after, .now = [&] { return now; }}); });
        count([&] { REQUIRE(journal->add(1, prepared("a"))); });
        count([&] { REQUIRE(journal->add(2, prepared(std::string(70'000, 'x')))); });
        count([&] { journal->tend(); });
        now += 1s;
        count([&] { journal->tend(); });
        count([&] { journal->done(2); });
        count([&] { journal->tend(); }); // compacts, and syncs the new file and its folder
        REQUIRE(journal->add(3, prepared("c")));
        journal->done(1);
        count([&] { journal = nullptr; });
        fs::remove(folder.file());
        return counts;
    };
    CHECK(counted(0ms) == "11100020");
    CHECK(counted(1s) == "10001021");
    CHECK(counted(std::nullopt) == "00000000");
}

TEST_CASE("journal: a failed sync is an error for its request and is retried later") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    {
        const auto journal = open_journal(folder, {.sync_after = 0ms});
        sync_fault.fail(EIO);
        const auto added = journal->add(1, prepared("a"));
        REQUIRE_FALSE(added);
        CHECK(added.error().message.find("cannot be synced") != std::string::npos);
        journal->done(1);
        CHECK(journal->bytes() == 0);
    }
    const auto journal = open_journal(folder, {.sync_after = 1s, .now = [&] { return now; }});
    REQUIRE(journal->add(1, prepared("a")));
    now += 1s;
    sync_fault.fail(EIO);
    CHECK(journal->tend() == 1s);
    now += 1s;
    const int before = syncs;
    CHECK_FALSE(journal->tend());
    CHECK(syncs == before + 1);
}

TEST_CASE("journal: a second journal of the process is rejected even if flock always succeeds") {
    const temporary_folder folder;
    all_locks_succeed = true;
    {
        const auto journal = open_journal(folder);
        const auto second = pl::file_journal::open(folder.file());
        REQUIRE_FALSE(second);
        CHECK(second.error().message.find("cannot be locked") != std::string::npos);
        CHECK_FALSE(pl::file_journal::open(folder.file())); // the end of the second does not unlock the file
        REQUIRE(journal->add(1, prepared("a")));
    }
    CHECK(pending_in(folder) == "1 a");
    all_locks_succeed = false;
}

TEST_CASE("journal: an interrupted system call is repeated") {
    const temporary_folder folder;
    open_fault.fail(EINTR, 2);
    {
        const auto journal = open_journal(folder);
        write_fault.fail(EINTR, 2);
        REQUIRE(journal->add(1, prepared("a")));
    }
    read_fault.fail(EINTR, 2);
    CHECK(pending_in(folder) == "1 a");
    CHECK(open_fault.count + write_fault.count + read_fault.count == 0);
}

TEST_CASE("journal: a file that cannot be found, read or truncated is an error, unchanged") {
    const temporary_folder folder;
    const auto rejected = [&](const fs::path& path) {
        const auto result = pl::file_journal::open(path);
        REQUIRE_FALSE(result);
        CHECK(result.error().code == pl::errc::journal_failed);
        return result.error().message;
    };
    fs::create_symlink("loop", folder.path / "loop");
    CHECK(rejected(folder.path / "loop" / "journal").find("cannot be found: ") != std::string::npos);
    REQUIRE(open_journal(folder)->add(1, prepared("a")));
    std::ofstream{folder.file(), std::ios::app} << "torn";
    const std::string before = folder.text();
    read_fault.fail(EIO);
    CHECK(rejected(folder.file()).find("cannot be opened: ") != std::string::npos);
    truncate_fault.fail(EIO);
    CHECK(rejected(folder.file()).find("cannot be truncated: ") != std::string::npos);
    CHECK(folder.text() == before);
    CHECK(pending_in(folder) == "1 a");
}

TEST_CASE("journal: the last request is marked as done if the file cannot be emptied") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        truncate_fault.fail(EIO);
        journal->done(1);
        CHECK(journal->bytes() > 0);
    }
    CHECK(pending_in(folder).empty());
}

TEST_CASE("journal: a half-written record is overwritten, or removed at the next start") {
    const temporary_folder folder;
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    const auto add_half = [&](pl::file_journal& journal) {
        rlimit limited = unlimited;
        limited.rlim_cur = static_cast<rlim_t>(journal.bytes()) + 25;
        ::setrlimit(RLIMIT_FSIZE, &limited);
        truncate_fault.fail(EIO);
        const auto rejected = journal.add(2, prepared("b"));
        ::setrlimit(RLIMIT_FSIZE, &unlimited);
        CHECK_FALSE(rejected);
        CHECK(fs::file_size(folder.file()) == journal.bytes() + 25);
    };
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        add_half(*journal);
        REQUIRE(journal->add(3, prepared("c")));
        CHECK(fs::file_size(folder.file()) == journal->bytes());
        add_half(*journal);
    }
    const auto journal = open_journal(folder);
    CHECK(pending_in(*journal) == "1 a, 3 c");
    CHECK(journal->damaged() == 0);
    CHECK(fs::file_size(folder.file()) == journal->bytes());
}

TEST_CASE("journal: a compaction that fails at any step changes nothing and is retried later") {
    const temporary_folder folder;
    std::string expected = "1 a";
    {
        const auto journal = open_journal(folder, {.sync_after = 0ms});
        REQUIRE(journal->add(1, prepared("a")));
        REQUIRE(journal->add(2, prepared(std::string(200'000, 'x'))));
        journal->done(2);
        fault* injected = nullptr;
        SUBCASE("the file cannot be opened") { (injected = &open_fault)->fail(EMFILE); }
        SUBCASE("the copy cannot be made") { (injected = &open_fault)->fail(EMFILE, 1, 1); }
        SUBCASE("a folder has the name of the copy") {
            fs::create_directories(folder.path / "journal.new" / "full");
        }
        SUBCASE("the file cannot be read") { (injected = &read_fault)->fail(EIO); }
        SUBCASE("the copy cannot be written") { (injected = &write_fault)->fail(ENOSPC); }
        SUBCASE("the copy cannot be synced") { (injected = &sync_fault)->fail(EIO); }
        SUBCASE("a request added during the compaction cannot be copied") {
            injected = &write_fault;
            before_sync = [&] {
                REQUIRE(journal->add(3, prepared("c")));
                write_fault.fail(ENOSPC);
            };
            expected += ", 3 c";
        }
        SUBCASE("the copy with a request added during the compaction cannot be synced") {
            injected = &sync_fault;
            before_sync = [&] {
                REQUIRE(journal->add(3, prepared("c")));
                sync_fault.fail(EIO, 1, 1); // not the sync in progress
            };
            expected += ", 3 c";
        }
        SUBCASE("the copy cannot be renamed") { (injected = &rename_fault)->fail(EACCES); }
        journal->tend();
        CHECK((!injected || injected->count == 0));
        CHECK(journal->bytes() > 200'000);
        CHECK(fs::file_size(folder.file()) == journal->bytes());
        fs::remove_all(folder.path / "journal.new");
        journal->tend(); // not again at once
        CHECK(journal->bytes() > 200'000);
        REQUIRE(journal->add(4, prepared(std::string(70'000, 'x'))));
        journal->done(4);
        journal->tend();
        CHECK(journal->bytes() < 200);
        CHECK(fs::file_size(folder.file()) == journal->bytes());
    }
    CHECK(pending_in(folder) == expected);
}

TEST_CASE("journal: a file that cannot be reopened after compaction is reopened for the next add") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        REQUIRE(journal->add(2, prepared(std::string(200'000, 'x'))));
        journal->done(2);
        open_fault.fail(EMFILE, 2, 2); // the compaction opens the file and its copy first
        journal->tend();
        CHECK(journal->bytes() < 100);
        const auto rejected = journal->add(3, prepared("c"));
        REQUIRE_FALSE(rejected);
        CHECK(rejected.error().message.find("cannot be written") != std::string::npos);
        CHECK(open_fault.count == 0);
        REQUIRE(journal->add(4, prepared("d")));
    }
    CHECK(pending_in(folder) == "1 a, 4 d");
}

#endif

TEST_CASE("journal: a polled tracker delivers an earlier tracker's requests under their numbers") {
    const temporary_folder folder;
    std::vector<std::string> events;
    const auto make_tracker = [&](const char* key) {
        return std::make_unique<pl::polled_tracker<pl::testing::recording_async_transport>>(
            pl::config{.api_key = key}, pl::testing::recording_async_transport{}, report_to(events),
            pl::outbox_settings{}, open_journal(folder));
    };
    pl::outbox::time_point now{1h};
    {
        const auto tracker = make_tracker("pl_very_secret");
        for (std::int64_t id = 1; id <= 3; ++id)
            REQUIRE(tracker->track_prompt(valid_request(id)));
        tracker->poll(now, 2);
        tracker->transport().complete_all();
        tracker->poll(now, 0);
        REQUIRE(events == std::vector<std::string>{"delivered 1", "delivered 2"});
        CHECK(folder.text().find(R"("request_id":3)") != std::string::npos);
        CHECK(folder.text().find("very_secret") == std::string::npos);
    }
    const auto tracker = make_tracker("pl_other");
    CHECK(tracker->pending() == 1);
    CHECK(tracker->stats().pushed == 1);
    CHECK(tracker->track_prompt(valid_request(4)).value() == 4);
    run_to_end(*tracker, now);
    CHECK(events == std::vector<std::string>{"delivered 1", "delivered 2", "delivered 3", "delivered 4"});
    CHECK(tracker->transport().requests()[0].body.find(R"("request_id":3)") != std::string::npos);
    CHECK(fs::file_size(folder.file()) == 0);
}

TEST_CASE("journal: a background tracker delivers earlier requests while eight threads add") {
    const temporary_folder folder;
    pl::background_settings limits;
    limits.close_timeout = 0ms;
    std::vector<std::string> events;
    {
        pl::background_tracker tracker{pl::config{.api_key = "pl_key"},
                                       pl::testing::recording_transport{},
                                       {},
                                       limits,
                                       open_journal(folder)};
        tracker.pause();
        for (std::int64_t id = 1; id <= 3; ++id)
            REQUIRE(tracker.track_prompt(valid_request(id)));
        CHECK(tracker.close(0ms).size() == 3);
    }
    const auto recorded = std::make_shared<pl::testing::recording_transport>();
    pl::background_tracker tracker{
        pl::config{.api_key = "pl_key"},
        pl::transport_from([=](const pl::http_request& sent) { return recorded->send(sent); }),
        report_to(events), limits, open_journal(folder)};
    std::vector<std::thread> producers;
    for (int i = 0; i < 8; ++i)
        producers.emplace_back([&] {
            for (int k = 0; k < 100; ++k)
                CHECK(tracker.track_prompt(valid_request(100)));
        });
    for (std::thread& producer : producers)
        producer.join();
    CHECK(tracker.flush(20s));
    CHECK(tracker.stats().delivered == 803);
    CHECK(events.front() == "delivered 1");
    CHECK(recorded->requests().size() == 803);
    std::ignore = tracker.close(0ms);
    CHECK(fs::file_size(folder.file()) == 0);
}

TEST_CASE("journal: a request is done before its delivery is reported and after its failure is") {
    std::vector<std::string> events;
    const auto expected =
        std::vector<std::string>{"added 1", "done 1", "delivered 1", "added 2", "failed 2", "done 2"};
    SUBCASE("polled") {
        pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                                   pl::testing::recording_async_transport{},
                                   report_to(events),
                                   {},
                                   std::make_unique<event_journal>(events)};
        tracker.transport().respond(status_response(200));
        tracker.transport().respond(status_response(400));
        pl::outbox::time_point now{1h};
        for (int i = 0; i < 2; ++i) {
            REQUIRE(tracker.track_prompt(valid_request()));
            run_to_end(tracker, now += 1s);
        }
        CHECK(events == expected);
    }
    SUBCASE("in the background") {
        pl::testing::recording_transport recorded;
        recorded.respond(status_response(200));
        recorded.respond(status_response(400));
        pl::background_tracker tracker{pl::config{.api_key = "pl_key"},
                                       std::move(recorded),
                                       report_to(events),
                                       {},
                                       std::make_unique<event_journal>(events)};
        for (int i = 0; i < 2; ++i) {
            tracker.pause(); // or it may be completed before it is added
            REQUIRE(tracker.track_prompt(valid_request()));
            tracker.resume();
            CHECK(tracker.flush(20s));
        }
        CHECK(events == expected);
    }
}

TEST_CASE("journal: a failing journal is reported to the caller, and the request is delivered") {
    std::vector<std::string> events;
    auto full = std::make_unique<event_journal>(events);
    full->full = true;
    SUBCASE("polled") {
        pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                                   pl::testing::recording_async_transport{},
                                   report_to(events),
                                   {},
                                   std::move(full)};
        CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::journal_failed);
        run_to_end(tracker);
    }
    SUBCASE("in the background") {
        pl::background_tracker tracker{pl::config{.api_key = "pl_key"},
                                       pl::testing::recording_transport{},
                                       report_to(events),
                                       {},
                                       std::move(full)};
        tracker.pause();
        CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::journal_failed);
        tracker.resume();
        CHECK(tracker.flush(20s));
    }
    CHECK(events == std::vector<std::string>{"added 1", "done 1", "delivered 1"});
}

TEST_CASE("journal: a request that the queue rejects is not added") {
    std::vector<std::string> events;
    const auto check = [&](auto& tracker) {
        tracker.pause();
        CHECK(tracker.track_prompt(valid_request()));
        CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::queue_full);
        if constexpr (requires { tracker.close(0ms); })
            CHECK(tracker.close(0ms).size() == 1);
        else
            CHECK(tracker.close().size() == 1);
        CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::closed);
        CHECK(events == std::vector<std::string>{"added 1"});
    };
    SUBCASE("polled") {
        pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                                   pl::testing::recording_async_transport{},
                                   {},
                                   {.max_requests = 1},
                                   std::make_unique<event_journal>(events)};
        check(tracker);
    }
    SUBCASE("in the background") {
        pl::background_settings limits;
        limits.outbox.max_requests = 1;
        pl::background_tracker tracker{pl::config{.api_key = "pl_key"},
                                       pl::testing::recording_transport{},
                                       {},
                                       limits,
                                       std::make_unique<event_journal>(events)};
        check(tracker);
    }
}

TEST_CASE("journal: a request dropped for a newer one is done") {
    std::vector<std::string> events;
    pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                               pl::testing::recording_async_transport{},
                               report_to(events),
                               {.max_requests = 1, .drop_oldest = true},
                               std::make_unique<event_journal>(events)};
    REQUIRE(tracker.track_prompt(valid_request()));
    REQUIRE(tracker.track_prompt(valid_request()));
    run_to_end(tracker);
    CHECK(events ==
          std::vector<std::string>{"added 1", "added 2", "failed 1", "done 1", "done 2", "delivered 2"});
}

TEST_CASE("journal: a background tracker tends it when due and contains its exceptions") {
    struct insistent_journal final : pl::journal {
        std::mutex& mutex;
        std::condition_variable& condition;
        int& tended;

        insistent_journal(std::mutex& m, std::condition_variable& c, int& tracker)
            : mutex(m), condition(c), tended(tracker) {}
        std::vector<entry> left() override { return {}; }
        pl::result<void> add(pl::outbox::id, const pl::prepared_request&) override { return {}; }
        void done(pl::outbox::id) override {
#ifndef DOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS
            throw 1;
#endif
        }
        std::optional<std::chrono::milliseconds> tend() override {
            const std::lock_guard guard{mutex};
            ++tended;
            condition.notify_all();
            return 1ms;
        }
    };
    std::mutex mutex;
    std::condition_variable condition;
    int tended = 0;
    pl::background_tracker tracker{pl::config{.api_key = "pl_key"},
                                   pl::testing::recording_transport{},
                                   {},
                                   {},
                                   std::make_unique<insistent_journal>(mutex, condition, tended)};
    REQUIRE(tracker.track_prompt(valid_request()));
    CHECK(tracker.flush(20s));
    CHECK(tracker.stats().delivered == 1);
    std::unique_lock guard{mutex};
    CHECK(condition.wait_for(guard, 20s, [&] { return tended > 10; }));
}

TEST_CASE("journal: a background tracker does not wait for the journal if a request is due") {
    std::vector<std::string> events;
    auto journal = std::make_unique<event_journal>(events);
    journal->tend_after = 1h;
    pl::testing::recording_transport recorded;
    recorded.respond(status_response(503));
    pl::background_settings limits;
    limits.outbox.retry.initial_delay = 20ms;
    pl::background_tracker tracker{
        pl::config{.api_key = "pl_key"}, std::move(recorded), {}, limits, std::move(journal)};
    REQUIRE(tracker.track_prompt(valid_request()));
    CHECK(tracker.flush(20s));
}

TEST_CASE("journal: a background tracker tends it after an add while there was nothing to send") {
    struct slow_journal final : pl::journal {
        std::atomic<int>& tended_after_add;
        std::atomic<bool> added{false};

        explicit slow_journal(std::atomic<int>& count) : tended_after_add(count) {}
        std::vector<entry> left() override { return {}; }
        pl::result<void> add(pl::outbox::id, const pl::prepared_request&) override {
            std::this_thread::sleep_for(2ms); // time for the tracker's thread to look and to go to sleep
            added = true;
            return {};
        }
        void done(pl::outbox::id) override {}
        std::optional<std::chrono::milliseconds> tend() override {
            tended_after_add += added ? 1 : 0;
            return std::nullopt;
        }
    };
    std::atomic<int> tended{0};
    pl::background_settings limits;
    limits.close_timeout = 0ms;
    pl::background_tracker tracker{pl::config{.api_key = "pl_key"},
                                   pl::testing::recording_transport{},
                                   {},
                                   limits,
                                   std::make_unique<slow_journal>(tended)};
    tracker.pause();
    REQUIRE(tracker.track_prompt(valid_request()));
    for (int i = 0; i < 20'000 && tended == 0; ++i)
        std::this_thread::sleep_for(1ms);
    CHECK(tended > 0);
}

TEST_CASE("journal: an invalid config uses up no attempt of a pending request") {
    const temporary_folder folder;
    REQUIRE(open_journal(folder)->add(1, prepared(R"({"prompt_name":"a","request_id":1})")));
    std::vector<std::string> events;
    {
        pl::polled_tracker tracker{pl::config{},
                                   pl::testing::recording_async_transport{},
                                   report_to(events),
                                   {},
                                   open_journal(folder)};
        tracker.poll(pl::outbox::time_point{1h});
        tracker.poll(pl::outbox::time_point{1h});
        REQUIRE(tracker.paused_by());
        CHECK(tracker.paused_by()->code == pl::errc::invalid_config);
        CHECK(tracker.pending() == 1);
    }
    {
        pl::background_tracker tracker{
            pl::config{}, pl::testing::recording_transport{}, report_to(events), {}, open_journal(folder)};
        CHECK_FALSE(tracker.flush(20s));
        REQUIRE(tracker.reconfigure({.api_key = "pl_key"}));
        CHECK(tracker.flush(20s));
    }
    CHECK(events == std::vector<std::string>{"delivered 1"});
}

TEST_CASE("journal: close returns a dropped, unreported request, and the journal forgets it") {
    const temporary_folder folder;
    {
        pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                                   pl::testing::recording_async_transport{},
                                   {},
                                   {.max_requests = 1, .drop_oldest = true},
                                   open_journal(folder)};
        REQUIRE(tracker.track_prompt(valid_request()));
        REQUIRE(tracker.track_prompt(valid_request()));
        const auto left = tracker.close();
        REQUIRE(left.size() == 2);
        CHECK(left[0].id == 1);
        CHECK(left[0].fate == pl::fate::dropped);
        CHECK(left[1].id == 2);
        CHECK(left[1].fate == pl::fate::handed_back);
    }
    const auto journal = open_journal(folder)->left();
    REQUIRE(journal.size() == 1);
    CHECK(journal[0].id == 2);
}

TEST_CASE("journal: pending requests may exceed the limits; new ones wait until there is room") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        for (const pl::outbox::id id : {1U, 2U, 3U})
            REQUIRE(journal->add(id, prepared(R"({"prompt_name":"a","request_id":1})")));
    }
    std::vector<std::string> events;
    pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                               pl::testing::recording_async_transport{},
                               report_to(events),
                               {.max_requests = 2},
                               open_journal(folder)};
    CHECK(tracker.pending() == 3);
    CHECK(tracker.track_prompt(valid_request()).error().code == pl::errc::queue_full);
    pl::outbox::time_point now{1h};
    tracker.poll(now, 2);
    tracker.transport().complete_all();
    tracker.poll(now, 0);
    CHECK(tracker.pending() == 1);
    CHECK(tracker.track_prompt(valid_request()).value() == 4);
}

TEST_CASE("journal: a request pending for more than a day gets one more attempt") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto settings = [&] { return pl::file_journal_settings{.now = [&] { return now; }}; };
    REQUIRE(open_journal(folder, settings())->add(1, prepared(R"({"prompt_name":"a","request_id":1})")));
    now += 25h;
    std::vector<std::string> events;
    pl::polled_tracker tracker{pl::config{.api_key = "pl_key"},
                               pl::testing::recording_async_transport{},
                               report_to(events),
                               {},
                               open_journal(folder, settings())};
    tracker.transport().respond(status_response(503));
    run_to_end(tracker);
    CHECK(events == std::vector<std::string>{"failed 1"});
    CHECK(tracker.transport().requests().size() == 1);
    CHECK(fs::file_size(folder.file()) == 0);
}
