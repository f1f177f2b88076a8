# Both commands of the README work from a bare clone; each installs what it needs into .venv, and no more.
PYTHON ?= python3
OLDEST_PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint unit docs linkcheck conformance oldest ecosystem dist bench clean

%/bin/python:
	$(PYTHON) -m venv $*
	$@ -m pip install --quiet --upgrade pip

.SECONDEXPANSION:  # the stamp of an extra lies in its environment
.venv/demo .venv/test .venv/docs .venv-ecosystem/ecosystem: pyproject.toml | $$(@D)/bin/python
	$(@D)/bin/python -m pip install --quiet --editable '.[$(@F)]'
	touch $@

# Threads that spin while they wait take the cores from each other where other programs run: 3 images/s in place of 8.
demo: .venv/demo
	OMP_WAIT_POLICY=PASSIVE $(BIN)/timm-assemble demo

test: .venv/test  ## the checks beside the tests
	$(MAKE) --jobs 2 lint unit

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

unit: .venv/test
	$(BIN)/python -m pytest

docs: .venv/docs  ## the documentation, with its notebook run, into build/site
	$(BIN)/sphinx-build -W --keep-going -c docs/site -d build/doctrees . build/site

linkcheck: .venv/docs  ## links of the documentation to other sites
	$(BIN)/sphinx-build -c docs/site -d build/linkcheck/doctrees -b linkcheck -D nb_execution_mode=off . build/linkcheck

conformance: .venv/test  ## timm's own model tests on these models, with the oldest supported timm and the newest
	$(BIN)/python -m tests.conformance.run

ecosystem: .venv-ecosystem/ecosystem  ## libraries that take timm's models, on these models, into docs/ecosystem.md
	.venv-ecosystem/bin/python -m pytest tests/ecosystem --timeout 900 --report docs/ecosystem.json; \
		status=$$?; .venv-ecosystem/bin/python -m docs.tables ecosystem && exit $$status  # the page shows failures too

dist: .venv-dist/bin/python  ## a wheel and a source distribution, checked, and the wheel tried in an empty environment
	rm -rf dist build/lib .venv-wheel
	.venv-dist/bin/python -m pip install --quiet build twine
	.venv-dist/bin/python -m build
	.venv-dist/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet "$$(echo dist/*.whl)[demo]"
	cd dist && ../.venv-wheel/bin/timm-assemble --version
	cd dist && ../.venv-wheel/bin/timm-assemble demo --model test_assemble_resnet --epochs 1 --output ../build/tried

oldest: .venv-oldest/test  ## the tests on the oldest supported versions
	.venv-oldest/bin/python -m pytest

.venv-oldest/test: pyproject.toml tests/oldest.txt
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable '.[test]'
	touch $@

bench: .venv/test  ## the short form of every benchmark, into bench-output/
	$(BIN)/python -m benchmarks.all --short

clean:
	rm -rf .venv .venv-* .conformance build dist
