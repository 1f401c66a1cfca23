#ifndef PROMPTLAYER_FILE_JOURNAL_HPP
#define PROMPTLAYER_FILE_JOURNAL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/mutex.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/journal.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#include <share.h>
#else
#include <sys/file.h>
#include <unistd.h>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

#if !defined(_WIN32)
/// The files that journals of this process have locked, by device and inode, because `flock` always succeeds
/// on some systems. The instance is never destroyed, because static journals may be closed late.
class locked_files {
    using id = std::pair<dev_t, ino_t>;

    mutex mutex_{};
    std::set<id> ids_{};

    static std::optional<id> id_of(int descriptor) noexcept {
        struct stat status {};
        if (::fstat(descriptor, &status) != 0)
            return std::nullopt;
        return id{status.st_dev, status.st_ino};
    }

public:
    static locked_files& instance() {
        static locked_files& files = *new locked_files;
        return files;
    }

    /// Returns false and sets `errno` if a journal of this process has locked the file.
    bool add(int descriptor) {
        const auto file = id_of(descriptor);
        const lock guard{mutex_};
        if (!file || ids_.insert(*file).second)
            return file.has_value();
        errno = EWOULDBLOCK;
        return false;
    }

    void remove(int descriptor) noexcept {
        const auto file = id_of(descriptor);
        const lock guard{mutex_};
        if (file)
            ids_.erase(*file);
    }
};
#endif

/// An open file. A function that fails returns false and sets `errno`.
class journal_file {
    int descriptor_ = -1;
    [[maybe_unused]] bool locked_ = false;

public:
    enum class use { reading, writing, creating, locking };

    journal_file() = default;
    journal_file(const journal_file&) = delete;
    journal_file& operator=(const journal_file&) = delete;
    ~journal_file() { close(); }

    explicit operator bool() const noexcept { return descriptor_ >= 0; }

#if defined(_WIN32)
    bool open(const std::filesystem::path& path, use purpose) noexcept {
        close();
        const int create = purpose == use::reading    ? _O_RDONLY
                           : purpose == use::creating ? _O_RDWR | _O_CREAT | _O_EXCL
                                                      : _O_RDWR | _O_CREAT;
        return ::_wsopen_s(&descriptor_, path.c_str(), create | _O_BINARY | _O_NOINHERIT,
                           purpose == use::locking ? _SH_DENYRW : _SH_DENYNO, _S_IREAD | _S_IWRITE) == 0;
    }
    void close() noexcept {
        if (descriptor_ >= 0)
            ::_close(std::exchange(descriptor_, -1));
    }
    bool seek(std::uint64_t offset) const noexcept {
        return ::_lseeki64(descriptor_, static_cast<long long>(offset), SEEK_SET) >= 0;
    }
    long long read_some(char* buffer, std::size_t size) const noexcept {
        return ::_read(descriptor_, buffer, static_cast<unsigned>(size));
    }
    long long write_some(const char* bytes, std::size_t size) const noexcept {
        return ::_write(descriptor_, bytes, static_cast<unsigned>(size));
    }
    bool truncate(std::uint64_t size) const noexcept {
        return ::_chsize_s(descriptor_, static_cast<long long>(size)) == 0;
    }
    bool sync() const noexcept { return ::_commit(descriptor_) == 0; }
    static void sync_folder_of(const std::filesystem::path&) noexcept {} // Windows cannot sync a folder
#else
    bool open(const std::filesystem::path& path, use purpose) {
        close();
        const int flags = purpose == use::reading    ? O_RDONLY
                          : purpose == use::creating ? O_RDWR | O_CREAT | O_EXCL
                                                     : O_RDWR | O_CREAT;
        do
            descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, S_IRUSR | S_IWUSR);
        while (descriptor_ < 0 && errno == EINTR);
        if (descriptor_ < 0 || purpose != use::locking)
            return descriptor_ >= 0;
        locked_ = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 && locked_files::instance().add(descriptor_);
        return locked_;
    }
    void close() noexcept {
        if (std::exchange(locked_, false))
            locked_files::instance().remove(descriptor_);
        if (descriptor_ >= 0)
            ::close(std::exchange(descriptor_, -1));
    }
    bool seek(std::uint64_t offset) const noexcept {
        return ::lseek(descriptor_, static_cast<off_t>(offset), SEEK_SET) >= 0;
    }
    long long read_some(char* buffer, std::size_t size) const noexcept {
        return ::read(descriptor_, buffer, size);
    }
    long long write_some(const char* bytes, std::size_t size) const noexcept {
        return ::write(descriptor_, bytes, size);
    }
    bool truncate(std::uint64_t size) const noexcept {
        return ::ftruncate(descriptor_, static_cast<off_t>(size)) == 0;
    }
    bool sync() const noexcept {
#if defined(F_FULLFSYNC)
        if (::fcntl(descriptor_, F_FULLFSYNC) == 0) // macOS: fsync leaves the data in the drive's cache
            return true;
#endif
        return ::fsync(descriptor_) == 0;
    }
    /// Writes the entry of a new file in its folder to the disk.
    static void sync_folder_of(const std::filesystem::path& path) {
        const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
        if (journal_file file; file.open(folder, use::reading))
            static_cast<void>(file.sync());
    }
