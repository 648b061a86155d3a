/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-tok - text to token ids and back
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/base/usage.h"
#include "lib/data/idlines.h"
#include "lib/data/slurp.h"
#include "lib/data/tokenizer.h"

static const char usage[] =
	"usage: qp-tok [options] -m MODEL [FILE]\n\n"
	"Turn text into a line of token ids, or lines of ids into text.\n\n"
	"  -m, --model=MODEL    a directory, a GGUF or llama2.c file, a stream, or a\n"
	"                       tokenizer's file: tokenizer.json, SentencePiece's\n"
	"                       tokenizer.model\n"
	"  -0, --null           texts are separated by NUL: a line of ids for each\n"
	"  -d, --decode         back: a text for each line of ids, and a line end after\n"
	"                       it, with -0 a NUL\n"
	"      --no-special     add no special tokens (BOS); decoding, leave them out\n";

#define MAX_TEXT ((size_t)1 << 30)

enum { OPT_NO_SPECIAL = 256 };

static struct {
	const char *model;
	bool null, decode, no_special;
} opt;

static void options(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "model", required_argument, NULL, 'm' },
		{ "null", no_argument, NULL, '0' },
		{ "decode", no_argument, NULL, 'd' },
		{ "no-special", no_argument, NULL, OPT_NO_SPECIAL },
		{ 0 }
	};
	int c;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("m:0d", longopts)) != -1)
		switch (c) {
		case 'm': opt.model = optarg; break;
		case '0': opt.null = true; break;
		case 'd': opt.decode = true; break;
		case OPT_NO_SPECIAL: opt.no_special = true; break;
		}
	cli_operands(0, 1);
	if (!opt.model)
		cli_fail(ERR_USAGE, "--model", "needed: whose tokens?");
	if (strcmp(opt.model, "-") == 0 && (!cli_operand(0) || !strcmp(cli_operand(0), "-")))
		cli_fail(ERR_USAGE, "--model", "and the text cannot both be standard input");
}

/* One of the inputs, `number` from 0: a text, printed as ids, or a line of ids, printed as text. */
static int encode(const struct tokenizer *t, const char *s, size_t n, size_t number,
		  struct ids *ids, struct err *e)
{
	if (tokenizer_encode(t, s, n, !opt.no_special, ids, e)) {
		if (opt.null)
			snprintf(e->where, sizeof(e->where), "text %zu", number + 1);
		return -1;
	}
	for (size_t i = 0; i < ids->n; i++)
		printf(i ? " %d" : "%d", (int)ids->id[i]);
	putchar('\n');
	return 0;
}

static int decode(const struct tokenizer *t, const char *s, size_t n, size_t number,
		  struct ids *ids, struct err *e)
{
	char *text;
	size_t len;

	if (id_line_parse(ids, s, s + n, number, e))
		return -1;
	if (tokenizer_decode(t, ids->id, ids->n, opt.no_special, &text, &len, e)) {
		snprintf(e->where, sizeof(e->where), "line %zu", number + 1);
		return -1;
	}
	fwrite(text, 1, len, stdout);
	putchar(opt.null ? '\0' : '\n');
	free(text);
	return 0;
}

static void one(const struct tokenizer *t, const char *s, size_t n, size_t number)
{
	struct ids ids = { 0 };
	struct err e;
	int ret = opt.decode ? decode(t, s, n, number, &ids, &e) :
			       encode(t, s, n, number, &ids, &e);

	ids_release(&ids);
	if (ret)
		cli_die(&e);
}

int main(int argc, char **argv)
{
	struct buf in = { 0 };
	struct tokenizer *t;
	struct err e;
	size_t number = 0;
	double start;

	options(argc, argv);
	if (source_tokenizer(&t, opt.model, &e) || slurp(&in, cli_operand(0), MAX_TEXT, &e))
		cli_die(&e);
	start = usage_seconds();
	if (!opt.decode && !opt.null) {
		one(t, in.p ? in.p : "", in.n, 0);
		number = 1;
	}
	for (size_t i = 0, n; (opt.decode || opt.null) && i < in.n; i += n + 1) {
		const char *s = in.p + i;
		const char *end = memchr(s, opt.decode ? '\n' : '\0', in.n - i);

		n = end ? (size_t)(end - s) : in.n - i;
		one(t, s, n, number++);
	}
	cli_spent(0, -1, 0, "%zu %s of %zu bytes in %.2f s", number,
		  opt.decode ? "lines" : "texts", in.n, usage_seconds() - start);
	buf_release(&in);
	tokenizer_free(t);
	return cli_finish_stdout(0);
}
