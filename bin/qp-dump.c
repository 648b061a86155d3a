/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-dump - a stream as text, without loss
 *
 * The text is for reading, for diff and for tests; qp-make turns it back into the stream.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/source.h"
#include "lib/base/cli.h"
#include "lib/data/stream.h"
#include "lib/data/text.h"

static const char usage[] =
	"usage: qp-dump [options] [IN]\n\n"
	"Print a stream, or any model, as text that qp-make reads back.\n\n"
	"  -n, --name=PATTERN   only records whose name matches (as in the shell)\n"
	"      --head           headers only, no payloads\n\n";

int main(int argc, char **argv)
{
	enum { OPT_HEAD = 256 };
	static const struct option longopts[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "head", no_argument, NULL, OPT_HEAD },
		{ 0 }
	};
	const char *pattern = NULL;
	struct record r = { 0 };
	struct stream_in *in;
	size_t cap = 0, shown = 0;
	void *data = NULL;
	bool head = false;
	struct err e;
	int c, got;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("n:", longopts)) != -1) {
		if (c == 'n')
			pattern = optarg;
		else if (c == OPT_HEAD)
			head = true;
	}
	cli_operands(0, 1);
	if (source_open(&in, cli_operand(0), &e) < 0)
		cli_die(&e);
	while ((got = stream_next(in, &r, &e)) > 0) {
		if (pattern && (!r.name[0] || fnmatch(pattern, r.name, 0) != 0))
			continue;
		if (!head && r.nbytes > cap) {
			free(data);
			cap = (size_t)r.nbytes;
			data = malloc(cap);
			if (!data)
				cli_fail(ERR_NOMEM, r.name, "out of memory for %zu bytes", cap);
		}
		if (!head && r.nbytes > 0 && stream_payload(in, data, &e) < 0)
			cli_die(&e);
		if (text_write(stdout, &r, head ? NULL : data, &e) < 0)
			cli_die(&e);
		if (ferror(stdout))
			return cli_finish_stdout(0);
		shown++;
	}
	if (got < 0)
		cli_die(&e);
	if (pattern && shown == 0)
		cli_fail(ERR_DATA, pattern, "no record has such a name");
	if (!pattern)
		puts("end");
	cli_spent(stream_in_seconds(in), -1, 0, "%s", "");
	stream_close_in(in);
	record_clear(&r);
	free(data);
	return cli_finish_stdout(0);
}
