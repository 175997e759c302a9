"""The notebooks and tests of one room that fit into half a minute: `make quick ROOM=tflite`.

Each core has a process that imports the libraries once; a fork of it runs one notebook, or one file
of tests. What fails says which file to open. The first call takes everything and notes its seconds;
later ones take what is quickest, and what was edited, up to the limit. `--all` takes everything.
"""
import csv
import json
import os
import queue
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from dependencies import ROOMS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from warm import LIBRARIES, Warm  # noqa: E402

TESTS = { # {room: its files of tests}; all others are about the whole `HOUSE`
    "core": "test_faults test_hostile_text test_results test_committed_outputs",
    "models": "test_models test_registry",
    "data": "test_data test_folders",
    "tasks": "test_classes test_detection test_new_task",
    "train": "test_train",
    "tflite": "test_tflite test_batches test_strangers test_types test_equalize",
    "weights": "test_weights test_released_files test_ranges",
    "measure": "test_latency test_predict test_devices test_phone test_coral",
    "search": "test_search test_distil",
    "show": "test_figures test_claims test_cards test_tables test_crate test_explorer test_demo "
            "test_demo_released test_page",
    "cli": "test_cli test_compare test_view",
}
HOUSE = "house"
LIMIT_S, START_S, FILE_S = 30, 7, 1.5 # of the whole; of it, to import; to start a file of tests
KNOWN = ROOT / "build/quick.json" # {notebook or id of a test: processor seconds}
ENVIRONMENT = {"EDGETPU_REPRO_TFDS_DIR": str(ROOT / "build/data"), "TF_CPP_MIN_LOG_LEVEL": "3",
               "XLA_FLAGS": "--xla_backend_optimization_level=0"}


@dataclass
class Job:
    "A notebook or a file of tests, and what became of it."
    file: str # In the repository, or the id of a test
    options: tuple = () # Of pytest
    code: int|None = None # Exit code; None: it did not run
    said: str = ""
    seconds: float = 0.0 # Of processor time, its children's included

    def run(self, warm, root=ROOT, limit=None):
        "In a fork of a warm process, for so much processor time at most."
        before = warm.seconds
        where = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **ENVIRONMENT, "PATH": where,
                       "EDGETPU_REPRO_SECONDS": f"quick/{Path(self.file).stem}"}
        notebook = self.file.endswith(".ipynb")
        asked = ("notebook", [root / self.file]) if notebook else \
                ("tests", ["-x", "-q", "-p", "no:cacheprovider", self.file, *self.options])
        with tempfile.TemporaryDirectory() as folder:
            self.code, *said = warm.run(*asked, root, environment, folder, limit)
        self.said, self.seconds = "".join(said), warm.seconds - before
        return self

    @property
    def failed(self) -> bool: # pytest ends with 5 where no test is left of a file
        "Whether it ended as it should not."
        none_left = self.code == 5 and not self.file.endswith(".ipynb")
        return self.code not in (0, None) and not none_left

    @property
    def failing(self) -> str: # Id of a test; empty: a notebook, or nothing that pytest names
        "Which test failed."
        named = r"^(?:FAILED|ERROR) (tests/\S+::.+?)(?: - .*)?$"
        found = re.findall(named, self.said, re.MULTILINE)
        return found[-1] if found else ""

    def where(self) -> str: # File to open, with the line where it is known; what went wrong
        "Where to look."
        if self.code < 0: return f"open {self.file}: it ended by signal {-self.code}"
        if not self.file.endswith(".ipynb"):
            lines = re.findall(r"^(tests/\S+:\d+): (.*)", self.said, re.MULTILINE)
            return "open {}: {}".format(*lines[-1]) if lines else f"open {self.file}"
        errors = re.findall(r"^(\w[\w.]*(?:Error|Exception|Exit)\b.*)", self.said, re.MULTILINE)
        return f"open {self.file}: {errors[-1][:200]}" if errors else f"open {self.file}"


