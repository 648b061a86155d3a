/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwt-fit - make up for the error of quantized blocks by affine maps, fitted in closed form
 *
 * The calibration set goes through reference and quantized blocks, which get maps and notes.
 */
#include "bin/device.h"
#include "formats/default_calib.h"
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/method/qwt.h"

static const char usage[] =
	"usage: qwt-fit [options] [IN [OUT]]\n\n"
	"Make up for the error of quantized blocks by affine maps of their inputs.\n\n"
	"  -r, --ref=MODEL      the model before quantization (default: the reference\n"
	"                       weights in the stream, as --keep-ref leaves them)\n"
	"  -c, --calib=FILE     calibration set (default: the one in the stream, else\n"
	"                       windows of the text installed with the toolkit)\n"
	"      --per=WHAT       block or sublayer (default sublayer)\n"
	"      --rank=N         maps of rank N\n"
	"      --diagonal       a factor and a bias for each channel; ridge 0.01\n"
	"      --ridge=R        times each channel's variance (default: best held out)\n"
	"      --holdout=F      part of the windows that judges (default 0.2)\n"
	"      --compat         as published: f32 inverse, no ridge, nothing held out\n"
	"      --begin=N        leave the blocks before N\n"
	"      --except=LIST    leave these blocks: 0,3\n"
	"      --keep-clamp     what is not compensated stays clamped\n"
	"      --dtype=T        of what is stored: f16, bf16 or f32 (default f16)\n";

enum {
	OPT_PER = 256, OPT_RANK, OPT_DIAGONAL, OPT_RIDGE, OPT_HOLDOUT, OPT_COMPAT, OPT_BEGIN,
	OPT_EXCEPT, OPT_DTYPE, OPT_KEEP_CLAMP
};

struct job {
	struct qwt_options opt;
	struct calib_choice choice;
	const char *ref;
	struct model model;
	struct stream_out *out;
	struct tokenizer_files files;
	struct calib calib;
	struct qwt *q;
	bool begun;
};

static const struct option longopts[] = {
	{ "ref", required_argument, NULL, 'r' },
	{ "calib", required_argument, NULL, 'c' },
	{ "per", required_argument, NULL, OPT_PER },
	{ "rank", required_argument, NULL, OPT_RANK },
	{ "diagonal", no_argument, NULL, OPT_DIAGONAL },
	{ "ridge", required_argument, NULL, OPT_RIDGE },
	{ "holdout", required_argument, NULL, OPT_HOLDOUT },
	{ "compat", no_argument, NULL, OPT_COMPAT },
	{ "begin", required_argument, NULL, OPT_BEGIN },
	{ "except", required_argument, NULL, OPT_EXCEPT },
	{ "dtype", required_argument, NULL, OPT_DTYPE },
	{ "keep-clamp", no_argument, NULL, OPT_KEEP_CLAMP }, { 0 }
};

static void options(int argc, char **argv, struct job *j)
{
	static const char *const what[] = { "block", "sublayer", NULL };
	static const char *const types[] = { "f16", "bf16", "f32", NULL };
	static const enum dtype dtypes[] = { DT_F16, DT_BF16, DT_F32 };
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt("r:c:", longopts)) != -1)
		switch (c) {
		case 'r': j->ref = optarg; cli_note_path(); break;
		case 'c': j->choice.file = optarg; cli_note_path(); break;
		case OPT_PER: j->opt.sublayers = cli_choice("--per", optarg, what) == 1; break;
		case OPT_RANK: j->opt.rank = cli_long("--rank", optarg, 1, 1 << 20); break;
		case OPT_DIAGONAL: j->opt.form = FORM_DIAGONAL; break;
		case OPT_RIDGE: j->opt.ridge = cli_double("--ridge", optarg, 0, 1e6); break;
		case OPT_HOLDOUT: j->opt.holdout = cli_double("--holdout", optarg, 0, 0.9); break;
		case OPT_COMPAT: j->opt.compat = true; break;
		case OPT_BEGIN: j->opt.begin = cli_long("--begin", optarg, 0, INT32_MAX); break;
		case OPT_EXCEPT:
			if (qwt_except(&j->opt, optarg, &e) < 0)
				cli_die(&e);
			break;
		case OPT_KEEP_CLAMP: j->opt.keep_clamp = true; break;
		case OPT_DTYPE: j->opt.dtype = dtypes[cli_choice("--dtype", optarg, types)]; break;
		}
	if (qwt_check(&j->opt, &e) < 0)
		cli_die(&e);
	cli_operands(0, 2);
}

