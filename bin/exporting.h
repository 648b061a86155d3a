/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exporting.h - to-hf, to-ct, to-gptq and to-awq, which differ in the layout that they write
 *
 * Each makes a model directory of a stream, which appears under its name when all of it has been
 * written and read back.
 */
#ifndef QP_EXPORTING_H
#define QP_EXPORTING_H

#include "formats/export.h"
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"

#define EXPORTING_HELP \
	"      --max-shard=N    bytes of tensors in a file, with K, M or G (default 5G)\n" \
	"      --force          replace DIR if it is there\n"

#define EXPORTING_OPTIONS \
	{ "dtype", required_argument, NULL, OPT_DTYPE }, \
	{ "max-shard", required_argument, NULL, OPT_SHARD }, \
	{ "force", no_argument, NULL, OPT_FORCE }, \
	{ 0 }

/* OPT_OWN and what follows are the program's. */
enum { OPT_DTYPE = 256, OPT_SHARD, OPT_FORCE, OPT_OWN };

struct exporting {
	enum dtype dtype;   /* DT_NONE: not given */
	uint64_t max_shard;
	bool force;
	struct export x;
	struct stream_in *in;
	struct outdir dir;
};

static void exporting_say(const char *name, const char *what)
{
	cli_warn("%s: %s", name, what);
}

/* What was lost in all, if anything was said to be. */
static void exporting_sum(const struct export *x)
{
	if (x->lost.n > 0)
		cli_warn("%ld tensors are not what they were: relative error %.3g in all",
			 x->lost.n, export_error(x));
	if (x->rounded.n > 0)
		cli_warn("%ld tensors were rounded to the type they are written in; the worst, "
			 "%s, to %s: relative error %.3g", x->rounded.n, x->rounded.worst,
			 dtype_name(x->rounded.dtype), x->rounded.error);
}

static void exporting_init(struct exporting *o, int argc, char **argv, const char *usage)
{
	*o = (struct exporting){ .max_shard = 5000000000 };
	o->x.say = exporting_say;
	cli_init(argc, argv, usage, CLI_BASIC);
}

/* An option that all of them have. */
static void exporting_option(struct exporting *o, int c)
{
	static const char *const types[] = { "bf16", "f16", "f32", NULL };
	static const enum dtype dtypes[] = { DT_BF16, DT_F16, DT_F32 };

	switch (c) {
	case OPT_DTYPE: o->dtype = dtypes[cli_choice("--dtype", optarg, types)]; break;
	case OPT_FORCE: o->force = true; break;
	case OPT_SHARD:
		o->max_shard = export_shard_size(optarg);
		if (o->max_shard == 0)
			cli_fail(ERR_USAGE, "--max-shard", "expected a size as 5G, 500M "
				 "or 1000000, got '%s'", optarg);
		break;
	}
}

/* When options are over: the stream, and the directory under its temporary name. */
static void exporting_open(struct exporting *o)
{
	struct err e;

	cli_operands(2, 2);
	if (source_open(&o->in, cli_operand(0), &e) < 0 || export_open(&o->x, o->in, &e) < 0)
		cli_die(&e);
	cli_open_dir(&o->dir, cli_operand(1), o->force);
	progress_start(cli_provenance(NULL)->program, (uint64_t)o->x.model.cfg.layers, "blocks",
		       cli_quiet());
}

/* What it did with codes, for -v. */
static int exporting_done(struct exporting *o, const char *did)
{
	cli_commit_dir(&o->dir);
	progress_finish();
	exporting_sum(&o->x);
	cli_spent(stream_in_seconds(o->in), -1, 0, "%ld linears %s", o->x.n_codes, did);
	export_close(&o->x);
	stream_close_in(o->in);
	return 0;
}

#endif
