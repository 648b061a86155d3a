/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama2c_tokenizer.c - llama2.c's tokenizer.bin: SentencePiece's pieces and scores without types
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/llama2c.h"
#include "formats/tokenizer_gguf.h"
#include "lib/base/buf.h"

enum { UNK, BOS, EOS };
#define MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

struct pieces {
	struct gguf_text *text;
	float *score;
	int32_t *type;
	size_t *at;       /* of the text in bytes */
	struct buf bytes;
};

static uint32_t word(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool is_byte(const char *s, size_t n)
{
	return n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' &&
	       strspn(s + 3, "0123456789ABCDEF") == 2;
}

/* The exporter has turned marks into spaces and put newlines around <s> and </s>. */
static void put_piece(struct pieces *p, size_t i, const char *s, size_t n)
{
	static const char *const special[] = { "<unk>", "<s>", "</s>" };

	p->at[i] = p->bytes.n;
	p->type[i] = i == UNK ? GGUF_TOKEN_UNKNOWN : i <= EOS ? GGUF_TOKEN_CONTROL :
		     is_byte(s, n) ? GGUF_TOKEN_BYTE : GGUF_TOKEN_NORMAL;
	if (i <= EOS) {
		buf_puts(&p->bytes, special[i]);
	} else {
		for (size_t k = 0; k < n; k++)
			if (s[k] == ' ')
				buf_puts(&p->bytes, MARK);
			else
				buf_byte(&p->bytes, s[k]);
	}
	p->text[i].n = p->bytes.n - p->at[i];
}

static int take_pieces(struct pieces *p, const char *data, size_t n, size_t vocab,
		       const char *where, struct err *e)
{
	size_t at = 4, len;
	uint32_t bits;

	for (size_t i = 0; i < vocab; i++) {
		if (n < at + 8)
			return err_set(e, ERR_DATA, where, "ends after %zu of the model's %zu "
				       "tokens", i, vocab);
		bits = word(data + at);
		memcpy(&p->score[i], &bits, sizeof(bits));
		len = word(data + at + 4);
		at += 8;
		if (len > n - at)
			return err_set(e, ERR_DATA, where, "token %zu: a text of %zu bytes ends "
				       "outside the file", i, len);
		put_piece(p, i, data + at, len);
		at += len;
	}
	if (at != n)
		return err_set(e, ERR_DATA, where, "%zu bytes after the model's %zu tokens",
			       n - at, vocab);
	if (buf_failed(&p->bytes, where, e))
		return -1;
	for (size_t i = 0; i < vocab; i++)
		p->text[i].s = p->bytes.p + p->at[i];
	return 0;
}

int llama2c_tokenizer(struct tokenizer_files *f, const char *data, size_t n, size_t vocab,
		      const char *where, struct err *e)
{
	struct pieces p = { 0 };
	struct tokenizer_gguf t = {
		.model = "llama", .n = vocab, .bos = BOS, .eos = EOS, .unk = UNK, .add_bos = 1,
		.add_eos = 0, .add_space_prefix = 1, .remove_extra_whitespaces = 0,
	};
	int ret = -1;

	/* Before memory is asked for: a token takes 8 bytes and its text. */
	if (n < 4 || vocab > (n - 4) / 8)
		return err_set(e, ERR_DATA, where, "%zu bytes are too few for the model's %zu "
			       "tokens", n, vocab);
	p.text = calloc(vocab, sizeof(*p.text));
	p.score = calloc(vocab, sizeof(*p.score));
	p.type = calloc(vocab, sizeof(*p.type));
	p.at = calloc(vocab, sizeof(*p.at));
	t.tokens = p.text;
	t.scores = p.score;
	t.types = p.type;
	if (!p.text || !p.score || !p.type || !p.at)
		err_nomem(e, where, vocab * (sizeof(*p.text) + sizeof(*p.at) + 8));
	else if (!take_pieces(&p, data, n, vocab, where, e))
		ret = tokenizer_gguf_files(f, &t, e);
	free(p.text);
	free(p.score);
	free(p.type);
	free(p.at);
	buf_release(&p.bytes);
	return ret;
}
