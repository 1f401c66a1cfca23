#ifndef PROMPTLAYER_PREPARED_REQUEST_HPP
#define PROMPTLAYER_PREPARED_REQUEST_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <string>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// A validated request without the API key, for queues and files.
struct prepared_request {
    std::string path{}; ///< `/rest/track-prompt`
    std::string body{}; ///< JSON

    friend bool operator==(const prepared_request&, const prepared_request&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
