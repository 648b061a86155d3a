#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-check.bats - is a stream whole and sound?

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
}

# A stream with this plan, the text on standard input behind its header.
make_planned() {	# make_planned PLAN
	{ echo "stream v=[1,0] plan=$1"; cat; echo end; } | qp-make > planned.qp
}

# The records on standard input make a stream that is refused.
unsound() {	# unsound REGEX
	{ echo 'stream v=[1,0]'; cat; echo end; } | qp-make > unsound.qp
	refuses 65 "$1" qp-check unsound.qp
}

@test "qp-check: says nothing about a stream that is whole and sound" {
	for f in kinds quantized quantized-values shard-one shard-sum; do
		qp-make "$DATA/streams/$f.txt" > "$f.qp"
		run --separate-stderr -0 qp-check "$f.qp"
		[ -z "$output" ] && [ -z "$stderr" ]
		run --separate-stderr -0 sh -c "qp-check < $f.qp"
		[ -z "$output" ] && [ -z "$stderr" ]
	done
}

@test "qp-check: every stage of the pipeline makes sound streams, compressed too" {
	calib-pack -q -m "$MODEL" -n 2 -s 32 "$CALIB" > c.qp
	qp-check c.qp
	record-acts -q -c c.qp --stats=all "$MODEL" > a.qp
	qp-check a.qp
	smooth -q a.qp > s.qp
	qp-check s.qp
	rtn -q -b 3 -g 32 --asym -z s.qp > r.qp
	qp-check r.qp
	pack-int4 -q r.qp > p.qp
	qp-check p.qp
}

@test "qp-check: every prefix is refused" {
	qp-make "$DATA/streams/kinds.txt" > kinds.qp
	refuses_every_prefix kinds.qp qp-check
}

@test "qp-check: a flipped bit is found wherever it is, in headers and payloads" {
	qp-make "$DATA/streams/shard-one.txt" > one.qp
	size=$(wc -c < one.qp)
	for ((at = 0; at < size; at++)); do
		flip one.qp "$at" bad.qp $((1 << at % 8))
		st=0
		qp-check bad.qp > out 2> err || st=$?
		case $st in 65 | 76) ;; *) echo "byte $at: exit $st"; cat err; return 1 ;; esac
		[ "$(wc -l < err)" -eq 1 ]
	done
}

@test "qp-check: trailing bytes are refused, another stream too" {
	qp-make "$DATA/streams/shard-one.txt" > one.qp
	{ cat one.qp; printf x; } > more.qp
	refuses 65 '' qp-check more.qp
	cat one.qp one.qp > twice.qp
	refuses 65 '' qp-check twice.qp
}

@test "qp-check: a record that must be understood, and a version from the future, are 76" {
	printf 'stream v=[1,0]\nmarvel thing must=true\nend\n' | qp-make > must.qp
	refuses 76 '.*thing' qp-check must.qp
	printf 'stream v=[2,0]\nend\n' | qp-make > new.qp
	refuses 76 '' qp-check new.qp
}

@test "qp-check: blocks are in order, closed, and not nested" {
	unsound 'block: 1 where block 0 is due' <<< $'block index=1\nblock-end index=1'
	first=$'block index=0\nblock-end index=0\n'
	unsound 'block: 2 where block 1 is due' <<< "$first"$'block index=2\nblock-end index=2'
	unsound 'block: 0 where block 1 is due' <<< "$first$first"
	unsound 'block: 1 begins inside block 0' <<< $'block index=0\nblock index=1'
	unsound 'block-end: 1 does not close' <<< $'block index=0\nblock-end index=1'
	unsound 'block-end: 0 does not close' <<< $'block-end index=0'
	unsound 'block: 0 is not closed' <<< $'block index=0'
	unsound 'block: has no index' <<< $'block'
}

