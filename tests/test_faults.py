"Faults of concurrency, of the host and of the environment: what a second attack found."
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import BIN, ROOT, call

from edgetpu_repro.core.errors import UsageError, printable
from edgetpu_repro.core.files import atomic_write, hold, write_text
from edgetpu_repro.core.processes import Identity, identity, kernel

SEARCH = ("--target_ms", 0.85, "--seed", 3)


def python(code, *words, **options):
    "Python code in a process of its own."
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, **options)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    "An undisturbed search of twelve trials."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import work
    path = tmp_path_factory.mktemp("search") / "s.journal"
    work(study_at(path), toy)
    return study_at(path).history()


def study_at(path, trials=12):
    from edgetpu_repro.search.study import SearchSettings, create_study
    return create_study(path, SearchSettings(target_ms=0.85, trials=trials, seed=3))


@pytest.mark.parametrize("half", ['{"op_code":6,"trial_id":1,"wor', '{"op', "{", '{"op_code":9}'])
def test_a_worker_that_dies_in_a_line_harms_no_other(tmp_path, history, half):
    "The survivor has the journal open; its next line is not appended to the half one."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import open_study, work
    path = tmp_path / "s.journal"
    study = study_at(path)

    def evaluate(spec, costs):
        if half != '{"op_code":9}' or not path.read_text().count(half):
            with open(path, "a") as f: f.write(half)
        return toy(spec, costs)

    work(study, evaluate if half != '{"op_code":9}' else toy)
    assert open_study(path).history() == history
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_full_disk_in_the_middle_of_a_line_leaves_none(tmp_path, history, monkeypatch):
    from edgetpu_repro.search import journal
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import open_study, work
    path = tmp_path / "s.journal"
    work(study_at(path), toy, most=5)
    before, size = path.read_bytes(), path.stat().st_size

    def limited(): # the kernel refuses what is beyond, in the middle of a line
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))

    words = ("search", "run", "--study", path, *SEARCH, "--trials", 12)
    full = call(BIN / "edgetpu-repro", *words, preexec_fn=limited)
    assert full.returncode == 1 and len(full.stderr.splitlines()) == 1, full
    assert path.read_bytes().startswith(before) and path.read_bytes().endswith(b"\n")
    work(open_study(path), toy)
    assert open_study(path).history() == history
    assert journal.Journal(path).cut == 0


def test_a_journal_that_was_broken_before_is_read_again(tmp_path, history):
    "A half line with a whole one behind it: nobody ever read the half."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import open_study, work
    path = tmp_path / "s.journal"
    work(study_at(path), toy, most=6)
    lines = path.read_text().splitlines(keepends=True)
    for at in (len(lines) - 1, 10):
        broken = tmp_path / f"broken{at}.journal"
        broken.write_text("".join([*lines[:at], '{"op_code":4,"worker_id":"x', *lines[at:]]))
        assert open_study(broken).cut == 1
        work(open_study(broken), toy)
        assert open_study(broken).history() == history


@pytest.mark.quick
def test_an_identity_is_more_than_a_number():
    from dataclasses import replace
    here = identity()
    assert here.is_alive
    assert replace(here, began="7").is_alive is False # its number is another's now
    assert replace(here, boot="another").is_alive is None # the host was started anew
    assert replace(here, space="another").is_alive is None # a container of the same name
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = Path(f"/proc/{child.pid}/stat")
    if not began.exists(): pytest.skip("no /proc")
    there = replace(here, pid=child.pid, began=began.read_text().rpartition(")")[2].split()[19])
    assert there.is_alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) # dead, and nobody has waited for it
    assert there.is_alive is False
    child.wait()


