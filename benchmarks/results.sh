#!/usr/bin/env bash
# The tables of docs/results.md on a CPU, but for the papers' own settings: OUTDIR/NAME/results.md and a page with players.
#
#     benchmarks/results.sh OUTDIR AUDIO [NAME...]
#
# AUDIO has the folders digits, speech, piano, drums and noise with recordings at 16 kHz, and voicebank_demand with
# NAME_clean.wav and NAME_noisy.wav. Every other file of each, by name, counts, for constants were chosen on the rest; of
# noises and pairs all do. With NAMEs it does those steps alone. The same command again goes on where it was.
set -euo pipefail
out=${1:?usage: benchmarks/results.sh OUTDIR AUDIO [NAME...]} audio=$(realpath "${2:?usage: benchmarks/results.sh OUTDIR AUDIO [NAME...]}")
shift 2
chosen=" $* "
export OMP_NUM_THREADS=1
mkdir -p "$out/clips/noisy" "$out/clips/clean"
for kind in digits speech piano drums; do
  ls "$audio/$kind"/*.wav | awk 'NR % 2 == 0' >"$out/clips/$kind.csv"
done
for file in "$audio"/voicebank_demand/*_noisy.wav; do
  name=$(basename "$file" _noisy.wav)
  ln -sf "$file" "$out/clips/noisy/$name.wav"
  ln -sf "${file%_noisy.wav}_clean.wav" "$out/clips/clean/$name.wav"
done
digits=$out/clips/digits.csv speech=$out/clips/speech.csv piano=$out/clips/piano.csv drums=$out/clips/drums.csv
noise=$audio/noise

# step NAME ARGUMENTS...: `dap evaluate` with these, and its tables; a step that fails stops no other.
step() {
  local name=$1
  shift
  case $chosen in "  " | *" $name "*) ;; *) return ;; esac
  printf '\n## %s\n\ndap evaluate %s\n\n' "$name" "$*"
  dap evaluate "$@" --jobs 2 --device cpu --quiet --output-dir "$out/$name" || echo "exit $?"
  cat "$out/$name/results.md"
}

prior=(--prior exp-dense) ensemble=(--prior exp-dense --prior none --no-oracle)
step pairs denoise --noisy "$out/clips/noisy" --clean "$out/clips/clean" "${prior[@]}" --baseline all --no-oracle
for kind in digits speech piano; do
  seconds=2
  [ "$kind" != digits ] || seconds=1
  cut=("${!kind}" --duration "$seconds")
  moving=("${cut[@]}" --protocol environmental --noise "$noise" "${prior[@]}")
  step "environment-$kind" denoise "${moving[@]}" --clips 8 --baseline all
  step "white-$kind" denoise "${cut[@]}" "${prior[@]}" --clips 8 --baseline all
  step "fast-$kind" denoise "${cut[@]}" "${prior[@]}" --clips 8 --preset fast --no-oracle
  for snr in 15 25 -5; do
    step "noise-$snr-$kind" denoise "${moving[@]}" --clips 4 --snr "$snr:$snr" --no-oracle
  done
done
for kind in digits speech piano drums; do
  step "clean-$kind" denoise "${!kind}" --noise-std 0.000001 --duration 1 --clips 6 "${prior[@]}" --no-oracle
done
step profile denoise "$speech" --protocol environmental --noise "$noise" --profile 0.5 --duration 1.2 --clips 12 \
  "${prior[@]}" --baseline all --no-oracle
step gaps-piano inpaint "$piano" --gap 0.02:0.11 --duration 2 "${ensemble[@]}" --baseline janssen
step gaps-speech inpaint "$speech" --gap 0.02:0.06 --duration 2 "${ensemble[@]}" --baseline janssen
step declip declip "$speech" "$piano" "$digits" --clips 18 "${ensemble[@]}" --baseline a-spade
step dequantize dequantize "$speech" "$piano" "$digits" --clips 18 "${ensemble[@]}" --baseline a-spade
for kind in speech digits; do
  seconds=1
  [ "$kind" != speech ] || seconds=2
  step "frames-$kind" inpaint "${!kind}" --protocol frames --duration "$seconds" --clips 12 "${ensemble[@]}" --baseline janssen
  step "dropout-$kind" inpaint "${!kind}" --protocol dropout --duration "$seconds" --clips 12 "${ensemble[@]}" --baseline janssen
done
