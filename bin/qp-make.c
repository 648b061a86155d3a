/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-make - a stream from its text form
 *
 * The reverse of qp-dump.  The line "end" of the text is what END is to a stream: without it
 * nothing is committed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cli.h"
#include "lib/data/stream.h"
#include "lib/data/text.h"

static const char usage[] =
	"usage: qp-make [options] [TEXT [OUT]]\n\n"
	"Make a stream from its text form, as qp-dump prints it.\n\n"
	"Sizes, chunks and checksums are worked out; the provenance is the text's.\n\n";

static FILE *open_text(const char *path)
{
	FILE *f = stdin;
	struct stat st;

	if (path && strcmp(path, "-") != 0) {
		f = fopen(path, "r");
		if (!f)
			cli_fail(ERR_NOINPUT, path, "%s", strerror(errno));
		if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode))
			cli_fail(ERR_NOINPUT, path, "is a directory, not a text");
	} else if (isatty(STDIN_FILENO)) {
		cli_fail(ERR_USAGE, "standard input", "is a terminal; the text is expected there");
	}
	return f;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = { { 0 } };
	struct record r = { 0 };
	struct stream_out *out;
	struct text_in *text;
	const void *payload;
	struct err e;
	FILE *f;
	int got;

	cli_init(argc, argv, usage, CLI_OUT);
	while (cli_getopt("", longopts) != -1)
		continue;
	cli_operands(0, 2);
	f = open_text(cli_operand(0));
	out = cli_open_out(cli_operand(1));
	text = text_open(f, &e);
	if (!text)
		cli_die(&e);
	while ((got = text_next(text, &r, &payload, &e)) > 0)
		if (stream_write(out, &r, payload, &e) < 0)
			cli_die(&e);
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	cli_spent(0, -1, stream_out_seconds(out), "%s", "");
	stream_close_out(out);
	text_close(text);
	record_clear(&r);
	if (f != stdin)
		fclose(f);
	return 0;
}
