#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# faults.bats - full disks, closed pipes and dead stages, at every program that writes
#
# The full disk is tests/shim/failwrite.c: every write is short, and from the n-th on they fail.

setup_file() {
	load ../helpers
	cd "$BATS_FILE_TMPDIR"
	need_python numpy
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	calib-pack --ids ids.txt > calib.qp
	record-acts -c calib.qp --stats=all tiny > acts.qp
	tac ids.txt | calib-pack -q --ids > calib2.qp
	record-acts -c calib2.qp --stats=all tiny > more.qp
	rtn -b 4 -g 16 acts.qp > rtn.qp
	rtn -b 8 -g 16 --keep-ref acts.qp > ref.qp
	qp-dump acts.qp > acts.txt
}

setup() {
	load ../helpers
	cd "$BATS_FILE_TMPDIR"
	dir=$BATS_TEST_TMPDIR
	shim=${BUILD:-$ROOT/build}/shim/failwrite.so
	in=/dev/null	# standard input of what sweep runs
}

# Writes of COMMAND fail from the 1st, 2nd, ... on: always 74 and the house message.  At most 50
# places: the first 20, the last 10, and 20 between.
sweep() {	# sweep COMMAND...
	local n at st step
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	[ -e "$shim" ] || { echo "$shim: run make tests"; return 1; }

	"$@" < "$in" > "$dir/want"
	LD_PRELOAD=$shim FAIL_COUNT=$dir/count "$@" < "$in" > "$dir/got"
	cmp "$dir/want" "$dir/got" # short writes are no error
	n=$(cat "$dir/count")
	[ "$n" -ge 1 ]
	step=$(((n - 30) / 20 + 1))
	for ((at = 1; at <= n; at += (at <= 20 || at > n - 10 ? 1 : step))); do
		st=0
		LD_PRELOAD=$shim FAIL_AT=$at "$@" < "$in" > "$dir/got" 2> "$dir/err" || st=$?
		[ "$st" -eq 74 ] || { echo "write $at of $n: $st"; cat "$dir/err"; return 1; }
		grep -q "^$1: .*No space left on device" "$dir/err" || { cat "$dir/err"; return 1; }
		[ "$(wc -l < "$dir/err")" -eq 1 ]
	done
}

# The same with -o: nothing is left under the name, nor under another.
sweep_output() {	# sweep_output COMMAND...
	local n at st step
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	mkdir -p "$dir/o"
	LD_PRELOAD=$shim FAIL_COUNT=$dir/count "$@" -o "$dir/o/out.qp" < "$in"
	[ "$(ls -A "$dir/o")" = out.qp ]
	qp-check "$dir/o/out.qp"
	rm "$dir/o/out.qp"
	n=$(cat "$dir/count")
	step=$(((n - 10) / 10 + 1))
	for ((at = 1; at <= n; at += (at <= 5 || at > n - 5 ? 1 : step))); do
		st=0
		LD_PRELOAD=$shim FAIL_AT=$at "$@" -o "$dir/o/out.qp" < "$in" 2> "$dir/err" || st=$?
		[ "$st" -eq 74 ] || { echo "write $at of $n: $st"; cat "$dir/err"; return 1; }
		[ -z "$(ls -A "$dir/o")" ] || { echo "write $at: left"; ls -A "$dir/o"; return 1; }
	done
}

# A program that prints by stdio cannot be reached by the shim: its file may not grow beyond 1,
# 2, ... KiB instead (and its message has to fit into the first).
sweep_text() {	# sweep_text COMMAND...
	local kib size st
	"$@" > "$dir/want"
	size=$((($(wc -c < "$dir/want") + 1023) / 1024))
	for ((kib = 1; kib < size; kib += 1 + size / 10)); do
		st=0
		(
			trap '' XFSZ
			ulimit -f $kib
			exec "$@" > "$dir/got"
		) 2> "$dir/err" || st=$?
		[ "$st" -eq 74 ] || { echo "at $kib KiB: exit $st"; cat "$dir/err"; return 1; }
		grep -q "^$1: .*File too large" "$dir/err" || { cat "$dir/err"; return 1; }
	done
	[ "$size" -ge 2 ]
}

