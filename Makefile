# Everything here works in .venv, which is made when it is missing and renewed when it is out of date.

PYTHON ?= python3.11
VENV := .venv
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
WORKERS := -n logical --dist loadgroup
# The workers take all cores, and more threads would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo kernels quick test torture wheel versions atlas experiments-pages docs bench sanitize clean

demo: $(INSTALLED)  ## Audit LeNet-5 on real handwritten digits. Installs what that needs; compiles nothing.
	$(VENV)/bin/kinkcheck audit lenet5 --data mnist-sample --precision 16 --precision bfloat16 --precision 32 --precision 64

kernels: $(INSTALLED)  ## Compile the fast kernels for this machine; some 2 minutes.
	$(VENV)/bin/pip install --editable '.[data,sample]'
	$(VENV)/bin/kinkcheck doctor

quick: $(READY)  ## Lint, types and the tests that are not slow: some 5 minutes on two cores.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST) $(WORKERS) -m "not slow and not torture"

test: quick  ## That, then the slow tests: the whole suite, some 20 minutes on two cores.
	$(PYTEST) $(WORKERS) -m slow

torture: $(READY)  ## Kills, torn writes, full disks, damage and Ctrl-C by the hundred: takes long; prints its figures.
	$(PYTEST) -m torture -o faulthandler_timeout=0

wheel:  ## The package for this platform with its compiled kernels, into dist, tried in an environment of its own.
	PYTHON=$(PYTHON) sh tools/wheel.sh
	PYTHON=$(PYTHON) sh tools/wheel.sh test

versions:  ## The core tests under several versions of PyTorch, in environments made for it and removed.
	PYTHON=$(PYTHON) sh tools/versions.sh $(WORKERS)

atlas:  ## What every framework returns at kinks, measured again, in environments made for it and removed.
	PYTHON=$(PYTHON) sh tools/atlas.sh

experiments-pages: $(READY)  ## Tables and figures of docs/experiments from its stored runs; RUNS=DIR stores those of DIR first.
	$(VENV)/bin/python tools/experiments_pages.py $(RUNS)

docs: export NO_MKDOCS_2_WARNING := 1  # the theme's own switch for its notice
docs: $(READY)  ## The site, into build/site; a warning is an error.
	$(VENV)/bin/python -m mkdocs build --strict

bench: $(READY)  ## Measure speed, as ratios in one run.
	$(VENV)/bin/python benchmarks/max_pool.py --grid
	$(VENV)/bin/python benchmarks/networks.py
	$(VENV)/bin/python benchmarks/operations.py
	$(VENV)/bin/python benchmarks/audit.py
	$(VENV)/bin/python benchmarks/study.py

sanitize: $(READY)  ## The kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer.
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH PYTHON=$(VENV)/bin/python sh tools/sanitize.sh $(WORKERS)

clean:
	rm -rf $(VENV) build dist

# What it takes to run. torch goes first: the pin keeps pip from choosing a build with gigabytes of
# CUDA packages. Without the compiler (wheel.cmake) the kernels are the reference ones.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on PATH; set PYTHON=..." >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install torch
	$(VENV)/bin/pip install --editable '.[data,sample]' --config-settings=wheel.cmake=false
	touch $@

# What it takes to develop, with compiled kernels.
$(READY): $(INSTALLED) CMakeLists.txt $(wildcard src/kinkcheck/kernels/cpu/*.?pp)
	$(VENV)/bin/pip install --quiet --editable '.[data,sample,dev]'
	touch $@
