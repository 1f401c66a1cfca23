#ifndef PROMPTLAYER_FILE_JOURNAL_HPP
#define PROMPTLAYER_FILE_JOURNAL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/detail/mutex.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/journal.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>
#ifndef PROMPTLAYER_NO_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#endif

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#include <share.h>
#include <stdlib.h>
#else
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

#if !defined(_WIN32)
/// The files that journals of this process have locked, because `flock` always succeeds on some systems. The
/// process belongs to the key, because a child of `fork` gets a copy. The instance is never destroyed,
/// because static journals may be closed late.
class locked_files {
    mutex mutex_{};

public:
    using id = std::tuple<pid_t, dev_t, ino_t>;

private:
    std::set<id> ids_{};

public:
    static locked_files& instance() {
        static locked_files& files = *new locked_files;
        return files;
    }

    /// Returns false if a journal of this process has locked the file.
    bool add(const id& file) {
        const lock guard{mutex_};
        return ids_.insert(file).second;
    }

    void remove(const id& file) noexcept {
        const lock guard{mutex_};
        ids_.erase(file);
    }
};
#endif

/// An open file. A function that fails returns false and sets `errno`.
class journal_file {
    int descriptor_ = -1;
#if defined(_WIN32)
    mutable mutex mutex_{}; // because reading and writing share one position
#else
    std::optional<locked_files::id> lock_{};
#endif

public:
    enum class use { existing, existing_or_new, new_only, folder };

    journal_file() = default;
    journal_file(const journal_file&) = delete;
    journal_file& operator=(const journal_file&) = delete;
    ~journal_file() { close(); }

#if defined(_WIN32)
    bool open(const std::filesystem::path& path, use purpose) noexcept {
        close();
        const int create = purpose == use::existing   ? 0
                           : purpose == use::new_only ? _O_CREAT | _O_EXCL
                                                      : _O_CREAT;
        if (::_wsopen_s(&descriptor_, path.c_str(), _O_RDWR | create | _O_BINARY | _O_NOINHERIT, _SH_DENYRW,
                        _S_IREAD | _S_IWRITE) == 0)
            return true;
        constexpr unsigned long sharing_violation = 32;
        if (_doserrno == sharing_violation)
            errno = EWOULDBLOCK;
        return false;
    }
    void close() noexcept {
        if (descriptor_ >= 0)
            ::_close(std::exchange(descriptor_, -1));
    }
    bool lock() noexcept { return true; } // `open` locks
    bool is_at(const std::filesystem::path&) const noexcept {
        return true;
    } // nobody can replace an open file
    bool is_linked() const noexcept { return false; }
    std::optional<std::uint64_t> size() const noexcept {
        struct _stat64 status {};
        if (::_fstat64(descriptor_, &status) != 0 || (status.st_mode & _S_IFREG) == 0)
            return std::nullopt;
        return static_cast<std::uint64_t>(status.st_size);
    }
    bool seek(std::uint64_t offset) const noexcept { // a closed descriptor ends the program there
        return descriptor_ >= 0 && ::_lseeki64(descriptor_, static_cast<long long>(offset), SEEK_SET) >= 0;
    }
    long long read_some(std::uint64_t offset, char* to, std::size_t size) const noexcept {
        const detail::lock guard{mutex_};
        return seek(offset) ? ::_read(descriptor_, to, static_cast<unsigned>(size)) : -1;
    }
    long long write_some(std::uint64_t offset, const char* bytes, std::size_t size) const noexcept {
        const detail::lock guard{mutex_};
        return seek(offset) ? ::_write(descriptor_, bytes, static_cast<unsigned>(size)) : -1;
    }
    bool truncate(std::uint64_t size) const noexcept {
        return descriptor_ >= 0 && ::_chsize_s(descriptor_, static_cast<long long>(size)) == 0;
    }
    bool sync() const noexcept { return descriptor_ >= 0 && ::_commit(descriptor_) == 0; }
    static bool sync_folder(const std::filesystem::path&) noexcept { return true; } // Windows cannot
#else
    bool open(const std::filesystem::path& path, use purpose) noexcept {
        close();
        const int flags = purpose == use::folder            ? O_RDONLY
                          : purpose == use::existing        ? O_RDWR
                          : purpose == use::existing_or_new ? O_RDWR | O_CREAT
                                                            : O_RDWR | O_CREAT | O_EXCL;
        do // a device or a pipe must not block
            descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, S_IRUSR | S_IWUSR);
        while (descriptor_ < 0 && errno == EINTR);
        return descriptor_ >= 0;
    }
    void close() noexcept {
        if (lock_ && std::get<0>(*lock_) == ::getpid()) // not in a child of `fork`
            locked_files::instance().remove(*lock_);
        lock_.reset();
        if (descriptor_ >= 0)
            ::close(std::exchange(descriptor_, -1));
    }
    /// Sets `errno` to EBUSY if this process has locked the file, and to EWOULDBLOCK if another process has.
    bool lock() {
        struct stat status {};
        if (::fstat(descriptor_, &status) != 0)
            return false;
        const locked_files::id file{::getpid(), status.st_dev, status.st_ino};
        if (!locked_files::instance().add(file)) {
            errno = EBUSY;
            return false;
        }
        lock_ = file;
        return ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    }
    /// Returns whether the path names this file, which is locked.
    bool is_at(const std::filesystem::path& path) const noexcept {
        struct stat status {};
        return ::stat(path.c_str(), &status) == 0 && lock_ &&
               *lock_ == locked_files::id{std::get<0>(*lock_), status.st_dev, status.st_ino};
    }
    bool is_linked() const noexcept {
        struct stat status {};
        return ::fstat(descriptor_, &status) == 0 && status.st_nlink > 0;
    }
    /// Returns nullopt if this is a folder, a pipe or a device.
    std::optional<std::uint64_t> size() const noexcept {
        struct stat status {};
        if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode))
            return std::nullopt;
        return static_cast<std::uint64_t>(status.st_size);
    }
    long long read_some(std::uint64_t offset, char* to, std::size_t size) const noexcept {
        return ::pread(descriptor_, to, size, static_cast<off_t>(offset));
    }
    long long write_some(std::uint64_t offset, const char* bytes, std::size_t size) const noexcept {
        return ::pwrite(descriptor_, bytes, size, static_cast<off_t>(offset));
    }
    bool truncate(std::uint64_t size) const noexcept {
        return ::ftruncate(descriptor_, static_cast<off_t>(size)) == 0;
    }
    bool sync() const noexcept {
#if defined(F_FULLFSYNC)
        if (::fcntl(descriptor_, F_FULLFSYNC) == 0) // macOS: fsync leaves the data in the drive's cache
            return true;
#endif
        while (::fsync(descriptor_) != 0)
            if (errno != EINTR)
                return false;
        return true;
    }
    /// Writes the names of the files in a folder to the disk.
    static bool sync_folder(const std::filesystem::path& path) noexcept {
        journal_file folder;
        return folder.open(path, use::folder) && folder.sync();
    }
