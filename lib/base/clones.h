/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clones.h - a function compiled for several generations of processors, chosen when it starts
 *
 * For plain loops over bytes and integers, and floats whose every operation is rounded by itself
 * (-ffp-contract=off): all of them then give the same bits, which is why QP_CPU need not choose
 * among them.  The tests hold what they make against plain C (unit/pack.c, unit/dtype.c) and
 * Python (tests/interop).
 */
#ifndef QP_CLONES_H
#define QP_CLONES_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
	!defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define CLONES
#endif

#endif
