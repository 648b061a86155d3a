#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# contract.bats - what every program in bin/ does the same way; each test walks all of them

# The operands with which a program gets as far as opening its input, and its kind.
#     filter: stream in, stream out     reader: stream in, text out
#     source: makes a stream            tool: neither side is always a stream
kind() {
	case $1 in
	smooth | clip | rotate | rtn | gptq | quant-acts | qwt-fit | pack-int4 | pack-int8)
		echo filter ;;
	qp-ls | qp-dump | qp-check) echo reader ;;
	record-acts | calib-pack | qp-make | qp-forward | qp-sum) echo source ;;
	*) echo tool ;;
	esac
}

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	programs=$(cd "${QP_BIN:-$ROOT/build/bin}" && ls)
	[ -n "$programs" ]
	echo 1 2 3 > ids
}

# A word about which program it was that failed.
each() {	# each FUNCTION
	local p bad=0
	for p in $programs; do
		"$1" "$p" || { echo "^ $p"; bad=1; }
	done
	return $bad
}

tiny_stream() {
	[ -s "$BATS_FILE_TMPDIR/tiny.qp" ] ||
		record-acts -q --stats=none "$MODEL" > "$BATS_FILE_TMPDIR/tiny.qp"
	tiny=$BATS_FILE_TMPDIR/tiny.qp
}

help_is_right() {
	local st=0
	"$1" --help > help 2> err || st=$?
	[ "$st" -eq 0 ] || { echo "exit $st"; return 1; }
	[ ! -s err ] || { cat err; return 1; }
	[[ $(head -n 1 help) == "usage: $1"* ]] || { echo "line 1: $(head -n 1 help)"; return 1; }
	awk 'length($0) > 80 { print "too wide: " $0; bad = 1 }
		END { if (NR > 40) { print NR " lines"; bad = 1 }; exit bad }' help || return 1
	"$1" -h | cmp - help
}

@test "contract: --help is on stdout, exits 0, fits 80 columns and one screen" {
	each help_is_right
}

full_disk() {
	local st=0
	"$1" --help > /dev/full 2> err || st=$?
	[ "$st" -eq 74 ] || { echo "--help: exit $st"; return 1; }
	grep -q "^$1: .*No space left" err || { cat err; return 1; }
	st=0
	"$1" --version > /dev/full 2> err || st=$?
	[ "$st" -eq 74 ] || { echo "--version: exit $st"; return 1; }
}

@test "contract: --help and --version to a full disk exit 74" {
	each full_disk
}

version() {
	"$1" -V > out 2> err || return 1
	[ ! -s err ] && grep -q "^$1.* $(cat "$ROOT/VERSION")$" out || { cat out err; return 1; }
	"$1" --version | cmp - out
}

@test "contract: -V prints name and version" {
	each version
}

unknown_option() {
	local st opt
	for opt in --no-such-option -@; do
		st=0
		"$1" "$opt" > out 2> err < /dev/null || st=$?
		[ "$st" -eq 64 ] || { echo "$opt: exit $st"; return 1; }
		[ ! -s out ] || { echo "$opt: wrote to stdout"; return 1; }
		grep -q "^$1: " err || { cat err; return 1; }
		[ "$(wc -l < err)" -le 2 ] || { cat err; return 1; }
	done
}

@test "contract: an unknown option exits 64 and writes nothing to stdout" {
	each unknown_option
}

# What getopt knows, by asking for a prefix of every letter: "--a=" names --alpha, or all that
# begin so, in its message.  Each must be in the help.
no_secret_option() {
	local letter opt
	"$1" --help > help
	for letter in {a..z}; do
		timeout 10 "$1" "--$letter=@" < /dev/null 2>&1 > out | head -n 3
	done | grep -oE -e '--[a-z][a-z-]+' | sort -u > known || true
	while read -r opt; do
		grep -qE -e "$opt([=[, ]|\$)" help || { echo "$opt is not in the help"; return 1; }
	done < known
}

