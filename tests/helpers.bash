# SPDX-License-Identifier: Apache-2.0
# helpers.bash - what every .bats file shares: "load ../helpers" at its top or in setup
#
# Paths:   $ROOT     the checkout           $DATA    tests/data
#          $MODEL    the small model shipped in tests/data (HF directory, bf16)
#          $EVAL     its evaluation text    $CALIB   its calibration text
#          $PYTHON   a python3 with msgpack and numpy
#          $SHARED   a folder of further models and texts, often absent: call need_shared first

bats_require_minimum_version 1.5.0

ROOT=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
DATA=$ROOT/tests/data
MODEL=$DATA/TinyStories-656K
EVAL=$DATA/tinystories-eval.txt
CALIB=$DATA/tinystories-calib.txt
SHARED=${QP_SHARED:-$ROOT/../shared/data}
PYTHON=${PYTHON:-/usr/bin/python3}
PATH=${QP_BIN:-$ROOT/build/bin}:$PATH

# A filter must fail in a controlled way: the given exit status, and a message in house form,
# "program: ...", on stderr.  A crash, a signal or a sanitizer report has another status and so
# fails the test.
refuses() {	# refuses STATUS REGEX COMMAND...
	local want=$1 regex=$2
	shift 2
	run --separate-stderr "-$want" "$@"
	[[ $stderr =~ ^[a-z0-9-]+:\ $regex ]] || { echo "stderr was: $stderr"; return 1; }
}

# Every proper prefix of FILE is a truncated stream and must be refused with 65.  All lengths of
# a short file; of a longer one the first 150, the last 50 and 150 between, spread evenly.
refuses_every_prefix() {	# refuses_every_prefix FILE FILTER [ARG...]
	local file=$1 size n st step
	shift
	size=$(wc -c < "$file")
	step=$(((size - 200) / 150 + 1))
	for ((n = 0; n < size; n += (n < 150 || n >= size - 50 ? 1 : step))); do
		((n <= 150 || n >= size - 50 || n + step < size - 50)) || n=$((size - 50))
		st=0
		head -c "$n" "$file" | "$@" > "$BATS_TEST_TMPDIR/prefix.out" \
			2> "$BATS_TEST_TMPDIR/prefix.err" || st=$?
		[ "$st" -eq 65 ] || {
			echo "$n of $size bytes: exit $st"
			cat "$BATS_TEST_TMPDIR/prefix.err"
			return 1
		}
	done
}

# COMMAND writes OUT.  Of each of its writes in turn (25 of them, spread evenly, and the last) the
# disk turns one bit over: it must notice, and leave nothing.
notices_every_flip() {	# notices_every_flip OUT COMMAND [ARG...]
	local to=$1 shim=${BUILD:-$ROOT/build}/shim/flipbit.so n at st=0 step
	shift
	LD_PRELOAD=$shim FLIP_COUNT=$BATS_TEST_TMPDIR/flips "$@"
	[ -e "$to" ]
	rm -r "$to"
	n=$(cat "$BATS_TEST_TMPDIR/flips")
	[ "$n" -gt 5 ]
	step=$((n / 25 + 1))
	for ((at = 1; at <= n; at += (at < n && at + step > n ? n - at : step))); do
		st=0
		LD_PRELOAD=$shim FLIP_AT=$at "$@" 2> "$BATS_TEST_TMPDIR/flip.err" || st=$?
		[ "$st" -eq 74 ] || [ "$st" -eq 70 ] || {
			echo "write $at of $n: exit $st"
			cat "$BATS_TEST_TMPDIR/flip.err"
			return 1
		}
		[ ! -e "$to" ] || { echo "write $at of $n: $to is there"; return 1; }
	done
}

# COMMAND writes into a pipe that nobody reads any more: it must die of SIGPIPE without a word,
# also when its parent ignores the signal.  No race: the reader is gone before COMMAND starts.
# COMMAND is a program with its arguments (input by operand or "sh -c 'prog < file'").
dies_quietly_in_a_closed_pipe() {	# dies_quietly_in_a_closed_pipe COMMAND...
	local fifo=$BATS_TEST_TMPDIR/fifo.$RANDOM err=$BATS_TEST_TMPDIR/pipe.err how st
	for how in default ignored; do
		mkfifo "$fifo"
		exec 8<> "$fifo"
		exec 9> "$fifo"
		exec 8>&-
		st=0
		(
			if [ "$how" = ignored ]; then trap '' PIPE; fi
			exec "$@" >&9 9>&-
		) 2> "$err" || st=$?
		exec 9>&-
		rm "$fifo"
		[ "$st" -eq 141 ] || { echo "SIGPIPE $how: exit $st"; cat "$err"; return 1; }
		[ ! -s "$err" ] || { echo "SIGPIPE $how, it said:"; cat "$err"; return 1; }
	done
}

