#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# to-hf.bats - what to-hf promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=20 ffn=12 heads=5 kv=1 dtype=BF16
	echo '{"pad": "  kept as it is "}' > tiny/generation_config.json
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp tiny > acts.qp
	smooth -q acts.qp > smooth.qp
	rtn -q -g 4 --asym acts.qp > rtn.qp
	pack-int4 rtn.qp > packed.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

nothing_but() {	# nothing_but NAME...: in $out
	[ "$(ls -A "$out" | grep -v separate-stderr | xargs)" = "$*" ] || { ls -A "$out"; return 1; }
}

@test "to-hf: a model that was not changed comes out with the tensors it had" {
	to-hf -q tiny "$out/d"
	"$PYTHON" - tiny "$out/d" <<-'END'
	import sys
	from checkpoint import Directory, read_safetensors
	want, got = read_safetensors(sys.argv[1] + "/model.safetensors", False), Directory(sys.argv[2])
	assert set(want) == set(got.tensors)
	for n in want:
	    assert want[n][0] == got.dtype(n) and (want[n][1] == got.tensors[n][1]).all(), n
	END
	cmp tiny/generation_config.json "$out/d/generation_config.json"
	nothing_but d
}

@test "to-hf: weights that a transform made get the type of the checkpoint, half to even" {
	to-hf -q smooth.qp "$out/d"
	"$PYTHON" - smooth.qp "$out/d" <<-'END'
	import sys
	from checkpoint import Directory, to_bf16
	from qpstream import Stream
	s, d = Stream(sys.argv[1]), Directory(sys.argv[2])
	assert {d.dtype(n) for n in d.tensors} == {"BF16"} and d.config["torch_dtype"] == "bfloat16"
	changed = 0
	for n in d.tensors:
	    w = s.tensor(n)
	    assert (d.tensor(n) == to_bf16(w)).all(), n
	    changed += s.head(n, "weight")["dtype"] == "F32"
	assert changed > 10
	END
}

@test "to-hf: --dtype converts every tensor, and config.json says so" {
	local t
	for t in bf16:BF16:bfloat16 f16:F16:float16 f32:F32:float32; do
		to-hf -q --dtype="${t%%:*}" smooth.qp "$out/${t%%:*}"
		"$PYTHON" - smooth.qp "$out/${t%%:*}" "$t" <<-'END'
		import sys
		import numpy as np
		from checkpoint import Directory, to_bf16
		from qpstream import Stream
		s, d = Stream(sys.argv[1]), Directory(sys.argv[2])
		_, dtype, word = sys.argv[3].split(":")
		round = {"BF16": to_bf16, "F16": lambda x: x.astype("<f2").astype("<f4"), "F32": np.array}[dtype]
		assert {d.dtype(n) for n in d.tensors} == {dtype} and d.config["torch_dtype"] == word
		for n in d.tensors:
		    assert (d.tensor(n) == round(s.tensor(n))).all(), n
		END
	done
}

@test "to-hf: codes are refused by name without --dequantize, which writes what they stand for" {
	refuses 65 '.*layers\.0\.self_attn\.q_proj\.weight: is in codes of 4 bits: --dequantize' \
		to-hf packed.qp "$out/d"
	nothing_but
	to-hf -q --dequantize --dtype=f32 packed.qp "$out/d"
	"$PYTHON" - packed.qp "$out/d" <<-'END'
	import sys
	import numpy as np
	from checkpoint import Directory
	from qpstream import Stream
	s, d = Stream(sys.argv[1]), Directory(sys.argv[2])
	assert len(s.names("codes")) == 14
	for n in s.names("codes"):
	    q, scale, z = (s.tensor(n, r) for r in ("codes", "scale", "zero"))
	    w = (q.astype("f4") - np.repeat(z, 4, 1).astype("f4")) * np.repeat(scale.astype("f4"), 4, 1)
	    assert (d.tensor(n) == w).all(), n
	END
	qp-forward -q -i ids.txt packed.qp > "$out/a.qp"
	qp-forward -q -i ids.txt "$out/d" > "$out/b.qp"
	qp-cmp "$out/a.qp" "$out/b.qp"
}

@test "to-hf: the stream of rtn, weights before or behind codes, gives the same directory" {
	to-hf -q --dequantize --dtype=f32 packed.qp "$out/a"
	to-hf -q --dequantize --dtype=f32 rtn.qp "$out/b"
	diff -r "$out/a" "$out/b"
}

@test "to-hf: --max-shard makes several files and an index; the model is the same" {
	to-hf -q --max-shard=3K tiny "$out/d"
	[ "$(ls "$out/d" | grep -c '^model-.*safetensors$')" -gt 3 ]
	"$PYTHON" - "$out/d" <<-'END'
	import os, sys
	from checkpoint import Directory
	d = Directory(sys.argv[1])
	sizes = {}
	for n, (_, x, f) in d.tensors.items():
	    sizes.setdefault(f, []).append(x.nbytes)
	assert all(sum(v) <= 3000 or len(v) == 1 for v in sizes.values()), sizes
	END
	qp-cmp tiny "$out/d"
	refuses 64 '--max-shard: expected a size' to-hf --max-shard=3X tiny "$out/e"
	refuses 64 '--max-shard: expected a size' to-hf --max-shard=0 tiny "$out/e"
	refuses 64 '--max-shard: expected a size' to-hf --max-shard=99999999999G tiny "$out/e"
}

