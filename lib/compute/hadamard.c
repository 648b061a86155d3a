/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hadamard.c - the constructions, and the check of what they made (hadamard.h)
 *
 * Paley's need the quadratic character chi of the field of q = p^d elements: 0 at 0, 1 at squares,
 * -1 elsewhere, and the matrix Q[a][b] = chi(a - b) over the field's elements.
 */
#include "lib/compute/hadamard.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KERNEL 2048 /* k: its matrix is held, k^2 bytes */

struct hadamard {
	size_t n, k, pow2; /* n = k * pow2 */
	signed char *kernel; /* [k][k] */
	char name[64];
};

/*
 * Four symmetric sequences a_0 = 1, a_j = a_(w-j), bit j - 1: a_j = 1, whose periodic
 * autocorrelations add up to 0 at every shift but 0.
 */
static const struct {
	size_t w;
	uint32_t bits[4];
} williamson[] = {
	{ 23, { 0x1f2, 0x2ce, 0x0ac, 0x46f } },
	{ 29, { 0x69d, 0x59c, 0xb75, 0x378b } },
	{ 39, { 0x2cb9, 0x6a606, 0x543c8, 0x43688 } },
	{ 43, { 0x16686f, 0x1aa63, 0x1392f5, 0x1baf06 } },
};
enum { WILLIAMSONS = sizeof(williamson) / sizeof(williamson[0]) };

/* q = p^d for a prime p: p, else 0. */
static size_t prime_power(size_t q, int *d)
{
	size_t p = 2;

	if (q < 2)
		return 0;
	while (p * p <= q && q % p)
		p++;
	if (p * p > q)
		p = q;
	for (*d = 0; q % p == 0; q /= p)
		++*d;
	return q == 1 ? p : 0;
}

enum construction { NONE, UNIT, PALEY1, PALEY2, WILLIAMSON };

static enum construction construction(size_t k)
{
	int d;

	if (k == 1)
		return UNIT;
	if (k > MAX_KERNEL || k % 4)
		return NONE;
	if (prime_power(k - 1, &d))
		return PALEY1;
	if ((k / 2 - 1) % 4 == 1 && prime_power(k / 2 - 1, &d))
		return PALEY2;
	for (int i = 0; i < WILLIAMSONS; i++)
		if (k == 4 * williamson[i].w)
			return WILLIAMSON;
	return NONE;
}

/* The smallest k of n = 2^m k that has a construction, or 0. */
static size_t kernel_order(size_t n)
{
	size_t k = n;

	if (n == 0 || n > HADAMARD_MAX)
		return 0;
	while (k % 2 == 0)
		k /= 2;
	for (; k <= n; k *= 2)
		if (construction(k) != NONE)
			return k;
	return 0;
}

bool hadamard_known(size_t order)
{
	return kernel_order(order) != 0;
}

/* ---- the character of a field ---------------------------------------------------- */

/* Elements are polynomials over the integers mod p, digits of a number to the base p. */
struct field {
	size_t p, q;
	int d;
	size_t modulus; /* x^d = -modulus: the lower digits of an irreducible polynomial */
	signed char *chi; /* [q] */
};

static size_t field_sub(const struct field *f, size_t a, size_t b)
{
	size_t r = 0, place = 1;

	for (int i = 0; i < f->d; i++, place *= f->p) {
		r += (a % f->p + f->p - b % f->p) % f->p * place;
		a /= f->p;
		b /= f->p;
	}
	return r;
}

static size_t field_square(const struct field *f, size_t a)
{
	size_t c[32] = { 0 }, digit[16], r = 0;

	for (int i = 0; i < f->d; i++, a /= f->p)
		digit[i] = a % f->p;
	for (int i = 0; i < f->d; i++)
		for (int j = 0; j < f->d; j++)
			c[i + j] = (c[i + j] + digit[i] * digit[j]) % f->p;
	for (int i = 2 * f->d - 2; i >= f->d; i--) { /* x^i = -x^(i-d) modulus */
		size_t m = f->modulus;

		for (int j = 0; j < f->d; j++, m /= f->p)
			c[i - f->d + j] = (c[i - f->d + j] + c[i] * (f->p - m % f->p)) % f->p;
	}
	for (int i = f->d - 1; i >= 0; i--)
		r = r * f->p + c[i];
	return r;
}

