/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn - round every weight of the linears to the nearest point of its group's grid
 *
 * Rewrites each block, copies every other record byte for byte.
 */
#include "bin/device.h"
#include "bin/quantizer_options.h"
#include "formats/source.h"
#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/method/rtn.h"

static const char usage[] =
	"usage: rtn [options] [IN [OUT]]\n\n"
	"Quantize linears by rounding every weight to the nearest code.\n\n"
	"IN is a stream, or a model: a directory, a GGUF or llama2.c file.\n\n"
	QUANTIZER_HELP_GRID("minmax")
	QUANTIZER_HELP_LAYERS;

static void options(int argc, char **argv, struct layer_options *o)
{
	static const struct option longopts[] = { QUANTIZER_LONG, { 0 } };
	int c;

	cli_init(argc, argv, usage, CLI_OUT | CLI_THREADS);
	while ((c = cli_getopt(QUANTIZER_SHORT, longopts)) != -1)
		quantizer_option(o, c);
	cli_operands(0, 2);
	quantizer_options_end(o);
}

static int copy(void *out, struct stream_in *in, struct record *rec, struct err *e)
{
	return stream_copy(out, in, rec, e);
}

int main(int argc, char **argv)
{
	struct layer_options o = { .by = "rtn", .q = QUANTIZER_DEFAULTS(RANGE_MINMAX) };
	struct record head = { .rank = -1 };
	struct quantized z = { 0 };
	struct backend be;
	struct stream_out *out;
	struct stream_in *in;
	struct model model;
	struct block b;
	double seconds = 0, start;
	struct err e;
	const char *idle;
	int got;

	options(argc, argv, &o);
	open_device(&be);
	if (source_open(&in, cli_operand(0), &e) < 0 ||
	    stream_next(in, &head, &e) < 0 || model_from_head(&model, &head, &e) < 0 ||
	    layer_check_groups(&o, &model, &e) < 0)
		cli_die(&e);
	if ((idle = layer_idle_skip(&o, &model)))
		cli_warn("--skip=%s matches no linear", idle);
	out = cli_open_out(cli_operand(1));
	if (stream_write_head(out, &head, cli_provenance(be.name), &e) < 0)
		cli_die(&e);
	block_init(&b, &model);
	progress_start("rtn", (uint64_t)model.cfg.layers, "blocks", cli_quiet());
	while ((got = block_read(&b, in, copy, out, &e)) > 0) {
		start = usage_seconds();
		if (rtn_block(&b, &z, &be, &o, &e) < 0)
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
	quantized_release(&z);
	record_clear(&head);
	layer_options_release(&o);
	backend_close(&be);
	stream_close_out(out);
	stream_close_in(in);
	return 0;
}
