#ifndef PROMPTLAYER_ASIO_HPP
#define PROMPTLAYER_ASIO_HPP

#include <promptlayer/client.hpp>
#include <promptlayer/detail/abi.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/track_prompt.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/asio/append.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include <functional>
#include <map>
#include <string>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Sends a request as `client.call(request, handler)` does, with a completion token of Asio (`use_awaitable`,
/// `use_future`, ...) that gets one `result`. Completes on the executor of the token, otherwise of the
/// transport, and never within this function. The client must outlive the start of the operation. So must the
/// data that a request refers to, if it is a view. A cancellation slot has no effect: cancel all requests
/// with `client.transport().cancel()`.
template <class T, class RequestT, class TokenT>
auto async_call(client<T>& client, RequestT request, TokenT&& token) {
    using reply = result<typename RequestT::reply>;
    return boost::asio::async_initiate<TokenT, void(reply)>(
        [&client](auto handler, const RequestT& started) {
            auto work = boost::asio::make_work_guard(
                boost::asio::get_associated_executor(handler, client.transport().get_executor()));
            client.call(started, [guard = std::move(work), done = std::move(handler)](reply outcome) mutable {
                const auto executor = guard.get_executor();
                boost::asio::post(executor, boost::asio::append(std::move(done), std::move(outcome)));
            });
        },
        token, std::move(request));
}

/// Sends a `track_prompt`, which may be written in braces, or a view of one with `async_call`.
template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>,
          class T, class TokenT>
auto async_track_prompt(client<T>& client, basic_track_prompt<TextT, VariablesT> request, TokenT&& token) {
    return async_call(client, std::move(request), std::forward<TokenT>(token));
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
