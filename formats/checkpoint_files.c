/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint_files.c - files of a model that its format does not have
 */
#include "formats/checkpoint_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf.h"

#define CONFIG "config.json"

void checkpoint_files_put(struct checkpoint_files *f, const char *name, char *text, size_t n)
{
	snprintf(f->v[f->n].name, sizeof(f->v[f->n].name), "%s", name);
	f->v[f->n].text = text;
	f->v[f->n++].n = n;
}

int checkpoint_files_config(struct checkpoint_files *f, struct model *m, char *json, size_t n,
			    const char *path, struct err *e)
{
	struct model_config c;
	char where[sizeof(e->where)];

	checkpoint_files_put(f, CONFIG, json, n);
	if (!hf_config_parse(&c, json, n, e))
		return model_init(m, &c, e);
	if (strncmp(e->where, CONFIG ": ", strlen(CONFIG ": ")) == 0) {
		snprintf(where, sizeof(where), "%s", e->where + strlen(CONFIG ": "));
		snprintf(e->where, sizeof(e->where), "%.100s: %.200s", path, where);
	}
	return -1;
}

void checkpoint_files_tokenizer(struct checkpoint_files *f, struct tokenizer_files *t)
{
	for (int i = 0; i < TOKF_COUNT; i++)
		if (t->file[i].text && i != TOKF_MODEL_CONFIG) {
			checkpoint_files_put(f, tokenizer_file_name((enum tokenizer_file)i),
					     t->file[i].text, t->file[i].n);
			t->file[i].text = NULL;
		}
	tokenizer_files_release(t);
}

const char *checkpoint_files_name(const struct checkpoint_files *f, int i)
{
	return i >= 0 && i < f->n ? f->v[i].name : NULL;
}

int checkpoint_files_read(const struct checkpoint_files *f, int i, char **text, size_t *n,
			  struct err *e)
{
	if (!checkpoint_files_name(f, i))
		return err_set(e, ERR_BUG, "file", "BUG: no file %d", i);
	*n = f->v[i].n;
	*text = malloc(*n + 1);
	if (!*text)
		return err_nomem(e, f->v[i].name, *n);
	memcpy(*text, f->v[i].text, *n);
	return 0;
}

void checkpoint_files_release(struct checkpoint_files *f)
{
	for (int i = 0; i < f->n; i++)
		free(f->v[i].text);
	memset(f, 0, sizeof(*f));
}
