"The architecture search: spaces, rewards, controllers, the study, and the command."
import json
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import BIN, ROOT, call

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.models.costs import count
from edgetpu_repro.models.specs import get_spec, read_spec, spec_from_json, spec_to_json
from edgetpu_repro.search.spaces import SPACES, get_space

V2 = [f"mobilenet_edgetpu_v2_{size}" for size in ("tiny", "xs", "s", "m", "l")]
AUTOSEG = [f"autoseg_edgetpu_{size}" for size in ("xs", "s", "m")]


@pytest.mark.quick
@pytest.mark.parametrize("name", V2)
@pytest.mark.parametrize("space", ["v2_gc", "v2_gc_small"])
def test_v2_models_come_back_exactly(space, name):
    published = get_spec(name)
    decoded = get_space(space).decode(get_space(space).encode(name))
    assert replace(decoded.spec, name=name, family=published.family) == published
    assert decoded.repairs == ()


@pytest.mark.quick
@pytest.mark.parametrize("name", AUTOSEG)
@pytest.mark.parametrize("space", ["autoseg_joint", "autoseg_joint_groups"])
def test_autoseg_bodies_come_back_exactly(space, name):
    space, published = get_space(space), get_spec(name)
    body = get_spec(published.backbone)
    found = space.decode(space.encode(name)).spec
    assert found.backbone.blocks == body.blocks
    names = dict(name=name, family=published.family, backbone=published.backbone)
    assert replace(found, **names) == published
    assert count(found) == count(published)


@pytest.mark.quick
@pytest.mark.parametrize("name", SPACES)
def test_every_dna_builds_and_counts(name):
    "200 random ones in all, without Keras; what is decoded is encoded and read from JSON again."
    space, rng = get_space(name), np.random.default_rng(7)
    for _ in range(40):
        dna = space.random(rng)
        assert space.check(dna) == dna and space.dna(space.values(dna)) == dna
        spec = space.decode(dna).spec
        assert space.decode(space.encode(spec)).spec == spec
        assert spec_from_json(spec_to_json(spec)) == spec
        assert count(spec)["params"] > 1e6


@pytest.mark.quick
def test_repairs_are_deterministic_and_recorded():
    space, rng = get_space("v2_gc"), np.random.default_rng(3)
    for _ in range(20):
        dna = space.random(rng)
        once, again = space.decode(dna), space.decode(dna)
        assert once == again
        values = space.values(dna)
        decided = [values[f"{text.split()[0]}.kind"] for text in once.repairs]
        assert all(kind.startswith("gc") for kind in decided)
        sizes = [b.group_size for b in once.spec.blocks if b.group_size]
        assert not [size for size in sizes if size < 64]


@pytest.mark.quick
def test_a_mutation_changes_one_decision():
    for space in SPACES.values():
        rng = np.random.default_rng(1)
        dna = space.random(rng)
        changed = [space.mutate(dna, rng) for _ in range(200)]
        places = [[i for i, (a, b) in enumerate(zip(dna, other)) if a != b] for other in changed]
        assert all(len(p) == 1 for p in places)
        assert len({p[0] for p in places}) > 40


@pytest.mark.quick
@pytest.mark.parametrize("space, model, answer", [
    ("v2_gc", "mobilenet_edgetpu", "its blocks are not in seven groups"),
    ("v2_gc", "autoseg_edgetpu_xs", "it has no blocks"),
    ("v2_plain", "mobilenet_edgetpu_v2_xs", "no decision of the space gives Block("),
    ("autoseg_joint", "mobilenet_edgetpu_v2_xs", "its body has another stem or top"),
    ("autoseg_joint", "spaghettinet_edgetpu_s", "is not in the space autoseg_joint"),
])
def test_what_is_not_in_a_space_is_refused(space, model, answer):
    with pytest.raises(UsageError, match="is not in the space") as e: get_space(space).encode(model)
    assert answer in str(e.value)


def test_found_models_build_in_keras():
    from edgetpu_repro.models.specs import build_model
    rng = np.random.default_rng(11)
    for name in ("v2_gc", "v2_gc_small", "v2_plain", "autoseg_joint", "autoseg_joint_groups"):
        space = get_space(name)
        spec = space.decode(space.random(rng)).spec
        model = build_model(spec, image_size=64)
        assert model.count_params() == count(spec, 64)["params"]


