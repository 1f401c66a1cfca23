#!/usr/bin/env python3
"""Checks that a source file does not compile, that the compiler says why, and that the file compiles with -DFIXED.

usage: expect_compile_error.py gcc|clang FILE COMPILER [ARGUMENT...]

FILE begins with comments `// expect: TEXT`, or `// expect-gcc: TEXT` and `// expect-clang: TEXT`. The compiler's output
must contain each TEXT.
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
    sys.exit(f"{file}: must begin with a comment `// expect: ...` for {kind}")


def compile_file(*arguments):
    process = subprocess.run(
        [*command, "-std=c++20", "-fsyntax-only", "-Werror=unused-result", *arguments, file],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    return process.returncode == 0, process.stderr


compiles, output = compile_file()
if compiles:
    sys.exit(f"{file}: compiles, but must not")
missing = [text for text in expected if text not in output]
if missing:
    sys.exit(f"{output}\n{file}: does not compile, but the compiler's output lacks: {missing}")
compiles, output = compile_file("-DFIXED")
if not compiles:
    sys.exit(f"{output}\n{file}: does not compile with -DFIXED")
