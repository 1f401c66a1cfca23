#ifndef PROMPTLAYER_TESTING_LOOPBACK_SERVICE_HPP
#define PROMPTLAYER_TESTING_LOOPBACK_SERVICE_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/detail/text.hpp>
#include <promptlayer/error.hpp>
#include <promptlayer/http.hpp>
#include <promptlayer/json.hpp>
#include <promptlayer/testing/scripted_server.hpp>
#include <promptlayer/track_prompt.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <boost/json/serialize.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI::testing {

/// PromptLayer's track-prompt on this machine, for tests. If nothing is scripted, it responds to
/// `POST /rest/track-prompt` as the interface does. It checks these rules in order:
///
/// - 404 for another path
/// - 405 for another method
/// - 401 without the API key
/// - 415 unless the body is declared as JSON
/// - 400 for a body that `from_json` rejects, with the reason in `message`
/// - 200 otherwise
///
/// The body of each of these responses is JSON.
class loopback_service : public scripted_server {
    static scripted_response respond_with(int status, std::string_view message,
                                          std::vector<header> headers = {}) {
        headers.insert(headers.begin(), {"Content-Type", "application/json"});
        scripted_response response;
        response.response = {
            status, std::move(headers),
            boost::json::serialize(boost::json::object{{"success", status == 200}, {"message", message}})};
        return response;
    }

    static bool is_json(const std::string* content_type) {
        const std::string_view type = content_type ? *content_type : std::string_view{};
        return detail::equal_ignoring_case(detail::trim(type.substr(0, type.find(';'))), "application/json");
    }

    static scripted_response response_to(const http_request& request, std::string_view api_key) {
        if (std::string_view{request.url}.substr(0, request.url.find('?')) != track_prompt::path)
            return respond_with(404, "Not Found");
        if (request.method != "POST")
            return respond_with(405, "Method Not Allowed", {{"Allow", "POST"}});
        if (const std::string* const key = find_header(request.headers, "X-API-KEY"); !key || *key != api_key)
            return respond_with(401, "Unauthorized");
        if (!is_json(find_header(request.headers, "Content-Type")))
            return respond_with(415, "Content-Type must be application/json");
        if (const auto parsed = from_json<track_prompt>(request.body); !parsed)
            return respond_with(400, to_string(parsed.error()));
        return respond_with(200, "Prompt tracked successfully");
    }

public:
    /// Serves on 127.0.0.1 and accepts `api_key`. Throws the exceptions of `scripted_server`.
    explicit loopback_service(std::string api_key = "pl_loopback")
        : scripted_server([key = std::move(api_key)](const http_request& request) {
              return response_to(request, key);
          }) {}
};

} // namespace promptlayer::inline PROMPTLAYER_ABI::testing

#include <promptlayer/detail/pop_macros.hpp>

#endif
