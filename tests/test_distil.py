"Places of a trained network: candidates that learn to stand in them, the exact frontier, networks."
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from conftest import warm
from PIL import Image

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.models.specs import get_spec, read_spec, spec_to_json
from test_search import one_line

SHORT = ("--steps", 4, "--batch_size", 8, "--seeds", 1)
HOW = (*SHORT, "--kind", "depthwise", "--kind", "skip")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A folder with a small network as a teacher, its spec, another network, and pictures."
    import keras

    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.search.distil import drawn_pictures, small_teacher
    from edgetpu_repro.tflite.export import Exporter
    folder = tmp_path_factory.mktemp("lab")
    small_teacher(folder)
    keras.utils.set_random_seed(1)
    other = Exporter(build_model(folder / "small.json")).float_file("none").content
    (folder / "other.tflite").write_bytes(other)
    drawn_pictures(folder / "pictures", 30)
    drawn_pictures(folder / "few", 5)
    return folder


def words(lab, study, how=HOW, **other):
    "The command, with what is to be another."
    given = dict(teacher=lab / "small.tflite", images=lab / "pictures", study=study,
                 model=lab / "small.json") | other
    options = [part for name, value in given.items() if value for part in (f"--{name}", value)]
    return ("search", "distil", *options, *how)


@pytest.fixture(scope="module")
def studied(lab, cli):
    "A finished study."
    done = cli(*words(lab, lab / "study"), "--json")
    assert done.returncode == 0, done.stderr
    return lab / "study", json.loads(done.stdout)


def worths(rows):
    "What was found, without times."
    return [(r["model"], r["left"], r["kls"]) for r in rows]


def drawn_table(places=range(22)):
    "All candidates of MobileNetEdgeTPU 1.0 in some places, with random worths."
    from edgetpu_repro.search.frontier import table_of
    from edgetpu_repro.search.places import candidates_at, places_of
    spec, rng = get_spec("mobilenet_edgetpu"), np.random.default_rng(0)
    return table_of(spec, [dict(place=p.number, candidate=name, kl=rng.uniform())
                           for p in places_of(spec) if p.number in places
                           for name in candidates_at(p)])


@pytest.mark.quick
def test_the_frontier_is_that_of_brute_force():
    from edgetpu_repro.search.frontier import cheapest
    rng = np.random.default_rng(0)
    for _ in range(5):
        times = [rng.integers(0, 12, n).tolist() for n in (3, 2, 4, 3)] # some totals come twice
        costs = [rng.uniform(size=n).tolist() for n in (3, 2, 4, 3)]
        total = lambda rows, dna: sum(row[i] for row, i in zip(rows, dna))
        every = list(product(*(range(len(row)) for row in times)))
        best = [dna for dna in every if not any(
            total(times, o) <= total(times, dna) and total(costs, o) < total(costs, dna)
            for o in every)]
        found = cheapest(times, costs)
        assert sorted(best) == sorted(map(tuple, found[2].tolist()))
        for time, cost, dna in zip(*found):
            assert [total(times, dna), total(costs, dna)] == pytest.approx([time, cost])


@pytest.mark.quick
def test_what_is_found_is_as_fast_as_it_was_to_be():
    from edgetpu_repro.search.frontier import WITHOUT, frontier
    table = drawn_table()
    for name in WITHOUT:
        found, rng = frontier(table, name), np.random.default_rng(0)
        first = table.fixed_ms + found.ms[0]
        assert found.at(first - 1e-3) is None
        for ms in rng.uniform(first, 2, 50): assert table.ms_of(found.at(ms)) <= ms + 1e-9
        dna = tuple(int(rng.choice(kept)) for kept in found.kept)
        assert table.kl_of(found.at(table.ms_of(dna))) <= table.kl_of(dna)


@pytest.mark.quick
def test_times_add_up_over_places():
    from edgetpu_repro.measure.latency import predict
    from edgetpu_repro.measure.workload import spec_operators
    table = drawn_table()
    rng = np.random.default_rng(0)
    for _ in range(20):
        dna = table.space.random(rng)
        found = table.space.decode(dna).spec
        whole = predict(spec_operators(found), with_interval=False)["ms"]
        assert table.ms_of(dna) == pytest.approx(whole, abs=1e-9)
        again = table.space.encode(found)
        assert table.space.decode(again).spec == found
        assert table.kl_of(again) <= table.kl_of(dna) + 1e-12


