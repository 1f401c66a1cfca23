#ifndef PROMPTLAYER_VALIDATE_HPP
#define PROMPTLAYER_VALIDATE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The largest body, in bytes, that is written or read where nothing else is asked for.
inline constexpr std::size_t default_max_request_bytes = 8 * 1024 * 1024;

namespace detail {

/// Where in a request a rule is broken: nowhere, a member, or a name in a member's set of variables.
struct location {
    std::string_view member{};
    const std::string_view* name = nullptr;
};

/// `secret` is taken out before a name is cut, so that no part of it is left.
inline std::string path_of(const location& at, std::string_view secret) {
    std::string path{at.member};
    if (at.name)
        path.append("[\"").append(json_escape(redact(std::string{*at.name}, secret))).append("\"]");
    return redact(std::move(path), secret); // escapes and what stands around the name may form it
}

/// A report for `is_valid`: is anything wrong?
struct violation_flag {
    bool found = false;
    constexpr void add(rule, const location&, std::uint64_t, std::uint64_t) noexcept { found = true; }
    constexpr void add_group(auto, std::uint64_t) noexcept { found = true; }
};

// Called in a constant expression, where they may not be: the compiler says their names and the member.
template <auto MemberV>
void too_few_characters() {}
template <auto MemberV>
void too_many_characters() {}
template <auto MemberV>
void not_utf8() {}
template <auto MemberV>
void name_not_utf8() {}
template <auto MemberV>
void name_given_more_than_once() {}
template <auto MemberV>
void given_together_with_another_of_its_group() {}
inline void body_too_large() {}

/// A report for `require_valid`: the first violation ends the constant expression.
template <class ModelT>
struct compile_time_report {
    constexpr void add(rule broken, const location& at, std::uint64_t, std::uint64_t) const {
        if (broken == rule::max_bytes)
            body_too_large();
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t) {
            constexpr auto member = FieldT::member;
            if (FieldT::name != at.member)
                return;
            if (broken == rule::min_length)
                too_few_characters<member>();
            if (broken == rule::max_length)
                too_many_characters<member>();
            if (broken == rule::utf8)
                not_utf8<member>();
            if (broken == rule::name_utf8)
                name_not_utf8<member>();
            if (broken == rule::unique)
                name_given_more_than_once<member>();
        });
    }
    template <class GroupT>
    constexpr void add_group(GroupT group, std::uint64_t) const {
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t) {
            constexpr auto member = FieldT::member;
            if (group.names(FieldT::name))
                given_together_with_another_of_its_group<member>();
        });
    }
};

/// A report for people: every violation in words.
struct violation_collector {
    violation_list list{};
    std::string_view secret{}; ///< shown in no path

    void add(rule broken, const location& at, std::uint64_t limit, std::uint64_t actual) {
        list.add([&] {
            return violation{path_of(at, secret), broken, limit, actual, message_for(broken, limit, actual)};
        });
    }
    void add_type(const location& at, json_type expected, const char* found) {
        list.add([&] { return wrong_type(path_of(at, secret), expected, found); });
    }
    template <class GroupT>
    void add_group(GroupT group, std::uint64_t given) {
        std::string names;
        group.for_each_name([&](std::string_view name) { (names += names.empty() ? "" : ", ") += name; });
        list.add([&] {
            return violation{"", rule::at_most_one_of, 1, given, "only one of " + names + " may be given"};
        });
    }
};

template <class ReportT>
constexpr bool check_utf8(const text_scan& scanned, const location& at, rule broken, ReportT& report) {
    if (!scanned.valid_utf8)
        report.add(broken, at, 0, scanned.invalid_at);
    return scanned.valid_utf8;
}

/// The rules on the string of one field.
template <class FieldT, class ReportT>
constexpr void check_text(const text_scan& scanned, ReportT& report) {
    const location at{FieldT::name};
    if (!check_utf8(scanned, at, rule::utf8, report))
        return;
    FieldT::for_each_rule([&](auto the) {
        if (!the.holds(scanned.code_points))
            report.add(the.rule, at, the.limit, scanned.code_points);
    });
}

/// The rules across fields; `given(FieldT{})` says whether a field is given.
template <class SchemaT, class ReportT>
constexpr void check_groups(auto&& given, ReportT& report) {
    SchemaT::for_each_group([&]<class GroupT>(GroupT group) {
        std::uint64_t count = 0;
        SchemaT::for_each_field([&]<class FieldT>(FieldT field, std::size_t index) {
            count += GroupT::names(FieldT::name) && given(field, index) ? 1u : 0u;
        });
        if (count > 1)
            report.add_group(group, count);
    });
}

/// Reports repeats among `count` names, in n log n.
template <class ReportT>
constexpr void check_sorted(std::string_view* names, std::size_t count, std::string_view member,
                            ReportT& report) {
    std::sort(names, names + count);
    for (std::size_t i = 1; i < count; ++i) {
        if (names[i] == names[i - 1])
            report.add(rule::unique, {member, &names[i]}, 0, 0);
    }
}

