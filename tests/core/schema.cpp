#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pl = promptlayer;

namespace {

template <class T>
constexpr bool makes_integer =
    std::is_convertible_v<T, pl::integer>&& std::is_constructible_v<pl::integer, T>;
template <class T>
constexpr bool makes_no_integer =
    !std::is_convertible_v<T, pl::integer> && !std::is_constructible_v<pl::integer, T> &&
    !std::is_constructible_v<std::optional<pl::integer>, T> &&
    !std::is_constructible_v<pl::required<pl::integer>, T>;

enum unscoped { enumerator };

static_assert(makes_integer<signed char> && makes_integer<unsigned char> && makes_integer<short>);
static_assert(makes_integer<unsigned short> && makes_integer<int> && makes_integer<unsigned>);
static_assert(makes_integer<long> && makes_integer<long long> && makes_integer<std::int64_t>);
static_assert(makes_no_integer<std::uint64_t> && makes_no_integer<unsigned long long>);
static_assert(makes_no_integer<double> && makes_no_integer<float> && makes_no_integer<long double>);
static_assert(makes_no_integer<bool> && makes_no_integer<char> && makes_no_integer<wchar_t>);
static_assert(makes_no_integer<char8_t> && makes_no_integer<char16_t> && makes_no_integer<char32_t>);
static_assert(makes_no_integer<const char*> && makes_no_integer<std::string> && makes_no_integer<unscoped>);

static_assert(std::is_aggregate_v<pl::track_prompt> && std::is_aggregate_v<pl::track_prompt_view>);
static_assert(std::is_same_v<decltype(pl::track_prompt::prompt_input_variables),
                             std::map<std::string, std::string, std::less<>>>);
static_assert(std::is_same_v<decltype(pl::track_prompt_view::prompt_input_variables),
                             std::span<const std::pair<std::string_view, std::string_view>>>);
static_assert(!std::is_constructible_v<pl::required<std::string_view>, std::nullptr_t>);

static_assert(std::is_constructible_v<pl::required<bool>, bool>);
static_assert(!std::is_constructible_v<pl::required<bool>, const char*>);
static_assert(!std::is_constructible_v<pl::required<bool>, int> &&
              !std::is_constructible_v<pl::required<bool>, double>);

// Elements that are created during the iteration cannot be referred to.
struct generated_range {
    struct iterator {
        using value_type = std::pair<std::string, std::string>;
        using difference_type = std::ptrdiff_t;
        value_type operator*() const { return {}; }
        iterator& operator++() { return *this; }
        iterator operator++(int) { return *this; }
        bool operator==(const iterator&) const { return true; }
    };
    iterator begin() const { return {}; }
    iterator end() const { return {}; }
};
static_assert(std::ranges::forward_range<const generated_range&>);
static_assert(!pl::detail::variables<generated_range>);

// The members are declared in the order in which the service documents them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 1> named{{{"user", "hi"}}};
constexpr pl::track_prompt_view everything{
    .prompt_name = "a", .prompt_input_variables = named, .request_id = 1, .version = 2, .label = {}};
static_assert(pl::is_valid(everything));
static_assert(everything.version == 2);

} // namespace

TEST_CASE("an integer holds the smallest and the largest 64-bit value") {
    CHECK(std::int64_t{pl::integer{INT64_MIN}} == INT64_MIN);
    CHECK(std::int64_t{pl::integer{INT64_MAX}} == INT64_MAX);
    CHECK(std::int64_t{pl::integer{std::uint32_t{4294967295u}}} == 4294967295);
}

TEST_CASE("a request can be stored in pairs, tuples and maps") {
    const pl::track_prompt request{.prompt_name = "a", .request_id = 1};
    const std::pair<int, pl::track_prompt> pair{1, request};
    const std::tuple<int, pl::track_prompt> tuple{1, {.prompt_name = "a", .request_id = 1}};
    std::map<int, pl::track_prompt> map;
    map.emplace(1, request);
    CHECK(pair.second == request);
    CHECK(std::get<1>(tuple) == request);
    CHECK(map.at(1) == request);
}

