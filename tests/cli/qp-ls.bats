#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-ls.bats - what is in a stream

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	qp-make "$DATA/streams/kinds.txt" > kinds.qp
}

# The listing of FILE is valid JSON, and each line on standard input is true of it as Python sees
# it: j the object, recs its records, named(N) the record of that name.
json_has() {	# json_has FILE
	qp-ls --json "$1" > listing.json
	"$PYTHON" -m json.tool listing.json > /dev/null
	cat > claims
	"$PYTHON" -c '
import json
j = json.load(open("listing.json"))
recs = j["records"]
named = lambda n: [r for r in recs if r.get("name") == n][0]
for claim in open("claims"):
    assert eval(claim), claim'
}

@test "qp-ls: the table has a line for each record, and the sums" {
	qp-make "$DATA/streams/shard-one.txt" > one.qp
	qp-ls one.qp > out
	cat > want << 'EOF'
record   name                                             what     dtype        shape        bytes
file     config.json                                                                             3
calib    calib                                                     I32            1x2            8
block    0
tensor   w                                                weight   BF16             2            4
tensor   layers.0.mlp.in                                  absmax   F32              2            8
tensor   layers.0.mlp.in                                  absmean  F32              2            8
tensor   layers.0.mlp.in                                  min      F32              2            8
tensor   layers.0.mlp.in                                  max      F32              2            8
tensor   layers.0.mlp.in                                  hessian  F32              3           12
tensor   layers.0.mlp.in                                  samples  F32            1x2            8
note     layers.0.mlp.in                                  remark
alias    lm_head.weight                                   of w

family       llama, 1 block
tensors      7, 2 parameters
calibration  xxh128:(32 digits), tokens 1x2
payload      67 bytes
made by      record-acts "$MODEL" --stats=all --calib="$CALIB"
EOF
	sed 's/xxh128:[0-9a-f]\{32\},/xxh128:(32 digits),/' out | diff -u want -
	qp-ls < one.qp | diff out -
}

@test "qp-ls: a model directory is listed as the stream it stands for" {
	qp-ls "$MODEL" > out
	grep -q '^family       llama, 2 blocks$' out
	grep -q '^tensors      20, 656,000 parameters$' out
	[ "$(grep -c '^tensor ' out)" -eq 20 ]
	grep -q '^alias .* of model.embed_tokens.weight$' out
}

@test "qp-ls: --json is one valid object with everything" {
	json_has kinds.qp << 'EOF'
j["version"] == [1, 0]
j["family"] == "llama"
j["config"] == {"hidden_size": 2, "norm_eps": 1e-5}
j["provenance"][0]["options"] == ["--calib=$CALIB", "--seed=1"]
j["pipeline"] == 'record-acts "$MODEL" --calib="$CALIB" --seed=1 | smooth --alpha=0.5'
j["calibration"] == {"fingerprint": "xxh128:" + 32 * "0", "nsamples": 2, "seqlen": 3}
j["blocks"] == 1 and j["quantized"] == 1 and j["bits_per_weight"] == 16
[r["t"] for r in recs[:6]] == ["file", "file", "file", "calib", "tensor", "block"]
j["tensors"] == sum(r["t"] == "tensor" for r in recs)
j["payload_bytes"] == sum(r.get("nbytes", 0) for r in recs)
named("rank8")["shape"] == [1] * 7 + [2]
named("future")["must"] is True
EOF
}

@test "qp-ls: a packed stream still tells its calibration set, a set there comes first" {
	calib-pack -q -m "$MODEL" -n 3 -s 32 "$CALIB" > c.qp
	record-acts -q -c c.qp "$MODEL" | rtn -q | pack-int4 > p.qp
	qp-ls c.qp | grep '^calibration  xxh128:.*, tokens 3x32$' > want
	qp-ls p.qp | grep '^calibration' | diff want -
	set=$(grep -o 'xxh128:[0-9a-f]*' want)
	json_has p.qp <<- EOF
	j["calibration"] == {"fingerprint": "$set", "nsamples": 3, "seqlen": 32}
	EOF
	echo 1 2 3 4 | calib-pack -q --ids > new.qp
	record-acts -q -c new.qp p.qp | qp-ls | grep -q '^calibration .* tokens 1x4$'
	printf 'stream v=[1,0]\nnote calib kind="remark" fingerprint="f"\nend\n' | qp-make > odd.qp
	[ -z "$(qp-ls odd.qp | grep '^calibration')" ]
}

@test "qp-ls: --provenance names the model of each program that takes one" {
	printf '1 2 3\n' > ids
	for command in "qp-forward -q -i ids" "record-acts -q --stats=none"; do
		$command "$MODEL" | qp-ls --provenance > out
		[[ $(cat out) == "${command%% *}"' "$MODEL"'* ]]
	done
	calib-pack -q --ids ids | qp-ls --provenance > out
	[[ $(cat out) == 'calib-pack "$TEXT"'* ]]
}

