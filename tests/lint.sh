#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# lint.sh [BUILD] - the rules of this tree that a script can check, as TAP
#
# Who may include whom, what lib/ may not call, sizes, and that every program has its manual and
# its tests.  BUILD holds the man pages and objects made by "make".  Each rule is a function that
# prints the offences; what it says on stderr is an offence too.
set -u
cd "$(dirname "$0")/.." || exit
BUILD=${1:-build}
n=0 failed=0

product=$(find bin lib formats -name '*.[ch]' | sort)
library=$(find lib formats -name '*.c' ! -path lib/base/cli.c ! -path lib/base/progress.c | sort)
programs=$(find bin -name '*.c' | sort)
scripts=$(find tests pipelines man .ci \( -name '*.sh' -o -name mkman -o -path .ci/run \) | sort)
sources="$(find tests -name '*.[ch]' -o -name '*.bats' -o -name '*.bash' | sort) $product $scripts"

check() {	# check RULE WHAT
	n=$((n + 1))
	offences=$("$1" 2>&1)
	if [ -z "$offences" ]; then
		echo "ok $n - $2"
	else
		failed=$((failed + 1))
		echo "not ok $n - $2"
		printf '%s\n' "$offences" | sed 's/^/#   /'
	fi
}

# "FILE INCLUDED" for every #include.
includes() {
	grep -HoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]*' "$@" /dev/null |
		sed 's/:[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]/ /'
}

# Lines of C without comments and what stands in strings that match a regular expression, as
# "FILE: LINE".
code() {	# code REGEX FILE...
	regex=$1
	shift
	for f; do
		${CC:-cc} -w -fpreprocessed -dD -E -P "$f" |
			sed 's/"\(\\.\|[^"\\]\)*"/""/g' | grep -E "$regex" | sed "s|^|$f: |"
	done
}

include_graph() {
	includes $product | awk '
		BEGIN {
			floor["lib/base"] = 1; floor["lib/data"] = 2; floor["lib/compute"] = 3
			floor["lib/model"] = 4; floor["lib/method"] = 5
			floor["formats"] = 4.5	# above model, beside method
			floor["bin"] = 6
		}
		function room(path) { sub(/\/[^\/]*$/, "", path); return path }
		$2 !~ /^(bin|lib|formats|tests|cuda|pipelines|man)\// { next }
		$1 == "lib/base/cli.c" && room($2) == "lib/data" { next }	# it opens streams
		{ from = floor[room($1)]; to = floor[room($2)] }
		!from || !to || to > from ||
		(room($1) == "lib/method" && room($2) == "formats") {
			print $1 " includes " $2
		}'
}

cli_only_in_bin() {
	includes $(find lib formats -name '*.[ch]') | awk '
		$2 ~ /^lib\/base\/(cli|progress)\.h$/ &&
		$1 !~ /^lib\/base\/(cli|progress)\.c$/ { print $1 " includes " $2 }'
}

third_party() {
	includes $product | awk '
		function only(lib, where) { if ($2 ~ lib && $1 !~ where) print $1 " includes " $2 }
		{
			only("^msgpack", "^lib/data/")
			only("^zstd", "^lib/data/")
			only("^xxh", "^lib/(base/hash|data/)")
			only("^(cblas|lapack|openblas)", "^lib/compute/")
			only("^pcre2", "^lib/data/tokenizer")
			only("^utf8proc", "^lib/data/(tokenizer|pystr)")
			only("^jansson", "^formats/json[.]c$")
			only("^png", "^formats/image_png[.]c$")
			only("^j(peg|error|config|morecfg)", "^formats/image_jpeg[.]c$")
		}'
}

banned() {
	set -- atoi atol atof strtok sprintf vsprintf strcpy strcat gets rand srand system popen \
		alloca
	code "\\b($(echo "$@" | tr ' ' '|'))[[:space:]]*\\(" $product
}

