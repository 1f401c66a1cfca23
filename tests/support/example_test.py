#!/usr/bin/env python3
"""Runs the example track_prompt with each option, checks each exit status, and that the API key is never shown.

usage: example_test.py TRACK_PROMPT
"""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading

program = sys.argv[1]
SECRET = "pl_0123456789-this-must-not-be-shown"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTLAYER_")}
SAMPLE = '{"prompt_name":"support-response","prompt_input_variables":{"user_message":"Hello"},"request_id":12345}'
SEE_HELP = "see --help"
INTEGER = "must be an integer that fits in 64 bits signed"
SECONDS = "must be seconds, 0.001 to 86400"
LATER = "Hint: the same request may succeed later."

failures = 0


def check(behaviour, holds, shown=""):
    global failures
    print("ok    " if holds else "FAILED", behaviour)
    if not holds:
        failures += 1
        print(shown)


def matches(expected, text):
    """`expected` is the whole text, a pattern for it, its lines, or None for any text."""
    if isinstance(expected, list):
        expected = "".join(line + "\n" for line in expected)
    if isinstance(expected, re.Pattern):
        return expected.fullmatch(text) is not None
    return expected is None or expected == text


def run(behaviour, *arguments, code=0, out="", err="", key=SECRET, base_url=None):
    environment = dict(CLEAN)
    if key is not None:
        environment["PROMPTLAYER_API_KEY"] = key
    if base_url is not None:
        environment["PROMPTLAYER_BASE_URL"] = base_url
    process = subprocess.run([program, *arguments], env=environment, capture_output=True, timeout=60)
    output = [text.decode("utf-8", "replace").replace("\r\n", "\n") for text in (process.stdout, process.stderr)]
    shown = f"  exit status {process.returncode}, expected {code}\n  stdout: {output[0]!r}\n  stderr: {output[1]!r}"
    holds = process.returncode == code and matches(out, output[0]) and matches(err, output[1])
    check(behaviour, holds and SECRET not in "".join(output), shown)


def dry(body, url="https://api.promptlayer.com/rest/track-prompt"):
    head = f"POST {url}\nX-API-KEY: [redacted]\nContent-Type: application/json\nAccept: application/json\n"
    return re.compile(re.escape(head) + r"User-Agent: promptlayer-cpp/\d+\.\d+\.\d+\n\n" + re.escape(body + "\n"))


class Service(http.server.BaseHTTPRequestHandler):
    """Responds as the first part of the path says. `late` waits for `released`."""

    protocol_version = "HTTP/1.1"
    received = []
    released = threading.Event()
    responses = {
        "tracked": (200, {}, {"success": True, "message": "noted"}),
        "rejected": (200, {}, {"success": False, "message": "no such request"}),
        "html": (200, {}, "<html>"),
        "elsewhere": (302, {"Location": "/tracked/rest/track-prompt"}, ""),
        "400": (400, {}, {"success": False, "message": "no such prompt"}),
        "401": (401, {}, {"success": False, "message": f"bad key {SECRET}"}),
        "429": (429, {"Retry-After": "7"}, ""),
        "429-no-wait": (429, {}, ""),
        "500": (500, {}, "oops"),
        "late": (200, {}, {"success": True, "message": "late"}),
    }

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, first, rest = self.path.split("/", 2)
        self.received.append((f"{self.command} /{rest}", self.headers["X-API-KEY"], body.decode()))
        if first == "late":
            self.released.wait(30)
        status, headers, content = self.responses[first]
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client does not wait for a late response

    def log_message(self, *_):
        pass


