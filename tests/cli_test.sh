#!/bin/bash
# Every bad input of the command line: the exit code, and one line on stderr. Then a small training from end to end.
#   cli_test.sh LENET MLP [CACHE]     programs of two networks, a folder of compiled kernels
set -u
lenet=$(realpath "$1") mlp=$(realpath "$2") cache=${3:-off}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

complain() {
    echo "FAILED: $1"
    sed 's/^/    /' out err
    failures=$((failures + 1))
}
# attempt PROGRAM ARGUMENT...: runs it; what it wrote is in out and err. Without a line of the address sanitizer's own: Halide
# compiles on a stack it has switched to.
attempt() {
    "$@" >out 2>err
    local got=$?
    sed -i "/ASan doesn't fully support makecontext/d" err
    return $got
}
# fails CODE PATTERN PROGRAM ARGUMENT...: exits with CODE; stderr is one line that starts with the program's name and
# contains PATTERN.
fails() {
    local code=$1 pattern=$2 name
    shift 2
    name=$(basename "$1")
    attempt "$@"
    local got=$?
    if [ $got != "$code" ]; then complain "exit code $got instead of $code: $*"
    elif [ "$(wc -l <err)" != 1 ]; then complain "not one line on stderr: $*"
    elif ! grep -q "^$name: error: .*$pattern" err; then complain "stderr lacks '$pattern': $*"
    fi
}
succeeds() {
    local pattern=$1
    shift
    attempt "$@"
    local got=$?
    if [ $got != 0 ]; then complain "exit code $got: $*"
    elif [ -s err ]; then complain "stderr is not empty: $*"
    elif ! grep -q -- "$pattern" out; then complain "stdout lacks '$pattern': $*"
    fi
}

# number FILE N: appends N as four bytes, the highest first.
number() { printf "\\x$(printf %02x $(($2 >> 24 & 255)))\\x$(printf %02x $(($2 >> 16 & 255)))\\x$(printf %02x $(($2 >> 8 & 255)))\\x$(printf %02x $(($2 & 255)))" >>"$1"; }
# images FILE COUNT, labels FILE COUNT: black and noise in turn; labels 0, 1, ..., 9, 0, ...
images() {
    printf '\0\0\10\3' >"$1"; number "$1" "$2"; number "$1" 28; number "$1" 28
    local i
    for ((i = 0; i < $2; i++)); do
        if ((i % 2)); then head -c 784 "$lenet" >>"$1"; else head -c 784 /dev/zero >>"$1"; fi
    done
}
labels() {
    printf '\0\0\10\1' >"$1"; number "$1" "$2"
    local i
    for ((i = 0; i < $2; i++)); do printf "\\x0$((i % 10))" >>"$1"; done
}
# dataset FOLDER TRAIN TEST
dataset() {
    mkdir "$1"
    images "$1/train-images-idx3-ubyte" "$2"; labels "$1/train-labels-idx1-ubyte" "$2"
    images "$1/t10k-images-idx3-ubyte" "$3"; labels "$1/t10k-labels-idx1-ubyte" "$3"
}
dataset good 41 20
small=(--batch 16 --cache "$cache")

# Usage
fails 2 "subcommand" "$lenet"
fails 2 "--nonsense" "$lenet" compile --nonsense
fails 2 "subcommand" "$lenet" nonsense
fails 2 "-o is required" "$lenet" compile
fails 2 "data" "$lenet" train
fails 2 "batch" "$lenet" train --data good --batch 0
fails 2 "batch" "$lenet" compile -o lib --batch -3
fails 2 "epochs" "$lenet" train --data good --epochs 0
fails 2 "epochs" "$lenet" train --data good --epochs many
fails 2 "learning-rate" "$lenet" train --data good --learning-rate nan
fails 2 "learning-rate" "$lenet" train --data good --learning-rate -1
fails 2 "limit" "$lenet" train --data good --limit 0
fails 2 "threads" "$lenet" eval --data good --load x --threads -1
fails 2 "networks are: lenet" "$lenet" inspect --network other
fails 2 "same file" "$lenet" train --data good --save x --log x
fails 2 "with --emit" "$lenet" compile -o lib --mode train
fails 2 "mode" "$lenet" compile --emit plan --mode sideways
succeeds "compile" "$lenet" --help
fails 2 "mode" "$lenet" bench --mode sideways
fails 2 "seconds" "$lenet" bench --seconds 0
fails 2 "threads" "$lenet" bench --threads many
for command in compile train eval inspect bench tune; do succeeds "--network" "$lenet" $command --help; done

