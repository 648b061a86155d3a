#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# compare.sh OLD NEW - two tables of "make bench", row by row
#
# Called by "make bench-compare" with tests/bench/bench.tsv, the last that was committed.  A row of
# which the ratio got worse by more than a fifth, measured undisturbed, is marked; status 1 if there
# is one.  Rows are found by name, but for what stands in parentheses.
set -eu
if [ ! -s "$2" ]; then
	echo "compare: $2: not there yet; make bench writes it" >&2
	exit 66
fi
for f in "$1" "$2"; do sed -n "1s|^# |$f: |p" "$f"; done
if [ "$(sed -n '1s/, [^,]* processors.*//p' "$1")" != \
     "$(sed -n '1s/, [^,]* processors.*//p' "$2")" ]; then
	echo "measured on different processors: only ratios say something, and those not much"
fi
awk -F '\t' '
	/^#/ { next }
	{ key = $1 "\t" $2; gsub(/ *\([^)]*\)/, "", key) }
	FNR == NR { old[key] = $4; next }
	!head++ { printf "%-9s %-64s %9s %9s %8s\n", "row", "what", "before", "now", "change" }
	!(key in old) { if ($4 != "") printf "%-9s %-64s %9s %9s\n", $1, $2, "-", $4; next }
	old[key] == "" || $4 == "" || old[key] + 0 == 0 { delete old[key]; next }
	{
		r = $4 / old[key]
		bad = $6 == "" && ($5 ~ /^>=/ && r < 0.8 || $5 ~ /^<=/ && r > 1.25)
		printf "%-9s %-64s %9s %9s %+7.1f %%  %s\n", $1, $2, old[key], $4,
		       100 * (r - 1), bad ? "WORSE" : $6
		worse += bad
		delete old[key]
	}
	END { exit worse > 0 }' "$1" "$2"