@pytest.mark.quick
def test_a_released_network_is_known_by_its_convolutions():
    from edgetpu_repro.core.files import released_folder
    from edgetpu_repro.search.places import recognise
    from edgetpu_repro.weights.start import KNOWN
    names = ("mobilenet_edgetpu", "mobilenet_edgetpu_dm0p75_slim")
    files = {name: next(released_folder().rglob(KNOWN[name]), None) for name in names}
    if not all(files.values()): pytest.skip("the released files are not here")
    for name, path in files.items(): assert recognise(path).name == name


def test_stopped_or_by_several_the_matrix_is_the_same(lab, cli, studied, tmp_path):
    "One worker in one go; two jobs, then two by another: the same numbers to the bit."
    _, whole = studied
    first = cli(*words(lab, tmp_path), "--most", 2)
    assert f"2 jobs by this process, 2 of {whole['jobs']} finished" in first.stdout, first
    rest = json.loads(cli(*words(lab, tmp_path), "--most", 2, "--json").stdout)
    assert rest["done"] == 2 and whole["finished"] == whole["jobs"]
    assert worths(rest["rows"]) == worths(whole["rows"][:4])
    assert all(0 <= row["left"] and 0 <= row["same_class"] <= 1 for row in rest["rows"])


def test_a_study_of_some_places_and_of_plain_candidates(lab, cli, tmp_path):
    "What is left out is part of the study; the numbers are those of the whole."
    some = lambda *asked: cli(*words(lab, tmp_path, (*SHORT, *asked)))
    done = some("--place", 2, "--place", 1, "--kind", "full", "--kind", "skip", "--plain", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [r["model"] for r in rows] == ["p02_full_k3_e4_s0", "p01_full_k3_e4_s0"], done
    one_line(some("--kind", "full", "--place", 1), "holds another study of places")
    one_line(some("--place", 4), "place 4 is none of 0 to 3")
    one_line(some("--place", 2, "--kind", "gc128"), "no candidate of gc128 fits these places")
    one_line(some("--kind", "fll"), "unknown kind of candidate 'fll'; did you mean 'full'?")


def test_a_detector_teaches_and_nothing_is_put_together_of_it(lab, cli, tmp_path):
    from edgetpu_repro.models.heads import Node, SpaghettiNet
    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.search.distil import Distiller, Lesson, start_matrix
    from edgetpu_repro.search.places import Teacher
    from edgetpu_repro.search.study import work
    nodes = (Node("n0", 3, ("s0",), 8, ("g(3,4,2,2)",)), Node("n1", 4, ("n0",), 8, ("i(3,4,2)",)))
    spec = SpaghettiNet("tiny", nodes, ("n0", "n1"), stem=8, num_classes=2, image_size=32)
    teacher = Teacher(lab / "small.tflite", spec, build_model(spec))
    study = (teacher, lab / "pictures", tmp_path, None, None, Lesson(2, batch=8), 1, ("full",))
    work(*start_matrix(*study, plain=True), kind=Distiller)
    rows = start_matrix(*study, plain=True)[0].rows()
    assert [row["model"] for row in rows] == ["p00_full_k3_e4_s0"] # n0 goes two ways
    assert rows[0]["kl"] > 0 and len(rows[0]["kls"]) == 5
    one_line(cli("search", "frontier", "--study", tmp_path), "tiny is no classifier")


def test_the_released_detector_begins_with_group_convolutions():
    from edgetpu_repro.core.files import released_folder
    from edgetpu_repro.search.places import candidate_name, open_teacher, recognise
    from edgetpu_repro.weights.start import KNOWN
    name = "spaghettinet_edgetpu_s"
    path = next(released_folder().rglob(KNOWN[name]), None)
    if not path: pytest.skip("the released file is not here")
    with pytest.raises(UsageError, match="say with --model which network it is"): recognise(path)
    teacher = open_teacher(path, name)
    kinds = [candidate_name(p.block).split("_")[0] for p in teacher.places]
    assert kinds == ["gc64", "gc48", "gc64", "gc64", "depthwise", "gc144", "depthwise", "depthwise"]
    assert [x.shape[1:3] for x in teacher.maps] == [teacher.places[0].hw,
                                                    *(p.out_hw for p in teacher.places)]
    assert teacher.answers.shape[1] == 2058 * 90 # anchors and classes


@pytest.mark.quick
def test_a_study_without_a_choice_is_called_as_before():
    from edgetpu_repro.search.distil import Lesson, MatrixSettings
    spec = spec_to_json(get_spec("mobilenet_edgetpu"))
    made = MatrixSettings(spec, "1" * 12, "2" * 12, 1000, 200, Lesson(longer=4))
    assert made.title == ("places of mobilenet_edgetpu on pictures 222222222222, 120 steps of 32 "
                          "at 0.1, crops of 14, 4 times as many where no input is added, 2 seeds")
    chosen = replace(made, only=(7, 16), plain=True, kinds=("full",))
    assert chosen.title == f"{made.title}, full, at 7 16 alone, plain ones alone"
    assert {job.name for job in chosen.jobs} == {
        f"p{p:02d}_full_k3_e{e}_s{s}" for p, e in ((7, 4), (16, 4)) for s in (0, 1)}


def test_from_the_matrix_to_a_tuned_network(lab, cli, studied, tmp_path):
    study, _ = studied
    found, table = tmp_path / "found.json", tmp_path / "table.json"
    asked = ("--study", study, "--target_ms", 3, "--outside")
    done = cli("search", "frontier", *asked, "--output", found, "--table", table)
    assert done.returncode == 0 and "predicted KL" in done.stdout, done
    modelled = re.search(r"modelled ([0-9.]+) ms \(([0-9.]+) to ([0-9.]+)\)", done.stdout)
    ms, low, high = map(float, modelled.groups())
    assert low < ms < high
    assert len(read_spec(found).blocks) == 4
    asked = (found, "--teacher", lab / "small.tflite", "--model", lab / "small.json")
    keras = tmp_path / "found.keras"
    made = cli("search", "assemble", *asked, "--study", study, "--tune", 2, "--output", keras,
                  "--json")
    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert answer["tuned"]["kl"] < 1 and keras.is_file()
    run = ("search", "run", "--study", tmp_path / "c.journal", "--target_ms", 0.9)
    searched = cli(*run, "--space", table, "--evaluator", "distilled", "--trials", 12)
    assert "12 of 12 finished" in searched.stdout, searched


@pytest.mark.quick
def test_drawn_networks_are_near_a_latency_and_go_from_good_to_bad():
    from edgetpu_repro.search.assemble import drawn_networks
    from edgetpu_repro.search.frontier import frontier
    from edgetpu_repro.search.networks import (
        CHANCE, NetworksPlan, NetworksSettings, dna_of, entries_of, names_of)
    table = drawn_table()
    near = drawn_networks(table, 8, near_ms=0.8)
    assert all(abs(table.ms_of(dna) / 0.8 - 1) <= 0.02 for dna in near) and len(set(near)) == 8
    assert not any(table.outside[p][i] for dna in near for p, i in enumerate(dna))
    kls = [table.kl_of(dna) for dna in drawn_networks(table, 16)]
    best = min(table.kl_of(frontier(table).at(ms)) for ms in (0.5, 1.5))
    assert min(kls) >= best and max(kls) > 2 * min(kls)
    assert drawn_networks(table, 8, near_ms=0.8) == near
    entries = entries_of(table, NetworksPlan(targets=(1.0, 0.8)))
    assert all(names_of(table, dna_of(table, e.candidates)) == e.candidates for e in entries)
    finals = [(e.candidates, e.target_ms, e.seed) for e in entries if e.target_ms]
    assert len(set(finals)) == len(finals) # what was found in two ways is one network
    assert len({e.name for e in entries}) == len(entries) == 16 + 8 + 2 * (4 + 3)
    made = NetworksSettings("", 1, "", entries_of(table, NetworksPlan(best_of=0)))
    assert {e.group for e in made.added(entries).entries} >= {CHANCE} # added later
    others = entries_of(drawn_table(range(1, 22)), NetworksPlan(drawn=17))
    assert made.added(others).entries == (*made.entries, others[16]) # no rivals by another table
    with pytest.raises(UsageError, match="was not tried at place 0"):
        dna_of(table, ("gc7_k3_e1", *entries[0].candidates[1:]))
    with pytest.raises(UsageError, match="0 different networks"):
        drawn_networks(table, 2, near_ms=0.01)


@pytest.mark.quick
def test_chance_takes_every_network_of_a_latency_alike():
    "Against all networks of three places that are near one, counted."
    from edgetpu_repro.search.assemble import even_networks
    from edgetpu_repro.search.frontier import frontier
    table = drawn_table(places=(3, 6, 18))
    every = list(product(*frontier(table).kept))
    near = [dna for dna in every if abs(table.ms_of(dna) / 0.85 - 1) < 0.02]
    drawn = even_networks(table, 40 * len(near), 0.85)
    counts = Counter(drawn)
    assert 20 < len(near) < len(every) / 2
    assert sum(dna not in near for dna in counts) <= 2 # microseconds are rounded
    assert all(15 < counts[dna] < 65 for dna in near)
    assert even_networks(table, 5, 0.85) == even_networks(table, 5, 0.85)
    with pytest.raises(UsageError, match="no network is within 2 % of 0.010 ms"):
        even_networks(table, 2, 0.01)


@pytest.mark.quick
def test_a_prediction_is_believed_only_above_its_bars():
    from edgetpu_repro.search.networks import ranked
    right = [dict(group=g, predicted_kl=i, kl=i + 0.1) for g in ("drawn", "near") for i in range(9)]
    assert [test.passes for test in ranked(right)] == [True, True]
    wrong = [r | dict(kl=-r["kl"]) for r in right]
    assert [test.passes for test in ranked(wrong)] == [False, False]
    assert ranked(right[:5]) == []


def labelled(folder, pictures):
    "A folder of pictures that taught or judged, and four others, all of class 3."
    shutil.copytree(pictures, folder)
    rng = np.random.default_rng(0)
    for i in range(4):
        noise = rng.integers(256, size=(64, 64, 3), dtype="uint8")
        Image.fromarray(noise).save(folder / f"new{i}.png")
    names = sorted(path.name for path in folder.glob("*.png"))
    (folder / "labels.txt").write_text("".join(f"{name} 3\n" for name in names))
    return folder


def test_networks_are_put_together_by_several(lab, cli, studied, tmp_path):
    "Stopped and gone on with, networks are the same; finalists answer pictures that are new."
    whole, parts = (shutil.copytree(studied[0], tmp_path / name) for name in ("whole", "parts"))
    others = labelled(tmp_path / "others", lab / "pictures")
    asked = ("search", "test", "--teacher", lab / "small.tflite", "--model", lab / "small.json",
             "--near", 0, "--tunings", 1, "--best_of", 0, "--labelled")
    planned = (*asked, others, "--drawn", 2)
    done = json.loads(cli(*planned, "--study", whole, "--json").stdout)
    assert done["finished"] == done["networks"] > 2 and done["tests"] == [] # of too few
    first = cli(*planned, "--study", parts, "--most", 1)
    assert "1 networks by this process" in first.stdout and "not tested" in first.stdout, first
    rest = json.loads(cli(*planned, "--study", parts, "--most", 1, "--json").stdout)
    assert [r["kls"] for r in rest["rows"]] == [r["kls"] for r in done["rows"][:2]]
    last = done["rows"][-1]
    assert len(last["right"]) == len(last["right_int8"]) == 4 # the others taught or judged
    assert (whole / f"networks/{last['model']}.tflite").is_file()
    other_plan = (*asked, others, "--drawn", 3)
    one_line(cli(*other_plan, "--tune", 2, "--study", whole), "holds another study of networks")
    more = json.loads(cli(*other_plan, "--study", whole, "--json").stdout)
    assert more["done"] == 1 and more["rows"][:-1] == done["rows"]
    assert more["rows"][-1]["model"] == "drawn_02_s0"
    for i in range(4): (others / f"new{i}.png").unlink()
    one_line(cli(*other_plan, "--study", parts), "taught or judged")
    one_line(cli(*asked, lab / "pictures", "--study", parts), "has no labels")
    journal = whole / "networks.journal" # cut off before it says what it is of
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    one_line(cli("search", "frontier", "--study", whole), "holds a study that is none of networks")


DEAF = """
import os, signal, sys
from edgetpu_repro.cli.main import main
from edgetpu_repro.search import distil
crops = distil.crops

def signalled(*words):
    for number, batch in enumerate(crops(*words)):
        if number == 3:
            try: os.kill(os.getpid(), signal.SIGTERM)
            except: print("lost") # as in Keras
        yield batch

distil.crops = signalled
main(sys.argv[1:])
"""


def test_a_worker_ends_at_the_first_signal_even_where_it_is_lost(lab, tmp_path):
    from edgetpu_repro.search.distil import open_matrix
    script, study = tmp_path / "deaf.py", tmp_path / "study"
    script.write_text(DEAF)
    done = warm("script", script, *words(lab, study), "--steps", 20_000)
    assert done.returncode == 143 and done.stdout == "lost\n", done
    matrix = open_matrix(study)
    assert [t.user_attrs["reason"] for t in matrix.trials()] == ["interrupted"]
    assert not (study / "blocks").exists() and not list(study.rglob("*tmp*"))


@pytest.mark.parametrize("other, said", [
    (dict(model=None), "is no registered network of blocks"),
    (dict(model="ssd_mobilenet_edgetpu"), "does not begin with blocks in a row"),
    (dict(model="spaghettinet_edgetpu_s"), "does not fit"),
    (dict(model="mobilenet_edgetpu"), "does not fit"),
    (dict(teacher="small.json"), "is neither a .keras nor a .tflite file"),
    (dict(images="few"), "holds 5 pictures; 24 are the fewest"),
    (dict(images="nowhere"), "nowhere is not there"),
    (dict(teacher="other.tflite"), "holds another study"),
])
def test_what_is_no_study_of_this_teacher_is_a_line(lab, cli, studied, other, said):
    study, _ = studied
    paths = {k: lab / v if v and k != "model" else v for k, v in other.items()}
    one_line(cli(*words(lab, study, **paths)), said)


def test_a_study_that_is_not_there_is_a_line_that_says_what_makes_it(lab, inside, tmp_path):
    from edgetpu_repro.search.networks import open_networks
    own = ("--teacher", lab / "small.tflite", "--model", lab / "small.json")
    for words in (("frontier",), ("test", *own), ("assemble", lab / "small.json", *own)):
        done = inside("search", *words, "--study", tmp_path / "none")
        one_line(done, "matrix.journal is not a file; `search distil` makes a study")
    with pytest.raises(UsageError, match="networks.journal is not a file; `search test` makes"):
        open_networks(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_read_is_a_line(lab, cli, tmp_path):
    from edgetpu_repro.search.distil import drawn_pictures
    drawn_pictures(tmp_path / "pictures", 30)
    (tmp_path / "pictures/007.png").write_text("no picture")
    one_line(cli(*words(lab, tmp_path / "study", images=tmp_path / "pictures")), "007.png")


def test_labels_that_do_not_fit_are_a_line(lab, cli):
    names = sorted(path.name for path in (lab / "few").glob("*.png"))
    (lab / "few/labels.txt").write_text("".join(f"{name} 10\n" for name in names))
    one_line(cli("evaluate", lab / "small.tflite", "--images", lab / "few"), "label 10 of")


def test_other_teachers_and_unknown_networks_are_not_assembled(lab, cli, studied, tmp_path):
    study, _ = studied
    own = ("--teacher", lab / "small.tflite", "--model", lab / "small.json", "--study", study)
    small = read_spec(lab / "small.json")
    wide = replace(small, blocks=(*small.blocks[:3], replace(small.blocks[3], expand=2)))
    (tmp_path / "wide.json").write_text(spec_to_json(wide))
    one_line(cli("search", "assemble", tmp_path / "wide.json", *own), "not tried at its place")
    other = ("--teacher", lab / "other.tflite", *own[2:])
    one_line(cli("search", "assemble", lab / "small.json", *other), "is not the teacher")
    toy = ("search", "run", "--study", tmp_path / "t.journal", "--target_ms", 0.9)
    one_line(cli(*toy, "--evaluator", "distilled"), "goes with a space of places")


@pytest.mark.quick
def test_a_place_without_a_candidate_keeps_the_trained_block():
    from edgetpu_repro.search.distil import SMALL
    from edgetpu_repro.search.frontier import frontier, table_of
    rows = [dict(place=i, candidate="full_k3_e4", kl=0.1) for i in (1, 2, 3)]
    with pytest.raises(UsageError, match="no candidate is finished"): table_of(SMALL, [])
    trained = table_of(SMALL, rows)
    assert trained.space.options[0] == (("trained", SMALL.blocks[0]),)
    assert trained.kl_of((0, 0, 0, 0)) == pytest.approx(0.3)
    table = table_of(SMALL, [*rows, dict(place=0, candidate="full_k3_e1", kl=0.1)])
    with pytest.raises(UsageError, match="place 0 has no candidate"):
        frontier(table, "depthwise only")
