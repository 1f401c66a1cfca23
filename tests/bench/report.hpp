#ifndef PROMPTLAYER_BENCH_REPORT_HPP
#define PROMPTLAYER_BENCH_REPORT_HPP

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

/// Returns what the figures of a benchmark depend on: the names of the processor and of the compiler.
inline std::string machine() {
#ifdef __clang__
    const std::string compiler = __VERSION__;
#elif defined(__VERSION__)
    const std::string compiler = "GCC " __VERSION__;
#else
    const std::string compiler = "unknown compiler";
#endif
    std::ifstream info{"/proc/cpuinfo"};
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("model name"))
            return line.substr(line.find(':') + 2) + ", " + compiler;
    return "unknown processor, " + compiler;
}

/// Ends the program if a condition is false, because its figures would mean nothing.
inline void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "failed: %s\n", what);
        std::exit(1);
    }
}

#endif
