/* SPDX-License-Identifier: Apache-2.0 */
/*
 * to-gptq - codes of a stream as a model directory in GPTQ's layout
 */
#include "bin/exporting.h"
#include "formats/gptq_write.h"

static const char usage[] =
	"usage: to-gptq [options] MODEL DIR\n\n"
	"Write a quantized model as a Hugging Face directory in the layout of GPTQ.\n\n"
	"MODEL: a stream, or - (standard input).\n\n"
	"      --v2             checkpoint_format gptq_v2: zeros as they are\n"
	"      --dtype=T        of weights without codes: bf16, f16 or f32 (default: what\n"
	"                       each had in the checkpoint)\n"
	"      --requantize     round what the layout cannot hold, and say how much it\n"
	"                       costs, instead of refusing it\n"
	EXPORTING_HELP;

enum { OPT_V2 = OPT_OWN, OPT_REQUANTIZE };

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "v2", no_argument, NULL, OPT_V2 },
		{ "requantize", no_argument, NULL, OPT_REQUANTIZE },
		EXPORTING_OPTIONS
	};
	struct gptq_write_options o = { .progress = progress_step };
	struct exporting ex;
	struct err e;
	int c;

	exporting_init(&ex, argc, argv, usage);
	while ((c = cli_getopt("", longopts)) != -1)
		if (c == OPT_V2)
			o.v2 = true;
		else if (c == OPT_REQUANTIZE)
			o.requantize = true;
		else
			exporting_option(&ex, c);
	exporting_open(&ex);
	o.dtype = ex.dtype;
	o.max_shard = ex.max_shard;
	if (gptq_write(&ex.dir, ex.in, &ex.x, &o, &e) < 0)
		cli_die(&e);
	return exporting_done(&ex, "in codes");
}
