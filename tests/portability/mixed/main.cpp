#include "parts.hpp"

namespace {
const part* first = nullptr;
} // namespace

part::part(int (*used)()) noexcept : use{used}, next{first} { first = this; }

int main() {
    int failures = 0;
    for (const part* each = first; each; each = each->next)
        failures += each->use();
    return failures;
}