XS = ("--target_ms", 0.85, "--trials", 40)


def one_line(result, *words):
    "The answer to a mistake."
    assert result.returncode in (1, 2), result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words: assert word in lines[0], lines[0]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    "A finished search on the toy, uninterrupted."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import SearchSettings, create_study, work
    path = tmp_path_factory.mktemp("search") / "xs.journal"
    work(create_study(path, SearchSettings(target_ms=0.85, trials=40, seed=3)), toy)
    return path


def history(path):
    from edgetpu_repro.search.study import open_study
    return open_study(path).history()


def finished(path):
    "Trials that a journal has, while somebody writes to it."
    return path.read_text().count('"evaluation"') if path.exists() else 0


def started(cli_path, *words):
    "A search in a process of its own; in the background of a shell it hears Ctrl-C, too."
    command = [cli_path, "search", "run", *map(str, words)]
    pipes = dict(stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, cwd=ROOT, text=True, preexec_fn=heard, **pipes)


def test_interrupted_and_killed_it_goes_on_to_the_same_end(studied, tmp_path):
    "Ctrl-C, then kill -9 in the middle, then the rest: nothing is lost, the history is the same."
    path = tmp_path / "xs.journal"
    words = ("--study", path, *XS, "--seed", 3)
    for number, (stop, code) in enumerate([(signal.SIGINT, 130), (signal.SIGKILL, -9)]):
        child = started(BIN / "edgetpu-repro", *words)
        while finished(path) < 8 * (number + 1) and child.poll() is None: time.sleep(0.05)
        child.send_signal(stop)
        _, said = child.communicate()
        assert child.returncode == code, said
        if code == 130: assert said.strip().splitlines()[-1].startswith("error: interrupted")
    done = call(BIN / "edgetpu-repro", "search", "run", *words)
    assert done.returncode == 0 and "40 of 40 finished" in done.stdout, done
    assert history(path) == history(studied)


def test_killed_between_the_result_and_the_end_it_goes_on_to_the_same_end(studied, tmp_path):
    "The result is in the file, the trial still runs: the next worker ends it, then proposes."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import SearchSettings, Worker, create_study, open_study, work
    path = tmp_path / "xs.journal"
    study = create_study(path, SearchSettings(target_ms=0.85, trials=40, seed=3))
    work(study, toy, most=20)
    killed = Worker(study, toy)
    study.optuna.tell = lambda *values, **options: None
    killed.run(killed.next())
    again = open_study(path)
    assert [len(again.trials(state)) for state in ("COMPLETE", "RUNNING")] == [20, 1]
    work(again, toy)
    assert history(path) == history(studied)


def test_a_search_from_the_command_line(inside, studied, tmp_path):
    shown = json.loads(inside("search", "show", "--study", studied, "--json").stdout)
    assert shown["states"] == dict(complete=40, running=0, fail=0)
    assert shown["settings"]["controller"] == "evolution" and len(shown["trials"]) == 40
    assert "toy 0." in inside("search", "show", "--study", studied).stdout
    rest = inside("search", "work", "--study", studied)
    assert "0 trials by this process, 40 of 40" in rest.stdout
    more = tmp_path / "more.journal"
    more.write_bytes(studied.read_bytes())
    run = ("search", "run", "--study", more, "--target_ms", 0.85, "--seed", 3)
    assert "5 trials by this process, 45 of 45" in inside(*run, "--trials", 45).stdout
    pareto = ("--reward", "pareto", "--controller", "nsga2", "--trials", 12)
    space = ("--space", "autoseg_joint", "--study", tmp_path / "pareto.journal")
    done = inside("search", "run", *space, *pareto)
    assert done.returncode == 0 and "12 of 12 finished" in done.stdout, done


def test_a_found_spec_is_taken_like_a_name(inside, studied, tmp_path):
    found = tmp_path / "found.json"
    assert inside("search", "export", "--study", studied, "--output", found).returncode == 0
    spec = read_spec(found)
    assert spec.name.startswith("found_v2_gc_")
    assert spec.name in inside("info", found).stdout
    modelled = json.loads(inside("latency", found, "--json").stdout)[str(found)]
    assert not modelled["extrapolated"] and 0.6 < modelled["ms"] < 1.2
    files = ("export", "--model_name", found, "--output_dir", tmp_path, "--image_size", 32)
    done = inside(*files, "--num_classes", 4)
    assert done.returncode == 0 and list(tmp_path.glob(f"{spec.name}*.tflite")), done
    one_line(inside("train", "--experiment_type", found, "--model_dir", tmp_path, "--mode", "eval",
                    "--profile", "smoke"), f"{spec.name}.keras is not there")
    from edgetpu_repro.cli.timing import _checked_files
    assert _checked_files([str(found)], None, None) == {str(found): str(found)}


