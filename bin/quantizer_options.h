/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer_options.h - options that rtn and gptq share: their help, their table, what they set
 */
#ifndef QP_QUANTIZER_OPTIONS_H
#define QP_QUANTIZER_OPTIONS_H

#include "lib/base/cli.h"
#include "lib/method/kquant.h"
#include "lib/method/layer.h"

#define QUANTIZER_SHORT "b:g:"
#define QUANTIZER_HELP_GRID(range) \
	"  -b, --bits=N         2 to 8 (default 4)\n" \
	"  -g, --group-size=N   columns that share a scale; -1: a row, 0: the whole\n" \
	"                       tensor (default 128)\n" \
	"      --sym, --asym    grid centred on zero (default), or with a zero point\n" \
	"      --grid=GRID      uniform (default), or llama.cpp's blocks: q4_K, q6_K\n" \
	"      --range=HOW      minmax, least error: mse (--mse), hmse (default " range ")\n"
#define QUANTIZER_HELP_LAYERS \
	"      --plan=FILE      bits and groups of each linear, as qp-alloc wrote them\n" \
	"      --ends           quantize the patch embedding of images as well\n" \
	"      --skip=REGEX     pass over linears whose tensor name matches\n" \
	"      --scale-dtype=T  f16, bf16 or f32 (default f16)\n" \
	"      --keep-ref       keep the original weights as well\n" \
	"      --keep-stats     keep the Hessians\n" \
	"      --timing         seconds in the notes\n"

enum {
	OPT_SYM = 256, OPT_ASYM, OPT_RANGE, OPT_MSE, OPT_SKIP, OPT_SCALE, OPT_REF, OPT_STATS,
	OPT_TIMING, OPT_PLAN, OPT_ENDS, OPT_GRID,
	OPT_QUANTIZER_END, /* a program's own begin here */
};

#define QUANTIZER_LONG \
	{ "bits", required_argument, NULL, 'b' }, \
	{ "group-size", required_argument, NULL, 'g' }, \
	{ "sym", no_argument, NULL, OPT_SYM }, \
	{ "asym", no_argument, NULL, OPT_ASYM }, \
	{ "grid", required_argument, NULL, OPT_GRID }, \
	{ "range", required_argument, NULL, OPT_RANGE }, \
	{ "mse", no_argument, NULL, OPT_MSE }, \
	{ "plan", required_argument, NULL, OPT_PLAN }, \
	{ "skip", required_argument, NULL, OPT_SKIP }, \
	{ "ends", no_argument, NULL, OPT_ENDS }, \
	{ "scale-dtype", required_argument, NULL, OPT_SCALE }, \
	{ "keep-ref", no_argument, NULL, OPT_REF }, \
	{ "keep-stats", no_argument, NULL, OPT_STATS }, \
	{ "timing", no_argument, NULL, OPT_TIMING }

#define QUANTIZER_DEFAULTS(how) \
	{ .bits = 4, .group = 128, .sym = true, .scale_dtype = DT_F16, .range = (how) }

/* --grid, and what it leaves no choice of, whichever came. */
static enum codes_grid quantizer_grid;
static const char *quantizer_fixed;

static void take_grid(const char *arg)
{
	static const char *const names[] = { "uniform", "q4_K", "q6_K", NULL };
	static const enum codes_grid grids[] = { GRID_UNIFORM, GRID_Q4_K, GRID_Q6_K };

	quantizer_grid = grids[cli_choice("--grid", arg, names)];
}

static const char *fixed_by_grid(int c)
{
	switch (c) {
	case 'b': return "--bits";
	case 'g': return "--group-size";
	case OPT_SYM: return "--sym";
	case OPT_ASYM: return "--asym";
	case OPT_SCALE: return "--scale-dtype";
	default: return quantizer_fixed;
	}
}

/* The option at hand, if it is one of these. */
static bool quantizer_option(struct layer_options *o, int c)
{
	static const char *const types[] = { "f16", "bf16", "f32", NULL };
	static const char *const ranges[] = { "minmax", "mse", "hmse", NULL };
	static const enum dtype dtypes[] = { DT_F16, DT_BF16, DT_F32 };
	static int grid; /* --sym or --asym, whichever came */
	struct err e;

	quantizer_fixed = fixed_by_grid(c);
	switch (c) {
	case OPT_GRID: take_grid(optarg); return true;
	case 'b': o->q.bits = (int)cli_long("--bits", optarg, 2, 8); return true;
	case 'g': o->q.group = cli_long("--group-size", optarg, -1, 1 << 24); return true;
	case OPT_SYM:
	case OPT_ASYM:
		if (grid && grid != c)
			cli_fail(ERR_USAGE, "--asym", "contradicts --sym");
		grid = c;
		o->q.sym = c == OPT_SYM;
		return true;
	case OPT_PLAN:
		cli_note_path();
		o->plan_path = optarg;
		return true;
	case OPT_RANGE:
		o->q.range = (enum quantizer_range)cli_choice("--range", optarg, ranges);
		return true;
	case OPT_MSE: o->q.range = RANGE_MSE; return true;
	case OPT_SKIP:
		if (layer_add_skip(o, optarg, &e) < 0)
			cli_die(&e);
		return true;
	case OPT_SCALE:
		o->q.scale_dtype = dtypes[cli_choice("--scale-dtype", optarg, types)];
		return true;
	case OPT_ENDS: o->ends = true; return true;
	case OPT_REF: o->keep_ref = true; return true;
	case OPT_STATS: o->keep_stats = true; return true;
	case OPT_TIMING: o->timing = true; return true;
	}
	return false;
}

/* After the last option: what they name is read. */
static void quantizer_options_end(struct layer_options *o)
{
	struct err e;

	if (quantizer_grid && quantizer_fixed)
		cli_fail(ERR_USAGE, quantizer_fixed, "contradicts --grid=%s, which says it",
			 kgrid(quantizer_grid)->name);
	kquant_set(&o->q, quantizer_grid);
	if (o->plan_path && plan_read(&o->plan, o->plan_path, &e) < 0)
		cli_die(&e);
}

#endif
