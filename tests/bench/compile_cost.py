#!/usr/bin/env python3
"""Prints the cost of compiling a file that uses the library, as a ratio to the same file written with Boost.JSON.

usage: compile_cost.py [--runs N] [COMPILER...]

Each file is compiled header-only and with separate compilation, at -O0 and at -O2. The table has user seconds, the
least of N runs (3), of each file and of the file beside it, and the size of the object. The default compilers are g++
and clang++-14, if they are installed.
"""

import argparse
import os
import pathlib
import shutil
import tempfile

INCLUDE = pathlib.Path(__file__).resolve().parents[2] / "include"

OWN_TRANSPORT = """
#include <promptlayer.hpp>

struct my_transport {
    promptlayer::transport_result send(const promptlayer::http_request&);
};
"""

BY_HAND = """
#include <boost/json.hpp>
#include <string>

std::string body(const std::string& name, long id) {
    return boost::json::serialize(boost::json::object{
        {"prompt_name", name}, {"prompt_input_variables", {{"user_message", "Hello"}}}, {"request_id", id}});
}

std::string message(const std::string& text) {
    boost::json::error_code failed;
    const boost::json::value response = boost::json::parse(text, failed);
    const auto* const object = response.if_object();
    const auto* const member = object ? object->if_contains("message") : nullptr;
    return member && member->is_string() ? std::string{member->get_string().c_str()} : std::string{};
}
"""

REQUEST = """{.prompt_name = "support-response", .prompt_input_variables = {{"user_message", "Hello"}}, .request_id = 1}"""

FILES = {
    "<boost/json.hpp>": "#include <boost/json.hpp>\n",
    "Boost.JSON by hand": BY_HAND,
    "include": "#include <promptlayer.hpp>\n",
    "client": OWN_TRANSPORT
    + f"bool track(promptlayer::client<my_transport>& client) {{ return client.track_prompt({REQUEST}).has_value(); }}\n",
    "client, a model of the user's": OWN_TRANSPORT
    + """
#include <optional>
#include <string>

struct ticket {
    promptlayer::required<std::string> title;
    std::optional<promptlayer::integer> priority{};

    static constexpr std::string_view path = "/made-up/tickets";
    using reply = promptlayer::track_response;
    using schema = promptlayer::schema<promptlayer::field<"title", &ticket::title, promptlayer::min_length<1>>,
                                       promptlayer::field<"priority", &ticket::priority>>;
};
"""
    + f"""
bool track(promptlayer::client<my_transport>& client) {{
    return client.track_prompt({REQUEST}).has_value() && client.call(ticket{{.title = "a"}}).has_value();
}}
""",
    "background tracker": OWN_TRANSPORT
    + f"""
bool track() {{
    promptlayer::background_tracker tracker{{promptlayer::config{{.api_key = "key"}}, my_transport{{}}}};
    return tracker.track_prompt({REQUEST}).has_value();
}}
""",
}

BESIDE = {
    "include": "<boost/json.hpp>",
    "client": "Boost.JSON by hand",
    "client, a model of the user's": "Boost.JSON by hand",
    "background tracker": "Boost.JSON by hand",
}

MODES = {"header-only": [], "separate": ["-DPROMPTLAYER_SEPARATE_COMPILATION"]}


def user_seconds(command):
    child = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise SystemExit(f"does not compile: {' '.join(command)}")
    return usage.ru_utime


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("compilers", nargs="*")
    arguments = options.parse_args()
    compilers = arguments.compilers or [name for name in ("g++", "clang++-14") if shutil.which(name)]
    print(f"{'file':32}{'mode':13}{'compiler':12}{'level':>6}{'user s':>9}{'beside':>9}{'ratio':>8}{'object KB':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(FILES.values()):
            (pathlib.Path(folder) / f"{number}.cpp").write_text(text, encoding="utf-8")
        for compiler in compilers:
            for level in ("-O0", "-O2"):
                seconds, size = {}, {}
                for _ in range(arguments.runs):  # each file once in each round, so that a slow moment affects all files
                    for number, name in enumerate(FILES):
                        for mode, flags in MODES.items():
                            if mode == "separate" and name not in BESIDE:
                                continue
                            target = f"{folder}/{number}.o"
                            source = f"{folder}/{number}.cpp"
                            command = [compiler, "-std=c++20", level, *flags, f"-I{INCLUDE}", "-c", source, "-o", target]
                            key = (name, mode)
                            seconds[key] = min(seconds.get(key, float("inf")), user_seconds(command))
                            size[key] = os.path.getsize(target) / 1000
                for name, beside in BESIDE.items():
                    for mode in MODES:
                        own, other = seconds[name, mode], seconds[beside, "header-only"]
                        print(
                            f"{name:32}{mode:13}{compiler:12}{level:>6}{own:9.2f}{other:9.2f}{own / other:8.2f}"
                            f"{size[name, mode]:11.0f}",
                            flush=True,
                        )


main()
