/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_merges.h - build a tokenizer from GPT-2's vocab.json and merges.txt
 *
 * Byte-level BPE; the class that tokenizer_config.json names, else config.json's model_type, says
 * how text is cut: GPT2Tokenizer (also OPT's) by GPT-2's expression, Qwen2Tokenizer by its own
 * after NFC.  Other classes are refused.
 */
#ifndef QP_TOKENIZER_MERGES_H
#define QP_TOKENIZER_MERGES_H

#include "formats/tokenizer_files.h"

struct tokenizer_config;

/*
 * A line of merges.txt is two tokens between one blank, best first; a first line "#version..."
 * and lines without anything are passed over.  ERR_DATA with the number of the line: not two
 * tokens; one that is not in the vocabulary, or that no line before it makes of single
 * characters (so that no cycle is possible); a result that is not in the vocabulary; a pair that
 * is there twice (readers of these files disagree about which one counts).  GPT2Tokenizer puts
 * bos_token before a text if add_bos_token says so, as OPT has it.
 */
int tokenizer_from_merges(struct tokenizer **t, const struct tokenizer_files *f,
			  const struct tokenizer_config *c, const char *dir,
			  struct err *e) MUST_USE;

#endif
