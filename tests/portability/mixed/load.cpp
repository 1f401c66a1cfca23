// Loads two libraries, passes errors between them and the program, and unloads and loads one again.

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
        void* const found = ::dlsym(handle_, name);
        REQUIRE(found);
        return *reinterpret_cast<FunctionT*>(found);
    }
};

bool is_loaded(const char* path) {
    void* const handle = ::dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (handle)
        ::dlclose(handle);
    return handle != nullptr;
}

promptlayer::error made_by(const library& maker, int status) {
    promptlayer::error made;
    maker.function<make_error_t>("make_error")(made, status);
    return made;
}

// Uses Boost.JSON in the program, too. If only a library did, Boost.JSON would be bound to it and keep it
// loaded.
promptlayer::error made_here(int status) {
    return promptlayer::decode({status, {}, R"({"message":"said by the service"})"}).error();
}

bool is_known_to(const library& other, const promptlayer::error& e, promptlayer::errc code) {
    return other.function<is_error_t>("is_error")(e, code);
}

} // namespace

TEST_CASE("errors of one shared library compare equal in another and in the program") {
    const library first{FIRST_LIBRARY};
    const library second{SECOND_LIBRARY};
    for (const auto& [status, code] :
         {std::pair{404, promptlayer::errc::not_found}, std::pair{503, promptlayer::errc::server_error}}) {
        CHECK(made_by(first, status).code == code);
        CHECK(is_known_to(second, made_by(first, status), code));
        CHECK(is_known_to(first, made_by(second, status), code));
        CHECK(is_known_to(second, made_here(status), code));
    }
    CHECK_FALSE(is_known_to(second, made_by(first, 404), promptlayer::errc::forbidden));
}

TEST_CASE("a shared library can be unloaded and loaded again, and its errors outlive it") {
    const library second{SECOND_LIBRARY};
    promptlayer::error kept;
    for (int i = 0; i < 3; ++i) {
        const library first{FIRST_LIBRARY};
        if (i > 0)
            CHECK(is_known_to(first, kept, promptlayer::errc::not_found));
        kept = made_by(first, 404);
    }
    CHECK_FALSE(is_loaded(FIRST_LIBRARY));
    CHECK(is_known_to(second, kept, promptlayer::errc::not_found));
}
