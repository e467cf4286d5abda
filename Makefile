# Every target sets up what it needs; Python 3.11 or newer and make are enough.

PYTHON ?= python3
# Further options for pip, for example PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
# Tests run two at a time, each process with S3 servers of its own. Next to them run those on one Ray, and then those on
# clusters of several nodes, one after the other and before all else: more at once take more of the processors in all.
PARALLEL := not ray and not multinode
# Each process begins with one half of the list, so that what the tests of a file share is mostly made once.
TWO := -n 2 --dist worksteal
# Only the files with such tests: to collect all tests takes 15 seconds.
FILES_WITH = $$(grep -rl --include='test_*.py' $(2) 'pytest\.mark\.$(1)\b' tests | sort)
# Without this variable in the environment, hundreds of processes would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE
# Tests are to take 15 minutes: each part says what took longest.
SLOWEST := --durations 10
# Simulated schedules of a soak; 2 processors take about 4 hours for a million.
SOAK_SEEDS ?= 1000000
ROOMS := storage shards coordinator cluster deploy tests

.DEFAULT_GOAL := help
.PHONY: help venv demo test parallel clusters ray multinode lint mypy pyright contracts check coverage soak bench hashes clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

venv: $(STAMP) ## create .venv with everything, once

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: run 'make $(MAKECMDGOALS) PYTHON=python3.11'" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv ## tell the whole story on real data: train, predict, erase, prove
	$(BIN)/sisa demo

test: venv ## run all tests
	@echo "Two parts run at once; each prints its results when it ends."
	$(MAKE) --no-print-directory -j 2 --output-sync=target clusters parallel

parallel: venv ## run the tests without Ray, behind whatever else runs
	nice -n 10 $(BIN)/python -m pytest -q $(TWO) $(SLOWEST) -m "$(PARALLEL)"

clusters: venv ## run the tests on one Ray, and then those on several nodes
	@failed=; for part in ray multinode; do $(MAKE) --no-print-directory $$part || failed=yes; done; test -z "$$failed"

ray: venv ## run the tests on one Ray
	$(BIN)/python -m pytest -q $(SLOWEST) -m ray $(call FILES_WITH,ray)

multinode: venv ## lose nodes, heads and coordinators of a Ray cluster of several nodes on this machine
	$(BIN)/python -m pytest -q $(SLOWEST) -m multinode $(call FILES_WITH,multinode,--exclude-dir=one_cluster)
	$(BIN)/python -m pytest -q $(SLOWEST) tests/sites/one_cluster

lint: venv ## style, format, types, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(MAKE) --no-print-directory -j 2 --output-sync=target mypy pyright contracts

mypy: venv
	$(BIN)/mypy

pyright: venv
	$(BIN)/pyright

contracts: venv
	$(BIN)/lint-imports --no-logo

check: lint coverage ## lint, coverage of the coordinator, and the fast tests
	$(BIN)/python -m pytest -q $(TWO) -m "not slow and not s3 and $(PARALLEL)"

coverage: venv ## how much of the coordinator's decisions its own tests reach; fails below today's figure
	$(BIN)/python -m coverage run --source=coordinator -m pytest -q -m "not slow and not s3" tests/coordinator
	$(BIN)/python -m coverage report --skip-covered --fail-under 92

soak: venv ## all cases of which 'make test' runs a spread, a million schedules, a thousand kills; 'make soak SOAK_SEEDS=50000' for fewer
	SISA_VOLUME=all $(BIN)/python -m pytest -q $(TWO) -m volume --timeout 3600
	$(BIN)/python -m tests.simulation --soak $(SOAK_SEEDS)
	$(BIN)/python -m tests.kills 1000 500

bench: venv ## measure training, erasing, ingest, serving, sites, names, plans and what grows with shards, each beside a yardstick
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.serving
	$(BIN)/python -m tests.bench.sites
	$(BIN)/python -m tests.bench.names
	$(BIN)/python -m tests.bench.training
	$(BIN)/python -m tests.bench.erasure
	$(BIN)/python -m tests.bench.erasure.niceness
	$(BIN)/python -m tests.bench.ingest
	$(BIN)/python -m tests.bench.plan
	$(BIN)/python -m tests.bench.scale

# Hashes of all files of each release, for the Python of the image. The CPU build of torch has an index of its own, and
# its hashes are in a file that is written by hand.
HASHES := uv pip compile --quiet --generate-hashes --no-annotate --no-header --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 -c constraints.txt
CUDA := ^(torch|triton|cuda-|nvidia-)

hashes: venv ## write the versions and hashes that the container image installs; after a change of constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	printf 'torch\n' | $(BIN)/$(HASHES) - -o deploy/container/requirements/torch-cuda.txt
	printf 'setuptools\n' | $(BIN)/$(HASHES) - -o deploy/container/requirements/build.txt
	$(BIN)/$(HASHES) pyproject.toml --extra serve -o deploy/container/requirements/serve.txt \
		$$(sed -nE 's/$(CUDA)([^=]*)==.*/--no-emit-package \1\2/p' deploy/container/requirements/torch-cuda.txt)

clean: ## remove .venv, caches and build leftovers; no federation is touched
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find $(ROOMS) -name __pycache__ -type d -prune -exec rm -rf {} +
