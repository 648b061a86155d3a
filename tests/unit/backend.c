/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.c - every entry of the backend table against a slow, plain computation in f64
 *
 * Shapes have every kind of tail, leading dimensions are larger than rows, and what lies
 * between rows must not be written.  At the end everything is run again with 1, 2 and 3
 * threads and must give the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>

#include "lib/compute/backend.h"
#include "lib/data/dtype.h"
#include "tests/unit/tap.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))
#define GUARD 12345.0f

static uint64_t seed = 1;

/* Uniform in [-1, 1). */
static float uniform(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(seed >> 11) / 4503599627370496.0 - 1.0);
}

static void *must(void *p)
{
	if (!p) {
		printf("Bail out! out of memory\n");
		exit(1);
	}
	return p;
}

static float *randoms(size_t n, float by)
{
	float *x = must(malloc((n ? n : 1) * sizeof(*x)));

	for (size_t i = 0; i < n; i++)
		x[i] = by * uniform();
	return x;
}

static float *filled(size_t n, float by)
{
	float *x = must(malloc((n ? n : 1) * sizeof(*x)));

	for (size_t i = 0; i < n; i++)
		x[i] = by;
	return x;
}

static double larger(double a, double b)
{
	return !(a >= b) ? b : a; /* b when it is NaN */
}

/* What lies between the rows of y [rows, d] is as it was. */
static int guarded(const float *y, size_t rows, size_t d, size_t ld)
{
	for (size_t i = 0; i < rows; i++)
		for (size_t j = d; j < ld; j++)
			if (y[i * ld + j] != GUARD)
				return 0;
	return 1;
}

/* Largest error of y against row x of w, bias, relative to the sum of magnitudes. */
static double linear_error(const float *y, size_t ldy, const float *x, size_t ldx, const float *w,
			   const float *bias, const float *was, size_t t, size_t n, size_t k)
{
	double worst = 0;

	for (size_t i = 0; i < t; i++)
		for (size_t j = 0; j < n; j++) {
			double s = (bias ? bias[j] : 0.0) + (was ? was[i * ldy + j] : 0.0);
			double a = fabs(s);

			for (size_t l = 0; l < k; l++) {
				double p = (double)x[i * ldx + l] * w[j * k + l];

				s += p;
				a += fabs(p);
			}
			worst = larger(worst, fabs(y[i * ldy + j] - s) / (a + 1e-30));
		}
	return worst;
}

static void test_linear(struct backend *b, size_t t, size_t n, size_t k, enum dtype type)
{
	size_t ldx = k + 3, ldy = n + 5;
	float *w = randoms(n * k, 0.1f), *x = randoms(t * ldx, 1.0f), *bias = randoms(n, 1.0f);
	float *y = must(malloc((t * ldy + 1) * sizeof(*y)));
	float *was = must(malloc((t * ldy + 1) * sizeof(*y)));
	void *raw = must(malloc(n * k * 4 + 4));
	struct packed *p = NULL;
	struct err e;

	dtype_from_f32(raw, type, w, n * k);
	dtype_to_f32(w, raw, type, n * k);
	if (!ok(b->ops->pack(b, &p, raw, type, n, k, &e) == 0, "pack %s", dtype_name(type)))
		return;
	for (int mode = 0; mode < 4; mode++) {
		const float *bi = mode & 1 ? bias : NULL;
		int add = mode >> 1, rc;
		double err;

		for (size_t i = 0; i < t * ldy; i++)
			y[i] = was[i] = i % ldy < n && add ? 1.0f / (float)(i + 1) : GUARD;
		rc = b->ops->linear(b, y, ldy, x, ldx, t, p, bi, add, &e);
		err = linear_error(y, ldy, x, ldx, w, bi, add ? was : NULL, t, n, k);
		ok(rc == 0 && err < 2e-6 && guarded(y, t, n, ldy),
		   "linear %zu x %zu x %zu %s%s%s: %.1e", t, n, k, dtype_name(type),
		   bi ? " bias" : "", add ? " add" : "", err);
	}
	b->ops->pack_free(b, p);
	free(w);
	free(x);
	free(bias);
	free(y);
	free(was);
	free(raw);
}

/* Exact, over a K that is cut, with sums that need all 32 bits, and its row sums. */
static void test_linear_i8(struct backend *b, size_t t, size_t n, size_t k, int extreme)
{
	size_t ldx = k + 3, ldy = n + 5, wrong = 0;
	int8_t *x = must(malloc(t * ldx + 1)), *w = must(malloc(n * k + 1));
	int32_t *y = must(malloc((t * ldy + 1) * sizeof(*y)));
	struct packed_i8 *p = NULL;
	struct err e;

	for (size_t i = 0; i < t * ldx; i++)
		x[i] = (int8_t)(extreme ? -128 : 127 * uniform());
	for (size_t i = 0; i < n * k; i++)
		w[i] = (int8_t)(extreme ? -128 : 127 * uniform());
	for (size_t i = 0; i < t * ldy; i++)
		y[i] = 77;
	if (!ok(b->ops->pack_i8(b, &p, w, n, k, &e) == 0 &&
		b->ops->linear_i8(b, y, ldy, x, ldx, t, p, &e) == 0, "linear int8 runs"))
		return;
	for (size_t i = 0; i < t; i++)
		for (size_t j = 0; j < ldy; j++) {
			int64_t s = j < n ? 0 : 77;

			for (size_t l = 0; j < n && l < k; l++)
				s += (int64_t)x[i * ldx + l] * w[j * k + l];
			wrong += y[i * ldy + j] != s;
		}
	for (size_t j = 0; j < n; j++) {
		int64_t s = 0;

		for (size_t l = 0; l < k; l++)
			s += w[j * k + l];
		wrong += packed_i8_sums(p)[j] != s;
	}
	ok(!wrong, "linear int8 %zu x %zu x %zu%s: exact", t, n, k, extreme ? ", extremes" : "");
	b->ops->pack_i8_free(b, p);
	free(x);
	free(w);
	free(y);
}

static void round_all(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = bf16_to_f32(f32_to_bf16(x[i]));
}

