/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record-acts - a model as a stream, with statistics of what flows over its edges
 *
 * Block by block: all tokens go through one, its edges are hooked, it is written with them.
 */
#include "bin/device.h"
#include "formats/default_calib.h"
#include "formats/source.h"
#include "lib/base/progress.h"
#include "lib/data/calib.h"
#include "lib/model/experts.h"
#include "lib/model/flow.h"
#include "lib/model/stats.h"

static const char usage[] =
	"usage: record-acts [options] MODEL [OUT]\n\n"
	"Write a model as a stream with statistics of its activations.\n\n"
	"MODEL is a directory, a GGUF or llama2.c file, or a stream, or - for one, whose\n"
	"statistics are replaced.\n\n"
	"  -c, --calib=FILE     calibration set (default: the one in the stream, else\n"
	"                       windows of the text installed with the toolkit)\n"
	"  -S, --stats=LIST     absmax absmean minmax hessian samples, or all, or none\n"
	"                       (default absmax,hessian)\n"
	"      --samples=N      rows kept for samples (default 128)\n"
	"      --kv             minima and maxima of keys and values too\n"
	"  -n, --nsamples=N     windows of the installed text (default 128)\n"
	"  -s, --seqlen=N       tokens in each (default 2048 or what the model has)\n"
	"      --seed=N         which windows (default 0)\n"
	"      --moe-all        all tokens through all experts, for statistics only\n"
	"      --spill[=DIR]    hidden states in a file in DIR (default /var/tmp)\n";

enum { OPT_SAMPLES = 256, OPT_KV, OPT_SEED, OPT_MOE_ALL, OPT_SPILL };

struct job {
	struct calib_choice choice;
	unsigned which;
	long samples;       /* 0: not given */
	struct runner run;
	struct stream_out *out;
	struct tokenizer_files files;
	struct calib calib;
	struct stats *stats;
	uint64_t done;      /* tokens, for the progress line */
};

static void options(int argc, char **argv, struct job *j)
{
	static const struct option longopts[] = {
		{ "calib", required_argument, NULL, 'c' },
		{ "stats", required_argument, NULL, 'S' },
		{ "samples", required_argument, NULL, OPT_SAMPLES },
		{ "kv", no_argument, NULL, OPT_KV },
		{ "nsamples", required_argument, NULL, 'n' },
		{ "seqlen", required_argument, NULL, 's' },
		{ "seed", required_argument, NULL, OPT_SEED },
		{ "moe-all", no_argument, NULL, OPT_MOE_ALL },
		{ "spill", optional_argument, NULL, OPT_SPILL },
		{ 0 }
	};
	int c;
	struct err e;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS | CLI_COMPUTE);
	while ((c = cli_getopt("c:S:n:s:", longopts)) != -1)
		switch (c) {
		case 'c': j->choice.file = optarg; cli_note_path(); break;
		case 'S': if (stats_parse(optarg, &j->which, &e) < 0) cli_die(&e); break;
		case OPT_SAMPLES: j->samples = cli_long("--samples", optarg, 1, 1 << 24); break;
		case OPT_KV: j->which |= STATS_CACHE; break;
		case 'n': j->choice.nsamples = cli_long("--nsamples", optarg, 1, 1 << 24); break;
		case 's': j->choice.seqlen = cli_long("--seqlen", optarg, 1, 1 << 24); break;
		case OPT_SEED: j->choice.seed = cli_long("--seed", optarg, 0, INT32_MAX); break;
		case OPT_MOE_ALL: j->run.all_experts = true; break;
		case OPT_SPILL: j->run.spill = optarg ? optarg : "/var/tmp"; cli_note_none(); break;
		}
	cli_operands(1, 2);
	if (j->samples && !(j->which >> STAT_SAMPLES & 1))
		cli_fail(ERR_USAGE, "--samples", "needs samples among --stats");
	if (j->choice.file && (j->choice.nsamples || j->choice.seqlen))
		cli_fail(ERR_USAGE, "--calib", "has its own --nsamples and --seqlen");
}

static int take_calib(struct job *j, struct stream_in *in, struct record *rec, struct err *e)
{
	if (j->choice.file != NULL)
		return 0; /* replaced */
	if (calib_there(&j->calib))
		return err_set(e, ERR_DATA, "calib", "twice, or behind the first tensor");
	return calib_read(&j->calib, in, rec, e) < 0 ? -1 :
	       stream_write(j->out, rec, calib_payload(&j->calib), e);
}

