#!/usr/bin/env bash
# The papers' tables on a GPU: OUTDIR/tables.md. With TOY=1 tiny fits on a CPU, which only show that it runs.
#
#     benchmarks/paper_tables.sh OUTDIR CLIPS_DIR [options of benchmarks/paper_tables.py]
#
# CLIPS_DIR has the folders digits, speech, piano, drums and noise. The same command again goes on where it was.
set -euo pipefail
out=${1:?usage: benchmarks/paper_tables.sh OUTDIR CLIPS_DIR} clips=${2:?usage: benchmarks/paper_tables.sh OUTDIR CLIPS_DIR}
shift 2
options=(--device cuda --jobs 8)
[ -z "${TOY:-}" ] || options=(--device cpu --jobs 1 --clips 2 --toy)
exec python "$(dirname "$0")/paper_tables.py" "$out" "$clips" "${options[@]}" "$@"
