#ifndef PROMPTLAYER_JSON_SCHEMA_HPP
#define PROMPTLAYER_JSON_SCHEMA_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <string>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

PROMPTLAYER_DECL std::string json_schema_of(const model_info& info);

} // namespace detail

/// Returns the JSON Schema (draft 2020-12) of a model, as JSON text.
template <class ModelT>
[[nodiscard]] std::string json_schema() {
    return detail::json_schema_of(detail::info<ModelT>());
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

inline std::string quoted(std::string_view name) { return std::string{"\""}.append(name).append("\""); }

inline void append_item(std::string& list, const std::string& item) {
    list.append(list.empty() ? "" : ",").append(item);
}

/// Returns the type of a member and, after a comma each, the rules on it.
inline std::string json_schema_of_field(const field_info& field) {
    std::string rules;
    for (const field_rule& rule : field.rules) {
        if (rule.rule == rule::one_of) {
            std::string names;
            for (const std::string_view name : rule.names)
                append_item(names, quoted(name));
            rules += R"(,"enum":[)" + names + "]";
        } else if (rule.rule == rule::date_time) {
            rules += R"(,"format":"date-time")";
        } else {
            const char* const keyword = rule.rule == rule::minimum             ? "minimum"
                                        : rule.rule == rule::maximum           ? "maximum"
                                        : rule.rule == rule::exclusive_minimum ? "exclusiveMinimum"
                                        : rule.rule == rule::min_length        ? "minLength"
                                                                               : "maxLength";
            rules += "," + quoted(keyword) + ":" + std::to_string(rule.limit);
        }
    }
    switch (field.kind) {
    case member_kind::boolean: return R"({"type":"boolean"})";
    case member_kind::integer: return R"({"type":"integer")" + rules + "}";
    case member_kind::number: return R"({"type":"number")" + rules + "}";
    case member_kind::string: return R"({"type":"string")" + rules + "}";
    case member_kind::strings: return R"({"type":"array","items":{"type":"string")" + rules + "}}";
    case member_kind::map:
        if (!rules.empty())
            rules = R"(,"propertyNames":{)" + rules.substr(1) + "}";
        return R"({"type":"object","additionalProperties":{"type":"string"})" + rules + "}";
    case member_kind::json_object: return R"({"type":"object"})";
    case member_kind::any: break;
    }
    return "{}";
}

PROMPTLAYER_DECL std::string json_schema_of(const model_info& info) {
    std::string properties, required;
    for (const field_info& field : info.fields) {
        std::string type = json_schema_of_field(field);
        if (field.is_required)
            append_item(required, quoted(field.name()));
        else if (info.is_reply)
            type.insert(0, R"({"anyOf":[)") += R"(,{"type":"null"}]})";
        append_item(properties, std::string{field.key} + type);
    }
    std::string text = R"({"type":"object","properties":{)" + properties + "}";
    if (!required.empty())
        text += R"(,"required":[)" + required + "]";
    // Each pair of members of which only one may be given.
    std::vector<std::string> pairs;
    for (const std::uint64_t group : info.groups) {
        for (std::size_t second = 0; second < info.fields.size(); ++second) {
            for (std::size_t first = 0; first < second; ++first) {
                if ((group >> first & group >> second & 1) != 0)
                    pairs.push_back(R"({"required":[)" + quoted(info.fields[first].name()) + "," +
                                    quoted(info.fields[second].name()) + "]}");
            }
        }
    }
    std::string excluded;
    for (const std::string& pair : pairs)
        append_item(excluded, pair);
    if (pairs.size() == 1)
        text += R"(,"not":)" + excluded;
    else if (pairs.size() > 1)
        text += R"(,"not":{"anyOf":[)" + excluded + "]}";
    return text + "}";
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
