#!/usr/bin/env python3
"""Prints how long a file that uses the library compiles, as a ratio to a file that does the same with Boost.JSON by hand.

usage: compile_cost.py [--runs N] [COMPILER...]

Prints for each compiler, at -O0 and at -O2: user seconds of each file and of the file beside it, each the minimum of N
runs (3), and the size of the object file. Without COMPILER it uses those of g++ and clang++-14 that are installed.
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
    const auto* const found = object ? object->if_contains("message") : nullptr;
    return found && found->is_string() ? std::string{found->get_string().c_str()} : std::string{};
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
    print(f"{'file':32}{'compiler':14}{'level':>6}{'user s':>9}{'beside':>9}{'ratio':>8}{'object KB':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(FILES.values()):
            (pathlib.Path(folder) / f"{number}.cpp").write_text(text, encoding="utf-8")
        for compiler in compilers:
            for level in ("-O0", "-O2"):
                seconds, size = {}, {}
                for _ in range(arguments.runs):  # each file once in each round, so that a slow moment affects all files
                    for number, name in enumerate(FILES):
                        target = f"{folder}/{number}.o"
                        command = [compiler, "-std=c++20", level, f"-I{INCLUDE}", "-c", f"{folder}/{number}.cpp", "-o", target]
                        seconds[name] = min(seconds.get(name, float("inf")), user_seconds(command))
                        size[name] = os.path.getsize(target) / 1000
                for name, beside in BESIDE.items():
                    print(
                        f"{name:32}{compiler:14}{level:>6}{seconds[name]:9.2f}{seconds[beside]:9.2f}"
                        f"{seconds[name] / seconds[beside]:8.2f}{size[name]:11.0f}",
                        flush=True,
                    )


main()
