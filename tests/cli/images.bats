#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# images.bats - sets of images: what calib-pack --images promises, one test per promise

IMAGES=$BATS_TEST_DIRNAME/../data/images

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	export PYTHONPATH=$ROOT/tests
}

# What images need of a model: DIR, its image size, its preprocessor_config.json.
model() {	# model DIR SIZE [PROCESSOR]
	mkdir -p "$1"
	cat > "$1/config.json" <<-END
	{"model_type": "vit", "image_size": $2, "id2label": {
	 "0": "airplane", "1": "automobile", "2": "bird", "3": "cat", "4": "deer", "5": "dog",
	 "6": "frog", "7": "horse", "8": "ship", "9": "truck"}}
	END
	[ $# -lt 3 ] || printf '%s\n' "$3" > "$1/preprocessor_config.json"
}

PLAIN='{"do_resize": false, "do_normalize": false}'

# The set's pixels, as Python sees them: "c" of the expression, a float32 array, must be true.
pixels() {	# pixels FILE EXPRESSION
	"$PYTHON" - "$@" <<-'END'
	import sys
	import msgpack, numpy as np
	u = msgpack.Unpacker(open(sys.argv[1], "rb"))
	for h in u:
	    data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	    if h["t"] == "calib":
	        c = np.frombuffer(data, "<f4").reshape(h["shape"])
	def cifar(path):
	    r = np.frombuffer(open(path, "rb").read(), "u1").reshape(-1, 3073)
	    return r[:, 1:].reshape(-1, 3, 32, 32)
	def ppm(path):
	    f = open(path, "rb").read().split(b"\n", 3)
	    w, h = map(int, f[1].split())
	    return np.frombuffer(f[3], "u1").reshape(h, w, 3).transpose(2, 0, 1)
	sys.exit(0 if eval(sys.argv[2]) else f"not so: {sys.argv[2]}\n{c.shape}\n{c}")
	END
}

# A PPM file of SIZE x SIZE whose bytes begin at FIRST.
ppm() {	# ppm FILE SIZE FIRST
	"$PYTHON" -c '
import sys
n, first = int(sys.argv[1]), int(sys.argv[2])
sys.stdout.buffer.write(b"P6\n%d %d\n255\n" % (n, n))
sys.stdout.buffer.write(bytes((first + 7 * i) % 256 for i in range(3 * n * n)))' "$2" "$3" > "$1"
}

# safetensors FILE NAME=DTYPE:SHAPE:EXPRESSION..., numpy giving the values
safetensors() {
	"$PYTHON" - "$@" <<-'END'
	import json, struct, sys
	import numpy as np
	head, data = {}, b""
	for a in sys.argv[2:]:
	    name, rest = a.split("=", 1)
	    dtype, shape, value = rest.split(":", 2)
	    shape = json.loads(shape)
	    kind = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "U8": "u1"}[dtype]
	    b = np.broadcast_to(eval(value), shape).astype("<" + kind).tobytes()
	    head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(b)]}
	    data += b
	head = json.dumps(head).encode()
	open(sys.argv[1], "wb").write(struct.pack("<Q", len(head)) + head + data)
	END
}

header() {
	qp-dump --head "$1" | grep '^calib'
}

pack() {
	calib-pack -q --images -m vit "$@"
}

@test "images: CIFAR-10 records are pixels / 255, channels first, in the file's order" {
	model vit 32 "$PLAIN"
	pack -n 12 --sampling=sequential "$IMAGES/cifar12.bin" > c.qp
	qp-check c.qp
	pixels c.qp "(c == (cifar('$IMAGES/cifar12.bin') * (1 / 255.0)).astype('f4')).all()"
	header c.qp | grep -q 'dtype=F32 shape=\[12,3,32,32\]'
	pack -n 5 --sampling=sequential "$IMAGES/cifar12.bin" > c.qp
	pixels c.qp "(c == (cifar('$IMAGES/cifar12.bin')[:5] * (1 / 255.0)).astype('f4')).all()"
}

