/* SPDX-License-Identifier: Apache-2.0 */
/*
 * families.h - the list of families: family_NAME.c defines family_NAME
 */
#ifndef QP_FAMILIES_H
#define QP_FAMILIES_H

#define FAMILIES(X) \
	X(llama)

struct family;
#define X(name) extern const struct family family_##name;
FAMILIES(X)
#undef X

#endif
