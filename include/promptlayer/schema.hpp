#ifndef PROMPTLAYER_SCHEMA_HPP
#define PROMPTLAYER_SCHEMA_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/date_time_text.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <span>
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

/// An arithmetic type of which each value is exact as a double.
template <class T>
concept exact_as_double = any_of<T, double, float> ||(int64_convertible<T> && sizeof(T) <= 4);

/// A type that a member of type `T` accepts: no null pointer for a string, no number for a bool, no value
/// that a double would round.
template <class U, class T>
concept value_of = std::convertible_to<U, T> && !std::same_as<std::remove_cvref_t<U>, std::nullptr_t> &&
                   (!std::same_as<T, bool> || std::same_as<std::remove_cvref_t<U>, bool>)&&(
                       !std::same_as<T, double> || exact_as_double<std::remove_cvref_t<U>>);

/// The type of an element of a range that a list in braces can initialize: no string, and no view, which
/// would refer to the list.
template <class T>
struct element_of {};

template <class T>
requires(!std::convertible_to<T, std::string_view> && !std::is_trivially_destructible_v<T> &&
         std::constructible_from<T, std::initializer_list<typename T::value_type>>) struct element_of<T> {
    using type = typename T::value_type;
};

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

/// JSON text of one object, for a member that the service understands and this library does not. It is
/// checked to be well-formed, and written as it is. Converts from text.
template <class TextT>
class basic_json_object {
    TextT text_{"{}"};

public:
    using text_type = TextT;

    constexpr basic_json_object() = default;
    template <detail::value_of<TextT> U>
    requires(!std::same_as<std::remove_cvref_t<U>, basic_json_object>) constexpr basic_json_object(U&& text)
        : text_(std::forward<U>(text)) {}

    constexpr const TextT& text() const noexcept { return text_; }

    friend bool operator==(const basic_json_object&, const basic_json_object&) = default;
};

using json_object = basic_json_object<std::string>;
using json_object_view = basic_json_object<std::string_view>;

/// A member of a reply that must be there, with any value, null included. The value is not read.
struct any_value {
    friend bool operator==(const any_value&, const any_value&) = default;
};

/// A member that must be given: a request without it does not compile. Converts to `T`. A map or an array is
/// sent also if it is empty, and then needs its type, because `{}` counts as not given.
template <class T>
class required {
    T value_;

public:
    using value_type = T;

    // A template without a constraint, so that the assertion fails only if the member is not given. It is not
    // constexpr, because then a type trait on `required` would be enough to make it fail.
    template <class MissingT = T>
    required() : value_{} {
        constexpr bool has_elements = requires { typename detail::element_of<MissingT>::type; };
        static_assert(has_elements || detail::always_false<MissingT>,
                      "promptlayer: a required member of the request is not given");
        static_assert(
            !has_elements || detail::always_false<MissingT>,
            "promptlayer: a required member of the request is not given; {} counts as not given, so "
            "write an empty map or array with its type, such as "
            "std::map<std::string, std::string, std::less<>>{}");
    }
    template <detail::value_of<T> U>
    requires(!std::same_as<std::remove_cvref_t<U>, required>) constexpr required(U&& value)
        : value_(std::forward<U>(value)) {}
    /// Takes the elements of a map or array in braces.
    template <class RangeT = T>
    constexpr required(std::initializer_list<typename detail::element_of<RangeT>::type> elements)
        : value_(elements) {}

    constexpr T& value() noexcept { return value_; }
    constexpr const T& value() const noexcept { return value_; }
    constexpr operator const T&() const noexcept { return value_; }
    constexpr T& operator*() noexcept { return value_; }
    constexpr const T& operator*() const noexcept { return value_; }
    constexpr T* operator->() noexcept { return &value_; }
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
        return a.value_ == T(b);
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

/// Returns true if JSON writes a name as it is.
consteval bool is_plain_name(std::string_view name) {
    const text_scan scanned = scan(name);
    return scanned.valid_utf8 && scanned.json_bytes == name.size();
}

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
    static constexpr bool required = false;
    static constexpr auto& get(auto& member) noexcept { return member; }
    static constexpr T make_empty() { return T{}; }
};

