# make demo   measure a small network on sklearn's digits; leaves a report, a PNG and a JSON
# make test   the whole test suite
# make fuzz   the randomised tests on other and on more examples than `make test`
# make check  lint and types; links and names in the docs are held by tests
# make docs   the documentation as a site in site/; a broken link or anchor is an error
# make torch TORCH=2.14.1  the core of the suite on another torch, in an environment of its own
# make torches             the same on the oldest torch that is supported, and on the newest
# make package  wheel and source distribution in dist/, checked and tried in fresh environments
# make pythons  the wheel on the oldest and the newest Python, with a torch of their own (6 GB each; not in CI)
# make zoo    models of real packages held to autograd, in an environment of its own (8 GB; not in CI);
#             writes the table of docs/models.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := out
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# `make test` has the torch of constraints.txt. The oldest is the bound in pyproject.toml.
TORCH_OLDEST := 2.5.1
TORCH_NEWEST := 2.14.1
TORCH ?= $(TORCH_NEWEST)
CORE_VENV := .venv-torch-$(TORCH)
CORE := tests/per_sample tests/operators tests/profiles tests/problem/state/test_guard.py \
	tests/problem/state/test_checkpoints.py tests/problem/state/test_generators.py \
	tests/whole/test_torch_names.py
# what needs packages that have nothing to do with torch
CORE += $(addprefix --ignore=tests/profiles/,test_page.py test_charts.py test_file.py test_flat.py)
# by name: tests that need backpack-for-pytorch or transformers, which are not installed there
NOT_CORE := backpack or bert or hugging_face

# The oldest is the bound in pyproject.toml. One that is not found is not tried, which is said.
PYTHON_OLDEST ?= python3.10
PYTHON_NEWEST ?= python3.13
BUILD_VENV := .venv-build
DIST := dist

ZOO_VENV := .venv-zoo

.PHONY: demo test fuzz check docs coverage torch torches torch-oldest torch-newest package pythons zoo clean

demo: $(VENV)/.demo
	@mkdir -p $(OUT)
	$(BIN)/gradnoise profile digits --advise 40 --html $(OUT)/digits.html \
		--json $(OUT)/digits.json --plot $(OUT)/digits.png

# tests of one file stay in one process, so that they share what they build
test: $(VENV)/.browser
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

fuzz: $(VENV)/.test
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz tests

check: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the variable: a notice about other generators, which is not about this site
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

coverage: $(VENV)/.test
	$(BIN)/python benchmarks/coverage.py

torch: $(CORE_VENV)/.core
	$(CORE_VENV)/bin/python -m pytest -p no:cacheprovider -k "not ($(NOT_CORE))" $(CORE)

torches: torch-oldest torch-newest

torch-oldest:
	$(MAKE) torch TORCH=$(TORCH_OLDEST)

torch-newest:
	$(MAKE) torch TORCH=$(TORCH_NEWEST)

# the package itself is not installed: two such environments may be made at the same time
$(CORE_VENV)/.core: constraints.txt
	$(PYTHON) -m venv $(CORE_VENV)
	grep -v '^torch==' constraints.txt > $(CORE_VENV)/constraints.txt
	$(CORE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(CORE_VENV)/constraints.txt \
		torch==$(TORCH) numpy scipy rich lazy_loader matplotlib pytest hypothesis
	@touch $@

package: $(VENV)/.lint $(BUILD_VENV)/.build
	rm -rf $(DIST)
	$(BUILD_VENV)/bin/python -m build --outdir $(DIST) . > $(BUILD_VENV)/log 2>&1 || { cat $(BUILD_VENV)/log; false; }
	$(BUILD_VENV)/bin/twine check --strict $(DIST)/*
	$(BIN)/python scripts/try_package.py $(DIST) $(PYTHON_OLDEST) $(PYTHON_NEWEST)

pythons: package
	$(BIN)/python scripts/try_package.py $(DIST) $(PYTHON_OLDEST) $(PYTHON_NEWEST) --with-torch

$(BUILD_VENV)/.build: constraints.txt
	$(PYTHON) -m venv $(BUILD_VENV)
	$(BUILD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt build twine
	@touch $@

# which ones: make zoo ZOO='-k timm'
zoo: $(ZOO_VENV)/.zoo
	$(ZOO_VENV)/bin/python -m pytest -p no:cacheprovider $(ZOO) zoo
	$(ZOO_VENV)/bin/python -m zoo.table

$(ZOO_VENV)/.zoo: zoo/requirements.txt
	$(PYTHON) -m venv $(ZOO_VENV)
	$(ZOO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement zoo/requirements.txt
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt scripts/mend_torchvision.py | $(VENV)/bin/python
	$(PIP) --editable '.[plot,digits,html]'
	$(BIN)/python scripts/mend_torchvision.py
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt scripts/mend_torchvision.py | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	$(BIN)/python scripts/mend_torchvision.py
	@touch $@

$(VENV)/.browser: $(VENV)/.test
	$(BIN)/python -m tests.browser
	@touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(VENV)/.test
	$(PIP) --editable '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-torch-* $(BUILD_VENV) $(ZOO_VENV) $(DIST) $(OUT) site zoo/out
