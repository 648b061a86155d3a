/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smooth - move activation outliers into the weights they multiply
 *
 * Rewrites each block, copies every other record byte for byte.  The arithmetic is in
 * lib/method/smooth.c and search.c; the reasons are in man/smooth.body.
 */
#include "bin/device.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/method/search.h"

static const char usage[] =
	"usage: smooth [options] [IN [OUT]]\n\n"
	"Move activation outliers into the weights they multiply.\n\n"
	"  -a, --alpha=ALPHA    0: flat weights ... 1: flat activations (default 0.5)\n"
	"      --edges=LIST     attn.in attn.mid mlp.in mlp.mid, comma between, or all\n"
	"                       that are legal (default all)\n"
	"      --search=WHAT    instead of a formula the map that hurts the outputs least\n"
	"                       when weights (w), or activations too (wa), are rounded:\n"
	"  -b, --bits=N         to 2 to 8 bits (default 4)\n"
	"  -g, --group-size=N   columns that share a scale; -1: a row, 0: the whole\n"
	"                       tensor (default 128)\n"
	"      --sym            on a grid centred on zero (default)\n"
	"      --asym           on a grid with a zero point\n"
	"      --act-bits=N     activations to 2 to 8 bits, by token (default 8)\n"
	"      --duo            the weights' magnitudes count as well\n"
	"      --n-grid=N       maps tried on an edge (default 20)\n"
	"      --stat=KIND      of activations: rms (default), absmean, absmax\n"
	"      --loss=FROM      hessian (default of w) or samples (of wa)\n";

enum {
	OPT_EDGES = 256, OPT_SEARCH, OPT_SYM, OPT_ASYM, OPT_ACT, OPT_DUO, OPT_GRID, OPT_STAT,
	OPT_LOSS,
};

static const struct option longopts[] = {
	{ "alpha", required_argument, NULL, 'a' },
	{ "edges", required_argument, NULL, OPT_EDGES },
	{ "search", required_argument, NULL, OPT_SEARCH },
	{ "bits", required_argument, NULL, 'b' },
	{ "group-size", required_argument, NULL, 'g' },
	{ "sym", no_argument, NULL, OPT_SYM },
	{ "asym", no_argument, NULL, OPT_ASYM },
	{ "act-bits", required_argument, NULL, OPT_ACT },
	{ "duo", no_argument, NULL, OPT_DUO },
	{ "n-grid", required_argument, NULL, OPT_GRID },
	{ "stat", required_argument, NULL, OPT_STAT },
	{ "loss", required_argument, NULL, OPT_LOSS },
	{ 0 }
};

struct job {
	struct search_options o;
	int search;       /* 0: none, 1: w, 2: wa */
	int loss;         /* 0: not given, 1: hessian, 2: samples */
	const char *lone; /* an option that --search must explain, and the last such */
	bool alpha;
	int grid;         /* --sym or --asym, whichever came */
};

static int copy(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	return stream_copy(out, in, rec, e);
}

/* Options that only a search obeys. */
static void search_option(struct job *j, int c)
{
	static const char *const stats[] = { "rms", "absmean", "absmax", NULL };
	static const char *const losses[] = { "hessian", "samples", NULL };
	struct search_options *o = &j->o;

	switch (c) {
	case 'b': o->q.bits = (int)cli_long(j->lone = "--bits", optarg, 2, 8); break;
	case 'g':
		o->q.group = cli_long(j->lone = "--group-size", optarg, -1, 1 << 24);
		break;
	case OPT_SYM: case OPT_ASYM:
		j->lone = c == OPT_SYM ? "--sym" : "--asym";
		if (j->grid && j->grid != c)
			cli_fail(ERR_USAGE, "--asym", "contradicts --sym");
		j->grid = c;
		o->q.sym = c == OPT_SYM;
		break;
	case OPT_ACT: o->act_bits = (int)cli_long(j->lone = "--act-bits", optarg, 2, 8); break;
	case OPT_DUO: o->duo = true; j->lone = "--duo"; break;
	case OPT_GRID: o->n_grid = cli_long(j->lone = "--n-grid", optarg, 1, 1000); break;
	case OPT_STAT:
		o->stat = (enum search_stat)cli_choice(j->lone = "--stat", optarg, stats);
		break;
	case OPT_LOSS: j->loss = 1 + cli_choice(j->lone = "--loss", optarg, losses); break;
	}
}

static void options(int argc, char **argv, struct job *j)
{
	static const char *const searches[] = { "w", "wa", NULL };
	struct search_options *o = &j->o;
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt("a:b:g:", longopts)) != -1)
		switch (c) {
		case 'a':
			o->smooth.alpha = cli_double("--alpha", optarg, 0, 1);
			j->alpha = true;
			break;
		case OPT_EDGES:
			if (smooth_parse_edges(optarg, &o->smooth.edges, &e) < 0)
				cli_die(&e);
			break;
		case OPT_SEARCH: j->search = 1 + cli_choice("--search", optarg, searches); break;
		default: search_option(j, c); break;
		}
	if (!j->search && j->lone)
		cli_fail(ERR_USAGE, j->lone, "without --search nothing reads it");
	if (j->search && j->alpha)
		cli_fail(ERR_USAGE, "--alpha", "contradicts --search, which finds it");
	if (j->search == 1 && o->act_bits)
		cli_fail(ERR_USAGE, "--act-bits", "activations are rounded in --search=wa only");
	if (j->search == 2 && j->loss == 1)
		cli_fail(ERR_USAGE, "--loss", "--search=wa needs samples: a Hessian does not say "
			 "what rounding activations costs");
	if (j->search == 2 && !o->act_bits)
		o->act_bits = 8;
	o->samples = j->search == 2 || j->loss == 2;
	cli_operands(0, 2);
}

int main(int argc, char **argv)
{
	struct job j = { .o = {
		.smooth = { .alpha = 0.5, .edges = SMOOTH_ALL },
		.q = { .bits = 4, .group = 128, .sym = true, .scale_dtype = DT_F16 },
		.n_grid = 20,
	} };
	struct record head = { .rank = -1 };
	struct search *search = NULL;
	struct stream_out *out;
	struct stream_in *in;
	struct backend be;
	struct model model;
	struct block b;
	double seconds = 0, start;
	struct err e;
	int got;

	options(argc, argv, &j);
	in = cli_open_in(cli_operand(0));
	open_device(&be);
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    (j.search ? search_check(&model, &j.o, &e) :
			smooth_check(&model, &j.o.smooth, &e)) < 0 ||
	    (j.search && !(search = search_new(&be, &j.o, &e))))
		cli_die(&e);
	out = cli_open_out(cli_operand(1));
	if (stream_write_head(out, &head, cli_provenance(j.search ? be.name : NULL), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	progress_start("smooth", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, copy, out, &e)) > 0) {
		start = usage_seconds();
		if ((search ? search_block(search, &b, &e) :
			      smooth_block(&b, &j.o.smooth, &e)) < 0)
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
	search_free(search);
	record_clear(&head);
	backend_close(&be);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
