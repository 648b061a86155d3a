/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_report.c - results of tasks as a table, as JSON, and sample by sample
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/value.h"
#include "lib/model/tasks_run.h"

/* Results of all tasks, and their mean behind them; NULL: no memory. */
static struct task_result *results(const struct tasks *t, struct err *e)
{
	struct task_result *r = malloc((t->n_task + 1) * sizeof(*r));

	if (r == NULL) {
		err_nomem(e, "tasks", (t->n_task + 1) * sizeof(*r));
		return NULL;
	}
	for (size_t i = 0; i < t->n_task; i++)
		task_result(&r[i], t, &t->task[i]);
	task_mean(&r[t->n_task], r, t->n_task);
	return r;
}

/* Two columns of a table: a value and its error, or what stands for neither. */
static void cell(struct buf *out, double v, double error)
{
	if (isnan(v))
		buf_printf(out, "  %9s %9s", "-", "");
	else
		buf_printf(out, v < 1e5 ? "  %9.4f +-%7.4f" : "  %9.3g +-%7.2g", v, error);
}

static void table_row(struct buf *out, int width, const char *name, const struct task_result *r,
		      bool ppl)
{
	buf_printf(out, "%-*s %7zu", width, name, r->n);
	cell(out, r->acc, r->acc_error);
	cell(out, r->norm, r->norm_error);
	if (ppl)
		cell(out, r->ppl, r->ppl_error);
	while (out->n > 0 && out->p[out->n - 1] == ' ')
		out->n--;
	buf_byte(out, '\n');
}

int tasks_table(struct buf *out, const struct tasks *t, struct err *e)
{
	struct task_result *r = results(t, e);
	bool ppl = false;
	int width = 4;

	if (r == NULL)
		return -1;
	for (size_t i = 0; i < t->n_task; i++) {
		ppl = ppl || t->task[i].kind == TASK_CLOZE;
		if ((int)strlen(t->task[i].name) > width)
			width = (int)strlen(t->task[i].name);
	}
	buf_printf(out, "%-*s %7s  %9s %9s  %9s", width, "task", "samples", "acc", "",
		   "acc_norm");
	buf_puts(out, ppl ? "                  ppl\n" : "\n");
	for (size_t i = 0; i < t->n_task; i++)
		table_row(out, width, t->task[i].name, &r[i], ppl);
	if (t->n_task > 1)
		table_row(out, width, "mean", &r[t->n_task], ppl);
	free(r);
	return buf_failed(out, "tasks", e);
}

static void json_pair(struct buf *out, const char *name, double v, double error)
{
	if (!isnan(v))
		buf_printf(out, ", \"%s\": %.10g, \"%s_stderr\": %.10g", name, v, name, error);
}

static void json_result(struct buf *out, const struct task_result *r)
{
	buf_printf(out, "{\"samples\": %zu", r->n);
	json_pair(out, "acc", r->acc, r->acc_error);
	json_pair(out, "acc_norm", r->norm, r->norm_error);
	json_pair(out, "acc_bytes", r->bytes, r->bytes_error);
	json_pair(out, "ppl", r->ppl, r->ppl_error);
	buf_byte(out, '}');
}

int tasks_json(struct buf *out, const struct tasks *t, struct err *e)
{
	static const char *const bos[] = { "auto", "never", "always" };
	struct task_result *r = results(t, e);

	if (r == NULL)
		return -1;
	buf_puts(out, "{\"tasks\": {");
	for (size_t i = 0; i < t->n_task; i++) {
		buf_puts(out, i > 0 ? ", " : "");
		value_quote_json(out, t->task[i].name, strlen(t->task[i].name));
		buf_puts(out, ": ");
		json_result(out, &r[i]);
	}
	buf_puts(out, "}, \"mean\": ");
	json_result(out, &r[t->n_task]);
	buf_printf(out, ", \"requests\": %zu, \"tokens\": %zu, \"truncated\": %zu, "
		   "\"bos\": \"%s\"}\n", t->n_request, t->rows, t->truncated, bos[t->bos]);
	free(r);
	return buf_failed(out, "tasks", e);
}

static void log_line(struct buf *out, const struct tasks *t, const struct task *k, size_t i)
{
	const struct task_answer a = task_answer(t, k, i);
	const struct task_sample *s = &t->sample[k->first + i];

	buf_puts(out, "{\"task\": ");
	value_quote_json(out, k->name, strlen(k->name));
	buf_printf(out, ", \"sample\": %zu", i);
	if (k->kind != TASK_CLOZE)
		buf_printf(out, ", \"gold\": %zu", s->gold);
	buf_printf(out, ", \"acc\": %d", a.acc);
	if (k->kind == TASK_CHOICE)
		buf_printf(out, ", \"acc_norm\": %d, \"acc_bytes\": %d", a.acc_norm, a.acc_bytes);
	buf_puts(out, ", \"ll\": [");
	for (size_t j = 0; j < s->n; j++)
		buf_printf(out, "%s%.12g", j > 0 ? ", " : "", t->request[s->first + j].ll);
	buf_puts(out, "]}\n");
}

int tasks_log(struct buf *out, const struct tasks *t, struct err *e)
{
	for (size_t k = 0; k < t->n_task; k++)
		for (size_t i = 0; i < t->task[k].n; i++)
			log_line(out, t, &t->task[k], i);
	return buf_failed(out, "tasks", e);
}
