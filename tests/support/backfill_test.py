#!/usr/bin/env python3
"""Runs the example backfill against a service on 127.0.0.1: what it sends, notes, rejects, shows, and holds in memory.

usage: backfill_test.py BACKFILL
"""

import asyncio
import fcntl
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
UNCLEAN = re.compile(r"PROMPTLAYER_.*|\w+_proxy", re.IGNORECASE)
CLEAN = {name: value for name, value in os.environ.items() if not UNCLEAN.fullmatch(name)}
PATIENCE = 60  # seconds, for what comes at once unless the machine is busy

failures = 0


def check(what, holds, shown=""):
    global failures
    print("ok    " if holds else "FAILED", what, flush=True)
    if not holds:
        failures += 1
        print(str(shown)[:2000])


def wait_for(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for: {what}")
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
            self.service.arrived(self, json.loads(body), f"X-API-KEY: {SECRET}".encode() in head)

    def answer(self, status, body, headers=""):
        text = json.dumps(body)
        self.transport.write(f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(text)}\r\n\r\n{text}".encode())


class Service:
    """Answers as `answers` says for a request_id (a list is for one attempt after the other, None is for an answer
    that waits for `let_go`), else with success."""

    OK = (200, {"success": True, "message": "noted"})

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.reset()
        server = self.loop.run_until_complete(self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def reset(self, answers=None, hold_after=None):
        self.received, self.bodies, self.attempts, self.held = [], {}, {}, []
        self.keys_good = True
        self.answers = answers or {}
        self.hold_after = hold_after

    def arrived(self, connection, body, key_good):
        number = body["request_id"]
        self.keys_good = self.keys_good and key_good
        self.received.append(number)
        self.bodies[number] = body
        attempt = self.attempts[number] = self.attempts.get(number, 0) + 1
        answer = self.answers.get(number, self.answers.get("all", self.OK))
        if isinstance(answer, list):
            answer = answer[min(attempt, len(answer)) - 1]
        if answer is None or (self.hold_after is not None and len(self.received) > self.hold_after):
            self.held.append((connection, answer or self.OK))
        else:
            connection.answer(*answer)

    def let_go(self):
        """Answers what is held, and holds nothing more."""

        def now():
            self.hold_after = None
            for connection, answer in self.held:
                connection.answer(*answer)

        self.loop.call_soon_threadsafe(now)


service = Service()
folder_made = tempfile.TemporaryDirectory()
folder = pathlib.Path(folder_made.name)


def body(number, **more):
    return {"prompt_name": "a", "prompt_input_variables": {"x": "\u00e9"}, "request_id": number, **more}


def lines_of(numbers):
    return "".join(json.dumps(body(number)) + "\n" for number in numbers)


def write(name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def start(*arguments, key=SECRET, **more):
    environment = {**CLEAN, "PROMPTLAYER_BASE_URL": service.url}
    if key:
        environment["PROMPTLAYER_API_KEY"] = key
    command = [program, "--first-wait", "0.01", *map(str, arguments)]
    more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen(command, env=environment, cwd=folder, **more)


def finish(what, process, code, said=""):
    out, err = (text.decode("utf-8", "replace") for text in process.communicate(timeout=PATIENCE))
    shown = f"  exit status {process.returncode}, expected {code}\n  stdout: {out!r}\n  stderr: {err!r}"
    good = process.returncode == code and re.search(said, err) is not None and SECRET not in out + err
    check(what, good and service.keys_good, shown)
    return err


def run(what, code, said, *arguments, **more):
    return finish(what, start(*arguments, **more), code, said)


def records_of(path):
    progress = pathlib.Path(f"{path}.progress")
    return [line.split() for line in progress.read_text().split("\n")[1:-1]] if progress.exists() else []


def ended(path):
    """Line numbers of a progress file by outcome."""
    records = records_of(path)
    numbers = {outcome: [int(r[0]) for r in records if r[1] == outcome] for outcome in ("tracked", "failed", "blank")}
    check("  no line ended twice", len({r[0] for r in records}) == len(records), records)
    return numbers


def rejects(path):
    text = pathlib.Path(f"{path}.rejects").read_text("utf-8", "surrogateescape")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_lines():
    service.reset()
    path = write("empty", "")
    run("an empty input", 0, r"^0 done, 0 failed, 0 a second, 0:00:00 taken\n$", path)
    check("  sends nothing, rejects nothing", not service.received and not pathlib.Path(f"{path}.rejects").exists())

    kinds = [
        lines_of([1]).encode().strip() + b"\r",
        b"",
        b" \t\r",
        b'{"prompt_name":"a","request_id":"no"}',
        b"no JSON",
        b'{"prompt_name":"a","request_id":1.5,"lable":"x"}',
        b'{"prompt_name":"\xff","request_id":1}',
        b'{"prompt_name":"' + b"x" * (17 << 20),
        b'{"prompt_name":"' + b"y" * (9 << 20) + b'","request_id":1}',
        lines_of([10]).encode().strip(),
    ]
    path = write("kinds", b"\n".join(kinds))
    run("lines of all kinds", 1, r"(?s)2 done, 6 failed, .*The lines that failed, and why: .*kinds\.rejects\n$", path)
    check("  CRLF, and the last without an end, are sent", sorted(service.received) == [1, 10], service.received)
    check("  as they are", service.bodies[10] == body(10), service.bodies)
    outcomes = ended(path)
    outcomes["tracked"].sort()
    expected = {"tracked": [1, 10], "failed": [4, 5, 6, 7, 8, 9], "blank": [2, 3]}
    check("  every line has ended", outcomes == expected, outcomes)
    found = rejects(path)
    why = [(r["line"], r["reason"]) for r in found]
    expected = [
        (4, "request_id: must be an integer, is a string"),
        (5, "the text is not JSON: syntax error at byte 0"),
        (6, "request_id: must be an integer, is a number with a fraction; lable: is not a member of this request"),
        (7, "the text is not JSON: syntax error at byte 16"),
        (8, "the line is too long; only its beginning is kept here"),
        (9, f"the body: at most {8 << 20} bytes, has {len(kinds[8])}"),
    ]
    check("  line numbers and reasons", why == expected, why)
    texts = [json.loads(kinds[3]), "no JSON", json.loads(kinds[5]), kinds[6].decode("utf-8", "surrogateescape")]
    check("  and the lines themselves", [r["body"] for r in found[:4]] == texts, found[:4])
    run("once more sends nothing", 1, r"^2 done, 6 failed, 0 a second", path)
    check("  and rejects nothing again", len(service.received) == 2 and rejects(path) == found)


def test_refusals():
    invalid = {"detail": [{"loc": ["body", "label"], "msg": "no such label", "type": "value_error"}]}
    service.reset({2: (400, {"success": False, "message": f"no such prompt {SECRET}"}), 5: (422, invalid)})
    path = write("refused", lines_of(range(1, 8)))
    run("what the service refuses", 1, "5 done, 2 failed", path)
    found = sorted(rejects(path), key=lambda r: r["line"])
    check("  is in the rejects file", [(r["line"], r["body"]) for r in found] == [(2, body(2)), (5, body(5))], found)
    first, second = (r["reason"] for r in found)
    said = first == "the service refused the request (HTTP 400): no such prompt [redacted]"
    check("  with its words, without the key", said and "(HTTP 422)" in second and "no such label" in second, found)

    service.reset()
    text = pathlib.Path(f"{path}.rejects").read_text()
    mended = write("mended", text + '{"line":9,"reason":"","body":"{\\"prompt_name\\":\\"b\\",\\"request_id\\":9}"}')
    run("a rejects file is an input", 0, "3 done, 0 failed", mended)
    sent = {2: body(2), 5: body(5), 9: {"prompt_name": "b", "request_id": 9}}
    check("  whose bodies are sent", service.bodies == sent, service.bodies)

    busy, slow = (503, {}), (429, {}, "Retry-After: 1\r\n")
    service.reset({2: [busy, busy, Service.OK], 3: [slow, Service.OK], 4: busy})
    path = write("retried", lines_of(range(1, 6)))
    run("503 and 429 are tried again", 1, "4 done, 1 failed", path, "--attempts", "4")
    check("  as often as they may", service.attempts == {1: 1, 2: 3, 3: 2, 4: 4, 5: 1}, service.attempts)
    found = rejects(path)
    good = [r["line"] for r in found] == [4] and "(HTTP 503)" in found[0]["reason"]
    check("  what is given up is rejected", good, found)

    service.reset({"all": (401, {"message": f"bad key {SECRET}"})})
    path = write("unauthorized", lines_of(range(1, 101)))
    said = r"(?s)0 done, 0 failed.*Stopped: the service did not accept the API key \(HTTP 401\).*To go on"
    run("401 stops", 4, said, path)
    check("  at once, and burns nothing", len(service.received) <= 8 and not records_of(path), service.received)
    service.reset()
    run("  and it goes on with a good key", 0, "100 done, 0 failed", path)

    service.reset({"all": busy})
    path = write("down", lines_of(range(1, 101)))
    run("a service that is down stops", 4, r"Stopped: the service failed \(HTTP 503\)", path, "--attempts", "2")
    check("  before much is given up", len(rejects(path)) < 24, rejects(path))


def test_stop_and_resume():
    everything = list(range(1, 2001))
    for number in (signal.SIGINT, signal.SIGTERM):
        name = signal.Signals(number).name
        service.reset(hold_after=500)
        path = write(name, lines_of(everything))
        process = start(path)
        wait_for("requests in flight", lambda: len(service.held) == 8)
        process.send_signal(number)
        service.let_go()
        said = r"(?s)508 done, 0 failed.*Stopped\nTo go on, start the same command again: .*progress"
        finish(f"{name} stops", process, 3, said)
        check("  what was in flight is noted", sorted(ended(path)["tracked"]) == sorted(service.received))
        before = list(service.received)
        run("  and it goes on", 0, "^2000 done, 0 failed", path)
        check("  without sending anything twice", sorted(service.received) == everything, len(service.received))

    service.reset(hold_after=100)
    path = write("second", lines_of(everything))
    process = start(path)
    wait_for("requests in flight", lambda: len(service.held) == 8)
    process.send_signal(signal.SIGINT)
    caught = pathlib.Path(f"/proc/{process.pid}/status")
    if caught.exists():  # the first has been handled when it is caught no more
        wait_for("the first signal", lambda: int(re.search(r"SigCgt:\s*(\w+)", caught.read_text())[1], 16) & 2 == 0)
        process.send_signal(signal.SIGINT)
        finish("a second signal ends it at once", process, -signal.SIGINT)
    else:
        process.kill()
        process.communicate(timeout=PATIENCE)

    path = write("killed", lines_of(everything))
    service.reset()
    noted = set()
    for attempt in range(1, 5):
        before = len(service.received)
        process = start(path)
        wait_for("requests", lambda: len(service.received) >= before + 300 or process.poll() is not None)
        process.kill()
        process.communicate(timeout=PATIENCE)
        check(f"SIGKILL {attempt}: nothing noted before is sent again", not noted & set(service.received[before:]))
        noted = set(ended(path)["tracked"])
        check("  what is noted was sent", noted <= set(service.received))
        with open(f"{path}.progress", "a") as torn:
            torn.write("1999 trac")
    before = len(service.received)
    run("the run after it", 0, "^2000 done, 0 failed", path)
    check("  sends what is not noted, and nothing else", sorted([*noted, *service.received[before:]]) == everything)
    check("  every line has arrived", set(service.received) == set(everything))

    service.reset()
    write("killed", lines_of(range(1, 2011)))
    run("lines that were added", 0, "^2010 done, 0 failed", path)
    check("  are sent alone", sorted(service.received) == list(range(2001, 2011)), service.received)


def test_bounds():
    service.reset()
    service.answers[1] = None
    path = write("behind", lines_of(range(1, 12_001)))
    process = start(path)
    wait_for("10,000 lines after the first", lambda: len(records_of(path)) == 10_000)
    last = max(service.received)
    check("a line without an answer holds up those far after it", last == 10_001, last)
    service.answers.clear()
    service.let_go()
    finish("  until it has one", process, 0, "^12000 done|\n12000 done")


def test_wrong_files():
    path = write("one", lines_of(range(1, 101)))
    service.reset()
    run("a first run", 0, "100 done", path)
    progress = pathlib.Path(f"{path}.progress")
    kept = progress.read_bytes()
    service.reset()
    other = r"one\.progress: is of another input: "
    for what, text in (
        ("another input", lines_of(range(1001, 1201))),
        ("a line changed in the middle", lines_of([*range(1, 50), 7, *range(51, 201)])),
        ("lines in another order", lines_of([2, 1, *range(3, 201)])),
        ("a shorter input", lines_of(range(1, 51))),
    ):
        run(what, 2, other, write("two", text), "--progress", progress)
        check("  sends nothing, notes nothing", not service.received and progress.read_bytes() == kept)
    for what, text in (
        ("no progress file", b"one\ntwo"),
        ("no end of line", b"precious"),
        ("a bad record", kept + b"101 gone ff\n"),
        ("a line twice", kept + kept.splitlines(True)[1]),
        ("the progress of another service", kept.replace(b"http://127", b"http://128", 1)),
    ):
        progress.write_bytes(text)
        run(what, 2, r"one\.progress: is not a progress file", path)
        check("  is left as it is", progress.read_bytes() == text and not service.received)
    progress.write_bytes(kept)
    with open(progress, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run("a progress file that another uses", 2, r"one\.progress: is in use", path)
    nowhere = folder / "no" / "such"
    run("a progress file that cannot be", 2, "cannot be written", path, "--progress", nowhere)
    run("a rejects file that cannot be", 2, "cannot be written", write("bad", "x\n"), "--rejects", nowhere)
    check("  whose line has not ended", not records_of(folder / "bad"))
    run("no input", 2, "^FILE: cannot be read\n$", nowhere)
    run("a folder as input", 2, "cannot be read", folder, "--progress", folder / "p", "--rejects", folder / "r")
    different = "FILE, --progress, --rejects: must be different files"
    run("the input as progress file", 2, different, path, "--progress", path)
    run("the input as rejects file", 2, different, path, "--rejects", f"{folder}/./one")
    check("  nothing was sent", not service.received)


def test_command_line():
    help_ = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=PATIENCE)
    check("--help", help_.returncode == 0 and "exit status: 0 " in help_.stdout, help_)
    path = write("unread", lines_of([1]))
    service.reset()
    for arguments, said in (
        ([], "FILE: is missing, see --help"),
        ([path, path], "FILE: is given more than once"),
        ([path, "--nonsense"], r"argument \d: is not an option, see --help"),
        ([path, "--in-flight", "0"], "--in-flight: must be 1 to 256"),
        ([path, "--in-flight=x"], "--in-flight: must be 1 to 256"),
        ([path, "--attempts", "1.5"], "--attempts: must be 1 to 1000"),
        ([path, "--first-wait", "1"], "--first-wait: is given more than once"),
        ([path, "--attempts"], "--attempts: needs a value"),
    ):
        run(f"{[str(a) for a in arguments[1:]]}", 2, said, *arguments)
    run("a key that cannot be used", 2, "^api_key: must be visible ASCII\n$", path, key=SECRET + "\r\n")
    run("no key", 0, r"PROMPTLAYER_API_KEY is not set: a service inside this process answers\.\n1 done", path, key=None)
    check("  nothing was sent", not service.received)


def test_display():
    for terminal in (False, True):
        service.reset(hold_after=20)
        path = write(f"shown-{terminal}", lines_of(range(1, 31)))
        shown = bytearray()
        ours, theirs = pty.openpty() if terminal else os.pipe()
        process = start(path, stderr=theirs)
        os.close(theirs)

        def read():
            try:
                while text := os.read(ours, 4096):
                    shown.extend(text)
            except OSError:
                pass  # as a terminal says that it has ended

        reader = threading.Thread(target=read)
        reader.start()
        wait_for("progress", lambda: re.search(rb"20 done, 0 failed, \d+ a second, \d+:\d\d:\d\d left", shown))
        service.let_go()
        process.communicate(timeout=PATIENCE)
        reader.join()
        os.close(ours)
        good = process.returncode == 0 and shown.endswith(b"\n") and b"30 done, 0 failed, " in shown
        if terminal:
            good = good and shown.startswith(b"\r") and shown.count(b"\n") == 1
        else:
            good = good and b"\r" not in shown and shown.count(b"\n") >= 2
        check(f"progress {'on a terminal' if terminal else 'in plain lines'}", good, bytes(shown))


def test_standard_input():
    service.reset()
    process = start("-", stdin=subprocess.PIPE)
    process.stdin.write(lines_of([1]).encode() + b'{"prompt_name"')
    process.stdin.flush()
    wait_for("a request, while the input goes on", lambda: service.received == [1])
    process.stdin.write(b':"b","request_id":2}\nbad')
    finish("standard input", process, 1, r"2 done, 1 failed.*\n.*: stdin\.rejects\n$")
    check("  arrives", service.bodies == {1: body(1), 2: {"prompt_name": "b", "request_id": 2}}, service.bodies)

    service.reset(hold_after=3)
    process = start("-", "--progress", "p1", "--in-flight=1", stdin=subprocess.PIPE)
    process.stdin.write(lines_of(range(1, 11)).encode())
    process.stdin.flush()
    wait_for("a request in flight", lambda: service.held)
    process.send_signal(signal.SIGTERM)
    service.let_go()
    process.wait(timeout=PATIENCE)  # though the input has not ended
    finish("  stopped", process, 3, "4 done, 0 failed")
    process = start("-", "--progress", "p1", stdin=subprocess.PIPE)
    process.stdin.write(lines_of(range(1, 11)).encode())
    finish("  and resumed", process, 0, "10 done, 0 failed")
    check("  without sending anything twice", sorted(service.received) == list(range(1, 11)), service.received)


def test_memory():
    """100,000 lines against the service inside the process, and how much memory that takes when all have ended."""
    peaks = {}
    for count in (10_000, 100_000):
        progress = folder / f"{count}.progress"
        text = lines_of(range(1, count + 1)).encode()
        process = start("-", "--progress", progress, key=None, stdin=subprocess.PIPE)
        begun = time.monotonic()
        process.stdin.write(text)
        process.stdin.flush()
        with open(progress, "rb") as notes:
            noted = -1
            while noted < count and process.poll() is None and time.monotonic() < begun + 300:
                noted += notes.read().count(b"\n")
                time.sleep(0.01)
        took = time.monotonic() - begun
        status = pathlib.Path(f"/proc/{process.pid}/status")
        if status.exists():
            kilobytes = {name: int(size) for name, size in re.findall(r"(\w+):\s*(\d+) kB", status.read_text())}
            if kilobytes["VmSize"] < 1 << 30:  # a sanitizer reserves terabytes, and keeps what is freed
                peaks[count] = kilobytes["VmHWM"]
        figures = f"{took:.1f} s, {count / took:.0f} a second, at most {peaks.get(count, '?')} kB"
        finish(f"{count} lines: {figures}", process, 0, f"\n{count} done, 0 failed")
    if peaks:
        check("memory does not grow with the input", peaks[100_000] < peaks[10_000] + 2048, peaks)


test_lines()
test_refusals()
test_stop_and_resume()
test_bounds()
test_wrong_files()
test_command_line()
test_display()
test_standard_input()
test_memory()
held = [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
check("no file holds the key", not held, held)
folder_made.cleanup()
sys.exit(f"{failures} failed" if failures else 0)
