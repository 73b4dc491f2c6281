# Everything here works in .venv, which is made when it is missing and renewed when it is out of date.

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
WORKERS := -n logical --dist loadgroup
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo quick test versions atlas docs bench sanitize clean

demo: $(READY)  ## Audit LeNet-5 on real handwritten digits.
	$(VENV)/bin/kinkcheck audit lenet5 --data mnist-sample --precision 16 --precision bfloat16 --precision 32 --precision 64

quick: $(READY)  ## Lint, types and the tests that are not slow: some 3 minutes on two cores.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -q $(WORKERS) -m "not slow"

test: quick  ## That, then the slow tests: the whole suite, under 12 minutes on two cores.
	$(VENV)/bin/pytest -q $(WORKERS) -m slow

versions:  ## The core tests under several versions of PyTorch, in environments made for it and removed.
	PYTHON=$(PYTHON) sh tools/versions.sh $(WORKERS)

atlas:  ## What every framework returns at kinks, measured again, in environments made for it and removed.
	PYTHON=$(PYTHON) sh tools/atlas.sh

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
	rm -rf $(VENV) build

# torch goes first: the pin keeps pip from choosing a build with gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/kinkcheck/kernels/cpu/*.?pp)
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on PATH; set PYTHON=..." >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet torch
	$(VENV)/bin/pip install --quiet --editable '.[data,sample,dev]'
	touch $@
