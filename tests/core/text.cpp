#include <promptlayer.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using promptlayer::detail::scan;

namespace {

constexpr std::string_view hundred_plain =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ !#$%&'()*+,-./:;<=>?@[]^_`{|}~0123456789";

// In a constant expression `scan` reads byte by byte.
static_assert(scan(hundred_plain).code_points == hundred_plain.size());
static_assert(scan(hundred_plain).json_bytes == hundred_plain.size());
static_assert(scan("").code_points == 0 && scan("").valid_utf8);
static_assert(scan("\xF0\x9F\x98\x80").code_points == 1);
static_assert(!scan("\xFF").valid_utf8);

bool valid(std::string_view text) { return scan(text).valid_utf8; }

/// Each class of sequence: plain, escaped, the first and the last of each length, and what is not UTF-8.
constexpr std::string_view sequences[] = {"a",
                                          " ",
                                          "\x7F",
                                          "\"",
                                          "\\",
                                          "\n",
                                          "\t",
                                          "\x01",
                                          "\x1F",
                                          {"\0", 1},
                                          "\"\\\r\x02",
                                          "\xC2\x80",
                                          "\xC3\xA9",
                                          "\xDF\xBF",
                                          "\xE0\xA0\x80",
                                          "\xE0\xBF\xBF",
                                          "\xE1\x80\x80",
                                          "\xEC\xBF\xBF",
                                          "\xED\x80\x80",
                                          "\xED\x9F\xBF",
                                          "\xEE\x80\x80",
                                          "\xEF\xBF\xBF",
                                          "\xF0\x90\x80\x80",
                                          "\xF0\xBF\xBF\xBF",
                                          "\xF1\x80\x80\x80",
                                          "\xF3\xBF\xBF\xBF",
                                          "\xF4\x80\x80\x80",
                                          "\xF4\x8F\xBF\xBF",
                                          "\xE2\x82\xAC\xC3\xA9\xF0\x9F\x98\x80\xC3\xA9",
                                          "\x80",
                                          "\xBF",
                                          "\xC0\x80",
                                          "\xC1\xBF",
                                          "\xC3\xC3\xA9",
                                          "\xC3\xA9\xA9",
                                          "\xC3x\xA9",
                                          "\xE2\x82x\xAC",
                                          "\xE0\x80\x80",
                                          "\xE0\x9F\xBF",
                                          "\xED\xA0\x80",
                                          "\xED\xBF\xBF",
                                          "\xE2\x82\xE2\x82\xAC",
                                          "\xE2\x82\xAC\x80",
                                          "\xF0\x80\x80\x80",
                                          "\xF0\x8F\xBF\xBF",
                                          "\xF4\x90\x80\x80",
                                          "\xF4\xBF\xBF\xBF",
                                          "\xF0\x9F\x98\xC3\xA9",
                                          "\xF0\x9F\x98\x80\x80",
                                          "\xF5\x80\x80\x80",
                                          "\xF8\x88\x80\x80\x80",
                                          "\xFE",
                                          "\xFF"};

/// Returns text between quotes in JSON, byte by byte; nullopt if it is not UTF-8.
std::optional<std::string> expected_json(std::string_view text) {
    constexpr std::string_view hex = "0123456789abcdef", escaped = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    if (!promptlayer::detail::scan_code_points(text).valid_utf8)
        return std::nullopt;
    std::string json;
    for (const char c : text) {
        if (const std::size_t at = escaped.find(c); at != escaped.npos)
            (json += '\\') += letters[at];
        else if (static_cast<unsigned char>(c) < 0x20)
            ((json += "\\u00") += hex[static_cast<unsigned char>(c) >> 4]) += hex[c & 15];
        else
            json += c;
    }
    return json;
}

/// Returns true if text is scanned and written as byte by byte. The text is in memory of its own size, so
/// that sanitizers find each access beyond it.
bool agrees(std::string_view text, std::size_t alignment = 0) {
    std::vector<char> memory(alignment, '\xFF');
    memory.insert(memory.end(), text.begin(), text.end());
    memory.shrink_to_fit();
    const std::string_view copy{memory.data() + alignment, text.size()};
    const auto expected = promptlayer::detail::scan_code_points(text);
    const auto scanned = scan(copy);
    if (scanned.valid_utf8 != expected.valid_utf8 || scanned.code_points != expected.code_points ||
        scanned.json_bytes != expected.json_bytes || scanned.invalid_at != expected.invalid_at)
        return false;
    if (text.empty()) // not allowed as a name
        return true;
    const auto json =
        promptlayer::to_json(promptlayer::track_prompt_view{.prompt_name = copy, .request_id = 1});
    const auto text_json = expected_json(text);
    return json ? text_json && *json == R"({"prompt_name":")" + *text_json + R"(","request_id":1})"
                : !text_json;
}

} // namespace

