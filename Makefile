# Everything works from a fresh clone with Python >= 3.10 and make: each target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed

ARGS ?=
PAGE := outputs/report/index.html

.PHONY: help demo test lint docs reproduce figures study bench test-floors clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "Commands that show the properties of the paper's method (after make demo; source .venv/bin/activate):"
	@echo "  commexp +experiment=regtopk_linreg compress=regtopk compress.k=0.6   squared distance < 1e-12 at round 1000"
	@echo "  commexp +experiment=regtopk_linreg compress=topk compress.k=0.6      stagnates near 1e-2.8"
	@echo "  commexp +experiment=regtopk_toy compress=topk                        loss stagnates for 100 rounds"
	@echo "  commexp +experiment=regtopk_toy compress=regtopk                     loss < 0.06 at round 20"
	@echo "  commexp compress=none                                                digits, dense: accuracy >= 97 %"
	@echo "  commexp -m algo=topk,regtopk compress.k=0.1,0.01,0.001 seed=0,1,2    one table, two plots; runs nothing the second time"

$(SETUP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

demo: $(SETUP)  ## install, run the main experiment, print the paths of its tables and figures
	$(BIN)/commexp algo=regtopk compress.k=0.01

# where bytecode may not be written, every process that a test starts would compile all modules: a second each
test: $(SETUP)  ## install if necessary, run the tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(SETUP)  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(SETUP)  ## write docs/reference anew and build the documentation into outputs/docs/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d outputs/docs/.doctrees docs outputs/docs

reproduce: $(SETUP)  ## run and check the papers' claims: a table; fails if one that ran is not met
	$(BIN)/commexp-check claims $(ARGS)

figures: $(PAGE)  ## every figure, in outputs/figures, and a page of claims and results; reuses finished runs
	@echo $(PAGE)

# ARGS="--root a9a=FOLDER" sets a data folder; make -B figures rebuilds after new data have arrived
$(PAGE): $(SETUP) $(shell find commexp conf scripts -name '*.py' -o -name '*.yaml' -o -name '*.json')
	$(BIN)/python scripts/figures.py $(ARGS)

study: $(SETUP)  ## compare compressed-difference, local, low-communication, decentralised, coded and asynchronous methods: 205 minutes on two cores, into outputs/figures
	$(BIN)/python scripts/dppf_study.py --tune
	$(BIN)/python scripts/valley_study.py
	$(BIN)/python scripts/difference_study.py
	$(BIN)/python scripts/gossip_study.py
	$(BIN)/python scripts/coding_study.py
	$(BIN)/python scripts/async_study.py
	$(BIN)/python scripts/async_ratings.py
	$(BIN)/python scripts/async_processes.py
	$(BIN)/python scripts/lm_study.py --tune
	$(BIN)/python scripts/lowcomm_study.py --tune
	$(BIN)/python scripts/lowcomm_study.py --dppf

bench: $(SETUP)  ## measure speed and memory, as ratios, side by side
	$(BIN)/python scripts/bench_core.py
	$(BIN)/python scripts/bench_ways.py
	$(BIN)/python scripts/bench_lm.py
	$(BIN)/python scripts/bench_codecs.py
	$(BIN)/python scripts/bench_launch.py
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python scripts/bench_bytes.py && $(BIN)/python scripts/bench_clock.py \
	&& $(BIN)/python scripts/bench_overlap.py && $(BIN)/python scripts/bench_islands.py \
	&& $(BIN)/python scripts/bench_utilisation.py && $(BIN)/python scripts/bench_net.py; \
	else echo "Links as slow as a city's need root: sudo $(BIN)/python scripts/bench_net.py, and bench_bytes.py"; fi

test-floors:  ## run the tests with the oldest dependencies that pyproject.toml allows, in .venv-floors
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/pip install --quiet --upgrade pip tomli
	.venv-floors/bin/python scripts/floors.py > .venv-floors/floors.txt
	.venv-floors/bin/pip install --quiet -c .venv-floors/floors.txt -e '.[dev]'
	.venv-floors/bin/python -m pytest -n 2 --dist worksteal

clean:  ## remove the environments and caches, not the results
	rm -rf .venv .venv-floors .pytest_cache .mypy_cache .ruff_cache *.egg-info
