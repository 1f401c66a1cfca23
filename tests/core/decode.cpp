#include <promptlayer.hpp>

#include "../support/samples.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace pl = promptlayer;
using pl::errc;
using test_support::repeat;

namespace {

constexpr const char* success_body = R"({"success":true,"message":"Tracked"})";

pl::config settings() { return {.api_key = "pl_sesame"}; }

pl::result<pl::track_response> decoded(int status, std::string body) {
    return pl::decode(settings(), pl::http_response{status, {}, std::move(body)});
}

pl::error error_of(int status, std::string body) {
    auto outcome = decoded(status, std::move(body));
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().status == status);
    return std::move(outcome).error();
}

struct flagged_reply {
    bool success = false;
    std::string message{};
    bool cached = false;
    std::string note{};

    using schema = pl::reply_schema<pl::field<"success", &flagged_reply::success>, //
                                    pl::field<"message", &flagged_reply::message>,
                                    pl::field<"cached", &flagged_reply::cached>,
                                    pl::field<"note", &flagged_reply::note>>;
};

struct flagged_request {
    static constexpr int success_status = 0;
    using reply = flagged_reply;
};

} // namespace

TEST_CASE("a 200 with success is a track_response, and unknown members are ignored") {
    const auto outcome = decoded(200, success_body);
    REQUIRE(outcome.has_value());
    CHECK(outcome->success);
    CHECK(outcome->message == "Tracked");
    CHECK(decoded(200, R"( {"more":{"a":[1,null]},"message":"","success":true,"more":2} )").has_value());
    CHECK(pl::decode(pl::http_response{200, {}, success_body})->message == "Tracked");
}

TEST_CASE("a 200 with success false is rejected with the service's message") {
    const auto e = error_of(200, R"({"success":false,"message":"no such\nprompt pl_sesame"})");
    CHECK(e.code == errc::rejected);
    CHECK(e.message == "the service reports that it did not succeed (HTTP 200): no such prompt [redacted]");
    CHECK_FALSE(e.retryable());
    const auto long_error = error_of(200, R"({"success":false,"message":")" + std::string(600, 'x') + "\"}");
    CHECK(long_error.message.ends_with(": " + std::string(512, 'x')));
}

TEST_CASE("only success and message of a reply tell that it is rejected, and why") {
    const auto outcome = pl::decode<flagged_request>(
        {200, {}, R"({"success":false,"message":"why","cached":true,"note":"else"})"});
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().code == errc::rejected);
    CHECK(outcome.error().message.ends_with(": why"));
}

TEST_CASE("a 200 that breaks the interface is malformed_response with its violations") {
    for (const char* body :
         {"", "x", "<html>", "[]", "null", "{}", R"({"success":true})", R"({"message":"x"})",
          R"({"success":1,"message":"x"})", R"({"success":"true","message":"x"})",
          R"({"success":true,"message":null})", R"({"success":true,"message":"x"}x)",
          "{\"success\":true,\"message\":\"\xFF\"}"}) {
        const auto e = error_of(200, body);
        CHECK(e.code == errc::malformed_response);
        CHECK(e.message.starts_with("the response does not match the interface of the service (HTTP 200): "));
        CHECK_FALSE(e.retryable());
    }
    const auto e = error_of(200, R"({"success":1})");
    REQUIRE(e.violations.size() == 2);
    CHECK(e.message.ends_with("success: must be a boolean, is a number; message: is required"));
    CHECK(error_of(200, R"({"message":"x"})").message.ends_with(": success: is required"));
    const auto followed = error_of(200, R"({"success":true,"message":"x"} x)").violations.at(0);
    CHECK(followed == pl::violation{"", pl::rule::trailing_text, 0, 31, followed.message});
}