def test_options():
    run("--help", "--help", out=re.compile(r"Associates a prompt .*\n  --dry-run .*exit status: 0 .*\n", re.DOTALL))
    run("--help has precedence over other options", "--nonsense", "--label", "--help", out=re.compile(r"Associates a prompt .*", re.DOTALL))

    required = ["--prompt-name", "a", "--request-id", "-7"]
    for key in (SECRET, None):
        run(f"--dry-run, {'a' if key else 'no'} key", "--dry-run", out=dry(SAMPLE), key=key)
    run("--prompt-name, --request-id", "--dry-run", *required, out=dry('{"prompt_name":"a","request_id":-7}'))
    run(
        "--var, --version",
        *required,
        *("--var", "x=1=2", "--var", "y=", "--var=z= --dry-run", "--version", "3", "--dry-run"),
        out=dry(
            '{"prompt_name":"a","prompt_input_variables":{"x":"1=2","y":"","z":" --dry-run"},'
            '"request_id":-7,"version":3}'
        ),
    )
    run(
        "--label, and values after '='",
        *("--prompt-name=--a", "--request-id=9223372036854775807", "--label", "prod", "--timeout=0.5", "--dry-run"),
        out=dry('{"prompt_name":"--a","request_id":9223372036854775807,"label":"prod"}'),
    )
    base_url = "http://[::1]:8/x/"
    run("PROMPTLAYER_BASE_URL", "--dry-run", base_url=base_url, out=dry(SAMPLE, f"{base_url}rest/track-prompt"))


def test_bad_command_lines():
    required = ["--prompt-name", "a", "--request-id", "1"]

    def refused(behaviour, arguments, lines, **settings):
        run(behaviour, *arguments, code=2, err=lines, **settings)

    def unknown(*positions):
        return [f"argument {position}: is not an option, {SEE_HELP}" for position in positions]

    refused("an unknown option is rejected and not repeated", ["--nonsense", f"--key={SECRET}"], unknown(1, 2))
    refused("a value for an option without one is rejected", ["--help=x", "--dry-run=1"], unknown(1, 2))
    refused("control characters are not repeated", ["-sekrit", "--\x1b[31m=x"], unknown(1, 2))
    refused("a stray argument is rejected and not repeated", [SECRET], unknown(1))
    for option in ("--prompt-name", "--request-id", "--var", "--version", "--label", "--timeout"):
        given = [text for pair in zip(required[::2], required[1::2]) if pair[0] != option for text in pair]
        refused(f"{option} without a value", [*given, option], [f"{option}: needs a value"])
        refused(f"{option} before an option", [option, "--dry-run", *given], [f"{option}: needs a value"])
        if option != "--var":
            twice = [*given, option, "1", option, "1"]
            refused(f"{option} twice", twice, [f"{option}: is given more than once"])
    for value in ("", "x", "1.0", "1e3", "0x1", " 1", "1 ", "9223372036854775808", "-9223372036854775809"):
        refused(f"--request-id {value!r}", ["--prompt-name", "a", "--request-id", value], [f"--request-id: {INTEGER}"])
        refused(f"--version {value!r}", [*required, "--version", value], [f"--version: {INTEGER}"])
    for value in ("", "0", "-1", "x", "5s", "nan", "inf", "1e999", "86401", "0.0009"):
        refused(f"--timeout {value!r}", ["--timeout", value], [f"--timeout: {SECONDS}"])
    refused("--var without '='", [*required, "--var", "x"], ["--var: must be NAME=VALUE"])
    refused("no --request-id", ["--prompt-name", "a"], ["--request-id: is missing"])
    refused("no --prompt-name", ["--request-id", "1"], ["--prompt-name: is missing"])
    for option, value in (("--var", "x=1"), ("--version", "1"), ("--label", "x")):
        refused(f"{option} alone", [option, value], ["--prompt-name: is missing", "--request-id: is missing"])
    refused(
        "every problem is reported at once",
        ["--request-id", "x", "--prompt-nam", "a", "--label", ""],
        [
            *unknown(3, 4),
            "--prompt-name: is missing",
            f"--request-id: {INTEGER}",
            "label: at least 1 character, has 0",
        ],
    )


def test_invalid_requests():
    required = ["--prompt-name", "a", "--request-id", "1"]
    either = "only one of version, label may be given"
    for more in ([], ["--dry-run"]):
        run("--version and --label together are rejected", *required, "--version", "1", "--label", "x", *more, code=2, err=[either])
    run(
        "two violations are reported",
        *("--prompt-name", "", "--request-id", "1", "--version", "1", "--label", "x"),
        code=2,
        err=["prompt_name: at least 1 character, has 0", either],
    )
    twice = 'prompt_input_variables["x"]: is given more than once'
    run("a variable given twice is rejected", *required, "--var", "x=1", "--var", "x=2", code=2, err=[twice])
    run("a label of 513 characters is rejected", *required, "--label", "\u00e9" * 513, code=2, err=["label: at most 512 characters, has 513"])
    if os.name == "posix":
        bad = "prompt_name: is not UTF-8 at byte 1"
        run("text that is not UTF-8 is rejected", b"--prompt-name", b"a\xff", b"--request-id", b"1", code=2, err=[bad])