def left_running(path, **changes):
    "A study whose third trial was begun by somebody else."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import Worker, work
    study = study_at(path)
    work(study, toy, most=2)
    trial = Worker(study, toy).next()
    lines = path.read_text().splitlines(keepends=True)
    for i, line in enumerate(lines):
        log = json.loads(line)
        worker = log.get("user_attrs", {}).get("worker", {})
        if worker.get("token") != trial.user_attrs["worker"]["token"]: continue
        worker |= changes
        lines[i] = json.dumps(log, separators=(",", ":")) + "\n"
    path.write_text("".join(lines))


@pytest.mark.parametrize("changes", [
    dict(began="7"), dict(boot="before it was started anew"), dict(space="another container"),
    dict(host="another", boot="another", space="x"), dict(began=None, boot=None, space=None),
])
def test_what_somebody_left_is_taken_up(tmp_path, history, monkeypatch, changes):
    from edgetpu_repro.search import study as module
    from edgetpu_repro.search.evaluators import toy
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(module, "POLL_S", 0.05)
    path = tmp_path / "s.journal"
    left_running(path, **changes)
    assert module.work(module.open_study(path), toy) == 10
    assert module.open_study(path).history() == history


def test_a_zombies_trial_is_taken_up(tmp_path, history):
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import open_study, work
    path = tmp_path / "s.journal"
    study_at(path)
    dies = "import os, sys; from edgetpu_repro.search.study import *\n" \
           "work(open_study(sys.argv[1]), lambda *_: os.kill(os.getpid(), 9))"
    child = python(dies, path)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert len(open_study(path).trials("RUNNING")) == 1
    work(open_study(path), toy)
    child.communicate()
    assert open_study(path).history() == history


def test_two_containers_of_one_name_do_not_steal(tmp_path, monkeypatch):
    "Same host, same number, another space: a trial that shows signs of life is left alone."
    from edgetpu_repro.search import study as module
    from edgetpu_repro.search.evaluators import toy
    for name, value in dict(BEAT_S=0.05, PATIENCE_S=1.5, POLL_S=0.05).items():
        monkeypatch.setattr(module, name, value)
    path, calls = tmp_path / "s.journal", []
    study_at(path, trials=6)

    def slow(spec, costs):
        calls.append(1)
        time.sleep(2.5)
        return toy(spec, costs)

    def other():
        module.work(module.open_study(path), slow, most=1)

    here = identity()
    spaces = {threading.main_thread(): here.space}
    monkeypatch.setattr(module, "identity", lambda: Identity(
        here.host, here.boot, spaces.get(threading.current_thread(), "another"), 7, here.began))
    monkeypatch.setattr(module, "OPEN", set())
    thread = threading.Thread(target=other)
    thread.start()
    while not calls: time.sleep(0.01)
    module.work(module.open_study(path), toy)
    thread.join()
    done = module.open_study(path)
    assert len(calls) == 1 and len(done.finished()) == 6
    assert not done.trials("FAIL"), [t.user_attrs for t in done.trials("FAIL")]


def test_a_worker_waits_for_the_last_trial_of_another(tmp_path):
    "All are taken, but not all are done: what the other does not finish is done here."
    from edgetpu_repro.search.study import open_study
    path = tmp_path / "s.journal"
    study_at(path, trials=3)
    hangs = "import sys, time; from edgetpu_repro.search.study import *\n" \
            "work(open_study(sys.argv[1]), lambda *_: time.sleep(60))"
    child = python(hangs, path)
    while not open_study(path).trials("RUNNING"): time.sleep(0.05)
    command = [BIN / "edgetpu-repro", "search", "work", "--study", path]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waits = subprocess.Popen(command, cwd=ROOT, **pipes)
    assert f"process {child.pid} on" in waits.stderr.readline()
    child.kill()
    said, _ = waits.communicate()
    child.communicate()
    assert "3 trials by this process, 3 of 3 finished" in said


