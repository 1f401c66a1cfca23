#ifndef PROMPTLAYER_TRACK_METADATA_HPP
#define PROMPTLAYER_TRACK_METADATA_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_response.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-metadata`: adds metadata to a request that was logged before.
template <class MapT>
struct basic_track_metadata {
    required<integer> request_id; ///< the unique identifier of the request
    required<MapT> metadata;      ///< text by name, UTF-8; sent also if it is empty

    static constexpr std::string_view path = "/rest/track-metadata";
    using reply = track_response;
    using schema = promptlayer::schema<field<"request_id", &basic_track_metadata::request_id>,
                                       field<"metadata", &basic_track_metadata::metadata>>;

    friend bool operator==(const basic_track_metadata&, const basic_track_metadata&) = default;
};

/// Owns its strings.
using track_metadata = basic_track_metadata<std::map<std::string, std::string, std::less<>>>;

/// Refers to an array or vector of pairs of `string_view`s, which must outlive it.
using track_metadata_view =
    basic_track_metadata<std::span<const std::pair<std::string_view, std::string_view>>>;

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
