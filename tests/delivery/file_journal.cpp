#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>

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

// The system calls of the journal, which fail when a test says so.

struct fault {
    std::atomic<int> skipped{0}, count{0}, why{0};

    /// Makes `times` calls fail, after the next `first` ones.
    void fail(int error, int times = 1, int first = 0) {
        why = error;
        skipped = first;
        count = times;
    }
    bool strikes() {
        if (count == 0 || skipped-- > 0)
            return false;
        skipped = 0;
        --count;
        errno = why;
        return true;
    }
};

static fault open_fault, read_fault, write_fault, truncate_fault, rename_fault, sync_fault;
static std::atomic<int> syncs{0};
static std::function<void()> before_sync{};
static std::atomic<bool> locks_all{false};

extern "C" int open(const char* path, int flags, ...) {
    std::va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_fault.strikes() ? -1 : ::openat(AT_FDCWD, path, flags, mode);
}

extern "C" ssize_t read(int descriptor, void* to, std::size_t size) {
    return read_fault.strikes() ? -1 : ::syscall(SYS_read, descriptor, to, size);
}

extern "C" ssize_t write(int descriptor, const void* from, std::size_t size) {
    return write_fault.strikes() ? -1 : ::syscall(SYS_write, descriptor, from, size);
}

extern "C" int ftruncate(int descriptor, off_t size) noexcept {
    return truncate_fault.strikes() ? -1 : static_cast<int>(::syscall(SYS_ftruncate, descriptor, size));
}

extern "C" int rename(const char* from, const char* to) noexcept {
    return rename_fault.strikes() ? -1 : ::renameat(AT_FDCWD, from, AT_FDCWD, to);
}

extern "C" int flock(int descriptor, int operation) noexcept {
    return locks_all ? 0 : static_cast<int>(::syscall(SYS_flock, descriptor, operation));
}

extern "C" int fsync(int descriptor) {
    ++syncs;
    if (before_sync)
        std::exchange(before_sync, nullptr)();
    return sync_fault.strikes() ? -1 : static_cast<int>(::syscall(SYS_fsync, descriptor));
}
#endif

namespace pl = promptlayer;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

struct folder {
    fs::path path =
        fs::temp_directory_path() /
        ("promptlayer-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));

    folder() { fs::create_directory(path); }
    ~folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    fs::path file() const { return path / "journal"; }
    std::string text() const {
        std::ifstream in{file(), std::ios::binary};
        return {std::istreambuf_iterator<char>{in}, {}};
    }
    void write(std::string_view bytes) const { std::ofstream{file(), std::ios::binary} << bytes; }
};

std::unique_ptr<pl::file_journal> opened(const folder& in, pl::file_journal_settings settings = {}) {
    auto made = pl::file_journal::open(in.file(), std::move(settings));
    REQUIRE(made);
    return *std::move(made);
}

pl::prepared_request prepared(std::string body) { return {"/rest/track-prompt", std::move(body)}; }

/// Numbers and bodies of what is left: "1 a, 3 c".
std::string left_in(pl::journal& kept) {
    std::string all;
    for (const auto& one : kept.left())
        all += (all.empty() ? "" : ", ") + std::to_string(one.id) + " " + one.request.body;
    return all;
}

std::string left_in(const folder& in) { return left_in(*opened(in)); }

pl::track_prompt request(std::int64_t id = 1) { return {.prompt_name = "a", .request_id = id}; }

pl::http_response answer(int status) { return {status, {}, R"({"success":true,"message":"tracked"})"}; }

/// A journal that says what is done to it, and fails as it is told.
struct told_journal final : pl::journal {
    std::vector<std::string>& told;
    bool full = false;
    std::optional<std::chrono::milliseconds> tend_after{};
    explicit told_journal(std::vector<std::string>& to) : told(to) {}

    std::vector<entry> left() override { return {}; }
    pl::result<void> add(pl::outbox::id which, const pl::prepared_request&) override {
        told.push_back("added " + std::to_string(which));
        if (full)
            return pl::error{.code = pl::errc::journal_failed, .message = "is full"};
        return {};
    }
    void done(pl::outbox::id which) override { told.push_back("done " + std::to_string(which)); }
    std::optional<std::chrono::milliseconds> tend() override { return tend_after; }
};

pl::tracker_callbacks into(std::vector<std::string>& told) {
    return {
        .on_delivered = [&](pl::outbox::id id,
                            const pl::track_response&) { told.push_back("delivered " + std::to_string(id)); },
        .on_failed =
            [&](const pl::outbox::ended& ended) { told.push_back("failed " + std::to_string(ended.id)); },
        .on_undelivered = {}};
}

/// Polls until nothing is pending; every request that was sent is answered.
void finish(auto& tracker, pl::outbox::time_point now = pl::outbox::time_point{1h}) {
    while (tracker.poll(now) > 0)
        tracker.transport().complete_all();
}

} // namespace

