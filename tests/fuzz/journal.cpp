// Recovery of a journal from any file, against a plain reading of the file format.
//
// An input is `x` and the bytes of the file, or `j` and the steps that build a journal: see `built`.

#include "fuzz.hpp"

#include <promptlayer/file_journal.hpp>

#include <boost/crc.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

static std::uint64_t bytes_read = 0;

extern "C" ssize_t pread(int descriptor, void* to, std::size_t size, off_t offset) {
    const long count = ::syscall(SYS_pread64, descriptor, to, size, offset);
    bytes_read += count > 0 ? static_cast<std::uint64_t>(count) : 0;
    return count;
}

namespace {

namespace pl = promptlayer;
using fuzz::require;

constexpr std::string_view magic{"\x89PLJ\r\n\x1A\n"}, marker{"\xFFPLR"};
constexpr std::size_t header_size = 16, head_size = 36, buffer_size = 256 * 1024;
constexpr std::uint64_t now = 1'700'000'000'000; // in ms
constexpr std::int64_t today = now, year = 366LL * 24 * 3600 * 1000;

std::uint64_t crc32(std::string_view bytes) {
    boost::crc_32_type crc;
    crc.process_bytes(bytes.data(), bytes.size());
    return crc.checksum();
}

/// Returns a number in little-endian bytes.
std::string bytes_of(std::uint64_t number, int size) {
    std::string bytes;
    for (; size > 0; --size, number >>= 8)
        bytes += static_cast<char>(number & 0xFF);
    return bytes;
}

std::uint64_t number_in(std::string_view bytes) {
    std::uint64_t number = 0;
    for (; !bytes.empty(); bytes.remove_suffix(1))
        number = number << 8 | static_cast<unsigned char>(bytes.back());
    return number;
}

std::string header() {
    const std::string start = std::string{magic} + bytes_of(1, 4);
    return start + bytes_of(crc32(start), 4);
}

/// A head with the sizes of a content that may be missing.
std::string head(char state, bool idempotent, std::uint64_t path_size, std::uint64_t body_size,
                 std::uint64_t number, std::int64_t created, std::uint64_t content_crc) {
    const std::string checked = bytes_of(idempotent, 1) + bytes_of(path_size, 2) + bytes_of(body_size, 4) +
                                bytes_of(number, 8) + bytes_of(static_cast<std::uint64_t>(created), 8) +
                                bytes_of(content_crc, 4);
    return std::string{marker} + state + checked + bytes_of(crc32(checked), 4);
}

/// Builds a file step by step.
std::string built(fuzz::input& in) {
    std::string file = header();
    const auto number = [&] { return in.flag() ? in.up_to(9) : in.up_to(~std::uint64_t{0}); };
    while (!in.empty() && file.size() <= buffer_size) {
        switch (in.take(1)[0]) {
        case 'r': { // a record
            const char state = "\x1E\x2D\xD2\x00"[in.up_to(3)];
            const bool idempotent = in.flag();
            const std::uint64_t id = number();
            const auto created = static_cast<std::int64_t>(now - (in.flag() ? in.up_to(255) : number()));
            const std::string path{in.line()}, body{in.line()};
            file +=
                head(state, idempotent, path.size() & 0xFFFF, body.size(), id, created, crc32(path + body)) +
                path + body;
            break;
        }
        case 'h': // a head without a content
            file += head('\x1E', in.flag(), in.up_to(0xFFFF), in.up_to(in.flag() ? 0xFF : 0xFFFFFFFF),
                         number(), today, 0);
            break;
        case 'b': file += in.line(); break; // bytes
        case 'm': file += marker; break;    // the beginning of a record
        case 'x':                           // a damaged byte
            if (const std::size_t at = in.up_to(0xFFFF); at < file.size())
                file[at] = static_cast<char>(in.up_to(0xFF));
            break;
        case 'c': file.resize(in.up_to(file.size())); break; // a torn file
        case '2':                                            // everything again
            if (file.size() > header_size)
                file += file.substr(header_size);
            break;
        default: break;
        }
    }
    return file;
}

/// What recovery must find in a file.
struct recovery {
    bool is_new = false, is_foreign = false;
    std::uint64_t size = header_size; // that stays
    std::size_t damaged = 0;
    std::vector<pl::journal::entry> pending{};

