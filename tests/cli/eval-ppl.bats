#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# eval-ppl.bats - what eval-ppl promises on its man page, one test per promise

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	head -c 20000 "$EVAL" > text
}

small() {	# small [KEY=VALUE...]: a random model with the shipped tokenizer in the folder m
	need_python numpy
	rm -rf m
	"$PYTHON" "$ROOT/tests/mkmodel.py" m vocab=2048 tokenizer="$MODEL" "$@"
}

# The text form of a stream with all values of the tensors that begin with NAME (a regular
# expression) replaced.
fill() {	# fill NAME VALUE
	awk -v name="^tensor $1" -v v="$2" '
		/^[a-z]/ { on = $0 ~ name }
		on && /^ / { gsub(/[^ ]*0x[^ ]*/, v) }
		1'
}

# One value of the JSON in file `out`.
json() { sed -n "s/.*\"$1\": \"*\([^,}\"]*\).*/\1/p" "${2:-out}"; }
# near A B RELATIVE
near() { awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { d = a - b; exit !(d * d <= (r * b) ^ 2) }' ||
	{ echo "$1 is not $2 within $3"; return 1; }; }

# transformers 5.17 in f32 on the same windows.
@test "eval-ppl: the shipped model on its text, dialect gptq, as transformers has it" {
	eval-ppl --json -c 512 "$MODEL" < "$EVAL" > out
	near "$(json ppl)" 42.6037 0.0002
	[ "$(json tokens)" -eq 16863 ]
	[ "$(json windows)" -eq 33 ]
	[ "$(json ctx)" -eq 512 ]
	[ "$(json dialect)" = gptq ]
	near "$(json nll)" "$(awk 'BEGIN { print log(42.6037) }')" 0.0001
}

@test "eval-ppl: and on the first 40 windows of WikiText-2" {
	need_shared text/wiki.test.raw
	eval-ppl --json -w 40 "$MODEL" -t "$SHARED/text/wiki.test.raw" > out
	near "$(json ppl)" 703.957 0.0002
	[ "$(json tokens)" -eq 20440 ]
}

# Every dialect from qp-tok's ids and qp-forward's logits, in numpy.
by_hand() {	# by_hand DIALECT CTX
	"$PYTHON" - "$1" "$2" "$MODEL" <<-'END'
	import subprocess, sys, msgpack, numpy as np
	dialect, ctx, model = sys.argv[1], int(sys.argv[2]), sys.argv[3]
	text = open("text", "rb").read()
	ids = [int(i) for i in subprocess.run(["qp-tok", "-m", model], input=text,
	       stdout=subprocess.PIPE, check=True).stdout.split()]
	windows = [ids[i:i + ctx] for i in range(0, len(ids) - ctx + 1, ctx)]
	fed = [[1] + w[1:] for w in windows] if dialect == "llama.cpp" else windows
	lines = "\n".join(" ".join(map(str, w)) for w in fed).encode()
	out = subprocess.run(["qp-forward", "-q", model], input=lines, stdout=subprocess.PIPE,
	                     check=True).stdout
	u, logits = msgpack.Unpacker(raw=False, max_buffer_size=0), {}
	u.feed(out)
	for h in u:
	    data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	    if h["t"] == "tensor":
	        logits[h["name"]] = np.frombuffer(data, "f4").reshape(h["shape"]).astype(float)
	first = ctx // 2 if dialect == "llama.cpp" else 0
	nll = []
	for n, w in enumerate(windows):
	    x = logits["logits.%d" % n][first:-1]
	    want = w[first + 1:]
	    nll.extend(np.log(np.exp(x).sum(1)) - x[np.arange(len(want)), want])
	nll = np.array(nll)
	print(np.exp(nll.mean()), nll.std(ddof=1) / len(nll) ** .5 * np.exp(nll.mean()), len(nll))
	END
}

@test "eval-ppl: gptq and llama.cpp score what their descriptions say" {
	need_python msgpack numpy
	for dialect in gptq llama.cpp; do
		for ctx in 128 201; do
			by_hand $dialect $ctx > want
			read -r ppl stderr tokens < want
			eval-ppl --json -d $dialect -c $ctx "$MODEL" < text > out
			near "$(json ppl)" "$ppl" 1e-5
			near "$(json stderr)" "$stderr" 1e-4
			[ "$(json tokens)" -eq "$tokens" ]
			[ "$(json ctx)" -eq "$ctx" ]
		done
	done
	[ "$(json bos)" = window ]
}

# The rules of lm-evaluation-harness's task wikitext, in Python, over qp-forward's logits.
@test "eval-ppl: harness scores as the harness's own rules do" {
	need_python msgpack numpy
	{
		printf ' \n = A cat = \n \n The cat ( a pet ) said , '
		printf '" it is 5 @,@ 000 @-@ fold . " \n'
		printf ' = = Life = = \n \n It was Tim '"'"'s cat ; Tim loved it . \n'
		printf ' = B = \n \n [ One ] day ... Sam \302\240 went home . \n'
	} > text
	"$PYTHON" - "$MODEL" 24 > want <<-'END'
	import re, subprocess, sys, msgpack, numpy as np
	model, L = sys.argv[1], int(sys.argv[2])
	def run(*a, input):
	    return subprocess.run(a, input=input, stdout=subprocess.PIPE, check=True).stdout
	pages, page = [], []
	for line in open("text", encoding="utf-8", newline="").read().split("\n"):
	    r = line.replace("= = =", "===").replace("= =", "==").strip()
	    if r.startswith("= ") and r.endswith(" ="):
	        if "\n".join(page).strip():
	            pages.append("\n".join(page))
	        page = []
	    page.append(line)
	pages.append("\n".join(page))
	words = sum(len(re.split(r"\s+", p)) for p in pages)
	def detokenize(s):
	    s = s.replace("s '", "s'")
	    for mark in "-,.":
	        s = s.replace(" @%s@ " % mark, mark)
	    for mark in ":;.!?,":
	        s = s.replace(" %s " % mark, mark + " ")
	    for a, b in (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"), ('"', '"'), ("'", "'"):
	        s = re.sub(r"%s\s*([^%s]*?)\s*%s" % (a, b, b),
	                   lambda m, a=a, b=b: a.strip("\\") + m.group(1) + b.strip("\\"), s)
	    for a, b in (("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \xb0 ", "\xb0"),
	                 (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")):
	        s = s.replace(a, b)
	    return s
	total = count = 0
	for p in pages:
	    ids = [int(i) for i in run("qp-tok", "--no-special", "-m", model,
	                               input=detokenize(p).encode()).split()]
	    count += len(ids)
	    for end in range(0, len(ids), L):
	        want = ids[end:end + L]
	        last = end + len(want)
	        fed = [1] + want[:-1] if end == 0 else ids[last - L - 1:last - 1]
	        u = msgpack.Unpacker(raw=False, max_buffer_size=0)
	        u.feed(run("qp-forward", "-q", model, input=" ".join(map(str, fed)).encode()))
	        for h in u:
	            data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	            if h["t"] == "tensor":
	                x = np.frombuffer(data, "f4").reshape(h["shape"]).astype(float)[-len(want):]
	        total += (np.log(np.exp(x).sum(1)) - x[np.arange(len(want)), want]).sum()
	print(np.exp(total / words), words, len(pages), count)
	END
	read -r ppl words pages tokens < want
	[ "$pages" -eq 2 ]
	eval-ppl --json --dialect=harness --ctx=24 "$MODEL" < text > out
	near "$(json ppl)" "$ppl" 1e-5
	[ "$(json words)" -eq "$words" ]
	[ "$(json documents)" -eq 2 ]
	[ "$(json tokens)" -eq "$tokens" ]
	[ "$(json bos)" = prefix ]
	eval-ppl --json --dialect=harness "$MODEL" < text > out
	[ "$(json ctx)" -eq 512 ]
	[ "$(json windows)" -eq 2 ]
}

@test "eval-ppl: equal logits give the size of the vocabulary" {
	small tied=0
	record-acts -q --stats=none m | qp-dump |
		fill lm_head 0 |
		qp-make > flat.qp
	for d in gptq llama.cpp; do
		eval-ppl --json -d $d -c 64 flat.qp < text > out
		near "$(json ppl)" 2048 1e-6
		awk -v s="$(json stderr)" 'BEGIN { exit !(s < 1e-3) }'
	done
}

@test "eval-ppl: prints one line for people" {
	eval-ppl -c 100 "$MODEL" < text > out
	[ "$(wc -l < out)" -eq 1 ]
	local number='[0-9]+(\.[0-9]+)?' line
	line="^ppl $number \\+/- $number  nll $number  tokens $number  windows $number  ctx 100"
	grep -qE "$line  dialect gptq  bos stream\$" out
}

@test "eval-ppl: --json prints one object with the keys that scripts rely on" {
	need_python json
	eval-ppl --json -c 100 "$MODEL" < text > out
	"$PYTHON" -c 'import json; d = json.load(open("out")); assert set(d) == set(
	    "ppl nll stderr tokens windows ctx dialect bos".split()), d'
	eval-ppl --json -d harness "$MODEL" < text > out
	"$PYTHON" -c 'import json; d = json.load(open("out")); assert d["documents"] == 1, d'
}

@test "eval-ppl: a directory, a stream, standard input: the same number" {
	record-acts -q --stats=none "$MODEL" > m.qp
	eval-ppl -c 256 "$MODEL" < text > want
	eval-ppl -c 256 m.qp < text | diff want -
	eval-ppl -c 256 - -t text < m.qp | diff want -
	zstd -q m.qp -o m.qp.zst 2> /dev/null || return 0
	eval-ppl -c 256 m.qp.zst < text | diff want -
}

@test "eval-ppl: a packed stream gives what its dequantized weights give" {
	record-acts -q -n 4 -s 64 "$MODEL" > acts.qp
	for bits in 2 3 4; do
		gptq -q -b $bits -g 64 acts.qp > g.qp
		eval-ppl -c 256 g.qp < text > want
		pack-int4 -q g.qp | eval-ppl -c 256 - -t text | diff want -
	done
}

@test "eval-ppl: neither threads nor --spill change the number" {
	eval-ppl --json -c 256 -j 1 "$MODEL" < text > want
	eval-ppl --json -c 256 -j 2 "$MODEL" < text | diff want -
	eval-ppl --json -c 256 --spill=. "$MODEL" < text | diff want -
	eval-ppl --json -c 256 --spill "$MODEL" < text | diff want -
}

@test "eval-ppl: --max exits 1 above the limit, and prints all the same" {
	run --separate-stderr -1 eval-ppl --max=10 -c 128 "$MODEL" -t text
	[[ $output == "ppl "* ]]
	[ -z "$stderr" ]
	run --separate-stderr -0 eval-ppl --max=1000 -c 128 "$MODEL" -t text
	[[ $output == "ppl "* ]]
}

@test "eval-ppl: the default window is what the model has, or less" {
	eval-ppl --json "$MODEL" < text > out
	[ "$(json ctx)" -eq 512 ]
	small context=4096
	eval-ppl --json m < "$EVAL" > out
	[ "$(json ctx)" -eq 2048 ]
	eval-ppl --json -d llama.cpp m < "$EVAL" > out
	[ "$(json ctx)" -eq 512 ]
	refuses 65 '--ctx: 513, but the model has 512' eval-ppl -c 513 "$MODEL" -t text
}

@test "eval-ppl: empty text, too short a text, text that is not UTF-8" {
	refuses 65 'text: empty' eval-ppl "$MODEL" -t /dev/null
	echo 'Once upon a time' > short
	refuses 65 'text: [0-9]+ tokens, too short for a window of 512' eval-ppl "$MODEL" -t short
	head -c 2500 text > one
	eval-ppl -c 512 "$MODEL" -t one
	refuses 65 'text: [0-9]+ tokens, too short for two windows' \
		eval-ppl -d llama.cpp -c 512 "$MODEL" -t one
	printf 'abc\377def' > bad
	refuses 65 '.*(UTF-8|utf-8).* 3' eval-ppl "$MODEL" -t bad
	refuses 65 'text: empty' eval-ppl -d harness "$MODEL" -t /dev/null
	printf ' \n \n' > blank
	refuses 65 'text: empty' eval-ppl -d harness "$MODEL" -t blank
}

@test "eval-ppl: command lines that make no sense" {
	refuses 64 '--text: needed, a file' eval-ppl - < /dev/null
	refuses 64 '--text: needed, a file' eval-ppl - -t - < /dev/null
	refuses 64 "--dialect: expected gptq, llama.cpp or harness, got 'ppl'" \
		eval-ppl -d ppl "$MODEL"
	refuses 64 '--ctx: ' eval-ppl -c 1 "$MODEL"
	refuses 64 '--windows: does not go' eval-ppl -d harness -w 3 "$MODEL"
	refuses 64 'missing operand' eval-ppl
	refuses 64 'unexpected operand' eval-ppl "$MODEL" text
	refuses 66 'nothere: ' eval-ppl nothere -t text
	refuses 66 'nothere: ' eval-ppl "$MODEL" -t nothere
	refuses 69 '.*cuda' eval-ppl --device=cuda "$MODEL" -t text
}

@test "eval-ppl: a model without tokenizer, a stream that is no model" {
	need_python numpy
	"$PYTHON" "$ROOT/tests/mkmodel.py" m
	refuses 65 'model: carries no tokenizer' eval-ppl m -t text
	printf 'stream v=[1,0]\nend\n' | qp-make > empty.qp
	refuses 65 '' eval-ppl empty.qp -t text
}

@test "eval-ppl: a stream cut short or damaged, and parts missing" {
	small hidden=8 heads=2 kv=1 ffn=4 tied=0
	record-acts -q --stats=none m > m.qp
	size=$(wc -c < m.qp)
	for n in 100 5000 $((size / 2)) $((size - 40)) $((size - 1)); do
		head -c "$n" m.qp > cut.qp
		refuses 65 '' eval-ppl -c 64 cut.qp -t text
	done
	flip m.qp $((size - 3000)) bad.qp
	refuses 65 '' eval-ppl -c 64 bad.qp -t text
	qp-dump m.qp > m.txt
	for t in lm_head model.norm model.embed_tokens; do
		awk -v t="^tensor $t" '/^[a-z]/ { on = $0 ~ t } !on' m.txt | qp-make > bad.qp
		refuses 65 "$t.weight: missing" eval-ppl -c 64 bad.qp -t text
	done
	sed '/^tensor lm_head/i run clamp max=3' m.txt | qp-make > bad.qp
	refuses 76 'clamp: run record' eval-ppl -c 64 bad.qp -t text
}

@test "eval-ppl: logits that are not finite are an error, not a number" {
	small hidden=8 heads=2 kv=1 ffn=4 tied=0
	record-acts -q --stats=none m | qp-dump |
		fill '(lm_head|model.norm)' 3e38 |
		qp-make > inf.qp
	refuses 65 'model: window 0, position 0: the logits are not finite' \
		eval-ppl -c 64 inf.qp -t text
}

@test "eval-ppl: a full disk" {
	refuses 74 'standard output: No space left' \
		sh -c "eval-ppl -c 64 -w 1 '$MODEL' < text > /dev/full"
}

@test "eval-ppl: memory does not grow with the model's blocks, nor --spill's with the text" {
	not_with_sanitizers "memory is not what it would be"
	peak() { eval-ppl -v -j 1 "$@" 2>&1 > /dev/null | sed 's/.*peak \([0-9]*\).*/\1/'; }
	small hidden=256 heads=4 kv=2 ffn=704 layers=2 dtype=BF16
	two=$(peak -c 64 -w 64 m -t "$EVAL")
	for i in 1 2 3 4; do cat "$EVAL"; done > long
	spilled=$(peak -c 512 --spill=. m -t long)
	held=$(peak -c 512 m -t long)
	small hidden=256 heads=4 kv=2 ffn=704 layers=12 dtype=BF16
	twelve=$(peak -c 64 -w 64 m -t "$EVAL")
	echo "2 blocks: $two MiB, 12: $twelve; spilled: $spilled, held: $held"
	[ "$twelve" -le $((two + 3)) ]
	[ "$spilled" -lt $((held - 45)) ]
}

# The man page's formula, within 20 % both ways: for one model the blocks weigh most, for the
# other the head.
@test "eval-ppl: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	local hidden=512 ffn vocab
	for shape in "1408 2048" "256 20000"; do
		read -r ffn vocab <<< "$shape"
		small hidden=$hidden heads=8 kv=4 ffn=$ffn vocab=$vocab layers=2 dtype=BF16
		eval-ppl -v -j 2 -c 512 -w 16 m -t "$EVAL" 2> err > out
		"$PYTHON" - "$ffn" "$vocab" "$(sed 's/.*peak \([0-9.]*\) MiB/\1/' err)" <<-'END'
		import sys
		D, Q, M, T = 512, 512, 2 * 4 * 64, 16 * 512
		F, V = int(sys.argv[1]), int(sys.argv[2])
		P = 2 * D * Q + M * D + 3 * D * F + 2 * D
		want = 4 * T * D + 8 * T + (12 << 20) + max(
		    4 * P + 2 * D * F + 4 * 2048 * (D + max(D, Q) + max(Q + M, 2 * F)) + 2 * V * D,
		    4 * V * D + max(2 * V * D, (32 << 20) + 8 * T))
		got = float(sys.argv[3]) * 2**20
		print("peak %.1f MiB, formula %.1f" % (got / 2**20, want / 2**20))
		sys.exit(not 0.8 * want < got < 1.2 * want)
		END
	done
}

quantized() {	# the shipped model in 4 bits: q.qp
	record-acts -q --stats=none "$MODEL" | rtn -q -b 4 | pack-int4 -q -o q.qp
}

@test "eval-ppl: --kl: a model and itself are 0 apart and agree everywhere" {
	record-acts -q --stats=none "$MODEL" > m.qp
	eval-ppl -q -c 128 --json --kl m.qp "$MODEL" < text > out
	[ "$(json kl)" = 0 ]
	[ "$(json kl_stderr)" = 0 ]
	[ "$(json kl_p99)" = 0 ]
	[ "$(json kl_max)" = 0 ]
	[ "$(json top1)" = 1 ]
	near "$(json ppl_ref)" "$(json ppl)" 1e-6
}

values() { qp-dump "$1" | sed -n '/^tensor/,$p'; } # without the header, which has the options

# In numpy, from the logits of both models; K: what a base of K tokens knows of them.
divergence() {	# divergence DIALECT CTX K
	"$PYTHON" - "$1" "$2" "$3" "$MODEL" <<-'END'
	import subprocess, sys, msgpack, numpy as np
	dialect, ctx, top, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
	ids = [int(i) for i in subprocess.run(["qp-tok", "-m", model], input=open("text", "rb").read(),
	       stdout=subprocess.PIPE, check=True).stdout.split()]
	windows = [ids[i:i + ctx] for i in range(0, len(ids) - ctx + 1, ctx)]
	fed = [[1] + w[1:] for w in windows] if dialect == "llama.cpp" else windows
	first = ctx // 2 if dialect == "llama.cpp" else 0
	def logp(path):
	    lines = "\n".join(" ".join(map(str, w)) for w in fed).encode()
	    u = msgpack.Unpacker(raw=False, max_buffer_size=0)
	    u.feed(subprocess.run(["qp-forward", "-q", path], input=lines, check=True,
	                          stdout=subprocess.PIPE).stdout)
	    out = []
	    for h in u:
	        data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	        if h["t"] == "tensor":
	            out.append(np.frombuffer(data, "f4").reshape(h["shape"]).astype(float)[first:-1])
	    x = np.concatenate(out)
	    return x - np.log(np.exp(x).sum(1, keepdims=True))
	p, q = logp(model), logp("q.qp")
	want = np.concatenate([w[first + 1:] for w in windows])
	agree = p.argmax(1) == q.argmax(1)
	nll = -p[np.arange(len(p)), want].mean()
	outside = 0
	if top < p.shape[1]:
	    order = np.argsort(-p, 1)
	    def group(x):
	        x = np.take_along_axis(x, order, 1)
	        return np.concatenate([x[:, :top], np.log(np.exp(x[:, top:]).sum(1))[:, None]], 1)
	    p, q = group(p), group(q)
	    outside = np.exp(p[:, -1]).mean()
	kl = (np.exp(p) * (p - q)).sum(1)
	print(kl.mean(), kl.std(ddof=1) / len(kl) ** .5, np.percentile(kl, 99), kl.max(),
	      agree.mean(), np.exp(nll), outside)
	END
}

@test "eval-ppl: --kl is what numpy makes of both models' logits" {
	need_python msgpack numpy
	quantized
	for dialect in gptq llama.cpp; do
		divergence $dialect 128 2048 > want
		read -r kl se p99 max top1 ppl _ < want
		eval-ppl -q --json -d $dialect -c 128 --kl "$MODEL" q.qp < text > out
		near "$(json kl)" "$kl" 1e-5
		near "$(json kl_stderr)" "$se" 1e-5
		near "$(json kl_p99)" "$p99" 1e-5
		near "$(json kl_max)" "$max" 1e-5
		near "$(json top1)" "$top1" 1e-9
		near "$(json ppl_ref)" "$ppl" 1e-5
		eval-ppl -q -d $dialect -c 128 --kl "$MODEL" q.qp < text > table
		near "$(sed -n 's/^kl \([^ ]*\) .*/\1/p' table)" "$kl" 1e-4
	done
	# the other way round is another number
	eval-ppl -q --json -c 128 --kl q.qp "$MODEL" < text > other
	other=$(json kl other)
	[ -n "$other" ]
	run -1 near "$other" "$kl" 1e-3
}

@test "eval-ppl: --save-logits and --kl of it: the outcomes outside of the top count as one" {
	need_python msgpack numpy
	quantized
	for top in 1 7 64 2048; do
		divergence gptq 128 $top > want
		read -r kl se p99 max top1 ppl outside < want
		eval-ppl -q --json -c 128 --save-logits=b.qp --top=$top --drawn=0 "$MODEL" < text > saved
		near "$(json base_outside saved)" "$outside" 1e-5
		[ "$(json base_top saved)" -eq $top ]
		eval-ppl -q --json -c 128 --kl b.qp q.qp < text > out
		near "$(json kl)" "$kl" 1e-4
		near "$(json kl_stderr)" "$se" 1e-4
		near "$(json kl_p99)" "$p99" 1e-4
		near "$(json kl_max)" "$max" 1e-4
		near "$(json top1)" "$top1" 1e-9
		near "$(json ppl_ref)" "$ppl" 1e-5
		near "$(json kl_outside)" "$outside" 1e-5
	done
	qp-check b.qp
	[ "$(json base_bytes saved)" -eq "$(qp-ls b.qp | awk '$1 == "tensor" { n += $NF } END { print n }')" ]
	# more than there are: all
	eval-ppl -q --json -c 128 --save-logits=all.qp --top=2048 "$MODEL" < text > saved
	cmp <(values all.qp) <(values b.qp)
	eval-ppl -q -d harness --save-logits=b.qp "$MODEL" < text > saved
	grep -q '^base: ' saved
	eval-ppl -q -d harness --json --kl b.qp "$MODEL" < text > out
	near "$(json ppl_ref)" "$(json ppl)" 1e-6
	[ "$(json top1)" = 1 ]
}

# In numpy, from the base b.qp and the logits of q.qp: KL by the tops and those drawn.
drawn_divergence() {
	"$PYTHON" - "$MODEL" <<-'END'
	import subprocess, sys, msgpack, numpy as np
	def tensors(data):
	    u = msgpack.Unpacker(raw=False, max_buffer_size=0)
	    u.feed(data)
	    for h in u:
	        data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	        if h["t"] == "tensor":
	            yield h["name"], np.frombuffer(data, {"I32": "i4", "F32": "f4"}[h["dtype"]]) \
	                               .reshape(h["shape"])
	base = dict(tensors(open("b.qp", "rb").read()))
	ids = base["tokens"]
	def logp(path):
	    lines = "\n".join(" ".join(map(str, w)) for w in ids).encode()
	    out = subprocess.run(["qp-forward", "-q", path], input=lines, check=True,
	                         stdout=subprocess.PIPE).stdout
	    x = [x.astype(float) for _, x in tensors(out)]
	    return [v - np.log(np.exp(v).sum(1, keepdims=True)) for v in x]
	p, q, kl, square, drawn, mass = logp(sys.argv[1]), logp("q.qp"), 0, 0, 0, 0
	count = n = 0
	for w in range(len(ids)):
	    at = lambda what: base["top.%d.%s" % (w, what)]
	    top, some, rest = at("ids"), at("drawn"), at("rest").astype(float)
	    assert all(not set(t) & set(s) for t, s in zip(top, some))
	    pw, qw = p[w][:-1], q[w][:-1]
	    take = lambda x, i: np.take_along_axis(x, i.astype(int), 1)
	    assert abs(take(pw, some) - at("drawn_logp")).max() < 1e-4
	    lp = take(pw, top)
	    e = (np.exp(lp) * (lp - take(qw, top))).sum(1)
	    e += rest * (at("drawn_logp") - take(qw, some)).mean(1)
	    kl += e.sum()
	    count += len(e)
	    # how often even ids are drawn, beside their mass among the others
	    others = np.exp(pw)
	    np.put_along_axis(others, top.astype(int), 0, 1)
	    drawn += (some % 2 == 0).mean(1).sum()
	    mass += (others[:, ::2].sum(1) / others.sum(1)).sum()
	assert abs(drawn - mass) / count < 0.005, (drawn, mass)
	print(kl / count)
	END
}

@test "eval-ppl: tokens drawn stand for those outside of the top: KL is that of the whole" {
	need_python msgpack numpy
	quantized
	eval-ppl -q --json -c 128 --kl "$MODEL" q.qp < text > out
	full=$(json kl)
	for top in 4 64; do
		eval-ppl -q --json -c 128 --save-logits=b.qp --top=$top "$MODEL" < text > saved
		[ "$(json base_drawn saved)" -eq 16 ]
		eval-ppl -q --json -c 128 --kl b.qp q.qp < text > out
		[ "$(json kl_drawn)" -eq 16 ]
		near "$(json kl)" "$(drawn_divergence)" 1e-4
		near "$(json kl)" "$full" 1e-2
	done
	eval-ppl -q -c 128 --kl b.qp q.qp < text > table
	run -1 grep -q 'lower bound' table
	eval-ppl -q -c 128 --save-logits=b.qp --drawn=0 "$MODEL" < text > saved
	eval-ppl -q -c 128 --kl b.qp q.qp < text > table
	grep -q 'outside the base [0-9.]*, as one: a lower bound$' table
	refuses 64 '--drawn: goes with --save-logits' eval-ppl --drawn=5 -t text "$MODEL"
}

@test "eval-ppl: the same divergence and base, whatever the number of threads, spilled or not" {
	quantized
	for t in 1 3; do
		eval-ppl -q -j $t --json -c 128 --kl "$MODEL" q.qp < text > kl.$t
		eval-ppl -q -j $t -c 128 --save-logits=b.$t "$MODEL" < text > saved.$t
		eval-ppl -q -j $t --spill=. --json -c 128 --kl b.$t q.qp < text > base.$t
	done
	cmp kl.1 kl.3
	cmp b.1 b.3
	cmp base.1 base.3
	eval-ppl -q -t text --json --spill=. -c 128 --save-logits=b.0 "$MODEL" > saved.json
	cmp <(values b.0) <(values b.1)
	qp-dump b.0 > dump
	grep -qF '"options":["--text=$TEXT","--ctx=128","--save-logits=$SAVE_LOGITS"]' dump
}

@test "eval-ppl: a reference that does not fit is refused" {
	small layers=1
	sed 's/"vocab_size": 2048/"vocab_size": 2040/' m/config.json > c
	eval-ppl -q -c 128 -w 2 --save-logits=b.qp "$MODEL" < text > /dev/null
	refuses 65 '--kl: the base has 2 windows of 128 tokens, this run 3 of 128: --ctx' \
		eval-ppl -c 128 -w 3 --kl b.qp -t text "$MODEL"
	refuses 65 '--kl: the base has 2 windows of 128 tokens, this run 2 of 64: --ctx' \
		eval-ppl -c 64 -w 2 --kl b.qp -t text "$MODEL"
	qp-ls --provenance b.qp | grep -qF -- '--save-logits="$SAVE_LOGITS"'
	tail -c 9000 text > other
	refuses 65 '--kl: the base is of another text.* .tokens differ.' \
		eval-ppl -c 128 -w 2 --kl b.qp -t other "$MODEL"
	refuses 65 '--kl: the base is of another text.*differ' \
		eval-ppl -d llama.cpp -c 128 -w 2 --kl b.qp -t text "$MODEL"
	"$PYTHON" "$ROOT/tests/mkmodel.py" v vocab=2052 tokenizer="$MODEL"
	refuses 65 '--kl: a vocabulary of 2052, the model.s has 2048' \
		eval-ppl -c 64 --kl v -t text "$MODEL"
	refuses 65 '--kl: a vocabulary of 2048, the model.s has 2052' \
		eval-ppl -c 64 --kl b.qp -t text v
	mkdir t && cp m/* t && echo >> t/tokenizer.json
	refuses 65 '--kl: the reference has another tokenizer' eval-ppl -c 64 --kl t -t text "$MODEL"
	refuses_every_prefix b.qp refuse_base
	refuses 66 '/no/such' eval-ppl -c 64 --kl /no/such -t text "$MODEL"
	refuses 64 '--kl: expected a model' eval-ppl --kl - -t text "$MODEL"
	refuses 64 '--top: goes with --save-logits' eval-ppl --top=5 -t text "$MODEL"
	refuses 65 "--top: 2049; the model's vocabulary has 2048" \
		eval-ppl --top=2049 --save-logits=top.qp -t text "$MODEL"
	[ ! -e top.qp ]
	refuses 73 '/no/such/b' eval-ppl --save-logits=/no/such/b -t text "$MODEL"
}

refuse_base() {
	cat > cut.qp
	eval-ppl -q -c 128 -w 2 --kl cut.qp -t text "$MODEL"
}

# The base b.txt with a substitution in the values of one tensor is refused.
impossible() {	# impossible TENSOR SED REGEX
	sed "/^tensor $1 /{n;$2}" b.txt | qp-make > x.qp
	refuses 65 "$1: row $3" eval-ppl -q --json -c 64 -w 4 -t text --kl x.qp "$MODEL"
	[ -z "$output" ]
}

@test "eval-ppl: a base whose values cannot be is refused by tensor and row" {
	eval-ppl -q -c 64 -w 4 -t text --save-logits=b.qp --top=8 "$MODEL" > saved
	qp-dump b.qp > b.txt
	for v in 1000 0x1p-10 inf -inf nan; do
		impossible top.0.logp "s/-0x[^ ]*/$v/" '0: .* not the logarithm of a probability'
	done
	impossible top.3.logp 'n;s/-0x[^ ]*/-0x1p-20/2' '1: the most likely do not come first'
	for v in -1 2 inf nan; do
		impossible top.1.rest "s/0x[^ ]*/$v/3" '2: .* not the probability of all others'
	done
	impossible top.1.rest 's/0x[^ ]*/0/3' '2: 0 and the 0.[0-9]* of its tops do not sum to 1'
	for v in -1 inf nan; do
		impossible top.2.nll "s/0x[^ ]*/$v/2" '1: .* not the negative logarithm'
	done
	impossible top.0.ids 's/^ \([0-9]*\) [0-9]*/ \1 \1/' '0: id [0-9]* is there twice'
	impossible top.0.ids 's/^ [0-9]*/ 2048/' '0: id 2048 is outside the vocabulary of 2048'
	impossible top.0.ids 's/^ [0-9]*/ -1/' '0: id -1 is outside the vocabulary'
	impossible top.0.drawn 's/^ [0-9]*/ 2048/' '0: id 2048 is outside the vocabulary of 2048'
	impossible top.0.drawn "s/^ [0-9]*/$(sed -n '/^tensor top.0.ids /{n;s/^\( [0-9]*\).*/\1/p}' b.txt)/" \
		'0: id [0-9]* is one of the most likely'
	impossible top.1.drawn_logp 's/-0x[^ ]*/nan/' '0: .* not the logarithm of a probability'
	qp-make < b.txt > same.qp
	eval-ppl -q -c 64 -w 4 -t text --kl same.qp "$MODEL" > out
	grep -q '^kl ' out
	eval-ppl -q -c 64 -w 4 -t text --save-logits=b.qp --top=2048 "$MODEL" > saved
	qp-dump b.qp > b.txt
	impossible top.0.rest 's/^ 0[^ *]*/ 0x1p-20/' '0: .* not the probability of all others'
}

@test "eval-ppl: a reference is looked at before anything is computed" {
	record-acts -q --stats=none "$MODEL" | qp-dump |
		sed '/^block-end index=0/i tensor model.layers.0.self_attn.q_proj.weight role=weight dtype=F32 shape=[1]\n 1' |
		qp-make > bad.qp
	refuses 65 'model.layers.0.self_attn.q_proj' eval-ppl -c 64 -t text bad.qp
	small vocab=2052
	refuses 65 '--kl: a vocabulary of 2052' eval-ppl -c 64 -t text --kl m bad.qp
	rm -rf t && cp -rL "$MODEL" t && echo >> t/tokenizer.json
	refuses 65 '--kl: the reference has another tokenizer' eval-ppl -c 64 -t text --kl t bad.qp
	: > empty
	refuses 65 'empty: ' eval-ppl -c 64 -t text --kl empty bad.qp
	refuses 66 'nothere: ' eval-ppl -c 64 -t text --kl nothere bad.qp
	eval-ppl -q -c 64 -w 2 --save-logits=b.qp "$MODEL" < text > saved
	refuses 65 '--kl: the base ' eval-ppl -c 64 -w 3 -t text --kl b.qp bad.qp
	tail -c 9000 text > other
	refuses 65 '--kl: the base .*tokens differ' eval-ppl -c 64 -w 2 -t other --kl b.qp bad.qp
	printf 'stream v=[1,0]\nend\n' | qp-make > none.qp
	refuses 65 'stream: carries no model' eval-ppl -c 64 -t text --kl none.qp bad.qp
}

@test "eval-ppl: a base that was not finished does not appear" {
	mkdir dir
	refuses 65 '' eval-ppl -c 100000 --save-logits=dir/b.qp -t text "$MODEL"
	[ -z "$(ls -A dir)" ]
}