def test_bad_configs():
    insecure = "base_url: must begin with https://: the host is not this machine, and allow_insecure_http is not set"
    for key in (SECRET, None):
        what = f"http:// to another host is rejected, {'a' if key else 'no'} key"
        run(what, code=2, err=[insecure], key=key, base_url="http://example.com")
    run("http:// to a host with a loopback address as its prefix is rejected", code=2, err=[insecure], base_url="http://127.0.0.1.example.com")
    run(
        "two invalid members of the config are reported",
        code=2,
        err=[
            "api_key: must be visible ASCII",
            "base_url: must begin with https://, or with http:// if the host is this machine",
        ],
        key=SECRET + "\r\nX-Other: 1",
        base_url="example.com",
    )


def test_without_a_key():
    arguments = ["--prompt-name", "a", "--request-id", "1", "--timeout", "60"]
    for given, body in (([], SAMPLE), (arguments, '{"prompt_name":"a","request_id":1}')):
        for key in (None, ""):
            run(
                f"{'a prompt' if given else 'the sample'}, {'no' if key is None else 'an empty'} key",
                *given,
                out=re.compile(
                    r"PROMPTLAYER_API_KEY is not set: a service inside this process responds\.\n"
                    rf"Sending to http://127\.0\.0\.1:\d+: {re.escape(body)}\n"
                    r"Tracked: Prompt tracked successfully\n"
                ),
                key=key,
            )


def test_the_service(base):
    def responds(path, *arguments, **expected):
        url = f"{base}/{path}"
        sending = f"Sending to {url}: {SAMPLE}"
        run(path, *arguments, base_url=url, **{**expected, "out": [sending, *expected.get("out", [])]})

    responds("tracked", out=["Tracked: noted"])
    check("the service receives the path, the key and the body", Service.received == [("POST /rest/track-prompt", SECRET, SAMPLE)], Service.received)
    responds("rejected", code=1, err=["the service reports that it did not succeed (HTTP 200): no such request"])
    malformed = r"the response does not match the interface of the service \(HTTP 200\): .+\n"
    responds("html", code=1, err=re.compile(malformed))
    responds("400", code=1, err=["the service refused the request (HTTP 400): no such prompt"])
    responds("401", code=1, err=["the service did not accept the API key (HTTP 401): bad key [redacted]"])
    responds("429", code=1, err=["the service asks for fewer requests (HTTP 429)", "Hint: try again in 7 s."])
    responds("429-no-wait", code=1, err=["the service asks for fewer requests (HTTP 429)", LATER])
    responds("500", code=1, err=re.compile(rf"the service failed \(HTTP 500\).*\n{LATER}\n"))
    before = len(Service.received)
    unexpected = r"the service returned an unexpected status.*\(HTTP 302(, redirects to the same host)?\).*\n"
    responds("elsewhere", code=1, err=re.compile(unexpected))
    check("a redirect is not followed", len(Service.received) == before + 1, Service.received[before:])
    no_answer = "no response from the service: "
    too_late = re.compile(rf"{no_answer}the timeout expired.*\n{LATER}\n")
    responds("late", "--timeout", "0.3", code=1, err=too_late)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        refused = re.compile(rf"{no_answer}no connection could be established.*\n{LATER}\n")
        run("a closed port is reported", code=1, out=[f"Sending to {url}: {SAMPLE}"], err=refused, base_url=url)


test_options()
test_bad_command_lines()
test_invalid_requests()
test_bad_configs()
test_without_a_key()
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        test_the_service(f"http://127.0.0.1:{server.server_port}")
    finally:
        Service.released.set()
        server.shutdown()
        thread.join()
sys.exit(f"{failures} failed" if failures else 0)
