# `make` alone says what can be made. Every target sets up what it needs: one virtual environment,
# .venv, made once and made anew when requirements.txt changes. Needs Python 3.11+ and make.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help coursework grade book test lab lint format types unit book-test pages pdf browser vendor pins clean

# the first Python on the path that is new enough; `make PYTHON=/path/to/python3.12 book` chooses another
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
JOBS ?= 2

RUN := .venv/bin/python -m
READY := .venv/ready
VENDOR := book/_static/vendor/mathjax/tex-mml-chtml.js
PAGE := _build/html/index.html
# what a chapter's outputs depend on beside its own text
CODE := requirements.txt $(shell find toolkit book/results -type f ! -name '*.pyc' ! -path '*.egg-info/*' 2>/dev/null)

# Chapters run with this environment's Python, whatever kernels the reader's account has.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PATH := $(CURDIR)/.venv/share/jupyter
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@echo 'make book    build the book, every chapter executed, and print the page to open'
	@echo 'make pdf     print the book into one PDF, with Chromium'
	@echo 'make test    lint, types, tests, the book built from scratch with warnings as errors, its pages in a browser'
	@echo 'make lab     open the chapters as notebooks in JupyterLab'
	@echo 'make coursework   the assignments: notebooks to hand out, solutions and graders, in _build/coursework'
	@echo 'make grade SUBMISSIONS=folder   grade a folder of what came back'
	@echo 'make lint    formatting, lint and types only        make format   apply the formatting'
	@echo 'make unit    the tests only                         make clean    remove what was built (not .venv)'
	@echo 'make pins    resolve pyproject.toml anew and write requirements.txt'

# --- the environment -------------------------------------------------------------------------------

# .venv/requirements.txt records the pins that are installed. Other pins there: start over, so that nothing stays behind.
$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer was not found: install it, or say where it is: make PYTHON=/path/to/python3 ...' >&2; exit 1; }
	@if test -f .venv/requirements.txt && ! cmp -s requirements.txt .venv/requirements.txt; then \
		echo 'requirements.txt has changed: making .venv anew'; rm -rf .venv; fi
	@test -x .venv/bin/python || { echo 'Making .venv with $(PYTHON)'; "$(PYTHON)" -m venv .venv; } \
		|| { rm -rf .venv; echo 'No virtual environment could be made: on Debian and Ubuntu, apt-get install python3-venv.' >&2; exit 1; }
	@cmp -s requirements.txt .venv/requirements.txt || { \
		echo 'Installing requirements.txt (a few minutes, once)'; \
		$(RUN) pip install -r requirements.txt && cp requirements.txt .venv/requirements.txt; }
	$(RUN) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# MathJax beside the pages, so that they ask no other host; without npm, pages take it from its usual CDN.
$(VENDOR): tools/vendor_mathjax.py | $(READY)
	@.venv/bin/python tools/vendor_mathjax.py

vendor: $(VENDOR)

pins:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer was not found.' >&2; exit 1; }
	"$(PYTHON)" tools/pin_environment.py

# --- the book --------------------------------------------------------------------------------------

# Chapters are executed again only where they, or the code they call, have changed.
_build/executed-with: $(CODE)
	@rm -rf _build/.jupyter_cache _build/.doctrees
	@mkdir -p _build && touch $@

pages: $(READY) $(VENDOR) _build/executed-with
	@OMP_NUM_THREADS=1 .venv/bin/python tools/execute_chapters.py
	.venv/bin/jupyter-book build . -n -W --keep-going

book: pages
	@echo && echo 'The book is built. Open:' && echo '  $(CURDIR)/$(PAGE)'

pdf: pages
	@.venv/bin/python tools/make_pdf.py

lab: $(READY)
	@mkdir -p .venv/share/jupyter/lab/settings
	@cp tools/lab_settings.json .venv/share/jupyter/lab/settings/overrides.json
	cd book && ../$(RUN) jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) 08-lab-2d.md

# --- the coursework --------------------------------------------------------------------------------

coursework: $(READY)
	.venv/bin/python tools/build_coursework.py

# SUBMISSIONS is a folder of .ipynb and .zip files, of one assignment or of several.
grade: $(READY)
	@test -n "$(SUBMISSIONS)" || { echo 'Say where the submissions are: make grade SUBMISSIONS=path/to/folder' >&2; exit 1; }
	@test -d _build/coursework/autograder || $(MAKE) --no-print-directory coursework
	.venv/bin/python tools/grade_coursework.py "$(SUBMISSIONS)" --jobs $(JOBS)

# --- the checks ------------------------------------------------------------------------------------

lint: $(READY)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: $(READY)
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

# what looks at the built book
BUILT := tests/test_book.py tests/test_links.py tests/test_reading.py tests/test_coursework.py::test_the_built_book_holds_no_solution

unit: $(READY)
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(RUN) pytest -n $(JOBS) $(BUILT:%=--ignore=%)

# From scratch: no executed chapter is taken from an earlier build.
book-test: $(READY)
	rm -rf _build/html _build/.doctrees _build/.jupyter_cache
	@$(MAKE) --no-print-directory pages
	$(RUN) pytest -n $(JOBS) --dist loadgroup $(BUILT)

test: lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory book-test

clean:
	rm -rf _build build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis book/_static/vendor toolkit/*.egg-info
