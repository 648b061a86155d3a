#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gptq.sh - numpy unpacks what to-gptq and to-awq wrote: the weights that the codes stand for
#
# The loaders of transformers want a graphics card, so the layouts are unpacked by hand.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
n=0 bad=0

try() {	# try PROGRAM "OPTIONS" "OPTIONS OF rtn" MODEL
	n=$((n + 1))
	what="$1${2:+ $2} of $(basename "$4"), rtn $3"
	# shellcheck disable=SC2086 # options are words
	if rtn -q $3 "$4" > "$OUT/s.qp" && $1 -q --force $2 "$OUT/s.qp" "$OUT/d" &&
		PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" "$here/gptq_values.py" \
			"$OUT/d" "$OUT/s.qp" > "$OUT/said"; then
		echo "ok $n - $what: $(cat "$OUT/said")"
	else
		bad=$((bad + 1))
		echo "not ok $n - $what"
		sed 's/^/#   /' "$OUT/err"
	fi 2> "$OUT/err"
}

for m in "$here/../data/TinyStories-656K" "${SMOLLM2:-$QP_SHARED/models/SmolLM2-135M}"; do
	if [ ! -e "$m/config.json" ]; then
		n=$((n + 1))
		echo "ok $n # skip $(basename "$m") is not there (SMOLLM2)"
		continue
	fi
	for b in 2 3 4 8; do
		try to-gptq "" "-b $b -g 64" "$m"
	done
	try to-gptq --v2 "-b 4 -g 64 --asym" "$m"
	try to-awq "" "-b 4 -g 64 --asym" "$m"
done
rm -rf "$OUT/s.qp" "$OUT/d"
echo "1..$n"
[ $bad -eq 0 ]