TEST_CASE("scan counts code points, not bytes") {
    CHECK(scan("").code_points == 0);
    CHECK(scan("a").code_points == 1);
    CHECK(scan("\xC3\xA9").code_points == 1);         // U+00E9
    CHECK(scan("\xE6\xBC\xA2").code_points == 1);     // U+6F22
    CHECK(scan("\xF0\x9F\x98\x80").code_points == 1); // U+1F600
    CHECK(scan(std::string(100, 'x') + "\xC3\xA9" + std::string(7, 'y')).code_points == 108);
    CHECK(scan(hundred_plain).code_points == hundred_plain.size());
}

TEST_CASE("scan accepts the first and the last code point of every length") {
    for (const std::string_view text :
         {std::string_view{"\0", 1}, std::string_view{"\x7F"}, std::string_view{"\xC2\x80"},
          std::string_view{"\xDF\xBF"}, std::string_view{"\xE0\xA0\x80"}, std::string_view{"\xED\x9F\xBF"},
          std::string_view{"\xEE\x80\x80"}, std::string_view{"\xEF\xBF\xBF"},
          std::string_view{"\xF0\x90\x80\x80"}, std::string_view{"\xF4\x8F\xBF\xBF"}}) {
        CHECK(valid(text));
        CHECK(scan(text).code_points == 1);
    }
}

TEST_CASE("scan rejects overlong, truncated, surrogate and out-of-range UTF-8") {
    for (const std::string_view text : {
             "\x80",
             "\xBF", // a continuation alone
             "\xC0\x80",
             "\xC1\xBF",
             "\xE0\x9F\xBF",
             "\xF0\x8F\xBF\xBF", // overlong
             "\xC3",
             "\xE6\xBC",
             "\xF0\x9F\x98",
             "\xE6",
             "\xF0", // truncated by the end
             "\xC3 ",
             "\xE6\xBC ",
             "\xF0\x9F\x98 ",
             "\xF0\x9F \x80", // truncated by another character
             "\xED\xA0\x80",
             "\xED\xBF\xBF", // surrogates
             "\xF4\x90\x80\x80",
             "\xF5\x80\x80\x80",
             "\xFF",
             "\xFE", // above U+10FFFF, never in UTF-8
         })
        CHECK_FALSE(valid(text));
}

TEST_CASE("scan reports the first invalid byte, also after runs of eight plain bytes") {
    for (std::size_t before = 0; before <= 40; ++before) {
        const std::string text = std::string(before, 'x') + "\xFF" + std::string(20, 'y');
        const auto result = scan(text);
        CHECK_FALSE(result.valid_utf8);
        CHECK(result.invalid_at == before);
        CHECK(result.code_points == before);
    }
}

TEST_CASE("scan counts each invalid byte as one byte of JSON") { CHECK(scan("a\xFF\"\x80").json_bytes == 5); }

TEST_CASE("scan counts every escape at every position in a run of eight bytes") {
    for (unsigned c = 0; c < 0x80; ++c) {
        const bool short_escape =
            c == '"' || c == '\\' || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t';
        const std::size_t extra = short_escape ? 1 : c < 0x20 ? 5 : 0;
        for (std::size_t at = 0; at < 24; ++at) {
            std::string text(24, 'x');
            text[at] = static_cast<char>(c);
            CHECK(scan(text).json_bytes == 24 + extra);
            CHECK(scan(text).code_points == 24);
        }
    }
}

