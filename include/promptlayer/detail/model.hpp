#ifndef PROMPTLAYER_DETAIL_MODEL_HPP
#define PROMPTLAYER_DETAIL_MODEL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_text.hpp>
#include <promptlayer/detail/number.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The type of a JSON value.
enum class json_type { null, boolean, integer, number, string, array, object };

/// The kind of a member of a model.
enum class member_kind {
    boolean,
    integer,
    number,
    string,      ///< also an enumeration, by the name that JSON has for it
    strings,     ///< an array of strings
    map,         ///< an object of strings
    json_object, ///< an object as JSON text
    any,         ///< any value, which is ignored
};

/// Returns the JSON type of a member; `any` has none.
constexpr json_type json_type_of(member_kind kind) noexcept {
    switch (kind) {
    case member_kind::boolean: return json_type::boolean;
    case member_kind::integer: return json_type::integer;
    case member_kind::number: return json_type::number;
    case member_kind::string: return json_type::string;
    case member_kind::strings: return json_type::array;
    case member_kind::map:
    case member_kind::json_object: return json_type::object;
    case member_kind::any: break;
    }
    return json_type::null;
}

/// The value of a member of a model. Of an array or map, only whether it is given.
struct member_value {
    bool is_given =
        false; ///< false for an absent optional, and for an empty array or map that is not required
    std::int64_t integer = 0; ///< of an integer; 0 or 1 for a boolean
    double number = 0;        ///< of a number
    std::string_view text{};  ///< of a string, an enumeration or a JSON object
};

/// Receives the entries of an array or map, one by one.
struct entry_visitor {
    void* context;
    void (*call)(void* context, std::string_view name,
                 std::string_view text); ///< `name` is empty in an array
};

/// A rule on the value of a member: a number or a string. The rules of an array are on its items, the rules
/// of a map on its names.
struct field_rule {
    promptlayer::rule rule;
    std::int64_t limit = 0;
    std::span<const std::string_view> names{};                 ///< of `rule::one_of`
    bool (*accepts)(std::string_view text) noexcept = nullptr; ///< of `rule::date_time`

    constexpr bool accepts_length(std::size_t code_points) const noexcept {
        const auto length = static_cast<std::int64_t>(code_points);
        return rule == promptlayer::rule::min_length   ? length >= limit
               : rule == promptlayer::rule::max_length ? length <= limit
                                                       : true;
    }

    /// `value` is an integer or, if `is_double`, a finite double.
    constexpr bool accepts_number(const member_value& value, bool is_double) const noexcept {
        const auto bound = static_cast<double>(limit);
        const bool is_less = is_double ? value.number < bound : value.integer < limit;
        const bool is_more = is_double ? value.number > bound : value.integer > limit;
        return rule == promptlayer::rule::minimum   ? !is_less
               : rule == promptlayer::rule::maximum ? !is_more
                                                    : is_more;
    }

    constexpr bool lists(std::string_view text) const noexcept {
        for (const std::string_view name : names) {
            if (name == text)
                return true;
        }
        return false;
    }
};

/// Functions that only some members need. The table of a model refers to them, so that programs without such
/// models do not contain them.
struct field_functions {
    json_text_check (*check_object)(std::string_view text, std::size_t max_depth) noexcept;
    std::string_view (*write_number)(double value, char (&buffer)[max_number_size]) noexcept;
    std::optional<double> (*read_number)(std::string_view number) noexcept;
    integer_reading (*read_integer)(std::string_view number);
};

inline constexpr field_functions all_field_functions{check_json_object, write_number, read_number,
                                                     read_integer};

/// A member of a model as data. The functions access it in a model of unknown type, at run time; they are
/// null if the member has another kind. The last two are also null if the member refers to its text.
struct field_info {
    std::string_view key; ///< as JSON writes it: `"label":`
    member_kind kind = member_kind::any;
    bool is_required = false;
    bool has_unique_names = false; ///< the type of a map holds no name twice
    std::span<const field_rule> rules{};
    const field_functions* functions = nullptr; ///< of a number, a JSON object, and an integer of a reply
    member_value (*load)(const void* model) = nullptr;
    void (*visit_entries)(const void* model, entry_visitor visitor) = nullptr;
    void (*store)(void* model, const member_value& value) = nullptr;
    bool (*insert)(void* model, std::string_view name, std::string_view text) = nullptr; ///< an entry

    constexpr std::string_view name() const noexcept { return key.substr(1, key.size() - 3); }
    constexpr bool has_entries() const noexcept {
        return kind == member_kind::strings || kind == member_kind::map;
    }
};

/// A model as data: what its schema declares.
struct model_info {
    std::span<const field_info> fields{};
    std::span<const std::uint64_t> groups{}; ///< each `at_most_one_of` as a set: bit N stands for field N
    bool is_reply = false;                   ///< unknown members are ignored, null is read as absent
};

/// A model of any type, to be read.
struct model_reference {
    const model_info& info;
    const void* object;

    member_value load(std::size_t index) const { return info.fields[index].load(object); }

    template <class VisitT>
    void visit_entries(std::size_t index, VisitT&& visit) const {
        const auto call = [](void* context, std::string_view name, std::string_view text) {
            (*static_cast<VisitT*>(context))(name, text);
        };
        info.fields[index].visit_entries(object, {&visit, call});
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
