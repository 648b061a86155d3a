/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packing.h - pack-int4 and pack-int8, which differ in the codes they take
 *
 * The result stands alone: configuration and tokenizer travel in it as file records.
 */
#ifndef QP_PACKING_H
#define QP_PACKING_H

#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/method/pack.h"

#define PACKING_HELP \
	"      --float=TYPE     round what stays float to bf16, f16 or f32\n" \
	"                       (default: each as it is)\n"

enum { OPT_FLOAT = 256 };

struct packing {
	struct packer packer;
	struct model model;
	struct stream_out *out;
};

/* Statistics end here, and of the calibration set all but what tells it from others. */
static int packing_other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct packing *p = ctx;
	struct record note = { .rank = -1 };
	int r;

	if (rec->type == REC_TENSOR && rec->role == ROLE_STAT)
		return 0;
	if (rec->type == REC_CALIB) {
		r = pack_calib(&note, rec, cli_provenance(NULL)->program, e) < 0 ?
			    -1 : stream_write(p->out, &note, NULL, e);
		record_clear(&note);
		return r;
	}
	return pack_end_tensor(&p->packer, &p->model, in, rec, e);
}

static int packing_run(int argc, char **argv, const char *usage, int max_bits)
{
	static const struct option longopts[] = {
		{ "float", required_argument, NULL, OPT_FLOAT }, { 0 }
	};
	static const char *const floats[] = { "bf16", "f16", "f32", NULL };
	static const enum dtype dtypes[] = { DT_BF16, DT_F16, DT_F32 };
	enum dtype to = DT_NONE;
	struct record head = { .rank = -1 };
	struct stream_in *in;
	struct packing p;
	struct block b;
	struct err e;
	int got, c;

	cli_init(argc, argv, usage, CLI_OUT);
	while ((c = cli_getopt("", longopts)) != -1)
		if (c == OPT_FLOAT)
			to = dtypes[cli_choice("--float", optarg, floats)];
	cli_operands(0, 2);
	in = cli_open_in(cli_operand(0));
	if (stream_next(in, &head, &e) < 0 || model_from_head(&p.model, &head, &e) < 0)
		cli_die(&e);
	p.out = cli_open_out(cli_operand(1));
	if (stream_write_head(p.out, &head, cli_provenance(NULL), &e) < 0)
		cli_die(&e);
	block_init(&b, &p.model);
	pack_init(&p.packer, p.out, max_bits, to);
	b.hook = &p.packer.hook;
	progress_start(cli_provenance(NULL)->program, (uint64_t)p.model.cfg.layers, "blocks",
		       cli_quiet());
	while ((got = block_read(&b, in, packing_other, &p, &e)) > 0) {
		if (pack_end(&p.packer, &b, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got == 0 && p.packer.packed == 0)
		cli_fail(ERR_DATA, "", "no codes in the stream; put rtn or gptq before %s",
			 cli_provenance(NULL)->program);
	if (got < 0 || stream_commit(p.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), -1, stream_out_seconds(p.out), "%ld tensors packed",
		  p.packer.packed);
	block_release(&b);
	pack_release(&p.packer);
	record_clear(&head);
	stream_close_out(p.out);
	stream_close_in(in);
	return 0;
}

#endif
