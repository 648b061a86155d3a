/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qp-lint - will a model directory load where it is to be served?
 */
#include <stdio.h>

#include "formats/lint.h"
#include "lib/base/cli.h"

static const char usage[] =
	"usage: qp-lint [options] DIR\n\n"
	"Print what would keep a model from loading or make it load wrongly: a line a\n"
	"problem, exit 1 if there is any.  DIR may be a GGUF file.\n\n"
	"      --for=LIST       of vllm, sglang, transformers, llama.cpp (default: all)\n"
	"      --tp=N           ranks that linears are split over (default 1)\n"
	"      --rules          print the rules, their dates and sources\n";

enum { OPT_FOR = 256, OPT_TP, OPT_RULES };

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "for", required_argument, NULL, OPT_FOR },
		{ "tp", required_argument, NULL, OPT_TP },
		{ "rules", no_argument, NULL, OPT_RULES },
		{ 0 }
	};
	struct lint_options o = { .loaders = LINT_ALL, .tp = 1 };
	struct buf out = { 0 };
	bool rules = false;
	long n = 0;
	struct err e;
	int c;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("", longopts)) != -1)
		switch (c) {
		case OPT_FOR:
			o.loaders = lint_loaders(optarg);
			if (!o.loaders)
				cli_fail(ERR_USAGE, "--for", "expected names among vllm, sglang, "
					 "transformers and llama.cpp with commas between, got '%s'",
					 optarg);
			break;
		case OPT_TP: o.tp = cli_long("--tp", optarg, 1, 65536); break;
		case OPT_RULES: rules = true; break;
		}
	cli_operands(!rules, rules ? 0 : 1);
	if (rules)
		lint_list(&out);
	else if (lint(&out, &n, cli_operand(0), &o, &e) < 0)
		cli_die(&e);
	fputs(buf_str(&out), stdout);
	buf_release(&out);
	cli_spent(0, -1, 0, "%ld findings", n);
	return cli_finish_stdout(n > 0);
}
