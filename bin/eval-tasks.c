/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval-tasks - zero-shot tasks under a model that streams by
 *
 * All samples of all tasks are carried through the blocks together; the head comes last.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/carry.h"
#include "formats/tasks.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/data/output.h"
#include "lib/model/tasks_run.h"

static const char usage[] =
	"usage: eval-tasks [options] -t [NAME=]FILE ... MODEL\n\n"
	"Score a model on multiple-choice and cloze tasks.\n\n"
	"MODEL is a directory, a stream, a packed stream, or - . FILE is JSON Lines or\n"
	"CSV: ready queries, or the raw lines of arc_challenge arc_easy boolq copa\n"
	"hellaswag lambada openbookqa piqa social_iqa storycloze winogrande.\n\n"
	"  -t, --task=[NAME=]FILE  a task, again for more; NAME selects the template\n"
	"                       (default: that of the file)\n"
	"  -d, --delimiter=TEXT what joins context and continuation in the tasks behind\n"
	"                       it (\\n is a new line; default a blank, or the task's)\n"
	"  -l, --limit=N        only the first N samples of each task\n"
	"  -b, --bos=WHEN       first token: auto (the tokenizer's), never, always\n"
	"  -c, --ctx=N          at most N tokens go in (default all positions)\n"
	"      --json           print one JSON object\n"
	"      --samples=FILE   a JSON line for each sample, for qp-cmp --tasks\n"
	"      --spill[=DIR]    hidden states in a file in DIR (default /var/tmp)\n";

enum { OPT_JSON = 256, OPT_SAMPLES, OPT_SPILL };

struct job {
	struct tasks_file *file;
	size_t files;
	long limit;
	bool json;
	const char *samples;
	struct tasks tasks;
	uint64_t done;
};

static void options(int argc, char **argv, struct job *j, struct carry *c)
{
	static const struct option longopts[] = {
		{ "task", required_argument, NULL, 't' },
		{ "delimiter", required_argument, NULL, 'd' },
		{ "limit", required_argument, NULL, 'l' },
		{ "bos", required_argument, NULL, 'b' },
		{ "ctx", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "samples", required_argument, NULL, OPT_SAMPLES },
		{ "spill", optional_argument, NULL, OPT_SPILL },
		{ 0 }
	};
	static const char *const when[] = { "auto", "never", "always", NULL };
	char *delimiter = NULL;
	struct err e;
	int o;

	cli_init(argc, argv, usage, CLI_THREADS);
	while ((o = cli_getopt("t:d:l:b:c:", longopts)) != -1)
		switch (o) {
		case 't':
			if (tasks_file_name(&j->file[j->files], optarg, &e) < 0)
				cli_die(&e);
			j->file[j->files++].delimiter = delimiter;
			break;
		case 'd':
			if (tasks_unescape(&delimiter, optarg, &e) < 0)
				cli_die(&e);
			break;
		case 'l': j->limit = cli_long("--limit", optarg, 1, INT32_MAX); break;
		case 'b': j->tasks.bos = cli_choice("--bos", optarg, when); break;
		case 'c': j->tasks.ctx = cli_long("--ctx", optarg, 1, 1 << 24); break;
		case OPT_JSON: j->json = true; break;
		case OPT_SAMPLES: j->samples = optarg; break;
		case OPT_SPILL: c->run.spill = optarg ? optarg : "/var/tmp"; break;
		}
	cli_operands(1, 1);
	if (j->files == 0)
		cli_fail(ERR_USAGE, "--task", "needed: a file of samples");
	for (size_t i = 0; i < j->files; i++) {
		j->file[i].limit = j->limit;
		if (strcmp(j->file[i].path, "-") == 0 && strcmp(cli_operand(0), "-") == 0)
			cli_fail(ERR_USAGE, "-", "the model and a task cannot both be standard "
				 "input");
	}
}

/* Before the first tensor: all samples, as tokens in rows. */
static int ready(void *ctx, struct carry *c, struct err *e)
{
	struct job *j = ctx;

	if (c->tok == NULL)
		return err_set(e, ERR_DATA, "model", "carries no tokenizer.json");
	j->tasks.tok = c->tok;
	j->tasks.model = &c->run.model;
	if (j->tasks.ctx > c->run.model.cfg.max_positions)
		return err_set(e, ERR_DATA, "--ctx", "%ld, but the model has %ld positions",
			       j->tasks.ctx, c->run.model.cfg.max_positions);
	for (size_t i = 0; i < j->files; i++)
		if (tasks_read(&j->tasks, &j->file[i], e) < 0)
			return -1;
	if (tasks_layout(&j->tasks, false, e) < 0)
		return -1;
	if (j->tasks.truncated > 0)
		cli_warn("%zu of %zu contexts lost their beginning: longer than %ld tokens",
			 j->tasks.truncated, j->tasks.n_request, j->tasks.ctx > 0 ? j->tasks.ctx :
			 c->run.model.cfg.max_positions);
	c->ids = j->tasks.row_id;
	c->position = j->tasks.row_position;
	c->tokens = j->tasks.rows;
	c->seqlen = j->tasks.longest;
	progress_start("eval-tasks", c->tokens * (uint64_t)c->run.model.cfg.layers, "tokens",
		       cli_quiet());
	return 0;
}

static void tick(void *arg, size_t tokens)
{
	progress_step(((struct job *)arg)->done += tokens);
}

static int pass(void *ctx, struct carry *c, struct err *e)
{
	struct job *j = ctx;

	return tasks_pass(&j->tasks, c->run.f, &c->run.hidden, tick, j, e);
}

static void print(const struct job *j, struct output *log, struct err *e)
{
	struct buf out = { 0 };
	struct iovec v;

	if (j->samples != NULL) {
		if (tasks_log(&out, &j->tasks, e) < 0)
			cli_die(e);
		v = (struct iovec){ out.p, out.n };
		if (output_write(log, &v, 1, e) < 0)
			cli_die(e);
		cli_commit_file(log);
		buf_clear(&out);
	}
	if ((j->json ? tasks_json : tasks_table)(&out, &j->tasks, e) < 0)
		cli_die(e);
	fwrite(out.p, 1, out.n, stdout);
	buf_release(&out);
}

int main(int argc, char **argv)
{
	struct job j = { .file = calloc((size_t)argc, sizeof(*j.file)) };
	struct carry c = { .ready = ready, .pass = pass, .ctx = &j };
	struct output log;
	struct backend be;
	struct head *head;
	struct err e;

	if (j.file == NULL)
		cli_fail(ERR_NOMEM, "", "out of memory");
	options(argc, argv, &j, &c);
	if (j.samples != NULL)
		cli_open_file(&log, j.samples);
	if (backend_open(&be, cli_device(), cli_threads(), &e) < 0)
		cli_die(&e);
	c.run.be = &be;
	if (carry_open(&c, cli_operand(0), &e) < 0 || carry_through(&c, &head, &e) < 0 ||
	    tasks_score(&j.tasks, head, &c.run.hidden, &e) < 0)
		cli_die(&e);
	progress_finish();
	print(&j, &log, &e);
	if (cli_verbose())
		cli_warn("read %.2f s, compute %.2f s, peak %.1f MiB", stream_in_seconds(c.in),
			 c.run.seconds, (double)usage_peak_bytes() / 1048576);
	head_free(head);
	tasks_release(&j.tasks);
	carry_close(&c);
	backend_close(&be);
	free(j.file);
	return cli_finish_stdout(0);
}