TEST_CASE("a 200 over the size limit or nested past 32 is malformed_response") {
    const std::string wide = R"({"success":true,"message":""})";
    const auto padded = [&](std::size_t size) { return wide + std::string(size - wide.size(), ' '); };
    CHECK(decoded(200, padded(1024 * 1024)).has_value());
    CHECK(error_of(200, padded(1024 * 1024 + 1)).code == errc::malformed_response);
    auto narrow = settings();
    narrow.max_response_bytes = wide.size();
    CHECK(pl::decode(narrow, {200, {}, wide}).has_value());
    CHECK(pl::decode(narrow, {200, {}, wide + " "}).error().code == errc::malformed_response);

    const auto nested = [](std::size_t depth) {
        return R"({"success":true,"message":"","x":)" + std::string(depth - 1, '[') +
               std::string(depth - 1, ']') + "}";
    };
    CHECK(decoded(200, nested(32)).has_value());
    CHECK(error_of(200, nested(33)).code == errc::malformed_response);
}

TEST_CASE("each status maps to its errc, whatever the body holds") {
    const std::pair<int, errc> codes[] = {
        {400, errc::bad_request},       {401, errc::unauthorized},      {403, errc::forbidden},
        {404, errc::not_found},         {409, errc::conflict},          {422, errc::unprocessable},
        {429, errc::rate_limited},      {500, errc::server_error},      {503, errc::server_error},
        {599, errc::server_error},      {600, errc::unexpected_status}, {499, errc::unexpected_status},
        {408, errc::unexpected_status}, {301, errc::unexpected_status}, {302, errc::unexpected_status},
        {307, errc::unexpected_status}, {201, errc::unexpected_status}, {204, errc::unexpected_status},
        {100, errc::unexpected_status}, {0, errc::unexpected_status},   {-1, errc::unexpected_status}};
    for (const auto& [status, code] : codes) {
        for (const std::string& body :
             {std::string{success_body}, std::string{}, std::string{"<html>"}, std::string{"\xFF\x00", 2},
              std::string(100, '['), std::string(2 * 1024 * 1024, '{'),
              std::string{R"({"detail":7,"message":null,"error":[]})"}}) {
            const auto e = error_of(status, body);
            CHECK(e.code == code);
            CHECK(e.message.find("(HTTP " + std::to_string(status) + ")") != std::string::npos);
            CHECK_FALSE(e.failure.has_value());
        }
    }
}

TEST_CASE("an error message quotes the service's message, error or detail") {
    CHECK(error_of(400, R"({"message":"first","error":"second","detail":"third"})").message ==
          "the service refused the request (HTTP 400): first");
    CHECK(error_of(400, R"({"error":"second","detail":"third"})").message.ends_with(": second"));
    CHECK(error_of(400, R"({"message":7,"error":"","detail":"third"})").message.ends_with(": third"));
    CHECK(error_of(503, R"({"error":{"message":"inner","code":7}})").message ==
          "the service failed (HTTP 503): inner");
    CHECK(error_of(400, R"({"else":"other"})").message == "the service refused the request (HTTP 400)");
    CHECK(error_of(302, R"({"message":"moved"})").message.ends_with("(HTTP 302): moved"));
}

TEST_CASE("a FastAPI error list becomes violations") {
    const auto e = error_of(422, R"({"detail":[
        {"loc":["body","label"],"msg":"too long","type":"value_error"},
        {"loc":["body","prompt_input_variables","user \"x\""],"msg":"str type expected","type":"type_error"},
        {"loc":["body","items",3,"name"],"msg":"bad"},
        {"loc":["header","x-api-key"],"type":"value_error.missing"},
        {"msg":"no place"}, 7, null, {"loc":7,"msg":[]}]})");
    CHECK(e.code == errc::unprocessable);
    REQUIRE(e.violations.size() == 5);
    CHECK(e.violations[0] == pl::violation{"label", pl::rule::service, 0, 0, "too long"});
    CHECK(to_string(e.violations[1]) == R"(prompt_input_variables["user \"x\""]: str type expected)");
    CHECK(to_string(e.violations[2]) == R"(items[3]["name"]: bad)");
    CHECK(to_string(e.violations[3]) == R"(header["x-api-key"]: value_error.missing)");
    CHECK(to_string(e.violations[4]) == "no place");
    CHECK(e.message.starts_with(
        "the service found the request not valid (HTTP 422): label: too long; prompt_input"));
}

