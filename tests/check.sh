#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh [NAME...] - run the tests, all or those named (lint, unit/stream, cli/smooth, ...)
#
# Called by "make check", which builds first.  BUILD is the build tree, SAN the sanitizers it
# was built with, JOBS how many test files run at a time (default 2).  Every file leaves its TAP
# in $BUILD/tap.  The last line printed is the sum, "N passed, M failed" and perhaps
# ", K skipped"; the exit status is that of the sum.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
QP_BIN=$BUILD/bin
QP_SAN=${SAN:-}
QP_SHARED=${QP_SHARED:-$PWD/../shared/data}
PATH=$QP_BIN:$PATH
# A sanitizer's report must not look like an exit status of ours.
ASAN_OPTIONS=exitcode=99:detect_stack_use_after_return=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
UBSAN_OPTIONS=exitcode=99:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
LSAN_OPTIONS=exitcode=99${LSAN_OPTIONS:+:$LSAN_OPTIONS}
TSAN_OPTIONS=exitcode=99${TSAN_OPTIONS:+:$TSAN_OPTIONS}
export BUILD QP_BIN QP_SAN QP_SHARED PATH ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS TSAN_OPTIONS
unset QP_PROGRESS QP_CPU

if [ $# -eq 0 ]; then
	set -- lint
	for f in tests/unit/*.c; do
		[ ! -e "$f" ] || set -- "$@" "unit/$(basename "$f" .c)"
	done
	for f in tests/fuzz/*.c; do
		[ ! -e "$f" ] || set -- "$@" "fuzz/$(basename "$f" .c)"
	done
	for f in tests/*/*.bats; do
		f=${f#tests/}
		[ ! -e "tests/$f" ] || set -- "$@" "${f%.bats}"
	done
fi

rm -rf "$BUILD/tap"
mkdir -p "$BUILD/tap"
st=0
printf '%s\n' "$@" | xargs -n 1 -P "${JOBS:-2}" sh tests/one.sh || st=1

awk '
	/^not ok /             { failed++; next }
	/^ok .*# [Ss][Kk][Ii][Pp]/ { skipped++; next }
	/^ok /                 { passed++ }
	END {
		printf "%d passed, %d failed%s\n", passed, failed,
		       skipped ? ", " skipped " skipped" : ""
		exit failed > 0 || passed == 0
	}' "$BUILD"/tap/*.tap || st=1
exit $st
