"""Processes that start warm: forked from one that has imported everything and used nothing.

Half of what the suite took was importing TensorFlow, once for each command and notebook. A child of
`Warm` is a process like any other: its own environment, folder, output, seeds and signals.
A TensorFlow that has run survives no fork, so the parent runs nothing.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOADED = (
    "execnb.shell", "keras", "matplotlib.pyplot", "nbdev.test", "optuna", "pandas", "PIL.Image",
    "plotly.express", "scipy.optimize", "seaborn", "sklearn.datasets", "tensorflow",
    "tensorflow_datasets", "ai_edge_litert.interpreter", "ai_edge_quantizer.quantizer",
    "edgetpu_repro.cli.main",
)
WHEN_IMPORTED = ("KERAS_", "PYTHON", "TF_", "TFDS_", "XLA_")


def at_import(environment) -> dict:
    "Variables that decide something while a package is imported."
    return {k: v for k, v in environment.items() if k.startswith(WHEN_IMPORTED)}


def command(*words):
    "The command line of `edgetpu-repro`."
    from edgetpu_repro.cli.main import main
    sys.argv = ["edgetpu-repro", *words]
    main()


def notebook(path, *_):
    "One notebook, by nbdev's own function: it leaves out what `nbdev_test` leaves out."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    config = get_config()
    os.chdir(config.nbs_path)
    passed, _ = test_nb(Path(path), config.tst_flags.split(), basepath=config.config_path)
    sys.exit(not passed)


def child(asked):
    "What a fork does; it never returns."
    import atexit
    import threading
    import traceback
    code = 1
    try:
        for name, flags, number in (
            (os.devnull, os.O_RDONLY, 0),
            (asked["out"], os.O_WRONLY | os.O_APPEND, 1),
            (asked["err"], os.O_WRONLY | os.O_APPEND, 2),
        ):
            file = os.open(name, flags)
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


def serve():
    "Read requests, a line each; run each in a fork; answer with its exit code and seconds."
    import gc
    import importlib
    sys.path.insert(0, str(ROOT))
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in LOADED: importlib.import_module(name)
    gc.freeze() # what is here already is not looked at again in a fork
    for line in requests:
        asked = json.loads(line)
        pid = os.fork()
        if not pid: child(asked)
        _, status, used = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, used.ru_utime + used.ru_stime]), file=answers, flush=True)


class Warm:
    "The parent of warm processes; it starts with the first of them."

    def __init__(self):
        self.process = None
        self.seconds = 0.0 # of processor time of all its children

    def suits(self, environment) -> bool:
        "Whether a process of this environment would have imported the same."
        return at_import(environment) == at_import(os.environ)

    def start(self):
        "Import everything, once."
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        quiet = subprocess.DEVNULL
        words = [sys.executable, __file__]
        self.process = subprocess.Popen(words, cwd=ROOT, stderr=quiet, **pipes)

    def run(self, job, words, cwd, env, folder):
        "Run a job to its end: its exit code, output and errors."
        if self.process is None: self.start()
        files = [Path(folder) / name for name in ("out", "err")]
        for file in files: file.write_bytes(b"")
        out, err = map(str, files)
        asked = dict(job=job, words=list(map(str, words)), cwd=str(cwd), env=env, out=out, err=err)
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer: raise RuntimeError("the parent of warm processes has ended")
        code, seconds = json.loads(answer)
        self.seconds += seconds
        return code, *(file.read_text(errors="replace") for file in files)

    def end(self):
        "The parent ends; nothing of it is left."
        if self.process is None: return
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__": serve()
