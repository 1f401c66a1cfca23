// Makes a transport of an HTTP client that blocks, and of an HTTP client that a game loop drives.

#include <promptlayer.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

// Stands for the HTTP client that your program already has.
namespace in_house {

using headers = std::vector<promptlayer::header>; // if yours is another type, copy each name and value

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

// A synchronous transport. promptlayer/transport.hpp lists what else a transport must do: follow no redirect,
// honour the timeout and max_response_bytes, and so on. `failure::connect` means that nothing was sent. After
// `timeout`, `reset` and `other` the service may have processed the request. Return the failure that occurred
// if your client reports it.
struct my_transport {
    promptlayer::transport_result send(const promptlayer::http_request& request) {
        auto reply = in_house::post(request.url, request.headers, request.body, request.timeout);
        if (!reply.arrived)
            return promptlayer::transport_failure{promptlayer::failure::connect, reply.why};
        return promptlayer::http_response{reply.status, reply.headers, reply.body};
    }
};

// An asynchronous transport: `send` queues the request and returns; `done` is called with the response.
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

    in_house::queue queue; // must outlive the client
    promptlayer::client queued{{.api_key = "pl_..."}, my_queued_transport{queue}};
    queued.track_prompt(request, report);
    for (int frame = 1; !queue.idle(); ++frame) {
        std::cout << "frame " << frame << '\n';
        queue.tick();
    }
    return all_tracked ? 0 : 1;
}
