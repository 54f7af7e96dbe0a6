# Everything a developer or a first visitor runs. Each target sets up what it needs.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
ORACLES ?= .venv-oracles
PINNED ?= .venv-oracles-pinned
# How many processes share the default tests.
JOBS ?= 2

# Where tests measure what docs/claims.md lists.
CLAIMS := tests/oracles tests/diffusion tests/models tests/stages

.PHONY: launch-tests launch-core launch-packages help demo test test-current check golden docs oracles oracles-pinned bare-tests clean slow-tests soak \
  plans edit-pictures

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(BIN)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[emoji,sweep,test,dev]'
	@touch $@

demo: $(BIN)/.installed ## shards, CLIP, prior, decoder, upsampler, samples, evaluation; resumes
	$(BIN)/unclip demo --out demo $(DEMO_FLAGS)

test: $(BIN)/.installed ## the default tests, shared by JOBS processes
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

slow-tests: $(BIN)/.installed ## the tests that take minutes: more faults, more processes
	$(BIN)/python -m pytest -m slow

plans: $(BIN)/.installed ## docs/pod-plans.md anew: transformers compiled for TPUs, U-Nets by the model
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[tpu,test]'
	$(BIN)/python -m pytest tests/preflight/test_compiled.py
	$(BIN)/python benchmarks/pod_plans.py

soak: $(BIN)/.installed ## a toy run through 30 random faults, its end compared bit for bit
	$(BIN)/python benchmarks/soak.py --log benchmarks/results/soak.txt

test-current: ## the default tests on Python 3.12 and the newest jax that setup.py admits
	python3.12 -m venv .venv-current
	.venv-current/bin/python -m pip install --quiet --upgrade pip
	.venv-current/bin/python -m pip install --quiet -e '.[emoji,sweep,test]'
	.venv-current/bin/python -m pytest -n $(JOBS) --dist worksteal

check: $(BIN)/.installed ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(BIN)/.installed ## write the golden files anew; review their diff
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/golden

docs: $(BIN)/.installed ## run the commands and examples that the documentation shows
	$(BIN)/python -m pytest tests/docs

launch-tests: launch-packages ## start runs on hosts of namespaces, on SLURM, against fake clouds; needs root
	$(BIN)/python -m pytest -m launch -rs tests/launch tests/sweeps

launch-core: launch-packages ## the core of these in minutes, as CI does; what can't run says why
	$(BIN)/python -m pytest -m core -rs tests/launch tests/sweeps

# Without root, or where apt-get can't, tests whose programs are missing are skipped.
launch-packages: $(BIN)/.installed
	if [ "$$(id -u)" = 0 ]; then export DEBIAN_FRONTEND=noninteractive; \
	  { timeout 120 apt-get update -qq && timeout 300 apt-get install -qq -y --no-install-recommends \
	  openssh-server iproute2 slurm-wlm munge; } || \
	  echo "apt-get could not install all that the launch tests use"; fi
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[ssh,gcp,sweep,test,launch-test]'

oracles: $(ORACLES)/.installed ## compare with other libraries, closed forms and float64; writes docs/claims.md
	UPDATE_CLAIMS=1 $(ORACLES)/bin/python -m pytest -m claim $(CLAIMS)

oracles-pinned: $(PINNED)/.installed ## exports in the last diffusers that loads unCLIP folders as they are
	$(PINNED)/bin/python -m pytest tests/oracles/test_diffusers_pipeline.py tests/oracles/test_kandinsky.py

bare-tests: $(BIN)/.installed ## exported programs where only jax and numpy are installed, pinned and newest
	$(PYTHON) -m venv .venv-bare
	.venv-bare/bin/python -m pip install --quiet -c constraints.txt jax numpy
	python3.12 -m venv .venv-bare-current
	.venv-bare-current/bin/python -m pip install --quiet jax numpy
	for bare in .venv-bare .venv-bare-current; do \
	  UNCLIP_BARE_PYTHON=$$PWD/$$bare/bin/python $(BIN)/python -m pytest tests/interop/test_stablehlo.py || exit 1; \
	done

$(ORACLES)/.installed: REQUIREMENTS := tests/oracles/requirements.txt
$(PINNED)/.installed: REQUIREMENTS := tests/oracles/requirements-pinned.txt
$(ORACLES)/.installed $(PINNED)/.installed: $(wildcard tests/oracles/requirements*.txt) setup.py
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet -r $(REQUIREMENTS)
	$(@D)/bin/python -m pip install --quiet --no-deps -r tests/oracles/requirements-no-deps.txt
	$(@D)/bin/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

edit-pictures: $(BIN)/.installed ## the pictures of docs/editing.md, with BUNDLE and DATA
	$(BIN)/python benchmarks/edit_pictures.py --bundle $(BUNDLE) --data $(DATA) --out docs/images

clean: ## remove what the targets made, but for the demo's results
	rm -rf $(VENV) .venv-current $(ORACLES) $(PINNED) \
	  .venv-bare .venv-bare-current build dist *.egg-info
