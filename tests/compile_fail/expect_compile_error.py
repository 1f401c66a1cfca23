#!/usr/bin/env python3
"""Proves that a source file does not compile, says why, and compiles with -DFIXED.

usage: expect_compile_error.py gcc|clang FILE COMPILER [ARGUMENT...]

FILE begins with comments `// expect: TEXT`, or `// expect-gcc: TEXT` and `// expect-clang: TEXT`; what the compiler
says has to hold each TEXT.
"""

import os
import re
import subprocess
import sys

kind, file, *command = sys.argv[1:]
with open(file, encoding="utf-8") as source:
    head = re.match(r"(//.*\n)*", source.read())[0]
expected = re.findall(rf"^// expect(?:-{kind})?: (.+?)\s*$", head, re.MULTILINE)
if not expected:
    sys.exit(f"{file}: begins with no `// expect: ...` for {kind}")


def compiled(*arguments):
    done = subprocess.run(
        [*command, "-std=c++20", "-fsyntax-only", "-Werror=unused-result", *arguments, file],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.returncode == 0, done.stderr


ok, said = compiled()
if ok:
    sys.exit(f"{file}: compiles")
missing = [text for text in expected if text not in said]
if missing:
    sys.exit(f"{said}\n{file}: does not compile, but the compiler does not say: {missing}")
ok, said = compiled("-DFIXED")
if not ok:
    sys.exit(f"{said}\n{file}: does not compile with -DFIXED")
