#!/usr/bin/env bash
# What docs/performance.md says about GPUs, measured: tables in OUTDIR/*.md, in about six minutes. With TOY=1
# the same on a CPU, in three.
#
#     benchmarks/gpu.sh OUTDIR
set -uo pipefail
out=${1:?usage: benchmarks/gpu.sh OUTDIR}
here=$(dirname "$0")
mkdir -p "$out"
device=cuda measure=2 long=60 at_once="1 2 4 8" cases=2 priors=()
if [ -n "${TOY:-}" ]; then
  device=cpu measure=0.1 long=2 at_once="1 2" cases=1 priors=(--prior conv)
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

step speed_paper timeout 90 python "$here/speed.py" --device "$device" --preset paper --seconds "$measure" "${priors[@]}"
step parallel_quality timeout 120 python "$here/parallel.py" --device "$device" --preset quality --seconds "$long" --parallel $at_once
step devices timeout 120 python "$here/devices.py" --device "$device" --cases "$cases"
step speed_quality timeout 40 python "$here/speed.py" --device "$device" --preset quality --preset fast --seconds "$measure" --prior exp-dense
for preset in paper quality; do
  step "doctor_$preset" timeout 60 dap doctor --device "$device" --preset "$preset" --seconds "$measure" "${priors[@]}"
done
step parallel_fast timeout 60 python "$here/parallel.py" --device "$device" --preset fast --seconds "$long" --parallel $at_once
exit "$failed"
