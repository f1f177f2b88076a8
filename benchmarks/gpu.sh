#!/usr/bin/env bash
# Eight minutes on a GPU, the most important first: tests/cuda, then bfloat16 throughput. What ran before the time is up stays, in *.part.
#   benchmarks/gpu.sh [OUTPUT]    MINUTES=8 DEVICE=cuda BATCH=128, and MORE for further options of the benchmark, such as --short
set -uo pipefail
cd "$(dirname "$0")/.."
output=${1:-bench-output/gpu}
end=$((SECONDS + ${MINUTES:-8} * 60))
mkdir -p "$output"

part() {
    local name=$1 left=$((end - SECONDS))
    shift
    if ((left < 15)); then
        echo "$name: not begun, the time is up"
        return
    fi
    echo "$name: $*"
    timeout --signal INT "$left" "$@" > "$output/$name.log" 2>&1
    echo "$name: exit status $? after $((SECONDS)) s; $output/$name.log"
}

throughput() {
    part "$1" python -m benchmarks.throughput --device "${DEVICE:-cuda}" --dtypes bfloat16 --rounds 4 --batch-sizes "${BATCH:-128}" \
        --modes "$2" --forms "$3" --models "${@:4}" --output "$output/$1.json" ${MORE:-}
}

part tests python -m pytest tests/cuda -n 0 -q
throughput inference inference eager assemble_resnet50 convnext_tiny regnetz_040_h tf_efficientnet_b6
throughput training training eager assemble_resnet50 convnext_tiny regnetz_040_h
throughput inference_compiled inference optimized assemble_resnet50 convnext_tiny
throughput training_compiled training optimized assemble_resnet50
