#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# quality.sh [MODEL ...] - perplexity at equal bits: ours, the best peer, plain GPTQ, rounding
#
# Called by "make bench-quality".  MODEL: tiny (default), smol16, smol; what they are and need is in
# peers.sh.  Each row of quality.tsv is quantized by
#     ours      $QP_OURS (default below), sequential as the peers are
#     default   gptq as it is, by Hessians of one forward pass
#     plain     gptq --plain, sequential: GPTQ as published
#     rtn       rounding to nearest
# and the rows of AWQ by smooth --search=w | clip, then rtn (awq) or gptq (awq+gptq).  Perplexity
# and, after it, divergence from full precision, of text 1 and of text 2.  Last comes the loss: the
# mean over the texts of |log(perplexity / that of full precision)|: quantization may lower
# perplexity on a text of which the model knows nothing, which is no gain.  "best": the least loss.
# $QP_ROWS: a regular expression for the rows wanted; $QP_KINDS: the solutions wanted.
# "noted": what the table has from an earlier run (text 1).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
data=${QP_SHARED:-$top/../shared/data}
[ -d "$data/golden" ] || { echo "quality.sh: no shared data at $data" >&2; exit 69; }
ours=${QP_OURS:-gptq --sequential --sweeps=4 --target=full}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
tab=$(printf '\t')

prepare() { # prepare MODEL: its calibration set in front of it; what it predicts unquantized
	wiki=$data/text/wiki.test.raw ctx=2048 n1=8 text1=$wiki text2=
	case $1 in
	tiny)   model=$data/models/TinyStories-656K golden=TinyStories-656K rows="0 1 64" ctx=512
		text1=$data/text/tinystories/niklas6_tinystories.txt n1=33 text2=$wiki n2=40 ;;
	smol)   golden=SmolLM2-135M-Instruct rows="0 2 64" ;;
	smol16) golden=SmolLM2-135M-Instruct rows="0 1 16" ;;
	*)      echo "quality.sh: $1: unknown model" >&2; exit 64 ;;
	esac
	[ "$1" = tiny ] || model=${QP_SMOLLM2:?SmolLM2-135M-Instruct, see fetch-smollm2.sh}
	/usr/bin/python3 -c 'import json, sys
rows = json.load(open(sys.argv[1]))["ids"]
first, step, count = map(int, sys.argv[2:])
for r in rows[first::step][:count]: print(*r)' "$data/golden/calib-$golden.json" $rows |
		calib-pack -q --ids -o "$tmp/calib"
	record-acts -q --stats=none -c "$tmp/calib" "$model" -o "$tmp/front"
	full=$(ppl "$model" --save-logits)
	rm -f "$tmp/acts"
}

recorded() { # recorded: the statistics' stream, made by the first row that wants it
	[ -e "$tmp/acts" ] || record-acts -q -c "$tmp/calib" "$model" -o "$tmp/acts"
	echo "$tmp/acts"
}

awq() { # awq HOW PROGRAM ...: maps and ranges by search, then a program with HOW
	grid=$1
	shift
	smooth -q --search=w $grid "$(recorded)" | clip -q $grid |
		"$@" -q --scale-dtype=f32 $grid -o "$tmp/q"
}

solve() { # solve KIND HOW: $tmp/q
	case $1 in
	ours)    $ours -q --scale-dtype=f32 $2 "$tmp/front" -o "$tmp/q" ;;
	default) gptq -q --scale-dtype=f32 $2 "$(recorded)" -o "$tmp/q" ;;
	plain)   gptq --plain --sequential -q --scale-dtype=f32 $2 "$tmp/front" -o "$tmp/q" ;;
	rtn)     rtn -q --scale-dtype=f32 $2 "$model" -o "$tmp/q" ;;
	awq)     awq "$2" rtn ;;
	awq+gptq) awq "$2" gptq ;;
	esac
}

loss() { # loss PPL1 [PPL2]
	echo "$full" | awk -v a="$1" -v b="${2:-}" '{
		x = log(a / $1); y = b == "" || b == "-" ? x : log(b / $2)
		printf "%.4f", ((x < 0 ? -x : x) + (y < 0 ? -y : y)) / 2 }'
}

ppl() { # ppl STREAM --kl|--save-logits: perplexity[ divergence] of text 1, and of text 2
	text='' n=''
	for i in 1 2; do
		eval "text=\$text$i n=\${n$i:-}"
		[ -n "$text" ] || continue
		eval-ppl -q "$1" -t "$text" --ctx=$ctx --windows="$n" --json "$2=$tmp/base$i" |
			/usr/bin/python3 -c 'import json, sys
r = json.load(sys.stdin)
print("%.4f" % r["ppl"], "%.4f" % r["kl"] if "kl" in r else "")'
	done | tr '\n' ' '
}

[ $# -gt 0 ] || set -- tiny
echo "ours: $ours"
for m; do
	prepare "$m"
	printf '%s\tfull precision\t\t%s\n' "$m" "$full"
	while IFS=$tab read -r who what how peer peer1 peer2 measured; do
		[ "$who" = "$m" ] && echo "$what" | grep -qE "${QP_ROWS:-.}" || continue
		[ "$peer1" = - ] || printf '%s\t%s\tpeer\t%s %s\t%s\t%s\n' \
			"$m" "$what" "$peer1" "${peer2#-}" "$(loss "$peer1" "$peer2")" "$peer"
		[ -z "$measured" ] || printf '%s\t%s\tnoted\t%s\n' "$m" "$what" "$measured"
		kinds=${QP_KINDS:-ours default plain rtn} least=
		[ "${what#AWQ}" = "$what" ] || kinds="awq awq+gptq"
		for k in $kinds; do
			solve $k "$how"
			got=$(ppl "$tmp/q" --kl)
			l=$(loss $(echo "$got" | cut -d ' ' -f 1,3))
			printf '%s\t%s\t%s\t%s\t%s\n' "$m" "$what" $k "$got" "$l"
			least=$(printf '%s\n%s %s\n' "$least" "$l" $k | grep . | sort -n |
				head -n 1)
		done
		printf '%s\t%s\tbest\t%s\n' "$m" "$what" "$least"
	done < "$top/tests/bench/quality.tsv"
done
