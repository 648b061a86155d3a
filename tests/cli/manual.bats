#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# manual.bats - the examples of the manual run as they stand

setup() {
	load ../helpers
	cd "$BATS_TEST_TMPDIR"
	need_python numpy
	need_python msgpack
}

# The files that examples speak of, for the model in tests/data.
sandbox() {
	not_with_sanitizers "examples calibrate at full size, which takes too long there"
	mkdir "$1"
	cd "$1"
	ln -s "$MODEL" model
	ln -s "$MODEL" MODEL
	ln -s "$CALIB" train.txt
	ln -s "$ROOT/pipelines" pipelines
	head -c 20000 "$EVAL" > wiki.test.raw
	cp wiki.test.raw test.txt
	cp wiki.test.raw text
	"$PYTHON" -c 'import json, sys
for story in open(sys.argv[1]).read().split("\n\nOnce upon")[:40]:
    print(json.dumps({"text": "Once upon" + story * 4}))' "$CALIB" > c4.jsonl
	head -c 3000 "$CALIB" | tr '\n' ' ' | qp-tok -m model > tokens
	awk '{ for (w = 0; w < 4; w++) { for (i = 1; i <= 64; i++) printf "%d ", $(64 * w + i)
		print "" } }' tokens > windows.txt
	cp windows.txt ids
	calib-pack --ids windows.txt > calib.qp
	head -n 2 windows.txt | calib-pack --ids > part1.qp
	tail -n 2 windows.txt | calib-pack --ids > part2.qp
	record-acts -q -c calib.qp model > acts.qp
	gptq -q acts.qp > q.qp
	pack-int4 q.qp > q.bin
	cp q.qp a.qp
	cp q.qp b.qp
	cp q.bin a.bin
	cp q.bin b.bin
	cp "$DATA"/tasks/*.jsonl .
	cp ready.jsonl questions.jsonl
	if [ -d "$SHARED/vision" ]; then # examples that speak of it are passed over elsewhere
		mkdir cifar10 photos
		ln -s "$SHARED/vision/vit-cifar10-ashu-hf" vit
		head -c 307300 "$SHARED/vision/cifar10-test-1000.bin" > train.bin
		tail -c 307300 "$SHARED/vision/cifar10-test-1000.bin" > test.bin
		ln -s "$SHARED/vision/cifar10-test-1000.bin" cifar10/data_batch_1.bin
		cp test.bin cifar10/test_batch.bin
		{ printf 'P6 32 32 255\n'; head -c 3072 test.bin; } > photo # names do not matter
		for i in {1..128}; do ln -s ../photo "photos/$i.jpg"; done
	fi
	mkdir bin
	printf '#!/bin/sh\nexec %s "$@"\n' "$PYTHON" > bin/python3
	printf '#!/bin/sh\nexec cat\n' > bin/jq
	# Engines are not here: what they would be given must be.
	printf '#!/bin/sh\ntest -s "$2/model.safetensors" -a -s "$2/config.json"\n' > bin/vllm
	printf '#!/bin/sh\ntest -s "$2"\n' > bin/llama-cli
	cat > bin/calib-pack <<-END
		#!/bin/sh
		case " \$* " in *--ids* | *--images*) ;; *) set -- -s 512 "\$@" ;; esac
		exec $(command -v calib-pack) "\$@"
	END
	chmod +x bin/*
	PATH=$PWD/bin:$PATH
}

# The n-th example of a page as shell, without what roff needs.  What "$ cat FILE" shows is made
# into that file.  The model in tests/data reads 512 tokens at most.
example() {	# example PAGE N
	awk -v want="$2" '/^\.SH/ { on = /EXAMPLES/ } on && /^\.EX/ { n++; inside = 1; next }
		/^\.EE/ { inside = 0 } inside && n == want' "$1" |
		sed 's/\\-/-/g; s/\\(aq/'\''/g; s/\\(dq/"/g; s/\\e/\\/g; s/2048/512/g' |
		awk '/^\$ / && shown { print "X"; shown = 0 }
			/^\$ cat / { print "cat > " $3 " << \"X\""; shown = 1; next }
			{ sub(/^\$ /, ""); print } END { if (shown) print "X" }'
}

runs() {	# runs PAGE...: every example of these pages
	local page n st text total=0
	sandbox box
	for page; do
		for ((n = 1; ; n++)); do
			text=$(example "$page" "$n")
			[ -n "$text" ] || break
			total=$((total + 1))
			case $text in *vit/*) [ -d vit ] || continue ;; esac
			st=0
			bash -c "set -e -o pipefail; $text" > out 2> err < /dev/null || st=$?
			case $st,$text in
			0,* | 1,*qp-cmp* | 1,*--max* | 1,*diff*) continue ;;
			esac
			echo "${page##*/}, example $n: exit $st"
			printf '%s\n' "$text"
			cat err
			return 1
		done
	done
	[ "$total" -ge "$#" ]
}

@test "manual: the examples of section 1 run" {
	runs "$ROOT"/man/*.body
}

@test "manual: the examples of the overview run" {
	runs "$ROOT/man/quantpipe.7"
}

@test "manual: the pipelines of the README run" {
	sandbox box
	sed -n '/^## One pipeline/,/^## Build/s/^    //p' "$ROOT/README.md" > readme.sh
	[ "$(wc -l < readme.sh)" -ge 4 ]
	sed -i 's/ -g 128//; s/eval-ppl/eval-ppl --ctx=128/' readme.sh
	bash -e -o pipefail readme.sh
}

@test "manual: every program is in the overview and in the README" {
	for p in $(cd "${QP_BIN:-$ROOT/build/bin}" && ls); do
		grep -qF -e "\`$p(1)\`" "$ROOT/README.md" || { echo "README: $p"; return 1; }
		sed 's/\\//g' "$ROOT/man/quantpipe.7" | grep -qE "^\.BR .*\b$p" ||
			{ echo "quantpipe.7: $p"; return 1; }
	done
}

@test "manual: the pages render, and name every option of the help" {
	command -v mandoc > /dev/null || skip "no mandoc"
	for p in $(cd "${QP_BIN:-$ROOT/build/bin}" && ls); do
		mandoc -T ascii "${BUILD:-$ROOT/build}/man/man1/$p.1" | col -b > page
		"$p" --help | grep -oE -e '--[a-z0-9-]+' | sort -u > options
		while read -r o; do
			grep -qF -e "$o" page || { echo "$p: $o is not on its page"; return 1; }
		done < options
		[ -s options ]
	done
}
