#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# mutate.bats - streams whose checksums and counts are right and that make no sense otherwise
#
# tests/mutate.py makes them: fields of other types and sizes, records that lack, come twice or in
# another order, shapes of 2^40, values that are not finite, files and run records that lie.  What
# every run must do stands there.  Other seeds and more of them: change the two numbers.

setup_file() {
	load ../helpers
	need_python msgpack numpy
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny vocab=2048 tokenizer="$MODEL"
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids
	head -c 900 "$EVAL" > text
	calib-pack -q --ids ids > calib.qp
	tac ids | calib-pack -q --ids > calib2.qp
	record-acts -q -c calib.qp --stats=all tiny > acts.qp
	record-acts -q -c calib2.qp --stats=all tiny > acts2.qp
	gptq -q -g 16 --keep-ref acts.qp > codes.qp
	quant-acts -q -p w8a8 --rule=ct acts.qp | gptq -q -b 8 -g -1 | pack-int8 -q > w8a8.qp
	eval-ppl -q -t text --ctx=64 --windows=1 --save-logits=base.qp tiny > out
	calib-pack -q --images -m "$DATA/vit" -n 4 --sampling=sequential \
		"$DATA/vit/golden.safetensors" > images.qp
}

setup() {
	load ../helpers
	need_python msgpack numpy
	dir=$BATS_FILE_TMPDIR
	cd "$BATS_TEST_TMPDIR"
	# One allocation may have 1 GiB, in a sanitizer build; the peak is bounded in any.
	export ASAN_OPTIONS="${ASAN_OPTIONS:-}:max_allocation_size_mb=1100:allocator_may_return_null=1"
	export OPENBLAS_NUM_THREADS=1
}

mutate() {	# mutate SEED COUNT STREAM COMMAND...
	"$PYTHON" "$ROOT/tests/mutate.py" "$1" "$2" "$dir/$3" "${@:4}"
}

@test "mutate: statistics, through all that reads them" {
	mutate 1 84 acts.qp 'record-acts -q -j2 - -o OUT @IN' 'smooth -q IN -o OUT' \
		'smooth -q --search=w -g 16 IN -o OUT' 'clip -q -g 16 IN -o OUT' 'rotate -q IN -o OUT' \
		'rtn -q -g 16 IN -o OUT' 'gptq -q -g 16 IN -o OUT' \
		'gptq -q -g -1 --asym --sequential IN -o OUT' 'quant-acts -q -p w4a4kv4 IN -o OUT' \
		'quant-acts -q --per=tensor --static --clip=mse IN -o OUT' \
		'qp-alloc -q --budget=4 -g 16 IN' "qp-sum -q $dir/acts2.qp IN -o OUT"
}

@test "mutate: a model, through all that looks at it, writes it or runs it" {
	mutate 2 84 acts.qp 'qp-ls IN' 'qp-ls --json IN' 'qp-check IN' 'qp-dump IN' \
		"qp-cmp $dir/acts2.qp IN" 'to-hf -q IN OUT' 'to-gguf -q IN OUT' \
		"qp-forward -q -i $dir/ids IN -o OUT" "qp-tok -m IN $dir/text" \
		"eval-ppl -q -t $dir/text --ctx=64 --windows=1 IN" \
		"eval-tasks -q -t $DATA/tasks/piqa.jsonl IN" \
		"calib-pack -q -m IN -n 1 -s 32 $EVAL -o OUT"
}

@test "mutate: codes, through all that packs, compensates, exports or runs them" {
	mutate 3 84 codes.qp 'pack-int4 -q IN -o OUT' 'pack-int8 -q --float=bf16 -z IN -o OUT' \
		'qwt-fit -q IN -o OUT' "qwt-fit -q -r IN $dir/codes.qp -o OUT" 'to-ct -q IN OUT' \
		'to-gptq -q IN OUT' 'to-awq -q IN OUT' 'to-gguf -q --requantize IN OUT' \
		'to-hf -q --dequantize IN OUT' 'plot-errors -q --script IN' 'qp-ls --errors IN' \
		"qp-forward -q -i $dir/ids IN -o OUT"
}

@test "mutate: packed codes with run records, a calibration set, images, a base of logits" {
	mutate 4 30 w8a8.qp "qp-forward -q --compute=int -i $dir/ids IN -o OUT" 'to-ct -q IN OUT' \
		"qp-forward -q -i $dir/ids IN -o OUT"
	mutate 5 20 calib.qp "record-acts -q -c IN $dir/tiny -o OUT" 'qp-check IN'
	mutate 6 12 images.qp "record-acts -q -c IN $DATA/vit -o OUT"
	mutate 7 15 base.qp "eval-ppl -q -t $dir/text --ctx=64 --windows=1 --kl=IN $dir/tiny"
}

# Nobody's output file may be there, whatever the input.
no_output() {	# no_output COMMAND...
	rm -rf o
	mkdir o
	st=0
	"$@" 2> err || st=$?
	[ -z "$(ls -A o)" ] || { echo "left: $(ls -A o)"; return 1; }
	return $st
}

@test "mutate: every prefix, at programs whose own tests cut a stream once" {
	cd "$dir"
	"$PYTHON" "$ROOT/tests/mkmodel.py" small
	calib-pack -q --ids ids | record-acts -q -c /dev/stdin small | rtn -q -g 16 --keep-ref > small.qp
	rtn -q -g 16 --asym small > asym.qp
	for c in 'qwt-fit -q -' 'pack-int8 -q -' 'to-awq -q -'; do
		case $c in
		to-awq*) refuses_every_prefix asym.qp no_output $c "$dir/o/out" ;;
		*) refuses_every_prefix small.qp no_output $c -o "$dir/o/out" ;;
		esac
	done
}

# A stream of three records, of which the second is said by Python.
lying() {	# lying EXPRESSION
	"$PYTHON" -c '
import msgpack, sys
head = {"t": "stream", "v": [1, 0]}
out = sys.stdout.buffer
out.write(msgpack.packb(head))
out.write(eval(sys.argv[1]))
out.write(msgpack.packb({"t": "end", "records": 2, "sum": 0}))' "$1" > lie.qp
}

@test "mutate: headers above 1 MiB, shapes of 2^40, chunks that lie: all refused" {
	local big='msgpack.packb({"t": "tensor", "name": "x", "role": "weight", "dtype": "F32", '
	for what in 'msgpack.packb({"t": "note", "name": "x", "kind": "y", "text": "a" * (1 << 20)})' \
		'b"\xdf\xff\xff\xff\xff"' 'b"\x81\xa1t\xdb\xff\xff\xff\xff"' 'b"\x91" * 5000' \
		"$big"'"shape": [1 << 40], "nbytes": 1 << 42, "chunks": 1 << 18, "xxh": 0})' \
		"$big"'"shape": [1 << 32, 1 << 32], "nbytes": 0, "chunks": 1, "xxh": 0})' \
		"$big"'"shape": [4], "nbytes": 16, "chunks": 1, "xxh": 0}) + b"\xc6\xff\xff\xff\xff"' \
		"$big"'"shape": [-4], "nbytes": 16, "chunks": 1, "xxh": 0}) + b"\xc4\x10" + bytes(16)'; do
		lying "$what"
		for c in 'qp-ls' 'qp-check' 'qp-dump' 'qp-cmp lie.qp' 'qp-sum lie.qp' "qp-cmp $dir/acts.qp"; do
			refuses 65 '.+' $c lie.qp
		done
	done
}
