"""Damage files of every format by chance, open them, and write down what happened.

python tests/robustness.py            all formats, 500 damaged files each, kills and a full disk;
                                      writes docs/robustness.md, row by row
python tests/robustness.py --format tflite --format "full disk"
                                      only these; the other rows stay as they are

A file is damaged by a seed, so that every case can be looked at again:
python tests/robustness.py work tflite 17 1
"""
import argparse
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "robustness.md" # tests/faults.py writes its second part
LIMIT = 30 # seconds that one file may take
DISK = "8k" # less than any file that the commands write
MODEL = "mobilenet_edgetpu_v2_tiny"

# --- damage -----------------------------------------------------------------------------------

WORDS = [b"null", b"-1", b"0", b"1e999", b"NaN", b"[]", b"{}", b'""', b"true", b"9" * 30, b"\xff"]


def flip(content, rng):
    "Up to eight bits."
    out = bytearray(content)
    for _ in range(rng.randint(1, 8)): out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_front(content, rng):
    "Up to eight bits of the first kilobytes, where most formats keep their structure."
    front = content[:4096]
    return flip(front, rng) + content[len(front):]


def cut(content, rng):
    "The end is missing."
    return content[:rng.randrange(len(content))]


def without(content, rng):
    "A piece is missing."
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randint(1, 64):]


def twice(content, rng):
    "A piece stands twice."
    start = rng.randrange(len(content))
    end = start + rng.randint(1, 64)
    return content[:end] + content[start:end] + content[end:]


def zeros(content, rng):
    "A piece is zero."
    start, length = rng.randrange(len(content)), rng.randint(1, 256)
    return content[:start] + bytes(len(content[start:start + length])) + content[start + length:]


def noise(content, rng):
    "A piece is random."
    start, length = rng.randrange(len(content)), rng.randint(1, 64)
    piece = content[start:start + length]
    return content[:start] + rng.randbytes(len(piece)) + content[start + length:]


def other_word(content, rng):
    "A word or a number is another."
    words = list(re.finditer(rb"[\w.+-]+|\[|\]|\{|\}", content))
    if not words: return noise(content, rng)
    word = rng.choice(words)
    return content[:word.start()] + rng.choice(WORDS) + content[word.end():]


BINARY = (flip, flip_front, flip_front, cut, without, twice, zeros, noise)
TEXT = (flip, cut, without, twice, noise, other_word, other_word, other_word)


def damaged(content:bytes, seed:int, ways) -> bytes:
    "The content, damaged in one way."
    rng = random.Random(seed)
    return rng.choice(ways)(content, rng)


# --- formats: a sound file, and what opens it ---------------------------------------------------

def small_spec():
    "A model with one block of each kind that MODEL has: damage reaches more than its weights."
    from dataclasses import replace

    from edgetpu_repro.models.specs import get_spec
    spec = get_spec(MODEL)
    kinds = {block.kind: block for block in reversed(spec.blocks)}
    return replace(spec, name="small", blocks=tuple(reversed(kinds.values())), top=64)


def model_of(spec=None):
    "A model with random weights, at 64 pixels; the small one if not told otherwise."
    import keras

    from edgetpu_repro import build_model
    keras.utils.set_random_seed(0)
    return build_model(spec or small_spec(), 10, 64)


class Format:
    "A format: how a sound file is made, how a file is opened, how it is damaged."
    ways = BINARY

    def make(self, folder): "Write a sound file into a folder, and return its path."
    def prepare(self, path): "What is done once before files are opened."
    def read(self, path): "Open a file as the commands do."


class Record(Format):
    "The JSON record of a run."
    ways = TEXT

    def make(self, folder):
        from edgetpu_repro.core.records import write_record
        path = folder / "record.json"
        write_record(path, "evaluate", MODEL, "smoke", dict(image_size=32), dict(top1=0.5))
        return path

    def read(self, path):
        from edgetpu_repro.core.records import read_record
        read_record(path)


class ProfileFile(Format):
    "A profile in YAML."
    ways = TEXT

    def make(self, folder):
        return Path(shutil.copy(ROOT / "config" / "smoke.yaml", folder / "profile.yaml"))

    def read(self, path):
        from edgetpu_repro.core.files import read_yaml
        from edgetpu_repro.core.settings import Profile, from_dict
        from_dict(Profile, {"name": "damaged", **read_yaml(path, "profile")}, f"{path.name}: ")


