/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.c - options, errors and endings, the same in every program
 *
 * The process has one command line, one provenance and one output: they are static here.
 */
#include "lib/base/cli.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/progress.h"
#include "lib/base/usage.h"
#include "lib/data/outdir.h"
#include "lib/data/output.h"
#include "lib/data/stream.h"

enum { OPT_DEVICE = 0x7f00, OPT_COMPUTE, MAX_LONG = 64, MAX_SHORT = 128 };

static struct {
	int argc;
	char **argv;
	const char *prog, *usage;
	int common;
	struct option longopts[MAX_LONG];
	char optstring[MAX_SHORT];
	bool merged;
	/* common options */
	const char *output, *device, *compute;
	int zstd, threads;
	bool quiet, verbose;
	/* provenance */
	char **notes;
	int n_notes;
	bool noted;                  /* the last option is the last note */
	const struct option *last;   /* the option just returned, NULL: it has no long form */
	struct provenance prov;
	struct stream_out *out;
} cli;

/* The temporary file, to be removed by a signal handler as well; "": none.  Once it has been
 * renamed, nothing of this name is there.  While it is being opened its name is not known here:
 * a signal then waits in `caught`, whichever thread it came to. */
static char temp_file[4096];
static const struct outdir *temp_dir; /* the same of a directory; NULL: none */
static atomic_bool opening;
static atomic_int caught;

/* ---- endings */

static void die_of(int sig) __attribute__((noreturn));

static void die_of(int sig)
{
	sigset_t set;

	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	_exit(128 + sig);
}

/* Returning to the instruction that raised one of these would only raise it again. */
static bool is_fault(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
	       sig == SIGTRAP || sig == SIGSYS || sig == SIGABRT;
}

static void wipe(void)
{
	if (temp_file[0])
		unlink(temp_file);
	if (temp_dir)
		outdir_wipe(temp_dir);
}

static void on_signal(int sig)
{
	atomic_store(&caught, sig); /* before the look at `opening` */
	if (atomic_load(&opening) && !is_fault(sig))
		return;
	wipe();
	die_of(sig);
}

/* The signals that end a process, as far as they can be caught. */
static bool is_fatal(int sig)
{
	static const int others[] = {
		SIGKILL, SIGSTOP, SIGCHLD, SIGURG, SIGWINCH, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (sig == others[i])
			return false;
	return true;
}

/* A signal that is ignored (nohup) or has a handler (a sanitizer's) keeps it. */
static void catch_signals(void)
{
	struct sigaction now, ours = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	for (int sig = 1; sig <= SIGRTMAX; sig++)
		if (is_fatal(sig) && sigaction(sig, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
			sigaction(sig, &ours, NULL);
}

void cli_die(const struct err *e)
{
	int failed = fflush(stdout), sys = errno;
	char line[sizeof(e->where) + sizeof(e->what) + 4], text[sizeof(line) + 256];

	wipe();
	if (e->sys == EPIPE || (failed && sys == EPIPE)) {
		progress_clear();
		die_of(SIGPIPE);
	}
	/* One line, even where a name that came with the input has line ends in it. */
	snprintf(line, sizeof(line), "%s%s%s", e->where, e->where[0] ? ": " : "", e->what);
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	snprintf(text, sizeof(text), "%.250s: %s\n", cli.prog, line);
	progress_say(text);
	exit(e->cls);
}

void cli_fail(enum err_class cls, const char *where, const char *fmt, ...)
{
	char what[sizeof(((struct err *)0)->what)];
	struct err e;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	err_set(&e, cls, where, "%s", what);
	cli_die(&e);
}

void cli_warn(const char *fmt, ...)
{
	char line[1024], text[sizeof(line) + 256];
	va_list ap;

	if (cli.quiet)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "%.250s: %s\n", cli.prog, line);
	progress_say(text);
}

void cli_spent(double read, double compute, double write, const char *fmt, ...)
{
	char more[512];
	va_list ap;

	if (!cli.verbose)
		return;
	va_start(ap, fmt);
	vsnprintf(more, sizeof(more), fmt, ap);
	va_end(ap);
	if (compute < 0)
		compute = fmax(usage_cpu_seconds() - read - write, 0);
	cli_warn("read %.2f s, compute %.2f s, write %.2f s, peak %.1f MiB%s%s", read, compute,
		 write, (double)usage_peak_bytes() / 1048576, *more ? ", " : "", more);
}

int cli_finish_stdout(int status)
{
	struct err e;
	bool failed = ferror(stdout) != 0;
	int cause = errno; /* of the write that failed, which was the last thing to fail */

	errno = 0;
	/* Closing a copy shows what a close would, and keeps descriptor 1 taken. */
	if (fflush(stdout) == 0) {
		int fd = dup(STDOUT_FILENO);

		if (fd >= 0 && close(fd) == 0 && !failed)
			return status;
	}
	if (failed && !errno)
		errno = cause;
	err_errno(&e, ERR_IO, "standard output", "%s", "");
	cli_die(&e);
}

static void print_usage(void) __attribute__((noreturn));

static void print_usage(void)
{
	static const char *const out =
		"  -o, --output=FILE    write FILE, renamed into place when complete\n"
		"  -z, --zstd[=LEVEL]   compress payloads (default level 1)\n";
	static const char *const threads =
		"  -j, --threads=N      threads (default: all processors, shared in a pipeline)\n"
		"      --device=DEV     cpu or cuda[:N] (default cpu)\n";

	static const char *const compute =
		"      --compute=C      f32, bf16, bf16x3, int or fake: in what linears multiply\n";

	fputs(cli.usage, stdout);
	fputs(cli.common & CLI_OUT ? out : "", stdout);
	fputs(cli.common & CLI_COMPUTE ? compute : "", stdout);
	fputs(cli.common & CLI_THREADS ? threads : "", stdout);
	fputs("  -q, --quiet          no progress, no warnings\n"
	      "  -v, --verbose        say at the end where the time went\n"
	      "  -h, --help           this text\n"
	      "  -V, --version        version\n", stdout);
	exit(cli_finish_stdout(0));
}

/* ---- options */

void cli_init(int argc, char **argv, const char *usage, int common)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	sigset_t pipes;

	/* No file that is opened later may become a standard stream; using one that was closed
	 * stays an error. */
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY) != fd)
			exit(ERR_BUG);
	/* A parent may have passed on an ignored or blocked SIGPIPE. */
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&pipes);
	sigaddset(&pipes, SIGPIPE);
	sigprocmask(SIG_UNBLOCK, &pipes, NULL);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG says it better */

	cli.argc = argc;
	cli.argv = argv;
	cli.prog = slash ? slash + 1 : argc > 0 ? argv[0] : "quantpipe";
	cli.usage = usage;
	cli.common = common;
	cli.device = "cpu";
	cli.compute = "f32";
	cli.notes = calloc((size_t)argc + 1, sizeof(*cli.notes));
	if (!cli.notes)
		cli_fail(ERR_NOMEM, "", "out of memory");
	opterr = 0;
}

