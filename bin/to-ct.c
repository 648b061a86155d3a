/* SPDX-License-Identifier: Apache-2.0 */
/*
 * to-ct - a quantized stream as a compressed-tensors directory
 */
#include "formats/ct_write.h"
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"

static const char usage[] =
	"usage: to-ct [options] MODEL DIR\n\n"
	"Write a quantized model as a directory in the compressed-tensors format.\n\n"
	"MODEL: a stream, or - (standard input).\n\n"
	"      --activations=A  none: weights only (default); dynamic-token: engines\n"
	"                       round activations to 8 bits, with a scale for each token\n"
	"      --dtype=T        bf16, f16 or f32, for what is not in codes (default: as\n"
	"                       in the stream)\n"
	"      --max-shard=N    bytes of tensors in a file, with K, M or G (default 5G)\n"
	"      --force          replace DIR if it is there\n";

enum { OPT_DTYPE = 256, OPT_ACTIVATIONS, OPT_SHARD, OPT_FORCE };

static const enum dtype dtypes[] = { DT_BF16, DT_F16, DT_F32 };

static bool options(int argc, char **argv, struct ct_options *o)
{
	static const char *const types[] = { "bf16", "f16", "f32", NULL };
	static const char *const acts[] = { "none", "dynamic-token", NULL };
	static const struct option longopts[] = {
		{ "activations", required_argument, NULL, OPT_ACTIVATIONS },
		{ "dtype", required_argument, NULL, OPT_DTYPE },
		{ "max-shard", required_argument, NULL, OPT_SHARD },
		{ "force", no_argument, NULL, OPT_FORCE },
		{ 0 }
	};
	bool force = false;
	int c;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("", longopts)) != -1)
		switch (c) {
		case OPT_ACTIVATIONS:
			o->dynamic_token = cli_choice("--activations", optarg, acts) == 1;
			break;
		case OPT_DTYPE: o->dtype = dtypes[cli_choice("--dtype", optarg, types)]; break;
		case OPT_FORCE: force = true; break;
		case OPT_SHARD:
			o->max_shard = export_shard_size(optarg);
			if (o->max_shard == 0)
				cli_fail(ERR_USAGE, "--max-shard", "expected a size as 5G, 500M "
					 "or 1000000, got '%s'", optarg);
			break;
		}
	cli_operands(2, 2);
	return force;
}

int main(int argc, char **argv)
{
	struct ct_options o = { .max_shard = 5000000000, .progress = progress_step };
	struct export x = { 0 };
	struct stream_in *in;
	struct outdir dir;
	struct err e;
	const bool force = options(argc, argv, &o);

	if (source_open(&in, cli_operand(0), &e) < 0 || export_open(&x, in, &e) < 0)
		cli_die(&e);
	cli_open_dir(&dir, cli_operand(1), force);
	progress_start("to-ct", (uint64_t)x.model.cfg.layers, "blocks", cli_quiet());
	if (ct_write(&dir, in, &x, &o, &e) < 0)
		cli_die(&e);
	cli_commit_dir(&dir);
	progress_finish();
	if (cli_verbose())
		cli_warn("%ld linears in codes, read %.2f s, peak %.1f MiB", x.n_codes,
			 stream_in_seconds(in), (double)usage_peak_bytes() / 1048576);
	export_close(&x);
	stream_close_in(in);
	return 0;
}