# Data
fails 1 "'none' is no folder" "$lenet" train --data none
fails 1 "is no folder" "$lenet" eval --data good/t10k-images-idx3-ubyte --load x
bad() { rm -rf bad; cp -r good bad; }
bad; rm bad/t10k-labels-idx1-ubyte; fails 1 "t10k-labels-idx1-ubyte" "$lenet" train --data bad
bad; truncate -s -1 bad/train-images-idx3-ubyte; fails 1 "truncated" "$lenet" train --data bad
bad; truncate -s +1 bad/train-images-idx3-ubyte; fails 1 "more bytes" "$lenet" train --data bad
bad; labels bad/train-images-idx3-ubyte 41; fails 1 "wrong magic number 00000801" "$lenet" train --data bad
bad; labels bad/train-labels-idx1-ubyte 40; fails 1 "40 labels for 41 images" "$lenet" train --data bad
bad; printf '\xff\xff\xff\xff' | dd of=bad/train-images-idx3-ubyte bs=1 seek=4 conv=notrunc status=none
fails 1 "1 GiB" "$lenet" train --data bad
bad; printf '\xfa' | dd of=bad/t10k-labels-idx1-ubyte bs=1 seek=10 conv=notrunc status=none
fails 1 "label 250 of sample 2 is out of range, 0 to 9" "$lenet" eval --data bad --load x
bad; gzip bad/train-images-idx3-ubyte; truncate -s -9 bad/train-images-idx3-ubyte.gz
fails 1 "gzip" "$lenet" train --data bad
bad; printf '\0\0\10\3' >bad/t10k-images-idx3-ubyte; number bad/t10k-images-idx3-ubyte 20
number bad/t10k-images-idx3-ubyte 784; number bad/t10k-images-idx3-ubyte 1
head -c 15680 /dev/zero >>bad/t10k-images-idx3-ubyte; fails 1 "takes \[n, 1, 28, 28\]" "$lenet" train --data bad

# Outputs that cannot be written are known before the training starts, and nothing is left behind.
for option in --save --log; do
    fails 1 "'none/x' cannot be written" "$lenet" train --data good $option none/x
    fails 1 "'good' cannot be written" "$lenet" train --data good $option good
done
fails 1 "'none/x' cannot be written" "$lenet" bench --svg none/x
fails 1 "good/t10k-images-idx3-ubyte" "$lenet" compile -o good/t10k-images-idx3-ubyte
fails 1 "target" "$lenet" compile -o lib --target pdp-11
[ "$(ls)" = "$(printf 'bad\nerr\ngood\nlib\nout')" ] || { ls; complain "files are left behind"; }

# Stages
succeeds "^graph" "$lenet" compile --emit help
succeeds "conv2d" "$lenet" compile --emit graph
succeeds "phase 0" "$lenet" compile --emit plan --mode train
succeeds "phase 0" "$lenet" compile --emit plan --math strict
fails 2 "strict,measured,fast" "$lenet" compile --emit plan --math none
fails 1 "nonsense" "$lenet" compile --emit nonsense
fails 1 "no kernel" "$lenet" compile --emit stmt --kernel nonsense
succeeds "15.weight" "$lenet" inspect
succeeds '"phases"' "$lenet" inspect --json

# From end to end
succeeds "kernels" "$lenet" compile -o lib --batch 16 --cache "$cache"
for file in liblenet.a lenet.h; do [ -s lib/$file ] || complain "no $file"; done
succeeds "^epoch 2/2" "$lenet" train --data good --epochs 2 "${small[@]}" --threads 2 --save a.safetensors --log a.csv
[ "$(head -n 1 a.csv)" = epoch,step,train_loss,train_accuracy,test_loss,test_accuracy,images_per_second,seconds ] ||
    complain "columns of the log"
accuracy=$(tail -n 1 a.csv | cut -d, -f6)
succeeds "test accuracy $accuracy," "$lenet" eval --data good --load a.safetensors "${small[@]}"
succeeds "after 6 steps" "$lenet" inspect --checkpoint a.safetensors --batch 16 --cache "$cache"
succeeds "^epoch 2/2" "$lenet" train --data good --epochs 2 "${small[@]}" --save b.safetensors --threads 1
cmp -s a.safetensors b.safetensors || complain "one thread trains something else than two"
# Four batches of 10 and one sample, which has no batch statistics.
succeeds "the last 1 of 41 samples" "$lenet" train --data good --epochs 1 --batch 10 --cache "$cache"
fails 1 "too few" "$lenet" train --data good --limit 1 "${small[@]}"

# Times
times=("${small[@]}" --seconds 0.01)
succeeds "^lenet train, batch 16, 2 threads: .* ms a step, .* images/s" "$lenet" bench "${times[@]}" --threads 2
succeeds "^mlp infer, batch 16, 1 thread: " "$mlp" bench --mode infer "${times[@]}" --threads 1
succeeds "^lenet evaluate, batch 1, " "$lenet" bench --mode evaluate --seconds 0.01 --batch 1 --cache "$cache"
fails 1 "batch" "$lenet" bench --seconds 0.01 --batch 1 --cache "$cache"
succeeds "^phase 2: .* ms, .* of the step, waiting" "$lenet" bench "${times[@]}" --threads 2 --profile
for line in "GFLOP/s of multiply-adds" "profiling itself adds" "waiting .*%;" "conv2d_grad_weight c=6" "memory .* GB/s"; do
    grep -q "$line" out || complain "the profile lacks '$line'"