TEST_CASE("a required member reads like its value") {
    const pl::track_prompt request{.prompt_name = "greeting", .request_id = 7};
    CHECK(request.prompt_name == "greeting");
    CHECK(*request.request_id == 7);
    CHECK(request.prompt_name->size() == 8);
    const std::string& name = request.prompt_name;
    CHECK(&name == &request.prompt_name.value());
    CHECK(request == pl::track_prompt{.prompt_name = "greeting", .request_id = 7});
    CHECK(request != pl::track_prompt{.prompt_name = "greeting", .request_id = 8});
}

TEST_CASE("view_of refers to any range of pairs of strings without a copy") {
    const std::unordered_map<std::string, std::string> hashed{{"user", "hi"}};
    const auto request = pl::view_of(hashed, {.prompt_name = "a", .request_id = 1, .label = "prod"});
    CHECK(pl::to_json(request).value() ==
          R"({"prompt_name":"a","prompt_input_variables":{"user":"hi"},"request_id":1,"label":"prod"})");
    const auto first = request.prompt_input_variables.begin();
    CHECK(first->second.data() == hashed.at("user").data());

    const std::vector<std::pair<std::string, const char*>> listed{{"b", "2"}, {"a", "1"}};
    CHECK(pl::to_json(pl::view_of(listed, {.prompt_name = "a", .request_id = 1})).value() ==
          R"({"prompt_name":"a","prompt_input_variables":{"b":"2","a":"1"},"request_id":1})");

    const std::pair<const char*, const char*> array[] = {{"x", "y"}};
    CHECK(pl::is_valid(pl::view_of(array, {.prompt_name = "a", .request_id = 1})));

    CHECK(pl::to_json(pl::view_of(request.prompt_input_variables, {.prompt_name = "a", .request_id = 1}))
              .value() == R"({"prompt_name":"a","prompt_input_variables":{"user":"hi"},"request_id":1})");

    const std::map<std::string_view, std::string_view> none;
    CHECK(pl::to_json(pl::view_of(none, {.prompt_name = "a", .request_id = 1})).value() ==
          R"({"prompt_name":"a","request_id":1})");
}

TEST_CASE("a view accepts a named array or vector of pairs") {
    const std::vector<std::pair<std::string_view, std::string_view>> variables{{"user", "hi"}};
    const pl::track_prompt_view request{
        .prompt_name = "a", .prompt_input_variables = variables, .request_id = 1};
    CHECK(pl::to_json(request).value() ==
          R"({"prompt_name":"a","prompt_input_variables":{"user":"hi"},"request_id":1})");
}

TEST_CASE("an optional member holds a value or nothing and rejects a null pointer") {
    using text = pl::optional<std::string>;
    static_assert(!std::is_constructible_v<text, std::nullptr_t> &&
                  !std::is_assignable_v<text&, std::nullptr_t>);
    static_assert(!std::is_constructible_v<pl::optional<bool>, int>);
    static_assert(std::is_convertible_v<const char*, text> &&
                  std::is_convertible_v<std::optional<std::string>, text>);
    text member;
    CHECK_FALSE(member.has_value());
    CHECK(member == std::nullopt);
    CHECK(member.value_or("other") == "other");
    member = "value";
    REQUIRE(member);
    CHECK(*member == "value");
    CHECK(member->size() == 5);
    CHECK(member == "value");
    CHECK(member != "other");
    CHECK(member.value_or("other") == "value");
    CHECK(std::as_const(member).value() == "value");
    const std::optional<std::string> plain = member;
    CHECK(plain == "value");
    CHECK(plain == member);
    CHECK(member == plain);
    CHECK_FALSE(member == std::optional<std::string>{});
    CHECK(text{} == std::optional<std::string>{});
    CHECK(std::optional<std::string>{} == text{});
    CHECK_FALSE(text{} == "");
    *member += "s";
    member->append("!");
    CHECK(member.value() == "values!");
    CHECK(member.emplace(3u, 'x') == "xxx");
    member = std::optional<std::string>{};
    CHECK_FALSE(member.has_value());
    member = "again";
    member.reset();
    CHECK(member == text{});
    member = std::nullopt;
    CHECK_FALSE(member.has_value());
    const pl::optional<pl::integer> number = std::optional<long>{7};
    CHECK(*number == 7);
    static_assert(!std::is_convertible_v<std::optional<double>, pl::optional<pl::integer>>);
}
