/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn - round every weight of the linears to the nearest point of its group's grid
 *
 * Rewrites each block, copies every other record byte for byte.
 */
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/method/rtn.h"

static const char usage[] =
	"usage: rtn [options] [IN [OUT]]\n\n"
	"Quantize linears by rounding every weight to the nearest code.\n\n"
	"IN is a stream or a model directory.\n\n"
	"  -b, --bits=N         2 to 8 (default 4)\n"
	"  -g, --group-size=N   columns that share a scale; -1: a row, 0: the whole\n"
	"                       tensor (default 128)\n"
	"      --sym            grid centred on zero (default)\n"
	"      --asym           grid with a zero point\n"
	"      --mse            range of least error instead of the full one\n"
	"      --skip=REGEX     pass over linears whose tensor name matches\n"
	"      --scale-dtype=T  f16, bf16 or f32 (default f16)\n"
	"      --keep-ref       keep the original weights as well\n"
	"      --keep-stats     keep the Hessians\n"
	"      --timing         seconds in the notes\n";

enum { OPT_SYM = 256, OPT_ASYM, OPT_MSE, OPT_SKIP, OPT_SCALE, OPT_REF, OPT_STATS, OPT_TIMING };

static void options(int argc, char **argv, struct layer_options *o)
{
	static const char *const types[] = { "f16", "bf16", "f32", NULL };
	static const enum dtype dtypes[] = { DT_F16, DT_BF16, DT_F32 };
	static const struct option longopts[] = {
		{ "bits", required_argument, NULL, 'b' },
		{ "group-size", required_argument, NULL, 'g' },
		{ "sym", no_argument, NULL, OPT_SYM },
		{ "asym", no_argument, NULL, OPT_ASYM },
		{ "mse", no_argument, NULL, OPT_MSE },
		{ "skip", required_argument, NULL, OPT_SKIP },
		{ "scale-dtype", required_argument, NULL, OPT_SCALE },
		{ "keep-ref", no_argument, NULL, OPT_REF },
		{ "keep-stats", no_argument, NULL, OPT_STATS },
		{ "timing", no_argument, NULL, OPT_TIMING },
		{ 0 }
	};
	bool sym = false, asym = false;
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt("b:g:", longopts)) != -1)
		switch (c) {
		case 'b': o->q.bits = (int)cli_long("--bits", optarg, 2, 8); break;
		case 'g': o->q.group = cli_long("--group-size", optarg, -1, 1 << 24); break;
		case OPT_SYM: sym = true; break;
		case OPT_ASYM: asym = true; break;
		case OPT_MSE: o->q.mse = true; break;
		case OPT_SKIP:
			if (layer_add_skip(o, optarg, &e) < 0)
				cli_die(&e);
			break;
		case OPT_SCALE:
			o->q.scale_dtype = dtypes[cli_choice("--scale-dtype", optarg, types)];
			break;
		case OPT_REF: o->keep_ref = true; break;
		case OPT_STATS: o->keep_stats = true; break;
		case OPT_TIMING: o->timing = true; break;
		}
	if (sym && asym)
		cli_fail(ERR_USAGE, "--asym", "contradicts --sym");
	o->q.sym = !asym;
	cli_operands(0, 2);
}

static int copy(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	return stream_copy(out, in, rec, e);
}

int main(int argc, char **argv)
{
	struct layer_options o = { .by = "rtn", .q = { .bits = 4, .group = 128,
						       .scale_dtype = DT_F16 } };
	struct record head = { .rank = -1 };
	struct quantized z = { 0 };
	struct backend be;
	struct stream_out *out;
	struct stream_in *in;
	struct model model;
	struct block b;
	double seconds = 0, start;
	struct err e;
	const char *idle;
	int got;

	options(argc, argv, &o);
	if (source_open(&in, cli_operand(0), &e) < 0 ||
	    backend_open(&be, cli_device(), cli_threads(), &e) < 0 ||
	    stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    layer_check_groups(&o, &model, &e) < 0)
		cli_die(&e);
	if ((idle = layer_idle_skip(&o, &model)))
		cli_warn("--skip=%s matches no linear", idle);
	out = cli_open_out(cli_operand(1));
	if (stream_write_head(out, &head, cli_provenance(be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	progress_start("rtn", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, copy, out, &e)) > 0) {
		start = usage_seconds();
		if (rtn_block(&b, &z, &be, &o, &e) < 0)
			cli_die(&e);
		seconds += usage_seconds() - start;
		if (block_write(&b, out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	progress_finish();
	if (cli_verbose())
		cli_warn("read %.2f s, compute %.2f s, write %.2f s, peak %.1f MiB",
			 stream_in_seconds(in), seconds, stream_out_seconds(out),
			 (double)usage_peak_bytes() / 1048576);
	block_release(&b);
	quantized_release(&z);
	record_clear(&head);
	layer_options_release(&o);
	backend_close(&be);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
