// Measures bodies and responses beside JSON libraries. All of it is timed in one run, interleaved, so that
// ratios are meaningful on a busy machine; each time is the least of the repetitions. The others check less:
// none counts code points or knows the rules, and glaze takes any bytes as text.

#include "report.hpp"

#include <promptlayer.hpp>

#include <boost/json.hpp>

#include <benchmark/benchmark.h>

// Measured if their headers are found
#if __has_include(<nlohmann/json.hpp>)
#define WITH_NLOHMANN
#include <nlohmann/json.hpp>
#endif
#if __has_include(<glaze/json.hpp>) && __cplusplus > 202002L
#define WITH_GLAZE
#include <glaze/json.hpp>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(WITH_GLAZE)
namespace models { // glaze needs linkage

struct glaze_body {
    std::string prompt_name{};
    std::map<std::string, std::string> prompt_input_variables{};
    std::int64_t request_id = 0;
    std::optional<std::string> label{};
};

} // namespace models
#endif

namespace {

volatile std::size_t allocations = 0; // compilers assume that operator new changes no other variable

} // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    allocations = allocations + 1;
    if (void* const memory = std::malloc(size))
        return memory;
    std::abort();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

namespace pl = promptlayer;

/// Returns at least `bytes` of text, made of `pieces` in an order that no branch predictor learns.
std::string text_of(std::span<const std::string_view> pieces, std::size_t bytes) {
    std::minstd_rand random{1};
    std::string text;
    while (text.size() < bytes)
        text += pieces[random() % pieces.size()];
    return text;
}

