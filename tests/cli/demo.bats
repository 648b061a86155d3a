#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# demo.bats - the first command of the README, and the set-up that it shares with the tests

setup() {
	load ../helpers
	cd "$BATS_TEST_TMPDIR"
	export BUILD=${BUILD:-$ROOT/build}
	# Everything is built; to build again under the other tests' feet would be wrong.
	mkdir bin
	printf '#!/bin/sh\n' > bin/make
	chmod +x bin/make
	PATH=$PWD/bin:$PATH
}

# Field 2 of the row that begins with the given words.
ppl() { sed -n "s/^$1  *\([0-9.]*\) .*/\1/p" table; }
bytes() { sed -n "s/^$1  *[0-9.]*  *\([0-9]*\) .*/\1/p" table; }

@test "demo: prints perplexity, bytes and time of four rows, in the order one expects" {
	mkdir tmp
	TMPDIR=$PWD/tmp sh "$ROOT/pipelines/demo.sh" > table
	cat table
	[ "$(ppl 'full precision')" = 42.6037 ]
	[ "$(bytes 'full precision')" -eq 1314128 ]
	for row in 'RTN, 4 bits' 'GPTQ, 4 bits' 'smooth, GPTQ, 4 bits'; do
		awk -v p="$(ppl "$row")" 'BEGIN { exit !(p > 42.7 && p < 50) }'
		[ "$(bytes "$row")" -lt 900000 ]
		grep -qE "^$row .* [0-9]+\.[0-9]+ s$" table
	done
	awk -v g="$(ppl 'GPTQ, 4 bits')" -v r="$(ppl 'RTN, 4 bits')" 'BEGIN { exit !(g < r) }'
	grep -q '^record-acts .* | smooth --alpha=0.5 | gptq --bits=4 | pack-int4 > smooth.qp$' table
	[ -z "$(ls -A tmp)" ]
	# What is printed last runs as it stands, and makes that model.
	sed -n '/^MODEL=/,$p' table > again.sh
	sh -e again.sh
	[ "$(wc -c < smooth.qp)" -eq "$(bytes 'smooth, GPTQ, 4 bits')" ]
	eval-ppl -q -c 512 --json smooth.qp < "$EVAL" > again
	awk -F '[:,]' -v p="$(ppl 'smooth, GPTQ, 4 bits')" '
		{ exit !($2 > p - 1e-4 && $2 < p + 1e-4) }' again
}

@test "demo: takes another model and other texts" {
	head -c 20000 "$CALIB" > eval.txt
	cp -r "$MODEL" model
	sh "$ROOT/pipelines/demo.sh" model "$CALIB" eval.txt > table
	[ "$(ppl 'full precision')" != 42.6037 ]
	[ -n "$(ppl 'smooth, GPTQ, 4 bits')" ]
}

@test "demo: the wrong number of operands exits 64" {
	run -64 sh "$ROOT/pipelines/demo.sh" model
	[[ $output == usage:* ]]
}

@test "demo: a step that fails stops it with the step's status, and cleans up" {
	mkdir empty tmp
	export TMPDIR=$PWD/tmp
	run --separate-stderr -66 sh "$ROOT/pipelines/demo.sh" empty "$CALIB" "$EVAL"
	[[ $stderr == *"eval-ppl: "* ]]
	[ -z "$(ls -A tmp)" ]
}

@test "set-up: without root it prints the exact command and exits 69" {
	command -v dpkg-query > /dev/null || skip "not a Debian system"
	cat > try.sh <<-'END'
		. "$ROOT/pipelines/setup.sh"
		id() { echo 1000; }
		setup_packages libc6 no-such-package another
	END
	ROOT=$ROOT run -69 sh try.sh
	[[ $output == *"missing: no-such-package another"* ]]
	[[ $output == *"apt-get install -y --no-install-recommends no-such-package another"* ]]
}

@test "set-up: what is installed is not asked for again" {
	command -v dpkg-query > /dev/null || skip "not a Debian system"
	ROOT=$ROOT run -0 sh -c '. "$ROOT/pipelines/setup.sh"; setup_packages libc6 dpkg'
	[ -z "$output" ]
}

# The runner: a test that cannot fail would be worth nothing.
runner() {	# runner SCRIPT: what one.sh makes of a unit test that does this
	mkdir -p b/unit b/tap
	printf '#!/bin/sh\n%s\n' "$1" > b/unit/x
	chmod +x b/unit/x
	BUILD=$PWD/b run sh "$ROOT/tests/one.sh" unit/x
}

@test "runner: crashes, short plans, silence and failures do not pass" {
	runner 'echo ok 1 - a; echo 1..1'
	[ "$status" -eq 0 ]
	runner 'echo ok 1 - a; kill -SEGV $$'
	[ "$status" -eq 1 ]
	grep -q '^not ok 2 ' b/tap/unit-x.tap
	runner 'echo 1..2; echo ok 1 - a'
	[ "$status" -eq 1 ]
	runner 'exit 0'
	[ "$status" -eq 1 ]
	runner 'echo ok 1 - a; echo 1..1; exit 3'
	[ "$status" -eq 1 ]
	runner 'echo not ok 1 - a; echo 1..1; exit 1'
	[ "$status" -eq 1 ]
	[ "$(grep -c '^not ok' b/tap/unit-x.tap)" -eq 1 ]
}
