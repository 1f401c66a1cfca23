// expect: optional<double>
#include <cstdint>
#include <promptlayer.hpp>

std::int64_t price = 1;

auto set_price(promptlayer::log_request& request) {
#ifdef FIXED
    request.price = static_cast<double>(price);
#else
    request.price = price; // a double may round it
#endif
}
