#include <promptlayer/detail/number.hpp>

#include <doctest/doctest.h>

#include <clocale>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

using promptlayer::detail::is_finite;
using promptlayer::detail::max_number_size;
using promptlayer::detail::read_number;

namespace {

using limits = std::numeric_limits<double>;

constexpr double double_of(std::uint64_t bits) { return __builtin_bit_cast(double, bits); }

static_assert(is_finite(0.0) && is_finite(-0.0) && is_finite(1.5));
static_assert(is_finite(limits::max()) && is_finite(limits::lowest()) && is_finite(limits::denorm_min()));
static_assert(!is_finite(double_of(0x7FF0'0000'0000'0000)));
static_assert(!is_finite(double_of(0xFFF0'0000'0000'0000)));
static_assert(!is_finite(double_of(0x7FF8'0000'0000'0000)));

std::string written(double value) {
    char buffer[max_number_size];
    return std::string(promptlayer::detail::write_number(value, buffer));
}

std::string printed(double value) {
    char buffer[max_number_size];
    return std::string(promptlayer::detail::write_number_by_printf(value, buffer));
}

std::uint64_t bits_of(double value) { return __builtin_bit_cast(std::uint64_t, value); }

// Compares bits, so that 0 is not -0.
bool reads_as(std::string_view number, double expected) {
    const auto value = read_number(number);
    return value && bits_of(*value) == bits_of(expected);
}

std::string zeros(std::size_t count) { return std::string(count, '0'); }

} // namespace

TEST_CASE("is_finite tells infinities and NaN at run time from all other numbers") {
    const auto is_finite_of = [](std::uint64_t bits) {
        double value = 0; // copied to as bytes, so that no compiler assumes anything of it
        std::memcpy(&value, &bits, sizeof value);
        return is_finite(value);
    };
    for (const std::uint64_t sign : {std::uint64_t{0}, std::uint64_t{1} << 63}) {
        CHECK(is_finite_of(sign));
        CHECK(is_finite_of(sign | 1));
        CHECK(is_finite_of(sign | 0x7FEF'FFFF'FFFF'FFFF));
        CHECK_FALSE(is_finite_of(sign | 0x7FF0'0000'0000'0000));
        CHECK_FALSE(is_finite_of(sign | 0x7FF0'0000'0000'0001));
        CHECK_FALSE(is_finite_of(sign | 0x7FF8'0000'0000'0000));
        CHECK_FALSE(is_finite_of(sign | 0x7FFF'FFFF'FFFF'FFFF));
    }
}

TEST_CASE("write_number writes the shortest text of known values") {
    CHECK(written(0.0) == "0");
    CHECK(written(-0.0) == "-0");
    CHECK(written(1) == "1");
    CHECK(written(-1.5) == "-1.5");
    CHECK(written(0.1) == "0.1");
    CHECK(written(0.1 + 0.2) == "0.30000000000000004");
    CHECK(written(100) == "100");
    CHECK(written(1e21) == "1e+21");
    CHECK(written(1e-7) == "1e-07");
    CHECK(written(9007199254740992.0) == "9007199254740992");
    CHECK(written(limits::denorm_min()) == "5e-324");
    CHECK(written(limits::max()) == "1.7976931348623157e+308");
    CHECK(written(-limits::min()) == "-2.2250738585072014e-308");
    CHECK(written(-limits::min()).size() == max_number_size);
}

TEST_CASE("write_number_by_printf writes the same text as write_number") {
    for (const double value : {0.0,
                               -0.0,
                               0.1,
                               0.1 + 0.2,
                               1.0,
                               -1.5,
                               100.0,
                               12345.0,
                               10000.0,
                               100000.0,
                               120000.0,
                               1e15,
                               1e21,
                               1.5e22,
                               123456789012345680000.0,
                               9007199254740993.0,
                               0.001,
                               0.0001,
                               0.00012,
                               1e-7,
                               1.25e-7,
                               limits::denorm_min(),
                               limits::min(),
                               -limits::min(),
                               limits::max()})
        CHECK(printed(value) == written(value));
    std::uint64_t bits = 1, different = 0;
    for (int i = 0; i < 10'000; ++i) {
        bits = bits * 0x5851'F42D'4C95'7F2D + 0x1405'7B7E'F767'814F;
        const double value = double_of(bits);
        if (is_finite(value) && printed(value) != written(value))
            ++different;
    }
    CHECK(different == 0);
}

TEST_CASE("read_number reads what write_number has written, for a million random doubles") {
    std::uint64_t state = 1, different = 0;
    for (int i = 0; i < 1'000'000; ++i) {
        std::uint64_t bits = (state += 0x9E37'79B9'7F4A'7C15); // splitmix64
        bits = (bits ^ bits >> 30) * 0xBF58'476D'1CE4'E5B9;
        bits = (bits ^ bits >> 27) * 0x94D0'49BB'1331'11EB;
        bits ^= bits >> 31;
        constexpr std::uint64_t exponent = 0x7FF0'0000'0000'0000;
        if ((bits & exponent) != exponent && bits_of(read_number(written(double_of(bits))).value()) != bits)
            ++different;
    }
    CHECK(different == 0);
}

TEST_CASE("read_number reads every form of a number") {
    CHECK(reads_as("0", 0.0));
    CHECK(reads_as("-0", -0.0));
    CHECK(reads_as("-0.0e5", -0.0));
    CHECK(reads_as("0.000e+99999", 0.0));
    CHECK(reads_as("1", 1));
    CHECK(reads_as("-12.5", -12.5));
    CHECK(reads_as("12.5E1", 125));
    CHECK(reads_as("12.5e+01", 125));
    CHECK(reads_as("12.5e-1", 1.25));
    CHECK(reads_as("0.00125e0003", 1.25));
    CHECK(reads_as("100.00", 100));
    CHECK(reads_as("0.1", 0.1));
    CHECK(reads_as("123456789012345678901234567890", 123456789012345678901234567890.0));
    CHECK(reads_as("0.000000000000000000000000000001", 1e-30));
}

TEST_CASE("read_number rounds to the nearest double, and to an even one in the middle") {
    CHECK(reads_as("9007199254740993", 9007199254740992.0));
    CHECK(reads_as("9007199254740995", 9007199254740996.0));
    CHECK(reads_as("9007199254740993." + zeros(20), 9007199254740992.0));
    CHECK(reads_as("9007199254740993." + zeros(20) + "1", 9007199254740994.0));
    CHECK(reads_as("9007199254740992." + std::string(900, '9'), 9007199254740992.0));
    // 1 + 2^-53, the middle between 1 and the next double
    const std::string middle = "1.00000000000000011102230246251565404236316680908203125";
    CHECK(reads_as(middle, 1.0));
    CHECK(reads_as(middle + "1", 1.0 + limits::epsilon()));
    for (const std::size_t size : {700U, 745U, 746U, 747U, 748U, 749U, 2000U, 100'000U}) {
        CHECK(reads_as(middle + zeros(size), 1.0));
        CHECK(reads_as(middle + zeros(size) + "1", 1.0 + limits::epsilon()));
        CHECK(reads_as(middle + zeros(size) + "1" + zeros(size), 1.0 + limits::epsilon()));
    }
    CHECK(reads_as("2.2250738585072011e-308", double_of(0x000F'FFFF'FFFF'FFFF)));
    CHECK(reads_as("2.2250738585072012e-308", limits::min()));
    // 2^-1075, the middle between 0 and the smallest double
    CHECK(reads_as("2.4703282292062327e-324", 0.0));
    CHECK(reads_as("2.4703282292062328e-324", limits::denorm_min()));
    CHECK(reads_as("-2.4703282292062328e-324", -limits::denorm_min()));
}

TEST_CASE("read_number returns nullopt above the largest double and zero below the smallest") {
    CHECK(reads_as("1.7976931348623157e308", limits::max()));
    CHECK(reads_as("1.7976931348623158e308", limits::max()));
    CHECK(!read_number("1.7976931348623159e308"));
    CHECK(!read_number("-1.7976931348623159e308"));
    CHECK(reads_as("5e-324", limits::denorm_min()));
    CHECK(reads_as("3e-324", limits::denorm_min()));
    CHECK(reads_as("2e-324", 0.0));
    CHECK(reads_as("-2e-324", -0.0));
    for (const std::string exponent : {"309", "399", "400", "401", "2147483647", "9223372036854775807",
                                       "9223372036854775808", "99999999999999999999999999999999"}) {
        CAPTURE(exponent);
        CHECK(!read_number("1e" + exponent));
        CHECK(!read_number("-1.5E+" + exponent));
        CHECK(reads_as("0e" + exponent, 0.0));
        CHECK(reads_as("0e-" + exponent, 0.0));
        CHECK(reads_as("-1e-" + exponent, exponent == "309" ? -1e-309 : -0.0));
    }
}

TEST_CASE("read_number reads a million digits, also if the exponent balances them") {
    CHECK(!read_number("1" + zeros(1'000'000)));
    CHECK(reads_as("1" + zeros(1'000'000) + "e-1000000", 1.0));
    CHECK(reads_as("1" + zeros(1'000'000) + "e-1000001", 0.1));
    CHECK(reads_as("0." + zeros(1'000'000) + "1", 0.0));
    CHECK(reads_as("0." + zeros(1'000'000) + "15e1000001", 1.5));
    CHECK(reads_as("-0." + std::string(1'000'000, '3'), -1.0 / 3));
}

TEST_CASE("read_number reads a middle of 768 digits, the most there are") {
    // (2^54 - 1) * 2^-1075, between the largest double below 2^-1021 and 2^-1021
    const std::string middle =
        "445014771701440251914764251404153604015403552681397747857675352661202665683499514137081268292064"
        "610847821649864407543211202252060024805475438366959278553944287415798167306559780886369972946500"
        "822093454616939395562405743247311393587179131470373640557744498962306030263523273266659389190686"
        "273844438061610757538988082348741561964516148197776110323581423800429751880383178430296416384978"
        "052662540451464236950154372290444819242526339724727755372028367612233140452755328181529638887107"
        "210867274745595602918620135732098423503356981704302231953474664667838396644265370703825667756978"
        "382676143106568194200775798725448137345332679521829966869966268975935330693818311826037979822904"
        "224956476109468201955118135219258317189939548603786162277173854562306587467901408672332763671875";
    REQUIRE(middle.size() == 768);
    const double above = 2 * limits::min();
    const double below = double_of(bits_of(above) - 1);
    CHECK(reads_as("0." + middle + "e-307", above)); // the even one
    CHECK(reads_as("0." + middle.substr(0, 767) + "4" + std::string(100, '9') + "e-307", below));
    // (2^54 - 3) * 2^-1075: the even one is below
    const std::string lower =
        "445014771701440202508199667279499186358524265859260511351695091228726223124931264069530541271189"
        "424317838013700808305231545782515453032382772695923684574304409936197089118747150815050941806048"
        "037511737832041185193533879641611520514874130831632725201246060231058690536206311752656217652146"
        "466431814205051640436322226680064743260560117135282915796422274554896821334728738317548403413978"
        "098469341510556195293821919814730032341053661708792231510873354131880491105553390278848567812190"
        "177545006298062245710295816371174594568773301103242116891776567137054973871082078224775842509670"
        "618916870627821633352993761380751142008862499795052791018709663463944015644907297315659352441231"
        "715398102212132212018470035807616260163568645811358486831521563686919762403704226016998291015625";
    REQUIRE(lower.size() == 768);
    CHECK(reads_as("0." + lower + "e-307", double_of(bits_of(above) - 2)));
    for (const std::size_t size : {0U, 1U, 30U, 31U, 32U, 33U, 1000U}) {
        CHECK(reads_as("0." + lower + zeros(size) + "e-307", double_of(bits_of(above) - 2)));
        CHECK(reads_as("0." + lower + zeros(size) + "1e-307", below));
    }
}

// Tests nothing where no locale with a decimal comma is installed.
TEST_CASE("numbers are read and written with a point in a locale with a decimal comma") {
    const std::string before = std::setlocale(LC_ALL, nullptr);
    for (const char* const name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "de-DE", "German"}) {
        if (std::setlocale(LC_ALL, name) != nullptr)
            break;
    }
    CHECK(written(-1.5) == "-1.5");
    CHECK(printed(-1.5) == "-1.5");
    CHECK(reads_as("-1.5", -1.5));
    CHECK(reads_as("1234567.25e-2", 12345.6725));
    std::setlocale(LC_ALL, before.c_str());
}
