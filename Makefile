# make demo   the whole pipeline on the embedded model and data
# make test   the tests
# make check  formatting, lint and types
# make pages  docs/commands from the code
# make gpu    what needs an NVIDIA GPU: its tests, then the suite of benchmarks/gpu_suite.py, with onnxruntime-gpu in
#             an environment of its own, or GPU_PYTHON=... that has all it needs
# make test-older   models and training against the oldest transformers that effx takes
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDER := $(VENV)/transformers-5.0.0
PIPPED := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PIP := $(BIN)/python $(PIPPED)

# two processes of one thread each: teams of threads that wait for one another starve on two processors
TESTING := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

.PHONY: demo test test-slow test-older check pages gpu clean

demo: $(INSTALLED)
	$(BIN)/effx demo

test: $(INSTALLED)
	$(TESTING) -m "not slow and not network"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not network"

test-older: $(INSTALLED) $(OLDER)
	PYTHONPATH=$(OLDER) $(BIN)/python -c 'import transformers; assert transformers.__version__ == "5.0.0"'
	PYTHONPATH=$(OLDER) $(TESTING) -m "not slow and not gpu and not network" tests/models tests/train

check: $(INSTALLED)
	$(BIN)/ruff format --check effx tests benchmarks tools
	$(BIN)/ruff check effx tests benchmarks tools
	$(BIN)/mypy
	! test -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

pages: $(INSTALLED)
	$(BIN)/python tools/command_pages.py

# torch first and alone: its exact version is what keeps the CPU build where one is at hand
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("effx needs Python 3.11 or newer, set PYTHON=" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[all-cpu,rtx,mlflow,test,check]'
	touch $@

# a folder in front of the environment's own packages, with all that this release asks for
$(OLDER): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $@.new transformers==5.0.0 numpy==2.4.6
	mv $@.new $@

# Results and traces of an earlier call are kept: it goes on where it was cut off. The suite runs whatever the
# tests came to; what they came to is the exit code. PyTorch's remarks on GPUs are no errors of the tests.
GPU_OUT ?= gpu-results
GPU_VENV := .venv-gpu
GPU_PYTHON ?= $(GPU_VENV)/bin/python
gpu: $(if $(filter $(GPU_VENV)/%,$(GPU_PYTHON)),$(GPU_VENV)/.installed)
	$(GPU_PYTHON) -m pytest -m gpu -W default; tested=$$?; \
	$(GPU_PYTHON) benchmarks/gpu_suite.py $(GPU_OUT) $(GPU_OPTIONS) && \
	$(GPU_PYTHON) -m effx report $(GPU_OUT)/results/* -o $(GPU_OUT)/report && exit $$tested

$(GPU_VENV)/.installed: pyproject.toml constraints.txt
	test -x $(GPU_VENV)/bin/python || $(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python $(PIPPED) torch==2.13.0
	$(GPU_VENV)/bin/python $(PIPPED) --editable '.[train,export,gpu,report,test]'
	touch $@

clean:
	rm -rf $(VENV) $(GPU_VENV) effx-demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
