/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calib-pack - text, token ids or images to a calibration set
 */
#include <stdio.h>
#include <stdlib.h>

#include "formats/corpus.h"
#include "formats/imageset.h"
#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/usage.h"
#include "lib/data/calib.h"

static const char usage[] =
	"usage: calib-pack [options] -m MODEL [TEXT...]\n"
	"       calib-pack [options] --ids [FILE]\n"
	"       calib-pack [options] --images -m MODEL [SET...]\n\n"
	"Make a calibration set: windows of token ids, or images, for record-acts.\n\n"
	"  -m, --model=MODEL    a directory, a GGUF or llama2.c file, a stream, or a\n"
	"                       tokenizer's file\n"
	"      --field=NAME     TEXT is JSON lines: the documents are this string of each\n"
	"      --ids            no text but ids: a window in each line, all of one length\n"
	"      --images         SET is a directory, a list or a file of images\n"
	"  -n, --nsamples=N     windows, or images (default 128)\n"
	"  -s, --seqlen=N       tokens in each (default 2048 or what the model has)\n"
	"      --sampling=HOW   random: starts anywhere in the text, any images\n"
	"                       (default); sequential: one after the other;\n"
	"                       documents: in a random one that is long enough\n"
	"      --seed=N         which ones are random (default 0)\n"
	"      --disjoint-from=FILE   fail if a window has 32 tokens in a row that this\n"
	"                       evaluation text has too, or an image is in this SET\n";

enum { OPT_FIELD = 256, OPT_IDS, OPT_IMAGES, OPT_SAMPLING, OPT_SEED, OPT_DISJOINT };

static const char *const samplings[] = { "random", "sequential", "documents", NULL };

struct job {
	const char *model, *field, *disjoint;
	bool ids, images, drawn; /* drawn: an option about drawing samples was given */
	long nsamples, seqlen;
	uint64_t seed;
	int sampling;
	struct tokenizer *tok;
	struct calib calib;
};

static void options(int argc, char **argv, struct job *j)
{
	static const struct option longopts[] = {
		{ "model", required_argument, NULL, 'm' },
		{ "field", required_argument, NULL, OPT_FIELD },
		{ "ids", no_argument, NULL, OPT_IDS },
		{ "images", no_argument, NULL, OPT_IMAGES },
		{ "nsamples", required_argument, NULL, 'n' },
		{ "seqlen", required_argument, NULL, 's' },
		{ "sampling", required_argument, NULL, OPT_SAMPLING },
		{ "seed", required_argument, NULL, OPT_SEED },
		{ "disjoint-from", required_argument, NULL, OPT_DISJOINT },
		{ 0 }
	};
	int c;

	cli_init(argc, argv, usage, CLI_OUT);
	while ((c = cli_getopt("m:n:s:", longopts)) != -1) {
		j->drawn |= c == 'n' || c == 's' || c == OPT_SAMPLING || c == OPT_SEED;
		switch (c) {
		case 'm': j->model = optarg; cli_note_path(); break;
		case OPT_FIELD: j->field = optarg; break;
		case OPT_IDS: j->ids = true; break;
		case OPT_IMAGES: j->images = true; break;
		case 'n': j->nsamples = cli_long("--nsamples", optarg, 1, 1 << 24); break;
		case 's': j->seqlen = cli_long("--seqlen", optarg, 1, 1 << 24); break;
		case OPT_SAMPLING: j->sampling = cli_choice("--sampling", optarg, samplings); break;
		case OPT_SEED: j->seed = (uint64_t)cli_long("--seed", optarg, 0, INT32_MAX); break;
		case OPT_DISJOINT: j->disjoint = optarg; cli_note_path(); break;
		}
	}
	cli_operands(0, j->ids ? 1 : 1 << 20);
	if (!j->model && (!j->ids || j->disjoint))
		cli_fail(ERR_USAGE, "--model", "needed, for %s", j->images ? "images" : "tokens");
	if (j->images && (j->ids || j->field || j->seqlen || j->sampling == CALIB_DOCUMENTS))
		cli_fail(ERR_USAGE, "--images", "--ids, --field, --seqlen and "
			 "--sampling=documents are for text");
	if (j->ids && (j->field || j->drawn))
		cli_fail(ERR_USAGE, "--ids", "the windows are given: --field, --nsamples, "
			 "--seqlen, --sampling and --seed do not go with it");
}