@test "faults: record-acts: each failing write is exit 74 and leaves no file" {
	sweep record-acts -c calib.qp --stats=all tiny
	sweep_output record-acts -c calib.qp --stats=all tiny
}

@test "faults: calib-pack: each failing write is exit 74 and leaves no file" {
	sweep calib-pack --ids ids.txt
	sweep_output calib-pack --ids ids.txt
}

@test "faults: smooth: each failing write is exit 74 and leaves no file" {
	sweep smooth -a 0.5 acts.qp
	sweep_output smooth -a 0.5 acts.qp
}

@test "faults: rtn: each failing write is exit 74 and leaves no file" {
	sweep rtn -b 4 -g 16 acts.qp
	sweep_output rtn -b 4 -g 16 acts.qp
}

@test "faults: gptq: each failing write is exit 74 and leaves no file" {
	sweep gptq -b 4 -g 16 acts.qp
	sweep_output gptq -b 4 -g 16 acts.qp
}

@test "faults: pack-int4: each failing write is exit 74 and leaves no file" {
	sweep pack-int4 rtn.qp
	sweep_output pack-int4 rtn.qp
}

@test "faults: qp-make: each failing write is exit 74 and leaves no file" {
	sweep qp-make acts.txt
	sweep_output qp-make acts.txt
}

@test "faults: qp-dump and qp-ls: a file that cannot grow is exit 74" {
	sweep_text qp-dump acts.qp
	sweep_text qp-ls acts.qp
	sweep_text qp-ls --json acts.qp
}

@test "faults: qp-sum: each failing write is exit 74 and leaves no file" {
	sweep qp-sum acts.qp more.qp
	sweep_output qp-sum acts.qp more.qp
}

@test "faults: qp-forward: each failing write is exit 74 and leaves no file" {
	in=ids.txt
	sweep qp-forward tiny
	sweep_output qp-forward tiny
}

@test "faults: clip, rotate, quant-acts, qwt-fit, pack-int8: each failing write is exit 74" {
	for c in 'clip -g 16 acts.qp' 'rotate -q acts.qp' 'quant-acts acts.qp' 'qwt-fit -q ref.qp' \
		'pack-int8 ref.qp'; do
		sweep_output $c
	done
}

@test "faults: compressed output: each failing write is exit 74 and leaves no file" {
	sweep smooth -a 0.5 -z acts.qp
	sweep_output smooth -a 0.5 -z acts.qp
}

@test "faults: /dev/full is exit 74 at every writer" {
	for c in 'record-acts -c calib.qp tiny' 'calib-pack --ids ids.txt' 'smooth acts.qp' \
		'rtn -g 16 acts.qp' 'gptq -g 16 acts.qp' 'pack-int4 rtn.qp' 'qp-make acts.txt' \
		'qp-dump acts.qp' 'qp-sum acts.qp more.qp' 'qp-ls acts.qp' 'qp-ls --json acts.qp' \
		'qp-forward tiny < ids.txt' "qp-tok -m $MODEL < ids.txt" \
		"eval-ppl --ctx=64 --windows=1 $MODEL < $EVAL" 'qp-cmp acts.qp rtn.qp' \
		"eval-tasks -t $DATA/tasks/piqa.jsonl $MODEL" 'clip -g 16 acts.qp' \
		'rotate -q acts.qp' 'quant-acts acts.qp' 'qwt-fit -q ref.qp' 'pack-int8 ref.qp' \
		'qp-alloc -q --budget=4 -g 16 acts.qp' 'plot-errors --script ref.qp' 'qp-lint tiny'; do
		refuses 74 '.*No space left' sh -c "$c > /dev/full"
	done
	[ -z "$(command -v gnuplot)" ] ||
		refuses 74 '.*No space left' sh -c 'plot-errors ref.qp > /dev/full'
}

# Not below 20 MB, where the dynamic linker fails before us.
in_little_memory() {	# in_little_memory KB COMMAND...: sets st
	st=0
	(
		ulimit -v "$1"
		exec timeout 20 "${@:2}"
	) < ids.txt > "$dir/out" 2> "$dir/err" || st=$?
}

