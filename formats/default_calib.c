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
#include "lib/data/calib.h"
#include "lib/data/tokenizer.h"

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

int default_calib(struct calib *c, const struct tokenizer *t, size_t nsamples, size_t seqlen,
		  uint64_t seed, struct err *e)
{
	char path[PATH_MAX];
	struct ids ids = { 0 };
	char *text;
	size_t n;
	int ret;

	if (find_text(path, sizeof(path), e) < 0 ||
	    file_read(path, path, FILE_MAX_WHOLE, &text, &n, e) < 0)
		return -1;
	ret = tokenizer_encode(t, text, n, true, &ids, e);
	if (ret == 0)
		ret = calib_sample(c, &ids, &ids.n, 1, nsamples, seqlen, CALIB_RANDOM, seed, e);
	ids_release(&ids);
	free(text);
	return ret;
}
