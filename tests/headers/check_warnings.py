#!/usr/bin/env python3
"""Compiles files that use the library, as headers of their own and not of the system, with many warnings on. Passes if
none is about the library; those about the files themselves do not count.

usage: check_warnings.py gcc|clang FILE... -- COMPILER [ARGUMENT...]
"""

import os
import pathlib
import re
import subprocess
import sys

GCC = """
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
    -Wuseless-cast -Wold-style-cast -Weffc++
""".split()

CLANG = [
    "-Weverything",
    "-Wno-padded",  # says how a class is laid out, which is no fault
    # The library is C++20:
    "-Wno-c++98-compat",
    "-Wno-c++98-compat-pedantic",
    "-Wno-c++20-compat",
    "-Wno-pre-c++20-compat",
    "-Wno-pre-c++20-compat-pedantic",
    "-Wno-switch-default",  # a switch over all enumerators is right without, and -Wswitch needs it so
    "-Wno-unsafe-buffer-usage",  # any use of a pointer's neighbours, `std::string_view` over C's interfaces included
    "-Wno-exit-time-destructors",  # a static object may have a destructor
    "-Wno-disabled-macro-expansion",  # libcurl's macros call the functions of their own names
]

kind, *rest = sys.argv[1:]
files, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
include = pathlib.Path(__file__).resolve().parents[2] / "include"

found = set()
for file in files:
    done = subprocess.run(
        [*command, "-std=c++20", "-fsyntax-only", f"-I{include}", *{"gcc": GCC, "clang": CLANG}[kind], file],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        sys.exit(f"{done.stderr}\n{file} does not compile")
    found |= set(re.findall(rf"^{re.escape(str(include))}.*warning: .*", done.stderr, re.MULTILINE))
if found:
    sys.exit("\n".join(sorted(found)))
