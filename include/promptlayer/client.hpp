#ifndef PROMPTLAYER_CLIENT_HPP
#define PROMPTLAYER_CLIENT_HPP

#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
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
#include <string_view>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

PROMPTLAYER_DECL error moved_from();
PROMPTLAYER_DECL transport_failure exception_failure(const char* text);

/// A synchronous transport of unknown type.
struct transport_reference {
    const void* object;
    transport_result (*send)(const void* object, const http_request& request); ///< does not throw
};

template <class T>
transport_result send_noexcept(const void* object, const http_request& request) {
    return guard_exceptions(
        [&]() -> transport_result { return const_cast<T*>(static_cast<const T*>(object))->send(request); },
        [](const char* text) -> transport_result { return exception_failure(text); });
}

template <class T>
transport_reference refer_to_transport(T& transport) noexcept {
    return {std::addressof(transport), send_noexcept<T>};
}

/// Sends an encoded request and stores the reply in `reply`, a model with empty members. Returns nullopt if
/// the request succeeded.
PROMPTLAYER_DECL std::optional<error> send_sync(const encoder& codec, const http_request& request,
                                                transport_reference transport, const model_info& info,
                                                void* reply);

/// Encodes a request, then does the same as `send_sync`. `codec` is null if the client was moved from.
PROMPTLAYER_DECL std::optional<error> call_sync(const encoder* codec, std::string_view path,
                                                model_reference request, const request_options& options,
                                                transport_reference transport, const model_info& info,
                                                void* reply);

/// Reads a reply from the outcome of a request.
PROMPTLAYER_DECL std::optional<error> decode_outcome(const encoder& codec, const transport_result& outcome,
                                                     const model_info& info, void* reply);

/// One asynchronous request. Calls the handler exactly once.
template <class HandlerT>
class pending_send {
    std::optional<HandlerT> handler_;
    std::atomic_flag is_finished_{};
    std::atomic<bool> handler_threw_{false};

public:
    explicit pending_send(HandlerT handler) : handler_(std::move(handler)) {}
    pending_send(const pending_send&) = delete;
    pending_send& operator=(const pending_send&) = delete;

    ~pending_send() {
        guard_exceptions(
            [&] {
                finish(transport_failure{failure::cancelled, "the transport dropped the request"});
            },
            [](const char*) {});
    }

    /// Ignores every outcome except the first.
    void finish(transport_result outcome) {
        if (is_finished_.test_and_set())
            return;
        guard_exceptions(
            [&] {
                HandlerT handler = std::move(*handler_);
                handler_.reset(); // the transport may keep the completion, and with it what the handler owns
                handler(std::move(outcome));
            },
            [&](const char*) {
                handler_threw_ = true;
                rethrow();
            });
    }

    bool handler_threw() const noexcept { return handler_threw_; }
};

/// Sends a request without waiting. Calls `handler(transport_result)` exactly once.
template <class T, class HandlerT>
void send_async(T& transport, http_request request, HandlerT handler) {
    const auto pending = std::make_shared<pending_send<HandlerT>>(std::move(handler));
    guard_exceptions(
        [&] {
            transport.send(std::move(request),
                           [pending](transport_result outcome) { pending->finish(std::move(outcome)); });
        },
        [&](const char* text) {
            pending->finish(exception_failure(text));
            if (pending->handler_threw())
                rethrow();
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
    result<typename RequestT::reply> call(const RequestT& request, const request_options& options = {}) {
        static_assert(Transport<transport_type>,
                      "promptlayer: this transport is asynchronous: give the call a handler as well");
        using reply_type = typename RequestT::reply;
        static_assert(detail::is_readable<reply_type>());
        reply_type reply = detail::make_empty<reply_type>();
        if (auto failed =
                detail::call_sync(encoder_.get(), RequestT::path, detail::refer_to(request), options,
                                  detail::refer_to_transport(transport_), detail::info<reply_type>(), &reply))
            return *std::move(failed);
        return reply;
    }

    /// Sends one request without waiting. Calls `handler(result<reply>)` exactly once, on the thread on which
    /// the transport completes; within this function if the request is not sent. The handler may be
    /// move-only. An exception of the handler reaches the caller of the completion.
    template <class RequestT, class HandlerT>
    void call(const RequestT& request, HandlerT handler, const request_options& options = {}) {
        using reply = typename RequestT::reply;
        static_assert(
            AsyncTransport<transport_type>,
            "promptlayer: this transport is synchronous: call without a handler and use what is returned");
        static_assert(std::invocable<HandlerT&, result<reply>>,
                      "promptlayer: the handler cannot be called with a result of the reply");
        http_request http;
        result<void> encoded = encoder_ ? encoder_->encode(request, http) : detail::moved_from();
        if (auto unusable = detail::check(options); encoded && unusable)
            encoded = *std::move(unusable);
        if (!encoded) {
            handler(result<reply>{std::move(encoded).error()});
            return;
        }
        http.timeout = options.timeout.value_or(http.timeout);
        detail::send_async(
            transport_, std::move(http),
            [codec = encoder_, handle = std::move(handler)](const transport_result& outcome) mutable {
                reply received = detail::make_empty<reply>();
                if (auto failed = detail::decode_outcome(*codec, outcome, detail::info<reply>(), &received))
                    handle(result<reply>{*std::move(failed)});
                else
                    handle(result<reply>{std::move(received)});
            });
    }

    /// Calls `call` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_prompt(const basic_track_prompt<TextT, VariablesT>& request,
                                        const request_options& options = {}) {
        return call(request, options);
    }

    /// Calls `call` for `POST /rest/track-prompt` with a handler.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>,
              class HandlerT>
    void track_prompt(const basic_track_prompt<TextT, VariablesT>& request, HandlerT handler,
                      const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
};

template <class T>
client(config, T) -> client<std::unwrap_reference_t<T>>;

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error moved_from() { return {.code = errc::closed, .message = "the client was moved from"}; }

PROMPTLAYER_DECL transport_failure exception_failure(const char* text) { return {failure::other, text}; }

PROMPTLAYER_DECL std::optional<error> decode_outcome(const encoder& codec, const transport_result& outcome,
                                                     const model_info& info, void* reply) {
    if (!outcome)
        return transport_error(codec.config(), outcome.error());
    return decode_any(codec.config(), *outcome, info, reply);
}

PROMPTLAYER_DECL std::optional<error> send_sync(const encoder& codec, const http_request& request,
                                                transport_reference transport, const model_info& info,
                                                void* reply) {
    return decode_outcome(codec, transport.send(transport.object, request), info, reply);
}

PROMPTLAYER_DECL std::optional<error> call_sync(const encoder* codec, std::string_view path,
                                                model_reference request, const request_options& options,
                                                transport_reference transport, const model_info& info,
                                                void* reply) {
    if (!codec)
        return moved_from();
    if (codec->config_error())
        return codec->config_error();
    if (auto unusable = check(options))
        return unusable;
    http_request http;
    if (auto encoded = encode_any(codec->config(), path, request, http); !encoded)
        return std::move(encoded).error();
    http.timeout = options.timeout.value_or(http.timeout);
    return send_sync(*codec, http, transport, info, reply);
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