# The first NAME is put before the line of the dump m.txt that begins with LINE.
moved() {	# moved NAME LINE REGEX
	awk -v t="tensor $1 " '/^[a-z]/ { on = index($0, t) == 1 && !done } on { print; done = 1 }' \
		m.txt > part
	awk -v t="tensor $1 " -v to="$2" '
		/^[a-z]/ { on = index($0, t) == 1 && !done; done = done || on }
		index($0, to) == 1 { while ((getline line < "part") > 0) print line }
		!on' m.txt | qp-make > moved.qp
	refuses 65 "$3" qp-check moved.qp
}

@test "qp-check: what belongs to a block of the model stands in it" {
	record-acts -q --stats=absmax -n 2 -s 32 "$MODEL" | qp-dump > m.txt
	q=model.layers.1.self_attn.q_proj.weight
	moved $q 'block index=0' "$q: tensor of block 1 outside it"
	moved $q 'block-end index=0' "$q: tensor in block 0"
	moved $q 'tensor model.norm' "$q: tensor of block 1 outside it"
	moved model.norm.weight 'block-end index=1' 'model.norm.weight: tensor in block 1'
	moved layers.1.mlp.in 'block index=0' 'layers.1.mlp.in: statistic of block 1 outside it'
	moved layers.1.mlp.in 'block-end index=0' 'layers.1.mlp.in: statistic in block 0'
	# as the readers have it
	moved $q 'block index=0' ''
	refuses 65 "$q: tensor of block 1 outside it" eval-ppl -t "$EVAL" moved.qp
}

@test "qp-check: nothing is there twice in one block, but may be in two" {
	unsound 'a: weight is there twice' <<- 'EOF'
	tensor a role=weight dtype=U8 shape=[0]
	tensor b role=weight dtype=U8 shape=[0]
	tensor a role=weight dtype=U8 shape=[0]
	EOF
	unsound 'e: stat absmax is there twice' <<- 'EOF'
	tensor e role=stat dtype=F32 shape=[0] stat="absmax" tokens=1
	tensor e role=stat dtype=F32 shape=[0] stat="max" tokens=1
	tensor e role=stat dtype=F32 shape=[0] stat="absmax" tokens=1
	EOF
	qp-make > fine.qp <<- 'EOF'
	stream v=[1,0]
	block index=0
	tensor a role=weight dtype=U8 shape=[0]
	block-end index=0
	block index=1
	tensor a role=weight dtype=U8 shape=[0]
	block-end index=1
	end
	EOF
	qp-check fine.qp
}

@test "qp-check: weights, biases and codes are those of the plan, with its shapes" {
	plan='[["a","F32",[2]],["b","BF16",[1,2]],["c","F32",[2]]]'
	a=$'tensor a role=weight dtype=BF16 shape=[2]\n 1 2'
	b=$'tensor b role=codes dtype=U4 shape=[1,2] bits=4 group=2 sym=true\n 1 2\n'
	b+=$'tensor b role=scale dtype=F16 shape=[1,1]\n 1'
	make_planned "$plan" <<< "$a"$'\n'"$b"$'\nalias c of="a"'
	qp-check planned.qp
	make_planned "$plan" <<< "$b"$'\nalias c of="a"'
	refuses 65 'a: is in the plan, but not in the stream' qp-check planned.qp
	make_planned "$plan" <<< "$a"$'\n'"$b"
	refuses 65 'c: is in the plan, but not in the stream' qp-check planned.qp
	make_planned "$plan" <<< $'tensor a role=weight dtype=F32 shape=[1,2]\n 1 2'
	refuses 65 'a: its shape is not the one of the plan' qp-check planned.qp
	make_planned "$plan" <<< $'tensor d role=bias dtype=F32 shape=[1]\n 1'
	refuses 65 'd: is not in the plan' qp-check planned.qp
	make_planned '[["a","F32",[2]],["a","F32",[2]]]' <<< "$a"
	refuses 65 'plan: a is there twice' qp-check planned.qp
	for p in 1 '[1]' '[["a"]]' '[["a","F32",2]]' '[["","F32",[2]]]' '[["a",1,[2]]]' \
		'[["a","F32",[-1]]]'; do
		make_planned "$p" <<< "$a"
		refuses 65 'plan: ' qp-check planned.qp
	done
}