static void merge_options(const char *optstring, const struct option *longopts)
{
	static const struct option basic[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
	};
	static const struct option out[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "zstd", optional_argument, NULL, 'z' },
	};
	static const struct option threads[] = {
		{ "threads", required_argument, NULL, 'j' },
		{ "device", required_argument, NULL, OPT_DEVICE },
	};
	static const struct option compute = { "compute", required_argument, NULL, OPT_COMPUTE };
	int n = 0;

	for (; longopts && longopts[n].name && n < MAX_LONG - 10; n++)
		cli.longopts[n] = longopts[n];
	for (size_t i = 0; i < sizeof(basic) / sizeof(*basic); i++)
		cli.longopts[n++] = basic[i];
	for (size_t i = 0; cli.common & CLI_OUT && i < sizeof(out) / sizeof(*out); i++)
		cli.longopts[n++] = out[i];
	for (size_t i = 0; cli.common & CLI_THREADS && i < sizeof(threads) / sizeof(*threads); i++)
		cli.longopts[n++] = threads[i];
	if (cli.common & CLI_COMPUTE)
		cli.longopts[n++] = compute;
	snprintf(cli.optstring, sizeof(cli.optstring), ":%s%s%sqvhV", optstring,
		 cli.common & CLI_OUT ? "o:z::" : "", cli.common & CLI_THREADS ? "j:" : "");
	cli.merged = true;
}

/* How many long options begin like the word after the dashes (1 also for a whole name), and the
 * value of the last of them. */
static int count_matches(const char *word, int *val)
{
	size_t n = strcspn(word, "=");
	int found = 0;

	*val = 0;
	for (const struct option *o = cli.longopts; o->name; o++) {
		if (strncmp(o->name, word, n) != 0)
			continue;
		*val = o->val;
		if (strlen(o->name) == n)
			return 1;
		found++;
	}
	return found;
}

/* What getopt_long did not like; with ':' the argument is missing. */
static void bad_option(int c) __attribute__((noreturn));

static void bad_option(int c)
{
	const char *word = cli.argv[optind - 1], *what;
	char name[128], shorter[3] = { '-', (char)optopt, 0 };
	int val, matches = count_matches(word + 2 * (strncmp(word, "--", 2) == 0), &val);
	/* Within "-xyz" optind has not moved yet, and word may be any earlier argument. */
	bool is_long = strncmp(word, "--", 2) == 0 && (optopt == 0 || optopt == val);

	if (is_long)
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(word, "="), word);
	else
		snprintf(name, sizeof(name), "%s", shorter);
	if (c == ':')
		what = "needs an argument";
	else if (is_long && optopt != 0)
		what = "takes no argument";
	else if (is_long && matches > 1)
		what = "could be several options";
	else
		what = "unknown option";
	cli_fail(ERR_USAGE, name, "%s; try '%s --help'", what, cli.prog);
}

