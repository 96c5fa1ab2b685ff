#!/usr/bin/env bash
# Tests the presets of `session_endpoint` with their npm packages. Needs Node, and the binary from `cargo build`.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
node check.mjs ../../../target/debug/rollout-token
