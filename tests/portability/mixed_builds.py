#!/usr/bin/env python3
"""Links each pair of source files with different settings into a program, in both orders, and runs it. Checks that files
with different versions of a type of the library do not link if the type passes between them.

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
    # With optimisation, an inlined function of one file calls functions of another.
    {"rtti": [], "no_rtti": ["-fno-rtti", "-fvisibility=hidden", "-O1", "-DPROMPTLAYER_NO_SIMD"]},
]
# These settings change the standard library's classes and the classes that contain them.
LIBRARY_MODES = {"debug": ["-D_GLIBCXX_DEBUG"], "old_strings": ["-D_GLIBCXX_USE_CXX11_ABI=0"]}

work = pathlib.Path()
failures = []


def run(*command):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace")


def compile_source(source, name, *flags):
    object_file = work / f"{name}.o"
    process = run(*compiler, "-std=c++20", "-g1", f"-I{include}", *flags, "-c", mixed / source, "-o", object_file)
    if process.returncode != 0:
        sys.exit(f"{process.stdout}\n{source} does not compile with {flags}")
    return object_file


def link(program, *objects):
    return run(*compiler, *objects, "-o", program, "-lboost_json", "-pthread")


def expect(what, holds, output=""):
    if not holds:
        failures.append(what)
        print(f"{output}\nFAILED: {what}", flush=True)


def modes():
    for chosen in itertools.product(*(axis.items() for axis in AXES)):
        names, flags = zip(*chosen)
        yield ",".join(names), list(itertools.chain(*flags))


def meaning(name):
    """Returns the settings on which the library's types depend."""
    return name.split(",")[:2]


def every_pair_works():
    common = [compile_source("main.cpp", "main"), compile_source("../../support/throw_exception.cpp", "throw_exception", "-fno-exceptions")]
    parts = {name: compile_source("part.cpp", name, f'-DPART="{name}"', *flags) for name, flags in modes()}
    for first, second in itertools.permutations(parts, 2):
        process = link(work / "program", parts[first], parts[second], *common)
        if process.returncode == 0:
            process = run(work / "program")
        expect(f"{first} and {second} share a program", process.returncode == 0, process.stdout)
    return len(parts)


def nothing_crosses():
    settings = {name: flags for name, flags in modes() if name.endswith(",rtti")}
    probe = run(*compiler, "-std=c++20", "-dM", "-E", "-x", "c++", "-include", "version", "/dev/null").stdout
    if "__GLIBCXX__" in probe:
        settings |= LIBRARY_MODES
    for crossing in ["BY_PARAMETER", "BY_RESULT"]:
        defined = {name: compile_source("crossing.cpp", f"{name},defined", f"-D{crossing}", "-DDEFINED", *flags)
                   for name, flags in settings.items()}
        called = {name: compile_source("crossing.cpp", f"{name},called", f"-D{crossing}", *flags) for name, flags in settings.items()}
        for caller, definer in itertools.product(settings, repeat=2):
            same = meaning(caller) == meaning(definer)
            process = link(work / "program", called[caller], defined[definer])
            expect(f"{crossing}, {caller} calling {definer} {'links' if same else 'does not link'}",
                   (process.returncode == 0) == same, process.stdout)


def only_one_mode_links():
    """Links files that are header-only with files that are compiled separately, which share no type."""
    separate = "-DPROMPTLAYER_SEPARATE_COMPILATION"
    main = compile_source("main.cpp", "main", separate)
    library = compile_source(include / "promptlayer" / "source.cpp", "source")
    alone = compile_source("part.cpp", "alone", '-DPART="alone"')
    compiled = compile_source("part.cpp", "compiled", '-DPART="compiled"', separate)
    other = compile_source("part.cpp", "other", '-DPART="other"', separate, "-fno-exceptions")
    process = link(work / "program", main, compiled, library)
    expect("files of one mode share a program", process.returncode == 0, process.stdout)
    for mode in [[], [separate]]:
        objects = [compile_source(name, f"{name},lto", '-DPART="lto"', "-flto", *mode) for name in ("main.cpp", "part.cpp")]
        if mode:
            objects.append(compile_source(include / "promptlayer" / "source.cpp", "source,lto", "-flto"))
        process = link(work / "program", *objects, "-flto")
        expect("files of one mode share a program with link-time optimisation", process.returncode == 0, process.stdout)
    for first, second in itertools.permutations([alone, compiled]):
        process = link(work / "program", main, first, second, library)
        expect("files of both modes do not link", process.returncode != 0, process.stdout)
        expect("the linker names the mode", "promptlayer_separate_compilation" in process.stdout, process.stdout)
    process = link(work / "program", main, other, library)
    expect("the source file has the settings of the files that use it", process.returncode != 0, process.stdout)


def main():
    global work, compiler
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        (work / "empty.cpp").write_text("int main() {}\n")
        sanitizer = "-fsanitize=address"
        if run(*compiler, sanitizer, work / "empty.cpp", "-o", work / "empty").returncode == 0:
            compiler += [sanitizer]
        only_one_mode_links()
        nothing_crosses()
        print(f"{every_pair_works()} settings, each linked with each other", flush=True)
    if failures:
        sys.exit(f"{len(failures)} failures")


main()
