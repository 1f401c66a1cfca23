#ifndef PROMPTLAYER_JOURNAL_HPP
#define PROMPTLAYER_JOURNAL_HPP

#include <promptlayer/detail/abi.hpp>
#include <promptlayer/prepared_request.hpp>
#include <promptlayer/result.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <vector>

namespace promptlayer::inline PROMPTLAYER_ABI {

namespace detail {

/// Converts the size of something in memory. A template, so that no compiler warns of the cast, whether
/// std::size_t has 32 or 64 bits.
template <class NumberT>
constexpr std::size_t to_size(NumberT size) noexcept {
    return static_cast<std::size_t>(size);
}

} // namespace detail

/// Keeps the requests of a tracker until they have ended, so that a crash does not lose them. `file_journal`
/// is the implementation in a file.
///
/// - Any number of threads call `add` at once, and the tracker holds no lock meanwhile. One thread at a time
///   calls the other functions, also while others call `add`.
/// - `begin` and `remove` for a request are called after `add` for it has returned.
/// - The tracker ignores an exception from every function except `pending`. One from `add` is reported like
///   an error.
class journal {
public:
    struct entry {
        request_number number = 0;
        prepared_request request{};      ///< without its `timeout`
        std::chrono::milliseconds age{}; ///< since `add`
        bool begun = false;              ///< `begin` was called: the service may have received the request
    };

    virtual ~journal() = default;

    /// Returns the requests that were added and had not ended when the journal was opened, in any order.
    /// Called once, before every other function.
    virtual std::vector<entry> pending() = 0;

    /// Records a request. After an error the tracker sends the request all the same, and `track_prompt` says
    /// that the request is not on record.
    virtual result<void> add(request_number number, const prepared_request& request) = 0;

    /// Records that a request is about to be sent. Called only for requests that are not `idempotent`, before
    /// each attempt. Ignores a request that could not be added.
    virtual void begin(request_number number) = 0;

    /// Records that an attempt failed before the service could receive the request, which waits for the next
    /// attempt. Called after `begin`. A journal without this function reports such a request after a restart
    /// as begun, and the tracker then does not send it.
    virtual void undo_begin(request_number) {}

    /// Removes a request that has ended. A delivered request is removed before its callback is called, any
    /// other request after that. Ignores a request that could not be added.
    virtual void remove(request_number number) = 0;

    /// Does upkeep that no caller of `track_prompt` waits for: a bounded piece of work, at most about a
    /// millisecond, except for `fsync`. Called repeatedly. Returns after how long at the latest the next call
    /// is needed, 0 if more work is waiting; nullopt if none is needed before `add` or `remove`.
    virtual std::optional<std::chrono::milliseconds> maintain() = 0;
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#endif