#endif

    /// Reads up to `size` bytes from `offset` on; fewer only at the end of the file.
    bool read(std::uint64_t offset, std::uint64_t size, std::string& bytes) const {
        bytes.clear();
        if (!seek(offset))
            return false;
        std::array<char, 64 * 1024> buffer{};
        while (bytes.size() < size) {
            const auto part = std::min<std::uint64_t>(buffer.size(), size - bytes.size());
            const long long count = read_some(buffer.data(), static_cast<std::size_t>(part));
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0)
                return count == 0;
            bytes.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return true;
    }

    bool write(std::uint64_t offset, std::string_view bytes) const noexcept {
        if (!seek(offset))
            return false;
        while (!bytes.empty()) {
            const long long count =
                write_some(bytes.data(), std::min<std::size_t>(bytes.size(), 1024 * 1024 * 1024));
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0)
                return false;
            bytes.remove_prefix(static_cast<std::size_t>(count));
        }
        return true;
    }
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

/// Returns the CRC-32 that Ethernet and zip use.
constexpr std::uint32_t crc32(std::string_view bytes) noexcept {
    std::uint32_t crc = 0xFFFFFFFFU;
    for (const char byte : bytes)
        crc = (crc >> 8) ^ crc32_table[(crc ^ static_cast<unsigned char>(byte)) & 0xFFU];
    return ~crc;
}

/// A record of a journal. Its parts in the file, numbers little-endian:
///
/// - marker (4 bytes), CRC-32 of the bytes after it (4), count of the bytes after this count (4);
/// - number of the request (8);
/// - only if the request is pending: time of `add` in ms since 1970 (8), size of the path (4), path, body.
struct journal_record {
    static constexpr std::string_view marker{"\xFFPL1"}; // not UTF-8: no path or body contains the marker
    static constexpr std::size_t head = 12;              // marker, CRC, count
    static constexpr std::size_t done_size = head + 8;

    outbox::id id = 0;
    bool done = true;
    std::int64_t created = 0;
    std::string_view path{}, body{};

    static void put(std::string& bytes, std::uint64_t number, int size) {
        for (; size > 0; --size, number >>= 8)
            bytes.push_back(static_cast<char>(static_cast<unsigned char>(number & 0xFFU)));
    }

    template <class NumberT = std::uint64_t>
    static NumberT get(std::string_view bytes) noexcept {
        NumberT number = 0;
        while (!bytes.empty()) {
            number = (number << 8) | static_cast<unsigned char>(bytes.back());
            bytes.remove_suffix(1);
        }
        return number;
    }

    std::size_t size() const noexcept {
        return done ? done_size : done_size + 12 + path.size() + body.size();
    }

    std::string text() const {
        std::string checked;
        checked.reserve(size());
        put(checked, size() - head, 4);
        put(checked, id, 8);
        if (!done) {
            put(checked, static_cast<std::uint64_t>(created), 8);
            put(checked, path.size(), 4);
            checked.append(path).append(body);
        }
        std::string text{marker};
        text.reserve(size());
        put(text, crc32(checked), 4);
        return text.append(checked);
    }

    /// Returns the record at the start of `bytes`, to which it refers; nullopt if there is no intact record.
    static std::optional<journal_record> read(std::string_view bytes) noexcept {
        if (!bytes.starts_with(marker) || is_torn(bytes))
            return std::nullopt;
        const std::string_view checked = bytes.substr(8, 4 + get<std::size_t>(bytes.substr(8, 4)));
        std::string_view rest = checked.substr(4);
        if (crc32(checked) != get(bytes.substr(4, 4)) || (rest.size() != 8 && rest.size() < 20))
            return std::nullopt;
        const auto next = [&](std::size_t size) {
            const std::string_view part = rest.substr(0, size);
            rest.remove_prefix(part.size());
            return part;
        };
        journal_record record;
        record.id = get(next(8));
        record.done = rest.empty();
        if (!record.done) {
            record.created = static_cast<std::int64_t>(get(next(8)));
            record.path = next(get<std::size_t>(next(4)));
            record.body = rest;
        }
        return record;
    }

