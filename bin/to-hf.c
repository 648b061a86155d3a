/* SPDX-License-Identifier: Apache-2.0 */
/*
 * to-hf - a stream as a Hugging Face model directory of plain weights
 */
#include "bin/exporting.h"
#include "formats/hf_write.h"

static const char usage[] =
	"usage: to-hf [options] MODEL DIR\n\n"
	"Write a model as a Hugging Face directory of plain weights.\n\n"
	"MODEL: a stream, - (standard input), a directory, a GGUF or llama2.c file.\n\n"
	"      --dtype=T        bf16, f16 or f32 (default: what each tensor had in the\n"
	"                       checkpoint that the stream was made of)\n"
	"      --dequantize     write codes as the weights they stand for\n"
	EXPORTING_HELP;

enum { OPT_DEQUANTIZE = OPT_OWN };

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "dequantize", no_argument, NULL, OPT_DEQUANTIZE },
		EXPORTING_OPTIONS
	};
	struct hf_write_options o = { .progress = progress_step };
	struct exporting ex;
	struct err e;
	int c;

	exporting_init(&ex, argc, argv, usage);
	while ((c = cli_getopt("", longopts)) != -1)
		if (c == OPT_DEQUANTIZE)
			o.dequantize = true;
		else
			exporting_option(&ex, c);
	exporting_open(&ex);
	o.dtype = ex.dtype;
	o.max_shard = ex.max_shard;
	if (hf_write(&ex.dir, ex.in, &ex.x, &o, &e) < 0)
		cli_die(&e);
	return exporting_done(&ex, "dequantized");
}
