#ifndef PROMPTLAYER_SCHEMA_HPP
#define PROMPTLAYER_SCHEMA_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

template <class T, class... OthersT>
concept any_of = (std::same_as<T, OthersT> || ...);

/// An integer type of which each value fits in `std::int64_t`. Character types and bool are not integers
/// here, as in `std::in_range`.
template <class T>
concept int64_convertible =
    std::integral<T> && !any_of<T, bool, char, wchar_t, char8_t, char16_t, char32_t> &&
    (sizeof(T) < sizeof(std::int64_t) || (std::signed_integral<T> && sizeof(T) == sizeof(std::int64_t)));

template <class T>
inline constexpr bool always_false = false;

/// A type that a member of type `T` accepts: no null pointer for a string, no number for a bool.
template <class U, class T>
concept value_of = std::convertible_to<U, T> && !std::same_as<std::remove_cvref_t<U>, std::nullptr_t> &&
                   (!std::same_as<T, bool> || std::same_as<std::remove_cvref_t<U>, bool>);

} // namespace detail

/// A JSON integer, 64 bits signed. Converts from each integer type that fits; `2.9`, `true`, `'a'` and an
/// unsigned 64-bit integer do not compile.
class integer {
    std::int64_t value_ = 0;

public:
    constexpr integer() = default;
    template <detail::int64_convertible T>
    constexpr integer(T value) noexcept : value_{value} {}
    constexpr operator std::int64_t() const noexcept { return value_; }
};

/// A member that must be given: a request without it does not compile. Converts to `T`.
template <class T>
class required {
    T value_;

public:
    using value_type = T;

    // A template without a constraint, so that the assertion fails only if the member is not given. It is not
    // constexpr, because then a type trait on `required` would be enough to make it fail.
    template <class MissingT = T>
    required() : value_{} {
        static_assert(detail::always_false<MissingT>,
                      "promptlayer: a required member of the request is not given");
    }
    template <detail::value_of<T> U>
    requires(!std::same_as<std::remove_cvref_t<U>, required>) constexpr required(U&& value)
        : value_(std::forward<U>(value)) {}

    constexpr const T& value() const noexcept { return value_; }
    constexpr operator const T&() const noexcept { return value_; }
    constexpr const T& operator*() const noexcept { return value_; }
    constexpr const T* operator->() const noexcept { return &value_; }

    // Constexpr only if T can be compared in constant expressions. Some standard libraries cannot
    // compare strings there.
    friend bool operator==(const required&, const required&) = default;
};

/// A member that may be absent: `std::optional`, except that it accepts no null pointer for a string.
template <class T>
class optional {
    std::optional<T> value_{};

public:
    using value_type = T;

    constexpr optional() = default;
    constexpr optional(std::nullopt_t) noexcept {}
    template <detail::value_of<T> U>
    constexpr optional(std::optional<U> value) : value_(std::move(value)) {}
    template <detail::value_of<T> U>
    requires(!std::same_as<std::remove_cvref_t<U>, optional>) constexpr optional(U&& value)
        : value_(std::forward<U>(value)) {}

    constexpr bool has_value() const noexcept { return value_.has_value(); }
    constexpr explicit operator bool() const noexcept { return has_value(); }
    template <class U>
    requires std::convertible_to<const T&, U>
    constexpr operator std::optional<U>() const { return value_; }

    constexpr T& operator*() noexcept { return *value_; }
    constexpr const T& operator*() const noexcept { return *value_; }
    constexpr T* operator->() noexcept { return &*value_; }
    constexpr const T* operator->() const noexcept { return &*value_; }
    constexpr T& value() { return value_.value(); }
    constexpr const T& value() const { return value_.value(); }
    constexpr T value_or(T other) const { return value_.value_or(std::move(other)); }
    template <class... ArgumentsT>
    constexpr T& emplace(ArgumentsT&&... arguments) {
        return value_.emplace(std::forward<ArgumentsT>(arguments)...);
    }
    constexpr void reset() noexcept { value_.reset(); }

    // Each kind of operand has an overload. Without them std::optional would compare this class as a value.
    friend constexpr bool operator==(const optional& a, const optional& b) { return a.value_ == b.value_; }
    friend constexpr bool operator==(const optional& a, const std::optional<T>& b) { return a.value_ == b; }
    friend constexpr bool operator==(const optional& a, std::nullopt_t) noexcept { return !a.has_value(); }
    template <detail::value_of<T> U>
    friend constexpr bool operator==(const optional& a, const U& b) {
        return a.has_value() && *a == T(b);
    }
};

