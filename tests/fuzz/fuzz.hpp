#ifndef PROMPTLAYER_TESTS_FUZZ_HPP
#define PROMPTLAYER_TESTS_FUZZ_HPP

// What the harnesses share. Each defines `LLVMFuzzerTestOneInput`, which libFuzzer or replay.cpp calls.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

/// Ends the program if a property does not hold.
inline void require(bool holds, const char* property) {
    if (holds)
        return;
    std::fprintf(stderr, "the property does not hold: %s\n", property);
    std::abort();
}

/// Takes values from the front of an input. At its end, numbers are 0 and texts are empty.
class input {
    std::string_view rest_;

public:
    input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

    bool empty() const { return rest_.empty(); }

    /// Returns at most `count` bytes.
    std::string_view take(std::size_t count) {
        const std::string_view taken = rest_.substr(0, count);
        rest_.remove_prefix(taken.size());
        return taken;
    }

    std::string_view rest() { return take(rest_.size()); }

    /// Returns the text before `separator`, and drops the separator.
    std::string_view until(std::string_view separator) {
        const std::string_view taken = take(std::min(rest_.find(separator), rest_.size()));
        take(separator.size());
        return taken;
    }

    std::string_view line() { return until("\n"); }

    /// Returns a number from 0 to `most`. Uses as many bytes as `most` has.
    std::uint64_t up_to(std::uint64_t most) {
        std::uint64_t number = 0;
        for (std::uint64_t left = most; left != 0 && !rest_.empty(); left >>= 8)
            number = number << 8 | static_cast<unsigned char>(take(1)[0]);
        return most + 1 == 0 ? number : number % (most + 1);
    }

    bool flag() { return up_to(1) == 1; }
};

/// A code point at the front of a text. Invalid bytes have none, and count one by one.
struct code_point {
    std::optional<char32_t> value{};
    std::size_t size = 1;
};

/// Decodes the front of `text`, which is not empty, as RFC 3629 says.
inline code_point decode(std::string_view text) {
    const unsigned lead = static_cast<unsigned char>(text[0]);
    const std::size_t size = lead < 0x80         ? 1
                             : lead >> 5 == 0x06 ? 2
                             : lead >> 4 == 0x0E ? 3
                             : lead >> 3 == 0x1E ? 4
                                                 : 0;
    if (size == 0 || size > text.size())
        return {};
    char32_t value = size == 1 ? lead : lead & (0x7F >> size);
    for (std::size_t i = 1; i < size; ++i) {
        const unsigned byte = static_cast<unsigned char>(text[i]);
        if (byte >> 6 != 2)
            return {};
        value = value << 6 | (byte & 0x3F);
    }
    constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool is_surrogate = value >= 0xD800 && value <= 0xDFFF;
    if (value < least[size] || is_surrogate || value > 0x10FFFF)
        return {};
    return {value, size};
}

/// Requires UTF-8 without characters that change how a log shows the text around them.
inline void require_harmless(std::string_view text) {
    while (!text.empty()) {
        const auto [value, size] = decode(text);
        require(value.has_value(), "shown text is UTF-8");
        require(*value >= 0x20 && (*value < 0x7F || *value > 0x9F), "shown text has no control character");
        require(*value != 0x2028 && *value != 0x2029, "shown text has no line separator");
        require(*value != 0x061C && *value != 0x200E && *value != 0x200F &&
                    (*value < 0x202A || *value > 0x202E) && (*value < 0x2066 || *value > 0x2069),
                "shown text has no bidirectional control");
        text.remove_prefix(size);
    }
}

} // namespace fuzz

#endif
