#ifndef PROMPTLAYER_DETAIL_COMPILED_MODELS_HPP
#define PROMPTLAYER_DETAIL_COMPILED_MODELS_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_group.hpp>
#include <promptlayer/track_metadata.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/track_response.hpp>
#include <promptlayer/track_score.hpp>

#include <promptlayer/detail/push_macros.hpp>

// With separate compilation, only one source file compiles the tables of these models, to keep them out of
// all others.
#if defined(PROMPTLAYER_SEPARATE_COMPILATION)

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

#if defined(PROMPTLAYER_DEFINITIONS)
template const model_info& info<track_response>() noexcept;
template const model_info& info<track_prompt>() noexcept;
template const model_info& info<track_prompt_view>() noexcept;
template const model_info& info<track_score>() noexcept;
template const model_info& info<track_score_view>() noexcept;
template const model_info& info<track_metadata>() noexcept;
template const model_info& info<track_metadata_view>() noexcept;
template const model_info& info<track_group>() noexcept;
template const model_info& info<log_response>() noexcept;
template const model_info& info<log_request>() noexcept;
template const model_info& info<log_request_view>() noexcept;
#else
extern template const model_info& info<track_response>() noexcept;
extern template const model_info& info<track_prompt>() noexcept;
extern template const model_info& info<track_prompt_view>() noexcept;
extern template const model_info& info<track_score>() noexcept;
extern template const model_info& info<track_score_view>() noexcept;
extern template const model_info& info<track_metadata>() noexcept;
extern template const model_info& info<track_metadata_view>() noexcept;
extern template const model_info& info<track_group>() noexcept;
extern template const model_info& info<log_response>() noexcept;
extern template const model_info& info<log_request>() noexcept;
extern template const model_info& info<log_request_view>() noexcept;
#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#include <promptlayer/detail/pop_macros.hpp>

#endif
