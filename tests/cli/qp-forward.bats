#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-forward.bats - what qp-forward promises on its man page, one test per promise

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	printf '1 404 27 3 500 2047\n1 9\n77\n' > ids
}

# The stream of MODEL's answers to ids is that of a float64 pass in numpy.
agrees() {	# agrees MODEL
	qp-forward -q --hidden -i ids "$1" > out.qp
	"$PYTHON" "$ROOT/tests/llama.py" forward "$1" ids out.qp
}

# The same of a model with golden.safetensors: what transformers made of its input_ids in float64.
# Its last hidden state is normed.  2e-5 of the largest value of each.
agrees_with_transformers() {	# agrees_with_transformers MODEL
	"$PYTHON" - "$1" <<-'END' > ids
	import json, struct, sys
	raw = open(sys.argv[1] + "/golden.safetensors", "rb").read()
	n = struct.unpack("<Q", raw[:8])[0]
	t = json.loads(raw[8:8 + n])["input_ids"]
	ids = struct.unpack("<%d%s" % (t["shape"][0] * t["shape"][1],
	                               {"I32": "i", "I64": "q"}[t["dtype"]]),
	                    raw[8 + n:][slice(*t["data_offsets"])])
	for i in range(t["shape"][0]):
	    print(*ids[i * t["shape"][1]:(i + 1) * t["shape"][1]])
	END
	qp-forward -q --hidden -i ids "$1" > out.qp
	"$PYTHON" - "$1" <<-'END'
	import json, struct, sys, msgpack, numpy as np
	raw = open(sys.argv[1] + "/golden.safetensors", "rb").read()
	n = struct.unpack("<Q", raw[:8])[0]
	want = {}
	for k, t in json.loads(raw[8:8 + n]).items():
	    if t.get("dtype") in ("F32", "F64"):
	        kind = {"F32": "f4", "F64": "f8"}[t["dtype"]]
	        want[k] = np.frombuffer(raw[8 + n:][slice(*t["data_offsets"])], kind)
	        want[k] = want[k].reshape(t["shape"])
	u, got = msgpack.Unpacker(open("out.qp", "rb"), max_buffer_size=0), {}
	for h in u:
	    data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	    if h["t"] == "tensor":
	        got[h["name"]] = np.frombuffer(data, "f4").reshape(h["shape"])
	last = max(int(k.split(".")[1]) for k in want if k.startswith("hidden."))
	compared = 0
	for k, w in want.items():
	    for line in range(len(w)):
	        what = k.split(".")[1:]
	        if what == [str(last)]:
	            what = ["norm"]
	        name = ".".join([k.split(".")[0], str(line)] + what)
	        error = np.abs(got[name] - w[line]).max() / np.abs(w).max()
	        assert error < 2e-5, (sys.argv[1], name, error)
	        compared += 1
	assert compared >= 6
	END
}

@test "qp-forward: logits and hidden states of the shipped model, as a float64 pass has them" {
	need_python msgpack numpy
	agrees "$MODEL"
}

@test "qp-forward: and of models of other shapes and types" {
	need_python msgpack numpy
	seq -s ' ' 0 31 > ids
	for shape in "tied=0 kv=1" "tied=1 kv=4 dtype=F16" \
		"hidden=48 heads=6 kv=3 ffn=28 dtype=BF16"; do
		rm -rf m
		"$PYTHON" "$ROOT/tests/mkmodel.py" m $shape
		agrees m
	done
}

@test "qp-forward: rotary positions scaled linearly, as a float64 pass has them" {
	need_python msgpack numpy
	seq -s ' ' 0 31 > ids
	for factor in 4 2.5; do
		rm -rf m
		"$PYTHON" "$ROOT/tests/mkmodel.py" m hidden=32 linear=$factor
		grep -q '"rope_type": "linear"' m/config.json
		agrees m
	done
	# The pass does tell one factor from another.
	sed -i 's/"factor": 2.5/"factor": 2.25/' m/config.json
	run -1 "$PYTHON" "$ROOT/tests/llama.py" forward m ids out.qp
	[[ $output == hidden* ]]
}

@test "qp-forward: a model with biases and heads of their own width agrees with transformers" {
	need_python msgpack numpy
	agrees_with_transformers "$DATA/llama-headdim-bias"
}

@test "qp-forward: models of the Llama family agree with transformers" {
	need_python msgpack numpy
	need_shared families/llama-gqa
	for m in "$SHARED"/families/llama-* "$SHARED"/families/llama3-*; do
		agrees_with_transformers "$m"
	done
}

@test "qp-forward: the shipped model, stories260K and an OPT agree with a float64 pass kept as a file" {
	need_python msgpack numpy
	need_shared golden/TinyStories-656K.json models/stories260K-hf models/minigpt-vehicles-opt-hf
	for m in TinyStories-656K stories260K-hf minigpt-vehicles-opt-hf; do
		"$PYTHON" -c 'import json, sys; print(*json.load(open(sys.argv[1]))["ids"])' \
			"$SHARED/golden/$m.json" > ids
		qp-forward -q -i ids "$SHARED/models/$m" > out.qp
		"$PYTHON" - "$SHARED/golden/$m.json" <<-'END'
		import json, sys, msgpack, numpy as np
		g = json.load(open(sys.argv[1]))
		u = msgpack.Unpacker(open("out.qp", "rb"), max_buffer_size=0)
		for h in u:
		    data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
		    if h["t"] == "tensor":
		        x = np.frombuffer(data, "f4").reshape(h["shape"]).astype(float)
		assert x.argmax(1).tolist() == g["argmax"]
		assert np.abs(x[-1] - g["last_logits"]).max() < 2e-5 * np.abs(x).max()
		assert np.abs(x[0, :8] - g["first_logits_8"]).max() < 2e-5 * np.abs(x).max()
		nll = np.log(np.exp(x[:-1]).sum(1)) - x[np.arange(len(x) - 1), g["ids"][1:]]
		assert abs(nll.mean() - g["mean_nll"]) < 1e-5
		END
	done
}

