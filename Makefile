# Each target does all the set-up it needs. PYTHON chooses the interpreter that makes the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# One thread a worker: two busy pools on two cores slow each other down several times over.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Tests start many processes, each of which would compile vipack's modules anew where the environment forbids to keep them.
TESTING := $(ONE_THREAD) PYTHONDONTWRITEBYTECODE=

.PHONY: demo test test-pages test-slow lint format bench docs site site-check release release-tests clean

demo: $(VENV)/.ready-demo
	$(BIN)/vipack demo

test: $(VENV)/.ready-test $(VENV)/.ready-arviz1
	$(TESTING) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# The pages of documentation that train for long, which `make test` leaves out.
test-pages: $(VENV)/.ready-test
	$(TESTING) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow tests/test_docs.py

test-slow: $(VENV)/.ready-test
	$(TESTING) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready-bench
	$(BIN)/python -m benchmarks.engine steps auto cold growth memory restarts loops first uncaptured

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "vipack needs Python 3.11 or newer; try make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[topics,data,flows]"
	touch $@

$(VENV)/.ready-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[topics,data,flows,test]"
	touch $@

$(VENV)/.ready-bench: $(VENV)/.ready-test
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]"
	touch $@

# ArviZ 1.x lives in an environment of its own, without torch; the tests of the export run there too.
$(VENV)/.ready-arviz1: tests/export/arviz1_environment.sh | $(VENV)/bin/python
	sh tests/export/arviz1_environment.sh .venv-arviz1
	touch $@

# The pictures anew, and every block of code on every page.
docs: $(VENV)/.ready-test
	$(BIN)/python docs/images/make.py
	$(TESTING) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/test_docs.py

# The documentation as a site that needs no network, in build/site, with the tutorials executed. Its tools live apart.
site: $(VENV)-site/.ready
	$(VENV)-site/bin/python docs/site/notebooks.py docs/tutorials build/tutorials
	NO_MKDOCS_2_WARNING=1 $(VENV)-site/bin/mkdocs build
	@echo "open build/site/index.html"

# The site as its readers have it, in Chromium: search, widths of a phone, nothing from a network.
site-check: site $(VENV)/.ready-test
	$(TESTING) $(BIN)/python -m pytest -p no:xdist -m slow tests/site

$(VENV)-site/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-site
	$(VENV)-site/bin/python -m pip install -q -c constraints.txt -e ".[topics,data,flows,site]"
	touch $@

# Wheel and sdist, checked, and the wheel's demo from an environment of its own.
release: $(VENV)-release/.ready
	rm -rf dist build/release
	$(VENV)-release/bin/python -m build
	$(VENV)-release/bin/twine check --strict dist/*
	$(VENV)-release/bin/check-wheel-contents dist/*.whl
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install -q -c constraints.txt dist/*.whl
	cd build/release && bin/vipack --help > /dev/null && bin/vipack demo --quick --out demo-output

# The tests from the sdist as it will be downloaded, where no repository is around it.
release-tests: $(VENV)/.ready-test
	rm -rf build/sdist && mkdir -p build/sdist
	tar -xzf dist/*.tar.gz -C build/sdist --strip-components=1
	cd build/sdist && $(TESTING) PYTHONPATH=. $(CURDIR)/$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

$(VENV)-release/.ready: constraints.txt
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install -q -c constraints.txt build twine check-wheel-contents
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-site $(VENV)-release .venv-arviz1 demo-output build dist .mypy_cache .ruff_cache .pytest_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