/* Before the first tensor. */
static int begin(struct job *j, struct err *e)
{
	j->begun = true;
	if (!calib_there(&j->calib) &&
	    calib_choose(&j->calib, &j->choice, &j->files, &j->model, j->out, e) < 0)
		return -1;
	return qwt_calib(j->q, &j->calib, e);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct job *j = ctx;
	struct item *it;
	int got = 0;

	if (rec->type == REC_FILE && j->choice.file == NULL)
		return source_take_file(&j->files, in, rec, j->out, e);
	if (rec->type == REC_CALIB && j->choice.file != NULL)
		return 0; /* replaced */
	if (rec->type == REC_CALIB)
		return calib_read(&j->calib, in, rec, e) < 0 ? -1 :
		       stream_write(j->out, rec, calib_payload(&j->calib), e);
	if (rec->type == REC_TENSOR && !j->begun && begin(j, e) < 0)
		return -1;
	if (rec->type == REC_TENSOR)
		got = qwt_front(j->q, in, rec, &it, e);
	return got < 0 ? -1 : got > 0 ? stream_write(j->out, &it->rec, it->data, e) :
	       stream_copy(j->out, in, rec, e);
}

static int ref_other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	return rec->type == REC_TENSOR ? qwt_ref_front(ctx, in, rec, e) : 0;
}

/* The reference's own stream, if there is one: its model is that of the stream. */
static void open_ref(const struct job *j, struct stream_in **in, struct model *m)
{
	struct record head = { .rank = -1 };
	struct err e;

	if (source_open(in, j->ref, &e) < 0 || stream_next(*in, &head, &e) < 0 ||
	    model_from_head(m, &head, &e) < 0 || qwt_same(&j->model, m, &e) < 0)
		cli_die(&e);
	record_clear(&head);
}

int main(int argc, char **argv)
{
	struct job j = { .opt = { true, .ridge = -1, .holdout = -1, .dtype = DT_F16 } };
	struct record head = { .rank = -1 };
	struct stream_in *in, *ref_in = NULL;
	struct model ref_model;
	struct block b, ref;
	struct backend be;
	struct qwt_counts n;
	struct err e;
	int got;

	options(argc, argv, &j);
	in = cli_open_in(cli_operand(0));
	open_device(&be);
	if (stream_next(in, &head, &e) < 0 || model_from_head(&j.model, &head, &e) < 0 ||
	    (j.q = qwt_new(&j.opt, &j.model, &be, &e)) == NULL)
		cli_die(&e);
	if (j.ref != NULL)
		open_ref(&j, &ref_in, &ref_model);
	j.out = cli_open_out(cli_operand(1));
	if (stream_write_head(j.out, &head, cli_provenance(be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &j.model);
	block_init(&ref, &ref_model);
	progress_start("qwt-fit", (uint64_t)j.model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, other, &j, &e)) > 0) {
		if ((ref_in != NULL && block_read(&ref, ref_in, ref_other, j.q, &e) < 0) ||
		    qwt_block(j.q, &b, ref_in != NULL ? &ref : NULL, &e) < 0 ||
		    block_write(&b, j.out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(j.out, &e) < 0)
		cli_die(&e);
	progress_finish();
	n = qwt_count(j.q);
	if (n.taken < n.tried)
		cli_warn("%ld of %ld places compensated; notes of the others say why not", n.taken,
			 n.tried);
	if (n.clamped < n.were)
		cli_warn("%ld of %ld clamped blocks stay clamped", n.clamped, n.were);
	cli_spent(stream_in_seconds(in), -1, stream_out_seconds(j.out), "%s", "");
	block_release(&b);
	block_release(&ref);
	qwt_free(j.q);
	calib_release(&j.calib);
	tokenizer_files_release(&j.files);
	record_clear(&head);
	backend_close(&be);
	stream_close_out(j.out);
	stream_close_in(in);
	stream_close_in(ref_in);
	return 0;
}
