#!/usr/bin/env python3
"""Runs the example backfill against a service on 127.0.0.1 and checks what it sends and what it rejects.

usage: backfill_test.py BACKFILL
"""

import asyncio
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

program = os.path.abspath(sys.argv[1])
SECRET = "pl_0123456789-this-must-not-be-shown"
CLEAN = {
    name: value for name, value in os.environ.items() if not re.fullmatch(r"(?i)PROMPTLAYER_.*|\w+_proxy", name)
}
OK = (200, {"success": True, "message": "noted"})
RESET = 0
MAX_IN_FLIGHT = 16
PATIENCE = 60  # seconds until something counts as missing that takes milliseconds on an idle machine

failures = 0


def check(behaviour, holds, shown=""):
    global failures
    print("ok    " if holds else "FAILED", behaviour, flush=True)
    if not holds:
        failures += 1
        print(str(shown)[:2000])


def wait_for(event, has_happened):
    end = time.monotonic() + PATIENCE
    while not has_happened():
        if time.monotonic() > end:
            sys.exit(f"{PATIENCE} s have passed without: {event}")
        time.sleep(0.005)


class Connection(asyncio.Protocol):
    def __init__(self, service):
        self.service = service
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        while True:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length is None or len(rest) < int(length[1]):
                return
            body, self.data = rest[: int(length[1])], rest[int(length[1]) :]
            self.service.receive(self, json.loads(body), f"X-API-KEY: {SECRET}".encode() in head)

    def respond(self, status, body):
        if status == RESET:
            self.transport.abort()
        text = json.dumps(body)
        self.transport.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())