@test "to-hf: config.json keeps what it does not know, and loses quantization_config" {
	cp -r tiny "$out/m"
	"$PYTHON" - "$out/m/config.json" <<-'END'
	import json, sys
	c = json.load(open(sys.argv[1]))
	c.update(zebra={"b": [1, 2.5, None, "\u00e9"]}, rms_norm_eps=1e-6, tiny=4.9406564584124654e-324)
	json.dump(c, open(sys.argv[1], "w"))
	END
	to-hf -q --dtype=f16 "$out/m" "$out/d"
	"$PYTHON" - "$out/m/config.json" "$out/d/config.json" <<-'END'
	import json, sys
	a, b = (json.load(open(f)) for f in sys.argv[1:])
	a["torch_dtype"] = "float16"
	assert a == b and list(b)[:3] == list(a)[:3]
	END
	grep -q '"rms_norm_eps": 1e-6' "$out/d/config.json"
}

@test "to-hf: a value too large for the type is refused, with the type that would fit" {
	record-acts -q --stats=none tiny > "$out/t.qp"
	qp-dump "$out/t.qp" | awk '/^tensor model.norm.weight/ { f = 1; print; next }
		f { sub(/^ *[^ ]+/, "  0x1p+20"); f = 0 } { print }' | qp-make > "$out/big.qp"
	refuses 65 'model\.norm\.weight: value 1\.04858e\+06 is too large for F16: --dtype=bf16 or f32' \
		to-hf --dtype=f16 "$out/big.qp" "$out/d"
	[ ! -e "$out/d" ]
	to-hf -q "$out/big.qp" "$out/d"
}

@test "to-hf: what the run time must do beside the weights is refused by name" {
	qp-dump packed.qp | awk '/^tensor model.layers.0/ && !done {
		print "run layers.0.mlp.in must=true kind=\"act-quant\" bits=8"; done = 1 } { print }' |
		qp-make > "$out/run.qp"
	refuses 65 "layers\.0\.mlp\.in: wants 'act-quant' at run time" \
		to-hf --dequantize "$out/run.qp" "$out/d"
	[ ! -e "$out/d" ]
}

@test "to-hf: a stream without config.json, or with a file of another folder, is refused" {
	qp-dump acts.qp | awk '/^file config.json/ { skip = 1; next } /^[a-z]/ { skip = 0 }
		!skip { print }' | qp-make > "$out/none.qp"
	refuses 65 'config\.json: is not among the files' to-hf "$out/none.qp" "$out/d"
	sed 's,generation_config.json,../../../../../stolen_,' acts.qp > "$out/far.qp"
	refuses 65 ".*stolen_.*not the (plain )?name of a file" to-hf "$out/far.qp" "$out/d"
	[ ! -e "$out/d" ]
}

@test "to-hf: an existing target is refused; --force replaces it when the new one is complete" {
	mkdir "$out/d" "$out/deep" "$out/deep/er"
	echo mine > "$out/d/old"
	refuses 73 '.*/d: is there already; --force replaces it' to-hf tiny "$out/d"
	[ "$(ls -A "$out/d")" = old ]
	refuses 65 '.*stream ends here' sh -c "head -c 9000 acts.qp | to-hf --force - '$out/d'"
	[ "$(ls -A "$out/d")" = old ]
	to-hf -q --force tiny "$out/d/"
	[ -e "$out/d/model.safetensors" ]
	[ ! -e "$out/d/old" ]
	refuses 73 ".*/deep: has a folder 'er' in it" to-hf --force tiny "$out/deep"
	echo > "$out/file"
	refuses 73 '.*/file: is not a directory' to-hf --force tiny "$out/file"
	ln -s d "$out/link"
	to-hf -q --force tiny "$out/link"
	[ -L "$out/link" ]
	refuses 73 '.*/no/d: .*No such file' to-hf tiny "$out/no/d"
	refuses 73 '\.: is not the name of a directory to make' to-hf tiny .
	run ls -A "$out"
	[ "$(echo "$output" | grep -c tmp)" -eq 0 ]
}

@test "to-hf: every truncation of the input is refused, and leaves nothing" {
	mkdir "$out/x"
	refuses_every_prefix packed.qp to-hf --dequantize - "$out/x/d"
	[ -z "$(ls -A "$out/x")" ]
}

@test "to-hf: a bit that the disk turns over is noticed, wherever it is" {
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	notices_every_flip "$out/d" to-hf -q smooth.qp "$out/d"
}

