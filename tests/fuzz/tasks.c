/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks.c - fuzz target: task files, JSON Lines and CSV, through every template
 *
 * Needs the repository's root as working folder: the tokenizer of the model in tests/data.  What is
 * refused must say where and why; what is accepted must have samples whose requests lie among the
 * ids, and a right answer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/csv.h"
#include "formats/tasks_impl.h"
#include "formats/tokenizer_json.h"
#include "lib/data/slurp.h"
#include "lib/data/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void refused(const struct err *e)
{
	must((e->cls == ERR_DATA || e->cls == ERR_USAGE || e->cls == ERR_NOMEM) && e->where[0] &&
	     e->what[0]);
}

static const struct tokenizer *tokenizer(void)
{
	static struct tokenizer *t;
	struct buf json = { 0 };
	struct err e;

	if (t)
		return t;
	must(slurp(&json, "tests/data/TinyStories-656K/tokenizer.json", 1 << 24, &e) == 0 &&
	     tokenizer_from_json(&t, json.p, json.n, "tokenizer.json", &e) == 0);
	buf_release(&json);
	return t;
}

static void one(const char *name, const char *path)
{
	static const struct model model = { .cfg = { .max_positions = 64, .vocab = 2048,
						     .bos = 1, .eos = 2 } };
	struct tasks t = { .tok = tokenizer(), .model = &model, .ctx = 64 };
	struct tasks_file f = { .path = path };
	struct err e;

	snprintf(f.name, sizeof(f.name), "%s", name);
	if (tasks_read(&t, &f, &e) < 0 || tasks_layout(&t, &e) < 0) {
		refused(&e);
	} else {
		must(t.n_task == 1 && t.n_sample > 0 && t.rows > 0);
		for (size_t i = 0; i < t.n_sample; i++)
			must(t.sample[i].n > 0 && t.sample[i].gold < t.sample[i].n &&
			     t.sample[i].first + t.sample[i].n <= t.n_request);
		for (size_t i = 0; i < t.n_request; i++)
			must(t.request[i].at + t.request[i].n <= t.ids.n &&
			     t.request[i].scored > 0 && t.request[i].scored <= t.request[i].n);
	}
	tasks_release(&t);
}

static void cells(const uint8_t *data, size_t n)
{
	struct buf row = { 0 };
	struct csv c;
	struct err e;
	int got;

	if (csv_open(&c, (const char *)data, n, "fuzz", &e) < 0) {
		refused(&e);
		return;
	}
	while ((got = csv_next(&c, &row, "fuzz", &e)) > 0)
		must(row.n >= 2 && c.line > 0);
	if (got < 0)
		refused(&e);
	csv_close(&c);
	buf_release(&row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int fd = memfd_create("fuzz", 0);
	struct buf names = { 0 };
	char path[64], *at, *end;

	must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	template_names(&names);
	buf_puts(&names, ", ready");
	must(!names.failed);
	buf_byte(&names, '\0');
	for (at = names.p; at; at = end ? end + 2 : NULL) {
		end = strstr(at, ", ");
		if (end)
			*end = '\0';
		one(at, path);
	}
	buf_release(&names);
	close(fd);
	cells(data, n);
	return 0;
}
