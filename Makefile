# Needs Python (>= 3.11) with pip, and make. Everything is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

PY := $(VENV)/bin/python
# Pinned versions for the Python in $(VENV), where there are any.
define install
	@pins="constraints/py$$($(PY) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt"; \
	if [ -f "$$pins" ]; then set -- -c "$$pins"; \
	else echo "No $$pins for $$($(PY) --version): installing unpinned versions."; set --; fi; \
	echo "Installing $(1) into $(VENV)"; \
	$(PY) -m pip install --quiet --disable-pip-version-check "$$@" -e "$(1)"
endef

.DEFAULT_GOAL := help
.PHONY: help demo demo-potential demo-diffusivity bench bench-quick test test-slow lint format notebooks docs docs-test clean

help:  ## list the targets
	@echo "Targets (VENV=$(VENV), PYTHON=$(PYTHON)):"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

demo: $(VENV)/.base  ## run experiments/methanol_potential and a short experiments/methane_diffusivity, side by side
	@$(MAKE) --no-print-directory -j2 demo-potential demo-diffusivity
	@tail -n 12 runs/methanol.log

# One core trains while the other does most of the dynamics.
demo-potential: $(VENV)/.base
	@mkdir -p runs; echo "Methanol: progress in runs/methanol.log"
	@$(PY) experiments/methanol_potential/run.py > runs/methanol.log 2>&1 || { cat runs/methanol.log; exit 1; }

demo-diffusivity: $(VENV)/.base
	$(PY) experiments/methane_diffusivity/run.py --short

bench: $(VENV)/.bench  ## speed beside LAMMPS and jax-md; takes long
	$(PY) experiments/benchmarks/run.py
	$(PY) experiments/benchmarks/networks.py
	$(PY) experiments/benchmarks/reversal.py

bench-quick: $(VENV)/.bench  ## the same in a few minutes, with more noise
	$(PY) experiments/benchmarks/run.py --quick --out runs/benchmarks-quick

# Most of the time goes into tracing and compiling programs that run once, so the compiler optimises little
# (`make test-slow` optimises as users do), and a worker gets tests that stand together, with their fixtures.
test: $(VENV)/.dev  ## quick test suite
	XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)" $(PY) -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(VENV)/.dev  ## long physics checks
	$(PY) -m pytest -m slow

lint: $(VENV)/.dev  ## ruff and mypy
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy difmd

format: $(VENV)/.dev  ## reformat, and fix what ruff can fix
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

notebooks: $(VENV)/.dev  ## execute every notebook, leaving the files as they are
	@for notebook in $(wildcard notebooks/*.ipynb); do \
		$(VENV)/bin/jupyter execute --kernel_name=python3 "$$notebook" || exit 1; \
	done

docs: $(VENV)/.docs  ## build the documentation in docs/_build/html; warnings are errors
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html

docs-test: $(VENV)/.dev  ## execute the code of README and documentation
	$(PY) -m pytest -m slow -n $(WORKERS) tests/test_readme.py tests/test_docs.py

clean:  ## remove caches and build outputs; keeps $(VENV) and runs/
	rm -rf build dist docs/_build docs/reference docs/notebooks docs/experiments docs/contributing.md docs/changelog.md .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path './.*' -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} +

$(PY):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml $(wildcard constraints/*.txt) | $(PY)
	$(call install,.)
	@touch $@

$(VENV)/.dev: pyproject.toml $(wildcard constraints/*.txt) | $(PY)
	$(call install,.[dev])
	@touch $(VENV)/.base $@

$(VENV)/.bench: pyproject.toml $(wildcard constraints/*.txt) | $(PY)
	$(call install,.[bench])
	@touch $(VENV)/.base $@

$(VENV)/.docs: pyproject.toml $(wildcard constraints/*.txt) | $(PY)
	$(call install,.[docs])
	@touch $(VENV)/.base $@
