#!/usr/bin/env python3
"""Fails if a header includes, directly or not, a library that it is to compile without.

usage: check_dependencies.py COMPILER [ARGUMENT...]
"""

import pathlib
import subprocess
import sys

SEPARATE = "-DPROMPTLAYER_SEPARATE_COMPILATION"

WITHOUT = [  # header, flags, and the beginnings or parts of paths that it must not include
    ("promptlayer/journal.hpp", [], ["/boost/"]),
    ("promptlayer/outbox.hpp", [], ["/boost/"]),
    ("promptlayer/testing/conformance.hpp", [], ["/boost/json"]),
    ("promptlayer/testing/recording_transport.hpp", [], ["/boost/"]),
    ("promptlayer/testing/scripted_server.hpp", [], ["/boost/json"]),
    ("promptlayer/transport.hpp", [], ["/boost/"]),
    ("promptlayer.hpp", [], ["/random "]),
    ("promptlayer.hpp", [SEPARATE], ["/boost/", "/algorithm ", "/condition_variable ", "/thread "]),
]

include = pathlib.Path(__file__).resolve().parents[2] / "include"
unwanted = []
for header, flags, parts in WITHOUT:
    included = subprocess.run(
        [*sys.argv[1:], "-std=c++20", f"-I{include}", *flags, "-x", "c++", "-M", "-"],
        input=f"#include <{header}>\n",
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    ).stdout.split()
    if str(include / header) not in included:
        sys.exit(f"{header}: the compiler does not list what it includes")
    for part in parts:
        unwanted += [f"{header} {' '.join(flags)} includes {path}" for path in included if part in path + " "][:1]
if unwanted:
    sys.exit("\n".join(unwanted))
