"""Processes that start warm: forked from one that has imported everything and used nothing.

Half of what the suite took was importing TensorFlow, once for each command and notebook. A child of
`Warm` is a process like any other: its own environment, folder, output, seeds and signals.
A TensorFlow that has run survives no fork, so the parent runs nothing.
"""
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "execnb.shell", "keras", "matplotlib.pyplot", "nbdev.test", "optuna", "pandas", "PIL.Image",
    "plotly.express", "scipy.optimize", "seaborn", "sklearn.datasets", "tensorflow",
    "tensorflow_datasets", "ai_edge_litert.interpreter", "litert_quantizer.quantizer",
)
ALL = (*LIBRARIES, "edgetpu_repro.cli.main")
HANDED_ON = "EDGETPU_REPRO_WARM" # descriptors and number of a parent that is there already
WHEN_IMPORTED = ("KERAS_", "PYTHON", "TF_", "TFDS_", "XLA_")


def at_import(environment) -> dict:
    "Variables that decide something while a package is imported."
    return {k: v for k, v in environment.items() if k.startswith(WHEN_IMPORTED)}


def command(*words):
    "The command line of `edgetpu-repro`."
    from edgetpu_repro.cli.main import main
    sys.argv = ["edgetpu-repro", *words]
    main()


def script(path, *words):
    "A program of `tools/`, as Python runs it."
    import runpy
    sys.argv = [path, *words]
    runpy.run_path(path, run_name="__main__")


def notebook(path, *_):
    "One notebook, by nbdev's own function: it leaves out what `nbdev_test` leaves out."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    config = get_config()
    os.chdir(config.nbs_path)
    passed, _ = test_nb(Path(path), config.tst_flags.split(), basepath=config.config_path)
    sys.exit(not passed)


def tests(*words):
    "Tests, by pytest's own command line; their warm processes are forks of another fork."
    import pytest
    to_parent, to_tests = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.close(to_parent[1])
        os.close(to_tests[0])
        answer(os.fdopen(to_parent[0]), os.fdopen(to_tests[1], "w"))
        os._exit(0)
    os.close(to_parent[0])
    os.close(to_tests[1])
    os.environ[HANDED_ON] = f"{to_parent[1]} {to_tests[0]} {pid}"
    sys.exit(pytest.main([*words]))


def kernel(*words):
    "A notebook's kernel, as Jupyter starts it."
    from ipykernel import kernelapp
    started_by = f"--IPKernelApp.parent_handle={os.environ['JPY_PARENT_PID']}" # read at import
    sys.argv = ["ipykernel_launcher", *words, started_by]
    kernelapp.launch_new_instance()


def opened(asked) -> tuple: # of descriptors
    "What a child reads, and where it writes."
    added = os.O_WRONLY | os.O_APPEND
    files = ((os.devnull, os.O_RDONLY), (asked["out"], added), (asked["err"], added))
    return tuple(os.open(name, flags) for name, flags in files)


def child(asked):
    "What a fork does; it never returns."
    import atexit
    import resource
    import threading
    import traceback
    code, limit = 1, asked.get("seconds")
    try:
        if limit: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        for number, file in enumerate(asked.get("files") or opened(asked)):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        globals()[asked["job"]](*asked["words"])
        code = 0
    except SystemExit as e: code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException: traceback.print_exc()
    finally:
        try:
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally: os._exit(code)


def answer(requests, answers):
    "Read requests, a line each; run each in a fork; answer with its exit code and seconds."
    for line in requests:
        asked = json.loads(line)
        pid = os.fork()
        if not pid: child(asked)
        _, status, used = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, used.ru_utime + used.ru_stime]), file=answers, flush=True)


def load(names):
    "Import what every fork will have."
    import gc
    import importlib
    sys.path[0] = str(ROOT) # in place of this file's folder
    for name in names: importlib.import_module(name)
    gc.freeze() # what is here already is not looked at again in a fork


def serve(*names):
    "Answer a session of tests through pipes."
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    load(names)
    answer(requests, answers)


def kernels(address, *names):
    "Answer `warm_kernel.py`: a fork for each that asks, which ends with it."
    import selectors
    import signal
    import socket
    load(names)
    asking, forks = selectors.DefaultSelector(), {}
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    asking.register(server, selectors.EVENT_READ)

    def start():
        client, _ = server.accept()
        _, (out, err), _, _ = socket.recv_fds(client, 1, 2)
        asked = json.loads(client.makefile().readline())
        pid = os.fork()
        if not pid: child(asked | dict(files=(os.open(os.devnull, os.O_RDONLY), out, err)))
        os.close(out)
        os.close(err)
        asking.register(client, selectors.EVENT_READ, pid)
        forks[pid] = client
        say(client, pid)

    def say(client, number):
        with suppress(OSError): client.sendall(b"%d\n" % number) # it may be gone

    while True:
        for key, _ in asking.select(0.05):
            if key.data is None: start()
            elif key.data in forks: os.kill(key.data, signal.SIGKILL) # who asked is gone
        while forks and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            client = forks.pop(ended[0])
            asking.unregister(client)
            say(client, os.waitstatus_to_exitcode(ended[1]))
            client.close()


class Warm:
    """The parent of warm processes; it starts with the first of them.

    With `LIBRARIES` only, a child finds the package as it is when the child starts.
    """

    def __init__(self, loaded=ALL):
        self.loaded, self.pid = loaded, None
        self.seconds = 0.0 # of processor time of all its children
        self.handed_on = os.environ.pop(HANDED_ON, "").split()

    def suits(self, environment) -> bool:
        "Whether a process of this environment would have imported the same."
        return at_import(environment) == at_import(os.environ)

    def start(self):
        "Import everything, once; or take the parent that was handed on."
        if self.handed_on:
            requests, answers, self.pid = map(int, self.handed_on)
            self.requests, self.answers = os.fdopen(requests, "w"), os.fdopen(answers)
            return
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        quiet = subprocess.DEVNULL
        words = [sys.executable, __file__, "serve", *self.loaded]
        child = subprocess.Popen(words, cwd=ROOT, stderr=quiet, **pipes)
        self.pid, self.requests, self.answers = child.pid, child.stdin, child.stdout

    def run(self, job, words, cwd, env, folder, seconds=None):
        "Run a job, for so much processor time at most: its exit code, output and errors."
        if self.pid is None: self.start()
        files = [Path(folder) / name for name in ("out", "err")]
        for file in files: file.write_bytes(b"")
        out, err = map(str, files)
        asked = dict(job=job, words=list(map(str, words)), cwd=str(cwd), env=env, out=out, err=err,
                     seconds=seconds)
        print(json.dumps(asked), file=self.requests, flush=True)
        said = self.answers.readline()
        if not said: raise RuntimeError("the parent of warm processes has ended")
        code, seconds = json.loads(said)
        self.seconds += seconds
        return code, *(file.read_text(errors="replace") for file in files)

    def end(self):
        "The parent ends; nothing of it is left."
        if self.pid is None: return
        self.requests.close()
        os.waitpid(self.pid, 0)


if __name__ == "__main__": dict(serve=serve, kernels=kernels)[sys.argv[1]](*sys.argv[2:])