TEST_CASE("journal: what was added and not done is left for the next, in order, with its age") {
    const folder in;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto settings = [&] { return pl::file_journal_settings{.now = [&] { return now; }}; };
    {
        const auto kept = opened(in, settings());
        CHECK(left_in(*kept).empty());
        REQUIRE(kept->add(1, prepared("a")));
        now += 1s;
        REQUIRE(kept->add(2, prepared("b")));
        REQUIRE(kept->add(7, prepared("")));
        kept->done(2);
        kept->done(2);
        kept->done(5); // of which it knows nothing
    }
    now += 59s;
    {
        const auto kept = opened(in, settings());
        const auto left = kept->left();
        REQUIRE(left.size() == 2);
        CHECK(left[0].id == 1);
        CHECK(left[0].request == prepared("a"));
        CHECK(left[0].age == 60s);
        CHECK(left[1].id == 7);
        CHECK(left[1].request == prepared(""));
        CHECK(left[1].age == 59s);
        CHECK(kept->left().empty());
        CHECK(kept->damaged() == 0);
    }
    now += 24h * 10'000;
    CHECK(opened(in, settings())->left()[0].age == 24h * 366);
    now -= 24h * 10'001; // set back meanwhile
    CHECK(opened(in, settings())->left()[0].age == 0ms);
}

TEST_CASE("journal: where all is done the file is empty") {
    const folder in;
    const auto kept = opened(in);
    for (const pl::outbox::id id : {1U, 2U, 3U})
        REQUIRE(kept->add(id, prepared("abc")));
    for (const pl::outbox::id id : {2U, 1U, 3U})
        kept->done(id);
    CHECK(kept->bytes() == 0);
    CHECK(fs::file_size(in.file()) == 0);
    REQUIRE(kept->add(4, prepared("d")));
    CHECK(fs::file_size(in.file()) == kept->bytes());
}

TEST_CASE("journal: no two have one file, and the next may once the first is gone") {
    const folder in;
    {
        const auto kept = opened(in);
        const auto second = pl::file_journal::open(in.file());
        REQUIRE_FALSE(second);
        CHECK(second.error().code == pl::errc::journal_failed);
        CHECK(second.error().message.find("journal: cannot be locked") != std::string::npos);
        REQUIRE(kept->add(1, prepared("a")));
    }
    CHECK(left_in(in) == "1 a");
}

TEST_CASE(
    "journal: what is no journal is refused, and left as it is; nothing, zeros or a beginning is none") {
    const folder in;
    for (const std::string text : {"{\"prompt_name\":\"a\"}\n", "PL1", "\xFEPL1", " "}) {
        in.write(text);
        const auto refused = pl::file_journal::open(in.file());
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == pl::errc::journal_failed);
        CHECK(in.text() == text);
    }
    for (const std::string& text :
         {std::string{}, std::string(5000, '\0'), std::string{"\xFF"}, std::string{"\xFFPL1"}}) {
        in.write(text);
        CHECK(left_in(in).empty());
        CHECK(in.text().empty());
    }
    CHECK_FALSE(pl::file_journal::open(in.path / "none" / "journal"));
    CHECK_FALSE(pl::file_journal::open(in.path));
}

TEST_CASE(
    "journal: wherever the file is cut, what is whole before it is kept, and what comes after it, too") {
    const folder in;
    std::vector<std::size_t> ends;
    {
        const auto kept = opened(in);
        for (const char* body : {"a", "b", "c"}) {
            REQUIRE(kept->add(ends.size() + 1, prepared(body)));
            ends.push_back(static_cast<std::size_t>(kept->bytes()));
        }
    }
    const std::string whole = in.text();
    REQUIRE(whole.size() == ends.back());
    for (std::size_t size = 0; size <= whole.size(); ++size) {
        in.write(whole.substr(0, size));
        std::string expected;
        for (std::size_t i = 0; i < ends.size() && ends[i] <= size; ++i)
            expected += (i == 0 ? "" : ", ") + std::to_string(i + 1) + " " + static_cast<char>('a' + i);
        {
            const auto kept = opened(in);
            CHECK(left_in(*kept) == expected);
            CHECK(kept->damaged() == 0);
            REQUIRE(kept->add(9, prepared("later")));
        }
        CHECK(left_in(in) == expected + (expected.empty() ? "" : ", ") + "9 later");
    }
}

TEST_CASE("journal: whichever byte is damaged, its record is skipped and counted, and the rest is kept") {
    const folder in;
    std::size_t first = 0, second = 0;
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("aaa")));
        first = static_cast<std::size_t>(kept->bytes());
        REQUIRE(kept->add(2, prepared("bbb")));
        second = static_cast<std::size_t>(kept->bytes());
        REQUIRE(kept->add(3, prepared("ccc")));
    }
    const std::string whole = in.text();
    for (std::size_t at = 0; at < second; ++at) {
        for (const int bit : {0x01, 0x80}) {
            std::string damaged = whole;
            damaged[at] = static_cast<char>(damaged[at] ^ bit);
            in.write(damaged);
            const auto kept = opened(in);
            CHECK(kept->damaged() == 1);
            CHECK(left_in(*kept) == (at < first ? "2 bbb, 3 ccc" : "1 aaa, 3 ccc"));
        }
    }
    std::string last = whole;
    last.back() = 'x';
    in.write(last);
    {
        const auto kept = opened(in);
        CHECK(kept->damaged() == 1);
        CHECK(left_in(*kept) == "1 aaa, 2 bbb");
    }
    in.write(whole.substr(0, first) + "something else" + whole.substr(first));
    const auto kept = opened(in);
    CHECK(kept->damaged() == 1);
    CHECK(left_in(*kept) == "1 aaa, 2 bbb, 3 ccc");
}

TEST_CASE("journal: a first byte that is damaged does not make it something else") {
    const folder in;
    REQUIRE(opened(in)->add(1, prepared("a")));
    std::string damaged = in.text();
    damaged[0] = 'x';
    in.write(damaged);
    const auto kept = opened(in);
    CHECK(kept->damaged() == 1);
    CHECK(left_in(*kept).empty());
}