TEST_CASE("the first 64 entries of an error list are kept and the message stays short") {
    std::string list;
    for (int i = 0; i < 1000; ++i)
        list += R"({"loc":["body","x"],"msg":"m"},)";
    list.back() = ']';
    const auto e = error_of(422, R"({"detail":[)" + list + "}");
    REQUIRE(e.violations.size() == 65);
    CHECK(e.violations.back().actual == 936);
    CHECK(e.message.size() < 600);
}

TEST_CASE("service text is cut at 512 bytes, between code points") {
    const std::string head = "the service refused the request (HTTP 400): ";
    const auto shown = [&](const std::string& text) {
        return error_of(400, R"({"message":")" + text + "\"}").message.substr(head.size());
    };
    CHECK(shown(std::string(512, 'x')) == std::string(512, 'x'));
    CHECK(shown(std::string(513, 'x')) == std::string(512, 'x'));
    CHECK(shown("x" + repeat(300, "\xC3\xA9")) == "x" + repeat(255, "\xC3\xA9")); // 511 bytes
    CHECK(shown(repeat(300, "\xF0\x9F\x98\x80")) == repeat(128, "\xF0\x9F\x98\x80"));
    for (const int status : {200, 302, 502}) // the beginning of a body that is not JSON, too
        CHECK(error_of(status, "x" + repeat(400, "\xF0\x9F\x98\x80"))
                  .message.ends_with(": x" + repeat(127, "\xF0\x9F\x98\x80")));
    const auto e = error_of(422, R"({"detail":[{"loc":["body",")" + std::string(65, 'p') + R"("],"msg":")" +
                                     std::string(600, 'm') + R"("}]})");
    CHECK(e.violations.at(0).path == std::string(64, 'p'));
    CHECK(e.violations.at(0).message == std::string(512, 'm'));
    CHECK(e.message.size() < 600);
}

TEST_CASE("control characters from the service are replaced in errors and in the reply") {
    CHECK(error_of(400, R"({"message":"a\u0000b\u001b[31mc\u007fd\u0085e\nf"})")
              .message.ends_with(": a b [31mc d e f"));
    CHECK(decoded(200, R"({"success":true,"message":"a\u001b]0;x\u0007\r\n"})")->message == "a ]0;x   ");
    CHECK(decoded(200, "{\"success\":true,\"message\":\"" + std::string(5000, 'x') + "\"}")->message.size() ==
          5000);
    CHECK(
        error_of(422, R"({"detail":[{"loc":["body","a\u001bb"],"msg":"c\u001bd"}]})").message.find('\x1b') ==
        std::string::npos);
}

TEST_CASE("a path from the service is limited to eight steps and 512 bytes") {
    const auto path = [](const std::string& steps) {
        return error_of(422, R"({"detail":[{"loc":[)" + steps + R"(],"msg":"m"}]})").violations.at(0).path;
    };
    CHECK(path(R"("body","a","body",1,"b",2,"c",3,"d",4)") == R"(a["body"][1]["b"][2]["c"][3]["d"])");
    CHECK(path(R"(null,{},"a",1.5,"b")") == R"(a["b"])");
    const std::string controls = repeat(64, "\\u0001");
    CHECK(path("\"" + controls + "\",\"" + controls + "\"").size() == 512);
}

TEST_CASE("the body of an error is not parsed over the size limit or nested past 32") {
    auto narrow = settings();
    narrow.max_response_bytes = 20;
    CHECK(pl::decode(narrow, {400, {}, R"({"message":"twenty"})"}).error().message.ends_with(": twenty"));
    CHECK(pl::decode(narrow, {400, {}, R"({"message":"twenty"} )"})
              .error()
              .message.ends_with(R"((HTTP 400): {"message":"twenty"})"));
    const auto nested = [](std::size_t depth) {
        return R"({"message":"m","x":)" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
    };
    CHECK(error_of(400, nested(32)).message.ends_with(": m"));
    CHECK(error_of(400, nested(33)).message.find("(HTTP 400): {\"message\":\"m\",\"x\":[[[") !=
          std::string::npos);
}

