// Tracks the prompts of a JSON Lines file, however long, and can be stopped and resumed. Start it with
// --help.

#include <promptlayer.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <boost/json.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(_WIN32)
#include <io.h>
#else
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>
#endif

namespace {

constexpr std::string_view help =
    R"(Tracks the prompts of a JSON Lines file: one body of POST /rest/track-prompt a line.

usage: backfill [OPTION...] FILE     FILE may be -, that is standard input

  --in-flight N          requests at once, 1 to 256; 8 unless given
  --attempts N           for one line, 1 to 1000; 10 unless given
  --first-wait SECONDS   the longest wait before the second attempt, 0 to 60; 2 unless given. It doubles, up to 60
  --progress FILE        notes which lines have ended; FILE.progress, but none for standard input
  --rejects FILE         gets the lines that failed, and why; FILE.rejects, or stdin.rejects
  --help                 print this

A line has ended when the service has taken it, or when it failed: it is not valid, the service refused it, or did not
take it in so many attempts. The same command again goes on with what has not ended, which may have been added since.
The rejects file, once its lines are mended, is such a FILE too.

PROMPTLAYER_API_KEY    the key; without it, a service inside this process answers
PROMPTLAYER_BASE_URL   where the service is, if not at https://api.promptlayer.com

exit status: 0 all tracked, 1 some lines failed, 2 the command line, the configuration or a file cannot be used,
             3 stopped by a signal (a second one ends it at once), 4 stopped as the service lets nothing through
)";

enum exit_status { success = 0, some_failed = 1, unusable = 2, stopped = 3, no_service = 4 };

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::size_t longest_line = 2 * promptlayer::default_max_request_bytes; // of a rejects file, too
constexpr std::size_t most_open_bytes = promptlayer::default_max_request_bytes;
constexpr std::uint64_t most_ahead = 10'000; // how many lines the oldest that is open may be behind
constexpr int most_given_up = 8;             // in a row: then the service is down

#if defined(_WIN32)
bool is_terminal() { return _isatty(_fileno(stderr)) != 0; }
bool is_ours_alone(const std::string&) { return true; } // not looked at
bool has_input(std::FILE*) { return true; }             // a pipe that brings nothing makes the program wait
auto read_some(std::FILE* from, std::string& room) {
    return _read(_fileno(from), room.data(), static_cast<unsigned>(room.size()));
}
#else
bool is_terminal() { return isatty(STDERR_FILENO) != 0; }
/// Until this process ends.
bool is_ours_alone(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT, 0644);
    return file < 0 || ::flock(file, LOCK_EX | LOCK_NB) == 0;
}
bool has_input(std::FILE* file) {
    pollfd asked{fileno(file), POLLIN, 0};
    return ::poll(&asked, 1, 0) > 0;
}
auto read_some(std::FILE* from, std::string& room) { return read(fileno(from), room.data(), room.size()); }
#endif

#if defined(_WIN32)
constexpr int stop_signals[] = {SIGINT, SIGTERM};
#else
constexpr int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
#endif
volatile std::sig_atomic_t signalled = 0;

extern "C" void on_signal(int) {
    signalled = 1;
    for (const int number : stop_signals)
        std::signal(number, SIG_DFL); // the second one ends the program
}

/// The arguments, and what is wrong with them. No problem repeats a value: it may be a secret.
struct command_line {
    std::map<std::string_view, std::string> given{};
    std::vector<std::string> problems{};

    command_line(int argc, char** argv) {
        for (int i = 1; i < argc; ++i) {
            const std::string_view argument = argv[i];
            const auto equals = argument.find('=');
            std::string_view name = argument.substr(0, equals), value = argument;
            const bool takes_value = name == "--in-flight" || name == "--attempts" ||
                                     name == "--first-wait" || name == "--progress" || name == "--rejects";
            if (takes_value && equals == argument.npos && i + 1 == argc)
                problem(name, "needs a value");
            else if (takes_value)
                value = equals == argument.npos ? argv[++i] : argument.substr(equals + 1);
            else if (!argument.starts_with("--"))
                name = "FILE";
            else if (argument != "--help")
                problem("argument " + std::to_string(i), "is not an option, see --help");
            if (!given.emplace(name, value).second)
                problem(name == "FILE" || takes_value ? name : "an option", "is given more than once");
        }
        if (text("FILE", "").empty())
            problem("FILE", "is missing, see --help");
    }