class Spec(Format):
    "The JSON file of an architecture."
    ways = TEXT

    def make(self, folder):
        from edgetpu_repro.models.specs import get_spec, spec_to_json
        path = folder / "spec.json"
        path.write_text(spec_to_json(get_spec(MODEL)))
        return path

    def read(self, path):
        from edgetpu_repro.models.costs import operators
        from edgetpu_repro.models.specs import resolve_spec
        operators(resolve_spec(path))


class Annotations(Format):
    "COCO annotations."
    ways = TEXT

    def make(self, folder):
        from PIL import Image
        (folder / "pictures").mkdir()
        Image.new("RGB", (64, 48)).save(folder / "pictures" / "a.png")
        box = dict(image_id=1, bbox=[3, 4, 20, 10], area=200, iscrowd=0)
        content = dict(
            images=[dict(id=1, file_name="a.png", width=64, height=48)],
            annotations=[dict(box, id=i, category_id=i % 3 + 1) for i in range(6)],
            categories=[dict(id=i, name=f"class {i}") for i in (1, 2, 3)])
        path = folder / "annotations.json"
        path.write_text(json.dumps(content))
        return path

    def read(self, path):
        from edgetpu_repro.data.coco import category_columns, coco_target, read_coco
        found = read_coco(path, path.parent / "pictures")
        columns, _ = category_columns(found["categories"], None)
        for picture in found["images"]:
            mine = [a for a in found["annotations"] if a["image_id"] == picture["id"]]
            coco_target(picture, mine, columns)


class Journal(Format):
    "The journal of a search."
    ways = TEXT

    def make(self, folder):
        from edgetpu_repro.search.study import SearchSettings, create_study, evaluator_of, work
        settings = SearchSettings("v2_gc", "random", "toy", target_ms=0.85, trials=6)
        path = folder / "search.journal"
        work(create_study(str(path), settings), evaluator_of(settings))
        return path

    def read(self, path):
        from edgetpu_repro.search.study import found_spec, open_study, trial_row
        study = open_study(str(path))
        for trial in study.finished(): trial_row(study, trial)
        found_spec(study)


class Picture(Format):
    "A picture."
    kind = "png"

    def make(self, folder):
        import numpy as np
        from PIL import Image
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
        path = folder / f"picture.{self.kind}"
        Image.fromarray(pixels).save(path)
        return path

    def read(self, path):
        from edgetpu_repro.measure.predict import read_picture
        read_picture(path)


class Jpeg(Picture):
    "A picture."
    kind = "jpg"


def describe(path):
    "Open a file, and read what the commands say of it."
    from edgetpu_repro.measure.workload import operators_of
    operators_of(str(path), None, None)


class TFLite(Format):
    "A `.tflite` file: run once, and its operators counted."
    def make(self, folder):
        import numpy as np

        from edgetpu_repro.tflite.convert import freeze
        from edgetpu_repro.tflite.quantize import to_tflite
        images = np.random.default_rng(0).uniform(-1, 1, (8, 64, 64, 3)).astype("float32")
        path = folder / "model.tflite"
        path.write_bytes(to_tflite(freeze(model_of()), images))
        return path

    def read(self, path):
        from edgetpu_repro.tflite.isolation import probe, run_isolated
        probe(path)
        run_isolated(describe, path, seconds=20, memory=2**32, what=path)


class Import(TFLite):
    "A `.tflite` file whose weights are imported."
    def prepare(self, path):
        self.model = model_of()

    def read(self, path):
        from edgetpu_repro.weights.start import load_released
        load_released(self.model, path)


class KerasFile(Format):
    "A `.keras` file."
    def make(self, folder):
        path = folder / "model.keras"
        model_of().save(path)
        return path

    def read(self, path):
        from edgetpu_repro.models.blocks import load_model
        load_model(path)


