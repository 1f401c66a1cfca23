// Compiles the library for programs that define PROMPTLAYER_SEPARATE_COMPILATION in all their files. Add this
// file to such a program once.

#define PROMPTLAYER_SOURCE
#include <promptlayer.hpp>
