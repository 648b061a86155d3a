#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# record-acts.bats - what record-acts promises on its man page, one test per promise

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	shared=$BATS_FILE_TMPDIR
	[ -s "$shared/calib.qp" ] || {
		calib-pack -q -m "$MODEL" -n 6 -s 100 "$CALIB" > "$shared/calib.part"
		mv "$shared/calib.part" "$shared/calib.qp"
	}
	cp "$shared/calib.qp" calib.qp
}

small() {	# small [KEY=VALUE...]: a random model in the folder m
	need_python numpy
	"$PYTHON" "$ROOT/tests/mkmodel.py" m "$@"
}

headers() { qp-dump "$1" | grep -v '^ '; }
# Everything behind the first record, which holds the provenance.
body() { qp-dump "$1" | sed -n '/^file/,$p'; }
statistics() {
	qp-dump "$1" | sed -n 's/^tensor "*layers\.\([^ "]*\)"* .*stat="\([a-z]*\)".*/\1 \2/p'
}
# The records of one kind, by a regular expression on their headers, with their payloads.
records() { qp-dump "$1" | awk -v re="$2" '/^[a-z]/ { on = $0 ~ re } on'; }

@test "record-acts: statistics of the shipped model, as a float64 pass has them" {
	need_python msgpack numpy
	{ seq -s ' ' 3 7 700; seq -s ' ' 100 9 996; } > ids
	calib-pack -q --ids ids > c.qp
	record-acts -q -c c.qp --stats=all --samples=50 "$MODEL" > acts.qp
	"$PYTHON" "$ROOT/tests/llama.py" stats "$MODEL" ids acts.qp
}

@test "record-acts: and of a model of other shape, with more tokens than one slice" {
	need_python msgpack numpy
	small hidden=48 heads=6 kv=2 ffn=36 layers=3 tied=0 vocab=64
	"$PYTHON" -c 'for i in range(40): print(*((i * 7 + j * j) % 64 for j in range(60)))' > ids
	calib-pack -q --ids ids > c.qp
	record-acts -q -c c.qp --stats=all m > acts.qp
	"$PYTHON" "$ROOT/tests/llama.py" stats m ids acts.qp
}

@test "record-acts: --kv adds the minima and maxima of keys and values (numpy)" {
	need_python msgpack numpy
	small hidden=48 heads=6 kv=2 ffn=36 layers=3 tied=0 vocab=64
	"$PYTHON" -c 'for i in range(40): print(*((i * 7 + j * j) % 64 for j in range(60)))' > ids
	calib-pack -q --ids ids > c.qp
	record-acts -q -c c.qp --stats=all --kv m > acts.qp
	"$PYTHON" "$ROOT/tests/llama.py" stats m ids acts.qp | grep -F 'min of the cache'
	record-acts -q -c c.qp --stats=none --kv m > few.qp
	statistics few.qp | sort > got
	printf '%s\n' {0,1,2}.attn.{k,v}' '{max,min} | diff - got
	# Without it they go, as other statistics do.
	record-acts -q -S absmax few.qp > none.qp
	run -1 grep -F attn.k < <(statistics none.qp)
}

@test "record-acts: absmax and hessian unless --stats says otherwise" {
	record-acts -q -c calib.qp "$MODEL" > a.qp
	for l in 0 1; do
		for e in attn.in attn.mid mlp.in mlp.mid; do
			printf '%s %s\n' $l.$e absmax $l.$e hessian
		done
	done > want
	statistics a.qp | diff -u want -
}

@test "record-acts: --stats chooses" {
	for list in absmax absmean minmax hessian samples absmax,samples; do
		record-acts -q -c calib.qp --stats=$list "$MODEL" > a.qp
		statistics a.qp | sed -n 's/^0\.mlp\.in //p' | tr '\n' , > got
		case $list in
		minmax) grep -qx 'min,max,' got ;;
		*) grep -qx "$list," got ;;
		esac
	done
	refuses 64 "--stats: 'abs' is none of absmax" record-acts --stats=abs "$MODEL"
	refuses 64 "--stats: '' is none" record-acts --stats= "$MODEL"
	for list in none,absmax absmax,none none,all all,none none,none,hessian; do
		refuses 64 '--stats: none stands alone' record-acts --stats=$list "$MODEL"
	done
	refuses 64 "--stats: 'nonsense' is none of" record-acts -S none,nonsense "$MODEL"
}

