#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo.sh [MODEL CALIB EVAL] - quantize a model to 4 bits in three ways and compare
#
# MODEL is a Hugging Face directory of the Llama family, CALIB and EVAL are text files; without
# them the small model and the stories in tests/data.  Installs what is missing (as root, else it
# says what to install), builds, and works in a temporary directory that it removes.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case $# in
0) set -- "$root/tests/data/TinyStories-656K" "$root/tests/data/tinystories-calib.txt" \
	"$root/tests/data/tinystories-eval.txt" ;;
3) set -- "$(realpath "$1")" "$(realpath "$2")" "$(realpath "$3")" ;;
*) echo "usage: sh demo.sh [MODEL CALIB EVAL]" >&2; exit 64 ;;
esac
model=$1 calib=$2 eval=$3
cd "$root"
. pipelines/setup.sh
setup_packages $BUILD_PACKAGES
setup_build all
PATH=$(realpath "${BUILD:-build}")/bin:$PATH

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp"

now() { date +%s%N; }
size() { wc -c < "$1"; }
row() {	# row NAME MODEL BYTES [START]: evaluate, and print a line of the table
	end=$(now)
	eval-ppl -q --ctx=512 --json "$2" < "$eval" > ppl.json
	ppl=$(sed 's/.*"ppl": *\([0-9.]*\).*/\1/' ppl.json)
	awk -v n="$1" -v p="$ppl" -v b="$3" -v t=$((end - ${4:-end})) 'BEGIN {
		printf "%-24s %12.4f %12d %10s\n", n, p, b, t ? sprintf("%.2f s", t / 1e9) : "" }'
}

printf '\n%-24s %12s %12s %10s\n' '' perplexity bytes time
row 'full precision' "$model" "$(cat "$model"/*.safetensors | wc -c)"

start=$(now)
record-acts -q --stats=none "$model" | rtn -b 4 | pack-int4 -o rtn.qp
row 'RTN, 4 bits' rtn.qp "$(size rtn.qp)" "$start"

start=$(now)
calib-pack -q -m "$model" --sampling=sequential --nsamples=64 --seqlen=512 "$calib" -o calib.qp
record-acts -q -c calib.qp "$model" | gptq -q -b 4 | pack-int4 -o gptq.qp
row 'GPTQ, 4 bits' gptq.qp "$(size gptq.qp)" "$start"

start=$(now)
record-acts -q -c calib.qp "$model" | smooth -a 0.5 | gptq -q -b 4 | pack-int4 -o smooth.qp
row 'smooth, GPTQ, 4 bits' smooth.qp "$(size smooth.qp)" "$start"

echo
echo "The last one was made by this pipeline (with PATH=${PATH%%:*}:\$PATH):"
echo "MODEL='$model' CALIB=calib.qp"
echo "calib-pack -m \"\$MODEL\" --sampling=sequential --nsamples=64 --seqlen=512" \
	"'$calib' > \"\$CALIB\""
echo "$(qp-ls --provenance smooth.qp) > smooth.qp"
