#!/bin/sh
# Restore every WAV file of a folder: examples/batch.sh NOISY_FOLDER RESTORED_FOLDER
# Files that are done are skipped, so that an interrupted batch continues where it stopped.
set -eu
mkdir -p "$2"
for noisy in "$1"/*.wav; do
    restored="$2/$(basename "$noisy")"
    [ -e "$restored" ] || dap denoise "$noisy" "$restored" --quiet
done