@test "qp-forward: names and shapes: logits.N, and hidden.N.L with --hidden" {
	qp-forward -q "$MODEL" < ids > out.qp
	qp-dump out.qp > out.txt
	[ "$(grep -c '^tensor' out.txt)" -eq 3 ]
	grep -q '^tensor logits\.0 .*dtype=F32 shape=\[6,2048\]' out.txt
	grep -q '^tensor logits\.2 .*shape=\[1,2048\]' out.txt
	qp-forward -q --hidden --no-logits "$MODEL" < ids | qp-dump > out.txt
	[ "$(grep -o '^tensor [a-z0-9.]*' out.txt | tr '\n' ' ')" = "$(printf 'tensor hidden.%s ' \
		0.0 1.0 2.0 0.1 1.1 2.1 0.2 1.2 2.2 0.norm 1.norm 2.norm)" ]
}

@test "qp-forward: a model as directory, stream, and standard input gives the same bytes" {
	record-acts -q --stats=none "$MODEL" > m.qp
	qp-forward -q --ids=ids "$MODEL" > a.qp
	qp-forward -q --ids=ids m.qp > b.qp
	qp-forward -q --ids=ids - < m.qp > c.qp
	cmp a.qp b.qp
	cmp a.qp c.qp
	qp-forward -q -o d.qp "$MODEL" < ids
	qp-cmp a.qp d.qp
}

@test "qp-forward: a line's answer does not depend on the other lines, threads change no bit" {
	qp-forward -q -j 1 -i ids "$MODEL" > a.qp
	qp-forward -q -j 2 -i ids "$MODEL" > b.qp
	cmp a.qp b.qp
	sed -n 2p ids > one
	qp-forward -q -i one "$MODEL" | qp-dump | sed -n '/^tensor logits.0/,/^end/p' > got
	qp-dump a.qp | sed -n '/^tensor logits.1/,/^tensor logits.2/p' > want
	[ "$(sed 1d got | grep '^ ' | md5sum)" = "$(sed 1d want | grep '^ ' | md5sum)" ]
}

@test "qp-forward: ids outside the vocabulary, too long a line, no number, no line" {
	refuses 65 'token ids: id 2048 at position 1 is outside the vocabulary of 2048' \
		qp-forward "$MODEL" -i <(echo 1 2048)
	# The position counts from the first line, however many lines are embedded at a time.
	{ seq -s ' ' 500; seq -s ' ' 500; seq -s ' ' 99; echo 1 -s; } | sed 's/-s/4000/' > far
	refuses 65 'token ids: id 4000 at position 1100 is' qp-forward "$MODEL" -i far
	seq -s ' ' 1 513 > long
	refuses 65 'model: 512 positions, but a sequence has 513 tokens' qp-forward "$MODEL" -i long
	refuses 65 'line 2: .*decimal' qp-forward "$MODEL" -i <(printf '1 2\n3 x\n')
	refuses 65 'line 1: .*decimal' qp-forward "$MODEL" -i <(echo -1)
	refuses 65 'line 2: no token ids' qp-forward "$MODEL" -i <(printf '1\n\n2\n')
	refuses 65 'line 1: an id beyond' qp-forward "$MODEL" -i <(echo 99999999999999999999)
	refuses 65 'line 1: no token ids' qp-forward "$MODEL" -i /dev/null
	refuses 66 'nothere: ' qp-forward "$MODEL" -i nothere
}

@test "qp-forward: command lines that make no sense" {
	refuses 64 '--ids: or --calib, needed' qp-forward - < /dev/null
	refuses 64 '--no-logits: ' qp-forward --no-logits "$MODEL" -i ids
	refuses 64 'missing operand' qp-forward
	refuses 64 "unexpected operand 'c'" qp-forward "$MODEL" b c
	refuses 66 'nothere: ' qp-forward nothere -i ids
	refuses 69 '.*cuda' qp-forward --device=cuda "$MODEL" -i ids
}

@test "qp-forward: what the run time would have to do beside the weights is refused" {
	record-acts -q --stats=none "$MODEL" | qp-dump > m.txt
	sed '/^block-end index=0/i run kv-quantizer kind="act-quant" bits=4' m.txt | qp-make > in.qp
	refuses 76 'kv-quantizer: run record' qp-forward in.qp -i ids
	sed '/^block index=0/i run kv-quantizer bits=4' m.txt | qp-make > in.qp
	refuses 76 'kv-quantizer: run record' qp-forward in.qp -i ids
}

@test "qp-forward: what is not finite is an error, not an output" {
	record-acts -q --stats=none "$MODEL" | qp-dump > m.txt
	awk '/^[a-z]/ { on = /^tensor model.norm/ }
		on && /^ / { gsub(/[^ ]*0x[^ ]*/, "3e38") } 1' m.txt | qp-make > inf.qp
	refuses 65 'logits.0: the value of token 0, column 0 is not finite' \
		qp-forward -q -i ids -o out.qp inf.qp
	[ ! -e out.qp ]
}

@test "qp-forward: a damaged model gives no output file" {
	record-acts -q --stats=none "$MODEL" > m.qp
	refuses_a_cut_pipe m.qp 400000 qp-forward -q -i "$PWD/ids" -
	flip m.qp 300000 bad.qp
	refuses 65 '' qp-forward -q -i ids -o out.qp bad.qp
	[ ! -e out.qp ]
}
