#ifndef PROMPTLAYER_DETAIL_WALK_HPP
#define PROMPTLAYER_DETAIL_WALK_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/schema.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Where a rule is broken: in the whole request, in a member, or in one variable of a set.
struct location {
    std::string_view member{};
    const std::string_view* variable = nullptr; ///< its name
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

    constexpr void visit_variables(std::size_t index, auto&& visit) const {
        schema_of<ModelT>::for_each_field([&]<class FieldT>(FieldT, std::size_t i) {
            if (i == index)
                FieldT::visit_variables(object, visit);
        });
    }
};

/// Reports a string that is not UTF-8.
template <class ReportT>
constexpr void check_utf8(const text_scan& scanned, const location& where, rule broken, ReportT& report) {
    if (!scanned.valid_utf8)
        report.add(broken, where, 0, scanned.invalid_at);
}

/// Checks the rules on the string of one field.
template <class ReportT>
constexpr void check_text(const field_info& field, const text_scan& scanned, ReportT& report) {
    check_utf8(scanned, {field.name()}, rule::utf8, report);
    for (const length_rule& length : field.rules) {
        if (scanned.valid_utf8 && !length.accepts(scanned.code_points))
            report.add(length.rule, {field.name()}, length.limit, scanned.code_points);
    }
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
struct size_counter {
    std::size_t bytes = 0;
    constexpr void put(char) noexcept { ++bytes; }
    constexpr void put(std::string_view json) noexcept { bytes += json.size(); }
    constexpr text_scan put_text(std::string_view text) noexcept {
        const text_scan scanned = scan(text);
        bytes += scanned.json_bytes + 2;
        return scanned;
    }
};

/// Returns the digits of `value`, which are in `buffer`.
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

/// Walks a set of variables. Reports violations to `report` and writes JSON to `out`.
template <class ModelT, class OutputT, class ReportT>
constexpr void walk_variables(const field_info& field, const ModelT& model, std::size_t index, OutputT& out,
                              ReportT& report) {
    std::size_t count = 0;
    model.visit_variables(index, [&](std::string_view name, std::string_view text) {
        const location where{field.name(), &name};
        out.put(count == 0 ? '{' : ',');
        ++count;
        check_utf8(out.put_text(name), where, rule::name_utf8, report);
        out.put(':');
        check_utf8(out.put_text(text), where, rule::utf8, report);
    });
    out.put('}');
    if (field.has_unique_names || count < 2)
        return;
    name_array names{count};
    model.visit_variables(index, [&](std::string_view name, std::string_view) { names.push_back(name); });
    names.for_each_repeat([&](const std::string_view& name) {
        report.add(rule::unique, {field.name(), &name}, 0, 0);
    });
}

/// Checks the rules across members; bit N of `given` says that field N is given.
template <class ReportT>
constexpr void check_groups(const model_info& info, std::uint64_t given, ReportT& report) {
    for (const std::uint64_t group : info.groups) {
        std::uint64_t count = 0;
        for (std::uint64_t members = group & given; members != 0; members &= members - 1)
            ++count;
        if (count > 1)
            report.add_group(info, group, count);
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
        if (field.type == json_type::boolean) {
            out.put(value.integer != 0 ? "true" : "false");
        } else if (field.type == json_type::integer) {
            char buffer[20]{};
            out.put(decimal(value.integer, buffer));
        } else if (field.type == json_type::string) {
            check_text(field, out.put_text(value.text), report);
        } else {
            walk_variables(field, model, i, out, report);
        }
    }
    out.put(given == 0 ? "{}" : "}");
    check_groups(info, given, report);
    if (out.bytes > max_bytes)
        report.add(rule::max_bytes, {}, max_bytes, out.bytes);
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
