/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-sum - add the statistics of streams that separate jobs recorded
 *
 * All inputs are read side by side, record by record; what is no statistic must be the same.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/data/stream.h"
#include "lib/model/sum.h"

static const char usage[] =
	"usage: qp-sum [options] STREAM...\n\n"
	"Add the statistics of streams that were recorded from one model.\n\n"
	"The result goes to standard output. One of the streams can be - .\n\n";

struct inputs {
	struct stream_in **in;
	const char **names;  /* for messages */
	const char **notes;  /* for the provenance: "-", then a variable for each other stream */
	char (*note)[24];
	int n;
};

static void open_inputs(struct inputs *s)
{
	const char *seen = NULL, *path;

	while (cli_operand(s->n))
		s->n++;
	s->in = calloc((size_t)s->n, sizeof(*s->in));
	s->names = calloc((size_t)s->n, sizeof(*s->names));
	s->notes = calloc((size_t)s->n, sizeof(*s->notes));
	s->note = calloc((size_t)s->n, sizeof(*s->note));
	if (!s->in || !s->names || !s->notes || !s->note)
		cli_fail(ERR_NOMEM, "", "out of memory");
	for (int i = 0; i < s->n; i++) {
		path = cli_operand(i);
		if (strcmp(path, "-") == 0 && seen)
			cli_fail(ERR_USAGE, "-", "only one of the streams can be standard input");
		if (strcmp(path, "-") == 0)
			seen = path;
		s->in[i] = cli_open_in(path);
		s->names[i] = strcmp(path, "-") == 0 ? "standard input" : path;
		snprintf(s->note[i], sizeof(s->note[i]), i == 0 ? "-" : "$STREAM%d", i + 1);
		s->notes[i] = s->note[i];
	}
}

static void close_inputs(struct inputs *s)
{
	for (int i = 0; i < s->n; i++)
		stream_close_in(s->in[i]);
	free(s->in);
	free(s->names);
	free(s->notes);
	free(s->note);
}

static double read_seconds(const struct inputs *x)
{
	double s = 0;

	for (int i = 0; i < x->n; i++)
		s += stream_in_seconds(x->in[i]);
	return s;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = { { 0 } };
	struct record head = { .rank = -1 };
	struct provenance prov;
	struct inputs inputs = { 0 };
	struct stream_out *out;
	struct sum *sum;
	struct err e;
	int got;

	cli_init(argc, argv, usage, CLI_OUT);
	while (cli_getopt("", longopts) != -1)
		continue;
	cli_operands(1, INT_MAX);
	open_inputs(&inputs);
	sum = sum_new(inputs.in, inputs.names, inputs.n, &e);
	if (!sum || sum_head(sum, &head, &e) < 0)
		cli_die(&e);
	prov = *cli_provenance(NULL);
	prov.n = inputs.n;
	prov.options = inputs.notes;
	out = cli_open_out(NULL);
	if (stream_write_head(out, &head, &prov, &e) < 0)
		cli_die(&e);
	progress_start("sum", stream_size_hint(inputs.in[0]), "bytes", cli_quiet());
	while ((got = sum_next(sum, out, &e)) > 0)
		progress_step(stream_offset(inputs.in[0]));
	if (got < 0 || stream_commit(out, &e) < 0)
		cli_die(&e);
	progress_finish();
	cli_spent(read_seconds(&inputs), -1, stream_out_seconds(out), "%d streams",
		  inputs.n);
	stream_close_out(out);
	sum_free(sum);
	record_clear(&head);
	close_inputs(&inputs);
	return 0;
}