@pytest.mark.parametrize("words, answer", [
    (("--space", "v2gc", *XS), "unknown space 'v2gc'; did you mean 'v2_gc'"),
    (("--target_ms", 9), "a target of 9 ms is outside of the fit; classification models"),
    (("--target_ms", "nan"), "outside of the fit"),
    (("--space", "autoseg_joint", "--target_ms", 0.85), "published from 3.4 to 5.5 ms"),
    ((), "the reward abs needs a target in ms"),
    ((*XS, "--controller", "evolve"), "unknown controller 'evolve'"),
    (("--reward", "pareto", "--controller", "reinforce"), "needs a single reward"),
    ((*XS, "--evaluator", "training"), "unknown evaluator 'training'"),
    ((*XS, "--evaluator", "gp"), "needs a study to learn from"),
    ((*XS, "--evaluator", "ridge", "--learn_from", "/nowhere"), "/nowhere is not a file"),
    ((*XS, "--evaluator", "train", "--profile", "smok"), "unknown profile 'smok'"),
    ((*XS, "--evaluator", "train", "--set", "epoch=1"), "did you mean 'epochs'"),
    ((*XS, "--trials", 0), "greater than or equal to 1"),
])
def test_bad_settings_are_one_line_and_leave_nothing(inside, tmp_path, words, answer):
    path = tmp_path / "x.journal"
    one_line(inside("search", "run", "--study", path, *words), answer)
    assert not path.exists()


def test_bad_files_are_one_line(inside, studied, tmp_path):
    def run(path): return inside("search", "run", "--study", path, *XS, "--seed", 3)

    one_line(inside("search", "run", "--study", studied, *XS, "--seed", 4), "holds another search",
             "'v2_gc, evolution, toy, abs 0.85 ms, seed 3'")
    one_line(inside("search", "work", "--study", tmp_path / "nothing"), "is not a file")
    one_line(inside("search", "show", "--study", tmp_path), "is not a file")
    one_line(run(tmp_path), "is a folder")
    lines = studied.read_bytes().splitlines(keepends=True)
    damaged = {
        "text": b"no journal\n" * 9,
        "png": bytes(range(256)) * 40,
        "middle": b"".join([*lines[:20], lines[20][:30], *lines[21:]]), # a trial
        "result": b"".join([*lines[:21], lines[21][:30], *lines[22:]]),
        "type": b"".join([*lines[:20], b"[]\n", *lines[20:]]),
        "field": b"".join([*lines[:20], b'{"op_code":6}\n', *lines[20:]]),
    }
    for name, content in damaged.items():
        path = tmp_path / name
        path.write_bytes(content)
        one_line(run(path), "damaged")
        assert path.read_bytes() == content
    cut = tmp_path / "cut"
    cut.write_bytes(b"".join(lines[:-1]) + lines[-1][:20]) # while the last trial, evaluated, ended
    assert "0 trials by this process, 40 of 40" in run(cut).stdout
    assert history(cut) == history(studied)
    cut.write_bytes(b"".join(lines[:-2]) + lines[-2][:20]) # before its result was written
    assert "1 trials by this process, 40 of 40" in run(cut).stdout
    assert history(cut) == history(studied)
    one_line(inside("search", "show", "--study", "grpc://nowhere"), "write grpc://host:port")
    one_line(inside("search", "show", "--study", "postgres9://x"), "is no storage")
    wrong = tmp_path / "x.txt"
    one_line(inside("search", "export", "--study", studied, "--output", wrong), "must end in .json")
    one_line(inside("search", "export", "--study", studied, "--trial", 99), "no finished trial 99")


