# SPDX-License-Identifier: Apache-2.0
# setup.sh - sourced by demo.sh and tests/run.sh: packages that are missing, then the build
#
# For Debian 12 and later and its children.  Elsewhere the packages are for you to install.

BUILD_PACKAGES="gcc libc6-dev make pkgconf libmsgpack-c-dev libzstd-dev libopenblas-dev
	libxxhash-dev libjansson-dev libpcre2-dev libutf8proc-dev libpng-dev libjpeg-dev"
TEST_PACKAGES="bats mandoc groff-base python3 python3-msgpack python3-numpy zstd gnuplot-nox"

# setup_packages PACKAGE... - install those that are missing, or say how and exit 69
setup_packages() {
	if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
		echo "not a Debian system: taking for granted what these packages have: $*" >&2
		return 0
	fi
	setup_missing=
	for p in "$@"; do
		# The C library of msgpack has another name before Debian 13.
		if [ "$p" = libmsgpack-c-dev ] && setup_old; then
			p=libmsgpack-dev
		fi
		dpkg-query -W -f '${Status}\n' "$p" 2> /dev/null | grep -q ' ok installed' ||
			setup_missing="$setup_missing $p"
	done
	[ -n "$setup_missing" ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		echo "missing:$setup_missing" >&2
		echo "As root, run:" >&2
		echo "    apt-get update &&" \
			"apt-get install -y --no-install-recommends$setup_missing" >&2
		exit 69
	fi
	echo "installing:$setup_missing"
	export DEBIAN_FRONTEND=noninteractive
	setup_log=$(mktemp)
	if ! { apt-get update -qq &&
		apt-get install -y -qq --no-install-recommends $setup_missing; } \
		> "$setup_log" 2>&1; then
		cat "$setup_log" >&2
		rm -f "$setup_log"
		echo "apt-get could not install:$setup_missing" >&2
		exit 69
	fi
	rm -f "$setup_log"
}

# Debian 12, Ubuntu 22.04 and what is made of them.
setup_old() {
	(
		. /etc/os-release
		case ${ID:-}-${VERSION_ID:-} in
		debian-12* | ubuntu-22*) exit 0 ;;
		esac
		exit 1
	)
}

# setup_build TARGET... - make; what make says is shown only if it fails
setup_build() {
	printf 'building ... '
	setup_log=$(mktemp)
	if ! make -s -j "$(nproc)" "$@" > "$setup_log" 2>&1; then
		echo failed
		cat "$setup_log" >&2
		rm -f "$setup_log"
		return 1
	fi
	rm -f "$setup_log"
	echo "done"
}