@test "contract: every option that is understood is in the help" {
	each no_secret_option
}

# The other direction: an option of the help is taken, and the next one is what is complained of.
help_options_work() {
	local opt st
	"$1" --help | grep -oE -e '^ +(-[a-zA-Z0-9], )?--[a-z0-9-]+[=[]?' | grep -oE -e '--.*' > all
	[ -s all ] || { echo "no options in the help"; return 1; }
	while read -r opt; do
		case $opt in
		--help | --version) continue ;;
		*=) set -- "$1" "${opt}1" ;;
		*) set -- "$1" "${opt%[}" ;;
		esac
		st=0
		"$1" "$2" --no-such-option > out 2> err < /dev/null || st=$?
		[ "$st" -eq 64 ] || { echo "$2: exit $st"; cat err; return 1; }
		if grep -E "(option|argument).*${opt%%[=[]*}['\" ]" err; then return 1; fi
	done < all
}

@test "contract: every option in the help is understood" {
	each help_options_work
}

too_many() {
	local st=0
	"$1" /no/1 /no/2 /no/3 /no/4 /no/5 /no/6 > out 2> err < /dev/null || st=$?
	case $1 in
	qp-sum | qp-check) [ "$st" -eq 66 ] || [ "$st" -eq 64 ] ;; # any number of inputs
	*) [ "$st" -eq 64 ] ;;
	esac || { echo "exit $st"; cat err; return 1; }
	[ ! -s out ]
}

@test "contract: too many operands exit 64" {
	each too_many
}

@test "contract: a terminal as a stream's input is refused" {
	need_terminals
	for p in $programs; do
		case $(kind "$p") in filter | reader) ;; *) continue ;; esac
		refuses 64 '.*terminal' with_a_terminal in "$p"
	done
}

@test "contract: a terminal as a stream's output is refused" {
	need_terminals
	tiny_stream
	for p in $programs; do
		case $p in
		qp-make) set -- qp-make /dev/null ;;
		qp-sum) set -- qp-sum "$tiny" ;;
		calib-pack) set -- calib-pack -m "$MODEL" "$CALIB" ;;
		record-acts) set -- record-acts --stats=none "$MODEL" ;;
		qp-forward) set -- qp-forward -i ids "$MODEL" ;;
		*) [ "$(kind "$p")" = filter ] || continue; set -- "$p" "$tiny" ;;
		esac
		refuses 64 '.*terminal' with_a_terminal out "$@"
	done
}

operands_for() {	# operands_for PROGRAM PATH: $PATH where its main input goes
	case $1 in
	qp-cmp) echo "$2 $2" ;;
	calib-pack) echo "-m $MODEL $2" ;;
	qp-tok) echo "-m $2" ;;
	eval-tasks) echo "-t $DATA/tasks/piqa.jsonl $2" ;;
	qp-alloc) echo "--budget=4 $2" ;;
	qp-forward) echo "-i ids $2" ;;
	to-hf | to-ct | to-gguf | to-gptq | to-awq) echo "$2 new" ;;
	*) echo "$2" ;;
	esac
}

missing() {
	local st=0
	"$1" $(operands_for "$1" /no/such/file) > out 2> err < /dev/null || st=$?
	[ "$st" -eq 66 ] || { echo "exit $st"; cat err; return 1; }
	grep -q "^$1: .*/no/such/file.*No such file" err || { cat err; return 1; }
	[ ! -s out ]
}

@test "contract: a missing input exits 66 and is named" {
	each missing
}

directory() {
	local st=0
	mkdir -p folder
	"$1" $(operands_for "$1" folder) > out 2> err < /dev/null || st=$?
	[ "$st" -eq 66 ] || [ "$st" -eq 65 ] || { echo "operand: exit $st"; cat err; return 1; }
	grep -q "^$1: .*folder" err || { cat err; return 1; }
	[ ! -s out ] || return 1
	case $(kind "$1") in filter | reader) ;; *) return 0 ;; esac
	st=0
	"$1" < folder > out 2> err || st=$?
	case $st in 65 | 66 | 74) ;; *) echo "stdin: exit $st"; cat err; return 1 ;; esac
	[ -s err ] && [ ! -s out ]
}

