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

/// `client.call(request, handler)` with a completion token of Asio (`use_awaitable`, `use_future`, ...),
/// which is given one argument, the `result`. Completes on the executor of the token, else on the
/// transport's, and never within this function. The request is moved or copied in; the client, and what a
/// request that is a view refers to, outlive the start of the operation. A cancellation slot has no effect:
/// `client.transport().cancel()` ends all requests.
template <class T, class RequestT, class TokenT>
auto async_call(client<T>& through, RequestT request, TokenT&& token) {
    using reply = result<typename RequestT::reply>;
    return boost::asio::async_initiate<TokenT, void(reply)>(
        [&through](auto handler, const RequestT& sent) {
            auto work = boost::asio::make_work_guard(
                boost::asio::get_associated_executor(handler, through.transport().get_executor()));
            through.call(sent, [held = std::move(work), done = std::move(handler)](reply got) mutable {
                const auto executor = held.get_executor();
                boost::asio::post(executor, boost::asio::append(std::move(done), std::move(got)));
            });
        },
        token, std::move(request));
}

/// `async_call` for `POST /rest/track-prompt`: takes a `track_prompt`, also in braces, or a view.
template <class TextT = std::string, class VariablesT = std::map<std::string, std::string, std::less<>>,
          class T, class TokenT>
auto async_track_prompt(client<T>& through, basic_track_prompt<TextT, VariablesT> request, TokenT&& token) {
    return async_call(through, std::move(request), std::forward<TokenT>(token));
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
