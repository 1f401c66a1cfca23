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
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
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

/// The certificate that a server shows in a TLS case. Its host is 127.0.0.1 unless the case says otherwise.
enum class certificate {
    good,        ///< signed by the CA that the transport trusts
    self_signed, ///< signed by no CA
    wrong_host,  ///< signed by the CA, for another host
    expired,     ///< signed by the CA, valid until yesterday
    unknown_ca,  ///< signed by a CA that the transport does not know
};

/// The options of `check_transport`.
struct conformance_options {
    /// How late an outcome may be if the contract sets a time; `cancel()` has a limit of its own. A case that
    /// only finds a late outcome runs again, up to five times in all, because the machine may be busy.
    std::chrono::milliseconds slack{1000};

    /// Starts a server that shows the certificate and relays the decrypted bytes to a port of 127.0.0.1.
    /// Returns its URL (`https://127.0.0.1:PORT`). The server must run until `check_transport` returns. If
    /// the connection to that port is reset, the server ends its own without a close_notify. Without `tls`
    /// the TLS cases are skipped. `tls_servers` (conformance_tls.hpp) is such a callable.
    std::function<std::string(certificate, std::uint16_t)> tls{};

    /// The names of cases that the transport cannot pass, each with the reason. The report repeats the
    /// reason. A name that no case has is a failure in the report.
    std::map<std::string, std::string> skip{};

    /// If not empty, only the cases of these names run. The others are not in the report.
    std::vector<std::string> only{};
};

enum class verdict { passed, failed, skipped };

/// The result of one case.
struct case_result {
    std::string name{};
    testing::verdict verdict = testing::verdict::passed;
    /// If failed, three lines: what the transport did, what the contract says, and a hint. If skipped: why.
    std::string text{};
    std::chrono::milliseconds duration{};
};

/// The results of all cases that `check_transport` ran or skipped.
struct conformance_report {
    std::vector<case_result> cases{};

    std::size_t count(verdict counted) const {
        return static_cast<std::size_t>(
            std::count_if(cases.begin(), cases.end(),
                          [=](const case_result& result) { return result.verdict == counted; }));
    }

    /// Returns true if at least one case passed and none failed.
    bool ok() const { return count(verdict::failed) == 0 && count(verdict::passed) != 0; }
};

/// Returns the report as a table: a line for each case, its text below it, and the counts.
inline std::string to_string(const conformance_report& report) {
    static constexpr const char* labels[] = {"passed", "FAILED", "skipped"};
    static constexpr std::size_t label_width = 9, name_width = 52;
    std::string table;
    for (const case_result& result : report.cases) {
        std::string line = labels[static_cast<std::size_t>(result.verdict)];
        line.resize(label_width, ' ');
        line += result.name;
        if (result.verdict != verdict::skipped) {
            line.resize(std::max(line.size() + 1, label_width + name_width), ' ');
            line += std::to_string(result.duration.count()) + " ms";
        }
        table += line + "\n";
        for (std::size_t begin = 0; begin < result.text.size();) {
            const std::size_t end = std::min(result.text.find('\n', begin), result.text.size());
            table.append(label_width, ' ').append(result.text, begin, end - begin).append("\n");
            begin = end + 1;
        }
    }
    return table + std::to_string(report.count(verdict::passed)) + " passed, " +
           std::to_string(report.count(verdict::failed)) + " failed, " +
           std::to_string(report.count(verdict::skipped)) + " skipped\n";
}

template <class TraitsT>
std::basic_ostream<char, TraitsT>& operator<<(std::basic_ostream<char, TraitsT>& out,
                                              const conformance_report& report) {
    return out << std::string_view{to_string(report)};
}

} // namespace testing

namespace detail {

/// Thrown if the transport breaks the contract. If `contract` or `hint` is null, the report shows the name or
/// the hint of the case instead.
struct contract_violation {
    std::string message{}; ///< what the transport did
    const char* contract = nullptr;
    const char* hint = nullptr;
};

/// Thrown if only the time was wrong. A busy machine can be the cause.
struct late_outcome : contract_violation {};

/// Thrown if a case cannot run.
struct skipped_case {
    std::string reason{};
};

inline std::string describe(const transport_result& outcome) {
    if (outcome)
        return "The transport returned status " + std::to_string(outcome->status) + " with a body of " +
               std::to_string(outcome->body.size()) + " bytes";
    static constexpr const char* kinds[] = {"resolve", "connect",   "tls",  "timeout",
                                            "reset",   "cancelled", "other"};
    const transport_failure& failed = outcome.error();
    const auto kind = static_cast<std::size_t>(failed.kind);
    return std::string{"The transport returned failure::"} +
           (kind < std::size(kinds) ? kinds[kind] : "(no enumerator)") +
           (failed.maybe_delivered ? ", maybe delivered (" : ", not delivered (") +
           sanitize(failed.message, 200) + ")";
}

/// Calls the transport. An exception is a violation of the contract.
template <class ActionT>
void no_throw(ActionT&& action) {
    guard_exceptions([&] { action(); },
                     [](const char* text) {
                         throw contract_violation{
                             "The transport threw an exception: " + sanitize(text, 200), "does not throw",
                             "catch the exceptions of your HTTP client and return failure::other"};
                     });
}

/// A request that the transport has been given. Its first outcome counts.
class pending_request {
    std::mutex mutex_{};
    std::optional<transport_result> outcome_{};
    std::optional<contract_violation> violation_{};

public:
    std::atomic<std::size_t> completions{0};

    void complete(transport_result outcome) {
        const std::lock_guard guard{mutex_};
        if (!outcome_)
            outcome_.emplace(std::move(outcome));
    }

    void violate(contract_violation violation) {
        const std::lock_guard guard{mutex_};
        violation_ = std::move(violation);
    }

    /// Returns nullopt if there is no outcome yet. Throws the violation of `send`.
    std::optional<transport_result> outcome() {
        const std::lock_guard guard{mutex_};
        if (violation_)
            throw contract_violation{*violation_};
        return outcome_;
    }
};
using pending_ptr = std::shared_ptr<pending_request>;

/// Runs an action at the end of the scope.
using scope_guard = std::shared_ptr<void>;

/// Returns the completion of a request. The request is cancelled if all copies are destroyed uncalled.
inline completion completion_of(const pending_ptr& request) {
    const auto cancel = [request](void*) {
        request->complete(transport_failure{failure::cancelled, "the completion was destroyed uncalled"});
    };
    return [request, guard = scope_guard{nullptr, cancel}](transport_result outcome) {
        ++request->completions;
        request->complete(std::move(outcome));
    };
}

/// The transport that is checked, whatever its type.
struct transport_under_test {
    std::function<void(http_request, completion)> start{}; // completes before it returns if synchronous
    std::function<void()> run_loop{};                      // empty if synchronous
    std::function<void()> cancel{};                        // this and the next are empty if there is none
    std::function<void(std::chrono::milliseconds)> poll{};
    std::function<void()> wakeup{};
    std::function<void(std::size_t)> max_in_flight{};
    bool thread_safe = false;

    template <class T>
    explicit transport_under_test(T& transport) {
        if constexpr (requires { transport.cancel(); })
            cancel = [&] { no_throw([&] { transport.cancel(); }); };
        if constexpr (requires { transport.poll(std::chrono::milliseconds{}); })
            poll = [&](std::chrono::milliseconds wait) { no_throw([&] { transport.poll(wait); }); };
        if constexpr (requires { transport.wakeup(); })
            wakeup = [&] { no_throw([&] { transport.wakeup(); }); };
        if constexpr (requires { transport.max_in_flight(std::size_t{}); })
            max_in_flight = [&](std::size_t count) { no_throw([&] { transport.max_in_flight(count); }); };
        if constexpr (requires { typename std::bool_constant<T::thread_safe>; })
            thread_safe = T::thread_safe;
    }
};

/// The cases of the contract. Each throws `contract_violation` or `skipped_case`, or passes.
class conformance {
    using milliseconds = std::chrono::milliseconds;
    using steady_clock = std::chrono::steady_clock;
    using tcp = boost::asio::ip::tcp;
    using scripted_server = testing::scripted_server;
    using scripted_response = testing::scripted_response;
    using ending = scripted_response::connection_ending;

