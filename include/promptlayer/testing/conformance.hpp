#ifndef PROMPTLAYER_TESTING_CONFORMANCE_HPP
#define PROMPTLAYER_TESTING_CONFORMANCE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/system_error.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <initializer_list>
#include <iosfwd>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace testing {

/// The certificate that a server shows in a TLS case, for the host 127.0.0.1 where nothing else is said.
enum class certificate {
    good,              ///< signed by the authority that the transport was told to trust
    self_signed,       ///< by no authority
    wrong_host,        ///< good, but for another host
    expired,           ///< good until yesterday
    unknown_authority, ///< signed by an authority that the transport does not know
};

/// How a transport is held to its contract.
struct conformance_options {
    /// By how much an outcome may be late where the contract sets a time, but for `cancel()`. A case that
    /// finds nothing but a late outcome is run again, up to five times in all, because the machine may be
    /// busy.
    std::chrono::milliseconds slack{1000};

    /// Starts a server that shows the certificate and passes what it decrypts to a port of 127.0.0.1, and
    /// returns its URL (`https://127.0.0.1:PORT`). Serves until `check_transport` returns. A connection that
    /// is reset at that port ends without a close_notify. Without `tls` the TLS cases are skipped;
    /// `tls_servers` (conformance_tls.hpp) is one.
    std::function<std::string(certificate, std::uint16_t)> tls{};

    /// Cases that the transport cannot pass, by name, each with the reason, which the report repeats. A name
    /// that no case has is a failure in the report.
    std::map<std::string, std::string> skip{};

    /// If not empty, the names of the only cases to run; the others are not in the report.
    std::vector<std::string> only{};
};

enum class verdict { passed, failed, skipped };

/// What became of one case.
struct case_result {
    std::string name{};
    testing::verdict verdict = testing::verdict::passed;
    std::string text{}; ///< failed: what the transport did, what it should do, how to mend it. skipped: why
    std::chrono::milliseconds took{};
};

/// What `check_transport` found.
struct conformance_report {
    std::vector<case_result> cases{};

    std::size_t count(verdict counted) const {
        return static_cast<std::size_t>(std::count_if(
            cases.begin(), cases.end(), [=](const case_result& one) { return one.verdict == counted; }));
    }

    /// No case failed and at least one passed.
    bool ok() const { return count(verdict::failed) == 0 && count(verdict::passed) != 0; }
};

/// The report as a table: one line a case, with its text below it, and the counts.
inline std::string to_string(const conformance_report& report) {
    std::string text;
    for (const case_result& one : report.cases) {
        static constexpr const char* words[] = {"passed", "FAILED", "skipped"};
        std::string line = words[static_cast<std::size_t>(one.verdict)];
        line.append(9 - line.size(), ' ').append(one.name);
        if (one.verdict != verdict::skipped)
            line.append(line.size() < 50 ? 50 - line.size() : 1, ' ')
                .append(std::to_string(one.took.count()))
                .append(" ms");
        text.append(line).append("\n");
        if (!one.text.empty())
            text.append(9, ' ').append(one.text).append("\n");
    }
    return text + std::to_string(report.count(verdict::passed)) + " passed, " +
           std::to_string(report.count(verdict::failed)) + " failed, " +
           std::to_string(report.count(verdict::skipped)) + " skipped\n";
}

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out,
                                              const conformance_report& report) {
    return promptlayer::detail::print(out, report);
}

} // namespace testing

namespace detail {

/// The transport that is checked, whatever its type. `send` waits for the outcome.
struct transport_under_test {
    std::function<transport_result(const http_request&)> send{};
    std::function<void()> cancel{};                           // empty if it has none
    std::function<void(http_request, completion)> start{};    // empty if it is synchronous
    std::function<std::size_t()> completed_again{};           // how often a completion was not the first
    std::function<void(std::chrono::milliseconds)> run_for{}; // lets time pass; turns the loop meanwhile
    bool thread_safe = false;
};

/// Outcomes of requests, each in its place; the first one counts.
struct in_flight {
    std::mutex mutex{};
    std::vector<std::optional<transport_result>> outcomes;

    explicit in_flight(std::size_t count) : outcomes(count) {}

    void take(std::size_t place, transport_result outcome) {
        const std::lock_guard held{mutex};
        if (!outcomes[place])
            outcomes[place].emplace(std::move(outcome));
    }

    std::size_t missing() {
        const std::lock_guard held{mutex};
        return static_cast<std::size_t>(
            std::count_if(outcomes.begin(), outcomes.end(), [](const auto& one) { return !one; }));
    }
};

/// Thrown where the transport breaks the contract: what it did. The rest says the case, unless given.
struct broken {
    std::string did;
    const char* contract = nullptr;
    const char* mend = nullptr;
};

/// Thrown where only the time was wrong, which a busy machine may have caused.
struct late : broken {};

/// Thrown where a case cannot be run: why.
struct skipped_case {
    std::string why;
};

inline const char* name_of(failure kind) {
    static constexpr const char* names[] = {"resolve", "connect",   "tls",  "timeout",
                                            "reset",   "cancelled", "other"};
    const auto place = static_cast<std::size_t>(kind);
    return place < std::size(names) ? names[place] : "(no value of it)";
}

inline std::string describe(const transport_result& outcome) {
    if (outcome)
        return "it returned the status " + std::to_string(outcome->status) + " with a body of " +
               std::to_string(outcome->body.size()) + " bytes";
    const transport_failure& failed = outcome.error();
    return std::string{"it returned failure::"} + name_of(failed.kind) +
           (failed.maybe_delivered ? ", maybe delivered" : ", not delivered") + " (" +
           sanitize(failed.message, 200) + ")";
}

/// Runs an action of the transport's; what it throws breaks the contract.
template <class ActionT>
void no_throw(ActionT&& action) {
    guard_exceptions(action, [](const char* what) -> bool {
        throw broken{"it threw an exception: " + sanitize(what, 200), "a transport does not throw",
                     "catch what your HTTP client throws and return a failure::other"};
    });
}

using scripted_server = testing::scripted_server;
using scripted_response = testing::scripted_response;
using ending = scripted_response::connection_ending;

/// The cases of the contract, each a member that throws `broken` or `skipped_case`, or returns.
class conformance {
    using milliseconds = std::chrono::milliseconds;
    using steady_clock = std::chrono::steady_clock;
    using tcp = boost::asio::ip::tcp;

