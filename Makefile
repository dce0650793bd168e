# Everyday verbs. Python >= 3.11 and make are enough: the first verb makes .venv out of
# requirements.lock, later ones make it again only when that file or pyproject.toml has changed.
# Paths are relative, so that a checkout whose path holds a space works.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv-peers/.ready
HTTP_PEERS := $(patsubst benchmarks/http_peers/%.txt,.venv-http/%/.ready,$(wildcard benchmarks/http_peers/*.txt))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Every verb that tells what it does.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' Makefile)

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r verb what; \
		do printf '%-18s %s\n' "$$verb" "$$what"; done

run: $(READY) ## serve on 127.0.0.1:8000; ARGS="--port 9000" passes flags
	@echo "run: softxent serve $(ARGS)"
	@exec $(BIN)/softxent serve $(ARGS)

test: $(READY) ## run the tests; ARGS="-k name" passes flags
	@echo "test: compiling kernels on first use, then pytest -n auto $(ARGS)"
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-bits: $(READY) ## compare bits over processor levels and without FMA in libm; takes minutes
	@echo "test-bits: pytest tests/kernels/bits_on_every_target.py $(ARGS)"
	@$(BIN)/python -m pytest tests/kernels/bits_on_every_target.py $(ARGS)

test-large: $(READY) ## evaluate one batch of more than 2^31 logits; takes 6 GB of memory
	@echo "test-large: pytest tests/large $(ARGS)"
	@$(BIN)/python -m pytest tests/large $(ARGS)

test-peers: $(PEERS) ## compare with other libraries: their own cases, and docs/conventions.md
	@echo "test-peers: pytest tests/peers $(ARGS)"
	@.venv-peers/bin/python -m pytest tests/peers $(ARGS)

test-adapters: .venv-adapters/.ready ## call the adapters inside PyTorch, JAX, XGBoost and others; installs those
	@echo "test-adapters: pytest tests/adapters $(ARGS)"
	@.venv-adapters/bin/python -m pytest tests/adapters $(ARGS)

test-oip: .venv-oip/.ready ## call the service with the Open Inference Protocol's own clients
	@echo "test-oip: pytest tests/oip $(ARGS)"
	@.venv-oip/bin/python -m pytest tests/oip \
		$$(test -x .venv-oip/bin/perf_analyzer || echo --ignore=tests/oip/test_perf_analyzer.py) $(ARGS)

test-proofs: .venv-proofs/.ready ## overload, cut off, stop and fuzz a running service; takes half an hour
	@echo "test-proofs: pytest tests/proofs -s $(ARGS)"
	@.venv-proofs/bin/python -m pytest tests/proofs -s $(ARGS)

test-operations: $(READY) ## have Prometheus scrape, wrk count, Node, Go and R call; needs those installed
	@echo "test-operations: pytest tests/operations $(ARGS)"
	@$(BIN)/python -m pytest tests/operations $(ARGS)

test-soak: $(READY) ## ten minutes at 80 % of capacity, report in soak.html; ARGS="--seconds 60" for less
	@echo "test-soak: benchmarks/load/soak.py $(ARGS)"
	@PYTHONPATH=benchmarks $(BIN)/python -m load.soak $(ARGS)

test-parts: .venv-parts/.ready ## run jobs on PostgreSQL, SeaweedFS and a cluster, and kill each; takes minutes
	@echo "test-parts: pytest tests/parts $(ARGS)"
	@.venv-parts/bin/python -m pytest tests/parts $(ARGS)

test-chaos: .venv-parts/.ready ## the same, each killed 20 times; takes an hour
	@echo "test-chaos: KILLS=20 pytest tests/parts -k survives $(ARGS)"
	@KILLS=20 .venv-parts/bin/python -m pytest tests/parts -k survives $(ARGS)

test-deploy: .venv-deploy/.ready ## build the image, start all of deploy/, roll it over and kill it; needs root and podman
	@echo "test-deploy: pytest tests/deploy $(ARGS)"
	@PYTHONPATH=tests/deploy:tests/parts .venv-deploy/bin/python -m pytest -p deployed tests/deploy -s --timeout 900 $(ARGS)

test-web: .venv-web/.ready web/node_modules/.ready ## use the page in Chromium; needs Node and Debian's chromium
	@echo "test-web: pytest tests/web $(ARGS)"
	@PYTHONPATH=tests/web .venv-web/bin/python -m pytest -p chromium tests/web $(ARGS)

web: web/node_modules/.ready ## check and bundle the page of web/ into the service; needs Node
	@echo "web: tsc, then esbuild"
	@cd web && npm run --silent check && npm run --silent build

lint: $(READY) ## check style, types and layers; change nothing
	@echo "lint: ruff check"
	@$(BIN)/ruff check .
	@echo "lint: ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "lint: mypy, packages"
	@$(BIN)/python -m mypy -p softxent -p softxent_client -p softxent_service
	@echo "lint: mypy, tests, benchmarks and examples"
	@$(BIN)/python -m mypy tests benchmarks examples
	@echo "lint: import-linter"
	@$(BIN)/lint-imports

fix: $(READY) ## format, and repair what can be repaired by machine
	@echo "fix: ruff check --fix, ruff format"
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(PEERS) ## measure, and print tables; ARGS passes flags
	@echo "bench: benchmarks/run.py $(ARGS)"
	@.venv-peers/bin/python benchmarks/run.py $(ARGS)

bench-kernels: $(PEERS) ## measure the kernels alone, on all cores and on one, beside other libraries
	@echo "bench-kernels: benchmarks/kernel_times.py $(ARGS)"
	@.venv-peers/bin/python benchmarks/kernel_times.py $(ARGS)

bench-adapters: .venv-adapters/.ready ## measure the adapters beside the frameworks' own losses, on one core and on two
	@echo "bench-adapters: benchmarks/adapter_times.py $(ARGS)"
	@.venv-adapters/bin/python benchmarks/adapter_times.py $(ARGS)

bench-http: $(PEERS) $(HTTP_PEERS) ## measure calls beside other serving stacks; ARGS="--quick" for a first look
	@echo "bench-http: benchmarks/http_times.py $(ARGS)"
	@.venv-peers/bin/python benchmarks/http_times.py $(ARGS)

bench-oip: $(PEERS) ## measure calls of the Open Inference Protocol beside the native ones
	@echo "bench-oip: benchmarks/oip_times.py $(ARGS)"
	@.venv-peers/bin/python benchmarks/oip_times.py $(ARGS)

bench-client: $(READY) ## measure the clients beside lean ones that send the same bytes
	@echo "bench-client: benchmarks/client_times.py $(ARGS)"
	@$(BIN)/python benchmarks/client_times.py $(ARGS)

bench-operations: $(READY) ## measure rates, open-loop latencies, and what keys and telemetry cost
	@echo "bench-operations: benchmarks/operations.py $(ARGS)"
	@$(BIN)/python benchmarks/operations.py $(ARGS)

bench-jobs: $(READY) ## measure jobs over 8 GB on local disk; takes 40 GB of it and minutes
	@echo "bench-jobs: benchmarks/job_times.py $(ARGS)"
	@$(BIN)/python benchmarks/job_times.py $(ARGS)

accuracy: $(PEERS) ## measure errors beside other libraries; write the table of docs/numerics.md
	@echo "accuracy: benchmarks/accuracy.py --write $(ARGS)"
	@.venv-peers/bin/python benchmarks/accuracy.py --write $(ARGS)

demo: $(READY) ## train a classifier through a service started for it
	@echo "demo: examples/demo.py $(ARGS)"
	@$(BIN)/python examples/demo.py $(ARGS)

# uv comes out of the lock, hash and all; sync leaves pip and uv where they are. The stamp is the
# last step, so an interrupted set-up starts over.
$(READY): export UV_PYTHON_DOWNLOADS := never
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("setup: Python 3.11 or newer is needed, $(PYTHON) is %d.%d; name another with make PYTHON=..." % v[:2])'
	@echo "setup: making .venv with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv
	@echo "setup: installing uv"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	@echo "setup: installing what requirements.lock names"
	@$(BIN)/python -m uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@echo "setup: linking softxent into .venv"
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q kernels service
	@touch $@

# What more than the lock is needed stays out of it: gigabytes that only one verb needs. What .venv
# has is shared, and shared first, so that nothing is installed twice.
.venv-%/.ready: $(READY) tests/%/requirements.txt
	@echo "setup: making .venv-$* with what only tests/$* needs"
	@$(BIN)/python -m venv --clear .venv-$*
	@$(BIN)/python -c 'import os, site; print(*site.getsitepackages(), os.path.abspath("kernels"), os.path.abspath("service"), sep="\n")' > .venv-$*/shared.pth
	@mv .venv-$*/shared.pth "$$(.venv-$*/bin/python -c 'import site; print(site.getsitepackages()[0])')/"
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r tests/$*/requirements.txt
	@touch $@

web/node_modules/.ready: web/package-lock.json
	@echo "setup: installing what web/package-lock.json names"
	@cd web && npm ci --silent
	@touch $@

# Serving stacks pin what they need, so each has an environment of its own, which stays when others are
# made again; torch alone is shared.
.venv-http/%/.ready: export UV_PYTHON_DOWNLOADS := never
.venv-http/%/.ready: benchmarks/http_peers/%.txt | $(PEERS)
	@echo "setup: making .venv-http/$* with a serving stack to compare with"
	@$(BIN)/python -m venv --clear .venv-http/$*
	@$(BIN)/python -m uv pip install --quiet --python .venv-http/$*/bin/python -r $<
	@.venv-peers/bin/python -c 'import site; print(site.getsitepackages()[0])' > .venv-http/torch.pth
	@mv .venv-http/torch.pth "$$(.venv-http/$*/bin/python -c 'import site; print(site.getsitepackages()[0])')/"
	@touch $@
