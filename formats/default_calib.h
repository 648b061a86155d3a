/* SPDX-License-Identifier: Apache-2.0 */
/*
 * default_calib.h - a calibration set from the text that is installed with the toolkit
 */
#ifndef QP_DEFAULT_CALIB_H
#define QP_DEFAULT_CALIB_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct calib;
struct tokenizer;

/*
 * nsamples windows of seqlen tokens drawn at random from calibration.txt, tokenized by t.  The
 * file is looked for in $QP_DATA, else in ../share/quantpipe beside the program's directory;
 * ERR_NOINPUT if it is not there, ERR_DATA if it is shorter than a window.
 */
int default_calib(struct calib *c, const struct tokenizer *t, size_t nsamples, size_t seqlen,
		  uint64_t seed, struct err *e) MUST_USE;

#endif
