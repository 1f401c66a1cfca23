// How an HTTP client of your own is plugged in, a blocking one and one that a game loop ticks.

#include <promptlayer.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

// Stands for the HTTP client that you already have.
namespace in_house {

using headers = std::vector<promptlayer::header>; // with fields of your own, copy name and value of each

struct reply {
    bool arrived = false;
    int status = 0;
    in_house::headers headers{};
    std::string body{};
    std::string why{};
};

reply post(const std::string& url, const headers&, const std::string& body, std::chrono::milliseconds) {
    std::cout << "POST " << url << ' ' << body << '\n';
    return {true, 200, {{"Content-Type", "application/json"}}, R"({"success":true,"message":"posted"})"};
}

class queue {
    struct job {
        std::string url;
        in_house::headers headers;
        std::string body;
        std::chrono::milliseconds timeout;
        std::function<void(const reply&)> done;
        int frames_left = 3;
    };
    std::deque<job> jobs_{};

public:
    void add(job added) { jobs_.push_back(std::move(added)); }

    bool idle() const { return jobs_.empty(); }

    void tick() {
        if (jobs_.empty() || --jobs_.front().frames_left > 0)
            return;
        const job next = std::move(jobs_.front());
        jobs_.pop_front();
        next.done(post(next.url, next.headers, next.body, next.timeout));
    }
};

} // namespace in_house

// The ten lines. What a transport owes beyond them (no redirects, the timeout, max_response_bytes, ...) is
// said in promptlayer/transport.hpp. connect means that nothing was sent; for timeout, reset and other the
// service may have done the work: pass on which it was, if your client knows.
struct my_transport {
    promptlayer::transport_result send(const promptlayer::http_request& request) {
        auto reply = in_house::post(request.url, request.headers, request.body, request.timeout);
        if (!reply.arrived)
            return promptlayer::transport_failure{promptlayer::failure::connect, reply.why};
        return promptlayer::http_response{reply.status, reply.headers, reply.body};
    }
};

// The same where nothing may block: hand the request over, complete it when the answer is there.
struct my_queued_transport {
    in_house::queue& queue;

    void send(promptlayer::http_request request, promptlayer::completion done) {
        queue.add({std::move(request.url), std::move(request.headers), std::move(request.body),
                   request.timeout, [done = std::move(done)](const in_house::reply& reply) {
                       if (!reply.arrived)
                           done(promptlayer::transport_failure{promptlayer::failure::connect, reply.why});
                       else
                           done(promptlayer::http_response{reply.status, reply.headers, reply.body});
                   }});
    }
};

int main() {
    const promptlayer::track_prompt request{
        .prompt_name = "support-response",
        .prompt_input_variables = {{"user_message", "Hello"}},
        .request_id = 12345,
    };
    bool all_tracked = true;
    const auto report = [&](const promptlayer::result<promptlayer::track_response>& tracked) {
        all_tracked = all_tracked && tracked;
        if (tracked)
            std::cout << "tracked: " << tracked->message << '\n';
        else
            std::cerr << tracked.error() << '\n';
    };

    promptlayer::client blocking{{.api_key = "pl_..."}, my_transport{}};
    report(blocking.track_prompt(request));

    in_house::queue queue; // outlives the client
    promptlayer::client queued{{.api_key = "pl_..."}, my_queued_transport{queue}};
    queued.track_prompt(request, report);
    for (int frame = 1; !queue.idle(); ++frame) {
        std::cout << "frame " << frame << '\n';
        queue.tick();
    }
    return all_tracked ? 0 : 1;
}
