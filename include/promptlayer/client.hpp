#ifndef PROMPTLAYER_CLIENT_HPP
#define PROMPTLAYER_CLIENT_HPP

#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <atomic>
#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

PROMPTLAYER_DECL error moved_from();

/// Sends a request. An exception is a `failure::other`, where exceptions exist.
template <class T>
transport_result send_noexcept(T& transport, const http_request& request) {
    transport_result outcome = transport_failure{};
    guard_exceptions([&] { outcome = transport.send(request); },
                     [&](const char* what) {
                         outcome = transport_failure{failure::other, what};
                         return true;
                     });
    return outcome;
}

template <class ReplyT>
result<ReplyT> reply_of(const encoder& codec, const transport_result& outcome) {
    if (!outcome)
        return transport_error(codec.config(), outcome.error());
    return decode_reply<ReplyT>(codec.config(), *outcome);
}

/// Sends a request that is ready, and waits for its reply.
template <class ReplyT, class T>
result<ReplyT> send_sync(T& transport, const encoder& codec, const http_request& request) {
    return reply_of<ReplyT>(codec, send_noexcept(transport, request));
}

/// One asynchronous call. Calls the handler exactly once.
template <class ReplyT, class HandlerT>
class pending_call {
    std::shared_ptr<const encoder> encoder_;
    std::optional<HandlerT> handler_;
    std::atomic_flag is_finished_{};
    std::atomic<bool> handler_threw_{false};

public:
    pending_call(std::shared_ptr<const encoder> codec, HandlerT handler)
        : encoder_(std::move(codec)), handler_(std::move(handler)) {}
    pending_call(const pending_call&) = delete;
    pending_call& operator=(const pending_call&) = delete;

    ~pending_call() {
        guard_exceptions(
            [&] {
                finish(transport_failure{failure::cancelled, "the transport dropped the request"});
            },
            [](const char*) { return true; });
    }

    /// Ignores every outcome except the first.
    void finish(const transport_result& outcome) {
        if (is_finished_.test_and_set())
            return;
        HandlerT handler = std::move(*handler_);
        handler_.reset(); // the transport may keep the completion, and with it what the handler owns
        guard_exceptions([&] { handler(reply_of<ReplyT>(*encoder_, outcome)); },
                         [&](const char*) {
                             handler_threw_ = true;
                             return false;
                         });
    }

    bool handler_threw() const noexcept { return handler_threw_; }
};

/// Sends a request that is ready, without waiting.
template <class ReplyT, class T, class HandlerT>
void send_async(T& transport, std::shared_ptr<const encoder> codec, http_request request, HandlerT handler) {
    const auto pending =
        std::make_shared<pending_call<ReplyT, HandlerT>>(std::move(codec), std::move(handler));
    guard_exceptions(
        [&] {
            transport.send(std::move(request),
                           [pending](const transport_result& outcome) { pending->finish(outcome); });
        },
        [&](const char* what) {
            pending->finish(transport_failure{failure::other, what});
            return !pending->handler_threw();
        });
}

} // namespace detail

/// Tracks prompts over a transport. One call is one attempt: nothing is retried or queued.
///
/// - Threads: a client is as thread-safe as `T`; it changes nothing of its own.
/// - It may be destroyed while asynchronous requests are in flight; their handlers do not use it.
/// - After it was moved from, every call is `errc::closed`.
/// - `std::ref` makes it refer to a transport, which must outlive it. Such a client cannot be assigned to.
template <class T>
class client {
    using transport_type = std::remove_reference_t<T>;

    static_assert(detail::is_transport<transport_type>());

    std::shared_ptr<const encoder> encoder_; // null after a move
    T transport_;

public:
    /// Checks the config once. With an invalid one, every call returns `invalid_config`.
    client(config config, T transport)
        : encoder_(std::make_shared<const encoder>(std::move(config))),
          transport_(std::forward<T>(transport)) {}

    transport_type& transport() noexcept { return transport_; }
    const transport_type& transport() const noexcept { return transport_; }

    /// Sends one request and waits for its response. Returns the reply, or any `errc` from `invalid_request`
    /// to `malformed_response`. `invalid_config` and `invalid_request` are returned before anything is sent.
    template <class RequestT>
    result<typename RequestT::reply> call(const RequestT& request) {
        static_assert(Transport<transport_type>,
                      "promptlayer: this transport is asynchronous: give the call a handler as well");
        if (!encoder_)
            return detail::moved_from();
        http_request http;
        if (auto encoded = encoder_->encode(request, http); !encoded)
            return std::move(encoded).error();
        return detail::send_sync<typename RequestT::reply>(transport_, *encoder_, http);
    }

    /// Sends one request without waiting. Calls `handler(result<reply>)` exactly once, on the thread on which
    /// the transport completes; within this function if the request is not sent. The handler may be
    /// move-only. An exception of the handler reaches the caller of the completion.
    template <class RequestT, class HandlerT>
    void call(const RequestT& request, HandlerT handler) {
        using reply = typename RequestT::reply;
        static_assert(
            AsyncTransport<transport_type>,
            "promptlayer: this transport is synchronous: call without a handler and use what is returned");
        static_assert(std::invocable<HandlerT&, result<reply>>,
                      "promptlayer: the handler cannot be called with a result of the reply");
        http_request http;
        result<void> encoded = encoder_ ? encoder_->encode(request, http) : detail::moved_from();
        if (!encoded)
            handler(result<reply>{std::move(encoded).error()});
        else
            detail::send_async<reply>(transport_, encoder_, std::move(http), std::move(handler));
    }

    /// Calls `call` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_prompt(const basic_track_prompt<TextT, VariablesT>& request) {
        return call(request);
    }

    /// Calls `call` with a handler, likewise.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>,
              class HandlerT>
    void track_prompt(const basic_track_prompt<TextT, VariablesT>& request, HandlerT handler) {
        call(request, std::move(handler));
    }
};

template <class T>
client(config, T) -> client<std::unwrap_reference_t<T>>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error moved_from() { return {.code = errc::closed, .message = "the client was moved from"}; }

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