/* bf16: as f32 makes it of rounded operands; bf16x3: nearly as of what was given. */
static void test_compute(struct backend *b, const char *compute, size_t t, size_t n, size_t k)
{
	size_t ldx = k + 3, ldy = n + 5;
	float *w = randoms(n * k, 0.1f), *x = randoms(t * ldx, 1.0f), *bias = randoms(n, 1.0f);
	float *rw = randoms(n * k, 1.0f), *rx = randoms(t * ldx, 1.0f);
	float *y = filled(t * ldy + 1, GUARD), *was = filled(t * ldy + 1, GUARD);
	int split = !strcmp(compute, "bf16x3");
	struct packed *p = NULL;
	struct err e;

	round_all(rw, w, n * k);
	round_all(rx, x, t * ldx);
	if (!ok(backend_compute(b, compute, &e) == 0 &&
		b->ops->pack(b, &p, w, DT_F32, n, k, &e) == 0, "pack for %s", b->name))
		return;
	for (int mode = 0; mode < 4; mode++) {
		const float *bi = mode & 1 ? bias : NULL;
		int add = mode >> 1, rc;
		double err;

		for (size_t i = 0; i < t * ldy; i++)
			y[i] = was[i] = i % ldy < n && add ? 1.0f / (float)(i + 1) : GUARD;
		rc = b->ops->linear(b, y, ldy, x, ldx, t, p, bi, add, &e);
		err = linear_error(y, ldy, split ? x : rx, ldx, split ? w : rw, bi,
				   add ? was : NULL, t, n, k);
		ok(rc == 0 && err < (split ? 4.6e-5 : 2e-6) && guarded(y, t, n, ldy),
		   "%s: linear %zu x %zu x %zu%s%s: %.1e", compute, t, n, k, bi ? " bias" : "",
		   add ? " add" : "", err);
	}
	ok(backend_compute(b, "f32", &e) == 0, "back to f32");
	b->ops->pack_free(b, p);
	free(w);
	free(x);
	free(rw);
	free(rx);
	free(bias);
	free(y);
	free(was);
}

/* Numbers at the ends of the range, and none. */
static void test_compute_ends(struct backend *b, const char *compute)
{
	const float w[4] = { 1.0f, 0.0f, 2.0f, 0.5f };
	const float x[5][4] = {
		{ INFINITY, 0, 0, 0 }, { NAN, 0, 0, 0 }, { 3.0e38f, 0, 0, 0 }, { 0, 0, 0, 0 },
		{ 1.00390625f, 0, 0, 0 }, /* half way: to even */
	};
	struct packed *p = NULL, *same;
	float y[5] = { 0 };
	struct err e;

	ok(backend_compute(b, "f32", &e) == 0 && b->ops->pack(b, &p, w, DT_F32, 1, 4, &e) == 0 &&
	   backend_compute(b, compute, &e) == 0, "%s after f32", compute);
	ok(b->ops->pack(b, &p, w, DT_F32, 1, 4, &e) == 0 &&
	   b->ops->linear(b, y, 1, x[0], 4, 5, p, NULL, 0, &e) == 0, "weights are packed anew");
	same = p;
	ok(b->ops->pack(b, &p, w, DT_F32, 1, 4, &e) == 0 && p == same, "into the same memory");
	/* of three products one is infinity times 0 */
	ok((isinf(y[0]) || (!strcmp(compute, "bf16x3") && isnan(y[0]))) && isnan(y[1]) &&
	   fabsf(y[2] - 3.0e38f) < 2e36f && y[3] == 0.0f,
	   "%s: infinity, NaN, 3e38, 0: %g %g %g %g", compute, (double)y[0], (double)y[1],
	   (double)y[2], (double)y[3]);
	ok(y[4] == (strcmp(compute, "bf16") ? 1.00390625f : 1.0f), "%s: half way: %.9g", compute,
	   (double)y[4]);
	ok(backend_compute(b, "fp8", &e) < 0 && e.cls == ERR_USAGE && strstr(b->name, compute),
	   "another word is refused: %s", e.what);
	ok(backend_compute(b, "f32", &e) == 0, "back to f32");
	b->ops->pack_free(b, p);
}

static void test_pack_i8(struct backend *b)
{
	int8_t w[35], x[7] = { 1, 2, 3, 4, 5, 6, 7 };
	struct packed_i8 *p = NULL, *first;
	int32_t y[5];
	struct err e;

	memset(w, 1, sizeof(w));
	ok(b->ops->pack_i8(b, &p, w, 5, 7, &e) == 0, "pack int8");
	first = p;
	memset(w, -3, sizeof(w));
	ok(b->ops->pack_i8(b, &p, w, 5, 7, &e) == 0 && p == first &&
	   b->ops->linear_i8(b, y, 5, x, 7, 1, p, &e) == 0 && y[4] == -84 &&
	   packed_i8_sums(p)[0] == -21, "packing int8 again holds the new values");
	ok(b->ops->pack_i8(b, &p, w, 7, 5, &e) == 0 &&
	   b->ops->linear_i8(b, y, 7, x, 5, 0, p, &e) == 0, "another shape; no rows");
	ok(b->ops->pack_i8(b, &p, w, 1, (size_t)1 << 17, &e) < 0 && e.cls == ERR_BUG,
	   "sums that might not fit are refused: %s", e.what);
	b->ops->pack_i8_free(b, p);
}

static void test_pack(struct backend *b)
{
	float *w = randoms(35, 1.0f), *x = randoms(7, 1.0f), y[5] = { 0 }, was;
	struct packed *p = NULL, *first;
	struct err e;
	uint8_t raw[35] = { 0 };

	ok(b->ops->pack(b, &p, w, DT_F32, 5, 7, &e) == 0, "pack 5 x 7");
	first = p;
	w[0] += 1.0f;
	ok(b->ops->pack(b, &p, w, DT_F32, 5, 7, &e) == 0 && p == first,
	   "packing the same shape again reuses the memory");
	ok(b->ops->linear(b, y, 5, x, 7, 1, p, NULL, 0, &e) == 0 &&
		   linear_error(y, 5, x, 7, w, NULL, NULL, 1, 5, 7) < 1e-6,
	   "and holds the new values");
	y[0] = y[1] = y[2] = was = 77.0f;
	ok(b->ops->pack(b, &p, w, DT_F32, 2, 7, &e) == 0, "another shape may follow");
	ok(b->ops->linear(b, y, 2, x, 7, 1, p, NULL, 0, &e) == 0 &&
		   linear_error(y, 2, x, 7, w, NULL, NULL, 1, 2, 7) < 1e-6 && y[2] == was,
	   "and is that shape");
	ok(b->ops->pack(b, &p, raw, DT_U8, 5, 7, &e) < 0 && e.cls == ERR_BUG,
	   "codes are not weights");
	b->ops->pack_free(b, p);
	b->ops->pack_free(b, NULL);
	free(w);
	free(x);
}

