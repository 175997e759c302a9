# make reproduce · make check · make test · make lab · make export. Everything else is in the README.
# Any of these Pythons: the first that is there and can make a virtual environment, or PYTHON=...
VERSIONS := 3.11 3.12 3.13
USABLE := import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] not in '$(VERSIONS)'.split())
PYTHON ?= $(shell for p in $(VERSIONS:%=python%) python3; do \
	$$p -c "$(USABLE)" 2> /dev/null && echo $$p && break; done)
PROFILE ?= default
ON_EACH ?= tests/test_layering.py tests/test_models.py tests/test_registry.py tests/test_latency.py \
	tests/test_search.py tests/test_cli.py tests/test_robustness.py
# Where the environment lies; another one, e.g.: make check VENV=build/python3.13 PYTHON=python3.13
VENV ?= .venv
# By xdist itself, files with most tests come first; conftest.py puts those that take longest there.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: reproduce search check quick mutations test test-cluster test-pythons on-each lab export lock outputs docs
.DELETE_ON_ERROR:

reproduce: $(VENV)/installed            ## run the workflow: records, tables, figures, report
	edgetpu-repro reproduce --profile $(PROFILE)
	@echo "report: build/$(PROFILE)/report.html"

search: $(VENV)/installed               ## an hour on two cores: architectures at V2-XS's latency, trained briefly
	edgetpu-repro reproduce --profile $(PROFILE) --step search

check: $(VENV)/installed                ## the inner loop, under a minute: lint, layering, export in sync, quick tests
	ruff check .
	python -m pytest -m quick

quick: $(VENV)/installed                ## half a minute of a room's notebooks and tests: make quick ROOM=tflite
	@python tools/quick.py $(ROOM)

mutations: $(VENV)/installed            ## small faults in all rooms, one at a time: does a test find each?
	python tools/mutations.py

test: $(VENV)/installed                 ## everything that CI checks; one process a core, the dataset made before
	python -c "from edgetpu_repro.data.datasets import dataset_builder; dataset_builder(data_dir='build/data')"
	python -m pytest $(PARALLEL)

# Beside `make test`, too: it notes its seconds elsewhere and keeps no cache.
test-cluster: $(VENV)/installed         ## on a Slurm of two virtual nodes, started here; skipped without Slurm
	EDGETPU_REPRO_SECONDS=seconds-cluster python -m pytest -p no:cacheprovider tests/cluster -rs

test-pythons:                         ## the tests of ON_EACH on each Python that is here, each with an environment
	@for version in $(VERSIONS); do \
		python$$version -c "$(USABLE)" 2> /dev/null || { echo "no Python $$version: skipped"; continue; }; \
		echo "Python $$version"; \
		$(MAKE) --no-print-directory on-each VENV=build/python$$version PYTHON=python$$version || exit 1; \
	done

on-each: $(VENV)/installed
	python -m pytest $(PARALLEL) $(ON_EACH)

lab: $(VENV)/installed                  ## JupyterLab on the notebooks
	jupyter lab --notebook-dir nbs $(if $(filter 0,$(shell id -u)),--allow-root)

docs: $(VENV)/installed                 ## the documentation's site in _site/, to be opened from disk
	python tools/documentation.py

export: $(VENV)/installed               ## after editing notebooks: package, README, clean metadata
	python tools/publish.py
	python tools/generated.py

outputs: $(VENV)/installed              ## the same, with the outputs of the last make reproduce and of the library notebooks
	python tools/publish.py --execute --take
	python tools/generated.py

$(VENV)/installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(or $(PYTHON),false) -c "$(USABLE)" 2> /dev/null || { \
		echo "no Python to make $(VENV) with: one of $(VERSIONS) is needed, with its venv" \
		"(Debian: apt-get install python3-venv), on PATH or as make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Two packages have no wheel of any kind; both are plain Python.
PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin
BINARY := --only-binary :all: --no-binary connection-pool --no-binary promise

lock:                                 ## resolve requirements.lock anew; everything has a wheel everywhere
	uv pip compile --quiet --generate-hashes --universal --all-extras --python-version 3.11 \
		--no-emit-index-url pyproject.toml -o requirements.lock
	for version in $(VERSIONS); do for platform in $(PLATFORMS); do \
		uv pip compile --quiet $(BINARY) --python-version $$version --python-platform $$platform \
			requirements.lock -o build/lock.txt || exit 1; done; done
