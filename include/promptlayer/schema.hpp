#ifndef PROMPTLAYER_SCHEMA_HPP
#define PROMPTLAYER_SCHEMA_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

template <class T, class... OthersT>
concept any_of = (std::same_as<T, OthersT> || ...);

/// An integer type whose every value fits in `std::int64_t`; character types and bool are no integers here,
/// as in `std::in_range`.
template <class T>
concept int64_convertible =
    std::integral<T> && !any_of<T, bool, char, wchar_t, char8_t, char16_t, char32_t> &&
    (sizeof(T) < sizeof(std::int64_t) || (std::signed_integral<T> && sizeof(T) == sizeof(std::int64_t)));

template <class T>
inline constexpr bool always_false = false;

/// What a member of type `T` may be given: not a null pointer for a string, nor a number for a bool.
template <class U, class T>
concept value_of = std::convertible_to<U, T> && !std::same_as<std::remove_cvref_t<U>, std::nullptr_t> &&
                   (!std::same_as<T, bool> || std::same_as<std::remove_cvref_t<U>, bool>);

} // namespace detail

/// A JSON integer of 64 bits signed. Made from any integer type that fits; `2.9`, `true`, `'a'` and an
/// unsigned 64-bit integer do not compile.
class integer {
    std::int64_t value_ = 0;

public:
    constexpr integer() = default;
    template <detail::int64_convertible T>
    constexpr integer(T value) noexcept : value_{value} {}
    constexpr operator std::int64_t() const noexcept { return value_; }
};

/// A member that has to be given: leaving it out does not compile. Reads as a `T`.
template <class T>
class required {
    T value_;

public:
    using value_type = T;

    // A template without a constraint: the sentence is said only where the member is left out. Not constexpr,
    // since that would be enough for a mere question about T to say it.
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

    // Constexpr if that of T is; not every standard library's string has such a comparison.
    friend bool operator==(const required&, const required&) = default;
};

/// A member that may be absent: `std::optional`, except that a null pointer is no value for a string.
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

    // One for each kind of operand, so that no comparison of std::optional takes this for a value.
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

    consteval fixed_string(const char (&literal)[N]) { std::copy_n(literal, N, data); }
    constexpr operator std::string_view() const noexcept { return {data, N - 1}; }
};

/// The name of a member as JSON writes it before the value; `name` needs no escapes.
template <std::size_t N>
consteval std::array<char, N + 2> json_key(const fixed_string<N>& name) {
    std::array<char, N + 2> key{'"'};
    std::copy_n(name.data, N - 1, key.begin() + 1);
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

/// Names and their values, all strings, kept where they are: a map, a vector or span of pairs, ...
template <class T>
concept variables = std::ranges::forward_range<const T&> && text_pair<std::ranges::range_value_t<const T&>> &&
    std::is_lvalue_reference_v<std::ranges::range_reference_t<const T&>>;

/// A type of map that cannot hold a name twice, going by the characters.
template <class T>
concept text_map = requires(const T& map, const typename T::key_type& name) {
    requires any_of<typename T::key_type, std::string, std::string_view>;
    map.at(name);
};

template <class T>
inline constexpr bool unique_names = text_map<T>;

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
                      "pairs of strings, where it may be absent in std::optional");
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
    static constexpr promptlayer::rule rule = promptlayer::rule::min_length;
    static constexpr std::string_view keyword = "minLength";
    static constexpr std::size_t limit = N;
    static constexpr bool holds(std::size_t code_points) noexcept { return code_points >= N; }
};

/// A string has at most `N` code points.
template <std::size_t N>
struct max_length {
    static constexpr promptlayer::rule rule = promptlayer::rule::max_length;
    static constexpr std::string_view keyword = "maxLength";
    static constexpr std::size_t limit = N;
    static constexpr bool holds(std::size_t code_points) noexcept { return code_points <= N; }
};

/// A member of a model: its name in JSON, the member, the rules on its value. A `std::optional` and a set of
/// variables may be absent, any other type is required in JSON; `required<T>` has the compiler see to it as
/// well.
template <detail::fixed_string NameV, auto MemberV, class... RulesT>
struct field {
    using member_type = typename detail::member_of<decltype(MemberV)>::type;
    using member_traits = detail::member_traits<member_type>;
    using value_type = typename member_traits::type;

    static constexpr std::string_view name = NameV;
    static constexpr auto key = detail::json_key(NameV); ///< `"name":`
    static constexpr auto member = MemberV;
    static constexpr detail::json_type type = detail::json_type_of<value_type>();
    static constexpr bool required = !member_traits::optional && type != detail::json_type::object;

