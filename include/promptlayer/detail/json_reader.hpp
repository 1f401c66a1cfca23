#ifndef PROMPTLAYER_DETAIL_JSON_READER_HPP
#define PROMPTLAYER_DETAIL_JSON_READER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_text.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/number.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/detail/walk.hpp>
#include <promptlayer/error.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#if defined(PROMPTLAYER_DEFINITIONS)
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <boost/json/basic_parser_impl.hpp>
#endif

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Reads JSON into a model with empty members. Returns `malformed_json`, or `invalid_request` with every
/// violation; nullopt if the JSON is valid. `FormatT` is always `void`: a template is compiled only in
/// programs that call it, and this one needs Boost.JSON's parser.
template <class FormatT>
std::optional<error> read_json(std::string_view text, const model_info& info, void* model);

#if defined(PROMPTLAYER_DEFINITIONS)

inline error malformed_json(std::size_t offset, std::string_view reason) {
    error malformed{.code = errc::malformed_json};
    malformed.message.append(message_for(malformed.code)).append(": ").append(reason).append(" at byte ");
    malformed.message += std::to_string(offset);
    malformed.offset = offset;
    return malformed;
}

/// Reads one model from the events of Boost.JSON's parser, which passes on the digits of numbers and repeated
/// members.
template <class FormatT>
class model_reader {
    const model_info& info_;
    void* model_;
    violation_collector report_{};
    std::uint64_t given_ = 0;           // bit N stands for field N
    std::uint64_t null_ = 0;            // the fields of `given_` that are null, in a reply
    std::size_t depth_ = 0;             // of the value being read
    bool is_object_ = false;            // the outermost value
    const field_info* field_ = nullptr; // the member being read; null if its value is ignored
    bool in_entries_ = false;           // within the map or array of `field_`
    std::size_t entry_count_ = 0;       // of `field_`
    std::string name_{};                // of the entry being read
    std::string buffer_{};              // parts of a string or number
    std::size_t member_count_ = 0;      // of the outermost value
    std::vector<std::pair<std::size_t, const field_info*>> json_members_{}; // by position in the text

    void on_member(std::string_view name) {
        field_ = nullptr;
        ++member_count_;
        for (std::size_t i = 0; i < info_.fields.size(); ++i) {
            const field_info& field = info_.fields[i];
            if (field.name() != name)
                continue;
            if (given_ >> i & 1)
                return report_.add(rule::unique, {field.name()}, 0, 0);
            given_ |= std::uint64_t{1} << i;
            field_ = &field;
            return;
        }
        if (info_.is_reply)
            return;
        report_.list.add([&] {
            return violation{name.empty() ? "[\"\"]" : json_escape(name), rule::unknown_member, 0, 0,
                             message_for(rule::unknown_member, 0, 0)};
        });
    }

    void store_number(const member_value& value) {
        check_number(*field_, value, report_);
        field_->store(model_, value);
    }

    void on_integer(std::string_view digits) {
        const integer_reading reading = read_integer(digits);
        if (!reading.is_integral)
            report_.add_type({field_->name()}, json_type::integer, "a number with a fraction");
        else if (!reading.fits)
            report_.add(rule::range, {field_->name()}, 0, 0);
        else
            store_number({.integer = reading.value});
    }

    void on_double(std::string_view digits) {
        if (const auto value = field_->functions->read_number(digits))
            store_number({.number = *value});
        else
            report_.add(rule::finite, {field_->name()}, 0, 0);
    }

    void on_member_value(json_type type, std::string_view text) {
        const member_kind kind = field_->kind;
        const bool is_absent = type == json_type::null && info_.is_reply;
        if (is_absent)
            null_ |= std::uint64_t{1} << (field_ - info_.fields.data());
        if (kind == member_kind::any || (is_absent && !field_->is_required))
            return;
        if (type == json_type::number && kind == member_kind::integer)
            return on_integer(text);
        if (type != json_type_of(kind))
            return report_.add_type({field_->name()}, json_type_of(kind), type_name(type));
        switch (kind) {
        case member_kind::number: return on_double(text);
        case member_kind::string: check_read_text(*field_, text, {field_->name()}, report_); break;
        case member_kind::strings:
        case member_kind::map:
            in_entries_ = true;
            entry_count_ = 0;
            return;
        case member_kind::json_object: json_members_.emplace_back(member_count_ - 1, field_); return;
        case member_kind::boolean:
        case member_kind::integer:
        case member_kind::any: break;
        }
        field_->store(model_, {.integer = text.empty() ? 0 : 1, .text = text});
    }

    void on_entry(json_type type, std::string_view text) {
        location where{field_->name()};
        const std::string_view name = name_;
        if (field_->kind == member_kind::map) {
            where.name = &name;
            where.is_name = true;
            check_read_text(*field_, name, where, report_);
            where.is_name = false;
        } else {
            where.index = entry_count_++;
        }
        if (!field_->insert(model_, name, text))
            report_.add(rule::unique, where, 0, 0);
        if (type != json_type::string)
            report_.add_type(where, json_type::string, type_name(type));
        else if (field_->kind == member_kind::strings)
            check_read_text(*field_, text, where, report_);
    }

