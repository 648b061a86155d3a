#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# threads.bats - programs of one process group share the processors

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	[ "$(nproc)" -ge 2 ] || skip "one processor"
	mkdir run
	export XDG_RUNTIME_DIR=$PWD/run
	for i in 1 2 3 4 5 6 7 8; do
		awk -v m="$i" 'BEGIN { for (t = 0; t < 512; t++) printf "%d ", (t * t * m + t) % 2000
			print "" }'
	done | calib-pack -q --ids > calib.qp
}

# Run record-acts and, while more than a pipe holds is unread, so that it cannot have ended, print the
# milliseconds that its threads beyond the first ran so far, all together.  "taken": a process of this
# group has all tokens; "apart": of another group; "free": nobody.
helpers_ran() {	# helpers_ran taken|apart|free [OPTION...]
	[ -s size ] || record-acts -q -c calib.qp "$MODEL" | wc -c > size
	timeout --foreground 60 /usr/bin/python3 - "$MODEL" "$(cat size)" "$@" <<-'END'
		import fcntl, os, subprocess, sys
		model, size, how, options = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
		name = "%s/quantpipe-%d" % (os.environ["XDG_RUNTIME_DIR"], os.geteuid())
		group = os.getpgrp() if how == "taken" else 1 << 22
		with open(name, "a+b") as tokens:
		    if how != "free":
		        fcntl.lockf(tokens, fcntl.LOCK_EX | fcntl.LOCK_NB, 4096, group * 4096)
		    p = subprocess.Popen(["record-acts", "-q", "-c", "calib.qp", *options, model],
		                         stdout=subprocess.PIPE, bufsize=0)
		    left = size - (1 << 20) - (1 << 16)
		    while left > 0:
		        left -= len(p.stdout.read(left))
		    ran = 0
		    for tid in os.listdir("/proc/%d/task" % p.pid):
		        if tid != str(p.pid):
		            with open("/proc/%d/task/%s/schedstat" % (p.pid, tid)) as f:
		                ran += int(f.read().split()[0])
		    p.kill()
		    p.wait()
		    print(ran // 1000000)
	END
}

# In one of a few runs: on a busy machine a thread may wake up when all is done.
helped() {
	for i in 1 2 3 4 5 6; do
		ran=$(helpers_ran "$@")
		echo "helpers ran $ran ms"
		[ "$ran" -lt 5 ] || return 0
	done
	return 1
}

@test "threads: where a neighbour has all tokens a program computes with one thread" {
	ran=$(helpers_ran taken)
	echo "helpers ran $ran ms"
	[ "$ran" -le 3 ]
}

@test "threads: tokens of another process group are others' tokens" {
	helped apart
}

@test "threads: --threads=2 takes no part in the sharing" {
	helped taken -j 2
}

@test "threads: what a pipeline writes does not depend on who has the tokens" {
	job() { record-acts -q -c calib.qp "$@" "$MODEL" | gptq -q -b 4 -g 64 "$@" | pack-int4 -q; }
	job > shared.qp
	job -j 1 > one.qp
	cmp shared.qp one.qp
	[ -f "run/quantpipe-$(id -u)" ] && [ ! -s "run/quantpipe-$(id -u)" ]
}

@test "threads: a stage that was killed leaves its tokens to the others" {
	mkfifo full
	exec 9<> full	# nobody reads: the stage cannot end before it is killed
	record-acts -q -c calib.qp "$MODEL" > full 9>&- &
	sleep 0.1
	kill -KILL $!
	wait $! || true
	exec 9>&-
	helped free
}