#endif

    /// Reads bytes from `offset` on. Returns their count, fewer than `size` only at the end of the file;
    /// nullopt if the file cannot be read.
    std::optional<std::size_t> read(std::uint64_t offset, char* to, std::size_t size) const noexcept {
        std::size_t total = 0;
        while (total < size) {
            const long long count = read_some(offset + total, to + total, std::min(size - total, max_part));
            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0)
                return std::nullopt;
            if (count == 0)
                break;
            total += static_cast<std::size_t>(count);
        }
        return total;
    }

    bool write(std::uint64_t offset, std::string_view bytes) const noexcept {
        while (!bytes.empty()) {
            const long long count = write_some(offset, bytes.data(), std::min(bytes.size(), max_part));
            if (count < 0 && errno == EINTR)
                continue;
            if (count == 0)
                errno = ENOSPC;
            if (count <= 0)
                return false;
            offset += static_cast<std::uint64_t>(count);
            bytes.remove_prefix(static_cast<std::size_t>(count));
        }
        return true;
    }

private:
    static constexpr std::size_t max_part = 1024 * 1024 * 1024;
};

inline constexpr auto crc32_table = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
        table[i] = i;
        for (int bit = 0; bit < 8; ++bit)
            table[i] = (table[i] >> 1) ^ ((table[i] & 1) != 0 ? 0xEDB88320U : 0U);
    }
    return table;
}();

/// Returns the CRC-32 that Ethernet and zip use. `crc` is the CRC-32 of the bytes before.
constexpr std::uint32_t crc32(std::string_view bytes, std::uint32_t crc = 0) noexcept {
    crc = ~crc;
    for (const char byte : bytes)
        crc = (crc >> 8) ^ crc32_table[(crc ^ static_cast<unsigned char>(byte)) & 0xFFU];
    return ~crc;
}

/// The format of a journal, numbers little-endian. The file starts with a header:
///
/// - magic (8 bytes), version (4), CRC-32 of both (4).
///
/// Then there is a record for each request:
///
/// - marker (4), state (1): the only byte that is overwritten, so that a change of state needs no space;
/// - flags (1): 1 if the service may receive the request twice; size of the path (2), size of the body (4);
/// - number (8), time of `add` in ms since 1970 (8), CRC-32 of path and body (4);
/// - CRC-32 of the bytes from flags to here (4); path, body.
struct journal_record {
    static constexpr std::string_view magic{"\x89PLJ\r\n\x1A\n"};
    static constexpr std::uint32_t version = 1;
    static constexpr std::size_t header_size = 16;
    static constexpr std::string_view marker{"\xFFPLR"}; // not UTF-8: no path or body contains the marker
    static constexpr std::size_t state_at = 4;
    static constexpr std::size_t head_size = 36;
    enum class state : unsigned char { added = 0x1E, begun = 0x2D, removed = 0xD2 }; // far from each other

    state current = state::added;
    bool idempotent = true;
    std::uint64_t path_size = 0;
    std::uint64_t body_size = 0;
    request_number number = 0;
    std::int64_t created = 0;
    std::uint32_t content_crc = 0;

    static void put(std::string& bytes, std::uint64_t number, int size) {
        for (; size > 0; --size, number >>= 8)
            bytes.push_back(static_cast<char>(static_cast<unsigned char>(number & 0xFFU)));
    }

    static std::uint64_t get(std::string_view bytes) noexcept {
        std::uint64_t number = 0;
        for (; !bytes.empty(); bytes.remove_suffix(1))
            number = (number << 8) | static_cast<unsigned char>(bytes.back());
        return number;
    }

    static std::string header(std::uint32_t format = version) {
        std::string text{magic};
        put(text, format, 4);
        put(text, crc32(text), 4);
        return text;
    }

    std::uint64_t size() const noexcept { return head_size + path_size + body_size; }

    std::string head() const {
        std::string text{marker};
        put(text, static_cast<unsigned char>(current), 1);
        put(text, idempotent ? 1 : 0, 1);
        put(text, path_size, 2);
        put(text, body_size, 4);
        put(text, number, 8);
        put(text, static_cast<std::uint64_t>(created), 8);
        put(text, content_crc, 4);
        put(text, crc32(std::string_view{text}.substr(state_at + 1)), 4);
        return text;
    }

