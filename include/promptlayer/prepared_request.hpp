#ifndef PROMPTLAYER_PREPARED_REQUEST_HPP
#define PROMPTLAYER_PREPARED_REQUEST_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The number of a request in a queue and its journal: from 1, ascending in the order of the pushes.
using request_number = std::uint64_t;

/// A validated request without the API key, for queues and files.
struct prepared_request {
    std::string path{};                   ///< `/rest/track-prompt`
    std::string body{};                   ///< JSON
    bool idempotent = true;               ///< false: the service must not receive the request twice
    std::chrono::milliseconds timeout{0}; ///< of an attempt; 0: the timeout of the config. In no journal.

    friend bool operator==(const prepared_request&, const prepared_request&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
