/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc_engine.c - plans that an engine can run (alloc.h)
 */
#include "lib/method/alloc.h"

enum { USUAL = 0x17c, VLLM = 0x110, LLAMA_CPP = 0x130 }; /* bits 2-6 8, 4 8, 4 5 8 */
enum { LLAMA_CPP_BLOCK = 32 };

int alloc_suit_engine(struct alloc_options *o, enum alloc_engine engine, struct err *e)
{
	const long g = o->layers.q.group;

	switch (engine) {
	case ENGINE_VLLM:
		if (o->widths & ~(unsigned)VLLM)
			return err_set(e, ERR_USAGE, "--widths", "vllm's kernels are for 4 and 8 "
				       "bits");
		if (g != -1 && g != 32 && g != 64 && g != 128)
			return err_set(e, ERR_USAGE, "--group-size", "vllm's kernels have groups "
				       "of 32, 64, 128 and -1, a row");
		o->fuse = FUSE_EDGE;
		break;
	case ENGINE_LLAMA_CPP:
		if (o->widths & ~(unsigned)LLAMA_CPP)
			return err_set(e, ERR_USAGE, "--widths", "llama.cpp's blocks have 4, 5 and "
				       "8 bits (Q4_0, Q5_0, Q8_0)");
		if (!o->layers.q.sym)
			return err_set(e, ERR_USAGE, "--asym", "the blocks that hold 4, 5 and 8 "
				       "bits in llama.cpp are symmetric");
		if (g > 0 && g % LLAMA_CPP_BLOCK != 0)
			return err_set(e, ERR_USAGE, "--group-size", "llama.cpp's blocks are 32 "
				       "columns: 32 or a multiple of it");
		break;
	default:
		break;
	}
	if (o->widths == 0)
		o->widths = engine == ENGINE_VLLM ? VLLM : engine == ENGINE_LLAMA_CPP ? LLAMA_CPP :
			    USUAL;
	return 0;
}

int alloc_suit_rows(const struct alloc_options *o, enum alloc_engine engine,
		    const struct model *m, struct err *e)
{
	struct layer_options blocks = o->layers;
	struct err why;

	blocks.q.group = LLAMA_CPP_BLOCK;
	if (engine != ENGINE_LLAMA_CPP || layer_check_groups(&blocks, m, &why) == 0)
		return 0;
	return err_set(e, ERR_DATA, "--for", "llama.cpp's blocks of 32 columns do not divide the "
		       "rows of every linear: --skip those (%s is one)", why.where);
}