    /// Returns whether the record at the start of `bytes` extends beyond their end.
    static bool is_torn(std::string_view bytes) noexcept {
        return bytes.size() < head || get(bytes.substr(8, 4)) > bytes.size() - head;
    }
};

} // namespace detail

/// The limits of a `file_journal`.
struct file_journal_settings {
    /// The largest size of the file. During compaction, a copy may need as much space again.
    std::uint64_t max_bytes = 64 * 1024 * 1024;
    /// The time after which a request is written to the disk (`fsync`). A crash of the process never loses a
    /// request that was reported as queued. A crash of the system, or a loss of power, loses
    /// - with 0: nothing; `track_prompt` waits for the disk;
    /// - with another time: the requests queued within that time before, or while the last request was in
    ///   flight; the tracker's thread, or `poll`, waits for the disk;
    /// - with nullopt: everything that the system had not yet written, often the last half minute.
    std::optional<std::chrono::milliseconds> sync_after{1'000};
    /// Returns the time of day; if empty, the system's clock is used. Called by any thread. The time is
    /// recorded with each request, and gives its age after a restart.
    std::function<std::chrono::system_clock::time_point()> now{};
};

/// A journal in one file. The file `NAME.lock` beside it ensures that no other tracker, of any process, uses
/// the journal. During compaction there is also a file `NAME.new`.
///
/// - The file contains the requests in clear text, and so the values of users' prompts; never the API key. On
///   POSIX its mode is 0600; on Windows it has the permissions of its folder.
/// - Each record has a length and a CRC-32. When the journal is opened, a torn record at the end is cut off,
///   and a damaged record is skipped and counted. All other records are kept.
/// - The tracker's thread, or `poll`, compacts the file: it copies the pending requests to a new file. This
///   happens when ended requests take up more than half of the file and 64 KiB, or earlier as the file nears
///   `max_bytes`. The file is emptied at once when no request is pending.
/// - A child of `fork` shares the lock until it ends or executes another program.
///
/// Any thread may call any member, except `tend`: one thread at a time may call it.
class file_journal final : public journal {
    using file = detail::journal_file;
    using record = detail::journal_record;
    using milliseconds = std::chrono::milliseconds;
    using wall_time = std::chrono::system_clock::time_point;

    struct place {
        std::uint64_t offset = 0;
        std::uint64_t size = 0;
    };

    static constexpr std::uint64_t slack = 64 * 1024;

    std::filesystem::path path_; // absolute, because the working directory may change, and without links
    const file_journal_settings settings_;
    file lock_{};
    mutable detail::mutex mutex_{}; // protects all members below; only `tend` replaces `file_`
    file file_{};
    std::uint64_t size_ = 0; // the size of the intact part of the file
    std::map<outbox::id, place> live_{};
    std::uint64_t live_bytes_ = 0;
    std::uint64_t compact_above_ = 0; // raised when compaction has failed
    bool tending_ = false;
    std::optional<wall_time> unsynced_since_{};
    std::vector<entry> left_{};
    std::size_t damaged_ = 0;

    file_journal(std::filesystem::path path, file_journal_settings settings)
        : path_(std::move(path)), settings_(std::move(settings)) {}

    std::filesystem::path beside(const char* suffix) const {
        std::filesystem::path path = path_;
        return path += suffix;
    }

    error failed(const char* problem, const std::string& reason) const {
        const auto name = path_.u8string();
        return {.code = errc::journal_failed,
                .message = std::string{name.begin(), name.end()} + ": " + problem +
                           (reason.empty() ? "" : ": ") + reason};
    }

    error failed(const char* problem) const {
        return failed(problem, std::generic_category().message(errno));
    }

    bool syncs_each() const { return settings_.sync_after <= milliseconds{0} && settings_.sync_after; }

    wall_time now() const { return settings_.now ? settings_.now() : std::chrono::system_clock::now(); }

    void forget(std::map<outbox::id, place>::iterator position) {
        live_bytes_ -= position->second.size;
        live_.erase(position);
    }

    bool append(std::string_view bytes) {
        if (!file_) // compaction could not open the new file
            file_.open(path_, file::use::writing);
        if (!file_.write(size_, bytes)) {
            const int cause = errno;
            static_cast<void>(file_.truncate(size_)); // if not: the next record or `open` removes the rest
            errno = cause;
            return false;
        }
        size_ += bytes.size();
        return true;
    }

    bool empty_file() {
        if (!file_.truncate(0))
            return false;
        size_ = 0;
        return true;
    }

