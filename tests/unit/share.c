/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share.c - programs of one process group run no more threads than there are tokens, and one each
 */
#include "lib/base/share.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/err.h"
#include "lib/base/pool.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

enum { N = 4, STAGES = 3, TASKS = 400 };

/* What the processes of a test see of each other. */
static struct seen {
	atomic_int now, most, ready, go;
} *seen;

static void nap(long microseconds)
{
	nanosleep(&(struct timespec){ .tv_nsec = microseconds * 1000 }, NULL);
}

static void task(void *ctx, size_t i, int thread)
{
	int now = atomic_fetch_add(&seen->now, 1) + 1, most = atomic_load(&seen->most);

	(void)i, (void)thread;
	while (now > most && !atomic_compare_exchange_weak(&seen->most, &most, now))
		;
	nap(200);
	atomic_fetch_add(&seen->now, -1);
	++*(atomic_int *)ctx;
}

static void stage(bool shared)
{
	struct err e;
	struct pool *p = pool_new(N, &e);
	atomic_int ran = 0;

	if (!p || (shared && pool_share(p, &e) < 0))
		_exit(1);
	atomic_fetch_add(&seen->ready, 1);
	while (atomic_load(&seen->go) == 0)
		nap(100);
	for (int round = 0; round < 4; round++)
		pool_run(p, TASKS / 4, task, &ran);
	pool_free(p);
	_exit(ran == TASKS ? 0 : 2);
}

/* The most threads that ran at once in STAGES processes; -1: a process failed. */
static int most_of(bool shared, bool apart)
{
	pid_t pid[STAGES];
	int bad = 0, status;

	*seen = (struct seen){ 0 };
	for (int i = 0; i < STAGES; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			if (apart)
				setpgid(0, 0);
			stage(shared);
		}
	}
	while (atomic_load(&seen->ready) < STAGES)
		nap(100);
	atomic_store(&seen->go, 1);
	for (int i = 0; i < STAGES; i++)
		bad += waitpid(pid[i], &status, 0) != pid[i] || status != 0;
	return bad ? -1 : atomic_load(&seen->most);
}

static void groups(void)
{
	int most = most_of(true, false);

	ok(most > 0 && most <= N + STAGES - 1, "%d stages, %d processors: %d threads at most",
	   STAGES, N, most);
	ok(most >= N, "and no processor is left idle");
	most = most_of(false, false);
	ok(most > N + STAGES - 1, "pools that do not share: %d", most);
	most = most_of(true, true);
	ok(most > N + STAGES - 1, "groups of their own: %d", most);
}

static void tokens(void)
{
	struct share a, b;
	struct err e;

	if (!ok(share_open(&a, 7, &e) == 0 && share_open(&b, 7, &e) == 0, "two open the tokens"))
		return;
	ok(share_take(&a, 3) == 3 && a.held == 3, "three for one");
	ok(share_take(&b, 7) == 4 && b.held == 4, "the other four for the next");
	ok(share_take(&a, 1) == 0 && share_take(&b, 1) == 0, "then there are none");
	share_give(&a);
	ok(share_take(&b, 2) == 2 && share_take(&a, 7) == 1, "given back, they can be had");
	share_give(&b);
	ok(share_take(&a, 9) == 6 && a.held == 7, "all of them, never more");
	share_close(&a);
	ok(share_take(&b, 7) == 7, "closing gives back");
	share_close(&b);
}

