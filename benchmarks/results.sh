#!/usr/bin/env bash
# The tables of docs/results.md that are from a CPU: OUTDIR/NAME/results.md, and a page with players. It takes hours.
#
#     benchmarks/results.sh OUTDIR AUDIO [NAME...]
#
# AUDIO has the folders digits, speech, piano, drums and noise with recordings at 16 kHz, and voicebank_demand with
# NAME_clean.wav and NAME_noisy.wav. Of the first four every other file counts, for constants were chosen on the rest; in
# the Design paper's tables all do. With NAMEs it does those steps alone. The same command again goes on where it was.
set -euo pipefail
out=${1:?usage: benchmarks/results.sh OUTDIR AUDIO [NAME...]} audio=$(realpath "${2:?usage: benchmarks/results.sh OUTDIR AUDIO [NAME...]}")
shift 2
chosen=" $* "
export OMP_NUM_THREADS=1
mkdir -p "$out/clips/noisy" "$out/clips/clean"
for kind in digits speech piano drums; do
  ls "$audio/$kind"/*.wav | awk 'NR % 2 == 0' >"$out/clips/$kind.csv"
done
# The halves of separation: of real pianos, and of rendered ones.
printf '%s\n' "$audio"/piano/real*.wav "$audio"/piano/[!r]*.wav | awk 'NR % 2 == 0' >"$out/clips/pianos.csv"
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
for kind in digits speech; do
  filled=(inpaint "$audio/$kind" --clips 12 "${ensemble[@]}" --baseline janssen)
  step "frames-$kind" "${filled[@]}" --protocol frames --put-back
  step "dropout-$kind" "${filled[@]}" --protocol dropout
done

pianos=$out/clips/pianos.csv
classical=(--baseline hpss --baseline librosa-hpss --baseline median-filters --baseline nmf)
for seed in 0 1; do
  step "separate-$seed" separate "$pianos" "$drums" --seed "$seed" "${prior[@]}" "${classical[@]}" --no-oracle
done
step separate-speech-piano separate "$speech" "$pianos" --types voice,harmonic "${prior[@]}" "${classical[@]}" --no-oracle
step separate-speech-drums separate "$speech" "$drums" --types voice,percussive --clips 12 "${prior[@]}" "${classical[@]}" \
  --no-oracle

# The Design paper's tables as a CPU bears them: fewer channels, frames and iterations.
priors=(--prior conv --prior dilated --prior exp --prior exp-dense)
small=(--base-channels 8 --hop 0.016)
for kind in digits speech; do
  step "table3-$kind" inpaint "$audio/$kind" --protocol paper --clips 12 --iterations 200 --hop 0.016 --base-channels 16 \
    "${priors[@]}" --curves
done
step table4 separate "$audio/piano" "$audio/drums" --protocol paper --preset double-dip --clips 12 --base-channels 8 \
  --iterations 300 "${priors[@]}" --baseline hpss --no-oracle
for kind in digits speech piano; do
  step "table2-$kind" denoise "$audio/$kind" --protocol paper --noise "$noise" --clips 6 --iterations 200 "${small[@]}" \
    "${priors[@]}" --curves
done
for kind in digits speech piano; do ls "$audio/$kind"/*.wav | head -2; done >"$out/clips/six.csv"
step figure2 denoise "$out/clips/six.csv" --protocol paper --iterations 300 "${small[@]}" --curves --prior conv \
  --prior exp-dense --prior harmonic
