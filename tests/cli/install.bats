#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# install.bats - make install, and what it put there works without the build tree

setup() {
	load ../helpers
	cd "$BATS_TEST_TMPDIR"
}

# What is built stays as it is (-o all): other tests are using it.
install_in() {	# install_in TARGET
	make -s -C "$ROOT" -o all BUILD="${BUILD:-build}" DESTDIR="$PWD/dest" PREFIX=/opt/qp "$1" \
		MAKEFLAGS=
}

@test "install: DESTDIR and PREFIX are obeyed, pages and calibration text are there" {
	install_in install
	[ "$(ls dest)" = opt ]
	diff <(ls dest/opt/qp/bin) <(cd "${QP_BIN:-$ROOT/build/bin}" && ls)
	for p in dest/opt/qp/bin/*; do
		[ -x "$p" ]
		[ -s "dest/opt/qp/share/man/man1/${p##*/}.1" ]
	done
	[ -s dest/opt/qp/share/man/man5/quantpipe-stream.5 ]
	[ -s dest/opt/qp/share/man/man7/quantpipe.7 ]
	cmp "$ROOT/man/calibration.txt" dest/opt/qp/share/quantpipe/calibration.txt
}

@test "install: installed programs find the calibration text beside them" {
	install_in install
	mv dest/opt/qp elsewhere
	PATH=$PWD/elsewhere/bin:/usr/bin:/bin
	record-acts -n 2 -s 32 "$MODEL" 2> err | gptq | pack-int4 > q.bin
	qp-check q.bin
	grep -q '^record-acts: ' err # it says which text it took
	rm elsewhere/share/quantpipe/calibration.txt
	refuses 66 '.*calibration\.txt' record-acts -n 2 -s 32 "$MODEL"
}

@test "install: uninstall leaves no file behind" {
	install_in install
	install_in uninstall
	[ -z "$(find dest -type f)" ]
}
