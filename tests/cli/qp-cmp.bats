#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-cmp.bats - how far two streams are apart

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
}

# A stream in FILE of the records on standard input.
stream() {	# stream FILE
	{ echo 'stream v=[1,0]'; cat; echo end; } | qp-make > "$1"
}

# The comparison exits 1; its output is in $output.
differ() {	# differ COMMAND...
	run --separate-stderr -1 "$@"
	[ -z "$stderr" ] || [[ " $* " == *' -v '* ]]
}

@test "qp-cmp: equal streams: silence, exit 0" {
	qp-make "$DATA/streams/kinds.txt" > a.qp
	run --separate-stderr -0 qp-cmp a.qp a.qp
	[ -z "$output" ] && [ -z "$stderr" ]
	run -0 sh -c 'qp-cmp - a.qp < a.qp'
	run -0 sh -c 'qp-cmp a.qp - < a.qp'
	qp-make -z "$DATA/streams/kinds.txt" > z.qp
	run -0 qp-cmp a.qp z.qp
}

@test "qp-cmp: the figures of two small tensors are those worked out by hand" {
	stream a.qp <<< $'tensor w role=weight dtype=F32 shape=[2]\n 3 4'
	stream b.qp <<< $'tensor w role=weight dtype=F64 shape=[2]\n 3 4.5'
	# |d| = 0.5, |a| = 5: rel 0.1, 20 dB; cosine 27 / (5 sqrt(29.25)) = 0.998460
	differ qp-cmp -v a.qp b.qp
	[[ ${lines[1]} =~ ^w\ weight\ +5\.000e-01\ +1\.000e-01\ +20\.00\ +0\.998460\ \*$ ]]
	[[ ${lines[2]} =~ ^w\ weight\ +5\.000e-01\ .*\(the\ worst\)$ ]]
	[ "${lines[3]}" = '1 of 1 tensors differ' ]
	differ qp-cmp a.qp b.qp
	[ "${#lines[@]}" -eq 2 ]
	differ qp-cmp -q a.qp b.qp
	[ -z "$output" ]
}

@test "qp-cmp: --rel and --abs: the same if each one given is kept" {
	stream a.qp <<< $'tensor w role=weight dtype=F32 shape=[2]\n 3 4'
	stream b.qp <<< $'tensor w role=weight dtype=F32 shape=[2]\n 3 4.5'
	run -0 qp-cmp --rel=0.1000001 a.qp b.qp
	[[ $output == *'0 of 1 tensors differ' ]]
	differ qp-cmp --rel=0.0999999 a.qp b.qp
	run -0 qp-cmp --abs=0.5 a.qp b.qp
	differ qp-cmp --abs=0.4999999 a.qp b.qp
	differ qp-cmp --abs=0.5 --rel=0.05 a.qp b.qp
	differ qp-cmp --abs=0.05 --rel=0.5 a.qp b.qp
	run -0 qp-cmp --abs=0.5 --rel=0.5 a.qp b.qp
	refuses 64 '--rel: expected a number' qp-cmp --rel=-1 a.qp b.qp
	refuses 64 '--abs: expected a number' qp-cmp --abs=x a.qp b.qp
}

@test "qp-cmp: a weight beside its codes is the value, whichever comes first" {
	rtn -q -g 16 "$MODEL" > "$out/r.qp"
	weights_first "$out/r.qp" > "$out/old.qp"
	qp-cmp "$out/r.qp" "$out/old.qp"
	qp-cmp "$out/old.qp" "$out/r.qp"
	qp-ls "$out/r.qp" | grep -E '^(tensors|quantized)' > "$out/a"
	qp-ls "$out/old.qp" | grep -E '^(tensors|quantized)' | diff "$out/a" -
	grep -q ' 656,000 parameters' "$out/a"
}

@test "qp-cmp: codes are compared by what they stand for, with weights and with other codes" {
	qp-make "$DATA/streams/quantized.txt" > q.qp
	qp-make "$DATA/streams/quantized-values.txt" > v.qp
	run -0 qp-cmp q.qp v.qp
	[ -z "$output" ]
	run -0 qp-cmp v.qp q.qp
	run -0 qp-cmp q.qp q.qp
	# another zero, another scale, another code: each is seen
	for change in 's/^ 2 15$/ 2 14/' 's/^ 0x1p-7$/ 0x1p-6/' 's/^ 4 4 5 1$/ 4 4 5 2/' \
		's/^ 0x1p+0 -0x1p+0 0x1.8p+0$/ 1 1 1/'; do
		sed "$change" "$DATA/streams/quantized.txt" | qp-make > other.qp
		differ qp-cmp other.qp v.qp
		[ "${lines[-1]}" = '1 of 5 tensors differ' ]
	done
}

