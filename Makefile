# Both commands of the README work from a bare clone; each installs what it needs into .venv, and no more.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test conformance bench clean

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/%: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# Threads that spin while they wait take the cores from each other where other programs run: 3 images/s in place of 8.
demo: .venv/demo
	OMP_WAIT_POLICY=PASSIVE $(BIN)/timm-assemble demo

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

conformance: .venv/test  ## timm's own model tests on these models, with the oldest supported timm and the newest
	$(BIN)/python -m tests.conformance.run

bench: .venv/test  ## the short form of every benchmark, into bench-output/
	$(BIN)/python -m benchmarks.all --short

clean:
	rm -rf .venv .conformance
