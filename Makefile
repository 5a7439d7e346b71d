# make demo         the whole pipeline on a generated data set
# make test         the tests
# make test-older   tests of models and training with the oldest supported transformers
# make fuzz         commands on some thousand damaged files (docs/results/fuzz); make test runs a few of them
# make check        formatting, lint and types
# make pages        generate docs/commands from the help of the commands
# make gpu          on an NVIDIA GPU: benchmarks/gpu_suite.py (docs/gpu.md), in a separate environment with
#                   onnxruntime-gpu, or with GPU_PYTHON=... (a Python that has the packages)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDER := $(VENV)/transformers-5.0.0
PIPPED := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PIP := $(BIN)/python $(PIPPED)

# two processes with one thread each: with more threads than processors, threads wait for each other
TESTING := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

.PHONY: demo test test-slow test-older fuzz check pages gpu clean

demo: $(INSTALLED)
	$(BIN)/effx demo

test: $(INSTALLED)
	$(TESTING) -m "not slow and not network"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not network"

test-older: $(INSTALLED) $(OLDER)
	PYTHONPATH=$(OLDER) $(BIN)/python -c 'import transformers; assert transformers.__version__ == "5.0.0"'
	PYTHONPATH=$(OLDER) $(TESTING) -m "not slow and not gpu and not network" tests/models tests/train

FUZZ_OUT ?= fuzz-results
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz.campaign $(FUZZ_OUT)

check: $(INSTALLED)
	$(BIN)/ruff format --check effx tests benchmarks tools
	$(BIN)/ruff check effx tests benchmarks tools
	$(BIN)/mypy
	! test -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

pages: $(INSTALLED)
	$(BIN)/python tools/command_pages.py

# torch first: with its exact version, an installed CPU build is not replaced
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("effx needs Python 3.11 or newer, set PYTHON=" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[all-cpu,rtx,mlflow,test,check]'
	touch $@

# a folder with this release and its dependencies, which comes before the environment on the path
$(OLDER): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $@.new transformers==5.0.0 numpy==2.4.6
	mv $@.new $@

# An interrupted run is resumed: what is done is not measured again. The exit code is that of the suite (docs/gpu.md).
GPU_OUT ?= gpu-results
GPU_VENV := .venv-gpu
GPU_PYTHON ?= $(GPU_VENV)/bin/python
gpu: $(if $(filter $(GPU_VENV)/%,$(GPU_PYTHON)),$(GPU_VENV)/.installed)
	$(GPU_PYTHON) benchmarks/gpu_suite.py $(GPU_OUT) $(GPU_OPTIONS); ended=$$?; \
	! test -d $(GPU_OUT)/results || \
	PYTHONPATH=. $(GPU_PYTHON) -m effx report $(GPU_OUT)/results/* -o $(GPU_OUT)/report || exit $$?; exit $$ended

$(GPU_VENV)/.installed: pyproject.toml constraints.txt
	test -x $(GPU_VENV)/bin/python || $(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python $(PIPPED) torch==2.13.0
	$(GPU_VENV)/bin/python $(PIPPED) --editable '.[train,export,gpu,report,test]'
	touch $@

clean:
	rm -rf $(VENV) $(GPU_VENV) effx-demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
