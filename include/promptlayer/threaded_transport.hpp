#ifndef PROMPTLAYER_THREADED_TRANSPORT_HPP
#define PROMPTLAYER_THREADED_TRANSPORT_HPP

#include <promptlayer/client.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS) && !defined(PROMPTLAYER_NO_THREADS)
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#if !defined(_WIN32)
#include <unistd.h>
#endif
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

#ifndef PROMPTLAYER_NO_THREADS

namespace detail {

/// The transport of a thread.
struct thread_transport {
    std::shared_ptr<const void> owner;
    transport_reference reference;
    void (*cancel)(const void* object); ///< null if the transport has no `cancel()`
};

template <class T, class FactoryT>
std::vector<thread_transport> make_transports(std::size_t count, FactoryT& factory) {
    std::vector<thread_transport> transports;
    do {
        const std::shared_ptr<T> object{new T(factory())};
        transports.push_back({object, refer_to_transport(*object), nullptr});
        if constexpr (requires { object->cancel(); })
            transports.back().cancel = [](const void* erased) {
                const_cast<T*>(static_cast<const T*>(erased))->cancel();
            };
    } while (transports.size() < count);
    return transports;
}

/// A thread for each transport, and the queue of the requests that no thread has taken yet.
class transport_threads {
    class state;
    struct release_state {
        void operator()(state* released) const noexcept;
    };

    std::unique_ptr<state, release_state> state_; // null after a move

public:
    explicit transport_threads(std::vector<thread_transport> transports);
    transport_threads(transport_threads&&) noexcept = default;
    transport_threads& operator=(transport_threads&&) noexcept = default;
    ~transport_threads();

    void send(http_request request, completion done);
    void cancel() noexcept;
};

/// Returns what a factory makes, or void if it cannot be called.
template <class FactoryT>
auto call_factory(FactoryT& factory) {
    if constexpr (std::is_invocable_v<FactoryT&>)
        return factory();
}

} // namespace detail

/// An `AsyncTransport` over a synchronous one: several threads, each with a transport of its own. For an HTTP
/// client that blocks, if several requests are to be in flight at once:
///
///     promptlayer::threaded_transport transport{8, [] { return my_transport{}; }};
///
/// - A request waits in a queue until a thread is free. Its timeout includes that wait: the transport gets
///   the rest. A request that waits longer ends with `failure::timeout` when a thread is free.
/// - Completions run on these threads. They may call `send` and `cancel`. They must not throw, and must not
///   destroy the transport.
/// - The destructor cancels all requests and waits for the threads. Without `cancel()` of `T`, it waits until
///   the requests in flight end.
/// - After `fork` the child has no such threads: there, each request is a `failure::other`, and the
///   destructor leaves the memory to the system.
///
/// Movable, also with requests in flight; a transport that was moved from destroys completions without a
/// call. Except for move and destruction, any thread may call any member.
template <class T>
class threaded_transport {
    static_assert(detail::is_transport<T>());
    static_assert(Transport<T> || !AsyncTransport<T>,
                  "promptlayer: threaded_transport takes a factory of synchronous transports; an "
                  "AsyncTransport does many requests at once without it");

    detail::transport_threads threads_;

public:
    static constexpr bool thread_safe = true;

    /// Starts `threads` threads, at least one. Calls `factory` once for each, on the calling thread, and
    /// passes its exceptions on. Throws `std::system_error` if a thread cannot be created.
    template <class FactoryT>
    threaded_transport(std::size_t threads, FactoryT factory)
        : threads_(detail::make_transports<T>(threads, factory)) {}

    /// Queues a request. Does not block, and calls the completion later.
    void send(http_request request, completion done) { threads_.send(std::move(request), std::move(done)); }

    /// Ends the queued requests with `failure::cancelled`: calls their completions before it returns. Calls
    /// `cancel()` of each transport that has it; other requests in flight run to their end.
    void cancel() noexcept { threads_.cancel(); }
};

template <class FactoryT>
threaded_transport(std::size_t, FactoryT)
    -> threaded_transport<decltype(detail::call_factory(std::declval<FactoryT&>()))>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