static void test_gemm(struct backend *b, int tb, size_t m, size_t n, size_t k)
{
	size_t lda = k + 1, ldb = (tb ? k : n) + 2, ldc = n + 3;
	float *a = randoms(m * lda, 1.0f), *bm = randoms((tb ? n : k) * ldb, 1.0f);
	float *c = filled(m * ldc, GUARD), *was = must(malloc(m * ldc * sizeof(*was)));
	float alpha = -0.75f, beta = 0.5f;
	double worst = 0;
	struct err e;
	int rc;

	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < n; j++)
			c[i * ldc + j] = uniform();
	memcpy(was, c, m * ldc * sizeof(*c));
	rc = b->ops->gemm(b, tb, m, n, k, alpha, a, lda, bm, ldb, beta, c, ldc, &e);
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < n; j++) {
			double s = 0, mag = 0.5;

			for (size_t l = 0; l < k; l++) {
				double p = (double)a[i * lda + l] *
					   (tb ? bm[j * ldb + l] : bm[l * ldb + j]);

				s += p;
				mag += fabs(p);
			}
			s = alpha * s + (double)beta * was[i * ldc + j];
			worst = larger(worst, fabs(s - c[i * ldc + j]) / mag);
		}
	ok(rc == 0 && worst < 2e-6 && guarded(c, m, n, ldc), "gemm%s %zu x %zu x %zu: %.1e",
	   tb ? " b'" : "", m, n, k, worst);
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < n; j++)
			c[i * ldc + j] = NAN;
	rc = b->ops->gemm(b, tb, m, n, k, alpha, a, lda, bm, ldb, 0.0f, c, ldc, &e);
	ok(rc == 0 && c[0] == c[0] && c[(m - 1) * ldc + n - 1] == c[(m - 1) * ldc + n - 1],
	   "gemm with beta 0 does not read c");
	free(a);
	free(bm);
	free(c);
	free(was);
}

static void test_gemm64(struct backend *b, int tb, size_t m, size_t n, size_t k, double beta)
{
	struct err e;
	const size_t lda = k + 3, ldb = (tb ? k : n) + 1, ldc = n + 2, rows = tb ? n : k;
	double *a = must(malloc((m * lda + rows * ldb + 2 * m * ldc + 1) * sizeof(*a)));
	double *bm = a + m * lda, *c = bm + rows * ldb, *was = c + m * ldc, worst = 0;
	int rc, kept = 1;

	for (size_t i = 0; i < m * lda + rows * ldb + 2 * m * ldc; i++)
		a[i] = (double)uniform();
	memcpy(was, c, m * ldc * sizeof(*c));
	for (size_t i = 0; beta == 0 && i < m; i++)
		c[i * ldc] = (double)NAN;
	rc = b->ops->gemm64(b, tb, m, n, k, -0.75, a, lda, bm, ldb, beta, c, ldc, &e);
	for (size_t i = 0; i < m; i++) {
		for (size_t j = 0; j < n; j++) {
			double sum = beta * was[i * ldc + j], size = fabs(sum) + 1e-300;

			for (size_t l = 0; l < k; l++) {
				double p = -0.75 * a[i * lda + l] *
					   (tb ? bm[j * ldb + l] : bm[l * ldb + j]);

				sum += p;
				size += fabs(p);
			}
			worst = larger(worst, fabs(c[i * ldc + j] - sum) / size);
		}
		kept &= memcmp(c + i * ldc + n, was + i * ldc + n, 2 * sizeof(*c)) == 0;
	}
	ok(rc == 0 && worst < 2e-15 && kept, "gemm64%s %zu x %zu x %zu, beta %g: %.1e",
	   tb ? " of the transpose" : "", m, n, k, beta, worst);
	free(a);
}

/* A symmetric matrix of which the lower triangle is given, and what its eigenvectors make of it. */
static void test_eigen64(struct backend *b, size_t n)
{
	struct err e;
	double *a = must(malloc((2 * n * n + n) * sizeof(*a))), *v = a + n * n, *w = v + n * n;
	double worst = 0;
	int rc, up = 1;

	for (size_t i = 0; i < n * n; i++)
		a[i] = v[i] = (double)uniform();
	rc = b->ops->eigen64(b, v, n, w, &e);
	for (size_t i = 0; i < n; i++) {
		up &= i == 0 || w[i] >= w[i - 1];
		for (size_t j = 0; j < n; j++) {
			double left = -w[i] * v[i * n + j], dot = i == j ? -1 : 0;

			for (size_t l = 0; l < n; l++) {
				left += v[i * n + l] * (l < j ? a[j * n + l] : a[l * n + j]);
				dot += v[i * n + l] * v[j * n + l];
			}
			worst = larger(worst, larger(fabs(left), fabs(dot)));
		}
	}
	ok(rc == 0 && up && worst < 1e-13 * (double)(n + 10), "eigenvectors of order %zu: %.1e", n,
	   worst);
	free(a);
}

static void test_norms(struct backend *b, size_t t, size_t d)
{
	float *x = randoms(t * d, 3.0f), *w = randoms(d, 1.0f), *bias = randoms(d, 1.0f);
	float *y = must(malloc(t * d * sizeof(*y)));
	double rms = 0, ln = 0, plain = 0;
	float eps = 1e-5f;
	struct err e;

	for (size_t i = 0; i < t * d; i++)
		x[i] += 1.0f;
	for (int mode = 0; mode < 3; mode++) {
		const float *bi = mode == 1 ? bias : NULL;
		double *worst = mode == 0 ? &rms : mode == 1 ? &ln : &plain;

		if (mode == 0)
			*worst += b->ops->rmsnorm(b, y, x, w, t, d, eps, &e);
		else
			*worst += b->ops->layernorm(b, y, x, w, bi, t, d, eps, &e);
		for (size_t i = 0; i < t; i++) {
			double mean = 0, var = 0;

			for (size_t j = 0; j < d && mode; j++)
				mean += x[i * d + j] / (double)d;
			for (size_t j = 0; j < d; j++)
				var += pow(x[i * d + j] - mean, 2) / (double)d;
			for (size_t j = 0; j < d; j++) {
				double want = (x[i * d + j] - mean) / sqrt(var + eps) * w[j];

				want += bi ? bi[j] : 0;
				*worst = larger(*worst, fabs(want - y[i * d + j]));
			}
		}
	}
	ok(rms < 2e-6, "rmsnorm %zu x %zu: %.1e", t, d, rms);
	ok(ln < 2e-6 && plain < 2e-6, "layernorm %zu x %zu: %.1e, without bias %.1e", t, d, ln,
	   plain);
	memcpy(y, x, t * d * sizeof(*y));
	rms = b->ops->rmsnorm(b, y, y, w, t, d, eps, &e);
	rms += b->ops->rmsnorm(b, x, x, w, t, d, eps, &e);
	ok(rms == 0 && !memcmp(x, y, t * d * sizeof(*y)), "rmsnorm in place");
	free(x);
	free(w);
	free(bias);
	free(y);
}