@test "images: mean and deviation are applied in f32 after the factor" {
	model vit 32 '{"do_resize": false, "rescale_factor": 0.004,
		"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}'
	pack -n 12 --sampling=sequential "$IMAGES/cifar12.bin" > c.qp
	pixels c.qp "(c == ((cifar('$IMAGES/cifar12.bin') * 0.004).astype('f4') -
		np.array([0.485, 0.456, 0.406], 'f4')[:, None, None]) /
		np.array([0.229, 0.224, 0.225], 'f4')[:, None, None]).all()"
}

@test "images: random draws each at most once, the same ones on every machine" {
	model vit 32 "$PLAIN"
	pack -n 12 --seed=7 "$IMAGES/cifar12.bin" > c.qp
	"$PYTHON" > order <<-'END'
	M = (1 << 64) - 1
	def rotl(x, k): return (x << k | x >> 64 - k) & M
	state, s = 7, []
	for _ in range(4):
	    state = state + 0x9e3779b97f4a7c15 & M
	    z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9 & M
	    z = (z ^ z >> 27) * 0x94d049bb133111eb & M
	    s.append(z ^ z >> 31)
	order = list(range(12))
	for i in range(12):
	    x = rotl(s[1] * 5 & M, 7) * 9 & M
	    t = s[1] << 17 & M
	    s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = rotl(s[3], 45)
	    k = i + x % (12 - i)
	    order[i], order[k] = order[k], order[i]
	print(order)
	END
	pixels c.qp "(c == (cifar('$IMAGES/cifar12.bin')[$(cat order)] * (1 / 255.0)).astype('f4')).all()"
	pack -n 4 --seed=7 "$IMAGES/cifar12.bin" > few.qp
	pixels few.qp "(c == (cifar('$IMAGES/cifar12.bin')[$(cat order)][:4] * (1 / 255.0)).astype('f4')).all()"
	pack -n 12 --seed=8 "$IMAGES/cifar12.bin" > other.qp
	pixels other.qp "(c != (cifar('$IMAGES/cifar12.bin')[$(cat order)] * (1 / 255.0)).astype('f4')).any()"
	pack -n 12 --seed=7 "$IMAGES/cifar12.bin" | cmp c.qp -
}

