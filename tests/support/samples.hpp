#ifndef PROMPTLAYER_TESTS_SAMPLES_HPP
#define PROMPTLAYER_TESTS_SAMPLES_HPP

// Requests, responses and errors that several tests use.

#include <promptlayer.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace test_support {

inline promptlayer::track_prompt valid_request(std::int64_t id = 1) {
    return {.prompt_name = "a", .request_id = id};
}

inline promptlayer::log_request valid_log() {
    return {.provider = "p",
            .model = "m",
            .input = promptlayer::chat_prompt({{promptlayer::role::user, "Hello"}}),
            .output = promptlayer::chat_prompt({{promptlayer::role::assistant, "Hi"}}),
            .request_start_time = "2024-01-15T10:30:00Z",
            .request_end_time = "2024-01-15T10:30:01.5Z"};
}

/// Returns a response that reports success if `status` is 200.
inline promptlayer::http_response status_response(int status) {
    return {status, {}, R"({"success":true,"message":"tracked"})"};
}

inline promptlayer::error status_error(int status,
                                       promptlayer::errc code = promptlayer::errc::unexpected_status,
                                       std::optional<std::chrono::seconds> retry_after = {}) {
    promptlayer::error error{.code = code, .status = status};
    error.retry_after = retry_after;
    return error;
}

inline promptlayer::error transport_error(promptlayer::failure kind, bool maybe_delivered = false) {
    promptlayer::error error{.code = promptlayer::errc::transport};
    error.failure = kind;
    error.maybe_delivered = maybe_delivered;
    return error;
}

inline std::string repeat(std::size_t count, std::string_view text) {
    std::string all;
    for (; count != 0; --count)
        all += text;
    return all;
}

} // namespace test_support

#endif
