// expect: too_many_characters
// expect: ::label
#include <promptlayer.hpp>

#include <array>
#include <string_view>

#if defined(FIXED)
inline constexpr std::array<char, 512> label{};
#else
inline constexpr std::array<char, 513> label{};
#endif

static_assert(promptlayer::require_valid(promptlayer::track_prompt_view{
    .prompt_name = "a", .request_id = 1, .label = std::string_view{label.data(), label.size()}}));
