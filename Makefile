# The study's commands. A newcomer needs Python 3.10 or newer, make, and two of them: make study, make test.

PYTHON ?= python3
PROFILE ?= tiny
JOBS ?= 2
ARGS ?=

PY := .venv/bin/python
RUN = $(PY) scripts/run_experiments.py --profile $(PROFILE)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

# These would send the packages, or Python, to another place than .venv.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME PYTHONPATH

# Libraries made to compute as on a processor with fewer instructions: networks, then images.
NO_AVX := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE
NO_AVX_IMAGES := OPENCV_CPU_DISABLE=AVX2,AVX,FP16,AVX512F
PYTEST = $(PY) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=300 \
	--nbval-sanitize-with tests/nbval_sanitize.cfg -q $(ARGS)

.PHONY: help study test test-processors lint format status sync clean

help:
	@echo 'make study    run the whole study (PROFILE=tiny), end with its results table'
	@echo 'make test     check the code and every notebook'
	@echo 'make test-processors   run the study and compare its notebooks twice more, as on other processors'
	@echo 'make status   what is done, what is out of date'
	@echo 'make sync     notebooks/*.py were edited: execute them and bring their .ipynb twins up to date'
	@echo 'make lint     check the style of the code; make format brings it into its form'
	@echo 'make clean    remove outputs and generated data; keeps .venv and downloaded data'
	@echo
	@echo 'The first make study or make test installs requirements.txt into .venv.'
	@echo "Settings: make study PROFILE=folder JOBS=1 ARGS='--data-root DIR --categories a,b'; PYTHON=python3.12"

study: .venv/.installed
	@exec $(RUN) --jobs $(JOBS) $(ARGS)

status: .venv/.installed
	@exec $(RUN) --status $(ARGS)

# One pytest: unit and hygiene tests, the whole tiny study with papermill in a temporary workspace, and then, in
# the same workspace, nbval: every committed notebook is run again and its stored outputs are compared.
test: lint
	@exec $(PYTEST) tests notebooks

# The study is made anew each time, with instruction sets switched off; the stored outputs must hold there too.
test-processors: .venv/.installed
	@$(NO_AVX) $(PYTEST) tests/notebooks notebooks
	@$(NO_AVX_IMAGES) $(PYTEST) tests/notebooks notebooks

lint: .venv/.installed
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo 'expected formatted code, found the files above; run: make format'; exit 1; }
	@said=$$(.venv/bin/lint-imports --no-cache 2>&1) || { echo "$$said"; exit 1; }

format: .venv/.installed
	@$(PY) -m ruff format .

sync: .venv/.installed
	@exec $(PY) scripts/sync_notebooks.py $(ARGS)

clean:
	@for entry in outputs/*; do case $$entry in outputs/README.md) ;; *) rm -rf "$$entry" ;; esac; done
	@rm -rf data/shifted data/raw/synthetic
	@find data/processed -type f ! -name clean_splits.json -exec rm -f {} + 2>/dev/null || true
	@rm -rf data/raw/.synthetic.lock .pytest_cache .ruff_cache .mypy_cache .coverage
	@find nbhelpers scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: requirements.txt
	@if ! $(PY) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		command -v $(PYTHON) >/dev/null || \
			{ echo '$(PYTHON) is not there; install Python 3.10 or newer, or name it: make PYTHON=python3.12'; exit 1; }; \
		$(PYTHON) -c '$(NEW_ENOUGH)' || \
			{ echo "Python 3.10 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12"; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
			{ echo '$(PYTHON) lacks its venv module; install it (Debian, Ubuntu: apt install python3-venv)'; exit 1; }; \
		$(PYTHON) -m venv --clear .venv; \
	fi
	@echo 'Installing requirements.txt into .venv. The first time this takes some minutes and, with the GPU'
	@echo 'libraries that PyTorch brings on Linux, 7 GB of disk.'
	@$(PY) -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@
