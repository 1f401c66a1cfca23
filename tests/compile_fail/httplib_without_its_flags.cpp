// expect: httplib is a separate library here, and its classes may have another layout: compile with its
// expect: flags, as `pkg-config --cflags cpp-httplib` prints them
#ifdef FIXED
#define CPPHTTPLIB_OPENSSL_SUPPORT
#endif
#include <promptlayer/transports/httplib.hpp>
