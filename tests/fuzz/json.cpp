// JSON of every request: `from_json`, `to_json`, `validate` and `is_valid` agree with each other and with
// Boost.JSON, and a view of a request is written like the request.
//
// An input is a letter for the request, `r` for JSON text or `b` for values of members, and the text or
// values.

#include "fuzz.hpp"

#include <promptlayer/json.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/track_group.hpp>
#include <promptlayer/track_metadata.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/track_score.hpp>

#include <boost/json.hpp>

#include <bit>
#include <cmath>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

namespace json = boost::json;
namespace pl = promptlayer;
using fuzz::require;

template <class T>
concept has_presence = requires(const T& member) {
    member.has_value();
};
template <class T>
concept has_value = requires(const T& member) {
    member.value();
};
template <class T>
concept has_text = requires(const T& member) {
    member.text();
};
template <class T>
concept has_names = requires {
    typename T::mapped_type;
};

/// Sets a member to any value.
template <class T>
void fill(T& member, fuzz::input& in) {
    if constexpr (has_presence<T>) {
        if (in.flag())
            fill(member.emplace(), in);
    } else if constexpr (has_value<T>) {
        fill(member.value(), in);
    } else if constexpr (has_text<T>) {
        member = std::string{in.line()};
    } else if constexpr (has_names<T>) {
        for (auto count = in.up_to(3); count != 0; --count)
            member.emplace(in.line(), in.line());
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        for (auto count = in.up_to(3); count != 0; --count)
            member.emplace_back(in.line());
    } else if constexpr (std::is_same_v<T, std::string>) {
        member = in.line();
    } else if constexpr (std::is_enum_v<T>) {
        member = static_cast<T>(in.up_to(15));
    } else {
        const std::uint64_t bits = in.up_to(in.flag() ? 127 : ~std::uint64_t{0});
        if constexpr (std::is_same_v<T, double>)
            member = bits < 128 ? static_cast<double>(bits) / 8 : std::bit_cast<double>(bits);
        else
            member = static_cast<std::int64_t>(bits);
    }
}

/// Makes a member of a view refer to the member of a request.
class referrer {
    std::vector<std::pair<std::string_view, std::string_view>> pairs_{};
    std::vector<std::string_view> items_{};

    template <class FromT, class ToT>
    void refer(const FromT& from, ToT& to) {
        if constexpr (std::is_same_v<FromT, ToT> || std::is_same_v<FromT, std::string>)
            to = from;
        else if constexpr (has_presence<FromT>) {
            if (from)
                refer(*from, to.emplace());
        } else if constexpr (has_value<FromT>)
            refer(from.value(), to.value());
        else if constexpr (has_text<FromT>)
            to = std::string_view{from.text()};
        else if constexpr (has_names<FromT>) {
            pairs_.assign(from.begin(), from.end());
            to = pairs_;
        } else {
            items_.assign(from.begin(), from.end());
            to = items_;
        }
    }

public:
    template <class ViewT, class RequestT>
    ViewT view_of(const RequestT& request) {
        auto view = pl::detail::make_empty<ViewT>();
        RequestT::schema::for_each_field([&]<class FromT>(FromT, std::size_t) {
            ViewT::schema::for_each_field([&]<class ToT>(ToT, std::size_t) {
                if constexpr (FromT::name == ToT::name)
                    refer(request.*FromT::member, view.*ToT::member);
            });
        });
        return view;
    }
};

/// Requires that a JSON value, null if it is absent, is that of a member.
template <class T>
void require_same(const json::value* value, const T& member) {
    constexpr const char* same = "Boost.JSON reads the values of the members";
    if constexpr (has_presence<T>) {
        require((value != nullptr) == member.has_value(), same);
        if (member)
            require_same(value, *member);
    } else if constexpr (has_value<T>) {
        require(value != nullptr, same);
        require_same(value, member.value());
    } else if constexpr (has_text<T>) {
        require(json::serialize(*value) == json::serialize(json::parse(std::string{member.text()})), same);
    } else if constexpr (has_names<T>) {
        require((value ? value->as_object().size() : 0) == member.size(), same);
        for (const auto& [name, text] : member)
            require(value->at(name).as_string() == text, same);
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        require((value ? value->as_array().size() : 0) == member.size(), same);
        for (std::size_t i = 0; i < member.size(); ++i)
            require(value->at(i).as_string() == member[i], same);
    } else if constexpr (std::is_same_v<T, std::string>) {
        require(value->as_string() == member, same);
    } else if constexpr (std::is_enum_v<T>) {
        require(value->is_string(), same);
    } else if (!std::is_same_v<T, double> && value->is_int64()) {
        require(value->as_int64() == static_cast<std::int64_t>(member), same);
    } else { // Boost.JSON 1.81 does not round a double exactly, and reads 0e400 as no number
        const auto read = value->to_number<double>(), written = static_cast<double>(member);
        require(std::isnan(read) || std::abs(read - written) <= std::abs(written) * 1e-13 + 1e-300, same);
    }
}

