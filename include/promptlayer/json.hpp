#ifndef PROMPTLAYER_JSON_HPP
#define PROMPTLAYER_JSON_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_reader.hpp>
#include <promptlayer/detail/json_writer.hpp>
#include <promptlayer/detail/model.hpp>
#include <promptlayer/detail/violation_collector.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {
namespace detail {

PROMPTLAYER_DECL error text_too_large(std::size_t max_bytes, std::size_t bytes);

/// Says in one sentence why JSON cannot be read into a model.
template <class ModelT>
consteval bool is_readable() {
    schema_of<ModelT>::for_each_field([]<class FieldT>(FieldT, std::size_t) {
        static_assert(FieldT::has_entries || FieldT::is_owner,
                      "promptlayer: from_json needs a model that owns its strings, such as track_prompt");
        static_assert(FieldT::kind != member_kind::strings || FieldT::is_owner,
                      "promptlayer: from_json needs a model that keeps an array in a vector of strings");
        static_assert(FieldT::kind != member_kind::map ||
                          (FieldT::is_owner && unique_names<typename FieldT::value_type>),
                      "promptlayer: from_json needs a model that keeps variables in a map of strings");
    });
    return true;
}

} // namespace detail

/// Returns the request as the JSON text that is sent: its members in the order of the schema, without those
/// that are absent and without spaces. Returns `invalid_request` with every violation if the request breaks a
/// rule or exceeds `max_request_bytes`. One pass and, for a request of usual size, one allocation; any
/// thread.
template <class RequestT>
result<std::string> to_json(const RequestT& request,
                            std::size_t max_request_bytes = default_max_request_bytes) {
    std::string text;
    if (auto written = detail::write_json(detail::refer_to(request), max_request_bytes, text); !written)
        return std::move(written).error();
    return text;
}

/// Reads a request that owns its strings from JSON text, and validates it. Returns `malformed_json` with the
/// byte offset if the text cannot be parsed or is nested deeper than 32; else `invalid_request` with every
/// violation: of the schema, an unknown or repeated member, text after the value. A number with an integral
/// value is an integer, as in JSON Schema (`2.0`, `2e3`). Text over `max_request_bytes` is not parsed. Any
/// thread.
template <class RequestT>
result<RequestT> from_json(std::string_view text, std::size_t max_request_bytes = default_max_request_bytes) {
    static_assert(detail::is_readable<RequestT>());
    if (text.size() > max_request_bytes)
        return detail::text_too_large(max_request_bytes, text.size());
    RequestT request = detail::make_empty<RequestT>();
    if (auto failed = detail::read_json<void>(text, detail::info<RequestT>(), &request))
        return *std::move(failed);
    return request;
}

#if defined(PROMPTLAYER_DEFINITIONS)

namespace detail {

PROMPTLAYER_DECL error text_too_large(std::size_t max_bytes, std::size_t bytes) {
    violation_collector report;
    report.add(rule::max_bytes, {}, static_cast<std::int64_t>(max_bytes), bytes);
    return invalid(errc::invalid_request, std::move(report.list).take());
}

} // namespace detail

#endif

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
