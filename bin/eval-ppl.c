/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval-ppl - perplexity of a text under a model that streams by, and its distance to another
 *
 * Hidden states of the windows go through the blocks, the head comes last, then a reference (--kl).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bin/device.h"
#include "formats/reference.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/data/slurp.h"
#include "lib/data/stream.h"
#include "lib/model/ppl_report.h"

static const char usage[] =
	"usage: eval-ppl [options] MODEL < TEXT\n\n"
	"Print the perplexity of a text under a model.\n\n"
	"MODEL is a directory, a GGUF or llama2.c file, a stream, or - (then give -t).\n\n"
	"  -t, --text=FILE      the text (default: standard input)\n"
	"  -d, --dialect=D      gptq, llama.cpp or harness (default gptq)\n"
	"  -c, --ctx=N          tokens in a window (default 2048, llama.cpp 512, harness\n"
	"                       as many as the model has)\n"
	"  -w, --windows=N      only the first N windows\n"
	"      --kl=REF         divergence from REF, a model or a saved base\n"
	"      --save-logits=FILE  keep this model's predictions as a base for --kl\n"
	"      --top=K          the K most likely tokens of each (default 64)\n"
	"      --drawn=N        and N of the others, drawn at random (default 16)\n"
	"      --json           print one JSON object\n"
	"      --max=P          exit 1 if the perplexity is above P\n"
	"      --spill[=DIR]    hidden states in a file in DIR (default /var/tmp)\n";

#define MAX_TEXT ((size_t)1 << 30)

enum { OPT_JSON = 256, OPT_MAX, OPT_SPILL, OPT_KL, OPT_SAVE, OPT_TOP, OPT_DRAWN };

struct job {
	const char *text_file, *ref, *save;
	struct ppl_options opt;
	bool json;
	double max;           /* 0: no limit */
	struct kl_keep keep;
	const char *kept;     /* the option that says so, or NULL */
	struct carry model;
	struct reference reference; /* of ref */
	struct ppl_set set;
	uint64_t done;
};

static void options(int argc, char **argv, struct job *j)
{
	static const struct option longopts[] = {
		{ "text", required_argument, NULL, 't' },
		{ "dialect", required_argument, NULL, 'd' },
		{ "ctx", required_argument, NULL, 'c' },
		{ "windows", required_argument, NULL, 'w' },
		{ "kl", required_argument, NULL, OPT_KL },
		{ "save-logits", required_argument, NULL, OPT_SAVE },
		{ "top", required_argument, NULL, OPT_TOP },
		{ "drawn", required_argument, NULL, OPT_DRAWN },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "max", required_argument, NULL, OPT_MAX },
		{ "spill", optional_argument, NULL, OPT_SPILL },
		{ 0 }
	};
	static const char *const dialects[] = { "gptq", "llama.cpp", "harness", NULL };
	int c;

	cli_init(argc, argv, usage, CLI_THREADS | CLI_COMPUTE);
	while ((c = cli_getopt("t:d:c:w:", longopts)) != -1)
		switch (c) {
		case 't': j->text_file = optarg; cli_note_path(); break;
		case 'd': j->opt.dialect = cli_choice("--dialect", optarg, dialects); break;
		case 'c': j->opt.ctx = cli_long("--ctx", optarg, 2, 1 << 24); break;
		case 'w': j->opt.windows = cli_long("--windows", optarg, 1, INT32_MAX); break;
		case OPT_KL: j->ref = optarg; cli_note_none(); break;
		case OPT_SAVE: j->save = optarg; cli_note_path(); break;
		case OPT_TOP:
			j->keep.top = (size_t)cli_long(j->kept = "--top", optarg, 1, 1 << 24);
			break;
		case OPT_DRAWN:
			j->keep.drawn = (size_t)cli_long(j->kept = "--drawn", optarg, 0, 65536);
			break;
		case OPT_JSON: j->json = true; cli_note_none(); break;
		case OPT_MAX:
			j->max = cli_double("--max", optarg, 1, 1e300); cli_note_none(); break;
		case OPT_SPILL:
			j->model.run.spill = optarg ? optarg : "/var/tmp"; cli_note_none(); break;
		}
	cli_operands(1, 1);
	if (strcmp(cli_operand(0), "-") == 0 && (!j->text_file || !strcmp(j->text_file, "-")))
		cli_fail(ERR_USAGE, "--text", "needed, a file: the model is on standard input");
	if (j->opt.dialect == PPL_HARNESS && j->opt.windows > 0)
		cli_fail(ERR_USAGE, "--windows", "does not go with whole documents (harness)");
	if (j->ref != NULL && strcmp(j->ref, "-") == 0)
		cli_fail(ERR_USAGE, "--kl", "expected a model or a base, not standard input");
	if (j->kept != NULL && j->save == NULL)
		cli_fail(ERR_USAGE, j->kept, "goes with --save-logits only");
}

