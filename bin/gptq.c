/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq - quantize linears a column at a time, each column's error pushed into those left
 *
 * Rewrites each block, copies every other record byte for byte.  The arithmetic is in
 * lib/method/gptq*.c; the reasons are in man/gptq.body.
 */
#include "bin/device.h"
#include "bin/quantizer_options.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/method/gptq.h"

static const char usage[] =
	"usage: gptq [options] [IN [OUT]]\n\n"
	"Quantize linears column by column, pushing each error into those left.\n\n"
	QUANTIZER_HELP_GRID("hmse")
	"      --act-order      columns by falling energy; implies --static-groups\n"
	"      --static-groups  fit every scale before the first column\n"
	"      --sweeps=N       after the columns, codes once more, N times (default 2)\n"
	"      --refit-scales   scales by least squares before each sweep\n"
	"      --plain          as published: --range=minmax --sweeps=0 --shrink=0\n"
	"      --damp=X         added to H, in units of its mean diagonal (default 0.01)\n"
	"      --shrink=X       added to H, in units of its own diagonal (default 0.2)\n"
	"      --no-damp-auto   fail where more damping would be needed\n"
	"      --block=N        columns in a lazy batch (default 128, wide layers 256)\n"
	"      --sequential     Hessians behind what is quantized, not the stream's\n"
	"      --target=WHAT    what layers give: self (default), or full: as before\n"
	"      --spill[=DIR]    its hidden states in a file in DIR (default /var/tmp)\n"
	"      --min-tokens=N   an expert with fewer is starved (default 128)\n"
	"      --starved=HOW    stop (default), rtn, or borrow the whole layer's H\n"
	QUANTIZER_HELP_LAYERS;

enum {
	OPT_ORDER = OPT_QUANTIZER_END, OPT_STATIC, OPT_SWEEPS, OPT_REFIT, OPT_DAMP,
	OPT_NO_AUTO, OPT_BLOCK, OPT_PLAIN, OPT_SEQUENTIAL, OPT_TARGET, OPT_SPILL, OPT_MIN_TOKENS,
	OPT_STARVED, OPT_SHRINK,
};

static const struct option longopts[] = {
	QUANTIZER_LONG,
	{ "act-order", no_argument, NULL, OPT_ORDER },
	{ "static-groups", no_argument, NULL, OPT_STATIC },
	{ "sweeps", required_argument, NULL, OPT_SWEEPS },
	{ "plain", no_argument, NULL, OPT_PLAIN },
	{ "refit-scales", no_argument, NULL, OPT_REFIT },
	{ "damp", required_argument, NULL, OPT_DAMP },
	{ "shrink", required_argument, NULL, OPT_SHRINK },
	{ "no-damp-auto", no_argument, NULL, OPT_NO_AUTO },
	{ "block", required_argument, NULL, OPT_BLOCK },
	{ "sequential", no_argument, NULL, OPT_SEQUENTIAL },
	{ "target", required_argument, NULL, OPT_TARGET },
	{ "spill", optional_argument, NULL, OPT_SPILL },
	{ "min-tokens", required_argument, NULL, OPT_MIN_TOKENS },
	{ "starved", required_argument, NULL, OPT_STARVED },
	{ 0 }
};

struct job {
	struct gptq_options opt;
	struct layer_options layers;
	bool sequential;
	const char *spill;
	struct gptq *g;
	struct gptq_sequence *sequence;
	struct block front; /* what is quantized outside the blocks */
	struct stream_out *out;
};

