#!/usr/bin/env python3
"""Installs the library, moves the installed tree and builds a program with it: by CMake, pkg-config and as a Meson
subproject.

usage: package_test.py MESON COMPILER...
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

meson, *compiler = sys.argv[1:]
root = pathlib.Path(__file__).resolve().parents[2]
consumer = root / "tests" / "package" / "consumer"
environment = {**os.environ, "CXX": " ".join(compiler)}
environment.pop("DESTDIR", None)


def run(*command, **more):
    print("+", *command, flush=True)
    return subprocess.run([str(word) for word in command], check=True, env={**environment, **more})


def expect_output(how, program):
    output = subprocess.run([program], check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    for text in [
        "POST https://api.promptlayer.com/rest/track-prompt\n",
        "[redacted]",
        '{"prompt_name":"support-response","request_id":12345}\n',
        "\ndone\n",
    ]:
        if text not in output:
            sys.exit(f"{how}: the program's output lacks {text!r}:\n{output}")
    if "pl_consumer" in output:
        sys.exit(f"{how}: the program's output contains the API key:\n{output}")
    print(f"{how}: ok", flush=True)


def by_cmake(work, installed):
    run("cmake", "-G", "Ninja", "-S", consumer, "-B", work / "cmake", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", work / "cmake")
    expect_output("CMake", work / "cmake" / "consumer")
    expect_output("CMake, separate compilation", work / "cmake" / "compiled_consumer")


def by_pkg_config(work, installed):
    def ask(*options):
        return subprocess.run(
            ["pkg-config", "--define-prefix", *options, "promptlayer >= 0.1"],
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**environment, "PKG_CONFIG_PATH": str(installed / "share" / "pkgconfig")},
        ).stdout.split()

    flags = ask("--cflags", "--libs")
    run(*compiler, "-std=c++20", consumer / "consumer.cpp", *flags, "-o", work / "by_pkg_config")
    expect_output("pkg-config", work / "by_pkg_config")
    sources = [consumer / "consumer.cpp", *ask("--variable=source")]
    program = work / "compiled_by_pkg_config"
    run(*compiler, "-std=c++20", "-DPROMPTLAYER_SEPARATE_COMPILATION", *sources, *flags, "-o", program)
    expect_output("pkg-config, separate compilation", program)


def by_meson_subproject(work):
    project = work / "project"
    copy = project / "subprojects" / "promptlayer"
    copy.mkdir(parents=True)
    for name in ["consumer.cpp", "meson.build"]:
        shutil.copy(consumer / name, project)
    shutil.copy(consumer / "promptlayer.wrap", copy.parent)
    for name in [".cmake", "include"]:
        shutil.copytree(root / name, copy / name)
    for name in ["meson.build", "meson_options.txt"]:
        shutil.copy(root / name, copy)
    run(meson, "setup", work / "subproject", project, "--force-fallback-for=promptlayer")
    run(meson, "compile", "-C", work / "subproject")
    expect_output("Meson subproject", work / "subproject" / "consumer")
    expect_output("Meson subproject, separate compilation", work / "subproject" / "compiled_consumer")


def main():
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        installed = work / "elsewhere"
        layout = [f"--prefix={work / 'prefix'}", "--datadir=share", "--includedir=include"]
        run(meson, "setup", work / "build", root, *layout, "-Dtests=disabled", "-Dexamples=disabled")
        run(meson, "install", "-C", work / "build")
        shutil.rmtree(work / "build")
        (work / "prefix").rename(installed)

        by_meson_subproject(work)
        absent = [tool for tool in ["cmake", "pkg-config"] if not shutil.which(tool)]
        if "cmake" not in absent:
            by_cmake(work, installed)
        if "pkg-config" not in absent:
            by_pkg_config(work, installed)
    if absent:
        print("skipped, because not installed:", *absent)
        sys.exit(77)


main()
