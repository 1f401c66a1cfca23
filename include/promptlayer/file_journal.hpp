#ifndef PROMPTLAYER_FILE_JOURNAL_HPP
#define PROMPTLAYER_FILE_JOURNAL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
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
/// The files that journals of this process have locked, by device and number, because there are systems where
/// `flock` always succeeds. Never destroyed: static journals may be closed after it would have been.
class locked_files {
    using id = std::pair<dev_t, ino_t>;

    mutex mutex_{};
    std::set<id> ids_{};

    static std::optional<id> id_of(int descriptor) noexcept {
        struct stat known {};
        if (::fstat(descriptor, &known) != 0)
            return std::nullopt;
        return id{known.st_dev, known.st_ino};
    }

public:
    static locked_files& instance() {
        static locked_files& made = *new locked_files;
        return made;
    }

    /// Returns false, and sets `errno`, if a journal of this process has the file.
    bool add(int descriptor) {
        const auto file = id_of(descriptor);
        const lock held{mutex_};
        if (!file || ids_.insert(*file).second)
            return file.has_value();
        errno = EWOULDBLOCK;
        return false;
    }

    void remove(int descriptor) noexcept {
        const auto file = id_of(descriptor);
        const lock held{mutex_};
        if (file)
            ids_.erase(*file);
    }
};
#endif

/// A file by its descriptor. A function that fails returns false and leaves why in `errno`.
class journal_file {
    int descriptor_ = -1;
    [[maybe_unused]] bool locked_ = false;

public:
    enum class use { reading, writing, making, locking };

    journal_file() = default;
    journal_file(const journal_file&) = delete;
    journal_file& operator=(const journal_file&) = delete;
    ~journal_file() { close(); }

    explicit operator bool() const noexcept { return descriptor_ >= 0; }

#if defined(_WIN32)
    bool open(const std::filesystem::path& path, use how) noexcept {
        close();
        const int create = how == use::reading  ? _O_RDONLY
                           : how == use::making ? _O_RDWR | _O_CREAT | _O_EXCL
                                                : _O_RDWR | _O_CREAT;
        return ::_wsopen_s(&descriptor_, path.c_str(), create | _O_BINARY | _O_NOINHERIT,
                           how == use::locking ? _SH_DENYRW : _SH_DENYNO, _S_IREAD | _S_IWRITE) == 0;
    }
    void close() noexcept {
        if (descriptor_ >= 0)
            ::_close(std::exchange(descriptor_, -1));
    }
    bool seek(std::uint64_t to) const noexcept {
        return ::_lseeki64(descriptor_, static_cast<long long>(to), SEEK_SET) >= 0;
    }
    long long read_some(char* to, std::size_t size) const noexcept {
        return ::_read(descriptor_, to, static_cast<unsigned>(size));
    }
    long long write_some(const char* from, std::size_t size) const noexcept {
        return ::_write(descriptor_, from, static_cast<unsigned>(size));
    }
    bool truncate(std::uint64_t size) const noexcept {
        return ::_chsize_s(descriptor_, static_cast<long long>(size)) == 0;
    }
    bool sync() const noexcept { return ::_commit(descriptor_) == 0; }
    static void sync_folder_of(const std::filesystem::path&) noexcept {} // there is no such thing
#else
    bool open(const std::filesystem::path& path, use how) {
        close();
        const int flags = how == use::reading  ? O_RDONLY
                          : how == use::making ? O_RDWR | O_CREAT | O_EXCL
                                               : O_RDWR | O_CREAT;
        do
            descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, S_IRUSR | S_IWUSR);
        while (descriptor_ < 0 && errno == EINTR);
        if (descriptor_ < 0 || how != use::locking)
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
    bool seek(std::uint64_t to) const noexcept {
        return ::lseek(descriptor_, static_cast<off_t>(to), SEEK_SET) >= 0;
    }
    long long read_some(char* to, std::size_t size) const noexcept { return ::read(descriptor_, to, size); }
    long long write_some(const char* from, std::size_t size) const noexcept {
        return ::write(descriptor_, from, size);
    }
    bool truncate(std::uint64_t size) const noexcept {
        return ::ftruncate(descriptor_, static_cast<off_t>(size)) == 0;
    }
    bool sync() const noexcept {
#if defined(F_FULLFSYNC)
        if (::fcntl(descriptor_, F_FULLFSYNC) == 0) // macOS, where fsync leaves it in the drive's cache
            return true;
#endif
        return ::fsync(descriptor_) == 0;
    }
    /// Makes a new name last.
    static void sync_folder_of(const std::filesystem::path& path) {
        const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
        if (journal_file opened; opened.open(folder, use::reading))
            static_cast<void>(opened.sync());
    }
#endif

