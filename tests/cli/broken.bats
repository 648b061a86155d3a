#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# broken.bats - every damaged checkpoint of the collection is refused by name as MODEL
#
# Files of GGUF are in gguf.bats; unit/hf holds the parts alone to the same files.

load ../helpers

setup() {
	need_shared interop/broken
	cd "$BATS_TEST_TMPDIR"
	BROKEN=$SHARED/interop/broken
}

# The small model with FILE in the place of NAME; "m" is the directory.
model_with() {	# model_with FILE NAME
	rm -rf m
	mkdir m
	cp "$MODEL"/* m/
	rm -f "m/$2"
	cp "$1" "m/$2"
	chmod -R u+w m
}

# All programs that read a model refuse m in one line that names the file and what is wrong.
is_refused() {	# is_refused STATUS REGEX
	printf 'Once upon a time' > text
	refuses "$1" "$2" record-acts -q --stats=none m
	[ "${#lines[@]}" -eq 0 ] && [ "$(wc -l <<< "$stderr")" -eq 1 ]
	refuses "$1" "$2" eval-ppl -q -t text m
	rm -f out.gguf
	refuses "$1" "$2" to-gguf -q m out.gguf
	[ ! -e out.gguf ]
}

@test "broken: configurations are refused by the key that is wrong" {
	n=0
	for f in "$BROKEN"/config-*.json; do
		b=${f##*/}
		case $b in
		*01*) want=hidden_size ;;
		*02*) want=mystery9 ;;
		*03*) want=num_attention_heads ;;
		*04*) want=num_key_value_heads ;;
		*05*) want=num_hidden_layers ;;
		*06*) want=hidden_size ;;
		*07*) want=vocab_size ;;
		*08*) want=wormhole ;;
		*09*) want=zipq ;;
		*10*) want=blub ;;
		*11*) want='config\.json' ;;
		esac
		model_with "$f" config.json
		is_refused 65 ".*$want" || { echo "$b"; return 1; }
		n=$((n + 1))
	done
	[ $n -eq 11 ]
}

@test "broken: safetensors are refused by the tensor, or the file, that is wrong" {
	n=0
	for f in "$BROKEN"/st-*.safetensors; do
		b=${f##*/}
		case $b in
		*-00-* | *-28-*) want='.*(model\.|weight|u0000)' ;; # sound, but no such model
		*-01-* | *-03-* | *-22-*) want='.*model\.safetensors: b: ' ;;
		*-0[4-9]-* | *-1[01]-* | *-19-* | *-20-*) want='.*model\.safetensors: a: ' ;;
		*) want='.*model\.safetensors: ' ;;
		esac
		model_with "$f" model.safetensors
		is_refused 65 "$want" || { echo "$b"; return 1; }
		n=$((n + 1))
	done
	[ $n -eq 29 ]
}

@test "broken: shards are refused by the file or the tensor that is wrong" {
	n=0
	for d in "$BROKEN"/shard-*; do
		b=${d##*/}
		rm -rf m
		cp -r "$d" m
		chmod -R u+w m
		cp "$MODEL/config.json" m/
		st=65
		case $b in
		*-01-*) st=66 want='.*model-00002-of-00002\.safetensors' ;;
		*-02-*) want='.*model-00002-of-00002\.safetensors.* c\b' ;;
		*-03-*) want='.*model-00002-of-00002\.safetensors.* a\b' ;;
		*-04-* | *-05-*) want='.*/.*safetensors' ;;
		*-06-*) want='.*model\.safetensors\.index\.json' ;;
		*) want='.*weight' ;;
		esac
		is_refused "$st" "$want" || { echo "$b"; return 1; }
		n=$((n + 1))
	done
	[ $n -eq 8 ]
}

@test "broken: tokenizers are refused by what is unknown in them" {
	n=0
	for f in "$BROKEN"/tokenizer-*.json; do
		b=${f##*/}
		case $b in
		*01*) want=Quantum ;;
		*02*) want=Teleport ;;
		*) want='tokenizer\.json' ;;
		esac
		model_with "$f" tokenizer.json
		rm -f m/tokenizer.model
		printf 'Once upon a time' > text
		refuses 65 ".*$want" eval-ppl -q -t text m || { echo "$b"; return 1; }
		refuses 65 ".*$want" qp-tok -m m text || { echo "$b"; return 1; }
		n=$((n + 1))
	done
	[ $n -eq 5 ]
}
