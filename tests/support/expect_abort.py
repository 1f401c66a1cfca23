#!/usr/bin/env python3
"""Checks that a program aborts or ends by a signal, and that its output contains TEXT.

usage: expect_abort.py TEXT PROGRAM [ARGUMENT...]
"""

import subprocess
import sys

expected, *command = sys.argv[1:]
process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
if 0 <= process.returncode <= 2:
    sys.exit(f"{command}: returned {process.returncode}, but must abort\n{process.stdout}")
if expected not in process.stdout:
    sys.exit(f"{command}: the output lacks: {expected}\n{process.stdout}")
