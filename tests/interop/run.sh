#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh - make interop: what other people's programs make of our files
#
# Every other *.sh here is a test: it runs with our programs in PATH, the packages of
# requirements.txt under $PYTHON, a folder of its own in $OUT, and prints TAP.  Not in make check:
# PyTorch is large.  The virtual environment stays in $BUILD/interop.
#
# PYTHON3        the Python that the environment is made with (default: python3)
# INTEROP_SITE   a folder of packages to be used before any is fetched, as a machine's PyTorch
# QP_SHARED      the data that tests use; what is missing there is skipped
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
work=$BUILD/interop
wants=$root/tests/interop/requirements.txt
PATH=$BUILD/bin:$PATH
PYTHON=$work/venv/bin/python
QP_SHARED=${QP_SHARED:-$root/../shared/data}
PYTHONDONTWRITEBYTECODE=1
export BUILD PATH PYTHON QP_SHARED PYTHONDONTWRITEBYTECODE

fetch() {
	rm -rf "$work/venv"
	mkdir -p "$work"
	"${PYTHON3:-python3}" -m venv "$work/venv" || return 1
	[ -z "${INTEROP_SITE:-}" ] || echo "$INTEROP_SITE" > \
		"$("$PYTHON" -c 'import site; print(site.getsitepackages()[0])')/interop.pth"
	"$PYTHON" -m pip install -q --disable-pip-version-check -r "$wants" || return 1
	cp "$wants" "$work/venv/fetched"
}

if ! cmp -s "$wants" "$work/venv/fetched" && ! fetch > "$work.log" 2>&1; then
	mkdir -p "$work" && mv "$work.log" "$work/pip.log"
	echo "interop: pip cannot fetch tests/interop/requirements.txt ($work/pip.log)" >&2
	exit 69
fi
rm -f "$work.log"
failed=0
for t in "$root"/tests/interop/*.sh; do
	[ "$t" != "$root/tests/interop/run.sh" ] || continue
	OUT=$work/$(basename "$t" .sh)
	rm -rf "$OUT"
	mkdir -p "$OUT"
	echo "# $(basename "$t")"
	OUT=$OUT sh "$t" || failed=1
done
exit $failed
