/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-check - is this stream whole and sound?
 *
 * Says nothing when it is.  Reading to END verifies counts and checksums; lib/model/check.c looks
 * at the headers, and at the numbers of one tensor after the other.
 */
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/data/stream.h"
#include "lib/model/check.h"

static const char usage[] =
	"usage: qp-check [options] [IN]\n\n"
	"Check that a stream is complete and sound; silent when it is.\n\n"
	"END, the count of records, all checksums; blocks in order; tensors as planned;\n"
	"weights and statistics finite.\n\n";

int main(int argc, char **argv)
{
	static const struct option longopts[] = { { 0 } };
	struct record r = { 0 };
	struct stream_in *in;
	struct check *check;
	struct err e;
	int got;

	cli_init(argc, argv, usage, CLI_BASIC);
	while (cli_getopt("", longopts) != -1)
		continue;
	cli_operands(0, 1);
	in = cli_open_in(cli_operand(0));
	check = check_new(&e);
	if (!check)
		cli_die(&e);
	progress_start("check", stream_size_hint(in), "bytes", cli_quiet());
	while ((got = stream_next(in, &r, &e)) > 0) {
		if (check_record(check, in, &r, &e) < 0)
			cli_die(&e);
		progress_step(stream_offset(in));
	}
	if (got < 0 || check_end(check, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(stream_in_seconds(in), -1, 0, "%s", "");
	stream_close_in(in);
	check_free(check);
	record_clear(&r);
	return 0;
}
