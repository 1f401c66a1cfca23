#include <promptlayer.hpp>

static_assert(promptlayer::library_version == PROJECT_VERSION);

int main() {}
