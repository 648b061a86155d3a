/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval-tasks - zero-shot tasks, or labelled images, under a model that streams by
 *
 * All samples of all tasks are carried through the blocks together; the head comes last.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bin/device.h"
#include "formats/image_task.h"
#include "formats/tasks.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/data/output.h"
#include "lib/model/tasks_run.h"

static const char usage[] =
	"usage: eval-tasks [options] -t [NAME=]FILE ... MODEL\n"
	"       eval-tasks [options] -i SET MODEL\n\n"
	"Score a model on multiple-choice and cloze tasks, or on labelled images.\n\n"
	"MODEL is a directory, a GGUF or llama2.c file, a stream, or - . FILE is JSON\n"
	"Lines or CSV: ready queries, or the raw lines of arc_challenge arc_easy boolq\n"
	"copa hellaswag lambada openbookqa piqa social_iqa storycloze winogrande.\n\n"
	"  -t, --task=[NAME=]FILE  a task, again for more; NAME selects the template\n"
	"                       (default: that of the file)\n"
	"  -i, --images=SET     labelled images, a file, list or directory: calib-pack(1)\n"
	"  -d, --delimiter=TEXT what joins context and continuation in the tasks behind\n"
	"                       it (\\n is a new line; default a blank, or the task's)\n"
	"  -l, --limit=N        only the first N samples of each task, or images\n"
	"  -b, --bos=WHEN       first token: auto (the tokenizer's), never, always\n"
	"  -c, --ctx=N          at most N tokens go in (default all positions)\n"
	"      --json           print one JSON object\n"
	"      --samples=FILE   a JSON line for each sample, for qp-cmp --tasks\n"
	"      --spill[=DIR]    hidden states in a file in DIR (default /var/tmp)\n";

enum { OPT_JSON = 256, OPT_SAMPLES, OPT_SPILL };

struct job {
	struct tasks_file *file;
	size_t files;
	struct image_task image; /* path NULL: tasks of text */
	long limit;
	bool json, text, in; /* text: an option about text was given; in: standard input */
	const char *samples;
	struct tasks tasks;
	uint64_t done;
};

static void options(int argc, char **argv, struct job *j, struct carry *c)
{
	static const struct option longopts[] = {
		{ "task", required_argument, NULL, 't' },
		{ "images", required_argument, NULL, 'i' },
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

	cli_init(argc, argv, usage, CLI_THREADS | CLI_COMPUTE);
	while ((o = cli_getopt("t:i:d:l:b:c:", longopts)) != -1) {
		j->text |= o == 't' || o == 'd' || o == 'b' || o == 'c';
		switch (o) {
		case 'i': j->in |= strcmp(j->image.path = optarg, "-") == 0; break;
		case 't':
			if (tasks_file_name(&j->file[j->files], optarg, &e) < 0)
				cli_die(&e);
			j->in |= strcmp(j->file[j->files].path, "-") == 0;
			j->file[j->files++].delimiter = delimiter;
			break;
		case 'd':
			if (tasks_unescape(delimiter = optarg, &e) < 0)
				cli_die(&e);
			break;
		case 'l': j->limit = cli_long("--limit", optarg, 1, INT32_MAX); break;
		case 'b': j->tasks.bos = cli_choice("--bos", optarg, when); break;
		case 'c': j->tasks.ctx = cli_long("--ctx", optarg, 1, 1 << 24); break;
		case OPT_JSON: j->json = true; break;
		case OPT_SAMPLES: j->samples = optarg; break;
		case OPT_SPILL: c->run.spill = optarg ? optarg : "/var/tmp"; break;
		}
	}
	c->images = j->image.path != NULL;
	if (!c->images && j->files == 0)
		cli_fail(ERR_USAGE, "--task", "needed: -t FILE, a file of samples");
	cli_operands(1, 1);
	j->image.limit = j->limit;
	if (c->images && j->text)
		cli_fail(ERR_USAGE, "--images", "not with --task, --delimiter, --bos or --ctx");
	if (j->files > 0 && delimiter != j->file[j->files - 1].delimiter)
		cli_fail(ERR_USAGE, "--delimiter", "behind the last --task: it is for those that "
			 "follow");
	if (j->in && strcmp(cli_operand(0), "-") == 0)
		cli_fail(ERR_USAGE, "-", "the model and a task cannot both be standard input");
}

/* All samples, as tokens in rows. */
static int lay_out(struct job *j, struct carry *c, struct err *e)
{
	if (tasks_read_all(&j->tasks, j->file, j->files, j->limit, c->tok, &c->run.model, e) < 0)
		return -1;
	if (j->tasks.truncated > 0)
		cli_warn("%zu of %zu contexts lost their beginning: longer than %ld tokens",
			 j->tasks.truncated, j->tasks.n_request, j->tasks.ctx > 0 ? j->tasks.ctx :
			 c->run.model.cfg.max_positions);
	c->ids = j->tasks.row_id;
	c->position = j->tasks.row_position;
	c->tokens = j->tasks.rows;
	c->seqlen = j->tasks.longest;
	return 0;
}

static int ready(void *ctx, struct carry *c, struct err *e)
{
	const struct model_config *cfg = &c->run.model.cfg;
	struct job *j = ctx;

	if ((c->images ? image_task_ready(&j->image, c, e) : lay_out(j, c, e)) < 0)
		return -1;
	progress_start("eval-tasks", c->tokens * (uint64_t)cfg->layers, "tokens", cli_quiet());
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

	if (j->samples != NULL) {
		if ((j->image.path ? image_task_report(&out, &j->image, IMAGE_LOG, e) :
				     tasks_log(&out, &j->tasks, e)) < 0)
			cli_die(e);
		if (output_write(log, &(struct iovec){ out.p, out.n }, 1, e) < 0)
			cli_die(e);
		cli_commit_file(log);
		buf_clear(&out);
	}
	if ((j->image.path ? image_task_report(&out, &j->image, j->json, e) :
	     (j->json ? tasks_json : tasks_table)(&out, &j->tasks, e)) < 0)
		cli_die(e);
	fwrite(out.p, 1, out.n, stdout);
	buf_release(&out);
}

int main(int argc, char **argv)
{
	struct job j = { .file = calloc((size_t)argc, sizeof(*j.file)) };
	struct carry c = { .ready = ready, .ctx = &j, .run = { .done = tick, .arg = &j } };
	struct output log;
	struct backend be;
	struct head *head;
	struct err e;

	if (j.file == NULL)
		cli_fail(ERR_NOMEM, "", "out of memory");
	options(argc, argv, &j, &c);
	if (j.samples != NULL)
		cli_open_file(&log, j.samples);
	open_device(&be);
	c.run.be = &be;
	c.pass = c.images ? NULL : pass;
	if (carry_open(&c, cli_operand(0), &e) < 0 || carry_through(&c, &head, &e) < 0 ||
	    (c.images ? image_task_score(&j.image, &c, head, &e) :
			tasks_score(&j.tasks, head, &c.run.hidden, &e)) < 0)
		cli_die(&e);
	progress_finish();
	print(&j, &log, &e);
	cli_spent(stream_in_seconds(c.in), c.run.seconds, 0, "%s", "");
	head_free(head);
	tasks_release(&j.tasks);
	image_task_release(&j.image);
	carry_close(&c);
	backend_close(&be);
	free(j.file);
	return cli_finish_stdout(0);
}
