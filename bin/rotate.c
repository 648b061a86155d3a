/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotate - put orthogonal maps on the residual stream and inside blocks, folded into the weights
 *
 * Rewrites blocks and what stands outside them, copies every other record byte for byte.  The
 * arithmetic is in lib/method/rotate*.c; the reasons are in man/rotate.body.
 */
#include <string.h>

#include "bin/device.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/method/rotate.h"

static const char usage[] =
	"usage: rotate [options] [IN [OUT]]\n\n"
	"Fold rotations into the weights, so that outliers are spread over channels.\n\n"
	"  -r, --rotations=LIST of r1 (residual stream), r2 (values, a head), r3 (queries\n"
	"                       and keys), r4 (input of down); r3 and r4 at run time\n"
	"                       (default r1,r2)\n"
	"      --matrix=KIND    hadamard, random-hadamard, orthogonal, or a stream with\n"
	"                       tensors R1, R2 (default random-hadamard)\n"
	"      --seed=N         of signs and of orthogonal matrices (default 0)\n"
	"      --block=N        R1 and R4 in diagonal blocks of N (default: one)\n"
	"      --keep-tied      refuse a model whose head would have to part from its\n"
	"                       embedding\n";

enum { OPT_MATRIX = 256, OPT_SEED, OPT_BLOCK, OPT_KEEP_TIED };

struct job {
	struct rotate_options opt;
	struct rotate *rotate;
	struct stream_out *out;
};

static void matrix(struct rotate_options *o, const char *arg)
{
	static const char *const kinds[] = { "hadamard", "random-hadamard", "orthogonal" };

	for (int i = 0; i < 3; i++)
		if (strcmp(arg, kinds[i]) == 0) {
			o->kind = (enum rotation_kind)i;
			return;
		}
	o->file = arg;
	cli_note_path();
}

static void options(int argc, char **argv, struct rotate_options *o)
{
	static const struct option longopts[] = {
		{ "rotations", required_argument, NULL, 'r' },
		{ "matrix", required_argument, NULL, OPT_MATRIX },
		{ "seed", required_argument, NULL, OPT_SEED },
		{ "block", required_argument, NULL, OPT_BLOCK },
		{ "keep-tied", no_argument, NULL, OPT_KEEP_TIED },
		{ 0 }
	};
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt("r:", longopts)) != -1)
		switch (c) {
		case 'r':
			if (rotate_parse(optarg, &o->which, &e) < 0)
				cli_die(&e);
			break;
		case OPT_MATRIX: matrix(o, optarg); o->matrix_given = true; break;
		case OPT_SEED:
			o->seed = (uint64_t)cli_long("--seed", optarg, 0, INT64_MAX);
			o->seed_given = true;
			break;
		case OPT_BLOCK: o->block = cli_long("--block", optarg, 1, 1 << 17); break;
		case OPT_KEEP_TIED: o->keep_tied = true; break;
		}
	if (rotate_check(o, &e) < 0)
		cli_die(&e);
	cli_operands(0, 2);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;

	return rotate_other(j->rotate, in, rec, j->out, e);
}

int main(int argc, char **argv)
{
	struct job j = {
		.opt = { .which = ROTATE_R1 | ROTATE_R2, .kind = ROTATION_RANDOM_HADAMARD },
	};
	struct record head = { .rank = -1 };
	struct model model, to;
	struct stream_in *in;
	struct backend be;
	struct block b;
	double seconds = 0, start;
	struct err e;
	int got;

	options(argc, argv, &j.opt);
	in = cli_open_in(cli_operand(0));
	open_device(&be);
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    rotate_new(&j.rotate, &model, &to, &j.opt, be.pool, &e) < 0 ||
	    (model.cfg.tied != to.cfg.tied && model_untie_head(&to, &head, &e) < 0))
		cli_die(&e);
	j.out = cli_open_out(cli_operand(1));
	if (stream_write_head(j.out, &head, cli_provenance(NULL), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	progress_start("rotate", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		start = usage_seconds();
		if (rotate_block(j.rotate, &b, &e) < 0)
			cli_die(&e);
		seconds += usage_seconds() - start;
		if (block_write(&b, j.out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || rotate_finish(j.rotate, j.out, &e) < 0 || stream_commit(j.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	if (model.cfg.tied != to.cfg.tied && !cli_quiet())
		cli_warn("the head parts from the embedding it was tied to");
	if (rotate_lost(j.rotate) > 0 && !cli_quiet())
		cli_warn("the Hessians of %ld inputs were dropped: a norm's bias has moved out of "
			 "what they are of; \"record-acts -\" behind makes them anew",
			 rotate_lost(j.rotate));
	cli_spent(stream_in_seconds(in), seconds, stream_out_seconds(j.out), "%s", "");
	block_release(&b);
	rotate_free(j.rotate);
	record_clear(&head);
	backend_close(&be);
	stream_close_out(j.out);
	stream_close_in(in);
	return 0;
}
