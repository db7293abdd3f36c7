#!/usr/bin/env bash
# Everything that needs a GPU, in one run of at most 8 minutes: tests, first calls, operators, row kernels, the host,
# models in inference and training, detectors and segmentors, beside their peers.
#
#   benchmarks/gpu.sh [--python PYTHON] [--copy-to DIR] [--device cuda|cpu]
#                     [--limits "TESTS FIRST OPERATORS ROWS HOST MODELS DETECTION SEGMENTATION"]
#
# For a bare machine with torch, torchvision, triton, timm, pytest and this package's dependencies; the package need not be
# installed, and there need be no network. Figures go to benchmarks/results/*_cuda.json, and to DIR. Each part stops at
# its limit in seconds and keeps what it has measured by then. "--device cpu" tries the script out, into a folder of its own.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
python=python3 copy_to="" device=cuda limits="75 60 75 30 25 130 40 40" results=benchmarks/results dtype=float16
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || { echo "$1 lacks its value" >&2; exit 2; }
  case $1 in
    --python) python=$2 ;;
    --copy-to) copy_to=$2 ;;
    --device) device=$2 ;;
    --limits) limits=$2 ;;
    *) echo "unknown option $1; see the head of benchmarks/gpu.sh" >&2; exit 2 ;;
  esac
  shift 2
done
read -r tests_limit first_limit operators_limit rows_limit host_limit models_limit detection_limit segmentation_limit <<<"$limits"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "no GPU here: torch.cuda.is_available() is false for $python; nothing was measured" >&2
  exit 1
fi
if [ "$device" = cpu ]; then
  results=$(mktemp -d) dtype=float32 # the recorded figures of the CPU stay
fi
"$python" -m internimage env || exit 1

status=0
skipped=()

has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }

# part NAME LIMIT COMMAND...: run it until its limit, say how it ended.
part() {
  local name=$1 limit=$2 begin=$SECONDS code=0
  shift 2
  printf '\n== %s (at most %s s)\n' "$name" "$limit"
  timeout --signal=TERM --kill-after=10 "$limit" "$@" || code=$?
  case $code in
    0) echo "== $name: done in $((SECONDS - begin)) s" ;;
    124 | 137) skipped+=("$name: stopped at its limit of $limit s") ;;
    *) echo "== $name: FAILED with status $code"; status=1 ;;
  esac
}

if has pytest; then
  workers=()
  if has xdist; then workers=(-n "$(nproc)"); fi
  marker=gpu
  if [ "$device" = cpu ]; then marker="not slow and not gpu"; fi
  part "tests" "$tests_limit" "$python" -m pytest -q -p no:cacheprovider -p no:benchmark "${workers[@]}" -m "$marker" tests/ops/test_triton.py tests/ops/fused/test_rows.py tests/ops/test_registration.py
else
  skipped+=("tests: pytest is not installed")
fi

# suite NAME LIMIT OPTIONS...: one suite of the benchmarks.
suite() {
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" "$python" -m benchmarks.run --device "$device" --results "$results" --only "$name" "$@"
}

suite first_calls "$first_limit" --seconds 40
suite operators "$operators_limit" --seconds 0.2 --dtype "$dtype"
suite rows "$rows_limit" --seconds 0.1 --dtype "$dtype"
suite host "$host_limit" --seconds 1
if has timm; then
  suite models "$models_limit" --seconds 0.5 --dtype "$dtype"
else
  skipped+=("models: timm, whose networks stand beside them, is not installed")
fi
suite detection "$detection_limit" --seconds 5
suite segmentation "$segmentation_limit" --seconds 5

if [ -n "$copy_to" ]; then mkdir -p "$copy_to" && cp "$results"/*_"$device".json "$copy_to"/; fi
printf '\n%s s in all; figures in %s\n' "$SECONDS" "$results"
for line in "${skipped[@]}"; do echo "skipped or cut: $line"; done
exit $status