def test_the_order_is_the_journals_whatever_clocks_say(tmp_path, history):
    "Each trial ends an hour before the one before it."
    from edgetpu_repro.search.study import open_study, work
    from edgetpu_repro.search.evaluators import toy
    path = tmp_path / "s.journal"
    for most in (6, 6):
        work(study_at(path), toy, most=most)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for i, log in enumerate(lines):
            if log.get("datetime_complete"):
                log["datetime_complete"] = f"2020-01-01T{23 - i % 24:02}:00:00.000000+00:00"
        text = [json.dumps(log, separators=(",", ":")) for log in lines]
        path.write_text("\n".join(text) + "\n")
    assert open_study(path).history() == history


@pytest.mark.quick
@pytest.mark.parametrize("text, hidden", [
    ("postgresql://me:s3cret@host/x", "s3cret"),
    ("cannot parse 'mysql+pymysql://me:a@b:c@host/x?charset=utf8' here", "a@b:c"),
    ("postgresql://host/x?user=me&password=s3cret&port=1", "s3cret"),
    ("postgresql://:s3cret@host", "s3cret"),
])
def test_passwords_are_not_printed(text, hidden):
    assert hidden not in str(UsageError(text)) and hidden not in printable(text)
    assert "***" in printable(text) and "host" in printable(text)


@pytest.mark.quick
def test_text_without_passwords_is_left_alone():
    for text in ("https://example.org/a@b", "a: b@c", "grpc://host:13000", "user@host:/path"):
        assert printable(text) == text


def test_places_that_are_not_there_are_one_line_and_none_is_made(inside, tmp_path):
    database = f"sqlite:///{tmp_path}/none.db"
    for words in (("show", "--study", database), ("work", "--study", database),
                  ("export", "--study", database), ("show", "--study", f"{tmp_path}/no.journal")):
        done = inside("search", *words)
        assert done.returncode == 2 and "is not a file; `search run` makes a study" in done.stderr
    (tmp_path / "empty.db").write_bytes(b"")
    done = inside("search", "show", "--study", f"sqlite:///{tmp_path}/empty.db")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["empty.db"]
    assert not (tmp_path / "empty.db").read_bytes()
    wrong = inside("search", "show", "--study", "postgresql+nodriver://me:s3cret@localhost/x")
    assert wrong.returncode == 2 and "s3cret" not in wrong.stderr, wrong.stderr


def test_a_proxy_that_does_not_answer_is_one_line(cli, monkeypatch):
    for command in (("show",), ("run", *SEARCH)):
        done = cli("search", *command, "--study", "grpc://localhost:9")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "does not answer within 10 s" in done.stderr


