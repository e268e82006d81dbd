# make demo   measure a small network on sklearn's digits; leaves a report, a PNG and a JSON
# make test   the whole test suite
# make fuzz   the randomised tests on other and on more examples than `make test`
# make check  lint and types; links and names in the docs are held by tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := out
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test fuzz check coverage clean

demo: $(VENV)/.demo
	@mkdir -p $(OUT)
	$(BIN)/gradnoise profile digits --json $(OUT)/digits.json --plot $(OUT)/digits.png

test: $(VENV)/.test
	$(BIN)/python -m pytest

fuzz: $(VENV)/.test
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz tests

check: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(VENV)/.test
	$(BIN)/python benchmarks/coverage.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt scripts/mend_torchvision.py | $(VENV)/bin/python
	$(PIP) --editable '.[plot,digits]'
	$(BIN)/python scripts/mend_torchvision.py
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt scripts/mend_torchvision.py | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	$(BIN)/python scripts/mend_torchvision.py
	@touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(VENV)/.test
	$(PIP) --editable '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) $(OUT)