template <class T>
struct member_traits<promptlayer::required<T>> : member_traits<T> {
    static constexpr bool required = true;
    static constexpr auto& get(auto& member) noexcept { return *member; }
    static constexpr promptlayer::required<T> make_empty() { return T{}; }
};

template <class OptionalT>
struct optional_traits : member_traits<typename OptionalT::value_type> {
    static constexpr bool optional = true;
    static constexpr auto& get(auto& member) noexcept { return *member; }
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

/// A range of strings that are stored in the range: a vector, an array, a span, ...
template <class T>
concept strings = requires(const T& range) {
    requires std::forward_iterator<decltype(std::begin(range))>;
    { std::begin(range) == std::end(range) } -> std::convertible_to<bool>;
    requires std::is_lvalue_reference_v<decltype(*std::begin(range))>;
    requires text<std::remove_cvref_t<decltype(*std::begin(range))>>;
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

/// A type of sequence to which text can be appended.
template <class T>
concept text_owning_list = owns_text<typename T::value_type> && requires(T& list, std::string_view text) {
    list.emplace_back(text);
};

template <class T>
inline constexpr bool is_json_object = false;
template <class TextT>
inline constexpr bool is_json_object<basic_json_object<TextT>> = true;

template <class T>
consteval member_kind kind_of() {
    if constexpr (std::same_as<T, bool>)
        return member_kind::boolean;
    else if constexpr (std::same_as<T, integer>)
        return member_kind::integer;
    else if constexpr (std::same_as<T, double>)
        return member_kind::number;
    else if constexpr (std::same_as<T, any_value>)
        return member_kind::any;
    else if constexpr (is_json_object<T>)
        return member_kind::json_object;
    else if constexpr (text<T> || std::is_enum_v<T>)
        return member_kind::string;
    else if constexpr (variables<T>)
        return member_kind::map;
    else {
        static_assert(strings<T>,
                      "promptlayer: a member of a model is a bool, an integer, a double, a string, an "
                      "enumeration, a json_object, a range of strings, or a range of pairs of strings; put a "
                      "member that may be absent into std::optional");
        return member_kind::strings;
    }
}

constexpr bool is_numeric(member_kind kind) noexcept {
    return kind == member_kind::integer || kind == member_kind::number;
}

template <class MemberPointerT>
struct member_of;

template <class ModelT, class MemberT>
struct member_of<MemberT ModelT::*> {
    using type = MemberT;
};

} // namespace detail

/// A number is at least `N`.
template <std::int64_t N>
struct minimum {
    static constexpr detail::field_rule data{promptlayer::rule::minimum, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(detail::is_numeric(KindV), "promptlayer: minimum is a rule on integers and doubles");
    }
};

/// A number is at most `N`.
template <std::int64_t N>
struct maximum {
    static constexpr detail::field_rule data{promptlayer::rule::maximum, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(detail::is_numeric(KindV), "promptlayer: maximum is a rule on integers and doubles");
    }
};

/// A number is more than `N`.
template <std::int64_t N>
struct exclusive_minimum {
    static constexpr detail::field_rule data{promptlayer::rule::exclusive_minimum, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(detail::is_numeric(KindV),
                      "promptlayer: exclusive_minimum is a rule on integers and doubles");
    }
};

/// A string has at least `N` code points.
template <std::size_t N>
struct min_length {
    static constexpr detail::field_rule data{promptlayer::rule::min_length, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string, "promptlayer: min_length is a rule on strings");
    }
};

/// A string has at most `N` code points.
template <std::size_t N>
struct max_length {
    static constexpr detail::field_rule data{promptlayer::rule::max_length, N};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string, "promptlayer: max_length is a rule on strings");
    }
};

/// A string is one of these. A member may also be an enumeration: the enumerator with value 0 has the first
/// name, and so on.
template <detail::fixed_string... NamesV>
struct one_of {
    static constexpr std::array<std::string_view, sizeof...(NamesV)> names{std::string_view{NamesV}...};
    static constexpr detail::field_rule data{promptlayer::rule::one_of, 0, names};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string,
                      "promptlayer: one_of is a rule on strings and enumerations");
        static_assert(((!std::string_view{NamesV}.empty() && detail::is_plain_name(NamesV)) && ...),
                      "promptlayer: the names in one_of must not be empty or need escapes in JSON");
    }
};

