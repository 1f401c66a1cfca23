// Defines a function with a type of the library in one setting and calls it in another.

#include <promptlayer/error.hpp>

#if defined(BY_PARAMETER)
void cross(const promptlayer::error&);
#else
promptlayer::error cross();
#endif

#if defined(DEFINED) && defined(BY_PARAMETER)
void cross(const promptlayer::error&) {}
#elif defined(DEFINED)
promptlayer::error cross() { return {}; }
#elif defined(BY_PARAMETER)
int main() { cross({}); }
#else
int main() { return cross().status; }
#endif