@test "images: a directory, class directories, a list and its paths on stdin are one set" {
	model vit 4 "$PLAIN"
	mkdir -p flat classes/cat classes/ship lists
	for i in 1 2 3; do
		ppm flat/$i.ppm 4 $((40 * i))
	done
	cp flat/1.ppm flat/2.ppm classes/cat
	cp flat/3.ppm classes/ship
	: > flat/.hidden
	pack -n 3 --sampling=sequential flat > want.qp
	pixels want.qp "all((c[i] == (ppm(f'flat/{i + 1}.ppm') * (1 / 255.0)).astype('f4')).all()
		for i in range(3))"
	header want.qp > want
	printf '../flat/1.ppm\tcat\n../flat/2.ppm\n\n%s/flat/3.ppm\t8\r\n' "$PWD" > lists/all.txt
	for set in classes lists/all.txt 'flat/1.ppm flat/2.ppm flat/3.ppm'; do
		pack -n 3 --sampling=sequential $set > got.qp
		header got.qp | diff want -
	done
	ls flat/*.ppm | pack -n 3 --sampling=sequential > got.qp
	header got.qp | diff want -
	ls flat/*.ppm | pack -n 3 --sampling=sequential - > got.qp
	header got.qp | diff want -
	pack -n 3 --sampling=sequential <(ls flat/*.ppm) > got.qp
	header got.qp | diff want -
}

@test "images: PNG and JPEG are resized and cropped as preprocessor_config.json says" {
	model vit 5 '{"image_processor_type": "ViTImageProcessor", "size": {"height": 13, "width": 6},
		"resample": 3, "do_center_crop": true, "crop_size": 5, "do_rescale": false,
		"do_normalize": false}'
	pack -n 1 "$IMAGES/rgb.png" > c.qp
	hex=$(sed -n 's/^3 13 6 //p' "$IMAGES/resized.txt")
	pixels c.qp "(c[0] == np.frombuffer(bytes.fromhex('$hex'), 'u1').reshape(13, 6, 3)[4:9, :5]
		.transpose(2, 0, 1)).all()"
	pack -n 1 "$IMAGES/rgb.jpg" > c.qp
	qp-check c.qp
}

@test "images: pixel_values are taken as they are, in any float type, without a processor" {
	model vit 2
	safetensors a.safetensors 'pixel_values=F32:[3,3,2,2]:np.arange(36).reshape(3,3,2,2) / 7 - 2' \
		'labels=I64:[3]:np.arange(3)'
	pack -n 3 --sampling=sequential a.safetensors > c.qp
	pixels c.qp "(c == (np.arange(36).reshape(3, 3, 2, 2) / 7 - 2).astype('f4')).all()"
	header c.qp > h
	run -1 grep -q processor h
	safetensors a.safetensors 'pixel_values=F16:[3,3,2,2]:np.arange(36).reshape(3,3,2,2) / 8' \
		'labels=I32:[3]:np.arange(3)'
	pack -n 3 --sampling=sequential a.safetensors > c.qp
	pixels c.qp "(c == np.arange(36, dtype='f4').reshape(3, 3, 2, 2) / 8).all()"
	safetensors a.safetensors 'pixel_values=F64:[1,3,2,2]:1/3'
	pack -n 1 a.safetensors > c.qp
	pixels c.qp "(c == np.float32(1 / 3)).all()"
}

@test "images: the record names sampling, seed, images, processor and fingerprint" {
	model vit 32 "$PLAIN"
	pack -n 4 --seed=3 "$IMAGES/cifar12.bin" > c.qp
	header c.qp > h
	grep -q 'shape=\[4,3,32,32\]' h
	grep -q 'sampling="random" seed=3 images=12' h
	grep -qE 'fingerprint="xxh128:[0-9a-f]{32}"' h
	grep -qE 'processor="xxh128:[0-9a-f]{32}"' h
	qp-ls c.qp | grep -q 'calibration  xxh128:.*, images 4x3x32x32'
	qp-ls --json c.qp | "$PYTHON" -c '
import json, sys
c = json.load(sys.stdin)["calibration"]
assert c["nsamples"] == 4 and c["image"] == [3, 32, 32], c'
	qp-ls --provenance c.qp | grep -q 'calib-pack "$IMAGES" --images .*--nsamples=4 --seed=3'
	run -1 grep -qF "$DATA" c.qp
	# The processor is told apart from another.
	model vit 32 '{"do_resize": false, "do_normalize": false }'
	pack -n 4 --seed=3 "$IMAGES/cifar12.bin" > d.qp
	[ "$(header c.qp | grep -o 'fingerprint="[^"]*"')" = "$(header d.qp | grep -o 'fingerprint="[^"]*"')" ]
	[ "$(header c.qp | grep -o 'processor="[^"]*"')" != "$(header d.qp | grep -o 'processor="[^"]*"')" ]
}

@test "images: a stream that carries the two files is a model too" {
	model vit 32 "$PLAIN"
	{
		echo 'stream'
		for f in config.json preprocessor_config.json; do
			echo "file $f"
			sed 's/[\"]/\\&/g; s/.*/ "&\\n"/' "vit/$f"
		done
		echo end
	} > vit.txt
	qp-make vit.txt > vit.qp
	pack -n 4 "$IMAGES/cifar12.bin" > want.qp
	calib-pack -q --images -m vit.qp -n 4 "$IMAGES/cifar12.bin" | cmp want.qp -
}

