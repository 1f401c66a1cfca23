#ifndef PROMPTLAYER_TRACK_SCORE_HPP
#define PROMPTLAYER_TRACK_SCORE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_response.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <string>
#include <string_view>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-score`: gives a score to a request that was logged before.
template <class TextT>
struct basic_track_score {
    required<integer> request_id; ///< the unique identifier of the request
    required<integer> score;      ///< 0 to 100
    optional<TextT> name{}; ///< the name of the score, UTF-8; the service takes "default" if it is absent

    static constexpr std::string_view path = "/rest/track-score";
    using reply = track_response;
    using schema = promptlayer::schema<field<"request_id", &basic_track_score::request_id>,
                                       field<"score", &basic_track_score::score, minimum<0>, maximum<100>>,
                                       field<"name", &basic_track_score::name>>;

    friend bool operator==(const basic_track_score&, const basic_track_score&) = default;
};

using track_score = basic_track_score<std::string>;           ///< owns its strings
using track_score_view = basic_track_score<std::string_view>; ///< refers to strings, which must outlive it

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