    static_assert(sizeof...(RulesT) == 0 || type == detail::json_type::string,
                  "promptlayer: min_length and max_length are rules on strings");
    static_assert(type != detail::json_type::object || std::same_as<member_type, value_type>,
                  "promptlayer: a set of variables is a plain member of a model, absent when it is empty");
    static_assert(scan(NameV).json_bytes == name.size(),
                  "promptlayer: the name of a member is one that JSON writes without escapes");

    /// Whether `model` holds a value for it: an absent optional and an empty set of variables are not
    /// written.
    static constexpr bool present(const auto& model) noexcept {
        if constexpr (member_traits::optional)
            return (model.*MemberV).has_value();
        else if constexpr (type == detail::json_type::object)
            return std::ranges::begin(model.*MemberV) != std::ranges::end(model.*MemberV);
        else
            return true;
    }

    static constexpr const value_type& value(const auto& model) noexcept {
        return member_traits::get(model.*MemberV);
    }

    static constexpr void for_each_rule(auto&& action) { (action(RulesT{}), ...); }
};

/// Of the members named, one may be given, or none.
template <detail::fixed_string... NamesV>
struct at_most_one_of {
    static_assert(sizeof...(NamesV) >= 2, "promptlayer: at_most_one_of takes two names or more");

    static constexpr bool names(std::string_view name) noexcept {
        return ((name == std::string_view{NamesV}) || ...);
    }
    static constexpr void for_each_name(auto&& action) { (action(std::string_view{NamesV}), ...); }
};

namespace detail {

template <class ItemT>
inline constexpr bool is_field = requires {
    ItemT::member;
};

} // namespace detail

/// What a model is in JSON: `field`s, which stand for all its members, and `at_most_one_of`s. A model names
/// its own as the member type `schema`; validation, reading, writing and the JSON Schema are all made from
/// it.
template <class... ItemsT>
struct schema {
    static constexpr std::size_t size = (std::size_t{detail::is_field<ItemsT>} + ... + 0);

    /// How many fields are called `name`.
    static constexpr std::size_t count(std::string_view name) {
        std::size_t found = 0;
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { found += FieldT::name == name ? 1u : 0u; });
        return found;
    }

    /// Whether every name that is used is that of one field.
    static constexpr bool consistent() {
        bool good = true;
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { good = good && count(FieldT::name) == 1; });
        for_each_group([&](auto group) {
            group.for_each_name([&](std::string_view name) { good = good && count(name) == 1; });
        });
        return good;
    }

    /// `action(FieldT{}, index)` for each field, in order.
    static constexpr void for_each_field([[maybe_unused]] auto&& action) {
        [[maybe_unused]] std::size_t index = 0;
        [[maybe_unused]] const auto visit = [&]<class ItemT>(ItemT item) {
            if constexpr (detail::is_field<ItemT>)
                action(item, index++);
        };
        (visit(ItemsT{}), ...);
    }

    /// `action(GroupT{})` for each `at_most_one_of`.
    static constexpr void for_each_group([[maybe_unused]] auto&& action) {
        [[maybe_unused]] const auto visit = [&]<class ItemT>(ItemT item) {
            if constexpr (!detail::is_field<ItemT>)
                action(item);
        };
        (visit(ItemsT{}), ...);
    }
};

namespace detail {

template <class ModelT>
struct checked_schema {
    static_assert(
        requires { ModelT::schema::size; },
        "promptlayer: this type is no model, it has no member type named schema");
    using type = typename ModelT::schema;
    static_assert(type::consistent(), "promptlayer: each name in a schema is that of one field");
};

template <class ModelT>
using schema_of = typename checked_schema<ModelT>::type;

template <class... ItemsT>
constexpr auto make_empty_members(schema<ItemsT...>) {
    [[maybe_unused]] const auto make_empty = []<class ItemT>(ItemT) {
        if constexpr (is_field<ItemT>)
            return std::tuple{ItemT::member_traits::make_empty()};
        else
            return std::tuple<>{};
    };
    return std::tuple_cat(make_empty(ItemsT{})...);
}

/// A model with nothing given yet, for a reader to fill in.
template <class ModelT>
constexpr ModelT make_empty() {
    return std::apply([](auto&&... members) { return ModelT{std::move(members)...}; },
                      make_empty_members(schema_of<ModelT>{}));
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
