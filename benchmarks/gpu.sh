#!/usr/bin/env bash
# What docs/performance.md says about GPUs, measured: tables in OUTDIR/*.md, in about six minutes. With TOY=1
# the same on a CPU, with small networks.
#
#     benchmarks/gpu.sh OUTDIR
set -uo pipefail
out=${1:?usage: benchmarks/gpu.sh OUTDIR}
here=$(dirname "$0")
mkdir -p "$out"
device=cuda measure=1 long=60 at_once="1 4 8 16 32" cases=2 seconds=1
paper=(--preset paper --prior exp-dense --prior conv) harmonic=(--preset harmonic-paper --prior harmonic --prior conv7)
if [ -n "${TOY:-}" ]; then
  device=cpu measure=0.1 long=1 at_once=1 cases=1 seconds=0.5
  paper=(--preset fast --prior conv) harmonic=(--preset fast --prior conv7)
fi
failed=0

# step NAME COMMAND...: its output in NAME.md, what went wrong in NAME.log; the others go on.
step() {
  local name=$1 started=$SECONDS
  shift
  printf '\n## %s\n\n`%s`\n\n' "$name" "$*"
  "$@" 2>"$out/$name.log" | tee "$out/$name.md"
  local status=$?
  [ "$status" -eq 0 ] || { failed=1 && tail -3 "$out/$name.log"; }
  printf '\n(%s: exit %s, %s s)\n' "$name" "$status" $((SECONDS - started))
}

parallel=(timeout 90 python "$here/parallel.py" --device "$device" --seconds "$long")
speed=(timeout 90 python "$here/speed.py" --device "$device" --seconds "$measure")
step parallel_quality "${parallel[@]}" --preset quality --parallel $at_once
step devices timeout 120 python "$here/devices.py" --device "$device" --cases "$cases" --seconds "$seconds"
step speed_quality "${speed[@]}" --preset quality --preset fast --prior exp-dense
step speed_paper "${speed[@]}" "${paper[@]}"
step speed_harmonic "${speed[@]}" "${harmonic[@]}"
step memory "${parallel[@]}" --preset quality --parallel 16 --most-gb 1.5
step parallel_fast "${parallel[@]}" --preset fast --parallel 1 16
step doctor timeout 60 dap doctor --device "$device" --preset quality --seconds "$measure" --prior exp-dense
exit "$failed"
