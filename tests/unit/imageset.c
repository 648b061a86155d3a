/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imageset.c - labels, batches and names of image sets, for those who score models with them
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/imageset.h"
#include "tests/unit/tap.h"

#define CIFAR "tests/data/images/cifar12.bin"

static char dir[64];

static const char *in_dir(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(in_dir(name), "w");

	if (!f || fputs(text, f) < 0 || fclose(f))
		abort();
}

static void model(struct image_model *m, const char *config, const char *processor)
{
	struct err e;

	memset(m, 0, sizeof(*m));
	if (image_model_file(m, "config.json", config, strlen(config), &e) ||
	    (processor && image_model_file(m, "preprocessor_config.json", processor,
					   strlen(processor), &e)) ||
	    image_model_complete(m, "model", &e))
		abort();
}

static const char *const plain = "{\"do_resize\":false,\"do_normalize\":false}";

static void test_cifar(void)
{
	static const long labels[] = { 3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9 };
	const char *path = CIFAR;
	struct image_model m;
	struct imageset *s;
	struct err e;
	float *one, *all;
	bool right = true, same = true;

	model(&m, "{\"image_size\":32,\"num_labels\":10}", plain);
	if (!ok(!imageset_open(&s, &m, &path, 1, true, &e), "CIFAR-10 is a labelled set"))
		abort();
	ok(imageset_count(s) == 12 && imageset_floats(s) == 3072, "of 12 images of 3072 values");
	for (size_t i = 0; i < 12; i++)
		right = right && imageset_label(s, i) == labels[i];
	ok(right, "with the labels of the file");
	ok_str(imageset_name(s, 7), CIFAR ": image 7", "and names");
	one = malloc(3072 * sizeof(*one));
	all = malloc(12 * 3072 * sizeof(*all));
	if (!one || !all || imageset_read_many(s, 2, 10, all, &e))
		abort();
	for (size_t i = 0; i < 10; i++)
		same = same && !imageset_read(s, 2 + i, one, &e) &&
		       !memcmp(one, all + i * 3072, 3072 * sizeof(*one));
	ok(same, "ten at once are ten one by one");
	free(one);
	free(all);
	imageset_close(s);
	image_model_release(&m);
	model(&m, "{\"image_size\":32,\"num_labels\":9}", plain);
	ok(imageset_open(&s, &m, &path, 1, true, &e) == -1 && e.cls == ERR_DATA && !s,
	   "a model of nine classes refuses them");
	ok_str(e.what, "image 11 has the label 9; the model has 9 classes", "and says why");
	image_model_release(&m);
}

static void test_labels(void)
{
	const char *path;
	char list[128];
	struct image_model m;
	struct imageset *s;
	struct err e;

	model(&m, "{\"image_size\":[1,2],\"id2label\":{\"0\":\"1\",\"1\":\"tabby, tabby cat\"}}",
	      plain);
	put("a.ppm", "P6\n2 1\n255\nabcdef");
	put("list", "a.ppm\ttabby, tabby cat\na.ppm\t1\na.ppm\t0\na.ppm\n");
	snprintf(list, sizeof(list), "%s", in_dir("list"));
	path = list;
	if (!ok(!imageset_open(&s, &m, &path, 1, false, &e), "a list"))
		abort();
	ok(imageset_count(s) == 4 && imageset_label(s, 0) == 1, "a label may be a name");
	ok(imageset_label(s, 1) == 0, "of which there may be one that is a number");
	ok(imageset_label(s, 2) == 0, "or the number of a class");
	ok(imageset_label(s, 3) == -1, "or not there");
	imageset_close(s);
	ok(imageset_open(&s, &m, &path, 1, true, &e) == -1 && !strcmp(e.what, "has no label") &&
	   strstr(e.where, "a.ppm"), "but not where labels are needed");
	image_model_release(&m);
}

static void no_model(const char *config, const char *why)
{
	struct image_model m = { 0 };
	struct err e;

	ok(image_model_file(&m, "config.json", config, strlen(config), &e) == -1 &&
	   e.cls == ERR_DATA && !strcmp(e.where, "config.json") && strstr(e.what, why),
	   "%s: %s", config, why);
	image_model_release(&m);
}

static void test_model(void)
{
	struct image_model m = { 0 };
	struct err e;

	no_model("{}", "no image_size");
	no_model("{\"image_size\":0}", "image_size is not a number");
	no_model("{\"image_size\":\"x\"}", "image_size is not a number");
	no_model("{\"image_size\":[3]}", "image_size is not a number");
	no_model("{\"image_size\":99999}", "image_size is not a number");
	no_model("{\"image_size\":9,\"num_channels\":0}", "num_channels is not a number");
	no_model("{\"image_size\":9,\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", "id2label: '2'");
	no_model("{\"image_size\":9,\"id2label\":{\"0\":\"a\",\"x\":\"b\"}}", "id2label: 'x'");
	no_model("{\"image_size\":9,\"id2label\":{\"0\":\"a\",\"1\":7}}", "id2label: '1'");
	no_model("[1]", "not a JSON object");
	ok(image_model_complete(&m, "m.qp", &e) == -1 && !strcmp(e.what, "has no config.json"),
	   "no config.json");
	ok(image_model_open(&m, in_dir("none"), &e) == -1 && e.cls == ERR_NOINPUT,
	   "no directory: ERR_NOINPUT");
	model(&m, "{\"image_size\":9}", NULL);
	ok(m.channels == 3 && m.height == 9 && m.width == 9 && m.nclasses == 2 &&
	   !m.has_processor, "what is not said is what transformers takes it for");
	image_model_release(&m);
}

int main(void)
{
	snprintf(dir, sizeof(dir), "/tmp/imageset-test.%ld", (long)getpid());
	if (mkdir(dir, 0700))
		abort();
	test_cifar();
	test_labels();
	test_model();
	unlink(in_dir("a.ppm"));
	unlink(in_dir("list"));
	rmdir(dir);
	return done();
}
