"A few damaged files of every format; `tests/robustness.py` tries hundreds of each."
import time
import zipfile

import pytest

import robustness
from robustness import FORMATS, damaged, outcome

from edgetpu_repro.core.errors import UsageError

COUNT = 12


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_opened_or_refused_in_a_line(name, tmp_path):
    form = FORMATS[name]
    path = form.make(tmp_path)
    form.prepare(path)
    sound = path.read_bytes()
    assert outcome(form, path) == ("read", "")
    for seed in range(COUNT):
        path.write_bytes(damaged(sound, seed, form.ways))
        kind, said = outcome(form, path)
        assert kind in ("read", "refused"), (seed, said)


def test_damage_is_decided_by_the_seed_and_changes_the_file():
    sound = bytes(range(256)) * 20
    for ways in (robustness.BINARY, robustness.TEXT):
        files = [damaged(sound, seed, ways) for seed in range(50)]
        assert files == [damaged(sound, seed, ways) for seed in range(50)]
        assert sum(f != sound for f in files) > 45


class Careless(robustness.Record):
    "A reader that answers damage with a traceback."
    def read(self, path):
        return [int(word) for word in path.read_text().split()]


@pytest.mark.parametrize("content, kind", [("1 2 x", "traceback"), ("1 2", "read")])
def test_a_careless_reader_is_found_out(content, kind, tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text(content)
    assert outcome(Careless(), path)[0] == kind


NAMED = { # what a run has found: (format, from, to)
    "ids are lists": ("annotations", b'"image_id": 1', b'"image_id": [1]'),
    "categories are lists": ("annotations", b'"category_id": 2', b'"category_id": [2]'),
    "areas are texts": ("annotations", b'"area": 200', b'"area": "200"'),
    "endless areas": ("annotations", b'"area": 200', b'"area": 1' + b"0" * 400),
    "no file name": ("annotations", b'"file_name": "a.png"', b'"file_name": null'),
    "no template": ("dataset_info", b"{SHARD_X_OF_Y}", b"{}"),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_was_found_stays_closed(case, tmp_path):
    name, before, after = NAMED[case]
    form = FORMATS[name]
    path = form.make(tmp_path)
    sound = path.read_bytes()
    assert before in sound
    path.write_bytes(sound.replace(before, after))
    kind, said = outcome(form, path)
    assert kind in ("read", "refused"), said


def slow():
    from edgetpu_repro.tflite.isolation import opening
    with opening(): time.sleep(600)


def test_what_does_not_open_is_stopped(monkeypatch):
    from edgetpu_repro.tflite import isolation
    monkeypatch.setattr(isolation, "OPEN_SECONDS", 0.1)
    with pytest.raises(UsageError, match="a.keras did not open within 0.1 s"):
        isolation.run_isolated(slow, what="a.keras")
    with isolation.opening(): time.sleep(0.2) # no child: nobody is stopped


def test_weights_that_need_too_much_memory_are_refused(cli, tmp_path):
    import keras
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(7)])
    model.save(tmp_path / "sound.keras")
    with zipfile.ZipFile(tmp_path / "sound.keras") as sound:
        files = {name: sound.read(name) for name in sound.namelist()}
    files["config.json"] = files["config.json"].replace(b'"units": 7', b'"units": 8000000000')
    with zipfile.ZipFile(tmp_path / "large.keras", "w") as large:
        for name, content in files.items(): large.writestr(name, content)
    words = ("export", "--model_name", robustness.MODEL, "--output_dir", tmp_path / "out")
    done = cli(*words, "--ckpt_path", tmp_path / "large.keras")
    assert done.returncode == 2 and "large.keras" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_every_test_of_faults_is_counted_once_in_the_document(monkeypatch, tmp_path):
    import re
    from collections import Counter

    import faults
    counted = Counter((file, name) for file, words in faults.KINDS.values()
                      for name in faults.chosen(file, words))
    written = re.findall(r"^def (test_\w+)", (faults.ROOT / faults.FAULTS).read_text(), re.M)
    assert set(counted.values()) == {1}
    assert {name for file, name in counted if file == faults.FAULTS} == set(written)
    document = tmp_path / "robustness.md"
    document.write_text("# A\n\n| a |\n| - |\n| row | 1 |\n\n## Other faults\n\n| b | 2 |\n")
    assert robustness.written(document) == {"row": ["1"]}, "the other table is not of its rows"
    monkeypatch.setattr(robustness, "tried", lambda *words: [])
    robustness.run(["record"], 1, 1, document)
    assert document.read_text().endswith("## Other faults\n\n| b | 2 |\n"), "it stays"
