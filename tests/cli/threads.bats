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

# Run record-acts into a pipe that nobody reads, and when it has computed a block and waits print
# the milliseconds that its threads beyond the first ran, all together.  "taken": a process of
# this group has all tokens; "apart": of another group.
helpers_ran() {	# helpers_ran taken|apart|free [OPTION...]
	/usr/bin/python3 - "$MODEL" "$@" <<-'END'
		import fcntl, os, signal, subprocess, sys, time
		model, how, options = sys.argv[1], sys.argv[2], sys.argv[3:]
		name = "%s/quantpipe-%d" % (os.environ["XDG_RUNTIME_DIR"], os.geteuid())
		group = os.getpgrp() if how == "taken" else 1 << 22
		with open(name, "a+b") as tokens:
		    if how != "free":
		        fcntl.lockf(tokens, fcntl.LOCK_EX | fcntl.LOCK_NB, 4096, group * 4096)
		    p = subprocess.Popen(["record-acts", "-q", "-c", "calib.qp", *options, model],
		                         stdout=subprocess.PIPE)
		    fcntl.fcntl(p.stdout, fcntl.F_SETPIPE_SZ, 4096)
		    def ran(tid):
		        try:
		            with open("/proc/%d/task/%s/schedstat" % (p.pid, tid)) as f:
		                return int(f.read().split()[0]) / 1e6
		        except OSError:
		            return 0
		    last, still = None, 0
		    while still < 40:
		        time.sleep(0.05)
		        now = {t: ran(t) for t in os.listdir("/proc/%d/task" % p.pid)}
		        still = still + 1 if now == last and now[str(p.pid)] > 20 else 0
		        last = now
		        # reading on brings the next block
		        if still == 20 and now[str(p.pid)] < 200:
		            os.read(p.stdout.fileno(), 4 << 20)
		            still = 0
		    p.kill()
		    p.wait()
		    print(int(sum(v for t, v in last.items() if t != str(p.pid))))
	END
}

@test "threads: where a neighbour has all tokens a program computes with one thread" {
	ran=$(helpers_ran taken)
	echo "helpers ran $ran ms"
	[ "$ran" -le 3 ]
}

@test "threads: tokens of another process group are others' tokens" {
	ran=$(helpers_ran apart)
	echo "helpers ran $ran ms"
	[ "$ran" -ge 10 ]
}

@test "threads: --threads=2 takes no part in the sharing" {
	ran=$(helpers_ran taken -j 2)
	echo "helpers ran $ran ms"
	[ "$ran" -ge 10 ]
}

@test "threads: what a pipeline writes does not depend on who has the tokens" {
	job() { record-acts -q -c calib.qp "$@" "$MODEL" | gptq -q -b 4 -g 64 "$@" | pack-int4 -q; }
	job > shared.qp
	job -j 1 > one.qp
	cmp shared.qp one.qp
	[ -f "run/quantpipe-$(id -u)" ] && [ ! -s "run/quantpipe-$(id -u)" ]
}

@test "threads: a stage that was killed leaves its tokens to the others" {
	record-acts -q -c calib.qp "$MODEL" > /dev/null &
	sleep 0.1
	kill -KILL $!
	wait $! || true
	ran=$(helpers_ran free)
	echo "helpers ran $ran ms"
	[ "$ran" -ge 10 ]
}
