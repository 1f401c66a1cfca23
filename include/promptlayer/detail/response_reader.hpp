#ifndef PROMPTLAYER_DETAIL_RESPONSE_READER_HPP
#define PROMPTLAYER_DETAIL_RESPONSE_READER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_text.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/number.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/url.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/detail/walk.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>

#include <promptlayer/detail/push_macros.hpp>

#if defined(PROMPTLAYER_DEFINITIONS)

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// Returns the type of a JSON value by its text.
constexpr json_type type_of(std::string_view value) noexcept {
    switch (value[0]) {
    case 'n': return json_type::null;
    case 't':
    case 'f': return json_type::boolean;
    case '"': return json_type::string;
    case '[': return json_type::array;
    case '{': return json_type::object;
    default: return json_type::number;
    }
}

/// Returns the text of a JSON string; empty for any other value, or if there is none.
inline std::string_view text_of_string(std::string_view value, std::string& buffer) {
    return value.starts_with('"') ? text_of(value.substr(1, value.size() - 2), buffer) : std::string_view{};
}

/// Reads the reply of a response. Reports members that do not match the model to `report`. Stores text
/// without hidden characters and secrets.
class reply_reader {
    const model_info& info_;
    void* reply_;
    std::span<const std::string_view> secrets_;
    violation_collector& report_;
    std::uint64_t given_ = 0; // bit N stands for field N
    struct {
        const char* data;
        std::size_t size;
    } members_[64]; // the JSON text of the fields in `given_`; the last of repeated members

    void store_number(const field_info& field, const member_value& value) {
        check_number(field, value, report_);
        field.store(reply_, value);
    }

    void read_integer(const field_info& field, std::string_view digits) {
        const integer_reading reading = field.functions->read_integer(digits);
        if (!reading.fits)
            report_.add(rule::range, {field.name()}, 0, 0);
        else if (!reading.is_integral)
            report_.add_type({field.name()}, json_type::integer, "a number with a fraction");
        else
            store_number(field, {.integer = reading.value});
    }

    void read_double(const field_info& field, std::string_view digits) {
        const auto value = field.functions->read_number(digits);
        if (!value)
            return report_.add(rule::finite, {field.name()}, 0, 0);
        store_number(field, {.number = *value});
    }

    void store_text(const field_info& field, std::string_view text) {
        if (is_harmless(text, secrets_))
            field.store(reply_, {.text = text});
        else
            field.store(reply_, {.text = shown_text(text, secrets_)});
    }

    void read_entry(const field_info& field, const location& where, std::string_view value) {
        if (type_of(value) != json_type::string)
            return report_.add_type(where, json_type::string, type_name(type_of(value)));
        std::string buffer;
        const std::string_view text = text_of_string(value, buffer);
        check_read_text(field, where.name ? *where.name : text,
                        {where.member, where.name, where.index, where.name != nullptr}, report_);
        const std::string name = where.name ? shown_text(*where.name, secrets_) : std::string{};
        if (!field.insert(reply_, name, shown_text(text, secrets_)))
            report_.add(rule::unique, where, 0, 0); // or the names differ in hidden text only
    }

    void read_member(const field_info& field, std::string_view value) {
        const json_type type = type_of(value);
        if (field.kind == member_kind::any || (type == json_type::null && !field.is_required))
            return;
        if (type == json_type::number && field.kind == member_kind::integer)
            return read_integer(field, value);
        if (type != json_type_of(field.kind))
            return report_.add_type({field.name()}, json_type_of(field.kind), type_name(type));
        std::string buffer;
        switch (field.kind) {
        case member_kind::boolean: field.store(reply_, {.integer = value == "true" ? 1 : 0}); break;
        case member_kind::number: read_double(field, value); break;
        case member_kind::string: {
            const std::string_view text = text_of_string(value, buffer);
            check_read_text(field, text, {field.name()}, report_);
            store_text(field, text);
            break;
        }
        case member_kind::json_object: store_text(field, value); break;
        case member_kind::strings:
            for_each_json_member(value, [&](std::size_t index, std::string_view, std::string_view item) {
                read_entry(field, {.member = field.name(), .index = index}, item);
            });
            break;
        case member_kind::map:
            for_each_json_member(value, [&](std::size_t, std::string_view escaped, std::string_view entry) {
                const std::string_view name = text_of(escaped, buffer);
                read_entry(field, {.member = field.name(), .name = &name}, entry);
            });
            break;
        case member_kind::integer:
        case member_kind::any: break;
        }
    }

    void read_members() {
        for (std::size_t i = 0; i < info_.fields.size(); ++i) {
            const field_info& field = info_.fields[i];
            if (given_ >> i & 1) {
                const std::string_view value{members_[i].data, members_[i].size};
                read_member(field, value);
                if (value == "null")
                    given_ &= ~(std::uint64_t{1} << i);
            } else if (field.is_required) {
                report_.add(rule::required, {field.name()}, 0, 0);
            }
        }
        check_groups(info_, given_, report_);
    }

public:
    reply_reader(const model_info& info, void* reply, std::span<const std::string_view> secrets,
                 violation_collector& report) noexcept
        : info_(info), reply_(reply), secrets_(secrets), report_(report) {}

