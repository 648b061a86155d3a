/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.c - the line on stderr; its state is the terminal's, so there is one
 */
#include "lib/base/progress.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
	bool on, drawn;
	char what[64], unit[32];
	uint64_t total;
	double start, last;
} bar;

/* Messages are a courtesy: that nobody reads them must change nothing else. */
static void put(const char *s)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, old;
	size_t n = strlen(s);

	sigaction(SIGPIPE, &ignore, &old);
	while (n > 0) {
		ssize_t w = write(STDERR_FILENO, s, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			break;
		s += w;
		n -= (size_t)w;
	}
	sigaction(SIGPIPE, &old, NULL);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_start(const char *what, uint64_t total, const char *unit, bool quiet)
{
	const char *force = getenv("QP_PROGRESS");

	bar.on = !quiet && (isatty(STDERR_FILENO) || (force && strcmp(force, "1") == 0));
	bar.drawn = false;
	bar.total = total;
	bar.start = bar.last = now();
	snprintf(bar.what, sizeof(bar.what), "%s", what);
	snprintf(bar.unit, sizeof(bar.unit), "%s", unit ? unit : "");
}

/* "1:02:03" or "2:03" */
static void clock_text(char *buf, size_t cap, double s)
{
	long t = lrint(s);

	if (t >= 3600)
		snprintf(buf, cap, "%ld:%02ld:%02ld", t / 3600, t / 60 % 60, t % 60);
	else
		snprintf(buf, cap, "%ld:%02ld", t / 60, t % 60);
}

void progress_step(uint64_t done)
{
	if (!bar.on)
		return;
	double t = now(), spent = t - bar.start;
	if (spent < 1.0 || t - bar.last < 0.2)
		return;
	bar.last = t;
	double rate = (double)done / spent;
	char line[160], left[24] = "", text[96];
	int n = snprintf(line, sizeof(line), "%s: %s %llu", bar.what, bar.unit,
			 (unsigned long long)done);
	if (bar.total > 0)
		n += snprintf(line + n, sizeof(line) - (size_t)n, " of %llu",
			      (unsigned long long)bar.total);
	n += snprintf(line + n, sizeof(line) - (size_t)n, ", %.3g/s", rate);
	if (bar.total > done && done > 0) {
		clock_text(left, sizeof(left), (double)(bar.total - done) / rate);
		snprintf(line + n, sizeof(line) - (size_t)n, ", %s left", left);
	}
	snprintf(text, sizeof(text), "\r%.78s\033[K", line);
	put(text);
	bar.drawn = true;
}

void progress_clear(void)
{
	if (bar.drawn)
		put("\r\033[K");
	bar.drawn = false;
}

void progress_say(const char *s)
{
	progress_clear();
	put(s);
}

void progress_finish(void)
{
	progress_clear();
	bar.on = false;
}
