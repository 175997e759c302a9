"What `pip install .` gives: the modules, the command, and only what the library needs at run time."

import zipfile

from conftest import BIN, ROOT, call


def test_wheel(tmp_path):
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    result = call(BIN / "python", "-m", "pip", "wheel", *options, ROOT)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("edgetpu_repro-*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        text = lambda end: files.read(next(n for n in names if n.endswith(end))).decode()
        modules = {str(p.relative_to(ROOT)) for p in (ROOT / "edgetpu_repro").rglob("*.py")}
        assert modules <= set(names)
        assert not [n for n in names if n.startswith(("nbs", "tests", "results"))]
        profiles = {f"edgetpu_repro/config/{p.name}" for p in (ROOT / "config").glob("*.yaml")}
        assert profiles <= set(names)
        assert "edgetpu-repro = edgetpu_repro.cli.main:main" in text("entry_points.txt")
        needed = {
            line.split(":")[1].strip()
            for line in text("METADATA").splitlines()
            if line.startswith("Requires-Dist") and "extra ==" not in line
        }
    assert not [r for r in needed if r.startswith(("nbdev", "papermill", "snakemake", "jupyter"))]
    assert any(r.startswith("tensorflow") for r in needed)


def test_the_lock_pins_everything_with_hashes():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==")[0] for line in lines if line and line[0] not in " #"]
    assert all("==" in line for line in lines if line and line[0] not in " #")
    needed = "tensorflow keras snakemake papermill jupyterlab nbdev ruff pytest".split()
    assert set(needed) <= set(pins)
    assert sum("--hash=sha256" in line for line in lines) >= len(pins)