static void test_rope(struct backend *b, size_t t, size_t seqlen, int heads, int hd)
{
	size_t half = (size_t)hd / 2, d = (size_t)heads * (size_t)hd, ld = d + 7;
	float *x = randoms(t * ld, 1.0f), *c = randoms(seqlen * half, 1.0f);
	float *s = randoms(seqlen * half, 1.0f), *y = must(malloc(t * ld * sizeof(*y)));
	double worst = 0;
	struct err e;

	for (size_t i = 0; i < t * ld; i++)
		if (i % ld >= d)
			x[i] = GUARD;
	memcpy(y, x, t * ld * sizeof(*y));
	worst = b->ops->rope(b, y, ld, t, seqlen, heads, hd, c, s, &e);
	for (size_t i = 0; i < t; i++)
		for (size_t h = 0; h < (size_t)heads; h++)
			for (size_t l = 0; l < half; l++) {
				const float *p = x + i * ld + h * (size_t)hd + l;
				const float *q = y + i * ld + h * (size_t)hd + l;
				double co = c[i % seqlen * half + l], si = s[i % seqlen * half + l];

				worst = larger(worst, fabs(p[0] * co - p[half] * si - q[0]));
				worst = larger(worst, fabs(p[half] * co + p[0] * si - q[half]));
			}
	ok(worst < 3e-7 && guarded(y, t, d, ld), "rope %zu tokens, %d heads of %d: %.1e", t, heads,
	   hd, worst);
	free(x);
	free(c);
	free(s);
	free(y);
}

/* One output row of attention, in f64. */
static void attend(double *o, const float *q, const float *k, const float *v, size_t i,
		   const struct attention_shape *s, double *p)
{
	size_t d = (size_t)s->head_dim;
	double max = -INFINITY, sum = 0;

	for (size_t l = 0; l < d; l++)
		o[l] = 0;
	for (size_t j = 0; j < s->seqlen; j++) {
		p[j] = 0;
		for (size_t l = 0; l < d; l++)
			p[j] += (double)q[l] * k[j * s->ldkv + l];
		p[j] *= s->scale;
		if ((s->causal && j > i) || (s->window && (j > i || j + s->window <= i)))
			p[j] = -INFINITY;
		max = larger(max, p[j]);
	}
	for (size_t j = 0; j < s->seqlen; j++)
		sum += p[j] = exp(p[j] - max);
	for (size_t j = 0; j < s->seqlen; j++)
		for (size_t l = 0; l < d; l++)
			o[l] += p[j] / sum * v[j * s->ldkv + l];
}

static void to_bf16(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = bf16_to_f32(f32_to_bf16(x[i]));
}

static void test_attention(struct backend *b, struct attention_shape s, float spread)
{
	size_t d = (size_t)s.head_dim, t = s.nseq * s.seqlen, nh = (size_t)s.heads;
	size_t nkv = (size_t)s.kv_heads;
	float *q, *k, *v, *o;
	double *want, *p, worst = 0, within = 3e-6 * (1 + spread);
	struct err e;
	int rc;

	s.ldq = nh * d + 5;
	s.ldkv = nkv * d + 9;
	s.ldo = nh * d + 1;
	s.scale = 1.0f / sqrtf((float)d);
	q = randoms(t * s.ldq, spread);
	k = randoms(t * s.ldkv, spread);
	v = randoms(t * s.ldkv, 1.0f);
	o = filled(t * s.ldo, GUARD);
	if (b->compute == COMPUTE_BF16) { /* then only the probabilities are rounded */
		s.scale = 0.25f;
		to_bf16(q, t * s.ldq);
		to_bf16(k, t * s.ldkv);
		to_bf16(v, t * s.ldkv);
		within = 1.0 / 256;
	}
	want = must(malloc((d + s.seqlen) * sizeof(*want)));
	p = want + d;
	rc = b->ops->attention(b, o, q, k, v, &s, &e);
	for (size_t i = 0; i < t; i++)
		for (size_t h = 0; h < nh; h++) {
			size_t kv = i / s.seqlen * s.seqlen * s.ldkv + h / (nh / nkv) * d;

			attend(want, q + i * s.ldq + h * d, k + kv, v + kv, i % s.seqlen, &s, p);
			for (size_t l = 0; l < d; l++)
				worst = larger(worst, fabs(o[i * s.ldo + h * d + l] - want[l]));
		}
	ok(rc == 0 && worst < within && guarded(o, t, nh * d, s.ldo),
	   "%s: attention %zu x %zu, %d heads on %d of %d%s, window %zu: %.1e",
	   b->compute ? "bf16" : "f32", s.nseq, s.seqlen, s.heads,
	   s.kv_heads, s.head_dim, s.causal ? ", causal" : "", s.window, worst);
	free(q);
	free(k);
	free(v);
	free(o);
	free(want);
}

static double activation(double x, enum act_fn act)
{
	switch (act) {
	case ACT_FN_SILU:
		return x / (1 + exp(-x));
	case ACT_FN_RELU:
		return x > 0 ? x : 0;
	case ACT_FN_GELU:
		return 0.5 * x * erfc(-x * sqrt(0.5));
	default:
		return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
	}
}

