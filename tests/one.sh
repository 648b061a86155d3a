#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# one.sh NAME - run one test file for check.sh; its TAP goes to $BUILD/tap
#
# Prints one line, and what failed.  A file that crashes, hangs or stops before its plan is
# fulfilled gets a "not ok" line of its own, so that it cannot pass unseen.
set -u
name=$1
tap=$BUILD/tap/$(printf '%s' "$name" | tr / -).tap

case $name in
lint)   set -- sh tests/lint.sh "$BUILD" ;;
unit/*) set -- "$BUILD/unit/${name#unit/}" ;;
fuzz/*) set -- "$BUILD/fuzz/${name#fuzz/}" $(sed -n "s|^${name#fuzz/} ||p" tests/fuzz/seeds) ;;
*)      set -- bats --tap "tests/$name.bats" ;;
esac
start=$(date +%s)
timeout -k 10 "${TEST_TIMEOUT:-900}" "$@" > "$tap" 2> "$tap.err"
st=$?

passed=$(grep -c '^ok ' "$tap")
failed=$(grep -c '^not ok ' "$tap")
skipped=$(grep -ci '^ok .*# skip' "$tap")
plan=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$tap" | tail -n 1)
ran=$((passed + failed))
if [ "${plan:-none}" != "$ran" ] || { [ $st -ne 0 ] && [ "$failed" -eq 0 ]; }; then
	echo "not ok $((ran + 1)) - $name: status $st after $ran of ${plan:-?} tests" >> "$tap"
	failed=$((failed + 1))
fi

line=$(printf '%-24s %4d passed' "$name" $((passed - skipped)))
[ "$failed" -eq 0 ] || line="$line, $failed FAILED"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line, $(($(date +%s) - start)) s"
[ "$failed" -eq 0 ] && exit 0
# The failed tests with what they said; then what the program itself said.
sed -n '/^not ok/,/^\(ok\|1\.\.\)/{/^\(ok\|1\.\.\)/!p;}' "$tap" | sed 's/^/    /' | head -n 200
sed 's/^/    /' "$tap.err" | head -n 60
exit 1