std::string sample(std::string_view kind) {
    constexpr std::size_t large = 100'000;
    constexpr std::string_view prose[] = {"The order has not arrived, ",
                                          "and nobody could say where it was. ",
                                          "\"Wait another week,\" ",
                                          "she wrote to us, ",
                                          "although we had asked for an answer by Monday.\n",
                                          "In the end the parcel was found in a depot near the coast; ",
                                          "it had been there for nine days.\n\n",
                                          "Please send the invoice again (number 20-4417), ",
                                          "we'd rather pay it now. "};
    constexpr std::string_view ascii[] = {"the ",    "quick ",   "brown ", "fox ",  "jumps ",
                                          "over ",   "lazy ",    "dogs, ", "and ",  "12 ",
                                          "boxing ", "wizards ", "judge ", "vows. "};
    constexpr std::string_view latin[] = {"Gr\u00FC\u00DFe ",
                                          "aus ",
                                          "K\u00F6ln, ",
                                          "\u00FCber ",
                                          "den ",
                                          "Fl\u00FCssen ",
                                          "h\u00F6rt ",
                                          "man ",
                                          "das ",
                                          "L\u00E4uten. ",
                                          "d\u00E9j\u00E0 ",
                                          "vu ",
                                          "l'\u00E9t\u00E9 ",
                                          "dernier, ",
                                          "o\u00F9 ",
                                          "les ",
                                          "for\u00EAts ",
                                          "\u00E9taient ",
                                          "tr\u00E8s ",
                                          "calmes. "};
    constexpr std::string_view cjk[] = {
        "\u6F22\u5B57",       "\u304B\u306A",         "\u4EA4\u3058\u308A", "\u3002",
        "\u4F60\u597D\uFF0C", "\u4E16\u754C",         "\u8ACB\u554F",       "\U0001F600",
        "\u6771\u4EAC\u90FD", "\U0001F44D\U0001F3FD", "\u30C6\u30B9\u30C8"};
    constexpr std::string_view escapes[] = {"\"",  "\\",   "\n",    "\t",   "a\"", "b\\n",
                                            "c\n", "de\"", "f\x01", "gh\\", "ij"};
    constexpr std::string_view code[] = {"#include <string>\n",
                                         "\n",
                                         "int main(int argc, char** argv) {\n",
                                         "    const auto found = table.find(\"name\");\n",
                                         "    if (found == table.end())\n",
                                         "        return std::string{};\n",
                                         "    std::printf(\"%s: %d\\n\", found->first.c_str(), count);\n",
                                         "\tfor (std::size_t i = 0; i < size; ++i) // each of them\n",
                                         "}\n"};
    return kind == "prose"     ? text_of(prose, 4'000)
           : kind == "ascii"   ? text_of(ascii, large)
           : kind == "latin"   ? text_of(latin, large)
           : kind == "cjk"     ? text_of(cjk, large)
           : kind == "escapes" ? text_of(escapes, large)
                               : text_of(code, large);
}

pl::track_prompt request(std::string_view kind) {
    if (kind != "small")
        return {.prompt_name = "a", .prompt_input_variables = {{"text", sample(kind)}}, .request_id = 1};
    return {.prompt_name = "support-response",
            .prompt_input_variables = {{"user_message", "My order has not arrived, what can I do"},
                                       {"customer", "Zo\u00EB M\u00FCller"},
                                       {"language", "en"},
                                       {"history", "She said \"wait a week\" and we waited for two."},
                                       {"product", "A lamp for the desk, with a cable"}},
            .request_id = 1234567890123,
            .label = "production"};
}

template <class ValueT, class ObjectT, class... StorageT>
ValueT dom(const pl::track_prompt& request, const StorageT&... storage) {
    ObjectT variables(storage...);
    for (const auto& [name, text] : request.prompt_input_variables)
        variables.emplace(name, text);
    ObjectT body(storage...);
    body.emplace("prompt_name", request.prompt_name.value());
    body.emplace("prompt_input_variables", std::move(variables));
    body.emplace("request_id", static_cast<std::int64_t>(request.request_id.value()));
    if (request.label)
        body.emplace("label", *request.label);
    return ValueT(std::move(body));
}

std::string write_boost(const pl::track_prompt& request) {
    return boost::json::serialize(dom<boost::json::value, boost::json::object>(request));
}

std::string write_boost_monotonic(const pl::track_prompt& request) {
    unsigned char buffer[2048];
    boost::json::monotonic_resource memory{buffer};
    return boost::json::serialize(
        dom<boost::json::value, boost::json::object>(request, boost::json::storage_ptr(&memory)));
}

std::size_t parse_boost_monotonic(std::string_view text) {
    unsigned char buffer[2048];
    boost::json::monotonic_resource memory{buffer};
    return boost::json::parse(text, &memory).get_object().size();
}

struct timing {
    std::string what, by;
    double nanoseconds;
    double allocations;
};

/// Keeps the least time of each benchmark, in the order in which they were registered.
struct table : benchmark::BenchmarkReporter {
    std::vector<timing>& rows;

    explicit table(std::vector<timing>& registered) : rows(registered) {}
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            for (timing& row : rows) {
                if (run.run_type == Run::RT_Iteration &&
                    run.run_name.function_name == row.what + "/" + row.by)
                    row.nanoseconds = std::min(row.nanoseconds, run.GetAdjustedCPUTime());
            }
        }
    }
    void Finalize() override {
        std::string what;
        double first = 0;
        std::puts("| what | by | time | ours takes | allocations |\n|---|---|---|---|---|");
        for (const timing& row : rows) {
            if (row.nanoseconds == 1e9)
                continue; // not run
            if (row.what != what)
                first = row.nanoseconds;
            std::printf("| %s | %s | %.0f ns | %.2f | %.0f |\n", row.what == what ? "" : row.what.c_str(),
                        row.by.c_str(), row.nanoseconds, first / row.nanoseconds, row.allocations);
            what = row.what;
        }
    }
};

std::vector<timing> rows;

template <class ActionT>
void add(const std::string& what, const char* by, ActionT action) {
    const auto count = [&] {
        const std::size_t before = allocations;
        benchmark::DoNotOptimize(action());
        return allocations - before;
    };
    count(); // memory that is used again
    rows.push_back({what, by, 1e9, static_cast<double>(count())});
    benchmark::RegisterBenchmark((what + "/" + by).c_str(), [action](benchmark::State& state) mutable {
        for (auto _ : state)
            benchmark::DoNotOptimize(action());
    });
}

