#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-dump.bats - streams as text

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	qp-make "$DATA/streams/kinds.txt" > kinds.qp
}

@test "qp-dump: a model directory, dumped and made, is the stream of the model" {
	qp-dump "$MODEL" > model.txt
	qp-make model.txt > model.qp
	qp-check model.qp
	record-acts -q --stats=none "$MODEL" > acts.qp
	qp-cmp acts.qp model.qp
	qp-dump acts.qp | qp-make | cmp - acts.qp
}

@test "qp-dump: hex floats are exactly the weights of the checkpoint" {
	need_python numpy
	qp-dump -n model.norm.weight "$MODEL" > norm.txt
	"$PYTHON" - "$MODEL/model.safetensors" norm.txt <<- 'EOF'
	import json, struct, sys
	f = open(sys.argv[1], 'rb')
	n, = struct.unpack('<Q', f.read(8))
	at = json.loads(f.read(n))['model.norm.weight']['data_offsets']
	f.seek(8 + n + at[0])
	raw = f.read(at[1] - at[0])
	want = [struct.unpack('<f', b'\0\0' + raw[i:i + 2])[0] for i in range(0, len(raw), 2)]
	text = open(sys.argv[2]).read().split('\n', 1)[1]
	assert [float.fromhex(w) for w in text.split()] == want and len(want) == 128
	EOF
}

@test "qp-dump: --name prints the records that match, and not the line end" {
	qp-dump -n model.norm.weight kinds.qp > out
	[ "$(grep -c '^[^ ]' out)" -eq 1 ]
	head -n 1 out | grep -q '^tensor model.norm.weight '
	[ "$(tail -n 1 out)" != end ]
	qp-dump --name='i*' kinds.qp | grep -c '^tensor i' | grep -qx 4
	refuses 65 'absent\*: no record has such a name' qp-dump --name='absent*' kinds.qp
	refuses 65 "line 1: the first record must be 'stream'" qp-make out
}

@test "qp-dump: --head prints every header and no payload" {
	qp-dump --head kinds.qp > head.txt
	[ -z "$(grep '^ [^ ]' head.txt)" ]
	grep -qx 'tensor i8 dtype=I8 shape=\[3\] # 3 bytes' head.txt
	sed 's/ # [0-9]* bytes$//' head.txt > a
	qp-dump kinds.qp | grep -v '^ [^ ]' | diff a -
	refuses 65 'line .* has 0 of the [0-9]* bytes' qp-make head.txt
}

@test "qp-dump: a compressed stream is the same text" {
	record-acts -q --stats=none "$MODEL" | qp-dump > plain.txt
	qp-make -z plain.txt > z.qp
	qp-dump z.qp | cmp - plain.txt
	zstd --version > /dev/null 2>&1 || skip 'no zstd program'
	qp-make plain.txt | zstd -q > whole.qp.zst
	qp-dump whole.qp.zst | cmp - plain.txt
}

@test "qp-dump: keys that Python wrote in another order or encoding are not lost" {
	need_python msgpack
	"$PYTHON" -c "
import msgpack
p = msgpack.Packer(use_single_float=True)
out = open('py.qp', 'wb')
recs = [{'v': [1, 0], 'prov': [], 't': 'stream'},
        {'index': 3, 'f': 0.25, 'name': 'x', 't': 'note'}]
body = b''.join(p.pack(r) for r in recs)
body = body.replace(p.pack('index') + b'\x03', p.pack('index') + b'\xcd\x00\x03')
out.write(body)
import ctypes
L = ctypes.CDLL('libxxhash.so.0')
L.XXH3_64bits.restype = ctypes.c_uint64
L.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
out.write(p.pack({'t': 'end', 'records': 2, 'sum': L.XXH3_64bits(body, len(body))}))"
	qp-dump py.qp > py.txt
	grep -qx "note x index=raw'cd0003' f=0.25f" py.txt
	qp-make py.txt | qp-dump | diff py.txt -
}

@test "qp-dump: every truncation and every flipped byte is refused" {
	refuses_every_prefix kinds.qp qp-dump
	size=$(wc -c < kinds.qp)
	for ((at = 0; at < size; at += 13)); do
		flip kinds.qp "$at" bad.qp 4
		st=0
		qp-dump bad.qp > out 2> err || st=$?
		case $st in 65 | 76) ;; *) echo "byte $at: exit $st"; cat err; return 1 ;; esac
		[ "$(tail -n 1 out)" != end ]
	done
}

@test "qp-dump: an unknown record that must be understood is refused by name" {
	printf 'stream v=[1,0]\nmarvel thing must=true\nend\n' | qp-make > must.qp
	refuses 76 'thing: .*' qp-dump must.qp
	printf 'stream v=[2,0]\nend\n' | qp-make > new.qp
	refuses 76 '.*version 2' qp-dump new.qp
	printf 'stream v=[1,7] news=1\nend\n' | qp-make > minor.qp
	qp-dump minor.qp | grep -qx 'stream v=\[1,7\] news=1'
}

@test "qp-dump: a directory that is no model, a missing file, empty input" {
	mkdir d
	st=0
	qp-dump d 2> err || st=$?
	[ "$st" -eq 65 ] || [ "$st" -eq 66 ]
	refuses 66 '/no/such: No such file' qp-dump /no/such
	refuses 65 '' sh -c 'qp-dump < /dev/null'
}
