#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench.sh [T8 T10 export tasks ...] - the figures of README.md, as ratios measured in one run
#
# Called by "make bench".  Rows of whole programs are measured here; rows of kernels come from the
# programs of tests/bench/*.c, which print the same TSV: row, what, value, ratio, target (none: for
# orientation); they too take the rows wanted.  All rows end in $BUILD/bench/bench.tsv and in the
# table.  A ratio is a median over interleaved runs; a row during which other processes used more
# than 6 % of the machine says so.  Status 1 when a ratio misses its target by more than a fifth,
# or perplexities (peers.sh) leave their tolerances.
#
# $QP_TORCH: a Python with PyTorch, for T7 and T17 (default python3).
# $QP_LLAMACPP: llama.cpp's folder of programs (or $QP_IMATRIX: its llama-imatrix), for T3, T4
# and T13, with $QP_IMATRIX_GGUF, a GGUF of the model in $QP_SMOLLM2 in F32, and $QP_GGUF_BF16.
# $QP_LLMC_SECONDS: see rows.sh.  $QP_SHARED: models and texts for the comparison with peers.  What
# is not there is said in a row of its own.
set -eu
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
PATH=$BUILD/bin:$BUILD/bench/tools:$PATH
PYTHON=${PYTHON:-/usr/bin/python3}
data=$PWD/tests/data
mkmodel=$PWD/tests/mkmodel.py
cores=$(nproc)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
tsv=$BUILD/bench/bench.tsv
wanted=" $* "
: "${QP_IMATRIX:=${QP_LLAMACPP:+$QP_LLAMACPP/llama-imatrix}}"
cpu() { sed -n "s/^$1[^:]*: //p" /proc/cpuinfo | head -n 1; }
machine="$(uname -m), $(cpu 'model name') (family $(cpu 'cpu family'), model $(cpu 'model	'))"
echo "# $machine, $cores processors, $(date -u +%Y-%m-%d)" > "$tsv"

want() { [ "$wanted" = "  " ] || case $wanted in *" $1 "*) ;; *) return 1 ;; esac; }
emit() { printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$5" "${6:-}" >> "$tsv"; }
calc() { awk "BEGIN { printf \"%.${2:-3}f\", ($1) }"; }
# Column C of a file, its median; the largest.
median() { awk -v c="$2" '{ print $c }' "$1" | sort -g | awk '{ v[NR] = $1 }
	END { printf "%.6f", v[int((NR + 1) / 2)] }'; }
largest() { awk -v c="$2" '$c > m { m = $c } END { print m + 0 }' "$1"; }
noise() { awk -v n="$(median "$1" 4)" 'BEGIN { if (n > 0.06) printf "others %d %%", 100 * n }'; }

# A calibration set of N windows of 512 random ids below VOCAB.
windows() {	# windows N VOCAB > calib
	awk -v n="$1" -v v="$2" 'BEGIN { srand(1)
		for (i = 0; i < n; i++) {
			for (t = 0; t < 512; t++) printf "%d ", 3 + int(rand() * (v - 3))
			print ""
		} }' | calib-pack -q --ids
}

# The main job; costs of the stages are appended to $tmp/NAME.1 to .4, of the whole to NAME.
spill=	# an option of record-acts
job() {	# job NAME MODEL CALIB [PREFIX...]
	name=$tmp/$1
	cat > "$tmp/job.sh" <<-END
		measure $name.1 record-acts -q -c "$3" "$2" |
			measure $name.2 smooth -q -a 0.5 |
			measure $name.3 gptq -q -b 4 -g 64 |
			measure $name.4 pack-int4 -q -o "$tmp/q.bin"
	END
	shift 3
	measure "$name" "$@" sh "$tmp/job.sh"
}

# Models with blocks as in one of 135 million and of 7 billion weights; each made once.
shape() {	# shape 135M|7B LAYERS: sets model and its widths
	case $1 in
	135M) hidden=576 ffn=1536 kv=192 heads=9 kv_heads=3 ;;
	7B)   hidden=4096 ffn=11008 kv=4096 heads=32 kv_heads=32 ;;
	esac
	model=$tmp/$1.$2
	[ -d "$model" ] || "$PYTHON" "$mkmodel" "$model" hidden=$hidden ffn=$ffn heads=$heads \
		kv=$kv_heads layers="$2" vocab=2048 dtype=BF16
}
calibrate() {	# calibrate WINDOWS: sets calib
	calib=$tmp/c$1
	[ -s "$calib" ] || windows "$1" 2048 > "$calib"
}

