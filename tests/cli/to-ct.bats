#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# to-ct.bats - what to-ct promises on its man page, and what is read of such directories

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=20 ffn=12 heads=5 kv=1 dtype=BF16
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	rtn -q -g 4 --asym tiny | pack-int4 > packed.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

same_logits() {	# same_logits MODEL MODEL
	qp-forward -q -i ids.txt "$1" > "$out/a.qp"
	qp-forward -q -i ids.txt "$2" > "$out/b.qp"
	qp-cmp "$out/a.qp" "$out/b.qp"
}

@test "to-ct: numpy unpacks what the stream's codes, scales and zeros stand for, at every width" {
	local b g s
	for b in 2 3 4 5 8; do
		for g in 4 -1 0; do
			for s in --sym --asym; do
				rtn -q -b "$b" -g "$g" "$s" tiny > "$out/r.qp"
				to-ct -q "$out/r.qp" "$out/d"
				"$PYTHON" - "$out/r.qp" "$out/d" "$b" <<-'END'
				import sys
				import numpy as np
				from checkpoint import Directory
				from qpstream import Stream
				s, d, b = Stream(sys.argv[1]), Directory(sys.argv[2]), int(sys.argv[3])

				def unpack(words, n):    # rows of words -> rows of n codes
				    raw = np.unpackbits(np.ascontiguousarray(words).view("u1"), axis=1, bitorder="little")
				    return (raw[:, :n * b].reshape(len(words), n, b) << np.arange(b)).sum(2)

				q = d.config["quantization_config"]
				assert q["quant_method"] == "compressed-tensors" and q["ignore"] == ["lm_head"]
				(group,) = q["config_groups"].values()
				sym = group["weights"]["symmetric"]
				assert group["targets"] == ["Linear"] and group["weights"]["num_bits"] == b
				assert len(s.names("codes")) == 14
				for name in s.names("codes"):
				    m = name[:-len(".weight")]
				    n, k = d.tensor(m + ".weight_shape")
				    u = unpack(d.tensor(m + ".weight_packed"), k) - 2 ** (b - 1)
				    scale = d.tensor(m + ".weight_scale")
				    z = 0
				    if not sym:
				        z = d.tensor(m + ".weight_zero_point")
				        z = z.astype(int) if z.dtype == "i1" else unpack(z.T, n).T - 2 ** (b - 1)
				    wide = lambda x: np.repeat(x, k // x.shape[-1], -1) if np.ndim(x) else x
				    w = ((u - wide(z)).astype("f4") * wide(scale)).astype("f4")
				    assert (w == s.tensor(name)).all() and w.shape == s.tensor(name).shape, name
				END
				same_logits "$out/r.qp" "$out/d"
				rm -r "$out/d"
			done
		done
	done
}

@test "to-ct: the directory has the perplexity of the stream, digit by digit" {
	rtn -q -g 32 "$MODEL" | pack-int4 > "$out/q.qp"
	to-ct -q "$out/q.qp" "$out/d"
	eval-ppl -q --json --ctx 128 --windows 4 "$out/q.qp" < "$EVAL" > "$out/a"
	eval-ppl -q --json --ctx 128 --windows 4 "$out/d" < "$EVAL" > "$out/b"
	cmp "$out/a" "$out/b"
	grep -q ppl "$out/a"
}

@test "to-ct: what it wrote comes back as the same records, and goes out the same again" {
	to-ct -q packed.qp "$out/d"
	record-acts -q --stats=none "$out/d" > "$out/s.qp"
	qp-dump packed.qp | sed -n '/role=\(codes\|scale\|zero\)/,/^[a-z]/p' | grep -v '^[bn]' > "$out/a"
	qp-dump "$out/s.qp" | sed -n '/role=\(codes\|scale\|zero\)/,/^[a-z]/p' | grep -v '^[bn]' > "$out/b"
	[ "$(grep -c role=zero "$out/a")" -eq 14 ]
	to-ct -q "$out/s.qp" "$out/e"
	cmp "$out/d/model.safetensors" "$out/e/model.safetensors"
}

@test "to-ct: linears of two schemes are two groups, and those without codes are ignored" {
	rtn -q -g 4 --skip=down --skip=up tiny |
		rtn -q -b 8 -g -1 --skip=down --skip=attn --skip=gate > "$out/r.qp"
	to-ct -q "$out/r.qp" "$out/d"
	"$PYTHON" - "$out/d" <<-'END'
	import sys
	from checkpoint import Directory
	q = Directory(sys.argv[1]).config["quantization_config"]
	assert q["ignore"] == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj", "lm_head"]
	groups = {g["weights"]["num_bits"]: g["targets"] for g in q["config_groups"].values()}
	assert groups[8] == ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"], groups
	assert len(groups[4]) == 10 and "model.layers.0.self_attn.q_proj" in groups[4]
	END
	same_logits "$out/r.qp" "$out/d"
}

@test "to-ct: rows as wide as the groups of other linears need no group of the configuration" {
	rtn -q -g 128 "$MODEL" | pack-int4 > "$out/q.qp"   # of rows of 128 and 384
	to-ct -q "$out/q.qp" "$out/d"
	qp-lint "$out/d"
	"$PYTHON" - "$out/d" <<-'END'
	import sys
	from checkpoint import Directory
	(g,) = Directory(sys.argv[1]).config["quantization_config"]["config_groups"].values()
	assert (g["targets"], g["weights"]["group_size"]) == (["Linear"], 128), g
	END
	same_logits "$out/q.qp" "$out/d"
	# rows of 384 are no groups of 64
	rtn -q -g 64 --skip=down "$MODEL" |
		rtn -q -g -1 --skip=attn --skip=gate --skip=up > "$out/r.qp"
	to-ct -q "$out/r.qp" "$out/e"
	"$PYTHON" - "$out/e" <<-'END'
	import sys
	from checkpoint import Directory
	q = Directory(sys.argv[1]).config["quantization_config"]["config_groups"]
	assert {g["weights"]["strategy"] for g in q.values()} == {"group", "channel"}, q
	END
	same_logits "$out/r.qp" "$out/e"
}

@test "to-ct: --activations=dynamic-token makes W8A8 and W4A8, and the reader obeys them" {
	rtn -q -b 8 -g -1 tiny > "$out/8.qp"
	to-ct -q --activations=dynamic-token "$out/8.qp" "$out/d8"
	rtn -q -b 4 -g 4 tiny > "$out/4.qp"
	to-ct -q --activations=dynamic-token "$out/4.qp" "$out/d4"
	"$PYTHON" - "$out/8.qp" "$out/d8" "$out/d4" <<-'END'
	import sys
	from checkpoint import Directory
	from qpstream import Stream
	s, d, four = Stream(sys.argv[1]), Directory(sys.argv[2]), Directory(sys.argv[3])
	for x, f in ((d, "int-quantized"), (four, "pack-quantized")):
	    (g,) = x.config["quantization_config"]["config_groups"].values()
	    a = g["input_activations"]
	    assert g["format"] == f and a["strategy"] == "token" and a["dynamic"] and a["num_bits"] == 8
	for n in s.names("codes"):
	    scale = n.removesuffix(".weight") + ".weight_scale"
	    assert d.dtype(n) == "I8" and (d.tensor(n).astype(int) + 128 == s.tensor(n, "codes")).all()
	    # F32 here, as the format has it; packed codes keep the stream's type
	    assert d.dtype(scale) == "F32" and (d.tensor(scale) == s.tensor(n, "scale")).all()
	    assert four.dtype(scale) == "F16"
	END
	record-acts -q --stats=none "$out/d8" | qp-dump --head > "$out/h"
	[ "$(grep -c '^run .*kind="act-quant" .*per="token"' "$out/h")" -eq 8 ]
}

@test "to-ct: what the format cannot hold is refused, with the option that would fit" {
	local acts=--activations=dynamic-token
	rtn -q -b 8 -g 4 tiny > "$out/g.qp"
	refuses 65 '.*q_proj\.weight: 8-bit codes in groups of 4 .*: -g -1 before it' \
		to-ct $acts "$out/g.qp" "$out/d"
	rtn -q -b 8 -g -1 --asym tiny > "$out/a.qp"
	refuses 65 '.*q_proj\.weight: asymmetric codes .*--sym before it' \
		to-ct $acts "$out/a.qp" "$out/d"
	refuses 65 'no codes in the stream: put rtn or gptq before' to-ct tiny "$out/d"
	refuses 64 '--activations: ' to-ct --activations=static "$out/g.qp" "$out/d"
	[ ! -e "$out/d" ]
}

# The directory has the logits of the stream, and says of activations what PYTHON asserts of a, the
# input_activations of all groups but those that have none.
same_acts() {	# same_acts STREAM DIR PYTHON
	to-ct -q "$1" "$2"
	same_logits "$1" "$2"
	"$PYTHON" - "$2" "$3" <<-'END'
	import sys
	from checkpoint import Directory
	d = Directory(sys.argv[1])
	q = d.config["quantization_config"]
	groups = q["config_groups"].values()
	acts = [g["input_activations"] for g in groups if g["input_activations"]]
	assert acts
	for a in acts:
	    assert a["num_bits"] == 8
	    exec("\n".join(l.strip() for l in sys.argv[2].split("\n")))
	END
}

@test "to-ct: the stream's dynamic activations are the directory's: logits agree, bit for bit" {
	rtn -q -b 8 -g -1 tiny > "$out/8.qp"
	quant-acts -q -p w8a8 --rule=ct "$out/8.qp" > "$out/sa.qp"
	same_acts "$out/sa.qp" "$out/a" 'assert (a["type"], a["strategy"]) == ("int", "token")
	    assert a["dynamic"] and a["symmetric"] and q["format"] == "int-quantized"'
	quant-acts -q -b 8 --asym "$out/8.qp" > "$out/sb.qp"
	same_acts "$out/sb.qp" "$out/b" 'assert a["strategy"] == "token" and not a["symmetric"]'
	rtn -q -b 4 -g 4 tiny | quant-acts -q -b 8 -g 4 --rule=ct > "$out/sc.qp"
	same_acts "$out/sc.qp" "$out/c" 'assert a["strategy"] == "group" and a["group_size"] == 4
	    assert q["format"] == "pack-quantized"'
	rtn -q -b 4 -g 4 tiny | quant-acts -q -p fp8 > "$out/se.qp"
	same_acts "$out/se.qp" "$out/e" 'assert a["type"] == "float" and a["dynamic"]'
}

@test "to-ct: static ranges become input_scale and input_zero_point of every linear of the edge" {
	local o
	record-acts -q -S absmax,minmax -n 2 -s 16 "$MODEL" 2> /dev/null > "$out/acts.qp" ||
		record-acts -q -S absmax,minmax -c "$CALIB" "$MODEL" > "$out/acts.qp"
	rtn -q -b 8 -g -1 --keep-stats "$out/acts.qp" > "$out/8.qp"
	for o in --sym --asym; do
		quant-acts -q -b 8 "$o" --static --per=tensor "$out/8.qp" > "$out/sa.qp"
		to-ct -q "$out/sa.qp" "$out/d"
		eval-ppl -q --json --ctx 64 --windows 2 "$out/sa.qp" < "$EVAL" > "$out/1"
		eval-ppl -q --json --ctx 64 --windows 2 "$out/d" < "$EVAL" > "$out/2"
		cmp "$out/1" "$out/2"
		"$PYTHON" - "$out/sa.qp" "$out/d" "$o" <<-'END'
		import sys
		import numpy as np
		from checkpoint import Directory
		from qpstream import Stream
		s, d, asym = Stream(sys.argv[1]), Directory(sys.argv[2]), sys.argv[3] == "--asym"
		(g,) = d.config["quantization_config"]["config_groups"].values()
		a = g["input_activations"]
		assert not a["dynamic"] and a["strategy"] == "tensor" and a["symmetric"] == (not asym)
		grids = {h["name"]: np.frombuffer(p, "<f4") for h, p in s.records if h["t"] == "run"}
		edge = {"q_proj": "attn.in", "k_proj": "attn.in", "v_proj": "attn.in", "o_proj": "attn.mid",
		        "gate_proj": "mlp.in", "up_proj": "mlp.in", "down_proj": "mlp.mid"}
		for n in s.names("codes"):
		    m, (_, _, i, _, k, _) = n[:-len(".weight")], n.split(".")
		    scale, zero = grids["layers.%s.%s" % (i, edge[k])]
		    assert d.dtype(m + ".input_scale") == "F32" and d.tensor(m + ".input_scale") == [scale]
		    if asym:
		        assert d.tensor(m + ".input_zero_point") == [zero - 128]
		    else:
		        assert m + ".input_zero_point" not in d.tensors
		END
		rm -r "$out/d"
	done
}

@test "to-ct: float8 by rows, tensor and blocks is float-quantized: the same bytes, the same logits" {
	local o
	for o in "" "-g 0" "--block=8x12" "--block=128x128"; do
		rtn -q --format=e4m3 $o tiny > "$out/s.qp"
		to-ct -q "$out/s.qp" "$out/d"
		same_logits "$out/s.qp" "$out/d"
		"$PYTHON" - "$out/s.qp" "$out/d" "$o" <<-'END'
		import sys
		import numpy as np
		from checkpoint import Directory
		from qpstream import Stream
		s, d, o = Stream(sys.argv[1]), Directory(sys.argv[2]), sys.argv[3]
		q = d.config["quantization_config"]
		for g in q["config_groups"].values():
		    w = g["weights"]
		    assert g["format"] == "float-quantized" and w["type"] == "float" and w["num_bits"] == 8
		    assert w["strategy"] == ("tensor" if o == "-g 0" else "block" if o else "channel")
		    if w["strategy"] == "block": # also of weights that are less than one
		        assert w["block_structure"] == [int(n) for n in o[8:].split("x")], w
		assert len(q["config_groups"]) == 1
		for h, p in s.records:
		    if h.get("role") == "codes":
		        assert d.dtype(h["name"]) == "F8_E4M3" and d.tensor(h["name"]).tobytes() == p
		END
		rm -r "$out/d"
	done
	rtn -q --format=e4m3 tiny | quant-acts -q -p fp8 > "$out/sf.qp"
	same_acts "$out/sf.qp" "$out/f" 'assert a["type"] == "float" and a["strategy"] == "token"'
	quant-acts -q -b 8 --rule=ct "$out/s.qp" > "$out/si.qp"
	refuses 65 '.*float codes, and activations in integers' to-ct "$out/si.qp" "$out/g"
}

@test "to-ct: linears whose inputs are quantized, and others, are groups told apart by name" {
	rtn -q -b 8 -g -1 tiny | quant-acts -q -b 8 --rule=ct --skip=attn.mid > "$out/sa.qp"
	same_acts "$out/sa.qp" "$out/d" 'assert len(groups) == 2 and len(acts) == 1'
	rtn -q -g 4 tiny | quant-acts -q -b 8 --rule=ct -e mlp.in > "$out/sb.qp"
	same_acts "$out/sb.qp" "$out/e" 'assert len(groups) == 2 and len(acts) == 1'
	sed -i 's/"model.layers.\([01]\).mlp.\(up\|gate\)_proj"/"re:.*layers\\\\.\1.*\2_proj$"/' "$out/e/config.json"
	grep -q 're:.*layers' "$out/e/config.json"
	same_logits "$out/sb.qp" "$out/e"
}

@test "to-ct: keys and values by heads are the kv_cache_scheme, and come back" {
	local b
	for b in 4 8; do
		rtn -q -g 4 --asym tiny | quant-acts -q -e none --kv=$b > "$out/s.qp"
		to-ct -q "$out/s.qp" "$out/d"
		same_logits "$out/s.qp" "$out/d"
		qp-forward -q -i ids.txt packed.qp > "$out/c.qp"
		run -1 qp-cmp "$out/c.qp" "$out/b.qp"
		"$PYTHON" - "$out/d" $b <<-'END'
		import sys
		from checkpoint import Directory
		d = Directory(sys.argv[1])
		k = d.config["quantization_config"]["kv_cache_scheme"]
		assert (k["num_bits"], k["type"], k["symmetric"]) == (int(sys.argv[2]), "int", False), k
		assert (k["strategy"], k["group_size"], k["dynamic"]) == ("group", 4, True), k
		END
		rm -r "$out/d"
	done
}

@test "to-ct: static ranges of keys and values that quant-acts made: scales beside attention" {
	local kv
	calib-pack -q --ids ids.txt > "$out/set.qp"
	for kv in e4m3 8; do
		record-acts -q -S none --kv -c "$out/set.qp" tiny | rtn -q -g 4 --asym |
			quant-acts -q -e none --kv=$kv --kv-static > "$out/s.qp"
		to-ct -q "$out/s.qp" "$out/d"
		same_logits "$out/s.qp" "$out/d"
		"$PYTHON" - "$out/d" $kv "$out/s.qp" <<-'END'
		import sys
		import numpy as np
		from checkpoint import Directory
		from qpstream import Stream
		d, s = Directory(sys.argv[1]), Stream(sys.argv[3])
		k = d.config["quantization_config"]["kv_cache_scheme"]
		what = ("float", "tensor") if sys.argv[2] == "e4m3" else ("int", "attn_head")
		assert (k["type"], k["strategy"], k["dynamic"], k["num_bits"]) == (*what, False, 8), k
		for i in range(2):
		    for x in "kv":
		        lo, hi = (s.tensor(f"layers.{i}.attn.{x}", "stat", n) for n in ("min", "max"))
		        have = d.tensor(f"model.layers.{i}.self_attn.{x}_scale").ravel()
		        want = max(-lo.min(), hi.max()) / 448 if what[0] == "float" else \
		               (max(hi.max(), 0) - min(lo.min(), 0)) / 255
		        assert have.size == 1 and abs(have[0] / want - 1) < 1e-6, (have, want)
		END
		rm -r "$out/d"
	done
}

@test "to-ct: static ranges of keys and values, by head and one for all, stay as they are" {
	local kind
	to-ct -q packed.qp "$out/d"
	for kind in head-int head-asym tensor-float; do
		rm -rf "$out/x" "$out/y"
		cp -r "$out/d" "$out/x"
		"$PYTHON" - "$out/x" $kind <<-'END'
		import json, struct, sys
		import numpy as np
		d, kind = sys.argv[1:]
		by, what = kind.split("-")
		c = json.load(open(d + "/config.json"))
		c["quantization_config"]["kv_cache_scheme"] = {
		    "num_bits": 8, "type": "float" if what == "float" else "int", "symmetric": what != "asym",
		    "strategy": "attn_head" if by == "head" else "tensor", "dynamic": False}
		json.dump(c, open(d + "/config.json", "w"))
		raw = open(d + "/model.safetensors", "rb").read()
		n = struct.unpack("<Q", raw[:8])[0]
		head, data = json.loads(raw[8:8 + n]), raw[8 + n:]
		def put(name, kind, x):
		    global data
		    head[name] = {"dtype": kind, "shape": [1], "data_offsets": [len(data), len(data) + x.nbytes]}
		    data += x.tobytes()
		places = [(i, j, f"model.layers.{i}.self_attn.{'kv'[j]}") for i in range(2) for j in range(2)]
		for i, j, m in places:
		    put(m + "_scale", "F32", np.float32([0.01 * (1 + i + j)]))
		for i, j, m in places if what == "asym" else []:
		    put(m + "_zero_point", "I8", np.int8([3 - i - 40 * j]))
		text = json.dumps(head).encode()
		text += b" " * (-len(text) % 8)
		open(d + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
		END
		record-acts -q --stats=none "$out/x" > "$out/s.qp"
		[ "$(qp-dump --head "$out/s.qp" | grep -c '^run .*attn\.[kv].*range="static"')" -eq 4 ]
		to-ct -q "$out/s.qp" "$out/y"
		same_logits "$out/x" "$out/y"
		qp-forward -q -i ids.txt packed.qp > "$out/c.qp"
		run -1 qp-cmp "$out/c.qp" "$out/b.qp"
		"$PYTHON" - "$out/x" "$out/y" <<-'END'
		import sys
		from checkpoint import Directory
		x, y = map(Directory, sys.argv[1:])
		a, b = (d.config["quantization_config"]["kv_cache_scheme"] for d in (x, y))
		assert all(b[k] == a[k] for k in a), (a, b)
		names = [n for n in x.tensors if n.endswith(("_scale", "_zero_point")) and ".self_attn." in n
		         and "proj" not in n]
		assert len(names) >= 4 and set(x.tensors) == set(y.tensors)
		for n in names:
		    assert (x.tensor(n) == y.tensor(n)).all() and x.dtype(n) == y.dtype(n), n
		END
	done
}

@test "to-ct: online rotations are the transform_config, with Sylvester's matrices, and come back" {
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/m" hidden=20 ffn=24 heads=5 kv=1
	record-acts -q --stats=none "$out/m" | rotate -q --block=4 -r r3,r4 | rtn -q -g 4 |
		quant-acts -q -b 8 --rule=ct --kv=4 > "$out/s.qp"
	to-ct -q "$out/s.qp" "$out/d"
	same_logits "$out/s.qp" "$out/d"
	"$PYTHON" - "$out/d" <<-'END'
	import sys
	import numpy as np
	from checkpoint import Directory
	d = Directory(sys.argv[1])
	g = d.config["quantization_config"]["transform_config"]["config_groups"]
	at = {a["location"]: (a["targets"], s["head_dim"], n) for n, s in g.items() for a in s["apply"]}
	assert all(s["type"] == "hadamard" and not s["randomize"] for s in g.values())
	layers = ["model.layers.0.", "model.layers.1."]
	assert at["input"][:2] == ([l + "mlp.down_proj" for l in layers], 4), at
	assert at["q_attn"] == at["k_cache"] and at["q_attn"][:2] == ([l + "self_attn" for l in layers], 4)
	s = np.array([[1]])
	for _ in range(2):
	    s = np.block([[s, s], [s, -s]])
	n = 0
	for where, (modules, _, name) in at.items():
	    for m in modules:
	        h = d.tensor("%s.%s_%s.weight" % (m, name, where))
	        assert (h == s).all()
	        n += 1
	assert n == 6
	END
	record-acts -q --stats=none "$out/d" > "$out/t.qp"
	[ "$(qp-dump --head "$out/t.qp" | grep -c '^run .*kind="hadamard" order=4')" -eq 6 ]
	to-ct -q "$out/t.qp" "$out/e"
	cmp "$out/d/model.safetensors" "$out/e/model.safetensors"
	cmp "$out/d/config.json" "$out/e/config.json"
}

@test "to-ct: activations that the format cannot say are refused, with what would fit" {
	rtn -q -b 8 -g -1 tiny > "$out/8.qp"
	no() {	# no MESSAGE OPTIONS...
		local what=$1
		shift
		quant-acts -q "$@" "$out/8.qp" > "$out/x.qp"
		refuses 65 "layers\.0\.$what" to-ct "$out/x.qp" "$out/d"
	}
	no 'attn\.in: ranges by rule smoothquant: .*--rule=ct before' -p w8a8
	no 'attn\.in: activations of 4 bits: .*-b 8 before' -b 4
	no 'attn\.in: ranges that are narrowed .*--clip=1 before' -b 8 --rule=ct --clip=0.9
	no 'attn\.in: a range of all tokens.*--per=token' -b 8 --rule=ct --per=tensor
	no 'attn\.in: asymmetric ranges of groups.*--sym or --per=token' -b 8 --asym -g 4
	no 'attn\.k\.raw: .*without --kv-raw' -b 8 --rule=ct --kv=8 --kv-raw
	no 'attn\.k: .*without --kv-window' -b 8 --rule=ct --kv=8 --kv-window=4
	no 'attn\.k: ranges that are narrowed .*--kv-clip=1' -b 8 --rule=ct --kv=8 --kv-clip=0.9
	no '.*resid: .*without --probs and --resid' -b 8 --rule=ct --resid=8
	rtn -q -b 8 -g -1 --skip=down tiny | quant-acts -q -b 8 --rule=ct > "$out/x.qp"
	refuses 65 '.*down_proj\.weight: is not in codes, but its input .*--skip=layers\.0\.mlp\.mid' \
		to-ct "$out/x.qp" "$out/d"
	quant-acts -q -b 8 --rule=ct "$out/8.qp" > "$out/x.qp"
	refuses 65 '.*the stream says how .*: without --activations' \
		to-ct --activations=dynamic-token "$out/x.qp" "$out/d"
	record-acts -q --stats=none tiny | rotate -q -r r4 | rtn -q -b 8 -g -1 > "$out/x.qp"
	refuses 65 'layers\.0\.mlp\.mid: is turned by .*order 12.* powers of 2: rotate --block=4' \
		to-ct "$out/x.qp" "$out/d"
	quant-acts -q -e none --kv=8 --skip=layers.1.attn.v "$out/8.qp" > "$out/x.qp"
	refuses 65 'layers\.1\.attn\.v: is not rounded, but layers\.0\.attn\.k is: ' \
		to-ct "$out/x.qp" "$out/d"
	quant-acts -q -e none --kv=8 --skip=layers.0 "$out/8.qp" > "$out/x.qp"
	refuses 65 'layers\.1\.attn\.k: is rounded, but in layers before it is not: ' \
		to-ct "$out/x.qp" "$out/d"
	[ ! -e "$out/d" ]
}

@test "to-ct: scales that bf16 cannot hold make the model float16, those that it can do not" {
	to-ct -q packed.qp "$out/a"
	grep -q '"torch_dtype": "float16"' "$out/a/config.json"
	rtn -q -g 4 --scale-dtype=bf16 tiny > "$out/b.qp"
	to-ct -q "$out/b.qp" "$out/b"
	grep -q '"torch_dtype": "bfloat16"' "$out/b/config.json"
}

@test "to-ct: a bit that the disk turns over is noticed, wherever it is" {
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	# words without padding, whose bits say nothing
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/m" hidden=32 ffn=64 heads=4 kv=2 dtype=BF16
	rtn -q -g 32 --asym "$out/m" > "$out/s.qp"
	notices_every_flip "$out/d" to-ct -q "$out/s.qp" "$out/d"
}

@test "to-ct: an existing target, a cut stream and a full disk leave what there was" {
	local n at st shim=${BUILD:-$ROOT/build}/shim/failwrite.so
	mkdir -p "$out/o" "$out/there"
	refuses 73 '.*/there: is there already; --force' to-ct packed.qp "$out/there"
	refuses_every_prefix packed.qp to-ct - "$out/o/d"
	[ -z "$(ls -A "$out/o")" ]
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	LD_PRELOAD=$shim FAIL_COUNT=$out/count to-ct -q packed.qp "$out/o/d"
	rm -r "$out/o/d"
	n=$(cat "$out/count")
	for ((at = 1; at <= n; at += 7)); do
		st=0
		LD_PRELOAD=$shim FAIL_AT=$at to-ct packed.qp "$out/o/d" 2> "$out/err" || st=$?
		[ "$st" -eq 74 ] || { echo "write $at of $n: $st"; cat "$out/err"; return 1; }
		[ -z "$(ls -A "$out/o")" ]
	done
}

# Change quantization_config of a copy by a line of Python: q.
broken() {	# broken PYTHON
	rm -rf "$out/x"
	cp -r "$out/d" "$out/x"
	"$PYTHON" - "$out/x/config.json" "$1" <<-'END'
	import json, sys
	c = json.load(open(sys.argv[1]))
	q = c["quantization_config"]
	g = q["config_groups"]["group_0"]
	exec(sys.argv[2])
	json.dump(c, open(sys.argv[1], "w"))
	END
}

@test "compressed-tensors: what cannot be read is refused by name" {
	to-ct -q packed.qp "$out/d"
	turn() {	# turn TYPE LOCATION TARGET [MORE]
		broken "q['transform_config'] = {'config_groups': {'R4': {'type': '$1', 'apply': [
		    {'targets': ['$3'], 'location': '$2'}] ${4:-}}}}"
	}
	turn hadamard weight_input Linear
	qp-ls "$out/x"
	turn random-hadamard input 're:.*down_proj$'
	refuses 65 ".*transform_config: R4: type 'random-hadamard' is not read" qp-ls "$out/x"
	turn hadamard output 're:.*down_proj$'
	refuses 65 ".*transform_config: location 'output' is not read" qp-ls "$out/x"
	turn hadamard input 're:.*down_proj$'
	refuses 65 'layers\.0\.mlp\.mid: is turned by a Hadamard matrix of order 12' qp-ls "$out/x"
	turn hadamard input 're:.*up_proj$' ", 'head_dim': 4"
	refuses 65 '.*: is turned by transform_config otherwise than other linears' qp-ls "$out/x"
	turn hadamard input 're:.*none$' ", 'head_dim': 4"
	refuses 65 ".*no module of the model is a target of 're:\.\*none\\$'" qp-ls "$out/x"
	turn hadamard q_attn 're:.*self_attn$'
	refuses 65 '.*head_dim is missing' qp-ls "$out/x"
	cache() { broken "q['kv_cache_scheme'] = dict(num_bits=8, type='int', symmetric=True, $1)"; }
	cache 'strategy="token", dynamic=True'
	refuses 65 '.*kv_cache_scheme: only strategy group is read' qp-forward -i ids.txt "$out/x"
	cache 'strategy="group", dynamic=True'
	refuses 65 '.*kv_cache_scheme: group_size is missing' qp-ls "$out/x"
	cache 'strategy="group", dynamic=True, group_size=3'
	refuses 65 '.*kv_cache_scheme: groups of 3 do not divide heads of 4' qp-ls "$out/x"
	cache 'strategy="tensor", dynamic=False'
	refuses 65 '.*layers\.0\.self_attn: has no k_scale, though' qp-ls "$out/x"
	broken 'q["kv_cache_scheme"] = {"num_bits": 8}'
	refuses 65 '.*kv_cache_scheme: a type .* needed' qp-ls "$out/x"
	broken 'q["format"] = g["format"] = "nvfp4-pack-quantized"'
	refuses 65 ".*format 'nvfp4-pack-quantized' is not read" qp-forward -i ids.txt "$out/x"
	broken 'g["weights"]["num_bits"] = 8'
	refuses 65 '.*q_proj\.weight: its .* is not what any group' qp-forward -i ids.txt "$out/x"
	broken 'g["input_activations"] = {"num_bits": 8, "type": "int", "symmetric": True,
	    "strategy": "tensor", "dynamic": False}'
	refuses 65 '.*q_proj\.weight: has no input_scale' qp-forward -i ids.txt "$out/x"
	broken 'q["quant_method"] = "magic"'
	refuses 65 ".*quant_method 'magic'\), not as one of: .*compressed-tensors" \
		qp-forward -i ids.txt "$out/x"
}

