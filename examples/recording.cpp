// Tests code that tracks prompts. A recording transport responds, so nothing leaves the process.

#include <promptlayer.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iostream>
#include <string>
#include <utility>

namespace {

using namespace std::chrono_literals;

// The code under test. It tracks the lines of a dialogue and keeps each line until the service has it.
template <class Transport>
class dialogue {
    promptlayer::client<Transport>& client_;
    std::deque<promptlayer::track_prompt> waiting_{};
    std::size_t refused_ = 0;

public:
    explicit dialogue(promptlayer::client<Transport>& client) : client_(client) {}

    void said(std::int64_t request_id, std::string line) {
        waiting_.push_back({
            .prompt_name = "dialogue",
            .prompt_input_variables = {{"line", std::move(line)}},
            .request_id = request_id,
        });
    }

    /// Sends the oldest line once. Returns how long to wait before the next call.
    std::chrono::seconds track_one() {
        if (waiting_.empty())
            return 0s;
        const auto tracked = client_.track_prompt(waiting_.front());
        if (!tracked && tracked.error().retryable())
            return tracked.error().retry_after.value_or(1s);
        refused_ += tracked ? 0u : 1u;
        waiting_.pop_front();
        return 0s;
    }

    std::size_t waiting() const { return waiting_.size(); }
    std::size_t refused() const { return refused_; }
};

bool all_hold = true;

void expect(bool holds, const char* behaviour) {
    if (!holds)
        std::cerr << "failed: " << behaviour << '\n';
    all_hold = all_hold && holds;
}

} // namespace

int main() {
    promptlayer::client client{{.api_key = "secret"}, promptlayer::testing::recording_transport{}};
    auto& service = client.transport();
    service.respond(promptlayer::http_response{429, {{"Retry-After", "3"}}, ""});
    service.fail(promptlayer::transport_failure{promptlayer::failure::timeout, "no answer"});
    // Every further request succeeds.

    dialogue lines{client};
    lines.said(12345, "Hello");
    expect(lines.track_one() == 3s, "a 429 delays the next attempt");
    expect(lines.waiting() == 1, "a line that is not tracked is kept");
    expect(lines.track_one() == 1s, "a timeout is retried after a second");
    expect(lines.track_one() == 0s, "the third attempt succeeds");
    expect(lines.waiting() == 0 && lines.refused() == 0, "a tracked line is removed");

    const auto requests = service.requests();
    expect(requests.size() == 3, "three attempts were made");
    for (const promptlayer::http_request& request : requests) {
        expect(request.url == "https://api.promptlayer.com/rest/track-prompt",
               "the URL is that of the service");
        expect(
            request.body ==
                R"({"prompt_name":"dialogue","prompt_input_variables":{"line":"Hello"},"request_id":12345})",
            "the body has the line");
        expect(promptlayer::to_string(request).find("secret") == std::string::npos, "the key is redacted");
    }

    service.respond(promptlayer::http_response{401, {}, ""});
    lines.said(12346, "Goodbye");
    expect(lines.track_one() == 0s, "a 401 is not retried");
    expect(lines.waiting() == 0 && lines.refused() == 1, "the line is counted as refused");

    if (all_hold)
        std::cout << service << "passed\n";
    return all_hold ? 0 : 1;
}