@test "to-hf: each failing write is exit 74 and leaves no directory" {
	local n at st shim=${BUILD:-$ROOT/build}/shim/failwrite.so
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	[ -e "$shim" ]
	mkdir "$out/o"
	LD_PRELOAD=$shim FAIL_COUNT=$out/count to-hf -q --max-shard=6K tiny "$out/o/d"
	qp-cmp tiny "$out/o/d"
	rm -r "$out/o/d"
	n=$(cat "$out/count")
	[ "$n" -ge 20 ]
	for ((at = 1; at <= n; at += (at < 10 ? 1 : 3))); do
		st=0
		LD_PRELOAD=$shim FAIL_AT=$at to-hf --max-shard=6K tiny "$out/o/d" 2> "$out/err" || st=$?
		[ "$st" -eq 74 ] || { echo "write $at of $n: $st"; cat "$out/err"; return 1; }
		grep -q '^to-hf: .*No space left' "$out/err"
		[ -z "$(ls -A "$out/o")" ] || { echo "write $at: left"; ls -AR "$out/o"; return 1; }
	done
}

@test "to-hf: a signal in the middle leaves no directory" {
	local pid st sig
	mkdir -p "$out/k"
	for sig in TERM HUP; do
		mkfifo "$out/fifo.$sig"
		to-hf - "$out/k/d" < "$out/fifo.$sig" 2> "$out/err" &
		pid=$!
		exec 7> "$out/fifo.$sig"
		head -c 20000 acts.qp >&7
		for _ in $(seq 100); do
			[ -z "$(ls -A "$out/k")" ] || break
			sleep 0.05
		done
		[ -n "$(ls -A "$out/k")" ]
		kill -"$sig" $pid
		st=0
		wait $pid || st=$?
		exec 7>&-
		[ "$st" -gt 128 ]
		[ -z "$(ls -A "$out/k")" ]
	done
}

@test "to-hf: same input, same bytes" {
	to-hf -q smooth.qp "$out/a"
	to-hf -q - "$out/b" < smooth.qp
	diff -r "$out/a" "$out/b"
}

@test "to-hf: peak memory is within the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	rtn -q -g 64 m > r.qp
	to-hf -v --dequantize r.qp d 2> err
	peak_is err $((2 * D * F + 9 * MiB))
}

@test "exports: the records of a linear that do not stand together are refused by name" {
	qp-dump rtn.qp | awk '
		/^[^ ]/ { far = $2 == "model.layers.0.self_attn.q_proj.weight" && $3 == "role=scale" }
		far { held[n++] = $0; next }
		/^block-end/ { for (i = 0; i < n; i++) print held[i]; n = 0 }
		{ print }' | qp-make > "$out/far.qp"
	for c in 'to-hf --dequantize' to-ct to-gptq to-awq \
		'to-gguf --requantize --no-vocab'; do
		refuses 65 '.*layers.0.self_attn.q_proj.*' $c "$out/far.qp" "$out/d"
		[ ! -e "$out/d" ]
	done
}

@test "exports: a config.json that is damaged, or of another model than the stream, is refused" {
	qp-dump --head acts.qp | grep -q '^file config.json'
	local key="layers\.0" with
	for with in '{}|model_type' "$(sed 's/"hidden_size": *20/"hidden_size": 40/' tiny/config.json |
			tr -d '\n')|.*another model"; do
		qp-dump acts.qp | awk -v text="$(sed 's/"/\\\\"/g' <<< "${with%|*}")" '
			/^[a-z]/ { skip = /^file config.json/
				   if (skip) { print "file config.json"; print "  \"" text "\"" } }
			!skip { print }' | qp-make > "$out/c.qp"
		refuses 65 "config\\.json: ${with#*|}" to-hf "$out/c.qp" "$out/d"
		[ ! -e "$out/d" ]
	done
}

@test "exports: tensors that were rounded are counted, and the worst is named with its error" {
	to-hf --dequantize --dtype=bf16 rtn.qp "$out/b" 2> "$out/err"
	to-hf --dequantize --dtype=f32 rtn.qp "$out/f" 2> "$out/none"
	run -1 grep -q rounded "$out/none"
	"$PYTHON" - "$out/f" "$out/b" "$out/err" <<-'END'
	import glob, json, re, struct, sys
	import numpy as np
	def tensors(d):
	    raw = open(glob.glob(d + "/*.safetensors")[0], "rb").read()
	    n = struct.unpack("<Q", raw[:8])[0]
	    head = json.loads(raw[8:8 + n])
	    head.pop("__metadata__")
	    for k, v in head.items():
	        b = raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]
	        yield k, (np.frombuffer(b, "<f4") if v["dtype"] == "F32" else
	                  (np.frombuffer(b, "<u2").astype("<u4") << 16).view("<f4")).astype(float)
	was, now = dict(tensors(sys.argv[1])), dict(tensors(sys.argv[2]))
	error = {k: np.linalg.norm(now[k] - was[k]) / np.linalg.norm(was[k]) for k in was}
	n, name, x = re.search(r"^to-hf: (\d+) tensors were rounded to the type they are written in; "
	                       r"the worst, (\S+), to BF16: relative error (\S+)$",
	                       open(sys.argv[3]).read(), re.M).groups()
	assert int(n) == sum(e > 0 for e in error.values()) > 10, (n, error)
	assert name == max(error, key=error.get), (name, error)
	assert abs(float(x) / error[name] - 1) < 0.01, (x, error[name])
	END
}
