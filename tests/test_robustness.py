"A few damaged files of every format; `tools/robustness.py` tries hundreds of each."
import pytest

import robustness
from robustness import FORMATS, damaged, outcome

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