@test "faults: little memory: a computing program exits 0 or 71 with one line, and never hangs" {
	local seen kb j c
	not_with_sanitizers "its shadow memory is no part of the product"
	for c in 'gptq -q -b 4 -g 16 acts.qp' 'rtn -q -b 4 -g 16 acts.qp' 'qp-forward -q tiny' \
		'record-acts -q -c calib.qp --stats=all tiny' \
		"eval-ppl -q --ctx=64 --windows=1 -t $EVAL $MODEL" \
		"eval-ppl -q --ctx=64 --windows=1 -t $EVAL --kl $MODEL $MODEL" \
		"eval-tasks -q -t $DATA/tasks/piqa.jsonl $MODEL"; do
		$c < ids.txt > "$dir/want"
		for j in 1 2 8; do
			seen=
			for kb in 20000 60000 70000 80000 100000 130000 190000 220000 250000 300000 \
				400000 600000 2500000; do
				in_little_memory $kb $c -j $j
				seen="$seen $st"
				case $st in
				0) cmp "$dir/want" "$dir/out" ;;
				71)
					[ "$(wc -l < "$dir/err")" -eq 1 ]
					grep -q "^${c%% *}: .*out of memory" "$dir/err" ;;
				*) echo "$c -j $j in $kb kB: exit $st"; cat "$dir/err"; return 1 ;;
				esac
			done
			[[ $seen =~ ^\ 71.*\ 0$ ]] || { echo "$c -j $j:$seen"; return 1; }
		done
	done
}

@test "faults: little memory does not keep a program from printing its version" {
	not_with_sanitizers "its shadow memory is no part of the product"
	for p in gptq rtn record-acts eval-ppl eval-tasks qp-forward; do
		in_little_memory 40000 $p --version
		[ "$st" -eq 0 ]
	done
}

@test "faults: a closed pipe ends every writer silently, by SIGPIPE" {
	for c in 'record-acts -c calib.qp tiny' 'calib-pack --ids ids.txt' 'smooth acts.qp' \
		'rtn -g 16 acts.qp' 'gptq -g 16 acts.qp' 'pack-int4 rtn.qp' 'qp-make acts.txt' \
		'qp-dump acts.qp' 'qp-sum acts.qp more.qp' 'qp-ls acts.qp' 'clip -g 16 acts.qp' \
		'rotate -q acts.qp' 'quant-acts acts.qp' 'qwt-fit -q ref.qp' 'pack-int8 ref.qp' \
		'qp-alloc -q --budget=4 -g 16 acts.qp' 'plot-errors --script ref.qp' 'qp-lint tiny' \
		"qp-tok -m $MODEL ids.txt" "eval-ppl -q --ctx=64 --windows=1 -t $EVAL $MODEL"; do
		dies_quietly_in_a_closed_pipe $c || { echo "$c"; return 1; }
	done
	dies_quietly_in_a_closed_pipe sh -c 'exec qp-forward tiny < ids.txt'
}

@test "faults: a stage that dies mid-way: every later stage refuses, no output file appears" {
	size=$(wc -c < acts.qp)
	for cut in 0 1 100 $((size / 2)) $((size - 1)); do
		st=0
		head -c "$cut" acts.qp | smooth -a 0.5 2> "$dir/1" | gptq -b 4 -g 16 2> "$dir/2" |
			pack-int4 -o "$dir/q.qp" 2> "$dir/3" || st=$?
		[ "$st" -eq 65 ]
		[ ! -e "$dir/q.qp" ]
		[ -z "$(ls "$dir" | grep -vx '[123]')" ]
		grep -q '^smooth: ' "$dir/1"
		grep -q '^gptq: ' "$dir/2"
		grep -q '^pack-int4: ' "$dir/3"
	done
}

@test "faults: a stage killed by a signal: the next refuses and an older file stays" {
	mkfifo "$dir/fifo"
	echo precious > "$dir/q.qp"
	pack-int4 -o "$dir/q.qp" < "$dir/fifo" 2> "$dir/err" &
	packer=$!
	(
		head -c 3000 rtn.qp
		exec sleep 100
	) > "$dir/fifo" 3>&- &
	writer=$!
	sleep 0.3
	kill -9 $writer
	st=0
	wait $packer || st=$?
	[ "$st" -eq 65 ]
	[ "$(cat "$dir/q.qp")" = precious ]
	[ "$(ls "$dir" | wc -l)" -eq 3 ] # err, fifo, q.qp
}

