/* SPDX-License-Identifier: Apache-2.0 */
/*
 * default_calib.h - a calibration set from the text that is installed with the toolkit
 */
#ifndef QP_DEFAULT_CALIB_H
#define QP_DEFAULT_CALIB_H

#include <stdint.h>

#include "lib/base/err.h"

struct calib;
struct stream_out;
struct model;
struct tokenizer_files;

struct calib_choice {
	const char *file;      /* --calib, or NULL: windows of the installed text */
	long nsamples, seqlen; /* of those; 0: 128, 2048 or what the model has */
	long seed;
};

/*
 * The calibration set, and its record into out.  From file; else drawn at random from
 * calibration.txt, tokenized as files say: 1 then.  That text is looked for in $QP_DATA, else in
 * ../share/quantpipe beside the program's directory.  ERR_NOINPUT if a file is not there, ERR_DATA
 * if the text is shorter than a window files hold no tokenizer,
 * or one with more ids than the model has.
 */
int calib_choose(struct calib *c, const struct calib_choice *o,
		 const struct tokenizer_files *files, const struct model *m, struct stream_out *out,
		 struct err *e) MUST_USE;

#endif