template <class RequestT>
void check_values(std::string_view text, const RequestT& request) {
    const json::value parsed = json::parse(json::string_view{text.data(), text.size()});
    RequestT::schema::for_each_field([&]<class FieldT>(FieldT, std::size_t) {
        require_same(parsed.as_object().if_contains(FieldT::name), request.*FieldT::member);
    });
}

/// Requires that every member of a text that was read has a name of the model, and cannot be given twice.
template <class RequestT>
void check_members(const std::string& text) {
    const json::value parsed = json::parse(text);
    for (const auto& [name, value] : parsed.as_object()) {
        bool is_known = false;
        RequestT::schema::for_each_field(
            [&, key = std::string_view{name}]<class FieldT>(FieldT, std::size_t) {
                is_known = is_known || FieldT::name == key;
            });
        require(is_known, "from_json reads no unknown member");
        std::string twice = text;
        twice.insert(text.find('{') + 1, json::serialize(name) + ":" + json::serialize(value) + ",");
        require(!pl::from_json<RequestT>(twice), "from_json reads no member twice");
    }
}

/// Returns true if a text is UTF-8 of `least` to `most` code points.
bool has_length(std::string_view text, std::size_t least, std::size_t most) {
    std::size_t count = 0;
    for (; !text.empty(); ++count) {
        const auto [value, size] = fuzz::decode(text);
        if (!value)
            return false;
        text.remove_prefix(size);
    }
    return count >= least && count <= most;
}

constexpr std::size_t any = std::string_view::npos;

bool is_utf8(const auto& map) {
    return std::all_of(map.begin(), map.end(), [](const auto& entry) {
        return has_length(entry.first, 0, any) && has_length(entry.second, 0, any);
    });
}

/// Returns true if a request keeps its rules; nullopt if there are others, too.
std::optional<bool> keeps_rules(const pl::track_prompt& request) {
    return has_length(*request.prompt_name, 1, any) && is_utf8(request.prompt_input_variables) &&
           !(request.version && request.label) && (!request.label || has_length(*request.label, 1, 512));
}
std::optional<bool> keeps_rules(const pl::track_score& request) {
    return *request.score >= 0 && *request.score <= 100 &&
           (!request.name || has_length(*request.name, 0, any));
}
std::optional<bool> keeps_rules(const pl::track_metadata& request) { return is_utf8(*request.metadata); }
std::optional<bool> keeps_rules(const pl::track_group&) { return true; }
std::optional<bool> keeps_rules(const pl::log_request& request) {
    bool keeps = is_utf8(request.metadata) &&
                 (!request.price || (*request.price >= 0 && std::isfinite(*request.price))) &&
                 (!request.error_message || has_length(*request.error_message, 0, 1024)) &&
                 (!request.prompt_version_number || *request.prompt_version_number > 0) &&
                 (!request.score || (*request.score >= 0 && *request.score <= 100));
    for (const auto& entry : request.metadata)
        keeps = keeps && has_length(entry.first, 0, 1024);
    for (const std::string& tag : request.tags)
        keeps = keeps && has_length(tag, 0, 512);
    for (const auto& tokens : {request.input_tokens, request.output_tokens})
        keeps = keeps && (!tokens || *tokens >= 0);
    return keeps ? std::nullopt : std::optional{false};
}

void check_error(const pl::error& failed) {
    require(failed.violations.size() <= 65 && failed.message.size() < 65 * 2048, "an error is bounded");
    fuzz::require_harmless(to_string(failed));
    for (const pl::violation& broken : failed.violations)
        fuzz::require_harmless(to_string(broken));
}

/// Checks a request of any values. Returns its JSON, empty if it breaks a rule.
template <class RequestT, class ViewT>
std::string check_request(const RequestT& request) {
    referrer references;
    const auto view = references.view_of<ViewT>(request);
    const auto violations = pl::validate(request);
    const auto keeps = keeps_rules(request);
    require(keeps.value_or(violations.empty()) == violations.empty(),
            "a request is valid if it keeps the rules");
    const auto written = pl::to_json(request), written_view = pl::to_json(view);
    require(written.has_value() == violations.empty(), "to_json fails if validate reports something");
    require(pl::is_valid(request) == violations.empty(), "is_valid and validate agree");
    require(pl::validate(view) == violations && pl::is_valid(view) == violations.empty(),
            "a view breaks the same rules");
    require(written_view.has_value() == written.has_value(), "a view can be written if the request can");
    if (!written) {
        require(written.error().violations == violations, "to_json reports what validate reports");
        check_error(written.error());
        return {};
    }
    require(*written_view == *written, "a view is written like the request");
    check_values(*written, request);
    const std::size_t size = written->size();
    require(pl::to_json(request, size) && pl::is_valid(request, size) && pl::validate(request, size).empty(),
            "a request of the largest size is valid");
    require(!pl::to_json(request, size - 1) && !pl::is_valid(request, size - 1) &&
                pl::validate(request, size - 1).size() == 1,
            "a request over the largest size breaks a rule");
    return *written;
}

