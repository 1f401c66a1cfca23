// The outbox against its model, through events that the input chooses.

#include "fuzz.hpp"

#include "../support/outbox_model.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::input in{data, size};
    try {
        outbox_model::simulation simulation{[&](std::uint64_t most) { return in.up_to(most); }};
        simulation.run([&] { return !in.empty(); });
    } catch (const outbox_model::disagreement& mismatch) {
        fuzz::require(false, mismatch.what);
    }
    return 0;
}
