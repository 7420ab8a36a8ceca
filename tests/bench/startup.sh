#!/usr/bin/env bash
# How long the binary takes from its start until it is ready, and how much memory it takes when idle. Prints one JSON
# object. Times depend on the machine, so this is a measurement and no test: the goals are 100 ms and 30 MB.
#
#   tests/bench/startup.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/../.."

runs=${1:-20}
cargo build --release --quiet --package waypost
binary=${CARGO_TARGET_DIR:-target}/release/waypost
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf 'apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n' >"$scratch/broker.yaml"

milliseconds=()
resident=0
for _ in $(seq "$runs"); do
  start=$(date +%s%N)
  exec {log}< <(exec "$binary" run -f "$scratch/broker.yaml" --log memory --log-format json \
    --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 2>&1)
  process=$!
  while read -r line <&"$log"; do
    case $line in *'"ready"'*) break ;; esac
  done
  milliseconds+=("$((($(date +%s%N) - start) / 1000000))")
  resident=$(awk '/^VmRSS:/ {print $2}' "/proc/$process/status")
  kill -TERM "$process"
  exec {log}<&-
done

sorted=$(printf '%s\n' "${milliseconds[@]}" | sort -n)
median=$(sed -n "$(((runs + 1) / 2))p" <<<"$sorted")
worst=$(tail -n 1 <<<"$sorted")
printf '{"runs": %d, "startMedianMilliseconds": %d, "startWorstMilliseconds": %d, "idleResidentKibibytes": %d}\n' \
  "$runs" "$median" "$worst" "$resident"