/*
 * Marks the squares.  A ring of polynomials has (q - 1) / 2 squares other than 0, and 0 is the
 * square of 0 alone, if and only if the modulus is irreducible, so that it is a field.
 */
static bool mark_squares(struct field *f)
{
	size_t count = 0;

	memset(f->chi, -1, f->q);
	f->chi[0] = 0;
	for (size_t a = 1; a < f->q; a++) {
		const size_t s = field_square(f, a);

		if (s == 0)
			return false;
		count += f->chi[s] != 1;
		f->chi[s] = 1;
	}
	return 2 * count == f->q - 1;
}

static int field_new(struct field *f, size_t q, struct err *e)
{
	f->q = q;
	f->p = prime_power(q, &f->d);
	f->chi = malloc(q);
	if (f->chi == NULL)
		return err_nomem(e, "hadamard", q);
	for (f->modulus = 0; f->modulus < q; f->modulus++)
		if (mark_squares(f))
			return 0;
	free(f->chi);
	return err_set(e, ERR_BUG, "hadamard", "no field of %zu elements", q);
}

/* ---- the constructions ----------------------------------------------------------- */

/* q = 3 mod 4: I + [ 0 1'; -1 Q ], whose second part is skew. */
static int paley1(signed char *h, size_t k, struct err *e)
{
	struct field f;

	if (field_new(&f, k - 1, e) < 0)
		return -1;
	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < k; j++)
			h[i * k + j] = i == j || i == 0 ? 1 :
				       j == 0 ? -1 : f.chi[field_sub(&f, i - 1, j - 1)];
	free(f.chi);
	return 0;
}

/* q = 1 mod 4: the conference matrix C = [ 0 1'; 1 Q ] is symmetric; C (x) [1 1; 1 -1] +
 * I (x) [1 -1; -1 -1]. */
static int paley2(signed char *h, size_t k, struct err *e)
{
	struct field f;

	if (field_new(&f, k / 2 - 1, e) < 0)
		return -1;
	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < k; j++) {
			const size_t a = i / 2, b = j / 2;
			const int c = a == b ? 0 : a == 0 || b == 0 ? 1 :
				      f.chi[field_sub(&f, a - 1, b - 1)];
			const int corner = i % 2 && j % 2 ? -1 : 1;
			const int diagonal = i % 2 || j % 2 ? -1 : 1;

			h[i * k + j] = (signed char)(c == 0 ? diagonal : c * corner);
		}
	free(f.chi);
	return 0;
}

/* Williamson's array [ A B C D; -B A -D C; -C D A -B; -D -C B A ] */
static void from_williamson(signed char *h, size_t k)
{
	static const signed char place[4][4] = {
		{ 1, 2, 3, 4 }, { -2, 1, -4, 3 }, { -3, 4, 1, -2 }, { -4, -3, 2, 1 },
	};
	const size_t w = k / 4;
	int t = 0;

	while (williamson[t].w != w)
		t++;
	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < k; j++) {
			const int p = place[i / w][j / w];
			const uint32_t bits = williamson[t].bits[abs(p) - 1];
			const size_t at = (j % w + w - i % w) % w;
			const size_t fold = at > w / 2 ? w - at : at;
			const int a = fold == 0 || bits >> (fold - 1) & 1 ? 1 : -1;

			h[i * k + j] = (signed char)(p > 0 ? a : -a);
		}
}

static int check(const struct hadamard *h, struct err *e)
{
	for (size_t i = 0; i < h->k; i++)
		for (size_t j = i; j < h->k; j++) {
			int dot = 0;

			for (size_t c = 0; c < h->k; c++)
				dot += h->kernel[i * h->k + c] * h->kernel[j * h->k + c];
			if (dot != (i == j ? (int)h->k : 0))
				return err_set(e, ERR_BUG, "hadamard", "order %zu: rows %zu and "
					       "%zu are not orthogonal", h->k, i, j);
		}
	return 0;
}