TEST_CASE("journal: a record that no tracker has made is damaged, so that the key goes nowhere else") {
    const folder in;
    using record = pl::detail::journal_record;
    const auto made = [](pl::outbox::id which, std::string_view path) {
        return record{.id = which, .done = false, .path = path, .body = "b"}.text();
    };
    const pl::outbox::id largest = ~pl::outbox::id{0};
    in.write(made(0, "/p") + made(largest, "/p") + made(1, "@evil.example/") + made(2, "/a\r\nb") +
             made(3, "/a b") + made(4, "") + made(5, "/p"));
    const auto kept = opened(in);
    CHECK(kept->damaged() == 6);
    CHECK(left_in(*kept) == "5 b");
}

TEST_CASE("journal: a record of a size that cannot be is damaged") {
    const folder in;
    using record = pl::detail::journal_record;
    for (const std::size_t size : {0U, 7U, 9U, 19U}) {
        std::string checked;
        record::put(checked, size, 4);
        checked.append(size, 'x');
        std::string bytes{record::marker};
        record::put(bytes, pl::detail::crc32(checked), 4);
        in.write(bytes + checked);
        const auto kept = opened(in);
        CHECK(kept->damaged() == 1);
        CHECK(left_in(*kept).empty());
    }
    CHECK(pl::detail::crc32("123456789") == 0xCBF43926U);
}