/* All operands; NULL: no memory. */
static const char **operands(size_t *n, struct err *e)
{
	const char **files;

	*n = 0;
	while (cli_operand((int)*n))
		++*n;
	files = calloc(*n + 1, sizeof(*files));
	if (!files)
		err_nomem(e, "operands", (*n + 1) * sizeof(*files));
	for (size_t i = 0; files && i < *n; i++)
		files[i] = cli_operand((int)i);
	return files;
}

static int take_text(struct job *j, struct err *e)
{
	struct corpus_options opt = {
		.field = j->field, .separate = j->sampling == CALIB_DOCUMENTS
	};
	struct corpus text;
	size_t n;
	const char **files = operands(&n, e);
	int ret = files ? corpus_read(&text, j->tok, files, n, &opt, e) : -1;

	free(files);
	if (ret)
		return -1;
	ret = calib_sample(&j->calib, &text.ids, text.docs, text.ndocs, (size_t)j->nsamples,
			   (size_t)j->seqlen, (enum calib_sampling)j->sampling, j->seed, e);
	corpus_release(&text);
	return ret;
}

static int check_disjoint(const struct job *j, struct err *e)
{
	struct corpus_options opt = { .separate = false };
	struct corpus text;
	int ret;

	if (corpus_read(&text, j->tok, &j->disjoint, 1, &opt, e))
		return -1;
	ret = calib_disjoint(&j->calib, &text.ids, e);
	corpus_release(&text);
	return ret;
}

static int take_tokens(struct job *j, struct err *e)
{
	struct source_room room = { 0 };

	return (j->model && source_room(&room, &j->tok, j->model, j->ids && !j->disjoint, e)) ||
	       source_seqlen(&j->seqlen, &room, e) ||
	       (j->ids ? corpus_windows(&j->calib, j->tok, &room, cli_operand(0), e) :
			 take_text(j, e)) || (j->disjoint && check_disjoint(j, e)) ? -1 : 0;
}

static int take_images(struct job *j, struct err *e)
{
	const enum image_sampling how = j->sampling ? IMAGES_SEQUENTIAL : IMAGES_RANDOM;
	size_t n;
	const char **paths = operands(&n, e);
	int ret = paths ? imageset_calib(&j->calib, j->model, paths, n, (size_t)j->nsamples, how,
					 j->seed, j->disjoint, e) : -1;

	free(paths);
	return ret;
}

static int write_set(struct job *j, struct stream_out *out, struct err *e)
{
	struct record head = { .rank = -1 }, rec = { .rank = -1 };
	int ret;

	record_init(&head, REC_STREAM, "");
	if (j->tok)
		snprintf(j->calib.tokenizer, sizeof(j->calib.tokenizer), "%s",
			 tokenizer_fingerprint(j->tok));
	if (calib_record(&j->calib, &rec, e))
		return -1;
	ret = stream_write_head(out, &head, cli_provenance(NULL), e) ||
	      stream_write(out, &rec, calib_payload(&j->calib), e) ||
	      stream_commit(out, e) ? -1 : 0;
	record_clear(&head);
	record_clear(&rec);
	return ret;
}

int main(int argc, char **argv)
{
	struct job j = { .nsamples = 128 };
	const double start = usage_seconds();
	struct stream_out *out;
	struct err e;

	options(argc, argv, &j);
	out = cli_open_out(NULL);
	if ((j.images ? take_images(&j, &e) : take_tokens(&j, &e)) || write_set(&j, out, &e))
		cli_die(&e);
	cli_spent(0, -1, stream_out_seconds(out), "%zu %s of %zu %s in %.2f s",
		  j.calib.nsamples, j.images ? "images" : "windows",
		  j.images ? calib_image_floats(&j.calib) : j.calib.seqlen,
		  j.images ? "values" : "tokens", usage_seconds() - start);
	stream_close_out(out);
	calib_release(&j.calib);
	tokenizer_free(j.tok);
	return 0;
}
