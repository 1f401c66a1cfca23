#include <promptlayer/file_journal.hpp>
#include <promptlayer/journal.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#ifdef __linux__
#include "../support/child_process.hpp"

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <fcntl.h>
#include <functional>
#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
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

static fault open_fault, status_fault, read_fault, write_fault, empty_write_fault, truncate_fault,
    rename_fault, sync_fault;
static std::atomic<int> syncs{0};
static std::atomic<std::thread::id> last_syncing{};
static thread_local int truncations = 0; // calls on this thread
static std::atomic<std::uint64_t> bytes_read{0};
static std::function<void()> before_sync{}, before_open{}, after_open{};
static std::atomic<bool> all_locks_succeed{false};

extern "C" int open(const char* path, int flags, ...) {
    std::va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (before_open)
        std::exchange(before_open, nullptr)();
    const int descriptor = open_fault.takes_effect() ? -1 : ::openat(AT_FDCWD, path, flags, mode);
    if (after_open)
        std::exchange(after_open, nullptr)();
    return descriptor;
}

extern "C" int fstat(int descriptor, struct stat* status) noexcept {
    return status_fault.takes_effect() ? -1 : ::fstatat(descriptor, "", status, AT_EMPTY_PATH);
}

extern "C" ssize_t pread(int descriptor, void* to, std::size_t size, off_t offset) {
    const iovec block{to, size};
    const ssize_t count = read_fault.takes_effect() ? -1 : ::preadv(descriptor, &block, 1, offset);
    bytes_read += static_cast<std::uint64_t>(std::max<ssize_t>(count, 0));
    return count;
}

extern "C" ssize_t pwrite(int descriptor, const void* from, std::size_t size, off_t offset) {
    const iovec block{const_cast<void*>(from), size};
    if (empty_write_fault.takes_effect())
        return 0;
    return write_fault.takes_effect() ? -1 : ::pwritev(descriptor, &block, 1, offset);
}

extern "C" int ftruncate(int descriptor, off_t size) noexcept {
    ++truncations;
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
    last_syncing = std::this_thread::get_id();
    if (before_sync)
        std::exchange(before_sync, nullptr)();
    return sync_fault.takes_effect() ? -1 : static_cast<int>(::syscall(SYS_fsync, descriptor));
}
#endif

namespace pl = promptlayer;
namespace fs = std::filesystem;
using namespace std::chrono_literals;
using record = pl::detail::journal_record;

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

std::unique_ptr<pl::file_journal> open_journal(const fs::path& path,
                                               pl::file_journal_settings settings = {}) {
    auto result = pl::file_journal::open(path, std::move(settings));
    INFO(path.string());
    REQUIRE(result);
    return *std::move(result);
}

std::unique_ptr<pl::file_journal> open_journal(const temporary_folder& folder,
                                               pl::file_journal_settings settings = {}) {
    return open_journal(folder.file(), std::move(settings));
}

/// Returns the message with which `open` refuses the path.
std::string rejection(const fs::path& path) {
    const auto rejected = pl::file_journal::open(path);
    REQUIRE_FALSE(rejected);
    CHECK(rejected.error().code == pl::errc::journal_failed);
    return rejected.error().message;
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

pl::prepared_request prepared(std::string body) { return {"/rest/track-prompt", std::move(body)}; }

/// Returns a whole record.
std::string record_text(pl::request_number number, std::string_view path, std::string_view body) {
    return record{.path_size = path.size(),
                  .body_size = body.size(),
                  .number = number,
                  .content_crc = pl::detail::crc32(body, pl::detail::crc32(path))}
        .head()
        .append(path)
        .append(body);
}

/// Returns numbers and bodies of the pending requests, such as "1 a, 3 c".
std::string pending_in(pl::journal& journal) {
    std::string all;
    for (const auto& entry : journal.pending())
        all += (all.empty() ? "" : ", ") + std::to_string(entry.number) + " " + entry.request.body;
    return all;
}

std::string pending_in(const temporary_folder& folder) { return pending_in(*open_journal(folder)); }

/// Calls `maintain` until no work is left. Returns its last result.
std::optional<std::chrono::milliseconds> maintain(pl::journal& journal) {
    for (;;) {
        const auto wait = journal.maintain();
        if (!wait || *wait > 10ms)
            return wait;
        std::this_thread::yield();
    }
}

constexpr std::uint64_t empty = record::header_size;

/// A journal in memory: for a program that hands over its requests to another journal, or for tests.
class own_journal final : public pl::journal {
    std::mutex mutex_{};
    std::map<pl::request_number, entry> entries_{};

public:
    std::vector<entry> pending() override { return {}; }
    pl::result<void> add(pl::request_number number, const pl::prepared_request& request) override {
        const std::lock_guard guard{mutex_};
        entries_.insert_or_assign(number, entry{.number = number, .request = request});
        return {};
    }
    void begin(pl::request_number number) override {
        const std::lock_guard guard{mutex_};
        if (const auto position = entries_.find(number); position != entries_.end())
            position->second.begun = true;
    }
    void remove(pl::request_number number) override {
        const std::lock_guard guard{mutex_};
        entries_.erase(number);
    }
    std::optional<std::chrono::milliseconds> maintain() override { return std::nullopt; }

    std::map<pl::request_number, entry> entries() {
        const std::lock_guard guard{mutex_};
        return entries_;
    }
};

} // namespace

TEST_CASE("journal: a journal of one's own implements five functions") {
    own_journal own;
    pl::journal& journal = own;
    CHECK(journal.pending().empty());
    REQUIRE(journal.add(1, prepared("a")));
    REQUIRE(journal.add(2, prepared("b")));
    journal.begin(2);
    journal.begin(3);
    journal.remove(1);
    CHECK_FALSE(journal.maintain());
    REQUIRE(own.entries().size() == 1);
    CHECK(own.entries().at(2).begun);
    CHECK(own.entries().at(2).request == prepared("b"));
}

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
        journal->remove(2);
        journal->remove(2);
        journal->remove(5); // an unknown number
    }
    now += 59s;
    {
        const auto journal = open_journal(folder, settings());
        const auto pending = journal->pending();
        REQUIRE(pending.size() == 2);
        CHECK(pending[0].number == 1);
        CHECK(pending[0].request == prepared("a"));
        CHECK(pending[0].age == 60s);
        CHECK(pending[1].number == 7);
        CHECK(pending[1].request == prepared(""));
        CHECK(pending[1].age == 59s);
        CHECK(journal->pending().empty());
        CHECK(journal->damaged_records() == 0);
    }
    now += 24h * 10'000;
    CHECK(open_journal(folder, settings())->pending()[0].age == 24h * 366);
    now -= 24h * 10'001; // set back
    CHECK(open_journal(folder, settings())->pending()[0].age == 0ms);
}

