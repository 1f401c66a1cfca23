#ifndef PROMPTLAYER_DETAIL_MODEL_HPP
#define PROMPTLAYER_DETAIL_MODEL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The type of a JSON value. A model has no member of type `null`, `number` or `array`.
enum class json_type { null, boolean, integer, number, string, array, object };

/// The value of a member of a model.
struct member_value {
    bool is_given = false;    ///< false for an absent optional and an empty set of variables
    std::int64_t integer = 0; ///< of an integer; 0 or 1 for a boolean
    std::string_view text{};  ///< of a string
};

/// Receives the variables of a set, one by one.
struct variable_visitor {
    void* context;
    void (*call)(void* context, std::string_view name, std::string_view text);
};

/// A limit on the length of a string, in code points.
struct length_rule {
    promptlayer::rule rule; ///< `min_length` or `max_length`
    std::size_t limit;

    constexpr bool accepts(std::size_t code_points) const noexcept {
        return rule == promptlayer::rule::min_length ? code_points >= limit : code_points <= limit;
    }
};

/// A member of a model as data. The functions access it in a model of unknown type, at run time; they are
/// null if the member has another type. The last two are also null if the member refers to its text.
struct field_info {
    std::string_view key; ///< as JSON writes it: `"label":`
    json_type type = json_type::null;
    bool is_required = false;
    bool has_unique_names = false; ///< the type of a set of variables holds no name twice
    std::span<const length_rule> rules{};
    member_value (*load)(const void* model) = nullptr;
    void (*visit_variables)(const void* model, variable_visitor visitor) = nullptr;
    void (*store)(void* model, const member_value& value) = nullptr;
    bool (*insert_variable)(void* model, std::string_view name, std::string_view text) = nullptr;

    constexpr std::string_view name() const noexcept { return key.substr(1, key.size() - 3); }
};

/// A model as data: what its schema declares.
struct model_info {
    std::span<const field_info> fields{};
    std::span<const std::uint64_t> groups{}; ///< each `at_most_one_of` as a set: bit N stands for field N
};

/// A model of any type, to be read.
struct model_reference {
    const model_info& info;
    const void* object;

    member_value load(std::size_t index) const { return info.fields[index].load(object); }

    template <class VisitT>
    void visit_variables(std::size_t index, VisitT&& visit) const {
        const auto call = [](void* context, std::string_view name, std::string_view text) {
            (*static_cast<VisitT*>(context))(name, text);
        };
        info.fields[index].visit_variables(object, {&visit, call});
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
