// expect: httplib is a library here, whose classes may be laid out in another way: compile with its
// expect: own flags, as `pkg-config --cflags cpp-httplib` prints them
#ifdef FIXED
#define CPPHTTPLIB_OPENSSL_SUPPORT
#endif
#include <promptlayer/transports/httplib.hpp>