def tests(room) -> list:
    "The files of tests of a room."
    of_rooms = [f"tests/{name}.py" for names in TESTS.values() for name in names.split()]
    if room != HOUSE: return [f"tests/{name}.py" for name in TESTS[room].split()]
    every = sorted(f"tests/{p.name}" for p in (ROOT / "tests").glob("test_*.py"))
    return [file for file in every if file not in of_rooms]


def notebooks(room) -> list:
    "The notebooks of a room, in their order."
    return sorted(f"nbs/{room}/{p.name}" for p in (ROOT / "nbs" / room).glob("[0-9]*.ipynb"))


def known() -> dict: # {notebook or id of a test: processor seconds}
    "What each took when it last ran."
    return json.loads(KNOWN.read_text()) if KNOWN.is_file() else {}


def note(job, seconds):
    "Keep what a notebook, or each test of a file, took."
    seconds[job.file] = job.seconds
    noted = ROOT / "build/quick" / Path(job.file).stem / "main.csv"
    if job.file.endswith(".py") and noted.is_file():
        with open(noted, newline="") as f:
            seconds |= {test: float(taken) for test, taken in csv.reader(f)}
    KNOWN.write_text(json.dumps(seconds, indent=0))


def too_long(seconds, budget) -> set: # of their names
    "What does not fit into a budget, if the quickest are taken first."
    absent, sum_s = set(), 0.0
    for name, taken in sorted(seconds.items(), key=lambda row: row[1]):
        sum_s += taken
        if sum_s > budget: absent.add(name)
    return absent


def jobs(room, seconds, budget, edited=()) -> tuple: # jobs; names of what is left out
    "What there is to run for a room, the files of tests first."
    files, found = tests(room), notebooks(room)
    mine = {name: s for name, s in seconds.items() if name in found and name not in edited
            or name.partition("::")[0] in files and "::" in name}
    absent = too_long(mine, budget - FILE_S * len(files))
    out = []
    for file in files:
        of = {name for name in mine if name.startswith(f"{file}::")}
        if of and of <= absent: continue
        out.append(Job(file, tuple(f"--deselect={test}" for test in sorted(of & absent))))
    return [*out, *(Job(n) for n in found if n not in absent)], absent


def edited(room) -> list: # of notebooks
    "What was changed since the last call."
    if not KNOWN.is_file(): return []
    return [n for n in notebooks(room) if (ROOT / n).stat().st_mtime > KNOWN.stat().st_mtime]


def finished(waiting, cores):
    "Run jobs on some cores, and give each when it is done."
    todo, done = queue.SimpleQueue(), queue.SimpleQueue()
    for job in waiting: todo.put(job)

    def work():
        warm = Warm(LIBRARIES)
        try:
            while True: done.put(todo.get_nowait().run(warm))
        except queue.Empty: pass
        finally: warm.end()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(cores)]
    for thread in threads: thread.start()
    for _ in waiting: yield done.get()
    for thread in threads: thread.join()


def main(room="", *more) -> int: # Exit code
    "One room."
    if room not in (*TESTS, HOUSE) or set(more) - {"--all"}:
        print(f"ROOM is one of {', '.join(TESTS)} or {HOUSE}, not {room or 'nothing'}; "
              "--all takes what is slow, too", file=sys.stderr)
        return 2
    began, cores, seconds = time.monotonic(), os.cpu_count() or 1, known()
    budget = float("inf") if "--all" in more else cores * (LIMIT_S - START_S)
    waiting, absent = jobs(room, seconds, budget, edited(room))
    failed = []
    print("       CPU s")
    for job in finished(waiting, cores):
        print(f"{'FAILED' if job.failed else 'ok':6} {job.seconds:6.1f}  {job.file}", flush=True)
        note(job, seconds)
        if job.failed: failed.append(job)
    for job in failed: print(f"\n{job.said[-3000:]}\n{job.where()}")
    print(f"{room}: {len(waiting)} notebooks and files of tests in "
          f"{time.monotonic() - began:.0f} s, {len(failed)} failed; left out, for they take long: "
          f"{len(absent)} (--all, or make test)")
    return int(bool(failed))


if __name__ == "__main__":
    assert set(ROOMS) == set(TESTS)
    sys.exit(main(*sys.argv[1:]))