    /// Reads the body of a response. Returns where and why it is not JSON text, and then reports nothing.
    json_text_check read(std::string_view body) {
        json_text_reader reader{body};
        reader.skip_space();
        const json_type type = reader.p == reader.end ? json_type::null : type_of({reader.p, 1});
        std::string buffer;
        const auto keep_member = [&](std::size_t, std::string_view escaped) {
            std::string_view value;
            const bool is_taken = reader.take_value(max_json_depth - 1, value);
            const std::string_view name = text_of(escaped, buffer);
            for (std::size_t i = 0; i < info_.fields.size(); ++i) {
                if (name == info_.fields[i].name()) {
                    given_ |= std::uint64_t{1} << i;
                    members_[i] = {value.data(), value.size()};
                }
            }
            return is_taken;
        };
        const bool is_json =
            type == json_type::object ? reader.take_members(keep_member) : reader.take_value(max_json_depth);
        if (is_json)
            reader.skip_space();
        const auto offset = static_cast<std::size_t>(reader.p - body.data());
        if (!is_json)
            return {reader.error, offset};
        if (offset != body.size())
            report_.add(rule::trailing_text, {}, 0, offset);
        if (type == json_type::object)
            read_members();
        else
            report_.add_type({}, json_type::object, type_name(type));
        return {};
    }
};

/// The limit on the size of one text of the service in an error, in bytes.
inline constexpr std::size_t max_service_text = 512;

/// The reason that the service gives for a status that is no success.
struct service_message {
    bool is_object = false;              ///< the body is a JSON object
    std::string text{};                  ///< `message`, `error` or `detail`; empty if there is none
    std::vector<violation> violations{}; ///< from FastAPI's list of `loc`, `msg` and `type`
};

/// Returns FastAPI's `loc` as a path: `prompt_input_variables["user"]` for ["body", "prompt_input_variables",
/// "user"].
inline std::string path_of(std::string_view loc, std::span<const std::string_view> secrets) {
    constexpr std::size_t max_steps = 8; // deeper than any request
    std::string path;
    if (!loc.starts_with('['))
        return path;
    std::size_t shown = 0;
    std::string buffer;
    for_each_json_member(loc, [&](std::size_t index, std::string_view, std::string_view step) {
        const std::string_view name = text_of_string(step, buffer);
        if (shown == max_steps || (index == 0 && name == "body"))
            return;
        if (step.starts_with('"')) {
            path += shown == 0 ? "" : "[\"";
            if (step.size() == name.size() + 2 && name.size() <= 64 && ascii_from(' ', name))
                path += name; // nothing to escape or to cut
            else
                path += json_escape(redact(std::string{name}, secrets));
            path += shown == 0 ? "" : "\"]";
        } else if (type_of(step) == json_type::number && step.find_first_of(".eE") == step.npos) {
            path.append("[").append(step).append("]");
        } else {
            return;
        }
        ++shown;
    });
    return path;
}

/// Reads the body of a response that is no success, in one pass: of repeated members, the last counts.
class service_message_reader {
    json_text_reader reader_;
    std::span<const std::string_view> secrets_;
    std::string_view message_{}, error_{}, detail_{}; // as JSON text
    violation_list list_{};
    std::string buffer_{};

    /// Takes an item of `detail`.
    bool take_item() {
        constexpr std::size_t max_depth = max_json_depth - 2; // within the body and the array
        std::string_view msg, type, loc, value;
        const bool is_taken = !reader_.at('{', '{')
                                  ? reader_.take_value(max_depth, msg)
                                  : reader_.take_members([&](std::size_t, std::string_view escaped) {
                                        if (!reader_.take_value(max_depth - 1, value))
                                            return false;
                                        const std::string_view name = text_of(escaped, buffer_);
                                        if (name == "msg")
                                            msg = value;
                                        else if (name == "type")
                                            type = value;
                                        else if (name == "loc")
                                            loc = value;
                                        return true;
                                    });
        if (!is_taken)
            return false;
        std::string_view text = text_of_string(msg, buffer_);
        if (text.empty())
            text = text_of_string(type, buffer_);
        std::string path = path_of(loc, secrets_);
        if (!path.empty() || !text.empty())
            list_.add([&] { return violation{std::move(path), rule::service, 0, 0, std::string{text}}; });
        return true;
    }

    bool take_member(std::string_view escaped) {
        std::string_view unused;
        const std::string_view name = text_of(escaped, buffer_);
        std::string_view& value = name == "message"  ? message_
                                  : name == "error"  ? error_
                                  : name == "detail" ? detail_
                                                     : unused;
        if (&value == &detail_) {
            list_ = {};
            detail_ = {};
            if (reader_.at('[', '['))
                return reader_.take_members([&](std::size_t, std::string_view) { return take_item(); });
        }
        return reader_.take_value(max_json_depth - 1, value);
    }

public:
    service_message_reader(std::string_view body, std::span<const std::string_view> secrets) noexcept
        : reader_(body), secrets_(secrets) {}

    /// Returns the message, with hidden characters and secrets in its violations.
    service_message read() && {
        reader_.skip_space();
        const bool is_object =
            reader_.at('{', '{') &&
            reader_.take_members([&](std::size_t, std::string_view name) { return take_member(name); });
        reader_.skip_space();
        if (!is_object || reader_.p != reader_.end)
            return {};
        service_message message{.is_object = true, .violations = std::move(list_).take()};
        for (std::string_view value : {message_, error_, detail_}) {
            if (value.starts_with('{'))
                value = find_json_member(value, "message");
            message.text = sanitize(text_of_string(value, buffer_), std::string_view::npos);
            if (message.text.find_first_not_of(' ') != message.text.npos)
                return message;
        }
        message.text.clear();
        return message;
    }
};

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#include <promptlayer/detail/pop_macros.hpp>

#endif
