/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval-ppl - perplexity of a text under a model that streams by
 *
 * The windows' hidden states are carried through the blocks; the head comes last.
 */
#include <stdio.h>
#include <stdlib.h>

#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/data/slurp.h"
#include "lib/data/tokenizer.h"
#include "lib/model/ppl.h"
#include "lib/model/runner.h"

static const char usage[] =
	"usage: eval-ppl [options] MODEL < TEXT\n\n"
	"Print the perplexity of a text under a model.\n\n"
	"MODEL is a directory, a stream, a packed stream, or - (then give -t).\n\n"
	"  -t, --text=FILE      the text (default: standard input)\n"
	"  -d, --dialect=D      gptq, llama.cpp or harness (default gptq)\n"
	"  -c, --ctx=N          tokens in a window (default 2048, llama.cpp 512, harness\n"
	"                       as many as the model has)\n"
	"  -w, --windows=N      only the first N windows\n"
	"      --json           print one JSON object\n"
	"      --max=P          exit 1 if the perplexity is above P\n"
	"      --spill[=DIR]    hidden states in a file in DIR (default /var/tmp)\n";

#define MAX_TEXT ((size_t)1 << 30)

enum { OPT_JSON = 256, OPT_MAX, OPT_SPILL };

struct job {
	const char *text_file;
	struct ppl_options opt;
	bool json;
	double max;           /* 0: no limit */
	struct runner run;
	struct tokenizer *tok;
	struct ppl_set set;   /* ids NULL: text not read yet */
	uint64_t done;
};

static void options(int argc, char **argv, struct job *j)
{
	static const struct option longopts[] = {
		{ "text", required_argument, NULL, 't' },
		{ "dialect", required_argument, NULL, 'd' },
		{ "ctx", required_argument, NULL, 'c' },
		{ "windows", required_argument, NULL, 'w' },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "max", required_argument, NULL, OPT_MAX },
		{ "spill", optional_argument, NULL, OPT_SPILL },
		{ 0 }
	};
	static const char *const dialects[] = { "gptq", "llama.cpp", "harness", NULL };
	const char *model;
	int c;

	cli_init(argc, argv, usage, CLI_THREADS);
	while ((c = cli_getopt("t:d:c:w:", longopts)) != -1)
		switch (c) {
		case 't': j->text_file = optarg; break;
		case 'd': j->opt.dialect = cli_choice("--dialect", optarg, dialects); break;
		case 'c': j->opt.ctx = cli_long("--ctx", optarg, 2, 1 << 24); break;
		case 'w': j->opt.windows = cli_long("--windows", optarg, 1, INT32_MAX); break;
		case OPT_JSON: j->json = true; break;
		case OPT_MAX: j->max = cli_double("--max", optarg, 1, 1e300); break;
		case OPT_SPILL: j->run.spill = optarg ? optarg : "/var/tmp"; break;
		}
	cli_operands(1, 1);
	model = cli_operand(0);
	if (model[0] == '-' && model[1] == '\0' && j->text_file == NULL)
		cli_fail(ERR_USAGE, "--text", "needed when the model comes from standard input");
	if (j->opt.dialect == PPL_HARNESS && j->opt.windows > 0)
		cli_fail(ERR_USAGE, "--windows", "does not go with the harness: it scores whole "
			 "documents");
}

/* Before the first tensor: the text, cut into windows. */
static int read_text(struct job *j, struct err *e)
{
	struct buf text = { 0 };
	int ret;

	if (j->tok == NULL)
		return err_set(e, ERR_DATA, "model", "carries no tokenizer.json");
	ret = slurp(&text, j->text_file, MAX_TEXT, e);
	if (ret == 0)
		ret = ppl_prepare(&j->set, j->tok, &j->run.model, text.p, text.n, &j->opt, e);
	buf_release(&text);
	return ret;
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;
	int got;

	if (rec->type == REC_FILE)
		return source_take_file(&j->tok, in, rec, NULL, e);
	if (rec->type == REC_TENSOR && j->set.ids == NULL && read_text(j, e) < 0)
		return -1;
	got = runner_embed(&j->run, in, rec, j->set.ids, j->set.windows * j->set.seqlen,
			   j->set.seqlen, e);
	if (got != 0)
		return got < 0 ? -1 : 0;
	if (runner_refuse(rec, e) < 0)
		return -1;
	return ends_take(&j->run.ends, &j->run.model, in, rec, e) < 0 ? -1 : 0;
}

