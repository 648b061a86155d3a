#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# compute.bats - sets of kernels and what linears multiply in: QP_CPU, --compute

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	echo 5 6 7 8 9 > ids
}

# What computed last in a stream.
backend() {
	qp-dump "$1" | sed -n 's/.*"backend":"\([^"]*\)".*/\1/p' | tail -n 1
}

ppl() {
	eval-ppl -q -c 256 -w 8 "$MODEL" -t "$EVAL" "$@" | sed 's/.*ppl \([0-9.]*\) .*/\1/'
}

near() {	# near A B PART: |A - B| <= PART * B
	awk -v a="$1" -v b="$2" -v p="$3" 'BEGIN { d = a - b; exit !((d < 0 ? -d : d) <= p * b) }'
}

@test "compute: perplexity in bf16 is within 0.1 % of that in f32, in bf16x3 within 0.001 %" {
	want=$(ppl)
	near "$(ppl --compute=bf16)" "$want" 0.001
	near "$(ppl --compute=bf16x3)" "$want" 0.00001
}

# Attention is in bf16 only where there are kernels for it.
@test "compute: every set of kernels gives the same perplexity, within 0.01 %; bf16 0.03 %" {
	for c in f32 bf16; do
		part=0.0001
		[ $c = f32 ] || part=0.0003
		want=$(QP_CPU=plain ppl --compute=$c)
		for set in avx2 avx512 avx512vnni avx512bf16 amx; do
			QP_CPU=$set rtn -q -g -1 "$MODEL" > /dev/null 2>&1 || continue
			near "$(QP_CPU=$set ppl --compute=$c)" "$want" $part
		done
	done
}

@test "compute: the provenance names set, compute and OpenBLAS's kernels" {
	qp-forward -q --compute=bf16 "$MODEL" < ids > a
	case $(backend a) in
	"cpu "*" bf16, openblas "*) ;;
	*) false ;;
	esac
	qp-dump a | grep -e '"--compute=bf16"' > /dev/null
	QP_CPU=plain qp-forward -q "$MODEL" < ids > b
	case $(backend b) in
	"cpu plain f32, openblas "*) ;;
	*) false ;;
	esac
}

@test "compute: bf16 is really computed: scores move, but little" {
	for c in f32 bf16 bf16x3; do
		qp-forward -q --compute=$c "$MODEL" < ids > $c
	done
	run qp-cmp -q f32 bf16
	[ "$status" = 1 ]
	qp-cmp --rel=0.03 f32 bf16
	qp-cmp --rel=0.0001 f32 bf16x3
}

@test "compute: every program that runs a model takes it; another word exits 64" {
	for p in record-acts gptq eval-ppl eval-tasks qp-forward; do
		"$p" --help | grep -q -e '--compute=C'
	done
	refuses 64 '--compute: expected f32, bf16, bf16x3, int or fake' qp-forward --compute=fp8 "$MODEL" < ids
}

@test "compute: QP_CPU: an unknown word exits 64, a set the processor lacks 69" {
	QP_CPU=sse9 refuses 64 'QP_CPU: expected plain' qp-forward "$MODEL" < ids
	grep -q amx_int8 /proc/cpuinfo && skip "this processor has every set"
	QP_CPU=amx refuses 69 'QP_CPU: this processor has no amx' qp-forward "$MODEL" \
		< ids
}

@test "compute: that plain C computes is said once, unless quiet" {
	QP_CPU=plain qp-forward "$MODEL" < ids 2> said > /dev/null
	[ "$(grep -c 'without AVX2 plain C computes, slowly' said)" = 1 ]
	QP_CPU=plain qp-forward -q "$MODEL" < ids 2> said > /dev/null
	[ ! -s said ]
	QP_CPU=avx2 qp-forward "$MODEL" < ids 2> said > /dev/null ||
		skip "this processor has no AVX2"
	run grep 'plain C' said
	[ "$status" = 1 ]
}