class Checkpoint(Format):
    "A released checkpoint; its index is damaged."
    ways = (flip, cut, without, twice, zeros, noise)
    spec = None # the small one

    def make(self, folder):
        import numpy as np
        import tensorflow as tf

        from edgetpu_repro.weights.released import SUFFIX, released_names
        model, arrays = model_of(self.spec), {}
        weights = {(layer.name, v.name): v.numpy() for layer in model.layers for v in layer.weights}
        for key, parts in released_names(model).items():
            arrays |= dict(zip(parts, np.split(weights[key], len(parts), -1)))
        names, slices = [f"model/{name}{SUFFIX}" for name in arrays], [""] * len(arrays)
        tf.raw_ops.SaveV2(prefix=str(folder / "ckpt"), tensor_names=names,
                          tensors=list(arrays.values()), shape_and_slices=slices)
        return folder / "ckpt.index"

    def prepare(self, path):
        self.model = model_of()

    def read(self, path):
        from edgetpu_repro.weights.start import load_released
        load_released(self.model, path.parent)


class Values(Checkpoint):
    "A released checkpoint; its values are damaged."
    def make(self, folder):
        super().make(folder)
        return next(folder.glob("ckpt.data-*"))


class Archive(Checkpoint):
    "A released checkpoint in an archive."
    ways = BINARY

    def make(self, folder):
        inside = folder / "inside"
        inside.mkdir()
        super().make(inside)
        path = folder / "model.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for part in sorted(inside.iterdir()): tar.add(part, part.name)
        return path

    def read(self, path):
        from edgetpu_repro.weights.start import load_released
        load_released(self.model, path)


class BareArchive(Archive):
    "The same, not compressed: damage reaches the headers."
    def make(self, folder):
        compressed = super().make(folder)
        path = folder / "model.tar"
        import gzip
        path.write_bytes(gzip.decompress(compressed.read_bytes()))
        return path


class Released(Checkpoint):
    "A released checkpoint of a registered model, for commands."
    spec = MODEL


class TFRecord(Format):
    "The examples of a dataset."
    pattern = "*train.tfrecord*"

    def make(self, folder):
        import tensorflow_datasets as tfds
        from edgetpu_repro.data.digit_scenes import DigitScenes
        few = tfds.download.DownloadConfig(max_examples_per_split=6)
        DigitScenes(data_dir=folder).download_and_prepare(download_config=few)
        return next(folder.rglob(self.pattern))

    def read(self, path):
        from edgetpu_repro.core.settings import DataSettings
        from edgetpu_repro.data.datasets import open_dataset
        from edgetpu_repro.tasks.base import TASKS
        folder = next(p for p in path.parents if p.name == "digit_scenes").parent
        scenes = open_dataset(DataSettings(data_dir=str(folder)))
        with scenes.reading(): list(TASKS["classification"].samples(scenes, "train"))


class DatasetInfo(TFRecord):
    "What TFDS writes of a dataset."
    pattern = "dataset_info.json"
    ways = TEXT


FORMATS = {
    "record": Record(),
    "profile": ProfileFile(),
    "spec": Spec(),
    "annotations": Annotations(),
    "journal": Journal(),
    "png": Picture(),
    "jpeg": Jpeg(),
    "tflite": TFLite(),
    "import": Import(),
    "keras": KerasFile(),
    "checkpoint index": Checkpoint(),
    "checkpoint values": Values(),
    "archive": Archive(),
    "bare archive": BareArchive(),
    "tfrecord": TFRecord(),
    "dataset_info": DatasetInfo(),
}
SOUND = {**FORMATS, "released": Released()}


# --- children, forked from a process that has imported everything and used nothing ---------------

FORK = multiprocessing.get_context("fork")


def warm():
    "Import what takes seconds; what forks from here starts at once."
    import keras, optuna, tensorflow, tensorflow_datasets # noqa: F401

    import edgetpu_repro.cli.main
    import edgetpu_repro.search.study
    import edgetpu_repro.tflite.export
    import edgetpu_repro.train.loop # noqa: F401


def redirected(out, error):
    "Send what a process prints, its libraries included, to files."
    for file, number in ((out, 1), (error, 2)): os.dup2(file.fileno(), number)


def answered(pipe, function, args):
    "What a child does: it sends what a generator yields; what it prints goes nowhere."
    with open(os.devnull, "w") as nowhere: redirected(nowhere, nowhere)
    try:
        for item in function(*args): pipe.send(("item", item))
    except BaseException as e: pipe.send(("failed", f"{type(e).__name__}: {e}"))
    pipe.close()


