/* SPDX-License-Identifier: Apache-2.0 */
/*
 * default_calib.c - a calibration set from the text that is installed with the toolkit
 */
#include "formats/default_calib.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/tokenizer_files.h"
#include "lib/data/calib.h"
#include "lib/data/stream.h"
#include "lib/data/tokenizer.h"
#include "lib/model/family.h"

#define TEXT "calibration.txt"

/* .../bin/record-acts -> .../share/quantpipe/calibration.txt, for an installed tree as for a
 * build directory. */
static int find_text(char *path, size_t cap, struct err *e)
{
	const char *dir = getenv("QP_DATA");
	char exe[PATH_MAX];
	ssize_t n;
	char *slash;

	if (dir != NULL && dir[0] != '\0')
		return snprintf(path, cap, "%s/" TEXT, dir) < (int)cap ? 0 :
			       err_set(e, ERR_NOINPUT, "QP_DATA", "path too long");
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0)
		return err_errno(e, ERR_NOINPUT, "/proc/self/exe", "cannot tell where the program "
				 "is; set QP_DATA");
	exe[n] = '\0';
	for (int up = 0; up < 2 && (slash = strrchr(exe, '/')) != NULL; up++)
		*slash = '\0';
	return snprintf(path, cap, "%s/share/quantpipe/" TEXT, exe) < (int)cap ? 0 :
		       err_set(e, ERR_NOINPUT, "/proc/self/exe", "path too long");
}

static int from_text(struct calib *c, const struct calib_choice *o,
		     const struct tokenizer_files *files, const struct model *m, struct record *rec,
		     struct err *e)
{
	const long most = m->cfg.max_positions < 2048 ? m->cfg.max_positions : 2048;
	const size_t seqlen = (size_t)(o->seqlen > 0 ? o->seqlen : most);
	const size_t nsamples = (size_t)(o->nsamples > 0 ? o->nsamples : 128);
	char path[PATH_MAX];
	struct tokenizer *t = NULL;
	struct ids ids = { 0 };
	char *text = NULL;
	size_t n;
	int ret;

	if (m->family->images)
		return err_set(e, ERR_DATA, "model", "takes images; give a set that calib-pack "
			       "--images has made, with --calib");
	if (!tokenizer_files_any(files))
		return err_set(e, ERR_DATA, "model", "no tokenizer to make a calibration set with; "
			       "give one with --calib");
	if (find_text(path, sizeof(path), e) < 0 ||
	    file_read(path, path, FILE_MAX_WHOLE, &text, &n, e) < 0)
		return -1;
	ret = tokenizer_files_build(&t, files, NULL, e);
	if (ret == 0)
		ret = tokenizer_fits(t, m->cfg.vocab, e);
	if (ret == 0)
		ret = tokenizer_encode(t, text, n, true, &ids, e);
	if (ret == 0)
		ret = calib_sample(c, &ids, &ids.n, 1, nsamples, seqlen, CALIB_RANDOM,
				   (uint64_t)o->seed, e);
	if (ret == 0) {
		snprintf(c->tokenizer, sizeof(c->tokenizer), "%s", tokenizer_fingerprint(t));
		ret = calib_record(c, rec, e);
	}
	ids_release(&ids);
	tokenizer_free(t);
	free(text);
	return ret;
}

int calib_choose(struct calib *c, const struct calib_choice *o,
		 const struct tokenizer_files *files, const struct model *m, struct stream_out *out,
		 struct err *e)
{
	struct record rec = { .rank = -1 };
	int ret;

	ret = o->file ? calib_open_record(c, &rec, o->file, e) :
			from_text(c, o, files, m, &rec, e);
	if (ret == 0)
		ret = stream_write(out, &rec, calib_payload(c), e);
	record_clear(&rec);
	return ret < 0 ? -1 : o->file == NULL;
}