@test "images: --disjoint-from refuses an image that the other set has too, naming both" {
	model vit 32 "$PLAIN"
	head -c $((3073 * 5)) "$IMAGES/cifar12.bin" > a.bin
	tail -c $((3073 * 7)) "$IMAGES/cifar12.bin" > b.bin
	pack -n 5 --disjoint-from=b.bin a.bin > c.qp
	qp-check c.qp
	tail -c $((3073 * 8)) "$IMAGES/cifar12.bin" > b.bin
	refuses 65 'calib: image 4 is also in the other set: b.bin: image 0' \
		calib-pack -q --images -m vit -n 5 --sampling=sequential --disjoint-from=b.bin -o no.qp a.bin
	[ ! -e no.qp ]
}

# The stream in text on standard input with the calibration set of FILE, in front of its blocks.
with_set() {	# with_set FILE
	qp-dump "$1" | sed -n '/^calib/,/^end/p' | sed '$d' > calib.txt
	awk '
		/^calib/ { skip = 1; next }
		skip && /^ / { next }
		/^block index=0/ { while ((getline line < "calib.txt") > 0) print line }
		{ skip = 0; print }' | qp-make
}

@test "images: qp-sum joins sets of images, and only such of one size" {
	model vit 4 "$PLAIN"
	for i in 1 2 3 4 5; do ppm $i.ppm 4 $((40 * i)); done
	pack -n 2 --sampling=sequential 1.ppm 2.ppm > a.qp
	pack -n 3 --sampling=sequential 3.ppm 4.ppm 5.ppm > b.qp
	pack -n 5 --sampling=sequential 1.ppm 2.ppm 3.ppm 4.ppm 5.ppm > all.qp
	with_set a.qp < "$DATA/streams/shard-one.txt" > one.qp
	with_set b.qp < "$DATA/streams/shard-two.txt" > two.qp
	qp-sum one.qp two.qp > sum.qp
	qp-check sum.qp
	[ "$(header sum.qp | grep -o 'shape.* fingerprint="[^"]*"')" = \
		"$(header all.qp | grep -o 'shape.* fingerprint="[^"]*"')" ]
	qp-make "$DATA/streams/shard-two.txt" > tokens.qp
	refuses 65 'calib: tokens in tokens.qp, images in one.qp' qp-sum one.qp tokens.qp
	model vit 2 '{"do_normalize": false, "size": 2}'
	pack -n 3 3.ppm 4.ppm 5.ppm > b.qp
	with_set b.qp < "$DATA/streams/shard-two.txt" > two.qp
	refuses 65 'calib: images of 3 x 2 x 2 in two.qp, of 3 x 4 x 4 in one.qp' qp-sum one.qp two.qp
}

@test "images: pack-int4 leaves a note of the set in its place" {
	model vit 4 "$PLAIN"
	ppm 1.ppm 4 1
	pack -n 1 1.ppm > a.qp
	rtn -q -b 4 "$MODEL" | qp-dump | with_set a.qp | pack-int4 -q > packed.qp
	qp-dump --head packed.qp | grep '^note calib' > note
	grep -q 'nsamples=1 channels=3 height=4 width=4' note
	grep -qE 'processor="xxh128:[0-9a-f]{32}"' note
	qp-ls packed.qp | grep -q 'calibration  xxh128:.*, images 1x3x4x4'
}

@test "images: a language model refuses a set of images, and says so" {
	model vit 32 "$PLAIN"
	pack -n 2 "$IMAGES/cifar12.bin" > c.qp
	refuses 65 'calib: it is a set of images; the model takes tokens' \
		record-acts -q -c c.qp -o no.qp "$MODEL"
	[ ! -e no.qp ]
	refuses 65 'config.json: no image_size: this model takes no images' \
		calib-pack -q --images -m "$MODEL" "$IMAGES/cifar12.bin"
}

@test "images: fewer than are asked for are refused with their number" {
	model vit 32 "$PLAIN"
	refuses 65 'images: 12 of them, not 128' calib-pack --images -m vit "$IMAGES/cifar12.bin"
	refuses 65 'images: none at all' sh -c 'calib-pack --images -m vit < /dev/null'
}

