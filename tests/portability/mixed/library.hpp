#include <promptlayer.hpp>

#define library_export __attribute__((visibility("default")))

using make_error_t = void(promptlayer::error& error, int status);
using is_error_t = bool(const promptlayer::error& e, promptlayer::errc code);
