/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack-int4 - codes of 2, 3 or 4 bits side by side, and nothing that only quantizers want
 *
 * The result stands alone: configuration and tokenizer travel in it as file records.
 */
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/method/pack.h"

static const char usage[] =
	"usage: pack-int4 [options] [IN [OUT]]\n\n"
	"Pack codes of 2, 3 or 4 bits and drop what they replace.\n\n";

/* Statistics end here, and of the calibration set all but what tells it from others. */
static int other(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	struct record note = { .rank = -1 };
	int r;

	if (rec->type == REC_TENSOR && rec->role == ROLE_STAT)
		return 0;
	if (rec->type == REC_CALIB) {
		r = pack_calib(&note, rec, e) < 0 ? -1 : stream_write(out, &note, NULL, e);
		record_clear(&note);
		return r;
	}
	return stream_copy(out, in, rec, e);
}

int main(int argc, char **argv)
{
	struct record head = { .rank = -1 };
	struct stream_out *out;
	struct stream_in *in;
	struct model model;
	struct block b;
	struct packer p;
	struct err e;
	int got;

	cli_init(argc, argv, usage, CLI_OUT);
	while (cli_getopt("", NULL) != -1)
		;
	cli_operands(0, 2);
	in = cli_open_in(cli_operand(0));
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0)
		cli_die(&e);
	out = cli_open_out(cli_operand(1));
	if (stream_write_head(out, &head, cli_provenance(NULL), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	pack_init(&p, out);
	b.hook = &p.hook;
	progress_start("pack-int4", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, out, &e)) > 0) {
		if (pack_end(&p, &b, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got == 0 && p.packed == 0)
		cli_fail(ERR_DATA, "", "no codes in the stream; put rtn or gptq before pack-int4");
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	progress_finish();
	if (cli_verbose())
		cli_warn("read %.2f s, write %.2f s, %ld tensors packed, peak %.1f MiB",
			 stream_in_seconds(in), stream_out_seconds(out), p.packed,
			 (double)usage_peak_bytes() / 1048576);
	block_release(&b);
	record_clear(&head);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