@test "contract: a directory where a file belongs is refused by name" {
	each directory
}

empty_input() {
	local st=0
	case $(kind "$1") in filter | reader) ;; *) return 0 ;; esac
	"$1" < /dev/null > out 2> err || st=$?
	[ "$st" -eq 65 ] || { echo "exit $st"; cat err; return 1; }
	grep -q "^$1: " err
}

@test "contract: an empty stream is refused" {
	each empty_input
}

@test "contract: an output that cannot be created exits 73 before any work" {
	tiny_stream
	for p in $programs; do
		"$p" --help | grep -q -e --output || continue
		case $p in
		qp-make) set -- qp-make /dev/null ;;
		calib-pack) set -- calib-pack -m "$MODEL" "$CALIB" ;;
		record-acts) set -- record-acts --stats=none "$MODEL" ;;
		qp-forward) set -- qp-forward -i ids "$MODEL" ;;
		*) set -- "$p" "$tiny" ;;
		esac
		refuses 73 '.*/no/such/folder/out\.qp' "$@" -o /no/such/folder/out.qp < /dev/null
	done
}

common_values() {
	local st opt help
	help=$("$1" --help)
	for opt in --threads=0 --threads=x --zstd=99 --zstd=x --device=toaster; do
		grep -q -e "${opt%%=*}" <<< "$help" || continue
		st=0
		"$1" "$opt" > out 2> err < /dev/null || st=$?
		[ "$st" -eq 64 ] || { echo "$opt: exit $st"; cat err; return 1; }
		[ ! -s out ] && grep -q "^$1: .*${opt%%=*}" err || { cat err; return 1; }
	done
}

@test "contract: bad values of the common options exit 64 and name the option" {
	each common_values
}

@test "contract: a device that is not there exits 69, never a fallback" {
	tiny_stream
	for p in $programs; do
		"$p" --help | grep -q -e --device || continue
		case $p in
		qp-forward) set -- qp-forward -i ids "$MODEL" ;;
		record-acts) set -- record-acts "$MODEL" ;;
		eval-ppl) set -- eval-ppl -t "$EVAL" "$MODEL" ;;
		qp-alloc) set -- qp-alloc --budget=4 "$tiny" ;;
		eval-tasks) set -- eval-tasks -t "$DATA/tasks/piqa.jsonl" "$MODEL" ;;
		*) set -- "$p" "$tiny" ;;
		esac
		refuses 69 '.*cuda:7' "$@" --device=cuda:7 < /dev/null > /dev/null
	done
}

@test "contract: messages are one line each, and quiet where nothing is wrong" {
	tiny_stream
	qp-check "$tiny" > out 2> err
	[ ! -s out ] && [ ! -s err ]
	rtn -b 4 "$tiny" 2> err | pack-int4 2>> err > packed.qp
	[ ! -s err ]
	head -c 2000 "$tiny" > cut.qp
	run --separate-stderr -65 rtn cut.qp
	[ "${#stderr_lines[@]}" -eq 1 ]
}

empty_operand() {
	local st=0 words
	read -ra words <<< "$(operands_for "$1" @)"
	[ "$1" != qp-tok ] || words=(-m "$MODEL" @)
	"$1" "${words[@]/#@/}" > out 2> err < /dev/null || st=$?
	[ "$st" -eq 64 ] || { echo "exit $st"; cat err; return 1; }
	grep -q "^$1: operand 1: .* got ''" err || { cat err; return 1; }
	[ ! -s out ]
}