    void problem(std::string_view where, std::string_view what) {
        problems.push_back(std::string{where}.append(": ").append(what));
    }

    std::string text(std::string_view name, std::string otherwise) const {
        const auto found = given.find(name);
        return found == given.end() ? otherwise : found->second;
    }

    template <class Number>
    Number number(std::string_view name, Number least, Number most, Number otherwise) {
        const auto found = given.find(name);
        if (found == given.end())
            return otherwise;
        std::istringstream in{found->second};
        Number value{};
        if (in >> std::noskipws >> value && in.eof() && value >= least && value <= most)
            return value;
        std::ostringstream rule;
        rule << "must be " << least << " to " << most;
        problem(name, rule.str());
        return otherwise;
    }
};

/// Reads lines, without the white space at their ends, and does not wait for a pipe that brings nothing. Of
/// one that is too long it keeps a byte more than is allowed.
class line_reader {
    std::FILE* file_;
    std::string chunk_ = std::string(64 * 1024, '\0');
    std::string buffer_{};
    std::size_t from_ = 0;     // where the next line begins
    std::size_t searched_ = 0; // as far as there is no end of it
    bool at_end_ = false;

    bool fill() {
        if (at_end_ || failed || !has_input(file_))
            return false;
        const auto count = read_some(file_, chunk_);
        failed = count < 0 && errno != EINTR && errno != EAGAIN;
        at_end_ = count == 0;
        if (count <= 0)
            return at_end_;
        buffer_.erase(0, from_);
        from_ = 0;
        if (buffer_.size() > longest_line)
            buffer_.resize(longest_line + 1);
        searched_ = buffer_.size();
        buffer_.append(chunk_, 0, static_cast<std::size_t>(count));
        bytes += static_cast<std::uint64_t>(count);
        return true;
    }

public:
    std::uint64_t lines = 0; ///< that `next` has returned
    std::uint64_t bytes = 0; ///< that have been read
    bool failed = false;

    explicit line_reader(std::FILE* file) : file_(file) {}

    bool ended() const { return at_end_ && from_ == buffer_.size(); }

    /// None if there is none now.
    std::optional<std::string> next() {
        auto end = buffer_.find('\n', searched_);
        while (end == buffer_.npos && fill())
            end = at_end_ && !ended() ? buffer_.size() : buffer_.find('\n', searched_);
        if (end == buffer_.npos)
            return std::nullopt;
        std::string text = buffer_.substr(from_, end - from_);
        from_ = searched_ = end + (end < buffer_.size() ? 1 : 0);
        ++lines;
        if (text.size() > longest_line)
            text.resize(longest_line + 1);
        else
            text.erase(text.find_last_not_of(" \t\r") + 1);
        return text;
    }
};

struct line {
    std::uint64_t number = 0; ///< from 1
    std::uint64_t checksum = 0;
    std::size_t size = 0;

    line(std::uint64_t at, std::string_view text)
        : number(at), checksum(14695981039346656037u ^ at), size(text.size()) {
        for (const char c : text) // FNV-1a
            checksum = (checksum ^ static_cast<unsigned char>(c)) * 1099511628211u;
    }
};

/// Notes how lines end, in two files: each is there before anything else happens. Of the lines that ended in
/// earlier runs it holds a sum, and those after the first that has not ended one by one.
class ledger {
    std::string heading_, progress_path_, rejects_path_;
    std::ofstream progress_{}, rejects_{};
    std::uint64_t mark_ = 0; // all up to here have ended
    std::uint64_t sum_ = 0;  // of their checksums, less those that have been read again
    std::map<std::uint64_t, std::uint64_t> beyond_{};

    void fail(const std::string& path, std::string_view why) {
        if (problem.empty())
            problem = path + ": " + std::string{why};
    }

    bool take_in(const std::string& text) {
        std::istringstream fields{text};
        std::uint64_t number = 0, checksum = 0;
        std::string outcome;
        if (!(fields >> number >> outcome >> std::hex >> checksum) || !fields.eof() || number <= mark_ ||
            !beyond_.emplace(number, checksum).second)
            return false;
        for (; !beyond_.empty() && beyond_.begin()->first == mark_ + 1; ++mark_) {
            sum_ += beyond_.begin()->second;
            beyond_.erase(beyond_.begin());
        }
        done += outcome == "tracked";
        failed += outcome == "failed";
        return outcome == "tracked" || outcome == "failed" || outcome == "blank";
    }

public:
    std::uint64_t done = 0, failed = 0;
    std::string problem{}; ///< why nothing more can be noted, once that is so