template <class ReportT>
void check_unique_at_run_time(const auto& variables, std::string_view member, ReportT& report) {
    std::vector<std::string_view> names;
    for (const auto& variable : variables)
        names.push_back(variable.first);
    check_sorted(names.data(), names.size(), member, report);
}

/// Reports names that are given more than once. Not every standard library has a vector in constant
/// expressions.
template <class ReportT>
constexpr void check_unique(const auto& variables, std::string_view member, ReportT& report) {
    if (!std::is_constant_evaluated())
        return check_unique_at_run_time(variables, member, report);
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& variable : variables)
        ++count;
    std::string_view* const names = new std::string_view[count];
    std::size_t next = 0;
    for (const auto& variable : variables)
        names[next++] = variable.first;
    check_sorted(names, count, member, report);
    delete[] names;
}

/// The digits of `value`, in `buffer`.
constexpr std::string_view decimal(std::int64_t value, char (&buffer)[20]) noexcept {
    char* first = buffer + sizeof buffer;
    auto rest = value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
    do
        *--first = static_cast<char>('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--first = '-';
    return {first, static_cast<std::size_t>(buffer + sizeof buffer - first)};
}

/// An output that only measures.
struct size_counter {
    std::size_t bytes = 0;
    constexpr void put(std::string_view raw) noexcept { bytes += raw.size(); }
    constexpr void put_text(std::string_view, const text_scan& scanned) noexcept {
        bytes += scanned.json_bytes + 2;
    }
};

template <class FieldT, class OutputT, class ReportT>
constexpr void walk_variables(const auto& variables, OutputT& out, ReportT& report) {
    char separator = '{';
    for (const auto& variable : variables) {
        const std::string_view name = variable.first;
        const std::string_view text = variable.second;
        const text_scan scanned_name = scan(name);
        const text_scan scanned = scan(text);
        const location at{FieldT::name, &name};
        check_utf8(scanned_name, at, rule::name_utf8, report);
        check_utf8(scanned, at, rule::utf8, report);
        out.put({&separator, 1});
        separator = ',';
        out.put_text(name, scanned_name);
        out.put(":");
        out.put_text(text, scanned);
    }
    out.put("}");
    if constexpr (!unique_names<typename FieldT::value_type>)
        check_unique(variables, FieldT::name, report);
}

/// Walks a model once, in the order of its schema: what it breaks goes to `report`, its JSON to `out`.
template <class ModelT, class OutputT, class ReportT>
constexpr void walk(const ModelT& model, std::size_t max_bytes, OutputT& out, ReportT& report) {
    using schema = schema_of<ModelT>;
    char separator = '{';
    schema::for_each_field([&]<class FieldT>(FieldT field, std::size_t) {
        if (!field.present(model))
            return;
        out.put({&separator, 1});
        separator = ',';
        out.put({FieldT::key.data(), FieldT::key.size()});
        const auto& value = field.value(model);
        if constexpr (FieldT::type == json_type::boolean) {
            out.put(value ? "true" : "false");
        } else if constexpr (FieldT::type == json_type::integer) {
            char buffer[20]{};
            out.put(decimal(value, buffer));
        } else if constexpr (FieldT::type == json_type::string) {
            const std::string_view text = value;
            const text_scan scanned = scan(text);
            check_text<FieldT>(scanned, report);
            out.put_text(text, scanned);
        } else {
            detail::walk_variables<FieldT>(value, out, report);
        }
    });
    out.put(separator == '{' ? "{}" : "}");
    check_groups<schema>([&](auto field, std::size_t) { return field.present(model); }, report);
    if (out.bytes > max_bytes)
        report.add(rule::max_bytes, {}, max_bytes, out.bytes);
}

} // namespace detail

/// Every rule that `request` breaks: the first 64, then one `rule::omitted` that counts the rest; empty if it
/// is valid. A body over `max_request_bytes` when written as JSON breaks one too. One pass over the text; any
/// thread.
template <class RequestT>
[[nodiscard]] std::vector<violation> validate(const RequestT& request,
                                              std::size_t max_request_bytes = default_max_request_bytes) {
    detail::size_counter size;
    detail::violation_collector report;
    detail::walk(request, max_request_bytes, size, report);
    return std::move(report.list).take();
}

/// Whether `validate` finds nothing; works in constant expressions.
template <class RequestT>
[[nodiscard]] constexpr bool is_valid(const RequestT& request,
                                      std::size_t max_request_bytes = default_max_request_bytes) {
    detail::size_counter size;
    detail::violation_flag report;
    detail::walk(request, max_request_bytes, size, report);
    return !report.found;
}

/// For `static_assert`, where `is_valid` would only say that it is false. Returns true; for a request that is
/// not valid the compiler names the first member that breaks a rule, and the rule, as a function that it may
/// not call: `too_many_characters<&...::label>`.
template <class RequestT>
[[nodiscard]] consteval bool require_valid(const RequestT& request,
                                           std::size_t max_request_bytes = default_max_request_bytes) {
    detail::size_counter size;
    detail::compile_time_report<RequestT> report;
    detail::walk(request, max_request_bytes, size, report);
    return true;
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
