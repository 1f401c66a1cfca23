#ifndef PROMPTLAYER_DETAIL_JSON_READER_HPP
#define PROMPTLAYER_DETAIL_JSON_READER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/json/basic_parser_impl.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// What a JSON number is as an integer, decided from its digits.
struct integer_reading {
    std::int64_t value = 0;
    bool integral = true; ///< false: it has a fraction
    bool fits = true;     ///< false: beyond 64 bits signed
};

/// `number` is a number in JSON's grammar: 2, 2.0, -2e3, 0.5.
inline integer_reading read_integer(std::string_view number) noexcept {
    const bool negative = number.front() == '-';
    std::int64_t exponent = 0;
    if (const std::size_t e = number.find_first_of("eE"); e != number.npos) {
        const bool shrinks = number[e + 1] == '-';
        for (const char c : number.substr(e + 1)) { // within 32 bits: the parser calls others malformed
            if (c >= '0' && c <= '9')
                exponent = exponent * 10 + (c - '0');
        }
        exponent = shrinks ? -exponent : exponent;
        number = number.substr(0, e);
    }
    // The value is 0.d1d2d3... times ten to the power of `point`, with d1 and the last digit not zero.
    std::size_t digits = 0;
    std::size_t significant = 0; // digits up to the last that is not zero
    std::int64_t point = exponent;
    std::array<char, 19> kept{};
    bool after_point = false;
    for (const char c : number) {
        if (c == '.')
            after_point = true;
        if (c < '0' || c > '9')
            continue;
        if (c == '0' && digits == 0) {
            point -= after_point ? 1 : 0;
            continue;
        }
        if (digits < kept.size())
            kept[digits] = c;
        ++digits;
        point += after_point ? 0 : 1;
        if (c != '0')
            significant = digits;
    }
    if (digits == 0)
        return {};
    if (point < static_cast<std::int64_t>(significant))
        return {.value = 0, .integral = false};
    if (point > static_cast<std::int64_t>(kept.size()))
        return {.fits = false};
    std::uint64_t magnitude = 0; // at most 19 digits: no overflow
    for (std::size_t i = 0; i < static_cast<std::size_t>(point); ++i)
        magnitude = magnitude * 10 + (i < significant ? static_cast<std::uint64_t>(kept[i] - '0') : 0);
    const std::uint64_t most =
        static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) + (negative ? 1 : 0);
    if (magnitude > most)
        return {.fits = false};
    return {.value = static_cast<std::int64_t>(negative ? 0 - magnitude : magnitude)};
}

inline constexpr std::size_t max_json_depth = 32;

/// What a reader does with members that the schema does not have.
enum class unknown_members { reject, ignore };

/// Reads one model from the events of Boost.JSON's parser, which hands on the digits of numbers and repeated
/// members.
template <class ModelT, unknown_members UnknownV>
class model_reader {
    using schema = schema_of<ModelT>;
    static constexpr std::size_t none = schema::size;

    ModelT model_ = make_empty<ModelT>();
    violation_collector report_{};
    std::array<bool, schema::size> given_{};
    std::size_t depth_ = 0;     // of the value being read
    bool is_object_ = false;    // the outermost value
    std::size_t field_ = none;  // the member being read
    bool in_variables_ = false; // within its object
    std::string name_{};        // of the variable being read
    std::string buffer_{};      // parts of a string or number

    template <class ActionT>
    void on_field(std::size_t wanted, ActionT action) {
        schema::for_each_field([&](auto field, std::size_t index) {
            if (index == wanted)
                action(field);
        });
    }

    void on_member(std::string_view name) {
        field_ = none;
        std::size_t known = none;
        schema::for_each_field([&]<class FieldT>(FieldT, std::size_t index) {
            if (FieldT::name == name)
                known = index;
        });
        if (known == none) {
            if constexpr (UnknownV == unknown_members::reject)
                report_.list.add([&] {
                    return violation{name.empty() ? "[\"\"]" : json_escape(name), rule::unknown_member, 0, 0,
                                     message_for(rule::unknown_member, 0, 0)};
                });
        } else if (given_[known]) {
            on_field(known, [&]<class FieldT>(FieldT) { report_.add(rule::unique, {FieldT::name}, 0, 0); });
        } else {
            given_[known] = true;
            field_ = known;
        }
    }

    template <class FieldT>
    void store(auto value) {
        model_.*FieldT::member = std::move(value);
    }

    template <class FieldT>
    void on_field_value(json_type found, std::string_view text) {
        if constexpr (FieldT::type == json_type::object) {
            if (found == json_type::object) {
                in_variables_ = true;
                return;
            }
        } else if constexpr (FieldT::type == json_type::integer) {
            if (found == json_type::number) {
                const integer_reading number = read_integer(text);
                if (number.integral && number.fits)
                    store<FieldT>(integer{number.value});
                else if (number.integral)
                    report_.add(rule::range, {FieldT::name}, 0, 0);
                else
                    report_.add_type({FieldT::name}, json_type::integer, "a number with a fraction");
                return;
            }
        } else if constexpr (FieldT::type == json_type::boolean) {
            if (found == json_type::boolean)
                return store<FieldT>(!text.empty());
        } else {
            static_assert(!std::is_trivially_destructible_v<typename FieldT::value_type>,
                          "promptlayer: from_json needs a model that owns its strings, such as track_prompt");
            if (found == json_type::string) {
                check_text<FieldT>(scan(text), report_);
                return store<FieldT>(typename FieldT::value_type{text});
            }
        }
        report_.add_type({FieldT::name}, FieldT::type, type_name(found));
    }

