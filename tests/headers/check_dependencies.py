#!/usr/bin/env python3
"""Fails if a header includes, directly or not, a library that it is to compile without.

usage: check_dependencies.py COMPILER [ARGUMENT...]
"""

import pathlib
import subprocess
import sys

WITHOUT = {  # header: a part of the paths that it must not include
    "journal": "/boost/",
    "outbox": "/boost/",
    "testing/conformance": "/boost/json",
    "testing/recording_transport": "/boost/",
    "testing/scripted_server": "/boost/json",
    "transport": "/boost/",
}

include = pathlib.Path(__file__).resolve().parents[2] / "include"
unwanted = []
for header, library in WITHOUT.items():
    included = subprocess.run(
        [*sys.argv[1:], "-std=c++20", f"-I{include}", "-x", "c++", "-M", "-"],
        input=f"#include <promptlayer/{header}.hpp>\n",
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    ).stdout.split()
    if str(include / "promptlayer" / f"{header}.hpp") not in included:
        sys.exit(f"{header}: the compiler does not list what it includes")
    unwanted += [f"{header}.hpp includes {path}" for path in included if library in path][:1]
if unwanted:
    sys.exit("\n".join(unwanted))
