# The study's commands. A newcomer needs Python 3.10 or newer, make, and two of them: make study, make test.

PYTHON ?= python3
PROFILE ?= tiny
JOBS ?= 2
ARGS ?=
TORCH ?= auto

PY := .venv/bin/python
STUDY = $(PY) -m nbhelpers.runner
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

# These would send the packages, or Python, to another place than .venv.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME PYTHONPATH

# Libraries made to compute as on a processor with fewer instructions: networks, then images.
NO_AVX := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE
NO_AVX_IMAGES := OPENCV_CPU_DISABLE=AVX2,AVX,FP16,AVX512F

# Unit and hygiene tests, two files at a time. Then the whole tiny study with papermill, in a temporary workspace,
# and in the same one nbval: every committed notebook is run again and its stored outputs are compared.
PYTEST = $(PY) -m pytest -q $(ARGS)
UNIT_TESTS = $(PYTEST) -n 2 --dist loadfile tests --ignore=tests/notebooks
RUN_TESTS = $(PYTEST) tests/notebooks
OUTPUT_TESTS = $(PYTEST) -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=300 \
	--nbval-sanitize-with tests/nbval_sanitize.cfg notebooks
IN_WORKSPACE = workspace=$$(mktemp -d) || exit 1; export STUDY_TEST_WORKSPACE="$$workspace"; \
	trap 'rm -rf "$$workspace"' EXIT; trap 'exit 130' INT TERM; failed=0

.PHONY: help study test test-processors quick lint format status sync docs lock clean

help:
	@echo 'make study    run the whole study (PROFILE=tiny), end with its results'
	@echo 'make test     check the code and every notebook'
	@echo 'make quick    check the code as far as that takes three minutes'
	@echo 'make test-processors   run the study and compare its notebooks twice more, as on other processors'
	@echo 'make status   what is done, what is out of date'
	@echo 'make sync     notebooks/*.py were edited: execute them and bring their .ipynb twins up to date'
	@echo 'make lint     check style, imports and types of the code; make format brings it into its form'
	@echo 'make docs     build the documentation'
	@echo 'make lock     requirements.txt was edited: make requirements.lock of it'
	@echo 'make clean    remove outputs and generated data; keeps .venv and downloaded data'
	@echo
	@echo 'The first of them installs requirements.lock into .venv; TORCH=cpu or TORCH=cuda chooses the builds of'
	@echo 'PyTorch (default: by whether there is an NVIDIA GPU). .venv/bin/study is the command for everything else.'
	@echo "Settings: make study PROFILE=folder JOBS=1 ARGS='--data-root DIR --categories a,b'; PYTHON=python3.12"

study: .venv/.installed
	@exec $(STUDY) run --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

status: .venv/.installed
	@exec $(STUDY) status --profile $(PROFILE) $(ARGS)

# What fails, fails all, but the rest is still run; the last line is pytest's.
test: lint
	@$(IN_WORKSPACE); \
		STUDY_TEST_WORKSPACE= $(UNIT_TESTS) || failed=1; \
		$(RUN_TESTS) || failed=1; \
		$(OUTPUT_TESTS) || failed=1; \
		exit $$failed

# The study is run again each time, with instruction sets switched off; the stored outputs must hold there too.
test-processors: .venv/.installed
	@for setting in '$(NO_AVX)' '$(NO_AVX_IMAGES)'; do \
		( $(IN_WORKSPACE); export $$setting; echo "$$setting"; \
			$(RUN_TESTS) || failed=1; $(OUTPUT_TESTS) || failed=1; exit $$failed ) || any=1; \
	done; exit $${any:-0}

quick: lint
	@exec $(UNIT_TESTS) -m 'not slow'

lint: .venv/.installed
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo 'expected formatted code, found the files above; run: make format'; exit 1; }
	@report=$$(.venv/bin/lint-imports --no-cache 2>&1) || { echo "$$report"; exit 1; }
	@$(PY) -m mypy --no-error-summary

format: .venv/.installed
	@$(PY) -m ruff format .

sync: .venv/.installed
	@exec $(PY) scripts/sync_notebooks.py $(ARGS)

docs: .venv/.docs
	@$(PY) -m sphinx -W --keep-going -q -b html -c docs . docs/_build/html
	@echo 'docs/_build/html/index.html'

# Releases for 3.10 to 3.13 with the hashes of their files; names no registry. Pins that still hold stay.
lock: .venv/.installed
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
		--no-emit-index-url --custom-compile-command 'make lock' --output-file requirements.lock requirements.txt

clean:
	@for entry in outputs/*; do case $$entry in outputs/README.md) ;; *) rm -rf "$$entry" ;; esac; done
	@rm -rf data/shifted data/raw/synthetic docs/_build
	@find data/processed -type f ! -name clean_splits.json -exec rm -f {} + 2>/dev/null || true
	@rm -rf data/raw/.synthetic.lock .pytest_cache .ruff_cache .mypy_cache .coverage
	@find nbhelpers scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: requirements.lock pyproject.toml
	@if ! $(PY) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		command -v $(PYTHON) >/dev/null || \
			{ echo '$(PYTHON) is not there; install Python 3.10 or newer, or name it: make PYTHON=python3.12'; exit 1; }; \
		$(PYTHON) -c '$(NEW_ENOUGH)' || \
			{ echo "Python 3.10 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12"; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
			{ echo '$(PYTHON) lacks its venv module; install it (Debian, Ubuntu: apt install python3-venv)'; exit 1; }; \
		$(PYTHON) -m venv --clear .venv; \
	fi
	@$(PY) scripts/install_requirements.py --torch $(TORCH)
	@touch $@

.venv/.docs: requirements-docs.txt .venv/.installed
	@$(PY) -m uv pip install --python $(PY) --quiet -r requirements-docs.txt -c requirements.txt || \
		$(PY) -m pip install --disable-pip-version-check --quiet -r requirements-docs.txt -c requirements.txt
	@touch $@