    /// `service`: where lines are sent, since what one service has taken another has not.
    ledger(const std::string& service, std::string progress_path, std::string rejects_path)
        : heading_("promptlayer backfill 1 to " + service), progress_path_(std::move(progress_path)),
          rejects_path_(std::move(rejects_path)) {
        if (progress_path_.empty())
            return;
        if (!is_ours_alone(progress_path_))
            fail(progress_path_, "is in use");
        std::ifstream earlier{progress_path_, std::ios::binary};
        std::string text;
        std::uintmax_t whole = 0; // without a last line that was cut off
        for (bool good = true; std::getline(earlier, text) && !earlier.eof(); whole += text.size() + 1) {
            good = good && (whole == 0 ? text == heading_ : take_in(text));
            if (!good)
                fail(progress_path_, "is not a progress file for " + service);
        }
        if (whole == 0 && !heading_.starts_with(text))
            fail(progress_path_, "is not a progress file");
        if (!problem.empty())
            return;
        std::error_code failed_to;
        if (earlier.is_open())
            std::filesystem::resize_file(progress_path_, whole, failed_to);
        progress_.open(progress_path_, std::ios::binary | std::ios::app);
        if (whole == 0)
            progress_ << heading_ << '\n' << std::flush;
        if (failed_to || !progress_)
            fail(progress_path_, "cannot be written");
    }

    /// Whether a line that has been read ended in an earlier run.
    bool has(const line& read) {
        constexpr std::string_view other = "is of another input: a line that ended was different then";
        if (read.number <= mark_) {
            sum_ -= read.checksum;
            if (read.number == mark_ && sum_ != 0)
                fail(progress_path_, other);
            return true;
        }
        const auto found = beyond_.find(read.number);
        if (found == beyond_.end())
            return false;
        if (found->second != read.checksum)
            fail(progress_path_, other);
        beyond_.erase(found);
        return true;
    }

    void end_of_input(std::uint64_t lines) {
        if (lines < mark_ || !beyond_.empty())
            fail(progress_path_, "is of another input: there were more lines");
    }

    /// `outcome`: tracked, failed or blank.
    void note(const line& ended, std::string_view outcome) {
        if (!problem.empty())
            return;
        done += outcome == "tracked";
        failed += outcome == "failed";
        if (progress_path_.empty())
            return;
        progress_ << std::dec << ended.number << ' ' << outcome << ' ' << std::hex << ended.checksum << '\n'
                  << std::flush;
        if (!progress_)
            fail(progress_path_, "cannot be written");
    }

    void reject(const line& ended, std::string_view why, std::string_view body) {
        if (!problem.empty())
            return;
        if (!rejects_.is_open()) {
            std::ifstream earlier{rejects_path_, std::ios::binary | std::ios::ate};
            const bool cut_off = earlier.is_open() && earlier.tellg() > 0 &&
                                 earlier.seekg(-1, std::ios::end) && earlier.get() != '\n';
            rejects_.open(rejects_path_, std::ios::binary | std::ios::app);
            rejects_ << (cut_off ? "\n" : "");
        }
        boost::json::error_code no_json;
        boost::json::parse(body, no_json);
        rejects_ << R"({"line":)" << ended.number << R"(,"reason":)" << boost::json::serialize(why)
                 << R"(,"body":)" << (no_json ? boost::json::serialize(body) : body) << "}\n"
                 << std::flush;
        if (!rejects_)
            fail(rejects_path_, "cannot be written");
        note(ended, "failed");
    }
};

/// The body in a line, which in one of a rejects file is the last member.
std::string body_of(std::string text) {
    constexpr std::string_view before = R"(,"body":)";
    const auto at = text.starts_with(R"({"line":)") && text.ends_with('}') ? text.find(before) : text.npos;
    if (at == text.npos)
        return text;
    text = text.substr(at + before.size(), text.size() - 1 - at - before.size());
    boost::json::error_code no_json;
    const auto read = boost::json::parse(text, no_json);
    const auto* const quoted = no_json ? nullptr : read.if_string();
    return quoted ? std::string{quoted->data(), quoted->size()} : text;
}

