#ifndef PROMPTLAYER_TRACK_RESPONSE_HPP
#define PROMPTLAYER_TRACK_RESPONSE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <string>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The reply of `track_prompt`, `track_score`, `track_metadata` and `track_group`. `decode` returns it only
/// if `success` is true.
struct track_response {
    bool success = false;
    std::string message{}; ///< the text of the service, UTF-8, with spaces for control characters

    using schema = reply_schema<field<"success", &track_response::success>, //
                                field<"message", &track_response::message>>;

    friend bool operator==(const track_response&, const track_response&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
