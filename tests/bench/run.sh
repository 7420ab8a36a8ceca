#!/usr/bin/env bash
# Builds Waypost and its benchmark for release, and measures. What the figures mean is in docs/benchmarks.md.
#
#   tests/bench/run.sh [FLAGS]      such as --short, --logs memory, --parts startup,idle, --markdown, --check
#   tests/bench/run.sh --help
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --release --quiet --locked --package waypost --package waypost-tests --bin waypost --bin waypost-bench
exec "${CARGO_TARGET_DIR:-target}/release/waypost-bench" measure "$@"