@test "qp-ls: --json escapes strings, and says what JSON cannot" {
	json_has kinds.qp << 'EOF'
named('we ird="n\u00e4me"')["odd key"] == 1
named("bytes")["str"] == "tab\tquote\"\\ \u00e9\U0001f600 \ufffd\0\x01\x7f"
named("bytes")["bin"] == "h'00ff'"
named("bytes")["ext1"] == "ext(5,h'01')"
named("floats")["nan"] == "nan" and named("floats")["minus"] == "-inf"
named("floats")["tenth"] == 0.1 and named("floats")["tiny"] == 5e-324
named("from the future")["big"] == 2**64 - 1
list(named("nested")["map"]) == ["x", "2", "null", "h'02'", "y"]
EOF
	printf 'stream v=[1,0]\nend\n' | qp-make > least.qp
	json_has least.qp << 'EOF'
recs == [] and j["family"] is None and j["provenance"] is None and j["pipeline"] == ""
j["calibration"] is None and j["bits_per_weight"] is None
EOF
}

@test "qp-ls: bits a weight count codes, scales and zeros" {
	qp-make "$DATA/streams/quantized.txt" > q.qp
	# asym 8 codes of 4 + 4 scales of 16 + 4 zeros of 8 = 128; sym3 8 x 3 + 2 x 32 = 88;
	# whole 4 x 8 + 16 = 48; before 2 x 2 + 16 = 20; behind 3 x 4 + 16 = 28: 312 in 25 weights
	qp-ls q.qp > out
	grep -q '^quantized    5 weights, 12.480 bits each with scales$' out
	grep -q '^tensors      13, 25 parameters$' out
	qp-make > bad.qp << 'EOF'
stream v=[1,0]
tensor a role=codes dtype=U8 shape=[1,1] bits=4 group=1
 0
end
EOF
	qp-ls bad.qp > out
	grep -q '^unsound      1 codes' out
}

@test "qp-ls: --provenance is a pipeline that can be run again" {
	calib-pack -q -m "$MODEL" -n 2 -s 32 "$CALIB" > c.qp
	record-acts -q -c c.qp "$MODEL" | smooth -a 0.25 | rtn -b 3 -g 32 --asym > q.qp
	qp-ls --provenance q.qp > again.sh
	grep -q '^record-acts "$MODEL" --calib="$CALIB" | smooth --alpha=0.25 | rtn ' again.sh
	grep -q ' --bits=3' again.sh
	CALIB=c.qp MODEL=$MODEL sh again.sh > q2.qp
	cmp q.qp q2.qp
	qp-ls --provenance c.qp > again.sh
	MODEL=$MODEL TEXT=$CALIB sh again.sh | cmp - c.qp
	record-acts -q -c c.qp "$MODEL" | record-acts -q - | qp-ls --provenance > out
	grep -qx 'record-acts "$MODEL" --calib="$CALIB" | record-acts -' out
}

@test "qp-ls: --provenance quotes what the shell would take apart" {
	qp-make > odd.qp << 'EOF'
stream v=[1,0] family="x" prov=[
  {"program":"a","version":"1","options":["--re=a b","--q='x'","--d=$(reboot)","--p=$PATH_X",
  "--e=","-x","$S2","--n=$lower","--s=*"]}
]
end
EOF
	qp-ls --provenance odd.qp > out
	printf '%s ' 'a "$MODEL"' "'--re=a b'" "'--q='\\''x'\\'''" "'--d=\$(reboot)'" > want
	printf '%s\n' '--p="$PATH_X" --e= -x "$S2" '"'--n=\$lower' '--s=*'" >> want
	diff want out
	printf 'stream v=[1,0]\nend\n' | qp-make > none.qp
	refuses 65 'header: no provenance' qp-ls --provenance none.qp
	for p in 1 '[1]' '[{}]' '[{"program":"a"}]' '[{"program":"a","options":[1]}]'; do
		printf 'stream v=[1,0] prov=%s\nend\n' "$p" | qp-make > bad.qp
		refuses 65 '.*prov' qp-ls --provenance bad.qp
	done
}

@test "qp-ls: --errors is a table of the layers' errors and their mean" {
	note='kind="layer-error" bits=4'
	{
		echo 'stream v=[1,0]'
		echo "note layers.0.q $note by=\"gptq\" rel_err=0.25 damp=0.01 damp_raised=2 dead=3"
		echo "note layers.0.k $note by=\"rtn\" w_rel_err=0.5"
		echo "note layers.0.v $note by=\"gptq\" rel_err=0.75 seconds=1.5 tokens_short=9"
		echo 'note layers.0.o kind="remark" rel_err=7'
		echo end
	} | qp-make > e.qp
	qp-ls --errors e.qp > out
	tr -s ' ' < out > squeezed
	cat > want << 'EOF'
layer by bits rel_err damp raised dead
layers.0.q gptq 4 2.5000e-01 0.01 2 3
layers.0.k rtn 4 5.0000e-01w - - -
layers.0.v gptq 4 7.5000e-01t - - - 1.500

3 layers, mean rel_err 5.0000e-01, worst 7.5000e-01 at layers.0.v
t: H of fewer tokens than columns: looks better than it is (1 layers)
w: of the weights alone, where there was no Hessian
EOF
	diff -u want squeezed
	qp-make "$DATA/streams/shard-one.txt" > one.qp
	refuses 65 'no notes of layer errors' qp-ls --errors one.qp
	calib-pack -q -m "$MODEL" -n 2 -s 32 "$CALIB" > c.qp
	record-acts -q -c c.qp "$MODEL" | gptq -q -b 4 > q.qp
	qp-ls --errors q.qp > out
	grep -q '^14 layers, mean rel_err [1-9]' out
}

