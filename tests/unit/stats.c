/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - statistics of edges against plain sums
 */
#include "lib/model/stats.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

enum { T = 50, ALL = (1 << STAT_COUNT) - 1 };

static struct err e;
enum { EDGES = EDGE_MLP_MID + 1 }; /* of a block without experts */

static float x[EDGES][T * 24];

/* Three slices of uneven length, as a forward pass would bring them. */
static int feed(struct stats *s, const struct model *m)
{
	static const size_t from[] = { 0, 17, 18, T };

	for (int i = 0; i < 3; i++)
		for (int g = 0; g < EDGES; g++)
			if (stats_hook(s, g, x[g] + from[i] * (size_t)model_edge_width(m, g),
				       from[i + 1] - from[i], &e) < 0)
				return -1;
	return 0;
}

static void check_vectors(struct block *b, int g, size_t k)
{
	const float *absmax = block_stat(b, g, STAT_ABSMAX)->data;
	const float *mean = block_stat(b, g, STAT_ABSMEAN)->data;
	const float *min = block_stat(b, g, STAT_MIN)->data;
	const float *max = block_stat(b, g, STAT_MAX)->data;
	bool extremes = true, means = true;

	for (size_t j = 0; j < k; j++) {
		float hi = -INFINITY, lo = INFINITY, big = 0;
		double sum = 0;

		for (size_t t = 0; t < T; t++) {
			const float v = x[g][t * k + j];

			hi = fmaxf(hi, v), lo = fminf(lo, v), big = fmaxf(big, fabsf(v));
			sum += fabs((double)v);
		}
		extremes = extremes && absmax[j] == big && min[j] == lo && max[j] == hi;
		means = means && fabs(mean[j] - sum / T) <= 1e-6 * sum / T;
	}
	ok(extremes, "edge %d: absmax, min, max", g);
	ok(means, "edge %d: absmean", g);
}

static void check_hessian(struct block *b, int g, size_t k)
{
	const struct item *it = block_stat(b, g, STAT_HESSIAN);
	const float *h = it->data;
	double worst = 0, size = 0;
	int64_t width = 0, tokens = 0;

	for (size_t i = 0; i < k; i++)
		for (size_t j = i; j < k; j++) {
			double sum = 0;

			for (size_t t = 0; t < T; t++)
				sum += (double)x[g][t * k + i] * (double)x[g][t * k + j];
			size = fmax(size, fabs(sum));
			worst = fmax(worst, fabs(h[tri_index(i, j, k)] - sum));
		}
	ok_near(worst / size, 0, 1e-6, "edge %d: H's triangle", g);
	record_get_int(&it->rec, "width", &width);
	record_get_int(&it->rec, "tokens", &tokens);
	ok(width == (int64_t)k && tokens == T && it->rec.dtype == DT_F32 && it->rec.rank == 1 &&
	   it->rec.shape[0] == (int64_t)(k * (k + 1) / 2), "edge %d: H's header", g);
}

/* 8 rows of 50 tokens: every 6th, from the first. */
static void check_samples(struct block *b, int g, size_t k)
{
	const struct item *it = block_stat(b, g, STAT_SAMPLES);
	const float *rows = it->data;
	bool same = it->rec.shape[0] == 8 && it->rec.shape[1] == (int64_t)k;

	for (size_t r = 0; r < 8 && same; r++)
		same = memcmp(rows + r * k, x[g] + r * 6 * k, k * sizeof(*rows)) == 0;
	ok(same, "edge %d: samples are every 6th token's", g);
}

static void test_parse(void)
{
	unsigned w = 0;

	ok(stats_parse("absmax,hessian", &w, &e) == 0 &&
	   w == (1u << STAT_ABSMAX | 1u << STAT_HESSIAN), "parse: two words");
	ok(stats_parse("minmax", &w, &e) == 0 && w == (1u << STAT_MIN | 1u << STAT_MAX),
	   "parse: minmax is two");
	ok(stats_parse("none", &w, &e) == 0 && w == 0, "parse: none");
	ok(stats_parse("all", &w, &e) == 0 && w == ALL, "parse: all");
	ok(stats_parse("none,absmax", &w, &e) < 0 && e.cls == ERR_USAGE &&
	   stats_parse("absmax,none", &w, &e) < 0, "parse: none with anything else");
	ok(stats_parse("absmax,", &w, &e) < 0 && e.cls == ERR_USAGE, "parse: an empty word");
	ok(stats_parse("hess", &w, &e) < 0 && strstr(e.what, "'hess'"), "parse: a wrong word");
}

int main(void)
{
	struct model_config c = tiny_config();
	struct model m = tiny_model(&c);
	struct backend be;
	struct stats *s;
	struct block b;
	size_t n;

	if (!ok(backend_open(&be, "cpu", 2, &e) == 0, "backend"))
		return done();
	for (int g = 0; g < EDGES; g++)
		tiny_fill(x[g], T * 24, 0.2f, 3);
	for (int t = 0; t < T; t++) { /* channels that never change their sign */
		x[EDGE_ATTN_IN][t * 8] = 1 + fabsf(x[EDGE_ATTN_IN][t * 8]);
		x[EDGE_ATTN_IN][t * 8 + 1] = -1 - fabsf(x[EDGE_ATTN_IN][t * 8 + 1]);
	}
	block_init(&b, &m);
	tiny_block(&b, 1, &e);
	n = b.n;
	s = stats_new(&m, &be, ALL, 8, T, "", false, &e);
	if (!ok(s != NULL, "statistics"))
		return done();
	ok(feed(s, &m) == 0 && stats_reset(s, &e) == 0 && feed(s, &m) == 0, "slices, twice");
	ok(stats_store(s, &b, &e) == 0 && b.n == n + EDGES * STAT_COUNT, "stored");
	ok(stats_store(s, &b, &e) == 0 && b.n == n + EDGES * STAT_COUNT,
	   "stored again in their place");
	ok_str(block_stat(&b, EDGE_MLP_MID, STAT_MIN)->rec.name, "layers.1.mlp.mid",
	       "named by layer");
	for (int g = 0; g < EDGES; g++) {
		const size_t k = (size_t)model_edge_width(&m, g);

		check_vectors(&b, g, k);
		check_hessian(&b, g, k);
		check_samples(&b, g, k);
	}
	x[EDGE_MLP_IN][8 * 20 + 3] = NAN;
	ok(stats_reset(s, &e) == 0 && feed(s, &m) == 0 && stats_store(s, &b, &e) < 0 &&
	   e.cls == ERR_DATA && strcmp(e.where, "layers.1.mlp.in") == 0,
	   "NaN is named by its edge");
	stats_free(s);
	x[EDGE_MLP_IN][8 * 20 + 3] = 0;
	s = stats_new(&m, &be, 1u << STAT_MAX, 1, T, "", false, &e);
	ok(s != NULL && feed(s, &m) == 0 && stats_store(s, &b, &e) == 0 && b.n == n + EDGES,
	   "only what was asked for; the others are gone");
	stats_free(s);
	s = stats_new(&m, &be, 1u << STAT_SAMPLES, 1000, T, "", false, &e);
	ok(s != NULL && feed(s, &m) == 0 && stats_store(s, &b, &e) == 0 &&
	   block_stat(&b, EDGE_ATTN_MID, STAT_SAMPLES)->rec.shape[0] == T,
	   "more samples than tokens: every token once");
	stats_free(s);
	test_parse();
	block_release(&b);
	backend_close(&be);
	return done();
}
