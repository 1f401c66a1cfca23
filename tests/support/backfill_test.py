#!/usr/bin/env python3
"""Runs the example backfill against a service on 127.0.0.1 and checks what it sends and what it records.

usage: backfill_test.py BACKFILL
"""

import asyncio
import json
import os
import pathlib
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

    def respond(self, status, body, headers=""):
        text = json.dumps(body)
        self.transport.write(f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(text)}\r\n\r\n{text}".encode())


class Service:
    """Responds as `responses` says for a request_id, one attempt after the other, and with success otherwise."""

    OK = (200, {"success": True, "message": "noted"})

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.reset()
        server = self.loop.run_until_complete(self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def reset(self, responses=None, default=OK, hold_after=None):
        self.received, self.bodies, self.delayed = [], {}, []
        self.has_key = True
        self.responses, self.default = responses or {}, default
        self.hold_after = hold_after

    def receive(self, connection, body, has_key):
        number = body["request_id"]
        self.has_key = self.has_key and has_key
        self.received.append(number)
        self.bodies[number] = body
        response = (self.responses.get(number) or [self.default]).pop(0)
        if self.hold_after is not None and len(self.received) > self.hold_after:
            self.delayed.append((connection, response))
        else:
            connection.respond(*response)

    def release(self):
        """Sends the delayed responses and delays no more."""

        def send():
            self.hold_after = None
            for connection, response in self.delayed:
                connection.respond(*response)

        self.loop.call_soon_threadsafe(send)


service = Service()
work = tempfile.TemporaryDirectory()
folder = pathlib.Path(work.name)


def body(number):
    return {"prompt_name": "a", "prompt_input_variables": {"x": "\u00e9"}, "request_id": number}


def lines_of(numbers):
    return "".join(json.dumps(body(number)) + "\n" for number in numbers)


def write(name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def records_of(path):
    """The records in the progress file, by the number of the line."""
    records = {}
    for record in path.with_name(f"{path.name}.progress").read_text().splitlines():
        if match := re.fullmatch(r"(\d+) (tracked|rejected: .*)", record):
            if int(match[1]) in records:
                sys.exit(f"line {match[1]} has two records")
            records[int(match[1])] = match[2]
    return records


def start(*arguments, key=SECRET):
    environment = {**CLEAN, "PROMPTLAYER_BASE_URL": service.url}
    if key is not None:
        environment["PROMPTLAYER_API_KEY"] = key
    return subprocess.Popen(
        [program, *map(str, arguments)],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(behaviour, process, code, expected):
    output = b"".join(process.communicate(timeout=PATIENCE)).decode()
    holds = process.returncode == code and re.search(expected, output) and SECRET not in output
    check(behaviour, holds and service.has_key, f"{process.returncode}, expected {code}: {output}")


def run(behaviour, code, expected, *arguments, **more):
    finish(behaviour, start(*arguments, **more), code, expected)


def test_lines():
    service.reset()
    path = write(
        "kinds",
        json.dumps(body(1)).encode()
        + b"\r\n\n  \t\n"
        + b"no JSON\n"
        + b'{"prompt_name":"","request_id":5,"line\\nbreak":1}\n'
        + b'{"prompt_name":"a\xff","request_id":6}\n'
        + json.dumps(body(7)).encode(),  # without an end of line
    )
    run("valid lines are tracked and others rejected", 1, "^2 tracked, 3 rejected, 0 expired\n", path)
    check("  the bodies arrive unchanged", service.bodies == {1: body(1), 7: body(7)}, service.bodies)
    records = records_of(path)
    check("  every line that is not empty has one record", sorted(records) == [1, 4, 5, 6, 7], records)
    check("  a record gives the reason", "prompt_name: at least 1 character, has 0" in records[5], records)
    run("a second run sends nothing", 0, "^0 tracked, 0 rejected", path)
    check("  no request arrives", len(service.received) == 2, service.received)

    with open(path, "ab") as file:
        file.write(b"\n" + lines_of([8]).encode())
    run("an appended line is sent alone", 0, "^1 tracked, 0 rejected", path)
    check("  one request arrives", service.received[2:] == [8], service.received)


def test_responses():
    invalid = {"detail": [{"loc": ["body", "label"], "msg": "no such label", "type": "value_error"}]}
    service.reset({2: [(400, {"success": False, "message": f"no such prompt {SECRET}"})], 5: [(422, invalid)]})
    path = write("refused", lines_of(range(1, 8)))
    run("refused requests are rejected", 1, "^5 tracked, 2 rejected, 0 expired\n", path)
    records = records_of(path)
    refusal = "rejected: the service refused the request (HTTP 400): no such prompt [redacted]"
    check("  the record has the service's reason", records[2] == refusal and "no such label" in records[5], records)

    service.reset({3: [(503, {}), service.OK]})
    run("a 503 is retried", 0, "^5 tracked, 0 rejected, 0 expired\n", write("retried", lines_of(range(1, 6))))
    check("  once", sorted(service.received) == [1, 2, 3, 3, 4, 5], service.received)

    service.reset(default=(401, {"message": f"bad key {SECRET}"}))
    path = write("unauthorized", lines_of(range(1, 101)))
    run("a wrong key stops the run", 3, r"^0 tracked, 0 rejected(?s:.*)\(HTTP 401\)", path)
    check("  no line is recorded", len(service.received) <= 8 and not records_of(path), service.received)
    service.reset()
    run("  the next run tracks every line", 0, "^100 tracked, 0 rejected", path)


def test_stop_and_resume():
    every_number = list(range(1, 1001))
    for number in (signal.SIGINT, signal.SIGTERM):
        name = signal.Signals(number).name
        service.reset(hold_after=500)
        path = write(name, lines_of(every_number))
        process = start(path)
        wait_for("4 requests in flight", lambda: len(service.delayed) == 4)
        descriptors = pathlib.Path(f"/proc/{process.pid}/fdinfo")
        for descriptor in descriptors.iterdir() if descriptors.exists() else ():
            target = pathlib.Path(f"/proc/{process.pid}/fd/{descriptor.name}")
            if target.exists() and target.resolve() == path.resolve():
                position = int(re.search(r"pos:\s*(\d+)", descriptor.read_text())[1])
                size = path.stat().st_size
                check("lines are read as they are sent", position < size, f"{position} of {size}")
        process.send_signal(number)
        service.release()
        finish(f"{name} stops the run", process, 3, "^504 tracked, 0 rejected")
        check("  every request that was sent is recorded", sorted(records_of(path)) == sorted(service.received))
        run("  the next run sends the rest", 0, "^496 tracked, 0 rejected", path)
        check("  no line is sent twice", sorted(service.received) == every_number, len(service.received))

    path = write("killed", lines_of(every_number))
    service.reset()
    recorded = set()
    for attempt in range(1, 4):
        before = len(service.received)
        process = start(path)
        wait_for("200 requests", lambda: len(service.received) >= before + 200 or process.poll() is not None)
        process.kill()
        process.communicate(timeout=PATIENCE)
        check(f"SIGKILL {attempt}: no recorded line is sent again", not recorded & set(service.received[before:]))
        recorded = set(records_of(path))
        with open(f"{path}.progress", "a") as torn:
            torn.write("999" if attempt == 1 else "999 trac")
    before = len(service.received)
    run("the run after a crash", 0, f"^{1000 - len(recorded)} tracked, 0 rejected", path)
    check("  sends every line without a record", sorted([*recorded, *service.received[before:]]) == every_number)


def test_files_and_configuration():
    service.reset()
    path = write("one", lines_of([1]))
    for behaviour, expected, arguments, more in (
        ("no FILE is a usage error", "^usage: backfill FILE\n$", [], {}),
        ("two FILEs are a usage error", "^usage: backfill FILE\n$", [path, path], {}),
        ("a missing FILE is reported", "nowhere: cannot be read\n$", [folder / "nowhere"], {}),
        ("a folder as FILE is reported", ": cannot be read\n$", [folder], {}),
        ("a missing key is reported", "^api_key: is not given\n$", [path], {"key": None}),
        ("an invalid key is reported", "^api_key: must be visible ASCII\n$", [path], {"key": f"{SECRET}\r\n"}),
    ):
        run(behaviour, 2, expected, *arguments, **more)
    (folder / "one.progress").mkdir()
    run("a progress file that cannot be written is reported", 2, "progress file", path)
    check("  no request is sent", not service.received)
    run("an empty FILE is complete", 0, "^0 tracked, 0 rejected, 0 expired\n$", write("empty", ""))


test_lines()
test_responses()
test_stop_and_resume()
test_files_and_configuration()
leaks = [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
check("no file holds the key", not leaks, leaks)
work.cleanup()
sys.exit(f"{failures} failed" if failures else 0)