@test "record-acts: --samples says how many rows" {
	record-acts -q -c calib.qp -S samples --samples=7 "$MODEL" > a.qp
	headers a.qp | grep '^tensor layers.1.mlp.mid .*shape=\[7,384\] .*tokens=600' > /dev/null
	record-acts -q -c calib.qp -S samples "$MODEL" > a.qp
	headers a.qp | grep '^tensor layers.1.mlp.mid .*shape=\[128,384\]' > /dev/null
	refuses 64 '--samples: needs samples among' record-acts --samples=4 "$MODEL"
	refuses 64 '--samples: needs' record-acts --samples=4 -S none "$MODEL"
	refuses 64 '--samples: needs' record-acts -S absmax,hessian --samples=128 "$MODEL"
}

@test "record-acts: --stats=none needs neither calibration set nor tokenizer" {
	small
	record-acts -q --stats=none m > a.qp
	qp-check a.qp
	headers a.qp > got
	run -1 grep -E '^calib|role=stat' got
	refuses 65 'model: no tokenizer to make a calibration set with' record-acts -q m
	# A set that is given goes along all the same: gptq --sequential wants no more.
	record-acts -q --stats=none -c calib.qp "$MODEL" > a.qp
	[ "$(headers a.qp | grep -c '^calib')" -eq 1 ]
	[ -z "$(statistics a.qp)" ]
}

@test "record-acts: weights pass byte for byte, in their own type" {
	for dtype in BF16 F16 F32; do
		small dtype=$dtype vocab=2048
		record-acts -q --stats=none m > plain.qp
		record-acts -q -c calib.qp m > a.qp
		records plain.qp '^(tensor|file|alias)' > want
		records a.qp '^(file|alias)|^tensor.*role=(weight|bias)' > got
		grep -q "dtype=$dtype" got
		cmp want got
	done
}

@test "record-acts: the calibration set travels with the stream, after the files" {
	record-acts -q -c calib.qp "$MODEL" > a.qp
	headers a.qp | grep -A 1 '^calib' | grep '^tensor model.embed_tokens.weight' > /dev/null
	headers a.qp | grep '^calib' > got
	headers calib.qp | grep '^calib' | diff - got
}

@test "record-acts: without one, windows of the installed text, and it says so" {
	run --separate-stderr -0 record-acts -n 2 -s 33 --stats=absmax -o a.qp "$MODEL"
	[[ $stderr == "record-acts: no calibration set given: 2 windows of 33 tokens of "* ]]
	headers a.qp | grep '^calib .*shape=\[2,33\]' > /dev/null
	record-acts -q -n 2 -s 33 --seed=1 --stats=absmax -o b.qp "$MODEL"
	run -1 cmp -s <(records a.qp role=stat) <(records b.qp role=stat)
	record-acts -q --stats=absmax -n 1 -o c.qp "$MODEL"
	headers c.qp | grep '^calib .*shape=\[1,512\].* sampling="random" seed=0' > /dev/null
	printf 'one two three' > calibration.txt
	refuses 65 '.*tokens' env QP_DATA=. record-acts -q "$MODEL"
	refuses 66 '.*calibration.txt' env QP_DATA=./nowhere record-acts -q "$MODEL"
}

@test "record-acts: --calib has its own windows" {
	refuses 64 '--calib: has its own' record-acts -c calib.qp -n 3 "$MODEL"
	refuses 64 '--calib: has its own' record-acts -c calib.qp -s 3 "$MODEL"
	refuses 66 'nothere: ' record-acts -c nothere "$MODEL"
	record-acts -q --stats=none "$MODEL" > m.qp
	refuses 65 '' record-acts -c m.qp "$MODEL"
}

@test "record-acts: - replaces the statistics of a stream by those of the model in it" {
	record-acts -q -c calib.qp --stats=all "$MODEL" > a.qp
	record-acts -q - < a.qp > b.qp
	record-acts -q -c calib.qp "$MODEL" > want.qp
	cmp <(body b.qp) <(body want.qp)
	# Smoothed, then recorded: the same as the statistics that smooth carried along.
	smooth -q want.qp > s.qp
	record-acts -q - < s.qp > c.qp
	run -1 cmp -s <(records s.qp role=stat) <(records c.qp role=stat)
	qp-cmp --rel=1e-4 s.qp c.qp
	record-acts -q --stats=none - < a.qp | qp-dump > d.txt
	run -1 grep -q 'role=stat' d.txt
}

@test "record-acts: - takes the stream's calibration set, or that of --calib in its place" {
	calib-pack -q -m "$MODEL" -n 3 -s 40 --seed=9 "$CALIB" > other.qp
	record-acts -q -c calib.qp "$MODEL" > a.qp
	record-acts -q -c other.qp - < a.qp > b.qp
	[ "$(headers b.qp | grep -c '^calib')" -eq 1 ]
	record-acts -q -c other.qp "$MODEL" > want.qp
	cmp <(body b.qp) <(body want.qp)
}

