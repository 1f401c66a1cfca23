#ifndef PROMPTLAYER_JSON_HPP
#define PROMPTLAYER_JSON_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/json_reader.hpp>
#include <promptlayer/detail/json_writer.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// The request as the JSON text that is sent: its members in the order of the schema, absent ones and an
/// empty set of variables left out, no spaces. `invalid_request` with every violation if it breaks a rule or
/// exceeds `max_request_bytes`. One pass and, for a request of usual size, one allocation; any thread.
template <class RequestT>
result<std::string> to_json(const RequestT& request,
                            std::size_t max_request_bytes = default_max_request_bytes) {
    std::string text;
    if (auto written = detail::write_json(request, max_request_bytes, text); !written)
        return std::move(written).error();
    return text;
}

/// Reads a request that owns its strings from JSON text, and validates it. `malformed_json` with the byte
/// offset if it cannot be parsed or is nested deeper than 32; else `invalid_request` with every violation: of
/// the schema, an unknown or repeated member, text after the value. A number with an integral value is an
/// integer, as in JSON Schema (`2.0`, `2e3`). Text over `max_request_bytes` is not parsed. Any thread.
template <class RequestT>
result<RequestT> from_json(std::string_view text, std::size_t max_request_bytes = default_max_request_bytes) {
    if (text.size() > max_request_bytes) {
        detail::violation_collector report;
        report.add(rule::max_bytes, {}, max_request_bytes, text.size());
        return detail::invalid(errc::invalid_request, std::move(report.list).take());
    }
    return detail::read_json<RequestT, detail::unknown_members::reject>(text);
}

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