TEST_CASE("journal: it keeps whether a request may be sent twice and whether it was begun") {
    const temporary_folder folder;
    pl::prepared_request once = prepared("a");
    once.idempotent = false;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, once));
        REQUIRE(journal->add(2, once));
        REQUIRE(journal->add(3, prepared("c")));
        journal->begin(1);
        journal->undo_begin(1);
        journal->begin(2);
        journal->begin(9);
        journal->undo_begin(9);
        REQUIRE(journal->add(4, prepared(std::string(200'000, 'x'))));
        journal->remove(4);
    }
    for (int i = 0; i < 2; ++i) { // also after a compaction
        const auto journal = open_journal(folder);
        const auto pending = journal->pending();
        REQUIRE(pending.size() == 3);
        CHECK(pending[0].request == once);
        CHECK_FALSE(pending[0].begun);
        CHECK(pending[1].request == once);
        CHECK(pending[1].begun);
        CHECK(pending[2].request.idempotent);
        REQUIRE(journal->add(8, prepared(std::string(100'000, 'x'))));
        REQUIRE(journal->add(9, prepared("y")));
        journal->remove(8);
        maintain(*journal);
        journal->remove(9);
        CHECK(journal->bytes() < 1'000);
    }
}

TEST_CASE("journal: removed requests at the end of the file are cut off") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    REQUIRE(journal->add(1, prepared("abc")));
    const std::uint64_t first = journal->bytes();
    for (const pl::request_number number : {2U, 3U, 4U})
        REQUIRE(journal->add(number, prepared("abc")));
    journal->remove(3);
    maintain(*journal);
    CHECK(journal->bytes() > first);
    for (const pl::request_number number : {2U, 4U})
        journal->remove(number);
    maintain(*journal);
    CHECK(journal->bytes() == first);
    CHECK(fs::file_size(folder.file()) == first);
    journal->remove(1);
    maintain(*journal);
    CHECK(journal->bytes() == empty);
    REQUIRE(journal->add(5, prepared("d")));
    CHECK(fs::file_size(folder.file()) == journal->bytes());
}

TEST_CASE("journal: a second journal is rejected while the file is open") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        CHECK(contains(rejection(folder.file()), "journal: the journal is locked by another"));
        REQUIRE(journal->add(1, prepared("a")));
    }
    CHECK(pending_in(folder) == "1 a");
    CHECK_FALSE(fs::exists(folder.path / "journal.lock"));
}

TEST_CASE("journal: a file that is not a journal is rejected, unchanged to the byte") {
    const temporary_folder folder;
    const std::string header = record::header();
    std::vector<std::string> foreign{"{\"prompt_name\":\"a\"}\n",
                                     " ",
                                     "\xFFPL1",
                                     std::string{"\xFFPL1"} + std::string(60, 'x'),
                                     std::string(15, '\0') + "x",
                                     header.substr(0, 8) + "x",
                                     record::header(0),
                                     record_text(1, "/p", "b")};
    for (std::size_t at = 0; at < header.size(); ++at) { // one byte differs
        std::string damaged = header + record_text(1, "/p", "b");
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        foreign.push_back(damaged);
    }
    for (const std::string& text : foreign) {
        folder.write(text);
        CHECK(contains(rejection(folder.file()), "the file is not a journal"));
        CHECK(folder.text() == text);
    }
    for (const std::uint32_t version : {2U, 0xFFFFFFFFU}) {
        const std::string newer = record::header(version) + "anything";
        folder.write(newer);
        CHECK(contains(rejection(folder.file()), "a newer version of this library"));
        CHECK(folder.text() == newer);
    }
    CHECK(std::distance(fs::directory_iterator{folder.path}, {}) == 1);
}

TEST_CASE("journal: an empty file, zeros, or a torn header become a journal") {
    const temporary_folder folder;
    const std::string header = record::header();
    for (const std::string& text : {std::string{}, std::string(5000, '\0'), std::string{"\x89"},
                                    header.substr(0, 8), header.substr(0, 15), header}) {
        folder.write(text);
        CHECK(pending_in(folder).empty());
        CHECK(folder.text() == header);
    }
    folder.write(std::string(5000, '\0'));
    CHECK_FALSE(pl::file_journal::open(folder.file(), {.max_bytes = 4999}));
    CHECK(pl::file_journal::open(folder.file(), {.max_bytes = 5000}));
}

TEST_CASE("journal: the header is the documented one") {
    CHECK(pl::detail::crc32("123456789") == 0xCBF43926U);
    CHECK(pl::detail::crc32("56789", pl::detail::crc32("1234")) == 0xCBF43926U);
    const std::string header = record::header();
    CHECK(header.substr(0, 12) == std::string{"\x89PLJ\r\n\x1A\n\1\0\0\0", 12});
    CHECK(record::get(header.substr(12)) == pl::detail::crc32(header.substr(0, 12)));
}

TEST_CASE("journal: the head of a record is the documented one") {
    const auto check = [](const record& written, std::string_view fields) {
        const std::string head = written.head();
        CHECK(head.substr(0, 32) == std::string{"\xFFPLR"}.append(fields));
        CHECK(record::get(head.substr(32)) == pl::detail::crc32(head.substr(5, 27)));
    };
    check({}, {"\x1E\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 28});
    check({.current = record::state::begun,
           .idempotent = false,
           .path_size = 0x0201,
           .body_size = 0x06050403,
           .number = 0x0E0D0C0B0A090807,
           .created = 0x161514131211100F,
           .content_crc = 0x1A191817},
          {"\x2D\0\1\2\3\4\5\6\7\x8\x9\xA\xB\xC\xD\xE\xF\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1A", 28});
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
            CHECK(journal->damaged_records() == 0);
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
    for (std::size_t at = empty; at < second; ++at) {
        for (const int bit : {0x01, 0x80}) {
            std::string damaged = whole;
            damaged[at] = static_cast<char>(damaged[at] ^ bit);
            folder.write(damaged);
            const auto journal = open_journal(folder);
            CHECK(journal->damaged_records() == 1);
            CHECK(pending_in(*journal) == (at < first ? "2 bbb, 3 ccc" : "1 aaa, 3 ccc"));
        }
    }
    std::string last = whole;
    last.back() = 'x';
    folder.write(last);
    {
        const auto journal = open_journal(folder);
        CHECK(journal->damaged_records() == 1);
        CHECK(pending_in(*journal) == "1 aaa, 2 bbb");
    }
    // Something else between records: 262144 bytes are read at a time.
    for (const std::size_t size :
         {1U, 14U, 262'144U - 4, 262'144U - 3, 262'144U - 2, 262'144U - 1, 262'144U}) {
        folder.write(whole.substr(0, empty) + std::string(size, 'x') + whole.substr(empty));
        CHECK(pending_in(folder) == "1 aaa, 2 bbb, 3 ccc");
        folder.write(whole.substr(0, empty) +
                     std::string(size - std::min<std::size_t>(size - 1, empty), 'x') + whole.substr(empty));
        const auto journal = open_journal(folder);
        CHECK(journal->damaged_records() == 1);
        CHECK(pending_in(*journal) == "1 aaa, 2 bbb, 3 ccc");
    }
    for (const std::size_t size : {record::head_size - 1, record::head_size}) { // torn, or damaged
        folder.write(whole + std::string(size, 'x'));
        CHECK(open_journal(folder)->damaged_records() == (size < record::head_size ? 0 : 1));
    }
}

TEST_CASE("journal: a record with a foreign path or number is damaged, so the key stays here") {
    const temporary_folder folder;
    const pl::request_number largest = ~pl::request_number{0};
    folder.write(record::header() + record_text(0, "/p", "b") + record_text(largest, "/p", "b") +
                 record_text(largest / 2, "/p", "b") + record_text(1, "@evil.example/", "b") +
                 record_text(2, "/a\r\nb", "b") + record_text(3, "/a b", "b") + record_text(4, "", "b") +
                 record_text(6, "/a\x7F", "b") + record_text(5, "/p", "b") + record_text(5, "/p", "another") +
                 record_text(largest / 2 - 1, "/p", "b"));
    const auto journal = open_journal(folder);
    CHECK(journal->damaged_records() == 9);
    CHECK(pending_in(*journal) == "5 b, " + std::to_string(largest / 2 - 1) + " b");
    for (const auto& [number, path] : {std::pair<pl::request_number, std::string>{0, "/p"},
                                       {largest, "/p"},
                                       {7, "@evil.example/"},
                                       {7, "/" + std::string(65'535, 'p')}})
        CHECK_FALSE(journal->add(number, {path, "b"}));
    CHECK(journal->add(7, {"/" + std::string(65'534, 'p'), "b"}));
}

TEST_CASE("journal: opening reads a hostile file in linear time") {
    const temporary_folder folder;
    std::string markers{record::header()}, heads{record::header()}, large{record::header()};
    constexpr std::size_t size = 4 * 1024 * 1024;
    while (markers.size() < size)
        markers += std::string{record::marker} + "\xFF\xFF";
    for (pl::request_number number = 1; heads.size() < size; ++number) // valid heads, which overlap
        heads += record{.body_size = size - heads.size() - 100, .number = number}.head();
    for (pl::request_number number = 1; large.size() < size; ++number) // valid heads, beyond the end
        large += record{.body_size = 0xFFFFFFFF, .number = number}.head();
    for (const std::string* text : {&markers, &heads, &large}) {
        folder.write(*text);
        const std::clock_t start = std::clock();
#ifdef __linux__
        bytes_read = 0;
#endif
        const auto journal = open_journal(folder);
        CHECK(journal->pending().empty());
        CHECK(journal->damaged_records() > 0);
#ifdef __linux__
        CHECK(bytes_read < 3 * text->size());
#endif
        CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 20); // quadratic: hours
    }
}

TEST_CASE("journal: records larger than its buffers are kept") {
    const temporary_folder folder;
    std::string body;
    for (int i = 0; body.size() < 3'000'000; ++i)
        body += std::to_string(i);
    bool begun = false;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared(std::string(14'000'000, 'x'))));
        REQUIRE(journal->add(2, prepared(body)));
        REQUIRE(journal->add(3, prepared(body + "3")));
        REQUIRE(journal->add(4, prepared("d")));
        journal->remove(1);
        SUBCASE("without a compaction") {}
        SUBCASE("in a compaction") { maintain(*journal); }
        SUBCASE("begun and removed while they are partly copied") {
            const auto pass = [&](int slices) {
                for (int i = 0; i < slices; ++i)
                    CHECK(journal->maintain() == 0ms);
            };
            pass(5);
            journal->begin(2);
            pass(12 + 5); // again from the start, and a part of the next record
            REQUIRE(journal->add(6, prepared("f")));
            journal->remove(3);
            journal->remove(4);
            REQUIRE(journal->add(3, prepared(body + "3")));
            REQUIRE(journal->add(4, prepared("d")));
            maintain(*journal);
            CHECK(journal->bytes() < 6'100'000);
            journal->remove(6);
            begun = true;
        }
    }
    const auto journal = open_journal(folder);
    CHECK(journal->damaged_records() == 0);
    const auto pending = journal->pending();
    REQUIRE(pending.size() == 3);
    CHECK(pending[0].request.body == body);
    CHECK(pending[0].begun == begun);
    CHECK(pending[1].request.body == body + "3");
    CHECK(pending[2].request.body == "d");
}

TEST_CASE("journal: a large request that is removed while it is copied leaves nothing in the file") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    REQUIRE(journal->add(1, prepared(std::string(3'000'000, 'a'))));
    REQUIRE(journal->add(2, prepared(std::string(1'000'000, 'b'))));
    REQUIRE(journal->add(3, prepared("c")));
    journal->remove(1);
    std::error_code ec;
    while (fs::file_size(folder.path / "journal.new", ec) < 300'000 || ec)
        journal->maintain();
    journal->remove(2);
    maintain(*journal);
    CHECK(journal->bytes() < 100);
    CHECK(fs::file_size(folder.file()) == journal->bytes());
}

TEST_CASE("journal: compaction bounds a growing file and keeps pending requests") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("first")));
        std::uint64_t largest = 0;
        for (pl::request_number number = 2; number < 5'000; ++number) {
            REQUIRE(journal->add(number, prepared(std::string(200, 'x'))));
            REQUIRE(journal->add(10'000 + number, prepared("y")));
            if (number != 2'500)
                journal->remove(number);
            if (number > 2)
                journal->remove(9'999 + number);
            largest = std::max(largest, journal->bytes());
            maintain(*journal);
        }
        CHECK(largest > 64 * 1024);
        CHECK(largest < 80 * 1024);
        REQUIRE(journal->add(99'999, prepared("last")));
        journal->remove(2'500);
        CHECK(fs::file_size(folder.file()) == journal->bytes());
    }
    CHECK_FALSE(fs::exists(folder.path / "journal.new"));
    CHECK(pending_in(folder) == "1 first, 14999 y, 99999 last");
}

TEST_CASE("journal: the remains of an interrupted compaction are removed") {
    const temporary_folder folder;
    REQUIRE(open_journal(folder)->add(1, prepared("a")));
    std::ofstream{folder.path / "journal.new"} << "half";
    CHECK(pending_in(folder) == "1 a");
    CHECK_FALSE(fs::exists(folder.path / "journal.new"));
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(2, prepared(std::string(1'000'000, 'x'))));
        REQUIRE(journal->add(3, prepared(std::string(400'000, 'x'))));
        journal->remove(2);
        CHECK(journal->maintain() == 0ms);
        CHECK(fs::exists(folder.path / "journal.new"));
        journal->remove(3);
    } // closed during a compaction
    CHECK_FALSE(fs::exists(folder.path / "journal.new"));
    CHECK(pending_in(folder) == "1 a");
}

#ifndef PROMPTLAYER_NO_THREADS
TEST_CASE("journal: many threads add while requests are begun, removed and compacted") {
    const temporary_folder folder;
    for (const std::chrono::milliseconds sync_after : {1000ms, 0ms}) {
        std::string expected;
        constexpr int threads = 4, count = 1'000;
        {
            const auto journal = open_journal(folder, {.sync_after = sync_after});
            std::vector<std::atomic<int>> added(threads);
            std::vector<std::thread> producers;
            for (int producer = 0; producer < threads; ++producer)
                producers.emplace_back([&, producer] {
                    for (int i = 1; i <= count; ++i) {
                        CHECK(journal->add(static_cast<pl::request_number>(i * threads + producer),
                                           prepared(std::string(500, 'x'))));
                        added[static_cast<std::size_t>(producer)] = i;
                    }
                });
            for (int i = 1; i <= count; ++i)
                for (int producer = 0; producer < threads; ++producer) {
                    while (added[static_cast<std::size_t>(producer)] < i) {
                        journal->maintain();
                        std::this_thread::yield();
                    }
                    const auto number = static_cast<pl::request_number>(i * threads + producer);
                    if (i % 100 == 0)
                        journal->begin(number);
                    else
                        journal->remove(number);
                }
            for (auto& producer : producers)
                producer.join();
            maintain(*journal);
            CHECK(journal->bytes() < 150'000);
        }
        const auto journal = open_journal(folder);
        CHECK(journal->damaged_records() == 0);
        const auto pending = journal->pending();
        CHECK(pending.size() == threads * count / 100);
        for (const auto& entry : pending) {
            CHECK(entry.number / threads % 100 == 0);
            CHECK(entry.begun);
            journal->remove(entry.number);
        }
    }
}
#endif

TEST_CASE("journal: the file stays within its limit; a request that does not fit is an error") {
    const temporary_folder folder;
    const auto journal = open_journal(folder, {.max_bytes = 1'000});
    pl::request_number number = 0;
    pl::result<void> added{};
    while ((added = journal->add(++number, prepared("abc"))))
        REQUIRE(number < 100);
    CHECK(added.error().code == pl::errc::journal_failed);
    CHECK(contains(added.error().message, "the journal is full; its max_bytes is 1000"));
    CHECK(number > 10);
    journal->remove(number); // this one was not added
    for (pl::request_number other = 1; other < number; ++other)
        journal->remove(other);
    CHECK(fs::file_size(folder.file()) <= 1'000);
    maintain(*journal);
    CHECK(journal->bytes() == empty);
    const std::size_t most =
        1'000 - empty - record::head_size - std::string_view{"/rest/track-prompt"}.size();
    CHECK_FALSE(journal->add(500, prepared(std::string(most + 1, 'x'))));
    CHECK(journal->add(501, prepared(std::string(most, 'x'))));
}

TEST_CASE("journal: by default, the file has at most 64 MiB and is synced after a second") {
    CHECK(pl::file_journal_settings{}.max_bytes == 67'108'864);
    CHECK(pl::file_journal_settings{}.sync_after == 1s);
}

TEST_CASE("journal: compaction starts when more is removed than the limits allow") {
    const auto compacts = [](std::uint64_t most, std::size_t removed, std::size_t kept) {
        const temporary_folder folder;
        const auto journal = open_journal(folder, {.max_bytes = most, .sync_after = std::nullopt});
        const std::size_t overhead = record_text(1, "/p", "").size();
        REQUIRE(journal->add(1, {.path = "/p", .body = std::string(removed - overhead, 'x')}));
        REQUIRE(journal->add(2, {.path = "/p", .body = std::string(kept - overhead, 'x')}));
        journal->remove(1);
        maintain(*journal);
        return journal->bytes() < empty + removed + kept;
    };
    // Of the file, without its header, half and 64 KiB may be removed;
    CHECK_FALSE(compacts(100'000'000, 65'536 + 1'000, 1'000));
    CHECK(compacts(100'000'000, 65'536 + 1'001, 1'000));
    // half of the limit may be used, or an eighth more than is pending.
    CHECK_FALSE(compacts(10'000, 4'000, 1'000));
    CHECK(compacts(10'000, 4'001, 1'000));
    CHECK_FALSE(compacts(10'000, 1'000, 8'000));
    CHECK(compacts(10'000, 1'001, 8'000));
}

TEST_CASE("journal: compaction runs before removed requests fill the file") {
    const temporary_folder folder;
    for (const std::uint64_t most : {10'000U, 200'000U}) {
        const auto journal = open_journal(folder, {.max_bytes = most});
        REQUIRE(journal->add(1, prepared(std::string(static_cast<std::size_t>(most) / 2, 'x'))));
        REQUIRE(journal->add(2, prepared("y")));
        for (pl::request_number number = 3; number < 3'000; ++number) {
            REQUIRE(journal->add(number, prepared(std::string(200, 'x'))));
            journal->remove(number - 1);
            maintain(*journal);
        }
        journal->remove(1);
        journal->remove(2'999);
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
        REQUIRE(journal.add(1, prepared(std::string(200'000, 'x'))));
        REQUIRE(journal.add(2, prepared("b")));
        journal.remove(1);
        maintain(journal);
        CHECK(journal.bytes() < 100);
        CHECK_FALSE(pl::file_journal::open(folder.path / ".." / folder.path.filename() / "journal"));
    }
    fs::current_path(before);
    CHECK(other.text() == "of the user");
    CHECK(pending_in(folder) == "2 b");
}

TEST_CASE("journal: a path without a file name or in a missing folder is rejected") {
    const temporary_folder folder;
    const fs::path before = fs::current_path();
    fs::current_path(folder.path);
    for (const fs::path& path : {fs::path{}, folder.path, folder.path / "", fs::path{"."}, fs::path{".."}})
        CHECK(contains(rejection(path), "this is not a file; use the path of a file"));
    CHECK(
        contains(rejection(folder.path / "none" / "journal"), "the folder does not exist; create it first"));
    fs::current_path(before);
    CHECK(fs::is_empty(folder.path));
}

TEST_CASE("journal: maintain returns the time until its next call, even if the clock is set back") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto with = [&](std::optional<std::chrono::milliseconds> sync_after) {
        return pl::file_journal_settings{.sync_after = sync_after, .now = [&] { return now; }};
    };
    for (const auto never_or_each : {std::optional<std::chrono::milliseconds>{}, std::optional{0ms}}) {
        const auto journal = open_journal(folder, with(never_or_each));
        REQUIRE(journal->add(1, prepared("a")));
        CHECK_FALSE(journal->maintain());
        journal->remove(1);
    }
    {
        const auto journal = open_journal(folder, with(1ms));
        REQUIRE(journal->add(1, prepared("a")));
        CHECK(journal->maintain() == 1ms);
        journal->remove(1);
    }
    const auto journal = open_journal(folder, with(1s));
    CHECK(journal->maintain() == 10ms); // cuts the removed request off
    CHECK_FALSE(maintain(*journal));
    REQUIRE(journal->add(1, prepared("a")));
    CHECK(journal->maintain() == 1s);
    now += 400ms;
    REQUIRE(journal->add(2, prepared("b")));
    CHECK(journal->maintain() == 600ms);
    now += 600ms;
    CHECK(journal->maintain() <= 10ms); // syncs
    CHECK_FALSE(maintain(*journal));
    REQUIRE(journal->add(3, prepared("c")));
    now -= 1h;
    CHECK(journal->maintain() <= 10ms);
    CHECK_FALSE(maintain(*journal));
    journal->begin(3);
    CHECK(journal->maintain() == 1s);
}

#ifdef __linux__

namespace {

/// Limits the size of files to `bytes` until it is destroyed.
class size_limit {
    rlimit unlimited_{};

public:
    explicit size_limit(std::uint64_t bytes) {
        std::signal(SIGXFSZ, SIG_IGN);
        ::getrlimit(RLIMIT_FSIZE, &unlimited_);
        rlimit limited = unlimited_;
        limited.rlim_cur = static_cast<rlim_t>(bytes);
        ::setrlimit(RLIMIT_FSIZE, &limited);
    }
    ~size_limit() { ::setrlimit(RLIMIT_FSIZE, &unlimited_); }
};

/// Runs `action` in a child process and returns its result.
int in_child(const std::function<int()>& action) {
    const pid_t child = ::fork();
    if (child == 0)
        test_support::end_child(action());
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Returns the sentence of the system, in the language of its locale.
std::string message_of(int error) { return std::generic_category().message(error); }

/// Adds and removes requests, so that the next `maintain` compacts.
void need_compaction(pl::journal& journal) {
    REQUIRE(journal.add(1'000, prepared(std::string(200'000, 'x'))));
    REQUIRE(journal.add(1'001, prepared("z")));
    journal.remove(1'000);
}

} // namespace

TEST_CASE("journal: a pipe or a device is rejected") {
    const temporary_folder folder;
    REQUIRE(::mkfifo(folder.file().c_str(), 0600) == 0);
    for (const fs::path& path : {folder.file(), fs::path{"/dev/zero"}, fs::path{"/dev/full"}})
        CHECK(contains(rejection(path), "this is not a file"));
}

TEST_CASE("journal: the message of open says what to do") {
    const temporary_folder folder;
    for (const auto& [cause, message] :
         {std::pair{EROFS, std::string{"the file system is read-only; use another path"}},
          {EACCES, "no permission to read and write the file; change its permissions or its folder's"},
          {EISDIR, "this is not a file"},
          {ENOSPC, "the disk is full; make room"},
          {EDQUOT, "the user's quota of the disk is used up; make room"},
          {EWOULDBLOCK, "the journal is locked by another process; use another path"},
          {EMFILE, message_of(EMFILE)}}) {
        open_fault.fail(cause);
        CHECK(contains(rejection(folder.file()), message));
    }
    folder.write("");
    fs::permissions(folder.file(), fs::perms::owner_read);
    open_fault.fail(EACCES);
    CHECK(contains(rejection(folder.file()), "the file is read-only; make it writable or use another path"));
    fs::permissions(folder.file(), fs::perms::owner_all);
    open_fault.fail(EACCES);
    CHECK(contains(rejection(folder.file()), "no permission to read and write the file"));
    open_fault.fail(EACCES); // so Windows says it of a folder
    CHECK(contains(rejection(folder.path), "this is not a file"));
    write_fault.fail(ENOSPC); // exactly at the header
    CHECK(contains(rejection(folder.file()), "the disk is full; make room"));
    CHECK(pending_in(folder).empty());
    fs::create_symlink("loop", folder.path / "loop");
    CHECK(contains(rejection(folder.path / "loop" / "journal"), "loop"));
}

TEST_CASE("journal: a file that is replaced whenever it is opened is an error") {
    const temporary_folder folder;
    int attempts = 0;
    std::function<void()> remove = [&] {
        ++attempts;
        fs::remove(folder.file());
        after_open = remove;
    };
    after_open = remove;
    CHECK(contains(rejection(folder.file()), "replaced again and again"));
    CHECK(attempts == 100);
    after_open = nullptr;
}

TEST_CASE("journal: a file that cannot be read, truncated or synced is an error, unchanged") {
    const temporary_folder folder;
    const std::string body(300'000, 'a'); // longer than one read
    REQUIRE(open_journal(folder)->add(1, prepared(body)));
    std::ofstream{folder.file(), std::ios::app} << "torn";
    const std::string before = folder.text();
    for (int first = 0; first < 2; ++first) {
        read_fault.fail(EIO, 1, first);
        CHECK(contains(rejection(folder.file()), message_of(EIO)));
    }
    for (int first = 0; first < 2; ++first) {
        status_fault.fail(ESTALE, 1, first);
        rejection(folder.file());
        CHECK(status_fault.count == 0);
    }
    truncate_fault.fail(EIO);
    CHECK(contains(rejection(folder.file()), message_of(EIO)));
    CHECK(folder.text() == before);
    CHECK(pending_in(folder) == "1 " + body);
    fs::remove(folder.file());
    sync_fault.fail(EIO);
    CHECK(contains(rejection(folder.file()), message_of(EIO)));
}

TEST_CASE("journal: a symbolic link beside the file is not followed") {
    for (const bool at_the_last_moment : {false, true}) {
        const temporary_folder folder;
        std::ofstream{folder.path / "victim"} << "mine";
        const auto journal =
            open_journal(folder, {.now = [] { return std::chrono::system_clock::time_point{480'000h}; }});
        const auto link = [&] { fs::create_symlink(folder.path / "victim", folder.path / "journal.new"); };
        if (at_the_last_moment)
            before_open = link;
        else
            link();
        need_compaction(*journal);
        const auto wait = maintain(*journal);
        CHECK((at_the_last_moment ? wait == 1s : journal->bytes() < 100)); // tried again, or compacted
        CHECK(fs::is_regular_file(fs::symlink_status(folder.file())));
        std::string mine;
        std::ifstream{folder.path / "victim"} >> mine;
        CHECK(mine == "mine");
    }
}

#if !defined(__EMSCRIPTEN__) // which executes no programs
/// Returns whether the descriptor is that of the file with this name.
static bool is_file(int descriptor, const fs::path& name) {
    struct stat opened = {};
    struct stat named = {};
    return ::fstat(descriptor, &opened) == 0 && ::stat(name.c_str(), &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

TEST_CASE("journal: a program that the process executes does not inherit its files") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    REQUIRE(journal->add(1, prepared(std::string(1'000'000, 'x'))));
    REQUIRE(journal->add(2, prepared(std::string(400'000, 'x'))));
    journal->remove(1);
    CHECK(journal->maintain() == 0ms); // a part of the copy is written
    int files = 0;
    for (const auto& name : fs::directory_iterator{folder.path}) {
        for (int descriptor = 0; descriptor < 1'024; ++descriptor) {
            if (!is_file(descriptor, name.path()))
                continue;
            ++files;
            CHECK((::fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0);
        }
    }
    CHECK(files == 2);
}
#endif

TEST_CASE("journal: a journal is locked by all its names, also after a compaction") {
    const temporary_folder folder, other;
    fs::create_symlink(folder.file(), other.path / "symlink"); // to a file that does not exist yet
    {
        const auto journal = open_journal(other.path / "symlink");
        fs::create_hard_link(folder.file(), other.path / "hard link");
        REQUIRE(journal->add(1, prepared("a")));
        const std::vector<fs::path> names{folder.file(), other.path / "symlink", other.path / "hard link"};
        for (const fs::path& name : names) {
            CHECK(contains(rejection(name), "by another tracker of this process"));
            CHECK(in_child([&] { return contains(rejection(name), "by another process"); }) == 1);
        }
        need_compaction(*journal);
        maintain(*journal);
        CHECK(journal->bytes() < 200);
        CHECK(fs::is_symlink(other.path / "symlink"));
        CHECK_FALSE(pl::file_journal::open(folder.file()));
        CHECK_FALSE(pl::file_journal::open(other.path / "symlink"));
        CHECK(pending_in(*open_journal(other.path / "hard link")).empty()); // another journal from now on
    }
    CHECK(pending_in(folder) == "1 a, 1001 z");
}

TEST_CASE("journal: another name of the file keeps its requests if the folder cannot be synced") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    fs::create_hard_link(folder.file(), folder.path / "hard link");
    REQUIRE(journal->add(1, prepared("a")));
    need_compaction(*journal);
    sync_fault.fail(EIO, 1, 2);
    maintain(*journal);
    CHECK(sync_fault.count == 0);
    CHECK(pending_in(*open_journal(folder.path / "hard link")) == "1 a, 1001 z");
}

TEST_CASE("journal: a file that is replaced while it is opened is opened again") {
    const temporary_folder folder;
    REQUIRE(open_journal(folder)->add(1, prepared("old")));
    fs::copy_file(folder.file(), folder.path / "saved");
    after_open = [&] { fs::rename(folder.path / "saved", folder.file()); };
    const auto journal = open_journal(folder);
    CHECK(pending_in(*journal) == "1 old");
    CHECK_FALSE(pl::file_journal::open(folder.file()));
    CHECK(journal->add(2, prepared("b"))); // the path names the locked file
}

TEST_CASE("journal: a removed file is an error of add, and is made anew with what is pending") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        REQUIRE(journal->add(2, prepared("b")));
        fs::remove(folder.file());
        const auto added = journal->add(3, prepared("c"));
        REQUIRE_FALSE(added);
        CHECK(contains(added.error().message, "someone removed or replaced the file"));
        journal->remove(1);
        {
            const auto other = open_journal(folder); // of another tracker: it is not replaced
            maintain(*journal);
            REQUIRE(other->add(7, prepared("other")));
            CHECK(journal->maintain() <= 1s);
            other->remove(7);
        }
        fs::remove(folder.file());
    }
    for (const bool replaced : {false, true}) {
        std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
        const auto journal = open_journal(folder, {.now = [&] { return now; }});
        REQUIRE(journal->add(1, prepared("a")));
        fs::remove(folder.file());
        if (replaced)
            folder.write("of the user");
        CHECK_FALSE(journal->add(2, prepared("b")));
        journal->remove(1);
        maintain(*journal);
        REQUIRE(journal->add(3, prepared("c")));
        CHECK_FALSE(fs::exists(folder.path / "journal.new"));
        std::string moved;
        std::ifstream{folder.path / "journal.replaced"} >> moved;
        CHECK(moved == (replaced ? "of" : ""));
        CHECK_FALSE(pl::file_journal::open(folder.file()));
        fs::copy_file(folder.file(), folder.path / "copy", fs::copy_options::overwrite_existing);
        CHECK(pending_in(*open_journal(folder.path / "copy")) == "2 b, 3 c");
        journal->remove(2);
        journal->remove(3);
    }
    // A second file is not moved over the first.
    const auto journal = open_journal(folder);
    fs::remove(folder.file());
    folder.write("of another user");
    CHECK_FALSE(journal->add(1, prepared("a")));
    CHECK(maintain(*journal) <= 1s);
    CHECK_FALSE(journal->add(2, prepared("b")));
    CHECK(folder.text() == "of another user");
}

TEST_CASE("journal: a child of fork does not write the journal") {
    const temporary_folder folder;
    {
        auto journal = open_journal(folder, {.sync_after = 1ms});
        REQUIRE(journal->add(1, prepared("a")));
        while (journal->maintain()) // starts the worker
            std::this_thread::yield();
        const std::string before = folder.text();
        CHECK(in_child([&] {
                  const auto added = journal->add(2, prepared("b"));
                  const bool refused =
                      !added && contains(added.error().message, "the journal belongs to the parent process");
                  journal->begin(1);
                  journal->remove(1);
                  const bool idle = !journal->maintain() && journal->pending().empty();
                  journal.reset();
                  return refused && idle && !pl::file_journal::open(folder.file()) ? 7 : 1;
              }) == 7);
        CHECK(folder.text() == before);
        CHECK_FALSE(pl::file_journal::open(folder.file()));
        REQUIRE(journal->add(3, prepared("c")));
    }
    CHECK(pending_in(folder) == "1 a, 3 c");
}

TEST_CASE("journal: its descriptor may be 0, and is closed with it") {
    const temporary_folder folder;
    CHECK(in_child([&] {
              ::close(STDIN_FILENO);
              errno = EINTR; // of an earlier call
              auto journal = pl::file_journal::open(folder.file());
              const bool added = journal && (*journal)->add(1, prepared("a"));
              const bool used = ::fcntl(0, F_GETFD) >= 0;
              journal = pl::error{};
              return added && used && ::fcntl(0, F_GETFD) < 0 ? 7 : 1;
          }) == 7);
    CHECK(pending_in(folder) == "1 a");
}

TEST_CASE("journal: its files are private to the user, whatever the umask") {
    const temporary_folder folder;
    const auto before = ::umask(0);
    {
        const auto journal = open_journal(folder);
        const auto check = [&] {
            struct stat status {};
            REQUIRE(::stat(folder.file().c_str(), &status) == 0);
            CHECK((status.st_mode & 0777U) == 0600U);
        };
        check();
        need_compaction(*journal);
        maintain(*journal); // a new file
        CHECK(journal->bytes() < 100);
        check();
    }
    ::umask(before);
}

TEST_CASE("journal: a full disk is an error and loses no other request") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        REQUIRE(journal->add(2, prepared("b")));
        {
            const size_limit limit{journal->bytes() + 40}; // a part of the next record fits
            const auto rejected = journal->add(3, prepared("c"));
            REQUIRE_FALSE(rejected);
            CHECK(rejected.error().code == pl::errc::journal_failed);
            CHECK(contains(rejected.error().message, "the request is queued in memory only"));
            CHECK(fs::file_size(folder.file()) == journal->bytes());
            journal->remove(1); // needs no room
            journal->remove(2);
            maintain(*journal);
            CHECK(journal->bytes() == empty);
            REQUIRE(journal->add(4, prepared("d")));
            REQUIRE(journal->add(5, prepared("e")));
            CHECK_FALSE(journal->add(6, prepared("f")));
            journal->remove(4);
        }
        REQUIRE(journal->add(8, prepared("h")));
    }
    CHECK(pending_in(folder) == "5 e, 8 h");
    SUBCASE("as the system says") { write_fault.fail(ENOSPC); }
    SUBCASE("or as a write of nothing says, which leaves `errno` as it was") {
        empty_write_fault.fail(EINTR);
    }
    const auto rejected = open_journal(folder)->add(9, prepared("i"));
    REQUIRE_FALSE(rejected);
    CHECK(contains(rejected.error().message, "the disk is full; make room"));
}

TEST_CASE("journal: what was removed on a full disk is not pending once there is room") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    {
        const auto journal = open_journal(folder, {.now = [&] { return now; }});
        for (pl::request_number number = 1; number <= 200; ++number)
            REQUIRE(journal->add(number, prepared(std::to_string(number))));
        write_fault.fail(ENOSPC, 1'000'000); // not even a byte can be overwritten
        for (pl::request_number number = 2; number <= 199; ++number)
            journal->remove(number);
        CHECK_FALSE(journal->add(201, prepared("201")));
        CHECK(journal->maintain() <= 1s);
        SUBCASE("and maintain writes it") {
            write_fault.count = 0;
            journal->maintain();
        }
        SUBCASE("and the destructor writes it") { write_fault.count = 0; }
        SUBCASE("and a compaction leaves it out") {
            write_fault.count = 0;
            need_compaction(*journal);
            maintain(*journal);
            journal->remove(1'001);
        }
        SUBCASE("and another request does not get its byte") {
            journal->remove(200);
            maintain(*journal); // cuts
            write_fault.count = 0;
            REQUIRE(journal->add(200, prepared("200")));
        }
    }
    CHECK(pending_in(folder) == "1 1, 200 200");
}

TEST_CASE("journal: a begin that cannot be written is written later, or is in the next copy") {
    for (const std::size_t size : {1U, 300'000U}) // in one slice of the copy, or in two
        for (const bool copied : {false, true}) {
            const temporary_folder folder;
            {
                const auto journal = open_journal(folder);
                if (copied)
                    REQUIRE(journal->add(1'000, prepared(std::string(400'000, 'x'))));
                REQUIRE(journal->add(1, prepared(std::string(size, 'a'))));
                REQUIRE(journal->add(1'001, prepared("z")));
                if (copied)
                    journal->remove(1'000);
                write_fault.fail(EIO, copied ? 2 : 1); // also when `maintain` tries again
                journal->begin(1);
                maintain(*journal);
                CHECK(write_fault.count == 0);
                CHECK(journal->bytes() < size + 200);
                CHECK(fs::file_size(folder.file()) == journal->bytes());
            }
            const auto journal = open_journal(folder);
            CHECK(journal->damaged_records() == 0);
            CHECK(journal->pending().at(0).begun);
        }
}

TEST_CASE("journal: a state that cannot be written before a compaction is not written after it") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        write_fault.fail(EIO, 2, 2); // the removal, also when `maintain` tries again
        need_compaction(*journal);
        journal->maintain();
        CHECK(write_fault.count == 0);
    }
    CHECK(fs::file_size(folder.file()) < 200);
    CHECK(pending_in(folder) == "1001 z"); // which is now where the removed request was
}

TEST_CASE("journal: a begin during a compaction is in the file and in the copy") {
    for (const bool copy_fails : {false, true}) {
        const temporary_folder folder;
        std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
        {
            const auto journal = open_journal(folder, {.now = [&] { return now; }});
            REQUIRE(journal->add(1, prepared("a")));
            REQUIRE(journal->add(2, prepared(std::string(1'000'000, 'x'))));
            REQUIRE(journal->add(3, prepared(std::string(400'000, 'x'))));
            journal->remove(2);
            CHECK(journal->maintain() == 0ms); // the first request is copied
            if (copy_fails)
                write_fault.fail(ENOSPC, 1, 1);
            journal->begin(1);
            CHECK(write_fault.count == 0);
            CHECK((maintain(*journal) == 1s && journal->bytes() > 1'000'000) == copy_fails);
            now += 1s;
            maintain(*journal);
            CHECK(journal->bytes() < 500'000);
        }
        const auto journal = open_journal(folder);
        CHECK(journal->damaged_records() == 0);
        CHECK(journal->pending().at(0).begun);
    }
}

TEST_CASE("journal: a compaction without disk space keeps the file and is retried after a second") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    {
        const auto journal = open_journal(folder, {.sync_after = std::nullopt, .now = [&] { return now; }});
        REQUIRE(journal->add(1, prepared("a")));
        need_compaction(*journal);
        {
            const size_limit limit{10};
            CHECK(maintain(*journal) == 1s);
            CHECK(journal->bytes() > 200'000);
            CHECK_FALSE(fs::exists(folder.path / "journal.new"));
        }
        now += 989ms;
        CHECK(maintain(*journal) == 11ms); // not again at once
        CHECK(journal->bytes() > 200'000);
        now += 11ms;
        CHECK_FALSE(maintain(*journal));
        CHECK(journal->bytes() < 200);
        now -= 11ms; // a success ends the delay
        journal->remove(1'001);
        need_compaction(*journal);
        CHECK_FALSE(maintain(*journal));
        CHECK(journal->bytes() < 200);
    }
    CHECK(pending_in(folder) == "1 a, 1001 z");
}

TEST_CASE("journal: a compaction fails if someone emptied the file or its name is refused") {
    for (const bool emptied : {false, true}) {
        const temporary_folder folder;
        const auto journal =
            open_journal(folder, {.now = [] { return std::chrono::system_clock::time_point{480'000h}; }});
        need_compaction(*journal);
        if (emptied) {
            fs::resize_file(folder.file(), 0);
        } else {
            fs::remove(folder.file());
            folder.write("of the user");
            CHECK_FALSE(journal->add(1, prepared("a")));
            rename_fault.fail(EACCES);
        }
        CHECK(maintain(*journal) == 1s);
        CHECK(rename_fault.count == 0);
        CHECK(folder.text() == (emptied ? "" : "of the user"));
        CHECK_FALSE(fs::exists(folder.path / "journal.new"));
    }
}

TEST_CASE("journal: a compaction that fails at any step changes nothing and is retried later") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    std::string expected = "1 a, 1001 z";
    {
        const auto journal = open_journal(folder, {.sync_after = 0ms, .now = [&] { return now; }});
        REQUIRE(journal->add(1, prepared("a")));
        need_compaction(*journal);
        fault* injected = nullptr;
        SUBCASE("the copy cannot be created") { (injected = &open_fault)->fail(EMFILE); }
        SUBCASE("a folder has the name of the copy") {
            fs::create_directories(folder.path / "journal.new" / "full");
        }
        SUBCASE("the file cannot be read") { (injected = &read_fault)->fail(EIO); }
        SUBCASE("the copy cannot be written") { (injected = &write_fault)->fail(ENOSPC); }
        SUBCASE("the records cannot be written") { (injected = &write_fault)->fail(ENOSPC, 1, 1); }
        SUBCASE("a state cannot be written to the copy") {
            injected = &write_fault;
            before_sync = [&] {
                write_fault.fail(ENOSPC, 1, 1);
                journal->begin(1);
            };
        }
        SUBCASE("the copy cannot be synced") { (injected = &sync_fault)->fail(EIO); }
        SUBCASE("the copy cannot be synced the second time") { (injected = &sync_fault)->fail(EIO, 1, 1); }
        SUBCASE("a request added during the compaction cannot be copied") {
            injected = &write_fault;
            before_sync = [&] {
                std::thread{[&] {
                    std::ofstream{folder.path / "journal.new", std::ios::app}.flush();
                    CHECK(journal->add(2, prepared("b")));
                    write_fault.fail(ENOSPC);
                }}.join();
            };
            expected += ", 2 b";
        }
        SUBCASE("the copy cannot be renamed") { (injected = &rename_fault)->fail(EACCES); }
        const std::uint64_t before = journal->bytes();
        CHECK(maintain(*journal) == 1s);
        if (injected)
            CHECK(injected->count == 0);
        CHECK(journal->bytes() >= before);
        CHECK(fs::is_directory(folder.path / "journal.new") == fs::exists(folder.path / "journal.new"));
        fs::remove_all(folder.path / "journal.new");
        now += 1s;
        CHECK_FALSE(maintain(*journal));
        CHECK(journal->bytes() < 300);
        CHECK(journal->add(7, prepared("g")));
        expected += ", 7 g";
    }
    CHECK(pending_in(folder) == expected);
}

#ifndef PROMPTLAYER_NO_THREADS
TEST_CASE("journal: requests added during the syncs of a compaction are acknowledged after it") {
    for (const bool second : {false, true}) {
        const temporary_folder folder;
        {
            const auto journal = open_journal(folder, {.sync_after = 0ms});
            REQUIRE(journal->add(1, prepared("a")));
            need_compaction(*journal);
            const std::uint64_t before = journal->bytes();
            std::thread producer;
            const auto add = [&] {
                producer = std::thread{[&] { CHECK(journal->add(2, prepared("b"))); }};
                while (second && journal->bytes() == before) // until the request waits for the disk
                    std::this_thread::yield();
            };
            before_sync = add;
            if (second)
                before_sync = [&] { before_sync = add; };
            maintain(*journal);
            const auto id = producer.get_id();
            producer.join();
            CHECK((!second || last_syncing == id)); // of the new file
            CHECK(journal->bytes() < 300);
        }
        CHECK(pending_in(folder) == "1 a, 1001 z, 2 b");
    }
}

#endif

#ifndef PROMPTLAYER_NO_THREADS
TEST_CASE("journal: threads that wait for the disk share a sync") {
    const temporary_folder folder;
    const auto journal = open_journal(folder, {.sync_after = 0ms});
    const std::uint64_t size = record_text(1, prepared("").path, "a").size();
    std::vector<std::thread> others;
    before_sync = [&] {
        for (const pl::request_number number : {2U, 3U})
            others.emplace_back([&, number] { CHECK(journal->add(number, prepared("b"))); });
        while (journal->bytes() < empty + 3 * size) // until both wait
            std::this_thread::yield();
    };
    const int before = syncs;
    CHECK(journal->add(1, prepared("a")));
    for (std::thread& other : others)
        other.join();
    CHECK(syncs == before + 2);
}

TEST_CASE("journal: maintain does not truncate the file itself, because that may wait for the disk") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    REQUIRE(journal->add(1, prepared("a")));
    journal->remove(1);
    const int before = truncations;
    maintain(*journal);
    CHECK(fs::file_size(folder.file()) == empty);
    CHECK(truncations == before);
}
#endif

TEST_CASE("journal: removed requests are cut off also if maintain always syncs or cannot compact") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    const auto journal = open_journal(folder, {.sync_after = 1ms, .now = [&] { return now; }});
    for (const bool compaction_fails : {false, true}) {
        if (compaction_fails) {
            sync_fault.fail(EIO);
            open_fault.fail(EMFILE, 1'000'000);
        }
        for (pl::request_number number = 1; number <= 200; ++number) {
            REQUIRE(journal->add(number, prepared(std::string(1'000, 'x'))));
            journal->remove(number);
            now += 7ms;
            while (journal->maintain() == 10ms) // wait for the worker
                std::this_thread::yield();
            CHECK(journal->bytes() < 10'000);
        }
    }
    open_fault.count = 0;
}

TEST_CASE("journal: a file that cannot be truncated is made anew") {
    const temporary_folder folder;
    const auto journal = open_journal(folder);
    REQUIRE(journal->add(1, prepared("a")));
    REQUIRE(journal->add(2, prepared("b")));
    journal->remove(2);
    truncate_fault.fail(EIO, 9);
    maintain(*journal);
    CHECK(truncate_fault.count == 7);
    truncate_fault.count = 0;
    CHECK(journal->bytes() < 100);
    CHECK(fs::file_size(folder.file()) == journal->bytes());
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
        count( // the file and its folder
            [&] { journal = open_journal(folder, {.sync_after = sync_after, .now = [&] { return now; }}); });
        count([&] { REQUIRE(journal->add(1, prepared(std::string(70'000, 'x')))); });
        count([&] { REQUIRE(journal->add(2, prepared("b"))); });
        count([&] { maintain(*journal); });
        now += 1s;
        count([&] { maintain(*journal); });
        count([&] { journal->begin(2); });
        count([&] { journal->begin(2); });
        count([&] { journal->remove(1); });
        count([&] { maintain(*journal); }); // compacts, and syncs the new file twice and its folder
        REQUIRE(journal->add(3, prepared("c")));
        journal->remove(1);
        count([&] { journal = nullptr; });
        fs::remove(folder.file());
        return counts;
    };
    CHECK(counted(0ms) == "2110010030");
    CHECK(counted(1s) == "2000100031");
    CHECK(counted(std::nullopt) == "2000000030");
}

TEST_CASE("journal: a failed sync is an error for its request, and the file is made anew") {
    const temporary_folder folder;
    std::chrono::system_clock::time_point now{std::chrono::hours{480'000}};
    {
        const auto journal = open_journal(folder, {.sync_after = 0ms});
        const int before = syncs;
        sync_fault.fail(EIO);
        const auto added = journal->add(1, prepared("a"));
        REQUIRE_FALSE(added);
        CHECK(contains(added.error().message, "cannot be synced: " + message_of(EIO)));
        journal->remove(1);
        maintain(*journal);
        CHECK(journal->bytes() == empty);
        CHECK(int(syncs) - before == 4); // a compaction
    }
    const auto journal = open_journal(folder, {.sync_after = 1s, .now = [&] { return now; }});
    REQUIRE(journal->add(1, prepared("a")));
    now += 1s;
    sync_fault.fail(EIO);
    CHECK(maintain(*journal) == 1s);
    now += 1s;
    const int before = syncs;
    CHECK_FALSE(maintain(*journal));
    CHECK(syncs == before + 3); // a compaction
}

TEST_CASE("journal: a second journal of the process is rejected even if flock always succeeds") {
    const temporary_folder folder;
    all_locks_succeed = true;
    {
        const auto journal = open_journal(folder);
        CHECK(contains(rejection(folder.file()), "locked by another tracker of this process"));
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
        const auto journal = open_journal(folder, {.sync_after = 0ms});
        write_fault.fail(EINTR, 2);
        sync_fault.fail(EINTR, 2);
        REQUIRE(journal->add(1, prepared("a")));
    }
    read_fault.fail(EINTR, 2);
    CHECK(pending_in(folder) == "1 a");
    CHECK(open_fault.count + write_fault.count + read_fault.count + sync_fault.count == 0);
}

TEST_CASE("journal: a half-written record is overwritten, or removed at the next start") {
    const temporary_folder folder;
    const auto add_half = [&](pl::file_journal& journal) {
        const size_limit limit{journal.bytes() + 40};
        truncate_fault.fail(EIO);
        CHECK_FALSE(journal.add(2, prepared("b")));
        CHECK(fs::file_size(folder.file()) == journal.bytes() + 40);
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
    CHECK(journal->damaged_records() == 0);
    CHECK(fs::file_size(folder.file()) == journal->bytes());
}

TEST_CASE("journal: maintain reads and copies at most about 256 KiB in one call") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        for (pl::request_number number = 1; number <= 3'000; ++number)
            REQUIRE(journal->add(number, prepared(std::string(1'000, 'x'))));
        REQUIRE(journal->add(3'001, prepared(std::string(1'000'000, 'x'))));
        for (pl::request_number number = 1; number <= 2'500; number += 2) // every other
            journal->remove(number);
        for (pl::request_number number = 1; number <= 1'000; ++number)
            journal->remove(number);
    }
    {
        const auto journal = open_journal(folder, {.max_bytes = 5'000'000});
        int calls = 0;
        for (std::optional<std::chrono::milliseconds> wait{0ms}; wait == 0ms; ++calls) {
            const std::uint64_t before = bytes_read;
            wait = journal->maintain();
            CHECK(bytes_read - before <= 256 * 1024);
        }
        CHECK(calls >= 9);
        CHECK(calls <= 13);
        maintain(*journal);
        CHECK(journal->bytes() < 2'500'000);
    }
    CHECK(open_journal(folder)->pending().size() == 2'000 - 750 + 1);
}

#if defined(__cpp_exceptions) && defined(__GLIBC__) && !defined(PROMPTLAYER_NO_THREADS)
TEST_CASE("journal: a compaction runs within maintain if no thread can be created") {
    const temporary_folder folder;
    {
        const auto journal = open_journal(folder);
        REQUIRE(journal->add(1, prepared("a")));
        need_compaction(*journal);
        pthread_attr_t before, unlimited; // of all threads to come
        REQUIRE(::pthread_getattr_default_np(&before) == 0);
        REQUIRE(::pthread_getattr_default_np(&unlimited) == 0);
        ::pthread_attr_setstacksize(&unlimited, std::numeric_limits<std::size_t>::max() / 4 * 3);
        ::pthread_setattr_default_np(&unlimited);
        const auto wait = journal->maintain();
        ::pthread_setattr_default_np(&before);
        ::pthread_attr_destroy(&unlimited);
        ::pthread_attr_destroy(&before);
        CHECK(wait == 10ms);
        CHECK(journal->bytes() < 300);
    }
    CHECK(pending_in(folder) == "1 a, 1001 z");
}
#endif
#endif
