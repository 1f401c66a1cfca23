#ifndef PROMPTLAYER_BENCH_DRAIN_SERVER_HPP
#define PROMPTLAYER_BENCH_DRAIN_SERVER_HPP

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

/// An HTTP/1.1 server on 127.0.0.1 that responds to each POST after a fixed delay, or at once, as the service
/// does on success. It runs in a child process, so that its CPU time is not that of the client. Keeps
/// connections. Construct it before the process starts a thread. Linux only.
class drain_server {
    using clock = std::chrono::steady_clock;

    static constexpr std::string_view response =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 56\r\n\r\n"
        R"({"success":true,"message":"Prompt tracked successfully"})";
    static_assert(response.size() - response.find('{') == 56);

    int parent_ = -1; // the end of a pipe; the child stops when the last copy is closed
    pid_t child_ = -1;
    std::uint16_t port_ = 0;

    static int check(int status, const char* call) {
        if (status < 0)
            throw std::system_error{errno, std::generic_category(), call};
        return status;
    }

    /// Returns the size of the complete request that `input` begins with, or 0.
    static std::size_t request_size(std::string_view input) {
        const std::size_t end = input.find("\r\n\r\n");
        if (end == std::string_view::npos)
            return 0;
        std::size_t length = 0;
        for (const std::string_view name : {"\r\nContent-Length: ", "\r\ncontent-length: "})
            if (const std::size_t at = input.find(name); at < end)
                std::from_chars(input.data() + at + name.size(), input.data() + end, length);
        const std::size_t size = end + 4 + length;
        return input.size() < size ? 0 : size;
    }

    static void serve(int listener, int parent, std::chrono::milliseconds delay) {
        const int events = ::epoll_create1(0), timer = ::timerfd_create(CLOCK_MONOTONIC, 0);
        const auto watch = [&](int socket) {
            epoll_event event{};
            event.events = EPOLLIN;
            event.data.fd = socket;
            ::epoll_ctl(events, EPOLL_CTL_ADD, socket, &event);
        };
        for (const int socket : {listener, parent, timer})
            watch(socket);
        std::unordered_map<int, std::string> inputs;         // by connection
        std::deque<std::pair<clock::time_point, int>> queue; // responses by due time
        const auto set_timer = [&] {
            const auto wait = queue.front().first - clock::now();
            const auto ns = std::max<std::int64_t>(1, std::chrono::nanoseconds{wait}.count());
            itimerspec time{};
            time.it_value.tv_sec = ns / 1'000'000'000;
            time.it_value.tv_nsec = ns % 1'000'000'000;
            ::timerfd_settime(timer, 0, &time, nullptr);
        };
        std::array<epoll_event, 512> ready{};
        std::array<char, 65536> buffer{};
        for (;;) {
            const int count = ::epoll_wait(events, ready.data(), static_cast<int>(ready.size()), -1);
            for (int i = 0; i < count; ++i) {
                const int socket = ready[static_cast<std::size_t>(i)].data.fd;
                if (socket == parent)
                    return;
                if (socket == listener) {
                    if (const int accepted = ::accept(listener, nullptr, nullptr); accepted >= 0) {
                        const int on = 1;
                        ::setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                        watch(accepted);
                    }
                    continue;
                }
                const ssize_t size = ::read(socket, buffer.data(), buffer.size());
                if (socket == timer) {
                    for (const auto now = clock::now(); !queue.empty() && queue.front().first <= now;) {
                        ::send(queue.front().second, response.data(), response.size(), MSG_NOSIGNAL);
                        queue.pop_front();
                    }
                    if (!queue.empty())
                        set_timer();
                    continue;
                }
                std::string& input = inputs[socket];
                if (size <= 0) { // its descriptor may be used again, so no response may be left for it
                    std::erase_if(queue, [&](const auto& entry) { return entry.second == socket; });
                    inputs.erase(socket);
                    ::close(socket);
                    continue;
                }
                input.append(buffer.data(), static_cast<std::size_t>(size));
                if (const std::size_t request = request_size(input)) {
                    input.erase(0, request);
                    if (delay == delay.zero()) {
                        ::send(socket, response.data(), response.size(), MSG_NOSIGNAL);
                        continue;
                    }
                    queue.emplace_back(clock::now() + delay, socket);
                    if (queue.size() == 1)
                        set_timer();
                }
            }
        }
    }

public:
    /// Throws `std::system_error` if the system has no port or process for it.
    explicit drain_server(std::chrono::milliseconds delay = std::chrono::milliseconds{50}) {
        const int listener = check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* const bound = reinterpret_cast<sockaddr*>(&address);
        check(::bind(listener, bound, size), "bind");
        check(::listen(listener, 1024), "listen");
        check(::getsockname(listener, bound, &size), "getsockname");
        port_ = ntohs(address.sin_port);
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC), "pipe2");
        child_ = check(::fork(), "fork");
        if (child_ == 0) {
            ::close(ends[1]);
            serve(listener, ends[0], delay);
            ::_exit(0);
        }
        ::close(ends[0]);
        ::close(listener);
        parent_ = ends[1];
    }
    drain_server(const drain_server&) = delete;
    drain_server& operator=(const drain_server&) = delete;
    ~drain_server() {
        ::close(parent_);
        ::waitpid(child_, nullptr, 0);
    }

    std::string base_url() const { return "http://127.0.0.1:" + std::to_string(port_); }
};

#endif
