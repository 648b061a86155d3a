/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec.c - the tables for different instruction sets give the same bits
 *
 * Products and attention are the exception: the baseline has no fused multiply-add, so it agrees
 * with the other two, which are equal, within rounding.
 */
#include <stdint.h>
#include <stdlib.h>

#include "lib/compute/vec.h"
#include "tests/unit/tap.h"

#define N 1003

static uint64_t seed = 7;

static float uniform(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(seed >> 11) / 4503599627370496.0 - 1.0);
}

/* Everything but attention into out; returns the number of bytes. */
static size_t everything(const struct vec_ops *v, const float *x, const float *w,
			 unsigned char *out)
{
	static float y[N], lo[N], hi[N], am[N];
	static double sum[N];
	unsigned char *at = out;
	double lse;

#define KEEP(p, n) (memcpy(at, (p), (n)), at += (n))
	for (size_t n = N - 40; n <= N; n++) {
		v->rmsnorm(y, x, w, n, 1e-5f);
		KEEP(y, n * 4);
		v->layernorm(y, x, w, n % 2 ? x : NULL, n, 1e-5f);
		KEEP(y, n * 4);
		memcpy(y, x, sizeof(y));
		v->rope(y, w, x, n / 2);
		KEEP(y, n / 2 * 8);
		for (int a = ACT_FN_SILU; a <= ACT_FN_GELU_TANH; a++) {
			v->gate(y, n % 3 ? w : NULL, x, n, (enum act_fn)a);
			KEEP(y, n * 4);
		}
		lse = v->logsumexp(x, n);
		KEEP(&lse, 8);
		memset(sum, 0, sizeof(sum));
		memset(lo, 0, sizeof(lo));
		memset(hi, 0, sizeof(hi));
		memset(am, 0, sizeof(am));
		v->colstats(x, n / 7, 7, n / 7, am, sum, lo, hi);
		KEEP(am, n / 7 * 4);
		KEEP(sum, n / 7 * 8);
		KEEP(lo, n / 7 * 4);
		KEEP(hi, n / 7 * 4);
		v->addf64(sum, x, n);
		KEEP(sum, n * 8);
		v->fill(y, x, n);
		KEEP(y, n * 4);
	}
#undef KEEP
	return (size_t)(at - out);
}

static void attention(const struct vec_ops *v, float *o, const float *x, size_t d, size_t q0,
		      size_t seqlen)
{
	float *work = aligned_alloc(64, VEC_ATTEND_WORK(d) * sizeof(float));
	struct attend t = { .q = x, .k = x + 64 * d, .v = x + 3 * d, .o = o, .ldq = d, .ldkv = d,
			    .ldo = d, .d = d, .seqlen = seqlen, .q0 = q0, .nq = seqlen - q0,
			    .scale = 0.3f, .causal = 1 };

	if (t.nq > VEC_QUERIES)
		t.nq = VEC_QUERIES;
	if (work)
		v->attend(&t, work);
	free(work);
}

/* y [t, n] = 2 x w', both matrices from x */
static void linear(const struct vec_ops *v, float *y, const float *x, size_t t, size_t k, size_t n)
{
	float *w = aligned_alloc(64, 2 * VEC_PANEL * k * sizeof(float));

	if (!w)
		return;
	memset(w, 0, 2 * VEC_PANEL * k * sizeof(float));
	for (size_t j = 0; j < n; j++)
		v->transpose(w + j / VEC_PANEL * VEC_PANEL * k + j % VEC_PANEL, VEC_PANEL,
			     x + j * k,
			     k, 1, k);
	v->linear(y, n, x, k, t, w, n, k, 0);
	v->linear(y, n, x, k, t, w, n, k, 1);
	free(w);
}

static int same(const void *a, const void *b, size_t n)
{
	return !memcmp(a, b, n);
}

/* The Cholesky factor of a matrix of n <= F64_PANEL, and products with panels of it: into out. */
static size_t tiles(const struct vec_ops *v, const float *x, size_t n, double *out)
{
	double h[F64_PANEL * F64_PANEL], b[70 * F64_PANEL], c[F64_PANEL * 41] = { 0 };
	double was[F64_PANEL], a[41 * 70];

	for (size_t i = 0; i < 41 * 70; i++)
		a[i] = x[i];
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < n; j++)
			h[i * n + j] = i == j ? 40.0 + fabs(a[i]) : a[i * n + j] / 4;
		was[i] = h[i * n + i];
	}
	if (v->factor64(h, n, n, was, 1e-13) < 0)
		h[0] = NAN;
	v->turn64(b, a, 70, n, 69);
	v->product64(c, n, a + 1, 70, 41, b, F64_PANEL, n, 69, 0);
	v->product64(c, n, a, 70, n, b + F64_PANEL, F64_PANEL, n, 50, 1);
	memcpy(out, h, n * n * sizeof(*h));
	memcpy(out + n * n, c, n * 41 * sizeof(*c));
	return n * n;
}

