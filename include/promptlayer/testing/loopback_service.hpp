#ifndef PROMPTLAYER_TESTING_LOOPBACK_SERVICE_HPP
#define PROMPTLAYER_TESTING_LOOPBACK_SERVICE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/log_request.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/track_group.hpp>
#include <promptlayer/track_metadata.hpp>
#include <promptlayer/track_prompt.hpp>
#include <promptlayer/track_score.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/json/serialize.hpp>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI::testing {

/// PromptLayer's tracking on this machine, for tests. If nothing is scripted, it responds to a POST of
/// `track_prompt`, `track_score`, `track_metadata`, `track_group` and `log_request` as the interface does. It
/// checks these rules in order:
///
/// - 404 for another path
/// - 405 for another method
/// - 401 without the API key
/// - 415 unless the body is declared as JSON
/// - 400 for a body that `from_json` rejects, with the reason in `message`
/// - 201 for a log, with the next id from 1
/// - 200 otherwise
///
/// The body of each of these responses is JSON.
class loopback_service : public scripted_server {
    static scripted_response respond_with(int status, const boost::json::object& body,
                                          std::vector<header> headers = {}) {
        headers.insert(headers.begin(), {"Content-Type", "application/json"});
        scripted_response response;
        response.response = {status, std::move(headers), boost::json::serialize(body)};
        return response;
    }

    static scripted_response respond_with(int status, std::string_view message,
                                          std::vector<header> headers = {}) {
        return respond_with(status, {{"success", status == 200}, {"message", message}}, std::move(headers));
    }

    static bool is_json(const std::string* content_type) {
        const std::string_view type = content_type ? *content_type : std::string_view{};
        return detail::equal_ignoring_case(detail::trim(type.substr(0, type.find(';'))), "application/json");
    }

    /// Why a body is not valid; nullopt if it is.
    using body_check = std::optional<error> (*)(std::string_view body);

    template <class RequestT>
    static std::optional<error> check_body(std::string_view body) {
        auto request = from_json<RequestT>(body);
        return request ? std::nullopt : std::optional{std::move(request).error()};
    }

    static body_check check_of(std::string_view path) {
        return path == track_prompt::path     ? check_body<track_prompt>
               : path == track_score::path    ? check_body<track_score>
               : path == track_metadata::path ? check_body<track_metadata>
               : path == track_group::path    ? check_body<track_group>
               : path == log_request::path    ? check_body<log_request>
                                              : nullptr;
    }

    static scripted_response response_to(const http_request& request, std::string_view api_key,
                                         std::atomic<int>& log_count) {
        const auto path = std::string_view{request.url}.substr(0, request.url.find('?'));
        const body_check check = check_of(path);
        if (!check)
            return respond_with(404, "Not Found");
        if (request.method != "POST")
            return respond_with(405, "Method Not Allowed", {{"Allow", "POST"}});
        if (const std::string* const key = find_header(request.headers, "X-API-KEY"); !key || *key != api_key)
            return respond_with(401, "Unauthorized");
        if (!is_json(find_header(request.headers, "Content-Type")))
            return respond_with(415, "Content-Type must be application/json");
        if (const auto failed = check(request.body))
            return respond_with(400, to_string(*failed));
        if (path == log_request::path)
            return respond_with(201, {{"id", ++log_count}, {"prompt_version", nullptr}});
        return respond_with(200, path == track_prompt::path ? "Prompt tracked successfully"
                                                            : "Tracked successfully");
    }

public:
    /// Serves on 127.0.0.1 and accepts `api_key`. Throws the exceptions of `scripted_server`.
    explicit loopback_service(std::string api_key = "pl_loopback")
        : scripted_server([key = std::move(api_key),
                           log_count = std::make_shared<std::atomic<int>>(0)](const http_request& request) {
              return response_to(request, key, *log_count);
          }) {}
};

} // namespace promptlayer::inline PROMPTLAYER_ABI::testing

#include <promptlayer/detail/pop_macros.hpp>

#endif
