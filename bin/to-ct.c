/* SPDX-License-Identifier: Apache-2.0 */
/*
 * to-ct - a quantized stream as a compressed-tensors directory
 */
#include "bin/exporting.h"
#include "formats/ct_write.h"

static const char usage[] =
	"usage: to-ct [options] MODEL DIR\n\n"
	"Write a quantized model as a directory in the compressed-tensors format.\n\n"
	"MODEL: a stream, or - (standard input).\n\n"
	"      --activations=A  none: weights only (default); dynamic-token: engines\n"
	"                       round activations to 8 bits, with a scale for each token\n"
	"      --dtype=T        bf16, f16 or f32, for what is not in codes (default: as\n"
	"                       in the stream)\n"
	EXPORTING_HELP;

enum { OPT_ACTIVATIONS = OPT_OWN };

int main(int argc, char **argv)
{
	static const char *const acts[] = { "none", "dynamic-token", NULL };
	static const struct option longopts[] = {
		{ "activations", required_argument, NULL, OPT_ACTIVATIONS },
		EXPORTING_OPTIONS
	};
	struct ct_options o = { .progress = progress_step };
	struct exporting ex;
	struct err e;
	int c;

	exporting_init(&ex, argc, argv, usage);
	while ((c = cli_getopt("", longopts)) != -1)
		if (c == OPT_ACTIVATIONS)
			o.dynamic_token = cli_choice("--activations", optarg, acts) == 1;
		else
			exporting_option(&ex, c);
	exporting_open(&ex);
	o.dtype = ex.dtype;
	o.max_shard = ex.max_shard;
	if (ct_write(&ex.dir, ex.in, &ex.x, &o, &e) < 0)
		cli_die(&e);
	return exporting_done(&ex, "in codes");
}