@test "contract: an empty operand exits 64 and is named" {
	each empty_operand
	tiny_stream
	for p in $programs; do
		[ "$(kind "$p")" = filter ] || continue
		refuses 64 "operand 2: .* got ''" "$p" "$tiny" ""
	done
}

@test "contract: an empty file name in an option is named" {
	refuses 66 "'': .*No such file" eval-ppl -t '' "$MODEL"
	refuses 66 "'': .*No such file" qp-forward -i '' "$MODEL"
	refuses 66 "'': .*No such file" record-acts -c '' "$MODEL"
	refuses 66 "'': .*No such file" qp-tok -m ''
	refuses 66 "'': .*No such file" calib-pack -m ''
	refuses 66 "'': .*No such file" calib-pack -m "$MODEL" -n 2 -s 64 --disjoint-from= "$CALIB"
	refuses 64 '--output: ' calib-pack --ids -o '' ids
}

@test "contract: a directory where a text is wanted is one, and no word of streams" {
	mkdir folder
	refuses 66 'folder: is a directory, not a stream; record-acts makes one' gptq folder
	refuses 65 '.*is a GGUF file, not a stream; record-acts makes one' \
		smooth "$DATA/gguf/llama-f16.gguf"
	refuses 65 '.*llama2c.bin: not a quantpipe stream; record-acts makes one of a model' \
		gptq "$DATA/gguf/llama2c.bin"
	refuses 66 'folder: is a directory$' eval-ppl -t folder "$MODEL"
	refuses 66 'folder: is a directory$' eval-tasks -t piqa=folder "$MODEL"
	refuses 66 'folder: is a directory$' qp-forward -i folder "$MODEL"
	refuses 66 'folder: is a directory$' qp-tok -m "$MODEL" folder
	refuses 66 'folder: is a directory$' calib-pack -m "$MODEL" folder
	refuses 66 'folder: is a directory$' calib-pack --ids folder
	refuses 66 'folder: is a directory$' \
		calib-pack -m "$MODEL" -n 2 -s 64 --disjoint-from=folder "$CALIB"
}

@test "contract: -o onto a symbolic link writes what it points to" {
	mkdir a b
	calib-pack --ids ids > want
	echo old > b/there
	ln -s ../b/there a/one
	ln -s one a/two # a chain
	ln -s "$PWD/b/new" a/dangling
	for name in one two dangling; do
		calib-pack --ids -o a/$name ids
		[ -L a/$name ]
		cmp a/$name want
		echo old > b/there
	done
	[ "$(ls -A b)" = $'new\nthere' ]
	ln -s loop a/loop
	refuses 73 'a/loop: ' calib-pack --ids -o a/loop ids
	[ -L a/loop ]
}

@test "contract: -o over a file keeps the file's permissions" {
	umask 022
	for mode in 600 640 444 666; do
		rm -f out.qp
		echo old > out.qp
		chmod $mode out.qp
		calib-pack --ids -o out.qp ids
		qp-ls out.qp > list
		[ "$(stat -c %a out.qp)" = $mode ]
	done
	calib-pack --ids -o new.qp ids
	[ "$(stat -c %a new.qp)" = 644 ]
}

@test "contract: -o takes every legal file name, and refuses a longer one before any work" {
	mkdir o
	for n in 33 250 255; do
		name=$(printf "%${n}s" '' | tr ' ' n)
		calib-pack --ids -o "o/$name" ids
		[ "$(ls -A o)" = "$name" ]
		rm "o/$name"
	done
	name=$(printf '\303\244%.0s' {1..127}) # two bytes each
	calib-pack --ids -o "o/$name" ids
	rm "o/$name"
	name=$(printf '%256s' '' | tr ' ' n)
	refuses 73 '.*name too long' calib-pack --ids -o "o/$name" /no/such/file
	[ -z "$(ls -A o)" ]
}

