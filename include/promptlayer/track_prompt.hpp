#ifndef PROMPTLAYER_TRACK_PROMPT_HPP
#define PROMPTLAYER_TRACK_PROMPT_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/track_response.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <functional>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The body of `POST /rest/track-prompt`: links a prompt template to a request that was logged before. All
/// text is UTF-8; lengths are in code points.
template <class TextT, class VariablesT>
struct basic_track_prompt {
    required<TextT> prompt_name;         ///< the name of the prompt template, at least 1 code point
    VariablesT prompt_input_variables{}; ///< input variables of the template by name; not sent if empty
    required<integer> request_id;        ///< the unique identifier of the request
    optional<integer> version{};         ///< the version of the template; not together with `label`
    optional<TextT> label{}; ///< the label of the version, 1 to 512 code points; not together with `version`

    static constexpr std::string_view path = "/rest/track-prompt";
    using reply = track_response;
    using schema =
        promptlayer::schema<field<"prompt_name", &basic_track_prompt::prompt_name, min_length<1>>,
                            field<"prompt_input_variables", &basic_track_prompt::prompt_input_variables>,
                            field<"request_id", &basic_track_prompt::request_id>,
                            field<"version", &basic_track_prompt::version>,
                            field<"label", &basic_track_prompt::label, min_length<1>, max_length<512>>,
                            at_most_one_of<"version", "label">>;

    friend bool operator==(const basic_track_prompt&, const basic_track_prompt&) = default;
};

/// Owns its strings.
using track_prompt = basic_track_prompt<std::string, std::map<std::string, std::string, std::less<>>>;

/// Refers to strings, and to an array or vector of pairs of `string_view`s, which must outlive it. Works in
/// constant expressions. `view_of` takes any other range of pairs.
using track_prompt_view =
    basic_track_prompt<std::string_view, std::span<const std::pair<std::string_view, std::string_view>>>;

/// Refers to a range of pairs of strings, which must outlive it. Made by `view_of`.
template <class RangeT>
requires detail::variables<RangeT>
class variables_view {
    const RangeT* range_ = nullptr;

public:
    constexpr variables_view() = default;
    constexpr explicit variables_view(const RangeT& range) noexcept : range_{&range} {}

    constexpr auto begin() const { return range_ ? std::begin(*range_) : decltype(std::begin(*range_)){}; }
    constexpr auto end() const { return range_ ? std::end(*range_) : decltype(std::end(*range_)){}; }
};

namespace detail {

template <class RangeT>
inline constexpr bool unique_names<variables_view<RangeT>> = unique_names<RangeT>;

struct no_variables {};

} // namespace detail

/// Makes a request that refers to variables in any range of pairs of strings (`std::unordered_map`, a vector
/// of pairs, ...) without a copy. `rest` is the request without variables, in braces. `variables` and the
/// strings must outlive the request.
template <class RangeT>
requires detail::variables<RangeT>
constexpr basic_track_prompt<std::string_view, variables_view<RangeT>>
view_of(const RangeT& variables, const basic_track_prompt<std::string_view, detail::no_variables>& rest) {
    return {rest.prompt_name, variables_view<RangeT>{variables}, rest.request_id, rest.version, rest.label};
}

template <class RangeT>
void view_of(const RangeT&&, const basic_track_prompt<std::string_view, detail::no_variables>&) = delete;

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
