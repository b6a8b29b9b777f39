# Thin names for what the README says. Everything lives in .venv; nothing is installed outside this folder.
# A GPU machine: make install TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTHON ?= python3
BIN := .venv/bin
CYCLES ?= 100
# torch and what only its CUDA build needs: not in the lock, so that one variable chooses the build.
TORCH_PACKAGES := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
    nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
    nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

.PHONY: install demo test check bench faults lock clean

install: .venv/installed

# Every package comes from the lock with its digest; torch alone, last, from its own index, so that CPU or CUDA is one variable.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --retries 0 --extra-index-url $(TORCH_INDEX) torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: install
	$(BIN)/hounsfield demo $(if $(STUDY),--study "$(STUDY)") $(if $(ONCE),--once)

# A worker for each core, each with one thread for its mathematics.
check: export OMP_NUM_THREADS = 1
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 2 --dist worksteal

test: check

faults: install
	$(BIN)/python -m pytest -n 2 tests/faults --fault-cycles=$(CYCLES)

bench: install
	$(BIN)/python -P benchmarks/built_in.py lung_ct
	$(BIN)/python -P benchmarks/built_in.py vessels
	$(BIN)/python -P benchmarks/end_to_end.py
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[benchmark]"
	$(BIN)/python -P benchmarks/inference.py

lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --extra dev $(TORCH_PACKAGES:%=--no-emit-package %) \
	    pyproject.toml -o requirements.lock

clean:
	rm -rf .venv
