#ifndef PROMPTLAYER_DETAIL_SERVICE_ERROR_HPP
#define PROMPTLAYER_DETAIL_SERVICE_ERROR_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_reader.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// The most bytes of the service's text that an error holds in one piece.
inline constexpr std::size_t max_service_text = 512;

/// What the service says of a request that it did not accept.
struct service_message {
    bool is_object = false;              ///< the body is a JSON object
    std::string text{};                  ///< `message`, `error` or `detail`; empty if there is none
    std::vector<violation> violations{}; ///< from FastAPI's list of `loc`, `msg` and `type`
};

/// FastAPI's `loc` as a path: ["body", "prompt_input_variables", "user"] is `prompt_input_variables["user"]`.
inline std::string path_of(const boost::json::value* loc, std::string_view secret) {
    std::string path;
    const auto* const steps = loc ? loc->if_array() : nullptr;
    if (!steps)
        return path;
    std::size_t shown = 0;
    for (const boost::json::value& step : *steps) {
        if (shown == 8)
            break; // deeper than any request
        if (const auto* const name = step.if_string()) {
            if (&step == steps->begin() && *name == "body")
                continue;
            const std::string safe = json_escape(redact({name->data(), name->size()}, secret));
            path += shown == 0 ? safe : "[\"" + safe + "\"]";
        } else if (step.is_int64()) {
            path += "[" + std::to_string(step.get_int64()) + "]";
        } else {
            continue;
        }
        ++shown;
    }
    return sanitize(path, max_service_text);
}

/// Reads the body of a response that is not 200. Paths are without `secret`, text is as the service has it,
/// but for control characters.
inline service_message read_service_message(std::string_view body, std::string_view secret) {
    service_message message;
    boost::json::parse_options options;
    options.max_depth = max_json_depth;
    boost::json::error_code failed;
    const boost::json::value answer =
        boost::json::parse({body.data(), body.size()}, failed, boost::json::storage_ptr{}, options);
    const auto text_in = [&](const boost::json::value* value) -> std::string {
        const auto* const text = value ? value->if_string() : nullptr;
        return text ? sanitize({text->data(), text->size()}, std::string_view::npos) : std::string{};
    };
    const auto* const object = failed ? nullptr : answer.if_object();
    message.is_object = object != nullptr;
    if (!object)
        return message;
    for (const char* const member : {"message", "error", "detail"}) {
        const boost::json::value* const value = object->if_contains(member);
        if (value && value->is_object())
            message.text = text_in(value->get_object().if_contains("message"));
        else
            message.text = text_in(value);
        if (message.text.find_first_not_of(' ') != message.text.npos)
            break;
        message.text.clear();
    }
    const boost::json::value* const detail = object->if_contains("detail");
    if (!detail || !detail->is_array())
        return message;
    violation_list list;
    for (const boost::json::value& item : detail->get_array()) {
        const auto* const entry = item.if_object();
        const auto in_entry = [&](const char* member) {
            return entry ? entry->if_contains(member) : nullptr;
        };
        std::string text = text_in(entry ? in_entry("msg") : &item);
        if (text.empty())
            text = text_in(in_entry("type"));
        std::string path = path_of(in_entry("loc"), secret);
        if (!path.empty() || !text.empty())
            list.add([&] { return violation{std::move(path), rule::service, 0, 0, std::move(text)}; });
    }
    message.violations = std::move(list).take();
    return message;
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
