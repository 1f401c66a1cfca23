#ifndef PROMPTLAYER_DETAIL_ANY_TRANSPORT_HPP
#define PROMPTLAYER_DETAIL_ANY_TRANSPORT_HPP

#include <promptlayer/client.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// What a transport can do. A function is null if the transport does not have the member. None throws, except
/// `start`.
struct transport_functions {
    transport_result (*send)(const void* object, const http_request& request); ///< null if `start` is not
    void (*start)(void* object, http_request request, completion done);
    void (*poll)(void* object);
    void (*poll_for)(void* object, std::chrono::milliseconds wait);
    void (*wakeup)(void* object);
    void (*cancel)(void* object);
    void (*max_in_flight)(void* object, std::size_t count);
};

template <class ActionT>
void ignore_exceptions(ActionT&& action) {
    guard_exceptions([&] { action(); }, [](const char*) {});
}

template <class T>
constexpr transport_functions functions_of() {
    transport_functions functions{};
    if constexpr (AsyncTransport<T>)
        functions.start = [](void* object, http_request request, completion done) {
            static_cast<T*>(object)->send(std::move(request), std::move(done));
        };
    else
        functions.send = send_noexcept<T>;
    if constexpr (requires(T & transport) { transport.poll(); })
        functions.poll = [](void* object) { ignore_exceptions([&] { static_cast<T*>(object)->poll(); }); };
    if constexpr (requires(T & transport, std::chrono::milliseconds wait) { transport.poll(wait); }) {
        functions.poll_for = [](void* object, std::chrono::milliseconds wait) {
            ignore_exceptions([&] { static_cast<T*>(object)->poll(wait); });
        };
        if (!functions.poll)
            functions.poll = [](void* object) {
                ignore_exceptions([&] { static_cast<T*>(object)->poll(std::chrono::milliseconds{0}); });
            };
    }
    if constexpr (requires(T & transport) { transport.wakeup(); })
        functions.wakeup = [](void* object) {
            ignore_exceptions([&] { static_cast<T*>(object)->wakeup(); });
        };
    if constexpr (requires(T & transport) { transport.cancel(); })
        functions.cancel = [](void* object) {
            ignore_exceptions([&] { static_cast<T*>(object)->cancel(); });
        };
    if constexpr (requires(T & transport, std::size_t count) { transport.max_in_flight(count); })
        functions.max_in_flight = [](void* object, std::size_t count) {
            ignore_exceptions([&] { static_cast<T*>(object)->max_in_flight(count); });
        };
    return functions;
}

/// A transport of unknown type, and its owner unless it was given as `std::ref`. An asynchronous one is an
/// `AsyncTransport`.
class any_transport {
    std::unique_ptr<void, void (*)(void*)> object_;
    transport_functions functions_;

public:
    any_transport(void* object, void (*destroy)(void*), const transport_functions& functions) noexcept
        : object_(object, destroy), functions_(functions) {}

    bool is_asynchronous() const noexcept { return functions_.start != nullptr; }
    const transport_functions& functions() const noexcept { return functions_; }
    void* object() const noexcept { return object_.get(); }

    transport_reference reference() const noexcept { return {object_.get(), functions_.send}; }

    void send(http_request request, completion done) {
        functions_.start(object_.get(), std::move(request), std::move(done));
    }

    /// Calls a function of `functions()` if the transport has it.
    template <class... ArgumentsT>
    void call(void (*function)(void*, ArgumentsT...), std::type_identity_t<ArgumentsT>... arguments) const {
        if (function)
            function(object_.get(), arguments...);
    }
};

template <class T>
any_transport own_transport(T transport) {
    return {new T(std::move(transport)), [](void* object) { delete static_cast<T*>(object); },
            functions_of<T>()};
}

template <class T>
any_transport own_transport(std::reference_wrapper<T> transport) {
    return {const_cast<std::remove_const_t<T>*>(std::addressof(transport.get())), [](void*) {},
            functions_of<T>()};
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