void add_writing(const std::string& kind) {
    const std::string what = "write " + kind;
    const pl::track_prompt model = request(kind);
    const std::string body = pl::to_json(model).value();
    add(what, "ours", [=] { return pl::to_json(model); });
    add(what, "Boost.JSON", [=] { return write_boost(model); });
    add(what, "Boost.JSON monotonic", [=] { return write_boost_monotonic(model); });
#if defined(WITH_NLOHMANN)
    add(what, "nlohmann", [=] { return dom<nlohmann::json, nlohmann::json::object_t>(model).dump(); });
#endif
#if defined(WITH_GLAZE)
    const models::glaze_body glaze{model.prompt_name.value(),
                                   {model.prompt_input_variables.begin(), model.prompt_input_variables.end()},
                                   static_cast<std::int64_t>(model.request_id.value()),
                                   model.label};
    add(what, "glaze", [=] { return glz::write_json(glaze); });
    add(what, "glaze into a used string", [=, out = std::string{}]() mutable {
        if (glz::write_json(glaze, out))
            std::abort();
        return out.size();
    });
#endif
    add(what, "memcpy", [=, out = std::string(body.size(), ' ')]() mutable {
        std::memcpy(out.data(), body.data(), body.size());
        benchmark::ClobberMemory();
        return out.data();
    });
}

template <class ActionT>
void add_parsing(const std::string& what, const std::string& text, ActionT ours) {
    add(what, "ours", ours);
    add(what, "Boost.JSON", [=] { return boost::json::parse(text); });
    add(what, "Boost.JSON monotonic", [=] { return parse_boost_monotonic(text); });
#if defined(WITH_NLOHMANN)
    add(what, "nlohmann", [=] { return nlohmann::json::parse(text); });
#endif
}

void add_reading(const std::string& kind) {
    const std::string what = "read " + kind;
    const std::string text = pl::to_json(request(kind)).value();
    add_parsing(what, text, [=] { return pl::from_json<pl::track_prompt>(text); });
#if defined(WITH_GLAZE)
    add(what, "glaze", [=] { return glz::read_json<models::glaze_body>(text); });
#endif
}

void add_decoding(const std::string& what, int status, const std::string& body) {
    const pl::http_response response{status, {{"Content-Type", "application/json"}}, body};
    add_parsing(what, body, [=, codec = pl::encoder{{.api_key = "pl_0123456789"}}] {
        return codec.decode<pl::track_prompt>(response);
    });
}

/// Adds what a call costs beside its body.
void add_calls() {
    const pl::config config{.api_key = "pl_0123456789"};
    const pl::track_prompt model = request("small");
    const auto write = [=] { return pl::to_json(model); };
    const pl::http_response response{200, {}, R"({"success":true,"message":"Prompt tracked successfully"})"};
    add("encode into a used request", "ours",
        [=, codec = pl::encoder{config}, out = pl::http_request{}]() mutable {
            return codec.encode(model, out).has_value();
        });
    add("encode into a used request", "the body", write);
    add("a whole call", "ours",
        [=,
         client = pl::client{config, pl::transport_from([=](const pl::http_request&) -> pl::transport_result {
                                 return response;
                             })}]() mutable { return client.call(model); });
    add("a whole call", "the body", write);
}

} // namespace

int main(int argc, char** argv) {
    for (const char* const kind : {"small", "prose", "ascii", "latin", "cjk", "escapes", "code"})
        add_writing(kind);
    add_calls();
    for (const char* const kind : {"small", "prose", "latin", "escapes"})
        add_reading(kind);
    add_decoding("decode 200", 200, R"({"success":true,"message":"Prompt tracked successfully"})");
    add_decoding(
        "decode 422", 422,
        R"({"detail":[{"loc":["body","prompt_name"],"msg":"field required","type":"value_error.missing"},)"
        R"({"loc":["body","request_id"],"msg":"value is not a valid integer","type":"type_error.integer"}]})");
    std::vector<char*> arguments{argv, argv + argc};
    std::string defaults[] = {"--benchmark_enable_random_interleaving=true", "--benchmark_repetitions=12",
                              "--benchmark_min_time=0.01"};
    for (std::string& argument : defaults)
        arguments.insert(arguments.begin() + 1, argument.data());
    argc = static_cast<int>(arguments.size());
    benchmark::Initialize(&argc, arguments.data());
    std::printf("%s, body of %zu bytes as `small`\n\n", machine().c_str(),
                pl::to_json(request("small")).value().size());
    table reporter{rows};
    benchmark::RunSpecifiedBenchmarks(&reporter);
}
