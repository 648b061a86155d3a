/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant-acts - mark activations to be quantized at run time
 *
 * Adds run records to each block; every other record is copied byte for byte.
 */

#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/method/quant_acts.h"

static const char usage[] =
	"usage: quant-acts [options] [IN [OUT]]\n\n"
	"Mark activations to be quantized when the model runs.\n\n"
	"  -p, --preset=NAME    w8a8 w4a8 w4a4 w4a4kv4 fp8; options after it change it\n"
	"  -b, --bits=N         2 to 8 (default 8)\n"
	"      --format=F       int or e4m3 (default int)\n"
	"      --sym, --asym    grids around 0 (default), or from minimum to maximum\n"
	"      --rule=NAME      quarot gptq awq smoothquant omniquant ostquant\n"
	"                       awrq fqt ct\n"
	"      --per=WHAT       a grid a tensor, token, or head (default token)\n"
	"  -g, --group-size=N   a grid for every N channels of a token\n"
	"      --static         ranges from the statistics of the stream\n"
	"      --clip=C         narrow ranges: a ratio; static: or 99.9%, or mse\n"
	"      --clamp[=N]      codes of N channels (128) to 4 bits where 6 hold them\n"
	"      --clamp-by=WHAT  which: range or, of codes from 0 on, bits (default range)\n"
	"      --compat         its midpoints rounded down, as published\n"
	"  -e, --edges=LIST     attn.in attn.mid mlp.in mlp.mid, or none (default all)\n"
	"      --skip=LIST      not these: mlp.mid, layers.0, layers.3.attn.in ...\n"
	"      --kv=N           keys and values to N bits or e4m3, a grid a head\n"
	"      --kv-static      a range a head from the statistics; of e4m3 one for all\n"
	"      --kv-raw         keys before their rotation\n"
	"      --kv-window=N    the last N tokens as they are\n"
	"      --kv-clip=R      ratio for their ranges (default 1)\n"
	"      --probs=N        attention probabilities to N bits\n"
	"      --resid=N        the residual stream to N bits\n";

enum {
	OPT_FORMAT = 256, OPT_SYM, OPT_ASYM, OPT_RULE, OPT_PER, OPT_STATIC, OPT_CLIP, OPT_SKIP,
	OPT_KV, OPT_KV_STATIC, OPT_KV_RAW, OPT_KV_WINDOW, OPT_KV_CLIP, OPT_PROBS, OPT_RESID,
	OPT_CLAMP, OPT_CLAMP_BY, OPT_COMPAT
};

static const struct option longopts[] = {
	{ "preset", required_argument, NULL, 'p' },
	{ "bits", required_argument, NULL, 'b' },
	{ "format", required_argument, NULL, OPT_FORMAT },
	{ "sym", no_argument, NULL, OPT_SYM },
	{ "asym", no_argument, NULL, OPT_ASYM },
	{ "rule", required_argument, NULL, OPT_RULE },
	{ "per", required_argument, NULL, OPT_PER },
	{ "group-size", required_argument, NULL, 'g' },
	{ "static", no_argument, NULL, OPT_STATIC },
	{ "clip", required_argument, NULL, OPT_CLIP },
	{ "clamp", optional_argument, NULL, OPT_CLAMP },
	{ "clamp-by", required_argument, NULL, OPT_CLAMP_BY },
	{ "compat", no_argument, NULL, OPT_COMPAT },
	{ "edges", required_argument, NULL, 'e' },
	{ "skip", required_argument, NULL, OPT_SKIP },
	{ "kv", required_argument, NULL, OPT_KV },
	{ "kv-static", no_argument, NULL, OPT_KV_STATIC },
	{ "kv-raw", no_argument, NULL, OPT_KV_RAW },
	{ "kv-window", required_argument, NULL, OPT_KV_WINDOW },
	{ "kv-clip", required_argument, NULL, OPT_KV_CLIP },
	{ "probs", required_argument, NULL, OPT_PROBS },
	{ "resid", required_argument, NULL, OPT_RESID },
	{ 0 }
};

static void check(int ret, const struct err *e)
{
	if (ret < 0)
		cli_die(e);
}

static void set_per(struct quant_acts *a, const char *arg)
{
	static const char *const what[] = { "tensor", "token", "head", NULL };
	const int per = cli_choice("--per", arg, what);

	a->heads = per == 2;
	a->q.per = per == 2 ? QUANT_GROUP : (enum quant_per)per;
}

static void set_format(struct quant_acts *a, const char *arg)
{
	static const char *const formats[] = { "int", "e4m3", NULL };

	a->q.format = (enum quant_format)cli_choice("--format", arg, formats);
	if (a->q.format == QUANT_E4M3)
		a->q.sym = true;
}