/// A string is a date and time of RFC 3339, such as `2024-01-15T10:30:00Z`. See `date_time`.
struct date_time_format {
    static constexpr detail::field_rule data{promptlayer::rule::date_time, 0, {}, detail::is_date_time};
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::string,
                      "promptlayer: date_time_format is a rule on strings");
    }
};

/// A rule on each item of an array of strings.
template <class RuleT>
struct items {
    static constexpr detail::field_rule data = RuleT::data;
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::strings,
                      "promptlayer: items is a rule on arrays of strings");
        RuleT::template check_kind<detail::member_kind::string>();
    }
};

/// A rule on each name in a map.
template <class RuleT>
struct property_names {
    static constexpr detail::field_rule data = RuleT::data;
    template <detail::member_kind KindV>
    static constexpr void check_kind() {
        static_assert(KindV == detail::member_kind::map, "promptlayer: property_names is a rule on maps");
        RuleT::template check_kind<detail::member_kind::string>();
    }
};

/// Declares a member of a model: its name in JSON, the member, the rules on its value. An optional, an array
/// and a map may be absent; any other type is required in JSON. With `required<T>` the compiler checks that
/// as well.
template <detail::fixed_string NameV, auto MemberV, class... RulesT>
struct field {
    using member_type = typename detail::member_of<decltype(MemberV)>::type;
    using member_traits = detail::member_traits<member_type>;
    using value_type = typename member_traits::type;

    static constexpr std::string_view name = NameV;
    static constexpr auto key = detail::json_key(NameV);
    static constexpr auto member = MemberV;
    static constexpr detail::member_kind kind = detail::kind_of<value_type>();
    static constexpr bool has_entries =
        kind == detail::member_kind::strings || kind == detail::member_kind::map;
    static constexpr std::array<detail::field_rule, sizeof...(RulesT)> rules{RulesT::data...};

    static_assert((RulesT::template check_kind<kind>(), ..., true));
    static_assert(!has_entries || !member_traits::optional,
                  "promptlayer: an array or map is a plain member of a model, absent when it is empty, or a "
                  "required one");
    static_assert(detail::is_plain_name(name),
                  "promptlayer: the name of a member must not need escapes in JSON");

    /// Returns the names of an enumeration.
    static constexpr std::span<const std::string_view> wire_names() noexcept {
        for (const detail::field_rule& rule : rules) {
            if (rule.rule == promptlayer::rule::one_of)
                return rule.names;
        }
        return {};
    }
    static_assert(!std::is_enum_v<value_type> || !wire_names().empty(),
                  "promptlayer: an enumeration needs one_of with its names in JSON");

    /// Returns the value of the member. Of an array or map, returns only whether it is given. The text of an
    /// enumerator without a name is empty.
    static constexpr detail::member_value load(const auto& model) noexcept {
        const member_type& stored = model.*MemberV;
        if constexpr (kind == detail::member_kind::any) {
            return {};
        } else if constexpr (has_entries) {
            const value_type& entries = member_traits::get(stored);
            return {.is_given = member_traits::required || !(std::begin(entries) == std::end(entries))};
        } else {
            if constexpr (member_traits::optional) {
                if (!stored.has_value())
                    return {};
            }
            const value_type& value = member_traits::get(stored);
            if constexpr (std::is_enum_v<value_type>) {
                const auto index = static_cast<std::size_t>(value);
                return {.is_given = true, .text = index < wire_names().size() ? wire_names()[index] : ""};
            } else if constexpr (kind == detail::member_kind::string)
                return {.is_given = true, .text = value};
            else if constexpr (kind == detail::member_kind::json_object)
                return {.is_given = true, .text = value.text()};
            else if constexpr (kind == detail::member_kind::number)
                return {.is_given = true, .number = value};
            else
                return {.is_given = true, .integer = value};
        }
    }