def forked(function, *args):
    "Items of a generator that runs in a child; the last is ('end', 'hang' or 'crash')."
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=answered, args=(theirs, function, args))
    child.start()
    theirs.close()
    fate = "hang"
    try:
        while ours.poll(LIMIT + 10):
            kind, item = ours.recv()
            if kind == "failed": raise SystemExit(item)
            yield kind, item
    except EOFError: fate = "crash"
    finally:
        child.kill()
        child.join()
    yield "end", fate


# --- one process opens many files -------------------------------------------------------------

def outcome(form, path) -> tuple: # ('read', 'refused' or 'traceback', what was said)
    "Open a file."
    from edgetpu_repro.core.errors import UsageError
    try: form.read(path)
    except UsageError as e: return "refused", str(e)
    except Exception as e:
        return "traceback", f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    return "read", ""


def peak() -> int: # bytes
    "The most memory that this process or a child of it has had."
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in whose)


def work(name:str, first:int, count:int, path):
    "Open damaged files; yields the number of a case, and then what happened."
    form, sound = FORMATS[name], path.read_bytes()
    form.prepare(path)
    kind, text = outcome(form, path)
    if kind != "read": raise SystemExit(f"{name}: the sound file is {kind}: {text}")
    base = peak()
    for seed in range(first, first + count):
        path.write_bytes(damaged(sound, seed, form.ways))
        yield seed
        start = time.perf_counter()
        kind, text = outcome(form, path)
        seconds = time.perf_counter() - start
        yield dict(seed=seed, outcome=kind, said=text, seconds=seconds, memory=peak() - base)


def make(name:str, folder):
    "Yields the path of a sound file."
    yield SOUND[name].make(folder)


def made(name:str, folder) -> Path:
    "A sound file, made in a child."
    folder.mkdir(exist_ok=True)
    kind, path = next(forked(make, name, folder))
    if kind == "end": raise SystemExit(f"{name}: no sound file, {path}")
    return path


def worker(name, path, first, count) -> list:
    "Open damaged files in one process; the last case is 'crash' or 'hang' where it ended early."
    cases, begun = [], None
    for kind, item in forked(work, name, first, count, path):
        if kind == "end": fate = item
        elif isinstance(item, dict): cases.append(item)
        else: begun = item
    if begun is None: raise SystemExit(f"{name}: {fate} at the sound file")
    if cases and cases[-1]["seed"] == begun: return cases
    seconds = LIMIT + 10.0 if fate == "hang" else 0.0
    return [*cases, dict(seed=begun, outcome=fate, said="", seconds=seconds, memory=0)]


def attack(name:str, count:int) -> list: # [dict(seed, outcome, said, seconds, memory)]
    "Open damaged files, in a process that is started again where it dies or hangs."
    with tempfile.TemporaryDirectory() as folder:
        path, cases = made(name, Path(folder)), []
        content = path.read_bytes()
        while len(cases) < count:
            path.write_bytes(content) # a worker that died has left a damaged one
            cases += worker(name, path, len(cases), count - len(cases))
    return cases


# --- kills, and a full disk -------------------------------------------------------------------

COMMANDS = { # what is killed; OUT is its own folder, IN that of the sound files
    "train": "train --model_dir OUT --experiment_type IN/small.json --profile smoke"
             " --data_dir IN/data --set train_images=6 --set epochs=4 --set batch_size=2"
             " --set test_images=1",
    "export": "export --model_name IN/small.json --ckpt_path IN/model.keras --output_dir OUT"
              " --image_size 64 --quantize --num_calibration_steps 4 --data_dir IN/data"
              " --dataset_name digit_scenes --allow-degraded",
    "import": f"import IN/ckpt --model_name {MODEL} --output_dir OUT --image_size 64"
              " --num_classes 10",
}


def command(words, error):
    "What a child does that is a command: it has a group of its own, to be killed with it."
    os.setsid()
    with open(os.devnull, "w") as nowhere: redirected(nowhere, error)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    from edgetpu_repro.cli.main import main
    main(words)