@test "qp-check: codes have a scale and a zero that fit them" {
	codes='tensor a role=codes dtype=U8 shape=[2,4] bits=4 group=2'
	v=$'\n 0*8\n'
	s=$'tensor a role=scale dtype=F16 shape=[2,2]\n 1*4\n'
	z=$'tensor a role=zero dtype=U8 shape=[2,2]\n 1*4\n'
	unsound 'a: asymmetric codes without zero' <<< "$codes sym=false$v$s"
	unsound 'a: codes without scale' <<< "$codes sym=true$v"
	unsound 'a: codes without scale' <<< "$codes sym=true${v}tensor b dtype=F32 shape=[0]"
	unsound 'a: codes without' <<< $'block index=0\n'"$codes sym=true${v}block-end index=0"
	unsound 'a: scale or zero without codes' <<< "$s"
	unsound 'a: scale or zero without codes' <<< "$z"
	unsound 'a: scale does not fit' <<< "${codes/group=2/group=4} sym=true$v$s"
	unsound 'a: .*group' <<< "${codes/group=2/group=3} sym=true$v$s"
	unsound 'a: .*bits' <<< "${codes/bits=4/bits=9} sym=true$v$s"
	unsound 'a: .*bits' <<< "${codes/dtype=U8/dtype=U2} sym=true"$'\n 0*8\n'"$s"
	unsound 'a: codes are U8' <<< "${codes/dtype=U8/dtype=I8} sym=true$v$s"
	unsound 'a: scale is F16' <<< "$codes sym=true$v${s/dtype=F16/dtype=U8}"
	unsound 'a: zero is not U8 of the' <<< "$codes sym=false$v$s${z/\[2,2\]/[1,4]}"
	unsound 'a: zero is not U8 of the' <<< "$codes sym=false$v$s${z/dtype=U8/dtype=I8}"
}

@test "qp-check: statistics say their tokens and have the shape of their kind" {
	e='tensor e role=stat dtype=F32'
	unsound 'e: a statistic without its key stat' <<< "$e shape=[0] tokens=1"
	unsound 'e: absmax without its key tokens' <<< "$e shape=[0] stat=\"absmax\""
	h='stat="hessian" tokens=1'
	unsound 'e: hessian is not the triangle' <<< "$e shape=[4] $h width=2"$'\n 1*4'
	unsound 'e: hessian is not the triangle' <<< "$e shape=[3] $h"$'\n 1*3'
	unsound 'e: absmax has rank 2' <<< "$e shape=[1,2] stat=\"absmax\" tokens=1"$'\n 1*2'
	unsound 'e: samples has rank 1' <<< "$e shape=[2] stat=\"samples\" tokens=1"$'\n 1*2'
}

# A tensor of values that must be finite, one of them BAD.
with_value() {	# with_value ROLE DTYPE KEYS BAD
	[ "$1" != scale ] || printf 'tensor e role=codes dtype=U8 shape=[1,3] %s\n 0*3\n' \
		'bits=4 group=1 sym=true'
	printf 'tensor e role=%s dtype=%s %s\n 1 1 %s\n' "$1" "$2" "$3" "$4"
}

@test "qp-check: weights, biases, references and scales are finite" {
	local bad role type
	for bad in nan inf -inf; do
		for role in weight bias ref; do
			for type in F64 F32 F16 BF16; do
				unsound "e: $role: value 2 is not finite" \
					<<< "$(with_value $role $type 'shape=[3]' $bad)"
			done
		done
		for type in F32 F16 BF16; do
			unsound 'e: scale: value at row 0 column 2 is not finite' \
				<<< "$(with_value scale $type 'shape=[1,3]' $bad)"
		done
	done
	unsound 'e: weight: value at row 1 column 0 is not finite' <<- 'EOF'
	tensor e role=weight dtype=F32 shape=[2,2]
	 1 2 inf nan
	EOF
}

