// The life of one call of a language model: the call is logged with its prompt and metadata, then scored
// under the id that the log received. A background tracker delivers both, and its journal keeps them across
// crashes. A crash in the instant between log and score loses the score. Without PROMPTLAYER_API_KEY, a
// service inside this process responds.

#include <promptlayer.hpp>
#include <promptlayer/file_journal.hpp>
#include <promptlayer/testing/loopback_service.hpp>
#include <promptlayer/transports/curl_multi.hpp>

#include <chrono>
#include <iostream>
#include <optional>
#include <string>
#include <utility>

namespace {

struct llm_answer {
    std::string text;
    int input_tokens;
    int output_tokens;
};

/// Stands for a call of your language model.
llm_answer ask_llm(const std::string& question) {
    return {"It is open until 8 pm.", int(question.size()) / 4, 7};
}

/// Calls the language model, and describes the call.
promptlayer::log_request logged_call(const std::string& question) {
    const auto start = std::chrono::system_clock::now();
    const llm_answer answer = ask_llm(question);
    return {
        .provider = "in-house",
        .model = "shopkeeper-7b",
        .input = promptlayer::chat_prompt(
            {{promptlayer::role::system, "You keep a shop."}, {promptlayer::role::user, question}}),
        .output = promptlayer::chat_prompt({{promptlayer::role::assistant, answer.text}}),
        .request_start_time = promptlayer::date_time(start),
        .request_end_time = promptlayer::date_time(std::chrono::system_clock::now()),
        .tags = {"shop"},
        .metadata = {{"player", "17"}, {"level", "harbour"}},
        .prompt_name = "shopkeeper",
        .prompt_version_number = 3,
        .prompt_input_variables = promptlayer::json_object{R"({"opening_hours":"8-20"})"},
        .input_tokens = answer.input_tokens,
        .output_tokens = answer.output_tokens,
        .price = 0.00042,
        .status = promptlayer::log_status::success,
    };
}

/// Returns false, and says why, if a request was not queued.
bool is_queued(const promptlayer::result<promptlayer::queued_request>& queued) {
    if (!queued)
        std::cerr << queued.error() << '\n';
    return queued.has_value();
}

} // namespace

int main(int argc, char** argv) {
    promptlayer::config config = promptlayer::config_from_environment();
    std::optional<promptlayer::testing::loopback_service> service;
    if (config.api_key.empty()) {
        std::cout << "PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n";
        config.api_key = "no-key";
        config.base_url = service.emplace(config.api_key).base_url();
    }
    auto journal = promptlayer::file_journal::open(argc > 1 ? argv[1] : "llm_call.journal");
    if (!journal) {
        std::cerr << journal.error() << '\n';
        return 1;
    }

    bool has_failed = false; // written by the tracker's thread, read after `flush`
    promptlayer::background_tracker tracker{
        config,
        promptlayer::curl_multi_transport{},
        {.on_delivered =
             [&](const promptlayer::finished_request& delivered) {
                 std::cout << "delivered: " << delivered.request.path << '\n';
                 if (delivered.request.path != promptlayer::log_request::path)
                     return;
                 // Also called for a log of an earlier run, which has an id of its own.
                 if (const auto log = promptlayer::decode<promptlayer::log_request>(*delivered.response))
                     is_queued(tracker.track(
                         promptlayer::track_score{.request_id = log->id, .score = 95, .name = "helpful"}));
             },
         .on_failed =
             [&](const promptlayer::finished_request& failed) {
                 has_failed = true;
                 std::cerr << "not delivered: " << failed.request.path;
                 if (failed.error)
                     std::cerr << ": " << *failed.error;
                 std::cerr << '\n';
             },
         .journal = *std::move(journal)}};

    if (!is_queued(tracker.track(logged_call("When do you close?"))))
        return 1;
    // A game does not wait: it goes on, and closes the tracker at its end.
    return tracker.flush(std::chrono::seconds{5}) && !has_failed ? 0 : 1;
}
