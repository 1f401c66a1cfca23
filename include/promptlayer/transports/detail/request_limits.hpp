#ifndef PROMPTLAYER_TRANSPORTS_DETAIL_REQUEST_LIMITS_HPP
#define PROMPTLAYER_TRANSPORTS_DETAIL_REQUEST_LIMITS_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/transport.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Returns the failure of a request that was not sent.
inline transport_failure not_sent(failure kind, std::string message) {
    return {kind, std::move(message), false};
}

/// Returns why a request is not sent; nullopt if it can be sent. Does not check its URL again if that is
/// `valid_url`.
inline std::optional<transport_failure> request_error(const http_request& request,
                                                      std::string_view valid_url = {}) {
    if (const char* const reason = invalid_reason_if(request, valid_url))
        return not_sent(failure::other, reason);
    if (request.timeout <= std::chrono::milliseconds{0})
        return not_sent(failure::timeout, "the request allows no time");
    return std::nullopt;
}

/// Returns the timeout of a request, at most 24 days: HTTP libraries count milliseconds in an int.
constexpr std::chrono::milliseconds clamp_timeout(std::chrono::milliseconds timeout) noexcept {
    return std::clamp<std::chrono::milliseconds>(timeout, std::chrono::hours{0}, std::chrono::hours{24 * 24});
}

/// Appends `part` to a body that is within its limit, up to one byte more than `max_bytes`. Returns whether
/// the body is still within the limit.
inline bool append_body(std::string& body, std::string_view part, std::size_t max_bytes) {
    const std::size_t space = max_bytes - body.size();
    body.append(part.substr(0, part.size() > space ? space + 1 : part.size()));
    return body.size() <= max_bytes;
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