@pytest.mark.quick
def test_a_killed_writer_leaves_nothing_and_a_living_one_keeps_its_file(tmp_path):
    writes = "import sys, time; from edgetpu_repro.core.files import *\n" \
             "with atomic_write(sys.argv[1]) as tmp:\n" \
             "    tmp.write_text('half'); print('up', flush=True); time.sleep(60)"
    child = python(writes, tmp_path / "a.txt")
    child.stdout.readline()
    write_text(tmp_path / "b.txt", "whole")
    assert len(list(tmp_path.glob(".*~*"))) == 1
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) # not reaped
    write_text(tmp_path / "b.txt", "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]
    child.communicate()


@pytest.mark.quick
def test_no_link_is_followed_and_no_name_is_known_before(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    names = set()
    for _ in range(3):
        with atomic_write(tmp_path / "out.txt") as tmp:
            names.add(tmp.name)
            tmp.write_text("whole")
    assert len(names) == 3
    with pytest.raises(OSError):
        with atomic_write(tmp_path / "out.txt") as tmp: # somebody exchanges it meanwhile
            tmp.unlink()
            tmp.symlink_to(target)
    (tmp_path / f".{kernel()}~0123456789abcdef.x").symlink_to(target)
    os.mkfifo(tmp_path / f".{kernel()}~0123456789abcdee.x") # opening it would wait for ever
    (tmp_path / ".lock").symlink_to(target)
    with pytest.raises(OSError):
        with hold(tmp_path / ".lock", "x"): pass
    write_text(tmp_path / "out.txt", "again")
    assert target.read_text() == "mine"


@pytest.mark.quick
def test_what_is_written_has_the_rights_that_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try: write_text(tmp_path / "a.txt", "x")
    finally: os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.quick
def test_a_long_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".txt")
    write_text(path, "x")
    assert path.read_text() == "x"


@pytest.mark.quick
def test_a_lock_says_who_has_it_and_what_to_do(tmp_path):
    path = tmp_path / ".lock"
    holds = "import sys, time; from edgetpu_repro.core.files import *\n" \
            "with hold(sys.argv[1], 'x'): print('up', flush=True); time.sleep(60)"
    child = python(holds, path)
    child.stdout.readline()
    with pytest.raises(UsageError) as e:
        with hold(path, "training m"): pass
    said = str(e.value)
    assert f"process {child.pid} on " in said and f"kill {child.pid}" in said and "since 20" in said
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with hold(path, "training m"): assert path.exists()
    child.communicate()
    assert not path.exists()


def test_children_of_a_killed_owner_are_waited_for(tmp_path):
    "They hold the lock as well; while they end, the next one waits, and after that says why not."
    path = tmp_path / ".lock"
    holds = "import subprocess, sys, time; from edgetpu_repro.core.files import *\n" \
            "with hold(sys.argv[1], 'x') as file:\n" \
            "    child = subprocess.Popen(['sleep', sys.argv[2]], pass_fds=[file])\n" \
            "    print(child.pid, flush=True); time.sleep(60)"
    for seconds in (2, 60):
        owner = python(holds, path, seconds)
        child = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
        if seconds == 2:
            with hold(path, "x"): continue
        from edgetpu_repro.core import files
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "LEFT_S", 0.2)
            with pytest.raises(UsageError, match="it is dead, what it started is not"):
                with hold(path, "x"): pass
        os.kill(child, signal.SIGKILL)


@pytest.mark.quick
def test_a_second_reproduce_is_one_line_with_a_number(inside, tmp_path, monkeypatch):
    for name in ("Snakefile", "settings.ini"): (tmp_path / name).touch()
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(tmp_path))
    (tmp_path / "build").mkdir()
    holds = "import sys, time; from edgetpu_repro.core.files import *\n" \
            "with hold(sys.argv[1], 'x'): print('up', flush=True); time.sleep(60)"
    child = python(holds, tmp_path / "build" / ".lock")
    child.stdout.readline()
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "config" / "smoke.yaml", tmp_path / "config")
    done = inside("reproduce", "--profile", "smoke")
    child.kill()
    child.communicate()
    assert done.returncode == 2 and f"kill {child.pid}" in done.stderr, done


SLEEPS = """{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {},
 "outputs": [], "source": "import os, pathlib, signal, time\\nsignal.signal(15, signal.SIG_IGN)\\n
pathlib.Path('pid').write_text(str(os.getpid()))\\ntime.sleep(120)"}], "metadata": {"kernelspec":
{"display_name": "python3", "language": "python", "name": "python3"}}, "nbformat": 4,
"nbformat_minor": 5}"""
BEGINS = """
import os, subprocess, sys, time
from edgetpu_repro.core.files import family
with family(sys.argv[1]) as names:
    command = f"{sys.executable} {sys.argv[2]}/tools/run_notebook.py in.ipynb out.ipynb"
    outer = subprocess.Popen(["bash", "-c", f"{command}; true"], start_new_session=True,
                             cwd=sys.argv[1], env={**os.environ, **names}, stderr=subprocess.PIPE)
    print(outer.pid, flush=True)
    time.sleep(200)
"""