TEST_CASE("a blank message is skipped, and a list of plain texts becomes violations") {
    CHECK(error_of(400, R"({"message":"\u0000 ","detail":"real"})").message.ends_with(": real"));
    CHECK(error_of(400, R"({"detail":["plain","",{}]})").violations.size() == 1);
    CHECK(error_of(400, R"({"detail":["plain"]})").message.ends_with(": plain"));
}

TEST_CASE("a key that the service echoes is redacted everywhere") {
    CHECK(decoded(200, R"({"success":true,"message":"pl_sesame, pl\u005fsesame!"})")->message ==
          "[redacted], [redacted]!");
    CHECK(error_of(401, R"({"message":"bad key pl_sesame"})").message.ends_with(": bad key [redacted]"));
    const auto e = error_of(422, R"({"detail":[{"loc":["body","pl_sesame"],"msg":"pl_sesame"}]})");
    CHECK(to_string(e.violations.at(0)) == "[redacted]: [redacted]");
    CHECK(e.message.find("sesame") == std::string::npos);
    // A text that is cut within the key shows no part of the key.
    const auto cut = error_of(400, R"({"message":")" + std::string(508, 'x') + R"(pl_sesame"})");
    CHECK(cut.message.ends_with("x[red"));
    const auto cut_name =
        error_of(422, R"({"detail":[{"loc":["body",")" + std::string(60, 'x') + R"(pl_sesame"],"msg":""}]})");
    CHECK(cut_name.violations.at(0).path == std::string(60, 'x') + "[red");
}

TEST_CASE("a key is redacted at any place of a text, whichever of its first characters is encoded") {
    for (std::size_t before = 0; before < 20; ++before) {
        for (std::size_t after = 0; after < 20; ++after) {
            const std::string head(before, 'p'), tail(after, '.');
            for (const char* const key : {"pl_sesame", "PL_SESAME", "%70l_sesame", "p%6C_sesame",
                                          "%70%6c_sesame", R"(\\u0070l_sesame)", R"(p\\u006c_sesame)"}) {
                CAPTURE(head + key + tail);
                CHECK(error_of(400, R"({"message":")" + head + key + tail + "\"}")
                          .message.ends_with(": " + head + "[redacted]" + tail));
            }
            CHECK(error_of(400, R"({"message":")" + head + "l_sesame" + tail + "\"}")
                      .message.ends_with(": " + head + "l_sesame" + tail) == (before == 0));
        }
    }
    for (const char* const key : {"k", "kk"}) {
        const auto shown = [&](const std::string& text) {
            return pl::decode(pl::config{.api_key = key}, {400, {}, R"({"message":")" + text + "\"}"})
                .error()
                .message;
        };
        for (std::size_t before = 0; before < 20; ++before) {
            const std::string dots(before, '.');
            CHECK(shown(dots + key + "............").ends_with(": " + dots + "[redacted]............"));
        }
        CHECK(shown("xk kkk").ends_with(": xk kkk"));
    }
}

TEST_CASE("the violations of a response show no key, though the message is another text") {
    const auto e =
        error_of(422, R"({"message":"m","detail":[{"loc":["body","pl_sesame"],"msg":"pl_sesame\n"}]})");
    CHECK(e.message.ends_with(": m"));
    CHECK(to_string(e.violations.at(0)) == "[redacted]: [redacted] ");
}

TEST_CASE("of repeated members of a response the last counts, escaped or not") {
    CHECK(decoded(200, R"({"success":false,"message":"a","succ\u0065ss":true,"message":"b\n\u00e9"})")
              ->message == "b \xC3\xA9");
    CHECK(error_of(400, R"({"message":"a","m\u0065ssage":"b"})").message.ends_with(": b"));
    CHECK(error_of(400, R"({"detail":["a"],"detail":"b"})").violations.empty());
    CHECK(error_of(400, R"({"detail":"a","detail":["b"]})").message.ends_with("(HTTP 400): b"));
    CHECK(error_of(400, R"({"detail":["a"],"d\u0065tail":["b"]})").violations.size() == 1);
    const auto e =
        error_of(400, R"({"detail":[{"msg":"a","msg":"b","loc":["c"],"l\u006fc":["body","d\u0022"]}]})");
    CHECK(to_string(e.violations.at(0)) == R"(d\": b)");
}

