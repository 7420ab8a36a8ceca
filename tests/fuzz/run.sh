#!/usr/bin/env bash
# Runs the fuzz targets one after the other, and prints what came of each. Fails if one of them found something.
#
#   tests/fuzz/run.sh [SECONDS] [TARGET...]      600 seconds for each of all targets by default
#
# Needs a nightly toolchain and `cargo install cargo-fuzz --locked`. What is found is in `artifacts/TARGET`, and
# `cargo +nightly fuzz run --sanitizer none TARGET artifacts/TARGET/FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-600}
shift || true
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  for file in fuzz_targets/*.rs; do
    targets+=("$(basename "$file" .rs)")
  done
fi

# The longest input in bytes: long enough for all of a language, short enough for many of them.
longest() {
  case $1 in
    manifest) echo 4096 ;;
    event_json | event_http | filters | packed | transformation) echo 1024 ;;
    time) echo 64 ;;
    *) echo 512 ;;
  esac
}

dictionary() {
  case $1 in
    event_*) echo event ;;
    json_text | split | jsonpath) [ "$1" = json_text ] && echo json || echo jsonpath ;;
    xml_to_json) echo xml ;;
    *) echo "$1" ;;
  esac
}

# Without a sanitizer: there is no unsafe code here, and four times as many inputs are tried. Debug assertions and checks
# of overflows are on.
cargo +nightly fuzz build --fuzz-dir . --sanitizer none

table=$(printf '%-14s %12s %9s  %s' target executions coverage result)
failed=0
for target in "${targets[@]}"; do
  corpora=("corpus/$target")
  mkdir -p "${corpora[0]}"
  [ -d "seeds/$target" ] && corpora+=("seeds/$target")
  [ "$target" = manifest ] && corpora+=(../../deploy/examples)
  flags=(-max_total_time="$seconds" -max_len="$(longest "$target")" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1)
  dictionary="dictionaries/$(dictionary "$target")"
  [ -f "$dictionary" ] && flags+=(-dict="$dictionary")
  log="corpus/$target.log"
  printf '\n=== %s\n' "$target"
  if cargo +nightly fuzz run --fuzz-dir . --sanitizer none "$target" "${corpora[@]}" -- "${flags[@]}" >"$log" 2>&1; then
    result=nothing
  else
    found=$(sed -n 's/.*Test unit written to //p' "$log" | head -1)
    result="FOUND: ${found:-nothing was written}, see tests/fuzz/$log"
    failed=1
  fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
  coverage=$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2 || true)
  row=$(printf '%-14s %12s %9s  %s' "$target" "${executions:--}" "${coverage:--}" "$result")
  printf '%s\n' "$row"
  table+=$'\n'$row
done

printf '\n%s\n' "$table"
exit "$failed"