def is_running(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError: return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
@pytest.mark.parametrize("who", ["first", "first and bash", "notebook"])
def test_a_kernel_ends_with_who_began_the_workflow(tmp_path, who):
    "Killed for good, the first or all between it and the kernel, which refuses SIGTERM."
    import psutil
    (tmp_path / "in.ipynb").write_text(SLEEPS.replace("\n", ""))
    first = python(BEGINS, tmp_path, ROOT)
    outer = psutil.Process(int(first.stdout.readline()))
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text(): time.sleep(0.1)
    kernel = int((tmp_path / "pid").read_text())
    below = outer.children(recursive=True)
    assert is_running(kernel)
    if who != "notebook": first.kill()
    if who == "first and bash": outer.kill()
    if who == "notebook":
        for p in below:
            if p.pid != kernel and "run_notebook" in " ".join(p.cmdline()): p.kill()
    end = time.monotonic() + 60
    while is_running(kernel) and time.monotonic() < end: time.sleep(0.1)
    first.kill()
    first.communicate()
    assert not is_running(kernel)
    gone, alive = psutil.wait_procs([outer, *below], 30)
    assert not [p for p in alive if is_running(p.pid)]


def tree(folder):
    "A checkout's copy, as an archive has it."
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "settings.ini"): (folder / name).write_text("x")
    return folder


def git(folder, *words):
    identity = ("-c", "user.name=x", "-c", "user.email=x@y")
    return call("git", *identity, *words, cwd=folder).stdout.strip()


@pytest.mark.quick
def test_no_commit_of_another_repository(tmp_path, monkeypatch):
    from edgetpu_repro.core.records import checked_out
    outer, inner = tmp_path / "mono", tree(tmp_path / "mono" / "archive")
    git(outer, "init", "-q")
    git(outer, "add", "."), git(outer, "commit", "-q", "-m", "theirs")
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(inner))
    assert checked_out() is None # unpacked in another repository
    git(inner, "init", "-q")
    git(inner, "add", "."), git(inner, "commit", "-q", "-m", "ours")
    ours = git(inner, "rev-parse", "--short=12", "HEAD")
    assert checked_out() == ours
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.setenv(name, str(outer / ".git" if name == "GIT_DIR" else outer))
        assert checked_out() == ours
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    assert checked_out() == ours
    link = tmp_path / "link"
    link.symlink_to(inner)
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(link))
    assert checked_out() == ours


def test_no_number_of_a_run_hangs_on_an_assertion(tmp_path):
    "PYTHONOPTIMIZE takes assertions away: kernels do not get it, and the package has none."
    import ast
    for path in sorted((ROOT / "edgetpu_repro").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text()))
        found = [node.lineno for node in nodes if isinstance(node, ast.Assert)]
        assert not found, f"{path} asserts in lines {found}"
    notebook = json.loads(SLEEPS.replace("\n", ""))
    notebook["cells"][0]["source"] = "assert False, 'seen'"
    (tmp_path / "in.ipynb").write_text(json.dumps(notebook))
    run = (sys.executable, ROOT / "tools" / "run_notebook.py", "in.ipynb", "out.ipynb")
    done = call(*run, cwd=tmp_path, env=dict(PYTHONOPTIMIZE="1"))
    assert done.returncode and "AssertionError: seen" in done.stderr
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_two_trainings_of_one_folder_do_not_meet(inside, tmp_path):
    from edgetpu_repro.cli.training import LOCK
    with hold(tmp_path / LOCK, "training m"):
        done = inside("train", "--experiment_type", "mobilenet_edgetpu_v2_tiny", "--profile",
                      "smoke", "--model_dir", tmp_path)
    assert done.returncode == 2 and f"kill {os.getpid()}" in done.stderr, done
    assert not [p.name for p in tmp_path.iterdir()]


