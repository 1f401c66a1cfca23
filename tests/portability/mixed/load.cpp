// Loads two libraries, passes errors between them and the program, and reloads one library.

#include "library.hpp"

#include <doctest/doctest.h>

#include <dlfcn.h>

#include <utility>

namespace {

class library {
    void* handle_;

public:
    explicit library(const char* path) : handle_{::dlopen(path, RTLD_NOW | RTLD_LOCAL)} {
        REQUIRE_MESSAGE(handle_, ::dlerror());
    }
    library(const library&) = delete;
    library& operator=(const library&) = delete;
    ~library() { ::dlclose(handle_); }

    template <class FunctionT>
    FunctionT& function(const char* name) const {
        void* const symbol = ::dlsym(handle_, name);
        REQUIRE(symbol);
        return *reinterpret_cast<FunctionT*>(symbol);
    }
};

bool is_loaded(const char* path) {
    void* const handle = ::dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (handle)
        ::dlclose(handle);
    return handle != nullptr;
}

promptlayer::error error_from(const library& maker, int status) {
    promptlayer::error error;
    maker.function<make_error_t>("make_error")(error, status);
    return error;
}

// Uses Boost.JSON in the program too. If only a library used it, Boost.JSON would be bound to that library
// and keep it loaded.
promptlayer::error error_here(int status) {
    return promptlayer::decode({status, {}, R"({"message":"said by the service"})"}).error();
}

bool recognizes(const library& other, const promptlayer::error& e, promptlayer::errc code) {
    return other.function<is_error_t>("is_error")(e, code);
}

} // namespace

TEST_CASE("errors of one shared library compare equal in another and in the program") {
    const library first{FIRST_LIBRARY};
    const library second{SECOND_LIBRARY};
    for (const auto& [status, code] :
         {std::pair{404, promptlayer::errc::not_found}, std::pair{503, promptlayer::errc::server_error}}) {
        CHECK(error_from(first, status).code == code);
        CHECK(recognizes(second, error_from(first, status), code));
        CHECK(recognizes(first, error_from(second, status), code));
        CHECK(recognizes(second, error_here(status), code));
    }
    CHECK_FALSE(recognizes(second, error_from(first, 404), promptlayer::errc::forbidden));
}

TEST_CASE("a shared library can be unloaded and loaded again, and its errors outlive it") {
    const library second{SECOND_LIBRARY};
    promptlayer::error error;
    for (int i = 0; i < 3; ++i) {
        const library first{FIRST_LIBRARY};
        if (i > 0)
            CHECK(recognizes(first, error, promptlayer::errc::not_found));
        error = error_from(first, 404);
    }
    CHECK_FALSE(is_loaded(FIRST_LIBRARY));
    CHECK(recognizes(second, error, promptlayer::errc::not_found));
}
