# Needs make and Python 3.11 or newer; everything else comes into .venv. Another Python: make test PYTHON=python3.12
PYTHON ?= python3
PYTEST ?= -q -n auto --dist loadfile
BIN := .venv/bin
PIP := --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
RUN := runs/lung
# Tools and platforms with an environment of their own each, .venv-NAME, that the tests need: tools/NAME-requirements.txt
OTHERS := crate flare flwr134 sacro substra workflow

.PHONY: help demo test check docs bench clean environments others
.DEFAULT_GOAL := help

help:
	@echo "make demo    a federated survival analysis over five sites, beside the pooled fit  (about 2 minutes)"
	@echo "make test    all tests"
	@echo "make check   style, types and the layers of imports"
	@echo "make docs    the documentation, into site-docs/"
	@echo "make bench   all benchmarks; rewrites the table of docs/benchmarks.md"
	@echo "make clean   remove the environments and what the demo wrote"

demo: .venv/made-for-demo
	@$(BIN)/python -m examples.prepare lung $(RUN)
	@$(BIN)/fivefold run $(RUN)/study.yaml
	@$(BIN)/python -m examples.compare $(RUN)
	@$(BIN)/python -m examples.release $(RUN)

test: environments
	$(BIN)/python -m pytest $(PYTEST)

check: .venv/made-for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples benchmarks
	$(BIN)/lint-imports

docs: .venv/made-for-test
	$(BIN)/mkdocs build --strict

bench: .venv/made-for-test
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-* site-docs $(RUN)

# ---- environments ----
.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Fivefold needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/made-for-demo: .venv/made pyproject.toml constraints.txt
	@echo "Installing Fivefold and lifelines into .venv"
	@$(BIN)/pip install $(PIP) --editable '.[demo]'
	@touch $@

.venv/made-for-test: .venv/made pyproject.toml constraints.txt
	@echo "Installing Fivefold and what its tests need into .venv"
	@$(BIN)/pip install $(PIP) --editable '.[test,flower,docs]'
	@touch $@ .venv/made-for-demo

# All that the tests need, side by side: most of the time is spent waiting for a network or a disk.
environments: .venv/made
	@$(MAKE) --no-print-directory -j2 .venv/made-for-test others

others: $(OTHERS:%=.venv-%/requirements.txt)

.venv-%/requirements.txt: tools/%-requirements.txt tools/make_env.sh .venv/made
	@PYTHON=$(BIN)/python sh tools/make_env.sh $*
	@touch $@
