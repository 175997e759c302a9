"The architecture search: spaces, rewards, controllers, the study, and the command."
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, call

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
    assert replace(found, name=name, family=published.family, backbone=published.backbone) == published
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
    ("v2_plain", "mobilenet_edgetpu_v2_xs", "no decision of the space gives Block(kind='fused_grouped'"),
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