class Service:
    """Responds as `responses` says for a request_id, and with success otherwise."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.reset()
        server = self.loop.run_until_complete(self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def reset(self, responses=None, default=OK, hold_after=None):
        self.received, self.bodies, self.held = [], {}, []
        self.has_key = True
        self.responses, self.default, self.hold_after = responses or {}, default, hold_after

    def receive(self, connection, body, has_key):
        number = body["request_id"]
        self.has_key = self.has_key and has_key
        self.received.append(number)
        self.bodies[number] = body
        response = self.responses.get(number, self.default)
        if self.hold_after is not None and len(self.received) > self.hold_after:
            self.held.append((connection, response))
        else:
            connection.respond(*response)

    def release(self):
        """Sends the responses that are held."""

        def send():
            while self.held:
                connection, response = self.held.pop()
                connection.respond(*response)

        self.loop.call_soon_threadsafe(send)


service = Service()
work = tempfile.TemporaryDirectory()
folder = pathlib.Path(work.name)
every_number = list(range(1, 1001))


def body(number):
    return {"prompt_name": "a", "prompt_input_variables": {"x": "\u00e9"}, "request_id": number}


def write(name, content):
    """`content` is the text, or the numbers of the lines."""
    path = folder / name
    if not isinstance(content, bytes):
        content = "".join(json.dumps(body(number)) + "\n" for number in content).encode()
    path.write_bytes(content)
    return path


def rejects_of(path):
    """The pairs of a reason and a line."""
    lines = path.with_name(f"{path.name}.rejects").read_bytes().decode("utf-8", "replace").splitlines()
    return list(zip(lines[::2], lines[1::2]))


def start(*arguments, key=SECRET, stderr=subprocess.PIPE):
    environment = {**CLEAN, "PROMPTLAYER_BASE_URL": service.url, "PROMPTLAYER_API_KEY": key}
    arguments = [program, *map(str, arguments)]
    return subprocess.Popen(arguments, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=stderr)


def finish(behaviour, process, code, expected):
    output = b"".join(text or b"" for text in process.communicate(timeout=PATIENCE)).decode()
    holds = process.returncode == code and re.search(expected, output) and SECRET not in output
    check(behaviour, holds and service.has_key, f"{process.returncode}, expected {code}: {output}")


def run(behaviour, code, expected, *arguments, **more):
    finish(behaviour, start(*arguments, **more), code, expected)


def test_lines():
    lines = [
        json.dumps(body(1)).encode() + b"\r",
        b"",
        b" \t",
        b"# a comment",
        b"not JSON",
        b'{"prompt_name":"","request_id":2,"line\\nbreak":1}',
        b'{"prompt_name":"a\xff","request_id":3}',
        json.dumps(body(4)).encode(),  # without an end of line
    ]
    path = write("kinds", b"\n".join(lines))
    run("valid lines are tracked and invalid ones rejected", 1, r"^2 tracked, 3 rejected, 0 left", path)
    check("  the bodies arrive unchanged", service.bodies == {1: body(1), 4: body(4)}, service.bodies)
    rejects = rejects_of(path)
    check("  an invalid line is rejected as it is", rejects[0][1] == "not JSON", rejects)
    check("  with the reason", rejects[1][0].startswith("# prompt_name: at least 1 character, has 0"), rejects)
    run("a second run sends nothing", 0, "^0 tracked, 0 rejected, 0 left", path)
    with open(path, "ab") as file:
        file.write(b"\n" + json.dumps(body(5)).encode())
    run("an appended line is sent", 0, "^1 tracked, 0 rejected, 0 left", path)
    check("  alone", sorted(service.received) == [1, 4, 5], service.received)

    content = path.read_bytes()
    for what, changed in (("a shorter", content[:-1]), ("another", content[:-2] + b" }")):
        path.write_bytes(changed)
        run(f"a file with {what} last line is reported", 2, r"kinds: was changed; .* \.position", path)

    invalid = {"detail": [{"loc": ["body", "label"], "msg": "no such label", "type": "value_error"}]}
    service.reset({2: (400, {"success": False, "message": f"no such prompt {SECRET}"}), 5: (422, invalid)})
    path = write("refused", range(1, 8))
    run("refused lines are rejected", 1, "^5 tracked, 2 rejected, 0 left", path)
    reasons = "".join(reason for reason, _ in rejects_of(path))
    check("  with the reason", "no such prompt [redacted]" in reasons and "no such label" in reasons, reasons)
    service.reset()
    run("a file of rejects can be sent", 0, "^2 tracked, 0 rejected", f"{path}.rejects")
    check("  with the same bodies", service.bodies == {2: body(2), 5: body(5)}, service.bodies)


def test_service_failures():
    service.reset({500: (RESET, {})})
    path = write("reset", every_number)
    process = start(path)
    begin = time.monotonic()
    wait_for("999 lines arrive", lambda: len(set(service.received)) == 1000)
    print(f"      999 lines beside a line that is always reset: {time.monotonic() - begin:.1f} s")
    process.send_signal(signal.SIGINT)
    finish("a line that is always reset delays no other", process, 3, "999 tracked, 0 rejected, 1 left")
    service.reset()
    run("  the next run sends it", 0, "^1 tracked, 0 rejected, 0 left", path)
    check("  alone", service.received == [500], service.received)

    service.reset(default=(401, {"message": f"bad key {SECRET}"}))
    path = write("unauthorized", range(1, 101))
    run("a wrong key stops the run", 3, r"^0 tracked, 0 rejected(?s:.*)\(HTTP 401\)", path)
    check("  at once", len(service.received) <= 2, service.received)
    service.reset()
    run("  the next run tracks every line", 0, "^100 tracked, 0 rejected, 0 left", path)


def test_stop_and_resume():
    for number in (signal.SIGINT, signal.SIGTERM):
        name = signal.Signals(number).name
        service.reset(hold_after=500)
        path = write(name, every_number)
        process = start(path)
        wait_for("a request is held", lambda: service.held)
        process.send_signal(number)
        while process.poll() is None:  # each round lets a few requests end, so the run stops in the middle
            service.release()
            time.sleep(0.05)
        service.hold_after = None
        finish(f"{name} stops the run", process, 3, r"^\d+ tracked, 0 rejected")
        run("  the next run sends the rest", 0, r"^\d+ tracked, 0 rejected, 0 left", path)
        check("  every line is sent once", sorted(service.received) == every_number, len(service.received))

    service.reset()
    path = write("killed", every_number)
    for _ in range(3):
        before = len(service.received)
        process = start(path)
        wait_for("200 requests", lambda: len(service.received) >= before + 200 or process.poll() is not None)
        process.kill()
        process.communicate(timeout=PATIENCE)
    run("the run after three SIGKILLs", 0, r"^\d+ tracked, 0 rejected, 0 left", path)
    check("  has sent every line", sorted(set(service.received)) == every_number)
    twice = len(service.received) - len(every_number)
    check("  only those in flight and the last one read twice", twice <= 3 * (MAX_IN_FLIGHT + 1), twice)


def test_terminal_and_files():
    service.reset()
    ours, theirs = pty.openpty()
    run("a run at a terminal", 0, "^20 tracked", write("terminal", range(1, 21)), stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    check("  shows its progress", re.match(r"\r0 tracked, 0 rejected, \d+ queued", shown), shown)
    run("a run without a terminal shows no progress", 0, "^20 tracked, [^\r]*$", write("pipe", range(1, 21)))

    path = write("one", [1])
    for behaviour, expected, arguments, key in (
        ("no FILE is a usage error", "^usage: backfill FILE\n$", [], SECRET),
        ("a missing FILE is reported", "nowhere: cannot be read\n$", [folder / "nowhere"], SECRET),
        ("a folder as FILE is reported", ": cannot be read\n$", [folder], SECRET),
        ("a missing key is reported", "^api_key: is not given\n$", [path], ""),
    ):
        run(behaviour, 2, expected, *arguments, key=key)
    for extension in ("journal", "position", "rejects"):
        path = write(extension, b"not JSON\n")
        (folder / f"{extension}.{extension}").mkdir()
        run(f"a {extension} file that cannot be written is reported", 2, "(journal|cannot be written)", path)
    run("an empty FILE is complete", 0, "^0 tracked, 0 rejected, 0 left", write("empty", b""))


test_lines()
test_service_failures()
test_stop_and_resume()
test_terminal_and_files()
leaks = [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
check("no file holds the key", not leaks, leaks)
work.cleanup()
sys.exit(f"{failures} failed" if failures else 0)
