#include <promptlayer.hpp>