@test "record-acts: a packed stream is run with its dequantized weights" {
	record-acts -q -c calib.qp "$MODEL" | gptq -q -b 4 > g.qp
	record-acts -q --stats=absmax g.qp > want.qp
	pack-int4 -q g.qp | record-acts -q -c calib.qp --stats=absmax - > got.qp
	records want.qp role=stat > want
	[ -s want ]
	records got.qp role=stat | cmp want -
}

@test "record-acts: records it does not know pass, in order; what must be understood is refused" {
	record-acts -q -c calib.qp --stats=absmax "$MODEL" | qp-dump > a.txt
	local stat='tensor layers.0.mlp.in role=stat stat="kurtosis" dtype=F32 shape=[1]\n 0x1p+0'
	sed -e "/^block-end index=0/i $stat" \
		-e '/^block index=1/i later something x=1' a.txt > in.txt
	qp-make in.txt > in.qp
	record-acts -q --stats=absmax - < in.qp | qp-dump > out.txt
	grep -q '^later something x=1' out.txt
	run -1 grep -q kurtosis out.txt
	sed 's/^later something/& must=true/' in.txt | qp-make > bad.qp
	refuses 76 'something: ' record-acts -q bad.qp
	sed 's/^later something/run something/' in.txt | qp-make > bad.qp
	refuses 76 'something: run record' record-acts -q bad.qp
}

@test "record-acts: same input, same bytes, whatever the number of threads and --spill" {
	record-acts -q -c calib.qp --stats=all -j 1 "$MODEL" > a.qp
	record-acts -q -c calib.qp --stats=all -j 2 "$MODEL" > b.qp
	record-acts -q -c calib.qp --stats=all --spill=. "$MODEL" > c.qp
	cmp a.qp b.qp
	cmp a.qp c.qp
	[ -z "$(ls | grep quantpipe)" ]
	refuses 73 './nowhere: ' record-acts -q -c calib.qp --spill=./nowhere "$MODEL"
}

@test "record-acts: provenance: options in long form, no paths" {
	record-acts -q -c calib.qp -S absmax -j 1 "$MODEL" > a.qp
	qp-dump a.qp | sed -n '/^stream/,/^file/p' | grep program > prov
	grep -q '"--calib=$CALIB"' prov
	grep -q '"--stats=absmax"' prov
	run -1 grep -qE 'calib.qp|TinyStories|threads' prov
}

@test "record-acts: a token outside the vocabulary, windows longer than the model's positions" {
	echo 1 2 2048 > ids
	calib-pack -q --ids ids > c.qp
	refuses 65 'token ids: id 2048 at position 2 .*calib-pack -m MODEL' record-acts -q -c c.qp "$MODEL"
	seq -s ' ' 1 513 > ids
	calib-pack -q --ids ids > c.qp
	refuses 65 'model: 512 positions, but a sequence has 513' record-acts -q -c c.qp "$MODEL"
	refuses 65 'model: 512 positions' record-acts -q -s 600 "$MODEL"
}

@test "record-acts: NaN in a weight is named; so is one that arises on the way" {
	record-acts -q --stats=none "$MODEL" | qp-dump > m.txt
	awk '/^tensor model.layers.1.mlp.up_proj/ { n = NR + 1 }
		NR == n { sub(/ [^ ]+/, " nan") } 1' m.txt | qp-make > nan.qp
	refuses 65 'model.layers.1.mlp.up_proj.weight: value at row 0 column 0 is not finite' \
		record-acts -q -c calib.qp nan.qp
	# Gains of 3e38 on both norms: infinity on an edge.
	small vocab=2048
	record-acts -q --stats=none m | qp-dump > m.txt
	awk '/^tensor .*input_layernorm/ { n = NR + 1 }
		NR == n { gsub(/[^ ]*0x[^ ]*/, "3e38") } 1' m.txt | qp-make > inf.qp
	refuses 65 'layers.0.attn.[a-z]*: absmax: value [0-9]* is not finite' \
		record-acts -q -c calib.qp --stats=absmax inf.qp
}

@test "record-acts: blocks out of order, missing tensors, a stream without embedding" {
	small vocab=2048
	record-acts -q --stats=none m | qp-dump > m.txt
	sed 's/^block index=0/block index=1/' m.txt | qp-make > bad.qp
	refuses 65 'block: block 1 where 0' record-acts -q -c calib.qp bad.qp
	awk '/^[a-z]/ { s = /^tensor model.layers.1.mlp.down/ } !s' m.txt | qp-make > bad.qp
	refuses 65 'model.layers.1.mlp.down_proj.weight: missing' record-acts -q --stats=none bad.qp
	awk '/^[a-z]/ { s = /^tensor model.embed/ } !s' m.txt | qp-make > bad.qp
	refuses 65 'model.embed_tokens.weight: missing' record-acts -q -c calib.qp bad.qp
}