/* Before the first tensor: the text, cut into windows. */
static int ready(void *ctx, struct carry *c, struct err *e)
{
	struct job *j = ctx;
	struct buf text = { 0 };
	int ret;

	if (c->tok == NULL)
		return err_set(e, ERR_DATA, "model", "carries no tokenizer");
	if (j->kept != NULL && j->keep.top > (size_t)c->run.model.cfg.vocab)
		return err_set(e, ERR_DATA, "--top", "%zu; the model's vocabulary has %ld",
			       j->keep.top, c->run.model.cfg.vocab);
	ret = slurp(&text, j->text_file, MAX_TEXT, e);
	if (ret == 0)
		ret = ppl_prepare(&j->set, c->tok, &c->run.model, text.p, text.n, &j->opt, e);
	buf_release(&text);
	if (ret == 0 && j->ref != NULL)
		ret = reference_open(&j->reference, j->ref, c, &j->set, e);
	c->ids = j->set.ids;
	c->tokens = j->set.windows * j->set.seqlen;
	c->seqlen = j->set.seqlen;
	progress_start("eval-ppl", c->tokens * (uint64_t)c->run.model.cfg.layers *
		       (j->ref != NULL ? 2 : 1), "tokens", cli_quiet());
	return ret;
}

static void tick(void *arg, size_t tokens)
{
	progress_step(((struct job *)arg)->done += tokens);
}

/* The whole model has gone by: score what came out of it. */
static int score(struct job *j, struct head *head, struct ppl_result *r, struct err *e)
{
	const size_t tokens = j->model.run.hidden.tokens;
	double *nll = malloc(tokens * sizeof(*nll));
	int ret;

	if (nll == NULL)
		return err_nomem(e, "scores", tokens * sizeof(*nll));
	ret = runner_nll(&j->model.run, head, j->set.target, nll, e);
	if (ret == 0)
		ret = ppl_score(&j->set, nll, r, e);
	free(nll);
	return ret;
}

static void print(const struct ppl_report *r, bool json)
{
	struct buf out = { 0 };
	struct err e;

	(json ? ppl_json : ppl_text)(&out, r);
	if (buf_failed(&out, "", &e) < 0)
		cli_die(&e);
	fwrite(out.p, 1, out.n, stdout);
	buf_release(&out);
}

int main(int argc, char **argv)
{
	struct job j = { .model = { .ready = ready, .ctx = &j, .run.done = tick, .run.arg = &j },
			 .keep = { 64, 16 } };
	struct stream_out *base = NULL;
	struct ppl_result ppl;
	struct kl_result kl;
	struct kl_saved saved;
	struct backend be;
	struct head *head;
	struct err e;

	options(argc, argv, &j);
	if (j.save != NULL)
		base = cli_open_out(j.save);
	open_device(&be);
	j.model.run.be = &be;
	if (carry_open(&j.model, cli_operand(0), &e) < 0 ||
	    carry_through(&j.model, &head, &e) < 0 || score(&j, head, &ppl, &e) < 0 ||
	    (base != NULL &&
	     reference_save(&saved, base, cli_provenance(be.name), &j.model, head, &j.set,
			    j.keep, &e) < 0) ||
	    (j.ref != NULL &&
	     reference_compare(&kl, &j.reference, &j.model, head, &j.set, &e) < 0))
		cli_die(&e);
	progress_finish();
	print(&(struct ppl_report){ &j.set, &ppl, j.ref != NULL ? &kl : NULL,
				    base != NULL ? &saved : NULL }, j.json);
	cli_spent(stream_in_seconds(j.model.in), j.model.run.seconds, 0, "%s", "");
	if (base != NULL)
		stream_close_out(base);
	reference_close(&j.reference);
	head_free(head);
	ppl_release(&j.set);
	carry_close(&j.model);
	backend_close(&be);
	return cli_finish_stdout(j.max > 0 && ppl.ppl > j.max);
}