TEST_CASE("blocks are scanned and written as bytes are, at every position, end and alignment") {
    for (const std::string_view sequence : sequences) {
        for (const std::string_view around : {"x", "\xC3\xA9", "\xE6\xBC\xA2", "\xF0\x9F\x98\x80"}) {
            for (std::size_t before = 0; before <= 20; ++before) {
                std::string text;
                for (std::size_t i = 0; i < before; ++i)
                    text += around;
                text += sequence;
                for (std::size_t after = 0; after <= 20; ++after) {
                    if (!agrees(text, (before + after) % 16))
                        FAIL(before << " before, " << after
                                    << " after: " << expected_json(text).value_or("invalid"));
                    text += after % 8 == 7 ? around : "y";
                }
            }
        }
    }
}

TEST_CASE("a sequence is checked wherever it stands in a long text that is plain otherwise") {
    for (const std::string_view sequence : sequences) {
        for (std::size_t before = 3335; before <= 3350; ++before) { // longer texts are written in pieces
            const std::string text = std::string(before, 'x').append(sequence).append(600, 'y');
            for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
                const bool agreed = agrees(std::string{text}.erase(before + sequence.size() - 1, cut));
                CHECK_MESSAGE(agreed, before << ": " << expected_json(sequence).value_or("invalid"));
            }
        }
    }
}

TEST_CASE("a sequence is checked in the blocks after one of three bytes") {
    for (const std::string_view sequence : sequences) {
        for (std::size_t between = 0; between <= 100; ++between) {
            const std::string text =
                std::string{"\xE2\x82\xAC"}.append(between, 'x').append(sequence).append(100, 'y');
            const bool agreed = agrees(text);
            CHECK_MESSAGE(agreed, between << ": " << expected_json(sequence).value_or("invalid"));
        }
    }
}

TEST_CASE("a sequence that is cut by the end or by ASCII is found after plain text of any length") {
    for (const std::string_view sequence : {"\xC3", "\xE6\xBC", "\xF0\x9F\x98"}) {
        for (std::size_t before = 0; before <= 200; ++before) {
            const std::string text = std::string(before, 'x').append(sequence);
            const bool agreed = agrees(text) && agrees(text + std::string(100, 'y'));
            CHECK_MESSAGE(agreed, before);
        }
    }
}

TEST_CASE("a text is scanned and written as bytes are, wherever it is cut") {
    const std::string text =
        "Gr\xC3\xBC\xC3\x9F Gott \"\xE6\xBC\xA2\xE5\xAD\x97\"\n \xF0\x9F\x98\x80\xE2\x82\xAC"
        "\xF4\x8F\xBF\xBFxyz\xC3\xA9";
    for (std::size_t begin = 0; begin <= text.size(); ++begin) {
        for (std::size_t end = begin; end <= text.size(); ++end) {
            const bool agreed = agrees(text.substr(begin, end - begin));
            CHECK_MESSAGE(agreed, begin << " to " << end);
        }
    }
}

