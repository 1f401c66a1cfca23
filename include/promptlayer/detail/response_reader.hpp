#ifndef PROMPTLAYER_DETAIL_RESPONSE_READER_HPP
#define PROMPTLAYER_DETAIL_RESPONSE_READER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_reader.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/number.hpp>
#include <promptlayer/detail/redaction.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/detail/walk.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>

#include <promptlayer/detail/push_macros.hpp>

#if defined(PROMPTLAYER_DEFINITIONS)

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parser.hpp>
#include <boost/json/value.hpp>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

/// The JSON text of a response. Its values live in memory on the stack as long as that is enough.
class json_document {
    unsigned char buffer_[2048];
    boost::json::monotonic_resource memory_{buffer_};
    boost::json::value value_ = boost::json::value(boost::json::storage_ptr(&memory_));
    std::size_t size_ = 0;

public:
    /// Parses `text`; returns `malformed_json` if it does not begin with a JSON value.
    std::optional<error> parse(std::string_view text) {
        boost::json::parse_options options;
        options.max_depth = max_json_depth;
        unsigned char buffer[1024];
        boost::json::parser parser{{}, options, buffer};
        parser.reset(&memory_);
        boost::json::error_code failed;
        size_ = parser.write_some(text.data(), text.size(), failed);
        if (failed)
            return malformed_json(size_, failed.message());
        value_ = parser.release();
        return std::nullopt;
    }

    const boost::json::value& value() const noexcept { return value_; }

    /// Returns how many bytes of the text belong to the value.
    std::size_t size() const noexcept { return size_; }
};

inline json_type type_of(const boost::json::value& value) noexcept {
    switch (value.kind()) {
    case boost::json::kind::null: return json_type::null;
    case boost::json::kind::bool_: return json_type::boolean;
    case boost::json::kind::string: return json_type::string;
    case boost::json::kind::array: return json_type::array;
    case boost::json::kind::object: return json_type::object;
    case boost::json::kind::int64:
    case boost::json::kind::uint64:
    case boost::json::kind::double_: break;
    }
    return json_type::number;
}

/// Reads the reply of a response. Reports members that do not match the model to `report`. Stores text
/// without hidden characters and secrets.
class reply_reader {
    std::string_view body_;
    const model_info& info_;
    void* reply_;
    std::span<const std::string_view> secrets_;
    violation_collector& report_;

    /// Returns the JSON text of a member that `body_` has.
    std::string_view json_text(const field_info& field) const {
        return field.functions->find_member(body_, field.name());
    }

    void store_number(const field_info& field, const member_value& value) {
        check_number(field, value, report_);
        field.store(reply_, value);
    }

    void read_integer(const field_info& field, const boost::json::value& value) {
        // Boost.JSON may have rounded a number with a fraction or an exponent.
        const integer_reading reading = value.is_int64() ? integer_reading{value.get_int64()}
                                                         : field.functions->read_integer(json_text(field));
        if (!reading.fits)
            report_.add(rule::range, {field.name()}, 0, 0);
        else if (!reading.is_integral)
            report_.add_type({field.name()}, json_type::integer, "a number with a fraction");
        else
            store_number(field, {.is_given = true, .integer = reading.value});
    }

    void read_double(const field_info& field) {
        const auto value = field.functions->read_number(json_text(field));
        if (!value)
            return report_.add(rule::finite, {field.name()}, 0, 0);
        store_number(field, {.is_given = true, .number = *value});
    }

    void store_text(const field_info& field, std::string_view text) {
        if (is_harmless(text, secrets_))
            field.store(reply_, {.is_given = true, .text = text});
        else
            field.store(reply_, {.is_given = true, .text = shown_text(text, secrets_)});
    }

    void read_entry(const field_info& field, const location& where, const boost::json::value& value) {
        const auto* const text = value.if_string();
        if (!text)
            return report_.add_type(where, json_type::string, type_name(type_of(value)));
        const std::string_view ruled = where.name ? *where.name : std::string_view{*text};
        check_read_text(field, ruled, {where.member, where.name, where.index, where.name != nullptr},
                        report_);
        const std::string name = where.name ? shown_text(*where.name, secrets_) : std::string{};
        if (!field.insert(reply_, name, shown_text(*text, secrets_)))
            report_.add(rule::unique, where, 0, 0); // the names differ in hidden text only
    }

