/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_tokenizer.c - the tokenizer of anything that is a model, and of a tokenizer's file
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/gguf_model.h"
#include "formats/hf.h"
#include "formats/source.h"
#include "lib/data/tokenizer.h"

int source_take_file(struct tokenizer_files *f, struct stream_in *in, struct record *rec,
		     struct stream_out *out, struct err *e)
{
	const enum tokenizer_file kind = tokenizer_file_kind(rec->name);
	char *text;

	/* Beside a tokenizer.json the others say nothing. */
	if (kind == TOKF_COUNT || (kind != TOKF_JSON && f->file[TOKF_JSON].text))
		return out ? stream_copy(out, in, rec, e) : 0;
	if (rec->nbytes > FILE_MAX_WHOLE)
		return err_set(e, ERR_DATA, rec->name, "%llu bytes are too many (at most %zu)",
			       (unsigned long long)rec->nbytes, FILE_MAX_WHOLE);
	text = malloc((size_t)rec->nbytes + 1);
	if (!text)
		return err_nomem(e, rec->name, rec->nbytes + 1);
	if (stream_payload(in, text, e) || (out && stream_write(out, rec, text, e))) {
		free(text);
		return -1;
	}
	return tokenizer_files_put(f, kind, text, (size_t)rec->nbytes, e);
}

static int none(const char *where, struct err *e)
{
	return err_set(e, ERR_DATA, where, "carries no tokenizer.json, tokenizer.model or "
		       "vocab.json with merges.txt");
}

/* A calibration set, too, is a stream: it has no model. */
static int head_room(struct source_room *room, const struct record *head, struct err *e)
{
	struct model m;
	const void *p;
	size_t n;

	if (head->type != REC_STREAM || record_get_raw(head, "config", &p, &n) != 1)
		return 0;
	if (model_from_head(&m, head, e))
		return -1;
	*room = (struct source_room){ m.cfg.vocab, m.cfg.max_positions };
	return 0;
}

/* Of a stream only the records before the tensors are read.  room: NULL, or taken from its head;
 * ids: no tokenizer if that has a model. */
static int stream_tokenizer(struct tokenizer **t, const char *path, struct source_room *room,
			    bool ids, struct err *e)
{
	struct tokenizer_files f = { 0 };
	struct record rec = { .rank = -1 };
	struct stream_in *in;
	int got, ret = 0;

	if (source_open(&in, path, e))
		return -1;
	while (!ret && (got = stream_next(in, &rec, e)) != 0) {
		if (got < 0)
			ret = -1;
		else if (room && rec.type == REC_STREAM)
			ret = head_room(room, &rec, e);
		else if (rec.type == REC_FILE)
			ret = source_take_file(&f, in, &rec, NULL, e);
		else if (rec.type == REC_TENSOR || rec.type == REC_BLOCK)
			break;
	}
	if (!ret && !(ids && room->vocab))
		ret = tokenizer_files_any(&f) ? tokenizer_files_build(t, &f, NULL, e) :
		      none(path && strcmp(path, "-") ? path : "standard input", e);
	tokenizer_files_release(&f);
	record_clear(&rec);
	stream_close_in(in);
	return ret;
}

/* path is put in front of the name of the file that is to be read. */
static int read_into(struct tokenizer_files *f, enum tokenizer_file kind, const char *path,
		     struct err *e)
{
	char *text;
	size_t n;

	if (file_read(path, path, FILE_MAX_WHOLE, &text, &n, e))
		return -1;
	return tokenizer_files_put(f, kind, text, n, e);
}

static int dir_tokenizer(struct tokenizer **t, const char *dir, struct err *e)
{
	const size_t room = strlen(dir) + 40;
	struct tokenizer_files f = { 0 };
	char *path = malloc(room);
	int ret = path ? 0 : err_nomem(e, dir, room);

	for (int k = 0; k < TOKF_COUNT && !ret && !f.file[TOKF_JSON].text; k++) {
		snprintf(path, room, "%s/%s", dir, tokenizer_file_name((enum tokenizer_file)k));
		if (access(path, F_OK) == 0)
			ret = read_into(&f, (enum tokenizer_file)k, path, e);
	}
	if (!ret && !tokenizer_files_any(&f)) {
		ret = none(dir, e);
		e->cls = ERR_NOINPUT;
	}
	if (!ret)
		ret = tokenizer_files_build(t, &f, dir, e);
	tokenizer_files_release(&f);
	free(path);
	return ret;
}