# The stage before died after BYTES bytes of FILE: the filter refuses and leaves no output file,
# neither under the asked name nor under a temporary one.
refuses_a_cut_pipe() {	# refuses_a_cut_pipe FILE BYTES FILTER [ARG...]
	local file=$1 bytes=$2 dir=$BATS_TEST_TMPDIR/cut st=0
	shift 2
	mkdir -p "$dir"
	head -c "$bytes" "$file" | "$@" -o "$dir/out.qp" 2> "$BATS_TEST_TMPDIR/cut.err" || st=$?
	[ "$st" -eq 65 ] || { echo "exit $st"; cat "$BATS_TEST_TMPDIR/cut.err"; return 1; }
	[ -z "$(ls -A "$dir")" ] || { echo "left behind: $(ls -A "$dir")"; return 1; }
}

# Change one byte of FILE (xor 1, or MASK) at OFFSET into the file OUT.
flip() {	# flip FILE OFFSET OUT [MASK]
	local byte
	cp "$1" "$3"
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	printf "\\x$(printf %x $((byte ^ ${4:-1})))" |
		dd of="$3" bs=1 seek="$2" conv=notrunc status=none
}

# COMMAND with a terminal as its standard input or output ("in" or "out"); what it writes to its
# other streams, and its status, are passed on.
with_a_terminal() {	# with_a_terminal in|out COMMAND...
	"$PYTHON" -c '
import os, pty, subprocess, sys
master, slave = pty.openpty()
which = {"in": "stdin", "out": "stdout"}[sys.argv[1]]
st = subprocess.run(sys.argv[2:], **{which: slave}).returncode
sys.exit(st if st >= 0 else 128 - st)' "$@"
}

# The peak that a program's -v wrote into FILE is within 20 % of BYTES, both ways: the formula on
# the man page bounds, and does not merely bound.
peak_is() {	# peak_is FILE BYTES
	awk -v want="$2" '
		{ for (i = 1; i < NF; i++) if ($i == "peak") got = 1048576 * $(i + 1) }
		END { printf "%s: peak %.1f MiB, formula %.1f\n", FILENAME, got / 1048576,
			     want / 1048576
		      exit !(0.8 * want < got && got < 1.2 * want) }' "$1"
}

# What peak_is wants, in the working folder: a model m whose blocks outweigh the programs, and its
# statistics acts.qp.  Sets widths D and F, parameters P of a block, bytes H of its Hessians, MiB.
heavy_model() {	# heavy_model [D F]
	D=${1:-768} F=${2:-2112} MiB=1048576
	P=$((3 * D * D + 3 * D * F + 2 * D)) H=$((6 * D * (D + 1) + 2 * F * (F + 1)))
	need_python numpy
	"$PYTHON" "$ROOT/tests/mkmodel.py" m hidden=$D ffn=$F heads=12 kv=6 vocab=9000 dtype=BF16
	seq -s ' ' 3 17 6000 | calib-pack -q --ids | record-acts -q -c /dev/stdin m > acts.qp
}

# A quantized stream as it was written once: the dequantized weight before its codes.
weights_first() {	# weights_first [IN]
	qp-dump "$@" | awk '
		/^[^ ]/ { keep = $2 == name && ($3 == "role=scale" || $3 == "role=zero")
			  if ($3 == "role=codes") { name = $2; keep = 1 }
			  else if (!keep && ($2 != name || $3 != "role=weight")) {
				for (i = 0; i < n; i++) print held[i]
				n = 0; name = "" } }
		keep { held[n++] = $0; next }
		{ print }' | qp-make
}

# Skip, visibly, a test that wants what is not in the tree.
need_shared() {	# need_shared PATH...  (below $SHARED)
	local p
	for p; do
		[ -e "$SHARED/$p" ] || skip "no $p: set QP_SHARED to the folder that has it"
	done
}

need_python() {	# need_python MODULE...
	local m
	for m; do
		"$PYTHON" -c "import $m" 2> /dev/null || skip "$PYTHON has no module $m"
	done
}

need_terminals() {
	"$PYTHON" -c 'import pty; pty.openpty()' 2> /dev/null || skip "no pseudo-terminals here"
}

# A sanitizer build cannot be preloaded, measured for memory, or timed.
not_with_sanitizers() {
	[ -z "${QP_SAN:-}" ] || skip "not in a sanitizer build: $1"
}