static void killed(void)
{
	struct share a;
	struct err e;
	int p[2], status;
	char c;
	pid_t pid;

	if (pipe(p) != 0 || !ok(share_open(&a, N, &e) == 0, "open"))
		return;
	pid = fork();
	if (pid == 0) {
		struct share s;

		if (share_open(&s, N, &e) < 0 || share_take(&s, N) != N || write(p[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ok(read(p[0], &c, 1) == 1 && share_take(&a, 1) == 0, "another process has all tokens");
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok(share_take(&a, N) == N, "killed, it has none");
	share_close(&a);
}

static void path_of(char *to, size_t n)
{
	snprintf(to, n, "%s/quantpipe-%ld", files_in(), (long)geteuid());
}

/* What may lie where the file is to be. */
static void places(void)
{
	char path[400], other[400];
	struct share s;
	struct stat st;
	struct err e;
	int fd;

	path_of(path, sizeof(path));
	snprintf(other, sizeof(other), "%s/elsewhere", files_in());
	ok(stat(path, &st) == 0 && st.st_size == 0 && (st.st_mode & 0777) == 0600,
	   "the file is empty and the user's alone");
	fd = open(path, O_WRONLY);
	ok(write(fd, "stale", 5) == 5 && close(fd) == 0 && share_open(&s, N, &e) == 0 &&
	   share_take(&s, N) == N, "what stands in it means nothing");
	share_close(&s);

	unlink(path);
	ok(symlink(other, path) == 0 && share_open(&s, N, &e) == 0 && stat(other, &st) < 0,
	   "a symbolic link is not followed; the next place serves");
	share_close(&s);
	unlink(path);
	ok(mkfifo(path, 0600) == 0 && share_open(&s, N, &e) == 0, "nor does a FIFO stop it");
	share_close(&s);
	unlink(path);
	if (geteuid() == 0) {
		fd = open(path, O_CREAT | O_WRONLY, 0666);
		ok(fd >= 0 && fchown(fd, 65534, 65534) == 0 && close(fd) == 0 &&
		   share_open(&s, N, &e) == 0 && share_take(&s, N) == N,
		   "nor another user's file");
		share_close(&s);
		unlink(path);
	} else {
		skip("only root can give a file away");
	}
}

/* Nowhere to put it: no descriptor is left. */
static void nowhere(void)
{
	struct rlimit was, none;
	struct err e, opened;
	struct pool *p = pool_new(N, &e);
	atomic_int ran = 0;
	int r;

	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){ 0, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	r = pool_share(p, &opened);
	setrlimit(RLIMIT_NOFILE, &was);
	ok(r < 0 && opened.cls == ERR_UNAVAIL && opened.what[0], "no place: %s: %s", opened.where,
	   opened.what);
	pool_run(p, TASKS, task, &ran);
	ok(ran == TASKS, "and the pool works without");
	pool_free(p);
}

/* A helper comes when a neighbour gives its token back in the middle of a job. */
static void late(void)
{
	struct err e;
	struct pool *p = pool_new(2, &e);
	struct share other;
	atomic_int ran = 0;
	pid_t pid;

	*seen = (struct seen){ 0 };
	if (!ok(p && pool_share(p, &e) == 0 && share_open(&other, 2, &e) == 0, "a pool of 2"))
		return;
	ok(share_take(&other, 2) == 2, "a neighbour computes");
	pool_run(p, 20, task, &ran);
	ok(seen->most == 1 && ran == 20, "the caller works alone");
	pid = fork();
	if (pid == 0) { /* the lock is that of the open file: it goes with the parent's close */
		share_close(&other);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	ok(share_take(&other, 1) == 0 && other.held == 2, "a child's close gives nothing back");
	pid = fork();
	if (pid == 0) {
		nap(5000);
		share_give(&other);
		_exit(0);
	}
	pool_run(p, 1000, task, &ran);
	waitpid(pid, NULL, 0);
	ok(seen->most == 2 && ran == 1020, "a helper joins when it has stopped");
	share_close(&other);
	pool_free(p);
}

int main(void)
{
	alarm(120);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seen == MAP_FAILED)
		return 1;
	setenv("XDG_RUNTIME_DIR", files_in(), 1);
	setpgid(0, 0); /* what else runs is no neighbour */
	tokens();
	killed();
	groups();
	late();
	nowhere();
	places();
	files_remove();
	return done();
}
