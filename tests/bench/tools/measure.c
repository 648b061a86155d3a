/* SPDX-License-Identifier: Apache-2.0 */
/*
 * measure.c - run a command and append what it cost to a file
 *
 *     measure FILE COMMAND [ARG...]
 *
 * One line: wall seconds, user + system seconds, peak RSS in bytes (the largest single process),
 * and the share of the machine that other processes used meanwhile, 0 to 1 (busy time in
 * /proc/stat less our own).  Exits as the command did.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Busy seconds of all processors since boot. */
static double busy(void)
{
	unsigned long long user, nice, sys, idle, wait, irq, soft;
	FILE *f = fopen("/proc/stat", "r");
	int got = f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &sys,
			     &idle, &wait, &irq, &soft) : 0;

	if (f)
		fclose(f);
	return got == 7 ? (double)(user + nice + sys + irq + soft) / sysconf(_SC_CLK_TCK) : 0;
}

static double seconds(struct timeval t)
{
	return t.tv_sec + 1e-6 * t.tv_usec;
}

int main(int argc, char **argv)
{
	double start = now(), busy0 = busy(), wall, cpu, others;
	struct rusage ru;
	int status;
	pid_t pid;
	FILE *f;

	if (argc < 3) {
		fprintf(stderr, "usage: measure FILE COMMAND [ARG...]\n");
		return 64;
	}
	pid = fork();
	if (pid == 0) {
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		perror("measure");
		return 70;
	}
	wall = now() - start;
	getrusage(RUSAGE_CHILDREN, &ru);
	cpu = seconds(ru.ru_utime) + seconds(ru.ru_stime);
	others = (busy() - busy0 - cpu) / (wall * sysconf(_SC_NPROCESSORS_ONLN));
	f = fopen(argv[1], "a");
	if (!f || fprintf(f, "%.6f %.6f %lld %.3f\n", wall, cpu, ru.ru_maxrss * 1024LL,
			  others > 0 ? others : 0) < 0 || fclose(f) != 0) {
		perror(argv[1]);
		return 74;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