/// Shows how far it is: on a terminal in one line five times a second, else in a new one every five seconds.
class display {
    const bool terminal_ = is_terminal();
    const steady_clock::time_point began_ = steady_clock::now();
    steady_clock::time_point next_ = began_;
    const std::uint64_t earlier_;
    const std::uintmax_t size_; // of the input, 0 if unknown

    static std::string clock(double left) {
        const auto all = static_cast<long long>(left);
        const auto two = [](long long n) { return (n < 10 ? ":0" : ":") + std::to_string(n); };
        return std::to_string(all / 3600) + two(all / 60 % 60) + two(all % 60);
    }

public:
    display(std::uint64_t earlier, std::uintmax_t size) : earlier_(earlier), size_(size) {
        next_ += terminal_ ? milliseconds{200} : milliseconds{5000};
    }

    /// `skipped` are bytes of lines that ended in earlier runs.
    void show(const ledger& lines, std::uint64_t bytes, std::uint64_t skipped, bool last = false) {
        const auto now = steady_clock::now();
        if (now < next_ && !last)
            return;
        next_ = now + (terminal_ ? milliseconds{200} : milliseconds{5000});
        const double took = std::chrono::duration<double>(now - began_).count();
        const auto ended = static_cast<double>(lines.done + lines.failed - earlier_);
        std::string text = std::to_string(lines.done) + " done, " + std::to_string(lines.failed) +
                           " failed, " + std::to_string(static_cast<long long>(took > 0 ? ended / took : 0)) +
                           " a second, ";
        if (last)
            text += clock(took) + " taken";
        else if (size_ >= bytes && bytes > skipped)
            text += clock(took * static_cast<double>(size_ - bytes) / static_cast<double>(bytes - skipped)) +
                    " left";
        else
            text += "time left unknown";
        if (terminal_)
            text = '\r' + text + std::string(text.size() < 78 ? 78 - text.size() : 0, ' ');
        std::cerr << text << (last || !terminal_ ? "\n" : "") << std::flush;
    }
};

} // namespace