@test "images: damaged files are refused by name, and nothing is written" {
	model vit 32 "$PLAIN"
	head -c 3074 "$IMAGES/cifar12.bin" > cut.bin
	refuses 65 'cut.bin: 3074 bytes are not CIFAR-10 images of 3073 bytes' \
		calib-pack --images -m vit -n 1 -o no.qp cut.bin
	: > none.bin
	refuses 65 'none.bin: 0 bytes' calib-pack --images -m vit -n 1 -o no.qp none.bin
	flip "$IMAGES/cifar12.bin" 3073 bad.bin 32
	refuses 65 'bad.bin: image 1 has the label 40; CIFAR-10 has 10 classes' \
		calib-pack --images -m vit -n 1 -o no.qp bad.bin
	head -c 200 "$IMAGES/rgb.png" > cut.png
	refuses 65 'cut.png: damaged PNG: ' calib-pack --images -m vit -n 1 -o no.qp cut.png
	head -c 700 "$IMAGES/rgb.jpg" > cut.jpg
	refuses 65 'cut.jpg: damaged JPEG: ' calib-pack --images -m vit -n 1 -o no.qp cut.jpg
	flip "$IMAGES/rgb.png" 60 bad.png
	refuses 65 'bad.png: damaged PNG: .*' calib-pack --images -m vit -n 1 -o no.qp bad.png
	refuses 65 '.*bomb.png: 60000 x 60000 pixels are too many' \
		calib-pack --images -m vit -n 1 -o no.qp "$IMAGES/bomb.png"
	head -c 5000 /dev/zero > zeros
	refuses 65 'zeros: neither a picture' calib-pack --images -m vit -n 1 -o no.qp zeros
	refuses 66 'gone.png: cannot open' calib-pack --images -m vit -n 1 -o no.qp gone.png
	[ -z "$(ls -A | grep no.qp)" ]
}

@test "images: another size than the model's is refused where nothing resizes" {
	model vit 32 "$PLAIN"
	refuses 65 '.*rgb.png: 17 x 13 pixels; the model takes 32 x 32' \
		calib-pack --images -m vit -n 1 "$IMAGES/rgb.png"
	model vit 32 '{"size": 24}'
	refuses 65 '.*rgb.png: 24 x 24 pixels after preprocessing; the model takes 32 x 32' \
		calib-pack --images -m vit -n 1 "$IMAGES/rgb.png"
}

@test "images: what preprocessor_config.json asks for and is not done is refused by its name" {
	for pair in 'do_pad is not supported={"do_pad": true}' \
		'size is not supported={"size": {"longest_edge": 3}}' \
		"image_processor_type 'CLIPImageProcessor'={\"image_processor_type\": \"CLIPImageProcessor\"}" \
		'resample ={"resample": 9}' 'not JSON={'; do
		model vit 32 "${pair#*=}"
		refuses 65 "preprocessor_config.json: ${pair%%=*}" \
			calib-pack --images -m vit -n 1 "$IMAGES/cifar12.bin"
	done
	rm vit/preprocessor_config.json
	refuses 65 '.*cifar12.bin: the model has no preprocessor_config.json' \
		calib-pack --images -m vit -n 1 "$IMAGES/cifar12.bin"
}

@test "images: a directory with anything else in it is refused, and so is an unknown class" {
	model vit 4 "$PLAIN"
	mkdir -p set/cat set/yacht
	ppm set/cat/1.ppm 4 1
	ppm set/yacht/1.ppm 4 9
	refuses 65 "set: the model has no class 'yacht'" calib-pack --images -m vit -n 1 set
	mv set/cat set/pirogue
	refuses 65 "set: has 2 directories for the model's 10 classes" \
		calib-pack --images -m vit -n 1 set
	mv set/pirogue/1.ppm set
	refuses 65 'set/pirogue: a directory where only pictures' \
		calib-pack --images -m vit -n 1 set
	rm -r set/pirogue set/yacht
	echo hello > set/README
	refuses 65 'set/README: is not called as a picture is' calib-pack --images -m vit -n 1 set
	mkdir empty
	refuses 65 'empty: has no picture' calib-pack --images -m vit -n 1 empty
}

