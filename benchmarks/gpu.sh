#!/usr/bin/env bash
# What a machine with a CUDA GPU is to show, a question a call. Expected on one NVIDIA H200: tests 4 minutes, steps 5, compiled 9 (the
# compiler's), sweep 3, inference 4, quality four times MINUTES and a few more, training MINUTES and at most four more. None has been run on a GPU yet.
#
#     benchmarks/gpu.sh tests|steps|compiled|sweep OUT
#     benchmarks/gpu.sh inference OUT DATA              translate, train-detector and evaluate there and on the CPU, DATA as for training
#     benchmarks/gpu.sh quality OUT DATA [MINUTES]      how soon four recipes' pictures are good at 128 px, 3 minutes of each
#     benchmarks/gpu.sh training OUT DATA [MINUTES]     DATA has trainA and trainB; the tests, then 8 minutes of `fruit` at 256 px, resumable
#
# Run it from the checkout; results are added to files in OUT. `DEVICE=cpu SIZE=64 STEPS=2` rehearses the training without a GPU.
set -euo pipefail
question=$1 out=$2 device=${DEVICE:-cuda} size=${SIZE:-256}
mkdir -p "$out"
[ "$device" = cpu ] || nvidia-smi >"$out/machine.txt"

run_tests() { # three minutes at most; a failure is no reason to know nothing of what follows
    timeout 180 python -m pytest -m gpu tests 2>&1 | tee "$out/tests.txt" || true
}

time_steps() { # what is asked of benchmarks/train_step.py beside the recipe
    local recipe
    for recipe in seed-unet cyclegan fast fruit; do
        python benchmarks/train_step.py --recipe "$recipe" --device "$device" --image-size "$size" --batch-size 1 --rounds 10 --repeats 10 "$@" 2>&1 |
            tee -a "$out/steps.txt" || true # one recipe's failure is no reason to know nothing of the others
    done
}

case $question in
tests)
    run_tests
    ;;
steps)
    time_steps --precision bf16,fp32
    time_steps --precision bf16 --eager
    time_steps --precision bf16 --contiguous
    ;;
compiled)
    time_steps --precision bf16 --compile
    ;;
sweep)
    for recipe in seed-unet cyclegan; do
        python benchmarks/scaling.py --recipe "$recipe" --device "$device" --precision bf16 --batches 1,2,4,8,16,32 --rounds 10 |
            tee -a "$out/sweep.txt"
    done
    ;;
inference)
    data=$3 gpu=${GPU:-0} pictures=${PICTURES:-960}
    for generator in shipped unet-256; do
        python benchmarks/translate.py --generator "$generator" --pictures "$pictures" --gpu "$gpu" | tee -a "$out/inference.txt"
    done
    [ -d "$out/dataset" ] || fruitgan export-dataset --data "$data" --bundle apple2orange --out "$out/dataset" --quiet
    for where in "$gpu" none; do
        echo "--gpu $where: train-detector, then evaluate's features (nothing cached)" | tee -a "$out/inference.txt"
        { time fruitgan train-detector --data "$out/dataset" --gpu "$where" --epochs 5 --out "$out/detectors-$where" --json; } 2>&1 | tee -a "$out/inference.txt"
        { time FRUITGAN_CACHE=$(mktemp -d) fruitgan evaluate --fake-dir "$out/dataset/predicted" --attackers spectrum --quick \
            --features random,efficientnet-lite1 --gpu "$where" --out "$out/evaluation-$where" --json; } 2>&1 | tee -a "$out/inference.txt"
    done
    ;;
quality)
    data=$3 minutes=${4:-3}
    for recipe in fast narrow cyclegan seed-unet; do
        python benchmarks/time_to_quality.py --data "$data" --out "$out/quality" --recipe "$recipe" --minutes "$minutes" --every 0.25 \
            --device "$device" --judges random,colour,fruit-embed ${STEPS:+--images 8} || true
    done
    ;;
training)
    data=$3 minutes=${4:-8}
    [ -d "$out/runs" ] || run_tests
    [ -d "$out/runs/profile" ] ||
        fruitgan train-gan --data "$data" --recipe seed-unet --precision bf16 --device "$device" \
            --steps "${STEPS:-500}" --profile --name profile --out "$out/runs"
    new=(--data "$data" --recipe fruit --batch-size 4 --image-size "$size" --steps 20000 --keep 1 --name gpu) # against pretrained features, at 256 px
    [ -d "$out/runs/gpu" ] && new=(--resume gpu --data "$data")
    fruitgan train-gan "${new[@]}" --device "$device" --max-time "${minutes}m" --out "$out/runs" --json >"$out/training.json"
    ;;
*)
    echo "gpu.sh: $question: expected tests, steps, compiled, sweep, inference, quality or training" >&2
    exit 2
    ;;
esac