    /// Returns the record with the head at the start of `bytes`; nullopt if there is no intact head.
    static std::optional<journal_record> parse(std::string_view bytes) noexcept {
        if (bytes.size() < head_size || !bytes.starts_with(marker) ||
            crc32(bytes.substr(state_at + 1, 27)) != get(bytes.substr(32, 4)))
            return std::nullopt;
        return journal_record{.current = state{static_cast<unsigned char>(bytes[state_at])},
                              .idempotent = bytes[5] != 0,
                              .path_size = get(bytes.substr(6, 2)),
                              .body_size = get(bytes.substr(8, 4)),
                              .number = get(bytes.substr(12, 8)),
                              .created = static_cast<std::int64_t>(get(bytes.substr(20, 8))),
                              .content_crc = static_cast<std::uint32_t>(get(bytes.substr(28, 4)))};
    }
};

/// Reads a file through a buffer, which moves forward.
class journal_reader {
    const journal_file& file_;
    std::uint64_t offset_ = 0;
    std::size_t size_ = 0;
    std::vector<char> buffer_ = std::vector<char>(capacity);

public:
    static constexpr std::size_t capacity = 256 * 1024;
    bool failed = false; ///< a read failed; `errno` says why

    explicit journal_reader(const journal_file& file) : file_(file) {}

    /// Returns the buffered bytes from `offset` on: at least `size` or `capacity`, except at the end of the
    /// file. Valid until the next call.
    std::string_view at(std::uint64_t offset, std::uint64_t size) noexcept {
        size = std::min<std::uint64_t>(size, capacity);
        if (offset < offset_ || offset + size > offset_ + size_) {
            const auto count = file_.read(offset, buffer_.data(), buffer_.size());
            failed = failed || !count;
            offset_ = offset;
            size_ = count.value_or(0);
        }
        return std::string_view{buffer_.data(), size_}.substr(detail::to_size(offset - offset_));
    }

    /// Calls `use` for the parts of a range, in order.
    void each_part(std::uint64_t offset, std::uint64_t size, const auto& use) noexcept {
        while (size > 0) {
            const std::string_view part = at(offset, size).substr(0, detail::to_size(size));
            if (part.empty())
                return;
            use(part);
            offset += part.size();
            size -= part.size();
        }
    }
};

#ifndef PROMPTLAYER_NO_THREADS
using journal_lock = std::unique_lock<std::mutex>;

/// Runs one job at a time on a thread of its own, which starts with the first job.
class journal_worker {
    std::mutex mutex_{};
    std::condition_variable condition_{};
    std::function<void()> job_{};
    bool stopping_ = false;
    std::thread thread_{};

    void run() {
        std::unique_lock guard{mutex_};
        for (;;) {
            condition_.wait(guard, [&] { return job_ || stopping_; });
            if (!job_)
                return;
            guard.unlock();
            job_();
            guard.lock();
            job_ = nullptr;
        }
    }

public:
    std::condition_variable synced{}; ///< of the journal: `syncing_` has become false

    bool is_busy() {
        const std::lock_guard guard{mutex_};
        return job_ != nullptr;
    }

    /// Runs the job on the calling thread if no thread can be created.
    void start(std::function<void()> job) {
        {
            const std::lock_guard guard{mutex_};
            job_ = std::move(job);
        }
        const bool has_thread = guard_exceptions(
            [&] {
                if (!thread_.joinable())
                    thread_ = std::thread{[this] { run(); }};
                return true;
            },
            [](const char*) { return false; });
        condition_.notify_one();
        if (!has_thread) {
            job_();
            const std::lock_guard guard{mutex_};
            job_ = nullptr;
        }
    }

    /// Waits for the job and ends the thread.
    void stop() {
        {
            const std::lock_guard guard{mutex_};
            stopping_ = true;
        }
        condition_.notify_one();
        if (thread_.joinable())
            thread_.join();
    }
};
#else
struct journal_lock {
    explicit journal_lock(mutex&) noexcept {}
    void lock() noexcept {}
    void unlock() noexcept {}
};

struct journal_worker {
    static bool is_busy() noexcept { return false; }
    static void start(const std::function<void()>& job) { job(); }
    static void stop() noexcept {}
};
#endif

} // namespace detail

/// The limits of a `file_journal`.
struct file_journal_settings {
    /// The largest size of the file. During compaction, a copy may need as much space again.
    std::uint64_t max_bytes = 64 * 1024 * 1024;
    /// The time after which a request is written to the disk (`fsync`). A crash of the process never loses a
    /// request that was reported as queued. A crash of the system, or a loss of power, loses
    /// - with 0: nothing; `add` and `begin` wait for the disk, and concurrent calls share an `fsync`;
    /// - with another time: the requests queued within that time before, or while the last request was in
    ///   flight; a thread of the journal waits for the disk;
    /// - with nullopt: everything that the system had not yet written, often the last half minute.
    std::optional<std::chrono::milliseconds> sync_after{1'000};
    /// Returns the time of day; if empty, the system's clock is used. Called by any thread. The time is
    /// recorded with each request, and gives its age after a restart.
    std::function<std::chrono::system_clock::time_point()> now{};
};

/// A journal in one file. During compaction there is also a file `NAME.new`.
///
/// - The file contains the requests in clear text, and so the values of users' prompts; never the API key. On
///   POSIX its mode is 0600; on Windows it has the permissions of its folder.
/// - The file is locked, so that no other tracker, of any process, uses the journal.
/// - Head and content of each record have a CRC-32. When the journal is opened, a torn record at the end is
///   cut off, and a damaged record is skipped and counted. All other records are kept.
/// - The file is compacted: the pending requests are copied to a new file. This happens when removed requests
///   take up more than half of the file and 64 KiB, or earlier as the file nears `max_bytes`. Removed
///   requests at the end of the file are cut off.
/// - If someone removes or replaces the file, each `add` returns an error until the file is made anew with
///   the pending requests. A file in its place is renamed to `NAME.replaced`, unless such a file
///   exists already. Then `add` returns errors until someone moves that file away.
/// - In a child of `fork`, `add` returns an error and the other functions do nothing. The child shares the
///   lock until it ends or executes another program.
/// - A thread of the journal, which starts when it is first needed, calls `fsync` and `ftruncate`. So
///   `maintain` does not wait for these calls, except with `PROMPTLAYER_NO_THREADS`. Writes go to the cache
///   of the system, which may delay a write by some milliseconds while the disk is busy.
class file_journal final : public journal {
    using file = detail::journal_file;
    using record = detail::journal_record;
    using milliseconds = std::chrono::milliseconds;
    using wall_time = std::chrono::system_clock::time_point;

