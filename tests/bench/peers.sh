#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# peers.sh [MODEL ...] - our perplexities beside the peers' on the rows of peers.tsv
#
# MODEL: tiny (default), smol, smol16.  Needs the shared data ($QP_SHARED or ../shared/data); smol*
# also $QP_SMOLLM2, a directory with SmolLM2-135M-Instruct as safetensors.  $QP_GPTQ: options added
# to every gptq (--sequential, say).  Prints a table; PATH must find the programs.  Status 1 if full
# precision is more than 0.02 % off, an RTN row 0.5 %, the mean of the GPTQ rows 1 % worse.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
data=${QP_SHARED:-$top/../shared/data}
[ -d "$data/golden" ] || { echo "peers.sh: no shared data at $data" >&2; exit 69; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
tab=$(printf '\t')

ids() { # ids GOLDEN FIRST STEP COUNT: rows of ids, one window a line
	/usr/bin/python3 -c 'import json, sys
rows = json.load(open(sys.argv[1]))["ids"]
first, step, count = map(int, sys.argv[2:])
for r in rows[first::step][:count]: print(*r)' "$@"
}

ppl() { # ppl STREAM TEXT CTX WINDOWS
	eval-ppl "$1" -t "$2" --dialect=gptq --ctx="$3" --windows="$4" --json |
		/usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["ppl"])'
}

prepare() { # prepare MODEL: statistics once
	wiki=$data/text/wiki.test.raw
	case $1 in
	tiny)   model=$data/models/TinyStories-656K golden=TinyStories-656K rows="0 1 64" ctx=512
		text1=$data/text/tinystories/niklas6_tinystories.txt n1=33 text2=$wiki n2=40 ;;
	smol)   golden=SmolLM2-135M-Instruct rows="0 2 64" ;;
	smol16) golden=SmolLM2-135M-Instruct rows="0 1 16" ;;
	*)      echo "peers.sh: $1: unknown model" >&2; exit 64 ;;
	esac
	case $1 in
	smol*)  model=${QP_SMOLLM2:?a directory with SmolLM2-135M-Instruct} ctx=2048
		text1=$wiki n1=8 text2= ;;
	esac
	ids "$data/golden/calib-$golden.json" $rows | calib-pack --ids -o "$tmp/calib"
	record-acts "$model" -c "$tmp/calib" -o "$tmp/acts"
}

printf '%-8s %-36s %10s %10s %7s %10s %10s %7s\n' \
	model what ours peer ratio ours peer ratio
[ $# -gt 0 ] || set -- tiny
for m; do
	prepare "$m"
	while IFS=$tab read -r who what how peer1 peer2; do
		[ "$who" = "$m" ] || continue
		case $how in
		-)     cp "$tmp/acts" "$tmp/q" ;;
		gptq*) $how --plain ${QP_GPTQ:-} -q "$tmp/acts" | pack-int4 -q -o "$tmp/q" ;;
		*)     $how -q "$tmp/acts" | pack-int4 -q -o "$tmp/q" ;;
		esac
		p1=$(ppl "$tmp/q" "$text1" $ctx $n1) p2=-
		[ "$peer2" = - ] || p2=$(ppl "$tmp/q" "$text2" $ctx $n2)
		echo "$m$tab$what$tab$p1$tab$peer1$tab$p2$tab$peer2"
	done < "$top/tests/bench/peers.tsv" | awk -F '\t' -v m="$m" '
		function r(a, b) { return b == "-" ? "-" : sprintf("%.4f", a / b) }
		function p(a) { return a == "-" ? a : sprintf("%.4f", a) }
		{ printf "%-8s %-36s %10s %10s %7s %10s %10s %7s\n",
			$1, $2, p($3), p($4), r($3, $4), p($5), p($6), r($5, $6)
		  k = $2 ~ /^GPTQ/ ? "GPTQ" : $2 ~ /^RTN/ ? "RTN" : "full"
		  add(k, log($3 / $4))
		  if ($6 != "-") add(k, log($5 / $6)) }
		function add(k, d) {
			s[k] += d; n[k]++
			if (k == "full" && (d > 2e-4 || d < -2e-4)) bad = 1
			if (k == "RTN" && (d > 5e-3 || d < -5e-3)) bad = 1
		}
		END {
			for (k in n)
				printf "%-8s mean of %s rows: ours / peer = %.4f\n", m, k,
				       exp(s[k] / n[k])
			exit bad || (n["GPTQ"] && s["GPTQ"] / n["GPTQ"] > 0.01)
		}' || status=1
done
exit $status