TEST_CASE("a long text without ASCII is scanned and written as bytes are") {
    for (const std::string_view sequence : {"\xC3\xA9", "\xE6\xBC\xA2", "\xF0\x9F\x98\x80"}) {
        std::string text;
        while (text.size() < 20'000)
            text += sequence;
        CHECK(agrees(text));
    }
}

TEST_CASE("random texts of every length are scanned and written as bytes are") {
    std::minstd_rand random{1};
    for (std::size_t size = 0; size < 20'000; size += size < 1600 ? 1 : 97) {
        std::string text;
        const std::size_t kinds = size % 3 == 0   ? 3
                                  : size % 3 == 1 ? 29
                                                  : std::size(sequences); // 29 are valid
        while (text.size() < size)
            text += sequences[random() % kinds];
        if (!agrees(text, size % 16))
            FAIL(size);
    }
}

TEST_CASE("sanitize replaces control, reordering and invisible characters") {
    const auto shown = [](std::string_view text) { return promptlayer::detail::sanitize(text, text.npos); };
    for (const char* const hidden : {"\x01",
                                     "\x1b",
                                     "\x7f",
                                     "\xC2\x80",
                                     "\xC2\x9F",
                                     "\xC2\xAD",
                                     "\xD8\x9C",
                                     "\xE2\x80\x8B",
                                     "\xE2\x80\x8E",
                                     "\xE2\x80\x8F",
                                     "\xE2\x80\xA8",
                                     "\xE2\x80\xA9",
                                     "\xE2\x80\xAA",
                                     "\xE2\x80\xAE",
                                     "\xE2\x81\xA0",
                                     "\xE2\x81\xA6",
                                     "\xE2\x81\xAF",
                                     "\xEF\xBB\xBF",
                                     "\xF3\xA0\x80\x81",
                                     "\x1f",
                                     "\xF3\xA0\x81\xBF",
                                     "\xF3\xA0\x87\xAF",
                                     "\xEF\xBF\xB9",
                                     "\xEF\xBF\xBB",
                                     "\xF0\x9B\xB2\xA0",
                                     "\xF0\x9D\x85\xBA"})
        CHECK_MESSAGE(shown("a" + std::string{hidden} + "b") == "a b", hidden);
    for (const char* const visible : {" ", "~", "\xC2\xA0", "\xC3\xA9", "\xE2\x80\x8C", "\xE2\x80\x8D",
                                      "\xE2\x80\xA7", "\xE2\x80\xAF", "\xE2\x81\xB0", "\xF0\x9F\x98\x80"})
        CHECK_MESSAGE(shown(visible) == visible, visible);
    CHECK(shown({"a\0b", 3}) == "a b");
}

TEST_CASE("sanitize replaces each invalid byte by U+FFFD") {
    CHECK(promptlayer::detail::sanitize("a\xFF\xC3z", 100) == "a\xEF\xBF\xBD\xEF\xBF\xBDz");
}

TEST_CASE("sanitize cuts before the code point that exceeds the limit") {
    CHECK(promptlayer::detail::sanitize("a\xC3\xA9z", 4) == "a\xC3\xA9z");
    CHECK(promptlayer::detail::sanitize("a\xC3\xA9z", 3) == "a\xC3\xA9");
    CHECK(promptlayer::detail::sanitize("a\xC3\xA9z", 2) == "a");
    CHECK(promptlayer::detail::sanitize("a\xC3\xA9z", 0).empty());
}

TEST_CASE("json_escape escapes quotes, backslashes and hidden characters") {
    using promptlayer::detail::json_escape;
    CHECK(json_escape("a\x1b\xE2\x80\xAE\xF3\xA0\x80\x81\"\\\xC3\xA9") ==
          "a\\u001b\\u202e\\udb40\\udc01\\\"\\\\\xC3\xA9");
    CHECK(json_escape("\xFFz") == "\xEF\xBF\xBDz");
}

TEST_CASE("json_escape returns 64 code points, or as many as are wanted") {
    using promptlayer::detail::json_escape;
    CHECK(json_escape(std::string(65, 'x')) == std::string(64, 'x'));
    CHECK(json_escape("\xC3\xA9\"z", 2) == "\xC3\xA9\\\"");
    CHECK(json_escape("z", 0).empty());
}

TEST_CASE("text is compared without regard to the case of ASCII letters") {
    using promptlayer::detail::equal_ignoring_case;
    CHECK(equal_ignoring_case("", ""));
    CHECK(equal_ignoring_case("aZ-1", "Az-1"));
    CHECK_FALSE(equal_ignoring_case("abc", "abd"));
    CHECK_FALSE(equal_ignoring_case("abc", "xbc"));
    CHECK_FALSE(equal_ignoring_case("abc", "ab"));
    CHECK_FALSE(equal_ignoring_case("@[", "`{"));             // next to the letters
    CHECK_FALSE(equal_ignoring_case("\xC3\x89", "\xC3\xA9")); // U+00C9, U+00E9
}

TEST_CASE("redact finds a secret in any case, percent-encoded or cut after 8 characters") {
    const auto shown = [](std::string_view text, std::string_view secret = "pl_secret_0123") {
        return promptlayer::detail::redact(std::string{text}, secret);
    };
    CHECK(shown("key pl_secret_0123!") == "key [redacted]!");
    CHECK(shown("pl_secret_0123pl_secret_0123") == "[redacted][redacted]");
    CHECK(shown("PL_SECRET_0123") == "[redacted]");
    CHECK(shown("pl%5Fsecret%5f0123") == "[redacted]");
    CHECK(shown("%70%6C%5F%73%65%63%72%65%74") == "[redacted]");
    CHECK(shown("pl_secret_012") == "[redacted]");
    CHECK(shown("pl_secre") == "[redacted]");
    CHECK(shown("pl_secr") == "pl_secr");
    CHECK(shown("pl_secrex") == "[redacted]x");
    CHECK(shown("pl_secr et") == "pl_secr et");
    CHECK(shown("%41%2", "%41%2_key") == "%41%2");
    CHECK(shown("x%41%2_key", "%41%2_key") == "x[redacted]");
    CHECK(shown("pl\\u005fsecret_0123") == "[redacted]");
    CHECK(shown("pl\\u005Fsecret\\u005f0123") == "[redacted]");
    CHECK(shown("pl\\u015fsecret_0123") == "pl\\u015fsecret_0123");
    CHECK(shown(R"(a\/\"\\bcdef)", R"(a/"\bcdef)") == "[redacted]");
    CHECK(shown("%6gl_secret_0123") == "%6gl_secret_0123");
    CHECK(shown("%F0l_secret_0123") == "%F0l_secret_0123");
    CHECK(shown("%69%6A%79%7a_secret", "ijyz_secret") == "[redacted]");
    CHECK(shown(R"(abcdefgh\")", R"(abcdefgh")") == "[redacted]");
    CHECK(shown("pl~sesame~", "pl~sesame~") == "[redacted]");
    CHECK(shown("a k.", "\nk \n") == "a [redacted].");
    CHECK(shown("text", "") == "text");
    CHECK(shown("", "pl_secret_0123").empty());
}

TEST_CASE("a secret of fewer than 8 characters is redacted only as a whole word") {
    const auto shown = [](std::string_view text, std::string_view secret) {
        return promptlayer::detail::redact(std::string{text}, secret);
    };
    CHECK(shown("the key k is unknown, (K)", "k") == "the key [redacted] is unknown, ([redacted])");
    CHECK(shown("k", "k") == "[redacted]");
    CHECK(shown("kk k_ -k k\xC3\xA9", "k") == "kk k_ -k k\xC3\xA9");
    CHECK(shown("pl_keys pl_key", "pl_key") == "pl_keys [redacted]");
    CHECK(shown("pl_seve1", "pl_seve1") == "[redacted]"); // 8 characters
    CHECK(shown("xpl_seve1x", "pl_seve1") == "x[redacted]x");
}

TEST_CASE("letters, digits, hyphens, underscores and bytes beyond ASCII continue a word") {
    for (int byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        const bool continues = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                               c == '-' || c == '_' || byte >= 0x80;
        const auto is_shown = [](const std::string& text) {
            return promptlayer::detail::redact(text, "k") == text;
        };
        CHECK_MESSAGE(is_shown(std::string{"k"} + c) == continues, byte);
        CHECK_MESSAGE(is_shown(c + std::string{"k"}) == continues, byte);
    }
}

TEST_CASE("redact leaves no secret even if the replacement would form it again") {
    const auto shown = [](std::string_view text, std::string_view secret) {
        return promptlayer::detail::redact(std::string{text}, secret);
    };
    CHECK(shown("my [redacted] x", "[redacted]") == "my  x");
    CHECK(shown("redacted", "redacted").empty());
    CHECK(shown("d]abcdefd]abcdefabcdef", "d]abcdef") ==
          "[redacted]"); // not [redacted]abcdef, which contains the secret
    CHECK(shown("pl_secretpl_secret[", "pl_secret[") == "[redacted][redacted]"); // the first secret is cut
    CHECK(shown("aaaaaaaaaaaaaaaaaaaa", "aaaaaaaa") == "[redacted][redacted]aaaa");
}
