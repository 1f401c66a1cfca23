#ifndef PROMPTLAYER_TESTS_MEMORY_JOURNAL_HPP
#define PROMPTLAYER_TESTS_MEMORY_JOURNAL_HPP

#include <promptlayer.hpp>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace test_support {

/// A journal in memory: its requests outlive the tracker, but not the program. Shows how to write a journal.
class memory_journal : public promptlayer::journal {
public:
    struct storage {
        std::mutex mutex{};
        std::map<promptlayer::request_number, entry> entries{};
    };

    explicit memory_journal(std::shared_ptr<storage> kept) : storage_(std::move(kept)) {}

    std::vector<entry> pending() override {
        std::vector<entry> all;
        for (const auto& [number, kept] : storage_->entries)
            all.push_back(kept);
        return all;
    }
    promptlayer::result<void> add(promptlayer::request_number number,
                                  const promptlayer::prepared_request& request) override {
        const std::lock_guard guard{storage_->mutex};
        storage_->entries[number] = {.number = number, .request = request};
        return {};
    }
    void begin(promptlayer::request_number number) override {
        const std::lock_guard guard{storage_->mutex};
        if (const auto kept = storage_->entries.find(number); kept != storage_->entries.end())
            kept->second.begun = true;
    }
    void undo_begin(promptlayer::request_number number) override {
        const std::lock_guard guard{storage_->mutex};
        if (const auto kept = storage_->entries.find(number); kept != storage_->entries.end())
            kept->second.begun = false;
    }
    void remove(promptlayer::request_number number) override {
        const std::lock_guard guard{storage_->mutex};
        storage_->entries.erase(number);
    }
    std::optional<std::chrono::milliseconds> maintain() override { return std::nullopt; }

private:
    std::shared_ptr<storage> storage_;
};

} // namespace test_support

#endif
