#ifndef PROMPTLAYER_DETAIL_VIOLATION_COLLECTOR_HPP
#define PROMPTLAYER_DETAIL_VIOLATION_COLLECTOR_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/walk.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#if defined(PROMPTLAYER_DEFINITIONS)

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

constexpr const char* type_name(json_type type) noexcept {
    switch (type) {
    case json_type::null: return "null";
    case json_type::boolean: return "a boolean";
    case json_type::integer: return "an integer";
    case json_type::number: return "a number";
    case json_type::string: return "a string";
    case json_type::array: return "an array";
    case json_type::object: break;
    }
    return "an object";
}

/// Collects each violation with its text.
struct violation_collector {
    violation_list list{};
    std::string_view api_key{}; ///< removed from all paths

    /// Returns the path of a location without the API key. Redacts twice: before the name is cut, so that no
    /// part of the key is left, and at the end, because escapes may form the key.
    std::string path_of(const location& where) const {
        std::string path{where.member};
        if (where.name)
            path.append("[\"").append(json_escape(redact(std::string{*where.name}, api_key))).append("\"]");
        else if (where.index != location::no_index)
            path.append("[").append(std::to_string(where.index)).append("]");
        return redact(std::move(path), api_key);
    }

    void add(rule broken, const location& where, std::int64_t limit, std::uint64_t actual) {
        list.add([&] {
            return violation{path_of(where), broken, limit, actual,
                             (where.is_name && broken != rule::name_utf8 ? "its name: " : "") +
                                 message_for(broken, limit, actual)};
        });
    }

    void add_one_of(const location& where, std::span<const std::string_view> names) {
        std::string message = "must be one of ";
        for (std::size_t i = 0; i < names.size(); ++i)
            message.append(i == 0 ? "" : ", ").append(names[i]);
        list.add([&] { return violation{path_of(where), rule::one_of, 0, 0, std::move(message)}; });
    }

    void add_type(const location& where, json_type expected, const char* actual) {
        list.add([&] {
            std::string message = where.member.empty() ? "the body must be " : "must be ";
            message.append(type_name(expected)).append(", is ").append(actual);
            return violation{path_of(where), rule::type, 0, 0, std::move(message)};
        });
    }

    void add_group(const model_info& info, std::uint64_t group, std::uint64_t given) {
        std::string names;
        for (std::size_t i = 0; i < info.fields.size(); ++i) {
            if (group >> i & 1)
                names.append(names.empty() ? "" : ", ").append(info.fields[i].name());
        }
        list.add([&] {
            return violation{"", rule::at_most_one_of, 1, given, "only one of " + names + " may be given"};
        });
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#include <promptlayer/detail/pop_macros.hpp>

#endif
