#!/usr/bin/env python3
"""Links one program of every two source files with different settings, in both orders, and runs it. Proves that a type
of the library does not pass from one setting to another unless both mean the same by it.

usage: mixed_builds.py COMPILER [ARGUMENT...]
"""

import itertools
import pathlib
import subprocess
import sys
import tempfile

compiler = sys.argv[1:]
mixed = pathlib.Path(__file__).resolve().parent / "mixed"
include = mixed.parents[2] / "include"

AXES = [
    {"exceptions": [], "no_exceptions": ["-fno-exceptions"]},
    {"threads": [], "no_threads": ["-DPROMPTLAYER_NO_THREADS"]},
    # Optimised, a function of one file is inlined and calls that of another.
    {"rtti": [], "no_rtti": ["-fno-rtti", "-fvisibility=hidden", "-O1"]},
]
# What changes the standard library's classes, and so those that hold them.
LIBRARY_MODES = {"debug": ["-D_GLIBCXX_DEBUG"], "old_strings": ["-D_GLIBCXX_USE_CXX11_ABI=0"]}

work = pathlib.Path()
failures = []


def run(*command):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace")


def compiled(source, name, *flags):
    object_file = work / f"{name}.o"
    done = run(*compiler, "-std=c++20", "-g1", f"-I{include}", *flags, "-c", mixed / source, "-o", object_file)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{source} does not compile with {flags}")
    return object_file


def linked(program, *objects):
    return run(*compiler, *objects, "-o", program, "-lboost_json", "-pthread")


def expect(what, holds, said=""):
    if not holds:
        failures.append(what)
        print(f"{said}\nFAILED: {what}", flush=True)


def modes():
    for chosen in itertools.product(*(axis.items() for axis in AXES)):
        names, flags = zip(*chosen)
        yield ",".join(names), list(itertools.chain(*flags))


def meaning(name):
    """What the library's types depend on."""
    return name.split(",")[:2]


def every_pair_works():
    common = [compiled("main.cpp", "main"), compiled("../../support/throw_exception.cpp", "throw_exception", "-fno-exceptions")]
    parts = {name: compiled("part.cpp", name, f'-DPART="{name}"', *flags) for name, flags in modes()}
    for first, second in itertools.permutations(parts, 2):
        done = linked(work / "program", parts[first], parts[second], *common)
        if done.returncode == 0:
            done = run(work / "program")
        expect(f"{first} and {second} share a program", done.returncode == 0, done.stdout)
    return len(parts)


def nothing_crosses():
    ways = {name: flags for name, flags in modes() if name.endswith(",rtti")}
    probe = run(*compiler, "-std=c++20", "-dM", "-E", "-x", "c++", "-include", "version", "/dev/null").stdout
    if "__GLIBCXX__" in probe:
        ways |= LIBRARY_MODES
    for how in ["BY_PARAMETER", "BY_RESULT"]:
        defined = {name: compiled("crossing.cpp", f"{name},defined", f"-D{how}", "-DDEFINED", *flags)
                   for name, flags in ways.items()}
        called = {name: compiled("crossing.cpp", f"{name},called", f"-D{how}", *flags) for name, flags in ways.items()}
        for one, other in itertools.product(ways, repeat=2):
            same = meaning(one) == meaning(other)
            done = linked(work / "program", called[one], defined[other])
            expect(f"{how}, {one} calling {other} {'links' if same else 'does not link'}",
                   (done.returncode == 0) == same, done.stdout)


def main():
    global work, compiler
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        (work / "empty.cpp").write_text("int main() {}\n")
        sanitizer = "-fsanitize=address"
        if run(*compiler, sanitizer, work / "empty.cpp", "-o", work / "empty").returncode == 0:
            compiler += [sanitizer]
        nothing_crosses()
        print(f"{every_pair_works()} settings, each with each other", flush=True)
    if failures:
        sys.exit(f"{len(failures)} failures")


main()
