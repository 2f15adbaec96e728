# Every target makes .venv first if it is missing. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
VIDEO ?=
MASK ?=
OUT ?= demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check format bench gpu weights clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed  ## make .venv with the project and its tools, in the tested versions

.venv/.installed: pyproject.toml constraints.txt hatch_build.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e ".[annotate,dev,eval,gpu]"
	@touch $@

demo: install  ## describe a clip, edit its text, see it change; your own: make demo VIDEO=clip.mp4 MASK=folder
	$(BIN)/raccoon demo --out $(OUT) --overwrite $(if $(VIDEO),--video $(VIDEO)) $(if $(MASK),--mask $(MASK))

test: install  ## the fast tests: no GPU, no network, under ten minutes on two cores
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu"

test-all: install  ## every test that this machine can run
	$(BIN)/python -m pytest -q -n 2

check: install  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell README.md docs raccoon kernels datamodules tests conf

bench: install  ## measure the pooling kernels on this machine, two minutes on a processor
	$(BIN)/raccoon bench kernels --quick

gpu: install  ## on a machine with a GPU: the tests that need one, then the kernels' targets and a sweep into docs/results
	$(BIN)/python -m pytest -q -n 8 -m gpu tests; tested=$$?; \
	$(BIN)/raccoon bench kernels --targets --graph --compile targets --base L --sweep frames=8,16,32,64,100 \
	  --limit 480 --out docs/results && exit $$tested

weights: install  ## train the miniature models anew into runs/weights (a GPU: minutes; a processor: hours)
	for recipe in tiny/clip tiny/language v2p/tiny tiny/vae tiny/inpaint p2v/tiny; do \
	  $(BIN)/raccoon fit --config $$recipe || exit 1; done

format: install  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the targets made
	rm -rf .venv build dist demo runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
