#!/usr/bin/env bash
# `session_endpoint` against the real npm packages of its presets. Needs Node and `cargo build`.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
node check.mjs ../../../target/debug/rollout-token