    /// Up to `size` bytes from there on; fewer only at the end.
    bool read(std::uint64_t from, std::uint64_t size, std::string& into) const {
        into.clear();
        if (!seek(from))
            return false;
        std::array<char, 64 * 1024> buffer{};
        while (into.size() < size) {
            const auto most = std::min<std::uint64_t>(buffer.size(), size - into.size());
            const long long count = read_some(buffer.data(), static_cast<std::size_t>(most));
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0)
                return count == 0;
            into.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return true;
    }

    bool write(std::uint64_t to, std::string_view bytes) const noexcept {
        if (!seek(to))
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

/// CRC-32 as of Ethernet and zip.
constexpr std::uint32_t crc32(std::string_view bytes) noexcept {
    std::uint32_t crc = 0xFFFFFFFFU;
    for (const char byte : bytes)
        crc = (crc >> 8) ^ crc32_table[(crc ^ static_cast<unsigned char>(byte)) & 0xFFU];
    return ~crc;
}

/// A record of a journal: marker, CRC-32 of what follows, size of what follows that, number of the request;
/// and unless the record says that the request is done: when it was made, in ms since 1970, size of the
/// path, path, body. Numbers are little-endian.
struct journal_record {
    static constexpr std::string_view marker{"\xFFPL1"}; // no UTF-8, so that no path or body contains it
    static constexpr std::size_t head = 12;              // marker, CRC, size
    static constexpr std::size_t done_size = head + 8;

    outbox::id id = 0;
    bool done = true;
    std::int64_t made = 0;
    std::string_view path{}, body{};

    static void put(std::string& to, std::uint64_t number, int bytes) {
        for (; bytes > 0; --bytes, number >>= 8)
            to.push_back(static_cast<char>(static_cast<unsigned char>(number & 0xFFU)));
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
            put(checked, static_cast<std::uint64_t>(made), 8);
            put(checked, path.size(), 4);
            checked.append(path).append(body);
        }
        std::string whole{marker};
        whole.reserve(size());
        put(whole, crc32(checked), 4);
        return whole.append(checked);
    }

    /// That at the start of `bytes`, which it refers to; none where it is torn or damaged.
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
        journal_record found;
        found.id = get(next(8));
        found.done = rest.empty();
        if (!found.done) {
            found.made = static_cast<std::int64_t>(get(next(8)));
            found.path = next(get<std::size_t>(next(4)));
            found.body = rest;
        }
        return found;
    }

    /// Whether it goes on beyond the end of `bytes`.
    static bool is_torn(std::string_view bytes) noexcept {
        return bytes.size() < head || get(bytes.substr(8, 4)) > bytes.size() - head;
    }
};

} // namespace detail

