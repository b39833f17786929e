#!/usr/bin/env bash
# Checks the CUDA kernels and the engine on this machine's first GPU and measures them, without cargo and without a network:
#
#     ./run FOLDER
#
# FOLDER gets gpu.md, gpu.json and gpu.log, and has them after each part, so that a run that is ended leaves what it has. It
# ends within COTERIE_GPU_SECONDS (530, unless set): every part has a limit, and what no time is left for is said to be left
# out. The status is 0 if every part passed. `cargo xtask gpu --pack` made this.
set -uo pipefail
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER: where gpu.md, gpu.json and gpu.log are to be written" >&2
    exit 2
fi
whole=${COTERIE_GPU_SECONDS:-530}
case $whole in
    '' | *[!0-9]*)
        echo "COTERIE_GPU_SECONDS is $whole; it must be a number of seconds" >&2
        exit 2
        ;;
esac
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
# Programs, kernels and golden checkpoints, small enough to be carried.
mkdir "$work/rest" && timeout 60 tar -xzf "$here/rest.tar.gz" -C "$work/rest" || exit 2
here=$work/rest
if ! timeout 10 "$here/bin/coterie" --version >/dev/null; then
    echo "programs cannot be started from $work; set TMPDIR to a folder from which they can" >&2
    exit 2
fi
export COTERIE_CUBINS="$here/cubins" PYTHONUNBUFFERED=1 RUST_BACKTRACE=0

# What figures are to be read beside, a line each.
machine() { [ -z "$2" ] || printf '%s\t%s\n' "$1" "$2" >>"$work/machine"; }
machine date "$(date -u '+%Y-%m-%d %H:%M UTC')"
machine command "${COTERIE_GPU_COMMAND:-run}"
machine GPU "$(timeout 10 nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit,clocks.max.sm --format=csv,noheader 2>/dev/null | head -n 1)"
machine processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1), $(nproc) cores"
machine kernel "$(uname -sr)"
machine CUDA "$(timeout 10 nvcc --version 2>/dev/null | sed -n 's/.*\(release.*\)/nvcc \1/p')"
[ ! -f "$here/made" ] || cat "$here/made" >>"$work/machine"

# Writes what there is until now. One file has all logs, as some machines give few files back.
report() {
    for log in "$work"/*.log; do
        printf '\n==== %s\n' "$(basename "$log" .log)"
        # The end says more than the middle.
        tail -c 1000000 "$log"
    done >"$out/gpu.log"
    timeout 10 "$here/bin/xtask" gpu --report "$work" "$out"
}

# Whoever ends this run ends the part that runs, too.
running=
stopped() {
    [ -z "$running" ] || kill "$running" 2>/dev/null
    ended "${name:-run}" "CUT OFF" "$SECONDS" "the run was ended from outside"
    exit 1
}
trap stopped TERM INT HUP

# left MOST: seconds that a part may take, some kept back for the report.
left() {
    local rest=$((whole - SECONDS - 15))
    echo $((rest < $1 ? rest : $1))
}

# ended NAME STATE SECONDS WHY
ended() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$work/parts"
    printf '[%3d s] %s: %s%s\n' "$SECONDS" "$1" "$2" "${4:+ ($4)}"
    report >/dev/null 2>&1
}

# part NAME MOST COMMAND…: runs it for so many seconds at most, and keeps what it prints. The status is the command's.
part() {
    local most began=$SECONDS status
    name=$1
    most=$(left "$2")
    shift 2
    if [ "$most" -lt 5 ]; then
        ended "$name" "LEFT OUT" 0 "no time was left"
        return 0
    fi
    printf '[%3d s] %s: at most %d s\n' "$SECONDS" "$name" "$most"
    # In the background, since a trap waits for what runs in the foreground.
    timeout --kill-after=5 "$most" "$@" >"$work/$name.log" 2>&1 &
    running=$!
    wait "$running"
    status=$?
    running=
    case $status in
        0) ended "$name" passed $((SECONDS - began)) "" ;;
        124 | 137) ended "$name" "CUT OFF" $((SECONDS - began)) "it did not end within $most s" ;;
        *)
            ended "$name" FAILED $((SECONDS - began)) "status $status"
            sed '/^$/d' "$work/$name.log" | grep -A 8 -m 1 'panicked at' || sed '/^$/d' "$work/$name.log" | tail -n 9
            ;;
    esac | cut -c 1-300
    return "$status"
}

# checks NAME MOST PROGRAM FOLDER [PATTERN]: each test of a program in a process of its own, as after a fault a process can do
# nothing more; all of them within so many seconds. The status says how many did not pass.
checks() {
    local began=$SECONDS failed=0 test tests
    tests=$(timeout 10 "$3" --ignored --list --format terse | sed -n 's/: test$//p' | grep "${5:-.}")
    if [ -z "$tests" ]; then
        ended "$1" FAILED 0 "$3 has no tests ${5:-}"
        return 1
    fi
    for test in $tests; do
        part "$1-$test" $(($2 - SECONDS + began)) env CARGO_MANIFEST_DIR="$4" "$3" --ignored --nocapture --exact "$test" ||
            failed=$((failed + 1))
    done
    return "$failed"
}

# without NAME WHY
without() {
    printf '%s\n' "$2" >"$work/$1.log"
    ended "$1" SKIPPED 0 "$2"
}

python=$(command -v python3 || true)
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
kernels=$here/checkout/kernels

checks kernels 70 "$here/bin/kernels" "$kernels" '^[a-z]_'
if ! checks kernels 30 "$here/bin/kernels" "$kernels" '^hopper'; then
    # All that follows can still be had by the other products.
    export COTERIE_WGMMA=off
    machine "Hopper's products" "OFF, since they did not pass their checks"
fi
checks engine 60 "$here/bin/engine" "$here/checkout/runtime/engine"
# model NAME QUANTIZATION MORE…
model() {
    part "model-$1" 70 "$here/bin/coterie" bench gpu --config "$here/qwen3-30b-a3b" --quantization "$2" "${@:3}" -o json
}
model int4 int4 --batch 1,16,64
model none none --batch 1,16,64
# Random weights of a few layers, written first to a folder that goes when this ends.
mkdir "$work/loaded"
model load int4 --batch 1 --load "$work/loaded"
part speed 110 "$here/bin/speed"
if [ -z "$python" ]; then
    without peers "there is no python3 here"
elif ! timeout 30 "$python" -c 'import torch, triton' 2>/dev/null; then
    without peers "python3 has no torch and triton here"
else
    part peers 120 "$python" "$here/gpu_peers.py"
fi
for tool in memcheck racecheck; do
    if [ -z "$sanitizer" ]; then
        without "$tool" "compute-sanitizer is not installed here"
    else
        part "$tool" 60 env CARGO_MANIFEST_DIR="$kernels" COTERIE_GPU_SLABS=off \
            "$sanitizer" --tool "$tool" --error-exitcode 86 "$here/bin/kernels" --ignored --nocapture --test-threads=1
    fi
done

report
status=$?
printf '[%3d s] written: %s\n' "$SECONDS" "$out"
exit "$status"