@test "qp-ls: --errors --tsv has the notes' keys in columns with a tab between, and no sums" {
	note='kind="layer-error" bits=4'
	{
		echo 'stream v=[1,0]'
		echo "note layers.0.q $note by=\"gptq\" rel_err=0.123456789 damp=0.01 damp_raised=2 dead=3"
		echo "note layers.0.k $note group=-1 by=\"rtn\" w_rel_err=0.5 starved=\"rtn\" tokens=7"
		echo "note layers.0.v $note by=\"gptq\" rel_err=0.75 seconds=1.5 tokens_short=9" \
			'step=0.25 kept="plain" err_options=0.8 err_plain=0.75'
		echo 'note layers.0.o kind="remark" rel_err=7'
		echo end
	} | qp-make > e.qp
	qp-ls --errors --tsv e.qp > out
	tr '\t' '|' < out > bars
	cat > want << 'EOF'
layer|by|measure|rel_err|bits|group|damp|damp_raised|dead|step|tokens|starved|seconds|kept|err_options|err_plain
layers.0.q|gptq|h|0.123456789|4||0.01|2|3|||||||
layers.0.k|rtn|w|0.5|4|-1|||||7|rtn||||
layers.0.v|gptq|t|0.75|4|||||0.25|||1.5|plain|0.8|0.75
EOF
	diff -u want bars
	qp-ls --tsv --errors e.qp | cmp out
	refuses 64 '--tsv: goes with --errors' qp-ls --tsv e.qp
	refuses 64 '--tsv: goes with --errors' qp-ls --json --tsv e.qp
	refuses 65 'no notes of layer errors' sh -c 'qp-make "$1" | qp-ls --errors --tsv' sh \
		"$DATA/streams/shard-one.txt"
	refuses_every_prefix e.qp qp-ls --errors --tsv
	calib-pack -q -m "$MODEL" -n 2 -s 32 "$CALIB" > c.qp
	record-acts -q -c c.qp "$MODEL" | gptq -q -b 3 > q.qp
	qp-ls --errors --tsv q.qp > out
	awk -F '\t' 'NF != 16 { exit 1 } NR > 1 { s += $4; n++ }
		END { printf "%d layers, mean rel_err %.4e\n", n, s / n }' out > mean
	qp-ls --errors q.qp | grep -qF "$(cat mean)"
}

@test "qp-ls: a stream cannot give orders to the terminal" {
	printf 'stream v=[1,0]\nnote n kind="\\u001b[2J"\nend\n' | qp-make > esc.qp
	for opt in '' --json; do
		qp-ls $opt esc.qp > out
		[ -z "$(grep $'\e' out)" ]
	done
	prov='[{"program":"\u001b","options":["--a=\n\u007f\\"]}]'
	printf 'stream v=[1,0] family="\\u001b[2J" prov=%s\nend\n' "$prov" | qp-make > esc.qp
	qp-ls --provenance esc.qp > out
	grep -qxF "\$'\033' \"\$MODEL\" \$'--a=\012\177\\\\'" out
	for opt in '' --json --provenance; do
		qp-ls $opt esc.qp > out
		[ -z "$(grep $'\e' out)" ]
	done
}

@test "qp-ls: a damaged stream gives an error and no half of a table" {
	head -c 800 kinds.qp > cut.qp
	for opt in '' --json --provenance; do
		refuses 65 '' qp-ls $opt cut.qp
		[ -z "$output" ]
	done
	refuses_every_prefix kinds.qp qp-ls --json
	refuses 64 'one of --json, --errors' qp-ls --json --errors kinds.qp
	refuses 66 '/no/such' qp-ls /no/such
	refuses 65 '' sh -c 'qp-ls < /dev/null'
	printf 'stream v=[1,0]\nmarvel thing must=true\nend\n' | qp-make > must.qp
	refuses 76 'thing' qp-ls must.qp
}

@test "qp-ls: memory does not grow with the payload" {
	not_with_sanitizers 'its memory is counted'
	qp-make > big.qp << 'EOF'
stream v=[1,0]
tensor a dtype=U8 shape=[100000000]
 7*100000000
end
EOF
	qp-ls -v big.qp > out 2> err
	awk '{ for (i = 1; i < NF; i++) if ($i == "peak") exit !($(i + 1) < 32); exit 1 }' err
}