    struct record_location {
        std::array<std::uint64_t, 2> offset{}; // in each of `files_`
        std::uint64_t size = 0;
        request_number number = 0;
        record::state state = record::state::added;
    };
    using locations = std::map<std::uint64_t, record_location>; // in the order of the file

    using state_change = std::pair<std::uint64_t, record::state>; // the offset of the byte and its value

    // The progress of a compaction. `copying`: by `maintain`, a slice at a time; `finishing`: by the worker.
    enum class phase { idle, copying, finishing };

    static constexpr std::uint64_t compaction_threshold = 64 * 1024;
    static constexpr std::uint64_t slice_size = 256 * 1024;
    static constexpr milliseconds retry_delay{1'000}; // after a failure of the file system
    static constexpr milliseconds worker_delay{10};   // until `maintain` looks again whether a job has ended

    std::filesystem::path path_; // absolute, because the working directory may change, and without links
    std::filesystem::path copy_path_{}, replaced_path_{}, folder_{};
    const file_journal_settings settings_;
#if !defined(_WIN32)
    const pid_t process_ = ::getpid();
#endif

    mutable detail::mutex mutex_{}; // protects all members below
    std::array<file, 2> files_{};   // the journal and, during compaction, the copy
    std::size_t current_ = 0;       // the index of the journal; changed only while `syncing_`
    std::uint64_t size_ = 0;        // the size of the intact part of the journal
    locations locations_{};         // of the pending requests
    std::uint64_t next_key_ = 1;    // of `locations_`
    std::unordered_map<request_number, std::uint64_t> keys_{};
    std::uint64_t live_bytes_ = 0;
    std::vector<state_change> unwritten_{}; // changes of the journal that failed, for example on a full disk
    std::optional<wall_time> unsynced_since_{};
    std::vector<entry> pending_{};
    std::size_t damaged_records_ = 0;

    phase phase_ = phase::idle;
    bool cut_failed_ = false; // `ftruncate` failed since the last compaction
    bool rewrite_ = false;    // a compaction is needed because the file or its content may be lost
    std::optional<wall_time> retry_at_{}; // no compaction before
    bool copy_failed_ = false;
    std::uint64_t next_copied_ = 0;   // the key of the next record to copy; the records before are copied
    std::uint64_t partly_copied_ = 0; // the bytes of that record that are copied
    std::uint64_t copy_size_ = 0;     // without that record
    std::vector<char> buffer_{};

    bool syncing_ = false; // a thread calls `fsync` for `add` and `begin`, or the worker replaces the journal
#ifndef PROMPTLAYER_NO_THREADS
    using sync_result = std::optional<int>;                                // 0 or an error of `errno`
    std::shared_ptr<sync_result> round_ = std::make_shared<sync_result>(); // for what has been written
#endif
    // A child of `fork` leaks the worker: its thread is missing there, and a destructor would wait for it.
    std::unique_ptr<detail::journal_worker> worker_ = std::make_unique<detail::journal_worker>();

    file_journal(std::filesystem::path path, file_journal_settings settings)
        : path_(std::move(path)), settings_(std::move(settings)) {}

    file& current_file() noexcept { return files_[current_]; }
    file& copy_file() noexcept { return files_[1 - current_]; }

    std::filesystem::path sibling_path(const char* suffix) const {
        std::filesystem::path path = path_;
        return path += suffix;
    }

    error failed(std::string_view problem) const {
        const auto name = path_.u8string();
        return {.code = errc::journal_failed,
                .message = std::string{name.begin(), name.end()}.append(": ").append(problem)};
    }

    error add_failed(std::string problem) const {
        return failed(problem += "; the request is queued in memory only");
    }

    /// Returns a sentence for an error of `errno`.
    std::string describe(int cause) const {
        switch (cause) {
        case EBUSY: return "the journal is locked by another tracker of this process; use another path";
        case EWOULDBLOCK: return "the journal is locked by another process; use another path";
        case EROFS: return "the file system is read-only; use another path";
        case ENOENT:
        case ENOTDIR: return "the folder does not exist; create it first";
        case ENXIO:
        case EISDIR: return "this is not a file; use the path of a file";
        case ENOSPC: return "the disk is full; make room";
#if defined(EDQUOT)
        case EDQUOT: return "the user's quota of the disk is used up; make room";
#endif
        case EACCES:
        case EPERM: {
            std::error_code ec;
            const auto status = std::filesystem::status(path_, ec);
            if (is_directory(status)) // Windows does not say so
                return describe(EISDIR);
            const bool writable =
                (status.permissions() & std::filesystem::perms::owner_write) != std::filesystem::perms::none;
            return exists(status) && !writable
                       ? "the file is read-only; make it writable or use another path"
                       : "no permission to read and write the file; change its permissions or its folder's";
        }
        default: return std::generic_category().message(cause);
        }
    }

    bool sync_every_write() const { return settings_.sync_after && *settings_.sync_after <= milliseconds{0}; }

    bool in_owner_process() const noexcept {
#if defined(_WIN32)
        return true;
#else
        return ::getpid() == process_;
#endif
    }

    wall_time now() const { return settings_.now ? settings_.now() : std::chrono::system_clock::now(); }

    static std::int64_t to_milliseconds(wall_time time) {
        return std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
    }

    /// Returns whether a tracker may have added the request. Another path could send the key elsewhere.
    static bool is_plausible(request_number number, std::string_view path) noexcept {
        return number != 0 && number < std::numeric_limits<request_number>::max() / 2 &&
               path.size() <= std::numeric_limits<std::uint16_t>::max() && path.starts_with('/') &&
               std::none_of(path.begin(), path.end(),
                            [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7F; });
    }

    /// Opens and locks the file.
    result<void> lock_file() {
        std::error_code ec;
        if (!path_.has_filename())
            return failed("this is not a file; use the path of a file");
        path_ = std::filesystem::absolute(path_, ec);
        for (int attempts = 0; attempts < 100; ++attempts) {
            if (!current_file().open(path_, file::use::existing_or_new))
                return failed(describe(errno));
            if (!current_file().lock())
                return failed(describe(errno));
            auto canonical = std::filesystem::canonical(path_, ec); // empty if another tracker removed it
            if (!ec && current_file().is_at(canonical)) {
                path_ = std::move(canonical);
                return {};
            }
            // The tracker that had locked the file has replaced it meanwhile.
            if (ec && ec != std::errc::no_such_file_or_directory)
                return failed(describe(ec.value()));
        }
        return failed("the file is replaced again and again while it is opened");
    }

    /// Reads the records. Returns false if the file cannot be read. Takes time proportional to the size of
    /// any file: no byte is checked by more than one CRC-32 of a content.
    bool parse(detail::journal_reader& reader, std::uint64_t file_size) {
        const std::int64_t today = to_milliseconds(now());
        std::size_t unread = 0; // fragments since the last intact record
        bool torn = false;      // the last fragment extends beyond the end
        const auto next_marker = [&](std::uint64_t offset) {
            while (offset < file_size) {
                const std::string_view part = reader.at(offset, record::marker.size());
                const std::size_t found = part.find(record::marker);
                if (found != part.npos)
                    return offset + found;
                if (part.size() < record::marker.size())
                    break;
                offset += part.size() - record::marker.size() + 1;
            }
            return file_size;
        };
        for (std::uint64_t offset = record::header_size; offset < file_size && !reader.failed;) {
            const auto head = record::parse(reader.at(offset, record::head_size));
            torn = head ? head->size() > file_size - offset : file_size - offset < record::head_size;
            if (!head || torn) {
                ++unread;
                offset = next_marker(offset + 1);
                continue;
            }
            if (head->current == record::state::removed || restore(*head, offset, today, reader)) {
                damaged_records_ += std::exchange(unread, 0);
                size_ = offset + head->size();
            } else {
                ++unread;
            }
            offset += head->size();
        }
        damaged_records_ += unread - (torn ? 1 : 0);
        return !reader.failed;
    }

    /// Makes the request of a record pending. Returns false if the record is damaged.
    bool restore(const record& head, std::uint64_t offset, std::int64_t today,
                 detail::journal_reader& reader) {
        if (head.current != record::state::added && head.current != record::state::begun)
            return false;
        const std::uint64_t content = offset + record::head_size;
        std::uint32_t crc = 0;
        reader.each_part(content, head.path_size + head.body_size,
                         [&](std::string_view part) { crc = detail::crc32(part, crc); });
        if (crc != head.content_crc || keys_.contains(head.number))
            return false;
        entry restored{.number = head.number, .begun = head.current == record::state::begun};
        restored.request.idempotent = head.idempotent;
        const auto read = [&](std::uint64_t from, std::uint64_t size, std::string& to) {
            to.reserve(detail::to_size(size));
            reader.each_part(from, size, [&](std::string_view part) { to.append(part); });
        };
        read(content, head.path_size, restored.request.path);
        if (!is_plausible(head.number, restored.request.path))
            return false;
        read(content + head.path_size, head.body_size, restored.request.body);
        const std::int64_t max_age = milliseconds{std::chrono::hours{24 * 366}}.count();
        restored.age = milliseconds{today - std::clamp(head.created, today - max_age, today)};
        pending_.push_back(std::move(restored));
        insert({{offset, offset}, head.size(), head.number, head.current});
        return true;
    }

    /// Changes nothing if memory is exhausted.
    void insert(const record_location& location) {
        locations added;
        added.emplace(next_key_, location);
        keys_.emplace(location.number, next_key_);
        locations_.insert(locations_.end(), added.extract(added.begin()));
        ++next_key_;
        live_bytes_ += location.size;
    }

    void erase(locations::iterator position) {
        live_bytes_ -= position->second.size;
        keys_.erase(position->second.number);
        locations_.erase(position);
    }

    result<void> load() {
        if (auto locked = lock_file(); !locked)
            return locked;
        copy_path_ = sibling_path(".new");
        replaced_path_ = sibling_path(".replaced");
        folder_ = path_.parent_path();
        const auto known_size = current_file().size();
        if (!known_size)
            return failed("this is not a file; use the path of a file");
        const std::uint64_t file_size = *known_size;
        detail::journal_reader reader{current_file()};
        const std::string header = record::header();
        const std::string start{reader.at(0, header.size()).substr(0, header.size())};
        bool all_zero = file_size <= settings_.max_bytes; // a loss of power may leave zeros
        for (std::uint64_t at = 0; all_zero && at < file_size && !reader.failed; at += reader.capacity)
            all_zero = reader.at(at, reader.capacity).find_first_not_of('\0') == std::string_view::npos;
        if (reader.failed)
            return failed(describe(errno));
        const bool is_new = all_zero || (file_size < header.size() && header.starts_with(start));
        const std::uint64_t version = start.size() == header.size() ? record::get(start.substr(8, 4)) : 0;
        if (!is_new && start != header)
            return failed(version > record::version &&
                                  start == record::header(static_cast<std::uint32_t>(version))
                              ? "a newer version of this library has written the journal; use that version, "
                                "or another path"
                              : "the file is not a journal, and stays as it is; use another path");
        size_ = header.size();
        if (!is_new && !parse(reader, file_size))
            return failed(describe(errno));
        std::error_code ec;
        std::filesystem::remove(copy_path_, ec); // of a process that ended during compaction
        if ((is_new && !current_file().write(0, header)) ||
            (size_ < file_size && !current_file().truncate(size_)) || (is_new && !current_file().sync()))
            return failed(describe(errno));
        if (is_new)
            static_cast<void>(file::sync_folder(folder_)); // some file systems cannot
        return {};
    }

    /// Overwrites the state of a request in the journal and, if it is there, in the copy.
    void write_state(std::uint64_t key, const record_location& location) {
        const char byte = static_cast<char>(location.state);
        const std::uint64_t offset = location.offset[current_] + record::state_at;
        if (!unwritten_.empty() || !current_file().write(offset, {&byte, 1}))
            unwritten_.emplace_back(offset, location.state);
        if (phase_ != phase::idle && key < next_copied_ &&
            !copy_file().write(location.offset[1 - current_] + record::state_at, {&byte, 1}))
            copy_failed_ = true;
        if (key == next_copied_)
            partly_copied_ = 0; // copied again with the new state, or not at all
    }

    void change_state(request_number number, record::state state) {
        if (!in_owner_process())
            return;
        detail::journal_lock guard{mutex_};
        write_states();
        const auto key = keys_.find(number);
        if (key == keys_.end())
            return;
        record_location& location = locations_.find(key->second)->second;
        if (std::exchange(location.state, state) == state)
            return;
        write_state(key->second, location);
        if (sync_every_write())
            static_cast<void>(commit(guard));
        else
            unsynced_since_ = unsynced_since_.value_or(now());
    }

    /// Tries again to write states, in order: a request may have several.
    void write_states() {
        auto next = unwritten_.begin();
        for (; next != unwritten_.end(); ++next) {
            const char byte = static_cast<char>(next->second);
            if (!current_file().write(next->first, {&byte, 1}))
                break;
        }
        unwritten_.erase(unwritten_.begin(), next);
    }

    /// Waits until everything that has been written is on the disk, and returns 0 or an error of `errno`. One
    /// of the waiting threads syncs for all that wait.
    int commit([[maybe_unused]] detail::journal_lock& guard) {
#ifdef PROMPTLAYER_NO_THREADS
        const int result = current_file().sync() ? 0 : errno;
        rewrite_ = rewrite_ || result != 0; // the system may have discarded what it could not write
        return result;
#else
        const std::shared_ptr<sync_result> round = round_;
        while (!*round) {
            if (syncing_) {
                worker_->synced.wait(guard);
                continue;
            }
            round_ = std::make_shared<sync_result>(); // for what is written from now on
            syncing_ = true;
            const file& current = current_file();
            guard.unlock();
            const int result = current.sync() ? 0 : errno;
            guard.lock();
            *round = result;
            rewrite_ = rewrite_ || result != 0; // as above
            end_syncing();
        }
        return **round;
#endif
    }

    void begin_syncing([[maybe_unused]] detail::journal_lock& guard) {
#ifndef PROMPTLAYER_NO_THREADS
        worker_->synced.wait(guard, [&] { return !syncing_; });
#endif
        syncing_ = true;
    }

    void end_syncing() {
        syncing_ = false;
#ifndef PROMPTLAYER_NO_THREADS
        worker_->synced.notify_all();
#endif
    }

    /// Returns where the last pending request ends in the journal.
    std::uint64_t live_end() const {
        if (locations_.empty())
            return record::header_size;
        const record_location& last = locations_.rbegin()->second;
        return last.offset[current_] + last.size;
    }

    /// Cuts removed requests off the end of the file, which also works on a full disk. Runs on the worker,
    /// because `ftruncate` may wait for the disk.
    void cut_tail() noexcept {
        detail::journal_lock guard{mutex_};
        begin_syncing(guard);
        const std::uint64_t end = live_end();
        if (end < size_) {
            cut_failed_ = !current_file().truncate(end);
            rewrite_ = rewrite_ || cut_failed_;
            if (!cut_failed_) {
                size_ = end;
                std::erase_if(unwritten_, [&](const state_change& change) { return change.first >= end; });
            }
        }
        end_syncing();
    }

    bool needs_compaction() const {
        const std::uint64_t half_removed = 2 * live_bytes_ + compaction_threshold;
        const std::uint64_t near_limit = std::max(live_bytes_ + live_bytes_ / 8, settings_.max_bytes / 2);
        return rewrite_ || live_end() > std::min(half_removed, near_limit) + record::header_size;
    }

    /// Windows removes no file that is open.
    void remove_copy() noexcept {
        copy_file().close();
        std::error_code ec;
        std::filesystem::remove(copy_path_, ec);
    }

    void begin_copy() {
        buffer_.resize(slice_size);
        phase_ = phase::copying;
        next_copied_ = 0;
        partly_copied_ = 0;
        copy_size_ = record::header_size;
        remove_copy();
        copy_failed_ = !copy_file().open(copy_path_, file::use::new_only) || !copy_file().lock() ||
                       !copy_file().write(0, record::header());
    }

    bool is_copied() const { return locations_.empty() || locations_.rbegin()->first < next_copied_; }

    /// Copies the next records, about `slice_size` of the journal: with one read and one write.
    void copy_slice() {
        auto next = locations_.lower_bound(next_copied_);
        if (next == locations_.end() || copy_failed_)
            return;
        next_copied_ = next->first;
        const std::uint64_t start = next->second.offset[current_] + partly_copied_;
        std::uint64_t end = start + std::min(slice_size, next->second.size - partly_copied_);
        auto last = next;
        if (partly_copied_ == 0)
            for (; last != locations_.end(); ++last) {
                const std::uint64_t record_end = last->second.offset[current_] + last->second.size;
                if (record_end - start > slice_size)
                    break;
                end = record_end;
            }
        const auto size = detail::to_size(end - start);
        if (current_file().read(start, buffer_.data(), size) != size) {
            copy_failed_ = true;
            return;
        }
        const std::size_t other = 1 - current_;
        if (last == next) { // a part of a large record
            record_location& location = next->second;
            if (partly_copied_ == 0)
                buffer_[record::state_at] = static_cast<char>(location.state);
            copy_failed_ = !copy_file().write(copy_size_ + partly_copied_, {buffer_.data(), size});
            partly_copied_ += size;
            if (partly_copied_ == location.size) {
                location.offset[other] = copy_size_;
                copy_size_ += std::exchange(partly_copied_, 0);
                ++next_copied_;
            }
            return;
        }
        std::size_t used = 0;
        for (; next != last; ++next) {
            record_location& location = next->second;
            const auto from = detail::to_size(location.offset[current_] - start);
            const auto count = detail::to_size(location.size);
            if (from != used)
                std::memmove(&buffer_[used], &buffer_[from], count);
            buffer_[used + record::state_at] = static_cast<char>(location.state);
            location.offset[other] = copy_size_ + used;
            used += count;
            next_copied_ = next->first + 1;
        }
        copy_failed_ = !copy_file().write(copy_size_, {buffer_.data(), used});
        copy_size_ += used;
    }

    /// Gives the copy the name of the journal.
    bool publish() {
#if defined(_WIN32)
        std::error_code ec;
        copy_file().close(); // Windows renames neither an open file, nor a file to the name of an open file
        current_file().close();
        std::filesystem::rename(copy_path_, path_, ec);
        return (ec ? current_file() : copy_file()).open(path_, file::use::existing) && !ec;
#else
        if (current_file().is_at(path_))
            return ::rename(copy_path_.c_str(), path_.c_str()) == 0;
        if (file other; other.open(path_, file::use::existing))
            return other.size() && other.lock() && other.is_at(path_) && // no tracker uses the file
                   ::link(path_.c_str(), replaced_path_.c_str()) == 0 &&
                   ::rename(copy_path_.c_str(), path_.c_str()) == 0;
        // `link` does not replace a file that another tracker creates at this moment.
        return ::link(copy_path_.c_str(), path_.c_str()) == 0 && ::unlink(copy_path_.c_str()) == 0;
#endif
    }

    /// Replaces the journal by the copy, or removes the copy. Runs on the worker. `add` and `begin` that wait
    /// for the disk wait meanwhile, after the bulk of the copy is on the disk.
    void finish_copy() noexcept {
        detail::journal_lock guard{mutex_};
        const auto sync_copy = [&] {
            guard.unlock();
            copy_failed_ = !copy_file().sync() || copy_failed_;
            guard.lock();
            while (!copy_failed_ && !is_copied()) // what was added meanwhile
                copy_slice();
        };
        static_cast<void>(copy_file().truncate(copy_size_)); // cuts off a part of a removed record
        if (!copy_failed_)
            sync_copy();
        begin_syncing(guard); // so that what is acknowledged is in the synced part of the copy
        const auto unsynced_since = std::exchange(unsynced_since_, std::nullopt);
        if (!copy_failed_)
            sync_copy();
        const bool succeeded = !copy_failed_ && publish();
        if (succeeded) {
            current_ = 1 - current_;
            size_ = copy_size_;
            unwritten_.clear();
            retry_at_.reset();
            rewrite_ = cut_failed_ = false;
        } else {
            unsynced_since_ = unsynced_since ? unsynced_since : unsynced_since_;
            retry_at_ = now() + retry_delay;
        }
        phase_ = phase::idle;
        buffer_ = {};
        guard.unlock();
        if (!succeeded) {
            remove_copy();
        } else if (file::sync_folder(folder_) && copy_file().is_linked()) {
            static_cast<void>(
                copy_file().truncate(record::header_size)); // another name must not send all again
        }
        copy_file().close();
        guard.lock();
        end_syncing();
    }

    /// Syncs the journal after `sync_after`. Runs on the worker.
    void sync_journal() noexcept {
        cut_tail();
        if (current_file().sync())
            return;
        const detail::lock guard{mutex_};
        const wall_time time = now();
        unsynced_since_ = time; // tried again after `sync_after`
        rewrite_ = true;
        retry_at_ = time + retry_delay;
    }

public:
    file_journal(const file_journal&) = delete;
    file_journal& operator=(const file_journal&) = delete;

    ~file_journal() override {
        if (!in_owner_process()) {
            static_cast<void>(worker_.release());
            return;
        }
        worker_->stop();
        write_states();
        if (phase_ != phase::idle)
            remove_copy();
        if (settings_.sync_after && unsynced_since_)
            static_cast<void>(current_file().sync());
    }

    /// Opens a journal, or creates one in an existing folder. Reads the whole file; needs memory for the
    /// pending requests. Returns `journal_failed`, and a message that says what to do:
    /// - if the file cannot be read and written, or the disk is full;
    /// - if another tracker has the journal open;
    /// - if the file is not a journal, or a newer version has written it. The file stays as it is.
    static result<std::unique_ptr<file_journal>> open(std::filesystem::path path,
                                                      file_journal_settings settings = {}) {
        std::unique_ptr<file_journal> journal{new file_journal{std::move(path), std::move(settings)}};
        if (auto loaded = journal->load(); !loaded)
            return std::move(loaded).error();
        return journal;
    }

    /// Returns how many damaged records were skipped when the journal was opened.
    std::size_t damaged_records() const noexcept { return damaged_records_; }

    /// Returns the size of the file.
    std::uint64_t bytes() const {
        const detail::lock guard{mutex_};
        return size_;
    }

    std::vector<entry> pending() override {
        return in_owner_process() ? std::exchange(pending_, {}) : std::vector<entry>{};
    }

    result<void> add(request_number number, const prepared_request& request) override {
        if (!in_owner_process())
            return add_failed("the journal belongs to the parent process; open another journal after fork");
        if (!is_plausible(number, request.path) ||
            request.body.size() > std::numeric_limits<std::uint32_t>::max())
            return add_failed("the journal cannot hold this number, path or size");
        const wall_time time = now();
        const record addition{.idempotent = request.idempotent,
                              .path_size = request.path.size(),
                              .body_size = request.body.size(),
                              .number = number,
                              .created = to_milliseconds(time),
                              .content_crc = detail::crc32(request.body, detail::crc32(request.path))};
        std::string text = addition.head();
        text.reserve(detail::to_size(addition.size()));
        text.append(request.path).append(request.body);

        detail::journal_lock guard{mutex_};
        if (size_ > settings_.max_bytes || text.size() > settings_.max_bytes - size_)
            return add_failed("the journal is full; its max_bytes is " + std::to_string(settings_.max_bytes));
        insert({{size_, size_}, text.size(), number, record::state::added});
        if (!current_file().write(size_, text)) {
            const int cause = errno;
            erase(std::prev(locations_.end()));
            static_cast<void>(
                current_file().truncate(size_)); // if not: the next record or `open` removes the rest
            return add_failed(describe(cause));
        }
        size_ += text.size();
        if (!current_file().is_at(path_)) {
            rewrite_ = true;
            return add_failed("someone removed or replaced the file; it is made anew, unless a file "
                              "NAME.replaced exists: move that away");
        }
        if (!sync_every_write())
            unsynced_since_ = unsynced_since_.value_or(time);
        else if (const int cause = commit(guard); cause != 0)
            return add_failed("the file cannot be synced: " + describe(cause));
        return {};
    }

    void begin(request_number number) override { change_state(number, record::state::begun); }
    void undo_begin(request_number number) override { change_state(number, record::state::added); }

    void remove(request_number number) override {
        if (!in_owner_process())
            return;
        const detail::lock guard{mutex_};
        write_states();
        const auto key = keys_.find(number);
        if (key == keys_.end())
            return;
        const auto position = locations_.find(key->second);
        position->second.state = record::state::removed;
        write_state(key->second, position->second);
        erase(position);
    }

    std::optional<milliseconds> maintain() override {
        if (!in_owner_process())
            return std::nullopt;
        const wall_time time = now();
        std::optional<milliseconds> wait;
        const auto call_within = [&](milliseconds delay) { wait = std::min(delay, wait.value_or(delay)); };
        const bool busy = worker_->is_busy();
        std::function<void()> job;
        detail::journal_lock guard{mutex_};
        write_states();
        if (!unwritten_.empty())
            call_within(retry_delay);
        if (busy)
            call_within(worker_delay);
        if (phase_ == phase::idle && !busy && needs_compaction()) {
            if (!retry_at_ || time >= *retry_at_ || time + retry_delay < *retry_at_) // or set back
                begin_copy();
            else
                call_within(std::chrono::ceil<milliseconds>(*retry_at_ - time));
        }
        if (phase_ == phase::copying) {
            copy_slice();
            if (!copy_failed_ && !is_copied()) {
                call_within(milliseconds{0});
            } else if (!busy) {
                phase_ = phase::finishing;
                job = [this] { finish_copy(); };
            }
        }
        if (unsynced_since_ && settings_.sync_after && !busy && !job) {
            const auto passed = std::chrono::duration_cast<milliseconds>(time - *unsynced_since_);
            if (passed >= *settings_.sync_after || passed < milliseconds{0}) { // or the clock was set back
                unsynced_since_.reset();
                job = [this] { sync_journal(); };
            } else {
                call_within(*settings_.sync_after - passed);
            }
        }
        if (phase_ == phase::idle && !busy && !job && !cut_failed_ && live_end() < size_)
            job = [this] { cut_tail(); };
        guard.unlock();
        if (job) {
            worker_->start(std::move(job));
            call_within(worker_delay);
        }
        return wait;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
