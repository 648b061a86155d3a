/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wikitext.h - WikiText's raw files as lm-evaluation-harness reads them
 *
 * Pages as its data set EleutherAI/wikitext_document_level cuts them, the detokenizer and the
 * word count of its task wikitext.  White space is what Python's str means by it.
 */
#ifndef QP_WIKITEXT_H
#define QP_WIKITEXT_H

#include <stddef.h>

#include "lib/base/buf.h"

/*
 * The length of the page that text begins with: up to the newline before the next level-1
 * heading ("= Title =", between spaces), and *skip bytes to the page after it (0: none).
 */
size_t wikitext_page(const char *text, size_t n, size_t *skip);

/* True if there is nothing but white space. */
int wikitext_blank(const char *text, size_t n);

/* Pieces between runs of white space, as re.split(r"\s+") counts them: one more than runs. */
size_t wikitext_words(const char *text, size_t n);

/* The page without the blanks that tokenization put around punctuation; appended to out. */
void wikitext_detokenize(struct buf *out, const char *page, size_t n);

#endif
