#!/usr/bin/env bash
# What a machine with a CUDA GPU is to show, in one go: the tests marked gpu, the time of a step, and the training of the bundle that
# ships. Expected on one NVIDIA H200: tests 2 minutes, estimates 2 minutes, training within MINUTES (default 5) and resumable.
#
#     benchmarks/gpu.sh DATA OUT [MINUTES]     DATA has trainA and trainB; run it from the checkout
set -euo pipefail
data=$1 out=$2 minutes=${3:-5}
mkdir -p "$out"
python -m pytest -m gpu tests | tee "$out/tests.txt"
for recipe in cyclegan seed-unet fast; do
    fruitgan train-gan --data "$data" --recipe "$recipe" --gpu 0 --dry-run --json >"$out/estimate-$recipe.json"
done
fruitgan train-gan --data "$data" --recipe fast --gpu 0 --image-size 256 --batch-size 8 --steps 20000 --max-time "${minutes}m" \
    --name gpu --out "$out/runs" --json >"$out/training.json"
