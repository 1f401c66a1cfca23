#!/usr/bin/env python3
"""Builds the tests of winhttp_transport and its example for Windows, with MinGW-w64, and runs them by Wine.

usage: winhttp_test.py COMPILER WINE [SOURCE...]

SOURCE are further tests, which must compile and pass for Windows too. If there is an `openssl` program, servers with
good and bad certificates run beside Wine, for the TLS cases of the conformance kit.
"""

import concurrent.futures
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

compiler, wine, *further = sys.argv[1:]
root = pathlib.Path(__file__).resolve().parents[2]
tests = root / "tests"
sources = [tests / name for name in ("support/main.cpp", "support/boost_json_src.cpp", "transports/winhttp_transport.cpp")]
sources += [pathlib.Path(name).resolve() for name in further]
example = root / "examples" / "winhttp.cpp"
flags = [
    "-std=c++20",
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"),
    "-D_WIN32_WINNT=0x0A00",
    f'-DPROMPTLAYER_TEST_DATA="{tests / "data"}"',
    f"-I{root / 'include'}",
]
libraries = ["-static", "-lwinhttp", "-lws2_32", "-lmswsock", "-lcrypt32"]


def run(*command, **more):
    subprocess.run([str(word) for word in command], check=True, **more)


def build(work):
    headers = work / "headers"  # of libraries that are the same for Windows
    headers.mkdir()
    for name in ("boost", "doctest"):
        (headers / name).symlink_to(pathlib.Path("/usr/include") / name)

    def compile_source(source):
        print("compiling", source.relative_to(root), flush=True)
        run(compiler, *flags, "-isystem", headers, "-c", source, "-o", work / (source.stem + ".o"))
        return work / (source.stem + ".o")

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
        objects = dict(zip([example, *sources], workers.map(compile_source, [example, *sources])))
    example_object = objects.pop(example)
    run(compiler, *objects.values(), *libraries, "-o", work / "tests.exe")
    run(compiler, example_object, objects[tests / "support" / "boost_json_src.cpp"], *libraries, "-o", work / "example.exe")


def make_certificates(work):
    """Makes `name`.pem and `name`.key for each name below, and authority.der of the CA."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=work, capture_output=True)

    def key_and(kind, name, host):
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
        extension = f"subjectAltName=DNS:{host}" if host else "basicConstraints=critical,CA:TRUE"
        openssl("req", *kind, *new_key, "-subj", f"/CN={host or name}", "-addext", extension)

    def self_signed(name, host=None):
        key_and(("-x509", "-days", "20", "-out", f"{name}.pem"), name, host)

    def signed(name, authority, host="localhost", days="20"):
        key_and(("-new", "-out", f"{name}.csr"), name, host)
        by = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key")
        openssl("x509", "-req", "-in", f"{name}.csr", *by, "-days", days, "-copy_extensions", "copy", "-out", f"{name}.pem")

    self_signed("authority")
    self_signed("stranger")
    self_signed("self_signed", "localhost")
    signed("good", "authority")
    signed("wrong_host", "authority", host="other.invalid")
    signed("expired", "authority", days="-1")
    signed("unknown_authority", "stranger")
    openssl("x509", "-in", "authority.pem", "-outform", "DER", "-out", "authority.der")


def listen(serve):
    """Serves every connection on a thread of its own. Returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_WR)  # without a close_notify
    except OSError:
        pass


def start_tls_servers(work):
    """Starts a server for each line `NAME PORT`: it shows that certificate and passes data to that local port."""

    def start_server(control):
        name, port = control.makefile().readline().split()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(work / f"{name}.pem", work / f"{name}.key")

        def relay(connection):
            try:
                outside = context.wrap_socket(connection, server_side=True)
            except OSError:  # the client rejected the certificate
                return
            inside = socket.create_connection(("127.0.0.1", int(port)))
            threading.Thread(target=pump, args=(inside, outside), daemon=True).start()
            pump(outside, inside)

        control.sendall(f"https://localhost:{listen(relay)}\n".encode())

    return listen(start_server)


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        work = pathlib.Path(name)
        build(work)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "WINEPREFIX": str(work / "wine"),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
        }
        if shutil.which("openssl"):
            make_certificates(work)
            environment["PROMPTLAYER_TEST_TLS_AUTHORITY"] = str(work / "authority.der")
            environment["PROMPTLAYER_TEST_TLS_SERVERS"] = str(start_tls_servers(work))
        try:
            run(wine, "wineboot", "--init", env=environment, timeout=120)
            run(wine, work / "example.exe", env=environment, cwd=work, timeout=60)
            run(wine, work / "tests.exe", env=environment, cwd=work, timeout=500)
        finally:
            run(wine, "wineboot", "--kill", env=environment, timeout=60)


try:
    main()
except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failed:
    sys.exit(str(failed))
