#!/usr/bin/env bash
# What a machine with a CUDA GPU is to show, in one go: the tests marked gpu, the time of a step as CUDA graphs and without, how it
# grows with the batch, where it goes, and the training of the bundle that ships. Expected on one NVIDIA H200: tests 3 minutes, steps 4,
# sweep 3, profile 1, training within MINUTES (default 5) and resumable. It has not been run yet.
#
#     benchmarks/gpu.sh DATA OUT [MINUTES]     DATA has trainA and trainB; run it from the checkout
set -euo pipefail
data=$1 out=$2 minutes=${3:-5}
mkdir -p "$out"
nvidia-smi >"$out/machine.txt"
python -m pytest -m gpu tests | tee "$out/tests.txt"
for recipe in seed-unet cyclegan fast; do
    for way in "" --eager; do
        python benchmarks/train_step.py --recipe "$recipe" --device cuda --precision bf16,fp32 --rounds 10 --repeats 10 $way |
            tee -a "$out/steps.txt"
    done
done
for recipe in seed-unet cyclegan; do
    python benchmarks/scaling.py --recipe "$recipe" --device cuda --precision bf16 --batches 1,2,4,8,16,32 --rounds 10 |
        tee -a "$out/sweep.txt"
done
fruitgan train-gan --data "$data" --recipe seed-unet --precision bf16 --gpu 0 --steps 500 --profile --name profile --out "$out/runs"
fruitgan train-gan --data "$data" --recipe fast --gpu 0 --image-size 256 --batch-size 8 --steps 20000 --max-time "${minutes}m" \
    --name gpu --out "$out/runs" --json >"$out/training.json"