@test "compressed-tensors: what llm-compressor wrote gives the logits of its own loader" {
	local d
	need_shared interop/ct-w4a16-g32-asym
	for d in "$SHARED"/interop/ct-*; do
		"$PYTHON" - "$d" > "$out/ids" <<-'END'
		import sys
		from checkpoint import read_safetensors
		for row in read_safetensors(sys.argv[1] + "/golden.safetensors", False)["input_ids"][1]:
		    print(*row)
		END
		qp-forward -q -i "$out/ids" "$d" > "$out/l.qp"
		"$PYTHON" - "$d" "$out/l.qp" <<-'END'
		import sys
		import numpy as np
		from checkpoint import read_safetensors
		from qpstream import Stream
		g, s = read_safetensors(sys.argv[1] + "/golden.safetensors", False), Stream(sys.argv[2])
		got = np.stack([s.tensor(h["name"], h.get("role"))[g["logit_positions"][1]]
		                for h, _ in s.records if h["t"] == "tensor"])
		want = g["logits"][1]
		apart = abs(got - want).max(2) / abs(want).max()   # of each position
		print(sys.argv[1], apart)
		# Rows of a sym. int8 grid reach from -127.5 to 127.5 scales, so that the rounding of the
		# code of the most negative value hangs on the last bit of the sums before: one that
		# falls to the other side is 1/256 of its range off, and so is what comes after it.
		ties = "w8a8-int" in sys.argv[1]
		assert (apart < 1e-4).mean() >= (0.75 if ties else 1) and apart.max() < 1.5e-2
		END
	done
}
