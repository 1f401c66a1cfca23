#ifndef PROMPTLAYER_CLIENT_HPP
#define PROMPTLAYER_CLIENT_HPP

#include <promptlayer/codec.hpp>
#include <promptlayer/config.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/compiled_models.hpp>
#include <promptlayer/detail/exceptions.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_group.hpp>
#include <promptlayer/track_metadata.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/track_response.hpp>
#include <promptlayer/track_score.hpp>
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
#include <vector>

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

/// Sends an encoded request and reads its reply. Returns nullopt if the request succeeded.
PROMPTLAYER_DECL std::optional<error> send_sync(const encoder& codec, const http_request& request,
                                                transport_reference transport, reply_reference reply);

/// Encodes a request, then does the same as `send_sync`. `codec` is null if the client was moved from.
PROMPTLAYER_DECL std::optional<error> call_sync(const encoder* codec, std::string_view path, bool idempotent,
                                                model_reference request, const request_options& options,
                                                transport_reference transport, reply_reference reply);

/// Reads a reply from the outcome of a request.
PROMPTLAYER_DECL std::optional<error> decode_outcome(const encoder& codec, const transport_result& outcome,
                                                     reply_reference reply);

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
        auto reply = detail::make_empty<typename RequestT::reply>();
        if (auto failed = detail::call_sync(
                encoder_.get(), RequestT::path, detail::is_idempotent<RequestT>(), detail::refer_to(request),
                options, detail::refer_to_transport(transport_), detail::refer_to_reply<RequestT>(reply)))
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
                if (auto failed =
                        detail::decode_outcome(*codec, outcome, detail::refer_to_reply<RequestT>(received)))
                    handle(result<reply>{*std::move(failed)});
                else
                    handle(result<reply>{std::move(received)});
            });
    }

    /// Each of the following calls `call` for one endpoint. The request may stand in braces.
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_prompt(const basic_track_prompt<TextT, MapT>& request,
                                        const request_options& options = {}) {
        return call(request, options);
    }
    template <class TextT = std::string>
    result<track_response> track_score(const basic_track_score<TextT>& request,
                                       const request_options& options = {}) {
        return call(request, options);
    }
    template <class MapT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_metadata(const basic_track_metadata<MapT>& request,
                                          const request_options& options = {}) {
        return call(request, options);
    }
    result<track_response> track_group(const promptlayer::track_group& request,
                                       const request_options& options = {}) {
        return call(request, options);
    }
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>,
              class ListT = std::vector<std::string>>
    result<typename basic_log_request<TextT, MapT, ListT>::reply>
    log_request(const basic_log_request<TextT, MapT, ListT>& request, const request_options& options = {}) {
        return call(request, options);
    }

    /// The same with a handler, over an asynchronous transport.
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>,
              class HandlerT>
    void track_prompt(const basic_track_prompt<TextT, MapT>& request, HandlerT handler,
                      const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class TextT = std::string, class HandlerT>
    void track_score(const basic_track_score<TextT>& request, HandlerT handler,
                     const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class MapT = std::map<std::string, std::string, std::less<>>, class HandlerT>
    void track_metadata(const basic_track_metadata<MapT>& request, HandlerT handler,
                        const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class HandlerT>
    void track_group(const promptlayer::track_group& request, HandlerT handler,
                     const request_options& options = {}) {
        call(request, std::move(handler), options);
    }
    template <class TextT = std::string, class MapT = std::map<std::string, std::string, std::less<>>,
              class ListT = std::vector<std::string>, class HandlerT>
    void log_request(const basic_log_request<TextT, MapT, ListT>& request, HandlerT handler,
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
                                                     reply_reference reply) {
    if (!outcome)
        return transport_error(codec.config(), outcome.error());
    return decode_any(codec.config(), *outcome, reply);
}

PROMPTLAYER_DECL std::optional<error> send_sync(const encoder& codec, const http_request& request,
                                                transport_reference transport, reply_reference reply) {
    return decode_outcome(codec, transport.send(transport.object, request), reply);
}

PROMPTLAYER_DECL std::optional<error> call_sync(const encoder* codec, std::string_view path, bool idempotent,
                                                model_reference request, const request_options& options,
                                                transport_reference transport, reply_reference reply) {
    if (!codec)
        return moved_from();
    if (codec->config_error())
        return codec->config_error();
    if (auto unusable = check(options))
        return unusable;
    http_request http;
    if (auto encoded = encode_any(codec->config(), path, idempotent, request, http); !encoded)
        return std::move(encoded).error();
    http.timeout = options.timeout.value_or(http.timeout);
    return send_sync(*codec, http, transport, reply);
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