    void read_member(const field_info& field, const boost::json::value& value) {
        const json_type type = type_of(value);
        if (field.kind == member_kind::any || (type == json_type::null && !field.is_required))
            return;
        if (type == json_type::number && field.kind == member_kind::integer)
            return read_integer(field, value);
        if (type != json_type_of(field.kind))
            return report_.add_type({field.name()}, json_type_of(field.kind), type_name(type));
        switch (field.kind) {
        case member_kind::boolean:
            field.store(reply_, {.is_given = true, .integer = value.get_bool() ? 1 : 0});
            break;
        case member_kind::number: read_double(field); break;
        case member_kind::string: {
            const std::string_view text = value.get_string();
            check_read_text(field, text, {field.name()}, report_);
            store_text(field, text);
            break;
        }
        case member_kind::json_object: store_text(field, json_text(field)); break;
        case member_kind::strings: {
            std::size_t index = 0;
            for (const auto& item : value.get_array())
                read_entry(field, {.member = field.name(), .index = index++}, item);
            break;
        }
        case member_kind::map:
            for (const auto& entry : value.get_object()) {
                const std::string_view name = entry.key();
                read_entry(field, {.member = field.name(), .name = &name}, entry.value());
            }
            break;
        case member_kind::integer:
        case member_kind::any: break;
        }
    }

public:
    reply_reader(std::string_view body, const model_info& info, void* reply,
                 std::span<const std::string_view> secrets, violation_collector& report) noexcept
        : body_(body), info_(info), reply_(reply), secrets_(secrets), report_(report) {}

    void read(const boost::json::value& value) {
        const auto* const object = value.if_object();
        if (!object)
            return report_.add_type({}, json_type::object, type_name(type_of(value)));
        std::uint64_t given = 0;
        for (std::size_t i = 0; i < info_.fields.size(); ++i) {
            const field_info& field = info_.fields[i];
            if (const auto* const member = object->if_contains(field.name())) {
                given |= std::uint64_t{member->is_null() ? 0u : 1u} << i;
                read_member(field, *member);
            } else if (field.is_required) {
                report_.add(rule::required, {field.name()}, 0, 0);
            }
        }
        check_groups(info_, given, report_);
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

/// Returns the text of a string without hidden characters; empty for any other value.
inline std::string text_of(const boost::json::value* value) {
    const auto* const text = value ? value->if_string() : nullptr;
    return text ? sanitize(*text, std::string_view::npos) : std::string{};
}

/// Returns FastAPI's `loc` as a path: `prompt_input_variables["user"]` for ["body", "prompt_input_variables",
/// "user"].
inline std::string path_of(const boost::json::value* loc, std::string_view api_key) {
    constexpr std::size_t max_steps = 8; // deeper than any request
    std::string path;
    const auto* const steps = loc ? loc->if_array() : nullptr;
    if (!steps)
        return path;
    std::size_t shown = 0;
    for (auto step = steps->begin(); step != steps->end() && shown < max_steps; ++step) {
        if (const auto* const name = step->if_string()) {
            if (step == steps->begin() && *name == "body")
                continue;
            const std::string safe = json_escape(redact(std::string{std::string_view{*name}}, api_key));
            path += shown == 0 ? safe : "[\"" + safe + "\"]";
        } else if (step->is_int64()) {
            path += "[" + std::to_string(step->get_int64()) + "]";
        } else {
            continue;
        }
        ++shown;
    }
    return sanitize(path, max_service_text);
}

/// Reads the body of a response that is no success. The API key is in no path, but may be in the texts.
inline service_message read_service_message(std::string_view body, std::string_view api_key) {
    service_message message;
    json_document document;
    if (document.parse(body) || document.size() != body.size())
        return message;
    const auto* const object = document.value().if_object();
    message.is_object = object != nullptr;
    if (!object)
        return message;
    for (const char* const member : {"message", "error", "detail"}) {
        const boost::json::value* value = object->if_contains(member);
        if (value && value->is_object())
            value = value->get_object().if_contains("message");
        message.text = text_of(value);
        if (message.text.find_first_not_of(' ') != message.text.npos)
            break;
        message.text.clear();
    }
    const boost::json::value* const detail = object->if_contains("detail");
    if (!detail || !detail->is_array())
        return message;
    violation_list list;
    for (const boost::json::value& item : detail->get_array()) {
        const auto* const entry = item.if_object();
        const auto find = [&](const char* member) { return entry ? entry->if_contains(member) : nullptr; };
        std::string text = text_of(entry ? find("msg") : &item);
        if (text.empty())
            text = text_of(find("type"));
        std::string path = path_of(find("loc"), api_key);
        if (!path.empty() || !text.empty())
            list.add([&] { return violation{std::move(path), rule::service, 0, 0, std::move(text)}; });
    }
    message.violations = std::move(list).take();
    return message;
}

} // namespace detail
} // namespace promptlayer::inline PROMPTLAYER_ABI

#endif

#include <promptlayer/detail/pop_macros.hpp>

#endif