def started(kind, folder, sound, error):
    "A child that runs a command on its folders."
    places = dict(OUT=str(folder), IN=str(sound))
    words = COMMANDS[kind].split()
    words = [re.sub("OUT|IN", lambda found: places[found[0]], word) for word in words]
    child = FORK.Process(target=command, args=(words, error))
    child.start()
    return child


def called(kind, folder, sound) -> tuple: # (exit code, what it said on stderr)
    "Run a command to its end."
    with tempfile.TemporaryFile("w+") as error:
        child = started(kind, folder, sound, error)
        child.join()
        error.seek(0)
        return child.exitcode, error.read()


def killed(kind, folder, sound, seconds) -> bool:
    "Start a command and kill it after some time; whether it had still been running."
    with tempfile.TemporaryFile("w+") as error:
        child = started(kind, folder, sound, error)
        child.join(seconds)
        if child.exitcode is not None: return False
        try: os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError: child.kill() # it has no group yet
        child.join()
        return True


def files(folder) -> dict: # {name: content}
    "The files of a folder whose content is decided by what was asked for."
    kinds = (".keras", ".tflite", ".npz")
    shown = [p for p in sorted(Path(folder).rglob("*")) if p.suffix in kinds and p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in shown}


def weights(content:bytes) -> bytes:
    "What is compared of a file: of a `.keras` archive, which keeps times, only the weights."
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read("model.weights.h5")
    except (zipfile.BadZipFile, KeyError): return content


def alike(got:dict, wanted:dict) -> bool:
    "Whether two folders hold the same files, with the same weights."
    if got.keys() != wanted.keys(): return False
    return all(weights(got[name]) == weights(wanted[name]) for name in wanted)


def kills(kind:str, count:int, sound) -> dict: # {'tried', 'lost', 'traceback'}
    "Kill a command at random moments, let it end, and compare with one that was left alone."
    rng, found = random.Random(kind), Counter(tried=0, lost=0, traceback=0)
    with tempfile.TemporaryDirectory() as top:
        whole, start = Path(top) / "whole", time.perf_counter()
        code, said = called(kind, whole, sound)
        if code: raise SystemExit(f"{kind}: {said[-500:]}")
        usual, wanted = time.perf_counter() - start, files(whole)
        while found["tried"] < count:
            folder = Path(top) / "run"
            found["tried"] += killed(kind, folder, sound, rng.uniform(0, 1) * usual)
            code, said = called(kind, folder, sound)
            found["traceback"] += "Traceback" in said
            lost = code != 0 or not alike(files(folder), wanted)
            if lost: print(f"  {kind} {found['tried']}:", code, said[-300:], *files(folder))
            found["lost"] += lost
            shutil.rmtree(folder)
    return dict(found)


def full_disk(sound) -> dict:
    "Commands that write to a full disk: one line, and nothing half-written."
    found = Counter(tried=0, lost=0, traceback=0)
    with tempfile.TemporaryDirectory() as top:
        for kind in COMMANDS:
            place = Path(top) / kind
            place.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place]
            if subprocess.run(mount, capture_output=True).returncode: return {}
            try: code, said = called(kind, place, sound)
            finally:
                left = files(place)
                subprocess.run(["umount", place], check=True)
            lines = [line for line in said.splitlines() if line.startswith("error: ")]
            fine = code and len(lines) == 1 and "No space" in lines[0] and not left
            if not fine: print(f"  {kind}, full disk:", code, lines, *left)
            found["tried"] += 1
            found["traceback"] += "Traceback" in said
            found["lost"] += not fine
    return dict(found)


def sound_files(folder):
    "What the commands start from: a spec, a model, a checkpoint, a small dataset."
    from edgetpu_repro.models.specs import spec_to_json
    (folder / "small.json").write_text(spec_to_json(small_spec()))
    made("keras", folder)
    made("released", folder / "ckpt")
    made("tfrecord", folder / "data")


# --- the table --------------------------------------------------------------------------------

