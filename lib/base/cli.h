/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - what every program in bin/ does the same way
 *
 * With progress.h the only part of lib/ that may print, exit or keep state, and the only one
 * that looks upstairs (lib/data); nothing else in lib/ may include it.  cli_init puts
 * SIGPIPE back to its default, makes sure that descriptors 0-2 are taken and remembers argv.
 * cli_getopt is getopt_long that handles the common options itself and collects the
 * provenance.
 */
#ifndef QP_CLI_H
#define QP_CLI_H

#include <getopt.h>
#include <stdbool.h>

#include "lib/base/err.h"

struct outdir;
struct output;
struct provenance;
struct stream_in;
struct stream_out;

/* Programs take only the common options that they obey. */
enum cli_common {
	CLI_OUT = 1,     /* -o and -z: writes a stream */
	CLI_THREADS = 2, /* -j and --device: computes */
	CLI_COMPUTE = 4, /* --compute: runs a model */
	CLI_BASIC = 0,   /* -q -v -h -V: always */
};

/* usage: "usage: NAME [options] ...\n\nWhat it does.\n\n  -a, --alpha=..."; lines for the
 * common options that `common` selects are printed after it. */
void cli_init(int argc, char **argv, const char *usage, int common);

/* As getopt_long with the common options added; -1 when options are over.  An unknown
 * option, or one without its argument, ends the program with 64.  Every option returned is
 * noted for the provenance in its long form ("--alpha=0.75"). */
int cli_getopt(const char *optstring, const struct option *longopts);

/* The option just returned names a file: note it as --NAME=$NAME (upper case), not its path. */
void cli_note_path(void);
/* The option just returned does not change the output: do not note it. */
void cli_note_none(void);

/* Parse or die with 64: "smooth: --alpha: expected a number from 0 to 1, got '1.5'".  Decimal, and
 * nothing before it but a minus sign: no blank, no plus. */
double cli_double(const char *opt, const char *arg, double min, double max);
long cli_long(const char *opt, const char *arg, long min, long max);
/* Index of arg in the NULL-terminated list. */
int cli_choice(const char *opt, const char *arg, const char *const *list);

/* Operand i (0-based), or NULL; fewer than min, more than max or an empty one is 64. */
const char *cli_operand(int i);
void cli_operands(int min, int max);

const char *cli_output(void);   /* -o, or NULL */
int cli_zstd(void);             /* level, 0: off */
int cli_threads(void);          /* 0 unless given: all processors, shared (pool_share) */
const char *cli_device(void);   /* "cpu" unless given; the form is checked, not the device */
const char *cli_compute(void);  /* "f32" unless given; backend_compute says whether it is one */
bool cli_quiet(void);
bool cli_verbose(void);

/* What stream_write_head wants; backend may be NULL. */
const struct provenance *cli_provenance(const char *backend);

/* Print "program: where: what" and exit with the class.  Flushes stdout first; the temporary file
 * of cli_open_out is removed (as it is by every signal that ends the process and can be caught).
 * A closed pipe is no message but death by SIGPIPE; a closed stderr is nothing at all. */
void cli_die(const struct err *e) __attribute__((noreturn));
/* Shorthand: class, then a message. */
void cli_fail(enum err_class cls, const char *where, const char *fmt, ...)
	QP_PRINTF(3, 4) __attribute__((noreturn));
/* One line on stderr, "program: ...", unless -q. */
void cli_warn(const char *fmt, ...) QP_PRINTF(1, 2);

/*
 * With -v one line, the last: "program: read 0.10 s, compute 2.00 s, write 0.03 s, peak 40.1 MiB",
 * and after a comma what fmt says unless it is "".  read and write are processor time, as of
 * stream_in_seconds; compute is the time that computing took, or where it is negative all
 * processor time that is neither of the two.
 */
void cli_spent(double read, double compute, double write, const char *fmt, ...) QP_PRINTF(4, 5);

/* stream_open_in on operand or stdin; stream_open_out on -o or operand or stdout. Die on error. */
struct stream_in *cli_open_in(const char *path);
struct stream_out *cli_open_out(const char *operand);

/* A file beside what is printed (a log): output_open, guarded as that of cli_open_out is, which a
 * program does not call too.  Then: output_commit and output_close.  Both die on error. */
void cli_open_file(struct output *o, const char *path);
void cli_commit_file(struct output *o);

/* outdir_open and outdir_commit, guarded in the same way: whatever ends the process removes what
 * was written.  Both die on error; the latter closes. */
void cli_open_dir(struct outdir *d, const char *path, bool force);
void cli_commit_dir(struct outdir *d);

/* Close stdout and look at the result: the last call of main for programs that print. */
int cli_finish_stdout(int status);

#endif
