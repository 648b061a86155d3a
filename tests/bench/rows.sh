# SPDX-License-Identifier: Apache-2.0
# rows.sh - rows of bench.sh that compare whole programs with peers, and threads; sourced by it
#
# $QP_LLAMACPP: llama.cpp's folder of programs.  $QP_LLMC_SECONDS: what llm-compressor's GPTQ took
# on this machine for the job of T9 (it is not run here: it takes minutes, and a Python of its own).
# shellcheck disable=SC2154 # tmp, cores, tsv, model, calib are bench.sh's

# The text that both sides read, 12 windows of 512 tokens and more.
peer_text() { [ -s "$tmp/t4.txt" ] || head -c 60000 man/calibration.txt > "$tmp/t4.txt"; }

# T3: eval-ppl against llama-perplexity, whole programs.
perplexity_peer() {	# perplexity_peer DTYPE GGUF [OPTION]
	if [ ! -x "${QP_LLAMACPP:-}/llama-perplexity" ] || [ ! -f "$2" ] ||
	   [ ! -d "${QP_SMOLLM2:-}" ]; then
		emit T3 "not measured, $1: QP_LLAMACPP, QP_SMOLLM2, a GGUF of it in $1" "" "" ""
		return
	fi
	peer_text
	cat "$2" "$QP_SMOLLM2"/*.safetensors > /dev/null
	for i in 1 2 3; do
		measure "$tmp/t3.$1.them" "$QP_LLAMACPP/llama-perplexity" -m "$2" -f "$tmp/t4.txt" \
			-c 512 --chunks 12 -t "$cores" > "$tmp/t3.log" 2>&1
		measure "$tmp/t3.$1" eval-ppl -q ${3:-} -d llama.cpp -c 512 -w 12 \
			-t "$tmp/t4.txt" "$QP_SMOLLM2" > /dev/null
	done
	t=$(median "$tmp/t3.$1" 1) them=$(median "$tmp/t3.$1.them" 1)
	cat "$tmp/t3.$1" "$tmp/t3.$1.them" > "$tmp/t3.both"
	emit T3 "eval-ppl, $1, 12 x 512 tokens, tokens/s / llama-perplexity's" \
		"$(calc "6144 / $t" 0) tok/s" "$(calc "$them / $t")" ">= 1.5" \
		"$(noise "$tmp/t3.both")"
	emit T3 "  peak RSS / llama-perplexity's" \
		"$(calc "$(largest "$tmp/t3.$1" 3) / 1e6" 0) MB" \
		"$(calc "$(largest "$tmp/t3.$1" 3) / $(largest "$tmp/t3.$1.them" 3)")" "<= 0.5"
}

perplexity_peers() {
	perplexity_peer F32 "${QP_IMATRIX_GGUF:-}"
	if eval-ppl --help | grep -q -e '--compute'; then
		perplexity_peer BF16 "${QP_GGUF_BF16:-}" --compute=bf16
	fi
}

# T9: the main job on SmolLM2-135M, 64 x 512 tokens, against llm-compressor's GPTQ.
main_job_peer() {
	if [ ! -d "${QP_SMOLLM2:-}" ]; then
		emit T9 "not measured: QP_SMOLLM2" "" "" ""
		return
	fi
	calib-pack -q -m "$QP_SMOLLM2" -n 64 -s 512 man/calibration.txt > "$tmp/t9.qp"
	compute=f32
	if record-acts --help | grep -q -e '--compute'; then compute="f32 bf16"; fi
	for c in $compute; do
		opt=
		[ "$c" = f32 ] || opt=--compute=$c
		cat > "$tmp/t9.sh" <<-END
			measure $tmp/t9.1 record-acts -q $opt -c "$tmp/t9.qp" "$QP_SMOLLM2" |
				measure $tmp/t9.2 gptq -q -b 4 -g 64 --act-order |
				measure $tmp/t9.3 pack-int4 -q -o "$tmp/t9.bin"
		END
		rm -f "$tmp"/t9.[123]
		measure "$tmp/t9.$c" sh "$tmp/t9.sh"
		rss=0
		for i in 1 2 3; do rss=$(calc "$rss + $(largest "$tmp/t9.$i" 3)" 0); done
		wall=$(median "$tmp/t9.$c" 1)
		aim=$([ "$c" = f32 ] && echo "<= 0.333" || echo "<= 0.25")
		ratio=$(calc "$wall / ${QP_LLMC_SECONDS:-0.0001}")
		emit T9 "main job, SmolLM2-135M, 64 x 512, $c / llm-compressor's GPTQ" \
			"$(calc "$wall" 1) s" "${QP_LLMC_SECONDS:+$ratio}" \
			"${QP_LLMC_SECONDS:+$aim}" "$(noise "$tmp/t9.$c")"
		busy=$(median "$tmp/t9.$c" 2)
		emit T9 "  processor time / ($cores x wall), $c" "$(calc "$busy" 1) s" \
			"$(calc "$busy / ($cores * $wall)")" ""
		emit T9 "  peak RSS of its three programs together, $c / 2055 MB" \
			"$(calc "$rss / 1e6" 0) MB" "$(calc "$rss / 2055e6")" "<= 0.167"
	done
}

# T13: round to nearest and pack, against llama-quantize to Q4_0, both from the page cache and from
# weights of 16 bits, into files that nobody waits for (-o would see them on the disk).
round_peer() {
	if [ ! -x "${QP_LLAMACPP:-}/llama-quantize" ] || [ ! -f "${QP_IMATRIX_GGUF:-}" ] ||
	   [ ! -d "${QP_SMOLLM2:-}" ]; then
		emit T13 "not measured: QP_LLAMACPP, QP_IMATRIX_GGUF, QP_SMOLLM2" "" "" ""
		return
	fi
	"$QP_LLAMACPP/llama-quantize" "$QP_IMATRIX_GGUF" "$tmp/t13.16" F16 > "$tmp/t13.log" 2>&1
	cat "$tmp/t13.16" "$QP_SMOLLM2"/*.safetensors > /dev/null
	echo "measure $tmp/t13.1 rtn -q --codes -b 4 -g 32 $QP_SMOLLM2 |
		measure $tmp/t13.2 pack-int4 -q > $tmp/t13.bin" > "$tmp/t13.sh"
	for i in 1 2 3 4 5; do
		measure "$tmp/t13.them" "$QP_LLAMACPP/llama-quantize" "$tmp/t13.16" \
			"$tmp/t13.gguf" Q4_0 "$cores" > "$tmp/t13.log" 2>&1
		measure "$tmp/t13" sh "$tmp/t13.sh"
	done
	rss=$(calc "$(largest "$tmp/t13.1" 3) + $(largest "$tmp/t13.2" 3)" 0)
	emit T13 "llama-quantize Q4_0 of F16 / rtn --codes | pack-int4, SmolLM2-135M" \
		"$(calc "$(median "$tmp/t13" 1)") s" \
		"$(calc "$(median "$tmp/t13.them" 1) / $(median "$tmp/t13" 1)")" ">= 2" \
		"$(noise "$tmp/t13")"
	emit T13 "  peak RSS / llama-quantize's" "$(calc "$rss / 1e6" 0) MB" \
		"$(calc "$rss / $(largest "$tmp/t13.them" 3)")" "<= 0.5"
	rm -f "$tmp/t13.gguf" "$tmp/t13.16" "$tmp/t13.bin"
}

# T15: every stage takes all processors unless told otherwise, and they share the machine; against
# the best of what one could set by hand.  The ratio: best of those / the default.
threads_by_hand() {
	half=$(((cores + 1) / 2))
	for i in 1 2 3; do
		for set in "$cores 1" "$half $half" "1 $cores"; do
			cat > "$tmp/hand.sh" <<-END
				record-acts -q -j ${set% *} -c "$calib" "$model" |
					smooth -q -j 1 -a 0.5 |
					gptq -q -j ${set#* } -b 4 -g 64 |
					pack-int4 -q -o "$tmp/q.bin"
			END
			measure "$tmp/hand.${set% *}-${set#* }" sh "$tmp/hand.sh"
		done
		job hand "$model" "$calib"
	done
	best=
	for set in "$cores-1" "$half-$half" "1-$cores"; do
		t=$(median "$tmp/hand.$set" 1)
		if [ -z "$best" ] || [ "$(calc "$t < $best" 0)" = 1 ]; then best=$t which=$set; fi
	done
	emit T15 "  main job, best -j by hand ($which) / default" \
		"$(calc "$(median "$tmp/hand" 1)" 2) s" \
		"$(calc "$best / $(median "$tmp/hand" 1)")" ">= 0.97" "$(noise "$tmp/hand")"
}

# Where the time of the main job goes: what each stage says with -v.  Reading and writing are the
# processor's time, not the waiting for the neighbour.  The ratio: compute / all three.
profile() {
	record-acts -v -c "$calib" "$model" 2> "$tmp/v.record-acts" |
		smooth -v -a 0.5 2> "$tmp/v.smooth" |
		gptq -v -b 4 -g 64 2> "$tmp/v.gptq" |
		pack-int4 -v -o "$tmp/q.bin" 2> "$tmp/v.pack-int4"
	for p in record-acts smooth gptq pack-int4; do
		grep 'peak' "$tmp/v.$p" | tail -n 1 | awk -v p="$p" '{
			for (i = 1; i < NF; i++) {
				if ($i == "read") r = $(i + 1)
				else if ($i == "write") w = $(i + 1)
				else if ($i == "compute") c = $(i + 1)
			}
			if (r + c + w == 0) c = 1e-9
			printf "profile\t%s: read, compute, write\t%.2f; %.2f; %.2f s\t%.3f\t\t\n",
				p, r, c, w, c / (r + c + w) }' >> "$tsv"
	done
}

# Two blocks of 7B shapes in 4 bits to each engine's files (to-hf: to BF16), beside a program that
# does nothing but what cannot be spared: the same bytes read, as many written, on disk, and read
# again.  A linear of N weights is at most 4 N read back from GGUF by each of two threads, in
# pieces; the other layouts hold its words and its codes.
exports() {
	shape 7B 2
	rtn -q -b 4 -g 128 "$model" | pack-int4 -q > "$tmp/x.bin"
	linear=$((hidden * ffn))
	for i in 1 2 3 4 5; do
		for p in to-hf to-ct to-gguf to-gptq to-awq; do
			one_export $p "$tmp/x.bin" "$tmp/x.$p"
		done
	done
	for p in to-hf to-ct to-gguf to-gptq to-awq; do
		t=$(median "$tmp/x.$p" 1) rss=$(largest "$tmp/x.$p" 3)
		them=$(median "$tmp/x.$p.copied" 1)
		cat "$tmp/x.$p" "$tmp/x.$p.copied" > "$tmp/x.both"
		emit export "$p, 2 blocks of 7B, read back: copy, synced, read / it" \
			"$(calc "$t" 2) s" "$(calc "$them / $t")" ">= 0.6" "$(noise "$tmp/x.both")"
		emit export "  peak RSS / (4 bytes a weight of the largest linear + 24 MB)" \
			"$(calc "$rss / 1e6" 0) MB" "$(calc "$rss / (4 * $linear + 24e6)")" "<= 1"
	done
	rm -rf "$tmp"/x.*
}

# An exporter and the copy of as many bytes; their costs are appended to NAME and NAME.copied.
one_export() {	# one_export PROGRAM STREAM NAME
	case $1 in
	to-hf) how="--dequantize --dtype=bf16" ;;
	to-gguf) how=--no-vocab ;;
	*) how= ;;
	esac
	# shellcheck disable=SC2086 # options
	measure "$3" "$1" -q $how "$2" "$tmp/x.out"
	bytes=$(du -sb "$tmp/x.out" | cut -f 1)
	rm -rf "$tmp/x.out"
	measure "$3.copied" copied "$2" "$bytes" "$tmp/x.out"
	rm -rf "$tmp/x.out"
}

# A model of 32 blocks of 7B shapes, whose linears are zeros, holes of a file: what an exporter does
# with codes does not depend on them.  13 GB of BF16 that are not on the disk, 3.6 GB in 4 bits.
whole_model() {
	free=$(df -k --output=avail "$tmp" | tail -n 1)
	if [ "$free" -lt 12000000 ]; then
		emit export7B "not measured: 12 GB of disk wanted" "" "" ""
		return
	fi
	"$PYTHON" "$mkmodel" "$tmp/x.7B" hidden=4096 ffn=11008 heads=32 kv=32 layers=32 \
		vocab=32000 dtype=BF16 sparse=1
	rtn -q -b 4 -g 128 "$tmp/x.7B" | pack-int4 -q > "$tmp/x.bin"
	for p in to-ct to-gguf; do
		one_export $p "$tmp/x.bin" "$tmp/x.$p"
		t=$(median "$tmp/x.$p" 1) rss=$(largest "$tmp/x.$p" 3)
		emit export7B "$p, 7B whole: copy, synced, read / it" "$(calc "$t" 1) s" \
			"$(calc "$(median "$tmp/x.$p.copied" 1) / $t")" "" "$(noise "$tmp/x.$p")"
		emit export7B "  peak RSS / (the embedding, the largest tensor, + 24 MB)" \
			"$(calc "$rss / 1e6" 0) MB" \
			"$(calc "$rss / (2 * 4096 * 32000 + 24e6)")" "<= 1"
	done
	rm -rf "$tmp"/x.*
}
