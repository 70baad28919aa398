# `make demo` and `make test` need python3 (3.10 or newer, with venv) and make; they set up the rest.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := out/demo

.PHONY: demo test lint format clean

# One environment for all: requirements-annotator.txt includes requirements.txt. uv reads the same
# requirements as pip and is faster; it lives in the environment alone.
$(VENV)/.ready: requirements.txt requirements-annotator.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check "uv>=0.7"
	$(VENV)/bin/uv pip install --python $(RUN) -r requirements-annotator.txt --group dev
	touch $@

# Segment a clip that the project draws itself, with the weights in saves/, and score the masks.
demo: $(VENV)/.ready
	rm -rf $(DEMO)
	$(RUN) scripts/make_synthetic.py $(DEMO) --layouts davis --num_videos 1 --num_frames 40 --height 480 --width 854
	$(RUN) eval_davis.py --model saves/stcn_small.pth --davis_path $(DEMO)/DAVIS/2017 --output $(DEMO)/masks --overlay --amp
	$(RUN) scripts/evaluate.py --results_path $(DEMO)/masks --davis_path $(DEMO)/DAVIS/2017
	@echo "Masks and overlay video: $(DEMO)/masks"

# -r fEs also lists why tests were skipped, such as a missing browser.
test: $(VENV)/.ready lint
	$(RUN) -m pytest -n 2 -r fEs

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy .

format: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf out $(VENV) .pytest_cache .mypy_cache .ruff_cache
