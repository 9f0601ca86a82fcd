# make demo   generated clips, the component ablation over three seeds, tables, figures and a report in results/demo/
# make test   the tests
# make lint   ruff and mypy
# make soak   a study under 50 random kills, against the same undisturbed: some 30 minutes
# make bench  speed as ratios against peers, in results/bench/; make bench-quick: fewer turns, in build/bench/
# make example  a small results folder with every table, figure and the report: results/example/
# make readme the README's tables, from results/ and from counts
# The first of them makes .venv and installs into it. torch's default build on Linux is a large CUDA one;
# TORCH_INDEX=https://download.pytorch.org/whl/cpu (or another of PyTorch's indexes) takes torch from there.

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RESULTS ?= results
DATA ?= data/synthetic
SEEDS ?= 3

.PHONY: demo example test lint soak bench bench-quick readme clean
.DELETE_ON_ERROR:

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one by PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/taghead prepare synthetic --size small --out $(DATA)
	$(BIN)/taghead-studies run components stages --dataset synthetic --data-root $(DATA) --seeds $(SEEDS) --results $(RESULTS) --cache $(DATA)-frames
	$(BIN)/taghead-analysis report components stages --results $(RESULTS) --out $(RESULTS)/demo/report.html --files

EXAMPLE := results/example
EXAMPLE_STUDIES := main components stages ffn_width alpha readout controls
ON_SMALL := --dataset synthetic --data-root $(DATA) --cache $(DATA)-frames --device cpu --results $(EXAMPLE)
SPEED := --out $(EXAMPLE)/speed.json --device cpu --threads 2

example: $(INSTALLED)
	$(BIN)/taghead prepare synthetic --size small --out $(DATA)
	$(BIN)/taghead-studies run $(EXAMPLE_STUDIES) $(ON_SMALL) --seeds $(SEEDS)
	$(BIN)/taghead-studies run head_search $(ON_SMALL) --trials 12 --set model.backbone=r2plus1d_narrow
	$(BIN)/taghead speed $(SPEED) --batch 1
	$(BIN)/taghead speed $(SPEED) --backbones r2plus1d_narrow --frames 16 --size 48 --set head.ffn_dim=256
	$(BIN)/taghead-analysis report $(EXAMPLE_STUDIES) head_search --results $(EXAMPLE) --out $(EXAMPLE)/report.html --files
	$(BIN)/taghead-analysis drift main --results $(EXAMPLE) --data-root $(DATA) --out $(EXAMPLE)/drift --format md,csv,tex,html --figures png

test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench bench-quick: $(INSTALLED)
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file $(QUICK) || exit 1; done
	$(BIN)/python benchmarks/table.py $(filter-out --quick,$(QUICK))

bench-quick: QUICK := --quick --out build/bench

soak: $(INSTALLED)
	$(BIN)/python benchmarks/soak.py

readme: $(INSTALLED)
	$(BIN)/python -P tests/readme_parts.py

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache
