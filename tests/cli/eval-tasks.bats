#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# eval-tasks.bats - what eval-tasks promises on its man page, one test per promise

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	T=$DATA/tasks
	names='piqa arc_easy arc_challenge openbookqa boolq copa storycloze_2016 winogrande
		hellaswag lambada_openai social_iqa ready schema cloze'
}

# eval-tasks over every file of tests/data/tasks, and the same held to the oracle.
agree() {	# agree BOS CTX
	local f args=() pairs=() ctx=()
	for f in $names; do
		args+=(-t "$T/$f.jsonl")
		pairs+=("$f=$T/$f.jsonl")
	done
	[ "$2" -eq 0 ] || ctx=(-c "$2")
	eval-tasks -q --bos="$1" "${ctx[@]}" "${args[@]}" -t "$T/storycloze_2018.csv" \
		--samples=log "$MODEL" > table
	"$PYTHON" "$ROOT/tests/tasks.py" "$MODEL" log "$1" "$2" 0 "${pairs[@]}" \
		"storycloze_2018=$T/storycloze_2018.csv" > verdict || { cat verdict; return 1; }
	grep -q '^45 samples' verdict
}

@test "eval-tasks: every template scores as the harness's own expressions in numpy do" {
	need_python msgpack numpy
	agree auto 0
}

@test "eval-tasks: --bos=never is without a first token, always with one" {
	need_python msgpack numpy
	agree never 0
	agree always 0
	# the shipped tokenizer adds one by itself; without, only the option can
	"$PYTHON" - "$MODEL" <<-'END'
	import json, os, shutil, sys
	shutil.copytree(sys.argv[1], "plain", copy_function=os.symlink)
	with open("plain/tokenizer.json", encoding="utf-8") as f: t = json.load(f)
	t["post_processor"] = None
	os.remove("plain/tokenizer.json")
	json.dump(t, open("plain/tokenizer.json", "w"))
	END
	for b in auto always never; do
		eval-tasks -q -b $b -t "$T/piqa.jsonl" --samples=plain.$b plain > /dev/null
		eval-tasks -q -b $b -t "$T/piqa.jsonl" --samples=model.$b "$MODEL" > /dev/null
	done
	cmp plain.always model.auto
	cmp plain.auto model.never
	cmp model.auto model.always
	run -1 cmp -s model.auto model.never
}

@test "eval-tasks: what is longer than the positions loses its beginning, and that is said" {
	need_python msgpack numpy
	agree auto 24
	run --separate-stderr -0 eval-tasks -c 40 -t "$T/boolq.jsonl" "$MODEL"
	[ "$stderr" = 'eval-tasks: 2 of 6 contexts lost their beginning: longer than 40 tokens' ]
	eval-tasks --json -q -c 40 -t "$T/boolq.jsonl" "$MODEL" > out 2> err
	grep -q '"truncated": 2' out
	[ ! -s err ]
	refuses 65 '.*piqa.jsonl: line 3: continuation 1 has 13 tokens, more than the 12' \
		eval-tasks -c 12 -t "$T/piqa.jsonl" "$MODEL"
	refuses 65 '--ctx: 513, but the model has 512 positions' \
		eval-tasks -c 513 -t "$T/piqa.jsonl" "$MODEL"
}

@test "eval-tasks: real task files, scored as the oracle does" {
	need_python msgpack numpy
	need_shared tasks/piqa.jsonl
	local f args=() pairs=()
	for f in piqa arc_easy arc_challenge boolq copa winogrande lambada_openai; do
		args+=(-t "$SHARED/tasks/$f.jsonl")
		pairs+=("$f=$SHARED/tasks/$f.jsonl")
	done
	f=storycloze_2018=$SHARED/tasks/storycloze_2018_val.csv
	eval-tasks -q -l 6 "${args[@]}" -t "$f" --samples=log "$MODEL" > table
	"$PYTHON" "$ROOT/tests/tasks.py" "$MODEL" log auto 0 6 "${pairs[@]}" "$f"
}

# Positions of branches, windows that reach into a shared beginning, experts.
@test "eval-tasks: other families, as their whole sequences through qp-forward have it" {
	need_python msgpack numpy
	need_shared families/opt-pre
	"$PYTHON" - > tokenizer.json <<-'END'
	import json
	vocab = {"<unk>": 0, **{chr(c): c - 28 for c in range(32, 127)}, "\n": 100}
	print(json.dumps({"version": "1.0", "truncation": None, "padding": None,
	    "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
	    "decoder": None, "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
	    "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
	    "byte_fallback": False, "vocab": vocab, "merges": []}}))
	END
	for family in opt-pre opt-post-proj mistral-window qwen2 qwen2-moe qwen3; do
		mkdir $family
		cp "$SHARED/families/$family/config.json" "$SHARED/families/$family/model.safetensors" \
			tokenizer.json $family
		args=() pairs=()
		for f in piqa winogrande arc_easy; do
			args+=(-t "$T/$f.jsonl")
			pairs+=("$f=$T/$f.jsonl")
		done
		eval-tasks -q "${args[@]}" --samples=log $family > table
		"$PYTHON" "$ROOT/tests/tasks.py" $family log auto 0 0 "${pairs[@]}" ||
			{ echo "^ $family"; return 1; }
	done
}

@test "eval-tasks: the table, worked out from the samples" {
	need_python msgpack
	eval-tasks -q -t "$T/hellaswag.jsonl" -t "$T/lambada_openai.jsonl" -t "$T/winogrande.jsonl" \
		--samples=log "$MODEL" > table
	eval-tasks -q --json -t "$T/hellaswag.jsonl" -t "$T/lambada_openai.jsonl" \
		-t "$T/winogrande.jsonl" "$MODEL" > json
	"$PYTHON" - <<-'END'
	import json, math
	log = [json.loads(l) for l in open("log")]
	got = json.load(open("json"))
	table = {l.split()[0]: l.replace("+-", " ").split()[1:] for l in open("table")}
	def close(a, b): assert abs(a - b) <= 1e-6 * max(1, abs(b)), (a, b)
	mean, var = {"acc": 0, "acc_norm": 0}, {"acc": 0, "acc_norm": 0}
	for t in "hellaswag", "lambada_openai", "winogrande":
	    s = [x for x in log if x["task"] == t]
	    n = len(s)
	    assert got["tasks"][t]["samples"] == n == int(table[t][0])
	    for k in "acc", "acc_norm", "acc_bytes":
	        assert (k in got["tasks"][t]) == (k in s[0])
	        p = sum(x.get(k, x["acc"]) for x in s) / n
	        if k in s[0]:
	            close(got["tasks"][t][k], p)
	            close(got["tasks"][t][k + "_stderr"], math.sqrt(p * (1 - p) / n))
	        if k != "acc_bytes":
	            mean[k] += p / 3
	            var[k] += p * (1 - p) / n / 9
	    if "gold" not in s[0]:
	        ll = [x["ll"][0] for x in s]
	        m = sum(ll) / n
	        ppl = math.exp(-m)
	        close(got["tasks"][t]["ppl"], ppl)
	        close(got["tasks"][t]["ppl_stderr"],
	              ppl * math.sqrt(sum((x - m) ** 2 for x in ll) / (n - 1) / n))
	    assert abs(float(table[t][1]) - got["tasks"][t]["acc"]) < 1e-4
	for k in mean:
	    close(got["mean"][k], mean[k])
	    close(got["mean"][k + "_stderr"], math.sqrt(var[k]))
	assert abs(float(table["mean"][1]) - mean["acc"]) < 1e-4
	assert abs(float(table["mean"][3]) - mean["acc_norm"]) < 1e-4
	assert got["bos"] == "auto" and got["truncated"] == 0 and got["requests"] == 12 + 4 + 6
	END
}

@test "eval-tasks: -d joins context and continuation; blanks between them may be anywhere" {
	echo '{"query": "The cat sat on", "choices": ["the mat.", "a dog."], "gold": 0}' > a.jsonl
	echo '{"query": "The cat sat on ", "choices": ["the mat.", "a dog."], "gold": 0}' > b.jsonl
	echo '{"query": "The cat sat on\n", "choices": ["the mat.", "a dog."], "gold": 0}' > c.jsonl
	eval-tasks -q --json --samples=a -t x=a.jsonl "$MODEL" > /dev/null
	eval-tasks -q --json --samples=b -d '' -t x=b.jsonl "$MODEL" > /dev/null
	cmp a b
	eval-tasks -q --json --samples=c -d '\n' -t x=a.jsonl "$MODEL" > /dev/null
	eval-tasks -q --json --samples=d -d '' -t x=c.jsonl "$MODEL" > /dev/null
	cmp c d
	run -1 cmp -s a c
	# of the tasks behind it only
	eval-tasks -q --samples=e -t one=a.jsonl -d '\n' -t two=a.jsonl "$MODEL" > /dev/null
	sed -n 's/.*"ll"/"ll"/p' a c | cmp - <(sed 's/.*"ll"/"ll"/' e)
	refuses 64 '--delimiter: expected ' eval-tasks -d '\q' -t x=a.jsonl "$MODEL"
	refuses 64 '--delimiter: behind the last --task' eval-tasks -t x=a.jsonl -d : "$MODEL"
	refuses 64 '--task: needed: -t FILE' eval-tasks a.jsonl "$MODEL"
}

@test "eval-tasks: streams, packed streams and pipes, whatever the number of threads" {
	record-acts -q --stats=none "$MODEL" > m.qp
	rtn -q -b 4 -g 32 m.qp > r.qp
	pack-int4 -q r.qp > p.qp
	args=(-q -t "$T/piqa.jsonl" -t "$T/cloze.jsonl")
	eval-tasks "${args[@]}" --samples=dir "$MODEL" > dir.out
	eval-tasks "${args[@]}" --samples=pipe - < m.qp > pipe.out
	cmp dir pipe
	cmp dir.out pipe.out
	eval-tasks "${args[@]}" --samples=r r.qp > r.out
	eval-tasks "${args[@]}" --samples=p -j 1 p.qp > p.out
	eval-tasks "${args[@]}" --samples=p3 -j 3 --spill=. p.qp > p3.out
	cmp r p
	cmp p p3
	run -1 cmp -s dir r
}

@test "eval-tasks: --limit takes the first samples of each task" {
	eval-tasks -q --samples=all -t "$T/piqa.jsonl" -t "$T/cloze.jsonl" "$MODEL" > /dev/null
	eval-tasks -q -l 2 --samples=two -t "$T/piqa.jsonl" -t "$T/cloze.jsonl" "$MODEL" > /dev/null
	grep -v '"piqa", "sample": [23]' all | cmp - two
	# what lies behind them is not looked at
	{ head -n 1 "$T/piqa.jsonl"; echo '{'; } > piqa.jsonl
	eval-tasks -q -l 1 -t piqa.jsonl "$MODEL" > /dev/null
}

line() {	# line REGEX TEXT...: line 2 of a task file is refused so
	local regex=$1
	shift
	head -n 1 "$T/ready.jsonl" > bad.jsonl
	printf '%s\n' "$@" >> bad.jsonl
	refuses 65 "bad.jsonl: line 2: $regex" eval-tasks -t bad.jsonl "$MODEL"
}

@test "eval-tasks: a bad line is refused by its number and field" {
	line 'not JSON' '{"query": "x", "choices"'
	line 'not a JSON object' '[1]'
	line "gold is 2, but there are the choices 0 to 1" \
		'{"query": "x", "choices": ["a", "b"], "gold": 2}'
	line "gold is -1" '{"query": "x", "choices": ["a", "b"], "gold": -1}'
	line "field 'gold' is not a whole number" '{"query": "x", "choices": ["a"], "gold": 0.5}'
	line "field 'gold' is not a whole number" '{"query": "x", "choices": ["a"], "gold": "0x"}'
	line "no field 'gold'" '{"query": "x", "choices": ["a", "b"]}'
	line "no field 'choices'" '{"query": "x", "gold": 0}'
	line "'choices' is empty" '{"query": "x", "choices": [], "gold": 0}'
	line "field 'choices' is not a list" '{"query": "x", "choices": "a", "gold": 0}'
	line "element 1 of 'choices' is not a string" '{"query": "x", "choices": ["a", 1], "gold": 0}'
	line "element 0 of 'choices' is empty" '{"query": "x", "choices": [""], "gold": 0}'
	line "no field 'query' that is a string" '{"query": 1, "choices": ["a"], "gold": 0}'
	line "another form" '{"context": "x", "continuation": "a"}'
	line "more than 64 choices" "{\"query\": \"x\", \"choices\": [$(
		printf '"a", %.0s' {1..64})\"a\"], \"gold\": 0}"
}

@test "eval-tasks: an empty continuation is refused by its line" {
	for c in '' ' ' '\n\t'; do
		printf '%s\n' '{"context": "a", "continuation": "b"}' \
			"{\"context\": \"a\", \"continuation\": \"$c\"}" > bad.jsonl
		refuses 65 'bad.jsonl: line 2: the continuation is empty' \
			eval-tasks -t bad.jsonl "$MODEL"
	done
	for t in '' ' ' 'a b '; do
		echo "{\"text\": \"$t\"}" > lambada.jsonl
		refuses 65 'lambada.jsonl: line 1: the continuation is empty' \
			eval-tasks -t lambada.jsonl "$MODEL"
	done
	echo '{"goal": "a", "sol1": "b", "sol2": "", "label": 0}' > piqa.jsonl
	refuses 65 'piqa.jsonl: line 1: choice 1 is empty' eval-tasks -t piqa.jsonl "$MODEL"
}

@test "eval-tasks: a line that is not JSON is named by one number, and its byte" {
	line 'not JSON: .* \(byte [0-9]+, after ' '{"query": "x",, "choices"'
	[[ $stderr != *"(line"* ]]
	refuses 64 '--delimiter: not UTF-8: byte 0xff at offset 1' \
		eval-tasks -d $'a\377' -t "$T/ready.jsonl" "$MODEL"
}

field() {	# field TASK FIELD: the first line of TASK without it
	"$PYTHON" -c 'import json, sys
d = json.loads(open(sys.argv[1]).readline())
del d[sys.argv[2]]
print(json.dumps(d))' "$T/$1.jsonl" "$2" > "$1.jsonl"
	refuses 65 "$1.jsonl: line 1: no field '$2'" eval-tasks -t "$1.jsonl" "$MODEL"
}

@test "eval-tasks: a raw line that lacks a field of its template is refused by its name" {
	need_python json
	while read -r task fields; do
		for f in $fields; do field "$task" "$f"; done
	done <<-'END'
	piqa goal sol1 sol2 label
	arc_easy question choices answerKey
	openbookqa question_stem choices answerKey
	boolq passage question label
	copa premise choice1 choice2 question label
	storycloze_2016 input_sentence_3 sentence_quiz1 sentence_quiz2 answer_right_ending
	winogrande sentence option1 option2 answer
	hellaswag activity_label ctx_a ctx_b endings label
	lambada_openai text
	social_iqa context question answerA answerC label
	END
	sed '1s/"answerKey": "B"/"answerKey": "E"/' "$T/arc_easy.jsonl" > arc_easy.jsonl
	refuses 65 ".*line 1: answerKey 'E' is none of the labels" eval-tasks -t arc_easy.jsonl "$MODEL"
	sed '2s/_//' "$T/winogrande.jsonl" > winogrande.jsonl
	refuses 65 ".*line 2: no '_'" eval-tasks -t winogrande.jsonl "$MODEL"
	sed '1s/cause/Cause/' "$T/copa.jsonl" > copa.jsonl
	refuses 65 ".*line 1: question is 'Cause'" eval-tasks -t copa.jsonl "$MODEL"
	sed '1s/"answer": "1"/"answer": "3"/' "$T/winogrande.jsonl" > winogrande.jsonl
	refuses 65 ".*line 1: answer is 3, but there are the choices 1 to 2" \
		eval-tasks -t winogrande.jsonl "$MODEL"
}

@test "eval-tasks: raw lines under a name without a template: those there are, are listed" {
	refuses 64 "--task: 'quiz' has no template, and .*piqa.jsonl: line 1 .*arc_challenge, .*, winogrande$" \
		eval-tasks -t quiz="$T/piqa.jsonl" "$MODEL"
}

@test "eval-tasks: CSV: quotes, line ends within them, and what is wrong with a row" {
	printf 'query,choices\n' > a.csv
	refuses 65 'a.csv: no samples' eval-tasks -t a.csv "$MODEL"
	head -n 1 "$T/storycloze_2018.csv" > storycloze.csv
	printf '1,a,b,c\n' >> storycloze.csv
	refuses 65 'storycloze.csv: line 2: fewer cells' eval-tasks -t storycloze.csv "$MODEL"
	head -n 1 "$T/storycloze_2018.csv" > storycloze.csv
	printf '1,a,b,c,d,e,f,1,2\n' >> storycloze.csv
	refuses 65 'storycloze.csv: line 2: more cells' eval-tasks -t storycloze.csv "$MODEL"
	cp "$T/storycloze_2018.csv" storycloze.csv
	printf '"1,a,b,c,d,e,f,1\n' >> storycloze.csv
	refuses 65 'storycloze.csv: line 6: a quote that does not close' \
		eval-tasks -t storycloze.csv "$MODEL"
	printf 'a\377,b\n1,2\n' > bad.csv
	refuses 65 'bad.csv: not UTF-8: byte 0xff at offset 1' eval-tasks -t bad.csv "$MODEL"
}

@test "eval-tasks: wrong usage, and what is not there" {
	refuses 64 '--task: needed' eval-tasks "$MODEL"
	refuses 64 '--task: expected NAME=FILE' eval-tasks -t =x "$MODEL"
	refuses 64 "--task: 'piqa' is there twice" eval-tasks -t "$T/piqa.jsonl" -t "$T/piqa.jsonl" "$MODEL"
	refuses 64 '-: the model and a task' eval-tasks -t x=- -
	refuses 66 '/no/such' eval-tasks -t /no/such "$MODEL"
	refuses 73 '/no/such/log' eval-tasks -t "$T/piqa.jsonl" --samples=/no/such/log "$MODEL"
	: > empty.jsonl
	refuses 65 'empty.jsonl: no samples' eval-tasks -t empty.jsonl "$MODEL"
	mkdir d && cp "$MODEL/config.json" "$MODEL/model.safetensors" d
	refuses 65 'model: carries no tokenizer' eval-tasks -t "$T/piqa.jsonl" d
}

@test "eval-tasks: a log that was not finished does not appear, one that was replaces the old" {
	mkdir logs
	echo '{' > bad.jsonl
	refuses 65 '' eval-tasks -t bad.jsonl --samples=logs/log "$MODEL"
	[ -z "$(ls -A logs)" ]
	echo old > logs/log
	eval-tasks -q -t "$T/piqa.jsonl" --samples=logs/log "$MODEL" > /dev/null
	[ "$(ls -A logs)" = log ]
	[ "$(wc -l < logs/log)" -eq 4 ]
}

@test "eval-tasks: a truncated stream is refused" {
	record-acts -q --stats=none "$MODEL" > m.qp
	head -c 200000 m.qp > cut.qp
	refuses 65 '' eval-tasks -q -t "$T/piqa.jsonl" cut.qp
}
