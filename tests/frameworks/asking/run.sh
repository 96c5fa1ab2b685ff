#!/usr/bin/env bash
# Tests `session_endpoint` with the real npm packages of its presets. Needs Node and `cargo build`.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
node check.mjs ../../../target/debug/rollout-token
