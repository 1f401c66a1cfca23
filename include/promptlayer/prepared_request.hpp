#ifndef PROMPTLAYER_PREPARED_REQUEST_HPP
#define PROMPTLAYER_PREPARED_REQUEST_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The number of a request in a queue and its journal: from 1, ascending in the order of the pushes.
using request_number = std::uint64_t;

/// Options of one call.
struct request_options {
    std::optional<std::chrono::milliseconds> timeout{}; ///< of each attempt; nullopt: that of the config
};

/// A validated request without the API key, for queues and files.
struct prepared_request {
    std::string path{};                   ///< `/rest/track-prompt`
    std::string body{};                   ///< JSON
    bool idempotent = true;               ///< whether sending the request twice changes nothing
    std::chrono::milliseconds timeout{0}; ///< of each attempt; 0: that of the config. No journal keeps it.

    friend bool operator==(const prepared_request&, const prepared_request&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