TEST_CASE("a list of errors in a body that is not JSON to its end is not read") {
    for (const char* const body : {R"({"detail":["a"])", R"({"detail":["a"]}x)", R"({"detail":["a"]]})",
                                   R"({"detail":[,"a"]})", R"({"detail":[{"loc":,"msg":"a"}]})"}) {
        const auto e = error_of(400, body);
        CHECK(e.violations.empty());
        CHECK(e.message.ends_with("(HTTP 400): " + std::string{body}));
    }
}

TEST_CASE("a body nested past 32 within a list of errors is not parsed") {
    const auto list = [](std::size_t depth) { // of the item
        return R"({"detail":[)" + std::string(depth, '[') + std::string(depth, ']') + "]}";
    };
    CHECK(error_of(400, list(30)).message.ends_with("(HTTP 400)"));
    CHECK(error_of(400, list(31)).message.find("[[[") != std::string::npos);
    CHECK(error_of(400, R"({"detail":[{"a":)" + std::string(29, '[') + std::string(29, ']') + "}]}")
              .message.ends_with("(HTTP 400)"));
    CHECK(error_of(400, R"({"detail":[{"a":)" + std::string(30, '[') + std::string(30, ']') + "}]}")
              .message.find("[[[") != std::string::npos);
}

TEST_CASE("a response that is not JSON is reported with the byte offset") {
    const auto message = [](const std::string& body) { return error_of(200, body).message; };
    CHECK(message(R"({"success":tru})").find(" at byte 11: {") != std::string::npos);
    CHECK(message("{\"success\":true,\"message\":\"\xFF\"}").find(" at byte 27: {") != std::string::npos);
    CHECK(message(std::string(33, '[')).find(" at byte 32: [") != std::string::npos);
}

TEST_CASE("an error carries the response's Retry-After") {
    const auto wait = [](int status, std::vector<pl::header> headers) {
        return pl::decode(settings(), {status, std::move(headers), ""}).error().retry_after;
    };
    CHECK(wait(429, {{"Retry-After", "3"}}) == std::chrono::seconds{3});
    CHECK(wait(503, {{"retry-after", "100000000"}}) == std::chrono::seconds{100000000});
    CHECK(wait(429, {{"Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"},
                     {"Date", "Sun, 06 Nov 1994 08:49:00 GMT"}}) == std::chrono::seconds{37});
    CHECK(wait(429, {{"Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"}}) == std::nullopt);
    CHECK(wait(500, {}) == std::nullopt);
    CHECK(wait(200, {{"Retry-After", "3"}}) == std::chrono::seconds{3}); // malformed_response
}

TEST_CASE("a body that is not JSON is quoted up to 200 characters, sanitized") {
    CHECK(error_of(502, "<html>\r\n<head><title>502 Bad  Gateway</title></head>\x1b[2J\n\n").message ==
          "the service failed (HTTP 502): <html> <head><title>502 Bad Gateway</title></head> [2J");
    CHECK(error_of(200, "<html>Log in to\nthis network</html>")
              .message.ends_with(": <html>Log in to this network</html>"));
    CHECK(error_of(503, repeat(300, "\xC3\xA9")).message.ends_with("(HTTP 503): " + repeat(200, "\xC3\xA9")));
    CHECK(error_of(503, " \n\t ").message == "the service failed (HTTP 503)");
    CHECK(error_of(503, std::string("\xFF\0pl_sesame", 11)).message ==
          "the service failed (HTTP 503): \xEF\xBF\xBD [redacted]");
    CHECK(
        error_of(403, "denied by pl\xE2\x80\xAE\xE2\x80\xA8 rule").message.ends_with(": denied by pl rule"));
}