/// The limits of a `file_journal`.
struct file_journal_settings {
    /// Of the file. While it is compacted, a copy may take as much again.
    std::uint64_t max_bytes = 64 * 1024 * 1024;
    /// How long a request may be in the file and not yet on the disk. Once a request is reported queued, no
    /// crash of the process loses it, whatever this is. A crash of the system, or a loss of power, loses
    /// - with 0 nothing: `track_prompt` waits for the disk (`fsync`);
    /// - else what was queued in that time before, and while the last request was in flight; the tracker's
    ///   thread, or `poll`, waits for the disk;
    /// - if it is empty what the system had not yet written by itself, often half a minute's.
    std::optional<std::chrono::milliseconds> sync_after{1'000};
    /// The time of day; the system's if it is empty. Called by any thread. It tells the age of what an
    /// earlier process left.
    std::function<std::chrono::system_clock::time_point()> now{};
};

/// A journal in one file. Beside it stands `NAME.lock`, by which no two trackers, of whatever process, have
/// it at once, and for a moment `NAME.new`.
///
/// - It holds the requests, and with them the values of users' prompts, in clear; never the API key. On POSIX
///   it is made with mode 0600, on Windows it has the rights of its folder.
/// - A record has its length and a CRC-32. When it is opened, a torn one at the end is cut off, a damaged
///   one is skipped and counted, and the rest is kept.
/// - It is compacted by the tracker's thread, or `poll`, when what is done makes up more than half of it, and
///   64 KiB, or earlier as `max_bytes` comes near; that copies the rest. Where all is done, it is empty at
///   once.
/// - A child of `fork` shares the lock until it ends or executes another program.
///
/// Any thread may call any member, but `tend`, which is for one at a time.
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

    std::filesystem::path path_; // absolute, since the process may go elsewhere, and without links
    const file_journal_settings settings_;
    file lock_{};
    mutable detail::mutex mutex_{}; // of all that follows; `file_` is replaced by `tend` only
    file file_{};
    std::uint64_t size_ = 0; // what is after it could not be written
    std::map<outbox::id, place> live_{};
    std::uint64_t live_bytes_ = 0;
    std::uint64_t compact_above_ = 0; // raised where that has failed
    bool tending_ = false;
    std::optional<wall_time> unsynced_since_{};
    std::vector<entry> left_{};
    std::size_t damaged_ = 0;

    file_journal(std::filesystem::path path, file_journal_settings settings)
        : path_(std::move(path)), settings_(std::move(settings)) {}

    std::filesystem::path beside(const char* suffix) const {
        std::filesystem::path named = path_;
        return named += suffix;
    }

    error failed(const char* what, const std::string& why) const {
        const auto name = path_.u8string();
        return {.code = errc::journal_failed,
                .message =
                    std::string{name.begin(), name.end()} + ": " + what + (why.empty() ? "" : ": ") + why};
    }

    error failed(const char* what) const { return failed(what, std::generic_category().message(errno)); }

    bool syncs_each() const { return settings_.sync_after <= milliseconds{0} && settings_.sync_after; }

    wall_time now() const { return settings_.now ? settings_.now() : std::chrono::system_clock::now(); }

    void forget(std::map<outbox::id, place>::iterator found) {
        live_bytes_ -= found->second.size;
        live_.erase(found);
    }