static void test_gate(struct backend *b, size_t n, enum act_fn act, const char *name)
{
	float *g = randoms(n, 12.0f), *u = randoms(n, 2.0f), *y = randoms(n, 1.0f);
	float edge[] = { 0.0f, -0.0f, 1e-30f, -1e-8f, 90.0f, -90.0f, 1e30f, -1e30f, INFINITY };
	double worst = 0, plain = 0;
	struct err e;

	for (size_t i = 0; i < COUNT(edge) && i < n; i++)
		g[i] = edge[i];
	worst = b->ops->gate(b, y, g, u, n, act, &e);
	for (size_t i = 0; i < n; i++) {
		double want = activation(g[i], act) * u[i];

		if (y[i] != want)
			worst = larger(worst, fabs(y[i] - want) / (fabs(want) + 1e-7));
	}
	ok(worst < 4e-6, "%s gate of %zu: %.1e", name, n, worst);
	plain = b->ops->gate(b, y, NULL, g, n, act, &e);
	for (size_t i = 0; i < n; i++) {
		double want = activation(g[i], act);

		if (y[i] != want)
			plain = larger(plain, fabs(y[i] - want) / (fabs(want) + 1e-7));
	}
	ok(plain < 4e-6, "%s of %zu: %.1e", name, n, plain);
	b->ops->gate(b, y, g, u, n, act, &e);
	b->ops->gate(b, g, g, u, n, act, &e);
	ok(!memcmp(y, g, n * sizeof(*y)), "%s gate in place", name);
	g[n - 1] = NAN;
	b->ops->gate(b, y, g, u, n, act, &e);
	ok(y[n - 1] != y[n - 1], "%s of NaN is NaN", name);
	free(g);
	free(u);
	free(y);
}

static void test_nll(struct backend *b, size_t n, size_t vocab, float spread)
{
	float *x = randoms(n * vocab, spread);
	int32_t *target = must(malloc(n * sizeof(*target)));
	double *nll = must(malloc(n * sizeof(*nll))), worst = 0;
	struct err e;

	for (size_t i = 0; i < n; i++)
		target[i] = i % 5 == 3 ? -1 : (int32_t)(i * 31 % vocab);
	worst = b->ops->nll(b, nll, x, n, vocab, target, &e);
	for (size_t i = 0; i < n; i++) {
		double max = -INFINITY, sum = 0, want = 0;

		for (size_t j = 0; j < vocab; j++)
			max = larger(max, x[i * vocab + j]);
		for (size_t j = 0; j < vocab; j++)
			sum += exp(x[i * vocab + j] - max);
		if (target[i] >= 0)
			want = max + log(sum) - x[i * vocab + (size_t)target[i]];
		worst = larger(worst, fabs(nll[i] - want));
	}
	ok(worst < 2e-7 * (1 + spread), "nll %zu x %zu, logits to %g: %.1e", n, vocab,
	   (double)spread, worst);
	target[n - 1] = (int32_t)vocab;
	ok(b->ops->nll(b, nll, x, n, vocab, target, &e) < 0 && e.cls == ERR_DATA,
	   "nll refuses a token outside the vocabulary");
	free(x);
	free(target);
	free(nll);
}

/* Rows picked out, and rows added back with weights, each to a place of its own. */
static void test_rows(struct backend *b, size_t n, size_t d)
{
	const size_t t = 3 * n + 1;
	float *x = randoms(t * d, 1.0f), *y = filled(n * d, 0), *z = randoms(t * d, 1.0f);
	float *w = randoms(n, 2.0f), *was = must(malloc(t * d * sizeof(*was)));
	uint32_t *index = must(malloc(n * sizeof(*index)));
	double worst = 0;
	size_t wrong = 0;
	struct err e;

	memcpy(was, z, t * d * sizeof(*was));
	for (size_t i = 0; i < n; i++)
		index[i] = (uint32_t)((i * 3 + 2) % t);
	ok(b->ops->gather(b, y, x, index, n, d, &e) == 0, "rows: %zu of %zu", n, d);
	for (size_t i = 0; i < n; i++)
		wrong += memcmp(y + i * d, x + index[i] * d, d * sizeof(*y)) != 0;
	ok(wrong == 0, "rows: those of the index");
	ok(b->ops->scatter_add(b, z, y, index, w, n, d, &e) == 0, "rows: added back");
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < d; j++) {
			float *v = &was[index[i] * d + j];

			*v = (float)(*v + (double)w[i] * y[i * d + j]);
		}
	for (size_t i = 0; i < t * d; i++)
		worst = fmax(worst, fabs((double)z[i] - was[i]));
	ok_near(worst, 0, 1e-6, "rows: weighted, to their places, nowhere else");
	ok(b->ops->scatter_add(b, y, y, NULL, w, n, d, &e) == 0, "rows: without an index");
	worst = 0;
	for (size_t i = 0; i < n * d; i++)
		worst = fmax(worst, fabs(y[i] - (1 + (double)w[i / d]) * x[index[i / d] * d +
									 i % d]));
	ok_near(worst, 0, 1e-6, "rows: in their order");
	free(x);
	free(y);
	free(z);
	free(w);
	free(was);
	free(index);
}

static void test_colstats(struct backend *b, size_t t, size_t k)
{
	float *x = randoms(t * k, 4.0f), *amax = filled(k, 1.0f), *min = filled(k, 0.5f);
	float *max = filled(k, -0.5f);
	double *sum = must(malloc(k * sizeof(*sum)));
	int good = 1, rc;
	struct err e;

	for (size_t j = 0; j < k; j++)
		sum[j] = 10;
	rc = b->ops->colstats(b, x, t, k, amax, sum, min, max, &e);
	for (size_t j = 0; j < k; j++) {
		float a = 1.0f, lo = 0.5f, hi = -0.5f;
		double s = 10;

		for (size_t i = 0; i < t; i++) {
			float v = x[i * k + j];

			a = fmaxf(a, fabsf(v));
			lo = fminf(lo, v);
			hi = fmaxf(hi, v);
			s += fabs((double)v);
		}
		good &= amax[j] == a && min[j] == lo && max[j] == hi &&
			fabs(sum[j] - s) <= 1e-13 * s;
	}
	ok(rc == 0 && good, "colstats %zu x %zu", t, k);
	x[(t - 1) * k + k - 1] = NAN;
	x[0] = NAN;
	rc = b->ops->colstats(b, x, t, k, amax, NULL, min, NULL, &e);
	rc |= b->ops->colstats(b, x, t, k, NULL, NULL, NULL, max, &e);
	ok(rc == 0 && amax[0] != amax[0] && min[k - 1] != min[k - 1] && max[0] != max[0] &&
		   (k < 3 || amax[1] == amax[1]),
	   "colstats: NaN stays, in its column");
	free(x);
	free(amax);
	free(min);
	free(max);
	free(sum);
}