def test_an_impossible_block_in_a_spec_is_one_line(inside, studied, tmp_path):
    found = tmp_path / "found.json"
    inside("search", "export", "--study", studied, "--output", found)
    plain = json.loads(found.read_text())
    plain["blocks"][3] |= dict(kind="fused_grouped", group_size=48, expand=5)
    found.write_text(json.dumps(plain))
    for command in (("info",), ("latency",), ("benchmark",)):
        one_line(inside(*command, found), "found.json is no spec", "group size 48")


def test_a_database_is_a_study_as_well(studied, tmp_path):
    "What PostgreSQL would be, on SQLite."
    from edgetpu_repro.search.evaluators import toy
    from edgetpu_repro.search.study import SearchSettings, create_study, open_study, work
    address = f"sqlite:///{tmp_path}/study.db"
    work(create_study(address, SearchSettings(target_ms=0.85, trials=40, seed=3)), toy, most=3)
    assert open_study(address).history() == history(studied)[:3]


@pytest.mark.quick
def test_reinforce_is_no_worse_for_the_unlikely():
    "Batches of one reward change nothing: no division by a vanishing deviation."
    from edgetpu_repro.search.controllers import Reinforce
    controller = Reinforce(get_space("v2_gc"), seed=1)
    before = controller.probabilities()
    for number in range(24): controller.tell(controller.ask(number), (0.5,))
    assert np.allclose(controller.probabilities(), before, atol=0.02)


def test_a_plan_is_what_the_profile_says():
    from edgetpu_repro.search.plans import planned_studies
    studies = planned_studies("default")
    assert studies["longer"].changes[-1] == "epochs=8"
    assert studies["without"].space == "v2_plain"
    assert planned_studies("smoke")["1.05ms"].target_ms == 1.05
    assert set(planned_studies("cifar10")) == {"random", "evolution"} # nothing is trained longer
    joint = planned_studies("joint")
    assert (joint["evolution"].space, joint["without"].space) == ("autoseg_joint", "autoseg_body")


@pytest.mark.quick
@pytest.mark.parametrize("budget", [10, 20, 32, 64, 150, 500])
def test_a_budget_lets_evolution_evolve(budget):
    "Most proposals are children of the population: a few changes from a parent, not new chance."
    from edgetpu_repro.search.controllers import Evolution, population_size
    space = get_space("v2_gc")
    evolution, known, children = Evolution(space, seed=1, budget=budget), [], 0
    assert evolution.size == population_size(budget) <= max(2, budget // 4)
    for number in range(budget):
        dna = evolution.ask(number)
        nearest = min((sum(a != b for a, b in zip(dna, other)) for other in known), default=99)
        children += nearest <= 2
        known.append(dna)
        evolution.tell(dna, (float(number % 7),))
    assert children >= 0.7 * budget


@pytest.mark.quick
def test_every_plan_lets_evolution_evolve_and_keeps_test_images_for_the_end():
    from edgetpu_repro.core.settings import list_profiles, load_profile
    from edgetpu_repro.search.controllers import population_size
    from edgetpu_repro.search.plans import planned_studies
    plans = [name for name in list_profiles() if load_profile(name).search]
    assert plans
    for name in plans:
        for settings in planned_studies(name).values():
            assert settings.judged == "validation"
            if settings.controller == "evolution":
                assert population_size(settings.trials) <= settings.trials / 4


def test_validation_images_are_neither_trained_on_nor_tested(tmp_path):
    "The last of the train split, where nothing is trained; finalists see the test's."
    from edgetpu_repro.core.settings import DataSettings
    from edgetpu_repro.data.datasets import open_dataset
    from edgetpu_repro.search.evaluators import with_validation
    data = DataSettings(image_size=32)
    whole = open_dataset(data).sizes["train"]
    found = with_validation(data)
    kept = int(found.test_split[len("train[-"):-2])
    assert found.train_images + kept == whole
    few = with_validation(replace(data, train_images=64, test_images=16))
    assert (few.train_images, few.test_split) == (64, "train[-16:]")
    first = [image.mean() for image, _ in pairs(open_dataset(found), "test", 4)]
    last = [image.mean() for image, _ in pairs(open_dataset(data), "train", whole)][-kept:][:4]
    assert first == last


def pairs(dataset, split, count):
    "The first images of a split with their labels."
    from edgetpu_repro.tasks.base import TASKS
    import numpy as np
    samples = TASKS["classification"].samples(dataset, split, count)
    return [(np.asarray(x), y) for x, y in samples]