namespace detail {

template <std::size_t N>
struct fixed_string {
    char data[N]{};

    consteval fixed_string(const char (&literal)[N]) {
        for (std::size_t i = 0; i < N; ++i)
            data[i] = literal[i];
    }
    constexpr operator std::string_view() const noexcept { return {data, N - 1}; }
};

/// Returns the name of a member as JSON writes it before the value; `name` needs no escapes.
template <std::size_t N>
consteval std::array<char, N + 2> json_key(const fixed_string<N>& name) {
    std::array<char, N + 2> key{'"'};
    for (std::size_t i = 0; i + 1 < N; ++i)
        key[i + 1] = name.data[i];
    key[N] = '"';
    key[N + 1] = ':';
    return key;
}

template <class T>
struct member_traits {
    using type = T;
    static constexpr bool optional = false;
    static constexpr const T& get(const T& member) noexcept { return member; }
    static constexpr T make_empty() { return T{}; }
};

template <class T>
struct member_traits<required<T>> : member_traits<T> {
    static constexpr required<T> make_empty() { return T{}; }
};

template <class OptionalT>
struct optional_traits : member_traits<typename OptionalT::value_type> {
    static constexpr bool optional = true;
    static constexpr const auto& get(const OptionalT& member) noexcept { return *member; }
    static constexpr OptionalT make_empty() noexcept { return std::nullopt; }
};

template <class T>
struct member_traits<std::optional<T>> : optional_traits<std::optional<T>> {};

template <class T>
struct member_traits<promptlayer::optional<T>> : optional_traits<promptlayer::optional<T>> {};

template <class T>
concept text = std::convertible_to<const T&, std::string_view>;

template <class T>
concept text_pair = requires(const T& pair) {
    { pair.first } -> std::convertible_to<std::string_view>;
    { pair.second } -> std::convertible_to<std::string_view>;
};

/// A range of pairs of strings that are stored in the range: a map, a vector or span of pairs, ...
template <class T>
concept variables = requires(const T& range) {
    requires std::forward_iterator<decltype(std::begin(range))>;
    { std::begin(range) == std::end(range) } -> std::convertible_to<bool>;
    requires std::is_lvalue_reference_v<decltype(*std::begin(range))>;
    requires text_pair<std::remove_cvref_t<decltype(*std::begin(range))>>;
};

/// A type of map that cannot hold the same characters twice as a name.
template <class T>
concept text_map = requires(const T& map, const typename T::key_type& name) {
    requires any_of<typename T::key_type, std::string, std::string_view>;
    map.at(name);
};

template <class T>
inline constexpr bool unique_names = text_map<T>;

/// A type of string that copies the characters it is made of.
template <class T>
concept owns_text = std::constructible_from<T, std::string_view> && !any_of<T, std::string_view> &&
                    !std::is_trivially_destructible_v<T>;

/// A type of map into which text can be copied, without a name twice.
template <class T>
concept text_owning_map = text_map<T> && owns_text<typename T::key_type> &&
    owns_text<typename T::mapped_type> && requires(T& map, std::string_view text) {
    { map.emplace(text, text).second } -> std::convertible_to<bool>;
};

template <class T>
consteval json_type json_type_of() {
    if constexpr (std::same_as<T, bool>)
        return json_type::boolean;
    else if constexpr (std::same_as<T, integer>)
        return json_type::integer;
    else if constexpr (text<T>)
        return json_type::string;
    else {
        static_assert(variables<T>,
                      "promptlayer: a member of a model is a bool, an integer, a string, or a range of "
                      "pairs of strings; put a member that may be absent into std::optional");
        return json_type::object;
    }
}

template <class MemberPointerT>
struct member_of;

template <class ModelT, class MemberT>
struct member_of<MemberT ModelT::*> {
    using type = MemberT;
};

} // namespace detail

/// A string has at least `N` code points.
template <std::size_t N>
struct min_length {
    static constexpr detail::length_rule data{promptlayer::rule::min_length, N};
};

/// A string has at most `N` code points.
template <std::size_t N>
struct max_length {
    static constexpr detail::length_rule data{promptlayer::rule::max_length, N};
};

