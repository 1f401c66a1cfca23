#ifndef PROMPTLAYER_TRACK_GROUP_HPP
#define PROMPTLAYER_TRACK_GROUP_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_response.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <string_view>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-group`: puts a request that was logged before into a group.
struct track_group {
    required<integer> request_id; ///< the unique identifier of the request
    required<integer> group_id;   ///< the unique identifier of the group

    static constexpr std::string_view path = "/rest/track-group";
    using reply = track_response;
    using schema = promptlayer::schema<field<"request_id", &track_group::request_id>,
                                       field<"group_id", &track_group::group_id>>;

    friend bool operator==(const track_group&, const track_group&) = default;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