@test "qp-cmp: packed weights are the dequantized weights, bit for bit" {
	for opt in '-b 4 -g 32 --asym' '-b 3 -g 0' '-b 2 -g -1'; do
		rtn -q $opt <(record-acts -q --stats=none "$MODEL") > r.qp
		pack-int4 -q r.qp > p.qp
		run -0 qp-cmp --role=weight r.qp p.qp
		[ -z "$output" ]
		differ qp-cmp "$MODEL" p.qp
		[[ ${lines[-1]} == '14 of 21 tensors differ' ]]
	done
}

@test "qp-cmp: NaN equals NaN, infinities of a sign are equal, all else is infinitely far" {
	stream a.qp <<< $'tensor w dtype=F32 shape=[5]\n nan inf -inf 0 1'
	stream b.qp <<< $'tensor w dtype=F64 shape=[5]\n -nan inf -inf -0 1'
	run -0 qp-cmp a.qp b.qp
	for other in '0 inf -inf 0 1' 'nan -inf -inf 0 1' 'nan inf -inf 0 nan' \
		'nan inf -inf inf 1'; do
		stream c.qp <<< $'tensor w dtype=F32 shape=[5]\n '"$other"
		differ qp-cmp --rel=1e30 --abs=1e30 a.qp c.qp
		differ qp-cmp --rel=1e30 --abs=1e30 c.qp a.qp
		[[ ${lines[0]} =~ ^w\ +inf\ +inf\ +-inf\ +0\.000000\  ]]
	done
}

@test "qp-cmp: integers of 64 bits are compared exactly, bytes too" {
	stream a.qp <<< $'tensor i dtype=I64 shape=[2]\n 9007199254740993 1'
	stream b.qp <<< $'tensor i dtype=I64 shape=[2]\n 9007199254740992 1'
	differ qp-cmp a.qp b.qp
	stream a.qp <<< $'tensor f dtype=F8_E4M3 shape=[2]\n h\'3839\''
	stream b.qp <<< $'tensor f dtype=F8_E4M3 shape=[2]\n h\'383a\''
	differ qp-cmp a.qp b.qp
	run -0 qp-cmp b.qp b.qp
	stream c.qp <<< $'tensor f dtype=U8 shape=[2]\n 56 57'
	differ qp-cmp a.qp c.qp
	[[ ${lines[0]} == 'f: dtypes differ'* ]]
}

@test "qp-cmp: zeros: nothing over nothing is equal, something over nothing infinite" {
	stream a.qp <<< $'tensor w dtype=F32 shape=[2]\n 0 0'
	stream b.qp <<< $'tensor w dtype=F32 shape=[2]\n 0 1'
	run -0 qp-cmp a.qp a.qp
	differ qp-cmp --rel=1e30 a.qp b.qp
	run -0 qp-cmp --abs=1 a.qp b.qp
	run -0 qp-cmp --rel=1 b.qp a.qp
}

@test "qp-cmp: order within a block does not matter, across blocks it does" {
	stream a.qp <<- 'EOF'
	tensor e role=weight dtype=F32 shape=[1]
	 1
	block index=0
	tensor x role=weight dtype=F32 shape=[1]
	 1
	tensor y role=weight dtype=F32 shape=[1]
	 2
	block-end index=0
	block index=1
	tensor x role=weight dtype=F32 shape=[1]
	 3
	block-end index=1
	EOF
	stream b.qp <<- 'EOF'
	tensor e role=weight dtype=F32 shape=[1]
	 1
	block index=0
	tensor y role=weight dtype=F32 shape=[1]
	 2
	tensor x role=weight dtype=F32 shape=[1]
	 1
	block-end index=0
	block index=1
	tensor x role=weight dtype=F32 shape=[1]
	 3
	block-end index=1
	EOF
	run -0 qp-cmp a.qp b.qp
	qp-dump a.qp | sed 's/^ 0x1.8p+1/ 0x1p+2/' | qp-make > c.qp
	differ qp-cmp a.qp c.qp
	[ "${lines[-1]}" = '1 of 4 tensors differ' ]
	qp-dump a.qp | sed '/^block index=1/,/^block-end/d' | qp-make > short.qp
	differ qp-cmp a.qp short.qp
	[ "${lines[0]}" = 'x weight: only in the first' ]
	differ qp-cmp short.qp a.qp
	[ "${lines[0]}" = 'x weight: only in the second' ]
}