@test "images: directories are classes in their order when the model knows none of the names" {
	model vit 4 "$PLAIN"
	for i in 0 1 2 3 4 5 6 7 8 9; do
		mkdir -p "set/n0$i"
		ppm "set/n0$i/x.ppm" 4 "$i"
	done
	pack -n 10 --sampling=sequential set > c.qp
	pixels c.qp "(c[:, 0, 0, 0] * 255).round().tolist() == list(range(10))"
}

@test "images: a line of a list that does not fit is refused with its number" {
	model vit 4 "$PLAIN"
	ppm a.ppm 4 1
	printf 'a.ppm\tcat\na.ppm\tyacht\n' > list
	refuses 65 "list: line 2: the model has no class 'yacht'" calib-pack --images -m vit -n 1 list
	printf 'a.ppm\t10\n' > list
	refuses 65 "list: line 1: the model has no class '10'" calib-pack --images -m vit -n 1 list
	printf '\tcat\n' > list
	refuses 65 'list: line 1: no path' calib-pack --images -m vit -n 1 list
	printf 'a.ppm\nb.ppm\n' > list
	refuses 66 'list: line 2: cannot open b.ppm' calib-pack --images -m vit -n 1 list
	printf 'list\n' > list
	refuses 65 'list: not a picture' calib-pack --images -m vit -n 1 list
}

@test "images: pixel_values that do not fit are refused by name" {
	model vit 2
	safetensors a.safetensors 'pixels=F32:[1,3,2,2]:0'
	refuses 65 'a.safetensors: has no pixel_values' calib-pack --images -m vit -n 1 a.safetensors
	safetensors a.safetensors 'pixel_values=F32:[1,3,2,4]:0'
	refuses 65 'a.safetensors: pixel_values are 3 x 2 x 4; the model takes 3 x 2 x 2' \
		calib-pack --images -m vit -n 1 a.safetensors
	safetensors a.safetensors 'pixel_values=U8:[1,3,2,2]:0'
	refuses 65 'a.safetensors: pixel_values are U8' calib-pack --images -m vit -n 1 a.safetensors
	safetensors a.safetensors 'pixel_values=F32:[2,3,2,2]:[[[[0,0],[0,np.nan]]]]'
	refuses 65 'a.safetensors: image [01]: value 3 is not finite' \
		calib-pack --images -m vit -n 1 a.safetensors
	safetensors a.safetensors 'pixel_values=F32:[2,3,2,2]:0' 'labels=I64:[2]:[1,10]'
	refuses 65 'a.safetensors: image 1 has the label 10; the model has 10 classes' \
		calib-pack --images -m vit -n 1 a.safetensors
	safetensors a.safetensors 'pixel_values=F32:[2,3,2,2]:0' 'labels=I64:[3]:1'
	refuses 65 'a.safetensors: labels are not I64 or I32 for 2 images' \
		calib-pack --images -m vit -n 1 a.safetensors
}

@test "images: bad command lines exit 64 and say what was expected" {
	refuses 64 '--model: needed, for images' calib-pack --images a.bin
	for o in --ids --field=x --seqlen=3 --sampling=documents; do
		refuses 64 '--images: .* are for text' calib-pack --images -m vit $o
	done
}

@test "images: every truncation of a set is refused by its reader" {
	model vit 2
	safetensors a.safetensors 'pixel_values=F32:[1,3,2,2]:1'
	pack -n 1 a.safetensors > c.qp
	refuses_every_prefix c.qp qp-check
}

@test "images: 1,000 of CIFAR-10's test images are what Pillow and transformers feed" {
	need_shared vision/cifar10-test-1000.bin vision/vit-cifar10-ashu-hf
	v=$SHARED/vision
	calib-pack -q --images -m "$v/vit-cifar10-ashu-hf" -n 1000 --sampling=sequential \
		"$v/cifar10-test-1000.bin" > c.qp
	pixels c.qp "(c == (cifar('$v/cifar10-test-1000.bin') * 0.00392156862745098).astype('f4')).all()"
}