static void check_device(const char *arg)
{
	size_t n = strspn(arg, "abcdefghijklmnopqrstuvwxyz");
	bool cuda = n == 4 && strncmp(arg, "cuda", 4) == 0;
	const char *rest = arg + n;

	if (strcmp(arg, "cpu") == 0 || (cuda && !*rest))
		return;
	if (cuda && *rest == ':' && rest[1] && strlen(rest + 1) <= 4 &&
	    strspn(rest + 1, "0123456789") == strlen(rest + 1))
		return;
	cli_fail(ERR_USAGE, "--device", "expected cpu or cuda[:N], got '%s'", arg);
}

/* True if c was a common option, now done with. */
static bool common_option(int c)
{
	switch (c) {
	case 'q':
		cli.quiet = true;
		return true;
	case 'v':
		cli.verbose = true;
		return true;
	case 'h':
		print_usage();
	case 'V':
		printf("%s (quantpipe) %s\n", cli.prog, QP_VERSION);
		exit(cli_finish_stdout(0));
	}
	if (cli.common & CLI_OUT && c == 'o') {
		if (!*optarg)
			cli_fail(ERR_USAGE, "--output", "expected the name of a file");
		cli.output = optarg;
	} else if (cli.common & CLI_OUT && c == 'z') {
		cli.zstd = optarg ? (int)cli_long("--zstd", optarg, 1, 19) : 1;
	} else if (cli.common & CLI_THREADS && c == 'j') {
		cli.threads = (int)cli_long("--threads", optarg, 1, 4096);
	} else if (cli.common & CLI_THREADS && c == OPT_DEVICE) {
		check_device(optarg);
		cli.device = optarg;
	} else {
		return false;
	}
	return true;
}

static char *format(const char *fmt, ...) QP_PRINTF(1, 2);

static char *format(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		cli_fail(ERR_NOMEM, "", "out of memory");
	return s;
}

/* Note option c for the provenance. */
static void note(int c)
{
	cli.last = NULL;
	for (const struct option *o = cli.longopts; o->name && !cli.last; o++)
		if (o->val == c)
			cli.last = o;
	if (!cli.last)
		cli.notes[cli.n_notes] = format("-%c%s", c, optarg ? optarg : "");
	else
		cli.notes[cli.n_notes] = format("--%s%s%s", cli.last->name, optarg ? "=" : "",
						optarg ? optarg : "");
	cli.n_notes++;
	cli.noted = true;
}

int cli_getopt(const char *optstring, const struct option *longopts)
{
	int c;

	if (!cli.merged)
		merge_options(optstring, longopts);
	for (;;) {
		c = getopt_long(cli.argc, cli.argv, cli.optstring, cli.longopts, NULL);
		if (c == '?' || c == ':')
			bad_option(c);
		if (c == -1)
			return -1;
		if (common_option(c))
			continue;
		note(c);
		if (c != OPT_COMPUTE)
			return c;
		cli.compute = optarg;
	}
}

void cli_note_none(void)
{
	if (cli.noted)
		free(cli.notes[--cli.n_notes]);
	cli.noted = false;
}

void cli_note_path(void)
{
	char *s, *value;

	if (!cli.noted || !cli.last)
		return;
	s = format("--%s=$%s", cli.last->name, cli.last->name);
	value = strchr(s, '$');
	for (char *p = value; *p; p++)
		*p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
	free(cli.notes[cli.n_notes - 1]);
	cli.notes[cli.n_notes - 1] = s;
}

/* ---- arguments */

double cli_double(const char *opt, const char *arg, double min, double max)
{
	bool plain = *arg != '+' && !arg[strspn(arg, "0123456789.eE+-")];
	char *end;
	double v = strtod(arg, &end);

	if (!plain || end == arg || *end || !(v >= min && v <= max))
		cli_fail(ERR_USAGE, opt, "expected a number from %g to %g, got '%s'", min, max,
			 arg);
	return v;
}

long cli_long(const char *opt, const char *arg, long min, long max)
{
	bool plain = !arg[strspn(arg, "0123456789-")];
	char *end;
	long v;

	errno = 0;
	v = strtol(arg, &end, 10);
	if (!plain || end == arg || *end || errno || v < min || v > max)
		cli_fail(ERR_USAGE, opt, "expected a whole number from %ld to %ld, got '%s'", min,
			 max, arg);
	return v;
}

