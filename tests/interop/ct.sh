#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ct.sh - transformers and compressed-tensors load what to-ct wrote: their logits are ours
set -eu

here=$(cd "$(dirname "$0")" && pwd)
ok=0 bad=0

# Rounding of activations hangs on the last bits of the sums before, so that single values fall to
# the other side: then half of the tokens must agree, of a deep model none that closely.
try() {	# try MODEL WHAT TOLERANCE SHARE WORST, the stream in $OUT/s.qp
	rm -rf "$OUT/d"
	to-ct -q "$OUT/s.qp" "$OUT/d"
	qp-forward -q -i "$OUT/ids" "$OUT/s.qp" > "$OUT/l.qp"
	if PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" "$here/ct.py" "$OUT/d" \
		"$OUT/ids" "$OUT/l.qp" "$3" "$4" "$5" > "$OUT/said" 2> "$OUT/err"; then
		ok=$((ok + 1))
		echo "ok $((ok + bad)) - $1: $2: $(cat "$OUT/said")"
	else
		bad=$((bad + 1))
		echo "not ok $((ok + bad)) - $1: $2: $(cat "$OUT/said")"
		tail -n 5 "$OUT/err" | sed 's/^/#   /'
	fi
}

model() {	# model DIR SHARE WORST
	name=$(basename "$1")
	if [ ! -e "$1/config.json" ]; then
		ok=$((ok + 1))
		echo "ok $((ok + bad)) # skip $name is not there"
		return
	fi
	for m in 3 5; do
		awk -v m=$m 'BEGIN {
			for (t = 0; t < 48; t++) printf "%d ", (t * t * m + 7 * t + m) % 2000
			print "" }'
	done > "$OUT/ids"
	rtn -q -g 64 "$1" | pack-int4 > "$OUT/s.qp"
	try "$name" "W4A16 of 64" 1e-3 1 1e-3
	rtn -q -g 32 --asym "$1" | pack-int4 > "$OUT/s.qp"
	try "$name" "W4A16 of 32, asymmetric" 1e-3 1 1e-3
	rtn -q -g 64 "$1" | quant-acts -q -b 8 --rule=ct > "$OUT/s.qp"
	try "$name" "W4A8 dynamic" 1e-3 "$2" "$3"
	rtn -q --format=e4m3 "$1" > "$OUT/s.qp"
	try "$name" "FP8, weights" 1e-3 1 1e-3
	quant-acts -q -p fp8 "$OUT/s.qp" "$OUT/t.qp" && mv "$OUT/t.qp" "$OUT/s.qp"
	try "$name" "FP8 dynamic" 1e-3 "$2" "$3"
	rtn -q -b 8 -g -1 "$1" | quant-acts -q -b 8 --rule=ct > "$OUT/s.qp"
	try "$name" "W8A8 dynamic" 1e-3 "$2" "$3"
	rtn -q -g 64 "$1" | quant-acts -q -e none --kv=8 > "$OUT/s.qp"
	try "$name" "W4A16, keys and values in 8 bits" 1e-3 "$2" "$3"
	record-acts -q --stats=none "$1" | rotate -q --block=128 -r r3,r4 |
		rtn -q -g 64 > "$OUT/s.qp"
	try "$name" "W4A16, turned at run time" 1e-3 1 1e-3
	rm -f "$OUT/s.qp"
}

model "$QP_SHARED/models/TinyStories-656K" 0.5 5e-2
model "${SMOLLM2:-$QP_SHARED/models/SmolLM2-135M}" 0 2e-1
echo "1..$((ok + bad))"
[ $bad -eq 0 ]