@test "qp-cmp: what one side lacks, and other shapes, are differences" {
	stream a.qp <<< $'tensor w role=weight dtype=F32 shape=[2]\n 3 4'
	stream b.qp <<< $'tensor w role=weight dtype=F32 shape=[1,2]\n 3 4'
	stream c.qp <<< $'tensor v role=weight dtype=F32 shape=[2]\n 3 4'
	stream d.qp <<< $'tensor w role=bias dtype=F32 shape=[2]\n 3 4'
	differ qp-cmp --rel=1 a.qp b.qp
	[ "${lines[0]}" = 'w weight: shapes differ' ]
	differ qp-cmp --rel=1 a.qp c.qp
	[ "${lines[-1]}" = '2 of 2 tensors differ' ]
	differ qp-cmp --rel=1 a.qp d.qp
	stream e.qp <<< 'alias w of="x"'
	stream f.qp <<< 'alias w of="y"'
	differ qp-cmp a.qp e.qp
	[ "${lines[0]}" = 'w weight: an alias on one side only' ]
	differ qp-cmp e.qp f.qp
	[ "${lines[0]}" = 'w alias: aliases of different tensors' ]
	run -0 qp-cmp e.qp e.qp
}

@test "qp-cmp: statistics of one edge are told apart by their kind" {
	qp-make "$DATA/streams/shard-one.txt" > a.qp
	qp-make "$DATA/streams/shard-two.txt" > b.qp
	differ qp-cmp a.qp b.qp
	[[ $output == *'layers.0.mlp.in samples: shapes differ'* ]]
	[ "${lines[-1]}" = '6 of 8 tensors differ' ]
	differ qp-cmp -v a.qp b.qp
	for k in absmax absmean min max hessian; do
		grep -q "^layers.0.mlp.in $k " <<< "$output"
	done
}

@test "qp-cmp: --role compares only those" {
	qp-make "$DATA/streams/shard-one.txt" > a.qp
	qp-make "$DATA/streams/shard-two.txt" > b.qp
	run -0 qp-cmp --role=weight a.qp b.qp
	run -0 qp-cmp -r bias,ref,perm,comp,other a.qp b.qp
	differ qp-cmp -r weight,stat a.qp b.qp
	refuses 64 '--role' qp-cmp -r codes a.qp b.qp
	refuses 64 '--role' qp-cmp -r weight, a.qp b.qp
}

@test "qp-cmp: a damaged or unsound stream is 65, not a difference" {
	qp-make "$DATA/streams/shard-one.txt" > a.qp
	refuses_every_prefix a.qp qp-cmp a.qp -
	refuses_every_prefix a.qp qp-cmp - a.qp
	flip a.qp 700 bad.qp
	refuses 65 '' sh -c 'qp-cmp a.qp bad.qp > /dev/null'
	q=$DATA/streams/quantized.txt
	qp-make "$q" > q.qp
	sed '/^tensor asym role=scale/,+2d' "$q" | qp-make > bad.qp
	refuses 65 'asym: codes without scale' qp-cmp q.qp bad.qp
	sed 's/^ 0 15 7 8/ 0 16 7 8/' "$q" | qp-make > bad.qp
	refuses 65 'asym: code 16 at row 0 column 1 does not fit 4 bits' qp-cmp q.qp bad.qp
	stream bad.qp <<< $'tensor a role=scale dtype=F16 shape=[1,1]\n 1'
	refuses 65 'a: scale without its codes' qp-cmp bad.qp bad.qp
	stream bad.qp <<< 'block index=0'
	refuses 65 'block: is not closed' qp-cmp bad.qp bad.qp
	stream bad.qp <<< $'block index=0\nblock index=1'
	refuses 65 'block: begins inside another' qp-cmp bad.qp bad.qp
	stream bad.qp <<< 'block-end index=0'
	refuses 65 'block-end: does not close a block' qp-cmp bad.qp bad.qp
	refuses 64 '-: only one' sh -c 'qp-cmp - - < a.qp'
	refuses 64 '' qp-cmp a.qp
	refuses 66 '/no/such' qp-cmp a.qp /no/such
}

