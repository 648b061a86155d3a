#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-make.bats - streams from text

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	kinds=$DATA/streams/kinds.txt
}

# A stream of one record more than the header, written on standard input.
make_one() {
	{ echo 'stream v=[1,0] prov=[]'; cat; echo end; } | qp-make > one.qp
}

H=$'stream v=[1,0]\n'

# The text on standard input is refused: status 65, "qp-make: line LINE: REGEX", and what was
# written by then is no stream.
bad() {	# bad LINE REGEX
	cat > bad.txt
	refuses 65 "line $1: $2" sh -c 'qp-make bad.txt > bad.qp'
	refuses 65 '' qp-check bad.qp
}

@test "qp-make: every kind of record, dtype and value comes back from qp-dump as it was written" {
	qp-make "$kinds" > kinds.qp
	qp-dump kinds.qp > again.txt
	grep -v '^#' "$kinds" | diff -u - again.txt
	qp-make again.txt | cmp - kinds.qp
	qp-check kinds.qp
}

@test "qp-make: Python's msgpack reads what it writes: headers, payloads, sizes, chunks" {
	need_python msgpack
	qp-make "$kinds" > kinds.qp
	"$PYTHON" - kinds.qp <<- 'EOF'
	import msgpack, struct, sys
	items = list(msgpack.Unpacker(open(sys.argv[1], 'rb'), strict_map_key=False,
	                              unicode_errors='surrogateescape'))
	i, recs = 0, {}
	while i < len(items):
	    head = items[i]
	    n = head.get('chunks', 0)
	    data = b''.join(items[i + 1:i + 1 + n])
	    assert len(data) == head.get('nbytes', 0), head
	    recs.setdefault(head.get('name', head['t']), []).append((head, data))
	    i += 1 + n
	assert items[-1]['t'] == 'end'
	assert items[-1]['records'] == sum(len(v) for v in recs.values()) - 1
	def one(name): return recs[name][0]
	assert struct.unpack('<3f', one('model.norm.weight')[1])[:2] == (1, -0.1875)
	assert struct.unpack('<3q', one('i64')[1]) == (-2**63, -1, 2**63 - 1)
	assert struct.unpack('<8H', one('bf16')[1])[5:] == (0x7fc0, 0xffc0, 0xff81)
	assert struct.unpack('<8H', one('f16')[1]) == (1, 0xfbff, 0x8000, 0x7c00, 0xfc00,
	                                               0x7e00, 0xfe00, 0x7c01)
	# 3 bits, lowest first: 0 1 2 -> 0b010_001_000, padded to 16
	assert one('u3')[1] == bytes([0b10001000, 0, 0b01110111, 0b1])
	assert one('u2')[1] == bytes([0b100100, 0b111111])
	assert one('config.json')[1].decode() == '{"model_type": "llama",\n\t"é": 1}'
	m = one('bytes')[0]
	assert m['bin'] == b'\x00\xff' and m['ext1'] == msgpack.ExtType(5, b'\x01')
	assert one('floats')[0]['single'] == struct.unpack('f', struct.pack('f', 0.1))[0]
	assert list(one('nested')[0]['map']) == ['x', 2, None, b'\x02', 'y']
	assert recs['stream'][0][0]['prov'][1]['options'] == ['--alpha=0.5']
	EOF
}

@test "qp-make: V*N repeats, decimals round half to even, comments and blank lines are nothing" {
	make_one <<- 'EOF'
	# a comment

	tensor a dtype=F16 shape=[2,3]   # behind a header
	 1*5 # behind values

	 0.1
	tensor b dtype=BF16 shape=[4]
	 0x1.01p+0 0x1.03p+0 0x1.0100000000001p+0 1e-45
	tensor c dtype=U4 shape=[2,3]
	 15*3 0*2 7
	tensor d dtype=F32 shape=[2]
	 0.1 16777217
	EOF
	qp-dump one.qp > out
	grep -A 1 '^tensor a' out | grep -qx ' 0x1p+0 0x1p+0 0x1p+0'
	grep -qx ' 0x1p+0 0x1p+0 0x1.998p-4' out
	grep -qx ' 0x1p+0 0x1.04p+0 0x1.02p+0 0x0p+0' out
	grep -qx ' 15 15 15' out
	grep -qx ' 0 0 7' out
	grep -qx ' 0x1.99999ap-4 0x1p+24' out
}