/* Options of the clamp, and of what stands at keys, values, probabilities, the residual stream. */
static void other_option(int c, struct quant_acts *a)
{
	static const char *const by[] = { "range", "bits", NULL };
	struct clamp *clamp = &a->q.clamp;
	struct err e;

	switch (c) {
	case OPT_CLAMP:
		clamp->group = optarg == NULL ? 128 :
			       (size_t)cli_long("--clamp", optarg, 2, CLAMP_MAX);
		break;
	case OPT_CLAMP_BY: clamp->by = cli_choice("--clamp-by", optarg, by); break;
	case OPT_COMPAT: clamp->compat = true; break;
	case OPT_KV: check(quant_acts_kv(optarg, a, &e), &e); break;
	case OPT_KV_STATIC: a->kv_fixed = true; break;
	case OPT_KV_RAW: a->kv_raw = true; break;
	case OPT_KV_WINDOW: a->kv_window = cli_long("--kv-window", optarg, 1, 1 << 24); break;
	case OPT_KV_CLIP: a->kv_clip = cli_double("--kv-clip", optarg, 0.01, 1); break;
	case OPT_PROBS: a->probs = (int)cli_long("--probs", optarg, 2, 8); break;
	case OPT_RESID: a->resid = (int)cli_long("--resid", optarg, 2, 8); break;
	}
}

static void options(int argc, char **argv, struct quant_acts *a)
{
	bool ruled = false, preset = false, bits = false;
	bool per = false, group = false, sym = false, asym = false;
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_OUT);
	while ((c = cli_getopt("p:b:g:e:", longopts)) != -1)
		switch (c) {
		case 'p': check(quant_acts_preset(optarg, a, &e), &e); preset = true; break;
		case 'b': a->q.bits = (int)cli_long("--bits", optarg, 2, 8); bits = true; break;
		case OPT_FORMAT: set_format(a, optarg); break;
		case OPT_SYM: a->q.sym = sym = true; break;
		case OPT_ASYM: a->q.sym = false; asym = true; break;
		case OPT_RULE: check(quant_acts_rule(optarg, a, &e), &e); ruled = true; break;
		case OPT_PER: set_per(a, optarg); per = true; break;
		case 'g':
			a->q.group = (size_t)cli_long("--group-size", optarg, 1, 1 << 24);
			a->q.per = QUANT_GROUP;
			a->heads = false;
			group = true;
			break;
		case OPT_STATIC: a->fixed = true; break;
		case OPT_CLIP: check(quant_acts_clip(optarg, a, &e), &e); break;
		case 'e': check(quant_acts_edges(optarg, &a->edges, &e), &e); break;
		case OPT_SKIP: a->skip = optarg; break;
		default: other_option(c, a);
		}
	if ((sym && asym) || (per && group))
		cli_fail(ERR_USAGE, sym && asym ? "--asym" : "--group-size", "contradicts %s",
			 sym && asym ? "--sym" : "--per");
	/* QuaRot's where there is a symmetric grid, GPTQ's range otherwise. */
	if (!ruled && !(preset && quant_rule_has(a->q.rule, a->q.sym)))
		a->q.rule = a->q.sym ? QUANT_QUAROT : QUANT_GPTQ;
	if (a->q.format == QUANT_E4M3 && (!a->q.sym || (bits && a->q.bits != 8)))
		cli_fail(ERR_USAGE, "--format", "e4m3 has 8 bits and is symmetric");
	a->told = bits || ruled || per || group || sym || asym || a->fixed ||
		  (!preset && (a->clip != CLIP_NONE || a->q.format == QUANT_E4M3));
	cli_operands(0, 2);
}

static int copy(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	return stream_copy(out, in, rec, e);
}

int main(int argc, char **argv)
{
	struct quant_acts a = { .q = { .bits = 8, .sym = true, .per = QUANT_TOKEN, .clip = 1 },
				.edges = (1u << (EDGE_MLP_MID + 1)) - 1, .kv_clip = 1 };
	struct record head = { .rank = -1 };
	struct stream_out *out;
	struct stream_in *in;
	struct model model;
	struct block b;
	struct err e;
	int got;

	options(argc, argv, &a);
	in = cli_open_in(cli_operand(0));
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    quant_acts_check(&a, &model, &e) < 0)
		cli_die(&e);
	out = cli_open_out(cli_operand(1));
	check(stream_write_head(out, &head, cli_provenance(NULL), &e), &e);
	block_init(&b, &model);
	progress_start("quant-acts", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, copy, out, &e)) > 0) {
		if (quant_acts_block(&b, &a, &e) < 0 || block_write(&b, out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), -1, stream_out_seconds(out), "%s", "");
	block_release(&b);
	record_clear(&head);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
