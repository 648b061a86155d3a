/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smooth - move activation outliers into the weights they multiply
 *
 * Rewrites each block, copies every other record byte for byte.  The arithmetic is in
 * lib/method/smooth.c; the reasons are in man/smooth.body.
 */
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/method/smooth.h"

static const char usage[] =
	"usage: smooth [options] [IN [OUT]]\n\n"
	"Move activation outliers into the weights they multiply.\n\n"
	"  -a, --alpha=ALPHA    0: flat weights ... 1: flat activations (default 0.5)\n"
	"      --edges=LIST     attn.in attn.mid mlp.in mlp.mid, comma between, or all\n"
	"                       that are legal (default all)\n";

enum { OPT_EDGES = 256 };

static int copy(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	return stream_copy(out, in, rec, e);
}

static void options(int argc, char **argv, struct smooth_options *opt)
{
	static const struct option longopts[] = {
		{ "alpha", required_argument, NULL, 'a' },
		{ "edges", required_argument, NULL, OPT_EDGES },
		{ 0 }
	};
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_OUT);
	while ((c = cli_getopt("a:", longopts)) != -1)
		switch (c) {
		case 'a': opt->alpha = cli_double("--alpha", optarg, 0, 1); break;
		case OPT_EDGES:
			if (smooth_parse_edges(optarg, &opt->edges, &e) < 0)
				cli_die(&e);
			break;
		}
	cli_operands(0, 2);
}

int main(int argc, char **argv)
{
	struct smooth_options opt = { .alpha = 0.5, .edges = SMOOTH_ALL };
	struct record head = { .rank = -1 };
	struct stream_out *out;
	struct stream_in *in;
	struct model model;
	struct block b;
	double seconds = 0, start;
	struct err e;
	int got;

	options(argc, argv, &opt);
	in = cli_open_in(cli_operand(0));
	if (stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    smooth_check(&model, &opt, &e) < 0)
		cli_die(&e);
	out = cli_open_out(cli_operand(1));
	if (stream_write_head(out, &head, cli_provenance(NULL), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	progress_start("smooth", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, copy, out, &e)) > 0) {
		start = usage_seconds();
		if (smooth_block(&b, &opt, &e) < 0)
			cli_die(&e);
		seconds += usage_seconds() - start;
		if (block_write(&b, out, &e) < 0)
			cli_die(&e);
		progress_step((uint64_t)b.layer + 1);
	}
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	progress_finish();
	if (cli_verbose())
		cli_warn("read %.2f s, compute %.2f s, write %.2f s, peak %.1f MiB",
			 stream_in_seconds(in), seconds, stream_out_seconds(out),
			 (double)usage_peak_bytes() / 1048576);
	block_release(&b);
	record_clear(&head);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