@test "qp-check: statistics are finite, and F32" {
	local stat
	for stat in absmax absmean min max odd; do
		unsound "e: $stat: value 2 is not finite" \
			<<< "$(with_value stat F32 "shape=[3] stat=\"$stat\" tokens=1" nan)"
	done
	unsound 'e: hessian: value 2 is not finite' \
		<<< "$(with_value stat F32 'shape=[3] stat="hessian" width=2 tokens=1' inf)"
	unsound 'e: samples: value at row 2 column 0 is not finite' \
		<<< "$(with_value stat F32 'shape=[3,1] stat="samples" tokens=1' -inf)"
	unsound 'e: absmax is F32, not F16' \
		<<< "$(with_value stat F16 'shape=[3] stat="absmax" tokens=1' 1)"
}

@test "qp-check: absmax, absmean and the diagonal of a Hessian are not negative" {
	local stat
	for stat in absmax absmean; do
		unsound "e: $stat: channel 2 has -0\.5, which cannot be negative" \
			<<< "$(with_value stat F32 "shape=[3] stat=\"$stat\" tokens=1" -0.5)"
	done
	unsound 'e: hessian: channel 1 has the diagonal -2, which cannot be negative' \
		<<< "$(with_value stat F32 'shape=[3] stat="hessian" width=2 tokens=1' -2)"
	# What lies beside the diagonal may be, and so may min, max, samples and -0.
	{
		echo 'stream v=[1,0]'
		printf 'tensor e role=stat dtype=F32 shape=[6] stat="hessian" width=3 tokens=1\n'
		printf ' 1 -1 -1 1 -1 1\n'
		printf 'tensor e role=stat dtype=F32 shape=[1] stat="%s" tokens=1\n -1\n' min max
		printf 'tensor e role=stat dtype=F32 shape=[1,1] stat="samples" tokens=1\n -1\n'
		printf 'tensor e role=stat dtype=F32 shape=[1] stat="absmax" tokens=1\n -0.0\n'
		echo end
	} | qp-make > fine.qp
	qp-check fine.qp
}

@test "qp-check: what is no stream is refused" {
	refuses 66 '/no/such: No such file' qp-check /no/such
	mkdir d
	refuses 66 'd: .*directory' qp-check d
	refuses 65 '' sh -c 'qp-check < /dev/null'
	head -c 3000 /dev/urandom > noise
	refuses 65 '' qp-check noise
	refuses 65 '' qp-check "$MODEL/model.safetensors"
	refuses 65 '' qp-check "$EVAL"
}

@test "qp-check: memory does not grow with the payload but for the largest weight" {
	not_with_sanitizers 'its memory is counted'
	[ -r /proc/self/status ] || skip 'no /proc'
	qp-make > big.qp <<- 'EOF'
	stream v=[1,0]
	tensor a dtype=U8 shape=[100000000]
	 7*100000000
	end
	EOF
	(
		ulimit -v 200000
		qp-check big.qp
	)
	qp-check -v big.qp 2> err
	awk '{ for (i = 1; i < NF; i++) if ($i == "peak") exit !($(i + 1) < 32); exit 1 }' err
	# Two of 38.1 MiB are never there together.
	qp-make > big.qp <<- 'EOF'
	stream v=[1,0]
	tensor a role=weight dtype=BF16 shape=[20000000]
	 7*20000000
	tensor b role=weight dtype=F32 shape=[10000000]
	 7*10000000
	end
	EOF
	qp-check -v big.qp 2> err
	awk '{ for (i = 1; i < NF; i++) if ($i == "peak") exit !($(i + 1) < 66); exit 1 }' err
}