@test "qp-cmp: --tasks: paired differences, as the standard library of Python has them" {
	need_python json
	record-acts -q --stats=none "$MODEL" | rtn -q -b 3 | pack-int4 -q -o q.qp
	for t in piqa winogrande lambada_openai hellaswag; do args+=(-t "$DATA/tasks/$t.jsonl"); done
	eval-tasks -q "${args[@]}" --samples=a "$MODEL" > /dev/null
	eval-tasks -q "${args[@]}" --samples=b q.qp > /dev/null
	differ qp-cmp --tasks a b
	echo "$output" > table
	"$PYTHON" - <<-'END'
	import json, math, statistics as st
	a, b = ([json.loads(l) for l in open(f)] for f in "ab")
	rows = {}
	for line in open("table"):
	    w = line.replace("+-", " ").split()
	    rows[w[0], w[2]] = w[1:2] + w[3:]
	tasks = list(dict.fromkeys(s["task"] for s in a))
	def figures(t, f):
	    pick = lambda s: s["ll"][s.get("gold", 0)] if f == "ll" else s[f]
	    return [(pick(x), pick(y)) for x, y in zip(a, b) if x["task"] == t]
	def close(got, want):
	    assert abs(float(got) - want) < 6e-5, (got, want)
	for f in "acc", "acc_norm", "ll":
	    mean, var = 0, 0
	    for t in tasks:
	        has = all(f in s for s in a if s["task"] == t)
	        assert ((t, f) in rows) == has
	        p = figures(t, f if has else "acc")
	        d = [y - x for x, y in p]
	        se = st.stdev(d) / math.sqrt(len(d))
	        mean += st.mean(d) / len(tasks)
	        var += (se / len(tasks)) ** 2
	        if has:
	            r = rows[t, f]
	            assert int(r[0]) == len(d)
	            close(r[1], st.mean(x for x, y in p))
	            close(r[2], st.mean(y for x, y in p))
	            close(r[3], st.mean(d))
	            close(r[4], se)
	            assert [int(r[5]), int(r[6])] == [sum(x < 0 for x in d), sum(x > 0 for x in d)]
	    close(rows["mean", f][3], mean)
	    close(rows["mean", f][4], math.sqrt(var))
	assert len(rows) == 1 + 3 + 2 + 2 + 3 + 3 # the header, four tasks, means
	END
}

@test "qp-cmp: --tasks: exit 0 when every answer is the same, likelihoods may differ" {
	eval-tasks -q -t "$DATA/tasks/piqa.jsonl" --samples=a "$MODEL" > /dev/null
	run -0 qp-cmp --tasks a a
	[[ ${lines[1]} =~ ^piqa\ +4\ +acc\ .*\+0\.0000\ \+-\ 0\.0000\ +0\ +0$ ]]
	sed 's/"ll": \[\(-[0-9]*\)/"ll": [\11/' a > b # the first ten times as far and more
	run -0 qp-cmp --tasks a b
	sed '2s/"acc": [01]/"acc": 1/; 2s/"acc_norm": 1/"acc_norm": 0/' a > b
	run -1 cmp -s a b
	differ qp-cmp --tasks a b
	run -1 qp-cmp -q --tasks a b
	[ -z "$output" ]
	run -0 sh -c 'qp-cmp --tasks - a < a'
}

@test "qp-cmp: --tasks: logs that do not belong together, and what is no log" {
	eval-tasks -q -t "$DATA/tasks/piqa.jsonl" --samples=a "$MODEL" > /dev/null
	eval-tasks -q --json -t "$DATA/tasks/piqa.jsonl" "$MODEL" > json
	head -n 3 a > short
	refuses 65 'a: line 4: one file has more' qp-cmp --tasks a short
	refuses 65 'a: line 4: one file has more' qp-cmp --tasks short a
	sed '2s/piqa/copa/' a > other
	refuses 65 'other: line 2: another sample' qp-cmp --tasks a other
	sed '3s/"gold": 0/"gold": 1/' a > other
	refuses 65 'other: line 3: another sample' qp-cmp --tasks a other
	sed '2s/"acc_norm": [01], //' a > other
	refuses 65 'other: line 2: other figures' qp-cmp --tasks a other
	refuses 65 'json: line 1: the summary' qp-cmp --tasks a json
	refuses 65 '.*piqa.jsonl: line 1: not a sample' qp-cmp --tasks "$DATA/tasks/piqa.jsonl" a
	sed '2s/}/]/' a > other
	refuses 65 'other: line 2: not JSON' qp-cmp --tasks a other
	: > empty
	refuses 65 'empty: no samples' qp-cmp --tasks empty empty
	refuses 66 '/no/such' qp-cmp --tasks a /no/such
	refuses 64 '--tasks: does not go' qp-cmp --tasks --rel=1 a a
}