@test "record-acts: every truncation of a stream is refused, and leaves no file" {
	small vocab=16 hidden=8 heads=2 kv=1 ffn=4 layers=2
	echo 1 2 3 4 5 > ids
	calib-pack -q --ids ids > c.qp
	record-acts -q -c c.qp m > in.qp
	refuses_every_prefix in.qp record-acts -q -
	refuses_a_cut_pipe in.qp 3000 record-acts -q -
}

@test "record-acts: a full disk, a closed pipe" {
	refuses 74 'standard output: No space left' \
		sh -c "record-acts -q --stats=none '$MODEL' > /dev/full"
	dies_quietly_in_a_closed_pipe record-acts -q --stats=none "$MODEL"
}

# The man page's formula, within 20 % both ways: it bounds, and does not merely bound.
@test "record-acts: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	small hidden=512 heads=8 kv=4 ffn=1408 layers=3 vocab=3000 context=1024 dtype=BF16
	"$PYTHON" - > ids <<-'END'
	for i in range(24):
	    print(*((i * 131 + j * j * 7) % 3000 for j in range(1024)))
	END
	calib-pack -q --ids ids > c.qp
	for stats in hessian absmax; do
		record-acts -v -c c.qp -j 2 --stats=$stats m 2> err > /dev/null
		"$PYTHON" - $stats "$(sed 's/.*peak \([0-9.]*\) MiB/\1/' err)" <<-'END'
		import sys
		D, Q, M, F, T, L = 512, 512, 2 * 4 * 64, 1408, 24 * 1024, 1024
		P = 2 * D * Q + M * D + 3 * D * F + 2 * D
		K = [D, Q, D, F] if sys.argv[1] == "hessian" else []
		want = (4 * T * D + 4 * P + max([2 * D * F + 4 * 2048 *
		             (D + max(D, Q) + max(Q + M, 2 * F))] + [2 * k * (k + 1) for k in K]) +
		        sum(4 * n * (n + 1) * (-(-k // n)) ** 2
		            for k, n in ((k, -(-k // 384)) for k in K)) +
		        (12 << 20))
		got = float(sys.argv[2]) * 2**20
		print("peak %.1f MiB, formula %.1f" % (got / 2**20, want / 2**20))
		sys.exit(not 0.8 * want < got < 1.2 * want)
		END
	done
}

@test "record-acts: memory does not grow with the number of blocks, nor --spill's with tokens" {
	not_with_sanitizers "memory is not what it would be"
	peak() { record-acts -v -j 1 "$@" 2>&1 > /dev/null | sed 's/.*peak \([0-9]*\).*/\1/'; }
	small hidden=256 heads=4 kv=2 ffn=704 layers=2 vocab=512 dtype=BF16
	seq -s ' ' 1 511 > one
	for i in {1..16}; do cat one; done > ids
	calib-pack -q --ids ids > c16.qp
	for i in {1..8}; do cat ids; done > many
	calib-pack -q --ids many > c128.qp
	two=$(peak -c c16.qp m)
	rm -r m
	small hidden=256 heads=4 kv=2 ffn=704 layers=12 vocab=512 dtype=BF16
	twelve=$(peak -c c16.qp m)
	spilled=$(peak -S absmax --spill=. -c c128.qp m)
	held=$(peak -S absmax -c c128.qp m)
	echo "2 blocks: $two MiB, 12: $twelve; 128 windows spilled: $spilled, held: $held"
	[ "$twelve" -le $((two + 3)) ]
	[ "$spilled" -lt "$((held - 45))" ]
}

@test "record-acts: statistics name their calibration set, and those of another are refused" {
	for i in 1 2; do
		calib-pack -q -m "$MODEL" -n 2 -s 32 --seed=$i "$CALIB" > c$i
		record-acts -q -c c$i "$MODEL" > a$i
		eval "set$i=\$(qp-dump c$i | grep -o 'xxh128:[0-9a-f]*' | head -n 1)"
	done
	[ "$set1" != "$set2" ]
	qp-dump a1 | grep "stat=\"hessian\".* calib=\"$set1\"" > found
	# as if somebody had put another's Hessian here
	qp-dump a1 | sed "/attn.mid role=stat.*hessian/s/$set1/$set2/" | qp-make > mixed
	for p in "gptq -q" "smooth -q" "qp-alloc --budget=4" qp-check; do
		refuses 65 "layers.0.attn.mid: from the calibration set $set2, but the stream's is $set1" \
			sh -c "$p mixed > out"
	done
	# a sum of both is of a set of its own
	qp-sum a1 a2 > sum
	qp-check sum
	gptq -q sum | qp-check -
}
