// The outbox against a model of it that is as simple as can be, through random events from a seed.

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

/// Thrown where outbox and model disagree.
struct disagreement {
    const char* what;
};

void hold(bool condition, const char* what) {
    if (!condition)
        throw disagreement{what};
}

class simulation {
    struct request {
        std::size_t size;
        milliseconds made;
        milliseconds due;
        std::uint32_t attempts = 0;
        bool in_flight = false;
        int resumed = 0; // the count when it was taken
    };
    enum class weather { fine, no_network, busy, failing, revoked, refusing, last = refusing };

    std::mt19937_64 random_;
    double next_random_ = 0; // what the outbox gets
    pl::outbox_settings settings_;
    pl::outbox outbox_;
    std::map<id, request> model_{};
    pl::outbox_stats expected_{};
    std::size_t bytes_ = 0;
    milliseconds shown_{1'000'000'000}; // by the clock, which jumps
    milliseconds time_ = shown_;        // that has passed
    milliseconds nobody_before_{0};
    bool paused_ = false, held_up_ = false;
    int resumed_ = 0; // how often
    id last_completed_ = 0;
    weather weather_ = weather::fine;

    std::uint64_t up_to(std::uint64_t most) {
        return std::uniform_int_distribution<std::uint64_t>{0, most}(random_);
    }
    bool one_in(std::uint64_t count) { return up_to(count - 1) == 0; }
    pl::outbox::time_point now() const { return pl::outbox::time_point{shown_}; }

    static pl::outbox_settings some_settings(std::mt19937_64& random) {
        pl::outbox_settings made;
        made.max_requests = 1 + random() % 60;
        made.max_bytes = 2'000 + random() % 20'000;
        made.max_in_flight = 1 + random() % 6;
        made.drop_oldest = random() % 2 == 0;
        made.retry.max_attempts = random() % 2 == 0 ? 0 : 4;
        return made;
    }

    void finish(id which, std::uint64_t& count) {
        bytes_ -= model_.at(which).size;
        model_.erase(which);
        ++count;
    }

    void pass(milliseconds by) {
        shown_ += by;
        time_ += std::max(by, milliseconds{0});
        outbox_.next_due(now()); // it sees every jump
    }

    void push() {
        const std::size_t size = up_to(one_in(50) ? 30'000 : 1'500);
        auto outcome = outbox_.push({"/", std::string(size, 'x')}, now());
        std::vector<id> dropped;
        const auto fits = [&] {
            return model_.size() < settings_.max_requests && bytes_ + size + 1 <= settings_.max_bytes;
        };
        if (!fits() && settings_.drop_oldest) { // on a copy, as nothing is dropped in vain
            auto before = model_;
            const auto bytes_before = bytes_;
            const auto dropped_before = expected_.dropped;
            for (auto& [which, held] : before)
                if (!held.in_flight && !fits()) {
                    dropped.push_back(which);
                    finish(which, expected_.dropped);
                }
            if (!fits()) {
                model_ = before;
                bytes_ = bytes_before;
                expected_.dropped = dropped_before;
                dropped.clear();
            }
        }
        hold(outcome.has_value() == fits(), "takes what fits, and nothing else");
        if (!outcome) {
            hold(outcome.error().code == pl::errc::queue_full, "says that it is full");
            return;
        }
        hold(outcome->dropped.size() == dropped.size(), "drops as many as have to be");
        for (std::size_t i = 0; i < dropped.size(); ++i)
            hold(outcome->dropped[i].id == dropped[i] && outcome->dropped[i].fate == pl::fate::dropped,
                 "drops the oldest");
        model_[outcome->id] = {size + 1, time_, time_, 0, false};
        bytes_ += size + 1;
        ++expected_.pushed;
    }

    /// What may be taken now.
    std::optional<id> next() const {
        std::size_t flying = 0;
        std::optional<id> found;
        for (const auto& [which, held] : model_) {
            flying += held.in_flight ? 1 : 0;
            if (!found && !held.in_flight && held.due <= time_)
                found = which;
        }
        return paused_ || held_up_ || time_ < nobody_before_ || flying >= settings_.max_in_flight
                   ? std::nullopt
                   : found;
    }

    void take() {
        const auto expected = next();
        const auto due = outbox_.next_due(now());
        hold(!expected || (due && *due <= now()), "is due now, and says so");
        hold(expected || !due || *due > now(), "is not due now, and says so");
        const auto got = outbox_.take(now());
        hold(got.has_value() == expected.has_value(), "gives a request when one is due, and not before");
        if (!got)
            return;
        hold(got->id == *expected, "gives the oldest that is due");
        request& held = model_.at(got->id);
        hold(got->request.body.size() + 1 == held.size, "gives the request as it was pushed");
        held.in_flight = true;
        held.resumed = resumed_;
        ++held.attempts;
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
        std::vector<id> flying;
        for (const auto& [which, held] : model_)
            if (held.in_flight)
                flying.push_back(which);
        const auto again = model_.find(last_completed_);
        if (flying.empty() || (one_in(20) && (again == model_.end() || !again->second.in_flight))) {
            hold(!outbox_.complete(flying.empty() ? last_completed_ + 1'000'000 : last_completed_,
                                   std::nullopt, now()),
                 "ignores what is not in flight");
            return;
        }
        const id which = last_completed_ = flying[up_to(flying.size() - 1)];
        request& held = model_.at(which);
        const auto why = outcome();
        next_random_ = std::uniform_real_distribution<double>{0, 1}(random_);
        const auto ended = outbox_.complete(which, why, now());
        held.in_flight = false;
        if (!why) {
            hold(ended && ended->fate == pl::fate::delivered && ended->id == which, "is delivered");
            return finish(which, expected_.delivered);
        }
        if (why->failure == pl::failure::tls || why->status == 401 || why->status == 403) {
            hold(!ended, "is kept where the key is wrong");
            held_up_ = held_up_ || held.resumed == resumed_;
            --held.attempts;
            return;
        }
        if (why->failure == pl::failure::cancelled) {
            hold(!ended, "is kept where it was cancelled");
            --held.attempts;
            held.due = time_ + settings_.retry.initial_delay;
            return;
        }
        const auto wait =
            pl::retry_wait(settings_.retry, *why, held.attempts, next_random_, time_ - held.made);
        if (why->failure || why->status == 429) {
            auto others = settings_.retry;
            others.max_attempts = 0;
            others.max_age.reset();
            others.retry_maybe_delivered = true;
            const auto all = pl::retry_wait(others, *why, held.attempts, next_random_, {});
            if (all)
                nobody_before_ = std::max(nobody_before_, time_ + *all);
        }
        if (!wait) {
            const bool refused = why->code == pl::errc::unprocessable;
            hold(ended && ended->fate == (refused ? pl::fate::refused : pl::fate::gave_up), "ends");
            return finish(which, refused ? expected_.refused : expected_.gave_up);
        }
        hold(!ended, "waits");
        held.due = time_ + *wait;
    }

    void check() {
        pl::outbox_stats expected = expected_;
        for (const auto& [which, held] : model_)
            ++(held.in_flight ? expected.in_flight : expected.waiting);
        const pl::outbox_stats found = outbox_.stats();
        hold(found == expected, "the counts");
        hold(found.pushed == found.waiting + found.in_flight + found.delivered + found.refused +
                                 found.gave_up + found.dropped + found.handed_back,
             "the books balance");
        hold(outbox_.bytes() == bytes_ && bytes_ <= settings_.max_bytes, "the bound of bytes");
        hold(found.waiting + found.in_flight <= settings_.max_requests, "the bound of requests");
        hold(found.in_flight <= settings_.max_in_flight, "the bound of requests in flight");
        hold(outbox_.paused() == (paused_ || held_up_), "paused");
    }

public:
    explicit simulation(std::uint64_t seed)
        : random_(seed), settings_(some_settings(random_)),
          outbox_(settings_, [this] { return next_random_; }) {}

    /// What became of all requests.
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
        hold(left.size() == model_.size(), "gives back all that is left");
        auto each = left.begin();
        for (const auto& [which, held] : model_) {
            hold(each->id == which && each->fate == pl::fate::handed_back &&
                     each->request.body.size() + 1 == held.size,
                 "gives them back in order, as they were pushed");
            ++each;
        }
        expected_.handed_back = left.size();
        model_.clear();
        bytes_ = 0;
        check();
        hold(!outbox_.push({"/", ""}, now()) && !outbox_.take(now()),
             "takes and gives nothing once it is drained");
        return outbox_.stats();
    }
};

} // namespace

TEST_CASE("outbox: three million random events keep to the model; PROMPTLAYER_TEST_SEED is the first seed") {
    const char* const given = std::getenv("PROMPTLAYER_TEST_SEED");
    const std::uint64_t first = given ? std::strtoull(given, nullptr, 10) : 1;
    pl::outbox_stats total;
    for (std::uint64_t seed = first; seed < first + 300; ++seed) {
        try {
            const pl::outbox_stats one = simulation{seed}.run(10'000);
            total.pushed += one.pushed;
            total.delivered += one.delivered;
            total.refused += one.refused;
            total.gave_up += one.gave_up;
            total.dropped += one.dropped;
            total.handed_back += one.handed_back;
        } catch (const disagreement& found) {
            FAIL("seed " << seed << ": " << std::string{found.what});
        }
    }
    MESSAGE(total.pushed << " pushed: " << total.delivered << " delivered, " << total.refused << " refused, "
                         << total.gave_up << " given up, " << total.dropped << " dropped, "
                         << total.handed_back << " handed back");
    for (const std::uint64_t count :
         {total.delivered, total.refused, total.gave_up, total.dropped, total.handed_back})
        CHECK(count > 1'000); // each end is met often
}