static void test_hessian(struct backend *b, size_t k, size_t t)
{
	float *x = randoms(t * k, 1.0f);
	size_t n = k * (k + 1) / 2, second = t / 3;
	float *tri = must(malloc(n * sizeof(*tri)));
	double *want = must(calloc(n, sizeof(*want)));
	double worst = 0;
	struct hessian *h;
	struct err e;
	int rc = b->ops->hessian_new(b, &h, k, &e);

	if (rc == 0)
		rc = b->ops->hessian_get(b, h, tri, &e);
	for (size_t i = 0; i < n; i++)
		worst = larger(worst, fabs((double)tri[i]));
	ok(rc == 0 && worst == 0, "a new hessian of %zu is zero", k);
	rc = b->ops->hessian_add(b, h, x, t, &e);
	rc |= b->ops->hessian_zero(b, h, &e);
	rc |= b->ops->hessian_add(b, h, x, t - second, &e);
	rc |= b->ops->hessian_add(b, h, x + (t - second) * k, second, &e);
	rc |= b->ops->hessian_add(b, h, x, 0, &e);
	rc |= b->ops->hessian_get(b, h, tri, &e);
	if (b->compute == COMPUTE_BF16)
		round_all(x, x, t * k);
	for (size_t r = 0; r < t; r++)
		for (size_t i = 0, at = 0; i < k; i++)
			for (size_t j = i; j < k; j++)
				want[at++] += (double)x[r * k + i] * x[r * k + j];
	for (size_t i = 0; i < n; i++)
		worst = larger(worst, fabs((double)tri[i] - want[i]) / (double)t);
	ok(rc == 0 && worst < 1e-6, "hessian of %zu over %zu tokens: %.1e", k, t, worst);
	b->ops->hessian_free(b, h);
	b->ops->hessian_free(b, NULL);
	free(x);
	free(tri);
	free(want);
}

/* h = x'x / t + 0.01 I, full. */
static double *positive(size_t k, size_t t)
{
	float *x = randoms(t * k, 1.0f);
	double *h = must(calloc(k * k, sizeof(*h)));

	for (size_t r = 0; r < t; r++)
		for (size_t i = 0; i < k; i++)
			for (size_t j = 0; j < k; j++)
				h[i * k + j] += (double)x[r * k + i] * x[r * k + j] / (double)t;
	for (size_t i = 0; i < k; i++)
		h[i * k + i] += 0.01;
	free(x);
	return h;
}

/* The inverse of an upper triangular block in place of it, n wide. */
static void invert_upper(double *a, size_t n, size_t ld)
{
	for (size_t c = 0; c < n; c++) {
		a[c * ld + c] = 1 / a[c * ld + c];
		for (size_t r = 0; r < c; r++) {
			double s = 0;

			for (size_t l = r; l < c; l++)
				s += a[r * ld + l] * a[l * ld + c];
			a[r * ld + c] = -s * a[c * ld + c];
		}
	}
}

static void test_factor(struct backend *b, size_t k, size_t panel)
{
	double *h = positive(k, k + 20), *r = must(malloc(k * k * sizeof(*r)));
	double worst = 0, pivot;
	struct err e;
	size_t at;
	int rc, sign = 1;

	/* the strict lower triangle must not be read */
	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < k; j++)
			r[i * k + j] = j < i ? NAN : h[i * k + j];
	rc = b->ops->panel_factor(b, r, k, panel, &pivot, &at, &e);
	for (size_t i = 0; i < k; i++)
		sign &= r[i * k + i] > 0;
	/* R, where it is not, is the inverse of what is there; then R R' = H */
	for (size_t i = 0; i < k; i += panel)
		invert_upper(r + i * k + i, k - i < panel ? k - i : panel, k);
	for (size_t i = 0; i < k; i++)
		for (size_t j = i; j < k; j++) {
			double s = 0;

			for (size_t l = j; l < k; l++)
				s += r[i * k + l] * r[j * k + l];
			worst = larger(worst, fabs(s - h[i * k + j]));
		}
	ok(rc == 0 && sign && worst < 1e-12, "panel_factor of %zu by %zu: %.1e", k, panel, worst);
	free(h);
	free(r);
}

/* Spoil a diagonal value, or make row i a copy of row j: the factor must say where. */
static void test_indefinite(struct backend *b, size_t k, size_t i)
{
	double *h = positive(k, k + 20), *g = must(malloc(k * k * sizeof(*g))), pivot = 7;
	size_t at = k, twin = (i + 1) % k;
	struct err e;
	int rc;

	memcpy(g, h, k * k * sizeof(*g));
	g[i * k + i] = -3;
	rc = b->ops->panel_factor(b, g, k, 96, &pivot, &at, &e);
	ok(rc == 1 && at == i && pivot <= -3, "a negative diagonal at %zu of %zu: pivot %g at %zu",
	   i, k, pivot, at);
	memcpy(g, h, k * k * sizeof(*g));
	g[i * k + i] = NAN;
	rc = b->ops->panel_factor(b, g, k, 96, &pivot, &at, &e);
	ok(rc == 1 && at == i && pivot != pivot, "NaN at %zu of %zu: pivot %g at %zu", i, k, pivot,
	   at);
	memcpy(g, h, k * k * sizeof(*g));
	for (size_t l = 0; l < k; l++)
		g[i * k + l] = g[twin * k + l];
	for (size_t l = 0; l < k; l++)
		g[l * k + i] = g[l * k + twin];
	rc = b->ops->panel_factor(b, g, k, 96, &pivot, &at, &e);
	ok(rc == 1 && at == (i < twin ? i : twin) && fabs(pivot) < 1e-10,
	   "column %zu of %zu equal to column %zu: pivot %g at %zu", i, k, twin, pivot, at);
	memset(g, 0, k * k * sizeof(*g));
	rc = b->ops->panel_factor(b, g, k, 96, &pivot, &at, &e);
	ok(rc == 1 && at == k - 1 && pivot == 0, "zeros: pivot %g at %zu", pivot, at);
	free(h);
	free(g);
}

static void test_memory(struct backend *b)
{
	static const size_t sizes[] = { 0, 1, 63, 4096, (size_t)5 << 20 };
	struct err e;

	for (size_t i = 0; i < COUNT(sizes); i++) {
		size_t n = sizes[i];
		unsigned char *p = b->ops->alloc(b, n, &e), *q = must(malloc(n + 1));
		int good = p && (uintptr_t)p % 64 == 0;

		for (size_t l = 0; l < n; l++)
			q[l] = (unsigned char)(l * 7);
		good = good && b->ops->upload(b, p, q, n, &e) == 0;
		memset(q, 0, n);
		good = good && b->ops->download(b, q, p, n, &e) == 0;
		for (size_t l = 0; l < n; l++)
			good &= q[l] == (unsigned char)(l * 7);
		ok(good, "alloc, upload, download of %zu bytes", n);
		b->ops->free(b, p);
		free(q);
	}
	b->ops->free(b, NULL);
	ok(!b->ops->alloc(b, SIZE_MAX - 3, &e) && e.cls == ERR_NOMEM, "too much memory is refused");
}