    /// Returns whether a tracker may have written the record. Another path could send the key elsewhere.
    static bool is_ours(const record& candidate) noexcept {
        return candidate.id != 0 && candidate.id < std::numeric_limits<outbox::id>::max() / 2 &&
               (candidate.done || (candidate.path.starts_with('/') &&
                                   std::none_of(candidate.path.begin(), candidate.path.end(), [](char c) {
                                       return static_cast<unsigned char>(c) <= ' ' || c == 0x7F;
                                   })));
    }

    /// Reads the content of the file. Returns false if the file is not a journal.
    bool take_in(std::string_view bytes) {
        std::map<outbox::id, record> pending;
        std::size_t unread = 0; // fragments since the last intact record
        bool torn = false;      // whether the last fragment extends beyond the end
        for (std::size_t offset = 0; offset < bytes.size();) {
            const std::string_view rest = bytes.substr(offset);
            if (const auto next = record::read(rest); next && is_ours(*next)) {
                damaged_ += std::exchange(unread, 0);
                if (const auto position = live_.find(next->id); position != live_.end())
                    forget(position);
                pending.erase(next->id);
                if (!next->done) {
                    pending.emplace(next->id, *next);
                    live_.emplace(next->id, place{offset, next->size()});
                    live_bytes_ += next->size();
                }
                offset += next->size();
                size_ = offset;
            } else {
                ++unread;
                torn = record::is_torn(rest);
                offset = std::min(bytes.size(), bytes.find(record::marker, offset + 1));
            }
        }
        const std::string_view start = bytes.substr(0, record::marker.size());
        std::size_t equal = 0;
        for (std::size_t i = 0; i < start.size(); ++i)
            equal += start[i] == record::marker[i] ? 1U : 0U;
        const bool starts_like_journal =
            equal == start.size() || (equal == 3 && bytes.size() >= record::done_size);
        if (size_ == 0 && !starts_like_journal && bytes.find_first_not_of('\0') != bytes.npos)
            return false; // a loss of power may replace a journal by zeros
        damaged_ += unread - (unread != 0 && torn ? 1 : 0);
        const std::int64_t today = std::chrono::duration_cast<milliseconds>(now().time_since_epoch()).count();
        for (const auto& [number, request] : pending) {
            const std::int64_t max_age = milliseconds{std::chrono::hours{24 * 366}}.count();
            const std::int64_t created = std::clamp(request.created, today - max_age, today);
            left_.push_back({number,
                             {std::string{request.path}, std::string{request.body}},
                             milliseconds{today - created}});
        }
        return true;
    }

    result<void> start() {
        std::error_code ec;
        if (!path_.has_filename())
            return failed("is not a file", "");
        path_ = std::filesystem::weakly_canonical(std::filesystem::absolute(path_, ec), ec);
        if (ec)
            return failed("cannot be found", ec.message());
        if (const auto status = std::filesystem::status(path_, ec);
            exists(status) && !is_regular_file(status))
            return failed("is not a file", "");
        if (!lock_.open(beside(".lock"), file::use::locking))
            return failed("cannot be locked; another tracker may be using it");
        std::filesystem::remove(beside(".new"), ec); // of a process that ended during compaction
        std::string bytes;
        if (!file_.open(path_, file::use::writing) ||
            !file_.read(0, std::numeric_limits<std::uint64_t>::max(), bytes))
            return failed("cannot be opened");
        if (!take_in(bytes))
            return failed("is not a journal", "");
        if (size_ < bytes.size() && !file_.truncate(size_))
            return failed("cannot be truncated");
        if (settings_.sync_after)
            file::sync_folder_of(path_);
        return {};
    }

    /// Copies the pending requests into a new file, which replaces the old. Returns whether it succeeded.
    /// Blocks other threads only while it copies the requests that were added during the first copy.
    bool compact() {
        std::map<outbox::id, place> copied;
        std::uint64_t end = 0;
        {
            const detail::lock guard{mutex_};
            copied = live_;
            end = size_;
        }
        const std::filesystem::path new_path = beside(".new");
        std::error_code ec;
        std::filesystem::remove(new_path, ec);
        file source, target;
        if (!source.open(path_, file::use::reading) || !target.open(new_path, file::use::creating))
            return false;
        std::string bytes;
        std::uint64_t size = 0;
        const auto copy = [&](std::uint64_t offset, std::uint64_t count) {
            const bool complete =
                source.read(offset, count, bytes) && bytes.size() == count && target.write(size, bytes);
            size += count;
            return complete;
        };
        for (auto& [number, location] : copied) {
            const std::uint64_t offset = size;
            if (!copy(location.offset, location.size))
                return false;
            location.offset = offset;
        }
        if (settings_.sync_after && !target.sync())
            return false;

        const detail::lock guard{mutex_};
        const std::uint64_t new_end = size;
        if (!copy(end, size_ - end) || (syncs_each() && size != new_end && !target.sync()))
            return false;
        source.close(); // Windows renames neither an open file, nor a file to the name of an open file
        target.close();
        file_.close();
        std::filesystem::rename(new_path, path_, ec);
        const bool reopened = file_.open(path_, file::use::writing);
        if (ec)
            return false;
        for (auto& [number, location] : live_)
            location.offset =
                location.offset < end ? copied.find(number)->second.offset : location.offset - end + new_end;
        size_ = size;
        if (syncs_each())
            file::sync_folder_of(path_);
        return reopened;
    }

public:
    file_journal(const file_journal&) = delete;
    file_journal& operator=(const file_journal&) = delete;