int main(int argc, char** argv) {
    command_line arguments{argc, argv};
    if (arguments.given.contains("--help")) {
        std::cout << help << std::flush;
        return std::cout ? success : unusable;
    }
    const int in_flight = arguments.number("--in-flight", 1, 256, 8);
    promptlayer::retry_policy retry;
    retry.max_attempts = static_cast<std::uint32_t>(arguments.number("--attempts", 1, 1000, 10));
    retry.initial_delay = std::chrono::duration_cast<milliseconds>(
        std::chrono::duration<double>{arguments.number("--first-wait", 0.0, 60.0, 2.0)});
    retry.max_delay = seconds{60};

    const std::string path = arguments.text("FILE", "");
    const bool standard = path == "-";
    const std::string progress_path = arguments.text("--progress", standard ? "" : path + ".progress");
    const std::string rejects_path = arguments.text("--rejects", (standard ? "stdin" : path) + ".rejects");
    std::error_code none;
    for (const auto& [one, other] :
         {std::pair{path, progress_path}, {path, rejects_path}, {progress_path, rejects_path}})
        if (one == other || std::filesystem::equivalent(one, other, none))
            arguments.problem("FILE, --progress, --rejects", "must be different files");

    promptlayer::config config = promptlayer::config_from_environment();
    const bool has_key = !config.api_key.empty();
    if (!has_key)
        config.api_key = "no-key";
    for (const promptlayer::violation& wrong : promptlayer::validate(config))
        arguments.problems.push_back(to_string(wrong));
    std::FILE* const file = standard ? stdin : std::fopen(path.c_str(), "rb");
    if (!file && !path.empty())
        arguments.problem("FILE", "cannot be read");
    for (const std::string& problem : arguments.problems)
        std::cerr << problem << '\n';
    if (!arguments.problems.empty())
        return unusable;

    ledger lines{has_key ? config.base_url : "a service inside the process", progress_path, rejects_path};
    line_reader input{file};
    std::optional<promptlayer::testing::loopback_service> service;
    if (!has_key) {
        std::cerr << "PROMPTLAYER_API_KEY is not set: a service inside this process answers.\n";
        config.base_url = service.emplace(config.api_key).base_url();
    }

    std::map<promptlayer::outbox::id, line> open; // lines that are queued or in flight
    std::size_t open_bytes = 0;
    int given_up = 0;     // in a row
    std::string halted{}; // why the service lets nothing through
    const auto close = [&](promptlayer::outbox::id id) {
        const line ended = open.extract(id).mapped();
        open_bytes -= ended.size;
        return ended;
    };
    promptlayer::polled_tracker tracker{
        config, promptlayer::curl_multi_transport{nullptr, in_flight},
        promptlayer::tracker_callbacks{
            .on_delivered =
                [&](promptlayer::outbox::id id, const promptlayer::track_response&) {
                    given_up = 0;
                    lines.note(close(id), "tracked");
                },
            .on_failed =
                [&](const promptlayer::outbox::ended& ended) {
                    const std::string why = to_string(*ended.why);
                    const bool nobody_there = ended.fate == promptlayer::fate::gave_up ||
                                              ended.why->code == promptlayer::errc::not_found;
                    given_up = nobody_there ? given_up + 1 : 0;
                    if (given_up >= most_given_up)
                        halted = why;
                    lines.reject(close(ended.id), why, ended.request.body);
                },
        },
        promptlayer::outbox_settings{.max_bytes = 2 * longest_line,
                                     .max_in_flight = static_cast<std::size_t>(in_flight),
                                     .retry = retry}};

    std::uint64_t skipped = 0; // bytes of lines that ended in earlier runs
    const auto offer = [&](const std::string& text) {
        const line read{input.lines, text};
        if (lines.has(read)) {
            skipped += text.size() + 1;
            return;
        }
        if (text.empty())
            return lines.note(read, "blank");
        const std::string body = body_of(text);
        if (text.size() > longest_line)
            return lines.reject(read, "the line is too long; only its beginning is kept here", body);
        const auto request = promptlayer::from_json<promptlayer::track_prompt>(body);
        const auto queued = request ? tracker.track_prompt(*request) : request.error();
        if (!queued)
            return lines.reject(read, to_string(queued.error()), body);
        open.emplace(*queued, read);
        open_bytes += read.size;
    };

    for (const int number : stop_signals)
        std::signal(number, on_signal);
#if !defined(_WIN32)
    std::signal(SIGPIPE, SIG_IGN); // who reads the progress may go
#endif
    const std::uintmax_t size = standard ? 0 : std::filesystem::file_size(path, none);
    display shown{lines.done + lines.failed, none ? 0 : size};
    while (lines.problem.empty() && !input.failed && !(input.ended() && open.empty())) {
        int turn = 100; // lines, before others are sent
        for (; turn > 0 && lines.problem.empty(); --turn) {
            const bool room = open.size() < 4 * static_cast<std::size_t>(in_flight) &&
                              open_bytes < most_open_bytes &&
                              (open.empty() || input.lines - open.begin()->second.number < most_ahead);
            const auto text = room ? input.next() : std::nullopt;
            if (!text)
                break;
            offer(*text);
        }
        if (input.ended())
            lines.end_of_input(input.lines);
        if (tracker.paused_by())
            halted = to_string(*tracker.paused_by());
        if (signalled || !halted.empty() || !lines.problem.empty())
            break;
        tracker.poll(steady_clock::now(), static_cast<std::size_t>(in_flight));
        if (service)
            service->clear_requests();
        shown.show(lines, input.bytes, skipped);
        const milliseconds pause{turn > 0 ? 10 : 0};
        if (tracker.stats().in_flight > 0)
            tracker.transport().poll(pause); // waits for something to do
        else
            std::this_thread::sleep_for(pause);
    }

    // What is in flight is not begun again, so that it may still be noted.
    const auto patience = steady_clock::now() + seconds{5};
    while (tracker.stats().in_flight > 0 && steady_clock::now() < patience) {
        tracker.poll(steady_clock::now(), 0);
        tracker.transport().poll(milliseconds{10});
    }
    shown.show(lines, input.bytes, skipped, true);
    if (lines.failed > 0)
        std::cerr << "The lines that failed, and why: " << rejects_path << '\n';
    if (input.ended() && open.empty() && lines.problem.empty())
        return lines.failed > 0 ? some_failed : success;

    std::string why = input.failed ? path + ": cannot be read" : lines.problem;
    const int status = !why.empty() ? unusable : !halted.empty() ? no_service : stopped;
    if (status == no_service)
        why = halted;
    std::cerr << "Stopped" << (why.empty() ? "" : ": ") << why << '\n';
    if (progress_path.empty())
        std::cerr << "There is no --progress file that says which lines have ended.\n";
    else if (status != unusable)
        std::cerr << "To go on, start the same command again: " << progress_path
                  << " says which lines have ended.\n";
    return status;
}