static void test_tiles(const struct vec_ops *const *all, size_t count, const float *x, size_t n)
{
	static double y[3][F64_PANEL * (F64_PANEL + 41)];
	size_t whole = n * (n + 41), factor = 0;
	double worst = 0;

	for (size_t i = 0; i < count; i++)
		factor = tiles(all[i], x, n, y[i]);
	for (size_t i = 1; i < count; i++) {
		ok(same(y[0], y[i], factor * sizeof(double)), "%s: the factor of %zu has the same "
		   "bytes", all[i]->name, n);
		for (size_t l = factor; l < whole; l++)
			worst = fmax(worst, fabs(y[0][l] - y[i][l]));
	}
	ok(worst < 1e-11 && (count < 3 || same(y[1], y[2], whole * sizeof(double))),
	   "products of f64 panels of %zu columns: baseline within %.1e", n, worst);
	for (size_t i = 0; i < 41; i++)
		for (size_t j = 0; j < n; j++) {
			double s = 0;

			for (size_t l = 0; l < 69; l++)
				s += (double)x[i * 70 + 1 + l] * x[j * 70 + l];
			for (size_t l = 0; i < n && l < 50; l++)
				s -= (double)x[i * 70 + l] * x[j * 70 + 1 + l];
			worst = fmax(worst, fabs(s - y[0][factor + i * n + j]));
		}
	ok(worst < 1e-11, "they are what they should be within %.1e", worst);
}

int main(void)
{
	enum { D = 27, T = 400 };
	static float x[T * D * 2], w[N], o[3][VEC_QUERIES * D];
	const struct vec_ops *all[3] = { &vec_base, NULL, NULL };
	const size_t room = (size_t)4 << 20;
	unsigned char *want = malloc(room), *got = malloc(room);
	size_t n, count = 1;
	struct vec_set set;
	struct err e;

	if (!want || !got)
		return 1;
#ifdef VEC_X86
	if (__builtin_cpu_supports("x86-64-v3"))
		all[count++] = &vec_v3;
	if (__builtin_cpu_supports("x86-64-v4"))
		all[count++] = &vec_v4;
#endif
	for (size_t i = 0; i < sizeof(x) / sizeof(*x); i++)
		x[i] = 4.0f * uniform();
	for (size_t i = 0; i < N; i++)
		w[i] = 30.0f * uniform();
	if (ok(vec_select(&set, &e) == 0, "a set of kernels is chosen"))
		ok(set.ops == all[count - 1], "the best table of it: %s", set.name);
	n = everything(all[0], x, w, want);
	for (size_t i = 1; i < count; i++)
		ok(everything(all[i], x, w, got) == n && same(want, got, n),
		   "%s: the same %zu bytes as %s", all[i]->name, n, all[0]->name);
	for (size_t q0 = 0; q0 < 320; q0 += 64) {
		double worst = 0;

		memset(o, 0, sizeof(o));
		for (size_t i = 0; i < count; i++)
			attention(all[i], o[i], x, D, q0, 310);
		for (size_t i = 0; count > 1 && i < VEC_QUERIES * D; i++)
			worst = fmax(worst, fabs((double)o[0][i] - o[1][i]));
		ok(worst < 2e-5 && (count < 3 || same(o[1], o[2], sizeof(o[1]))),
		   "attention from query %zu on: baseline within %.1e", q0, worst);
	}
	for (size_t t = 1; t <= 13; t += 4) {
		static float y[3][13 * 101];
		double worst = 0;
		size_t k = 700, cols = 28 + t * 5;

		memset(y, 0, sizeof(y));
		for (size_t i = 0; i < count; i++)
			linear(all[i], y[i], x, t, k > T * D * 2 / cols ? T * D * 2 / cols : k,
			       cols);
		for (size_t i = 0; count > 1 && i < t * cols; i++)
			worst = fmax(worst, fabs((double)y[0][i] - y[1][i]));
		ok(worst < 5e-3 && (count < 3 || same(y[1], y[2], sizeof(y[1]))),
		   "linear %zu x %zu: baseline within %.1e", t, cols, worst);
	}
	for (size_t i = 1; i <= F64_PANEL; i += i < 4 ? 1 : 7)
		test_tiles(all, count, x, i);
	free(want);
	free(got);
	return done();
}
