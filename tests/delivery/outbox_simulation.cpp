// Compares the outbox with a simple model through random events. PROMPTLAYER_TEST_SEED sets the first seed.

#include "../support/outbox_model.hpp"

#include <promptlayer/outbox.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

TEST_CASE("outbox: three million random events agree with the model") {
    const char* const given = std::getenv("PROMPTLAYER_TEST_SEED");
    const std::uint64_t first = given ? std::strtoull(given, nullptr, 10) : 1;
    promptlayer::outbox_stats total;
    for (std::uint64_t seed = first; seed < first + 300; ++seed) {
        try {
            std::mt19937_64 random{seed};
            int left = 10'000;
            const promptlayer::outbox_stats stats = outbox_model::simulation{[&](std::uint64_t most) {
                                                        return random() % (most + 1);
                                                    }}.run([&] { return left-- > 0; });
            total.pushed += stats.pushed;
            total.delivered += stats.delivered;
            total.rejected += stats.rejected;
            total.failed += stats.failed;
            total.expired += stats.expired;
            total.dropped += stats.dropped;
            total.cancelled += stats.cancelled;
            total.returned += stats.returned;
        } catch (const outbox_model::disagreement& mismatch) {
            FAIL("seed " << seed << ": " << std::string{mismatch.what});
        }
    }
    MESSAGE(total.pushed << " pushed: " << total.delivered << " delivered, " << total.rejected
                         << " rejected, " << total.failed << " failed, " << total.expired << " expired, "
                         << total.dropped << " dropped, " << total.cancelled << " cancelled, "
                         << total.returned << " returned");
    for (const std::uint64_t count : {total.delivered, total.rejected, total.failed, total.expired,
                                      total.dropped, total.cancelled, total.returned})
        CHECK(count > 1'000); // each outcome is frequent
}
