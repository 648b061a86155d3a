/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clip - cut the ranges of weights to where rounding them hurts the outputs least
 *
 * Rewrites each block, copies every other record byte for byte.  The arithmetic is in
 * lib/method/clip.c; the reasons are in man/clip.body.
 */
#include "bin/device.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/method/clip.h"

static const char usage[] =
	"usage: clip [options] [IN [OUT]]\n\n"
	"Clip weights to the ranges that cost the outputs least when they are rounded.\n\n"
	"  -b, --bits=N         rounded to 2 to 8 bits (default 4)\n"
	"  -g, --group-size=N   columns that share a scale, and a range; -1: a row\n"
	"                       (default 128)\n"
	"      --sym            grid centred on zero (default)\n"
	"      --asym           grid with a zero point\n"
	"      --n-grid=N       ranges are 1, 1 - 1/N, 1 - 2/N ... (default 20)\n"
	"      --max-shrink=X   and above 1 - X (default 0.5)\n"
	"      --qk             queries and keys as well\n"
	"      --skip=REGEX     pass over linears whose tensor name matches\n";

enum { OPT_SYM = 256, OPT_ASYM, OPT_GRID, OPT_SHRINK, OPT_QK, OPT_SKIP };

static const struct option longopts[] = {
	{ "bits", required_argument, NULL, 'b' },
	{ "group-size", required_argument, NULL, 'g' },
	{ "sym", no_argument, NULL, OPT_SYM },
	{ "asym", no_argument, NULL, OPT_ASYM },
	{ "n-grid", required_argument, NULL, OPT_GRID },
	{ "max-shrink", required_argument, NULL, OPT_SHRINK },
	{ "qk", no_argument, NULL, OPT_QK },
	{ "skip", required_argument, NULL, OPT_SKIP },
	{ 0 }
};

static int copy(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	return stream_copy(out, in, rec, e);
}

static void options(int argc, char **argv, struct clip_options *o)
{
	struct layer_options *l = &o->layers;
	struct err e;
	int c, grid = 0;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt("b:g:", longopts)) != -1)
		switch (c) {
		case 'b': l->q.bits = (int)cli_long("--bits", optarg, 2, 8); break;
		case 'g':
			l->q.group = cli_long("--group-size", optarg, -1, 1 << 24);
			if (l->q.group == 0)
				cli_fail(ERR_USAGE, "--group-size", "clip has a range for each "
					 "row at least; expected -1, or 1 or more");
			break;
		case OPT_SYM: case OPT_ASYM:
			if (grid && grid != c)
				cli_fail(ERR_USAGE, "--asym", "contradicts --sym");
			grid = c;
			l->q.sym = c == OPT_SYM;
			break;
		case OPT_GRID: o->n_grid = cli_long("--n-grid", optarg, 1, 1000); break;
		case OPT_SHRINK: o->max_shrink = cli_double("--max-shrink", optarg, 0, 1); break;
		case OPT_QK: o->all = true; break;
		case OPT_SKIP:
			if (layer_add_skip(l, optarg, &e) < 0)
				cli_die(&e);
			break;
		}
	cli_operands(0, 2);
}

int main(int argc, char **argv)
{
	struct clip_options o = {
		.layers = { .by = "clip", .q = { .bits = 4, .group = 128, .sym = true,
						 .scale_dtype = DT_F16 } },
		.n_grid = 20, .max_shrink = 0.5,
	};
	struct record head = { .rank = -1 };
	struct clip *clip = NULL;
	struct stream_out *out;
	struct stream_in *in;
	struct backend be;
	struct model model;
	struct block b;
	double seconds = 0, start;
	const char *idle;
	struct err e;
	int got;

	options(argc, argv, &o);
	in = cli_open_in(cli_operand(0));
	open_device(&be);
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    layer_check_groups(&o.layers, &model, &e) < 0 || !(clip = clip_new(&be, &o, &e)))
		cli_die(&e);
	if ((idle = layer_idle_skip(&o.layers, &model)))
		cli_warn("--skip=%s matches no linear", idle);
	out = cli_open_out(cli_operand(1));
	if (stream_write_head(out, &head, cli_provenance(be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	progress_start("clip", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, copy, out, &e)) > 0) {
		start = usage_seconds();
		if (clip_block(clip, &b, &e) < 0)
			cli_die(&e);
		seconds += usage_seconds() - start;
		if (block_write(&b, out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), seconds, stream_out_seconds(out), "%s", "");
	block_release(&b);
	clip_free(clip);
	record_clear(&head);
	layer_options_release(&o.layers);
	backend_close(&be);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
