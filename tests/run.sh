#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [NAME...] - install what is missing, build, run all tests (or those named)
#
# SAN=address,undefined sh tests/run.sh    the same, instrumented, in a build tree of its own
#
# The last line is "N passed, M failed", perhaps with ", K skipped"; the exit status is not 0
# when anything failed.
set -eu
cd "$(dirname "$0")/.."
. pipelines/setup.sh
setup_packages $BUILD_PACKAGES $TEST_PACKAGES

SAN=${SAN:-}
BUILD=${BUILD:-build${SAN:+/$(printf '%s' "$SAN" | tr , -)}}
export SAN BUILD
if ! setup_build SAN="$SAN" BUILD="$BUILD" all tests; then
	echo "0 passed, 1 failed"
	exit 1
fi
exec sh tests/check.sh "$@"