class transport_threads::state {
    using clock = std::chrono::steady_clock;
    using milliseconds = std::chrono::milliseconds;

    struct queued_request {
        http_request request;
        completion done;
        clock::time_point start = clock::now();
    };

    const std::vector<thread_transport> transports_;
#if !defined(_WIN32)
    const ::pid_t owner_ = ::getpid();
#endif
    std::mutex mutex_{};
    std::condition_variable changed_{};
    std::deque<queued_request> queue_{};
    bool stopping_ = false;
    std::size_t stopped_ = 0; // threads that take no further request
    std::vector<std::thread> threads_{};

    /// Sends a request with the part of its timeout that is left.
    static transport_result outcome_of(queued_request& next, const transport_reference& transport) {
        const auto waited = std::chrono::duration_cast<milliseconds>(clock::now() - next.start);
        if (waited >= next.request.timeout)
            return transport_failure{failure::timeout, "timed out before a thread was free", false};
        next.request.timeout -= waited;
        return transport.send(transport.object, next.request);
    }

    void run(const transport_reference& transport) {
        std::unique_lock guard{mutex_};
        for (;;) {
            changed_.wait(guard, [&] { return stopping_ || !queue_.empty(); });
            if (stopping_)
                break;
            {
                queued_request next = std::move(queue_.front());
                queue_.pop_front();
                guard.unlock();
                transport_result outcome = outcome_of(next, transport);
                if (next.done)
                    next.done(std::move(outcome));
            }
            guard.lock();
        }
        ++stopped_;
        changed_.notify_all();
    }

public:
    explicit state(std::vector<thread_transport> transports) : transports_(std::move(transports)) {}

    void start() {
        threads_.reserve(transports_.size());
        for (const thread_transport& transport : transports_)
            threads_.emplace_back([this, &transport] { run(transport.reference); });
    }

    /// Returns false in a child of `fork`, where the mutex may be locked for ever.
    bool in_owner_process() const noexcept {
#if defined(_WIN32)
        return true;
#else
        return ::getpid() == owner_;
#endif
    }

    void send(http_request request, completion done) {
        const std::lock_guard guard{mutex_};
        queue_.push_back({std::move(request), std::move(done)});
        changed_.notify_one();
    }

    void cancel() {
        std::deque<queued_request> cancelled;
        {
            const std::lock_guard guard{mutex_};
            cancelled.swap(queue_);
        }
        for (const thread_transport& transport : transports_)
            if (transport.cancel)
                transport.cancel(transport.owner.get());
        for (const queued_request& next : cancelled)
            if (next.done)
                next.done(transport_failure{failure::cancelled, "cancelled", false});
    }

    void stop() {
        std::unique_lock guard{mutex_};
        stopping_ = true;
        changed_.notify_all();
        do { // again and again, because a thread may have taken a request that its transport does not know
             // yet
            guard.unlock();
            cancel();
            guard.lock();
        } while (!changed_.wait_for(guard, milliseconds{10}, [&] { return stopped_ == threads_.size(); }));
        guard.unlock();
        for (std::thread& thread : threads_)
            thread.join();
        cancel(); // what the last completions have sent
    }
};

PROMPTLAYER_DECL void transport_threads::release_state::operator()(state* released) const noexcept {
    if (!released->in_owner_process())
        return;
    released->stop();
    delete released;
}

PROMPTLAYER_DECL transport_threads::transport_threads(std::vector<thread_transport> transports)
    : state_(new state{std::move(transports)}) {
    state_->start();
}

PROMPTLAYER_DECL transport_threads::~transport_threads() {
    if (state_)
        release_state{}(state_.get()); // not by `state_`, which completions on the threads still use
    static_cast<void>(state_.release());
}

PROMPTLAYER_DECL void transport_threads::send(http_request request, completion done) {
    if (!state_)
        return;
    if (state_->in_owner_process())
        state_->send(std::move(request), std::move(done));
    else if (done)
        done(transport_failure{failure::other, "the threads of the transport are in the parent process",
                               false});
}

PROMPTLAYER_DECL void transport_threads::cancel() noexcept {
    if (state_ && state_->in_owner_process())
        state_->cancel();
}

} // namespace detail

#endif

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
