#ifndef PROMPTLAYER_JOURNAL_HPP
#define PROMPTLAYER_JOURNAL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/outbox.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <optional>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

/// Where a tracker keeps what it has queued until it is done, so that a crash does not lose it;
/// `file_journal` is one. `add` is called by those who track, `done` (after the `add` of its request) and
/// `tend` by the one that sends; at once, where a tracker has threads. What one throws is dropped, but for
/// `add`.
class journal {
public:
    struct entry {
        outbox::id id = 0;
        prepared_request request{};
        std::chrono::milliseconds age{}; ///< since it was added
    };

    virtual ~journal() = default;

    /// What was added and not done when the journal was opened, by ascending number. Called once, first.
    virtual std::vector<entry> left() = 0;

    /// The request is on record, or an error for the caller of `track_prompt`; it is delivered all the same.
    virtual result<void> add(outbox::id which, const prepared_request& request) = 0;

    /// The service has it, and that is about to be told; or it has ended otherwise, and that has been told.
    /// Ignored for one that could not be added.
    virtual void done(outbox::id which) = 0;

    /// Called by whoever sends, again and again: upkeep that no caller of `track_prompt` is to wait for. When
    /// to call again at the latest; none if that waits for `add` or `done`.
    virtual std::optional<std::chrono::milliseconds> tend() = 0;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
