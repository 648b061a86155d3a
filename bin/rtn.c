/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn - round every weight of the linears to the nearest point of its group's grid
 *
 * Rewrites each block, copies every other record byte for byte.
 */
#include <ctype.h>
#include <stdlib.h>

#include "bin/device.h"
#include "bin/quantizer_options.h"
#include "formats/source.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/method/rtn.h"
#include "lib/method/rtn_f8.h"

static const char usage[] =
	"usage: rtn [options] [IN [OUT]]\n\n"
	"Quantize linears by rounding every weight to the nearest code.\n\n"
	"IN is a stream, or a model: a directory, a GGUF or llama2.c file.\n\n"
	QUANTIZER_HELP_GRID("minmax")
	"      --format=F       int (default); e4m3: float8 codes, a scale a row, with\n"
	"                       -g 0 a tensor\n"
	"      --block=RxC      e4m3: a scale for R rows by C columns, as 128x128\n"
	"      --codes          codes alone, without the weights they stand for\n"
	QUANTIZER_HELP_LAYERS;

enum { OPT_FORMAT = OPT_QUANTIZER_END, OPT_BLOCK, OPT_CODES };

struct job {
	bool f8;
	struct f8_options f;
	struct f8_quantized fz;
	struct quantized z;
	struct layer_options o;
	struct backend be;
	struct block front; /* what is quantized outside the blocks */
	struct stream_out *out;
};

static void set_block(struct f8_options *f, const char *arg)
{
	char *end;

	f->scales = F8_BLOCK;
	f->tall = strtoul(arg, &end, 10);
	f->width = *end == 'x' && isdigit((unsigned char)end[1]) ? strtoul(end + 1, &end, 10) : 0;
	if (!isdigit((unsigned char)*arg) || *end || f->tall < 1 || f->width < 1 ||
	    f->tall > 1 << 24 || f->width > 1 << 24)
		cli_fail(ERR_USAGE, "--block", "expected rows x columns, as 128x128, got '%s'",
			 arg);
}

/* What float8 has no use for, and what it takes for granted. */
static void end_f8(struct job *j, bool bits, bool group, bool scale)
{
	struct quantizer *q = &j->o.q;

	if (!j->f8 && j->f.scales == F8_BLOCK)
		cli_fail(ERR_USAGE, "--block", "goes with --format=e4m3");
	if (!j->f8)
		return;
	if ((bits && q->bits != 8) || !q->sym)
		cli_fail(ERR_USAGE, "--format", "e4m3 has 8 bits and is symmetric");
	if (quantizer_grid)
		cli_fail(ERR_USAGE, "--grid", "is of integers, not of e4m3");
	if (q->range != RANGE_MINMAX)
		cli_fail(ERR_USAGE, "--range", "e4m3 has minmax only");
	if (j->o.plan_path)
		cli_fail(ERR_USAGE, "--plan", "is of integers, not of e4m3");
	if (group && (q->group > 0 || j->f.scales == F8_BLOCK))
		cli_fail(ERR_USAGE, "--group-size", "of e4m3 is -1 or 0; or else --block");
	if (group && q->group == 0)
		j->f.scales = F8_TENSOR;
	q->bits = 8;
	q->group = -1;
	q->scale_dtype = scale ? q->scale_dtype : DT_F32;
}

static void options(int argc, char **argv, struct job *j)
{
	static const char *const formats[] = { "int", "e4m3", NULL };
	static const struct option longopts[] = {
		QUANTIZER_LONG,
		{ "format", required_argument, NULL, OPT_FORMAT },
		{ "block", required_argument, NULL, OPT_BLOCK },
		{ "codes", no_argument, NULL, OPT_CODES },
		{ 0 }
	};
	bool bits = false, group = false, scale = false;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt(QUANTIZER_SHORT, longopts)) != -1) {
		bits = bits || c == 'b';
		group = group || c == 'g';
		scale = scale || c == OPT_SCALE;
		if (c == OPT_FORMAT)
			j->f8 = cli_choice("--format", optarg, formats) == 1;
		else if (c == OPT_BLOCK)
			set_block(&j->f, optarg);
		else if (c == OPT_CODES)
			j->o.codes_only = true;
		else
			quantizer_option(&j->o, c);
	}
	cli_operands(0, 2);
	end_f8(j, bits, group, scale);
	quantizer_options_end(&j->o);
}

static int do_block(void *ctx, struct block *b, struct err *e)
{
	struct job *j = ctx;

	return j->f8 ? rtn_f8_block(b, &j->fz, &j->be, &j->f, &j->o, e) :
	       rtn_block(b, &j->z, &j->be, &j->o, e);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;
	const int got = !j->o.ends ? 0 :
			block_pass_front(&j->front, in, rec, j->out, do_block, j, e);

	return got < 0 ? -1 : got > 0 ? 0 : stream_copy(j->out, in, rec, e);
}

int main(int argc, char **argv)
{
	struct job j = { .o = { .by = "rtn", .q = QUANTIZER_DEFAULTS(RANGE_MINMAX) } };
	struct record head = { .rank = -1 };
	struct stream_in *in;
	struct model model;
	struct block b;
	double seconds = 0, start;
	struct err e;
	const char *idle;
	int got;

	options(argc, argv, &j);
	open_device(&j.be);
	if (source_open(&in, cli_operand(0), &e) < 0 ||
	    stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    layer_check_groups(&j.o, &model, &e) < 0)
		cli_die(&e);
	if ((idle = layer_idle_skip(&j.o, &model)))
		cli_warn("--skip=%s matches no linear", idle);
	j.out = cli_open_out(cli_operand(1));
	if (stream_write_head(j.out, &head, cli_provenance(j.be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	block_init(&j.front, &model);
	progress_start("rtn", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		start = usage_seconds();
		if (block_write_front(&j.front, j.out, &e) < 0 || do_block(&j, &b, &e) < 0)
			cli_die(&e);
		seconds += usage_seconds() - start;
		if (block_write(&b, j.out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(j.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), seconds, stream_out_seconds(j.out), "%s", "");
	block_release(&b);
	block_release(&j.front);
	quantized_release(&j.z);
	f8_release(&j.fz);
	record_clear(&head);
	layer_options_release(&j.o);
	backend_close(&j.be);
	stream_close_out(j.out);
	stream_close_in(in);
	return 0;
}
