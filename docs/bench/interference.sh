#!/usr/bin/env bash
# How long two answers wait for their next tokens while one prompt of 2000 tokens after another is computed beside them: in
# chunks of one size, and in chunks that are to keep a time between tokens.
# usage: interference.sh COTERIE MODEL_DIR [int8 [further flags of serve]] > runs.jsonl
set -euo pipefail
coterie=$1 model=$2 quantization=${3:-int8} more=("${@:4}")
here=$(dirname "$0")
url=http://127.0.0.1:18090
server=
trap '[[ -z $server ]] || kill $server' EXIT

for chunks in 'mixed-prompt-tokens 64' 'mixed-prompt-tokens 128' 'mixed-prompt-tokens 512' \
    'itl-milliseconds 50' 'itl-milliseconds 100' 'itl-milliseconds 200' 'itl-milliseconds 400'; do
    read -r flag value <<< "$chunks"
    "$coterie" serve --model "$model" --quantization "$quantization" --host 127.0.0.1 --port 18090 --context 4096 \
        --max-running 8 --cache-tokens 16384 --speculate none "--$flag" "$value" --drain-seconds 1 "${more[@]}" 2> /tmp/interference.log &
    server=$!
    until curl -sf "$url/ready" > /dev/null; do
        kill -0 $server
        sleep 0.5
    done
    decode=(python3 "$here/load.py" "$url" --streams 2 --seconds 20 --prompt-tokens 32 --generate 1500 --extra '{"ignore_eos": true}')
    [[ $value == 64 ]] && "${decode[@]}" --label "answers, no prompt beside them" --seed 1
    "${decode[@]}" --label "answers, $chunks" --seed 2 &
    answers=$!
    python3 "$here/load.py" "$url" --label "prompts, $chunks" --streams 1 --seconds 20 --prompt-tokens 2000 --generate 1 --seed 3
    wait $answers
    kill $server
    wait $server || true
    server=
done
