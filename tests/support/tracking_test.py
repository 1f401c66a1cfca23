#!/usr/bin/env python3
"""Runs the examples tracking and llm_call, and checks what they print and their exit status.

usage: tracking_test.py TRACKING LLM_CALL
"""

import os
import subprocess
import sys
import tempfile

tracking, llm_call = map(os.path.abspath, sys.argv[1:])
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTLAYER_")}
LOG = """{"provider": "p", "model": "m", "input": {"type": "chat", "messages": []}, "output": {},
"request_start_time": "2024-01-15T10:30:00Z", "request_end_time": "2024-01-15T10:30:01Z"}"""
failures = 0


def run(behaviour, *command, code=0, out="", err="", text=None, **environment):
    """Checks that `out` is the whole output, and that `err` is in the output for errors."""
    global failures
    ended = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", timeout=60, env=CLEAN | environment)
    holds = ended.returncode == code and ended.stdout == out and err in ended.stderr
    print("ok    " if holds else "FAILED", behaviour)
    if not holds:
        failures += 1
        print(ended)


run("a score is sent", tracking, "score", '{"request_id": 1, "score": 95}', out="Tracked successfully\n")
run("a prompt is sent", tracking, "prompt", '{"prompt_name": "a", "request_id": 1}', out="Prompt tracked successfully\n")
run("metadata is sent", tracking, "metadata", '{"request_id": 1, "metadata": {}}', out="Tracked successfully\n")
run("a group is sent", tracking, "group", '{"request_id": 1, "group_id": 2}', out="Tracked successfully\n")
run("a log from the standard input receives an id", tracking, "log", "-", text=LOG, out="request_id 1\n")
run("an invalid request is not sent", tracking, "score", '{"request_id": 1, "score": 101}', code=2,
    err="score: must be at most 100\n")
run("text that is not JSON is not sent", tracking, "score", "{", code=2, err="at byte 1\n")
run("an unknown command shows the help", tracking, "scores", "{}", code=2, err="usage: tracking")
run("a service that cannot be reached is an error", tracking, "group", '{"request_id": 1, "group_id": 2}', code=1,
    err="no response from the service", PROMPTLAYER_API_KEY="pl_key", PROMPTLAYER_BASE_URL="http://127.0.0.1:1")

with tempfile.TemporaryDirectory() as folder:
    journal = os.path.join(folder, "llm_call.journal")
    run("a call is logged, then scored under the id of its log", llm_call, journal,
        out="PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n"
            "delivered: /log-request\ndelivered: /rest/track-score\n")
    run("a journal that cannot be opened is an error", llm_call, os.path.join(folder, "none", "journal"), code=1,
        out="PROMPTLAYER_API_KEY is not set: a service inside this process responds.\n", err="journal")

sys.exit(failures != 0)