@test "contract: numbers are plain decimals: no blank, no plus, no hexadecimal" {
	tiny_stream
	for v in +4 ' 4' '4 ' 0x4 4. ''; do
		refuses 64 "--bits: .*got '" rtn -b "$v" "$tiny"
		refuses 64 "--threads: .*got '" rtn --threads="$v" "$tiny"
	done
	for v in +0.5 ' 0.5' '0.5 ' 0x1p-1 nan ''; do
		refuses 64 "--alpha: .*got '" smooth --alpha="$v" "$tiny"
	done
	smooth --alpha=5e-1 "$tiny" > out 2> err || true
	run -1 grep -q alpha err
}

@test "contract: ids between blanks or commas are taken, and the message says so" {
	qp-tok -d -m "$MODEL" <<< '1, 2,3' > commas
	qp-tok -d -m "$MODEL" <<< '1 2 3' | cmp - commas
	refuses 65 'line 1: .*blanks or commas' qp-tok -d -m "$MODEL" - <<< '1;2'
}

# A run of each program that succeeds, on the files that the test has made.
run_of() {	# run_of PROGRAM: sets words
	case $1 in
	calib-pack) words=(--ids ids64) ;;
	record-acts) words=(-c calib.qp "$MODEL") ;;
	clip | gptq | smooth) words=(-g 16 acts.qp) ;;
	rtn) words=(-b 4 -g 16 acts.qp) ;;
	rotate) words=("$tiny") ;;
	quant-acts) words=(codes.qp) ;;
	qwt-fit) words=(--ref="$tiny" -c calib.qp codes.qp) ;;
	pack-int4 | pack-int8 | plot-errors) words=(codes.qp) ;;
	qp-alloc) words=(--budget=4 -g 16 acts.qp) ;;
	qp-cmp) words=("$tiny" "$tiny") ;;
	qp-forward) words=(-i ids "$MODEL") ;;
	qp-lint) words=("$MODEL") ;;
	qp-make) words=(dump) ;;
	qp-sum) words=(acts.qp other.qp) ;;
	qp-tok) words=(-m "$MODEL" ids) ;;
	eval-ppl) words=(-c 64 -w 2 -t "$EVAL" "$MODEL") ;;
	eval-tasks) words=(-t "$DATA/tasks/piqa.jsonl" --limit=2 "$MODEL") ;;
	to-hf) words=(--dequantize packed.qp to-hf.out) ;;
	to-*) words=(packed.qp "$1.out") ;;
	*) words=("$tiny") ;;
	esac
	[ "$1" != smooth ] || words=(acts.qp)
	[ "$1" != plot-errors ] || words=(--script codes.qp)
}

says_seconds() {
	local st=0 words s='[0-9]+\.[0-9][0-9] s'
	run_of "$1"
	"$1" -v "${words[@]}" > out 2> err < /dev/null || st=$?
	[ "$st" -le 1 ] || { echo "exit $st"; cat err; return 1; }
	grep -qE "^$1: read $s, compute $s, write $s, peak [0-9.]+ MiB" err || { cat err; return 1; }
}

@test "contract: -v of every program says what reading, computing and writing took" {
	tiny_stream
	for i in 1 2 3 4; do seq -s ' ' "$i" "$((i + 63))"; done > ids64
	calib-pack -q --ids ids64 > calib.qp
	record-acts -q -c calib.qp "$MODEL" > acts.qp
	awk '{ $1 = 9; print }' ids64 | calib-pack -q --ids | record-acts -q -c - "$MODEL" > other.qp
	gptq -q -b 4 -g 32 acts.qp > codes.qp
	pack-int4 -q codes.qp > packed.qp
	qp-dump "$tiny" > dump
	each says_seconds
	run --separate-stderr -0 qp-check -q -v packed.qp
	[ -z "$stderr" ]
}

@test "contract: where a program only packs, that takes seconds of computing" {
	heavy_model
	rtn -q -b 3 -g 64 m > codes.qp # odd bits have no vectors
	pack-int4 -v codes.qp 2> err > /dev/null
	cat err
	run -1 grep 'compute 0.00 s' err
}