# ---- eval-tasks --images ---------------------------------------------------------------------

VIT=$BATS_TEST_DIRNAME/../data/vit

# The golden images of $VIT with labels: "order" of the expression is each one's classes, the
# largest golden logit first.
labelled() {	# labelled FILE EXPRESSION
	"$PYTHON" - "$@" <<-'END'
	import json, os, struct, sys
	import numpy as np
	f = open(os.environ["VIT"] + "/golden.safetensors", "rb").read()
	n = struct.unpack("<Q", f[:8])[0]
	head = json.loads(f[8:8 + n])
	def get(name):
	    a, b = head[name]["data_offsets"]
	    return np.frombuffer(f[8 + n + a:8 + n + b], "<f4").reshape(head[name]["shape"])
	order = np.argsort(-get("logits"), axis=1, kind="stable")
	labels, pixels = np.array(eval(sys.argv[2]), "<i8"), get("pixel_values")
	head = json.dumps({
	    "labels": {"dtype": "I64", "shape": [len(labels)], "data_offsets": [0, labels.nbytes]},
	    "pixel_values": {"dtype": "F32", "shape": pixels.shape,
	                     "data_offsets": [labels.nbytes, labels.nbytes + pixels.nbytes]}}).encode()
	open(sys.argv[1], "wb").write(struct.pack("<Q", len(head)) + head + labels.tobytes() + pixels.tobytes())
	END
}

@test "eval-tasks --images: top-1 and top-5 are those of the golden logits" {
	need_python numpy
	export VIT
	labelled a.safetensors '[order[i][0] for i in range(4)]'
	eval-tasks -q -i a.safetensors "$VIT" > got
	grep -qE '^a +4 +1\.0000 \+- 0\.0000 +1\.0000' got
	labelled a.safetensors '[order[0][0], order[1][1], order[2][4], order[3][5]]'
	eval-tasks -q --json --samples=log -i a.safetensors "$VIT" > got
	"$PYTHON" -c '
import json
r = json.load(open("got"))["tasks"]["a"]
assert (r["samples"], r["right"], r["top1"], r["top5"]) == (4, 1, 0.25, 0.75), r
assert abs(r["top1_stderr"] - (0.25 * 0.75 / 4) ** 0.5) < 1e-9, r
log = [json.loads(l) for l in open("log")]
assert [x["acc"] for x in log] == [1, 0, 0, 0] and [x["acc_top5"] for x in log] == [1, 1, 1, 0], log'
	labelled order.safetensors '[0] * 4'
	eval-tasks -q --samples=log -i order.safetensors "$VIT" > /dev/null
	labelled x.safetensors 'open("order", "w").write(repr(order[:, :5].tolist())) and [0] * 4'
	"$PYTHON" -c '
import json
assert [json.loads(l)["first"] for l in open("log")] == json.load(open("order"))'
	rtn -q -b 3 -g -1 "$VIT" | eval-tasks -q --samples=log3 -i order.safetensors - > /dev/null
	qp-cmp --tasks log log3 > compared
	grep -q '^order' compared
	eval-tasks -q --limit=2 -i a.safetensors "$VIT" | grep -qE '^a +2 +0\.5000 .* 1\.0000'
}

@test "eval-tasks --images: a stream, and any number of threads, give the same bytes" {
	export VIT
	labelled a.safetensors '[order[0][0], order[1][1], order[2][4], order[3][5]]'
	eval-tasks -q --json --samples=want.log -i a.safetensors "$VIT" > want
	for j in 1 2 3; do
		record-acts -q --stats=none "$VIT" |
			eval-tasks -q -j $j --json --samples=got.log -i a.safetensors - | cmp want -
		cmp want.log got.log
	done
	eval-tasks -q --json --spill="$PWD" -i a.safetensors "$VIT" | cmp want -
}

