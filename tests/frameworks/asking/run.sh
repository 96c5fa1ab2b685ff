#!/usr/bin/env bash
# Tests the presets `better-auth` and `authjs` of `session_endpoint` with the real libraries. Needs Node, and the binary
# from `cargo build`.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
node check.mjs ../../../target/debug/rollout-token