    void on_variable(json_type found, std::string_view text) {
        on_field(field_, [&]<class FieldT>(FieldT) {
            if constexpr (FieldT::type == json_type::object) {
                const std::string_view name = name_;
                const location at{FieldT::name, &name};
                static_assert(
                    unique_names<typename FieldT::value_type>,
                    "promptlayer: from_json needs a model that keeps variables in a map of strings");
                if (!(model_.*FieldT::member).emplace(name_, text).second)
                    report_.add(rule::unique, at, 0, 0);
                if (found != json_type::string)
                    report_.add_type(at, json_type::string, type_name(found));
            }
        });
    }

    // A boolean that is true comes with a text that is not empty.
    bool on_value(json_type found, std::string_view text = {}) {
        if (depth_ == 0) {
            is_object_ = found == json_type::object;
            if (!is_object_)
                report_.add_type({}, json_type::object, type_name(found));
        } else if (depth_ == 1 && is_object_) {
            on_field(field_, [&]<class FieldT>(FieldT) { on_field_value<FieldT>(found, text); });
        } else if (depth_ == 2 && in_variables_) {
            on_variable(found, text);
        }
        return true;
    }

    bool part(std::string_view text) {
        buffer_ += text;
        return true;
    }

    /// The end of a string or number; its parts are used up.
    bool whole(json_type found, std::string_view last) {
        if (buffer_.empty())
            return on_value(found, last);
        buffer_ += last;
        on_value(found, buffer_);
        buffer_.clear();
        return true;
    }

    bool begin(json_type found) {
        on_value(found);
        ++depth_;
        return true;
    }

    bool end() {
        if (--depth_ == 1)
            in_variables_ = false;
        return true;
    }

public:
    /// What is known when the text has been read.
    result<ModelT> finish() && {
        if (is_object_) {
            schema::for_each_field([&]<class FieldT>(FieldT, std::size_t index) {
                if (FieldT::required && !given_[index])
                    report_.add(rule::required, {FieldT::name}, 0, 0);
            });
            check_groups<schema>([&](auto, std::size_t index) { return given_[index]; }, report_);
        }
        if (!report_.list.empty())
            return invalid(errc::invalid_request, std::move(report_.list).take());
        return std::move(model_);
    }

    violation_collector& report() noexcept { return report_; }

    // The interface of boost::json::basic_parser's handler.
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
    bool on_key_part(json_text text, std::size_t, error_code&) { return part({text.data(), text.size()}); }
    bool on_key(json_text text, std::size_t, error_code&) {
        part({text.data(), text.size()});
        if (depth_ == 1 && is_object_)
            on_member(buffer_);
        else if (depth_ == 2 && in_variables_)
            name_.swap(buffer_);
        buffer_.clear();
        return true;
    }
    bool on_string_part(json_text text, std::size_t, error_code&) { return part({text.data(), text.size()}); }
    bool on_string(json_text text, std::size_t, error_code&) {
        return whole(json_type::string, {text.data(), text.size()});
    }
    bool on_number_part(json_text text, error_code&) { return part({text.data(), text.size()}); }
    bool on_int64(std::int64_t, json_text text, error_code&) {
        return whole(json_type::number, {text.data(), text.size()});
    }
    bool on_uint64(std::uint64_t, json_text text, error_code&) {
        return whole(json_type::number, {text.data(), text.size()});
    }
    bool on_double(double, json_text text, error_code&) {
        return whole(json_type::number, {text.data(), text.size()});
    }
    bool on_bool(bool value, error_code&) { return on_value(json_type::boolean, value ? "true" : ""); }
    bool on_null(error_code&) { return on_value(json_type::null); }
    bool on_comment_part(json_text, error_code&) noexcept { return true; }
    bool on_comment(json_text, error_code&) noexcept { return true; }
};

/// Reads a model: `malformed_json`, or every violation, with no `secret` in its path.
template <class ModelT, unknown_members UnknownV>
result<ModelT> read_json(std::string_view text, std::string_view secret = {}) {
    boost::json::parse_options options;
    options.max_depth = max_json_depth;
    boost::json::basic_parser<model_reader<ModelT, UnknownV>> parser{options};
    parser.handler().report().secret = secret;
    boost::json::error_code failed;
    const std::size_t end = parser.write_some(false, text.data(), text.size(), failed);
    if (failed)
        return malformed_json(end, failed.message());
    if (end != text.size())
        parser.handler().report().add(rule::trailing_text, {}, 0, end);
    return std::move(parser.handler()).finish();
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
