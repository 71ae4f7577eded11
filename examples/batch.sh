#!/bin/sh
# Restore every WAV file of a folder: examples/batch.sh NOISY_FOLDER RESTORED_FOLDER
# Files that are done are skipped, so that an interrupted batch continues where it stopped. What cannot be restored is
# named at the end, with exit code 5.
set -u
[ -d "$1" ] || { echo "$1: no such folder" >&2; exit 3; }
mkdir -p "$2" || exit 3
failed=
for noisy in "$1"/*.[wW][aA][vV]; do
    restored="$2/$(basename "$noisy")"
    if [ ! -e "$noisy" ] || [ -e "$restored" ]; then
        continue
    fi
    dap denoise "$noisy" "$restored" --quiet --resume
    code=$?
    [ "$code" -lt 128 ] || exit "$code" # interrupted
    [ "$code" -eq 0 ] || failed="$failed
  $noisy"
done
if [ -n "$failed" ]; then
    echo "not restored:$failed" >&2
    exit 5
fi