/// Declares a member of a model: its name in JSON, the member, the rules on its value. An optional and a set
/// of variables may be absent; any other type is required in JSON. With `required<T>` the compiler checks
/// that as well.
template <detail::fixed_string NameV, auto MemberV, class... RulesT>
struct field {
    using member_type = typename detail::member_of<decltype(MemberV)>::type;
    using member_traits = detail::member_traits<member_type>;
    using value_type = typename member_traits::type;

    static constexpr std::string_view name = NameV;
    static constexpr auto key = detail::json_key(NameV);
    static constexpr auto member = MemberV;
    static constexpr detail::json_type type = detail::json_type_of<value_type>();
    static constexpr std::array<detail::length_rule, sizeof...(RulesT)> rules{RulesT::data...};

    static_assert(sizeof...(RulesT) == 0 || type == detail::json_type::string,
                  "promptlayer: min_length and max_length are rules on strings");
    static_assert(type != detail::json_type::object || std::same_as<member_type, value_type>,
                  "promptlayer: a set of variables is a plain member of a model, absent when it is empty");
    static_assert(detail::scan(NameV).json_bytes == name.size(),
                  "promptlayer: the name of a member must not need escapes in JSON");

    /// Returns the value of the member. For a set of variables, returns only whether it is not empty.
    static constexpr detail::member_value load(const auto& model) noexcept {
        const member_type& stored = model.*MemberV;
        if constexpr (type == detail::json_type::object) {
            return {.is_given = !(std::begin(stored) == std::end(stored))};
        } else {
            if constexpr (member_traits::optional) {
                if (!stored.has_value())
                    return {};
            }
            const value_type& value = member_traits::get(stored);
            if constexpr (type == detail::json_type::string)
                return {.is_given = true, .text = value};
            else
                return {.is_given = true, .integer = value};
        }
    }

    /// Calls `visit(name, text)` for each variable of the set.
    template <class VisitT>
    static constexpr void visit_variables(const auto& model, VisitT&& visit) {
        if constexpr (type == detail::json_type::object) {
            for (const auto& variable : model.*MemberV)
                visit(std::string_view{variable.first}, std::string_view{variable.second});
        }
    }

    /// True if a value from JSON can be stored in the member, which then owns its text.
    static constexpr bool is_owner = [] {
        if constexpr (type == detail::json_type::object)
            return detail::text_owning_map<member_type>;
        else if constexpr (type == detail::json_type::string)
            return detail::owns_text<value_type> && std::is_assignable_v<member_type&, value_type>;
        else
            return std::is_assignable_v<member_type&, value_type>;
    }();

    /// Describes the member for code that does not depend on the type of the model.
    template <class ModelT>
    static constexpr detail::field_info info() {
        detail::field_info info{.key = {key.data(), key.size()},
                                .type = type,
                                .is_required = !member_traits::optional && type != detail::json_type::object,
                                .has_unique_names = detail::unique_names<value_type>,
                                .rules = rules};
        info.load = [](const void* model) { return load(*static_cast<const ModelT*>(model)); };
        if constexpr (type == detail::json_type::object) {
            info.visit_variables = [](const void* model, detail::variable_visitor visitor) {
                visit_variables(*static_cast<const ModelT*>(model),
                                [&](std::string_view variable, std::string_view text) {
                                    visitor.call(visitor.context, variable, text);
                                });
            };
            if constexpr (is_owner)
                info.insert_variable = [](void* model, std::string_view variable, std::string_view text) {
                    return (static_cast<ModelT*>(model)->*MemberV).emplace(variable, text).second;
                };
        } else if constexpr (is_owner) {
            info.store = [](void* model, const detail::member_value& value) {
                member_type& stored = static_cast<ModelT*>(model)->*MemberV;
                if constexpr (type == detail::json_type::string)
                    stored = value_type{value.text};
                else if constexpr (type == detail::json_type::boolean)
                    stored = value.integer != 0;
                else
                    stored = integer{value.integer};
            };
        }
        return info;
    }
};

/// Of the named members, at most one may be given.
template <detail::fixed_string... NamesV>
struct at_most_one_of {
    static_assert(sizeof...(NamesV) >= 2, "promptlayer: at_most_one_of takes two names or more");

    static constexpr std::array<std::string_view, sizeof...(NamesV)> names{std::string_view{NamesV}...};
};