# rtn in the background, with the reader of its input fifo waiting and its temporary file there.
# Signals are at their defaults: bash starts what runs in the background with some ignored.
start_waiting() {	# start_waiting DIR: sets pid; descriptor 9 is the fifo
	local i
	mkdir "$1"
	[ -p "$dir/fifo" ] || mkfifo "$dir/fifo"
	(
		ulimit -c 0
		exec env --default-signal rtn -b 4 -g 16 -o "$1/out.qp" < "$dir/fifo"
	) 3>&- &
	pid=$!
	exec 9> "$dir/fifo"
	head -c 3000 acts.qp >&9
	for ((i = 0; i < 200; i++)); do
		[ -z "$(ls -A "$1")" ] || return 0
		sleep 0.02
	done
	return 1
}

@test "faults: killed by any signal that can be caught, a program leaves no temporary file" {
	local signals='HUP INT QUIT USR1 USR2 PIPE ALRM TERM STKFLT XCPU VTALRM IO PWR RTMIN RTMAX'
	# The rest belong to a sanitizer, where there is one.
	[ -n "${QP_SAN:-}" ] || signals="$signals ILL TRAP ABRT BUS FPE SEGV SYS PROF"
	for sig in $signals; do
		start_waiting "$dir/o"
		kill -s $sig $pid
		st=0
		wait $pid || st=$?
		exec 9>&-
		[ "$st" -eq $((128 + $(kill -l $sig))) ] || { echo "$sig: exit $st"; return 1; }
		[ -z "$(ls -A "$dir/o")" ] || { echo "$sig: left $(ls -A "$dir/o")"; return 1; }
		rmdir "$dir/o"
	done
}

# Descriptor 2 is a pipe that nobody reads any more; stdout is as it was.
without_a_reader() {	# without_a_reader COMMAND...: sets st
	local fifo=$BATS_TEST_TMPDIR/fifo.$RANDOM
	mkfifo "$fifo"
	exec 8<> "$fifo"
	exec 9> "$fifo"
	exec 8>&-
	st=0
	"$@" 2>&9 9>&- || st=$?
	exec 9>&-
	rm "$fifo"
}

@test "faults: a notice that nobody reads on stderr ends nothing" {
	mkdir "$dir/o"
	without_a_reader record-acts -n 16 -s 512 -o "$dir/o/x.qp" "$MODEL"
	[ "$st" -eq 0 ]
	[ "$(ls -A "$dir/o")" = x.qp ]
	qp-check "$dir/o/x.qp"
	record-acts -n 16 -s 512 "$MODEL" 2> "$dir/err" | cmp - "$dir/o/x.qp"
	[ -s "$dir/err" ] # there was a notice
}

@test "faults: -v with nobody at stderr exits 0" {
	without_a_reader rtn -v -b 4 -g 16 -o "$dir/y.qp" acts.qp
	[ "$st" -eq 0 ]
	cmp "$dir/y.qp" rtn.qp
}

@test "faults: an error with nobody at stderr keeps its exit status" {
	head -c 3000 acts.qp > "$dir/cut.qp"
	without_a_reader rtn -b 4 "$dir/cut.qp" > "$dir/out"
	[ "$st" -eq 65 ]
	without_a_reader rtn -b 99 acts.qp
	[ "$st" -eq 64 ]
	without_a_reader rtn /no/such/file
	[ "$st" -eq 66 ]
}

@test "faults: progress with nobody at stderr ends nothing" {
	mkfifo "$dir/fifo"
	(
		head -c 3000 acts.qp
		sleep 1.2
		tail -c +3001 acts.qp
	) > "$dir/fifo" 3>&- &
	QP_PROGRESS=1 without_a_reader rtn -b 4 -g 16 -o "$dir/y.qp" "$dir/fifo"
	[ "$st" -eq 0 ]
	cmp "$dir/y.qp" rtn.qp
}
