#!/usr/bin/env python3
"""Compiles files that use the library, with many warnings and with the library as ordinary headers. Fails if the compiler
warns about the library. Warnings about the files themselves do not count.

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
    "-Wno-padded",  # reports the layout of a class
    # The library is C++20:
    "-Wno-c++98-compat",
    "-Wno-c++98-compat-pedantic",
    "-Wno-c++20-compat",
    "-Wno-pre-c++20-compat",
    "-Wno-pre-c++20-compat-pedantic",
    "-Wno-switch-default",  # a default in a switch over all enumerators would disable -Wswitch
    "-Wno-unsafe-buffer-usage",  # any pointer arithmetic, also in `std::string_view` over C interfaces
    "-Wno-exit-time-destructors",  # a static object may have a destructor
    "-Wno-disabled-macro-expansion",  # libcurl's macros have the names of the functions that they call
]

kind, *rest = sys.argv[1:]
files, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
include = pathlib.Path(__file__).resolve().parents[2] / "include"

warnings = set()
for file in files:
    process = subprocess.run(
        [*command, "-std=c++20", "-fsyntax-only", f"-I{include}", *{"gcc": GCC, "clang": CLANG}[kind], file],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    if process.returncode != 0:
        sys.exit(f"{process.stderr}\n{file} does not compile")
    warnings |= set(re.findall(rf"^{re.escape(str(include))}.*warning: .*", process.stderr, re.MULTILINE))
if warnings:
    sys.exit("\n".join(sorted(warnings)))