HEAD = """# Damaged files

What `python tests/robustness.py` tried, and what happened: files of every format that the
commands open, damaged by chance (bits, cuts, missing, doubled, zero and random pieces, other
words), and commands that were killed at random moments or had no disk left. Opened means that the
damage was not noticed, because the format has no checksum there. Memory is what it took more than
the sound file. Lost means that what a killed command had begun could not be ended by the same
command with the same weights, or that something half-written was left. Each row is written by the
run, not by hand, with the commit that it ran from.

"""
TAIL = """
`python tests/robustness.py` writes all of it anew, in about a quarter of an hour (the full disk
needs root, for a small file system in memory); `--format NAME`, given once or more, only these
rows. A case is damaged by its number: `python tests/robustness.py work tflite 17 1` opens number 17
of `.tflite` again. The tests try a dozen of each format (`tests/test_robustness.py`).
"""
COLUMNS = ("what", "tried", "opened", "refused in a line", "tracebacks", "crashes and hangs",
           "over 30 s", "memory at most (MB)", "lost", "commit")


def row(name:str, cases:list) -> list:
    "A line of the table for one format."
    count = Counter(c["outcome"] for c in cases)
    slow = sum(c["seconds"] > LIMIT for c in cases)
    memory = round(max(c["memory"] for c in cases) / 1e6)
    return [len(cases), count["read"], count["refused"], count["traceback"],
            count["crash"] + count["hang"], slow, memory, "-"]


TITLES = { # {name: what the table calls it}, in its order
    **{name: f"{type(form).__doc__.rstrip('.')} ({name})" for name, form in FORMATS.items()},
    **{f"kill {kind}": f"`{kind}` killed, then run again" for kind in COMMANDS},
    "full disk": "`train`, `export` and `import` on a full disk",
}


def table(rows:dict) -> str: # {title: cells}
    "Markdown."
    known = [[title, *rows[title]] for title in TITLES.values() if title in rows]
    cells = [COLUMNS, ["---", *["--:"] * (len(COLUMNS) - 1)], *known]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in cells)


def parts(path) -> tuple: # (the first part, what follows)
    "The document, as far as it is there."
    first, heading, rest = path.read_text().partition("\n## ") if path.exists() else ("", "", "")
    return first, heading + rest


def written(path) -> dict: # {title: cells}
    "The rows of the table that is there."
    lines = [line for line in parts(path)[0].splitlines() if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    return {title: cells for title, *cells in rows}


def commit() -> str: # with a + where there are changes
    "What the files are of."
    def git(*words): return subprocess.check_output(["git", "-C", ROOT, *words], text=True).strip()

    changed = git("status", "--porcelain", "-uno", "--", ".", ":!docs/robustness.md")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def tried(name, count, kill_count) -> list: # numbers of the table
    "Attack a format or a command, and say what was bad."
    if name in FORMATS:
        cases = attack(name, count)
        for c in cases:
            if c["outcome"] not in ("read", "refused") or c["seconds"] > LIMIT: print("  ", c)
        return row(name, cases)
    with tempfile.TemporaryDirectory() as folder:
        sound_files(Path(folder))
        if name == "full disk": found = full_disk(Path(folder))
        else: found = kills(name.removeprefix("kill "), kill_count, Path(folder))
    if not found: return []
    return [found["tried"], "-", "-", found["traceback"], "-", "-", "-", found["lost"]]


def run(names, count, kill_count, path):
    "Attack formats and commands; each row of the table is written as soon as it is there."
    for name in names:
        start = time.perf_counter()
        numbers = tried(name, count, kill_count)
        seconds = time.perf_counter() - start
        print(name, *numbers, f"{seconds:.0f} s", sep=" · ", flush=True)
        rows = written(path)
        if numbers: rows[TITLES[name]] = [*numbers, commit()]
        path.write_text(HEAD + table(rows) + TAIL + parts(path)[1])


def main():
    "What the command line asks for."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    how = "nothing; or 'work FORMAT NUMBER COUNT' to open files again"
    parser.add_argument("what", nargs="*", help=how)
    parser.add_argument("--format", action="append", choices=TITLES)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--kills", type=int, default=17, help="of each command")
    given = parser.parse_args()
    if given.what:
        _, name, first, count = given.what
        with tempfile.TemporaryDirectory() as folder:
            path = FORMATS[name].make(Path(folder))
            for case in work(name, int(first), int(count), path): print(case)
        return
    warm()
    with tempfile.TemporaryDirectory() as folder: # what killed children leave goes with it
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        run(given.format or TITLES, given.count, given.kills, DOCUMENT)


if __name__ == "__main__": main()