    static constexpr milliseconds long_timeout{10'000}, patience{5'000};
    static constexpr milliseconds short_timeout{1'200};      // longer than a server waits between two bytes
    static constexpr std::size_t far_more = 4 * 1024 * 1024; // more than any limit and any socket buffer
    static constexpr std::size_t small_limit = 10'000;
    static constexpr const char* unframed = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    static constexpr const char* chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    const transport_under_test& transport_;
    const testing::conformance_options& options_;
    const milliseconds slack_ = std::min<milliseconds>(options_.slack, std::chrono::hours{1});

    // ---- Requests and responses

    static http_request request_to(std::string url, std::string body = "{}") {
        http_request request;
        request.method = "POST";
        request.url = std::move(url);
        request.headers = {{"X-API-KEY", "pl_conformance"}, {"Content-Type", "application/json"}};
        request.body = std::move(body);
        request.timeout = long_timeout;
        request.max_response_bytes = 1024 * 1024;
        return request;
    }

    static http_request request_to(const scripted_server& server, std::string body = "{}") {
        return request_to(server.base_url() + "/", std::move(body));
    }

    static http_request limited_request_to(const scripted_server& server) {
        http_request request = request_to(server);
        request.max_response_bytes = small_limit;
        return request;
    }

    /// `hold` is for a transport that waits for the end of the connection.
    static scripted_response respond(int status, std::vector<header> headers = {}, std::string body = "{}",
                                     ending end = ending::keep_alive, milliseconds hold = patience) {
        return {.response = {status, std::move(headers), std::move(body)}, .ending = end, .hold = hold};
    }

    static scripted_response raw(std::string bytes, ending end = ending::close_unannounced,
                                 milliseconds hold = {}) {
        return {.raw = std::move(bytes), .ending = end, .hold = hold};
    }

    static scripted_response end_with(ending end, milliseconds hold = {}) {
        return respond(200, {}, "half of this is missing", end, hold);
    }

    static scripted_server::handler always(scripted_response sent) {
        return [response = std::move(sent)](const http_request&) { return response; };
    }

    /// Responds with the body of the request.
    static scripted_response echo(const http_request& request) { return respond(200, {}, request.body); }

    /// Responds with the body of the request, after a second if that is "late".
    static scripted_response echo_late(const http_request& request) {
        scripted_response response = echo(request);
        response.delay = milliseconds{request.body == "late" ? 1'000 : 0};
        return response;
    }

    static std::string all_bytes() {
        std::string bytes;
        for (int byte = 0; byte < 256; ++byte)
            bytes.push_back(static_cast<char>(byte));
        return bytes;
    }

    /// Returns text in which a missing or repeated piece can be detected.
    static std::string filler(std::size_t size) {
        std::string bytes(size, '\0');
        std::uint32_t state = 1;
        for (char& byte : bytes) {
            state = state * 1664525 + 1013904223;
            byte = static_cast<char>('a' + (state >> 24) % 26);
        }
        return bytes;
    }

    /// A port of 127.0.0.1 that either refuses connections or accepts them and then neither reads nor writes.
    struct bound_port {
        boost::asio::io_context context{};
        tcp::acceptor acceptor{context};

        explicit bound_port(bool listens) {
            acceptor.open(tcp::v4());
            acceptor.set_option(
                boost::asio::socket_base::receive_buffer_size{4096}); // connections inherit it
            acceptor.bind({boost::asio::ip::address_v4::loopback(), 0});
            if (listens)
                acceptor.listen();
        }
        std::string url(const char* scheme) const {
            return std::string{scheme} + "://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) +
                   "/";
        }
    };

    // ---- Sending

    static milliseconds since(steady_clock::time_point start) {
        return std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
    }

    static std::string in_ms(milliseconds time) { return std::to_string(time.count()) + " ms"; }

    /// Lets time pass, and runs the loop of an asynchronous transport.
    void run_for(milliseconds time) const {
        const auto start = steady_clock::now();
        do {
            if (transport_.run_loop)
                no_throw(transport_.run_loop);
            else
                std::this_thread::sleep_for(milliseconds{1});
            std::this_thread::yield();
        } while (since(start) < time);
    }

    /// Runs the loop until the condition is true. Returns false if that takes too long.
    template <class ConditionT>
    bool becomes(ConditionT condition) const {
        const auto start = steady_clock::now();
        while (!condition()) {
            if (since(start) > long_timeout + slack_)
                return false;
            run_for(milliseconds{0});
        }
        return true;
    }

    pending_ptr start(http_request request) const {
        return start(std::make_shared<pending_request>(), std::move(request));
    }

    pending_ptr start(pending_ptr pending, http_request request) const {
        const completion done = completion_of(pending);
        try {
            transport_.start(std::move(request), done);
        } catch (contract_violation& violation) {
            pending->violate(std::move(violation));
        }
        return pending;
    }

    transport_result outcome_of(const pending_ptr& request) const {
        std::optional<transport_result> outcome;
        if (!becomes([&] { return (outcome = request->outcome()).has_value(); }))
            throw contract_violation{"The transport did not complete a request",
                                     "completes each request once",
                                     "call the completion however the request ends"};
        return *std::move(outcome);
    }

    transport_result send(http_request request) const { return outcome_of(start(std::move(request))); }

    std::pair<transport_result, milliseconds> send_timed(http_request request) const {
        const auto begin = steady_clock::now();
        transport_result outcome = send(std::move(request));
        return {std::move(outcome), since(begin)};
    }

    /// Sends a request and returns the response, which must have the status.
    http_response exchange(http_request request, int status = 200) const {
        return response_of(send(std::move(request)), status);
    }

    /// Sends a request to a server that responds with the body of the request.
    void echoes(const scripted_server& server, const std::string& body) const {
        same_body(exchange(request_to(server, body)).body, body);
    }

    // ---- Expectations

    static void expect(bool met, std::string otherwise) {
        if (!met)
            throw contract_violation{std::move(otherwise)};
    }

    static void expect_in_time(bool met, std::string otherwise) {
        if (!met)
            throw late_outcome{{std::move(otherwise)}};
    }

    static http_response response_of(transport_result outcome, int status = 200) {
        expect(outcome && outcome->status == status,
               describe(outcome) + "; the server sent status " + std::to_string(status));
        return *std::move(outcome);
    }

    static void expect_failure(const transport_result& outcome, std::initializer_list<failure> kinds,
                               std::optional<bool> maybe_delivered) {
        expect(!outcome && std::find(kinds.begin(), kinds.end(), outcome.error().kind) != kinds.end() &&
                   outcome.error().maybe_delivered ==
                       maybe_delivered.value_or(outcome.error().maybe_delivered),
               describe(outcome));
    }

    static void expect_arrivals(std::size_t arrivals, std::size_t expected = 1) {
        if (arrivals != expected)
            throw contract_violation{"The request arrived " + std::to_string(arrivals) + " times",
                                     "sends a request once",
                                     "turn off retries, authentication and redirects in your HTTP client"};
    }

    /// Returns the only request that has arrived.
    static http_request only_request(const scripted_server& server) {
        std::vector<http_request> requests = server.requests();
        expect_arrivals(requests.size());
        return std::move(requests[0]);
    }

    /// Returns true if the transport refused a request that it cannot send. It may refuse any method
    /// except POST.
    static bool refused(const scripted_server& server, const transport_result& outcome) {
        if (!server.requests().empty())
            return false;
        expect_failure(outcome, {failure::other}, false);
        return true;
    }

    static void same_body(const std::string& body, const std::string& expected) {
        const auto difference = std::mismatch(body.begin(), body.end(), expected.begin(), expected.end());
        expect(body == expected, "The body has " + std::to_string(body.size()) + " bytes, expected " +
                                     std::to_string(expected.size()) + "; the first " +
                                     std::to_string(difference.first - body.begin()) + " are right");
    }

    /// Returns the values of all headers of a name, in order, text as RFC 9110, section 5.3, allows.
    static std::string values(const std::vector<header>& headers, std::string_view name) {
        std::string text;
        for (const header& h : headers) {
            if (equal_ignoring_case(h.name, name))
                text.append(text.empty() ? "\"" : ", ").append(h.value);
        }
        return text.empty() ? "missing" : text + "\"";
    }

    static void same_headers(const std::vector<header>& headers, const std::vector<header>& expected) {
        for (const header& h : expected) {
            const std::string value = values(headers, h.name), right = values(expected, h.name);
            expect(value == right, "The header " + h.name + " is " + sanitize(value, 200) + ", expected " +
                                       sanitize(right, 200));
        }
    }

    /// Sends a request to a server that responds as given. Returns the response, which must have this body
    /// and these headers.
    http_response returns(const scripted_response& response, const std::string& body,
                          const std::vector<header>& headers = {}) const {
        const scripted_server server{always(response)};
        http_response returned = exchange(request_to(server), response.raw ? 200 : response.response.status);
        only_request(server);
        same_body(returned.body, body);
        same_headers(returned.headers, headers);
        return returned;
    }

    http_response returns(int status, const std::vector<header>& headers, const std::string& body) const {
        return returns(respond(status, headers, body), body, headers);
    }

    void resets(const scripted_response& response) const { fails_with(response, {failure::reset}); }

    void fails_with(const scripted_response& response, std::initializer_list<failure> kinds) const {
        const scripted_server server{always(response)};
        expect_failure(send(request_to(server)), kinds, true);
        only_request(server);
    }

    /// How long the servers of timeouts go on, so that no transport waits for ever.
    milliseconds beyond_timeout() const { return short_timeout + slack_ + milliseconds{1'000}; }

    /// Sends a request that must time out. If it has arrived at `server` it must be reported as maybe
    /// delivered. On a busy machine the timeout can end before the transport has sent it.
    void times_out(const std::string& url, const scripted_server* server, std::string body = "{}") const {
        http_request request = request_to(url, std::move(body));
        request.timeout = short_timeout;
        const auto [outcome, duration] = send_timed(std::move(request));
        const std::string text =
            describe(outcome) + " after " + in_ms(duration) + "; the timeout is " + in_ms(short_timeout);
        expect_in_time(duration <= beyond_timeout(), text); // the server ends the connection then
        if (!server) // a busy system may reset a connection that nobody has accepted
            expect_in_time(outcome || outcome.error().kind != failure::reset, text);
        expect(!outcome && outcome.error().kind == failure::timeout && duration >= short_timeout / 2, text);
        if (const std::size_t arrivals = server ? server->requests().size() : 0) {
            expect_arrivals(arrivals);
            if (!outcome.error().maybe_delivered)
                throw contract_violation{describe(outcome),
                                         "reports as maybe delivered what was sent before the timeout",
                                         "leave maybe_delivered as transport_failure sets it for a timeout"};
        }
        expect_in_time(duration <= short_timeout + slack_, text);
    }

    static void expect_over_limit(const transport_result& outcome) {
        expect(outcome ? outcome->status == 200 && outcome->body.size() > small_limit &&
                             outcome->body.size() < far_more
                       : outcome.error().maybe_delivered,
               describe(outcome) + "; the limit is " + std::to_string(small_limit) + " bytes");
    }

    /// Sends a request. The response exceeds the limit and then stalls; the outcome must come before the
    /// connection ends.
    void stops(scripted_response response) const {
        response.hold = slack_ + milliseconds{1'500};
        const scripted_server server{always(response)};
        const auto [outcome, duration] = send_timed(limited_request_to(server));
        expect(duration <= response.hold, describe(outcome) + ", only after the connection had ended");
        expect_over_limit(outcome);
    }

    static void skip_unless(bool possible, const char* reason) {
        if (!possible)
            throw skipped_case{reason};
    }

    void needs_loop() const { skip_unless(!!transport_.run_loop, "the transport is synchronous"); }
    void needs_cancel() const { skip_unless(!!transport_.cancel, "the transport has no cancel()"); }
    void needs_tls() const { skip_unless(!!options_.tls, "conformance_options::tls is not set"); }

    // ---- The request

    void method() const {
        for (const char* const method : {"POST", "PUT"}) {
            const scripted_server server{echo};
            http_request request = request_to(server);
            request.method = method;
            const transport_result outcome = send(request);
            if (request.method != "POST" && refused(server, outcome))
                continue;
            response_of(outcome);
            const std::string arrived = only_request(server).method;
            expect(arrived == method, "The method " + request.method + " arrived as " + arrived);
        }
    }

    void target() const {
        const std::string target = "/rest/a%2Fb%20c/../;v=1/~x//?q=%7e&r=a+b&empty=&s=/?:@!$'()*,";
        const scripted_server server{echo};
        exchange(request_to(server.base_url() + target));
        const std::string arrived = only_request(server).url;
        expect(arrived == target, "The target " + target + " arrived as " + sanitize(arrived, 200));
    }

    /// Sends a request with these headers, which must arrive. Returns all that arrived.
    std::vector<header> sends(const scripted_server& server, const std::vector<header>& sent) const {
        http_request request = request_to(server);
        request.headers = sent;
        exchange(request);
        std::vector<header> arrived = only_request(server).headers;
        same_headers(arrived, sent);
        return arrived;
    }

    void headers() const {
        sends(scripted_server{echo}, {{"X-API-KEY", "pl_conformance"},
                                      {"X-Spaces", "a b  c"},
                                      {"X-Commas", "a, b,c;d=\"e, f\""},
                                      {"X-Empty", ""},
                                      {"X-Repeated", "1"},
                                      {"x-odd-CASE", "~!@#$%^&*()_+{}|<>?`-=[]\\;'/."},
                                      {"X-Repeated", "2"},
                                      {"X-Long", filler(4000)}});
    }

    void high_bytes() const {
        sends(scripted_server{echo}, {{"X-Utf8", "caf\xC3\xA9 \xE2\x82\xAC"}, {"X-Latin1", "\xE9\x80\xFF"}});
    }

    void no_header_twice() const {
        const scripted_server server{echo};
        same_headers(sends(server, {{"Content-Type", "application/json"},
                                    {"Accept", "application/json"},
                                    {"User-Agent", "conformance/1"}}),
                     {{"Content-Length", "2"}, {"Host", server.base_url().substr(7)}});
    }

    void added_headers() const {
        const std::vector<header> needed{
            {"Host", ""}, {"Content-Length", ""}, {"Connection", ""}, {"Keep-Alive", ""}};
        for (const std::size_t size : {std::size_t{2}, far_more / 2}) {
            const scripted_server server{always(respond(200))};
            const http_request request = request_to(server, filler(size));
            exchange(request);
            for (const header& h : only_request(server).headers)
                expect(find_header(request.headers, h.name) || find_header(needed, h.name),
                       "The transport added " + sanitize(h.name, 200) + ": " + sanitize(h.value, 200) +
                           " to a request with a body of " + std::to_string(size) + " bytes");
        }
    }

    void headers_of_each_request() const {
        const scripted_server server{echo};
        http_request first = request_to(server), second = first;
        first.headers.push_back({"X-First", "1"});
        second.headers = {{"X-API-KEY", "pl_other"}, {"X-Second", "2"}};
        for (int i = 0; i < 4; ++i) {
            exchange(first);
            const http_request arrived = server.requests().back();
            same_headers(arrived.headers, first.headers);
            for (const header& h : second.headers)
                expect(find_header(first.headers, h.name) || !find_header(arrived.headers, h.name),
                       "The transport sent the header " + h.name + " of an earlier request");
            std::swap(first, second);
        }
    }

    void two_servers() const {
        const scripted_server one{echo}, other{echo};
        for (std::size_t round = 1; round <= 3; ++round) {
            for (const scripted_server* const server : {&one, &other}) {
                echoes(*server, "here");
                expect(server->requests().size() == round,
                       "A request and its API key went to the server of an earlier request");
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
        same_headers(only_request(*server).headers, {{"Host", server->base_url().substr(7)}});
    }

    void head() const {
        const std::string body = "not sent after HEAD";
        const scripted_server server{always(respond(200, {{"X-Kept", "1"}}, body))};
        http_request request = request_to(server, "");
        request.method = "HEAD";
        const transport_result outcome = send(request);
        if (!refused(server, outcome)) {
            same_headers(response_of(outcome).headers, {{"X-Kept", "1"}});
            same_body(outcome->body, "");
        }
        same_body(exchange(request_to(server)).body, body);
    }

    void sends_body(const std::string& bytes) const {
        const scripted_server server{always(respond(200))};
        exchange(request_to(server, bytes));
        const http_request arrived = only_request(server);
        same_body(arrived.body, bytes);
        same_headers(arrived.headers, {{"Content-Length", std::to_string(bytes.size())}});
    }

    void invalid_requests() const {
        const scripted_server server{always(respond(200))};
        std::vector<std::pair<std::string, http_request>> requests;
        const auto request_with = [&](std::string fault) -> http_request& {
            return requests.emplace_back(std::move(fault), request_to(server)).second;
        };
        for (const std::string& bytes : {std::string{"a\r\nX-Injected: b"}, std::string{"a\nb"},
                                         std::string{"a\rb"}, std::string{"a\0b", 3}}) {
            request_with("a line break or a NUL in a header value").headers.push_back({"X-Broken", bytes});
            request_with("a line break or a NUL in a header name").headers.push_back({bytes, "x"});
            request_with("a line break or a NUL in the method").method += bytes;
            request_with("a line break or a NUL in the URL").url += bytes;
        }
        for (const char* const url : {"", "http://", "127.0.0.1", "http://127.0.0.1:99999999/"})
            request_with("the URL \"" + std::string{url} + "\"").url = url;
        request_with("a space in the URL").url += "a b";
        request_with("a fragment in the URL").url += "#fragment";
        request_with("a password in the URL").url.insert(7, "user:word@");
        request_with("a header Content-Length").headers.push_back({"Content-Length", "1"});
        request_with("a header Transfer-Encoding").headers.push_back({"Transfer-Encoding", "chunked"});
        for (const auto& [fault, request] : requests) {
            const transport_result outcome = send(request);
            expect(!outcome && outcome.error().kind == failure::other && !outcome.error().maybe_delivered &&
                       server.requests().empty(),
                   describe(outcome) + " for a request with " + fault);
        }
    }

    // ---- The response

    void after_informational(const std::string& informational) const {
        const std::string body = "after " + informational.substr(9, 3);
        returns(raw(informational + "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + body,
                    ending::keep_alive, patience),
                body);
    }

    /// Covers all registered statuses, except 3xx and those without a body, which have their own cases.
    void statuses() const {
        static constexpr std::pair<int, int> ranges[] = {{200, 203}, {206, 208}, {226, 226}, {400, 431},
                                                         {451, 451}, {500, 511}, {599, 599}};
        for (const auto& [first, last] : ranges) {
            for (int status = first; status <= last; ++status)
                returns(status,
                        {{"Retry-After", "0"},
                         {"Refresh", "0; url=/"},
                         {"WWW-Authenticate", "Basic realm=\"x\""},
                         {"Proxy-Authenticate", "Basic realm=\"x\""}},
                        "text");
        }
    }

    void no_body() const {
        for (const int status : {204, 304})
            returns(status, {{"X-Kept", "1"}}, "");
    }

    void response_headers() const {
        returns(200,
                {{"X-Repeated", "1"}, {"x-odd-CASE", "a,  b"}, {"X-Repeated", "2"}, {"Retry-After", "3"}},
                "");
    }

    void returns_header(const header& h) const { returns(200, {h}, ""); }

    void header_order() const {
        const std::vector<header> sent{
            {"X-Zebra", "1"}, {"X-Ant", "2"}, {"Retry-After", "3"}, {"X-Mole", "4"}, {"X-Ant", "5"}};
        std::vector<header> returned = returns(200, sent, "{}").headers;
        std::erase_if(returned, [&](const header& h) { return !find_header(sent, h.name); });
        expect(
            std::equal(returned.begin(), returned.end(), sent.begin(), sent.end(),
                       [](const header& a, const header& b) { return equal_ignoring_case(a.name, b.name); }),
            "The transport returned the headers in another order");
    }

    void chunked_body() const {
        returns(raw(std::string{chunked} + "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n",
                    ending::keep_alive, patience),
                "abc0123456789");
        returns(raw(std::string{chunked} + "0\r\n\r\n", ending::keep_alive, patience), "");
    }

    void unframed_body() const {
        const std::string body = filler(100'000);
        returns(raw(unframed + body), body);
    }

    void body_with_nul() const { returns(200, {}, all_bytes() + all_bytes()); }

    void encoded_body() const { // "{}", compressed by gzip
        returns(200, {{"Content-Encoding", "gzip"}},
                {"\x1F\x8B\x08\0\0\0\0\0\0\x03\xAB\xAE\x05\0\x43\xBF\xA6\xA3\x02\0\0\0", 22});
    }

    void cookies() const {
        const std::vector<header> set{{"Set-Cookie", "session=1; Path=/"}, {"Set-Cookie", "other=2"}};
        const scripted_server server{always(respond(200, set))};
        for (int i = 0; i < 2; ++i)
            same_headers(exchange(request_to(server)).headers, set);
        for (const http_request& request : server.requests())
            expect(!find_header(request.headers, "Cookie"),
                   "The transport sent a cookie that an earlier response had set");
    }

    void cache() const {
        for (const char* const method : {"POST", "GET"}) {
            const scripted_server server{
                always(respond(200, {{"Cache-Control", "public, max-age=3600"},
                                     {"ETag", "\"1\""},
                                     {"Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"}}))};
            http_request request = request_to(server, "");
            request.method = method;
            if (refused(server, send(request)))
                continue;
            exchange(request);
            expect_arrivals(server.requests().size(), 2);
            for (const http_request& arrived : server.requests())
                expect(!find_header(arrived.headers, "If-None-Match") &&
                           !find_header(arrived.headers, "If-Modified-Since"),
                       "The transport asked whether an earlier response is still valid");
        }
    }

    void redirects() const {
        const scripted_server elsewhere{echo};
        for (const std::string& location :
             {elsewhere.base_url() + "/rest/track-prompt", std::string{"/rest/track-prompt"}}) {
            for (const int status : {301, 302, 303, 307, 308, 300, 304, 305, 306, 399, 201, 202}) {
                const scripted_server server{[&](const http_request& request) {
                    return request.url == "/" ? respond(status, {{"Location", location}}, "moved")
                                              : echo(request);
                }};
                const transport_result outcome = send(request_to(server));
                expect(elsewhere.requests().empty(),
                       "The transport followed a " + std::to_string(status) + " to another port");
                same_headers(response_of(outcome, status).headers, {{"Location", location}});
                only_request(server);
            }
        }
    }

    void limit_met() const {
        const scripted_server server{always(respond(200, {}, filler(small_limit)))};
        same_body(exchange(limited_request_to(server)).body, filler(small_limit));
    }

    void limit_exceeded() const {
        const scripted_server server{always(respond(200, {}, filler(small_limit + 1)))};
        expect_over_limit(send(limited_request_to(server)));
        same_body(exchange(request_to(server)).body, filler(small_limit + 1));
    }

    void framed_body_too_long() const { stops(respond(200, {}, filler(2 * far_more), ending::close_midway)); }

    void chunks_too_long() const { stops(raw(std::string{chunked} + "800000\r\n" + filler(far_more))); }

    void unframed_body_too_long() const {
        stops(raw(unframed + filler(far_more)));
        const scripted_server server{always(raw(unframed + filler(small_limit + 1)))};
        expect_over_limit(send(limited_request_to(server)));
    }

    void largest_values() const {
        const scripted_server server{echo};
        http_request request = request_to(server, "echo");
        request.timeout = milliseconds::max();
        request.max_response_bytes = std::numeric_limits<std::size_t>::max();
        same_body(exchange(request).body, "echo");
    }

    // ---- Time

    void no_response() const {
        const scripted_server server{always(end_with(ending::silent, beyond_timeout()))};
        times_out(server.base_url() + "/", &server);
    }

    /// Returns the descriptor that the system would open next. POSIX systems use the lowest free number.
    static long next_descriptor() {
#ifdef _WIN32
        return 0;
#else
        boost::asio::io_context context;
        return static_cast<long>(tcp::socket{context, tcp::v4()}.native_handle());
#endif
    }

    void many_short_timeouts() const {
        static constexpr int count = 20;
        static constexpr milliseconds timeout{40}, allowance{200}; // the allowance is for a busy machine
        const scripted_server server{always(end_with(ending::silent, beyond_timeout()))};
        http_request request = request_to(server);
        request.timeout = timeout;
        const long descriptor = next_descriptor();
        const auto begin = steady_clock::now();
        const auto text = [&] {
            return std::to_string(count) + " timeouts of " + in_ms(timeout) + " last " + in_ms(since(begin));
        };
        for (int i = 0; i < count; ++i) {
            expect_failure(send(request), {failure::timeout}, std::nullopt);
            expect_in_time(since(begin) <= count * (timeout + allowance), text() + " or more");
        }
        expect(since(begin) >= count * timeout / 2, text());
        const bool closed = becomes([&] { return server.open_connections() <= 1; });
        expect(closed, "After " + std::to_string(count) + " timeouts, " +
                           std::to_string(server.open_connections()) + " connections are open");
        expect_in_time(next_descriptor() - descriptor < count, // other threads of this process may open some
                       "The transport left at least " + std::to_string(count) + " descriptors open");
    }

    void request_after_timeout() const {
        const scripted_server server{echo_late};
        http_request request = request_to(server, "late");
        request.timeout = milliseconds{50};
        static_cast<void>(send(request)); // other cases check this outcome
        echoes(server, "next");
    }

    void slow_response(std::string bytes, milliseconds delay) const {
        bytes.resize(static_cast<std::size_t>(beyond_timeout() / delay) + 1, 'x');
        scripted_response slow = raw(std::move(bytes));
        slow.byte_delay = delay;
        const scripted_server server{always(std::move(slow))};
        times_out(server.base_url() + "/", &server);
    }

    void unresponsive_peer(const char* scheme, std::size_t body_size) const {
        bound_port peer{true};
        std::promise<void> finished;
        const std::future<void> closing = std::async(std::launch::async, [&] {
            finished.get_future().wait_for(beyond_timeout());
            boost::system::error_code ignored;
            peer.acceptor.close(ignored);
        });
        const std::string url = peer.url(scheme);
        const scope_guard finish{nullptr, [&](void*) { finished.set_value(); }};
        times_out(url, nullptr, filler(body_size));
    }

    void no_handshake() const {
        needs_tls();
        unresponsive_peer("https", 2);
    }

    // ---- Failures

    void refused_connection() const {
        expect_failure(send(request_to(bound_port{false}.url("http"))), {failure::connect}, false);
    }

    void unknown_host() const {
        const transport_result outcome = send(request_to("http://promptlayer.invalid/"));
        if (!outcome && outcome.error().kind == failure::timeout && !outcome.error().maybe_delivered)
            throw skipped_case{"the DNS resolver of this machine does not respond"};
        expect_failure(outcome, {failure::resolve}, false);
    }

    void cut_headers() const {
        resets(raw("HTTP/1.1 200 OK\r\nContent-Le"));
        resets(raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"));
    }

    void cut_chunks() const {
        resets(raw(std::string{chunked} + "5\r\nabc"));
        resets(raw(std::string{chunked} + "3\r\nabc\r\n")); // between two chunks
    }

    void not_http() const {
        for (const char* const bytes :
             {"SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 twohundred OK\r\n\r\n", "\r\n\r\n\r\n"})
            fails_with(raw(bytes), {failure::other, failure::reset});
    }

    // ---- Connections and threads

    void excess_bytes() const {
        const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        const scripted_server server{[&](const http_request& request) {
            return request.body == "first"
                       ? raw(head + "first" + head + "other", ending::keep_alive, patience)
                       : echo(request);
        }};
        const transport_result outcome = send(request_to(server, "first"));
        if (outcome)
            same_body(outcome->body, "first");
        else
            expect_failure(outcome, {failure::reset, failure::other}, true);
        echoes(server, "again");
    }

    void connection_ended_by_response() const {
        for (const std::string head : {"HTTP/1.1 200 OK\r\nConnection: close", "HTTP/1.0 200 OK"}) {
            const scripted_server server{[&](const http_request& request) {
                return raw(head + "\r\nContent-Length: 3\r\n\r\n" + request.body, ending::keep_alive,
                           patience);
            }};
            echoes(server, "one");
            echoes(server, "two");
            expect(server.connections() == 2,
                   "The transport reused a connection that the previous response had ended");
        }
    }

    void kept_connection_cut() const {
        const scripted_server server{[](const http_request& request) {
            return request.body == "first" ? echo(request) : raw("HTTP/1.1 200 OK\r\nContent-Le");
        }};
        echoes(server, "first");
        expect_failure(send(request_to(server, "second")), {failure::reset}, true);
        expect_arrivals(server.requests().size() - 1);
    }

    void kept_connection_closed() const {
        for (int round = 0; round < 5; ++round) {
            const scripted_server server{[](const http_request& request) {
                scripted_response response = echo(request);
                response.ending = ending::close_unannounced;
                response.hold = {};
                return response;
            }};
            echoes(server, "first");
            becomes([&] { return server.ended_connections() != 0; });
            run_for(milliseconds{10}); // the loop sees that the connection has ended
            const transport_result outcome = send(request_to(server, "second"));
            const std::size_t arrivals = server.requests().size() - 1;
            if (outcome)
                same_body(outcome->body, "second");
            expect(outcome ? arrivals == 1 : !outcome.error().maybe_delivered && arrivals == 0,
                   describe(outcome) + "; the request arrived " + std::to_string(arrivals) + " times");
        }
    }

    void thousand_requests() const {
        const scripted_server server{echo};
        for (int i = 0; i < 1'000; ++i)
            echoes(server, std::to_string(i));
        expect(server.connections() <= 10,
               "1,000 requests opened " + std::to_string(server.connections()) + " connections");
    }

    /// Waits for requests that have their index as the body. Each must get the response to it.
    void each_echoes(const std::vector<pending_ptr>& requests) const {
        for (std::size_t i = 0; i < requests.size(); ++i)
            same_body(response_of(outcome_of(requests[i])).body, std::to_string(i));
    }

    void eight_threads() const {
        skip_unless(transport_.thread_safe, "the transport has no static member thread_safe that is true");
        const scripted_server server{echo};
        std::vector<pending_ptr> requests(8 * 25);
        std::vector<std::future<void>> threads;
        for (std::size_t begin = 0; begin < requests.size(); begin += 25) {
            threads.push_back(std::async(std::launch::async, [&, begin] {
                for (std::size_t i = begin; i < begin + 25; ++i)
                    requests[i] = start(request_to(server, std::to_string(i)));
            }));
        }
        for (std::future<void>& thread : threads)
            thread.get();
        each_echoes(requests);
    }

    /// Sends a request, and calls `cancel()` once it has arrived and `delay` has passed. Returns the outcome
    /// and the time from `cancel()` to the outcome.
    std::pair<transport_result, milliseconds> cancelled(const scripted_server& server,
                                                        milliseconds delay = {}) const {
        std::atomic<bool> finished{false};
        std::future<steady_clock::time_point> cancel_time = std::async(std::launch::async, [&] {
            while (server.requests().empty() && !finished)
                std::this_thread::sleep_for(milliseconds{1});
            std::this_thread::sleep_for(delay);
            const auto now = steady_clock::now();
            transport_.cancel();
            return now;
        });
        const scope_guard finish{nullptr, [&](void*) { finished = true; }};
        transport_result outcome = send(request_to(server, "late"));
        const auto end = steady_clock::now();
        finished = true;
        return {std::move(outcome), std::chrono::duration_cast<milliseconds>(end - cancel_time.get())};
    }

    void cancels(const scripted_response& response, milliseconds delay = {}) const {
        const scripted_server server{always(response)};
        const auto [outcome, duration] = cancelled(server, delay);
        expect_failure(outcome, {failure::cancelled}, true);
        expect_in_time(duration <= milliseconds{100},
                       "The request ended " + in_ms(duration) + " after cancel()");
    }

    void cancels_many() const {
        const scripted_server server{always(end_with(ending::silent, milliseconds{3'000}))};
        std::vector<pending_ptr> requests(3);
        for (pending_ptr& request : requests)
            request = start(request_to(server));
        run_for(milliseconds{20});
        transport_.cancel();
        for (const pending_ptr& request : requests)
            expect_failure(outcome_of(request), {failure::cancelled}, std::nullopt);
    }

    void cancel() const {
        needs_cancel();
        transport_.cancel(); // no request is in flight, so that nothing ends
        cancels(end_with(ending::silent, milliseconds{3'000}));
        if (transport_.run_loop)
            cancels_many();
        echoes(scripted_server{echo}, "next");
    }

    void cancel_within_response() const {
        needs_cancel();
        for (const char* const begin :
             {"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of"}) {
            // The response arrives before the cancel
            cancels(raw(begin, ending::close_unannounced, milliseconds{3'000}), milliseconds{30});
        }
    }

    void request_after_cancel() const {
        needs_cancel();
        const scripted_server server{echo_late};
        static_cast<void>(cancelled(server)); // other cases check this outcome
        echoes(server, "next");
    }

    // ---- Asynchronous transports

    static constexpr std::size_t many = 50; // requests in flight at once

    void takes_max_in_flight() const {
        skip_unless(!!transport_.max_in_flight, "the transport has no max_in_flight()");
        transport_.max_in_flight(many);
    }

    /// Calls `poll`, which must return within the slack.
    void polls_briefly(milliseconds wait, const char* reason) const {
        const auto begin = steady_clock::now();
        transport_.poll(wait);
        const milliseconds duration = since(begin);
        expect_in_time(duration <= slack_,
                       "poll(" + in_ms(wait) + ") returned after " + in_ms(duration) + ", " + reason);
    }

    void poll() const {
        skip_unless(!!transport_.poll, "the transport has no poll(std::chrono::milliseconds)");
        const milliseconds long_wait = slack_ + milliseconds{1'000};
        std::optional<scripted_server> silent{always(end_with(ending::silent, long_timeout + slack_))};
        const pending_ptr unanswered = start(request_to(*silent));
        becomes([&] { return !silent->requests().empty(); });
        polls_briefly(milliseconds{20}, "with a request in flight");
        const scripted_server server{echo};
        const pending_ptr answered = start(request_to(server));
        while (!answered->outcome())
            polls_briefly(long_wait, "although a response had arrived");
        silent.reset();
        static_cast<void>(outcome_of(unanswered));
    }

    void wakeup() const {
        skip_unless(transport_.poll && transport_.wakeup, "the transport has no poll(...) with wakeup()");
        const milliseconds long_wait = slack_ + milliseconds{1'000};
        std::optional<scripted_server> silent{always(end_with(ending::silent, long_timeout + slack_))};
        const pending_ptr unanswered = start(request_to(*silent));
        becomes([&] { return !silent->requests().empty(); });
        for (int i = 0; i < 3; ++i) { // the first may return early, because a timer of the transport expires
            run_for(milliseconds{20});
            transport_.wakeup();
            polls_briefly(long_wait, "although wakeup() was called before");
        }
        const std::future<void> wakes = std::async(std::launch::async, [&] {
            std::this_thread::sleep_for(milliseconds{30});
            transport_.wakeup();
        });
        do
            polls_briefly(long_wait, "although wakeup() was called meanwhile");
        while (wakes.wait_for(milliseconds{0}) != std::future_status::ready);
        silent.reset();
        static_cast<void>(outcome_of(unanswered));
    }

    void send_does_not_block() const {
        needs_loop();
        const scripted_server server{echo_late};
        const auto begin = steady_clock::now();
        const pending_ptr request = start(request_to(server, "late"));
        const milliseconds duration = since(begin);
        response_of(outcome_of(request));
        expect_in_time(duration <= milliseconds{500}, "send() returned after " + in_ms(duration));
    }

    void many_in_flight() const {
        needs_loop();
        const scripted_server server{[](const http_request& request) {
            scripted_response response = echo(request);
            response.delay = milliseconds{20};
            return response;
        }};
        std::vector<pending_ptr> requests;
        for (std::size_t i = 0; i < many; ++i)
            requests.push_back(start(request_to(server, std::to_string(i))));
        each_echoes(requests);
    }

    void timeouts_of_many() const {
        needs_loop();
        const scripted_server server{always(end_with(ending::silent, beyond_timeout()))};
        http_request request = request_to(server);
        request.timeout = milliseconds{200};
        const auto begin = steady_clock::now();
        std::vector<pending_ptr> requests(10);
        for (pending_ptr& pending : requests)
            pending = start(request);
        for (const pending_ptr& pending : requests)
            expect_failure(outcome_of(pending), {failure::timeout}, std::nullopt);
        const milliseconds duration = since(begin);
        expect_in_time(duration <= milliseconds{1'000},
                       "10 requests at once, each with a timeout of 200 ms, took " + in_ms(duration));
    }

    void send_from_completion() const {
        needs_loop();
        struct nested_send { // the completion may outlive this case
            std::mutex mutex{};
            std::function<void()> send{};
        };
        const scripted_server server{echo};
        const auto first = std::make_shared<pending_request>(), second = std::make_shared<pending_request>();
        const auto nested = std::make_shared<nested_send>();
        nested->send = [&] { start(second, request_to(server, "second")); };
        const scope_guard clear{nullptr, [&](void*) {
                                    const std::lock_guard guard{nested->mutex};
                                    nested->send = nullptr;
                                }};
        transport_.start(request_to(server, "first"),
                         [nested, done = completion_of(first)](transport_result outcome) {
                             if (const std::lock_guard guard{nested->mutex}; nested->send)
                                 nested->send();
                             done(std::move(outcome));
                         });
        same_body(response_of(outcome_of(first)).body, "first");
        same_body(response_of(outcome_of(second)).body, "second");
    }

    void completes_once() const {
        needs_loop();
        const bound_port refusing{false};
        const scripted_server server{echo_late};
        std::vector<pending_ptr> requests;
        for (const std::string& url : {server.base_url() + "/", refusing.url("http"), std::string{"no URL"}})
            requests.push_back(start(request_to(url)));
        for (const pending_ptr& request : requests)
            static_cast<void>(outcome_of(request));
        requests.push_back(start(request_to(server, "late")));
        run_for(milliseconds{20});
        if (transport_.cancel)
            transport_.cancel();
        static_cast<void>(outcome_of(requests.back()));
        run_for(milliseconds{50});
        for (const pending_ptr& request : requests)
            expect(request->completions <= 1, "The transport called a completion " +
                                                  std::to_string(request->completions.load()) + " times");
    }

    // ---- TLS

    std::string tls_url(testing::certificate shown, const scripted_server& server) const {
        needs_tls();
        return options_.tls(shown, server.port()) + "/";
    }

    void good_certificate() const {
        const scripted_server server{echo};
        const std::string body = filler(100'000);
        same_body(exchange(request_to(tls_url(testing::certificate::good, server), body)).body, body);
        only_request(server);
    }

    void rejects(testing::certificate shown) const {
        const scripted_server server{echo};
        const transport_result outcome = send(request_to(tls_url(shown, server)));
        run_for(milliseconds{50}); // time to arrive
        expect(server.requests().empty(), "The request and its API key went to a server that is not trusted");
        expect_failure(outcome, {failure::tls}, false);
    }

    void tls_body_cut() const {
        const scripted_server server{
            // the hold lets the bytes arrive before the reset
            always(raw(std::string{unframed} + "half of", ending::reset_midway, milliseconds{50}))};
        expect_failure(send(request_to(tls_url(testing::certificate::good, server))), {failure::reset}, true);
        only_request(server);
    }

    // ---- All of them

    struct entry {
        const char* name; ///< the contract: "a transport ..."
        std::function<void(const conformance&)> run;
        const char* hint;
    };

    /// Returns a case that calls a member function with these arguments.
    template <class MemberT, class... ArgumentT>
    static auto with(MemberT member, ArgumentT... arguments) {
        return [=](const conformance& kit) { (kit.*member)(arguments...); };
    }

    static const std::vector<entry>& cases() {
        using kit = conformance;
        using testing::certificate;
        static constexpr const char* write_all = "pass data and size on, not a C string; write until all "
                                                 "bytes are written; send Content-Length: 0 for "
                                                 "an empty body";
        static constexpr const char* read_on = "read on after a status of 1xx";
        static constexpr const char* copy_headers =
            "copy each response header, in order, with repeats and empty values";
        static constexpr const char* deadline =
            "return failure::timeout when http_request::timeout has passed since send(); give your HTTP "
            "client one "
            "deadline for the whole exchange, or end the exchange from a timer";
        static constexpr const char* close_it =
            "close the connection of a request that ended without its response";
        static constexpr const char* check_end = "return failure::reset, maybe delivered, and no part of the "
                                                 "response, if the connection ends before the "
                                                 "headers, Content-Length bytes or the last chunk";
        static constexpr const char* count_bytes =
            "count the bytes of the body as they arrive and end the transfer at the limit; return one byte "
            "more "
            "than max_response_bytes, or a failure that is maybe delivered";
        static constexpr const char* verify = "turn on the check of the certificate and of its host in your "
                                              "TLS library; return failure::tls, not "
                                              "delivered, before anything is sent";
        static const std::vector<entry> all{
            {"accepts max_in_flight before the first request", &kit::takes_max_in_flight,
             "only store the number there"},
            {"sends the method as it stands", &kit::method,
             "pass http_request::method on; return failure::other, not delivered, for a method that your "
             "HTTP client "
             "cannot send"},
            {"sends the path and query as they stand", &kit::target,
             "turn off the encoding and normalization of URLs"},
            {"sends every header as it stands", &kit::headers,
             "pass each of http_request::headers on, in a list and not in a map"},
            {"sends header values as bytes", &kit::high_bytes, "pass header values on without a conversion"},
            {"sends no header twice", &kit::no_header_twice,
             "set a default header of your HTTP client only if the request does not have it; send Host and "
             "Content-Length once"},
            {"adds only headers that the connection needs", &kit::added_headers,
             "add only Host, Content-Length, Connection and Keep-Alive; turn off each default header of your "
             "HTTP "
             "client, Accept-Encoding and Expect included"},
            {"sends each request with its own headers", &kit::headers_of_each_request,
             "set headers for each request and not for a session"},
            {"sends each request to its own server", &kit::two_servers,
             "look up a kept connection by scheme, host and port"},
            {"connects to an IPv6 address", &kit::ipv6,
             "parse the URL with the parser of your HTTP client; the host may be in brackets"},
            {"expects no body after HEAD", &kit::head,
             "return the response to HEAD after its headers, or refuse the method"},
            {"sends a body of 0 bytes", with(&kit::sends_body, ""), write_all},
            {"sends a body of 1 byte", with(&kit::sends_body, "x"), write_all},
            {"sends a body of 64 KiB", with(&kit::sends_body, filler(64 * 1024)), write_all},
            {"sends a body of 1 MiB", with(&kit::sends_body, filler(1024 * 1024)), write_all},
            {"sends a body of all byte values",
             with(&kit::sends_body, all_bytes() + "\r\n\r\n" + all_bytes()), write_all},
            {"refuses a request that cannot be sent", &kit::invalid_requests,
             "return failure::other, not delivered, if promptlayer::invalid_reason(request) is not null"},
            {"skips 100 Continue", with(&kit::after_informational, "HTTP/1.1 100 Continue"), read_on},
            {"skips 103 Early Hints",
             with(&kit::after_informational, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>"), read_on},
            {"returns a response of any status", &kit::statuses,
             "return status, headers and body even if your HTTP client calls the status an error"},
            {"returns a response without a body", &kit::no_body, "expect no body after 204 and 304"},
            {"returns every response header", &kit::response_headers, copy_headers},
            {"returns response headers in order", &kit::header_order, copy_headers},
            {"returns a long response header", with(&kit::returns_header, header{"X-Long", filler(4000)}),
             copy_headers},
            {"returns an empty response header", with(&kit::returns_header, header{"X-Empty", ""}),
             copy_headers},
            {"decodes a chunked body", &kit::chunked_body, "remove the chunked coding"},
            {"reads a body until the connection closes", &kit::unframed_body,
             "read to the end of the connection if there is no Content-Length"},
            {"returns a body with NUL bytes", &kit::body_with_nul, "copy data and size, not a C string"},
            {"returns an encoded body as it came", &kit::encoded_body,
             "turn off decompression in your HTTP client, and keep the header Content-Encoding"},
            {"keeps no cookies", &kit::cookies, "turn off cookies in your HTTP client"},
            {"keeps no cache", &kit::cache, "turn off the cache in your HTTP client"},
            {"follows no redirect", &kit::redirects, "turn off redirects in your HTTP client"},
            {"times out without a response", &kit::no_response, deadline},
            {"closes the connection after a timeout", &kit::many_short_timeouts,
             "close the connection of a request that timed out, and do not round a timeout up to seconds"},
            {"sends the next request after a timeout", &kit::request_after_timeout, close_it},
            {"times out while the status line arrives slowly",
             with(&kit::slow_response, "HTTP/1.1 200 OK\r\n", milliseconds{1'000}), deadline},
            {"times out while headers arrive without end",
             with(&kit::slow_response, "HTTP/1.1 200 OK\r\nX-Endless: ", milliseconds{5}), deadline},
            {"times out while the body arrives slowly",
             with(&kit::slow_response, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", milliseconds{5}),
             deadline},
            {"times out if the server does not read", with(&kit::unresponsive_peer, "http", 2 * far_more),
             deadline},
            {"times out without a TLS handshake", &kit::no_handshake, deadline},
            {"reports a refused connection", &kit::refused_connection,
             "return failure::connect, not delivered, if no connection was made"},
            {"reports an unknown host", &kit::unknown_host,
             "return failure::resolve, not delivered, if the DNS lookup failed"},
            {"reports a reset before the response",
             with(&kit::resets, end_with(ending::reset_before_response)),
             "return failure::reset, maybe delivered, if the connection ended before the response"},
            {"reports a response cut within its headers", &kit::cut_headers, check_end},
            {"reports a reset within the body", with(&kit::resets, end_with(ending::reset_midway)),
             check_end},
            {"reports a body shorter than Content-Length", with(&kit::resets, end_with(ending::close_midway)),
             check_end},
            {"reports a chunked body cut short", &kit::cut_chunks, check_end},
            {"reports a response that is not HTTP", &kit::not_http,
             "return failure::other or failure::reset, maybe delivered, if there is no status line"},
            {"returns a body as long as the limit", &kit::limit_met, "stop only beyond max_response_bytes"},
            {"stops at a body longer than the limit", &kit::limit_exceeded, count_bytes},
            {"stops at a body far longer than the limit", &kit::framed_body_too_long, count_bytes},
            {"stops at a chunked body longer than the limit", &kit::chunks_too_long, count_bytes},
            {"stops at an unframed body longer than the limit", &kit::unframed_body_too_long, count_bytes},
            {"accepts the largest timeout and limit", &kit::largest_values,
             "compare them without adding to them, and clamp them to the range of your HTTP client"},
            {"ignores bytes after a response", &kit::excess_bytes,
             "close a connection that has unread bytes"},
            {"reuses no connection that a response ends", &kit::connection_ended_by_response,
             "close the connection after a response with Connection: close or of HTTP/1.0"},
            {"sends once if a kept connection is cut", &kit::kept_connection_cut,
             "send again only if a kept connection ended without a byte of the response"},
            {"replaces a kept connection that was closed", &kit::kept_connection_closed,
             "check that a kept connection is open before it is used again, or fail as not delivered"},
            {"keeps connections for 1,000 requests", &kit::thousand_requests,
             "keep the connection, or the handle that owns it, from one request to the next"},
            {"sends from 8 threads at once", &kit::eight_threads,
             "guard the state that calls of send() share, or remove thread_safe"},
            {"cancels the requests in flight", &kit::cancel,
             "in cancel(), end the requests in flight within 100 ms with failure::cancelled, maybe delivered "
             "if they "
             "were sent; do nothing if none is in flight"},
            {"cancels within the response", &kit::cancel_within_response,
             "in cancel(), wake the thread that waits for the rest of the response too"},
            {"sends the next request after a cancel", &kit::request_after_cancel, close_it},
            {"returns from send without waiting", &kit::send_does_not_block, "start the request and return"},
            {"completes many requests in flight", &kit::many_in_flight,
             "store each completion with its request"},
            {"times out many requests in flight", &kit::timeouts_of_many,
             "start the timer of a request in send(), even if the request has to wait"},
            {"sends from a completion", &kit::send_from_completion,
             "hold no lock and no iterator while a completion runs"},
            {"waits in poll until there is something to do", &kit::poll,
             "wait for all sockets at once, with the time that was given as the timeout"},
            {"ends the present or the next wait of poll after wakeup", &kit::wakeup,
             "have poll() wait for a pipe or an event too; wakeup() sets it, also while no poll() waits"},
            {"completes each request once", &kit::completes_once,
             "remove the completion before it is called; call it after cancel() too"},
            {"accepts a trusted certificate", &kit::good_certificate,
             "have the transport trust the CA of conformance_options::tls"},
            {"reports a TLS body cut without close_notify", &kit::tls_body_cut,
             "treat the end of a TLS connection without a close_notify as failure::reset, maybe delivered"},
            {"rejects a self-signed certificate", with(&kit::rejects, certificate::self_signed), verify},
            {"rejects a certificate of another host", with(&kit::rejects, certificate::wrong_host), verify},
            {"rejects an expired certificate", with(&kit::rejects, certificate::expired), verify},
            {"rejects a certificate of an unknown CA", with(&kit::rejects, certificate::unknown_ca), verify},
        };
        return all;
    }

    void run(const entry& tested_case, testing::case_result& result) const {
        result.verdict = testing::verdict::failed;
        try {
            if (const auto skipped = options_.skip.find(tested_case.name); skipped != options_.skip.end())
                throw skipped_case{skipped->second};
            for (int retries = 4;; --retries) { // the machine may be busy
                try {
                    tested_case.run(*this);
                    break;
                } catch (const late_outcome&) {
                    if (retries == 0)
                        throw;
                }
            }
            run_for(milliseconds{0});
            result.verdict = testing::verdict::passed;
        } catch (const contract_violation& violation) {
            result.text = violation.message + ".\nContract: a transport " +
                          (violation.contract ? violation.contract : tested_case.name) +
                          ".\nHint: " + (violation.hint ? violation.hint : tested_case.hint) + ".";
        } catch (const skipped_case& skipped) {
            result.verdict = testing::verdict::skipped;
            result.text = skipped.reason;
        } catch (const std::exception& failed) { // no free port, for example
            result.text = std::string{"The case could not be completed: "} + failed.what();
        } catch (...) {
            result.text = "The case could not be completed: unknown exception";
        }
    }

public:
    conformance(const transport_under_test& transport, const testing::conformance_options& options)
        : transport_(transport), options_(options) {}

    testing::conformance_report run() const {
        testing::conformance_report report;
        std::vector<std::string> unknown = options_.only;
        for (const auto& [name, reason] : options_.skip)
            unknown.push_back(name);
        for (const entry& tested_case : cases()) {
            const bool chosen = std::find(options_.only.begin(), options_.only.end(), tested_case.name) !=
                                options_.only.end();
            std::erase(unknown, tested_case.name);
            if (!chosen && !options_.only.empty())
                continue;
            testing::case_result& result = report.cases.emplace_back();
            const auto begin = steady_clock::now();
            result.name = tested_case.name;
            run(tested_case, result);
            result.duration = since(begin);
        }
        for (std::string& name : unknown)
            report.cases.push_back({std::move(name), testing::verdict::failed, "No case has this name.", {}});
        return report;
    }
};

} // namespace detail

namespace testing {

/// Checks a synchronous transport against the contract in transport.hpp. Sends requests to servers of its own
/// on 127.0.0.1 and reports each case.
///
/// It takes about 10 seconds, most of them for timeouts, and minutes if the transport hangs in every case.
/// The servers close a connection that lasts too long, so that a transport returns in the end if it notices
/// that. No proxy may be in use for 127.0.0.1. Not thread-safe, but different transports can be checked at
/// the same time. Needs exceptions; throws only if memory is exhausted.
template <class T>
conformance_report check_transport(T&& transport, const conformance_options& options = {}) {
    static_assert(Transport<std::remove_reference_t<T>>,
                  "promptlayer: check_transport takes a Transport that is not const; an AsyncTransport is "
                  "checked together with a callable that runs its loop");
    using namespace promptlayer::detail;
    transport_under_test subject{transport};
    subject.start = [&](const http_request& request, const completion& done) {
        no_throw([&] { done(transport.send(request)); });
    };
    return conformance{subject, options}.run();
}

/// Checks an asynchronous transport. `run_loop` runs the loop of the transport: it is called repeatedly on
/// this thread while an outcome is awaited, does the pending work and returns within about 10 ms. It may do
/// nothing if the transport has threads of its own.
template <class T, std::invocable RunLoopT>
conformance_report check_transport(T&& transport, RunLoopT run_loop,
                                   const conformance_options& options = {}) {
    static_assert(AsyncTransport<std::remove_reference_t<T>>,
                  "promptlayer: check_transport takes an AsyncTransport that is not const if a callable runs "
                  "its loop; a Transport is checked without one");
    using namespace promptlayer::detail;
    transport_under_test subject{transport};
    subject.start = [&](http_request request, completion done) {
        no_throw([&] { transport.send(std::move(request), std::move(done)); });
    };
    subject.run_loop = std::ref(run_loop);
    return conformance{subject, options}.run();
}

} // namespace testing
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
