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

/// Keeps the requests of a tracker until they have ended, so that a crash does not lose them. `file_journal`
/// is the implementation in a file.
///
/// - The threads that track call `add`; the thread that sends calls the other functions. The calls may be
///   concurrent if the tracker has threads.
/// - `done` for a request is called after `add` for it has returned.
/// - The tracker ignores an exception from `done` or `tend`.
class journal {
public:
    struct entry {
        outbox::id id = 0;
        prepared_request request{};
        std::chrono::milliseconds age{}; ///< since `add`
    };

    virtual ~journal() = default;

    /// Returns the requests that were added and had not ended when the journal was opened, by ascending
    /// number. Called once, before every other function.
    virtual std::vector<entry> left() = 0;

    /// Records a request. An error is returned to the caller of `track_prompt`; the tracker sends the request
    /// all the same.
    virtual result<void> add(outbox::id number, const prepared_request& request) = 0;

    /// Removes a request that has ended. A delivered request is removed before its callback is called, any
    /// other request after that. Ignores a request that could not be added.
    virtual void done(outbox::id number) = 0;

    /// Does the upkeep that no caller of `track_prompt` waits for. Called repeatedly. Returns after how long
    /// at the latest the next call is needed; nullopt if none is needed before `add` or `done`.
    virtual std::optional<std::chrono::milliseconds> tend() = 0;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
