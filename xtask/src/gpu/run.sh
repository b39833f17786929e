#!/usr/bin/env bash
# Checks the CUDA kernels and the engine on this machine's first GPU and measures them, without cargo and without a network:
#
#     ./run FOLDER
#
# FOLDER gets gpu.md, gpu.json and gpu.log. It ends within COTERIE_GPU_SECONDS (530, unless set): every part has a limit, and
# what no time is left for is said to be left out. The status is 0 if every part passed. `cargo xtask gpu --pack` made this.
set -uo pipefail
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER: where gpu.md, gpu.json and gpu.log are to be written" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
# Programs, kernels and golden checkpoints, small enough to be carried.
mkdir "$work/rest" && tar -xzf "$here/rest.tar.gz" -C "$work/rest" || exit 2
here=$work/rest
whole=${COTERIE_GPU_SECONDS:-530}
export COTERIE_CUBINS="$here/cubins" PYTHONUNBUFFERED=1 RUST_BACKTRACE=0

# What figures are to be read beside, a line each.
machine() { [ -z "$2" ] || printf '%s\t%s\n' "$1" "$2" >>"$work/machine"; }
machine date "$(date -u '+%Y-%m-%d %H:%M UTC')"
machine command "${COTERIE_GPU_COMMAND:-run}"
machine GPU "$(nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit,clocks.max.sm --format=csv,noheader 2>/dev/null | head -n 1)"
machine processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1), $(nproc) cores"
machine kernel "$(uname -sr)"
machine CUDA "$(nvcc --version 2>/dev/null | sed -n 's/.*\(release.*\)/nvcc \1/p')"
[ ! -f "$here/made" ] || cat "$here/made" >>"$work/machine"

# left MOST: seconds that a part may take, some kept back for the report.
left() {
    local rest=$((whole - SECONDS - 15))
    echo $((rest < $1 ? rest : $1))
}

# ended NAME STATE SECONDS WHY
ended() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$work/parts"
    printf '[%3d s] %s: %s%s\n' "$SECONDS" "$1" "$2" "${4:+ ($4)}"
}

# part NAME MOST COMMAND…: runs it for so many seconds at most, and keeps what it prints.
part() {
    local name=$1 most began=$SECONDS status
    most=$(left "$2")
    shift 2
    if [ "$most" -lt 5 ]; then
        ended "$name" "LEFT OUT" 0 "no time was left"
        return
    fi
    printf '[%3d s] %s: at most %d s\n' "$SECONDS" "$name" "$most"
    timeout --kill-after=5 "$most" "$@" >"$work/$name.log" 2>&1
    status=$?
    case $status in
        0) ended "$name" passed $((SECONDS - began)) "" ;;
        124 | 137) ended "$name" "CUT OFF" $((SECONDS - began)) "it did not end within $most s" ;;
        *)
            ended "$name" FAILED $((SECONDS - began)) "status $status"
            sed '/^$/d' "$work/$name.log" | tail -n 9 | sed 's/^/        /'
            ;;
    esac
}

# without NAME WHY
without() {
    printf '%s\n' "$2" >"$work/$1.log"
    ended "$1" SKIPPED 0 "$2"
}

python=$(command -v python3 || true)
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)

part kernels 120 env CARGO_MANIFEST_DIR="$here/checkout/kernels" "$here/bin/kernels" --ignored --nocapture
part speed 150 "$here/bin/speed"
part engine 120 env CARGO_MANIFEST_DIR="$here/checkout/runtime/engine" "$here/bin/engine" --ignored --nocapture
if [ -z "$python" ]; then
    without peers "there is no python3 here"
elif ! "$python" -c 'import torch, triton' 2>/dev/null; then
    without peers "python3 has no torch and triton here"
else
    part peers 120 "$python" "$here/gpu_peers.py"
fi
if ! "$here/bin/coterie" bench gpu --help >/dev/null 2>&1; then
    without model "this coterie has no command bench gpu"
else
    # model NAME QUANTIZATION MORE…
    model() {
        part "model-$1" 80 "$here/bin/coterie" bench gpu --config "$here/qwen3-30b-a3b" --quantization "$2" "${@:3}" -o json
    }
    model int4 int4 --batch 1,16,64
    model none none --batch 1,16,64
    # Random weights of a few layers, written first to a folder that goes when this ends.
    mkdir "$work/loaded"
    model load int4 --batch 1 --load "$work/loaded"
fi
for tool in memcheck racecheck; do
    if [ -z "$sanitizer" ]; then
        without "$tool" "compute-sanitizer is not installed here"
    else
        part "$tool" 75 env CARGO_MANIFEST_DIR="$here/checkout/kernels" \
            "$sanitizer" --tool "$tool" --error-exitcode 86 "$here/bin/kernels" --ignored --nocapture
    fi
done

# One file has all logs, as some machines give few files back.
for log in "$work"/*.log; do
    printf '\n==== %s\n' "$(basename "$log" .log)"
    cat "$log"
done >"$out/gpu.log"
"$here/bin/xtask" gpu --report "$work" "$out"
status=$?
printf '[%3d s] written: %s\n' "$SECONDS" "$out"
exit "$status"
