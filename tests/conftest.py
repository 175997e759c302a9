"Shared by all tests: where the repository is, and how to run its commands."
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools")) # dependencies.py and publish.py are tested, too
BIN = Path(sys.executable).parent


def call(*command, cwd=ROOT, env=None, **options):
    "Run a command of the environment in the repository, output captured as text."
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **(env or {})}
    options |= dict(capture_output=True, text=True, cwd=cwd, env=environment)
    return subprocess.run([str(word) for word in command], **options)


@pytest.fixture(scope="session")
def cli():
    "The installed command."
    return lambda *args, **options: call(BIN / "edgetpu-repro", *args, **options)


@pytest.fixture
def inside(capsys):
    """The command within this process, which has TensorFlow already.

    Not for commands whose child process needs TensorFlow: it survives no fork.
    """
    from edgetpu_repro.cli.main import answer

    def run(*args):
        code = answer([str(a) for a in args])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, code, said.out, said.err)

    return run
