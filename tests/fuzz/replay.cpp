// Runs a harness with the files of a folder, without libFuzzer.

#include "fuzz.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

int main(int, char** arguments) {
    bool is_empty = true;
    for (const auto& file : std::filesystem::directory_iterator{arguments[1]}) {
        std::ifstream stream{file.path(), std::ios::binary};
        const std::string bytes{std::istreambuf_iterator<char>{stream}, {}};
        std::fprintf(stderr, "%s\n", file.path().c_str());
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        is_empty = false;
    }
    return is_empty ? 1 : 0;
}
