#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>
#include <locale>

int main(int argc, char** argv) {
    if (const char* const name = std::getenv("PROMPTLAYER_TEST_LOCALE"))
        std::locale::global(std::locale{name}); // also that of C
    return doctest::Context{argc, argv}.run();
}