    bool append(std::string_view bytes) {
        if (!file_) // it could not be opened again once it was compacted
            file_.open(path_, file::use::writing);
        if (!file_.write(size_, bytes)) {
            const int why = errno;
            static_cast<void>(file_.truncate(size_)); // else it is written over, or cut off at the next start
            errno = why;
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

    /// Whether a tracker may have made it; with another path the key might go elsewhere.
    static bool is_ours(const record& found) noexcept {
        return found.id != 0 && found.id < std::numeric_limits<outbox::id>::max() / 2 &&
               (found.done || (found.path.starts_with('/') &&
                               std::none_of(found.path.begin(), found.path.end(), [](char c) {
                                   return static_cast<unsigned char>(c) <= ' ' || c == 0x7F;
                               })));
    }

    /// Whether what the file holds is a journal; if so, takes it in.
    bool take_in(std::string_view bytes) {
        std::map<outbox::id, record> found;
        std::size_t unread = 0; // beginnings of what is no record, since the last one
        bool torn = false;      // the last of those goes on beyond the end
        for (std::size_t at = 0; at < bytes.size();) {
            const std::string_view rest = bytes.substr(at);
            if (const auto next = record::read(rest); next && is_ours(*next)) {
                damaged_ += std::exchange(unread, 0);
                const auto known = live_.find(next->id);
                if (known != live_.end())
                    forget(known);
                found.erase(next->id);
                if (!next->done) {
                    found.emplace(next->id, *next);
                    live_.emplace(next->id, place{at, next->size()});
                    live_bytes_ += next->size();
                }
                at += next->size();
                size_ = at;
            } else {
                ++unread;
                torn = record::is_torn(rest);
                at = std::min(bytes.size(), bytes.find(record::marker, at + 1));
            }
        }
        const std::string_view start = bytes.substr(0, record::marker.size());
        std::size_t alike = 0;
        for (std::size_t i = 0; i < start.size(); ++i)
            alike += start[i] == record::marker[i] ? 1U : 0U;
        const bool begins_like_one =
            alike == start.size() || (alike == 3 && bytes.size() >= record::done_size);
        if (size_ == 0 && !begins_like_one && bytes.find_first_not_of('\0') != bytes.npos)
            return false; // zeros are what a loss of power may leave of one
        damaged_ += unread - (unread != 0 && torn ? 1 : 0);
        const std::int64_t today = std::chrono::duration_cast<milliseconds>(now().time_since_epoch()).count();
        for (const auto& [which, kept] : found) {
            const std::int64_t longest = milliseconds{std::chrono::hours{24 * 366}}.count();
            const std::int64_t made = std::clamp(kept.made, today - longest, today);
            left_.push_back(
                {which, {std::string{kept.path}, std::string{kept.body}}, milliseconds{today - made}});
        }
        return true;
    }

    result<void> start() {
        std::error_code unresolved, unknown;
        if (!path_.has_filename())
            return failed("is no file", "");
        path_ = std::filesystem::weakly_canonical(std::filesystem::absolute(path_, unresolved), unresolved);
        if (unresolved)
            return failed("cannot be found", unresolved.message());
        if (const auto known = std::filesystem::status(path_, unknown);
            exists(known) && !is_regular_file(known))
            return failed("is no file", "");
        if (!lock_.open(beside(".lock"), file::use::locking))
            return failed("cannot be locked, another may have it");
        std::filesystem::remove(beside(".new"), unknown); // of a process that ended while it compacted
        std::string bytes;
        if (!file_.open(path_, file::use::writing) ||
            !file_.read(0, std::numeric_limits<std::uint64_t>::max(), bytes))
            return failed("cannot be opened");
        if (!take_in(bytes))
            return failed("is no journal", "");
        if (size_ < bytes.size() && !file_.truncate(size_))
            return failed("cannot be cut");
        if (settings_.sync_after)
            file::sync_folder_of(path_);
        return {};
    }

    /// Whether what is not done is copied into a file that has taken the place of this one. Holds up others
    /// only for what they have added meanwhile.
    bool compact() {
        std::map<outbox::id, place> copied;
        std::uint64_t end = 0;
        {
            const detail::lock held{mutex_};
            copied = live_;
            end = size_;
        }
        const std::filesystem::path other = beside(".new");
        std::error_code refused;
        std::filesystem::remove(other, refused);
        file from, to;
        if (!from.open(path_, file::use::reading) || !to.open(other, file::use::making))
            return false;
        std::string bytes;
        std::uint64_t size = 0;
        const auto copy = [&](std::uint64_t offset, std::uint64_t count) {
            const bool whole =
                from.read(offset, count, bytes) && bytes.size() == count && to.write(size, bytes);
            size += count;
            return whole;
        };
        for (auto& [which, where] : copied) {
            const std::uint64_t moved = size;
            if (!copy(where.offset, where.size))
                return false;
            where.offset = moved;
        }
        if (settings_.sync_after && !to.sync())
            return false;

        const detail::lock held{mutex_};
        const std::uint64_t moved = size;
        if (!copy(end, size_ - end) || (syncs_each() && size != moved && !to.sync()))
            return false;
        from.close(); // Windows renames no open file, nor to the name of one
        to.close();
        file_.close();
        std::filesystem::rename(other, path_, refused);
        const bool opened = file_.open(path_, file::use::writing);
        if (refused)
            return false;
        for (auto& [which, where] : live_)
            where.offset =
                where.offset < end ? copied.find(which)->second.offset : where.offset - end + moved;
        size_ = size;
        if (syncs_each())
            file::sync_folder_of(path_);
        return opened;
    }

public:
    file_journal(const file_journal&) = delete;
    file_journal& operator=(const file_journal&) = delete;

    ~file_journal() override {
        if (settings_.sync_after && unsynced_since_)
            static_cast<void>(file_.sync());
    }

    /// Opens a journal, or makes one in a folder that is there. `journal_failed` if it cannot be read and
    /// written, another has it, or the file is something else, which is then left as it is. Reads all of it.
    static result<std::unique_ptr<file_journal>> open(std::filesystem::path path,
                                                      file_journal_settings settings = {}) {
        std::unique_ptr<file_journal> made{new file_journal{std::move(path), std::move(settings)}};
        if (auto started = made->start(); !started)
            return std::move(started).error();
        return made;
    }

    /// How many records were damaged when it was opened, and skipped.
    std::size_t damaged() const noexcept { return damaged_; }

    /// Of the file.
    std::uint64_t bytes() const {
        const detail::lock held{mutex_};
        return size_;
    }

    std::vector<entry> left() override {
        const detail::lock held{mutex_};
        return std::exchange(left_, {});
    }

    result<void> add(outbox::id which, const prepared_request& request) override {
        record made{.id = which, .done = false, .path = request.path, .body = request.body};
        const wall_time time = now();
        made.made = std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
        const detail::lock held{mutex_};
        const std::uint64_t marks = record::done_size * (live_.size() + 1); // there is always room for those
        if (made.size() > std::numeric_limits<std::uint32_t>::max() ||
            made.size() + marks > settings_.max_bytes || size_ > settings_.max_bytes - made.size() - marks)
            return failed("is full, the request is in memory only", "");
        const place where{size_, made.size()};
        if (!append(made.text()))
            return failed("cannot be written, the request is in memory only");
        live_.emplace(which, where);
        live_bytes_ += where.size;
        if (syncs_each()) {
            if (!file_.sync())
                return failed("cannot be synced, the request may be in memory only");
        } else if (!unsynced_since_) {
            unsynced_since_ = time;
        }
        return {};
    }

    void done(outbox::id which) override {
        const detail::lock held{mutex_};
        const auto found = live_.find(which);
        if (found == live_.end())
            return;
        forget(found);
        if (!live_.empty() || tending_ || !empty_file())
            static_cast<void>(append(record{.id = which}.text())); // without it, it is delivered once more
    }

    std::optional<milliseconds> tend() override {
        bool compacts = false;
        {
            const detail::lock held{mutex_};
            const std::uint64_t half = 2 * live_bytes_ + slack;
            const std::uint64_t room = std::max(live_bytes_ + live_bytes_ / 8, settings_.max_bytes / 2);
            compacts = size_ > std::max(std::min(half, room), compact_above_);
            tending_ = compacts;
        }
        const bool compacted = compacts && compact();
        if (compacted && settings_.sync_after && !syncs_each())
            file::sync_folder_of(path_);
        bool syncs = false;
        milliseconds wait{0};
        {
            const detail::lock held{mutex_};
            tending_ = false;
            if (compacts)
                compact_above_ = compacted ? 0 : size_ + slack;
            if (!unsynced_since_ || !settings_.sync_after)
                return std::nullopt;
            const auto passed = std::chrono::duration_cast<milliseconds>(now() - *unsynced_since_);
            syncs = passed >= *settings_.sync_after || passed < milliseconds{0}; // or the clock was set back
            wait = syncs ? *settings_.sync_after : *settings_.sync_after - passed;
            if (syncs)
                unsynced_since_.reset();
        }
        if (!syncs)
            return wait;
        if (file_.sync())
            return std::nullopt;
        const detail::lock held{mutex_};
        unsynced_since_ = now();
        return wait;
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