    /// Calls `visit(name, text)` for each entry of a map or array; an item of an array has no name.
    template <class VisitT>
    static constexpr void visit_entries(const auto& model, VisitT&& visit) {
        if constexpr (kind == detail::member_kind::map) {
            for (const auto& entry : member_traits::get(model.*MemberV))
                visit(std::string_view{entry.first}, std::string_view{entry.second});
        } else if constexpr (kind == detail::member_kind::strings) {
            for (const auto& item : member_traits::get(model.*MemberV))
                visit(std::string_view{}, std::string_view{item});
        }
    }

    /// True if a value from JSON can be stored in the member, which then owns its text.
    static constexpr bool is_owner = [] {
        if constexpr (kind == detail::member_kind::map)
            return detail::text_owning_map<value_type>;
        else if constexpr (kind == detail::member_kind::strings)
            return detail::text_owning_list<value_type>;
        else if constexpr (kind == detail::member_kind::json_object)
            return detail::owns_text<typename value_type::text_type>;
        else if constexpr (kind == detail::member_kind::string && !std::is_enum_v<value_type>)
            return detail::owns_text<value_type> && std::is_assignable_v<member_type&, value_type>;
        else
            return std::is_assignable_v<member_type&, value_type>;
    }();

    /// Describes the member for code that does not depend on the type of the model.
    template <class ModelT>
    static constexpr detail::field_info info() {
        detail::field_info info{.key = {key.data(), key.size()},
                                .kind = kind,
                                .is_required =
                                    !member_traits::optional && (!has_entries || member_traits::required),
                                .has_unique_names = detail::unique_names<value_type>,
                                .rules = rules};
        if constexpr (kind == detail::member_kind::number || kind == detail::member_kind::json_object ||
                      (kind == detail::member_kind::integer && !requires { ModelT::path; }))
            info.functions = &detail::all_field_functions;
        info.load = [](const void* model) { return load(*static_cast<const ModelT*>(model)); };
        if constexpr (has_entries) {
            info.visit_entries = [](const void* model, detail::entry_visitor visitor) {
                visit_entries(*static_cast<const ModelT*>(model),
                              [&](std::string_view entry, std::string_view text) {
                                  visitor.call(visitor.context, entry, text);
                              });
            };
            if constexpr (is_owner)
                info.insert = [](void* model, [[maybe_unused]] std::string_view entry,
                                 std::string_view text) {
                    value_type& entries = member_traits::get(static_cast<ModelT*>(model)->*MemberV);
                    if constexpr (requires { entries.emplace_hint(entries.end(), entry, text); }) {
                        const std::size_t count = entries.size();
                        entries.emplace_hint(entries.end(), entry, text); // names are often in order
                        return entries.size() != count;
                    } else if constexpr (kind == detail::member_kind::map)
                        return entries.emplace(entry, text).second;
                    else
                        return entries.emplace_back(text), true;
                };
        } else if constexpr (is_owner) {
            info.store = []([[maybe_unused]] void* model,
                            [[maybe_unused]] const detail::member_value& value) {
                [[maybe_unused]] member_type& stored = static_cast<ModelT*>(model)->*MemberV;
                if constexpr (std::is_enum_v<value_type>) {
                    for (std::size_t i = 0; i < wire_names().size(); ++i) {
                        if (wire_names()[i] == value.text) // else no enumerator has the name
                            stored = static_cast<value_type>(i);
                    }
                } else if constexpr (kind == detail::member_kind::string)
                    stored = value_type{value.text};
                else if constexpr (kind == detail::member_kind::json_object)
                    stored = value_type{typename value_type::text_type{value.text}};
                else if constexpr (kind == detail::member_kind::boolean)
                    stored = value.integer != 0;
                else if constexpr (kind == detail::member_kind::integer)
                    stored = integer{value.integer};
                else if constexpr (kind == detail::member_kind::number)
                    stored = value.number;
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
    static constexpr bool is_reply = false;
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
        for_each_field([&]<class FieldT>(FieldT, std::size_t) { count += FieldT::name == name ? 1U : 0U; });
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

/// Declares the JSON of a reply. Unlike that of a request, it may have members that the schema does not name,
/// and null for an optional, an array or a map.
template <class... ItemsT>
struct reply_schema : schema<ItemsT...> {
    static constexpr bool is_reply = true;
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
inline constexpr model_info info_in_constant_expressions{field_table<ModelT>, group_table<ModelT>,
                                                         schema_of<ModelT>::is_reply};

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
