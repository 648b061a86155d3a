/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot-errors - a picture of the errors of quantized layers, of one stream or two
 *
 * Collects the notes of kind layer-error and hands gnuplot a script with the data in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/buf.h"
#include "lib/base/cli.h"
#include "lib/data/stream.h"

static const char usage[] =
	"usage: plot-errors [options] [IN [IN2]] > PICTURE\n\n"
	"Plot the relative error of each quantized layer, of one stream or two.\n\n"
	"      --png            a PNG (default: SVG)\n"
	"      --script         the gnuplot script itself; gnuplot is not needed\n"
	"      --title=TEXT     above the picture\n";

enum { OPT_PNG = 256, OPT_SCRIPT, OPT_TITLE };

struct job {
	bool png, script;
	const char *title;
};

/* "layers.3.mlp.down_proj" of a tensor's name. */
static void put_name(struct buf *out, const char *name)
{
	size_t n = strlen(name), skip = strncmp(name, "model.", 6) == 0 ? 6 : 0;

	if (n > 7 && strcmp(name + n - 7, ".weight") == 0)
		n -= 7;
	buf_byte(out, '"');
	for (size_t i = skip; i < n; i++)
		buf_byte(out, strchr("\"\\{}^@&`$\n", name[i]) ? '_' : name[i]);
	buf_byte(out, '"');
}

/* A line "name" error for each layer of the stream, and the names alone; how many. */
static size_t collect(const char *path, struct buf *out, struct buf *names)
{
	struct record r = { .rank = -1 };
	struct stream_in *in = cli_open_in(path);
	struct err e;
	size_t n = 0;
	char kind[32];
	double rel;
	int got;

	while ((got = stream_next(in, &r, &e)) > 0) {
		if (r.type != REC_NOTE || !record_get_str(&r, "kind", kind, sizeof(kind)) ||
		    strcmp(kind, "layer-error") != 0 ||
		    (record_get_double(&r, "rel_err", &rel) != 1 &&
		     record_get_double(&r, "w_rel_err", &rel) != 1))
			continue;
		put_name(names, r.name);
		put_name(out, r.name);
		buf_printf(out, " %.9g\n", rel);
		n++;
	}
	if (got < 0)
		cli_die(&e);
	if (n == 0)
		cli_fail(ERR_DATA, path, "no layer errors; a quantizer leaves them");
	record_clear(&r);
	stream_close_in(in);
	return n;
}

static void put_script(struct buf *s, const struct job *j, const struct buf data[2], size_t n,
		       int inputs)
{
	const size_t wide = 200 + n * 14 < 640 ? 640 : 200 + n * 14;

	buf_printf(s, "set terminal %s size %zu,480\n", j->png ? "png" : "svg", wide);
	if (j->title) {
		buf_puts(s, "set title \"");
		for (const char *p = j->title; *p; p++)
			buf_byte(s, strchr("\"\\`\n", *p) ? '_' : *p);
		buf_puts(s, "\" noenhanced\n");
	}
	for (int i = 0; i < inputs; i++) {
		buf_printf(s, "$e%d << EOD\n", i);
		buf_add(s, data[i].p, data[i].n);
		buf_puts(s, "EOD\n");
	}
	buf_puts(s, "set logscale y\nset ylabel \"relative error of the output\"\n"
		 "set xtics rotate by 90 right noenhanced\nset grid y\nset style fill solid\n"
		 "set style data histograms\nset key top left\n"
		 "plot $e0 using 2:xtic(1) title \"first\"");
	buf_puts(s, inputs == 2 ? ", $e1 using 2 title \"second\"\n" : "\n");
}

/* gnuplot, reading from *to; its picture comes from *from. */
static pid_t start_gnuplot(FILE **to, FILE **from)
{
	static char name[] = "gnuplot";
	char *argv[] = { name, NULL };
	posix_spawn_file_actions_t acts;
	int in[2], out[2], bad;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ||
	    posix_spawn_file_actions_init(&acts) != 0 ||
	    posix_spawn_file_actions_adddup2(&acts, in[0], 0) != 0 ||
	    posix_spawn_file_actions_adddup2(&acts, out[1], 1) != 0)
		cli_fail(ERR_IO, "gnuplot", "cannot be started");
	bad = posix_spawnp(&pid, argv[0], &acts, NULL, argv, environ);
	if (bad)
		cli_fail(ERR_UNAVAIL, "gnuplot", "%s; install the package gnuplot-nox, or take "
			 "--script", strerror(bad));
	posix_spawn_file_actions_destroy(&acts);
	close(in[0]);
	close(out[1]);
	*to = fdopen(in[1], "w");
	*from = fdopen(out[0], "r");
	if (!*to || !*from)
		cli_fail(ERR_NOMEM, "gnuplot", "out of memory");
	return pid;
}

/* The picture goes through us to standard output: gnuplot does not say that a disk is full.  It
 * plots when it has the whole script, so that neither waits for the other. */
static void run_gnuplot(const struct buf *script)
{
	FILE *to, *from;
	char part[8192];
	size_t got;
	int status;
	const pid_t pid = start_gnuplot(&to, &from);

	if (fwrite(script->p, 1, script->n, to) != script->n || fclose(to) != 0)
		cli_fail(ERR_IO, "gnuplot", "did not take its script");
	while ((got = fread(part, 1, sizeof(part), from)) > 0 &&
	       fwrite(part, 1, got, stdout) == got)
		;
	fclose(from);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!ferror(stdout) && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		cli_fail(ERR_UNAVAIL, "gnuplot", "failed; --script shows what it was given");
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "png", no_argument, NULL, OPT_PNG },
		{ "script", no_argument, NULL, OPT_SCRIPT },
		{ "title", required_argument, NULL, OPT_TITLE },
		{ 0 }
	};
	struct buf data[2] = { { 0 } }, names[2] = { { 0 } }, script = { 0 };
	struct job j = { 0 };
	struct err e;
	size_t n;
	int c, inputs;

	cli_init(argc, argv, usage, CLI_BASIC);
	while ((c = cli_getopt("", longopts)) != -1)
		switch (c) {
		case OPT_PNG: j.png = true; break;
		case OPT_SCRIPT: j.script = true; break;
		case OPT_TITLE: j.title = optarg; break;
		}
	cli_operands(0, 2);
	inputs = cli_operand(1) ? 2 : 1;
	n = collect(cli_operand(0), &data[0], &names[0]);
	if (inputs == 2 && (collect(cli_operand(1), &data[1], &names[1]) != n ||
			    strcmp(buf_str(&names[0]), buf_str(&names[1])) != 0))
		cli_fail(ERR_DATA, cli_operand(1), "has errors of other layers than the first");
	put_script(&script, &j, data, n, inputs);
	if (buf_failed(&script, "", &e) < 0)
		cli_die(&e);
	if (j.script)
		fwrite(script.p, 1, script.n, stdout);
	else
		run_gnuplot(&script);
	cli_spent(0, -1, 0, "%zu layers", n);
	buf_release(&data[0]);
	buf_release(&data[1]);
	buf_release(&names[0]);
	buf_release(&names[1]);
	buf_release(&script);
	return cli_finish_stdout(0);
}