    explicit recovery(std::string_view file) {
        const std::string start = header();
        is_new = file.find_first_not_of('\0') == file.npos ||
                 (file.size() < start.size() && start.starts_with(file));
        if (is_new)
            return;
        is_foreign = !file.starts_with(start);
        if (is_foreign)
            return;
        std::set<std::uint64_t> numbers;
        bool is_torn = false;
        for (std::size_t at = header_size; at < file.size();) {
            const std::string_view rest = file.substr(at), bytes = rest.substr(0, head_size);
            const bool is_head = bytes.size() == head_size && bytes.starts_with(marker) &&
                                 crc32(bytes.substr(5, 27)) == number_in(bytes.substr(32));
            const std::size_t path_size = is_head ? number_in(bytes.substr(6, 2)) : 0;
            const std::size_t record_size =
                head_size + path_size + (is_head ? number_in(bytes.substr(8, 4)) : 0);
            is_torn = rest.size() < record_size;
            if (!is_head || is_torn) {
                ++damaged;
                at = std::min(file.find(marker, at + 1), file.size());
                continue;
            }
            const std::string_view content = rest.substr(head_size, record_size - head_size);
            const std::string_view path = content.substr(0, path_size);
            const std::uint64_t number = number_in(bytes.substr(12, 8));
            const auto created = static_cast<std::int64_t>(number_in(bytes.substr(20, 8)));
            const auto state = static_cast<unsigned char>(bytes[4]);
            const bool is_pending = (state == 0x1E || state == 0x2D) &&
                                    crc32(content) == number_in(bytes.substr(28, 4)) &&
                                    path.starts_with('/') && number != 0 && number < ~std::uint64_t{0} / 2 &&
                                    std::none_of(path.begin(), path.end(),
                                                 [](char c) { return (c >= 0 && c <= ' ') || c == 0x7F; }) &&
                                    numbers.insert(number).second;
            at += record_size;
            if (!is_pending && state != 0xD2) {
                ++damaged;
                continue;
            }
            size = at;
            if (!is_pending)
                continue;
            pending.push_back({.number = number,
                               .age = std::chrono::milliseconds{created > today          ? 0
                                                                : created < today - year ? year
                                                                                         : today - created},
                               .begun = state == 0x2D});
            pending.back().request.path = path;
            pending.back().request.body = content.substr(path_size);
            pending.back().request.idempotent = bytes[5] != 0;
        }
        damaged -= is_torn ? 1 : 0;
    }
};

struct folder {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("promptlayer-fuzz-" + std::to_string(::getpid()));

    folder() { std::filesystem::create_directory(path); }
    ~folder() { std::filesystem::remove_all(path); }

    std::filesystem::path file() const { return path / "journal"; }

    std::string content() const {
        std::ifstream stream{file(), std::ios::binary};
        return {std::istreambuf_iterator<char>{stream}, {}};
    }

    pl::result<std::unique_ptr<pl::file_journal>> open() const {
        pl::file_journal_settings settings{.sync_after = std::nullopt};
        settings.now = [] { return std::chrono::system_clock::time_point{std::chrono::milliseconds{today}}; };
        return pl::file_journal::open(file(), settings);
    }
};

void require_same(const std::vector<pl::journal::entry>& found,
                  const std::vector<pl::journal::entry>& expected) {
    require(found.size() == expected.size(), "exactly the intact records are found");
    for (std::size_t i = 0; i < found.size(); ++i)
        require(found[i].number == expected[i].number && found[i].request == expected[i].request &&
                    found[i].age == expected[i].age && found[i].begun == expected[i].begun,
                "a record is found as it was added");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const folder folder;
    fuzz::input in{data, size};
    const std::string file = in.take(1) == "j" ? built(in) : std::string{in.rest()};
    {
        std::ofstream stream{folder.file(), std::ios::binary};
        stream << file;
    }
    recovery expected{file};
    bytes_read = 0;
    auto journal = folder.open();
    require(bytes_read <= 8 * file.size() + buffer_size, "recovery reads a file a few times at most");
    require(journal.has_value() != expected.is_foreign, "only a foreign file is refused");
    if (!journal) {
        require(folder.content() == file, "a foreign file stays as it is");
        fuzz::require_harmless(journal.error().message);
        return 0;
    }
    require((*journal)->damaged_records() == expected.damaged, "damaged records are counted");
    require((*journal)->bytes() == expected.size, "a torn end is cut off");
    require_same((*journal)->pending(), expected.pending);
    require(folder.content() == (expected.is_new ? header() : file.substr(0, expected.size)),
            "recovery changes nothing before the torn end");

    // The journal can be used, and is recovered again.
    const pl::request_number added = ~pl::request_number{0} / 2 - 1;
    const bool is_added = std::none_of(expected.pending.begin(), expected.pending.end(),
                                       [&](auto& each) { return each.number == added; }) &&
                          (*journal)->add(added, {.path = "/added", .body = "{}"}).has_value();
    if (!expected.pending.empty()) {
        (*journal)->begin(expected.pending.back().number);
        expected.pending.back().begun = true;
        (*journal)->remove(expected.pending.front().number);
        expected.pending.erase(expected.pending.begin());
    }
    if (is_added)
        expected.pending.push_back({.number = added, .request = {.path = "/added", .body = "{}"}});
    journal->reset();
    journal = folder.open();
    require(journal.has_value(), "a recovered journal can be opened again");
    // After damage, another record may have the number of the removed record.
    require_same((*journal)->pending(),
                 expected.damaged == 0 ? expected.pending : recovery{folder.content()}.pending);
    return 0;
}
