// Compares the outbox with a simple model through random events. PROMPTLAYER_TEST_SEED sets the first seed.

#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace pl = promptlayer;
using namespace std::chrono_literals;

namespace {

using milliseconds = std::chrono::milliseconds;
using id = pl::outbox::id;

/// Thrown if outbox and model disagree.
struct disagreement {
    const char* what;
};

void expect(bool condition, const char* what) {
    if (!condition)
        throw disagreement{what};
}

class simulation {
    struct request {
        std::size_t size;
        milliseconds pushed;
        milliseconds due;
        std::uint32_t attempts = 0;
        bool in_flight = false;
        int resumed = 0; // how often the outbox had been resumed when it was taken
    };
    enum class weather { fine, no_network, busy, failing, revoked, refusing, last = refusing };

    std::mt19937_64 random_;
    double next_random_ = 0; // the random number that the outbox gets
    pl::outbox_settings settings_;
    pl::outbox outbox_;
    std::map<id, request> model_{};
    pl::outbox_stats expected_{};
    std::size_t bytes_ = 0;
    milliseconds shown_{1'000'000'000}; // by the clock, number jumps
    milliseconds time_ = shown_;        // without jumps
    milliseconds blocked_until_{0};
    bool paused_ = false, held_up_ = false;
    int resumed_ = 0; // how often it was resumed
    id last_completed_ = 0;
    weather weather_ = weather::fine;

    std::uint64_t up_to(std::uint64_t most) {
        return std::uniform_int_distribution<std::uint64_t>{0, most}(random_);
    }
    bool one_in(std::uint64_t count) { return up_to(count - 1) == 0; }
    pl::outbox::time_point now() const { return pl::outbox::time_point{shown_}; }

    static pl::outbox_settings some_settings(std::mt19937_64& random) {
        pl::outbox_settings settings;
        settings.max_requests = 1 + random() % 60;
        settings.max_bytes = 2'000 + random() % 20'000;
        settings.max_in_flight = 1 + random() % 6;
        settings.drop_oldest = random() % 2 == 0;
        settings.retry.max_attempts = random() % 2 == 0 ? 0 : 4;
        return settings;
    }

    void finish(id number, std::uint64_t& count) {
        bytes_ -= model_.at(number).size;
        model_.erase(number);
        ++count;
    }

    void pass(milliseconds by) {
        shown_ += by;
        time_ += std::max(by, milliseconds{0});
        outbox_.next_due(now()); // the outbox sees every jump
    }

    void push() {
        const std::size_t size = up_to(one_in(50) ? 30'000 : 1'500);
        auto outcome = outbox_.push({"/", std::string(size, 'x')}, now());
        std::vector<id> dropped;
        const auto fits = [&] {
            return model_.size() < settings_.max_requests && bytes_ + size + 1 <= settings_.max_bytes;
        };
        if (!fits() && settings_.drop_oldest) { // on a copy, because nothing is dropped in vain
            auto before = model_;
            const auto bytes_before = bytes_;
            const auto dropped_before = expected_.dropped;
            for (auto& [number, entry] : before)
                if (!entry.in_flight && !fits()) {
                    dropped.push_back(number);
                    finish(number, expected_.dropped);
                }
            if (!fits()) {
                model_ = before;
                bytes_ = bytes_before;
                expected_.dropped = dropped_before;
                dropped.clear();
            }
        }
        expect(outcome.has_value() == fits(), "accepts exactly the requests that fit");
        if (!outcome) {
            expect(outcome.error().code == pl::errc::queue_full, "reports that it is full");
            return;
        }
        expect(outcome->dropped.size() == dropped.size(), "drops as many as needed");
        for (std::size_t i = 0; i < dropped.size(); ++i)
            expect(outcome->dropped[i].id == dropped[i] && outcome->dropped[i].fate == pl::fate::dropped,
                   "drops the oldest");
        model_[outcome->id] = {size + 1, time_, time_, 0, false};
        bytes_ += size + 1;
        ++expected_.pushed;
    }

    /// Returns the request that may be taken now.
    std::optional<id> next() const {
        std::size_t in_flight = 0;
        std::optional<id> actual;
        for (const auto& [number, entry] : model_) {
            in_flight += entry.in_flight ? 1 : 0;
            if (!actual && !entry.in_flight && entry.due <= time_)
                actual = number;
        }
        return paused_ || held_up_ || time_ < blocked_until_ || in_flight >= settings_.max_in_flight
                   ? std::nullopt
                   : actual;
    }

    void take() {
        const auto expected = next();
        const auto due = outbox_.next_due(now());
        expect(!expected || (due && *due <= now()), "next_due reports a due request");
        expect(expected || !due || *due > now(), "next_due reports no request before it is due");
        const auto due_request = outbox_.take(now());
        expect(due_request.has_value() == expected.has_value(), "returns a request exactly if one is due");
        if (!due_request)
            return;
        expect(due_request->id == *expected, "returns the oldest due request");
        request& entry = model_.at(due_request->id);
        expect(due_request->request.body.size() + 1 == entry.size, "returns the request as it was pushed");
        entry.in_flight = true;
        entry.resumed = resumed_;
        ++entry.attempts;
    }

    std::optional<pl::error> outcome() {
        pl::error e{.code = pl::errc::transport};
        const auto answered = [&](pl::errc code, int status) {
            e.code = code;
            e.status = status;
            return e;
        };
        const auto chosen =
            one_in(10) ? static_cast<weather>(up_to(static_cast<std::uint64_t>(weather::last))) : weather_;
        switch (chosen) {
        case weather::fine: return std::nullopt;
        case weather::no_network:
            e.failure = static_cast<pl::failure>(up_to(6));
            e.maybe_delivered = one_in(2);
            return e;
        case weather::busy:
            if (one_in(2))
                e.retry_after = std::chrono::seconds{up_to(5'000)};
            return answered(pl::errc::rate_limited, 429);
        case weather::failing: return answered(pl::errc::server_error, one_in(3) ? 501 : 503);
        case weather::revoked:
            return answered(one_in(2) ? pl::errc::unauthorized : pl::errc::forbidden, one_in(2) ? 401 : 403);
        case weather::refusing:
            return answered(one_in(2) ? pl::errc::unprocessable : pl::errc::malformed_response,
                            one_in(2) ? 422 : 200);
        }
        return std::nullopt;
    }

    void complete() {
        std::vector<id> in_flight;
        for (const auto& [number, entry] : model_)
            if (entry.in_flight)
                in_flight.push_back(number);
        const auto completed = model_.find(last_completed_);
        if (in_flight.empty() ||
            (one_in(20) && (completed == model_.end() || !completed->second.in_flight))) {
            expect(!outbox_.complete(in_flight.empty() ? last_completed_ + 1'000'000 : last_completed_,
                                     std::nullopt, now()),
                   "ignores a completion of a request that is not in flight");
            return;
        }
        const id number = last_completed_ = in_flight[up_to(in_flight.size() - 1)];
        request& entry = model_.at(number);
        const auto why = outcome();
        next_random_ = std::uniform_real_distribution<double>{0, 1}(random_);
        const auto ended = outbox_.complete(number, why, now());
        entry.in_flight = false;
        if (!why) {
            expect(ended && ended->fate == pl::fate::delivered && ended->id == number, "is delivered");
            return finish(number, expected_.delivered);
        }
        if (why->failure == pl::failure::tls || why->status == 401 || why->status == 403) {
            expect(!ended, "keeps a request if the key is wrong");
            held_up_ = held_up_ || entry.resumed == resumed_;
            --entry.attempts;
            return;
        }
        if (why->failure == pl::failure::cancelled) {
            expect(!ended, "keeps a cancelled request");
            --entry.attempts;
            entry.due = time_ + settings_.retry.initial_delay;
            return;
        }
        const auto wait =
            pl::retry_wait(settings_.retry, *why, entry.attempts, next_random_, time_ - entry.pushed);
        if (why->failure || why->status == 429) {
            auto others = settings_.retry;
            others.max_attempts = 0;
            others.max_age.reset();
            others.retry_maybe_delivered = true;
            const auto all = pl::retry_wait(others, *why, entry.attempts, next_random_, {});
            if (all)
                blocked_until_ = std::max(blocked_until_, time_ + *all);
        }
        if (!wait) {
            const bool refused = why->code == pl::errc::unprocessable;
            expect(ended && ended->fate == (refused ? pl::fate::refused : pl::fate::gave_up),
                   "ends with its fate");
            return finish(number, refused ? expected_.refused : expected_.gave_up);
        }
        expect(!ended, "waits for the next attempt");
        entry.due = time_ + *wait;
    }

    void check() {
        pl::outbox_stats expected = expected_;
        for (const auto& [number, entry] : model_)
            ++(entry.in_flight ? expected.in_flight : expected.waiting);
        const pl::outbox_stats actual = outbox_.stats();
        expect(actual == expected, "the counts agree");
        expect(actual.pushed == actual.waiting + actual.in_flight + actual.delivered + actual.refused +
                                    actual.gave_up + actual.dropped + actual.handed_back,
               "the counts add up");
        expect(outbox_.bytes() == bytes_ && bytes_ <= settings_.max_bytes,
               "the bytes stay within their limit");
        expect(actual.waiting + actual.in_flight <= settings_.max_requests,
               "the requests stay within their limit");
        expect(actual.in_flight <= settings_.max_in_flight, "the requests in flight stay within their limit");
        expect(outbox_.paused() == (paused_ || held_up_), "the pause agrees");
    }

public:
    explicit simulation(std::uint64_t seed)
        : random_(seed), settings_(some_settings(random_)),
          outbox_(settings_, [this] { return next_random_; }) {}

    /// Returns the counts after `events` random events.
    pl::outbox_stats run(int events) {
        for (int i = 0; i < events; ++i) {
            switch (up_to(9)) {
            case 0:
            case 1: push(); break;
            case 2:
            case 3:
            case 4: take(); break;
            case 5:
            case 6: complete(); break;
            case 7: pass(milliseconds{up_to(one_in(10) ? 600'000 : 3'000)}); break;
            case 8:
                if (one_in(50))
                    pass(milliseconds{up_to(100'000'000)} * (one_in(2) ? 1 : -1));
                if (one_in(20))
                    weather_ = static_cast<weather>(up_to(static_cast<std::uint64_t>(weather::last)));
                break;
            default:
                if (one_in(30))
                    outbox_.pause(), paused_ = true;
                if (one_in(10))
                    outbox_.resume(), paused_ = held_up_ = false, ++resumed_;
            }
            check();
        }
        const auto left = outbox_.drain();
        expect(left.size() == model_.size(), "drain returns all requests");
        auto each = left.begin();
        for (const auto& [number, entry] : model_) {
            expect(each->id == number && each->fate == pl::fate::handed_back &&
                       each->request.body.size() + 1 == entry.size,
                   "drain returns the requests in order, unchanged");
            ++each;
        }
        expected_.handed_back = left.size();
        model_.clear();
        bytes_ = 0;
        check();
        expect(!outbox_.push({"/", ""}, now()) && !outbox_.take(now()),
               "a drained outbox accepts and returns nothing");
        return outbox_.stats();
    }
};

} // namespace

TEST_CASE("outbox: three million random events agree with the model") {
    const char* const given = std::getenv("PROMPTLAYER_TEST_SEED");
    const std::uint64_t first = given ? std::strtoull(given, nullptr, 10) : 1;
    pl::outbox_stats total;
    for (std::uint64_t seed = first; seed < first + 300; ++seed) {
        try {
            const pl::outbox_stats stats = simulation{seed}.run(10'000);
            total.pushed += stats.pushed;
            total.delivered += stats.delivered;
            total.refused += stats.refused;
            total.gave_up += stats.gave_up;
            total.dropped += stats.dropped;
            total.handed_back += stats.handed_back;
        } catch (const disagreement& mismatch) {
            FAIL("seed " << seed << ": " << std::string{mismatch.what});
        }
    }
    MESSAGE(total.pushed << " pushed: " << total.delivered << " delivered, " << total.refused << " refused, "
                         << total.gave_up << " given up, " << total.dropped << " dropped, "
                         << total.handed_back << " returned");
    for (const std::uint64_t count :
         {total.delivered, total.refused, total.gave_up, total.dropped, total.handed_back})
        CHECK(count > 1'000); // each outcome is frequent
}
