/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_files.c - which of a model's files describe its tokenizer
 */
#include "formats/tokenizer_files.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/sentencepiece.h"
#include "formats/tokenizer_config.h"
#include "formats/tokenizer_json.h"
#include "formats/tokenizer_merges.h"
#include "lib/base/hash.h"
#include "lib/data/tokenizer_impl.h"

static const char *const names[TOKF_COUNT] = {
	[TOKF_JSON] = "tokenizer.json", [TOKF_MODEL] = "tokenizer.model",
	[TOKF_VOCAB] = "vocab.json", [TOKF_MERGES] = "merges.txt",
	[TOKF_CONFIG] = "tokenizer_config.json", [TOKF_SPECIAL] = "special_tokens_map.json",
	[TOKF_ADDED] = "added_tokens.json", [TOKF_MODEL_CONFIG] = "config.json",
};

const char *tokenizer_file_name(enum tokenizer_file which)
{
	return names[which];
}

enum tokenizer_file tokenizer_file_kind(const char *name)
{
	int k = 0;

	while (k < TOKF_COUNT && strcmp(names[k], name))
		k++;
	return (enum tokenizer_file)k;
}

int tokenizer_files_put(struct tokenizer_files *f, enum tokenizer_file which, char *text, size_t n,
			struct err *e)
{
	if (f->file[which].text) {
		free(text);
		return err_set(e, ERR_DATA, names[which], "is there twice");
	}
	f->file[which].text = text;
	f->file[which].n = n;
	return 0;
}

bool tokenizer_files_any(const struct tokenizer_files *f)
{
	return f->file[TOKF_JSON].text || f->file[TOKF_MODEL].text || f->file[TOKF_VOCAB].text ||
	       f->file[TOKF_MERGES].text;
}

void tokenizer_files_release(struct tokenizer_files *f)
{
	for (int k = 0; k < TOKF_COUNT; k++)
		free(f->file[k].text);
	memset(f, 0, sizeof(*f));
}

/* The hash of the hashes of all files that were looked into; of config.json that is only a word,
 * and programs write it anew. */
static void fingerprint(struct tokenizer *t, const struct tokenizer_files *f)
{
	uint64_t h[2 * TOKF_COUNT] = { 0 };

	for (int k = 0; k < TOKF_COUNT; k++)
		if (f->file[k].text && k != TOKF_JSON && k != TOKF_MODEL_CONFIG)
			hash128(f->file[k].text, f->file[k].n, &h[2 * k], &h[2 * k + 1]);
	hash128(h, sizeof(h), &h[0], &h[1]);
	snprintf(t->fingerprint, sizeof(t->fingerprint), "xxh128:%016llx%016llx",
		 (unsigned long long)h[0], (unsigned long long)h[1]);
}

static int missing(const struct tokenizer_files *f, const char *dir, struct err *e)
{
	const bool vocab = f->file[TOKF_VOCAB].text;

	if (f->file[TOKF_VOCAB].text || f->file[TOKF_MERGES].text)
		return err_set(e, ERR_DATA, dir ? dir : "model", "has %s but not %s",
			       names[vocab ? TOKF_VOCAB : TOKF_MERGES],
			       names[vocab ? TOKF_MERGES : TOKF_VOCAB]);
	return err_set(e, ERR_DATA, dir ? dir : "model", "carries no tokenizer.json, "
		       "tokenizer.model or vocab.json with merges.txt");
}

/* where: of the file that decides; dir: of those beside it. */
static int build(struct tokenizer **t, const struct tokenizer_files *f, const char *where,
		 const char *dir, struct err *e)
{
	struct tokenizer_config c;
	int ret;

	if (f->file[TOKF_JSON].text)
		return tokenizer_from_json(t, f->file[TOKF_JSON].text, f->file[TOKF_JSON].n, where,
					   e);
	ret = tokenizer_config_read(&c, f, dir, e);
	if (!ret && f->file[TOKF_MODEL].text)
		ret = tokenizer_from_sentencepiece(t, f->file[TOKF_MODEL].text,
						   f->file[TOKF_MODEL].n, &c, where, e);
	else if (!ret)
		ret = tokenizer_from_merges(t, f, &c, dir, e);
	tokenizer_config_release(&c);
	if (!ret)
		fingerprint(*t, f);
	return ret;
}

int tokenizer_files_build(struct tokenizer **t, const struct tokenizer_files *f, const char *dir,
			  struct err *e)
{
	char where[200];

	tokenizer_file_place(where, sizeof(where), dir, f->file[TOKF_JSON].text ? TOKF_JSON :
			     TOKF_MODEL);
	if (!f->file[TOKF_JSON].text && !f->file[TOKF_MODEL].text &&
	    (!f->file[TOKF_VOCAB].text || !f->file[TOKF_MERGES].text))
		return missing(f, dir, e);
	return build(t, f, where, dir, e);
}

int tokenizer_files_build_as(struct tokenizer **t, const struct tokenizer_files *f,
			     const char *where, struct err *e)
{
	return build(t, f, where, NULL, e);
}
