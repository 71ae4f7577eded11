#!/usr/bin/env bash
# The Harmonic paper's Figure 1 (sines in noise, six times: OUTDIR/sines) and Figure 4 (CLIP in noise, with the ablations:
# OUTDIR/clip): curves.svg, curves.csv and, in results.md, the SNR after some iterations.
#
#     benchmarks/curves.sh OUTDIR CLIP [options of dap evaluate]
#
# As the paper has it on a GPU; on a core of a CPU, --base-channels 16 --hop 0.016 --iterations 400 takes 20 minutes.
# The same command again goes on where it was.
set -euo pipefail
usage="usage: benchmarks/curves.sh OUTDIR CLIP [options of dap evaluate]"
out=${1:?$usage} clip=${2:?$usage}
shift 2
mkdir -p "$out/clips"
python - "$out/clips" <<'PYTHON'
import sys

import numpy as np
import soundfile

seconds = np.arange(8_000) / 16_000
for seed in range(6):
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 3)
    sines = (0.3 * np.sin(2 * np.pi * hertz * seconds + phase) for hertz, phase in zip((1000, 2000, 3000), phases))
    soundfile.write(f"{sys.argv[1]}/sines{seed}.wav", sum(sines), 16_000)
PYTHON
priors=(--prior harmonic --prior conv7 --prior dilated7 --prior wave-unet)
ablations=(--prior harmonic-1 --prior harmonic-nomix)
settings=(--curves --preset harmonic-paper "$@")
dap evaluate denoise "$out/clips" --duration 0.5 "${priors[@]}" "${settings[@]}" --output-dir "$out/sines"
dap evaluate denoise "$clip" "${priors[@]}" "${ablations[@]}" "${settings[@]}" --output-dir "$out/clip"
