// Measures validating and writing a body beside Boost.JSON, which only writes it. One run times both, so that
// the ratio of two rows is meaningful on a busy machine.

#include <promptlayer.hpp>

#include <boost/json.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace {

std::string repeated(std::string_view text, std::size_t bytes) {
    std::string all;
    while (all.size() < bytes)
        all += text;
    return all;
}

constexpr std::size_t large = 100 * 1024;

promptlayer::track_prompt request(std::string_view kind) {
    if (kind == "small")
        return {
            .prompt_name = "support-response",
            .prompt_input_variables = {{"user_message", "My order has not arrived, what can I do?"},
                                       {"customer", "Zo\xC3\xAB Weber"},
                                       {"language", "en"},
                                       {"history", "She said \"wait a week\" and we waited for two of them."},
                                       {"product", "A lamp for the desk, with a cable of two metres"}},
            .request_id = 1234567890123,
            .label = "production"};
    std::string text;
    if (kind == "ascii")
        text = repeated("The quick brown fox jumps over the lazy dog. ", large);
    else if (kind == "latin")
        text = repeated("Gr\xC3\xBC\xC3\x9F Gott, d\xC3\xA9j\xC3\xA0 vu: \xC3\xBC"
                        "ber den Fl\xC3\xBCssen. ",
                        large);
    else if (kind == "cjk")
        text = repeated("\xE6\xBC\xA2\xE5\xAD\x97\xE3\x81\x8B\xE3\x81\xAA\xE4\xBA\xA4\xE3\x81\x98\xE3\x82\x8A"
                        "\xF0\x9F\x98\x80",
                        large);
    else
        text = repeated("\"a\\b\n", large);
    return {.prompt_name = "a", .prompt_input_variables = {{"text", std::move(text)}}, .request_id = 1};
}

boost::json::value dom(const promptlayer::track_prompt& request) {
    boost::json::object variables;
    for (const auto& [name, text] : request.prompt_input_variables)
        variables.emplace(name, text);
    boost::json::object body{{"prompt_name", request.prompt_name.value()},
                             {"prompt_input_variables", std::move(variables)},
                             {"request_id", static_cast<std::int64_t>(request.request_id.value())}};
    if (request.label)
        body.emplace("label", *request.label);
    return body;
}

void write_body(benchmark::State& state, const char* kind) {
    const promptlayer::track_prompt model = request(kind);
    for (auto _ : state)
        benchmark::DoNotOptimize(promptlayer::to_json(model));
    state.SetBytesProcessed(state.iterations() *
                            static_cast<std::int64_t>(promptlayer::to_json(model).value().size()));
}

void boost_json(benchmark::State& state, const char* kind) {
    const promptlayer::track_prompt model = request(kind);
    for (auto _ : state)
        benchmark::DoNotOptimize(boost::json::serialize(dom(model)));
    state.SetBytesProcessed(state.iterations() *
                            static_cast<std::int64_t>(boost::json::serialize(dom(model)).size()));
}

void read_body(benchmark::State& state, const char* kind) {
    const std::string text = promptlayer::to_json(request(kind)).value();
    for (auto _ : state)
        benchmark::DoNotOptimize(promptlayer::from_json<promptlayer::track_prompt>(text));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void boost_parse(benchmark::State& state, const char* kind) {
    const std::string text = promptlayer::to_json(request(kind)).value();
    for (auto _ : state)
        benchmark::DoNotOptimize(boost::json::parse(text));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void decode(benchmark::State& state) {
    const promptlayer::config config{.api_key = "pl_0123456789"};
    const promptlayer::http_response response{200,
                                              {{"Content-Type", "application/json"}},
                                              R"({"success":true,"message":"Prompt tracked successfully"})"};
    for (auto _ : state)
        benchmark::DoNotOptimize(promptlayer::decode(config, response));
}

void encode(benchmark::State& state) {
    const promptlayer::config config{.api_key = "pl_0123456789"};
    const promptlayer::track_prompt model = request("small");
    promptlayer::http_request out;
    for (auto _ : state)
        benchmark::DoNotOptimize(promptlayer::encode(config, model, out));
}

} // namespace

int main(int argc, char** argv) {
    for (const char* const kind : {"small", "ascii", "latin", "cjk", "escapes"}) {
        const std::string name = kind;
        benchmark::RegisterBenchmark(("write/" + name).c_str(), write_body, kind);
        benchmark::RegisterBenchmark(("write/" + name + "/boost").c_str(), boost_json, kind);
        benchmark::RegisterBenchmark(("read/" + name).c_str(), read_body, kind);
        benchmark::RegisterBenchmark(("read/" + name + "/boost").c_str(), boost_parse, kind);
    }
    benchmark::RegisterBenchmark("encode/small", encode);
    benchmark::RegisterBenchmark("decode", decode);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}
