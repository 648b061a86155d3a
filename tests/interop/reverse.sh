#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# reverse.sh - what other people's programs wrote is read to the logits of their own loaders
#
# Every directory of $QP_SHARED/interop that has golden logits; cli/gguf and cli/broken look at its
# GGUF files and at those that must be refused.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
n=0 bad=0
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"

golden() {	# golden DIR
	"$PYTHON" "$here/reverse.py" ids "$1" > "$OUT/ids" &&
		qp-forward -q -i "$OUT/ids" "$1" > "$OUT/l.qp" &&
		"$PYTHON" "$here/reverse.py" compare "$1" "$OUT/l.qp" > "$OUT/said"
}

for d in "$QP_SHARED"/interop/*/golden.safetensors; do
	d=$(dirname "$d")
	n=$((n + 1))
	: > "$OUT/said"
	if [ ! -d "$d" ]; then
		echo "ok $n # skip no $QP_SHARED/interop"
	elif golden "$d" 2> "$OUT/err"; then
		echo "ok $n - $(basename "$d"): $(cat "$OUT/said")"
	else
		bad=$((bad + 1))
		echo "not ok $n - $(basename "$d"): $(cat "$OUT/said")"
		sed 's/^/#   /' "$OUT/err"
	fi
done
echo "1..$n"
[ $bad -eq 0 ]
