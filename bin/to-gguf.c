/* SPDX-License-Identifier: Apache-2.0 */
/*
 * to-gguf - a stream as a GGUF file, for llama.cpp and what is built on it
 */
#include <unistd.h>

#include "formats/ggml.h"
#include "formats/gguf_export.h"
#include "formats/gguf_pack.h"
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/pool.h"
#include "lib/base/progress.h"

static const char usage[] =
	"usage: to-gguf [options] MODEL FILE\n\n"
	"Write a model as a GGUF file; codes keep their values bit for bit.\n\n"
	"MODEL: a stream, - (standard input), a directory, a GGUF or llama2.c file.\n\n"
	"      --type=T         what holds codes: auto, the smallest type that does so\n"
	"                       exactly (default), q4_0, q4_1, q5_0, q5_1, q8_0,\n"
	"                       q4_K or q6_K (of gptq --grid; or --requantize)\n"
	"      --dtype=T        of weights without codes: keep (default), f16, bf16, f32\n"
	"      --requantize     round what no type holds exactly, and say how much it\n"
	"                       costs, instead of refusing it\n"
	"      --name=TEXT      general.name\n"
	"      --pre=NAME       tokenizer.ggml.pre, instead of the one that is found\n"
	"      --no-vocab       leave out the tokenizer\n"
	"      --force          replace FILE if it is there\n"
	"  -j, --threads=N      threads (default: all processors, shared in a pipeline)\n";

enum { OPT_TYPE = 256, OPT_DTYPE, OPT_REQUANTIZE, OPT_NAME, OPT_PRE, OPT_NO_VOCAB, OPT_FORCE };

struct choice {
	struct gguf_export_options x;
	bool force;
	int threads;
};

static void take_type(struct choice *o, const char *arg)
{
	static const char *const names[] = { "auto", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
					     "q4_K", "q6_K", NULL };
	static const uint32_t types[] = { GGUF_PACK_AUTO, GGML_Q4_0, GGML_Q4_1, GGML_Q5_0,
					  GGML_Q5_1, GGML_Q8_0, GGML_Q4_K, GGML_Q6_K };

	o->x.type = types[cli_choice("--type", arg, names)];
}

static void options(int argc, char **argv, struct choice *o)
{
	static const char *const names[] = { "keep", "f16", "bf16", "f32", NULL };
	static const enum dtype dtypes[] = { DT_NONE, DT_F16, DT_BF16, DT_F32 };
	static const struct option longopts[] = {
		{ "type", required_argument, NULL, OPT_TYPE },
		{ "dtype", required_argument, NULL, OPT_DTYPE },
		{ "requantize", no_argument, NULL, OPT_REQUANTIZE },
		{ "name", required_argument, NULL, OPT_NAME },
		{ "pre", required_argument, NULL, OPT_PRE },
		{ "no-vocab", no_argument, NULL, OPT_NO_VOCAB },
		{ "force", no_argument, NULL, OPT_FORCE },
		{ "threads", required_argument, NULL, 'j' },
		{ 0 }
	};
	int c;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("j:", longopts)) != -1)
		switch (c) {
		case OPT_TYPE: take_type(o, optarg); break;
		case OPT_DTYPE: o->x.dtype = dtypes[cli_choice("--dtype", optarg, names)]; break;
		case OPT_REQUANTIZE: o->x.requantize = true; break;
		case OPT_NAME: o->x.name = optarg; break;
		case OPT_PRE: o->x.pre = optarg; break;
		case OPT_NO_VOCAB: o->x.no_vocab = true; break;
		case OPT_FORCE: o->force = true; break;
		case 'j': o->threads = (int)cli_long("--threads", optarg, 1, 4096); break;
		}
	if (o->x.no_vocab && o->x.pre)
		cli_fail(ERR_USAGE, "--pre", "contradicts --no-vocab");
	cli_operands(2, 2);
}

static void say(const char *name, const char *what)
{
	cli_warn("%s: %s", name, what);
}

int main(int argc, char **argv)
{
	struct choice o = { .x = { .type = GGUF_PACK_AUTO } };
	struct export x = { 0 };
	struct output out;
	struct stream_in *in;
	const char *path;
	struct err e;

	options(argc, argv, &o);
	path = cli_operand(1);
	if (!o.force && access(path, F_OK) == 0)
		cli_fail(ERR_CANTCREAT, path, "is there already; --force replaces it");
	x.progress = progress_step;
	x.say = say;
	if (source_open(&in, cli_operand(0), &e) < 0 || export_open(&x, in, &e) < 0)
		cli_die(&e);
	o.x.pool = pool_new(o.threads ? o.threads : pool_cores(), &e);
	if (!o.x.pool)
		cli_die(&e);
	if (!o.threads && pool_share(o.x.pool, &e) < 0 && cli_verbose())
		cli_warn("threads are not shared with other programs: %s: %s", e.where, e.what);
	cli_open_file(&out, path);
	if (!out.temp)
		cli_fail(ERR_CANTCREAT, path, "is no regular file, as a GGUF file must be");
	progress_start("to-gguf", (uint64_t)x.model.cfg.layers, "blocks", cli_quiet());
	if (gguf_export(&out, in, &x, &o.x, &e) < 0)
		cli_die(&e);
	cli_commit_file(&out);
	progress_finish();
	if (x.lost.n > 0)
		cli_warn("%ld tensors are not what they were: relative error %.3g in all",
			 x.lost.n, export_error(&x));
	cli_spent(stream_in_seconds(in), -1, 0, "%ld linears in codes", x.n_codes);
	pool_free(o.x.pool);
	export_close(&x);
	stream_close_in(in);
	return 0;
}
