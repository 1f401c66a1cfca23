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

/// A config and what was found of it, once.
struct settings {
    promptlayer::config config;
    result<void> verdict = detail::verdict(config);
};

inline error moved_from() { return {.code = errc::closed, .message = "the client was moved from"}; }

/// One synchronous call.
template <class T, class RequestT>
result<typename RequestT::reply> send_sync(T& transport, const settings& known, const RequestT& request) {
    http_request http;
    if (auto encoded = encode_with(known.config, known.verdict, request, http); !encoded)
        return std::move(encoded).error();
    transport_result outcome = transport_failure{};
    guard_exceptions([&] { outcome = transport.send(http); },
                     [&](const char* what) {
                         outcome = transport_failure{failure::other, what};
                         return true;
                     });
    if (!outcome)
        return transport_error(known.config, outcome.error());
    return decode<RequestT>(known.config, *outcome);
}

/// One asynchronous call: sees to it that the handler is called once.
template <class RequestT, class HandlerT>
class pending_call {
    std::shared_ptr<const settings> settings_;
    std::optional<HandlerT> handler_;
    std::atomic_flag done_{};
    std::atomic<bool> handler_threw_{false};

public:
    pending_call(std::shared_ptr<const settings> shared, HandlerT handler)
        : settings_(std::move(shared)), handler_(std::move(handler)) {}
    pending_call(const pending_call&) = delete;
    pending_call& operator=(const pending_call&) = delete;

    ~pending_call() {
        guard_exceptions(
            [&] {
                finish(transport_failure{failure::cancelled, "the transport let the request go"});
            },
            [](const char*) { return true; });
    }

    /// Only the first outcome counts.
    void finish(transport_result outcome) {
        if (done_.test_and_set())
            return;
        HandlerT handler = std::move(*handler_);
        handler_.reset(); // the transport may keep the completion, and what the handler holds with it
        guard_exceptions(
            [&] {
                if (outcome)
                    handler(decode<RequestT>(settings_->config, *outcome));
                else
                    handler(result<typename RequestT::reply>{
                        transport_error(settings_->config, outcome.error())});
            },
            [&](const char*) {
                handler_threw_ = true;
                return false;
            });
    }

    bool handler_threw() const noexcept { return handler_threw_; }
};

} // namespace detail

/// Tracks prompts over a transport: one call is one attempt, nothing is retried or queued. As safe to share
/// between threads as `T` is; nothing of its own changes. It may be destroyed while asynchronous requests are
/// in flight; their handlers do not call it any more. Every call of one that was moved from is
/// `errc::closed`. `std::ref` has it refer to a transport, which must outlive it; it
/// cannot be assigned to then.
template <class T>
class client {
    using transport_type = std::remove_reference_t<T>;

    static_assert(detail::is_transport<transport_type>());

    std::shared_ptr<const detail::settings> settings_;
    T transport_;

public:
    /// The config is checked here, once; a bad one is reported by every call.
    client(config settings, T transport)
        : settings_(std::make_shared<const detail::settings>(detail::settings{std::move(settings)})),
          transport_(std::forward<T>(transport)) {}

    transport_type& transport() noexcept { return transport_; }
    const transport_type& transport() const noexcept { return transport_; }

    /// Sends one request and waits for its answer. Errors: every `errc` from `invalid_request` to
    /// `malformed_response`; unsent if it is `invalid_config` or `invalid_request`.
    template <class RequestT>
    result<typename RequestT::reply> call(const RequestT& request) {
        static_assert(Transport<transport_type>,
                      "promptlayer: this transport is asynchronous: give the call a handler as well");
        if (!settings_)
            return detail::moved_from();
        return detail::send_sync(transport_, *settings_, request);
    }

    /// Sends one request without waiting. `handler(result<reply>)` is called exactly once, on whatever thread
    /// the transport completes on; before this returns if the request is refused unsent. It may be move-only.
    /// What it throws goes to the caller of the completion.
    template <class RequestT, class HandlerT>
    void call(const RequestT& request, HandlerT handler) {
        using reply = typename RequestT::reply;
        static_assert(
            AsyncTransport<transport_type>,
            "promptlayer: this transport is synchronous: call without a handler and use what is returned");
        static_assert(std::invocable<HandlerT&, result<reply>>,
                      "promptlayer: the handler cannot be called with a result of the reply");
        http_request http;
        auto encoded = settings_ ? detail::encode_with(settings_->config, settings_->verdict, request, http)
                                 : result<void>{detail::moved_from()};
        if (!encoded) {
            handler(result<reply>{std::move(encoded).error()});
            return;
        }
        const auto pending =
            std::make_shared<detail::pending_call<RequestT, HandlerT>>(settings_, std::move(handler));
        detail::guard_exceptions(
            [&] {
                transport_.send(std::move(http),
                                [pending](transport_result outcome) { pending->finish(std::move(outcome)); });
            },
            [&](const char* what) {
                pending->finish(transport_failure{failure::other, what});
                return !pending->handler_threw();
            });
    }

    /// `call` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>>
    result<track_response> track_prompt(const basic_track_prompt<TextT, VariablesT>& request) {
        return call(request);
    }

    /// `call` with a handler, likewise.
    template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>,
              class HandlerT>
    void track_prompt(const basic_track_prompt<TextT, VariablesT>& request, HandlerT handler) {
        call(request, std::move(handler));
    }
};

template <class T>
client(config, T) -> client<std::unwrap_reference_t<T>>;

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