def a_record(**changes):
    "A sound record; a change is 'numbers.top1' or so, with '__' for the dot."
    record = dict(step="evaluate", name="m", profile="default", parameters={}, seed=0,
                  numbers=dict(int8_top1=0.5, latency_ms=2.0, test_images=400),
                  provenance=dict(versions=dict(tensorflow="2.21.0"), commit="0123456789ab",
                                  time="2026-11-28T10:00:00+00:00",
                                  host=dict(cpu="x", cores=2, memory_gib=1.0, system="Linux")))
    for name, value in changes.items():
        *path, last = name.split("__")
        place = record
        for part in path: place = place[part]
        place[last] = value
    return record


WRONG = [
    dict(numbers__int8_top1=17.3), dict(numbers__int8_top1=-0.1), dict(numbers__top1="0.5"),
    dict(numbers__int8_top1=True), dict(numbers__latency_ms=0), dict(numbers__latency_ms=-2.0),
    dict(numbers__latency_ms="2"), dict(numbers__latency_p95_ms="fast"),
    dict(numbers__x=float("nan")), dict(numbers__x=float("inf")),
    dict(numbers__x=[1.0, float("nan")]), dict(numbers__curve=[dict(val_loss="low")]),
    dict(numbers__sqnr_db="none"), dict(numbers__values=["1"]),
    dict(numbers__iou=dict(cat=float("nan"))), dict(numbers__test_images=-1),
    dict(numbers__curve=[dict(accuracy=1.5)]), dict(numbers__int8_map=2), dict(numbers__seconds=-1),
    dict(parameters__rate=float("inf")), dict(numbers__bytes="many"),
    dict(provenance__commit="<script>"), dict(provenance__commit=12), dict(provenance__time="now"),
    dict(provenance__time=None), dict(provenance__host="x"), dict(provenance__host=dict(cpu="x")),
    dict(provenance__host__cores="two"), dict(provenance__versions=[]),
    dict(provenance__versions__keras=3.15), dict(provenance={}),
]


@pytest.mark.quick
@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_record_that_cannot_be_is_one_line(tmp_path, changes):
    from edgetpu_repro.core.records import read_record
    path = tmp_path / "m.json"
    path.write_text(json.dumps(a_record(**changes)))
    with pytest.raises(UsageError, match="m.json: .+; run its step again"): read_record(path)


@pytest.mark.quick
def test_committed_records_are_sound(tmp_path):
    from edgetpu_repro.core.records import read_record
    found = [read_record(p) for p in sorted(ROOT.glob("results/*/records/**/*.json"))]
    assert len(found) > 300
    path = tmp_path / "m.json"
    path.write_text(json.dumps(a_record(numbers__map_small=None, provenance__commit=None)))
    read_record(path)


@pytest.fixture
def records_at(tmp_path, monkeypatch):
    "Write records of a checkout of its own."
    for name in ("Snakefile", "settings.ini"): (tmp_path / name).touch()
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(tmp_path))

    def write(**records):
        from edgetpu_repro.core.files import Paths
        for name, record in records.items():
            write_text(Paths("default").record("evaluate", name), json.dumps(record))

    return write


@pytest.mark.quick
def test_records_of_several_hosts_versions_or_commits_are_said(records_at):
    from edgetpu_repro.show.tables import host_line
    records_at(a=a_record(name="a"), b=a_record(name="b"))
    assert host_line("default", "evaluate") == \
        "measured on x, 2 cores, Linux, TensorFlow 2.21.0, LiteRT None, 2026-11-28"
    records_at(b=a_record(name="b", provenance__host__cpu="y"))
    said = host_line("default", "evaluate")
    assert "several hosts" in said and "1 of 2 on y, 2 cores" in said
    records_at(b=a_record(name="b", provenance__versions__tensorflow="2.20.0"))
    assert "1 of 2 on x, 2 cores, Linux, TensorFlow 2.20.0" in host_line("default", "evaluate")
    records_at(b=a_record(name="b", provenance__commit="ba9876543210+"))
    assert "of 2 commits (0123456789ab, ba9876543210+)" in host_line("default", "evaluate")