    /// A boolean that is true comes with a text that is not empty.
    bool on_value(json_type type, std::string_view text = {}) {
        if (depth_ == 0) {
            is_object_ = type == json_type::object;
            if (!is_object_)
                report_.add_type({}, json_type::object, type_name(type));
        } else if (depth_ == 1 && is_object_ && field_) {
            on_member_value(type, text);
        } else if (depth_ == 2 && in_entries_) {
            on_entry(type, text);
        }
        return true;
    }

    bool append(std::string_view text) {
        buffer_ += text;
        return true;
    }

    /// Returns a name, string or number, of which there may be parts in the buffer.
    std::string_view whole(std::string_view last) {
        if (buffer_.empty())
            return last;
        return buffer_ += last;
    }

    bool on_whole(json_type type, std::string_view last) {
        on_value(type, whole(last));
        buffer_.clear();
        return true;
    }

    bool begin(json_type type) {
        on_value(type);
        ++depth_;
        return true;
    }

    bool end() noexcept {
        if (--depth_ == 1)
            in_entries_ = false;
        return true;
    }

public:
    model_reader(const model_info& info, void* model) noexcept : info_(info), model_(model) {}
    model_reader(const model_reader&) = delete;
    model_reader& operator=(const model_reader&) = delete;

    /// Returns every violation, after `end` bytes of `text` were read.
    std::vector<violation> finish(std::string_view text, std::size_t end) && {
        if (end != text.size())
            report_.add(rule::trailing_text, {}, 0, end);
        if (is_object_) {
            for (std::size_t i = 0; i < info_.fields.size(); ++i) {
                if (info_.fields[i].is_required && (given_ >> i & 1) == 0)
                    report_.add(rule::required, {info_.fields[i].name()}, 0, 0);
            }
            check_groups(info_, given_ & ~null_, report_);
        }
        if (!json_members_.empty()) {
            auto next = json_members_.begin();
            for_each_json_member(text, [&](std::size_t index, std::string_view, std::string_view value) {
                if (next != json_members_.end() && next->first == index)
                    (next++)->second->store(model_, {.text = value});
            });
        }
        return std::move(report_.list).take();
    }

    // The interface of a handler of boost::json::basic_parser.
    using error_code = boost::json::error_code;
    using json_text = boost::json::string_view;

    static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
    static constexpr std::size_t max_array_size = max_object_size;
    static constexpr std::size_t max_key_size = max_object_size;
    static constexpr std::size_t max_string_size = max_object_size;

    bool on_document_begin(error_code&) noexcept { return true; }
    bool on_document_end(error_code&) noexcept { return true; }
    bool on_object_begin(error_code&) { return begin(json_type::object); }
    bool on_object_end(std::size_t, error_code&) noexcept { return end(); }
    bool on_array_begin(error_code&) { return begin(json_type::array); }
    bool on_array_end(std::size_t, error_code&) noexcept { return end(); }
    bool on_key_part(json_text text, std::size_t, error_code&) { return append(text); }
    bool on_key(json_text text, std::size_t, error_code&) {
        if (depth_ == 1 && is_object_)
            on_member(whole(text));
        else if (in_entries_)
            name_ = whole(text);
        buffer_.clear();
        return true;
    }
    bool on_string_part(json_text text, std::size_t, error_code&) { return append(text); }
    bool on_string(json_text text, std::size_t, error_code&) { return on_whole(json_type::string, text); }
    bool on_number_part(json_text text, error_code&) { return append(text); }
    bool on_int64(std::int64_t value, json_text text, error_code&) {
        if (depth_ == 1 && is_object_ && field_ && field_->kind == member_kind::integer) {
            buffer_.clear();
            store_number({.integer = value});
            return true;
        }
        return on_whole(json_type::number, text);
    }
    bool on_uint64(std::uint64_t, json_text text, error_code&) { return on_whole(json_type::number, text); }
    bool on_double(double, json_text text, error_code&) { return on_whole(json_type::number, text); }
    bool on_bool(bool value, error_code&) { return on_value(json_type::boolean, value ? "true" : ""); }
    bool on_null(error_code&) { return on_value(json_type::null); }
    bool on_comment_part(json_text, error_code&) noexcept { return true; }
    bool on_comment(json_text, error_code&) noexcept { return true; }
};

template <class FormatT>
std::optional<error> read_json(std::string_view text, const model_info& info, void* model) {
    boost::json::parse_options options;
    options.max_depth = max_json_depth;
    boost::json::basic_parser<model_reader<FormatT>> parser{options, info, model};
    boost::json::error_code failed;
    const std::size_t end = parser.write_some(false, text.data(), text.size(), failed);
    if (failed)
        return malformed_json(end, failed.message());
    auto violations = std::move(parser.handler()).finish(text, end);
    if (violations.empty())
        return std::nullopt;
    return invalid(errc::invalid_request, std::move(violations));
}

#if defined(PROMPTLAYER_SEPARATE_COMPILATION)
template std::optional<error> read_json<void>(std::string_view, const model_info&, void*);
#endif

#else

extern template std::optional<error> read_json<void>(std::string_view, const model_info&, void*);

#endif

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