namespace detail {

template <class ItemT>
inline constexpr bool is_field = requires {
    ItemT::member;
};

} // namespace detail

/// Declares the JSON of a model: a `field` for each member, and any number of `at_most_one_of`. A model has
/// its declaration as the member type `schema`. Validation, reading, writing and the JSON Schema follow it.
template <class... ItemsT>
struct schema {
    static constexpr std::size_t size = (std::size_t{detail::is_field<ItemsT>} + ... + 0);
    static constexpr std::size_t group_count = sizeof...(ItemsT) - size;

    /// Calls `action(FieldT{}, index)` for each field, in order.
    static constexpr void for_each_field([[maybe_unused]] auto&& action) {
        [[maybe_unused]] std::size_t index = 0;
        [[maybe_unused]] const auto visit = [&]<class ItemT>(ItemT item) {
            if constexpr (detail::is_field<ItemT>)
                action(item, index++);
        };
        (visit(ItemsT{}), ...);
    }

    /// Calls `action(GroupT{})` for each `at_most_one_of`.
    static constexpr void for_each_group([[maybe_unused]] auto&& action) {
        [[maybe_unused]] const auto visit = [&]<class ItemT>(ItemT item) {
            if constexpr (!detail::is_field<ItemT>)
                action(item);
        };
        (visit(ItemsT{}), ...);
    }

    /// Returns how many fields have this name.
    static constexpr std::size_t count(std::string_view name) {
        std::size_t count = 0;
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { count += FieldT::name == name ? 1u : 0u; });
        return count;
    }

    /// Returns true if field names are unique and each name in a group is the name of a field.
    static constexpr bool consistent() {
        bool consistent = true;
        const auto check = [&](std::string_view name) { consistent = consistent && count(name) == 1; };
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { check(FieldT::name); });
        for_each_group([&](auto group) {
            for (const std::string_view name : group.names)
                check(name);
        });
        return consistent;
    }
};

namespace detail {

template <class ModelT>
struct checked_schema {
    static_assert(
        requires { ModelT::schema::size; },
        "promptlayer: this type is not a model, it has no member type named schema");
    using type = typename ModelT::schema;
    static_assert(type::consistent(), "promptlayer: each name in a schema is that of one field");
    static_assert(type::size <= 64, "promptlayer: a model has at most 64 members");
};

template <class ModelT>
using schema_of = typename checked_schema<ModelT>::type;

template <class ModelT>
inline constexpr auto field_table = [] {
    std::array<field_info, schema_of<ModelT>::size> table{};
    schema_of<ModelT>::for_each_field(
        [&]<class FieldT>(FieldT, std::size_t index) { table[index] = FieldT::template info<ModelT>(); });
    return table;
}();

template <class ModelT>
inline constexpr auto group_table = [] {
    std::array<std::uint64_t, schema_of<ModelT>::group_count> table{};
    std::size_t next = 0;
    schema_of<ModelT>::for_each_group([&](auto group) {
        for (const std::string_view name : group.names) {
            std::size_t index = 0;
            for (const field_info& field : field_table<ModelT>) {
                if (field.name() == name)
                    table[next] |= std::uint64_t{1} << index;
                ++index;
            }
        }
        ++next;
    });
    return table;
}();

template <class ModelT>
inline constexpr model_info info_in_constant_expressions{field_table<ModelT>, group_table<ModelT>};

/// Returns a model as data.
template <class ModelT>
const model_info& info() noexcept {
    return info_in_constant_expressions<ModelT>;
}

/// Returns a reference to any model, for functions that do not depend on its type.
template <class ModelT>
model_reference refer_to(const ModelT& model) noexcept {
    return {info<ModelT>(), &model};
}

template <class... ItemsT>
constexpr auto make_empty_members(schema<ItemsT...>) {
    [[maybe_unused]] const auto make_member = []<class ItemT>(ItemT) {
        if constexpr (is_field<ItemT>)
            return std::tuple{ItemT::member_traits::make_empty()};
        else
            return std::tuple<>{};
    };
    return std::tuple_cat(make_member(ItemsT{})...);
}

/// Makes a model with empty members, for a reader to fill in.
template <class ModelT>
constexpr ModelT make_empty() {
    return std::apply([](auto&&... members) { return ModelT{std::move(members)...}; },
                      make_empty_members(schema_of<ModelT>{}));
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
