#ifndef PROMPTLAYER_LOG_REQUEST_HPP
#define PROMPTLAYER_LOG_REQUEST_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_writer.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The result of a logged call, in the order of their names in JSON.
enum class log_status { success, warning, error };

/// Why a logged call failed, in the order of their names in JSON.
enum class log_error_type {
    provider_timeout,
    provider_quota_limit,
    provider_rate_limit,
    provider_partial_response,
    provider_auth_error,
    provider_error,
    template_render_error,
    variable_missing_or_empty,
    unknown_error,
};

/// The reply of `POST /log-request`.
struct log_response {
    integer id{};               ///< the `request_id` of `track_prompt`, `track_score` and the others
    any_value prompt_version{}; ///< not read
    std::optional<std::string> status{}, error_type{}, error_message{};

    using schema =
        reply_schema<field<"id", &log_response::id>, //
                     field<"prompt_version", &log_response::prompt_version>,
                     field<"status", &log_response::status>, field<"error_type", &log_response::error_type>,
                     field<"error_message", &log_response::error_message>>;

    friend bool operator==(const log_response&, const log_response&) = default;
};

namespace detail {

/// For code that needs no complete `log_request`, which takes time to compile.
inline constexpr std::string_view log_path = "/log-request";

} // namespace detail

/// The body of `POST /log-request`: logs a call of a language model, and so makes the `request_id` that the
/// other requests refer to. All text is UTF-8; lengths are in code points. `chat_prompt` makes an `input` or
/// `output`, `date_time` a time.
template <class TextT, class MapT, class ListT>
struct basic_log_request {
    required<TextT> provider;                        ///< such as "openai"
    required<TextT> model;                           ///< such as "gpt-4o"
    required<basic_json_object<TextT>> input;        ///< a prompt blueprint: what the model was asked
    required<basic_json_object<TextT>> output;       ///< a prompt blueprint: what the model answered
    required<TextT> request_start_time;              ///< RFC 3339, such as 2024-01-15T10:30:00Z
    required<TextT> request_end_time;                ///< RFC 3339
    optional<basic_json_object<TextT>> parameters{}; ///< of the model
    ListT tags{};                                    ///< each at most 512 code points; not sent if empty
    MapT metadata{};                           ///< names of at most 1,024 code points; not sent if empty
    optional<TextT> prompt_name{};             ///< of the prompt template that was used
    optional<integer> prompt_id{};             ///< of the prompt template that was used
    optional<integer> prompt_version_number{}; ///< above 0
    optional<basic_json_object<TextT>> prompt_input_variables{}; ///< of the prompt template
    optional<integer> input_tokens{};                            ///< 0 or more
    optional<integer> output_tokens{};                           ///< 0 or more
    optional<double> price{};                                    ///< 0 or more
    optional<TextT> function_name{};
    optional<TextT> api_type{};
    optional<integer> score{}; ///< 0 to 100
    optional<log_status> status{};
    optional<log_error_type> error_type{};
    optional<TextT> error_message{}; ///< at most 1,024 code points

    static constexpr std::string_view path = detail::log_path;
    static constexpr int success_status = 201;
    static constexpr bool idempotent = false; // each makes a log of its own
    using reply = log_response;
    using schema = promptlayer::schema<
        field<"provider", &basic_log_request::provider>, field<"model", &basic_log_request::model>,
        field<"input", &basic_log_request::input>, field<"output", &basic_log_request::output>,
        field<"request_start_time", &basic_log_request::request_start_time, date_time_format>,
        field<"request_end_time", &basic_log_request::request_end_time, date_time_format>,
        field<"parameters", &basic_log_request::parameters>,
        field<"tags", &basic_log_request::tags, items<max_length<512>>>,
        field<"metadata", &basic_log_request::metadata, property_names<max_length<1024>>>,
        field<"prompt_name", &basic_log_request::prompt_name>,
        field<"prompt_id", &basic_log_request::prompt_id>,
        field<"prompt_version_number", &basic_log_request::prompt_version_number, exclusive_minimum<0>>,
        field<"prompt_input_variables", &basic_log_request::prompt_input_variables>,
        field<"input_tokens", &basic_log_request::input_tokens, minimum<0>>,
        field<"output_tokens", &basic_log_request::output_tokens, minimum<0>>,
        field<"price", &basic_log_request::price, minimum<0>>,
        field<"function_name", &basic_log_request::function_name>,
        field<"api_type", &basic_log_request::api_type>,
        field<"score", &basic_log_request::score, minimum<0>, maximum<100>>,
        field<"status", &basic_log_request::status, one_of<"SUCCESS", "WARNING", "ERROR">>,
        field<"error_type", &basic_log_request::error_type,
              one_of<"PROVIDER_TIMEOUT", "PROVIDER_QUOTA_LIMIT", "PROVIDER_RATE_LIMIT",
                     "PROVIDER_PARTIAL_RESPONSE", "PROVIDER_AUTH_ERROR", "PROVIDER_ERROR",
                     "TEMPLATE_RENDER_ERROR", "VARIABLE_MISSING_OR_EMPTY", "UNKNOWN_ERROR">>,
        field<"error_message", &basic_log_request::error_message, max_length<1024>>>;

    friend bool operator==(const basic_log_request&, const basic_log_request&) = default;
};

/// Owns its strings.
using log_request =
    basic_log_request<std::string, std::map<std::string, std::string, std::less<>>, std::vector<std::string>>;

/// Refers to strings, to arrays or vectors of `string_view`s and of pairs of them, which must outlive it.
using log_request_view =
    basic_log_request<std::string_view, std::span<const std::pair<std::string_view, std::string_view>>,
                      std::span<const std::string_view>>;

/// Who wrote a message of a chat.
enum class role { system, user, assistant };

/// A message of a chat, UTF-8.
struct chat_message {
    promptlayer::role role;
    std::string_view text;
};

namespace detail {

PROMPTLAYER_DECL json_object chat_prompt(const chat_message* first, std::size_t count);

} // namespace detail

/// Returns a prompt blueprint of messages that are text only, from a list in braces or a contiguous range. A
/// text that is not UTF-8 is reported when the request is checked.
inline json_object chat_prompt(std::initializer_list<chat_message> messages) {
    return detail::chat_prompt(messages.begin(), messages.size());
}

template <class RangeT>
json_object chat_prompt(const RangeT& messages) {
    return detail::chat_prompt(std::data(messages), std::size(messages));
}

#if defined(PROMPTLAYER_DEFINITIONS)

PROMPTLAYER_DECL json_object detail::chat_prompt(const chat_message* first, std::size_t count) {
    constexpr std::string_view roles[] = {"system", "user", "assistant"};
    std::string json;
    json_writer<vector_block> writer{json, json.max_size()};
    writer.put(R"({"type":"chat","messages":[)");
    for (std::size_t i = 0; i < count; ++i) {
        const chat_message& message = first[i];
        writer.put(i == 0 ? R"({"role":")" : R"(,{"role":")");
        const auto role = static_cast<std::size_t>(message.role);
        writer.put(role < std::size(roles) ? roles[role] : "\n"); // no JSON, so the request is rejected
        writer.put(R"(","content":[{"type":"text","text":)");
        writer.put_text(message.text); // no JSON either if it is not UTF-8
        writer.put("}]}");
    }
    writer.put("]}");
    writer.flush();
    return json;
}

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
