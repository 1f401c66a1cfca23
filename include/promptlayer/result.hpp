#ifndef PROMPTLAYER_RESULT_HPP
#define PROMPTLAYER_RESULT_HPP

#include <promptlayer/detail/abi.hpp>

#include <promptlayer/detail/push_macros.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>
#include <variant>

namespace promptlayer::inline PROMPTLAYER_ABI {

struct error;

namespace detail {

[[noreturn]] PROMPTLAYER_DECL void misuse(const char* message);

} // namespace detail

/// Holds a value or an error, with the names of C++23's `std::expected`. Access to the alternative that is
/// not held ends the program with a message on standard error; it is never undefined behaviour.
template <class T, class E = error>
class [[nodiscard]] result {
    using stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;
    std::variant<stored, E> storage_{};

    template <std::size_t I, class VariantT>
    static constexpr auto& get(VariantT& storage) {
        if (storage.index() != I)
            detail::misuse(I == 0 ? "promptlayer: a result was asked for its value, but holds an error\n"
                                  : "promptlayer: a result was asked for its error, but holds a value\n");
        return *std::get_if<I>(&storage);
    }

public:
    using value_type = T;
    using error_type = E;

    constexpr result() requires std::is_void_v<T>
    = default;
    constexpr result(stored value) : storage_{std::in_place_index<0>, std::move(value)} {}
    constexpr result(E failure) : storage_{std::in_place_index<1>, std::move(failure)} {}

    constexpr bool has_value() const noexcept { return storage_.index() == 0; }
    constexpr explicit operator bool() const noexcept { return has_value(); }

    constexpr stored& value() & { return get<0>(storage_); }
    constexpr const stored& value() const& { return get<0>(storage_); }
    constexpr stored&& value() && { return std::move(get<0>(storage_)); }
    constexpr stored& operator*() & { return get<0>(storage_); }
    constexpr const stored& operator*() const& { return get<0>(storage_); }
    constexpr stored&& operator*() && { return std::move(get<0>(storage_)); }
    constexpr stored* operator->() { return &get<0>(storage_); }
    constexpr const stored* operator->() const { return &get<0>(storage_); }

    constexpr E& error() & { return get<1>(storage_); }
    constexpr const E& error() const& { return get<1>(storage_); }
    constexpr E&& error() && { return std::move(get<1>(storage_)); }

    template <class U>
    constexpr stored value_or(U&& other) const& {
        return has_value() ? **this : static_cast<stored>(std::forward<U>(other));
    }
    template <class U>
    constexpr stored value_or(U&& other) && {
        return has_value() ? *std::move(*this) : static_cast<stored>(std::forward<U>(other));
    }
};

} // namespace promptlayer::inline PROMPTLAYER_ABI

#include <promptlayer/detail/pop_macros.hpp>

#include <promptlayer/detail/misuse.hpp>

#endif
