#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# plot.sh TSV SVG - the rows of "make bench" that have an aim: how far beyond it each is
#
# A bar a row, 1 is the aim, further right is better whichever way the row counts.  Needs gnuplot;
# where there is none it says so, and that is all.
set -eu
tsv=$1 svg=$2
if ! command -v gnuplot > /dev/null; then
	echo "plot: no gnuplot here, no $svg"
	exit 0
fi
data=$(mktemp)
trap 'rm -f "$data"' EXIT
awk -F '\t' '
	/^#/ || $5 == "" || $4 + 0 <= 0 { next }
	$5 ~ /^>=/ { sub(/>= */, "", $5); v = $4 / $5 }
	$5 ~ /^<=/ { sub(/<= */, "", $5); v = $5 / $4 }
	$5 ~ /^[0-9.]+-[0-9.]+$/ {
		split($5, a, "-")
		v = 1
		if ($4 < a[1]) v = $4 / a[1]
		if ($4 > a[2]) v = a[2] / $4
	}
	{ gsub(/["\\]/, "", $2); printf "\"%s  %s\"\t%.4f\n", $1, $2, v }' "$tsv" > "$data"
rows=$(wc -l < "$data")
if [ "$rows" -eq 0 ]; then
	echo "plot: no row has an aim, no $svg"
	exit 0
fi
gnuplot <<-END
	set terminal svg size 1100,$((80 + 18 * rows)) font "sans,11"
	set output "$svg"
	set title "$(sed -n '1s/^# //p' "$tsv" | tr -d '"\\')"
	set xlabel "times the aim (1: met)"
	set logscale x 2
	set xrange [0.5:*]
	set yrange [$rows:-1]
	set ytics out nomirror
	set style fill solid 0.6 noborder
	set arrow from 1, -1 to 1, $rows nohead lw 2
	unset key
	plot "$data" using 2:0:(\$2 < 1 ? \$2 : 1):(\$2 < 1 ? 1 : \$2): \\
		(\$0 - 0.35):(\$0 + 0.35):ytic(1) with boxxyerror
END
echo "plot: $svg"