    ~file_journal() override {
        if (settings_.sync_after && unsynced_since_)
            static_cast<void>(file_.sync());
    }

    /// Opens a journal, or creates one in an existing folder. Reads the whole file. Returns `journal_failed`:
    /// - if the file cannot be read and written;
    /// - if another tracker has the journal open;
    /// - if the file is not a journal. The file stays as it is.
    static result<std::unique_ptr<file_journal>> open(std::filesystem::path path,
                                                      file_journal_settings settings = {}) {
        std::unique_ptr<file_journal> journal{new file_journal{std::move(path), std::move(settings)}};
        if (auto started = journal->start(); !started)
            return std::move(started).error();
        return journal;
    }

    /// Returns how many damaged records were skipped when the journal was opened.
    std::size_t damaged() const noexcept { return damaged_; }

    /// Returns the size of the file.
    std::uint64_t bytes() const {
        const detail::lock guard{mutex_};
        return size_;
    }

    std::vector<entry> left() override {
        const detail::lock guard{mutex_};
        return std::exchange(left_, {});
    }

    result<void> add(outbox::id number, const prepared_request& request) override {
        record addition{.id = number, .done = false, .path = request.path, .body = request.body};
        const wall_time time = now();
        addition.created = std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
        const detail::lock guard{mutex_};
        const std::uint64_t reserve = record::done_size * (live_.size() + 1); // so that `done` always fits
        if (addition.size() > std::numeric_limits<std::uint32_t>::max() ||
            addition.size() + reserve > settings_.max_bytes ||
            size_ > settings_.max_bytes - addition.size() - reserve)
            return failed("is full; the request is queued in memory only", "");
        const place location{size_, addition.size()};
        if (!append(addition.text()))
            return failed("cannot be written; the request is queued in memory only");
        live_.emplace(number, location);
        live_bytes_ += location.size;
        if (syncs_each()) {
            if (!file_.sync())
                return failed("cannot be synced; the request may be queued in memory only");
        } else if (!unsynced_since_) {
            unsynced_since_ = time;
        }
        return {};
    }

    void done(outbox::id number) override {
        const detail::lock guard{mutex_};
        const auto position = live_.find(number);
        if (position == live_.end())
            return;
        forget(position);
        if (!live_.empty() || tending_ || !empty_file())
            static_cast<void>(append(record{.id = number}.text())); // on failure, it is sent again once
    }

    std::optional<milliseconds> tend() override {
        bool compacts = false;
        {
            const detail::lock guard{mutex_};
            const std::uint64_t half_ended = 2 * live_bytes_ + slack;
            const std::uint64_t near_limit = std::max(live_bytes_ + live_bytes_ / 8, settings_.max_bytes / 2);
            compacts = size_ > std::max(std::min(half_ended, near_limit), compact_above_);
            tending_ = compacts;
        }
        const bool compacted = compacts && compact();
        if (compacted && settings_.sync_after && !syncs_each())
            file::sync_folder_of(path_);
        bool syncs = false;
        milliseconds wait{0};
        {
            const detail::lock guard{mutex_};
            tending_ = false;
            if (compacts)
                compact_above_ = compacted ? 0 : size_ + slack;
            if (!unsynced_since_ || !settings_.sync_after)
                return std::nullopt;
            const auto passed = std::chrono::duration_cast<milliseconds>(now() - *unsynced_since_);
            syncs = passed >= *settings_.sync_after || passed < milliseconds{0}; // or the clock jumped back
            wait = syncs ? *settings_.sync_after : *settings_.sync_after - passed;
            if (syncs)
                unsynced_since_.reset();
        }
        if (!syncs)
            return wait;
        if (file_.sync())
            return std::nullopt;
        const detail::lock guard{mutex_};
        unsynced_since_ = now();
        return wait;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