static void test_open(void)
{
	static const struct {
		const char *device;
		enum err_class cls;
	} bad[] = {
		{ "gpu", ERR_USAGE },    { "", ERR_USAGE },        { "cuda:", ERR_USAGE },
		{ "cudax", ERR_USAGE },  { "cuda:1x", ERR_USAGE }, { "cuda", ERR_UNAVAIL },
		{ "cuda:1", ERR_UNAVAIL }, { "cpu:0", ERR_USAGE },
	};
	struct backend b;
	struct err e;

	for (size_t i = 0; i < COUNT(bad); i++)
		ok(backend_open(&b, bad[i].device, 1, &e) < 0 && e.cls == bad[i].cls,
		   "--device=%s: %s: %s", bad[i].device, e.where, e.what);
}

/* Everything once into out, so that runs with different numbers of threads can be compared.
 * Returns the number of bytes. */
static size_t everything(struct backend *b, unsigned char *out)
{
	enum { T = 700, D = 200, N = 361, V = 900 };
	struct attention_shape s = {
		.nseq = 2, .seqlen = T / 2, .heads = 10, .kv_heads = 5, .head_dim = 20, .ldq = D,
		.ldkv = D / 2, .ldo = D, .scale = 0.2f, .causal = 1,
	};
	float *x = randoms(T * D, 1.0f), *w = randoms(N * D, 0.1f), *y = filled(T * V, 0);
	float *tri = must(malloc(D * (D + 1) / 2 * sizeof(*tri)));
	struct packed_i8 *p8 = NULL;
	double *h = positive(D, D), loss[T / 10], pivot;
	int32_t target[T];
	struct packed *p = NULL;
	struct hessian *hs = NULL;
	unsigned char *at = out;
	struct err e;
	size_t where;
	int rc = 0;

#define KEEP(p, n) (memcpy(at, (p), (n) * sizeof(*(p))), at += (n) * sizeof(*(p)))
	for (int i = 0; i < T; i++)
		target[i] = i;
	rc |= b->ops->pack(b, &p, w, DT_F32, N, D, &e);
	rc |= b->ops->linear(b, y, N, x, D, T, p, x, 0, &e);
	KEEP(y, T * N);
	rc |= backend_compute(b, "bf16", &e);
	rc |= b->ops->pack(b, &p, w, DT_F32, N, D, &e);
	rc |= b->ops->linear(b, y, N, x, D, T, p, x, 0, &e);
	KEEP(y, T * N);
	rc |= b->ops->hessian_new(b, &hs, D, &e);
	rc |= b->ops->hessian_add(b, hs, x, T, &e);
	rc |= b->ops->hessian_get(b, hs, tri, &e);
	b->ops->hessian_free(b, hs);
	KEEP(tri, D * (D + 1) / 2);
	rc |= b->ops->attention(b, y, x, w, w + D, &s, &e);
	KEEP(y, T * D);
	rc |= backend_compute(b, "f32", &e);
	rc |= b->ops->pack_i8(b, &p8, (const int8_t *)w, N, D, &e);
	rc |= b->ops->linear_i8(b, (int32_t *)(void *)y, N, (const int8_t *)x, D, T, p8, &e);
	KEEP(y, T * N);
	rc |= b->ops->gemm(b, 0, T, D, D, 1.0f, x, D, w, D, 0.0f, y, D, &e);
	KEEP(y, T * D);
	rc |= b->ops->attention(b, y, x, w, w + D, &s, &e);
	KEEP(y, T * D);
	rc |= b->ops->rmsnorm(b, y, x, w, T, D, 1e-5f, &e);
	KEEP(y, T * D);
	rc |= b->ops->layernorm(b, y, x, w, w, T, D, 1e-5f, &e);
	KEEP(y, T * D);
	rc |= b->ops->gate(b, y, x, y, T * D, ACT_FN_SILU, &e);
	KEEP(y, T * D);
	rc |= b->ops->hessian_new(b, &hs, D, &e);
	rc |= b->ops->hessian_add(b, hs, x, T, &e);
	rc |= b->ops->hessian_get(b, hs, tri, &e);
	KEEP(tri, D * (D + 1) / 2);
	rc |= b->ops->nll(b, loss, y, T / 10, V, target, &e);
	KEEP(loss, T / 10);
	rc |= b->ops->panel_factor(b, h, D, 96, &pivot, &where, &e);
	for (size_t i = 0; i < D; i++)
		KEEP(h + i * D + i, D - i);
#undef KEEP
	if (rc)
		at = out;
	b->ops->hessian_free(b, hs);
	b->ops->pack_free(b, p);
	b->ops->pack_i8_free(b, p8);
	free(x);
	free(w);
	free(y);
	free(h);
	free(tri);
	return (size_t)(at - out);
}

static void test_threads(void)
{
	const size_t room = (size_t)32 << 20;
	unsigned char *one = must(malloc(room)), *more = must(malloc(room));
	static const int threads[] = { 1, 2, 3, 7 };
	size_t n1 = 0, n;
	struct backend b;
	struct err e;

	for (size_t i = 0; i < COUNT(threads); i++) {
		if (!ok(backend_open(&b, "cpu", threads[i], &e) == 0, "open with %d threads",
			threads[i]))
			continue;
		seed = 99;
		n = everything(&b, i ? more : one);
		if (!i)
			n1 = n;
		ok(n1 > 0 && n == n1 && (!i || !memcmp(one, more, n)),
		   "%d threads: the same %zu bytes", threads[i], n);
		backend_close(&b);
	}
	free(one);
	free(more);
}

static const size_t sizes[] = { 1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 129, 172, 200 };

