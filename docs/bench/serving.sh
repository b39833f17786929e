#!/usr/bin/env bash
# The same load on `coterie serve` and on llama.cpp's server, one after the other; prints one JSON object a run.
# usage: serving.sh COTERIE MODEL_DIR LLAMA_SERVER BF16_GGUF Q8_0_GGUF > runs.jsonl
set -euo pipefail
coterie=$1 model=$2 llama=$3 bf16=$4 q8_0=$5
here=$(dirname "$0")
url=http://127.0.0.1:18090
threads=$(nproc)
server=
trap '[[ -z $server ]] || kill $server' EXIT

# measure LABEL READY_PATH COMMAND...: all runs on one server
measure() {
    local label=$1 ready=$2
    shift 2
    "$@" > "/tmp/serving-${label// /-}.log" 2>&1 &
    server=$!
    until curl -sf "$url$ready" > /dev/null; do
        kill -0 $server
        sleep 0.5
    done
    for shared in 0 448; do
        for run in "1 6" "4 12" "16 32" "64 64"; do
            read -r streams requests <<< "$run"
            # A shared beginning is to be found by every stream, so each has had it once before the clock starts.
            python3 "$here/load.py" "$url" --label "$label" --streams "$streams" --requests "$requests" \
                --prompt-tokens 512 --shared-tokens $shared --generate 64 --seed "$streams" \
                --warm-up $((shared > 0 ? streams : 1)) --extra '{"ignore_eos": true}'
        done
    done
    echo "{\"label\": \"$label\", \"peak_rss_mb\": $(($(grep -oP 'VmHWM:\s+\K\d+' /proc/$server/status) / 1024))}"
    kill $server
    wait $server || true
    server=
}

# 64 requests of 1024 tokens fit in either's cache.
ours=(--model "$model" --host 127.0.0.1 --port 18090 --context 1024 --max-running 64 --cache-tokens 65536 --drain-seconds 1)
theirs=(--host 127.0.0.1 --port 18090 --parallel 64 --ctx-size 65536 --threads "$threads" --threads-batch "$threads")
measure "coterie bf16" /ready "$coterie" serve "${ours[@]}"
measure "llama.cpp bf16" /health "$llama" --model "$bf16" "${theirs[@]}"
measure "coterie int8" /ready "$coterie" serve "${ours[@]}" --quantization int8
measure "llama.cpp q8_0" /health "$llama" --model "$q8_0" "${theirs[@]}"