TEST_CASE("a redirect error names the target host and nothing else of the URL") {
    const auto message = [](int status, std::string location) {
        return pl::decode(settings(), {status, {{"Location", std::move(location)}}, ""}).error().message;
    };
    const std::string head = "the service returned an unexpected status; check base_url (HTTP 301";
    CHECK(message(301, "https://login.example.com:8443/?token=swordfish") ==
          head + ", redirects to login.example.com)");
    CHECK(message(301, "//cdn.example.com/x") == head + ", redirects to cdn.example.com)");
    for (const char* const location : {"/login?next=https://swordfish.example", "login", "?q", "#f", "a/b:c"})
        CHECK_MESSAGE(message(301, location) == head + ", redirects to the same host)", location);
    CHECK(message(301, "http://[::1]:80/") == head + ", redirects to [::1])");
    CHECK(message(301, "/\\evil.example") == head + ", redirects to evil.example)");
    CHECK(message(301, "\\\\evil.example/x") == head + ", redirects to evil.example)");
    CHECK(message(301, "https://user:word@a_b.example./x y") == head + ", redirects to a_b.example.)");
    CHECK(message(301, "https://h\x1b\xE2\x80\xAE/") == head + ", redirects to h  )");
    CHECK(message(301, "https://pl_sesame.example/") == head + ", redirects to [redacted].example)");
    for (const char* const location :
         {"https://", "https://:80/", "javascript:alert(1)", "mailto:a@b", "http:"})
        CHECK_MESSAGE(message(301, location) == head + ", redirects to an address without a host)", location);
    for (const char* const location :
         {"/\t/evil.example/", "///evil.example/x", "////evil.example", "https:/evil.example",
          "HTTP:evil.example", "ht\ttps://evil.example", "//evil\t.example", "ht\rtps://evil.example",
          "//evil\n.example", "ws://evil.example"})
        CHECK_MESSAGE(message(301, location) == head + ", redirects to evil.example)", location);
    CHECK(message(300, "https://h/").find("redirects to h)") != std::string::npos);
    CHECK(message(399, "https://h/").find("redirects to h)") != std::string::npos);
    CHECK(message(400, "https://h/").find("redirects") == std::string::npos);
    CHECK(message(301, "") == head + ")");
    CHECK(message(301, "https://" + std::string(1000, 'h')) ==
          head + ", redirects to " + std::string(253, 'h') + ")");
    CHECK(pl::decode(settings(), {302, {}, ""}).error().message.ends_with("(HTTP 302)"));
    CHECK(message(404, "https://h/").ends_with("(HTTP 404)"));
}

TEST_CASE("a truncated, encoded or differently cased key is redacted") {
    CHECK(error_of(401, R"({"message":"bad key pl_sesam..."})").message.ends_with(": bad key [redacted]..."));
    CHECK(error_of(401, R"({"message":"bad key PL%5FSESAME"})").message.ends_with(": bad key [redacted]"));
    const pl::config escaped{.api_key = R"(pl\\sesame)"};
    CHECK(pl::decode(escaped, {502, {}, R"(pl\\\\sesame)"}).error().message.ends_with(": [redacted]"));
    const pl::config short_key{.api_key = "k"};
    CHECK(pl::decode(short_key, {401, {}, R"({"message":"kick k"})"})
              .error()
              .message.ends_with(": kick [redacted]"));
}

TEST_CASE("text that follows a key or almost spells it is not redacted") {
    const auto shown = [](std::string_view key, std::string_view text) {
        const auto e =
            pl::decode(pl::config{.api_key = std::string{key}}, {502, {}, std::string{text}}).error();
        return e.message.substr(e.message.find(": ") + 2);
    };
    CHECK(shown("pl_sesame ", "pl_sesame is not known") == "[redacted] is not known");
    for (const char* const other : {"%5wl_seska", "pl_sesk%5z", "pl_sesk%5"})
        CHECK(shown("pl_seska", other) == other);
}