int cli_choice(const char *opt, const char *arg, const char *const *list)
{
	char words[256] = "";
	size_t n = 0;

	for (int i = 0; list[i]; i++)
		if (strcmp(arg, list[i]) == 0)
			return i;
	for (int i = 0; list[i] && n < sizeof(words); i++)
		n += (size_t)snprintf(words + n, sizeof(words) - n, "%s%s",
				      i == 0 ? "" : list[i + 1] ? ", " : " or ", list[i]);
	cli_fail(ERR_USAGE, opt, "expected %s, got '%s'", words, arg);
}

const char *cli_operand(int i)
{
	return i < cli.argc - optind ? cli.argv[optind + i] : NULL;
}

void cli_operands(int min, int max)
{
	int n = cli.argc - optind;

	if (n > max)
		cli_fail(ERR_USAGE, "", "unexpected operand '%s'; try '%s --help'",
			 cli.argv[optind + max], cli.prog);
	if (n < min)
		cli_fail(ERR_USAGE, "", "missing operand; try '%s --help'", cli.prog);
	for (int i = 0; i < n; i++)
		if (!*cli.argv[optind + i])
			cli_fail(ERR_USAGE, "", "operand %d: expected the name of a file, got ''",
				 i + 1);
}

const char *cli_output(void)
{
	return cli.output;
}

int cli_zstd(void)
{
	return cli.zstd;
}

int cli_threads(void)
{
	return cli.threads;
}

const char *cli_device(void)
{
	return cli.device;
}

const char *cli_compute(void)
{
	return cli.compute;
}

bool cli_quiet(void)
{
	return cli.quiet;
}

bool cli_verbose(void)
{
	return cli.verbose;
}

/* ---- streams */

const struct provenance *cli_provenance(const char *backend)
{
	cli.prov.program = cli.prog;
	cli.prov.version = QP_VERSION;
	cli.prov.n = cli.n_notes;
	cli.prov.options = (const char *const *)cli.notes;
	cli.prov.backend = backend;
	return &cli.prov;
}

/* A regular file that begins like one of GGUF. */
static bool is_gguf(const char *path)
{
	char first[4] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool is = fd >= 0 && pread(fd, first, 4, 0) == 4 && memcmp(first, "GGUF", 4) == 0;

	if (fd >= 0)
		close(fd);
	return is;
}

struct stream_in *cli_open_in(const char *path)
{
	struct stream_in *in;
	struct stat st;
	struct err e;

	if (path && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		cli_fail(ERR_NOINPUT, path, "is a directory, not a stream; record-acts "
			 "makes one of a model");
	if (path && stat(path, &st) == 0 && S_ISREG(st.st_mode) && is_gguf(path))
		cli_fail(ERR_DATA, path, "is a GGUF file, not a stream; record-acts makes one "
			 "of it");
	if (stream_open_in(&in, path, &e) != 0)
		cli_die(&e);
	return in;
}

/* No temporary file may be left behind; but a FIFO, which has none, waits for its reader and must
 * stay interruptible. */
static void before_opening(const char *path)
{
	struct stat st;

	if (path && (stat(path, &st) != 0 || S_ISREG(st.st_mode))) {
		atomic_store(&opening, true);
		catch_signals();
	}
}

static void after_opening(const char *temp)
{
	if (temp)
		snprintf(temp_file, sizeof(temp_file), "%s", temp);
	atomic_store(&opening, false);
	if (atomic_load(&caught))
		on_signal(atomic_load(&caught));
}

struct stream_out *cli_open_out(const char *operand)
{
	struct stream_out_options opt = { .zstd_level = cli.zstd };
	struct err e;

	if (cli.output && operand)
		cli_fail(ERR_USAGE, "--output", "the output is given twice: '%s' and '%s'",
			 cli.output, operand);
	opt.path = cli.output ? cli.output : operand;
	before_opening(opt.path);
	if (stream_open_out(&cli.out, &opt, &e) != 0)
		cli_die(&e);
	after_opening(stream_out_temp(cli.out));
	return cli.out;
}

void cli_open_file(struct output *o, const char *path)
{
	struct err e;

	before_opening(path);
	if (output_open(o, path, &e) != 0)
		cli_die(&e);
	after_opening(o->temp);
}

void cli_open_dir(struct outdir *d, const char *path, bool force)
{
	struct err e;

	atomic_store(&opening, true);
	catch_signals();
	if (outdir_open(d, path, force, &e) != 0) {
		outdir_wipe(d);
		cli_die(&e);
	}
	temp_dir = d;
	after_opening(NULL);
}

void cli_commit_dir(struct outdir *d)
{
	struct err e;

	if (outdir_commit(d, &e) != 0)
		cli_die(&e);
	temp_dir = NULL;
	outdir_close(d);
}

void cli_commit_file(struct output *o)
{
	struct err e;

	if (output_commit(o, &e) != 0)
		cli_die(&e);
	temp_file[0] = '\0';
	output_close(o);
}
