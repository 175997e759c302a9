"Shared by all tests: where the repository is, and how to run its commands."
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0") # no test trains for long
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools")) # dependencies.py and publish.py are tested, too
BIN = Path(sys.executable).parent
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
