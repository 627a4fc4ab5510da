# Two commands do all: `make campaign` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: campaign quick test test-slurm test-globus validation evidence lint setup clean

campaign: .venv/.installed ## set up and run the default campaign (about five minutes)
	$(BIN)/python workflows/campaign.py

quick: .venv/.installed ## set up and run the quick campaign (under a minute)
	$(BIN)/python workflows/campaign.py --campaign configs/campaigns/quick.toml

test: .venv/.installed ## set up and run all tests but those on a real Slurm and endpoint
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/slurm --ignore=tests/globus

test-slurm: .venv/.installed ## run campaigns on a real Slurm, started here (ten minutes; root)
	$(BIN)/python -m pytest --durations=0 tests/slurm

test-globus: .venv/.installed ## calls through a real Globus Compute endpoint and RabbitMQ (five minutes)
	$(BIN)/python tests/globus/hermetic.py --durations=0 tests/globus

validation: .venv/.installed ## docs/validation.md and its figures (ten minutes; OpenFOAM where it is installed)
	$(BIN)/python -m benchmarks.validation

evidence: .venv/.installed ## docs/evidence.md and its figures (about twenty minutes on two cores; resumes)
	$(BIN)/python -m benchmarks.study

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
