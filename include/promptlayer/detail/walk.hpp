#ifndef PROMPTLAYER_DETAIL_WALK_HPP
#define PROMPTLAYER_DETAIL_WALK_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_text.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/number.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// How deep objects and arrays may nest in a body. The body itself counts.
inline constexpr std::size_t max_json_depth = 32;

/// Where a rule is broken: in the whole request, in a member, or in one entry of a map or array.
struct location {
    static constexpr std::size_t no_index = static_cast<std::size_t>(-1);

    std::string_view member{};
    const std::string_view* name = nullptr; ///< of an entry of a map
    std::size_t index = no_index;           ///< of an item of an array
    bool is_name = false;                   ///< the rule is one on `name`
};

/// A model of known type, to be read in constant expressions.
template <class ModelT>
struct typed_reference {
    const ModelT& object;

    constexpr member_value load(std::size_t index) const {
        member_value value;
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t i) {
            if (i == index)
                value = FieldT::load(object);
        });
        return value;
    }

    constexpr void visit_entries(std::size_t index, auto&& visit) const {
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t i) {
            if (i == index)
                FieldT::visit_entries(object, visit);
        });
    }
};

/// Checks that a string is UTF-8.
template <class ReportT>
constexpr bool check_utf8(const text_scan& scanned, const location& where, ReportT& report) {
    if (!scanned.valid_utf8)
        report.add(where.is_name ? rule::name_utf8 : rule::utf8, where, 0, scanned.invalid_at);
    return scanned.valid_utf8;
}

/// Checks that a string is UTF-8, and the rules on it.
template <class ReportT>
constexpr void check_text(const field_info& field, std::string_view text, const text_scan& scanned,
                          const location& where, ReportT& report) {
    if (!check_utf8(scanned, where, report))
        return;
    for (const field_rule& limit : field.rules) {
        if (!limit.accepts_length(scanned.code_points))
            report.add(limit.rule, where, limit.limit, scanned.code_points);
        else if (limit.rule == rule::one_of && !limit.lists(text))
            report.add_one_of(where, limit.names);
        else if (limit.rule == rule::date_time && !limit.accepts(text))
            report.add(rule::date_time, where, 0, 0);
    }
}

/// Returns false if `check_text` would find nothing.
constexpr bool has_to_check(const field_info& field, const text_scan& scanned) noexcept {
    return !field.rules.empty() || !scanned.valid_utf8;
}

/// Checks the rules on a string that a JSON parser has read, which is UTF-8.
template <class ReportT>
constexpr void check_read_text(const field_info& field, std::string_view text, const location& where,
                               ReportT& report) {
    if (!field.rules.empty())
        check_text(field, text, scan(text), where, report);
}

/// Checks the rules on an integer or a finite double.
template <class ReportT>
constexpr void check_number(const field_info& field, const member_value& value, ReportT& report) {
    for (const field_rule& limit : field.rules) {
        if (!limit.accepts_number(value, field.kind == member_kind::number))
            report.add(limit.rule, {field.name()}, limit.limit, 0);
    }
}

/// Checks that `text` is one JSON object that may be a member of a body.
template <class ReportT>
constexpr void check_object(const field_info& field, std::string_view text, ReportT& report) {
    constexpr std::size_t max_depth = max_json_depth - 1;
    const json_text_check checked = field.functions->check_object(text, max_depth);
    if (checked.error == json_text_error::max_depth)
        report.add(rule::max_depth, {field.name()}, max_depth, checked.offset);
    else if (checked.error != json_text_error::none)
        report.add(checked.error == json_text_error::utf8 ? rule::utf8 : rule::json_object, {field.name()}, 0,
                   checked.offset);
}

/// Names in an array that works in constant expressions, unlike `std::vector` in some standard libraries.
class name_array {
    std::string_view* names_;
    std::size_t size_ = 0;

public:
    constexpr explicit name_array(std::size_t capacity) : names_(new std::string_view[capacity]) {}
    name_array(const name_array&) = delete;
    name_array& operator=(const name_array&) = delete;
    constexpr ~name_array() { delete[] names_; }

    constexpr void push_back(std::string_view name) { names_[size_++] = name; }

    /// Calls `action` for each name that repeats an earlier name. Costs n log n.
    template <class ActionT>
    constexpr void for_each_repeat(ActionT&& action) {
        sort();
        for (std::size_t i = 1; i < size_; ++i) {
            if (names_[i] == names_[i - 1])
                action(names_[i]);
        }
    }

private:
    constexpr void swap(std::size_t i, std::size_t j) noexcept {
        const std::string_view name = names_[i];
        names_[i] = names_[j];
        names_[j] = name;
    }

    /// Moves the name at `root` down until no name below it is greater.
    constexpr void sift_down(std::size_t root, std::size_t end) noexcept {
        for (std::size_t child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && names_[child] < names_[child + 1])
                ++child;
            if (!(names_[root] < names_[child]))
                return;
            swap(root, child);
        }
    }

    /// Sorts by heapsort, without <algorithm>, which is slow to compile.
    constexpr void sort() noexcept {
        for (std::size_t root = size_ / 2; root-- > 0;)
            sift_down(root, size_);
        for (std::size_t end = size_; end-- > 1;) {
            swap(0, end);
            sift_down(0, end);
        }
    }
};

/// Counts the bytes of JSON.
class size_counter {
    std::size_t size_ = 0;

public:
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr void put(char) noexcept { ++size_; }
    constexpr void put(std::string_view json) noexcept { size_ += json.size(); }
    constexpr void put_integer(std::int64_t value) noexcept {
        size_ += value < 0 ? 1 : 0;
        do
            ++size_;
        while ((value /= 10) != 0);
    }
    constexpr text_scan put_text(std::string_view text) noexcept {
        const text_scan scanned = scan(text);
        size_ += scanned.json_bytes + 2;
        return scanned;
    }
};

/// Walks a map or an array. Reports violations to `report` and writes JSON to `out`.
template <class ModelT, class OutputT, class ReportT>
constexpr void walk_entries(const field_info& field, const ModelT& model, std::size_t index, OutputT& out,
                            ReportT& report) {
    const bool is_map = field.kind == member_kind::map;
    std::size_t count = 0;
    out.put(is_map ? '{' : '[');
    model.visit_entries(index, [&](std::string_view name, std::string_view text) {
        if (count != 0)
            out.put(',');
        if (is_map) {
            const text_scan scanned = out.put_text(name);
            if (has_to_check(field, scanned)) [[unlikely]]
                check_text(field, name, scanned, {field.name(), &name, location::no_index, true}, report);
            out.put(':');
        }
        const text_scan scanned = out.put_text(text);
        if (!is_map && has_to_check(field, scanned)) [[unlikely]]
            check_text(field, text, scanned, {field.name(), nullptr, count}, report);
        else if (!scanned.valid_utf8) [[unlikely]]
            check_utf8(scanned, {field.name(), &name}, report);
        ++count;
    });
    out.put(is_map ? '}' : ']');
    if (!is_map || field.has_unique_names || count < 2)
        return;
    name_array names{count};
    model.visit_entries(index, [&](std::string_view name, std::string_view) { names.push_back(name); });
    names.for_each_repeat([&](const std::string_view& name) {
        report.add(rule::unique, {field.name(), &name}, 0, 0);
    });
}

/// Writes a finite double. In a constant expression, where only the size counts, writes as many bytes as the
/// longest double has.
template <class OutputT>
constexpr void put_number(const field_info& field, double value, OutputT& out) {
    char buffer[max_number_size]{};
    if (std::is_constant_evaluated())
        out.put({buffer, sizeof buffer});
    else
        out.put(field.functions->write_number(value, buffer));
}

/// Checks the rules across members; bit N of `given` says that field N is given.
template <class ReportT>
constexpr void check_groups(const model_info& info, std::uint64_t given, ReportT& report) {
    for (const std::uint64_t group : info.groups) {
        const int count = std::popcount(group & given);
        if (count > 1)
            report.add_group(info, group, static_cast<std::uint64_t>(count));
    }
}

/// Walks a model once, in the order of its schema. Reports violations to `report` and writes JSON to `out`.
template <class ModelT, class OutputT, class ReportT>
constexpr void walk(const model_info& info, const ModelT& model, std::size_t max_bytes, OutputT& out,
                    ReportT& report) {
    std::uint64_t given = 0;
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
        const field_info& field = info.fields[i];
        const member_value value = model.load(i);
        if (!value.is_given)
            continue;
        out.put(given == 0 ? '{' : ',');
        given |= std::uint64_t{1} << i;
        out.put(field.key);
        switch (field.kind) {
        case member_kind::boolean: out.put(value.integer != 0 ? "true" : "false"); break;
        case member_kind::integer:
            out.put_integer(value.integer);
            check_number(field, value, report);
            break;
        case member_kind::number:
            if (!is_finite(value.number)) {
                report.add(rule::finite, {field.name()}, 0, 0);
                break;
            }
            put_number(field, value.number, out);
            check_number(field, value, report);
            break;
        case member_kind::string:
            check_text(field, value.text, out.put_text(value.text), {field.name()}, report);
            break;
        case member_kind::json_object:
            check_object(field, value.text, report);
            out.put(value.text);
            break;
        case member_kind::strings:
        case member_kind::map: walk_entries(field, model, i, out, report); break;
        case member_kind::any: break; // is never given
        }
    }
    out.put(given == 0 ? "{}" : "}");
    check_groups(info, given, report);
    if (out.size() > max_bytes)
        report.add(rule::max_bytes, {}, static_cast<std::int64_t>(max_bytes), out.size());
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
