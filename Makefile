# make demo     recordings in, fitted hands and a report with pictures out
# make test     format, lint, types, tests
#
# Both do all set-up by themselves: a virtual environment in .venv, filled once from the package index. They need Python 3.11
# or newer and make; no root, no GPU, no account. `make PYTHON=/path/to/python` chooses the interpreter.

.DELETE_ON_ERROR:
.PHONY: help demo test lint format api clean

VENV := .venv
READY := $(VENV)/ready
WORKERS ?= 2

# What the caller's shell says about Python must not reach into the environment.
CLEAN_ENV := env -u PYTHONPATH -u PYTHONHOME -u VIRTUAL_ENV PYTHONNOUSERSITE=1
RUN := $(CLEAN_ENV) $(VENV)/bin/python

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(READY)
	$(RUN) -m jhand demo -o out/demo
	$(RUN) -m tools.show_hamba -o out/demo

test: lint
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile

lint: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m ty check

# make format   rewrites the sources as `make lint` wants them
format: $(READY)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# make api      rewrites tests/api.txt after a deliberate change of the public surface
api: $(READY)
	$(RUN) tests/test_api.py

# make clean    removes what make made, the environment included
clean:
	rm -rf $(VENV) build dist out .pytest_cache .ruff_cache .hypothesis

# The stamp is written last, so a set-up that was interrupted is taken up again; a changed pyproject.toml installs what is new.
$(READY): pyproject.toml
	@if ! $(RUN) -m pip --version >/dev/null 2>&1; then \
	  found=; \
	  for python in "$(PYTHON)" python3.13 python3.12 python3.11 python3; do \
	    if $(CLEAN_ENV) "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "jhand needs Python 3.11 or newer with its venv module (Debian and Ubuntu: the package python3-venv)." >&2; \
	    echo "None was found as python3.13, python3.12, python3.11 or python3; make PYTHON=/path/to/python names another." >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$found"; \
	  $(CLEAN_ENV) "$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing jhand and what it needs into $(VENV): a few minutes, once"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(READY)
