"Shared by all tests: where the repository is, and how to run its commands."
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from warm import Warm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0") # no test trains for long
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools")) # dependencies.py and publish.py are tested, too
BIN = Path(sys.executable).parent
# For tests that would say the same of any network: a classifier of four blocks, one of them
# grouped; a segmentation model of one cell; a SpaghettiNet with one layer a node.
SMALL, SMALL_SEGMENTER, SMALL_DETECTOR = (
    ROOT / f"tests/{name}.json" for name in ("small", "small_segmenter", "small_detector"))
(ROOT / "build/data").mkdir(parents=True, exist_ok=True) # of datasets that tests make or find there
# A sitecustomize.py for a Python that cannot import what is `blocked`.
BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {blocked!r}: return None
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


WARM = Warm() # of this worker


def surroundings(env=None) -> dict:
    "Variables of a process that a test starts: the environment's programs come first."
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return {**os.environ, "PATH": path, **(env or {})}


def call(*command, cwd=ROOT, env=None, **options):
    "Run a command of the environment in the repository, output captured as text."
    options |= dict(capture_output=True, text=True, cwd=cwd, env=surroundings(env))
    return subprocess.run([str(word) for word in command], **options)


def warm(job, *words, cwd=ROOT, env=None):
    "Run a job of `warm.py` in a process that has imported everything."
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = WARM.run(job, words, cwd, surroundings(env), folder)
    return subprocess.CompletedProcess([job, *words], code, out, err)


@pytest.fixture(scope="session")
def installed():
    "The installed command, from the start of Python on: seconds where it needs TensorFlow."
    return lambda *args, **options: call(BIN / "edgetpu-repro", *args, **options)


@pytest.fixture(scope="session")
def cli(installed):
    "The command in a process of its own, which starts warm unless its variables forbid that."

    def run(*args, cwd=ROOT, env=None, **options):
        if options or not WARM.suits(surroundings(env)):
            return installed(*args, cwd=cwd, env=env, **options)
        return warm("command", *args, cwd=cwd, env=env)

    return run


# What each test took, a file a worker.
SECONDS = ROOT / "build" / os.environ.get("EDGETPU_REPRO_SECONDS", "seconds")


def used() -> float:
    "Seconds of processor time of this process and of all that it has waited for."
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + WARM.seconds


def pytest_sessionstart(session):
    "The seconds of the last session are forgotten."
    if not hasattr(session.config, "workerinput"): shutil.rmtree(SECONDS, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    "Note a test's processor time, fixtures that it is the first to need included."
    before = used()
    result = yield
    SECONDS.mkdir(parents=True, exist_ok=True)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with open(SECONDS / f"{worker}.csv", "a", newline="") as f:
        csv.writer(f).writerow([item.nodeid, f"{used() - before:.2f}"])
    return result


# Files in the order in which workers take them: the long ones first, or the last of them would be
# alone at the end. A worker takes two to begin with, so two short ones follow the two longest.
FIRST = """
test_notebooks test_library test_layering test_results test_train test_registry test_tflite
test_detection test_readme test_site test_demo test_batches test_weights test_cli test_data
""".split()


def pytest_collection_modifyitems(items):
    "Long files first; within a file the order stays."
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else 99)


def pytest_sessionfinish():
    "The parent of warm processes ends with the worker that started it."
    WARM.end()


@pytest.fixture
def inside(capsys):
    """The command within this process, which has TensorFlow already.

    Not for commands whose child process needs TensorFlow, such as one that opens weights: it
    survives no fork, and to import it anew takes seconds. Those take `cli`.
    """
    from edgetpu_repro.cli.main import answer

    def run(*args):
        code = answer([str(a) for a in args])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a test that needs it is skipped where there is none.

    Not for the whole session: while it is open, nothing else in the process can use asyncio.
    """
    name = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
    if name is None: pytest.skip("no Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=shutil.which(name), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


class Visit:
    "A page with what it asked for and what went wrong in it."

    def __init__(self, browser, width=1280, height=900):
        self.page = browser.new_page(viewport=dict(width=width, height=height))
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))

    def outside(self, *allowed):
        "Requests that leave the disk and the servers that are allowed."
        starts = ("file:", "data:", "blob:", *allowed)
        return [url for url in self.requests if not url.startswith(starts)]

    def overflow(self):
        "By how many pixels the page is wider than its window."
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.fixture
def visit(browser):
    "Open pages: `visit(width=390).page.goto(...)`; they are closed after the test."
    visits = []

    def start(**size):
        visits.append(Visit(browser, **size))
        return visits[-1]

    yield start
    for one in visits: one.page.close()