. tests/bench/rows.sh

# T4: llama-imatrix, which sums up the diagonals of the Hessians only, over the same text.
imatrix() {
	if [ ! -x "${QP_IMATRIX:-}" ] || [ ! -f "${QP_IMATRIX_GGUF:-}" ] ||
	   [ ! -d "${QP_SMOLLM2:-}" ]; then
		emit T4 "not measured: QP_IMATRIX, QP_IMATRIX_GGUF, QP_SMOLLM2" "" "" ""
		return
	fi
	peer_text
	calib-pack -q -m "$QP_SMOLLM2" --sampling=sequential --nsamples=12 --seqlen=512 \
		"$tmp/t4.txt" > "$tmp/t4.qp"
	cat "$QP_IMATRIX_GGUF" "$QP_SMOLLM2"/*.safetensors > /dev/null
	for i in 1 2 3; do
		measure "$tmp/t4.them" "$QP_IMATRIX" -m "$QP_IMATRIX_GGUF" -f "$tmp/t4.txt" -c 512 \
			--chunks 12 --no-ppl -t "$cores" -o "$tmp/t4.gguf" > "$tmp/t4.log" 2>&1
		measure "$tmp/t4.h" record-acts -q -S hessian -c "$tmp/t4.qp" "$QP_SMOLLM2" \
			> /dev/null
		measure "$tmp/t4.main" record-acts -q -c "$tmp/t4.qp" "$QP_SMOLLM2" > /dev/null
	done
	them=$(median "$tmp/t4.them" 1)
	for what in h:"record-acts -S hessian" main:"  the main job's statistics"; do
		t=$(median "$tmp/t4.${what%%:*}" 1)
		cat "$tmp/t4.them" "$tmp/t4.${what%%:*}" > "$tmp/t4.both"
		emit T4 "${what#*:}, 12 x 512 tokens, tokens/s / llama-imatrix's" \
			"$(calc "6144 / $t" 0) tok/s" "$(calc "$them / $t")" ">= 1" \
			"$(noise "$tmp/t4.both")"
	done
	emit T4 "  peak RSS / llama-imatrix's" "$(calc "$(largest "$tmp/t4.h" 3) / 1e6" 0) MB" \
		"$(calc "$(largest "$tmp/t4.h" 3) / $(largest "$tmp/t4.them" 3)")" ""
}

# T8, T11, T15: the main job on four blocks, 32 x 512 tokens.
main_job() {
	shape 135M 4
	calibrate 32
	job warm "$model" "$calib"
	for i in 1 2 3; do
		floors $hidden $ffn $kv 4 16384 512 "$cores" >> "$tmp/floors"
		job j "$model" "$calib"
		files
		if want T15; then
			job one "$model" "$calib" taskset -c 0
		fi
	done
	wall=$(median "$tmp/j" 1)
	floor=$(awk '{ print $1 + $2 + $3 }' "$tmp/floors" > "$tmp/floor"; median "$tmp/floor" 1)
	if want T8; then
		emit T8 "main job, 4 blocks of 135M shapes, 32 x 512 tokens, wall / floors" \
			"$(calc "$wall" 2) s" "$(calc "$wall / $floor")" "<= 1.3" \
			"$(noise "$tmp/j")"
		emit T8 "  processor time / ($cores x floors), whatever the neighbours do" \
			"$(calc "$(median "$tmp/j" 2)" 2) s" \
			"$(calc "$(median "$tmp/j" 2) / ($cores * $floor)")" ""
		emit T8 "  processor time / ($cores x wall)" "$(calc "$(median "$tmp/j" 2)" 2) s" \
			"$(calc "$(median "$tmp/j" 2) / ($cores * $wall)")" ">= 0.9" \
			"$(noise "$tmp/j")"
	fi
	if want T11; then
		emit T11 "main job through pipes / stage after stage from files" \
			"$(calc "$wall" 2) s" \
			"$(calc "$wall / $(median "$tmp/files" 1)")" "<= 1.03" \
			"$(noise "$tmp/files")"
		stream_share
	fi
	if want profile; then profile; fi
	if want T15; then
		threads_by_hand
		emit T15 "main job, 1 processor / $cores" "$(calc "$(median "$tmp/one" 1)" 2) s" \
			"$(calc "$(median "$tmp/one" 1) / $wall")" ">= 1.8" "$(noise "$tmp/one")"
		for t in 1 "$cores"; do
			for i in 1 2 3; do
				measure "$tmp/t$t" record-acts -q -j "$t" -c "$calib" "$model" \
					> /dev/null
			done
		done
		emit T15 "  record-acts, -j 1 / -j $cores" "$(calc "$(median "$tmp/t1" 1)" 2) s" \
			"$(calc "$(median "$tmp/t1" 1) / $(median "$tmp/t$cores" 1)")" ">= 1.85" \
			"$(noise "$tmp/t1")"
	fi
}

files() {
	cat > "$tmp/files.sh" <<-END
		record-acts -q -c "$calib" "$model" > "$tmp/a"
		smooth -q -a 0.5 "$tmp/a" > "$tmp/b"
		gptq -q -b 4 -g 64 "$tmp/b" > "$tmp/c"
		pack-int4 -q "$tmp/c" > "$tmp/d"
	END
	measure "$tmp/files" sh "$tmp/files.sh"
}

# What the three hops of the main job cost: the processor time of "cat | qp-check", which reads,
# writes a pipe, reads it and hashes, over the same bytes.
stream_share() {
	for i in 1 2 3; do
		measure "$tmp/hops" sh -c "for f in a b c; do cat $tmp/\$f | qp-check || exit; done"
	done
	emit T11 "  reading, writing, hashing / all processor time" \
		"$(calc "$(median "$tmp/hops" 2)" 2) s" \
		"$(calc "$(median "$tmp/hops" 2) / $(median "$tmp/j" 2)")" "<= 0.03"
}

# T14: peak RSS of each stage of job NAME beside the formula; all sizes in bytes.  Sets sum.
resident() {	# resident NAME SHAPE HIDDEN-STATES
	weights="(2 * $hidden * $hidden + 2 * $kv * $hidden + 3 * $ffn * $hidden)"
	hessians="(3 * $hidden * $hidden + $ffn * $ffn)"
	slice="2048 * 4 * 2 * ($hidden + $ffn)"
	name=$1 what=$2
	set -- "$3 + $weights * 4 + $hessians * 4 + $slice" \
		"($weights + $hessians) * 4" \
		"($weights + $hessians + 2 * $ffn * $ffn + $ffn * $hidden) * 4" \
		"$ffn * $hidden * 1.5"
	stage=0 sum=0
	for f; do
		stage=$((stage + 1))
		rss=$(largest "$tmp/$name.$stage" 3)
		sum=$(calc "$sum + $rss" 0)
		p=$(echo record-acts smooth gptq pack-int4 | cut -d ' ' -f $stage)
		emit T14 "$p, $what, peak RSS / (1.15 formula + 25 MB)" \
			"$(calc "$rss / 1e6" 0) MB" "$(calc "$rss / (1.15 * ($f) + 25e6)")" "<= 1"
	done
}

# T14: 128 x 512 tokens through blocks of 135M shapes; a block of 7B shapes, whose hidden states are
# in a file, so that its memory is the same for 128 x 2048 tokens.
memory() {
	shape 135M 4
	calibrate 128
	job r "$model" "$calib"
	resident r "135M, 128 x 512" "65536 * $hidden * 4"
	emit T14 "all four stages, 135M, 128 x 512 / 450 MB" "$(calc "$sum / 1e6" 0) MB" \
		"$(calc "$sum / 450e6")" "<= 1"
	shape 7B 1
	calibrate 16
	spill=--spill=$tmp
	job w "$model" "$calib"
	spill=
	resident w "7B, --spill" 0
	rss=$(largest "$tmp/w.1" 3)
	emit T14 "record-acts, 7B, --spill / 4.2 GB" "$(calc "$rss / 1e9" 2) GB" \
		"$(calc "$rss / 4.2e9")" "<= 1"
	rss=$(largest "$tmp/w.3" 3)
	emit T14 "gptq, 7B / 3.1 GB" "$(calc "$rss / 1e9" 2) GB" "$(calc "$rss / 3.1e9")" "<= 1"
}

# T10: the model in tests/data, programs started cold.
small_job() {
	calib-pack -q -m "$data/TinyStories-656K" --sampling=sequential --nsamples=64 --seqlen=512 \
		"$data/tinystories-calib.txt" > "$tmp/tiny.calib"
	for i in 1 2 3 4 5; do
		job s "$data/TinyStories-656K" "$tmp/tiny.calib"
	done
	emit T10 "main job, 0.66M weights, 64 x 512 tokens, cold, s" \
		"$(calc "$(median "$tmp/s" 1)") s" \
		"$(calc "$(median "$tmp/s" 1)")" "<= 1" "$(noise "$tmp/s")"
	rss=0
	for stage in 1 2 3 4; do rss=$(calc "$rss + $(largest "$tmp/s.$stage" 3)" 0); done
	emit T10 "  peak RSS of its four programs together, MB" "$(calc "$rss / 1e6" 0) MB" \
		"$(calc "$rss / 1e6" 1)" "<= 120"
}

# T12, second half: records that nobody knows, through a filter, beside cat.
unknown_records() {
	record-acts -q --stats=none "$data/TinyStories-656K" | stuff 64 > "$tmp/big"
	for i in 1 2 3 4 5; do
		measure "$tmp/cat" sh -c "cat $tmp/big | cat | cat > /dev/null"
		measure "$tmp/pass" sh -c "cat $tmp/big | rtn -q -b 4 | cat > /dev/null"
	done
	emit T12 "1 GiB of unknown records through rtn, beside cat" \
		"$(calc "1.074 / $(median "$tmp/pass" 1)" 2) GB/s" \
		"$(calc "$(median "$tmp/cat" 1) / $(median "$tmp/pass" 1)")" ">= 0.9" \
		"$(noise "$tmp/pass")"
	rm -f "$tmp/big"
}

# T16: twice the tokens, twice the blocks, from where a program's start is a hundredth of the time.
growth() {
	shape 135M 2
	calibrate 64
	c64=$calib
	calibrate 128
	for i in 1 2 3 4 5; do
		measure "$tmp/g.64" record-acts -q -c "$c64" "$model" > /dev/null
		measure "$tmp/g.128" record-acts -q -c "$calib" "$model" > /dev/null
	done
	emit T16 "record-acts, twice the tokens: time" "$(calc "$(median "$tmp/g.128" 1)" 2) s" \
		"$(calc "$(median "$tmp/g.128" 1) / $(median "$tmp/g.64" 1)")" "1.95-2.05" \
		"$(noise "$tmp/g.128")"
	emit T16 "  peak RSS without hidden states" \
		"$(calc "$(median "$tmp/g.128" 3) / 1e6" 0) MB" \
		"$(calc "($(median "$tmp/g.128" 3) - 65536 * $hidden * 4) / \
			($(median "$tmp/g.64" 3) - 32768 * $hidden * 4)")" "<= 1.05"
	more_blocks
}

# Twice the blocks.  A job takes something besides its blocks: the programs start, and behind the
# last block of record-acts gptq is alone.  So the time of eight further blocks is set against
# that of four further ones, and that constant has a line of its own.
more_blocks() {
	calibrate 32
	shape 135M 4
	four=$model
	shape 135M 8
	eight=$model
	shape 135M 12
	for i in 1 2 3 4 5; do
		job g4 "$four" "$calib"
		job g8 "$eight" "$calib"
		job g12 "$model" "$calib"
	done
	t4=$(median "$tmp/g4" 1) t8=$(median "$tmp/g8" 1) t12=$(median "$tmp/g12" 1)
	emit T16 "main job, eight more blocks / four more: time" "$(calc "$t12" 2) s" \
		"$(calc "($t12 - $t4) / ($t8 - $t4)")" "1.95-2.05" "$(noise "$tmp/g12")"
	emit T16 "  time that does not grow / that of a block" "$(calc "2 * $t4 - $t8") s" \
		"$(calc "(2 * $t4 - $t8) / (($t8 - $t4) / 4)")" ""
	for stage in 1 3; do
		p=$(echo record-acts smooth gptq | cut -d ' ' -f $stage)
		emit T16 "  peak RSS of $p" "$(calc "$(median "$tmp/g8.$stage" 3) / 1e6" 0) MB" \
			"$(calc "$(median "$tmp/g8.$stage" 3) / $(median "$tmp/g4.$stage" 3)")" \
			"<= 1.05"
	done
}

# T16: operations a second of record-acts, hidden 4096 beside 576, files and all.  For a token in
# a block: two a weight, 2 T hidden of causal attention, the triangles of the Hessians.
wider() {
	set --
	for s in 135M:4:32 7B:1:32; do
		shape "${s%%:*}" "$(echo $s | cut -d : -f 2)"
		calibrate "${s##*:}"
		set -- "$@" "${s%%:*}" "$model" "$calib" "$(calc "${s##*:} * 512 * \
			$(echo $s | cut -d : -f 2) * (2 * (2 * $hidden * $hidden + \
			2 * $kv * $hidden + 3 * $ffn * $hidden) + 2 * 512 * $hidden + \
			3 * $hidden * $hidden + $ffn * $ffn)" 0)"
	done
	for i in 1 2; do
		measure "$tmp/wide.$1" record-acts -q -c "$3" "$2" > /dev/null
		measure "$tmp/wide.$5" record-acts -q -c "$7" "$6" > /dev/null
	done
	narrow=$(calc "$4 / $(median "$tmp/wide.$1" 1) / 1e9" 1)
	wide=$(calc "$8 / $(median "$tmp/wide.$5" 1) / 1e9" 1)
	emit T16 "record-acts, GF/s at 7B / at 135M shapes ($narrow)" "$wide GF/s" \
		"$(calc "$wide / $narrow")" ">= 1" "$(noise "$tmp/wide.$5")"
}

# T18: how long a program takes to start, and a pipeline that has next to nothing to do.
start() {
	worst=0 which=
	for p in "$BUILD"/bin/*; do
		rm -f "$tmp/start"
		for i in 1 2 3 4 5 6 7 8 9; do measure "$tmp/start" "$p" --help > /dev/null; done
		t=$(median "$tmp/start" 1)
		if [ "$(calc "$t > $worst" 0)" = 1 ]; then worst=$t which=$(basename "$p"); fi
	done
	emit T18 "--help of the slowest program ($which), ms" "$(calc "1000 * $worst" 1) ms" \
		"$(calc "1000 * $worst" 1)" "<= 20"
	"$PYTHON" "$mkmodel" "$tmp/empty" hidden=8 ffn=8 heads=1 kv=1 layers=1 vocab=8
	record-acts -q --stats=none "$tmp/empty" > "$tmp/empty.qp"
	echo "rtn -g -1 $tmp/empty.qp | qp-dump | qp-make | pack-int4 > /dev/null" > "$tmp/four.sh"
	for i in 1 2 3 4 5 6 7 8 9; do measure "$tmp/four" sh "$tmp/four.sh"; done
	emit T18 "nearly empty stream through four stages, ms" \
		"$(calc "1000 * $(median "$tmp/four" 1)" 1) ms" \
		"$(calc "1000 * $(median "$tmp/four" 1)" 1)" "<= 60"
}

# T6: what gptq does beyond GPTQ as published, by the same statistics.
defaults() {
	shape 135M 4
	calibrate 8
	record-acts -q -S hessian -c "$calib" "$model" -o "$tmp/t6.acts"
	for i in 1 2 3 4 5; do
		measure "$tmp/t6.plain" gptq -q -g 64 --plain -o "$tmp/t6.out" "$tmp/t6.acts"
		measure "$tmp/t6.all" gptq -q -g 64 -o "$tmp/t6.out" "$tmp/t6.acts"
	done
	rm -f "$tmp/t6.out" "$tmp/t6.acts"
	emit T6 "gptq, 4 blocks of 135M shapes, wall: its defaults / --plain" \
		"$(calc "$(median "$tmp/t6.all" 1)" 2) s" \
		"$(calc "$(median "$tmp/t6.all" 1) / $(median "$tmp/t6.plain" 1)")" "<= 2" \
		"$(noise "$tmp/t6.all")"
	emit T6 "  processor time" "$(calc "$(median "$tmp/t6.all" 2)" 2) s" \
		"$(calc "$(median "$tmp/t6.all" 2) / $(median "$tmp/t6.plain" 2)")" ""
}

# T7: the published loop in PyTorch, as research code runs it.
published_loop() {
	if "${QP_TORCH:-python3}" -c 'import torch' 2> /dev/null; then
		"${QP_TORCH:-python3}" tests/bench/gptq_torch.py "$BUILD/bench/gptq" >> "$tsv"
	else
		emit T7 "not measured: no PyTorch here (QP_TORCH)" "" "" ""
	fi
}

# T17: what there is to decompose, by PyTorch's whole SVD.
whole_svd() {
	if "${QP_TORCH:-python3}" -c 'import torch' 2> /dev/null; then
		"${QP_TORCH:-python3}" tests/bench/lowrank_torch.py "$BUILD/bench/lowrank" >> "$tsv"
	else
		emit T17 "not measured: no PyTorch here (QP_TORCH)" "" "" ""
	fi
}

for b in tests/bench/*.c; do
	"$BUILD/bench/$(basename "$b" .c)" "$@" >> "$tsv"
done
if want T6; then defaults; fi
if want T7; then published_loop; fi
if want T17; then whole_svd; fi
if want T3; then perplexity_peers; fi
if want T4; then imatrix; fi
if want T8 || want T11 || want T15 || want profile; then main_job; fi
if want T9; then main_job_peer; fi
if want T14; then memory; fi
if want T10; then small_job; fi
if want T12; then unknown_records; fi
if want T13; then round_peer; fi
if want T16; then growth; wider; fi
if want T18; then start; fi
if want export; then exports; fi
if want export7B; then whole_model; fi
if want tasks; then sh tests/bench/tasks.sh "$BUILD" >> "$tsv"; fi
if want tokenizer; then sh tests/bench/tokenizer.sh "$BUILD" >> "$tsv"; fi

status=0
sed -n '1s/^# //p' "$tsv"
sed 1d "$tsv" | sort -t "$(printf '\t')" -s -k 1.2,1n | awk -F '\t' '
	function ok(r, t,   n, a) {	# 2: met, 1: within a fifth, 0: missed
		n = t
		if (t ~ /^>=/) { sub(/>= */, "", n); n += 0; return r >= n ? 2 : r >= 0.8 * n }
		if (t ~ /^<=/) { sub(/<= */, "", n); return r <= n + 0 ? 2 : r <= n / 0.8 }
		split(t, a, "-")
		return r >= a[1] && r <= a[2] ? 2 : r >= 0.8 * a[1] && r <= a[2] / 0.8
	}
	NR == 1 { printf "%-4s %-64s %12s %9s %10s\n", "row", "what", "measured", "ratio", "aim" }
	{
		k = $5 == "" ? 3 : ok($4 + 0, $5)
		printf "%-4s %-64s %12s %9s %10s  %s%s\n", $1, $2, $3, $4, $5,
		       k == 3 ? "" : k == 2 ? "met" : k ? "near" : "MISSED", $6 == "" ? "" : ", " $6
		missed += !k
	}
	END { exit missed > 0 }' || status=1

if want peers; then
	echo
	if [ -d "${QP_SHARED:-../shared/data}/golden" ]; then
		sh tests/bench/peers.sh tiny ${QP_SMOLLM2:+smol} || status=1
	else
		echo "peers: not measured, no shared data (QP_SHARED)"
	fi
fi
sh tests/bench/plot.sh "$tsv" "${tsv%.tsv}.svg"
exit "$status"