@pytest.mark.quick
def test_a_record_of_another_step_profile_or_model_is_refused(records_at):
    from edgetpu_repro.core.records import read_records
    for changes in (dict(step="train"), dict(profile="smoke"), dict(name="other")):
        records_at(m=a_record(**changes))
        with pytest.raises(UsageError, match="m.json is of"): read_records("default", "evaluate")
    records_at(m=a_record())
    assert read_records("default", "evaluate")[0]["name"] == "m"


@pytest.mark.parametrize("kib", [300_000, 800_000, 1_500_000])
def test_too_little_memory_is_one_line(tmp_path, kib):
    "As `ulimit -v` sets it: libraries say so in words of their own."
    import resource
    from PIL import Image
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    (tmp_path / "m.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(1000))
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (kib * 1024, kib * 1024))
    for words in (("predict", tmp_path / "m.tflite", tmp_path / "x.png"),):
        done = call(BIN / "edgetpu-repro", *words, preexec_fn=limit)
        assert done.returncode and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("error: ")


@pytest.mark.quick
def test_pythons_own_door_says_that_it_has_no_limits():
    from edgetpu_repro.measure.predict import open_model
    from edgetpu_repro.models.blocks import load_model
    from edgetpu_repro.tflite import isolation
    from edgetpu_repro.tflite.file import TFLiteFile
    from edgetpu_repro.weights.start import load_released
    assert callable(isolation.run_isolated)
    for door in (load_model, load_released, TFLiteFile.open, TFLiteFile.predictor, open_model):
        said = " ".join(door.__doc__.split())
        assert "files that you trust" in said and "run_isolated(function, path)" in said, door


def test_exports_in_one_process_do_not_grow(tmp_path):
    "What Python collects late and the C library keeps was 30 MB each."
    code = """
import numpy as np
from edgetpu_repro import build_model
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.options import ExportOptions
images = np.random.default_rng(0).uniform(-1, 1, (12, 32, 32, 3)).astype("float32")
for _ in range(7):
    model = build_model("mobilenet_edgetpu_v2_tiny", 4, 32)
    export_model(model, ".", images, ExportOptions(trained=False))
    pages = int(open("/proc/self/statm").read().split()[1])
    print("MB", pages * 4096 / 1e6)
"""
    if not Path("/proc/self/statm").exists(): pytest.skip("no /proc")
    done = call(sys.executable, "-c", code, cwd=tmp_path, env=dict(PYTHONPATH=str(ROOT)))
    sizes = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("MB")]
    assert len(sizes) == 7, done.stderr[-2000:]
    assert min(sizes[5:]) - min(sizes[1:3]) < 60, sizes


def test_a_training_leaves_nothing_of_tensorflow_and_keras_behind():
    "TensorFlow registers gradients for good, each keeps a graph: a search grew by 60 MB a trial."
    import gc
    from collections import Counter
    from dataclasses import replace

    from edgetpu_repro.models.specs import Block, get_spec
    from edgetpu_repro.search.evaluators import ShortTraining
    from edgetpu_repro.search.rewards import costs_of
    down, small = Block("dw", stride=2, out=16), Block("dw", kernel=5, out=16) # on a map of 4x4
    tiny = get_spec("mobilenet_edgetpu_v2_tiny")
    spec = replace(tiny, name="small", blocks=(down, down, small), top=64)
    train = ShortTraining("smoke")
    kinds = ("FuncGraph", "SymbolicTensor", "EagerTensor", "ConcreteFunction", "Functional",
             "Variable", "_Keeper", "_Training")

    def left():
        train(spec, costs_of(spec))
        gc.collect()
        found = Counter(type(o).__name__ for o in gc.get_objects())
        return {kind: found[kind] for kind in kinds}

    first = left() # what is made once a process, too
    second = left()
    assert all(second[kind] <= first[kind] for kind in kinds), (first, second)