@test "qp-make: bytes by h'' do for every dtype, strings for files" {
	make_one <<- 'EOF'
	tensor a dtype=F32 shape=[2]
	 h'0000803f' h'000000c0'
	tensor u dtype=U4 shape=[1,3]
	 h'2103'
	file f.txt
	 "a\u00e9\ud83d\ude00\udbff\udfff" h'0a' "b\/\b\f\x62"
	EOF
	qp-dump one.qp > out
	grep -qx ' 0x1p+0 -0x1p+1' out
	grep -qx ' 1 2 3' out
	grep -q "h'61c3a9f09f9880f48fbfbf0a622f080c62'" out
}

@test "qp-make: a header may run over lines inside brackets" {
	qp-make > a.qp <<- 'EOF'
	stream prov=[] config={ # open
	 "a" : [ 1 ,
	2 ] ,

	"b":{}} v=[1,0]
	end
	EOF
	printf 'stream prov=[] config={"a":[1,2],"b":{}} v=[1,0]\nend\n' | qp-make | cmp - a.qp
}

@test "qp-make: integers and strings get their shortest encoding" {
	need_python msgpack
	{
		printf 'note n list=[127,128,255,256,65535,65536,4294967295,4294967296,-32,-33,'
		printf '%s' '-128,-129,-32768,-32769,-2147483648,-2147483649,'
		printf '"%031d","%032d","%0255d","%0256d",' 0 0 0 0
		printf "h'%0512d',h'%0510d',[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]," 0 0
		printf "ext(1,h'0102'),ext(1,h'010203')]\n"
	} | make_one
	"$PYTHON" -c "
import msgpack
data = open('one.qp', 'rb').read()
u = msgpack.Unpacker()
u.feed(data)
at = 0
for v in u:
    end = u.tell()
    assert msgpack.packb(v) == data[at:end], v
    at = end"
}

@test "qp-make: -z compresses, and the values are the same" {
	make_one <<< $'tensor a role=weight dtype=BF16 shape=[1000]\n 1*1000'
	qp-dump one.qp > plain.txt
	qp-make -z plain.txt > small.qp
	[ "$(wc -c < small.qp)" -lt 400 ]
	qp-dump small.qp | diff plain.txt -
	qp-ls small.qp | grep -q zstd
	qp-make -o file.qp plain.txt
	cmp file.qp one.qp
	qp-make plain.txt file2.qp
	cmp file2.qp one.qp
}

@test "qp-make: text without its last line is refused, wherever it is cut" {
	grep -v '^#' "$kinds" > whole.txt
	lines=$(wc -l < whole.txt)
	for ((n = 0; n < lines; n++)); do
		head -n "$n" whole.txt > cut.txt
		st=0
		qp-make cut.txt > cut.qp 2> err || st=$?
		[ "$st" -eq 65 ] || { echo "$n lines: $st"; return 1; }
		st=0
		qp-check cut.qp 2> /dev/null || st=$?
		[ "$st" -eq 65 ]
	done
	refuses_a_cut_pipe whole.txt 300 qp-make
}

@test "qp-make: bad text is refused with its line: headers" {
	bad 1 "the first record must be 'stream'" <<< 'tensor a dtype=F32 shape=[0]'
	bad 3 "a second record 'stream'" <<< "$H"$'\nstream v=[1,0]\nend'
	bad 2 "'end' stands alone" <<< "$H"$'end x\n'
	bad 2 "'end' stands alone" <<< "$H"$'end must=true\n'
	bad 4 "more text after 'end'" <<< "$H"$'end\n# fine\nnote\n'
	bad 1 'a value before the first header' <<< ' 1 2'
	bad 2 'nbytes cannot be given' <<< "$H"$'file f nbytes=3'
	bad 2 'xxh cannot be given' <<< "$H"$'file f xxh=3'
	bad 2 'key a is given twice' <<< "$H"$'note n a=1 a=2'
	bad 2 'key dtype is given twice' <<< "$H"$'tensor n dtype=F32 dtype=F32'
	bad 2 "expected '=' after b" <<< "$H"$'note n b c=2'
	bad 2 'expected a name or key=value' <<< "$H"$'note n =2'
	bad 2 "expected a blank, got ','" <<< "$H"$'note n a=2,b=3'
	bad 2 'shape is a list of at most 8 integers' <<< "$H"$'tensor t dtype=U8 shape=[1,-1]'
	bad 2 'shape is a list of at most 8 integers' <<< "$H"$'tensor t dtype=U8 shape=7'
	bad 2 'must is true' <<< "$H"$'note n must=false'
	bad 2 'a tensor of this shape is too large' <<< \
		"$H"$'tensor t dtype=U8 shape=[1099511627776,1099511627776]'
	bad 2 'tensor: a tensor needs a name' <<< "$H"$'tensor dtype=U8 shape=[0]'
	bad 2 't: a tensor needs' <<< "$H"$'tensor t dtype=U8\n 1'
	bad 2 'a/b: .*plain name' <<< "$H"$'file a/b\n "x"'
	bad 2 'a name has 256 bytes, 255 at most' <<< "$H"$'note '"$(printf '%0256d' 0)"
	{ printf '%snote n a="' "$H"; head -c 1100000 /dev/zero | tr '\0' x; echo '"'; } > long.txt
	bad 3 '.*header of [0-9]* bytes' < long.txt
}

