/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.h - a stream on its way into a checkpoint of another kind
 *
 * What all exporters share: the records of a stream, taken apart into files, linears in codes, and
 * other tensors, a tensor in memory at a time; and helpers for those that write model directories.
 */
#ifndef QP_EXPORT_H
#define QP_EXPORT_H

#include "formats/export_plan.h"
#include "formats/readback.h"
#include "formats/safetensors_write.h"
#include "lib/model/block.h"
#include "lib/model/codes.h"

/* A linear in codes; payloads as c.codes, c.scale and c.zero (NULL when symmetric) describe. */
struct export_codes {
	enum slot slot;
	long layer;
	const char *name;       /* "model.layers.3.mlp.up_proj.weight" */
	struct codes c;
	const void *codes, *scale, *zero;
};

/* Each 0, or -1 and *e. */
struct export_ops {
	/* A file that travels with the model.  NULL: written as it is, but for config.json. */
	int (*file)(void *ctx, const char *name, const char *text, size_t n, struct err *e);
	int (*codes)(void *ctx, const struct export_codes *q, struct err *e);
	/* Any other tensor of the checkpoint, F32, F16 or BF16. */
	int (*weight)(void *ctx, const struct record *rec, const void *data, struct err *e);
	/* The same, but with the payload still in the stream: 1: taken by export_pass; 0: it is
	 * wanted in memory; -1.  Only of tensors outside of blocks.  May be NULL. */
	int (*pass)(void *ctx, const struct record *rec, struct stream_in *in, struct err *e);
	/* What the run time must do beside the weights. */
	int (*run)(void *ctx, const struct record *rec, struct err *e);
	/* A block is over, or (layer -1) all are.  May be NULL. */
	int (*end)(void *ctx, long layer, struct err *e);
};

struct export {
	/* set by the caller */
	const struct export_ops *ops;
	void *ctx;
	struct outdir *dir;     /* where files go; NULL when ops->file takes them */
	void (*progress)(uint64_t blocks); /* or NULL */
	/* A line about a tensor that is not held exactly; or NULL. */
	void (*say)(const char *name, const char *what);
	/* kept here */
	struct model model;
	struct export_plan plan;
	char *config;           /* config.json as it came, NUL behind it; NULL: has not come */
	size_t config_len;
	long n_codes;           /* linears in codes so far */
	struct {                /* what was said to lose something */
		long n;
		double error, norm; /* sums of squares: of differences, of what was */
	} lost;
	struct {                /* what was rounded to the type it is written in */
		long n;
		char worst[256];    /* the tensor that lost most */
		double error;       /* of it, relative */
		enum dtype dtype;
	} rounded;
	/* private */
	struct block block;
	struct block_hook hook;
	enum slot pending;      /* of the items that belong together and are not out yet */
	struct item item;       /* outside blocks */
	bool seen[SLOT_COUNT];
};

/* The head of the stream; then the rest of it, to END.  ERR_DATA when a tensor or config.json is
 * missing, or a file's name would lead elsewhere. */
int export_open(struct export *x, struct stream_in *in, struct err *e) MUST_USE;
int export_read(struct export *x, struct stream_in *in, struct err *e) MUST_USE;
void export_close(struct export *x);

/* A tensor is not what it was: said as "WHAT: relative error X", and counted.  error, norm: sums
 * of squares.  Nothing if error is 0. */
void export_lost(struct export *x, const char *name, const char *what, double error,
		 double norm);
/* The same for floats that are written as dtype. */
void export_rounded(struct export *x, const struct record *rec, const void *data,
		    enum dtype dtype);
/* The same, noted and not said: programs tell how many there are, and the worst.  Sums of squares
 * as above, by export_squares. */
void export_note_rounded(struct export *x, const char *name, enum dtype dtype,
			 const double sums[2]);
/* Add up sums[0], of differences between was and the n numbers of type t at is, and sums[1], of
 * what was. */
void export_squares(double sums[2], const float *was, const void *is, enum dtype t, size_t n);
/* The relative error of all that was said, 0 if nothing was. */
double export_error(const struct export *x);

/* ---- model directories ---- */

/* What the headers need, with so many tensors of names 24 bytes longer for each linear. */
uint64_t export_header_room(const struct model *m, int per_linear);

/* A weight as dtype (DT_NONE: as it is), noted for the readback, and in x (unless NULL) if it had
 * to be rounded.  ERR_DATA for a value that becomes infinite: hint says which option would help. */
int export_weight(struct export *x, struct st_writer *w, struct readback *b,
		  const struct record *rec, const void *data, enum dtype dtype, const char *hint,
		  struct err *e) MUST_USE;

/* A weight as it is, from the stream to the file without being held.  ERR_DATA for a value that
 * is not finite. */
int export_pass(struct st_writer *w, struct readback *b, const struct record *rec,
		struct stream_in *in, struct err *e) MUST_USE;

/* config.json as x->config, but with tie_word_embeddings as the model has it, torch_dtype or dtype
 * (whichever it has) naming dtype (DT_NONE: as it is), and quantization_config being what the text
 * says (NULL: none). */
int export_config(struct export *x, enum dtype dtype, const char *quantization,
		  struct err *e) MUST_USE;
/* The type that config.json names, DT_NONE if none. */
enum dtype export_config_dtype(const struct export *x);

/* "5G", "500M", "1000000": bytes, powers of ten as in transformers ("5GB" too).  0: it is none. */
uint64_t export_shard_size(const char *text);

#endif
