#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using pl::testing::recording_async_transport;
using pl::testing::recording_transport;
using test_support::valid_log;
using test_support::valid_request;

namespace {

static_assert(pl::Transport<recording_transport> && !pl::AsyncTransport<recording_transport>);
static_assert(pl::AsyncTransport<recording_async_transport> && !pl::Transport<recording_async_transport>);
static_assert(std::is_nothrow_move_constructible_v<recording_transport>);
static_assert(std::is_nothrow_move_constructible_v<recording_async_transport>);

} // namespace

TEST_CASE("scripted results are returned in order, then every request succeeds") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    client.transport().respond({429, {{"Retry-After", "3"}}, ""});
    client.transport().fail({pl::failure::timeout, "no answer"});
    CHECK(client.track_prompt(valid_request(1)).error().retry_after == std::chrono::seconds{3});
    CHECK(client.track_prompt(valid_request(2)).error().failure == pl::failure::timeout);
    CHECK(client.track_prompt(valid_request(3)).has_value());
    CHECK(client.track_prompt(valid_request(4)).has_value());
    CHECK(client.transport().requests().size() == 4);
}

TEST_CASE("without a script, each endpoint succeeds as the service has it, and logs count from 1") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    CHECK(client.log_request(valid_log())->id == 1);
    CHECK(client.track_prompt(valid_request())->message == "recorded");
    CHECK(client.track_score({.request_id = 1, .score = 0}).has_value());
    CHECK(client.track_metadata({.request_id = 1, .metadata = {{"a", "b"}}}).has_value());
    CHECK(client.track_group({.request_id = 1, .group_id = 1}).has_value());
    CHECK(client.log_request(valid_log())->id == 2);

    pl::client async_client{{.api_key = "pl_key"}, recording_async_transport{}};
    std::vector<std::int64_t> ids;
    for (int i = 0; i < 2; ++i)
        async_client.log_request(
            valid_log(), [&](const pl::result<pl::log_response>& response) { ids.push_back(response->id); });
    CHECK(async_client.transport().complete_all() == 2);
    CHECK(ids == std::vector<std::int64_t>{1, 2});
}

TEST_CASE("requests() returns a copy, in order") {
    pl::client client{{.api_key = "pl_key"}, recording_transport{}};
    (void)client.track_prompt(valid_request(1));
    auto copy = client.transport().requests();
    copy.clear();
    (void)client.track_prompt(valid_request(2));
    const auto requests = client.transport().requests();
    REQUIRE(requests.size() == 2);
    CHECK(requests[0].body == R"({"prompt_name":"a","request_id":1})");
    CHECK(requests[1].body == R"({"prompt_name":"a","request_id":2})");
}

TEST_CASE("a moved recording transport keeps its script and requests") {
    recording_transport first;
    first.respond({404, {}, ""});
    CHECK(first.send(pl::http_request{.url = "u"})->status == 404);
    first.respond({409, {}, ""});
    recording_transport second = std::move(first);
    CHECK(second.requests().size() == 1);
    CHECK(second.send(pl::http_request{})->status == 409);
}

TEST_CASE("an asynchronous recording transport assigns its script in order of completion") {
    pl::client client{{.api_key = "pl_key"}, recording_async_transport{}};
    std::vector<int> statuses;
    const auto append_status = [&](pl::result<pl::track_response> r) {
        statuses.push_back(r ? 200 : r.error().status);
    };
    client.track_prompt(valid_request(1), append_status);
    client.track_prompt(valid_request(2), append_status);
    client.track_prompt(valid_request(3), append_status);
    client.transport().respond({404, {}, ""});
    client.transport().fail({pl::failure::reset, ""});
    CHECK(client.transport().pending() == 3);
    CHECK(client.transport().complete_one());
    CHECK(client.transport().pending() == 2);
    CHECK(client.transport().complete_all() == 2);
    CHECK(statuses == std::vector<int>{404, 0, 200});
    CHECK(client.transport().requests().size() == 3);
}

#ifndef PROMPTLAYER_NO_THREADS
TEST_CASE("several threads may share a recording transport") {
    recording_transport transport;
    recording_async_transport asynchronous;
    std::atomic<int> completed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 100; ++i) {
                transport.respond({404, {}, ""});
                (void)transport.send(pl::http_request{});
                (void)transport.requests();
                asynchronous.send({}, [&](pl::transport_result) { ++completed; });
                asynchronous.complete_one();
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
    asynchronous.complete_all();
    CHECK(transport.requests().size() == 400);
    CHECK(asynchronous.requests().size() == 400);
    CHECK(completed == 400);
}
#endif

TEST_CASE("printing a recording transport redacts the key") {
    pl::client client{{.api_key = "pl_sesame"}, recording_transport{}};
    (void)client.track_prompt(valid_request(1));
    pl::client asynchronous{{.api_key = "pl_sesame"}, recording_async_transport{}};
    asynchronous.track_prompt(valid_request(1), [](pl::result<pl::track_response>) {});
    std::ostringstream out, async_out;
    out << client.transport();
    async_out << asynchronous.transport();
    CHECK(out.str() == "POST https://api.promptlayer.com/rest/track-prompt\n"
                       "X-API-KEY: [redacted]\n"
                       "Content-Type: application/json\n"
                       "Accept: application/json\n"
                       "User-Agent: promptlayer-cpp/0.1.0\n"
                       "\n"
                       "{\"prompt_name\":\"a\",\"request_id\":1}\n\n");
    CHECK(async_out.str() == out.str());
}
