/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-forward - logits (and hidden states) of given token ids, as a stream of tensors
 */
#include <stdio.h>
#include <stdlib.h>

#include "bin/device.h"
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/data/calib.h"
#include "lib/data/idlines.h"
#include "lib/model/flow.h"
#include "lib/model/trace.h"

static const char usage[] =
	"usage: qp-forward [options] MODEL [OUT] < IDS\n\n"
	"Run a model on lines of token ids and write its logits as a stream.\n\n"
	"MODEL: a directory, a GGUF or llama2.c file, a stream, or - (then -i or -c).\n"
	"Line N, from 0, gives logits.N [tokens, vocabulary], F32; image N [1, classes].\n\n"
	"  -i, --ids=FILE       the lines of ids (default: standard input)\n"
	"  -c, --calib=FILE     no lines, but the windows or images of a calibration set\n"
	"      --hidden         hidden.N.L [tokens, width] too: L = 0 the embeddings, L\n"
	"                       after block L, L = norm what the head reads\n"
	"      --no-logits      no logits\n";

enum { OPT_HIDDEN = 256, OPT_NO_LOGITS };

struct job {
	const char *ids_file, *calib_file;
	bool hidden, logits;
	struct runner run;
	struct id_lines lines; /* of ids; or */
	struct calib calib;
	struct trace trace;
};

static void options(int argc, char **argv, struct job *j)
{
	static const struct option longopts[] = {
		{ "ids", required_argument, NULL, 'i' },
		{ "calib", required_argument, NULL, 'c' },
		{ "hidden", no_argument, NULL, OPT_HIDDEN },
		{ "no-logits", no_argument, NULL, OPT_NO_LOGITS },
		{ 0 }
	};
	const char *model;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS | CLI_COMPUTE);
	while ((c = cli_getopt("i:c:", longopts)) != -1)
		switch (c) {
		case 'i': j->ids_file = optarg; cli_note_path(); break;
		case 'c': j->calib_file = optarg; cli_note_path(); break;
		case OPT_HIDDEN: j->hidden = true; break;
		case OPT_NO_LOGITS: j->logits = false; break;
		}
	cli_operands(1, 2);
	model = cli_operand(0);
	if (j->ids_file != NULL && j->calib_file != NULL)
		cli_fail(ERR_USAGE, "--calib", "stands in place of --ids");
	if (model[0] == '-' && model[1] == '\0' && !j->ids_file && !j->calib_file)
		cli_fail(ERR_USAGE, "--ids", "or --calib, needed when the model comes from "
			 "standard input");
	if (!j->hidden && !j->logits)
		cli_fail(ERR_USAGE, "--no-logits", "without --hidden leaves nothing to write");
}

/* Before anything else: what is to go in. */
static int read_input(struct job *j, struct err *e)
{
	const int ret = j->calib_file ? calib_open(&j->calib, j->calib_file, e) :
			id_lines_read(&j->lines, j->ids_file, e);

	j->trace.run = &j->run;
	j->trace.n = j->calib_file ? j->calib.nsamples : j->lines.n;
	j->trace.len = j->lines.len;
	return ret;
}

static int set_input(struct job *j, struct err *e)
{
	const struct runner_input input = {
		.ids = j->lines.ids.id, .tokens = j->lines.ids.n, .seqlen = j->lines.longest,
		.len = j->lines.len, .n = j->lines.n,
	};

	return j->calib_file ? runner_calib(&j->run, &j->calib, e) :
	       runner_input(&j->run, &input, e);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;

	if (runner_refuse(rec, e) < 0 ||
	    (rec->type == REC_TENSOR && !j->run.hidden.x && set_input(j, e) < 0))
		return -1;
	return ends_take(&j->run.ends, &j->run.model, in, rec, e) < 0 ? -1 : 0;
}

/* All lines through one block. */
static int pass(struct job *j, struct block *b, struct err *e)
{
	char name[32];

	if (b->layer == 0 && j->hidden &&
	    (runner_load(&j->run, b, e) < 0 || trace_hidden(&j->trace, "0", e) < 0))
		return -1;
	if (runner_block(&j->run, b, NULL, NULL, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "%ld", b->layer + 1);
	return j->hidden ? trace_hidden(&j->trace, name, e) : 0;
}

static int finish(struct job *j, struct err *e)
{
	struct head *head;
	int ret = 0;

	if (runner_head(&j->run, &head, e) < 0)
		return -1;
	if (j->logits)
		ret = trace_logits(&j->trace, head, e);
	if (ret == 0 && j->hidden)
		ret = trace_norm(&j->trace, head, e);
	head_free(head);
	return ret;
}

int main(int argc, char **argv)
{
	struct job j = { .logits = true };
	struct record head = { .rank = -1 }, own = { .rank = -1 };
	struct backend be;
	struct stream_in *in;
	struct block b;
	struct flow flow;
	struct err e;
	int got;

	options(argc, argv, &j);
	open_device(&be);
	if (read_input(&j, &e) < 0 || source_open(&in, cli_operand(0), &e) < 0 ||
	    stream_next(in, &head, &e) < 0 || model_from_head(&j.run.model, &head, &e) < 0)
		cli_die(&e);
	j.run.be = &be;
	j.trace.out = cli_open_out(cli_operand(1));
	record_init(&own, REC_STREAM, "");
	if (stream_write_head(j.trace.out, &own, cli_provenance(be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &j.run.model);
	flow_init(&flow, &b, &j.run, NULL);
	progress_start("qp-forward", (uint64_t)j.run.model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		if (pass(&j, &b, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || finish(&j, &e) < 0 || stream_commit(j.trace.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), j.run.seconds, stream_out_seconds(j.trace.out), "%s", "");
	block_release(&b);
	id_lines_release(&j.lines);
	calib_release(&j.calib);
	runner_release(&j.run);
	record_clear(&head);
	record_clear(&own);
	backend_close(&be);
	stream_close_out(j.trace.out);
	stream_close_in(in);
	return 0;
}
