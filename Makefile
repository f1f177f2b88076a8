# The two commands of the README are `make demo` and `make test`; both work from a bare clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test conformance bench clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# Threads that spin while they wait take the cores from each other where other programs run: 3 images/s in place of 8.
demo: .venv/installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/timm-assemble demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg
	$(BIN)/python -m pytest

conformance: .venv/installed  ## timm's own test-suite on our models, with the oldest timm we take and the newest
	$(BIN)/python -m tests.conformance.run

bench: .venv/installed  ## a short form of every benchmark, into bench-output/
	$(BIN)/python -m benchmarks.all --short

clean:
	rm -rf .venv .conformance