    static constexpr milliseconds long_enough{10'000};
    static constexpr milliseconds short_time{
        1'200}; // more than a second, since some answers drip a byte in one
    static constexpr std::size_t far_more = 4 * 1024 * 1024; // more than a limit, and than a socket holds
    static constexpr std::size_t small_limit = 10'000;

    const transport_under_test& transport_;
    const testing::conformance_options& options_;
    const milliseconds slack_ = std::min<milliseconds>(options_.slack, std::chrono::hours{1});

    // ---- Requests and answers

    static http_request request_to(std::string url, std::string body = "{}") {
        http_request request;
        request.method = "POST";
        request.url = std::move(url);
        request.headers = {{"X-API-KEY", "pl_conformance"}, {"Content-Type", "application/json"}};
        request.body = std::move(body);
        request.timeout = long_enough;
        request.max_response_bytes = 1024 * 1024;
        return request;
    }

    static scripted_response answer(int status, std::vector<header> headers = {}, std::string body = "{}") {
        scripted_response made;
        made.hold = std::chrono::seconds{5}; // for a transport that waits for the end of the connection
        made.response = {status, std::move(headers), std::move(body)};
        return made;
    }

    static scripted_response raw(std::string bytes, ending then = ending::close_unannounced) {
        scripted_response made;
        made.raw = std::move(bytes);
        made.ending = then;
        made.hold = std::chrono::seconds{then == ending::keep_alive ? 5 : 0};
        return made;
    }

    static scripted_response only(ending then, milliseconds hold = {}) {
        scripted_response made = answer(200, {}, "half of this is missing");
        made.ending = then;
        made.hold = hold;
        return made;
    }

    /// Answers with the request's own body, after a second if that is "late".
    static scripted_response echo_late(const http_request& request) {
        scripted_response told = echo(request);
        told.delay = milliseconds{request.body == "late" ? 1'000 : 0};
        return told;
    }

    static std::string all_bytes() {
        std::string bytes;
        for (int byte = 0; byte < 256; ++byte)
            bytes.push_back(static_cast<char>(byte));
        return bytes;
    }

    /// Holds no two equal runs of some length, so that a piece left out or repeated shows.
    static std::string filler(std::size_t size) {
        std::string bytes(size, '\0');
        std::uint32_t state = 1;
        for (char& byte : bytes) {
            state = state * 1664525 + 1013904223;
            byte = static_cast<char>('a' + (state >> 24) % 26);
        }
        return bytes;
    }

    /// A port that is taken, but that nobody listens on.
    struct refusing_port {
        boost::asio::io_context context{};
        tcp::acceptor acceptor{context};

        refusing_port() {
            acceptor.open(tcp::v4());
            acceptor.bind({boost::asio::ip::address_v4::loopback(), 0});
        }
        std::string url() const {
            return "http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/";
        }
    };

    // ---- What has to hold

    [[noreturn]] static void break_off(std::string did) { throw broken{std::move(did)}; }

    static http_response answered(transport_result outcome, int status) {
        if (!outcome || outcome->status != status)
            break_off(describe(outcome) + " where the server answered " + std::to_string(status));
        return *std::move(outcome);
    }

    static void failed(const transport_result& outcome, std::initializer_list<failure> kinds,
                       std::optional<bool> maybe_delivered) {
        if (outcome || std::find(kinds.begin(), kinds.end(), outcome.error().kind) == kinds.end() ||
            (maybe_delivered && outcome.error().maybe_delivered != *maybe_delivered))
            break_off(describe(outcome));
    }

    static void arrived(std::size_t times, std::size_t expected = 1) {
        if (times != expected)
            throw broken{"the request arrived " + std::to_string(times) + " times",
                         "a transport sends a request once",
                         "turn off retries, authentication and redirects in your HTTP client"};
    }

    static http_request arrived_once(const scripted_server& server) {
        std::vector<http_request> requests = server.requests();
        arrived(requests.size());
        return std::move(requests[0]);
    }

    static std::size_t arrived_with(const scripted_server& server, std::string_view body) {
        const std::vector<http_request> requests = server.requests();
        return static_cast<std::size_t>(std::count_if(
            requests.begin(), requests.end(), [=](const http_request& one) { return one.body == body; }));
    }

    static void same_body(const std::string& got, const std::string& expected) {
        const auto differs = std::mismatch(got.begin(), got.end(), expected.begin(), expected.end()).first;
        if (got.size() != expected.size() || differs != got.end())
            break_off("of a body of " + std::to_string(expected.size()) + " bytes " +
                      std::to_string(got.size()) + " came, the first " +
                      std::to_string(differs - got.begin()) + " of them right");
    }

    /// The values of all headers of that name, in order, joined as RFC 9110, section 5.3, allows.
    static std::string values(const std::vector<header>& headers, std::string_view name) {
        std::string joined;
        std::size_t count = 0;
        for (const header& h : headers) {
            if (equal_ignoring_case(h.name, name))
                joined.append(count++ ? ", " : "").append(h.value);
        }
        return count ? joined : "no " + std::string{name} + " at all";
    }

    static void same_headers(const std::vector<header>& got, const std::vector<header>& expected) {
        for (const header& h : expected) {
            if (values(got, h.name) != values(expected, h.name))
                break_off("of " + h.name + " came \"" + sanitize(values(got, h.name), 200) +
                          "\" in place of \"" + sanitize(values(expected, h.name), 200) + "\"");
        }
    }

    /// Sends a request with that body, which is what comes back.
    void echoes(const scripted_server& server, const std::string& body) const {
        same_body(answered(transport_.send(request_to(server.base_url() + "/", body)), 200).body, body);
    }

    /// Turns the loop until the condition holds; returns whether it does in time.
    template <class ConditionT>
    bool becomes(ConditionT condition) const {
        const auto until = steady_clock::now() + long_enough + slack_;
        while (!condition()) {
            if (steady_clock::now() > until)
                return false;
            transport_.run_for(milliseconds{1});
        }
        return true;
    }

    /// Refused as what cannot be sent; so may methods other than POST be. Returns whether it was.
    static bool refused(const scripted_server& server, const transport_result& outcome) {
        if (!server.requests().empty())
            return false;
        failed(outcome, {failure::other}, false);
        return true;
    }

    /// Sends one request to a server that does as told, and returns what came; the request went once.
    http_response exchanged(const scripted_response& told) const {
        const scripted_server server{[&](const http_request&) { return told; }};
        http_response response = answered(transport_.send(request_to(server.base_url() + "/")),
                                          told.raw ? 200 : told.response.status);
        arrived_once(server);
        return response;
    }

    void fails_with(const scripted_response& told, std::initializer_list<failure> kinds) const {
        const scripted_server server{[&](const http_request&) { return told; }};
        failed(transport_.send(request_to(server.base_url() + "/")), kinds, true);
        arrived_once(server);
    }

    /// Ends with a timeout when its time is up. `told` goes on for `longer()` than that at most.
    void times_out(const std::string& url, std::optional<bool> maybe_delivered,
                   std::string body = "{}") const {
        http_request request = request_to(url, std::move(body));
        request.timeout = short_time;
        const auto start = steady_clock::now();
        const transport_result outcome = transport_.send(request);
        const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
        const std::string when = describe(outcome) + " after " + std::to_string(took.count()) +
                                 " ms of a timeout of " + std::to_string(short_time.count()) + " ms";
        if (took > longer()) // the server has ended the connection meanwhile
            throw late{{when}};
        if (took < short_time / 2 || (outcome && took > short_time + slack_))
            break_off(when);
        if (maybe_delivered && !outcome && outcome.error().kind == failure::timeout &&
            outcome.error().maybe_delivered != *maybe_delivered)
            throw broken{describe(outcome), "what was sent before the timeout is maybe delivered",
                         "set maybe_delivered, or leave it as transport_failure has it for a timeout"};
        failed(outcome, {failure::timeout}, maybe_delivered);
        if (took > short_time + slack_)
            throw late{{when}};
    }

    milliseconds longer() const { return short_time + slack_ + milliseconds{1'000}; }

    /// A body that goes on beyond a limit and then halts: the outcome has to be there before the end.
    void gives_up(scripted_response told) const {
        told.hold = slack_ + milliseconds{1'500};
        const scripted_server server{[&](const http_request&) { return told; }};
        http_request request = request_to(server.base_url() + "/");
        request.max_response_bytes = small_limit;
        const auto start = steady_clock::now();
        const transport_result outcome = transport_.send(request);
        if (steady_clock::now() - start > told.hold)
            break_off(describe(outcome) + ", but only when no more of the body came");
        longer_than_limit(outcome);
    }

    static void longer_than_limit(const transport_result& outcome) {
        if (outcome ? outcome->status != 200 || outcome->body.size() <= small_limit ||
                          outcome->body.size() >= far_more
                    : !outcome.error().maybe_delivered)
            break_off(describe(outcome) + " where the limit was " + std::to_string(small_limit) + " bytes");
    }

    /// A server that answers a request with its own body.
    static scripted_response echo(const http_request& request) { return answer(200, {}, request.body); }

    /// Starts a request; its outcome goes to that place.
    void start(const std::shared_ptr<in_flight>& state, std::size_t place, http_request request) const {
        transport_.start(std::move(request), [state, place](transport_result outcome) {
            state->take(place, std::move(outcome));
        });
    }

    std::shared_ptr<in_flight> places(std::size_t count) const {
        if (!transport_.start)
            throw skipped_case{"the transport is synchronous"};
        return std::make_shared<in_flight>(count);
    }

    /// Turns the loop until every place has its outcome.
    void wait(const std::shared_ptr<in_flight>& state) const {
        if (!becomes([&] { return state->missing() == 0; }))
            break_off(std::to_string(state->missing()) + " of " + std::to_string(state->outcomes.size()) +
                      " requests were not completed");
    }

    /// The answers to requests whose bodies are the numbers of their places.
    static void each_has_its_own(const in_flight& state) {
        for (std::size_t i = 0; i < state.outcomes.size(); ++i)
            same_body(answered(*state.outcomes[i], 200).body, std::to_string(i));
    }

    // ---- The request

    void method() const {
        const scripted_server server{echo};
        http_request request = request_to(server.base_url() + "/");
        answered(transport_.send(request), 200);
        if (arrived_once(server).method != "POST")
            break_off("a POST arrived as " + server.requests()[0].method);
        request.method = "PUT";
        const transport_result outcome = transport_.send(request);
        const std::vector<http_request> requests = server.requests();
        if (requests.size() == 2 && requests[1].method != "PUT")
            break_off("a PUT arrived as " + requests[1].method);
        if (requests.size() > 2)
            break_off("a PUT arrived " + std::to_string(requests.size() - 1) + " times");
        if (requests.size() == 2)
            answered(outcome, 200);
        else
            failed(outcome, {failure::other}, false);
    }

    void target() const {
        const std::string target = "/rest/a%2Fb%20c/../;v=1/~x//?q=%7e&r=a+b&empty=&s=/?:@!$'()*,";
        const scripted_server server{echo};
        answered(transport_.send(request_to(server.base_url() + target)), 200);
        if (arrived_once(server).url != target)
            break_off("the target " + target + " arrived as " + sanitize(server.requests()[0].url, 200));
    }

    void headers_arrive(const std::vector<header>& headers) const {
        const scripted_server server{echo};
        http_request request = request_to(server.base_url() + "/");
        request.headers = headers;
        answered(transport_.send(request), 200);
        same_headers(arrived_once(server).headers, headers);
    }

    void headers() const {
        headers_arrive({{"X-API-KEY", "pl_conformance"},
                        {"X-Spaces", "a b  c"},
                        {"X-Commas", "a, b,c;d=\"e, f\""},
                        {"X-Empty", ""},
                        {"X-Repeated", "1"},
                        {"x-odd-CASE", "~!@#$%^&*()_+{}|<>?`-=[]\\;'/."},
                        {"X-Repeated", "2"},
                        {"X-Long", filler(4000)}});
    }

    void high_bytes() const {
        headers_arrive({{"X-Utf8", "caf\xC3\xA9 \xE2\x82\xAC"}, {"X-Latin1", "\xE9\x80\xFF"}});
    }

    void no_header_twice() const {
        const std::vector<header> given{{"Content-Type", "application/json"},
                                        {"Accept", "application/json"},
                                        {"User-Agent", "conformance/1"}};
        const scripted_server server{echo};
        http_request request = request_to(server.base_url() + "/");
        request.headers = given;
        answered(transport_.send(request), 200);
        const std::vector<header> arrived = arrived_once(server).headers;
        same_headers(arrived, given);
        same_headers(arrived, {{"Content-Length", "2"}, {"Host", server.base_url().substr(7)}});
    }

    void added_headers() const {
        for (const std::size_t size : {std::size_t{2}, 2 * far_more / 4}) {
            const scripted_server server{[](const http_request&) { return answer(200); }};
            const http_request request = request_to(server.base_url() + "/", filler(size));
            answered(transport_.send(request), 200);
            for (const header& h : arrived_once(server).headers) {
                const std::vector<header> needed{
                    {"Host", ""}, {"Content-Length", ""}, {"Connection", ""}, {"Keep-Alive", ""}};
                if (!find_header(request.headers, h.name) && !find_header(needed, h.name))
                    break_off("it added " + sanitize(h.name, 200) + ": " + sanitize(h.value, 200) +
                              " to a body of " + std::to_string(size) + " bytes");
            }
        }
    }

    void headers_of_each_request() const {
        const scripted_server server{echo};
        http_request first = request_to(server.base_url() + "/"), second = first;
        first.headers.push_back({"X-First", "1"});
        second.headers = {{"X-API-KEY", "pl_other"}, {"X-Second", "2"}};
        for (const http_request* const one : {&first, &second, &first, &second}) {
            answered(transport_.send(*one), 200);
            const http_request last = server.requests().back();
            same_headers(last.headers, one->headers);
            for (const header& other : (one == &first ? second : first).headers) {
                if (!find_header(one->headers, other.name) && find_header(last.headers, other.name))
                    break_off("it sent " + other.name + " of an earlier request");
            }
        }
    }

    void two_servers() const {
        const scripted_server one{echo}, other{echo};
        for (std::size_t round = 1; round <= 3; ++round) {
            for (const scripted_server* const server : {&one, &other}) {
                echoes(*server, "here");
                if (server->requests().size() != round)
                    break_off("a request and its API key went to the server of an earlier request");
            }
        }
    }

    void ipv6() const {
        std::optional<scripted_server> server;
        try {
            server.emplace(echo, tcp::v6());
        } catch (const boost::system::system_error& failed) {
            throw skipped_case{std::string{"this machine has no IPv6: "} + failed.what()};
        }
        echoes(*server, "six");
        same_headers(arrived_once(*server).headers, {{"Host", server->base_url().substr(7)}});
    }

    void head() const {
        const scripted_server server{[](const http_request&) {
            return answer(200, {{"X-Kept", "1"}}, "not sent after HEAD");
        }};
        http_request request = request_to(server.base_url() + "/", "");
        request.method = "HEAD";
        const transport_result outcome = transport_.send(request);
        if (!refused(server, outcome)) {
            same_headers(answered(outcome, 200).headers, {{"X-Kept", "1"}});
            same_body(outcome->body, "");
        }
        same_body(answered(transport_.send(request_to(server.base_url() + "/")), 200).body,
                  "not sent after HEAD");
    }

    void body(std::string bytes) const {
        const scripted_server server{[](const http_request&) { return answer(200); }};
        answered(transport_.send(request_to(server.base_url() + "/", bytes)), 200);
        const http_request arrived = arrived_once(server);
        same_body(arrived.body, bytes);
        same_headers(arrived.headers, {{"Content-Length", std::to_string(bytes.size())}});
    }
    void body_of_0() const { body(""); }
    void body_of_1() const { body("x"); }
    void body_of_64_ki() const { body(filler(64 * 1024)); }
    void body_of_1_mi() const { body(filler(1024 * 1024)); }
    void body_of_all_bytes() const { body(all_bytes() + "\r\n\r\n" + all_bytes()); }

    void invalid_reason() const {
        const scripted_server server{[](const http_request&) { return answer(200); }};
        const std::string url = server.base_url() + "/";
        const auto refused = [&](const std::string& what, const http_request& request) {
            const transport_result outcome = transport_.send(request);
            if (outcome || outcome.error().kind != failure::other || outcome.error().maybe_delivered ||
                !server.requests().empty())
                break_off("of " + what + " " + describe(outcome));
        };
        for (const std::string& bytes : {std::string{"a\r\nX-Injected: b"}, std::string{"a\nb"},
                                         std::string{"a\rb"}, std::string{"a\0b", 3}}) {
            for (const header& given : {header{"X-Broken", bytes}, header{bytes, "x"}}) {
                http_request broken_header = request_to(url);
                broken_header.headers.push_back(given);
                refused("a header with a line break or a NUL", broken_header);
            }
            http_request broken_method = request_to(url);
            broken_method.method += bytes;
            refused("a method with a line break or a NUL", broken_method);
            refused("a URL with a line break or a NUL", request_to(url + bytes));
        }
        for (const std::string& bad : {std::string{}, std::string{"http://"}, std::string{"127.0.0.1"},
                                       std::string{"http://127.0.0.1:99999999/"}, url + "a b",
                                       url + "#fragment", "http://user:word@" + url.substr(7)})
            refused("the URL \"" + bad + "\"", request_to(bad));
        for (const header& framing :
             {header{"Content-Length", "1"}, header{"Transfer-Encoding", "chunked"}}) {
            http_request framed = request_to(url);
            framed.headers.push_back(framing);
            refused("a header " + framing.name, framed);
        }
    }

    // ---- The answer

    void after_interim(const std::string& interim, const std::string& body) const {
        same_body(exchanged(raw(interim + "HTTP/1.1 200 OK\r\nContent-Length: " +
                                    std::to_string(body.size()) + "\r\n\r\n" + body,
                                ending::keep_alive))
                      .body,
                  body);
    }
    void continue_100() const { after_interim("HTTP/1.1 100 Continue\r\n\r\n", "after 100"); }
    void early_hints_103() const {
        after_interim("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n", "after 103");
    }

    void statuses() const {
        const std::vector<header> tempting{{"Retry-After", "0"},
                                           {"Refresh", "0; url=/"},
                                           {"WWW-Authenticate", "Basic realm=\"x\""},
                                           {"Proxy-Authenticate", "Basic realm=\"x\""}};
        std::atomic<int> told{0};
        scripted_server server{[&](const http_request&) { return answer(told, tempting, "said"); }};
        // All that are registered; those of 3xx and those without a body have cases of their own
        static constexpr std::pair<int, int> ranges[] = {{200, 203}, {206, 208}, {226, 226}, {400, 431},
                                                         {451, 451}, {500, 511}, {599, 599}};
        for (const auto& [first, last] : ranges) {
            for (int status = first; status <= last; ++status) {
                told = status;
                const http_response response =
                    answered(transport_.send(request_to(server.base_url() + "/")), status);
                arrived_once(server);
                server.clear_requests();
                same_body(response.body, "said");
                same_headers(response.headers, tempting);
            }
        }
    }

    void answers_without_body() const {
        for (const int status : {204, 304}) {
            const http_response response = exchanged(answer(status, {{"X-Kept", "1"}}));
            same_body(response.body, "");
            same_headers(response.headers, {{"X-Kept", "1"}});
        }
    }

    void answer_headers() const {
        const std::vector<header> sent{
            {"X-Repeated", "1"}, {"x-odd-CASE", "a,  b"}, {"X-Repeated", "2"}, {"Retry-After", "3"}};
        same_headers(exchanged(answer(200, sent)).headers, sent);
    }

    void header_order() const {
        const std::vector<header> sent{
            {"X-Zebra", "1"}, {"X-Ant", "2"}, {"Retry-After", "3"}, {"X-Mole", "4"}, {"X-Ant", "5"}};
        std::vector<header> got = exchanged(answer(200, sent)).headers;
        std::erase_if(got, [&](const header& h) { return !find_header(sent, h.name); });
        const auto same = [](const header& a, const header& b) {
            return equal_ignoring_case(a.name, b.name);
        };
        if (!std::equal(got.begin(), got.end(), sent.begin(), sent.end(), same))
            break_off("headers came in another order");
    }

    void long_header() const {
        same_headers(exchanged(answer(200, {{"X-Long", filler(4000)}})).headers, {{"X-Long", filler(4000)}});
    }

    void empty_header() const {
        same_headers(exchanged(answer(200, {{"X-Empty", ""}})).headers, {{"X-Empty", ""}});
    }

    void chunked_body() const {
        const std::string text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        same_body(exchanged(raw(text + "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n",
                                ending::keep_alive))
                      .body,
                  "abc0123456789");
        same_body(exchanged(raw(text + "0\r\n\r\n", ending::keep_alive)).body, "");
    }

    void body_until_close() const {
        const std::string text = filler(100'000);
        same_body(exchanged(raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + text)).body, text);
    }

    /// The body is "{}", compressed by gzip.
    void encoded_body() const {
        const std::string gzip{"\x1F\x8B\x08\0\0\0\0\0\0\x03\xAB\xAE\x05\0\x43\xBF\xA6\xA3\x02\0\0\0", 22};
        const http_response response = exchanged(answer(200, {{"Content-Encoding", "gzip"}}, gzip));
        same_body(response.body, gzip);
        same_headers(response.headers, {{"Content-Encoding", "gzip"}});
    }

    void body_with_nul() const {
        same_body(exchanged(answer(200, {}, all_bytes() + all_bytes())).body, all_bytes() + all_bytes());
    }

    void cookies() const {
        const std::vector<header> set{{"Set-Cookie", "session=1; Path=/"}, {"Set-Cookie", "other=2"}};
        const scripted_server server{[&](const http_request&) { return answer(200, set); }};
        for (int i = 0; i < 2; ++i)
            same_headers(answered(transport_.send(request_to(server.base_url() + "/")), 200).headers, set);
        for (const http_request& request : server.requests()) {
            if (find_header(request.headers, "Cookie"))
                break_off("it sent a cookie that an earlier answer set");
        }
    }

    void cache() const {
        for (const char* const method : {"POST", "GET"}) {
            const scripted_server server{[](const http_request&) {
                return answer(200, {{"Cache-Control", "public, max-age=3600"},
                                    {"ETag", "\"1\""},
                                    {"Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"}});
            }};
            http_request request = request_to(server.base_url() + "/", "");
            request.method = method;
            if (refused(server, transport_.send(request)))
                continue;
            answered(transport_.send(request), 200);
            arrived(server.requests().size(), 2);
            for (const http_request& one : server.requests()) {
                if (find_header(one.headers, "If-None-Match") ||
                    find_header(one.headers, "If-Modified-Since"))
                    break_off("it asked whether the answer that it has is still good");
            }
        }
    }

    void redirect(int status, const std::string& there, const scripted_server& elsewhere) const {
        const scripted_server server{[&](const http_request& request) {
            return request.url == "/" ? answer(status, {{"Location", there}}, "moved") : echo(request);
        }};
        const transport_result outcome = transport_.send(request_to(server.base_url() + "/"));
        for (const http_request& request : elsewhere.requests())
            break_off("it followed a " + std::to_string(status) + " to another port" +
                      (find_header(request.headers, "X-API-KEY") ? " and gave the API key away there" : ""));
        same_headers(answered(outcome, status).headers, {{"Location", there}});
        arrived_once(server);
    }

    void redirects() const {
        const scripted_server elsewhere{echo};
        for (const int status : {301, 302, 303, 307, 308, 300, 304, 305, 306, 399, 201, 202}) {
            redirect(status, elsewhere.base_url() + "/rest/track-prompt", elsewhere);
            redirect(status, "/rest/track-prompt", elsewhere);
        }
    }

    void limit_met() const {
        const scripted_server server{
            [](const http_request&) { return answer(200, {}, filler(small_limit)); }};
        http_request request = request_to(server.base_url() + "/");
        request.max_response_bytes = small_limit;
        same_body(answered(transport_.send(request), 200).body, filler(small_limit));
    }

    void limit_exceeded() const {
        const scripted_server server{
            [](const http_request&) { return answer(200, {}, filler(small_limit + 1)); }};
        http_request request = request_to(server.base_url() + "/");
        request.max_response_bytes = small_limit;
        longer_than_limit(transport_.send(request));
        same_body(answered(transport_.send(request_to(server.base_url() + "/")), 200).body,
                  filler(small_limit + 1));
    }

    void body_far_too_long() const {
        scripted_response told = answer(200, {}, filler(2 * far_more));
        told.ending = ending::close_midway;
        gives_up(std::move(told));
    }

    void chunks_far_too_long() const {
        gives_up(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n" + filler(far_more)));
    }

    void until_close_far_too_long() const {
        gives_up(raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + filler(far_more)));
        const scripted_server server{[](const http_request&) {
            return raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + filler(small_limit + 1));
        }};
        http_request request = request_to(server.base_url() + "/");
        request.max_response_bytes = small_limit;
        longer_than_limit(transport_.send(request));
    }

    void largest_values() const {
        const scripted_server server{echo};
        http_request request = request_to(server.base_url() + "/", "echo");
        request.timeout = milliseconds::max();
        request.max_response_bytes = std::numeric_limits<std::size_t>::max();
        same_body(answered(transport_.send(request), 200).body, "echo");
    }

    // ---- Time

    void no_answer() const {
        const scripted_server server{[&](const http_request&) { return only(ending::silent, longer()); }};
        times_out(server.base_url() + "/", true);
        arrived(server.requests().size());
    }

    /// The number of the descriptor that would be opened next, where numbers are given out from below.
    static long next_descriptor() {
#ifdef _WIN32
        return 0;
#else
        boost::asio::io_context context;
        return static_cast<long>(tcp::socket{context, tcp::v4()}.native_handle());
#endif
    }

    void many_short_timeouts() const {
        static constexpr int count = 20, some = 5;
        static constexpr milliseconds timeout{40};
        const scripted_server server{[&](const http_request&) { return only(ending::silent, longer()); }};
        http_request request = request_to(server.base_url() + "/");
        request.timeout = timeout;
        const long descriptor = next_descriptor();
        milliseconds fastest = milliseconds::max(); // of some, since the machine may be busy
        for (int i = 1; i <= count; ++i) {
            const auto start = steady_clock::now();
            failed(transport_.send(request), {failure::timeout}, std::nullopt);
            fastest =
                std::min(fastest, std::chrono::duration_cast<milliseconds>(steady_clock::now() - start));
            const std::string when = "a timeout of " + std::to_string(timeout.count()) + " ms took " +
                                     std::to_string(fastest.count()) + " ms, that of request " +
                                     std::to_string(i);
            if (fastest < timeout / 2)
                break_off(when);
            if (i % some == 0 && fastest > timeout + milliseconds{400})
                throw late{{when}};
            if (i % some == 0)
                fastest = milliseconds::max();
        }
        if (!becomes([&] { return server.open_connections() <= 1; }))
            break_off("after " + std::to_string(count) + " timeouts " +
                      std::to_string(server.open_connections()) + " connections are open");
        if (next_descriptor() - descriptor >= count) // others in this process may open some
            throw late{{"it left at least " + std::to_string(count) + " descriptors open"}};
    }

    void request_after_timeout() const {
        const scripted_server server{echo_late};
        http_request request = request_to(server.base_url() + "/", "late");
        request.timeout = milliseconds{50};
        static_cast<void>(transport_.send(request)); // has cases of its own
        echoes(server, "next");
    }

    void sends_slowly(std::string bytes, milliseconds pause) const {
        bytes.resize(static_cast<std::size_t>(longer() / pause), 'x');
        const scripted_server server{[&](const http_request&) {
            scripted_response dripping = raw(bytes);
            dripping.byte_delay = pause;
            return dripping;
        }};
        times_out(server.base_url() + "/", true);
    }
    void dripping_answer() const { sends_slowly("HTTP/1.1 200 OK\r\n", milliseconds{1'000}); }
    void headers_without_end() const { sends_slowly("HTTP/1.1 200 OK\r\nX-Endless: ", milliseconds{5}); }

    void dripping_body() const {
        sends_slowly("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", milliseconds{5});
    }

    /// A peer that the system connects to, but that neither reads nor says anything, and goes in the end.
    void unresponsive_peer(const std::string& scheme, const std::string& body) const {
        boost::asio::io_context context;
        tcp::acceptor acceptor{context};
        acceptor.open(tcp::v4());
        acceptor.set_option(boost::asio::socket_base::receive_buffer_size{4096}); // connections inherit it
        acceptor.bind({boost::asio::ip::address_v4::loopback(), 0});
        acceptor.listen();
        const auto url = scheme + "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/";
        boost::asio::steady_timer given_up{context, longer()};
        given_up.async_wait([&](boost::system::error_code) { acceptor.close(); });
        const std::future<void> ends = std::async(std::launch::async, [&] { context.run(); });
        struct stopped_at_end {
            boost::asio::io_context& context;
            ~stopped_at_end() { context.stop(); }
        } const stopped{context};
        times_out(url, std::nullopt, body);
    }

    void peer_that_does_not_read() const { unresponsive_peer("http://", filler(2 * far_more)); }

    void handshake_that_does_not_come() const {
        if (!options_.tls)
            throw no_tls();
        unresponsive_peer("https://", "{}");
    }

    // ---- Failures

    void refused_port() const {
        const refusing_port refusing;
        failed(transport_.send(request_to(refusing.url())), {failure::connect}, false);
    }

    void unknown_host() const {
        const transport_result outcome = transport_.send(request_to("http://promptlayer.invalid/"));
        if (!outcome && outcome.error().kind == failure::timeout && !outcome.error().maybe_delivered)
            throw skipped_case{"the resolver of this machine does not answer"};
        failed(outcome, {failure::resolve}, false);
    }

    void reset_before_answer() const { fails_with(only(ending::reset_before_response), {failure::reset}); }

    void end_within_headers() const {
        fails_with(raw("HTTP/1.1 200 OK\r\nContent-Le"), {failure::reset});
        fails_with(raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"), {failure::reset});
    }

    void reset_in_body() const { fails_with(only(ending::reset_midway), {failure::reset}); }

    void short_body() const { fails_with(only(ending::close_midway), {failure::reset}); }

    void chunks_cut() const {
        const std::string text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        fails_with(raw(text + "5\r\nabc"), {failure::reset});
        fails_with(raw(text + "3\r\nabc\r\n"), {failure::reset}); // between two chunks
    }

    void garbage() const {
        for (const char* const bytes :
             {"SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 twohundred OK\r\n\r\n", "\r\n\r\n\r\n"})
            fails_with(raw(bytes), {failure::other, failure::reset});
    }

    // ---- Connections and threads

    void unasked_bytes() const {
        const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        const scripted_server server{[&](const http_request& request) {
            return request.body == "first" ? raw(head + "first" + head + "other", ending::keep_alive)
                                           : echo(request);
        }};
        const transport_result outcome = transport_.send(request_to(server.base_url() + "/", "first"));
        if (outcome)
            same_body(outcome->body, "first");
        else
            failed(outcome, {failure::reset, failure::other}, true);
        echoes(server, "again");
    }

    void connection_ended_by_answer() const {
        for (const char* const head : {"HTTP/1.1 200 OK\r\nConnection: close", "HTTP/1.0 200 OK"}) {
            const scripted_server server{[&](const http_request& request) {
                return raw(std::string{head} + "\r\nContent-Length: 3\r\n\r\n" + request.body,
                           ending::keep_alive);
            }};
            echoes(server, "one");
            echoes(server, "two");
            if (server.connections() != 2)
                break_off("a second request went over the connection that the answer to the first ended");
        }
    }

    void kept_connection_cut() const {
        const scripted_server server{[](const http_request& request) {
            return request.body == "first" ? echo(request) : raw("HTTP/1.1 200 OK\r\nContent-Le");
        }};
        echoes(server, "first");
        failed(transport_.send(request_to(server.base_url() + "/", "second")), {failure::reset}, true);
        arrived(arrived_with(server, "second"));
    }

    void kept_connection_closed() const {
        for (int round = 0; round < 5; ++round) {
            const scripted_server server{[](const http_request& request) {
                scripted_response told = echo(request);
                told.ending = ending::close_unannounced;
                told.hold = {};
                return told;
            }};
            echoes(server, "first");
            becomes([&] { return server.ended_connections() != 0; });
            transport_.run_for(milliseconds{10}); // the loop sees it
            const transport_result outcome = transport_.send(request_to(server.base_url() + "/", "second"));
            const std::vector<http_request> requests = server.requests();
            if (outcome)
                same_body(outcome->body, "second");
            if (outcome ? requests.size() != 2 : outcome.error().maybe_delivered || requests.size() != 1)
                break_off(describe(outcome) + " and the server had " + std::to_string(requests.size()) +
                          " requests");
        }
    }

    void thousand_requests() const {
        const scripted_server server{echo};
        for (int i = 0; i < 1'000; ++i)
            same_body(
                answered(transport_.send(request_to(server.base_url() + "/", std::to_string(i))), 200).body,
                std::to_string(i));
        if (server.connections() > 10)
            break_off("1,000 requests took " + std::to_string(server.connections()) + " connections");
    }

    void eight_threads() const {
        if (!transport_.thread_safe)
            throw skipped_case{"the transport does not say that it is thread_safe"};
        const scripted_server server{echo};
        const auto state = std::make_shared<in_flight>(8 * 25);
        std::vector<std::future<void>> threads;
        for (std::size_t begin = 0; begin < state->outcomes.size(); begin += 25) {
            threads.push_back(std::async(std::launch::async, [&, begin] {
                for (std::size_t i = begin; i < begin + 25; ++i) {
                    http_request request = request_to(server.base_url() + "/", std::to_string(i));
                    if (transport_.start)
                        start(state, i, std::move(request));
                    else
                        state->take(i, transport_.send(request));
                }
            }));
        }
        for (std::future<void>& thread : threads)
            thread.wait();
        for (std::future<void>& thread : threads)
            thread.get();
        wait(state);
        each_has_its_own(*state);
    }

    /// Sends a request and cancels it a while after it has arrived. Returns the outcome, and how long after
    /// `cancel()` it came.
    std::pair<transport_result, milliseconds> cancelled(const scripted_server& server,
                                                        milliseconds pause = {}) const {
        std::atomic<bool> over{false};
        std::future<steady_clock::time_point> cancelled = std::async(std::launch::async, [&] {
            while (server.requests().empty() && !over)
                std::this_thread::sleep_for(milliseconds{1});
            std::this_thread::sleep_for(pause);
            const auto when = steady_clock::now();
            no_throw(transport_.cancel);
            return when;
        });
        transport_result outcome = transport_failure{};
        try {
            outcome = transport_.send(request_to(server.base_url() + "/", "late"));
        } catch (...) {
            over = true;
            throw;
        }
        const auto end = steady_clock::now();
        over = true;
        return {std::move(outcome), std::chrono::duration_cast<milliseconds>(end - cancelled.get())};
    }

    void can_cancel() const {
        if (!transport_.cancel)
            throw skipped_case{"the transport has no cancel()"};
    }

    void cancels(const scripted_response& told, milliseconds pause = {}) const {
        const scripted_server server{[&](const http_request&) { return told; }};
        const auto [outcome, took] = cancelled(server, pause);
        failed(outcome, {failure::cancelled}, true);
        if (took > milliseconds{100})
            throw late{{"it took " + std::to_string(took.count()) + " ms to end"}};
    }

    void cancel() const {
        can_cancel();
        no_throw(transport_.cancel); // nothing is in flight, so nothing happens
        cancels(only(ending::silent, milliseconds{3'000}));
        if (transport_.start)
            cancel_of_many();
        const scripted_server server{echo};
        echoes(server, "next");
    }

    void cancel_within_answer() const {
        can_cancel();
        for (const char* const begun :
             {"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of"}) {
            scripted_response told = raw(begun);
            told.hold = milliseconds{3'000};
            cancels(told, milliseconds{30}); // the answer arrives meanwhile
        }
    }

    void request_after_cancel() const {
        can_cancel();
        const scripted_server server{echo_late};
        static_cast<void>(cancelled(server)); // has cases of its own
        echoes(server, "next");
    }

    // ---- Asynchronous transports

    void cancel_of_many() const {
        const auto state = places(3);
        const scripted_server server{
            [](const http_request&) { return only(ending::silent, milliseconds{3'000}); }};
        for (std::size_t i = 0; i < state->outcomes.size(); ++i)
            start(state, i, request_to(server.base_url() + "/"));
        transport_.run_for(milliseconds{20});
        no_throw(transport_.cancel);
        wait(state);
        for (const auto& outcome : state->outcomes)
            failed(*outcome, {failure::cancelled}, std::nullopt);
    }

    void send_does_not_block() const {
        const auto state = places(1);
        const scripted_server server{echo_late};
        const auto begun = steady_clock::now();
        start(state, 0, request_to(server.base_url() + "/", "late"));
        const auto took = steady_clock::now() - begun;
        wait(state);
        answered(*state->outcomes[0], 200);
        if (took > milliseconds{500})
            throw late{{"send() did not return before the answer was there"}};
    }

    void many_in_flight() const {
        const auto state = places(50);
        const scripted_server server{[&](const http_request& request) {
            scripted_response late = echo(request);
            late.delay = milliseconds{20};
            return late;
        }};
        for (std::size_t i = 0; i < state->outcomes.size(); ++i)
            start(state, i, request_to(server.base_url() + "/", std::to_string(i)));
        wait(state);
        each_has_its_own(*state);
    }

    void timeouts_of_many() const {
        const auto state = places(10);
        const scripted_server server{[&](const http_request&) { return only(ending::silent, longer()); }};
        const auto begun = steady_clock::now();
        for (std::size_t i = 0; i < state->outcomes.size(); ++i) {
            http_request request = request_to(server.base_url() + "/");
            request.timeout = milliseconds{200};
            start(state, i, std::move(request));
        }
        wait(state);
        const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begun);
        for (const auto& outcome : state->outcomes)
            failed(*outcome, {failure::timeout}, std::nullopt);
        if (took > milliseconds{1'000})
            throw late{{"10 requests at once, each with a timeout of 200 ms, took " +
                        std::to_string(took.count()) + " ms"}};
    }

    void send_from_completion() const {
        const auto state = places(2);
        const scripted_server server{echo};
        struct next_request { // the completion may outlive this case, and what it throws would meet the
                              // transport
            std::mutex mutex{};
            std::function<void()> send{};
            std::optional<broken> thrown{};
        };
        const auto next = std::make_shared<next_request>();
        next->send = [&, state] { start(state, 1, request_to(server.base_url() + "/", "1")); };
        struct taken_back {
            next_request& from;
            ~taken_back() {
                const std::lock_guard held{from.mutex};
                from.send = nullptr;
            }
        } const at_end{*next};
        transport_.start(request_to(server.base_url() + "/", "0"), [state, next](transport_result outcome) {
            {
                const std::lock_guard held{next->mutex};
                try {
                    if (next->send)
                        next->send();
                } catch (broken& what) {
                    next->thrown = std::move(what);
                }
            }
            state->take(0, std::move(outcome));
        });
        wait(state);
        if (const std::lock_guard held{next->mutex}; next->thrown)
            throw broken{*next->thrown};
        each_has_its_own(*state);
    }

    void completes_once() const {
        const auto ended = places(3), cancelled = places(1);
        const refusing_port refusing;
        const scripted_server server{echo_late};
        start(ended, 0, request_to(server.base_url() + "/"));
        start(ended, 1, request_to(refusing.url()));
        start(ended, 2, request_to("no URL"));
        wait(ended);
        start(cancelled, 0, request_to(server.base_url() + "/", "late"));
        transport_.run_for(milliseconds{20});
        if (transport_.cancel)
            no_throw(transport_.cancel);
        wait(cancelled);
        transport_.run_for(milliseconds{50});
        if (const std::size_t again = transport_.completed_again())
            break_off("it called a completion again, " + std::to_string(again) + " times in all");
    }

    // ---- TLS

    static skipped_case no_tls() { return {"conformance_options::tls is not given"}; }

    std::string tls_url(testing::certificate shown, const scripted_server& server) const {
        if (!options_.tls)
            throw no_tls();
        return options_.tls(shown, server.port()) + "/";
    }

    void good_certificate() const {
        const scripted_server server{echo};
        const std::string body = filler(100'000);
        const std::string url = tls_url(testing::certificate::good, server);
        same_body(answered(transport_.send(request_to(url, body)), 200).body, body);
        arrived_once(server);
    }

    void refuses(testing::certificate shown) const {
        const scripted_server server{echo};
        const transport_result outcome = transport_.send(request_to(tls_url(shown, server)));
        transport_.run_for(milliseconds{50}); // what was sent arrives
        if (!server.requests().empty())
            break_off("the request and its API key went to a server that is not to be trusted");
        failed(outcome, {failure::tls}, false);
    }

    void tls_body_cut() const {
        const scripted_server server{[](const http_request&) {
            scripted_response told =
                raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of", ending::reset_midway);
            told.hold = milliseconds{50}; // what was sent arrives
            return told;
        }};
        failed(transport_.send(request_to(tls_url(testing::certificate::good, server))), {failure::reset},
               true);
        arrived_once(server);
    }

    void self_signed() const { refuses(testing::certificate::self_signed); }
    void wrong_host() const { refuses(testing::certificate::wrong_host); }
    void expired() const { refuses(testing::certificate::expired); }
    void unknown_authority() const { refuses(testing::certificate::unknown_authority); }

    // ---- All of them

    struct entry {
        const char* name;
        void (conformance::*run)() const;
        const char* contract; ///< what a transport does; goes on "the contract says that ..."
        const char* mend;     ///< an imperative
    };

    static const std::vector<entry>& cases() {
        static constexpr const char* as_it_stands = "the request is sent as it stands";
        static constexpr const char* whole = "the body is returned whole";
        static constexpr const char* in_time =
            "failure::timeout comes when http_request::timeout has passed, "
            "counted over the whole exchange";
        static constexpr const char* deadline =
            "give your HTTP client one deadline for the whole exchange, or end it from a timer of your own; "
            "a timeout for each read or write is not enough";
        static constexpr const char* cut = "an answer that is cut is failure::reset, maybe delivered, and no "
                                           "part of it is returned";
        static constexpr const char* check_cut = "return a failure if the connection ends before the "
                                                 "headers, Content-Length bytes or the last chunk";
        static constexpr const char* limited =
            "reading stops when the body exceeds max_response_bytes, and a "
            "part of it is never returned as if it were the whole";
        static constexpr const char* stop_reading =
            "count the bytes in the callback that takes the body, end the transfer there, and return one "
            "byte "
            "more than the limit or a failure that is maybe delivered";
        static constexpr const char* verified = "the peer of an https URL is verified, and failure::tls, not "
                                                "delivered, is returned before anything is sent";
        static constexpr const char* verify =
            "turn on the check of the certificate and of its host in your TLS library";
        static constexpr const char* final_one = "the final answer is returned, and no interim one";
        static constexpr const char* go_on = "read on after a status of 1xx";
        static constexpr const char* all_headers =
            "all headers are returned in order, repeats and empty ones included";
        static constexpr const char* copy_headers = "copy each header of the answer, in order";
        static constexpr const char* not_again = "a connection is not used again after a timeout or a "
                                                 "cancel, so that the next request gets its own "
                                                 "answer";
        static constexpr const char* close_it =
            "close the connection of a request that ended without its answer";
        using c = conformance;
        static const std::vector<entry> all{
            {"method", &c::method,
             "the method is sent as it stands, or refused with failure::other, not delivered",
             "pass http_request::method on, or refuse what your HTTP client cannot send"},
            {"path and query", &c::target, as_it_stands, "turn off what encodes or normalises URLs"},
            {"headers", &c::headers, "every header is sent as it stands, repeats included",
             "pass each of http_request::headers on, in a list and not a map"},
            {"high bytes in a header", &c::high_bytes, "header values are bytes",
             "pass values on without converting them"},
            {"no header twice", &c::no_header_twice,
             "nothing is added that is there already, and Host and Content-Length once",
             "set your HTTP client's own default only where the request has no such header"},
            {"headers that are added", &c::added_headers,
             "a transport adds no headers but Host, Content-Length, Connection and Keep-Alive",
             "turn off each default header of your HTTP client, Accept-Encoding and Expect among them"},
            {"headers of each request", &c::headers_of_each_request,
             "a request has its own headers and none of an earlier one",
             "give headers to each request and not to a session"},
            {"two servers in turn", &c::two_servers, "a request goes to the host and port of its URL",
             "look for a kept connection by scheme, host and port"},
            {"IPv6", &c::ipv6, "the host of a URL may be an IPv6 address in brackets",
             "read the URL with your HTTP client's own parser"},
            {"HEAD", &c::head, "an answer to HEAD has no body", "expect no body after HEAD, or refuse it"},
            {"body of 0 bytes", &c::body_of_0, as_it_stands, "send an empty body with Content-Length: 0"},
            {"body of 1 byte", &c::body_of_1, as_it_stands, "pass data and size on"},
            {"body of 64 KiB", &c::body_of_64_ki, as_it_stands, "write until everything is written"},
            {"body of 1 MiB", &c::body_of_1_mi, as_it_stands, "write until everything is written"},
            {"body of all byte values", &c::body_of_all_bytes, as_it_stands,
             "pass data and size on, not a C string, and convert nothing"},
            {"request that cannot be sent", &c::invalid_reason,
             "what cannot be sent as it stands is refused with failure::other, not delivered",
             "refuse URLs that your HTTP client cannot read and control characters in headers"},
            {"100 Continue before the answer", &c::continue_100, final_one, go_on},
            {"103 Early Hints before the answer", &c::early_hints_103, final_one, go_on},
            {"statuses", &c::statuses, "any status is an answer",
             "return status, headers and body also where your HTTP client calls it an error"},
            {"answers without a body", &c::answers_without_body, "any status is an answer",
             "expect no body after 204 and 304"},
            {"headers of the answer", &c::answer_headers, all_headers, copy_headers},
            {"order of the answer's headers", &c::header_order, all_headers, copy_headers},
            {"long header of the answer", &c::long_header, all_headers, copy_headers},
            {"empty header of the answer", &c::empty_header, all_headers, copy_headers},
            {"chunked body", &c::chunked_body, whole, "take the chunked coding off"},
            {"body until close", &c::body_until_close, whole,
             "read to the end of the connection where there is no Content-Length"},
            {"body with NUL", &c::body_with_nul, whole, "copy data and size, not a C string"},
            {"body with a Content-Encoding", &c::encoded_body, "the body is returned as it came",
             "turn off what unpacks bodies in your HTTP client"},
            {"cookies", &c::cookies, "a transport remembers nothing of an answer", "turn cookies off"},
            {"cache", &c::cache, "a transport remembers nothing of an answer", "turn the cache off"},
            {"redirects", &c::redirects, "no redirect is followed", "turn redirects off in your HTTP client"},
            {"no answer", &c::no_answer, in_time, deadline},
            {"many short timeouts", &c::many_short_timeouts,
             "a timeout counts in milliseconds, and the connection is closed then",
             "round no timeout up to seconds, and close what a timeout leaves open"},
            {"request after a timeout", &c::request_after_timeout, not_again, close_it},
            {"dripping answer", &c::dripping_answer, in_time, deadline},
            {"dripping headers without end", &c::headers_without_end, in_time, deadline},
            {"dripping body", &c::dripping_body, in_time, deadline},
            {"peer that does not read", &c::peer_that_does_not_read, in_time, deadline},
            {"TLS: handshake that does not come", &c::handshake_that_does_not_come, in_time, deadline},
            {"refused port", &c::refused_port,
             "where no connection is made, failure::connect says so, not delivered",
             "tell a failed connection from one that ended"},
            {"unknown host", &c::unknown_host, "a host without an address is failure::resolve, not delivered",
             "tell a failed look-up from a failed connection"},
            {"reset before the answer", &c::reset_before_answer,
             "a connection that ends before the answer is failure::reset, maybe delivered",
             "tell a connection that ended from one that was never made"},
            {"end within the headers", &c::end_within_headers, cut, check_cut},
            {"reset within the body", &c::reset_in_body, cut, check_cut},
            {"body shorter than Content-Length", &c::short_body, cut, check_cut},
            {"chunked body cut short", &c::chunks_cut, cut, check_cut},
            {"garbage in place of HTTP", &c::garbage,
             "what is no HTTP is failure::other or failure::reset, maybe delivered",
             "return a failure if there is no status line"},
            {"body as long as the limit", &c::limit_met, whole, "stop only beyond max_response_bytes"},
            {"body longer than the limit", &c::limit_exceeded, limited, stop_reading},
            {"body far longer than the limit", &c::body_far_too_long, limited, stop_reading},
            {"chunked body far longer than the limit", &c::chunks_far_too_long, limited, stop_reading},
            {"body until close, longer than the limit", &c::until_close_far_too_long, limited, stop_reading},
            {"longest timeout, largest limit", &c::largest_values,
             "every timeout and every limit has its meaning",
             "add nothing to them before they are compared, and clamp them to what your HTTP client takes"},
            {"unasked bytes on a kept connection", &c::unasked_bytes,
             "bytes that no request asked for are no answer",
             "close a connection with unread bytes instead of keeping it"},
            {"connection that the answer ends", &c::connection_ended_by_answer,
             "a connection is not used again after Connection: close or HTTP/1.0",
             "close the connection after such an answer"},
            {"kept connection cut within the answer", &c::kept_connection_cut, cut,
             "send again only if a kept connection ended without a byte of the answer"},
            {"kept connection that was closed", &c::kept_connection_closed,
             "a request that meets a closed connection goes over a new one, or fails as not delivered",
             "look whether a kept connection has been closed before it is used again"},
            {"1,000 requests in a row", &c::thousand_requests,
             "connections are kept for the requests that follow",
             "keep the connection, or the handle that holds it, from one request to the next"},
            {"8 threads at once", &c::eight_threads, "a transport that says thread_safe is",
             "guard what send() shares between threads, or do not say so"},
            {"cancel", &c::cancel,
             "cancel() ends the requests in flight within 100 ms with failure::cancelled, maybe delivered if "
             "they were sent, and no others",
             "wake what waits for the answer, and forget the wish when no request is in flight"},
            {"cancel within the answer", &c::cancel_within_answer,
             "cancel() ends a request within 100 ms, also when the answer has begun",
             "wake what waits for the rest of the answer too"},
            {"request after a cancel", &c::request_after_cancel, not_again, close_it},
            {"send does not block", &c::send_does_not_block,
             "send() of an asynchronous transport does not block", "hand the request over and return"},
            {"many in flight", &c::many_in_flight, "every request gets its own outcome",
             "keep each completion with its own request"},
            {"timeouts of many in flight", &c::timeouts_of_many,
             "the timeout of each request counts from its send()",
             "start the clock of a request in send(), also if the request waits there"},
            {"send from a completion", &c::send_from_completion, "a completion may send the next request",
             "hold no lock and no iterator while a completion is called"},
            {"completes once", &c::completes_once, "a completion is called exactly once, cancelled or not",
             "forget the completion before you call it"},
            {"TLS: good certificate", &c::good_certificate, "a peer that can be verified is spoken to",
             "have the transport trust the authority that the servers of the cases have"},
            {"TLS: body until close, cut", &c::tls_body_cut, cut,
             "take the end of a TLS connection without a close_notify for a reset"},
            {"TLS: self-signed certificate", &c::self_signed, verified, verify},
            {"TLS: certificate of another host", &c::wrong_host, verified, verify},
            {"TLS: expired certificate", &c::expired, verified, verify},
            {"TLS: unknown authority", &c::unknown_authority, verified, verify},
        };
        return all;
    }

    testing::case_result result_of(const entry& one) const {
        testing::case_result result{one.name};
        const auto begun = steady_clock::now();
        const auto fail = [&](const broken& what) {
            result.verdict = testing::verdict::failed;
            result.text = what.did + "; the contract says that " +
                          (what.contract ? what.contract : one.contract) + "; to mend it, " +
                          (what.mend ? what.mend : one.mend) + ".";
        };
        const auto skip = [&](std::string why) {
            result.verdict = testing::verdict::skipped;
            result.text = std::move(why);
        };
        try {
            if (const auto skipped = options_.skip.find(one.name); skipped != options_.skip.end())
                throw skipped_case{skipped->second};
            for (int left = 4; left >= 0; --left) { // the machine may be busy
                try {
                    (this->*one.run)();
                    break;
                } catch (const late&) {
                    if (left == 0)
                        throw;
                }
            }
            transport_.run_for(milliseconds{0});
        } catch (const broken& what) {
            fail(what);
        } catch (const skipped_case& what) {
            skip(what.why);
        } catch (const std::exception& what) { // no port, no thread, ...
            result.verdict = testing::verdict::failed;
            result.text = std::string{"the case could not be run to its end: "} + what.what();
        } catch (...) {
            result.verdict = testing::verdict::failed;
            result.text = "the case could not be run to its end";
        }
        result.took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begun);
        return result;
    }

public:
    conformance(const transport_under_test& transport, const testing::conformance_options& options)
        : transport_(transport), options_(options) {}

    testing::conformance_report run() const {
        testing::conformance_report report;
        const auto is_case = [](const std::string& name) {
            return std::any_of(cases().begin(), cases().end(),
                               [&](const entry& one) { return one.name == name; });
        };
        for (const entry& one : cases()) {
            if (options_.only.empty() ||
                std::find(options_.only.begin(), options_.only.end(), one.name) != options_.only.end())
                report.cases.push_back(result_of(one));
        }
        std::vector<std::string> named = options_.only;
        for (const auto& [name, reason] : options_.skip)
            named.push_back(name);
        for (const std::string& name : named) {
            if (!is_case(name))
                report.cases.push_back({name, testing::verdict::failed, "there is no case of this name", {}});
        }
        return report;
    }
};

/// Counts the calls of one completion; the first is passed on. One destroyed uncalled counts as cancelled.
class counted_completion {
    completion done_;
    std::shared_ptr<std::atomic<std::size_t>> again_;
    std::atomic<bool> called_{false};

public:
    counted_completion(completion done, std::shared_ptr<std::atomic<std::size_t>> again)
        : done_(std::move(done)), again_(std::move(again)) {}
    counted_completion(const counted_completion&) = delete;
    counted_completion& operator=(const counted_completion&) = delete;
    ~counted_completion() {
        if (!called_)
            done_(transport_failure{failure::cancelled, "the completion was destroyed uncalled"});
    }

    void operator()(transport_result outcome) {
        if (called_.exchange(true))
            ++*again_;
        else
            done_(std::move(outcome));
    }
};

template <class T>
transport_under_test describe(T& transport) {
    transport_under_test described;
    if constexpr (requires { transport.cancel(); })
        described.cancel = [&] { transport.cancel(); };
    if constexpr (requires { typename std::bool_constant<T::thread_safe>; })
        described.thread_safe = T::thread_safe;
    return described;
}

} // namespace detail

namespace testing {

/// Holds a transport to the contract that transport.hpp has in words, by requests to servers of its own on
/// 127.0.0.1, and reports case by case. Takes about 10 seconds, mostly waiting for timeouts, and minutes
/// with a transport that hangs in every case. Its servers end what goes on too long, so that only a transport
/// that neither returns nor sees its connection close keeps it.
///
/// Nothing may come between: no proxy for 127.0.0.1. Not thread-safe, but different transports may be checked
/// at the same time. Needs exceptions. Throws only for want of memory.
template <class T>
conformance_report check_transport(T&& transport, const conformance_options& options = {}) {
    static_assert(Transport<std::remove_reference_t<T>>,
                  "promptlayer: check_transport takes a Transport that is not const; an AsyncTransport is "
                  "checked together with a callable that turns its loop");
    auto described = promptlayer::detail::describe(transport);
    described.send = [&](const http_request& request) {
        std::optional<transport_result> outcome;
        promptlayer::detail::no_throw([&] { outcome.emplace(transport.send(request)); });
        return *std::move(outcome);
    };
    described.run_for = [](std::chrono::milliseconds time) { std::this_thread::sleep_for(time); };
    return promptlayer::detail::conformance{described, options}.run();
}

/// The same for an asynchronous transport. `turn` turns the loop that it runs on: it is called again and
/// again on this thread while an outcome is awaited, does what can be done and returns, within 10 ms or so;
/// for a transport with threads of its own it may do nothing.
template <class T, std::invocable TurnT>
conformance_report check_transport(T&& transport, TurnT turn, const conformance_options& options = {}) {
    static_assert(AsyncTransport<std::remove_reference_t<T>>,
                  "promptlayer: check_transport takes an AsyncTransport that is not const where a callable "
                  "turns its loop; a Transport is checked without one");
    using namespace promptlayer::detail;
    auto described = describe(transport);
    const auto again = std::make_shared<std::atomic<std::size_t>>(0);
    described.completed_again = [again] { return again->load(); };
    described.start = [&transport, again](http_request request, completion done) {
        const auto counted = std::make_shared<counted_completion>(std::move(done), again);
        no_throw([&] {
            transport.send(std::move(request),
                           [counted](transport_result outcome) { (*counted)(std::move(outcome)); });
        });
    };
    described.run_for = [&turn](std::chrono::milliseconds time) {
        const auto until = std::chrono::steady_clock::now() + time;
        do {
            no_throw(turn);
            std::this_thread::yield();
        } while (std::chrono::steady_clock::now() < until);
    };
    described.send = [&described, &options](const http_request& request) {
        const auto state = std::make_shared<in_flight>(1);
        described.start(request, [state](transport_result outcome) { state->take(0, std::move(outcome)); });
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{10} + options.slack;
        while (state->missing() != 0) {
            if (std::chrono::steady_clock::now() > until)
                throw broken{"a request was not completed", "a completion is called exactly once",
                             "complete a request whatever becomes of it"};
            described.run_for(std::chrono::milliseconds{0});
        }
        return *std::move(state->outcomes[0]);
    };
    return conformance{described, options}.run();
}

} // namespace testing
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
