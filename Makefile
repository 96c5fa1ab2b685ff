# The commands of this project. CI runs `make test` and nothing else.

.PHONY: help run test tools lint rust interop frameworks bench image image-test audit

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: ## Serves on loopback with a throwaway client
	cargo run -- dev

test: tools lint rust interop frameworks ## Everything: installs what is missing, checks, runs all tests

tools: ## Installs the programs that the tests need, saying so first
	@tests/tools.sh

lint: ## Format and lints, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

rust: ## All Rust tests; they need no other program
	cargo test --workspace --locked

interop: ## Our tokens, verified by the JWT libraries of other languages
	cargo build --locked
	tests/interop/run.sh

frameworks: ## The recipes of docs/recipes, each against its framework running
	cargo build --locked
	target/interop/venv/bin/python tests/frameworks/run.py

bench: ## Benchmarks
	cargo bench --locked

image: ## Builds the container image with Docker
	docker build -t rollout-token .

image-test: ## Builds the image without Docker and runs what is in it
	tests/image/run.sh

audit: ## Dependencies: bans, licences, sources, and advisories (needs a network and cargo-deny)
	cargo deny --locked check