template <class RequestT, class ViewT = RequestT>
void check(fuzz::input& in) {
    std::string text;
    if (in.take(1) == "r") {
        text = in.rest();
    } else {
        auto request = pl::detail::make_empty<RequestT>();
        RequestT::schema::for_each_field(
            [&]<class FieldT>(FieldT, std::size_t) { fill(request.*FieldT::member, in); });
        text = check_request<RequestT, ViewT>(request);
        if (text.empty())
            return;
        require(pl::from_json<RequestT>(text).has_value(), "from_json reads what to_json writes");
    }
    const auto read = pl::from_json<RequestT>(text);
    boost::system::error_code failed;
    json::parse(text, failed);
    if (!read) {
        const bool is_malformed = read.error().code == pl::errc::malformed_json;
        require(is_malformed == (failed && failed != json::error::extra_data),
                "what is not JSON is malformed");
        require(!is_malformed || read.error().offset <= text.size(), "an error is within the text");
        require(is_malformed != !read.error().violations.empty(),
                "a request that is not valid breaks a rule");
        return check_error(read.error());
    }
    require(!failed, "what from_json reads is JSON");
    check_values(text, *read);
    check_members<RequestT>(text);
    const std::string written = check_request<RequestT, ViewT>(*read);
    const auto again = pl::from_json<RequestT>(written);
    require(again && *again == *read, "from_json reads the request that to_json has written");
    require(pl::to_json(*again).value() == written, "to_json writes the same bytes again");
}

/// Checks how a number is read.
void check_number(std::string_view text) {
    boost::system::error_code failed;
    const json::value parsed = json::parse(json::string_view{text.data(), text.size()}, failed);
    if (failed || !parsed.is_number() || text.find_first_of(" \t\r\n") != text.npos)
        return;
    const double value = std::strtod(std::string{text}.c_str(), nullptr);
    const auto number = pl::detail::read_number(text);
    require(number.has_value() == std::isfinite(value), "a number is finite if strtod has it so");
    require(!number || std::bit_cast<std::uint64_t>(*number) == std::bit_cast<std::uint64_t>(value),
            "a number is the double that strtod reads");
    for (const auto write : {&pl::detail::write_number, &pl::detail::write_number_by_printf}) {
        char buffer[pl::detail::max_number_size];
        require(!number || std::strtod(std::string{write(value, buffer)}.c_str(), nullptr) == value,
                "a double is written so that it can be read again");
    }
    const auto integer = pl::detail::read_integer(text);
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const bool is_zero = text.substr(0, text.find_first_of("eE")).find_first_of("123456789") == text.npos;
    if (const auto* const exact = parsed.if_int64())
        require(integer.is_integral && integer.fits && integer.value == *exact, "an integer is exact");
    else if (parsed.is_uint64())
        require(integer.is_integral && !integer.fits, "an integer over 64 bits signed is out of range");
    else if (std::abs(value) < 1e15 && std::count_if(text.begin(), text.end(), is_digit) < 15)
        require(integer.is_integral == (is_zero || (value != 0 && value == std::trunc(value))) &&
                    (!integer.is_integral || static_cast<double>(integer.value) == value),
                "a number with an integral value is an integer");
    else if (std::abs(value) > 1e19 && integer.is_integral)
        require(!integer.fits, "a large number is out of range");
}

/// Checks the variables of a view, which may repeat a name.
void check_names(fuzz::input& in) {
    std::vector<std::pair<std::string_view, std::string_view>> pairs;
    std::map<std::string_view, int> counts;
    while (!in.empty()) {
        pairs.emplace_back(in.line(), "");
        ++counts[pairs.back().first];
    }
    const auto violations = pl::validate(pl::track_metadata_view{.request_id = 1, .metadata = pairs});
    const auto repeats = std::count_if(violations.begin(), violations.end(), [](const pl::violation& broken) {
        return broken.rule == pl::rule::unique || broken.rule == pl::rule::omitted;
    });
    require((repeats != 0) == (counts.size() != pairs.size()) || violations.size() == 65,
            "a repeated name is found");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::input in{data, size};
    const std::string_view letter = in.take(1);
    if (letter == "p")
        check<pl::track_prompt, pl::track_prompt_view>(in);
    else if (letter == "s")
        check<pl::track_score, pl::track_score_view>(in);
    else if (letter == "m")
        check<pl::track_metadata, pl::track_metadata_view>(in);
    else if (letter == "g")
        check<pl::track_group>(in);
    else if (letter == "l")
        check<pl::log_request, pl::log_request_view>(in);
    else if (letter == "n")
        check_number(in.rest());
    else if (letter == "v")
        check_names(in);
    return 0;
}