static void options(int argc, char **argv, struct job *j)
{
	static const char *const starved[] = { "stop", "rtn", "borrow", NULL };
	static const char *const target[] = { "self", "full", NULL };
	struct layer_options *o = &j->layers;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS | CLI_COMPUTE);
	while ((c = cli_getopt(QUANTIZER_SHORT, longopts)) != -1)
		switch (c) {
		case OPT_ORDER: j->opt.act_order = true; break;
		case OPT_STATIC: j->opt.static_groups = true; break;
		case OPT_SWEEPS: j->opt.sweeps = cli_long("--sweeps", optarg, 0, 100); break;
		case OPT_PLAIN:
			o->q.range = RANGE_MINMAX;
			j->opt.shrink = j->opt.sweeps = 0;
			j->opt.refit = false;
			break;
		case OPT_REFIT: j->opt.refit = true; break;
		case OPT_DAMP: j->opt.damp = cli_double("--damp", optarg, 0, 1); break;
		case OPT_SHRINK: j->opt.shrink = cli_double("--shrink", optarg, 0, 10); break;
		case OPT_NO_AUTO: j->opt.damp_auto = false; break;
		case OPT_BLOCK: j->opt.block = cli_long("--block", optarg, 1, 4096); break;
		case OPT_SEQUENTIAL: j->sequential = true; break;
		case OPT_TARGET: j->opt.target = cli_choice("--target", optarg, target); break;
		case OPT_SPILL: j->spill = optarg ? optarg : "/var/tmp"; cli_note_none(); break;
		case OPT_MIN_TOKENS:
			j->opt.min_tokens = cli_long("--min-tokens", optarg, 0, INT32_MAX);
			break;
		case OPT_STARVED:
			j->opt.starved = (enum gptq_starved)cli_choice("--starved", optarg,
								       starved);
			break;
		default: quantizer_option(o, c); break;
		}
	if (j->sequential && o->keep_stats)
		cli_fail(ERR_USAGE, "--keep-stats", "contradicts --sequential, which uses no "
			 "Hessians of the stream");
	if (j->opt.target && !j->sequential)
		cli_fail(ERR_USAGE, "--target=full", "needs --sequential, which carries the inputs "
			 "of both models");
	if (j->spill && !j->sequential)
		cli_fail(ERR_USAGE, "--spill", "without --sequential there is nothing to spill");
	cli_operands(0, 2);
	quantizer_options_end(o);
	j->opt.q = o->q;
	if (o->q.grid && j->opt.refit)
		cli_fail(ERR_USAGE, "--refit-scales", "contradicts --grid");
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;

	return j->sequence ? gptq_sequence_other(j->sequence, in, rec, j->out, e) :
			     gptq_other(j->g, &j->front, in, rec, j->out, e);
}

/* Where the time went. */
static void report(const struct gptq *g, struct stream_in *in, struct stream_out *out,
		   double seconds)
{
	double factor, solve;

	gptq_seconds(g, &factor, &solve);
	cli_spent(stream_in_seconds(in), seconds, stream_out_seconds(out),
		  "factor %.2f s, solve %.2f s", factor, solve);
}

int main(int argc, char **argv)
{
	struct job j = {
		.opt = GPTQ_DEFAULTS,
		.layers = { .by = "gptq", .q = QUANTIZER_DEFAULTS(RANGE_HMSE) },
	};
	struct record head = { .rank = -1 };
	struct backend be;
	struct stream_in *in;
	struct model model;
	struct block b;
	const char *idle;
	double seconds = 0, start;
	struct err e;
	int got;

	options(argc, argv, &j);
	in = cli_open_in(cli_operand(0));
	open_device(&be);
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    layer_check_groups(&j.layers, &model, &e) < 0 ||
	    !(j.g = gptq_new(&be, &j.opt, &j.layers, &e)) ||
	    (j.sequential && !(j.sequence = gptq_sequence_new(j.g, &model, &be, j.spill, &e))))
		cli_die(&e);
	if ((idle = layer_idle_skip(&j.layers, &model)))
		cli_warn("--skip=%s matches no linear", idle);
	j.out = cli_open_out(cli_operand(1));
	if (stream_write_head(j.out, &head, cli_provenance(be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	block_init(&j.front, &model);
	b.hook = j.sequence ? &gptq_sequence_hook : NULL;
	progress_start("gptq", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		start = usage_seconds();
		if (block_write_front(&j.front, j.out, &e) < 0 ||
		    (j.sequence ? gptq_sequence_block(j.sequence, &b, &e) :
				  gptq_block(j.g, &b, &e)) < 0)
			cli_die(&e);
		seconds += usage_seconds() - start;
		if (block_write(&b, j.out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(j.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	if (gptq_short(j.g) && !cli_quiet())
		cli_warn("%ld layers had fewer calibration tokens than columns and look better "
			 "than they are (qp-ls --errors marks them)", gptq_short(j.g));
	report(j.g, in, j.out, seconds);
	block_release(&b);
	block_release(&j.front);
	gptq_sequence_free(j.sequence);
	gptq_free(j.g);
	record_clear(&head);
	layer_options_release(&j.layers);
	backend_close(&be);
	stream_close_out(j.out);
	stream_close_in(in);
	return 0;
}