/* Columns whose first entry is -1 change their sign. */
static void normalize(struct hadamard *h)
{
	for (size_t c = 0; c < h->k; c++)
		if (h->kernel[c] < 0)
			for (size_t r = 0; r < h->k; r++)
				h->kernel[r * h->k + c] = (signed char)-h->kernel[r * h->k + c];
}

static void describe(struct hadamard *h, enum construction how)
{
	static const char *const what[] = { "", "Sylvester", "Paley I, q = %zu",
					    "Paley II, q = %zu", "Williamson, w = %zu" };
	const size_t of = how == PALEY1 ? h->k - 1 : how == PALEY2 ? h->k / 2 - 1 : h->k / 4;
	char head[32];

	snprintf(head, sizeof(head), what[how], of);
	if (h->pow2 == 1)
		snprintf(h->name, sizeof(h->name), "%s", head);
	else
		snprintf(h->name, sizeof(h->name), "%s; 2^%d", head,
			 (int)lrint(log2((double)h->pow2)));
}

int hadamard_new(struct hadamard **out, size_t order, struct err *e)
{
	const size_t k = kernel_order(order);
	const enum construction how = construction(k);
	struct hadamard *h;
	int ret = 0;

	*out = NULL;
	if (k == 0)
		return err_set(e, ERR_DATA, "", "no Hadamard matrix of order %zu is known here",
			       order);
	h = calloc(1, sizeof(*h));
	if (h == NULL || (h->kernel = malloc(k * k)) == NULL) {
		free(h);
		return err_nomem(e, "hadamard", k * k);
	}
	h->n = order;
	h->k = k;
	h->pow2 = order / k;
	switch (how) {
	case PALEY1: ret = paley1(h->kernel, k, e); break;
	case PALEY2: ret = paley2(h->kernel, k, e); break;
	case WILLIAMSON: from_williamson(h->kernel, k); break;
	default: h->kernel[0] = 1; break;
	}
	if (ret < 0 || check(h, e) < 0) {
		hadamard_free(h);
		return -1;
	}
	normalize(h);
	describe(h, how);
	*out = h;
	return 0;
}

void hadamard_free(struct hadamard *h)
{
	if (h != NULL)
		free(h->kernel);
	free(h);
}

size_t hadamard_order(const struct hadamard *h)
{
	return h->n;
}

size_t hadamard_pow2(const struct hadamard *h)
{
	return h->pow2;
}

const char *hadamard_name(const struct hadamard *h)
{
	return h->name;
}

int hadamard_entry(const struct hadamard *h, size_t row, size_t col)
{
	const size_t common = row % h->pow2 & col % h->pow2;
	const int sign = __builtin_popcountll(common) % 2 ? -1 : 1;

	return sign * h->kernel[row / h->pow2 * h->k + col / h->pow2];
}

/* ---- the product ------------------------------------------------------------------ */

/* Butterflies of distance `half`, in place. */
static void butterflies(double *x, size_t n, size_t half)
{
	for (size_t i = 0; i < n; i += 2 * half)
		for (size_t j = i; j < i + half; j++) {
			const double a = x[j], b = x[j + half];

			x[j] = a + b;
			x[j + half] = a - b;
		}
}

void hadamard_f64(const struct hadamard *h, double *x, bool transposed, double *work)
{
	const size_t k = h->k, m = h->pow2;
	const double scale = 1 / sqrt((double)h->n);

	for (size_t half = 1; half < m; half *= 2)
		butterflies(x, h->n, half);
	if (k == 1) {
		for (size_t i = 0; i < m; i++)
			x[i] *= scale;
		return;
	}
	for (size_t to = 0; to < k; to++) {
		double *y = work + to * m;

		memset(y, 0, m * sizeof(*y));
		for (size_t from = 0; from < k; from++) {
			const size_t at = transposed ? to * k + from : from * k + to;
			const double sign = h->kernel[at];
			const double *v = x + from * m;

			for (size_t i = 0; i < m; i++)
				y[i] += sign * v[i];
		}
	}
	for (size_t i = 0; i < h->n; i++)
		x[i] = scale * work[i];
}