silent_library() {
	set -- printf vprintf puts putchar perror exit _exit quick_exit abort err errx warn warnx
	code "\\b($(echo "$@" | tr ' ' '|'))[[:space:]]*\\(|\\b(stdout|stderr)\\b" $library
}

# Read from the objects; a sanitizer puts data of its own into each, so not there.
no_state() {
	[ -z "${SAN:-}" ] || return 0
	for f in $library; do
		[ -f "$BUILD/${f%.c}.o" ] || continue
		objdump -t "$BUILD/${f%.c}.o" | awk -v f="$f" '
			/[[:space:]]([.]bss|[.]data|[*]COM[*])[[:space:]]/ && $NF !~ /^[.]/ {
				print f ": " $NF
			}'
	done
}

program_length() {
	for f in $programs; do
		l=$(wc -l < "$f")
		[ "$l" -le 200 ] || echo "$f: $l lines"
	done
}

function_length() {
	awk 'FNR == 1 { open = 0 }
		/^\{/ { open = FNR }
		/^\}/ {
			if (open && FNR - open - 1 > 70)
				print FILENAME ":" open ": " FNR - open - 1 " lines"
			open = 0
		}' $(printf '%s\n' $sources | grep '[.][ch]$') /dev/null
}

# A message that a bats test quotes, or its Python, may be longer.
line_length() {
	for f in $sources; do
		expand "$f" | LC_ALL=C.UTF-8 awk -v f="$f" '
			length($0) > (f ~ /[.]bats$/ ? 140 : 100) {
				print f ":" FNR ": " length($0) " columns"
			}
			/[ \t]$/ { print f ":" FNR ": blank at the end" }'
	done
}

licences() {
	for f in $sources; do
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$f"
	done
}

tabs() {
	# the backslashes of a macro may line up, and the lines of a comment
	grep -nE '^(    |	* {8})' $product /dev/null | grep -vE '\\$|:	* +\*'
}

companions() {
	for f in $programs; do
		p=$(basename "$f" .c)
		for s in DESCRIPTION EXAMPLES; do
			grep -q "^\.SH $s" "man/$p.body" 2> /dev/null ||
				echo "man/$p.body: no $s"
		done
		[ -f "tests/cli/$p.bats" ] || echo "tests/cli/$p.bats: missing"
	done
}

manual() {
	for m in "$BUILD"/man/man?/*; do
		[ ! -e "$m" ] || ! command -v mandoc > /dev/null || mandoc -T lint "$m"
		[ ! -e "$m" ] || ! command -v groff > /dev/null || groff -man -ww -z "$m"
	done
}

# bats runs a test under "set -e", which passes over a command after "!": only as the last line
# of a test would its failure count.  "run -1 CMD" asks for that exit status, and counts.
negations() {
	grep -nE '^[[:space:]]*! ' tests/helpers.bash $(printf '%s\n' $sources | grep '[.]bats$')
}

# Not required to be there; where it is, it must be content.
shell() {
	! command -v shellcheck > /dev/null || shellcheck -S warning -e SC2034,SC2046 -s sh $scripts
}

check include_graph    "includes go downwards: bin, formats, method, model, compute, data, base"
check cli_only_in_bin  "only bin, cli.c and progress.c include cli.h and progress.h"
check third_party      "third-party headers stay in their one place"
check banned           "no banned function in bin, lib or formats"
check silent_library   "lib and formats do not print or exit"
check no_state         "lib and formats keep no global state"
check program_length   "no program is longer than 200 lines"
check function_length  "no function is longer than 70 lines"
check line_length      "lines fit 100 columns, in bats 140, and end without blanks"
check licences         "every source names its licence"
check tabs             "C is indented by tabs"
check companions       "every program has a manual body and a bats file"
check manual           "the manual renders without a warning"
check negations        "no assertion of a bats test begins with !, which fails nothing"
check shell            "shell scripts pass shellcheck"
echo "1..$n"
[ $failed -eq 0 ]