@test "eval-tasks --images: pictures are prepared by the preprocessor that the stream carries" {
	cp -r "$VIT" vit
	echo "$PLAIN" > vit/preprocessor_config.json
	calib-pack -q --images -m vit -n 12 --sampling=sequential "$IMAGES/cifar12.bin" > c.qp
	record-acts -q --stats=none vit | eval-tasks -q --samples=log -i "$IMAGES/cifar12.bin" - > table
	grep -qE '^cifar12 +12 ' table
	"$PYTHON" - <<-'END'
	import json
	log = [json.loads(l) for l in open("log")]
	assert [x["gold"] for x in log] == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9], log
	END
	# The same pixels by way of safetensors, with the same labels, come to the same.
	"$PYTHON" - <<-'END'
	import json, struct, msgpack
	u = msgpack.Unpacker(open("c.qp", "rb"))
	for h in u:
	    data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
	    if h["t"] == "calib":
	        break
	labels = struct.pack("<12i", 3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9)
	head = json.dumps({"labels": {"dtype": "I32", "shape": [12], "data_offsets": [0, 48]},
	    "pixel_values": {"dtype": "F32", "shape": h["shape"], "data_offsets": [48, 48 + len(data)]}}).encode()
	open("cifar12.safetensors", "wb").write(struct.pack("<Q", len(head)) + head + labels + data)
	END
	eval-tasks -q --samples=log2 -i cifar12.safetensors "$VIT" | diff table -
	cmp log log2
}

@test "eval-tasks --images: a calibration set of images drives record-acts, smooth and gptq" {
	export VIT
	labelled a.safetensors '[order[i][0] for i in range(4)]'
	calib-pack -q --images -m "$VIT" -n 4 a.safetensors > c.qp
	record-acts -q -c c.qp "$VIT" | smooth -q | gptq -q -b 8 -g -1 > q.qp
	eval-tasks -q -i a.safetensors q.qp | grep -qE '^a +4 +1\.0000'
	header q.qp | grep -q 'shape=\[4,3,32,32\]'
}

@test "eval-tasks --images: what does not go together is refused" {
	export VIT
	labelled a.safetensors '[0] * 4'
	refuses 65 'model: takes text, not images' eval-tasks -q -i a.safetensors "$MODEL"
	echo '{"query": "a", "choices": ["b", "c"], "gold": 0}' > t.jsonl
	refuses 65 'model: takes images, not text' eval-tasks -q -t t.jsonl "$VIT"
	refuses 65 '.*golden.safetensors: has no label' \
		eval-tasks -q -i "$VIT/golden.safetensors" "$VIT"
	refuses 65 '.*cifar12.bin: the model has no preprocessor_config.json' \
		eval-tasks -q -i "$IMAGES/cifar12.bin" "$VIT"
	refuses 66 'gone: cannot open' eval-tasks -q -i gone "$VIT"
	refuses 64 '--images: not with' eval-tasks -q -i a.safetensors --bos=never "$VIT"
	refuses 64 '--images: not with' eval-tasks -q -i a.safetensors -t x.jsonl "$VIT"
	refuses 64 '-: the model and a task' eval-tasks -q -i - -
	refuses 64 '--task: needed' eval-tasks -q "$VIT"
}

@test "eval-tasks --images: 553 of CIFAR-10's thousand, each first class as in the golden file" {
	need_shared vision/cifar10-test-1000.bin vision/vit-cifar10-ashu-hf golden
	v=$SHARED/vision
	eval-tasks -q --json --samples=log -i "$v/cifar10-test-1000.bin" "$v/vit-cifar10-ashu-hf" > got
	"$PYTHON" - "$SHARED/golden/vit-cifar10-ashu-hf.json" <<-'END'
	import json, sys
	r = json.load(open("got"))["tasks"]["cifar10-test-1000"]
	golden = json.load(open(sys.argv[1]))
	assert r["samples"] == 1000 and r["right"] == golden["correct_of_1000"] == 553, r
	assert [json.loads(l)["first"][0] for l in open("log")] == golden["argmax"]
	END
}