/* What a single file is: a stream begins with a msgpack map or a zstd frame; JSON with '{',
 * perhaps after blanks; a SentencePiece model with the tag of its first piece and a length, then
 * the tag of that piece's text. */
static enum tokenizer_file kind_of(const char *path)
{
	struct err ignored;
	unsigned char c[64];
	uint64_t size;
	ssize_t n = 0;
	int fd = file_open(path, path, &size, &ignored);

	if (fd >= 0) {
		n = pread(fd, c, sizeof(c), 0);
		close(fd);
	}
	if (n > 3 && c[0] == 0x0a && (c[1] < 0x80 ? c[2] : c[3]) == 0x0a && c[1] > 2)
		return TOKF_MODEL;
	for (ssize_t i = 0; i < n; i++)
		if (!memchr(" \t\r\n", c[i], 4))
			return c[i] == '{' ? TOKF_JSON : TOKF_COUNT;
	return TOKF_COUNT;
}

/* The path itself is what errors name, whatever the file is called. */
static int file_tokenizer(struct tokenizer **t, const char *path, enum tokenizer_file kind,
			  struct err *e)
{
	struct tokenizer_files f = { 0 };
	int ret = read_into(&f, kind, path, e);

	if (!ret)
		ret = tokenizer_files_build_as(t, &f, path, e);
	tokenizer_files_release(&f);
	return ret;
}

/* That of config.json, if it is there. */
static int dir_room(struct source_room *room, const char *dir, struct err *e)
{
	const size_t cap = strlen(dir) + 40;
	struct model_config c;
	char *path = malloc(cap), *text = NULL;
	size_t n;
	int ret = 0;

	if (!path)
		return err_nomem(e, dir, cap);
	snprintf(path, cap, "%s/config.json", dir);
	if (access(path, F_OK) == 0) {
		ret = file_read(path, path, FILE_MAX_WHOLE, &text, &n, e) ||
		      hf_config_parse(&c, text, n, e) ? -1 : 0;
		if (!ret)
			*room = (struct source_room){ c.vocab, c.max_positions };
	}
	free(text);
	free(path);
	return ret;
}

/* Is there more in it than a tokenizer? */
static bool gguf_is_model(const char *path)
{
	struct err ignored;
	struct gguf g;
	bool is;

	if (gguf_open(&g, path, &ignored))
		return false;
	is = gguf_tensor(&g, "token_embd.weight") != NULL;
	gguf_close(&g);
	return is;
}

static int from(struct tokenizer **t, const char *path, struct source_room *room, bool ids,
		struct err *e)
{
	enum tokenizer_file kind;
	struct stat st;

	*t = NULL;
	if (!path || strcmp(path, "-") == 0)
		return stream_tokenizer(t, path, room, ids, e);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		if (room && dir_room(room, path, e))
			return -1;
		return ids && room->vocab ? 0 : dir_tokenizer(t, path, e);
	}
	/* One may hold nothing but a tokenizer. */
	if (source_kind(path) == SOURCE_GGUF && !(room && gguf_is_model(path)))
		return gguf_model_tokenizer(t, path, e);
	kind = kind_of(path);
	return kind == TOKF_COUNT ? stream_tokenizer(t, path, room, ids, e) :
	       file_tokenizer(t, path, kind, e);
}

int source_tokenizer(struct tokenizer **t, const char *path, struct err *e)
{
	return from(t, path, NULL, false, e);
}

int source_room(struct source_room *room, struct tokenizer **t, const char *path, bool ids,
		struct err *e)
{
	*room = (struct source_room){ 0 };
	return from(t, path, room, ids, e);
}

int source_seqlen(long *seqlen, const struct source_room *room, struct err *e)
{
	if (room->positions && *seqlen > room->positions)
		return err_set(e, ERR_DATA, "--seqlen", "%ld tokens; the model has %ld positions",
			       *seqlen, room->positions);
	if (*seqlen == 0)
		*seqlen = room->positions && room->positions < 2048 ? room->positions : 2048;
	return 0;
}
