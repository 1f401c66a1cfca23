#ifndef PROMPTLAYER_DETAIL_JSON_WRITER_HPP
#define PROMPTLAYER_DETAIL_JSON_WRITER_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/result.hpp>
#include <promptlayer/schema.hpp>
#include <promptlayer/validate.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/json/serializer.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// An output that writes JSON, up to `max_bytes`; what is beyond is measured only.
class json_writer {
    std::string& out_;
    std::size_t max_bytes_;

public:
    std::size_t bytes = 0;

    json_writer(std::string& out, std::size_t max_bytes) noexcept : out_(out), max_bytes_(max_bytes) {}

    void put(std::string_view raw) {
        bytes += raw.size();
        if (bytes <= max_bytes_)
            out_ += raw;
    }

    void put_text(std::string_view text, const text_scan& scanned) {
        bytes += scanned.json_bytes + 2;
        if (bytes > max_bytes_ || !scanned.valid_utf8)
            return;
        if (scanned.json_bytes == text.size()) {
            out_.push_back('"');
            out_.append(text);
            out_.push_back('"');
            return;
        }
        const std::size_t from = out_.size();
        out_.resize(from + scanned.json_bytes + 2);
        boost::json::serializer serializer;
        serializer.reset(boost::json::string_view{text.data(), text.size()});
        serializer.read(out_.data() + from, out_.size() - from);
    }
};

/// Validates and writes in one pass; `out` is replaced, its memory used again. On an error it holds nothing
/// of use. No path of a violation shows `secret`.
template <class RequestT>
result<void> write_json(const RequestT& request, std::size_t max_bytes, std::string& out,
                        std::string_view secret = {}) {
    out.clear();
    if (out.capacity() < 512) // else some standard libraries shrink it
        out.reserve(512);     // a body of usual size in one allocation
    json_writer writer{out, max_bytes};
    violation_collector report;
    report.secret = secret;
    detail::walk(request, max_bytes, writer, report);
    if (report.list.empty())
        return {};
    return invalid(errc::invalid_request, std::move(report.list).take());
}

} // namespace detail

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