/* What stands in front of the blocks is taken; whatever else is not a block is passed on. */
static int take_tensor(struct job *j, struct stream_in *in, struct record *rec, struct err *e)
{
	int got = 0;

	if (!calib_there(&j->calib))
		got = calib_choose(&j->calib, &j->choice, &j->files, &j->run.model, j->out, e);
	if (got < 0)
		return -1;
	if (got > 0)
		cli_warn("no calibration set given: %zu windows of %zu tokens of the installed "
			 "text", j->calib.nsamples, j->calib.seqlen);
	if (j->which == 0) /* a set that was given goes along, for gptq --sequential */
		return stream_copy(j->out, in, rec, e);
	if ((!j->run.hidden.x && runner_calib(&j->run, &j->calib, e) < 0) ||
	    (got = runner_record_front(&j->run, rec, j->which, j->samples, j->out, e)) < 0)
		return -1;
	if (got > 0)
		return 0; /* replaced */
	got = runner_embed(&j->run, in, rec, e);
	return got < 0 ? -1 : got == 0 ? stream_copy(j->out, in, rec, e) :
	       stream_write(j->out, &j->run.front->rec, j->run.front->data, e);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;

	if (j->which == 0 && !j->choice.file)
		return runner_stat(&j->run, rec) ? 0 : stream_copy(j->out, in, rec, e);
	if (j->which && runner_refuse(rec, e) < 0)
		return -1;
	if (rec->type == REC_FILE && j->choice.file == NULL)
		return source_take_file(&j->files, in, rec, j->out, e);
	if (rec->type == REC_CALIB)
		return take_calib(j, in, rec, e);
	if (rec->type == REC_TENSOR)
		return take_tensor(j, in, rec, e);
	return stream_copy(j->out, in, rec, e);
}

static void tick(void *arg, size_t tokens)
{
	progress_step(((struct job *)arg)->done += tokens);
}

static int record_block(struct job *j, struct block *b, struct err *e)
{
	if (j->stats == NULL) {
		j->stats = stats_new(&j->run.model, j->run.be, j->which, j->samples,
				     j->run.hidden.tokens, j->run.calib, false, e);
		j->run.cache = j->which & STATS_CACHE ? stats_cache_hook : NULL;
		j->run.cache_ctx = j->stats;
		progress_start("record-acts", j->run.hidden.tokens *
			       (uint64_t)j->run.model.cfg.layers, "tokens", cli_quiet());
	}
	if (j->stats == NULL || stats_reset(j->stats, e) < 0 ||
	    runner_block(&j->run, b, stats_hook, j->stats, e) < 0)
		return -1;
	forward_rest(j->run.f); /* room for triangles */
	return stats_store(j->stats, b, e) < 0 ? -1 : experts_note(b, j->run.f, e);
}

int main(int argc, char **argv)
{
	struct job j = { .which = 1u << STAT_ABSMAX | 1u << STAT_HESSIAN,
			 .run.headless = true, .run.done = tick, .run.arg = &j };
	struct record head = { .rank = -1 };
	struct backend be;
	struct stream_in *in;
	struct block b;
	struct flow flow;
	struct err e;
	int got;

	options(argc, argv, &j);
	open_device(&be);
	if (source_open(&in, cli_operand(0), &e) < 0 ||
	    stream_next(in, &head, &e) < 0 || model_from_head(&j.run.model, &head, &e) < 0)
		cli_die(&e);
	if (j.run.all_experts && j.run.model.cfg.experts == 0)
		cli_fail(ERR_DATA, "--moe-all", "this model has no experts");
	j.run.be = &be;
	j.out = cli_open_out(cli_operand(1));
	if (stream_write_head(j.out, &head, cli_provenance(j.which ? be.name : NULL), &e) < 0)
		cli_die(&e);
	block_init(&b, &j.run.model);
	flow_init(&flow, &b, j.which ? &j.run : NULL, j.out);
	while ((got = block_read(&b, in, other, &j, &e)) > 0)
		if ((j.which && record_block(&j, &b, &e) < 0) || flow_end(&flow, &b, &e) < 0)
			cli_die(&e);
	if (got < 0 || stream_commit(j.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), j.run.seconds, stream_out_seconds(j.out), "%s", "");
	block_release(&b);
	stats_free(j.stats);
	calib_release(&j.calib);
	tokenizer_files_release(&j.files);
	runner_release(&j.run);
	record_clear(&head);
	backend_close(&be);
	stream_close_out(j.out);
	stream_close_in(in);
	return 0;
}