TEST_CASE("journal: it is compacted as it grows, and keeps what is not done") {
    const folder in;
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("first")));
        std::uint64_t largest = 0;
        for (pl::outbox::id id = 2; id < 5'000; ++id) {
            REQUIRE(kept->add(id, prepared(std::string(200, 'x'))));
            if (id != 2'500)
                kept->done(id);
            largest = std::max(largest, kept->bytes());
            kept->tend();
        }
        CHECK(largest > 64 * 1024);
        CHECK(largest < 80 * 1024);
        REQUIRE(kept->add(9'999, prepared("last")));
        kept->done(2'500);
        CHECK(fs::file_size(in.file()) == kept->bytes());
    }
    CHECK_FALSE(fs::exists(in.path / "journal.new"));
    CHECK(left_in(in) == "1 first, 9999 last");
}

TEST_CASE("journal: what is left of a compaction that was cut short is removed") {
    const folder in;
    REQUIRE(opened(in)->add(1, prepared("a")));
    std::ofstream{in.path / "journal.new"} << "half";
    CHECK(left_in(in) == "1 a");
    CHECK_FALSE(fs::exists(in.path / "journal.new"));
}

TEST_CASE("journal: while it is compacted others add and are done, and nothing is lost") {
    const folder in;
    std::string expected;
    {
        const auto kept = opened(in);
        std::atomic<bool> ends{false};
        std::thread tending{[&] {
            while (!ends)
                kept->tend();
        }};
        REQUIRE(kept->add(1, prepared("1")));
        for (pl::outbox::id id = 2; id < 20'000; ++id) {
            CHECK(kept->add(id, prepared(std::to_string(id))));
            if (id % 1'000 != 0)
                kept->done(id);
        }
        ends = true;
        tending.join();
        CHECK(kept->bytes() < 1'000'000);
    }
    expected = "1 1";
    for (int id = 1'000; id < 20'000; id += 1'000)
        expected += ", " + std::to_string(id) + " " + std::to_string(id);
    CHECK(left_in(in) == expected);
}

TEST_CASE("journal: the file is never larger than it may be; what does not fit is an error") {
    const folder in;
    const auto kept = opened(in, {.max_bytes = 1'000});
    pl::outbox::id id = 0;
    pl::result<void> added{};
    while ((added = kept->add(++id, prepared("abc"))))
        REQUIRE(id < 100);
    CHECK(added.error().code == pl::errc::journal_failed);
    CHECK(added.error().message.find("is full") != std::string::npos);
    CHECK(id > 10);
    kept->done(id); // which was not added
    for (pl::outbox::id other = 1; other < id; ++other) {
        kept->done(other);
        CHECK(fs::file_size(in.file()) <= 1'000);
    }
    CHECK(kept->bytes() == 0);
    const std::size_t most = 1'000 - 20 - 32 - std::string_view{"/rest/track-prompt"}.size();
    CHECK_FALSE(kept->add(500, prepared(std::string(most + 1, 'x'))));
    CHECK(kept->add(501, prepared(std::string(most, 'x'))));
}

TEST_CASE("journal: it is compacted before what is done fills it") {
    const folder in;
    for (const std::uint64_t most : {10'000U, 200'000U}) {
        const auto kept = opened(in, {.max_bytes = most});
        REQUIRE(kept->add(1, prepared(std::string(static_cast<std::size_t>(most) / 2, 'x'))));
        for (pl::outbox::id id = 2; id < 3'000; ++id) {
            REQUIRE(kept->add(id, prepared(std::string(200, 'x'))));
            kept->done(id);
            kept->tend();
        }
        kept->done(1);
    }
}

TEST_CASE("journal: wherever the process goes, its file is where it was, and it is one by every name") {
    const folder in, other;
    const fs::path before = fs::current_path();
    fs::current_path(in.path);
    {
        auto relative = pl::file_journal::open("journal");
        fs::current_path(other.path);
        other.write("of the user");
        REQUIRE(relative);
        pl::file_journal& kept = **relative;
        REQUIRE(kept.add(1, prepared("a")));
        REQUIRE(kept.add(2, prepared(std::string(200'000, 'x'))));
        kept.done(2);
        kept.tend();
        CHECK(kept.bytes() < 100);
        CHECK_FALSE(pl::file_journal::open(in.path / ".." / in.path.filename() / "journal"));
    }
    fs::current_path(before);
    CHECK(other.text() == "of the user");
    CHECK(left_in(in) == "1 a");
    CHECK_FALSE(pl::file_journal::open(""));
}

TEST_CASE("journal: a path that names no file is refused, and no lock file is made") {
    const folder in;
    const fs::path before = fs::current_path();
    fs::current_path(in.path);
    for (const fs::path& path : {fs::path{}, in.path, in.path / "", fs::path{"."}, fs::path{".."}}) {
        const auto refused = pl::file_journal::open(path);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("is not a file") != std::string::npos);
    }
    fs::current_path(before);
    CHECK(fs::is_empty(in.path));
    CHECK_FALSE(fs::exists(fs::path{in.path} += ".lock"));
}

TEST_CASE("journal: it says when it is to be tended next, by the time of day, also if that is set back") {
    const folder in;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto with = [&](std::optional<std::chrono::milliseconds> sync_after) {
        return pl::file_journal_settings{.sync_after = sync_after, .now = [&] { return now; }};
    };
    for (const auto never_or_each : {std::optional<std::chrono::milliseconds>{}, std::optional{0ms}}) {
        const auto kept = opened(in, with(never_or_each));
        REQUIRE(kept->add(1, prepared("a")));
        CHECK_FALSE(kept->tend());
        kept->done(1);
    }
    const auto kept = opened(in, with(1s));
    CHECK_FALSE(kept->tend());
    REQUIRE(kept->add(1, prepared("a")));
    CHECK(kept->tend() == 1s);
    now += 400ms;
    REQUIRE(kept->add(2, prepared("b")));
    CHECK(kept->tend() == 600ms);
    now += 600ms;
    CHECK_FALSE(kept->tend());
    REQUIRE(kept->add(3, prepared("c")));
    now -= 1h;
    CHECK_FALSE(kept->tend());
}

#ifdef __linux__

TEST_CASE("journal: what is no file is refused") {
    const folder in;
    REQUIRE(::mkfifo(in.file().c_str(), 0600) == 0);
    CHECK(pl::file_journal::open(in.file()).error().message.find("is not a file") != std::string::npos);
    CHECK_FALSE(pl::file_journal::open("/dev/zero"));
}

TEST_CASE("journal: a link beside it is not written through") {
    const folder in;
    std::ofstream{in.path / "victim"} << "mine";
    const auto kept = opened(in);
    fs::create_symlink(in.path / "victim", in.path / "journal.new");
    REQUIRE(kept->add(1, prepared("a")));
    REQUIRE(kept->add(2, prepared(std::string(200'000, 'x'))));
    kept->done(2);
    kept->tend();
    CHECK(kept->bytes() < 100);
    CHECK(fs::is_regular_file(fs::symlink_status(in.file())));
    std::string mine;
    std::ifstream{in.path / "victim"} >> mine;
    CHECK(mine == "mine");
}

TEST_CASE("journal: its files are the user's alone, whatever the umask") {
    const folder in;
    const auto before = ::umask(0);
    {
        const auto kept = opened(in);
        ::umask(before);
        REQUIRE(kept->add(1, prepared(std::string(70'000, 'x'))));
        REQUIRE(kept->add(2, prepared("b")));
        kept->done(1);
        kept->tend(); // a new file
        CHECK(kept->bytes() < 100);
    }
    for (const char* name : {"journal", "journal.lock"}) {
        struct stat found {};
        REQUIRE(::stat((in.path / name).c_str(), &found) == 0);
        CHECK((found.st_mode & 0777U) == 0600U);
    }
}

TEST_CASE("journal: a disk that is full is an error, nothing before or after it is lost") {
    const folder in;
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("a")));
        REQUIRE(kept->add(2, prepared("b")));
        rlimit limited = unlimited;
        limited.rlim_cur = static_cast<rlim_t>(kept->bytes()) + 25; // a part of the next fits
        ::setrlimit(RLIMIT_FSIZE, &limited);
        const auto refused = kept->add(3, prepared("c"));
        kept->done(1); // fits
        kept->done(2); // leaves nothing
        CHECK(kept->bytes() == 0);
        REQUIRE(kept->add(4, prepared("d")));
        REQUIRE(kept->add(5, prepared("e")));
        CHECK_FALSE(kept->add(6, prepared("f")));
        CHECK_FALSE(kept->add(7, prepared("g")));
        kept->done(4);
        ::setrlimit(RLIMIT_FSIZE, &unlimited);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == pl::errc::journal_failed);
        CHECK(refused.error().message.find("cannot be written") != std::string::npos);
        CHECK(fs::file_size(in.file()) == kept->bytes());
        REQUIRE(kept->add(8, prepared("h")));
    }
    CHECK(left_in(in) == "5 e, 8 h");
}

TEST_CASE("journal: where there is no room to compact it stays as it is, and is compacted later") {
    const folder in;
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    std::signal(SIGXFSZ, SIG_IGN);
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("a")));
        REQUIRE(kept->add(2, prepared(std::string(200'000, 'x'))));
        kept->done(2);
        rlimit limited = unlimited;
        limited.rlim_cur = 10;
        ::setrlimit(RLIMIT_FSIZE, &limited);
        kept->tend();
        CHECK(kept->bytes() > 200'000);
        ::setrlimit(RLIMIT_FSIZE, &unlimited);
        kept->tend(); // not at once again
        CHECK(kept->bytes() > 200'000);
        REQUIRE(kept->add(3, prepared(std::string(70'000, 'x'))));
        kept->done(3);
        kept->tend();
        CHECK(kept->bytes() < 100);
    }
    CHECK(left_in(in) == "1 a");
}

TEST_CASE("journal: the disk is waited for with each request, after a time, or never") {
    const folder in;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto counted = [&](std::optional<std::chrono::milliseconds> sync_after) {
        std::string counts;
        const auto count = [&](auto&& action) {
            const int before = syncs;
            action();
            counts += std::to_string(syncs - before);
        };
        std::unique_ptr<pl::file_journal> kept;
        opened(in); // whose folder knows the file by now
        count([&] { kept = opened(in, {.sync_after = sync_after, .now = [&] { return now; }}); });
        count([&] { REQUIRE(kept->add(1, prepared("a"))); });
        count([&] { REQUIRE(kept->add(2, prepared(std::string(70'000, 'x')))); });
        count([&] { kept->tend(); });
        now += 1s;
        count([&] { kept->tend(); });
        count([&] { kept->done(2); });
        count([&] { kept->tend(); }); // compacts: the new file, and its folder
        REQUIRE(kept->add(3, prepared("c")));
        kept->done(1);
        count([&] { kept = nullptr; });
        fs::remove(in.file());
        return counts;
    };
    CHECK(counted(0ms) == "11100020");
    CHECK(counted(1s) == "10001021");
    CHECK(counted(std::nullopt) == "00000000");
}

TEST_CASE("journal: a disk that fails to sync is an error with each request, and tried again after a time") {
    const folder in;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    {
        const auto kept = opened(in, {.sync_after = 0ms});
        sync_fault.fail(EIO);
        const auto added = kept->add(1, prepared("a"));
        REQUIRE_FALSE(added);
        CHECK(added.error().message.find("cannot be synced") != std::string::npos);
        kept->done(1);
        CHECK(kept->bytes() == 0);
    }
    const auto kept = opened(in, {.sync_after = 1s, .now = [&] { return now; }});
    REQUIRE(kept->add(1, prepared("a")));
    now += 1s;
    sync_fault.fail(EIO);
    CHECK(kept->tend() == 1s);
    now += 1s;
    const int before = syncs;
    CHECK_FALSE(kept->tend());
    CHECK(syncs == before + 1);
}

TEST_CASE("journal: a second one of the process is refused also if flock always succeeds") {
    const folder in;
    locks_all = true;
    {
        const auto kept = opened(in);
        const auto second = pl::file_journal::open(in.file());
        REQUIRE_FALSE(second);
        CHECK(second.error().message.find("cannot be locked") != std::string::npos);
        CHECK_FALSE(pl::file_journal::open(in.file())); // the second's end does not unlock the file
        REQUIRE(kept->add(1, prepared("a")));
    }
    CHECK(left_in(in) == "1 a");
    locks_all = false;
}

TEST_CASE("journal: an interrupted system call is made again") {
    const folder in;
    open_fault.fail(EINTR, 2);
    {
        const auto kept = opened(in);
        write_fault.fail(EINTR, 2);
        REQUIRE(kept->add(1, prepared("a")));
    }
    read_fault.fail(EINTR, 2);
    CHECK(left_in(in) == "1 a");
    CHECK(open_fault.count + write_fault.count + read_fault.count == 0);
}

TEST_CASE("journal: a file that cannot be found, read or cut is an error and stays as it is") {
    const folder in;
    const auto refused = [&](const fs::path& path) {
        const auto made = pl::file_journal::open(path);
        REQUIRE_FALSE(made);
        CHECK(made.error().code == pl::errc::journal_failed);
        return made.error().message;
    };
    fs::create_symlink("loop", in.path / "loop");
    CHECK(refused(in.path / "loop" / "journal").find("cannot be found: ") != std::string::npos);
    REQUIRE(opened(in)->add(1, prepared("a")));
    std::ofstream{in.file(), std::ios::app} << "torn";
    const std::string before = in.text();
    read_fault.fail(EIO);
    CHECK(refused(in.file()).find("cannot be opened: ") != std::string::npos);
    truncate_fault.fail(EIO);
    CHECK(refused(in.file()).find("cannot be truncated: ") != std::string::npos);
    CHECK(in.text() == before);
    CHECK(left_in(in) == "1 a");
}

TEST_CASE("journal: the last request is marked as done if the file cannot be emptied") {
    const folder in;
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("a")));
        truncate_fault.fail(EIO);
        kept->done(1);
        CHECK(kept->bytes() > 0);
    }
    CHECK(left_in(in).empty());
}

TEST_CASE("journal: half a record that cannot be cut off is written over, or cut off at the next start") {
    const folder in;
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    const auto add_half = [&](pl::file_journal& kept) {
        rlimit limited = unlimited;
        limited.rlim_cur = static_cast<rlim_t>(kept.bytes()) + 25;
        ::setrlimit(RLIMIT_FSIZE, &limited);
        truncate_fault.fail(EIO);
        const auto refused = kept.add(2, prepared("b"));
        ::setrlimit(RLIMIT_FSIZE, &unlimited);
        CHECK_FALSE(refused);
        CHECK(fs::file_size(in.file()) == kept.bytes() + 25);
    };
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("a")));
        add_half(*kept);
        REQUIRE(kept->add(3, prepared("c")));
        CHECK(fs::file_size(in.file()) == kept->bytes());
        add_half(*kept);
    }
    const auto kept = opened(in);
    CHECK(left_in(*kept) == "1 a, 3 c");
    CHECK(kept->damaged() == 0);
    CHECK(fs::file_size(in.file()) == kept->bytes());
}

TEST_CASE("journal: a compaction that fails at any step changes nothing, and is tried again later") {
    const folder in;
    std::string expected = "1 a";
    {
        const auto kept = opened(in, {.sync_after = 0ms});
        REQUIRE(kept->add(1, prepared("a")));
        REQUIRE(kept->add(2, prepared(std::string(200'000, 'x'))));
        kept->done(2);
        fault* injected = nullptr;
        SUBCASE("the file cannot be opened") { (injected = &open_fault)->fail(EMFILE); }
        SUBCASE("the copy cannot be made") { (injected = &open_fault)->fail(EMFILE, 1, 1); }
        SUBCASE("a folder is in the place of the copy") {
            fs::create_directories(in.path / "journal.new" / "full");
        }
        SUBCASE("the file cannot be read") { (injected = &read_fault)->fail(EIO); }
        SUBCASE("the copy cannot be written") { (injected = &write_fault)->fail(ENOSPC); }
        SUBCASE("the copy cannot be synced") { (injected = &sync_fault)->fail(EIO); }
        SUBCASE("a request that was added meanwhile cannot be copied") {
            injected = &write_fault;
            before_sync = [&] {
                REQUIRE(kept->add(3, prepared("c")));
                write_fault.fail(ENOSPC);
            };
            expected += ", 3 c";
        }
        SUBCASE("the copy with a request that was added meanwhile cannot be synced") {
            injected = &sync_fault;
            before_sync = [&] {
                REQUIRE(kept->add(3, prepared("c")));
                sync_fault.fail(EIO, 1, 1); // not the sync that waits for this
            };
            expected += ", 3 c";
        }
        SUBCASE("the copy cannot be renamed") { (injected = &rename_fault)->fail(EACCES); }
        kept->tend();
        CHECK((!injected || injected->count == 0));
        CHECK(kept->bytes() > 200'000);
        CHECK(fs::file_size(in.file()) == kept->bytes());
        fs::remove_all(in.path / "journal.new");
        kept->tend(); // not at once again
        CHECK(kept->bytes() > 200'000);
        REQUIRE(kept->add(4, prepared(std::string(70'000, 'x'))));
        kept->done(4);
        kept->tend();
        CHECK(kept->bytes() < 200);
        CHECK(fs::file_size(in.file()) == kept->bytes());
    }
    CHECK(left_in(in) == expected);
}

TEST_CASE("journal: a file that cannot be opened after its compaction is opened for the next request") {
    const folder in;
    {
        const auto kept = opened(in);
        REQUIRE(kept->add(1, prepared("a")));
        REQUIRE(kept->add(2, prepared(std::string(200'000, 'x'))));
        kept->done(2);
        open_fault.fail(EMFILE, 2, 2); // the compaction opens the file and its copy before
        kept->tend();
        CHECK(kept->bytes() < 100);
        const auto refused = kept->add(3, prepared("c"));
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("cannot be written") != std::string::npos);
        CHECK(open_fault.count == 0);
        REQUIRE(kept->add(4, prepared("d")));
    }
    CHECK(left_in(in) == "1 a, 4 d");
}

#endif

TEST_CASE("journal: a polled tracker delivers what an earlier one left, under the same numbers; the key is "
          "nowhere") {
    const folder in;
    std::vector<std::string> told;
    const auto tracker = [&](const char* key) {
        return std::make_unique<pl::polled_tracker<pl::testing::recording_async_transport>>(
            pl::config{.api_key = key}, pl::testing::recording_async_transport{}, into(told),
            pl::outbox_settings{}, opened(in));
    };
    pl::outbox::time_point now{1h};
    {
        const auto t = tracker("pl_very_secret");
        for (std::int64_t id = 1; id <= 3; ++id)
            REQUIRE(t->track_prompt(request(id)));
        t->poll(now, 2);
        t->transport().complete_all();
        t->poll(now, 0);
        REQUIRE(told == std::vector<std::string>{"delivered 1", "delivered 2"});
        CHECK(in.text().find(R"("request_id":3)") != std::string::npos);
        CHECK(in.text().find("very_secret") == std::string::npos);
    }
    const auto t = tracker("pl_other");
    CHECK(t->pending() == 1);
    CHECK(t->stats().pushed == 1);
    CHECK(t->track_prompt(request(4)).value() == 4);
    finish(*t, now);
    CHECK(told == std::vector<std::string>{"delivered 1", "delivered 2", "delivered 3", "delivered 4"});
    CHECK(t->transport().requests()[0].body.find(R"("request_id":3)") != std::string::npos);
    CHECK(fs::file_size(in.file()) == 0);
}

TEST_CASE("journal: a background tracker delivers what an earlier one left, and eight threads add to it") {
    const folder in;
    pl::background_settings limits;
    limits.close_timeout = 0ms;
    std::vector<std::string> told;
    {
        pl::background_tracker t{
            pl::config{.api_key = "pl_key"}, pl::testing::recording_transport{}, {}, limits, opened(in)};
        t.pause();
        for (std::int64_t id = 1; id <= 3; ++id)
            REQUIRE(t.track_prompt(request(id)));
        CHECK(t.close(0ms).size() == 3);
    }
    const auto recorded = std::make_shared<pl::testing::recording_transport>();
    pl::background_tracker t{
        pl::config{.api_key = "pl_key"},
        pl::transport_from([=](const pl::http_request& sent) { return recorded->send(sent); }), into(told),
        limits, opened(in)};
    std::vector<std::thread> producers;
    for (int i = 0; i < 8; ++i)
        producers.emplace_back([&] {
            for (int k = 0; k < 100; ++k)
                CHECK(t.track_prompt(request(100)));
        });
    for (std::thread& producer : producers)
        producer.join();
    CHECK(t.flush(20s));
    CHECK(t.stats().delivered == 803);
    CHECK(told.front() == "delivered 1");
    CHECK(recorded->requests().size() == 803);
    std::ignore = t.close(0ms);
    CHECK(fs::file_size(in.file()) == 0);
}

TEST_CASE("journal: a request is marked before its delivery is told, and after its failure is") {
    std::vector<std::string> told;
    const auto expected =
        std::vector<std::string>{"added 1", "done 1", "delivered 1", "added 2", "failed 2", "done 2"};
    SUBCASE("polled") {
        pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                             pl::testing::recording_async_transport{},
                             into(told),
                             {},
                             std::make_unique<told_journal>(told)};
        t.transport().respond(answer(200));
        t.transport().respond(answer(400));
        pl::outbox::time_point now{1h};
        for (int i = 0; i < 2; ++i) {
            REQUIRE(t.track_prompt(request()));
            finish(t, now += 1s);
        }
        CHECK(told == expected);
    }
    SUBCASE("in the background") {
        pl::testing::recording_transport recorded;
        recorded.respond(answer(200));
        recorded.respond(answer(400));
        pl::background_tracker t{pl::config{.api_key = "pl_key"},
                                 std::move(recorded),
                                 into(told),
                                 {},
                                 std::make_unique<told_journal>(told)};
        for (int i = 0; i < 2; ++i) {
            t.pause(); // or it might be answered before it is added
            REQUIRE(t.track_prompt(request()));
            t.resume();
            CHECK(t.flush(20s));
        }
        CHECK(told == expected);
    }
}

TEST_CASE("journal: one that fails is an error for the caller, and the request is delivered all the same") {
    std::vector<std::string> told;
    auto full = std::make_unique<told_journal>(told);
    full->full = true;
    SUBCASE("polled") {
        pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                             pl::testing::recording_async_transport{},
                             into(told),
                             {},
                             std::move(full)};
        CHECK(t.track_prompt(request()).error().code == pl::errc::journal_failed);
        finish(t);
    }
    SUBCASE("in the background") {
        pl::background_tracker t{pl::config{.api_key = "pl_key"},
                                 pl::testing::recording_transport{},
                                 into(told),
                                 {},
                                 std::move(full)};
        t.pause();
        CHECK(t.track_prompt(request()).error().code == pl::errc::journal_failed);
        t.resume();
        CHECK(t.flush(20s));
    }
    CHECK(told == std::vector<std::string>{"added 1", "done 1", "delivered 1"});
}

TEST_CASE("journal: a request that the queue refuses is not added") {
    std::vector<std::string> told;
    const auto check = [&](auto& tracker) {
        tracker.pause();
        CHECK(tracker.track_prompt(request()));
        CHECK(tracker.track_prompt(request()).error().code == pl::errc::queue_full);
        if constexpr (requires { tracker.close(0ms); })
            CHECK(tracker.close(0ms).size() == 1);
        else
            CHECK(tracker.close().size() == 1);
        CHECK(tracker.track_prompt(request()).error().code == pl::errc::closed);
        CHECK(told == std::vector<std::string>{"added 1"});
    };
    SUBCASE("polled") {
        pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                             pl::testing::recording_async_transport{},
                             {},
                             {.max_requests = 1},
                             std::make_unique<told_journal>(told)};
        check(t);
    }
    SUBCASE("in the background") {
        pl::background_settings limits;
        limits.outbox.max_requests = 1;
        pl::background_tracker t{pl::config{.api_key = "pl_key"},
                                 pl::testing::recording_transport{},
                                 {},
                                 limits,
                                 std::make_unique<told_journal>(told)};
        check(t);
    }
}

TEST_CASE("journal: what is dropped for a newer one is done") {
    std::vector<std::string> told;
    pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                         pl::testing::recording_async_transport{},
                         into(told),
                         {.max_requests = 1, .drop_oldest = true},
                         std::make_unique<told_journal>(told)};
    REQUIRE(t.track_prompt(request()));
    REQUIRE(t.track_prompt(request()));
    finish(t);
    CHECK(told ==
          std::vector<std::string>{"added 1", "added 2", "failed 1", "done 1", "done 2", "delivered 2"});
}

TEST_CASE(
    "journal: a background tracker tends it when it wants to be tended, and what it throws harms nothing") {
    struct wants final : pl::journal {
        std::mutex& mutex;
        std::condition_variable& changed;
        int& tended;

        wants(std::mutex& m, std::condition_variable& c, int& t) : mutex(m), changed(c), tended(t) {}
        std::vector<entry> left() override { return {}; }
        pl::result<void> add(pl::outbox::id, const pl::prepared_request&) override { return {}; }
        void done(pl::outbox::id) override {
#ifndef DOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS
            throw 1;
#endif
        }
        std::optional<std::chrono::milliseconds> tend() override {
            const std::lock_guard held{mutex};
            ++tended;
            changed.notify_all();
            return 1ms;
        }
    };
    std::mutex mutex;
    std::condition_variable changed;
    int tended = 0;
    pl::background_tracker t{pl::config{.api_key = "pl_key"},
                             pl::testing::recording_transport{},
                             {},
                             {},
                             std::make_unique<wants>(mutex, changed, tended)};
    REQUIRE(t.track_prompt(request()));
    CHECK(t.flush(20s));
    CHECK(t.stats().delivered == 1);
    std::unique_lock held{mutex};
    CHECK(changed.wait_for(held, 20s, [&] { return tended > 10; }));
}

TEST_CASE("journal: a background tracker does not wait for the journal where a request is due before") {
    std::vector<std::string> told;
    auto kept = std::make_unique<told_journal>(told);
    kept->tend_after = 1h;
    pl::testing::recording_transport recorded;
    recorded.respond(answer(503));
    pl::background_settings limits;
    limits.outbox.retry.initial_delay = 20ms;
    pl::background_tracker t{
        pl::config{.api_key = "pl_key"}, std::move(recorded), {}, limits, std::move(kept)};
    REQUIRE(t.track_prompt(request()));
    CHECK(t.flush(20s));
}

TEST_CASE("journal: a background tracker tends it after what was added while it had nothing to send") {
    struct slow final : pl::journal {
        std::atomic<int>& tended_after_add;
        std::atomic<bool> added{false};

        explicit slow(std::atomic<int>& count) : tended_after_add(count) {}
        std::vector<entry> left() override { return {}; }
        pl::result<void> add(pl::outbox::id, const pl::prepared_request&) override {
            std::this_thread::sleep_for(2ms); // in which the tracker's thread looks, and goes to sleep
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
    pl::background_tracker t{pl::config{.api_key = "pl_key"},
                             pl::testing::recording_transport{},
                             {},
                             limits,
                             std::make_unique<slow>(tended)};
    t.pause();
    REQUIRE(t.track_prompt(request()));
    for (int i = 0; i < 20'000 && tended == 0; ++i)
        std::this_thread::sleep_for(1ms);
    CHECK(tended > 0);
}

TEST_CASE("journal: a config that is bad burns nothing of what is left") {
    const folder in;
    REQUIRE(opened(in)->add(1, prepared(R"({"prompt_name":"a","request_id":1})")));
    std::vector<std::string> told;
    {
        pl::polled_tracker t{
            pl::config{}, pl::testing::recording_async_transport{}, into(told), {}, opened(in)};
        t.poll(pl::outbox::time_point{1h});
        t.poll(pl::outbox::time_point{1h});
        REQUIRE(t.paused_by());
        CHECK(t.paused_by()->code == pl::errc::invalid_config);
        CHECK(t.pending() == 1);
    }
    {
        pl::background_tracker t{
            pl::config{}, pl::testing::recording_transport{}, into(told), {}, opened(in)};
        CHECK_FALSE(t.flush(20s));
        REQUIRE(t.reconfigure({.api_key = "pl_key"}));
        CHECK(t.flush(20s));
    }
    CHECK(told == std::vector<std::string>{"delivered 1"});
}

TEST_CASE("journal: what was dropped and not yet told is given back by close, and not kept") {
    const folder in;
    {
        pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                             pl::testing::recording_async_transport{},
                             {},
                             {.max_requests = 1, .drop_oldest = true},
                             opened(in)};
        REQUIRE(t.track_prompt(request()));
        REQUIRE(t.track_prompt(request()));
        const auto left = t.close();
        REQUIRE(left.size() == 2);
        CHECK(left[0].id == 1);
        CHECK(left[0].fate == pl::fate::dropped);
        CHECK(left[1].id == 2);
        CHECK(left[1].fate == pl::fate::handed_back);
    }
    const auto kept = opened(in)->left();
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].id == 2);
}

TEST_CASE("journal: what it has left is taken in whatever the limits, and no more until there is room") {
    const folder in;
    {
        const auto kept = opened(in);
        for (const pl::outbox::id id : {1U, 2U, 3U})
            REQUIRE(kept->add(id, prepared(R"({"prompt_name":"a","request_id":1})")));
    }
    std::vector<std::string> told;
    pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                         pl::testing::recording_async_transport{},
                         into(told),
                         {.max_requests = 2},
                         opened(in)};
    CHECK(t.pending() == 3);
    CHECK(t.track_prompt(request()).error().code == pl::errc::queue_full);
    pl::outbox::time_point now{1h};
    t.poll(now, 2);
    t.transport().complete_all();
    t.poll(now, 0);
    CHECK(t.pending() == 1);
    CHECK(t.track_prompt(request()).value() == 4);
}

TEST_CASE("journal: a request that was left for more than a day is sent once more, and then given up") {
    const folder in;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto settings = [&] { return pl::file_journal_settings{.now = [&] { return now; }}; };
    REQUIRE(opened(in, settings())->add(1, prepared(R"({"prompt_name":"a","request_id":1})")));
    now += 25h;
    std::vector<std::string> told;
    pl::polled_tracker t{pl::config{.api_key = "pl_key"},
                         pl::testing::recording_async_transport{},
                         into(told),
                         {},
                         opened(in, settings())};
    t.transport().respond(answer(503));
    finish(t);
    CHECK(told == std::vector<std::string>{"failed 1"});
    CHECK(t.transport().requests().size() == 1);
    CHECK(fs::file_size(in.file()) == 0);
}
