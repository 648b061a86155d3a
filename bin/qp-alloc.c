/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-alloc - how many bits each linear gets, so that all together lose least
 *
 * Reads blocks, prints a plan.  The arithmetic is in lib/method/alloc*.c; the reasons are in
 * man/qp-alloc.body.
 */
#include <stdio.h>

#include "bin/device.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/method/alloc.h"

static const char usage[] =
	"usage: qp-alloc --budget=BITS|--bytes=N [options] [IN]\n\n"
	"Plan how many bits each linear gets, for gptq --plan and rtn --plan.\n\n"
	"      --budget=BITS    bits a weight on average, scales counted\n"
	"      --bytes=N        or bytes of all codes and scales\n"
	"      --widths=LIST    of these bits, comma between (default 2,3,4,5,6,8)\n"
	"      --for=ENGINE     any (default); vllm: 4 and 8 bits, q k v alike, gate and\n"
	"                       up alike; llama.cpp: 4, 5 and 8 bits\n"
	"      --fuse           q k v alike, gate and up alike, experts alike\n"
	"      --by=HOW         errors of plain (gptq without sweeps and searched ranges,\n"
	"                       default), of gptq, which takes longer, or of rtn\n"
	"      --alike          an error counts as much in any kind of linear\n"
	"  -g, --group-size=N   columns that share a scale; -1: a row, 0: the whole\n"
	"                       tensor (default 128)\n"
	"      --sym            grid centred on zero (default)\n"
	"      --asym           grid with a zero point\n"
	"      --act-order      as gptq will have it\n"
	"      --skip=REGEX     pass over linears whose tensor name matches\n"
	"      --table          print the errors instead of a plan\n";

enum {
	OPT_BUDGET = 256, OPT_BYTES, OPT_WIDTHS, OPT_FOR, OPT_FUSE, OPT_BY, OPT_ALIKE, OPT_SYM,
	OPT_ASYM, OPT_ORDER, OPT_SKIP, OPT_TABLE,
};

#define NEEDS(name, c) { name, required_argument, NULL, c }
#define ALONE(name, c) { name, no_argument, NULL, c }

static const struct option longopts[] = {
	NEEDS("budget", OPT_BUDGET), NEEDS("bytes", OPT_BYTES), NEEDS("widths", OPT_WIDTHS),
	NEEDS("for", OPT_FOR), ALONE("fuse", OPT_FUSE),
	NEEDS("by", OPT_BY), ALONE("alike", OPT_ALIKE), NEEDS("group-size", 'g'),
	ALONE("sym", OPT_SYM),
	ALONE("asym", OPT_ASYM), ALONE("act-order", OPT_ORDER), NEEDS("skip", OPT_SKIP),
	ALONE("table", OPT_TABLE), { 0 }
};

struct job {
	struct alloc_options o;
	struct alloc *alloc;
	struct model model;
	bool table;
	int grid, engine, by; /* by: 0 plain, 1 gptq, 2 rtn */
};

static void option(struct job *j, int c)
{
	static const char *const engines[] = { "any", "vllm", "llama.cpp", NULL };
	static const char *const trials[] = { "plain", "gptq", "rtn", NULL };
	struct alloc_options *o = &j->o;
	struct quantizer *q = &o->layers.q;
	struct err e;

	switch (c) {
	case OPT_BUDGET: o->bits = cli_double("--budget", optarg, 1, 32); break;
	case OPT_BYTES: o->bytes = (uint64_t)cli_long("--bytes", optarg, 1, INT64_MAX / 8); break;
	case OPT_WIDTHS:
		if (alloc_parse_widths(optarg, &o->widths, &e) < 0)
			cli_die(&e);
		break;
	case OPT_FOR: j->engine = cli_choice("--for", optarg, engines); break;
	case OPT_FUSE: o->fuse = FUSE_EDGE; break;
	case OPT_BY: j->by = cli_choice("--by", optarg, trials); break;
	case OPT_ALIKE: o->alike = true; break;
	case 'g': q->group = cli_long("--group-size", optarg, -1, 1 << 24); break;
	case OPT_SYM: case OPT_ASYM:
		if (j->grid && j->grid != c)
			cli_fail(ERR_USAGE, "--asym", "contradicts --sym");
		j->grid = c;
		q->sym = c == OPT_SYM;
		break;
	case OPT_ORDER: o->gptq.act_order = true; break;
	case OPT_SKIP:
		if (layer_add_skip(&o->layers, optarg, &e) < 0)
			cli_die(&e);
		break;
	case OPT_TABLE: j->table = true; break;
	}
}

