/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - what went wrong, where, and which exit status it deserves
 *
 * The library never prints and never exits.  A function that can fail takes a
 * struct err as its last argument and returns -1 after filling it; bin/ turns
 * it into one line, "program: where: what", and the exit status by class.
 */
#ifndef QP_ERR_H
#define QP_ERR_H

#ifdef __GNUC__
#define QP_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MUST_USE __attribute__((warn_unused_result))
#else
#define QP_PRINTF(f, a)
#define MUST_USE
#endif

/* The numbers are the exit statuses (BSD sysexits); 1 is a legitimate "no". */
enum err_class {
	ERR_NONE = 0,
	ERR_USAGE = 64,      /* command line */
	ERR_DATA = 65,       /* input damaged, truncated, unusable */
	ERR_NOINPUT = 66,    /* input cannot be opened */
	ERR_UNAVAIL = 69,    /* feature, device or dependency absent */
	ERR_BUG = 70,        /* an invariant of ours is broken */
	ERR_NOMEM = 71,      /* out of memory */
	ERR_CANTCREAT = 73,  /* output cannot be created */
	ERR_IO = 74,         /* read or write failed */
	ERR_VERSION = 76,    /* stream too new, or a must-understand record */
};

struct err {
	enum err_class cls;
	int sys;         /* errno of err_errno, else 0; EPIPE makes bin/ die by SIGPIPE */
	char where[320]; /* tensor, record or file; empty when there is none */
	char what[512];
};

/* Fill *e; always returns -1, so that callers write "return err_set(...)". */
int err_set(struct err *e, enum err_class cls, const char *where, const char *fmt, ...)
	QP_PRINTF(4, 5);

/* The same with ": strerror(errno)" appended; with an empty format that alone. */
int err_errno(struct err *e, enum err_class cls, const char *where, const char *fmt, ...)
	QP_PRINTF(4, 5);

/* ERR_NOMEM, "out of memory for N bytes". */
int err_nomem(struct err *e, const char *where, unsigned long long nbytes);

#endif