done
succeeds '"ms_kernels"' "$lenet" bench "${times[@]}" --profile --json
succeeds '"ms_median"' "$lenet" bench "${times[@]}" --json
grep -q '"profile"' out && complain "a profile that nobody asked for"
succeeds "waiting" "$lenet" bench "${times[@]}" --svg step.svg
grep -q "lenet train, batch 16" step.svg || complain "no picture"
echo 0.01 >lines; echo 0.02 >>lines
succeeds '"ms_median"' "$lenet" bench "${times[@]}" --serve <lines
[ "$(wc -l <out)" = 2 ] || complain "not an answer a line"
echo soon >lines
fails 1 "'soon' is no number of seconds" "$lenet" bench "${times[@]}" --serve <lines

# Schedules
tuned=(--schedules tuned.db)
fails 2 "'soon' is no duration" "$lenet" tune "${tuned[@]}" --budget soon
fails 2 "these are: .*conv2d_grad_weight" "$lenet" tune "${tuned[@]}" nonsense c=3
fails 2 "'c' is not name=value" "$lenet" tune "${tuned[@]}" conv2d c
fails 1 "kernel 'conv2d .*nonsense=3'" "$lenet" tune "${tuned[@]}" conv2d nonsense=3
fails 1 "nothing to tune" "$lenet" tune "${tuned[@]}" --kernel nonsense
fails 2 "not in {all,kernels,step}" "$lenet" tune "${tuned[@]}" --part nonsense
succeeds "^infer step of lenet: [0-9]* of [0-9]* decisions taken otherwise" "$lenet" tune --part step --mode infer --batch 16 --budget 3s --schedules step.db
fails 1 "missing.db" "$lenet" compile -o lib --batch 16 --schedules missing.db
succeeds "^linear c=24 k=16 lanes=.* the generator's own choice; .* timed" "$lenet" tune linear c=24 k=16 --budget 2s "${tuned[@]}"
succeeds "^linear | c=24 k=16 lanes=" "$lenet" schedules export "${tuned[@]}"
mv out tuned.schedules
succeeds "^1 schedules" "$lenet" schedules import tuned.schedules --schedules other.db
succeeds "^1 schedules" "$lenet" schedules export again.schedules --schedules other.db
cmp -s tuned.schedules again.schedules || complain "a database that was exported and imported differs"
echo nonsense >nonsense.schedules
fails 1 "'nonsense' is no line of schedules" "$lenet" schedules import nonsense.schedules --schedules other.db
"$lenet" tune --budget 300s --batch 16 --explain "${tuned[@]}" >out 2>err &
for ((i = 0; i < 600; i++)); do # until the search has begun
    [ -s out ] && break
    sleep 0.1
done
sleep 1
kill -INT $!
wait $! && complain "an interrupted search succeeds"
grep -q "^lenet: error: interrupted; what was found is in 'tuned.db'" err || complain "an interrupted search"
succeeds "phase 0" "$lenet" compile --emit plan --mode train --batch 16 "${tuned[@]}"

# Checkpoints
fails 1 "none.safetensors" "$lenet" eval --data good --load none.safetensors "${small[@]}"
fails 1 "another model" "$mlp" eval --data good --load a.safetensors "${small[@]}"
head -c -1 a.safetensors >c.safetensors
fails 1 "c.safetensors" "$lenet" eval --data good --load c.safetensors "${small[@]}"
cp a.safetensors c.safetensors
printf '\x55' | dd of=c.safetensors bs=1 seek=$(($(stat -c %s a.safetensors) - 100)) conv=notrunc status=none
fails 1 "c.safetensors" "$lenet" inspect --checkpoint c.safetensors --batch 16 --cache "$cache"
fails 1 "c.safetensors" "$lenet" train --data good --load c.safetensors "${small[@]}" --save a.safetensors
cmp -s a.safetensors b.safetensors || complain "a failed load changes the file to be saved"

# A training that diverges saves nothing.
fails 1 "layer '.*', kernel '.*': a" "$mlp" train --data good --epochs 20 --learning-rate 1e38 --check-finite "${small[@]}" --save a.safetensors
fails 1 "diverged" "$mlp" train --data good --epochs 20 --learning-rate 1e38 "${small[@]}" --save a.safetensors
cmp -s a.safetensors b.safetensors || complain "a diverged training saves"

[ $failures = 0 ] && echo "all passed"
[ $failures = 0 ]