static void options(int argc, char **argv, struct job *j)
{
	struct alloc_options *o = &j->o;
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_THREADS);
	while ((c = cli_getopt("g:", longopts)) != -1)
		option(j, c);
	if (!j->table && (o->bits > 0) == (o->bytes > 0))
		cli_fail(ERR_USAGE, "", "one of --budget and --bytes is needed");
	if (j->table && (o->bits > 0 || o->bytes > 0))
		cli_fail(ERR_USAGE, "--table", "has no size: without --budget and --bytes");
	if (j->table && (o->alike || o->fuse != FUSE_NONE))
		cli_fail(ERR_USAGE, "--table", "prints errors, which %s does not change",
			 o->alike ? "--alike" : "--fuse");
	if (j->by == 2 && o->gptq.act_order)
		cli_fail(ERR_USAGE, "--act-order", "is gptq's: without --by=rtn");
	if (alloc_suit_engine(o, (enum alloc_engine)j->engine, &e) < 0)
		cli_die(&e);
	o->rtn = j->by == 2;
	if (j->by == 1) /* gptq's defaults */
		o->layers.q.range = RANGE_HMSE;
	else
		o->gptq.sweeps = 0;
	cli_operands(0, 1);
}

/* What stands outside the blocks is no linear's. */
static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	(void)ctx, (void)in, (void)rec, (void)e;
	return 0;
}

static void finish(struct job *j, struct buf *out)
{
	struct alloc_sum s;
	struct err e;

	if (j->table)
		alloc_table(j->alloc, out);
	if (buf_failed(out, "", &e) < 0)
		cli_die(&e);
	if (j->table)
		return;
	if (alloc_plan(j->alloc, &j->model, out, &s, &e) < 0)
		cli_die(&e);
	cli_warn("%.4f bits a weight, predicted loss %.4g (uniform, %d bits: %.4g)", s.bits,
		 s.cost, s.uniform, s.uniform_cost);
}

int main(int argc, char **argv)
{
	struct job j = { .o = {
		.layers = { .by = "qp-alloc", .q = { .bits = 8, .group = 128, .sym = true,
						     .scale_dtype = DT_F16 } },
		.gptq = GPTQ_DEFAULTS,
	} };
	struct record head = { .rank = -1 };
	struct stream_in *in;
	struct backend be;
	struct buf out = { 0 };
	struct block b;
	const char *idle;
	struct err e;
	int got;

	options(argc, argv, &j);
	in = cli_open_in(cli_operand(0));
	open_device(&be);
	if (stream_next(in, &head, &e) < 0 || model_from_head(&j.model, &head, &e) < 0 ||
	    layer_check_groups(&j.o.layers, &j.model, &e) < 0 ||
	    alloc_suit_rows(&j.o, (enum alloc_engine)j.engine, &j.model, &e) < 0 ||
	    !(j.alloc = alloc_new(&be, &j.o, &e)))
		cli_die(&e);
	if ((idle = layer_idle_skip(&j.o.layers, &j.model)))
		cli_warn("--skip=%s matches no linear", idle);
	block_init(&b, &j.model);
	progress_start("qp-alloc", (uint64_t)j.model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		if (alloc_block(j.alloc, &b, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0)
		cli_die(&e);
	progress_finish();
	finish(&j, &out);
	cli_spent(stream_in_seconds(in), -1, 0, "%s", "");
	fwrite(out.p, 1, out.n, stdout);
	buf_release(&out);
	block_release(&b);
	alloc_free(j.alloc);
	record_clear(&head);
	layer_options_release(&j.o.layers);
	backend_close(&be);
	stream_close_in(in);
	return cli_finish_stdout(0);
}
