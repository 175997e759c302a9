"""A notebook's kernel that starts warm: a fork of `warm.py kernels`, which is behind a socket.

Jupyter starts and ends this program; signals go on to the fork, which ends with it.
"""
import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as parent:
    parent.connect(sys.argv[1])
    asked = dict(job="kernel", words=sys.argv[2:], cwd=os.getcwd(), env=dict(os.environ))
    socket.send_fds(parent, [b"\n"], [1, 2])
    parent.sendall(json.dumps(asked).encode() + b"\n")
    answers = parent.makefile()
    pid = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    sys.exit(int(answers.readline() or 1))