TEST_CASE("a short key is not shown if a longer word is cut after it") {
    const pl::config short_key{.api_key = "pl_012"};
    const auto message = [&](int status, std::string body) {
        return pl::decode(short_key, {status, {}, std::move(body)}).error().message;
    };
    CHECK(message(502, std::string(193, 'x') + " pl_0123456").ends_with("xx [redacted]"));
    CHECK(message(502, std::string(192, 'x') + " pl_0123").ends_with("x pl_0123")); // another word
    CHECK(message(400, R"({"message":")" + std::string(505, 'x') + R"( pl_0123456"})").ends_with("xx "));
    CHECK(message(200, "/" + std::string(192, 'x') + "/pl_0123456").ends_with("x/[redacted]"));
}

TEST_CASE("credentials in custom headers are redacted from service text, other values are not") {
    pl::config with_headers = settings();
    with_headers.headers = {{"CF-Access-Client-Secret", "swordfish"},
                            {"Authorization", "Bearer zyxwvuts99"},
                            {"Cookie", "session=trustno1x; theme=dark"},
                            {"X-Version", "1"},
                            {"X-Mode", "production"},
                            {"X-Word", "redacted"}};
    const auto error_with = [&](int status, std::string body) {
        return pl::decode(with_headers, {status, {}, std::move(body)}).error();
    };
    CHECK(error_with(403, "swordfish zyxwvuts99 trustno1x")
              .message.ends_with("(HTTP 403): [redacted] [redacted] [redacted]"));
    CHECK(error_with(403, "Bearer 1 in production, redacted")
              .message.ends_with(": Bearer 1 in production, redacted"));
    CHECK(pl::decode(with_headers, {200, {}, R"({"success":true,"message":"1 swordfish in production"})"})
              ->message == "1 [redacted] in production");
    const auto e = error_with(422, R"({"detail":[{"loc":["body","swordfish"],"msg":"swordfish"}]})");
    CHECK(to_string(e).find("swordfish") == std::string::npos);
    CHECK(to_string(e.violations.at(0)) == "[redacted]: [redacted]");
    with_headers.headers = {{"Cookie", "session_id=trustno1x"}, {"X-Auth", "Negotiate c3dvcmRmaXNo=="}};
    CHECK(error_with(403, "your session_id has expired, Negotiate again")
              .message.ends_with("session_id has expired, Negotiate again"));
    CHECK(error_with(403, "c3dvcmRmaXNo trustno1x").message.ends_with(": [redacted] [redacted]"));
    with_headers.headers = {{"X-Token", "token_\x80_0"}}; // U+0080 is two bytes
    CHECK(error_with(403, R"(token_\u0080_0)").message.ends_with(R"(: token_\u0080_0)"));
    with_headers.headers = {{"X-Token", "redacted"}};
    CHECK(error_with(400, R"({"message":"pl_seredactedsame"})").message.find("sesame") == std::string::npos);
}

TEST_CASE("a captive portal's page never shows the key, even if it is cut or escaped") {
    CHECK(error_of(200, "<p>pl_sesame</p>").message.ends_with(": <p>[redacted]</p>"));
    CHECK(error_of(200, R"({"success":fals,"message":"pl\u005fsesame"})").message.find("sesame") ==
          std::string::npos);
    CHECK(error_of(200, R"("pl_sesame")").message.find("sesame") == std::string::npos);
    CHECK(error_of(502, std::string(195, 'x') + "pl_sesame").message.ends_with("x[reda"));
    const pl::config short_key{.api_key = "sevenkk"};
    CHECK(pl::decode(short_key, {502, {}, std::string(194, 'x') + " sevenkk"})
              .error()
              .message.ends_with("x [reda"));
    CHECK(error_of(200, " \n").message.ends_with(" at byte 2"));
    CHECK(error_of(502, std::string(4096, ' ') + "late").message == "the service failed (HTTP 502)");
    CHECK(error_of(502, std::string(4092, ' ') + "soon").message == "the service failed (HTTP 502): soon");
    CHECK(error_of(502, R"("Bad gateway")").message == "the service failed (HTTP 502): \"Bad gateway\"");
}
