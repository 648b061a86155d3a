#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-sum.bats - statistics of shards add up

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	for f in one two sum; do
		qp-make "$DATA/streams/shard-$f.txt" > $f.qp
	done
}

# What was measured on two.qp, as of other tokens.
third() {	# third FILE
	printf '1 2\n9 10\n11 12\n' | calib-pack -q --ids > ids.qp
	sed "s/fingerprint=\"[^\"]*\"/$(qp-dump --head ids.qp | grep -o 'fingerprint="[^"]*"')/
		s/^ 7 8$/ 1 2/" "$DATA/streams/shard-two.txt" | qp-make > "$1"
}

# two.qp changed by a sed script does not fit one.qp: 65, and why.
misfit() {	# misfit REGEX SED...
	local regex=$1
	shift
	sed "$@" "$DATA/streams/shard-two.txt" | qp-make > other.qp
	refuses 65 "$regex" sh -c 'qp-sum one.qp other.qp > sum.out'
	refuses 65 '' qp-check sum.out
}

@test "qp-sum: two shards make what one run over all tokens makes, worked out by hand" {
	qp-sum one.qp two.qp > got.qp
	qp-dump got.qp > got.txt
	grep -v '^#' "$DATA/streams/shard-sum.txt" | diff -u - got.txt
	qp-check got.qp
}

@test "qp-sum: shards recorded by record-acts add up to one recording" {
	calib-pack -q -m "$MODEL" -n 6 -s 64 --sampling=sequential "$CALIB" > text.qp
	qp-dump -n calib text.qp | sed 1d | tr -s ' \n' ' ' | xargs -n 64 > ids
	[ "$(wc -l < ids)" -eq 6 ]
	head -n 2 ids | calib-pack -q --ids > c1.qp
	sed -n 3p ids | calib-pack -q --ids > c2.qp
	tail -n 3 ids | calib-pack -q --ids > c3.qp
	calib-pack -q --ids ids > all.qp
	for c in c1 c2 c3 all; do
		record-acts -q -S absmax,absmean,minmax,hessian -c $c.qp "$MODEL" > $c.acts
	done
	qp-sum c1.acts c2.acts c3.acts > sum.acts
	qp-cmp --rel=2e-6 all.acts sum.acts
	qp-cmp --role=weight all.acts sum.acts
	qp-dump -n calib all.acts | sed 's/ tokens=[0-9]*//' > want
	qp-dump -n calib sum.acts | sed 's/ tokens=[0-9]*//' | diff want -
	qp-dump --head all.acts | grep -o 'tokens=[0-9]*' | sort -u | grep -qx tokens=384
	qp-dump --head sum.acts | grep -o 'tokens=[0-9]*' | sort -u | grep -qx tokens=384
}

@test "qp-sum: one stream is passed on, three are the same in any grouping" {
	qp-sum one.qp > alone.qp
	qp-cmp one.qp alone.qp
	third three.qp
	qp-sum one.qp two.qp three.qp > flat.qp
	# 10+20+20, -2-2-2, 4+6+6
	qp-dump flat.qp | grep -A 1 'stat="hessian"' | grep -qx ' 0x1.9p+5 -0x1.8p+2 0x1p+4'
	qp-dump flat.qp | grep -q 'stat="hessian" width=2 tokens=14'
	qp-ls --provenance flat.qp | grep -qx '.* | qp-sum - "$STREAM2" "$STREAM3"'
}

@test "qp-sum: one input may be standard input; compressed and plain inputs mix" {
	qp-sum one.qp two.qp > want.qp
	qp-sum - two.qp < one.qp | cmp - want.qp
	qp-sum one.qp - < two.qp | cmp - want.qp
	{ sed '/^calib/,$d' "$DATA/streams/shard-one.txt"; echo 'block index=0'
	  printf 'tensor e role=stat dtype=F32 shape=[1] stat="absmax" tokens=1\n 1\n'
	  printf 'tensor big role=weight dtype=F16 shape=[512]\n 1*512\n'
	  printf 'block-end index=0\nend\n'; } > big.txt
	qp-make big.txt > big.qp
	qp-make -z big.txt > bigz.qp
	[ "$(wc -c < bigz.qp)" -lt "$(wc -c < big.qp)" ]
	qp-sum big.qp bigz.qp | qp-cmp big.qp -
	qp-sum bigz.qp big.qp | qp-cmp big.qp -
	sed 's/ 1\*512/ 1*511 2/' big.txt | qp-make -z > other.qp
	refuses 65 'big: the content in other.qp' sh -c 'qp-sum bigz.qp other.qp > out'
	qp-sum -z bigz.qp bigz.qp -o small.qp
	[ "$(wc -c < small.qp)" -lt "$(wc -c < big.qp)" ]
	refuses 64 '-: only one' sh -c 'qp-sum - - < one.qp'
	refuses 64 '' qp-sum
}

@test "qp-sum: what is no statistic must be equal; the record and the stream are named" {
	misfit 'w: the record in other.qp is not that of one.qp' 's/dtype=BF16/dtype=F16/'
	misfit 'w: the content in other.qp' 's/^ 0x1p+0 -0x1p+0$/ 0x1p+0 0x1p+0/'
	misfit 'config.json: the ' 's/"{}\\n"/"{ }"/'
	misfit 'layers.0.mlp.in: the record' 's/the same in all/not the same/'
	misfit 'lm_head.weight: the record' 's/of="w"/of="v"/'
	misfit 'header: the model' 's/family="llama"/family="gpt2"/'
	misfit 'w: other.qp has v there' 's/tensor w/tensor v/'
	misfit 'lm_head.weight: is in one.qp, but other.qp has ended' '/^alias/d'
	misfit 'more: is in other.qp, but one.qp has ended' 's/^end$/note more\nend/'
}

@test "qp-sum: options of the programs must agree, the backend may differ" {
	grep -q '"cpu:avx2"' "$DATA/streams/shard-two.txt"
	misfit 'header: the provenance in other.qp' 's/--stats=all/--stats=hessian/'
	misfit 'header: the provenance' 's/"version":"0.1.0"/"version":"0.2.0"/'
	misfit 'header: the provenance' 's/"record-acts"/"other"/'
	misfit 'header: the provenance' 's/,"--calib=$CALIB"//'
}

@test "qp-sum: statistics that cannot be added are refused" {
	misfit 'layers.0.mlp.in: the shape' '/stat="absmax"/{s/\[2\]/[3]/;n;s/$/ 0/}'
	misfit 'layers.0.mlp.in: the statistic' 's/stat="absmax"/stat="other"/'
	misfit 'layers.0.mlp.in: no key tokens' '/absmax/s/ tokens=6//'
	misfit 'layers.0.mlp.in: a statistic is F32' '/absmax/s/F32/F16/'
	misfit 'layers.0.mlp.in: value 1 in other.qp is not' '/absmax/{n;s/ [^ ]*$/ nan/}'
	misfit 'layers.0.mlp.in: value 1 in other.qp is not' '/samples/{n;s/ [^ ]*$/ inf/}'
	misfit 'calib: windows of 1 tokens in other.qp, of 2 in one.qp' '/^calib/{s/\[3,2\]/[6,1]/}'
	misfit 'calib: ' '/^ 7 8$/s/7/6/'
	for f in one two; do
		sed 's/stat="min"/stat="variance"/' "$DATA/streams/shard-$f.txt" | qp-make > $f.v
		sed '/hessian/{n;s/ [^ ]*/ 0x1.fp+127/}' "$DATA/streams/shard-$f.txt" |
			qp-make > $f.h
	done
	refuses 65 'layers.0.mlp.in: statistics of kind variance' sh -c 'qp-sum one.v two.v > out'
	refuses 65 'layers.0.mlp.in: the sum does not fit F32' sh -c 'qp-sum one.h two.h > out'
}

@test "qp-sum: keys of the calibration sets that differ are dropped, the others stay" {
	qp-sum one.qp two.qp | qp-dump -n calib > out
	[ -z "$(grep seed= out)" ]
	grep -q 'tokenizer="xxh128:1"' out
	third three.qp
	qp-sum two.qp three.qp | qp-dump -n calib | grep -q 'seed=2'
}

@test "qp-sum: a calibration set that two streams share is refused" {
	third three.qp
	refuses 65 'calib: the set in one.qp is that of one.qp: its tokens would count twice' \
		sh -c 'qp-sum one.qp one.qp > out'
	refuses 65 'calib: the set in standard input is that of two.qp' \
		sh -c 'qp-sum three.qp two.qp one.qp - < two.qp > out'
	cat one.qp > copy.qp
	refuses 65 'calib: the set in copy.qp is that of one.qp' qp-sum -o o.qp one.qp copy.qp
	[ ! -e o.qp ]
}

@test "qp-sum: what is no model is said to be none, whichever of the streams it is" {
	echo 1 2 3 | calib-pack -q --ids > a.cal
	echo 4 5 6 | calib-pack -q --ids > b.cal
	refuses 65 'a.cal: carries no model' sh -c 'qp-sum a.cal b.cal > out'
	refuses 65 'a.cal: carries no model' sh -c 'qp-sum a.cal > out'
	refuses 65 'a.cal: carries no model' sh -c 'qp-sum one.qp a.cal > out'
	refuses 65 'a.cal: carries no model' sh -c 'qp-sum a.cal one.qp > out'
}

@test "qp-sum: streams without statistics are refused" {
	for f in one two; do
		sed '/role=stat/,/^note/{/^note/!d}' "$DATA/streams/shard-$f.txt" |
			qp-make > $f.none
	done
	refuses 65 'one.none: has no statistics to add' sh -c 'qp-sum one.none two.none > out'
	refuses 65 'one.none: has no statistics to add' sh -c 'qp-sum one.none > out'
}

@test "qp-sum: the sum is made in f64 and rounded once" {
	for f in one two; do
		{ echo 'stream v=[1,0] family="llama" prov=[]'
		  echo 'tensor e role=stat dtype=F32 shape=[1] stat="hessian" width=1 tokens=1'
		  [ $f = one ] && echo ' 0x1p+24' || echo ' 0x1p+0'
		  echo end; } | qp-make > $f.r
	done
	# in f32 each 1 would be lost: 2^24 + 1 rounds back to 2^24
	qp-sum one.r two.r two.r | qp-dump -n e | grep -qx ' 0x1.000002p+24'
}

@test "qp-sum: every prefix of a shard is refused, and nothing is left" {
	refuses_every_prefix two.qp qp-sum one.qp -
	refuses_every_prefix one.qp qp-sum - two.qp
	refuses_a_cut_pipe two.qp 700 qp-sum one.qp -
	refuses 66 '/no/such' qp-sum one.qp /no/such
}

@test "qp-sum: memory is 12 bytes an element of the largest statistic, for any number of streams" {
	not_with_sanitizers 'its memory is counted'
	qp-make > big.qp << 'EOF'
stream v=[1,0] family="llama" prov=[]
tensor w role=weight dtype=U8 shape=[40000000]
 7*40000000
tensor e role=stat dtype=F32 shape=[3001725] stat="hessian" width=2450 tokens=7
 0.5*3001725
end
EOF
	qp-sum -v big.qp big.qp big.qp big.qp 2> err > sum.qp
	# 12 * 3001725 bytes are 34.4 MiB; a program alone is about 3
	awk '{ for (i = 1; i < NF; i++) if ($i == "peak") good = $(i + 1) > 30 && $(i + 1) < 41 }
		END { exit !good }' err
}
