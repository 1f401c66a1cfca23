#ifndef PROMPTLAYER_JSON_SCHEMA_HPP
#define PROMPTLAYER_JSON_SCHEMA_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The JSON Schema (draft 2020-12) that the model's declaration stands for, as JSON text.
template <class ModelT>
[[nodiscard]] std::string json_schema() {
    using schema = detail::schema_of<ModelT>;
    std::string properties;
    std::string required;
    const auto quoted = [](std::string_view name) { return "\"" + std::string{name} + "\""; };
    const auto append = [](std::string& list, std::string item) {
        (list += list.empty() ? "" : ",") += std::move(item);
    };
    schema::for_each_field([&]<class FieldT>(FieldT, std::size_t) {
        std::string type = FieldT::type == detail::json_type::boolean   ? R"("type":"boolean")"
                           : FieldT::type == detail::json_type::integer ? R"("type":"integer")"
                           : FieldT::type == detail::json_type::string
                               ? R"("type":"string")"
                               : R"("type":"object","additionalProperties":{"type":"string"})";
        FieldT::for_each_rule(
            [&](auto rule) { append(type, quoted(rule.keyword) + ":" + std::to_string(rule.limit)); });
        append(properties, quoted(FieldT::name) + ":{" + type + "}");
        if (FieldT::required)
            append(required, quoted(FieldT::name));
    });
    std::string text = R"({"type":"object","properties":{)" + properties + "}";
    if (!required.empty())
        text += R"(,"required":[)" + required + "]";
    // Each pair of which only one may be given.
    std::vector<std::string> pairs;
    schema::for_each_group([&](auto group) {
        std::vector<std::string_view> earlier;
        group.for_each_name([&](std::string_view name) {
            for (const std::string_view other : earlier)
                pairs.push_back(R"({"required":[)" + quoted(other) + "," + quoted(name) + "]}");
            earlier.push_back(name);
        });
    });
    if (pairs.size() == 1) {
        text += R"(,"not":)" + pairs[0];
    } else if (pairs.size() > 1) {
        std::string any;
        for (const std::string& pair : pairs)
            append(any, pair);
        text += R"(,"not":{"anyOf":[)" + any + "]}";
    }
    return text + "}";
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
