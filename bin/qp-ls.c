/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-ls - what is in a stream
 *
 * Headers only: payloads are read past, and verified.  Nothing is printed before END.
 */
#include <stdio.h>

#include "formats/source.h"
#include "lib/base/buf.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/data/stream.h"
#include "lib/model/listing.h"

static const char usage[] =
	"usage: qp-ls [options] [IN]\n\n"
	"List what is in a stream, or in a model: a directory, a GGUF or llama2.c file.\n\n"
	"      --json           one JSON object instead of a table\n"
	"      --errors         the errors of the quantized layers, and their mean\n"
	"      --tsv            these errors with a tab between fields, for programs\n"
	"      --experts        how many tokens were sent to each expert\n"
	"      --clamp          how many groups of activations need 4, 6 or 8 bits\n"
	"      --provenance     only the pipeline that made it\n\n";

int main(int argc, char **argv)
{
	enum { OPT_TSV = 255, OPT_FIRST = 256 }; /* OPT_FIRST plus enum listing_kind */
	static const struct option longopts[] = {
		{ "json", no_argument, NULL, OPT_FIRST + LISTING_JSON },
		{ "errors", no_argument, NULL, OPT_FIRST + LISTING_ERRORS },
		{ "tsv", no_argument, NULL, OPT_TSV },
		{ "experts", no_argument, NULL, OPT_FIRST + LISTING_EXPERTS },
		{ "clamp", no_argument, NULL, OPT_FIRST + LISTING_CLAMP },
		{ "provenance", no_argument, NULL, OPT_FIRST + LISTING_PROVENANCE },
		{ 0 }
	};
	enum listing_kind kind = LISTING_TABLE;
	struct record r = { 0 };
	struct buf text = { 0 };
	struct listing *list;
	struct stream_in *in;
	struct err e;
	bool tsv = false;
	int c, got;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("", longopts)) != -1) {
		if (c == OPT_TSV) {
			tsv = true;
			continue;
		}
		if (kind != LISTING_TABLE)
			cli_fail(ERR_USAGE, "", "one of --json, --errors, --experts, --clamp, "
				 "--provenance at a time");
		kind = (enum listing_kind)(c - OPT_FIRST);
	}
	if (tsv && kind != LISTING_ERRORS)
		cli_fail(ERR_USAGE, "--tsv", "goes with --errors");
	if (tsv)
		kind = LISTING_ERRORS_TSV;
	cli_operands(0, 1);
	list = listing_new(kind, &e);
	if (!list || source_open(&in, cli_operand(0), &e) < 0)
		cli_die(&e);
	progress_start("list", stream_size_hint(in), "bytes", cli_quiet());
	while ((got = stream_next(in, &r, &e)) > 0) {
		if (listing_add(list, &r, &e) < 0)
			cli_die(&e);
		progress_step(stream_offset(in));
	}
	if (got < 0 || listing_text(list, &text, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), -1, 0, "%s", "");
	fwrite(text.p, 1, text.n, stdout);
	buf_release(&text);
	listing_free(list);
	stream_close_in(in);
	record_clear(&r);
	return cli_finish_stdout(0);
}