static void tick(void *arg, size_t tokens)
{
	progress_step(((struct job *)arg)->done += tokens);
}

/* The whole model has gone by: score what came out of it. */
static int score(struct job *j, struct ppl_result *r, struct err *e)
{
	const size_t tokens = j->run.hidden.tokens;
	struct head *head;
	double *nll;
	int ret;

	if (runner_head(&j->run, &head, e) < 0)
		return -1;
	nll = malloc(tokens * sizeof(*nll));
	if (nll == NULL)
		return err_nomem(e, "scores", tokens * sizeof(*nll));
	ret = runner_nll(&j->run, head, j->set.target, nll, e);
	if (ret == 0)
		ret = ppl_score(&j->set, nll, r, e);
	free(nll);
	head_free(head);
	return ret;
}

static void print(const struct ppl_set *s, const struct ppl_result *r, bool json)
{
	const char *const text = r->ppl < 1e6 ? "ppl %.4f +/- %.4f" : "ppl %.4g +/- %.4g";

	printf(json ? "{\"ppl\": %.10g, \"stderr\": %.10g" : text, r->ppl, r->error);
	printf(json ? ", \"nll\": %.10g, \"tokens\": %zu, \"windows\": %zu, \"ctx\": %zu, "
		      "\"dialect\": \"%s\", \"bos\": \"%s\"" :
		      "  nll %.6f  tokens %zu  windows %zu  ctx %zu  dialect %s  bos %s",
	       r->nll, s->scored, s->windows, s->ctx, ppl_dialect_name(s->dialect), s->bos);
	if (s->dialect == PPL_HARNESS)
		printf(json ? ", \"words\": %zu, \"documents\": %zu" :
			      "  words %zu  documents %zu", s->units, s->documents);
	puts(json ? "}" : "");
}

int main(int argc, char **argv)
{
	struct job j = { .run.done = tick, .run.arg = &j };
	struct record head = { .rank = -1 };
	struct ppl_result r;
	struct backend be;
	struct stream_in *in;
	struct block b;
	struct err e;
	int got;

	options(argc, argv, &j);
	if (source_open(&in, cli_operand(0), &e) < 0 ||
	    backend_open(&be, cli_device(), cli_threads(), &e) < 0 ||
	    stream_next(in, &head, &e) < 0 || model_from_head(&j.run.model, &head, &e) < 0)
		cli_die(&e);
	j.run.be = &be;
	block_init(&b, &j.run.model);
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		if (b.layer == 0)
			progress_start("eval-ppl", j.run.hidden.tokens *
				       (uint64_t)j.run.model.cfg.layers, "tokens", cli_quiet());
		if (runner_block(&j.run, &b, NULL, NULL, &e) < 0)
			cli_die(&e);
	}
	block_release(&b);
	if (got < 0 || score(&j, &r, &e) < 0)
		cli_die(&e);
	progress_finish();
	print(&j.set, &r, j.json);
	if (cli_verbose())
		cli_warn("read %.2f s, compute %.2f s, peak %.1f MiB", stream_in_seconds(in),
			 j.run.seconds, (double)usage_peak_bytes() / 1048576);
	ppl_release(&j.set);
	tokenizer_free(j.tok);
	runner_release(&j.run);
	record_clear(&head);
	backend_close(&be);
	stream_close_in(in);
	return cli_finish_stdout(j.max > 0 && r.ppl > j.max);
}