@test "qp-make: bad text is refused with its line: values" {
	for v in '[1,2' '{"a":1' '"abc'; do
		bad '[23]' '' <<< "$H"$''"note n a=$v"
	done
	for v in '[1 2]' '{"a" 1}' '[1,]' '[,1]' truth nul 1.2.3 0x 1e 1ff 12a -- - '' h12 \
		"h'0'" "h'0g'" \
		"f32'00'" "f64'00'" 'ext(1)' "ext(300,h'')" "ext(1,h''" "raw'c1'" \
		"raw''" "raw'0101'" \
		"raw'ddffffffff'" '"\q"' '"\ud800"' '"\udc00x"' '"\u12"' 18446744073709551616 \
		-9223372036854775809 1e999 ; do
		bad 2 '' <<< "$H"$''"note n a=$v"$'\nend'
	done
	bad 2 'brackets nested more than 29 deep' <<< "$H"$'note n a='"$(printf '[%.0s' {1..30})"
	bad 2 'n: values nested too deep' <<< "$H"$'note n a='"raw'$(printf '91%.0s' {1..29})90'"
	make_one <<< 'note n a='"$(printf '[%.0s' {1..29})$(printf ']%.0s' {1..29})"
	qp-dump one.qp | grep -q '\[\[\['
}

@test "qp-make: bad text is refused with its line: payloads" {
	for p in 'F32 [2]|not a number for F32: x|x' 'F32 [2]|out of range for F32: 1e39|1e39' \
		'F16 [2]|out of range for F16: 65520|65520' 'BF16 [2]|not a number|1,2' \
		'F32 [2]|not a number|0x1p' 'F32 [2]|not a number|infinity' \
		"F32 [2]|these bits are not a NaN's|nan'7f800000'" \
		"F32 [2]|a NaN by its bits|nan'7fc0'" \
		'F32 [2]|more values than the shape has|1 2 3' \
		'F32 [2]|more values than the shape has|1*3' 'F32 [2]|expected a count|1*' \
		'F32 [2]|expected a count|1*0' 'F32 [2]|expected a count|1*-2' \
		'U8 [2]|out of range for U8: 256|256' 'U8 [2]|out of range for U8: -1|-1' \
		'I8 [2]|out of range for I8: 128|128' 'I8 [2]|out of range for I8: -129|-129' \
		'I64 [2]|out of range|9223372036854775808' \
		'U64 [2]|out of range|18446744073709551616' \
		'U8 [2]|not an integer|1.0' 'U3 [1,2]|out of range for U3: 8|8' \
		"F32 [2]|expected a second hex digit|h'0" 'F32 [2]|more values|"123456789"' \
		"F8_E4M3 [1]|bytes are given as h'00ff'|1"; do
		IFS='|' read -r type what value <<< "$p"
		bad 3 ".*$what" <<< "$H"$''"tensor t dtype=${type/ / shape=}"$'\n '"$value"$'\nend'
	done
	bad 2 't has 4 of the 8 bytes of its shape' <<< "$H"$'tensor t dtype=F32 shape=[2]\n 1\nend'
	bad 2 '2 codes do not fill the shape' <<< "$H"$'tensor t dtype=U4 shape=[1,3]\n 1 2\nend'
	bad 2 'U2 needs a shape of rows' <<< "$H"$'tensor t dtype=U2 shape=[]\n 1\nend'
	bad 3 "bytes are given as h'00ff' or .text." <<< "$H"$'file f\n 12\nend'
}

@test "qp-make: a missing file, a directory and an unreadable option" {
	refuses 66 '/no/such: No such file' qp-make /no/such
	mkdir d
	refuses 66 '' qp-make d
	refuses 64 '' qp-make --bits=4
	refuses 65 'line 1: the text ends here' qp-make /dev/null
}
