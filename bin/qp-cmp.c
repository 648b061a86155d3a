/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-cmp - how far the tensors of two streams are apart
 *
 * Exits as cmp does: 0 the same (within the tolerances), 1 different, above that trouble.  One
 * block of A and one tensor of B are in memory.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "formats/source.h"
#include "formats/tasks_compare.h"
#include "lib/base/cli.h"
#include "lib/base/progress.h"
#include "lib/model/compare.h"

static const char usage[] =
	"usage: qp-cmp [options] A B\n\n"
	"Compare the tensors of two streams (or model directories) by value.\n\n"
	"      --tasks          A and B are logs of eval-tasks --samples instead\n"
	"      --rel=TOL        the same if |a - b| / |a| is at most TOL (Frobenius)\n"
	"      --abs=TOL        the same if no element differs by more than TOL\n"
	"  -r, --role=LIST      only these: weight,bias,stat,ref,perm,comp,other\n"
	"                       (default all)\n"
	"\nWith neither tolerance, values must be equal. -v prints every tensor.\n\n";

struct options {
	double rel, abs; /* < 0: not given */
	unsigned roles;
};

struct tally {
	const struct options *opt;
	const struct stream_in *in; /* the first, for the progress line */
	unsigned long tensors, differ;
	double worst_rel;
	struct tensor_error worst;
	char worst_name[STREAM_MAX_NAME + 40];
};

static unsigned parse_roles(const char *list)
{
	static const char *const names[] = { "weight", "bias", "stat", "ref", "perm", "comp",
					     "other", NULL };
	unsigned roles = 0;
	char word[16];

	for (;;) {
		size_t n = strcspn(list, ",");

		snprintf(word, sizeof(word), "%.*s", (int)(n < 15 ? n : 15), list);
		roles |= 1u << role_from_name(names[cli_choice("--role", word, names)]);
		if (list[n] == '\0') /* what has no role is another */
			return roles | (roles & 1u << ROLE_OTHER ? 1u << ROLE_NONE : 0);
		list += n + 1;
	}
}

static void print_row(const char *label, const struct tensor_error *s, const char *note)
{
	printf("%-56s %10.3e %10.3e %7.2f %9.6f%s\n", label, s->max_abs, tensor_error_rel(s),
	       tensor_error_snr(s), tensor_error_cosine(s), note);
}

static bool within(const struct options *opt, const struct tensor_error *s)
{
	if (opt->rel < 0 && opt->abs < 0)
		return s->unequal == 0;
	return !s->infinite && (opt->rel < 0 || tensor_error_rel(s) <= opt->rel) &&
	       (opt->abs < 0 || s->max_abs <= opt->abs);
}

/* A word about what one side lacks or what cannot be compared. */
static void differ(struct tally *t, const char *label, const char *why)
{
	t->differ++;
	if (cli_quiet())
		return;
	progress_clear();
	printf("%s: %s\n", label, why);
}

static int pair(void *ctx, const struct tensor_value *a, const struct tensor_value *b,
		struct err *e)
{
	char label[STREAM_MAX_NAME + 40], why[80];
	struct tally *t = ctx;
	struct tensor_error s;
	int got;

	t->tensors++;
	progress_step(stream_offset(t->in));
	tensor_value_label(a ? a : b, label, sizeof(label));
	if (!a || !b) {
		differ(t, label, a ? "only in the first" : "only in the second");
		return 0;
	}
	got = tensor_value_compare(&s, a, b, why, sizeof(why), e);
	if (got < 0)
		return -1;
	if (got == 0) {
		differ(t, label, why);
		return 0;
	}
	if (!within(t->opt, &s))
		t->differ++;
	if (s.unequal > 0 && tensor_error_rel(&s) >= t->worst_rel) {
		t->worst_rel = tensor_error_rel(&s);
		t->worst = s;
		memcpy(t->worst_name, label, sizeof(label));
	}
	if (cli_verbose() && !cli_quiet())
		print_row(label, &s, within(t->opt, &s) ? "" : " *");
	return 0;
}

static void summary(const struct tally *t)
{
	if (t->worst_name[0])
		print_row(t->worst_name, &t->worst, "  (the worst)");
	if (t->differ > 0 || t->worst_name[0])
		printf("%lu of %lu tensors differ\n", t->differ, t->tensors);
}

/* Answers, not tensors. */
static int tasks(void)
{
	struct buf out = { 0 };
	struct err e;
	size_t n;

	if (tasks_compare(&out, &n, cli_operand(0), cli_operand(1), &e) < 0)
		cli_die(&e);
	fwrite(out.p, 1, cli_quiet() ? 0 : out.n, stdout);
	buf_release(&out);
	return cli_finish_stdout(n > 0);
}

int main(int argc, char **argv)
{
	enum { OPT_REL = 256, OPT_ABS, OPT_TASKS };
	static const struct option longopts[] = {
		{ "rel", required_argument, NULL, OPT_REL },
		{ "abs", required_argument, NULL, OPT_ABS },
		{ "role", required_argument, NULL, 'r' },
		{ "tasks", no_argument, NULL, OPT_TASKS },
		{ 0 }
	};
	struct options opt = { .rel = -1, .abs = -1, .roles = ~0u };
	struct tensor_reader *reader[2];
	struct stream_in *in[2];
	struct tally tally = { .opt = &opt };
	bool logs = false;
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("r:", longopts)) != -1)
		switch (c) {
		case OPT_REL: opt.rel = cli_double("--rel", optarg, 0, HUGE_VAL); break;
		case OPT_ABS: opt.abs = cli_double("--abs", optarg, 0, HUGE_VAL); break;
		case 'r': opt.roles = parse_roles(optarg); break;
		case OPT_TASKS: logs = true; break;
		}
	if (logs && (opt.rel >= 0 || opt.abs >= 0 || opt.roles != ~0u))
		cli_fail(ERR_USAGE, "--tasks", "does not go with options about tensors");
	cli_operands(2, 2);
	if (strcmp(cli_operand(0), "-") == 0 && strcmp(cli_operand(1), "-") == 0)
		cli_fail(ERR_USAGE, "-", "only one of the two can be standard input");
	if (logs)
		return tasks();
	for (int i = 0; i < 2; i++) {
		if (source_open(&in[i], cli_operand(i), &e) < 0)
			cli_die(&e);
		reader[i] = tensor_reader_new(in[i], opt.roles, &e);
		if (!reader[i])
			cli_die(&e);
	}
	if (cli_verbose() && !cli_quiet())
		printf("%-56s %10s %10s %7s %9s\n", "tensor", "max abs", "relative", "SNR dB",
		       "cosine");
	tally.in = in[0];
	progress_start("compare", stream_size_hint(in[0]), "bytes", cli_quiet() || cli_verbose());
	if (compare_streams(reader[0], reader[1], pair, &tally, &e) < 0)
		cli_die(&e);
	progress_finish();
	if (!cli_quiet())
		summary(&tally);
	cli_spent(stream_in_seconds(in[0]) + stream_in_seconds(in[1]), -1, 0, "%s", "");
	for (int i = 0; i < 2; i++) {
		tensor_reader_free(reader[i]);
		stream_close_in(in[i]);
	}
	return cli_finish_stdout(tally.differ > 0);
}
