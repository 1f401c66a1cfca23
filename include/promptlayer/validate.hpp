#ifndef PROMPTLAYER_VALIDATE_HPP
#define PROMPTLAYER_VALIDATE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/detail/walk.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <utility>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The default limit on the size of a body, in bytes.
inline constexpr std::size_t default_max_request_bytes = 8 * 1024 * 1024;

namespace detail {

PROMPTLAYER_DECL std::vector<violation> validate_any(model_reference model, std::size_t max_bytes);
PROMPTLAYER_DECL bool is_valid_at_run_time(model_reference model, std::size_t max_bytes);

/// A report for `is_valid`.
struct violation_flag {
    bool is_set = false;
    constexpr void add(rule, const location&, std::int64_t, std::uint64_t) noexcept { is_set = true; }
    constexpr void add_one_of(const location&, std::span<const std::string_view>) noexcept { is_set = true; }
    constexpr void add_group(const model_info&, std::uint64_t, std::uint64_t) noexcept { is_set = true; }
};

// Not constexpr, but called in a constant expression: the compiler names the function and the member.
template <auto MemberV>
void too_few_characters() {}
template <auto MemberV>
void too_many_characters() {}
template <auto MemberV>
void less_than_minimum() {}
template <auto MemberV>
void more_than_maximum() {}
template <auto MemberV>
void not_finite() {}
template <auto MemberV>
void none_of_its_values() {}
template <auto MemberV>
void no_date_time() {}
template <auto MemberV>
void no_json_object() {}
template <auto MemberV>
void json_object_too_deep() {}
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
    constexpr void add_one_of(const location& where, std::span<const std::string_view>) const {
        add(rule::one_of, where, 0, 0);
    }

    constexpr void add(rule broken, const location& where, std::int64_t, std::uint64_t) const {
        if (broken == rule::max_bytes)
            body_too_large();
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t) {
            constexpr auto member = FieldT::member;
            if (FieldT::name != where.member)
                return;
            if (broken == rule::minimum || broken == rule::exclusive_minimum)
                less_than_minimum<member>();
            if (broken == rule::maximum)
                more_than_maximum<member>();
            if (broken == rule::finite)
                not_finite<member>();
            if (broken == rule::one_of)
                none_of_its_values<member>();
            if (broken == rule::date_time)
                no_date_time<member>();
            if (broken == rule::json_object)
                no_json_object<member>();
            if (broken == rule::max_depth)
                json_object_too_deep<member>();
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

    constexpr void add_group(const model_info&, std::uint64_t group, std::uint64_t) const {
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t index) {
            constexpr auto member = FieldT::member;
            if (group >> index & 1)
                given_together_with_another_of_its_group<member>();
        });
    }
};

} // namespace detail

/// Returns every rule that `request` breaks: the first 64, then one `rule::omitted` that counts the others;
/// empty if the request is valid. A body over `max_request_bytes` breaks a rule as well. Reads the text once;
/// any thread.
template <class RequestT>
[[nodiscard]] std::vector<violation> validate(const RequestT& request,
                                              std::size_t max_request_bytes = default_max_request_bytes) {
    return detail::validate_any(detail::refer_to(request), max_request_bytes);
}

/// Returns true if `validate` returns nothing; works in constant expressions, where each double counts as
/// 24 bytes, the size of the longest.
template <class RequestT>
[[nodiscard]] constexpr bool is_valid(const RequestT& request,
                                      std::size_t max_request_bytes = default_max_request_bytes) {
    if (!std::is_constant_evaluated())
        return detail::is_valid_at_run_time(detail::refer_to(request), max_request_bytes);
    detail::size_counter size;
    detail::violation_flag report;
    detail::walk(detail::info_in_constant_expressions<RequestT>, detail::typed_reference<RequestT>{request},
                 max_request_bytes, size, report);
    return !report.is_set;
}

/// Returns true if a request is valid; else it does not compile. Use it in `static_assert`: unlike
/// `is_valid`, it makes the compiler name the first broken rule and its member, for example
/// `too_many_characters<&...::label>`.
template <class RequestT>
[[nodiscard]] consteval bool require_valid(const RequestT& request,
                                           std::size_t max_request_bytes = default_max_request_bytes) {
    detail::size_counter size;
    detail::compile_time_report<RequestT> report;
    detail::walk(detail::info_in_constant_expressions<RequestT>, detail::typed_reference<RequestT>{request},
                 max_request_bytes, size, report);
    return true;
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL std::vector<violation> validate_any(model_reference model, std::size_t max_bytes) {
    size_counter size;
    violation_collector report;
    walk(model.info, model, max_bytes, size, report);
    return std::move(report.list).take();
}

PROMPTLAYER_DECL bool is_valid_at_run_time(model_reference model, std::size_t max_bytes) {
    size_counter size;
    violation_flag report;
    walk(model.info, model, max_bytes, size, report);
    return !report.is_set;
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