static void test_attentions(struct backend *b)
{
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct attention_shape s = { .nseq = 2, .seqlen = sizes[i], .heads = 4,
					     .kv_heads = i % 2 ? 2 : 1, .head_dim = 8,
					     .causal = 1 };

		test_attention(b, s, 1.0f);
		s.causal = 0;
		test_attention(b, s, 4.0f);
		s.window = 1 + i * 4;
		s.causal = 1;
		test_attention(b, s, 2.0f);
	}
	test_attention(b, (struct attention_shape){ .nseq = 1, .seqlen = 300, .heads = 3,
						     .kv_heads = 3, .head_dim = 20, .causal = 1 },
		       10.0f);
	test_attention(b, (struct attention_shape){ .nseq = 1, .seqlen = 700, .heads = 2,
						     .kv_heads = 1, .head_dim = 64, .causal = 1,
						     .window = 100 },
		       10.0f);
}

/* Around the blocks of keys and the units of a head, and that windows skip whole blocks. */
static void test_attentions_bf16(struct backend *b)
{
	static const size_t lengths[] = { 95, 96, 97, 192, 193 };
	static const int dims[] = { 1, 2, 7, 64, 100, 127, 128, 129, 130, 256, 300 };
	struct err e;

	ok(backend_compute(b, "bf16", &e) == 0, "attention in bf16");
	test_attentions(b);
	for (size_t i = 0; i < COUNT(lengths); i++)
		test_attention(b, (struct attention_shape){ .nseq = 2, .seqlen = lengths[i],
			       .heads = 4, .kv_heads = 2, .head_dim = 24, .causal = i % 2 }, 2.0f);
	for (size_t i = 0; i < COUNT(dims); i++)
		test_attention(b, (struct attention_shape){ .nseq = 1, .seqlen = 101, .heads = 3,
			       .kv_heads = 1, .head_dim = dims[i], .causal = 1 }, 1.0f);
	ok(backend_compute(b, "f32", &e) == 0, "back to f32");
}

static void test_shorts(struct backend *b)
{
	struct err e;

	test_pack_i8(b);
	for (size_t i = 0; i < COUNT(sizes); i++)
		test_linear_i8(b, sizes[i], sizes[(i * 5 + 3) % COUNT(sizes)],
			       sizes[(i * 3 + 7) % COUNT(sizes)], i % 4 == 3);
	for (int split = 0; split < 2; split++) {
		const char *compute = split ? "bf16x3" : "bf16";

		test_compute_ends(b, compute);
		for (size_t i = 0; i < COUNT(sizes); i++)
			test_compute(b, compute, sizes[i], sizes[(i * 5 + 3) % COUNT(sizes)],
				     sizes[(i * 3 + 7) % COUNT(sizes)]);
		test_compute(b, compute, 250, 300, 1100);
		test_compute(b, compute, 1030, 2100, 5);
		ok(backend_compute(b, compute, &e) == 0, "%s", b->name);
		for (size_t i = 0; i < COUNT(sizes); i++)
			test_hessian(b, sizes[i], sizes[(i * 5 + 3) % COUNT(sizes)]);
		test_hessian(b, 577, 40);
		test_hessian(b, 100, 2500);
		test_hessian(b, 1100, 9);
		ok(backend_compute(b, "f32", &e) == 0, "back to f32");
	}
	test_linear_i8(b, 30, 40, 3333, 1);
	test_linear_i8(b, 2, 3, 131071, 1);
	test_linear_i8(b, 300, 70, 1027, 0);
	test_linear_i8(b, 1030, 2100, 9, 0);
}

int main(void)
{
	static const char *const acts[] = { "silu", "relu", "gelu", "gelu-tanh" };
	struct backend b;
	struct err e;

	test_open();
	if (!ok(backend_open(&b, "cpu", 2, &e) == 0, "open the cpu"))
		return done();
	printf("# %s\n", b.name);
	ok(!strncmp(b.name, "cpu ", 4), "the backend has a name");
	test_memory(&b);
	test_pack(&b);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		size_t n = sizes[i];

		test_linear(&b, n, sizes[(i * 5 + 3) % COUNT(sizes)],
			    sizes[(i * 3 + 7) % COUNT(sizes)],
			    i % 3 == 0 ? DT_F32 : i % 3 == 1 ? DT_BF16 : DT_F16);
		test_gemm(&b, i & 1, n, sizes[(i * 5 + 3) % COUNT(sizes)],
			  sizes[(i * 3 + 7) % COUNT(sizes)]);
		test_norms(&b, 9, n);
		test_rope(&b, 21, 10, 3, (int)n * 2);
		test_nll(&b, 11, n + 1, 5.0f);
		test_colstats(&b, n, sizes[(i + 4) % COUNT(sizes)]);
		test_hessian(&b, n, 50);
		test_factor(&b, n, n);
		test_factor(&b, n, 24);
	}
	test_shorts(&b);
	test_linear(&b, 1100, 70, 33, DT_F32);
	test_linear(&b, 30, 1300, 520, DT_BF16);
	test_linear(&b, 0, 8, 8, DT_F32);
	test_gemm(&b, 1, 520, 530, 70);
	for (int i = 0; i < 10; i++)
		test_gemm64(&b, i & 1, sizes[i % COUNT(sizes)], sizes[(i * 5 + 3) % COUNT(sizes)],
			    sizes[(i * 7 + 2) % COUNT(sizes)], i % 3 - 1);
	test_gemm64(&b, 0, 130, 97, 600, 0);
	test_gemm64(&b, 1, 67, 8300, 300, 1);
	test_eigen64(&b, 1);
	test_eigen64(&b, 77);
	test_linear(&b, 1030, 2100, 5, DT_F32);
	test_norms(&b, 1100, 65);
	test_rope(&b, 300, 150, 4, 64);
	test_nll(&b, 200, 3000, 30.0f);
	test_hessian(&b, 210, 2100);
	test_hessian(&b, 40, 6300);
	test_hessian(&b, 1100, 9);
	test_hessian(&b, 577, 40);
	test_factor(&b, 257, 257);
	test_factor(&b, 257, 256);
	test_factor(&b, 390, 100);
	test_factor(&b, 390, 1000);
	test_factor(&b, 90, 1);
	test_indefinite(&b, 40, 17);
	test_indefinite(&b, 300, 5);
	test_indefinite(&b, 300, 299);
	test_indefinite(&b, 300, 160);
	for (int a = 0; a < 4; a++) {
		test_gate(&b, 1000, (enum act_fn)a, acts[a]);
		test_gate(&b, 70003, (enum act_fn)a, acts[a]);
	}
	test_rows(&b, 1, 5);
	test_rows(&b, 300, 700);
	test_attentions(&b);
	test_attentions_bf16(&b);
	backend_close(&b);
	test_threads();
	return done();
}
