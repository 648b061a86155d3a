#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# python.bats - Python reads our streams and we read Python's, by the lines of the manual

load ../helpers

setup() {
	cd "$BATS_TEST_TMPDIR"
	need_python msgpack numpy
}

# The N-th example of quantpipe-stream(5), as a reader of the page would type it.
example() {	# example N
	awk -v n="$1" '/^\.EE/ { on = 0 } on; /^\.EX/ { on = ++i == n }' \
		"$ROOT/man/quantpipe-stream.5" | sed 's/\\-/-/g'
}

# Tensors of every element type, sizes around a chunk, extra keys, records without payload.
make_stream() {
	"$PYTHON" - > text << 'END'
print('stream v=[1,0] family="llama" prov=[]')
print('file config.json')
print(" h'7b7d0a'")
print('tensor half role=weight dtype=BF16 shape=[2,3]\n 0x1p+0 0.5 -2 0 0 3')
print('tensor one role=weight dtype=F32 shape=[2,2]\n 1 2 3 4.5')
print('tensor big role=weight dtype=F32 shape=[4194305]\n 1*4194304 2')
print('tensor two role=scale dtype=F32 shape=[]\n -8')
print('tensor none role=weight dtype=F32 shape=[0,7]')
print('sparkle from.the.future odd=[1,{"a":nan}]')
print('end')
END
	qp-make text > made.qp
}

@test "manual: the reader has five lines" {
	example 1 > read.py
	[ "$(wc -l < read.py)" -eq 5 ]
	example 2 > write.py
	[ "$(wc -l < write.py)" -gt 5 ]
}

@test "manual: its five lines read what qp-make writes" {
	example 1 > read.py
	make_stream
	"$PYTHON" read.py < made.qp > got
	cat > want << 'END'
stream None None 0 0
file config.json None 3 258
tensor half [2, 3] 12 574
tensor one [2, 2] 4 10.5
tensor big [4194305] 4194305 4194306.0
tensor two [] 1 -8.0
tensor none [0, 7] 0 0.0
sparkle from.the.future None 0 0
end None None 0 0
END
	diff -u want got
}

@test "manual: its five lines read a model that record-acts wrote" {
	example 1 > read.py
	record-acts -q --stats=none "$MODEL" > model.qp
	"$PYTHON" read.py < model.qp > got
	[ "$(head -n 1 got)" = "stream None None 0 0" ]
	[ "$(grep -c '^tensor ' got)" -eq "$(qp-dump model.qp | grep -c '^tensor ')" ]
	grep -q '^tensor model.embed_tokens.weight ' got
	[ "$(tail -n 1 got)" = "end None None 0 0" ]
}

@test "manual: what its writer writes is a sound stream" {
	example 2 > write.py
	"$PYTHON" write.py > py.qp
	qp-check py.qp
	qp-dump py.qp > got
	cat > text << 'END'
stream v=[1,0]
tensor x dtype=F32 shape=[3,4]
 0 1 2 3 4 5 6 7 8 9 10 11
end
END
	qp-make text > want.qp
	qp-dump want.qp | diff -u - got
}

@test "manual: a payload of several chunks from its writer is read" {
	example 2 | sed 's/arange(12/arange(1 << 23/; s/reshape(3, 4)/reshape(2048, 4096)/' \
		> write.py
	"$PYTHON" write.py > py.qp
	[ "$(wc -c < py.qp)" -gt $((1 << 25)) ]
	qp-check py.qp
}

@test "stream: what Python reads with msgpack alone is what the manual says" {
	make_stream
	"$PYTHON" - << 'END'
import msgpack
raw = open("made.qp", "rb").read()
u = msgpack.Unpacker(max_buffer_size=0)
u.feed(raw)
known = ["t", "name", "role", "dtype", "shape", "nbytes", "chunks", "enc", "xxh", "must"]
count = 0
for h in u:
    keys = [k for k in h if k in known]
    assert keys == sorted(keys, key=known.index), keys
    assert list(h)[:len(keys)] == keys or h["t"] in ("stream", "end"), list(h)
    sizes = [len(next(u)) for _ in range(h.get("chunks", 0))]
    assert sum(sizes) == h.get("nbytes", 0) and all(n == 1 << 24 for n in sizes[:-1]), sizes
    if h["t"] == "end":
        assert h["records"] == count
    count += 1
assert h["t"] == "end" and u.tell() == len(raw)
END
}

@test "stream: odd but legal encodings from Python are read" {
	example 2 | sed '/^write(/,$d' > odd.py
	cat >> odd.py << 'END'
def long_key(s):
    return b"\xdb" + len(s).to_bytes(4, "big") + s.encode()
head = b"\xdf\x00\x00\x00\x02" + long_key("v") + b"\xdc\x00\x02\xcf" + bytes(7) + b"\x01\xd3" + \
    bytes(8) + long_key("t") + long_key("stream")
out.write(head)
summed, records = head, 1
out.write(msgpack.packb({"sum": xxh(summed, len(summed)), "records": 1, "t": "end"}))
END
	"$PYTHON" odd.py > odd.qp
	qp-check odd.qp
}

@test "stream: a payload without xxh and an END without sum are refused" {
	example 2 > write.py
	sed '/"xxh": xxh/s/"xxh"/"other"/' write.py > no-xxh.py
	"$PYTHON" no-xxh.py > py.qp
	refuses 65 "x: key 'xxh': missing" qp-check py.qp
	sed '/"sum": xxh/s/"sum"/"other"/' write.py > no-sum.py
	"$PYTHON" no-sum.py > py.qp
	refuses 65 'end: damaged END record' qp-check py.qp
}
